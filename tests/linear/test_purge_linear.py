"""Purges under races, over random schedules in several processes: what begins after one never sees before."""

from collections import Counter

import pytest
from histories import Asked, Purged, violations
from linear_helpers import Race

SCHEDULES = 150
"""Of 8 steps each, for every thread of every process; a run over one store is some 7,000 steps."""


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


def test_threads_over_the_memory_store(tmp_path):
    race = Race(tmp_path, "memory://", workers=1, threads=6)
    check(race.run(SCHEDULES))


@pytest.mark.parametrize("broken", ["born late", "never judged", "soft is nothing"])
def test_a_broken_fence_is_seen(tmp_path, broken):
    race = Race(tmp_path, "memory://", workers=1, threads=6, broken=broken)
    assert violations(race.run(SCHEDULES * 2))
