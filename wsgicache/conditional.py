"""Preconditions that a cache may answer, and what a 304 carries and changes.

- If-None-Match, even a broken one, switches If-Modified-Since off (RFC 9110 §13.2.2).
- A validator that does not parse matches nothing: the answer is then the whole response.
- If-Match and If-Unmodified-Since are the app's business (RFC 9111 §4.3.2).
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from .fields import end_to_end, etag_list, parse_date, parse_etag

Headers = Sequence[tuple[str, str]]
"""Header lines as WSGI has them: (name, value), names in any case."""

# What a 304 repeats of the 200 (RFC 9110 §15.4.5), and the groups (RFC 9875): they guide caches.
_IN_A_304: Final = frozenset(
    {"cache-control", "cache-groups", "content-location", "date", "etag", "expires", "vary"}
)
# Of a 304, what says nothing of the stored body (RFC 9111 §3.2): many an app sends a default
# Content-Type or a Content-Length of 0 with its 304.
_NOT_UPDATED: Final = frozenset(
    {
        "age",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
    }
)
COOKIES: Final = frozenset({"set-cookie", "set-cookie2"})
"""Response fields that are for one client, unless the profile stores them."""


def not_modified(
    if_none_match: str | None,
    if_modified_since: str | None,
    etag: str | None,
    last_modified: str | None,
    date: str | None = None,
) -> bool:
    """Whether a GET or HEAD may be answered 304, given the stored validators.

    Without a stored Last-Modified its Date stands in for it (RFC 9111 §4.3.2).
    """
    if if_none_match is not None:
        return _matches(if_none_match, etag)
    if if_modified_since is None:
        return False
    since = parse_date(if_modified_since)
    modified = _seconds(date if last_modified is None else last_modified)
    return since is not None and modified is not None and modified <= since


def _matches(if_none_match: str, etag: str | None) -> bool:
    """Weak comparison with a list (RFC 9110 §8.8.3.2, §13.1.2)."""
    wanted = etag_list(if_none_match)
    if wanted is None:
        return True
    stored = None if etag is None else parse_etag(etag)
    if stored is not None:
        for tag in wanted:
            if tag.opaque == stored.opaque:
                return True
    return False


def _seconds(value: str | None) -> float | None:
    return None if value is None else parse_date(value)


def range_applies(
    if_range: str | None, etag: str | None, last_modified: str | None, date: str | None
) -> bool:
    """Whether Range counts, or If-Range makes the answer a 200 (RFC 9110 §13.1.5)."""
    if if_range is None:
        return True
    if '"' in if_range[:3]:
        return _same_strong(if_range, etag)
    wanted, modified, sent = _seconds(if_range), _seconds(last_modified), _seconds(date)
    if wanted is None or modified is None or sent is None:
        return False
    # A date is a strong validator a second after it at the earliest (§8.8.2.2).
    return wanted == modified and sent >= modified + 1


def _same_strong(left: str | None, right: str | None) -> bool:
    """Strong comparison (RFC 9110 §8.8.3.2)."""
    if left is None or right is None:
        return False
    tag = parse_etag(left)
    return tag is not None and not tag.weak and tag == parse_etag(right)


_REPRESENTATION: Final = frozenset(
    {
        "accept-ranges",
        "content-encoding",
        "content-language",
        "content-length",
        "content-range",
        "content-type",
        "trailer",
        "transfer-encoding",
    }
)


def as_304(headers: Headers) -> tuple[tuple[str, str], ...]:
    """Return the lines of an app's 200 that is passed on as a 304: all that do not describe the body.

    It was made for this client, so what is meant for it alone (a cookie, a report) is not lost.
    """
    return tuple(line for line in headers if line[0].lower() not in _REPRESENTATION)


@lru_cache(maxsize=1024)
def head_304(headers: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """Return the lines of a stored 200 that its 304 repeats, in order (RFC 9110 §15.4.5).

    Targeted fields (RFC 9213) are known by their customary ending. Last-Modified is only sent
    where there is no ETag.
    """
    has_etag = any(name.lower() == "etag" for name, _ in headers)
    return tuple(line for line in headers if _repeated(line[0].lower(), has_etag))


def _repeated(name: str, has_etag: bool) -> bool:
    if name == "last-modified":
        return not has_etag
    return name in _IN_A_304 or name.endswith("-cache-control")


def merge_304(stored: Headers, fresh: Headers, *, cookies: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the stored header lines as a 304 with the lines `fresh` updates them.

    All stored lines of a name give way to all fresh ones, in their place; new names come last
    (RFC 9111 §3.2). Neither side's Age is kept: it belongs to one moment. Set-Cookie is updated
    only where `cookies` says that it is stored at all.
    """
    updates: dict[str, list[tuple[str, str]]] = {}
    for line in end_to_end(fresh):
        name = line[0].lower()
        if name not in _NOT_UPDATED and (cookies or name not in COOKIES):
            updates.setdefault(name, []).append(line)
    merged: list[tuple[str, str]] = []
    for line in stored:
        name = line[0].lower()
        if name in updates:
            merged += updates[name]
            updates[name] = []
        elif name != "age":
            merged.append(line)
    for lines in updates.values():
        merged += lines
    return tuple(merged)


def may_freshen(
    stored_etag: str | None,
    stored_last_modified: str | None,
    new_etag: str | None,
    new_last_modified: str | None,
) -> bool:
    """Whether a 304 with the new validators is about the stored response (RFC 9111 §4.3.4).

    A strong ETag decides alone. Otherwise every validator that the 304 has must be that of the
    stored response. A 304 need not repeat Last-Modified (RFC 9110 §15.4.5): one that has no
    validator at all is about the stored response too, because the request named that one alone.
    """
    if new_etag is None and new_last_modified is None:
        return True
    new = None if new_etag is None else parse_etag(new_etag)
    old = None if stored_etag is None else parse_etag(stored_etag)
    if new is not None and not new.weak:
        return new == old
    modified, was_modified = _seconds(new_last_modified), _seconds(stored_last_modified)
    if new is None and modified is None:
        return old is None and was_modified is None
    same_tag = new is None or (old is not None and new.opaque == old.opaque)
    return same_tag and (modified is None or modified == was_modified)
