"""The engine: looks up, judges, commits, invalidates. It knows stores and policy, nothing of WSGI.

Every fault of a store ends here as a miss with a reason; a fault never reaches the visitor.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from urllib.parse import quote, urljoin

from .background import Refresher
from .clock import Clock
from .collapse import Collapse, MissMarkers
from .cookiepass import cookie_pass
from .entry import Entry, Stored, Variants, with_etag
from .facts import Facts
from .fields import string_list
from .journal import Kind, Mark, Purge, PurgeIndex, Verdict, short
from .key import (
    group_target,
    parse_url,
    search_key,
    selectors,
    variant_key,
    varying_values,
)
from .observe import Observer
from .options import OptionError, Settings
from .outcome import Reason
from .plan import Plan, normalisers_for, plans_for
from .policy import Admission, Head, admit, judge
from .profile import PROFILES
from .ready import ReadyVariants, ready
from .rules import RuleSet
from .search import search_rules
from .stores import Store, StoreOptions, open_store
from .stores.sieve import Slot

Peek = Callable[[str], Slot | None]


class Found:
    """What a look-up found: a reason, the entry if there is one, and the mark that was read first.

    `miss` is the reason without regard to who asks: where a request with a cookie finds nothing, `reason`
    names the cookie and `miss` the empty place. `key` is where a fill will be stored if nothing changes.
    """

    __slots__ = ("entry", "key", "mark", "miss", "now", "reason", "variants", "verdict")

    def __init__(self, key: str, now: float) -> None:
        self.key = key
        self.now = now
        self.reason = self.miss = Reason.URI_MISS
        self.entry: Entry | None = None
        self.variants: Variants | None = None
        self.verdict = Verdict.VALID
        self.mark: Mark | None = None


class Engine:
    """One cache: its store, rules, clock, counters and what is under way.

    Args:
        settings: the options, typed.
        rules: the rules in order.

    Raises:
        OptionError: the store URL or object is no store.
    """

    def __init__(self, settings: Settings, rules: RuleSet) -> None:
        self.settings: Final = settings
        self.rules: Final = rules
        self.plans: Final[Sequence[Plan]] = plans_for(settings, rules)
        self.observer: Final = Observer(settings.log)
        self.store: Final[Store] = _store_from(settings).namespaced(settings.namespace)
        self.peek: Final[Peek | None] = getattr(self.store, "peek", None)
        self.clock: Final = Clock(settings.clock, self._stepped_back)
        self.collapse: Final = Collapse(settings.max_followers, settings.slow_client_grace)
        self.markers: Final = MissMarkers(settings.miss_marker)
        self.refresher: Final = Refresher(
            settings.background_threads, settings.background_queue, self.clock.wall
        )
        self.consumed: Final = frozenset(settings.consume_fields)
        self.rules_known_by = object()
        """Replaced whenever a rule is switched."""
        self.stamp = object()
        """Replaced whenever the journal moves or a rule is switched: what an armed slot must carry."""
        self._index = PurgeIndex()
        self._new_locks()
        self._normalisers = normalisers_for(settings, PROFILES[settings.profile])
        rules.watch(self._switched)
        watch = getattr(self.store, "watch", None)
        if watch is not None:
            watch(self._moved)
        _engines.add(self)

    def _new_locks(self) -> None:
        self._index_lock = threading.Lock()
        self._variants_lock = threading.Lock()

    def _after_fork(self) -> None:
        """In a forked child: whoever held a lock does not exist."""
        self._new_locks()
        self.observer.after_fork()

    def _moved(self) -> None:
        self.stamp = object()

    def _switched(self) -> None:
        self.rules_known_by = object()
        self.stamp = object()

    def _stepped_back(self) -> None:
        """The wall clock went back: what this process holds looks younger than it is (TIM-01)."""
        self.observer.warn_once("clock", "the wall clock went back; the memory store starts again")
        if self.peek is not None:
            self.store.clear()

    # --- look up -----------------------------------------------------------------------------------

    def admit(self, facts: Facts) -> Admission:
        """Whether and how a request may use the cache."""
        stamp = self.stamp  # before the rules are asked: a switch in between must leave nothing armed
        rules_known_by = self.rules_known_by
        admission = admit(facts, self.rules, self.plans)
        admission.stamp, admission.rules = stamp, rules_known_by
        return admission

    def look_up(self, admission: Admission, *, arm: bool = True) -> Found:
        """Find what is stored for a request and judge it.

        Args:
            arm: let the hit path answer such requests from now on; explain does not, and changes nothing.
        """
        now = self.clock.now()
        found = Found(admission.key, now)
        try:
            stored = self._find(admission, found)
        except Exception as error:
            if arm:
                self._store_failed(error)
            found.reason = found.miss = Reason.STORE_DOWN
            return found
        if stored is None or stored.key != admission.key or _is_gone(stored, now):
            found.miss = Reason.VARY_MISS if found.variants is not None else Reason.URI_MISS
            found.reason = admission.personal or found.miss
            return found
        found.entry = entry = self._sealed(found.key, stored) if arm else with_etag(stored)
        found.verdict = self._index.verdict(entry.born, entry.key, entry.terms.groups)
        found.reason = found.miss = judge(admission, entry, found.verdict, now)
        if admission.personal is not None and found.miss in _NOTHING_THERE:
            found.reason = admission.personal
        if arm and found.reason is Reason.HIT and admission.facts.method == "GET":
            self._arm(admission, found)
        return found

    def _find(self, admission: Admission, found: Found) -> Entry | None:
        """Read the entry, through the record of varying fields where there is one."""
        if self.settings.no_vary_search and admission.facts.query:
            self._apply_search(admission, found)
        stored = self._get(found.key, found)
        if not isinstance(stored, Variants):
            return stored
        found.variants = stored
        values = varying_values(stored.fields, admission.value_of)
        if values is None:
            return None
        found.key = variant_key(admission.key, stored.fields, values)
        variant = self._get(found.key, found)
        return variant if isinstance(variant, Entry) else None

    def _apply_search(self, admission: Admission, found: Found) -> None:
        """Bring the query in the key to the form that No-Vary-Search of this path gives it."""
        record = self._get(search_key(admission.key), found)
        rules = search_rules(record.fields[0]) if isinstance(record, Variants) else None
        found.key = admission.rekey(rules)

    def note_search(self, admission: Admission, value: str | None, keep_until: float) -> None:
        """A response of a path says, or no longer says, which parameters do not matter there."""
        key = search_key(admission.key)
        rules = None if value is None else search_rules(value)
        admission.rekey(rules)
        (known,), _ = self.store.get([key])
        if rules is None:
            if known is not None:
                self.store.delete(key)
        elif not isinstance(known, Variants) or known.fields != (value,) or known.keep_until < keep_until:
            self.store.set(key, Variants(key, (str(value),), (), keep_until), keep_until)

    def _get(self, key: str, found: Found) -> Stored | None:
        stored, mark = self.store.get([key])
        if found.mark is None:
            found.mark = mark
        self._follow(mark)
        return stored[0]

    def _follow(self, mark: Mark) -> None:
        """Bring the index up to a mark that was just read, before anything is judged by it."""
        if self._index.mark == mark:
            return
        with self._index_lock:
            known = self._index.mark
            if known != mark:
                self._index.follow(self.store.purges_since(known))

    def _sealed(self, key: str, entry: Entry) -> Entry:
        """An entry with its ETag. What one-hit wonders never need is made at the first hit."""
        slot = self.peek(key) if self.peek is not None else None
        if slot is None or slot.stored is not entry:
            return with_etag(entry)
        slot.stored = entry = with_etag(entry)
        return entry

    def _arm(self, admission: Admission, found: Found) -> None:
        """Let the hit path answer from now on, until the stamp is replaced."""
        if self.peek is None:
            return
        self._arm_slot(found.key, found.entry, admission)
        if found.variants is not None:
            self._arm_slot(admission.key, found.variants, admission)

    def _arm_slot(self, key: str, stored: Stored | None, admission: Admission) -> None:
        slot = self.peek(key) if self.peek is not None else None
        if slot is None or slot.stored is not stored or stored is None:
            return
        shift, stamp, rules = self.clock.shift, admission.stamp, admission.rules
        if slot.stamp is stamp and (slot.ready is None or getattr(slot.ready, "shift", shift) == shift):
            return
        if isinstance(stored, Variants):
            slot.ready = ReadyVariants(stored.key, selectors(stored.fields, self._normalisers), rules)
        else:
            passes = cookie_pass(admission.plan.cookies, stored.terms)
            slot.ready = ready(stored, passes, shift, rules)
        slot.stamp = stamp

    def rearm(self, slot: Slot, stamp: object) -> bool:
        """Whether an armed slot is still valid although the journal moved; then it is armed anew.

        Args:
            stamp: the engine's stamp, read before this was asked.
        """
        armed = slot.ready
        if armed is None or armed.rules is not self.rules_known_by:
            return False
        self._follow(self.store.get(())[1])
        stored = slot.stored
        if isinstance(stored, Entry) and self.verdict(stored) is not Verdict.VALID:
            return False
        slot.stamp = stamp
        return True

    def verdict(self, entry: Entry) -> Verdict:
        """What the journal, as this process knows it, says of an entry."""
        return self._index.verdict(entry.born, entry.key, entry.terms.groups)

    def verdict_now(self, entry: Entry) -> Verdict:
        """As `verdict`, at a newly read mark; HARD where the store does not tell."""
        try:
            self._follow(self.store.get([])[1])
        except Exception as error:
            self._store_failed(error)
            return Verdict.HARD
        return self.verdict(entry)

    def covered(self, key: str, groups: Sequence[str] = ()) -> Callable[[Mark], bool]:
        """A question: has a key been purged since a mark?"""
        return lambda born: self._index.verdict(born, key, groups) is not Verdict.VALID

    # --- commit ------------------------------------------------------------------------------------

    def keep(self, entry: Entry, found: Found, token: int) -> tuple[Reason, Entry]:
        """Store an entry. Returns STORED or why not, and the entry as it was stored."""
        try:
            return self._keep(entry, found, token)
        except Exception as error:
            self._store_failed(error)
            return Reason.NOT_STORED_STORE, entry

    def _keep(self, entry: Entry, found: Found, token: int) -> tuple[Reason, Entry]:
        if self.peek is None:
            entry = with_etag(entry)
        self._follow(self.store.get([])[1])  # what was purged while the app was working
        key = _place(entry)
        if self._index.verdict(entry.born, entry.key, entry.terms.groups) is Verdict.HARD:
            return Reason.NOT_STORED_RACED, entry
        if not self.store.set(key, entry, entry.keep_until, token):
            return self._why_refused(entry, key), entry
        if entry.terms.varying:
            self._note_variant(entry, key)
        return Reason.STORED, entry

    def _why_refused(self, entry: Entry, key: str) -> Reason:
        (newer,), mark = self.store.get([key])
        self._follow(mark)
        current = self._index.verdict(entry.born, entry.key, entry.terms.groups)
        raced = current is Verdict.HARD or isinstance(newer, Entry)
        return Reason.NOT_STORED_RACED if raced else Reason.NOT_STORED_STORE

    def _note_variant(self, entry: Entry, key: str) -> None:
        """Write the record of varying fields; the oldest variants go where there are too many."""
        with self._variants_lock:
            (stored,), _ = self.store.get([entry.key])
            record = stored if isinstance(stored, Variants) else None
            keys = record.variants if record is not None else ()
            if record is not None and _is_noted(record, key, entry):
                return
            keys = (*[old for old in keys if old != key], key)
            dropped, kept = keys[: -self.settings.max_variants], keys[-self.settings.max_variants :]
            keep_until = max(entry.keep_until, record.keep_until if record is not None else 0.0)
            updated = Variants(entry.key, entry.terms.varying, kept, keep_until)
            self.store.set(entry.key, updated, keep_until)
        for old in dropped:
            self.observer.variants_dropped.add()
            self.store.delete(old)

    def forget(self, found: Found, entry: Entry | None = None) -> None:
        """Take an entry out of the store: it is not to be used any more."""
        try:
            self.store.delete(found.key, entry)
        except Exception as error:
            self._store_failed(error)

    def revoke(self, entry: Entry) -> None:
        """Take back an entry that turned out not to be whole, unless it was replaced already."""
        key = _place(entry)
        try:
            (stored,), _ = self.store.get([key])
            # A hit may have put another object in its place: the same response with an ETag.
            if isinstance(stored, Entry) and stored.born == entry.born and stored.body == entry.body:
                self.store.delete(key, stored)
        except Exception as error:
            self._store_failed(error)

    def _store_failed(self, error: Exception) -> None:
        self.observer.store_failures.add()
        self.observer.warn_once(
            f"store {type(error).__name__}", "the store failed (%s: %s); pages come from the app",
            type(error).__name__, error,
        )  # fmt: skip

    # --- purge -------------------------------------------------------------------------------------

    def last_purges(self, purges: Iterable[Purge]) -> list[int]:
        """The numbers of the last purges of the same targets, 0 where there were none."""
        with self._index_lock:
            self._index.follow(self.store.purges_since(self._index.mark))
        return [self._index.last(purge) for purge in purges]

    def append(self, purges: Iterable[Purge]) -> Mark:
        """Write purges to the journal; in force when this returns. Raises what the store raises."""
        bounded = [purge._replace(target=short(purge.target)) for purge in purges]
        return self.store.append(bounded, self.clock.wall())

    def invalidate(self, admission: Admission, head: Head) -> None:
        """After a successful unsafe request: the target URI, and where it points (RFC 9111 §4.4).

        `Cache-Group-Invalidation` too (RFC 9875 §3). Other origins are never touched.
        """
        purges = list(invalidations(admission, head))
        if not purges:
            return
        try:
            self.append(purges)
        except Exception as error:
            self._store_failed(error)

    def close(self) -> None:
        """Let go of the store."""
        self.store.close()


_engines: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_engines):
        engine._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _place(entry: Entry) -> str:
    """The key that an entry is stored under."""
    varying = entry.terms.varying
    return variant_key(entry.key, varying, entry.values) if varying else entry.key


_NOTHING_THERE: Final = frozenset({Reason.MISS_RULES, Reason.MISS_PURGED, Reason.VARY_MISS})
"""What is found is not this request's, so a visitor bypasses the cache as with an empty place."""


def _is_noted(record: Variants, key: str, entry: Entry) -> bool:
    """Whether a record of varying fields already leads to a variant for as long as it lives."""
    return (
        key in record.variants
        and record.fields == entry.terms.varying
        and record.keep_until >= entry.keep_until
    )


def _is_gone(stored: Stored, now: float) -> bool:
    return isinstance(stored, Entry) and stored.fresh_until <= now and stored.keep_until <= now


def _store_from(settings: Settings) -> Store:
    given = settings.store
    if isinstance(given, str):
        try:
            return open_store(given, StoreOptions(max_bytes=settings.max_bytes))
        except ValueError as error:
            raise OptionError(f"store: {error}") from None
    if isinstance(given, type) or not isinstance(given, Store):
        raise OptionError(
            f"store = {given!r} is no store; give a URL such as memory:// or an object with the methods "
            "of wsgicache.Store"
        )
    return given


def invalidations(admission: Admission, head: Head) -> Iterable[Purge]:
    """What a successful unsafe request invalidates."""
    if admission.host is None or not admission.facts.path.startswith("/"):
        return
    facts = admission.facts
    own = f"{facts.scheme}://{admission.host}"
    yield Purge(Kind.URL, f"o{own}\0{facts.path}")
    for name in ("location", "content-location"):
        path = _same_origin_path(head.fields.get(name), own, facts.path)
        if path is not None:
            yield Purge(Kind.URL, f"o{own}\0{path}")
    groups = head.fields.get("cache-group-invalidation")
    if groups is not None:
        for group in string_list(groups) or ():
            yield Purge(Kind.GROUP, group_target(group, own))


def _same_origin_path(reference: str | None, origin: str, base: str) -> str | None:
    """The path that a Location names, if it is on this origin (CON-19)."""
    if reference is None:
        return None
    try:
        url = urljoin(origin + quote(base.encode("latin-1", "replace")), reference.strip())
        named, path, _ = parse_url(url)
    except ValueError:
        return None
    return path if named == origin else None
