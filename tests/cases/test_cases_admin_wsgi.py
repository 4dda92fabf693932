"""Purging from outside a request (ADM), background refreshes and layers of caches (WSG)."""

import http_sf
import pytest
from sites import HTML, Site, control, page

from wsgicache import Rule, WSGICache
from wsgicache.testing import FakeClock, ScriptedApp, ask, run

# --- ADM-01 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["PURGE", "BAN", "purge"])
@pytest.mark.parametrize("headers", [None, {"X-Purge-Token": "x"}, {"X-Forwarded-For": "127.0.0.1"}])
def test_adm_01_a_purge_method_is_passed_to_the_app_and_purges_nothing(method, headers):
    site = Site(control("max-age=60"))
    site.fill()
    site.app.answers(page(status="405 Method Not Allowed"))
    assert site.ask(method=method, headers=headers).code == 405
    assert site.ask().is_hit


# --- ADM-19 -----------------------------------------------------------------------------------------

LIVE = {
    "http": {"url": "http://example.com/post/1"},
    "https": {"url": "https://example.com/post/1"},
    "upper case": {"url": "/post/1", "headers": {"Host": "EXAMPLE.com"}},
    "default port": {"url": "/post/1", "headers": {"Host": "example.com:80"}},
    "another port": {"url": "http://example.com:8080/post/1"},
    "another host": {"url": "http://www.example.org/post/1"},
    "mounted": {"SCRIPT_NAME": "/post", "PATH_INFO": "/1"},
    "encoded": {"url": "/post/%31", "RAW_URI": "/post/%31"},
    "a raw target": {"url": "/post/1", "RAW_URI": "/post/1"},
    "a query": {"url": "/post/1?page=2"},
    "a variant": {"url": "/post/1", "headers": {"X-Part": "b"}},
    "behind a proxy": {"url": "/post/1", "headers": {"X-Forwarded-Proto": "https"}},
    "another forwarded host": {"url": "/post/1", "headers": {"X-Forwarded-Host": "shop.example"}},
    "by HTTP/1.0": {"url": "/post/1", "HTTP_HOST": None, "SERVER_NAME": "example.com", "SERVER_PORT": "80"},
}


@pytest.mark.parametrize("request_", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize("typed", ["/post/1", "/post/%31", "/post/1#comments"])
def test_adm_19_a_purge_by_path_reaches_live_traffic_however_it_came(request_, typed):
    site = Site(control("max-age=60", ("Vary", "X-Part")), rules=[Rule("/*", query="key")])
    site.fill(**request_)
    assert site.ask(**request_).is_hit
    assert site.cache.purge(typed).matched == 1
    assert not site.ask(**request_).is_hit


@pytest.mark.parametrize(
    ("typed", "reached"),
    [
        ("http://example.com/post/1", True),
        ("HTTP://EXAMPLE.com:80/post/1", True),
        ("http://example.com/post/%31", True),
        ("https://example.com/post/1", False),
        ("http://example.com:8080/post/1", False),
        ("http://www.example.com/post/1", False),
        ("http://example.com/post/1/", False),
        ("http://example.com/post/1?x=1", False),
        ("/post/2", False),
        ("/post", False),
        ("/Post/1", False),
    ],
)
def test_adm_19_an_absolute_url_means_exactly_itself_and_nothing_matched_is_told(typed, reached):
    site = Site(control("max-age=60"))
    site.fill("/post/1")
    site.ask("/post/1")
    purged = site.cache.purge(typed)
    assert purged.matched == (1 if reached else 0)
    assert site.ask("/post/1").is_hit is not reached


@pytest.mark.parametrize(
    "typed", ["post/1", "example.com/post/1", "ftp://example.com/", "", "http://", "//example.com/"]
)
def test_adm_19_what_is_no_url_is_an_error_and_not_a_quiet_nothing(typed):
    site = Site(control("max-age=60"))
    for purge in (site.cache.purge, site.cache.purge_prefix):
        with pytest.raises(ValueError, match="give a path"):
            purge(typed)


def test_adm_19_nothing_at_all_is_an_error_too():
    site = Site()
    for purge in (site.cache.purge, site.cache.purge_prefix, site.cache.purge_groups):
        with pytest.raises(ValueError, match="at least one"):
            purge()


def test_adm_19_every_kind_of_purge_tells_what_it_reached():
    def answer(environ):
        return control(
            "max-age=60", ("Cache-Groups", '"blog"' if "/blog" in environ["PATH_INFO"] else '"other"')
        )

    site = Site(answer)
    for url in ("/blog/1", "/blog/2", "/blogger", "/about"):
        site.fill(url)
    assert site.cache.purge_groups("nobody").matched == 0
    assert site.cache.purge_prefix("/blo").matched == 0
    assert {entry.key.partition("\0")[0] for entry in site.cache.purge_prefix("/blog").entries()} == {
        "/blog/1",
        "/blog/2",
    }
    assert site.cache.purge("/about", "/nothing").matched == 1


# --- WSG-05 -----------------------------------------------------------------------------------------

PERSONAL = {
    "HTTP_COOKIE": "session=a; _ga=1; lang=de",
    "HTTP_REFERER": "http://example.com/secret",
    "HTTP_USER_AGENT": "somebody's",
    "HTTP_X_FORWARDED_FOR": "203.0.113.9",
    "HTTP_X_REAL_IP": "203.0.113.9",
    "HTTP_X_REQUEST_ID": "7",
    "HTTP_X_PART": "b",
    "HTTP_ACCEPT_ENCODING": "gzip, br;q=0.1",
    "HTTP_ACCEPT_LANGUAGE": "de-AT",
    "HTTP_IF_NONE_MATCH": '"x"',
    "HTTP_IF_MODIFIED_SINCE": "Wed, 15 Nov 1995 00:00:00 GMT",
    "HTTP_RANGE": "bytes=0-1",
    "HTTP_CACHE_CONTROL": "max-age=5",
    "REMOTE_ADDR": "203.0.113.9",
    "REMOTE_HOST": "somebody.example",
    "REMOTE_PORT": "4711",
    "wsgi.file_wrapper": object(),
    "werkzeug.request": object(),
    "flask._preserve_context": object(),
    "beaker.session": object(),
}
ALLOWED = {
    "REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_NAME", "SERVER_PORT",
    "SERVER_PROTOCOL", "SERVER_SOFTWARE", "HTTP_HOST", "RAW_URI", "REQUEST_URI", "HTTP_X_PART", "HTTP_COOKIE",
    "HTTP_ACCEPT_ENCODING",
}  # fmt: skip
"""What is in the key, or says which server this is."""


def refreshed(personal, multithread=True, rules=()):
    """The environ of a background refresh that a visitor with these keys set off."""

    def answer(environ):
        return control("max-age=10, stale-while-revalidate=600", ("Vary", "X-Part"))

    site = Site(answer, rules=rules)
    site.fill("/p", HTTP_X_PART="b", **({"HTTP_COOKIE": "lang=de"} if rules else {}))
    site.clock.tick(20)
    reply = site.ask("/p", **{**personal, "wsgi.multithread": multithread})
    assert reply.cache.get("detail") == "HIT_STALE_WHILE_REVALIDATE"
    site.refreshed()
    assert site.app.calls == 2
    return site, site.last


@pytest.mark.parametrize("multithread", [True, False], ids=["on a thread", "after the response"])
def test_wsg_05_a_refresh_holds_the_keys_inputs_and_nothing_of_the_visitor(multithread):
    named = [Rule("/*", cookies="lang")]
    site, environ = refreshed(PERSONAL, multithread, named)
    texts = {
        name for name, value in environ.items() if isinstance(value, str) and not name.startswith("wsgi")
    }
    assert texts <= ALLOWED
    assert environ["HTTP_X_PART"] == "b", "it is in the key"
    assert environ["HTTP_ACCEPT_ENCODING"] == "", "not the visitor's"
    assert environ["HTTP_COOKIE"] == "lang=de", "a rule names it"
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["wsgi.input"].read() == b""
    assert not {"wsgi.file_wrapper", "werkzeug.request", "flask._preserve_context", "beaker.session"} & set(
        environ
    )
    site.app.answers(page(body=b"must not be asked"))
    assert site.ask("/p", HTTP_X_PART="b", HTTP_COOKIE="lang=de").is_hit


def test_wsg_05_without_a_rule_no_cookie_at_all():
    _, environ = refreshed({**PERSONAL, "HTTP_COOKIE": "_ga=1; csrftoken=x", "HTTP_RANGE": None})
    assert "HTTP_COOKIE" not in environ
    assert "REMOTE_ADDR" not in environ
    assert "HTTP_AUTHORIZATION" not in environ


def test_wsg_05_a_marker_tells_the_app_that_nobody_waits():
    site, environ = refreshed({"HTTP_X_PART": "b"})
    assert environ["wsgicache.refresh"] is True
    assert "wsgicache.refresh" not in site.app.seen[0]


def test_wsg_05_the_refresh_of_a_public_page_renders_what_an_anonymous_client_sees():
    def answer(environ):
        return control(
            "public, max-age=10, stale-while-revalidate=600",
            body=environ.get("HTTP_COOKIE", "nobody").encode(),
        )

    site = Site(answer)
    site.fill()
    site.clock.tick(20)
    for headers in ({"Cookie": "session=a"}, {"Authorization": "Bearer a"}):
        assert site.ask(headers=headers).body == b"nobody"
    site.refreshed()
    assert "HTTP_AUTHORIZATION" not in site.last
    for _ in range(2):
        assert site.ask().body == b"nobody"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-Host": "shop.example"},
        {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"},
    ],
    ids=repr,
)
def test_wsg_05_what_cannot_be_reproduced_is_not_refreshed_behind_the_visitor(headers):
    def answer(environ):
        return control(
            "max-age=10, stale-while-revalidate=600", body=environ.get("HTTP_X_FORWARDED_HOST", "").encode()
        )

    site = Site(answer)
    site.fill(headers=headers)
    site.clock.tick(20)
    assert site.ask(headers=headers).body == b"shop.example"
    site.refreshed()
    assert all(environ.get("HTTP_X_FORWARDED_HOST") == "shop.example" for environ in site.app.seen)


def test_wsg_05_what_is_forwarded_and_keyed_is_reproduced():
    def answer(environ):
        return control(
            "max-age=10, stale-while-revalidate=600", body=environ.get("HTTP_X_FORWARDED_PROTO", "").encode()
        )

    site = Site(answer)
    site.fill(headers={"X-Forwarded-Proto": "https"})
    site.clock.tick(20)
    site.ask(headers={"X-Forwarded-Proto": "https"})
    site.refreshed()
    assert site.app.calls == 2
    reply = site.ask(headers={"X-Forwarded-Proto": "https"})
    assert (reply.is_hit, reply.body, reply.detail) == (True, b"https", None)


# --- WSG-10 -----------------------------------------------------------------------------------------


class Layers:
    """Two caches around one app, with one clock."""

    def __init__(self, answer, inner=None, outer=None):
        self.clock = FakeClock()
        self.app = ScriptedApp(answer)
        self.inner = WSGICache(self.app, clock=self.clock, **(inner or {}))
        self.outer = WSGICache(self.inner, clock=self.clock, **(outer or {}))

    def ask(self, *args, **kwargs):
        """One request from outside."""
        return ask(self.outer, *args, **kwargs)


def statuses(reply):
    """The Cache-Status of each cache, the one nearest to the app first."""
    return http_sf.parse(", ".join(reply.all("cache-status")).encode(), tltype="list")


def test_wsg_10_ages_add_up():
    layers = Layers(control("max-age=100"))
    layers.ask()
    layers.clock.tick(30)
    layers.outer.clear()
    reply = layers.ask()
    assert (reply.field("Age"), layers.app.calls) == ("30", 1)
    layers.clock.tick(20)
    reply = layers.ask()
    assert (reply.is_hit, reply.field("Age"), reply.cache["ttl"]) == (True, "50", "50")
    layers.clock.tick(50)
    layers.ask()
    assert layers.app.calls == 2, "100 seconds in all, not 100 in each"


def test_wsg_10_a_default_lifetime_is_not_given_twice():
    layers = Layers(page(), {"ttl": 100}, {"ttl": 100})
    layers.ask()
    layers.clock.tick(60)
    layers.outer.clear()
    assert layers.ask().field("Age") == "60"
    layers.clock.tick(39)
    assert layers.ask().is_hit
    layers.clock.tick(1)
    layers.ask()
    assert layers.app.calls == 2


def test_wsg_10_cache_status_entries_append():
    layers = Layers(control("max-age=100"))
    first = statuses(layers.ask())
    assert [("stored" in parameters, "fwd" in parameters) for _, parameters in first] == [(True, True)] * 2
    layers.outer.clear()
    inner, outer = statuses(layers.ask())
    assert inner[1]["hit"] is True
    assert str(outer[1]["fwd"]) == "uri-miss"
    layers.ask()
    assert statuses(layers.ask())[-1][1]["hit"] is True


def test_wsg_10_behind_another_cache_that_says_so():
    site = Site(
        control("max-age=100", ("Age", "40"), ("Cache-Status", "Varnish; hit; ttl=60"), ("X-Varnish", "1 2"))
    )
    assert site.fill().cache["ttl"] == "60"
    site.clock.tick(10)
    reply = site.ask()
    assert reply.field("Age") == "50"
    assert [str(name) for name, _ in statuses(reply)] == ["Varnish", "wsgicache"]
    site.clock.tick(50)
    assert not site.ask().is_hit


def test_wsg_10_a_field_that_is_for_this_cache_is_consumed_once():
    layers = Layers(page(("Wsgicache-Cache-Control", "max-age=1000"), ("Cache-Control", "max-age=10")))
    for _ in range(3):
        reply = layers.ask()
        assert reply.field("Wsgicache-Cache-Control") is None
        assert reply.field("Cache-Control") == "max-age=10"
    layers.clock.tick(11)
    layers.ask()
    assert layers.app.calls == 1, "the inner one keeps it for 1000 seconds"
    assert not layers.ask().is_hit, (
        "the outer one goes by Cache-Control, and by the age that the inner one tells"
    )


def test_wsg_10_a_restriction_reaches_both():
    for value in ("private", "no-store"):
        layers = Layers(control(value))
        for _ in range(3):
            layers.ask()
        assert layers.app.calls == 3


@pytest.mark.parametrize("say", ["private", "ignore", "session", "environ"])
def test_wsg_10_what_the_app_says_to_the_cache_reaches_both(say):
    def answer(environ):
        hints = environ["wsgicache.hints"]
        if say == "environ":
            environ["wsgicache.ignore"] = True
        elif say == "session":
            hints.session_accessed = True
        else:
            getattr(hints, say)()
        return page(body=b"somebody's")

    layers = Layers(answer)
    for headers in (None, {"Accept-Encoding": "gzip"}, {"Cookie": "_ga=1"}):
        for _ in range(2):
            assert not layers.ask(headers=headers).is_hit
    assert layers.app.calls == 6


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("through", ["outer", "inner"])
def test_wsg_10_what_the_app_says_of_a_page_does_not_concern_the_parts_that_it_asks_for(layers, through):
    def answer(environ):
        if environ["PATH_INFO"] == "/part":
            return control("max-age=5")
        hints = environ["wsgicache.hints"]
        hints.lifetime = 6000
        hints.groups.add("front")
        run(caches[through], {**environ, "PATH_INFO": "/part"})
        return page()

    app, clock = ScriptedApp(answer), FakeClock()
    inner = WSGICache(app, clock=clock)
    outer = WSGICache(inner, clock=clock) if layers == 2 else inner
    caches = {"inner": inner, "outer": outer}
    ask(outer)
    for cache in (inner, outer):
        lifetimes = {
            entry.key.partition("\0")[0]: (entry.terms.lifetime, entry.terms.groups)
            for entry in cache.store.scan()
        }
        assert lifetimes["/"] == (6000, ("front",))
        assert lifetimes.get("/part", (5, ())) == (5, ())


def test_wsg_10_a_token_is_found_by_both():
    layers = Layers(page(HTML, body=b'<input name="csrf_token" value="a">'))
    for _ in range(3):
        layers.ask()
    assert layers.app.calls == 3


def test_wsg_10_a_visitor_goes_through_both():
    layers = Layers(page())
    layers.ask()
    for _ in range(2):
        layers.ask(headers={"Cookie": "session=a"})
    assert layers.app.calls == 3
    assert layers.app.seen[-1]["HTTP_COOKIE"] == "session=a"


def test_wsg_10_a_purge_of_the_outer_one_alone_asks_the_inner_one():
    layers = Layers(control("max-age=100"))
    layers.ask()
    layers.outer.purge("/")
    layers.ask()
    assert layers.app.calls == 1
    layers.inner.purge("/")
    layers.outer.purge("/")
    layers.ask()
    assert layers.app.calls == 2
