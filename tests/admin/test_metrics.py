"""Metrics: what is scraped is what was counted, under names that do not change, with labels that are few."""

import json
import re
from pathlib import Path

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from wsgicache import Reason, Rule, WSGICache
from wsgicache.metrics import GAUGES, CacheCollector, exposition
from wsgicache.observe import REASON
from wsgicache.telemetry import COUNTS, instrument
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask

DOCS = Path(__file__).parents[2] / "docs"
SECRET = "correct horse battery"


def site(store="memory://", **options):
    app = ScriptedApp(Response(body=b"page"))
    return WSGICache(app, store, rules=[Rule("/admin/*", bypass=True, name="admin")], **options)


def traffic(cache):
    """One miss, two hits, a bypass, an answer that is not stored."""
    for _ in range(3):
        ask(cache)
    ask(cache, "/admin/a")
    cache.app.answers(Response(headers=[("Cache-Control", "no-store")], body=b"x"))
    ask(cache, "/other")


def samples(text):
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(text.decode())
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def requests(scraped, reason):
    return scraped["wsgicache_requests_total", ("reason", reason.name)]


def test_what_was_counted_is_scraped():
    cache = site()
    traffic(cache)
    scraped = samples(exposition(cache))
    assert requests(scraped, Reason.HIT) == 2
    assert requests(scraped, Reason.URI_MISS) == 2
    assert requests(scraped, Reason.BYPASS_RULE) == 1
    assert scraped["wsgicache_settled_total", ("reason", Reason.NOT_STORED_NO_STORE.name)] == 1
    assert scraped["wsgicache_store_entries",] == 1
    assert scraped["wsgicache_shared",] == 0
    every = [value for name, value in scraped.items() if name[0] == "wsgicache_requests_total"]
    assert sum(every) == cache.stats()["requests"] == 5


def test_a_scrape_of_one_worker_tells_of_all():
    server = SharedServer()
    workers = [site(SharedStore(server)) for _ in range(2)]
    for worker in workers:
        traffic(worker)
    for worker in workers:
        exposition(worker)
    scraped = samples(exposition(workers[0]))
    assert scraped["wsgicache_shared",] == 1
    assert requests(scraped, Reason.HIT) == 5
    assert requests(scraped, Reason.BYPASS_RULE) == 2


def test_a_store_that_is_down_leaves_the_numbers_of_this_worker():
    server = SharedServer()
    cache = site(SharedStore(server))
    traffic(cache)
    server.down = True
    scraped = samples(exposition(cache))
    assert (scraped["wsgicache_shared",], requests(scraped, Reason.HIT)) == (0, 2)
    assert ("wsgicache_store_entries",) not in scraped


def test_the_labels_are_there_from_the_start_and_their_values_are_ours():
    scraped = samples(exposition(site()))
    reasons = {dict(name[1:])["reason"] for name in scraped if "reason" in dict(name[1:])}
    assert reasons == {reason.name for reason in Reason}


def test_every_counter_of_the_cache_is_one_of_a_metric():
    counted = set(site().engine.observer.counts())
    assert {name for count in COUNTS for name in count.values.values()} == counted
    assert {f"{REASON}{reason.name}" for reason in Reason} < counted


def test_caches_of_one_process_are_told_apart_by_a_label():
    registry = CollectorRegistry()
    caches = {name: site() for name in ("shop", "blog")}
    registry.register(CacheCollector(**caches))
    ask(caches["shop"])
    scraped = samples(generate_latest(registry))
    for name, misses in (("shop", 1), ("blog", 0)):
        assert scraped["wsgicache_requests_total", ("cache", name), ("reason", "URI_MISS")] == misses


def test_the_endpoint_is_scraped_with_the_secret_as_a_bearer_token():
    cache = site(admin_path="/.cache", secret=SECRET)
    traffic(cache)
    reply = ask(cache, "/.cache/metrics", headers={"Authorization": f"Bearer {SECRET}"})
    assert reply.field("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    assert requests(samples(reply.body), Reason.HIT) == 2
    assert ask(cache, "/.cache/metrics").code == 403


def test_opentelemetry_observes_the_same():
    cache = site()
    traffic(cache)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    instrument(cache, provider.get_meter("test"))
    (resource,) = reader.get_metrics_data().resource_metrics
    found = {metric.name: metric.data for metric in resource.scope_metrics[0].metrics}
    points = {point.attributes["reason"]: point.value for point in found["wsgicache.requests"].data_points}
    assert (points["HIT"], points["URI_MISS"]) == (2, 2)
    assert set(found) == {count.name.replace("_", ".", 1) for count in COUNTS}
    provider.shutdown()


def test_the_grafana_dashboard_asks_for_what_there_is():
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    there = {name[0] for name in samples(exposition(site()))}
    assert {name for text in asked for name in re.findall(r"wsgicache_\w+", text)} <= there
    reasons = {pattern for text in asked for pattern in re.findall(r'reason=~?"([^"]+)"', text)}
    known = [reason.name for reason in Reason]
    for pattern in [part for reason in reasons for part in reason.split("|")]:
        assert any(re.fullmatch(pattern, name) for name in known), pattern


def test_grafana_knows_all_that_the_dashboard_says():
    """Read as Grafana's own types and written again, nothing is lost: no name is misspelt or out of place."""
    models = pytest.importorskip("grafana_foundation_sdk.models.dashboard", reason="in the extra `test`")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins

    register_default_plugins()
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    again = json.loads(JSONEncoder().encode(models.Dashboard.from_json(dashboard)))
    assert list(lost(dashboard, again)) == []
    dashboard["panels"][0]["options"]["colourMode"] = "none"
    assert list(lost(dashboard, again)) == ["panels.0.options.colourMode"], "this test can fail"


def lost(given, kept, where=""):
    """What is in the one and not, or other, in the other."""
    if isinstance(given, dict) and isinstance(kept, dict):
        pairs = [(name, value, kept.get(name, ...)) for name, value in given.items()]
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        pairs = [(str(number), *pair) for number, pair in enumerate(zip(given, kept, strict=True))]
    else:
        if given != kept:
            yield where.removeprefix(".")
        return
    for name, value, other in pairs:
        yield from lost(value, other, f"{where}.{name}")


NEEDED = {
    "stat": {
        "colorMode", "graphMode", "justifyMode", "orientation", "percentChangeColorMode", "reduceOptions",
        "showPercentChange", "textMode", "wideLayout",
    },
    "timeseries": {"legend", "tooltip"},
}  # fmt: skip
"""What Grafana's JSON schemas (grafana-foundation-sdk, June 2026) require of the options of a panel."""


def test_the_panels_are_whole_and_stand_beside_each_other():
    dashboard = json.loads((DOCS / "grafana.json").read_text())
    assert {"schemaVersion", "templating", "annotations"} <= dashboard.keys()
    taken = set()
    for panel in dashboard["panels"]:
        assert NEEDED[panel["type"]] <= panel["options"].keys()
        if panel["type"] == "timeseries":
            assert panel["options"]["legend"].keys() == {"showLegend", "displayMode", "placement", "calcs"}
            assert panel["options"]["tooltip"].keys() == {"mode", "sort"}
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource"]


def test_its_hit_ratio_is_that_of_the_cache():
    """The reasons that its expressions count as hits and misses are those of `observe`."""
    from wsgicache.observe import _MISSES, DECISIONS

    text = (DOCS / "grafana.json").read_text()
    (misses,) = set(re.findall(r'reason=~\\"([^"\\]*URI_MISS[^"\\]+)\\"', text))
    (hits,) = set(re.findall(r'reason=~\\"(HIT|HIT\|[^"\\]*)\\"', text))
    assert {reason for reason in DECISIONS if re.fullmatch(misses, reason.name)} == _MISSES
    assert {r.name for r in DECISIONS if re.fullmatch(hits, r.name)} == {
        r.name for r in DECISIONS if r.is_hit
    }


def test_the_page_about_metrics_names_them_all():
    text = (DOCS / "metrics.md").read_text()
    named = set(re.findall(r"`(wsgicache_\w+)`", text))
    there = {name[0] for name in samples(exposition(site()))}
    assert there - {f"wsgicache_store_{gauge}" for gauge in GAUGES} <= named
