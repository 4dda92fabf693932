"""Numbers for Prometheus and OpenTelemetry.

    from prometheus_client import REGISTRY
    from wsgicache.metrics import CacheCollector

    REGISTRY.register(CacheCollector(cache))

Nothing is counted for this: a scrape reads the counters that the cache keeps anyway. Where workers share a
store the counters are those of all of them, as far as they have told, so that it does not matter which worker
a scrape reaches and no files of prometheus_client's multiprocess mode are needed; else they are this
process's. Labels are few and their values are known beforehand: no path, no key, no client's text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from ._version import __version__
from .engine import Engine
from .observe import DECISIONS, REASON
from .outcome import Reason
from .stores import StoreError

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "wsgicache.metrics needs prometheus-client: pip install 'wsgicache[metrics]'"
    ) from error

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


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

GAUGES: Final = {
    "entries": "Entries in the store.",
    "bytes": "Bytes that they take.",
    "max_bytes": "Bytes that they may take.",
}
"""Numbers of the store that may go down; others that a store tells are not passed on."""


class HasEngine(Protocol):
    """A cache, as far as this module needs one."""

    @property
    def engine(self) -> Engine:
        """What counts."""
        ...


def counters(cache: HasEngine) -> tuple[Mapping[str, int], bool]:
    """The counters of all workers where they share a store that answers, else of this process; and which."""
    return cache.engine.counters()


def _stats(cache: HasEngine) -> Mapping[str, int]:
    try:
        return cache.engine.store.stats()
    except StoreError:
        return {}


class CacheCollector(Collector):
    """Gives the numbers of a cache to a registry of prometheus_client.

    Args:
        cache: the cache.
        caches: where a process has several: each under the name that its label `cache` shall have.
    """

    def __init__(self, cache: HasEngine | None = None, **caches: HasEngine) -> None:
        self._caches: dict[str, HasEngine] = dict(caches) if cache is None else {"": cache, **caches}
        self._labels = ["cache"] if caches else []

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        counted = {name: counters(cache) for name, cache in self._caches.items()}
        stats = {name: _stats(cache) for name, cache in self._caches.items()}
        info = InfoMetricFamily("wsgicache", "The cache.", labels=self._labels)
        told = GaugeMetricFamily(
            "wsgicache_shared", "Whether the counters are those of all workers.", labels=self._labels
        )
        for name, cache in self._caches.items():
            profile = cache.engine.settings.profile
            info.add_metric(self._values(name), {"version": __version__, "profile": profile})
            told.add_metric(self._values(name), int(counted[name][1]))
        yield info
        yield told
        for count in COUNTS:
            yield self._family(count, {name: numbers for name, (numbers, _) in counted.items()})
        for gauge, meaning in GAUGES.items():
            family = GaugeMetricFamily(f"wsgicache_store_{gauge}", meaning, labels=self._labels)
            for name, numbers in stats.items():
                if gauge in numbers:
                    family.add_metric(self._values(name), numbers[gauge])
            yield family

    def _family(self, count: Count, counted: Mapping[str, Mapping[str, int]]) -> Metric:
        label = [] if count.label is None else [count.label]
        family = CounterMetricFamily(count.name, count.meaning, labels=[*self._labels, *label])
        for name, numbers in counted.items():
            for value, counter in count.values.items():
                family.add_metric([*self._values(name), *([value] if label else [])], numbers.get(counter, 0))
        return family

    def _values(self, name: str) -> list[str]:
        return [name] if self._labels else []


def exposition(cache: HasEngine) -> bytes:
    """A cache's numbers as a scrape reads them, in the text format of Prometheus."""
    registry = CollectorRegistry()
    registry.register(CacheCollector(cache))
    return generate_latest(registry)


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
