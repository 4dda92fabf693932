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

Sent = tuple[int, list[tuple[str, str]]]
"""An age in seconds, and the whole head of a hit at that age."""

_UNSENT: Final[Sent] = (-1, [])


@dataclass(slots=True, eq=False)
class Ready:
    """An entry as the hit path needs it, and nothing else.

    `cookies` says which Cookie fields leave the hit as it is. `sent` is the whole head as it was last sent:
    it changes once a second, however many hits there are; what is hit less often keeps none. `shift` is
    the difference of the two clocks by which the instants were made.
    """

    status: Final[str]
    head: Final[Headers]
    chunks: Final[tuple[bytes, ...]]
    since: Final[float]
    fresh_until: Final[float]
    lifetime: Final[int]
    shift: Final[float]
    cookies: Final[Mapping[str, bool]]
    select: Final[None] = None
    sent: Sent = _UNSENT
    last: int = -1

    def head_at(self, age: int) -> Sent:
        """The whole head of a fresh hit at an age in seconds.

        Raises:
            LookupError: the age is negative: a clock went back.
        """
        sent = (age, [*self.head, AGES[age], HIT_LINES[self.lifetime - age]])
        if self.last == age:
            self.sent = sent
        self.last = age
        return sent


def ready(entry: Entry, cookies: Mapping[str, bool], shift: float) -> Ready:
    """The wire-ready form of an entry. One that is validated before each use is never fresh here.

    Args:
        shift: monotonic clock minus wall clock, seconds.
    """
    terms = entry.terms
    return Ready(
        status=terms.status,
        head=entry.headers,
        chunks=(entry.body,) if entry.body else (),
        since=entry.since + shift,
        fresh_until=float("-inf") if terms.always_validate else entry.fresh_until + shift,
        lifetime=terms.lifetime,
        shift=shift,
        cookies=cookies,
    )


class ReadyVariants:
    """A record of varying fields as the hit path needs it: `select(key, get)` gives the second key.

    Where one field varies, the keys of its usual values are remembered.
    """

    __slots__ = ("_chosen", "_field", "_keys")

    def __init__(self, chosen: tuple[Selector, ...]) -> None:
        self._chosen = chosen
        self._field = chosen[0].environ_name if len(chosen) == 1 else None
        self._keys: dict[str | None, str] = {}

    def select(self, base: str, get: Callable[[str], Any]) -> str:
        """The variant key for an environ whose cookies do not count."""
        if self._field is None:
            return select_variant(base, self._chosen, get)
        value = get(self._field)
        key = self._keys.get(value)
        if key is None:
            key = select_variant(base, self._chosen, get)
            if len(self._keys) < 256 and (value is None or len(value) <= 256):
                self._keys[value] = key
        return key
