"""When a page is made again before it has to be: early refreshes, and lifetimes shortened at random. Pure:
the random numbers come in.

An early refresh follows XFetch (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
Prevention", VLDB 2015): a request refreshes a page that is still fresh where `now - cost * beta * log(u)`
lies past its end, with `u` drawn anew from (0, 1] by every request. The hit path draws nothing. Its slot
ends early instead, at an instant that is drawn once for many requests: the earliest of `LOOKS` such draws.
With that many a refresh begins in time, as it does for a busy page where each request draws; after a single
draw it would come too late in two of three times.
"""

from __future__ import annotations

from math import expm1, log, log2
from typing import Final

LOOKS: Final = 16
"""Requests that one draw stands for: the paper's rule for a page that is asked for so often while the app
makes it. The refresh then begins too late once in 1,500 times (beta 1, an app that always takes as long)."""

_STEPS: Final = 32
"""Parts that the range of a jitter has: entries share what is equal about them, so that there are few."""


def cost_of(seconds: float) -> int:
    """What a response cost the app, in whole milliseconds; 0 where that is less than one.

    Rounded to half octaves, so that the entries of a site share few different values.
    """
    milliseconds = seconds * 1000
    return round(2 ** (round(2 * log2(milliseconds)) / 2)) if milliseconds >= 1 else 0


def lead(cost: int, beta: float, u: float, looks: int = LOOKS) -> float:
    """Seconds before its end at which a page is to be refreshed: the longest of several exponential draws.

    Args:
        cost: milliseconds that the app took.
        beta: the option `early_refresh`.
        u: a random number, 0 <= u < 1.
        looks: how many requests draw.
    """
    # With v = 1 - u, v ** (1 / looks) is the largest of `looks` random numbers; each draws -log(1 - number).
    smallest = -expm1(log(1.0 - u) / looks)
    return -log(max(smallest, 1e-18)) * beta * cost / 1000


def usual_lead(cost: int, beta: float, looks: int = LOOKS) -> float:
    """The mean of `lead`."""
    return sum([1 / n for n in range(1, looks + 1)]) * beta * cost / 1000


def first_try(now: float, end: float, cost: int, beta: float, u: float) -> float:
    """The instant from which a page is to be refreshed early.

    Half of what is left when this is drawn passes at least: a page that takes the app as long as it lives
    would be refreshed without a pause.

    Args:
        now: the instant of the draw, of any clock.
        end: the instant, of the same clock, at which the page becomes stale.
    """
    return end - min(lead(cost, beta, u), (end - now) / 2)


def next_try(now: float, end: float, cost: int) -> float:
    """The instant from which a page is tried again whose early refresh failed, or is under way: halfway to
    the end, so that there are few of them, and never so late that it could not help."""
    pause = (end - now) / 2
    return now + pause if pause > cost / 1000 else end


def shortened(lifetime: int, age: int, jitter: int, u: float) -> int:
    """A lifetime made shorter by up to `jitter` seconds, and by at most half of what is left of it.

    Args:
        lifetime: whole seconds.
        age: what has passed of them already.
        jitter: the option, whole seconds.
        u: a random number, 0 <= u < 1.
    """
    most = min(jitter, (lifetime - age) // 2)
    if most <= 0:
        return lifetime
    if most < _STEPS:
        return lifetime - int(u * (most + 1))
    return lifetime - int(u * (_STEPS + 1)) * most // _STEPS
