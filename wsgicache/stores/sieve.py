"""SIEVE eviction by bytes (Zhang et al., NSDI 2024): a hit only sets a flag, so it takes no lock.

New slots enter at the young end. A hand walks from the old end to the young one; a slot that was visited
since the hand last passed loses its flag and stays where it is, the first one that was not goes. What
nobody asks for twice leaves quickly; what is popular is never moved.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..entry import Stored
from ..ready import Ready, ReadyVariants


class Slot:
    """A place in the queue: what is stored, the visited flag, and what the hit path needs.

    `home` is the dictionary that it is found in. `stamp` is the engine's stamp under which `ready` was last
    found valid; the engine sets both.
    """

    __slots__ = ("home", "key", "newer", "older", "ready", "size", "stamp", "stored", "token", "visited")

    def __init__(self, home: dict[str, Slot], key: str, stored: Stored, size: int, token: int) -> None:
        self.home = home
        self.key = key
        self.stored = stored
        self.size = size
        self.token = token
        self.visited = False
        self.stamp: object = None
        self.ready: Ready | ReadyVariants | None = None
        self.newer: Slot | None = None
        self.older: Slot | None = None


class Sieve:
    """The queue of one budget. Not thread-safe: the store that owns it locks; only flags are shared."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._newest: Slot | None = None
        self._oldest: Slot | None = None
        self._hand: Slot | None = None

    def add(self, slot: Slot) -> None:
        """Enter at the young end."""
        slot.older = self._newest
        slot.newer = None
        if self._newest is not None:
            self._newest.newer = slot
        self._newest = slot
        if self._oldest is None:
            self._oldest = slot
        self.bytes += slot.size

    def remove(self, slot: Slot) -> None:
        """Leave, wherever it stands."""
        if self._hand is slot:
            self._hand = slot.newer
        if slot.newer is not None:
            slot.newer.older = slot.older
        else:
            self._newest = slot.older
        if slot.older is not None:
            slot.older.newer = slot.newer
        else:
            self._oldest = slot.newer
        slot.newer = slot.older = None
        self.bytes -= slot.size

    def make_room(self, size: int) -> Iterator[Slot]:
        """Remove slots until `size` more bytes fit, and say which.

        Called before the newcomer enters: nobody can have asked for it yet, so the hand would take it
        whenever all others are popular, and no new page could ever get in.
        """
        while self.bytes + size > self.max_bytes:
            slot = self._hand or self._oldest
            while slot is not None and slot.visited:
                slot.visited = False
                slot = slot.newer or self._oldest
            if slot is None:
                return
            self._hand = slot
            self.remove(slot)
            yield slot

    def clear(self) -> None:
        """Forget everything."""
        self.bytes = 0
        self._newest = self._oldest = self._hand = None
