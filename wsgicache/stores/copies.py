"""Copies: what a process holds of a store that it shares with others, bounded by bytes.

The hit path reads the dictionary without a lock, as in the memory store. Whoever changes it takes the pool's
lock, and says so in a table of counters: an answer that was under way while its key was written or deleted is
not kept, because nobody can tell which of the two was there first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Final

from ..entry import Stored
from .budgets import Budgets
from .sieve import Slot

_LARGEST: Final = 8
"""What is larger than one part in this many of `max_bytes` is not kept, nor what takes half of its budget."""

_SLOT_BYTES: Final = 380
_KEY_BYTES: Final = 64
_COUNTERS: Final = 256


class NearSlot(Slot):
    """A copy. `until` is the monotonic instant at which it is too old to be used without asking."""

    __slots__ = ("until",)

    def __init__(self, home: dict[str, Slot], key: str, stored: Stored, size: int, until: float) -> None:
        super().__init__(home, key, stored, size, 0)
        self.until: Final = until


class CopyPool:
    """What the namespaces of one near tier share: the lock and the budgets.

    Args:
        max_bytes: what all copies may take.

    Raises:
        ValueError: a size too small to hold anything.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 65536:
            raise ValueError(f"near = {max_bytes} is too small; give at least 65536 (64KiB)")
        self.max_bytes: Final = max_bytes
        self.lock = threading.Lock()
        self.budgets: Final = Budgets(max_bytes)
        self.rooms: Final[weakref.WeakSet[Copies]] = weakref.WeakSet()

    def after_fork(self) -> None:
        """In a forked child: no thread holds the lock any more; what it was changing cannot be trusted."""
        held = self.lock.locked()
        self.lock = threading.Lock()
        if held:
            for room in list(self.rooms):
                room.slots.clear()
            self.budgets.clear()


class Copies:
    """The copies of one namespace.

    Attributes:
        peek: what is held of a key: no lock, no call into Python.
    """

    def __init__(self, pool: CopyPool) -> None:
        self._pool: Final = pool
        self.slots: Final[dict[str, Slot]] = {}
        self._written = [0] * _COUNTERS
        self.peek: Final[Callable[[str], Slot | None]] = self.slots.get
        pool.rooms.add(self)

    def written(self, key: str) -> int:
        """How often a key, or one that shares its counter, was written or deleted in this process."""
        return self._written[hash(key) % _COUNTERS]

    def keep(self, key: str, stored: Stored | None, until: float, written: int) -> None:
        """Hold what the store answered, in place of what was held; None: there is nothing.

        Args:
            until: monotonic instant at which it is too old.
            written: what `written` said before the store was asked.
        """
        with self._pool.lock:
            if self.written(key) == written:
                self._replace(key, stored, until)

    def wrote(self, key: str, stored: Stored | None, until: float, written: int) -> None:
        """Hold what was stored; None: what is there now is not known, or nothing.

        Args:
            written: what `written` said before it was sent to the store. If it says something else now, two
                writers crossed, and which of them the store took last is not known.
        """
        with self._pool.lock:
            self._replace(key, stored if self.written(key) == written else None, until)
            self._written[hash(key) % _COUNTERS] += 1

    def _replace(self, key: str, stored: Stored | None, until: float) -> None:
        old = self.slots.pop(key, None)
        if old is not None:
            self._pool.budgets.remove(old)
        if stored is None:
            return
        size = stored.size() + _SLOT_BYTES
        if len(key) != len(stored.key):
            size += _KEY_BYTES + len(key)
        budgets = self._pool.budgets
        if size > min(budgets.max_bytes // _LARGEST, budgets.largest(stored)):
            return
        slot = NearSlot(self.slots, key, stored, size, until)
        self.slots[key] = slot
        budgets.add(slot, old)

    def flush(self) -> None:
        """Forget everything, also what is under way."""
        with self._pool.lock:
            for slot in list(self.slots.values()):
                self._pool.budgets.remove(slot)
            self.slots.clear()
            self._written = [count + 1 for count in self._written]

    def __len__(self) -> int:
        return len(self.slots)

    @property
    def bytes(self) -> int:
        """What all copies of the pool take."""
        return self._pool.budgets.bytes

    @property
    def evicted(self) -> int:
        """How many copies of the pool had to make room for others."""
        return self._pool.budgets.evicted
