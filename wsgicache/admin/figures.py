"""Numbers as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

NONE: Final = "\N{EN DASH}"
"""In place of a number that there is not."""

_BYTES: Final = ("B", "kB", "MB", "GB", "TB", "PB")
_TIMES: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def count(n: float | None) -> str:
    """A whole number, in groups of three digits."""
    return NONE if n is None else f"{round(n):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def percent(share: float | None) -> str:
    """A share of one, as per cent."""
    if share is None:
        return NONE
    return f"{share:.0%}" if share in (0, 1) else f"{share * 100:.1f}%"


def size(n: float | None) -> str:
    """Bytes."""
    if n is None:
        return NONE
    unit = 0
    while n >= 999.5 and unit < len(_BYTES) - 1:
        n, unit = n / 1000, unit + 1
    return f"{_short(n)} {_BYTES[unit]}"


def duration(seconds: float | None) -> str:
    """Seconds."""
    if seconds is None:
        return NONE
    if seconds < 0:
        return f"-{duration(-seconds)}"
    for length, unit in _TIMES:
        if seconds >= length:
            return f"{_short(seconds / length)} {unit}"
    return f"{_short(seconds * 1000)} ms" if seconds else "0 s"


def _short(n: float) -> str:
    """Three digits, or as many as it has before the point."""
    digits = 0 if n >= 100 or n == int(n) else 1 if n >= 10 else 2
    text = f"{n:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def instant(at: float) -> str:
    """An instant as a date and a time of day, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock_time(at: float) -> str:
    """An instant as a time of day, UTC."""
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M")


def readable(path: str) -> str:
    """A path or a key as WSGI gives it, as text: bytes read as UTF-8, what cannot be seen spelled out."""
    text = path.encode("latin-1", "backslashreplace").decode("utf-8", "backslashreplace")
    return "".join([char if char.isprintable() else f"\\x{ord(char):02x}" for char in text])
