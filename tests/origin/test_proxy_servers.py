"""The example proxy behind its two servers, from socket to socket: what a client of HTTP caches needs.

gunicorn's threads keep the spelling and the order of fields; waitress sorts them by name and writes names
with capitals, so what it sends is compared without regard to either.
"""

from __future__ import annotations

import re
import threading
from email.utils import formatdate

import pytest
from proxy_helpers import PATIENCE, Browser, RawOrigin, head, ok, proxied

SERVERS = ("gunicorn", "waitress")
FRESH = "Cache-Control: max-age=600"


@pytest.fixture(scope="module")
def raw():
    origin = RawOrigin()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def ports(raw):
    """Both servers, started together: `port of server` with the profile rfc."""
    options = ("--profile", "rfc", "--threads", "8", "--timeout", "5", "--server")
    with proxied(raw, *options, "gunicorn") as first, proxied(raw, *options, "waitress") as second:
        yield dict(zip(SERVERS, (first, second), strict=True))


@pytest.fixture(params=SERVERS)
def server(request):
    return request.param


@pytest.fixture
def browser(ports, server, raw):
    raw.answers(ok())
    with Browser(ports[server]) as browser:
        yield browser


@pytest.fixture
def path(request):
    """A path of its own for each test, since the cache lives as long as the module."""
    return "/" + re.sub("[^a-z0-9]+", "-", request.node.nodeid.rpartition("::")[2].lower())


def cache_of(answer):
    """The parameters of Cache-Status."""
    name, *parameters = answer.field("Cache-Status").split("; ")
    assert name == "wsgicache"
    return dict(parameter.partition("=")[::2] for parameter in parameters)


# --- what passes ------------------------------------------------------------------------------------


def test_a_page_is_stored_and_answered_with_its_date_and_age(browser, raw, path):
    """RFC 9111 §4.2.3, §5.1: the origin's Date is kept, and there is one Age."""
    date = formatdate(usegmt=True)
    raw.answers(ok(b"page", FRESH, f"Date: {date}", "Age: 100", "Server: odd/1.0"))
    first, hit = browser.get(path), browser.get(path)
    assert (first.all("Age"), first.all("Date"), first.all("Server")) == (["100"], [date], ["odd/1.0"])
    assert "stored" in cache_of(first)
    assert (hit.body, hit.all("Date"), hit.all("Server"), len(raw.asked)) == (b"page", [date], ["odd/1.0"], 1)
    assert 100 <= int(hit.field("Age")) < 100 + PATIENCE
    assert int(hit.field("Age")) + int(cache_of(hit)["ttl"]) == 600


@pytest.mark.parametrize("status", ["200 Fine  Indeed", "203 \xc4rger", "404 ", "599 Odd", "999 Very Odd"])
def test_the_status_line_is_kept(browser, raw, path, status):
    raw.answers(ok(b"page", FRESH, status=status))
    assert [browser.get(path).status for _ in range(2)] == [status, status]
    assert len(raw.asked) == 1


def test_fields_are_kept(browser, raw, path, server):
    lines = [
        "x-lower: 1",
        "X-Two: b",
        "Set-Cookie: a=1",
        "X-Two: a",
        "Set-Cookie: b=2",
        "X-Obs: \xe9",
        "X-Empty: ",
    ]
    raw.answers(ok(b"page", FRESH, *lines))
    for answer in (browser.get(path), browser.get(path)):
        kept = [line for line in answer.fields if line.lower().startswith(("x-", "set-cookie"))]
        if server == "gunicorn":
            assert kept == lines
        else:
            for name in ("x-lower", "X-Two", "Set-Cookie", "X-Obs", "X-Empty"):
                expected = [
                    line.partition(": ")[2] for line in lines if line.lower().startswith(name.lower())
                ]
                assert answer.all(name) == expected
    assert len(raw.asked) == 1


def test_request_fields_arrive(browser, raw, path):
    browser.get(
        path,
        "x-ODD: a,  b",
        "Accept: */*",
        "Accept: text/html",
        "X-Obs: \xe9",
        "Connection: X-Hop",
        "X-Hop: 1",
    )
    (asked,) = raw.asked
    assert asked.line == f"GET {path} HTTP/1.1"
    assert [asked.all(name) for name in ("X-Odd", "X-Obs", "X-Hop", "Host")] == [
        ["a,  b"],
        ["\xe9"],
        [],
        ["site.test"],
    ]
    assert ",".join(asked.all("Accept")).replace(" ", "") == "*/*,text/html"


@pytest.mark.parametrize("suffix", ["/a%2Fb", "/%7Ex%c3%a9", "/a/./b/../c", "?q=%20+&&x", "/;p=1?a;b", "/%"])
def test_the_raw_target_arrives(browser, raw, path, suffix):
    browser.get(path + suffix)
    assert raw.asked[0].line == f"GET {path.replace('%', '')}{suffix} HTTP/1.1"


def test_pages_that_wsgi_would_mix_up_are_kept_apart(browser, raw, path):
    """RFC 9111 §2: the cache key is the target URI, and these are two."""
    raw.answers(ok(b"one", FRESH), ok(b"two", FRESH))
    assert [browser.get(path + end).body for end in ("/a%2Fb", "/a/b")] == [b"one", b"two"]
    assert [browser.get(path + end).body for end in ("/a%2Fb", "/a/b")] == [b"one", b"two"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "M-SEARCH", "FROB"])
def test_methods_and_bodies_pass(browser, raw, path, method):
    body = bytes(range(256)) * 400
    answer = browser.get(path, method=method, body=body)
    (asked,) = raw.asked
    assert (asked.line, asked.body, answer.body) == (f"{method} {path} HTTP/1.1", body, b"page")
    assert cache_of(answer)["fwd"] == "method"


def test_a_chunked_request_passes(browser, raw, path):
    browser.send(head(f"POST {path} HTTP/1.1", "Host: site.test", "Transfer-Encoding: chunked"))
    browser.send(b"4\r\nfour\r\n" + b"6;x=y\r\nfourty\r\n" + b"0\r\n\r\n")
    assert browser.whole().body == b"page"
    assert raw.asked[0].body == b"fourfourty"


def test_a_body_after_100_continue_passes(browser, raw, path):
    """RFC 9110 §10.1.1: the server answers the expectation; it does not reach the origin."""
    lines = [f"POST {path} HTTP/1.1", "Host: site.test", "Content-Length: 4", "Expect: 100-continue"]
    browser.send(head(*lines))
    assert browser.head().status.startswith("100")
    browser.send(b"body")
    assert browser.whole().body == b"page"
    assert (raw.asked[0].body, raw.asked[0].all("Expect")) == (b"body", [])


def test_an_unsafe_method_invalidates(browser, raw, path):
    """RFC 9111 §4.4, over the wire."""
    raw.answers(ok(b"old", FRESH), ok(b""), ok(b"new", FRESH))
    assert browser.get(path).body == b"old"
    browser.get(path, method="POST", body=b"x")
    assert (browser.get(path).body, browser.get(path).body, len(raw.asked)) == (b"new", b"new", 3)


# --- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
def test_a_body_of_unknown_length_passes(browser, raw, path, size):
    body = b"01234567" * (size // 8 + 1)
    body = body[:size]
    raw.answers(head("HTTP/1.1 200 OK", FRESH, "Transfer-Encoding: chunked") + chunked(body), ok(b"next"))
    assert browser.get(path).body == body
    with Browser(browser.socket.getpeername()[1]) as other:
        again = other.get(path)
    assert again.body == (body if size < 1 << 20 else b"next")


def chunked(body):
    pieces = [body[start : start + 50_000] for start in range(0, len(body), 50_000)]
    return b"".join([f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces]) + b"0\r\n\r\n"


def test_the_first_bytes_do_not_wait_for_the_last(browser, raw, path):
    more = threading.Event()

    def slowly(line):
        line.send(head("HTTP/1.1 200 OK", FRESH, "Content-Length: 40000") + b"a" * 20_000)
        more.wait(PATIENCE)
        line.send(b"b" * 20_000)

    raw.answers(slowly)
    browser.send(head(f"GET {path} HTTP/1.1", "Host: site.test"))
    assert browser.head().status == "200 OK"
    assert browser.read(20_000) == b"a" * 20_000
    more.set()
    assert browser.read(20_000) == b"b" * 20_000
    assert "hit" in cache_of(browser.get(path))


def test_a_body_that_is_cut_off_is_cut_off_here_too_and_not_stored(browser, raw, path, ports, server):
    """RFC 9111 §3.3: nobody takes it for whole."""

    def cut_off(line):
        line.send(head("HTTP/1.1 200 OK", FRESH, "Content-Length: 40000") + b"a" * 20_000)
        line.hang_up()

    raw.answers(cut_off, ok(b"whole", FRESH))
    assert len(browser.get(path).body) < 40_000
    with Browser(ports[server]) as other:
        assert other.get(path).body == b"whole"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body_leaves_the_connection_usable(browser, raw, path, server, status):
    """waitress ends the connection after an answer without a length, and says so."""
    raw.answers(head(f"HTTP/1.1 {status}", 'ETag: "a"'), ok(b"next"))
    first = browser.get(path, "If-None-Match: junk", "Cache-Control: no-store")
    assert (first.status, first.body, browser.closing) == (status, b"", server == "waitress")
    assert browser.get(path + "/next").body == b"next"


def test_head(browser, raw, path):
    raw.answers(head("HTTP/1.1 200 OK", "Content-Length: 4", FRESH), ok(b"page", FRESH))
    first = browser.get(path, method="HEAD")
    assert (first.status, first.field("Content-Length")) == ("200 OK", "4")
    assert browser.get(path).body == b"page"
    hit = browser.get(path, method="HEAD")
    assert (hit.field("Content-Length"), "hit" in cache_of(hit)) == ("4", True)
    assert [asked.line.split()[0] for asked in raw.asked] == ["HEAD", "GET"]


def test_many_requests_on_one_connection_use_one_to_the_origin(browser, raw, path):
    """Both ways connections are kept, as far as the server gives one thread one client's requests in turn."""
    for number in range(20):
        assert browser.get(f"{path}/{number}").body == b"page"
    assert len({asked.connection for asked in raw.asked}) <= 8


# --- conditions and ranges -------------------------------------------------------------------------


def test_conditions_and_ranges_from_the_store(browser, raw, path):
    """RFC 9110 §13, §14, over the wire."""
    raw.answers(ok(b"0123456789", FRESH, 'ETag: "a"'))
    assert browser.get(path, 'If-None-Match: "a"').status == "304 Not Modified"
    part = browser.get(path, "Range: bytes=2-4", 'If-Range: "a"')
    assert (part.status, part.body, part.field("Content-Range")) == (
        "206 Partial Content",
        b"234",
        "bytes 2-4/10",
    )
    assert browser.get(path, "rAnGe: bytes=20-").status == "416 Range Not Satisfiable"
    several = browser.get(path, "Range: bytes=0-0,-1")
    assert several.field("Content-Type").startswith("multipart/byteranges")
    assert browser.get(path).body == b"0123456789"
    assert len(raw.asked) == 1
    assert not raw.asked[0].all("If-None-Match")


def test_a_range_on_a_miss_goes_to_the_origin(browser, raw, path):
    raw.answers(
        ok(b"234", FRESH, "Content-Range: bytes 2-4/10", status="206 Partial Content"),
        ok(b"0123456789", FRESH),
    )
    assert browser.get(path, "Range: bytes=2-4").status == "206 Partial Content"
    assert raw.asked[0].all("Range") == ["bytes=2-4"]
    assert browser.get(path).body == b"0123456789"


def test_a_stale_page_is_validated(browser, raw, path):
    """RFC 9111 §4.3, over the wire: the 304 of the origin becomes a 200 for the client."""
    stale = "Cache-Control: max-age=60"
    raw.answers(
        ok(b"page", stale, "Age: 100", 'ETag: "a"'), head("HTTP/1.1 304 Not Modified", 'ETag: "a"', FRESH)
    )
    browser.get(path)
    again = browser.get(path)
    assert (again.status, again.body, cache_of(again)["fwd-status"]) == ("200 OK", b"page", "304")
    assert raw.asked[1].all("If-None-Match") == ['"a"']
    assert "hit" in cache_of(browser.get(path))


def test_a_stale_page_in_place_of_a_502(browser, raw, path):
    """RFC 5861 §4: an origin that cannot be understood is one that fails."""
    raw.answers(
        ok(b"page", "Cache-Control: max-age=60, stale-if-error=600", "Age: 100"), lambda line: line.hang_up()
    )
    browser.get(path)
    again = browser.get(path)
    assert (again.status, again.body) == ("200 OK", b"page")
    assert (cache_of(again)["fwd-status"], cache_of(again)["detail"]) == ("502", "HIT_STALE_IF_ERROR")


# --- the servers themselves ------------------------------------------------------------------------


def test_early_hints_pass_through_gunicorn(ports, raw):
    """RFC 8297: WSGI has no interim answers, gunicorn has a way for this one."""
    raw.answers(head("HTTP/1.1 103 Early Hints", "Link: </style.css>; rel=preload") + ok(b"page", FRESH))
    with Browser(ports["gunicorn"]) as browser:
        browser.send(head("GET /hints HTTP/1.1", "Host: site.test"))
        early = browser.head()
        assert (early.status, early.fields) == ("103 Early Hints", ["Link: </style.css>; rel=preload"])
        assert browser.whole().body == b"page"
        assert browser.get("/hints").all("Link") == []
    assert len(raw.asked) == 1


def test_a_method_in_lower_case_passes_through_gunicorn(ports, raw):
    """RFC 9110 §9.1: methods are case-sensitive; waitress turns them into capitals."""
    raw.answers(ok())
    with Browser(ports["gunicorn"]) as browser:
        browser.get("/lower", method="get")
    assert raw.asked[0].line == "get /lower HTTP/1.1"


def test_the_cache_takes_options_from_the_environment(raw):
    raw.answers(ok(b"page"), lambda line: line.hang_up())
    with proxied(raw, "--server", "waitress", WSGICACHE_TTL="7") as port, Browser(port) as browser:
        assert cache_of(browser.get("/"))["ttl"] == "7"


def test_the_safe_profile_is_the_default(raw):
    raw.answers(ok(b"page"))
    with proxied(raw) as port, Browser(port) as browser:
        assert cache_of(browser.get("/"))["ttl"] == "300"
        assert cache_of(browser.get("/?q"))["detail"] == "BYPASS_QUERY"
