"""What a store says of itself to whoever runs it: is it set up well, and if not, what to do.

A store may have `advice(largest) -> Iterable[Advice]`, where `largest` is the size in bytes of the largest
body that the cache would store. `wsgicache check` and dashboards ask for it; requests never do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "not looked at"


@dataclass(frozen=True)
class Advice:
    """One thing that was looked at.

    Attributes:
        subject: what, in a word or two.
        level: how bad it is.
        text: what was found.
        remedy: what to do about it; empty where nothing is wrong.
    """

    subject: str
    level: Level
    text: str
    remedy: str = ""


def apart(told: float, before: float, after: float) -> float:
    """Seconds by which another clock is surely ahead of ours; negative: behind.

    Args:
        told: what it said.
        before: our clock when it was asked.
        after: our clock when the answer was there.
    """
    return max(0.0, told - after) or min(0.0, told - before)


def size(number: float) -> str:
    """Bytes for people, in powers of 1000 as the options have them."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 99.5 else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
