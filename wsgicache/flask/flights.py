"""One computation per key: the first asks, the others wait for it, and nobody waits for himself.

A flight is one computation under way in this process. Followers do not share the leader's object, which
is not theirs to change: they wait until it has landed and look again.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from time import monotonic
from typing import Any
from weakref import WeakSet


class Flight:
    """One computation under way.

    Attributes:
        owner: the thread or task that computes.
        void: what it computes has been deleted meanwhile and must not be stored.
    """

    __slots__ = ("landed", "owner", "void")

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.void = False
        self.landed: Future[None] = Future()


class Flights:
    """The flights of one process, by key."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
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

    def land(self, key: str, flight: Flight) -> None:
        """End a flight; its followers go on."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
            self.landings += 1
        flight.landed.set_result(None)

    def void(self, *keys: str) -> None:
        """What is being computed for these keys must not be stored, nor waited for by who comes later."""
        if not self._flights:
            return
        with self._lock:
            for key in keys:
                flight = self._flights.pop(key, None)
                if flight is not None:
                    flight.void = True

    def void_all(self, prefix: str = "") -> None:
        """The same for every key that begins with `prefix`."""
        with self._lock:
            keys = [key for key in self._flights if key.startswith(prefix)]
        self.void(*keys)

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


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


class Deadline:
    """An instant by which to stop waiting."""

    __slots__ = ("_at",)

    def __init__(self, seconds: float) -> None:
        self._at = monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._at - monotonic())
