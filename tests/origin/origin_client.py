"""A small HTTP/1.1 client that changes nothing: it sends bytes as given and keeps what comes as it came."""

from __future__ import annotations

import selectors
import socket
import struct
from dataclasses import dataclass, field

from wsgicache.testing import Reply

HOST = "site.test"
Fields = list[tuple[str, str]]


@dataclass
class Answered(Reply):
    """A response: `status` is what follows the version, to the letter; `lines` are the head's, unparsed."""

    version: str = ""
    lines: list[str] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)

    @property
    def chunked(self) -> bool:
        return self.field("transfer-encoding") == "chunked"

    @property
    def age(self) -> int | None:
        """The only Age line as a number."""
        age = self.field("age")
        return None if age is None else int(age)


class Client:
    """One connection.

    Args:
        port: of a server on the loopback interface.
        receive_buffer: bytes of the kernel's receive buffer; small for a client that is slow.
    """

    def __init__(self, port: int, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(10.0)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # --- sending -----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Bytes as they are."""
        self.socket.sendall(data)

    def ask(
        self,
        target: str,
        *lines: str,
        method: str = "GET",
        host: str | None = HOST,
        version: str = "HTTP/1.1",
        body: bytes = b"",
    ) -> None:
        """A request: its line, Host (None: without), the other lines as given, and the body."""
        head = [f"{method} {target} {version}", *([] if host is None else [f"Host: {host}"]), *lines]
        self.send("\r\n".join([*head, "", ""]).encode("latin-1") + body)

    def get(self, target: str, *lines: str, **how: object) -> Answered:
        """Ask, and read the whole answer."""
        self.ask(target, *lines, **how)  # type: ignore[arg-type]
        return self.read(str(how.get("method", "GET")))

    # --- reading -----------------------------------------------------------------------------------

    def read(self, method: str = "GET") -> Answered:
        """One whole final response."""
        answered = self.read_head()
        while answered.code < 200:
            answered = self.read_head()
        answered.chunks = self.read_body(answered, method)
        answered.body = b"".join(answered.chunks)
        return answered

    def read_head(self) -> Answered:
        """A response up to its empty line."""
        first, *lines = self._line_block()
        version, _, status = first.partition(" ")
        headers = [(line.partition(":")[0], line.partition(":")[2].strip(" \t")) for line in lines]
        return Answered(status, headers, b"", version=version, lines=lines)

    def read_chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end (RFC 9112 §7.1)."""
        size = int(self._until(b"\r\n").partition(b";")[0], 16)
        data = self._exactly(size)
        if self._exactly(2) != b"\r\n":
            raise AssertionError("a chunk is longer than it says")
        return data

    def read_body(self, head: Answered, method: str = "GET") -> list[bytes]:
        """What follows a head, by the rules of RFC 9112 §6.3."""
        if method == "HEAD" or head.code in (204, 304):
            return []
        if head.field("transfer-encoding") is not None:
            assert head.chunked
            assert head.field("content-length") is None
            return list(iter(self.read_chunk, b""))
        length = head.field("content-length")
        body = self._exactly(int(length)) if length is not None else self.rest()
        return [body] if body else []

    def rest(self) -> bytes:
        """Everything until the server hangs up."""
        while data := self.socket.recv(65536):
            self._buffer += data
        rest, self._buffer = self._buffer, b""
        return rest

    def has_more(self, seconds: float = 0.0) -> bool:
        """Whether bytes, or the end, are there or come within some time."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(self._buffer) or bool(selector.select(seconds))

    def _line_block(self) -> list[str]:
        return self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        found, _, self._buffer = self._buffer.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError(f"the server hung up after {self._buffer!r}")
        self._buffer += data

    # --- leaving -----------------------------------------------------------------------------------

    def abort(self) -> None:
        """Hang up at once, with a reset, as a browser does when its user goes on."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
