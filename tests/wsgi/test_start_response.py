"""`start_response()`: late, twice, again with `exc_info` before and after the head is out, or never."""

import sys

import pytest
from wsgi_helpers import TEXT, Body, BodyApp, Exchange, count, flights, length, new_cache, text

from wsgicache import Reason
from wsgicache.testing import Response, ScriptedApp, ask


def nothing_stored(cache):
    return list(cache.store.scan()) == [] and flights(cache) == 0


def exc_info(error):
    """What `sys.exc_info()` gives in a handler for an error."""
    try:
        raise error
    except type(error):
        return sys.exc_info()


# --- late ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [[], [b""], [b"", b"", b""]])
@pytest.mark.parametrize("words", [[b"one", b"two"], [b"one"], [b""], []])
def test_a_generator_function_is_stored(before, words):
    calls = []

    def app(environ, start_response):
        calls.append(environ)
        yield from before
        start_response("200 OK", text(("X-Late", "1")))
        yield from words

    cache = new_cache(app)
    miss = Exchange(cache).whole()
    assert miss.body == b"".join(words)
    assert miss.reply.field("x-late") == "1"
    hit = ask(cache)
    assert hit.is_hit
    assert (hit.body, hit.field("x-late")) == (b"".join(words), "1")
    assert len(calls) == 1


def test_a_late_head_is_not_waited_for():
    log = []

    def app(environ, start_response):
        for number in range(3):
            log.append(number)
            yield b""
        start_response("200 OK", list(TEXT))
        yield b"page"

    exchange = Exchange(new_cache(app)).begin()
    for number in range(3):
        assert exchange.pull() == b""
        assert log == list(range(number + 1))
    assert exchange.pull() == b"page"
    exchange.rest().close()


@pytest.mark.parametrize("before", [[], [b""]])
@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        ([("Cache-Control", "private")], "NOT_STORED_PRIVATE"),
        ([("Content-Type", "text/event-stream")], "NOT_STORED_STREAM"),
    ],
)
def test_a_late_head_that_may_not_be_stored_streams_on(before, headers, detail):
    log = []

    def app(environ, start_response):
        yield from before
        start_response("200 OK", list(headers))
        for number in range(3):
            log.append(number)
            yield b"%d" % number

    exchange = Exchange(new_cache(app)).begin()
    for _ in before:
        exchange.pull()
    for number in range(3):
        assert exchange.pull() == b"%d" % number
        assert log == list(range(number + 1))
    exchange.rest().close()
    assert exchange.reply.detail == detail


@pytest.mark.parametrize("before", [[], [b""]])
def test_a_late_head_with_the_whole_announced_body(before):
    def app(environ, start_response):
        yield from before
        start_response("200 OK", text(length(4)))
        yield b"page"

    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    while exchange.body != b"page":
        exchange.pull()
    exchange.close()
    assert ask(cache).is_hit


@pytest.mark.parametrize("before", [[], [b""], [b"", b""]])
def test_a_late_304_freshens(before):
    cache = new_cache(ScriptedApp(Response(headers=text(("ETag", '"1"')), body=b"page")))
    ask(cache)
    cache.fake_clock.tick(301)

    def unchanged(environ, start_response):
        yield from before
        start_response("304 Not Modified", [("ETag", '"1"')])

    cache.app = unchanged
    reply = Exchange(cache).whole().reply
    assert (reply.code, reply.body, reply.stored) == (200, b"page", True)
    assert ask(cache).is_hit


@pytest.mark.parametrize("before", [[], [b""], [b"", b""]])
@pytest.mark.parametrize("private", [True, False])
def test_a_late_304_of_no_use_is_asked_again_and_streams(before, private):
    cache = new_cache(ScriptedApp(Response(headers=text(("ETag", '"1"')), body=b"page")))
    ask(cache)
    cache.fake_clock.tick(301)
    bodies = []

    def changed(environ, start_response):
        if "HTTP_IF_NONE_MATCH" in environ:
            return late(start_response)
        start_response("200 OK", text(("Cache-Control", "private" if private else "max-age=9")))
        bodies.append(Body([b"one", b"two", b"three"]))
        return bodies[-1]

    def late(start_response):
        yield from before
        start_response("304 Not Modified", [("ETag", '"2"')])

    cache.app = changed
    exchange = Exchange(cache).begin()
    while exchange.body != b"one":
        exchange.pull()
    assert bodies[0].pulled == 1  # nothing is read ahead of the server
    exchange.rest().close()
    assert exchange.body == b"onetwothree"
    assert bodies[0].closed == 1
    assert ask(cache).is_hit is not private


@pytest.mark.parametrize("before", [[], [b""]])
def test_a_late_failure_gives_way_to_the_stale_page(before):
    headers = text(("Cache-Control", "max-age=1, stale-if-error=60"))
    cache = new_cache(ScriptedApp(Response(headers=headers, body=b"page")))
    ask(cache)
    cache.fake_clock.tick(30)

    def answers_500(environ, start_response):
        yield from before
        start_response("500 Internal Server Error", list(TEXT))
        yield b"oops"

    def raises(environ, start_response):
        yield from before
        raise LookupError

    for app in (answers_500, raises):
        cache.app = app
        reply = Exchange(cache).whole().reply
        assert (reply.code, reply.body) == (200, b"page")
        assert reply.cache["fwd"] == "stale"


# --- never -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [[], [b""], [b"data"], [b"", b"data"]])
@pytest.mark.parametrize("kind", [list, Body])
def test_an_app_that_never_calls_it_is_an_error_of_the_app(body, kind):
    made = []

    def app(environ, start_response):
        made.append(kind(body))
        return made[-1]

    cache = new_cache(app)
    with pytest.raises(AssertionError, match="start_response"):
        Exchange(cache).whole()
    assert nothing_stored(cache)
    assert getattr(made[0], "closed", 1) == 1


# --- twice -----------------------------------------------------------------------------------------


def test_twice_without_exc_info_is_an_error_of_the_app():
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        start_response("200 OK", list(TEXT))
        return [b"page"]

    cache = new_cache(app)
    with pytest.raises(AssertionError, match="twice"):
        Exchange(cache).whole()
    assert nothing_stored(cache)


@pytest.mark.parametrize("url", ["/", "/?bypass"])
def test_again_in_mid_body_without_exc_info_is_an_error_of_the_app(url):
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        yield b"one"
        start_response("200 OK", list(TEXT))
        yield b"two"

    cache = new_cache(app)
    with pytest.raises(AssertionError):
        Exchange(cache, url).whole()
    assert nothing_stored(cache)


@pytest.mark.parametrize("url", ["/", "/?bypass"])
@pytest.mark.parametrize("count_", [1, 2])
def test_again_with_exc_info_before_the_app_returns(url, count_):
    def app(environ, start_response):
        start_response("200 OK", text(("X-Head", "first")))
        for number in range(count_):
            start_response("410 Gone", text(("X-Head", f"{number}")), exc_info(LookupError()))
        return [b"gone"]

    reply = Exchange(new_cache(app), url).whole().reply
    assert (reply.status, reply.body) == ("410 Gone", b"gone")
    assert reply.all("x-head") == [str(count_ - 1)]
    assert reply.cache["fwd-status"] == "410"


def test_again_with_exc_info_decides_whether_it_is_stored():
    def app(environ, start_response):
        start_response("500 Internal Server Error", text(("Cache-Control", "no-store")))
        start_response("200 OK", list(TEXT), exc_info(LookupError()))
        return [b"after all"]

    cache = new_cache(app)
    ask(cache)
    hit = ask(cache)
    assert (hit.is_hit, hit.status, hit.body) == (True, "200 OK", b"after all")


def failing_in_the_body(*before, status="500 Internal Server Error"):
    """An app whose body fails and is replaced, as PEP 3333 shows it: the head is not out yet."""

    def app(environ, start_response):
        start_response("200 OK", text(("X-Head", "first"), ("Cache-Control", "max-age=60")))
        return body(start_response)

    def body(start_response):
        yield from before
        try:
            raise LookupError("no such row")
        except LookupError:
            start_response(status, text(("X-Head", "second")), sys.exc_info())
            yield b"sorry"

    return app


@pytest.mark.parametrize("before", [[], [b""], [b"", b""]])
@pytest.mark.parametrize("url", ["/", "/?bypass"])
def test_again_with_exc_info_in_the_body_before_the_head_is_out(before, url):
    """The error page is what the client gets, and it is never stored as the page (poisoned error)."""
    cache = new_cache(failing_in_the_body(*before))
    exchange = Exchange(cache, url).whole()
    reply = exchange.reply
    assert (reply.status, reply.body) == ("500 Internal Server Error", b"sorry")
    assert reply.all("x-head") == ["second"]
    assert "stored" not in reply.cache
    assert reply.cache["fwd-status"] == "500"
    assert nothing_stored(cache)


def test_again_with_exc_info_in_the_body_is_told_as_what_it_is():
    reply = ask(new_cache(failing_in_the_body()))
    assert reply.cache["fwd-status"] == "500"
    assert reply.detail == "NOT_STORED_STATUS"


def test_again_with_exc_info_in_the_body_may_be_stored_if_the_new_head_allows_it():
    cache = new_cache(failing_in_the_body(status="200 OK"))
    ask(cache)
    hit = ask(cache)
    assert (hit.is_hit, hit.body, hit.all("x-head")) == (True, b"sorry", ["second"])


def test_again_with_exc_info_in_the_body_gives_way_to_the_stale_page():
    headers = text(("Cache-Control", "max-age=1, stale-if-error=60"))
    cache = new_cache(ScriptedApp(Response(headers=headers, body=b"page")))
    ask(cache)
    cache.fake_clock.tick(30)
    cache.app = failing_in_the_body()
    reply = Exchange(cache).whole().reply
    assert (reply.code, reply.body, reply.detail) == (200, b"page", "HIT_STALE_IF_ERROR")


@pytest.mark.parametrize("url", ["/", "/?bypass"])
def test_again_with_exc_info_when_the_head_is_out_raises_the_apps_error(url):
    cache = new_cache(failing_in_the_body(b"one"))
    exchange = Exchange(cache, url)
    with pytest.raises(LookupError, match="no such row"):
        exchange.whole()
    assert exchange.out == [b"one"]
    assert nothing_stored(cache)


def test_again_with_exc_info_after_the_announced_length_takes_the_entry_back():
    def app(environ, start_response):
        start_response("200 OK", text(length(4)))
        return body(start_response)

    def body(start_response):
        yield b"page"
        start_response("500 Internal Server Error", list(TEXT), exc_info(LookupError("late")))

    cache = new_cache(app)
    with pytest.raises(LookupError, match="late"):
        Exchange(cache).whole()
    assert nothing_stored(cache)
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) == 1


# --- what is handed on -----------------------------------------------------------------------------


def test_the_head_reaches_the_server_as_the_app_gave_it():
    headers = text(("X-A", "1"), ("x-a", "2"), ("Link", "</a>"), ("Link", "</b>"))
    cache = new_cache(BodyApp(b"page", status="203 Quite Unusual  Words", headers=headers))
    for _ in range(3):
        reply = Exchange(cache).whole().reply
        assert reply.status == "203 Quite Unusual  Words"
        assert reply.headers[: len(headers)] == headers


def test_cache_status_of_an_inner_cache_stays_in_front():
    inner = ("Cache-Status", "inner; hit; ttl=5")
    cache = new_cache(ScriptedApp(Response(headers=text(inner), body=b"page")))
    for _ in range(3):
        lines = ask(cache).all("cache-status")
        assert lines[0] == inner[1]
        assert len(lines) == 2
