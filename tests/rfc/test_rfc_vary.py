"""Varying responses: RFC 9111 §4.1, RFC 9110 §12.5.5."""

import pytest
from rfc_helpers import Site, assert_not_stored, page

FRESH = "Cache-Control: max-age=60"


def echoing(*lines, field="HTTP_X_FLAVOUR", **options):
    """A site whose page is the value of a request field."""
    site = Site(**options)
    site.app.answers(lambda environ: page(FRESH, *lines, body=repr(environ.get(field)).encode()))
    return site


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize(
    "lines",
    [
        ["Vary: *"],
        ["Vary: *, X-A"],
        ["Vary: X-A, *"],
        ["Vary: X-A,*"],
        ["Vary: X-A,\t*\t,X-B"],
        ["Vary: , *"],
        ["Vary: X-A", "Vary: *"],
        ["Vary: *", "Vary: X-A"],
        ["vary:  * "],
        ["Vary: X-A X-B"],
        ['Vary: "X-A"'],
        ["Vary: X-A;q=1"],
    ],
)
def test_a_star_anywhere_or_a_broken_list_is_never_reused(lines, profile):
    """RFC 9111 §4.1: a Vary with a member * always fails to match; so does what cannot be read."""
    assert_not_stored(Site(FRESH, *lines, profile=profile), "NOT_STORED_VARY")


@pytest.mark.parametrize(
    "lines",
    [
        ["Vary: X-Flavour"],
        ["Vary: x-flavour"],
        ["Vary: X-Other, X-Flavour"],
        ["Vary: X-Other,X-FLAVOUR , X-Other"],
        ["Vary: X-Other", "Vary: X-Flavour"],
        ["Vary: ,X-Flavour,"],
    ],
)
def test_a_variant_answers_requests_with_the_same_values(lines):
    """RFC 9111 §4.1: names in any case, order and number of lines."""
    site = echoing(*lines)
    sweet = site.stored(headers={"X-Flavour": "sweet"})
    sour = site.get(headers={"X-Flavour": "sour"})
    assert (sour.cache["fwd"], sour.stored, sour.body) == ("vary-miss", True, b"'sour'")
    for flavour, body in (("sweet", sweet.body), ("sour", sour.body), ("sweet", b"'sweet'")):
        hit = site.get(headers={"X-Flavour": flavour})
        assert (hit.is_hit, hit.body) == (True, body)
    assert site.calls == 2


@pytest.mark.parametrize(
    ("one", "other"), [(None, ""), ("", None), ("a", None), (None, "a"), ("", " "), ("a", "A")]
)
def test_absent_differs_from_empty_and_values_are_compared_exactly(one, other):
    """RFC 9111 §4.1: a field that is absent matches only where it is absent too."""
    site = echoing("Vary: X-Flavour")
    headers = [{} if value is None else {"X-Flavour": value} for value in (one, other)]
    site.stored(headers=headers[0])
    second = site.get(headers=headers[1])
    assert (second.cache["fwd"], second.body, site.calls) == ("vary-miss", repr(other).encode(), 2)
    assert [site.get(headers=each).body for each in headers] == [repr(one).encode(), repr(other).encode()]
    assert site.calls == 2


def test_an_empty_vary_varies_on_nothing():
    """RFC 9110 §12.5.5."""
    site = echoing("Vary:")
    site.stored(headers={"X-Flavour": "sweet"})
    assert (site.get(headers={"X-Flavour": "sour"}).is_hit, site.calls) == (True, 1)


def test_several_fields_vary_together():
    """RFC 9111 §4.1: all fields that Vary names have to match."""
    site = echoing("Vary: X-Flavour, X-Size")
    site.stored(headers={"X-Flavour": "a", "X-Size": "1"})
    for headers in ({"X-Flavour": "a", "X-Size": "2"}, {"X-Flavour": "b", "X-Size": "1"}, {"X-Flavour": "a"}):
        assert site.get(headers=headers).cache["fwd"] == "vary-miss"
    assert site.get(headers={"X-Flavour": "a", "X-Size": "1", "X-Colour": "red"}).is_hit
    assert site.calls == 4


def test_a_value_cannot_pretend_to_be_two():
    """RFC 9111 §4.1 with keys that are injective (house rule 11)."""
    site = echoing("Vary: X-Flavour, X-Size")
    site.stored(headers={"X-Flavour": "a\tb", "X-Size": "c"})
    assert site.get(headers={"X-Flavour": "a", "X-Size": "b\tc"}).cache["fwd"] == "vary-miss"
    assert site.get(headers={"X-Flavour": "a", "X-Size": ""}).cache["fwd"] == "vary-miss"
    assert site.calls == 3


def test_responses_of_one_url_may_vary_on_different_fields():
    """RFC 9111 §4.1: what any of them varies on selects among them from then on."""
    site = Site()

    def answer(environ):
        if environ.get("HTTP_X_SIZE") == "2":
            return page(FRESH, "Vary: X-Size", body=b"big")
        return page(FRESH, "Vary: X-Flavour", body=environ.get("HTTP_X_FLAVOUR", "plain").encode())

    site.app.answers(answer)
    requests = [
        ({"X-Flavour": "sweet"}, b"sweet"),
        ({"X-Flavour": "sour"}, b"sour"),
        ({"X-Flavour": "mild", "X-Size": "2"}, b"big"),
        ({"X-Flavour": "sour"}, b"sour"),
        ({"X-Flavour": "sweet", "X-Size": "1"}, b"sweet"),
        ({"X-Flavour": "mild", "X-Size": "2"}, b"big"),
    ]
    for _ in range(3):
        for headers, body in requests:
            assert site.get(headers=headers).body == body
    calls = site.calls
    for headers, body in requests:
        hit = site.get(headers=headers)
        assert (hit.is_hit, hit.body) == (True, body)
    assert site.calls == calls


def test_a_page_that_begins_to_vary_is_no_longer_answered_for_all():
    """RFC 9111 §4.1: the fields of the response that would be chosen decide."""
    site = Site(FRESH, body=b"for all")
    site.stored()
    site.tick(60)
    site.app.answers(lambda environ: page(FRESH, "Vary: X-Flavour", body=environ["HTTP_X_FLAVOUR"].encode()))
    assert site.get(headers={"X-Flavour": "a"}).body == b"a"
    assert site.get(headers={"X-Flavour": "b"}).body == b"b"
    assert site.get(headers={"X-Flavour": "a"}).is_hit
    assert site.calls == 3


def test_a_page_that_stops_to_vary_is_answered_for_all_in_time():
    """RFC 9111 §4.1."""
    site = echoing("Vary: X-Flavour")
    site.stored(headers={"X-Flavour": "a"})
    site.tick(60)
    site.answers(FRESH, body=b"for all")
    assert site.get(headers={"X-Flavour": "a"}).body == b"for all"
    assert site.get(headers={"X-Flavour": "a"}).is_hit
    assert site.get(headers={"X-Flavour": "b"}).body == b"for all"


def test_another_variant_is_not_validated_by_this_ones_tag():
    """RFC 9111 §4.3.1 would allow it; we ask plainly, so that a 304 is always about the variant chosen."""
    site = Site(FRESH, "Vary: X-Flavour", 'ETag: "sweet"')
    site.stored(headers={"X-Flavour": "sweet"})
    site.get(headers={"X-Flavour": "sour"})
    assert "HTTP_IF_NONE_MATCH" not in site.last
    assert site.calls == 2


def test_a_validation_carries_the_varying_fields():
    """RFC 9111 §4.3.1: the request goes on with the fields that select the variant."""
    site = Site(FRESH, "Vary: X-Flavour", 'ETag: "sweet"')
    site.stored(headers={"X-Flavour": "sweet"})
    site.tick(60)
    site.get(headers={"X-Flavour": "sweet"})
    assert (site.last["HTTP_X_FLAVOUR"], site.last["HTTP_IF_NONE_MATCH"]) == ("sweet", '"sweet"')


def test_the_number_of_variants_is_bounded():
    """House rule 16: ten thousand values of a field do not fill the store; the newest stay."""
    site = echoing("Vary: X-Flavour", max_variants=4)
    for number in range(50):
        site.stored(headers={"X-Flavour": str(number)})
    assert site.cache.store.stats()["entries"] <= 5
    assert site.get(headers={"X-Flavour": "49"}).is_hit
    assert site.get(headers={"X-Flavour": "0"}).cache["fwd"] == "vary-miss"
    assert site.calls == 51


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gzip, br", "br,gzip;q=0.5"),
        ("gzip", "GZIP, deflate"),
        ("identity", ""),
        ("gzip;q=0", None),
        ("*", "br, gzip, zstd"),
    ],
)
def test_accept_encoding_is_normalised_in_the_safe_profile(one, other):
    """RFC 9111 §4.1 allows normalising to what means the same; the app sees the normal form too."""
    site = echoing("Vary: Accept-Encoding", field="HTTP_ACCEPT_ENCODING", profile="safe")
    first = site.stored(headers={"Accept-Encoding": one})
    second = site.get(headers={} if other is None else {"Accept-Encoding": other})
    assert (second.is_hit, second.body, site.calls) == (True, first.body, 1)


@pytest.mark.parametrize(
    ("one", "other"), [("gzip", "gzip;q=0"), ("br", "gzip"), ("identity", "identity;q=0"), ("gzip", "*;q=0")]
)
def test_what_does_not_mean_the_same_is_not_normalised_away(one, other):
    """RFC 9110 §12.5.3: q=0 means no."""
    site = echoing("Vary: Accept-Encoding", field="HTTP_ACCEPT_ENCODING", profile="safe")
    site.stored(headers={"Accept-Encoding": one})
    assert site.get(headers={"Accept-Encoding": other}).cache["fwd"] == "vary-miss"
    assert site.calls == 2


def test_the_rfc_profile_normalises_nothing():
    """RFC 9111 §4.1: normalising is an option that this profile does not take."""
    site = echoing("Vary: Accept-Encoding", field="HTTP_ACCEPT_ENCODING")
    assert site.stored(headers={"Accept-Encoding": "gzip, br"}).body == b"'gzip, br'"
    assert site.get(headers={"Accept-Encoding": "gzip,br"}).cache["fwd"] == "vary-miss"


@pytest.mark.parametrize("profile", ["rfc", "safe"])
def test_accept_language_is_normalised_to_the_languages_of_the_site(profile):
    """RFC 9111 §4.1, RFC 4647 §3.4: by choice, and the app sees what the key holds."""
    site = echoing("Vary: Accept-Language", field="HTTP_ACCEPT_LANGUAGE", profile=profile, languages="de, en")
    values = ["en-GB,en;q=0.9", "EN", "fr, en;q=0.5", "en;q=0.8, de;q=0.3"]
    bodies = {site.get(headers={"Accept-Language": value}).body for value in values}
    assert (bodies, site.calls) == ({b"'en'"}, 1)
    assert site.get(headers={"Accept-Language": "de-AT"}).body == b"'de'"
    assert site.get().body == b"'de'"
    assert site.calls == 2


def test_vary_cookie_in_the_rfc_profile():
    """RFC 9111 §4.1: Cookie is a field like others."""
    site = echoing("Vary: Cookie", field="HTTP_COOKIE")
    site.stored(headers={"Cookie": "a=1"})
    assert site.get(headers={"Cookie": "a=2"}).cache["fwd"] == "vary-miss"
    assert site.get().cache["fwd"] == "vary-miss"
    assert site.get(headers={"Cookie": "a=1"}).is_hit
    assert site.calls == 3


def test_vary_cookie_in_the_safe_profile():
    """House rule 8: stored for requests without cookies only."""
    site = echoing("Vary: Cookie", field="HTTP_COOKIE", profile="safe")
    assert site.get(headers={"Cookie": "a=1"}).stored is False
    site.stored()
    assert site.get().is_hit
    assert site.get(headers={"Cookie": "a=1"}).body == b"'a=1'"
    assert site.calls == 3


def test_vary_authorization_in_the_safe_profile():
    """House rule 8."""
    assert_not_stored(Site(FRESH, "Vary: Authorization", profile="safe"), "NOT_STORED_VARY")
