"""A store that is only looked at: an engine over it decides as over the store, and changes nothing."""

import pytest

from wsgicache import Rule, Store, WSGICache
from wsgicache.sharing import SITE
from wsgicache.stores import StoreError
from wsgicache.stores.lookonly import LookOnly
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask


class Parts(SharedStore):
    """A store in two parts."""

    def __init__(self, server):
        super().__init__(server)
        self.parts = (SharedStore(server), SharedStore(server.part("second")))

    def part_of(self, key):
        return 0


@pytest.fixture(params=[SharedStore, Parts])
def store(request):
    return request.param(SharedServer())


def cache_over(store, **options):
    return WSGICache(ScriptedApp(Response(body=b"x")), store, **options)


def contents(store):
    server = store.server
    return dict(server.rows), server.journal.mark, dict(server.meta), dict(server.counts), dict(server.leases)


def test_it_is_a_store(store):
    look = LookOnly(store)
    assert isinstance(look, Store)
    assert look.shared
    assert hasattr(look, "parts") is hasattr(store, "parts")
    assert not LookOnly(store.namespaced("other")).get(["k"])[0][0]


def test_a_decision_is_that_of_the_store_and_leaves_no_trace(store):
    site = cache_over(store, rules=[Rule("/a", ttl=60)])
    ask(site, "/a")
    before = contents(store)
    rules = [Rule("/a", ttl=60), Rule("/b", bypass=True, name="b")]
    looking = cache_over(LookOnly(store), rules=rules, wait_timeout=0.01)  # nobody else fetches the page
    assert looking.explain("http://example.com/a").hit
    assert not looking.explain("http://example.com/c").hit
    ask(looking, "/c")
    assert contents(store) == before
    assert store.get_meta(SITE)
    assert list(looking.store.scan())
    assert looking.store.stats()["entries"] == 1
    assert looking.store.counters() == store.counters()


def test_nothing_is_purged_and_nothing_is_stored(store):
    ask(cache_over(store), "/a")
    before = contents(store)
    look = LookOnly(store)
    (entry,), mark = look.get(["/a\0\0example.com\0http"])
    assert mark == look.mark_of("")
    assert look.purges_since(None).mark == mark
    assert look.set("k", entry, 1e10) is False
    assert look.delete(entry.key) is False
    assert look.lease("k", 1) is None
    look.release("k", 1)
    look.set_meta("a", "b")
    look.incr_many({"a": 1})
    for purge in (look.clear, lambda: look.append([], 0.0)):
        with pytest.raises(StoreError, match="only looked at"):
            purge()
    assert contents(store) == before
    look.close()
