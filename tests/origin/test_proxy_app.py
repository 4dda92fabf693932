"""The example proxy as a WSGI app, before an origin that says exactly what it is told."""

import http.client
import importlib.util
import socket
import threading

import pytest
from proxy_helpers import PATIENCE, PROXY, RawOrigin, head, ok

from wsgicache.testing import ask, make_environ


def load():
    spec = importlib.util.spec_from_file_location("example_proxy", PROXY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


proxy_module = load()


@pytest.fixture
def raw():
    origin = RawOrigin()
    yield origin
    origin.close()


@pytest.fixture
def proxy(raw):
    app = proxy_module.Proxy(proxy_module.Origin(raw.url, timeout=PATIENCE))
    yield app
    app.origin.take().close()


# --- the request on its way ------------------------------------------------------------------------


def test_a_request_arrives_as_it_was_made(raw, proxy):
    headers = {"Accept-Language": "de, en;q=0.5", "X-Odd": "a,  b", "Cookie": "a=1; b=2", "X-Empty": ""}
    ask(proxy, "/a/b?x=1&x=2", headers=headers, REMOTE_ADDR="192.0.2.1")
    (asked,) = raw.asked
    assert asked.line == "GET /a/b?x=1&x=2 HTTP/1.1"
    assert asked.fields == [
        "Host: example.com",
        "Accept-Language: de, en;q=0.5",
        "X-Odd: a,  b",
        "Cookie: a=1; b=2",
        "X-Empty: ",
        "Via: 1.1 wsgicache-proxy",
    ]


def test_via_is_added_to_what_is_there(raw, proxy):
    """RFC 9110 §7.6.3."""
    ask(proxy, headers={"Via": "1.0 first"})
    assert raw.asked[0].all("Via") == ["1.0 first, 1.1 wsgicache-proxy"]


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb",
        "/a//b/./c/../d",
        "/%7euser?q=%20+&%",
        "/;a=b?c;d",
        "//double",
        "/?",
        "/a?b?c",
        "/caf%C3%A9",
        "*",
    ],
)
def test_the_raw_target_is_sent(raw, proxy, target):
    """RFC 9112 §3.2: not as WSGI decodes it; gunicorn's and waitress's names."""
    for name in ("RAW_URI", "REQUEST_URI"):
        ask(proxy, "/decoded", **{name: target})
    assert [asked.line for asked in raw.asked] == [f"GET {target} HTTP/1.1"] * 2


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        ("http://site.test/a?b", "/a?b"),
        ("http://site.test", "/"),
        ("http://site.test?x", "/?x"),
        ("/caf\xc3\xa9", "/caf%C3%A9"),
        ("/a?u=http://b/", "/a?u=http://b/"),
    ],
)
def test_a_target_in_another_form_is_brought_to_origin_form(raw, proxy, target, sent):
    """RFC 9112 §3.2.2."""
    ask(proxy, RAW_URI=target)
    assert raw.asked[0].line == f"GET {sent} HTTP/1.1"


def test_without_a_raw_target_it_is_made_anew(raw, proxy):
    ask(proxy, "/caf%C3%A9 1?q=1", SCRIPT_NAME="/app")
    assert raw.asked[0].line == "GET /app/caf%C3%A9%201?q=1 HTTP/1.1"


@pytest.mark.parametrize("target", ["example.com:443", "mailto:x", ""])
def test_a_target_that_cannot_be_passed_on_is_refused(raw, proxy, target):
    reply = ask(proxy, RAW_URI=target or "x")
    assert (reply.code, raw.asked) == (400, [])


def test_fields_of_one_connection_stay_behind(raw, proxy):
    """RFC 9110 §7.6.1."""
    headers = {
        "Connection": "keep-alive, X-Hop",
        "Keep-Alive": "timeout=5",
        "X-Hop": "1",
        "TE": "trailers",
        "Trailer": "X",
        "Upgrade": "h2c",
        "Proxy-Authorization": "Basic eDp5",
        "Expect": "100-continue",
        "X-Kept": "1",
    }
    ask(proxy, headers=headers)
    assert raw.asked[0].fields == ["Host: example.com", "X-Kept: 1", "Via: 1.1 wsgicache-proxy"]


def test_the_host_is_the_clients_or_the_origins(raw, proxy):
    ask(proxy, "http://site.test:81/")
    ask(proxy, HTTP_HOST=None)
    own = proxy_module.Proxy(proxy_module.Origin(raw.url), keep_host=False)
    ask(own, "http://site.test:81/")
    own.origin.take().close()
    name = f"127.0.0.1:{raw.port}"
    assert [asked.all("Host") for asked in raw.asked] == [["site.test:81"], [name], [name]]


def test_a_path_of_the_origin_goes_before_every_target(raw):
    app = proxy_module.Proxy(proxy_module.Origin(f"{raw.url}/base/"))
    ask(app, "/a?b")
    app.origin.take().close()
    assert raw.asked[0].line == "GET /base/a?b HTTP/1.1"


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "ftp://host", "http://", "/path", ""])
def test_an_origin_that_is_none_is_refused_at_once(url):
    with pytest.raises(ValueError, match="is no origin"):
        proxy_module.Origin(url)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "QUERY", "FROB", "m-search"])
def test_any_method_is_sent_as_it_is(raw, proxy, method):
    ask(proxy, "/", method)
    assert raw.asked[0].line == f"{method} / HTTP/1.1"


@pytest.mark.parametrize("size", [1, 65536, 1_000_000])
def test_a_body_is_passed_on(raw, proxy, size):
    body = bytes(range(256)) * (size // 256 + 1)
    ask(proxy, "/", "POST", {"Content-Type": "text/odd"}, body[:size])
    (asked,) = raw.asked
    assert (asked.body, asked.all("Content-Length"), asked.all("Content-Type")) == (
        body[:size],
        [str(size)],
        ["text/odd"],
    )


def test_an_empty_body_with_a_length_keeps_it(raw, proxy):
    ask(proxy, "/", "POST", CONTENT_LENGTH="0")
    ask(proxy, "/", "POST")
    assert [asked.all("Content-Length") for asked in raw.asked] == [["0"], []]


def test_a_chunked_body_is_sent_chunked(raw, proxy):
    """Where its length is not known, WSGI servers end it by themselves (wsgi.input_terminated)."""
    environ = make_environ("/", "POST", {"Transfer-Encoding": "chunked"}, b"x" * 200_000, CONTENT_LENGTH=None)
    started = []
    response = proxy(environ, lambda status, fields, exc_info=None: started.append(status))
    assert (b"".join(response), started) == (b"page", ["200 OK"])
    (asked,) = raw.asked
    assert (asked.body, asked.all("Transfer-Encoding"), asked.all("Content-Length")) == (
        b"x" * 200_000,
        ["chunked"],
        [],
    )


def test_a_client_that_breaks_off_does_not_leave_half_a_request_as_a_whole_one(raw, proxy):
    reply = ask(proxy, "/", "POST", body=b"half", CONTENT_LENGTH="8")
    assert (reply.code, raw.asked) == (400, [])


# --- the answer on its way -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("HTTP/1.1 200 OK", "200 OK"),
        ("HTTP/1.1 200 ", "200 "),
        ("HTTP/1.1 200", "200 "),
        ("HTTP/1.1 203 Somewhat  Odd", "203 Somewhat  Odd"),
        ("HTTP/1.1 299 \xc4rger", "299 \xc4rger"),
        ("HTTP/1.1 599 999", "599 999"),
        ("HTTP/1.1 999 Very", "999 Very"),
        ("HTTP/1.0 404 Not Found", "404 Not Found"),
    ],
)
def test_the_status_line_is_kept(raw, proxy, line, status):
    raw.answers(head(line, "Content-Length: 4") + b"page")
    reply = ask(proxy)
    assert (reply.status, reply.body) == (status, b"page")


def test_fields_are_kept_in_order_and_spelling(raw, proxy):
    lines = [
        "x-lower: 1",
        "X-UPPER:2",
        "Set-Cookie: a=1; Expires=Wed, 15 Nov 2023 22:13:20 GMT",
        "Date: Tue, 14 Nov 2023 22:13:20 GMT",
        "X-Spaces:   a  b   ",
        "Set-Cookie: b=2",
        "X-Empty:",
        "Age: 7",
        "X-Obs: \xe9\xff",
        'ETag: W/"a"',
        "Server: odd/1.0",
        "Vary: A",
        "Vary: B",
        "Content-Length: 4",
    ]
    raw.answers(head("HTTP/1.1 200 OK", *lines) + b"page")
    expected = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    assert ask(proxy).headers == expected


def test_hop_by_hop_fields_of_the_answer_stay_behind(raw, proxy):
    """RFC 9110 §7.6.1."""
    hop = ["Connection: X-Hop", "Keep-Alive: timeout=5", "X-Hop: 1", "Upgrade: h2c", "Trailer: X"]
    raw.answers(ok(b"page", *hop, "X-Kept: 1"))
    assert ask(proxy).headers == [("Content-Length", "4"), ("X-Kept", "1")]


def test_a_folded_field_is_unfolded(raw, proxy):
    """RFC 9112 §5.2: a gateway replaces obs-fold with a space."""
    raw.answers(head("HTTP/1.1 200 OK", "X-Long: a", "  b", "\tc", "Content-Length: 0"))
    assert ask(proxy).field("X-Long") == "a b c"


@pytest.mark.parametrize("framing", ["length", "chunked", "close", "old"])
@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_each_framing_of_a_body(raw, proxy, framing, size):
    """RFC 9112 §6.3."""
    body = b"0123456789" * (size // 10 + 1)
    body = body[:size]
    raw.answers(framed(framing, body), ok(b"next"))
    reply = ask(proxy)
    assert (reply.body, reply.field("Transfer-Encoding")) == (body, None)
    assert reply.field("Content-Length") == (str(size) if framing == "length" else None)
    assert ask(proxy).body == b"next"
    assert raw.asked[1].connection == (0 if framing in ("length", "chunked") else 1)


def framed(framing, body):
    if framing == "length":
        return ok(body)
    if framing == "chunked":
        pieces = [body[start : start + 7000] for start in range(0, len(body), 7000)]
        coded = b"".join([f"{len(piece):X};x=y\r\n".encode() + piece + b"\r\n" for piece in pieces])
        return head("HTTP/1.1 200 OK", "Transfer-Encoding: Chunked") + coded + b"0\r\nX-Trailer: 1\r\n\r\n"

    def until_the_end(line):
        line.send(head("HTTP/1.1 200 OK" if framing == "close" else "HTTP/1.0 200 OK", "X: 1") + body)
        line.hang_up()

    return until_the_end


def test_the_first_bytes_do_not_wait_for_the_last(raw, proxy):
    """Streaming: what is there goes out."""
    more = threading.Event()

    def slowly(line):
        line.send(head("HTTP/1.1 200 OK", "Content-Length: 6") + b"abc")
        more.wait(PATIENCE)
        line.send(b"def")

    raw.answers(slowly)
    response = iter(proxy(make_environ(), lambda status, fields, exc_info=None: None))
    assert next(response) == b"abc"
    more.set()
    assert b"".join(response) == b"def"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
def test_an_answer_without_a_body(raw, proxy, method, status):
    """RFC 9110 §6.4.1: the length that it tells is another request's."""
    if (method, status) == ("GET", "200 OK"):
        raw.answers(ok(b""), ok())
    else:
        raw.answers(head(f"HTTP/1.1 {status}", "Content-Length: 1000"), ok())
    reply = ask(proxy, "/", method)
    assert (reply.status, reply.body) == (status, b"")
    assert reply.field("Content-Length") == ("0" if (method, status) == ("GET", "200 OK") else "1000")
    ask(proxy)
    assert [asked.connection for asked in raw.asked] == [0, 0]


def test_interim_answers_are_read_past(raw, proxy):
    """RFC 9110 §15.2."""
    interim = (
        head("HTTP/1.1 100 Continue")
        + head("HTTP/1.1 102 Processing")
        + head("HTTP/1.1 103 Early", "Link: </a>")
    )
    raw.answers(interim + ok(b"page", "X: 1"))
    reply = ask(proxy)
    assert (reply.status, reply.headers, reply.body) == (
        "200 OK",
        [("Content-Length", "4"), ("X", "1")],
        b"page",
    )


def test_early_hints_go_on_where_the_server_offers_a_way(raw, proxy):
    """RFC 8297, with gunicorn's wsgi.early_hints."""
    hints = []
    raw.answers(
        head("HTTP/1.1 102 Processing") + head("HTTP/1.1 103 Early", "Link: </a>", "Connection: x") + ok()
    )
    ask(proxy, **{"wsgi.early_hints": hints.append})
    assert hints == [[("Link", "</a>")]]


# --- what goes wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\r\n\r\n",
        b"junk\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 1000 OK\r\n\r\n",
        b"HTTP/1.1 99 OK\r\n\r\n",
        b"HTTP/3 200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        head("HTTP/1.1 101 Switching Protocols"),
        head("HTTP/1.1 200 OK", "no colon here", "Content-Length: 0"),
        head("HTTP/1.1 200 OK", "Bad Name: x", "Content-Length: 0"),
        head("HTTP/1.1 200 OK", "X: a\x00b", "Content-Length: 0"),
        head("HTTP/1.1 200 O\x01K", "Content-Length: 0"),
        head("HTTP/1.1 200 OK", "Content-Length: 4", "Content-Length: 5") + b"page",
        head("HTTP/1.1 200 OK", "Content-Length: 4, 4") + b"page",
        head("HTTP/1.1 200 OK", "Content-Length: -4") + b"page",
        head("HTTP/1.1 200 OK", "Content-Length: four") + b"page",
        head("HTTP/1.1 200 OK", "Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n",
        head("HTTP/1.1 200 OK", "Transfer-Encoding: odd") + b"page",
        head("HTTP/1.1 200 OK", *[f"X-{number}: 1" for number in range(200)]),
        head("HTTP/1.1 200 OK", "X: " + "x" * 100_000),
    ],
)
def test_a_head_that_makes_no_sense_is_a_502(raw, proxy, answer, capsys):
    """RFC 9110 §15.6.3: an invalid response from the inbound server."""

    def answer_and_end(line):
        line.send(answer)
        line.hang_up()

    raw.answers(answer_and_end, ok())
    reply = ask(proxy, "/", "POST")
    assert (reply.status, reply.body) == ("502 Bad Gateway", b"502 Bad Gateway\n")
    assert capsys.readouterr().err.startswith("502 Bad Gateway: ")
    assert ask(proxy).code == 200  # over a connection that nothing is left of


def test_equal_lengths_on_two_lines_are_one(raw, proxy):
    """RFC 9110 §8.6."""
    raw.answers(head("HTTP/1.1 200 OK", "Content-Length: 4", "Content-Length: 4") + b"page")
    assert ask(proxy).body == b"page"


def test_a_length_beside_chunked_coding_does_not_count(raw, proxy):
    """RFC 9112 §6.3: and is not passed on."""
    raw.answers(
        head("HTTP/1.1 200 OK", "Content-Length: 9", "Transfer-Encoding: chunked") + b"4\r\npage\r\n0\r\n\r\n"
    )
    reply = ask(proxy)
    assert (reply.body, reply.all("Content-Length")) == (b"page", [])


@pytest.mark.parametrize(
    "cut",
    [
        head("HTTP/1.1 200 OK", "Content-Length: 10") + b"page",
        head("HTTP/1.1 200 OK", "Content-Length: 10"),
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"4\r\npage\r\n",
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"9\r\npage",
        head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + b"4\r\npage\r\njunk\r\n",
    ],
)
def test_a_body_that_is_cut_off_raises(raw, proxy, cut):
    """RFC 9112 §8: so that the server breaks off too, and nobody stores it."""

    def cut_off(line):
        line.send(cut)
        line.hang_up()

    raw.answers(cut_off)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        ask(proxy)


def test_nobody_listens(capsys):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reply = ask(proxy_module.Proxy(proxy_module.Origin(f"http://127.0.0.1:{port}")))
    assert reply.code == 502
    assert "ConnectionRefusedError" in capsys.readouterr().err


def test_an_origin_that_keeps_silent_is_a_504(raw, capsys):
    """RFC 9110 §15.6.5."""
    silence = threading.Event()
    raw.answers(lambda line: silence.wait(PATIENCE) and None)
    reply = ask(proxy_module.Proxy(proxy_module.Origin(raw.url, timeout=0.05)))
    silence.set()
    assert (reply.code, len(raw.asked)) == (504, 1)
    assert "TimeoutError" in capsys.readouterr().err


# --- connections -----------------------------------------------------------------------------------


def test_a_connection_is_used_again(raw, proxy):
    for _ in range(5):
        assert ask(proxy).body == b"page"
    assert [asked.connection for asked in raw.asked] == [0] * 5


def test_each_thread_has_its_own(raw, proxy):
    threads = [
        threading.Thread(target=lambda: [ask(proxy), ask(proxy), proxy.origin.take().close()])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
        thread.join(PATIENCE)
    assert [asked.connection for asked in raw.asked] == [0, 0, 1, 1, 2, 2]


def test_an_answer_that_says_close_is_believed(raw, proxy):
    raw.answers(ok(b"page", "Connection: close"))
    ask(proxy)
    ask(proxy)
    assert [asked.connection for asked in raw.asked] == [0, 1]


def test_a_connection_that_was_closed_while_idle_is_replaced_for_any_method(raw, proxy):
    """Seen before anything is sent, so nothing is sent twice."""
    for method in ("GET", "POST", "POST"):
        line = raw.asked[-1].connection if raw.asked else None
        if line is not None:
            raw.hang_up()
        assert ask(proxy, "/", method, body=b"data" if method == "POST" else b"").code == 200
    assert [asked.connection for asked in raw.asked] == [0, 1, 2]


def hang_up(line):
    line.hang_up()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_a_connection_that_dies_under_an_idempotent_request_is_tried_once_more(raw, proxy, method):
    """RFC 9110 §9.2.2."""
    raw.answers(ok(), hang_up, ok(b""))
    ask(proxy)
    assert ask(proxy, "/", method).code == 200
    assert [asked.line.split()[0] for asked in raw.asked] == ["GET", method, method]


@pytest.mark.parametrize(("method", "body"), [("POST", b""), ("PATCH", b""), ("FROB", b""), ("PUT", b"data")])
def test_another_request_is_not(raw, proxy, method, body):
    """RFC 9110 §9.2.2: it may have been carried out; and a body that was read is gone."""
    raw.answers(ok(), hang_up, ok())
    ask(proxy)
    assert ask(proxy, "/", method, body=body).code == 502
    assert len(raw.asked) == 2


def test_a_new_connection_that_dies_is_not_tried_again(raw, proxy):
    raw.answers(hang_up)
    assert (ask(proxy).code, len(raw.asked)) == (502, 1)
    raw.answers(ok(), hang_up)
    ask(proxy)
    assert (ask(proxy).code, len(raw.asked)) == (502, 3)


def test_a_response_that_nobody_reads_to_its_end_costs_the_connection(raw, proxy):
    raw.answers(ok(b"x" * 1_000_000), ok())
    response = proxy(make_environ(), lambda status, fields, exc_info=None: None)
    next(iter(response))
    response.close()
    response.close()
    assert ask(proxy).body == b"page"
    assert raw.asked[1].connection == 1


def test_an_origin_that_answers_before_it_has_read_the_body(raw, proxy):
    """RFC 9112 §9.5: a 413 sent early is still an answer."""

    def early(line):
        line.send(ok(b"no", "Connection: close", status="413 Content Too Large"))
        line.hang_up()

    raw.answers(early)
    assert ask(proxy, "/", "POST", body=b"x" * 4).code == 413
