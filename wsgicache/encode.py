"""Content codings: which pages are worth one, and how a form is made of what the app gave. Pure.

- A form is an entry beside the page's own, equal in all but the body, its length, its coding and its tag.
- What says that it is not to be touched is not: `no-transform`, a coding of the app's, a digest of the body.
- A strong tag names bytes (RFC 9110 §8.8.1), so a form's names its coding and what made it: another version
  of a library may make other bytes, and a client that asks for the rest of its body then gets the whole.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, Final, NamedTuple

from .conditional import not_modified
from .entry import Entry, Headers, intern_pairs, with_etag
from .fields import IDENTITY, cache_control, parse_etag, vary_names
from .key import CODING_FIELD

CODINGS: Final = ("gzip", "br", "zstd")
"""Codings that a form can have."""

LARGEST: Final = 4 << 20
"""Bytes of the largest body that gets forms: to code more would hold up the thread that does it."""

_LEVELS: Final = {"gzip": 6, "br": 5, "zstd": 9}
"""gzip: zlib's own; 9 takes half as long again and more for a body smaller by a few in a thousand.
br: costs what gzip does at 6 and gives 5 % less; 9 takes 40 times as long for another half per cent.
zstd: costs what gzip does at 6 and is never larger; beyond it each per cent takes twice as long."""

_QUICK: Final = {"gzip": 0, "br": 0, "zstd": 1}
"""For what does not become smaller anyway: gzip takes a thirtieth of the time, br and zstd a fifth."""

_WORTH: Final = 0.9
"""A form is kept where it has at most this part of the body's bytes."""

_TYPES: Final = frozenset(
    {
        "application/graphql", "application/javascript", "application/json", "application/rtf",
        "application/sql", "application/toml", "application/vnd.ms-fontobject", "application/wasm",
        "application/x-httpd-php", "application/x-javascript", "application/x-sh", "application/xml",
        "application/xml-dtd", "application/yaml", "font/otf", "font/ttf", "image/bmp",
        "image/vnd.microsoft.icon", "image/x-icon",
    }
)  # fmt: skip
"""Types that are not text by their name and still become smaller."""

_DIGESTS: Final = ("content-md5", "digest", "content-digest", "repr-digest")
"""Fields that vouch for bytes (RFC 9530, and what was there before)."""

STEERING: Final = ("content-encoding", *_DIGESTS)
"""Response fields that decide whether a page gets forms, beside those that decide more."""


FieldsOf = Callable[[Entry], Mapping[str, str]]


class Encoder(NamedTuple):
    """How a coding is made; `name` differs where the bytes may."""

    compress: Callable[[bytes], bytes]
    name: str


@lru_cache(maxsize=8)
def encoder(coding: str) -> Encoder:
    """What makes a coding.

    Raises:
        ValueError: its library is not installed, or there is no such coding.
    """
    if coding not in CODINGS:
        raise ValueError(f"{coding!r} is no coding that can be made here; give some of: {', '.join(CODINGS)}")
    return _encoder(coding, _LEVELS[coding])


@lru_cache(maxsize=8)
def quick_encoder(coding: str) -> Encoder:
    """What puts a body that does not become smaller into a coding, for who accepts nothing else."""
    return _encoder(coding, _QUICK[coding])


def _encoder(coding: str, level: int) -> Encoder:
    made, library = {"gzip": _gzip, "br": _brotli, "zstd": _zstd}[coding](level)
    return Encoder(made, f"{coding}-{zlib.crc32(f'{library} {level}'.encode()) & 0xFFFF:04x}")


def _gzip(level: int) -> tuple[Callable[[bytes], bytes], str]:
    return lambda body: zlib.compress(body, level, 31), zlib.ZLIB_RUNTIME_VERSION


def _brotli(level: int) -> tuple[Callable[[bytes], bytes], str]:
    library = _library("br", ("brotli", "brotlicffi"), "brotli")
    compress = library.compress
    return lambda body: compress(body, quality=level), library.__version__


def _zstd(level: int) -> tuple[Callable[[bytes], bytes], str]:
    library = _library("zstd", ("compression.zstd", "backports.zstd"), "backports.zstd")
    compress = library.compress
    return lambda body: compress(body, level), library.zstd_version


def _library(coding: str, names: tuple[str, ...], package: str) -> Any:
    """The first of some modules that is there; each makes the same of a body."""
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    raise ValueError(
        f"{coding} needs the package {package!r}, which is not installed: pip install 'wsgicache[{coding}]'"
    )


# --- which pages ------------------------------------------------------------------------------------


def fits(code: int, fields: Mapping[str, str], varying: tuple[str, ...]) -> bool:
    """Whether a response may have forms, judged by its head without its length.

    Args:
        fields: values by lower-case name.
        varying: the request fields that select its variants.
    """
    if code != 200 or "accept-encoding" in varying or any([name in fields for name in STEERING]):
        return False
    if "no-transform" in cache_control(fields.get("cache-control", "")):  # RFC 9111 §5.2.2.6
        return False
    return becomes_smaller(fields.get("content-type", ""))


@lru_cache(maxsize=256)
def becomes_smaller(content_type: str) -> bool:
    """Whether bodies of a type usually do; without a type nobody knows."""
    kind = content_type.partition(";")[0].strip().lower()
    return kind.startswith("text/") or kind.endswith(("+json", "+xml", "+text", "+yaml")) or kind in _TYPES


def long_enough(length: int | None, least: int) -> bool:
    """Whether a body of this length is worth a form; one of unknown length may be."""
    return length is None or least <= length <= LARGEST


# --- Vary -------------------------------------------------------------------------------------------


def with_vary(headers: Headers) -> Headers:
    """The fields of a page that has forms: what varies by the client is told to the caches behind us."""
    for at, (name, value) in enumerate(headers):
        if name.lower() == "vary":
            told = f"{value}, Accept-Encoding" if value.strip() else "Accept-Encoding"
            return (*headers[:at], (name, told), *headers[at + 1 :])
    return (*headers, ("Vary", "Accept-Encoding"))


def without_vary(headers: Headers) -> Headers:
    """The fields as the app gave them, of a page that does not vary by Accept-Encoding itself."""
    kept: list[tuple[str, str]] = []
    for name, value in headers:
        if name.lower() == "vary":
            names = [one.strip() for one in value.split(",")]
            value = ", ".join([one for one in names if one and one.lower() != "accept-encoding"])
            if not value:
                continue
        kept.append((name, value))
    return tuple(kept)


# --- forms ------------------------------------------------------------------------------------------


def coding_of(entry: Entry) -> str | None:
    """The coding that an entry was made for, "identity" for the app's own page; None: it has no forms."""
    varying = entry.terms.varying
    return entry.values[varying.index(CODING_FIELD)] if CODING_FIELD in varying else None


def is_form(entry: Entry) -> bool:
    """Whether an entry was made here of another one."""
    return coding_of(entry) not in (None, IDENTITY)


def form_tag(etag: str | None, coding: str) -> str | None:
    """The ETag of a page's form: a strong one is the form's own, a weak one names them all."""
    return _tag_by(encoder(coding), etag)


def _tag_by(made: Encoder, etag: str | None) -> str | None:
    tag = None if etag is None else parse_etag(etag)
    return etag if tag is None or tag.weak else f'"{tag.opaque}-{made.name}"'


_FORM_TAG: Final = re.compile(rf'-(?:{"|".join(CODINGS)})-[0-9a-f]{{4}}(?=")')


def page_tags(value: str) -> str:
    """The tags of a request field as the app gave them out: it knows of no forms."""
    return _FORM_TAG.sub("", value)


def with_tag(headers: Headers, tag: str) -> Headers:
    """The fields with another ETag."""
    return (*[pair for pair in headers if pair[0].lower() != "etag"], ("ETag", tag))


def make_form(plain: Entry, coding: str, fields: Mapping[str, str], *, anyhow: bool = False) -> Entry:
    """The form of a page in a coding. A page that does not become clearly smaller is its own form.

    Args:
        plain: the page as the app gave it.
        fields: its fields by lower-case name.
        anyhow: for a client that accepts nothing else, of a page that does not become smaller. That takes so
            little time that nobody need remember what is of use to so few.
    """
    plain = with_etag(plain)
    if not may_have_form(plain, fields):
        return _form(plain, coding, None)
    body: Any = plain.body
    made = quick_encoder(coding) if anyhow else encoder(coding)
    coded = made.compress(body)
    if not anyhow and len(coded) > _WORTH * len(body):
        return _form(plain, coding, None)
    return _form(plain, coding, coded, made)


def _form(plain: Entry, coding: str, coded: bytes | None, made: Encoder | None = None) -> Entry:
    """The form of a page, whose body is coded or, without that, the page's own."""
    body, headers = plain.body, plain.headers
    if coded is not None:
        body, headers = coded, _form_headers(plain, coding, len(coded), made or encoder(coding))
    return Entry(
        plain.key, plain.terms, headers, body, plain.since, plain.fresh_until, plain.born,
        _values_with(plain, coding),
    )  # fmt: skip


def renew_form(form: Entry, before: Entry, plain: Entry, fields_of: FieldsOf) -> Entry | None:
    """The form of a page that says the same as the one before it, without making it again.

    All but the coded bytes is the new page's: its fields, its instants, its mark.

    Args:
        form: what is stored as the form of the page before.
        before: that page.
        plain: the page that took its place: see `says_the_same`.
        fields_of: the fields of an entry by lower-case name.

    Returns:
        None where it has to be made again.
    """
    plain, coding = with_etag(plain), coding_of(form)
    if coding is None or not is_form_of(form, before):
        return None
    if not (may_have_form(before, fields_of(before)) and may_have_form(plain, fields_of(plain))):
        return None
    if form.field("content-encoding") is None:  # it was tried, and does not become smaller
        return _form(plain, coding, None)
    known = with_etag(before).etag
    is_ours = form.etag != known and form.etag == form_tag(known, coding)
    if not is_ours and form_tag(plain.etag, coding) != plain.etag:
        return None  # a strong tag names bytes, and another version of the library may have made these
    body: Any = form.body
    return _form(plain, coding, body)


def says_the_same(plain: Entry, before: Entry) -> bool:
    """Whether a page may go on with the coded bodies of the one before it, which stood in the same place."""
    return (
        isinstance(plain.body, bytes)
        and plain.key == before.key
        and plain.terms.fingerprint == before.terms.fingerprint
        and (plain.terms.varying, plain.values) == (before.terms.varying, before.values)
        and plain.body == before.body
    )


def may_have_form(plain: Entry, fields: Mapping[str, str]) -> bool:
    """Whether a page that stands where forms are may have one, if it becomes smaller."""
    fit = fits(plain.terms.code, fields, plain.terms.varying) and _is_everybodys(plain, fields)
    return fit and isinstance(plain.body, bytes)


def _is_everybodys(plain: Entry, fields: Mapping[str, str]) -> bool:
    """Whether a page that stands where forms are may have one.

    One that says no `Vary` of ours, because it was too short, stands there beside others that say it: a cache
    behind us would give its form to who accepts none. And the length of a coded page tells what is in it, so
    what a visitor's secret selected stays as it is (BREACH).
    """
    if "accept-encoding" not in vary_names(fields.get("vary", "")):
        return False
    return not any(
        [name in _SECRETS and value for name, value in zip(plain.terms.varying, plain.values, strict=True)]
    )


_SECRETS: Final = ("authorization", "cookie")


def _form_headers(plain: Entry, coding: str, length: int, by: Encoder) -> Headers:
    made = {"content-length": str(length), "etag": _tag_by(by, plain.etag)}
    headers = [(name, made.get(name.lower()) or value) for name, value in plain.headers]
    return intern_pairs((*headers, ("Content-Encoding", coding)))


def _values_with(plain: Entry, coding: str) -> tuple[str | None, ...]:
    pairs = zip(plain.terms.varying, plain.values, strict=True)
    return tuple([coding if name == CODING_FIELD else value for name, value in pairs])


def is_form_of(form: Entry, plain: Entry) -> bool:
    """Whether a form was made of this very page, not of one that it replaced, by whatever library."""
    if not is_form(form) or (form.born, form.since) != (plain.born, plain.since):
        return False
    made, tag = form.etag, with_etag(plain).etag
    return made == tag or (made is not None and page_tags(made) == tag)


def client_has_form(etag: str | None, coding: str, if_none_match: str | None) -> str | None:
    """The tag of a form that the client has already and could get again (RFC 9110 §13.1.2), or None."""
    tag = form_tag(etag, coding)
    if tag is None or if_none_match is None or not not_modified(if_none_match, None, tag, None):
        return None
    return tag
