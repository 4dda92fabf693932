"""What was dropped from a purge journal, in a table of fixed size: a number for each of many slots. Pure.

A purge that is dropped goes into one slot, by a hash of what it names; a slot holds the number of the last
one. What was born before that number, and falls into that slot, may be what was purged: it is a miss.
Everything else goes on. So nothing that was purged is ever valid, and of what was not purged only so much
is lost as shares a slot with something that was.

A page has one slot for its path, whatever its query, origin and variant, since that is in every target of a
URL; and one for each prefix and group that covers it, which count only if such a purge was ever dropped.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final
from zlib import crc32

from .key import Parts, group_targets, prefix_targets, target_path, url_targets

SLOTS: Final = 4
"""Slots for each target that a journal remembers: 32 bytes."""

URL, PREFIX, GROUP = KINDS = ("url", "prefix", "group")

LONGEST: Final = 256
"""Characters of a target that is kept as it is."""


def short(target: str) -> str:
    """A target that takes bounded room in a journal: a long one by its digest."""
    if len(target) <= LONGEST:
        return target
    return "#" + blake2b(target.encode("utf-8", "surrogatepass"), digest_size=20).hexdigest()


def hash_of(kind: str, target: str) -> int:
    """The number that decides on the slot of a purge: of a URL by its path alone, where that is known.

    Args:
        kind: one of `KINDS`.
        target: as it is in the journal.
    """
    path = target_path(target) if kind == URL else None
    return _hash(kind, target if path is None else path)


def _hash(kind: str, text: str) -> int:
    return crc32(f"{kind} {text}".encode("utf-8", "surrogatepass"))


class Dropped:
    """The table. One thread writes; any thread reads.

    Args:
        size: slots.

    Attributes:
        table: the number of the last purge that was dropped into each slot.
        last: the number of the last one of each kind. What was born later need not look at the table.
    """

    __slots__ = ("last", "size", "table")

    def __init__(self, size: int) -> None:
        self.size: Final = size
        self.table = array("Q", bytes(8 * size))
        self.last = dict.fromkeys(KINDS, 0)

    def add(self, kind: str, target: str, seq: int) -> None:
        """A purge is dropped from the journal, or about to be: who looks there first must find it here."""
        slot = hash_of(kind, target) % self.size
        if self.table[slot] < seq:
            self.table[slot] = seq
        if self.last[kind] < seq:
            self.last[kind] = seq

    def covers(self, born: int, parts: Parts, groups: Sequence[str]) -> bool:
        """Whether what was dropped later than `born` may cover a key with these groups."""
        last = self.last
        return (
            (last[URL] > born and self._any(born, URL, _of_url(parts)))
            or (last[PREFIX] > born and self._any(born, PREFIX, map(short, prefix_targets(parts))))
            or (last[GROUP] > born and self._any(born, GROUP, map(short, group_targets(parts, groups))))
        )

    def _any(self, born: int, kind: str, targets: Iterable[str]) -> bool:
        table, size = self.table, self.size
        return any(table[_hash(kind, target) % size] > born for target in targets)

    def load(self, raw: bytes) -> None:
        """Take over a table as stores keep it: numbers of eight bytes, the last byte first."""
        self.table = array("Q", raw)
        if sys.byteorder == "big":
            self.table.byteswap()

    def copy(self) -> Dropped:
        """Another that goes on by itself."""
        copy = Dropped(self.size)
        copy.table = self.table[:]
        copy.last = dict(self.last)
        return copy


def _of_url(parts: Parts) -> list[str]:
    """What purges of URLs that cover a key are dropped as: its path, or a digest."""
    return [parts.path, *[short(target) for target in url_targets(parts) if len(target) > LONGEST]]
