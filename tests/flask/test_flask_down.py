"""A server that is down: everything goes on within the deadline, whether or not the app debugs."""

import logging
import shutil
from time import perf_counter

import pytest
from flask import Flask, render_template_string
from flask_helpers import close_backend, running
from ports import free_port

from wsgicache.flask import Cache, Unavailable


@pytest.fixture(params=["redis", "pylibmc", "pymemcache"])
def down(request):
    """Make a cache whose server is not there."""

    def down(debug=False, **config):
        app = Flask("down")
        app.debug = debug
        app.config["SECRET_KEY"] = "secret"
        where = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": free_port()}
        if request.param != "redis":
            where = {
                "CACHE_TYPE": "MemcachedCache",
                "CACHE_MEMCACHED_SERVERS": [f"127.0.0.1:{free_port()}"],
                "CACHE_OPTIONS": {"memcache_client_lib": request.param},
            }
        return Cache(app, config={**where, "CACHE_DEADLINE": 0.2, **config})

    return down


@pytest.mark.parametrize("debug", [False, True])
def test_everything_survives(down, debug, caplog):
    cache = down(debug)
    app = cache.app

    @app.route("/page")
    @cache.cached(60)
    def page():
        return f"page {f(1)}" + render_template_string("{% cache 60, 'x' %}fragment{% endcache %}")

    @cache.memoize(60, groups="g")
    def f(n):
        return n

    began = perf_counter()
    with caplog.at_level(logging.WARNING):
        assert [app.test_client().get("/page").text for _ in range(3)] == ["page 1fragment"] * 3
        with app.app_context():
            assert cache.get("key") is None
            assert not cache.set("key", 1)
            assert not cache.add("key", 1)
            assert cache.get_many("a", "b") == [None, None]
            assert cache.get_dict("a") == {"a": None}
            assert cache.set_many({"a": 1}) == []
            assert not cache.has("key")
            assert not cache.delete("key")
            assert cache.delete_many("key") == []
            assert cache.unlink("key") == []
            assert cache.inc("n") is None
            assert not cache.clear()
    assert perf_counter() - began < 4, "each of them alone may take 0.2"
    assert "going on without it" in caplog.text


def test_purges_do_not_fail_silently(down):
    cache = down()

    @cache.memoize(60)
    def f():
        return 1

    @cache.memoize(60)
    def numbered(n):
        return n

    with pytest.raises(Unavailable, match="nothing was purged"):
        cache.purge_groups("posts")
    with pytest.raises(Unavailable):
        cache.delete_prefix("view/")
    with pytest.raises(Unavailable):
        cache.delete_memoized(f)
    with pytest.raises(Unavailable):
        cache.delete_memoized(f, *())
    with pytest.raises(Unavailable):
        cache.delete_memoized(numbered, 1)
    with pytest.raises(Unavailable):
        f.delete_memoized()
    with pytest.raises(Unavailable):
        cache.delete_memoized_verhash(f)


def test_it_is_asked_again_after_a_while(down, monkeypatch):
    cache = down(CACHE_RETRY_AFTER=5)
    now = [1000.0]
    monkeypatch.setattr("wsgicache.flask.link.monotonic", lambda: now[0])
    cache.get("key")
    assert cache.link.is_down
    now[0] += 6
    assert not cache.link.is_down


def test_raising_is_one_setting(down):
    cache = down(CACHE_ON_ERROR="raise")
    with pytest.raises(cache.cache.failures):
        cache.get("key")
    with pytest.raises(cache.cache.failures):
        cache.cached(60, key_prefix="x")(lambda: 1)()


def test_a_mistake_of_the_caller_is_no_failure_of_the_server(make_cache):
    cache = make_cache("redis")
    with pytest.raises(TypeError):
        cache.set("key", 1, "soon")
    assert not cache.link.is_down


def test_a_server_that_comes_back_is_used_again(make_cache, monkeypatch):
    cache = make_cache("redis")
    backend = cache.cache
    real = backend._read_client

    class Gone:
        def __getattr__(self, name):
            def fail(*args, **kwargs):
                raise ConnectionError("gone")

            return fail

    cache.set("key", 1)
    backend._read_client = Gone()
    assert cache.get("key") is None
    backend._read_client = real
    assert cache.get("key") is None  # not asked yet
    cache.link._down_until = 0.0
    assert cache.get("key") == 1


def test_a_server_that_refuses_is_still_asked(tmp_path, caplog):
    """A Redis that is full takes nothing new, and what it has is still worth asking for."""
    port = free_port()
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with running(*command, port=port, cwd=tmp_path):
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": port, "CACHE_DEADLINE": 5}
        cache = Cache(Flask("full"), config=config)
        cache.set("key", "kept")
        cache.cache._write_client.config_set("maxmemory", 1)
        with caplog.at_level(logging.WARNING):
            assert [cache.set("other", 1) for _ in range(5)] == [False] * 5
        assert cache.get("key") == "kept"
        assert not cache.link.is_down
        assert caplog.text.count("refused") == 1
        with pytest.raises(Unavailable):
            cache.purge_groups("posts")
        close_backend(cache.cache)


@pytest.mark.parametrize("name", ["redis", "pylibmc", "pymemcache"])
def test_counting_what_is_no_number_is_the_callers_mistake(make_cache, name):
    cache = make_cache(name)
    cache.set("n", "text")
    with pytest.raises(TypeError, match="no integer"):
        cache.inc("n")
    assert not cache.link.is_down


def test_an_app_starts_without_its_cluster(tmp_path, caplog):
    where = f"127.0.0.1:{free_port()}"
    config = {"CACHE_TYPE": "RedisClusterCache", "CACHE_REDIS_CLUSTER": where, "CACHE_DEADLINE": 0.2}
    cache = Cache(Flask("cluster"), config=config)
    assert "does not answer" in caplog.text
    assert cache.get("key") is None
    assert cache.link.is_down


def test_a_directory_that_was_removed_is_made_again(make_cache):
    cache = make_cache("file")
    cache.set("key", 1)
    shutil.rmtree(cache.cache._path)
    assert cache.get("key") is None
    assert cache.add("key", 2)
    assert cache.get("key") == 2
    shutil.rmtree(cache.cache._path)
    assert cache.set("key", 3)
    assert cache.inc("key") == 4
    assert not cache.link.is_down


@pytest.mark.parametrize("method", ["get", "get_many", "set", "add", "release", "touch", "inc"])
def test_a_backend_that_raises_what_nobody_expects_breaks_no_view(make_cache, monkeypatch, method):
    cache = make_cache("redis", CACHE_RETRY_AFTER=0)
    runs = []

    @cache.memoize(60, groups="g")
    def f(n):
        runs.append(n)
        return n

    @cache.cached(60, key_prefix="key")
    def g():
        return "g"

    def fail(*args, **kwargs):
        raise RuntimeError("unexpected")

    monkeypatch.setattr(cache.cache, method, fail)
    assert [f(1), g(), f(1), g()] == [1, "g", 1, "g"]
    assert not cache.link.flights._flights
