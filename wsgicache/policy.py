"""The decisions: may this request use the cache (admit), does what is stored answer it (judge), is the
app's answer stored (settle). Pure: every function takes the instants it needs.

One rule, one fact, one function, one early exit: each returns a `Reason`, or None where it has nothing
to say. The first reason in a row decides.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from .encode import coding_of
from .entry import Entry, Terms
from .facts import Facts
from .fields import (
    EMPTY,
    IDENTITY,
    REFUSING,
    Directives,
    cache_control,
    cookie_pairs,
)
from .journal import Verdict
from .key import (
    CODING_FIELD,
    COOKIE_FIELD,
    MEMO_LIMIT,
    base_key,
    environ_name,
    has_method_override,
    known_host,
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

ANSWERED: Final = frozenset({"GET", "HEAD"})
SAFE_METHODS: Final = frozenset({"OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"})
"""Methods registered as safe that are not answered from the store; all others may change something."""


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
        "lost_file",
        "personal",
        "plan",
        "reason",
        "rules",
        "seen_query",
        "stamp",
        "unstorable",
    )

    def __init__(self, facts: Facts, plan: Plan, host: str | None, reason: Reason | None) -> None:
        self.facts = facts
        self.plan = plan
        self.host = host
        self.reason = reason
        self.personal: Reason | None = None
        self.unstorable: Reason | None = None
        self.key = ""
        self.seen_query = facts.query
        self.stamp: object = None
        """The engine's stamp before the plan was chosen: what was chosen may be armed under this one."""
        self.rules: object = None
        """What the rules were known by before the plan was chosen."""
        self.cookies = NO_COOKIES
        self.lost_file = False
        """Whether the file of an entry was gone: such a request goes the same way once more."""

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
        if field == CODING_FIELD and self.plan.profile.obey_request and _refuses_change(self.facts):
            return IDENTITY
        value: str | None = self.facts.get(environ_name(field))
        normalise = self.plan.normalisers.get(field)
        return value if normalise is None else normalise(value)

    @property
    def wanted_form(self) -> str | None:
        """The coding that this client would best have a page in that has forms; None: as the app gave it."""
        coding = (self.value_of(CODING_FIELD) or "").lstrip(REFUSING)
        return None if coding in ("", IDENTITY) else coding

    def missing_form(self, entry: Entry) -> str | None:
        """The coding that this client would best have a page in which is at hand as the app gave it only.

        None where the page is what it wants, or has no forms.
        """
        return self.wanted_form if coding_of(entry) == IDENTITY else None

    @property
    def refuses_plain(self) -> bool:
        """Whether the client accepts nothing but coded bodies."""
        return (self.value_of(CODING_FIELD) or "").startswith(REFUSING)


def _refuses_change(facts: Facts) -> bool:
    """Whether the request wants the body as the app gave it (RFC 9111 §5.2.1.6)."""
    return "no-transform" in request_directives(facts)


def admit(facts: Facts, rules: RuleSet, plans: Sequence[Plan]) -> Admission:
    """Whether and how a request may use the cache."""
    host = known_host(facts.host, facts.scheme) if len(facts.host) <= MEMO_LIMIT else None
    # Without rules there is one plan.
    plan = plans[0] if len(plans) == 1 else plans[rules.find(facts.path, host or "", facts.method)]
    admission = Admission(facts, plan, host, _refuse(facts, plan, host))
    if facts.query or facts.has_body or facts.unusual:
        admission.reason = admission.reason or _refuse_rare(facts, admission)
    if admission.reason is not None:
        return admission
    admission.key = _key(facts, admission)
    if facts.cookie is not None:
        admission.cookies = sift_cookies(facts.cookie, plan.cookies)
    if facts.credentials or admission.cookies.personal:
        admission.personal = _personal(facts, admission)
    if facts.method != "GET" or facts.unusual or plan.profile.obey_request:
        admission.unstorable = _unstorable_request(facts, admission)
    return admission


def _refuse(facts: Facts, plan: Plan, host: str | None) -> Reason | None:
    """Why a request is refused that may be of the plainest kind. One function for several facts: every
    request passes here that is no hit, and a call costs more than the question."""
    if facts.unusual and facts.ignored:
        return Reason.BYPASS_IGNORED
    if plan.bypass:
        return Reason.BYPASS_RULE
    if facts.method not in ANSWERED:
        return Reason.METHOD_SAFE if facts.method in SAFE_METHODS else Reason.METHOD_UNSAFE
    if host is None:
        return Reason.BYPASS_HOST
    path = facts.path
    plain = path[:1] == "/" and "/." not in path and "\\" not in path and path.isprintable()
    if not plain and (refused := refuse_path(path)) is not None:  # nearly no path wants that closer look
        return refused
    size = len(path) + len(facts.query) + len(facts.host) + len(facts.forwarded)
    limit = plan.settings.max_key_bytes
    too_long = size > limit or (facts.raw is not None and size + len(facts.raw) > 2 * limit)
    return Reason.BYPASS_KEY if too_long else None


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


def _key(facts: Facts, admission: Admission) -> str:
    """The base key; "" and a reason where there is none."""
    plan, query, raw = admission.plan, facts.query, facts.raw
    extra = "" if raw is None or raw == facts.path else raw_extra(raw, facts.path, query)
    if facts.forwarded:  # no forwarded value may pose as another part
        extra = f"{facts.forwarded}\x02{extra}" if extra else facts.forwarded
    if query and plan.query != "bypass":
        query = normal_query(query, plan.ignore_query, plan.query == "sort")
        admission.seen_query = query
    if extra and ("\0" in extra or "\1" in extra):
        admission.reason = Reason.BYPASS_KEY
        return ""
    return base_key(facts.path, query, admission.host or "", facts.scheme, extra)


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
    if terms.varying and not _is_variant(admission, entry):
        return Reason.VARY_MISS
    barred = _barred(admission, terms)
    if barred is not None:
        return barred
    if terms.always_validate:
        return Reason.STALE_NO_CACHE
    return _judge_age(admission, entry, verdict, now)


def _is_variant(admission: Admission, entry: Entry) -> bool:
    """Whether an entry is what the request's varying values select, in whatever coding it can be given."""
    varying, values = entry.terms.varying, entry.values
    wanted = varying_values(varying, admission.value_of)
    if values == wanted or wanted is None or CODING_FIELD not in varying:
        return values == wanted
    at = varying.index(CODING_FIELD)
    coding = (wanted[at] or "").lstrip(REFUSING)
    # A client that refuses identity gets a form made of it, where there is one that it accepts.
    acceptable = (coding, IDENTITY) if coding else ()
    return values[at] in acceptable and values == (*wanted[:at], values[at], *wanted[at + 1 :])


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


# --- invalidation ----------------------------------------------------------------------------------


def is_unsafe(method: str) -> bool:
    """Whether a method may change something: every one that is not known to be safe."""
    return method not in ANSWERED and method not in SAFE_METHODS


def invalidates(method: str, code: int) -> bool:
    """Whether an answer invalidates what is stored: unsafe method, no error (RFC 9111 §4.4)."""
    return 200 <= code < 400 and is_unsafe(method)
