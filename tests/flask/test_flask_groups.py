"""Groups, prefixes and clear(): what is purged is gone in every worker, and what was being made too."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import PATIENCE

from wsgicache.flask import Unavailable
from wsgicache.flask.prefixes import JOURNAL, MAX_PREFIXES


def numbers(cache, **terms):
    runs = []

    @cache.memoize(600, **terms)
    def number(n):
        runs.append(n)
        return n

    return number, runs


@pytest.mark.parametrize("decorator", ["cached", "memoize"])
def test_a_group_is_purged_and_others_stay(make_cache, backend, decorator):
    cache = make_cache(backend)
    runs = []

    def make(name):
        terms = {"key_prefix": name} if decorator == "cached" else {"make_name": lambda _: name}

        @getattr(cache, decorator)(600, groups=("posts", name), **terms)
        def f():
            runs.append(name)
            return name

        return f

    a, b = make("a"), make("b")
    for f in (a, b, a, b):
        f()
    assert runs == ["a", "b"]
    cache.purge_groups("a")
    a(), b()
    assert runs == ["a", "b", "a"]
    cache.purge_groups("posts")
    a(), b()
    assert runs == ["a", "b", "a", "a", "b"]


def test_groups_may_depend_on_the_arguments(make_cache, backend):
    cache = make_cache(backend)
    number, runs = numbers(cache, groups=lambda n: [f"post-{n}"])
    number(1), number(2)
    cache.purge_groups("post-1")
    number(1), number(2)
    assert runs == [1, 2, 1]


def test_a_purge_reaches_every_worker(make_cache, shared):
    first, second = make_cache(shared), make_cache(shared)
    number, runs = numbers(first, groups="posts")
    again, more = numbers(second, groups="posts")
    number(1), again(1)
    assert (runs, more) == ([1], [])
    first.purge_groups("posts")
    again(1), number(1)
    assert (runs, more) == ([1], [1])


def test_what_was_being_computed_when_its_group_was_purged_is_not_kept(make_cache, backend):
    cache = make_cache(backend)
    entered, go = threading.Event(), threading.Event()
    runs = []

    @cache.cached(600, key_prefix="key", groups="posts")
    def f():
        runs.append(1)
        entered.set()
        assert go.wait(PATIENCE)
        return len(runs)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert entered.wait(PATIENCE)
        cache.purge_groups("posts")
        go.set()
        assert future.result(PATIENCE) == 1
    assert f() == 2
    assert f() == 2


def test_get_sees_a_purge_too(make_cache, backend):
    cache = make_cache(backend)

    @cache.cached(600, key_prefix="key", groups="posts")
    def f():
        return 1

    f()
    assert cache.get("key") == 1
    assert cache.has("key")
    cache.purge_groups("posts")
    assert cache.get("key") is None
    assert not cache.has("key")


def test_a_grouped_hit_is_one_call_of_the_backend(make_cache, monkeypatch):
    cache = make_cache()

    @cache.cached(600, key_prefix="key", groups=("a", "b"))
    def f():
        return 1

    f()
    calls = []
    backend = cache.cache
    whole = backend.get_many
    monkeypatch.setattr(backend, "get_many", lambda *keys: calls.append(keys) or whole(*keys))
    assert f() == 1
    assert len(calls) == 1


# --- prefixes ---------------------------------------------------------------------------------------


def test_a_prefix_is_deleted_on_every_backend(make_cache, backend):
    cache = make_cache(backend)
    cache.set_many({"view//blog/1": 1, "view//blog/2": 2, "view//shop": 3})
    cache.delete_prefix("view//blog/")
    assert cache.get_many("view//blog/1", "view//blog/2", "view//shop") == [None, None, 3]
    assert [cache.get("view//blog/1"), cache.has("view//blog/2"), cache.get("view//shop")] == [None, False, 3]
    cache.set("view//blog/1", 4)
    assert cache.get("view//blog/1") == 4
    assert cache.delete("view//blog/1")
    assert cache.get("view//blog/1") is None


def test_other_workers_see_a_deleted_prefix_at_once(make_cache, shared):
    first, second = make_cache(shared), make_cache(shared)
    first.set("blog/1", 1)
    assert second.get("blog/1") == 1
    first.delete_prefix("blog/")
    assert second.get("blog/1") is None
    second.set("blog/1", 2)
    assert first.get("blog/1") == 2
    assert second.delete("blog/1")
    assert first.get("blog/1") is None


def test_deleting_a_prefix_costs_the_same_however_many_keys_there_are(make_cache):
    cache = make_cache()
    cache.set_many({f"blog/{n}": n for n in range(400)})
    held = dict(cache.cache._cache)
    cache.delete_prefix("blog/")
    assert cache.cache._cache == held  # no key was walked over
    assert cache.get("blog/7") is None


def test_many_prefixes_stay_bounded_and_keep_their_word(make_cache, backend):
    cache = make_cache(backend)
    for n in range(MAX_PREFIXES + 5):
        cache.set(f"{n}/key", n)
        cache.delete_prefix(f"{n}/")
    assert all(cache.get(f"{n}/key") is None for n in range(MAX_PREFIXES + 5))
    assert len(cache.link.prefixes.generations) <= MAX_PREFIXES


def test_prefixes_deleted_at_once_by_several_workers_are_all_deleted(make_cache, shared):
    caches = [make_cache(shared) for _ in range(3)]
    names = [f"{n}/" for n in range(18)]
    caches[0].set_many({f"{name}key": name for name in names})
    ready = threading.Barrier(len(names), timeout=PATIENCE)

    def delete(at):
        ready.wait()
        caches[at % 3].delete_prefix(names[at])

    with ThreadPoolExecutor(len(names)) as pool:
        for future in [pool.submit(delete, at) for at in range(len(names))]:
            future.result(PATIENCE)
    for cache in caches:
        assert cache.get_many(*[f"{name}key" for name in names]) == [None] * len(names)
        assert set(cache.link.prefixes.generations) == set(names)


@pytest.mark.parametrize("always", [False, True])
def test_a_lock_that_others_hand_on_quickly_is_waited_for(make_cache, shared, monkeypatch, always):
    """Each time it was held when it was asked for, and free when it was looked at."""
    cache = make_cache(shared)
    cache.set("blog/1", 1)
    add, asked = cache.cache.add, []

    def held(*given, **options):
        asked.append(given)
        return add(*given, **options) if len(asked) > 12 and not always else False

    monkeypatch.setattr(cache.cache, "add", held)
    if always:
        with pytest.raises(Unavailable, match="takes nothing"):
            cache.delete_prefix("blog/")
    else:
        cache.delete_prefix("blog/")
        assert cache.get("blog/1") is None


def test_two_threads_delete_prefixes_in_memory(make_cache):
    cache = make_cache()
    names = [f"{n}/" for n in range(16)]
    ready = threading.Barrier(len(names), timeout=PATIENCE)

    def delete(name):
        ready.wait()
        cache.delete_prefix(name)

    with ThreadPoolExecutor(len(names)) as pool:
        for future in [pool.submit(delete, name) for name in names]:
            future.result(PATIENCE)
    assert set(cache.link.prefixes.generations) == set(names)


def test_a_lost_journal_is_written_once(make_cache, shared):
    """Two workers that both miss it must agree in the end."""
    first, second = make_cache(shared), make_cache(shared)
    first.delete_prefix("blog/")
    assert second.get("blog/1") is None
    first.cache.delete(first.link.prefixes.journal_name())
    first.get("blog/1"), second.get("blog/1"), first.get("blog/1")
    assert first.link.prefixes.generations == second.link.prefixes.generations != {}


def test_a_lost_journal_does_not_bring_deleted_keys_back(make_cache, shared):
    cache = make_cache(shared)
    cache.set("blog/1", 1, 0)
    cache.delete_prefix("blog/")
    cache.cache.delete(JOURNAL)
    assert cache.get("blog/1") is None
    assert make_cache(shared).get("blog/1") is None


def test_a_cached_view_is_deleted_by_prefix(make_cache):
    cache = make_cache()
    runs = []

    @cache.app.route("/blog/<n>")
    @cache.cached(60)
    def post(n):
        runs.append(n)
        return n

    client = cache.app.test_client()
    for path in ("/blog/1", "/blog/2", "/blog/1"):
        client.get(path)
    cache.delete_prefix("view//blog/")
    client.get("/blog/1")
    assert runs == ["1", "2", "1"]


# --- clear ------------------------------------------------------------------------------------------


def test_clear_deletes_all_and_says_so_when_there_was_nothing(make_cache, backend):
    cache = make_cache(backend)
    cache.set("key", 1)
    assert cache.clear()
    assert cache.get("key") is None
    assert cache.clear()


def test_redis_clear_leaves_what_has_another_prefix_and_asks_for_no_keys(make_cache):
    cache = make_cache("redis", CACHE_KEY_PREFIX="mi*ne[")
    client = cache.cache._write_client
    client.set("mixxne[other", 1)
    client.config_resetstat()
    for n in range(1200):
        client.set(f"mi*ne[{n}", n)
    assert cache.clear()
    assert client.get("mixxne[other") == b"1"
    assert cache.get("7") is None
    used = client.info("commandstats")
    assert not {"cmdstat_keys", "cmdstat_flushdb", "cmdstat_flushall"} & set(used)
    client.delete("mixxne[other")


@pytest.mark.parametrize("name", ["simple", "file"])
def test_a_key_prefix_versions_every_backend(config_of, make_cache, name):
    old = make_cache(name, CACHE_KEY_PREFIX="v1_")
    old.set("key", 1)
    assert old.get("key") == 1
    assert old.cache.get("v1_key") == 1
    new = make_cache("file", CACHE_KEY_PREFIX="v2_")
    assert new.get("key") is None


def test_a_key_prefix_may_be_a_callable(make_cache):
    tenant = ["a"]
    cache = make_cache("simple", CACHE_KEY_PREFIX=lambda: f"{tenant[0]}_")
    cache.set("key", 1)
    tenant[0] = "b"
    assert cache.get("key") is None
    tenant[0] = "a"
    assert cache.get("key") == 1
