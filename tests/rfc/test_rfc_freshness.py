"""Freshness lifetimes: RFC 9111 §4.2 to §4.2.2, §5.2.2.1, §5.2.2.10 and §5.3."""

import pytest
from rfc_helpers import DAY, START, Site, assert_lifetime, assert_never_fresh, assert_not_stored, at

OLD = f"Last-Modified: {at(-1000)}"
TAG = 'ETag: "a"'
"""With a validator even a stale answer is stored, so that only freshness is tried."""


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["Cache-Control: s-maxage=30, max-age=60", f"Expires: {at(90)}", OLD], 30),
        (["Cache-Control: max-age=60, s-maxage=30"], 30),
        (["Cache-Control: max-age=10, s-maxage=30"], 30),
        (["Cache-Control: max-age=60", f"Expires: {at(90)}", OLD], 60),
        (["Cache-Control: max-age=60", f"Expires: {at(-90)}", f"Date: {at(0)}"], 60),
        ([f"Expires: {at(90)}", f"Date: {at(0)}", OLD], 90),
        ([OLD, f"Date: {at(0)}"], 100),
    ],
)
def test_the_first_statement_in_the_order_of_the_rfc_counts(lines, seconds):
    """RFC 9111 §4.2.1: s-maxage, max-age, Expires, then a heuristic."""
    assert_lifetime(Site(*lines), seconds)


def test_without_any_statement_nothing_is_fresh():
    """RFC 9111 §4.2.1: the rfc profile gives no lifetime of its own."""
    assert_not_stored(Site(), "NOT_STORED_NO_LIFETIME")


# --- max-age and s-maxage --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "control",
    [
        "max-age=60",
        "Max-Age=60",
        "MAX-AGE=60",
        'max-age="60"',
        "max-age=060",
        "max-age=60, max-age=60",
        "max-age=60,",
        ", ,max-age=60",
        "public ,max-age=60",
        "max-age=60, immutable",
        "max-age=60, something-new",
        'max-age=60, something-new="no-store, private"',
        'x="a, max-age=3", max-age=60',
        "something=max-age=3, max-age=60",
    ],
)
def test_max_age_is_read_in_all_its_spellings(control):
    """RFC 9111 §5.2: names in any case, token or quoted form, unknown directives ignored (§5.2.3)."""
    assert_lifetime(Site(f"Cache-Control: {control}"), 60)


def test_several_lines_are_one_list():
    """RFC 9110 §5.3: a list field on several lines."""
    assert_lifetime(Site("Cache-Control: public", "Cache-Control: max-age=60"), 60)


@pytest.mark.parametrize(
    "control",
    [
        "max-age=-1",
        "max-age=-60",
        "max-age=60.5",
        "max-age=1e3",
        "max-age=0x60",
        "max-age=60s",
        "max-age=a60",
        "max-age='60'",
        "max-age=",
        "max-age",
        'max-age=""',
        'max-age="-1"',
        "max-age= 60",
        "max-age =60",
        "max-age=6 0",
        "max-age=\xd9\xa6\xd9\xa0",
        "max-age=60, max-age=30",
        "max-age=30, max-age=60",
        "max-age=0, max-age=60",
        "max-age=60, max-age=abc",
        "max-age=0",
        "s-maxage=0, max-age=60",
        "s-maxage=abc, max-age=60",
    ],
)
def test_a_lifetime_that_makes_no_sense_is_none(control):
    """RFC 9111 §4.2.1: invalid or contradictory freshness information is best taken as stale."""
    assert_never_fresh(Site(f"Cache-Control: {control}", f"Expires: {at(DAY)}", TAG))


@pytest.mark.parametrize("digits", ["2147483648", "4294967296", "99999999999999999999", "9" * 5000])
def test_a_huge_lifetime_is_the_largest_one(digits):
    """RFC 9111 §1.2.2: an overflow reads as 2147483648 (2^31)."""
    site = Site(f"Cache-Control: max-age={digits}")
    assert site.stored().cache["ttl"] == "2147483648"
    site.tick(10 * 365 * DAY)
    hit = site.get()
    assert (hit.is_hit, hit.field("Age"), site.calls) == (True, str(10 * 365 * DAY), 1)


# --- Expires ---------------------------------------------------------------------------------------


def test_expires_counts_from_date():
    """RFC 9111 §4.2.1: Expires minus Date, so that a wrong clock at the origin does not matter."""
    fast = Site(f"Expires: {at(5060)}", f"Date: {at(5000)}")
    assert fast.stored().cache["ttl"] == "60"
    slow = Site(f"Expires: {at(-100)}", f"Date: {at(-5000)}")
    assert_never_fresh(slow)  # 4900 seconds of lifetime, 5000 of age


def test_expires_without_date_counts_from_the_arrival():
    """RFC 9110 §6.6.1: a response without Date was sent when it came."""
    assert_lifetime(Site(f"Expires: {at(60)}"), 60)


@pytest.mark.parametrize(
    "expires",
    [
        "Wed, 15 Nov 2023 22:13:20 GMT",
        "Wednesday, 15-Nov-23 22:13:20 GMT",
        "Wed Nov 15 22:13:20 2023",
        "wed, 15 nov 2023 22:13:20 gmt",
    ],
)
def test_expires_in_each_form_of_a_date(expires):
    """RFC 9110 §5.6.7: three forms; RFC 9111 §4.2: compared without regard to case."""
    assert_lifetime(Site(f"Expires: {expires}", f"Date: {at(0)}"), DAY)


@pytest.mark.parametrize(
    "expires",
    [
        "0",
        "-1",
        "",
        "never",
        "60",
        "Wed 15 Nov 2023 22:13:20 GMT",
        "Wed, 15 Nov 2023 22:13:20",
        "Wed, 15 Nov 2023 22:13:20 UTC",
        "Wed, 15 Nov 2023 22:13:20 EST",
        "Wed, 15 Nov 2023 22:13:20 +0000",
        "Wed, 15 Nov 2023 10:13:20 PM GMT",
        "Wed, 15 Nov 2023 22.13.20 GMT",
        "Wed, 15-Nov-2023 22:13:20 GMT",
        "Wed, 15-Nov-23 22:13:20 GMT",
        "Wed, 15 Nov 23 22:13:20 GMT",
        "Wed, 5 Nov 2023 22:13:20 GMT",
        "Wed, 15  Nov 2023 22:13:20 GMT",
        "Thu, 15 Nov 2023 22:13:20 GMT",
        "Wed, 15 Nov 2023 24:13:20 GMT",
        "Wed, 15 Nov 2023 22:13:61 GMT",
        "Wed, 31 Nov 2023 22:13:20 GMT",
        "Wed, 15 Noviembre 2023 22:13:20 GMT",
        "15 Nov 2023 22:13:20 GMT",
        "Wednesday, 15 Nov 2023 22:13:20 GMT",
        "Wed Nov 15 22:13:20 2023 GMT",
        "Mon Nov 6 22:13:20 2023",
        "Wed, 15 Nov 2023 22:13:20 GMT, Wed, 15 Nov 2023 22:13:20 GMT",
        '"Wed, 15 Nov 2023 22:13:20 GMT"',
        "1700086400",
    ],
)
def test_a_malformed_expires_is_in_the_past(expires):
    """RFC 9111 §5.3: an invalid date, 0 above all, reads as a time in the past; no guess beats it."""
    assert_never_fresh(Site(f"Expires: {expires}", f"Date: {at(0)}", f"Last-Modified: {at(-DAY)}"))


def test_two_expires_lines_are_no_date():
    """RFC 9111 §4.2.1: of conflicting statements none makes the response fresh."""
    assert_never_fresh(Site(f"Expires: {at(60)}", f"Expires: {at(90)}", TAG))


@pytest.mark.parametrize("seconds", [0, -1, -DAY])
def test_an_expires_that_is_not_in_the_future_is_stale(seconds):
    """RFC 9111 §5.3."""
    assert_never_fresh(Site(f"Expires: {at(seconds)}", f"Date: {at(0)}", TAG))


# --- heuristics ------------------------------------------------------------------------------------


def test_the_heuristic_is_a_tenth_of_the_age_of_the_page():
    """RFC 9111 §4.2.2."""
    assert_lifetime(Site(f"Last-Modified: {at(-36000)}", f"Date: {at(0)}"), 3600)


def test_the_heuristic_has_an_upper_limit():
    """RFC 9111 §4.2.2: caches set an upper limit; ours is a day."""
    assert_lifetime(Site(f"Last-Modified: {at(-1000 * DAY)}"), DAY)


@pytest.mark.parametrize(
    "status", ["200", "203", "204", "300", "301", "308", "404", "405", "410", "414", "501"]
)
def test_statuses_for_which_a_guess_is_allowed(status):
    """RFC 9110 §15.1: heuristically cacheable statuses."""
    assert_lifetime(Site(OLD, status=f"{status} So", body=b""), 100)


@pytest.mark.parametrize(
    "status", ["201", "202", "302", "303", "307", "400", "403", "418", "500", "502", "503", "599"]
)
def test_statuses_for_which_none_is(status):
    """RFC 9111 §3, §4.2.2: others need an explicit lifetime, or they are not even stored."""
    assert_not_stored(Site(OLD, TAG, status=f"{status} So"), "NOT_STORED_NO_LIFETIME")


@pytest.mark.parametrize("status", ["201", "302", "403", "503", "599"])
def test_public_allows_a_guess_for_any_status(status):
    """RFC 9111 §4.2.2: or explicitly marked as cacheable, with public."""
    assert_lifetime(Site(OLD, "Cache-Control: public", status=f"{status} So"), 100)


@pytest.mark.parametrize(
    "lines",
    [
        [f"Last-Modified: {at(0)}"],
        [f"Last-Modified: {at(500)}"],
        ["Last-Modified: yesterday"],
        [OLD, "Date: today"],
        [f"Last-Modified: {at(-5)}"],
    ],
)
def test_nothing_is_guessed_from_a_senseless_last_modified(lines):
    """RFC 9111 §4.2.2: without two dates in their order there is no guess."""
    assert_never_fresh(Site(*lines))


def test_the_heuristic_holds_whatever_the_query():
    """RFC 9111 §4.2.2 withdraws RFC 2616's exception for URLs with a query."""
    site = Site(OLD)
    assert site.stored("/?q=1").cache["ttl"] == "100"
    assert site.get("/?q=1").is_hit


def test_the_safe_profile_does_not_guess():
    """House rule 2: a 200 that states nothing gets `ttl`, whatever its Last-Modified."""
    site = Site(f"Last-Modified: {at(-1000 * DAY)}", profile="safe")
    assert site.stored().cache["ttl"] == "300"


def test_fresh_until_the_last_second_and_no_longer():
    """RFC 9111 §4.2: fresh while the lifetime is greater than the age."""
    site = Site("Cache-Control: max-age=60", TAG)
    site.stored()
    site.tick(59.9)
    assert site.get().cache == {"hit": "", "ttl": "1"}
    site.tick(0.1)
    reply = site.get()
    assert (reply.cache["fwd"], site.calls) == ("stale", 2)
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    assert site.clock.now == START + 60
