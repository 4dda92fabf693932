"""A HEAD that is asked as a GET: the client gets the head and no byte of the body, which is stored."""

import pytest
from wsgi_helpers import TEXT, Body, BodyApp, Call, Exchange, Waiters, count, flights, length, new_cache, text

from wsgicache import Reason
from wsgicache.testing import Response, ScriptedApp, ask


def head(cache, **kwargs):
    return Exchange(cache, method="HEAD", **kwargs)


@pytest.mark.parametrize("before", [[], [b""], [b"", b""]])
@pytest.mark.parametrize("words", [[b"one", b"two"], [b"one"], [b""], []])
@pytest.mark.parametrize("more", [[], [("Cache-Control", "private")]])
def test_a_late_head(before, words, more):
    def app(environ, start_response):
        yield from before
        start_response("200 OK", text(*more))
        yield from words

    cache = new_cache(app)
    exchange = head(cache).whole()
    assert exchange.body == b""
    assert exchange.reply.code == 200
    assert ask(cache).body == b"".join(words)
    assert ask(cache).is_hit is not bool(more)


def test_a_written_body():
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))(b"one")
        return [b"two"]

    cache = new_cache(app)
    assert head(cache).whole().body == b""
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"onetwo")


@pytest.mark.parametrize("kind", [list, tuple, Body])
@pytest.mark.parametrize("chunks", [[], [b""], [b"one"], [b"one", b"two"]])
def test_every_kind_of_body(kind, chunks):
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return kind(chunks)

    cache = new_cache(app)
    assert head(cache).whole().out == []
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"".join(chunks))


@pytest.mark.parametrize(
    "more", [[], [length(6)], [length(7)], [("Cache-Control", "private")], [("ETag", '"1"')]]
)
@pytest.mark.parametrize("headers", [{}, {"If-None-Match": '"1"'}])
def test_close_is_called_once(more, headers):
    app = BodyApp(b"one", b"two", headers=text(*more))
    exchange = head(new_cache(app), headers=headers).whole()
    exchange.close()
    assert exchange.out == []
    assert app.closes == [1]


def test_an_error_in_the_body_reaches_the_server():
    app = BodyApp(b"one", LookupError("row 2"))
    cache = new_cache(app)
    exchange = head(cache).begin().rest()
    with pytest.raises(LookupError, match="row 2"):
        exchange.close()
    assert app.closes == [1]
    assert flights(cache) == 0
    assert list(cache.store.scan()) == []


def test_an_error_in_close_reaches_the_server():
    app = BodyApp(b"one", close_error=LookupError("closing"))
    exchange = head(new_cache(app)).begin().rest()
    with pytest.raises(LookupError, match="closing"):
        exchange.close()


@pytest.mark.parametrize(
    ("app", "detail"),
    [
        (BodyApp(b"oops", status="500 Internal Server Error"), "HIT_STALE_IF_ERROR"),
        (BodyApp(LookupError()), "APP_ERROR"),
        (ScriptedApp(Response(error=LookupError())), "APP_ERROR"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_stale_page_answers_a_head_too(app, detail, method):
    headers = text(("Cache-Control", "max-age=1, stale-if-error=60"))
    cache = new_cache(ScriptedApp(Response(headers=headers, body=b"page")))
    ask(cache)
    cache.fake_clock.tick(30)
    cache.app = app
    reply = Exchange(cache, method=method).whole().reply
    assert (reply.code, reply.body) == (200, b"page" if method == "GET" else b"")
    assert (reply.cache["fwd"], reply.detail) == ("stale", detail)
    assert reply.field("content-length") == "4"
    assert count(cache, Reason.HIT_STALE_IF_ERROR) == 1
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) == 0


def test_an_endless_body_is_read_up_to_the_limit():
    endless = Body(iter(lambda: b"x" * 40, None))

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return endless

    head(new_cache(app, max_body_bytes=100)).whole()
    assert (endless.pulled, endless.closed) == (3, 1)


def test_a_head_leads_and_follows():
    app = ScriptedApp(Response(body=b"page"))
    cache = new_cache(app)
    waiters = Waiters(cache)
    gate = app.hold("/")
    leader = Call(ask, cache, method="HEAD")
    gate.wait_entered()
    followers = Call(ask, cache), Call(ask, cache, method="HEAD")
    waiters.arrived(2)
    gate.open()
    assert leader.result().body == b""
    page, other = (follower.result() for follower in followers)
    assert (page.body, other.body) == (b"page", b"")
    assert "collapsed" in page.cache
    assert "collapsed" in other.cache
    assert app.calls == 1
