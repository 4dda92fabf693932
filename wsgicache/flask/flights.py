"""One computation per key: the first asks, the others wait for it, and nobody waits for himself.

A flight is one computation under way in this process. Followers do not share the leader's object, which
is not theirs to change: they wait until it has landed and look again.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import monotonic
from typing import Any, Final
from weakref import WeakSet

from ..forks import in_child

_UNKEPT_SECONDS: Final = 5.0
_MAX_UNKEPT: Final = 1024


class Flight:
    """One computation under way.

    Attributes:
        owner: the thread or task that computes.
        void: what it computes has been deleted meanwhile and must not be stored.
        lease: token of the lease under which this worker computes; "" where there is none.
        leased: monotonic instant at which it was taken.
    """

    __slots__ = ("landed", "lease", "leased", "owner", "void")

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.void = False
        self.lease = ""
        self.leased = 0.0
        self.landed: Future[None] = Future()


class Flights:
    """The flights of one process, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._alone: dict[str, list[Flight]] = {}
        self._unkept: dict[str, float] = {}
        self._waiting: dict[Any, Flight] = {}
        self.landings = 0
        """Counts up with each landing: unchanged, nothing can have been stored since."""
        _all.add(self)

    def board(self, key: str) -> tuple[Flight, bool]:
        """The flight for a key, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight(me())
            return flight, True

    def go_alone(self, key: str) -> Flight:
        """A flight beside others, which nobody waits for."""
        flight = Flight(me())
        with self._lock:
            self._alone.setdefault(key, []).append(flight)
        return flight

    def land(self, key: str, flight: Flight) -> None:
        """End a flight; its followers go on."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            elif flight in (alone := self._alone.get(key, ())):
                alone.remove(flight)  # type: ignore[union-attr]
                if not alone:
                    del self._alone[key]
            self.landings += 1
        flight.landed.set_result(None)

    def void(self, *keys: str) -> None:
        """What is being computed for these keys must not be stored, nor waited for by who comes later."""
        if not self._flights and not self._alone:
            return
        with self._lock:
            for key in keys:
                flight = self._flights.pop(key, None)
                if flight is not None:
                    flight.void = True
                for alone in self._alone.get(key, ()):
                    alone.void = True

    def void_all(self, prefix: str = "") -> None:
        """The same for every key that begins with `prefix`."""
        with self._lock:
            keys = [key for key in (*self._flights, *self._alone) if key.startswith(prefix)]
        self.void(*keys)

    # --- answers that were not kept -------------------------------------------------------------------

    def note_unkept(self, key: str) -> None:
        """The last answer for a key was not to be kept: nobody need wait for the next one."""
        now = monotonic()
        with self._lock:
            if len(self._unkept) >= _MAX_UNKEPT:
                self._unkept = {key: until for key, until in self._unkept.items() if until > now}
            if len(self._unkept) < _MAX_UNKEPT:
                self._unkept[key] = now + _UNKEPT_SECONDS

    def note_kept(self, key: str) -> None:
        """An answer was kept: waiting is worth it again."""
        if self._unkept:
            with self._lock:
                self._unkept.pop(key, None)

    def is_unkept(self, key: str) -> bool:
        """Whether the last answer for a key, a moment ago, was not to be kept."""
        until = self._unkept.get(key)
        return until is not None and monotonic() < until

    # --- waiting --------------------------------------------------------------------------------------

    def wait(self, flight: Flight, timeout: float) -> bool:
        """Wait for a flight; False if it has not landed in time, or would wait for the caller."""
        waiter = me()
        if not self._may_wait(waiter, flight):
            return False
        try:
            flight.landed.result(timeout)
            return True
        except FutureTimeout:
            return False
        finally:
            with self._lock:
                self._waiting.pop(waiter, None)

    async def wait_async(self, flight: Flight, timeout: float) -> bool:
        """As `wait`, without holding the event loop up."""
        waiter = me()
        if not self._may_wait(waiter, flight):
            return False
        landed = asyncio.wrap_future(flight.landed)
        try:
            await asyncio.wait_for(asyncio.shield(landed), timeout)
            return True
        except TimeoutError:
            return False
        finally:
            with self._lock:
                self._waiting.pop(waiter, None)

    def _may_wait(self, waiter: Any, flight: Flight) -> bool:
        """Whether waiting makes no circle; if so, the wait is noted."""
        with self._lock:
            ahead: Flight | None = flight
            while ahead is not None:
                if ahead.owner == waiter:
                    return False
                ahead = self._waiting.get(ahead.owner)
            self._waiting[waiter] = flight
            return True

    def forget(self) -> None:
        """In a forked child: the flights of the parent's threads never land here."""
        self._lock = threading.Lock()
        self._flights.clear()
        self._alone.clear()
        self._waiting.clear()


_all: WeakSet[Flights] = WeakSet()


def me() -> Any:
    """Who is computing: the running task, or else the thread."""
    try:
        task = asyncio.current_task()
    except RuntimeError:
        task = None
    return threading.get_ident() if task is None else task


def _forget_all() -> None:
    for flights in list(_all):
        flights.forget()


in_child(_forget_all)


class Deadline:
    """An instant by which to stop waiting."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._at - monotonic())
