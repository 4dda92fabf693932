"""Purges in one process reach the others, also where the store was down when they were due."""

import contextlib

import pytest
from shared_helpers import Later, Site, refuse

from wsgicache import Reason, WSGICache
from wsgicache.client import Client
from wsgicache.stores import StoreError
from wsgicache.testing import Response, ScriptedApp, SharedStore, ask


def served(site, *workers):
    """Have workers serve the page from what they have decoded."""
    for worker in workers * 3:
        worker.ask()


PURGES = [
    lambda cache, soft: cache.purge("/page", soft=soft),
    lambda cache, soft: cache.purge("http://example.com/page", soft=soft),
    lambda cache, soft: cache.purge_prefix("/page", soft=soft),
    lambda cache, soft: cache.purge_groups("posts", soft=soft),
    lambda cache, soft: cache.clear(soft=soft),
]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("purge", PURGES)
def test_a_purge_reaches_the_others_before_it_returns(purge, soft):
    site = Site()
    site.response = lambda environ, version: Response(headers=[("Cache-Tag", "posts")], body=b"v%d" % version)
    one, two = site.workers()
    served(site, one, two)
    site.version = 2
    purge(one.cache, soft)
    for worker in (two, one):
        reply = worker.ask()
        assert reply.body == b"v2"
    assert two.calls == 1


def test_it_tells_how_many_it_reached():
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    assert two.cache.purge("/page").matched == 1
    assert two.cache.purge("/page").matched == 0
    assert two.cache.purge("/nothing").matched == 0
    one.ask()
    assert two.cache.clear().matched == 1


def test_the_purge_of_another_page_costs_one_look():
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    one.cache.purge("/other")
    trips, reply = site.trips(two.ask)
    assert (trips, reply.is_hit) == (2, True), "confirm, then what is new in the journal"
    trips, reply = site.trips(two.ask)
    assert (trips, reply.is_hit) == (1, True)


@pytest.mark.parametrize("purge", PURGES)
def test_con_01_a_fill_that_was_under_way_is_not_served(purge):
    site = Site()
    site.response = lambda environ, version: Response(headers=[("Cache-Tag", "posts")], body=b"v%d" % version)
    one, two = site.workers()
    gate = one.app.hold("/page")
    late = Later(one.ask)
    gate.wait_entered()
    site.version = 2
    purge(two.cache, False)
    gate.open()
    assert late.result().body == b"v1"
    assert one.cache.stats()["reasons"][Reason.NOT_STORED_RACED.name] == 1
    for worker in (two, one):
        assert worker.ask().body == b"v2"


def test_an_unsafe_request_invalidates_everywhere():
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    site.version = 2
    one.ask(method="POST", body=b"x")
    assert two.ask().body == b"v2"


def test_a_purge_that_the_store_does_not_take_is_an_error():
    site = Site()
    (worker,) = site.workers(1)
    worker.ask()
    site.server.down = True
    with pytest.raises(StoreError):
        worker.cache.purge("/page")
    site.server.down = False
    assert worker.ask().is_hit


def test_an_invalidation_that_the_store_did_not_take_is_made_up_for():
    """The page that was changed meanwhile is not served again, whoever asks first when the store is back."""
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    site.server.down = True
    site.version = 2
    assert one.ask(method="POST", body=b"x").code == 200
    assert one.ask().detail == Reason.STORE_DOWN.name
    site.server.down = False
    reply = one.ask()
    assert (reply.is_hit, reply.body) == (False, b"v2")
    assert two.ask().body == b"v2"
    assert [worker.ask().is_hit for worker in (one, two)] == [True, True]


def test_too_many_of_them_purge_everything():
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    site.server.down = True
    for number in range(1001):
        one.ask(f"/{number}", method="POST", body=b"x")
    site.server.down = False
    site.version = 2
    one.ask("/other")
    assert two.ask().body == b"v2"
    assert len(site.server.journal.since(None).records) == 1


def test_everything_is_purged_also_where_nobody_can_count_it():
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    one.store.stats = refuse
    assert one.cache.clear().matched is None
    assert not two.ask().is_hit


class Parted(SharedStore):
    """A store with several journals, of which one may be down."""

    def __init__(self, server):
        super().__init__(server)
        self.parts = tuple([SharedStore(server.part(name)) for name in ("a", "b", "c")])
        self.peek = lambda key: self.parts[self.part_of(key)].peek(key)

    def part_of(self, key):
        return "/a/b/c".find(key[:2]) // 2


@pytest.mark.parametrize(
    "purge",
    [
        lambda caches: caches[0].purge_prefix("/"),
        lambda caches: caches[0].clear(),
        lambda caches: caches[2].purge_prefix("/"),
        lambda caches: caches[2].clear(),
        lambda caches: [ask(caches[0], url, method="POST") for url in ("/a", "/b", "/c")],
    ],
)
def test_a_part_that_is_down_keeps_no_purge_from_the_others(purge):
    site = Site()
    one, two = [WSGICache(ScriptedApp(site.answer), Parted(site.server), clock=site.clock) for _ in "12"]
    urls = ("/a", "/b", "/c")
    for url in urls:
        ask(one, url)
        assert ask(two, url).is_hit
    site.version = 2
    site.server.part("b").down = True
    with contextlib.suppress(StoreError):  # nobody hears of what an unsafe request could not purge
        purge((one, two, Client(Parted(site.server))))
    assert [ask(two, url).body for url in ("/a", "/c")] == [b"v2", b"v2"]


def test_nobody_insists_to_pay_what_is_owed():
    """A store that is not to be asked for a while refuses to be read, but takes a purge however long that
    lasts; requests that look something up must not wait for it one after another."""
    site = Site()
    one, two = site.workers()
    served(site, one, two)
    site.server.down = True
    site.version = 2
    one.ask(method="POST")
    site.server.down = False
    read, one.store.mark_of = one.store.mark_of, refuse
    mark = site.server.journal.mark
    assert one.ask().detail == Reason.STORE_DOWN.name
    assert site.server.journal.mark == mark
    one.store.mark_of = read
    assert one.ask().body == b"v2"
    assert two.ask().body == b"v2"
