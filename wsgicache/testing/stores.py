"""A store that fails when it is told to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..entry import Stored
from ..journal import Mark, Purge, Snapshot
from ..stores import Store, StoreError
from ..stores.memory import MemoryStore


class FailingStore:
    """A memory store that fails when it is told to: every method named in `failing` raises StoreError."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store or MemoryStore()
        self.failing: set[str] = set()
        self.asked = 0

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if method in self.failing or "*" in self.failing:
            raise StoreError(f"{method} was told to fail")
        return getattr(self._store, method)(*args, **kwargs)

    def namespaced(self, namespace: str) -> FailingStore:
        """See `Store.namespaced`; the part fails when the whole does."""
        part = FailingStore(self._call("namespaced", namespace))
        part.failing = self.failing
        return part if namespace else self

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """See `Store.get`."""
        found: tuple[list[Stored | None], Mark] = self._call("get", keys)
        return found

    def mark_of(self, key: str) -> Mark:
        """See `Store.mark_of`."""
        mark: Mark = self._call("mark_of", key)
        return mark

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """See `Store.set`."""
        return bool(self._call("set", key, stored, keep_until, token))

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """See `Store.delete`."""
        return bool(self._call("delete", key, only))

    def clear(self) -> Mark:
        """See `Store.clear`."""
        mark: Mark = self._call("clear")
        return mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """See `Store.append`."""
        mark: Mark = self._call("append", purges, at)
        return mark

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """See `Store.purges_since`."""
        snapshot: Snapshot = self._call("purges_since", mark)
        return snapshot

    def lease(self, key: str, seconds: float) -> int | None:
        """See `Store.lease`."""
        token: int | None = self._call("lease", key, seconds)
        return token

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """See `Store.release`."""
        self._call("release", key, token, unstorable_for)

    def get_meta(self, name: str) -> str | None:
        """See `Store.get_meta`."""
        text: str | None = self._call("get_meta", name)
        return text

    def set_meta(self, name: str, value: str | None) -> None:
        """See `Store.set_meta`."""
        self._call("set_meta", name, value)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """See `Store.incr_many`."""
        self._call("incr_many", deltas)

    def counters(self) -> Mapping[str, int]:
        """See `Store.counters`."""
        counters: Mapping[str, int] = self._call("counters")
        return counters

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store.scan`."""
        found: Iterator[Stored] = self._call("scan", prefix)
        return found

    def stats(self) -> Mapping[str, int]:
        """See `Store.stats`."""
        stats: Mapping[str, int] = self._call("stats")
        return stats

    def close(self) -> None:
        """See `Store.close`."""
        self._call("close")
