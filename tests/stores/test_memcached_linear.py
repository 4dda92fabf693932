"""Caches of several processes over memcached and cachelib, under races: no purge is ever undone."""

import sys
from pathlib import Path

import pytest
from servers_memcached import memcached

sys.path.insert(0, str(Path(__file__).parents[1] / "linear"))

from histories import Asked, Purged, violations
from linear_helpers import Race


@pytest.fixture(scope="module")
def three():
    with memcached() as a, memcached() as b, memcached() as c:
        yield [a.address, b.address, c.address]


def check(events):
    asked = [event for event in events if isinstance(event, Asked)]
    hits = [event for event in asked if "hit" in event.status]
    assert len(hits) > len(asked) / 20 > 20, "without hits there is nothing to see"
    assert sum(isinstance(event, Purged) for event in events) > 100
    assert violations(events, 0.0) == []


@pytest.mark.parametrize("servers", [1, 3])
def test_processes_over_memcached(tmp_path, three, servers):
    race = Race(tmp_path, f"memcached://{','.join(three[:servers])}?timeout=5", workers=3, threads=2)
    check(race.run(100))


def test_processes_that_are_killed(tmp_path, three):
    race = Race(tmp_path, f"memcached://{','.join(three)}?timeout=5", workers=3, threads=2)
    check(race.run(100, crashes=3))


def test_processes_over_files_of_cachelib(tmp_path):
    url = f"cachelib:FileSystemCache?cache_dir={tmp_path}/cache&threshold=0"
    check(Race(tmp_path, url, workers=3, threads=2).run(60))
