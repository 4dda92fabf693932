"""Who makes room within one budget: newcomers first, so that what is asked for once costs no popular page.

SIEVE alone is good at that already. But its newcomers get whatever room the popular pages leave, which is
much at first and next to nothing before its hand comes round; who leaves is forgotten; and a page that is
made anew stands where newcomers do. Here newcomers stand in a queue of their own, on probation, and where
that takes more than its share only those who stand in it make room. Who was visited when his turn comes
settles in the main queue, a SIEVE; the others leave, but are remembered for a while, and one who comes back
meanwhile settles at once. Probation and memory are those of S3-FIFO (Yang et al., SOSP 2023).
`benchmarks/eviction.py` compares.

While the settled take no more than the rest of the budget, no number of newcomers pushes out one of them.
"""

from __future__ import annotations

from array import array
from typing import Final

from .sieve import Queue, Sieve, Slot

PROBATION_SHARE: Final = 10
"""What is on probation may take one part in this many of a budget that is full."""

_PATIENCE: Final = 1000
"""How many may settle before one goes all the same: whoever stores waits for that, 0.3 ms."""

MOST: Final = 1 << 60
"""Bytes that no machine has. A larger budget is this one: in the compiled build sizes are numbers of C."""


class Segments:
    """The two queues of one budget. Not thread-safe: the store that owns it locks; only flags are shared.

    Args:
        max_bytes: what both may take.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = min(max_bytes, MOST)
        self.probation: Final = Queue()
        self.main: Final = Sieve()
        self._left: Final = Left()

    @property
    def bytes(self) -> int:
        """What both take."""
        return self.probation.bytes + self.main.bytes

    def add(self, slot: Slot, replaced: Slot | None = None) -> list[Slot]:
        """Enter; returns who had to make room.

        Room is made before the newcomer enters: nobody can have asked for it yet.

        Args:
            replaced: what was stored under the key before, already removed. The page is as popular as it was.
        """
        if replaced is not None:
            slot.visited = replaced.visited
            slot.settled = replaced.settled or replaced.visited
        elif self._left.noted and self._left.recall(slot.key):
            slot.settled = True
        size, settled = slot.weight >> 1, slot.weight & 1  # two calls less for each page that is stored
        gone: list[Slot] = []
        if self.probation.bytes + self.main.bytes + size > self.max_bytes:
            gone = self._make_room(size, 0 if settled else size)
        (self.main if settled else self.probation).add(slot)
        return gone

    def resize(self, max_bytes: int) -> list[Slot]:
        """Take no more than that from now on; returns who had to make room, newcomers first."""
        self.max_bytes = max_bytes
        return self._make_room(0, max_bytes)

    def remove(self, slot: Slot) -> None:
        """Leave, wherever it stands."""
        (self.main if slot.settled else self.probation).remove(slot)

    def _make_room(self, size: int, newcomer: int) -> list[Slot]:
        """Remove slots until `size` more bytes fit, `newcomer` of them on probation."""
        probation, main = self.probation, self.main
        share = self.max_bytes // PROBATION_SHARE
        gone: list[Slot] = []
        patience = _PATIENCE
        while probation.bytes + main.bytes + size > self.max_bytes:
            slot = probation.oldest
            if slot is None or (probation.bytes + newcomer <= share and main.count):
                slot = main.evict()
                if slot is None:
                    break
            else:
                probation.remove(slot)
                if slot.visited and patience:  # it keeps the flag: the hand may be just before it
                    patience -= 1
                    slot.settled = True
                    main.add(slot)
                    continue
                self._left.note(slot.key, probation.count + main.count)
            gone.append(slot)
        return gone

    def clear(self) -> None:
        """Forget everything."""
        self.probation.clear()
        self.main.clear()
        self._left.clear()


class Left:
    """Who left of late, by a number made of the key: 2 to 4 bytes for each entry that there is.

    A place is written over by who comes to the same one, so it forgets in time, and may forget anybody early.
    """

    def __init__(self) -> None:
        self._places = array("I", [0])
        self.noted = False
        """Whether anybody is remembered."""

    def note(self, key: str, entries: int) -> None:
        """Somebody leaves a queue in which so many others stay."""
        if 2 * len(self._places) < entries:
            self._grow(entries)
        self.noted = True
        number = _number(key)
        self._places[number % len(self._places)] = number

    def _grow(self, entries: int) -> None:
        known, self._places = self._places, array("I", [0]) * entries
        for number in filter(None, known):
            self._places[number % entries] = number

    def recall(self, key: str) -> bool:
        """Whether somebody left of late; he is forgotten."""
        number = _number(key)
        place = number % len(self._places)
        if self._places[place] != number:
            return False
        self._places[place] = 0
        return True

    def clear(self) -> None:
        """Forget everybody."""
        self._places = array("I", [0])
        self.noted = False


def _number(key: str) -> int:
    return hash(key) & 0xFFFFFFFF or 1  # it has been made already, to look the key up
