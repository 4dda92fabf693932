"""Waiting for the messages of a Redis store: one connection, one thread, back again after a loss."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

import redis

from ..forks import in_child
from . import StoreError
from .redislink import Line, Link, RedisConnection

log: Final = logging.getLogger("wsgicache")

_LOOK: Final = 0.2
"""Seconds after which somebody who waits looks whether to stop."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0


def listen(
    link: Callable[[], Link],
    channel: bytes,
    poke: Callable[[str], None],
    stop: threading.Event,
    alive: Callable[[float], None] | None,
    every: float,
    check: Callable[[], None],
) -> None:
    """See `RedisStore.listen`.

    Args:
        link: says which server it is now.
        check: called before each PING; raises StoreError where that server is not the one any more.
    """
    pause = FIRST_PAUSE
    while not stop.is_set():
        connected = _Ear(link, channel, poke, stop, alive, every, check)
        try:
            connected.listen()
        except (redis.RedisError, OSError, StoreError) as error:
            log.debug("%s: messages are not received: %s", link().name, error)
            link().trouble()
        pause = FIRST_PAUSE if connected.heard else min(LONGEST_PAUSE, pause * 2)
        stop.wait(pause)


class _Ear:
    """One connection, from its opening to its end."""

    def __init__(
        self,
        link: Callable[[], Link],
        channel: bytes,
        poke: Callable[[str], None],
        stop: threading.Event,
        alive: Callable[[float], None] | None,
        every: float,
        check: Callable[[], None],
    ) -> None:
        self.heard = False
        """Whether the server answered at all."""
        self._of, self._link = link, link()
        self._channel, self._poke, self._stop, self._alive = channel, poke, stop, alive
        self._every, self._check = every, check
        self._sent = time.monotonic()
        self._answered = False
        self._connection: RedisConnection | None = None
        _ears.add(self)

    def after_fork(self) -> None:
        """In a forked child: the socket is the parent's, so it is only closed here, not shut."""
        if self._connection is not None:
            self._connection.disconnect()

    def listen(self) -> None:
        """Until `stop` is set, the server is another, or the connection is lost, which raises."""
        line = self._link.listener()
        connection = self._connection = line.connection
        try:
            connection.send_command("SUBSCRIBE", self._channel, check_health=False)
            while not self._stop.is_set() and self._is_current(line):
                if connection.can_read(timeout=min(_LOOK, self._every)):
                    self._take(line.read(True))
                self._ping(connection)
        finally:
            connection.disconnect()

    def _is_current(self, line: Line) -> bool:
        return self._of() is self._link and self._link.run in ("", line.run)

    def _ping(self, connection: RedisConnection) -> None:
        now = time.monotonic()
        if not self._answered:
            if now - self._sent > self._every + self._link.timeout:
                raise redis.TimeoutError("the server does not answer")
        elif now - self._sent >= self._every:
            self._check()
            self._sent, self._answered = time.monotonic(), False
            connection.send_command("PING", check_health=False)

    def _take(self, message: Any) -> None:
        kind = message[0] if isinstance(message, list) and message else b""
        if kind == b"subscribe":
            self.heard = self._answered = True
            self._poke("")
        elif kind == b"message":
            self._poke(message[2].decode("utf-8", "replace"))
        elif kind == b"pong":
            self._answered = True
            if self._alive is not None:
                self._alive(self._sent)


_ears: Final[weakref.WeakSet[_Ear]] = weakref.WeakSet()


def _after_fork() -> None:
    for ear in list(_ears):
        ear.after_fork()


in_child(_after_fork)
