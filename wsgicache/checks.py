"""Is a cache set up well? What can be found out from outside its process, each with a remedy."""

from __future__ import annotations

import os
import stat
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from .entry import Entry, Terms
from .journal import new_id
from .options import Settings
from .rules import Rule
from .stores import Store, StoreError, shown
from .stores.advice import Advice, Level, size

_TRIPS: Final = 7
_SHORT: Final = 16
"""Characters of a secret that somebody may guess."""

_CHECK_KEY: Final = "\x02check\0\0\0"
"""A key that no request has: its path holds a control byte."""

_SINCE: Final = 1_750_000_000.0
"""An instant in the past: a clock that stands before it is wrong."""


def check_settings(settings: Settings, rules: Sequence[Rule]) -> Iterator[Advice]:
    """What the options say, beyond that each of them can be read."""
    named = sum(rule.name is not None for rule in rules)
    told = f"profile {settings.profile}, {len(rules)} rules, {named} of them named"
    yield Advice("configuration", Level.OK, told)
    if not settings.enabled:
        yield Advice("enabled", Level.WARNING, "the cache is switched off", "set enabled = true")
    if settings.ttl == 0:
        text = "ttl = 0: only what states a lifetime itself is stored"
        yield Advice("ttl", Level.WARNING, text, "leave ttl out (300 s), or have the app send max-age")
    if settings.secret is not None and len(settings.secret) < _SHORT:
        yield Advice("secret", Level.WARNING, "it is short enough to be guessed", _RANDOM)
    if any(len(key) < _SHORT for key in settings.signing_keys):
        yield Advice("signing_keys", Level.WARNING, "one is short enough to be guessed", _RANDOM)
    yield from _too_large_for_the_spool(settings, rules)
    off = [rule.label for rule in rules if not rule.enabled]
    if off:
        yield Advice("rules", Level.OK, f"switched off by the configuration: {', '.join(off)}")
    yield from _shadowed(rules)


def _too_large_for_the_spool(settings: Settings, rules: Sequence[Rule]) -> Iterator[Advice]:
    """Whether bodies may be larger than the largest file there can be."""
    most = max([settings.max_body_bytes, *[rule.options["max_body_bytes"] or 0 for rule in rules]])
    if settings.spool_max_bytes and most > max(settings.spool_bytes, settings.spool_max_bytes // 2):
        text = f"max_body_bytes = {size(most)}, and one file takes half of it at most"
        yield Advice("spool_max_bytes", Level.WARNING, text, f"spool_max_bytes = {2 * most} at least")


_RANDOM: Final = "python -c 'import secrets; print(secrets.token_urlsafe(32))' makes one"


def _shadowed(rules: Sequence[Rule]) -> Iterator[Advice]:
    """Rules that never apply, because an earlier one has the same pattern, hosts and methods."""
    first: dict[tuple[object, ...], Rule] = {}
    for rule in rules:
        place = rule.pattern, rule.options["host"], rule.options["methods"]
        before = first.setdefault(place, rule)
        if before is not rule:
            yield Advice(
                f"rule {rule.label}",
                Level.WARNING,
                f"{rule.pattern} is covered by the earlier rule {before.label}: the first that matches wins",
                "put both into one rule, or the more special one first",
            )


def check_file(path: Path, holds_secrets: bool) -> Iterator[Advice]:
    """Who may read and write a file of options.

    Args:
        holds_secrets: it has a password, a secret or a signing key in it.
    """
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if mode & 0o022:
        text = f"mode {mode:04o}: others may change what is cached"
        yield Advice(path.name, Level.PROBLEM, text, f"chmod go-w {path}")
    elif holds_secrets and mode & 0o004:
        text = f"mode {mode:04o}: everybody may read the secrets in it"
        yield Advice(path.name, Level.PROBLEM, text, f"chmod o-r {path}")
    else:
        yield Advice(path.name, Level.OK, f"mode {mode:04o}")


def has_secrets(settings: Settings) -> bool:
    """Whether options hold what not everybody should read."""
    store = settings.store
    password = isinstance(store, str) and shown(store) != store
    return bool(password or settings.secret or settings.signing_keys)


def check_clock(now: Callable[[], float] = time.time) -> Advice:
    """Whether the wall clock can be right."""
    if now() < _SINCE:
        text = f"it says {time.strftime('%Y-%m-%d', time.gmtime(now()))}"
        return Advice(
            "clock", Level.PROBLEM, text, "set it, best by NTP: ages and lifetimes are counted by it"
        )
    return Advice("clock", Level.OK, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now())))


def check_store(store: Store, settings: Settings) -> Iterator[Advice]:
    """Whether a store takes, gives and forgets, how fast it answers, and what it says of itself.

    One entry is stored under a key that no request has, and deleted; no page is touched.

    Raises:
        StoreError: the store does not answer.
    """
    parts: Sequence[Store] = getattr(store, "parts", (store,))
    yield _timed(parts[0], settings.store_timeout)
    for part in parts:
        failed = _round_trip(part)
        if failed is not None:
            yield failed
            break
    else:
        yield Advice("round trip", Level.OK, "an entry was stored, read, and deleted")
    yield from _advice_of(store, largest_in(store, settings))


def largest_in(store: Store, settings: Settings) -> int:
    """Bytes of the largest body that a store itself holds: larger ones are in files, where it has them."""
    if getattr(store, "spool", None) is None:
        return settings.max_body_bytes
    return min(settings.max_body_bytes, settings.spool_bytes)


def _timed(store: Store, budget: float) -> Advice:
    """How long an answer takes, against what a request waits for it."""
    store.mark_of(_CHECK_KEY)  # connecting is not counted
    times = []
    for _ in range(_TRIPS):
        began = time.perf_counter()
        store.mark_of(_CHECK_KEY)
        times.append(time.perf_counter() - began)
    took = statistics.median(times)
    text = f"answers in {took * 1000:.2g} ms; requests wait {budget * 1000:.0f} ms for it (store_timeout)"
    if took > budget / 2:
        remedy = "move the store nearer, or raise store_timeout; until then many requests are misses"
        return Advice("store", Level.WARNING, text, remedy)
    return Advice("store", Level.OK, text)


def _round_trip(store: Store) -> Advice | None:
    """What is wrong, if anything is."""
    body = new_id().encode("ascii")
    now = time.time()
    terms = Terms("200 OK", "check", 60, "check")
    entry = Entry(_CHECK_KEY, terms, (), body, now, now + 60, store.mark_of(_CHECK_KEY))
    try:
        if not store.set(_CHECK_KEY, entry, now + 60):
            text = "an entry was refused"
            return Advice("round trip", Level.PROBLEM, text, "make room in the store, or give it more")
        (found,), _ = store.get([_CHECK_KEY])
        if not isinstance(found, Entry) or found.body != body:
            text = "what was stored did not come back"
            return Advice("round trip", Level.PROBLEM, text, "give the store more room: it forgets at once")
        store.delete(_CHECK_KEY)
        store.set_meta("check", body.decode("ascii"))
        kept = store.get_meta("check")
        store.set_meta("check", None)
    except StoreError as error:
        return Advice(
            "round trip", Level.PROBLEM, str(error), "mend what it says; until then pages are not stored"
        )
    if kept != body.decode("ascii"):
        text = "a text did not come back: switches of rules would be lost"
        return Advice("round trip", Level.PROBLEM, text, "give the store more room")
    return None


def _advice_of(store: Store, largest: int) -> Iterator[Advice]:
    advice: Callable[[int], Iterable[Advice]] | None = getattr(store, "advice", None)
    if advice is None:
        return
    try:
        yield from advice(largest)
    except StoreError as error:
        text = f"it does not say how it is set up: {error}"
        yield Advice("store settings", Level.WARNING, text, "allow this user INFO and TIME, or look yourself")
