"""Ranges of a stored page: RFC 9110 §14, §13.1.5, §15.3.7 and §15.5.17."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rfc_helpers import DAY, Site, at

BODY = b"0123456789"
LINES = ["Cache-Control: max-age=60", "Content-Type: text/plain", 'ETag: "a"', f"Last-Modified: {at(-DAY)}"]


def holding(*lines, body=BODY, **options):
    site = Site(*LINES, *lines, body=body, **options)
    site.stored()
    return site


def part(site, value, method="GET", **headers):
    """The answer of the store to a Range."""
    fields = {name.replace("_", "-"): text for name, text in headers.items()}
    reply = site.ask(method, headers={"Range": value, **fields})
    assert (reply.is_hit, site.calls) == (True, 1)
    return reply


# --- one range -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "place", "body"),
    [
        ("bytes=0-4", "0-4", b"01234"),
        ("bytes=0-0", "0-0", b"0"),
        ("bytes=9-9", "9-9", b"9"),
        ("bytes=5-", "5-9", b"56789"),
        ("bytes=0-", "0-9", BODY),
        ("bytes=-3", "7-9", b"789"),
        ("bytes=-99", "0-9", BODY),
        ("bytes=2-99", "2-9", b"23456789"),
        ("bytes=2-99999999999999999999999", "2-9", b"23456789"),
        ("bytes=-99999999999999999999999", "0-9", BODY),
        ("Bytes=0-4", "0-4", b"01234"),
        ("bytes=0-4,", "0-4", b"01234"),
        ("bytes= 0-4 ", "0-4", b"01234"),
        ("bytes=0-4, 20-30", "0-4", b"01234"),
        ("bytes=20-30, 0-4", "0-4", b"01234"),
        ("bytes=0-2, 3-4", "0-4", b"01234"),
        ("bytes=0-3, 2-4", "0-4", b"01234"),
        ("bytes=00000-0004", "0-4", b"01234"),
    ],
)
def test_a_part_of_the_page(value, place, body):
    """RFC 9110 §14.1.2, §15.3.7.1: 206 with Content-Range; a last position past the end means the end."""
    reply = part(holding(), value)
    assert (reply.status, reply.body) == ("206 Partial Content", body)
    assert (reply.field("Content-Range"), reply.field("Content-Length")) == (
        f"bytes {place}/10",
        str(len(body)),
    )
    assert reply.field("Content-Type") == "text/plain"


def test_a_part_carries_the_fields_of_the_page():
    """RFC 9110 §15.3.7: Date, Cache-Control, ETag, Expires, Content-Location and Vary as in the 200."""
    lines = [f"Date: {at(0)}", f"Expires: {at(60)}", "Content-Location: /x", "Vary: X-A", "X-Any: 1"]
    site = holding(*lines)
    site.tick(3)
    reply = part(site, "bytes=0-1")
    for line in (*LINES, *lines):
        name, _, value = line.partition(": ")
        assert reply.all(name) == [value]
    assert reply.field("Age") == "3"


# --- several ranges --------------------------------------------------------------------------------


def parts_of(reply):
    """The parts of a multipart/byteranges body: (Content-Range, Content-Type, bytes)."""
    boundary = re.fullmatch(r"multipart/byteranges; boundary=(\S+)", reply.field("Content-Type"))[1]
    assert reply.field("Content-Length") == str(len(reply.body))
    assert reply.field("Content-Range") is None
    start, *pieces, end = (b"\r\n" + reply.body).split(f"\r\n--{boundary}".encode())
    assert (start, end) == (b"", b"--\r\n")
    found = []
    for piece in pieces:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        found.append((fields["Content-Range"], fields.get("Content-Type"), body))
    return found


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ("bytes=0-1, 4-5", ["0-1", "4-5"]),
        ("bytes=4-5,0-1", ["4-5", "0-1"]),
        ("bytes=0-1,-1", ["0-1", "9-9"]),
        ("bytes=0-0, 2-2, 4-", ["0-0", "2-2", "4-9"]),
        ("bytes=0-1, 30-40, 8-", ["0-1", "8-9"]),
        ("bytes=6-8, 0-2, 1-4, 7-9", ["6-9", "0-4"]),
    ],
)
def test_several_parts_come_as_multipart(value, places):
    """RFC 9110 §14.6, §15.3.7.2: in the order asked for; overlapping ones united, the impossible left out."""
    reply = part(holding(), value)
    assert reply.code == 206
    expected = []
    for place in places:
        first, _, last = place.partition("-")
        expected.append((f"bytes {place}/10", "text/plain", BODY[int(first) : int(last) + 1]))
    assert parts_of(reply) == expected


def test_parts_of_a_page_without_a_type():
    """RFC 9110 §14.6: Content-Type in a part if the whole has one."""
    site = Site("Cache-Control: max-age=60", body=BODY)
    site.stored()
    assert parts_of(part(site, "bytes=0-1,4-5")) == [
        ("bytes 0-1/10", None, b"01"),
        ("bytes 4-5/10", None, b"45"),
    ]


@pytest.mark.parametrize(
    "value", ["bytes=" + ",".join(["0-0", "2-2"] * 500), "bytes=" + ",".join(["0-"] * 200)]
)
def test_too_many_ranges_get_the_whole_page(value):
    """RFC 9110 §14.2, §17.15: a server may ignore an egregious Range."""
    reply = part(holding(), value)
    assert (reply.code, reply.body) == (200, BODY)


@given(
    st.lists(st.tuples(st.integers(0, 12), st.one_of(st.none(), st.integers(0, 14))), min_size=1, max_size=12)
)
def test_no_byte_is_sent_twice(ranges):
    """RFC 9110 §17.15: whatever is asked for, an answer holds no byte of the page more than once."""
    value = "bytes=" + ",".join([f"{first}-{'' if last is None else last}" for first, last in ranges])
    reply = part(holding(), value)
    if reply.field("Content-Type") == "text/plain":
        assert reply.code == 200 or len(reply.body) <= 10
    elif reply.code == 206:
        assert sum(len(body) for _, _, body in parts_of(reply)) <= 10
    else:
        assert reply.code == 416


# --- no range --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=4-2",
        "bytes=0-1, 4-2",
        "bytes=0-1,junk",
        "bytes 0-1",
        "bytes:0-1",
        "0-1",
        "lines=0-1",
        "bytes=0 - 1",
        "bytes=-1-",
        "bytes=--1",
        "bytes=+0-1",
        "bytes=0-1;2-3",
        "bytes=0x0-1",
        "bytes=1.0-2",
        "",
        ",",
        "\xb2=0-1",
    ],
)
def test_a_range_that_makes_no_sense_is_ignored(value):
    """RFC 9110 §14.2: an unknown unit or an invalid ranges-specifier gets the whole page."""
    reply = part(holding(), value)
    assert (reply.status, reply.body, reply.field("Content-Range")) == ("200 OK", BODY, None)


@pytest.mark.parametrize(
    "value", ["bytes=10-", "bytes=10-20", "bytes=99999999999999999999-", "bytes=-0", "bytes=20-30,40-"]
)
def test_a_range_that_cannot_be_satisfied(value):
    """RFC 9110 §15.5.17: 416 with the length of the page."""
    reply = part(holding(), value)
    assert (reply.status, reply.field("Content-Range")) == ("416 Range Not Satisfiable", "bytes */10")
    assert BODY not in reply.body
    assert reply.field("Content-Length") == str(len(reply.body))


def test_a_range_of_an_empty_page_is_ignored():
    """RFC 9110 §14.1.2: there is no byte to select."""
    assert part(holding(body=b""), "bytes=0-").code == 200


def test_head_has_no_ranges():
    """RFC 9110 §14.2: Range is defined for GET."""
    reply = part(holding(), "bytes=0-1", "HEAD")
    assert (reply.code, reply.field("Content-Length"), reply.body) == (200, "10", b"")


@pytest.mark.parametrize("status", ["404 Not Found", "301 Moved Permanently"])
def test_only_a_200_has_parts(status):
    """RFC 9110 §14.2: Range is judged where the answer would be a 200."""
    site = holding(status=status)
    assert part(site, "bytes=0-1").status == status


def test_conditions_are_judged_first():
    """RFC 9110 §13.2.2: If-None-Match, If-Modified-Since, and Range only afterwards."""
    assert part(holding(), "bytes=0-1", If_None_Match='"a"').code == 304
    assert part(holding(), "bytes=0-1", If_None_Match='"b"').code == 206
    assert part(holding(), "bytes=0-1", If_Modified_Since=at(0)).code == 304


# --- If-Range --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "code"),
    [
        ('"a"', 206),
        ('"b"', 200),
        ('W/"a"', 200),
        ("a", 200),
        ("", 200),
        ("*", 200),
        ('"a", "b"', 200),
        (at(-DAY), 206),
        ("Mon Nov 13 22:13:20 2023", 206),
        (at(-DAY + 1), 200),
        (at(-DAY - 1), 200),
        (at(0), 200),
        ("junk", 200),
    ],
)
def test_if_range(condition, code):
    """RFC 9110 §13.1.5: a part only of exactly this page; strong comparison, exact date."""
    reply = part(holding(f"Date: {at(0)}"), "bytes=0-1", If_Range=condition)
    assert (reply.code, reply.body) == (code, b"01" if code == 206 else BODY)


def test_if_range_never_matches_a_weak_tag():
    """RFC 9110 §13.1.5, §8.8.3.2."""
    site = Site("Cache-Control: max-age=60", 'ETag: W/"a"', body=BODY)
    site.stored()
    assert [part(site, "bytes=0-1", If_Range=tag).code for tag in ('W/"a"', '"a"')] == [200, 200]


@pytest.mark.parametrize(
    ("line", "code"), [(f"Date: {at(-DAY)}", 200), (f"Date: {at(-DAY + 1)}", 206), ("X: 1", 200)]
)
def test_a_date_is_strong_only_where_time_has_passed_since(line, code):
    """RFC 9110 §8.8.2.2: Last-Modified at least a second before Date."""
    site = Site("Cache-Control: max-age=900000", f"Last-Modified: {at(-DAY)}", line, body=BODY)
    site.stored()
    assert part(site, "bytes=0-1", If_Range=at(-DAY)).code == code


def test_if_range_without_range_is_ignored():
    """RFC 9110 §13.1.5."""
    site = holding()
    assert (site.get(headers={"If-Range": '"b"'}).code, site.calls) == (200, 1)
