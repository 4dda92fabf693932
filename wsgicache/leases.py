"""Collapsing across processes: of the leaders of several processes one holds the lease, and asks the app.

The others wait for its answer with growing pauses, or go on when the lease was given back for an answer that
is not storable. A holder that dies costs its lease at most; a holder that is late stores with a token that
a store refuses once a later one has stored.
"""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from .collapse import Flight
from .stores import Store

FIRST_PAUSE: Final = 0.005
LONGEST_PAUSE: Final = 0.05
UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """A lease that this process holds."""

    store: Store
    key: str
    token: int


class Leases:
    """Takes leases for flights and gives them back.

    Args:
        seconds: how long a lease lasts at most.
        failed: told of a store that does not answer; then there is no lease, and everybody asks the app.
    """

    def __init__(self, seconds: float, failed: Callable[[Exception], None]) -> None:
        self._seconds = seconds
        self._failed = failed
        self._held: set[Lease] = set()
        _living.add(self)

    def after_fork(self) -> None:
        """In a forked child: what is held is the parent's to give back."""
        self._held = set()

    def take(self, flight: Flight, store: Store) -> int | None:
        """Take the lease for a flight's key.

        Returns its token; None where another process holds it; 0 where the last answer was not storable; and
        `UNKNOWN` where the store does not answer.
        """
        try:
            token = store.lease(flight.key, self._seconds)
        except Exception as error:
            self._failed(error)
            return UNKNOWN
        if token:
            flight.token = token
            flight.lease = lease = Lease(store, flight.key, token)
            self._held.add(lease)
        return token

    def give_back(self, flight: Flight, unstorable_for: float = 0.0) -> None:
        """Give back what a flight holds, if anything."""
        lease, flight.lease = flight.lease, None
        if isinstance(lease, Lease):
            self._give_back(lease, unstorable_for)

    def give_back_all(self) -> None:
        """The process ends, and with it the refreshes that nobody waits for: others need not wait either."""
        for lease in list(self._held):
            self._give_back(lease, 0.0)

    def _give_back(self, lease: Lease, unstorable_for: float) -> None:
        self._held.discard(lease)
        try:
            lease.store.release(lease.key, lease.token, unstorable_for)
        except Exception as error:
            self._failed(error)


_living: Final[weakref.WeakSet[Leases]] = weakref.WeakSet()


@atexit.register
def _at_exit() -> None:
    for leases in list(_living):
        leases.give_back_all()


def pauses() -> Iterator[float]:
    """How long to wait between two looks, in seconds: short at first, because most pages are quick."""
    pause = FIRST_PAUSE
    while True:
        yield pause
        pause = min(LONGEST_PAUSE, pause * 2)
