"""The clock: a wall clock that is set, forth or back, makes nothing look younger than it is (TIM-01)."""

import pytest

from wsgicache import WSGICache
from wsgicache.clock import TOLERANCE, Clock
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


class TwoClocks:
    """The machine's two clocks; time passes on both, and the wall clock may be set."""

    def __init__(self, monkeypatch):
        self.wall = FakeClock(1_700_000_000.0)
        self.steady = FakeClock(500.0)
        monkeypatch.setattr("wsgicache.clock.time.time", self.wall)
        monkeypatch.setattr("wsgicache.clock.time.monotonic", self.steady)

    def pass_by(self, seconds):
        self.wall.tick(seconds)
        self.steady.tick(seconds)


@pytest.fixture
def clocks(monkeypatch):
    return TwoClocks(monkeypatch)


@pytest.fixture
def steps():
    return []


@pytest.fixture
def clock(clocks, steps):
    return Clock(None, lambda: steps.append(True))


def test_it_tells_the_wall_clock(clock, clocks):
    for seconds in (0, 1, 86400):
        clocks.pass_by(seconds)
        assert clock.now() == clock.wall() == clocks.wall.now


def test_time_that_passes_is_no_step(clock, clocks, steps):
    for _ in range(100):
        clocks.pass_by(3600)
        clock.now()
        clock.check(clock.steady())
    assert steps == []


@pytest.mark.parametrize("back", [TOLERANCE + 0.1, 60, 3600, 10**9])
def test_a_step_back_is_told_once(clock, clocks, steps, back):
    clocks.wall.tick(-back)
    with pytest.raises(LookupError):
        clock.check(clock.steady())
    assert clock.now() == clocks.wall.now
    assert steps == [True]
    clock.now()
    clock.check(clock.steady())
    assert steps == [True]
    clocks.wall.tick(-back)
    clock.now()
    assert steps == [True, True]


@pytest.mark.parametrize("forth", [TOLERANCE + 0.1, 3600])
def test_a_step_forth_makes_things_older_and_nothing_else(clock, clocks, steps, forth):
    """Also what happens where the machine slept and its monotonic clock with it."""
    clocks.wall.tick(forth)
    with pytest.raises(LookupError):
        clock.check(clock.steady())
    clock.now()
    clock.check(clock.steady())
    assert steps == []
    clocks.wall.tick(-forth)  # back again is a step back, by what is known now
    clock.now()
    assert steps == [True]


@pytest.mark.parametrize("sign", [1, -1])
def test_clocks_that_drift_apart_slowly_are_no_step(clock, clocks, steps, sign):
    """The wall clock is slewed on some systems and the monotonic one is not: a second in a few hours.

    Where there are only hits, `check` alone looks at it, and sends one of them the long way.
    """
    long_ways = 0
    for _ in range(1000):
        clocks.pass_by(60)
        clocks.wall.tick(sign * 0.01)
        try:
            clock.check(clock.steady())
        except LookupError:
            long_ways += 1
            clock.now()
    assert (steps, 10 <= long_ways <= 20) == ([], True)


def test_a_clock_of_ones_own_is_both():
    own = FakeClock()
    clock = Clock(own, lambda: pytest.fail("one clock cannot drift from itself"))
    own.tick(-50)
    assert clock.now() == clock.steady() == own.now
    clock.check(own.now)


# --- through the middleware ---


@pytest.fixture
def app():
    return ScriptedApp(Response(body=b"page"))


@pytest.fixture
def cache(clocks, app):
    return WSGICache(app)


@pytest.mark.filterwarnings("ignore")
def test_what_is_stored_is_dropped_when_the_clock_went_back(cache, clocks, app, caplog):
    """Otherwise a page would stay fresh for as long again as the clock went back."""
    for _ in range(3):
        ask(cache)
    clocks.pass_by(200)
    assert ask(cache).field("Age") == "200"
    clocks.wall.tick(-7200)
    assert not ask(cache).is_hit
    assert app.calls == 2
    assert "the wall clock went back" in caplog.text
    assert ask(cache).field("Age") == "0"


@pytest.mark.parametrize("forth", [250, 400])
def test_a_step_forth_counts_as_time(cache, clocks, forth):
    for _ in range(3):
        ask(cache)
    clocks.wall.tick(forth)
    reply = ask(cache)
    assert reply.is_hit is (forth < 300)
    assert reply.field("Age") == (str(forth) if reply.is_hit else None)


def test_a_hit_tells_its_age_by_the_steady_clock(cache, clocks):
    for _ in range(3):
        ask(cache)
    for age in range(1, 300):
        clocks.pass_by(1)
        reply = ask(cache)
        assert (reply.field("Age"), reply.cache["ttl"]) == (str(age), str(300 - age))
    clocks.pass_by(1)
    assert not ask(cache).is_hit
