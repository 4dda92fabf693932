"""A WSGI app that passes requests to an origin on the network; behind the cache, a caching reverse proxy.

    cache = WSGICache(Proxy(Origin("http://127.0.0.1:9000")))

Everything the origin says reaches the cache as it was said: status line, order and spelling of fields,
repeated ones, Date and Age; and everything the client says reaches the origin, the raw target included.
Only what belongs to one connection is taken out (RFC 9110 §7.6.1).

The way to the origin is `http.client`: it is always there, it sends a target and fields exactly as given,
it leaves the spelling of what it receives alone, and it streams. What it is silent about (a body cut off,
interim answers, a head that does not parse) is looked after here.
"""

from __future__ import annotations

import http.client
import re
import selectors
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

from .fields import end_to_end, is_field_value, is_token

Environ = dict[str, Any]
Fields = list[tuple[str, str]]
Interim = Callable[[int, Fields], None]

BLOCK = 65536
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "PROPFIND", "REPORT", "SEARCH"})
"""Methods that may be sent once more over a new connection (RFC 9110 §9.2.2)."""

BROKEN = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""How a connection that the origin has closed in the meantime shows itself."""

VIA = "1.1 wsgicache-proxy"
FOLD = re.compile(r"[ \t]*\r?\n[ \t]+")


class BadGateway(Exception):
    """The origin's answer cannot be passed on: 502 (RFC 9110 §15.6.3)."""


class ClientGone(Exception):
    """The client broke off in the middle of its request body."""


# --- the way to the origin -------------------------------------------------------------------------


class FinalResponse(http.client.HTTPResponse):
    """A response that reads past interim ones (RFC 9110 §15.2) and tells of them."""

    def __init__(self, *args: Any, interim: Interim | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._interim = interim

    def _read_status(self) -> tuple[str, int, str]:
        while True:
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not 101 < status < 200:  # 100 is skipped by the base class, 101 was not asked for
                return version, status, reason
            fields = http.client.parse_headers(self.fp)
            if self._interim is not None:
                self._interim(status, fields.items())


class Origin:
    """Where requests go, and the idle connections: one for each thread.

    Args:
        url: scheme, host, port and, if there is one, a path that goes before every target.
        timeout: seconds for connecting and for each wait.
    """

    def __init__(self, url: str, timeout: float = 30.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no origin; give one such as http://127.0.0.1:9000")
        self.authority = parts.netloc.rpartition("@")[2]
        self.prefix = parts.path.rstrip("/")
        self._host, self._port, self._timeout = parts.hostname, parts.port, timeout
        self._https = parts.scheme == "https"
        self._idle = threading.local()
        self._made: weakref.WeakSet[http.client.HTTPConnection] = weakref.WeakSet()

    def take(self) -> http.client.HTTPConnection:
        """This thread's idle connection if it is still of use, or a new one, not yet open."""
        connection: http.client.HTTPConnection | None = self._idle.__dict__.pop("connection", None)
        if connection is None:
            connection = self._new()
        elif connection.sock is not None and _is_readable(connection.sock):
            connection.close()  # the origin has hung up, or says something unasked
        return connection

    def give_back(self, connection: http.client.HTTPConnection) -> None:
        """Keep a connection whose last answer was read to its end."""
        if "connection" in self._idle.__dict__:
            connection.close()
        else:
            self._idle.connection = connection

    def _new(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=self._timeout)
        self._made.add(connection)
        return connection

    def close(self) -> None:
        """Close every connection, also those that threads keep which are about to end."""
        for connection in list(self._made):
            connection.close()


def _is_readable(sock: Any) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        return bool(selector.select(0))


# --- one request -----------------------------------------------------------------------------------


class Request:
    """What is sent to the origin: read from the environ, with the body still to be streamed."""

    def __init__(self, environ: Environ, origin: Origin, keep_host: bool) -> None:
        self.method: str = environ["REQUEST_METHOD"]
        self.target = origin.prefix + raw_target(environ)
        self.fields = request_fields(environ)
        host = environ.get("HTTP_HOST") if keep_host else None
        self.fields.insert(0, ("Host", host or origin.authority))
        self._input = environ["wsgi.input"]
        self.chunked = "HTTP_TRANSFER_ENCODING" in environ
        self.length = int(environ.get("CONTENT_LENGTH") or 0)
        if self.chunked:
            self.fields.append(("Transfer-Encoding", "chunked"))
        elif environ.get("CONTENT_LENGTH"):
            self.fields.append(("Content-Length", str(self.length)))

    @property
    def may_repeat(self) -> bool:
        """Whether it may be sent again when the connection turns out to be dead."""
        return self.method in IDEMPOTENT and not self.chunked and not self.length

    def body(self) -> Iterator[bytes] | None:
        """The body in blocks; the server has taken chunked coding off and ends it by itself."""
        if self.chunked:
            return iter(lambda: self._input.read(BLOCK), b"")
        return self._counted() if self.length else None

    def _counted(self) -> Iterator[bytes]:
        left = self.length
        while left:
            block = self._input.read(min(BLOCK, left))
            if not block:
                raise ClientGone(f"{left} of {self.length} bytes of the body did not come")
            left -= len(block)
            yield block

    def send(self, connection: http.client.HTTPConnection) -> None:
        """Write head and body. An origin that stops listening may still have answered (a 413)."""
        connection.putrequest(self.method, self.target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.fields:
            connection.putheader(name, value)
        body = self.body()
        try:
            connection.endheaders(body, encode_chunked=self.chunked)
        except (BrokenPipeError, ConnectionResetError):
            if body is None:
                raise


def raw_target(environ: Environ) -> str:
    """The target as the client sent it, in origin form (RFC 9112 §3.2)."""
    raw: str | None = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if raw is None:
        path = quote((environ.get("SCRIPT_NAME", "") + environ["PATH_INFO"]).encode("latin-1"))
        raw = f"{path}?{environ['QUERY_STRING']}" if environ.get("QUERY_STRING") else path
    if "://" in raw.partition("?")[0] and not raw.startswith("/"):
        parts = urlsplit(raw)
        raw = (parts.path or "/") + (f"?{parts.query}" if "?" in raw else "")
    if not raw.startswith("/") and raw != "*":
        raise ValueError(f"{raw!r} is no target that can be passed on")
    return quote(raw.encode("latin-1"), safe="".join(map(chr, range(0x21, 0x7F))))


def request_fields(environ: Environ) -> Fields:
    """The client's end-to-end fields but Host and Content-Length. WSGI joins repeated ones into one."""
    fields = [("Content-Type", environ["CONTENT_TYPE"])] if environ.get("CONTENT_TYPE") else []
    fields += [
        (key[5:].replace("_", "-").title(), value)
        for key, value in environ.items()
        if key.startswith("HTTP_") and key not in ("HTTP_HOST", "HTTP_EXPECT")
    ]
    via = ", ".join([value for name, value in fields if name == "Via"] + [VIA])
    return [*(pair for pair in end_to_end(fields) if pair[0] != "Via"), ("Via", via)]


# --- its answer ------------------------------------------------------------------------------------


def response_fields(response: http.client.HTTPResponse) -> Fields:
    """The origin's end-to-end fields in their order, or BadGateway where the head makes no sense."""
    if response.msg.defects:
        raise BadGateway(f"a head that does not parse: {response.msg.defects[0]!r}")
    raw = [(name, FOLD.sub(" ", value).strip(" \t")) for name, value in response.msg.items()]
    codings = [value.lower() for name, value in raw if name.lower() == "transfer-encoding"]
    if codings not in ([], ["chunked"]):
        raise BadGateway(f"Transfer-Encoding: {', '.join(codings)}")
    lengths = {value for name, value in raw if name.lower() == "content-length"}
    if codings:  # the coding says where the body ends (RFC 9112 §6.3)
        raw = [pair for pair in raw if pair[0].lower() != "content-length"]
    elif len(lengths) > 1 or not all(re.fullmatch("[0-9]+", value) for value in lengths):
        raise BadGateway(f"Content-Length: {', '.join(sorted(lengths))}")
    for name, value in raw:
        if not (is_token(name) and is_field_value(value)):
            raise BadGateway(f"a field that cannot be passed on: {name!r}")
    return end_to_end(raw)


class Body:
    """The origin's body as it comes. One that is cut off raises, so that nobody takes it for whole."""

    def __init__(
        self, response: http.client.HTTPResponse, connection: http.client.HTTPConnection, origin: Origin
    ) -> None:
        self._response = response
        self._connection: http.client.HTTPConnection | None = connection
        self._origin = origin

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        block = self._response.read1(BLOCK)
        if block:
            return block
        if self._response.length:
            raise http.client.IncompleteRead(b"", self._response.length)
        self._end(whole=True)
        raise StopIteration

    def close(self) -> None:
        """Hang up where the body was not read to its end."""
        self._end(whole=False)

    def _end(self, whole: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        self._response.close()
        if whole and connection.sock is not None:
            self._origin.give_back(connection)
        else:
            connection.close()


class Proxy:
    """The WSGI app: passes a request to the origin and its answer back.

    Args:
        origin: where to.
        keep_host: send the client's Host on, so that the origin sees what the cache keys; otherwise the
            origin's own name.
    """

    def __init__(self, origin: Origin, keep_host: bool = True) -> None:
        self.origin = origin
        self.keep_host = keep_host

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request; what goes wrong before the head is 400, 502 or 504, later it raises."""
        try:
            request = Request(environ, self.origin, self.keep_host)
            response, connection = self._ask(request, _early_hints(environ))
            body = Body(response, connection, self.origin)
            try:
                status, fields = _status(response), response_fields(response)
            except BadGateway:
                body.close()
                raise
        except (ValueError, ClientGone) as error:
            return _failed(start_response, "400 Bad Request", error)
        except TimeoutError as error:
            return _failed(start_response, "504 Gateway Timeout", error)
        except (OSError, http.client.HTTPException, BadGateway) as error:
            return _failed(start_response, "502 Bad Gateway", error)
        start_response(status, fields)
        return body

    def _ask(
        self, request: Request, interim: Interim | None
    ) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        connection = self.origin.take()
        reused = connection.sock is not None
        try:
            return self._try(request, connection, interim), connection
        except BROKEN:
            if not (reused and request.may_repeat):
                raise
        return self._try(request, connection, interim), connection

    def _try(
        self, request: Request, connection: http.client.HTTPConnection, interim: Interim | None
    ) -> http.client.HTTPResponse:
        try:
            request.send(connection)
            connection.response_class = partial(FinalResponse, interim=interim)  # type: ignore[assignment]
            return connection.getresponse()
        except BaseException:
            connection.close()
            raise


def _early_hints(environ: Environ) -> Interim | None:
    """Pass 103 on where the server offers a way; WSGI has none for other interim answers."""
    send = environ.get("wsgi.early_hints")
    if send is None:
        return None

    def interim(status: int, fields: Fields) -> None:
        if status == 103:
            send(end_to_end(fields))

    return interim


def _status(response: http.client.HTTPResponse) -> str:
    if response.status < 200 or not is_field_value(response.reason):
        raise BadGateway(f"status {response.status} {response.reason!r}")
    return f"{response.status} {response.reason}"


def _failed(start_response: Callable[..., Any], status: str, error: Exception) -> Iterable[bytes]:
    print(f"{status}: {type(error).__name__}: {error}", file=sys.stderr)
    body = f"{status}\n".encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
