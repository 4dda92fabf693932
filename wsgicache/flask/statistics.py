"""How often each decorated function was answered from the cache; shared where the backend is.

Counting is one call into C. What was counted since goes to the backend now and then, so that the workers add
up, and whenever somebody asks.
"""

from __future__ import annotations

import logging
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ..forks import in_child
from ..observe import Tally

if TYPE_CHECKING:
    from .cache import Cache

_KEY: Final = "_wsgicache_stats_{name}_{what}"
_EVERY: Final = 10.0
"""Seconds between two reports to the backend."""

REPORTING_MASK: Final = 1023
"""A hit whose number has none of these bits asks whether it is time to report."""

log = logging.getLogger("wsgicache.flask")


class Row(NamedTuple):
    """What was counted of one function."""

    misses: Tally
    hits: Tally

    def read(self) -> tuple[int, int]:
        """Misses and hits."""
        return self.misses.value, self.hits.value


class Statistics:
    """Hits and misses by function.

    Args:
        cache: whose backend to share them by.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._rows: dict[str, Row] = {}
        self._base: dict[str, tuple[int, int]] = {}
        self._reported: dict[str, tuple[int, int]] = {}
        self._next = monotonic() + _EVERY
        _all.add(self)

    def after_fork(self) -> None:
        """In a forked child: what the parent counted is the parent's to report."""
        self._lock = threading.Lock()
        self._base = {name: row.read() for name, row in list(self._rows.items())}
        self._reported = dict(self._base)

    def row(self, name: str) -> Row:
        """The counts of a function, to add to; `report_now_and_then` shares them."""
        return self._rows.setdefault(name, Row(Tally(), Tally()))

    def report_now_and_then(self) -> None:
        """Report if the last time is a while ago. Nothing that fails here reaches the caller."""
        now = monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY
        try:
            self.report()
        except Exception as error:
            log.warning("the counts could not be shared (%s: %s)", type(error).__name__, error)

    def report(self) -> None:
        """Add what was counted since the last report to the backend's counters."""
        if not self.is_shared:
            return
        with self._lock:
            for name, row in list(self._rows.items()):
                counted = row.read()
                known = list(self._reported.get(name, (0, 0)))
                for what in (0, 1):
                    delta = counted[what] - known[what]
                    if delta and self._cache.inc(_key(name, what), delta, 0) is not None:
                        known[what] += delta
                self._reported[name] = (known[0], known[1])

    @property
    def is_shared(self) -> bool:
        """Whether the workers' counts are added up in the backend."""
        link = self._cache.link
        return link.abilities.shared and bool(link.config["CACHE_STATISTICS"])

    def read(self) -> dict[str, dict[str, Any]]:
        """Hits, misses and hit ratio by function; of all workers where the backend is shared."""
        self.report()
        counts = self._shared_counts() or {name: self._own(name) for name in list(self._rows)}
        return {name: _row(*counts[name]) for name in sorted(counts)}

    def _own(self, name: str) -> tuple[int, int]:
        counted, base = self._rows[name].read(), self._base.get(name, (0, 0))
        return counted[0] - base[0], counted[1] - base[1]

    def _shared_counts(self) -> dict[str, tuple[int, int]]:
        if not self.is_shared or self._cache.link.is_down:
            return {}
        names = list(self._rows)
        keys = [_key(name, what) for name in names for what in (0, 1)]
        found = self._cache.get_many(*keys)
        if all(value is None for value in found):  # nothing yet, or the backend does not tell
            return {}
        return {name: (found[2 * at] or 0, found[2 * at + 1] or 0) for at, name in enumerate(names)}


def _key(name: str, what: int) -> str:
    return _KEY.format(name=name, what=("misses", "hits")[what])


def _row(misses: int, hits: int) -> dict[str, Any]:
    total = hits + misses
    return {"hits": hits, "misses": misses, "hit_ratio": round(hits / total, 4) if total else None}


_all: weakref.WeakSet[Statistics] = weakref.WeakSet()


def _after_fork() -> None:
    for statistics in list(_all):
        statistics.after_fork()


in_child(_after_fork)
