"""Web cache deception (WCD), poisoning through unkeyed inputs (POI), poisoned errors (CPD)."""

from urllib.parse import parse_qsl

import pytest
from sites import HTML, VICTIM, Site, control, page
from werkzeug.middleware.proxy_fix import ProxyFix

from wsgicache import Reason, Rule, WSGICache
from wsgicache.testing import FakeClock, ask

PARTS = 32
"""More parts than this a Range never gets."""


def account(*headers):
    """A page of whoever is logged in, under any path."""

    def answer(environ):
        name = "nobody"
        for cookie in environ.get("HTTP_COOKIE", "").split(";"):
            if cookie.strip().startswith("session="):
                name = cookie.partition("=")[2]
        return page(HTML, *headers, body=f"account of {name}".encode())

    return answer


# --- WCD --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/account/x.css", "/account/logo.png", "/account/a/b.js", "/account;x.css", "/account%0A.css"]
)
@pytest.mark.parametrize("vary", [[("Vary", "Cookie")], []], ids=["Vary: Cookie", "no Vary"])
def test_wcd_01_a_page_of_a_visitor_under_a_static_looking_url(path, vary):
    site = Site(account(*vary))
    reply = site.ask(path, headers=VICTIM)
    assert (reply.body, reply.stored) == (b"account of victim", False)
    attacker = site.ask(path)
    assert not attacker.is_hit
    assert attacker.body == b"account of nobody"
    assert site.app.calls == 2


def test_wcd_01_nor_where_the_attacker_was_there_first():
    site = Site(account())
    site.fill("/account/x.css")
    site.ask("/account/x.css")
    assert site.ask("/account/x.css", headers=VICTIM).body == b"account of victim"
    assert site.ask("/account/x.css").body == b"account of nobody"


@pytest.mark.parametrize(
    "value", ["Private", "NO-STORE", "max-age=60 , PRIVATE", "no-Cache", " private\t", "PRIVATE=x"]
)
@pytest.mark.parametrize("headers", [None, VICTIM])
def test_wcd_03_a_restriction_in_any_case_and_spacing(value, headers):
    site = Site(account(("Cache-Control", value)))
    assert not site.ask("/account/x.css", headers=headers).stored
    assert not site.ask("/account/x.css").is_hit


STATIC = [Rule("/static/*", ttl=86400, override=True)]


@pytest.mark.parametrize(
    "path",
    [
        "/static/../account",
        "/static/x/../../account",
        "/static/..",
        "/static/./../account",
        "/static\\..\\account",
        "/static/..\\account",
    ],
)
@pytest.mark.parametrize("headers", [None, VICTIM])
def test_wcd_04_a_static_rule_does_not_cover_what_leads_out_of_it(path, headers):
    def answer(environ):
        return control("public, max-age=60", body=b"resolved to the account")

    site = Site(answer, rules=STATIC)
    raw = path.replace("/..", "/..%2f", 1)
    for _ in range(2):
        reply = site.ask(PATH_INFO=path, RAW_URI=raw, headers=headers)
        assert (reply.detail, reply.stored, reply.is_hit) == ("BYPASS_PATH", False, False)
    assert site.ask("/static/a.css").cache["ttl"] == "86400"


# --- POI --------------------------------------------------------------------------------------------


def linking(environ):
    """An app that builds links from the host that it takes to be its own."""
    host = environ.get("HTTP_X_FORWARDED_HOST") or environ["HTTP_HOST"]
    return page(HTML, body=f'<link rel=canonical href="{environ["wsgi.url_scheme"]}://{host}/">'.encode())


EVIL_HOSTS = [
    {"X-Forwarded-Host": "evil"},
    {"X-Forwarded-Host": "evil", "X-Forwarded-Proto": "https"},
    {"Forwarded": "host=evil;proto=https"},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Prefix": "/evil"},
    {"X-Forwarded-Port": "666"},
]


@pytest.mark.parametrize("headers", EVIL_HOSTS, ids=repr)
def test_poi_01_inside_a_proxy_fixer_the_effective_host_is_keyed(headers):
    def app(environ, start_response):
        start_response("200 OK", [HTML])
        return [f"{environ['wsgi.url_scheme']}://{environ['HTTP_HOST']}{environ['SCRIPT_NAME']}".encode()]

    cache = WSGICache(app, clock=FakeClock())
    site = ProxyFix(cache, x_for=1, x_proto=1, x_host=1, x_port=1, x_prefix=1)
    for _ in range(2):
        ask(site, headers=headers)
    for _ in range(2):
        assert ask(site).body == b"http://example.com"
    assert ask(site).is_hit


@pytest.mark.parametrize("headers", EVIL_HOSTS, ids=repr)
@pytest.mark.parametrize("first", ["evil", "clean"])
def test_poi_01_outside_one_what_is_forwarded_joins_the_key(headers, first):
    site = Site(linking)
    for evil in (True, False) if first == "evil" else (False, True, False):
        reply = site.ask(headers=headers if evil else None)
    assert reply.body == b'<link rel=canonical href="http://example.com/">'
    for _ in range(2):
        assert b"evil" not in site.ask().body


@pytest.mark.parametrize("name", ["X-Original-URL", "X-Rewrite-URL"])
def test_poi_04_fields_that_route_elsewhere(name):
    def answer(environ):
        path = environ.get(f"HTTP_{name.upper().replace('-', '_')}") or environ["PATH_INFO"]
        return control("public, max-age=60", body=f"page {path}".encode())

    site = Site(answer)
    assert site.ask(headers={name: "/admin"}).body == b"page /admin"
    assert site.ask().body == b"page /"
    for _ in range(2):
        assert site.ask().is_hit
        assert site.ask(headers={name: "/404"}).body == b"page /404"


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"X-HTTP-Method-Override": "POST"}},
        {"headers": {"X-Method-Override": "post"}},
        {"headers": {"X-HTTP-Method": "DELETE"}},
        {"url": "/?_method=POST"},
        {"url": "/?a=1&_method=put"},
    ],
    ids=repr,
)
def test_poi_05_method_overrides(request_):
    site = Site(control("public, max-age=60"), rules=[Rule("/*", query="key")])
    site.app.answers(control("public, max-age=60", status="405 Method Not Allowed"))
    assert not site.ask(**request_).stored
    site.app.answers(control("public, max-age=60"))
    assert site.ask().code == 200
    for _ in range(2):
        reply = site.ask(**request_)
        assert (reply.detail, reply.is_hit) == ("BYPASS_OVERRIDE", False)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "how", [{"body": b"a=2"}, {"HTTP_TRANSFER_ENCODING": "chunked"}], ids=["length", "chunked"]
)
def test_poi_06_fat_get(method, how):
    def answer(environ):
        form = dict(parse_qsl(environ["wsgi.input"].read().decode()))
        query = dict(parse_qsl(environ["QUERY_STRING"]))
        return control("public, max-age=60", body=repr({**query, **form}).encode())

    site = Site(answer, rules=[Rule("/*", query="key")])
    fat = site.ask("/?a=1", method, **how)
    assert (fat.detail, fat.stored) == ("BYPASS_BODY", False)
    assert site.ask("/?a=1").body == b"{'a': '1'}"
    assert site.ask("/?a=1").is_hit
    assert site.ask("/?a=1", method, **how).detail == "BYPASS_BODY"


def splitting(*separators):
    """An app that splits its query at these characters, as some parsers do."""

    def answer(environ):
        query = environ["QUERY_STRING"]
        for separator in separators:
            query = query.replace(separator, "&")
        return page(body=f"q={dict(parse_qsl(query)).get('q')}".encode())

    return answer


@pytest.mark.parametrize(
    "query", ["q=good&utm_x=1;q=evil", "utm_x=1;q=evil&q=good", "utm_x=1%3Bq=evil&q=good"]
)
def test_poi_07_parameter_cloaking(query):
    site = Site(splitting(";"), rules=[Rule("/*", query="key", ignore_query="utm_*")])
    site.ask(QUERY_STRING=query)
    for _ in range(2):
        assert site.ask("/?q=good").body == b"q=good"
        assert site.ask("/?utm_y=2&q=good").body == b"q=good"


@pytest.mark.parametrize("mode", ["key", "sort"])
def test_poi_08_duplicate_parameters_keep_their_order(mode):
    def answer(environ):
        return page(body=repr(parse_qsl(environ["QUERY_STRING"])).encode())

    site = Site(answer, rules=[Rule("/*", query=mode, ignore_query="utm_*")])
    first = site.fill("/?q=good&q=evil").body
    second = site.fill("/?q=evil&q=good").body
    assert first == b"[('q', 'good'), ('q', 'evil')]"
    assert second == b"[('q', 'evil'), ('q', 'good')]"
    assert site.ask("/?q=good&utm_x=1&q=evil").body == first


def test_poi_12_hosts():
    site = Site(linking)
    site.fill(headers={"Host": "example.com"})
    for host in ("EXAMPLE.com", "example.com:80", "Example.COM:80"):
        assert site.ask(headers={"Host": host}).is_hit, "case folded, default port dropped"
    for host in ("example.com:443", "example.com:8080", "example.com."):
        assert f"//{host}/".encode() in site.fill(headers={"Host": host}).body, "others are kept apart"
    for host in ("user@example.com", "example.com,evil", "example.com, example.com", "", "evil/x", "a b"):
        for _ in range(2):
            reply = site.ask(headers={"Host": host})
            assert (reply.detail, reply.stored) == ("BYPASS_HOST", False)
    assert site.ask().body == b'<link rel=canonical href="http://example.com/">'


@pytest.mark.parametrize(
    "answer",
    [
        control("max-age=60", ("Content-Range", "bytes 0-3/100"), status="206 Partial Content"),
        control("max-age=60", ("Content-Length", "4")),
        control("max-age=60"),
    ],
    ids=["206", "200 of a part", "200"],
)
def test_poi_22_a_range_on_a_miss(answer):
    site = Site(answer)
    assert site.ask(headers={"Range": "bytes=0-3"}).detail == "NOT_STORED_RANGE"
    assert site.last["HTTP_RANGE"] == "bytes=0-3"
    site.app.answers(control("max-age=60", body=b"the whole page"))
    reply = site.ask()
    assert (reply.is_hit, reply.body) == (False, b"the whole page")


def test_poi_22_a_206_that_nobody_asked_for_is_not_stored_either():
    site = Site(control("max-age=60", ("Content-Range", "bytes 0-3/100"), status="206 Partial Content"))
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_STATUS"


BODY = bytes(range(256)) * 4
ODD_RANGES = [
    "bytes=0-9",
    "bytes=-5",
    "bytes=-99999999999999999999",
    "bytes=0-99999999999999999999999999",
    "bytes=99999999999999999999-",
    "bytes=5-2",
    "bytes=a-b",
    "bytes=",
    "bytes=-",
    "bytes=--5",
    "bytes=-0",
    "bytes=1024-",
    "bytes=1023-",
    "bytes=0-0,0-0,0-0",
    "bytes=0-,0-,0-,0-",
    "bytes=" + ",".join(f"{i}-{i}" for i in range(0, 2000, 2)),
    "bytes=" + "0-," * 1000,
    "bytes=0-5,700-710,300-305",
    "bytes=-2,0-2",
    "items=0-5",
    "bytes 0-5",
    "bytes=\u0661-5",
    "bytes=0x0-5",
    "bytes=+1-5",
    "bytes=1 - 5",
    "bytes=-9223372036854775806,-9223372036854775806",
]


@pytest.mark.parametrize("asked", ODD_RANGES, ids=lambda asked: asked[:40])
def test_poi_23_odd_ranges_against_a_stored_page(asked):
    site = Site(page(body=BODY))
    site.fill()
    for _ in range(2):
        reply = site.ask(headers={"Range": asked})
        assert reply.is_hit
        if reply.code == 200:
            assert reply.body == BODY
        elif reply.code == 416:
            assert (reply.body, reply.field("Content-Range")) == (b"", f"bytes */{len(BODY)}")
        else:
            assert reply.code == 206
            check_parts(reply)
    assert site.app.calls == 1


def check_parts(reply):
    """Every byte of a 206 is one of the body, and there are not too many of them."""
    assert reply.field("Content-Length") == str(len(reply.body))
    kind = reply.field("Content-Type")
    if not kind.startswith("multipart/byteranges"):
        check_span(reply.field("Content-Range"), reply.body)
        return
    boundary = b"--" + kind.partition("boundary=")[2].encode()
    parts = reply.body.split(boundary)[1:-1]
    assert 1 < len(parts) <= PARTS
    assert len(reply.body) < len(BODY) + PARTS * 200
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        (line,) = [line for line in head.split(b"\r\n") if line.startswith(b"Content-Range: ")]
        check_span(line.partition(b": ")[2].decode(), body.removesuffix(b"\r\n"))


def check_span(content_range, body):
    unit, _, rest = content_range.partition(" ")
    span, _, length = rest.partition("/")
    first, last = map(int, span.split("-"))
    assert (unit, int(length), body) == ("bytes", len(BODY), BODY[first : last + 1])
    assert 0 <= first <= last < len(BODY)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-None-Match": '"a"'}, "304 Not Modified"),
        ({"If-None-Match": "*"}, "304 Not Modified"),
        ({"If-Modified-Since": "Wed, 15 Nov 2033 00:00:00 GMT"}, "304 Not Modified"),
        ({"If-Match": '"b"'}, "412 Precondition Failed"),
        ({"If-Unmodified-Since": "Wed, 15 Nov 1995 00:00:00 GMT"}, "412 Precondition Failed"),
        ({"If-Range": '"a"', "Range": "bytes=0-1"}, "206 Partial Content"),
    ],
    ids=repr,
)
def test_poi_24_conditions_of_a_client_on_a_miss(headers, status):
    """The app answers any condition that it sees; what it then says is never stored as the page."""

    def answer(environ):
        conditional = any(name.startswith("HTTP_IF_") for name in environ) or "HTTP_RANGE" in environ
        if conditional:
            return control("public, max-age=60", ("ETag", '"a"'), status=status, body=b"")
        return control("public, max-age=60", ("ETag", '"a"'))

    site = Site(answer)
    site.ask(headers=headers)
    for _ in range(2):
        reply = site.ask()
        assert (reply.code, reply.body) == (200, b"page")
    assert site.ask().is_hit


@pytest.mark.parametrize("status", ["304 Not Modified", "412 Precondition Failed"])
def test_poi_24_nor_where_nobody_asked_for_it(status):
    site = Site(control("public, max-age=60", ("ETag", '"a"'), status=status, body=b""))
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_STATUS"


# --- CPD --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 413, 414, 431])
@pytest.mark.parametrize("value", ["max-age=60", "public, s-maxage=600", ""])
def test_cpd_01_an_answer_to_an_oversized_field(code, value):
    def answer(environ):
        large = len(environ.get("HTTP_X_LARGE", "")) > 10_000
        return control(value, status=f"{code} Too Large" if large else "200 OK")

    site = Site(answer)
    assert site.ask(headers={"X-Large": "x" * 20_000}).detail == "NOT_STORED_STATUS"
    assert site.ask().code == 200
    assert site.ask().is_hit
    heuristic = Site(
        control(value, ("Last-Modified", "Wed, 15 Nov 1995 00:00:00 GMT"), status=f"{code} Too Large")
    )
    assert not heuristic.ask().stored


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_cpd_04_an_error_that_says_it_may_be_stored(code):
    answer = control("max-age=60", status=f"{code} Error")
    assert Site(answer).ask().detail == "NOT_STORED_STATUS"
    opted = Site(answer, rules=[Rule("/*", ttl=600, statuses=[200, code])], max_error_ttl=5)
    assert opted.fill().cache["ttl"] == "5"
    opted.clock.tick(5)
    assert not opted.ask().is_hit


@pytest.mark.parametrize("status", ["204 No Content", "200 OK"])
@pytest.mark.parametrize("value", ["max-age=60", "s-maxage=60, public"])
def test_cpd_06_an_empty_answer_does_not_replace_a_page(status, value):
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(20)
    site.app.answers(control(value, status=status, body=b""))
    assert not site.ask(headers={"X-Middleware-Prefetch": "1"}).is_hit
    assert site.count(Reason.NOT_STORED_EMPTY) == 1
    site.app.answers(control("max-age=10", ("ETag", '"a"')))
    assert site.ask().body == b"page"


def test_cpd_06_a_204_needs_a_lifetime_of_its_own():
    assert Site(page(status="204 No Content", body=b"")).ask().detail == "NOT_STORED_NO_LIFETIME"
    stated = Site(control("max-age=60", status="204 No Content", body=b""))
    stated.fill()
    assert stated.ask().code == 204


def test_cpd_06_a_page_that_was_purged_is_no_good_one_any_more():
    site = Site(control("max-age=60"))
    site.fill()
    site.cache.purge("/")
    site.app.answers(control("max-age=60", body=b""))
    site.ask()
    assert site.ask().is_hit


@pytest.mark.parametrize(
    "broken", [page(status="500 Oops"), control("max-age=600", status="503 Busy")], ids=["500", "503"]
)
@pytest.mark.parametrize(
    "rules", [[], [Rule("/*", statuses="200,500,503", ttl=600)]], ids=["no rule", "opted in"]
)
def test_cpd_12_an_error_does_not_replace_a_stale_page_inside_its_window(broken, rules):
    site = Site(control("max-age=10, stale-if-error=60"), rules=rules)
    site.fill()
    site.clock.tick(20)
    site.app.answers(broken)
    for _ in range(3):
        reply = site.ask()
        assert (reply.code, reply.body, reply.cache["fwd"]) == (200, b"page", "stale")
    site.clock.tick(50)
    assert site.ask().code >= 500, "only inside its window"


def test_cpd_12_the_stale_page_is_kept_for_when_the_app_is_back():
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(status="500 Oops"))
    assert site.ask().code == 500
    site.app.answers(control("max-age=10", ("ETag", '"a"'), status="304 Not Modified", body=b""))
    reply = site.ask()
    assert (reply.code, reply.body) == (200, b"page")
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    assert site.cache.engine.observer.reasons[Reason.FRESHENED].value == 1
