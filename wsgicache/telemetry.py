"""The counters of a cache as graphs show them: names, meanings and labels that do not change.

`wsgicache.metrics` gives them to Prometheus, `instrument` to OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from .engine import Engine
from .observe import DECISIONS, REASON
from .outcome import Reason


class Count(NamedTuple):
    """A counter of the cache: its name for people who read graphs, its meaning, its label and its values."""

    name: str
    meaning: str
    label: str | None
    values: Mapping[str, str]
    """The cache's name of each counter, by the value of the label."""


def _named(reasons: Collection[Reason]) -> dict[str, str]:
    return {reason.name: REASON + reason.name for reason in Reason if reason in reasons}


COUNTS: Final = (
    Count(
        "wsgicache_requests",
        "Requests, by the decision of the cache: each has exactly one.",
        "reason",
        {**_named(DECISIONS), "CACHE_FAULT": "unjudged"},
    ),
    Count(
        "wsgicache_settled",
        "What became of answers of the app, and what else there is to say of a request.",
        "reason",
        _named(set(Reason) - DECISIONS - {Reason.CACHE_FAULT}),
    ),
    Count("wsgicache_collapsed", "Requests that shared the answer to another.", None, {"": "collapsed"}),
    Count(
        "wsgicache_refreshes",
        "Refreshes that no visitor waited for.",
        "result",
        {"stored": "refreshes", "failed": "refreshes_failed"},
    ),
    Count("wsgicache_faults", "Faults of the cache itself.", None, {"": REASON + Reason.CACHE_FAULT.name}),
    Count("wsgicache_store_failures", "Calls of the store that failed.", None, {"": "store_failures"}),
    Count(
        "wsgicache_variants_dropped",
        "Variants that made room for others of their URL.",
        None,
        {"": "variants_dropped"},
    ),
)
"""Every counter, with the suffix `_total` that Prometheus gives them."""


class HasEngine(Protocol):
    """A cache, as far as this module needs one."""

    @property
    def engine(self) -> Engine:
        """What counts."""
        ...


def counters(cache: HasEngine) -> tuple[Mapping[str, int], bool]:
    """The counters of all workers where they share a store that answers, else of this process; and which."""
    return cache.engine.counters()


def instrument(cache: HasEngine, meter: Any) -> None:
    """Give a cache's numbers to OpenTelemetry: one observable counter for each of `COUNTS`.

    Args:
        meter: an `opentelemetry.metrics.Meter`.
    """
    from opentelemetry.metrics import Observation

    def observed(count: Count) -> Callable[[Any], Iterable[Any]]:
        def observe(options: Any) -> Iterable[Any]:
            counted, _ = counters(cache)
            for value, name in count.values.items():
                yield Observation(counted.get(name, 0), {} if count.label is None else {count.label: value})

        return observe

    for count in COUNTS:
        meter.create_observable_counter(
            count.name.replace("_", ".", 1), callbacks=[observed(count)], description=count.meaning
        )
