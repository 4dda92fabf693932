"""The middleware: every way an answer is delivered, but for the hit path (`wsgicache.hitpath`)."""

from __future__ import annotations

import errno
import hmac
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

from .answer import Answer, answer
from .capture import Bodiless, Capture
from .collapse import Boarding, Flight
from .engine import Engine
from .entry import Entry
from .environs import changed, changes_for, knowing_no_forms, refresh_environ
from .facts import CONDITIONALS, SECRET_HEADER, UNUSUAL, Facts
from .fill import Fill
from .forks import check as check_for_fork
from .forms import can_be_coded
from .found import Found, place
from .head import Head
from .hints import CACHE, HINTS, IGNORE, Hints, Layers
from .hitpath import HitPath
from .outcome import Outcome, Reason
from .passing import App, Closing, Environ, Header, HeadOnly, StartResponse, bodiless, for_client
from .policy import Admission, invalidates, is_unsafe, request_directives
from .queueing import Queue, groups_of
from .ready import AGES
from .sending import chunks_of, close

_SHORT_OF: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""What is said of the process or the machine, and nothing of a file."""
_STORE_DOWN: Final[Reason] = Reason.STORE_DOWN
"""The member by itself: to read it from its enum costs as much as a call."""


class Middleware(HitPath):
    """A WSGI app around a WSGI app. `WSGICache` adds what operators use.

    Args:
        app: the wrapped app.
        engine: what decides and stores.
    """

    def __init__(self, app: App, engine: Engine) -> None:
        self.engine = engine
        self.app = app
        settings = engine.settings
        self._queue = Queue(engine)
        self._enabled = settings.enabled
        self._peek = engine.peek
        self._confirm = engine.confirm
        if engine.peek is None or not settings.enabled or settings.log:
            self._peek = _peek_nothing
        self._clock = engine.clock
        self._steady = engine.clock.steady
        self._unusual = UNUSUAL | (
            {"HTTP_CACHE_CONTROL", "HTTP_PRAGMA"} if settings.profile == "rfc" else frozenset()
        )
        self._methods_alike = all([rule.options["methods"] is None for rule in engine.rules])
        self._warned_of_processes = engine.peek is None or engine.shared

    @property
    def app(self) -> App:
        """The wrapped app; another one may take its place."""
        return self._app

    @app.setter
    def app(self, app: App) -> None:
        self._app = app
        self._ask = knowing_no_forms(app) if any([plan.encode for plan in self.engine.plans]) else app

    # --- every other request -----------------------------------------------------------------------

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Read, admit, look up, and deliver or forward; a fault of ours leaves the app alone with it."""
        check_for_fork()
        engine = self.engine
        hints, outer = environ.get(HINTS), environ.get(CACHE)
        if outer is self or (isinstance(outer, Layers) and self in outer):
            hints = outer = None  # the app asks for a part of its page, by a copy of its environ
        if not isinstance(hints, Hints):
            hints = environ[HINTS] = Hints()
        environ[CACHE] = self if outer is None else Layers(self, outer)
        if not self._enabled:
            return self._watch(
                environ, start_response, Outcome(Reason.DISABLED, method=environ.get("REQUEST_METHOD"))
            )
        try:
            facts = Facts(environ)
            admission = engine.admit(facts)
            found = engine.look_up(admission) if admission.reason is None else None
            if admission.rules is not engine.rules_known_by:  # the store told that one was switched
                admission = engine.admit(facts)
                found = engine.look_up(admission) if admission.reason is None else None
            if not self._warned_of_processes:
                self._warn_of_processes(environ)
        except Exception as error:
            return self._without_cache(environ, start_response, "looking up", error)
        if found is None:
            return self._bypass(environ, start_response, admission)
        if found.reason.is_hit:
            return self._deliver(environ, start_response, admission, found)
        if admission.unstorable is not None or found.reason is _STORE_DOWN:
            return self._forward_unstored(environ, start_response, admission, found, hints)
        return self._forward(environ, start_response, admission, found, hints)

    def _without_cache(
        self, environ: Environ, start_response: StartResponse, where: str, error: Exception
    ) -> Iterable[bytes]:
        """A fault of ours, before the app was called or anything sent: the app answers alone."""
        self.engine.observer.fault(where, error)
        return self._watch(
            environ, start_response, Outcome(Reason.CACHE_FAULT, method=environ.get("REQUEST_METHOD"))
        )

    def _record(self, outcome: Outcome) -> None:
        try:
            self.engine.observer.record(outcome)
        except Exception as error:
            self.engine.observer.fault("counting", error)

    def _warn_of_processes(self, environ: Environ) -> None:
        self._warned_of_processes = True
        if environ.get("wsgi.multiprocess") is True:
            self.engine.observer.warn_once(
                "multiprocess",
                "memory:// is one process's: each worker keeps its own entries, and a purge reaches one "
                "worker only; run one worker process with threads",
            )

    def _shows_key(self, environ: Environ) -> bool:
        """Whether the client has proved by the secret that it may see the key (RFC 9211 §6)."""
        secret = self.engine.settings.secret
        given = environ.get(SECRET_HEADER)
        if secret is None or given is None:
            return False
        return hmac.compare_digest(str(given).encode("latin-1", "replace"), secret.encode())

    # --- past the cache ----------------------------------------------------------------------------

    def _watch(
        self,
        environ: Environ,
        start_response: StartResponse,
        outcome: Outcome,
        seen: Callable[[str, list[Header]], None] | None = None,
    ) -> Iterable[bytes]:
        """Let the app answer alone; only Cache-Status is added."""
        show_key = SECRET_HEADER in environ and self._shows_key(environ)
        head = HeadOnly(outcome, start_response, self.engine, show_key, seen)
        try:
            return self._ask(environ, head)
        finally:
            self._record(outcome)

    def _bypass(
        self, environ: Environ, start_response: StartResponse, admission: Admission
    ) -> Iterable[bytes]:
        """The request does not use the cache. An unsafe one still invalidates."""
        facts, rule = admission.facts, admission.plan.label
        outcome = Outcome(admission.reason or Reason.BYPASS_KEY, rule=rule, method=facts.method)
        outcome.path, outcome.query = facts.path, facts.query
        if not is_unsafe(facts.method):
            return self._watch(environ, start_response, outcome)
        heads: list[Head] = []

        def seen(status: str, headers: list[Header]) -> None:
            try:
                head = Head(status, headers)
                if invalidates(admission.facts.method, head.code):
                    self.engine.invalidate(admission, head)
                    heads.append(head)
            except Exception as error:
                self.engine.observer.fault("invalidating", error)

        iterable = self._watch(environ, start_response, outcome, seen)
        if type(iterable) in (list, tuple):
            return iterable
        # A lazy body may still change what a page shows: what was stored meanwhile goes too.
        return Closing(iterable, partial(self._invalidate_again, admission, heads))

    def _invalidate_again(self, admission: Admission, heads: list[Head]) -> None:
        try:
            for head in heads[-1:]:
                self.engine.invalidate(admission, head)
        except Exception as error:
            self.engine.observer.fault("invalidating", error)

    def _forward_unstored(
        self,
        environ: Environ,
        start_response: StartResponse,
        admission: Admission,
        found: Found,
        hints: Hints,
    ) -> Iterable[bytes]:
        """The answer will not be stored, whatever it is, so the request goes on as it came.

        Only a HEAD that may freshen what is stored is shown no more than a fill would be.
        """
        if self._only_if_cached(admission):
            return self._gateway_timeout(start_response, admission)
        outcome = Outcome(
            found.reason, key=admission.key, rule=admission.plan.label, method=admission.facts.method
        )
        outcome.settled = admission.unstorable
        visitor = admission.personal is not None or admission.cookies.lookup_only
        if admission.facts.method != "HEAD" or found.entry is None or visitor:
            return self._watch(environ, start_response, outcome)
        try:
            seen = changed(environ, {**changes_for(environ, admission), "REQUEST_METHOD": "HEAD"})
            admission.unstorable = None  # what is judged now is the stored GET
            lesson = Fill(self.engine, admission, found, None, hints)
        except Exception as error:
            return self._without_cache(environ, start_response, "preparing", error)
        return self._watch(seen, start_response, outcome, partial(self._learn_from_head, lesson, seen))

    def _learn_from_head(self, lesson: Fill, seen: Environ, status: str, headers: list[Header]) -> None:
        try:
            lesson.learn_from_head(status, headers, bool(seen.get(IGNORE)))
        except Exception as error:
            self.engine.observer.fault("learning from HEAD", error)

    def _only_if_cached(self, admission: Admission) -> bool:
        profile = admission.plan.profile
        return profile.obey_request and "only-if-cached" in request_directives(admission.facts)

    def _gateway_timeout(self, start_response: StartResponse, admission: Admission) -> Iterable[bytes]:
        """504, for a request that wants nothing but what is stored (RFC 9111 §5.2.1.7)."""
        outcome = Outcome(Reason.ONLY_IF_CACHED, key=admission.key, method=admission.facts.method, status=504)
        self._record(outcome)
        body = b"Nothing stored may answer this request, and it said only-if-cached.\n"
        headers = [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
        ]
        start_response("504 Gateway Timeout", for_client(headers, outcome, self.engine, False))
        return () if admission.facts.method == "HEAD" else (body,)

    # --- from the store ----------------------------------------------------------------------------

    def _deliver(
        self,
        environ: Environ,
        start_response: StartResponse,
        admission: Admission,
        found: Found,
    ) -> Iterable[bytes]:
        """Answer from the entry that was found."""
        entry = found.entry
        assert entry is not None  # noqa: S101 - a hit has one
        if entry.terms.groups and isinstance(environ.get(HINTS), Hints):
            environ[HINTS].groups.update(entry.terms.groups)  # for an outer cache that stores this answer
        outcome = Outcome(
            found.reason, key=admission.key, rule=admission.plan.label, method=admission.facts.method
        )
        after = None
        if found.early or found.reason is Reason.HIT_STALE_WHILE_REVALIDATE:
            try:
                begins, after = self._refresh_behind(environ, admission, found)
                if begins and found.early:
                    outcome.reason = Reason.HIT_EARLY_REFRESH
            except Exception as error:
                self.engine.observer.fault("refreshing", error)
        elif admission.plan.encode:
            after = self._encode_behind(environ, admission, entry)
        try:
            chunks = self._send_entry(environ, start_response, admission, entry, outcome, whole=after is None)
        except _FileGone:
            return self._without_its_file(environ, start_response, admission, entry)
        return chunks if after is None else Closing(chunks, after)

    def _send_entry(
        self,
        environ: Environ,
        start_response: StartResponse,
        admission: Admission,
        entry: Entry,
        outcome: Outcome,
        *,
        whole: bool = True,
    ) -> Iterable[bytes]:
        """Answer from an entry.

        Args:
            whole: the server gets the very chunks, nothing around them.

        Raises:
            _FileGone: the file of its body is; nothing was done.
        """
        try:
            encode = admission.plan.encode
            made = self.engine.forms.answer(entry, admission) if encode else answer(entry, admission.facts)
            chunks: Any = made.chunks
            if made.file is not None:
                chunks = _opened(made, environ if whole else None)
            now = self._clock.wall()
            outcome.tell_ttl(entry.ttl(now))
            outcome.status = int(made.status[:3])
            headers = (*made.headers, AGES[max(0, int(now - entry.since))])
        except _FileGone:
            raise
        except Exception as error:
            return self._without_cache(environ, start_response, "answering", error)
        self._record(outcome)
        try:
            show_key = SECRET_HEADER in environ and self._shows_key(environ)
            start_response(made.status, for_client(headers, outcome, self.engine, show_key))
        except BaseException:
            close(chunks)
            raise
        return chunks  # type: ignore[no-any-return]

    def _without_its_file(
        self, environ: Environ, start_response: StartResponse, admission: Admission, entry: Entry
    ) -> Iterable[bytes]:
        """The file of an entry went since the look-up, or somebody took it away: what is left is a miss.

        Those who meet it at the same time wait for one of them, as at any miss; who has lost a second file
        asks the app himself.
        """
        again = not admission.lost_file
        admission.lost_file = True
        try:
            found = self.engine.look_up(admission)
            is_same = found.entry is not None and found.entry.body == entry.body
            if is_same:
                self.engine.forget(found, found.entry)
            elif found.reason.is_hit and again:  # somebody has stored it anew
                return self._deliver(environ, start_response, admission, found)
            if is_same or found.reason.is_hit:
                found.entry, found.reason, found.miss = None, Reason.URI_MISS, Reason.URI_MISS
            fill = None if again else self._new_fill(admission, found, None, environ[HINTS])
        except Exception as error:
            return self._without_cache(environ, start_response, "opening a file", error)
        if admission.unstorable is not None or found.reason is _STORE_DOWN:
            return self._forward_unstored(environ, start_response, admission, found, environ[HINTS])
        if fill is None:
            return self._forward(environ, start_response, admission, found, environ[HINTS])
        return self._run(environ, start_response, fill)

    # --- forward -----------------------------------------------------------------------------------

    def _forward(
        self,
        environ: Environ,
        start_response: StartResponse,
        admission: Admission,
        found: Found,
        hints: Hints,
    ) -> Iterable[bytes]:
        """Ask the app, or share the answer to somebody who is asking it already."""
        if admission.plan.profile.obey_request and self._only_if_cached(admission):
            return self._gateway_timeout(start_response, admission)
        try:
            found, shared, flight, detail = self._queue.take(admission, found)
            if shared is None and not found.reason.is_hit:
                fill = self._new_fill(admission, found, flight, hints)
                fill.outcome.detail = detail
        except Exception as error:
            return self._without_cache(environ, start_response, "collapsing", error)
        if shared is not None:
            return self._share(environ, start_response, admission, detail or found.miss, shared)
        if found.reason.is_hit:
            return self._deliver(environ, start_response, admission, found)
        if detail is not None and detail is Reason.BYPASS_NESTED:
            outcome = Outcome(
                detail, key=admission.key, rule=admission.plan.label, method=admission.facts.method
            )
            return self._watch(environ, start_response, outcome)
        return self._run(environ, start_response, fill)

    def _new_fill(self, admission: Admission, found: Found, flight: Flight | None, hints: Hints) -> Fill:
        try:
            return Fill(self.engine, admission, found, flight, hints)
        except BaseException:
            if flight is not None:
                self.engine.fail(flight)
            raise

    def _share(
        self,
        environ: Environ,
        start_response: StartResponse,
        admission: Admission,
        reason: Reason,
        entry: Entry,
    ) -> Iterable[bytes]:
        """Answer a follower from the leader's entry, or from the stale one that stood in for the app."""
        outcome = Outcome(
            reason,
            forward_status=None if reason is Reason.HIT_STALE_IF_ERROR else entry.terms.code,
            collapsed=True,
            key=admission.key,
            rule=admission.plan.label,
            method=admission.facts.method,
        )
        try:
            return self._send_entry(environ, start_response, admission, entry, outcome)
        except _FileGone:
            return self._without_its_file(environ, start_response, admission, entry)

    def _run(self, environ: Environ, start_response: StartResponse, fill: Fill) -> Iterable[bytes]:
        """Call the app for a fill, with an environ that holds nothing unkeyed."""
        try:
            seen = self._environ_for_fill(environ, fill)
            if fill.admission.facts.method == "HEAD":
                start_response = bodiless(start_response)
            show_key = SECRET_HEADER in environ and self._shows_key(environ)
            capture = Capture(fill, start_response, show_key)
        except BaseException as error:
            fill.failed()
            if fill.background or not isinstance(error, Exception):
                raise
            return self._without_cache(environ, start_response, "preparing", error)
        if fill.admission.facts.method != "HEAD":
            return capture.run(self._ask, seen)
        return Bodiless(capture.run(self._ask, seen))

    def _environ_for_fill(self, environ: Environ, fill: Fill) -> Environ:
        """What the app sees when its answer may be stored: unkeyed means unseen (house rule 6).

        That holds for a visitor's request too, for its answer may turn out to be public; but its cookies and
        credentials are the app's to see, and its conditionals the app's to judge.
        """
        admission = fill.admission
        changes = changes_for(environ, admission)
        if admission.personal is None and not admission.cookies.lookup_only:
            if admission.facts.conditional:
                fill.stripped = True
                changes.update(dict.fromkeys(CONDITIONALS))
            if fill.found.entry is not None:
                changes.update(fill.validators())
        return changed(environ, changes)

    # --- refresh -----------------------------------------------------------------------------------

    def _refresh_behind(
        self, environ: Environ, admission: Admission, found: Found
    ) -> tuple[bool, Callable[[], None] | None]:
        """Have an entry refreshed: on a thread, or after this response where there is none.

        Returns whether that is going to happen, and what to do after the response, if anything.
        """
        clean = refresh_environ(environ, admission, found)
        if clean is None:
            return False, None
        job = partial(self._refresh, clean, found.entry if found.early else None)
        return self._behind(environ, found.key, job)

    def _encode_behind(
        self, environ: Environ, admission: Admission, entry: Entry
    ) -> Callable[[], None] | None:
        """Have the form made that this client would have got. Returns what to do after the response."""
        try:
            coding = admission.missing_form(entry)
            if coding is None or admission.refuses_plain or not can_be_coded(entry):
                return None  # who refuses the page gets a form at once
            job = partial(self.engine.forms.make, entry, coding)
            return self._behind(environ, f"{coding} of {place(entry)}", job, later=True)[1]
        except Exception as error:
            self.engine.observer.fault("encoding", error)
            return None

    def _behind(
        self, environ: Environ, key: str, job: Callable[[], bool], *, later: bool = False
    ) -> tuple[bool, Callable[[], None] | None]:
        """Do something that this visitor does not wait for: on a thread, or after this response.

        Args:
            later: refreshes go first.

        Returns whether that is going to happen, and what to do after the response, if anything.
        """
        refresher = self.engine.refresher
        if environ.get("wsgi.multithread"):
            return refresher.submit(key, job, later=later), None
        if not refresher.wants(key):
            return False, None
        return True, partial(self._run_behind, key, job)

    def _run_behind(self, key: str, job: Callable[[], bool]) -> None:
        """Refresh after the response; a fault of ours is no error of the response."""
        try:
            if self.engine.refresher.claim(key):
                self.engine.refresher.run(key, job)
        except Exception as error:
            self.engine.observer.fault("refreshing", error)

    def _refresh(self, environ: Environ, early: Entry | None = None) -> bool:
        """Ask the app for a page that nobody waits for. True where a response was stored, by whomever.

        Args:
            early: the entry that is to be refreshed although it is fresh.
        """
        engine = self.engine
        hints = environ[HINTS] = Hints()
        environ[CACHE] = self
        admission = engine.admit(Facts(environ))
        if admission.reason is not None:
            return False
        found = engine.look_up(admission)
        if _is_refreshed(found, early) or found.mark is None:
            return True
        covered = engine.covered(admission.key, groups_of(found))
        boarding, flight = engine.collapse.board(found.key, found.mark, covered)
        if boarding is not Boarding.LEAD or flight is None:
            return True
        if engine.shared:
            try:
                taken = engine.leases.take(flight, found.follower.store)
                found = engine.look_up(admission)  # between the last look and the lease it may have come
            except BaseException:  # a greenlet may be killed while it waits for the store
                engine.fail(flight)
                raise
            if taken is None or _is_refreshed(found, early) or found.mark is None:
                engine.fail(flight)  # another process refreshes it, or has
                return True
        fill = self._new_fill(admission, found, flight, hints)
        fill.background = True
        try:
            response = self._run(environ, _refuse_nothing, fill)
            try:
                for _ in response:
                    pass
            finally:
                close = getattr(response, "close", None)
                if close is not None:
                    close()
        except Exception as error:
            engine.observer.refresh_failed(error)
            return False
        settled = fill.outcome.settled
        return settled is not None and settled.token == "stored"


def _is_refreshed(found: Found, early: Entry | None) -> bool:
    """Whether somebody else has refreshed a page meanwhile.

    Args:
        early: the fresh entry that was to be refreshed, if it was.
    """
    entry = found.entry
    if found.reason is not Reason.HIT or entry is None or early is None:
        return found.reason is Reason.HIT
    return (entry.since, entry.fresh_until) != (early.since, early.fresh_until)


class _FileGone(Exception):
    """The file of a stored body is not there, or is not what was stored."""


def _opened(made: Answer, environ: Environ | None) -> Iterable[bytes]:
    """The chunks of an answer, of which a file may be opened.

    Raises:
        _FileGone: the file cannot be had.
        OSError: no file can, at the moment.
    """
    try:
        return chunks_of(made, environ)
    except OSError as error:
        if error.errno in _SHORT_OF:
            raise
        raise _FileGone from error


def _peek_nothing(key: str) -> None:
    """The hit path's look-up over a store that holds nothing in this process."""


def _refuse_nothing(status: str, headers: list[Header], exc_info: Any = None) -> Callable[[bytes], None]:
    """A `start_response` for a response that nobody gets."""
    if exc_info is not None:
        raise exc_info[1].with_traceback(exc_info[2])
    return lambda data: None
