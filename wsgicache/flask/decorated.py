"""What `cached` and `memoize` share: ask the cache, compute once, keep the result.

The order of a call: bypass (`unless`), key, look up (`forced_update`, `is_stale`), and on a miss one
flight per key: the leader computes and keeps, the followers wait and look again.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from blinker import Signal

from .calls import Ask, asker, drained
from .envelope import Envelope, sealed
from .flights import Deadline, Flight
from .forms import Raised
from .link import Link, stale_found
from .response import CachedResponse
from .statistics import REPORTING_MASK
from .timeouts import Timeout, normalize_timeout, seconds, shortened

if TYPE_CHECKING:
    from .cache import Cache

_MISS: Final = object()
_POLL: Final = (0.005, 0.01, 0.02, 0.05)
_GROUP: Final = "_wsgicache_group_"

log = logging.getLogger("wsgicache.flask")

Groups = Iterable[str] | str | Callable[..., Iterable[str] | str] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What a decorator was told; see `Cache.cached` and `Cache.memoize`."""

    timeout: Timeout | Callable[..., Timeout] = None
    unless: Ask | None = None
    forced_update: Ask | None = None
    is_stale: Ask | None = None
    response_filter: Ask | None = None
    hash_method: Callable[..., Any] | None = None
    cache_none: bool = False
    source_check: bool | None = None
    stale_while_revalidate: Timeout = 0
    jitter: Timeout = 0
    groups: Groups = None


class Call:
    """One call of a decorated function that may use the cache."""

    __slots__ = ("args", "key", "kwargs", "landings", "stale", "tokens", "version_keys")

    def __init__(self, key: str, version_keys: tuple[str, ...], args: Any, kwargs: Any) -> None:
        self.key = key
        self.version_keys = version_keys
        self.args = args
        self.kwargs = kwargs
        self.landings = 0
        self.tokens: dict[str, Any] = {}
        self.stale: Envelope | None = None


class Decorated:
    """A function and how it is cached. `wrapper` is what takes the function's place."""

    hit: Signal
    miss: Signal

    def __init__(self, cache: Cache, f: Callable[..., Any], terms: Terms) -> None:
        self.cache = cache
        self.f = f
        self.terms = terms
        self.name = f"{f.__module__}.{f.__qualname__}"
        self.is_async = inspect.iscoroutinefunction(f)
        self.counts = cache.statistics.row(self.name)
        self._count_hit, self._count_miss = self.counts.hits.add, self.counts.misses.add
        self._unless = asker(terms.unless)
        self._forced = asker(terms.forced_update)
        self._is_stale = asker(terms.is_stale, 1)
        self._window = seconds(terms.stale_while_revalidate or 0)
        self._jitter = seconds(terms.jitter or 0)
        asks = self._unless or self._forced or self._is_stale
        self.is_plain = not (self._window or terms.groups is not None or asks or self.is_async)
        self.wrapper: Any = self._wrap()
        self.wrapper.uncached = f
        self.wrapper.cache_timeout = terms.timeout

    # --- what the two decorators differ in -----------------------------------------------------------

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call."""
        raise NotImplementedError

    def version_keys(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """The version keys that a result is born under; groups come on top."""
        return ()

    def may_use_cache(self) -> bool:
        """Whether the request at hand may be answered from the cache at all."""
        return True

    def may_keep(self, value: Any) -> bool:
        """Whether a result may be kept."""
        return True

    def speaks_for_others(self) -> bool:
        """Whether a result that was not kept says something of the next one."""
        return True

    def run(self, args: Any, kwargs: Any) -> Any:
        """Call the function. `Raised` stands for an error that is a result."""
        return drained(self.f(*args, **kwargs))

    async def run_async(self, args: Any, kwargs: Any) -> Any:
        """Call a coroutine function; see `run`."""
        return drained(await self.f(*args, **kwargs))

    def delivered(self, value: Any, hit: bool) -> Any:
        """What the caller gets."""
        return value

    def notice(self, signal: Signal, call: Call) -> None:
        """Tell who listens."""
        signal.send(None, cache=self.cache, cache_key=call.key, args=call.args, kwargs=call.kwargs)

    # --- the wrapper ---------------------------------------------------------------------------------

    def _wrap(self) -> Any:
        wrapper: Any
        if self.is_async:

            @functools.wraps(self.f)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                return await self._answer_async(args, kwargs)
        else:

            @functools.wraps(self.f)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                return self._answer(args, kwargs)

        return wrapper

    def _answer(self, args: Any, kwargs: Any) -> Any:
        call = self._call(args, kwargs)
        if call is None:
            return self.f(*args, **kwargs)
        found = self._consult(call)
        if found is not _MISS:
            return self.delivered(found, True)
        return self.delivered(self._compute(call), False)

    async def _answer_async(self, args: Any, kwargs: Any) -> Any:
        call = self._call(args, kwargs)
        if call is None:
            return await self.f(*args, **kwargs)
        found = self._consult(call)
        if found is not _MISS:
            return self.delivered(found, True)
        return self.delivered(await self._compute_async(call), False)

    def _call(self, args: Any, kwargs: Any) -> Call | None:
        """The call, or None if it bypasses the cache."""
        if self._unless is not None and self._unless(self.f, *args, **kwargs):
            return None
        if not self.may_use_cache():
            return None
        version_keys = self.version_keys(args, kwargs)
        if self.terms.groups is not None:
            version_keys = (*version_keys, *group_keys(self.terms.groups, args, kwargs))
        return Call(self.key_of(args, kwargs), version_keys, args, kwargs)

    # --- look up -------------------------------------------------------------------------------------

    def _consult(self, call: Call) -> Any:
        """What the cache has for a call, or _MISS. Counts and signals."""
        link = self.cache.link
        call.landings = link.flights.landings
        forced = self._forced is not None and self._forced(*call.args, **call.kwargs)
        found = _MISS if forced and not call.version_keys else self._look_up(call)
        if forced:
            found, call.stale = _MISS, None
        if found is not _MISS and self._is_stale is not None:
            given = found.error if isinstance(found, Raised) else found
            if self._is_stale(given, *call.args, **call.kwargs):
                found, call.stale = _MISS, None
        if found is _MISS and call.stale is not None:
            found = call.stale.value
            self.cache.refresher.ask(call.key, functools.partial(self._refresh, call), self.is_async)
        self._account(call, found is not _MISS)
        return found

    def _account(self, call: Call, hit: bool) -> None:
        if hit:
            self.note_hit()
        else:
            self._count_miss()
            self.cache.statistics.report_now_and_then()
        if self.cache.enable_signals:
            self.notice(self.hit if hit else self.miss, call)

    def note_hit(self) -> None:
        """Count a hit; of many, one sees to the report, which else waits for a miss."""
        if self._count_hit() & REPORTING_MASK == 0:
            self.cache.statistics.report_now_and_then()

    def _look_up(self, call: Call) -> Any:
        """What the cache has for a call, or _MISS."""
        if not self._window:
            return self._found(call)
        box: list[Envelope] = []
        reset = stale_found.set(box)
        try:
            return self._found(call)
        finally:
            stale_found.reset(reset)
            call.stale = box[0] if box else None

    def _found(self, call: Call) -> Any:
        try:
            if call.version_keys:
                value, *tokens = self.cache.get_many(call.key, *call.version_keys)
                call.tokens = dict(zip(call.version_keys, tokens, strict=True))
            else:
                value = self.cache.get(call.key)
            if value is None and not (self.terms.cache_none and self.cache.has(call.key)):
                return _MISS
            return value
        except Exception as error:
            self._backend_failed(error)
            return _MISS

    def _backend_failed(self, error: Exception) -> None:
        link = self.cache.link
        if link.config["CACHE_ON_ERROR"] == "raise":
            raise error
        log.warning("Exception possibly due to cache backend.", exc_info=error)

    # --- compute -------------------------------------------------------------------------------------

    def _compute(self, call: Call) -> Any:
        """Compute, or wait for who computes the same."""
        link = self.cache.link
        flights = link.flights
        if not link.collapses or flights.is_unkept(call.key):
            return self._produce_alone(call)
        flight, leads = flights.board(call.key)
        if not leads:
            if not flights.wait(flight, link.wait_timeout):
                return self._produce_alone(call)
            found = self._look_up(call)
            return self._produce_alone(call) if found is _MISS else found
        steps = Leading(self, call, link, flight)
        try:
            for pause in steps:
                time.sleep(pause)
            found = steps.value
            return self._produce(call, flight) if found is _MISS else found
        finally:
            steps.finish()
            flights.land(call.key, flight)

    async def _compute_async(self, call: Call) -> Any:
        """As `_compute`, without holding the event loop up."""
        link = self.cache.link
        flights = link.flights
        if not link.collapses or flights.is_unkept(call.key):
            return await self._produce_alone_async(call)
        flight, leads = flights.board(call.key)
        if not leads:
            if not await flights.wait_async(flight, link.wait_timeout):
                return await self._produce_alone_async(call)
            found = self._look_up(call)
            return await self._produce_alone_async(call) if found is _MISS else found
        steps = Leading(self, call, link, flight)
        try:
            for pause in steps:
                await asyncio.sleep(pause)
            found = steps.value
            return await self._produce_async(call, flight) if found is _MISS else found
        finally:
            steps.finish()
            flights.land(call.key, flight)

    def _produce_alone(self, call: Call) -> Any:
        """Compute beside others, whom nobody waits for."""
        flights = self.cache.link.flights
        flight = flights.go_alone(call.key)
        try:
            return self._produce(call, flight)
        finally:
            flights.land(call.key, flight)

    async def _produce_alone_async(self, call: Call) -> Any:
        """See `_produce_alone`."""
        flights = self.cache.link.flights
        flight = flights.go_alone(call.key)
        try:
            return await self._produce_async(call, flight)
        finally:
            flights.land(call.key, flight)

    def _produce(self, call: Call, flight: Flight) -> Any:
        births, name = self._births(call), self.cache.link.prefixes.name(call.key)
        value = self.run(call.args, call.kwargs)
        self._keep(call, value, births, flight, name)
        return value

    async def _produce_async(self, call: Call, flight: Flight) -> Any:
        births, name = self._births(call), self.cache.link.prefixes.name(call.key)
        value = await self.run_async(call.args, call.kwargs)
        self._keep(call, value, births, flight, name)
        return value

    def _refresh(self, call: Call) -> Any:
        """Compute anew behind the caller; a coroutine for a coroutine function."""
        call.stale = None
        return self._compute_async(call) if self.is_async else self._compute(call)

    # --- keep ----------------------------------------------------------------------------------------

    def _births(self, call: Call) -> dict[str, str] | None:
        """The versions that the result will be born under; None where they cannot be had."""
        if not call.version_keys:
            return {}
        link = self.cache.link
        tokens = {key: call.tokens.get(key) for key in call.version_keys}
        if all(isinstance(token, str) for token in tokens.values()):
            return tokens  # type: ignore[return-value]
        given = self.wrapper.cache_timeout
        timeout = None if callable(given) else normalize_timeout(given)
        try:
            return link.guarded(lambda: link.born(tokens, timeout), None)
        except Exception as error:
            self._backend_failed(error)
            return None

    def _keep(self, call: Call, value: Any, births: dict[str, str] | None, flight: Flight, name: str) -> None:
        """Store a result, unless it is not to be kept or was deleted while it was computed.

        Args:
            name: the text under which the key was kept when the computation began.
        """
        link = self.cache.link
        if not self._wants(value):
            if self.speaks_for_others():
                link.flights.note_unkept(call.key)
            return
        if births is None or flight.void or link.was_deleted(call.key, name, flight.lease, flight.leased):
            return
        try:
            self._store(call, value, births)
            link.flights.note_kept(call.key)
        except Exception as error:
            self._backend_failed(error)

    def _wants(self, value: Any) -> bool:
        """Whether a result is to be kept."""
        if value is None and not self.terms.cache_none:
            return False
        chosen = self.terms.response_filter
        if chosen is not None:
            given = value.error.get_response() if isinstance(value, Raised) else value
            if not chosen(given):
                return False
        return self.may_keep(value)

    def _store(self, call: Call, value: Any, births: Mapping[str, str]) -> None:
        timeout = self._timeout_of(value)
        if timeout is not None and self._jitter:
            timeout = shortened(timeout, self._jitter)
        link = self.cache.link
        kept_for, stored = timeout, value
        if births or self._window:
            soft = None
            if self._window:
                timeout = link.default_timeout if timeout is None else timeout
                kept_for = timeout + self._window if timeout > 0 else timeout
                soft = link.now() + timeout if timeout > 0 else None
            stored = sealed(value, soft, births.items())
        self.cache.set(call.key, stored, timeout=kept_for)
        if births:
            link.guarded(lambda: link.renew(births, kept_for), None)

    def _timeout_of(self, value: Any) -> int | None:
        """The timeout of a result: its own, or the decorator's, or None for the backend's default."""
        if isinstance(value, CachedResponse) and value.timeout:
            return normalize_timeout(value.timeout)
        given = self.wrapper.cache_timeout
        if callable(given):
            given = given(value.error if isinstance(value, Raised) else value)
        timeout = normalize_timeout(given)
        if timeout is None and self._jitter:
            return self.cache.link.default_timeout
        return timeout


class Leading:
    """What the leader of a flight does first: look again if somebody landed meanwhile, and take the lease.

    Iterating gives the pauses to make; afterwards `value` is what was found, or _MISS: compute.
    """

    def __init__(self, decorated: Decorated, call: Call, link: Link, flight: Flight) -> None:
        self._decorated = decorated
        self._call = call
        self._link = link
        self._flight = flight
        self.value: Any = _MISS

    def __iter__(self) -> Generator[float, None, None]:
        call, link = self._call, self._link
        if link.flights.landings != call.landings and not self._forced:
            self.value = self._decorated._look_up(call)
            if self.value is not _MISS:
                return
        deadline = Deadline(link.wait_timeout)
        pauses = iter(_POLL)
        while (token := link.lease(call.key)) is None and deadline.left:
            yield min(next(pauses, _POLL[-1]), deadline.left)
            self.value = _MISS if self._forced else self._decorated._look_up(call)
            if self.value is not _MISS:
                return
        self._flight.lease, self._flight.leased = token or "", monotonic()
        if token and not self._forced:  # whoever had it until now may have stored what we missed
            self.value = self._decorated._look_up(call)

    @property
    def _forced(self) -> bool:
        terms = self._decorated.terms
        return terms.forced_update is not None or terms.is_stale is not None

    def finish(self) -> None:
        """Give the lease back."""
        if self._flight.lease:
            self._link.release(self._call.key, self._flight.lease)


def group_keys(groups: Groups, args: Any = (), kwargs: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The version keys of groups, given by name, as names, or by a callable of the arguments."""
    if callable(groups):
        groups = groups(*args, **(kwargs or {}))
    names = [groups] if isinstance(groups, str) else (groups or ())
    return tuple(f"{_GROUP}{name}" for name in names)
