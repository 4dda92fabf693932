"""Collapsing across processes: one of them asks the app, by a lease in the shared store."""

import pytest
from shared_helpers import Later, Site, until

from wsgicache import Reason
from wsgicache.testing import Response


def waiting(worker):
    """Wait until a worker has found the lease of another."""
    until(lambda: any(flight.lease is None for flight in worker.cache.engine.collapse._flights.values()))
    trips = worker.store.server.trips
    until(lambda: worker.store.server.trips > trips + 4)


def held(site, worker, path="/page", **given):
    """A request that stands inside the app of a worker, which holds the lease."""
    gate = worker.app.hold(path)
    call = Later(worker.ask, path, **given)
    gate.wait_entered()
    return gate, call


@pytest.mark.parametrize("expired", [False, True])
def test_one_view_run_across_workers(expired):
    site = Site(ttl=60)
    workers = site.workers(3)
    if expired:
        workers[0].ask()
        site.clock.tick(61)
    before = sum(worker.calls for worker in workers)
    gate, leader = held(site, workers[0])
    others = [Later(worker.ask) for worker in workers[1:] for _ in range(5)]
    waiting(workers[1])
    waiting(workers[2])
    gate.open()
    assert leader.result().stored
    for reply in [other.result() for other in others]:
        assert reply.body == b"v1"
        assert "collapsed" in reply.cache
    assert sum(worker.calls for worker in workers) == before + 1


def test_a_lease_is_given_back():
    site = Site()
    one, two = site.workers()
    one.ask()
    one.cache.purge("/page")
    assert two.ask().stored
    assert two.calls == 1


def test_a_process_that_ends_gives_back_what_it_holds():
    """Refreshes end with it; what one of them may still store then is older than what another stored."""
    site = Site(lease=60)
    one, two = site.workers()
    gate, late = held(site, one)
    one.cache.engine.leases.give_back_all()
    site.version = 2
    assert two.ask().stored
    gate.open()
    assert late.result().body == b"v1"
    assert one.cache.stats()["reasons"][Reason.NOT_STORED_RACED.name] == 1
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]


def test_a_forked_child_gives_back_nothing_of_its_parents():
    site = Site(lease=60)
    one, two = site.workers()
    gate, leader = held(site, one)
    one.cache.engine.leases.after_fork()
    one.cache.engine.leases.give_back_all()
    assert two.store.lease(next(iter(site.server.leases)), 60) is None
    gate.open()
    assert leader.result().stored


@pytest.mark.parametrize(
    "headers", [[("Cache-Control", "private")], [("Set-Cookie", "a=b")], [("Vary", "*")]]
)
def test_con_05_an_unstorable_answer_sends_all_to_the_app_at_once(headers):
    site = Site()
    site.response = lambda environ, version: Response(headers=headers, body=b"mine")
    one, two = site.workers()
    gate, leader = held(site, one)
    inside = two.app.hold("/page")
    others = [Later(two.ask) for _ in range(5)]
    waiting(two)
    gate.open()
    inside.wait_entered(5)
    inside.open()
    assert leader.result().body == b"mine"
    for reply in [other.result() for other in others]:
        assert (reply.body, "collapsed" in reply.cache) == (b"mine", False)
    assert two.calls == 5


def test_con_06_they_need_not_wait_again_for_a_while():
    site = Site()
    site.response = lambda environ, version: Response(headers=[("Cache-Control", "no-store")], body=b"x")
    one, two = site.workers()
    one.ask()
    gates = [held(site, two), held(site, one)]
    for gate, call in gates:
        gate.open()
        assert "collapsed" not in call.result().cache
    for worker in (one, two):
        assert worker.cache.stats()["reasons"][Reason.MISS_MARKER.name] == 1


def test_what_a_visitor_gets_for_himself_marks_nothing():
    site = Site()
    one, two = site.workers()
    one.ask(headers={"Range": "bytes=0-0"})
    assert two.ask().stored
    assert one.ask().is_hit


def test_con_09_a_leader_that_raises_leaves_the_lease_to_another():
    site = Site()
    one, two = site.workers()
    site.response = lambda environ, version: Response(error=RuntimeError("broken"))
    gate, leader = held(site, one)
    other = Later(two.ask)
    waiting(two)
    site.response = lambda environ, version: Response(body=b"v2")
    gate.open()
    with pytest.raises(RuntimeError, match="broken"):
        leader.result()
    assert other.result().stored
    assert two.calls == 1


def test_con_08_a_leader_that_died_costs_one_lease_and_stores_nothing_late():
    site = Site(lease=0.05)
    one, two = site.workers()
    gate, late = held(site, one)
    site.version = 2
    reply = two.ask()
    assert (reply.stored, reply.body) == (True, b"v2")
    gate.open()
    assert late.result().body == b"v1"
    assert one.cache.stats()["reasons"][Reason.NOT_STORED_RACED.name] == 1
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]


def test_a_follower_does_not_wait_for_ever():
    site = Site(lease=60, wait_timeout=0.05)
    one, two = site.workers()
    gate, leader = held(site, one)
    reply = two.ask()
    assert (reply.detail, two.calls) == (Reason.COLLAPSE_TIMEOUT.name, 1)
    gate.open()
    leader.result()


def test_con_01_nobody_waits_for_a_flight_that_was_purged():
    """Its holder keeps the lease, but whoever waits asks again at its own mark and gets a page made since."""
    site = Site(lease=0.2)
    one, two = site.workers()
    gate, late = held(site, one)
    site.version = 2
    two.cache.purge("/page")
    other = Later(two.ask)
    waiting(two)
    gate.open()
    assert late.result().body == b"v1"
    assert other.result().body == b"v2"


def test_a_page_is_refreshed_by_one_of_them_and_nobody_waits():
    site = Site(ttl=60, stale_while_revalidate=60)
    one, two = site.workers()
    one.ask()
    two.ask()
    site.clock.tick(61)
    site.version = 2
    gates = [worker.app.hold("/page") for worker in (one, two)]
    assert one.ask().body == b"v1"
    gates[0].wait_entered()
    for worker in (two, one, two):
        reply = worker.ask()
        assert (reply.is_hit, reply.body) == (True, b"v1")
    assert two.cache.engine.refresher.drain()
    assert two.calls == 0
    gates[0].open()
    assert one.cache.engine.refresher.drain()
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]


def test_a_page_that_came_while_the_lease_was_taken_is_not_refreshed_again():
    """Another process stored it between the look that found it stale and the lease."""
    site = Site(ttl=60, stale_while_revalidate=60)
    one, two = site.workers()
    one.ask()
    two.ask()
    site.clock.tick(61)
    site.version = 2
    lease = two.store.lease

    def late(key, seconds):
        two.store.lease = lease
        one.ask()
        assert one.cache.engine.refresher.drain()
        return lease(key, seconds)

    two.store.lease = late
    assert two.ask().body == b"v1"
    assert two.cache.engine.refresher.drain()
    assert (one.calls, two.calls) == (2, 0)
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]
    assert one.store.lease(next(iter(site.server.leases)), 60), "the lease was given back"


def test_a_store_without_leases_costs_the_sharing_only():
    site = Site()
    one, two = site.workers()

    def refuse(key, seconds):
        raise OSError("no lease")

    one.store.lease = refuse
    assert one.ask().stored
    assert one.cache.stats()["store_failures"] == 1
    assert two.ask().is_hit


@pytest.mark.parametrize("method", ["lease", "get"])
def test_a_refresh_that_is_killed_while_it_asks_the_store_holds_up_no_other(method):
    """A timeout of gevent's is no Exception, and may end any wait."""

    class Killed(BaseException):
        pass

    site = Site()
    site.response = lambda environ, version: Response(
        headers=[("Cache-Control", "max-age=10, stale-while-revalidate=100")], body=b"v%d" % version
    )
    (one,) = site.workers(1)
    one.ask()
    site.clock.tick(20)
    site.version = 2
    given, asked = getattr(one.store, method), []

    def killed(*args):
        asked.append(args)
        if method == "lease" or len(asked) == 3:  # the visitor's, the refresh's, and that with the lease
            raise Killed
        return given(*args)

    setattr(one.store, method, killed)
    with pytest.raises(Killed):
        one.ask(**{"wsgi.multithread": False})
    setattr(one.store, method, given)
    assert len(one.cache.engine.collapse) == 0
    assert not one.cache.engine.leases._held
    site.clock.tick(5)
    one.ask(**{"wsgi.multithread": False})
    assert one.ask().body == b"v2"
