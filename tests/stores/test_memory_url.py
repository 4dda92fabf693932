"""`memory://`: its one option, and what a person reads who got it wrong."""

import pytest

from wsgicache import WSGICache
from wsgicache.options import OptionError
from wsgicache.stores import Store, StoreOptions, open_store
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FailingStore, ScriptedApp


@pytest.mark.parametrize(
    ("url", "max_bytes"),
    [
        ("memory://", 1_000_000),
        ("memory:", 1_000_000),
        ("memory:///", 1_000_000),
        ("memory://?", 1_000_000),
        ("memory://?max_bytes=65536", 65536),
        ("memory://?max_bytes=2MB", 2_000_000),
        ("memory://?max_bytes=2MiB", 2 << 20),
        ("memory://?max_bytes=64kib", 65536),
    ],
)
def test_urls(url, max_bytes):
    store = open_store(url, StoreOptions(max_bytes=1_000_000))
    assert isinstance(store, MemoryStore)
    assert isinstance(store, Store)
    assert store.stats()["max_bytes"] == max_bytes


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memory://localhost", "no host and no path"),
        ("memory://localhost?max_bytes=1MB", "no host and no path"),
        ("memory:///var/cache", "no host and no path"),
        (" memory://", "blanks around it"),
        ("memory://#max_bytes=1MB", "no host and no path"),
        ("memory://?max_bytes=1MB&max_bytes=2MB", "max_bytes is given twice"),
        ("memory://?max_byte=1MB", "did you mean 'max_bytes'"),
        ("memory://?size=1MB", "unknown option 'size'"),
        ("memory://?max_bytes=1MB&ttl=5", "unknown option 'ttl'"),
        ("memory://?MAX_BYTES=1MB", "unknown option 'MAX_BYTES'"),
        ("memory://?max_bytes=", "max_bytes = ''"),
        ("memory://?max_bytes", "max_bytes = ''"),
        ("memory://?max_bytes=-1", "max_bytes = '-1'"),
        ("memory://?max_bytes=many", "max_bytes = 'many'.*MiB"),
        ("memory://?max_bytes=1.5MB", "max_bytes = '1.5MB'"),
        ("memory://?max_bytes=1MB;x=2", "max_bytes = '1MB;x=2'"),
        ("memory://?max_bytes=0", "at least 65536"),
        ("memory://?max_bytes=65535", "at least 65536"),
        ("", "no store URL; the default is memory://"),
        ("memory", "no store URL; the default is memory://"),
        ("/var/cache", "no store URL; the default is memory://"),
        (
            "memcache://localhost",
            "no store is known for memcache://; did you mean memcached:",
        ),
        ("/var/cache", "for a directory write lmdb:///var/cache"),
    ],
)
def test_mistakes(url, told):
    with pytest.raises(ValueError, match=told):
        open_store(url, StoreOptions(max_bytes=1_000_000))
    with pytest.raises(OptionError, match=told) as raised:
        WSGICache(ScriptedApp(), url)
    assert str(raised.value).startswith("store")


def test_a_mistake_shows_the_url_it_was_made_in():
    with pytest.raises(ValueError, match=r"memory://\?max_bytes=10"):
        open_store("memory://?max_bytes=10", StoreOptions(max_bytes=1_000_000))


def test_the_option_counts_where_the_url_says_nothing():
    assert WSGICache(ScriptedApp(), max_bytes="1MB").store.stats()["max_bytes"] == 1_000_000
    cache = WSGICache(ScriptedApp(), "memory://?max_bytes=2MB", max_bytes="1MB")
    assert cache.store.stats()["max_bytes"] == 2_000_000


def test_a_store_is_handed_over_as_it_is():
    store = FailingStore()
    assert WSGICache(ScriptedApp(), store).store is store


@pytest.mark.parametrize("thing", [None, 5, object(), {}, MemoryStore], ids=lambda it: type(it).__name__)
def test_what_is_no_store_is_refused(thing):
    with pytest.raises(OptionError, match="store"):
        WSGICache(ScriptedApp(), thing)


class Point:
    """An entry point as a package that brings a store declares it."""

    name = "shelf"

    @staticmethod
    def load():
        return lambda url, options: FailingStore()


def test_others_register_under_the_entry_point_group(monkeypatch):
    def entry_points(group, name=None):
        assert group == "wsgicache.stores"
        return [Point] if name in (None, "shelf") else []

    monkeypatch.setattr("wsgicache.stores.entry_points", entry_points)
    assert isinstance(open_store("shelf://a", StoreOptions(max_bytes=1)), FailingStore)
    with pytest.raises(ValueError, match=r"known: .*memory.*shelf"):
        open_store("shelve://a", StoreOptions(max_bytes=1))
