"""The memory store: one process, bounded by bytes, a dictionary look-up a hit.

A hit reads the dictionary and sets a flag, without the lock; everything that changes the store takes it.
Negative answers (404 and the like) have a small budget of their own, so that a scan for pages that do not
exist cannot push out those that do (`budgets`); within each budget, what is asked for once cannot push out
what is asked for often (`segments`).
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ..entry import Entry, Stored
from ..forks import in_child
from ..journal import Journal, Mark, Purge, Snapshot
from ..options import read_bytes
from . import StoreOptions
from .budgets import Budgets
from .sieve import Slot
from .spool import Spool, spool_stats
from .urls import url_options

_SLOT_BYTES: Final = 300
"""A slot, its place in the dictionary, its numbers."""

_LEASES: Final = 4096
"""Leases and notes of unstorable answers, before those that have ended are cleared away."""

_KEY_BYTES: Final = 64
"""A key that is not the entry's own, beside its text: a variant's."""


class _Pool:
    """What the namespaces of one memory store share: the lock, the budgets, the numbers of leases."""

    def __init__(self, max_bytes: int, spool: Spool | None) -> None:
        self.spool = spool
        self.lock = threading.Lock()
        self.budgets: Final = Budgets(max_bytes, None if spool is None else spool.max_bytes)
        self.tokens = 0
        self.rooms: dict[str, MemoryStore] = {}
        _pools.add(self)

    def after_fork(self) -> None:
        """In a forked child: no thread holds the lock any more; what it was changing cannot be trusted."""
        held = self.lock.locked()
        self.lock = threading.Lock()
        if held:
            for store in list(self.rooms.values()):
                store.clear()
            self.budgets.clear()


class MemoryStore:
    """Entries in this process, shared by its threads.

    Args:
        max_bytes: what all entries together may take, their overhead included.
        journal_limit: targets whose purges are remembered one by one; for others see `wsgicache.dropped`.
        spool_max_bytes: what bodies too large for memory may take in files, beside `max_bytes`; 0: no files.
        spool_dir: where the files are; None: the system's directory for temporary files.

    Raises:
        ValueError: a size too small to hold anything.
    """

    shared: Final = False

    def __init__(
        self,
        max_bytes: int = 64_000_000,
        journal_limit: int = 65536,
        spool_max_bytes: int = 1_000_000_000,
        spool_dir: str | None = None,
    ) -> None:
        if max_bytes < 65536:
            raise ValueError(f"max_bytes = {max_bytes} is too small; give at least 65536 (64KiB)")
        directory = None if spool_dir is None else Path(os.path.abspath(os.path.expanduser(spool_dir)))
        spool = Spool(spool_max_bytes, directory) if spool_max_bytes else None
        self._furnish(_Pool(max_bytes, spool), "", journal_limit)

    def _furnish(self, pool: _Pool, namespace: str, journal_limit: int) -> None:
        self._pool = pool
        self._budgets = pool.budgets
        self.spool = pool.spool
        self._slots: dict[str, Slot] = {}
        self._journal_limit = journal_limit
        self._journal = Journal(journal_limit)
        self._watchers: list[weakref.WeakMethod[Callable[[], None]]] = []
        self._leases: dict[str, tuple[int, float]] = {}
        self._meta: dict[str, str] = {}
        self._counters: dict[str, int] = {}
        self.mark = self._journal.mark
        self.peek: Callable[[str], Slot | None] = self._slots.get
        """The hit path's look-up: no lock, no call into Python."""
        pool.rooms[namespace] = self

    def namespaced(self, namespace: str) -> MemoryStore:
        """The part that belongs to a namespace: entries and journal of its own, within one budget."""
        with self._pool.lock:
            known = self._pool.rooms.get(namespace)
            if known is None:
                known = MemoryStore.__new__(MemoryStore)
                known._furnish(self._pool, namespace, self._journal_limit)
            return known

    def watch(self, moved: Callable[[], None]) -> None:
        """Have a bound method called whenever the journal has moved, before the mover returns."""
        with self._pool.lock:
            self._watchers = [known for known in self._watchers if known() is not None]
            self._watchers.append(weakref.WeakMethod(moved))

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark, read first."""
        mark = self.mark
        found: list[Stored | None] = []
        for key in keys:
            slot = self._slots.get(key)
            if slot is not None:
                slot.visited = True
            found.append(None if slot is None else slot.stored)
        return found, mark

    def mark_of(self, key: str) -> Mark:
        """The journal's mark; there is one journal."""
        return self.mark

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key, evicting what is asked for least; False where it was refused."""
        size = stored.size() + _SLOT_BYTES + 31 & ~31  # few sizes, which many slots share
        if len(key) != len(stored.key):
            size += _KEY_BYTES + len(key)
        if isinstance(stored, Entry) and type(stored.body) is not bytes:
            size += len(stored.body)
        slot = Slot(self._slots, key, stored, size, token)
        with self._pool.lock:
            old = self._slots.get(key)
            if isinstance(stored, Entry) and stored.born.epoch != self.mark.epoch:
                return False
            if old is not None:
                if self._refuses(old, stored, token):
                    return False
                self._drop(old)
            if size > self._budgets.largest(stored):
                return False
            self._slots[key] = slot
            self._budgets.add(slot, old)
            return True

    def _refuses(self, old: Slot, stored: Stored, token: int) -> bool:
        if not isinstance(stored, Entry) or not isinstance(old.stored, Entry):
            return False
        if old.stored.born.epoch != stored.born.epoch:
            return False
        return old.stored.born.seq > stored.born.seq or 0 < token < old.token

    def _drop(self, slot: Slot) -> None:
        del self._slots[slot.key]
        self._budgets.remove(slot)

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very object."""
        with self._pool.lock:
            slot = self._slots.get(key)
            if slot is None or (only is not None and slot.stored is not only):
                return False
            self._drop(slot)
            return True

    def clear(self) -> Mark:
        """Forget everything; everything born before is a miss, also what is still being made."""
        with self._pool.lock:
            self.mark = self._journal.restart()
            for slot in list(self._slots.values()):
                self._drop(slot)
            self._tell()
            return self.mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force when this returns."""
        with self._pool.lock:
            self.mark = self._journal.append(purges, at)
            self._tell()
            return self.mark

    def _tell(self) -> None:
        for watcher in self._watchers:
            moved = watcher()
            if moved is not None:
                moved()

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing."""
        with self._pool.lock:
            return self._journal.since(mark)

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key; see `Store.lease`."""
        now = time.monotonic()
        with self._pool.lock:
            token, until = self._leases.get(key, (0, 0.0))
            if now < until:
                return 0 if token == 0 else None
            if len(self._leases) >= _LEASES:
                self._leases = {name: held for name, held in self._leases.items() if now < held[1]}
            self._pool.tokens += 1
            self._leases[key] = self._pool.tokens, now + seconds
            return self._pool.tokens

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back; see `Store.release`."""
        with self._pool.lock:
            if token == 0 or self._leases.get(key, (0, 0.0))[0] != token:
                return
            if unstorable_for > 0:
                self._leases[key] = 0, time.monotonic() + unstorable_for
            else:
                del self._leases[key]

    def get_meta(self, name: str) -> str | None:
        """A text kept beside the journal."""
        return self._meta.get(name)

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text, or forget it."""
        with self._pool.lock:
            if value is None:
                self._meta.pop(name, None)
            else:
                self._meta[name] = value

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters."""
        with self._pool.lock:
            for name, delta in deltas.items():
                self._counters[name] = self._counters.get(name, 0) + delta

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        with self._pool.lock:
            return dict(self._counters)

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`, as it was when this was called."""
        with self._pool.lock:
            found = [slot.stored for key, slot in self._slots.items() if key.startswith(prefix)]
        return iter(found)

    def stats(self) -> Mapping[str, int]:
        """Entries, bytes, budgets, evictions and the length of the purge history."""
        with self._pool.lock:
            return {
                "entries": len(self._slots),
                "bytes": self._budgets.bytes,
                "max_bytes": self._budgets.max_bytes,
                "negative_bytes": self._budgets.negatives.bytes,
                "evicted": self._budgets.evicted,
                "purges": self.mark.seq,
                **spool_stats(self._budgets.spooled, 0 if self.spool is None else self.spool.max_bytes),
            }

    def close(self) -> None:
        """Let go of the entries."""
        self.clear()


_pools: weakref.WeakSet[_Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool.after_fork()


in_child(_after_fork)


def open_memory(url: str, options: StoreOptions) -> MemoryStore:
    """The store for `memory://` or `memory://?max_bytes=64MB`.

    Raises:
        ValueError: a host, a path or an unknown option in the URL, or a bad size.
    """
    parts = urlsplit(url)
    if parts.netloc or parts.path.strip("/") or parts.fragment:
        raise ValueError(f"{url!r}: memory:// has no host and no path; write memory://?max_bytes=64MB")
    max_bytes = url_options(url, {"max_bytes": read_bytes}).get("max_bytes", options.max_bytes)
    try:
        return MemoryStore(max_bytes, spool_max_bytes=options.spool_max_bytes, spool_dir=options.spool_dir)
    except ValueError as error:
        raise ValueError(f"{url!r}: {error}") from None
