"""Collapsing in a process: several requests for one page share one call of the app (RFC 9111 §4).

The first request for a key leads; those that come while it is under way follow. A flight always ends:
with an entry, released (the answer is not storable: everybody goes to the app at once), stale (the app
failed, and a stale page answers all), or failed (one follower leads the next flight). Followers wait with a
deadline, and not for a leader whose client is slow to take what the app has already given.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from enum import Enum
from typing import Final

from .entry import Entry
from .forks import in_child
from .journal import Mark, short
from .outcome import Reason


class State(Enum):
    """How a flight stands."""

    PENDING = "pending"
    LANDED = "landed"
    RELEASED = "released"
    STALE = "stale"
    FAILED = "failed"


class Flight:
    """One call of the app and those who wait for it; every field is guarded by `Collapse`."""

    __slots__ = (
        "born",
        "changed",
        "entry",
        "followers",
        "handed_over_at",
        "key",
        "lease",
        "owner",
        "state",
        "token",
    )

    def __init__(self, key: str, born: Mark, token: int, owner: int) -> None:
        self.key = key
        self.born = born
        self.token = token
        self.owner = owner
        self.state = PENDING
        self.entry: Entry | None = None
        self.followers = 0
        self.handed_over_at: float | None = None
        self.changed: threading.Condition | None = None
        self.lease: object | None = None
        """What the leader holds so that other processes wait for it too."""


class Boarding(Enum):
    """What `board` found."""

    LEAD = "lead"
    FOLLOW = "follow"
    ALONE = "alone"
    NESTED = "nested"
    OVERFLOW = "overflow"


# A member by itself: to read one from its enum costs as much as a call.
PENDING: Final[State] = State.PENDING
LANDED: Final[State] = State.LANDED
LEAD: Final[Boarding] = Boarding.LEAD


class Collapse:
    """The flights under way in this process.

    Args:
        max_followers: requests that may wait for one flight.
        slow_client_grace: seconds that followers wait while the leader's server sends.
        steady: a monotonic clock; followers wait in real time.
    """

    def __init__(
        self,
        max_followers: int,
        slow_client_grace: float,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_followers = max_followers
        self._grace = slow_client_grace
        self._steady = steady
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}
        self._tokens = 0
        """The last one given; later ones are higher, also among caches that share a machine's clock."""
        _instances.add(self)

    def board(
        self, key: str, born: Mark, covered: Callable[[Mark], bool], *, may_lead: bool = True
    ) -> tuple[Boarding, Flight | None]:
        """Lead a flight for `key`, or join the one under way.

        Args:
            born: the mark that this request read.
            covered: whether a purge after a mark covers the key; such a flight is not joined.
            may_lead: False where this request's answer could not be stored anyway.
        """
        owner = threading.get_ident()
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and flight.state is PENDING:
                own = flight.owner == owner
                if own and flight.handed_over_at is None:
                    return Boarding.NESTED, None
                # An own flight that waits for its client was left behind: waiting for it would never end.
                if not own and not (flight.born != born and covered(flight.born)):
                    return self._join(flight)
            if not may_lead:
                return Boarding.ALONE, None
            self._tokens = token = max(self._tokens + 1, int(self._steady() * 1e9))
            flight = self._flights[key] = Flight(key, born, token, owner)
            return LEAD, flight

    def _join(self, flight: Flight) -> tuple[Boarding, Flight | None]:
        if flight.followers >= self._max_followers:
            return Boarding.OVERFLOW, None
        if flight.changed is None:
            flight.changed = threading.Condition(self._lock)
        flight.followers += 1
        return Boarding.FOLLOW, flight

    def token(self) -> int:
        """The place in the order of fills for one that nobody follows."""
        with self._lock:
            self._tokens = token = max(self._tokens + 1, int(self._steady() * 1e9))
            return token

    def wait(self, flight: Flight, timeout: float) -> State:
        """Wait for a flight to end, as a follower.

        Returns PENDING where it did not: after `timeout` seconds, or because the leader's client does
        not take what is there. The flight is then nobody's to join any more.
        """
        deadline = self._steady() + timeout
        with self._lock:
            try:
                self._wait(flight, deadline)
            finally:  # a follower may be killed while it waits
                flight.followers -= 1
            return flight.state

    def _wait(self, flight: Flight, deadline: float) -> None:
        while flight.state is State.PENDING:
            until = deadline
            if flight.handed_over_at is not None:
                until = min(deadline, flight.handed_over_at + self._grace)
            remaining = until - self._steady()
            if remaining <= 0:
                if self._flights.get(flight.key) is flight:
                    del self._flights[flight.key]
                return
            assert flight.changed is not None  # noqa: S101 - made when the follower joined
            flight.changed.wait(remaining)

    def hand_over(self, flight: Flight) -> None:
        """The leader has given its server something to send, and waits to be asked for more."""
        with self._lock:
            flight.handed_over_at = self._steady()
            if flight.changed is not None:
                flight.changed.notify_all()

    def resume(self, flight: Flight) -> None:
        """The leader's server asks for more."""
        flight.handed_over_at = None

    def land(self, flight: Flight, entry: Entry) -> None:
        """The answer is stored: followers take it from here."""
        self.end(flight, LANDED, entry)

    def release(self, flight: Flight) -> None:
        """The answer is not storable: followers go to the app, all at once."""
        self.end(flight, State.RELEASED, None)

    def give_stale(self, flight: Flight) -> None:
        """The app failed and a stale page answered: it may answer followers too."""
        self.end(flight, State.STALE, None)

    def fail(self, flight: Flight) -> None:
        """There is no answer: one of the followers leads the next flight."""
        self.end(flight, State.FAILED, None)

    def end(self, flight: Flight, state: State, entry: Entry | None) -> None:
        """What the four above do; one that has ended stays as it is."""
        with self._lock:
            if flight.state is not PENDING:
                return
            flight.state = state
            flight.entry = entry
            if self._flights.get(flight.key) is flight:
                del self._flights[flight.key]
            if flight.changed is not None:
                flight.changed.notify_all()

    def __len__(self) -> int:
        return len(self._flights)

    def _after_fork(self) -> None:
        """In a forked child no leader lives: nothing is under way, and the lock is free."""
        self._lock = threading.Lock()
        self._flights = {}


_instances: Final[weakref.WeakSet[Collapse]] = weakref.WeakSet()


def _after_fork() -> None:
    for collapse in list(_instances):
        collapse._after_fork()


in_child(_after_fork)


class MissMarkers:
    """Keys whose last answer was not storable, for a while, and why; bounded, and only a hint.

    Args:
        seconds: how long a marker keeps requests from waiting for each other.
        limit: markers kept; when there are more, all are forgotten.
    """

    def __init__(self, seconds: float, limit: int = 10000) -> None:
        self._seconds = seconds
        self._limit = limit
        self.marks: dict[str, tuple[float, Reason]] = {}
        """What is marked, or was. Where there is nothing, a miss need not ask."""

    def set(self, key: str, now: float, reason: Reason) -> None:
        """Mark a key."""
        if len(self.marks) >= self._limit:
            self.marks = {}
        self.marks[short(key)] = (now + self._seconds, reason)

    def unset(self, key: str) -> None:
        """The last answer was storable after all."""
        self.marks.pop(short(key), None)

    def has(self, key: str, now: float) -> bool:
        """Whether a key is marked."""
        mark = self.marks.get(short(key))
        return mark is not None and now < mark[0] <= now + self._seconds

    def why(self, key: str) -> Reason | None:
        """Why the last answer for a key was not stored, as far as is remembered."""
        mark = self.marks.get(short(key))
        return None if mark is None else mark[1]
