"""Counts what goes over the wire to Redis, and the transactions of an LMDB file, in this process.

The sockets of the store's connections are wrapped, so that every byte that goes to a real server and back is
counted, with the commands in it. A round trip is a turn from sending to receiving.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

_COMMAND = re.compile(rb"\*\d+\r\n\$\d+\r\n([A-Za-z]+)\r\n")


@dataclass
class Tally:
    """What was counted: round trips, commands by name, bytes to and from the store."""

    trips: int = 0
    sent: int = 0
    received: int = 0
    commands: Counter[str] = field(default_factory=Counter)

    def minus(self, before: Tally) -> Tally:
        return Tally(
            self.trips - before.trips,
            self.sent - before.sent,
            self.received - before.received,
            self.commands - before.commands,
        )

    def copy(self) -> Tally:
        return Tally(self.trips, self.sent, self.received, Counter(self.commands))


class CountedSocket:
    """A socket that counts."""

    def __init__(self, sock: Any, tally: Tally) -> None:
        self._sock, self._tally = sock, tally
        self._asked = False

    def sendall(self, data: Any) -> None:
        self._asked = True
        self._tally.sent += len(data)
        self._tally.commands.update([name.decode("ascii").upper() for name in _COMMAND.findall(bytes(data))])
        self._sock.sendall(data)

    def _got(self, size: int) -> None:
        self._tally.received += size
        self._tally.trips += self._asked
        self._asked = False

    def recv(self, *args: Any) -> bytes:
        piece: bytes = self._sock.recv(*args)
        self._got(len(piece))
        return piece

    def recv_into(self, *args: Any) -> int:
        size: int = self._sock.recv_into(*args)
        self._got(size)
        return size

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


@contextmanager
def counted_redis() -> Iterator[Tally]:
    """Count what connections exchange that are opened from here on."""
    from wsgicache.stores import redislink

    tally = Tally()
    kinds = [redislink.PacedConnection, redislink.PacedUnixConnection]
    genuine = redislink.Paced._connect

    def connect(self: Any) -> Any:
        paced, self.paced = self.paced, False
        try:
            sock = CountedSocket(genuine(self), tally)
        finally:
            self.paced = paced
        return redislink.PacedSocket(sock, self.socket_timeout) if paced else sock

    for kind in kinds:
        kind._connect = connect  # type: ignore[attr-defined]
    try:
        yield tally
    finally:
        for kind in kinds:
            del kind._connect  # type: ignore[attr-defined]


@contextmanager
def counted_lmdb() -> Iterator[Tally]:
    """Count transactions: `READ` and `WRITE`. Each is a trip; no bytes go over any wire."""
    from wsgicache.stores import lmdbhandle

    tally = Tally()
    genuine = lmdbhandle.Handle.__init__

    def made(self: Any, *args: Any, **options: Any) -> None:
        genuine(self, *args, **options)
        begin = self.begin

        def counted(*args: Any, **options: Any) -> Any:
            tally.trips += 1
            tally.commands["WRITE" if options.get("write") else "READ"] += 1
            return begin(*args, **options)

        object.__setattr__(self, "begin", counted)

    lmdbhandle.Handle.__init__ = made  # type: ignore[method-assign]
    try:
        yield tally
    finally:
        lmdbhandle.Handle.__init__ = genuine  # type: ignore[method-assign]
