"""What only memcached does: its keys, sizes, expiries, and forgetting."""

import itertools
import pickle
import re
import time
import uuid

import pytest
from servers_memcached import memcached

from wsgicache.codec import encode, encode_mark
from wsgicache.entry import Entry, Terms, Variants
from wsgicache.journal import Kind, Mark, Purge, PurgeIndex, Verdict
from wsgicache.stores import Store, StoreError, StoreOptions
from wsgicache.stores.memcached import MemcachedStore
from wsgicache.stores.memcachedservers import Refused
from wsgicache.testing.contract import ODD_KEYS

KEY = "/a\0\0example.com\0http"


@pytest.fixture(scope="module")
def server():
    with memcached() as server:
        yield server


def of_size(kilobytes):
    """Arguments for a server that takes items of this size at most."""
    return "-I", f"{kilobytes}k", "-o", f"slab_chunk_max={kilobytes * 512}"


def opened(*servers, **options):
    purges = options.pop("purges", 500)
    journal = options.pop("journal", None)
    options = StoreOptions(**{"timeout": 5.0, **options})
    return MemcachedStore([server.address for server in servers], journal, options, purges)


@pytest.fixture
def store(server):
    whole = opened(server)
    yield whole.namespaced(uuid.uuid4().hex)
    whole.close()


def entry(store, key="/a", body=b"body", born=None):
    terms = Terms("200 OK", "f" * 16, 300, "ttl")
    now = float(int(time.time()))
    return Entry(key, terms, (), body, now, now + 300, born or store.mark_of(key))


def put(store, key="/a", body=b"body", *, kept=3600, token=0):
    return store.set(key, entry(store, key, body), time.time() + kept, token)


def found(store, key="/a"):
    stored = store.get([key])[0][0]
    return stored.body if isinstance(stored, Entry) else stored


def name_of(store, key="/a"):
    return store._name("e", key)


def verdict(store, born, key=KEY):
    index = PurgeIndex()
    index.follow(store.purges_since(None))
    return index.verdict(born, key, ())


def test_it_is_a_store(store):
    assert isinstance(store, Store)
    assert store.shared


# --- MEM-01 ----------------------------------------------------------------------------------------


def test_mem_01_no_text_of_a_client_is_on_the_wire(tmp_path):
    """Every name that the server hears is of our making, and of one length for each kind."""
    log = tmp_path / "log"
    with open(log, "wb") as file, memcached("-vv", log=file) as server:
        whole = opened(server)
        store = whole.namespaced("name \r\n space")
        for key in ODD_KEYS:
            put(store, key)
            assert found(store, key) == b"body"
            store.append([Purge(Kind.GROUP, f"g{key}")], 1.0)
            store.release(key, store.lease(key, 5))
            store.set_meta(key, key)
            assert store.get_meta(key) == key
            store.incr_many({key: 1})
            store.delete(key)
        assert store.counters() == dict.fromkeys(ODD_KEYS, 1)
        whole.close()
    commands = re.findall(
        rb"^<\d+ (?:get|gets|set|add|cas|delete|incr|decr) (.*)$", log.read_bytes(), re.MULTILINE
    )
    assert len(commands) > 10 * len(ODD_KEYS)
    words = [word for command in commands for word in command.split()]
    names = {word for word in words if len(word) > 12 and not word.isdigit()}
    assert len(names) > 3 * len(ODD_KEYS)
    strange = [
        name
        for name in names
        if not re.fullmatch(rb"[0-9a-f]{16}(?:[elxc][0-9a-f]{32}|j[0-9a-f]{32}|[mtd])", name)
    ]
    assert not strange


def test_entries_have_hex_names_of_one_length(store):
    assert {len(name_of(store, key)) for key in ODD_KEYS} == {49}
    assert all(re.fullmatch(rb"[0-9a-f]{49}", name_of(store, key)) for key in ODD_KEYS)


# --- MEM-02 ----------------------------------------------------------------------------------------


def test_mem_02_what_is_too_large_is_not_sent_and_leaves_nothing_older():
    with memcached(*of_size(64)) as server:
        store = opened(server)
        put(store)
        before = server.stat(b"cmd_set")
        assert put(store, body=b"x" * 70_000) is False
        assert found(store) is None
        assert server.stat(b"cmd_set") == before
        assert put(store, body=b"x" * 30_000) is True
        store.close()


@pytest.mark.parametrize("size", [1, 8, 1024])
def test_mem_02_at_the_limit_it_is_stored_or_gone(size):
    """Whatever the server counts beside key and value: there is the new one or nothing."""
    with memcached(*of_size(size)) as server:
        store = opened(server)
        limit = int(store._home.call("stats", "settings")[b"item_size_max"])
        outcomes = []
        for body in range(limit - 460, limit + 40, 20):
            assert put(store, body=b"old") is True
            stored = put(store, body=b"x" * body)
            assert found(store) == (b"x" * body if stored else None)
            outcomes.append(stored)
        assert outcomes == sorted(outcomes, reverse=True)
        assert set(outcomes) == {True, False}
        store.close()


def test_mem_02_a_refusal_by_the_server_leaves_nothing_older():
    """It was restarted and takes less than before, which nobody knows yet."""
    with memcached() as server:
        store = opened(server)
        put(store)
        server.restart(*of_size(64))
        put(store)
        assert found(store) == b"body"
        assert put(store, body=b"x" * 100_000) is False
        assert found(store) is None
        assert not server.has(name_of(store))
        before = server.stat(b"cmd_set")
        assert put(store, body=b"x" * 100_000) is False
        assert server.stat(b"cmd_set") == before  # it was asked anew what it takes
        store.close()


def test_what_a_server_takes_that_does_not_tell(store, monkeypatch):
    """As some proxies: then it is what memcached takes by default."""
    call = store._home.call

    def without_stats(command, *args, **options):
        if command == "stats":
            raise Refused("ERROR")
        return call(command, *args, **options)

    monkeypatch.setattr(store._home, "call", without_stats)
    assert put(store, body=b"x" * 1_000_000) is True
    assert put(store, body=b"x" * 1_100_000) is False
    assert found(store) is None


# --- MEM-04 ----------------------------------------------------------------------------------------

DAY = 24 * 3600


@pytest.mark.parametrize("days", [1, 29.9, 30, 30.1, 60, 365])
def test_mem_04_long_lives_are_kept(store, server, days):
    assert put(store, kept=days * DAY) is True
    assert found(store) == b"body"
    told = re.match(rb"HD t(\d+)", server.told(b"mg " + name_of(store) + b" t", b"get none"))
    assert abs(int(told[1]) - days * DAY) < 10


def test_mem_04_beyond_the_last_instant_that_memcached_knows(store, server):
    """An expiry is a signed number of 32 bits; after that there are 30 days at most."""
    assert store.set("/a", entry(store), 2.0**31 + 100 * 365 * DAY, 0) is True
    assert found(store) == b"body"
    told = re.match(rb"HD t(\d+)", server.told(b"mg " + name_of(store) + b" t", b"get none"))
    assert abs(int(told[1]) - 30 * DAY) < 10


def test_what_is_over_already_is_kept_for_a_moment_at_most(store, server):
    assert put(store, kept=-100) is True
    told = re.match(rb"HD t(\d+)|EN", server.told(b"mg " + name_of(store) + b" t", b"get none"))
    assert int(told[1] or 0) <= 1


# --- MEM-06, RDS-07: forgetting --------------------------------------------------------------------


def test_mem_06_without_its_mark_everything_is_a_miss(store, server):
    put(store)
    born = store.mark_of("/a")
    assert server.told(b"delete " + store._mark_name) == b"DELETED\r\n"
    entries, mark = store.get(["/a"])
    assert entries == [None]
    assert mark.epoch != born.epoch
    assert store.set("/a", entry(store, born=born), time.time() + 300) is False
    assert verdict(store, born) is Verdict.HARD
    assert put(store) is True
    assert found(store) == b"body"


def test_mem_06_a_slot_is_not_confirmed_without_a_mark(store, server):
    put(store)
    found(store)
    slot = store.peek("/a")
    assert store.confirm(slot) == encode_mark(store.mark_of("/a"))
    server.told(b"delete " + store._mark_name)
    assert store.confirm(slot) is None


def test_mem_06_a_missing_record_makes_everything_before_it_a_miss(store, server):
    marks = [store.mark_of("")]
    for number in range(6):
        marks.append(store.append([Purge(Kind.URL, f"p/{number}")], 1.0))
    epoch = marks[0].epoch
    assert server.told(b"delete " + store._journal._name(epoch, 3)) == b"DELETED\r\n"
    whole = store.purges_since(None)
    assert (whole.floor, whole.whole) == (3, True)
    assert [record.seq for record in whole.records] == [4, 5, 6]
    assert [verdict(store, born) for born in marks] == [Verdict.HARD] * 3 + [Verdict.VALID] * 4
    # Whoever has followed so far that it does not need the lost one is not troubled.
    assert store.purges_since(marks[3]).whole is False
    assert store.purges_since(marks[2]).whole is True


@pytest.mark.parametrize("junk", [b"", b"junk", b"0 1.0\nnonce 5\nurl h", b"a nan\nn 5\nurl h", b"\xff" * 50])
def test_a_record_that_is_none_is_a_missing_one(store, server, junk):
    first = store.append([Purge(Kind.URL, "p/0")], 1.0)
    last = store.append([Purge(Kind.URL, "p/1")], 1.0)
    name = store._journal._name(first.epoch, 1)
    store._home.call("set", name, junk)
    assert store.purges_since(None).floor == 1
    assert verdict(store, last) is Verdict.VALID


@pytest.mark.parametrize("junk", [b"", b"junk", b"0 0", b"abc 01 abc", b"\0" * 40])
def test_a_mark_that_is_none_begins_a_new_epoch(store, junk):
    born = store.mark_of("")
    put(store)
    store._home.call("set", store._mark_name, junk)
    entries, mark = store.get(["/a"])
    assert entries == [None]
    assert mark.epoch != born.epoch
    assert store.mark_of("") == mark
    assert store.append([Purge(Kind.ALL, "")], 1.0).seq == 1


def test_mem_06_eviction_by_a_real_server_ends_in_misses():
    """Other people's items push out the mark; what was stored before is never valid again."""
    with memcached("-m", "2") as server:
        store = opened(server)
        put(store, KEY)
        born = store.append([Purge(Kind.URL, "p/other")], 1.0)
        for start in itertools.count(0, 2000):
            # as large as the mark, so that they share its slab class
            store._home.call("set_many", {f"{number:017}": "x" * 35 for number in range(start, start + 2000)})
            told = server.told(b"me " + store._mark_name, b"get none")  # asks, and is no use of it
            if told.startswith(b"EN"):
                break
            assert start < 10**6
        entries, mark = store.get([KEY])
        assert entries == [None]
        assert mark.epoch != born.epoch
        assert verdict(store, born) is Verdict.HARD
        store.close()


def test_a_purge_for_which_there_is_no_room_begins_a_new_epoch():
    with memcached(*of_size(1)) as server:
        store = opened(server)
        put(store)
        before = store.mark_of("")
        mark = store.append([Purge(Kind.GROUP, "g" + "x" * 250) for _ in range(60)], 1.0)
        assert mark.epoch != before.epoch
        assert store.mark_of("") == mark
        assert found(store) is None
        store.close()


def test_an_emptied_server_is_a_new_history(store, server):
    put(store)
    born = store.mark_of("")
    server.told(b"flush_all")
    assert found(store) is None
    assert store.mark_of("").epoch != born.epoch
    assert put(store) is True


# --- the journal's chain ---------------------------------------------------------------------------


def test_a_record_whose_writer_died_is_published_by_the_next(store):
    """He wrote the record and did not move the mark; nothing of it is lost, nothing waits."""
    start = store.append([Purge(Kind.URL, "p/0")], 1.0)
    dead = Dying(store._home, "cas")
    store._journal.server = dead
    with pytest.raises(Died):
        store.append([Purge(Kind.URL, "p/1"), Purge(Kind.URL, "p/2")], 2.0)
    store._journal.server = store._home
    assert store.mark_of("") == start
    mark = store.append([Purge(Kind.URL, "p/3")], 3.0)
    assert mark.seq == start.seq + 3
    records = store.purges_since(start).records
    assert [(record.target, record.at) for record in records] == [("p/1", 2.0), ("p/2", 2.0), ("p/3", 3.0)]


def test_what_takes_the_place_of_a_lost_record_is_known(store):
    """A slow writer's record lands where another's was and has been forgotten: it is not of the chain."""
    start = store.append([Purge(Kind.URL, "p/0")], 1.0)
    last = store.append([Purge(Kind.URL, "p/1")], 1.0)
    store.append([Purge(Kind.URL, "p/2")], 1.0)
    name = store._journal._name(start.epoch, 2)
    slow = store._home.call("get", store._journal._name(start.epoch, 1))
    store._home.call("set", name, slow)
    snapshot = store.purges_since(None)
    assert snapshot.floor == 2
    assert [record.target for record in snapshot.records] == ["p/2"]
    assert store.purges_since(start).whole is True
    assert store.purges_since(last).whole is False


class Died(BaseException):
    pass


class Dying:
    """A server as a process sees it that is killed before it sends one command."""

    def __init__(self, server, command):
        self._server, self._command = server, command

    def call(self, command, *args, **options):
        if command == self._command:
            raise Died
        return self._server.call(command, *args, **options)


def test_many_purges_at_once(store):
    """More than fit in one record, across the chunks in which a follower reads them."""
    start = store.mark_of("")
    middle = store.append([Purge(Kind.URL, f"p/{number}") for number in range(200)], 1.0)
    for number in range(200, 230):
        store.append([Purge(Kind.URL, f"p/{number}")], 1.0)
    snapshot = store.purges_since(start)
    assert [record.target for record in snapshot.records] == [f"p/{number}" for number in range(230)]
    assert [record.seq for record in snapshot.records] == list(range(1, 231))
    assert [record.seq for record in store.purges_since(middle).records] == list(range(201, 231))
    # A mark inside of a batch was never anybody's.
    inside = Mark(start.epoch, 100, snapshot.records[99].nonce)
    assert store.purges_since(inside).whole is True


def test_a_long_history_is_read_whole_and_forgotten_at_its_limit(server):
    whole = opened(server, purges=1200)
    store = whole.namespaced(uuid.uuid4().hex)
    start = store.mark_of("")
    for first in range(0, 1180, 59):
        store.append([Purge(Kind.URL, f"p/{number}") for number in range(first, first + 59)], 1.0)
    snapshot = store.purges_since(start)
    assert (len(snapshot.records), snapshot.whole, snapshot.floor) == (1180, False, 0)
    store.append([Purge(Kind.URL, f"p/{number}") for number in range(100)], 1.0)
    snapshot = store.purges_since(None)
    assert snapshot.mark.seq - len(snapshot.records) == snapshot.floor
    assert 80 <= snapshot.floor < 80 + 64
    assert not server.has(store._journal._name(start.epoch, 1))
    assert server.has(store._journal._name(start.epoch, 119))
    whole.close()


# --- what is stored --------------------------------------------------------------------------------


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


def line_of(store):
    raw = store._home.call("get", name_of(store))
    return raw[: raw.index(b"\n") + 1]


def spoiled(store):
    """Bytes that stand under a live key and are not its entry."""
    raw = store._home.call("get", name_of(store))
    line, mark = line_of(store), store.mark_of("")
    other = entry(store, "/b")
    earlier = entry(store, "/a", born=Mark("0" * 16, 0, "0" * 16))
    yield b""
    yield b"junk"
    yield b"\0" * len(raw)
    yield line
    yield raw[:-1]
    yield raw + b"x"
    yield raw[: len(raw) // 2] + bytes([raw[len(raw) // 2] ^ 1]) + raw[len(raw) // 2 + 1 :]
    yield line + encode(other)
    yield line + encode(earlier)
    yield line.replace(b" 0 ", b" 7 ") + raw[len(line) :]
    yield line + encode(Variants("/a", ("accept",), (), time.time() + 300))
    yield f"{mark.epoch} - 0\n".encode() + encode(Variants("/b", ("accept",), (), time.time() + 300))
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.dumps(Evil(), protocol)
        yield line + pickle.dumps(Evil(), protocol)


def test_int_11_and_ser_01_what_is_no_entry_is_a_miss_deleted_and_counted(store, server):
    put(store)
    for number, junk in enumerate([*spoiled(store)], 1):
        assert put(store) is True
        store._home.call("set", name_of(store), junk)
        assert found(store) is None, junk[:80]
        assert not server.has(name_of(store)), junk[:80]
        assert store.stats()["damaged"] == number
    assert Evil.ran is False


def test_junk_is_replaced_by_what_is_stored(store):
    for junk in (b"", b"junk", b"a" * 500):
        store._home.call("set", name_of(store), junk)
        assert put(store) is True
        assert found(store) == b"body"


def test_a_signature_is_asked_for(server):
    whole = opened(server)
    signed = opened(server, signing_keys=(b"key",))
    other = opened(server, signing_keys=(b"new", b"key"))
    part = uuid.uuid4().hex
    plain, ours, rotated = (store.namespaced(part) for store in (whole, signed, other))
    put(plain)
    assert found(ours) is None
    put(ours)
    assert found(rotated) == b"body"
    assert rotated.delete("/a", entry(rotated, body=b"other")) is False
    assert rotated.delete("/a", rotated.get(["/a"])[0][0]) is True
    for store in (whole, signed, other):
        store.close()


# --- the memo --------------------------------------------------------------------------------------


def test_a_confirmed_slot_says_the_mark_as_it_is_stored(store):
    put(store)
    assert store.peek("/a") is None
    found(store)
    slot = store.peek("/a")
    assert store.confirm(slot) == encode_mark(store.mark_of("/a"))
    mark = store.append([Purge(Kind.URL, "p/other")], 1.0)
    assert store.confirm(slot) == encode_mark(mark)


def test_a_slot_is_not_confirmed_once_another_is_stored(store, server):
    put(store, body=b"first")
    found(store)
    slot = store.peek("/a")
    put(store, body=b"second")
    assert store.confirm(slot) is None
    assert store.peek("/a") is None
    assert found(store) == b"second"
    slot = store.peek("/a")
    server.told(b"delete " + name_of(store))
    assert store.confirm(slot) is None


# --- leases, counters ------------------------------------------------------------------------------


def test_tokens_grow_when_their_counter_is_forgotten(store, server):
    first = store.lease("/a", 60)
    store.release("/a", first)
    assert server.told(b"delete " + store._prefix + b"t") == b"DELETED\r\n"
    second = store.lease("/a", 60)
    assert second > first


def test_tokens_grow_when_the_clock_went_back_too(store, server, monkeypatch):
    """The lease that has ended is still there and says what its token was."""
    first = store.lease("/a", 0.001)
    server.told(b"delete " + store._prefix + b"t")
    monkeypatch.setattr(
        "wsgicache.stores.memcachedextras.time", Clock(time.time() + 10, time.time_ns() - 10**12)
    )
    second = store.lease("/a", 60)
    assert second > first


class Clock:
    def __init__(self, seconds, nanoseconds):
        self._seconds, self._nanoseconds = seconds, nanoseconds

    def time(self):
        return self._seconds

    def time_ns(self):
        return self._nanoseconds


def test_a_lease_ends_by_the_servers_clock(store, server, monkeypatch):
    """Its holder's clock was wrong by a year: it expires even so."""
    monkeypatch.setattr("wsgicache.stores.values.time", Clock(time.time() + 365 * DAY, time.time_ns()))
    store.lease("/a", 30)
    told = re.match(rb"HD t(\d+)", server.told(b"mg " + store._name("l", "/a") + b" t", b"get none"))
    assert int(told[1]) <= 31


@pytest.mark.parametrize("junk", [b"", b"junk", b"h 99 1", b"h x 1.000"])
def test_a_lease_that_is_none_is_taken(store, junk):
    store._home.call("set", store._name("l", "/a"), junk)
    assert store.lease("/a", 60) > 0
    assert store.lease("/a", 60) is None


def test_counters_may_go_below_zero(store):
    store.incr_many({"a": -5})
    store.incr_many({"a": 2, "b": 0})
    assert store.counters() == {"a": -3}


def test_counters_are_bounded(store):
    store.incr_many({f"name {number}": 1 for number in range(1100)})
    assert len(store.counters()) == 1024
    store.incr_many({"name 5": 1, "one more": 1})
    assert store.counters()["name 5"] == 2
    assert "one more" not in store.counters()


@pytest.mark.parametrize("junk", [b"", b"junk", b"{}", b"[1]", b"[" * 100_000])
def test_counters_survive_their_directory(store, junk):
    store.incr_many({"a": 1})
    store._home.call("set", store._prefix + b"d", junk)
    assert store.counters() == {}
    store.incr_many({"a": 1, "b": 1})
    assert store.counters() == {"a": 2, "b": 1}


def test_a_counter_that_is_none_is_not_told(store):
    store.incr_many({"a": 1, "b": 1})
    store._home.call("set", store._name("c", "a"), b"many")
    assert store.counters() == {"b": 1}
    with pytest.raises(StoreError, match="incr"):
        store.incr_many({"a": 1})


def test_stats_tell_of_the_servers(server, store):
    put(store)
    found(store)
    stats = store.stats()
    assert stats["servers"] == 1
    assert stats["servers_down"] == 0
    assert stats["servers_entries"] >= 2
    assert stats["servers_bytes"] > 100
    assert stats["servers_max_bytes"] == 64 << 20
    assert (stats["damaged"], stats["memo_entries"]) == (0, 1)


def test_scan_says_that_it_cannot(store):
    with pytest.raises(NotImplementedError, match="memcached cannot list"):
        store.scan()
