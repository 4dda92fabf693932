"""How often a near tier asks its store because of messages, however many come."""

import threading

import pytest
from near_helpers import Pushing, World, body, purge_all
from waiting import PATIENCE

from wsgicache.stores.heartbeat import AT_ONCE, PAUSE, Heartbeat
from wsgicache.stores.pace import Pace
from wsgicache.testing import FakeClock, Gate

A = "/a\0\0h\0http"
LONG = 30.0


def turns(pace, clock, count):
    return [pytest.approx(pace.turn(clock())) for _ in range(count)]


def test_the_first_turns_are_now_and_then_one_in_each_pause():
    pace, clock = Pace(0.5, 2), FakeClock(100.0)
    assert turns(pace, clock, 5) == [0, 0, 0.5, 1.0, 1.5]
    clock.tick(1.5)
    assert turns(pace, clock, 1) == [0.5]
    clock.tick(0.5 + 0.5)  # one is due, none was saved
    assert turns(pace, clock, 2) == [0, 0.5]
    clock.tick(60)
    assert turns(pace, clock, 3) == [0, 0, 0.5], "no more at once, however long it was quiet"


def test_one_at_a_time():
    pace, clock = Pace(0.5, 1), FakeClock(100.0)
    assert turns(pace, clock, 3) == [0, 0.5, 1.0]


class Waits(threading.Event):
    """Is waited for in name only: notes for how long, and lets a gate hold whoever would wait."""

    def __init__(self):
        super().__init__()
        self.asked, self.gate = [], None

    def wait(self, timeout=None):
        self.asked.append(timeout)
        gate, self.gate = self.gate, None
        if gate is not None:
            gate.pass_through()
        return self.is_set()


class Beats(Heartbeat):
    """Follows in a thread, by a clock that stands still; its beats are counted."""

    def __init__(self, remote, bound, steady):
        super().__init__(remote, bound, steady)
        self._stopped = self.waits = Waits()
        self.done, self.count = threading.Semaphore(0), 0

    def start(self):
        if not self.started:
            self.started = True
            self.thread = threading.Thread(target=self._run)
            self.thread.start()
            self.remote.ears.append(self.post.poke)

    def beat(self):
        done = super().beat()
        self.count += 1
        self.done.release()
        return done

    def wait(self):
        assert self.done.acquire(timeout=20)


class Heard(Pushing):
    """Whoever listens is told by the one who purges."""

    def __init__(self):
        super().__init__()
        self.ears = []

    def append(self, purges, at):
        mark = super().append(purges, at)
        for poke in self.ears:
            poke("purge")
        return mark


@pytest.fixture
def world():
    world = World(Heard(), 1, bound=LONG, heart=Beats)
    (near,) = world.tiers
    body(near, A)
    near._heartbeat.wait()
    yield world
    near._heartbeat.stop()
    near._heartbeat.thread.join(PATIENCE)


def test_many_messages_within_the_pause_are_one_beat(world):
    (near,), heart = world.tiers, world.tiers[0]._heartbeat

    def purge(times=1):
        for _ in range(times):
            mark = world.remote.append(purge_all(), 0.0)
        return mark

    for _ in range(AT_ONCE):
        mark = purge()
        heart.wait()
        assert near._mark == mark
    assert heart.waits.asked == [0] * AT_ONCE, "the first ones at once"
    gate = heart.waits.gate = Gate()
    purge(50)
    gate.wait_entered()
    mark = purge(50)
    gate.open()
    heart.wait()
    assert near._mark == mark
    assert heart.waits.asked[AT_ONCE:] == [pytest.approx(PAUSE)]
    world.tick(10)
    mark = purge()
    heart.wait()
    assert near._mark == mark
    assert heart.waits.asked[-1] == 0, "after a quiet time at once again"
    assert heart.count == 1 + AT_ONCE + 1 + 1


def test_a_short_bound_has_a_shorter_pause():
    heart = Beats(Heard(), 0.1, FakeClock())
    assert [heart._pace.turn(0.0) for _ in range(AT_ONCE + 1)] == [0, 0, pytest.approx(0.1 / 20)]


def test_who_stops_waits_for_no_turn(world):
    heart = world.tiers[0]._heartbeat
    gate = heart.waits.gate = Gate()
    world.remote.append(purge_all(), 0.0)
    gate.wait_entered()
    heart._stopped.set()
    gate.open()
    heart.thread.join(PATIENCE)
    assert heart.count == 1
