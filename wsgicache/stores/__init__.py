"""Stores: where entries live. They know keys and entries, nothing of HTTP.

A store is chosen by URL (`memory://`), or handed over as an object that satisfies `Store`. Others register
under the entry-point group `wsgicache.stores`: the name is the URL scheme, the object a callable that
takes the URL and a `StoreOptions` and returns a store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final, Protocol, TypeVar, runtime_checkable

from ..entry import Stored
from ..journal import Mark, Purge, Snapshot

ENTRY_POINTS: Final = "wsgicache.stores"

MOST_COUNTERS: Final = 4096
"""Names of counters that a shared store need keep: workers that come and go may bring others for ever."""


class StoreError(Exception):
    """A store did not do what it was asked. The engine treats it as a miss and records it."""


T = TypeVar("T")

Answers = dict[int, T | Exception]
"""What each of several parts of a store answered, by its number, or what it failed with."""


def tried(job: Callable[[], T]) -> T | Exception:
    """What a job returns or raises."""
    try:
        return job()
    except Exception as error:
        return error


class AtOnce(Protocol):
    """Several parts of a store asked at the same time: what `Store` has methods for, by the parts' numbers.

    None keeps another from being asked: each has an answer of its own, or an error.
    """

    def append(self, purges: Mapping[int, Sequence[Purge]], at: float) -> Answers[Mark]:
        """Write purges to journals. A message that names no part is sent when all have answered."""
        ...

    def clear(self) -> Answers[Mark]:
        """Forget everything in all parts."""
        ...

    def marks(self, parts: Iterable[int]) -> Answers[Mark]:
        """The marks of parts."""
        ...

    def purges_since(self, marks: Mapping[int, Mark | None]) -> Answers[Snapshot]:
        """What followers of the journals of parts are missing."""
        ...


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """What the options of a cache say of its store; what the store's URL says wins.

    Attributes:
        max_bytes: size for a store that is bounded by its own count.
        timeout: seconds that one call may take, connecting included (network stores).
        memo_bytes: what a process may keep decoded of a store that others share.
        signing_keys: keys that sign entries; the first signs, each of them verifies.
        spool_max_bytes: what the bodies that are kept in files may take (stores that keep files); 0: none is.
        spool_dir: where those files are; None: where the store says.
        mend: delete what is read and cannot be understood; False for whoever only looks.
    """

    max_bytes: int = 64_000_000
    timeout: float = 0.05
    memo_bytes: int = 16_000_000
    signing_keys: tuple[bytes, ...] = ()
    mend: bool = True
    spool_max_bytes: int = 1_000_000_000
    spool_dir: str | None = None


@runtime_checkable
class Store(Protocol):
    """What the engine needs of a store. `wsgicache.testing.StoreContract` proves that one has it.

    Every method may raise `StoreError`. Methods are called from many threads at once, and from processes
    that were forked after the store was made.

    A store may have more, which the engine looks for by name:

    - `shared` (bool): other processes see the same entries. Without it, False.
    - `peek(key) -> Slot | None`: what this process holds of a key, without asking anybody and without a lock;
      the hit path serves from there (`wsgicache.stores.sieve.Slot`).
    - `confirm(slot) -> bytes | None`: for a store that others share. One round trip: the mark as it is
      stored (`wsgicache.codec.encode_mark`), or None where what is stored is no longer what the slot holds.
    - `trust`: an object whose `until` is the monotonic instant up to which slots may be served unconfirmed.
    - `watch(moved)`: have a bound method called whenever the journal has moved.
    - `parts` (stores) and `part_of(key) -> int`: a store that has several journals is several stores.
    - `part_of_path(path) -> int`: the part that every key with this path belongs to (`wsgicache.key.Parts`),
      for a store where that is so: a purge of a URL is then written to its journal alone.
    - `at_once`: an `AtOnce`, for a store with parts that can ask several of them in the time of one.
    - `followed() -> Snapshot | None`: for a store that follows the journal itself: all that it knows, which
      reaches every mark that it gave; None where it does not know it yet.
    - `settle(timeout) -> bool`: return when every process that holds copies has followed the journal to here.
    - `spool`: a `wsgicache.stores.spool.Spool` that bodies too large for memory are written to; None where
      there are no files. An entry that `set` accepts may then have a `FileBody`, whose file stays as long as
      the store holds the entry, and no longer.
    - A slot may have an `until` of its own: the monotonic instant at which it is too old to be served.

    A store that a near tier (`wsgicache.stores.near`) stands in front of may have these, so that purges reach
    it sooner than by its reading the mark; all four, or the last three are not used:

    - `listen(poke, stop)`: wait for messages, in the caller's thread, until the event `stop` is set; call
      `poke(text)` for each, and `poke("")` after each connecting. `append` sends one to all who listen;
      `purge N` says that only the part of this number has moved.
    - `publish(text) -> int`: send a message to all who listen.
    - `attend(who, seconds)`: stand in a register of those who hold copies, for so long; 0 leaves it.
    - `attending() -> Sequence[str]`: who stands in it; nobody, where that cannot be known for certain.
    """

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the journal's mark, read no later than the entries."""
        ...

    def mark_of(self, key: str) -> Mark:
        """The mark of the journal that a key belongs to, without what is stored there."""
        ...

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key; False where it was refused.

        Refused atomically: an entry born before the one it would replace or in another epoch, an
        entry with a lower token than the one it would replace was stored with (a fill that began
        earlier and ends later), and what is larger than the store. What is refused for its size alone must
        not leave an older entry in its place.

        Args:
            keep_until: instant after which the store may forget it.
            token: order in which fills began; 0 where the order does not matter.
        """
        ...

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very entry. True where something went."""
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

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key, for as long as this lasts at most.

        Returns the token to store with, higher than that of every earlier lease of the key; None where
        somebody else holds the lease; 0 where the last answer was not storable, so that nobody need wait.
        """
        ...

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back, if it is still this token's.

        Args:
            unstorable_for: seconds for which `lease` then says 0, because the answer was not storable.
        """
        ...

    def get_meta(self, name: str) -> str | None:
        """A text that is kept beside the journal, such as the switches of the rules."""
        ...

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text beside the journal, or forget it; `clear` leaves it."""
        ...

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters that all processes share; one call, however many.

        Names beyond `MOST_COUNTERS`, or an earlier limit of the store's own, are not counted.
        """
        ...

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        ...

    def namespaced(self, namespace: str) -> Store:
        """The part of the store that belongs to a namespace: its own entries and its own journal.

        "" is the part that the store itself is.
        """
        ...

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`; never used to answer a request.

        Raises:
            NotImplementedError: the store cannot list what it holds.
        """
        ...

    def stats(self) -> Mapping[str, int]:
        """Numbers for people: at least `entries` and `bytes`, where the store can tell."""
        ...

    def close(self) -> None:
        """Let go of what this process holds of the store; what others share stays."""
        ...


Opener = Callable[[str, StoreOptions], Store]

_OURS: Final = {
    "memory": (".memory", "open_memory", ""),
    "lmdb": (".lmdb", "open_lmdb", "lmdb"),
    "redis": (".redis", "open_redis", "redis"),
    "rediss": (".redis", "open_redis", "redis"),
    "unix": (".redis", "open_redis", "redis"),
    "redis+sentinel": (".redissentinel", "open_sentinel", "redis"),
    "rediss+sentinel": (".redissentinel", "open_sentinel", "redis"),
    "redis+cluster": (".rediscluster", "open_cluster", "redis"),
    "rediss+cluster": (".rediscluster", "open_cluster", "redis"),
    "memcached": (".memcached", "open_memcached", "memcached"),
    "cachelib": (".cachelib", "open_cachelib", "cachelib"),
}
"""The module that each scheme is opened by, the function, and the extra that brings what it needs."""

_BARE: Final = ("memory", "cachelib")
"""Schemes that nothing has to follow that has slashes before it."""


def open_store(url: str, options: StoreOptions | None = None) -> Store:
    """The store that a URL names.

    Raises:
        ValueError: the URL names no known store, has a bad option, or needs a package that is not installed;
            the message says the remedy.
    """
    scheme, separator, _ = url.partition(":")
    if not separator:
        meant = f"; for a directory write lmdb://{url}" if url.startswith("/") else ""
        raise ValueError(
            f"{shown(url)!r} is no store URL; the default is memory://, others are like "
            f"lmdb:///var/cache/site and redis://localhost/0{meant}"
        )
    if url != url.strip():
        raise ValueError(f"{shown(url)!r} has blanks around it; leave them out")
    options = StoreOptions() if options is None else options
    if scheme in _OURS:
        _check_slashes(url, scheme)
        return _opener(url, *_OURS[scheme])(url, options)
    for entry_point in entry_points(group=ENTRY_POINTS, name=scheme):
        opened: Store = entry_point.load()(url, options)
        return opened
    known = sorted({*_OURS, *(point.name for point in entry_points(group=ENTRY_POINTS))})
    close = get_close_matches(scheme, known, n=1)
    meant = f"; did you mean {close[0]}://?" if close else ""
    raise ValueError(
        f"{shown(url)!r}: no store is known for {scheme}://{meant}; known: {', '.join(known)}. Others come "
        f"from packages that register under the entry-point group {ENTRY_POINTS!r}"
    )


def _check_slashes(url: str, scheme: str) -> None:
    """Without two slashes nothing says what is a host and what a path, so it is not guessed."""
    if scheme in _BARE or url.startswith(f"{scheme}://"):
        return
    rest = url.partition(":")[2]
    names_a_path = scheme == "unix" or (scheme == "lmdb" and rest.startswith("/"))
    place = ("/" if names_a_path else "") + (rest.lstrip("/") or "…")
    raise ValueError(f"{shown(url)!r}: two slashes follow {scheme}: write {shown(f'{scheme}://{place}')}")


def _opener(url: str, module: str, function: str, extra: str) -> Opener:
    try:
        opener: Opener = getattr(import_module(module, __name__), function)
    except ImportError as error:
        raise ValueError(
            f"{shown(url)!r} needs the package {error.name!r}, which is not installed: "
            f"pip install 'wsgicache[{extra}]'"
        ) from None
    return opener


def shown(url: str) -> str:
    """A URL as it may be shown: without the passwords in it."""
    url = _PASSWORD.sub(r"\1***", url)
    before, at, after = url.rpartition("@")
    if not at:
        return url
    start, slashes, credentials = before.partition("://") if "://" in before else ("", "", before)
    user, colon, _ = credentials.partition(":")
    return f"{start}{slashes}{user}{colon}{'***' if colon else ''}@{after}"


_PASSWORD: Final = re.compile(r"([?&][a-z_]*password=)[^&]*")
