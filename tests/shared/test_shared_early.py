"""Early refreshes across processes: each draws for itself, and one of them asks the app."""

import pytest
from shared_helpers import Site, trusted

from wsgicache.testing import Response

DUE = 97.0
"""Seconds after which a page that takes a second and lives for a hundred is due: it was drawn 3.2 before."""


@pytest.fixture
def site():
    site = Site(ttl=100, early_refresh=1)

    def answer(environ, version):
        site.clock.tick(1)
        return Response(body=b"v%d" % version)

    site.response = answer
    return site


def due(site, number=2, **options):
    """Workers that have a page each armed, and due."""
    workers = site.workers(number, **options)
    for worker in workers:
        worker.cache.engine.uniform = lambda: 0.5
        worker.ask()
        if "near" in options:
            trusted(worker)
    for worker in workers * 2:
        worker.ask()
    assert sum(worker.calls for worker in workers) == 1
    site.clock.tick(DUE)
    site.version = 2
    return workers


def drained(worker):
    return worker.cache.engine.refresher.drain()


def test_one_of_them_asks_the_app(site):
    one, two = due(site)
    gate = one.app.hold("/page")
    assert one.ask().detail == "HIT_EARLY_REFRESH"
    gate.wait_entered()
    site.clock.tick(-1)
    assert two.ask().detail == "HIT_EARLY_REFRESH", "it has drawn, too, and does not know yet"
    assert drained(two)
    assert two.calls == 0
    assert [worker.ask().cache for worker in (one, two)] == [{"hit": "", "ttl": "2"}] * 2
    gate.open()
    assert drained(one)
    replies = [worker.ask() for worker in (one, two)]
    assert [reply.body for reply in replies] == [b"v2", b"v2"]
    assert (one.calls, two.calls) == (2, 0)


def test_what_another_has_refreshed_is_found_and_drawn_anew(site):
    one, two = due(site)
    one.ask()
    assert drained(one)
    assert [two.ask().detail, two.ask().body] == [None, b"v2"]
    assert drained(two)
    site.clock.tick(90)
    assert two.ask().detail is None
    site.clock.tick(8)
    assert two.ask().detail == "HIT_EARLY_REFRESH"
    assert drained(two)
    assert (one.calls, two.calls) == (2, 1)


@pytest.mark.parametrize("when", ["before the lease", "before the look-up"])
def test_a_refresh_that_comes_too_late_asks_nobody(site, monkeypatch, when):
    """Another worker has refreshed the page since this one decided to."""
    one, two = due(site)
    engine = two.cache.engine
    owner, name = (engine.leases, "take") if when == "before the lease" else (two.cache, "_refresh")
    job = getattr(owner, name)

    def late(*given):
        one.ask()
        assert drained(one)
        return job(*given)

    monkeypatch.setattr(owner, name, late)
    assert two.ask().detail == "HIT_EARLY_REFRESH"
    assert drained(two)
    assert (one.calls, two.calls, two.ask().body) == (2, 0, b"v2")


def test_a_purge_by_another_is_in_force(site):
    one, two = due(site)
    one.cache.purge("/page")
    reply = two.ask()
    assert (reply.cache["fwd"], reply.body) == ("uri-miss", b"v2")
    assert drained(two)
    assert (one.calls, two.calls) == (1, 1)


def test_another_takes_over_where_the_first_failed(site):
    one, two = due(site)
    answer = site.response
    site.response = lambda environ, version: Response(status="503 So")
    assert one.ask().detail == "HIT_EARLY_REFRESH"
    assert drained(one)
    site.response = answer
    assert one.ask().body == b"v1"
    assert two.ask().detail == "HIT_EARLY_REFRESH"
    assert drained(two)
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]


def test_a_near_tier_answers_and_refreshes_all_the_same(site):
    workers = due(site, near="1MB", near_max_age=1000, near_bound=1000)
    try:
        assert workers[0].ask().detail == "HIT_EARLY_REFRESH"
        assert drained(workers[0])
        assert workers[0].ask().body == b"v2"
    finally:
        for worker in workers:
            worker.cache.close()
