"""Hits and misses through real servers: connections stay usable, and what a server adds is added once."""

from __future__ import annotations

import pytest
from origin_script import Answer, Origin, fields_of, kept, plain
from origin_servers import Server

from wsgicache.fields import parse_date


def test_a_second_request_is_a_hit(server: Server, origin: Origin) -> None:
    page = origin.page()
    first, second = server.get(page.path), server.get(page.path)
    assert (first.cache["fwd"], first.stored) == ("uri-miss", True)
    assert second.is_hit
    assert page.calls == 1
    assert (first.status, first.body) == (second.status, second.body) == ("200 OK", b"body")


def test_one_connection_carries_hits_and_misses(threaded: Server, origin: Origin) -> None:
    one, other = origin.page(kept(b"one")), origin.page(kept(b"the other"))
    with threaded.connect() as client:
        seen = [client.get(page.path) for page in (one, one, other, one, other, other)]
    assert [answer.is_hit for answer in seen] == [False, True, False, True, True, True]
    assert [answer.body for answer in seen] == [
        b"one", b"one", b"the other", b"one", b"the other", b"the other",
    ]  # fmt: skip


def test_a_stored_response_without_a_length_keeps_the_connection(threaded: Server, origin: Origin) -> None:
    page = origin.page(kept([b"a", b"b", b"c"], kind="stream"))  # type: ignore[arg-type]
    first = threaded.get(page.path)
    assert first.chunked
    with threaded.connect() as client:
        for _ in range(3):
            hit = client.get(page.path)
            assert hit.is_hit
            assert hit.field("content-length") == "3"
            assert not hit.chunked
            assert hit.body == b"abc"


def test_pipelined_requests_are_answered_in_their_order(threaded: Server, origin: Origin) -> None:
    one, other = origin.page(kept(b"one")), origin.page(kept(b"the other"))
    threaded.get(one.path)
    with threaded.connect() as client:
        for page in (one, other, one):
            client.ask(page.path)
        seen = [client.read() for _ in range(3)]
    assert [(answer.is_hit, answer.body) for answer in seen] == [
        (True, b"one"), (False, b"the other"), (True, b"one"),
    ]  # fmt: skip


def test_the_sync_worker_hangs_up_after_a_hit_and_says_so(servers: dict[str, Server], origin: Origin) -> None:
    page = origin.page()
    servers["sync"].get(page.path)
    with servers["sync"].connect() as client:
        hit = client.get(page.path)
        assert hit.is_hit
        assert hit.field("connection") == "close"
        assert client.rest() == b""


# --- HEAD ------------------------------------------------------------------------------------------


def test_head_is_answered_from_a_stored_get_without_a_body(server: Server, origin: Origin) -> None:
    page = origin.page(kept(b"body", ("ETag", '"1"')))
    get = server.get(page.path)
    with server.connect() as client:
        head = client.get(page.path, "Connection: close", method="HEAD")
        assert client.rest() == b""
    assert head.is_hit
    assert page.calls == 1
    assert head.field("content-length") == "4"
    assert fields_of(head.headers) == fields_of(get.headers)


def test_head_leaves_the_connection_usable(threaded: Server, origin: Origin) -> None:
    page = origin.page(kept(b"body"))
    threaded.get(page.path)
    with threaded.connect() as client:
        for _ in range(2):
            assert client.get(page.path, method="HEAD").is_hit
            assert client.get(page.path).body == b"body"


def test_head_reaches_the_app_in_rfc_where_nothing_is_stored(server: Server, origin: Origin) -> None:
    page = origin.page(Answer(headers=plain(("Content-Length", "4"), ("Cache-Control", "max-age=60"))))
    for _ in range(2):
        head = server.get(page.path, method="HEAD", host="rfc.test")
        assert (head.cache["fwd"], head.detail) == ("uri-miss", "NOT_STORED_METHOD")
        assert head.field("content-length") == "4"
    assert [seen.method for seen in page.seen] == ["HEAD", "HEAD"]


@pytest.mark.parametrize("kind", ["list", "stream", "write"])
def test_head_fills_a_safe_store_and_has_no_body(server: Server, origin: Origin, kind: str) -> None:
    """The app is asked for the page, so that the next GET finds it; the client gets its head alone."""
    page = origin.page(kept([b"bo", b"dy"], ("Content-Length", "4"), kind=kind))
    with server.connect() as client:
        head = client.get(page.path, "Connection: close", method="HEAD")
        assert client.rest() == b""
    assert (head.cache["fwd"], head.field("content-length")) == ("uri-miss", "4")
    get = server.get(page.path)
    assert (get.is_hit, get.body) == (True, b"body")
    assert [seen.method for seen in page.seen] == ["GET"]


# --- what servers add ------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["site.test", "rfc.test"])
def test_date_is_never_doubled(server: Server, origin: Origin, host: str) -> None:
    page = origin.page(kept(b"", ("Date", "Sun, 06 Nov 2044 08:49:37 GMT")))
    for _ in range(2):
        answer = server.get(page.path, host=host)
        assert len(answer.all("date")) == 1
    assert page.calls == 1
    if server.kind == "waitress":  # gunicorn puts its own in place of the app's
        assert answer.field("date") == "Sun, 06 Nov 2044 08:49:37 GMT"


def test_a_server_dates_what_the_app_does_not(server: Server, origin: Origin) -> None:
    page = origin.page()
    dates = [server.get(page.path).field("date") for _ in range(2)]
    assert all(date is not None and parse_date(date) is not None for date in dates)


@pytest.mark.parametrize("host", ["site.test", "rfc.test"])
def test_age_is_there_once_on_a_hit(server: Server, origin: Origin, host: str) -> None:
    page = origin.page(kept(b"", ("Age", "100")))
    miss, hit = server.get(page.path, host=host), server.get(page.path, host=host)
    assert miss.age == 100
    assert hit.is_hit
    assert hit.age is not None
    assert 100 <= hit.age <= 110
    assert int(hit.cache["ttl"]) == 3600 - hit.age


def test_an_age_is_zero_at_first(server: Server, origin: Origin) -> None:
    page = origin.page()
    assert server.get(page.path).age is None
    age = server.get(page.path).age
    assert age is not None
    assert age <= 5


def test_cache_status_follows_the_app_s_own(server: Server, origin: Origin) -> None:
    page = origin.page(kept(b"", ("Cache-Status", "Origin; fwd=miss")))
    for token in ("fwd", "hit"):
        answer = server.get(page.path)
        first, second = answer.all("cache-status")
        assert first == "Origin; fwd=miss"
        assert second.startswith(f"wsgicache; {token}")


# --- bodies that there are not ---------------------------------------------------------------------


def test_a_204_has_no_body_and_no_length(server: Server, origin: Origin) -> None:
    page = origin.page(Answer("204 No Content", [("Cache-Control", "max-age=60")]))
    for is_hit in (False, True):
        with server.connect() as client:
            answer = client.get(page.path, "Connection: close")
            assert client.rest() == b""
        assert (answer.status, answer.is_hit) == ("204 No Content", is_hit)
        assert answer.field("content-length") is None
        assert answer.field("transfer-encoding") is None


def test_gunicorn_goes_on_after_a_204(servers: dict[str, Server], origin: Origin) -> None:
    page = origin.page(Answer("204 No Content", [("Cache-Control", "max-age=60")]))
    with servers["gthread"].connect() as client:
        assert [client.get(page.path).is_hit for _ in range(3)] == [False, True, True]


def test_an_empty_body_is_not_no_body(server: Server, origin: Origin) -> None:
    page = origin.page(kept(b""))
    server.get(page.path)
    hit = server.get(page.path)
    assert hit.is_hit
    assert (hit.field("content-length"), hit.body) == ("0", b"")


def test_the_app_s_304_for_the_client_passes_as_it_is(server: Server, origin: Origin) -> None:
    page = origin.page(Answer("304 Not Modified", [("ETag", '"theirs"')]))
    with server.connect() as client:
        answer = client.get(page.path, 'If-None-Match: "theirs"', "Cookie: sid=1", "Connection: close")
        assert client.rest() == b""
    assert (answer.code, answer.detail, answer.stored) == (304, "BYPASS_COOKIE", False)
    assert answer.field("etag") == '"theirs"'
