"""Redis and Valkey servers on free ports: single ones, three Sentinels, a Cluster of six nodes."""

import atexit
import contextlib
import itertools
import shutil
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import redis
from ports import free_port

from wsgicache.stores.redisurl import quiet

STARTS_WITHIN = 20.0

_nobody = threading.Event()


def until(true, within=STARTS_WITHIN, what="it"):
    """Look again and again until something is true; what it said."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = true()
        except (redis.RedisError, OSError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to pass within {within} s")
        _nobody.wait(0.01)


def alone(command):
    """The command, ended by the system should the tests be killed."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command


class Server:
    """One server that can be killed and started again on its port.

    Args:
        program: `redis-server` or `valkey-server`; without it, the test is skipped.
        arguments: of its command line, such as `--maxmemory 10mb`.
        config: its configuration file, for a Sentinel, which rewrites it.
    """

    def __init__(self, *arguments, program="redis-server", config=None, port=None):
        self.path = shutil.which(program)
        if self.path is None:
            pytest.skip(f"{program} is not installed: apt-get install {program}")
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.arguments = arguments
        self.config = config
        self.process = None
        self.port = port
        _servers.append(self)
        self.start()

    def start(self):
        for _ in range(1 if self.port else 5):
            port = self.port or free_port()
            self._launch(port)
            try:
                until(lambda port=port: self._answers(port), what="the start of a server")
            except _Ended:
                continue
            self.port = port
            return self
        return pytest.fail(f"{self.path} did not start: {self.log()[-2000:]}")

    def _launch(self, port):
        command = [self.path]
        if self.config is not None:
            file = self.directory / "server.conf"
            if not file.exists():
                file.write_text(self.config)
            command += [str(file), "--sentinel"]
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--logfile", "log", *self.arguments]
        if self.config is None and "--save" not in self.arguments:
            command += ["--save", ""]
        self.process = subprocess.Popen(alone(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _answers(self, port):
        if self.process.poll() is not None:
            raise _Ended
        with redis.Redis(port=port, socket_timeout=5, protocol=2, **quiet()) as client:
            try:
                return client.ping()
            except redis.BusyLoadingError:
                return False

    def log(self):
        return (self.directory / "log").read_text("utf-8", "replace")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def client(self):
        """A plain client of redis-py, to look and to meddle."""
        return redis.Redis(port=self.port, socket_timeout=10, protocol=2, **quiet())

    def ask(self, *command):
        with self.client() as client:
            return client.execute_command(*command)

    def ask_raw(self, *command):
        """The reply as it came, without what redis-py makes of it."""
        with self.client() as client:
            connection = client.connection_pool.get_connection()
            connection.send_command(*command)
            reply = connection.read_response(True)
            client.connection_pool.release(connection)
            return reply

    def kill(self):
        """As a crash: at once, whatever it was doing."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        return self.start()

    def close(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class _Ended(Exception):
    """The server ended instead of starting."""


_servers = []


@atexit.register
def close_servers():
    while _servers:
        _servers.pop().close()


@cache
def shared(program="redis-server"):
    """The server that most tests share; each begins by emptying it."""
    return Server(program=program)


def empty(program="redis-server"):
    """The shared server, with nothing in it."""
    server = shared(program)
    server.ask("FLUSHALL")
    return server


class Sentinels:
    """A primary, a replica, and three Sentinels that watch them."""

    def __init__(self, program="redis-server"):
        at_once = ("--repl-diskless-sync-delay", "0")
        self.servers = [Server(*at_once, program=program)]
        self.servers.append(
            Server(*at_once, "--replicaof", "127.0.0.1", str(self.servers[0].port), program=program)
        )
        config = (
            "protected-mode no\n"
            f"sentinel monitor mymaster 127.0.0.1 {self.servers[0].port} 2\n"
            "sentinel down-after-milliseconds mymaster 700\n"
            "sentinel failover-timeout mymaster 3000\n"
        )
        self.sentinels = [Server(program=program, config=config) for _ in range(3)]
        for sentinel in self.sentinels:
            self._hurry(sentinel)
        self.healthy()

    def _hurry(self, sentinel):
        """Look every 0.2 s, where the default is up to 10; before Redis 7 it cannot be told to."""
        periods = ("info-period", "publish-period", "ping-period", "ask-period", "slave-reconf-timeout")
        with contextlib.suppress(redis.ResponseError):
            sentinel.ask("SENTINEL", "DEBUG", *[word for name in periods for word in (name, 200)])

    @property
    def url(self):
        nodes = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{nodes}/mymaster/0"

    @property
    def primary(self):
        """The server that the Sentinels agree on."""
        states = [sentinel.ask_raw("SENTINEL", "MASTERS")[0] for sentinel in self.sentinels]
        ports = {int(state[state.index(b"port") + 1]) for state in states}
        (port,) = ports if len(ports) == 1 else (None,)
        return next((server for server in self.servers if server.port == port), None)

    @property
    def replica(self):
        return next(server for server in self.servers if server is not self.primary)

    def healthy(self):
        """Wait until there is a primary and a replica that follows it, and every Sentinel knows all."""

        def healthy():
            primary = self.primary
            if primary is None or primary.ask("ROLE")[0] != b"master":
                return False
            role = self.replica.ask("ROLE")
            if role[0] != b"slave" or (role[2], role[3]) != (primary.port, b"connected"):
                return False
            states = [sentinel.ask_raw("SENTINEL", "MASTERS")[0] for sentinel in self.sentinels]
            facts = [dict(zip(state[::2], state[1::2], strict=True)) for state in states]
            wanted = {b"num-slaves": b"1", b"num-other-sentinels": b"2", b"flags": b"master"}
            return all([fact[name] == value for fact in facts for name, value in wanted.items()])

        until(healthy, 60, "a healthy primary")
        return self

    def failover(self):
        """Make the replica the primary, now; wait until the Sentinels say so."""
        before, after = self.primary, self.replica
        said = before.ask("INFO", "replication")["master_repl_offset"]
        until(lambda: after.ask("INFO", "replication")["slave_repl_offset"] >= said, what="the copy")
        for sentinel in itertools.islice(
            itertools.cycle(self.sentinels), 12
        ):  # one may give up, without a word
            with contextlib.suppress(redis.ResponseError):
                sentinel.ask("SENTINEL", "FAILOVER", "mymaster")
            with contextlib.suppress(AssertionError):
                until(lambda: self.primary is not None and self.primary is not before, 5)
                return
        raise AssertionError("the Sentinels did not make the replica the primary")

    def exchange(self):
        """Fail over, and wait until the one that was the primary follows the other.

        On a busy machine a failover may be given up although the Sentinels have told of it. The old primary
        then goes on as if nothing had been.
        """
        after = self.replica
        for _ in range(3):
            self.failover()
            self.healthy()
            if self.primary is after:
                return
        raise AssertionError("the Sentinels took the old primary back")

    def fail_after(self, job):
        """Do a last thing, kill the primary, and wait until the Sentinels name the other."""
        before = self.primary
        job()
        before.kill()
        until(lambda: self.primary is not None and self.primary is not before, 30, "a failover")
        return before


class Cluster:
    """Three primaries with a replica each."""

    def __init__(self, program="redis-server"):
        self.servers = [self._node(program) for _ in range(6)]
        self.ids = {server: server.ask("CLUSTER", "MYID") for server in self.servers}
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, server in enumerate(self.servers[:3]):
            slots = range(16384 * number // 3, 16384 * (number + 1) // 3)
            server.ask("CLUSTER", "ADDSLOTS", *slots)
        for server in self.servers[1:]:
            server.ask("CLUSTER", "MEET", "127.0.0.1", self.servers[0].port)
        until(lambda: all([len(self.nodes(server)) == 6 for server in self.servers]), 60, "the meeting")
        for primary, replica in zip(self.servers[:3], self.servers[3:], strict=True):
            until(lambda p=primary, r=replica: r.ask("CLUSTER", "REPLICATE", self.ids[p]), 30, "a replica")
        self.healthy()

    def _node(self, program):
        return Server(
            "--cluster-enabled", "yes",
            "--cluster-node-timeout", "1500",
            "--cluster-replica-validity-factor", "0",
            "--cluster-require-full-coverage", "no",
            "--repl-diskless-sync-delay", "0",
            program=program,
        )  # fmt: skip

    @property
    def url(self):
        return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:3])

    def nodes(self, server):
        """Lines of CLUSTER NODES, as words."""
        return [line.split() for line in server.ask_raw("CLUSTER", "NODES").decode("ascii").splitlines()]

    def healthy(self):
        """Wait until every node sees all slots served and all nodes alive, with a replica per primary."""

        def healthy():
            if len({self._owners(server) for server in self.servers}) != 1:
                return False
            for server in self.servers:
                nodes = self.nodes(server)
                if any(["fail" in words[2] or "handshake" in words[2] for words in nodes]) or len(nodes) != 6:
                    return False
                if len([words for words in nodes if "slave" in words[2]]) != 3:
                    return False
                info = server.ask("INFO", "replication")
                if info["role"] == "slave" and info["master_link_status"] != "up":
                    return False
                if b"cluster_state:ok" not in server.ask_raw("CLUSTER", "INFO"):
                    return False
            return True

        until(healthy, 60, "a healthy cluster")
        return self

    def _owners(self, server):
        """Who owns what, as one server sees it."""
        rows = server.ask_raw("CLUSTER", "SLOTS")
        return tuple(sorted([(row[0], row[1], row[2][1]) for row in rows]))

    def owner(self, slot):
        """The server that owns a slot, as most see it."""
        for words in self.nodes(next(server for server in self.servers if server.process.poll() is None)):
            for span in words[8:]:
                if span.startswith("["):
                    continue
                first, _, last = span.partition("-")
                if int(first) <= slot <= int(last or first):
                    port = int(words[1].partition("@")[0].rpartition(":")[2])
                    return next(server for server in self.servers if server.port == port)
        return None

    def primaries(self):
        return [server for server in self.servers if server.ask("ROLE")[0] == b"master"]

    def move(self, slot, to, keys=True):
        """Reshard one slot, keys and all, as an operator's tool does."""
        source = self.owner(slot)
        to.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.ids[source])
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.ids[to])
        if keys:
            self.move_keys(slot, source, to)
        for server in (to, source, *[one for one in self.primaries() if one not in (to, source)]):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", self.ids[to])
        self.settled(slot, to)

    def settled(self, slot, owner):
        """Wait until every server knows who owns a slot."""
        views = [lambda s=server: [r[2][1] for r in s.ask_raw("CLUSTER", "SLOTS") if r[0] <= slot <= r[1]]
                 for server in self.servers]  # fmt: skip
        until(lambda: all([view() == [owner.port] for view in views]), 30, f"the move of {slot}")

    def move_keys(self, slot, source, to, most=100_000):
        """Move some keys of a slot, or all."""
        while most > 0:
            names = source.ask("CLUSTER", "GETKEYSINSLOT", slot, min(most, 100))
            if not names:
                return
            source.ask("MIGRATE", "127.0.0.1", to.port, "", 0, 10000, "KEYS", *names)
            most -= len(names)


@cache
def shared_sentinels():
    """The Sentinels that all tests share."""
    return Sentinels()


@cache
def shared_cluster():
    """The Cluster that all tests share."""
    return Cluster()


def empty_sentinels():
    """The shared Sentinels, with a healthy primary that holds nothing."""
    sentinels = shared_sentinels().healthy()
    sentinels.primary.ask("FLUSHALL")
    return sentinels


def empty_cluster():
    """The shared Cluster, healthy and empty."""
    cluster = shared_cluster().healthy()
    for server in cluster.primaries():
        server.ask("FLUSHALL")
    return cluster
