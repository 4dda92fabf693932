"""What a store holds, as people look at it: entries by URL, prefix or group, each with its numbers.

Nothing is changed by looking. What is shown is judged by the journal as it stands, and by nothing else:
whether the rules that are in force now would still serve it, `explain` says.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from heapq import nsmallest
from typing import Any, Final, NamedTuple

from .entry import Entry, Stored, Variants
from .follow import Follower
from .journal import Verdict
from .key import (
    Parts,
    base_key,
    group_target,
    group_targets,
    normal_query,
    parse_url,
    path_target,
    prefix_target,
    prefix_targets,
    split_key,
    url_target,
    url_targets,
    variant_key,
)

Form = tuple[tuple[str, ...], bool]
"""How a rule keys a query: the parameters that it leaves out, and whether it sorts."""

FRESH: Final = "fresh"
STALE: Final = "stale"
SOFT_PURGED: Final = "stale (purged)"
PURGED: Final = "purged"

LOOKED_AT: Final = 100_000
"""Stored things that one page of a list looks at, so that a large store does not keep a worker busy."""


@dataclass(frozen=True)
class Held:
    """One stored response. Times are seconds; `ttl` is the remaining lifetime, negative when stale.

    Attributes:
        url: what it is stored for, percent-encoded.
        extra: what the key has beyond the URL: a raw target or forwarded fields that say something else.
        state: fresh, stale, "stale (purged)" after a soft purge, or purged: never served again.
        varying: the request fields that select this variant, and their values; None is absent.
        kept: seconds until the store may forget it.
        size: bytes of the body.
        made_etag: the ETag is the cache's own, not the app's.
        for_cookies: it may answer requests with cookies too.
        for_credentials: it may answer requests with credentials too.
    """

    url: str
    extra: str
    status: str
    state: str
    age: float
    lifetime: int
    lifetime_source: str
    ttl: float
    stale_while_revalidate: int
    stale_if_error: int
    kept: float
    size: int
    groups: tuple[str, ...]
    varying: Mapping[str, str | None]
    headers: tuple[tuple[str, str], ...]
    made_etag: bool
    for_cookies: bool
    for_credentials: bool

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Held:
        """What `as_dict` made data of, in this process or another; a head that was left out is empty.

        Raises:
            KeyError, TypeError, ValueError: it is none of these, or of another version.
        """
        told = {field.name: data[field.name] for field in fields(cls) if field.name != "headers"}
        head = tuple([(str(name), str(value)) for name, value in data.get("headers", ())])
        return cls(
            **told | {"groups": tuple(told["groups"]), "varying": dict(told["varying"]), "headers": head}
        )


class Page(NamedTuple):
    """A part of a list, in the order of the keys.

    Attributes:
        held: the responses.
        after: what to ask for the next part with; None: this is the last.
        cut: the store holds more than was looked at.
    """

    held: Sequence[Held]
    after: str | None
    cut: bool


class _Found(NamedTuple):
    """An entry, the journal that judges it, and what its key says."""

    follower: Follower
    entry: Entry
    parts: Parts

    @property
    def place(self) -> str:
        """The key that it is stored under."""
        varying = self.entry.terms.varying
        return variant_key(self.entry.key, varying, self.entry.values) if varying else self.entry.key


class Inventory:
    """What a store holds.

    Args:
        followers: the journals of the store.
        forms: how the site's rules key queries.
        now: wall-clock seconds.
    """

    def __init__(self, followers: Sequence[Follower], forms: Iterable[Form], now: float) -> None:
        self._followers = followers
        self._forms = frozenset(forms) | {((), False)}
        self._now = now

    def entries(self, prefix: str | None = None, groups: Sequence[str] = ()) -> Iterator[Held]:
        """What may still be served or validated, in no order.

        Args:
            prefix: a path, or an absolute URL, and what is below it; None means everything.
            groups: entries that carry one of them; none means whatever they carry.

        Raises:
            NotImplementedError: the store cannot list what it holds.
            ValueError: the prefix is neither a path nor a URL, or has a query.
            StoreError: the store does not answer.
        """
        for found in self._below(prefix, groups):
            yield self._held(*found)

    def page(
        self,
        *,
        url: str | None = None,
        prefix: str | None = None,
        groups: Sequence[str] = (),
        after: str = "",
        limit: int,
    ) -> Page:
        """A part of what `at` (where a URL is given) or `entries` tells, for who cannot take all at once.

        Args:
            after: what the part before said; "" is the first.
            limit: responses at most.

        Raises:
            NotImplementedError, StoreError: see `entries`.
            ValueError: the same, or `after` is nothing that a part says.
        """
        last = _read_mark(after)
        looked_at = _Looked()
        found = self._below(prefix, groups, looked_at) if url is None else self._stored_for(url, looked_at)
        some = nsmallest(limit + 1, (one for one in found if one.place > last), lambda one: one.place)
        mark = _mark(some[limit - 1].place) if len(some) > limit else None
        return Page([self._held(*one) for one in some[:limit]], mark, looked_at.cut)

    def _below(
        self, prefix: str | None, groups: Sequence[str], looked_at: _Looked | None = None
    ) -> Iterator[_Found]:
        """See `entries`."""
        target = None if prefix is None else prefix_target(prefix)
        start = "" if prefix is None else parse_url(prefix)[1].rstrip("/")
        wanted = {group_target(group) for group in groups}
        for follower, entry in self._scan(start, looked_at):
            parts = split_key(entry.key)
            if target is not None and target not in prefix_targets(parts):
                continue
            if wanted and wanted.isdisjoint(group_targets(parts, entry.terms.groups)):
                continue
            if follower.verdict(entry) is not Verdict.HARD and entry.keep_until > self._now:
                yield _Found(follower, entry, parts)

    def at(self, url: str) -> list[Held]:
        """Every response that is stored for a URL: each variant; for a path each scheme, host and query.

        Raises:
            NotImplementedError: the store cannot list what it holds, and the URL is not absolute.
            ValueError: the text is neither a path nor an absolute URL.
            StoreError: the store does not answer.
        """
        held = [self._held(*found) for found in self._stored_for(url)]
        return sorted(held, key=lambda one: (one.url, one.extra, str(one.varying)))

    def _stored_for(self, url: str, looked_at: _Looked | None = None) -> list[_Found]:
        """See `at`."""
        origin, path, query = parse_url(url)
        targets = {url_target(url, *form) for form in self._forms}
        if origin is not None and query is None:  # `http://host/path` means every query of it, to look at
            targets.add(path_target(url))
        try:
            found = [
                pair
                for pair in self._scan(f"{path}\0", looked_at)
                if not targets.isdisjoint(_targets(pair[1]))
            ]
        except NotImplementedError:
            if origin is None:
                raise
            found = list(self._fetched(origin, path, query or ""))
        return [_Found(follower, entry, split_key(entry.key)) for follower, entry in found]

    def _scan(self, start: str, looked_at: _Looked | None = None) -> Iterator[tuple[Follower, Entry]]:
        for follower in self._followers:
            follower.follow_now("")
            for stored in follower.store.scan(start):
                if looked_at is not None and looked_at.is_enough():
                    return
                if isinstance(stored, Entry):
                    yield follower, stored

    def _fetched(self, origin: str, path: str, query: str) -> Iterator[tuple[Follower, Entry]]:
        """What a store that lists nothing has under the keys that the URL may be stored under."""
        scheme, _, host = origin.partition("://")
        keys = {base_key(path, normal_query(query, *form), host, scheme) for form in self._forms}
        for follower in self._followers:
            found, _ = follower.get(sorted(keys))
            variants = [key for one in found if isinstance(one, Variants) for key in one.variants]
            more: list[Stored | None] = follower.get(variants)[0] if variants else []
            yield from [(follower, one) for one in (*found, *more) if isinstance(one, Entry)]

    def _held(self, follower: Follower, entry: Entry, parts: Parts) -> Held:
        terms = entry.terms
        return Held(
            url=parts.url,
            extra=parts.extra,
            status=terms.status,
            state=self._state(follower.verdict(entry), entry),
            age=max(0.0, self._now - entry.since),
            lifetime=terms.lifetime,
            lifetime_source=terms.source,
            ttl=entry.fresh_until - self._now,
            stale_while_revalidate=terms.stale_while_revalidate,
            stale_if_error=terms.stale_if_error,
            kept=entry.keep_until - self._now,
            size=len(entry.body),
            groups=terms.groups,
            varying=dict(zip(terms.varying, entry.values, strict=False)),
            headers=entry.headers,
            made_etag=terms.made_etag,
            for_cookies=terms.for_cookies,
            for_credentials=terms.for_credentials,
        )

    def _state(self, verdict: Verdict, entry: Entry) -> str:
        if verdict is Verdict.HARD:
            return PURGED
        if verdict is Verdict.SOFT:
            return SOFT_PURGED
        return FRESH if entry.fresh_until > self._now else STALE


class _Looked:
    """Counts stored things that a list looks at; see `LOOKED_AT`."""

    def __init__(self) -> None:
        self._count = 0
        self.cut = False

    def is_enough(self) -> bool:
        """Whether another one is too many."""
        self._count += 1
        self.cut = self._count > LOOKED_AT
        return self.cut


def _mark(place: str) -> str:
    return urlsafe_b64encode(place.encode("utf-8", "surrogatepass")).decode("ascii")


def _read_mark(mark: str) -> str:
    try:
        return urlsafe_b64decode(mark.encode("ascii")).decode("utf-8", "surrogatepass")
    except ValueError:
        raise ValueError(f"after = {mark!r} is not what a list said") from None


def _targets(entry: Entry) -> tuple[str, ...]:
    return url_targets(split_key(entry.key))
