"""Numbers for Prometheus.

    from prometheus_client import REGISTRY
    from wsgicache.metrics import CacheCollector

    REGISTRY.register(CacheCollector(cache))

Nothing is counted for this: a scrape reads the counters that the cache keeps anyway. Where workers share a
store the counters are those of all of them, as far as they have told, so that it does not matter which worker
a scrape reaches and no files of prometheus_client's multiprocess mode are needed; else they are this
process's. Labels are few and their values are known beforehand: no path, no key, no client's text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ._version import __version__
from .stores import StoreError
from .telemetry import COUNTS, Count, HasEngine, counters

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        "wsgicache.metrics needs prometheus-client: pip install 'wsgicache[metrics]'"
    ) from error

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


GAUGES: Final = {
    "entries": "Entries in the store.",
    "bytes": "Bytes that they take.",
    "max_bytes": "Bytes that they may take.",
}
"""Numbers of the store that may go down; others that a store tells are not passed on."""


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
