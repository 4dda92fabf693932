"""What tests of a cache need, shipped so that a third-party store or an integration can prove itself.

`FakeClock` is turned by hand, `ScriptedApp` says what it was asked and answers as it was told (held back at
a gate where a race is to be decided), `ask` makes one request as a server would, `FailingStore` fails on
demand, and `StoreContract` is the suite that every store passes.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .entry import Stored
from .journal import Mark, Purge, Snapshot
from .key import parse_url
from .outcome import CACHE_NAME
from .stores import Store, StoreError
from .stores.memory import MemoryStore

Environ = dict[str, Any]
Headers = list[tuple[str, str]]


class FakeClock:
    """A wall clock that stands still until it is turned.

    Args:
        now: seconds since the epoch to begin with.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        """Turn the clock on (or back, with a negative number)."""
        self.now += seconds


@dataclass
class Response:
    """What a `ScriptedApp` answers. `body` may be bytes, a list of chunks, or an iterable made anew for
    each response by a callable. `error` is raised instead of an answer."""

    status: str = "200 OK"
    headers: Headers = field(default_factory=lambda: [("Content-Type", "text/plain")])
    body: bytes | Sequence[bytes] | Callable[[], Iterable[bytes]] = b""
    error: BaseException | None = None

    def chunks(self) -> Iterable[bytes]:
        """The body as an app returns it."""
        if callable(self.body):
            return self.body()
        return [self.body] if isinstance(self.body, bytes) else list(self.body)


class Gate:
    """Holds requests inside an app until it is opened."""

    def __init__(self) -> None:
        self._entered = threading.Semaphore(0)
        self._open = threading.Event()

    def wait_entered(self, count: int = 1, timeout: float = 10.0) -> None:
        """Return when `count` more requests stand at the gate.

        Raises:
            TimeoutError: they did not come.
        """
        for _ in range(count):
            if not self._entered.acquire(timeout=timeout):
                raise TimeoutError("nobody came to the gate")

    def open(self) -> None:
        """Let everybody through, from now on."""
        self._open.set()

    def pass_through(self) -> None:
        """Called by the app: say that somebody is here, and wait."""
        self._entered.release()
        if not self._open.wait(timeout=10.0):
            raise TimeoutError("the gate was never opened")


class ScriptedApp:
    """A WSGI app that answers as it was told and remembers what it was asked.

    Args:
        answer: a `Response` for everything, or a function of the environ.

    Attributes:
        seen: the environs of the requests that reached it, in order.
        closed: how often the `close()` of one of its iterables was called.
    """

    def __init__(self, answer: Response | Callable[[Environ], Response] | None = None) -> None:
        self._answer = answer or Response()
        self._gates: dict[str, Gate] = {}
        self._lock = threading.Lock()
        self.seen: list[Environ] = []
        self.closed = 0

    def answers(self, answer: Response | Callable[[Environ], Response]) -> None:
        """Answer so from now on."""
        self._answer = answer

    def hold(self, path: str) -> Gate:
        """Hold requests for a path, before they are answered but after the app has taken its data."""
        gate = self._gates[path] = Gate()
        return gate

    def release(self, path: str) -> None:
        """Do not hold requests for a path any more."""
        gate = self._gates.pop(path, None)
        if gate is not None:
            gate.open()

    @property
    def calls(self) -> int:
        """How many requests reached the app."""
        return len(self.seen)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        answer = self._answer
        response = answer if isinstance(answer, Response) else answer(environ)
        with self._lock:
            self.seen.append(environ)
        gate = self._gates.get(environ["PATH_INFO"])
        if gate is not None:
            gate.pass_through()
        if response.error is not None:
            raise response.error
        start_response(response.status, list(response.headers))
        return _Counted(response.chunks(), self)

    def count_close(self) -> None:
        """One of the iterables was closed."""
        with self._lock:
            self.closed += 1


class _Counted:
    """An iterable whose `close()` is counted, and passed on."""

    def __init__(self, chunks: Iterable[bytes], app: ScriptedApp) -> None:
        self._chunks = chunks
        self._app = app

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._chunks)

    def close(self) -> None:
        self._app.count_close()
        close = getattr(self._chunks, "close", None)
        if close is not None:
            close()


@dataclass
class Reply:
    """What a client got."""

    status: str
    headers: Headers
    body: bytes

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    def all(self, name: str) -> list[str]:
        """Every line of a field, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """The only line of a field, or None.

        Raises:
            AssertionError: there are several.
        """
        lines = self.all(name)
        if len(lines) > 1:
            raise AssertionError(f"{name} has {len(lines)} lines: {lines}")
        return lines[0] if lines else None

    @property
    def cache(self) -> dict[str, str]:
        """The last Cache-Status member of this cache: parameters by name, bare ones as "".

        `hit` or `fwd` is always there; `detail` names the reason where the token does not say it.
        """
        ours = [line for line in self.all("cache-status") if line.split(";")[0].strip() == CACHE_NAME]
        if not ours:
            raise AssertionError(f"no Cache-Status of {CACHE_NAME} in {self.headers}")
        parameters = (part.strip().partition("=") for part in ours[-1].split(";")[1:])
        return {name: value for name, _, value in parameters}

    @property
    def is_hit(self) -> bool:
        """Whether the store answered."""
        return "hit" in self.cache

    @property
    def detail(self) -> str | None:
        """The name of the reason in Cache-Status, if it says one."""
        return self.cache.get("detail")

    @property
    def stored(self) -> bool:
        """Whether Cache-Status says that the app's answer was stored."""
        return "stored" in self.cache


def make_environ(
    url: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    **extra: Any,
) -> Environ:
    """An environ as a plain server makes it; `extra` sets or, with None, removes keys.

    Args:
        url: a path (on http://example.com) or an absolute URL.
    """
    origin, path, query = parse_url(url)
    scheme, _, host = (origin or "http://example.com").partition("://")
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query or "",
        "SERVER_NAME": host.partition(":")[0],
        "SERVER_PORT": host.partition(":")[2] or {"http": "80", "https": "443"}[scheme],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in (headers or {}).items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    environ.update(extra)
    return {name: value for name, value in environ.items() if value is not None}


def ask(
    app: Callable[..., Iterable[bytes]],
    url: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    **extra: Any,
) -> Reply:
    """Make one request of a WSGI app and read its whole answer, closing it as a server does."""
    return run(app, make_environ(url, method, headers, body, **extra))


def run(app: Callable[..., Iterable[bytes]], environ: Environ) -> Reply:
    """Run one environ through a WSGI app as a server does (PEP 3333)."""
    began: list[tuple[str, Headers]] = []
    written: list[bytes] = []
    head_sent = False

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None and head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and began:
            raise AssertionError("start_response() was called twice")
        began[:] = [(status, headers)]
        return written.append

    iterable = app(environ, start_response)
    try:
        for chunk in iterable:
            if not began:
                if chunk:
                    raise AssertionError("a body before start_response()")
                continue
            head_sent = head_sent or bool(chunk)
            written.append(chunk)
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    if not began:
        raise AssertionError("start_response() was never called")
    status, headers = began[0]
    return Reply(status, list(headers), b"".join(written))


class FailingStore:
    """A memory store that fails when it is told to: every method named in `failing` raises StoreError."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store or MemoryStore()
        self.failing: set[str] = set()
        self.asked = 0

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        self.asked += 1
        if method in self.failing or "*" in self.failing:
            raise StoreError(f"{method} was told to fail")
        return getattr(self._store, method)(*args, **kwargs)

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """See `Store.get`."""
        found: tuple[list[Stored | None], Mark] = self._call("get", keys)
        return found

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """See `Store.set`."""
        return bool(self._call("set", key, stored, keep_until, token))

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """See `Store.delete`."""
        return bool(self._call("delete", key, only))

    def clear(self) -> Mark:
        """See `Store.clear`."""
        mark: Mark = self._call("clear")
        return mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """See `Store.append`."""
        mark: Mark = self._call("append", purges, at)
        return mark

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """See `Store.purges_since`."""
        snapshot: Snapshot = self._call("purges_since", mark)
        return snapshot

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """See `Store.scan`."""
        found: Iterator[Stored] = self._call("scan", prefix)
        return found

    def stats(self) -> Mapping[str, int]:
        """See `Store.stats`."""
        stats: Mapping[str, int] = self._call("stats")
        return stats

    def close(self) -> None:
        """See `Store.close`."""
        self._call("close")
