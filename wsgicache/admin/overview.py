"""What the dashboard says of the cache as a whole: numbers of a while, and their plots. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from markupsafe import Markup

from ..history import FIELDS, Point
from ..observe import BYPASS, RULE
from ..savings import SAVED_BYTES, SAVED_TIME, named
from . import figures
from .plots import Plot, Span, bars, lines

HOUR: Final = 3600
DAY: Final = 24 * HOUR
DAY_SPAN: Final = 1800
"""Seconds of a bar in the plots of a day."""


class While(NamedTuple):
    """A while, in numbers and plots."""

    name: str
    title: str
    sums: Mapping[str, int]
    rows: Sequence[Point]
    plots: Sequence[tuple[Plot, Markup]]

    @property
    def hit_ratio(self) -> float | None:
        """Hits of those that the store might have answered."""
        return hit_ratio(self.sums)

    @property
    def coverage(self) -> float | None:
        """What the store might have answered, of all requests."""
        return coverage(self.sums)


def hit_ratio(numbers: Mapping[str, int]) -> float | None:
    """Hits / (hits + misses), as in `summary`."""
    asked = numbers["hits"] + numbers["misses"]
    return numbers["hits"] / asked if asked else None


def coverage(numbers: Mapping[str, int]) -> float | None:
    """(Hits + misses) / all requests, as in `summary`."""
    return (numbers["hits"] + numbers["misses"]) / numbers["requests"] if numbers["requests"] else None


def a_while(name: str, title: str, points: Sequence[Point], now: float, seconds: int) -> While:
    """The last while.

    Args:
        points: what happened, in the order of time; what lies before the while is left out.
    """
    points = [point for point in points if point.at > now - seconds]
    if seconds > HOUR:
        points = merged(points, DAY_SPAN)
    sums = {field: sum([point.numbers[field] for point in points]) for field in FIELDS}
    return While(name, title, sums, points, _plots(name, title, points, now - seconds, now, sums))


def merged(points: Iterable[Point], seconds: int) -> list[Point]:
    """Points of which each is as long as several were."""
    together: list[Point] = []
    for _, group in groupby(points, lambda point: (point.at - 1) // seconds):
        few = list(group)
        numbers = {field: sum([point.numbers[field] for point in few]) for field in FIELDS}
        together.append(Point(few[-1].at, sum([point.seconds for point in few]), numbers))
    return together


Values = Callable[[Mapping[str, int], float], Sequence[float | None]]


def _plots(
    name: str, title: str, points: Sequence[Point], start: float, end: float, sums: Mapping[str, int]
) -> list[tuple[Plot, Markup]]:
    def plot(kind: str, titled: str, text: str, series: Sequence[str], values: Values, **more: Any) -> Plot:
        spans = [Span(p.at - p.seconds, p.at, values(p.numbers, p.seconds / 60)) for p in points]
        return Plot(f"{name}-{kind}", titled, f"{title}: {text}", series, spans, start, end, **more)

    requests = plot(
        "requests", "Requests a minute",
        f"{figures.count(sums['requests'])} requests, {figures.count(sums['hits'])} of them hits and "
        f"{figures.count(sums['misses'])} misses.",
        ("hits", "misses", "others"),
        lambda n, minutes: [
            n["hits"] / minutes, n["misses"] / minutes,
            max(0, n["requests"] - n["hits"] - n["misses"]) / minutes,
        ],
        unit=_rate,
    )  # fmt: skip
    ratios = plot(
        "ratio", "Hit ratio and coverage",
        f"a hit ratio of {figures.percent(hit_ratio(sums))}, a coverage of "
        f"{figures.percent(coverage(sums))}.",
        ("hit ratio", "coverage"), lambda n, _: [hit_ratio(n), coverage(n)],
        unit="{:.0%}".format, top=1.0,
    )  # fmt: skip
    time = plot(
        "time", "Time saved, a minute",
        f"about {figures.duration(sums[SAVED_TIME] / 1000)} of the app's time.",
        ("time saved",), lambda n, minutes: [n[SAVED_TIME] / 1000 / minutes], unit=figures.duration,
    )  # fmt: skip
    size = plot(
        "bytes", "Bytes saved, a minute",
        f"about {figures.size(sums[SAVED_BYTES])} that the app did not have to make.",
        ("bytes saved",), lambda n, minutes: [n[SAVED_BYTES] / minutes], unit=figures.size,
    )  # fmt: skip
    return [(requests, bars(requests)), (ratios, lines(ratios)), (time, bars(time)), (size, bars(size))]


def _rate(n: float) -> str:
    return figures.count(n) if n >= 10 or n == int(n) else f"{n:.2g}"


# --- by route and by rule --------------------------------------------------------------------------


class Counted(NamedTuple):
    """What was counted under one name. `mean` is what the app takes, seconds."""

    name: str
    hits: int
    misses: int
    bypasses: int
    reasons: Sequence[tuple[str, int]]
    mean: float | None
    saved_seconds: float
    saved_bytes: int

    @property
    def hit_ratio(self) -> float | None:
        """Hits of those that the store might have answered."""
        return hit_ratio({"hits": self.hits, "misses": self.misses})


def by_route(counts: Mapping[str, int]) -> list[Counted]:
    """What was counted for each route, whatever the rule; the busiest first."""
    return _gathered(counts, lambda row: figures.readable(row.partition(RULE)[0]))


def by_rule(counts: Mapping[str, int]) -> list[Counted]:
    """What was counted under each rule, whatever the route; the busiest first. No rule has an empty name."""
    return _gathered(counts, lambda row: row.partition(RULE)[2])


def _gathered(counts: Mapping[str, int], name_of: Callable[[str], str]) -> list[Counted]:
    rows: dict[str, dict[str, int]] = {}
    for name, row in named(counts).items():
        if not row.keys().isdisjoint(("hits", "misses", "bypasses")):  # others count by name as well
            sums = rows.setdefault(name_of(name), {})
            for what, n in row.items():
                sums[what] = sums.get(what, 0) + n
    told = [_counted(name, row) for name, row in rows.items()]
    return sorted(told, key=lambda row: (-(row.hits + row.misses + row.bypasses), row.name))


def _counted(name: str, row: Mapping[str, int]) -> Counted:
    reasons = [(what[len(BYPASS) :], n) for what, n in row.items() if what.startswith(BYPASS)]
    asked = row.get("asked", 0)
    return Counted(
        name=name,
        hits=row.get("hits", 0),
        misses=row.get("misses", 0),
        bypasses=row.get("bypasses", 0),
        reasons=sorted(reasons, key=lambda pair: (-pair[1], pair[0])),
        mean=row.get("milliseconds", 0) / asked / 1000 if asked else None,
        saved_seconds=row.get(SAVED_TIME, 0) / 1000,
        saved_bytes=row.get(SAVED_BYTES, 0),
    )
