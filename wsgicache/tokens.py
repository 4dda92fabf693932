"""Somebody's token in a page (house rule 19): looked for once, when storing. Pure."""

from __future__ import annotations

import re
import zlib
from typing import Final

_TOKEN_NAMES: Final = (
    rb"csrf[-_]?token|csrfmiddlewaretoken|csrf|xsrf|_csrf|_csrf_token|_token|authenticity_token|"
    rb"xsrf[-_]token|__requestverificationtoken|csrf[-_]param|anticsrf|form[-_]token"
)
_FIELD: Final = re.compile(
    rb"<(?:input|meta)\b[^>]*?\b(?:name|id)\s*=\s*[\"']?(?:" + _TOKEN_NAMES + rb")[\"'\s/>]",
)
_NONCE: Final = re.compile(rb"<(?:script|style|link)\b[^>]*?\bnonce\s*=\s*[\"']?\w")
_MAX_DECODED: Final = 8 << 20


def csp_has_nonce(policy: str) -> bool:
    """Whether a Content-Security-Policy (or Report-Only) field value holds a nonce source."""
    return any(
        word.lower().startswith("'nonce-") for word in policy.replace(";", " ").replace(",", " ").split()
    )


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
    lower = body.lower()
    # rfind skips much faster than find or a regular expression, and nearly every page ends here.
    has_field = lower.rfind(b"<input") >= 0 or lower.rfind(b"<meta") >= 0
    if has_field and _FIELD.search(lower) is not None:
        return True
    return lower.rfind(b"nonce") >= 0 and _NONCE.search(lower) is not None


def _decode(body: bytes, coding: str) -> bytes | None:
    if coding not in ("gzip", "x-gzip", "deflate"):
        return None
    try:
        reader = zlib.decompressobj(wbits=47)
        decoded = reader.decompress(body, _MAX_DECODED)
    except zlib.error:
        return None
    # Cut off, longer than anybody reads, or followed by a second member, which browsers read too.
    return decoded if reader.eof and not reader.unconsumed_tail and not reader.unused_data else None
