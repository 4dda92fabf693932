"""What the LMDB store keeps beside the entries of a namespace, and how it writes: leases, texts, counters."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from ..codec import DecodeError
from . import MOST_COUNTERS, StoreError
from .lmdbentries import Work
from .lmdbfile import File
from .lmdbhandle import Handle
from .lmdbrecords import (
    COUNTER,
    META,
    Lease,
    entry_name,
    pack_counter,
    read_counter,
    room_name,
)
from .ownfiles import remove

Result = TypeVar("Result")

_LEASES: Final = 4096
"""Leases and notes of unstorable answers, before a new one looks for those that have ended."""

_SWEPT: Final = 16
_SHRUNK: Final = 256
"""Entries that go in one transaction where the file is full."""


class Room:
    """One namespace of a file."""

    _file: File
    _space: bytes
    _bodies: Path

    # --- transactions ------------------------------------------------------------------------------

    def _write(self, job: Callable[[Work], Result], need: int = 0, *, insist: bool = False) -> Result:
        """Do something in one write transaction; in a full file once more, when there is room.

        Args:
            need: bytes that it is about to write.
            insist: it may use the reserve, because to leave it undone would be wrong.
        """
        result, unnamed = self._written(job, need, insist)
        for name in unnamed:  # no sooner: it is only now that no record names them
            remove(str(self._bodies / name))
        return result

    def _written(self, job: Callable[[Work], Result], need: int, insist: bool) -> tuple[Result, list[str]]:
        """What a job returned, and the files that no record names any more."""
        file = self._file

        def run(handle: Handle, transaction: Any) -> tuple[Result, list[str]]:
            work = Work(handle, transaction, file.visited)
            result = job(work)
            work.finish()
            return result, work.unnamed

        if not insist:
            return file.write(run, lambda handle: self._relieve(handle, need))
        try:
            return file.write(run, lambda handle: self._relieve(handle, need), insist=True)
        except StoreError as error:
            if not isinstance(error.__cause__, lmdb.MapFullError):
                raise
            with file.reserve(file.attend()):
                return file.write(run, _do_nothing)

    def _relieve(self, handle: Handle, need: int) -> None:
        """Make room in a full file. What a transaction frees can be used two transactions later."""
        file = self._file
        wanted = max(2 * need, handle.map_size // 32)

        def shrink(handle: Handle, transaction: Any) -> tuple[int, list[str]]:
            work = Work(handle, transaction, file.visited)
            freed = work.shrink(wanted, _SHRUNK, time.time()) if work.is_crowded else 0
            work.finish()
            return freed, work.unnamed

        file.outlast_readers(handle)
        for _ in range(8):
            freed, unnamed = file.write(shrink, _do_nothing)
            for name in unnamed:
                remove(str(self._bodies / name))
            wanted -= freed
            if wanted <= 0 or not freed:
                break
        file.write(lambda handle, transaction: Work(handle, transaction, set()).finish(), _do_nothing)

    # --- leases ------------------------------------------------------------------------------------

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key; see `Store.lease`. Who is too late writes nothing."""
        name = entry_name(self._space, key)
        held = Lease.read(
            self._file.read(lambda handle, transaction: transaction.get(name, db=handle.leases))
        )
        if held is not None and held.holds(time.monotonic()):
            return None if held.token else 0

        def take(work: Work) -> int | None:
            transaction, db = work.transaction, work.handle.leases
            held = Lease.read(transaction.get(name, db=db))
            now = time.monotonic()
            if held is not None and held.holds(now):
                return None if held.token else 0
            if transaction.stat(db)["entries"] >= _LEASES:
                _sweep_leases(transaction, db, name, now)
            work.totals.tokens += 1
            transaction.put(name, Lease(work.totals.tokens, now, seconds).pack(), db=db)
            return work.totals.tokens

        return self._write(take)

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back; see `Store.release`."""
        name = entry_name(self._space, key)

        def give_back(work: Work) -> None:
            held = Lease.read(work.transaction.get(name, db=work.handle.leases))
            if held is None or token == 0 or held.token != token:
                return
            if unstorable_for > 0:
                note = Lease(0, time.monotonic(), unstorable_for).pack()
                work.transaction.put(name, note, db=work.handle.leases)
            else:
                work.transaction.delete(name, db=work.handle.leases)

        self._write(give_back)

    # --- meta and counters -------------------------------------------------------------------------

    def get_meta(self, name: str) -> str | None:
        """A text kept beside the journal."""
        key = room_name(META, self._space, name)
        raw = self._file.read(lambda handle, transaction: transaction.get(key, db=handle.room))
        return None if raw is None else raw.decode("utf-8", "surrogatepass")

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text, or forget it."""
        key = room_name(META, self._space, name)

        def put(work: Work) -> None:
            if value is None:
                work.transaction.delete(key, db=work.handle.room)
            else:
                work.transaction.put(key, value.encode("utf-8", "surrogatepass"), db=work.handle.room)

        self._write(put, insist=True)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters: one transaction. Names beyond `MOST_COUNTERS` are not counted."""
        if not deltas:
            return

        def add(work: Work) -> None:
            known: int | None = None
            for name, delta in deltas.items():
                key = room_name(COUNTER, self._space, name)
                raw = work.transaction.get(key, db=work.handle.room)
                value = 0
                if raw is None:
                    known = (
                        len(self._read_counters(work.handle, work.transaction)) if known is None else known
                    )
                    if known >= MOST_COUNTERS:
                        continue
                    known += 1
                else:
                    with contextlib.suppress(DecodeError):
                        value = read_counter(raw)[0]
                work.transaction.put(key, pack_counter(value + delta, name), db=work.handle.room)

        self._write(add)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        found: dict[str, int] = {}
        for raw in self._file.read(self._read_counters):
            with contextlib.suppress(DecodeError):
                value, name = read_counter(raw)
                found[name] = value
        return found

    def _read_counters(self, handle: Handle, transaction: Any) -> list[bytes]:
        prefix = room_name(COUNTER, self._space)
        cursor = transaction.cursor(handle.room)
        found: list[bytes] = []
        if cursor.set_range(prefix):
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    break
                found.append(value)
        return found


def _sweep_leases(transaction: Any, db: Any, start: bytes, now: float) -> None:
    """Look at a few leases from somewhere on, and remove those that have ended."""
    cursor = transaction.cursor(db)
    found = cursor.set_range(start) or cursor.first()
    for _ in range(_SWEPT):
        if not found:
            return
        held = Lease.read(cursor.value())
        if held is None or not held.holds(now):
            found = cursor.delete() and bool(cursor.key())
        else:
            found = cursor.next()


def _do_nothing(handle: Handle) -> None:
    """There is no room to be made."""
