"""How often each decorated function was answered from the cache; shared where the backend is.

Counting is an addition in memory. What was counted since goes to the backend now and then, so that the
workers add up, and whenever somebody asks.
"""

from __future__ import annotations

import threading
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .cache import Cache

_KEY: Final = "_wsgicache_stats_{name}_{what}"
_EVERY: Final = 10.0
"""Seconds between two reports to the backend."""


class Statistics:
    """Hits and misses by function.

    Args:
        cache: whose backend to share them by.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._counts: dict[str, list[int]] = {}
        self._reported: dict[str, list[int]] = {}
        self._next = 0.0

    def row(self, name: str) -> list[int]:
        """The counts of a function, misses and hits, to add to; after a miss call `missed`."""
        return self._counts.setdefault(name, [0, 0])

    def missed(self) -> None:
        """After a miss, which has time for it: report now and then."""
        now = monotonic()
        if now >= self._next:
            first, self._next = self._next == 0.0, now + _EVERY
            if not first:
                self.report()

    def report(self) -> None:
        """Add what was counted since the last report to the backend's counters."""
        link = self._cache.link
        if not link.abilities.shared or not link.config["CACHE_STATISTICS"]:
            return
        with self._lock:
            for name, counts in list(self._counts.items()):
                reported = self._reported.setdefault(name, [0, 0])
                for what in (0, 1):
                    delta = counts[what] - reported[what]
                    if delta and self._add(name, what, delta):
                        reported[what] += delta

    def _add(self, name: str, what: int, delta: int) -> bool:
        return self._cache.inc(_key(name, what), delta, 0) is not None

    def read(self) -> dict[str, dict[str, Any]]:
        """Hits, misses and hit ratio by function; of all workers where the backend is shared."""
        self.report()
        counts = self._shared_counts() or {name: list(counts) for name, counts in self._counts.items()}
        return {name: _row(*counts) for name, counts in sorted(counts.items())}

    def _shared_counts(self) -> dict[str, list[int]]:
        link = self._cache.link
        if not link.abilities.shared or not link.config["CACHE_STATISTICS"] or link.is_down:
            return {}
        names = list(self._counts)
        keys = [_key(name, what) for name in names for what in (0, 1)]
        found = [value or 0 for value in self._cache.get_many(*keys)]
        return {name: found[2 * at : 2 * at + 2] for at, name in enumerate(names)}


def _key(name: str, what: int) -> str:
    return _KEY.format(name=name, what=("misses", "hits")[what])


def _row(misses: int, hits: int) -> dict[str, Any]:
    total = hits + misses
    return {"hits": hits, "misses": misses, "hit_ratio": round(hits / total, 4) if total else None}
