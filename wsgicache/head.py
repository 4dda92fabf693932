"""The head of the app's answer, read once. Pure, and silent about what it means."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from .entry import Headers
from .fields import is_field_value, is_token


class Head:
    """A response head: the status line, the fields in order, and their values by lower-case name.

    `length` is the declared Content-Length; -1 where it is junk or contradicts itself. `sound` says whether
    it may be sent as it is: names that are tokens, no control bytes in values and status (RFC 9110 §5.5).
    """

    __slots__ = ("code", "fields", "headers", "length", "sound", "status")

    def __init__(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        self.status = status
        self.headers: Headers = tuple(map(tuple, headers))  # type: ignore[arg-type]
        self.code, sound = _read_status(status)
        fields: dict[str, str] = {}
        known = _names
        for name, value in self.headers:
            lower = known.get(name)
            if lower is None:
                lower = _lower(name)
                sound = sound and is_token(name)
            fields[lower] = f"{fields[lower]}, {value}" if lower in fields else value
            if not (value.isascii() and value.isprintable()):
                sound = sound and is_field_value(value)
        self.fields = fields
        self.sound = sound
        length = fields.get("content-length")
        if length is None:
            self.length: int | None = None
        else:
            plain = length.isascii() and length.isdigit() and len(length) < 19
            self.length = int(length) if plain else -1


_names: Final[dict[str, str]] = {}


def _lower(name: str) -> str:
    """A field name in lower case; one that is a token is remembered, since all pages have the same few."""
    lower = name.lower()
    if is_token(name) and len(name) <= 64:
        if len(_names) >= 1024:
            _names.clear()
        _names[name] = lower
    return lower


@lru_cache(maxsize=256)
def _read_status(status: str) -> tuple[int, bool]:
    """The code of a status line, 0 where there is none, and whether the line may be sent."""
    return int(status[:3]) if status[:3].isdecimal() else 0, is_field_value(status)
