"""`explain`, `stats`, `ls`, `show`: what they say is true, and nothing is changed by saying it."""

import json

import pytest
from cli_helpers import complaint, data, flat, run, say

from wsgicache import Reason
from wsgicache.cli.output import clean, seconds
from wsgicache.key import group_target
from wsgicache.stores.advice import size
from wsgicache.testing import Response

APP = ("--app", "cli_site:app")
HOST = "http://example.com"


# --- explain ---------------------------------------------------------------------------------------


def test_explain_says_rule_key_variant_arithmetic_and_section(site):
    told = say("explain", f"{HOST}/posts/1", *APP)
    assert "posts/1: hit" in told
    assert "HIT (RFC 9111 §4)" in told
    assert "path='/posts/1' host='example.com' scheme='http'" in told
    assert "variant accept-encoding=''" in told
    assert "300 s lifetime - " in told
    assert "groups posts" in told


def test_explain_says_what_would_make_it_a_hit(site):
    told = data("explain", f"{HOST}/posts/1?x=1", *APP)
    assert (told["hit"], told["reason"], told["section"]) == (False, "BYPASS_QUERY", "house rule 3")
    assert 'query="key"' in told["remedy"]


def test_explain_takes_fields_and_a_method_as_a_server_hands_them_over(site):
    assert data("explain", f"{HOST}/about", "-H", "Cookie: a=b", *APP)["reason"] == "BYPASS_COOKIE"
    assert data("explain", f"{HOST}/about", "-X", "post", *APP)["reason"] == "METHOD_UNSAFE"
    assert data("explain", "/about", "-H", "Host: example.com", *APP)["reason"] == "HIT"
    assert data("explain", f"{HOST}/posts/1", "-H", "accept-encoding: gzip", *APP)["reason"] == "VARY_MISS"


def test_explain_says_that_a_path_alone_is_of_no_host_of_the_site(site):
    told = "a path is asked for on the host localhost"
    assert told in run("explain", "/about", *APP).stderr
    for asked in ((f"{HOST}/about",), ("/about", "-H", "host: example.com"), ("/about?x=1",)):
        assert told not in run("explain", *asked, *APP).stderr, asked


def test_explain_decides_by_the_rules_as_they_are_switched(site):
    assert data("explain", f"{HOST}/admin/x", *APP)["rule"] == "admin"
    run("rules", "disable", "admin", *APP)
    assert data("explain", f"{HOST}/admin/x", *APP)["reason"] == "URI_MISS"
    assert site.rules[0].enabled, "the app at hand switches when it follows the journal, not because of this"


@pytest.mark.parametrize("line", ["Cookie", ": a", "A: b\x1b"])
def test_a_field_that_is_none_is_bad_usage(site, line):
    assert "write 'Name: value'" in complaint("explain", "/", "-H", line, *APP)


def test_a_url_that_is_none_is_bad_usage(site):
    assert "give a path (/post/1) or an http(s) URL" in complaint("explain", "about", *APP)


def test_explain_needs_the_rules(site, url):
    assert "explain needs the site's rules" in complaint("explain", "/", "--store", url)


def test_explain_over_the_memory_of_one_process_says_what_it_cannot_see(make_site):
    site = make_site("memory://")
    site.ask("/about")
    assert data("explain", f"{HOST}/about", *APP)["hit"], "this process's own cache is seen"
    result = run("explain", "/", env={"WSGICACHE_STORE": "memory://"})
    assert "URI_MISS" in result.stdout
    assert "memory:// belongs to one process" in result.stderr
    assert not run("explain", "/?a=b", env={"WSGICACHE_STORE": "memory://"}).stderr


def test_explain_where_nothing_was_stored_yet(tmp_path):
    result = run("explain", "/", env={"WSGICACHE_STORE": f"lmdb://{tmp_path}/none"})
    assert "is not there" in result.stderr
    assert not (tmp_path / "none").exists()


# --- stats -----------------------------------------------------------------------------------------


def test_stats_are_those_of_all_workers(site):
    site.ask("/about", "/about", "/admin/")
    site.tell()
    told = data("stats", *APP)
    assert (told["hits"], told["misses"], told["requests"]) == (2, 4, 7)
    text = say("stats", *APP)
    assert "hit ratio 33.3 % of the requests that the cache handles" in text
    assert f"BYPASS_RULE 1 14.3 % {Reason.BYPASS_RULE.sentence}" in text
    assert "entries 6" in text


def test_stats_before_the_first_request(make_site, url):
    make_site(url).cache.store.mark_of("")
    assert "hit ratio - of" in say("stats", "--store", url)


def test_stats_watched_tell_what_changed(site):
    looks = [json.loads(line) for line in _watch("--json").splitlines()]
    assert [look["requests"] for look in looks] == [0, 0]
    assert looks[0]["at"] <= looks[1]["at"]
    assert "just now 0.0 requests/s told, hit ratio -" in flat(_watch())


def _watch(*options):
    return run("stats", *APP, "--watch", "--every", "0.1", "--times", "2", *options).stdout


# --- ls --------------------------------------------------------------------------------------------


def test_ls_lists_what_is_stored(site):
    told = data("ls", *APP)
    assert not told["more"]
    assert [one["url"] for one in told["entries"]] == [
        f"{HOST}/about", f"{HOST}/posts/1", f"{HOST}/posts/2", f"{HOST}/search?q=tide"
    ]  # fmt: skip
    first = told["entries"][1]
    assert (first["status"], first["state"], first["size"]) == ("200 OK", "fresh", 13)
    assert first["varying"] == {"accept-encoding": ""}
    assert first["groups"] == ["posts"]
    assert 290 < first["ttl"] <= 300


def test_ls_is_one_row_a_line_when_piped_and_fits_80_columns_when_asked(make_site, url):
    site = make_site(url)
    site.ask("/a/" + "long/" * 30, "/posts/1")
    result = run("ls", *APP)
    assert len(result.stdout.splitlines()) == 5
    assert f"{HOST}/a/{'long/' * 30}" in result.stdout
    assert "\x1b" not in result.stdout
    narrow = run("ls", *APP, env={"COLUMNS": "80"}).stdout.splitlines()
    assert max(map(len, narrow)) <= 80
    assert "long/" * 30 in "".join([line[:40].strip() for line in narrow])


def test_a_narrow_terminal_gets_lists_with_words_in_one_piece(site):
    told = run("ls", *APP, env={"COLUMNS": "40"}).stdout
    assert max(map(len, told.splitlines())) <= 40
    assert "status  200\n" in told
    assert "state   fresh\n" in told
    assert "groups  posts\n" in told
    assert not [line for line in told.splitlines() if "─" in line]


def test_options_of_a_watch_without_one_are_bad_usage(site):
    for options in (("--every", "3"), ("--times", "2")):
        assert "go with --watch" in complaint("stats", *options, *APP)


@pytest.mark.parametrize(
    ("options", "paths"),
    [
        (("--prefix", "/posts"), ["/posts/1", "/posts/2"]),
        (("--prefix", f"{HOST}/posts/"), ["/posts/1", "/posts/2"]),
        (("--prefix", "/post"), []),
        (("--prefix", "https://example.com/posts"), []),
        (("--group", "posts"), ["/posts/1", "/posts/2"]),
        (("--group", "none", "--group", "posts"), ["/posts/1", "/posts/2"]),
        (("--group", "none"), []),
        (("--prefix", "/posts/2", "--group", "posts"), ["/posts/2"]),
    ],
)
def test_ls_by_prefix_and_group(site, options, paths):
    assert [one["url"] for one in data("ls", *options, *APP)["entries"]] == [HOST + path for path in paths]


def test_ls_says_that_there_is_more(site):
    result = run("ls", "--limit", "2", *APP)
    assert "2 entries" in result.stdout
    assert "raise --limit 2" in result.stderr
    assert data("ls", "--limit", "2", *APP)["more"]
    assert not data("ls", "--limit", "4", *APP)["more"]


def test_ls_leaves_out_what_was_purged_and_shows_what_is_stale(site):
    site.cache.purge("/posts/1")
    site.cache.purge("/posts/2", soft=True)
    states = {one["url"].rpartition(".com")[2]: one["state"] for one in data("ls", *APP)["entries"]}
    assert states == {"/about": "fresh", "/posts/2": "stale (purged)", "/search?q=tide": "fresh"}
    site.cache.purge_prefix("/")
    assert say("ls", *APP).startswith("nothing is stored")


def test_ls_of_a_bad_prefix_is_bad_usage(site):
    assert "a prefix has no query" in complaint("ls", "--prefix", "/a?b", *APP)


def test_ls_with_other_signing_keys_says_so_and_changes_nothing(make_site, url):
    site = make_site(url, signing_keys=("the key of the site",))
    site.ask("/about")
    assert "1 entry" in say("ls", "--store", url), "who has no key verifies nothing"
    other = {"WSGICACHE_STORE": url, "WSGICACHE_SIGNING_KEYS": "another key than that"}
    result = run("ls", env=other)
    assert "nothing is stored" in result.stdout
    assert "signing_keys" in result.stderr
    assert data("explain", f"{HOST}/about", env=other)["reason"] == "URI_MISS"
    assert run("show", f"{HOST}/about", env=other, code=1)
    assert site.ask("/about").is_hit


# --- show ------------------------------------------------------------------------------------------


def test_show_tells_head_and_numbers_of_every_variant(site):
    site.ask("/posts/1", headers={"Accept-Encoding": "gzip"})
    told = say("show", "/posts/1", *APP)
    assert "(accept-encoding: none)" in told
    assert "(accept-encoding: gzip)" in told
    assert 'Cache-Groups: "posts"' in told
    assert "(made by the cache)" in told
    assert "300 s, from ttl" in told
    assert "answers everybody without a cookie" in told
    assert [one["varying"]["accept-encoding"] for one in data("show", f"{HOST}/posts/1", *APP)] == [
        "",
        "gzip",
    ]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("/search", 2),
        ("/search?q=tide", 1),
        (f"{HOST}/search", 2),
        (f"{HOST}/search?q=tide&utm_campaign=y", 1),
        (f"{HOST}/search?q=other", 0),
        ("https://example.com/search", 0),
    ],
)
def test_show_finds_what_a_url_means(site, asked, found):
    site.ask("/search?q=more")
    assert len(data("show", asked, *APP, code=0 if found else 1)) == found


def test_show_says_what_was_purged(site):
    site.cache.purge("/about")
    assert data("show", "/about", *APP)[0]["state"] == "purged"


def test_show_of_nothing_has_exit_code_1(site):
    assert "nothing is stored for /nothing" in say("show", "/nothing", *APP, code=1)


def test_show_tells_windows_and_whom_it_answers(site):
    site.app.answers(
        Response(
            headers=[
                ("Content-Type", "text/plain"),
                ("Cache-Control", "public, max-age=60, stale-while-revalidate=30, stale-if-error=90"),
                ("ETag", '"app"'),
            ],
            body=b"x",
        )
    )
    site.ask("/windows")
    told = say("show", "/windows", *APP)
    assert "stale-while-revalidate 30 s, stale-if-error 90 s" in told
    assert "everybody without a cookie, visitors with cookies too" in told
    assert "max-age" in told
    assert "made by the cache" not in told


# --- what comes from outside steers no terminal ----------------------------------------------------


def test_control_characters_are_spelled_out(make_site, url):
    site = make_site(url)
    group = "a\x1b]0;title\x07"
    site.ask("/x")
    entry = next(iter(site.cache.store.scan()))
    site.cache.store.set("k", _with_group(entry, group), entry.keep_until)
    for command in (("ls",), ("show", "/x"), ("purge", "--dry-run", "--group", group)):
        result = run(*command, *APP)
        assert "\x1b" not in result.output
        assert "\x07" not in result.output
    assert "\\x1b]0;title\\x07" in run("ls", *APP).stdout
    assert group_target(group) == f"g{group}"


def _with_group(entry, group):
    from wsgicache.entry import Entry

    terms = entry.terms._replace(groups=(group,))
    return Entry(entry.key, terms, entry.headers, entry.body, entry.since, entry.fresh_until, entry.born)


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 s"), (119, "119 s"), (121, "2 min"), (-5.2, "-5 s"), (7300, "2 h"), (200000, "2 d")],
)
def test_durations_for_people(number, text):
    assert seconds(number) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1500, "1.5 kB"),
        (64_000_000, "64 MB"),
        (10**15, "1e+03 TB"),
    ],
)
def test_sizes_for_people(number, text):
    assert size(number) == text


def test_clean_leaves_what_is_printed():
    assert clean("é→x") == "é→x"
    assert clean("a\tb\n") == "a\\tb\\n"
