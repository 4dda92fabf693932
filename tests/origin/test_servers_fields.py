"""Fields and status lines: what comes out of the store is what the app said, through any server."""

from __future__ import annotations

import pytest
from origin_script import Answer, Origin, fields_of, kept, plain
from origin_servers import Server

ODD: list[tuple[str, str]] = [
    ("content-TYPE", "text/html;charset=UTF-8"),
    ("Cache-control", 'MAX-AGE = 3600 , Public, max-age=3600, x-unknown="a, b"'),
    ("LINK", "</a>; rel=preload"),
    ("Link", "</b>; rel=preload, </c>; rel=preload"),
    ("link", "</a>; rel=preload"),
    ("X-Empty", ""),
    ("x-odd_name!#$%&'*+.^`|~", "1"),
    ("X-Latin", "caf\u00e9 \u00ff"),
    ("X-Tab", "a\tb"),
    ("X-Long", "long " * 1600 + "."),
    ("WWW-Authenticate", 'Basic realm="a", Digest realm="b"'),
    ("ETag", 'W/"odd, \u00e9"'),
]


def test_fields_come_back_as_they_were(server: Server, origin: Origin) -> None:
    page = origin.page(Answer(headers=[*ODD[:1], ("Cache-Control", "max-age=60"), *ODD[2:]], body=b"x"))
    miss, hit = server.get(page.path), server.get(page.path)
    assert (miss.stored, hit.is_hit) == (True, True)
    assert fields_of(hit.headers) == fields_of(miss.headers)
    assert hit.all("link") == [
        "</a>; rel=preload",
        "</b>; rel=preload, </c>; rel=preload",
        "</a>; rel=preload",
    ]
    assert hit.field("x-empty") == ""
    assert hit.field("x-latin") == "caf\u00e9 \u00ff"
    assert hit.field("x-tab") == "a\tb"
    assert hit.field("x-long") == ("long " * 1600 + ".")


def test_gunicorn_keeps_spelling_and_order(gunicorn: Server, origin: Origin) -> None:
    page = origin.page(Answer(headers=[*ODD[:1], ("Cache-Control", "max-age=60"), *ODD[2:]], body=b"x"))
    gunicorn.get(page.path)
    names = [line.partition(":")[0] for line in gunicorn.get(page.path).lines]
    wanted = ["content-TYPE", "Cache-Control", *[name for name, _ in ODD[2:]]]
    assert [name for name in names if name in wanted] == wanted


@pytest.mark.parametrize(
    "value",
    [
        "max-age=60",
        "Max-Age=60",
        " max-age=60 ",
        "max-age=60,",
        ",, max-age=60",
        'max-age="60"',
        "public\t,\tmax-age=60",
        "x, max-age=60, stale-if-error=1",
    ],
)
def test_cache_control_in_any_spelling(server: Server, origin: Origin, value: str) -> None:
    page = origin.page(Answer(headers=plain(("cAcHe-CoNtRoL", value)), body=b"x"))
    assert server.get(page.path).cache["ttl"] == "60"
    assert server.get(page.path).is_hit


@pytest.mark.parametrize("second", ["no-store", "Private", "NO-CACHE"])
def test_several_cache_control_lines_are_one_list(server: Server, origin: Origin, second: str) -> None:
    page = origin.page(
        Answer(headers=plain(("Cache-Control", "max-age=60"), ("cache-control", second)), body=b"x")
    )
    for _ in range(2):
        answer = server.get(page.path)
        assert answer.cache["fwd"] == "uri-miss"
        assert answer.detail == f"NOT_STORED_{second.upper().replace('-', '_')}"


def test_request_fields_in_any_spelling_select_the_variant(server: Server, origin: Origin) -> None:
    page = origin.page(lambda seen: kept(str(seen.environ.get("HTTP_X_KIND")).encode(), ("Vary", "x-KIND")))
    assert server.get(page.path, "X-KIND: a").body == b"a"
    for line in ("x-kind:a", "X-Kind: a", "X-kind:   a\t"):
        answer = server.get(page.path, line)
        assert (answer.is_hit, answer.body) == (True, b"a")
    for line in ("X-Kind: A", "X-Kind: aa", "X-Kind:"):
        assert server.get(page.path, line).cache["fwd"] == "vary-miss"
    assert server.get(page.path).body == b"None"


def test_repeated_request_fields_select_by_all_of_them(server: Server, origin: Origin) -> None:
    page = origin.page(lambda seen: kept(seen.environ["HTTP_X_KIND"].encode(), ("Vary", "X-Kind")))
    first = server.get(page.path, "X-Kind: a", "X-Kind: b")
    assert first.body.replace(b" ", b"") == b"a,b"
    assert server.get(page.path, "X-Kind: a", "X-Kind: b").is_hit
    for lines in (("X-Kind: a",), ("X-Kind: b",), ("X-Kind: b", "X-Kind: a")):
        assert server.get(page.path, *lines).cache["fwd"] == "vary-miss"


def test_an_underscore_is_no_hyphen(server: Server, origin: Origin) -> None:
    """Servers drop or refuse names with an underscore; they must not pass for the real field."""
    page = origin.page(lambda seen: kept(str(seen.environ.get("HTTP_X_KIND")).encode(), ("Vary", "X-Kind")))
    server.get(page.path, "X-Kind: a")
    answer = server.get(page.path, "X_Kind: a")
    assert not (answer.code == 200 and answer.body == b"a" and answer.is_hit)


@pytest.mark.parametrize("lines", [("Cookie: a=1", "Cookie: b=2"), ("cookie:a=1; b=2",)])
def test_cookies_in_several_lines(server: Server, origin: Origin, lines: tuple[str, ...]) -> None:
    page = origin.page(Answer(headers=plain(), body=b"x"))
    answer = server.get(page.path, *lines)
    assert (answer.cache["fwd"], answer.detail) == ("bypass", "BYPASS_COOKIE")
    assert "b=2" in page.seen[0].environ["HTTP_COOKIE"]


def test_a_visitor_s_cookie_is_seen_behind_a_harmless_line(server: Server, origin: Origin) -> None:
    page = origin.page(kept(b"everybody's"))
    server.get(page.path)
    assert server.get(page.path, "Cookie: _ga=1").is_hit
    answer = server.get(page.path, "Cookie: _ga=1", "Cookie: sid=2")
    assert answer.detail == "BYPASS_COOKIE"


def test_set_cookie_lines_reach_the_client_and_are_not_stored(server: Server, origin: Origin) -> None:
    lines = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Expires=Sun, 06 Nov 2044 08:49:37 GMT")]
    page = origin.page(kept(b"", *lines))
    for _ in range(2):
        answer = server.get(page.path)
        assert answer.detail == "NOT_STORED_SET_COOKIE"
        assert answer.all("set-cookie") == [value for _, value in lines]


def test_set_cookie_lines_are_stored_in_the_rfc_profile(server: Server, origin: Origin) -> None:
    lines = [("Set-Cookie", "a=1; Path=/"), ("Set-Cookie", "b=2; Expires=Sun, 06 Nov 2044 08:49:37 GMT")]
    page = origin.page(kept(b"", *lines))
    server.get(page.path, host="rfc.test")
    hit = server.get(page.path, host="rfc.test")
    assert hit.is_hit
    assert hit.all("set-cookie") == [value for _, value in lines]


def test_request_directives_in_several_lines(server: Server, origin: Origin) -> None:
    """Only rfc obeys them (RFC 9111 §5.2.1); safe lets nobody force a miss."""
    page = origin.page()
    for host in ("rfc.test", "site.test"):
        server.get(page.path, host=host)
    lines = ("Cache-Control: max-stale", "cache-control: No-Cache")
    assert server.get(page.path, *lines, host="rfc.test").cache["fwd"] == "request"
    assert server.get(page.path, *lines, host="site.test").is_hit
    assert server.get(page.path, "PRAGMA: no-cache", host="rfc.test").cache["fwd"] == "request"


def test_only_if_cached(server: Server, origin: Origin) -> None:
    page = origin.page()
    answer = server.get(page.path, "Cache-Control: only-if-cached", host="rfc.test")
    assert (answer.status, answer.detail) == ("504 Gateway Timeout", "ONLY_IF_CACHED")
    assert page.calls == 0
    with server.connect() as client:
        head = client.get(
            page.path, "Cache-Control: only-if-cached", "Connection: close", host="rfc.test", method="HEAD"
        )
        assert (head.code, client.rest()) == (504, b"")


def test_a_field_for_this_cache_alone_is_consumed(server: Server, origin: Origin) -> None:
    page = origin.page(
        Answer(headers=plain(("Cache-Control", "no-store"), ("wsgicache-CACHE-control", "max-age=60")))
    )
    miss, hit = server.get(page.path), server.get(page.path)
    assert (miss.cache["ttl"], hit.is_hit) == ("60", True)
    for answer in (miss, hit):
        assert answer.field("wsgicache-cache-control") is None
        assert answer.field("cache-control") == "no-store"


def test_early_hints_pass_a_miss_and_are_not_stored(gunicorn: Server, origin: Origin) -> None:
    hint = ("Link", "</a.css>; rel=preload")
    page = origin.page(kept(b"", hints=[hint]))
    with gunicorn.connect() as client:
        client.ask(page.path)
        early = client.read_head()
        assert (early.code, early.headers) == (103, [hint])
        assert client.read().stored
    with gunicorn.connect() as client:
        client.ask(page.path)
        assert client.read_head().status == "200 OK"


# --- status lines ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status",
    [
        "200 OK",
        "200 Quite All Right, Thank You",
        "200 ",
        "203 Non-Authoritative Information",
        "299 Odd But Final",
        "301 Moved Permanently",
        "404 Nothing\tHere",
        "410 Gone \u00e9",
        "418 I'm a teapot",
        "499 ",
        "503 Service Unavailable",
        "599 Odd Error",
        "600 Beyond",
        "999 The End",
    ],
)
def test_a_status_line_comes_back_to_the_letter(server: Server, origin: Origin, status: str) -> None:
    page = origin.page(Answer(status, plain(("Cache-Control", "max-age=60")), b"body"))
    miss, hit = server.get(page.path, host="rfc.test"), server.get(page.path, host="rfc.test")
    assert (miss.status, miss.stored, miss.cache["fwd-status"]) == (status, True, status[:3])
    assert (hit.status, hit.is_hit, hit.body) == (status, True, b"body")


@pytest.mark.parametrize("status", ["299 Odd But Final", "418 I'm a teapot", "503 Service Unavailable"])
def test_safe_stores_no_odd_status_but_passes_it_on(server: Server, origin: Origin, status: str) -> None:
    page = origin.page(Answer(status, plain(("Cache-Control", "max-age=60")), b"body"))
    for _ in range(2):
        answer = server.get(page.path)
        assert (answer.status, answer.detail, answer.body) == (status, "NOT_STORED_STATUS", b"body")
