"""Which server of a Redis Cluster owns which slot, as far as this process knows.

redis-py's own cluster client is not used: it fetches the table of all commands when it begins, and asks and
retries by itself for longer than a request has. What is needed of it is small: one reply of CLUSTER SLOTS.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import redis

from ..forks import in_child
from . import StoreError
from .breaker import Breaker
from .redislink import Link
from .redisurl import Address, Node, connector

AGAIN: Final = 1.0
"""Seconds between two looks, however much trouble there is."""

_dice: Final = random.Random()  # noqa: S311 - which node is asked first


class Placed(Protocol):
    """Something that lives in a slot and is reached over the link to its owner."""

    slot: int
    link: Link


class Nodes:
    """The servers of a Cluster.

    Args:
        address: where to begin.
        clock: monotonic seconds.
    """

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        self.address = address
        self._clock = clock
        self._breaker = Breaker(address.name, (redis.RedisError, OSError), clock)
        self._links: dict[Node, Link] = {}
        self._starts: list[int] = []
        self._owners: list[tuple[int, Node]] = []
        self._placed: weakref.WeakSet[Placed] = weakref.WeakSet()
        self._looked = float("-inf")
        self.looks = 0
        """How often the Cluster was asked who owns what."""
        self._after_fork()
        _all.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()

    def place(self, thing: Placed) -> None:
        """Give a thing the link to the owner of its slot, now and whenever the owner is another."""
        self._placed.add(thing)
        link = self._link_of(thing.slot)
        if link is not None:
            thing.link = link

    def _link_of(self, slot: int) -> Link | None:
        position = bisect_right(self._starts, slot) - 1
        if position < 0:
            return None
        last, node = self._owners[position]
        return self._link_to(node) if slot <= last else None

    def _link_to(self, node: Node) -> Link:
        link = self._links.get(node)
        if link is None:
            address = self.address
            name = f"{address.name.partition('://')[0]}://{node[0]}:{node[1]}"
            made = Link(name, connector(address, node), address.timeout, address.connections, self.look_again)
            link = self._links.setdefault(node, made)
        return link

    def look(self) -> None:
        """Ask who owns what.

        Raises:
            StoreError: nobody answered, or nobody is to be asked now.
        """
        with self._breaker.call():
            self._read(*self._slots())

    def begin(self) -> None:
        """Ask that, unless it was asked before.

        Raises:
            StoreError: see `look`.
        """
        if not self._owners:
            self.look()

    def look_again(self) -> None:
        """After trouble with a server: perhaps another owns its slots by now. Once a second at most."""
        if self._clock() - self._looked < AGAIN or not self._lock.acquire(blocking=False):
            return
        try:
            self._looked = self._clock()
            self.look()
        except StoreError:
            pass  # the trouble itself is told
        finally:
            self._lock.release()

    def _slots(self) -> tuple[Any, Node]:
        """The answer of the first that gives one, and who it was. All of them together have two deadlines."""
        until = self._clock() + 2 * self.address.timeout
        self.looks += 1
        for node in self._to_ask():
            try:
                return self._asked(node), node
            except (redis.RedisError, OSError) as error:
                failure = error
            if self._clock() >= until:
                break
        raise failure

    def _to_ask(self) -> Sequence[Node]:
        """Every server, those first that answered lately."""
        known = list(self._links)
        _dice.shuffle(known)
        known.sort(key=lambda node: self._links[node].reading.is_open)
        return list(dict.fromkeys([*known, *self.address.nodes]))

    def _asked(self, node: Node) -> Any:
        connection = connector(self.address, node)()
        try:
            connection.connect()
            connection.send_command("CLUSTER", "SLOTS", check_health=False)
            return connection.read_response(True)
        finally:
            connection.disconnect()

    def _read(self, answer: Any, asked: Node) -> None:
        try:
            owners = sorted([(int(row[0]), int(row[1]), _node(row[2], asked)) for row in answer])
        except (TypeError, ValueError, IndexError) as error:
            raise redis.InvalidResponse(f"CLUSTER SLOTS was not answered as expected: {error}") from None
        self._starts, self._owners = [row[0] for row in owners], [row[1:] for row in owners]
        alive = {node for _, _, node in owners}
        for node in [node for node in self._links if node not in alive]:
            self._links.pop(node).close()
        for thing in list(self._placed):
            self.place(thing)

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for link in list(self._links.values()):
            link.close()


def _node(told: Sequence[Any], asked: Node) -> Node:
    """A server from its row; one without a host is where the one is that was asked."""
    host = told[0].decode("ascii") if told[0] else ""
    return (host if host not in ("", "?") else asked[0]), int(told[1])


_all: Final[weakref.WeakSet[Nodes]] = weakref.WeakSet()


def _after_fork() -> None:
    for nodes in list(_all):
        nodes._after_fork()


in_child(_after_fork)
