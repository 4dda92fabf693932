"""The one typed table of options: name, reader, default, unit and meaning. Pure.

Keywords, ini strings, mappings and environment variables all go through it, so that a value means the
same wherever it was written, and `docs/options.md` is drawn from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from .encode import encoder
from .entry import FOREVER
from .fields import is_token


class OptionError(ValueError):
    """A configuration mistake, told so that a person can mend it: what, where, and the remedy."""


Reader = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Option:
    """One line of the table. `read` turns a string or a Python value into the typed value, or raises
    ValueError with a remedy."""

    name: str
    read: Reader
    default: Any
    unit: str
    meaning: str


# --- readers: each takes a string or a Python value ------------------------------------------------

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)?\Z")
_DURATION_UNIT: Final = {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZE: Final = re.compile(r"(\d+)\s*([kmg]i?b|b)?\Z", re.IGNORECASE)
_SIZE_UNIT: Final = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}


def read_seconds(value: Any) -> int:
    """Whole seconds: 300, "300", "5m", "1h", "2d" or a timedelta."""
    seconds = read_duration(value)
    if seconds != int(seconds):
        raise ValueError("give whole seconds")
    return int(seconds)


def read_duration(value: Any) -> float:
    """Seconds that may have a fraction."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        match = _DURATION.match(value.strip())
        if match is None:
            raise ValueError("give seconds, or a number with s, m, h or d, such as 300 or 5m")
        value = float(match[1]) * _DURATION_UNIT[match[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("give a number of seconds")
    if not 0 <= value <= FOREVER:
        raise ValueError(f"give a number between 0 and {FOREVER}; there is no code for 'for ever'")
    return float(value)


def read_beta(value: Any) -> float:
    """A factor between 0 and 10."""
    remedy = "give a number from 0 (off) to 10; 1 is usual"
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise ValueError(remedy) from None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise ValueError(remedy)
    return float(value)


def read_optional_beta(value: Any) -> float | None:
    """A factor, or None (in text: `default` or empty)."""
    return None if value is None or value in ("", "default") else read_beta(value)


def read_above_zero(value: Any) -> float:
    """Seconds that may have a fraction, above zero."""
    seconds = read_duration(value)
    if seconds == 0:
        raise ValueError("give a number of seconds above zero")
    return seconds


def read_optional_seconds(value: Any) -> int | None:
    """Whole seconds, or None (in text: `default` or empty)."""
    return None if value is None or value in ("", "default") else read_seconds(value)


def read_bytes(value: Any) -> int:
    """A size: 1048576, "64MB" (powers of 1000) or "1MiB" (powers of 1024)."""
    if isinstance(value, str):
        match = _SIZE.match(value.strip())
        if match is None:
            raise ValueError("give bytes, or a number with kB, MB, GB, KiB, MiB or GiB, such as 64MB")
        value = int(match[1]) * _SIZE_UNIT[(match[2] or "").lower()]
    return read_count(value)


def read_positive_bytes(value: Any) -> int:
    """A size above zero."""
    return read_positive(read_bytes(value))


def read_optional_bytes(value: Any) -> int | None:
    """A size, or None."""
    return None if value is None else read_bytes(value)


def read_count(value: Any) -> int:
    """A whole number that is not negative."""
    if isinstance(value, str):
        if not value.strip().isdecimal():
            raise ValueError("give a whole number")
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError("give a whole number that is not negative")
    return value


def read_positive(value: Any) -> int:
    """A whole number above zero."""
    count = read_count(value)
    if count == 0:
        raise ValueError("give a number above zero")
    return count


_WORDS: Final = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}


def read_bool(value: Any) -> bool:
    """A switch: a bool, or true/false, yes/no, on/off, 1/0."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _WORDS:
        return _WORDS[value.strip().lower()]
    raise ValueError("give true or false")


def read_text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError("give a string")
    return value


def read_optional_text(value: Any) -> str | None:
    """A string, or None."""
    return None if value is None or value == "" else read_text(value)


def read_callable(value: Any) -> Any:
    """A callable, or None."""
    if value is not None and not callable(value):
        raise ValueError("give a callable, such as a function, in Python")
    return value


def read_path(value: Any) -> str | None:
    """A path below which something is, or None."""
    path = read_optional_text(value)
    if path is not None and (not path.startswith("/") or not path.strip("/") or "?" in path):
        raise ValueError("give a path of its own, such as /.cache")
    return path


def read_names(value: Any) -> tuple[str, ...]:
    """Names: a comma-separated string or an iterable of strings."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, Iterable):
        raise ValueError("give names, such as a,b")
    names = tuple(value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("give names as strings")
    return tuple(name for name in names if name)


def read_secrets(value: Any) -> tuple[str, ...]:
    """Keys, as names. One that is empty is a variable that somebody forgot to set: anybody could guess it."""
    names = value.split(",") if isinstance(value, str) else value
    if isinstance(names, Iterable):
        names = [name.strip() if isinstance(name, str) else name for name in names]
        if "" in names:
            raise ValueError("a key is empty; give every key, or leave the option out")
    return read_names(names)


def read_fields(value: Any) -> tuple[str, ...]:
    """Header field names, in lower case."""
    names = tuple(name.lower() for name in read_names(value))
    for name in names:
        if not is_token(name) or name == "*":
            raise ValueError(f"{name!r} is not a header field name")
    return names


def read_codings(value: Any) -> tuple[str, ...]:
    """Content codings in order of preference, each with its library at hand."""
    codings = tuple(name.lower() for name in read_names(value))
    for coding in codings:
        encoder(coding)
    if len(set(codings)) < len(codings):
        raise ValueError("give each coding once")
    return codings


def read_statuses(value: Any) -> dict[int, int | None] | None:
    """Statuses that a rule's ttl covers: `200,404`, `404:10` (its own seconds), or a mapping."""
    if value is None:
        return None
    if isinstance(value, str):
        pairs = [part.strip().partition(":") for part in value.split(",") if part.strip()]
        value = {status: (seconds if colon else None) for status, colon, seconds in pairs}
    if not isinstance(value, Mapping):
        value = dict.fromkeys(value if isinstance(value, Iterable) else [value])
    statuses = {
        read_count(status): None if seconds is None else read_seconds(seconds)
        for status, seconds in value.items()
    }
    for status in statuses:
        if not 200 <= status <= 599 or status in (206, 304):
            raise ValueError(f"{status} is no status of a whole response")
    return statuses


def read_cookies(value: Any) -> tuple[str, ...] | str | None:
    """`ignore`, the names of the cookies that select a variant, or None (the profile decides)."""
    if value is None or value == "ignore":
        return None if value is None else "ignore"
    names = read_names(value)
    if not names:
        raise ValueError('give the names of cookies, or "ignore"')
    return names


def read_methods(value: Any) -> tuple[str, ...] | None:
    """Methods that a rule applies to, in upper case; None means every method."""
    if value is None:
        return None
    methods = tuple(name.upper() for name in read_names(value))
    if not methods:
        raise ValueError("give methods, such as GET,HEAD; without any the rule would never apply")
    return methods


def one_of(*choices: str) -> Reader:
    """A reader for a word out of a few."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"give one of: {', '.join(choices)}")
        return str(value)

    return read


def optional(read: Reader) -> Reader:
    """The same reader, with None allowed."""
    return lambda value: None if value is None else read(value)


def passed(value: Any) -> Any:
    """A value that is checked where it is used (a store, the rules, a clock)."""
    return value


# --- the table -------------------------------------------------------------------------------------

DEFAULT_HARMLESS: Final = (
    "_ga", "_ga_*", "_gid", "_gat", "_gat_*", "_gac_*", "_gcl_*", "_dc_gtm_*", "__gads", "__gpi", "__eoi",
    "__utm*", "_fbp", "_fbc", "_pk_*", "_hj*", "_clck", "_clsk", "_uet*", "_ym_*", "_hp2_*", "_ttp",
    "_scid*", "_pin_unauth", "_rdt_*", "_li_*", "ajs_anonymous_id", "amplitude_id*", "amp_*",
    "mp_*_mixpanel", "optimizelyEndUserId", "hubspotutk", "__hstc", "__hssc", "__hssrc", "__cf_bm",
    "_cfuvid", "cf_clearance", "_vwo_*", "_vis_opt_*",
)  # fmt: skip
DEFAULT_LOOKUP_ONLY: Final = ("csrftoken", "XSRF-TOKEN")
DEFAULT_DROPPED: Final = (
    "clear-site-data", "server-timing", "set-login", "x-request-id", "x-correlation-id", "x-runtime",
    "x-user", "strict-transport-security",
)  # fmt: skip

OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("store", passed, "memory://", "URL or Store", "Where entries live."),
        Option(
            "ttl", read_optional_seconds, None, "seconds",
            "Lifetime of a 200 that states none itself. Default: 300 in the safe profile, 0 in rfc.",
        ),
        Option("rules", passed, (), "list of Rule", "Rules per path; the first that matches wins."),
        Option(
            "profile", one_of("safe", "rfc"), "safe", "word",
            "safe: what a site owner needs who reads nothing. rfc: RFC 9111 to the letter.",
        ),
        Option(
            "namespace", read_text, "", "text",
            "Separates sites and versions that share one store: change it at deploy and every old entry "
            "is gone.",
        ),
        Option("enabled", read_bool, True, "switch", "False passes every request straight to the app."),
        Option("clock", passed, None, "callable", "Wall clock in seconds; for tests."),
        Option(
            "max_bytes", read_bytes, 64_000_000, "bytes",
            "Size of the memory store (memory://?max_bytes=… wins).",
        ),
        Option(
            "near", read_optional_bytes, None, "bytes",
            "Size of a near tier: copies in each worker's memory of what a shared store holds, kept true by "
            "its journal. Default: none.",
        ),
        Option(
            "near_bound", read_above_zero, 1.0, "seconds",
            "How long after a purge elsewhere a near tier may at most still answer with the old page.",
        ),
        Option(
            "near_max_age", read_above_zero, 60.0, "seconds",
            "How long a near tier keeps a copy before it asks the store whether there is a newer one.",
        ),
        Option(
            "memo_bytes", read_bytes, 16_000_000, "bytes",
            "What each worker keeps decoded of a shared store, so that a hit need not decode it again. With "
            "a near tier, nothing: its copies are decoded.",
        ),
        Option(
            "store_timeout", read_above_zero, 0.05, "seconds",
            "How long a network store may take, for connecting and for answering, before the app is asked.",
        ),
        Option(
            "lease", read_above_zero, 5.0, "seconds",
            "How long the workers of a shared store leave a page to the one that is fetching it; a worker "
            "that dies meanwhile costs the others this long at most.",
        ),
        Option(
            "signing_keys", read_secrets, (), "secrets",
            "Entries in a shared store are signed with the first and must be signed with one of them. To "
            "change keys without a miss, deploy with the new key last, then with the new key first, then "
            "without the old one.",
        ),
        Option(
            "max_body_bytes", read_bytes, 1 << 20, "bytes",
            "Larger bodies stream through and are not stored.",
        ),
        Option(
            "spool_bytes", read_bytes, 1 << 20, "bytes",
            "Larger bodies, up to max_body_bytes, are kept in files instead of in memory (memory:// and "
            "lmdb://).",
        ),
        Option(
            "spool_max_bytes", read_bytes, 1_000_000_000, "bytes",
            "What the files of stored bodies may take on the disk; one takes half of it at most, and those "
            "that are being written half as much again. 0: no files, all bodies are kept in memory.",
        ),
        Option(
            "spool_dir", read_optional_text, None, "directory",
            "Where those files are. Default: the directory for temporary files (memory://), one beside the "
            "database (lmdb://).",
        ),
        Option("max_key_bytes", read_positive, 4096, "bytes", "Longer URLs bypass the cache."),
        Option("max_variants", read_positive, 32, "count", "Variants stored per URL; the oldest goes."),
        Option("max_groups", read_positive, 64, "count", "Groups per entry; more are not stored."),
        Option(
            "max_followers", read_count, 100, "count",
            "Requests that may wait for one that is already fetching the same page; keep it below the "
            "number of worker threads.",
        ),
        Option(
            "wait_timeout", read_duration, 10.0, "seconds",
            "How long a follower waits before it goes to the app itself.",
        ),
        Option(
            "slow_client_grace", read_duration, 0.1, "seconds",
            "How long followers wait for a leader whose client is slow to take what is already there.",
        ),
        Option(
            "miss_marker", read_duration, 10.0, "seconds",
            "How long an unstorable answer keeps requests for its URL from waiting for each other.",
        ),
        Option(
            "background_threads", read_positive, 2, "count",
            "Threads that refresh stale pages behind the visitors, and then code pages (multithreaded "
            "servers).",
        ),
        Option(
            "background_queue", read_positive, 100, "count",
            "Refreshes that may wait for a thread, and as many codings of pages behind them; more are "
            "dropped, and asked for again by a later hit.",
        ),
        Option(
            "stale_while_revalidate", read_seconds, 0, "seconds",
            "Window after expiry in which a stale page answers at once while a refresh runs, where the "
            "response states none.",
        ),
        Option(
            "stale_if_error", read_seconds, 0, "seconds",
            "Window after expiry in which a stale page answers when the app fails, where the response "
            "states none.",
        ),
        Option(
            "early_refresh", read_beta, 0.0, "factor",
            "Refresh a page behind its visitors shortly before it expires: at random, and the earlier the "
            "longer the app takes for it. 0: never; 1: as XFetch recommends; more: earlier.",
        ),
        Option(
            "jitter", read_seconds, 0, "seconds",
            "Lifetimes are shortened at random by up to so much, and by half at most, so that pages stored "
            "together do not expire together.",
        ),
        Option(
            "keep", read_seconds, 3600, "seconds",
            "How long a stale entry stays stored for the sake of its validators.",
        ),
        Option("max_error_ttl", read_seconds, 10, "seconds", "Longest lifetime of a stored 5xx."),
        Option(
            "harmless_cookies", read_names, DEFAULT_HARMLESS, "names, globs",
            "Cookies that count as absent; the app does not see them when its answer may be stored. "
            "Start with + to add to the default.",
        ),
        Option(
            "lookup_cookies", read_names, DEFAULT_LOOKUP_ONLY, "names, globs",
            "Cookies with which a hit may answer, but whose misses are not stored. Start with + to add.",
        ),
        Option(
            "encode", read_codings, (), "codings",
            "Codings in which a page is kept beside the page itself, made once per entry, the preferred one "
            "first: of gzip, br (needs `wsgicache[br]`) and zstd (needs `wsgicache[zstd]`). See "
            "[encodings.md](encodings.md). Default: the app's own.",
        ),
        Option(
            "encode_min_bytes", read_positive_bytes, 1024, "bytes",
            "Smaller bodies are left alone by encode.",
        ),
        Option(
            "languages", read_names, (), "language tags",
            "The languages that the site speaks: Accept-Language is normalised to one of them.",
        ),
        Option(
            "drop_fields", optional(read_fields), None, "field names",
            "Response fields left out of the stored copy. Default: fields that name one user or hop in "
            "the safe profile, none in rfc (RFC 9111 §3.1). Start with + to add to the former.",
        ),
        Option(
            "targeted_fields", read_fields, ("wsgicache-cache-control", "cdn-cache-control"),
            "field names", "Targeted fields (RFC 9213) that beat Cache-Control, first valid one first.",
        ),
        Option(
            "consume_fields", read_fields, ("wsgicache-cache-control",), "field names",
            "Response fields that are for this cache alone: no client sees them.",
        ),
        Option(
            "no_vary_search", read_bool, False, "switch",
            "Heed No-Vary-Search (an Internet-Draft) where the query is part of the key.",
        ),
        Option(
            "log", read_bool, False, "switch",
            "One structured line per decision on the logger `wsgicache.decisions`.",
        ),
        Option(
            "secret", read_optional_text, None, "text",
            "A client that sends it as Wsgicache-Secret sees the key in Cache-Status, and may do what "
            "admin_path and purge_method allow.",
        ),
        Option(
            "admin_path", read_path, None, "path",
            "Where purges, numbers and switches are answered over HTTP, such as /.cache; needs a secret. "
            "Default: nowhere.",
        ),
        Option(
            "dashboard", read_bool, False, "switch",
            "Pages for a browser at admin_path, to see what the cache does, to purge and to switch rules; "
            "needs admin_path, a secret, and `wsgicache[dashboard]`.",
        ),
        Option(
            "admin_auth", read_callable, None, "callable",
            "A function of the environ that says True where a request may use the dashboard without signing "
            "in with the secret, such as for an administrator whom the app knows. Default: none.",
        ),
        Option(
            "purge_method", read_bool, False, "switch",
            "Answer the method PURGE on every URL; needs a secret. Otherwise it is the app's to answer.",
        ),
    )
}  # fmt: skip

RULE_OPTIONS: Final[Mapping[str, Option]] = {
    option.name: option
    for option in (
        Option("name", read_optional_text, None, "text", "Names the rule, so that it can be switched."),
        Option("bypass", read_bool, False, "switch", "The cache stands aside for what the rule covers."),
        Option(
            "ttl", read_optional_seconds, None, "seconds",
            "Lifetime of a 200, redirect, 404 or 410 that states none itself.",
        ),
        Option(
            "statuses", read_statuses, None, "statuses",
            "Statuses that ttl covers instead; 404:10 gives one its own seconds.",
        ),
        Option(
            "override", read_bool, False, "switch",
            "ttl beats the response's own freshness and no-cache; never private or no-store.",
        ),
        Option(
            "query", optional(one_of("bypass", "key", "sort")), None, "word",
            "bypass: a query string bypasses. key: it is part of the key. sort: so too, ordered by name.",
        ),
        Option(
            "ignore_query", read_names, (), "names, globs",
            "Parameters that neither the key nor the app sees.",
        ),
        Option(
            "cookies", read_cookies, None, "names or ignore",
            'The cookies that select a variant, or "ignore"; the app sees no others.',
        ),
        Option("vary", read_fields, (), "field names", "Request fields that select a variant."),
        Option("groups", read_names, (), "names", "Groups that every entry of the rule carries."),
        Option(
            "stale_while_revalidate", read_optional_seconds, None, "seconds",
            "As the option of the cache, for this rule.",
        ),
        Option(
            "stale_if_error", read_optional_seconds, None, "seconds",
            "As the option of the cache, for this rule.",
        ),
        Option(
            "early_refresh", read_optional_beta, None, "factor",
            "As the option of the cache, for this rule.",
        ),
        Option(
            "jitter", read_optional_seconds, None, "seconds",
            "As the option of the cache, for this rule.",
        ),
        Option(
            "max_body_bytes", read_optional_bytes, None, "bytes",
            "As the option of the cache, for this rule.",
        ),
        Option(
            "encode", optional(read_codings), None, "codings",
            "As the option of the cache, for this rule; empty: none.",
        ),
        Option(
            "methods", read_methods, None, "methods", "Methods that the rule applies to; default all.",
        ),
        Option("host", read_optional_text, None, "glob", "Hosts that the rule applies to; default all."),
        Option(
            "strip_set_cookie", read_bool, False, "switch",
            "Store the response without its Set-Cookie lines; the first client still gets them.",
        ),
        Option(
            "store_tokens", read_bool, False, "switch",
            "Store pages that hold a CSRF field or a CSP nonce, because you know that they are nobody's.",
        ),
        Option(
            "enabled", read_bool, True, "switch",
            "False: the rule is switched off until somebody enables it.",
        ),
    )
}  # fmt: skip


def read_option(table: Mapping[str, Option], name: str, value: Any, where: str) -> Any:
    """Read one value by the table.

    Args:
        where: what to call the place in an error, such as "keyword" or "site.ini, [filter:cache]".

    Raises:
        OptionError: unknown name or bad value.
    """
    option = table.get(name)
    if option is None:
        raise OptionError(f"{where}: unknown option {name!r} = {value!r}; {_known(table, name)}")
    try:
        return option.read(value)
    except (ValueError, TypeError) as error:
        shown = "…" if name in _SECRET else repr(value)
        raise OptionError(f"{where}: {name} = {shown} is not valid: {error}") from None


_SECRET: Final = frozenset({"secret", "signing_keys"})
"""Options whose values no error message repeats."""


def _known(table: Mapping[str, Option], name: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, table, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known options are " + ", ".join(table)


def extended(names: tuple[str, ...], default: tuple[str, ...]) -> tuple[str, ...]:
    """Names, or, where the first one starts with +, the default and them."""
    if names and names[0].startswith("+"):
        return (*default, names[0][1:], *names[1:])
    return names


@dataclass(frozen=True, slots=True)
class Settings:
    """The values of one cache, typed; made by `settings_from`."""

    store: Any
    ttl: int | None
    rules: Any
    profile: str
    namespace: str
    enabled: bool
    clock: Callable[[], float] | None
    max_bytes: int
    near: int | None
    near_bound: float
    near_max_age: float
    memo_bytes: int
    store_timeout: float
    lease: float
    signing_keys: tuple[str, ...] = field(repr=False)
    max_body_bytes: int
    spool_bytes: int
    spool_max_bytes: int
    spool_dir: str | None
    max_key_bytes: int
    max_variants: int
    max_groups: int
    max_followers: int
    wait_timeout: float
    slow_client_grace: float
    miss_marker: float
    background_threads: int
    background_queue: int
    stale_while_revalidate: int
    stale_if_error: int
    early_refresh: float
    jitter: int
    keep: int
    max_error_ttl: int
    harmless_cookies: tuple[str, ...]
    lookup_cookies: tuple[str, ...]
    encode: tuple[str, ...]
    encode_min_bytes: int
    languages: tuple[str, ...]
    drop_fields: tuple[str, ...] | None
    targeted_fields: tuple[str, ...]
    consume_fields: tuple[str, ...]
    no_vary_search: bool
    log: bool
    secret: str | None = field(repr=False)
    admin_path: str | None
    dashboard: bool
    admin_auth: Callable[[dict[str, Any]], bool] | None
    purge_method: bool


def settings_from(values: Mapping[str, Any], where: str = "keyword") -> Settings:
    """Read values by the table and fill in defaults.

    Raises:
        OptionError: an unknown name, a bad value, or values that contradict each other.
    """
    read = {name: option.default for name, option in OPTIONS.items()}
    read |= {name: read_option(OPTIONS, name, value, where) for name, value in values.items()}
    read["harmless_cookies"] = extended(read["harmless_cookies"], DEFAULT_HARMLESS)
    read["lookup_cookies"] = extended(read["lookup_cookies"], DEFAULT_LOOKUP_ONLY)
    if read["drop_fields"] is not None:
        read["drop_fields"] = extended(read["drop_fields"], DEFAULT_DROPPED)
    if read["clock"] is not None and not callable(read["clock"]):
        raise OptionError(f"{where}: clock = {read['clock']!r} is not callable; give time.time")
    return Settings(**read)
