"""Purging, as operators do it: from an app that has the cache, or from outside with the store's URL alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from .entry import Entry
from .follow import Follower, append_all, clear_all, last_of_all, shares
from .inventory import Inventory
from .journal import Kind, Mark, Purge, PurgeIndex, Record, Snapshot, Verdict, bounded
from .key import group_target, parse_url, path_target, prefix_target, url_target
from .stores import Store, StoreError
from .stores.rollcall import settle


class Reach(NamedTuple):
    """Purges in one journal: the store, its mark afterwards, what was written there, the numbers of the last
    purges of the same, or None where the store did not tell."""

    store: Store
    mark: Mark
    purges: Sequence[Purge]
    earlier: Sequence[int] | None


class Purged:
    """What a purge did. It is in force; counting what it matched takes a scan, so that waits for `matched`.

    Attributes:
        purges: what was written to the journal.
        mark: the journal's mark afterwards; that of the first one concerned, where the store has several.
    """

    def __init__(
        self,
        purges: tuple[Purge, ...],
        reached: Sequence[Reach],
        *,
        counted: int | None = None,
        forgotten: bool = False,
    ) -> None:
        self.purges: Final = purges
        self.mark: Final = reached[0].mark
        self._reached = reached
        self._counted = counted
        self._forgotten = forgotten

    @property
    def matched(self) -> int | None:
        """How many entries it reached that were there and not purged before: 0 says that nothing was.

        None where the store cannot tell, because it cannot list what it holds, or did not tell what was
        purged before.
        """
        if any([reach.earlier is None for reach in self._reached]):
            return None
        if self._counted is None and not self._forgotten:
            try:
                self._counted = sum(1 for _ in self.entries())
            except NotImplementedError:
                return None
        return self._counted

    def entries(self) -> Iterator[Entry]:
        """The entries that it reached, as long as the store has not yet let them go; `clear` forgets at once.

        Raises:
            NotImplementedError: the store cannot list what it holds.
        """
        if self._forgotten:
            return
        for reach in self._reached:
            yield from self._entries(reach)

    def _entries(self, reach: Reach) -> Iterator[Entry]:
        mark = reach.mark
        first = mark.seq - len(reach.purges) + 1
        snapshot = reach.store.purges_since(None)
        older = [record for record in snapshot.records if record.seq < first]
        older += [
            _record(purge, seq, mark) for purge, seq in zip(reach.purges, reach.earlier or (), strict=False)
        ]
        yield from _reached(reach, older)

    def __repr__(self) -> str:
        return f"Purged({', '.join([f'{purge.kind.value} {_told(purge)}'.strip() for purge in self.purges])})"


def _reached(reach: Reach, older: list[Record]) -> Iterator[Entry]:
    """The entries that purges cover and older ones do not: of soft purges, not softly either."""
    mark, purges = reach.mark, reach.purges
    before = _index(mark, older)
    now = _index(mark, [_record(purge, mark.seq, mark) for purge in purges])
    spares = {Verdict.HARD, Verdict.SOFT} if all([purge.soft for purge in purges]) else {Verdict.HARD}
    for stored in reach.store.scan():
        if isinstance(stored, Entry) and stored.born.epoch == mark.epoch:
            asked = (stored.born, stored.key, stored.terms.groups)
            if now.verdict(*asked) is Verdict.HARD and before.verdict(*asked) not in spares:
                yield stored


def _hardened(snapshot: Snapshot, purges: Sequence[Purge]) -> list[Record]:
    """The records of a journal; those of the same purges, soft ones too, as hard: they were made before."""
    same = set(bounded(purges))
    return [
        record._replace(soft=False) if Purge(record.kind, record.target, record.soft) in same else record
        for record in snapshot.records
    ]


def _told(purge: Purge) -> str:
    """A target as people write it: without the letter that says what it is, and what stands between parts."""
    form, parts = purge.target[:1], purge.target[1:].split("\0")
    if form in ("q", "u"):
        query = parts.pop()
        return "".join(parts) + (f"?{query}" if query else "")
    return "".join(parts)


def _record(purge: Purge, seq: int, mark: Mark) -> Record:
    """A purge as a hard record, so that what it covers can be asked for."""
    return Record(seq, purge.kind, purge.target, False, 0.0, mark.nonce)


def _index(mark: Mark, records: list[Record]) -> PurgeIndex:
    index = PurgeIndex()
    index.follow(Snapshot(mark, 0, sorted(records, key=lambda record: record.seq), whole=True))
    return index


@dataclass(frozen=True)
class QueryForms:
    """The forms in which the rules of a site key a query: (parameters left out, sorted by name) each.

    `certain` is False where responses say by No-Vary-Search what counts in a query.
    """

    forms: frozenset[tuple[tuple[str, ...], bool]] = frozenset()
    certain: bool = True


class Purges(ABC):
    """The purging methods of a cache and of a client; what they reach is said by whoever has them."""

    @abstractmethod
    def _followers(self) -> Sequence[Follower]:
        """The journals to write to."""

    @property
    @abstractmethod
    def store(self) -> Store:
        """The store, all its journals together."""

    @abstractmethod
    def _now(self) -> float:
        """The wall clock, seconds."""

    @abstractmethod
    def _query_forms(self) -> QueryForms:
        """How queries are keyed."""

    def purge(self, *urls: str, soft: bool = False, wait: bool = False) -> Purged:
        """Purge URLs: a path means every variant, scheme, host and query; an absolute URL exactly itself.

        In force when this returns, for what is stored and for what is being made.

        Args:
            urls: paths such as `/post/1` or absolute URLs.
            soft: mark as stale instead, so that validation and stale windows still work.
            wait: return when the near tier of every worker has it too, or can no longer answer without.

        Raises:
            ValueError: a text is neither.
            StoreError: the store did not acknowledge it: purge again. Or, with `wait`, it does not tell
                whether everybody has it.
        """
        return self._purge(
            [Purge(Kind.URL, target, soft) for url in urls for target in self._targets(url)], wait
        )

    def purge_prefix(self, *prefixes: str, soft: bool = False, wait: bool = False) -> Purged:
        """Purge a path and everything below it, at segment boundaries; see `purge`.

        Raises:
            ValueError: a prefix is neither a path nor an absolute URL, or has a query.
            StoreError: the store did not acknowledge it: purge again.
        """
        return self._purge([Purge(Kind.PREFIX, prefix_target(prefix), soft) for prefix in prefixes], wait)

    def purge_groups(
        self, *groups: str, origin: str | None = None, soft: bool = False, wait: bool = False
    ) -> Purged:
        """Purge everything that carries one of the groups (RFC 9875); see `purge`.

        Args:
            groups: names of groups.
            origin: such as `https://example.com`; None means on every origin.

        Raises:
            ValueError: the origin is none.
            StoreError: the store did not acknowledge it: purge again.
        """
        site = None if origin is None else parse_url(origin)[0]
        return self._purge([Purge(Kind.GROUP, group_target(group, site), soft) for group in groups], wait)

    def clear(self, *, soft: bool = False, wait: bool = False) -> Purged:
        """Purge everything.

        Raises:
            StoreError: the store did not acknowledge it: purge again.
        """
        if soft:
            return self._purge([Purge(Kind.ALL, "", soft=True)], wait)
        followers = self._followers()
        counted = _count(self.store, followers)
        marks = clear_all(self.store, followers)
        reached = [
            Reach(follower.store, mark, (), ()) for follower, mark in zip(followers, marks, strict=True)
        ]
        self._settle(wait)
        return Purged((Purge(Kind.ALL, ""),), reached, counted=counted, forgotten=True)

    # --- looking -----------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        """What the store holds, to look at."""
        return Inventory(self._followers(), self._query_forms().forms, self._now())

    def preview(
        self,
        *urls: str,
        prefixes: Sequence[str] = (),
        groups: Sequence[str] = (),
        everything: bool = False,
        soft: bool = False,
    ) -> Iterator[Entry]:
        """The entries that a purge of all these would reach now. Nothing is changed.

        Raises:
            NotImplementedError: the store cannot list what it holds.
            ValueError: a text is neither a path nor an absolute URL.
            StoreError: the store does not answer.
        """
        purges = [Purge(Kind.URL, target, soft) for url in urls for target in self._targets(url)]
        purges += [Purge(Kind.PREFIX, prefix_target(prefix), soft) for prefix in prefixes]
        purges += [Purge(Kind.GROUP, group_target(group), soft) for group in groups]
        purges += [Purge(Kind.ALL, "", soft)] if everything else []
        for _, follower, concerning in shares(self.store, self._followers(), purges):
            snapshot = follower.store.purges_since(None)
            mark = snapshot.mark._replace(seq=snapshot.mark.seq + 1)
            reach = Reach(follower.store, mark, concerning, ())
            yield from _reached(reach, _hardened(snapshot, concerning))

    def _targets(self, url: str) -> list[str]:
        """A URL's targets: each rule keys its query in a form of its own, which is what a purge must name.

        Where responses say by No-Vary-Search what counts in a query, no form is certain: all queries go.
        """
        keyed = self._query_forms()
        if not keyed.certain and parse_url(url)[2]:
            return [path_target(url)]
        return sorted({url_target(url, *form) for form in keyed.forms} | {url_target(url)})

    def _purge(self, purges: list[Purge], wait: bool) -> Purged:
        if not purges:
            raise ValueError("name at least one thing to purge")
        now = self._now()
        concerned = shares(self.store, self._followers(), purges)
        earlier = last_of_all(self.store, concerned)  # who may not be asked for a while is, for a purge
        marks = append_all(self.store, concerned, now)
        reached = [
            Reach(share.follower.store, mark, share.purges, before)
            for (share, before), mark in zip(zip(concerned, earlier, strict=True), marks, strict=True)
        ]
        self._settle(wait)
        return Purged(tuple(purges), reached)

    def _settle(self, wait: bool) -> None:
        """Return when every process that holds copies is past the purge, or cannot serve them any more."""
        if not wait or not self._followers()[0].shared:
            return
        own = getattr(self.store, "settle", None)
        if not (settle(self.store) if own is None else own()):
            raise StoreError(
                "purged, but the store does not tell how long near tiers may go on without it: try again"
            )


def _count(store: Store, followers: Sequence[Follower]) -> int | None:
    """How many entries a store holds; what others share tells roughly, records of varying fields included.

    None where it does not tell.
    """
    if not followers[0].shared:
        return sum(1 for stored in store.scan() if isinstance(stored, Entry))
    try:
        return store.stats().get("entries")
    except StoreError:  # what counts is that it is purged
        return None
