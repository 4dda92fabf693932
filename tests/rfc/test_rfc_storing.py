"""What is stored: RFC 9111 §3, §3.1, §3.3 and §5.2.2.3 to §5.2.2.9."""

import pytest
from rfc_helpers import Site, assert_lifetime, assert_not_stored, at, page

FRESH = "Cache-Control: max-age=60"


# --- statuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status",
    [
        200,
        201,
        202,
        203,
        204,
        205,
        207,
        226,
        300,
        301,
        302,
        303,
        307,
        308,
        400,
        401,
        402,
        403,
        404,
        405,
        406,
        410,
        413,
        414,
        415,
        417,
        418,
        421,
        422,
        425,
        428,
        429,
        431,
        451,
        499,
        500,
        501,
        502,
        503,
        504,
        505,
        511,
        599,
    ],
)
def test_every_final_status_is_stored_with_an_explicit_lifetime(status):
    """RFC 9111 §3: the status code is final, and there is an explicit lifetime."""
    assert_lifetime(Site(FRESH, status=f"{status} So", body=b"" if status == 204 else b"page"), 60)


@pytest.mark.parametrize("status", ["206 Partial Content", "304 Not Modified"])
def test_a_part_and_a_304_are_never_stored_as_the_whole(status):
    """RFC 9111 §3: 206 and 304 need a cache that combines them with something."""
    site = Site(FRESH, "Content-Range: bytes 0-3/9", 'ETag: "a"', status=status, body=b"")
    assert_not_stored(site, "NOT_STORED_STATUS")


@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_an_answer_to_a_range_request_is_not_stored(profile):
    """RFC 9111 §3.3: this cache does not combine parts, so it stores none."""
    site = Site(
        FRESH, "Content-Range: bytes 0-3/9", status="206 Partial Content", body=b"page", profile=profile
    )
    first = site.get(headers={"Range": "bytes=0-3"})
    assert (first.code, first.detail, first.stored) == (206, "NOT_STORED_RANGE", False)
    assert site.last["HTTP_RANGE"] == "bytes=0-3"
    site.answers(FRESH)
    assert site.get().cache["fwd"] == "uri-miss"
    assert site.calls == 2


# --- directives ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control",
    [
        "no-store",
        "No-Store",
        "max-age=60, no-store",
        "no-store, max-age=60",
        "max-age=60,no-store",
        "max-age=60 , NO-STORE",
        "public, max-age=60, no-store",
        "no-store=1, max-age=60",
        'no-store="x", max-age=60',
        "no-store;max-age=60",
        "max-age=60 no-store",
    ],
)
def test_no_store_is_obeyed_in_every_spelling(control):
    """RFC 9111 §5.2.2.5."""
    assert_not_stored(Site(f"Cache-Control: {control}", 'ETag: "a"'), "NOT_STORED_NO_STORE")


@pytest.mark.parametrize(
    "control",
    [
        "private",
        "PRIVATE",
        "max-age=60, private",
        "s-maxage=60, private",
        "public, private, max-age=60",
        "private=x",
    ],
)
def test_private_is_obeyed_by_a_shared_cache(control):
    """RFC 9111 §5.2.2.7: whatever else the response says."""
    assert_not_stored(Site(f"Cache-Control: {control}", 'ETag: "a"'), "NOT_STORED_PRIVATE")


def test_directives_on_a_second_line_count():
    """RFC 9110 §5.3."""
    assert_not_stored(Site(FRESH, "Cache-Control: no-store"), "NOT_STORED_NO_STORE")


@pytest.mark.parametrize("status", ["200", "404", "302", "410", "503"])
def test_must_understand_lets_no_store_be_ignored_for_statuses_that_are_understood(status):
    """RFC 9111 §5.2.2.3: a cache that knows the status ignores no-store."""
    assert_lifetime(Site("Cache-Control: must-understand, max-age=60, no-store", status=f"{status} So"), 60)


@pytest.mark.parametrize("control", ["must-understand, max-age=60, no-store", "must-understand, max-age=60"])
@pytest.mark.parametrize("status", ["299", "418", "499", "599"])
def test_must_understand_forbids_storing_statuses_that_are_not(status, control):
    """RFC 9111 §3: with must-understand the cache has to know the status."""
    assert_not_stored(Site(f"Cache-Control: {control}", status=f"{status} So"), "NOT_STORED_NO_STORE")


@pytest.mark.parametrize(
    "control", ["must-understand=1, max-age=60, no-store", "must-understand x, no-store"]
)
def test_a_broken_must_understand_permits_nothing(control):
    """RFC 9111 §5.2.2.3 is a permission, and a permission must be plain."""
    assert_not_stored(Site(f"Cache-Control: {control}"), "NOT_STORED_NO_STORE")


def test_pragma_in_a_response_means_nothing():
    """RFC 9111 §5.4: Pragma is a request field."""
    assert_lifetime(Site(FRESH, "Pragma: no-cache"), 60)


def test_a_field_that_nobody_knows_means_nothing():
    """RFC 9111 §3.1: unrecognised fields are stored and sent."""
    site = Site(FRESH, "Surrogate-Control: no-store", "X-Accel-Expires: 0", "X-Odd: 1")
    assert_lifetime(site, 60)
    site.answers(FRESH)


# --- fields ----------------------------------------------------------------------------------------


def test_fields_are_stored_as_they_came():
    """RFC 9111 §3.1: all of them, in order, repeated lines and odd spellings included."""
    lines = [
        "x-LOWER-upper: 1",
        "Set-Cookie: a=1; Expires=Wed, 15 Nov 2023 22:13:20 GMT",
        "Link: </a>; rel=x",
        "X-Empty:",
        "Set-Cookie: b=2",
        "Link: </b>; rel=y",
        "Date: " + at(0),
        "Clear-Site-Data: cookies",
        "Strict-Transport-Security: max-age=1",
        "X-Obs-Text: \xe9\xff",
        'X-Quoted: "a, b"; c',
        "Warning: 199 - old",
        "Content-Length: 4",
        FRESH,
    ]
    site = Site(*lines)
    first = site.stored()
    hit = site.get()
    assert (hit.is_hit, hit.body, site.calls) == (True, b"page", 1)
    stored = [pair for pair in hit.headers if pair[0] not in ("Age", "Cache-Status", "ETag")]
    assert stored == [pair for pair in first.headers if pair[0] != "Cache-Status"]
    assert [": ".join(pair).rstrip() for pair in stored] == lines


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "TE",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ],
)
def test_fields_of_one_connection_are_not_stored(name):
    """RFC 9111 §3.1, RFC 9110 §7.6.1: even where an app sends them, against PEP 3333."""
    site = Site(FRESH, f"{name}: close", "X-Kept: 1")
    site.stored()
    hit = site.get()
    assert (hit.is_hit, hit.all(name), hit.all("X-Kept")) == (True, [], ["1"])


@pytest.mark.parametrize("connection", ["X-A, x-b", "x-A , X-B", "close, X-A,X-B", ",X-A,,X-B,"])
def test_fields_that_connection_lists_are_not_stored(connection):
    """RFC 9111 §3.1."""
    site = Site(FRESH, "X-A: 1", f"Connection: {connection}", "X-B: 2", "X-C: 3")
    site.stored()
    hit = site.get()
    assert [hit.all(name) for name in ("X-A", "X-B", "X-C")] == [[], [], ["3"]]


@pytest.mark.parametrize(
    "control",
    ['private="X-User, x-other"', 'no-cache="x-user,X-OTHER"', 'PRIVATE="X-User", no-cache="X-Other"'],
)
def test_fields_that_a_directive_names_are_not_stored(control):
    """RFC 9111 §5.2.2.4, §5.2.2.7: the rest of the response may be stored and reused."""
    site = Site(f"Cache-Control: max-age=60, {control}", "X-User: ines", "X-Other: 1", "X-Kept: 2")
    first = site.stored()
    assert first.all("X-User") == ["ines"]
    hit = site.get()
    assert (hit.is_hit, hit.all("X-User"), hit.all("X-Other"), hit.all("X-Kept")) == (True, [], [], ["2"])


@pytest.mark.parametrize(
    "control", ['private="X User"', 'private=""', 'private=","', "private=X-User, Set-Cookie"]
)
def test_a_broken_list_of_fields_means_the_whole_response(control):
    """RFC 9111 §5.2.2.7: what cannot be read is not taken as the weaker form."""
    assert_not_stored(Site(f"Cache-Control: max-age=60, {control}", "X-User: ines"), "NOT_STORED_PRIVATE")


def test_a_cookie_is_a_field_like_others_in_the_rfc_profile():
    """RFC 9111 §7.3: Set-Cookie does not inhibit caching."""
    site = Site(FRESH, "Set-Cookie: a=1")
    site.stored()
    assert site.get().all("Set-Cookie") == ["a=1"]


def test_a_response_that_sets_a_cookie_is_not_stored_in_the_safe_profile():
    """House rule 7."""
    assert_not_stored(
        Site("Cache-Control: public, max-age=60", "Set-Cookie: a=1", profile="safe"), "NOT_STORED_SET_COOKIE"
    )


def test_date_is_neither_added_nor_doubled():
    """RFC 9110 §6.6.1: Date says when the response was made; the server adds it where there is none."""
    with_date = Site(FRESH, f"Date: {at(-5)}")
    with_date.stored()
    with_date.tick(30)
    assert with_date.get().all("Date") == [at(-5)]
    without = Site(FRESH)
    without.stored()
    assert without.get().all("Date") == []


# --- completeness ----------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"pag", b"", [b"pa", b"g"], lambda: iter([b"p"]), b"pages"])
def test_a_body_of_another_length_than_announced_is_not_stored(body):
    """RFC 9111 §3.3: an incomplete response is not stored as a whole."""
    site = Site(FRESH, "Content-Length: 4", body=body)
    site.get()
    assert ("hit" in site.get().cache, site.calls) == (False, 2)


def breaks_off():
    yield b"pa"
    raise OSError("the database went away")


def test_a_body_that_breaks_off_is_not_stored():
    """RFC 9111 §3.3."""
    site = Site(FRESH, body=breaks_off)
    with pytest.raises(OSError, match="went away"):
        site.get()
    site.answers(FRESH)
    reply = site.get()
    assert (reply.cache["fwd"], reply.body, site.calls) == ("uri-miss", b"page", 2)


@pytest.mark.parametrize("length", ["4, 5", "four", "-4", "4.0", "0x4", ""])
def test_a_senseless_content_length_is_not_stored(length):
    """RFC 9110 §8.6, RFC 9112 §6.3."""
    assert_not_stored(Site(FRESH, f"Content-Length: {length}"), "NOT_STORED_FIELDS")


def test_a_whole_body_of_unknown_length_is_stored_with_its_length():
    """RFC 9110 §8.6: the stored copy knows its Content-Length."""
    site = Site(FRESH, body=lambda: iter([b"pa", b"ge"]))
    site.get()
    hit = site.get()
    assert (hit.is_hit, hit.field("Content-Length"), hit.body, site.calls) == (True, "4", b"page", 1)


# --- requests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY", "FROB"])
def test_only_the_answer_to_a_get_is_stored(method):
    """RFC 9111 §3: the request method is understood, for us GET; storing after POST is optional."""
    site = Site(FRESH, "Content-Location: /")
    first = site.ask(method)
    assert (first.cache["fwd"], first.stored) == ("method", False)
    assert site.get().cache["fwd"] == "uri-miss"
    assert site.calls == 2


def test_each_query_is_a_page_of_its_own():
    """RFC 9111 §2: the cache key holds the whole target URI, its query included."""
    site = Site(FRESH)
    site.app.answers(lambda environ: page(FRESH, body=environ["QUERY_STRING"].encode()))
    urls = ["/", "/?a=1", "/?a=2", "/?a=1&b=2", "/?b=2&a=1", "/?a", "/?a="]
    bodies = [site.stored(url).body for url in urls]
    assert [site.get(url).body for url in urls] == bodies
    assert site.calls == len(urls) == len(set(bodies))


def test_each_host_scheme_and_port_is_a_page_of_its_own():
    """RFC 9111 §2: the target URI, normalised by RFC 9110 §4.2.3."""
    site = Site(FRESH)
    for url in (
        "http://a.test/",
        "https://a.test/",
        "http://a.test:81/",
        "http://b.test/",
        "http://a.test/A",
    ):
        assert site.stored(url).cache["fwd"] == "uri-miss"
    for url in ("http://A.test:80/", "https://a.test:443/"):
        assert site.get(url).is_hit
    assert site.calls == 5
