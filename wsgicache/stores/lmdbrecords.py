"""What the records of the LMDB store look like: keys, heads, counts. Bytes in, numbers out.

One file holds all namespaces. A name in it is eight bytes for the namespace and sixteen for the key, so that
no text of a client is ever a key. A page is two records: its head, under its name, and its body in pieces
under the number that it was stored with, which also is its place in the queue.
"""

from __future__ import annotations

from hashlib import blake2b
from struct import Struct, error
from typing import Final, NamedTuple
from zlib import crc32

from ..body import FileBody, is_file_name
from ..codec import DecodeError, wire_name
from ..entry import Entry, Stored
from . import StoreError

LAYOUT: Final = 1
"""Version of what this module describes; a file of an older one is made anew."""

SPACE: Final = 8
"""Bytes of a namespace, at the start of names and of everything else that belongs to one."""

NUMBER: Final = Struct(">Q")
QUEUED: Final = Struct(">IQ")
"""When an entry may be forgotten (seconds), and its number: the order of the expiry queue."""

_ENTRY: Final = 1
_NEGATIVE: Final = 2
_IN_FILE: Final = 4


def space_name(namespace: str) -> bytes:
    """What a namespace is called in the file."""
    return blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=SPACE).digest()


def entry_name(space: bytes, key: str) -> bytes:
    """What a key is called in the file."""
    return space + bytes.fromhex(wire_name(key))


def piece_name(number: int, piece: int) -> bytes:
    """What a piece of the body of the entry with this number is called."""
    return NUMBER.pack(number) + piece.to_bytes(4, "big")


class Head(NamedTuple):
    """What the store itself knows of something stored; it stands before the stored form.

    `born` is the number of the mark, `epoch` the epoch that it was stored in, `until` when it may be
    forgotten (wall-clock seconds), `cost` the bytes of the file that it counts for, `size` and `pieces` those
    of its body, `rest` the bytes of the key behind the entry's own (a variant's).
    """

    number: int
    token: int
    born: int
    epoch: bytes
    until: int
    cost: int
    size: int
    pieces: int
    flags: int
    rest: int

    @property
    def negative(self) -> bool:
        """Whether it counts for the budget of negative answers."""
        return bool(self.flags & _NEGATIVE)

    @property
    def in_file(self) -> bool:
        """Whether its body is in a file beside this one."""
        return bool(self.flags & _IN_FILE)

    @property
    def is_entry(self) -> bool:
        """Whether it is an entry, not a record of varying fields."""
        return bool(self.flags & _ENTRY)

    def pack(self, rest: bytes, head: bytes) -> bytes:
        """The whole record: this, what the key has more than the entry's, the head of the stored form."""
        ours = _HEAD.pack(*self)
        return ours + _SUM.pack(crc32(rest, crc32(ours))) + rest + head


_HEAD: Final = Struct(">QQQ16sIQQIBI")
_SUM: Final = Struct(">I")
EPOCH_AT: Final = slice(24, 40)
"""Where the epoch stands in a record."""


def read_head(raw: bytes) -> tuple[Head, bytes, bytes]:
    """A record taken apart: what the store knows, the rest of the key, the head of the stored form.

    Raises:
        DecodeError: it is none.
    """
    try:
        head = Head._make(_HEAD.unpack_from(raw))
        (checksum,) = _SUM.unpack_from(raw, _HEAD.size)
    except error:
        raise DecodeError("too short to be a record") from None
    start = _HEAD.size + _SUM.size
    end = start + head.rest
    rest = raw[start:end]
    if end > len(raw) or crc32(rest, crc32(raw[: _HEAD.size])) != checksum:
        raise DecodeError("damaged: the checksum differs")
    return head, rest, raw[end:]


def flags_of(stored: Stored) -> int:
    """The flags of something to store."""
    if not isinstance(stored, Entry):
        return 0
    in_file = _IN_FILE if isinstance(stored.body, FileBody) else 0
    return _ENTRY | (_NEGATIVE if stored.terms.negative else 0) | in_file


class Filed(NamedTuple):
    """A body in a file: its size, the name of the entry that has it, and the file's."""

    size: int
    entry: bytes
    file: str

    def pack(self) -> bytes:
        """The record; it stands under the number of the entry."""
        return NUMBER.pack(self.size) + self.entry + self.file.encode("ascii")

    @classmethod
    def read(cls, raw: bytes) -> Filed:
        """Read the record.

        Raises:
            DecodeError: it is none.
        """
        try:
            (size,) = NUMBER.unpack_from(raw)
            filed = cls(size, raw[8 : 8 + SPACE + 16], raw[8 + SPACE + 16 :].decode("ascii"))
        except (error, UnicodeDecodeError):
            raise DecodeError("not a file") from None
        if not is_file_name(filed.file):
            raise DecodeError("not the name of a file")
        return filed


FILE_HAND: Final = b"f"
"""The name of the record of the place of the hand of SIEVE that evicts files."""


class Sizes:
    """How bytes fill pages.

    Args:
        page: bytes of a page of the file.
    """

    def __init__(self, page: int) -> None:
        self.page: Final = page
        self.piece: Final = 4 * page - 16
        """Bytes of a piece of a body: few pages in a row, which are found also where free ones lie
        scattered."""
        self._inline = page // 2 - 40

    def pieces(self, body: bytes) -> list[bytes]:
        """A body in pieces."""
        return [body[start : start + self.piece] for start in range(0, len(body), self.piece)]

    def cost(self, record: int, body: int) -> int:
        """What a record and a body of so many bytes take in the file: pages, half-empty ones included."""
        whole, left = divmod(body, self.piece)
        return _ENTRY_COST + self._one(record) + whole * (self.piece + 16) + (self._one(left) if left else 0)

    def _one(self, size: int) -> int:
        if size > self._inline:
            return -(-(size + 16) // self.page) * self.page
        return (size + 40) * 3 // 2


_ENTRY_COST: Final = 160
"""Its places in the two queues."""


class Totals:
    """The counts of the whole file: one record, written with everything that changes them.

    `hands` are the places of the two SIEVE hands (pages, negatives), `used` the bytes of both, `born` the
    monotonic instant at which the file was made, `size` what it may take on the disk: the most that anybody
    has said who opened it.
    """

    __slots__ = ("born", "evicted", "hands", "journal", "last", "size", "tokens", "used")

    def __init__(self, born: float, size: int) -> None:
        self.last = 0
        self.hands = [0, 0]
        self.used = [0, 0]
        self.journal = 0
        self.evicted = 0
        self.tokens = 0
        self.born = born
        self.size = size

    def pack(self) -> bytes:
        """The record."""
        return _TOTALS.pack(
            LAYOUT, self.last, *self.hands, *self.used, self.journal, self.evicted, self.tokens, self.born,
            self.size,
        )  # fmt: skip

    @classmethod
    def read(cls, raw: bytes | None) -> Totals:
        """Read the record.

        Raises:
            DecodeError: it is none, or of an older layout.
            StoreError: it is of a newer layout.
        """
        if raw is None or len(raw) != _TOTALS.size:
            raise DecodeError("no totals")
        layout: int
        layout, last, hand, hand2, used, used2, journal, evicted, tokens, born, size = _TOTALS.unpack(raw)
        if layout > LAYOUT:
            raise StoreError("a newer version of wsgicache has written it; restart this process with that")
        if layout != LAYOUT:
            raise DecodeError("an older layout")
        totals = cls(born, size)
        totals.last, totals.hands, totals.used = last, [hand, hand2], [used, used2]
        totals.journal, totals.evicted, totals.tokens = journal, evicted, tokens
        return totals


_TOTALS: Final = Struct(">HQQQqqqQQdQ")
TOTALS: Final = b"totals"
"""The name of the record of the counts."""


class Space:
    """The counts of one namespace: the journal's floor, its records, the entries."""

    __slots__ = ("entries", "floor", "records")

    def __init__(self, floor: int = 0, records: int = 0, entries: int = 0) -> None:
        self.floor = floor
        self.records = records
        self.entries = entries

    def pack(self) -> bytes:
        """The record."""
        return _SPACE.pack(self.floor, self.records, self.entries)

    @classmethod
    def read(cls, raw: bytes | None) -> Space:
        """Read the record; without one everything is zero.

        Raises:
            DecodeError: it is none.
        """
        if raw is None:
            return cls()
        if len(raw) != _SPACE.size:
            raise DecodeError("no counts")
        return cls(*_SPACE.unpack(raw))


_SPACE: Final = Struct(">Qqq")


class Lease(NamedTuple):
    """Who may ask the app for a page: token 0 says that nobody need wait.

    Instants are of the machine's monotonic clock. The end is kept as a beginning and a duration, so that a
    clock that went back ends a lease instead of making it last.
    """

    token: int
    since: float
    seconds: float

    def holds(self, now: float) -> bool:
        """Whether it has not ended."""
        return 0 <= now - self.since < self.seconds

    def pack(self) -> bytes:
        """The record."""
        return _LEASE.pack(*self)

    @classmethod
    def read(cls, raw: bytes | None) -> Lease | None:
        """Read the record; what is none is no lease."""
        return None if raw is None or len(raw) != _LEASE.size else cls._make(_LEASE.unpack(raw))


_LEASE: Final = Struct(">Qdd")


def room_name(kind: bytes, space: bytes, name: str = "") -> bytes:
    """What something kept beside the entries is called: `kind` is one byte, texts go by their digest."""
    return kind + space + (bytes.fromhex(wire_name(name)) if name else b"")


COUNTS: Final = b"n"
META: Final = b"m"
COUNTER: Final = b"c"
_COUNTER: Final = Struct(">q")


def pack_counter(value: int, name: str) -> bytes:
    """A counter's record."""
    return _COUNTER.pack(value) + name.encode("utf-8", "surrogatepass")


def read_counter(raw: bytes) -> tuple[int, str]:
    """Read a counter.

    Raises:
        DecodeError: it is none.
    """
    try:
        return _COUNTER.unpack_from(raw)[0], raw[_COUNTER.size :].decode("utf-8", "surrogatepass")
    except (error, UnicodeDecodeError):
        raise DecodeError("not a counter") from None
