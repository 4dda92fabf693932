"""Targeted fields: RFC 9213."""

import pytest
from rfc_helpers import DAY, Site, assert_lifetime, assert_never_fresh, assert_not_stored, at

TAG = 'ETag: "a"'


@pytest.mark.parametrize("name", ["CDN-Cache-Control", "cdn-cache-control", "Wsgicache-Cache-Control"])
@pytest.mark.parametrize(
    "rest",
    [
        [],
        ["Cache-Control: max-age=10"],
        ["Cache-Control: no-store"],
        ["Cache-Control: private"],
        [f"Expires: {at(-5)}"],
    ],
)
def test_a_targeted_field_takes_the_place_of_cache_control_and_expires(name, rest):
    """RFC 9213 §2.2: the others are ignored for caching."""
    assert_lifetime(Site(f"{name}: max-age=60", *rest), 60)


def test_ours_beats_the_cdns():
    """RFC 9213 §2.2: the first field of the target list that is there and valid."""
    lines = [
        "CDN-Cache-Control: max-age=10",
        "Wsgicache-Cache-Control: max-age=60",
        "Cache-Control: max-age=5",
    ]
    assert_lifetime(Site(*lines), 60)
    assert_lifetime(Site(*lines, targeted_fields="cdn-cache-control, wsgicache-cache-control"), 10)


def test_which_fields_count_is_an_option():
    """RFC 9213 §2.2: a target list is the cache's own."""
    lines = ["CDN-Cache-Control: max-age=10", "Edge-Cache-Control: max-age=60", "Cache-Control: max-age=5"]
    assert_lifetime(Site(*lines, targeted_fields="edge-cache-control"), 60)
    assert_lifetime(Site(*lines, targeted_fields=""), 5)


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "max-age=60,",
        "max-age= 60",
        "max-age =60",
        "Max-Age=60",
        "MAX-AGE=60",
        "max-age=60 public",
        "max-age=60; ;",
        "max-age='60'",
        "max-age=60, 1=2",
        'private="x',
        "max-age=99999999999999999999",
        "max-age=60.",
        "&",
        "max-age=\xe9",
    ],
)
def test_a_field_that_does_not_parse_is_as_good_as_absent(value):
    """RFC 9213 §2.1: a structured Dictionary; RFC 9651: keys are lower case, and all of it has to parse."""
    assert_lifetime(Site(f"CDN-Cache-Control: {value}", "Cache-Control: max-age=5"), 5)
    assert_not_stored(Site(f"CDN-Cache-Control: {value}", "Cache-Control: no-store"), "NOT_STORED_NO_STORE")


def test_a_broken_field_gives_way_to_the_next_of_the_list():
    """RFC 9213 §2.2: the next valid one, then Cache-Control."""
    lines = ["Wsgicache-Cache-Control: max-age=", "CDN-Cache-Control: max-age=60", "Cache-Control: max-age=5"]
    assert_lifetime(Site(*lines), 60)


@pytest.mark.parametrize(
    "value",
    ["max-age=60.5", 'max-age="60"', "max-age=abc", "max-age=-1", "max-age", "max-age=?1", "max-age=(60)"],
)
def test_a_lifetime_of_another_type_is_none(value):
    """RFC 9213 §2.1: the value has another type, so the response is best taken as stale."""
    assert_never_fresh(
        Site(f"CDN-Cache-Control: {value}", "Cache-Control: max-age=600", f"Expires: {at(DAY)}", TAG)
    )


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=10, max-age=60", 60),
        ("max-age=60, s-maxage=30", 30),
        ("max-age=60;foo=bar", 60),
        ("max-age=60, unknown=(a b), other;x", 60),
        ("public=?1,\tmax-age=60", 60),
        ("no-store=?0, max-age=60", 60),
    ],
)
def test_the_rules_of_a_dictionary_hold(value, seconds):
    """RFC 9651 §4.2.2: the last of equal keys counts, parameters mean nothing, ?0 is false."""
    assert_lifetime(Site(f"CDN-Cache-Control: {value}"), seconds)


@pytest.mark.parametrize(
    ("value", "detail"),
    [
        ("no-store", "NOT_STORED_NO_STORE"),
        ("no-store=?1, max-age=60", "NOT_STORED_NO_STORE"),
        ("no-store=x, max-age=60", "NOT_STORED_NO_STORE"),
        ("private, max-age=60", "NOT_STORED_PRIVATE"),
    ],
)
def test_a_prohibition_in_the_targeted_field_beats_cache_control(value, detail):
    """RFC 9213 §2.2."""
    assert_not_stored(Site(f"CDN-Cache-Control: {value}", "Cache-Control: public, max-age=600"), detail)


def test_no_cache_and_must_revalidate_work_in_it():
    """RFC 9213 §2.1: all response directives of Cache-Control."""
    site = Site("CDN-Cache-Control: no-cache", "Cache-Control: max-age=600", TAG)
    site.stored()
    assert site.get().detail == "STALE_NO_CACHE"
    strict = Site("CDN-Cache-Control: max-age=60, must-revalidate, stale-if-error=600", TAG)
    strict.stored()
    strict.tick(61)
    strict.answers(status="503 So", body=b"down")
    assert strict.get().body == b"down"


def test_several_lines_are_one_dictionary():
    """RFC 9651 §4.2: lines are joined by a comma."""
    assert_lifetime(Site("CDN-Cache-Control: max-age=60", "CDN-Cache-Control: public"), 60)


def test_an_empty_dictionary_leaves_the_heuristic_to_cache_control():
    """RFC 9213 §2.2: an empty field is not valid, so Cache-Control and Expires are read."""
    assert_lifetime(Site("CDN-Cache-Control:", f"Expires: {at(60)}"), 60)


def test_without_a_lifetime_in_it_there_is_only_the_heuristic():
    """RFC 9213 §2.2: neither max-age of Cache-Control nor Expires counts beside a valid targeted field."""
    assert_never_fresh(Site("CDN-Cache-Control: public", "Cache-Control: max-age=60", f"Expires: {at(60)}"))
    guessed = Site("CDN-Cache-Control: public", "Cache-Control: max-age=5", f"Last-Modified: {at(-600)}")
    assert_lifetime(guessed, 60)


def test_a_targeted_field_of_somebody_else_means_nothing():
    """RFC 9213 §2: fields that are not on the target list."""
    assert_lifetime(Site("Other-Cache-Control: no-store", "Cache-Control: max-age=60"), 60)


def test_the_cdns_field_is_passed_on_with_the_rest():
    """RFC 9213 §2.2: it may concern others behind us; Age and Expires stay as they are (§3)."""
    site = Site("CDN-Cache-Control: max-age=60", "Cache-Control: max-age=5", f"Expires: {at(5)}")
    site.stored()
    site.tick(30)
    hit = site.get()
    assert (hit.cache, hit.field("Age")) == ({"hit": "", "ttl": "30"}, "30")
    assert hit.field("CDN-Cache-Control") == "max-age=60"
    assert (hit.field("Cache-Control"), hit.field("Expires")) == ("max-age=5", at(5))
