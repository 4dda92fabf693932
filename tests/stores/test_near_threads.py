"""The near tier with its threads: pushes, lost pushes, the roll call, forks, and how it all ends."""

import gc
import os
import threading
import time
import weakref

import pytest
from near_helpers import Parted, PartedAtOnce, Pushing, Remote, Worker, body, purge_all, until
from test_memory_fork import HeldElsewhere, in_child
from waiting import PATIENCE

from wsgicache.entry import Entry, Terms
from wsgicache.stores import StoreError, heartbeat, rollcall
from wsgicache.stores.near import near_store
from wsgicache.stores.rollcall import ANNOUNCED, Post, announce, announced, settle

A = "/a\0\0h\0http"
LONG = 30.0
"""A bound that no test lives to see: what happens before it does not happen because of it."""
SHORT = 0.2


def put(store, key=A, text=b"body"):
    now = time.time()
    entry = Entry(key, Terms("200 OK", "f", 300, "ttl"), (), text, now, now + 300, store.mark_of(key))
    assert store.set(key, entry, entry.keep_until)


def is_trusted(tier):
    return time.monotonic() < tier.trust.until


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("wsgicache")}


@pytest.fixture
def remote():
    return Pushing()


@pytest.fixture
def tiers(remote):
    """A function that makes running near tiers; they are closed at the end."""
    made, before = [], threads()

    def make(count=1, bound=LONG, over=None, **options):
        new = [
            near_store(remote if over is None else over, 1 << 20, bound=bound, **options)
            for _ in range(count)
        ]
        for tier in new:
            made.append(tier)
            body(tier)
        for tier in new:
            until(lambda tier=tier: all([is_trusted(part) for part in getattr(tier, "parts", (tier,))]))
        return new

    yield make
    remote.failing.clear()
    for tier in made:
        tier.close()
    until(lambda: threads() <= before)


# --- pushes ----------------------------------------------------------------------------------------


def test_a_purge_elsewhere_is_followed_at_once(remote, tiers):
    near, other = tiers(2)
    put(other)
    assert body(near, A) == b"body"
    worker = Worker(near)
    mark = other.append(purge_all(), 0.0)
    until(lambda: near.mark_of(A) == mark)
    assert worker.moved >= 1
    assert near.peek(A) is None or near.get([A])[1] == mark


def test_a_lost_push_costs_the_bound_at_most(remote, tiers):
    near, other = tiers(2, SHORT)
    remote.deaf = True
    mark = remote.append(purge_all(), 0.0)
    until(lambda: near._mark == mark and other._mark == mark)


def test_a_store_without_messages_is_followed_by_its_mark(tiers):
    near, other = tiers(2, SHORT, Remote())
    mark = near.append(purge_all(), 0.0)
    until(lambda: other._mark == mark)


def test_a_connection_that_was_made_again_is_followed_up(remote, tiers):
    (near,) = tiers()
    remote.deaf = True
    mark = remote.append(purge_all(), 0.0)
    near._heartbeat.post.poke("")
    until(lambda: near._mark == mark)


def test_ears_that_fail_are_opened_again(tiers):
    class Deafening(Pushing):
        failed = 0

        def listen(self, poke, stop):
            self.failed += 1
            if self.failed < 3:
                raise (StoreError if self.failed == 1 else RuntimeError)("cut")
            super().listen(poke, stop)

    remote = Deafening()
    tiers(1, SHORT, remote)
    until(lambda: remote.listeners == 1)
    assert remote.failed == 3


def test_messages_for_others_do_not_make_it_ask(remote, tiers):
    (near,) = tiers()
    until(lambda: not near._heartbeat.post.arrived.is_set())
    remote.publish("here 123 somebody")
    assert not near._heartbeat.post.arrived.is_set()


def test_trust_runs_out_while_the_store_is_down(remote, tiers):
    (near,) = tiers(1, SHORT)
    put(near)
    remote.failing.add("*")
    until(lambda: not is_trusted(near))
    with pytest.raises(StoreError):
        near.get([A])
    assert near._heartbeat.failures
    remote.failing.clear()
    until(lambda: is_trusted(near))
    assert body(near, A) == b"body"


def test_a_fault_of_the_store_does_not_end_the_thread(remote, tiers, caplog):
    (near,) = tiers(1, SHORT)
    real = remote._call

    def broken(method, *args):
        raise RuntimeError("no store does that")

    remote._call = broken
    until(lambda: near._heartbeat.failures >= 2)
    remote._call = real
    until(lambda: is_trusted(near))
    assert "could not follow its store" in caplog.text


# --- the roll call ---------------------------------------------------------------------------------


def test_settle_returns_when_all_have_followed(remote, tiers):
    """Long before the bound has passed."""
    near, *others = tiers(4)
    for tier in others:
        put(near)
        assert body(tier, A) == b"body"
    remote.deaf = True  # the purge itself is heard by nobody
    mark = remote.append(purge_all(), 0.0)
    remote.deaf = False
    assert near.settle()
    for tier in (near, *others):
        assert tier.trust.until > time.monotonic()
        assert tier.mark_of(A) == mark
        assert tier.get([A])[1] == mark


def test_settle_of_a_process_without_copies(remote, tiers):
    others = tiers(3)
    remote.deaf = True
    mark = remote.append(purge_all(), 0.0)
    remote.deaf = False
    assert settle(remote)
    assert [tier.mark_of(A) for tier in others] == [mark] * 3
    until(lambda: remote.listeners == 3)


def test_settle_where_nobody_holds_copies(remote):
    start = time.monotonic()
    assert settle(remote)
    assert settle(Remote())
    assert remote.sent == []
    assert time.monotonic() - start < LONG


def test_who_cannot_hear_is_waited_for_as_long_as_it_may_trust_its_copies(remote, tiers):
    """Its connection for messages broke a moment ago: nobody counts it among those who hear."""
    near, other = tiers(2, SHORT)
    put(near)
    assert body(other, A) == b"body"
    other._heartbeat.stop()  # it follows no more
    other._heartbeat.started = True
    remote.attend(other._heartbeat.who, 3 * SHORT)
    other.trust.until = time.monotonic() + SHORT  # but had just asked for the mark
    until_when = other.trust.until
    mark = remote.append(purge_all(), 0.0)
    assert near.settle()
    assert time.monotonic() >= until_when
    assert other.get([A])[1] == mark


def test_a_dead_process_is_waited_for_as_long_as_the_bound(remote, tiers):
    (near,) = tiers(1, SHORT)
    remote.attend("killed", LONG)
    start = time.monotonic()
    assert near.settle()
    assert time.monotonic() - start >= SHORT
    assert settle(remote)
    assert time.monotonic() - start >= 2 * SHORT


def test_a_timeout_that_is_shorter_says_so(remote, tiers):
    (near,) = tiers()
    remote.attend("killed", LONG)
    assert not near.settle(0.01)
    assert not settle(remote, 0.01)
    remote.attend("killed", 0)
    assert near.settle(20)
    assert settle(remote, 20)


@pytest.mark.parametrize("near_caller", [True, False])
def test_a_register_that_was_lost_proves_nothing(remote, tiers, near_caller):
    near, _ = tiers(2, SHORT)
    near._heartbeat._renew_at = time.monotonic() + LONG
    real, remote.attend = remote.attend, lambda who, seconds: None
    remote.lose_register()
    start = time.monotonic()
    assert near.settle() if near_caller else settle(remote)
    assert time.monotonic() - start >= SHORT
    remote.attend = real


def test_without_messages_the_bound_is_waited_for(tiers):
    remote = Remote()
    near, other = tiers(2, SHORT, remote)
    mark = remote.append(purge_all(), 0.0)
    for wait in (near.settle, lambda: settle(remote)):
        start = time.monotonic()
        assert wait()
        assert time.monotonic() - start >= SHORT
    assert other.get([A])[1] == mark


def test_the_longest_bound_counts(tiers):
    remote = Remote()
    tiers(1, 0.05, remote)
    announce(remote, SHORT)
    announce(remote, 0.01)
    assert announced(remote) == SHORT
    start = time.monotonic()
    assert settle(remote)
    assert time.monotonic() - start >= SHORT


def test_what_is_announced_is_announced_again_when_it_was_lost(tiers):
    remote = Remote()
    (near,) = tiers(1, 0.05, remote)
    assert announced(remote) == 0.05
    remote.set_meta(ANNOUNCED, None)
    until(lambda: announced(remote) == 0.05)
    remote.set_meta(ANNOUNCED, "nonsense")
    assert announced(remote) == 0.0
    near.clear()
    until(lambda: announced(remote) == 0.05)


def test_a_store_that_does_not_tell_the_bound(remote, tiers):
    remote.failing.add("get_meta")
    assert not settle(remote)
    remote.failing.clear()
    (near,) = tiers(1, SHORT)
    remote.failing.add("get_meta")
    assert near.settle()  # all have answered
    remote.failing.add("*")
    assert not near.settle()  # somebody may have a longer bound than ours


def test_a_call_that_could_not_be_answered_is_answered_later(remote, tiers):
    near, other = tiers(2)
    real, failed = remote.publish, []

    def publish(payload):
        if payload.startswith("here") and len(failed) < 2:
            failed.append(payload)
            other._heartbeat.post.poke("")
            near._heartbeat.post.poke("")
            raise StoreError("cut")
        return real(payload)

    remote.publish = publish
    assert near.settle()
    assert len(failed) == 2


def test_a_call_that_was_not_heard_is_made_again(remote, tiers, monkeypatch):
    """The connection for messages of one process is a new one just then."""
    monkeypatch.setattr(rollcall, "REPEAT", 0.02)
    near, other = tiers(2)
    real, lost = remote.publish, []

    def publish(payload):
        if payload.startswith("call") and len(lost) < 2:
            lost.append(payload)
            return 0
        return real(payload)

    remote.publish = publish
    assert near.settle()
    assert lost == lost[:1] * 2
    assert other.get([A])[1] == near.get([A])[1]


def test_an_answer_that_failed_is_given_again_soon(remote, tiers, monkeypatch):
    """Whether or not the call is heard again."""
    monkeypatch.setattr(heartbeat, "RETRY", 0.02)
    monkeypatch.setattr(rollcall, "REPEAT", LONG)
    near, _ = tiers(2)
    real, failed = remote.publish, []

    def publish(payload):
        if payload.startswith("here") and len(failed) < 2:
            failed.append(payload)
            raise StoreError("cut")
        return real(payload)

    remote.publish = publish
    start = time.monotonic()
    assert near.settle()
    assert len(failed) == 2
    assert time.monotonic() - start < LONG / 2


def test_a_heart_goes_on_beating_whatever_it_meets(caplog, monkeypatch):
    monkeypatch.setattr(heartbeat, "RETRY", 0.01)
    remote = PartedAtOnce()
    near = near_store(remote, 1 << 20, bound=LONG)
    body(near)
    until(lambda: all([is_trusted(part) for part in near.parts]))
    heart = near.parts[0]._heartbeat
    real, failed, done = heart._at_once.marks, [], []

    def marks(parts):
        if len(failed) < 2:
            failed.append(parts)
            raise KeyError("a fault of ours")
        done.append(parts)
        return real(parts)

    monkeypatch.setattr(heart._at_once, "marks", marks)
    heart.post.poke("")
    until(lambda: done)
    assert heart.failures == len(failed) == 2
    assert "could not follow its store" in caplog.text
    near.close()


def test_a_call_is_answered_after_the_journal_was_followed(remote, tiers):
    near, other = tiers(2)
    gate = remote.hold("purges_since", "before")
    remote.deaf = True
    mark = remote.append(purge_all(), 0.0)
    remote.deaf = False
    other._heartbeat.post.poke("call 77")
    gate.wait_entered()
    assert not [payload for payload in remote.sent if payload.startswith("here 77")]
    gate.open()
    until(lambda: [payload for payload in remote.sent if payload.startswith("here 77")])
    assert other._mark == mark
    assert near._mark.seq in (0, 1)


def test_several_settle_at_once(remote, tiers):
    made = tiers(3)
    told = []
    jobs = [
        threading.Thread(target=lambda t=tier: told.append(t.settle())) for tier in made for _ in range(3)
    ]
    jobs += [threading.Thread(target=lambda: told.append(settle(remote))) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(PATIENCE)
    assert told == [True] * 12
    assert all([not tier._heartbeat.post._rolls for tier in made])


def test_calls_that_nobody_waits_for_are_not_kept_for_ever():
    post = Post()
    for number in range(1000):
        post.poke(f"call {number}")
    assert len(post.calls()) == 64
    assert post.calls() == []


def test_parts_follow_and_answer_together(tiers):
    class PushingParted(Parted, Pushing):
        def __init__(self):
            Pushing.__init__(self)
            Parted.__init__(self, 3)

        append = Parted.append

        def publish(self, payload):
            for poke in list(self._ears.values()):
                poke(payload)

    cluster = PushingParted()
    near, other = tiers(2, LONG, cluster)
    cluster.append(purge_all(), 0.0)
    assert [part.mark_of(A).seq for part in other.parts] == [0, 0, 0]
    assert near.settle()
    assert [part.mark_of(A).seq for part in other.parts] == [1, 1, 1]
    cluster.append(purge_all(), 0.0)
    assert near.parts[1].settle()  # as somebody does who knows the parts only
    assert [part.mark_of(A).seq for part in other.parts] == [2, 2, 2]


# --- beginning and end -----------------------------------------------------------------------------


def test_it_begins_with_the_first_use(remote):
    before = threads()
    near = near_store(remote, 1 << 20)
    near.namespaced("other")
    near.watch(Worker(near).on_moved)
    assert threads() == before
    body(near)
    assert len(threads() - before) == 2
    near.close()
    until(lambda: threads() <= before)


def test_many_threads_that_use_it_first_begin_it_once(remote):
    before, near = threads(), near_store(remote, 1 << 20)
    barrier = threading.Barrier(8)

    def first():
        barrier.wait()
        body(near)

    jobs = [threading.Thread(target=first) for _ in range(8)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(PATIENCE)
    assert len(threads() - before) == 2
    near.close()
    until(lambda: threads() <= before)


@pytest.mark.parametrize("over", [Pushing, Remote, Parted, PartedAtOnce])
def test_it_ends_when_nobody_uses_it(over):
    before, near = threads(), near_store(over(), 1 << 20, bound=LONG * 10)
    body(near)
    ref = weakref.ref(near)
    del near
    gc.collect()
    until(lambda: threads() <= before)
    gc.collect()
    assert ref() is None


def test_who_leaves_is_not_waited_for(remote, tiers):
    near, other = tiers(2)
    who = other._heartbeat.who
    assert who in remote.attending()
    other._heartbeat.stop()
    assert who not in remote.attending()
    assert near.settle()


def test_where_no_thread_can_be_started_the_store_is_asked(remote, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    near = near_store(remote, 1 << 20)
    put(remote)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert body(near, A) == b"body"
    assert not is_trusted(near)
    monkeypatch.undo()
    near.close()


# --- fork ------------------------------------------------------------------------------------------

forking = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork"),
    # Python 3.12 and later warn of what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


class TestFork:
    pytestmark = forking

    def test_a_child_trusts_nothing_until_it_has_asked_itself(self, remote, tiers):
        """And arms nothing that was armed before: nobody waits for a child that is not in the register."""
        (near,) = tiers()
        put(near)
        worker, who = Worker(near), near._heartbeat.who

        def child():
            told = [is_trusted(near), worker.moved, near._heartbeat.who == who, near.peek(A) is not None]
            told.append(body(near, A))
            until(lambda: is_trusted(near))
            told.append(remote.asked_for(lambda: body(near, A)))
            told.append(near._heartbeat.who in remote.attending())
            near.close()
            return told

        assert in_child(child) == "[False, 1, False, True, b'body', [], True]"
        assert is_trusted(near)
        assert body(near, A) == b"body"

    def test_a_lock_held_at_the_fork_does_not_stop_the_child(self, remote, tiers):
        (near,) = tiers()
        put(near)

        def child():
            told = [near.peek(A) is not None, body(near, A), near.append(purge_all(), 0.0).seq]
            told += [near.get([A])[1].seq, near.stats()["near_entries"]]
            near.close()
            return told

        locks = (near._lock, near._terms.pool.lock, near._heartbeat._lock)
        with HeldElsewhere(*locks):
            # Somebody was changing the copies: the child cannot trust them.
            assert in_child(child) == "[False, b'body', 1, 1, 0]"
        assert body(near, A) == b"body"

    def test_a_closed_tier_stays_closed(self, remote, tiers):
        (near,) = tiers()
        near.close()

        def child():
            body(near, A)
            return [len(threads()), is_trusted(near)]

        assert in_child(child) == "[0, False]"
