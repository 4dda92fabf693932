"""What passes by: the types of PEP 3333, and heads and bodies that are handed on without a copy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any

from .engine import Engine
from .outcome import Outcome

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Header = tuple[str, str]


def for_client(
    headers: Iterable[Header],
    outcome: Outcome,
    engine: Engine,
    show_key: bool,
    names: Iterable[str] | None = None,
) -> list[Header]:
    """Response fields without those for this cache alone, and with Cache-Status appended (RFC 9211 §2).

    Args:
        names: those of the fields, in lower case, where they are known.
    """
    if names is not None and engine.consumed.isdisjoint(names):
        shown = list(headers)
    else:
        shown = [pair for pair in headers if pair[0].lower() not in engine.consumed]
    try:
        shown.append(("Cache-Status", outcome.cache_status(show_key=show_key)))
    except Exception as error:
        engine.observer.fault("Cache-Status", error)
    return shown


def bodiless(start_response: StartResponse) -> StartResponse:
    """A `start_response` whose `write()` sends nothing."""

    def begin(*head: Any) -> Write:
        start_response(*head)
        return lambda data: None

    return begin


class HeadOnly:
    """Adds `Cache-Status` to a response that the cache only watches.

    Args:
        outcome: what is told; its `forward_status` is filled in.
        start_response: the server's.
        engine: the cache.
        seen: called with the status code and the fields before the head goes out.
    """

    __slots__ = ("_engine", "_outcome", "_seen", "_show_key", "_start_response")

    def __init__(
        self,
        outcome: Outcome,
        start_response: StartResponse,
        engine: Engine,
        show_key: bool = False,
        seen: Callable[[str, list[Header]], None] | None = None,
    ) -> None:
        self._outcome = outcome
        self._start_response = start_response
        self._show_key = show_key
        self._engine = engine
        self._seen = seen

    def __call__(self, status: str, headers: list[Header], exc_info: ExcInfo | None = None) -> Write:
        """Stand in for the server's `start_response`."""
        code = status[:3]
        if code.isdecimal():
            self._outcome.forward_status = self._outcome.status = int(code)
        if self._seen is not None:
            self._seen(status, headers)
        headers = for_client(headers, self._outcome, self._engine, self._show_key)
        if exc_info is None:
            return self._start_response(status, headers)
        return self._start_response(status, headers, exc_info)


class Closing:
    """An iterable with something more to do at its end, exactly once, after the app's `close()`."""

    __slots__ = ("_at_end", "_iterable")

    def __init__(self, iterable: Iterable[bytes], at_end: Callable[[], None]) -> None:
        self._iterable = iterable
        self._at_end: Callable[[], None] | None = at_end

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._iterable)

    def close(self) -> None:
        """Close the app's iterable, then do the rest."""
        at_end, self._at_end = self._at_end, None
        if at_end is None:
            return
        try:
            close = getattr(self._iterable, "close", None)
            if close is not None:
                close()
        finally:
            at_end()


class ShortBody:
    """A short body made here, whose `close()` closes the app's."""

    __slots__ = ("_chunks", "close")

    def __init__(self, chunks: Iterable[bytes], close: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


class Raising:
    """An iterator that has nothing to give but the exception that the app's raised."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise self._error
