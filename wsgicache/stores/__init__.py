"""Stores: where entries live. They know keys and entries, nothing of HTTP.

A store is chosen by URL (`memory://`), or handed over as an object that satisfies `Store`. Others register
under the entry-point group `wsgicache.stores`: the name is the URL scheme, the object a callable that
takes the URL and returns a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Final, Protocol, runtime_checkable

from ..entry import Stored
from ..journal import Mark, Purge, Snapshot

ENTRY_POINTS: Final = "wsgicache.stores"


class StoreError(Exception):
    """A store did not do what it was asked. The engine treats it as a miss and records it."""


@runtime_checkable
class Store(Protocol):
    """What the engine needs of a store. `wsgicache.testing.StoreContract` proves that one has it.

    Every method may raise `StoreError`. Methods are called from many threads at once.
    """

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the journal's mark, read no later than the entries."""
        ...

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key; False where it was refused.

        Refused atomically: an entry born before the one it would replace or in another epoch, an
        entry with a lower token than the one it would replace was stored with (a fill that began
        earlier and ends later), and what is larger than the store.

        Args:
            keep_until: instant after which the store may forget it.
            token: order in which fills began; 0 where the order does not matter.
        """
        ...

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very object. True where something went."""
        ...

    def clear(self) -> Mark:
        """Forget everything and begin a new epoch of the journal."""
        ...

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; returns when they are in force."""
        ...

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing."""
        ...

    def namespaced(self, namespace: str) -> Store:
        """The part of the store that belongs to a namespace: its own entries and its own journal.

        "" is the part that the store itself is.
        """
        ...

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`; never used to answer a request."""
        ...

    def stats(self) -> Mapping[str, int]:
        """Numbers for people: at least `entries` and `bytes`."""
        ...

    def close(self) -> None:
        """Let go of what the store holds."""
        ...


Opener = Callable[[str, int], Store]


def open_store(url: str, max_bytes: int) -> Store:
    """The store that a URL names.

    Args:
        max_bytes: size for a store that its URL gives none.

    Raises:
        ValueError: the URL names no known store, or has a bad option; the message says the remedy.
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        raise ValueError(f"{url!r} is no store URL; the default is memory://")
    if scheme == "memory":
        from .memory import open_memory

        return open_memory(url, max_bytes)
    found = entry_points(group=ENTRY_POINTS, name=scheme)
    for entry_point in found:
        opened: Store = entry_point.load()(url)
        return opened
    known = sorted({"memory", *(point.name for point in entry_points(group=ENTRY_POINTS))})
    raise ValueError(
        f"{url!r}: no store is known for {scheme}://; known: {', '.join(known)}. Others come from packages "
        f"that register under the entry-point group {ENTRY_POINTS!r}"
    )
