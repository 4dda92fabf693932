"""The client: a site's cache from outside, without its app."""

import pytest
from shared_helpers import Site, refuse

from wsgicache import Reason, Rule
from wsgicache.client import Client
from wsgicache.options import OptionError
from wsgicache.sharing import SITE
from wsgicache.stores import StoreError
from wsgicache.testing import FailingStore, Response, SharedStore

RULES = [
    Rule("/search", query="key", ignore_query=("utm_*",)),
    Rule("/list", query="sort"),
    Rule("/admin/*", bypass=True, name="admin"),
]


def client(site, **options):
    return Client(SharedStore(site.server, memo_bytes=0), **options)


@pytest.fixture
def site():
    site = Site(rules=RULES)
    site.response = lambda environ, version: Response(headers=[("Cache-Tag", "posts")], body=b"x")
    return site


@pytest.mark.parametrize(
    "purge",
    [
        lambda site: site.purge("/search"),
        lambda site: site.purge("http://example.com/search?q=1"),
        lambda site: site.purge("http://example.com/search?q=1&utm_source=x"),
        lambda site: site.purge("/search?q=1&utm_source=x"),
        lambda site: site.purge_prefix("/search"),
        lambda site: site.purge_groups("posts", origin="http://example.com"),
        lambda site: site.clear(),
    ],
)
def test_its_purges_reach_what_the_site_stored(site, purge):
    """A query is keyed as the site's rules say, though the client has none."""
    (worker,) = site.workers(1)
    worker.ask("/search?q=1")
    worker.ask("/search?q=1&utm_campaign=y")
    assert worker.calls == 1
    assert purge(client(site)).matched >= 1
    reply = worker.ask("/search?q=1")
    assert (reply.is_hit, worker.calls) == (False, 2)


def test_a_query_that_is_keyed_in_order_too(site):
    (worker,) = site.workers(1)
    worker.ask("/list?b=1&a=2")
    assert client(site).purge("http://example.com/list?b=1&a=2").matched == 1


def test_it_says_when_nothing_was_there(site):
    (worker,) = site.workers(1)
    worker.ask("/search?q=1")
    assert client(site).purge("https://example.com/search?q=1").matched == 0
    assert client(site, namespace="other").purge("/search").matched == 0
    assert worker.ask("/search?q=1").is_hit


def test_numbers_are_those_of_all_workers(site):
    one, two = site.workers()
    one.ask()
    for worker in (one, one, two):
        worker.ask()
    two.ask("/admin/")
    for worker in (one, two):
        worker.cache.close()
    stats = client(site).stats()
    assert (stats["requests"], stats["hits"], stats["misses"]) == (5, 3, 1)
    assert (stats["hit_ratio"], stats["coverage"]) == (0.75, 0.8)
    assert stats["reasons"][Reason.BYPASS_RULE.name] == 1
    assert stats["store"]["entries"] == 1


def test_a_worker_tells_now_and_then_and_never_twice(site):
    (worker,) = site.workers(1)
    for _ in range(3):
        worker.ask()
    assert client(site).stats()["requests"] == 0
    site.clock.tick(11)
    worker.ask("/a")  # past the hit path
    assert client(site).stats()["requests"] == 3
    worker.ask(method="HEAD")
    site.clock.tick(11)
    worker.ask("/b")
    assert client(site).stats()["requests"] == 5


def test_a_site_that_has_nothing_but_hits_tells_too(site):
    (worker,) = site.workers(1)
    worker.ask()
    for _ in range(30):
        site.clock.tick(1)
        assert worker.ask().is_hit
    assert client(site).stats()["hits"] >= 18


def test_a_site_that_has_nothing_but_bypasses_tells_too(site):
    (worker,) = site.workers(1)
    for _ in range(30):
        worker.ask("/admin/")
        site.clock.tick(1)
    assert client(site).stats()["requests"] >= 18


def test_what_could_not_be_told_is_told_later(site):
    (worker,) = site.workers(1)
    worker.ask()
    site.clock.tick(11)
    add, worker.store.incr_many = worker.store.incr_many, refuse
    worker.ask()
    worker.store.incr_many = add
    site.clock.tick(11)
    worker.ask("/a")
    assert client(site).stats()["requests"] == 2


def test_rules_are_seen_and_switched(site):
    one, two = site.workers()
    one.ask()
    outside = client(site)
    assert [(state.label, state.enabled) for state in outside.rules.states()] == [
        ("/search", True), ("/list", True), ("admin", True)
    ]  # fmt: skip
    outside.rules.disable("admin")
    two.ask()
    one.ask(method="HEAD")
    for worker in (one, two):
        assert worker.ask("/admin/a").detail != Reason.BYPASS_RULE.name
    assert outside.rules.states()[2].enabled is False
    outside.rules.enable("admin")
    one.ask(method="HEAD")
    assert one.ask("/admin/a").detail == Reason.BYPASS_RULE.name


def test_an_unknown_rule_is_an_error_that_lists_the_known_ones(site):
    with pytest.raises(KeyError, match="has the site answered"):
        client(site).rules.enable("admin")
    site.workers(1)[0].ask()
    with pytest.raises(KeyError, match="no rule is named 'amdin'; known: admin"):
        client(site).rules.enable("amdin")


@pytest.mark.parametrize("text", ["", "no json", "[1]", "{}"])
def test_a_description_of_another_version_is_none(site, text):
    outside = client(site)
    outside.store.set_meta(SITE, text)
    assert outside.rules.states() == []
    assert outside.purge("/a?b").matched == 0


def test_one_process_memory_is_refused_with_the_remedy():
    for store in ("memory://", FailingStore()):
        with pytest.raises(OptionError, match=r"redis:// or lmdb://.*cache\.purge"):
            Client(store)
    with pytest.raises(OptionError, match="no store is known for rediss3://"):
        Client("rediss3://a")


def test_a_server_that_is_down_is_an_error(site):
    site.server.down = True
    with client(site) as outside, pytest.raises(StoreError):
        outside.purge("/a")
