"""Methods and statuses: RFC 9110 §9, §15; RFC 9111 §4, §4.3.5."""

import pytest
from rfc_helpers import DAY, Site, at

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'


# --- HEAD and GET ----------------------------------------------------------------------------------


def test_head_is_answered_from_the_stored_get():
    """RFC 9110 §9.3.2: the same fields, no body."""
    site = Site(FRESH, TAG, "X-Any: 1", body=b"0123456789")
    site.stored()
    site.tick(5)
    whole, head = site.get(), site.ask("HEAD")
    assert (head.status, head.headers, head.body) == (whole.status, whole.headers, b"")
    assert (head.field("Content-Length"), head.is_hit, site.calls) == ("10", True, 1)


def test_the_answer_to_head_is_not_stored_as_a_page():
    """RFC 9111 §3, KEY-09: the method is not GET, and there is no body."""
    site = Site(FRESH, TAG, "Content-Length: 4", body=b"")
    first = site.ask("HEAD")
    assert (first.cache["fwd"], first.stored, first.detail) == ("uri-miss", False, "NOT_STORED_METHOD")
    assert site.last["REQUEST_METHOD"] == "HEAD"
    site.answers(FRESH, body=b"page")
    assert (site.get().body, site.get().body, site.calls) == (b"page", b"page", 2)


def test_an_error_for_head_does_not_replace_the_page():
    """KEY-09."""
    site = Site(FRESH, TAG)
    site.stored()
    site.tick(60)
    site.answers(FRESH, status="500 So", body=b"")
    assert site.ask("HEAD").code == 500
    site.answers(TAG, status="304 Not Modified", body=b"")
    assert (site.get().body, site.calls) == (b"page", 3)


MODIFIED = f"Last-Modified: {at(-DAY)}"


@pytest.mark.parametrize(
    ("stored", "answered"),
    [
        ([TAG], [TAG]),
        ([TAG], [TAG, "Content-Length: 4"]),
        ([MODIFIED], [MODIFIED]),
        ([TAG, MODIFIED], [MODIFIED]),
        (['ETag: W/"a"'], ['ETag: W/"a"']),
        ([TAG, f"Date: {at(0)}"], [TAG]),
    ],
)
def test_the_answer_to_head_freshens_the_page_that_it_describes(stored, answered):
    """RFC 9111 §4.3.5: where validators and Content-Length agree, the stored response is updated."""
    site = Site(FRESH, "X-A: 1", *stored)
    site.stored()
    site.tick(60)
    site.answers("Cache-Control: max-age=100", "X-A: 2", *answered, body=b"")
    head = site.ask("HEAD")
    assert (head.cache["fwd"], head.code, head.body) == ("stale", 200, b"")
    hit = site.get()
    assert (hit.cache, hit.body, site.calls) == ({"hit": "", "ttl": "100"}, b"page", 2)
    assert (hit.all("X-A"), hit.field("Content-Length")) == (["2"], "4")


@pytest.mark.parametrize(
    "answered",
    [
        ['ETag: "b"'],
        [TAG, "Content-Length: 5"],
        [TAG, f"Last-Modified: {at(0)}"],
        ["Content-Length: 5"],
        ['ETag: W/"a"'],
    ],
)
def test_the_answer_to_head_ends_a_page_that_it_does_not_describe(answered):
    """RFC 9111 §4.3.5: otherwise the stored response is out of date."""
    site = Site("Cache-Control: max-age=60, stale-if-error=600", TAG, MODIFIED)
    site.stored()
    site.ask("HEAD", headers={"Cache-Control": "no-cache"})
    site.answers(FRESH, *answered, body=b"")
    site.ask("HEAD", headers={"Cache-Control": "no-cache"})
    site.answers(FRESH, body=b"new")
    reply = site.get()
    assert (reply.cache["fwd"], reply.body, site.calls) == ("uri-miss", b"new", 4)


def test_the_answer_to_head_without_validators_proves_nothing():
    """RFC 9111 §4.3.5 would update; we do not: two pages may well have one length."""
    site = Site(FRESH)
    site.stored()
    site.tick(60)
    site.answers(FRESH, "Content-Length: 4", body=b"")
    site.ask("HEAD")
    site.answers(FRESH, body=b"newp")
    assert (site.get().body, site.calls) == (b"newp", 3)


@pytest.mark.parametrize("status", ["404 So", "304 So", "500 So", "302 So"])
def test_another_status_for_head_says_nothing_of_the_page(status):
    """RFC 9111 §4.3.5 speaks of a 200."""
    site = Site(FRESH, TAG)
    site.stored()
    site.ask("HEAD", headers={"Cache-Control": "no-cache"})
    site.answers('ETag: "b"', status=status, body=b"")
    site.ask("HEAD", headers={"Cache-Control": "no-cache"})
    assert (site.get().is_hit, site.calls) == (True, 3)


def test_head_for_a_page_with_a_tag_of_ours():
    """RFC 9111 §4.3.5: the app's own tag differs from one that the cache made; that says nothing."""
    site = Site(FRESH, MODIFIED)
    site.stored()
    assert site.get().field("ETag")
    site.tick(60)
    site.answers("Cache-Control: max-age=100", MODIFIED, body=b"")
    site.ask("HEAD")
    assert (site.get().cache, site.calls) == ({"hit": "", "ttl": "100"}, 2)


# --- other methods ---------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH", "QUERY"])
def test_other_safe_methods_pass_and_change_nothing(method):
    """RFC 9110 §9.2.1: safe methods do not invalidate."""
    site = Site(FRESH)
    site.stored()
    reply = site.ask(method)
    assert (reply.cache, site.last["REQUEST_METHOD"]) == (
        {"fwd": "method", "fwd-status": "200", "detail": "METHOD_SAFE"},
        method,
    )
    assert (site.get().is_hit, site.calls) == (True, 2)


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "M-SEARCH", "FROB", "get", "Head", "pUT"]
)
def test_unknown_methods_pass_as_they_are(method):
    """RFC 9110 §9.1: methods are case-sensitive; one that is not known is not assumed to be safe."""
    site = Site(FRESH)
    reply = site.ask(method, headers={"Range": "bytes=0-1", "If-None-Match": '"x"'}, body=b"data")
    assert reply.cache == {"fwd": "method", "fwd-status": "200", "detail": "METHOD_UNSAFE"}
    assert (site.last["REQUEST_METHOD"], site.last["wsgi.input"].read()) == (method, b"data")
    assert (site.last["HTTP_RANGE"], site.last["HTTP_IF_NONE_MATCH"]) == ("bytes=0-1", '"x"')


def test_a_get_with_a_body_bypasses():
    """RFC 9110 §9.3.1: its body has no meaning to a cache (POI-06)."""
    site = Site(FRESH)
    site.stored()
    reply = site.get(body=b"a=1")
    assert (reply.cache["fwd"], reply.detail, site.calls) == ("bypass", "BYPASS_BODY", 2)
    chunked = site.get(headers={"Transfer-Encoding": "chunked"})
    assert (chunked.detail, site.calls) == ("BYPASS_BODY", 3)


# --- statuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize(
    "status", ["200 ", "200 Everything Is Fine", "200 \xc4\xe9", "203 Non-Authoritative", "404 "]
)
def test_the_status_line_is_kept_exactly(status, profile):
    """RFC 9112 §4: also an empty or an odd reason."""
    site = Site(FRESH, status=status, profile=profile)
    assert site.stored().status == status
    hit = site.get()
    assert (hit.status, hit.is_hit) == (status, True)


@pytest.mark.parametrize("status", ["299 Odd", "499 Odd", "599 Odd", "700 Odd", "999 Odd"])
def test_odd_codes_are_kept_in_the_rfc_profile(status):
    """RFC 9110 §15: an unknown code counts as the x00 of its class; with a lifetime it is storable."""
    site = Site(FRESH, status=status)
    assert site.stored().cache["fwd-status"] == status[:3]
    hit = site.get()
    assert (hit.status, hit.body, hit.is_hit) == (status, b"page", True)


@pytest.mark.parametrize(
    "status", ["201 So", "202 So", "400 So", "403 So", "418 So", "431 So", "500 So", "503 So", "999 So"]
)
def test_the_safe_profile_stores_few_statuses(status):
    """House rule 2: errors that a request may have provoked are nobody else's."""
    site = Site(FRESH, status=status, profile="safe")
    assert (site.get().detail, site.get().is_hit, site.calls) == ("NOT_STORED_STATUS", False, 2)


def test_a_204_has_no_body():
    """RFC 9110 §15.3.5: no body, no Content-Length, also from the store."""
    site = Site(FRESH, status="204 No Content", body=b"")
    site.stored()
    hit = site.get()
    assert (hit.status, hit.body, hit.field("Content-Length"), hit.field("ETag")) == (
        "204 No Content",
        b"",
        None,
        None,
    )


@pytest.mark.parametrize("code", [204, 304])
def test_a_body_where_none_may_be_is_not_stored(code):
    """RFC 9110 §15.3.5, §15.4.5."""
    site = Site(FRESH, status=f"{code} So", body=b"body")
    site.get()
    assert (site.get().is_hit, site.calls) == (False, 2)


def test_redirects_are_stored_as_they_are():
    """RFC 9110 §15.4: Location and all."""
    site = Site(FRESH, "Location: /elsewhere", status="302 Found", body=b"")
    site.stored()
    hit = site.get()
    assert (hit.status, hit.field("Location"), hit.is_hit) == ("302 Found", "/elsewhere", True)
