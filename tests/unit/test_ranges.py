"""Byte ranges: the examples of RFC 9110 §14.1.2, and a byte-by-byte model over random requests."""

from email import message_from_bytes, policy
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache.body import Part
from wsgicache.ranges import content_range, multipart, select, unsatisfied

HUGE = "9" * 9000  # beyond what int() converts


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        ("bytes=0-499", [(0, 500)]),
        ("bytes=500-999", [(500, 1000)]),
        ("bytes=-500", [(9500, 10000)]),
        ("bytes=9500-", [(9500, 10000)]),
        ("bytes=0-0,-1", [(0, 1), (9999, 10000)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 1000), (4500, 5500), (9000, 10000)]),
        ("bytes=500-600,601-999", [(500, 1000)]),
        ("bytes=500-700,601-999", [(500, 1000)]),
    ],
)
def test_examples_of_the_rfc(value, spans):
    assert select(value, 10000) == spans


@pytest.mark.parametrize(
    ("value", "spans"),
    [
        ("BYTES=0-1", [(0, 2)]),
        ("bytes=0-", [(0, 10)]),
        ("bytes=9-", [(9, 10)]),
        ("bytes=0-100", [(0, 10)]),
        ("bytes=-100", [(0, 10)]),
        ("bytes=007-08", [(7, 9)]),
        (",".join(["bytes=0-0", "", " ", "2-2"]), [(0, 1), (2, 3)]),
        ("bytes=8-8,0-0", [(8, 9), (0, 1)]),
        ("bytes=8-9,0-0,7-8", [(7, 10), (0, 1)]),
        ("bytes=0-0,100-200", [(0, 1)]),
        ("bytes=-0,3-3", [(3, 4)]),
        (f"bytes=0-{HUGE}", [(0, 10)]),
        (f"bytes=-{HUGE}", [(0, 10)]),
        (f"bytes={'0' * 9000}1-2", [(1, 3)]),
    ],
)
def test_satisfiable(value, spans):
    assert select(value, 10) == spans


@pytest.mark.parametrize("value", ["10-", "10-20", "-0", "-0,10-", f"{HUGE}-", f"{HUGE}-{HUGE}"])
def test_unsatisfiable(value):
    assert select(f"bytes={value}", 10) == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1",
        "bytes=2-1",
        f"bytes={HUGE}9-{HUGE}",
        "bytes=0-1,2-1",
        "bytes=0-1,x",
        "bytes=0-1-2",
        "bytes=--1",
        "bytes=+1-2",
        "bytes=1 -2",
        "bytes=0x0-1",
        "bytes=\u0660-\u0661",
        "bytes 0-1",
        "bytes =0-1",
        "items=0-1",
        "0-1",
    ],
)
def test_what_is_malformed_is_ignored(value):
    assert select(value, 10) is None


@pytest.mark.parametrize("value", ["bytes=0-", "bytes=-1", "bytes=-0", "junk"])
def test_an_empty_body_has_no_ranges(value):
    assert select(value, 0) is None


def test_too_many_parts_are_ignored():
    ranges = [f"{place}-{place}" for place in range(0, 200, 2)]
    assert select("bytes=" + ",".join(ranges[:32]), 1000) == [(n, n + 1) for n in range(0, 64, 2)]
    assert select("bytes=" + ",".join(ranges[:33]), 1000) is None
    assert select("bytes=" + ",".join(ranges[:2]), 1000, max_parts=1) is None


POSITIONS = st.integers(0, 30)
SPECS = st.one_of(
    st.tuples(POSITIONS, POSITIONS).map(lambda pair: (min(pair), max(pair))),
    st.tuples(POSITIONS, st.none()),
    st.tuples(st.none(), POSITIONS),
)


def wanted(spec: tuple[int | None, int | None], length: int) -> set[int]:
    first, last = spec
    everything = range(length)
    if first is None:
        assert last is not None
        return set(everything[-last:]) if last else set()
    return {place for place in everything if place >= first and (last is None or place <= last)}


@given(st.lists(SPECS, min_size=1, max_size=8), st.integers(1, 25))
def test_spans_hold_exactly_the_bytes_asked_for_once_and_in_order(specs, length):
    text = ",".join("-".join("" if n is None else str(n) for n in spec) for spec in specs)
    spans = select(f"bytes={text}", length)
    assert spans is not None
    held = [place for start, stop in spans for place in range(start, stop)]
    asked = [wanted(spec, length) for spec in specs]
    assert len(held) == len(set(held))
    assert set(held) == set().union(*asked)
    # No two spans touch, and each stands where the first range that it answers stood.
    ordered = sorted(spans)
    assert all(left[1] < right[0] for left, right in pairwise(ordered))
    places = [next(n for n, one in enumerate(asked) if one & set(range(*span))) for span in spans]
    assert places == sorted(places)


@given(st.text("bytes=0123456789-, x\t٣", max_size=30) | st.text(max_size=10), st.integers(0, 50))
def test_no_request_reads_past_the_body(value, length):
    for text in (value, f"bytes={value}"):
        for start, stop in select(text, length) or ():
            assert 0 <= start < stop <= length


def test_content_range():
    assert content_range(0, 500, 1234) == "bytes 0-499/1234"
    assert content_range(734, 1234, 1234) == "bytes 734-1233/1234"
    assert unsatisfied(47022) == "bytes */47022"


def joined(body, spans, content_type, boundary):
    """The pieces of a multipart as one."""
    pieces, size = multipart(spans, len(body), content_type, boundary)
    whole = b"".join([body[p.start : p.stop] if isinstance(p, Part) else p for p in pieces])
    assert len(whole) == size
    return whole


def test_multipart_framing():
    body = bytes(range(256)) * 32
    assert joined(body, [(500, 1000), (7000, 8000)], "application/pdf", "SEP") == (
        b"--SEP\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 500-999/8192\r\n"
        b"\r\n" + body[500:1000] + b"\r\n"
        b"--SEP\r\n"
        b"Content-Type: application/pdf\r\n"
        b"Content-Range: bytes 7000-7999/8192\r\n"
        b"\r\n" + body[7000:8000] + b"\r\n"
        b"--SEP--\r\n"
    )


def test_parts_have_no_type_where_the_response_has_none():
    assert joined(b"abc", [(1, 2)], None, "B") == (b"--B\r\nContent-Range: bytes 1-1/3\r\n\r\nb\r\n--B--\r\n")


def test_a_mime_parser_finds_the_parts():
    body = b"The quick brown fox\r\njumps over the lazy dog\r\n"
    spans = [(0, 9), (10, 30), (40, len(body))]
    framed = joined(body, spans, "text/plain; charset=utf-8", "edge")
    head = b"Content-Type: multipart/byteranges; boundary=edge\r\n\r\n"
    message = message_from_bytes(head + framed, policy=policy.HTTP)
    parts = list(message.iter_parts())
    assert [part["Content-Range"] for part in parts] == [content_range(*span, len(body)) for span in spans]
    assert [part.get_payload(decode=True) for part in parts] == [body[a:b] for a, b in spans]
