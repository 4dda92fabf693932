"""The near tier where two things happen at once, each race decided by a gate."""

import threading

import pytest
from near_helpers import BOUND, Worker, World, body, purge_all, purge_path, until
from waiting import PATIENCE

from wsgicache.stores import StoreError

A, B = "/a\0\0h\0http", "/b\0\0h\0http"


class Under:
    """Something under way on a thread of its own, held inside the store."""

    def __init__(self, gate, work):
        self._gate, self._work = gate, work
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        if gate is not None:
            gate.wait_entered()

    def _run(self):
        try:
            self._result = self._work()
        except Exception as error:
            self._error = error

    @property
    def is_done(self):
        return not self._thread.is_alive()

    def land(self):
        if self._gate is not None:
            self._gate.open()
        self._thread.join(PATIENCE)
        assert self.is_done, "it never ended"
        if self._error is not None:
            raise self._error
        return self._result


@pytest.fixture
def world():
    return World()


@pytest.fixture
def near(world):
    near, other = world.tiers
    world.put(other, A)
    world.beat()
    return near


def test_a_purge_while_an_answer_is_under_way(world, near):
    """The answer was read before the purge: whoever asked then may have it, nobody else."""
    get = Under(world.remote.hold("get"), lambda: near.get([A]))
    world.remote.append(purge_all(), 0.0)
    world.beat(near)
    (stored,), mark = get.land()
    assert (stored.body, mark.seq) == (b"body", 0)
    assert near.peek(A) is None
    assert near.mark_of(A).seq == 1


def test_a_purge_before_the_store_is_asked(world, near):
    get = Under(world.remote.hold("get", "before"), lambda: near.get([A]))
    mark = world.remote.append(purge_all(), 0.0)
    assert get.land()[1] == mark
    assert near.peek(A) is None  # purged
    assert near._mark == mark


def test_a_purge_while_a_fill_is_stored(world, near):
    """The store took it, then it was purged: the copy is none."""
    entry = world.entry(B, b"late")
    fill = Under(world.remote.hold("set"), lambda: near.set(B, entry, entry.keep_until))
    world.remote.append(purge_path("/b"), 0.0)
    world.beat(near)
    assert fill.land()
    assert near.peek(B) is None


def test_a_purge_that_is_not_followed_yet_while_a_fill_is_stored(world, near):
    """The copy is judged when it is used, whenever it was made."""
    entry = world.entry(B, b"late")
    fill = Under(world.remote.hold("set"), lambda: near.set(B, entry, entry.keep_until))
    world.remote.append(purge_path("/b"), 0.0)
    assert fill.land()
    assert near.peek(B) is not None
    worker = Worker(near)
    world.beat(near)
    assert worker.moved == 1  # so that the slot, should it be armed, is so no longer
    assert world.remote.asked_for(lambda: near.get([B])) == ["get"]
    assert near.peek(B) is None


@pytest.mark.parametrize("how", ["set", "delete", "failed set", "clear"])
def test_a_write_while_an_answer_is_under_way(world, near, how):
    """The answer is what was there before, so it is not kept."""
    get = Under(world.remote.hold("get"), lambda: near.get([A]))
    if how == "set":
        world.put(near, A, b"new")
    elif how == "delete":
        near.delete(A)
    elif how == "clear":
        near.clear()
    else:
        world.remote.failing.add("set")
        entry = world.entry(A, b"new")
        with pytest.raises(StoreError):
            near.set(A, entry, entry.keep_until)
    assert get.land()[0][0].body == b"body"
    slot = near.peek(A)
    assert (None if slot is None else slot.stored.body) == (b"new" if how == "set" else None)


def test_two_writes_that_cross_leave_no_copy(world, near):
    """Nobody can tell which one the store took last."""
    first, second = world.entry(B, b"1"), world.entry(B, b"2")
    one = Under(world.remote.hold("set"), lambda: near.set(B, first, first.keep_until))
    assert near.set(B, second, second.keep_until)
    assert one.land()
    assert near.peek(B) is None
    assert body(near, B) == b"2"
    assert near.peek(B) is not None


def test_a_follower_that_stalls_costs_the_bound(world, near):
    """It has read the mark, and gets no turn: trust counts from when it asked."""
    body(near, A)
    world.tick(BOUND / 2)
    asked = world.steady.now
    beat = Under(world.remote.hold("mark_of"), near._heartbeat.beat)
    mark = world.remote.append(purge_all(), 0.0)
    world.tick(BOUND / 2 - 0.001)
    assert near.get([A])[1].seq == 0
    world.tick(0.001)
    assert near.get([A])[1] == mark  # by itself
    assert beat.land()
    assert near._mark == mark
    assert near.trust.until == asked + BOUND * 1.5  # of the get, not of the beat


def test_a_mark_that_comes_late_takes_nothing_back(world, near):
    beat = Under(world.remote.hold("mark_of"), near._heartbeat.beat)
    mark = near.append(purge_all(), 0.0)
    worker = Worker(near)
    assert beat.land()
    assert (near.mark_of(A), worker.moved) == (mark, 0)


def test_a_mark_read_while_another_follows_to_an_earlier_one(world, near):
    """Whoever gives a mark has followed to it, even if somebody else was just about to, less far."""
    first = world.remote.append(purge_path("/x"), 0.0)
    beat = Under(world.remote.hold("purges_since"), near._heartbeat.beat)
    second = world.remote.append(purge_all(), 0.0)
    get = Under(None, lambda: near.get([B]))
    until(lambda: world.remote.calls[-1] == "get")
    assert near._mark.seq == 0
    assert beat.land()
    assert get.land()[1] == second
    assert near._mark == second
    assert near.purges_since(first).mark == second


def test_an_answer_of_another_epoch_is_not_kept(world, near):
    get = Under(world.remote.hold("get"), lambda: near.get([A]))
    world.tiers[1].clear()
    world.beat(near)
    assert get.land()[0][0].body == b"body"
    assert near.peek(A) is None


def test_many_at_once_follow_once(world, near):
    """A purge is fetched by one, for all who have heard of it."""
    mark = world.remote.append(purge_all(), 0.0)
    before = len(world.remote.calls)
    gate = world.remote.hold("purges_since", "before")
    first = Under(gate, lambda: near.get([B]))
    others = [Under(None, lambda: near.get([B])) for _ in range(5)]
    until(lambda: world.remote.calls.count("get") >= 6)
    assert [get.land()[1] for get in (first, *others)] == [mark] * 6
    assert world.remote.calls[before:].count("purges_since") == 1


def test_a_purge_here_while_the_follower_asks(world, near):
    """This process is past its own purge when it returns, whatever was read before."""
    body(near, A)
    beat = Under(world.remote.hold("mark_of"), near._heartbeat.beat)
    world.remote.failing.add("purges_since")
    near.append(purge_all(), 0.0)
    world.remote.failing.clear()
    assert beat.land()  # it brings the mark from before
    assert near.get([A])[1].seq == 1
    assert near.peek(A) is None
