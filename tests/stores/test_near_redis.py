"""The near tier over a real Redis server, in real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from near_helpers import body, purge_all
from servers_redis import Server, empty, until
from test_memory_fork import in_child
from waiting import PATIENCE

import wsgicache
from wsgicache import WSGICache
from wsgicache.entry import Entry, Terms
from wsgicache.stores import StoreError, StoreOptions, open_store
from wsgicache.stores.near import near_store
from wsgicache.stores.rollcall import settle
from wsgicache.testing import Response, ScriptedApp, StoreContract, ask

A = "/a\0\0h\0http"
LONG = 60.0
"""A bound that no test lives to see."""


class TestNearRedis(StoreContract):
    journal_limit = 200

    def make_store(self):
        url = f"{empty().url}?timeout=20s&journal={self.journal_limit}"
        return near_store(open_store(url, StoreOptions(memo_bytes=0)), bound=20.0)


@pytest.fixture
def server():
    return empty()


@pytest.fixture
def near(server, tiers):
    return tiers(server)


@pytest.fixture
def tiers():
    """A function that opens near tiers in this process; they are closed at the end."""
    made = []

    def make(server, bound=LONG):
        url = f"{server.url}?timeout=2s"
        made.append(near_store(open_store(url, StoreOptions(memo_bytes=0)), bound=bound))
        body(made[-1])
        until(lambda: time.monotonic() < made[-1].trust.until)
        return made[-1]

    yield make
    for tier in made:
        tier.close()


def patient(server):
    """The store beside all near tiers; a machine that is busy may take long to answer."""
    return open_store(f"{server.url}?timeout=5s")


class Process:
    """A process with a near tier."""

    def __init__(self, server, bound):
        command = [sys.executable, str(Path(__file__).with_name("near_child.py")), server.url, str(bound)]
        path = str(Path(wsgicache.__file__).parents[1])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._read() == "ready"
        self.ask("get", "/none")
        until(lambda: self.ask("trusts") == "True")

    def _read(self):
        return self._process.stdout.readline().strip()

    def ask(self, *words):
        self.order(*words)
        return self._read()

    def order(self, *words):
        """Without waiting for the answer."""
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()

    answer = _read

    def end(self):
        """As a program ends that is done."""
        self._process.stdin.close()
        assert self._process.wait(PATIENCE) == 0

    def send(self, number):
        os.kill(self._process.pid, number)

    def close(self):
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            pipe.close()


@pytest.fixture
def processes():
    made = []

    def make(server, bound=LONG, count=1):
        new = [Process(server, bound) for _ in range(count)]
        made.extend(new)
        return new

    yield make
    for process in made:
        process.close()


def put(store, text=b"body", key=A):
    now = time.time()
    entry = Entry(key, Terms("200 OK", "f", 300, "ttl"), (), text, now, now + 300, store.mark_of(key))
    assert store.set(key, entry, entry.keep_until)


def age_register(server):
    """As if it had been there for long."""
    (name,) = server.ask("KEYS", "wsgicache:*:near")
    server.ask("ZADD", name, -1, "#begun")


def listeners(server):
    """How many connections wait for messages."""
    return sum([int(count) for count in server.ask("PUBSUB", "NUMSUB", *channels(server))[1::2]])


def channels(server):
    return server.ask("PUBSUB", "CHANNELS", "wsgicache:*")


# --- purges ----------------------------------------------------------------------------------------


def test_a_purge_in_one_process_reaches_another_by_message(server, processes):
    """With a bound so long that nothing else can have told it."""
    one, two = processes(server, count=2)
    assert one.ask("put", "/a", "old") == "True"
    assert (two.ask("get", "/a"), one.ask("get", "/a")) == ("old 0", "old 0")
    assert one.ask("purge") == "1"
    assert one.ask("get", "/a") == "nothing 1"
    assert float(two.ask("followed", "1")) < time.monotonic()
    assert two.ask("get", "/a") == "nothing 1"


def test_a_copy_is_served_without_a_round_trip(server, near):
    put(near)
    near.get([A])
    before = int(server.ask("INFO", "stats")["total_commands_processed"])
    for _ in range(100):
        assert body(near, A) == b"body"
    assert int(server.ask("INFO", "stats")["total_commands_processed"]) - before < 20


def test_rds_11_a_lost_connection_for_messages_resyncs_by_the_mark(server, near, tiers):
    """What was purged meanwhile is followed when it is made again, long before the bound."""
    other = patient(server)
    put(near)
    until(lambda: listeners(server) == 1)
    with server.client() as client:
        pipe = client.pipeline(transaction=True)
        pipe.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        pipe.execute()
    mark = other.append(purge_all(), time.time())
    until(lambda: near.mark_of(A) == mark)
    assert near.peek(A) is None or near.get([A])[1] == mark
    until(lambda: listeners(server) == 1)
    other.close()


def test_rds_11_the_bound_holds_without_messages(server, tiers):
    near = tiers(server, bound=0.3)
    near._heartbeat._stopped.set()  # neither thread does anything any more
    near._heartbeat.post.poke("")
    put(near)
    until(lambda: time.monotonic() >= near.trust.until)
    other = patient(server)
    mark = other.append(purge_all(), time.time())
    assert near.get([A])[1] == mark
    other.close()


@pytest.mark.parametrize("lost", ["flushed", "restarted"])
def test_a_journal_that_was_lost_flushes(tiers, lost):
    server = Server()
    near = tiers(server, bound=1.0)
    put(near)
    epoch = near.mark_of(A).epoch
    if lost == "flushed":
        server.ask("FLUSHALL")
    else:
        server.restart()
    until(lambda: near._mark.epoch != epoch)
    assert near.peek(A) is None
    until(lambda: time.monotonic() < near.trust.until)
    put(near)
    assert body(near, A) == b"body"
    server.close()


def test_hits_stop_within_the_bound_when_the_server_is_killed(tiers):
    bound = 1.0
    server = Server()
    near = tiers(server, bound)
    put(near)
    assert body(near, A) == b"body"
    server.kill()
    killed = time.monotonic()

    def fails():
        try:
            near.get([A])
        except StoreError:
            return True
        return False

    until(fails)
    assert near.trust.until <= killed + bound
    server.start()
    until(lambda: not fails())
    server.close()


# --- the roll call ---------------------------------------------------------------------------------


def test_a_purge_that_waits_is_in_force_in_every_process(server, near, processes):
    made = processes(server, count=3)
    age_register(server)
    put(near)
    for process in made:
        assert process.ask("get", "/a") == "body 0"
    for turn in range(1, 6):
        start = time.monotonic()
        near.append(purge_all(), time.time())
        assert near.settle()
        assert time.monotonic() - start < LONG
        assert [process.ask("get", "/a") for process in made] == [f"nothing {turn}"] * 3
        put(near)
        assert {process.ask("get", "/a") for process in made} == {f"body {turn}"}


def test_a_purge_from_outside_waits_too(server, processes):
    made = processes(server, count=2)
    age_register(server)
    made[0].ask("put", "/a", "old")
    outside = patient(server)
    outside.append(purge_all(), time.time())
    start = time.monotonic()
    assert settle(outside)
    assert time.monotonic() - start < LONG
    assert [process.ask("get", "/a") for process in made] == ["nothing 1"] * 2
    until(lambda: listeners(server) == 2)
    outside.close()


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
def test_a_process_that_does_not_answer_is_waited_for_as_long_as_the_bound(server, tiers, processes, how):
    bound = 0.5
    near = tiers(server, bound)
    (process,) = processes(server, bound)
    age_register(server)
    put(near)
    assert process.ask("get", "/a") == "body 0"
    process.send(how)
    near.append(purge_all(), time.time())
    start = time.monotonic()
    assert near.settle()
    assert time.monotonic() - start >= bound
    if how == signal.SIGSTOP:
        process.order("get", "/a")
        process.send(signal.SIGCONT)
        assert process.answer() == "nothing 1"


def test_a_process_that_ended_is_not_waited_for(server, near, processes):
    (process,) = processes(server)
    age_register(server)
    assert len(near.remote.attending()) == 2
    process.end()
    assert near.remote.attending() == [near._heartbeat.who]
    assert near.settle()


def test_a_new_register_proves_nothing_for_a_while(server, tiers, processes):
    """Somebody may have stood in the one that was lost."""
    bound = 0.5
    near = tiers(server, bound)
    processes(server, bound)
    age_register(server)
    assert len(near.remote.attending()) == 2
    server.ask("DEL", server.ask("KEYS", "wsgicache:*:near")[0])
    assert near.remote.attending() == []
    near.remote.attend("first", 3 * bound)
    assert near.remote.attending() == []
    start = time.monotonic()
    assert near.settle()
    assert time.monotonic() - start >= bound
    assert len(until(near.remote.attending)) >= 2  # all who are there are in it again


def test_the_register_forgets_who_does_not_renew(server):
    store = patient(server)
    assert store.attending() == []
    store.attend("one", 100)
    store.attend("two", 0.1)
    assert store.attending() == []  # it is too young
    age_register(server)
    assert "one" in store.attending()
    until(lambda: store.attending() == ["one"])
    store.attend("three", 100)
    store.attend("one", 0)
    assert store.attending() == ["three"]
    assert store.namespaced("other").attending() == []
    (name,) = server.ask("KEYS", "wsgicache:*:near")
    assert 0 < server.ask("TTL", name) <= 86400
    server.ask("SET", name, "something else")
    assert store.attending() == []
    store.attend("four", 100)
    age_register(server)
    assert store.attending() == ["four"]
    store.close()


def connections(port):
    """How many sockets of this process are connected to a port."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as found:
            count += found.family == socket.AF_INET and found.getpeername()[1] == port
    return count


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="the platform does not list open files")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_rds_14_a_child_holds_no_connection_of_its_parent(server, near):
    put(near)
    until(lambda: listeners(server) == 1)
    assert connections(server.port) >= 2

    def child():
        told = [connections(server.port), body(near, A)]
        until(lambda: listeners(server) == 2)
        told.append(listeners(server))
        near.close()
        return told

    assert in_child(child) == "[0, b'body', 2]"
    until(lambda: listeners(server) == 1)
    mark = near.append(purge_all(), time.time())
    assert near.get([A])[1] == mark


GREEN = r"""
from gevent import monkey
monkey.patch_all()
import sys
import time
import gevent
from near_child import Child
one, two = Child(sys.argv[1], 60), Child(sys.argv[1], 60)
key = "/a\0\0h\0http"
with gevent.Timeout(20):
    for child in (one, two):
        child.get(key)
        while not child.trusts():
            gevent.sleep(0.001)
    one.put(key, "old")
    print(two.get(key), one.purge())
    two.followed("1")
    print(two.get(key))
for child in (one, two):
    child.near.close()
"""


def test_green_threads_follow_as_well(server):
    pytest.importorskip("gevent")
    here = Path(__file__).parent
    path = os.pathsep.join([str(Path(wsgicache.__file__).parents[1]), str(here)])
    told = subprocess.run(
        [sys.executable, "-c", GREEN, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert (told.returncode, told.stdout) == (0, "old 0 1\nnothing 1\n"), told.stderr


def test_a_page_is_held_decoded_once(server):
    """In the near tier, and not in the store's memo as well."""
    app = ScriptedApp(Response(body=[b"page"]))
    with contextlib.closing(WSGICache(app, f"{server.url}?timeout=2s", near="8MB")) as cache:
        for _ in range(3):
            reply = ask(cache, "/a")
        assert reply.is_hit
        stats = cache.engine.store.stats()
    assert (stats["near_entries"], stats["memo_entries"]) == (1, 0)
