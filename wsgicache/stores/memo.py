"""What a process keeps decoded of a store that it shares with others.

A memo saves the work of decoding, never the asking: each use is confirmed against the store, by the bytes
that it was decoded from. So it may forget anything at any time, and what is in it cannot be out of date.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from ..entry import Stored
from ..forks import in_child
from .segments import Segments
from .sieve import Slot

_SLOT_BYTES: Final = 500
_LARGEST: Final = 8
"""What is larger than one part in this many of the memo is not kept."""


class MemoSlot(Slot):
    """A slot of a memo.

    `name` is what the key is called in the store, `raw` the bytes that `stored` was decoded from (all, or as
    many as tell it from every other), `mark` the journal's mark, as it is stored, at which it was last found
    valid. `seen` is the store's own: what it was confirmed by the last time.
    """

    __slots__ = ("mark", "name", "raw", "seen")

    def __init__(
        self, home: dict[str, Slot], key: str, stored: Stored, size: int, name: bytes | str, raw: bytes
    ) -> None:
        super().__init__(home, key, stored, size, 0)
        self.name: Final = name
        self.raw: Final = raw
        self.mark: bytes | None = None
        self.seen: Any = None


class Memo:
    """Decoded entries, bounded by bytes.

    Args:
        max_bytes: what all of them may take, bytes and decoded form together; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reset()
        _memos.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._slots: dict[str, Slot] = {}
        self._budget = Segments(self._max_bytes)
        self.peek: Callable[[str], Slot | None] = self._slots.get
        """What this process has decoded of a key: no lock, no call into Python."""

    def recall(self, key: str, raw: bytes) -> Stored | None:
        """What was decoded from these very bytes, if it is still known."""
        slot = self._slots.get(key)
        if slot is None or not isinstance(slot, MemoSlot) or slot.raw != raw:
            return None
        slot.visited = True
        return slot.stored

    def keep(self, key: str, name: bytes | str, raw: bytes, stored: Stored) -> None:
        """Remember what these bytes were decoded to, in place of what was known of the key."""
        size = stored.size() + len(raw) + _SLOT_BYTES
        with self._lock:
            old = self._drop(key)
            if size > self._max_bytes // _LARGEST:
                return
            slot = MemoSlot(self._slots, key, stored, size, name, raw)
            self._slots[key] = slot
            for gone in self._budget.add(slot, old):
                self._slots.pop(gone.key, None)

    def forget(self, key: str) -> None:
        """A key holds something else now, or nothing."""
        if key in self._slots:
            with self._lock:
                self._drop(key)

    def _drop(self, key: str) -> Slot | None:
        slot = self._slots.pop(key, None)
        if slot is not None:
            self._budget.remove(slot)
        return slot

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._slots.clear()
            self._budget.clear()

    @property
    def bytes(self) -> int:
        """What is kept, in bytes."""
        return self._budget.bytes

    def __len__(self) -> int:
        return len(self._slots)

    def _after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        held = self._lock.locked()
        self._lock = threading.Lock()
        if held:  # what was being changed cannot be trusted
            self._slots.clear()
            self._budget.clear()


_memos: Final[weakref.WeakSet[Memo]] = weakref.WeakSet()


def _after_fork() -> None:
    for memo in list(_memos):
        memo._after_fork()


in_child(_after_fork)
