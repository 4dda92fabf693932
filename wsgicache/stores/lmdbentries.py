"""What is stored in the file of the LMDB store, and what goes when it is full. One write transaction each.

Eviction is SIEVE over a queue in the file, in the order of storing. Its flags are not in the file: who makes
room spares what its own process was asked for since the hand last passed. So a hit writes nothing, and what
is popular everywhere is spared everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from ..codec import DecodeError
from .budgets import NEGATIVE_SHARE
from .lmdbfile import Outgrown
from .lmdbhandle import Handle
from .lmdbpages import files_of
from .lmdbrecords import (
    COUNTS,
    EPOCH_AT,
    FILE_HAND,
    NUMBER,
    QUEUED,
    SPACE,
    TOTALS,
    Filed,
    Head,
    Space,
    Totals,
    piece_name,
    read_head,
    room_name,
)

_FILLED: Final = 0.75
"""How much of the file entries and journal may take. The rest is for pages that a change frees and cannot
use again at once."""

_HOUSEKEEPING: Final = 4
_MOST: Final = 256
"""How many entries one transaction takes away for another: enough, unless the file was made smaller."""

_PATIENCE: Final = 1000
"""How many popular entries the hand may pass in one transaction before it takes one all the same."""


class Work:
    """One write transaction on entries. `finish` writes the counts.

    Args:
        visited: names that the eviction hand spares; it takes them out as it passes.

    Raises:
        Outgrown: the file may take more than the handle knows.
    """

    def __init__(self, handle: Handle, transaction: Any, visited: set[bytes]) -> None:
        self.handle: Final = handle
        self.transaction: Final = transaction
        self.totals: Final = Totals.read(transaction.get(TOTALS, db=handle.room))
        self.unnamed: Final[list[str]] = []
        """Files that no record names any more once this is written."""
        self._spaces: dict[bytes, Space] = {}
        self._visited = visited
        if self.totals.size > handle.max_bytes:
            raise Outgrown(self.totals.size)

    def space(self, name: bytes) -> Space:
        """The counts of a namespace; what is changed in them is written in the end."""
        known = self._spaces.get(name)
        if known is None:
            raw = self.transaction.get(room_name(COUNTS, name), db=self.handle.room)
            known = self._spaces[name] = Space.read(raw)
        return known

    def finish(self) -> None:
        """Write the counts."""
        put, room = self.transaction.put, self.handle.room
        put(TOTALS, self.totals.pack(), db=room)
        for name, space in self._spaces.items():
            put(room_name(COUNTS, name), space.pack(), db=room)

    # --- entries -----------------------------------------------------------------------------------

    def limit(self, negative: bool) -> int:
        """What entries of a kind may take: negatives a small part, pages what those do not use."""
        whole = max(0, int(self.handle.map_size * _FILLED) - self.totals.journal)
        return whole // NEGATIVE_SHARE if negative else whole - self.totals.used[True]

    @property
    def is_crowded(self) -> bool:
        """Whether entries fill most of their room, so that fewer of them would help a full file."""
        return 2 * sum(self.totals.used) > self.limit(False)

    def put(
        self,
        name: bytes,
        head: Head,
        rest: bytes,
        stored_head: bytes,
        pieces: list[bytes],
        filed: Filed | None = None,
    ) -> None:
        """Store; what had the name must be gone, and room made. `head.number` is given here."""
        totals, handle, put = self.totals, self.handle, self.transaction.put
        totals.last += 1
        head = head._replace(number=totals.last)
        number = NUMBER.pack(totals.last)
        put(name, head.pack(rest, stored_head), db=handle.heads)
        for place, piece in enumerate(pieces):
            put(piece_name(head.number, place), piece, append=True, db=handle.bodies)
        put(number, name, append=True, db=handle.negatives if head.negative else handle.queue)
        put(QUEUED.pack(head.until, head.number), name, db=handle.expiry)
        if filed is not None:
            put(number, filed.pack(), append=True, db=handle.files)
            if filed.file in self.unnamed:  # a freshened entry has the file of the one before
                self.unnamed.remove(filed.file)
        totals.used[head.negative] += head.cost
        self.space(name[:SPACE]).entries += 1

    def drop(self, name: bytes, raw: bytes) -> Head:
        """Forget what is stored under a name.

        Args:
            raw: its record.

        Raises:
            DecodeError: it is none; it is gone all the same, and its body, which nobody can find, will be
                when the hand or the clock comes to its number.
        """
        handle, delete = self.handle, self.transaction.delete
        delete(name, db=handle.heads)
        self.space(name[:SPACE]).entries -= 1
        head, _, _ = read_head(raw)
        for place in range(head.pieces):
            delete(piece_name(head.number, place), db=handle.bodies)
        delete(NUMBER.pack(head.number), db=handle.negatives if head.negative else handle.queue)
        delete(QUEUED.pack(head.until, head.number), db=handle.expiry)
        if head.in_file:
            self._drop_file(head.number)
        self.totals.used[head.negative] -= head.cost
        return head

    def _drop_file(self, number: int) -> None:
        raw = self.transaction.pop(NUMBER.pack(number), db=self.handle.files)
        if raw is not None:
            self.unnamed.append(Filed.read(raw).file)

    def drop_other_epochs(self, space: bytes, epoch: bytes, after: bytes, limit: int) -> bytes | None:
        """Forget entries of a namespace that are of another epoch; None when there are no more.

        Args:
            after: the name to begin behind.
            limit: how many to look at.
        """
        names = list(self._names_after(space, after, limit))
        for name, raw in names:
            if raw[EPOCH_AT] != epoch:
                try:
                    self.drop(name, raw)
                except DecodeError:
                    continue
        return names[-1][0] if len(names) == limit else None

    def _names_after(self, space: bytes, after: bytes, limit: int) -> Iterator[tuple[bytes, bytes]]:
        cursor = self.transaction.cursor(self.handle.heads)
        found = cursor.set_range(after + b"\0")
        while found and limit:
            name, raw = cursor.item()
            if not name.startswith(space):
                return
            yield name, raw
            limit -= 1
            found = cursor.next()

    # --- room --------------------------------------------------------------------------------------

    def make_room(self, cost: int, negative: bool, now: float) -> None:
        """Forget what may be forgotten, then what is asked for least, until an entry of this cost fits."""
        for _ in range(_HOUSEKEEPING):
            if not self._expire(now):
                break
        for _ in range(_MOST):
            crowded = self._crowded(cost, negative)
            if crowded is None or not (self._expire(now) or self._evict(crowded)):
                return

    def _crowded(self, cost: int, negative: bool) -> bool | None:
        """Which kind of entries has to make room for one of this cost; None: it fits."""
        used = self.totals.used
        if used[negative] + cost > self.limit(negative):
            return negative
        if negative and used[False] + cost > self.limit(False):
            return False
        return None

    def make_room_for_file(self, size: int, limit: int) -> None:
        """Forget entries with files, those asked for least, until another file fits.

        Raises:
            DecodeError: a record is damaged.
        """
        files = files_of(self.handle, self.transaction)
        used = sum([filed.size for filed in files.values()])
        raw = self.transaction.get(FILE_HAND, db=self.handle.room)
        hand = 0 if raw is None else NUMBER.unpack(raw)[0]
        queue = [*filter(lambda number: number > hand, files), *filter(lambda number: number <= hand, files)]
        for number in (*queue, *queue):  # at its second turn, none is spared
            if used + size <= limit:
                break
            filed = files.get(number)
            if filed is None:
                continue
            hand = number
            if filed.entry in self._visited:
                self._visited.discard(filed.entry)
                continue
            del files[number]
            used -= filed.size
            self._drop_numbered(filed.entry, number)
            self._drop_file(number)  # where its record is another's meanwhile, or damaged
            self.totals.evicted += 1
        self.transaction.put(FILE_HAND, NUMBER.pack(hand), db=self.handle.room)

    def shrink(self, wanted: int, most: int, now: float) -> int:
        """Free so many bytes, whatever the limits say; at most so many entries. Returns what it freed."""
        used = self.totals.used
        before = sum(used)
        while before - sum(used) < wanted and most:
            if not (self._expire(now) or self._evict(False) or self._evict(True)):
                break
            most -= 1
        return before - sum(used)

    def _expire(self, now: float) -> bool:
        """Forget the entry that was to be kept shortest, if that is over."""
        cursor = self.transaction.cursor(self.handle.expiry)
        if not cursor.first():
            return False
        key, name = cursor.item()
        if len(key) != QUEUED.size:
            raise DecodeError("not a place in the queue")
        until, number = QUEUED.unpack(key)
        if until > now:
            return False
        if not self._drop_numbered(name, number):
            self.transaction.delete(key, db=self.handle.expiry)
        return True

    def _evict(self, negative: bool) -> bool:
        """Move the hand of SIEVE to an entry that this process was not asked for, and forget that."""
        handle, totals = self.handle, self.totals
        queue = handle.negatives if negative else handle.queue
        cursor = self.transaction.cursor(queue)
        visited = self._visited
        found = cursor.set_range(NUMBER.pack(totals.hands[negative] + 1)) or cursor.first()
        for _ in range(_PATIENCE):
            if not found or cursor.value() not in visited:
                break
            visited.discard(cursor.value())
            found = cursor.next() or cursor.first()
        if not found:
            return False
        key, name = cursor.item()
        if len(key) != NUMBER.size:
            raise DecodeError("not a place in the queue")
        (number,) = NUMBER.unpack(key)
        totals.hands[negative] = number
        if self._drop_numbered(name, number):
            totals.evicted += 1
        else:
            self.transaction.delete(key, db=queue)
        return True

    def _drop_numbered(self, name: bytes, number: int) -> bool:
        """Forget what is stored under a name, if it has this number. Otherwise its body may be left."""
        raw = self.transaction.get(name, db=self.handle.heads)
        try:
            if raw is not None and read_head(raw)[0].number == number:
                self.drop(name, raw)
                return True
        except DecodeError:  # a damaged record: it goes, and what belongs to it is looked for
            self.transaction.delete(name, db=self.handle.heads)
        self._drop_body(number)
        self._drop_file(number)
        return False

    def _drop_body(self, number: int) -> None:
        cursor = self.transaction.cursor(self.handle.bodies)
        prefix = NUMBER.pack(number)
        while cursor.set_range(prefix) and cursor.key().startswith(prefix):
            cursor.delete()
