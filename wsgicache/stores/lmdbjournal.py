"""The purge journal in the file of the LMDB store: what `wsgicache.journal.Journal` keeps in memory.

A namespace's mark stands beside its entries, under the name of the namespace alone, so that one transaction
on one database reads both. All else stands under namespace and epoch: a new epoch begins with one record,
and what is left of the old one is cleared away in small steps.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct
from typing import Any, Final, NamedTuple

from ..codec import DecodeError, decode_mark, decode_purge, encode_mark, encode_purge
from ..journal import Mark, Purge, Record, Snapshot, bounded, new_id
from .lmdbdropped import PIECE, PIECE_COST, Facts, Table, drop, read_table, to_table
from .lmdbentries import Work
from .lmdbhandle import Handle
from .lmdbrecords import COUNTS, EPOCH_AT, NUMBER, Space, room_name

NONCES: Final = 4096
"""Marks that a journal can still tell from those of another history."""

_RECORD: Final = b"r"
_TARGET: Final = b"t"
_NONCE: Final = b"x"
_STAMP: Final = Struct(">d16s")
_LARGEST_SHARE: Final = 4
"""The journal gets one part in this many of the file at most."""


def epoch_of(raw: bytes) -> bytes:
    """The epoch of a mark as it is stored."""
    return raw[: EPOCH_AT.stop - EPOCH_AT.start]


def begin_epoch(work: Work, space: bytes) -> Mark:
    """Make everything born before a miss."""
    mark = Mark(new_id(), 0, new_id())
    work.transaction.put(space, encode_mark(mark), db=work.handle.heads)
    counts = work.space(space)
    counts.floor = counts.records = 0
    return mark


def current_mark(work: Work, space: bytes) -> Mark:
    """The mark; a damaged or missing one is a new epoch."""
    raw = work.transaction.get(space, db=work.handle.heads)
    if raw is not None:
        try:
            return decode_mark(raw)
        except DecodeError:
            pass
    return begin_epoch(work, space)


class Books:
    """The journal of one epoch, in a write transaction."""

    def __init__(self, work: Work, space: bytes, epoch: str) -> None:
        self._work = work
        self._space = space
        self._prefix = space + epoch.encode("ascii")

    def append(self, mark: Mark, purges: list[Purge], at: float, limit: int) -> Mark:
        """Number the purges and add them; drop what was purged longest ago where there are too many."""
        epoch, seq, nonce = mark
        for purge in bounded(purges):
            self._remember_nonce(seq, nonce)
            seq, nonce = seq + 1, new_id()
            self._add(purge, seq, nonce, at)
        counts = self._work.space(self._space)
        most = self._work.handle.map_size // _LARGEST_SHARE
        while counts.records and (counts.records > limit or self._work.totals.journal > most):
            self._drop_oldest(counts, limit)
        moved = Mark(epoch, seq, nonce)
        self._work.transaction.put(self._space, encode_mark(moved), db=self._work.handle.heads)
        return moved

    def _remember_nonce(self, seq: int, nonce: str) -> None:
        put, delete, db = self._work.transaction.put, self._work.transaction.delete, self._work.handle.journal
        put(self._prefix + _NONCE + NUMBER.pack(seq), nonce.encode("ascii"), db=db)
        if seq >= NONCES:
            delete(self._prefix + _NONCE + NUMBER.pack(seq - NONCES), db=db)

    def _add(self, purge: Purge, seq: int, nonce: str, at: float) -> None:
        transaction, db = self._work.transaction, self._work.handle.journal
        text = encode_purge(purge)
        target = self._prefix + _TARGET + _digest(text)
        earlier = transaction.get(target, db=db)
        if earlier is None:
            self._work.space(self._space).records += 1
            self._work.totals.journal += _cost(text)
        else:
            transaction.delete(self._prefix + _RECORD + earlier, db=db)
        number = NUMBER.pack(seq)
        transaction.put(target, number, db=db)
        stamp = _STAMP.pack(at, nonce.encode("ascii"))
        transaction.put(self._prefix + _RECORD + number, stamp + text, db=db)

    def _drop_oldest(self, counts: Space, limit: int) -> None:
        cursor = self._work.transaction.cursor(self._work.handle.journal)
        prefix = self._prefix + _RECORD
        if not cursor.set_range(prefix) or not cursor.key().startswith(prefix):
            counts.records = 0
            return
        key, value = cursor.item()
        text = value[_STAMP.size :]
        self._work.transaction.delete(self._prefix + _TARGET + _digest(text), db=self._work.handle.journal)
        self._work.transaction.delete(key, db=self._work.handle.journal)
        counts.records -= 1
        self._work.totals.journal -= _cost(text)
        (seq,) = NUMBER.unpack(key[len(prefix) :])
        try:
            told = drop(self._work, self._prefix, limit, decode_purge(text), seq)
        except DecodeError:
            told = False
        if not told:
            counts.floor = seq


def clear_other_epochs(work: Work, space: bytes, epoch: str, limit: int) -> bool:
    """Remove what is left of other epochs of a namespace, so many records at most; True: there is more."""
    cursor = work.transaction.cursor(work.handle.journal)
    current = space + epoch.encode("ascii")
    found = cursor.set_range(space)
    while found and cursor.key().startswith(space):
        if cursor.key().startswith(current):  # step over it
            found = cursor.set_range(current + b"\xff")
            continue
        if limit == 0:
            return True
        limit -= 1
        sort = cursor.key()[len(current) : len(current) + 1]
        if sort == _RECORD:
            work.totals.journal -= _cost(cursor.value()[_STAMP.size :])
        elif sort == PIECE:
            work.totals.journal -= PIECE_COST
        found = cursor.delete() and bool(cursor.key())
    return False


class Raw(NamedTuple):
    """A mark, the counts, records (number and value), whether they are all that there are; what was dropped,
    if anything was, the table with all records only."""

    mark: bytes
    counts: Space
    records: list[tuple[bytes, bytes]]
    whole: bool
    table: Table | None


def read_since(handle: Handle, transaction: Any, space: bytes, mark: Mark | None) -> Raw | None:
    """What a follower at `mark` is missing, as it is stored; None where there is no journal yet.

    Raises:
        DecodeError: the journal is damaged.
    """
    raw = transaction.get(space, db=handle.heads)
    if raw is None:
        return None
    counts = Space.read(transaction.get(room_name(COUNTS, space), db=handle.room))
    prefix = space + epoch_of(raw)
    facts = Facts.read(handle, transaction, prefix)
    dropped = counts.floor if facts is None else facts.dropped
    known = mark is not None and _knows(handle, transaction, prefix, decode_mark(raw), dropped, mark)
    start = mark.seq + 1 if known and mark is not None else 0
    records: list[tuple[bytes, bytes]] = []
    cursor = transaction.cursor(handle.journal)
    wanted = prefix + _RECORD
    if cursor.set_range(wanted + NUMBER.pack(start)):
        for key, value in cursor.iternext():
            if not key.startswith(wanted):
                break
            records.append((key[len(wanted) :], value))
    table: Table | None = None
    if facts is not None:
        table = (facts, []) if known else read_table(handle, transaction, prefix, facts)
    return Raw(raw, counts, records, not known, table)


def _knows(handle: Handle, transaction: Any, prefix: bytes, now: Mark, dropped: int, mark: Mark) -> bool:
    """Whether a mark is part of this history, and recent enough to be sure of it."""
    behind = now.seq - mark.seq
    if mark.epoch != now.epoch or mark.seq < dropped or not 0 <= behind <= NONCES:
        return False
    if behind == 0:
        return mark.nonce == now.nonce
    nonce = transaction.get(prefix + _NONCE + NUMBER.pack(mark.seq), db=handle.journal)
    return bool(nonce == mark.nonce.encode("utf-8", "surrogatepass"))


def to_snapshot(found: Raw) -> Snapshot:
    """What `read_since` found, read outside of the transaction.

    Raises:
        DecodeError: the journal is damaged.
    """
    mark, records = decode_mark(found.mark), [_record(*record) for record in found.records]
    if found.table is None:
        return Snapshot(mark, found.counts.floor, records, found.whole)
    facts, table = found.table[0], to_table(found.table) if found.whole else None
    return Snapshot(mark, found.counts.floor, records, found.whole, facts.dropped, facts.slots, table)


def _record(number: bytes, value: bytes) -> Record:
    if len(number) != NUMBER.size or len(value) < _STAMP.size:
        raise DecodeError("not a purge")
    at, nonce = _STAMP.unpack_from(value)
    (seq,) = NUMBER.unpack(number)
    try:
        return Record(seq, *decode_purge(value[_STAMP.size :]), at, nonce.decode("ascii"))
    except UnicodeDecodeError:
        raise DecodeError("not a purge") from None


def _digest(text: bytes) -> bytes:
    return blake2b(text, digest_size=16).digest()


def _cost(text: bytes) -> int:
    """Bytes of the file that a purge counts for: its record, its target, a nonce."""
    return 220 + len(text) * 3 // 2
