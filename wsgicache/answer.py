"""The answer that an entry gives to a request: whole, 304, part, or 416. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from .body import FileBody, Part
from .conditional import head_304, not_modified, range_applies
from .encode import is_form, page_tags, with_tag
from .entry import Entry, Headers
from .facts import Facts
from .ranges import Span, content_range, multipart, select, unsatisfied


class Answer(NamedTuple):
    """A status line, the fields without Age and Cache-Status, and the body's chunks.

    Where `file` is not None, the chunks that are parts are parts of it.
    """

    status: str
    headers: Headers
    chunks: Sequence[bytes | Part]
    file: FileBody | None = None


def answer(entry: Entry, facts: Facts) -> Answer:
    """What to send for a request that `entry` answers (RFC 9111 §4.3.2, RFC 9110 §13.2.2).

    Preconditions and ranges concern a 200 only; anything else is sent as it was stored.
    """
    whole = _whole(entry, facts.method == "HEAD")
    if entry.terms.code != 200 or not facts.conditional:
        return whole
    etag, modified, date = _validators(entry.headers)
    if_none_match = facts.if_none_match
    if not_modified(if_none_match, facts.if_modified_since, etag, modified, date):
        if if_none_match is None and etag is not None and is_form(entry):
            return not_modified_answer(with_tag(entry.headers, page_tags(etag)))  # who has no tag has no form
        return not_modified_answer(entry.headers)
    asked = facts.range
    if_range = facts.if_range
    if if_range is not None and is_form(entry):  # a date is that of all codings, so it names no bytes
        modified = None
    if asked is None or facts.method != "GET" or not range_applies(if_range, etag, modified, date):
        return whole
    return _part(entry, asked) or whole


def _validators(headers: Headers) -> tuple[str | None, str | None, str | None]:
    """ETag, Last-Modified and Date, in one pass."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.lower(), value)
    return found.get("etag"), found.get("last-modified"), found.get("date")


def _whole(entry: Entry, without_body: bool) -> Answer:
    body = entry.body
    chunks = () if without_body or not body else (Part(0, len(body)) if isinstance(body, FileBody) else body,)
    return Answer(entry.terms.status, entry.headers, chunks, body if isinstance(body, FileBody) else None)


def not_modified_answer(headers: Headers) -> Answer:
    """A 304 for a response with these fields (RFC 9110 §15.4.5)."""
    return Answer("304 Not Modified", head_304(headers), ())


def _part(entry: Entry, asked: str) -> Answer | None:
    """206, 416, or None where the range is to be ignored (RFC 9110 §14.2)."""
    body = entry.body
    head: Headers
    spans = select(asked, len(body))
    if spans is None:
        return None
    if not spans:
        # PEP 3333's validator wants a Content-Type wherever a body may be, an empty one too.
        kind = ("Content-Type", "text/plain; charset=utf-8")
        head = (kind, ("Content-Range", unsatisfied(len(body))), ("Content-Length", "0"))
        return Answer("416 Range Not Satisfiable", head, ())
    if isinstance(body, FileBody):
        return _part_of_file(entry, body, spans)
    if len(spans) == 1:
        start, stop = spans[0]
        head = (("Content-Range", content_range(start, stop, len(body))),)
        return _partial(entry, head, stop - start, (body[start:stop],))
    boundary = blake2b(body, digest_size=12).hexdigest()
    parts, size, head = _framed(entry, spans, boundary)
    pieces = [body[part.start : part.stop] if isinstance(part, Part) else part for part in parts]
    return _partial(entry, head, size, (b"".join(pieces),))


def _part_of_file(entry: Entry, body: FileBody, spans: Sequence[Span]) -> Answer:
    """The same of a body that is not here."""
    if len(spans) == 1:
        start, stop = spans[0]
        head: Headers = (("Content-Range", content_range(start, stop, len(body))),)
        return _partial(entry, head, stop - start, (Part(start, stop),), body)
    boundary = blake2b(body.tag.encode("latin-1"), digest_size=12).hexdigest()
    parts, size, head = _framed(entry, spans, boundary)
    return _partial(entry, head, size, parts, body)


def _framed(
    entry: Entry, spans: Sequence[Span], boundary: str
) -> tuple[Sequence[bytes | Part], int, Headers]:
    """Several parts, their size and the field that says what they are."""
    parts, size = multipart(spans, len(entry.body), entry.field("content-type"), boundary)
    return parts, size, (("Content-Type", f"multipart/byteranges; boundary={boundary}"),)


def _partial(
    entry: Entry,
    extra: Headers,
    size: int,
    chunks: Sequence[bytes | Part],
    file: FileBody | None = None,
) -> Answer:
    replaced = {"content-length", *(name.lower() for name, _ in extra)}
    kept = [pair for pair in entry.headers if pair[0].lower() not in replaced]
    headers = (*kept, *extra, ("Content-Length", str(size)))
    return Answer("206 Partial Content", headers, chunks, file)
