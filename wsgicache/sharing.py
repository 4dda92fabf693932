"""What the processes of a site tell each other through the store that they share, beside entries and purges.

Counters, and what hits saved, are added to the shared ones now and then, never on the hit path: at the first
request past it after `EVERY` seconds, and when the process ends. What a client outside the site must know
(how queries are keyed, which rules there are) is kept beside the journal.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import Any, Final

from .history import History
from .observe import Observer
from .plan import Plan
from .rules import RuleSet
from .savings import savings
from .stores import Store

EVERY: Final = 10.0
"""Seconds between two additions to the shared counters."""

SITE: Final = "site"
"""The name under which a description of the site is kept."""


class SharedCounts:
    """Adds what one process has counted to what all have.

    Args:
        observer: whose counters.
        store: where the shared ones are.
        failed: told of a store that does not answer; nothing is lost, it is added the next time.
    """

    def __init__(self, observer: Observer, store: Store, failed: Callable[[Exception], None]) -> None:
        self._observer = observer
        self._store = store
        self.history: Final = History(store)
        """How they grew."""
        self._failed = failed
        self._added: Mapping[str, int] = {}
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self.due = 0.0
        """Instant after which the next addition is due."""
        _living.add(self)

    def after_fork(self) -> None:
        """In a forked child: what was counted so far is the parent's to add."""
        self._lock = threading.Lock()
        self._added = self.own()
        self._pid = os.getpid()

    def add(self, now: float) -> None:
        """Add what is new since the last time, unless somebody else is doing it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            self.due = now + EVERY
            self._add()
            self.history.note(now)
        except Exception as error:
            self._failed(error)
        finally:
            self._lock.release()

    def _add(self) -> None:
        counts = self.own()
        new = {name: n - self._added.get(name, 0) for name, n in counts.items()}
        new = {name: n for name, n in new.items() if n}
        if new:
            self._store.incr_many({**new, **savings(new, counts, self._store.counters)})
        self._added = counts

    def own(self) -> dict[str, int]:
        """What this process has counted."""
        by_name = self._observer.by_name
        return {**self._observer.counts(), **({} if by_name is None else by_name.counts())}

    def close(self) -> None:
        """Add what is left, and nothing more at the end of the process: the server may be gone by then."""
        self.add(self.due)
        _living.discard(self)

    def at_exit(self) -> None:
        """The process ends: add what is left."""
        if self._pid == os.getpid():
            self.add(self.due)


_living: Final[weakref.WeakSet[SharedCounts]] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for counts in list(_living):
        counts.at_exit()


def describe(plans: tuple[Plan, ...], rules: RuleSet, *, no_vary_search: bool) -> str:
    """A site as a client outside it must know it: how queries are keyed, and its rules."""
    forms = sorted({(plan.ignore_query, plan.query == "sort") for plan in plans})
    told: dict[str, Any] = {
        "forms": [[list(ignored), in_order] for ignored, in_order in forms],
        "certain": not no_vary_search,
        "rules": [{"name": rule.name, "pattern": rule.pattern, "enabled": rule.enabled} for rule in rules],
    }
    return json.dumps(told)


def read_description(text: str | None) -> dict[str, Any]:
    """What `describe` wrote; empty where there is none or it is of another version."""
    try:
        told = json.loads(text or "{}")
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
