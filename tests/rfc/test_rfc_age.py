"""Age: RFC 9111 §4.2.3 and §5.1."""

import pytest
from rfc_helpers import START, Site, at, page

FRESH = "Cache-Control: max-age=3600"


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        ("007", 7),
        ("3599", 3599),
        ("7, 0", 7),
        ("0, 7", 0),
        ("7,", 7),
        ("-7", 0),
        ("+7", 0),
        ("7.5", 0),
        ("7;a=b", 0),
        ("7 8", 0),
        ('"7"', 0),
        ("seven", 0),
        ("", 0),
        (",7", 0),
        ("\xd9\xa7", 0),
    ],
)
def test_the_age_received_counts_where_it_is_a_number(age, seconds):
    """RFC 9111 §5.1: the first member of a list; anything but a non-negative integer is ignored."""
    site = Site(FRESH, f"Age: {age}")
    first = site.stored()
    assert (first.cache["ttl"], first.all("Age")) == (str(3600 - seconds), [age])
    hit = site.get()
    assert (hit.is_hit, hit.all("Age"), site.calls) == (True, [str(seconds)], 1)


def test_several_age_lines_count_as_their_first():
    """RFC 9111 §5.1: a cache uses the first member and discards the others."""
    site = Site(FRESH, "Age: 7", "Age: 9")
    site.stored()
    hit = site.get()
    assert (hit.all("Age"), hit.cache["ttl"]) == (["7"], "3593")


@pytest.mark.parametrize("age", ["3600", "2147483648", "99999999999999999999", "9" * 5000])
def test_an_answer_older_than_its_lifetime_is_stale_on_arrival(age):
    """RFC 9111 §4.2: age beyond the lifetime; §1.2.2: a huge number is just huge."""
    site = Site(FRESH, f"Age: {age}")
    first = site.get()
    assert (first.stored, first.detail, first.all("Age")) == (False, "NOT_STORED_STALE", [age])
    assert (site.get().is_hit, site.calls) == (False, 2)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        (at(0), 0),
        (at(-600), 600),
        (at(600), 0),
        ("Tue Nov 14 22:03:20 2023", 600),
        ("Tuesday, 14-Nov-23 22:03:20 GMT", 600),
        ("yesterday", 0),
        ("", 0),
    ],
)
def test_the_apparent_age_comes_from_date(date, seconds):
    """RFC 9111 §4.2.3: now minus Date, never below zero; a Date in the future or no date says nothing."""
    site = Site(FRESH, f"Date: {date}")
    assert site.stored().cache["ttl"] == str(3600 - seconds)
    assert site.get().field("Age") == str(seconds)


@pytest.mark.parametrize(("age", "date", "seconds"), [(300, -600, 600), (600, -300, 600), (600, 300, 600)])
def test_the_larger_of_the_two_ages_counts(age, date, seconds):
    """RFC 9111 §4.2.3: corrected_initial_age = max(apparent_age, corrected_age_value)."""
    site = Site(FRESH, f"Age: {age}", f"Date: {at(date)}")
    site.stored()
    assert site.get().field("Age") == str(seconds)


def slow(site, seconds, *lines):
    def answer(environ):
        site.tick(seconds)
        return page(*lines)

    site.app.answers(answer)


def test_the_time_that_the_app_took_is_age():
    """RFC 9111 §4.2.3: response_delay, from the request to the answer, is added to the Age received."""
    site = Site()
    slow(site, 20, FRESH, "Age: 5")
    assert site.stored().cache["ttl"] == "3575"
    hit = site.get()
    assert (hit.field("Age"), site.calls) == ("25", 1)


def test_a_delay_alone_is_age_too():
    """RFC 9111 §4.2.3: without Age and Date the delay is what is left."""
    site = Site()
    slow(site, 20, FRESH)
    site.stored()
    assert site.get().field("Age") == "20"


def test_the_time_in_the_store_is_added_and_told_once():
    """RFC 9111 §4: a response from the store carries one Age, equal to its current age."""
    site = Site(FRESH, "Age: 5", "age: 6", f"Date: {at(-3)}")
    first = site.stored()
    assert first.all("Age") == ["5", "6"]  # what passes through is not touched
    site.tick(100)
    hit = site.get()
    assert (hit.all("Age"), hit.cache, site.calls) == (["105"], {"hit": "", "ttl": "3495"}, 1)
    assert hit.all("Date") == [at(-3)]


def test_age_and_ttl_add_up_to_the_lifetime():
    """RFC 9211 §2.4: ttl is lifetime minus age, also between two seconds."""
    site = Site(FRESH)
    site.stored()
    for tick in (0.3, 0.3, 0.5, 0.9, 17.2, 1000):
        site.tick(tick)
        hit = site.get()
        assert int(hit.field("Age")) + int(hit.cache["ttl"]) == 3600
        assert int(hit.field("Age")) == int(site.clock.now - START)


def test_a_forwarded_answer_gets_no_age():
    """RFC 9111 §5.1: Age says that a response was not made for this request."""
    site = Site("Cache-Control: no-store")
    assert site.get().field("Age") is None


def test_a_304_from_the_store_has_its_age():
    """RFC 9111 §4, RFC 9110 §15.4.5."""
    site = Site(FRESH, 'ETag: "a"')
    site.stored()
    site.tick(9)
    reply = site.get(headers={"If-None-Match": '"a"'})
    assert (reply.code, reply.field("Age"), reply.is_hit) == (304, "9", True)


def test_a_clock_that_went_back_makes_nothing_younger():
    """RFC 9111 §4.2.3 with a clock that was set (TIM-01): what seems to come from the future is stale."""
    site = Site(FRESH, 'ETag: "a"')
    site.stored()
    site.tick(-600)
    reply = site.get()
    assert ("fwd" in reply.cache, site.calls) == (True, 2)
