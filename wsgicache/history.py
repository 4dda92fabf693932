"""What a site's counters were in the last day, so that it can be seen how they grew.

Every five minutes some worker that has something to add writes down what all of them have counted so far. The
list is kept as a text beside the journal, bounded, and whoever is quicker writes it: two workers that do it
at once write nearly the same. What happened in between is the difference of two lines.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from .observe import summary
from .savings import SAVED_BYTES, SAVED_TIME, saved
from .stores import Store

EVERY: Final = 300
"""Seconds between two lines."""

KEPT: Final = 24 * 3600 // EVERY + 1
"""Lines that are kept: a day."""

NAME: Final = "history"

FIELDS: Final = (
    "requests", "hits", "stale_hits", "misses", "collapsed", "store_failures", SAVED_TIME, SAVED_BYTES,
)  # fmt: skip
"""What a line tells, of `summary` and of `saved`."""


class Point(NamedTuple):
    """What happened in the seconds before an instant (wall clock)."""

    at: int
    seconds: int
    numbers: Mapping[str, int]


class History:
    """The list, as one process sees it.

    Args:
        store: where it is kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._next = 0.0

    def note(self, now: float, counts: Mapping[str, int] | None = None) -> None:
        """Write a line down, if one is due and nobody has.

        Args:
            counts: what all workers have counted so far; None: the store knows.

        Raises:
            StoreError: the store does not answer.
        """
        if self._next - EVERY <= now < self._next:
            return
        bucket = int(now) // EVERY
        lines = self._read()
        if lines and lines[-1][0] > bucket + 1:  # more than machines differ: the clock was set back
            lines = [line for line in lines if line[0] < bucket]
        if not lines or lines[-1][0] < bucket:
            lines.append([bucket, *_line(self._store.counters() if counts is None else counts)])
            self._store.set_meta(NAME, json.dumps({"fields": FIELDS, "lines": lines[-KEPT:]}))
        self._next = float((bucket + 1) * EVERY)

    def _read(self) -> list[list[int]]:
        try:
            told: Any = json.loads(self._store.get_meta(NAME) or "{}")
            lines = [[int(n) for n in line] for line in told.get("lines", ())]
        except (ValueError, TypeError, AttributeError):
            return []
        fits = tuple(told.get("fields", ())) == FIELDS and all(len(line) == len(FIELDS) + 1 for line in lines)
        return lines if fits else []

    def points(self, now: float, seconds: int, counts: Mapping[str, int]) -> Sequence[Point]:
        """What happened between the lines of the last while, the newest up to now.

        Args:
            counts: what all workers have counted so far.

        Raises:
            StoreError: the store does not answer.
        """
        lines = [line for line in self._read() if now - seconds - EVERY <= line[0] * EVERY <= now]
        instants = [(line[0] * EVERY, line[1:]) for line in lines]
        instants.append((int(now), _line(counts)))
        return [
            Point(at, max(1, at - before), _growth(was, are))
            for (before, was), (at, are) in pairwise(instants)
        ]


def _line(counts: Mapping[str, int]) -> list[int]:
    told = {**summary(counts), **saved(counts)}
    return [told[name] for name in FIELDS]


def _growth(was: Sequence[int], are: Sequence[int]) -> dict[str, int]:
    """How much was added. Counters that were lost begin again: then it is what they are."""
    lost = any(b < a for a, b in zip(was, are, strict=True))
    grown = are if lost else [b - a for a, b in zip(was, are, strict=True)]
    return dict(zip(FIELDS, grown, strict=True))
