"""What is stored around a value that needs more than a timeout: a soft expiry, and births.

A birth is a version key with the token it had when the value began to be made. The value is good for as
long as each of its version keys still holds that token; so one write to a version key, or its loss, ends
every value born under it, and a value that was being made meanwhile is never good.

The envelope is a tuple of plain data, so that every serializer can carry it; JSON makes a list of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

_MAGIC: Final = "\x00wsgicache"
_LENGTH: Final = 4

Births = tuple[tuple[str, str], ...]


class Envelope(NamedTuple):
    """A value with its terms.

    Attributes:
        value: the value.
        soft_until: wall-clock seconds after which it is stale though still stored; None means never.
        births: pairs of version key and token.
    """

    value: Any
    soft_until: float | None
    births: Births

    def is_fresh(self, now: float) -> bool:
        """Whether the soft expiry is still to come."""
        return self.soft_until is None or now < self.soft_until

    def is_current(self, tokens: Mapping[str, Any]) -> bool:
        """Whether no version key has moved on."""
        return all(tokens.get(key) == token for key, token in self.births)


def sealed(value: Any, soft_until: float | None = None, births: Iterable[tuple[str, str]] = ()) -> Any:
    """The stored form of an envelope."""
    return (_MAGIC, value, soft_until, tuple(births))


def opened(stored: Any) -> Envelope | None:
    """The envelope that is stored, or None where the value stands alone."""
    if type(stored) not in (tuple, list) or len(stored) != _LENGTH or stored[0] != _MAGIC:
        return None
    return Envelope(stored[1], stored[2], tuple((key, token) for key, token in stored[3]))
