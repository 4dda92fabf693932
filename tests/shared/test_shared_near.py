"""The near tier in a cache: copies that answer without asking, for as long as they may."""

import pytest
from shared_helpers import Later, Site, trusted, until

from wsgicache import Reason, Rule, WSGICache
from wsgicache.options import OptionError
from wsgicache.testing import ScriptedApp, SharedServer, SharedStore

NEAR = {"near": "1MB", "near_bound": 60.0, "near_max_age": 600}
"""The thread that follows the journal does so three times within the bound of real time: not again here."""


def served(*workers):
    """Have workers serve the page from their copies, once these are trusted."""
    for worker in workers:
        worker.ask()
        trusted(worker)
    for worker in workers * 3:
        worker.ask()


def test_a_hit_asks_nobody():
    site = Site()
    one, two = site.workers(**NEAR)
    served(one, two)
    for worker in (one, two):
        trips, reply = site.trips(worker.ask)
        assert (trips, reply.is_hit, reply.body) == (0, True, b"v1")
    assert two.calls == 0


def test_after_the_bound_it_asks_again():
    """The store that these tests share pushes nothing."""
    site = Site()
    one, two = site.workers(**NEAR)
    served(one, two)
    site.version = 2
    one.cache.purge("/page")
    site.clock.tick(61)
    reply = two.ask()
    assert (reply.is_hit, reply.body) == (False, b"v2")
    served(one, two)
    assert [worker.ask().body for worker in (one, two)] == [b"v2", b"v2"]


def test_its_own_purge_is_in_force_at_once():
    site = Site()
    one, two = site.workers(**NEAR)
    served(one, two)
    site.version = 2
    two.cache.purge("/page")
    assert two.ask().body == b"v2"


def test_a_switch_that_came_meanwhile_is_heard_by_the_first_hit():
    site = Site()
    one, two = [
        site.workers(1, rules=[Rule("/page", bypass=True, name="p", enabled=False)], **NEAR)[0] for _ in "12"
    ]
    served(one, two)
    one.cache.rules.enable("p")
    two.cache.engine.store.follow()  # as when a message comes
    assert two.ask().detail == Reason.BYPASS_RULE.name


def test_a_copy_that_another_replaced_lives_on_for_its_age_at_most():
    site = Site(ttl=6000)
    one, two = site.workers(**NEAR)
    served(one, two)
    site.version = 2
    one.cache.purge("/page", soft=True)
    one.ask()
    site.clock.tick(601)
    assert two.ask().body == b"v2"


def test_a_store_that_is_down_is_missed_after_the_bound():
    site = Site()
    one, two = site.workers(**NEAR)
    served(one, two)
    site.server.down = True
    assert two.ask().is_hit
    site.clock.tick(61)
    for _ in range(2):
        assert two.ask().detail == Reason.STORE_DOWN.name
    site.server.down = False
    assert two.ask().is_hit


def test_waiting_for_the_others_lasts_as_long_as_they_may_serve():
    site = Site()
    one, two = site.workers(**{**NEAR, "near_bound": 0.2})
    served(one, two)
    site.version = 2
    one.cache.purge("/page", wait=True)
    site.clock.tick(0.2)  # the caches' clock; the wait was in real time
    assert two.ask().body == b"v2"


def test_followers_of_another_process_take_the_answer_from_the_store():
    site = Site()
    one, two = site.workers(**NEAR)
    gate = one.app.hold("/page")
    leader = Later(one.ask)
    gate.wait_entered()
    follower = Later(two.ask)
    until(lambda: len(two.cache.engine.collapse) == 1)
    gate.open()
    leader.result()
    assert "collapsed" in follower.result().cache
    assert two.calls == 0


@pytest.mark.parametrize("store", ["memory://", None])
def test_it_needs_a_store_that_is_shared(store):
    given = {} if store is None else {"store": store}
    with pytest.raises(OptionError, match=r"near = 2000000: .*redis://.*memory://.*leave near out"):
        WSGICache(ScriptedApp(), near="2MB", **given)


@pytest.mark.parametrize(("near", "told"), [("1", "near: .*1"), ("many", "near = 'many'")])
def test_a_size_that_is_none(near, told):
    with pytest.raises(OptionError, match=told):
        WSGICache(ScriptedApp(), SharedStore(SharedServer()), near=near)


@pytest.mark.parametrize("given", ["2MB", 2_000_000])
def test_the_option_reads_like_the_others(given):
    cache = WSGICache.from_mapping(
        ScriptedApp(), {"WSGICACHE_NEAR": given, "WSGICACHE_STORE": SharedStore(SharedServer())}
    )
    assert cache.engine.settings.near == 2_000_000
    cache.close()
