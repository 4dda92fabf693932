"""CACHE_TYPE in all its forms, factories, and the backends that need a server of their own kind."""

import gc
import hashlib
import inspect
import itertools
import re
import sys
import threading
import warnings
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cachelib
import pytest
from cachelib.serializers import JSONSerializer
from flask import Flask
from flask_helpers import running
from ports import free_port
from waiting import PATIENCE

import wsgicache.flask
from wsgicache.flask import Cache, backends
from wsgicache.flask.backends import (
    BaseCache,
    RedisClusterCache,
    RedisSentinelCache,
    SpreadSASLMemcachedCache,
)

PATHS = """
    wsgicache.flask: Cache CachedResponse make_template_fragment_key SUPPORTED_HASH_FUNCTIONS cache_view_hit
      cache_view_miss cache_memoize_hit cache_memoize_miss function_namespace SiteCache
    wsgicache.flask.backends: BaseCache NullCache SimpleCache FileSystemCache RedisCache RedisSentinelCache
      RedisClusterCache MemcachedCache SASLMemcachedCache SpreadSASLMemcachedCache
    wsgicache.flask.backends.base: BaseCache
    wsgicache.flask.backends.nullcache: NullCache
    wsgicache.flask.backends.simplecache: SimpleCache
    wsgicache.flask.backends.filesystemcache: FileSystemCache
    wsgicache.flask.backends.rediscache: RedisCache RedisSentinelCache RedisClusterCache
    wsgicache.flask.backends.memcache: MemcachedCache SASLMemcachedCache SpreadSASLMemcachedCache
    wsgicache.flask.contrib.uwsgicache: UWSGICache
    wsgicache.flask.jinja2ext: CacheExtension JINJA_CACHE_ATTR_NAME
    wsgicache.flask.signals: cache_view_hit cache_view_miss cache_memoize_hit cache_memoize_miss
    wsgicache.flask.utils: get_id function_namespace make_template_fragment_key normalize_timeout
"""


@pytest.mark.parametrize(("module", "names"), re.findall(r"([\w.]+):([\w\s]+?)(?=\n    w|\n$)", PATHS))
def test_import_paths(module, names):
    imported = __import__(module, fromlist=["_"])
    assert all(hasattr(imported, name) for name in names.split())


def test_the_version_is_there_and_deprecated():
    with pytest.warns(DeprecationWarning, match="importlib"):
        assert wsgicache.flask.__version__


def make(**config):
    app = Flask("config")
    cache = Cache(app, config=config)
    return cache.cache


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("simple", "SimpleCache"), ("SimpleCache", "SimpleCache"), ("filesystem", "FileSystemCache"),
        ("redis", "RedisCache"), ("memcached", "MemcachedCache"), ("gaememcached", "MemcachedCache"),
        ("redissentinel", "RedisSentinelCache"), ("saslmemcached", "SASLMemcachedCache"),
        ("spreadsaslmemcached", "SpreadSASLMemcachedCache"), ("flask_caching.backends.simple", "SimpleCache"),
        ("flask_caching.backends.SimpleCache", "SimpleCache"), ("cachelib.SimpleCache", "SimpleCache"),
        ("flask_caching.backends.rediscache.RedisCache", "RedisCache"),
        ("wsgicache.flask.backends.NullCache", "NullCache"),
    ],
)  # fmt: skip
def test_names_of_backends(name, kind, tmp_path):
    backend = make(
        CACHE_TYPE=name, CACHE_DIR=str(tmp_path), CACHE_MEMCACHED_USERNAME="u", CACHE_MEMCACHED_PASSWORD="p"
    )
    assert type(backend).__name__ == kind


@pytest.mark.parametrize("name", ["null", "NullCache"])
def test_the_null_cache_warns_unless_told_not_to(name):
    with pytest.warns(UserWarning, match="nothing is cached"):
        make(CACHE_TYPE=name)
    assert type(make(CACHE_TYPE=name, CACHE_NO_NULL_WARNING=True)).__name__ == "NullCache"


def test_uwsgi_outside_uwsgi_says_so():
    with pytest.raises(RuntimeError, match="uWSGI"):
        make(CACHE_TYPE="uwsgi")


def test_an_unknown_type_is_an_error():
    with pytest.raises(ImportError):
        make(CACHE_TYPE="nosuchcache")


def test_google_cloud_storage_says_what_is_missing():
    try:
        import google.cloud.storage  # noqa: F401
    except ImportError:
        with pytest.raises(RuntimeError, match="google-cloud-storage"):
            make(CACHE_TYPE="GoogleCloudStorageCache", CACHE_GCS_BUCKET="b")


# --- factories and own backends ------------------------------------------------------------------------


class Own(BaseCache):
    """A backend as the manual writes one: the old base class's constructor, nothing else."""

    def __init__(self, servers=None, default_timeout=500):
        super().__init__(default_timeout)
        self.servers = servers
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value, timeout=None):
        self.values[key] = value
        return True

    def add(self, key, value, timeout=None):
        return key not in self.values and self.set(key, value)

    def delete(self, key):
        return self.values.pop(key, None) is not None

    def has(self, key):
        return key in self.values


class OwnWithThreeArgumentFactory(Own):
    @classmethod
    def factory(cls, app, args, kwargs):
        args.append(app.config["SERVERS"])
        return cls(*args, **kwargs)


class OwnWithFourArgumentFactory(Own):
    @classmethod
    def factory(cls, app, config, args, kwargs):
        return cls(config["CACHE_MEMCACHED_SERVERS"], **kwargs)


class OwnWithoutArguments(BaseCache):
    def __init__(self):
        super().__init__(7)


def three(app, args, kwargs):
    return Own(app.config["SERVERS"], **kwargs)


def three_with_config(config, args, kwargs):
    return Own(config["CACHE_MEMCACHED_SERVERS"], **kwargs)


def four(app, config, args, kwargs):
    return Own(app.config["SERVERS"], **kwargs)


@pytest.mark.parametrize(
    "name",
    ["OwnWithThreeArgumentFactory", "OwnWithFourArgumentFactory", "three", "three_with_config", "four"],
)
def test_factories_take_three_or_four_arguments(name):
    app = Flask("own")
    app.config["SERVERS"] = ["a"]
    config = {
        "CACHE_TYPE": f"{__name__}.{name}",
        "CACHE_MEMCACHED_SERVERS": ["a"],
        "CACHE_DEFAULT_TIMEOUT": 9,
    }
    cache = Cache(app, config=config)
    assert isinstance(cache.cache, Own)
    assert cache.cache.servers == ["a"]
    assert cache.cache.default_timeout == 9


def test_a_backend_of_ones_own_has_everything_that_is_built_on_get_and_set():
    cache = Cache(Flask("own"), config={"CACHE_TYPE": f"{__name__}.Own"})
    runs = []

    @cache.memoize(60, groups="g")
    def f(n):
        runs.append(n)
        return n

    f(1), f(1)
    cache.purge_groups("g")
    f(1)
    cache.delete_memoized(f)
    f(1)
    assert runs == [1, 1, 1]
    cache.set("a/b", 1)
    cache.delete_prefix("a/")
    assert cache.get("a/b") is None
    assert cache.inc("n") == 1


def test_a_constructor_without_arguments_is_called_without():
    assert make(CACHE_TYPE=f"{__name__}.OwnWithoutArguments").default_timeout == 7


def test_cachelib_classes_by_dotted_path_lose_their_unsigned_pickle(redis_port, tmp_path):
    app = Flask("cachelib")
    cache = Cache(app, config={"CACHE_TYPE": "cachelib.RedisCache", "CACHE_OPTIONS": {"port": redis_port}})
    assert type(cache.cache) is cachelib.RedisCache
    cache.set("dotted", {"a": (1,)})
    assert cache.get("dotted") == {"a": (1,)}
    assert not cache.cache._write_client.get("dotted").startswith(b"!")
    cache.delete("dotted")
    cache.cache._write_client.close()


def test_a_chosen_serializer_serves_decorators_too(make_cache):
    cache = make_cache(CACHE_SERIALIZER=JSONSerializer)

    @cache.memoize(60, groups="g")
    def f(n):
        return [n]

    assert f(1) == f(1) == [1]
    assert next(iter(cache.stats().values()))["hits"] == 1


def test_several_caches_on_several_apps():
    first, second = Flask("first"), Flask("second")
    cache, other = Cache(config={"CACHE_TYPE": "SimpleCache"}), Cache(config={"CACHE_TYPE": "SimpleCache"})
    for app in (first, second):
        cache.init_app(app)
        other.init_app(app)
    with first.app_context():
        cache.set("key", 1)
        assert other.get("key") is None
        assert first.extensions["cache"][cache] is cache.cache
    with second.app_context():
        assert cache.get("key") is None
    cache.set("key", 2)  # outside: the last app's
    with second.app_context():
        assert cache.get("key") == 2

    @cache.cached(60)
    def page():
        return "page"

    for app in (first, second):
        app.add_url_rule("/", "page", page)
        client = app.test_client()
        assert client.get("/").headers["ETag"] == client.get("/").headers["ETag"]


def test_bad_settings_are_loud():
    with pytest.raises(ValueError, match="dict or None"):
        Cache(config="simple")
    for key, value in {
        "CACHE_HASH_METHOD": "md5", "CACHE_FILE_HASH_METHOD": 1, "CACHE_ON_ERROR": "shrug",
        "CACHE_SERIALIZER": "json", "CACHE_DEADLINE": 0, "CACHE_RETRY_AFTER": "soon", "CACHE_LEASE": None,
        "CACHE_WAIT_TIMEOUT": -1,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=key):
            make(CACHE_TYPE="SimpleCache", **{key: value})


def test_a_cache_without_an_app_says_so():
    with pytest.raises(RuntimeError, match="init_app"):
        Cache().get("key")


def test_a_cache_does_not_keep_its_apps_alive(config_of):
    """One global cache, and an app for each test: the apps go when their tests are over."""
    cache = Cache(config=config_of("file"))
    apps = []
    for n in range(3):
        app = Flask(f"app{n}")
        cache.init_app(app)
        with app.app_context():
            cache.set("key", n)
        apps.append(weakref.ref(app))
        del app
    gc.collect()
    assert [app() is None for app in apps] == [True, True, False]  # the last one is `cache.app`
    assert cache.get("key") == 2


def test_debug_in_the_config_is_legal_and_the_default_timeout_may_be_digits():
    assert make(CACHE_TYPE="SimpleCache", DEBUG=True, CACHE_DEFAULT_TIMEOUT="30").default_timeout == 30


def test_file_options(tmp_path):
    backend = make(
        CACHE_TYPE="FileSystemCache", CACHE_DIR=str(tmp_path), CACHE_OPTIONS={"mode": 0o640},
        CACHE_FILE_HASH_METHOD=hashlib.md5,
    )  # fmt: skip
    backend.set("key", 1)
    (name,) = [path for path in tmp_path.iterdir() if path.name == hashlib.md5(b"key").hexdigest()]
    assert name.stat().st_mode & 0o777 == 0o640


def test_a_missing_cache_dir_warns():
    with pytest.warns(UserWarning, match="CACHE_DIR"), pytest.raises(TypeError):
        make(CACHE_TYPE="FileSystemCache")


# --- sentinel, cluster, spread, uWSGI -------------------------------------------------------------------


def test_sentinel_writes_to_the_master_and_reads(redis_port, tmp_path):
    port = free_port()
    config = tmp_path / "sentinel.conf"
    config.write_text(f"port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {redis_port} 1\n")
    with running("redis-server", str(config), "--sentinel", port=port, cwd=tmp_path):
        cache = Cache(
            Flask("sentinel"),
            config={
                "CACHE_TYPE": "RedisSentinelCache",
                "CACHE_REDIS_SENTINELS": [("127.0.0.1", port)],
                "CACHE_REDIS_SENTINEL_MASTER": "mine",
                "CACHE_KEY_PREFIX": "sentinel_",
                "CACHE_DEADLINE": 5,
            },
        )
        assert isinstance(cache.cache, RedisSentinelCache)
        assert cache.set("key", {"a": 1}) is not False
        assert cache.get("key") == {"a": 1}
        assert cache.inc("n", 3) == 3
        cache.clear()
        cache.cache._write_client.close()
        cache.cache._read_client.close()


@pytest.mark.parametrize("by", ["CACHE_REDIS_CLUSTER", "CACHE_REDIS_URL"])
def test_a_cluster(tmp_path, by):
    import redis

    port = free_port()
    command = (
        "redis-server",
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--cluster-enabled",
        "yes",
        "--save",
        "",
    )
    bus = ("--cluster-port", str(free_port()))
    with running(*command, *bus, port=port, cwd=tmp_path):
        with redis.Redis(port=port) as node:
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            while b"cluster_state:ok" not in node.execute_command("CLUSTER", "INFO"):
                pass  # it answers at once, and is ready within milliseconds
        where = f"127.0.0.1:{port}" if by == "CACHE_REDIS_CLUSTER" else f"redis://127.0.0.1:{port}"
        cache = Cache(Flask("cluster"), config={"CACHE_TYPE": "rediscluster", by: where, "CACHE_DEADLINE": 5})
        assert isinstance(cache.cache, RedisClusterCache)
        cache.set_many({"a": 1, "b": "two", "c": [3]})
        assert cache.get_many("a", "b", "c", "d") == [1, "two", [3], None]
        assert cache.inc("a") == 2
        runs = []

        @cache.memoize(60, groups="g")
        def f(n):
            runs.append(n)
            return n

        f(1), f(1)
        cache.purge_groups("g")
        f(1)
        cache.delete_prefix("b")
        assert cache.get("b") is None
        assert runs == [1, 1]
        assert cache.unlink("c") == ["c"]
        assert cache.clear()
        assert cache.get("a") is None
        cache.cache._write_client.close()


def test_a_bad_cluster_address_is_an_error():
    with pytest.raises(ValueError, match="host:port"):
        RedisClusterCache("localhost")


def test_spread_values_are_put_together(memcached_port):
    import pylibmc

    client = pylibmc.Client([f"127.0.0.1:{memcached_port}"])
    backend = SpreadSASLMemcachedCache(client, chunksize=1000, maxchunk=5, key_prefix="spread")
    value = "".join(map(str, range(1000)))
    assert backend.set("key", value)
    assert backend.get("key") == value
    assert backend.get_many("key", "other") == [value, None]
    assert not backend.set("key", "x" * 9000)
    assert backend.get("key") is None
    backend.set("key", value)
    client.delete(backend._normalize_key("key"))
    assert backend.get("key") is None
    assert backend.set("key", value, chunk=False)
    assert backend.get("key", chunk=False) == value


def test_backends_say_what_they_can_do():
    from wsgicache.flask.backends.base import abilities_of

    assert not abilities_of(backends.SimpleCache()).shared
    assert abilities_of(object()).atomic_add is False
    with warnings.catch_warnings():
        assert abilities_of(cachelib.SimpleCache()).shared is False


def test_the_listed_exceptions_have_reasons(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "scripts")
    saved = list(sys.meta_path)
    try:
        import _parity_alias

        listed = _parity_alias.exceptions((Path(__file__).parent / "parity_exceptions.txt").read_text())
    finally:
        sys.meta_path[:] = saved
    assert len(listed) == 2
    assert all(len(reason) > 40 for reason in listed.values())


# --- clients that were replaced ------------------------------------------------------------------------


def test_replaced_clients_are_used():
    import pickle

    from wsgicache.flask.serializer import SafeDigitsSerializer

    class Writer:
        def set(self, *args, **kwargs):
            return "written"

    class Reader:
        def mget(self, names):
            return [b"7", b"!" + pickle.dumps("theirs"), SafeDigitsSerializer().dumps("ours")]

    backend = RedisSentinelCache()
    backend._write_client, backend._read_client = Writer(), Reader()
    assert backend.set("a", 1) == "written"
    assert backend.get_many("a", "b", "c") == [7, None, "ours"]
    backend.serializer = SafeDigitsSerializer(read_unsigned=True)
    assert backend.get_many("a", "b", "c") == [7, "theirs", "ours"]


class Blob:
    """An object of a bucket in memory, as it was when it was asked for."""

    def __init__(self, bucket, name, data=None, custom_time=None, generation=None):
        self.bucket, self.name, self.custom_time, self.data = bucket, name, custom_time, data
        self.generation = generation

    def upload_from_string(self, data, content_type, if_generation_match=None):
        self.bucket.write(self.name, data, self.custom_time, if_generation_match)

    def download_as_bytes(self, if_generation_match=None):
        return self.bucket.checked(self.name, if_generation_match).data


class Bucket:
    """A bucket in memory that honours the generations by which requests are made conditional."""

    def __init__(self):
        self.blobs = {}
        self.lock = threading.Lock()
        self.generations = itertools.count(1)

    def checked(self, name, generation):
        from google.api_core.exceptions import NotFound, PreconditionFailed

        found = self.blobs.get(name)
        if generation is not None and generation != (0 if found is None else found.generation):
            raise PreconditionFailed(name)
        if found is None and generation != 0:
            raise NotFound(name)
        return found

    def write(self, name, data, custom_time, generation):
        with self.lock:
            if generation is not None:
                self.checked(name, generation)
            self.blobs[name] = Blob(self, name, data, custom_time, next(self.generations))

    def blob(self, name):
        return Blob(self, name)

    def get_blob(self, name):
        return self.blobs.get(name)

    def delete_blob(self, name, if_generation_match=None):
        with self.lock:
            self.checked(name, if_generation_match)
            del self.blobs[name]

    def list_blobs(self, prefix):
        return [blob for name, blob in self.blobs.items() if name.startswith(prefix)]

    def delete_blobs(self, blobs, on_error):
        for blob in blobs:
            del self.blobs[blob.name]


def test_google_cloud_storage_counts_and_adds_by_generation():
    storage = pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed")
    from wsgicache.flask.contrib import googlecloudstoragecache as module

    asked = (storage.Blob.upload_from_string, storage.Blob.download_as_bytes, storage.Bucket.delete_blob)
    for method in asked:  # what the bucket here stands for
        assert "if_generation_match" in inspect.signature(method).parameters
    backend = module.GoogleCloudStorageCache("mine", anonymous=True, project="x")
    backend.bucket = bucket = Bucket()
    module_attempts, module._ATTEMPTS = module._ATTEMPTS, 10_000
    try:
        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(lambda: [backend.inc("n") for _ in range(25)]) for _ in range(4)]:
                future.result(PATIENCE)
            assert backend.get("n") == 100
            added = [pool.submit(lambda n=n: backend.add(f"{n % 10}", n)) for n in range(40)]
            assert sum(future.result(PATIENCE) for future in added) == 10
    finally:
        module._ATTEMPTS = module_attempts
    backend.set("n", 5, 100)
    expires = bucket.blobs["n"].custom_time
    assert backend.dec("n", 7, 999) == -2
    assert 90 < backend.ttl("n") <= 100
    assert backend.ttl("missing") is None
    assert sorted(backend.names()) == sorted(["n", *map(str, range(10))])
    assert bucket.blobs["n"].custom_time == expires
    backend.add("lease", "mine")
    backend.release("lease", "another's")
    assert backend.has("lease")
    backend.release("lease", "mine")
    assert not backend.has("lease")
    backend.release("lease", "mine")

    read = bucket.get_blob

    def slow(name):  # somebody writes between reading and writing
        found = read(name)
        bucket.write(name, b"", None, None)
        return found

    bucket.get_blob = slow
    assert not backend.add("raced", 1)
    assert backend.inc("raced") is None


def test_google_cloud_storage_over_a_bucket_in_memory():
    pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed")
    from datetime import UTC, datetime, timedelta

    cache = Cache(
        Flask("gcs"),
        config={
            "CACHE_TYPE": "GoogleCloudStorageCache",
            "CACHE_GCS_BUCKET": "mine",
            "CACHE_KEY_PREFIX": "p_",
            "CACHE_OPTIONS": {"anonymous": True, "project": "x", "delete_expired_objects_on_read": True},
        },
    )
    backend = cache.cache
    backend.bucket = bucket = Bucket()
    assert cache.set("key", {"a": (1,)})
    assert cache.get("key") == {"a": (1,)}
    assert "p_key" in bucket.blobs
    assert not cache.add("key", 1)
    assert cache.has("key")
    assert cache.set("key", 1, 0)
    assert bucket.blobs["p_key"].custom_time is None
    cache.set("key", 1, -1)
    assert cache.get("key") is None
    cache.set("old", 1, 10)
    bucket.blobs["p_old"].custom_time = datetime.now(UTC) - timedelta(seconds=1)
    assert cache.get("old") is None
    assert "p_old" not in bucket.blobs
    assert not cache.delete("old")
    assert cache.inc("n") == 1
    runs = []

    @cache.memoize(60, groups="g")
    def f(n):
        runs.append(n)
        return n

    f(1), f(1)
    cache.purge_groups("g")
    f(1)
    assert runs == [1, 1]
    assert cache.clear()
    assert not bucket.blobs
