"""Lifetimes are shortened at random, never lengthened, and every number that is told agrees with that."""

from random import Random

import pytest
from sites import Site, control, page

from wsgicache import Rule
from wsgicache.fields import http_date
from wsgicache.testing import FakeClock

MOST = 1 - 2**-53


def jittery(answer=None, *, u=MOST, **options):
    site = Site(answer, **{"ttl": 100, "jitter": 20, **options})
    site.cache.engine.uniform = lambda: u
    return site


def lives(site, seconds, url="/"):
    """The page is stored for exactly so many seconds, and Age and ttl add up all the while."""
    assert site.fill(url).cache["ttl"] == str(seconds)
    calls = site.app.calls
    for _ in range(2):  # armed, and not
        site.clock.tick((seconds - 1) / 2)
        reply = site.ask(url)
        assert reply.is_hit
        assert int(reply.field("Age")) + int(reply.cache["ttl"]) == seconds
    site.clock.tick(1)
    assert ("fwd" in site.ask(url).cache, site.app.calls) == (True, calls + 1)


@pytest.mark.parametrize(("u", "seconds"), [(0.0, 100), (0.5, 90), (MOST, 80)])
def test_a_lifetime_that_the_house_gives(u, seconds):
    lives(jittery(u=u), seconds)


@pytest.mark.parametrize("stated", ["max-age=50", "s-maxage=50", "public, max-age=50"])
def test_one_that_the_app_states(stated):
    """RFC 9111 §4.2 says until when a response is fresh, not that it has to be used so long."""
    site = jittery(control(stated))
    reply = site.ask()
    assert (reply.cache["ttl"], reply.field("Cache-Control")) == ("30", stated)
    lives(jittery(control(stated)), 30)


def test_expires_too():
    clock = FakeClock()
    answer = page(("Expires", http_date(clock.now + 50)), ("Date", http_date(clock.now)))
    lives(jittery(answer, clock=clock), 30)


def test_one_that_the_app_gives_by_a_hint():
    def answer(environ):
        environ["wsgicache.hints"].lifetime = 60
        return page()

    lives(jittery(answer), 40)


def test_negative_answers_too():
    lives(jittery(page(status="404 Not Found"), rules=[Rule("/*", ttl=50)]), 30)


@pytest.mark.parametrize(
    ("ttl", "seconds"), [(1, 1), (2, 1), (3, 2), (10, 5), (40, 20), (41, 21), (1000, 980)]
)
def test_half_is_left_at_least(ttl, seconds):
    assert jittery(ttl=ttl).fill().cache["ttl"] == str(seconds)


def test_a_page_that_comes_with_an_age_keeps_half_of_what_is_left():
    site = jittery(control("max-age=100", ("Age", "90")))
    reply = site.fill()
    assert reply.cache["ttl"] == "5"
    hit = site.ask()
    assert (hit.field("Age"), hit.cache["ttl"]) == ("90", "5")


@pytest.mark.parametrize("stated", ["max-age=0", "no-cache", "no-store"])
def test_nothing_is_stored_that_was_not(stated):
    site = jittery(control(stated))
    assert not site.ask().stored
    assert site.ask().cache["fwd"] == "uri-miss"


def test_a_page_that_is_freshened_is_drawn_anew():
    site = jittery(page(("ETag", '"a"')))
    site.fill()
    site.clock.tick(80)
    site.app.answers(page(("ETag", '"a"'), status="304 Not Modified", body=b""))
    site.cache.engine.uniform = lambda: 0.0
    assert site.ask().cache["ttl"] == "100"


def test_windows_begin_at_the_shortened_end_and_do_not_reach_further():
    site = jittery(control("max-age=50, stale-while-revalidate=10"))
    site.fill()
    site.clock.tick(39)
    assert site.ask().detail == "HIT_STALE_WHILE_REVALIDATE"
    assert site.cache.engine.refresher.drain()
    site.clock.tick(40)
    assert "fwd" in site.ask().cache


def test_pages_stored_together_do_not_expire_together():
    site = Site(ttl=300, jitter="60s")
    site.cache.engine.uniform = Random(3).random
    lifetimes = [int(site.fill(f"/{n}").cache["ttl"]) for n in range(200)]
    assert (min(lifetimes) < 250, max(lifetimes) > 290) == (True, True)
    assert all(240 <= lifetime <= 300 for lifetime in lifetimes)
    assert max(lifetimes.count(lifetime) for lifetime in lifetimes) < 20
    assert len(set(lifetimes)) <= 33, "they share what entries have in common"


def test_without_jitter_nothing_is_drawn():
    site = Site(ttl=100)
    site.cache.engine.uniform = None
    assert (site.fill().cache["ttl"], site.ask().cache["ttl"]) == ("100", "100")


def test_explain_tells_the_lifetime_that_was_drawn():
    site = jittery()
    site.fill()
    assert site.cache.explain("http://example.com/").lifetime == 80
