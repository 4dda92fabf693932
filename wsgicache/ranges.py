"""Byte ranges of a stored body (RFC 9110 §14): which bytes a request selects, and their framing.

A Range that is malformed, of another unit or too long is ignored (the answer is the whole 200).
Ranges that overlap or touch are coalesced (§15.3.7.2), so that no request, however abusive, makes
an answer send a byte of the body twice.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from .body import Part

Span = tuple[int, int]
"""Half-open byte positions: the first byte, and the one after the last."""

_SPEC: Final = re.compile(r"([0-9]*)-([0-9]*)")


def select(value: str, length: int, *, max_parts: int = 32) -> list[Span] | None:
    """Return the spans that a Range value selects of a body of `length` bytes, in request order.

    [] means that none can be satisfied (416). None means that Range is to be ignored (200):
    unknown unit, any invalid range in it, over `max_parts` ranges, or an empty body (§14.2).
    """
    unit, equals, ranges = value.partition("=")
    if not equals or unit.lower() != "bytes" or not length:
        return None
    specs = [spec for part in ranges.split(",") if (spec := part.strip(" \t"))]
    if not 0 < len(specs) <= max_parts:
        return None
    spans: list[Span] = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or not _valid(match[1], match[2]):
            return None
        start, stop = _span(match[1], match[2], length)
        if start < stop:
            spans.append((start, stop))
    return spans if len(spans) < 2 else _coalesce(spans)


def _valid(first: str, last: str) -> bool:
    """Whether there is a number at all, and the last is not before the first (§14.1.1)."""
    if not first or not last:
        return bool(first or last)
    return _rank(first) <= _rank(last)


def _rank(digits: str) -> tuple[int, str]:
    """Order numbers of any length without converting them."""
    significant = digits.lstrip("0")
    return len(significant), significant


def _span(first: str, last: str, length: int) -> Span:
    """Return the span of one valid range, empty if it selects nothing."""
    if not first:
        return length - _capped(last, length), length
    start = _capped(first, length)
    return start, min(_capped(last, length) + 1, length) if last else length


def _capped(digits: str, limit: int) -> int:
    """Return the number, at most `limit`; int() refuses very long strings."""
    significant = digits.lstrip("0")
    if len(significant) > 19:
        return limit
    return min(int(significant or "0"), limit)


def _coalesce(spans: list[Span]) -> list[Span]:
    """Unite spans that overlap or touch; each union stands where its first member stood."""
    united: list[tuple[int, int, int]] = []  # (place in the request, start, stop)
    for place, (start, stop) in sorted(enumerate(spans), key=lambda item: item[1]):
        if united and start <= united[-1][2]:
            first, begin, end = united[-1]
            united[-1] = (min(first, place), begin, max(end, stop))
        else:
            united.append((place, start, stop))
    return [(start, stop) for _, start, stop in sorted(united)]


def content_range(start: int, stop: int, length: int) -> str:
    """Return the Content-Range of the bytes from `start` to before `stop` (RFC 9110 §14.4)."""
    return f"bytes {start}-{stop - 1}/{length}"


def unsatisfied(length: int) -> str:
    """Return the Content-Range of a 416 (RFC 9110 §15.5.17)."""
    return f"bytes */{length}"


def multipart(
    spans: Iterable[Span], length: int, content_type: str | None, boundary: str
) -> tuple[Sequence[bytes | Part], int]:
    """Return what spans of a body are as multipart/byteranges, in pieces, and how long all of it is.

    RFC 9110 §14.6, RFC 2046 §5.1. `boundary` is a token that does not occur in the body of `length` bytes;
    `content_type` is that of the 200.
    """
    kind = f"Content-Type: {content_type}\r\n" if content_type is not None else ""
    pieces: list[bytes | Part] = []
    size = 0
    for start, stop in spans:
        place = content_range(start, stop, length)
        head = f"--{boundary}\r\n{kind}Content-Range: {place}\r\n\r\n".encode("latin-1")
        pieces += (head, Part(start, stop), b"\r\n")
        size += len(head) + stop - start + 2
    pieces.append(end := f"--{boundary}--\r\n".encode("latin-1"))
    return pieces, size + len(end)
