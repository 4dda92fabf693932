"""The pages of the dashboard: what each of them tells, for its template. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request

from ..engine import RECENT
from ..explain import REMEDIES
from ..history import Point
from ..key import plain_target, split_key
from ..observe import Decision, summary
from ..options import RULE_OPTIONS
from ..outcome import Reason
from ..savings import SAVED_BYTES, SAVED_TIME, saved
from ..stores import StoreError
from . import endpoint, entries, figures
from .overview import DAY, HOUR, a_while, by_route, by_rule

Told = dict[str, Any]

LONGEST: Final = 300
"""Characters of a client's text that a list shows."""

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""Methods that the page about one URL offers; others are taken all the same."""

MAX_PAGE: Final = entries.LOOKED_AT // entries.ON_A_PAGE


class Shown(NamedTuple):
    """A decision in a list."""

    at: float
    method: str
    url: str
    explain: str
    reason: Reason
    remedy: str | None
    more: Sequence[Reason]
    status: int | None
    seconds: float | None
    rule: str | None
    collapsed: bool


class Pages:
    """Answers GET.

    Args:
        cache: what it tells of.
    """

    def __init__(self, cache: endpoint.Cache) -> None:
        self._cache = cache

    def overview(self, request: Request) -> Told:
        """The whole cache, over the last hour and day and since it was started."""
        engine = self._cache.engine
        counts, shared = engine.counters()
        now = engine.clock.wall()
        points, told = self._history(now, counts), summary(counts)
        return {
            "shared": shared,
            "whiles": [
                a_while("hour", "Last hour", points, now, HOUR),
                a_while("day", "Last day", points, now, DAY),
            ],
            "since": {**told, **saved(counts)},
            "reasons": _reasons(told["reasons"]),
            "store": self._store_numbers(),
            "SAVED_TIME": SAVED_TIME,
            "SAVED_BYTES": SAVED_BYTES,
        }

    def _history(self, now: float, counts: Mapping[str, int]) -> Sequence[Point]:
        """The last day; nothing where the store does not answer."""
        known = self._cache.engine.counts
        try:
            return [] if known is None else known.history.points(now, DAY, counts)
        except StoreError:
            return []

    def _store_numbers(self) -> list[tuple[str, str]] | None:
        try:
            numbers = self._cache.engine.store.stats()
        except StoreError:
            return None
        return [(name.replace("_", " "), _store_number(name, n)) for name, n in numbers.items()]

    def routes(self, request: Request) -> Told:
        """What was counted by route and by rule."""
        counts, shared = self._cache.engine.counters()
        book = self._cache.engine.observer.by_name
        by_rules = by_rule(counts) if book is not None and book.by_rule else None
        return {"shared": shared, "routes": by_route(counts), "by_rule": by_rules}

    def entries(self, request: Request) -> Told:
        """Entries that were searched for; a page of them."""
        by, text, page = wanted(request.args)
        told: Told = {"by": by, "text": text, "problem": None, "wrong": False}
        told |= {done: request.args.get(done, type=int) for done in ("purged", "marked")}
        told["here"] = {"by": by, "text": text, "page": page}
        try:
            found = entries.search(self._cache.engine, by, text, page)
        except NotImplementedError:
            told["problem"] = (
                "This store cannot list what it holds. What it holds can be purged all the same."
            )
        except ValueError as error:
            told |= {"problem": str(error), "wrong": True}
        else:
            told["found"] = found
            told["previous"] = urlencode({"by": by, "text": text, "page": page - 1}) if page > 1 else None
            told["next"] = urlencode({"by": by, "text": text, "page": page + 1}) if found.more else None
        return told

    def entry(self, request: Request) -> Told:
        """One entry.

        Raises:
            NotFound: there is none, or not any more.
        """
        found = entries.closely(self._cache.engine, request.args.get("id", ""))
        if found is None:
            raise NotFound("This entry is not stored any more.")
        by, text, page = wanted(request.args)
        return {"entry": found, "here": {"by": by, "text": text, "page": page}}

    def rules(self, request: Request) -> Told:
        """The rules and their switches, as all workers have them."""
        engine = self._cache.engine
        for follower in engine.followers:
            follower.follow_now("")
        rows = [
            {
                "name": rule.name,
                "pattern": rule.pattern,
                "enabled": rule.enabled,
                "options": _options(rule.options),
            }
            for rule in engine.rules
        ]
        return {"rules": rows, "shared": engine.shared}

    def recent(self, request: Request) -> Told:
        """The last decisions of this worker that took the long way, the newest first."""
        recent = self._cache.engine.observer.recent
        made = [] if recent is None else list(reversed(recent.copy()))
        return {"decisions": [_decision(decision) for decision in made], "most": RECENT}

    def explain(self, request: Request) -> Told:
        """What a request would get now."""
        url, method = request.args.get("url", "").strip(), request.args.get("method", "GET").strip().upper()
        told: Told = {"url": url, "method": method, "explanation": None, "problem": None}
        told["methods"] = [*METHODS, *([] if method in METHODS else [method])]
        if url:
            try:
                told["explanation"] = self._cache.explain(absolute(url, request), method=method)
            except ValueError as error:
                told["problem"] = str(error)
        return told


def _store_number(name: str, number: int) -> str:
    if name == "max_bytes" and not number:
        return "no limit"
    return figures.size(number) if name.endswith("bytes") else figures.count(number)


def wanted(args: Mapping[str, str]) -> tuple[str, str, int]:
    """What is searched for: by what, which text, which page."""
    page = args.get("page", "1")
    number = int(page) if page.isascii() and page.isdigit() and len(page) < 6 else 1
    by = "group" if args.get("by") == "group" else "prefix"
    return by, args.get("text", "").strip(), min(max(1, number), MAX_PAGE)


def absolute(url: str, request: Request) -> str:
    """A URL of this site, where only its path was given."""
    return f"{request.scheme}://{request.host}{url}" if url.startswith("/") else url


def _options(options: Mapping[str, Any]) -> str:
    """The options that were given, as an ini has them."""
    given = {name: value for name, value in options.items() if value != RULE_OPTIONS[name].default}
    given.pop("name", None)
    return " ".join([name if value is True else f"{name}={_written(value)}" for name, value in given.items()])


def _written(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = value.items()
        return ",".join([str(name) if n is None else f"{name}:{n}" for name, n in pairs])
    return (
        ",".join(value) if isinstance(value, tuple) else str(value).lower() if value is False else str(value)
    )


def _reasons(counted: Mapping[str, int]) -> list[tuple[Reason, int]]:
    told = [(Reason[name], n) for name, n in counted.items()]
    return sorted(told, key=lambda pair: (-pair[1], pair[0].name))


def _decision(decision: Decision) -> Shown:
    outcome = decision.outcome
    parts = None if not outcome.key else split_key(outcome.key)
    path, query = (outcome.path or "", outcome.query) if parts is None else (parts.path, parts.query)
    shown = f"{'' if parts is None else parts.origin}{path}{'?' if query else ''}{query or ''}"
    more = [reason for reason in (outcome.settled, outcome.detail) if reason not in (None, outcome.reason)]
    asked = {"url": plain_target(path, query or "") if parts is None else parts.url}
    if outcome.method not in (None, "GET"):
        asked["method"] = str(outcome.method)
    return Shown(
        at=decision.at,
        method=figures.readable((outcome.method or figures.NONE)[:LONGEST]),
        url=figures.readable(shown[:LONGEST]) + ("…" if len(shown) > LONGEST else ""),
        explain=urlencode(asked, errors="replace"),
        reason=outcome.reason,
        remedy=None if outcome.reason.is_hit else REMEDIES.get(outcome.reason),
        more=[reason for reason in dict.fromkeys(more) if reason is not None],
        status=outcome.status,
        seconds=outcome.seconds,
        rule=outcome.rule,
        collapsed=outcome.collapsed,
    )
