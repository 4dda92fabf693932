"""The tee: the first byte is never delayed, one chunk out per chunk in, never more than the limit kept."""

import gc
import tracemalloc
from wsgiref.util import FileWrapper

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsgi_helpers import (
    TEXT,
    Body,
    BodyApp,
    Call,
    Exchange,
    Waiters,
    count,
    flights,
    length,
    new_cache,
    text,
)

from wsgicache import Reason, Rule
from wsgicache.testing import Response, ScriptedApp, ask

CHUNKS = [b"one", b"", b"two", b"", b"", b"three", b""]


def listing(*chunks, headers=TEXT):
    """An app that returns a plain list."""

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return list(chunks)

    return app


# --- pace ------------------------------------------------------------------------------------------


def test_each_chunk_is_handed_out_before_the_next_is_pulled():
    app = BodyApp(*CHUNKS)
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    for number in range(1, len(CHUNKS) + 1):
        exchange.pull()
        assert app.log[-1] == ("pulled", number)
        assert exchange.out == CHUNKS[:number]
    exchange.rest().close()
    assert ask(cache).is_hit


def test_the_head_is_there_with_the_first_chunk():
    exchange = Exchange(new_cache(BodyApp(b"one", b"two"))).begin()
    exchange.pull()
    assert exchange.head_is_out
    exchange.rest().close()


def test_the_app_is_not_asked_for_more_than_one_chunk_before_the_server_iterates():
    app = BodyApp(b"one", b"two")
    exchange = Exchange(new_cache(app)).begin()
    assert app.bodies[0].pulled <= 1
    exchange.rest().close()


def test_an_empty_first_chunk_does_not_make_the_cache_wait_for_a_full_one():
    app = BodyApp(b"", AssertionError("pulled too early"))
    exchange = Exchange(new_cache(app)).begin()
    assert exchange.pull() == b""
    with pytest.raises(AssertionError, match="pulled too early"):
        exchange.pull()
    exchange.close()


@given(chunks=st.lists(st.binary(max_size=5), max_size=8), limit=st.integers(0, 12))
def test_one_chunk_out_per_chunk_in(chunks, limit):
    app = BodyApp(*chunks)
    cache = new_cache(app, max_body_bytes=limit)
    assert Exchange(cache).whole().out == chunks
    assert app.closes == [1]
    stored = sum(map(len, chunks)) <= limit
    assert Exchange(cache).whole().body == b"".join(chunks)
    assert app.calls == (1 if stored else 2)


@given(
    chunks=st.lists(st.binary(max_size=5), max_size=8),
    off_by=st.sampled_from([0, 0, 0, -1, 1, 7]),
    kind=st.sampled_from([list, tuple, iter, Body, lambda chunks: (chunk for chunk in chunks)]),
)
def test_whatever_the_app_returns_the_client_gets_the_same_bytes(chunks, off_by, kind):
    size = sum(map(len, chunks))
    headers = text(length(max(0, size + off_by)))
    honest = max(0, size + off_by) == size

    def app(environ, start_response):
        start_response("200 OK", list(headers))
        return kind(chunks)

    cache = new_cache(app)
    first = Exchange(cache).whole()
    assert first.body == b"".join(chunks)
    assert [pair for pair in first.reply.headers if pair[0] != "Cache-Status"] == headers
    second = Exchange(cache).whole()
    assert second.body == b"".join(chunks)
    assert second.reply.is_hit is honest


# --- limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "stored"), [(100, True), (101, False)])
@pytest.mark.parametrize("kind", [list, Body])
def test_the_limit_is_the_largest_body_that_is_stored(size, stored, kind):
    app = ScriptedApp(Response(body=lambda: kind([b"x" * 50, b"y" * (size - 50)])))
    cache = new_cache(app, max_body_bytes=100)
    assert len(ask(cache).body) == size
    assert len(ask(cache).body) == size
    assert app.calls == (1 if stored else 2)


def test_too_large_streams_on_and_says_so():
    app = BodyApp(*[b"x" * 60] * 5)
    cache = new_cache(app, max_body_bytes=100)
    exchange = Exchange(cache).begin()
    for number in range(1, 6):
        exchange.pull()
        assert app.log[-1] == ("pulled", number)
    exchange.rest().close()
    assert exchange.body == b"x" * 300
    assert count(cache, Reason.NOT_STORED_TOO_LARGE) == 1
    assert count(cache, Reason.STORED) == 0
    assert app.closes == [1]


def test_a_first_chunk_that_is_too_large_is_told_in_the_head():
    reply = ask(new_cache(BodyApp(b"x" * 101), max_body_bytes=100))
    assert reply.detail == "NOT_STORED_TOO_LARGE"
    assert not reply.stored


def test_a_list_that_is_too_large_is_told_in_the_head():
    reply = ask(new_cache(listing(b"x" * 60, b"y" * 60), max_body_bytes=100))
    assert reply.detail == "NOT_STORED_TOO_LARGE"
    assert reply.body == b"x" * 60 + b"y" * 60


def test_the_limit_of_a_rule_counts():
    app = BodyApp(b"x" * 50)
    cache = new_cache(app, rules=[Rule("/small/*", max_body_bytes=10)])
    assert ask(cache, "/small/x").detail == "NOT_STORED_TOO_LARGE"
    ask(cache, "/other")
    assert ask(cache, "/other").is_hit


def test_res_03_memory_stays_within_the_limit_however_long_the_body():
    limit, chunk = 256 * 1024, 64 * 1024

    def endless(environ, start_response):
        start_response("200 OK", list(TEXT))
        return (bytes(chunk) for _ in range(400))

    exchange = Exchange(new_cache(endless, max_body_bytes=limit))
    exchange.write = exchange._give = lambda data: None  # the server keeps nothing
    gc.collect()
    tracemalloc.start()
    try:
        exchange.begin()
        before, _ = tracemalloc.get_traced_memory()
        exchange.rest()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        exchange.close()
    assert peak - before < limit + 3 * chunk


def test_the_copy_is_dropped_as_soon_as_it_is_too_large():
    limit, chunk = 1024 * 1024, 64 * 1024
    app = BodyApp(*[lambda: bytes(chunk)] * 18)
    exchange = Exchange(new_cache(app, max_body_bytes=limit))
    exchange.write = exchange._give = lambda data: None
    tracemalloc.start()
    try:
        exchange.begin()
        for _ in range(16):
            exchange.pull()
        full, _ = tracemalloc.get_traced_memory()
        exchange.pull()
        left, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        exchange.rest().close()
    assert full >= limit
    assert left < 4 * chunk


# --- what is not kept is not touched ---------------------------------------------------------------


def returned(headers, iterable, status="200 OK", url="/", method="GET", **options):
    """What the cache returns to the server for an iterable that an app returned."""

    def app(environ, start_response):
        start_response(status, list(headers))
        return iterable

    return Exchange(new_cache(app, **options), url, method).begin().iterable


def test_a_length_over_the_limit_leaves_the_file_wrapper_to_the_server(tmp_path):
    path = tmp_path / "large"
    path.write_bytes(b"x" * 200)
    with path.open("rb") as file:
        wrapper = FileWrapper(file)
        assert returned(text(length(200)), wrapper, max_body_bytes=100) is wrapper


@pytest.mark.parametrize(
    "kind",
    [
        "text/event-stream",
        "text/event-stream; charset=utf-8",
        "Text/Event-Stream",
        " text/event-stream ;x=y",
        "multipart/x-mixed-replace; boundary=frame",
        "application/x-ndjson",
    ],
)
@pytest.mark.parametrize("control", [[], [("Cache-Control", "max-age=60")]])
def test_res_04_an_endless_stream_passes_untouched(kind, control):
    def events():
        raise AssertionError("pulled by the cache")
        yield b""

    stream = events()
    assert returned([("Content-Type", kind), *control], stream) is stream


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Cache-Control", "private")], "200 OK"),
        ([("Cache-Control", "no-store")], "200 OK"),
        ([("Set-Cookie", "a=b")], "200 OK"),
        ([("Vary", "*")], "200 OK"),
        ([], "500 Internal Server Error"),
        ([], "206 Partial Content"),
    ],
)
def test_an_unstorable_answer_is_the_apps_own_iterable(headers, status):
    body = Body([b"mine"])
    assert returned(text(*headers), body, status) is body


@pytest.mark.parametrize(("url", "method"), [("/?a=b", "GET"), ("/", "OPTIONS"), ("/a/../b", "GET")])
def test_a_bypass_is_the_apps_own_iterable(url, method):
    body = Body([b"mine"])
    assert returned(TEXT, body, url=url, method=method) is body


@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Internal Server Error"])
def test_a_list_that_answers_a_post_stays_a_list(status):
    """A server adds a Content-Length where `len()` says that there is one chunk only (PEP 3333)."""
    body = [b"done"]
    assert returned(TEXT, body, status, method="POST") is body


def test_a_switched_off_cache_returns_the_apps_own_iterable():
    body = Body([b"mine"])
    assert returned(TEXT, body, enabled=False) is body


# --- what the app does with its objects afterwards -------------------------------------------------


def test_int_16_header_list_changed_after_start_response():
    kept = []

    def app(environ, start_response):
        headers = text(("X-Page", "1"))
        start_response("200 OK", headers)
        kept.append(headers)
        headers[:] = [("Content-Type", "text/html"), ("X-Page", "2")]
        return [b"page"]

    cache = new_cache(app)
    assert ask(cache).field("x-page") == "1"
    kept[0].append(("X-Page", "3"))
    assert ask(cache).field("x-page") == "1"


def test_int_16_reply_headers_changed_by_an_outer_layer():
    cache = new_cache(ScriptedApp(Response(body=b"page")))
    for _ in range(4):

        def start_response(status, headers, exc_info=None):
            assert [name for name, _ in headers].count("X-Outer") == 0
            headers.append(("X-Outer", "1"))
            headers[:0] = [("X-Outer", "0")]

        exchange = Exchange(cache)
        cache(exchange.environ, start_response)
    assert ask(cache).all("x-outer") == []


def test_int_16_body_list_changed_after_the_call():
    chunks = [b"one", b"two"]

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return chunks

    cache = new_cache(app)
    assert ask(cache).body == b"onetwo"
    chunks[:] = [b"other"]
    assert ask(cache).body == b"onetwo"


def reusing():
    """Yields one bytearray again and again, as an app does that fills a buffer."""
    buffer = bytearray(3)
    for word in (b"one", b"two", b"six"):
        buffer[:] = word
        yield buffer
    buffer[:] = b"end"


def test_int_16_a_reused_bytearray_is_copied():
    cache = new_cache(ScriptedApp(Response(body=reusing)))
    assert Exchange(cache).whole().body == b"onetwosix"
    hit = ask(cache)
    assert hit.is_hit
    assert hit.body == b"onetwosix"


def test_int_16_a_reused_bytearray_is_copied_for_the_client_too_when_the_rest_is_drained():
    gate_passed = []

    def body():
        for chunk in reusing():
            gate_passed.append(1)
            yield chunk

    cache = new_cache(ScriptedApp(Response(body=body)), slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    leader.pull()
    follower = Call(ask, cache)
    waiters.arrived()
    leader.pull()
    assert len(gate_passed) == 3  # somebody waits, so the rest was read at once
    leader.rest().close()
    assert leader.body == b"onetwosix"
    assert follower.result().body == b"onetwosix"


def test_bytearrays_in_a_list_are_copied():
    buffer = bytearray(b"one")
    cache = new_cache(listing(buffer))
    ask(cache)
    buffer[:] = b"two"
    assert ask(cache).body == b"one"


# --- kinds of iterables ----------------------------------------------------------------------------


class Sized:
    """An iterable with a length, that can be iterated once and is closed."""

    def __init__(self, chunks):
        self.chunks = chunks
        self.iterated = self.closed = 0

    def __len__(self):
        return len(self.chunks)

    def __iter__(self):
        self.iterated += 1
        return iter(self.chunks)

    def close(self):
        self.closed += 1


class SequenceOnly:
    """The old iteration protocol: `__getitem__` until IndexError."""

    def __init__(self, chunks):
        self.chunks = chunks

    def __getitem__(self, index):
        return self.chunks[index]


class MyList(list):
    """A list with a `close()`, which is not quite a list."""

    closed = 0

    def close(self):
        self.closed += 1


@pytest.mark.parametrize(
    "kind", [list, tuple, iter, Sized, SequenceOnly, MyList, lambda chunks: map(bytes, chunks)]
)
@pytest.mark.parametrize("chunks", [[b"one", b"two"], [b"one"], [b""], []])
def test_every_kind_of_iterable_is_stored(kind, chunks):
    made = []

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        made.append(kind(list(chunks)))
        return made[-1]

    cache = new_cache(app)
    miss = Exchange(cache).whole()
    assert miss.body == b"".join(chunks)
    assert miss.reply.cache["fwd"] == "uri-miss"
    hit = ask(cache)
    assert hit.is_hit
    assert hit.body == b"".join(chunks)
    assert len(made) == 1
    assert getattr(made[0], "closed", 1) == 1
    assert getattr(made[0], "iterated", 1) == 1


def test_a_whole_body_gets_a_content_length_that_is_true():
    for body in ([b"one", b"two"], [b"onetwo"]):
        cache = new_cache(listing(*body))
        assert ask(cache).field("content-length") == "6"
        assert ask(cache).field("content-length") == "6"


def test_one_content_length_is_enough():
    cache = new_cache(ScriptedApp(Response(headers=text(length(4)), body=b"page")))
    assert ask(cache).all("content-length") == ["4"]
    assert ask(cache).all("content-length") == ["4"]


@pytest.mark.parametrize("body", [b"page", "page", ["page"], [1, 2], [None], 5, None])
@pytest.mark.parametrize("lazy", [True, False])
def test_what_is_no_iterable_of_bytes_is_an_error_of_the_app(body, lazy):
    """Above all a bare bytes object: its elements are numbers, not chunks."""

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return (chunk for chunk in body) if lazy and isinstance(body, list) else body

    cache = new_cache(app)
    with pytest.raises(TypeError):
        Exchange(cache).whole()
    assert list(cache.store.scan()) == []
    assert flights(cache) == 0
