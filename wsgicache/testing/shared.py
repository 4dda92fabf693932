"""A store that several caches share, without a server: what a network store does, one process long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ..codec import DecodeError, Keys, decode, encode, encode_mark
from ..entry import Entry, Stored
from ..journal import Journal, Mark, Purge, Snapshot
from ..stores import StoreError
from ..stores.memo import Memo, MemoSlot


class SharedServer:
    """What the clients of one server share: bytes under keys, the journal, leases, texts and counters.

    Attributes:
        trips: how often somebody asked.
        down: True makes every call raise.
    """

    def __init__(self, journal_limit: int = 65536) -> None:
        self.lock: Final = threading.Lock()
        self.rows: Final[dict[str, tuple[bytes, int]]] = {}
        self.journal: Final = Journal(journal_limit)
        self.leases: Final[dict[str, tuple[int, float]]] = {}
        self.meta: Final[dict[str, str]] = {}
        self.counts: Final[dict[str, int]] = {}
        self.parts: Final[dict[str, SharedServer]] = {"": self}
        self.journal_limit: Final = journal_limit
        self.tokens = 0
        self.trips = 0
        self.down = False

    def part(self, namespace: str) -> SharedServer:
        """What belongs to a namespace."""
        with self.lock:
            return self.parts.setdefault(namespace, SharedServer(self.journal_limit))


class SharedStore:
    """One process's way to a `SharedServer`.

    Args:
        server: what others reach too.
        memo_bytes: what is kept decoded.
        signing_keys: keys that sign entries.
    """

    shared: Final = True

    def __init__(self, server: SharedServer, memo_bytes: int = 16_000_000, signing_keys: Keys = ()) -> None:
        self.server: Final = server
        self._memo: Final = Memo(memo_bytes)
        self._memo_bytes = memo_bytes
        self._keys = signing_keys
        self._known: dict[str, SharedStore] = {"": self}
        self.peek = self._memo.peek

    def namespaced(self, namespace: str) -> SharedStore:
        """See `Store.namespaced`."""
        part = self._known.get(namespace)
        if part is None:
            part = SharedStore(self.server.part(namespace), self._memo_bytes, self._keys)
            self._known[namespace] = part
        return part

    def _ask(self) -> threading.Lock:
        self.server.trips += 1
        if self.server.down:
            raise StoreError("the server was told to be down")
        return self.server.lock

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """See `Store.get`."""
        with self._ask():
            mark = self.server.journal.mark
            rows = [self.server.rows.get(key) for key in keys]
        return [self._decoded(key, row) for key, row in zip(keys, rows, strict=True)], mark

    def _decoded(self, key: str, row: tuple[bytes, int] | None) -> Stored | None:
        if row is None:
            self._memo.forget(key)
            return None
        known = self._memo.recall(key, row[0])
        if known is not None:
            return known
        try:
            stored = decode(row[0], self._keys)
        except DecodeError:
            self.delete(key)
            return None
        self._memo.keep(key, key, row[0], stored)
        return stored

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """The mark as it is stored, or None where what is stored is not what the slot holds."""
        with self._ask():
            mark = encode_mark(self.server.journal.mark)
            row = self.server.rows.get(slot.key)
        if row is not None and row[0] == slot.raw:
            return mark
        self._memo.forget(slot.key)
        return None

    def mark_of(self, key: str) -> Mark:
        """See `Store.mark_of`."""
        with self._ask():
            return self.server.journal.mark

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """See `Store.set`."""
        data = encode(stored, self._keys)
        with self._ask():
            row = self.server.rows.get(key)
            if isinstance(stored, Entry) and not self._takes(stored, row, token):
                return False
            self.server.rows[key] = data, token
            return True

    def _takes(self, entry: Entry, row: tuple[bytes, int] | None, token: int) -> bool:
        epoch = self.server.journal.mark.epoch
        if entry.born.epoch != epoch:
            return False
        old = None if row is None else decode(row[0])
        if not isinstance(old, Entry) or old.born.epoch != epoch or row is None:
            return True
        return old.born.seq <= entry.born.seq and not 0 < token < row[1]

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """See `Store.delete`."""
        with self._ask():
            row = self.server.rows.get(key)
            if row is None or (only is not None and row[0] != encode(only, self._keys)):
                return False
            del self.server.rows[key]
            return True

    def clear(self) -> Mark:
        """See `Store.clear`."""
        with self._ask():
            self.server.rows.clear()
            return self.server.journal.restart()

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """See `Store.append`."""
        with self._ask():
            return self.server.journal.append(purges, at)

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """See `Store.purges_since`."""
        with self._ask():
            return self.server.journal.since(mark)

    def lease(self, key: str, seconds: float) -> int | None:
        """See `Store.lease`."""
        with self._ask():
            token, until = self.server.leases.get(key, (0, 0.0))
            if time.monotonic() < until:
                return None if token else 0
            self.server.tokens += 1
            self.server.leases[key] = self.server.tokens, time.monotonic() + seconds
            return self.server.tokens

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """See `Store.release`."""
        with self._ask():
            if self.server.leases.get(key, (0, 0.0))[0] == token:
                self.server.leases[key] = 0, time.monotonic() + unstorable_for

    def get_meta(self, name: str) -> str | None:
        """See `Store.get_meta`."""
        with self._ask():
            return self.server.meta.get(name)

    def set_meta(self, name: str, value: str | None) -> None:
        """See `Store.set_meta`."""
        with self._ask():
            self.server.meta.pop(name, None)
            if value is not None:
                self.server.meta[name] = value

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """See `Store.incr_many`."""
        with self._ask():
            for name, delta in deltas.items():
                self.server.counts[name] = self.server.counts.get(name, 0) + delta

    def counters(self) -> Mapping[str, int]:
        """See `Store.counters`."""
        with self._ask():
            return dict(self.server.counts)

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store.scan`."""
        with self._ask():
            rows = [row[0] for key, row in self.server.rows.items() if key.startswith(prefix)]
        return iter([decode(data, self._keys) for data in rows])

    def stats(self) -> Mapping[str, int]:
        """See `Store.stats`."""
        with self._ask():
            rows = self.server.rows.values()
            return {"entries": len(rows), "bytes": sum([len(row[0]) for row in rows])}

    def close(self) -> None:
        """See `Store.close`."""
        self._memo.clear()
