"""`warm`, and the module that it is made of: in process, as a stranger, one site, bounded and polite."""

import gzip
import threading
from itertools import islice, pairwise

import cli_site
import pytest
from cli_helpers import complaint, lines, run, say
from waiting import PATIENCE

from wsgicache import WSGICache
from wsgicache.sitemap import SitemapError
from wsgicache.testing import FakeClock, Response, ScriptedApp
from wsgicache.warm import Result, StopWarming, Warmer, cache_status

HOST = "http://example.com"
APP = ("--app", "cli_site:app")


def sitemap(*urls, index=False):
    outer, inner = ("sitemapindex", "sitemap") if index else ("urlset", "url")
    body = "".join([f"<{inner}><loc>{url}</loc></{inner}>" for url in urls])
    return f'<{outer} xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{body}</{outer}>'.encode()


class Pace:
    """A clock that moves when somebody waits."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now

    def pause(self, seconds):
        self.waits.append(round(seconds, 6))
        self.now += seconds


def warmer(app, **options):
    pace = Pace()
    options = {"clock": pace, "pause": pace.pause, "concurrency": 1, **options}
    made = Warmer(app, options.pop("site", HOST), **options)
    return made, pace


@pytest.fixture
def app():
    return ScriptedApp(cli_site.answer)


@pytest.fixture
def cache(app):
    return WSGICache(app)


def results(made, urls):
    return {one.url.removeprefix(HOST): (one.result, one.reason) for one in made.run(urls)}


# --- what becomes of a page ------------------------------------------------------------------------


def test_what_became_of_each_page_is_told(cache, app):
    made, _ = warmer(cache)
    urls = ["/a", "/a", f"{HOST}/a", "/welcome", "/private", "/q?x=1", "/broken", "/moved", "/away", "/loop"]
    assert results(made, [*urls, "http://other.example/x", "ftp://x/y"]) == {
        "/a": (Result.STORED, ""),
        "/welcome": (Result.NOT_STORED, "NOT_STORED_SET_COOKIE"),
        "/private": (Result.NOT_STORED, "NOT_STORED_PRIVATE"),
        "/q?x=1": (Result.NOT_STORED, "BYPASS_QUERY"),
        "/broken": (Result.FAILED, "RuntimeError: no database"),
        "/moved": (Result.REDIRECT, "NOT_STORED_NO_LIFETIME"),
        "/posts/1": (Result.STORED, ""),  # where that one leads
        "/away": (Result.ELSEWHERE, "leads to another site"),
        "/loop": (Result.FAILED, "redirects in a circle"),
        "http://other.example/x": (Result.ELSEWHERE, "another site"),
        "ftp://x/y": (Result.ELSEWHERE, "another site"),
    }
    assert results(warmer(cache)[0], ["/a", "/posts/1"]) == {
        "/a": (Result.ALREADY, ""),
        "/posts/1": (Result.ALREADY, ""),
    }


def moving(app, *steps, **fields):
    """Redirects from each path to the next, with fields that they have."""
    leads = dict(pairwise(steps))
    more = [(name.replace("_", "-"), value) for name, value in fields.items()]

    def answer(environ):
        target = leads.get(environ["PATH_INFO"])
        return Response(body=b"x") if target is None else Response("301 Moved", [("Location", target), *more])

    app.answers(answer)


def told(made, urls):
    return [(one.url.removeprefix(HOST), one.result, one.status, one.location) for one in made.run(urls)]


def test_a_redirect_is_told_of_and_what_it_leads_to_is_one_more_page(cache, app):
    moving(app, "/old", "/new#top")
    made, pace = warmer(cache, rate=4)
    assert told(made, ["/old", "/a", "/new"]) == [
        ("/old", Result.REDIRECT, 301, f"{HOST}/new"),
        ("/new", Result.STORED, 200, ""),
        ("/a", Result.STORED, 200, ""),
    ]
    assert pace.waits == [0.25, 0.25]  # the rate is that of all requests
    assert app.calls == 3


def test_a_redirect_that_is_stored_itself_is_a_page_as_any(cache, app):
    moving(app, "/old", "/new", cache_control="max-age=60")
    assert told(warmer(cache)[0], ["/old"]) == [
        ("/old", Result.STORED, 301, f"{HOST}/new"), ("/new", Result.STORED, 200, "")
    ]  # fmt: skip
    assert told(warmer(cache)[0], ["/old"]) == [
        ("/old", Result.ALREADY, 301, f"{HOST}/new"), ("/new", Result.ALREADY, 200, "")
    ]  # fmt: skip


@pytest.mark.parametrize("refreshes", [True, False])
def test_a_stale_page_that_answers_at_once_is_refreshed_behind(refreshes):
    control = [("Cache-Control", "max-age=10, stale-while-revalidate=100")]
    app, clock = ScriptedApp(Response(headers=control)), FakeClock()
    cache = WSGICache(app, clock=clock)
    assert results(warmer(cache)[0], ["/a"]) == {"/a": (Result.STORED, "")}
    clock.tick(11)
    if not refreshes:
        app.answers(Response("500 Oops"))
    told = (Result.STORED, "") if refreshes else (Result.NOT_STORED, "HIT_STALE_WHILE_REVALIDATE")
    assert results(warmer(cache)[0], ["/a"]) == {"/a": told}
    assert app.calls == 2


def test_a_stale_page_that_stands_in_for_an_app_that_fails_is_a_failure():
    app, clock = (
        ScriptedApp(Response(headers=[("Cache-Control", "max-age=10, stale-if-error=100")])),
        FakeClock(),
    )
    cache = WSGICache(app, clock=clock)
    list(warmer(cache)[0].run(["/a"]))
    clock.tick(11)
    app.answers(Response("500 Oops"))
    assert results(warmer(cache)[0], ["/a"]) == {"/a": (Result.FAILED, "HIT_STALE_IF_ERROR")}


def test_redirects_count_as_pages(cache, app):
    moving(app, "/old", "/new")
    made, _ = warmer(cache, limit=1)
    assert told(made, ["/old"]) == [("/old", Result.REDIRECT, 301, f"{HOST}/new")]
    assert made.cut


def test_redirects_in_a_circle_and_too_many_in_a_row(cache, app):
    moving(app, "/1", "/2", "/3", "/1")
    assert [one.result for one in warmer(cache)[0].run(["/1", "/2"])] == [
        Result.REDIRECT, Result.REDIRECT, Result.FAILED
    ]  # fmt: skip
    moving(app, *[f"/{number}" for number in range(99)])
    *others, last = warmer(cache)[0].run(["/0"])
    assert {one.result for one in others} == {Result.REDIRECT}
    assert (last.url, last.result, last.reason) == (f"{HOST}/5", Result.FAILED, "more than 5 redirects")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("https://example.com/a", "leads to https://example.com: give --site https://example.com to warm its pages"),  # noqa: E501
        ("//example.com:8080/a", "leads to http://example.com:8080: give --site http://example.com:8080 to warm its pages"),  # noqa: E501
        ("http://[", "leads to another site"),
        ("mailto:x@y.example", "leads to another site"),
    ],
)  # fmt: skip
def test_a_redirect_that_leads_to_another_site(cache, app, target, why):
    moving(app, "/old", target)
    ((result, reason),) = results(warmer(cache)[0], ["/old"]).values()
    assert (result, reason) == (Result.ELSEWHERE, why)


def test_what_is_no_url_stops_nothing(cache):
    assert results(warmer(cache)[0], ["http://[", "/a"]) == {
        "http://[": (Result.ELSEWHERE, "another site"), "/a": (Result.STORED, "")
    }  # fmt: skip


def test_requests_are_a_strangers_and_a_browsers(cache, app):
    made, _ = warmer(cache, headers={"accept-language": "de"})
    list(made.run(["/posts/1"]))
    (environ,) = app.seen
    assert environ["HTTP_USER_AGENT"] == "wsgicache-warm"
    assert environ["HTTP_ACCEPT_ENCODING"] == "br, gzip, zstd"  # as the cache hands a browser's on
    assert environ["HTTP_ACCEPT_LANGUAGE"] == "de"
    assert (environ["HTTP_HOST"], environ["wsgi.url_scheme"]) == ("example.com", "http")
    assert not {"HTTP_COOKIE", "HTTP_AUTHORIZATION", "REMOTE_USER"} & set(environ)


def test_what_is_warmed_is_what_visitors_ask_for(cache):
    from wsgicache.testing import ask

    made, _ = warmer(cache, site="https://example.com:443")
    list(made.run(["/caf%C3%A9", "/posts/1"]))
    assert ask(cache, "https://example.com/caf%C3%A9", RAW_URI="/caf%C3%A9").is_hit
    browser = {"Accept-Encoding": "gzip, deflate, br, zstd"}
    assert ask(cache, "https://example.com/posts/1", headers=browser).is_hit


@pytest.mark.parametrize("name", ["Cookie", "authorization", "PROXY-AUTHORIZATION"])
def test_nobody_is_impersonated(cache, name):
    with pytest.raises(ValueError, match="names a visitor"):
        Warmer(cache, HOST, headers={name: "x"})


@pytest.mark.parametrize(
    ("site", "options"),
    [
        ("/", {}),
        (f"{HOST}/a", {}),
        (f"{HOST}?a", {}),
        ("ftp://x", {}),
        (HOST, {"rate": 0}),
        (HOST, {"limit": 0}),
    ],
)
def test_a_site_that_is_none_and_numbers_that_are_too_small(cache, site, options):
    with pytest.raises(ValueError, match=r"give|not a URL"):
        Warmer(cache, site, **options)


def test_a_server_error_is_a_failure_and_stops_the_rest_when_it_goes_on(cache, app):
    app.answers(Response("500 Oops"))
    made, _ = warmer(cache)
    got = made.run([f"/{number}" for number in range(99)])
    assert {(one.result, one.status) for one in islice(got, 20)} == {(Result.FAILED, 500)}
    with pytest.raises(StopWarming, match="20 failures in a row"):
        next(got)
    assert app.calls == 20


def test_a_store_that_is_down_stops_it(app):
    from wsgicache.testing import FailingStore

    store = FailingStore()
    cache = WSGICache(app, store)
    store.failing.add("*")
    made, _ = warmer(cache)
    with pytest.raises(StopWarming, match="the store does not answer"):
        list(made.run(["/a", "/b", "/c"]))
    assert app.calls == 1


def test_an_app_without_the_cache_is_told_of(app):
    made, _ = warmer(app)
    assert results(made, ["/a"]) == {"/a": (Result.NOT_STORED, "the cache did not see it")}


def test_bodies_are_read_to_their_end_and_closed(cache, app):
    app.answers(lambda environ: Response(headers=[("Content-Type", "a/b")], body=[b"1", b"2", b"3"]))
    made, _ = warmer(cache)
    assert results(made, ["/a"]) == {"/a": (Result.STORED, "")}
    assert app.closed == 1


def test_an_endless_body_is_left(cache, app, monkeypatch):
    monkeypatch.setattr("wsgicache.warm._LARGEST_PAGE", 5000)
    chunks = iter(lambda: b"x" * 1000, b"")
    app.answers(lambda environ: Response(headers=[("Content-Type", "a/b")], body=lambda: chunks))
    made, _ = warmer(cache)
    list(made.run(["/endless"]))
    assert app.closed == 1


def test_a_body_that_says_how_long_it_is_is_read_to_its_end(cache, app, monkeypatch):
    monkeypatch.setattr("wsgicache.warm._LARGEST_PAGE", 5000)
    headers = [("Content-Type", "a/b"), ("Content-Length", "20000")]
    app.answers(lambda environ: Response(headers=headers, body=[b"x" * 1000] * 20))
    made, _ = warmer(cache)
    assert results(made, ["/a"]) == {"/a": (Result.STORED, "")}


# --- bounds ----------------------------------------------------------------------------------------


def test_the_rate_is_kept(cache):
    made, pace = warmer(cache, rate=4)
    list(made.run(["/a", "/b", "/c"]))
    assert pace.waits == [0.25, 0.25]


def test_the_limit_is_kept_and_said(cache, app):
    made, _ = warmer(cache, limit=2)
    assert len(list(made.run(["/a", "/b", "/a"]))) == 2
    assert not made.cut
    made, _ = warmer(cache, limit=2)
    assert len(list(made.run(["/a", "/b", "/c", "/d"]))) == 2
    assert made.cut


def test_so_many_at_once_and_no_more(cache, app):
    most, running, lock = [0], [0], threading.Lock()
    both = threading.Barrier(3, timeout=PATIENCE)

    def answer(environ):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        both.wait()
        with lock:
            running[0] -= 1
        return Response(body=b"x")

    app.answers(answer)
    made, _ = warmer(cache, concurrency=3)
    assert len(list(made.run([f"/{number}" for number in range(6)]))) == 6
    assert most == [3]


def test_it_ends_when_it_is_told_to(cache, app):
    made, _ = warmer(cache)
    got = made.run([f"/{number}" for number in range(9)])
    next(got)
    made.stop()
    assert list(got) == []
    assert app.calls == 1


def test_whoever_stops_listening_stops_it(cache, app):
    made, _ = warmer(cache)
    got = made.run([f"/{number}" for number in range(9)])
    next(got)
    got.close()
    assert app.calls <= 2


# --- sitemaps --------------------------------------------------------------------------------------


def test_a_sitemap_comes_from_the_app(cache, app):
    cli_site.PAGES["/sitemap.xml"] = sitemap(f"{HOST}/a", f"{HOST}/b?x=1&amp;y=2")
    made, _ = warmer(cache)
    assert list(made.sitemap("/sitemap.xml")) == [f"{HOST}/a", f"{HOST}/b?x=1&y=2"]
    assert not app.seen[0].get("HTTP_ACCEPT_ENCODING")


def test_an_index_leads_to_sitemaps_of_the_same_site_once(cache):
    cli_site.PAGES.update(
        {
            "/index.xml": sitemap(
                f"{HOST}/one.xml", f"{HOST}/two.xml.gz", f"{HOST}/one.xml", "http://169.254.169.254/meta",
                f"{HOST}/index2.xml", f"{HOST}/none.xml", f"{HOST}/index.xml", "file:///etc/passwd", index=True,  # noqa: E501
            ),
            "/one.xml": sitemap(f"{HOST}/a"),
            "/two.xml.gz": gzip.compress(sitemap(f"{HOST}/b")),
            "/index2.xml": sitemap(f"{HOST}/three.xml", index=True),
        }
    )  # fmt: skip
    made, _ = warmer(cache)
    assert list(made.sitemap(f"{HOST}/index.xml")) == [f"{HOST}/a", f"{HOST}/b"]
    assert [one.partition(": ")[0] for one in made.skipped] == [
        "http://169.254.169.254/meta", f"{HOST}/three.xml", f"{HOST}/none.xml", "file:///etc/passwd"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://other.example/sitemap.xml", "another site than http://example.com"),
        ("/broken", "the app failed: no database"),
        ("/moved", "the app answers 302, which leads to http://example.com/posts/1"),
        ("/posts/1", "is no sitemap"),
    ],
)
def test_a_sitemap_that_cannot_be_had(cache, url, told):
    cli_site.PAGES["/posts/1"] = b"<html/>"
    made, _ = warmer(cache)
    with pytest.raises(SitemapError, match=told):
        list(made.sitemap(url))


def test_nothing_goes_over_a_network(cache, monkeypatch):
    import socket

    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    cli_site.PAGES["/sitemap.xml"] = sitemap(f"{HOST}/a", "http://169.254.169.254/", f"{HOST}/away")
    made, _ = warmer(cache)
    got = [one.result for one in made.run(made.sitemap("/sitemap.xml"))]
    assert sorted(got, key=str) == [Result.ELSEWHERE, Result.ELSEWHERE, Result.STORED]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["wsgicache; hit; ttl=3"], {"hit": "", "ttl": "3"}),
        (["other; hit, wsgicache; fwd=stale; stored"], {"fwd": "stale", "stored": ""}),
        (["wsgicache; hit", "wsgicache; fwd=bypass; detail=X"], {"fwd": "bypass", "detail": "X"}),
        (['wsgicache; fwd=miss; key="a, b; hit"; ttl=1'], {"fwd": "miss", "key": '"a, b; hit"', "ttl": "1"}),
        (["wsgicachexx; hit"], None),
        ([], None),
    ],
)  # fmt: skip
def test_cache_status_is_read(lines, said):
    assert cache_status([("Cache-Status", line) for line in lines]) == said


# --- the command -----------------------------------------------------------------------------------


def test_the_command_fills_the_store(make_site, url, tmp_path):
    site = make_site(url)
    cli_site.PAGES["/sitemap.xml"] = sitemap(f"{HOST}/a", f"{HOST}/welcome", f"{HOST}/broken")
    (tmp_path / "local.xml").write_bytes(sitemap(f"{HOST}/b", "http://other.example/"))
    result = run(
        "warm", "--sitemap", f"{HOST}/sitemap.xml", "--sitemap-file", tmp_path / "local.xml", "--urls", "-",
        "--rate", "500", *APP, stdin="/c\n", code=1,
    )  # fmt: skip
    told = result.stdout
    assert "stored           3\nnot stored       1\nfailed           1\nelsewhere        1\n" in told
    assert "NOT_STORED_SET_COOKIE: The response sets a cookie." in told
    assert "not stored      200   NOT_STORED_SET_COOKIE" in told
    assert "RuntimeError: no database" in told
    assert "another site" in told
    make_site(url)
    assert site.ask("/a", headers={"Accept-Encoding": "br"}).is_hit


def test_the_command_tells_scripts_of_each_page(make_site, url):
    make_site(url)
    told = lines(
        "warm",
        "--urls",
        "-",
        "--site",
        HOST,
        "--concurrency",
        "1",
        "--rate",
        "500",
        *APP,
        stdin="/a\n/private",
    )
    assert [(one["url"], one["result"], one["reason"]) for one in told] == [
        (f"{HOST}/a", "stored", ""), (f"{HOST}/private", "not stored", "NOT_STORED_PRIVATE")
    ]  # fmt: skip


def test_the_command_tells_where_redirects_lead(make_site, url):
    make_site(url)
    given = ("warm", "--urls", "-", "--site", HOST, "--rate", "500", "--concurrency", "1", *APP)
    result = run(*given, stdin="/moved\n/away\n")
    assert result.stdout.startswith("result      pages\n")
    assert "\nstored          1\nredirect        1\nelsewhere       1\n" in result.stdout
    assert "redirect       302   NOT_STORED_NO_LIFETIME: " in result.stdout
    assert "/moved → /posts/1" in result.stdout
    assert "/away → http://other.example/" in result.stdout
    assert [(one["url"], one["result"], one["location"]) for one in lines(*given, stdin="/moved")] == [
        (f"{HOST}/moved", "redirect", f"{HOST}/posts/1"), (f"{HOST}/posts/1", "already there", "")
    ]  # fmt: skip


def test_so_many_kinds_of_results_and_no_more_are_shown(make_site, url, monkeypatch):
    make_site(url)
    monkeypatch.setattr("wsgicache.cli.warming._KINDS", 2)
    result = run("warm", "--urls", "-", "--site", HOST, *APP, stdin="/moved\n/private\n/welcome\n/q?a=1")
    assert "2 more kinds of results; --json tells of each page" in result.stderr


def test_the_memory_of_this_process_is_warmed_for_nothing(make_site):
    make_site("memory://")
    assert "warms nothing" in run("warm", "--urls", "-", "--site", HOST, *APP, stdin="/a").stderr


def test_there_are_more_pages_than_the_limit(make_site, url):
    make_site(url)
    result = run("warm", "--urls", "-", "--site", HOST, "--limit", "1", *APP, stdin="/a\n/b")
    assert "there are more pages than --limit" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name pages: --sitemap URL"),
        (("--urls", "-"), "whose pages?"),
        (("--sitemap", "/sitemap.xml"), "give --site https://example.com"),
        (("--sitemap", "sitemap.xml"), "give a path (/post/1) or an http(s) URL"),
        (("--sitemap", f"{HOST}/none.xml"), "neither XML nor"),
        (("--sitemap", f"{HOST}/posts/1"), "is no sitemap"),
        (("--urls", "-", "--site", "x"), "not a URL of this site"),
        (("--urls", "bad.txt", "--site", HOST), "--urls, line 3: 'posts/1' is no URL: give a path"),
        (("--urls", "-", "--site", HOST, "-H", "Cookie: a=b"), "names a visitor"),
    ],
)
def test_bad_usage(make_site, url, arguments, told, tmp_path, monkeypatch):
    make_site(url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text("# pages\n/a\nposts/1\n")
    cli_site.PAGES["/posts/1"] = b"<html/>"
    cli_site.PAGES["/none.xml"] = b"\xff\xff"
    assert told in complaint("warm", *arguments, *APP, stdin="/a").replace("\n", " ")


def test_a_sitemap_that_cannot_be_had_leaves_no_empty_table(make_site, url):
    make_site(url)
    assert run("warm", "--sitemap", f"{HOST}/none.xml", *APP, code=2).stdout == ""


def test_a_store_alone_has_no_app(url):
    assert "give --app MODULE:ATTRIBUTE or --ini FILE" in complaint(
        "warm", "--sitemap", f"{HOST}/s", "--store", url
    )


def test_a_store_that_is_down_has_exit_code_3(make_site):
    from wsgicache.testing import SharedServer, SharedStore

    server = SharedServer()
    make_site(SharedStore(server))
    server.down = True
    result = run("warm", "--urls", "-", "--site", HOST, *APP, stdin="/a\n/b", code=3)
    assert "the store does not answer" in result.stderr


def test_people_see_a_summary_that_fits(make_site, url):
    make_site(url)
    env = {"COLUMNS": "80"}
    result = run(
        "warm", "--urls", "-", "--site", HOST, *APP, stdin="/" + "long/" * 40 + "\n/welcome", env=env
    )
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert say("ls", "--prefix", "/long", *APP).count("long/") == 40
