"""Collapsing when something goes wrong: leaders that raise, die, stall or have slow clients, apps that call
themselves, more followers than may wait. Nobody is ever stranded, and no exception is shared."""

import threading

import pytest
from wsgi_helpers import (
    PATIENCE,
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
    results,
    text,
)

from wsgicache import Reason
from wsgicache.testing import Gate, Response, ScriptedApp, ask

PAGE = Response(body=b"page")


class Killed(BaseException):
    """What a greenlet is killed with."""


# --- CON-09: the leader raises ---------------------------------------------------------------------


@pytest.mark.parametrize("error", [LookupError("first"), Killed("first")])
def test_con_09_one_retries_while_the_others_keep_waiting(error):
    app = ScriptedApp(Response(error=error))
    cache = new_cache(app)
    waiters = Waiters(cache)
    first, second = app.hold("/"), None
    leader = Call(ask, cache)
    first.wait_entered()
    followers = [Call(ask, cache) for _ in range(5)]
    waiters.arrived(5)
    app.answers(PAGE)
    second = app.hold("/")
    first.open()
    with pytest.raises(type(error), match="first"):
        leader.result()
    second.wait_entered()
    waiters.arrived(4)  # the four others wait again, for the one that asks now
    second.open()
    replies = results(followers)
    assert {reply.body for reply in replies} == {b"page"}
    assert [("stored" in reply.cache, "collapsed" in reply.cache) for reply in replies].count(
        (False, True)
    ) == 4
    assert app.calls == 2


def test_con_09_an_exception_is_nobody_elses():
    """Each request that reaches a failing app gets an exception that was raised for it."""
    errors = []

    def failing(environ):
        errors.append(LookupError(len(errors)))
        return Response(error=errors[-1])

    app = ScriptedApp(failing)
    cache = new_cache(app)
    waiters = Waiters(cache)
    gate = app.hold("/")
    calls = [Call(ask, cache) for _ in range(10)]
    gate.wait_entered()
    waiters.arrived(9)
    gate.open()
    raised = []
    for call in calls:
        with pytest.raises(LookupError) as caught:
            call.result()
        raised.append(caught.value)
    assert len({id(error) for error in raised}) == 10
    assert app.calls == 10
    assert flights(cache) == 0


def test_con_09_a_leader_that_raises_in_its_body():
    app = BodyApp(b"one", LookupError("row 2"))
    cache = new_cache(app, slow_client_grace=PATIENCE)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    follower = Call(ask, cache)
    waiters.arrived()
    cache.app = ScriptedApp(PAGE)
    with pytest.raises(LookupError, match="row 2"):
        leader.rest()
    leader.close()
    assert follower.result().body == b"page"


@pytest.mark.parametrize("killed", [Killed("row 3"), KeyboardInterrupt("row 3")])
def test_wsg_12_killed_while_the_rest_is_drained(killed):
    """It passes at once, and nobody waits for what will not come."""
    cache = new_cache(BodyApp(b"one", b"two", killed), slow_client_grace=PATIENCE)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    leader.pull()
    follower = Call(ask, cache)
    waiters.arrived()
    cache.app = ScriptedApp(PAGE)
    with pytest.raises(type(killed), match="row 3"):
        leader.pull()
    assert follower.result().body == b"page"
    leader.close()


# --- CON-08: the leader dies, or never comes back --------------------------------------------------


def test_con_08_a_leader_that_is_killed_while_it_asks_the_app():
    killed = threading.Event()

    def app(environ, start_response):
        if killed.is_set():
            start_response("200 OK", list(TEXT))
            return [b"page"]
        gate.pass_through()
        killed.set()
        raise Killed

    gate = Gate()
    cache = new_cache(app)
    waiters = Waiters(cache)
    leader = Call(ask, cache)
    gate.wait_entered()
    follower = Call(ask, cache)
    waiters.arrived()
    gate.open()
    with pytest.raises(Killed):
        leader.result()
    assert follower.result().stored


@pytest.mark.parametrize("pulls", [0, 1])
@pytest.mark.parametrize(("grace", "timeout"), [(0.02, PATIENCE), (PATIENCE, 0.05)])
def test_con_08_a_leader_that_is_abandoned_strands_nobody(pulls, grace, timeout):
    app = BodyApp(b"one", b"two")
    cache = new_cache(app, wait_timeout=timeout, slow_client_grace=grace)
    abandoned = Exchange(cache).begin()
    for _ in range(pulls):
        abandoned.pull()
    reply = Call(lambda: Exchange(cache).whole().reply).result()
    assert reply.body == b"onetwo"
    assert reply.stored
    assert count(cache, Reason.COLLAPSE_TIMEOUT) == (0 if grace < timeout else 1)
    assert flights(cache) == 0
    assert Call(ask, cache).result().is_hit
    assert app.calls == 2
    abandoned.close()
    assert ask(cache).is_hit


@pytest.mark.parametrize("pulls", [0, 1])
def test_con_08_the_thread_that_abandoned_a_leader_is_not_stuck_with_it(pulls):
    """A worker with one thread has nobody else who could find out."""
    app = BodyApp(b"one", b"two")
    cache = new_cache(app, wait_timeout=PATIENCE)
    abandoned = Exchange(cache).begin()
    for _ in range(pulls):
        abandoned.pull()
    assert Exchange(cache).whole().reply.stored
    assert ask(cache).is_hit
    assert abandoned.rest().close().body == b"onetwo"
    assert ask(cache).is_hit


def test_con_08_a_leader_stuck_in_the_app_holds_followers_for_wait_timeout_only():
    app = ScriptedApp(PAGE)
    cache = new_cache(app, wait_timeout=0.05)
    stuck = app.hold("/")
    leader = Call(ask, cache)
    stuck.wait_entered()
    app.hold("/").open()
    follower = Call(ask, cache).result()
    assert (follower.body, follower.detail) == (b"page", "COLLAPSE_TIMEOUT")
    assert ask(cache).is_hit
    assert leader.running
    stuck.open()
    assert leader.result().body == b"page"


def test_con_08_after_a_timeout_the_next_request_does_not_wait_again():
    app = ScriptedApp(lambda environ: Response(headers=[("Vary", "X-Any"), *TEXT], body=b"page"))
    cache = new_cache(app, wait_timeout=0.05)
    stuck = app.hold("/")
    leader = Call(ask, cache)
    stuck.wait_entered()
    held = app.hold("/")
    late = Call(ask, cache)
    held.wait_entered()  # it has given up waiting, and is in the app itself
    assert flights(cache) == 0
    third = Call(ask, cache)
    held.wait_entered()  # it leads, without having waited for the one that is stuck
    assert flights(cache) == 1
    held.open()
    assert {late.result().body, third.result().body} == {b"page"}
    stuck.open()
    assert leader.result().body == b"page"


def test_a_follower_that_is_killed_while_it_waits_is_not_counted_any_more(monkeypatch):
    app = ScriptedApp(PAGE)
    cache = new_cache(app, max_followers=1)
    gate = app.hold("/")
    leader = Call(ask, cache)
    gate.wait_entered()
    wait = threading.Condition.wait

    def killing(self, timeout=None):
        if threading.current_thread() is threading.main_thread():
            raise Killed
        return wait(self, timeout)

    monkeypatch.setattr(threading.Condition, "wait", killing)
    with pytest.raises(Killed):
        ask(cache)
    monkeypatch.undo()
    waiters = Waiters(cache)
    follower = Call(ask, cache)
    waiters.arrived()  # the only place for a follower is free again
    gate.open()
    leader.result()
    assert "collapsed" in follower.result().cache


# --- CON-10: the leader's client is slow -----------------------------------------------------------


class SlowClient:
    """A client on its own thread that takes a number of chunks, then stops at a gate."""

    def __init__(self, cache, takes):
        self.gate = Gate()
        self._exchange = Exchange(cache)
        self._takes = takes
        self._call = Call(self._serve)
        self.gate.wait_entered()

    def _serve(self):
        self._exchange.begin()
        for _ in range(self._takes):
            self._exchange.pull()
        self.gate.pass_through()
        try:
            self._exchange.rest()
        finally:
            self._exchange.close()
        return self._exchange.body

    def body(self):
        self.gate.open()
        return self._call.result()


@pytest.mark.parametrize("takes", [0, 1, 2])
def test_con_10_a_slow_client_holds_followers_for_the_grace_only(takes):
    app = BodyApp(b"one", b"two", b"three")
    cache = new_cache(app, wait_timeout=1000.0, slow_client_grace=0.02)
    slow = SlowClient(cache, takes)
    follower = Call(lambda: Exchange(cache).whole().reply).result()
    assert follower.body == b"onetwothree"
    assert follower.detail is None
    assert app.calls == 2
    assert ask(cache).is_hit
    assert slow.body() == b"onetwothree"
    assert app.closes == [1, 1]
    assert ask(cache).body == b"onetwothree"


def test_con_10_many_followers_of_a_slow_client_call_the_app_once_more():
    app = BodyApp(b"one", b"two")
    cache = new_cache(app, wait_timeout=1000.0, slow_client_grace=0.02)
    slow = SlowClient(cache, 1)
    followers = [Call(lambda: Exchange(cache).whole().reply) for _ in range(10)]
    assert {reply.body for reply in results(followers)} == {b"onetwo"}
    assert slow.body() == b"onetwo"
    assert app.calls <= 3


def test_con_10_the_rest_is_drained_when_somebody_waits():
    """At the next pull everything is read, so that the client's pace does not matter any more."""
    app = BodyApp(b"one", b"two", b"three", b"four")
    cache = new_cache(app, slow_client_grace=PATIENCE)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    assert leader.pull() == b"one"
    assert app.bodies[0].pulled == 1
    follower = Call(ask, cache)
    waiters.arrived()
    assert leader.pull() == b"two"
    assert app.bodies[0].ended
    reply = follower.result()
    assert reply.body == b"onetwothreefour"
    assert "collapsed" in reply.cache
    assert leader.rest().close().out == [b"one", b"two", b"three", b"four"]
    assert app.calls == 1
    assert app.closes == [1]


def test_con_10_nothing_is_drained_while_nobody_waits():
    app = BodyApp(b"one", b"two", b"three")
    exchange = Exchange(new_cache(app)).begin()
    for number in (1, 2, 3):
        exchange.pull()
        assert app.bodies[0].pulled == number
    exchange.rest().close()


def test_con_10_draining_stops_at_the_limit():
    endless = Body(iter(lambda: b"x" * 40, None))

    def app(environ, start_response):
        if app.led:
            start_response("200 OK", list(TEXT))
            return [b"page"]
        app.led = True
        start_response("200 OK", list(TEXT))
        return endless

    app.led = False
    cache = new_cache(app, max_body_bytes=200, slow_client_grace=PATIENCE)
    waiters = Waiters(cache)
    leader = Exchange(cache).begin()
    leader.pull()
    follower = Call(ask, cache)
    waiters.arrived()
    leader.pull()
    assert follower.result().body == b"page"
    assert endless.pulled == 6
    for _ in range(20):
        leader.pull()
    assert leader.body == b"x" * 40 * 22
    leader.close()
    assert endless.closed == 1


def test_con_10_a_body_of_announced_length_holds_nobody_once_it_is_there():
    app = BodyApp(b"one", b"two", headers=text(length(6)))
    cache = new_cache(app, slow_client_grace=PATIENCE, wait_timeout=PATIENCE)
    slow = SlowClient(cache, 2)
    assert ask(cache).is_hit
    assert slow.body() == b"onetwo"


def test_con_17_a_slow_leader_does_not_replace_what_was_stored_meanwhile():
    bodies = iter([[b"old ", b"page"], [b"new ", b"page"]])

    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return Body(next(bodies))

    cache = new_cache(app, slow_client_grace=0.02)
    slow = SlowClient(cache, 1)
    assert Call(ask, cache).result().body == b"new page"
    assert slow.body() == b"old page"
    assert ask(cache).body == b"new page"


# --- CON-12: an app that calls itself --------------------------------------------------------------


def calling_itself(inner_url):
    """An app whose page includes another one, which it asks the cache for."""

    def app(environ, start_response):
        app.calls += 1
        if environ["PATH_INFO"] == "/outer" and "HTTP_X_INNER" not in environ:
            app.inner = ask(app.cache, inner_url, headers={"X-Inner": "1"})
        start_response("200 OK", list(TEXT))
        return [b"page of " + environ["PATH_INFO"].encode()]

    app.calls = 0
    app.inner = None
    return app


def test_con_12_a_call_for_the_page_that_is_being_filled_bypasses():
    app = calling_itself("/outer")
    app.cache = cache = new_cache(app, wait_timeout=1000.0)
    assert ask(cache, "/outer").stored
    assert app.inner.detail == "BYPASS_NESTED"
    assert not app.inner.stored
    assert app.inner.body == b"page of /outer"
    assert app.calls == 2
    assert ask(cache, "/outer").is_hit
    assert flights(cache) == 0


def test_con_12_a_call_for_another_page_is_cached():
    app = calling_itself("/inner")
    app.cache = cache = new_cache(app)
    assert ask(cache, "/outer").stored
    assert app.inner.stored
    assert ask(cache, "/inner").is_hit


@pytest.mark.parametrize("first", [[], [b"head "]])
def test_con_12_a_call_from_within_the_body(first):
    def app(environ, start_response):
        start_response("200 OK", list(TEXT))
        return [b"inner"] if "HTTP_X_INNER" in environ else body()

    def body():
        yield from first
        yield ask(cache, headers={"X-Inner": "1"}).body

    cache = new_cache(app, wait_timeout=1000.0)
    exchange = Exchange(cache).whole()
    assert exchange.body == b"".join(first) + b"inner"
    assert ask(cache).body == b"".join(first) + b"inner"
    assert flights(cache) == 0


def test_con_12_two_pages_that_include_each_other():
    """Each waits for the other one's flight, on two threads: the deadline ends it."""
    both = threading.Barrier(2)

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if "HTTP_X_INNER" not in environ:
            both.wait(PATIENCE)
            ask(cache, "/b" if path == "/a" else "/a", headers={"X-Inner": "1"})
        start_response("200 OK", list(TEXT))
        return [path.encode()]

    cache = new_cache(app, wait_timeout=0.05)
    a, b = Call(ask, cache, "/a"), Call(ask, cache, "/b")
    assert (a.result().body, b.result().body) == (b"/a", b"/b")
    assert flights(cache) == 0


# --- CON-13: more followers than may wait ----------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 2])
def test_con_13_who_finds_the_queue_full_goes_to_the_app(limit):
    app = ScriptedApp(PAGE)
    cache = new_cache(app, max_followers=limit)
    waiters = Waiters(cache)
    gate = app.hold("/")
    leader = Call(ask, cache)
    gate.wait_entered()
    followers = [Call(ask, cache) for _ in range(limit)]
    waiters.arrived(limit)
    overflow = [Call(ask, cache) for _ in range(3)]
    gate.wait_entered(3)
    gate.open()
    assert leader.result().body == b"page"
    for reply in results(followers):  # where one of the others was stored first, that one answers
        assert "collapsed" in reply.cache or reply.is_hit
    for reply in results(overflow):
        assert "collapsed" not in reply.cache
        assert reply.body == b"page"
    assert count(cache, Reason.COLLAPSE_OVERFLOW) == 3
    assert app.calls == 4
    assert ask(cache).is_hit


def test_con_13_a_pool_of_threads_still_serves_other_pages():
    app = ScriptedApp(PAGE)
    cache = new_cache(app, max_followers=2)
    waiters = Waiters(cache)
    gate = app.hold("/slow")
    slow = [Call(ask, cache, "/slow")]
    gate.wait_entered()
    slow += [Call(ask, cache, "/slow") for _ in range(2)]
    waiters.arrived(2)
    for number in range(10):
        assert ask(cache, f"/other/{number}").body == b"page"
    gate.open()
    assert len(results(slow)) == 3


# --- background refreshes and visitors -------------------------------------------------------------

WINDOWS = text(("Cache-Control", "max-age=10, stale-while-revalidate=100, stale-if-error=100"))


def stale_cache(**options):
    app = ScriptedApp(Response(headers=WINDOWS, body=b"old"))
    cache = new_cache(app, **options)
    ask(cache)
    cache.fake_clock.tick(20)
    app.answers(Response(headers=WINDOWS, body=b"new"))
    return app, cache


def test_one_refresh_behind_many_visitors():
    app, cache = stale_cache()
    gate = app.hold("/")
    for _ in range(20):
        assert ask(cache).detail == "HIT_STALE_WHILE_REVALIDATE"
    gate.wait_entered()
    gate.open()
    assert cache.engine.refresher.drain()
    assert app.calls == 2
    hit = ask(cache)
    assert (hit.body, hit.detail) == (b"new", None)


@pytest.mark.parametrize("error", [LookupError(), SystemExit()], ids=repr)
def test_a_refresh_that_fails_leaves_the_stale_page_and_no_thread_dies_of_it(error):
    """An app may call sys.exit(); the pool has as many threads afterwards as before."""
    app, cache = stale_cache(background_threads=1)
    for number in range(4):
        app.answers(Response(error=error) if number < 3 else Response(headers=WINDOWS, body=b"new"))
        assert ask(cache).body == b"old"
        assert cache.engine.refresher.drain()
        cache.fake_clock.tick(15)  # past the back-off
    assert app.calls == 5
    assert ask(cache).body == b"new"
    assert flights(cache) == 0


def test_wsg_05_a_refresh_is_nobodys_request():
    app, cache = stale_cache()
    ask(
        cache,
        headers={
            "Cookie": "_ga=1; csrftoken=abc",
            "User-Agent": "x",
            "X-Forwarded-For": "192.0.2.1",
            "Referer": "http://example.com/",
            "If-None-Match": '"x"',
        },
        REMOTE_ADDR="192.0.2.1",
    )
    assert cache.engine.refresher.drain()
    seen = app.seen[-1]
    assert app.calls == 2
    assert {name for name in seen if name.startswith("HTTP_")} <= {"HTTP_HOST", "HTTP_ACCEPT_ENCODING"}
    assert "REMOTE_ADDR" not in seen
    assert seen["wsgi.input"].read() == b""


def test_con_04_a_purge_during_a_refresh_wins():
    app, cache = stale_cache()
    gate = app.hold("/")
    assert ask(cache).body == b"old"
    gate.wait_entered()
    cache.purge("/")
    app.answers(Response(headers=WINDOWS, body=b"newest"))
    app.release("/")
    assert cache.engine.refresher.drain()
    assert ask(cache).body == b"newest"


def test_a_visitor_whose_window_has_ended_follows_the_refresh():
    windows = text(("Cache-Control", "max-age=1000, stale-while-revalidate=10"))
    app = ScriptedApp(Response(headers=windows, body=b"old"))
    cache = new_cache(app)
    waiters = Waiters(cache)
    ask(cache)
    cache.fake_clock.tick(1005)
    app.answers(Response(headers=windows, body=b"new"))
    gate = app.hold("/")
    assert ask(cache).body == b"old"
    gate.wait_entered()
    cache.fake_clock.tick(10)
    visitor = Call(ask, cache)
    waiters.arrived()
    gate.open()
    assert visitor.result().body == b"new"
    assert app.calls == 2
