"""Explain a decision: what a request would get and why, as data and as readable text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final
from urllib.parse import quote

from werkzeug.test import create_environ

from .early import usual_lead
from .encode import coding_of
from .engine import Engine
from .entry import Entry
from .facts import Facts
from .fields import is_token
from .found import Found
from .key import parse_url, split_key, varying_values
from .outcome import Reason
from .policy import Admission

REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.DISABLED: "Set enabled=True (or remove WSGICACHE_ENABLED=0).",
    Reason.BYPASS_IGNORED: 'Do not set environ["wsgicache.ignore"] for this request.',
    Reason.BYPASS_RULE: "Disable the rule, or put a rule that permits before it.",
    Reason.BYPASS_QUERY: 'Add a rule with query="key"; name parameters that do not matter in ignore_query.',
    Reason.BYPASS_BODY: "Send no body with GET; other methods are never answered from the store.",
    Reason.BYPASS_AUTHORIZATION: "If the page is the same for everybody, have the app answer with "
    "Cache-Control: public.",
    Reason.BYPASS_COOKIE: "If the cookie does not change the page, add it to harmless_cookies; if it "
    "selects a variant, name it in a rule's cookies; if the page is public, have the app say so.",
    Reason.NOT_STORED_FILE: "Free some disk, name a directory of the site's in spool_dir, or raise "
    "spool_max_bytes; the log has the fault.",
    Reason.BYPASS_HOST: "Send one valid Host.",
    Reason.BYPASS_PATH: "Use a path without dot segments and control bytes.",
    Reason.BYPASS_REWRITE: "Have the front server remove X-Original-URL and X-Rewrite-URL.",
    Reason.BYPASS_OVERRIDE: "Send the method itself, without an override.",
    Reason.BYPASS_KEY: "Shorten the URL, or raise max_key_bytes.",
    Reason.BYPASS_PRECONDITION: "Use If-None-Match or If-Modified-Since, which a cache can judge.",
    Reason.METHOD_SAFE: "Only GET and HEAD are answered from the store.",
    Reason.METHOD_UNSAFE: "Only GET and HEAD are answered from the store.",
    Reason.URI_MISS: "Nothing has to change: a first answer that may be stored makes the next a hit.",
    Reason.VARY_MISS: "Nothing has to change: each combination of the varying fields is stored once.",
    Reason.MISS_PURGED: "Nothing has to change: the next answer is stored again.",
    Reason.MISS_RULES: "Nothing has to change: the next answer is stored under the rule in force.",
    Reason.STALE: "Nothing has to change: the next answer is stored again; a longer lifetime or "
    "stale-while-revalidate would make this a hit.",
    Reason.STALE_PURGED: "Nothing has to change: the next answer is stored again.",
    Reason.STALE_NO_CACHE: "Have the app send max-age instead of no-cache, or add a rule with "
    "override=True and a ttl.",
    Reason.REQUEST_DIRECTIVE: "Leave out the request's Cache-Control or Pragma, or use the safe profile.",
    Reason.STORE_DOWN: "Get the store to answer again; see the log.",
}


_VALUE: Final = re.compile(r"[^\0\r\n\u0100-\U0010ffff]*")
"""The value of a field, as a server may hand it over (RFC 9110 §5.5, PEP 3333)."""


@dataclass(frozen=True)
class Explanation:
    """A decision, taken apart. `str()` gives text for people, `as_dict()` data for programs.

    Times are seconds; `ttl` is the remaining lifetime, negative when stale. `form` is the coding in which the
    page would be sent, where it has forms. `early` is how long before its end the entry is usually refreshed,
    by `early_refresh`; None where it is not.
    """

    url: str
    method: str
    hit: bool
    reason: Reason
    rule: str | None
    profile: str
    key: Mapping[str, str] | None
    variant: Mapping[str, str | None] | None
    form: str | None
    lifetime: int | None
    lifetime_source: str | None
    age: float | None
    ttl: float | None
    groups: tuple[str, ...]
    early: float | None
    last_answer: Reason | None
    remedy: str | None

    def as_dict(self) -> dict[str, Any]:
        """The same as plain data, reasons by name."""
        data = asdict(self)
        data["reason"] = self.reason.name
        data["sentence"] = self.reason.sentence
        data["section"] = self.reason.section
        data["last_answer"] = None if self.last_answer is None else self.last_answer.name
        data["key"] = None if self.key is None else dict(self.key)
        data["variant"] = None if self.variant is None else dict(self.variant)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Explanation:
        """What `as_dict` made data of, in this process or another.

        Raises:
            KeyError: it has a reason that this version does not know, or lacks something.
        """
        told = {field.name: data[field.name] for field in fields(cls)}
        last = told["last_answer"]
        told |= {"reason": Reason[told["reason"]], "last_answer": None if last is None else Reason[last]}
        return cls(**told | {"groups": tuple(told["groups"])})

    def __str__(self) -> str:
        lines = [f"{self.method} {self.url}: {'hit' if self.hit else 'no hit'}", ""]
        return "\n".join([*lines, *(f"  {name:<12}{text}" for name, text in self.rows())])

    def rows(self) -> list[tuple[str, str]]:
        """What there is to tell, each with its name; one without belongs to what is above it."""
        rows = [("decision", f"{self.reason.name} ({self.reason.section})")]
        rows.append(("", self.reason.sentence))
        rows.append(("rule", f"{self.rule or 'none'}, profile {self.profile}"))
        if self.key is not None:
            told = (f"{name}={_readable(value)!r}" for name, value in self.key.items() if value)
            rows.append(("key", " ".join(told)))
        if self.variant is not None:
            told = (f"{name}={'absent' if v is None else repr(v)}" for name, v in self.variant.items())
            rows.append(("variant", " ".join(told)))
        if self.form is not None:
            rows.append(("form", self.form))
        if self.lifetime is not None:
            rows.append(("lifetime", f"{self.lifetime} s, from {self.lifetime_source}"))
            rows.append(
                (
                    "arithmetic",
                    f"{self.lifetime} s lifetime - {self.age:.1f} s age = {self.ttl:.1f} s left",
                )
            )
        if self.early is not None:
            rows.append(("early", f"a hit refreshes it at random, about {self.early:.1f} s before the end"))
        if self.groups:
            rows.append(("groups", ", ".join(self.groups)))
        if self.last_answer is not None:
            rows.append(("last answer", f"{self.last_answer.name}: {self.last_answer.sentence}"))
        if self.remedy is not None and not self.hit:
            rows.append(("for a hit", self.remedy))
        return rows


def explain(engine: Engine, url: str, method: str, headers: Mapping[str, str]) -> Explanation:
    """Judge a request as if it came now, without calling the app or changing anything."""
    facts = Facts(environ_for(url, method, headers))
    admission = engine.admit(facts)
    if not engine.settings.enabled:
        admission.reason = Reason.DISABLED
    found = engine.look_up(admission, arm=False) if admission.reason is None else None
    reason = admission.reason or (found.reason if found is not None else Reason.URI_MISS)
    entry = found.entry if found is not None else None
    age = None if entry is None or found is None else max(0.0, found.now - entry.since)
    last = engine.markers.why(admission.key) if admission.key and not reason.is_hit else None
    return Explanation(
        url=url,
        method=method,
        hit=reason.is_hit,
        reason=reason,
        rule=admission.plan.label,
        profile=admission.plan.profile.name,
        key=_key_parts(admission),
        variant=_variant(admission, found),
        form=None if entry is None or not reason.is_hit else _form(admission, entry),
        lifetime=None if entry is None else entry.terms.lifetime,
        lifetime_source=None if entry is None else entry.terms.source,
        age=age,
        ttl=None if entry is None or found is None else entry.fresh_until - found.now,
        groups=() if entry is None else entry.terms.groups,
        early=None if entry is None else _early(admission, entry),
        last_answer=last,
        remedy=None if reason.is_hit else REMEDIES.get(reason),
    )


def _early(admission: Admission, entry: Entry) -> float | None:
    """Seconds before its end at which an entry is usually refreshed."""
    cost, beta = entry.terms.cost, admission.plan.early_refresh
    if not cost or not beta or entry.terms.always_validate:
        return None
    return min(usual_lead(cost, beta), entry.terms.lifetime / 2)


def environ_for(url: str, method: str, headers: Mapping[str, str]) -> dict[str, Any]:
    """An environ as a WSGI server would make it for this request.

    Raises:
        ValueError: the URL is neither a path nor an absolute http(s) URL, or there is no such request.
    """
    origin, path, query = parse_url(url)
    if not is_token(method):
        raise ValueError(f"method = {method!r} is no method: it is one word, such as GET")
    for name, value in headers.items():
        if not is_token(name):
            raise ValueError(f"{name!r} is no name of a field")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"{name}: a field is text on one line, of characters up to U+00FF")
    environ = create_environ(
        path="/", base_url=f"{origin or 'http://localhost'}/", method=method, headers=dict(headers)
    )
    environ["SCRIPT_NAME"] = ""
    environ["PATH_INFO"] = path
    environ["QUERY_STRING"] = query or ""
    target = _raw_path(url, origin) + ("" if query is None else f"?{query}")
    environ["RAW_URI"] = environ["REQUEST_URI"] = target
    return dict(environ)


def _raw_path(url: str, origin: str | None) -> str:
    """The path of a URL as a client sends it: percent-encoded, but not decoded before."""
    text = url.partition("#")[0].partition("?")[0]
    if origin is not None:
        text = "/" + text.partition("://")[2].partition("/")[2]
    return quote(text, safe="%/:@!$&'()*+,;=~-._")


def _readable(value: str) -> str:
    """A part of a key, whose bytes WSGI gives as latin-1, as the text that it is; else as it stands."""
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def _key_parts(admission: Admission) -> dict[str, str] | None:
    if not admission.key:
        return None
    return split_key(admission.key)._asdict()


def _variant(admission: Admission, found: Found | None) -> dict[str, str | None] | None:
    if found is None or found.variants is None:
        return None
    fields = found.variants.fields
    values = varying_values(fields, admission.value_of)
    return None if values is None else dict(zip(fields, values, strict=True))


def _form(admission: Admission, entry: Entry) -> str | None:
    """Which form of the page would be sent, and whether another would be made."""
    coding, wanted = coding_of(entry), admission.missing_form(entry)
    if coding is None or wanted is None:
        return coding
    return (
        f"{wanted}, made at once"
        if admission.refuses_plain
        else f"{coding}; {wanted} would be made behind it"
    )
