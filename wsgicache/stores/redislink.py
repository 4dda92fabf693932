"""Connections to one Redis server: deadlines, breakers, and which server it is that answers.

The rules this file obeys:

- redis-py makes the connections and speaks the protocol; who gets which connection is decided here, because
  its pool and its `execute_command` cost more than a whole look-up may.
- A connection on which anything at all went wrong is closed, a killed greenlet and a reply cut short by the
  deadline included: what may still arrive on it would be taken for the answer to another question.
- redis-py's own retries are off. A call has one deadline for connecting and one for the whole reply, however
  many pieces it comes in. Only a connection that had been idle, and turns out to be closed, is replaced by a
  new one within the call.
- Each connection knows the run id of its server, which another start of the server does not have.
- A connection belongs to the process that opened it; a child starts with none.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

import redis
from redis.connection import Connection, SSLConnection, UnixDomainSocketConnection

from ..forks import in_child
from . import StoreError
from .breaker import Breaker, CircuitOpen
from .redisscripts import Script

T = TypeVar("T")

DEFAULT_CONNECTIONS: Final = 100

_TROUBLE: Final = (redis.RedisError, OSError)


class PacedSocket:
    """A socket that gives a reply one deadline, however many pieces it comes in.

    A timeout of a socket starts again with each piece, so that a server that sends byte by byte could hold
    a request for minutes. The first piece, which is mostly all of it, costs nothing here.
    """

    def __init__(self, sock: Any, timeout: float) -> None:
        self._sock = sock
        self._recv = sock.recv
        self._sendall = sock.sendall
        self._timeout = timeout
        self._pieces = 0
        self._until = 0.0

    def sendall(self, data: Any) -> None:
        """A request begins, and its deadline."""
        if self._pieces > 1:
            self._sock.settimeout(self._timeout)
        self._pieces = 0
        self._sendall(data)

    def recv(self, *args: Any) -> bytes:
        """A piece of the reply."""
        self._pieces += 1
        if self._pieces > 1:
            self._pace()
        piece: bytes = self._recv(*args)
        return piece

    def recv_into(self, *args: Any) -> int:
        """A piece of the reply."""
        self._pieces += 1
        if self._pieces > 1:
            self._pace()
        size: int = self._sock.recv_into(*args)
        return size

    def _pace(self) -> None:
        now = time.monotonic()
        if self._pieces == 2:
            self._until = now + self._timeout
        if now >= self._until:
            raise TimeoutError("timed out")
        self._sock.settimeout(self._until - now)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class Paced:
    """Mixed into redis-py's connections: see `PacedSocket`."""

    paced = True
    """Off for a connection that waits for messages."""

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[misc]
        return PacedSocket(sock, self.socket_timeout) if self.paced else sock  # type: ignore[attr-defined]


RedisConnection = Any
"""One of redis-py's connections, which are typed in part only and differently in each version."""


class PacedConnection(Paced, Connection):
    """TCP."""


class PacedSSLConnection(Paced, SSLConnection):
    """TCP with TLS."""


class PacedUnixConnection(Paced, UnixDomainSocketConnection):
    """A Unix socket."""


class Line:
    """An open connection: the server's run id, and the two calls that are made on it.

    `send(chunks, False)` sends what `pack` made; `read(True)` reads one reply, as bytes.
    """

    __slots__ = ("connection", "pack", "read", "run", "send")

    def __init__(self, connection: RedisConnection, run: str) -> None:
        self.connection = connection
        self.run = run
        self.send: Callable[..., None] = connection.send_packed_command
        self.read: Callable[..., Any] = connection.read_response
        self.pack: Callable[..., list[bytes]] = connection.pack_command

    def ask(self, *command: bytes | str | int | float) -> Any:
        """One command, one reply."""
        self.send(self.pack(*command), False)
        return self.read(True)

    def ask_all(self, commands: Iterable[tuple[bytes | str | int | float, ...]]) -> list[Any]:
        """Several commands and their replies, in one round trip."""
        commands = list(commands)
        self.send_all(commands)
        return [self.read(True) for _ in commands]

    def send_all(self, commands: Iterable[tuple[bytes | str | int | float, ...]]) -> None:
        """Several commands, whose replies are to be read."""
        self.send(self.connection.pack_commands(commands), False)

    def run_script(self, script: Script, keys: Sequence[bytes], *args: bytes | str | int | float) -> Any:
        """What a script returns; the server is taught it where it does not know it."""
        try:
            return self.ask("EVALSHA", script.sha, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:  # the whole answer, so the line is in order
            return self.ask("EVAL", script.source, len(keys), *keys, *args)


class Link:
    """The connections of this process to one server, or to what stands for one.

    Args:
        name: what people call it, without secrets.
        connect: makes a connection that is not open yet.
        timeout: the deadline, in seconds.
        most: connections that may be open at once; whoever comes then waits for one, as long as the deadline.
        troubled: called when the server failed, or is not asked because it did a moment ago.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], RedisConnection],
        timeout: float,
        most: int = DEFAULT_CONNECTIONS,
        troubled: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._make = connect
        self._most = most
        self._troubled = troubled
        self.reading: Final = Breaker(name, _TROUBLE)
        self.writing: Final = Breaker(
            name,
            _TROUBLE,
            lost="takes no writes",
            effect="nothing is stored until it does",
            found="takes writes again",
        )
        self.full = False
        """Whether it takes no writes because its memory is full."""
        self.run = ""
        """The run id of the server that was connected to last."""
        self.opened = 0
        """Connections that were opened."""
        self._reset()
        _links.add(self)

    def _reset(self) -> None:
        self.free: deque[Line] = deque()
        """Lines that nobody uses. The last that was given back is taken first."""
        self.waiting = 0
        self._room = threading.Condition(threading.Lock())
        # A permit for each line. Taken and given back without a lock: a greenlet may be killed, or a timeout
        # come, wherever it waits, also where it is just closing a line.
        self._permits = deque([None] * self._most)

    @property
    def _count(self) -> int:
        """Lines that are open, or being opened."""
        return self._most - len(self._permits)

    # --- lines -------------------------------------------------------------------------------------

    def _open(self) -> Line:
        """A new line, or one that was given back meanwhile."""
        if not self._permits:
            with self._room:
                self.waiting += 1
                try:
                    self._room.wait_for(lambda: self.free or self._permits, self.timeout)
                finally:
                    self.waiting -= 1
            try:
                return self.free.pop()
            except IndexError:
                pass
        try:
            self._permits.pop()
        except IndexError:
            raise TooManyConnections(f"{self.name}: all {self._most} connections are in use") from None
        try:
            return self._connected(self._make())
        except BaseException:
            self._gone()
            raise

    def _connected(self, connection: RedisConnection) -> Line:
        try:
            connection.connect()
            run = run_id(connection)
        except BaseException:
            connection.disconnect()
            raise
        self.opened += 1
        known = self.run
        if run == known:
            return Line(connection, known)
        self.run = run
        self.hang_up()
        return Line(connection, run)

    def _idle(self) -> Line | None:
        """A line that nobody uses, to the server that was connected to last."""
        while True:
            try:
                line = self.free.pop()
            except IndexError:
                return None
            if line.run is self.run:
                return line
            self.drop(line)

    def give(self, line: Line) -> None:
        """Give back a line on which everything went well."""
        self.free.append(line)
        if self.waiting:
            self.wake()

    def wake(self) -> None:
        """Tell somebody who waits that there is a line."""
        with self._room:
            self._room.notify()

    def drop(self, line: Line) -> None:
        """Close a line."""
        try:
            line.connection.disconnect()
        finally:
            self._gone()

    def _gone(self) -> None:
        self._permits.append(None)
        if self.waiting:
            self.wake()

    def hang_up(self) -> None:
        """Close the lines that nobody uses."""
        while True:
            try:
                line = self.free.pop()
            except IndexError:
                return
            self.drop(line)

    def listener(self) -> Line:
        """An open line that waits for messages; it is the caller's alone."""
        connection = self._make()
        connection.paced = False
        try:
            connection.connect()
            return Line(connection, run_id(connection))
        except BaseException:
            connection.disconnect()
            raise

    # --- calls -------------------------------------------------------------------------------------

    def ask(self, use: Callable[[Line], T], *, writes: bool = False, insist: bool = False) -> T:
        """Call `use` with a line and return what it returns.

        Args:
            writes: what fails says nothing of reading.
            insist: ask whatever the breakers say.

        Raises:
            StoreError: it failed, or is not to be asked now.
        """
        breaker = self.writing if writes else self.reading
        probe = breaker.is_open and not insist
        if self.reading.is_open and writes and not insist:
            self.trouble()
            raise CircuitOpen(f"{self.name} did not answer and is not asked for a while")
        if probe:
            self.trouble()
            breaker.enter()
        answer = self._ask(use, breaker, probe)
        if breaker.is_open:
            breaker.succeed()
            self.full = False
        if insist and self.reading.is_open:
            self.reading.succeed()
        return answer

    def _ask(self, use: Callable[[Line], T], breaker: Breaker, probe: bool) -> T:
        for idle in (True, False):
            line: Line | None = None
            try:
                line = self._idle()
                if line is None:
                    idle = False
                    line = self._open()
                answer = use(line)
            except Refused as error:
                self.give(line)  # type: ignore[arg-type]
                raise self._refused(str(error), probe) from None
            except BaseException as error:
                if line is not None:
                    self.drop(line)
                if idle and is_closed(error):
                    self.hang_up()
                    continue
                if line is None and breaker is self.writing:
                    breaker, probe = self.reading, False
                raise self.explained(error, breaker, probe) from error
            self.give(line)
            return answer
        raise AssertionError("the second turn returns or raises")

    def take(self, *, insist: bool = False) -> Line:
        """A line for questions that are not asked by `ask`: to be given back (`give`) or closed (`drop`).

        Args:
            insist: whatever the breaker says.

        Raises:
            StoreError: there is none to be had, or the server is not to be asked now.
        """
        if self.reading.is_open:
            self.ask(lambda line: line.ask("PING"), insist=insist)
        try:
            return self._idle() or self._open()
        except BaseException as error:
            raise self.explained(error, self.reading) from error

    def explained(self, error: BaseException, breaker: Breaker, probe: bool = False) -> BaseException:
        """What to raise for an error of a call whose line was dropped; it is noted what it says."""
        if not isinstance(error, Exception) or isinstance(error, StoreError):
            return error
        told = f"{self.name}: {type(error).__name__}: {error}"
        if isinstance(error, redis.ReadOnlyError) or _says_readonly(error):
            self.hang_up()
            return Demoted(f"{told}; it is a replica now, so the primary is looked for")
        if isinstance(error, _ELSEWHERE):
            self.trouble()
            return StoreError(told)
        if breaker is self.writing:
            self.full = "OOM" in str(error) or isinstance(error, redis.exceptions.OutOfMemoryError)
        breaker.fail(error, probe=probe)
        self.trouble()
        return StoreError(told)

    def _refused(self, told: str, probe: bool) -> StoreError:
        if "READONLY" in told:
            self.hang_up()
            return Demoted(f"{self.name}: {told}; it is a replica now, so the primary is looked for")
        self.full = "OOM" in told
        self.writing.fail(redis.ResponseError(told), probe=probe)
        return StoreError(f"{self.name}: {told}")

    def trouble(self) -> None:
        """The server failed, or is not asked because it did a moment ago."""
        if self._troubled is not None:
            self._troubled()

    def close(self) -> None:
        """Close the lines that nobody uses; later calls open new ones."""
        self.hang_up()

    def _after_fork(self) -> None:
        """In a forked child: the lines are the parent's, whose sockets are only closed here, not shut."""
        self._reset()


class Refused(Exception):
    """A script answered that it could not write, and why. The line is as good as before."""


class Demoted(StoreError):
    """The server is the primary no more. The next call looks for the new one."""


class TooManyConnections(StoreError):
    """All connections are in use. It says nothing of the server."""


class NotPrimary(redis.ConnectionError):
    """The server is a replica, or does not say what it is."""


_ELSEWHERE: Final = (redis.exceptions.AskError, redis.exceptions.TryAgainError)
"""A Cluster moves keys (MovedError is an AskError): others of the same server are where they were."""


def _says_readonly(error: Exception) -> bool:
    """Also what redis-py makes of READONLY on connections that Sentinel found."""
    return isinstance(error, redis.ConnectionError) and "master is now a slave" in str(error)


def is_closed(error: BaseException) -> bool:
    """Whether an error says that the other side had closed the connection (none of its answers does)."""
    return type(error) is redis.ConnectionError and not _says_readonly(error)


def run_id(connection: RedisConnection) -> str:
    """The run id of the server at the other end, which is a primary, and since when it is.

    Another start of the server has another run id; when a replica is made the primary, even one that was the
    primary before, its replication id is another.

    Raises:
        NotPrimary: it is a replica, or does not say what it is.
    """
    connection.send_packed_command(
        [*connection.pack_command("INFO", "server"), *connection.pack_command("INFO", "replication")], False
    )
    try:
        facts = read_info(connection.read_response(True))
        facts |= read_info(connection.read_response(True))
    except redis.exceptions.NoPermissionError as error:
        raise NotPrimary(f"{error}; the user needs INFO, which tells of restarts (ACL: +info)") from None
    if facts.get("role") != "master":
        raise NotPrimary(f"is a replica ({facts.get('role')}); name the primary, or use redis+sentinel://")
    if not facts.get("run_id"):
        raise NotPrimary("INFO tells no run_id, so that restarts would go unnoticed")
    return f"{facts['run_id']}/{facts.get('master_replid', '')}"


def read_info(reply: Any) -> dict[str, str]:
    """The lines of an INFO reply."""
    if not isinstance(reply, bytes):
        raise redis.InvalidResponse("INFO was not answered with text")
    lines: Iterable[str] = reply.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


_links: Final[weakref.WeakSet[Link]] = weakref.WeakSet()


def _after_fork() -> None:
    for link in list(_links):
        link._after_fork()


in_child(_after_fork)
