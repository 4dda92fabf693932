"""Age and lifetime (RFC 9111 §4.2). Pure: every function takes the instants it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from .fields import MAX_SECONDS, Directives, parse_date

HEURISTIC_FRACTION: Final = 0.1
"""Share of the time since Last-Modified (RFC 9111 §4.2.2 names 10 % as typical)."""

HEURISTIC_CAP: Final = 86400
"""Seconds that a heuristic lifetime never exceeds."""

HEURISTIC_STATUSES: Final = frozenset({200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501})
"""Statuses that are heuristically cacheable (RFC 9110 §15.1)."""


class Lifetime(NamedTuple):
    """A freshness lifetime in seconds, and which statement it came from."""

    seconds: int
    source: str


def explicit_lifetime(
    directives: Directives, expires: str | None, date: str | None, now: float
) -> Lifetime | None:
    """The lifetime that the response states for a shared cache (RFC 9111 §4.2.1), or None.

    `s-maxage` beats `max-age` beats `Expires`. An `Expires` that is no date is in the past (§5.3).
    """
    for name in ("s-maxage", "max-age"):
        seconds = directives.seconds(name)
        if seconds is not None:
            return Lifetime(seconds, name)
    if expires is None:
        return None
    until = parse_date(expires)
    if until is None:
        return Lifetime(0, "Expires")
    start = parse_date(date) if date is not None else None
    seconds = int(until - (now if start is None else start))
    return Lifetime(min(max(0, seconds), MAX_SECONDS), "Expires")


def heuristic_lifetime(
    status: int, directives: Directives, last_modified: str | None, date: str | None, now: float
) -> Lifetime | None:
    """A guess from Last-Modified (RFC 9111 §4.2.2), where the status or `public` permits one."""
    if last_modified is None or (status not in HEURISTIC_STATUSES and "public" not in directives):
        return None
    modified = parse_date(last_modified)
    start = parse_date(date) if date is not None else now
    if modified is None or start is None or start <= modified:
        return None
    return Lifetime(min(HEURISTIC_CAP, int((start - modified) * HEURISTIC_FRACTION)), "heuristic")


def initial_age(age: str | None, date: str | None, asked: float, now: float) -> float:
    """Age of a response on arrival (RFC 9111 §4.2.3).

    Args:
        age: the `Age` field; only its first member counts, and only if it is a number (§5.1).
        date: the `Date` field.
        asked: wall-clock instant at which the app was called.
        now: wall-clock instant at which its answer began.
    """
    delay = max(0.0, now - asked)
    sent = parse_date(date) if date is not None else None
    apparent = max(0.0, now - sent) if sent is not None else 0.0
    return max(apparent, age_value(age) + delay)


def age_value(age: str | None) -> int:
    """The seconds in an `Age` field, 0 where it is absent or invalid."""
    if age is None:
        return 0
    first = age.partition(",")[0].strip()
    if not first.isascii() or not first.isdigit():
        return 0
    return min(int(first[:10]), 2**31) if len(first) <= 10 else 2**31


class NamedSeconds(dict[int, tuple[str, str]]):
    """Ready header pairs by a number of seconds, each made once: `table[17]` is `("Age", "17")`.

    A negative number is refused, which sends the hit path to the one that knows what to do about it.
    """

    def __init__(self, name: str, render: Callable[[int], str], limit: int = 16384) -> None:
        super().__init__()
        self._name = name
        self._render = render
        self._limit = limit

    def __missing__(self, seconds: int) -> tuple[str, str]:
        if seconds < 0:
            raise LookupError(f"{self._name} is never negative: {seconds}")
        if len(self) >= self._limit:
            self.clear()
        self[seconds] = pair = (self._name, self._render(seconds))
        return pair
