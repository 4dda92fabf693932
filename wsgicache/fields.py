"""Reading and writing header fields: strings in, small immutable values out.

What holds for everything here:

- Pure: no clock, no input or output, no exception for any string a client or an app may send.
- Fails closed: what cannot be read never grants permission and never lengthens a lifetime; a
  directive that restricts still counts where it is recognisable in a broken value.
- A field that came on several lines is passed as one value, its lines joined by ", "
  (RFC 9110 §5.3; :func:`list_value` does that).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date
from functools import lru_cache, wraps
from typing import Final, NamedTuple, TypeVar

MAX_SECONDS: Final = 2**31
"""Where a number of seconds saturates (RFC 9111 §1.2.2)."""

# --- Remembering what was parsed ---------------------------------------------------------------

_LONGEST_REMEMBERED: Final = 512
_T = TypeVar("_T")


def _remembered(parse: Callable[[str], _T]) -> Callable[[str], _T]:
    """Remember recent results, but not of long values: clients could fill the memory with them."""
    recall = lru_cache(maxsize=1024)(parse)

    @wraps(parse)
    def parse_once(value: str) -> _T:
        return recall(value) if len(value) <= _LONGEST_REMEMBERED else parse(value)

    return parse_once


# --- Words of the grammar ---------------------------------------------------------------------

_OWS: Final = " \t"
_TCHAR: Final = r"!#$%&'*+\-.^_`|~0-9A-Za-z"
_TOKEN: Final = re.compile(rf"[{_TCHAR}]+")
_FIELD_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*+("?)', re.DOTALL)
# Up to the next comma outside quotes; a quote that never closes takes the rest.
_LIST_MEMBER: Final = re.compile(r'(?:[^",]++|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))++', re.DOTALL)


def is_token(text: str) -> bool:
    """Whether `text` is a token: a field name, a directive name, a coding (RFC 9110 §5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def is_field_value(text: str) -> bool:
    """Whether `text` may be sent as a field value (RFC 9110 §5.5): no control but HTAB."""
    return (text.isascii() and text.isprintable()) or _FIELD_VALUE.fullmatch(text) is not None


def split_list(value: str) -> list[str]:
    """Return the members of a comma list, commas inside quoted strings kept (RFC 9110 §5.6.1)."""
    members = _LIST_MEMBER.findall(value) if '"' in value else value.split(",")
    return [stripped for member in members if (stripped := member.strip(_OWS))]


def list_value(headers: Iterable[tuple[str, str]], name: str) -> str | None:
    """Return all lines of the field `name` (any case) joined by ", ", or None if it is absent."""
    wanted = name.lower()
    lines = [value for key, value in headers if key.lower() == wanted]
    return ", ".join(lines) if lines else None


# --- Fields that belong to one connection -----------------------------------------------------

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Lower-case names that are never stored (RFC 9110 §7.6.1, RFC 9111 §3.1)."""


def end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return `headers` without hop-by-hop fields and without those that Connection lists."""
    lines = list(headers)
    listed = (list_value(lines, "connection") or "").lower()
    dropped = HOP_BY_HOP.union(split_list(listed)) if listed else HOP_BY_HOP
    return [line for line in lines if line[0].lower() not in dropped]


# --- Cache-Control ----------------------------------------------------------------------------

# What a restricting directive counts as where it stands broken. must-revalidate also permits
# (RFC 9111 §3.5); proxy-revalidate is the same restriction to a shared cache and permits nothing.
_RESTRICTIVE: Final = {
    "no-store": "no-store",
    "private": "private",
    "no-cache": "no-cache",
    "must-revalidate": "proxy-revalidate",
    "proxy-revalidate": "proxy-revalidate",
}
# must-understand is a permission: it can switch no-store off (RFC 9111 §5.2.2.3).
_PERMISSIONS: Final = frozenset({"public", "immutable", "must-understand"})
_FIELD_FORMS: Final = frozenset({"no-cache", "private"})
_JUNK: Final = "?"  # an argument that is neither digits nor a token
_DIRECTIVE: Final = re.compile(rf'([{_TCHAR}]+)(?:=(?:([{_TCHAR}]+)|"((?:[^"\\]|\\.)*+)"))?', re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(.)", re.DOTALL)

Member = tuple[str, str | None]
"""A directive: its lower-case name, and its argument without quotes or None."""


class Directives:
    """Cache directives by lower-case name; immutable (RFC 9111 §5.2).

    `name in directives`, `bool(directives)` and iteration look at the names.
    """

    __slots__ = ("_arguments", "_names", "_seconds")

    def __init__(self, members: Iterable[Member] = ()) -> None:
        arguments: dict[str, list[str | None]] = {}
        for name, argument in members:
            arguments.setdefault(name, []).append(argument)
        self._arguments: Final = arguments
        self._seconds: Final = {name: _agreed(given) for name, given in arguments.items()}
        self._names: Final = {
            name: _field_names(given) for name, given in arguments.items() if name in _FIELD_FORMS
        }

    def seconds(self, name: str) -> int | None:
        """Return the seconds that `name` carries, 0 to MAX_SECONDS, or None if it is absent.

        0 when the argument is missing or is no plain number, and when repeats differ: such a
        response is to be taken as stale (RFC 9111 §4.2.1).
        """
        return self._seconds.get(name)

    def names(self, name: str) -> tuple[str, ...]:
        """Return the lower-case field names that `no-cache="a, b"` or `private="a"` is limited to.

        () when the directive is absent or concerns the whole response: it stands plain anywhere,
        its list is broken, or it is not quoted (RFC 9111 §5.2.2.4, §5.2.2.7).
        """
        return self._names.get(name, ())

    def plain(self, name: str) -> bool:
        """Whether `name` is there, always without argument: `max-stale` then means any age."""
        given = self._arguments.get(name)
        return given is not None and all(argument is None for argument in given)

    def __contains__(self, name: object) -> bool:
        return name in self._seconds

    def __iter__(self) -> Iterator[str]:
        return iter(self._seconds)

    def __bool__(self) -> bool:
        return bool(self._seconds)

    def __repr__(self) -> str:
        shown = [
            name if argument is None else f'{name}="{argument}"'
            for name, given in self._arguments.items()
            for argument in given
        ]
        return f"<Directives {', '.join(shown)}>"


EMPTY: Final = Directives()
"""No directive at all."""


@_remembered
def cache_control(value: str) -> Directives:
    """Parse a Cache-Control value, of a request or a response (RFC 9111 §5.2).

    A member that breaks the grammar still restricts: it counts for every restricting directive
    it names, and a lifetime it begins with reads as 0; permissions in it do not count.
    """
    return Directives(directive for member in split_list(value) for directive in _directives(member))


def _directives(member: str) -> Iterator[Member]:
    match = _DIRECTIVE.fullmatch(member)
    if match is None:
        yield from _broken(member)
        return
    name, token, quoted = match[1].lower(), match[2], match[3]
    if token is None and quoted is None:
        yield name, None
    elif name in _FIELD_FORMS:  # private=a, b was surely meant to be private="a, b"
        yield name, None if quoted is None else _ESCAPE.sub(r"\1", quoted)
    elif name in _RESTRICTIVE:
        yield _RESTRICTIVE[name], None
    elif name not in _PERMISSIONS:  # public=false is no permission
        yield name, token if quoted is None else _ESCAPE.sub(r"\1", quoted)


def _broken(member: str) -> Iterator[Member]:
    bare = _QUOTED.sub(lambda quoted: " " if quoted[1] else quoted[0], member)
    words = [word.lower() for word in _TOKEN.findall(bare)]
    for word in words:
        if word in _RESTRICTIVE:
            yield _RESTRICTIVE[word], None
    if _TOKEN.match(member) and words[0] not in _RESTRICTIVE and words[0] not in _PERMISSIONS:
        yield words[0], _JUNK


def _agreed(arguments: list[str | None]) -> int:
    values = {_seconds(argument) for argument in arguments}
    return values.pop() if len(values) == 1 else 0


def _seconds(argument: str | None) -> int:
    if argument is None or not (argument.isascii() and argument.isdigit()):
        return 0
    digits = argument.lstrip("0")
    if len(digits) > 10:  # before int(): it refuses very long strings
        return MAX_SECONDS
    return min(int(digits or "0"), MAX_SECONDS)


def _field_names(arguments: list[str | None]) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for argument in arguments:
        members = [name for part in (argument or "").split(",") if (name := part.strip(_OWS))]
        if not members or not all(map(is_token, members)):
            return ()
        names.update(dict.fromkeys(name.lower() for name in members))
    return tuple(names)


# --- Structured fields ------------------------------------------------------------------------
# The grammar of RFC 9651 §4.2 is regular, down to the UTF-8 inside display strings, so it stands
# here as patterns. They take the longest piece that is valid; whatever is left over is no
# delimiter, and fails the field as a whole, as the RFC wants.

_SF_KEY: Final = r"[a-z*][a-z0-9_.*\-]*+"
_SF_STRING: Final = r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*+"'
# Base64 may lack padding (§4.2.7), but a single letter in the last group decodes to nothing.
_SF_BYTES: Final = r":(?:(?:[A-Za-z0-9+/]{4})*[A-Za-z0-9+/]{2,4}={0,2})?:"
_SF_TAIL: Final = "(?:%[89ab][0-9a-f])"  # a byte that continues a UTF-8 sequence
_SF_DISPLAY: Final = "".join(
    (
        r'%"(?:[\x20\x21\x23\x24\x26-\x7e]|%[0-7][0-9a-f]',
        rf"|%(?:c[2-9a-f]|d[0-9a-f]){_SF_TAIL}",
        rf"|%e0%[ab][0-9a-f]{_SF_TAIL}|%ed%[89][0-9a-f]{_SF_TAIL}|%e[1-9abcef]{_SF_TAIL}{{2}}",
        rf"|%f0%[9ab][0-9a-f]{_SF_TAIL}{{2}}|%f[123]{_SF_TAIL}{{3}}|%f4%8[0-9a-f]{_SF_TAIL}{{2}}",
        r')*+"',
    )
)
_SF_BARE: Final = "|".join(
    (
        r"-?[0-9]{1,12}\.[0-9]{1,3}",
        r"-?[0-9]{1,15}",
        _SF_STRING,
        rf"[A-Za-z*][{_TCHAR}:/]*+",
        _SF_BYTES,
        r"\?[01]",
        r"@-?[0-9]{1,15}",
        _SF_DISPLAY,
    )
)
_SF_PARAMETERS: Final = rf"(?:; *{_SF_KEY}(?:=(?:{_SF_BARE}))?)*+"
_SF_ITEM: Final = rf"(?:{_SF_BARE}){_SF_PARAMETERS}"
_SF_INNER: Final = rf"\( *(?:{_SF_ITEM}(?: +{_SF_ITEM})* *)?\)"
_SF_DICT_MEMBER: Final = re.compile(
    rf"(?P<key>{_SF_KEY})(?:=(?P<value>{_SF_BARE}|{_SF_INNER}))?{_SF_PARAMETERS}"
)
_SF_STRING_MEMBER: Final = re.compile(rf"(?P<value>{_SF_STRING}){_SF_PARAMETERS}")
_SF_INNER_STRING: Final = re.compile(_SF_STRING)
_SF_DELIMITER: Final = re.compile(r"[ \t]*+(?:\Z|,[ \t]*+(?!\Z))")


def _sf_members(pattern: re.Pattern[str], value: str) -> list[re.Match[str]] | None:
    """Split a structured List or Dictionary; None when any part of it does not parse."""
    members = []
    text = value.lstrip(" ")
    position = 0
    while position < len(text):
        member = pattern.match(text, position)
        delimiter = member and _SF_DELIMITER.match(text, member.end())
        if member is None or delimiter is None:
            return None
        members.append(member)
        position = delimiter.end()
    return members


@lru_cache(maxsize=256)
def targeted(value: str) -> Directives | None:
    """Parse a targeted field such as CDN-Cache-Control (RFC 9213 §2.1); None if not to be used.

    None when it is empty or does not parse as a Dictionary: the caller goes on to the next field.
    A lifetime of the wrong type reads as 0, a restricting directive of the wrong type as plain.
    """
    members = _sf_members(_SF_DICT_MEMBER, value)
    if not members:
        return None
    last = {member["key"]: member["value"] for member in members}
    return Directives(
        directive
        for name, bare in last.items()
        if bare != "?0"
        for directive in _sf_directive(name, None if bare == "?1" else bare)
    )


def _sf_directive(name: str, bare: str | None) -> Iterator[Member]:
    if bare is None:
        yield name, None
    elif name in _FIELD_FORMS:
        yield name, _sf_unquote(bare) if bare[0] == '"' else None
    elif name in _RESTRICTIVE:
        yield _RESTRICTIVE[name], None
    elif name not in _PERMISSIONS:
        yield name, bare if bare.isdigit() else _JUNK


def dictionary(value: str) -> dict[str, str] | None:
    """Parse a structured Dictionary into the text of its values; a bare key reads `?1` (RFC 9651 §3.2).

    None when it does not parse or is empty. The last of repeated keys holds; parameters are ignored.
    """
    members = _sf_members(_SF_DICT_MEMBER, value)
    if not members:
        return None
    return {member["key"]: member["value"] or "?1" for member in members}


def inner_strings(text: str) -> tuple[str, ...] | None:
    """The strings of an Inner List (RFC 9651 §3.1.1); None when it is none or holds something else."""
    if not text.startswith("("):
        return None
    strings = _SF_INNER_STRING.findall(text)
    rest = _SF_INNER_STRING.sub("", text).replace(" ", "")
    return tuple(_sf_unquote(string) for string in strings) if rest == "()" else None


@lru_cache(maxsize=1024)
def string_list(value: str) -> tuple[str, ...] | None:
    """Parse a List of Strings: Cache-Groups, Cache-Group-Invalidation (RFC 9875 §2, §3).

    Order is kept, duplicates are dropped, parameters ignored. None when the value does not
    parse or has a member of another type: the whole field is void (RFC 9651 §2.2).
    """
    members = _sf_members(_SF_STRING_MEMBER, value)
    if members is None:
        return None
    return tuple(dict.fromkeys(_sf_unquote(member["value"]) for member in members))


def _sf_unquote(quoted: str) -> str:
    return _ESCAPE.sub(r"\1", quoted[1:-1])


# --- Dates ------------------------------------------------------------------------------------

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_EPOCH: Final = date(1970, 1, 1).toordinal()
_LAST_SECOND: Final = (date.max.toordinal() - _EPOCH + 1) * 86400 - 1
_FIRST_SECOND: Final = (date.min.toordinal() - _EPOCH) * 86400
_FIFTY_YEARS: Final = 50 * 365.2425 * 86400


def _date_pattern(text: str) -> re.Pattern[str]:
    parts = {
        "WEEKDAY": f"(?P<weekday>{'|'.join(_DAYS)})",
        "LONGDAY": "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day",
        "MONTH": f"(?P<month>{'|'.join(_MONTHS)})",
        "TIME": r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)",
    }
    for word, pattern in parts.items():
        text = text.replace(word, pattern)
    # Caches match dates without regard to case (RFC 9111 §4.2).
    return re.compile(text, re.IGNORECASE | re.ASCII)


_IMF: Final = _date_pattern(r"WEEKDAY, (?P<day>\d\d) MONTH (?P<year>\d{4}) TIME GMT")
_RFC850: Final = _date_pattern(r"LONGDAY, (?P<day>\d\d)-MONTH-(?P<year>\d\d) TIME GMT")
_ASCTIME: Final = _date_pattern(r"WEEKDAY MONTH (?P<day>\d\d| \d) TIME (?P<year>\d{4})")


def http_date(seconds: float) -> str:
    """Return `seconds` since 1970 as an IMF-fixdate (RFC 9110 §5.6.7), years 1 to 9999."""
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        return _http_date(_LAST_SECOND if seconds > 0 else _FIRST_SECOND)
    return _http_date(int(seconds // 1))


@lru_cache(maxsize=1024)
def _http_date(seconds: int) -> str:
    days, rest = divmod(seconds, 86400)
    day = date.fromordinal(days + _EPOCH)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    weekday, month = _DAYS[day.weekday()], _MONTHS[day.month - 1]
    return f"{weekday}, {day.day:02} {month} {day.year:04} {clock} GMT"


def parse_date(value: str, *, now: float | None = None) -> float | None:
    """Return the seconds since 1970 that an HTTP-date names, or None if it is not one.

    All three forms of RFC 9110 §5.6.7. Two digits of a year mean the latest such year that is
    not over 50 years after `now` (seconds); without `now`, a year from 1970 to 2069.
    """
    if now is not None:
        match = _RFC850.fullmatch(value)
        if match is not None:
            return _latest(match, now)
    return _parse_date(value)


@_remembered
def _parse_date(value: str) -> float | None:
    match = _IMF.fullmatch(value) or _ASCTIME.fullmatch(value)
    if match is not None:
        return _instant(match, int(match["year"]))
    match = _RFC850.fullmatch(value)
    if match is not None:
        return _instant(match, 1970 + (int(match["year"]) - 70) % 100)
    return None


def _latest(match: re.Match[str], now: float) -> float | None:
    horizon = int(http_date(now)[12:16]) + 50
    year = horizon - (horizon - int(match["year"])) % 100
    instant = _instant(match, year)
    if instant is not None and instant > now + _FIFTY_YEARS:  # late in the fiftieth year
        return _instant(match, year - 100)
    return instant


def _instant(match: re.Match[str], year: int) -> float | None:
    month = _MONTHS.index(match["month"].title()) + 1
    try:
        day = date(year, month, int(match["day"]))
    except ValueError:
        return None
    weekday = match.groupdict().get("weekday")
    if weekday is not None and weekday.title() != _DAYS[day.weekday()]:
        return None
    return _time_of_day(match, (day.toordinal() - _EPOCH) * 86400)


def _time_of_day(match: re.Match[str], midnight: int) -> float | None:
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    if second == 60:  # a leap second, at the end of a day only
        if (hour, minute) != (23, 59):
            return None
        second = 59
    return float(midnight + hour * 3600 + minute * 60 + second)


# --- Entity tags ------------------------------------------------------------------------------

_ETAG: Final = r'(?P<weak>W/)?"(?P<opaque>[\x21\x23-\x7e\x80-\xff]*+)"'
_ONE_ETAG: Final = re.compile(_ETAG)
# A member is a tag or junk; in junk, too, a comma inside quotes separates nothing.
_ETAG_MEMBER: Final = re.compile(rf'[ \t]*+(?:{_ETAG}[ \t]*+(?=,|\Z)|(?:[^",]|"[^"]*+"?)*+)(?:,|\Z)')


class ETag(NamedTuple):
    """An entity tag: the text between its quotes, and whether it is weak (RFC 9110 §8.8.3)."""

    opaque: str
    weak: bool


@_remembered
def parse_etag(value: str) -> ETag | None:
    """Parse one entity tag strictly: quotes required, `W/` in capitals; None if it is not one."""
    match = _ONE_ETAG.fullmatch(value.strip(_OWS))
    return None if match is None else ETag(match["opaque"], match["weak"] is not None)


@_remembered
def etag_list(value: str) -> tuple[ETag, ...] | None:
    """Parse If-None-Match or If-Match; None stands for `*` (RFC 9110 §13.1.1, §13.1.2).

    Members that are no entity tags are dropped, `*` among others too.
    """
    if value.strip(_OWS) == "*":
        return None
    return tuple(
        ETag(match["opaque"], match["weak"] is not None)
        for match in _ETAG_MEMBER.finditer(value)
        if match["opaque"] is not None
    )


# --- Vary and negotiation ---------------------------------------------------------------------

_WEIGHT: Final = r"(?:[ \t]*;[ \t]*[qQ]=(?P<q>0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?"
_WEIGHTED: Final = re.compile(rf"(?P<word>[{_TCHAR}]+){_WEIGHT}")


@lru_cache(maxsize=1024)
def vary_names(value: str) -> tuple[str, ...]:
    """Return the lower-case names that a Vary value lists, sorted, once each (RFC 9110 §12.5.5).

    `("*",)` when any member is `*` or is not a field name: nothing can be reused then.
    """
    members = [member for part in value.split(",") if (member := part.strip(_OWS))]
    if "*" in members or not all(map(is_token, members)):
        return ("*",)
    return tuple(sorted({member.lower() for member in members}))


def _weights(value: str) -> dict[str, float]:
    """Return lower-case words with their weights, in order; of repeats the lowest weight counts."""
    weights: dict[str, float] = {}
    for part in value.split(","):
        match = _WEIGHTED.fullmatch(part.strip(_OWS))
        if match is not None:
            word = match["word"].lower()
            weights[word] = min(float(match["q"] or "1"), weights.get(word, 1.0))
    return weights


def accept_encoding(value: str | None, codings: tuple[str, ...] = ("br", "gzip", "zstd")) -> str:
    """Return the normal form of an Accept-Encoding value, for keys and for the app.

    The acceptable ones of `codings`, sorted and joined by ", ", then `identity;q=0` if the client
    refuses uncoded content (RFC 9110 §12.5.3); "" when only that will do. Idempotent.
    """
    if value is not None and len(value) > _LONGEST_REMEMBERED:
        return _normal_codings.__wrapped__(value, codings)
    return _normal_codings(value, codings)


@lru_cache(maxsize=1024)
def _normal_codings(value: str | None, codings: tuple[str, ...]) -> str:
    weights = _coding_weights(value or "")
    others = weights.get("*", 0.0)
    normal = [coding for coding in sorted(codings) if weights.get(coding, others) > 0]
    # identity is acceptable unless it, or `*` in its place, is refused.
    if weights.get("identity", weights.get("*", 1.0)) == 0:
        normal.append("identity;q=0")
    return ", ".join(normal)


IDENTITY: Final = "identity"
"""The coding that is none (RFC 9110 §12.5.3)."""

REFUSING: Final = "!"
"""What `preferred_coding` puts before a coding where the client refuses identity."""


def preferred_coding(value: str | None, codings: tuple[str, ...]) -> str:
    """Return which of `codings`, in the site's order, suits a client best, or "identity".

    The client's weights decide, then the order (RFC 9110 §12.5.3). Without the field anything would do,
    and identity does most surely. Where the client refuses identity the coding has a "!" before it; "!"
    alone says that nothing there is would be accepted.
    """
    if value is None or not codings:
        return IDENTITY
    if len(value) > _LONGEST_REMEMBERED:
        return _preferred.__wrapped__(value, codings)
    return _preferred(value, codings)


@lru_cache(maxsize=1024)
def _preferred(value: str, codings: tuple[str, ...]) -> str:
    weights = _coding_weights(value)
    others = weights.get("*", 0.0)
    best = max(codings, key=lambda coding: weights.get(coding, others), default="")
    weight = weights.get(best, others) if best else 0.0
    if weights.get(IDENTITY, weights.get("*", 1.0)) == 0:
        return REFUSING + (best if weight > 0 else "")
    return best if weight > 0 and weight >= weights.get(IDENTITY, 0.0) else IDENTITY


def _coding_weights(value: str) -> dict[str, float]:
    weights = _weights(value)
    if "x-gzip" in weights:  # another name of gzip (§8.4.1.3)
        weights["gzip"] = min(weights["x-gzip"], weights.get("gzip", 1.0))
    return weights


def accept_language(value: str | None, languages: tuple[str, ...]) -> str:
    """Return the one of `languages` (at least one) that suits the client best.

    Lookup by RFC 4647 §3.4: each range, by weight and then by the client's order, loses subtags
    from its end until it equals a language. Without a match the first language not refused.
    """
    if value is not None and len(value) > _LONGEST_REMEMBERED:
        return _lookup.__wrapped__(value, languages)
    return _lookup(value, languages)


@lru_cache(maxsize=1024)
def _lookup(value: str | None, languages: tuple[str, ...]) -> str:
    weights = _weights(value or "")
    spelled = {name.lower(): name for name in reversed(languages)}
    allowed = {name: spelling for name, spelling in spelled.items() if weights.get(name) != 0}
    for wanted in sorted(weights, key=lambda name: -weights[name]):
        if weights[wanted] > 0:
            prefixes = [name for name in allowed if f"{wanted}-".startswith(f"{name}-")]
            if prefixes:
                return allowed[max(prefixes, key=len)]
    return next((name for name in languages if name.lower() in allowed), languages[0])


# --- Cookies ----------------------------------------------------------------------------------


def cookie_pairs(value: str) -> list[tuple[str, str]]:
    """Return the cookies of a Cookie value in order, each as its name and its whole text.

    A cookie without a name (no `=`, or nothing before it) has the name "".
    """
    pairs = []
    for part in value.split(";"):
        pair = part.strip(_OWS)
        if pair:
            name, equals, _ = pair.partition("=")
            pairs.append((name.rstrip(_OWS) if equals else "", pair))
    return pairs
