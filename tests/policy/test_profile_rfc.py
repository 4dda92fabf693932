"""The rfc profile switches off exactly what is a house rule, and nothing that RFC 9111 asks for or that keeps
pages of different requests apart."""

import pytest
from sites import HTML, Site, control, page

from wsgicache import Reason, Rule
from wsgicache.fields import http_date
from wsgicache.profile import PROFILES, RFC, SAFE, Profile
from wsgicache.testing import FailingStore

FRESH = ("Cache-Control", "max-age=60")
MODIFIED = ("Last-Modified", http_date(1_700_000_000 - 100_000))
FORM = b'<input name="csrf_token" value="a">'


def asked(answer, request, options=None):
    """What a second, equal request is told under each profile, and what the app saw first."""
    outcomes = {}
    for name in PROFILES:
        site = Site(answer, profile=name, **(options or {}))
        site.ask(**request)
        outcomes[name] = site.ask(**request).is_hit
    return outcomes


# --- what rfc switches off: a house rule each -------------------------------------------------------

OFF = {
    "2: only some statuses (400)": (page(FRESH, status="400 Bad Request"), {}),
    "2: only some statuses (500)": (page(FRESH, status="500 Oops"), {}),
    "2: only some statuses (599)": (page(FRESH, status="599 Own"), {}),
    "2: no heuristics beside ttl": (page(MODIFIED, status="404 Not Found"), {}),
    "3: a query bypasses": (page(FRESH), {"url": "/?a=1"}),
    "6: a cookie bypasses": (page(FRESH), {"headers": {"Cookie": "session=a"}}),
    "6: a lookup-only cookie's miss is not stored": (page(FRESH), {"headers": {"Cookie": "csrftoken=a"}}),
    "7: Set-Cookie": (page(FRESH, ("Set-Cookie", "a=1")), {}),
    "8: Vary: Cookie with cookies": (page(FRESH, ("Vary", "Cookie")), {"headers": {"Cookie": "session=a"}}),
    "8: Vary: Authorization": (page(FRESH, ("Vary", "Authorization")), {}),
    "10: X-Original-URL": (page(FRESH), {"headers": {"X-Original-URL": "/x"}}),
    "10: X-Rewrite-URL": (page(FRESH), {"headers": {"X-Rewrite-URL": "/x"}}),
    "10: X-HTTP-Method-Override": (page(FRESH), {"headers": {"X-HTTP-Method-Override": "PUT"}}),
    "19: a CSRF field": (page(FRESH, HTML, body=FORM), {}),
    "19: a CSP nonce": (page(FRESH, ("Content-Security-Policy", "script-src 'nonce-a'")), {}),
}


@pytest.mark.parametrize(("answer", "request_"), OFF.values(), ids=OFF)
def test_rfc_switches_a_house_rule_off(answer, request_):
    assert asked(answer, request_) == {"safe": False, "rfc": True}


def test_rfc_gives_no_lifetime_of_its_own():
    """House rule 2's ttl: RFC 9111 §4.2.2 allows a heuristic only where there is something to guess from."""
    assert asked(page(), {}) == {"safe": True, "rfc": False}
    assert asked(page(), {}, {"ttl": 60}) == {"safe": True, "rfc": True}


def test_rfc_guesses_from_last_modified():
    site = Site(page(MODIFIED), profile="rfc")
    assert site.fill().cache["ttl"] == "10000"


def test_rfc_stores_no_cache_and_validates_it():
    """House rule 9 says "not stored" where the RFC says "not used without validation"."""
    site = Site(control("no-cache", ("ETag", '"a"')), profile="rfc")
    site.fill()
    site.app.answers(page(("ETag", '"a"'), status="304 Not Modified", body=b""))
    reply = site.ask()
    assert (reply.cache["fwd"], reply.detail, reply.body) == ("stale", "STALE_NO_CACHE", b"page")
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'


def test_rfc_keeps_errors_as_long_as_they_say():
    site = Site(control("max-age=500", status="503 Busy"), profile="rfc")
    assert site.fill().cache["ttl"] == "500"


def test_rfc_shows_the_app_what_the_client_sent_and_keys_it():
    site = Site(page(FRESH, ("Vary", "Accept-Encoding, Cookie")), profile="rfc")
    headers = {"Accept-Encoding": "gzip;q=0.5, br", "Cookie": "_ga=1; session=a", "Accept-Language": "de"}
    site.fill(headers=headers)
    seen = {name: site.last[f"HTTP_{name.upper().replace('-', '_')}"] for name in headers}
    assert seen == headers
    for other in ("br,gzip", ""):
        assert not site.ask(headers={**headers, "Accept-Encoding": other}).is_hit
    assert not site.ask(headers={**headers, "Cookie": "session=a"}).is_hit
    assert not site.ask(headers={**headers, "Cookie": "_ga=2; session=a"}).is_hit
    assert site.ask(headers=headers).is_hit


def test_rfc_takes_no_field_away():
    """The drop list is the house's; RFC 9111 §3.1 asks to store every field that is not hop by hop."""
    fields = [
        ("X-Request-Id", "1"),
        ("Server-Timing", "a;dur=1"),
        ("X-User", "u"),
        ("Set-Login", "logged-in"),
    ]
    kept = {}
    for name in PROFILES:
        site = Site(page(FRESH, *fields), profile=name)
        site.fill()
        reply = site.ask()
        kept[name] = [field for field, _ in fields if reply.field(field)]
    assert kept == {"safe": [], "rfc": [field for field, _ in fields]}


@pytest.mark.parametrize("value", ["no-cache", "no-store", "max-age=0", "min-fresh=100"])
def test_rfc_obeys_the_request_where_safe_does_not(value):
    told = {}
    for name in PROFILES:
        site = Site(page(FRESH), profile=name)
        site.fill()
        site.clock.tick(1)
        site.ask()
        told[name] = site.ask(headers={"Cache-Control": value}).is_hit
    assert told == {"safe": True, "rfc": value == "no-store"}


def test_rfc_lets_an_empty_answer_replace_a_page():
    for name, replaced in (("safe", False), ("rfc", True)):
        site = Site(control("max-age=10", ("ETag", '"a"')), profile=name)
        site.fill()
        site.clock.tick(20)
        site.app.answers(control("max-age=60", body=b""))
        site.ask()
        assert site.ask().is_hit is replaced


# --- what no profile switches off -------------------------------------------------------------------

STAYS = {
    "4: a body": (page(FRESH), {"body": b"a=1"}, "BYPASS_BODY"),
    "4: the ignore flag": (page(FRESH), {"wsgicache.ignore": True}, "BYPASS_IGNORED"),
    "5: Authorization": (page(FRESH), {"headers": {"Authorization": "x"}}, "BYPASS_AUTHORIZATION"),
    "5: REMOTE_USER": (page(FRESH), {"REMOTE_USER": "ann"}, "BYPASS_AUTHORIZATION"),
    "8: Vary: *": (page(FRESH, ("Vary", "Accept, *")), {}, "NOT_STORED_VARY"),
    "9: private": (control("private, max-age=60"), {}, "NOT_STORED_PRIVATE"),
    "9: no-store": (control("max-age=60, NO-STORE"), {}, "NOT_STORED_NO_STORE"),
    "9: contradictory lifetimes": (control("max-age=60, max-age=61"), {}, "NOT_STORED_STALE"),
    "10: an invalid Host": (page(FRESH), {"headers": {"Host": "a,b"}}, "BYPASS_HOST"),
    "10: dot segments": (page(FRESH), {"PATH_INFO": "/a/../b"}, "BYPASS_PATH"),
    "11: control bytes": (page(FRESH), {"PATH_INFO": "/a\n"}, "BYPASS_PATH"),
    "12: a part": (page(FRESH, status="206 Partial Content"), {}, "NOT_STORED_STATUS"),
    "12: broken lengths": (page(FRESH, ("Content-Length", "4, 5")), {}, "NOT_STORED_FIELDS"),
    "16: a long URL": (page(FRESH), {"url": "/" + "x" * 5000}, "BYPASS_KEY"),
    "16: a stream": (page(FRESH, ("Content-Type", "text/event-stream")), {}, "NOT_STORED_STREAM"),
    "16: many groups": (page(FRESH, ("Cache-Tag", ",".join(map(str, range(70))))), {}, "NOT_STORED_GROUPS"),
    "16: a large body": (page(FRESH, ("Content-Length", str(2 << 20)), body=b""), {}, "NOT_STORED_TOO_LARGE"),
    "the RFC: preconditions": (page(FRESH), {"headers": {"If-Match": "*"}}, "BYPASS_PRECONDITION"),
    "the RFC: methods": (page(FRESH), {"method": "POST"}, "METHOD_UNSAFE"),
    "the RFC: ranges": (page(FRESH), {"headers": {"Range": "bytes=0-1"}}, "NOT_STORED_RANGE"),
    "the RFC: 304 without a question": (page(FRESH, status="304 X", body=b""), {}, "NOT_STORED_STATUS"),
    "a rule": (page(FRESH), {"url": "/admin/x"}, "BYPASS_RULE"),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(("answer", "request_", "detail"), STAYS.values(), ids=STAYS)
def test_no_profile_switches_it_off(profile, answer, request_, detail):
    site = Site(answer, profile=profile, rules=[Rule("/admin/*", bypass=True)])
    for _ in range(2):
        assert site.ask(**request_).detail == detail


@pytest.mark.parametrize("profile", PROFILES)
def test_rule_1_a_private_stylesheet_stays_private(profile):
    assert not Site(control("private"), profile=profile).ask("/static/a.css").stored


@pytest.mark.parametrize("profile", PROFILES)
def test_rule_10_what_is_forwarded_stays_in_the_key(profile):
    site = Site(page(FRESH), profile=profile)
    site.fill()
    assert not site.ask(headers={"X-Forwarded-Host": "evil"}).is_hit
    assert not site.ask("https://example.com/").is_hit


@pytest.mark.parametrize("profile", PROFILES)
def test_rule_14_a_store_that_fails_stays_a_miss(profile):
    store = FailingStore()
    site = Site(page(FRESH), store=store, profile=profile)
    store.failing.add("*")
    assert (site.ask().code, site.count(Reason.STORE_DOWN)) == (200, 1)


@pytest.mark.parametrize("profile", PROFILES)
def test_rule_17_nobody_sees_a_key_without_the_secret(profile):
    site = Site(page(FRESH), profile=profile, secret="open")
    assert "key" not in site.ask().cache
    assert "key" not in site.ask(headers={"Wsgicache-Secret": "x"}).cache
    assert "key" in site.ask(headers={"Wsgicache-Secret": "open"}).cache


# --- rules under rfc --------------------------------------------------------------------------------


def test_a_rule_may_bring_a_house_rule_back():
    rules = [Rule("/a", query="bypass"), Rule("/b", cookies="ignore")]
    site = Site(page(FRESH), profile="rfc", rules=rules)
    assert site.ask("/a?x=1").detail == "BYPASS_QUERY"
    site.fill("/b", headers={"Cookie": "session=a"})
    assert "HTTP_COOKIE" not in site.last


def test_override_does_not_make_a_fresh_page_of_a_no_cache_one_that_its_ttl_does_not_cover():
    site = Site(
        control("no-cache, max-age=60", ("ETag", '"a"'), status="500 Oops"),
        profile="rfc",
        rules=[Rule("/*", ttl=60, override=True)],
    )
    site.ask()
    assert not site.ask().is_hit


# --- the table of switches --------------------------------------------------------------------------


def test_every_switch_differs_between_the_two_profiles():
    for name in Profile._fields:
        assert getattr(SAFE, name) != getattr(RFC, name), f"{name} is no switch between them"
