"""What hits spared the app: about, because nobody knows how long a page would have taken that was not made.

A hit of a page counts as the mean of what the app took for pages counted under the same name, and of the
bytes that were stored for them. It is added up as it goes, by the means of that time, so that what is told of
an hour does not change when an app gets slower in the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

SAVED_TIME: Final = "saved_milliseconds"
SAVED_BYTES: Final = "saved_bytes"

_MEANS: Final = ((SAVED_TIME, "milliseconds", "asked"), (SAVED_BYTES, "bytes", "stored"))
"""What is saved, and the counters whose quotient a hit saves of it."""


def named(counts: Mapping[str, int]) -> dict[str, dict[str, int]]:
    """Counters that are called `what<name>`, by name and then by what."""
    rows: dict[str, dict[str, int]] = {}
    for counter, n in counts.items():
        what, bracket, name = counter.partition("<")
        if bracket and name.endswith(">"):
            rows.setdefault(name[:-1], {})[what] = n
    return rows


def savings(
    new: Mapping[str, int], own: Mapping[str, int], all_counts: Callable[[], Mapping[str, int]]
) -> dict[str, int]:
    """What new hits saved, as counters to add.

    Args:
        new: what was counted since the last time.
        own: what this process has counted.
        all_counts: what all processes have: asked where a page was hit here and made elsewhere.
    """
    shared: Mapping[str, int] | None = None
    saved: dict[str, int] = {}
    for name, hits in _hits(new):
        for what, total, number in _MEANS:
            if not own.get(f"{number}<{name}>"):
                shared = all_counts() if shared is None else shared
            counts = own if own.get(f"{number}<{name}>") else shared or {}
            of = counts.get(f"{number}<{name}>", 0)
            if of:
                saved[f"{what}<{name}>"] = round(hits * counts.get(f"{total}<{name}>", 0) / of)
    return saved


def _hits(counts: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    for counter, n in counts.items():
        if counter.startswith("hits<") and n > 0:
            yield counter[len("hits<") : -1], n


def saved(counts: Mapping[str, int]) -> dict[str, int]:
    """All that was saved, whatever the name."""
    return {
        what: sum([n for counter, n in counts.items() if counter.startswith(f"{what}<")])
        for what in (SAVED_TIME, SAVED_BYTES)
    }
