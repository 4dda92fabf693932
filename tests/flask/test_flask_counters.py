"""Counters lose nothing and keep their expiry; a timeout means one thing on every backend."""

import math
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from waiting import PATIENCE


def test_counters_count_up_and_down_from_nothing(make_cache, backend):
    cache = make_cache(backend)
    assert cache.inc("n") == 1
    assert cache.inc("n", 5) == 6
    assert cache.dec("n", 10) == -4
    assert cache.get("n") == -4
    assert cache.inc("n", 4) == 0
    assert cache.get("n") == 0
    assert cache.dec("m") == -1
    cache.set("k", 41)
    assert cache.inc("k") == cache.get("k") == 42


def test_no_increment_is_lost(make_cache, backend):
    cache = make_cache(backend)
    each, threads = (50, 4)

    def count():
        for _ in range(each):
            cache.inc("n")

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(count) for _ in range(threads)]:
            future.result(PATIENCE)
    assert cache.get("n") == each * threads


def left(cache, key):
    """Seconds until a key expires; 0 never."""
    backend = cache.cache
    name = type(backend).__name__
    if name == "SimpleCache":
        import cachelib.simple

        expires = backend._cache[key][0]
        return expires and expires - cachelib.simple.time()
    if name == "FileSystemCache":
        import cachelib.file

        expires = backend._expiry_of(key)
        return expires and expires - cachelib.file.time()
    seconds = backend._write_client.ttl(backend._full(key))
    return 0 if seconds == -1 else seconds


@pytest.mark.parametrize("name", ["simple", "file", "redis"])
def test_a_counter_keeps_its_expiry(make_cache, name):
    cache = make_cache(name)
    cache.set("n", 1, 1000)
    cache.inc("n")
    assert 990 <= left(cache, "n") <= 1000
    cache.set("m", 1, 0)
    cache.inc("m")
    assert left(cache, "m") == 0
    cache.inc("new", 1, 500)
    assert 490 <= left(cache, "new") <= 500
    cache.inc("default")
    assert 290 <= left(cache, "default") <= 300
    cache.inc("ever", 1, 0)
    assert left(cache, "ever") == 0


def test_a_value_that_is_no_number_cannot_be_counted(make_cache):
    cache = make_cache()
    cache.set("n", "text")
    with pytest.raises(TypeError):
        cache.inc("n")


# --- timeouts ---------------------------------------------------------------------------------------

KEPT = {
    "default": (None, 300), "never": (0, 0), "whole": (100, 100), "rounded up": (99.2, 100),
    "timedelta": (timedelta(seconds=99, milliseconds=1), 100), "digits": ("100", 100),
    "long": (40 * 86400, 40 * 86400),
}  # fmt: skip


@pytest.mark.parametrize("write", ["set", "add", "set_many"])
@pytest.mark.parametrize(("timeout", "seconds"), KEPT.values(), ids=KEPT)
def test_a_timeout_means_the_same_everywhere(make_cache, backend, write, timeout, seconds):
    cache = make_cache(backend)
    if write == "set_many":
        assert cache.set_many({"key": "value"}, timeout) == ["key"]
    else:
        assert getattr(cache, write)("key", "value", timeout)
    assert cache.get("key") == "value"
    if backend in ("simple", "file", "redis"):
        assert seconds - 5 <= left(cache, "key") <= seconds


@pytest.mark.parametrize("timeout", [-1, -2, timedelta(seconds=-5), -0.5 - 1])
def test_a_negative_timeout_expires_at_once_everywhere(make_cache, backend, timeout):
    cache = make_cache(backend)
    cache.set("key", "old")
    cache.set("key", "value", timeout)
    assert cache.get("key") is None
    cache.set_many({"key": "value"}, timeout)
    assert cache.get("key") is None
    cache.add("key", "value", timeout)
    assert cache.get("key") is None
    assert cache.add("key", "new")


@pytest.mark.parametrize("name", ["simple", "file"])
def test_an_expired_key_can_be_added_again(make_cache, clock, name):
    cache = make_cache(name)
    cache.set("key", "old", 10)
    clock.advance(11)
    assert cache.add("key", "new", 10)
    assert cache.get("key") == "new"


@pytest.mark.parametrize("timeout", ["soon", object(), [1]])
def test_what_is_no_timeout_is_an_error(make_cache, timeout):
    with pytest.raises(TypeError):
        make_cache().set("key", 1, timeout)


@pytest.mark.parametrize("name", ["simple", "file"])
def test_entries_that_never_expire_are_the_last_to_make_room(make_cache, name):
    cache = make_cache(name, CACHE_THRESHOLD=3)
    cache.set("ever", 1, 0)
    for n in range(10):
        cache.set(f"soon{n}", n, 100 + n)
    assert cache.get("ever") == 1


def test_a_full_memory_is_pruned_while_others_delete(make_cache, clock):
    """An expiry that is compared gives way to a thread that deletes, as a real one may at any moment."""
    cache = make_cache(CACHE_THRESHOLD=4)
    backend = cache.cache

    class Interrupted(float):
        def __le__(self, other):
            gone = next((key for key in list(backend._cache) if key.startswith("other")), None)
            backend.delete(gone)
            return float.__le__(self, other)

        __lt__ = __le__

    for n in range(6):
        backend._cache[f"key{n}"] = (Interrupted(clock.now + 50 + n), n)
        backend._cache[f"other{n}"] = (clock.now + 99, n)
    assert cache.set("new", 1)
    assert cache.get("new") == 1
    assert len(backend._cache) <= 5


def test_touch_lengthens_and_never_shortens(make_cache):
    for name in ("simple", "file", "redis"):
        cache = make_cache(name)
        backend = cache.cache
        cache.set("key", 1, 100)
        assert backend.touch("key", 50)
        assert 95 <= left(cache, "key") <= 100
        assert backend.touch("key", 500)
        assert 495 <= left(cache, "key") <= 500
        assert backend.touch("key", 0)
        assert left(cache, "key") == 0
        assert backend.touch("key", 5)
        assert left(cache, "key") == 0
        assert not backend.touch("missing", 5)
        assert cache.get("key") == 1


TELLING = ("simple", "file", "redis")


@pytest.mark.parametrize("name", TELLING)
def test_ttl_is_what_is_left(make_cache, name):
    cache = make_cache(name)
    cache.set("key", 1, 100)
    assert 95 <= cache.ttl("key") <= 100
    assert cache.touch("key", 300)
    assert 295 <= cache.ttl("key") <= 300
    assert cache.touch("key", 50)  # never less
    assert cache.ttl("key") > 200
    cache.set("ever", 1, 0)
    assert cache.ttl("ever") == math.inf
    assert cache.ttl("missing") is None
    assert not cache.touch("missing")
    cache.set("blog/1", 1)
    cache.delete_prefix("blog/")
    assert cache.ttl("blog/1") is None


def test_touch_and_get_or_set_work_everywhere(make_cache, backend):
    cache = make_cache(backend)
    made = []

    def make():
        made.append(1)
        return f"value %s {len(made)}"

    assert [cache.get_or_set("key/%s", make, 60) for _ in range(3)] == ["value %s 1"] * 3
    assert cache.get("key/%s") == "value %s 1"
    assert cache.touch("key/%s", 600)
    assert cache.delete("key/%s")
    assert cache.get_or_set("key/%s", make) == "value %s 2"
    assert cache.get_or_set("none", lambda: None) is None
    assert not cache.has("none")


def test_get_or_set_makes_it_once(make_cache):
    cache = make_cache()
    entered, go, runs = threading.Event(), threading.Event(), []

    def make():
        runs.append(1)
        entered.set()
        assert go.wait(PATIENCE)
        return "value"

    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(cache.get_or_set, "key", make) for _ in range(5)]
        assert entered.wait(PATIENCE)
        go.set()
        assert {future.result(PATIENCE) for future in futures} == {"value"}
    assert runs == [1]


@pytest.mark.parametrize("prefix", ["flask_cache_", "v2*_"])
@pytest.mark.parametrize("name", ["simple", "redis"])
def test_keys_are_those_that_live(make_cache, name, prefix):
    cache = make_cache(name, CACHE_KEY_PREFIX=prefix)
    cache.clear()
    cache.set_many({"blog/1": 1, "blog/2": 2, "shop": 3, "ä": 4})
    cache.set("gone", 1, -1)
    assert cache.keys() == ["blog/1", "blog/2", "shop", "ä"]
    assert cache.keys("blog/") == ["blog/1", "blog/2"]
    cache.delete_prefix("blog/")
    assert cache.keys() == ["shop", "ä"]
    cache.set("blog/2", 5)
    assert cache.keys("blog") == ["blog/2"]


@pytest.mark.parametrize("name", ["pylibmc", "pymemcache", "file"])
def test_what_cannot_be_told_is_refused(make_cache, name):
    cache = make_cache(name)
    with pytest.raises(NotImplementedError, match="does not tell which keys"):
        cache.keys()
    if name != "file":
        with pytest.raises(NotImplementedError, match="does not tell how long"):
            cache.ttl("key")


@pytest.mark.parametrize("name", ["pylibmc", "pymemcache"])
def test_memcached_has_no_sharp_edges(make_cache, name):
    cache = make_cache(name)
    for key in ("a b", "é", "x" * 400, "new\nline", "~"):
        assert cache.set(key, key)
        assert cache.get(key) == key
        assert cache.get_many(key, "other") == [key, None]
        assert cache.delete(key)
    cache.set("big", "small")
    assert not cache.set("big", "x" * 2_000_000)
    assert cache.get("big") is None
    cache.set("big", "small")
    assert not cache.add("big", "x" * 2_000_000)
    assert cache.get("big") == "small"  # it lived: adding is nothing to it
    assert cache.set_many({"big": b"x" * 2_000_000, "ok": 1}) == ["ok"]
    assert cache.get("big") is None  # not the older value


def test_more_threads_than_connections_wait_their_turn(make_cache):
    for name in ("pylibmc", "pymemcache"):
        cache = make_cache(name, CACHE_OPTIONS={"memcache_client_lib": name, "pool_size": 1})
        cache.set("key", 1)
        with ThreadPoolExecutor(24) as pool:
            found = [pool.submit(cache.get, "key") for _ in range(200)]
            assert {future.result(PATIENCE) for future in found} == {1}
        assert not cache.link.is_down
