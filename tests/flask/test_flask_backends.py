"""Backends that need a server or a client of their own kind do what all the others do.

The everyday ones (memory, files, Redis, memcached by pylibmc and pymemcache) run through every other test.
"""

import os
import pickle
import shutil
import socket
import subprocess
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import cachelib
import pytest
from flask import Flask
from flask_helpers import close_backend, running
from ports import free_port
from waiting import PATIENCE

from wsgicache.flask import Cache, backends
from wsgicache.flask.backends import memcacheclients

LEAVES_SOCKETS = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
)
"""python-memcached has a connection for each thread, and does not close it when the thread ends."""

NAMES = (
    "sasl", "spread", "libmc", pytest.param("memcache", marks=LEAVES_SOCKETS), "sentinel", "cluster",
    "valkey", "cachelib files", "cachelib redis", "cachelib dynamodb",
)  # fmt: skip
PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Start a server when it is first asked for; gives what is to be configured."""
    with ExitStack() as stack:
        made = {}

        def servers(name):
            if name not in made:
                made[name] = _STARTERS[name](stack, tmp_path_factory.mktemp(name))
            return made[name]

        yield servers


def memcached(stack, directory):
    port = free_port()
    command = ("memcached", "-p", str(port), "-l", "127.0.0.1", "-u", "nobody")
    stack.enter_context(running(*command, port=port, cwd=directory))
    return {"CACHE_TYPE": "MemcachedCache", "CACHE_MEMCACHED_SERVERS": [f"127.0.0.1:{port}"]}


def sasl_memcached(stack, directory):
    """A memcached that asks for a password, with an account database of its own."""
    pylibmc = pytest.importorskip("pylibmc", reason="pylibmc is not installed")
    if shutil.which("memcached") is None:
        pytest.skip("memcached is not installed")
    told = subprocess.run(["memcached", "-h"], capture_output=True, text=True, check=True).stdout
    if "--enable-sasl" not in told:
        pytest.skip("this memcached was built without SASL")
    if not pylibmc.support_sasl:
        pytest.skip("this pylibmc was built without SASL")
    if shutil.which("saslpasswd2") is None or "SASL_PATH" not in os.environ:
        pytest.skip(
            "saslpasswd2 or the PLAIN mechanism is not installed (Debian: sasl2-bin, libsasl2-modules)"
        )
    # The server runs as nobody, who may not look into the directories of pytest.
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    directory.chmod(0o755)
    accounts = directory / "accounts"
    settings = (
        "mech_list: plain login",  # libmemcached of pylibmc's wheel reads past the end of the last
        "pwcheck_method: auxprop",
        "auxprop_plugin: sasldb",
        f"sasldb_path: {accounts}",
    )
    (directory / "memcached.conf").write_text("\n".join(settings) + "\n")
    subprocess.run(
        ["saslpasswd2", "-a", "memcached", "-c", "-p", "-u", socket.gethostname(), "-f", accounts, "alice"],
        input=PASSWORD, text=True, check=True, capture_output=True,
    )  # fmt: skip
    accounts.chmod(0o644)
    port = free_port()
    command = ("memcached", "-S", "-p", str(port), "-l", "127.0.0.1", "-u", "nobody")
    stack.enter_context(running(*command, port=port, cwd=directory, SASL_CONF_PATH=str(directory)))
    return {
        "CACHE_MEMCACHED_SERVERS": [f"127.0.0.1:{port}"], "CACHE_MEMCACHED_USERNAME": "alice",
        "CACHE_MEMCACHED_PASSWORD": PASSWORD,
    }  # fmt: skip


def redis_server(stack, directory):
    port = free_port()
    command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "")
    stack.enter_context(running(*command, port=port, cwd=directory))
    return {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": port}


def sentinel(stack, directory):
    master = redis_server(stack, directory)["CACHE_REDIS_PORT"]
    port = free_port()
    (directory / "sentinel.conf").write_text(f"port {port}\nsentinel monitor mymaster 127.0.0.1 {master} 1\n")
    command = ("redis-server", str(directory / "sentinel.conf"), "--sentinel")
    stack.enter_context(running(*command, port=port, cwd=directory))
    return {"CACHE_TYPE": "RedisSentinelCache", "CACHE_REDIS_SENTINELS": [("127.0.0.1", port)]}


def cluster(stack, directory):
    """Three masters, so that keys live on different nodes."""
    import redis

    ports = []
    for at in range(3):
        port, place = free_port(), directory / str(at)
        place.mkdir()
        command = ("redis-server", "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
        bus = ("--cluster-port", str(free_port()), "--save", "")
        stack.enter_context(running(*command, *bus, port=port, cwd=place))
        ports.append((port, int(bus[1])))
    nodes = [stack.enter_context(redis.Redis(port=port)) for port, _ in ports]
    bounds = (0, 5461, 10923, 16384)
    for at, node in enumerate(nodes):
        node.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)
        node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
    for port, bus in ports[1:]:
        nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
    for node in nodes:
        for _ in range(100_000):  # they answer at once, and agree within seconds
            told = node.execute_command("CLUSTER", "INFO")
            told = told if isinstance(told, bytes) else repr(told).encode()
            if b"cluster_state:ok" in told and b"cluster_known_nodes:3" in told:
                break
        else:
            pytest.fail("the cluster did not come together")
    return {"CACHE_TYPE": "RedisClusterCache", "CACHE_REDIS_CLUSTER": f"127.0.0.1:{ports[0][0]}"}


def dynamodb(stack, directory):
    """Amazon's service as moto plays it; there is no server of it to run here."""
    moto = pytest.importorskip("moto", reason="moto is not installed")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ.setdefault(name, "none")
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
    stack.enter_context(moto.mock_aws())
    return "cache"


_STARTERS = {
    "memcached": memcached, "sasl": sasl_memcached, "redis": redis_server, "sentinel": sentinel,
    "cluster": cluster, "dynamodb": dynamodb,
}  # fmt: skip


@pytest.fixture
def config_for(servers, tmp_path):
    """CACHE_ keys for a backend by its name here."""

    def config_for(name):
        if name == "sasl":
            return {"CACHE_TYPE": "SASLMemcachedCache", **servers("sasl"), "CACHE_OPTIONS": {"pool_size": 8}}
        if name == "spread":
            options = {"pool_size": 8, "chunksize": 2000, "maxchunk": 100}
            return {"CACHE_TYPE": "SpreadSASLMemcachedCache", **servers("sasl"), "CACHE_OPTIONS": options}
        if name in ("libmc", "memcache"):
            package = {"memcache": "python-memcached"}.get(name, name)
            pytest.importorskip(name, reason=f"{package} is not installed")
            options = {"memcache_client_lib": name, "pool_size": 8}
            return {**servers("memcached"), "CACHE_OPTIONS": options}
        if name == "valkey":
            valkey = pytest.importorskip("valkey", reason="valkey is not installed")
            return {
                "CACHE_TYPE": "RedisCache",
                "CACHE_REDIS_HOST": valkey.Valkey(port=servers("redis")["CACHE_REDIS_PORT"]),
            }
        if name == "cachelib files":
            return {"CACHE_TYPE": "cachelib.FileSystemCache", "CACHE_ARGS": [str(tmp_path / "files")]}
        if name == "cachelib redis":
            port = servers("redis")["CACHE_REDIS_PORT"]
            return {"CACHE_TYPE": "cachelib.RedisCache", "CACHE_OPTIONS": {"port": port}}
        if name == "cachelib dynamodb":
            return {
                "CACHE_TYPE": "cachelib.DynamoDbCache",
                "CACHE_OPTIONS": {"table_name": servers("dynamodb")},
            }
        return servers(name)

    return config_for


@pytest.fixture(params=NAMES)
def make(request, config_for):
    """Make caches of one backend: each is a worker."""
    made = []

    def make(**config):
        app = Flask("tests")
        app.config["SECRET_KEY"] = "secret"
        given = {**config_for(request.param), "CACHE_DEADLINE": 10, **config}
        cache = Cache(app, config=given)
        if not made:
            cache.clear()
        made.append(cache)
        return cache

    yield make
    for cache in made:
        close_backend(cache.cache)


@pytest.fixture
def cache(make):
    return make()


def test_values_come_back_as_they_went(cache):
    values = {
        "text": "ä", "bytes": b"\x00\xff", "none-like": "", "yes": True, "no": False, "big": 10**30,
        "float": 0.1, "list": [1, (2, {"a": None})], "set": {1, 2}, "when": datetime(2026, 1, 2, tzinfo=UTC),
        "money": Decimal("1.10"), "number": -7, "path": Path("/a"),
    }  # fmt: skip
    assert sorted(cache.set_many(values)) == sorted(values)
    for key, value in values.items():
        found = cache.get(key)
        assert (type(found), found) == (type(value), value)
    assert cache.get_many("text", "missing", "number") == ["ä", None, -7]
    assert cache.get_dict("yes", "missing") == {"yes": True, "missing": None}
    assert cache.has("text")
    assert not cache.has("missing")
    assert cache.delete("text")
    assert not cache.has("text")
    assert sorted(cache.delete_many("yes", "no")) == ["no", "yes"]
    assert cache.unlink("list") == ["list"]
    assert cache.get_many("text", "yes", "no", "list") == [None] * 4
    assert cache.clear()
    assert cache.get("number") is None
    assert not cache.link.is_down


def test_timeouts_mean_the_same(cache):
    assert cache.set("never", 1, 0)
    cache.set("gone", 1, -1)
    assert cache.set("long", 1, 40 * 86400)
    assert cache.get_many("never", "gone", "long") == [1, None, 1]
    assert [cache.has("never"), cache.has("gone")] == [True, False]
    assert cache.add("gone", 2)
    assert not cache.add("never", 2)
    assert cache.get_many("never", "gone") == [1, 2]


def test_counters_count(cache):
    assert [cache.inc("n"), cache.inc("n", 5), cache.dec("n", 10), cache.inc("n", 4)] == [1, 6, -4, 0]
    assert cache.get("n") == 0
    cache.set("m", 41)
    assert cache.inc("m") == cache.get("m") == 42


def test_where_counting_is_atomic_nothing_is_lost(cache):
    if not cache.link.abilities.atomic_inc:
        pytest.skip("this backend counts by reading and writing: docs/flask.md says so")

    def count():
        for _ in range(100):
            cache.inc("n")

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(count) for _ in range(4)]:
            future.result(60)
    assert cache.get("n") == 400


def test_groups_prefixes_and_memoized_results_are_forgotten(make):
    first, second = make(), make()
    runs = []
    functions = []
    for cache in (first, second):

        @cache.memoize(60, groups="posts")
        def f(n):
            runs.append(n)
            return len(runs)

        functions.append(f)
    f, g = functions
    assert (f(1), g(1), f(1)) == (1, 1, 1)
    first.purge_groups("posts")
    assert (g(1), f(1)) == (2, 2)
    second.delete_memoized(g)
    assert (f(1), g(1)) == (3, 3)
    second.delete_memoized(g, 1)
    assert f(1) == 4
    first.set_many({"blog/1": 1, "blog/2": 2, "shop": 3})
    first.delete_prefix("blog/")
    assert first.get_many("blog/1", "blog/2", "shop") == [None, None, 3]
    second.link.learn()  # what a second's delay would tell it
    assert second.get_many("blog/1", "shop") == [None, 3]


def test_two_workers_compute_once_where_adding_is_atomic(make):
    workers = [make(), make()]
    if not workers[0].link.abilities.atomic_add:
        pytest.skip("this backend adds by reading and writing, so it gives no leases: docs/flask.md says so")
    entered, go, runs = threading.Event(), threading.Event(), []
    calls = []
    for cache in workers:

        @cache.memoize(60)
        def f():
            runs.append(1)
            entered.set()
            assert go.wait(PATIENCE)
            return "value"

        calls.append(f)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(calls[0])
        assert entered.wait(PATIENCE)
        assert workers[1].link.lease(calls[1].make_cache_key(calls[1].uncached)) is None
        second = pool.submit(calls[1])
        go.set()
        assert first.result(PATIENCE) == second.result(PATIENCE) == "value"
    assert runs == [1]


def test_many_threads_share_it(cache):
    def work(n):
        for at in range(20):
            key = f"{n}-{at}"
            assert cache.set(key, at)
            assert cache.get(key) == at

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, n) for n in range(8)]:
            future.result(60)
    assert not cache.link.is_down


class Evil:
    ran = False

    def __reduce__(self):
        return setattr, (Evil, "ran", True)


def test_what_others_wrote_is_not_run(cache, request):
    Evil.ran = False
    planted = pickle.dumps(Evil())
    backend = cache.cache
    if isinstance(backend, backends.MemcachedCache):
        with backend._client_context() as client:
            client.set(backend._normalize_key("key"), planted)
    elif isinstance(backend, cachelib.DynamoDbCache):
        backend._table.put_item(
            Item={"cache_key": "key", "response": b"!" + planted, "expiration_time": 2**40}
        )
    elif hasattr(backend, "_write_client"):
        backend._write_client.set(f"{backend._get_prefix()}key", b"!" + planted)
    else:
        backend.set("key", 1)
        Path(backend._get_filename("key")).write_bytes(b"\0\0\0\0" + planted)
    assert not Evil.ran
    assert cache.get("key") in (None, planted)
    assert not Evil.ran


# --- what only some have --------------------------------------------------------------------------------


def test_a_wrong_password_is_a_lost_server(config_for):
    cache = Cache(Flask("sasl"), config={**config_for("sasl"), "CACHE_MEMCACHED_PASSWORD": "wrong"})
    assert not cache.set("key", 1)
    assert cache.get("key") is None
    assert cache.link.is_down


def test_spread_values_are_whole_or_not_there(config_for):
    cache = Cache(Flask("spread"), config={**config_for("spread"), "CACHE_DEADLINE": 10})
    large = "".join(map(str, range(5000)))
    assert cache.set("key", large)
    assert cache.get("key") == large
    assert cache.set_many({"a": large, "b": 1}) == ["a", "b"]
    assert cache.get_many("a", "b") == [large, 1]
    assert not cache.set("key", "x" * 300_000)
    assert cache.get("key") is None
    close_backend(cache.cache)


def test_libmc_is_not_taken_by_itself(monkeypatch):
    """It unpickles what others wrote, so somebody must choose it."""

    def missing(*args, **kwargs):
        raise ImportError

    for name in ("pylibmc", "google", "memcache", "pymemcache"):
        monkeypatch.setitem(memcacheclients.MAKERS, name, missing)
    with pytest.raises(RuntimeError, match=r"memcache_client_lib.*libmc"):
        backends.MemcachedCache(["127.0.0.1:1"])


@pytest.mark.parametrize("name", ["libmc", pytest.param("memcache", marks=LEAVES_SOCKETS)])
def test_a_purge_that_a_silent_client_could_not_do_is_told(config_for, name):
    """These clients raise nothing when the server is gone."""
    from wsgicache.flask import Unavailable

    config = {
        **config_for(name),
        "CACHE_MEMCACHED_SERVERS": [f"127.0.0.1:{free_port()}"],
        "CACHE_DEADLINE": 1,
    }
    cache = Cache(Flask("lost"), config=config)

    @cache.memoize(60)
    def f():
        return 1

    assert f() == 1
    assert cache.get("key") is None
    for purge in (lambda: cache.purge_groups("posts"), lambda: cache.delete_prefix("a"), f.delete_memoized):
        with pytest.raises(Unavailable):
            purge()
    close_backend(cache.cache)
