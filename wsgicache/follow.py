"""One journal followed: a store, and what this process knows of its purges.

Whoever reads from the store reads its mark too, and the index is brought up to that mark before anything is
judged by it. A store with several journals (a cluster) is followed part by part.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, cast

from .codec import decode_mark, encode_mark
from .entry import Entry, Stored
from .journal import Kind, Mark, Purge, PurgeIndex, Snapshot, Verdict, bounded, portions
from .ready import ALWAYS, Trust
from .stores import AtOnce, Store, tried
from .stores.memo import MemoSlot
from .stores.sieve import Slot

Look = Callable[[str], Slot | None]
T = TypeVar("T")


class Follower:
    """A store with one journal, and this process's index of it.

    Args:
        store: the store, or one part of it.
        meta_changed: called with the names of what changed beside the journal, or with None where anything
            may have, before anybody judges by the mark that says so. What it raises keeps the index back.
        stamp: what an armed slot must carry now; replaced when `meta_changed` switches a rule.
    """

    def __init__(
        self,
        store: Store,
        meta_changed: Callable[[frozenset[str] | None], None],
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        self.store: Final = store
        self.shared: Final = bool(getattr(store, "shared", False))
        self.trust: Final[Trust] = getattr(store, "trust", None) or ALWAYS
        self.peek: Final[Look | None] = getattr(store, "peek", None)
        """What this process holds of a key."""
        ask: Callable[[Any], bytes | None] | None = getattr(store, "confirm", None)
        self.confirm: Final[Callable[[Any], bool] | None] = None if ask is None else self._confirmed
        """Whether the store still holds what an armed slot does, and it is valid; None: no need to ask."""
        self._ask: Final[Any] = ask
        self._followed: Final[Callable[[], Snapshot | None] | None] = getattr(store, "followed", None)
        self._meta_changed = meta_changed
        self._stamp = stamp
        self._index = PurgeIndex()
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._lock = threading.Lock()

    # --- reading -----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, after the journal was followed to the mark that came with it."""
        stored, mark = self.store.get(keys)
        if mark is not self._index.mark:
            self.follow(mark)
        return stored, mark

    def follow_now(self, key: str) -> None:
        """Follow the journal to where it stands."""
        mark = self.store.mark_of(key)
        if mark is not self._index.mark:
            self.follow(mark)

    def follow(self, mark: Mark) -> None:
        """Bring the index up to a mark that was just read."""
        if self._index.mark == mark:
            return
        with self._lock:
            if self._index.mark != mark and not self._begin():
                self._take(self.store.purges_since(self._index.mark))

    def _begin(self) -> bool:
        """Take over what a near tier has followed, which is all there is; unless this has begun already."""
        if self._index.mark is not None or self._followed is None:
            return False
        snapshot = self._followed()
        if snapshot is not None:
            self._take(snapshot)
        return snapshot is not None

    def _take(self, snapshot: Snapshot) -> None:
        """Take over what the journal has; first what else it says has changed, then its mark."""
        changed = frozenset([record.target for record in snapshot.records if record.kind is Kind.META])
        if snapshot.whole or changed:
            self._meta_changed(None if snapshot.whole else changed)
        self._index.follow(snapshot)

    def _confirmed(self, slot: MemoSlot) -> bool:
        """One round trip, unless the journal moved."""
        mark = self._ask(slot)
        return mark is not None and (mark == slot.mark or self._holds(slot, mark))

    def _holds(self, slot: MemoSlot, mark: bytes) -> bool:
        """Whether an armed slot is still valid although the journal moved."""
        self.follow(decode_mark(mark))
        stored = slot.stored
        if not isinstance(stored, Entry) or self.verdict(stored) is not Verdict.VALID:
            return False
        if slot.stamp is not self._stamp():  # the journal said that a rule was switched
            return False
        slot.mark = mark
        return True

    def judged_at(self, slot: Slot, mark: Mark | None) -> None:
        """Note at which mark the entry in a slot was found valid, where that will be confirmed."""
        if isinstance(slot, MemoSlot) and mark is not None:
            slot.mark = encode_mark(mark)

    # --- judging -----------------------------------------------------------------------------------

    def verdict(self, entry: Entry) -> Verdict:
        """What the journal, as this process knows it, says of an entry."""
        return self._index.verdict(entry.born, entry.key, entry.terms.groups)

    def verdict_now(self, entry: Entry) -> Verdict:
        """The same, after the journal was followed to where it stands."""
        mark = self.store.mark_of(entry.key)
        if mark is not self._index.mark:
            self.follow(mark)
        return self._index.verdict(entry.born, entry.key, entry.terms.groups)

    def covers(self, born: Mark, key: str, groups: Sequence[str] = ()) -> bool:
        """Whether a key was purged, hard or soft, since a mark."""
        return self._index.verdict(born, key, groups) is not Verdict.VALID

    # --- purging -----------------------------------------------------------------------------------

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force when this returns. Raises what the store raises."""
        return self.store.append(bounded(purges), at)

    def stand(self) -> Mark | None:
        """The mark to which this process has followed the journal; None: it has not begun."""
        with self._lock:
            self._begin()
            return self._index.mark

    def last(self, purges: Iterable[Purge], news: News | None = None) -> list[int]:
        """The numbers of the last purges of the same targets, 0 where there were none.

        Args:
            news: what the journal has, if somebody has just asked; None: ask.
        """
        with self._lock:
            self._begin()
            mark = self._index.mark
            known = news is not None and news.since == mark
            self._take(news.snapshot if news is not None and known else self.store.purges_since(mark))
        return [self._index.last(purge) for purge in purges]


class News(NamedTuple):
    """What a journal has since a mark."""

    since: Mark | None
    snapshot: Snapshot


class Share(NamedTuple):
    """What one journal is to take of some purges: the journal's number in its store, and they."""

    number: int
    follower: Follower
    purges: Sequence[Purge]


def shares(store: Store, followers: Sequence[Follower], purges: Iterable[Purge]) -> list[Share]:
    """The journals of a store that some purges concern, in their order, and what each is to take."""
    if len(followers) == 1:
        return [Share(0, followers[0], alone)] if (alone := list(purges)) else []
    taken = portions(purges, len(followers), getattr(store, "part_of_path", None))
    numbered = enumerate(zip(followers, taken, strict=True))
    return [Share(number, follower, portion) for number, (follower, portion) in numbered if portion]


# --- all journals of a store: at once where it can do that, else one after another ----------------------


def append_all(store: Store, concerned: Sequence[Share], at: float) -> list[Mark]:
    """Write to each journal its purges, also where another did not take them: what is purged there is purged.

    Returns:
        The mark of each.

    Raises:
        StoreError: the first that did not take them.
    """
    if len(concerned) == 1:
        return [concerned[0].follower.append(concerned[0].purges, at)]
    at_once: AtOnce | None = getattr(store, "at_once", None)
    if at_once is None:
        return _all([tried(partial(share.follower.append, share.purges, at)) for share in concerned])
    answers = at_once.append({share.number: bounded(share.purges) for share in concerned}, at)
    return _all([answers[share.number] for share in concerned])


def clear_all(store: Store, followers: Sequence[Follower]) -> list[Mark]:
    """Begin a new epoch of each journal of a store; see `append_all`."""
    at_once: AtOnce | None = getattr(store, "at_once", None)
    if at_once is None:
        return _all([tried(follower.store.clear) for follower in followers])
    answers = at_once.clear()
    return _all([answers[number] for number in range(len(followers))])


def last_of_all(store: Store, concerned: Sequence[Share]) -> list[list[int] | None]:
    """For each journal, the numbers of the last purges of the same targets; None where it did not tell."""
    at_once: AtOnce | None = getattr(store, "at_once", None)
    if at_once is None or len(concerned) == 1:
        return [_told(tried(partial(share.follower.last, share.purges))) for share in concerned]
    bases = {share.number: share.follower.stand() for share in concerned}
    told = at_once.purges_since(bases)
    last: list[list[int] | None] = []
    for number, follower, purges in concerned:
        news = told[number]
        known = None if isinstance(news, Exception) else News(bases[number], news)
        last.append(None if known is None else _told(tried(partial(follower.last, purges, known))))
    return last


def _all(answers: Sequence[T | Exception]) -> list[T]:
    """The answers of all, or what the first of those raised that have none."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return cast(list[T], answers)


def _told(answer: T | Exception) -> T | None:
    return None if isinstance(answer, Exception) else answer
