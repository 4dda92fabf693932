"""Directives of a request: RFC 9111 §5.2.1 and §5.4."""

import pytest
from rfc_helpers import Site

TAG = 'ETag: "a"'


def aged(seconds, *lines, **options):
    """A site whose page of 60 seconds has been stored for some."""
    site = Site("Cache-Control: max-age=60", *(lines or [TAG]), **options)
    site.stored()
    site.tick(seconds)
    return site


def with_control(site, control):
    return site.get(headers={"Cache-Control": control})


# --- max-age, min-fresh, no-cache: what is fresh is not fresh enough -------------------------------


@pytest.mark.parametrize(
    "control",
    [
        "max-age=9",
        "max-age=0",
        "Max-Age=9",
        'max-age="9"',
        "max-age=junk",
        "max-age",
        "max-age=-1",
        "min-fresh=51",
        "min-fresh=600",
        "min-fresh=99999999999999999999",
        "no-cache",
        "No-Cache",
        "no-cache, max-age=60",
        "foo, no-cache",
        "max-age=60, min-fresh=51",
    ],
)
def test_a_request_may_refuse_what_is_fresh(control):
    """RFC 9111 §5.2.1.1, §5.2.1.3, §5.2.1.4: the app is asked, with the entry's validator."""
    site = aged(10)
    reply = with_control(site, control)
    assert (reply.cache["fwd"], reply.detail) == ("request", "REQUEST_DIRECTIVE")
    assert (reply.stored, reply.cache["ttl"]) == (True, "60")
    assert (site.calls, site.last["HTTP_IF_NONE_MATCH"]) == (2, '"a"')
    assert site.last["HTTP_CACHE_CONTROL"] == control
    assert site.get().cache == {"hit": "", "ttl": "60"}


@pytest.mark.parametrize(
    "control",
    [
        "max-age=10",
        "max-age=600",
        "min-fresh=50",
        "min-fresh=0",
        "max-age=10, min-fresh=50",
        "no-transform",
        "foo",
        "",
    ],
)
def test_a_request_that_is_content_gets_the_hit(control):
    """RFC 9111 §5.2.1: limits are inclusive, unknown directives mean nothing."""
    site = aged(10)
    assert (with_control(site, control).cache, site.calls) == ({"hit": "", "ttl": "50"}, 1)


def test_no_cache_is_satisfied_by_a_validation():
    """RFC 9111 §5.2.1.4: not without successful validation."""
    site = aged(10)
    site.answers(TAG, status="304 Not Modified", body=b"")
    reply = with_control(site, "no-cache")
    assert (reply.cache["fwd"], reply.cache["fwd-status"]) == ("request", "304")
    assert (reply.code, reply.body, site.calls) == (200, b"page", 2)


@pytest.mark.parametrize("control", ["no-cache", "max-age=5", "min-fresh=1"])
def test_a_request_may_refuse_a_stale_answer_inside_its_window(control):
    """RFC 9111 §5.2.1 with RFC 5861 §3: a window permits, it does not oblige."""
    site = Site("Cache-Control: max-age=60, stale-while-revalidate=600", TAG)
    site.stored()
    site.tick(70)
    reply = with_control(site, control)
    assert (reply.cache["fwd"], site.calls) == ("stale", 2)


# --- max-stale -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control", ["max-stale", "max-stale=10", "max-stale=600", "MAX-STALE", "max-stale, max-age=70"]
)
def test_max_stale_accepts_a_stale_answer(control):
    """RFC 9111 §5.2.1.2: up to so many seconds past its lifetime, or any number."""
    site = aged(70, "X-No-Validator: 1")
    reply = with_control(site, control)
    assert (reply.cache, reply.body) == ({"hit": "", "ttl": "-10", "detail": "HIT_MAX_STALE"}, b"page")
    assert (reply.field("Age"), site.calls) == ("70", 1)


@pytest.mark.parametrize(
    "control",
    [
        "max-stale=9",
        "max-stale=0",
        "max-stale=junk",
        "max-stale, no-cache",
        "max-stale, max-age=60",
        "max-age=600",
    ],
)
def test_max_stale_has_its_limits(control):
    """RFC 9111 §5.2.1.2."""
    site = aged(70)
    reply = with_control(site, control)
    assert (reply.cache["fwd"], site.calls) == ("stale", 2)


# --- only-if-cached, no-store ----------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_only_if_cached_never_reaches_the_app(method):
    """RFC 9111 §5.2.1.7: 504 where nothing stored may answer."""
    site = Site("Cache-Control: max-age=60")
    reply = site.ask(method, headers={"Cache-Control": "only-if-cached"})
    assert (reply.code, reply.detail, site.calls) == (504, "ONLY_IF_CACHED", 0)
    assert reply.cache == {"fwd": "request", "detail": "ONLY_IF_CACHED"}
    assert bool(reply.body) is (method == "GET")
    site.stored()
    hit = site.ask(method, headers={"Cache-Control": "only-if-cached"})
    assert (hit.is_hit, hit.code, site.calls) == (True, 200, 1)


@pytest.mark.parametrize(
    "control", ["only-if-cached", "only-if-cached, no-cache", "only-if-cached, max-age=600"]
)
def test_only_if_cached_wants_no_stale_answer(control):
    """RFC 9111 §5.2.1.7: a stored response that meets the request's other constraints."""
    site = aged(70)
    assert (with_control(site, control).code, site.calls) == (504, 1)
    stale = with_control(site, "only-if-cached, max-stale")
    assert (stale.code, stale.detail, site.calls) == (200, "HIT_MAX_STALE", 1)


def test_no_store_in_a_request_keeps_its_answer_out():
    """RFC 9111 §5.2.1.5."""
    site = Site("Cache-Control: max-age=60")
    reply = with_control(site, "no-store")
    assert (reply.stored, reply.detail) == (False, "NOT_STORED_REQUEST")
    assert (site.get().cache["fwd"], site.calls) == ("uri-miss", 2)


def test_no_store_in_a_request_does_not_refuse_what_is_stored():
    """RFC 9111 §5.2.1.5 speaks of storing; what is there already may answer."""
    site = aged(10)
    assert (with_control(site, "no-store").is_hit, site.calls) == (True, 1)


# --- Pragma ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("pragma", ["no-cache", "No-Cache", "foo, no-cache"])
def test_pragma_no_cache_counts_as_cache_control_no_cache(pragma):
    """RFC 9111 §5.4: as HTTP/1.0 clients say it."""
    site = aged(10)
    reply = site.get(headers={"Pragma": pragma})
    assert (reply.cache["fwd"], reply.detail, site.calls) == ("request", "REQUEST_DIRECTIVE", 2)


@pytest.mark.parametrize(
    "headers",
    [{"Pragma": "foo"}, {"Pragma": "no-cache", "Cache-Control": "max-age=60"}, {"Pragma": "no-store"}],
)
def test_pragma_means_nothing_else_and_nothing_beside_cache_control(headers):
    """RFC 9111 §5.4: Cache-Control takes its place."""
    site = aged(10)
    assert (site.get(headers=headers).is_hit, site.calls) == (True, 1)


# --- the safe profile ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache-Control": "no-cache"},
        {"Cache-Control": "max-age=0"},
        {"Cache-Control": "no-store"},
        {"Pragma": "no-cache"},
    ],
)
def test_in_the_safe_profile_nobody_can_force_a_miss(headers):
    """RFC 9111 §5.2.1 lets a cache ignore a request's wishes; in safe we do, against floods."""
    site = aged(10, profile="safe")
    assert (site.get(headers=headers).is_hit, site.calls) == (True, 1)


def test_in_the_safe_profile_only_if_cached_and_max_stale_are_ignored_too():
    """As above: the request's directives play no part."""
    site = Site("Cache-Control: max-age=60", TAG, profile="safe")
    assert with_control(site, "only-if-cached").stored
    site.tick(70)
    assert (with_control(site, "max-stale").cache["fwd"], site.calls) == ("stale", 2)
