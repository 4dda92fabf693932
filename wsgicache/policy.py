"""The decisions: may this request use the cache (admit), does what is stored answer it (judge), is the
app's answer stored (settle). Pure: every function takes the instants it needs.

One rule, one fact, one function, one early exit: each returns a `Reason`, or None where it has nothing
to say. The first reason in a row decides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from .conditional import COOKIES
from .entry import FOREVER, Entry, Headers, Terms, intern_pairs, intern_terms
from .facts import Facts
from .fields import (
    EMPTY,
    HOP_BY_HOP,
    Directives,
    cache_control,
    cookie_pairs,
    is_field_value,
    is_token,
    string_list,
    targeted,
    vary_names,
)
from .freshness import HEURISTIC_STATUSES, Lifetime, explicit_lifetime, heuristic_lifetime, initial_age
from .hints import Hints
from .journal import Mark, Verdict
from .key import (
    COOKIE_FIELD,
    MEMO_LIMIT,
    base_key,
    canonical_host,
    environ_name,
    has_method_override,
    matches_any,
    normal_query,
    raw_extra,
    refuse_path,
    refuse_query,
    split_key,
    varying_values,
)
from .outcome import Reason
from .plan import CookiePlan, Plan
from .rules import RuleSet
from .search import SearchRules
from .tokens import csp_has_nonce, holds_token, is_html

ANSWERED: Final = frozenset({"GET", "HEAD"})
SAFE_METHODS: Final = frozenset({"OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
"""Methods registered as safe that are not answered from the store; all others may change something."""

SAFE_STATUSES: Final = frozenset({200, 203, 204, 300, 301, 302, 303, 307, 308, 404, 410})
NEVER_WHOLE: Final = frozenset({206, 304})
UNDERSTOOD: Final = frozenset(
    {
        200,
        203,
        204,
        300,
        301,
        302,
        303,
        307,
        308,
        400,
        401,
        403,
        404,
        405,
        406,
        410,
        414,
        415,
        421,
        451,
    }
    | {500, 501, 502, 503, 504}
)
"""Statuses whose caching behaviour this cache implements (RFC 9111 §5.2.2.3, must-understand)."""

NO_BODY: Final = frozenset({204, 304})


# --- admit -----------------------------------------------------------------------------------------


class Cookies(NamedTuple):
    """What the cookies of a request mean: what the app sees on a fill, what enters keys, and whether a
    visitor may be behind them."""

    seen: str | None
    keyed: str | None
    named: Mapping[str, str]
    personal: bool
    lookup_only: bool


NO_COOKIES: Final = Cookies(None, None, {}, False, False)


def sift_cookies(header: str, plan: CookiePlan) -> Cookies:
    """Sort the cookies of a request by house rule 6. Short fields are remembered, long ones are not."""
    return _sifted(header, plan) if len(header) <= MEMO_LIMIT else _sift(header, plan)


def _sift(header: str, plan: CookiePlan) -> Cookies:
    pairs = cookie_pairs(header)
    if plan.named is not None:
        kept = [pair for pair in pairs if pair[0] in plan.named]
        text = "; ".join([pair[1] for pair in kept]) or None
        named: dict[str, str] = {}
        for name, pair in kept:  # apps differ in which of two cookies with one name they read
            value = pair.partition("=")[2]
            named[name] = f"{named[name]};{value}" if name in named else value
        return Cookies(text, text, named, False, False)
    if not plan.bypass:
        return Cookies(header, header, {}, False, False)
    rest = [pair for pair in pairs if not matches_any(pair[0], plan.harmless) or _hides_another(pair[1])]
    if not rest:
        return NO_COOKIES
    if all(matches_any(name, plan.lookup_only) and not _hides_another(pair) for name, pair in rest):
        return Cookies(header, None, {}, False, True)
    return Cookies(header, header, {}, True, False)


def _hides_another(pair: str) -> bool:
    """Whether a cookie's text holds a second one: servers join two Cookie lines with a comma."""
    return "," in pair and _SECOND_COOKIE.search(pair) is not None


_SECOND_COOKIE: Final = re.compile(r",\s*[^\s,;=]+=")


_sifted = lru_cache(maxsize=4096)(_sift)


class Admission:
    """What `admit` found out about a request.

    `reason` is set where the cache stands aside. `personal` says why only a response that declares itself
    public may answer. `unstorable` is known before the app is called. `key` is the base key; `seen_query`
    and `cookies.seen` are what the app gets to see when its answer may be stored.
    """

    __slots__ = (
        "cookies",
        "facts",
        "host",
        "key",
        "personal",
        "plan",
        "reason",
        "rules",
        "seen_query",
        "stamp",
        "unstorable",
    )

    def __init__(self, facts: Facts, plan: Plan, host: str | None) -> None:
        self.facts = facts
        self.plan = plan
        self.host = host
        self.reason: Reason | None = None
        self.personal: Reason | None = None
        self.unstorable: Reason | None = None
        self.key = ""
        self.seen_query = facts.query
        self.stamp: object = None
        """The engine's stamp before the plan was chosen: what was chosen may be armed under this one."""
        self.rules: object = None
        """What the rules were known by before the plan was chosen."""
        self.cookies = NO_COOKIES

    def rekey(self, rules: SearchRules | None) -> str:
        """Make the key anew with the query as No-Vary-Search compares it, or as it was seen."""
        parts = split_key(self.key)
        query = self.seen_query if rules is None else rules.apply(self.seen_query)
        self.key = base_key(parts.path, query, parts.host, parts.scheme, parts.extra)
        return self.key

    def value_of(self, field: str) -> str | None:
        """The request's value of a varying field, in its normal form."""
        if field == "cookie":
            return self.cookies.keyed
        if field.startswith(COOKIE_FIELD):
            return self.cookies.named.get(field[len(COOKIE_FIELD) :])
        value: str | None = self.facts.get(environ_name(field))
        normalise = self.plan.normalisers.get(field)
        return value if normalise is None else normalise(value)


def admit(facts: Facts, rules: RuleSet, plans: Sequence[Plan]) -> Admission:
    """Whether and how a request may use the cache."""
    host = canonical_host(facts.host, facts.scheme)
    plan = plans[rules.find(facts.path, host or "", facts.method)]
    admission = Admission(facts, plan, host)
    reason = _refuse(facts, admission)
    if reason is None and (facts.query or facts.has_body or facts.unusual):
        reason = _refuse_rare(facts, admission)
    if reason is not None:
        admission.reason = reason
        return admission
    _make_key(facts, admission)
    if facts.cookie is not None:
        admission.cookies = sift_cookies(facts.cookie, plan.cookies)
    if facts.credentials or admission.cookies.personal:
        admission.personal = _personal(facts, admission)
    if facts.method != "GET" or facts.unusual or plan.profile.obey_request:
        admission.unstorable = _unstorable_request(facts, admission)
    return admission


def _refuse(facts: Facts, admission: Admission) -> Reason | None:
    """Why a request is refused that may be of the plainest kind. One function for several facts: every
    request passes here that is no hit, and a call costs more than the question."""
    if facts.unusual and facts.ignored:
        return Reason.BYPASS_IGNORED
    if admission.plan.bypass:
        return Reason.BYPASS_RULE
    if facts.method not in ANSWERED:
        return Reason.METHOD_SAFE if facts.method in SAFE_METHODS else Reason.METHOD_UNSAFE
    if admission.host is None:
        return Reason.BYPASS_HOST
    return refuse_path(facts.path) or _refuse_length(facts, admission.plan.settings.max_key_bytes)


def _refuse_length(facts: Facts, limit: int) -> Reason | None:
    size = len(facts.path) + len(facts.query) + len(facts.host) + len(facts.forwarded)
    if size > limit or (facts.raw is not None and size + len(facts.raw) > 2 * limit):
        return Reason.BYPASS_KEY
    return None


def _refuse_rare(facts: Facts, admission: Admission) -> Reason | None:
    """Asked only where the request has a query, a body or an unusual field."""
    for check in _RARE_REFUSALS:
        reason = check(facts, admission)
        if reason is not None:
            return reason
    return None


def _refuse_overrides(facts: Facts, admission: Admission) -> Reason | None:
    if not admission.plan.profile.refuse_overrides:
        return None
    if facts.rewritten:
        return Reason.BYPASS_REWRITE
    if facts.overridden or (facts.query and has_method_override(facts.query)):
        return Reason.BYPASS_OVERRIDE
    return None


def _refuse_body(facts: Facts, admission: Admission) -> Reason | None:
    return Reason.BYPASS_BODY if facts.has_body else None


def _refuse_precondition(facts: Facts, admission: Admission) -> Reason | None:
    return Reason.BYPASS_PRECONDITION if facts.precondition else None


def _refuse_query(facts: Facts, admission: Admission) -> Reason | None:
    if not facts.query:
        return None
    return Reason.BYPASS_QUERY if admission.plan.query == "bypass" else refuse_query(facts.query)


_RARE_REFUSALS: Final = (_refuse_overrides, _refuse_body, _refuse_precondition, _refuse_query)


def _make_key(facts: Facts, admission: Admission) -> None:
    plan, query, raw = admission.plan, facts.query, facts.raw
    extra = "" if raw is None or raw == facts.path else raw_extra(raw, facts.path, query)
    if facts.forwarded:  # no forwarded value may pose as another part
        extra = f"{facts.forwarded}\x02{extra}" if extra else facts.forwarded
    if query and plan.query != "bypass":
        query = normal_query(query, plan.ignore_query, plan.query == "sort")
        admission.seen_query = query
    if extra and ("\0" in extra or "\1" in extra):
        admission.reason = Reason.BYPASS_KEY
        return
    admission.key = base_key(facts.path, query, admission.host or "", facts.scheme, extra)


def _personal(facts: Facts, admission: Admission) -> Reason | None:
    """Why only a response that declares itself public may answer (house rules 5 and 6)."""
    if facts.credentials:
        return Reason.BYPASS_AUTHORIZATION
    return Reason.BYPASS_COOKIE if admission.cookies.personal else None


def _unstorable_request(facts: Facts, admission: Admission) -> Reason | None:
    """Why no answer to this request is stored, whatever it says."""
    if facts.method != "GET" and not _head_may_fill(admission):
        return Reason.NOT_STORED_METHOD
    if facts.range is not None:
        return Reason.NOT_STORED_RANGE
    if admission.plan.profile.obey_request and "no-store" in request_directives(facts):
        return Reason.NOT_STORED_REQUEST
    return None


def _head_may_fill(admission: Admission) -> bool:
    """Whether a HEAD that finds nothing is asked as a GET, so that its answer can be stored: the app would
    have made the same response for both (RFC 9110 §9.3.2)."""
    visitor = admission.personal is not None or admission.cookies.lookup_only
    return admission.plan.profile.head_fills and not visitor


def request_directives(facts: Facts) -> Directives:
    """The request's Cache-Control; `Pragma: no-cache` counts where there is none (RFC 9111 §5.4)."""
    if facts.cache_control is not None:
        return cache_control(facts.cache_control)
    if facts.pragma is not None and "no-cache" in cache_control(facts.pragma):
        return cache_control("no-cache")
    return EMPTY


# --- judge -----------------------------------------------------------------------------------------


def judge(admission: Admission, entry: Entry, verdict: Verdict, now: float) -> Reason:
    """Whether a stored response answers a request, and if not, why.

    Args:
        verdict: what the journal says of the entry.
        now: the engine's instant.
    """
    terms = entry.terms
    if terms.fingerprint != admission.plan.fingerprint:
        return Reason.MISS_RULES
    if verdict is Verdict.HARD:
        return Reason.MISS_PURGED
    if terms.varying and entry.values != varying_values(terms.varying, admission.value_of):
        return Reason.VARY_MISS
    barred = _barred(admission, terms)
    if barred is not None:
        return barred
    if terms.always_validate:
        return Reason.STALE_NO_CACHE
    return _judge_age(admission, entry, verdict, now)


def _barred(admission: Admission, terms: Terms) -> Reason | None:
    """A request with credentials or a visitor's cookie is answered only by what allows it."""
    if admission.personal is None:
        return None
    facts = admission.facts
    if facts.credentials and not terms.for_credentials:
        return Reason.BYPASS_AUTHORIZATION
    if admission.cookies.personal and not terms.for_cookies:
        return Reason.BYPASS_COOKIE
    return None


def _judge_age(admission: Admission, entry: Entry, verdict: Verdict, now: float) -> Reason:
    if entry.since > now + 1:  # from the future: a clock went back, so its age is unknown
        return Reason.STALE
    soft = verdict is Verdict.SOFT
    refused = admission.plan.profile.obey_request and _refused_by_request(admission.facts, entry, now)
    if now < entry.fresh_until and not soft:
        return Reason.REQUEST_DIRECTIVE if refused else Reason.HIT
    terms = entry.terms
    if not terms.never_stale:
        if terms.stale_while_revalidate and now < entry.stale_while_revalidate_until and not refused:
            return Reason.HIT_STALE_WHILE_REVALIDATE
        if admission.plan.profile.obey_request and not soft and _allows_stale(admission.facts, entry, now):
            return Reason.HIT_MAX_STALE
    return Reason.STALE_PURGED if soft else Reason.STALE


def _refused_by_request(facts: Facts, entry: Entry, now: float) -> bool:
    """Whether the request's directives refuse what is stored unless it is validated (RFC 9111 §5.2.1)."""
    directives = request_directives(facts)
    if not directives:
        return False
    max_age = directives.seconds("max-age")
    min_fresh = directives.seconds("min-fresh")
    return (
        "no-cache" in directives
        or (max_age is not None and now - entry.since > max_age)
        or (min_fresh is not None and entry.fresh_until - now < min_fresh)
    )


def _allows_stale(facts: Facts, entry: Entry, now: float) -> bool:
    """Whether `max-stale` in the request allows this staleness (RFC 9111 §5.2.1.2)."""
    directives = request_directives(facts)
    if "max-stale" not in directives or "no-cache" in directives:
        return False
    max_age = directives.seconds("max-age")
    if max_age is not None and now - entry.since > max_age + (directives.seconds("max-stale") or 0):
        return False
    return directives.plain("max-stale") or now - entry.fresh_until <= (directives.seconds("max-stale") or 0)


def usable_on_error(entry: Entry, verdict: Verdict, now: float) -> bool:
    """Whether a stale entry may stand in for an app that fails (RFC 5861 §4, RFC 9111 §4.2.4).

    One error is no better than another: a stored 5xx does not.
    """
    terms = entry.terms
    return (
        verdict is not Verdict.HARD
        and terms.code < 500
        and terms.stale_if_error > 0
        and not terms.never_stale
        and not terms.always_validate
        and now < entry.stale_if_error_until
    )


# --- settle ----------------------------------------------------------------------------------------


class Head:
    """A response head: the status line, the fields in order, and their values by lower-case name.

    `length` is the declared Content-Length; -1 where it is junk or contradicts itself.
    """

    __slots__ = ("code", "fields", "headers", "length", "status")

    def __init__(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        self.status = status
        self.code = int(status[:3]) if status[:3].isdecimal() else 0
        self.headers: Headers = tuple([(name, value) for name, value in headers])
        fields: dict[str, str] = {}
        for name, value in self.headers:
            lower = name.lower()
            fields[lower] = f"{fields[lower]}, {value}" if lower in fields else value
        self.fields = fields
        length = fields.get("content-length")
        self.length = None if length is None else _length(length)


def _length(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else -1


class Settlement:
    """What `settle` decided of a response head: the reason and, where it may be stored, the terms, the
    directives that steered it and the names of fields that are left out of the stored copy."""

    __slots__ = ("directives", "dropped", "reason", "terms")

    def __init__(
        self,
        reason: Reason,
        terms: Terms | None = None,
        directives: Directives = EMPTY,
        dropped: frozenset[str] = frozenset(),
    ) -> None:
        self.reason = reason
        self.terms = terms
        self.directives = directives
        self.dropped = dropped


def settle(admission: Admission, head: Head, hints: Hints, ignored: bool, now: float) -> Settlement:
    """Whether an answer may be stored, judged by its head; `settle_body` judges the rest.

    The pages of a site differ in few of the fields that matter, so a decision that does not depend on the
    clock is remembered by all that it depends on.

    Args:
        ignored: `environ["wsgicache.ignore"]` after the call.
        now: the wall clock, for Date arithmetic.
    """
    reason = _asked_aside(admission, hints, ignored)
    if reason is not None:
        return Settlement(reason)
    reason = _object_length(admission, head) or _object_fields(head)
    if reason is not None:
        return Settlement(reason)
    plan, fields = admission.plan, head.fields
    if not _TIMED.isdisjoint(fields) or hints.groups or hints.lifetime is not None:
        return _settle(admission, head, hints, now)
    stated = [item for item in fields.items() if item[0] in plan.steering_fields]
    if "set-cookie" in fields:  # that there is one decides; its value is somebody's secret
        stated = [(name, "" if name in COOKIES else value) for name, value in stated]
    if sum([len(value) for _, value in stated]) > 2 * MEMO_LIMIT:
        return _settle(admission, head, hints, now)
    asked = (
        head.status,
        "etag" in fields,
        admission.facts.credentials,
        admission.cookies.personal,
        admission.cookies.lookup_only,
        admission.cookies.seen is None,
        *stated,
    )
    settlement: Settlement | None = plan.settled.get(asked)
    if settlement is None:
        if len(plan.settled) >= 1024:
            plan.settled.clear()
        plan.settled[asked] = settlement = _settle(admission, head, hints, now)
    return settlement


_TIMED: Final = frozenset({"date", "expires", "age", "last-modified"})
"""Fields that make a decision depend on the clock."""


def _settle(admission: Admission, head: Head, hints: Hints, now: float) -> Settlement:
    plan = admission.plan
    directives, is_targeted = response_directives(head.fields, plan.settings.targeted_fields)
    for check in _OBJECTIONS:
        reason = check(admission, head, directives)
        if reason is not None:
            return Settlement(reason)
    lifetime = _lifetime(plan, head, directives, is_targeted, hints, now)
    return _terms_for(admission, head, directives, lifetime, hints, now)


def _asked_aside(admission: Admission, hints: Hints, ignored: bool) -> Reason | None:
    if ignored or hints.ignored:
        return Reason.NOT_STORED_IGNORED
    if hints.personal or hints.session_accessed:
        return Reason.NOT_STORED_HINT
    return admission.unstorable


def response_directives(fields: Mapping[str, str], names: Sequence[str]) -> tuple[Directives, bool]:
    """The directives that steer this cache: the first valid targeted field's, else Cache-Control's.

    RFC 9213 §2.2. Also says whether they came from a targeted field, which switches Expires off.
    """
    for name in names:
        value = fields.get(name)
        if value is not None:
            directives = targeted(value)
            if directives is not None:
                return directives, True
    value = fields.get("cache-control")
    return (EMPTY if value is None else cache_control(value)), False


def _object_status(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    code, plan = head.code, admission.plan
    if code in NEVER_WHOLE or not 200 <= code <= 999:
        return Reason.NOT_STORED_STATUS
    if plan.profile.any_status or code in SAFE_STATUSES:
        return None
    chosen = plan.statuses is not None and code in plan.statuses
    return None if chosen else Reason.NOT_STORED_STATUS


def _object_no_store(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    if "must-understand" in directives and admission.plan.profile.any_status:
        return None if head.code in UNDERSTOOD else Reason.NOT_STORED_NO_STORE
    return Reason.NOT_STORED_NO_STORE if "no-store" in directives else None


def _object_private(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    if "private" in directives and not directives.names("private"):
        return Reason.NOT_STORED_PRIVATE
    return None


def _object_no_cache(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    if "no-cache" not in directives or directives.names("no-cache"):
        return None
    plan = admission.plan
    if plan.override and plan.ttl_for(head.code) is not None:
        return None
    return None if plan.profile.store_no_cache else Reason.NOT_STORED_NO_CACHE


def _object_set_cookie(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    if "set-cookie" not in head.fields and "set-cookie2" not in head.fields:
        return None
    plan = admission.plan
    if plan.strip_set_cookie or plan.profile.store_set_cookie:
        return None
    return Reason.NOT_STORED_SET_COOKIE


def _object_credentials(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    if admission.facts.credentials and not _shares_credentials(directives):
        return Reason.NOT_STORED_AUTHORIZATION
    return None


def _object_cookie(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    cookies = admission.cookies
    if (cookies.personal or cookies.lookup_only) and not _shares_cookies(directives):
        return Reason.NOT_STORED_COOKIE
    return None


def _object_vary(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    vary = head.fields.get("vary")
    if vary is None:
        return None
    names = vary_names(vary)
    if "*" in names:
        return Reason.NOT_STORED_VARY
    profile = admission.plan.profile
    if profile.cookies_bypass and "authorization" in names:
        return Reason.NOT_STORED_VARY
    if profile.cookies_bypass and "cookie" in names and admission.plan.cookies.named is None:
        return Reason.NOT_STORED_VARY_COOKIE if admission.cookies.seen is not None else None
    return None


def _object_stream(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    content_type = head.fields.get("content-type", "")
    essence = content_type.partition(";")[0].strip().lower()
    return Reason.NOT_STORED_STREAM if essence in _STREAMS else None


_STREAMS: Final = frozenset({"text/event-stream", "multipart/x-mixed-replace", "application/x-ndjson"})


def _object_length(admission: Admission, head: Head) -> Reason | None:
    length = head.length
    if length is None:
        return None
    if length < 0 or (head.code in NO_BODY and length > 0):
        return Reason.NOT_STORED_FIELDS
    return Reason.NOT_STORED_TOO_LARGE if length > admission.plan.max_body_bytes else None


def _object_fields(head: Head) -> Reason | None:
    for name, value in head.headers:
        if not (name in _PLAIN_NAMES or is_token(name)) or not is_field_value(value):
            return Reason.NOT_STORED_FIELDS
    return None if is_field_value(head.status) else Reason.NOT_STORED_FIELDS


_PLAIN_NAMES: Final = frozenset(
    {"Content-Type", "Content-Length", "Cache-Control", "ETag", "Last-Modified", "Vary", "Date"}
)
"""Names that need no check, because they are most names that come."""


def _object_nonce(admission: Admission, head: Head, directives: Directives) -> Reason | None:
    plan = admission.plan
    if plan.store_tokens or not plan.profile.search_tokens:
        return None
    for name in ("content-security-policy", "content-security-policy-report-only"):
        policy = head.fields.get(name)
        if policy is not None and csp_has_nonce(policy):
            return Reason.NOT_STORED_TOKEN
    return None


_OBJECTIONS: Final[tuple[Callable[[Admission, Head, Directives], Reason | None], ...]] = (
    _object_status,
    _object_no_store,
    _object_private,
    _object_no_cache,
    _object_set_cookie,
    _object_credentials,
    _object_vary,
    _object_cookie,
    _object_stream,
    _object_nonce,
)


def _shares_credentials(directives: Directives) -> bool:
    """RFC 9111 §3.5: what permits a shared cache to store an answer to an authenticated request."""
    return _shares_cookies(directives) or "must-revalidate" in directives


def _shares_cookies(directives: Directives) -> bool:
    """House rule 6: what permits storing an answer to a request with a visitor's cookie."""
    return "public" in directives or bool(directives.seconds("s-maxage"))


def _lifetime(
    plan: Plan, head: Head, directives: Directives, is_targeted: bool, hints: Hints, now: float
) -> Lifetime | None:
    """The lifetime of a response, by the first source that has one (house rule 2)."""
    fields, code = head.fields, head.code
    ttl = plan.ttl_for(code)
    if plan.override and ttl is not None:
        return _capped(plan, code, Lifetime(ttl, "rule"))
    if hints.lifetime is not None:
        seconds = min(max(0, int(hints.lifetime)), FOREVER)
        return _capped(plan, code, Lifetime(seconds, "hint"))
    expires = None if is_targeted else fields.get("expires")
    stated = explicit_lifetime(directives, expires, fields.get("date"), now)
    if stated is None and ttl is not None and "no-cache" not in directives:
        stated = Lifetime(ttl, "ttl" if plan.rule_ttl is None else "rule")
    if stated is None and plan.profile.heuristics:
        stated = heuristic_lifetime(code, directives, fields.get("last-modified"), fields.get("date"), now)
    return None if stated is None else _capped(plan, code, stated)


def _capped(plan: Plan, code: int, lifetime: Lifetime) -> Lifetime:
    """No error is kept for long (house rule 2), whatever it says of itself; rfc lets it."""
    if code >= 500 and not plan.profile.any_status:
        return lifetime._replace(seconds=min(lifetime.seconds, plan.settings.max_error_ttl))
    return lifetime


def _terms_for(
    admission: Admission,
    head: Head,
    directives: Directives,
    lifetime: Lifetime | None,
    hints: Hints,
    now: float,
) -> Settlement:
    plan, fields = admission.plan, head.fields
    overridden = plan.override and plan.ttl_for(head.code) is not None
    always = "no-cache" in directives and not directives.names("no-cache") and not overridden
    validator = "etag" in fields or "last-modified" in fields
    if lifetime is None:
        needs_none = head.code in HEURISTIC_STATUSES or "public" in directives  # RFC 9111 §3
        if not (plan.profile.store_no_cache and validator and needs_none):
            return Settlement(Reason.NOT_STORED_NO_LIFETIME)
        lifetime = Lifetime(0, "none")
    groups = groups_of(plan, fields, hints)
    if len(groups) > plan.settings.max_groups:
        return Settlement(Reason.NOT_STORED_GROUPS)
    never = always or any(name in directives for name in _NEVER_STALE)
    terms = Terms(
        status=head.status,
        fingerprint=plan.fingerprint,
        lifetime=lifetime.seconds,
        source=lifetime.source,
        stale_while_revalidate=0 if never else _window(directives, "stale-while-revalidate", plan),
        stale_if_error=0 if never else _window(directives, "stale-if-error", plan),
        keep=plan.settings.keep if validator or plan.profile.obey_request else 0,
        groups=groups,
        varying=varying_fields(plan, fields),
        for_cookies=not plan.profile.cookies_bypass or _shares_cookies(directives),
        for_credentials=_shares_credentials(directives),
        always_validate=always,
        never_stale=never,
        negative=head.code in (404, 410) or head.code >= 500,
    )
    if _useless(plan, head, terms, validator, now):
        return Settlement(Reason.NOT_STORED_STALE)
    dropped = _dropped(plan, fields, directives)
    return Settlement(Reason.STORED, intern_terms(terms), directives, dropped)


_NEVER_STALE: Final = ("must-revalidate", "proxy-revalidate", "s-maxage")


def _window(directives: Directives, name: str, plan: Plan) -> int:
    """A stale window: the response's own, or else the plan's (RFC 5861)."""
    stated = directives.seconds(name)
    if stated is not None:
        return stated
    return plan.stale_while_revalidate if name == "stale-while-revalidate" else plan.stale_if_error


def _useless(plan: Plan, head: Head, terms: Terms, validator: bool, now: float) -> bool:
    """Whether a response is stale on arrival and of no use for validation or in a window."""
    age = initial_age(head.fields.get("age"), head.fields.get("date"), now, now)
    if terms.lifetime > age:
        return False
    if plan.profile.store_no_cache and validator:
        return False
    window = max(terms.stale_while_revalidate, terms.stale_if_error)
    return terms.lifetime + window <= age


def varying_fields(plan: Plan, fields: Mapping[str, str]) -> tuple[str, ...]:
    """The varying fields of a response: its Vary and the rule's; named cookies replace Cookie."""
    vary = fields.get("vary")
    names = () if vary is None else vary_names(vary)
    if plan.cookies.named is not None:
        names = tuple([name for name in names if name != "cookie"])
    return tuple(sorted({*names, *plan.varying})) if plan.varying else names


def groups_of(plan: Plan, fields: Mapping[str, str], hints: Hints) -> tuple[str, ...]:
    """The groups of a response: Cache-Groups (RFC 9875), the two older names, the rule's, the app's."""
    groups = set(plan.groups)
    if "cache-groups" in fields:
        groups.update(string_list(fields["cache-groups"]) or ())
    if "surrogate-key" in fields:
        groups.update(fields["surrogate-key"].replace(",", " ").split())
    if "cache-tag" in fields:
        groups.update(tag.strip() for tag in fields["cache-tag"].split(",") if tag.strip())
    if hints.groups:
        groups.update(str(group) for group in hints.groups)
    return tuple(sorted(groups)) if groups else ()


def settle_body(admission: Admission, head: Head, body: bytes, replaced: Entry | None) -> Reason | None:
    """Why a whole body is not stored, or None where it is.

    Args:
        replaced: the entry that this one would replace, if any.
    """
    length = head.length
    if (length is not None and length != len(body)) or (head.code in NO_BODY and body):
        return Reason.NOT_STORED_INCOMPLETE
    plan = admission.plan
    if not plan.profile.search_tokens:
        return None
    if not body and head.code in (200, 204) and replaced is not None and replaced.body:
        return Reason.NOT_STORED_EMPTY
    fields = head.fields
    if (
        not plan.store_tokens
        and is_html(fields.get("content-type"))
        and holds_token(body, fields.get("content-encoding"))
    ):
        return Reason.NOT_STORED_TOKEN
    return None


def stored_headers(head: Head, dropped: frozenset[str], length: int) -> Headers:
    """The fields that go into the store, in order (RFC 9111 §3.1), with a Content-Length."""
    headers = head.headers
    if not dropped.isdisjoint(head.fields):
        headers = tuple([pair for pair in headers if pair[0].lower() not in dropped])
    if head.length is None and head.code not in NO_BODY:
        headers = (*headers, ("Content-Length", str(length)))
    return intern_pairs(headers)


def _dropped(plan: Plan, fields: Mapping[str, str], directives: Directives) -> frozenset[str]:
    """Names that are never stored: hop by hop, listed in Connection, field forms, the drop list."""
    dropped = _always_dropped(plan.drop_fields, plan.keeps_cookies)
    connection = fields.get("connection")
    control = fields.get("cache-control")
    if connection is not None:
        dropped |= {name.strip().lower() for name in connection.split(",")}
    for stated in (directives, EMPTY if control is None else cache_control(control)):
        if stated:
            dropped |= {*stated.names("no-cache"), *stated.names("private")}
    return dropped


@lru_cache(maxsize=256)
def _always_dropped(drop_fields: frozenset[str], keeps_cookies: bool) -> frozenset[str]:
    cookies = () if keeps_cookies else ("set-cookie", "set-cookie2")
    return drop_fields | HOP_BY_HOP | {"age", *cookies}


def make_entry(
    admission: Admission,
    head: Head,
    settlement: Settlement,
    body: bytes,
    *,
    born: Mark,
    asked: float,
    now: float,
) -> Entry | None:
    """The entry for a response that may be stored; None where a varying value cannot be keyed.

    Args:
        asked: the instant at which the app was called.
        now: the instant at which the head came.
    """
    terms = settlement.terms
    assert terms is not None  # noqa: S101 - the settlement was STORED
    values = varying_values(terms.varying, admission.value_of) if terms.varying else ()
    if values is None or sum([len(value or "") for value in values]) > admission.plan.settings.max_key_bytes:
        return None
    fields = head.fields
    if "age" in fields or "date" in fields:
        since = now - initial_age(fields.get("age"), fields.get("date"), asked, now)
    else:
        since = min(asked, now)
    return Entry(
        key=admission.key,
        terms=terms,
        headers=stored_headers(head, settlement.dropped, len(body)),
        body=body,
        since=since,
        fresh_until=since + terms.lifetime,
        born=born,
        values=values,
    )


# --- invalidation ----------------------------------------------------------------------------------


def is_unsafe(method: str) -> bool:
    """Whether a method may change something: every one that is not known to be safe."""
    return method not in ANSWERED and method not in SAFE_METHODS


def invalidates(method: str, code: int) -> bool:
    """Whether an answer invalidates what is stored: unsafe method, no error (RFC 9111 §4.4)."""
    return 200 <= code < 400 and is_unsafe(method)
