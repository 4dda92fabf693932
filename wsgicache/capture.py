"""Capture: pass the app's response on, chunk by chunk, and keep a copy (PEP 3333 on both sides).

The rules this file obeys:

- The first byte is never delayed, and never more than `max_body_bytes` is kept: a longer body streams on.
- The app's `close()` is called exactly once, on every path, and nobody waits any longer afterwards.
- Only a whole response is stored: the iterable ended, its length agrees, nothing was raised. Where the
  announced length is reached the entry is stored at once, so that a slow client holds up nobody; should
  the iterable raise after that, the entry is taken back.
- What is not stored is not touched: the app's own iterable goes to the server, `wsgi.file_wrapper` and all.
- A fault in the cache never changes the response: it is recorded, and the bytes go on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Final

from .fill import Action, Fill
from .outcome import Outcome, Reason
from .ready import AGES

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Header = tuple[str, str]

_END: Final = object()


class Capture:
    """One response on its way from the app to the server; the iterable that the server gets.

    Args:
        fill: decides what is kept.
        start_response: the server's.
        show_key: whether this client may see the key in Cache-Status.
        after: called once after the app's `close()`, for work that waits until the response is out.
    """

    __slots__ = (
        "_after",
        "_app",
        "_chunks",
        "_closed",
        "_deferred",
        "_environ",
        "_fill",
        "_handed_over",
        "_head",
        "_iterable",
        "_iterator",
        "_kept",
        "_muted",
        "_pending",
        "_sent",
        "_show_key",
        "_start_response",
        "_write",
    )

    def __init__(
        self,
        fill: Fill,
        start_response: StartResponse,
        show_key: bool = False,
        after: Callable[[], None] | None = None,
    ) -> None:
        self._fill = fill
        self._start_response = start_response
        self._show_key = show_key
        self._after = after
        self._head: tuple[str, list[Header]] | None = None
        self._sent = False
        self._write: Write | None = None
        self._app: App | None = None
        self._environ: Environ = {}
        self._iterable: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = iter(())
        self._chunks: list[bytes] | None = None
        self._kept = 0
        self._pending: list[bytes] = []
        self._handed_over = False
        self._muted = False
        self._closed = False
        self._deferred: Action | None = None

    # --- calling the app ---------------------------------------------------------------------------

    def run(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call the app and return what the server is to iterate."""
        self._app = app
        self._environ = environ
        try:
            self._iterable = app(environ, self._begin)
            return self._opened()
        except BaseException as error:
            stale = self._stale_instead(error)
            if stale is not None:
                return stale
            self._fill.outcome.detail = Reason.APP_ERROR
            try:
                self._broken()
            finally:
                self._close_iterable()
            raise

    def _begin(self, status: str, headers: list[Header], exc_info: ExcInfo | None = None) -> Write:
        """The `start_response` that the app gets."""
        if exc_info is not None:
            if self._sent:
                return self._begin_too_late(status, headers, exc_info)
        elif self._head is not None:
            raise AssertionError("start_response() was called twice without exc_info (PEP 3333)")
        self._head = (status, list(headers))
        return self._written

    def _begin_too_late(self, status: str, headers: list[Header], exc_info: ExcInfo) -> Write:
        """The head is out: the server raises the app's exception again, as PEP 3333 asks."""
        self._drop_copy()
        return self._start_response(status, headers, exc_info)

    def _written(self, data: bytes) -> None:
        """The `write()` that the app gets: bytes go to the server before the app returns."""
        if not self._sent and self._deferred is None:
            self._decide_before_write()
        if self._write is None:
            return  # an answer of ours takes the place of this body
        if data:
            self._keep(data)
        self._write(data)

    def _opened(self) -> Iterable[bytes]:
        """The app has returned: send the head if it is known, and take what is there already."""
        if self._sent:
            self._iterator = iter(self._iterable)
            return self
        if self._deferred is not None:
            return self._replace(self._deferred)
        if self._head is None:
            return self._first_pull()
        action = self._decide()
        if action is Action.PASS:
            return self._pass_on()
        if action is Action.KEEP:
            return self._keep_from_start()
        return self._replace(action)

    def _pass_on(self) -> Iterable[bytes]:
        """Nothing is kept: the app's own iterable is the response, unless a 304 is enough."""
        replaced = self._client_has_it(None)
        if replaced is not None:
            return replaced
        self._send(*self._require_head())
        self._fill.end()
        if self._after is None:
            return self._iterable
        self._iterator = iter(self._iterable)
        return self

    def _first_pull(self) -> Iterable[bytes]:
        """A generator that has not begun: its first chunk comes with the head, or is empty."""
        self._iterator = iter(self._iterable)
        first = next(self._iterator, _END)
        if self._head is None:
            if first is _END:
                raise AssertionError("the app ended without calling start_response() (PEP 3333)")
            if first:
                raise AssertionError("the app sent a body before start_response() (PEP 3333)")
            self._pending.append(b"")
            return self
        return self._begun(first)

    def _begun(self, first: object) -> Iterable[bytes]:
        """The head is known and the first chunk pulled."""
        action = self._decide()
        if action is Action.PASS:
            replaced = self._client_has_it(None)
            if replaced is not None:
                return replaced
            self._send(*self._require_head())
        elif action is not Action.KEEP:
            return self._replace(action)
        else:
            self._chunks = []
            return self._take_first(first)
        if first is not _END:
            self._pending.append(_bytes(first))
        return self

    def _keep_from_start(self) -> Iterable[bytes]:
        """Keep a copy from the first chunk on."""
        iterable = self._iterable
        self._chunks = []
        if type(iterable) in (list, tuple):
            for chunk in iterable:
                self._keep(_bytes(chunk))
            return self._pass_on() if self._chunks is None else self._whole(self._chunks)
        self._iterator = iter(iterable)
        return self._take_first(next(self._iterator, _END))

    def _take_first(self, first: object) -> Iterable[bytes]:
        if first is _END:
            return self._whole([])
        chunk = _bytes(first)
        self._keep(chunk)
        length = self._announced()
        if length is not None and self._chunks is not None and length == self._kept:
            return self._whole([chunk])
        replaced = self._client_has_it(None)
        if replaced is not None:
            return replaced
        self._send(*self._require_head())
        self._pending.append(chunk)
        return self

    def _whole(self, chunks: list[bytes]) -> Iterable[bytes]:
        """The whole body is there before the head went out, so the head can tell what became of it."""
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._complete(body)
        replaced = self._client_has_it(body)
        if replaced is not None:
            return replaced
        status, headers = self._require_head()
        if self._announced() is None and self._fill.entry is not None and body:
            headers = [*headers, ("Content-Length", str(len(body)))]
        self._send(status, headers)
        self._pending = [chunk for chunk in chunks if chunk]
        if self._after is None and type(self._iterable) in (list, tuple):
            self._fill.end()
            return self._pending
        return self

    # --- answers that replace the app's ------------------------------------------------------------

    def _client_has_it(self, body: bytes | None) -> Iterable[bytes] | None:
        """A 304 in place of the app's 200; what there is of a body is still read for the store."""
        if not self._fill.stripped:
            return None
        answer = self._guarded("not_modified", lambda: self._fill.not_modified(body), None)
        if answer is None:
            return None
        self._fill.outcome.status = 304
        self._send(answer.status, list(answer.headers))
        self._pending = []
        self._muted = True
        return self

    def _replace(self, action: Action) -> Iterable[bytes]:
        """The entry answers: freshened by a 304, or stale in place of an error."""
        if action is Action.AGAIN:
            return self._ask_again()
        fill = self._fill
        entry = fill.entry if action is Action.FRESHENED else fill.found.entry
        assert entry is not None  # noqa: S101 - both actions come from an entry
        if action is Action.STALE:
            fill.outcome.reason = Reason.HIT_STALE_IF_ERROR
            fill.failed()
        answer = fill.answer_entry(entry)
        now = fill.engine.clock.wall()
        fill.outcome.ttl = entry.ttl(now)
        fill.outcome.status = int(answer.status[:3])
        age = AGES[max(0, int(now - entry.since))]
        self._send(answer.status, [*answer.headers, *fill.passed_on, age])
        return _Closing(answer.chunks, self.close)

    def _ask_again(self) -> Iterable[bytes]:
        """A 304 that is of no use: the app is asked once more, without conditions."""
        self._close_iterable()
        self._head = None
        self._fill.prepare_again()
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"):
            self._environ.pop(name, None)
        assert self._app is not None  # noqa: S101 - run() set it
        self._iterable = self._app(self._environ, self._begin)
        return self._opened()

    def _stale_instead(self, error: BaseException) -> Iterable[bytes] | None:
        """A stale entry in place of an exception, where its window allows it (RFC 5861 §4)."""
        if self._sent or not isinstance(error, Exception):
            return None
        fill = self._fill
        usable = self._guarded("stale-if-error", fill.stale_usable, False)
        if not usable or fill.found.entry is None:
            return None
        fill.outcome.detail = Reason.APP_ERROR
        fill.engine.observer.app_failed(error)
        self._drop_copy()
        return self._replace(Action.STALE)

    # --- the head ----------------------------------------------------------------------------------

    def _require_head(self) -> tuple[str, list[Header]]:
        assert self._head is not None  # noqa: S101 - callers checked
        return self._head

    def _announced(self) -> int | None:
        head = self._fill.head
        return None if head is None else head.length

    def _decide(self) -> Action:
        status, headers = self._require_head()
        try:
            return self._fill.decide(status, headers, self._environ)
        except Exception as error:
            self._fault("settle", error)
            return Action.PASS

    def _decide_before_write(self) -> None:
        """`write()` came before the app returned: the head goes out now, if it is the app's."""
        if self._head is None:
            raise AssertionError("write() was called before start_response() (PEP 3333)")
        action = self._decide()
        if action is Action.KEEP:
            self._chunks = []
        if action in (Action.KEEP, Action.PASS):
            self._send(*self._head)
        else:
            self._deferred = action

    def _send(self, status: str, headers: list[Header]) -> None:
        """Give the head to the server, with Cache-Status appended (RFC 9211 §2)."""
        line = self._fill.outcome.cache_status(show_key=self._show_key)
        headers = without(headers, self._fill.engine.consumed)
        self._sent = True
        self._write = self._start_response(status, [*headers, ("Cache-Status", line)])

    # --- the body ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pending:
            return self._hand_over(self._pending.pop(0))
        if self._muted:
            raise StopIteration
        if self._handed_over:
            self._resume()
        try:
            chunk = next(self._iterator)
        except StopIteration:
            if not self._sent:
                return self._late_head(_END)
            self._finish()
            raise
        except BaseException:
            self._broken()
            raise
        if not self._sent:
            return self._late_head(chunk)
        self._keep(chunk)
        if self._chunks is not None and self._fill.followed:
            self._drain_rest()
        return self._hand_over(chunk)

    def _late_head(self, chunk: object) -> bytes:
        """The app called `start_response` only now, or has not yet and yields empty chunks."""
        if self._head is None:
            if chunk is _END:
                raise AssertionError("the app ended without calling start_response() (PEP 3333)")
            if chunk:
                raise AssertionError("the app sent a body before start_response() (PEP 3333)")
            return b""
        try:
            replaced = self._begun(chunk)
        except BaseException:
            self._broken()
            raise
        if replaced is not self:
            self._pending = list(replaced)
            self._muted = True
        return next(self, b"")

    def _hand_over(self, chunk: bytes) -> bytes:
        """Tell followers that it is now the client's turn, where the body has not ended."""
        fill = self._fill
        if self._chunks is not None and fill.flight is not None:
            self._handed_over = True
            self._guarded("collapse", lambda: fill.engine.collapse.hand_over(fill.flight), None)  # type: ignore[arg-type]
        return chunk

    def _resume(self) -> None:
        self._handed_over = False
        flight = self._fill.flight
        if flight is not None:
            self._fill.engine.collapse.resume(flight)

    def _keep(self, chunk: bytes) -> None:
        """Add to the copy, as long as it is small enough."""
        if self._chunks is None:
            return
        self._kept += len(chunk)
        if self._kept > self._fill.admission.plan.max_body_bytes:
            self._chunks = None
            self._guarded("capture", self._fill.too_large, None)
            return
        self._chunks.append(_bytes(chunk))

    def _drain_rest(self) -> None:
        """Others wait: read the rest now, up to the limit, and let the client have it at its pace."""
        while self._chunks is not None:
            try:
                chunk = next(self._iterator)
            except StopIteration:
                self._iterator = iter(())
                self._finish()
                return
            except BaseException as error:
                self._broken()
                self._iterator = _Raising(error)
                return
            self._keep(chunk)
            self._pending.append(chunk)

    def _finish(self) -> None:
        """The iterable ended: what was kept is the whole body."""
        if self._chunks is not None:
            self._complete(b"".join(self._chunks))

    def _complete(self, body: bytes) -> None:
        self._chunks = None
        try:
            self._fill.complete(body)
        except Exception as error:
            self._fault("store", error)

    def _drop_copy(self) -> None:
        self._chunks = None
        self._guarded("capture", self._fill.broken_off, None)

    def _broken(self) -> None:
        """Something was raised: no part is stored, and nobody waits."""
        self._drop_copy()
        self._guarded("capture", self._fill.end, None)

    # --- the end -----------------------------------------------------------------------------------

    def close(self) -> None:
        """What the server calls when it is done; also when it gives up early."""
        if self._closed:
            return
        self._closed = True
        try:
            self._settle_rest()
        finally:
            try:
                self._close_iterable()
            finally:
                self._guarded("capture", self._fill.end, None)
                if self._after is not None:
                    self._guarded("after the response", self._after, None)

    def _settle_rest(self) -> None:
        """An early close: whole if the announced length was reached (RFC 9112 §8), else a part.

        Where the client needed only a 304, the body is read now, for the store alone.
        """
        if self._muted and self._chunks is not None:
            self._drain_rest()
        if self._chunks is None:
            return
        if self._announced() == self._kept:
            self._complete(b"".join(self._chunks))
        else:
            self._drop_copy()

    def _close_iterable(self) -> None:
        iterable, self._iterable, self._iterator = self._iterable, (), iter(())
        close = getattr(iterable, "close", None)
        if close is not None:
            close()

    def _guarded(self, where: str, act: Callable[[], Any], otherwise: Any) -> Any:
        """Run our own code; its faults are recorded and change nothing."""
        try:
            return act()
        except Exception as error:
            self._fault(where, error)
            return otherwise

    def _fault(self, where: str, error: Exception) -> None:
        self._fill.engine.observer.fault(where, error)


class _Closing:
    """A short body made here, whose `close()` closes the app's."""

    __slots__ = ("_chunks", "close")

    def __init__(self, chunks: Iterable[bytes], close: Callable[[], None]) -> None:
        self._chunks = iter(chunks)
        self.close = close

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


class _Raising:
    """An iterator that has nothing to give but the exception that the app's raised."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        raise self._error


def _bytes(chunk: object) -> bytes:
    """An immutable copy where the app hands out something else than bytes (a reused bytearray)."""
    return chunk if type(chunk) is bytes else bytes(chunk)  # type: ignore[call-overload]


def without(headers: list[Header], names: frozenset[str]) -> list[Header]:
    """Fields without those that are for this cache alone (RFC 9213 §2.2 leaves that to us)."""
    for name, _ in headers:
        if name.lower() in names:
            return [pair for pair in headers if pair[0].lower() not in names]
    return headers


class HeadOnly:
    """Adds `Cache-Status` to a response that the cache only watches.

    Args:
        outcome: what is told; its `forward_status` is filled in.
        start_response: the server's.
        consumed: lower-case names of fields that the client does not see.
        seen: called with the status code and the fields before the head goes out.
    """

    __slots__ = ("_consumed", "_outcome", "_seen", "_show_key", "_start_response")

    def __init__(
        self,
        outcome: Outcome,
        start_response: StartResponse,
        show_key: bool = False,
        consumed: frozenset[str] = frozenset(),
        seen: Callable[[str, list[Header]], None] | None = None,
    ) -> None:
        self._outcome = outcome
        self._start_response = start_response
        self._show_key = show_key
        self._consumed = consumed
        self._seen = seen

    def __call__(self, status: str, headers: list[Header], exc_info: ExcInfo | None = None) -> Write:
        """Stand in for the server's `start_response`."""
        code = status[:3]
        if code.isdecimal():
            self._outcome.forward_status = self._outcome.status = int(code)
        if self._seen is not None:
            self._seen(status, headers)
        line = self._outcome.cache_status(show_key=self._show_key)
        headers = [*without(headers, self._consumed), ("Cache-Status", line)]
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
