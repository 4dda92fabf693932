"""Conditional requests answered from the store: RFC 9110 §13, §15.4.5, §8.8; RFC 9111 §4.3.2."""

import pytest
from rfc_helpers import DAY, Site, at

FRESH = "Cache-Control: max-age=60"
MODIFIED = at(-DAY)


def holding(*lines, **options):
    """A site that holds a fresh page."""
    site = Site(FRESH, *lines, **options)
    site.stored()
    return site


def status(site, method="GET", **headers):
    """The status of a conditional request that the store must answer."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    calls = site.calls
    reply = site.ask(method, headers=fields)
    assert (reply.is_hit, site.calls) == (True, calls)
    assert bool(reply.body) is (reply.code == 200 and method == "GET")
    return reply.code


# --- If-None-Match ---------------------------------------------------------------------------------

TAG = 'ETag: "a"'
WEAK = 'ETag: W/"a"'


@pytest.mark.parametrize(
    "condition",
    [
        '"a"',
        ' "a" ',
        'W/"a"',
        '"x", "a"',
        '"x","a","y"',
        ', "a",',
        '"x, y", "a"',
        '"x" , W/"a"',
        "*",
        " * ",
        'junk, "a"',
        '"a" junk, "a"',
    ],
)
@pytest.mark.parametrize("line", [TAG, WEAK])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_tag_in_the_list_means_304(method, line, condition):
    """RFC 9110 §13.1.2: weak comparison with each member; * matches any stored response."""
    assert status(holding(line), method, If_None_Match=condition) == 304


@pytest.mark.parametrize(
    "condition",
    [
        '"b"',
        'W/"b"',
        '"A"',
        "a",
        "'a'",
        '"a',
        'a"',
        'w/"a"',
        'W\\"a"',
        'W"a"',
        '"a b"',
        '"x, "a""',
        "",
        '"*"',
        '"a"b',
        '"b", junk',
    ],
)
@pytest.mark.parametrize("line", [TAG, WEAK])
def test_another_tag_or_none_means_200(line, condition):
    """RFC 9110 §8.8.3: a tag is quoted, its weakness is W/; what is not a tag matches nothing."""
    assert status(holding(line), If_None_Match=condition) == 200


def test_an_unquoted_stored_tag_matches_nothing():
    """RFC 9110 §8.8.3: it is no entity tag, so nothing proves that the client has this page."""
    site = holding("ETag: a")
    assert [status(site, If_None_Match=condition) for condition in ("a", '"a"')] == [200, 200]


def test_a_page_without_a_tag_gets_one_of_ours():
    """RFC 9110 §8.8.3: from its bytes, so that clients can ask again cheaply."""
    site = holding()
    made = site.get().field("ETag")
    assert made.startswith('"')
    assert status(site, If_None_Match=made) == 304
    assert status(site, If_None_Match='"other"') == 200
    other = holding(body=b"other")
    assert other.get().field("ETag") != made


# --- If-Modified-Since -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "code"),
    [
        (MODIFIED, 304),
        (at(-DAY + 1), 304),
        (at(0), 304),
        (at(DAY), 304),
        (at(-DAY - 1), 200),
        (at(-2 * DAY), 200),
        ("Monday, 13-Nov-23 22:13:20 GMT", 304),
        ("Mon Nov 13 22:13:20 2023", 304),
        ("Mon Nov 13 22:13:19 2023", 200),
        ("mon, 13 nov 2023 22:13:20 gmt", 304),
        ("Mon, 13 Nov 2023 22:13:20 EST", 200),
        ("yesterday", 200),
        ("", 200),
        ("*", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_date_is_compared_with_last_modified(method, since, code):
    """RFC 9110 §13.1.3: 304 unless modified later; what is no date is ignored."""
    assert status(holding(f"Last-Modified: {MODIFIED}"), method, If_Modified_Since=since) == code


def test_without_last_modified_the_date_stands_in():
    """RFC 9111 §4.3.2: or else the time at which it was received; not known, not claimed."""
    site = holding(f"Date: {at(-30)}")
    assert [status(site, If_Modified_Since=at(seconds)) for seconds in (-31, -30, 0)] == [200, 304, 304]
    assert status(holding(), If_Modified_Since=at(DAY)) == 200


def test_a_last_modified_that_is_no_date_decides_for_200():
    """RFC 9110 §13.1.3."""
    assert status(holding("Last-Modified: yesterday"), If_Modified_Since=at(DAY)) == 200


# --- precedence ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "since", "code"),
    [
        ('"a"', at(-2 * DAY), 304),
        ('"b"', at(0), 200),
        ("junk", at(0), 200),
        ("", at(0), 200),
        ('"a"', "junk", 304),
        ("*", at(-2 * DAY), 304),
    ],
)
def test_if_none_match_switches_if_modified_since_off(tag, since, code):
    """RFC 9110 §13.2.2: whatever is in it."""
    site = holding(TAG, f"Last-Modified: {MODIFIED}")
    assert status(site, If_None_Match=tag, If_Modified_Since=since) == code


@pytest.mark.parametrize("name", ["If-Match", "If-Unmodified-Since"])
def test_preconditions_for_the_origin_go_to_the_app(name):
    """RFC 9111 §4.3.2: a cache must not evaluate them; the app does."""
    site = holding(TAG)
    site.answers(status="412 Precondition Failed", body=b"")
    reply = site.get(headers={name: '"x"'})
    assert (reply.code, reply.cache["fwd"], reply.detail) == (412, "bypass", "BYPASS_PRECONDITION")
    assert (site.calls, site.last["HTTP_" + name.upper().replace("-", "_")]) == (2, '"x"')
    assert site.get().is_hit


@pytest.mark.parametrize(
    "stored", ["404 Not Found", "301 Moved Permanently", "500 Internal Server Error", "203 Other"]
)
def test_conditions_concern_a_200_only(stored):
    """RFC 9110 §13.2.1: they are ignored where the answer without them is not a 200."""
    site = holding(TAG, f"Last-Modified: {MODIFIED}", status=stored)
    assert status(site, "HEAD", If_None_Match='"a"', If_Modified_Since=at(0)) == int(stored[:3])


# --- the 304 ---------------------------------------------------------------------------------------


def test_a_304_carries_what_it_must_and_nothing_about_the_body():
    """RFC 9110 §15.4.5: Cache-Control, Content-Location, Date, ETag, Expires, Vary; nothing of the body."""
    must = [
        FRESH,
        f"Date: {at(0)}",
        TAG,
        "Vary: X-A",
        "Content-Location: /page",
        f"Expires: {at(60)}",
        'Cache-Groups: "a"',
        "CDN-Cache-Control: max-age=60",
    ]
    rest = [
        "Content-Type: text/html",
        "Content-Length: 4",
        "Content-Encoding: gzip",
        f"Last-Modified: {MODIFIED}",
    ]
    site = Site(*must, *rest, "Content-Language: en", "Set-Cookie: a=1", "X-Any: 1")
    site.stored()
    site.tick(5)
    reply = site.get(headers={"If-None-Match": '"a"'})
    assert (reply.status, reply.body) == ("304 Not Modified", b"")
    assert [": ".join(pair) for pair in reply.headers] == [
        *must,
        "Age: 5",
        "Cache-Status: wsgicache; hit; ttl=55",
    ]


def test_a_304_without_a_tag_carries_last_modified():
    """RFC 9110 §15.4.5: where there is no ETag it helps the client to match; ours counts as one."""
    site = Site(FRESH, f"Last-Modified: {MODIFIED}", status="200 OK")
    reply = site.get(headers={"If-Modified-Since": MODIFIED})
    assert (reply.code, reply.stored, reply.field("Last-Modified")) == (304, True, MODIFIED)


# --- conditions on the way to the app --------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"If-None-Match": '"a"'}, 304),
        ({"If-None-Match": '"b"'}, 200),
        ({"If-Modified-Since": at(0)}, 304),
        ({"If-Modified-Since": at(-2 * DAY)}, 200),
    ],
)
def test_a_miss_is_stored_whole_and_the_client_gets_what_its_condition_says(headers, code):
    """RFC 9111 §4.3.2: so the condition does not cost the others the page (POI-24)."""
    site = Site(FRESH, TAG, f"Last-Modified: {MODIFIED}")
    reply = site.get(headers=headers)
    assert (reply.code, reply.cache["fwd"], reply.stored) == (code, "uri-miss", True)
    assert not {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"} & set(site.last)
    assert bool(reply.body) is (code == 200)
    whole = site.get()
    assert (whole.code, whole.body, whole.is_hit, site.calls) == (200, b"page", True, 1)


def test_an_app_that_answers_412_or_304_unasked_is_not_stored():
    """RFC 9111 §3: a 304 is no representation."""
    site = Site(FRESH, TAG, status="304 Not Modified", body=b"")
    assert (site.get().code, site.get().cache["fwd"], site.calls) == (304, "uri-miss", 2)
