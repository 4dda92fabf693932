"""Who asks the app, and who waits: behind those of this process, then behind other processes."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, sleep
from typing import Final

from .collapse import LEAD, Boarding, Flight, State
from .engine import Engine
from .entry import Entry
from .fill import stale_usable
from .found import Found
from .leases import pauses
from .outcome import Reason
from .policy import Admission, judge

_ROUNDS: Final = range(4)
"""How often a request may find that the flight it waited for is of no use to it."""

_DETAILS: Final = {
    Boarding.NESTED: Reason.BYPASS_NESTED,
    Boarding.OVERFLOW: Reason.COLLAPSE_OVERFLOW,
}


class Queue:
    """Where requests for pages that are not there take their turn.

    Args:
        engine: the cache.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine: Final = engine

    def take(
        self, admission: Admission, found: Found
    ) -> tuple[Found, Entry | None, Flight | None, Reason | None]:
        """Wait behind those who ask for the same page, until there is an answer or it is our turn.

        Returns the last look-up, the entry to share if there is one, the flight to lead if there is one,
        and a reason that says more.
        """
        shared, peek, deadline = self.engine.shared, self.engine.peek, 0.0
        for _ in _ROUNDS:
            boarding, flight, detail = self._board(admission, found)
            if flight is None:
                return found, None, None, detail
            if boarding is LEAD and not shared:
                slot = None if peek is None else peek(found.key)
                if slot is None or slot.stored is found.entry or slot.stored is found.past:
                    return found, None, flight, None
                return self._look_again(admission, found, flight)
            deadline = deadline or perf_counter() + self.engine.settings.wait_timeout
            if boarding is LEAD:
                return self._wait_elsewhere(admission, found, flight, deadline)
            state = self.engine.collapse.wait(flight, max(0.0, deadline - perf_counter()))
            if state is State.LANDED and self.may_share(admission, flight.entry):
                return found, flight.entry, None, None
            if state is State.STALE and stale_usable(self.engine, found):
                return found, found.entry, None, Reason.HIT_STALE_IF_ERROR
            if state is State.RELEASED:
                return found, None, None, Reason.MISS_MARKER
            if perf_counter() >= deadline:
                return found, None, None, Reason.COLLAPSE_TIMEOUT
            found = self.engine.look_up(admission)
            if found.reason.is_hit:
                break
            if state is State.LANDED and found.key == flight.key:
                return found, None, None, None  # stored, but fit for nobody else: all go at once
        return found, None, None, None

    def _look_again(
        self, admission: Admission, found: Found, flight: Flight
    ) -> tuple[Found, Entry | None, Flight | None, Reason | None]:
        """Lead, unless the page has come: a whole flight may pass between a look and the turn that follows.

        Returns what `take` returns.
        """
        try:
            newest = self.engine.look_up(admission)
            return self._came(found, newest, flight) or (found, None, flight, None)
        except BaseException:
            self.engine.fail(flight)
            raise

    def _came(
        self, found: Found, newest: Found, flight: Flight
    ) -> tuple[Found, Entry | None, None, None] | None:
        """What `take` returns if the page is there now, for those who wait for our flight too; else None."""
        if newest.reason is Reason.HIT and newest.entry is not None:
            self.engine.land(flight, newest.page or newest.entry)
            return found, newest.entry, None, None
        if newest.reason.is_hit:
            self.engine.fail(flight)
            return newest, None, None, None
        return None

    def _wait_elsewhere(
        self, admission: Admission, found: Found, flight: Flight, deadline: float
    ) -> tuple[Found, Entry | None, Flight | None, Reason | None]:
        """Wait behind the other processes that share the store; those of this one wait for our flight.

        Returns what `take` returns.
        """
        engine = self.engine
        try:
            for pause in pauses():
                token = engine.leases.take(flight, found.follower.store)
                newest = engine.look_up(admission)  # between the last look and the lease it may have come
                if (came := self._came(found, newest, flight)) is not None:
                    return came
                if newest.reason is not Reason.STORE_DOWN:
                    found = newest
                if token == 0:
                    engine.release(flight, marked=False)
                    return found, None, None, Reason.MISS_MARKER
                if token is not None:
                    return found, None, flight, None
                if perf_counter() >= deadline:
                    return found, None, flight, Reason.COLLAPSE_TIMEOUT
                sleep(pause)
        except BaseException:
            engine.fail(flight)
            raise
        raise AssertionError("pauses never end")

    def _board(self, admission: Admission, found: Found) -> tuple[Boarding, Flight | None, Reason | None]:
        """Lead, follow, or go alone, and why."""
        engine, key = self.engine, admission.key
        if admission.personal is not None or found.mark is None:
            return Boarding.ALONE, None, None
        if engine.markers.marks and engine.markers.has(key, found.now):
            return Boarding.ALONE, None, Reason.MISS_MARKER
        boarding, flight = engine.collapse.board(
            found.key,
            found.mark,
            lambda born: engine.covered(key, groups_of(found))(born),
            may_lead=not admission.cookies.lookup_only,
        )
        return boarding, flight, None if flight is not None else _DETAILS.get(boarding)

    def may_share(self, admission: Admission, entry: Entry | None) -> bool:
        """Whether a follower could have had the leader's entry from the store (house rule 13)."""
        if entry is None:
            return False
        return judge(admission, entry, self.engine.verdict(entry), self.engine.clock.wall()) is Reason.HIT


def groups_of(found: Found) -> Sequence[str]:
    """The groups that an answer will probably carry: those of the entry that it is to replace."""
    return () if found.entry is None else found.entry.terms.groups
