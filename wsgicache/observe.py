"""What happened, counted and told: one `Outcome` in; counters, a log line, warnings out."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from .outcome import Outcome, Phase, Reason

log: Final = logging.getLogger("wsgicache")
decisions: Final = logging.getLogger("wsgicache.decisions")


class Tally:
    """A counter whose `add` is one C call: atomic under the interpreter's lock, and cheap enough for
    the hit path, which has a quicker way still: it takes the next of `numbers`, as `add` does."""

    __slots__ = ("add", "numbers")

    def __init__(self) -> None:
        self.numbers: Iterator[int] = itertools.count()
        self.add: Callable[[], int] = self.numbers.__next__

    @property
    def value(self) -> int:
        """How often `add` was called: a count shows its next number in its repr, without taking it."""
        return int(repr(self.numbers)[6:-1])


class Row:
    """What was counted under one name.

    `fast` are the hits of the hit path, `hits` all others. `details` adds up what else there is to say:
    bypasses and the reasons for them, milliseconds in which the app made the head of an answer, bytes stored.
    """

    __slots__ = ("details", "fast", "hits", "misses")

    def __init__(self) -> None:
        self.fast = Tally()
        self.hits = Tally()
        self.misses = Tally()
        self.details: dict[str, int] = {}


BYPASS: Final = "bypass:"
"""Before the name of a reason, in a row's details."""

RULE: Final = "\t"
"""Between a name and the rule that was in force, in the name of a row."""


class ByName:
    """What was counted by a name of pages, such as that of the view that makes them.

    Args:
        name_of: the name for a base key; None where the page has none. Asked once for each entry that is
            hit, and for each request that takes the long way.
        others: where names come from clients: the name for pages that were never found, and for what comes
            when there are `limit` names.
        limit: names that are told apart, where `others` is given.
        by_rule: have a row for each rule that was in force, named `name RULE rule`.
    """

    def __init__(
        self,
        name_of: Callable[[str], str | None],
        others: str | None = None,
        *,
        limit: int = 100,
        by_rule: bool = False,
    ) -> None:
        self._name_of = name_of
        self._others = others
        self._limit = limit
        self._names: set[str] = set()
        self._lock = threading.Lock()
        self.by_rule: Final = by_rule
        self.rows: dict[str, Row] = {}

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._lock = threading.Lock()

    def row(self, name: str) -> Row:
        """The counts of a name."""
        row = self.rows.get(name)
        return self.rows.setdefault(name, Row()) if row is None else row

    def row_of(self, key: str | None, rule: str | None = None) -> Row | None:
        """The counts of a page that is hit."""
        return None if key is None else self._row_of(key, rule, proven=True)

    def _row_of(self, key: str, rule: str | None, *, proven: bool) -> Row | None:
        """The counts of a page.

        Args:
            proven: there is such a page, so that it is no name that a client made up.
        """
        name = self._name_of(key)
        if name is None:
            return None
        if self._others is not None and name not in self._names:
            if proven and len(self._names) < self._limit:
                self._names.add(name)
            else:
                name = self._others
        return self.row(f"{name}{RULE}{rule}" if self.by_rule and rule is not None else name)

    def add(self, name: str, what: str, n: int = 1) -> None:
        """Add to a detail of a name."""
        row = self.row(name)
        with self._lock:
            row.details[what] = row.details.get(what, 0) + n

    def record(self, outcome: Outcome) -> None:
        """Count a request that took the long way."""
        found = outcome.status is not None and 200 <= outcome.status < 300
        proven = found or outcome.reason.is_hit or outcome.size is not None
        row = self._row_of(outcome.key or outcome.path or "", outcome.rule, proven=proven)
        if row is None:
            return
        if outcome.reason in _MISSES and outcome.detail is not Reason.MISS_MARKER:
            row.misses.add()
        elif outcome.reason.is_hit:
            row.hits.add()
        details = {name: n for name, n in _details(outcome).items() if n}
        if details:
            with self._lock:
                for name, n in details.items():
                    row.details[name] = row.details.get(name, 0) + n

    def counts(self) -> dict[str, int]:
        """Every count, by `what<name>`: hits, misses, and what the details say."""
        counts: dict[str, int] = {}
        for name, row in list(self.rows.items()):
            counts[f"hits<{name}>"] = row.fast.value + row.hits.value
            counts[f"misses<{name}>"] = row.misses.value
            with self._lock:
                counts |= {f"{what}<{name}>": n for what, n in row.details.items()}
        return counts


def _details(outcome: Outcome) -> dict[str, int]:
    details = {}
    if outcome.reason.phase is Phase.ADMIT:
        details["bypasses"] = details[BYPASS + outcome.reason.name] = 1
    if outcome.seconds is not None:
        details["asked"], details["milliseconds"] = 1, round(outcome.seconds * 1000)
    if outcome.size is not None:
        details["stored"], details["bytes"] = 1, outcome.size
    return details


_CACHE_FAULT: Final[Reason] = Reason.CACHE_FAULT
"""The member by itself: to read it from its enum costs as much as a call."""

_MISS_TOKENS: Final = frozenset({"uri-miss", "vary-miss", "miss", "stale", "request"})


class Decision(NamedTuple):
    """A decision, and when it was made: wall-clock seconds."""

    at: float
    outcome: Outcome


class Observer:
    """Counters by reason, and the log.

    Args:
        log_decisions: write one line per decision to `wsgicache.decisions`.
    """

    def __init__(self, log_decisions: bool = False) -> None:
        self.log_decisions = log_decisions
        self.reasons: Final[Mapping[Reason, Tally]] = {reason: Tally() for reason in Reason}
        self.collapsed = Tally()
        self.unjudged = Tally()
        """Requests that a fault of the cache left to the app alone."""
        self.variants_dropped = Tally()
        """Variants that made room for others of their URL (max_variants)."""
        self.store_failures = Tally()
        """Calls of the store that failed, however many requests they concerned."""
        self.refreshes = Tally()
        self.refreshes_failed = Tally()
        self.hits: Iterator[int] = self.reasons[Reason.HIT].numbers
        """Of these the hit path takes one for each fresh hit, unless hits are counted by name as well."""
        self.by_name: ByName | None = None
        """Set by an integration before the first request, to count pages by name as well."""
        self.recent: deque[Decision] | None = None
        """The last decisions that took the long way, newest last, where somebody wants to look at them."""
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._lock = threading.Lock()
        if self.by_name is not None:
            self.by_name.after_fork()

    def counter_of(self, key: str, rule: str | None = None) -> Iterator[int]:
        """Numbers of which the next counts one fresh hit of a page.

        Args:
            key: the page's base key.
            rule: the label of the rule in force.
        """
        row = None if self.by_name is None else self.by_name.row_of(key, rule)
        return self.hits if row is None else row.fast.numbers

    def record(self, outcome: Outcome) -> None:
        """Count an outcome, and log it where that was chosen."""
        if outcome.reason is _CACHE_FAULT:
            self.unjudged.add()  # the fault itself was counted where it happened
        else:
            self.reasons[outcome.reason].add()
        if outcome.settled is not None:
            self.reasons[outcome.settled].add()
        if outcome.detail is not None and outcome.detail is not outcome.settled:
            self.reasons[outcome.detail].add()
        if outcome.collapsed:
            self.collapsed.add()
        if self.by_name is not None:
            self.by_name.record(outcome)
        if self.recent is not None:
            self.recent.append(Decision(time.time(), outcome))
        if self.log_decisions:
            self._log(outcome)

    def _log(self, outcome: Outcome) -> None:
        told = {name: value for name, value in _told(outcome).items() if value is not None}
        line = " ".join(f"{name}={_quoted(value)}" for name, value in told.items())
        decisions.info("%s", line, extra={"wsgicache": told})

    def warn_once(self, subject: str, message: str, *args: object) -> None:
        """Log a warning about a subject, the first time only."""
        with self._lock:
            if subject in self._warned:
                return
            self._warned.add(subject)
        log.warning(message, *args)

    def app_failed(self, error: BaseException) -> None:
        """The app raised, and a stale page hid it from the visitor: it must not hide it from the log."""
        log.error("the app failed; a stale page answers", exc_info=error)

    def hid_error(self, status: int | None) -> None:
        """A stale page hid an answer of the app from the visitor; None where it raised instead (TIM-08)."""
        if status is not None:
            self.warn_once(
                "stale-if-error", "the app answers %d; a stale page hides it from visitors", status
            )

    def refreshed(self, outcome: Outcome) -> None:
        """Count a refresh that no visitor waited for."""
        stored = outcome.settled is not None and outcome.settled.token == "stored"
        (self.refreshes if stored else self.refreshes_failed).add()

    def refresh_failed(self, error: BaseException) -> None:
        """A refresh that no visitor waits for raised; the stale page lives on in its window."""
        log.warning("a background refresh failed", exc_info=error)

    def fault(self, where: str, error: BaseException) -> None:
        """Record that the cache itself failed; the traceback goes to the log once per place."""
        self.reasons[Reason.CACHE_FAULT].add()
        subject = f"{where}: {type(error).__name__}"
        with self._lock:
            first = subject not in self._warned
            self._warned.add(subject)
        if first:
            log.error("the cache failed in %s; the app answers alone", where, exc_info=error)

    def counts(self) -> dict[str, int]:
        """Every counter since the start of this process, by name; a reason's begins with `REASON`."""
        reasons = {reason: tally.value for reason, tally in self.reasons.items()}
        if self.by_name is not None:
            reasons[Reason.HIT] += sum([row.fast.value for row in list(self.by_name.rows.values())])
        return {
            "unjudged": self.unjudged.value,
            "collapsed": self.collapsed.value,
            "refreshes": self.refreshes.value,
            "refreshes_failed": self.refreshes_failed.value,
            "variants_dropped": self.variants_dropped.value,
            "store_failures": self.store_failures.value,
            **{REASON + reason.name: count for reason, count in reasons.items()},
        }

    def stats(self) -> dict[str, Any]:
        """Counters since the start of this process; see `summary`."""
        return summary(self.counts())


REASON: Final = "reason:"


def summary(counts: Mapping[str, int]) -> dict[str, Any]:
    """What counters say, of one process or of several added up.

    `hit_ratio` is hits / (hits + misses) and `coverage` (hits + misses) / all requests, None before
    the first; bypass and miss-marker traffic never hide in the first. A stale page in place of an
    error is a miss: the request went to the app, and an outage must not look healthy.
    """
    reasons = {reason: counts.get(REASON + reason.name, 0) for reason in Reason}
    hits = sum(n for reason, n in reasons.items() if reason.is_hit)
    requests = sum(reasons[reason] for reason in DECISIONS) + counts.get("unjudged", 0)
    misses = sum(reasons[reason] for reason in _MISSES) - reasons[Reason.MISS_MARKER]
    told = ("collapsed", "refreshes", "refreshes_failed", "variants_dropped", "store_failures")
    return {
        "requests": requests,
        "hits": hits,
        "stale_hits": hits - reasons[Reason.HIT] - reasons[Reason.HIT_EARLY_REFRESH],
        "misses": misses,
        **{name: counts.get(name, 0) for name in told},
        "hit_ratio": hits / (hits + misses) if hits + misses else None,
        "coverage": (hits + misses) / requests if requests else None,
        "reasons": {reason.name: n for reason, n in reasons.items() if n},
    }


DECISIONS: Final = frozenset(r for r in Reason if r.phase in (Phase.ADMIT, Phase.JUDGE)) | {
    Reason.HIT_STALE_IF_ERROR,
    Reason.STORE_DOWN,
}
"""Reasons of which each judged request has exactly one; the others say more about it."""

_MISSES: Final = frozenset(r for r in DECISIONS if r.token in _MISS_TOKENS and r is not Reason.STORE_DOWN)
"""Decisions for which the app was asked although the store might have answered."""


def _told(outcome: Outcome) -> dict[str, Any]:
    detail = outcome.explaining_detail()
    return {
        "reason": outcome.reason.name,
        "detail": None if detail is None or detail is outcome.reason else detail.name,
        "settled": None if outcome.settled is None else outcome.settled.name,
        "status": outcome.status,
        "ttl": outcome.ttl,
        "collapsed": outcome.collapsed or None,
        "rule": outcome.rule,
        "key": None if outcome.key is None else outcome.key.replace("\0", " ").strip(),
        "seconds": None if outcome.seconds is None else round(outcome.seconds, 6),
    }


def _quoted(value: object) -> str:
    """A value for one log line: nothing in it can end the line or fake another field."""
    text = str(value)
    if text.isascii() and text.isprintable() and not set(text) & set(' "=\\'):
        return text
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'
