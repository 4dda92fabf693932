"""The third decision: is the app's answer stored (settle), and as what. Pure: every function takes the
instants it needs.

One fact, one function, one early exit, as in `wsgicache.policy`. The first reason in a row decides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from .body import Body
from .encode import fits
from .entry import FOREVER, Entry, Headers, Terms, intern_pairs, intern_terms
from .fields import EMPTY, HOP_BY_HOP, IDENTITY, Directives, cache_control, string_list, targeted, vary_names
from .freshness import HEURISTIC_STATUSES, Lifetime, explicit_lifetime, heuristic_lifetime, initial_age
from .head import Head
from .hints import Hints
from .journal import Mark
from .key import CODING_FIELD, MEMO_LIMIT, varying_values
from .outcome import Reason
from .plan import Plan
from .policy import NO_COOKIES, Admission
from .tokens import csp_has_nonce, holds_token, is_html

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
    reason = admission.unstorable
    if ignored or hints.said:
        reason = _asked_aside(hints, ignored) or reason
    plan, length = admission.plan, head.length
    if length is not None and (not 0 <= length <= plan.max_body_bytes or head.code in NO_BODY):
        reason = reason or _object_length(admission, head, length)
    if reason is None and not head.sound:
        reason = Reason.NOT_STORED_FIELDS
    if reason is not None:
        return Settlement(reason)
    if hints.said or not plan.timed_fields.isdisjoint(head.fields):
        return _settle(admission, head, hints, now)
    asked = _decisive(admission, head)
    settlement: Settlement | None = plan.settled.get(asked)
    if settlement is None:
        settlement = _settle(admission, head, hints, now)
        if len(head.status) + sum([len(value) for _, value in asked[2] if value]) <= 2 * MEMO_LIMIT:
            if len(plan.settled) >= 1024:
                plan.settled.clear()
            plan.settled[asked] = settlement
    return settlement


def _decisive(admission: Admission, head: Head) -> tuple[object, str, tuple[tuple[str, str | None], ...]]:
    """All that a decision depends on which depends on no instant and on no hint."""
    cookies, steering = admission.cookies, admission.plan.steering_fields
    visitor = None
    if cookies is not NO_COOKIES or admission.facts.credentials:
        seen = cookies.seen is not None
        visitor = (admission.facts.credentials, cookies.personal, cookies.lookup_only, seen)
    fields = head.fields.items()
    said = tuple([(name, value if steering[name] else None) for name, value in fields if name in steering])
    return visitor, head.status, said


def _settle(admission: Admission, head: Head, hints: Hints, now: float) -> Settlement:
    plan = admission.plan
    directives, is_targeted = response_directives(head.fields, plan.settings.targeted_fields)
    for check in _OBJECTIONS:
        reason = check(admission, head, directives)
        if reason is not None:
            return Settlement(reason)
    lifetime = _lifetime(plan, head, directives, is_targeted, hints, now)
    return _terms_for(admission, head, directives, lifetime, hints, now)


def _asked_aside(hints: Hints, ignored: bool) -> Reason | None:
    if ignored or hints.ignored:
        return Reason.NOT_STORED_IGNORED
    return Reason.NOT_STORED_HINT if hints.personal or hints.session_accessed else None


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


def _object_length(admission: Admission, head: Head, length: int) -> Reason | None:
    if length < 0 or (head.code in NO_BODY and length > 0):
        return Reason.NOT_STORED_FIELDS
    return Reason.NOT_STORED_TOO_LARGE if length > admission.plan.max_body_bytes else None


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
        varying=varying_fields(plan, fields) if not plan.encode else _with_coding(plan, head, directives),
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


def _with_coding(plan: Plan, head: Head, directives: Directives) -> tuple[str, ...]:
    """The varying fields, and our own where the page may have forms if its body is long enough."""
    varying = varying_fields(plan, head.fields)
    fit = "no-transform" not in directives and fits(head.code, head.fields, varying)
    return tuple(sorted((*varying, CODING_FIELD))) if fit else varying


def groups_of(plan: Plan, fields: Mapping[str, str], hints: Hints) -> tuple[str, ...]:
    """The groups of a response: Cache-Groups (RFC 9875), the two older names, the rule's, the app's."""
    groups = set(plan.groups)
    if "cache-groups" in fields:
        groups.update(string_list(fields["cache-groups"]) or ())
    if "surrogate-key" in fields:
        groups.update(fields["surrogate-key"].replace(",", " ").split())
    if "cache-tag" in fields:
        groups.update(tag.strip() for tag in fields["cache-tag"].split(",") if tag.strip())
    if hints.said and hints.groups:
        groups.update(str(group) for group in hints.groups)
    return tuple(sorted(groups)) if groups else ()


def settle_body(admission: Admission, head: Head, body: Body, replaced: Entry | None) -> Reason | None:
    """Why a whole body is not stored, or None where it is.

    Args:
        replaced: the entry that this one would replace, if any.

    A body in a file was searched for tokens by its reader.
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
        and type(body) is bytes
        and holds_token(body, fields.get("content-encoding"))
    ):
        return Reason.NOT_STORED_TOKEN
    return None


def is_searched(admission: Admission, head: Head) -> bool:
    """Whether a body is searched for tokens."""
    plan = admission.plan
    html = is_html(head.fields.get("content-type"))
    return plan.profile.search_tokens and not plan.store_tokens and html


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


def age_on_arrival(head: Head, asked: float, now: float) -> float:
    """The age of a response when its head came (RFC 9111 §4.2.3).

    Args:
        asked: the instant at which the app was called.
        now: the instant at which the head came.
    """
    fields = head.fields
    if "age" in fields or "date" in fields:
        return initial_age(fields.get("age"), fields.get("date"), asked, now)
    return now - asked if now > asked else 0.0


def make_entry(
    admission: Admission,
    head: Head,
    settlement: Settlement,
    body: Body,
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
    if values is None:
        return None
    if values and CODING_FIELD in terms.varying:
        values = _as_the_app_gave_it(terms.varying, values)
    if values and sum([len(value or "") for value in values]) > admission.plan.settings.max_key_bytes:
        return None
    fields = head.fields
    known = "age" in fields or "date" in fields
    since = now - age_on_arrival(head, asked, now) if known else min(asked, now)
    headers = stored_headers(head, settlement.dropped, len(body))
    return Entry(admission.key, terms, headers, body, since, since + terms.lifetime, born, values)


def _as_the_app_gave_it(varying: Sequence[str], values: Sequence[str | None]) -> tuple[str | None, ...]:
    """The values that select what the app gave: in our coding it is not, whatever the request accepts."""
    return tuple([IDENTITY if name == CODING_FIELD else v for name, v in zip(varying, values, strict=True)])
