"""What may be held in all, and at whose cost: negative answers never at that of more than a few pages.

A scan for pages that do not exist brings as many negatives (404 and the like) as somebody cares to ask for.
They get a small part of the room and make room among themselves; what they do not use, pages may.
Bodies in files take no memory: they have room of their own.
"""

from __future__ import annotations

from typing import Final

from ..entry import Entry, Stored
from .segments import MOST, Segments
from .sieve import Slot

NEGATIVE_SHARE: Final = 20
"""Negatives may take one part in this many."""


class Budgets:
    """The room of one store. Not thread-safe: the store that owns it locks; only flags are shared.

    Args:
        max_bytes: what pages and negatives together may take.
        file_bytes: what entries may take whose bodies are in files; None: they count like others.
    """

    def __init__(self, max_bytes: int, file_bytes: int | None = None) -> None:
        max_bytes = min(max_bytes, MOST)
        self.max_bytes: Final = max_bytes
        self.pages: Final = Segments(max_bytes)
        self.negatives: Final = Segments(max_bytes // NEGATIVE_SHARE)
        self.files: Final = None if file_bytes is None else Segments(file_bytes)
        self.evicted = 0

    @property
    def bytes(self) -> int:
        """What is held in memory."""
        return self.pages.bytes + self.negatives.bytes

    @property
    def spooled(self) -> int:
        """What is held in files."""
        return 0 if self.files is None else self.files.bytes

    def largest(self, stored: Stored) -> int:
        """What something of its kind may take at most: half of what there can be for its kind."""
        return (self.max_bytes if (kind := self._of(stored)) is self.pages else kind.max_bytes) // 2

    def add(self, slot: Slot, replaced: Slot | None = None) -> None:
        """Enter. Who has to make room is taken out of his dictionary.

        Args:
            replaced: what was stored under the key before, already removed.
        """
        gone = self._of(slot.stored).add(slot, replaced)
        if self.pages.max_bytes + self.negatives.bytes != self.max_bytes:
            gone += self.pages.resize(self.max_bytes - self.negatives.bytes)
        for one in gone:
            self.evicted += 1
            one.home.pop(one.key, None)

    def remove(self, slot: Slot) -> None:
        """Leave, wherever it stands."""
        self._of(slot.stored).remove(slot)

    def clear(self) -> None:
        """Forget everything."""
        self.pages.clear()
        self.negatives.clear()
        if self.files is not None:
            self.files.clear()

    def _of(self, stored: Stored) -> Segments:
        if isinstance(stored, Entry) and (stored.terms.negative or type(stored.body) is not bytes):
            if self.files is not None and type(stored.body) is not bytes:
                return self.files
            return self.negatives if stored.terms.negative else self.pages
        return self.pages
