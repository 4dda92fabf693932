"""The near tier: copies in each process's memory in front of a store that others share.

    store = near_store(open_store("redis://localhost/0"), max_bytes=64_000_000)

The rules this file obeys:

- A copy is used only while its part is trusted: up to the instant at which the journal's mark was last asked
  for, plus the bound. So a purge that has returned is followed by every process within the bound, whatever
  becomes of messages, connections and threads; usually a message tells of it within a millisecond.
- Publish what the journal brought first, then the mark, then tell the engines, then trust. Read in the other
  order: trust, then the mark, then the copies.
- A mark that this store gives has been followed here: whoever then asks for the purges up to it gets them.
- One answer comes from one place: if one key of a look-up has no usable copy, the store is asked for all.
- A copy that the journal covers, that is not fresh, or that is older than `max_age` is no copy: the store may
  have a newer one.
- What is written goes to the store first. If that fails, nobody knows what is there: no copy is left.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from ..entry import Entry, Stored
from ..forks import in_child
from ..journal import Mark, Purge, PurgeIndex, Snapshot, Verdict
from ..ready import Trust
from . import Answers, AtOnce, Store, tried
from .abreast import follow
from .copies import Copies, CopyPool, NearSlot
from .heartbeat import Heartbeat
from .rollcall import settle
from .steps import Steps

_NEVER: Final = float("-inf")


@dataclass(frozen=True, eq=False)
class Terms:
    """What all parts and namespaces of one near tier have in common.

    Attributes:
        pool: the budget of the copies.
        bound: seconds for which copies may be trusted after a mark was asked for.
        max_age: seconds after which the store is asked whether it has a newer one.
        clock: wall-clock seconds, by which entries are fresh.
        steady: monotonic seconds.
        heart: what makes the heartbeat of a store.
        rooms: the namespaces that are in use.
    """

    pool: CopyPool
    bound: float
    max_age: float
    clock: Callable[[], float]
    steady: Callable[[], float]
    heart: Callable[[Store, float, Callable[[], float]], Heartbeat]
    rooms: weakref.WeakValueDictionary[str, NearStore | NearParts]


class _Front:
    """What stands in front of a store passes on as it is: of this there are no copies."""

    shared: Final = True

    def __init__(self, remote: Store, terms: Terms, heartbeat: Heartbeat, copies: Copies) -> None:
        self.remote: Final = remote
        self.spool: Final = getattr(remote, "spool", None)
        self.peek: Final = copies.peek
        self._terms = terms
        self._heartbeat = heartbeat
        self._copies = copies

    def lease(self, key: str, seconds: float) -> int | None:
        """See `Store.lease`."""
        return self.remote.lease(key, seconds)

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """See `Store.release`."""
        self.remote.release(key, token, unstorable_for)

    def get_meta(self, name: str) -> str | None:
        """See `Store.get_meta`."""
        return self.remote.get_meta(name)

    def set_meta(self, name: str, value: str | None) -> None:
        """See `Store.set_meta`."""
        self.remote.set_meta(name, value)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """See `Store.incr_many`."""
        self.remote.incr_many(deltas)

    def counters(self) -> Mapping[str, int]:
        """See `Store.counters`."""
        return self.remote.counters()

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store.scan`."""
        return self.remote.scan(prefix)

    def stats(self) -> Mapping[str, int]:
        """What the store tells, and the copies of this process."""
        return {**self.remote.stats(), **_near_stats(self._copies, self._terms, self._heartbeat)}

    def namespaced(self, namespace: str) -> NearStore | NearParts:
        """The part that belongs to a namespace: copies of its own, within one budget."""
        if not namespace:
            return self._whole()
        inner = self.remote.namespaced(namespace)
        with self._terms.pool.lock:
            known = self._terms.rooms.get(namespace)
            return _furnish(inner, self._terms, namespace) if known is None else known

    def _whole(self) -> NearStore | NearParts:
        assert isinstance(self, NearStore | NearParts)  # noqa: S101 - there are no others
        return self

    def close(self) -> None:
        """Let go of the copies and of the store."""
        self._heartbeat.stop()
        self._copies.flush()
        self.remote.close()


class NearStore(_Front):
    """A store with one journal, and copies of what is in it. Made by `near_store`.

    Attributes:
        remote: the store itself, for whoever must not see a copy: to change what is there, for instance.
        peek: the copy of a key, with the instant at which it is too old; the hit path's look-up.
        trust: up to when copies may be used.
    """

    def __init__(self, remote: Store, terms: Terms, heartbeat: Heartbeat, copies: Copies) -> None:
        super().__init__(remote, terms, heartbeat, copies)
        self.trust: Final = Trust(_NEVER)
        self._clock, self._steady = terms.clock, terms.steady
        self._mark: Mark | None = None
        self._stand: Snapshot | None = None
        """What there is to be told where nothing came since."""
        self._index = PurgeIndex()
        self._steps = Steps()
        self._watchers: tuple[weakref.WeakMethod[Callable[[], None]], ...] = ()
        self._new_lock()
        heartbeat.add(self)
        _stores.add(self)

    def _new_lock(self) -> None:
        self._lock = threading.Lock()
        self._distrust_before = _NEVER
        """A mark that was not asked for later proves nothing."""

    # --- reading -----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key: the copies, if all are there and trusted, else the store's."""
        if not self._heartbeat.started:
            self._heartbeat.start()
        copies = self._copies
        now = self._steady()
        if now < self.trust.until:
            mark = self._mark  # after the trust, before the copies
            found = self._held(keys, now)
            if mark is not None and found is not None:
                return found, mark
        written = [copies.written(key) for key in keys]
        stored, mark = self.remote.get(keys)
        self.follow_to(mark, now)
        wall = self._clock()
        for key, answer, before in zip(keys, stored, written, strict=True):
            known = answer is not None and self._is_usable(answer, wall)
            if known or key in copies.slots:
                copies.keep(key, answer if known else None, now + self._terms.max_age, before)
        return stored, mark

    def _held(self, keys: Sequence[str], now: float) -> list[Stored | None] | None:
        """The copies of all keys; None where one has none that may be used."""
        found: list[Stored | None] = []
        for key in keys:
            slot = self.peek(key)
            if not isinstance(slot, NearSlot) or now >= slot.until:
                return None
            if not self._is_usable(slot.stored, self._clock()):
                return None
            slot.visited = True
            found.append(slot.stored)
        return found

    def _is_usable(self, stored: Stored, wall: float) -> bool:
        """Whether a copy can be the best there is: fresh and not purged."""
        if not isinstance(stored, Entry):
            return wall < stored.keep_until
        if wall >= stored.fresh_until or stored.terms.always_validate:
            return False
        try:
            return self._index.verdict(stored.born, stored.key, stored.terms.groups) is Verdict.VALID
        except IndexError:
            return False  # not the key of a page: nobody can tell which purges cover it

    def mark_of(self, key: str) -> Mark:
        """The journal's mark, as it was followed here while that is trusted."""
        if not self._heartbeat.started:
            self._heartbeat.start()
        now = self._steady()
        if now < self.trust.until and (mark := self._mark) is not None:
            return mark
        mark = self.remote.mark_of(key)
        self.follow_to(mark, now)
        return mark

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing: what came here since, if it is
        known, else what the store says."""
        known = self.came_since(mark)
        return self._since(mark, None) if known is None else known

    def came_since(self, mark: Mark | None) -> Snapshot | None:
        """What came here since a mark; None where that is not known, or nothing did."""
        return self._steps.since(mark)

    def told_since(self, mark: Mark | None, snapshot: Snapshot) -> Snapshot:
        """What a follower that stands at `mark` is missing, of which the store has just told this."""
        return self._since(mark, snapshot)

    def _since(self, mark: Mark | None, told: Snapshot | None) -> Snapshot:
        known = None
        if mark is not None and mark == self._mark:
            with self._lock:
                if mark == self._mark:
                    self._advance(None if told is None else (mark, told))
                    if mark == self._mark and self._stand is not None:
                        return self._stand
            known = self._steps.since(mark)
        return known or told or self.remote.purges_since(mark)

    def followed(self) -> Snapshot | None:
        """The whole journal as it was followed here, so that who begins need not fetch it once more; None
        where it was not. It reaches every mark that this store has given.
        """
        with self._lock:
            return self._index.whole()

    # --- following ---------------------------------------------------------------------------------

    def follow(self) -> None:
        """Read the mark, follow the journal to it, and trust the copies from when it was asked for.

        Raises:
            StoreError: the store does not tell; trust runs out by itself.
        """
        now = self._steady()
        self.follow_to(self.remote.mark_of(""), now)

    @property
    def reached(self) -> Mark | None:
        """The mark to which the journal was followed."""
        return self._mark

    def follow_to(self, mark: Mark, asked: float, known: tuple[Mark | None, Snapshot] | None = None) -> None:
        """Follow the journal to a mark that was asked for at a monotonic instant, and trust from there.

        Args:
            known: what the journal had since a mark, after this one was read; None: ask.
        """
        trust = self.trust
        until = min(asked + self._terms.bound, self._heartbeat.standing)
        if mark == self._mark and until <= trust.until:
            return
        with self._lock:
            if mark != self._mark:
                self._advance(known)
                until = min(until, self._heartbeat.standing)
            if asked > self._distrust_before and until > trust.until:
                trust.until = until

    def _advance(self, known: tuple[Mark | None, Snapshot] | None = None) -> None:
        """Take over what the journal has that was not followed yet. The caller holds the lock."""
        base = self._mark
        snapshot = self.remote.purges_since(base) if known is None or known[0] != base else known[1]
        if snapshot.mark == base:
            return
        if snapshot.whole and base is not None:  # another history: nothing is known for sure
            self.trust.until = _NEVER
            self._copies.flush()
            self._heartbeat.introduce()
        self._index.follow(snapshot)
        self._steps = self._steps.plus(base, snapshot)
        self._stand = snapshot._replace(records=(), whole=False, table=None)
        self._mark = snapshot.mark
        self._tell()

    def doubt(self) -> None:
        """Trust no copy until a mark has been read that is asked for from now on."""
        with self._lock:
            self._distrust_before = self._steady()
            self.trust.until = _NEVER
            self._tell()

    def watch(self, moved: Callable[[], None]) -> None:
        """Have a bound method called whenever the journal was followed, or copies are not to be trusted."""
        with self._lock:
            living = [known for known in self._watchers if known() is not None]
            self._watchers = (*living, weakref.WeakMethod(moved))

    def _tell(self) -> None:
        for watcher in self._watchers:
            moved = watcher()
            if moved is not None:
                moved()

    def _after_fork(self) -> None:
        """In a forked child: nothing reads the marks yet, and nobody else knows of the child's copies."""
        self._new_lock()
        self.trust.until = _NEVER
        self._tell()

    # --- writing -----------------------------------------------------------------------------------

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key, and keep a copy if the store took it; see `Store.set`."""
        copies = self._copies
        written, until = copies.written(key), self._steady() + self._terms.max_age
        accepted = False
        try:
            accepted = self.remote.set(key, stored, keep_until, token)
        finally:
            known = accepted and self._is_usable(stored, self._clock())
            copies.wrote(key, stored if known else None, until, written)
        return accepted

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very entry."""
        try:
            return self.remote.delete(key, only)
        finally:
            self._copies.wrote(key, None, 0.0, 0)

    def clear(self) -> Mark:
        """Forget everything and begin a new epoch; in force here when this returns."""
        try:
            return self._moving(self.remote.clear)
        finally:
            self.flush()

    def flush(self) -> None:
        """Forget the copies, those of other parts too."""
        self._copies.flush()

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force here when this returns."""
        return self._moving(lambda: self.remote.append(purges, at))

    def _moving(self, move: Callable[[], Mark]) -> Mark:
        """Move the journal, and follow it before anybody goes on; if that fails, trust nothing."""
        now = self._steady()
        try:
            mark = move()
        except BaseException:
            self.doubt()  # it may have been carried out
            raise
        try:
            self.follow_to(mark, now)
        except Exception:
            self.doubt()
        return mark

    # --- the whole ---------------------------------------------------------------------------------

    def settle(self, timeout: float | None = None) -> bool:
        """Return when every process that holds copies has followed the journal to here; see
        `wsgicache.stores.rollcall.settle`."""
        self.follow_or_doubt()
        return _settle(self._heartbeat, timeout)

    def follow_or_doubt(self) -> None:
        """Follow the journal, or trust nothing."""
        try:
            self.follow()
        except Exception:
            self.doubt()


class NearParts(_Front):
    """A store with several journals, each key in one of them, and copies of what is in it.

    The parts share the copies, which `flush` forgets as a whole, and the heartbeat; each has a journal and
    trust of its own. Made by `near_store`.
    """

    def __init__(self, remote: Any, terms: Terms, heartbeat: Heartbeat, copies: Copies) -> None:
        super().__init__(remote, terms, heartbeat, copies)
        self.parts: Final = tuple([NearStore(part, terms, heartbeat, copies) for part in remote.parts])
        self.part_of: Final[Callable[[str], int]] = remote.part_of
        self.part_of_path: Final[Callable[[str], int] | None] = getattr(remote, "part_of_path", None)
        beyond: AtOnce | None = getattr(remote, "at_once", None)
        self.at_once: Final = None if beyond is None else NearAtOnce(beyond, self.parts, terms.steady)
        """Several parts in the time of one; see `wsgicache.stores.AtOnce`."""

    def _of(self, key: str) -> NearStore:
        return self.parts[self.part_of(key)]

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark of the first one's journal."""
        first = self._of(keys[0]) if keys else self.parts[0]
        if all([self._of(key) is first for key in keys]):
            return first.get(keys)
        mark = first.mark_of(keys[0])
        return [self._of(key).get([key])[0][0] for key in keys], mark

    def mark_of(self, key: str) -> Mark:
        """The mark of the journal that a key belongs to."""
        return self._of(key).mark_of(key)

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """See `Store.set`."""
        return self._of(key).set(key, stored, keep_until, token)

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """See `Store.delete`."""
        return self._of(key).delete(key, only)

    def clear(self) -> Mark:
        """Forget everything and begin a new epoch of every journal."""
        try:
            return self._moving(self.remote.clear)
        finally:
            self._copies.flush()

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journals that they concern."""
        return self._moving(lambda: self.remote.append(purges, at))

    def _moving(self, move: Callable[[], Mark]) -> Mark:
        """Move all journals. What came of each is not known here: the store is asked until it is followed."""
        try:
            return move()
        finally:
            for part in self.parts:
                part.doubt()
            self._heartbeat.post.poke()

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """See `Store.purges_since`."""
        return self.remote.purges_since(mark)

    def watch(self, moved: Callable[[], None]) -> None:
        """Have a bound method called whenever one of the journals was followed."""
        for part in self.parts:
            part.watch(moved)

    def settle(self, timeout: float | None = None) -> bool:
        """Return when every process that holds copies has followed all journals to here."""
        if self.at_once is not None:
            self.at_once.follow()
        else:
            for part in self.parts:
                part.follow_or_doubt()
        return _settle(self._heartbeat, timeout)


class NearAtOnce:
    """Several parts of a near tier at the same time; see `wsgicache.stores.AtOnce`.

    What is written is in force here, too, when it returns.
    """

    def __init__(self, remote: AtOnce, parts: Sequence[NearStore], steady: Callable[[], float]) -> None:
        self._remote = remote
        self._parts = parts
        self._steady = steady

    def append(self, purges: Mapping[int, Sequence[Purge]], at: float) -> Answers[Mark]:
        """Write purges to journals, and follow them."""
        return self._moving({n: self._parts[n] for n in purges}, lambda: self._remote.append(purges, at))

    def clear(self) -> Answers[Mark]:
        """Forget everything in all parts, here as well."""
        parts = dict(enumerate(self._parts))
        try:
            return self._moving(parts, self._remote.clear)
        finally:
            self._parts[0].flush()

    def follow(self) -> None:
        """Follow all journals to where they stand, or trust nothing of those where that fails."""
        parts = dict(enumerate(self._parts))
        self._moving(parts, lambda: self._remote.marks(parts))

    def _moving(self, parts: Mapping[int, NearStore], move: Callable[[], Answers[Mark]]) -> Answers[Mark]:
        """Move journals, and follow them before anybody goes on; where that fails, trust nothing."""
        now = self._steady()
        doubtful: Iterable[int] = parts
        try:
            answers = move()
            doubtful = follow(self._remote, parts, answers, now)
        finally:
            for number in doubtful:
                parts[number].doubt()
        return answers

    def marks(self, parts: Iterable[int]) -> Answers[Mark]:
        """Where journals stand: as they were followed here, while that is trusted."""
        return {number: tried(partial(self._parts[number].mark_of, "")) for number in parts}

    def purges_since(self, marks: Mapping[int, Mark | None]) -> Answers[Snapshot]:
        """What followers of journals are missing: what came here since, where that is known."""
        answers: Answers[Snapshot] = {}
        for number, mark in marks.items():
            known = self._parts[number].came_since(mark)
            if known is not None:
                answers[number] = known
        unknown = {number: mark for number, mark in marks.items() if number not in answers}
        told = self._remote.purges_since(unknown) if unknown else {}
        for number, news in told.items():
            if isinstance(news, Exception):
                answers[number] = news
            else:
                answers[number] = tried(partial(self._parts[number].told_since, marks[number], news))
        return answers


def near_store(
    remote: Store,
    max_bytes: int = 64_000_000,
    *,
    bound: float = 1.0,
    max_age: float = 60.0,
    clock: Callable[[], float] = time.time,
    steady: Callable[[], float] = time.monotonic,
    heart: Callable[[Store, float, Callable[[], float]], Heartbeat] = Heartbeat,
) -> NearStore | NearParts:
    """Put copies in this process's memory in front of a store that others share.

    Args:
        max_bytes: what all copies may take; those larger than an eighth are not kept.
        bound: seconds after which a purge elsewhere has arrived here, at the latest.
        max_age: seconds after which the store is asked whether it has a newer one.
        clock: wall-clock seconds, by which entries are fresh.
        steady: monotonic seconds.
        heart: what makes the heartbeat of a store.

    Raises:
        ValueError: a size too small, a bound or an age that is not above zero.
    """
    for name, seconds in (("near_bound", bound), ("near_max_age", max_age)):
        if not 0 < seconds < float("inf"):
            raise ValueError(f"{name} = {seconds} is no time; give a number of seconds above zero")
    pool, rooms = CopyPool(max_bytes), weakref.WeakValueDictionary[str, NearStore | NearParts]()
    terms = Terms(pool, bound, max_age, clock, steady, heart, rooms)
    _tiers.add(terms)
    return _furnish(remote, terms, "")


def _furnish(remote: Store, terms: Terms, namespace: str) -> NearStore | NearParts:
    heartbeat = terms.heart(remote, terms.bound, terms.steady)
    _hearts.add(heartbeat)
    kind = NearParts if hasattr(remote, "parts") else NearStore
    store = kind(remote, terms, heartbeat, Copies(terms.pool))
    terms.rooms[namespace] = store
    return store


def _settle(heartbeat: Heartbeat, timeout: float | None) -> bool:
    post, who = heartbeat.place
    return settle(heartbeat.remote, timeout, post=post, who=who, bound=heartbeat.bound)


def _near_stats(copies: Copies, terms: Terms, heartbeat: Heartbeat) -> dict[str, int]:
    return {
        "near_entries": len(copies),
        "near_bytes": copies.bytes,
        "near_max_bytes": terms.pool.max_bytes,
        "near_evicted": copies.evicted,
        "near_failures": heartbeat.failures,
    }


_tiers: Final[weakref.WeakSet[Terms]] = weakref.WeakSet()
_hearts: Final[weakref.WeakSet[Heartbeat]] = weakref.WeakSet()
_stores: Final[weakref.WeakSet[NearStore]] = weakref.WeakSet()


def _after_fork() -> None:
    for terms in list(_tiers):
        terms.pool.after_fork()
    for store in list(_stores):
        store._after_fork()
    for heartbeat in list(_hearts):  # last: they take the locks of the others
        heartbeat.after_fork()


in_child(_after_fork)


@atexit.register
def _at_exit() -> None:
    for heartbeat in list(_hearts):  # nobody need wait for a process that has ended
        heartbeat.stop()
