"""The purge journal on one memcached server, which may forget any item at any time.

The rules this file obeys:

- The mark is one item, exactly `codec.encode_mark`. It moves by compare-and-set only. Where it is missing,
  because the server was restarted, flushed or short of memory, a new epoch begins by `add`: everything
  older is a miss.
- Purges that were appended together are one record, at most `_TOGETHER` of them, under a name made of the
  epoch and the number of the first. A record is written, by `add`, before the mark moves over it. So a
  name is taken once, and whoever finds it taken moves the mark over it for its writer, who may have died.
- A record carries the nonce that stood before it, so that records form a chain that ends at the mark. What
  is not part of the chain was never published, or took the place of something that is lost.
- Followers walk the chain backwards. Where it breaks, the history before is unknown: the number of the
  purge that is missing becomes the floor, and everything born below is a miss.
- A purge for which the server has no room begins a new epoch instead: a purge never fails for want of
  memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from ..codec import DecodeError, decode_mark, decode_purge, encode_mark, encode_purge
from ..journal import Mark, Purge, Record, Snapshot, bounded, new_id
from . import StoreError
from .memcachedservers import Refused, Server

_ROUNDS: Final = 64
"""Tries before a call gives up against others that are quicker each time."""

_TOGETHER: Final = 64
_AT_ONCE: Final = 512
"""Records fetched with one command."""

_KEPT_FOR: Final = 30 * 24 * 3600
"""Seconds that a record is kept, the longest that memcached takes as a number of seconds."""


class Batch(NamedTuple):
    """Purges that were appended together."""

    before: str
    """The nonce of the purge before the first."""
    at: float
    purges: Sequence[tuple[str, Purge]]
    """Nonce and purge."""

    def encode(self) -> bytes:
        """The record as it is stored."""
        parts = [f"{self.before} {self.at!r}\n".encode("ascii")]
        for nonce, purge in self.purges:
            data = encode_purge(purge)
            parts.append(f"{nonce} {len(data)}\n".encode("ascii") + data)
        return b"".join(parts)

    @staticmethod
    def decode(data: bytes) -> Batch:
        """Read a record.

        Raises:
            DecodeError: it is none.
        """
        try:
            line, _, rest = data.partition(b"\n")
            before, at = line.decode("ascii").split(" ")
            purges: list[tuple[str, Purge]] = []
            while rest:
                line, _, rest = rest.partition(b"\n")
                nonce, size = line.decode("ascii").split(" ")
                if not 0 < int(size) <= len(rest):
                    raise DecodeError("cut off")
                purges.append((nonce, decode_purge(rest[: int(size)])))
                rest = rest[int(size) :]
            if not purges or not math.isfinite(float(at)):
                raise DecodeError("no record")
            return Batch(before, float(at), purges)
        except (ValueError, UnicodeDecodeError) as error:
            raise DecodeError("not a record") from error


class ServerJournal:
    """The journal of one namespace.

    Args:
        server: where it lives.
        prefix: of the names of its items.
        limit: purges that are remembered one by one.
    """

    def __init__(self, server: Server, prefix: bytes, limit: int) -> None:
        self.server: Final = server
        self.mark_name: Final = prefix + b"m"
        self._prefix: Final = prefix + b"j"
        self._limit: Final = limit
        self._last: tuple[bytes, Mark] | None = None

    def _name(self, epoch: str, seq: int) -> bytes:
        return b"%b%b%016x" % (self._prefix, epoch.encode("ascii"), seq)

    def read(self, raw: bytes | None, *, insist: bool = False) -> Mark:
        """The mark that was found; where there is none, that of a new epoch.

        Raises:
            StoreError: the server does not keep one.
        """
        last = self._last
        if last is not None and last[0] == raw:
            return last[1]
        for _ in range(_ROUNDS):
            mark = _mark(raw)
            if mark is not None and raw is not None:
                self._last = raw, mark
                return mark
            if raw is not None:  # foreign bytes
                self.server.call("delete", self.mark_name, insist=insist)
            raw = encode_mark(Mark(new_id(), 0, new_id()))
            if not self.server.call("add", self.mark_name, raw, insist=insist):
                raw = self.server.call("get", self.mark_name, insist=insist)
        raise StoreError(f"{self.server.name} keeps no mark")

    def restart(self) -> Mark:
        """Begin a new epoch."""
        new = Mark(new_id(), 0, new_id())
        for _ in range(_ROUNDS):
            raw, cas = self.server.call("gets", self.mark_name, insist=True)
            call = ("add",) if raw is None else ("cas", cas)
            if self.server.call(call[0], self.mark_name, encode_mark(new), *call[1:], insist=True):
                return new
        raise StoreError(f"{self.server.name}: others were quicker {_ROUNDS} times")

    def append(self, purges: Iterable[Purge], at: float) -> Mark | None:
        """Write purges; None where there were none."""
        mark: Mark | None = None
        left = iter(bounded(purges))
        while together := [*islice(left, _TOGETHER)]:
            try:
                mark = self._append(together, at)
            except Refused:  # too large, or no memory for it
                mark = self.restart()
        return mark

    def _append(self, purges: Sequence[Purge], at: float) -> Mark:
        call = self.server.call
        for _ in range(_ROUNDS):
            raw, cas = call("gets", self.mark_name, insist=True)
            mark = _mark(raw)
            if mark is None:
                self.read(raw, insist=True)
                continue
            batch = Batch(mark.nonce, at, [(new_id(), purge) for purge in purges])
            name, moved = self._name(mark.epoch, mark.seq + 1), _after(mark, batch)
            if not call("add", name, batch.encode(), _KEPT_FOR, insist=True):
                self._help(mark, cas, name)
            elif call("cas", self.mark_name, encode_mark(moved), cas, insist=True) or self._is_in(moved):
                self._forget(mark.seq - self._limit, moved.seq - self._limit, mark.epoch)
                return moved
        raise StoreError(f"{self.server.name}: others were quicker {_ROUNDS} times")

    def _help(self, mark: Mark, cas: bytes, name: bytes) -> None:
        """Somebody has written a record and not moved the mark, yet or ever."""
        batch = _batch(self.server.call("get", name, insist=True))
        if batch is not None and batch.before == mark.nonce:
            self.server.call("cas", self.mark_name, encode_mark(_after(mark, batch)), cas, insist=True)
        else:
            self.server.call("delete", name, insist=True)

    def _is_in(self, moved: Mark) -> bool:
        """Whether somebody else moved the mark over a record of ours."""
        following = self._name(moved.epoch, moved.seq + 1)
        found = self.server.call("get_many", [self.mark_name, following], insist=True)
        mark, batch = _mark(found.get(self.mark_name)), _batch(found.get(following))
        if mark is None or mark.epoch != moved.epoch:
            return False
        return mark == moved or (mark.seq > moved.seq and batch is not None and batch.before == moved.nonce)

    def _forget(self, after: int, to: int, epoch: str) -> None:
        """Drop the records below the floor; nobody reads them any more."""
        if to <= 0:
            return
        try:
            self.server.call(
                "delete_many", [self._name(epoch, seq) for seq in range(max(0, after) + 1, to + 1)]
            )
        except StoreError:
            pass  # they go by themselves

    def since(self, mark: Mark | None) -> Snapshot:
        """What a follower that stands at `mark` is missing."""
        current = self.read(self.server.call("get", self.mark_name))
        floor = max(0, current.seq - self._limit)
        if mark is not None and mark.epoch == current.epoch and floor <= mark.seq <= current.seq:
            reached, records = self._walk(current, mark.seq)
            if reached == (mark.seq, mark.nonce):
                return Snapshot(current, floor, records, whole=False)
        (reached_seq, _), records = self._walk(current, floor)
        return Snapshot(current, reached_seq, records, whole=True)

    def _walk(self, current: Mark, low: int) -> tuple[tuple[int, str], list[Record]]:
        """The chain from the mark backwards, down to the number `low` or to where it breaks.

        Returns number and nonce where it ended, and the records after it.
        """
        seq, nonce = current.seq, current.nonce
        ends: dict[int, tuple[int, Batch]] = {}
        records: list[Record] = []
        for last in range(current.seq, low, -_AT_ONCE):
            first = max(low + 1, last - _AT_ONCE + 1)
            for start, batch in self._batches(current.epoch, first, last):
                ends[start + len(batch.purges) - 1] = start, batch
            while seq in ends and ends[seq][1].purges[-1][0] == nonce:
                start, batch = ends.pop(seq)
                records += reversed(_records(start, batch))
                seq, nonce = start - 1, batch.before
            if seq >= first + _TOGETHER:  # a record that ends there would have begun by now
                break
        return (seq, nonce), records[::-1]

    def _batches(self, epoch: str, first: int, last: int) -> Iterator[tuple[int, Batch]]:
        names = {self._name(epoch, seq): seq for seq in range(first, last + 1)}
        for name, data in self.server.call("get_many", list(names)).items():
            batch = _batch(data)
            if batch is not None:
                yield names[name], batch


def _mark(raw: bytes | None) -> Mark | None:
    try:
        return None if raw is None else decode_mark(raw)
    except DecodeError:
        return None


def _batch(data: bytes | None) -> Batch | None:
    try:
        return None if data is None else Batch.decode(data)
    except DecodeError:
        return None


def _after(mark: Mark, batch: Batch) -> Mark:
    return Mark(mark.epoch, mark.seq + len(batch.purges), batch.purges[-1][0])


def _records(start: int, batch: Batch) -> list[Record]:
    return [Record(start + i, *purge, batch.at, nonce) for i, (nonce, purge) in enumerate(batch.purges)]
