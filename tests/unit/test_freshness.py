"""Lifetime and age: the examples of RFC 9111 §4.2, and arithmetic that never goes astray."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import Rule, WSGICache
from wsgicache.codec import encode
from wsgicache.entry import FOREVER
from wsgicache.fields import EMPTY, cache_control
from wsgicache.freshness import (
    HEURISTIC_CAP,
    HEURISTIC_STATUSES,
    Lifetime,
    NamedSeconds,
    age_value,
    explicit_lifetime,
    heuristic_lifetime,
    initial_age,
)
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT
DATE = "Tue, 14 Nov 2023 22:13:20 GMT"
IN_AN_HOUR = "Tue, 14 Nov 2023 23:13:20 GMT"
AN_HOUR_AGO = "Tue, 14 Nov 2023 21:13:20 GMT"


def explicit(control=None, expires=None, date=None, now=NOW):
    return explicit_lifetime(cache_control(control) if control else EMPTY, expires, date, now)


# --- explicit lifetimes (§4.2.1) ---


@pytest.mark.parametrize(
    ("control", "expires", "date", "lifetime"),
    [
        ("s-maxage=10, max-age=20", IN_AN_HOUR, DATE, (10, "s-maxage")),
        ("max-age=20", IN_AN_HOUR, DATE, (20, "max-age")),
        ("MAX-AGE=20", None, None, (20, "max-age")),
        ("s-maxage=0, max-age=20", None, None, (0, "s-maxage")),
        ("max-age=0", IN_AN_HOUR, DATE, (0, "max-age")),
        ("no-cache", IN_AN_HOUR, DATE, (3600, "Expires")),
        (None, IN_AN_HOUR, DATE, (3600, "Expires")),
        (None, IN_AN_HOUR, AN_HOUR_AGO, (7200, "Expires")),  # by its own Date, not by our clock
        (None, IN_AN_HOUR, None, (3600, "Expires")),
        (None, IN_AN_HOUR, "yesterday", (3600, "Expires")),
        (None, DATE, DATE, (0, "Expires")),
        (None, AN_HOUR_AGO, DATE, (0, "Expires")),
        (None, AN_HOUR_AGO, None, (0, "Expires")),
        (None, "0", DATE, (0, "Expires")),
        (None, "", DATE, (0, "Expires")),
        (None, "-1", None, (0, "Expires")),
        (None, f"{IN_AN_HOUR}, {IN_AN_HOUR}", DATE, (0, "Expires")),  # two lines: which one counts?
        (None, "Tuesday, 14-Nov-23 23:13:20 GMT", DATE, (3600, "Expires")),
        (None, "Tue Nov 14 23:13:20 2023", DATE, (3600, "Expires")),
        (None, "Thursday, 01-Jan-70 00:00:00 GMT", DATE, (0, "Expires")),
        (None, "Fri, 31 Dec 9999 23:59:59 GMT", DATE, (FOREVER, "Expires")),
        ("max-age=99999999999999999999", None, None, (FOREVER, "max-age")),
        ("max-age=abc", IN_AN_HOUR, None, (0, "max-age")),
        ("max-age=10, max-age=20", None, None, (0, "max-age")),
        ("public", None, DATE, None),
        (None, None, None, None),
    ],
)
def test_explicit_lifetimes(control, expires, date, lifetime):
    assert explicit(control, expires, date) == (lifetime and Lifetime(*lifetime))


DATES = st.one_of(st.none(), st.sampled_from([DATE, IN_AN_HOUR, AN_HOUR_AGO, "0"]), st.text(max_size=30))


@given(st.one_of(st.none(), st.text(max_size=20)), DATES, DATES, st.floats(0, 1e11))
def test_a_lifetime_is_whole_seconds_that_can_be_stored(control, expires, date, now):
    lifetime = explicit(control, expires, date, now)
    if lifetime is not None:
        assert type(lifetime.seconds) is int
        assert 0 <= lifetime.seconds <= FOREVER


@pytest.mark.parametrize(
    "response",
    [
        Response(headers=[("Expires", "Fri, 31 Dec 9999 23:59:59 GMT")]),
        Response(headers=[("Cache-Control", "max-age=99999999999999999999, stale-if-error=99999999999999")]),
        Response(),
    ],
    ids=["Expires", "max-age", "hint"],
)
def test_what_says_for_ever_is_stored_in_every_store(response):
    """Also where entries are encoded: no lifetime is larger than the stored form can tell."""

    def app(environ, start_response):
        if not response.headers[0][0].startswith(("Exp", "Cache")):
            environ["wsgicache.hints"].lifetime = 10**15
        return ScriptedApp(response)(environ, start_response)

    cache = WSGICache(app)
    ask(cache)
    assert ask(cache).cache == {"hit": "", "ttl": str(FOREVER)}
    assert all(encode(entry) for entry in cache.store.scan())


# --- heuristic lifetimes (§4.2.2) ---


def heuristic(status=200, control=None, modified=AN_HOUR_AGO, date=DATE, now=NOW):
    return heuristic_lifetime(status, cache_control(control) if control else EMPTY, modified, date, now)


def test_a_tenth_of_the_time_since_it_was_modified():
    assert heuristic() == Lifetime(360, "heuristic")
    assert heuristic(date=IN_AN_HOUR) == Lifetime(720, "heuristic")
    assert heuristic(date=None) == Lifetime(360, "heuristic")


def test_no_guess_is_longer_than_a_day():
    assert heuristic(modified="Mon, 14 Nov 1983 22:13:20 GMT") == Lifetime(HEURISTIC_CAP, "heuristic")


@pytest.mark.parametrize(
    "given",
    [{"modified": None}, {"modified": "never"}, {"modified": DATE}, {"modified": IN_AN_HOUR}, {"date": "0"}],
)
def test_no_guess_without_a_past_modification(given):
    assert heuristic(**given) is None


@pytest.mark.parametrize("status", sorted(HEURISTIC_STATUSES))
def test_statuses_that_may_be_guessed_at(status):
    assert heuristic(status) is not None


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 403, 500, 502, 503])
def test_others_only_where_the_response_is_public(status):
    assert heuristic(status) is None
    assert heuristic(status, "public") is not None


# --- age (§4.2.3) ---


@pytest.mark.parametrize(
    ("age", "date", "asked", "now", "initial"),
    [
        (None, None, NOW, NOW, 0),
        (None, DATE, NOW, NOW, 0),
        (None, AN_HOUR_AGO, NOW, NOW, 3600),
        (None, IN_AN_HOUR, NOW, NOW, 0),  # a clock ahead of ours makes nothing younger than it is
        (None, None, NOW, NOW + 5, 5),  # the app took its time: as if it had been sent at once
        (None, DATE, NOW, NOW + 5, 5),
        ("100", None, NOW, NOW, 100),
        ("100", None, NOW, NOW + 5, 105),
        ("100", AN_HOUR_AGO, NOW, NOW, 3600),
        ("7200", AN_HOUR_AGO, NOW, NOW, 7200),
        (None, None, NOW, NOW - 50, 0),  # our clock went back during the call
        (None, "junk", NOW, NOW, 0),
        ("0", DATE, NOW, NOW, 0),
    ],
)
def test_age_on_arrival(age, date, asked, now, initial):
    assert initial_age(age, date, asked, now) == initial


@pytest.mark.parametrize(
    ("age", "seconds"),
    [
        (None, 0),
        ("0", 0),
        (" 7 ", 7),
        ("007", 7),
        ("7, 8", 7),  # the first member counts (§5.1)
        ("7,", 7),
        (", 7", 0),
        ("-7", 0),
        ("+7", 0),
        ("7.5", 0),
        ("7s", 0),
        ("", 0),
        ("\u0667", 0),
        ("2147483647", 2**31 - 1),
        ("2147483648", 2**31),
        ("9999999999", 2**31),
        ("99999999999999999999", 2**31),
        ("9" * 10_000, 2**31),
    ],
)
def test_age_fields(age, seconds):
    assert age_value(age) == seconds


@given(st.one_of(st.none(), st.text(max_size=20)), DATES, st.floats(0, 1e11), st.floats(0, 1e11))
def test_an_age_is_never_negative(age, date, asked, now):
    assert initial_age(age, date, asked, now) >= max(0, now - asked) >= 0


@given(st.integers(0, 10**6), st.integers(0, 10**4), st.integers(0, 10**4))
def test_an_age_counts_every_second(stated, delay, resident):
    """The `Age` that a hit tells is what the response said, what the app took, and what it lay here."""
    clock = FakeClock(NOW)

    def app(environ, start_response):
        clock.tick(delay)
        start_response("200 OK", [("Cache-Control", f"max-age={2**31}"), ("Age", str(stated))])
        return [b"body"]

    cache = WSGICache(app, clock=clock)
    ask(cache)
    clock.tick(resident)
    reply = ask(cache)
    assert reply.field("Age") == str(stated + delay + resident)
    assert int(reply.cache["ttl"]) == 2**31 - stated - delay - resident


# --- which source of a lifetime wins (house rule 2) ---


@pytest.mark.parametrize(
    ("rule", "headers", "source", "seconds"),
    [
        ({}, [], "ttl", 300),
        ({"ttl": 20}, [], "rule", 20),
        ({"ttl": 20}, [("Cache-Control", "max-age=10")], "max-age", 10),
        ({"ttl": 20, "override": True}, [("Cache-Control", "max-age=10")], "rule", 20),
        ({"ttl": 20, "override": True}, [("Cache-Control", "no-cache")], "rule", 20),
    ],
)
def test_where_a_lifetime_comes_from(rule, headers, source, seconds):
    cache = WSGICache(ScriptedApp(Response(headers=headers)), rules=[Rule("/*", **rule)])
    ask(cache)
    (entry,) = cache.store.scan()
    assert (entry.terms.source, entry.terms.lifetime) == (source, seconds)


# --- ready pairs ---


def test_each_pair_is_made_once():
    table = NamedSeconds("Age", str)
    assert table[17] == ("Age", "17")
    assert table[17] is table[17]
    assert table[0] == ("Age", "0")


def test_a_negative_number_is_refused():
    with pytest.raises(LookupError, match="Age is never negative: -1"):
        NamedSeconds("Age", str)[-1]


def test_the_table_is_bounded():
    table = NamedSeconds("Age", str, limit=100)
    for seconds in range(1000):
        assert table[seconds] == ("Age", str(seconds))
        assert len(table) <= 100
