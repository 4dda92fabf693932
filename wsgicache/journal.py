"""The purge journal: one idea behind every purge. Pure; the store keeps the list, workers keep indexes.

The rules this file obeys:

- A purge is a record `(seq, kind, target, soft, at, nonce)`; `seq` grows by one with each record.
- A mark is `(epoch, seq, nonce of the last record)`, and marks are compared whole: the same number
  with another nonce is another history.
- An entry is born at the mark that its request read *before* the app was called. It is valid while no
  later hard purge covers it; a later soft purge makes it stale.
- What was dropped from the journal must not be forgotten. Up to `dropped` nothing is in the list any more:
  it is in a table (`wsgicache.dropped`), and what that may cover is a miss. Where it is not, because a store
  keeps no table, or the purge of everything was dropped, everything born below `floor` is a miss.

A check costs a few dictionary look-ups, however many purges there were.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from itertools import takewhile
from typing import Final, NamedTuple

from .dropped import LONGEST, SLOTS, Dropped
from .dropped import short as short
from .key import Parts, group_targets, prefix_targets, split_key, target_path, url_targets

_FORGET_EVERY: Final = 4096
"""How far the floor rises before an index drops what lies below it: rarely enough to cost nothing."""

_OF_THE_SLOTS: Final = 64
"""Where a store has a table, the index follows whenever as much was dropped as this part of its slots."""


class Kind(Enum):
    """What a purge covers."""

    URL = "url"
    PREFIX = "prefix"
    GROUP = "group"
    ALL = "all"
    META = "meta"
    """Covers nothing: something kept beside the entries changed, such as the switch of a rule."""

    __hash__ = object.__hash__  # by identity, as they are compared: a purge is a key of the journal


class Mark(NamedTuple):
    """A point in the history of one journal."""

    epoch: str
    seq: int
    nonce: str


class Purge(NamedTuple):
    """What somebody asked to purge, before the journal has numbered it."""

    kind: Kind
    target: str
    soft: bool = False


class Record(NamedTuple):
    """One line of the journal. `at` is wall-clock seconds."""

    seq: int
    kind: Kind
    target: str
    soft: bool
    at: float
    nonce: str


class Snapshot(NamedTuple):
    """What a worker fetches to follow the journal: either the records after its own mark, or
    (`whole`) everything that is left, because its mark is not part of this history any more.

    Attributes:
        floor: everything born below is a miss.
        dropped: the records up to this number are not in the list any more.
        slots: how many the store's table has; 0: it keeps none.
        table: those records, with a whole snapshot. Whoever takes it makes a copy.
    """

    mark: Mark
    floor: int
    records: Sequence[Record]
    whole: bool
    dropped: int = 0
    slots: int = 0
    table: Dropped | None = None

    @property
    def miss_below(self) -> int:
        """The floor, and everything that was dropped where it is not told what that was."""
        told = self.slots and (self.table is not None or not self.whole)
        return self.floor if told else max(self.floor, self.dropped)


class Verdict(Enum):
    """What the journal says of an entry."""

    VALID = "valid"
    SOFT = "soft"
    HARD = "hard"


_VALID: Final[Verdict] = Verdict.VALID
"""The member by itself: to read it from its enum costs as much as a call."""


def bounded(purges: Iterable[Purge]) -> list[Purge]:
    """Purges as a journal keeps them: see `short`."""
    return [purge if len(purge.target) <= LONGEST else _shortened(purge) for purge in purges]


def _shortened(purge: Purge) -> Purge:
    return purge._replace(target=short(purge.target))


def new_id() -> str:
    """A random id for an epoch or a record: 64 bits, so that two histories never look alike."""
    return f"{secrets.randbits(64):016x}"


def portions(
    purges: Iterable[Purge], journals: int, part_of_path: Callable[[str], int] | None
) -> list[list[Purge]]:
    """What each of several journals is to take of some purges, in their order.

    Of a URL only the journal that everything under its path belongs to; of what may cover any path, all.

    Args:
        journals: how many there are.
        part_of_path: the number of a path's journal; None: what belongs to which journal is not known.
    """
    taken: list[list[Purge]] = [[] for _ in range(journals)]
    for purge in purges:
        path = target_path(purge.target) if purge.kind is Kind.URL and part_of_path is not None else None
        for portion in taken if path is None or part_of_path is None else (taken[part_of_path(path)],):
            portion.append(purge)
    return taken


class Journal:
    """The list itself, as a store in one process keeps it. Not thread-safe: its owner locks.

    Of several purges of one target only the last is kept: it says all that the others said. So a URL that
    is written to all day takes one line, and the floor rises only when many targets were purged.

    Args:
        limit: targets remembered one by one; the longest unpurged are dropped into a table.
    """

    def __init__(self, limit: int = 65536) -> None:
        if limit < 1:
            raise ValueError(f"a journal keeps at least one record, not {limit}")
        self._limit = limit
        self._records: dict[tuple[Kind, str, bool], Record] = {}
        self._nonces: deque[str] = deque(maxlen=min(limit, _NONCES))
        self.restart()

    def restart(self) -> Mark:
        """Begin a new epoch: every entry born before is a miss."""
        self._records.clear()
        self._nonces.clear()
        self.floor = self.dropped = 0
        self._table: Dropped | None = None
        self.mark = Mark(new_id(), 0, new_id())
        return self.mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Number the purges and add them. Returns the new mark."""
        epoch, seq, nonce = self.mark
        for purge in purges:
            self._nonces.append(nonce)
            seq, nonce = seq + 1, new_id()
            self._records.pop(purge, None)  # so that the dictionary stays in the order of seq
            self._records[purge] = Record(seq, *purge, at, nonce)
        while len(self._records) > self._limit:
            self._drop(self._records.pop(next(iter(self._records))))
        self.mark = Mark(epoch, seq, nonce)
        return self.mark

    def _drop(self, record: Record) -> None:
        self.dropped = record.seq
        if self._table is None:
            self._table = Dropped(SLOTS * self._limit)
        if record.kind is Kind.ALL:
            self.floor = record.seq
        elif record.kind is not Kind.META:
            self._table.add(record.kind.value, short(record.target), record.seq)

    def since(self, mark: Mark | None) -> Snapshot:
        """What a worker that stands at `mark` is missing."""
        slots = SLOTS * self._limit
        if mark is None or not self._knows(mark):
            table = None if self._table is None else self._table.copy()
            records = list(self._records.values())
            return Snapshot(self.mark, self.floor, records, True, self.dropped, slots, table)
        newest = reversed(self._records.values())
        tail = list(takewhile(lambda record: record.seq > mark.seq, newest))
        return Snapshot(self.mark, self.floor, tail[::-1], False, self.dropped, slots)

    def _knows(self, mark: Mark) -> bool:
        """Whether a mark is part of this history, and recent enough to be sure of it."""
        behind = self.mark.seq - mark.seq
        if mark.epoch != self.mark.epoch or mark.seq < self.dropped or behind < 0:
            return False
        if behind == 0:
            return mark.nonce == self.mark.nonce
        return behind <= len(self._nonces) and self._nonces[-behind] == mark.nonce


_NONCES: Final = 4096
"""Marks that a journal can still tell from those of another history."""


class PurgeIndex:
    """The journal by target: the last hard and the last soft `seq` of each.

    One thread writes (`follow`, under its owner's lock); any thread reads. The mark is published after
    what it stands for, so whoever reads `mark` first and the index afterwards never misses a record.
    """

    def __init__(self) -> None:
        self.mark: Mark | None = None
        self._state = _State()

    def follow(self, snapshot: Snapshot) -> Mark:
        """Take over what the journal has that this index has not."""
        state = _State() if snapshot.whole or self.mark is None else self._state
        for record in snapshot.records:
            state.add(record)
        state.epoch = snapshot.mark.epoch
        state.take_over(snapshot)
        self._state = state
        self.mark = snapshot.mark
        return snapshot.mark

    def whole(self) -> Snapshot | None:
        """All of it, for another index to begin with; None where nothing was followed yet.

        The records say nothing of when they were made. The caller keeps others from writing meanwhile.
        """
        if self.mark is None:
            return None
        state = self._state
        state.forget()
        records = [*state.hard.records(soft=False), *state.soft.records(soft=True)]
        kept = sorted([record for record in records if record.seq > state.dropped], key=lambda one: one.seq)
        table = None if state.table is None else state.table.copy()
        return Snapshot(self.mark, state.floor, kept, True, state.dropped, state.slots, table)

    def last(self, purge: Purge) -> int:
        """The number of the last purge of the same target, 0 where there was none."""
        book = self._state.soft if purge.soft else self._state.hard
        return book.last(purge.kind, short(purge.target))

    def verdict(self, born: Mark, key: str, groups: Sequence[str]) -> Verdict:
        """Whether an entry with this key and these groups, born at `born`, is still valid."""
        state = self._state
        if born.epoch != state.epoch or born.seq < state.floor:
            return Verdict.HARD
        if state.last_seq <= born.seq:
            return _VALID
        parts = split_key(key)
        if state.hard.covers(born.seq, parts, groups):
            return Verdict.HARD
        soft = state.soft.covers(born.seq, parts, groups)
        table = state.table  # after the books: what leaves these is in here before
        if table is not None and table.covers(born.seq, parts, groups):
            return Verdict.HARD
        if born.seq < state.floor:  # it rose meanwhile, and what lies below it is forgotten
            return Verdict.HARD
        return Verdict.SOFT if soft else Verdict.VALID

    def __len__(self) -> int:
        return len(self._state.hard) + len(self._state.soft)


class _Book:
    """The last purge of each target, by kind, for one of hard and soft."""

    __slots__ = ("all", "groups", "prefixes", "urls")

    def __init__(self) -> None:
        self.all = 0
        self.urls: dict[str, int] = {}
        self.prefixes: dict[str, int] = {}
        self.groups: dict[str, int] = {}

    def add(self, record: Record) -> None:
        if record.kind is Kind.ALL:
            self.all = record.seq
        elif record.kind is not Kind.META:
            self._of(record.kind)[short(record.target)] = record.seq

    def _of(self, kind: Kind) -> dict[str, int]:
        if kind is Kind.URL:
            return self.urls
        return self.prefixes if kind is Kind.PREFIX else self.groups

    def records(self, *, soft: bool) -> Iterator[Record]:
        if self.all:
            yield Record(self.all, Kind.ALL, "", soft, 0.0, "")
        for kind in (Kind.URL, Kind.PREFIX, Kind.GROUP):
            for target, seq in self._of(kind).items():
                yield Record(seq, kind, target, soft, 0.0, "")

    def last(self, kind: Kind, target: str) -> int:
        if kind in _WITHOUT_TARGET:
            return self.all if kind is Kind.ALL else 0
        return self._of(kind).get(target, 0)

    def covers(self, born: int, parts: Parts, groups: Sequence[str]) -> bool:
        """Whether a purge later than `born` names the key, an ancestor of its path or a group."""
        return (
            self.all > born
            or (bool(self.urls) and _later(self.urls, born, url_targets(parts)))
            or (bool(self.prefixes) and _later(self.prefixes, born, prefix_targets(parts)))
            or (bool(groups and self.groups) and _later(self.groups, born, group_targets(parts, groups)))
        )

    def drop(self, last: int, table: Dropped | None) -> None:
        """Let go of the records up to a number, after they went into a table."""
        for kind in (Kind.URL, Kind.PREFIX, Kind.GROUP):
            book = self._of(kind)
            for target, seq in [(target, seq) for target, seq in book.items() if seq <= last]:
                if table is not None:
                    table.add(kind.value, target, seq)
                del book[target]

    def __len__(self) -> int:
        return len(self.urls) + len(self.prefixes) + len(self.groups) + bool(self.all)


_WITHOUT_TARGET: Final = frozenset({Kind.ALL, Kind.META})


def _later(book: dict[str, int], born: int, targets: Iterable[str]) -> bool:
    get = book.get
    return any(get(short(target), 0) > born for target in targets)


class _State:
    """Everything an index knows of one epoch; replaced as a whole when the epoch changes."""

    __slots__ = ("dropped", "epoch", "floor", "hard", "last_seq", "slots", "soft", "table")

    def __init__(self) -> None:
        self.epoch = ""
        self.floor = 0
        self.dropped = 0
        self.slots = 0
        self.table: Dropped | None = None
        self.last_seq = 0
        self.hard = _Book()
        self.soft = _Book()

    def add(self, record: Record) -> None:
        (self.soft if record.soft else self.hard).add(record)
        self.last_seq = record.seq

    def take_over(self, snapshot: Snapshot) -> None:
        """What the store has dropped need not be remembered one by one here either."""
        if snapshot.table is not None:
            self.table = snapshot.table.copy()
        self.slots = snapshot.slots
        self.floor = max(self.floor, snapshot.miss_below)
        dropped = max(snapshot.dropped, self.floor)
        if dropped <= self.dropped:
            return
        every = self.slots // _OF_THE_SLOTS or _FORGET_EVERY
        forget = dropped // every > self.dropped // every
        self.dropped = dropped
        self.last_seq = max(self.last_seq, dropped)
        if forget:
            self.forget()

    def forget(self) -> None:
        """Let go of what the floor answers, and of what has a place in the table."""
        if self.table is None and self.slots and self.dropped > self.floor:
            self.table = Dropped(self.slots)
        self.hard.drop(self.dropped, self.table)
        self.soft.drop(self.dropped, self.table)
