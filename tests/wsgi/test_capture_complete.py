"""Only a whole response is stored (house rule 12): cut off, broken or dishonest ones never are."""

import pytest
from wsgi_helpers import TEXT, Body, BodyApp, Call, Exchange, Waiters, count, flights, length, new_cache, text

from wsgicache import Reason
from wsgicache.testing import Response, ScriptedApp, ask


def not_stored(cache):
    return list(cache.store.scan()) == [] and flights(cache) == 0


def declaring(number, *chunks, kind=Body):
    """An app that declares a length and gives the chunks."""

    def app(environ, start_response):
        app.calls += 1
        start_response("200 OK", text(length(number)))
        return kind(chunks)

    app.calls = 0
    return app


# --- INT-01: the length is wrong -------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, Body])
@pytest.mark.parametrize(
    ("declared", "chunks"),
    [
        (100, [b"x" * 60]),
        (100, [b"x" * 30, b"x" * 30]),
        (100, []),
        (1, [b""]),
        (6, [b"one", b"two!"]),
        (3, [b"one", b"two"]),
        (3, [b"one", b"", b"two"]),
        (3, [b"on", b"e", b"two"]),
        (3, [b"on", b"etwo"]),
        (0, [b"x"]),
        (0, [b"", b"x"]),
    ],
)
def test_int_01_wrong_content_length_is_not_stored(kind, declared, chunks):
    app = declaring(declared, *chunks, kind=kind)
    cache = new_cache(app)
    exchange = Exchange(cache).whole()
    assert exchange.body == b"".join(chunks)
    assert exchange.reply.field("content-length") == str(declared)
    assert not_stored(cache)
    ask(cache)
    assert app.calls == 2
    assert count(cache, Reason.STORED) == 0


@pytest.mark.parametrize(
    "declared", ["abc", "-1", "+4", "4,5", "4, 4, 5", "4 4", "0x4", "4.0", "", "٤", "9" * 30]
)
def test_int_01_junk_content_length_is_not_stored(declared):
    app = ScriptedApp(Response(headers=text(("Content-Length", declared)), body=b"page"))
    cache = new_cache(app)
    assert ask(cache).body == b"page"
    assert not_stored(cache)


def test_int_01_contradicting_content_lengths_are_not_stored():
    cache = new_cache(ScriptedApp(Response(headers=text(length(4), length(5)), body=b"page")))
    ask(cache)
    assert not_stored(cache)


def test_int_01_collapsed_requests_do_not_get_a_short_body():
    cut, whole = declaring(100, b"x" * 30, b"x" * 30), declaring(4, b"page")
    cache = new_cache(cut, slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    follower = Call(ask, cache)
    waiters.arrived()
    cache.app = whole
    leader.rest().close()
    assert follower.result().body == b"page"
    assert whole.calls == 1


def test_int_01_collapsed_requests_do_not_get_a_long_body():
    """Its announced length is reached before the app gives more than it announced."""
    cache = new_cache(declaring(3, b"one", b"two"), slow_client_grace=10)
    leader = Exchange(cache).begin().rest()
    leader.close()
    assert not_stored(cache)
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) + count(cache, Reason.NOT_STORED_INCOMPLETE) == 1


# --- INT-02: the app raises in mid-body ------------------------------------------------------------


@pytest.mark.parametrize("more", [[], [length(100)], [length(40)]])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_int_02_exception_in_mid_body_is_not_stored(more, at):
    chunks = [b"x" * 20, b"x" * 20][:at]
    app = BodyApp(*chunks, LookupError("row 3"), headers=text(*more))
    cache = new_cache(app)
    exchange = Exchange(cache)
    with pytest.raises(LookupError, match="row 3"):
        exchange.whole()
    assert exchange.out == chunks
    assert not_stored(cache)
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) == 1


def test_int_02_exception_after_the_announced_length_takes_the_entry_back():
    """The whole body was there and was stored, but the app says that something went wrong."""
    app = BodyApp(b"page", LookupError("after the last byte"), headers=text(length(4)))
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    exchange.pull()
    assert ask(cache).is_hit
    with pytest.raises(LookupError, match="after the last byte"):
        exchange.pull()
    exchange.close()
    assert not_stored(cache)


def test_int_02_exception_in_a_variant_takes_that_variant_back():
    headers = text(("Vary", "Accept-Language"), length(4))
    cache = new_cache(BodyApp(b"page", headers=headers))
    Exchange(cache, headers={"Accept-Language": "en"}).whole()
    cache.app = BodyApp(b"page", LookupError(), headers=headers)
    with pytest.raises(LookupError):
        Exchange(cache, headers={"Accept-Language": "de"}).whole()
    cache.app = BodyApp(b"more", headers=headers)
    assert ask(cache, headers={"Accept-Language": "en"}).is_hit
    assert not ask(cache, headers={"Accept-Language": "de"}).is_hit


def test_int_02_an_entry_that_replaced_it_is_not_taken_back():
    first = BodyApp(b"page", LookupError(), headers=text(length(4)))
    cache = new_cache(first)
    exchange = Exchange(cache).begin()
    exchange.pull()
    cache.purge("/")
    cache.app = BodyApp(b"newer")
    Exchange(cache).whole()
    with pytest.raises(LookupError):
        exchange.pull()
    exchange.close()
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"newer")


def test_int_02_exception_while_followers_wait_reaches_the_server_after_what_was_read():
    app = BodyApp(b"one", b"two", b"three", LookupError("row 4"))
    cache = new_cache(app, slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    leader.pull()
    follower = Call(ask, cache)
    waiters.arrived()
    cache.app = BodyApp(b"page")
    with pytest.raises(LookupError, match="row 4"):
        leader.rest()
    leader.close()
    assert leader.out == [b"one", b"two", b"three"]
    assert follower.result().body == b"page"
    assert app.closes == [1]


def test_int_02_a_hit_survives_a_later_failure():
    cache = new_cache(BodyApp(b"page"))
    Exchange(cache).whole()
    cache.app = BodyApp(b"no", LookupError())
    assert ask(cache).body == b"page"


# --- INT-03: the server closes early ---------------------------------------------------------------


@pytest.mark.parametrize("more", [[], [length(9)], [length(100)]])
@pytest.mark.parametrize("pulls", [0, 1, 2])
def test_int_03_early_close_is_not_stored(more, pulls):
    app = BodyApp(b"one", b"two", b"six", headers=text(*more))
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    for _ in range(pulls):
        exchange.pull()
    exchange.close()
    assert not_stored(cache)
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) == 1
    assert app.closes == [1]


def test_int_03_close_after_the_last_chunk_without_its_end_being_seen():
    """Without an announced length nobody knows that this was the last chunk."""
    cache = new_cache(BodyApp(b"one", b"two"))
    exchange = Exchange(cache).begin()
    exchange.pull()
    exchange.pull()
    exchange.close()
    assert not_stored(cache)


@pytest.mark.parametrize("chunks", [[b"onetwo"], [b"one", b"two"], [b"one", b"", b"two"]])
def test_int_03_early_close_after_the_announced_length_is_stored(chunks):
    """Servers that count bytes stop as soon as the announced length is reached."""
    app = BodyApp(*chunks, headers=text(length(6)))
    cache = new_cache(app)
    exchange = Exchange(cache).begin()
    while exchange.body != b"onetwo":
        exchange.pull()
    exchange.close()
    assert not app.bodies[0].ended
    hit = ask(cache)
    assert (hit.is_hit, hit.body) == (True, b"onetwo")


@pytest.mark.parametrize("chunks", [[b"onetwo"], [b"one", b"two"]])
def test_int_03_the_entry_is_there_as_soon_as_the_announced_length_is_reached(chunks):
    """A client that is slow to take the last chunk holds up nobody."""
    cache = new_cache(BodyApp(*chunks, headers=text(length(6))))
    exchange = Exchange(cache).begin()
    for _ in chunks:
        exchange.pull()
    assert flights(cache) == 0
    assert ask(cache).is_hit
    exchange.rest().close()
    assert ask(cache).is_hit


@pytest.mark.parametrize("pulls", [0, 1])
def test_int_03_early_close_strands_nobody(pulls):
    cache = new_cache(BodyApp(b"one", b"two"), slow_client_grace=10)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    for _ in range(pulls):
        leader.pull()
    follower = Call(lambda: Exchange(cache).whole().reply)
    waiters.arrived()
    leader.close()
    reply = follower.result()
    assert reply.body == b"onetwo"
    assert reply.stored
    assert ask(cache).is_hit


def test_int_03_early_close_of_a_variant_strands_nobody():
    headers = text(("Vary", "Accept-Language"))
    cache = new_cache(BodyApp(b"one", b"two", headers=headers))
    exchange = Exchange(cache, headers={"Accept-Language": "en"}).begin()
    exchange.pull()
    exchange.close()
    assert ask(cache, headers={"Accept-Language": "en"}).body == b"onetwo"
    assert ask(cache, headers={"Accept-Language": "en"}).is_hit


# --- what the app says of the response while it makes its body -------------------------------------


@pytest.mark.parametrize("word", ["ignore", "private"])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_hints_given_in_mid_body_are_obeyed(word, at):
    """A streaming view may touch the session, or learn whose page it is, after its first chunk."""

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return body(environ["wsgicache.hints"])

    def body(hints):
        for number in range(3):
            if number == at:
                getattr(hints, word)()
            yield b"%d" % number

    cache = new_cache(app)
    assert Exchange(cache).whole().body == b"012"
    assert not_stored(cache)


@pytest.mark.parametrize("at", [0, 1, 2])
def test_ignore_set_in_mid_body_is_obeyed(at):
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return body(environ)

    def body(environ):
        for number in range(3):
            if number == at:
                environ["wsgicache.ignore"] = True
            yield b"%d" % number

    cache = new_cache(app)
    assert Exchange(cache).whole().body == b"012"
    assert not_stored(cache)
    assert count(cache, Reason.NOT_STORED_IGNORED) == 1


def test_groups_named_in_mid_body_are_taken():
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return body(environ["wsgicache.hints"])

    def body(hints):
        yield b"one"
        hints.groups.add("late")
        yield b"two"

    cache = new_cache(app)
    Exchange(cache).whole()
    assert ask(cache).is_hit
    assert cache.purge_groups("late").matched == 1
    assert not ask(cache).is_hit


# --- statuses without a body -----------------------------------------------------------------------


def test_a_204_with_a_body_is_not_stored():
    app = BodyApp(b"x", status="204 No Content", headers=[("Cache-Control", "max-age=9")])
    cache = new_cache(app)
    Exchange(cache).whole()
    assert not_stored(cache)


def test_cpd_06_an_empty_body_does_not_replace_a_page():
    cache = new_cache(BodyApp(b"page", headers=text(("ETag", '"v1"'))))
    Exchange(cache).whole()
    cache.fake_clock.tick(301)
    cache.app = BodyApp(b"")
    assert Exchange(cache).whole().body == b""
    assert count(cache, Reason.NOT_STORED_EMPTY) == 1
