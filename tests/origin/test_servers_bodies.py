"""Bodies both ways through real servers: streams, files, clients that are slow or leave, and uploads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from origin_script import UNTIL_CLOSED, Answer, Origin, Seen, kept, plain
from origin_servers import Server

from wsgicache.testing import Gate

LARGE = b"0123456789abcdef" * 40_000  # 640 kB: more than the kernel takes for a client that does not read
NO_STORE = ("Cache-Control", "no-store")


# --- streams ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["stream", "write"])
def test_the_first_byte_comes_before_the_body_s_end(server: Server, origin: Origin, kind: str) -> None:
    gate = Gate()
    page = origin.page(kept([b"first", gate, b"last"], kind=kind))
    with server.connect() as client:
        client.ask(page.path)
        head = client.read_head()
        assert head.chunked
        assert client.read_chunk() == b"first"
        gate.wait_entered()
        assert not client.has_more()
        gate.open()
        assert [client.read_chunk(), client.read_chunk()] == [b"last", b""]
    page.wait(closed=1)
    hit = server.get(page.path)
    assert (hit.is_hit, hit.body, hit.field("content-length")) == (True, b"firstlast", "9")


def test_an_announced_length_is_kept_on_the_way(server: Server, origin: Origin) -> None:
    gate = Gate()
    page = origin.page(kept([b"first", gate, b"last"], ("Content-Length", "9"), kind="stream"))
    with server.connect() as client:
        client.ask(page.path)
        head = client.read_head()
        assert (head.field("content-length"), head.chunked) == ("9", False)
        gate.wait_entered()
        gate.open()
        assert client.read_body(head) == [b"firstlast"]
    page.wait(closed=1)
    assert server.get(page.path).body == b"firstlast"


def test_server_sent_events_pass_one_by_one(server: Server, origin: Origin) -> None:
    gates = [Gate(), Gate()]
    steps = [b"data: 1\n\n", gates[0], b"data: 2\n\n", gates[1]]
    events = [("Content-Type", "text/event-stream"), ("Cache-Control", "max-age=3600")]
    page = origin.page(Answer(headers=events, body=steps, kind="stream"))
    with server.connect() as client:
        client.ask(page.path)
        assert client.read_head().detail == "NOT_STORED_STREAM"
        assert client.read_chunk() == b"data: 1\n\n"
        gates[0].open()
        assert client.read_chunk() == b"data: 2\n\n"
        gates[1].open()
        assert client.read_chunk() == b""
    assert not server.get(page.path).is_hit


def test_listeners_to_events_do_not_wait_for_each_other(threaded: Server, origin: Origin) -> None:
    gate = Gate()
    events = [("Content-Type", "text/event-stream")]
    page = origin.page(Answer(headers=events, body=[b"data: 1\n\n", gate], kind="stream"))
    with threaded.connect() as one, threaded.connect() as other:
        for client in (one, other):
            client.ask(page.path)
            client.read_head()
            assert client.read_chunk() == b"data: 1\n\n"
        gate.open()
        assert [client.read_chunk() for client in (one, other)] == [b"", b""]


def test_head_of_a_stream_lets_go_of_it(server: Server, origin: Origin) -> None:
    """A safe cache asks the app for the page where the client asks for its head, but not for ever."""
    events = [("Content-Type", "text/event-stream")]
    page = origin.page(Answer(headers=events, body=[b"data: 1\n\n", UNTIL_CLOSED], kind="stream"))
    with server.connect() as client:
        head = client.get(page.path, "Connection: close", method="HEAD")
        assert (head.code, head.detail) == (200, "NOT_STORED_STREAM")
        assert client.rest() == (b"0\r\n\r\n" if server.kind == "waitress" else b"")  # waitress's own
    page.wait(closed=1)


def test_an_app_that_fails_is_a_500_and_not_stored(server: Server, origin: Origin) -> None:
    page = origin.page(Answer(error="broken"))
    assert server.get(page.path).code == 500
    page.answers(kept(b"mended"))
    answer = server.get(page.path)
    assert (answer.cache["fwd"], answer.body) == ("uri-miss", b"mended")


def test_a_stale_page_stands_in_for_an_error(server: Server, origin: Origin) -> None:
    control = ("Cache-Control", "max-age=10, stale-if-error=3600")
    page = origin.page(Answer(headers=plain(control, ("Age", "11")), body=b"old"))
    server.get(page.path)
    page.answers(Answer("503 Service Unavailable", plain(), b"no"))
    answer = server.get(page.path)
    assert (answer.status, answer.body, answer.detail) == ("200 OK", b"old", "HIT_STALE_IF_ERROR")
    assert answer.age is not None
    assert answer.age >= 11


def test_a_body_that_breaks_off_is_not_stored(server: Server, origin: Origin) -> None:
    page = origin.page(kept([b"first", RuntimeError("broken")], kind="stream"))
    with server.connect() as client:
        client.ask(page.path)
        client.read_head()
        assert client.rest().startswith(b"5\r\nfirst\r\n")
    page.answers(kept(b"whole"))
    answer = server.get(page.path)
    assert (answer.cache["fwd"], answer.body) == ("uri-miss", b"whole")


def test_a_body_shorter_than_announced_is_not_stored(server: Server, origin: Origin) -> None:
    page = origin.page(kept([b"short"], ("Content-Length", "99"), kind="stream"))
    with server.connect() as client:
        client.ask(page.path, "Connection: close")
        assert client.read_head().field("content-length") == "99"
        assert client.rest() == b"short"
    page.answers(kept(b"whole"))
    assert server.get(page.path).cache["fwd"] == "uri-miss"


def test_a_large_body_streams_past_the_limit(server: Server, origin: Origin) -> None:
    page = origin.page(kept([LARGE, LARGE], kind="stream"))
    for _ in range(2):
        answer = server.get(page.path)
        assert answer.body == LARGE * 2
        assert not answer.is_hit


# --- clients that leave or do not read -------------------------------------------------------------


def test_a_client_that_leaves_early_leaves_nothing_stored(server: Server, origin: Origin) -> None:
    page = origin.page(kept([b"first", UNTIL_CLOSED], kind="stream"))
    client = server.connect()
    client.ask(page.path)
    client.read_head()
    assert client.read_chunk() == b"first"
    client.abort()
    page.wait(closed=1)  # the app is told, and its iterable closed
    page.answers(kept(b"whole"))
    answer = server.get(page.path)
    assert (answer.cache["fwd"], answer.body, page.calls) == ("uri-miss", b"whole", 2)


def test_who_waits_for_a_client_that_leaves_gets_a_whole_page(threaded: Server, origin: Origin) -> None:
    gate = Gate()
    whole = [b"first", gate, b"last"]
    page = origin.page(lambda seen: kept(whole if seen.number == 1 else b"firstlast", kind="stream"))
    leader = threaded.connect()
    leader.ask(page.path)
    leader.read_head()
    gate.wait_entered()
    with threaded.connect() as follower:
        follower.ask(page.path)
        leader.abort()
        gate.open()
        answer = follower.read()
    assert answer.body == b"firstlast"
    assert threaded.get(page.path).body == b"firstlast"


def test_a_slow_client_holds_nobody(threaded: Server, origin: Origin) -> None:
    """The leader's client reads nothing; the others have their page nevertheless, whole."""
    page = origin.page(kept([LARGE[:320_000], LARGE[320_000:]], kind="stream"))
    with threaded.connect(receive_buffer=4096) as slow:
        slow.ask(page.path)
        page.wait(calls=1)
        for _ in range(3):
            with threaded.connect() as other:
                other.socket.settimeout(4.0)  # forty times slow_client_grace
                assert other.get(page.path).body == LARGE
        assert slow.read().body == LARGE
    assert threaded.get(page.path).is_hit


def test_a_slow_reader_of_a_stored_page_holds_nobody(threaded: Server, origin: Origin) -> None:
    page = origin.page(kept(LARGE))
    threaded.get(page.path)
    with threaded.connect(receive_buffer=4096) as slow:
        slow.ask(page.path)
        assert threaded.get(page.path).is_hit
        assert slow.read().body == LARGE
    assert page.calls == 1


def test_many_clients_at_once_call_the_app_once(threaded: Server, origin: Origin) -> None:
    gate = Gate()
    page = origin.page(kept([gate, b"made once"], kind="list"))
    clients = [threaded.connect() for _ in range(6)]
    try:
        for client in clients:
            client.ask(page.path)
        gate.wait_entered()
        gate.open()
        answers = [client.read() for client in clients]
    finally:
        for client in clients:
            client.socket.close()
    assert [answer.body for answer in answers] == [b"made once"] * 6
    assert page.calls == 1
    asked = [answer for answer in answers if not answer.is_hit]
    assert len([answer for answer in asked if "collapsed" not in answer.cache]) == 1


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "file"
    file.write_bytes(LARGE)
    return file


def test_a_file_that_is_not_stored_goes_out_by_sendfile(gunicorn: Server, origin: Origin, file: Path) -> None:
    """The server gets the app's own `wsgi.file_wrapper`, not ours around it."""
    page = origin.page(Answer(headers=plain(NO_STORE), kind="file", file=str(file)))
    before = gunicorn.log().count("sendfile used: True")
    answer = gunicorn.get(page.path)
    assert (answer.detail, answer.body) == ("NOT_STORED_NO_STORE", LARGE)
    for _ in range(500):  # it is logged after the last byte went out
        if gunicorn.log().count("sendfile used: True") > before:
            break
        threading.Event().wait(0.02)
    assert gunicorn.log().count("sendfile used: True") == before + 1


def test_a_file_is_whole_whether_stored_or_not(server: Server, origin: Origin, file: Path) -> None:
    for control, is_hit in (("no-store", False), ("max-age=60", True)):
        page = origin.page(Answer(headers=plain(("Cache-Control", control)), kind="file", file=str(file)))
        assert server.get(page.path).body == LARGE
        second = server.get(page.path)
        assert (second.is_hit, second.body) == (is_hit, LARGE)


def test_head_of_a_file_has_no_body(server: Server, origin: Origin, file: Path) -> None:
    for control in ("no-store", "max-age=60"):
        fields = plain(("Cache-Control", control), ("Content-Length", str(len(LARGE))))
        page = origin.page(Answer(headers=fields, kind="file", file=str(file)))
        with server.connect() as client:
            head = client.get(page.path, "Connection: close", method="HEAD")
            assert (head.code, head.field("content-length")) == (200, str(len(LARGE)))
            assert client.rest() == b""
        assert server.get(page.path).body == LARGE


def test_a_file_past_the_limit_goes_out_by_sendfile(gunicorn: Server, origin: Origin, tmp_path: Path) -> None:
    """Its Content-Length says that it is too large to be stored, so no byte of it is read here."""
    file = tmp_path / "large"
    file.write_bytes(LARGE * 2)
    fields = plain(("Cache-Control", "max-age=60"), ("Content-Length", str(len(LARGE) * 2)))
    page = origin.page(Answer(headers=fields, kind="file", file=str(file)))
    before = gunicorn.log().count("sendfile used: True")
    answer = gunicorn.get(page.path)
    assert (answer.detail, answer.body) == ("NOT_STORED_TOO_LARGE", LARGE * 2)
    for _ in range(500):  # it is logged after the last byte went out
        if gunicorn.log().count("sendfile used: True") > before:
            break
        threading.Event().wait(0.02)
    assert gunicorn.log().count("sendfile used: True") == before + 1


# --- request bodies --------------------------------------------------------------------------------

CHUNKED = b"4\r\nsome\r\n5\r\n text\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("lines", "sent", "seen"),
    [
        (("Transfer-Encoding: chunked",), CHUNKED, b"some text"),
        (("TRANSFER-encoding:  Chunked",), CHUNKED, b"some text"),
        (("Content-Length: 4",), b"body", b"body"),
    ],
)
def test_a_get_with_a_body_goes_past_the_cache(
    server: Server, origin: Origin, lines: tuple[str, ...], sent: bytes, seen: bytes
) -> None:
    page = origin.page()
    server.get(page.path)
    for _ in range(2):
        answer = server.get(page.path, *lines, body=sent)
        assert (answer.cache["fwd"], answer.detail) == ("bypass", "BYPASS_BODY")
    assert [request.body for request in page.seen] == [b"", seen, seen]
    assert server.get(page.path).is_hit


def test_a_get_with_an_empty_body_is_a_plain_get(server: Server, origin: Origin) -> None:
    page = origin.page()
    server.get(page.path)
    assert server.get(page.path, "Content-Length: 0").is_hit


@pytest.mark.parametrize(
    ("method", "lines", "sent"),
    [
        ("POST", ("Content-Length: 4",), b"body"),
        ("POST", ("Transfer-Encoding: chunked",), CHUNKED),
        ("POST", ("Content-Length: 4", "Expect: 100-continue"), b"body"),
        ("PUT", ("Content-Length: 0",), b""),
        ("DELETE", (), b""),
        ("PATCH", ("Content-Length: 4",), b"body"),
        ("FROB", (), b""),
    ],
)
def test_an_unsafe_method_invalidates(
    server: Server, origin: Origin, method: str, lines: tuple[str, ...], sent: bytes
) -> None:
    page = origin.page(lambda seen: kept(f"{seen.method} {len(seen.body)}".encode()))
    server.get(page.path)
    assert server.get(page.path).is_hit
    answer = server.get(page.path, *lines, method=method, body=sent)
    assert (answer.cache["fwd"], answer.detail) == ("method", "METHOD_UNSAFE")
    assert answer.body == f"{method} {9 if sent == CHUNKED else len(sent)}".encode()
    assert server.get(page.path).cache["fwd"] == "uri-miss"


def test_a_failed_post_invalidates_nothing(server: Server, origin: Origin) -> None:
    page = origin.page(
        lambda seen: kept() if seen.method == "GET" else Answer("422 Unprocessable Content", plain())
    )
    server.get(page.path)
    server.get(page.path, "Content-Length: 4", method="POST", body=b"body")
    assert server.get(page.path).is_hit


def test_a_post_invalidates_where_it_points(server: Server, origin: Origin) -> None:
    shown = origin.page()

    def answer(seen: Seen) -> Answer:
        return Answer("303 See Other", plain(("Location", f"http://site.test{shown.path}")))

    form = origin.page(answer)
    server.get(shown.path)
    assert server.get(shown.path).is_hit
    server.get(form.path, "Content-Length: 4", method="POST", body=b"body")
    assert server.get(shown.path).cache["fwd"] == "uri-miss"


def test_an_upload_leaves_the_connection_usable(threaded: Server, origin: Origin) -> None:
    page = origin.page()
    threaded.get(page.path)
    with threaded.connect() as client:
        for lines, sent in ((("Content-Length: 4",), b"body"), (("Transfer-Encoding: chunked",), CHUNKED)):
            assert client.get(page.path, *lines, body=sent).detail == "BYPASS_BODY"
            assert client.get(page.path).is_hit


def test_a_hit_does_not_take_the_next_request_s_bytes(threaded: Server, origin: Origin) -> None:
    """A body that is announced and not read would be taken for the next request (request smuggling)."""
    page = origin.page()
    other = origin.page(kept(b"other"))
    threaded.get(page.path)
    hidden = f"GET {other.path} HTTP/1.1\r\nHost: site.test\r\n\r\n".encode()
    with threaded.connect() as client:
        client.ask(page.path, f"Content-Length: {len(hidden)}", body=hidden)
        assert client.read().detail == "BYPASS_BODY"
        assert client.get(page.path).is_hit
        assert not client.has_more()
    assert other.calls == 0
