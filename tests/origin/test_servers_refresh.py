"""Refreshes behind visitors, on threads or after the response, and servers that end in the middle of one."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from origin_client import Answered
from origin_script import PATIENCE, Answer, Origin, Page, Seen, kept, plain
from origin_servers import GUNICORN, Server, running

from wsgicache.testing import Gate


def old(body: bytes = b"old", *extra: tuple[str, str]) -> Answer:
    """A response that is stale when it comes, inside its stale-while-revalidate window."""
    control = ("Cache-Control", "max-age=10, stale-while-revalidate=3600")
    return Answer(headers=plain(control, ("Age", "11"), *extra), body=body)


@pytest.fixture
def page(origin: Origin) -> Page:
    """Old at first, new from the second call on."""
    return origin.page(lambda seen: old() if seen.number == 1 else kept(b"new"))


def ask_until(server: Server, path: str, body: bytes, *lines: str) -> Answered:
    """Ask until a body comes: what a refresh brings is stored a moment after the app gave it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = server.get(path, *lines)
        if answer.body == body or time.monotonic() > deadline:
            return answer
        time.sleep(0.02)


def test_a_stale_page_answers_at_once_and_is_refreshed_once(server: Server, page: Page) -> None:
    assert server.get(page.path).stored
    stale = server.get(page.path)
    assert (stale.is_hit, stale.detail, stale.body) == (True, "HIT_STALE_WHILE_REVALIDATE", b"old")
    assert int(stale.cache["ttl"]) < 0
    new = ask_until(server, page.path, b"new")
    assert (new.is_hit, new.body) == (True, b"new")
    assert page.calls == 2


def test_a_refresh_sees_exactly_what_the_key_names(server: Server, origin: Origin) -> None:
    def answer(seen: Seen) -> Answer:
        if seen.number == 1:
            return old(b"old", ("Vary", "X-Kind"), ("ETag", '"v1"'))
        return kept(b"new", ("Vary", "X-Kind"))

    page = origin.page(answer)
    lines = ("X-Kind: a", "X-Secret: s", "Cookie: _ga=1", "Accept: text/html", "Referer: http://x.test/")
    server.get(page.path, *lines)
    server.get(page.path, *lines, 'If-None-Match: "v0"')
    ask_until(server, page.path, b"new", "X-Kind: a")
    environ = page.seen[1].environ
    fields = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    fields.pop("HTTP_ACCEPT_ENCODING", None)  # brought to its normal form
    assert fields == {"HTTP_HOST": "site.test", "HTTP_X_KIND": "a", "HTTP_IF_NONE_MATCH": '"v1"'}
    assert (environ["REQUEST_METHOD"], page.seen[1].body) == ("GET", b"")
    assert environ.get("RAW_URI", environ.get("REQUEST_URI")) == page.path


def test_a_visitor_does_not_wait_for_the_refresh(threaded: Server, origin: Origin) -> None:
    gate = Gate()
    page = origin.page(lambda seen: old() if seen.number == 1 else kept([gate, b"new"]))
    threaded.get(page.path)
    for _ in range(5):
        assert threaded.get(page.path).detail == "HIT_STALE_WHILE_REVALIDATE"
    gate.wait_entered()
    assert threaded.get(page.path).body == b"old"
    gate.open()
    assert ask_until(threaded, page.path, b"new").is_hit
    assert page.calls == 2


def test_the_sync_worker_refreshes_after_the_response(servers: dict[str, Server], origin: Origin) -> None:
    """There is no thread; the client has its page, whole, while the refresh still runs."""
    gate = Gate()
    page = origin.page(lambda seen: old() if seen.number == 1 else kept([gate, b"new"]))
    servers["sync"].get(page.path)
    with servers["sync"].connect() as client:
        assert client.get(page.path).body == b"old"
        gate.wait_entered()
        assert not page.seen[1].environ["wsgi.multithread"]
        gate.open()
    assert servers["sync"].get(page.path).body == b"new"


def test_a_refresh_that_fails_leaves_the_stale_page(server: Server, origin: Origin) -> None:
    """One failure backs off, so that a broken app is not asked by every visitor."""
    page = origin.page(lambda seen: old() if seen.number == 1 else Answer("503 Service Unavailable"))
    server.get(page.path)
    for _ in range(4):
        assert server.get(page.path).body == b"old"
    page.wait(calls=2)
    assert server.get(page.path).detail == "HIT_STALE_WHILE_REVALIDATE"
    assert page.calls <= 3  # the first failure is waited out for half a second at least


def test_head_and_ranges_are_answered_stale_too(server: Server, page: Page) -> None:
    server.get(page.path)
    part = server.get(page.path, "Range: bytes=0-1")
    assert (part.code, part.body, part.detail) == (206, b"ol", "HIT_STALE_WHILE_REVALIDATE")
    assert ask_until(server, page.path, b"new").is_hit


# --- servers that end ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GUNICORN)
def test_sigterm_in_the_middle_of_a_refresh(kind: str, origin: Origin, tmp_path: Path) -> None:
    """gthread ends without waiting for a refresh that hangs; sync is in the request, and finishes it."""
    gate = Gate()
    page = origin.page(lambda seen: old() if seen.number == 1 else kept([gate, b"new"]))
    with running(kind, origin, tmp_path) as server:
        server.get(page.path)
        assert server.get(page.path).body == b"old"
        gate.wait_entered()
        server.process.send_signal(signal.SIGTERM)
        if kind == "sync":
            gate.open()
        assert server.stop() == 0
        gate.open()
        log = server.log()
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if line.startswith("wsgicache ")] == []


@pytest.mark.parametrize(("kind", "requests"), [("sync", 2), ("gthread", 3)])
def test_a_worker_that_retires_in_the_middle_of_a_refresh(
    kind: str, requests: int, origin: Origin, tmp_path: Path
) -> None:
    """max_requests: the page is whole, and the next worker starts with an empty store of its own.

    The sync worker refreshes in its last request; gthread's last one finds a refresh that hangs.
    """
    gate = Gate()
    page = origin.page(lambda seen: old() if seen.number == 1 else kept([gate, b"new"]))
    with running(kind, origin, tmp_path, ORIGIN_MAX_REQUESTS=str(requests)) as server:
        server.get(page.path)
        for number in range(1, requests):
            answer = server.get(page.path)
            assert (answer.body, answer.detail) == (b"old", "HIT_STALE_WHILE_REVALIDATE")
            if number == 1:
                gate.wait_entered()
        if kind == "sync":
            gate.open()
        page.answers(kept(b"another worker's"))
        answer = ask_until(server, page.path, b"another worker's")
        assert answer.cache["fwd"] == "uri-miss"
        assert [seen.pid == page.seen[0].pid for seen in page.seen] == [True, True, False]
        gate.open()
        log = server.log()
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if line.startswith("wsgicache ")] == []


def test_sigterm_lets_a_stream_end(origin: Origin, tmp_path: Path) -> None:
    gate = Gate()
    page = origin.page(kept([b"first", gate, b"last"], kind="stream"))
    with running("gthread", origin, tmp_path) as server:
        with server.connect() as client:
            client.ask(page.path, "Connection: close")
            client.read_head()
            assert client.read_chunk() == b"first"
            server.process.send_signal(signal.SIGTERM)
            gate.open()
            assert [client.read_chunk(), client.read_chunk()] == [b"last", b""]
        assert server.stop() == 0
    assert "Traceback" not in server.log()
