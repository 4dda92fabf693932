"""The LMDB store: all workers of a machine share one file, which survives restarts.

A hit confirms with one read transaction that nothing changed: where nobody wrote to the file since the last
time, its number says so, and nothing is read at all. Otherwise the journal's mark and the head of what is
stored are compared with what this process holds. Bodies are read when they are not known here, and copied
out; no transaction is open while anybody else runs.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar, cast
from urllib.parse import unquote

import lmdb

from ..body import FileBody
from ..codec import DecodeError, decode_mark, encode_parts
from ..entry import Entry, Stored
from ..forks import in_child
from ..journal import Mark, Purge, Snapshot
from ..options import read_bytes, read_positive
from . import StoreError, StoreOptions
from .advice import Advice
from .lmdbadvice import lmdb_advice
from .lmdbentries import Work
from .lmdbfile import File, boot_id, shared_file
from .lmdbhandle import SMALLEST, Handle, trouble_with
from .lmdbjournal import (
    Books,
    begin_epoch,
    clear_other_epochs,
    current_mark,
    epoch_of,
    read_since,
    to_snapshot,
)
from .lmdbpages import decode_record, decode_whole, files_of, is_of_another_version, read_body, refuses
from .lmdbrecords import (
    COUNTS,
    EPOCH_AT,
    TOTALS,
    Filed,
    Head,
    Space,
    Totals,
    entry_name,
    flags_of,
    read_head,
    room_name,
    space_name,
)
from .lmdbroom import Room
from .memo import Memo, MemoSlot
from .sieve import Slot
from .spool import Spool, spool_stats
from .urls import check_path, url_options

Result = TypeVar("Result")

JOURNAL: Final = 65536
_BATCH: Final = 16
"""Entries that a scan reads in one transaction."""

_CLEARED: Final = 256
"""Entries that `clear` forgets in one transaction."""


class LmdbStore(Room):
    """Entries in a file that all processes of a machine share.

    Args:
        file: the file, in this process.
        options: what the cache says of its store; `max_bytes` is the file's.
        journal_limit: targets whose last purge is remembered one by one; for others see `wsgicache.dropped`.
    """

    shared: Final = True

    def __init__(self, file: File, options: StoreOptions, journal_limit: int = JOURNAL) -> None:
        self._furnish(_Family(file, options, journal_limit), "")

    def _furnish(self, family: _Family, namespace: str) -> None:
        self._family = family
        self._file = family.file
        self._space = space_name(namespace)
        self._keys = family.options.signing_keys
        self._bodies = family.bodies
        self.spool = family.spool
        self._memo = Memo(family.options.memo_bytes)
        self._visit = self._file.visited.add
        self.peek: Callable[[str], Slot | None] = self._memo.peek
        """What this process has decoded of a key; to be confirmed before it is used."""
        family.members[namespace] = self

    def namespaced(self, namespace: str) -> LmdbStore:
        """The part that belongs to a namespace: entries and journal of its own, within one budget."""
        with self._family.lock:
            known = self._family.members.get(namespace)
            if known is None:
                known = LmdbStore.__new__(LmdbStore)
                known._furnish(self._family, namespace)
            return known

    # --- entries -----------------------------------------------------------------------------------

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """The mark as it is stored, or None where what is stored is not what the slot holds any more.

        One transaction. `slot.seen` is what the last time gave: the number of the file's last change, the
        mark, and the handle. Where number and handle are the same, so is everything else.
        """
        name: Any = slot.name
        self._visit(name)
        file = self._file
        handle = file.handle
        try:
            if handle is None or not handle.alive[0] or time.monotonic() > file.due:
                handle = file.attend()
            transaction = handle.begin(handle.heads)
            number = transaction.id()
            seen: tuple[int, bytes, Handle] | None = slot.seen
            if seen is not None and seen[0] == number and seen[2] is handle:
                transaction.abort()
                return seen[1]
            raw, mark = transaction.get(name), transaction.get(self._space)
            transaction.abort()
        except lmdb.Error:
            return self._confirm_again(slot)
        if raw != slot.raw or mark is None:
            self._memo.forget(slot.key)
            return None
        slot.seen = number, mark, handle
        return mark

    def _confirm_again(self, slot: MemoSlot) -> bytes | None:
        """The long way: with everything that mends a file."""
        raw, mark = self._file.read(
            lambda handle, transaction: (
                transaction.get(slot.name, db=handle.heads),
                transaction.get(self._space, db=handle.heads),
            )
        )
        if raw != slot.raw or mark is None:
            self._memo.forget(slot.key)
            return None
        return cast(bytes, mark)

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark: one transaction."""
        names = [entry_name(self._space, key) for key in keys]

        def read(handle: Handle, transaction: Any) -> tuple[Any, list[_Found | None]]:
            mark = transaction.get(self._space, db=handle.heads)
            epoch = b"" if mark is None else epoch_of(mark)
            return mark, [
                self._find(handle, transaction, key, name, epoch)
                for key, name in zip(keys, names, strict=True)
            ]

        mark, found = self._file.read(read)
        return [None if one is None else self._stored(one) for one in found], self._read_mark(mark)

    def _find(self, handle: Handle, transaction: Any, key: str, name: bytes, epoch: bytes) -> _Found | None:
        """What is stored under a name, as bytes; the body only where it is not known already."""
        raw = transaction.get(name, db=handle.heads)
        if raw is None or raw[EPOCH_AT] != epoch:
            return None
        self._visit(name)
        stored = self._memo.recall(key, raw)
        body = b"" if stored is not None else read_body(handle, transaction, raw)
        return key, name, raw, body, stored

    def _stored(self, found: _Found) -> Stored | None:
        """The decoded form. What cannot be read is a miss, and goes."""
        key, name, raw, body, stored = found
        if stored is not None:
            return stored
        try:
            stored = decode_record(key, raw, body, self._keys)
            if isinstance(stored, Entry) and isinstance(stored.body, FileBody):
                stored.body.directory = str(self._bodies)
        except DecodeError:
            if not is_of_another_version(raw):
                self._forget_damaged(key, name, raw)
            return None
        self._memo.keep(key, name, raw, stored)
        return stored

    def _forget_damaged(self, key: str, name: bytes, raw: bytes) -> None:
        self._family.damaged += 1
        self._memo.forget(key)
        if not self._family.options.mend:
            return

        def forget(work: Work) -> None:
            if work.transaction.get(name, db=work.handle.heads) == raw:
                with contextlib.suppress(DecodeError):
                    work.drop(name, raw)

        with contextlib.suppress(StoreError):  # it is a miss either way
            self._write(forget)

    def mark_of(self, key: str) -> Mark:
        """The journal's mark; there is one journal."""
        mark = self._file.read(lambda handle, transaction: transaction.get(self._space, db=handle.heads))
        return self._read_mark(mark)

    def _read_mark(self, raw: bytes | None) -> Mark:
        if raw is not None:
            with contextlib.suppress(DecodeError):
                return decode_mark(raw)
        return self._write(lambda work: current_mark(work, self._space))

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key, forgetting what is asked for least; False where it was refused."""
        stored_head, body = encode_parts(stored, self._keys)
        rest = key[len(stored.key) :].encode("utf-8", "surrogatepass")
        born = stored.born if isinstance(stored, Entry) else None
        name, now = entry_name(self._space, key), time.time()
        until = min(math.ceil(max(keep_until, now + 1)), 0xFFFFFFFF)
        flags = flags_of(stored)
        filed = _filed(name, stored)
        limit = self._family.options.spool_max_bytes
        if filed is not None and filed.size > limit // 2:
            self._leave_nothing_older(name)
            return False

        def put(work: Work) -> bool:
            mark = current_mark(work, self._space)
            if born is not None and born.epoch != mark.epoch:
                return False
            epoch = mark.epoch.encode("ascii")
            old = work.transaction.get(name, db=work.handle.heads)
            if old is not None:
                if born is not None and refuses(old, epoch, born.seq, token):
                    return False
                with contextlib.suppress(DecodeError):
                    work.drop(name, old)
            pieces = work.handle.sizes.pieces(body)
            cost = work.handle.sizes.cost(len(stored_head) + len(rest) + 64, len(body))
            head = Head(
                0, token, 0 if born is None else born.seq, epoch, until, cost,
                len(body), len(pieces), flags, len(rest),
            )  # fmt: skip
            if cost > work.limit(head.negative) // 2:
                return False
            work.make_room(cost, head.negative, now)
            if filed is not None:
                work.make_room_for_file(filed.size, limit)
            work.put(name, head, rest, stored_head, pieces, filed)
            return True

        try:
            accepted = self._write(put, len(stored_head) + len(body))
        except StoreError:
            self._leave_nothing_older(name)
            raise
        if accepted and filed is not None:
            _give_away(stored)
        return accepted

    def _leave_nothing_older(self, name: bytes) -> None:
        """What could not be stored must not leave what it would have replaced."""

        def forget(work: Work) -> None:
            old = work.transaction.get(name, db=work.handle.heads)
            if old is not None:
                with contextlib.suppress(DecodeError):
                    work.drop(name, old)

        with contextlib.suppress(StoreError):
            self._write(forget, insist=True)

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds what was stored, or read, as `only`."""
        name = entry_name(self._space, key)
        wanted = None if only is None else encode_parts(only, self._keys)[0]

        def forget(work: Work) -> bool:
            raw = work.transaction.get(name, db=work.handle.heads)
            if raw is None:
                return False
            if wanted is not None and not self._is(work, key, raw, wanted):
                return False
            current = raw[EPOCH_AT] == current_mark(work, self._space).epoch.encode("ascii")
            try:
                work.drop(name, raw)
            except DecodeError:
                return wanted is None
            return bool(current)

        self._memo.forget(key)
        return self._write(forget, insist=True)

    def _is(self, work: Work, key: str, raw: bytes, wanted: bytes) -> bool:
        """Whether a record is of the entry with this head, perhaps signed with another of our keys."""
        try:
            head = read_head(raw)[2]
            if head != wanted and len(self._keys) > 1:
                body = read_body(work.handle, work.transaction, raw)
                head = encode_parts(decode_record(key, raw, body, self._keys), self._keys)[0]
            return head == wanted
        except DecodeError:
            return False

    def clear(self) -> Mark:
        """Forget everything; everything born before is a miss, also what is still being made."""

        def begin(work: Work) -> tuple[Mark, float]:
            return begin_epoch(work, self._space), work.totals.born

        mark = self._in_force(begin)
        self._memo.clear()
        after: bytes | None = self._space
        while after is not None:
            after = self._write(partial(self._clear_some, mark, after))
        return mark

    def _clear_some(self, mark: Mark, after: bytes, work: Work) -> bytes | None:
        more = clear_other_epochs(work, self._space, mark.epoch, _CLEARED)
        last = work.drop_other_epochs(self._space, mark.epoch.encode("ascii"), after, _CLEARED)
        return last or (after if more else None)

    # --- the journal -------------------------------------------------------------------------------

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force in every process when this returns."""
        purges = list(purges)

        def add(work: Work) -> tuple[Mark, float]:
            mark = current_mark(work, self._space)
            if purges:
                books = Books(work, self._space, mark.epoch)
                mark = books.append(mark, purges, at, self._family.journal_limit)
            return mark, work.totals.born

        return self._in_force(add)

    def _in_force(self, change: Callable[[Work], tuple[Mark, float]]) -> Mark:
        """Change the journal of the file that every process uses when this returns."""
        for _ in range(4):
            mark, born = self._write(change, insist=True)
            handle = self._file.attend()
            self._file.wait_for_others(born)
            if handle.is_current():
                return mark
            self._file.renew(handle)
        raise StoreError(f"{self._file.name}: the file is replaced again and again")

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing."""
        for _ in range(2):
            found = self._file.read(
                lambda handle, transaction: _raw_since(handle, transaction, self._space, mark)
            )
            if found is not None:
                with contextlib.suppress(DecodeError):
                    return to_snapshot(found)
            self._write(lambda work: begin_epoch(work, self._space))
        raise StoreError(f"{self._file.name}: the journal cannot be read")

    # --- for people --------------------------------------------------------------------------------

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`; a few entries a transaction."""
        last: bytes | None = self._space
        while last is not None:
            batch, last = self._file.read(partial(self._read_batch, last))
            for raw, body in batch:
                with contextlib.suppress(DecodeError):
                    key, stored = decode_whole(raw, body, self._keys)
                    if key.startswith(prefix):
                        yield stored

    def _read_batch(
        self, last: bytes, handle: Handle, transaction: Any
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        mark = transaction.get(self._space, db=handle.heads)
        found: list[tuple[bytes, bytes]] = []
        cursor = transaction.cursor(handle.heads)
        if mark is None or not cursor.set_range(last + b"\0"):
            return found, None
        epoch = epoch_of(mark)
        for name, raw in islice(cursor.iternext(), _BATCH):
            if not name.startswith(self._space):
                return found, None
            if raw[EPOCH_AT] == epoch:
                found.append((raw, read_body(handle, transaction, raw)))
            last = name
        return found, last

    def stats(self) -> Mapping[str, int]:
        """Entries, bytes, budgets, evictions, the length of the purge history, bytes of the file."""

        def read(handle: Handle, transaction: Any) -> tuple[Any, Any, Any, int, dict[int, Filed]]:
            return (
                transaction.get(TOTALS, db=handle.room),
                transaction.get(room_name(COUNTS, self._space), db=handle.room),
                transaction.get(self._space, db=handle.heads),
                os.stat(handle.path).st_size,
                files_of(handle, transaction),
            )

        totals, counts, mark, size, files = self._file.read(read)
        all_of_it, ours = Totals.read(totals), Space.read(counts)
        spooled = sum([filed.size for filed in files.values()])
        return {
            "entries": ours.entries,
            "bytes": sum(all_of_it.used),
            "max_bytes": all_of_it.size,
            "negative_bytes": all_of_it.used[1],
            "evicted": all_of_it.evicted,
            "purges": self._read_mark(mark).seq,
            "damaged": self._family.damaged,
            "file_bytes": size,
            **spool_stats(spooled, self._family.options.spool_max_bytes),
        }

    @property
    def directory(self) -> Path:
        """Where the file is; made when the store is first used."""
        return self._file.directory

    def advice(self, largest: int) -> Iterable[Advice]:
        """What the directory means for a cache; see `advice`."""
        return lmdb_advice(self._file.directory, self._file.max_bytes, largest)

    def close(self) -> None:
        """Let go of the file; what others share stays."""
        self._memo.clear()
        self._family.close()


class _Family:
    """What the namespaces of one store share."""

    def __init__(self, file: File, options: StoreOptions, journal_limit: int) -> None:
        self.file: Final = file
        self.options: Final = options
        self.journal_limit: Final = journal_limit
        self.bodies: Final = _directory_of_bodies(file.directory, options.spool_dir)
        self.spool: Final = self._new_spool()
        file.bodies.add(self.bodies)
        self.members: dict[str, LmdbStore] = {}
        self.damaged = 0
        self._closed = False
        self.lock = threading.Lock()
        _families.add(self)

    def _new_spool(self) -> Spool | None:
        """None where there are to be no files, or they could be changed by whoever lacks the signing keys."""
        options = self.options
        if not options.spool_max_bytes or options.signing_keys:
            return None
        return Spool(options.spool_max_bytes, self.bodies, shared=True, synced=boot_id() is None)

    def close(self) -> None:
        """One user of the file less, once."""
        with self.lock:
            closed, self._closed = self._closed, True
        if not closed:
            self.file.release()


_families: Final[weakref.WeakSet[_Family]] = weakref.WeakSet()


def _after_fork() -> None:
    for family in list(_families):
        family.lock = threading.Lock()


in_child(_after_fork)


def _directory_of_bodies(directory: Path, spool_dir: str | None) -> Path:
    """Where bodies are that are too large for the file: in a directory of this file's own."""
    if spool_dir is None:
        return directory / "bodies"
    name = "lmdb-" + blake2b(os.fsencode(directory), digest_size=8).hexdigest()
    return Path(os.path.abspath(os.path.expanduser(spool_dir)), name)


def _filed(name: bytes, stored: Stored) -> Filed | None:
    body = stored.body if isinstance(stored, Entry) else b""
    return Filed(body.size, name, body.name) if isinstance(body, FileBody) else None


def _give_away(stored: Stored) -> None:
    """The record has the file now, not who made it."""
    if isinstance(stored, Entry) and isinstance(stored.body, FileBody) and stored.body.keeper is not None:
        stored.body.keeper.give_away()
        stored.body.keeper = None


_Found = tuple[str, bytes, bytes, bytes, Stored | None]
"""A key, its name, its record, its body, and what is known to be decoded from them."""


def _raw_since(handle: Handle, transaction: Any, space: bytes, mark: Mark | None) -> Any:
    """What `read_since` finds; a damaged journal is none."""
    try:
        return read_since(handle, transaction, space, mark)
    except DecodeError:
        return None


def open_lmdb(url: str, options: StoreOptions) -> LmdbStore:
    """The store for `lmdb:///var/cache/site?max_bytes=4GB`, or `lmdb://path` beside the working directory.

    The file itself is made and opened when it is first needed, in each process.

    Raises:
        ValueError: no path, an unknown option, a bad size, or a path that cannot hold a cache.
    """
    given = url_options(url, {"max_bytes": read_bytes, "journal": read_positive})
    raw = url.partition("://")[2].partition("?")[0]
    path = unquote(raw)
    if not path.strip("/") or "\0" in path:
        raise ValueError(
            f"{url!r}: name a directory: lmdb:///var/cache/site, or lmdb://site for a relative one"
        )
    try:
        check_path(raw)
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
    if "/" in path.rstrip("/") and path[0] not in "/.~":
        raise ValueError(
            f"{url!r} is below the directory that the process starts in; write lmdb:///{raw} if /{path} is "
            f"meant, or lmdb://./{raw}"
        )
    directory = Path(os.path.realpath(os.path.expanduser(path)))
    max_bytes = given.get("max_bytes", options.max_bytes)
    if max_bytes < SMALLEST:
        raise ValueError(f"{url!r}: max_bytes = {max_bytes} is too small; give at least {SMALLEST} (4MiB)")
    if directory.exists() and (problem := trouble_with(directory)):
        raise ValueError(f"{url!r}: {problem}")
    return LmdbStore(shared_file(directory, max_bytes), options, given.get("journal", JOURNAL))
