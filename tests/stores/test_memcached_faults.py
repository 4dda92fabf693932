"""memcached down, restarted, silent, cut off in mid-reply; forks; calls that are killed."""

import logging
import os
import socket
import threading
import time

import pytest
from servers_memcached import Scripted, memcached
from test_memcached_store import entry, found, name_of, opened, put
from test_memory_fork import HeldElsewhere, in_child
from waiting import PATIENCE

from wsgicache.codec import encode_mark
from wsgicache.journal import Kind, Mark, Purge, PurgeIndex, Verdict
from wsgicache.stores import StoreError, StoreOptions
from wsgicache.stores.breaker import CircuitOpen
from wsgicache.stores.memcached import MemcachedStore
from wsgicache.stores.memcachedservers import Ring, Servers

PURGE = [Purge(Kind.ALL, "")]


@pytest.fixture
def three():
    with memcached() as a, memcached() as b, memcached() as c:
        yield [a, b, c]


def keys_by_server(store, servers, count=60, of="/{}"):
    """Keys and the address of the server that each lives on."""
    places = {server.address: [] for server in servers}
    for key in [of.format(number) for number in range(count)]:
        places[store._servers.of(name_of(store, key)).name.removeprefix("memcached://")].append(key)
    return places


def close_circuits(store):
    """As if every pause were over."""
    for server in store._servers.all.values():
        server.breaker._reset()


@pytest.fixture
def scripted():
    made = []

    def make(*words):
        made.append(Scripted(*words))
        return made[-1]

    yield make
    for server in made:
        server.close()


# --- servers that are gone -------------------------------------------------------------------------


def test_keys_are_spread_over_the_servers(three):
    store = opened(*three)
    assert all(len(keys) > 3 for keys in keys_by_server(store, three).values())
    other_order = opened(*three[::-1], journal=three[0].address)
    assert keys_by_server(other_order, three) == keys_by_server(store, three)
    put(store, "/17")
    assert found(other_order, "/17") == b"body"
    store.close()
    other_order.close()


def test_where_keys_live_moves_few_when_a_server_is_added():
    ring, larger = Ring(), Ring()
    for number in range(4):
        ring.add_node(f"10.0.0.{number}:11211")
        larger.add_node(f"10.0.0.{number}:11211")
    larger.add_node("10.0.0.9:11211")
    keys = [b"%032x" % number for number in range(2000)]
    moved = [key for key in keys if ring.get_node(key) != larger.get_node(key)]
    assert 250 < len(moved) < 550
    assert {larger.get_node(key) for key in moved} == {"10.0.0.9:11211"}
    larger.remove_node("10.0.0.9:11211")
    assert all(ring.get_node(key) == larger.get_node(key) for key in keys)


def test_long_names_of_servers_that_end_alike_are_told_apart():
    ring, domain = Ring(), "a" * 60 + ".example.com:11211"
    for number in range(3):
        ring.add_node(f"cache-{number}.{domain}")
    assert len({ring.get_node(b"%032x" % number) for number in range(100)}) == 3


def test_a_dead_server_is_a_miss_and_its_keys_stay_its_own(three):
    """They are not stored elsewhere meanwhile: once it is back nothing older is found."""
    home, dead, _ = three
    store = opened(*three)
    for key in [f"/{number}" for number in range(60)]:
        put(store, key)
    lost = keys_by_server(store, three)[dead.address]
    dead.kill()
    for key in lost[:3]:
        with pytest.raises(StoreError, match=dead.address):
            store.get([key])
        with pytest.raises(StoreError, match=dead.address):
            put(store, key, b"meanwhile")
    for key in keys_by_server(store, three)[home.address]:
        assert found(store, key) == b"body"
    for server in three:
        if server is not dead:
            assert not any(server.has(name_of(store, key)) for key in lost)
    dead.start()
    close_circuits(store)
    assert found(store, lost[0]) is None
    assert put(store, lost[0], b"again") is True
    assert found(store, lost[0]) == b"again"
    store.close()


def test_a_server_that_comes_back_with_its_memory_serves_nothing_that_was_purged(three):
    """It was cut off, not restarted: what it holds is older than the purge that it did not hear of."""
    _, cut, _ = three
    store = opened(*three)
    key = keys_by_server(store, three, of="/{}\0\0example.com\0http")[cut.address][0]
    born = store.mark_of(key)
    put(store, key)
    server = store._servers.of(name_of(store, key))
    server.breaker.fail(OSError("cut off"))
    with pytest.raises(CircuitOpen):
        store.get([key])
    store.append([Purge(Kind.URL, "p/x"), *PURGE], 1.0)
    close_circuits(store)
    index = PurgeIndex()
    entries, mark = store.get([key])
    index.follow(store.purges_since(None))
    assert index.mark == mark
    assert entries[0].born == born
    assert index.verdict(entries[0].born, key, ()) is Verdict.HARD
    store.close()


def test_a_restarted_server_is_simply_empty(three):
    """The connections of before are known to be dead; nobody is told of an error."""
    _, server, _ = three
    store = opened(*three)
    key = keys_by_server(store, three)[server.address][0]
    gate = threading.Barrier(4)

    def use():
        gate.wait(PATIENCE)
        for _ in range(20):
            put(store, key)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.restart()
    assert found(store, key) is None
    assert put(store, key, b"again") is True
    assert found(store, key) == b"again"
    assert server.stat(b"curr_connections") < 10
    store.close()


def test_when_the_journals_server_is_restarted_everything_is_a_miss(three):
    home, other, _ = three
    store = opened(*three)
    key = keys_by_server(store, three)[other.address][0]
    put(store, key)
    born = store.mark_of(key)
    assert found(store, key) == b"body"
    slot = store.peek(key)
    home.restart()
    assert store.confirm(slot) is None
    entries, mark = store.get([key])
    assert entries == [None]
    assert mark.epoch != born.epoch
    assert store.set(key, entry(store, key, born=born), time.time() + 300) is False
    assert put(store, key) is True
    store.close()


def test_without_the_journals_server_nothing_is_served_and_no_purge_returns(three, caplog):
    home, other, _ = three
    store = opened(*three)
    key = keys_by_server(store, three)[other.address][0]
    put(store, key)
    found(store, key)
    slot = store.peek(key)
    home.kill()
    caplog.clear()
    for call in (
        lambda: store.get([key]),
        lambda: store.confirm(slot),
        lambda: store.mark_of(key),
        lambda: put(store, key),
        lambda: store.append(PURGE, 1.0),
        lambda: store.append([], 1.0),
        store.clear,
        lambda: store.purges_since(None),
        lambda: store.lease(key, 1),
        lambda: store.set_meta("a", "b"),
        lambda: store.get_meta("a"),
        lambda: store.incr_many({"a": 1}),
        store.counters,
    ):
        with pytest.raises(StoreError, match=f"memcached://{home.address}"):
            call()
    stats = store.stats()
    assert (stats["servers"], stats["servers_down"]) == (3, 1)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "does not answer" in warnings[0]
    store.close()


def test_a_purge_is_sent_also_while_the_circuit_is_open():
    """Somebody waits for it; and what it finds closes the circuit."""
    with memcached() as server:
        store = opened(server)
        start = store.mark_of("")
        store._home.breaker.fail(OSError("a moment ago"))
        with pytest.raises(CircuitOpen):
            store.get(["/a"])
        assert store.append(PURGE, 1.0).seq == start.seq + 1
        assert store._home.breaker.is_open is False
        assert store.get(["/a"])[0] == [None]
        store.close()


# --- servers that do not answer --------------------------------------------------------------------


def test_a_silent_server_costs_one_deadline_and_then_nothing(scripted):
    hole = scripted()
    store = MemcachedStore([hole.address], options=StoreOptions(timeout=0.05))
    with pytest.raises(StoreError, match="timed out"):
        store.get(["/a"])
    assert hole.connections() == 1
    for _ in range(20):
        with pytest.raises(CircuitOpen):
            store.get(["/a"])
    assert hole.connections() == 1
    assert store._home.pool.used == ()


def test_nobody_listens():
    with memcached() as server:
        store = opened(server)
    with pytest.raises(StoreError, match="refused"):
        store.get(["/a"])
    with pytest.raises(CircuitOpen):
        store.get(["/a"])


def test_a_name_that_does_not_resolve_is_a_store_that_is_down():
    store = MemcachedStore(["no-such-host.invalid"])
    with pytest.raises(StoreError, match="no-such-host"):
        store.get(["/a"])


MARK = encode_mark(Mark("0" * 16, 0, "0" * 16))


@pytest.mark.parametrize(
    "words",
    [
        b"VALUE ",
        b"VALUE {name} 0 50\r\nepoch",
        b"VALUE {name} 0 35\r\n" + MARK,
        b"VALUE {name} 0 35\r\n" + MARK + b"\r\nEN",
    ],
)
def test_a_connection_cut_off_in_mid_reply_is_not_used_again(scripted, words):
    """What comes late cannot be taken for the answer to the next question (replies never shift)."""
    whole = b"VALUE {name} 0 35\r\n" + MARK + b"\r\nEND\r\n"
    name = opened_name()
    server = scripted(words.replace(b"{name}", name), whole.replace(b"{name}", name))
    store = MemcachedStore([server.address], options=StoreOptions(timeout=0.5))
    with pytest.raises(StoreError, match="timed out"):
        store.mark_of("/a")
    close_circuits(store)
    assert store.mark_of("/a") == Mark("0" * 16, 0, "0" * 16)
    assert server.connections() == 2
    store.close()


def opened_name():
    return MemcachedStore(["localhost"])._mark_name


@pytest.mark.parametrize(
    "words",
    [
        b"SERVER_ERROR out of memory\r\n",
        b"ERROR\r\n",
        b"CLIENT_ERROR line too long\r\n",
        b"+PONG\r\n",
        b"VALUE a\r\n",
        b"STAT\r\n",
        b"VALUE someone-elses 0 1\r\nx\r\nEND\r\n",
        b"VALUE {name} 0 many\r\nx\r\nEND\r\n",
        b"\xff\xfe\r\n",
    ],
)
def test_an_answer_that_is_none_is_an_error_of_the_store(scripted, words):
    server = scripted(words.replace(b"{name}", opened_name()))
    store = MemcachedStore([server.address], options=StoreOptions(timeout=5.0))
    with pytest.raises(StoreError, match=server.address):
        store.get(["/a"])
    assert store._home.pool.used == ()
    assert store._home.pool.free == ()
    store.close()


class Killed(BaseException):
    """As a greenlet is killed, or a person presses Ctrl-C."""


class KilledSocket:
    """A socket on which whoever waits for an answer is killed."""

    def __init__(self, real):
        self.real = real

    def sendall(self, data):
        self.real.sendall(data)

    def recv(self, size):
        raise Killed

    def close(self):
        self.real.close()


@pytest.mark.parametrize("call", ["get", "confirm", "set", "append", "lease"])
def test_a_call_that_is_killed_leaves_no_connection_behind(call):
    with memcached() as server:
        store = opened(server)
        put(store)
        found(store)
        slot = store.peek("/a")
        (client,) = store._home.pool.free
        real, client.sock = client.sock, KilledSocket(client.sock)
        with pytest.raises(Killed):
            {
                "get": lambda: store.get(["/a"]),
                "confirm": lambda: store.confirm(slot),
                "set": lambda: put(store),
                "append": lambda: store.append(PURGE, 1.0),
                "lease": lambda: store.lease("/a", 1),
            }[call]()
        assert real.fileno() == -1
        assert (store._home.pool.used, store._home.pool.free) == ((), ())
        assert store._home.breaker.is_open is False
        assert found(store) == b"body"
        store.close()


# --- several servers in one round trip -------------------------------------------------------------


class Talking:
    """A server that answers each question after it has called `before(number of the question)`."""

    def __init__(self, before):
        self._before = before
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.spec = ("127.0.0.1", self._listening.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        connection, _ = self._listening.accept()
        with connection:
            number = 0
            while connection.recv(1000):
                self._before(number)
                connection.sendall(b"VALUE a 0 1\r\n%d\r\nEND\r\n" % number)
                number += 1

    def close(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        self._listening.close()


def test_several_servers_are_asked_before_the_first_is_waited_for():
    """Each answers the second question only when the other has heard it too."""
    both = threading.Barrier(2)
    talking = [Talking(lambda number: number and both.wait(PATIENCE)) for _ in range(2)]
    servers = Servers([server.spec for server in talking], talking[0].spec, 5.0)
    asked = [(servers.all[server.spec], [b"a"]) for server in talking]
    for number in range(3):  # the first makes the connections
        assert servers.get_many(asked) == {b"a": b"%d" % number}
    servers.close()
    for server in talking:
        server.close()


@pytest.mark.parametrize("how", ["silent", "killed"])
def test_an_answer_that_nobody_waited_for_is_never_the_next_ones(how):
    with memcached() as first, memcached() as second:
        servers = Servers(
            [("127.0.0.1", first.port), ("127.0.0.1", second.port)], ("127.0.0.1", first.port), 5.0
        )
        one, other = servers.all.values()
        one.call("set", b"a", b"1")
        for name in (b"a", b"b"):
            other.call("set", name, name * 3)
        assert servers.get_many([(one, [b"a"]), (other, [b"b"])]) == {b"a": b"1", b"b": b"bbb"}
        (client,) = one.pool.free
        real = client.sock
        client.sock = KilledSocket(real) if how == "killed" else SilentSocket(real)
        with pytest.raises(Killed if how == "killed" else StoreError):
            servers.get_many([(one, [b"a"]), (other, [b"a"])])
        assert [server.pool.used + server.pool.free for server in (one, other)] == [(), ()]
        assert other.call("get_many", [b"b"]) == {b"b": b"bbb"}
        servers.close()


class SilentSocket(KilledSocket):
    def recv(self, size):
        raise TimeoutError("timed out")


def test_a_restart_between_two_questions_is_not_noticed():
    with memcached() as first, memcached() as second:
        servers = Servers(
            [("127.0.0.1", first.port), ("127.0.0.1", second.port)], ("127.0.0.1", first.port), 5.0
        )
        one, other = servers.all.values()
        for _ in range(3):
            one.call("set", b"a", b"1")
            other.call("set", b"b", b"2")
            assert servers.get_many([(one, [b"a"]), (other, [b"b"])]) == {b"a": b"1", b"b": b"2"}
            second.restart()
            assert servers.get_many([(one, [b"a"]), (other, [b"b"])]) == {b"a": b"1"}
            first.restart()
            assert servers.get_many([(one, [b"a"]), (other, [b"b"])]) == {}
        assert not one.breaker.opened
        assert not other.breaker.opened
        servers.close()


# --- forks -----------------------------------------------------------------------------------------

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
# Python 3.12 and later warn of what is tested here.
quietly = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def ends_of(store):
    return {
        client.sock.getsockname() for server in store._servers.all.values() for client in server.pool.free
    }


@forks
@quietly
def test_a_child_has_connections_of_its_own(three):
    store = opened(*three)
    for key in [f"/{number}" for number in range(20)]:
        put(store, key)
    ours = ends_of(store)
    assert len(ours) == 3

    def child():
        bodies = [found(store, f"/{number}") for number in range(20)]
        theirs = ends_of(store)
        put(store, "/child")
        return f"{bodies == [b'body'] * 20} {len(theirs)} {len(theirs & ours)}"

    assert in_child(child) == "True 3 0"
    assert found(store, "/child") == b"body"
    assert ends_of(store) == ours
    store.close()


@forks
@quietly
def test_a_lock_held_at_the_fork_does_not_stop_the_child(three):
    """A connection in use by another thread is not the child's, and no lock is waited for."""
    store = opened(*three)
    put(store)
    pools = [server.pool for server in store._servers.all.values()]
    locks = [pool._lock for pool in pools] + [server.breaker._lock for server in store._servers.all.values()]
    in_use = pools[0].get()
    with HeldElsewhere(*locks, store._memo._lock):
        assert (
            in_child(lambda: f"{found(store)} {put(store)} {store.append(PURGE, 1.0).seq}")
            == "b'body' True 1"
        )
    pools[0].release(in_use)
    assert found(store) == b"body"
    store.close()


def test_a_closed_store_can_be_used_again():
    with memcached() as server:
        store = opened(server)
        put(store)
        store.close()
        assert found(store) == b"body"
        store.close()
        assert store.peek("/a") is None
