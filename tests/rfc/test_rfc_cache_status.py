"""Cache-Status: RFC 9211, read by a structured-field parser that is not ours."""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rfc_helpers import Site, at, members, page

FWD = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}
FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'


def only(reply):
    """The parameters of the only member, which is ours."""
    ((name, parameters),) = members(reply)
    assert name == "wsgicache"
    return {key: value if isinstance(value, bool | int) else str(value) for key, value in parameters.items()}


# --- each kind of answer ---------------------------------------------------------------------------


def test_a_miss_that_is_stored():
    """RFC 9211 §2.2, §2.3, §2.5, §2.4."""
    assert only(Site(FRESH).get()) == {"fwd": "uri-miss", "fwd-status": 200, "stored": True, "ttl": 60}


def test_a_hit():
    """RFC 9211 §2.1: hit and nothing about forwarding."""
    site = Site(FRESH)
    site.get()
    site.tick(15)
    assert only(site.get()) == {"hit": True, "ttl": 45}


def test_a_miss_of_a_variant():
    """RFC 9211 §2.2: vary-miss is more specific than miss."""
    site = Site(FRESH, "Vary: X-A")
    site.get(headers={"X-A": "1"})
    assert only(site.get(headers={"X-A": "2"}))["fwd"] == "vary-miss"


def test_a_stale_entry_that_was_validated():
    """RFC 9211 §2.2, §2.3: fwd-status is what the app said, whatever the client gets."""
    site = Site(FRESH, TAG)
    site.get()
    site.tick(60)
    site.answers(FRESH, TAG, status="304 Not Modified", body=b"")
    reply = site.get()
    assert (reply.code, only(reply)) == (200, {"fwd": "stale", "fwd-status": 304, "stored": True, "ttl": 60})


@pytest.mark.parametrize(
    ("control", "ttl"),
    [("max-age=60, stale-while-revalidate=100", {"hit": True}), ("max-age=60, stale-if-error=100", {})],
)
def test_a_stale_answer_has_a_negative_ttl(control, ttl):
    """RFC 9211 §2.4: negative when stale."""
    site = Site(f"Cache-Control: {control}")
    site.get()
    site.tick(70)
    site.answers(status="503 So")
    seen = only(site.get())
    assert seen.pop("ttl") == -10
    assert seen.pop("detail").startswith("HIT_STALE_")
    assert seen == (ttl or {"fwd": "stale", "fwd-status": 503})


def test_a_request_that_refuses_what_is_fresh():
    """RFC 9211 §2.2: request."""
    site = Site(FRESH)
    site.get()
    seen = only(site.get(headers={"Cache-Control": "no-cache"}))
    assert (seen["fwd"], seen["detail"]) == ("request", "REQUEST_DIRECTIVE")


def test_only_if_cached_was_not_forwarded_at_all():
    """RFC 9211 §2.2 knows no word for it; without fwd-status nobody takes it for an answer of the app."""
    assert only(Site().get(headers={"Cache-Control": "only-if-cached"})) == {
        "fwd": "request",
        "detail": "ONLY_IF_CACHED",
    }


@pytest.mark.parametrize(("method", "detail"), [("POST", "METHOD_UNSAFE"), ("OPTIONS", "METHOD_SAFE")])
def test_a_method_that_is_not_answered(method, detail):
    """RFC 9211 §2.2: method."""
    assert only(Site(FRESH).ask(method)) == {"fwd": "method", "fwd-status": 200, "detail": detail}


def test_a_bypass_by_rule_or_by_visitor():
    """RFC 9211 §2.2: bypass is the most specific."""
    site = Site("Cache-Control: private", profile="safe")
    assert only(site.get("/?q=1")) == {"fwd": "bypass", "fwd-status": 200, "detail": "BYPASS_QUERY"}
    assert only(site.get(headers={"Cookie": "s=1"})) == {
        "fwd": "bypass",
        "fwd-status": 200,
        "detail": "BYPASS_COOKIE",
    }


def test_an_answer_that_another_request_brought():
    """RFC 9211 §2.6: collapsed, beside why it would have been forwarded."""
    site = Site(FRESH)
    gate = site.app.hold("/")
    leader = threading.Thread(target=site.get)
    leader.start()
    gate.wait_entered()
    collapse = site.cache.engine.collapse
    wait = collapse.wait

    def open_and_wait(flight, timeout):
        gate.open()
        return wait(flight, timeout)

    collapse.wait = open_and_wait
    follower = site.get()
    leader.join()
    assert only(follower) == {"fwd": "uri-miss", "fwd-status": 200, "collapsed": True, "ttl": 60}
    assert (follower.body, site.calls) == (b"page", 1)


def test_an_answer_that_is_not_stored_says_why():
    """RFC 9211 §2.8: detail."""
    seen = only(Site("Cache-Control: no-store").get())
    assert seen == {"fwd": "uri-miss", "fwd-status": 200, "detail": "NOT_STORED_NO_STORE"}


# --- the list --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line", ["Origin; hit", "Origin; hit; ttl=5, Second; fwd=miss", '"quoted name"; fwd=uri-miss']
)
def test_our_member_comes_last(line):
    """RFC 9211 §2: the first member is the cache closest to the origin."""
    site = Site(FRESH, f"Cache-Status: {line}")
    for reply in (site.get(), site.get(), site.ask("POST")):
        names = [name for name, _ in members(reply)]
        assert (reply.all("Cache-Status")[0], names[-1]) == (line, "wsgicache")
        assert names.count("wsgicache") == 1


@pytest.mark.parametrize(
    ("url", "method", "status"),
    [
        ("/", "GET", "200 So"),
        ("/", "HEAD", "200 So"),
        ("/", "GET", "404 So"),
        ("/", "GET", "500 So"),
        ("/?q", "POST", "302 So"),
    ],
)
def test_it_is_on_every_answer(url, method, status):
    """RFC 9211 §2: also on those that the cache only watches."""
    assert only(Site(status=status).ask(method, url))["fwd"] in FWD


def test_a_304_and_a_part_have_it_too():
    """RFC 9211 §2."""
    site = Site(FRESH, TAG, body=b"0123456789")
    site.get()
    for headers in ({"If-None-Match": '"a"'}, {"Range": "bytes=0-1"}, {"Range": "bytes=90-"}):
        assert only(site.get(headers=headers)) == {"hit": True, "ttl": 60}


# --- the key ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "given", "shown"),
    [
        (None, "s3cret", False),
        ("s3cret", None, False),
        ("s3cret", "other", False),
        ("s3cret", "s3cret", True),
    ],
)
def test_the_key_is_for_an_authorised_client_only(secret, given, shown):
    """RFC 9211 §6: the key helps to poison a cache."""
    site = Site(FRESH, secret=secret)
    headers = {} if given is None else {"Wsgicache-Secret": given}
    for _ in range(2):
        seen = only(site.get("/a%22b?q=%5C", headers=headers))
        assert ("key" in seen) is shown
        if shown:
            assert "example.com" in seen["key"]


# --- whatever comes --------------------------------------------------------------------------------

CONTROLS = st.sampled_from(
    [
        "",
        "max-age=60",
        "max-age=0",
        "no-store",
        "no-cache",
        "private",
        "public, s-maxage=30",
        "max-age=junk",
        '"',
        "=",
        "max-age=5, stale-while-revalidate=30",
        "max-age=5, stale-if-error=30",
        "must-revalidate, max-age=5",
    ]
)
LINES = st.sampled_from(
    [
        'ETag: "a"',
        'ETag: W/"b"',
        "ETag: junk",
        "Vary: X-A",
        "Vary: *",
        "Age: 7",
        "Age: -1",
        "Set-Cookie: a=1",
        "Cache-Status: Other; hit",
        "Cache-Status: broken;;",
        "Expires: 0",
        f"Date: {at(-3)}",
        f"Last-Modified: {at(-999)}",
        "CDN-Cache-Control: max-age=9",
        'Cache-Groups: "g"',
        "Location: /b",
        "Content-Length: 4",
        "Content-Length: 5",
        'Cache-Group-Invalidation: "g"',
        "Connection: X-A",
        "Content-Type: text/event-stream",
    ]
)
STATUSES = st.sampled_from(
    ["200 OK", "200 ", "204 So", "206 So", "301 So", "304 So", "404 So", "503 So", "599 So"]
)
ANSWERS = st.builds(
    lambda control, lines, status, chunks: page(
        f"Cache-Control: {control}", *lines, status=status, body=chunks
    ),
    CONTROLS,
    st.lists(LINES, max_size=4),
    STATUSES,
    st.sampled_from([b"page", b"", [b"pa", b"ge"]]),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "X-A": st.sampled_from(["", "1", "2"]),
        "Cookie": st.sampled_from(["", "s=1", "_ga=1"]),
        "Authorization": st.just("Basic eDp5"),
        "Cache-Control": st.sampled_from(
            ["no-cache", "max-age=3", "max-stale", "only-if-cached", "no-store", "min-fresh=9"]
        ),
        "Pragma": st.just("no-cache"),
        "If-None-Match": st.sampled_from(['"a"', "*", "junk"]),
        "If-Modified-Since": st.just(at(0)),
        "If-Match": st.just('"a"'),
        "Range": st.sampled_from(["bytes=0-1", "bytes=0-0,2-", "bytes=9-", "junk"]),
    },
)
REQUESTS = st.tuples(
    st.sampled_from(["GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "FROB", "OPTIONS"]),
    st.sampled_from(["/a", "/b", "/a?q=1", "/%22;hit", "/a;b?c;d"]),
    FIELDS,
    st.sampled_from([0, 0, 1, 6, 40]),
    st.one_of(st.none(), ANSWERS),
)


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
@given(first=ANSWERS, requests=st.lists(REQUESTS, min_size=5, max_size=15))
def test_every_answer_has_one_well_formed_member(profile, first, requests):
    """RFC 9211 §2: hit and fwd exclude each other, the rest belongs to fwd, and each value has its type."""
    site = Site(profile=profile)
    site.app.answers(first)
    for method, url, headers, seconds, answer in requests:
        site.tick(seconds)
        if answer is not None:
            site.app.answers(answer)
        calls = site.calls
        reply = site.ask(method, url, headers)
        assert site.cache.engine.refresher.drain()
        check_member(reply, site.calls - calls, method)


def check_member(reply, calls, method):
    ours = [line for line in reply.all("Cache-Status") if line.startswith("wsgicache")]
    assert len(ours) == 1
    assert reply.all("Cache-Status")[-1] is ours[0]
    ((_, seen),) = members(type(reply)(reply.status, [("Cache-Status", ours[0])], b""))
    assert ("hit" in seen) is not ("fwd" in seen)
    assert set(seen) <= {"hit", "fwd", "fwd-status", "stored", "collapsed", "ttl", "detail"}
    if "hit" in seen:
        assert seen["hit"] is True
        assert not {"fwd-status", "stored", "collapsed"} & set(seen)
        assert method in ("GET", "HEAD")
        assert "ttl" in seen
    else:
        assert str(seen["fwd"]) in FWD
        if "fwd-status" in seen:
            assert calls >= 1
            assert 100 <= seen["fwd-status"] <= 999
        else:
            assert str(seen["detail"]) == "ONLY_IF_CACHED"
    assert isinstance(seen.get("ttl", 0), int)
    assert len(reply.all("Age")) <= 1 or calls
