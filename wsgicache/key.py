r"""Cache keys: one function for traffic, purge, warm-up and explain. Pure.

The rules this file obeys:

- A base key is ``path \0 query \0 host \0 scheme``, then ``\0`` and an extra where one is needed. Stored
  parts never hold ``\0`` or ``\1``, so a key that a request builds from raw, unchecked values can equal a
  stored one only if each part is equal: the number of separators would differ otherwise. That is what
  lets the hit path look up an unchecked key.
- A variant key is the base key, then ``\1name-`` (absent) or ``\1name=value`` for each varying field, in
  order. The names are there because a page may come to vary by other fields than before.
- ``SCRIPT_NAME`` and ``PATH_INFO`` are joined: one URL, one key, wherever the app is mounted.
- The path is what WSGI gives: bytes tunnelled as latin-1, never decoded with replacement.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_plus, unquote_to_bytes

from .fields import IDENTITY, REFUSING
from .outcome import Reason

FieldValue = Callable[[str], str | None]
Normaliser = Callable[[str | None], str | None]

_BAD_PATH: Final = re.compile(r"[\x00-\x1f\x7f]|[/\\]\.{1,2}(?:[/\\]|\Z)")
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")
_HOST: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{0,5}))?\Z", re.ASCII
)
_DEFAULT_PORT: Final = {"http": "80", "https": "443"}
_PCHAR_SAFE: Final = "/:@!$&'()*+,;=~-._"
_ASCII: Final = "".join(map(chr, range(33, 127)))


class Parts(NamedTuple):
    """What a base key is made of."""

    path: str
    query: str
    host: str
    scheme: str
    extra: str

    @property
    def origin(self) -> str:
        """Scheme and authority, as in RFC 6454."""
        return f"{self.scheme}://{self.host}"

    @property
    def url(self) -> str:
        """The URL for people: percent-encoded, without the extra."""
        path = quote(self.path.encode("latin-1", "surrogatepass"), safe=_PCHAR_SAFE)
        return f"{self.origin}{path}" + (f"?{self.query}" if self.query else "")


def base_key(path: str, query: str, host: str, scheme: str, extra: str = "") -> str:
    """Join checked parts to a base key."""
    key = f"{path}\0{query}\0{host}\0{scheme}"
    return f"{key}\0{extra}" if extra else key


def search_key(key: str) -> str:
    """Where the No-Vary-Search of a path is recorded: a query that no request has."""
    parts = split_key(key)
    return base_key(parts.path, "\x02", parts.host, parts.scheme, parts.extra)


def split_key(key: str) -> Parts:
    """The parts of a base or variant key."""
    parts = key.split("\1", 1)[0].split("\0", 4)
    return Parts(parts[0], parts[1], parts[2], parts[3], parts[4] if len(parts) > 4 else "")


def variant_key(base: str, fields: Sequence[str], values: Iterable[str | None]) -> str:
    """The key of the variant that was selected by these values; absent differs from empty."""
    chosen = zip(fields, values, strict=True)
    return base + "".join([f"\1{name}-" if value is None else f"\1{name}={value}" for name, value in chosen])


def varying_values(fields: Sequence[str], value_of: FieldValue) -> tuple[str | None, ...] | None:
    """The values of the varying fields, or None when one cannot be part of a key."""
    values = tuple([value_of(name) for name in fields])
    for value in values:
        if value is not None and ("\0" in value or "\1" in value):
            return None
    return values


MEMO_LIMIT: Final = 512
"""Characters of a client's text that a table may remember, so that nobody fills memory with it."""


def canonical_host(host: str, scheme: str) -> str | None:
    """The host in lower case without the scheme's default port; None when it is not one host.

    RFC 9110 §4.2.3 and §7.2. Two Host lines arrive joined by a comma, which no host name holds.
    """
    return known_host(host, scheme) if len(host) <= MEMO_LIMIT else None


@lru_cache(maxsize=1024)
def known_host(host: str, scheme: str) -> str | None:
    """As `canonical_host`, for a host of bounded length: it is remembered."""
    match = _HOST.match(host)
    if match is None:
        return None
    port = int(match["port"] or 0)
    if not match["port"] or str(port) == _DEFAULT_PORT.get(scheme):
        return match["name"].lower()
    return f"{match['name'].lower()}:{port}" if port < 65536 else None


def refuse_path(path: str) -> Reason | None:
    """Why a path cannot be part of a key: control bytes, dot segments, not rooted."""
    return Reason.BYPASS_PATH if path[:1] != "/" or _BAD_PATH.search(path) is not None else None


def refuse_query(query: str) -> Reason | None:
    """Why a query cannot be part of a key."""
    return Reason.BYPASS_KEY if _CONTROL.search(query) is not None else None


def raw_extra(raw: str | None, path: str, query: str) -> str:
    """What the raw request target adds to the key: nothing where it is the plain form of the path.

    WSGI decodes `/a%2Fb` and `/a/b` to one `PATH_INFO`; an app that reads `RAW_URI` or `REQUEST_URI`
    tells them apart, so then the key does too. An absolute-form target names a host as well, which may not
    be the Host field's, so it counts whole.
    """
    if raw is None or raw == path or (query and raw == f"{path}?{query}"):
        return ""
    target, mark, raw_query = raw.partition("?")
    if _same_target(target, path) and raw_query == query and bool(mark) == bool(query):
        return ""
    return "r" + (target if query and raw_query == query else raw)


def plain_target(path: str, query: str) -> str:
    """The raw request target in the plain form that `raw_extra` compares with."""
    target = quote(path.encode("latin-1", "surrogatepass"), safe=_PCHAR_SAFE)
    return f"{target}?{query}" if query else target


def _same_target(target: str, path: str) -> bool:
    """Whether the raw path is just the percent-encoded form of the decoded one."""
    return (_remembered_target if len(target) <= MEMO_LIMIT else _compare_targets)(target, path)


def _compare_targets(target: str, path: str) -> bool:
    """See `_same_target`.

    One that holds a percent sign never is: `/a%25b` and the malformed `/a%b` are decoded to the same, and
    the latter is what equals the path.
    """
    if "%" in path:
        return False
    try:
        raw_bytes, path_bytes = target.encode("latin-1"), path.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return _normal_escapes(raw_bytes) == quote(path_bytes, safe=_PCHAR_SAFE)


_remembered_target = lru_cache(maxsize=4096)(_compare_targets)


def _normal_escapes(raw: bytes) -> str:
    """Escapes of unreserved characters decoded, others in upper case, bare bytes escaped."""
    text = quote(raw, safe=_PCHAR_SAFE + "%")
    return re.sub(r"%([0-9A-Fa-f]{2})", _normal_escape, text)


def _normal_escape(match: re.Match[str]) -> str:
    char = chr(int(match[1], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else "%" + match[1].upper()


def normal_query(query: str, ignore: tuple[str, ...] = (), sort: bool = False) -> str:
    """The query for the key and for the app: ignored names dropped, order of repeated names kept.

    Args:
        query: the raw query string.
        ignore: decoded names or globs to drop.
        sort: order the parameters by name (stable, so that repeated names keep their order).

    A query that holds `;` is kept whole: parsers differ on it, so nobody may hide a parameter in it.
    """
    return (_remembered_query if len(query) <= MEMO_LIMIT else _normal_query)(query, ignore, sort)


def _normal_query(query: str, ignore: tuple[str, ...], sort: bool) -> str:
    if not query or ";" in query:
        return query
    members = [(unquote_plus(part.partition("=")[0]), part) for part in query.split("&")]
    if ignore:
        members = [m for m in members if m[1] and not matches_any(m[0], ignore)]
    if sort:
        members.sort(key=lambda member: member[0])
    return "&".join([part for _, part in members])


_remembered_query = lru_cache(maxsize=4096)(_normal_query)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a name equals one of the patterns or matches it as a glob."""
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def has_method_override(query: str) -> bool:
    """Whether the query asks for another method by `_method=`, as some frameworks let it."""
    return "_method" in unquote_plus(query) and any(
        unquote_plus(part.partition("=")[0]) == "_method" for part in re.split("[&;]", query)
    )


# --- the names by which a purge reaches a key ------------------------------------------------------


def url_targets(parts: Parts) -> tuple[str, ...]:
    """Every URL target that covers a key: path; path and query; origin and path; all of them."""
    path, query, origin = parts.path, parts.query, parts.origin
    return (
        f"p{path}",
        f"q{path}\0{query}",
        f"o{origin}\0{path}",
        f"u{origin}\0{path}\0{query}",
    )


def target_of(key: str) -> str:
    """The URL target that covers a key and its variants, and nothing else."""
    return url_targets(split_key(key))[-1]


def target_path(target: str) -> str | None:
    """The path of all keys that a URL target covers; None where it does not tell, as a digest does not.

    What somebody purges may hold what no key does, such as `\\0` in a path; then it covers nothing anyway.
    """
    pieces = target[1:].split("\0", 2)
    if target[:1] in ("p", "q"):
        return pieces[0]
    return pieces[1] if target[:1] in ("o", "u") and len(pieces) > 1 else None


def prefix_targets(parts: Parts) -> list[str]:
    """Every prefix target that covers a key: each ancestor of the path, anywhere or on its origin."""
    origin = parts.origin
    found: list[str] = []
    for end in [0, *(i for i, char in enumerate(parts.path) if char == "/" and i), len(parts.path)]:
        prefix = parts.path[:end].rstrip("/")
        found += (f"p{prefix}", f"o{origin}\0{prefix}")
    return found


def group_targets(parts: Parts, groups: Iterable[str]) -> list[str]:
    """Every group target that covers a key; a group belongs to one origin (RFC 9875 §2)."""
    origin = parts.origin
    found: list[str] = []
    for group in groups:
        found += (f"g{group}", f"o{origin}\0{group}")
    return found


def url_target(url: str, ignore: tuple[str, ...] = (), sort: bool = False) -> str:
    """The target of a purge by URL: a path means every scheme and host (and, without a query, every
    query); an absolute URL means exactly that one.

    Args:
        ignore: see `normal_query`.
        sort: see `normal_query`.

    Raises:
        ValueError: the text is neither a path nor an absolute http(s) URL.
    """
    origin, path, query = parse_url(url)
    query = query and normal_query(query, ignore, sort)
    if origin is None:
        return f"p{path}" if query is None else f"q{path}\0{query}"
    return f"u{origin}\0{path}\0{query or ''}"


def path_target(url: str) -> str:
    """The target of a purge of a URL's path, whatever the query; on its origin only, if it names one.

    Raises:
        ValueError: the text is neither a path nor an absolute http(s) URL.
    """
    origin, path, _ = parse_url(url)
    return f"p{path}" if origin is None else f"o{origin}\0{path}"


def same_path_target(parts: Parts) -> str:
    """The target that invalidates a URI on its own origin, whatever its query (RFC 9111 §4.4)."""
    return f"o{parts.origin}\0{parts.path}"


def prefix_target(prefix: str) -> str:
    """The target of a purge by prefix, at segment boundaries.

    Raises:
        ValueError: the text is neither a path nor an absolute http(s) URL, or has a query.
    """
    origin, path, query = parse_url(prefix)
    if query is not None:
        raise ValueError(f"a prefix has no query: {prefix!r}; use purge() for a URL with a query")
    return f"p{path.rstrip('/')}" if origin is None else f"o{origin}\0{path.rstrip('/')}"


def group_target(group: str, origin: str | None = None) -> str:
    """The target of a purge by group, on one origin or on all."""
    return f"g{group}" if origin is None else f"o{origin}\0{group}"


def parse_url(url: str) -> tuple[str | None, str, str | None]:
    """Split a path or an absolute URL as live traffic would be split: (origin or None, path as WSGI
    gives it, query or None).

    Raises:
        ValueError: the text is neither a path nor an absolute http(s) URL.
    """
    target, mark, rest = url.partition("#")[0].partition("?")
    query = quote(rest, safe=_ASCII) if mark else None
    if target.startswith("/") and not target.startswith("//"):
        return None, wsgi_path(target), query
    scheme, _, rest = target.partition("://")
    scheme = scheme.lower()
    name, _, path = rest.partition("/")
    host = canonical_host(name, scheme) if scheme in _DEFAULT_PORT else None
    if host is None:
        raise ValueError(f"not a URL of this site: {url!r}; give a path (/post/1) or an http(s) URL")
    return f"{scheme}://{host}", wsgi_path(f"/{path}"), query


def wsgi_path(path: str) -> str:
    """A URL path as a WSGI server hands it to the app: decoded to bytes, tunnelled as latin-1."""
    return unquote_to_bytes(path).decode("latin-1")


# --- varying fields --------------------------------------------------------------------------------

COOKIE_FIELD: Final = "cookie:"
"""Prefix of a varying field that is one named cookie, not a header."""

CODING_FIELD: Final = "content coding"
"""A varying field of our own: the coding that we gave the page. No app can name it, for it is no token."""

_CODING: Final = re.compile(f"\1{CODING_FIELD}=[^\1]*")


def page_of(variant: str) -> str:
    """A variant key without the coding: what the forms of one page have in common."""
    return _CODING.sub("", variant)


def places(base: str, fields: Sequence[str], value_of: FieldValue) -> tuple[str, ...]:
    """The variant keys where an answer to a request may be, or none where a value cannot be part of a key.

    The first is where a fill is stored. A second one is there where the request wants the page in another
    form than the app gives it.
    """
    values = varying_values(fields, value_of)
    if values is None:
        return ()
    if CODING_FIELD not in fields:
        return (variant_key(base, fields, values),)
    chosen = dict(zip(fields, values, strict=True))
    coding = (chosen[CODING_FIELD] or "").lstrip(REFUSING)
    plain = variant_key(base, fields, {**chosen, CODING_FIELD: IDENTITY}.values())
    if coding in ("", IDENTITY):
        return (plain,)
    return plain, variant_key(base, fields, {**chosen, CODING_FIELD: coding}.values())


class Selector(NamedTuple):
    """How one varying field is read from an environ without cookies, and what it adds to the key."""

    environ_name: str
    normalise: Normaliser | None
    absent: str
    present: str


def selectors(fields: Sequence[str], normalisers: Mapping[str, Normaliser]) -> tuple[Selector, ...]:
    """Selectors for varying fields of requests without cookies that count: those read as absent."""
    return tuple(
        [
            Selector(
                _NO_COOKIE if name == "cookie" else environ_name(name),
                normalisers.get(name),
                f"\1{name}-",
                f"\1{name}=",
            )
            for name in fields
        ]
    )


_NO_COOKIE: Final = "wsgicache.no-cookie"
"""A name that no environ holds."""


def environ_name(field: str) -> str:
    """The environ key of a request field; a named cookie has none, so it gets one nobody sets."""
    if field.startswith(COOKIE_FIELD):
        return f"wsgicache.{field}"
    if field == CODING_FIELD:
        return "HTTP_ACCEPT_ENCODING"
    if field in ("content-type", "content-length"):
        return field.replace("-", "_").upper()
    return "HTTP_" + field.replace("-", "_").upper()


def select_variant(base: str, chosen: Sequence[Selector], get: Callable[[str], str | None]) -> str:
    """The variant key for an environ that holds no cookie: what the hit path uses."""
    for name, normalise, absent, present in chosen:
        value = get(name)
        if normalise is not None:
            value = normalise(value)
        base += absent if value is None else present + value
    return base
