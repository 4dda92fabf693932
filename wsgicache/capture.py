"""Capture: pass the app's response on, chunk by chunk, and keep a copy (PEP 3333 on both sides).

The rules this file obeys:

- The first byte is never delayed, and never more than `max_body_bytes` is kept: a longer body streams on.
- Never more than `spool_bytes` of it is kept in memory where the store keeps files: the rest goes into one,
  which is gone on every path where it is not stored.
- The app's `close()` is called exactly once, on every path, and nobody waits any longer afterwards.
- Only a whole response is stored: the iterable ended, its length agrees, nothing was raised. Where the
  announced length is reached the entry is stored at once, so that a slow client holds up nobody; should
  the iterable raise after that, the entry is taken back.
- What is not stored is not touched: the app's own iterable goes to the server, `wsgi.file_wrapper` and all.
- A fault in the cache never changes the response: it is recorded, and the bytes go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import monotonic
from typing import Any, Final

from .answer import Answer
from .behind import Behind
from .body import Body, FileBody
from .fill import KEEP, Action, Fill
from .outcome import Reason
from .passing import App, Environ, ExcInfo, Header, Raising, ShortBody, StartResponse, Write, for_client
from .ready import AGES
from .sending import FileChunks, chunks_of
from .stores.spool import Writer

_ASKED: Final = frozenset({"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"})
DRAIN_SECONDS: Final = 2.0
"""How long `close()` goes on reading a body that its client did not need, so that it can be stored."""

_NOTHING: Final[Iterator[bytes]] = iter(())
"""An iterator that has nothing to give, whoever asks."""

_END: Final = object()
_NOT_PULLED: Final = object()


class Capture:
    """One response on its way from the app to the server; the iterable that the server gets.

    Args:
        fill: decides what is kept.
        start_response: the server's.
        show_key: whether this client may see the key in Cache-Status.
    """

    __slots__ = (
        "_app",
        "_chunks",
        "_closed",
        "_deferred",
        "_drained",
        "_early",
        "_environ",
        "_file",
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
        "_to_close",
        "_unconditional",
        "_write",
    )

    _deferred: Action | None
    _file: Writer | None
    _to_close: Writer | FileChunks | None

    def __init__(self, fill: Fill, start_response: StartResponse, show_key: bool = False) -> None:
        self._fill = fill
        self._start_response = start_response
        self._show_key = show_key
        self._head: tuple[str, list[Header]] | None = None
        self._sent = False
        self._write: Write | None = None
        self._app: App | None = None
        self._environ: Environ = {}
        self._unconditional: Environ = {}
        self._iterable: Iterable[bytes] = ()
        self._iterator: Iterator[bytes] = _NOTHING
        self._chunks: list[bytes] | None = None
        self._kept = 0
        self._pending: deque[bytes] | Behind | None = None
        self._handed_over = False
        self._muted = False
        self._drained = False
        self._closed = False
        self._deferred = self._file = self._to_close = None
        self._early = False

    # --- calling the app ---------------------------------------------------------------------------

    def run(self, app: App, environ: Environ) -> Iterable[bytes]:
        """Call the app and return what the server is to iterate."""
        self._app = app
        self._environ = environ
        if self._fill.conditional:  # frameworks keep things in the environ: a second call gets a clean one
            self._unconditional = {name: value for name, value in environ.items() if name not in _ASKED}
        try:
            try:
                self._iterable = app(environ, self._begin)
                return self._opened()
            except Exception as error:
                stale = self._instead_of(error)
                if stale is None:
                    raise
                return stale
            except BaseException:
                self._app_failed()
                raise
        except BaseException:
            self._let_go()
            raise

    def _call(self) -> Iterable[bytes]:
        assert self._app is not None  # noqa: S101 - run() set it
        self._iterable = self._app(self._environ, self._begin)
        return self._opened()

    def _or_stale(self, act: Callable[[], Iterable[bytes]]) -> Iterable[bytes]:
        """Do what may raise the app's error; a stale page answers instead of it, where it may."""
        try:
            return act()
        except Exception as error:
            stale = self._instead_of(error)
            if stale is None:
                raise
            return stale
        except BaseException:
            self._app_failed()
            raise

    def _instead_of(self, error: Exception) -> Iterable[bytes] | None:
        """A stale page in place of the app's error; None where the error is the answer."""
        try:
            stale = self._stale_instead(error)
        except BaseException:
            self._app_failed()
            raise
        if stale is None:
            self._app_failed()
        return stale

    def _app_failed(self) -> None:
        self._fill.outcome.detail = Reason.APP_ERROR
        self._broken()

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
        """The server has the head: it raises the app's exception again where bytes are out already, and
        else takes the new head (PEP 3333). What follows is never stored."""
        self._drop_copy()
        if status[:3].isdecimal():
            self._fill.outcome.forward_status = self._fill.outcome.status = int(status[:3])
        told = for_client(headers, self._fill.outcome, self._fill.engine, self._show_key)
        return self._start_response(status, told, exc_info)

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
        if action is KEEP:
            whole = type(self._iterable) is list or type(self._iterable) is tuple
            return self._keep_list() if whole else self._keep_from_start()
        return self._pass_on() if action is Action.PASS else self._replace(action)

    def _pass_on(self, first: object = _NOT_PULLED) -> Iterable[bytes]:
        """Nothing is kept: the app's own iterable is the response, unless a 304 is enough."""
        replaced = self._client_has_it(None)
        if replaced is not None:
            return replaced
        status, headers = self._require_head()
        self._send(status, headers)
        self._end()
        if first is _NOT_PULLED:
            return self._iterable
        if first is not _END:
            self._put(_bytes(first))
        return self

    def _first_pull(self) -> Iterable[bytes]:
        """A generator that has not begun: its first chunk comes with the head, or is empty."""
        self._iterator = iter(self._iterable)
        first = next(self._iterator, _END)
        if self._head is None:
            self._put(_before_head(first))
            return self
        return self._pulled(first, None)

    def _pulled(self, first: object, decided: tuple[str, list[Header]] | None) -> Iterable[bytes]:
        """The first chunk is there. The app may have begun only now, or begun again with `exc_info`, or
        called `write()` from within its iterable, which PEP 3333 forbids and servers let pass."""
        if self._sent:
            if first is not _END:
                self._keep(chunk := _bytes(first))
                self._put(chunk)
            return self
        if self._deferred is not None:
            return self._replace(self._deferred, first)
        if self._head is decided:
            return self._take_first(first)
        self._chunks = None
        return self._begun(first)

    def _has_room(self) -> bool:
        """Before the head goes out: whether there is room for what says that it will be too large for memory.

        From here on that room is its own, so that it need not be given up at its end.
        """
        fill = self._fill
        spool, head = fill.engine.spool, fill.head
        if spool is None or head is None or head.length is None:
            return True
        if head.length <= fill.admission.plan.in_memory_bytes:
            return True
        try:
            self._file = self._to_close = spool.begin(head.length)
        except OSError as error:
            self._guarded("capture", partial(fill.no_file, error), None)
            return False
        except Exception as error:
            self._fault("spool", error)
        return True

    def _begun(self, first: object) -> Iterable[bytes]:
        """The head is known and the first chunk pulled."""
        if self._file is not None:  # of a head that another has taken the place of
            self._file.discard()
            self._file = None
        action = self._decide()
        if action is Action.PASS:
            return self._pass_on(first)
        if action is not Action.KEEP:
            return self._replace(action, first)
        if not self._has_room():
            return self._pass_on(first)
        self._chunks = []
        return self._take_first(first)

    def _keep_from_start(self) -> Iterable[bytes]:
        """Keep a copy from the first chunk on."""
        if not self._has_room():
            return self._pass_on()
        self._chunks = []
        decided = self._head
        self._iterator = iter(self._iterable)
        return self._pulled(next(self._iterator, _END), decided)

    def _keep_list(self) -> Iterable[bytes]:
        """The whole body is there already, as with most apps: it is stored, and goes out as it is."""
        chunks: Any = self._iterable
        body: Body | None
        if len(chunks) == 1 and type(chunks[0]) is bytes:
            body = chunks[0]
        else:
            chunks = [_bytes(chunk) for chunk in chunks]
            short = sum(map(len, chunks)) <= self._fill.admission.plan.in_memory_bytes
            body = b"".join(chunks) if short else None
        if body is None or len(body) > self._fill.admission.plan.in_memory_bytes:
            self._chunks = []
            body = self._copied() if all([self._keep_large(chunk) for chunk in chunks]) else None
            if body is None:
                return self._pass_on()
        self._complete(body)
        replaced = self._send_whole(body)
        if replaced is not None:
            return replaced
        self._end()
        return chunks  # type: ignore[no-any-return]

    def _take_first(self, first: object) -> Iterable[bytes]:
        if first is _END:
            self._complete(b"")
            return self._send_whole(b"") or self
        chunk = _bytes(first)
        self._keep(chunk)
        if self._early:
            self._put(chunk)
            return self._send_whole(chunk) or self
        replaced = self._client_has_it(None)
        if replaced is not None:
            return replaced
        status, headers = self._require_head()
        self._send(status, headers)
        self._put(chunk)
        self._wait_for_server()
        return self

    def _send_whole(self, body: Body) -> Iterable[bytes] | None:
        """The whole body was there before the head goes out, so the head can tell what became of it.

        Returns what goes out in place of the body, if anything.
        """
        fill = self._fill
        if fill.stripped:
            replaced = self._client_has_it(body)
            if replaced is not None:
                return replaced
        assert self._head is not None  # noqa: S101 - it was decided on
        status, headers = self._head
        if body and fill.head is not None and fill.head.length is None and fill.entry is not None:
            headers = [*headers, ("Content-Length", str(len(body)))]
        self._send(status, headers, None if fill.head is None else fill.head.fields)
        return None

    # --- answers that replace the app's ------------------------------------------------------------

    def _client_has_it(self, body: Body | None) -> Iterable[bytes] | None:
        """A 304 in place of the app's 200; what there is of a body is still read for the store."""
        if not self._fill.stripped:
            return None
        answer = self._guarded("not_modified", lambda: self._fill.not_modified(body), None)
        if answer is None:
            return None
        self._fill.outcome.status = 304
        self._send(answer.status, list(answer.headers))
        self._pending = None
        self._muted = True
        return self

    def _replace(self, action: Action, first: object = _NOT_PULLED) -> Iterable[bytes]:
        """The entry answers: freshened by a 304, or stale in place of an error."""
        if action is Action.AGAIN:
            return self._ask_again()
        made = self._guarded("answering", lambda: self._from_entry(action), None)
        if made is None:
            return self._ask_again() if action is Action.FRESHENED else self._pass_on(first)
        return self._send_instead(*made)

    def _send_instead(self, answer: Answer, chunks: Iterable[bytes]) -> Iterable[bytes]:
        """Give the server an entry's answer."""
        self._send(answer.status, list(answer.headers))
        return ShortBody(chunks, self.close)

    def _from_entry(self, action: Action) -> tuple[Answer, Iterable[bytes]] | None:
        """What an entry answers, and its chunks; None where the file of its body is gone."""
        fill = self._fill
        entry = fill.entry if action is Action.FRESHENED else fill.found.entry
        assert entry is not None  # noqa: S101 - both actions come from an entry
        made = fill.answer_entry(entry)
        try:
            chunks = chunks_of(made, None)  # before anything is told of an answer that cannot be given
        except OSError:
            return None
        if isinstance(chunks, FileChunks):
            self._to_close = chunks
        now = fill.engine.clock.wall()
        headers = (*made.headers, *fill.passed_on, AGES[max(0, int(now - entry.since))])
        if action is Action.STALE:
            fill.outcome.reason = Reason.HIT_STALE_IF_ERROR
            fill.engine.observer.hid_error(fill.outcome.forward_status)
            fill.gave_stale()
        fill.outcome.tell_ttl(entry.ttl(now))
        fill.outcome.status = int(made.status[:3])
        return made._replace(headers=headers), chunks

    def _ask_again(self) -> Iterable[bytes]:
        """A 304 that is of no use: the app is asked once more, without conditions."""
        self._close_iterable()
        self._head = self._deferred = self._chunks = None
        self._pending = None
        self._fill.conditional = False
        self._guarded("asking again", self._fill.prepare_again, None)
        self._environ = self._unconditional
        return self._call()

    def _stale_instead(self, error: Exception) -> Iterable[bytes] | None:
        """A stale entry in place of an exception, where its window allows it (RFC 5861 §4)."""
        fill = self._fill
        if self._sent or not self._guarded("stale-if-error", fill.stale_usable, False):
            return None
        self._drop_copy()
        made = self._guarded("answering", lambda: self._from_entry(Action.STALE), None)
        if made is None:
            return None
        fill.outcome.settled, fill.outcome.detail = None, Reason.APP_ERROR
        self._guarded("logging", lambda: fill.engine.observer.app_failed(error), None)
        return self._send_instead(*made)

    # --- the head ----------------------------------------------------------------------------------

    def _require_head(self) -> tuple[str, list[Header]]:
        head = self._head
        assert head is not None  # noqa: S101 - callers checked
        return head

    def _announced(self) -> int | None:
        head = self._fill.head
        return None if head is None else head.length

    def _decide(self) -> Action:
        assert self._head is not None  # noqa: S101 - callers checked
        status, headers = self._head
        try:
            return self._fill.decide(status, headers, self._environ)
        except Exception as error:
            self._fault("settle", error)
            return self._undecided(status)

    def _undecided(self, status: str) -> Action:
        """A fault of ours: the app's answer goes out, unless it is a 304 that nobody but us asked for."""
        fill = self._fill
        fill.outcome.settled = fill.outcome.ttl = None
        self._guarded("collapse", fill.failed, None)
        return Action.AGAIN if fill.conditional and status.startswith("304") else Action.PASS

    def _decide_before_write(self) -> None:
        """`write()` came before the app returned: the head goes out now, if it is the app's."""
        if self._head is None:
            raise AssertionError("write() was called before start_response() (PEP 3333)")
        action = self._decide()
        self._chunks = [] if action is Action.KEEP and self._has_room() else None
        if action in (Action.KEEP, Action.PASS):
            status, headers = self._head
            self._send(status, headers)
        else:
            self._deferred = action

    def _send(self, status: str, headers: list[Header], names: Iterable[str] | None = None) -> None:
        """Give the head to the server; `names` as in `for_client`."""
        fill = self._fill
        told = for_client(headers, fill.outcome, fill.engine, self._show_key, names)
        self._sent = True
        self._write = self._start_response(status, told)

    # --- the body ----------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._pending:
            return self._hand_over(self._pending.popleft())
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
        except BaseException as error:
            return self._failed(error)
        if not self._sent:
            return self._late_head(chunk)
        self._keep(chunk)
        if self._chunks is not None and self._fill.followed:
            chunk = _bytes(chunk)
            self._drain_for_followers()
        return self._hand_over(chunk)

    def _put(self, chunk: bytes) -> None:
        """Have a chunk handed out before those that the iterable still has."""
        if self._pending is None:
            self._pending = deque()
        self._pending.append(chunk)

    def _failed(self, error: BaseException) -> bytes:
        """The app raised in its body; before the head is out, a stale page may still answer."""

        def again() -> Iterable[bytes]:
            raise error

        self._go_on_with(self._or_stale(again))
        return next(self, b"")

    def _late_head(self, chunk: object) -> bytes:
        """The app called `start_response` only now, or has not yet and yields empty chunks."""
        if self._head is None:
            return _before_head(chunk)
        self._go_on_with(self._or_stale(lambda: self._pulled(chunk, None)))
        return next(self, b"")

    def _go_on_with(self, chunks: Iterable[bytes]) -> None:
        """Hand out what takes the place of the iterable that the server has begun to iterate."""
        if chunks is not self:
            self._pending = None
            self._iterator = iter(chunks)

    def _hand_over(self, chunk: bytes) -> bytes:
        if self._chunks is not None:
            self._wait_for_server()
        return chunk

    def _wait_for_server(self) -> None:
        """Tell followers that it is now the client's turn, where the body has not ended."""
        fill = self._fill
        if fill.flight is not None:
            self._handed_over = True
            self._guarded("collapse", lambda: fill.engine.collapse.hand_over(fill.flight), None)  # type: ignore[arg-type]

    def _resume(self) -> None:
        self._handed_over = False
        fill = self._fill
        if fill.flight is not None:
            self._guarded("collapse", lambda: fill.engine.collapse.resume(fill.flight), None)  # type: ignore[arg-type]

    def _keep(self, chunk: bytes) -> None:
        """Add to the copy, as long as it is small enough, and store it once its announced length is there."""
        if self._chunks is None:
            if self._early and chunk:
                self._drop_copy(Reason.NOT_STORED_INCOMPLETE)  # there is more than was announced
            return
        if self._file is not None or self._kept + len(chunk) > self._fill.admission.plan.in_memory_bytes:
            if not self._keep_large(_bytes(chunk)):
                return
        else:
            self._kept += len(chunk)
            self._chunks.append(_bytes(chunk))
        if self._kept == self._announced():
            self._early = True
            self._complete(b"".join(self._chunks) if self._file is None else self._copied())

    def _keep_large(self, chunk: bytes) -> bool:
        """Add to a copy that is too large for memory: to a file, where the store keeps files.

        Returns whether there is still a copy.
        """
        if self._chunks is None:
            return False
        fill = self._fill
        self._kept += len(chunk)
        if self._kept > fill.admission.plan.max_body_bytes:
            self._give_up(fill.too_large)
        elif fill.engine.spool is None:
            self._chunks.append(chunk)
        else:
            try:
                self._write_to_file(chunk)
            except OSError as error:
                self._give_up(partial(fill.no_file, error))
            except Exception as error:
                self._fault("spool", error)
                self._drop_copy()
        return self._chunks is not None

    def _write_to_file(self, chunk: bytes) -> None:
        assert self._fill.engine.spool is not None  # noqa: S101 - the caller checked
        assert self._chunks is not None  # noqa: S101 - the caller checked
        if self._file is None:
            self._file = self._to_close = self._fill.engine.spool.begin(self._announced())
            for kept in self._chunks:
                self._file.write(kept)
            self._chunks.clear()
        self._file.write(chunk)

    def _give_up(self, tell: Callable[[], None]) -> None:
        """No copy is kept; the body streams on."""
        self._chunks = None
        self._early = False
        if self._file is not None:
            self._file.discard()
        self._guarded("capture", tell, None)

    def _copied(self) -> Body | None:
        """All of a copy; None, and there is none any more, where its file cannot be had."""
        assert self._chunks is not None  # noqa: S101 - the caller checked
        if self._file is None:
            return b"".join(self._chunks)
        try:
            return self._file.finish()
        except OSError as error:
            self._give_up(partial(self._fill.no_file, error))
            return None

    def _drain_for_followers(self) -> None:
        """Others wait: read the rest now, and let the client have it at its pace.

        For a moment only, and once: a body that is made slowly is to reach its client as it is made.
        """
        if not self._drained:
            self._drained = True
            grace = self._fill.engine.settings.slow_client_grace
            self._drain_rest(grace, lambda: self._fill.followed)

    def _drain_rest(self, seconds: float, wanted: Callable[[], bool]) -> None:
        """Read the rest now, up to the limit in bytes and in time, while it is wanted."""
        until = monotonic() + seconds
        behind: Behind | None = None
        while self._chunks is not None and wanted() and monotonic() < until:
            try:
                chunk = _bytes(next(self._iterator))
            except StopIteration:
                self._iterator = _NOTHING
                self._finish()
                return
            except Exception as error:
                self._broken()
                self._iterator = Raising(error)
                return
            except BaseException:
                self._broken()
                raise
            before = self._kept
            self._keep(chunk)
            if not self._muted:
                behind = self._put_behind(chunk, before, behind)

    def _put_behind(self, chunk: bytes, before: int, behind: Behind | None) -> Behind | None:
        """Have a chunk handed out later; where the copy is in a file, it is not kept in memory for that.

        Args:
            before: bytes of the copy before this chunk.
            behind: what this returned for the chunk before.
        """
        file = self._file
        if file is None or file.size != before + len(chunk):
            self._put(chunk)
            return behind
        if behind is None:
            try:
                file.open()
            except OSError:
                self._put(chunk)
                return None
            first = self._pending
            assert not isinstance(first, Behind)  # noqa: S101 - it is drained once
            self._pending = behind = Behind(first, file, before)
        behind.grow(len(chunk))
        return behind

    def _finish(self) -> None:
        """The iterable ended: what was kept is the whole body."""
        if self._chunks is not None:
            self._complete(b"".join(self._chunks) if self._file is None else self._copied())

    def _complete(self, body: Body | None) -> None:
        self._chunks = None
        try:
            if isinstance(body, bytes):
                self._fill.complete(body)
            elif body is not None:
                self._complete_file(body)
        except Exception as error:
            self._fault("store", error)
            self._fill.outcome.settled = self._fill.outcome.ttl = None

    def _complete_file(self, body: FileBody) -> None:
        try:
            self._fill.complete_file(body)
        except OSError as error:
            self._fill.no_file(error)

    def _drop_copy(self, reason: Reason = Reason.NOT_STORED_BROKEN_OFF) -> None:
        self._chunks = None
        self._early = False
        if self._file is not None:
            self._file.discard()
        self._guarded("capture", lambda: self._fill.broken_off(reason), None)

    def _broken(self) -> None:
        """Something was raised: no part is stored, and nobody waits."""
        self._drop_copy()
        self._end()

    # --- the end -----------------------------------------------------------------------------------

    @property
    def began(self) -> bool:
        """Whether the server has got the head."""
        return self._sent

    def mute(self) -> None:
        """The client gets no body: what there is of it is read at `close()`, for the store alone."""
        self._muted = True
        self._pending = None

    def close(self) -> None:
        """What the server calls when it is done; also when it gives up early."""
        if self._closed:
            return
        self._closed = True
        try:
            self._settle_rest()
        finally:
            try:
                self._let_go()
            finally:
                self._end()

    def _settle_rest(self) -> None:
        """An early close: what is there is a part. Where the client needed only a 304, the body is read
        now, for the store alone, and not for long."""
        if self._muted and self._chunks is not None:
            self._drain_rest(DRAIN_SECONDS, lambda: True)
            if isinstance(self._iterator, Raising):
                next(self._iterator)
        if self._chunks is not None:
            self._drop_copy()

    def _let_go(self) -> None:
        """Close the app's iterable, and a file of ours."""
        try:
            self._close_iterable()
        finally:
            if self._to_close is not None:
                self._to_close.close()

    def _close_iterable(self) -> None:
        iterable, self._iterable, self._iterator = self._iterable, (), _NOTHING
        close = getattr(iterable, "close", None)
        if close is not None:
            close()

    def _end(self) -> None:
        try:
            self._fill.end()
        except Exception as error:
            self._fault("capture", error)

    def _guarded(self, where: str, act: Callable[[], Any], otherwise: Any) -> Any:
        """Run our own code; its faults are recorded and change nothing."""
        try:
            return act()
        except Exception as error:
            self._fault(where, error)
            return otherwise

    def _fault(self, where: str, error: Exception) -> None:
        self._fill.engine.observer.fault(where, error)


def _bytes(chunk: object) -> bytes:
    """An immutable copy where the app hands out something else than bytes (a reused bytearray)."""
    return chunk if type(chunk) is bytes else bytes(memoryview(chunk))  # type: ignore[arg-type]


def _before_head(chunk: object) -> bytes:
    """The only chunk that an app may give before it has called `start_response` (PEP 3333)."""
    if chunk is _END:
        raise AssertionError("the app ended without calling start_response() (PEP 3333)")
    if chunk:
        raise AssertionError("the app sent a body before start_response() (PEP 3333)")
    return b""


class Bodiless:
    """The answer to a HEAD that was asked as a GET: its body is for the store alone."""

    __slots__ = ("_iterable",)

    def __init__(self, iterable: Iterable[bytes]) -> None:
        self._iterable = iterable

    def __iter__(self) -> Iterator[bytes]:
        iterable = self._iterable
        while isinstance(iterable, Capture) and not iterable.began:  # the app may begin late (PEP 3333)
            next(iterable)
            yield b""

    def close(self) -> None:
        """Read what is to be stored, and close the app's iterable."""
        iterable, self._iterable = self._iterable, ()
        if isinstance(iterable, Capture):
            iterable.mute()
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
