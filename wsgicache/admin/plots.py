"""Plots as SVG, made here so that they need no script. Pure.

Colours, lines and sizes of text stand in the style sheet, because a strict policy allows no style in a page.
A plot says in words what it shows; its numbers stand in a table beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import floor, log10
from typing import Final, NamedTuple

from markupsafe import Markup

from .figures import clock_time

WIDTH: Final = 420
HEIGHT: Final = 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 8, 10, 24
_TICKS: Final = 4


class Span(NamedTuple):
    """Seconds on the wall clock, and a value for each series in it; None: there is none."""

    start: float
    end: float
    values: Sequence[float | None]


class Plot(NamedTuple):
    """What a plot shows.

    Attributes:
        name: an id for the page: letters and hyphens.
        title: what it is called.
        text: what can be seen in it, in a sentence.
        series: names of the series; their class in the style sheet is `series-N`.
        spans: in the order of time.
        start: the left edge, seconds on the wall clock.
        end: the right edge.
        unit: writes a value on the axis.
        top: the highest value on the axis; None: as high as the values are.
    """

    name: str
    title: str
    text: str
    series: Sequence[str]
    spans: Sequence[Span]
    start: float
    end: float
    unit: Callable[[float], str]
    top: float | None = None


def bars(plot: Plot) -> Markup:
    """The series on top of each other, a bar for each span."""
    highest = max([sum([value or 0 for value in span.values]) for span in plot.spans], default=0)
    return _framed(plot, _round_up(highest), _bars)


def lines(plot: Plot) -> Markup:
    """A line for each series, broken where there is no value."""
    highest = max([value or 0 for span in plot.spans for value in span.values], default=0)
    return _framed(plot, _round_up(highest), _lines)


def _framed(plot: Plot, highest: float, draw: Callable[[Plot, float], Markup]) -> Markup:
    top = highest if plot.top is None else plot.top
    return Markup(
        '<svg class="plot" viewBox="0 0 {} {}" role="img" aria-labelledby="{name}-title {name}-text">'
        '<title id="{name}-title">{}</title><desc id="{name}-text">{}</desc>{}{}</svg>'
    ).format(WIDTH, HEIGHT, plot.title, plot.text, _axes(plot, top), draw(plot, top), name=plot.name)


def _axes(plot: Plot, top: float) -> Markup:
    parts = Markup()
    for tick in range(_TICKS + 1):
        y = _y(top * tick / _TICKS, top)
        parts += Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
            _LEFT, WIDTH - _RIGHT, y, y
        )
        if tick % 2 == 0:
            parts += Markup('<text class="value" x="{}" y="{}">{}</text>').format(
                _LEFT - 6, y + 4, plot.unit(top * tick / _TICKS)
            )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        at = plot.start + share * (plot.end - plot.start)
        parts += Markup('<text class="{}" x="{}" y="{}">{}</text>').format(
            anchor, _x(plot, at), HEIGHT - 6, clock_time(at)
        )
    return parts


def _bars(plot: Plot, top: float) -> Markup:
    parts = Markup()
    for span in plot.spans:
        left, right = _x(plot, max(span.start, plot.start)), _x(plot, span.end)
        base = 0.0
        for number, value in enumerate(span.values):
            if value:
                y, bottom = _y(base + value, top), _y(base, top)
                parts += Markup('<rect class="series-{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                    number, left, y, max(1.0, round(right - left - 1, 1)), round(bottom - y, 1)
                )
                base += value
    return parts


def _lines(plot: Plot, top: float) -> Markup:
    parts = Markup()
    for number in range(len(plot.series)):
        path, drawing = [], False
        for span in plot.spans:
            value = span.values[number]
            if value is not None:
                y = _y(value, top)
                left, right = _x(plot, max(span.start, plot.start)), _x(plot, span.end)
                path.append(f"{'L' if drawing else 'M'}{left} {y}H{right}")
            drawing = value is not None
        if path:
            parts += Markup('<path class="line series-{}" d="{}"/>').format(number, "".join(path))
    return parts


def _x(plot: Plot, at: float) -> float:
    share = (at - plot.start) / max(1.0, plot.end - plot.start)
    return round(_LEFT + min(1.0, max(0.0, share)) * (WIDTH - _LEFT - _RIGHT), 1)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - _BOTTOM - value / top * (HEIGHT - _BOTTOM - _TOP), 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 4, 10, 20, …, so that quarters of it are good to read."""
    if value < 1e-300:  # nothing, or next to it: there is no power of ten below
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next(float(step * power) for step in (1, 2, 4, 10) if value <= step * power * (1 + 1e-9))
