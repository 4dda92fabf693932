"""Invalidation: RFC 9111 §4.4; RFC 9875 §3."""

import pytest
from rfc_helpers import Site, page

FRESH = "Cache-Control: max-age=600"
HERE = "http://example.com"


def filled(*urls, **options):
    """A site whose pages have been stored: the front page and those named."""
    site = Site(FRESH, 'Cache-Groups: "all"', **options)
    for url in ("/", *urls):
        site.stored(url)
    return site


def unsafe(site, *lines, method="POST", status="200 OK", url="/"):
    """An unsafe request, answered so; afterwards pages are served as before."""
    site.answers(*lines, status=status, body=b"")
    reply = site.ask(method, url)
    assert reply.cache == {"fwd": "method", "fwd-status": status[:3], "detail": "METHOD_UNSAFE"}
    site.answers(FRESH, body=b"new")


def is_gone(site, url="/"):
    """Whether a page is no longer in the store."""
    reply = site.get(url)
    assert reply.is_hit or (reply.cache["fwd"], reply.body) == ("uri-miss", b"new")
    return not reply.is_hit


# --- the target URI --------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "MKCOL", "M-SEARCH", "PURGE", "FROB"])
def test_a_successful_unsafe_or_unknown_method_invalidates_its_target(method, profile):
    """RFC 9111 §4.4: the target URI, for methods whose safety is unknown too."""
    site = filled("/other", profile=profile)
    unsafe(site, method=method)
    assert (is_gone(site), is_gone(site, "/other")) == (True, False)


@pytest.mark.parametrize(
    "status", ["200 So", "201 So", "202 So", "204 So", "299 So", "301 So", "302 So", "303 So", "399 So"]
)
def test_a_non_error_response_invalidates(status):
    """RFC 9111 §4.4: a non-error response is one with a 2xx or 3xx status."""
    site = filled()
    unsafe(site, status=status)
    assert is_gone(site)


@pytest.mark.parametrize(
    "status", ["400 So", "403 So", "404 So", "409 So", "500 So", "503 So", "600 So", "999 So"]
)
def test_an_error_does_not(status):
    """RFC 9111 §4.4: otherwise anybody could empty the store with requests that fail (CON-19)."""
    site = filled("/other")
    unsafe(site, "Location: /other", "Content-Location: /other", status=status)
    assert (is_gone(site), is_gone(site, "/other")) == (False, False)


def test_an_app_that_raises_changes_nothing_that_is_known():
    """RFC 9111 §4.4: there was no response."""
    site = filled()
    site.answers(error=OSError("down"))
    with pytest.raises(OSError, match="down"):
        site.ask("POST")
    assert site.get().is_hit


def test_every_variant_goes():
    """RFC 9111 §4.4: all stored responses of the URI."""
    site = Site(FRESH, "Vary: X-A")
    for value in "ab":
        site.stored(headers={"X-A": value})
    unsafe(site)
    assert [site.get(headers={"X-A": value}).is_hit for value in "ab"] == [False, False]


def test_every_query_of_the_path_goes():
    """RFC 9111 §4.4 names the target URI alone; a form is rarely posted to the URL that lists."""
    site = filled("/list", "/list?page=2")
    unsafe(site, url="/list")
    assert (is_gone(site, "/list"), is_gone(site, "/list?page=2"), is_gone(site)) == (True, True, False)


def test_other_hosts_and_schemes_stay():
    """RFC 9111 §4.4: the target URI has an origin."""
    site = filled("https://example.com/", "http://other.example/")
    unsafe(site)
    assert [is_gone(site, url) for url in ("/", "https://example.com/", "http://other.example/")] == [
        True,
        False,
        False,
    ]


def test_a_page_that_bypasses_the_cache_invalidates_all_the_same():
    """RFC 9111 §4.4: a bypass never suppresses the invalidation."""
    site = filled()
    site.answers(status="200 OK", body=b"")
    site.ask("POST", "/", {"Cookie": "s=1", "Authorization": "Basic eDp5"}, body=b"a=1")
    site.answers(FRESH, body=b"new")
    assert is_gone(site)


def test_a_fill_that_began_before_is_not_stored():
    """CON-01: the page that was being made may show what is no longer so."""
    site = Site(FRESH)

    def answer(environ):
        if environ["REQUEST_METHOD"] == "GET" and site.calls == 0:
            site.ask("POST")
        return page(FRESH, body=b"old")

    site.app.answers(answer)
    assert site.get().body == b"old"
    site.answers(FRESH, body=b"new")
    assert is_gone(site)


# --- Location and Content-Location -----------------------------------------------------------------


@pytest.mark.parametrize("name", ["Location", "Content-Location", "content-location"])
@pytest.mark.parametrize(
    "reference",
    [
        "/other",
        f"{HERE}/other",
        f"{HERE}:80/other",
        "HTTP://EXAMPLE.com/other",
        "//example.com/other",
        "other",
        "./other",
        "x/../other",
        " /other ",
        "/other?x=1",
        "/other#part",
        "/oth%65r",
    ],
)
def test_the_uris_that_the_response_names_on_this_origin_go_too(name, reference):
    """RFC 9111 §4.4: a cache may invalidate Location and Content-Location of the same origin."""
    site = filled("/other", "/third")
    unsafe(site, f"{name}: {reference}", status="201 Created")
    assert (is_gone(site), is_gone(site, "/other"), is_gone(site, "/third")) == (True, True, False)


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "reference",
    [
        "https://example.com/other",
        "http://example.com:8080/other",
        "http://other.example/other",
        "//other.example/other",
        "http://example.com.evil.example/other",
        "http://user@example.com/other",
        "http://[/other",
        "ftp://example.com/other",
        "javascript:/other",
        "",
    ],
)
def test_another_origin_is_never_touched(name, reference):
    """RFC 9111 §4.4: otherwise one site could empty the pages of another (CON-19)."""
    elsewhere = ["http://other.example/other", "https://example.com/other", "http://example.com:8080/other"]
    site = filled("/other", *elsewhere)
    unsafe(site, f"{name}: {reference}")
    assert [is_gone(site, url) for url in ("/other", *elsewhere)] == [False] * 4
    assert is_gone(site)


def test_location_in_the_answer_to_a_get_means_nothing_here():
    """RFC 9111 §4.4: unsafe methods only."""
    site = filled("/other")
    site.answers(FRESH, "Location: /other", status="302 Found")
    site.get("/redirect")
    assert not is_gone(site, "/other")


# --- Cache-Group-Invalidation ----------------------------------------------------------------------


def grouped(**options):
    """A site with a page in each of three groups, one of them on another origin too."""
    site = Site(**options)
    site.app.answers(lambda environ: page(FRESH, f'Cache-Groups: "{environ["PATH_INFO"][1:]}"'))
    for url in ("/a", "/b", "/c, d", "http://other.example/a"):
        site.stored(url)
    return site


def left(site):
    """The pages of `grouped` that are still there."""
    urls = ("/a", "/b", "/c, d", "http://other.example/a")
    return [url for url in urls if site.get(url).is_hit]


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize(
    "lines",
    [
        ['Cache-Group-Invalidation: "a", "b"'],
        ['cache-group-invalidation: "b","a"'],
        ['Cache-Group-Invalidation: "a"', 'Cache-Group-Invalidation: "b"'],
        ['Cache-Group-Invalidation: "a";x=1, "b";y="c, d", "unknown"'],
    ],
)
def test_groups_are_invalidated_on_this_origin(lines, profile):
    """RFC 9875 §3: a structured list of strings; parameters mean nothing (CON-24)."""
    site = grouped(profile=profile)
    unsafe(site, *lines, url="/form")
    assert left(site) == ["/c, d", "http://other.example/a"]


def test_a_name_with_a_comma_is_one_group():
    """RFC 9875 §2: names are strings, not tokens."""
    site = grouped()
    unsafe(site, 'Cache-Group-Invalidation: "c, d"', url="/form")
    assert left(site) == ["/a", "/b", "http://other.example/a"]


@pytest.mark.parametrize(
    "value", ["a, b", '"a", b', "'a'", '("a" "b")', '"a" "b"', '"a",', ":YQ==:", '"a', "*"]
)
def test_a_broken_list_invalidates_no_group(value):
    """RFC 9651 §4.2: a field that does not parse is ignored as a whole."""
    site = grouped()
    unsafe(site, f"Cache-Group-Invalidation: {value}", url="/form")
    assert len(left(site)) == 4


@pytest.mark.parametrize("status", ["400 So", "403 So", "500 So"])
def test_a_failed_request_invalidates_no_group(status):
    """RFC 9875 §3 with RFC 9111 §4.4."""
    site = grouped()
    unsafe(site, 'Cache-Group-Invalidation: "a", "b"', status=status, url="/form")
    assert len(left(site)) == 4


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "QUERY"])
def test_a_safe_method_invalidates_no_group(method):
    """RFC 9875 §3: the field is for responses to unsafe methods."""
    site = grouped()
    site.answers(FRESH, 'Cache-Group-Invalidation: "a", "b"')
    site.ask(method, "/form")
    assert len(left(site)) == 4
