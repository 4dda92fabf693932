"""The hit path: what every hit runs, in Python and, where it was built, in C (`_compiled.c`).

`PureHitPath` is the reference. `HitPath` is the one that the middleware stands on: the compiled twin where
there is one (`compiled`).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from .answer import answer
from .clock import Clock
from .compiled import twin
from .engine import Engine
from .entry import Headers
from .environs import SAYS_NOTHING
from .facts import CONDITIONALS, Facts
from .passing import Environ, StartResponse
from .ready import AGES, COLD, HIT_LINES, Hot


@dataclass(frozen=True, slots=True)
class Special:
    """What an armed slot answers to a request that is not plain."""

    status: str
    headers: Headers
    chunks: Iterable[bytes]
    counter: Iterator[int]


class _Parts:
    """What both call. A subclass gives what is declared here."""

    engine: Engine
    _peek: Any
    """What this process holds of a key. Any, because the hit path must not pay for telling mypy what an
    armed slot always has."""
    _confirm: Callable[[Any], bool] | None
    _steady: Callable[[], float]
    _clock: Clock
    _unusual: frozenset[str]
    _methods_alike: bool

    def _serve(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer what is no plain hit: the long way."""
        raise NotImplementedError

    def _renew(self, slot: Any, ready: Any, now: float, stamp: object) -> Hot:
        """What a slot answers from now on, where what it holds is of a second that is over.

        Raises:
            LookupError: the long way has to decide.
        """
        self._clock.check(now)
        trusted_until = ready.trust.until
        # Trust is renewed after the stamp is replaced: in this order none of them is too new for the other.
        return ready.hit(slot, now, trusted_until) if self.engine.stamp is stamp else COLD

    def _agrees(self, environ: Environ, unusual: Iterable[str], besides: Container[str] = ()) -> bool:
        """Whether what is unusual is only what some proxies and servers set on every request, and says
        nothing new.

        Args:
            unusual: which of the unusual keys the environ has.
            besides: what else may be there.
        """
        for name in unusual:
            says_nothing = SAYS_NOTHING.get(name)
            if name in besides:
                continue
            if says_nothing is None or not says_nothing(environ[name], environ):
                return False
        return True

    def _special(self, environ: Environ, slot: Any, ready: Any) -> Special | None:
        """The answer of an armed slot to a HEAD, a conditional request or one for a range; its fields are
        the whole head. None where the long way has to decide.

        It asks what the hit path asks, in the same order, and lets pass what `answer` knows about.
        """
        get = environ.get
        if environ["REQUEST_METHOD"] == "HEAD":
            if not self._methods_alike:
                return None  # another rule may hold for it
        elif not (environ["REQUEST_METHOD"] == "GET" and any([name in environ for name in CONDITIONALS])):
            return None
        facts = Facts(environ)
        path, query, raw = facts.path, facts.query, facts.raw
        if not (
            (raw is None or raw == path or (query and raw == f"{path}?{query}"))
            and get("HTTP_X_FORWARDED_PROTO", facts.scheme) == facts.scheme
            and not get("CONTENT_LENGTH")
            and (facts.cookie is None or ready.cookies[facts.cookie])
            and self._agrees(environ, self._unusual & environ.keys(), CONDITIONALS)
        ):
            return None
        slot.visited = True
        now = self._steady()
        self._clock.check(now)
        age = ready.age_at(slot.stored, now, ready.trust.until)
        if slot.stamp is not self.engine.stamp:
            return None
        if self._confirm is not None and not self._confirm(slot):
            return None
        made = answer(slot.stored, facts)  # of bytes: a body in a file is never armed
        headers = (*made.headers, AGES[age], HIT_LINES[ready.lifetime - age])
        return Special(made.status, headers, made.chunks, ready.counter)  # type: ignore[arg-type]


class PureHitPath(_Parts):
    """The hit path in Python."""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request: the hit path.

        It serves only what `Engine._arm` has judged under the stamp still in force, to requests that have
        nothing unusual about them; whatever else comes goes to `_serve`, which knows every case. Raw
        values make the key: see `wsgicache.key` for why an unchecked key can do no harm. It is one
        function, without helpers, because a call costs as much here as three look-ups.
        """
        sent = None
        try:
            get = environ.get
            stamp = self.engine.stamp
            scheme = environ["wsgi.url_scheme"]
            path = get("SCRIPT_NAME", "") + environ["PATH_INFO"]
            query = get("QUERY_STRING", "")
            key = f"{path}\0{query}\0{environ['HTTP_HOST']}\0{scheme}"
            slot = self._peek(key)
            if slot is not None and (slot.stamp is stamp or self.engine.rearm(slot, stamp)):
                ready = slot.ready
                if ready.keys is not None:  # the response varies: a second key
                    slot.visited = True
                    field = ready.field
                    key = ready.keys[get(field)] if field is not None else ready.select(key, get)
                    slot = self._peek(key)
                    if slot is None or (slot.stamp is not stamp and not self.engine.rearm(slot, stamp)):
                        ready = None
                    else:
                        ready = slot.ready
                if (
                    ready is not None
                    and environ["REQUEST_METHOD"] == "GET"
                    and (
                        (raw := get("RAW_URI") or get("REQUEST_URI") or path) == path
                        or (query and raw == f"{path}?{query}")
                    )
                    and get("HTTP_X_FORWARDED_PROTO", scheme) == scheme
                    and not get("CONTENT_LENGTH")
                    and ((cookie := get("HTTP_COOKIE")) is None or ready.cookies[cookie])
                    and (
                        self._unusual.isdisjoint(environ)
                        or self._agrees(environ, self._unusual & environ.keys())
                    )
                ):
                    slot.visited = True
                    now = self._steady()
                    until, sent, chunks = slot.hot
                    if now >= until:
                        _, sent, chunks = self._renew(slot, ready, now, stamp)
                    if self._confirm is not None and sent is not None and not self._confirm(slot):
                        sent = None  # others replaced it, or purged it
                elif ready is not None and (ready := self._special(environ, slot, ready)) is not None:
                    sent, chunks = ready.headers, ready.chunks
        except Exception:
            sent = None  # stale, a strange environ, or a clock that was set: the long way knows
        if sent is None:
            return self._serve(environ, start_response)
        next(ready.counter)
        start_response(ready.status, [*sent])
        return [*chunks]  # a list of one: some servers have a quicker way for that, and for no tuple


COMPILED: Final = twin is not None
"""Whether hits are answered by the compiled twin."""

HitPath = PureHitPath
"""What the middleware stands on."""

if twin is not None:

    class CompiledHitPath(_Parts, twin.HitPath):  # type: ignore[misc]
        """The hit path in C."""

    HitPath = CompiledHitPath  # type: ignore[misc]
