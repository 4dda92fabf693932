"""Request targets and hosts: what servers make of them must never let one URL answer for another."""

from __future__ import annotations

import pytest
from origin_script import Answer, Origin, Page, Seen, kept
from origin_servers import Server


@pytest.fixture
def page(origin: Origin) -> Page:
    """A page that says which target and host the app saw."""

    def answer(seen: Seen) -> Answer:
        environ = seen.environ
        raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
        return kept(f"{raw} for {environ.get('HTTP_HOST')}".encode("latin-1"))

    return origin.page(answer)


def ours(answer: object) -> bool:
    """Whether a response went through the cache at all; a server may refuse a request by itself."""
    return bool(getattr(answer, "all")("cache-status"))  # noqa: B009 - typed as object on purpose


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a%2Fb", "/a/b"),
        ("/a/b", "/a%2Fb"),
        ("/a%2fb", "/a/b"),
        ("/a%25b", "/a%b"),
        ("/a%3Fb", "/a?b"),
        ("/a%3Bb", "/a;b"),
        ("/a+b", "/a%20b"),
        ("/A", "/a"),
        ("/a/", "/a"),
        ("//a", "/a"),
        ("/caf%C3%A9", "/caf%E9"),
        ("/a?", "/a"),
        ("/a?b", "/a"),
    ],
)
def test_targets_that_differ_to_the_app(server: Server, page: Page, one: str, other: str) -> None:
    """An app that reads the raw target tells them apart, so the cache must (house rule 11)."""
    server.get(page.path + one)
    answer = server.get(page.path + other)
    assert answer.body == f"{page.path}{other} for site.test".encode()
    assert page.calls == 2
    if "?" not in one + other:
        assert (server.get(page.path + one).body, page.calls) == (
            f"{page.path}{one} for site.test".encode(),
            2,
        )


@pytest.mark.parametrize(
    ("one", "other"),
    [("/~x", "/%7Ex"), ("/%7ex", "/%7Ex"), ("/caf%c3%a9", "/caf%C3%A9"), ("/a-b", "/%61%2Db")],
)
def test_spellings_of_one_target_share_a_page(server: Server, page: Page, one: str, other: str) -> None:
    """RFC 9110 §4.2.3: escapes of unreserved characters, and the case of their digits, mean nothing."""
    server.get(page.path + one)
    answer = server.get(page.path + other)
    assert answer.is_hit
    assert page.calls == 1


@pytest.mark.parametrize("path", ["/a/../b", "/a/./b", "/a/%2e%2e/b", "/%2E/b", "/a%2F..", "/..%5Cb"])
def test_dot_segments_are_not_stored(server: Server, page: Page, path: str) -> None:
    for _ in range(2):
        answer = server.get(page.path + path)
        assert answer.detail == "BYPASS_PATH"
    assert page.calls == 2


@pytest.mark.parametrize("path", ["/a%00b", "/a%0D%0Ab", "/a%7Fb", "/%01"])
def test_control_bytes_are_not_stored(server: Server, page: Page, path: str) -> None:
    for _ in range(2):
        answer = server.get(page.path + path)
        assert not ours(answer) or answer.detail == "BYPASS_PATH"


def test_bytes_beyond_ascii_in_the_target(server: Server, page: Page) -> None:
    """Bare bytes and their escapes are one URL to the app; nothing fails on the way."""
    first = server.get(page.path + "/caf\u00e9")
    second = server.get(page.path + "/caf\u00e9")
    assert first.code == second.code
    assert not ours(second) or second.is_hit


def test_a_query_is_keyed_in_rfc_and_bypasses_in_safe(server: Server, page: Page) -> None:
    for _ in range(2):
        assert server.get(f"{page.path}?a=1").detail == "BYPASS_QUERY"
    assert server.get(f"{page.path}?a=1", host="rfc.test").stored
    assert server.get(f"{page.path}?a=1", host="rfc.test").is_hit
    for query in ("?a=2", "?a=1&b=2", "?a=%31", "?A=1"):
        assert server.get(page.path + query, host="rfc.test").cache["fwd"] == "uri-miss"


def test_a_very_long_target_goes_past_the_cache(server: Server, page: Page) -> None:
    path = page.path + "/long" * 500
    for _ in range(2):
        answer = server.get(path)
        assert not ours(answer) or (answer.detail == "BYPASS_KEY" and not answer.stored)


# --- absolute form ---------------------------------------------------------------------------------


def test_the_absolute_form_is_answered_from_the_store_too(server: Server, page: Page) -> None:
    """RFC 9112 §3.2.2: a server accepts the form that proxies use."""
    for is_hit in (False, True):
        answer = server.get(f"http://site.test{page.path}")
        assert (answer.is_hit, answer.body) == (is_hit, f"http://site.test{page.path} for site.test".encode())


def test_the_absolute_form_does_not_choose_what_others_see(server: Server, page: Page) -> None:
    """The host in it may differ from Host; an app that builds links from the raw target would put it into
    a page that everybody gets (house rule 6)."""
    server.get(f"http://evil.test{page.path}")
    answer = server.get(page.path)
    assert answer.body == f"{page.path} for site.test".encode()


def test_the_absolute_form_may_leave_the_path_out(server: Server) -> None:
    for _ in range(2):
        answer = server.get("http://site.test")
        assert answer.code in (200, 400, 404, 500)
        assert not (ours(answer) and answer.is_hit)


def test_options_of_everything(server: Server) -> None:
    """The asterisk form (RFC 9112 §3.2.4) is no path; nothing is stored or answered for it."""
    answer = server.get("*", method="OPTIONS")
    assert not ours(answer) or answer.cache["fwd"] in ("method", "bypass")


# --- hosts -----------------------------------------------------------------------------------------


def test_a_host_is_one_in_any_case(server: Server, page: Page) -> None:
    server.get(page.path, host="Shop.Test")
    for host in ("shop.test", "SHOP.TEST:80", "shop.test:"):
        assert server.get(page.path, host=host).is_hit
    for host in ("shop.test:8080", "www.shop.test", "shop.test."):
        assert server.get(page.path, host=host).cache["fwd"] == "uri-miss"
    assert page.calls == 4


@pytest.mark.parametrize("lines", [("Host: other.test",), ("host: site.test",), ("HOST:",)])
def test_two_host_lines_never_reach_a_stored_page(server: Server, page: Page, lines: tuple[str, ...]) -> None:
    """RFC 9112 §3.2: such a request is to be refused; where the server does not, the cache stands aside."""
    server.get(page.path)
    for _ in range(2):
        answer = server.get(page.path, *lines)
        assert not ours(answer) or answer.detail == "BYPASS_HOST"
    assert server.get(page.path).body == f"{page.path} for site.test".encode()


@pytest.mark.parametrize(
    "host", ["a b", "site.test/x", "user@site.test", "site.test:port", "", "[::1", "a,b"]
)
def test_what_is_no_host_never_reaches_a_stored_page(server: Server, page: Page, host: str) -> None:
    for _ in range(2):
        answer = server.get(page.path, host=host)
        assert not ours(answer) or answer.detail == "BYPASS_HOST"


def test_http_1_0_without_a_host(server: Server, page: Page) -> None:
    """The server's own name stands in (PEP 3333), apart from every named host."""
    server.get(page.path)
    first, second = (server.get(page.path, host=None, version="HTTP/1.0") for _ in range(2))
    assert (first.cache["fwd"], second.is_hit) == ("uri-miss", True)
    assert second.body == f"{page.path} for None".encode()
    assert not second.chunked
    assert page.calls == 2


def test_http_1_0_with_a_host_shares_the_page(server: Server, page: Page) -> None:
    server.get(page.path)
    answer = server.get(page.path, version="HTTP/1.0")
    assert (answer.is_hit, page.calls) == (True, 1)
    assert (answer.chunked, answer.field("content-length")) == (False, str(len(answer.body)))


def test_http_1_0_may_keep_the_connection_on_a_hit(threaded: Server, page: Page) -> None:
    threaded.get(page.path)
    with threaded.connect() as client:
        for _ in range(2):
            answer = client.get(page.path, "Connection: keep-alive", version="HTTP/1.0")
            assert answer.is_hit
            connection = answer.field("connection")
            assert connection is not None
            assert connection.lower() == "keep-alive"


def test_http_1_0_gets_the_end_of_a_stream_by_the_end_of_the_connection(
    server: Server, origin: Origin
) -> None:
    page = origin.page(kept([b"a", b"b"], kind="stream"))  # type: ignore[arg-type]
    answer = server.get(page.path, version="HTTP/1.0")
    assert (answer.chunked, answer.body) == (False, b"ab")
    assert server.get(page.path).is_hit


# --- forwarded fields ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-Host: evil.test",
        "X-Forwarded-Proto: https",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Port: 1",
        "Forwarded: host=evil.test",
    ],
)
def test_forwarded_fields_are_keyed(server: Server, page: Page, line: str) -> None:
    """An app may build links from them (house rule 10); waitress hides most of them from it."""
    server.get(page.path, line)
    name = "HTTP_" + line.partition(":")[0].upper().replace("-", "_")
    assert server.get(page.path).is_hit is (name not in page.seen[0].environ)


@pytest.mark.parametrize("line", ["X-Original-URL: /admin", "X-Rewrite-URL: /admin"])
def test_rewrites_go_past_a_safe_cache(server: Server, page: Page, line: str) -> None:
    answer = server.get(page.path, line)
    assert answer.detail == "BYPASS_REWRITE"
    assert server.get(page.path).cache["fwd"] == "uri-miss"
