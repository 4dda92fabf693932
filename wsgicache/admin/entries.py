"""What the dashboard says of entries: search, a page at a time, and one of them closely."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from ..engine import Engine
from ..entry import Entry
from ..found import place
from ..inventory import FRESH, SOFT_PURGED, STALE
from ..journal import Verdict
from ..key import parse_url, split_key
from . import figures

ON_A_PAGE: Final = 50
LOOKED_AT: Final = 10_000
"""Stored things that one search looks at, so that a large store does not keep it busy."""


class Row(NamedTuple):
    """An entry in a list. Times are seconds."""

    id: str
    url: str
    shown: str
    status: str
    size: int
    age: float
    ttl: float
    state: str
    groups: Sequence[str]
    variant: Sequence[tuple[str, str | None]]


class Search(NamedTuple):
    """A page of what was found. `cut`: the store holds more than was looked at."""

    rows: Sequence[Row]
    page: int
    more: bool
    cut: bool


def search(engine: Engine, by: str, text: str, page: int) -> Search:
    """Entries whose path or URL begins with a text, or that carry a group.

    Args:
        by: `prefix` or `group`.
        page: from 1.

    Raises:
        ValueError: the text is no path and no URL.
        NotImplementedError: the store cannot list what it holds.
        StoreError: it does not answer.
    """
    origin, path, query = (None, "", None) if by == "group" or not text else parse_url(text)
    prefix = path if query is None else f"{path}\0{query}"
    first = (page - 1) * ON_A_PAGE
    rows: list[Row] = []
    found = looked_at = 0
    now = engine.clock.wall()
    _follow(engine)
    for stored in engine.store.scan(prefix):
        looked_at += 1
        if looked_at > LOOKED_AT:
            return Search(rows, page, more=False, cut=True)
        if not isinstance(stored, Entry) or not _is_wanted(stored, by, text, origin):
            continue
        row = _row(engine, stored, now)
        if row is None:
            continue
        found += 1
        if found > first + ON_A_PAGE:
            return Search(rows, page, more=True, cut=False)
        if found > first:
            rows.append(row)
    return Search(rows, page, more=False, cut=False)


def _is_wanted(entry: Entry, by: str, text: str, origin: str | None) -> bool:
    if by == "group" and text:
        return text in entry.terms.groups
    return origin is None or split_key(entry.key).origin == origin


def _follow(engine: Engine) -> None:
    """Have what was purged elsewhere count here."""
    for follower in engine.followers:
        follower.follow_now("")


def _row(engine: Engine, entry: Entry, now: float) -> Row | None:
    """An entry in a list; None where it was purged, and only waits to be cleared away."""
    verdict = engine.follower_of(place(entry)).verdict(entry)
    if verdict is Verdict.HARD or entry.keep_until <= now:
        return None
    parts = split_key(entry.key)
    return Row(
        id=urlsafe_b64encode(place(entry).encode("utf-8", "surrogatepass")).decode("ascii"),
        url=parts.url,
        shown=figures.readable(f"{parts.origin}{parts.path}{'?' if parts.query else ''}{parts.query}"),
        status=entry.terms.status,
        size=len(entry.body),
        age=max(0.0, now - entry.since),
        ttl=entry.fresh_until - now,
        state=SOFT_PURGED if verdict is Verdict.SOFT else FRESH if entry.fresh_until > now else STALE,
        groups=entry.terms.groups,
        variant=tuple(zip(entry.terms.varying, entry.values, strict=True)),
    )


class Closely(NamedTuple):
    """One entry: its row, its head, its numbers."""

    row: Row
    headers: Sequence[tuple[str, str]]
    numbers: Sequence[tuple[str, str]]


def closely(engine: Engine, name: str) -> Closely | None:
    """One entry; None where there is none of this name, or not any more.

    Args:
        name: the `id` of its row.

    Raises:
        StoreError: the store does not answer.
    """
    try:
        key = urlsafe_b64decode(name).decode("utf-8", "surrogatepass")
    except ValueError:
        return None
    if key.count("\0") < 3:
        return None
    (stored,), _ = engine.follower_of(key).get([key])
    now = engine.clock.wall()
    row = _row(engine, stored, now) if isinstance(stored, Entry) else None
    if row is None or not isinstance(stored, Entry):
        return None
    return Closely(row, stored.headers, list(_numbers(stored, row)))


def _numbers(entry: Entry, row: Row) -> Iterator[tuple[str, Any]]:
    terms = entry.terms
    yield "State", row.state
    yield "Status", row.status
    yield "Body", f"{figures.size(row.size)} ({figures.count(row.size)} bytes)"
    yield "Age", figures.duration(row.age)
    yield "Lifetime", f"{figures.duration(terms.lifetime)}, from {terms.source}"
    yield "Left", figures.duration(row.ttl)
    yield "Fresh until", f"{figures.instant(entry.fresh_until)} UTC"
    yield "Kept until", f"{figures.instant(entry.keep_until)} UTC"
    yield "Stale while revalidated", figures.duration(terms.stale_while_revalidate)
    yield "Stale in place of an error", figures.duration(terms.stale_if_error)
    yield "For requests with cookies", "yes" if terms.for_cookies else "no"
    yield "For requests with credentials", "yes" if terms.for_credentials else "no"
