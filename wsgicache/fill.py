"""One call of the app, from the cache's side: what is asked, what is made of the answer, who is told.

The adapter (`capture`) moves bytes; a `Fill` decides. It always ends exactly once, and with it the flight
that others may be waiting for.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any, Final

from .answer import Answer, answer, not_modified_answer
from .body import Body, FileBody, make_etag
from .collapse import PENDING, Flight
from .conditional import COOKIES, as_304, may_freshen, merge_304, not_modified
from .early import cost_of, shortened
from .encode import client_has_form, coding_of, is_form, long_enough, with_tag, with_vary, without_vary
from .engine import Engine
from .entry import Entry, Headers, Terms, intern_terms
from .fields import http_date, parse_etag
from .found import Found
from .head import Head
from .hints import IGNORE, Hints
from .journal import Verdict
from .key import CODING_FIELD
from .outcome import Outcome, Reason
from .policy import Admission, usable_on_error
from .settle import Settlement, age_on_arrival, is_searched, make_entry, settle, settle_body
from .stores.spool import read_body
from .tokens import MAX_SEARCHED, holds_token


class Action(Enum):
    """What the adapter does with a response head."""

    PASS = "pass"
    KEEP = "keep"
    FRESHENED = "freshened"
    AGAIN = "again"
    STALE = "stale"


KEEP: Final[Action] = Action.KEEP
_STORED: Final[Reason] = Reason.STORED
"""Members by themselves: to read one from its enum costs as much as a call."""


class Fill:
    """One call of the app for a request that may be stored.

    Args:
        engine: the cache.
        admission: how the request was admitted.
        found: what the look-up found, with the mark at which this fill is born.
        flight: those who wait for the answer, or None where nobody may.
        hints: what the app says during the call.
    """

    __slots__ = (
        "_ended",
        "_environ",
        "_head_at",
        "_said",
        "admission",
        "asked",
        "background",
        "conditional",
        "engine",
        "entry",
        "flight",
        "found",
        "head",
        "hints",
        "outcome",
        "passed_on",
        "settlement",
        "stripped",
        "token",
    )

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        found: Found,
        flight: Flight | None,
        hints: Hints,
    ) -> None:
        self.engine = engine
        self.admission = admission
        self.found = found
        self.flight = flight
        self.hints = hints
        self.token = engine.token_for(flight)
        self.asked = engine.clock.wall()
        self.background = False
        """No visitor waits: the outcome is a refresh's, not a request's."""
        self.conditional = False
        self.stripped = False
        """The client's own conditionals were taken away before the app was asked."""
        self.head: Head | None = None
        self.settlement = _UNSETTLED
        self.entry: Entry | None = None
        self.passed_on: Headers = ()
        """Fields of a 304 that this client gets beside the entry's."""
        self.outcome = Outcome(
            found.reason,
            key=admission.key,
            rule=admission.plan.label,
            method=admission.facts.method,
        )
        self._head_at = self.asked
        self._environ: dict[str, Any] = {}
        self._said: tuple[object, ...] = ()
        self._ended = False

    # --- asking ------------------------------------------------------------------------------------

    def validators(self) -> dict[str, str]:
        """Conditional request fields by environ name, for a stale entry that the app can validate.

        RFC 9111 §4.3.1. A soft-purged entry is validated by a strong ETag only, and a tag that this
        cache made means nothing to the app.
        """
        entry = self.found.entry
        if entry is None or not self._is_worth_validating(entry):
            return {}
        asked = {}
        if entry.etag is not None and not entry.terms.made_etag:
            asked["HTTP_IF_NONE_MATCH"] = entry.etag
        if entry.last_modified is not None and self.found.verdict is Verdict.VALID:
            asked["HTTP_IF_MODIFIED_SINCE"] = entry.last_modified
        self.conditional = bool(asked)
        return asked

    def _is_worth_validating(self, entry: Entry) -> bool:
        if entry.terms.code != 200 or self.found.reason in _UNRELATED or not entry.has_validator:
            return False
        if is_form(entry):  # its page was evicted: what the app says would be about that
            return False
        if self.found.verdict is Verdict.VALID:
            return True
        tag = None if entry.etag is None or entry.terms.made_etag else parse_etag(entry.etag)
        return self.found.verdict is Verdict.SOFT and tag is not None and not tag.weak

    # --- the head ----------------------------------------------------------------------------------

    def decide(self, status: str, headers: list[tuple[str, str]], environ: dict[str, Any]) -> Action:
        """What to do with the app's answer, judged by its head. Adds to `headers` what its client is told."""
        engine, admission = self.engine, self.admission
        self.head = head = Head(status, headers)
        self.outcome.forward_status = self.outcome.status = head.code
        self._head_at = engine.clock.wall()
        self.outcome.seconds = self._head_at - self.asked
        self._environ = environ
        ignored = False
        if self.hints.said or IGNORE in environ:
            self._said = self._says()
            ignored = bool(environ.get(IGNORE))
        if ignored:
            self.hints.ignore()  # an outer cache hears hints, not what is set in a copy of its environ
        if self.conditional and head.code == 304:
            return self._freshen(head, environ)
        if head.code >= 500 and (self._is_early or self.stale_usable()):
            return Action.STALE
        self.settlement = settle(admission, head, self.hints, ignored, self._head_at)
        terms = self.settlement.terms
        if terms is not None:
            if admission.plan.encode:
                self._tell_of_forms()
                headers[:] = head.headers
            self.outcome.settled = _STORED  # what is told if the head goes out before the body's end
            if admission.plan.jitter or admission.plan.early_refresh:
                terms = self._spread(terms)
            self.outcome.ttl = terms.lifetime - int(age_on_arrival(head, self.asked, self._head_at))
            return KEEP
        self._not_stored(self.settlement.reason)
        return Action.PASS

    def _spread(self, terms: Terms) -> Terms:
        """The terms of this very response: its lifetime shortened at random, and what it cost the app.

        The settlement may be remembered for other pages, so that it is not touched.
        """
        plan, settled, head, seconds = self.admission.plan, self.settlement, self.head, self.outcome.seconds
        lifetime, cost = terms.lifetime, 0
        if plan.jitter and head is not None:
            age = int(age_on_arrival(head, self.asked, self._head_at))
            lifetime = shortened(lifetime, age, plan.jitter, self.engine.uniform())
        if plan.early_refresh and seconds is not None:
            cost = cost_of(seconds)
        elif plan.early_refresh and self.found.entry is not None:  # a HEAD says nothing of a GET's cost
            cost = self.found.entry.terms.cost
        terms = intern_terms(terms._replace(lifetime=lifetime, cost=cost))
        self.settlement = Settlement(settled.reason, terms, settled.directives, settled.dropped)
        return terms

    @property
    def _is_early(self) -> bool:
        """Whether this refreshes a page that is still fresh: no error of the app may replace that."""
        return self.background and self.found.reason is Reason.HIT

    def _tell_of_forms(self) -> None:
        """The page will have forms: `Vary` says so. What the app said itself stays in the head's `fields`."""
        terms, head = self.settlement.terms, self.head
        if terms is None or head is None or CODING_FIELD not in terms.varying:
            return
        if long_enough(head.length, self.admission.plan.settings.encode_min_bytes):
            head.headers = with_vary(head.headers)

    def _not_stored(self, reason: Reason) -> None:
        """The answer is for this client alone: those who wait go to the app, all at once."""
        self.outcome.settled = reason
        self.outcome.ttl = None
        if reason not in _SAYS_NOTHING_OF_THE_PAGE:
            self.engine.markers.set(self.admission.key, self.engine.clock.wall(), reason)
        if reason in _ENDS_THE_PAGE:
            self._forget_what_was_found(reason)
        if reason is Reason.NOT_STORED_RACED:
            self.failed()  # what came meanwhile may answer them
        else:
            self._release(marked=reason not in _SAYS_NOTHING_OF_THE_PAGE)

    def _forget_what_was_found(self, reason: Reason) -> None:
        """The app says of the page itself that it is not to be stored, or is gone: its stale windows end."""
        code = 0 if self.head is None else self.head.code
        gone = reason in _TAKEN_BACK or code in _GONE
        visitor = self.admission.personal is not None or self.found.reason in _UNRELATED
        if self.found.entry is not None and gone and not visitor:
            self.engine.forget(self.found, self.found.entry)

    def stale_usable(self) -> bool:
        """Whether the entry found may stand in for an app that fails."""
        return stale_usable(self.engine, self.found)

    def _freshen(self, head: Head, environ: dict[str, Any]) -> Action:
        """A 304 for the validators of the entry found (RFC 9111 §4.3.4)."""
        entry = self.found.entry
        assert entry is not None  # noqa: S101 - validators come from an entry
        fields = head.fields
        if self.engine.verdict_now(entry) is Verdict.HARD or not may_freshen(
            None if entry.terms.made_etag else entry.etag,
            entry.last_modified,
            fields.get("etag"),
            fields.get("last-modified"),
        ):
            return Action.AGAIN
        keeps = self.admission.plan.keeps_cookies
        self.passed_on = () if keeps else tuple([pair for pair in head.headers if pair[0].lower() in COOKIES])
        self.head = merged = self._merged(entry, head)
        self.settlement = settle(self.admission, merged, self.hints, bool(environ.get(IGNORE)), self._head_at)
        self._tell_of_forms()
        if self.settlement.terms is not None:
            self._spread(self.settlement.terms)
            self._keep_freshened(entry)
        else:
            if self.settlement.reason is not Reason.NOT_STORED_SET_COOKIE:
                self.engine.forget(self.found)
            self.entry = _with_headers(entry, merged)
            self._not_stored(self.settlement.reason)
        return Action.FRESHENED

    def _merged(self, entry: Entry, head: Head) -> Head:
        """The head of an entry as a 304 or an answer to HEAD updates it (RFC 9111 §3.2)."""
        sent = head.headers
        if "date" not in head.fields and entry.field("date") is not None:  # RFC 9110 §6.6.1: it was sent now
            sent = (*sent, ("Date", http_date(self._head_at)))
        ours = coding_of(entry) is not None and "accept-encoding" not in entry.terms.varying
        stored = without_vary(entry.headers) if ours else entry.headers
        updated = merge_304(stored, sent, cookies=self.admission.plan.keeps_cookies)
        merged = Head(entry.terms.status, updated)
        merged.fields.update({name: head.fields[name] for name in _OF_THE_304 if name in head.fields})
        return merged

    def _keep_freshened(self, old: Entry) -> None:
        fresh = self._make(old.body)
        if fresh is None:
            self.entry = old
            return self._not_stored(Reason.NOT_STORED_FIELDS)
        groups = tuple(sorted({*old.terms.groups, *fresh.terms.groups}))
        if len(groups) > self.admission.plan.settings.max_groups:
            self.entry = old
            self.engine.forget(self.found, old)
            return self._not_stored(Reason.NOT_STORED_GROUPS)
        terms = intern_terms(fresh.terms._replace(groups=groups, made_etag=old.terms.made_etag))
        fresh = Entry(
            fresh.key, terms, fresh.headers, old.body, fresh.since, fresh.fresh_until, fresh.born,
            fresh.values,
        )  # fmt: skip
        reason, self.entry = self.engine.keep(fresh, self.found, self.token)
        if reason is Reason.STORED:
            self._stored(self.entry, Reason.FRESHENED)
        else:
            self._not_stored(reason)
        return None

    def learn_from_head(self, status: str, headers: Iterable[tuple[str, str]], ignored: bool) -> None:
        """The app's answer to HEAD freshens the stored GET, or shows it to be out of date (§4.3.5)."""
        entry, head = self.found.entry, Head(status, headers)
        if entry is None or self.found.reason in _UNRELATED or head.code != entry.terms.code:
            return
        if is_form(entry):
            return
        stated = [name for name in ("etag", "last-modified", "content-length") if name in head.fields]
        if any(head.fields[name] != entry.field(name) for name in stated if not _is_made(entry, name)):
            self.engine.forget(self.found)
        elif "etag" in stated or "last-modified" in stated:
            self._head_at = self.engine.clock.wall()
            self.head = self._merged(entry, head)
            self.settlement = settle(self.admission, self.head, self.hints, ignored, self._head_at)
            self._tell_of_forms()
            terms = self.settlement.terms
            if terms is not None and self.engine.verdict_now(entry) is Verdict.VALID:
                self._spread(terms)
                self._keep_freshened(entry)

    def prepare_again(self) -> None:
        """The 304 was of no use: ask once more, unconditionally, at a newly read mark (INT-07)."""
        self.found = self.engine.look_up(self.admission)
        self.conditional = False
        self.asked = self.engine.clock.wall()

    # --- the body ----------------------------------------------------------------------------------

    def _says(self) -> tuple[object, ...]:
        """What the app has said of the response beside its head."""
        hints = self.hints
        named = len(hints.groups) if hints.groups else 0
        ignored = bool(self._environ.get(IGNORE))
        return ignored, hints.ignored, hints.personal, hints.session_accessed, hints.lifetime, named

    def complete_file(self, body: FileBody) -> Reason:
        """The whole body is there, in a file: see `complete`.

        Raises:
            OSError: it cannot be read again.
        """
        head = self.head
        assert head is not None  # noqa: S101 - decide came first
        if is_searched(self.admission, head):
            page = read_body(body, MAX_SEARCHED)
            if page is None or holds_token(page, head.fields.get("content-encoding")):
                self._not_stored(Reason.NOT_STORED_TOKEN)
                return Reason.NOT_STORED_TOKEN
        return self.complete(body)

    def complete(self, body: Body) -> Reason:
        """The whole body is there: store it, and let those who wait have it."""
        head = self.head
        assert head is not None  # noqa: S101 - decide came first
        more = (self.hints.said or IGNORE in self._environ) and self._says() != self._said
        if more:  # a body that was made meanwhile may know better than its head
            self._said = self._says()
            self.outcome.ttl = None
            ignored = bool(self._environ.get(IGNORE))
            self.settlement = settle(self.admission, head, self.hints, ignored, self._head_at)
            if self.settlement.terms is None:
                self._not_stored(self.settlement.reason)
                return self.settlement.reason
            self._spread(self.settlement.terms)
        replaced = None if self.found.miss in _UNRELATED else self.found.entry
        reason = settle_body(self.admission, head, body, replaced)
        if reason is None:
            entry = self._make(body)
            if entry is None:
                reason = Reason.NOT_STORED_FIELDS
            else:
                reason, entry = self.engine.keep(entry, self.found, self.token)
                if reason is _STORED:
                    self._stored(entry, reason)
                    return reason
        self._not_stored(reason)
        return reason

    def _make(self, body: Body) -> Entry | None:
        head, found = self.head, self.found
        if found.mark is None or head is None:
            return None
        settled, terms = self.settlement, self.settlement.terms
        if self.engine.settings.no_vary_search and self.admission.facts.query:
            keep_until = self._head_at + (terms.lifetime + terms.keep if terms is not None else 0)
            self.engine.note_search(self.admission, head.fields.get("no-vary-search"), keep_until)
        if terms is not None and (found.variants is not None or self.admission.plan.encode):
            varying = self._varying(terms, body)
            if varying != terms.varying:  # the settlement may be remembered for other pages: not touched
                terms = intern_terms(terms._replace(varying=varying))
                self.settlement = Settlement(settled.reason, terms, settled.directives, settled.dropped)
        return make_entry(
            self.admission,
            head,
            self.settlement,
            body,
            born=found.mark,
            asked=self.asked,
            now=self._head_at,
        )

    def _varying(self, terms: Terms, body: Body) -> tuple[str, ...]:
        """By what the page varies: this answer, and those before it. Forms need a body that is long enough,
        which may be known only now, and in memory; beside other variants that have forms it varies by the
        coding too."""
        names, plan, head = set(terms.varying), self.admission.plan, self.head
        may_have = isinstance(body, bytes) and long_enough(len(body), plan.settings.encode_min_bytes)
        if CODING_FIELD in names and not may_have:
            names.discard(CODING_FIELD)
            if head is not None:
                head.headers = without_vary(head.headers)
        if self.found.variants is not None:
            names.update(self.found.variants.fields)
        return tuple(sorted(names if plan.encode else names - {CODING_FIELD}))

    def _stored(self, entry: Entry, reason: Reason) -> None:
        self.entry = entry
        self.outcome.settled = reason
        self.outcome.size = len(entry.body)
        if self.outcome.ttl is None:  # else it was told with the head
            self.outcome.ttl = entry.ttl(self.engine.clock.wall())
        if self.engine.markers.marks:
            self.engine.markers.unset(self.admission.key)
        if self.flight is not None:
            self.engine.land(self.flight, entry)

    def too_large(self) -> None:
        """The body went past `max_body_bytes`: it streams on, unstored."""
        self._not_stored(Reason.NOT_STORED_TOO_LARGE)

    def no_file(self, error: OSError) -> None:
        """The body is too large for memory, and a file cannot be had: it streams on, unstored."""
        self._not_stored(Reason.NOT_STORED_FILE)
        self.engine.observer.warn_once(
            f"spool {error.errno}", "a body could not be kept in a file (%s); the page is not stored", error
        )

    def broken_off(self, reason: Reason = Reason.NOT_STORED_BROKEN_OFF) -> None:
        """The body did not come to its end, or went past it: nothing of it stays stored."""
        if self.entry is not None and self.outcome.settled is Reason.STORED:
            self.engine.revoke(self.entry)
        self.outcome.settled = reason
        self.outcome.ttl = None
        self.failed()

    # --- the end -----------------------------------------------------------------------------------

    @property
    def followed(self) -> bool:
        """Whether somebody waits for the answer."""
        return self.flight is not None and self.flight.followers > 0

    def _release(self, *, marked: bool) -> None:
        if self.flight is not None:
            self.engine.release(self.flight, marked=marked)

    def gave_stale(self) -> None:
        """The app failed and the stale entry answered: those who wait may have it too."""
        if self.flight is not None:
            self.engine.give_stale(self.flight)

    def failed(self) -> None:
        """There is nothing to share: one of those who wait asks the app itself."""
        if self.flight is not None:
            self.engine.fail(self.flight)

    def end(self) -> None:
        """Whatever happened: nobody waits any more, and the outcome is counted, once."""
        if self._ended:
            return
        self._ended = True
        if self.hints.said or IGNORE in self._environ:
            self._hear_last_words()
        if self.flight is not None and self.flight.state is PENDING:
            self.failed()
        if self.background:
            self.engine.observer.refreshed(self.outcome)
        else:
            self.engine.observer.record(self.outcome)
        self.entry = self.flight = None  # a body may be a file that goes with the last who holds it

    def _hear_last_words(self) -> None:
        """What the app said of a response that was stored before its iterable came to an end."""
        if self.entry is None or self.outcome.settled is not _STORED or self._says() == self._said:
            return
        self.engine.revoke(self.entry)
        ignored = bool(self._environ.get(IGNORE)) or self.hints.ignored
        self.outcome.settled = Reason.NOT_STORED_IGNORED if ignored else Reason.NOT_STORED_HINT

    # --- answers made here -------------------------------------------------------------------------

    def answer_entry(self, entry: Entry) -> Answer:
        """What the client gets from an entry: its own conditionals are judged now."""
        if self.admission.plan.encode:
            return self.engine.forms.answer(entry, self.admission)
        return answer(entry, self.admission.facts)

    def not_modified(self, body: Body | None) -> Answer | None:
        """A 304 where the client's own conditionals say that it has this response already.

        They were taken away before the app was asked, so that its answer could be stored.

        Args:
            body: the whole body if it is there, so that a tag of ours can be compared.
        """
        facts, head = self.admission.facts, self.head
        if head is None or head.code != 200 or not self.stripped:
            return None
        etag = head.fields.get("etag")
        if etag is None and body is not None and self.settlement.reason is Reason.STORED:
            etag = make_etag(body)
        modified, date = head.fields.get("last-modified"), head.fields.get("date")
        if not not_modified(facts.if_none_match, facts.if_modified_since, etag, modified, date):
            return self._form_not_modified(etag)
        if self.settlement.reason is not Reason.STORED:  # made for this client: nothing of it is lost
            return Answer("304 Not Modified", as_304(head.headers), ())
        headers = head.headers if etag in (None, head.fields.get("etag")) else (*head.headers, ("ETag", etag))
        return not_modified_answer(headers)

    def _form_not_modified(self, etag: str | None) -> Answer | None:
        """A 304 where the client has a form of this page, which is to be made again."""
        terms, head = self.settlement.terms, self.head
        if terms is None or head is None or CODING_FIELD not in terms.varying:
            return None
        coding = self.admission.wanted_form
        if coding is None:
            return None
        tag = client_has_form(etag, coding, self.admission.facts.if_none_match)
        return None if tag is None else not_modified_answer(with_tag(head.headers, tag))


_UNSETTLED = Settlement(Reason.NOT_STORED_BROKEN_OFF)


def _with_headers(entry: Entry, head: Head) -> Entry:
    return Entry(
        entry.key, entry.terms, head.headers, entry.body, entry.since, entry.fresh_until, entry.born,
        entry.values,
    )  # fmt: skip


_OF_THE_304 = ("age", *COOKIES)
"""Fields that the stored response does not take over, but that decide what becomes of it."""


def stale_usable(engine: Engine, found: Found) -> bool:
    """Whether what was found may stand in for an app that fails (RFC 5861 §4)."""
    entry = found.entry
    if entry is None or found.reason in _UNRELATED:
        return False
    return usable_on_error(entry, engine.verdict_now(entry), engine.clock.wall())


def _is_made(entry: Entry, name: str) -> bool:
    return name == "etag" and entry.terms.made_etag


_UNRELATED = frozenset(
    {
        Reason.MISS_RULES,
        Reason.MISS_PURGED,
        Reason.VARY_MISS,
        Reason.BYPASS_COOKIE,
        Reason.BYPASS_AUTHORIZATION,
    }
)
"""Reasons for which the entry found is not to be touched or shown: it is not this request's."""

_TAKEN_BACK = frozenset({Reason.NOT_STORED_NO_STORE, Reason.NOT_STORED_PRIVATE, Reason.NOT_STORED_NO_CACHE})
_ENDS_THE_PAGE = _TAKEN_BACK | {
    Reason.NOT_STORED_STATUS,
    Reason.NOT_STORED_NO_LIFETIME,
    Reason.NOT_STORED_STALE,
}
_GONE = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 410})
"""Statuses, not stored, after which the page that was stored is not to be shown any more."""

_SAYS_NOTHING_OF_THE_PAGE = frozenset(
    {
        Reason.NOT_STORED_METHOD,
        Reason.NOT_STORED_RANGE,
        Reason.NOT_STORED_REQUEST,
        Reason.NOT_STORED_RACED,
        Reason.NOT_STORED_STORE,
        Reason.NOT_STORED_COOKIE,
        Reason.NOT_STORED_AUTHORIZATION,
        Reason.NOT_STORED_VARY_COOKIE,
        Reason.NOT_STORED_BROKEN_OFF,
        Reason.NOT_STORED_FILE,
    }
)
"""Reasons that come from this request, not from the page: no miss marker for the others."""
