"""Environs: what the app is shown when its answer may be stored, and what of a request says nothing new.

Unkeyed means unseen (house rule 6): what the key leaves out is taken out, or brought to its normal form.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from .encode import page_tags
from .facts import CERTIFICATES
from .found import Found
from .hints import IGNORE
from .key import CODING_FIELD, COOKIE_FIELD, environ_name, plain_target, raw_extra
from .passing import App, Environ, StartResponse
from .policy import Admission


def _is_empty(value: Any, environ: Environ) -> bool:
    return not value


def _is_port(value: str, environ: Environ) -> bool:
    host: str = environ["HTTP_HOST"]
    if ":" in host.rpartition("]")[2]:
        return host.endswith(f":{value}")
    return value == ("443" if environ["wsgi.url_scheme"] == "https" else "80")


SAYS_NOTHING: Final[Mapping[str, Callable[[Any, Environ], bool]]] = {
    "HTTP_X_FORWARDED_HOST": lambda value, environ: bool(value == environ["HTTP_HOST"]),
    "HTTP_X_FORWARDED_PORT": _is_port,
    "HTTP_X_FORWARDED_SCHEME": lambda value, environ: bool(value == environ["wsgi.url_scheme"]),
    "HTTP_X_FORWARDED_PREFIX": lambda value, environ: bool(value == environ.get("SCRIPT_NAME", "")),
    "SSL_CLIENT_VERIFY": lambda value, environ: value != "SUCCESS",
    **dict.fromkeys(("REMOTE_USER", *CERTIFICATES, IGNORE), _is_empty),
}
"""Unusual environ keys that may well be there, and when they tell the cache nothing: they agree with what
the app sees anyway (house rule 10), or are empty."""


def changes_for(environ: Mapping[str, Any], admission: Admission) -> dict[str, str | None]:
    """What is taken out of an environ, or brought to its normal form, because the key leaves it out."""
    changes: dict[str, str | None] = {}
    facts, plan = admission.facts, admission.plan
    if facts.method == "HEAD":
        changes["REQUEST_METHOD"] = "GET"
    if facts.cookie is not None and admission.cookies.seen != facts.cookie:
        changes["HTTP_COOKIE"] = admission.cookies.seen
    plain = plan.profile.normalise_target
    if plain and facts.host != admission.host and "HTTP_HOST" in environ:
        changes["HTTP_HOST"] = admission.host
    if admission.seen_query != facts.query:
        changes["QUERY_STRING"] = admission.seen_query
    if facts.raw is not None and facts.raw != facts.path and (plain or admission.seen_query != facts.query):
        changes.update(_seen_targets(environ, admission))
    for name, normalise in plan.normal_forms:
        given = environ.get(name)
        normal = normalise(given)
        if normal != given:
            changes[name] = normal
    return changes


def changed(environ: Environ, changes: Mapping[str, str | None]) -> Environ:
    """A copy of an environ with some values changed and those that are None taken out.

    Always a copy: varying values are read from the given one after the call, and the app may change its own.
    """
    seen = environ.copy()
    for name, value in changes.items():
        if value is None:
            seen.pop(name, None)
        else:
            seen[name] = value
    return seen


def _seen_targets(environ: Mapping[str, Any], admission: Admission) -> dict[str, str | None]:
    """The raw request target without what the key leaves out: ignored parameters, other spellings."""
    facts, query = admission.facts, admission.seen_query
    spelled_out = bool(raw_extra(facts.raw, facts.path, facts.query))  # then the key tells it apart
    if spelled_out and query == facts.query:
        return {}
    plain = admission.plan.profile.normalise_target and not spelled_out
    return {
        name: plain_target(facts.path, query) if plain else _with_query(environ[name], query)
        for name in ("RAW_URI", "REQUEST_URI")
        if name in environ
    }


def _with_query(target: str, query: str) -> str:
    path = target.partition("?")[0]
    return f"{path}?{query}" if query else path


def knowing_no_forms(app: App) -> App:
    """An app that is asked for its own tags where a client knows those of our forms.

    Who changes what he has read says so by If-Match, or by If-None-Match with a method that is neither GET
    nor HEAD (RFC 9110 §13.1.1, §13.1.2); the app alone can judge that. To a GET with the tag of a form it
    must not answer 304, for its own tag would name bytes that the client does not have.
    """

    def ask(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_IF_MATCH" in environ or "HTTP_IF_NONE_MATCH" in environ:
            environ = _with_page_tags(environ)
        return app(environ, start_response)

    return ask


def _with_page_tags(environ: Environ) -> Environ:
    names = ["HTTP_IF_MATCH"]
    if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
        names.append("HTTP_IF_NONE_MATCH")
    given = {name: environ[name] for name in names if name in environ}
    theirs: dict[str, str | None] = {name: page_tags(value) for name, value in given.items()}
    return environ if theirs == given else changed(environ, theirs)


_REFRESH_KEEPS: Final = (
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "SERVER_SOFTWARE",
    "SCRIPT_NAME",
    "PATH_INFO",
    "HTTP_HOST",
    "RAW_URI",
    "REQUEST_URI",
    "HTTP_X_FORWARDED_PROTO",
    "wsgi.version",
    "wsgi.url_scheme",
    "wsgi.errors",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
)


def refresh_environ(environ: Mapping[str, Any], admission: Admission, found: Found) -> Environ | None:
    """An environ that holds exactly the key's inputs, for a request that no visitor makes (WSG-05).

    None where they cannot be reproduced.
    """
    entry = found.entry
    if entry is None or "\x02" in admission.facts.forwarded:
        return None
    clean: Environ = {name: environ[name] for name in _REFRESH_KEEPS if name in environ}
    clean["REQUEST_METHOD"] = "GET"
    clean["wsgicache.refresh"] = True
    clean["QUERY_STRING"] = admission.seen_query
    clean["wsgi.input"] = io.BytesIO()
    for name in ("RAW_URI", "REQUEST_URI"):
        if name in clean:
            clean[name] = _with_query(clean[name], admission.seen_query)
    cookies = []
    for field, value in zip(entry.terms.varying, entry.values, strict=True):
        if value is None or field == CODING_FIELD:  # that is our doing: the app gives its page to all
            continue
        if field.startswith(COOKIE_FIELD):
            cookies += [f"{field[len(COOKIE_FIELD) :]}={one}" for one in value.split(";")]
        else:
            clean[environ_name(field)] = value
    if cookies:
        clean["HTTP_COOKIE"] = "; ".join(cookies)
    return clean
