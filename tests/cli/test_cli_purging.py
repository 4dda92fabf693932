"""`purge` and `rules`: they reach every worker, say what they matched, and exit codes tell."""

import pytest
from cli_helpers import complaint, data, run, say

APP = ("--app", "cli_site:app")
HOST = "http://example.com"


@pytest.mark.parametrize(
    ("what", "paths"),
    [
        (("/posts/1",), ["/posts/1"]),
        (("/posts/1", "/about"), ["/about", "/posts/1"]),
        ((f"{HOST}/search?q=tide",), ["/search?q=tide"]),
        (("--prefix", "/posts"), ["/posts/1", "/posts/2"]),
        (("--group", "posts"), ["/posts/1", "/posts/2"]),
        (("--group", "posts", "--prefix", "/posts", "/posts/1"), ["/posts/1", "/posts/2"]),
    ],
)
@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_says_what_it_matched_as_its_dry_run_did(site, what, paths, soft):
    softly = ("--soft",) * soft
    told = data("purge", *what, *softly, "--dry-run", *APP)
    assert (told["matched"], told["urls"]) == (len(paths), [HOST + path for path in paths])
    assert site.ask(paths[0]).is_hit, "a dry run changes nothing"
    assert data("purge", *what, *softly, *APP) == {**told, "dry_run": False}
    reply = site.ask(paths[0])
    assert (reply.is_hit, reply.detail) == (False, "STALE_PURGED" if soft else "MISS_PURGED")
    for rest in ("--dry-run",), ():
        site.cache.purge(*paths, soft=soft)
        assert data("purge", *what, *softly, *rest, *APP, code=1)["matched"] == 0


def test_everything(site):
    told = data("purge", "--all", "--dry-run", *APP)
    assert told["matched"] == 4
    told = data("purge", "--all", *APP)
    assert told["matched"] >= 4
    assert told["roughly"]
    assert not site.ask("/about").is_hit
    assert "marked as stale" in say("purge", "--all", "--soft", *APP)
    assert site.ask("/about").detail == "STALE_PURGED"


def test_people_read_what_was_purged(site):
    assert say("purge", "/posts/1", "--dry-run", *APP).startswith("/posts/1: 1 entry would be purged")
    told = say("purge", "--group", "posts", *APP)
    assert told == f"group posts: 2 entries purged {HOST}/posts/1 {HOST}/posts/2 "
    assert "nothing matched" in say("purge", "--group", "posts", *APP, code=1)


def test_a_star_is_a_star_and_that_is_said(site):
    result = run("purge", "--prefix", "/posts/*", *APP, code=1)
    assert "a * stands for itself here: --prefix /posts" in result.stderr
    assert "stands for itself" not in run("purge", "/none", *APP, code=1).stderr
    assert site.ask("/posts/1").is_hit


def test_records_are_not_called_entries_where_everything_goes(site):
    assert "everything: purged; the store held about" in say("purge", "--all", *APP)
    assert "nothing matched" in say("purge", "--all", *APP, code=1)


def test_a_long_list_is_cut(site):
    site.ask(*[f"/many/{number}" for number in range(25)])
    assert "and 5 more URLs; --json lists all" in say("purge", "--prefix", "/many", *APP)


def test_each_worker_hears_of_it(site, make_site, url):
    other = make_site(url)
    assert other.ask("/about").is_hit
    run("purge", "/about", "--wait", "--store", url)
    assert other.ask("/about").detail == "MISS_PURGED"


def test_a_namespace_is_its_own(make_site, url):
    site = make_site(url, namespace="shop")
    site.ask("/about")
    run("purge", "/about", "--store", url, code=1)
    assert site.ask("/about").is_hit
    run("purge", "/about", "--store", url, "--namespace", "shop")
    assert not site.ask("/about").is_hit


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ((), "name a URL, --prefix, --group or --all; see wsgicache purge --help"),
        (("about",), "give a path (/post/1) or an http(s) URL"),
        (("--prefix", "/a?b"), "a prefix has no query"),
        (("--group", ""), "a group has a name"),
        (("--soft", "--bogus"), "No such option '--bogus'"),
    ],
)
def test_bad_usage(site, what, told):
    assert told in complaint("purge", *what, *APP)


def test_of_several_things_all_are_purged_or_none(site):
    complaint("purge", "/about", "--prefix", "/a?b", *APP)
    complaint("purge", "/about", "about", *APP)
    assert site.ask("/about").is_hit
    assert data("purge", "--all", "/about", *APP)["matched"] >= 4
    assert not site.ask("/about").is_hit


# --- rules -----------------------------------------------------------------------------------------


def test_rules_are_shown_as_they_stand(site):
    states = data("rules", *APP)
    assert [(one["name"], one["pattern"], one["enabled"]) for one in states] == [
        ("admin", "/admin/*", True), ("search", "/search", True), ("/old", "/old", True)
    ]  # fmt: skip
    told = say("rules", *APP)
    assert "search /search on query=key ignore_query=utm_*" in told
    assert "admin /admin/* on bypass" in told


def test_rules_by_the_store_alone_have_no_options(site, url):
    told = say("rules", "--store", url)
    assert "admin /admin/* on" in told
    assert "bypass" not in told


def test_a_rule_is_switched_in_every_worker(site, make_site, url):
    other = make_site(url)
    assert other.ask("/admin/x").detail == "BYPASS_RULE"
    assert "switched off in all workers" in say("rules", "disable", "admin", "--store", url)
    assert "is off already" in say("rules", "disable", "admin", "--store", url)
    for worker in (site, other):
        worker.ask("/about")
        assert worker.ask("/admin/x").detail != "BYPASS_RULE"
    assert data("rules", *APP)[0]["enabled"] is False
    assert data("rules", "enable", "admin", *APP) == {"name": "admin", "enabled": True, "changed": True}
    other.ask("/about", headers={"Cache-Control": "x"}, method="HEAD")
    assert other.ask("/admin/x").detail == "BYPASS_RULE"


def test_an_unknown_rule_is_bad_usage(site):
    assert "no rule is named 'amdin'; known: admin, search" in complaint("rules", "enable", "amdin", *APP)


def test_no_rules_yet(make_site, url):
    make_site(url).cache.store.mark_of("")
    assert "has not answered a request yet" in say("rules", "--store", url)
    assert data("rules", "--store", url) == []


def test_options_stand_behind_the_subcommand(site):
    assert "options go behind enable" in complaint("rules", *APP, "enable", "admin")
