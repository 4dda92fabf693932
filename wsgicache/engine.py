"""The engine: looks up, judges, commits, invalidates. It knows stores and policy, nothing of WSGI.

Every fault of a store ends here as a miss with a reason; a fault never reaches the visitor.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .arming import Arming
from .background import Refresher, dice
from .clock import Clock
from .collapse import LANDED, Collapse, Flight, MissMarkers
from .entry import Entry, Stored, Variants, with_etag
from .facts import Facts
from .follow import Follower, Look, append_all, shares
from .forks import in_child
from .forms import Forms
from .found import Found, page_or_form, place
from .head import Head
from .invalidation import invalidations
from .journal import Kind, Mark, Purge, Verdict
from .key import CODING_FIELD, places, search_key, target_of
from .leases import Leases
from .observe import ByName, Observer
from .opening import store_from
from .options import Settings
from .outcome import Reason
from .owed import Owed
from .plan import Plan, plans_for
from .policy import Admission, admit, judge
from .ready import ALWAYS, Both, Trust
from .records import Records
from .routes import OTHER, route_of
from .rules import RuleSet
from .search import search_rules
from .sharing import EVERY, SITE, SharedCounts, describe
from .stores import Store, StoreError
from .stores.sieve import Slot
from .stores.spool import Spool
from .switches import Switches

# A member by itself: to read one from its enum costs as much as a call, and a miss passes by many.
_URI_MISS: Final[Reason] = Reason.URI_MISS
_VARY_MISS: Final[Reason] = Reason.VARY_MISS
_STORED: Final[Reason] = Reason.STORED
_VALID: Final[Verdict] = Verdict.VALID
_HARD: Final[Verdict] = Verdict.HARD


RECENT: Final = 200
"""Decisions that are kept for the dashboard."""


class Engine:
    """One cache: its store, rules, clock, counters and what is under way.

    Args:
        settings: the options, typed.
        rules: the rules in order.

    Raises:
        OptionError: the store URL or object is no store.
    """

    __slots__ = ("__dict__", "__weakref__", "stamp")  # the last is read for every hit: see `_compiled.c`

    def __init__(self, settings: Settings, rules: RuleSet) -> None:
        self.settings: Final = settings
        self.rules: Final = rules
        self.plans: Final[tuple[Plan, ...]] = plans_for(settings, rules)
        self.observer: Final = Observer(settings.log)
        self.store: Final[Store] = store_from(settings).namespaced(settings.namespace)
        self.switches: Final = Switches(rules)
        parts: Sequence[Store] = getattr(self.store, "parts", (self.store,))
        self.followers: Final = tuple([Follower(part, self._meta_changed, self._stamp) for part in parts])
        self._part_of: Final[Callable[[str], int] | None] = getattr(self.store, "part_of", None)
        self.shared: Final = self.followers[0].shared
        """Whether other processes see the same entries."""
        self.spool: Final[Spool | None] = getattr(self.store, "spool", None)
        """Where bodies go that are too large for memory."""
        self.peek: Final[Look | None] = self._by_part([follower.peek for follower in self.followers])
        """What this process holds of a key."""
        self.confirm: Final[Callable[[Any], bool] | None] = self._confirm_by_part()
        """Whether the store still holds what an armed slot does; None: there is no need to ask."""
        self.clock: Final = Clock(settings.clock, self._stepped_back)
        self.collapse: Final = Collapse(settings.max_followers, settings.slow_client_grace)
        self.leases: Final = Leases(settings.lease, self._store_failed)
        self.markers: Final = MissMarkers(settings.miss_marker)
        self.refresher: Final = Refresher(
            settings.background_threads, settings.background_queue, self.clock.wall
        )
        self.uniform: Callable[[], float] = dice.random
        """Random numbers from 0 to below 1, for lifetimes and early refreshes; replaced by tests."""
        self.consumed: Final = frozenset(settings.consume_fields)
        self.rules_known_by = object()
        """Replaced whenever a rule is switched."""
        self.stamp = object()
        """Replaced whenever the journal moves or a rule is switched: what an armed slot must carry."""
        self.owed: Final = Owed()
        self._listens_at = float("-inf")
        """Instant of the steady clock at which a bypassed request looks for switches again."""
        self.records: Final = Records(settings.max_variants, self.observer.variants_dropped)
        self.forms: Final = Forms(self.follower_of, self.records.note, self._store_failed)
        rules.watch(self._switched)
        self.counts: SharedCounts | None = None
        first = self.followers[0].store
        if settings.dashboard:
            self.observer.by_name = ByName(route_of, OTHER, by_rule=True)
            self.observer.recent = deque(maxlen=RECENT)
        if self.shared or settings.dashboard:  # what one process holds is kept in the same way
            self.counts = SharedCounts(self.observer, first, self._store_failed)
        self._told = Trust(float("-inf") if self.counts is not None else float("inf"))
        """When the counts are to be told again. Up to then the hit path may answer by itself: a page that is
        only hit must not keep its hits to itself."""
        trusts: dict[Follower, Trust | Both] = {
            follower: follower.trust if self.counts is None else Both(follower.trust, self._told)
            for follower in self.followers
        }
        self._arming: Final = Arming(self.peek, self.clock, self.observer, trusts, lambda: self.uniform())
        if self.shared:
            self.switches.publish_to(first, self.append)
        for part in parts:
            watch = getattr(part, "watch", None)
            if watch is not None:
                watch(self._moved)
        _engines.add(self)

    def _by_part(self, looks: Sequence[Look | None]) -> Look | None:
        """One look-up for all parts of the store."""
        first, part_of = looks[0], self._part_of
        if part_of is None or first is None:
            return first
        alike = [look for look in looks if look is not None]
        return lambda key: alike[part_of(key)](key)

    def _confirm_by_part(self) -> Callable[[Any], bool] | None:
        confirms = [follower.confirm for follower in self.followers if follower.confirm is not None]
        part_of = self._part_of
        if part_of is None or not confirms:
            return confirms[0] if confirms else None
        return lambda slot: confirms[part_of(slot.key)](slot)

    def follower_of(self, key: str) -> Follower:
        """The part of the store that a key belongs to."""
        return self.followers[0 if self._part_of is None else self._part_of(key)]

    def _after_fork(self) -> None:
        """In a forked child: whoever held a lock does not exist."""
        self.records.after_fork()
        self.owed.after_fork()
        self.observer.after_fork()  # before its counts are asked for
        if self.counts is not None:
            self.counts.after_fork()
        self.switches.after_fork()
        self.leases.after_fork()
        for follower in self.followers:
            follower.after_fork()

    def _stamp(self) -> object:
        return self.stamp

    def _moved(self) -> None:
        self.stamp = object()

    def _switched(self) -> None:
        self.rules_known_by = object()
        self.stamp = object()

    def _meta_changed(self, names: frozenset[str] | None) -> None:
        """Something beside the journal changed: the switch of a rule. None: this process is new to it."""
        if not self.shared:
            return
        store = self.followers[0].store
        if names is None:
            site = describe(self.plans, self.rules, no_vary_search=self.settings.no_vary_search)
            if store.get_meta(SITE) != site:
                store.set_meta(SITE, site)
        self.switches.follow(store, names)

    def _stepped_back(self) -> None:
        """The wall clock went back: what was stored before looks younger than it is (TIM-01)."""
        if self.shared:  # others may have stored it, and this process cannot tell what
            self.observer.warn_once("clock", "the wall clock went back; what is stored counts as stale")
            self._purge_or_owe([Purge(Kind.ALL, "", soft=True)])
        elif self.peek is not None:
            self.observer.warn_once("clock", "the wall clock went back; the memory store starts again")
            self.store.clear()

    # --- look up -----------------------------------------------------------------------------------

    def admit(self, facts: Facts) -> Admission:
        """Whether and how a request may use the cache."""
        stamp = self.stamp  # before the rules are asked: a switch in between must leave nothing armed
        rules_known_by = self.rules_known_by
        admission = admit(facts, self.rules, self.plans)
        if admission.reason is not None and self.shared and self._hears_of_a_switch():
            return self.admit(facts)
        admission.stamp, admission.rules = stamp, rules_known_by
        return admission

    def _hears_of_a_switch(self) -> bool:
        """Whether a rule was switched elsewhere: looked for now and then by requests that bypass the store.

        Others hear of it when they use the store. Where none does, because a rule keeps them all from it, or
        one that is off would let them, nobody would ever hear that it was switched.
        """
        now = self.clock.steady()
        if now < self._listens_at:
            return False
        self._listens_at = now + _LISTEN
        self._tell_counts(self.clock.wall())
        known_by = self.rules_known_by
        try:
            self.followers[0].follow_now("")
        except Exception as error:
            self._store_failed(error)
        return known_by is not self.rules_known_by

    def _tell_counts(self, now: float) -> None:
        """Add what was counted here to what all have counted, if that is due."""
        if self.counts is not None and (steady := self.clock.steady()) >= self._told.until:
            self._told.until = steady + EVERY
            self.counts.add(now)

    def look_up(self, admission: Admission, *, arm: bool = True) -> Found:
        """Find what is stored for a request and judge it.

        Args:
            arm: let the hit path answer such requests from now on; explain does not, and changes nothing.
        """
        now = self.clock.now()
        follower = self.followers[0] if self._part_of is None else self.follower_of(admission.key)
        found = Found(admission.key, now, follower)
        try:
            if self.owed.purges:  # before anything is read from the store
                self.owed.pay(self._append_if_up)
            stored = self._find(admission, found)
            if self.counts is not None and arm:
                self._tell_counts(now)
        except Exception as error:
            if arm:
                self._store_failed(error)
            found.reason = found.miss = Reason.STORE_DOWN
            return found
        if stored is None or stored.key != admission.key or _is_gone(stored, now):
            found.miss, found.past = _URI_MISS if found.variants is None else Reason.VARY_MISS, stored
            found.reason = admission.personal or found.miss
            return found
        found.entry = entry = self._sealed(found.place, stored) if arm else with_etag(stored)
        found.verdict = found.follower.verdict(entry)
        found.reason = found.miss = judge(admission, entry, found.verdict, now)
        if found.miss is _VARY_MISS and admission.refuses_plain:  # or anybody could have it made anew
            admission.unstorable = Reason.NOT_STORED_REQUEST
        if admission.personal is not None and found.miss in _NOTHING_THERE:
            found.reason = admission.personal
        if found.form is not None and not found.reason.is_hit:
            found.entry, found.form = found.page, None  # the app is asked about its page, not about a form
        if arm and found.reason is Reason.HIT and admission.facts.method == "GET":
            if entry.terms.cost and admission.plan.early_refresh:
                found.early = self._arming.is_early(admission, found, entry)
            self._arm(admission, found)
        return found

    def _find(self, admission: Admission, found: Found) -> Entry | None:
        """Read the entry, through the record of varying fields where there is one."""
        if self.settings.no_vary_search and admission.facts.query:
            self._apply_search(admission, found)
        guess = self._guess(admission, found) if self.shared else ()
        looked_up = self._get([found.key, *guess], found)
        first = looked_up[0]
        if not isinstance(first, Variants):
            return first
        found.variants = first
        keys = places(admission.key, first.fields, admission.value_of)
        if not keys:
            return None
        found.key = keys[0]
        variants = looked_up[1:] if keys == guess else self._get(keys, found)
        if len(keys) > 1:
            return page_or_form(found, keys[1], *variants)
        return variants[0] if isinstance(variants[0], Entry) else None

    def _guess(self, admission: Admission, found: Found) -> tuple[str, ...]:
        """The variant that is probably asked for, so that one round trip brings the record and it."""
        slot = self.peek(found.key) if self.peek is not None else None
        if slot is None or not isinstance(slot.stored, Variants):
            return ()
        return places(found.key, slot.stored.fields, admission.value_of)

    def _apply_search(self, admission: Admission, found: Found) -> None:
        """Bring the query in the key to the form that No-Vary-Search of this path gives it."""
        (record,) = self._get([search_key(admission.key)], found)
        rules = search_rules(record.fields[0]) if isinstance(record, Variants) else None
        found.key = admission.rekey(rules)

    def note_search(self, admission: Admission, value: str | None, keep_until: float) -> None:
        """A response of a path says, or no longer says, which parameters do not matter there."""
        key = search_key(admission.key)
        rules = None if value is None else search_rules(value)
        admission.rekey(rules)
        store = self.follower_of(key).store
        (known,), _ = store.get([key])
        if rules is None:
            if known is not None:
                store.delete(key)
        elif not isinstance(known, Variants) or known.fields != (value,) or known.keep_until < keep_until:
            store.set(key, Variants(key, (str(value),), (), keep_until), keep_until)

    def _get(self, keys: Sequence[str], found: Found) -> list[Stored | None]:
        stored, mark = found.follower.get(keys)
        if found.mark is None:
            found.mark = mark
        return stored

    def _sealed(self, key: str, entry: Entry) -> Entry:
        """An entry with its ETag. What one-hit wonders never need is made at the first hit."""
        slot = self.peek(key) if self.peek is not None and not self.shared else None
        if slot is None or slot.stored is not entry:
            return with_etag(entry)
        slot.stored = entry = with_etag(entry)
        return entry

    def _arm(self, admission: Admission, found: Found) -> None:
        """Let the hit path answer from now on, until the stamp is replaced."""
        if self.peek is None or self.owed or admission.rules is not self.rules_known_by:
            return  # the last: this very look-up was told that a rule was switched
        self._arming.arm(found.place, found.entry, admission, found)
        if found.variants is not None:
            self._arming.arm(admission.key, found.variants, admission, found)

    def rearm(self, slot: Slot, stamp: object) -> bool:
        """Whether an armed slot is still valid although the journal moved; then it is armed anew.

        Args:
            stamp: the engine's stamp, read before this was asked.
        """
        armed = slot.ready
        if armed is None or armed.rules is not self.rules_known_by or self.owed:
            return False
        follower = self.follower_of(slot.key)
        follower.follow_now(slot.key)
        if armed.rules is not self.rules_known_by:  # the journal told that one was switched
            return False
        stored = slot.stored
        if isinstance(stored, Entry) and follower.verdict(stored) is not Verdict.VALID:
            return False
        slot.stamp = stamp
        return True

    def verdict(self, entry: Entry) -> Verdict:
        """What the journal, as this process knows it, says of an entry."""
        return self.follower_of(entry.key).verdict(entry)

    def verdict_now(self, entry: Entry) -> Verdict:
        """As `verdict`, at a newly read mark; HARD where the store does not tell."""
        follower = self.follower_of(entry.key)
        try:
            return follower.verdict_now(entry)
        except Exception as error:
            self._store_failed(error)
            return Verdict.HARD

    def covered(self, key: str, groups: Sequence[str] = ()) -> Callable[[Mark], bool]:
        """A question: has a key been purged since a mark?"""
        follower = self.follower_of(key)
        return lambda born: follower.covers(born, key, groups)

    # --- who waits ---------------------------------------------------------------------------------

    def token_for(self, flight: Flight | None) -> int:
        """The place of a fill in the order of fills. Among processes only a lease gives one."""
        if self.shared:
            return 0 if flight is None or flight.lease is None else flight.token
        return self.collapse.token() if flight is None else flight.token

    def land(self, flight: Flight, entry: Entry) -> None:
        """The answer is stored: those who wait take it from here, other processes from the store."""
        self.collapse.end(flight, LANDED, entry)
        if flight.lease is not None:
            self.leases.give_back(flight)

    def release(self, flight: Flight, *, marked: bool) -> None:
        """The answer is not storable: those who wait go to the app, all at once.

        Args:
            marked: that holds for the page, not for this request only, so for other processes too.
        """
        self.collapse.release(flight)
        self.leases.give_back(flight, self.settings.miss_marker if marked else 0.0)

    def give_stale(self, flight: Flight) -> None:
        """The app failed and a stale page answered: it may answer those who wait too."""
        self.collapse.give_stale(flight)
        self.leases.give_back(flight)

    def fail(self, flight: Flight) -> None:
        """There is no answer: one of those who wait asks the app itself."""
        self.collapse.fail(flight)
        self.leases.give_back(flight)

    # --- commit ------------------------------------------------------------------------------------

    def keep(self, entry: Entry, found: Found, token: int) -> tuple[Reason, Entry]:
        """Store an entry. Returns STORED or why not, and the entry as it was stored."""
        follower = found.follower
        try:
            if self.peek is None or self.shared:
                entry = with_etag(entry)
            key = place(entry) if entry.terms.varying else entry.key
            if follower.verdict_now(entry) is _HARD:  # purged while the app was working
                return Reason.NOT_STORED_RACED, entry
            if not follower.store.set(key, entry, entry.keep_until, token):
                return self._why_refused(entry, key, follower), entry
            if entry.terms.varying:
                known = self.records.note(entry, key, follower.store)
                if CODING_FIELD in entry.terms.varying:
                    self.forms.follow(key, entry, _lender(found), known, follower)
            return _STORED, entry
        except Exception as error:
            self._store_failed(error)
            return Reason.NOT_STORED_STORE, entry

    def _why_refused(self, entry: Entry, key: str, follower: Follower) -> Reason:
        (newer,), _ = follower.get([key])
        raced = follower.verdict(entry) is Verdict.HARD or isinstance(newer, Entry)
        return Reason.NOT_STORED_RACED if raced else Reason.NOT_STORED_STORE

    def forget(self, found: Found, entry: Entry | None = None) -> None:
        """Take an entry out of the store: it is not to be used any more."""
        store = found.follower.store
        try:
            store.delete(found.key, entry)
            if found.variants is not None and CODING_FIELD in found.variants.fields:
                self.forms.drop(found.key, found.variants.variants, store)
        except Exception as error:
            self._store_failed(error)

    def revoke(self, entry: Entry) -> None:
        """Take back an entry that turned out not to be fit, unless it was replaced already."""
        key = place(entry)
        follower = self.follower_of(key)
        store = follower.store
        try:
            (stored,), _ = store.get([key])
            # A hit may have put another object in its place: the same response with an ETag.
            if isinstance(stored, Entry) and stored.born == entry.born and stored.body == entry.body:
                store.delete(key, stored)
                if CODING_FIELD in entry.terms.varying:
                    (record,), _ = store.get([entry.key])
                    self.forms.drop(key, record.variants if isinstance(record, Variants) else (), store)
        except Exception as error:
            self._store_failed(error)
        if follower.trust is not ALWAYS:  # a near tier elsewhere may have copied it meanwhile
            self._purge_or_owe([Purge(Kind.URL, target_of(entry.key))])

    def _store_failed(self, error: Exception) -> None:
        self.observer.store_failures.add()
        self.observer.warn_once(
            f"store {type(error).__name__}", "the store failed (%s: %s); pages come from the app",
            type(error).__name__, error,
        )  # fmt: skip

    # --- purge -------------------------------------------------------------------------------------

    def append(self, purges: Sequence[Purge]) -> None:
        """Write purges to the journal; in force when this returns. Raises what the store raises."""
        now = self.clock.wall()
        append_all(self.store, shares(self.store, self.followers, purges), now)

    def _append_if_up(self, purges: Sequence[Purge]) -> None:
        """The same, unless the store is not to be asked now: to append asks it even then, and each request
        that looks something up would wait for that in turn."""
        for share in shares(self.store, self.followers, purges):
            share.follower.store.mark_of("")
        self.append(purges)

    def invalidate(self, admission: Admission, head: Head) -> None:
        """After a successful unsafe request: the target URI, and where it points (RFC 9111 §4.4).

        `Cache-Group-Invalidation` too (RFC 9875 §3). Other origins are never touched.
        """
        purges = list(invalidations(admission, head))
        if purges:
            self._purge_or_owe(purges)

    def _purge_or_owe(self, purges: Sequence[Purge]) -> None:
        """Write purges that nobody waits for: where the store is down, as soon as it answers."""
        try:
            self.append(purges)
        except Exception as error:
            self._store_failed(error)
            self.owed.add(purges)
            self.stamp = object()  # nothing is served unasked until the store has heard of it

    # --- looking -----------------------------------------------------------------------------------

    def counters(self) -> tuple[Mapping[str, int], bool]:
        """The counters of all workers where they share a store that answers, else of this process.

        Returns:
            The counters, and whether they are those of all workers.
        """
        if self.counts is not None:
            self.counts.add(self.clock.wall())
            try:
                return self.followers[0].store.counters(), self.shared
            except StoreError:
                return self.counts.own(), False
        return self.observer.counts(), False

    def close(self) -> None:
        """Let go of the store."""
        if self.counts is not None:
            self.counts.close()
        self.store.close()


_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine._after_fork()


in_child(_after_fork)


_LISTEN: Final = 1.0
"""Seconds between two looks for switches by requests that bypass the store."""

_NOTHING_THERE: Final = frozenset({Reason.MISS_RULES, Reason.MISS_PURGED, Reason.VARY_MISS})
"""What is found is not this request's, so a visitor bypasses the cache as with an empty place."""


def _lender(found: Found) -> Entry | None:
    """The page found, if the one that takes its place may go on with its forms: who purges wants all anew."""
    entry = found.entry or (found.past if found.form is None else found.form[1])
    return None if entry is None or found.follower.verdict(entry) is _HARD else entry


def _is_gone(stored: Stored, now: float) -> bool:
    return isinstance(stored, Entry) and stored.fresh_until <= now and stored.keep_until <= now
