"""Reuse directives of a response: RFC 9111 §4.2.4, §5.2.2.2, §5.2.2.4, §5.2.2.8, §5.2.2.10; RFC 8246."""

import pytest
from rfc_helpers import Site, assert_lifetime, assert_not_stored

TAG = 'ETag: "a"'
WINDOWS = "stale-while-revalidate=600, stale-if-error=600"


# --- no-cache --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control", ["no-cache", "max-age=60, no-cache", "NO-CACHE, s-maxage=60", "public, no-cache"]
)
def test_no_cache_is_stored_and_validated_before_each_use(control):
    """RFC 9111 §5.2.2.4."""
    site = Site(f"Cache-Control: {control}", TAG)
    first = site.stored()
    site.answers(f"Cache-Control: {control}", TAG, status="304 Not Modified", body=b"")
    for calls in (2, 3):
        reply = site.get()
        assert (reply.cache["fwd"], reply.cache["fwd-status"], reply.detail) == (
            "stale",
            "304",
            "STALE_NO_CACHE",
        )
        assert (site.calls, site.last["HTTP_IF_NONE_MATCH"]) == (calls, '"a"')
        assert (reply.code, reply.body) == (200, first.body)


def test_no_cache_without_a_validator_is_of_no_use():
    """RFC 9111 §5.2.2.4: there is nothing to validate it by."""
    site = Site("Cache-Control: no-cache")
    assert_not_stored(site, "NOT_STORED_NO_LIFETIME")


@pytest.mark.parametrize("error", [None, OSError("down")])
def test_no_cache_is_never_answered_stale(error):
    """RFC 9111 §4.2.4: no-cache forbids stale answers, whatever windows the response gives."""
    site = Site(f"Cache-Control: no-cache, max-age=1, {WINDOWS}", TAG)
    site.stored()
    site.answers(status="503 Service Unavailable", body=b"down", error=error)
    if error is None:
        reply = site.get()
        assert (reply.code, reply.body, reply.cache["fwd"]) == (503, b"down", "stale")
    else:
        with pytest.raises(OSError, match="down"):
            site.get()
    assert site.calls == 2


def test_no_cache_is_not_stored_at_all_in_the_safe_profile():
    """House rule 9."""
    assert_not_stored(Site("Cache-Control: no-cache, max-age=60", TAG, profile="safe"), "NOT_STORED_NO_CACHE")


@pytest.mark.parametrize("control", ['no-cache="X-A"', 'no-cache="X-A, x-b"'])
def test_no_cache_with_field_names_concerns_these_fields_alone(control):
    """RFC 9111 §5.2.2.4: the response may be reused without them."""
    site = Site(f"Cache-Control: max-age=60, {control}", "X-A: 1", "X-C: 3")
    site.stored()
    hit = site.get()
    assert (hit.is_hit, hit.all("X-A"), hit.all("X-C"), site.calls) == (True, [], ["3"], 1)


@pytest.mark.parametrize(
    "control", ["no-cache=X-A", 'no-cache="X A"', 'no-cache=""', 'no-cache="X-A", no-cache']
)
def test_a_broken_or_doubled_list_means_the_whole_response(control):
    """RFC 9111 §5.2.2.4: many caches read the qualified form as the unqualified one; so do we in doubt."""
    site = Site(f"Cache-Control: max-age=60, {control}", TAG, "X-A: 1")
    site.stored()
    assert (site.get().detail, site.calls) == ("STALE_NO_CACHE", 2)


# --- must-revalidate, proxy-revalidate, s-maxage ---------------------------------------------------

STRICT = [
    "max-age=60, must-revalidate",
    "max-age=60, Proxy-Revalidate",
    "s-maxage=60",
    "max-age=60, must-revalidate=x",
]


@pytest.mark.parametrize("control", STRICT)
def test_they_do_not_shorten_the_lifetime(control):
    """RFC 9111 §5.2.2.2: fresh responses are reused as always."""
    assert_lifetime(Site(f"Cache-Control: {control}"), 60)


@pytest.mark.parametrize("control", STRICT)
def test_a_stale_answer_is_validated_first(control):
    """RFC 9111 §5.2.2.2, §5.2.2.8, §5.2.2.10: whatever windows the response or the cache gives."""
    site = Site(f"Cache-Control: {control}, {WINDOWS}", TAG, stale_while_revalidate=600, stale_if_error=600)
    site.stored()
    site.tick(61)
    site.answers(status="503 Service Unavailable", body=b"down")
    reply = site.get()
    assert (reply.cache["fwd"], reply.code, reply.body) == ("stale", 503, b"down")
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    site.answers(error=OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        site.get()
    assert site.calls == 3


@pytest.mark.parametrize("control", STRICT)
def test_max_stale_does_not_help(control):
    """RFC 9111 §4.2.4: the response's prohibition beats the request's wish."""
    site = Site(f"Cache-Control: {control}", TAG)
    site.stored()
    site.tick(61)
    reply = site.get(headers={"Cache-Control": "max-stale"})
    assert (reply.cache["fwd"], site.calls) == ("stale", 2)


def test_without_such_a_directive_nothing_stale_is_sent_by_itself_either():
    """RFC 9111 §4.2.4: a stale answer needs somebody's permission."""
    site = Site("Cache-Control: max-age=60", TAG)
    site.stored()
    site.tick(61)
    site.answers(status="503 Service Unavailable", body=b"down")
    reply = site.get()
    assert (reply.code, reply.cache["fwd"], site.calls) == (503, "stale", 2)


# --- others ----------------------------------------------------------------------------------------


def test_immutable_changes_nothing_for_a_shared_cache():
    """RFC 8246 §2: it speaks to clients that would revalidate a fresh response; it is passed on."""
    site = Site("Cache-Control: max-age=60, immutable", TAG)
    assert_lifetime(site, 60)
    hit = site.get()
    assert hit.field("Cache-Control") == "max-age=60, immutable"


def test_immutable_does_not_bar_a_request_that_wants_validation():
    """RFC 8246 §2.1 leaves the request's own directives alone in a shared cache."""
    site = Site("Cache-Control: max-age=60, immutable", TAG)
    site.stored()
    reply = site.get(headers={"Cache-Control": "no-cache"})
    assert (reply.cache["fwd"], site.calls) == ("request", 2)


def test_no_transform_is_no_matter_of_ours():
    """RFC 9111 §5.2.2.6: this cache transforms no content."""
    site = Site("Cache-Control: max-age=60, no-transform", "Content-Encoding: gzip", body=b"\x1f\x8bodd")
    site.stored()
    hit = site.get(headers={"Accept-Encoding": "identity"})
    assert (hit.is_hit, hit.body, hit.field("Content-Encoding")) == (True, b"\x1f\x8bodd", "gzip")
