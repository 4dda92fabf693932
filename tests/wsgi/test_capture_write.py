"""`write()`, as PEP 3333 has it: the bytes are on their way before it returns, in order with the rest."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgi_helpers import TEXT, Body, Call, Exchange, Waiters, count, flights, length, new_cache, text

from wsgicache import Reason
from wsgicache.testing import ask


def writing(*words, rest=(), status="200 OK", headers=TEXT, log=None):
    """An app that writes words and returns the rest."""

    def app(environ, start_response):
        app.calls += 1
        write = start_response(status, list(headers))
        for word in words:
            write(word)
            if log is not None:
                log.append(("wrote", word))
        return rest() if callable(rest) else rest

    app.calls = 0
    return app


def test_written_bytes_are_out_before_write_returns():
    exchange = None

    def app(environ, start_response):
        write = start_response("200 OK", list(TEXT))
        for number, word in enumerate([b"one", b"two"], 1):
            write(word)
            assert len(exchange.out) == number
            assert exchange.out[-1] == word
        return [b"three"]

    cache = new_cache(app)
    exchange = Exchange(cache)
    exchange.whole()
    assert exchange.out == [b"one", b"two", b"three"]
    hit = ask(cache)
    assert hit.is_hit
    assert hit.body == b"onetwothree"


@given(
    words=st.lists(st.binary(max_size=4), max_size=4),
    rest=st.lists(st.binary(max_size=4), max_size=4),
    kind=st.sampled_from([list, tuple, Body]),
    limit=st.integers(0, 20),
)
def test_written_and_iterated_bytes_are_stored_in_order(words, rest, kind, limit):
    app = writing(*words, rest=lambda: kind(rest))
    cache = new_cache(app, max_body_bytes=limit)
    whole = b"".join(words + rest)
    assert Exchange(cache).whole().body == whole
    assert Exchange(cache).whole().body == whole
    assert app.calls == (1 if len(whole) <= limit else 2)


def test_a_written_body_may_be_all_of_it():
    cache = new_cache(writing(b"page", headers=text(length(4))))
    assert ask(cache).body == b"page"
    hit = ask(cache)
    assert (hit.is_hit, hit.body, hit.field("content-length")) == (True, b"page", "4")


def test_a_written_body_of_the_wrong_length_is_not_stored():
    app = writing(b"page", headers=text(length(5)))
    cache = new_cache(app)
    ask(cache)
    ask(cache)
    assert app.calls == 2
    assert count(cache, Reason.NOT_STORED_INCOMPLETE) == 2


def test_a_written_body_that_is_too_large_is_not_kept():
    app = writing(b"x" * 60, b"y" * 60, rest=[b"z"])
    cache = new_cache(app, max_body_bytes=100)
    assert ask(cache).body == b"x" * 60 + b"y" * 60 + b"z"
    assert count(cache, Reason.NOT_STORED_TOO_LARGE) == 1
    ask(cache)
    assert app.calls == 2


def test_an_unstorable_answer_is_written_through():
    cache = new_cache(writing(b"my ", rest=[b"page"], headers=text(("Cache-Control", "private"))))
    exchange = Exchange(cache).whole()
    assert exchange.out == [b"my ", b"page"]
    assert exchange.reply.detail == "NOT_STORED_PRIVATE"


def test_a_bypass_is_written_through():
    exchange = Exchange(new_cache(writing(b"one", rest=[b"two"])), "/?q=1").whole()
    assert exchange.out == [b"one", b"two"]


def test_an_exception_after_write_reaches_the_server_and_nothing_is_stored():
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))(b"half")
        raise LookupError("no more")

    cache = new_cache(app)
    exchange = Exchange(cache)
    with pytest.raises(LookupError, match="no more"):
        exchange.begin()
    assert exchange.out == [b"half"]
    assert flights(cache) == 0
    assert list(cache.store.scan()) == []


def test_start_response_again_after_write_raises_the_apps_error():
    def app(environ, start_response):
        write = start_response("200 OK", list(TEXT))
        write(b"half")
        try:
            raise LookupError("no more")
        except LookupError:
            start_response("500 Internal Server Error", list(TEXT), sys.exc_info())
        raise AssertionError("start_response() should have raised")

    cache = new_cache(app)
    with pytest.raises(LookupError, match="no more"):
        Exchange(cache).begin()
    assert list(cache.store.scan()) == []
    assert flights(cache) == 0


def test_start_response_again_before_anything_was_written_replaces_the_head():
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        try:
            raise LookupError("no such page")
        except LookupError:
            write = start_response("404 Not Found", list(TEXT), sys.exc_info())
        write(b"nothing here")
        return []

    cache = new_cache(app)
    reply = Exchange(cache).whole().reply
    assert (reply.status, reply.body) == ("404 Not Found", b"nothing here")
    assert list(cache.store.scan()) == []


def test_write_before_start_response_is_impossible_and_write_of_nothing_harmless():
    cache = new_cache(writing(b"", b"page", b""))
    assert Exchange(cache).whole().body == b"page"
    assert ask(cache).body == b"page"


# --- where another answer takes the place of what is written ---------------------------------------


def stale_site(fresh, then):
    """A cache that holds a stale page of `fresh`, while the app is now `then`."""
    cache = new_cache(fresh)
    ask(cache)
    cache.fake_clock.tick(301)
    cache.app = then
    return cache


TAGGED = text(("ETag", '"v1"'), ("Cache-Control", "max-age=300, stale-if-error=600"))


def test_what_a_failing_app_writes_gives_way_to_the_stale_page():
    page = writing(b"page", headers=TAGGED)
    failing = writing(b"oops", rest=lambda: Body([b"oops"]), status="500 Internal Server Error")
    cache = stale_site(page, failing)
    exchange = Exchange(cache).whole()
    assert exchange.out == [b"page"]
    assert exchange.reply.detail == "HIT_STALE_IF_ERROR"


def test_an_app_that_writes_and_raises_gives_way_to_the_stale_page():
    def failing(environ, start_response):
        start_response("500 Internal Server Error", list(TEXT))(b"oops")
        raise LookupError

    cache = stale_site(writing(b"page", headers=TAGGED), failing)
    assert Exchange(cache).whole().body == b"page"


def test_what_is_written_with_a_304_gives_way_to_the_freshened_page():
    page = writing(b"page", headers=TAGGED)
    unchanged = writing(b"", status="304 Not Modified", headers=[("ETag", '"v1"')])
    cache = stale_site(page, unchanged)
    reply = Exchange(cache).whole().reply
    assert (reply.code, reply.body, reply.stored) == (200, b"page", True)
    assert ask(cache).is_hit


@pytest.mark.parametrize("wrote", [b"", b"?"])
def test_a_304_of_no_use_that_was_written_is_asked_again(wrote):
    def then(environ, start_response):
        then.calls += 1
        if "HTTP_IF_NONE_MATCH" in environ:
            start_response("304 Not Modified", [("ETag", '"other"')])(wrote)
            return []
        start_response("200 OK", text(("ETag", '"v2"')))(b"new ")
        return [b"page"]

    then.calls = 0
    cache = stale_site(writing(b"page", headers=TAGGED), then)
    assert Exchange(cache).whole().body == b"new page"
    assert then.calls == 2
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"new page")


def test_a_client_that_has_the_page_still_gets_the_bytes_that_were_written():
    """Its 304 would have to take back what is on its way."""
    cache = new_cache(writing(b"page", headers=TAGGED))
    reply = Exchange(cache, headers={"If-None-Match": '"v1"'}).whole().reply
    assert (reply.code, reply.body) == (200, b"page")
    assert ask(cache).is_hit


def test_a_follower_shares_what_was_written():
    """PEP 3333 forbids `write()` from within the iterable; servers let it pass, and so does the cache."""
    entered = []

    def app(environ, start_response):
        write = start_response("200 OK", list(TEXT))
        entered.append(1)
        return parts(write)

    def parts(write):
        write(b"one")
        yield b"two"
        write(b"three")
        yield b"four"

    cache = new_cache(app, slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    follower = Call(ask, cache)
    waiters.arrived()
    leader.rest().close()
    assert leader.body == b"onetwothreefour"
    assert follower.result().body == b"onetwothreefour"
    assert len(entered) == 1
