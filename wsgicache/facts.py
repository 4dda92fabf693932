"""Facts: what a request says, read once from its environ. Pure, and silent about what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, Final

from .compiled import twin
from .hints import HINTS, IGNORE

SECRET_HEADER: Final = "HTTP_WSGICACHE_SECRET"

REWRITES: Final = ("HTTP_X_ORIGINAL_URL", "HTTP_X_REWRITE_URL")
OVERRIDES: Final = ("HTTP_X_HTTP_METHOD_OVERRIDE", "HTTP_X_METHOD_OVERRIDE", "HTTP_X_HTTP_METHOD")
FORWARDED: Final = (
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PREFIX",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_SCHEME",
    "HTTP_FORWARDED",
)
CERTIFICATES: Final = (
    "SSL_CLIENT_CERT",
    "SSL_CLIENT_S_DN",
    "HTTP_CLIENT_CERT",
    "HTTP_X_SSL_CLIENT_CERT",
)
CONDITIONALS: Final = (
    "HTTP_IF_NONE_MATCH",
    "HTTP_IF_MODIFIED_SINCE",
    "HTTP_IF_RANGE",
    "HTTP_RANGE",
)
PRECONDITIONS: Final = ("HTTP_IF_MATCH", "HTTP_IF_UNMODIFIED_SINCE")
_CREDENTIALS: Final = ("HTTP_AUTHORIZATION", "REMOTE_USER", "SSL_CLIENT_VERIFY", *CERTIFICATES)

UNUSUAL: Final = frozenset(
    (
        *REWRITES,
        *OVERRIDES,
        *FORWARDED,
        *CONDITIONALS,
        *PRECONDITIONS,
        *_CREDENTIALS,
        SECRET_HEADER,
        IGNORE,
        HINTS,
        "HTTP_TRANSFER_ENCODING",
    )
)
"""Environ keys that most requests do not have, each of which needs a closer look than the hit path's."""


_UNUSUAL: Final = UNUSUAL - {HINTS}
"""What is unusual in a request itself: by now every environ holds hints."""

_NAMES: Final = tuple(sorted(_UNUSUAL))
_NOTHING: Final[frozenset[str]] = frozenset()
_holds_any: Final = None if twin is None else twin.holds_any
"""The same question in a third of the time."""


class Facts:
    """One request. Absent fields are None; `get` reads any other request field by its environ name.

    What most requests do not have is not read before somebody asks for it: `unusual` says which of these
    environ keys there are.
    """

    __slots__ = (
        "conditional",
        "cookie",
        "credentials",
        "forwarded",
        "get",
        "has_body",
        "host",
        "method",
        "path",
        "query",
        "raw",
        "scheme",
        "unusual",
    )

    def __init__(self, environ: Mapping[str, Any]) -> None:
        get: Callable[[str], Any] = environ.get
        self.get = get
        self.method: str = environ["REQUEST_METHOD"]
        self.scheme: str = environ["wsgi.url_scheme"]
        self.path: str = (get("SCRIPT_NAME") or "") + (get("PATH_INFO") or "") or "/"
        self.query: str = get("QUERY_STRING") or ""
        self.host: str = get("HTTP_HOST") or _server_host(environ)
        self.raw: str | None = get("RAW_URI") or get("REQUEST_URI") or None
        self.cookie: str | None = get("HTTP_COOKIE")
        length = get("CONTENT_LENGTH")
        self.has_body = bool(length) and length != "0"
        self.credentials = self.conditional = False
        proto = get("HTTP_X_FORWARDED_PROTO")
        self.forwarded = "" if proto is None or proto == self.scheme else f"p{_part(proto)}"
        self.unusual: Set[str] = _NOTHING
        if _holds_any(environ, _NAMES) if _holds_any is not None else not _UNUSUAL.isdisjoint(environ):
            self._read_unusual(environ)

    def _read_unusual(self, environ: Mapping[str, Any]) -> None:
        get = self.get
        self.unusual = unusual = environ.keys() & _UNUSUAL
        self.conditional = not unusual.isdisjoint(CONDITIONALS)
        self.has_body = self.has_body or "HTTP_TRANSFER_ENCODING" in unusual
        self.credentials = not unusual.isdisjoint(_CREDENTIALS) and (
            "HTTP_AUTHORIZATION" in unusual
            or bool(get("REMOTE_USER"))
            or get("SSL_CLIENT_VERIFY") == "SUCCESS"
            or any([get(name) for name in CERTIFICATES])
        )
        if not unusual.isdisjoint(FORWARDED):
            self.forwarded += forwarded_extra(get, self.host, self.scheme)

    @property
    def ignored(self) -> bool:
        """Whether an outer layer asked the cache to stand aside."""
        return IGNORE in self.unusual and bool(self.get(IGNORE))

    @property
    def rewritten(self) -> bool:
        """Whether a field may route the request to another page."""
        return not self.unusual.isdisjoint(REWRITES)

    @property
    def overridden(self) -> bool:
        """Whether a field may turn the method into another."""
        return not self.unusual.isdisjoint(OVERRIDES)

    @property
    def precondition(self) -> bool:
        """Whether there is a condition that only the app can judge."""
        return not self.unusual.isdisjoint(PRECONDITIONS)

    @property
    def range(self) -> str | None:
        """The Range field."""
        value: str | None = self.get("HTTP_RANGE")
        return value

    @property
    def cache_control(self) -> str | None:
        """The Cache-Control field."""
        value: str | None = self.get("HTTP_CACHE_CONTROL")
        return value

    @property
    def pragma(self) -> str | None:
        """The Pragma field."""
        value: str | None = self.get("HTTP_PRAGMA")
        return value

    @property
    def if_none_match(self) -> str | None:
        """The If-None-Match field."""
        value: str | None = self.get("HTTP_IF_NONE_MATCH")
        return value

    @property
    def if_modified_since(self) -> str | None:
        """The If-Modified-Since field."""
        value: str | None = self.get("HTTP_IF_MODIFIED_SINCE")
        return value

    @property
    def if_range(self) -> str | None:
        """The If-Range field."""
        value: str | None = self.get("HTTP_IF_RANGE")
        return value


def _server_host(environ: Mapping[str, Any]) -> str:
    """The host where the request names none (HTTP/1.0), as PEP 3333 rebuilds a URL."""
    if "HTTP_HOST" in environ:
        return ""
    name, port = environ.get("SERVER_NAME") or "", environ.get("SERVER_PORT") or ""
    return f"{name}:{port}" if port else name


def forwarded_extra(get: Callable[[str], Any], host: str, scheme: str) -> str:
    """What forwarded fields add to the key: each one that differs from the effective value.

    Behind a proxy fixer they agree with it and add nothing; elsewhere an app may build links from them,
    so they must not be an unkeyed input (house rule 10).
    """
    if not any([get(name) is not None for name in FORWARDED]):
        return ""
    port = host.rpartition(":")[2] if ":" in host.rpartition("]")[2] else ""
    effective = {
        "HTTP_X_FORWARDED_HOST": {host, host.lower()},
        "HTTP_X_FORWARDED_PREFIX": {get("SCRIPT_NAME") or "", (get("SCRIPT_NAME") or "") + "/"},
        "HTTP_X_FORWARDED_PORT": {port or ("443" if scheme == "https" else "80")},
        "HTTP_X_FORWARDED_SCHEME": {scheme},
    }
    extra = ""
    for name, values in effective.items():
        value = get(name)
        if value is not None and value.strip() not in values:
            extra += f"\x02{name[17:]}={_part(value)}"
    forwarded = get("HTTP_FORWARDED")
    if forwarded is not None and _names_host_or_proto(forwarded, host, scheme):
        extra += f"\x02F={_part(forwarded)}"
    return extra


def _part(value: str) -> str:
    """A forwarded value as one part of the key: a separator in it becomes what no key may hold."""
    return value.replace("\x02", "\0")


def _names_host_or_proto(forwarded: str, host: str, scheme: str) -> bool:
    """Whether a Forwarded field (RFC 7239 §4) names another host or scheme than the effective one."""
    for pair in forwarded.replace(",", ";").split(";"):
        name, _, value = pair.strip().partition("=")
        effective = {"host": host.lower(), "proto": scheme}.get(name.strip().lower())
        if effective is not None and value.strip().strip('"').lower() != effective:
            return True
    return False
