"""Any cachelib cache as a store.

cachelib can get, set, add and delete, and compares nothing. So the promises are fewer than other stores
make, and this file obeys these rules:

- Values are bytes. The cache that is handed over is copied, and the copy gets a serializer that passes bytes
  through: nothing that is read is ever unpickled, and the caller's own object stays as it was.
- There is no list of purges. Each purge, soft ones and switches of rules too, writes a new epoch: everything
  older is a miss. The epoch is read with the entry, so a purge wins over every fill that began before it.
- Of two fills of one page at one time in different processes either may stay; in one process the later does.
- Everything has an end: a timeout of 0 would mean none.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import cachelib

from ..codec import DecodeError, Keys, decode_mark, encode, encode_mark
from ..entry import Stored
from ..forks import in_child
from ..journal import Mark, Purge, Snapshot, new_id
from . import StoreError, StoreOptions
from .breaker import Breaker
from .cachelibbytes import adapted, is_atomic
from .cacheliburl import open_cache
from .memo import Memo, MemoSlot
from .values import (
    HELD,
    UNSTORABLE,
    Names,
    is_same,
    lease_value,
    line_for,
    read_lease,
    read_line,
    read_stored,
    read_text,
    refuses,
    write_text,
)

log: Final = logging.getLogger("wsgicache")

_LONGEST: Final = 365 * 24 * 3600
"""Seconds that anything is kept; the mark is written anew by every purge."""

_STRIPES: Final = 64
_COUNTERS: Final = 1024
"""Names of counters; more are not counted."""


class CachelibStore:
    """Entries in a cachelib cache.

    Args:
        cache: any object of a class of cachelib, or of one of your own whose values go through its
            `serializer`. MemcachedCache is refused; there is `memcached://`.
        memo_bytes: what this process may keep decoded.
        signing_keys: keys that sign entries; the first signs, each of them verifies.

    Raises:
        ValueError: a cache whose values cannot be kept from being unpickled.
    """

    shared: Final = True

    def __init__(self, cache: Any, memo_bytes: int = 16_000_000, signing_keys: Keys = ()) -> None:
        self._cache: Final = adapted(cache)
        self._atomic: Final = is_atomic(cache)
        self._rooms: Final[dict[str, CachelibStore]] = {"": self}
        self.mend = True
        """Whether values that are no entries are deleted."""
        self._breaker = Breaker(f"cachelib:{type(cache).__name__}", (Exception,))
        self._furnish("", memo_bytes, signing_keys)
        _stores.add(self)
        if isinstance(cache, cachelib.SimpleCache):
            log.warning(
                "cachelib:SimpleCache is one process's: a purge reaches one worker; memory:// is faster"
            )

    def _furnish(self, namespace: str, memo_bytes: int, signing_keys: Keys) -> None:
        self._memo_bytes = memo_bytes
        self._keys = signing_keys
        self._names = Names(namespace)
        self._memo = Memo(memo_bytes)
        self.peek = self._memo.peek
        """What this process has decoded of a key; to be confirmed before it is served."""
        self._damaged = 0
        self._last_token = 0
        self._make_locks()

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    def namespaced(self, namespace: str) -> CachelibStore:
        """The part that belongs to a namespace: entries and epochs of its own in the same cache."""
        with self._rooms[""]._lock:
            known = self._rooms.get(namespace)
            if known is None:
                known = copy.copy(self)
                known._furnish(namespace, self._memo_bytes, self._keys)
                self._rooms[namespace] = known
                _stores.add(known)
            return known

    def _ask(self, method: str, *args: Any, insist: bool = False) -> Any:
        """Have the cache do something; whatever it raises is a fault of it."""
        breaker = self._breaker
        probe = breaker.is_open and not insist
        if probe:
            breaker.enter()
        try:
            answer = getattr(self._cache, method)(*args)
        except Exception as error:
            breaker.fail(error, probe=probe)
            raise self._fault(method, error) from error
        if breaker.is_open:
            breaker.succeed()
        return answer

    def _fault(self, method: str, error: Exception) -> StoreError:
        return StoreError(f"{self._breaker.name}: {method}: {error or type(error).__name__}")

    # --- the mark ----------------------------------------------------------------------------------

    def _read_mark(self, raw: object) -> Mark:
        """The mark that was found; where there is none, that of a new epoch."""
        mark = _mark(raw)
        if mark is not None:
            return mark
        with self._lock:
            for _ in range(3):
                mark = _mark(self._ask("get", self._names.mark))
                if mark is not None:
                    return mark
                new = encode_mark(Mark(new_id(), 0, new_id()))
                if self._ask("add", self._names.mark, new, _LONGEST):
                    continue
                if _mark(self._ask("get", self._names.mark)) is None:  # junk, or over, and in the way
                    self._ask("delete", self._names.mark)
        raise StoreError(f"{self._breaker.name} keeps no mark")

    def mark_of(self, key: str) -> Mark:
        """The epoch, as a mark."""
        return self._read_mark(self._ask("get", self._names.mark))

    def _restart(self) -> Mark:
        mark = Mark(new_id(), 0, new_id())
        if not self._ask("set", self._names.mark, encode_mark(mark), _LONGEST, insist=True):
            raise StoreError(f"{self._breaker.name} did not take the mark")
        return mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Begin a new epoch, whatever was purged: everything older is a miss when this returns."""
        return self._restart() if list(purges) else self.mark_of("")

    def clear(self) -> Mark:
        """Begin a new epoch; what is stored goes when its time has come, or room is needed."""
        mark = self._restart()
        self._memo.clear()
        return mark

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """Nothing, or that the history is another."""
        current = self.mark_of("")
        return Snapshot(current, 0, [], whole=mark != current)

    # --- entries -----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark, with one call of `get_many`."""
        names = [self._names.of("e", key) for key in keys]
        raw_mark, *found = self._ask("get_many", self._names.mark, *names)
        mark = self._read_mark(raw_mark)
        triples = zip(keys, names, found, strict=True)
        return [self._read(key, name, raw, mark) for key, name, raw in triples], mark

    def _read(self, key: str, name: str, raw: object, mark: Mark) -> Stored | None:
        if not isinstance(raw, bytes):
            self._memo.forget(key)
            return None
        line = read_line(raw)
        if line is not None and line.epoch != mark.epoch.encode("ascii"):
            return None  # purged; the next fill takes its place
        stored = self._memo.recall(key, raw)
        if stored is not None:
            return stored
        stored = read_stored(key, raw, self._keys)
        if stored is None:
            self._damaged += 1
            self._memo.forget(key)
            if self.mend:
                self._ask("delete", name)
            return None
        self._memo.keep(key, name, raw, stored)
        return stored

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """The mark as it is stored, if what is stored is still what the slot holds; else None."""
        mark, raw = self._ask("get_many", self._names.mark, slot.name)
        if raw == slot.raw and isinstance(mark, bytes):
            return mark
        self._memo.forget(slot.key)
        return None

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key; False where it was refused.

        What came earlier is refused among the threads of one process only. What the cache does not take
        leaves nothing older in its place.
        """
        name = self._names.of("e", key)
        data = encode(stored, self._keys)
        with self._stripe(name):
            raw_mark, old = self._ask("get_many", self._names.mark, name)
            mark = self._read_mark(raw_mark)
            line = line_for(stored, mark.epoch, token)
            if refuses(old if isinstance(old, bytes) else None, line, mark.epoch):
                return False
            return self._put(name, line + data, math.ceil(keep_until - time.time()))

    def _put(self, name: str, value: bytes, seconds: int) -> bool:
        try:
            if self._cache.set(name, value, max(1, min(_LONGEST, seconds))):
                return True
        except Exception as error:  # it may be too large, or the cache may be gone: deleting finds out
            self._ask("delete", name)
            raise self._fault("set", error) from error
        self._ask("delete", name)
        return False

    def _stripe(self, name: str) -> threading.Lock:
        return self._stripes[hash(name) % _STRIPES]

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very entry."""
        name = self._names.of("e", key)
        with self._stripe(name):
            self._memo.forget(key)
            raw = self._ask("get", name)
            if not isinstance(raw, bytes):
                return False
            if only is not None:
                stored = read_stored(key, raw, self._keys)
                if stored is None or not is_same(stored, only):
                    return False
            self._ask("delete", name)
            return True

    # --- leases, meta, counters --------------------------------------------------------------------

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key; see `Store.lease`.

        Where the cache's `add` is not one step (FileSystemCache, MongoDbCache), two processes that ask at
        the same moment may both get it: then the app is asked twice.
        """
        name = self._names.of("l", key)
        with self._stripe(name):
            raw = self._ask("get", name)
            kind, last, until = read_lease(raw)
            if time.time() < until:
                return 0 if kind == UNSTORABLE else None
            token = self._token(last)
            value, kept = lease_value(HELD, token, seconds)
            if raw is not None:
                self._ask("delete", name)
            if not self._ask("add", name, value, min(_LONGEST, kept)):
                if self._ask("get", name) is not None:
                    return None
                self._ask("delete", name)  # a file whose time is over is still in the way
                if not self._ask("add", name, value, min(_LONGEST, kept)):
                    return None
            if not self._atomic and self._ask("get", name) != value:
                return None
            return token

    def _token(self, above: int) -> int:
        """The clock, in nanoseconds, and more than any before that is known of."""
        with self._lock:
            self._last_token = max(time.time_ns(), above + 1, self._last_token + 1)
            return self._last_token

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back; see `Store.release`."""
        name = self._names.of("l", key)
        with self._stripe(name):
            kind, held, _ = read_lease(self._ask("get", name))
            if kind != HELD or held != token:
                return
            if unstorable_for > 0:
                value, kept = lease_value(UNSTORABLE, token, unstorable_for)
                self._ask("set", name, value, min(_LONGEST, kept))
            else:
                self._ask("delete", name)

    def get_meta(self, name: str) -> str | None:
        """A text, for as long as the cache keeps it, a year at most."""
        raw = self._ask("get", self._names.of("x", name))
        return read_text(raw)

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text, or forget it."""
        wire = self._names.of("x", name)
        if value is None:
            self._ask("delete", wire)
        elif not self._ask("set", wire, write_text(value), _LONGEST):
            raise StoreError(f"{self._breaker.name} did not take {name!r}")

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters; what two processes add at the same moment may be counted once."""
        if not deltas:
            return
        with self._lock:
            counts = self._counts()
            for name, delta in deltas.items():
                if name in counts or len(counts) < _COUNTERS:
                    counts[name] = counts.get(name, 0) + delta
            self._ask("set", self._names.prefix + "c", json.dumps(counts).encode("ascii"), _LONGEST)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        return self._counts()

    def _counts(self) -> dict[str, int]:
        raw = self._ask("get", self._names.prefix + "c")
        try:
            counts = json.loads(raw) if isinstance(raw, bytes) else {}
        except (ValueError, RecursionError):
            return {}
        items = counts.items() if isinstance(counts, dict) else ()
        return {name: count for name, count in items if type(count) is int}

    # --- what people ask ---------------------------------------------------------------------------

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """cachelib cannot list what it holds.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("cachelib cannot list what a cache holds")

    def stats(self) -> Mapping[str, int]:
        """What this process knows; the cache itself tells nothing."""
        return {"damaged": self._damaged, "memo_entries": len(self._memo), "memo_bytes": self._memo.bytes}

    def close(self) -> None:
        """Forget what was decoded. The cache is its owner's; connections are left to it."""
        for room in list(self._rooms.values()):
            room._memo.clear()

    def _after_fork(self) -> None:
        self._make_locks()
        if isinstance(self._cache, cachelib.SimpleCache):
            self._cache._lock = threading.RLock()


def _mark(raw: object) -> Mark | None:
    try:
        return decode_mark(raw) if isinstance(raw, bytes) else None
    except DecodeError:
        return None


_stores: Final[weakref.WeakSet[CachelibStore]] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_stores):
        store._after_fork()


in_child(_after_fork)


def open_cachelib(url: str, options: StoreOptions) -> CachelibStore:
    """The store for `cachelib:FileSystemCache?cache_dir=/var/cache/site&threshold=5000`, and the like.

    The name is a class of cachelib, or the dotted path of another; what follows are arguments of it.

    Raises:
        ValueError: no such class, an argument that it does not take or cannot read, or a class whose values
            cannot be kept from being unpickled.
    """
    cache, name = open_cache(url)
    try:
        store = CachelibStore(cache, options.memo_bytes, options.signing_keys)
    except ValueError as error:
        raise ValueError(f"'cachelib:{name}': {error}") from None
    store.mend = options.mend
    return store
