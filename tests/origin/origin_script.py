"""The test's side of the app: what it answers, and what it was asked. See `origin_app` for the other side."""

from __future__ import annotations

import json
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from wsgicache.testing import Gate

Headers = list[tuple[str, str]]

PATIENCE = 60.0
"""Seconds after which something that should come is given up."""


class UntilClosed:
    """A step of a body: more and more, until the server closes the response."""


UNTIL_CLOSED = UntilClosed()
Step = bytes | Gate | UntilClosed | Exception


def plain(*extra: tuple[str, str]) -> Headers:
    """Fields of a text, and others after it."""
    return [("Content-Type", "text/plain"), *extra]


@dataclass
class Answer:
    """What the app answers.

    `body` is bytes or steps: chunks, gates to wait at, an exception to raise. `kind` says how the app
    delivers it: "list", "stream" (an iterable with `close()`), "write" (by the callable that
    `start_response` returns) or "file" (`wsgi.file_wrapper` around the file that `file` names). `hints` go
    out before, as 103 (Early Hints), where the server can. `error` is raised instead of an answer.
    """

    status: str = "200 OK"
    headers: Headers = field(default_factory=plain)
    body: bytes | Sequence[Step] = b""
    kind: str = "list"
    file: str = ""
    hints: Headers = field(default_factory=list)
    error: str = ""

    @property
    def steps(self) -> Sequence[Step]:
        if isinstance(self.body, bytes):
            return [self.body] if self.body else []
        return self.body


def kept(body: bytes = b"body", *extra: tuple[str, str], **more: Any) -> Answer:
    """An answer that is stored for an hour."""
    return Answer(headers=plain(("Cache-Control", "max-age=3600"), *extra), body=body, **more)


@dataclass
class Seen:
    """One request as the app saw it; `number` is 1 for the page's first."""

    environ: dict[str, Any]
    body: bytes
    pid: int
    number: int = 0

    @property
    def method(self) -> str:
        return str(self.environ["REQUEST_METHOD"])


class Page:
    """A path of its own with everything below it: what is answered there, and what was asked."""

    def __init__(self, path: str, answer: Answer | Callable[[Seen], Answer]) -> None:
        self.path = path
        self._answer = answer
        self.seen: list[Seen] = []
        self.closed = 0
        self.changed = threading.Condition()

    def answers(self, answer: Answer | Callable[[Seen], Answer]) -> None:
        """Answer so from now on."""
        self._answer = answer

    @property
    def calls(self) -> int:
        """How often the app was called."""
        return len(self.seen)

    def asked(self, seen: Seen) -> Answer:
        """Called for each request."""
        with self.changed:
            self.seen.append(seen)
            seen.number = len(self.seen)
            self.changed.notify_all()
        answer = self._answer
        return answer if isinstance(answer, Answer) else answer(seen)

    def note_closed(self) -> None:
        """Called when the app's iterable was closed."""
        with self.changed:
            self.closed += 1
            self.changed.notify_all()

    def wait(self, *, calls: int = 0, closed: int = 0) -> None:
        """Return when the app was called, and its iterables were closed, so often.

        Raises:
            TimeoutError: it was not.
        """
        with self.changed:
            if not self.changed.wait_for(lambda: self.calls >= calls and self.closed >= closed, PATIENCE):
                raise TimeoutError(f"{self.path}: {self.calls} calls, {self.closed} closed")


class Origin:
    """Listens for the apps in the servers, and answers as the pages say."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}
        self._numbers = count(1)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listening.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def page(self, answer: Answer | Callable[[Seen], Answer] | None = None) -> Page:
        """A new page, at a path that no other test has."""
        name = f"p{next(self._numbers)}"
        page = self._pages[name] = Page(f"/{name}", kept() if answer is None else answer)
        return page

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # closed
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with connection, connection.makefile("rb") as lines:
            try:
                asked = json.loads(lines.readline())
                page = self._pages[asked["environ"]["PATH_INFO"].lstrip("/").partition("/")[0]]
            except (OSError, KeyError, ValueError):
                return  # it asks for nothing of ours: its client sees what it sees
            answer = page.asked(Seen(asked["environ"], asked["body"].encode("latin-1"), asked["pid"]))
            try:
                self._answer(connection, answer)
                lines.readline()
            except TimeoutError:
                return  # nobody opened the gate, or the app holds on to the response
            except OSError:
                pass  # closed before all was told
            page.note_closed()

    def _answer(self, connection: socket.socket, answer: Answer) -> None:
        if answer.error:
            return _tell(connection, error=answer.error)
        head = ("status", "headers", "kind", "file", "hints")
        _tell(connection, **{name: getattr(answer, name) for name in head})
        for step in answer.steps:
            if isinstance(step, bytes):
                _tell(connection, chunk=step.decode("latin-1"))
            elif isinstance(step, Gate):
                step.pass_through()
            elif isinstance(step, Exception):
                return _tell(connection, error=str(step))
            else:
                _keep_telling(connection)
        return _tell(connection, end=True)

    def close(self) -> None:
        """Stop listening."""
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(PATIENCE)


def _tell(connection: socket.socket, **what: Any) -> None:
    connection.sendall(json.dumps(what).encode() + b"\n")


def _keep_telling(connection: socket.socket) -> None:
    deadline = time.monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        selector.register(connection, selectors.EVENT_READ)
        while not selector.select(0.02) and time.monotonic() < deadline:
            _tell(connection, chunk="more" * 250)


def fields_of(headers: Iterable[tuple[str, str]], *without: str) -> list[tuple[str, str]]:
    """Header lines with names in lower case, but for those that a server or a cache adds of its own."""
    own = {"date", "server", "connection", "transfer-encoding", "age", "cache-status", "via", *without}
    return [(name.lower(), value) for name, value in headers if name.lower() not in own]
