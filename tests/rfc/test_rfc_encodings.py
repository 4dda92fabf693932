"""Content codings of ours: RFC 9110 §8.4, §8.8.3.3, §12.5.3, §14.2; RFC 9111 §5.2.1.6, §5.2.2.6; RFC 9530."""

import zlib

import pytest
from rfc_helpers import Site, at

FRESH = "Cache-Control: max-age=60"
HTML = "Content-Type: text/html"
BODY = b"<p>a page that is long enough</p>" * 60


def coding_site(*lines, **options):
    """A site whose pages get gzip forms."""
    return Site(*(lines or (FRESH, HTML, 'ETag: "v1"')), body=BODY, encode="gzip", **options)


def made(site, accept="gzip"):
    """A hit after the form was made, if one is."""
    for _ in range(3):
        reply = site.get(headers={} if accept is None else {"Accept-Encoding": accept})
        assert site.cache.engine.refresher.drain()
    assert reply.is_hit
    return reply


def body(reply):
    coded = reply.field("content-encoding") == "gzip"
    return coded, zlib.decompress(reply.body, 31) if coded else reply.body


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize(
    ("accept", "coded"),
    [
        ("gzip", True), ("*", True), ("gzip;q=0.5, br", True), ("x-gzip", True), ("gzip;q=0", False),
        ("", False), (None, False), ("identity, gzip;q=0.5", False), ("*;q=0, gzip", True),
    ],
)  # fmt: skip
def test_a_client_gets_what_it_accepts(accept, coded, profile):
    """RFC 9110 §12.5.3: weights, `*`, an absent and an empty field."""
    assert body(made(coding_site(profile=profile), accept)) == (coded, BODY)


def test_a_coded_page_says_so():
    """RFC 9110 §8.4, §8.6, §12.5.5: coding, length of what is sent, and by what it varies, in the 304 too."""
    site = coding_site()
    reply = made(site)
    assert reply.field("content-encoding") == "gzip"
    assert reply.field("content-length") == str(len(reply.body))
    assert reply.field("vary") == "Accept-Encoding"
    kept = site.get(headers={"Accept-Encoding": "gzip", "If-None-Match": reply.field("etag")})
    assert (kept.code, kept.field("etag"), kept.field("vary")) == (
        304, reply.field("etag"), "Accept-Encoding",
    )  # fmt: skip
    assert kept.all("content-encoding") == []


def test_strong_tags_differ_by_coding():
    """RFC 9110 §8.8.3.3; a weak one is that of all."""
    site = coding_site()
    assert made(site).field("etag") != made(site, "").field("etag") == '"v1"'
    weak = coding_site(FRESH, HTML, 'ETag: W/"v1"')
    assert made(weak).field("etag") == made(weak, "").field("etag") == 'W/"v1"'


def test_a_range_is_of_the_coded_page():
    """RFC 9110 §14.2: of the representation that would have been sent."""
    site = coding_site()
    whole = made(site)
    part = site.get(headers={"Accept-Encoding": "gzip", "Range": "bytes=-8"})
    assert (part.code, part.body) == (206, whole.body[-8:])
    assert (
        part.field("content-range") == f"bytes {len(whole.body) - 8}-{len(whole.body) - 1}/{len(whole.body)}"
    )


def test_a_date_never_continues_a_coded_page():
    """RFC 9110 §8.8.1: a strong validator names one representation. A date is that of all codings, and who
    has nothing but a date has begun with the page as the app gave it."""
    old, day = at(-86400), "Cache-Control: max-age=90000"
    site = coding_site(day, HTML, f"Last-Modified: {old}", f"Date: {at(-3600)}")
    whole = made(site)
    asked = {"Accept-Encoding": "gzip", "Range": "bytes=10-", "If-Range": old}
    reply = site.get(headers=asked)
    assert (reply.is_hit, reply.code, reply.body) == (True, 200, whole.body)
    plain = site.get(headers={**asked, "Accept-Encoding": "identity"})
    assert (plain.is_hit, plain.code, plain.body) == (True, 206, BODY[10:])


def test_a_date_is_answered_with_the_tag_of_the_page():
    """RFC 9110 §15.4.5, RFC 9111 §4.3.4: the tag of a 304 names what the client has, and who has no tag has
    the page as the app gave it."""
    old = at(-86400)
    site = coding_site("Cache-Control: max-age=90000", HTML, f"Last-Modified: {old}")
    coded, plain = made(site).field("etag"), made(site, "").field("etag")
    for asked, tag in (({"If-Modified-Since": old}, plain), ({"If-None-Match": coded}, coded)):
        reply = site.get(headers={"Accept-Encoding": "gzip", **asked})
        assert (reply.is_hit, reply.code, reply.all("etag")) == (True, 304, [tag])


def test_no_transform_in_a_request_gets_the_page():
    """RFC 9111 §5.2.1.6."""
    site = coding_site()
    made(site)
    reply = site.get(headers={"Accept-Encoding": "gzip", "Cache-Control": "no-transform"})
    assert (reply.is_hit, body(reply)) == (True, (False, BODY))


@pytest.mark.parametrize("value", ["max-age=60, no-transform", "No-Transform, max-age=60"])
def test_no_transform_in_a_response_leaves_it_alone(value):
    """RFC 9111 §5.2.2.6."""
    reply = made(coding_site(f"Cache-Control: {value}", HTML))
    assert (body(reply), reply.all("vary")) == ((False, BODY), [])


def test_no_transform_for_this_cache_alone_leaves_it_alone():
    """RFC 9213 §2.2: what a targeted field says holds here in place of Cache-Control."""
    reply = made(coding_site(FRESH, HTML, "CDN-Cache-Control: max-age=60, no-transform"))
    assert (body(reply), reply.all("vary")) == ((False, BODY), [])


@pytest.mark.parametrize(("varies", "secret"), [("Cookie", "session=a"), ("Authorization", "Basic YTpi")])
def test_a_page_that_a_visitors_secret_selects_is_not_coded(varies, secret):
    """RFC 9110 §17.6: the length of a coded page tells of what else is in it (BREACH)."""
    site = coding_site("Cache-Control: public, max-age=60", HTML, f"Vary: {varies}", profile="rfc")
    for _ in range(3):
        reply = site.get(headers={"Accept-Encoding": "gzip", varies: secret})
        assert site.cache.engine.refresher.drain()
    assert (reply.is_hit, body(reply)) == (True, (False, BODY))
    assert body(made(site)) == (True, BODY)


@pytest.mark.parametrize(
    "line", ["Content-Digest: sha-256=:x:", "Repr-Digest: sha-256=:x:", "Digest: sha-256=x"]
)
def test_a_digest_of_the_body_leaves_it_alone(line):
    """RFC 9530 §2, §3: it would not be that of the coded bytes, and who checks it would see a damage."""
    reply = made(coding_site(FRESH, HTML, line))
    assert (body(reply), reply.all("vary")) == ((False, BODY), [])


def test_a_page_that_the_app_codes_is_the_apps():
    """RFC 9110 §8.4: no second coding is put upon the first."""
    reply = made(coding_site(FRESH, HTML, "Content-Encoding: x-own"))
    assert (reply.all("content-encoding"), reply.body, reply.all("vary")) == (["x-own"], BODY, [])
