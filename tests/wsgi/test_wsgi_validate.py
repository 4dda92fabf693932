"""WSG-02: `wsgiref.validate` on both sides of the cache, for every kind of answer.

The validator outside judges the cache as an app, the one inside judges it as a server. It notices an
iterable that is not closed when it is collected, so each scenario ends with a collection.
"""

import gc
from wsgiref.validate import validator

import pytest
from wsgi_helpers import Body, Call, Exchange, Waiters, new_cache, text

from wsgicache import Rule
from wsgicache.testing import FailingStore, Response, ScriptedApp, ask

PAGE = Response(headers=text(("ETag", '"v1"')), body=[b"a page", b"", b" of two chunks"])
WINDOWS = "max-age=60, stale-while-revalidate=30, stale-if-error=300"


def collect():
    """Have what is young collected: an unclosed iterable complains in its __del__, which fails the test."""
    gc.collect(1)


class Site:
    """A validated app behind a cache behind a validator."""

    def __init__(self, answer=PAGE, validated=True, **options):
        self.app = ScriptedApp(answer)
        self.cache = new_cache(validator(self.app) if validated else self.app, **options)
        self.outside = validator(self.cache)

    def ask(self, *args, **kwargs):
        reply = ask(self.outside, *args, **kwargs)
        collect()
        return reply

    def tick(self, seconds):
        self.cache.fake_clock.tick(seconds)


@pytest.fixture(params=[True, False], ids=["validated app", "bare app"])
def site(request):
    """Makes a site; with a bare app inside, lists reach the cache as lists."""
    return lambda *args, **options: Site(*args, validated=request.param, **options)


def test_wsg_02_miss_and_hit(site):
    site = site()
    miss, hit = site.ask("/"), site.ask("/")
    assert miss.cache["fwd"] == "uri-miss"
    assert hit.is_hit
    assert site.ask("/").is_hit  # from the fast path too
    assert site.app.calls == 1
    assert miss.body == hit.body == b"a page of two chunks"


def test_wsg_02_hit_with_vary(site):
    site = site(Response(headers=text(("Vary", "Accept-Language")), body=b"hello"))
    for language in ("en", "de", "en", "de", "en", "de"):
        reply = site.ask("/", headers={"Accept-Language": language})
    assert reply.is_hit
    assert site.app.calls == 2


@pytest.mark.parametrize("threads", [True, False])
def test_wsg_02_stale_while_revalidate(site, threads):
    site = site(Response(headers=text(("Cache-Control", WINDOWS)), body=b"page"))
    site.ask("/")
    site.tick(61)
    reply = site.ask("/", **{"wsgi.multithread": threads})
    assert reply.detail == "HIT_STALE_WHILE_REVALIDATE"
    assert site.cache.engine.refresher.drain()
    collect()
    assert site.app.calls == 2
    assert site.ask("/").is_hit


@pytest.mark.parametrize("threads", [True, False])
def test_wsg_02_early_refresh(site, threads):
    def answer(environ):
        site.tick(1)
        return Response(headers=text(("Cache-Control", WINDOWS)), body=[b"page"])

    site = site(answer, early_refresh=1)
    site.cache.engine.uniform = lambda: 0.5
    site.ask("/")
    site.ask("/")
    site.tick(57)
    reply = site.ask("/", **{"wsgi.multithread": threads})
    assert (reply.detail, reply.body) == ("HIT_EARLY_REFRESH", b"page")
    assert site.cache.engine.refresher.drain()
    collect()
    assert (site.app.calls, site.ask("/").cache["ttl"]) == (2, "59")


@pytest.mark.parametrize("failure", [Response(status="503 Service Unavailable", body=b"no"), RuntimeError()])
def test_wsg_02_stale_if_error(site, failure):
    site = site(Response(headers=text(("Cache-Control", WINDOWS)), body=b"page"))
    site.ask("/")
    site.tick(200)
    site.app.answers(failure if isinstance(failure, Response) else Response(error=failure))
    reply = site.ask("/")
    assert reply.cache["fwd"] == "stale"
    assert reply.body == b"page"


def test_wsg_02_revalidated_by_a_304(site):
    site = site()
    site.ask("/")
    site.tick(301)
    site.app.answers(Response(status="304 Not Modified", headers=[("ETag", '"v1"')]))
    reply = site.ask("/")
    assert (reply.code, reply.cache["fwd-status"]) == (200, "304")
    assert reply.stored
    assert reply.body == b"a page of two chunks"
    assert site.ask("/").is_hit


def test_wsg_02_revalidated_by_a_304_of_no_use(site):
    site = site()
    site.ask("/")
    site.tick(301)
    site.app.answers(
        lambda environ: (
            Response(status="304 Not Modified", headers=[("ETag", '"another"')])
            if "HTTP_IF_NONE_MATCH" in environ
            else Response(headers=text(("ETag", '"v2"')), body=b"new")
        )
    )
    assert site.ask("/").body == b"new"
    assert site.app.calls == 3
    assert site.ask("/").is_hit


@pytest.mark.parametrize("warm", [True, False], ids=["from the store", "from the app"])
def test_wsg_02_client_304(site, warm):
    site = site()
    if warm:
        site.ask("/")
    reply = site.ask("/", headers={"If-None-Match": '"v1"'})
    assert (reply.code, reply.body, reply.is_hit) == (304, b"", warm)
    assert site.ask("/").is_hit


@pytest.mark.parametrize(("asked", "code"), [("bytes=0-4", 206), ("bytes=0-1,5-7", 206), ("bytes=999-", 416)])
def test_wsg_02_ranges(site, asked, code):
    site = site()
    site.ask("/")
    reply = site.ask("/", headers={"Range": asked})
    assert reply.is_hit
    assert reply.code == code


@pytest.mark.parametrize("warm", [True, False])
def test_wsg_02_head(site, warm):
    site = site(
        lambda environ: PAGE if environ["REQUEST_METHOD"] == "GET" else Response(headers=PAGE.headers)
    )
    if warm:
        site.ask("/")
    reply = site.ask("/", method="HEAD")
    assert (reply.code, reply.body, reply.is_hit) == (200, b"", warm)


def test_wsg_02_bypass(site):
    site = site()
    assert site.ask("/?page=2").detail == "BYPASS_QUERY"
    assert site.ask("/", **{"wsgicache.ignore": True}).detail == "BYPASS_IGNORED"


@pytest.mark.parametrize(
    "status", ["201 Created", "303 See Other", "422 Unprocessable Content", "500 Internal Server Error"]
)
def test_wsg_02_post(site, status):
    site = site()
    site.ask("/")
    site.app.answers(Response(status=status, body=[b"do", b"ne"]))
    reply = site.ask("/", method="POST", body=b"x=1")
    assert reply.cache["fwd"] == "method"
    assert reply.body == b"done"


def test_wsg_02_error_answers(site):
    site = site(Response(status="500 Internal Server Error", body=b"oops"))
    assert site.ask("/").detail == "NOT_STORED_STATUS"


def test_wsg_02_exception_from_the_app(site):
    site = site(Response(error=LookupError("no such row")))
    with pytest.raises(LookupError, match="no such row"):
        site.ask("/")
    collect()
    site.app.answers(PAGE)
    assert site.ask("/").code == 200


def test_wsg_02_exception_in_the_body(site):
    site = site(Response(body=lambda: Body([b"one", b"two", LookupError("row 3")])))
    with pytest.raises(LookupError, match="row 3"):
        site.ask("/")
    collect()
    assert site.app.closed == 1


def test_wsg_02_only_if_cached(site):
    site = site(profile="rfc")
    for method in ("GET", "HEAD"):
        reply = site.ask("/", method, headers={"Cache-Control": "only-if-cached"})
        assert (reply.code, reply.detail) == (504, "ONLY_IF_CACHED")
    assert site.app.calls == 0


def test_wsg_02_streaming(site):
    site = site(Response(body=lambda: Body([b"one", b"", b"two", b"three"])))
    assert site.ask("/").body == b"onetwothree"
    hit = site.ask("/")
    assert hit.is_hit
    assert hit.field("content-length") == "11"


def test_wsg_02_streaming_broken_off(site):
    site = site(Response(body=lambda: Body([b"one", b"two"])))
    exchange = Exchange(site.outside).begin()
    exchange.pull()
    exchange.close()
    del exchange
    collect()
    assert site.app.closed == 1


@pytest.mark.parametrize("body", [[], [b""], [b"", b""]])
def test_wsg_02_empty_body(site, body):
    site = site(Response(body=body))
    assert site.ask("/").body == b""
    hit = site.ask("/")
    assert hit.is_hit
    assert (hit.body, hit.field("content-length")) == (b"", "0")


def test_wsg_02_no_content(site):
    site = site(Response(status="204 No Content", headers=[("Cache-Control", "max-age=60")]))
    site.ask("/")
    hit = site.ask("/")
    assert hit.is_hit
    assert (hit.code, hit.field("content-length")) == (204, None)


def test_wsg_02_redirect(site):
    site = site(
        Response(status="301 Moved Permanently", headers=text(("Location", "/x")), body=b"moved"),
        rules=[Rule("/*", ttl=60)],
    )
    site.ask("/")
    hit = site.ask("/")
    assert hit.is_hit
    assert (hit.status, hit.field("location")) == ("301 Moved Permanently", "/x")


def test_wsg_02_event_stream(site):
    site = site(Response(headers=[("Content-Type", "text/event-stream")], body=[b"data: 1\n\n"]))
    assert site.ask("/").detail == "NOT_STORED_STREAM"


def test_wsg_02_too_large(site):
    site = site(Response(body=[b"x" * 60, b"y" * 60]), max_body_bytes=100)
    site.ask("/")
    assert site.ask("/").body == b"x" * 60 + b"y" * 60
    assert site.app.calls == 2


def test_wsg_02_cache_off(site):
    site = site(enabled=False)
    assert site.ask("/").detail == "DISABLED"


def test_wsg_02_store_down(site):
    store = FailingStore()
    site = site(store=store)
    store.failing = {"*"}
    assert site.ask("/").detail == "STORE_DOWN"
    assert site.ask("/", method="POST", body=b"x").code == 200


@pytest.mark.parametrize("stored", [True, False])
def test_wsg_02_followers(site, stored):
    site = site(PAGE if stored else Response(headers=text(("Cache-Control", "private")), body=b"mine"))
    waiters = Waiters(site.cache)
    gate = site.app.hold("/")
    leader = Call(ask, site.outside, "/")
    gate.wait_entered()
    follower = Call(ask, site.outside, "/")
    waiters.arrived()
    gate.open()
    assert leader.result().body == follower.result().body
    collect()
    assert site.app.calls == (1 if stored else 2)


def test_wsg_02_generator_function(site):
    def app(environ, start_response):
        start_response("200 OK", text())
        yield b"late"

    site = site()
    site.cache.app = validator(app) if site.cache.app is not site.app else app
    assert site.ask("/").body == b"late"
    assert site.ask("/").is_hit
