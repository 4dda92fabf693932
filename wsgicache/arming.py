"""Arming: what the hit path may answer by itself, and up to when.

A slot is armed when a request of the usual kind was judged a hit, for the stamp that was in force before; see
`Middleware.__call__` for what is done with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .clock import Clock
from .cookiepass import cookie_pass
from .early import first_try, lead, next_try
from .entry import Entry, Stored, Variants
from .follow import Follower, Look
from .found import Found
from .observe import Observer
from .policy import Admission
from .ready import COLD, Both, Readies, Ready, ReadyVariants, Trust


class Arming:
    """Arms the slots of one process.

    Args:
        peek: what this process holds of a key; None where it holds nothing.
        clock: the engine's.
        observer: counts hits.
        trusts: up to when the copies of each part of the store may be served.
        uniform: random numbers from 0 to below 1.
    """

    def __init__(
        self,
        peek: Look | None,
        clock: Clock,
        observer: Observer,
        trusts: Mapping[Follower, Trust | Both],
        uniform: Callable[[], float],
    ) -> None:
        self._peek = peek
        self._clock = clock
        self._observer = observer
        self._trusts = trusts
        self._uniform = uniform
        self._readies = Readies()

    def is_early(self, admission: Admission, found: Found, entry: Entry) -> bool:
        """Whether a fresh entry is to be refreshed now: the instant drawn for its slot has come.

        Where this process keeps no slot to remember it in, each request draws.
        """
        now, end = self._clock.steady(), entry.fresh_until + self._clock.shift
        slot = self._peek(found.place) if self._peek is not None else None
        if slot is None or slot.stored is not entry:
            early = lead(entry.terms.cost, admission.plan.early_refresh, self._uniform(), looks=1)
            return now >= end - min(early, entry.terms.lifetime / 2)
        armed = slot.ready
        if not isinstance(armed, Ready) or armed.shift != self._clock.shift:
            return False
        return armed.until <= now and armed.until < min(end, _until_of(slot))

    def _ends_early(self, slot: Any, admission: Admission, found: Found, entry: Entry) -> float:
        """Up to which instant of the steady clock a slot answers, before its page is refreshed early.

        It is drawn once: a slot that is armed anew because the journal moved keeps what it had.
        """
        terms, beta = entry.terms, admission.plan.early_refresh
        now, end = self._clock.steady(), entry.fresh_until + self._clock.shift
        if found.early:
            return next_try(now, end, terms.cost)
        armed = slot.ready
        if isinstance(armed, Ready) and (armed.shift, armed.rules) == (self._clock.shift, admission.rules):
            return armed.until
        return first_try(now, end, terms.cost, beta, self._uniform())

    def arm(self, key: str, stored: Stored | None, admission: Admission, found: Found) -> None:
        """Let the hit path answer what was just judged, unless it may already.

        Args:
            key: where it is stored.
            stored: the entry, or the record of varying fields that led to it.
        """
        slot = self._peek(key) if self._peek is not None else None
        if slot is None or slot.stored is not stored or stored is None:
            return
        if isinstance(stored, Entry) and type(stored.body) is not bytes:
            return  # the hit path opens no files
        shift, stamp, rules = self._clock.shift, admission.stamp, admission.rules
        found.follower.judged_at(slot, found.mark)
        is_armed = slot.ready is None or getattr(slot.ready, "shift", shift) == shift
        if slot.stamp is stamp and is_armed and not (found.early and stored is found.entry):
            return
        if isinstance(stored, Variants):
            slot.ready = ReadyVariants(stored.key, admission.plan.selectors_of(stored.fields), rules)
        else:
            passes = cookie_pass(admission.plan.cookies, stored.terms)
            until = _until_of(slot)
            if stored.terms.cost and admission.plan.early_refresh:
                until = min(until, self._ends_early(slot, admission, found, stored))
            counter = self._observer.counter_of(stored.key, admission.plan.label)
            slot.hot = COLD
            trust = self._trusts[found.follower]
            slot.ready = self._readies.of(stored.terms, passes, shift, rules, counter, trust, until)
        slot.stamp = stamp


def _until_of(slot: Any) -> float:
    """The instant at which what a slot holds is too old, whatever its lifetime: a near tier's copies are."""
    until: float = getattr(slot, "until", float("inf"))
    return until
