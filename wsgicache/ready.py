"""What the hit path sends: made once, when an entry is first hit. Pure.

Instants here are of the monotonic clock, so that a hit reads one clock and a wall clock that is set makes
nothing look younger; `wsgicache.clock` compares the two once a second per page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from .entry import Entry, Headers
from .freshness import NamedSeconds
from .key import Selector, select_variant
from .outcome import hit_line

AGES: Final = NamedSeconds("Age", str)
"""Ready Age fields (RFC 9111 §5.1)."""

HIT_LINES: Final = NamedSeconds("Cache-Status", hit_line)
"""Ready Cache-Status fields of fresh hits, by remaining lifetime."""


@dataclass(slots=True, eq=False)
class Trust:
    """Up to which instant of the monotonic clock a store's copies may be served without asking."""

    until: float = float("inf")


class Both:
    """What two say: the earlier instant holds. It is asked for once a second, not for every hit."""

    __slots__ = ("_one", "_other")

    def __init__(self, one: Trust, other: Trust) -> None:
        self._one = one
        self._other = other

    @property
    def until(self) -> float:
        """See `Trust`."""
        return min(self._one.until, self._other.until)


ALWAYS: Final = Trust()
"""For a store that is itself what it says, or is asked each time."""


@dataclass(slots=True, eq=False)
class Ready:
    """An entry as the hit path needs it, and nothing else.

    `cookies` says which Cookie fields leave the hit as it is. `sent` is the whole head, right while the
    clock is before `until`: it changes once a second, however many hits there are; an entry that is hit
    less often keeps none. `trust` says up to when the store's copies may be served. `shift` is the difference
    of the two clocks by which the instants were made, and `rules` what the engine's rules were known by;
    `count` counts a hit.
    """

    status: Final[str]
    head: Final[Headers]
    chunks: Final[tuple[bytes, ...]]
    since: Final[float]
    fresh_until: Final[float]
    lifetime: Final[int]
    shift: Final[float]
    rules: Final[object]
    cookies: Final[Mapping[str, bool]]
    count: Final[Callable[[], object]]
    trust: Final[Trust | Both] = ALWAYS
    keys: Final[None] = None
    until: float = float("-inf")
    sent: list[tuple[str, str]] | None = None
    last: int = -1

    def head_at(self, now: float, trusted_until: float) -> list[tuple[str, str]]:
        """The whole head of a fresh hit.

        Args:
            now: the monotonic clock.
            trusted_until: of `trust`, read before the caller made sure that this is still valid.

        Raises:
            LookupError: it is not fresh, not to be trusted, or its age is negative: a clock went back.
        """
        if now >= self.fresh_until or now >= trusted_until:
            raise LookupError("stale")
        age = int(now - self.since)
        sent = [*self.head, AGES[age], HIT_LINES[self.lifetime - age]]
        if self.last == age:  # the second hit in this second
            self.sent = sent  # before `until`, which says that it may be read
            self.until = min(self.fresh_until, self.since + age + 1, trusted_until)
        self.last = age
        return sent


def ready(
    entry: Entry,
    cookies: Mapping[str, bool],
    shift: float,
    rules: object,
    count: Callable[[], object],
    trust: Trust | Both = ALWAYS,
    until: float = float("inf"),
) -> Ready:
    """The wire-ready form of an entry. One that is validated before each use is never fresh here.

    Args:
        shift: monotonic clock minus wall clock, seconds.
        rules: what the engine's rules are known by until one is switched.
        count: counts a hit.
        trust: up to when the store's copies may be served.
        until: monotonic instant at which this copy is too old to be served.
    """
    terms = entry.terms
    return Ready(
        status=terms.status,
        head=entry.headers,
        chunks=(entry.body,) if entry.body else (),
        since=entry.since + shift,
        fresh_until=float("-inf") if terms.always_validate else min(entry.fresh_until + shift, until),
        lifetime=terms.lifetime,
        shift=shift,
        rules=rules,
        cookies=cookies,
        count=count,
        trust=trust,
    )


class ReadyVariants:
    """A record of varying fields as the hit path needs it: the way to the second key.

    Where one field varies, `keys[value]` is the key for a value of `field`; else `field` is None, and
    `select` makes the key.
    """

    __slots__ = ("_chosen", "field", "keys", "rules")

    def __init__(self, base: str, chosen: tuple[Selector, ...], rules: object) -> None:
        self.rules = rules
        self._chosen = chosen
        self.field = chosen[0].environ_name if len(chosen) == 1 else None
        self.keys = _KeyOfValue(base, chosen[:1])

    def select(self, base: str, get: Callable[[str], Any]) -> str:
        """The variant key for an environ whose cookies do not count."""
        return select_variant(base, self._chosen, get)


class _KeyOfValue(dict[str | None, str]):
    """Variant keys by the raw value of the one varying field; the usual values are remembered."""

    def __init__(self, base: str, chosen: tuple[Selector, ...]) -> None:
        super().__init__()
        self._base = base
        self._chosen = chosen

    def __missing__(self, value: str | None) -> str:
        key = select_variant(self._base, self._chosen, lambda name: value)
        if len(self) < 16 and (value is None or len(value) <= 256):
            self[value] = key
        return key
