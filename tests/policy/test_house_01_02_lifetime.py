"""House rules 1 and 2: the response decides, never the URL's shape; what gets a lifetime, and which."""

import pytest
from sites import Site, control, page

from wsgicache import Reason, Rule
from wsgicache.fields import http_date

START = 1_700_000_000.0
SHAPES = (
    "/app.css",
    "/a/b.js",
    "/logo.png",
    "/static/x",
    "/assets/app.min.js",
    "/favicon.ico",
    "/feed.xml",
    "/x.pdf",
)
NEVER = (400, 413, 414, 431, 500, 501, 502, 503, 504, 507, 599)


def life(site, url="/", **request):
    """How many seconds a page is served from the store after it was stored."""
    low, high, begin = 0, 10_000_000, site.clock.now
    while high - low > 1:
        middle = (low + high) // 2
        site.clock.now = begin + middle
        if site.cache.explain(f"http://example.com{url}", **request).hit:
            low = middle
        else:
            high = middle
    site.clock.now = begin
    return high


# --- 1: the response decides, never the URL's shape --------------------------------------------------


@pytest.mark.parametrize("url", SHAPES)
@pytest.mark.parametrize(
    "answer",
    [
        control("private"),
        control("no-store"),
        control("max-age=0"),
        page(("Set-Cookie", "session=a")),
        page(status="404 Not Found"),
        page(("Vary", "*")),
    ],
    ids=["private", "no-store", "stale", "sets a cookie", "404", "varies on everything"],
)
def test_no_url_looks_static_enough_to_be_stored(url, answer):
    site = Site(answer)
    for _ in range(2):
        reply = site.ask(url)
        assert (reply.is_hit, reply.stored) == (False, False)
    assert site.app.calls == 2


@pytest.mark.parametrize("url", SHAPES)
def test_no_url_looks_static_enough_for_a_visitors_cookie(url):
    site = Site(page(body=b"your account"))
    assert site.ask(url, headers={"Cookie": "session=a"}).detail == "BYPASS_COOKIE"
    assert site.ask(url).cache["fwd"] == "uri-miss"
    assert site.app.calls == 2


@pytest.mark.parametrize("url", [*SHAPES, "/", "/about", "/api/v1/users", "/a.b.c", "/x.php"])
def test_every_url_is_stored_where_the_response_allows_it(url):
    site = Site()
    site.fill(url)
    assert site.ask(url).is_hit


def test_content_type_does_not_decide_either():
    for kind in ("text/html", "application/json", "image/png", "text/css", "application/octet-stream"):
        site = Site(page(("Content-Type", kind)))
        site.fill()
        assert site.ask().is_hit, kind


# --- 2: what the cache's ttl applies to --------------------------------------------------------------


def test_a_200_that_states_nothing_lives_for_300_seconds():
    site = Site()
    assert site.fill().cache["ttl"] == "300"
    site.clock.tick(299)
    assert site.ask().is_hit
    site.clock.tick(1)
    reply = site.ask()
    assert reply.cache["fwd"] in ("stale", "uri-miss")
    assert site.app.calls == 2


@pytest.mark.parametrize("given", [600, "600", "10m"])
def test_ttl_is_the_lifetime_of_what_states_none(given):
    site = Site(ttl=given)
    site.fill()
    assert life(site) == 600


def test_ttl_zero_stores_only_what_states_a_lifetime():
    site = Site(ttl=0)
    assert site.ask().detail == "NOT_STORED_NO_LIFETIME"
    site.app.answers(control("max-age=60"))
    site.fill()


def test_ttl_never_alters_the_fields_that_the_client_sees():
    site = Site()
    plain = {name.lower() for name, _ in page().headers}
    ours = {"cache-status", "age", "etag", "content-length"}
    for reply in (site.fill(), site.ask(), site.ask()):
        assert {name.lower() for name, _ in reply.headers} <= plain | ours


EXPLICIT = [
    ([("Cache-Control", "max-age=10")], 10),
    ([("Cache-Control", "s-maxage=20")], 20),
    ([("Cache-Control", "max-age=10, s-maxage=20")], 20),
    ([("Cache-Control", "S-MaxAge=20 , MAX-AGE=10")], 20),
    ([("Cache-Control", "max-age=10"), ("Cache-Control", "public")], 10),
    ([("Cache-Control", "max-age=10"), ("Expires", http_date(START + 500))], 10),
    ([("Expires", http_date(START + 40))], 40),
    ([("Expires", http_date(START + 40)), ("Date", http_date(START))], 40),
    ([("Wsgicache-Cache-Control", "max-age=30"), ("Cache-Control", "max-age=10")], 30),
    ([("CDN-Cache-Control", "max-age=30"), ("Cache-Control", "no-store")], 30),
    ([("Wsgicache-Cache-Control", "max-age=30"), ("CDN-Cache-Control", "max-age=99")], 30),
    ([("Cache-Control", "max-age=1000, stale-if-error=5")], 1000),
    ([("Cache-Control", "max-age=40"), ("Age", "30")], 10),
]


@pytest.mark.parametrize(("headers", "seconds"), EXPLICIT, ids=lambda value: repr(value)[:60])
def test_explicit_freshness_wins_over_ttl(headers, seconds):
    site = Site(page(*headers))
    site.fill()
    assert life(site) == seconds


@pytest.mark.parametrize(("headers", "seconds"), EXPLICIT[:8], ids=lambda value: repr(value)[:60])
def test_explicit_freshness_wins_over_the_ttl_of_a_rule(headers, seconds):
    site = Site(page(*headers), rules=[Rule("/*", ttl=7777)])
    site.fill()
    assert life(site) == seconds


@pytest.mark.parametrize(
    "headers",
    [
        [("Cache-Control", "public")],
        [("Cache-Control", "immutable")],
        [("Cache-Control", "must-revalidate")],
        [("Cache-Control", "x-unknown=5, no-transform")],
        [("Cache-Control", "")],
        [("Last-Modified", http_date(START - 86400))],
        [("ETag", '"a"')],
        [("CDN-Cache-Control", "???")],
    ],
    ids=repr,
)
def test_what_states_no_lifetime_gets_the_ttl(headers):
    site = Site(page(*headers))
    site.fill()
    assert life(site) == 300


@pytest.mark.parametrize(
    "headers",
    [
        [("Cache-Control", "max-age=0")],
        [("Cache-Control", "s-maxage=0, max-age=60")],
        [("Cache-Control", "max-age=sixty")],
        [("Cache-Control", "max-age=60, max-age=61")],
        [("Cache-Control", "max-age=-1")],
        [("Expires", "0")],
        [("Expires", "-1")],
        [("Expires", "never")],
        [("Expires", http_date(START))],
        [("Expires", http_date(START - 5))],
        [("Cache-Control", "max-age=10"), ("Age", "10")],
        [("CDN-Cache-Control", "max-age=0"), ("Cache-Control", "max-age=60")],
    ],
    ids=repr,
)
def test_what_is_stale_on_arrival_is_not_stored_and_gets_no_ttl(headers):
    site = Site(page(*headers))
    reply = site.ask()
    assert reply.detail == "NOT_STORED_STALE"
    assert not site.ask().is_hit


@pytest.mark.parametrize(
    "value", ["no-cache", "No-Cache", "no-cache, max-age=60", "public, no-cache", "no-cache=x"]
)
def test_no_cache_gets_no_ttl(value):
    site = Site(control(value))
    assert site.ask().detail == "NOT_STORED_NO_CACHE"
    assert not site.ask().is_hit


# --- 2: statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [203, 204, 300, 301, 302, 303, 307, 308, 404, 410])
def test_ttl_is_for_a_200_and_other_statuses_need_a_lifetime_of_their_own(code):
    body = b"" if code == 204 else b"page"
    site = Site(page(status=f"{code} Status", body=body))
    assert site.ask().detail == "NOT_STORED_NO_LIFETIME"
    site.app.answers(control("max-age=60", status=f"{code} Status", body=body))
    site.fill()
    assert site.ask().code == code
    assert life(site) == 60


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308, 404, 410])
def test_the_ttl_of_a_rule_covers_redirects_and_negatives_too(code):
    site = Site(page(status=f"{code} Status"), rules=[Rule("/*", ttl=50)])
    site.fill()
    assert life(site) == 50


@pytest.mark.parametrize("code", [201, 202, 204, 205, 206, 300, 304, 401, 403, 405, 418, 429, *NEVER])
def test_the_ttl_of_a_rule_covers_nothing_else(code):
    site = Site(page(status=f"{code} Status", body=b""), rules=[Rule("/*", ttl=50, override=True)])
    reply = site.ask()
    assert not reply.stored
    assert reply.detail in ("NOT_STORED_STATUS", "NOT_STORED_NO_LIFETIME")


@pytest.mark.parametrize("code", NEVER)
@pytest.mark.parametrize("value", ["max-age=60", "public, s-maxage=60, immutable"])
def test_errors_are_never_stored_in_safe_whatever_they_say_of_themselves(code, value):
    site = Site(control(value, ("ETag", '"a"'), status=f"{code} Error"))
    assert site.ask().detail == "NOT_STORED_STATUS"
    assert not site.ask().is_hit


@pytest.mark.parametrize("code", [200, 206, 304, 404, 503])
def test_a_statement_in_a_hint_is_bound_by_the_same_statuses(code):
    def answer(environ):
        environ["wsgicache.hints"].lifetime = 44
        return page(status=f"{code} Status", body=b"" if code == 304 else b"page")

    site = Site(answer)
    reply = site.ask()
    assert reply.stored == (code in (200, 404))
    if reply.stored:
        assert life(site) == 44


def test_a_rule_may_opt_in_to_an_error_but_not_for_long():
    site = Site(control("max-age=9999", status="503 Busy"), rules=[Rule("/*", ttl=500, statuses="200,503")])
    site.fill()
    assert life(site) == 10
    shorter = Site(page(status="503 Busy"), max_error_ttl=3, rules=[Rule("/*", ttl=500, statuses="503")])
    shorter.fill()
    assert life(shorter) == 3


def test_negatives_have_a_small_quota_of_their_own():
    def answer(environ):
        known = environ["PATH_INFO"] in ("/", "/about")
        return control("max-age=600", status="200 OK" if known else "404 Not Found", body=b"x" * 500)

    site = Site(answer, store="memory://?max_bytes=200kB")
    for url in ("/", "/about"):
        site.fill(url)
    for number in range(1000):
        site.ask(f"/missing/{number}")
    assert site.ask("/").is_hit
    assert site.ask("/about").is_hit
    stats = site.cache.store.stats()
    assert 0 < stats["negative_bytes"] <= 200_000 // 20
    assert stats["bytes"] <= 200_000


def test_a_crawler_pushes_out_no_page_that_visitors_read():
    """Nobody but the crawler comes for a while, and the pages expire in between."""
    site = Site(control("max-age=600", body=b"x" * 500), store="memory://?max_bytes=200kB")
    pages = [f"/article/{number}" for number in range(60)]
    for turn in range(2):
        for url in pages:
            site.fill(url)
            assert site.ask(url).is_hit
        for number in range(1000):
            site.ask(f"/archive/{turn}/{number}")
        assert all(site.ask(url).is_hit for url in pages)
        site.clock.tick(700)
    assert site.cache.store.stats()["bytes"] <= 200_000


# --- 2: override ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Cache-Control", "max-age=10")],
        [("Cache-Control", "max-age=100000")],
        [("Cache-Control", "s-maxage=0")],
        [("Cache-Control", "max-age=junk")],
        [("Cache-Control", "no-cache")],
        [("Cache-Control", "no-cache, max-age=0, must-revalidate")],
        [("Expires", "0")],
        [("Pragma", "no-cache"), ("Cache-Control", "no-cache")],
        [("CDN-Cache-Control", "max-age=10")],
    ],
    ids=repr,
)
def test_override_beats_freshness_and_no_cache(headers):
    site = Site(page(*headers), rules=[Rule("/*", ttl=86400, override=True)])
    site.fill()
    assert life(site) == 86400


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([("Cache-Control", "private")], "NOT_STORED_PRIVATE"),
        ([("Cache-Control", "max-age=60 , PRIVATE")], "NOT_STORED_PRIVATE"),
        ([("Cache-Control", "no-cache, private")], "NOT_STORED_PRIVATE"),
        ([("Cache-Control", "no-store")], "NOT_STORED_NO_STORE"),
        ([("Cache-Control", "no-cache"), ("Cache-Control", "NO-STORE")], "NOT_STORED_NO_STORE"),
        ([("CDN-Cache-Control", "no-store")], "NOT_STORED_NO_STORE"),
        ([("Set-Cookie", "session=a")], "NOT_STORED_SET_COOKIE"),
        ([("Vary", "*")], "NOT_STORED_VARY"),
    ],
    ids=repr,
)
def test_override_never_beats_private_or_no_store_nor_any_other_rule(headers, reason):
    site = Site(page(*headers), rules=[Rule("/*", ttl=86400, override=True)])
    assert site.ask().detail == reason
    assert not site.ask().is_hit


def test_override_does_not_reach_a_status_that_its_ttl_does_not_cover():
    rule = Rule("/*", ttl=500, override=True, statuses="404")
    site = Site(control("max-age=9"), rules=[rule])
    site.fill("/")
    assert life(site, "/") == 9
    site.app.answers(control("max-age=9", status="404 Not Found"))
    site.fill("/missing")
    assert life(site, "/missing") == 500


def test_what_is_stored_under_an_override_is_served_by_the_hit_path_too():
    site = Site(control("no-cache"), rules=[Rule("/*", ttl=60, override=True)])
    site.fill()
    for _ in range(3):
        assert site.ask().is_hit
    assert site.count(Reason.HIT) == 3
