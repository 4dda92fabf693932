"""Somebody's token in a page (house rule 19): looked for once, when storing. Pure."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import Final

from .compiled import twin

_TAG: Final = re.compile(rb"<(input|meta|script|style|link)\b")
# What a tag holds, up to its end or the end of the page. As in browsers, a quote is one only where a value
# begins. Possessive, so that no page takes long.
_INSIDE: Final = re.compile(rb"(?:[^=>]++|=[ \t\n\f\r]*+(?:\"[^\"]*+\"|'[^']*+')?+)*+")
_ATTRIBUTE: Final = re.compile(
    rb"([a-z][\w:.-]*+)[ \t\n\f\r]*+=[ \t\n\f\r]*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))"
)
_TOKEN_NAME: Final = re.compile(rb"[cx]srf|requestverificationtoken|(?:^|[^a-z])authenticator\]?$|token\]?$")
_FIELDS: Final = frozenset((b"input", b"meta"))
_NAMING: Final = frozenset((b"name", b"id", b"property"))
_WORDS: Final = (b"srf", b"token", b"authenticator")
"""One of these is in the name of every token; where there are many tags they are looked for first."""
_FEW: Final = 512
_may_hold_token: Final = None if twin is None else twin.may_hold_token
"""False for nearly every page that holds no token, in a sixth of the time."""
MAX_SEARCHED: Final = 8 << 20
"""Bytes of a page that are searched. A larger one that is encoded, or in a file, counts as holding one."""


def csp_has_nonce(policy: str) -> bool:
    """Whether a Content-Security-Policy (or Report-Only) field value holds a nonce source."""
    return any(
        word.lower().startswith("'nonce-") for word in policy.replace(";", " ").replace(",", " ").split()
    )


@lru_cache(maxsize=256)
def is_html(content_type: str | None) -> bool:
    """Whether a media type is one that browsers render as HTML."""
    if content_type is None:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence in ("text/html", "application/xhtml+xml")


def holds_token(body: bytes, coding: str | None) -> bool:
    """Whether an HTML body holds a CSRF field, a CSRF meta tag or a nonce.

    A body whose coding cannot be read here counts as holding one: when in doubt, it is not stored.
    """
    if coding is not None and coding.strip().lower() not in ("", "identity"):
        decoded = _decode(body, coding.strip().lower())
        if decoded is None:
            return True
        body = decoded
    return (_may_hold_token is None or _may_hold_token(body)) and _search(body)


def _search(body: bytes) -> bool:
    page = body.lower()
    # No tag that begins behind the last of three words can hold one, and in most pages that is the last meta
    # element of the head. `rfind` skips through the rest much faster than `find` or a regular expression.
    nonce = page.rfind(b"nonce")
    last = max(page.rfind(b"<input"), page.rfind(b"<meta"), nonce)
    if last < 0 or (last > _FEW and nonce < 0 and not any([page.rfind(word) >= 0 for word in _WORDS])):
        return False
    return _holds_token(page, last + len(b"<input "))


def _holds_token(page: bytes, end: int) -> bool:
    """Whether a page, in lower case, holds a token in a tag that begins before `end`.

    What looks like a tag in a script or a comment may seem to hold the real tags behind it, so that tags are
    looked for in tags too. A page where that is much more than the page itself counts as holding a token.
    """
    start, left = 0, 2 * len(page)
    while left >= 0 and (tag := _TAG.search(page, start, end)) is not None:
        inside = _INSIDE.match(page, tag.end())
        assert inside is not None  # noqa: S101 - it matches nothing at all, too
        text = inside[0]
        # `_WORDS` or a nonce: one of these is in everything that `_is_token` finds.
        speaks = b"srf" in text or b"token" in text or b"authenticator" in text or b"nonce" in text
        if speaks and _is_token(tag[1], text):
            return True
        start, left = tag.end(), left - len(text)
    return left < 0


def _is_token(tag: bytes, attributes: bytes) -> bool:
    """Whether a tag is a field or a meta element named like a token, or carries a nonce."""
    for match in _ATTRIBUTE.finditer(attributes):
        name, value = match[1], match[2] or match[3] or match[4] or b""
        if tag in _FIELDS:
            if name in _NAMING and _TOKEN_NAME.search(value.strip()) is not None:
                return True
        elif name == b"nonce" and value.strip():
            return True
    return False


def _decode(body: bytes, coding: str) -> bytes | None:
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    try:
        reader = zlib.decompressobj(wbits=47)
        decoded = reader.decompress(body, MAX_SEARCHED)
    except zlib.error:
        return None
    # Cut off, longer than anybody reads, or followed by a second member, which browsers read too.
    return decoded if reader.eof and not reader.unconsumed_tail and not reader.unused_data else None
