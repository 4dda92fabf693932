"""What the hit path knows and sends: made when an entry is hit. Pure.

Instants here are of the monotonic clock, so that a hit reads one clock and a wall clock that is set makes
nothing look younger; `wsgicache.clock` compares the two once a second per page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any, Final

from .entry import Entry, Terms
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


Hot = tuple[float, list[tuple[str, str]] | None, tuple[bytes, ...]]
"""The whole head of a hit and its body, right while the monotonic clock is before the first."""

COLD: Final[Hot] = (float("-inf"), None, ())
"""What a slot holds that was not hit in this second."""

_ONCE: Final[tuple[Hot, ...]] = tuple([(float("-inf"), None, ()) for _ in range(64)])
"""What a slot holds that was hit once in this second of its age: one object for each second."""


@dataclass(slots=True, eq=False)
class Ready:
    """What the hit path knows of the entries that are stored on the same terms under the same plan.

    One object serves all of them, so that what is hit costs no more memory than what is not. Only what is
    hit twice in a second has a `Hot` in its slot.

    `cookies` says which Cookie fields leave the hit as it is. `trust` says up to when the store's copies may
    be served. `shift` is monotonic clock minus wall clock, seconds, `rules` what the engine's rules were
    known by; the next of `counter` counts a hit. `until` is the monotonic instant at which a copy is too old,
    whatever its age: where it is told, the object is of one entry only.
    """

    status: Final[str]
    lifetime: Final[int]
    shift: Final[float]
    rules: Final[object]
    cookies: Final[Mapping[str, bool]]
    counter: Final[Iterator[object]]
    trust: Final[Trust | Both]
    until: Final[float]
    keys: Final[None] = None

    def age_at(self, entry: Entry, now: float, trusted_until: float) -> int:
        """The age of a fresh entry.

        Args:
            now: the monotonic clock.
            trusted_until: of `trust`, read before the caller made sure that this is still valid.

        Raises:
            LookupError: it is not fresh, or not to be trusted.
        """
        wall = now - self.shift
        if wall >= entry.fresh_until or now >= self.until or now >= trusted_until:
            raise LookupError("stale")
        return int(wall - entry.since)

    def hit(self, slot: Any, now: float, trusted_until: float) -> Hot:
        """The answer of a slot that is fresh, the first in this second or the second; see `age_at`.

        Raises:
            LookupError: it is not fresh, not to be trusted, or its age is negative: a clock went back.
        """
        entry: Entry = slot.stored
        age = self.age_at(entry, now, trusted_until)
        ends = min(entry.fresh_until, entry.since + age + 1) + self.shift
        sent = [*entry.headers, AGES[age], HIT_LINES[self.lifetime - age]]
        hot = min(ends, self.until, trusted_until), sent, (entry.body,) if entry.body else ()
        once = _ONCE[age % len(_ONCE)]
        slot.hot = hot if slot.hot is once else once
        return hot  # type: ignore[return-value]  # a body in a file is never armed


class Readies:
    """The `Ready` objects of an engine: equal ones once. Bounded."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], Ready] = {}

    def of(
        self,
        terms: Terms,
        cookies: Mapping[str, bool],
        shift: float,
        rules: object,
        counter: Iterator[object],
        trust: Trust | Both = ALWAYS,
        until: float = float("inf"),
    ) -> Ready:
        """What the hit path knows of entries on these terms. One that is validated before each use is never
        fresh here.

        Args:
            shift: monotonic clock minus wall clock, seconds.
            rules: what the engine's rules are known by until one is switched.
            counter: its next number counts a hit.
            trust: up to when the store's copies may be served.
            until: monotonic instant at which this copy is too old to be served.
        """
        if terms.always_validate:
            until = float("-inf")
        if until != float("inf"):
            return Ready(terms.status, terms.lifetime, shift, rules, cookies, counter, trust, until)
        # By identity what does not compare: each is held by the value, so that no other can take its place.
        asked = (terms.status, terms.lifetime, shift, rules, id(cookies), counter, trust)
        known = self._known.get(asked)
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            known = Ready(terms.status, terms.lifetime, shift, rules, cookies, counter, trust, until)
            self._known[asked] = known
        return known


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
        if len(self) < 16 and (value is None or len(value) <= 128):
            known = next((one for one in list(self.values()) if one == key), key)
            self[None if value is None else intern(str(value))] = known
        return key
