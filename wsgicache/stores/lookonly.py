"""A store that is only looked at: what a decision is explained with, so that nothing is changed by it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from ..entry import Stored
from ..journal import Mark, Purge, Snapshot
from . import Store, StoreError


class LookOnly:
    """A store of which nothing is changed. What an engine would write in passing is left out; a purge raises.

    Open the store with `StoreOptions(mend=False)`, so that it keeps what it cannot read, too.

    Args:
        store: what is looked at.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.shared: Final = bool(getattr(store, "shared", False))
        if hasattr(store, "parts"):
            self.parts: Sequence[Store] = tuple([LookOnly(part) for part in store.parts])
            self.part_of = store.part_of  # type: ignore[attr-defined]
            self.part_of_path = getattr(store, "part_of_path", None)

    def namespaced(self, namespace: str) -> LookOnly:
        """The part that belongs to a namespace, only looked at too."""
        return LookOnly(self._store.namespaced(namespace))

    # --- looking -----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """See `Store.get`."""
        return self._store.get(keys)

    def mark_of(self, key: str) -> Mark:
        """See `Store.mark_of`."""
        return self._store.mark_of(key)

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """See `Store.purges_since`."""
        return self._store.purges_since(mark)

    def get_meta(self, name: str) -> str | None:
        """See `Store.get_meta`."""
        return self._store.get_meta(name)

    def counters(self) -> Mapping[str, int]:
        """See `Store.counters`."""
        return self._store.counters()

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store.scan`."""
        return self._store.scan(prefix)

    def stats(self) -> Mapping[str, int]:
        """See `Store.stats`."""
        return self._store.stats()

    def close(self) -> None:
        """Let go of the store."""
        self._store.close()

    # --- what is not done --------------------------------------------------------------------------

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Refused."""
        return False

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Refused."""
        return False

    def clear(self) -> Mark:
        """Nothing is purged here.

        Raises:
            StoreError: always.
        """
        raise StoreError("this store is only looked at; purge through a Client or the cache itself")

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Nothing is purged here.

        Raises:
            StoreError: always.
        """
        return self.clear()

    def lease(self, key: str, seconds: float) -> int | None:
        """Nobody asks the app for a page from here."""
        return None

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """There is no lease to give back."""

    def set_meta(self, name: str, value: str | None) -> None:
        """Left out."""

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Left out: who looks is no visitor."""
