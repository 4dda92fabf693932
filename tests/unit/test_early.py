"""Early refreshes and shortened lifetimes in numbers: drawn with known random numbers, and compared with the
rule of the paper by playing both."""

from functools import cache
from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import background
from wsgicache.early import LOOKS, cost_of, first_try, lead, next_try, shortened, usual_lead

UNIT = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize(
    ("seconds", "cost"),
    [(0, 0), (-1, 0), (0.0009, 0), (0.001, 1), (0.01, 11), (0.1, 91), (0.5, 512), (1, 1024), (60, 65536)],
)
def test_a_cost_in_half_octaves_of_milliseconds(seconds, cost):
    assert cost_of(seconds) == cost


@given(st.floats(0.01, 1e6))
def test_a_cost_is_right_to_a_fifth(seconds):
    assert 0.8 * seconds <= cost_of(seconds) / 1000 <= 1.25 * seconds


@given(st.integers(1, 2**31), st.floats(0.01, 10), UNIT, st.integers(1, 1000))
def test_a_lead_is_a_time_whatever_was_drawn(cost, beta, u, looks):
    assert 0 <= lead(cost, beta, u, looks) <= 42 * beta * cost / 1000


def test_a_single_look_is_the_draw_of_the_paper():
    drawn = sorted([lead(2000, 0.5, step / 1000, looks=1) for step in range(1000)])
    assert mean(drawn) == pytest.approx(1, rel=0.05)
    assert sum([one > 2 for one in drawn]) == pytest.approx(1000 * exp(-2), abs=2)


@given(UNIT, UNIT)
def test_more_looks_are_earlier(u, v):
    assert lead(1000, 1, u, LOOKS) >= lead(1000, 1, u, 1) - 1e-9


@given(st.floats(0, 1e9), st.floats(0, 1e6), st.integers(1, 10**8), st.floats(0.01, 10), UNIT)
def test_half_of_what_is_left_passes_first(now, left, cost, beta, u):
    first = first_try(now, now + left, cost, beta, u)
    assert now + left / 2 - 1e-6 <= first <= now + left


@given(st.floats(0, 1e9), st.floats(0, 1e6), st.integers(1, 10**8))
def test_there_are_few_tries(now, left, cost):
    end, tries = now + left, 0
    while (now := next_try(now, end, cost)) < end:
        assert end - now >= cost / 1000 - 1e-6, "in time for another"
        tries += 1
    assert tries <= 31
    assert now == end


def test_forked_children_do_not_draw_alike():
    state = background.dice.getstate()
    drawn = []
    for _ in range(2):
        background.dice.setstate(state)
        background._after_fork()
        drawn.append(background.dice.random())
    assert drawn[0] != drawn[1]


# --- the paper's rule, and ours ---------------------------------------------------------------------


def mean(values):
    return sum(values) / len(values)


def by_request(random, rate):
    """Seconds before its end at which XFetch refreshes a page that costs a second; below zero: it did not."""
    left = 12.0
    while left > 0:
        left -= random.expovariate(rate)
        if lead(1000, 1, random.random(), looks=1) >= left:
            break
    return left


def by_slot(random, rate, workers=1, looks=LOOKS):
    """The same with an instant drawn for each worker; requests go to any of them, so that a worker is asked
    some time after its own."""
    each = rate / workers
    return max([lead(1000, 1, random.random(), looks) - random.expovariate(each) for _ in range(workers)])


def met(leads):
    """How often a page that costs a second was not there again at its end: somebody may have had to wait."""
    return mean([lead < 1 for lead in leads])


RATES = [0.1, 1, 10, 100]
"""Requests in the time that the app takes."""


def played(rule, *args, rounds=4000):
    random = Random(20151)
    return [rule(random, *args) for _ in range(rounds)]


@cache
def paper(rate):
    return played(by_request, rate, rounds=600)


def test_the_mean_lead_is_the_harmonic_number():
    random = Random(2)
    leads = [lead(1000, 1, random.random()) for _ in range(20000)]
    assert mean(leads) == pytest.approx(usual_lead(1000, 1), rel=0.02)
    assert usual_lead(1000, 1) == pytest.approx(3.38, abs=0.01)


@pytest.mark.parametrize("rate", RATES)
def test_a_page_is_there_again_in_time_no_less_often_than_with_the_papers_rule(rate):
    """An expiry that a visitor may meet: at every rate of requests, and for any number of workers."""
    for workers in (1, 4):
        assert met(played(by_slot, rate, workers)) <= met(paper(rate)) + 0.02


def test_one_draw_that_stands_for_one_request_would_come_too_late():
    """Why LOOKS is not 1: an exponential draw is shorter than its mean in 1 - 1/e of all cases."""
    assert met(played(by_slot, 100, 1, 1)) == pytest.approx(1 - exp(-1), abs=0.04)
    assert met(played(by_slot, 100)) < 0.01
    assert met(paper(100)) < 0.01


def test_a_busy_page_gives_no_more_of_its_lifetime_away_than_with_the_papers_rule():
    """Seconds before the end: the paper's rule moves forward with the rate, a slot's draw does not."""
    assert mean(played(by_slot, 100)) < mean(paper(100))
    assert mean(played(by_slot, 100, 4)) < mean(paper(100)) + 0.6


def test_workers_draw_apart():
    random = Random(7)
    gaps = []
    for _ in range(2000):
        first, second = sorted([lead(1000, 1, random.random()) for _ in range(8)], reverse=True)[:2]
        gaps.append(first - second)
    assert mean(gaps) == pytest.approx(1.0, abs=0.1), "by about what the app takes"


# --- lifetimes --------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), UNIT)
def test_a_lifetime_is_shortened_by_no_more_than_it_says_and_by_half_at_most(lifetime, age, jitter, u):
    found = shortened(lifetime, age, jitter, u)
    assert isinstance(found, int)
    assert lifetime - jitter <= found <= lifetime
    if found < lifetime:
        assert 2 * (found - age) >= lifetime - age


@pytest.mark.parametrize("jitter", [1, 5, 31, 32, 100, 3600])
def test_every_part_of_the_range_is_reached(jitter):
    found = {shortened(10000, 0, jitter, step / 1000) for step in range(1000)}
    assert (min(found), max(found)) == (10000 - jitter, 10000)
    assert len(found) == min(jitter + 1, 33)


def test_no_jitter_draws_nothing():
    assert shortened(300, 0, 0, 0.99) == 300
    assert shortened(1, 0, 60, 0.99) == 1
    assert shortened(0, 0, 60, 0.99) == 0
    assert shortened(100, 99, 60, 0.99) == 100
    assert shortened(100, 200, 60, 0.99) == 100
