"""Invalidations that could not be written when they were due, because the store was down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from .journal import Kind, Purge

_ALL: Final = Purge(Kind.ALL, "")


class Owed:
    """Invalidations that a store did not take when they were due: it was down. Bounded."""

    def __init__(self, limit: int = 1000) -> None:
        self._limit = limit
        self.purges: dict[Purge, None] = {}
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a forked child: what is owed is the parent's to pay."""
        self._lock = threading.Lock()
        self.purges = {}

    def __bool__(self) -> bool:
        return bool(self.purges)

    def add(self, purges: Iterable[Purge]) -> None:
        """Owe some more; where they are too many, everything is to be purged."""
        with self._lock:
            self.purges.update(dict.fromkeys(purges))
            if len(self.purges) > self._limit or _ALL in self.purges:
                self.purges = {_ALL: None}

    def pay(self, append: Callable[[Sequence[Purge]], None]) -> None:
        """Write what is owed, while others wait: they must not read from the store before.

        Raises:
            StoreError: it still does not take them.
        """
        with self._lock:
            if self.purges:
                append(list(self.purges))
                self.purges = {}
