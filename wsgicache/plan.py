"""Plans: a rule with the profile's and the cache's defaults filled in. Pure.

There is one plan for each rule and one for what no rule covers, made when the cache is made, so that a
request finds everything that holds for it in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from .encode import STEERING
from .fields import accept_encoding, accept_language, preferred_coding
from .key import CODING_FIELD, COOKIE_FIELD, Normaliser, Selector, environ_name, selectors
from .options import Settings
from .profile import PROFILES, Profile, QueryMode
from .rules import Rule, RuleSet, fingerprint

STEERING_FIELDS: Final = (
    "cache-control", "cache-groups", "cache-tag", "connection", "content-security-policy",
    "content-security-policy-report-only", "content-type", "surrogate-key", "vary",
)  # fmt: skip
"""Response fields whose values decide what becomes of a response, beside those that carry instants; a
settlement is remembered by them."""

PRESENT_FIELDS: Final = ("etag", "last-modified", "set-cookie", "set-cookie2")
"""Those of which only their presence decides: a cookie's value is somebody's secret."""

TIMED_FIELDS: Final = frozenset({"age", "date", "expires"})
"""Response fields that make a decision depend on the clock."""

RULE_TTL_STATUSES: Final = frozenset({200, 301, 302, 303, 307, 308, 404, 410})
"""Statuses that a rule's ttl covers where the rule names none (house rule 2)."""


@dataclass(frozen=True, slots=True)
class CookiePlan:
    """Which cookies count, see house rule 6. `named` is None where the profile decides."""

    bypass: bool
    harmless: tuple[str, ...]
    lookup_only: tuple[str, ...]
    named: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What holds for a request."""

    label: str | None
    fingerprint: str
    profile: Profile
    settings: Settings
    bypass: bool
    override: bool
    query: QueryMode
    ignore_query: tuple[str, ...]
    cookies: CookiePlan
    varying: tuple[str, ...]
    groups: tuple[str, ...]
    rule_ttl: int | None
    ttl: int
    statuses: Mapping[int, int | None] | None
    stale_while_revalidate: int
    stale_if_error: int
    early_refresh: float
    jitter: int
    max_body_bytes: int
    in_memory_bytes: int
    strip_set_cookie: bool
    store_tokens: bool
    drop_fields: frozenset[str]
    encode: tuple[str, ...]
    steering_fields: Mapping[str, bool]
    """What decides of the response fields, and whether by its value."""
    timed_fields: frozenset[str]
    normalisers: Mapping[str, Normaliser]
    normal_forms: tuple[tuple[str, Normaliser], ...]
    settled: dict[tuple[object, ...], Any] = field(default_factory=dict, repr=False, compare=False)
    """What `settle` remembers: another plan's settings would decide otherwise."""

    selectors: dict[tuple[str, ...], tuple[Selector, ...]] = field(
        default_factory=dict, repr=False, compare=False
    )
    """Selectors for varying fields: pages that vary alike share them."""

    def selectors_of(self, fields: tuple[str, ...]) -> tuple[Selector, ...]:
        """The selectors for varying fields."""
        known = self.selectors.get(fields)
        if known is None:
            if len(self.selectors) >= 1024:
                self.selectors.clear()
            self.selectors[fields] = known = selectors(fields, self.normalisers)
        return known

    @property
    def keeps_cookies(self) -> bool:
        """Whether Set-Cookie is part of what is stored (house rule 7)."""
        return self.profile.store_set_cookie and not self.strip_set_cookie

    def ttl_for(self, status: int) -> int | None:
        """Seconds for a response with this status that states no lifetime; None where no ttl applies."""
        if self.statuses is not None:
            if status not in self.statuses:
                return None
            seconds = self.statuses[status]
            return self.ttl if seconds is None else seconds
        if self.rule_ttl is not None:
            return self.rule_ttl if status in RULE_TTL_STATUSES else None
        return self.ttl if status == 200 and self.ttl else None


def plans_for(settings: Settings, rules: RuleSet) -> tuple[Plan, ...]:
    """A plan for each rule, in order, and last the one for what no rule covers.

    The last one is also what position -1 names, which is how `RuleSet.find` says "none".
    """
    profile = PROFILES[settings.profile]
    return tuple([_plan(settings, profile, rule) for rule in (*rules, None)])


def _plan(settings: Settings, profile: Profile, rule: Rule | None) -> Plan:
    options = rule.options if rule is not None else {}

    def chosen(name: str, default: Any) -> Any:
        value = options.get(name)
        return default if value is None else value

    default_ttl = profile.ttl if settings.ttl is None else settings.ttl
    rule_ttl = options.get("ttl")
    cookies = options.get("cookies")
    named = () if cookies == "ignore" else cookies
    encode = () if named else chosen("encode", settings.encode)  # what cookies select is not everybody's
    normalisers = normalisers_for(settings, profile)
    shaping = (default_ttl, settings.harmless_cookies, settings.lookup_cookies, settings.languages, encode)
    return Plan(
        label=rule.label if rule is not None else None,
        fingerprint=fingerprint(profile, rule, (*shaping, settings.drop_fields)),
        profile=profile,
        settings=settings,
        bypass=chosen("bypass", False),
        override=chosen("override", False),
        query=chosen("query", profile.query),
        ignore_query=chosen("ignore_query", ()),
        cookies=CookiePlan(profile.cookies_bypass, settings.harmless_cookies, settings.lookup_cookies, named),
        varying=(*chosen("vary", ()), *(COOKIE_FIELD + name for name in named or ())),
        groups=chosen("groups", ()),
        rule_ttl=rule_ttl,
        ttl=default_ttl if rule_ttl is None else rule_ttl,
        statuses=options.get("statuses"),
        stale_while_revalidate=chosen("stale_while_revalidate", settings.stale_while_revalidate),
        stale_if_error=chosen("stale_if_error", settings.stale_if_error),
        early_refresh=chosen("early_refresh", settings.early_refresh),
        jitter=chosen("jitter", settings.jitter),
        max_body_bytes=(largest := chosen("max_body_bytes", settings.max_body_bytes)),
        in_memory_bytes=min(largest, settings.spool_bytes),
        strip_set_cookie=chosen("strip_set_cookie", False),
        store_tokens=chosen("store_tokens", False),
        drop_fields=frozenset(settings.consume_fields)
        | frozenset(profile.drop_fields if settings.drop_fields is None else settings.drop_fields),
        encode=encode,
        steering_fields=dict.fromkeys(PRESENT_FIELDS, False)
        | dict.fromkeys((*STEERING_FIELDS, *settings.targeted_fields, *(STEERING if encode else ())), True),
        timed_fields=TIMED_FIELDS | {"last-modified"} if profile.heuristics else TIMED_FIELDS,
        normalisers={**normalisers, CODING_FIELD: partial(preferred_coding, codings=encode)},
        normal_forms=tuple([(environ_name(field), form) for field, form in normalisers.items()]),
    )


def normalisers_for(settings: Settings, profile: Profile) -> dict[str, Normaliser]:
    """How varying fields are brought to a normal form before they are keyed (RFC 9111 §4.1)."""
    normalisers: dict[str, Normaliser] = {}
    if profile.normalise_encoding:
        normalisers["accept-encoding"] = accept_encoding
    if settings.languages:
        languages = settings.languages
        normalisers["accept-language"] = lambda value: accept_language(value, languages)
    return normalisers
