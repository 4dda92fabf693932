"""SIEVE eviction by bytes (Zhang et al., NSDI 2024): a hit only sets a flag, so it takes no lock.

New slots enter at the young end. A hand walks from the old end to the young one; a slot that was visited
since the hand last passed loses its flag and stays where it is, the first one that was not goes. What
nobody asks for twice leaves quickly; what is popular is never moved.
"""

from __future__ import annotations

from ..entry import Stored
from ..ready import COLD, Hot, Ready, ReadyVariants


class Slot:
    """A place in the queue: what is stored, the visited flag, and what the hit path needs.

    `home` is the dictionary that it is found in. `stamp` is the engine's stamp under which `ready` was last
    found valid; the engine sets both. `hot` is what is sent while it is hit more than once a second. `size`,
    in bytes, and `settled`, which says in which of two queues it stands (`wsgicache.stores.segments`), are
    one number: a field more would be paid for by every entry.
    """

    __slots__ = (
        "home",
        "hot",
        "key",
        "newer",
        "older",
        "ready",
        "stamp",
        "stored",
        "token",
        "visited",
        "weight",
    )

    def __init__(self, home: dict[str, Slot], key: str, stored: Stored, size: int, token: int) -> None:
        self.home = home
        self.key = key
        self.stored = stored
        weight = 2 * size
        self.weight = _weights.get(weight) or _noted(weight)
        self.token = token
        self.visited = False
        self.stamp: object = None
        self.ready: Ready | ReadyVariants | None = None
        self.hot: Hot = COLD
        self.newer: Slot | None = None
        self.older: Slot | None = None

    @property
    def size(self) -> int:
        """What it takes, in bytes."""
        return self.weight >> 1

    @property
    def settled(self) -> bool:
        """Whether it is past its probation."""
        return self.weight & 1 == 1

    @settled.setter
    def settled(self, settled: bool) -> None:
        self.weight = self.weight & ~1 | settled


_weights: dict[int, int] = {}


def _noted(weight: int) -> int:
    """The number, to be shared from now on; the table is bounded."""
    if len(_weights) < 4096:
        _weights[weight] = weight
    return weight


class Queue:
    """Slots from old to young. Not thread-safe: the store that owns it locks; only flags are shared."""

    def __init__(self) -> None:
        self.bytes = 0
        self.count = 0
        self.oldest: Slot | None = None
        self._newest: Slot | None = None

    def add(self, slot: Slot) -> None:
        """Enter at the young end."""
        slot.older = self._newest
        slot.newer = None
        if self._newest is not None:
            self._newest.newer = slot
        self._newest = slot
        if self.oldest is None:
            self.oldest = slot
        self.bytes += slot.weight >> 1
        self.count += 1

    def remove(self, slot: Slot) -> None:
        """Leave, wherever it stands."""
        if slot.newer is not None:
            slot.newer.older = slot.older
        else:
            self._newest = slot.older
        if slot.older is not None:
            slot.older.newer = slot.newer
        else:
            self.oldest = slot.newer
        slot.newer = slot.older = None
        self.bytes -= slot.weight >> 1
        self.count -= 1

    def clear(self) -> None:
        """Forget everything."""
        self.bytes = self.count = 0
        self.oldest = self._newest = None


class Sieve(Queue):
    """A queue with a hand that says who leaves."""

    def __init__(self) -> None:
        super().__init__()
        self._hand: Slot | None = None

    def remove(self, slot: Slot) -> None:
        """Leave, wherever it stands; the hand does not stay behind."""
        if self._hand is slot:
            self._hand = slot.newer
        Queue.remove(self, slot)

    def evict(self) -> Slot | None:
        """Remove the first slot from the hand on that was not visited, and say which; None: it is empty."""
        slot = self._hand or self.oldest
        while slot is not None and slot.visited:
            slot.visited = False
            slot = slot.newer or self.oldest
        if slot is not None:
            self._hand = slot
            self.remove(slot)
        return slot

    def clear(self) -> None:
        """Forget everything."""
        super().clear()
        self._hand = None
