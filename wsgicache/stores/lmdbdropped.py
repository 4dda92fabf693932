"""What was dropped from the purge journal of the LMDB store: `wsgicache.dropped`'s table in small pieces.

A piece is a record of its own, so that a purge that is dropped rewrites a kilobyte and not all of the table.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, Final

from ..dropped import KINDS, SLOTS, Dropped, hash_of
from ..journal import Kind, Purge
from .lmdbentries import Work
from .lmdbhandle import Handle
from .lmdbrecords import NUMBER

PIECE: Final = b"s"
_FACTS: Final = b"d"
_NUMBERS: Final = Struct(f">{2 + len(KINDS)}Q")
"""How many slots, the number up to which records were dropped, and the last of each kind."""

_PER_PIECE: Final = 128
_SLOT: Final = Struct("<Q")
PIECE_COST: Final = 1100
"""Bytes of the file that a piece counts for."""

_SHARE: Final = 16
"""The table gets one part in this many of the file at most; in a smaller one the floor rises instead."""


class Facts:
    """What is known of the table of one epoch.

    Attributes:
        slots: how many; 0: there is no table.
        dropped: the number up to which records were dropped.
        last: the number of the last one of each kind.
    """

    def __init__(self, slots: int, dropped: int = 0, *last: int) -> None:
        self.slots = slots
        self.dropped = dropped
        self.last = dict(zip(KINDS, last or (0,) * len(KINDS), strict=True))

    @classmethod
    def read(cls, handle: Handle, transaction: Any, prefix: bytes) -> Facts | None:
        """As they are stored; None where nothing was dropped yet."""
        raw = transaction.get(prefix + _FACTS, db=handle.journal)
        return None if raw is None or len(raw) != _NUMBERS.size else cls(*_NUMBERS.unpack(raw))

    @classmethod
    def new(cls, limit: int, map_size: int) -> Facts:
        """For a journal that remembers so many targets, in a file of this size."""
        slots = SLOTS * limit
        return cls(slots if 8 * slots <= map_size // _SHARE else 0)

    def write(self, work: Work, prefix: bytes) -> None:
        """Keep them."""
        raw = _NUMBERS.pack(self.slots, self.dropped, *self.last.values())
        work.transaction.put(prefix + _FACTS, raw, db=work.handle.journal)


def drop(work: Work, prefix: bytes, limit: int, purge: Purge, seq: int) -> bool:
    """Put a purge into the table. False: there is none, or this one has no place in it."""
    facts = Facts.read(work.handle, work.transaction, prefix) or Facts.new(limit, work.handle.map_size)
    facts.dropped = seq
    kept = bool(facts.slots) and purge.kind is not Kind.ALL
    if kept and purge.kind is not Kind.META:
        kind = purge.kind.value
        facts.last[kind] = seq
        _put(work, prefix, hash_of(kind, purge.target) % facts.slots, seq)
    facts.write(work, prefix)
    return kept


def _put(work: Work, prefix: bytes, slot: int, seq: int) -> None:
    number, place = divmod(slot, _PER_PIECE)
    key, db = prefix + PIECE + NUMBER.pack(number), work.handle.journal
    piece = work.transaction.get(key, db=db)
    if piece is None:
        work.totals.journal += PIECE_COST
        piece = bytes(_SLOT.size * _PER_PIECE)
    changed = bytearray(piece)
    _SLOT.pack_into(changed, _SLOT.size * place, seq)
    work.transaction.put(key, bytes(changed), db=db)


Table = tuple[Facts, list[tuple[bytes, bytes]]]
"""What is known of a table, and its pieces: number and content."""


def read_table(handle: Handle, transaction: Any, prefix: bytes, facts: Facts) -> Table:
    """All of a table, as it is stored."""
    pieces: list[tuple[bytes, bytes]] = []
    cursor, wanted = transaction.cursor(handle.journal), prefix + PIECE
    if facts.slots and cursor.set_range(wanted):
        for key, value in cursor.iternext():
            if not key.startswith(wanted):
                break
            pieces.append((key[len(wanted) :], value))
    return facts, pieces


def to_table(found: Table) -> Dropped | None:
    """What `read_table` found, read outside of the transaction; None where it is not as it should be."""
    facts, pieces = found
    if not facts.slots:
        return None
    table = Dropped(facts.slots)
    raw = bytearray(8 * -(-facts.slots // _PER_PIECE) * _PER_PIECE)
    for number, piece in pieces:
        if len(number) != NUMBER.size or len(piece) != _SLOT.size * _PER_PIECE:
            return None
        start = NUMBER.unpack(number)[0] * len(piece)
        if start + len(piece) > len(raw):
            return None
        raw[start : start + len(piece)] = piece
    table.load(bytes(raw[: 8 * facts.slots]))
    table.last = facts.last
    return table
