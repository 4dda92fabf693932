"""Purges under races, over random schedules in several processes: what begins after one never sees before.

`SCHEDULES=1000 scripts/test tests/linear` runs more of them.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from histories import Asked, Purged, violations
from linear_helpers import Race

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

from servers_memcached import memcached
from servers_redis import empty, empty_cluster, empty_sentinels

SCHEDULES = int(os.environ.get("SCHEDULES", "60"))
"""Of 8 steps each, for every thread of every process; a run over one store is some 3,000 steps."""

ENOUGH = 2400
"""Until when something broken has been seen; it mostly is in the first few."""

PATIENT = "timeout=5"
"""A machine that is busy with these tests is slow: no purge may fail for that, nor a look-up be a miss."""


def told(found):
    """The first of what is wrong, for people."""
    return "\n".join(f"{why}: {event}" for event, why in found[:5])


def check(events, slack=0.0):
    """A history in which enough happened, and nothing that must not."""
    asked = [event for event in events if isinstance(event, Asked)]
    purged = [event for event in events if isinstance(event, Purged)]
    assert len(asked) > 500
    assert len(purged) > 100
    hits = Counter("hit" in event.status for event in asked)
    assert hits[True] > len(asked) / 20, "without hits there is nothing to see"
    found = violations(events, slack)
    assert not found, told(found)


@pytest.fixture
def memcached_url():
    with memcached() as a, memcached() as b:
        yield f"memcached://{a.address},{b.address}?{PATIENT}"


@pytest.fixture
def store_url(request, tmp_path):
    """The URL of a store with nothing in it, by the name of its kind."""
    match request.param:
        case "lmdb":
            pytest.importorskip("lmdb")
            return f"lmdb://{tmp_path}/store?max_bytes=64MB"
        case "redis":
            return f"{empty().url}/0?{PATIENT}"
        case "sentinel":
            return f"{empty_sentinels().url}?{PATIENT}"
        case "cluster":
            return f"{empty_cluster().url}?buckets=4&{PATIENT}"
        case "memcached":
            return request.getfixturevalue("memcached_url")
        case "cachelib":
            return f"cachelib:FileSystemCache?cache_dir={tmp_path}/cache&threshold=0"
        case kind:
            raise ValueError(kind)


SHARED = ["lmdb", "redis", "sentinel", "cluster", "memcached", "cachelib"]


@pytest.mark.parametrize("store_url", SHARED, indirect=True)
def test_processes_over_a_shared_store(tmp_path, store_url):
    """Three processes of two threads; one of them is killed, twice, and another starts in its place."""
    slow = store_url.startswith("cachelib")  # each purge empties it, and it writes files
    check(Race(tmp_path, store_url).run(SCHEDULES // 2 if slow else SCHEDULES, crashes=2))


@pytest.mark.parametrize("store_url", ["redis", "sentinel", "cluster", "lmdb", "memcached"], indirect=True)
def test_processes_with_near_tiers(tmp_path, store_url):
    """A purge that waits for all of them is one for all of them."""
    pushed = not store_url.startswith(("lmdb", "memcached"))
    schedules = SCHEDULES if pushed else SCHEDULES // 4  # without messages each purge waits for the bound
    race = Race(tmp_path, store_url, near="8MB", near_bound=0.5 if pushed else 0.05)
    events = race.run(schedules, crashes=1 if pushed else 0)
    if pushed:
        check(events)
    else:
        assert not violations(events), told(violations(events))
        assert any("hit" in event.status for event in events if isinstance(event, Asked))


@pytest.mark.parametrize("store_url", ["redis", "lmdb", "memcached"], indirect=True)
def test_processes_with_near_tiers_that_nobody_waits_for(tmp_path, store_url):
    """A purge is one for all of them when the bound has passed."""
    events = Race(tmp_path, store_url, near="8MB", near_bound=0.05, wait=False).run(SCHEDULES * 2)
    assert not violations(events), told(violations(events))
    assert any("hit" in event.status for event in events if isinstance(event, Asked))


@pytest.mark.parametrize("store_url", ["lmdb"], indirect=True)
def test_before_the_bound_has_passed_it_is_not(tmp_path, store_url):
    """So the schedules are quick enough to see a bound that is too long."""
    race = Race(tmp_path, store_url, near="8MB", near_bound=0.05, wait=None)
    assert race.violated(ENOUGH)


@pytest.mark.parametrize("store_url", ["redis", "lmdb"], indirect=True)
def test_a_broken_near_tier_is_seen_between_processes(tmp_path, store_url):
    race = Race(tmp_path, store_url, near="8MB", near_bound=0.05, broken="nobody is told")
    assert race.violated(ENOUGH)


@pytest.mark.parametrize("store_url", ["redis", "lmdb"], indirect=True)
@pytest.mark.parametrize("broken", ["born late", "never judged", "never followed", "soft is nothing"])
def test_a_broken_fence_is_seen_between_processes(tmp_path, store_url, broken):
    assert Race(tmp_path, store_url, broken=broken).violated(ENOUGH)


@pytest.mark.parametrize("store_url", ["cluster"], indirect=True)
def test_a_purge_in_another_bucket_is_seen(tmp_path, store_url):
    assert Race(tmp_path, store_url, broken="another bucket").violated(ENOUGH)


def test_threads_over_the_memory_store(tmp_path):
    race = Race(tmp_path, "memory://", workers=1, threads=6)
    check(race.run(SCHEDULES))


@pytest.mark.parametrize("broken", ["born late", "never judged", "soft is nothing"])
def test_a_broken_fence_is_seen(tmp_path, broken):
    race = Race(tmp_path, "memory://", workers=1, threads=6, broken=broken)
    assert race.violated(ENOUGH)
