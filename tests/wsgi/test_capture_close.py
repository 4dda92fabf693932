"""WSG-03: `close()` of the app's iterable is called exactly once, on every path, before the outcome ends."""

import pytest
from wsgi_helpers import Body, BodyApp, Call, Exchange, Waiters, count, flights, length, new_cache, text

from wsgicache import Reason
from wsgicache.testing import Response, ScriptedApp, ask

WINDOWS = ("Cache-Control", "max-age=10, stale-while-revalidate=10, stale-if-error=100")
TAG = ("ETag", '"v1"')


class Closed(Exception):
    """What a failing `close()` raises."""


def stale_cache(then, age=50, headers=(WINDOWS, TAG)):
    """A cache that holds a stale page, with the app that answers from now on."""
    cache = new_cache(ScriptedApp(Response(headers=text(*headers), body=b"page")))
    ask(cache)
    cache.fake_clock.tick(age)
    cache.app = then
    return cache


def not_modified(tag='"v1"'):
    return BodyApp(status="304 Not Modified", headers=[("ETag", tag)])


# --- once, wherever the answer goes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "method", "headers"),
    [
        ("/", "GET", {}),
        ("/", "HEAD", {}),
        ("/", "POST", {}),
        ("/", "OPTIONS", {}),
        ("/?q=1", "GET", {}),
        ("/", "GET", {"Authorization": "Basic eA=="}),
        ("/", "GET", {"Cookie": "session=1"}),
        ("/", "GET", {"Cookie": "csrftoken=1"}),
        ("/", "GET", {"If-None-Match": '"v1"'}),
        ("/", "GET", {"If-None-Match": "*"}),
        ("/", "GET", {"Range": "bytes=0-1"}),
    ],
)
@pytest.mark.parametrize(
    "more", [[], [TAG], [("Cache-Control", "private")], [("Set-Cookie", "a=b")], [length(7)], [length(70)]]
)
def test_wsg_03_once_for_every_request_that_reaches_the_app(url, method, headers, more):
    app = BodyApp(b"one", b"two", b".", headers=text(*more))
    Exchange(new_cache(app), url, method, headers).whole()
    assert app.closes == [1]


@pytest.mark.parametrize("chunks", [[], [b""], [b"one"], [b"one", b"two"]])
@pytest.mark.parametrize("limit", [0, 4, 100])
def test_wsg_03_once_for_every_size(chunks, limit):
    app = BodyApp(*chunks)
    Exchange(new_cache(app, max_body_bytes=limit)).whole()
    assert app.closes == [1]


def test_wsg_03_close_called_again_by_the_server_reaches_the_app_once():
    app = BodyApp(b"one", b"two")
    exchange = Exchange(new_cache(app)).whole()
    exchange.close()
    assert app.closes == [1]


def test_wsg_03_the_body_is_not_closed_before_the_server_says_so():
    app = BodyApp(b"one", b"two", headers=text(length(6)))
    exchange = Exchange(new_cache(app)).begin().rest()
    assert app.closes == [0]
    exchange.close()
    assert app.closes == [1]


def test_wsg_03_a_hit_closes_nothing():
    app = BodyApp(b"page")
    cache = new_cache(app)
    for _ in range(5):
        Exchange(cache).whole()
    assert app.closes == [1]


# --- answers that take the place of the app's ------------------------------------------------------


@pytest.mark.parametrize("pulls", [0, 1, None])
def test_wsg_03_stale_if_error(pulls):
    app = BodyApp(b"oops", b"more", status="500 Internal Server Error")
    exchange = Exchange(stale_cache(app)).begin()
    exchange.rest() if pulls is None else [exchange.pull() for _ in range(pulls)]
    exchange.close()
    assert exchange.reply.detail == "HIT_STALE_IF_ERROR"
    assert app.closes == [1]


def test_wsg_03_stale_if_error_for_an_exception_in_the_first_chunk():
    app = BodyApp(LookupError())
    assert Exchange(stale_cache(app)).whole().body == b"page"
    assert app.closes == [1]


@pytest.mark.parametrize("headers", [{}, {"If-None-Match": '"v1"'}])
def test_wsg_03_freshened(headers):
    app = not_modified()
    reply = Exchange(stale_cache(app), headers=headers).whole().reply
    assert reply.code == (304 if headers else 200)
    assert reply.stored
    assert app.closes == [1]


def test_wsg_03_asked_again():
    first, second = not_modified('"other"'), BodyApp(b"new")

    def app(environ, start_response):
        chosen = first if "HTTP_IF_NONE_MATCH" in environ else second
        return chosen(environ, start_response)

    assert Exchange(stale_cache(app)).whole().body == b"new"
    assert (first.closes, second.closes) == ([1], [1])
    assert "HTTP_IF_NONE_MATCH" not in second.seen[0]


def test_asked_again_with_an_environ_that_the_first_call_has_not_touched():
    """Frameworks keep the request that they parsed in the environ."""
    environs = []

    def app(environ, start_response):
        environs.append(environ)
        environ.setdefault("framework.request", {"conditional": "HTTP_IF_NONE_MATCH" in environ})
        if environ["framework.request"]["conditional"]:
            start_response("304 Not Modified", [("ETag", '"other"')])
            return []
        start_response("200 OK", text())
        return [b"new"]

    assert Exchange(stale_cache(app)).whole().body == b"new"
    assert len(environs) == 2
    assert "HTTP_IF_NONE_MATCH" in environs[0]


def test_wsg_03_asked_again_closes_the_first_before_it_asks_again():
    first = not_modified('"other"')

    def app(environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ:
            return first(environ, start_response)
        assert first.closes == [1]
        raise LookupError("second")

    cache = stale_cache(app, headers=(("Cache-Control", "max-age=10"), TAG))
    with pytest.raises(LookupError, match="second"):
        Exchange(cache).begin()
    assert first.closes == [1]
    assert flights(cache) == 0


def test_wsg_03_client_304_of_a_miss_reads_the_body_for_the_store():
    app = BodyApp(b"one", b"two", headers=text(TAG))
    cache = new_cache(app)
    exchange = Exchange(cache, headers={"If-None-Match": '"v1"'}).whole()
    assert (exchange.reply.code, exchange.out) == (304, [])
    assert app.closes == [1]
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"onetwo")


def test_wsg_03_refresh_behind_a_visitor():
    for threads in (True, False):
        app = BodyApp(b"new")
        cache = stale_cache(app, age=15)
        exchange = Exchange(cache, **{"wsgi.multithread": threads}).whole()
        assert exchange.reply.detail == "HIT_STALE_WHILE_REVALIDATE"
        assert cache.engine.refresher.drain()
        assert app.closes == [1]
        assert ask(cache).body == b"new"


def test_wsg_03_refresh_after_the_response_only():
    app = BodyApp(b"new")
    exchange = Exchange(stale_cache(app, age=15), **{"wsgi.multithread": False}).begin().rest()
    assert app.calls == 0
    exchange.close()
    assert app.calls == 1
    exchange.close()
    assert app.calls == 1


# --- followers -------------------------------------------------------------------------------------


def test_wsg_03_followers_of_a_collapsed_request():
    app = BodyApp(b"one", b"two")
    cache = new_cache(app, slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    followers = [Call(lambda: Exchange(cache).whole()) for _ in range(3)]
    waiters.arrived(3)
    leader.rest()
    assert {follower.result().body for follower in followers} == {b"onetwo"}
    assert app.closes == [0]
    leader.close()
    assert app.closes == [1]


# --- early ends ------------------------------------------------------------------------------------


@pytest.mark.parametrize("pulls", [0, 1, 2])
def test_wsg_03_client_abort(pulls):
    app = BodyApp(b"one", b"two", b"three")
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    for _ in range(pulls):
        exchange.pull()
    exchange.close()
    assert app.closes == [1]
    assert flights(cache) == 0
    assert list(cache.store.scan()) == []


@pytest.mark.parametrize(
    "error", [LookupError("x"), KeyboardInterrupt("x"), SystemExit("x"), GeneratorExit()]
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_wsg_03_exception_in_the_body(error, at):
    app = BodyApp(*[b"one", b"two"][:at], error)
    cache = new_cache(app)
    with pytest.raises(type(error)):
        Exchange(cache).whole()
    assert app.closes == [1]
    assert flights(cache) == 0
    assert count(cache, Reason.STORED) == 0


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit("x")])
def test_wsg_03_exception_from_the_servers_start_response(error):
    """A server may refuse the head; whoever opened the body closes it."""
    for cache_it in ("max-age=60", "private"):
        app = BodyApp(b"page", headers=text(("Cache-Control", cache_it)))
        cache = new_cache(app)

        def start_response(status, headers, exc_info=None):
            raise error

        with pytest.raises(type(error)):
            cache(Exchange(cache).environ, start_response)
        assert app.closes == [1]
        assert flights(cache) == 0


@pytest.mark.parametrize("first", [b"oops", LookupError()])
def test_wsg_03_exception_from_the_servers_start_response_for_a_replaced_answer(first):
    app = BodyApp(first, status="500 Internal Server Error" if first == b"oops" else "200 OK")
    cache = stale_cache(app)

    def start_response(status, headers, exc_info=None):
        raise SystemExit

    with pytest.raises(SystemExit):
        cache(Exchange(cache).environ, start_response)
    assert app.closes == [1]
    assert flights(cache) == 0


# --- a close() that fails --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "url"), [([], "/"), ([("Cache-Control", "private")], "/"), ([], "/?q=1"), ([length(4)], "/")]
)
def test_wsg_03_exception_in_close_itself_reaches_the_server(headers, url):
    app = BodyApp(b"page", headers=text(*headers), close_error=Closed())
    cache = new_cache(app)
    exchange = Exchange(cache, url).begin().rest()
    with pytest.raises(Closed):
        exchange.close()
    assert exchange.body == b"page"
    assert app.closes == [1]
    assert flights(cache) == 0


@pytest.mark.parametrize("error", [Closed(), SystemExit()])
def test_wsg_03_exception_in_close_releases_the_flight(error):
    app = BodyApp(b"one", b"two", close_error=error)
    cache = new_cache(app, slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    follower = Call(ask, cache)
    waiters.arrived()
    app.close_error = None
    with pytest.raises(type(error)):
        leader.close()
    assert follower.result().body == b"onetwo"
    assert app.closes == [1, 1]


def test_wsg_03_exception_in_close_of_a_post_still_invalidates():
    cache = new_cache(ScriptedApp(Response(body=b"page")))
    ask(cache)
    cache.app = BodyApp(b"done", close_error=Closed())
    exchange = Exchange(cache, method="POST").begin().rest()
    with pytest.raises(Closed):
        exchange.close()
    cache.app = ScriptedApp(Response(body=b"new page"))
    assert ask(cache).body == b"new page"


def test_wsg_03_exception_in_close_when_the_body_failed_already():
    app = BodyApp(b"one", LookupError("first"), close_error=Closed())
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    exchange.pull()
    with pytest.raises(LookupError, match="first"):
        exchange.pull()
    with pytest.raises(Closed):
        exchange.close()
    assert app.closes == [1]


# --- the end of the outcome ------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [[], [("Cache-Control", "private")], [length(3)], [length(2)]])
@pytest.mark.parametrize("pulls", [0, 1, 9])
def test_each_request_is_counted_once(headers, pulls):
    cache = new_cache(BodyApp(b"one", b"two", headers=text(*headers)))
    exchange = Exchange(cache).begin()
    for _ in range(pulls):
        try:
            exchange.pull()
        except StopIteration:
            break
    exchange.close()
    assert cache.stats()["requests"] == 1
    assert count(cache, Reason.URI_MISS) == 1


def test_a_body_that_fails_while_it_is_read_for_the_store_alone_is_heard_of():
    """The client got its 304; the app's error still belongs to the server's log."""
    for error in (LookupError("row 2"), KeyboardInterrupt("row 2")):
        app = BodyApp(b"one", error, headers=text(TAG))
        cache = new_cache(app)
        exchange = Exchange(cache, headers={"If-None-Match": '"v1"'}).begin().rest()
        with pytest.raises(type(error), match="row 2"):
            exchange.close()
        assert exchange.reply.code == 304
        assert app.closes == [1]
        assert flights(cache) == 0
        assert list(cache.store.scan()) == []


def test_a_body_read_for_the_store_alone_is_read_up_to_the_limit():
    endless = Body(iter(lambda: b"x" * 40, None))

    def app(environ, start_response):
        start_response("200 OK", text(TAG))
        return endless

    cache = new_cache(app, max_body_bytes=100)
    exchange = Exchange(cache, headers={"If-None-Match": '"v1"'}).whole()
    assert exchange.reply.code == 304
    assert endless.pulled == 3
    assert endless.closed == 1
