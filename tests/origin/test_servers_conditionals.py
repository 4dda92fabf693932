"""Conditional requests and ranges, answered from the store over real connections (RFC 9110 §13, §14)."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from origin_script import Answer, Origin, Page, Seen, kept, plain
from origin_servers import Server

MODIFIED = "Sun, 06 Nov 1994 08:49:37 GMT"
LATER = formatdate(time.time(), usegmt=True)
VALIDATORS = (("ETag", '"v1"'), ("Last-Modified", MODIFIED), ("Date", LATER))


@pytest.fixture
def page(server: Server, origin: Origin) -> Page:
    """A page that each test finds stored."""
    page = origin.page(kept(b"0123456789", *VALIDATORS))
    server.get(page.path)
    return page


# --- conditionals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        (('If-None-Match: "v1"',), 304),
        (('if-none-match:W/"v1"',), 304),
        (('If-None-Match: "v0" , "v1"',), 304),
        (('If-None-Match: "v0"', 'If-None-Match: "v1"'), 304),
        (("If-None-Match: *",), 304),
        (('If-None-Match: "v0"',), 200),
        (('If-None-Match: "v0"', f"If-Modified-Since: {MODIFIED}"), 200),
        ((f"If-Modified-Since: {MODIFIED}",), 304),
        ((f"If-Modified-Since: {LATER}",), 304),
        (("If-Modified-Since: Sat, 05 Nov 1994 08:49:37 GMT",), 200),
        (("If-Modified-Since: yesterday",), 200),
    ],
)
def test_the_client_s_conditions(server: Server, page: Page, lines: tuple[str, ...], code: int) -> None:
    with server.connect() as client:
        answer = client.get(page.path, *lines, "Connection: close")
        assert client.rest() == b""
    assert (answer.code, answer.is_hit) == (code, True)
    assert answer.body == (b"" if code == 304 else b"0123456789")
    assert page.calls == 1


def test_a_304_carries_what_it_must_and_keeps_the_connection(server: Server, page: Page) -> None:
    with server.connect() as client:
        answer = client.get(page.path, 'If-None-Match: "v1"')
        assert answer.status == "304 Not Modified"
        assert answer.field("etag") == '"v1"'
        assert answer.field("cache-control") == "max-age=3600"
        assert answer.age is not None
        assert len(answer.all("date")) == 1
        for name in ("content-type", "content-length", "last-modified", "transfer-encoding"):
            assert answer.field(name) is None
        if server.kind == "gthread":  # waitress hangs up where there is no length
            assert client.get(page.path).body == b"0123456789"


def test_head_with_a_condition(server: Server, page: Page) -> None:
    answer = server.get(page.path, 'If-None-Match: "v1"', method="HEAD")
    assert (answer.code, answer.is_hit) == (304, True)


def test_a_made_etag_is_good_for_a_304(server: Server, origin: Origin) -> None:
    page = origin.page(kept(b"no validator"))
    server.get(page.path)
    etag = server.get(page.path).field("etag")
    assert etag is not None
    answer = server.get(page.path, f"If-None-Match: {etag}")
    assert (answer.code, answer.is_hit, answer.field("etag")) == (304, True, etag)
    assert page.calls == 1


def test_the_first_client_may_have_it_already(server: Server, origin: Origin) -> None:
    """The app sees no condition, so its whole answer is stored; the client gets the 304 it asked for."""
    page = origin.page(kept([b"01234", b"56789"], *VALIDATORS, kind="stream"))  # type: ignore[arg-type]
    with server.connect() as client:
        answer = client.get(page.path, 'If-None-Match: "v1"', "Connection: close")
        assert client.rest() == b""
    assert (answer.code, answer.cache["fwd"]) == (304, "uri-miss")
    assert "HTTP_IF_NONE_MATCH" not in page.seen[0].environ
    hit = server.get(page.path)
    assert (hit.code, hit.is_hit, hit.body) == (200, True, b"0123456789")


# --- validation ------------------------------------------------------------------------------------


def stale(*extra: tuple[str, str]) -> Answer:
    """A response that is stale when it comes, so that nobody has to wait for that."""
    return Answer(headers=plain(("Cache-Control", "max-age=10"), ("Age", "11"), *extra), body=b"old")


@pytest.mark.parametrize("code", [304, 200])
def test_a_stale_page_is_validated(server: Server, origin: Origin, code: int) -> None:
    page = origin.page(stale(("ETag", '"v1"')))
    server.get(page.path, host="rfc.test")
    fresh = kept(b"new", ("ETag", '"v2"'))
    unchanged = Answer("304 Not Modified", [("ETag", '"v1"'), ("Cache-Control", "max-age=60")])
    page.answers(unchanged if code == 304 else fresh)
    answer = server.get(page.path, host="rfc.test")
    assert page.seen[1].environ["HTTP_IF_NONE_MATCH"] == '"v1"'
    assert (answer.cache["fwd"], answer.cache["fwd-status"]) == ("stale", str(code))
    assert (answer.code, answer.body) == (200, b"old" if code == 304 else b"new")
    assert answer.stored
    again = server.get(page.path, host="rfc.test")
    assert (again.is_hit, again.body) == (True, answer.body)
    assert page.calls == 2


def test_a_304_to_our_question_is_not_the_client_s(server: Server, origin: Origin) -> None:
    """The client's own tag is judged against the result (RFC 9111 §4.3.2)."""
    page = origin.page(stale(("ETag", '"v1"')))
    server.get(page.path, host="rfc.test")
    page.answers(Answer("304 Not Modified", [("ETag", '"v1"')]))
    answer = server.get(page.path, 'If-None-Match: "v0"', host="rfc.test")
    assert page.seen[1].environ["HTTP_IF_NONE_MATCH"] == '"v1"'
    assert (answer.code, answer.body) == (200, b"old")


# --- ranges ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "place", "body"),
    [
        ("bytes=0-3", "bytes 0-3/10", b"0123"),
        ("bytes=7-", "bytes 7-9/10", b"789"),
        ("bytes=-2", "bytes 8-9/10", b"89"),
        ("bytes=-99", "bytes 0-9/10", b"0123456789"),
        ("bytes=2-999", "bytes 2-9/10", b"23456789"),
        ("bytes=0-4,3-6", "bytes 0-6/10", b"0123456"),
    ],
)
def test_a_part(server: Server, page: Page, asked: str, place: str, body: bytes) -> None:
    answer = server.get(page.path, f"Range: {asked}")
    assert (answer.status, answer.is_hit) == ("206 Partial Content", True)
    assert answer.field("content-range") == place
    assert (answer.field("content-length"), answer.body) == (str(len(body)), body)
    assert page.calls == 1


def test_several_parts(server: Server, page: Page) -> None:
    answer = server.get(page.path, "Range: bytes=0-1, 5-6")
    assert answer.code == 206
    kind = answer.field("content-type")
    assert kind is not None
    boundary = kind.partition("boundary=")[2].encode()
    parts = answer.body.split(b"--" + boundary)
    assert [part.strip().rpartition(b"\r\n")[2] for part in parts[1:-1]] == [b"01", b"56"]
    assert parts[-1].strip() == b"--"


def test_two_range_lines_are_no_range(server: Server, page: Page) -> None:
    """Joined, they are malformed, and such a Range is ignored (RFC 9110 §14.2)."""
    answer = server.get(page.path, "Range: bytes=0-1", "Range: bytes=5-6")
    assert (answer.code, answer.is_hit, answer.body) == (200, True, b"0123456789")


def test_parts_leave_the_connection_usable(threaded: Server, origin: Origin) -> None:
    page = origin.page(kept(b"0123456789", *VALIDATORS))
    threaded.get(page.path)
    with threaded.connect() as client:
        for asked, code in (("0-1", 206), ("0-1,5-6", 206), ("20-", 416), ("5-1", 200)):
            assert client.get(page.path, f"Range: bytes={asked}").code == code
        assert client.get(page.path).body == b"0123456789"


def test_a_range_beyond_the_end(server: Server, page: Page) -> None:
    answer = server.get(page.path, "Range: bytes=10-")
    assert answer.status == "416 Range Not Satisfiable"
    assert answer.field("content-range") == "bytes */10"
    assert (answer.field("content-length"), answer.body) == ("0", b"")


@pytest.mark.parametrize(
    ("condition", "code"),
    [('"v1"', 206), ('W/"v1"', 200), ('"v0"', 200), (MODIFIED, 206), (LATER, 200)],
    ids=["same", "weak", "other", "date", "later"],
)
def test_if_range(server: Server, page: Page, condition: str, code: int) -> None:
    answer = server.get(page.path, "Range: bytes=0-1", f"If-Range: {condition}")
    assert (answer.code, answer.body) == (code, b"01" if code == 206 else b"0123456789")


def test_head_has_no_ranges(server: Server, page: Page) -> None:
    answer = server.get(page.path, "Range: bytes=0-1", method="HEAD")
    assert (answer.code, answer.field("content-length")) == (200, "10")


def test_a_range_of_what_is_not_stored_is_the_app_s(server: Server, origin: Origin) -> None:
    part = Answer("206 Partial Content", plain(("Content-Range", "bytes 0-1/10")), b"01")
    page = origin.page(lambda seen: part if "HTTP_RANGE" in seen.environ else kept(b"0123456789"))
    answer = server.get(page.path, "Range: bytes=0-1")
    assert (answer.code, answer.detail) == (206, "NOT_STORED_RANGE")
    assert page.seen[0].environ["HTTP_RANGE"] == "bytes=0-1"
    whole = server.get(page.path)
    assert (whole.cache["fwd"], whole.body) == ("uri-miss", b"0123456789")


def test_an_app_that_looks_at_conditions_sees_those_of_a_visitor(server: Server, origin: Origin) -> None:
    def answer(seen: Seen) -> Answer:
        if seen.environ.get("HTTP_IF_NONE_MATCH") == '"mine"':
            return Answer("304 Not Modified", [("ETag", '"mine"')])
        return Answer(headers=plain(("ETag", '"mine"')), body=b"mine")

    page = origin.page(answer)
    answered = server.get(page.path, 'If-None-Match: "mine"', "Cookie: sid=1")
    assert (answered.code, answered.detail) == (304, "BYPASS_COOKIE")
