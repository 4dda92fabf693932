"""Servers for these tests, on free ports, and backends by name."""

import pytest
from flask import Flask
from flask_helpers import BACKENDS, SHARED, close_backend, running
from ports import free_port

from wsgicache.flask import Cache


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory):
    port = free_port()
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    with running(*command, port=port, cwd=tmp_path_factory.mktemp("redis")):
        yield port


@pytest.fixture(scope="session")
def memcached_port(tmp_path_factory):
    port = free_port()
    command = ("memcached", "-p", str(port), "-l", "127.0.0.1", "-u", "nobody")
    with running(*command, port=port, cwd=tmp_path_factory.mktemp("memcached")):
        yield port


@pytest.fixture
def config_of(request, tmp_path):
    """CACHE_ keys for a backend by its name here."""

    def config_of(name):
        if name == "simple":
            return {"CACHE_TYPE": "SimpleCache"}
        if name == "file":
            return {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
        if name == "redis":
            port = request.getfixturevalue("redis_port")
            return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": port, "CACHE_DEADLINE": 5}
        port = request.getfixturevalue("memcached_port")
        return {
            "CACHE_TYPE": "MemcachedCache",
            "CACHE_MEMCACHED_SERVERS": [f"127.0.0.1:{port}"],
            "CACHE_OPTIONS": {"memcache_client_lib": name, "pool_size": 16},
            "CACHE_DEADLINE": 5,
        }

    return config_of


@pytest.fixture
def make_cache(config_of):
    """Make a cache for an app of its own: two on one shared backend are two workers."""
    made = []

    def make_cache(name="simple", **config):
        app = Flask("tests")
        app.config["SECRET_KEY"] = "secret"
        cache = Cache(app, config={**config_of(name), **config})
        if not made or name == "simple":
            cache.clear()
        made.append(cache)
        return cache

    yield make_cache
    for cache in made:
        cache.refresher.join()
    for cache in made:
        close_backend(cache.cache)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


@pytest.fixture(params=SHARED)
def shared(request):
    return request.param


class Clock:
    """A clock to turn, in place of what the process's own backends read."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    import cachelib.file
    import cachelib.simple

    clock = Clock()
    monkeypatch.setattr(cachelib.simple, "time", clock)
    monkeypatch.setattr(cachelib.file, "time", clock)
    return clock
