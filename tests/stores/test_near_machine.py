"""Two near tiers over one store against a small model: nothing older than a purge once its time has come.

Each worker does what an engine does: a hit path that serves what is armed, a long way that follows and
judges. The model numbers everything that happens. A page carries the number at which its making began; a
purge has the number at which it returned. No answer that was asked for when a purge was in force for that
worker (it was its own, it was waited for, or the bound had passed) may carry a lower number.
"""

import os
import threading
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from near_helpers import BOUND, Remote, World
from waiting import PATIENCE

from wsgicache.journal import Kind, Purge, PurgeIndex, Snapshot, Verdict
from wsgicache.stores import StoreError, rollcall
from wsgicache.stores.heartbeat import Heartbeat
from wsgicache.stores.memory import MemoryStore
from wsgicache.stores.near import NearStore
from wsgicache.stores.rollcall import Post
from wsgicache.stores.steps import Steps
from wsgicache.testing import Gate

KEYS = ["/a\0\0h\0http", "/a/b\0\0h\0http"]
PURGES = {
    Purge(Kind.URL, "p/a"): {KEYS[0]},
    Purge(Kind.PREFIX, "p/a"): set(KEYS),
    Purge(Kind.ALL, "", soft=True): set(KEYS),
    Purge(Kind.URL, "p/other"): set(),
}
FAULTS = ["purges_since", "mark_of", "attend", "get_meta", "get", "append", "*"]
SECONDS = [BOUND * 0.4, BOUND, BOUND * 4]
WORKERS = st.integers(0, 1)


class Server(Remote):
    """A store whose messages reach whom the machine lets hear them."""

    def __init__(self):
        super().__init__(MemoryStore(journal_limit=3))
        self.ears, self.register, self.refused = [], {}, None

    def publish(self, text):
        if self.failing & {"publish", "*"}:
            raise StoreError("publish was told to fail")
        for ear in list(self.ears):
            ear(text)
        return len(self.ears)

    def listen(self, poke, stop):
        raise NotImplementedError

    def attend(self, who, seconds):
        if self.failing & {"attend", "*"} or who == self.refused:
            raise StoreError("attend was told to fail")
        self.register[who] = self.now() + seconds

    def attending(self):
        return [who for who, until in self.register.items() if self.now() < until]


class Worker:
    """What an engine does with a near tier, in little."""

    def __init__(self, near, world):
        self.near, self.world = near, world
        self.index, self.stamp = PurgeIndex(), object()
        near.watch(self.moved)
        self.hears = True

    def moved(self):
        self.stamp = object()

    def answer(self, key):
        """The page that a request is answered with, or None."""
        stamp, slot = self.stamp, self.near.peek(key)
        now = self.world.steady.now
        if slot is not None and slot.stamp is stamp and now < min(slot.until, self.near.trust.until):
            return slot.stored
        try:
            (stored,), mark = self.near.get([key])
            if self.index.mark != mark:
                self.index.follow(self.near.purges_since(self.index.mark))
        except StoreError:
            return None
        if stored is None:
            return None
        if self.index.verdict(stored.born, stored.key, stored.terms.groups) is not Verdict.VALID:
            return None
        slot = self.near.peek(key)
        if slot is not None and slot.stored is stored:
            slot.stamp = stamp
        return stored

    def hear(self, text):
        """A message comes, and the heart beats at once."""
        if self.hears:
            self.near._heartbeat.post.poke(text)
            self.near._heartbeat.beat()


@dataclass
class Purged:
    """A purge that has returned."""

    keys: set
    serial: int
    at: float
    owner: object
    waited_for: bool = False

    def is_in_force(self, worker, now):
        return self.waited_for or self.owner is worker or now - self.at >= BOUND


class Flight:
    """A request on a thread of its own, held after the store has answered it, if it asks the store at all."""

    def __init__(self, machine, worker, key):
        self.worker, self.key = worker, key
        self.purges = machine.in_force(worker, key)
        self.page = None
        self.gate = machine.world.remote.hold("get")
        self._entered = threading.Event()
        self.gate.pass_through = self._pass_through
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        while not self._entered.is_set() and self._thread.is_alive():
            self._thread.join(0.0005)
        machine.world.remote._gates.clear()

    def _pass_through(self):
        self._entered.set()
        Gate.pass_through(self.gate)

    def _run(self):
        self.page = self.worker.answer(self.key)

    def land(self):
        self.gate.open()
        self._thread.join(PATIENCE)
        return self.page


class NearMachine(RuleBasedStateMachine):
    """Fills, requests, purges and messages of two workers, and time."""

    def __init__(self):
        super().__init__()
        self.world = World(Server(), max_age=5 * BOUND)
        self.workers = [Worker(tier, self.world) for tier in self.world.tiers]
        self.serial = 0
        self.purges = []
        self.fills = []
        self.flights = []

    def teardown(self):
        for flight in self.flights:
            flight.land()

    def number(self):
        self.serial += 1
        return self.serial

    def in_force(self, worker, key):
        now = self.world.steady.now
        return [p for p in self.purges if key in p.keys and p.is_in_force(worker, now)]

    def check(self, page, purges):
        for purged in purges:
            assert page is None or int(page.body) > purged.serial, "older than a purge"

    # --- requests and fills ---

    @rule(number=WORKERS)
    def ask(self, number):
        worker = self.workers[number]
        for key in KEYS:
            purges = self.in_force(worker, key)
            self.check(worker.answer(key), purges)

    @rule()
    def warm(self):
        """Both have followed everything, and hold armed copies of all pages."""
        self.heal()
        for worker in self.workers:
            worker.hears = True
            assert worker.near._heartbeat.beat()
            worker.near._heartbeat.beat()
        for key in KEYS:
            self.fill(0, key)
            for worker in self.workers:
                purges = self.in_force(worker, key)
                page = worker.answer(key)
                self.check(page, purges)
                assert page is not None
                assert worker.near.peek(key).stamp is worker.stamp

    @rule(number=WORKERS, key=st.sampled_from(KEYS))
    def begin_to_fill(self, number, key):
        worker = self.workers[number]
        try:
            mark = worker.near.get([key])[1]
        except StoreError:
            return
        self.fills.append((worker, self.world.entry(key, b"%d" % self.number(), mark)))

    @rule(data=st.data())
    @precondition(lambda self: self.fills)
    def end_to_fill(self, data):
        worker, entry = self.fills.pop(data.draw(st.integers(0, len(self.fills) - 1)))
        try:
            worker.near.set(entry.key, entry, entry.keep_until)
        except StoreError:
            pass

    def fill(self, number, key):
        worker = self.workers[number]
        entry = self.world.entry(key, b"%d" % self.number(), worker.near.get([key])[1])
        assert worker.near.set(entry.key, entry, entry.keep_until)

    @rule(number=WORKERS, key=st.sampled_from(KEYS))
    @precondition(lambda self: len(self.flights) < 2)
    def begin_to_ask(self, number, key):
        self.flights.append(Flight(self, self.workers[number], key))

    @rule()
    @precondition(lambda self: self.flights)
    def end_to_ask(self):
        flight = self.flights.pop(0)
        self.check(flight.land(), flight.purges)

    # --- purges ---

    @rule(
        number=st.sampled_from([0, 1, None]),
        purge=st.sampled_from(list(PURGES)),
        heard=st.booleans(),
        wait=st.booleans(),
        fault=st.sampled_from([None, None, *FAULTS]),
    )
    def purge(self, number, purge, heard, wait, fault):
        owner = None if number is None else self.workers[number]
        store = self.world.remote if owner is None else owner.near
        try:
            store.append([purge], 0.0)
        except StoreError:
            return
        self.purges.append(Purged(PURGES[purge], self.number(), self.world.steady.now, owner))
        if heard:
            for worker in self.workers:
                worker.hear("purge")
        if wait:
            with self.trouble(fault):
                self.settle(owner)

    @contextmanager
    def trouble(self, fault):
        failing = set(self.world.remote.failing)
        self.world.remote.failing.update({fault} - {None})
        yield
        self.world.remote.failing.intersection_update(failing)

    @rule(number=WORKERS)
    def clear(self, number):
        worker = self.workers[number]
        try:
            worker.near.clear()
        except StoreError:
            return
        self.purges.append(Purged(set(KEYS), self.number(), self.world.steady.now, worker))

    def settle(self, caller):
        """Wait for everybody: by the roll call if all answer, else for the bound."""
        remote = self.world.remote
        post, waited = Post(), list(self.purges)
        who = ""
        if caller is not None:
            try:
                caller.near.follow()
            except StoreError:
                caller.near.doubt()
            post, who = caller.near._heartbeat.post, caller.near._heartbeat.who
        remote.ears = [post.poke, *[worker.hear for worker in self.workers]]
        try:
            answered = rollcall._call(remote, lambda: 0.0, post, who)
        except StoreError:
            answered = False
        remote.ears = []
        if not answered:
            self.world.tick(BOUND)
        for purged in waited:
            purged.waited_for = True

    # --- the world ---

    @rule(number=WORKERS)
    def beat(self, number):
        self.workers[number].near._heartbeat.beat()

    @rule(number=WORKERS, purge=st.sampled_from(list(PURGES)), seconds=st.sampled_from(SECONDS))
    def beat_slowly(self, number, purge, seconds):
        """The mark was read, and something happens before it is followed."""
        worker, asked = self.workers[number], self.world.steady.now
        try:
            mark = self.world.remote.mark_of("")
        except StoreError:
            return
        self.purge(None, purge, False, False, None)
        self.world.tick(seconds)
        try:
            worker.near.follow_to(mark, asked)
        except StoreError:
            pass

    @rule(number=WORKERS, refused=st.booleans())
    def cut_off(self, number, refused):
        """A worker hears no messages; perhaps its place in the register cannot be renewed either."""
        worker = self.workers[number]
        worker.hears = False
        if refused:
            self.world.remote.refused = worker.near._heartbeat.who

    @rule(seconds=st.sampled_from(SECONDS))
    def tick(self, seconds):
        self.world.tick(seconds)

    @rule(method=st.sampled_from(FAULTS))
    def fail(self, method):
        self.world.remote.failing.add(method)

    @rule()
    def heal(self):
        self.world.remote.failing.clear()
        self.world.remote.refused = None


def test_no_answer_is_older_than_a_purge_whose_time_has_come():
    run_state_machine_as_test(
        NearMachine,
        settings=settings(
            max_examples=int(os.environ.get("WSGICACHE_SCHEDULES", "150")),
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- faults that it must find ----------------------------------------------------------------------


def trust_from_the_answer(patch):
    real = NearStore.follow_to
    patch.setattr(NearStore, "follow_to", lambda self, mark, asked: real(self, mark, self._steady()))


def nobody_is_told(patch):
    patch.setattr(NearStore, "_tell", lambda self: None)


def no_bound(patch):
    real = NearStore.follow_to

    def follow_to(self, mark, asked):
        real(self, mark, asked + 1000)

    patch.setattr(NearStore, "follow_to", follow_to)


def a_mark_is_not_followed(patch):
    def follow_to(self, mark, asked):
        if self._mark is None:
            self._advance()
        self.trust.until = max(self.trust.until, min(asked + BOUND, self._heartbeat.standing))

    patch.setattr(NearStore, "follow_to", follow_to)


def no_doubt(patch):
    patch.setattr(NearStore, "doubt", lambda self: None)


def nothing_new(patch):
    def since(self, mark):
        return None if mark is None else Snapshot(mark, 0, (), whole=False)

    patch.setattr(Steps, "since", since)


def answers_although_it_could_not_follow(patch):
    def beat(self):
        calls = self.post.calls()
        done = all([self._tried(self._stand), self._followed(self._living())])
        for call in calls:
            self._tried(self._answer, call)
        return done

    patch.setattr(Heartbeat, "beat", beat)


def waits_for_those_who_hear(patch):
    def call(remote, left, post, who):
        for ear in remote.ears[1:]:
            ear.__self__.near._heartbeat.beat() if ear.__self__.hears else None
        return True

    patch.setattr(rollcall, "_call", call)


def trusts_without_standing(patch):
    patch.setattr(
        Heartbeat, "standing", property(lambda self: float("inf"), lambda self, value: None), raising=False
    )


ALL, NOWHERE, HEARD, WAIT = Purge(Kind.ALL, "", soft=True), None, True, True
FAULTY = {
    trust_from_the_answer: lambda m: (m.warm(), m.beat_slowly(0, ALL, BOUND), m.ask(0)),
    no_bound: lambda m: (m.warm(), m.purge(NOWHERE, ALL, not HEARD, not WAIT, None), m.tick(BOUND), m.ask(0)),
    nobody_is_told: lambda m: (m.warm(), m.purge(0, ALL, HEARD, not WAIT, None), m.ask(0)),
    a_mark_is_not_followed: lambda m: (m.warm(), m.purge(0, ALL, HEARD, not WAIT, None), m.ask(0)),
    no_doubt: lambda m: (
        m.warm(),
        m.fail("purges_since"),
        m.purge(0, ALL, not HEARD, not WAIT, None),
        m.ask(0),
    ),
    nothing_new: lambda m: (m.warm(), m.purge(0, ALL, HEARD, not WAIT, None), m.ask(0)),
    answers_although_it_could_not_follow: lambda m: (
        m.warm(),
        m.purge(NOWHERE, ALL, not HEARD, WAIT, "mark_of"),
        m.ask(0),
    ),
    waits_for_those_who_hear: lambda m: (
        m.warm(),
        m.cut_off(0, False),
        m.purge(NOWHERE, ALL, not HEARD, WAIT, None),
        m.ask(0),
    ),
    trusts_without_standing: lambda m: (
        m.warm(),
        m.cut_off(0, True),
        m.tick(BOUND * 4),
        m.beat(1),
        m.beat(0),
        m.ask(0),
        m.purge(NOWHERE, ALL, not HEARD, WAIT, None),
        m.ask(0),
    ),
}
"""Faults, and what must happen for each to show."""


@pytest.mark.parametrize("fault", FAULTY, ids=lambda fault: fault.__name__)
def test_what_the_machine_finds_in_a_faulty_tier(fault, monkeypatch):
    sound = NearMachine()
    FAULTY[fault](sound)
    sound.teardown()
    fault(monkeypatch)
    faulty = NearMachine()
    with pytest.raises(AssertionError, match="older than a purge"):
        FAULTY[fault](faulty)
    faulty.teardown()
