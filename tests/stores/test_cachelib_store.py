"""What only caches of cachelib do: copies, serializers, pickles, timeouts, purges, processes, faults."""

import io
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import cachelib
import pytest
from cachelib.serializers import BaseSerializer
from ports import free_port
from servers_memcached import Scripted, plain_redis
from test_memory_fork import HeldElsewhere, in_child
from waiting import PATIENCE

import wsgicache
from wsgicache import WSGICache
from wsgicache.codec import encode, encode_mark
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores import Store, StoreError
from wsgicache.stores.breaker import CircuitOpen
from wsgicache.stores.cachelib import CachelibStore
from wsgicache.stores.cachelibbytes import PlainBytes
from wsgicache.testing import Response, ScriptedApp, ask


@pytest.fixture(scope="module")
def redis_port():
    with plain_redis() as port:
        yield port


@pytest.fixture(params=["simple", "file", "redis"])
def cache(request, tmp_path):
    if request.param == "simple":
        yield cachelib.SimpleCache()
    elif request.param == "file":
        yield cachelib.FileSystemCache(str(tmp_path / "cache"))
    else:
        cache = cachelib.RedisCache("127.0.0.1", request.getfixturevalue("redis_port"), socket_timeout=5)
        cache._write_client.flushdb()
        yield cache
        cache._write_client.close()


def entry(store, body=b"body", born=None, key="/a"):
    terms = Terms("200 OK", "f" * 16, 300, "ttl")
    now = float(int(time.time()))
    return Entry(key, terms, (), body, now, now + 300, born or store.mark_of(key))


def put(store, body=b"body", *, kept=3600.0, token=0, key="/a"):
    return store.set(key, entry(store, body, key=key), time.time() + kept, token)


def found(store, key="/a"):
    stored = store.get([key])[0][0]
    return stored.body if isinstance(stored, Entry) else stored


def name_of(store, key="/a"):
    return store._names.of("e", key)


def write_raw(cache, name, data):
    """Put bytes where a cache keeps the value of a name, as somebody does who can write there."""
    if isinstance(cache, cachelib.SimpleCache):
        cache._cache[name] = (time.time() + 1000, data)
    elif isinstance(cache, cachelib.FileSystemCache):
        Path(cache._get_filename(name)).write_bytes(b"\0\0\0\0" + data)
    else:
        cache._write_client.set(name, data)


def test_it_is_a_store(cache):
    store = CachelibStore(cache)
    assert isinstance(store, Store)
    assert store.shared


# --- serializers, pickles --------------------------------------------------------------------------


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def pickles():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for before in (b"", b"!", b"="):
            yield before + pickle.dumps(Evil(), protocol)


def test_ser_01_a_pickle_under_a_live_key_is_a_miss_and_runs_nothing(cache):
    Evil.ran = False
    store = CachelibStore(cache)
    for number, data in enumerate(pickles(), 1):
        assert put(store) is True
        write_raw(cache, name_of(store), data)
        assert found(store) is None
        assert store.stats()["damaged"] == number
        assert store._cache.get(name_of(store)) is None  # deleted
    for name in (
        store._names.mark,
        store._names.of("l", "/a"),
        store._names.of("x", "rules"),
        store._names.prefix + "c",
    ):
        for data in pickles():
            write_raw(cache, name, data)
            store.mark_of("/a")
            store.release("/a", store.lease("/a", 60))
            store.get_meta("rules")
            store.incr_many({"a": 1})
            store.counters()
    assert Evil.ran is False


def test_ser_01_the_files_of_a_directory_are_counted_without_unpickling(tmp_path):
    Evil.ran = False
    cache = cachelib.FileSystemCache(str(tmp_path), threshold=10)
    for data in pickles():
        if not data.startswith(b"="):
            write_raw(cache, cache._fs_count_file, data)
            store = CachelibStore(cache)
            write_raw(cache, cache._fs_count_file, data)
            assert put(store) is True
    assert Evil.ran is False


def test_int_11_what_is_no_entry_is_a_miss_deleted_and_counted(cache):
    store = CachelibStore(cache)
    put(store)
    raw = store._cache.get(name_of(store))
    line = raw[: raw.index(b"\n") + 1]
    other = encode(entry(store, key="/b"))
    junk = [b"", b"junk", b"\0" * len(raw), line, raw[:-1], raw + b"x", line + other, raw[:-3] + b"XYZ"]
    for number, data in enumerate(junk, 1):
        put(store)
        write_raw(cache, name_of(store), b"=" + data)
        assert found(store) is None, data[:80]
        assert store.stats()["damaged"] == number
        assert store._cache.get(name_of(store)) is None


def test_a_file_cut_off_in_its_time_is_a_miss(tmp_path, caplog):
    cache = cachelib.FileSystemCache(str(tmp_path))
    store = CachelibStore(cache)
    put(store)
    Path(cache._get_filename(name_of(store))).write_bytes(b"\0")
    assert found(store) is None
    assert put(store) is True
    assert found(store) == b"body"


def test_the_callers_cache_stays_as_it_was(cache):
    """It goes on storing objects; no class is changed either."""
    kind = type(cache)
    serializer, of_the_class = cache.serializer, kind.serializer
    store = CachelibStore(cache)
    put(store)
    cache.set("theirs", {"a": (1, 2)})
    assert cache.get("theirs") == {"a": (1, 2)}
    assert cache.serializer is serializer
    assert kind.serializer is of_the_class
    assert isinstance(kind.serializer, BaseSerializer)
    assert found(store) == b"body"


def test_bytes_and_whole_numbers_pass():
    plain = PlainBytes()
    for value in (b"", b"=", b"!", b"0", bytes(range(256)), 0, -5, 10**18):
        assert plain.loads(plain.dumps(value)) == value
        file = io.BytesIO()
        plain.dump(value, file)
        file.seek(0)
        assert plain.load(file) == value
    assert plain.loads(None) is None
    for strange in (b"", b"x", b"1x", b"--1", b"!\x80", b"9" * 30):
        assert plain.loads(strange) == b""
    for strange in (True, "text", 1.5, None, [1]):
        with pytest.raises(TypeError, match="is no bytes"):
            plain.dumps(strange)


class Plain(cachelib.BaseCache):
    """Somebody's own class, which keeps objects as they are."""


def test_a_cache_without_a_serializer_is_refused():
    for cache in (Plain(), cachelib.NullCache()):
        with pytest.raises(ValueError, match="has no serializer to replace"):
            CachelibStore(cache)


def test_memcached_through_cachelib_is_refused():
    """Its client libraries unpickle by themselves."""
    with pytest.raises(ValueError, match="memcached://host:port instead"):
        CachelibStore(cachelib.MemcachedCache(object()))


class Table:
    """A table of DynamoDB as far as these tests can have one; there is no server to be had."""

    def __init__(self):
        self.read = []

    def get_item(self, **arguments):
        self.read.append(arguments)
        return {}

    def delete_item(self, **arguments):
        return "deleted"


def test_dynamodb_is_read_as_it_is_now():
    """Unless it is asked to, it may answer with what was there a second ago: before a purge."""
    cache = cachelib.DynamoDbCache.__new__(cachelib.DynamoDbCache)
    cache._table, cache._key_field, cache.key_prefix, cache.serializer = Table(), "cache_key", "", None
    store = CachelibStore(cache)
    assert store._ask("get", "name") is None
    assert cache._table.read == [{"Key": {"cache_key": "name"}, "ConsistentRead": True}]
    assert store._cache._table.delete_item(Key="name") == "deleted"
    cache._get_item("name")
    assert "ConsistentRead" not in cache._table.read[1]  # the caller's own object is as it was


def test_a_cache_of_one_process_says_so(caplog, tmp_path):
    CachelibStore(cachelib.SimpleCache())
    assert [record.getMessage().split(":")[1] for record in caplog.records] == [
        "SimpleCache is one process's"
    ]
    caplog.clear()
    CachelibStore(cachelib.FileSystemCache(str(tmp_path)))
    assert not caplog.records


def test_a_directory_is_pruned_at_its_threshold(tmp_path):
    """The count of files is kept through the serializer, and begins with what is there."""
    cache = cachelib.FileSystemCache(str(tmp_path), threshold=20)
    for number in range(15):
        cache.set(f"{number}", number)
    store = CachelibStore(cache)
    mark = store.mark_of("/a")
    for number in range(60):
        put(store, key=f"/{number}")
    assert len([*tmp_path.iterdir()]) <= 23
    assert found(store, "/59") == b"body"
    assert store.mark_of("/a") == mark  # it is kept for longest, so it goes last


# --- timeouts --------------------------------------------------------------------------------------


class Recording(cachelib.SimpleCache):
    def __init__(self):
        super().__init__()
        self.timeouts = []

    def set(self, key, value, timeout=None):
        self.timeouts.append(timeout)
        return super().set(key, value, timeout)

    def add(self, key, value, timeout=None):
        self.timeouts.append(timeout)
        return super().add(key, value, timeout)


def test_everything_has_an_end():
    """0 would mean none, and a fraction of a second is not known."""
    cache = Recording()
    store = CachelibStore(cache)
    for kept in (-1e9, -1, 0, 0.001, 0.9, 1, 59.5, 3600, 1e9, 2.0**31):
        put(store, kept=kept)
    for seconds in (0.001, 1, 1e9):
        token = store.lease(f"/{seconds}", seconds)
        store.release(f"/{seconds}", token, unstorable_for=seconds)
    store.set_meta("a", "b")
    store.incr_many({"a": 1})
    store.append([Purge(Kind.ALL, "")], 1.0)
    store.clear()
    assert len(cache.timeouts) > 15
    assert all(type(timeout) is int and 1 <= timeout <= 365 * 24 * 3600 for timeout in cache.timeouts)


def test_an_entry_goes_when_its_time_has_come(tmp_path):
    cache = cachelib.FileSystemCache(str(tmp_path))
    store = CachelibStore(cache)
    put(store)
    os.utime(cache._get_filename(name_of(store)))
    data = Path(cache._get_filename(name_of(store))).read_bytes()
    Path(cache._get_filename(name_of(store))).write_bytes(
        int(time.time() - 5).to_bytes(4, sys.byteorder) + data[4:]
    )
    assert found(store) is None


# --- purges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("kind", list(Kind))
def test_every_purge_makes_everything_older_a_miss(cache, kind, soft):
    """Also a soft one, a switch of a rule, and one of something else."""
    store, other = CachelibStore(cache), CachelibStore(cache)
    put(store)
    found(store)
    slot = store.peek("/a")
    born = store.mark_of("/a")
    mark = other.append([Purge(kind, "something else", soft)], 1.0)
    assert store.confirm(slot) in (None, encode_mark(mark))
    assert found(store) is None
    assert store.set("/a", entry(store, born=born), time.time() + 60) is False
    assert (mark.epoch != born.epoch, mark.seq) == (True, 0)
    assert store.purges_since(born).whole is True
    assert store.purges_since(mark).whole is False
    assert put(store) is True
    assert found(other) == b"body"


def test_a_soft_purge_through_a_cache_is_a_hard_one(cache):
    """The page is asked for again instead of being shown as stale."""
    app = ScriptedApp(
        lambda environ: Response(
            headers=[("Cache-Control", "max-age=60, stale-while-revalidate=60")], body=b"body"
        )
    )
    site = WSGICache(app, CachelibStore(cache))
    assert not ask(site, "/a").is_hit
    assert ask(site, "/a").is_hit
    site.purge("/a", soft=True)
    answer = ask(site, "/a")
    assert answer.cache["fwd"] in ("uri-miss", "miss")
    assert ask(site, "/a").is_hit


def test_a_lost_mark_is_a_new_epoch(cache):
    store = CachelibStore(cache)
    put(store)
    before = store.mark_of("/a")
    for junk in (b"", b"=", b"=junk", b"7", b"=0 0"):
        write_raw(cache, store._names.mark, junk)
        assert found(store) is None
        after = store.mark_of("/a")
        assert after.epoch != before.epoch
        before = after
    store._cache.delete(store._names.mark)
    assert store.mark_of("/a").epoch != before.epoch


def test_an_expired_mark_and_lease_that_are_still_in_the_way(tmp_path):
    """FileSystemCache adds nothing where there is a file, whatever its time."""
    cache = cachelib.FileSystemCache(str(tmp_path))
    store = CachelibStore(cache)
    mark, token = store.mark_of("/a"), store.lease("/a", 60)
    for name in (store._names.mark, store._names.of("l", "/a")):
        path = Path(cache._get_filename(name))
        path.write_bytes((1000).to_bytes(4, sys.byteorder) + path.read_bytes()[4:])
    assert store.mark_of("/a").epoch != mark.epoch
    assert store.lease("/a", 60) > token
    assert store.lease("/a", 60) is None


class KeepsNothing(cachelib.SimpleCache):
    def get(self, key):
        return None


def test_a_cache_that_keeps_nothing_is_a_store_that_is_down():
    store = CachelibStore(KeepsNothing())
    with pytest.raises(StoreError, match="keeps no mark"):
        store.get(["/a"])


class TakesNothing(cachelib.SimpleCache):
    taking = True

    def set(self, key, value, timeout=None):
        return super().set(key, value, timeout) if self.taking else False


def test_what_the_cache_does_not_take_leaves_nothing_older():
    cache = TakesNothing()
    store = CachelibStore(cache)
    put(store)
    store._cache.taking = False
    assert put(store, b"new") is False
    assert found(store) is None
    with pytest.raises(StoreError, match="did not take the mark"):
        store.append([Purge(Kind.ALL, "")], 1.0)
    with pytest.raises(StoreError, match="did not take 'rules'"):
        store.set_meta("rules", "x")


class Large(cachelib.SimpleCache):
    def set(self, key, value, timeout=None):
        if len(value) > 1000:
            raise ValueError("too large")
        return super().set(key, value, timeout)


def test_what_the_cache_raises_for_leaves_nothing_older():
    store = CachelibStore(Large())
    put(store)
    with pytest.raises(StoreError, match="cachelib:Large: set: too large"):
        put(store, b"x" * 2000)
    assert found(store) is None
    assert put(store) is True


# --- the memo, fills -------------------------------------------------------------------------------


def test_a_slot_is_confirmed_while_nothing_changed(cache):
    store, other = CachelibStore(cache), CachelibStore(cache)
    put(store)
    assert found(store) == b"body"
    slot = store.peek("/a")
    assert store.confirm(slot) == encode_mark(store.mark_of("/a"))
    put(other, b"another")
    assert store.confirm(slot) is None
    assert store.peek("/a") is None


def test_in_one_process_what_began_earlier_is_refused(cache):
    store = CachelibStore(cache)
    assert put(store, b"5", token=5) is True
    assert put(store, b"4", token=4) is False
    assert put(store, b"6", token=6) is True
    assert found(store) == b"6"


def test_tokens_grow_though_the_clock_goes_back(cache, monkeypatch):
    store = CachelibStore(cache)
    first = store.lease("/a", 60)
    store.release("/a", first)
    now = time.time_ns()
    monkeypatch.setattr("wsgicache.stores.cachelib.time.time_ns", lambda: now - 10**12)
    second = store.lease("/a", 60)
    assert second > first


def test_counters_are_bounded_and_survive_junk(cache):
    store = CachelibStore(cache)
    store.incr_many({f"name {number}": 1 for number in range(1100)})
    assert len(store.counters()) == 1024
    for junk in (b"=", b"=[]", b'={"a": "b", "c": 1.5}', b"=" + b"[" * 100_000, b"5"):
        write_raw(cache, store._names.prefix + "c", junk)
        assert store.counters() == {}
        store.incr_many({"a": 2})
        assert store.counters() == {"a": 2}


# --- faults ----------------------------------------------------------------------------------------


def test_redis_that_is_gone_is_a_store_that_is_down():
    with plain_redis() as port:
        cache = cachelib.RedisCache("127.0.0.1", port, socket_timeout=5, retry=None)
        store = CachelibStore(cache)
        put(store)
        found(store)
        slot = store.peek("/a")
    for call in (
        lambda: store.get(["/a"]),
        lambda: store.confirm(slot),
        lambda: put(store),
        lambda: store.append([Purge(Kind.ALL, "")], 1.0),
        lambda: store.lease("/a", 1),
        lambda: store.incr_many({"a": 1}),
        store.counters,
    ):
        with pytest.raises(StoreError, match="cachelib:RedisCache"):
            call()
    assert store._breaker.is_open
    cache._write_client.close()


def test_a_silent_server_costs_its_deadline_once():
    hole = Scripted()
    host, _, port = hole.address.partition(":")
    cache = cachelib.RedisCache(
        host, int(port), socket_timeout=0.05, socket_connect_timeout=0.05, retry=None, protocol=2
    )
    store = CachelibStore(cache)
    with pytest.raises(StoreError, match="cachelib:RedisCache: get_many"):
        store.get(["/a"])
    asked = hole.connections()
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            store.get(["/a"])
    assert hole.connections() == asked
    cache._write_client.close()
    hole.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_lock_held_at_the_fork_does_not_stop_the_child(cache):
    store = CachelibStore(cache)
    part = store.namespaced("part")
    put(store)
    locks = [
        store._lock,
        part._lock,
        *store._stripes,
        *part._stripes,
        store._breaker._lock,
        store._memo._lock,
    ]
    if isinstance(cache, cachelib.SimpleCache):
        locks.append(cache._lock)
    with HeldElsewhere(*locks):
        told = in_child(lambda: f"{found(store)} {put(store)} {put(part)} {bool(store.lease('/a', 5))}")
    assert told == "b'body' True True True"


# --- processes -------------------------------------------------------------------------------------

WORKER = """
import json, sys, time
import cachelib
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores.cachelib import CachelibStore

kind, where, job, name = sys.argv[1:]
if kind == "file":
    cache = cachelib.FileSystemCache(where, threshold=0)
else:
    cache = cachelib.RedisCache("127.0.0.1", int(where), socket_timeout=5)
store = CachelibStore(cache)
store.mark_of("")
print("ready", flush=True)
sys.stdin.readline()
terms = Terms("200 OK", "f", 300, "ttl")
told = []
if job == "purge":
    # The data changes, then comes the purge, and only then is it said up to where nothing older is served.
    for number in range(1, 150):
        store.set_meta("data", str(number))
        store.append([Purge(Kind.URL, "p/a")], 1.0)
        store.set_meta("purged", str(number))
elif job == "fill":
    hits = 0
    for _ in range(400):
        at_least = int(store.get_meta("purged") or 0)
        (stored,), born = store.get(["/a"])
        if stored is not None:
            hits += 1
            if int(stored.body) < at_least:
                told.append([int(stored.body), at_least])
        else:
            body = (store.get_meta("data") or "0").encode()
            store.set("/a", Entry("/a", terms, (), body, 0.0, 300.0, born), time.time() + 60)
    told = [hits, told]
else:
    told = [n for n in range(60) if store.lease(f"/{n}", 60)]
print(json.dumps(told), flush=True)
if kind == "redis":
    cache._write_client.close()
"""


def at_once(kind, where, *jobs):
    environ = {**os.environ, "PYTHONPATH": str(Path(wsgicache.__file__).parents[1])}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, kind, str(where), job, str(number)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True,
        )
        for number, job in enumerate(jobs)
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        return [json.loads(process.communicate(timeout=60)[0]) for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@pytest.fixture(params=["file", "redis"])
def place(request, tmp_path):
    if request.param == "file":
        return "file", tmp_path / "cache"
    port = request.getfixturevalue("redis_port")
    cache = cachelib.RedisCache("127.0.0.1", port)
    cache.clear()
    cache._write_client.close()
    return "redis", port


def test_a_purge_wins_in_every_process(place):
    *fillers, _ = at_once(*place, "fill", "fill", "purge")
    for hits, wrong in fillers:
        assert hits > 20
        assert wrong == []


def test_a_lease_is_one_processs_where_add_is_one_step(redis_port):
    told = at_once("redis", redis_port, "lease", "lease", "lease")
    assert sorted(n for keys in told for n in keys) == list(range(60))


def test_somebody_always_gets_a_lease(tmp_path):
    """In files it may be two at the same moment."""
    told = at_once("file", tmp_path / "cache", "lease", "lease", "lease")
    assert {n for keys in told for n in keys} == set(range(60))


def test_threads_of_one_process_never_share_a_lease(tmp_path):
    store = CachelibStore(cachelib.FileSystemCache(str(tmp_path)))
    for turn in range(20):
        barrier, tokens = threading.Barrier(6), []

        def take(barrier=barrier, tokens=tokens, turn=turn):
            barrier.wait(PATIENCE)
            tokens.append(store.lease(f"/{turn}", 60))

        threads = [threading.Thread(target=take) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len([token for token in tokens if token]) == 1


UWSGI_APP = """
import os, time
import cachelib
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreOptions, open_store

store = open_store("cachelib:UWSGICache?cache=mine", StoreOptions())
key = "/a\\0\\0example.com\\0http"
entry = Entry(key, Terms("200 OK", "f", 300, "ttl"), (), b"body" * 100, 0.0, 300.0, store.mark_of(key))
assert store.set(key, entry, time.time() + 60)
assert store.get([key])[0][0].body == entry.body
assert store.confirm(store.peek(key)) is not None
token = store.lease(key, 60)
assert token and store.lease(key, 60) is None
store.release(key, token)
assert store.lease(key, 60) > token
assert store.append([Purge(Kind.URL, "p/other")], 1.0) == store.mark_of(key)
assert store.get([key])[0] == [None]
assert store.set(key, entry, time.time() + 60) is False
big = Entry(key, entry.terms, (), b"x" * 100_000, 0.0, 300.0, store.mark_of(key))
assert store.set(key, big, time.time() + 60) is False
store.set_meta("a", "b")
assert store.get_meta("a") == "b"
print("uwsgi", "done")
os._exit(0)
"""


def test_uwsgi(tmp_path):
    """Its cache is there in its own processes only."""
    program = Path(sys.executable).parent / "uwsgi"
    if not program.exists():
        pytest.skip("uwsgi is not installed")
    (tmp_path / "app.py").write_text(UWSGI_APP)
    ran = subprocess.run(
        [program, "--cache2", "name=mine,items=100", "--socket", f"127.0.0.1:{free_port()}", "--need-app",
         "--virtualenv", sys.prefix, "--pythonpath", str(Path(wsgicache.__file__).parents[1]),
         "--wsgi-file", "app.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "uwsgi done" in ran.stderr, ran.stderr[-2000:]
