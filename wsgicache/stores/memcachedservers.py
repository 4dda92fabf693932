"""The memcached servers of one store: which key lives where, connections, deadlines, faults.

The rules this file obeys:

- A key has one server for good. pymemcache's HashClient chooses it and makes the pools; its own care for
  servers that fail is not used, because it would move their keys to others for a while and then back: what
  had been stored before would be found again, older than what was shown in between. (The journal's mark
  catches what was purged meanwhile, and cannot know of what was merely filled anew.) It also answers "not
  there" for a server that it has not asked. So the pools are asked directly: a server that does not answer
  is a `StoreError`, and its keys are misses until it does.
- A connection on which anything was raised, a greenlet's kill included, is closed: replies never shift.
- A connection that its server has closed (it was restarted) is not a server that does not answer: the call
  is made once more on a new one.
- Of several servers each is asked before the first answer is waited for, so that all take one round trip.
- A child never touches its parent's connections.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from pymemcache.client.hash import HashClient
from pymemcache.exceptions import MemcacheUnexpectedCloseError

from ..forks import in_child
from . import StoreError
from .breaker import Breaker
from .urls import check_path

Spec = tuple[str, int] | str
"""Host and port, or the path of a socket."""

DEFAULT_PORT: Final = 11211

_HOST: Final = re.compile(r"[^&=;#/\s]+")

_CLOSED: Final = (MemcacheUnexpectedCloseError, ConnectionError)
_TROUBLE: Final = (MemcacheUnexpectedCloseError, OSError)

_ITEM_SIZE: Final = 1 << 20
"""What memcached takes unless it is told otherwise."""

_OVERHEAD: Final = 64
"""What memcached counts of an item beside its key and value, at most."""


class Refused(StoreError):
    """A server answered that it will not: the value is too large, there is no memory, …"""


def read_server(text: str) -> Spec:
    """`host`, `host:port`, `[v6 address]:port` or `/path/of/a/socket`.

    Raises:
        ValueError: it is none of them.
    """
    if text.startswith("/"):
        check_path(text)
        return text
    if "@" in text:
        raise ValueError("users and passwords are not known; memcached is protected by its network")
    host, port = text, str(DEFAULT_PORT)
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        port = (rest.removeprefix(":") or port) if closed else ""
    elif ":" in text:
        host, _, port = text.partition(":")
    if not _HOST.fullmatch(host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is no server; write host or host:{DEFAULT_PORT}, and options after ?")
    return host, int(port)


class Ring:
    """Rendezvous hashing as pymemcache does it, by a digest that is not computed in Python.

    Which server has a key depends on the names of the servers, not on their order.
    """

    def __init__(self) -> None:
        self._nodes: list[tuple[bytes, str]] = []

    def add_node(self, node: str) -> None:
        """One more server."""
        self._nodes.append((blake2b(node.encode("utf-8")).digest(), node))

    def remove_node(self, node: str) -> None:
        """One server less."""
        self._nodes = [known for known in self._nodes if known[1] != node]

    def get_node(self, key: bytes) -> str:
        """The server that a key lives on."""
        if len(self._nodes) == 1:
            return self._nodes[0][1]
        return max(self._nodes, key=lambda node: blake2b(key, digest_size=8, key=node[0]).digest())[1]


class Server:
    """One server and the connections that this process has to it.

    Args:
        spec: where it is.
        pooled: pymemcache's PooledClient.
    """

    def __init__(self, spec: Spec, pooled: Any) -> None:
        self.name: Final = f"memcached://{spec if isinstance(spec, str) else f'{spec[0]}:{spec[1]}'}"
        self.breaker: Final = Breaker(self.name, _TROUBLE)
        self.pool = pooled.client_pool
        self._item_size: int | None = None

    def call(self, command: str, *args: Any, insist: bool = False) -> Any:
        """Have a method of pymemcache's Client done on a connection.

        Args:
            insist: ask also while the circuit is open.

        Raises:
            StoreError: it did not answer, or not as it should.
        """
        breaker = self.breaker
        probe = breaker.is_open and not insist
        if probe:
            breaker.enter()
        try:
            answer = self._ask(command, args)
        except Exception as error:
            raise self._told(error, command, probe) from error
        if breaker.is_open:
            breaker.succeed()
        return answer

    def _told(self, error: Exception, command: str, probe: bool) -> StoreError:
        """What to raise for what pymemcache raised."""
        why = str(error) or type(error).__name__
        if isinstance(error, _TROUBLE):
            self.breaker.fail(error, probe=probe)
            return StoreError(f"{self.name}: {why}")
        # What it said, or whatever pymemcache makes of what is no answer.
        self.breaker.succeed()
        self._item_size = None  # it may be another than it was
        return Refused(f"{self.name}: {command}: {why}")

    def _ask(self, command: str, args: tuple[Any, ...]) -> Any:
        pool = self.pool
        client = pool.get()
        used_before = client.sock is not None
        try:
            answer = getattr(client, command)(*args)
        except BaseException as error:
            pool.destroy(client)
            if not used_before or not isinstance(error, _CLOSED):
                raise
        else:
            pool.release(client)
            return answer
        while pool.free:  # they were made before the server went, like this one
            pool.destroy(pool.get())
        return self._ask(command, args)

    def get_many(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """What it has under names."""
        found: dict[bytes, bytes] = self.call("get_many", names)
        return found

    def send_ahead(self, names: Sequence[bytes]) -> Any:
        """Ask for names on a connection that is there already; it, or None where there is none."""
        client = self.pool.get()
        try:
            if client.sock is None:
                self.pool.release(client)
                return None
            client.sock.sendall(b"get %b\r\n" % b" ".join(names))
        except OSError:  # closed: `read` asks anew
            self.pool.destroy(client)
            return None
        except BaseException:
            self.pool.destroy(client)
            raise
        client.sock = _Asked(client.sock)
        return client

    def read(self, client: Any, names: Sequence[bytes]) -> dict[bytes, bytes]:
        """The answer to what was sent ahead on a connection; without one, ask now.

        Raises:
            StoreError: it did not answer, or not as it should.
        """
        if client is None:
            return self.get_many(names)
        asked = client.sock
        try:
            found: dict[bytes, bytes] = client.get_many(names)
        except BaseException as error:
            self.pool.destroy(client)
            if isinstance(error, _CLOSED):
                return self.get_many(names)
            if isinstance(error, Exception):
                raise self._told(error, "get_many", probe=False) from error
            raise
        client.sock = asked.sock
        self.pool.release(client)
        return found

    def has_room_for(self, name: bytes, value: bytes) -> bool:
        """Whether a value is no larger than the server takes; what it takes is asked once."""
        size = self._item_size
        if size is None:
            try:
                size = int(self.call("stats", "settings")[b"item_size_max"])
            except (Refused, KeyError):  # some that speak for memcached do not tell
                size = _ITEM_SIZE
            self._item_size = size
        return len(name) + len(value) + _OVERHEAD <= size

    def close(self) -> None:
        """Close every connection, in use or not."""
        for client in (*self.pool.used, *self.pool.free):  # without its lock, which a fork may have lost
            client.close()


class _Asked:
    """A socket on which the question has been sent: pymemcache sends it, and it has gone already."""

    __slots__ = ("close", "recv", "sock")

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        self.recv = sock.recv
        self.close = sock.close

    def sendall(self, data: bytes) -> None:
        """Nothing is left to be sent."""


class Servers:
    """All of them.

    Args:
        specs: the servers that share the keys.
        journal: the one that has the journal; it may be one of them.
        timeout: seconds for a connection, and for each wait for an answer.
    """

    def __init__(self, specs: Sequence[Spec], journal: Spec, timeout: float) -> None:
        self._specs: Final = tuple(specs)
        self._journal_spec: Final = journal
        self._timeout: Final = timeout
        clients = self._connect()
        self.all: Final = {spec: Server(spec, pooled) for spec, pooled in clients.items()}
        self.journal: Final = self.all[journal]
        _all.add(self)

    def _connect(self) -> dict[Spec, Any]:
        """Pools by server; nothing is connected before it is used."""
        keys = self._hash_client(self._specs)
        pools: dict[Spec, Any] = dict(zip(self._specs, keys.clients.values(), strict=True))
        self._spec_of = dict(zip(keys.clients, self._specs, strict=True))
        self._node_of = keys.hasher.get_node
        if self._journal_spec not in pools:
            (pools[self._journal_spec],) = self._hash_client([self._journal_spec]).clients.values()
        return pools

    def _hash_client(self, specs: Iterable[Spec]) -> Any:
        return HashClient(
            list(specs),
            hasher=Ring,
            use_pooling=True,
            connect_timeout=self._timeout,
            timeout=self._timeout,
            no_delay=True,
            default_noreply=False,
        )

    def of(self, name: bytes) -> Server:
        """The server that a name lives on."""
        return self.all[self._spec_of[self._node_of(name)]]

    def get_many(self, asked: Sequence[tuple[Server, Sequence[bytes]]]) -> dict[bytes, bytes]:
        """What servers have under names, in one round trip; the first in the list is asked first.

        Raises:
            StoreError: one of them did not answer.
        """
        found: dict[bytes, bytes] = {}
        if len(asked) == 1 or any([server.breaker.is_open for server, _ in asked]):
            for server, names in asked:
                found.update(server.get_many(names))
            return found
        waiting: list[tuple[Server, Any, Sequence[bytes]]] = []
        try:
            for server, names in asked:
                waiting.append((server, server.send_ahead(names), names))
            while waiting:
                server, client, names = waiting.pop(0)
                found.update(server.read(client, names))
        finally:  # of those that nobody has waited for the answer is still to come
            for server, client, _ in waiting:
                if client is not None:
                    server.pool.destroy(client)
        return found

    def close(self) -> None:
        """Close what this process has; what is asked later connects again."""
        for server in self.all.values():
            server.close()

    def _after_fork(self) -> None:
        self.close()  # this process's copies of the descriptors; the parent's connections stay
        for spec, pooled in self._connect().items():
            self.all[spec].pool = pooled.client_pool


_all: Final[weakref.WeakSet[Servers]] = weakref.WeakSet()


def _after_fork() -> None:
    for servers in list(_all):
        servers._after_fork()


in_child(_after_fork)
