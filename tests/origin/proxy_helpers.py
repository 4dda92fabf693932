"""An origin that says exactly what it is told, byte by byte, and the proxy of the examples in front of it."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import PATIENCE

PROXY = Path(__file__).resolve().parents[2] / "examples" / "proxy.py"

Script = bytes | Callable[["Line"], None]


def ok(body: bytes = b"page", *fields: str, status: str = "200 OK") -> bytes:
    """A plain answer with a Content-Length."""
    return head(f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *fields) + body


def head(*lines: str) -> bytes:
    """A head of these lines, the empty one at the end included."""
    return "".join([f"{line}\r\n" for line in (*lines, "")]).encode("latin-1")


@dataclass
class Asked:
    """One request as it came: its first line, its field lines, its body, and on which connection."""

    line: str
    fields: list[str]
    body: bytes
    connection: int

    def all(self, name: str) -> list[str]:
        """Every line of a field."""
        pairs = [field.partition(": ") for field in self.fields]
        return [value for key, _, value in pairs if key.lower() == name.lower()]


class Line:
    """One connection of the origin, for a script that sends in steps."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.socket = sock
        self.number = number
        self._file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send some bytes now."""
        self.socket.sendall(data)

    def hang_up(self) -> None:
        """Close the connection."""
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def read(self) -> Asked | None:
        """The next request, or None at the end."""
        lines = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1").rstrip("\r\n"))
        if not lines:
            return None
        asked = Asked(lines[0], lines[1:], b"", self.number)
        length = asked.all("Content-Length")
        if asked.all("Transfer-Encoding"):
            asked.body = b"".join(self._chunks())
        elif length:
            asked.body = self._file.read(int(length[0]))
            if len(asked.body) < int(length[0]):
                return None
        return asked

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._file.readline(), 16):
            yield self._file.read(size)
            self._file.readline()
        self._file.readline()


class RawOrigin:
    """A server on a free port. `scripts` says what to answer: one for each request, the last one for ever."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.scripts: list[Script] = [ok()]
        self.asked: list[Asked] = []
        self._lines: list[Line] = []
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def answers(self, *scripts: Script) -> None:
        """Answer so from now on."""
        self.asked.clear()
        self.scripts = list(scripts)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                sock.settimeout(PATIENCE)
                line = Line(sock, len(self._lines))
                self._lines.append(line)
                self._start(self._serve, line)

    def _serve(self, line: Line) -> None:
        with suppress(OSError, ValueError):
            while (asked := line.read()) is not None:
                with self._lock:
                    self.asked.append(asked)
                    script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                if isinstance(script, bytes):
                    line.send(script)
                else:
                    script(line)
        line.hang_up()

    def hang_up(self) -> None:
        """Close every connection that is open, as an origin does with idle ones."""
        for line in self._lines:
            line.hang_up()

    def close(self) -> None:
        """Stop."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(PATIENCE)


@contextmanager
def proxied(origin: RawOrigin, *options: str, **environ: str) -> Iterator[int]:
    """The port of `examples/proxy.py` in front of an origin, in a process of its own."""
    command = [sys.executable, str(PROXY), "--origin", origin.url, "--port", "0", *options]
    variables = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environ}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=variables)
    with process:
        try:
            assert process.stdout is not None
            match = re.search(rb"Listening on http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert match is not None
            yield int(match[1])
        finally:
            process.terminate()
            process.wait(PATIENCE)


@dataclass
class Answer:
    """What came over the wire: the status after the version, the field lines, the body without framing."""

    status: str
    fields: list[str]
    body: bytes

    def all(self, name: str) -> list[str]:
        """Every line of a field."""
        pairs = [field.partition(": ") for field in self.fields]
        return [value for key, _, value in pairs if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """The only line of a field."""
        lines = self.all(name)
        assert len(lines) <= 1, lines
        return lines[0] if lines else None


class Browser:
    """One connection to the proxy that sends bytes as given and tells what came.

    Where an answer ended with the connection, as it said, the next request opens another.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._connect()

    def _connect(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self._port), PATIENCE)
        self._file = self.socket.makefile("rb")
        self.closing = False

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send some bytes now."""
        self.socket.sendall(data)

    def get(self, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> Answer:
        """One request and its whole answer."""
        if self.closing:
            self.__exit__()
            self._connect()
        length = [f"Content-Length: {len(body)}"] if body else []
        self.send(head(f"{method} {target} HTTP/1.1", "Host: site.test", *length, *fields) + body)
        return self.whole(method)

    def head(self) -> Answer:
        """The next head; its body is still to come."""
        lines = []
        while (line := self._file.readline()) not in (b"\r\n", b""):
            lines.append(line.decode("latin-1").rstrip("\r\n"))
        assert lines, "the connection was closed without an answer"
        answer = Answer(lines[0].partition(" ")[2], lines[1:], b"")
        self.closing = answer.field("Connection") == "close"
        return answer

    def whole(self, method: str = "GET") -> Answer:
        """The next answer with its body."""
        answer = self.head()
        length = answer.field("Content-Length")
        if method == "HEAD" or answer.status[:3] in ("204", "304"):
            return answer
        if answer.field("Transfer-Encoding") == "chunked":
            answer.body = b"".join(iter(self.chunk, b""))
        elif length is not None:
            answer.body = self.read(int(length))
        else:
            answer.body = self._file.read()
        return answer

    def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty at its end."""
        size = int(self._file.readline().partition(b";")[0], 16)
        data = self.read(size)
        self._file.readline()
        return data

    def read(self, size: int) -> bytes:
        """So many bytes of a body, fewer where the connection ends."""
        return self._file.read(size)

    def line(self) -> bytes:
        """The next line."""
        return self._file.readline()
