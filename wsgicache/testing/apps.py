"""A clock to turn and an app to script."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
        """The time."""
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

    def let_pass(self, path: str) -> None:
        """Hold no further requests for a path; those that stand at its gate stay there."""
        self._gates.pop(path, None)

    def release(self, path: str) -> None:
        """Do not hold requests for a path any more, neither new ones nor those at its gate."""
        gate = self._gates.pop(path, None)
        if gate is not None:
            gate.open()

    @property
    def calls(self) -> int:
        """How many requests reached the app."""
        return len(self.seen)

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request (PEP 3333)."""
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
