"""Entries: one stored response with its numbers, immutable and wire-ready. Pure.

What many entries share (status line, windows, flags, groups, fingerprint) is one interned `Terms`, so
that a million entries cost little beside their bodies. Nobody assigns to an entry after it was made:
the fields are `Final`, which mypy checks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from .body import Body, make_etag
from .journal import Mark

Headers = tuple[tuple[str, str], ...]

FOREVER: Final = 2**31
"""Seconds that no lifetime exceeds (RFC 9111 §1.2.2)."""


class Terms(NamedTuple):
    """How a stored response may be reused; equal for many entries, so interned by `intern_terms`.

    `lifetime` and the windows are seconds. `source` says where the lifetime came from. `for_cookies` and
    `for_credentials`: requests with cookies or with credentials may be answered too. `cost` is how many
    milliseconds the app took, about, and told only where pages are refreshed early.
    """

    status: str
    fingerprint: str
    lifetime: int
    source: str
    stale_while_revalidate: int = 0
    stale_if_error: int = 0
    keep: int = 0
    groups: tuple[str, ...] = ()
    varying: tuple[str, ...] = ()
    for_cookies: bool = False
    for_credentials: bool = False
    always_validate: bool = False
    never_stale: bool = False
    made_etag: bool = False
    negative: bool = False
    cost: int = 0

    @property
    def code(self) -> int:
        """The status code as a number."""
        return int(self.status[:3])


_terms: dict[Terms, Terms] = {}
_lines: dict[tuple[str, str], tuple[str, str]] = {}
_heads: dict[Headers, Headers] = {}
_LONG: Final = 4096
"""Characters of a head that is not shared: what is kept for others outlives the entry that brought it."""


def intern_terms(terms: Terms) -> Terms:
    """One object for equal terms; the table is bounded and simply starts again when it is full."""
    known = _terms.get(terms)
    if known is None:
        if len(_terms) >= 4096:
            _terms.clear()
        _terms[terms] = known = terms
    return known


def intern_pairs(headers: Headers) -> Headers:
    """The same fields, with one object for equal heads and for equal lines: the pages of a site share most of
    them. Long heads are left as they are."""
    known = _heads.get(headers)
    if known is not None:
        return known
    if sum([len(value) for _, value in headers]) > _LONG:
        return headers
    if len(_lines) >= 4096 or len(_heads) >= 1024:
        _lines.clear()
        _heads.clear()
    shared = tuple(map(_lines.setdefault, headers, headers))
    return _heads.setdefault(shared, shared)


class Entry:
    """One stored response.

    `since` is the instant at which its age was zero, `fresh_until` the one at which it becomes stale,
    both seconds of the engine's clock. `born` is the journal mark its request read before the app was
    called. `values` are those of `terms.varying` in that request. `validators` is (ETag, Last-Modified).

    What others have as well is not held again: `fields` is the head without `tag`, an ETag of ours, which
    comes last; `fresh_until` is held only where it is more than `since` and the lifetime.
    """

    __slots__ = ("_fresh_until", "body", "born", "fields", "key", "since", "tag", "terms", "values")

    key: Final[str]
    terms: Final[Terms]
    fields: Final[Headers]
    tag: Final[str | None]
    body: Final[Body]
    since: Final[float]
    born: Final[Mark]
    values: Final[tuple[str | None, ...]]
    _fresh_until: Final[float | None]

    def __init__(
        self,
        key: str,
        terms: Terms,
        headers: Headers,
        body: Body,
        since: float,
        fresh_until: float,
        born: Mark,
        values: tuple[str | None, ...] = (),
    ) -> None:
        tag = None
        if terms.made_etag and headers and headers[-1][0] == "ETag":
            headers, tag = intern_pairs(headers[:-1]), headers[-1][1]
        self.key = key
        self.terms = terms
        self.fields = headers
        self.tag = tag
        self.body = body
        self.since = since
        self._fresh_until = None if fresh_until == since + terms.lifetime else fresh_until
        self.born = born
        self.values = values

    @property
    def fresh_until(self) -> float:
        """The instant at which it becomes stale."""
        until = self._fresh_until
        return self.since + self.terms.lifetime if until is None else until

    @property
    def headers(self) -> Headers:
        """The whole head, an ETag of ours last."""
        return self.fields if self.tag is None else (*self.fields, ("ETag", self.tag))

    def field(self, name: str) -> str | None:
        """The first line of a response field; `name` in lower case."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return None

    @property
    def etag(self) -> str | None:
        """The stored ETag, the app's or ours."""
        return self.tag or self.field("etag")

    @property
    def last_modified(self) -> str | None:
        """The stored Last-Modified."""
        return self.field("last-modified")

    def ttl(self, now: float) -> int:
        """Remaining lifetime in whole seconds, so that Age and ttl add up; negative when stale."""
        return self.terms.lifetime - int(now - self.since)

    @property
    def stale_while_revalidate_until(self) -> float:
        """End of the window in which a stale answer goes out while a refresh runs (RFC 5861 §3)."""
        return self.fresh_until + self.terms.stale_while_revalidate

    @property
    def stale_if_error_until(self) -> float:
        """End of the window in which a stale answer replaces an error (RFC 5861 §4)."""
        return self.fresh_until + self.terms.stale_if_error

    @property
    def keep_until(self) -> float:
        """When a store may forget the entry: after its last window and its use for validation."""
        terms = self.terms
        return self.fresh_until + max(terms.stale_while_revalidate, terms.stale_if_error, terms.keep)

    @property
    def has_validator(self) -> bool:
        """Whether the app itself can be asked if this is still current."""
        return (self.etag is not None and not self.terms.made_etag) or self.last_modified is not None

    def size(self) -> int:
        """Bytes that the entry holds in memory beside interned parts, roughly but not too low."""
        size = _ENTRY_BYTES + (len(self.body) if type(self.body) is bytes else _FILE_BYTES) + len(self.key)
        for name, value in self.fields:
            size += _PAIR_BYTES + len(name) + len(value)
        if self.values or self.terms.groups:
            size += sum([_TEXT_BYTES + len(text) for text in (*self.values, *self.terms.groups) if text])
        return size


_ENTRY_BYTES: Final = 300
_FILE_BYTES: Final = 1000
_PAIR_BYTES: Final = 72
_TEXT_BYTES: Final = 64


@dataclass(slots=True, eq=False)
class Variants:
    """What is stored under a base key whose responses vary: the varying fields and the variants' keys.

    It is a hint for look-up only: each variant carries its own `born` and its own values.
    """

    key: Final[str]
    fields: Final[tuple[str, ...]]
    variants: Final[tuple[str, ...]]
    keep_until: Final[float]

    def size(self) -> int:
        """Bytes that the record holds in memory, roughly."""
        return _ENTRY_BYTES + len(self.key) + sum([_PAIR_BYTES + len(key) for key in self.variants])


Stored = Entry | Variants


def with_etag(entry: Entry) -> Entry:
    """The entry with an ETag of ours, where the app gave none and the body has something to tag."""
    if entry.etag is not None or entry.terms.code != 200:
        return entry
    return Entry(
        entry.key,
        intern_terms(entry.terms._replace(made_etag=True)),
        (*entry.headers, ("ETag", make_etag(entry.body))),
        entry.body,
        entry.since,
        entry.fresh_until,
        entry.born,
        entry.values,
    )
