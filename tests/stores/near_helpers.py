"""A store that near tiers share in one process: messages, a register, faults, gates; and clocks to turn."""

import threading
import time

from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreError, tried
from wsgicache.stores.heartbeat import Heartbeat
from wsgicache.stores.memory import MemoryStore
from wsgicache.stores.near import near_store
from wsgicache.testing import FailingStore, FakeClock, Gate

BOUND = 1.0
MAX_AGE = 60.0


def until(what, seconds=20.0):
    """Wait for something that is about to become true."""
    pause, deadline = threading.Event(), time.monotonic() + seconds
    while not (answer := what()):
        assert time.monotonic() < deadline, "it never came"
        pause.wait(0.001)
    return answer


class ByHand(Heartbeat):
    """A heartbeat that beats when it is told to."""

    def start(self):
        self.started = True


class Remote(FailingStore):
    """A memory store as a server: who calls it can be held before or after it has answered."""

    def __init__(self, store=None):
        super().__init__(store)
        self.calls = []
        self._gates = {}

    def hold(self, method, when="after"):
        """Hold the next call of a method, once the store has answered or before it is asked."""
        gate = self._gates[method, when] = Gate()
        return gate

    def _call(self, method, *args, **kwargs):
        self.calls.append(method)
        self._pass(method, "before")
        answer = super()._call(method, *args, **kwargs)
        self._pass(method, "after")
        return answer

    def _pass(self, method, when):
        gate = self._gates.pop((method, when), None)
        if gate is not None:
            gate.pass_through()

    def asked_for(self, work):
        """What the store was asked while `work` ran."""
        before = len(self.calls)
        work()
        return self.calls[before:]


class Pushing(Remote):
    """With messages and a register, as Redis has them."""

    def __init__(self, store=None):
        super().__init__(store)
        self._ears = {}
        self._register = {}
        self.now = time.monotonic
        self.deaf = False
        """Whether every connection for messages is broken at the moment."""
        self.sent = []

    def publish(self, payload):
        self._call("mark_of", "")  # fails when the store does
        self.sent.append(payload)
        ears = [] if self.deaf else list(self._ears.values())
        for poke in ears:
            poke(payload)
        return len(ears)

    def listen(self, poke, stop):
        self._ears[id(stop)] = poke
        poke("")
        stop.wait()
        del self._ears[id(stop)]

    @property
    def listeners(self):
        return len(self._ears)

    def attend(self, who, seconds):
        if "attend" in self.failing:
            raise StoreError("attend was told to fail")
        self._register[who] = self.now() + seconds
        if seconds == 0:
            del self._register[who]

    def attending(self):
        now = self.now()
        return [who for who, until in self._register.items() if now < until]

    def lose_register(self):
        self._register.clear()

    def append(self, purges, at):
        mark = super().append(purges, at)
        if not self.deaf:
            for poke in list(self._ears.values()):
                poke("purge")
        return mark


class Parted:
    """A store with several journals, as a cluster: its parts are stores."""

    def __init__(self, count=3, rooms=None):
        self.rooms = rooms or [MemoryStore() for _ in range(count)]
        self.parts = tuple([Remote(room) for room in self.rooms])

    def part_of(self, key):
        return sum(key.encode("utf-8", "surrogatepass")) % len(self.parts)

    def _of(self, key):
        return self.parts[self.part_of(key)]

    def get(self, keys):
        mark = self._of(keys[0] if keys else "").mark_of("")
        return [self._of(key).get([key])[0][0] for key in keys], mark

    def mark_of(self, key):
        return self._of(key).mark_of(key)

    def set(self, key, stored, keep_until, token=0):
        return self._of(key).set(key, stored, keep_until, token)

    def delete(self, key, only=None):
        return self._of(key).delete(key, only)

    def clear(self):
        marks = [part.clear() for part in self.parts]
        return marks[0]

    def append(self, purges, at):
        purges = list(purges)
        marks = [part.append(purges, at) for part in self.parts]
        return marks[0]

    def purges_since(self, mark):
        return self.parts[0].purges_since(mark)

    def lease(self, key, seconds):
        return self._of(key).lease(key, seconds)

    def release(self, key, token, unstorable_for=0.0):
        self._of(key).release(key, token, unstorable_for)

    def get_meta(self, name):
        return self.parts[0].get_meta(name)

    def set_meta(self, name, value):
        self.parts[0].set_meta(name, value)

    def incr_many(self, deltas):
        self.parts[0].incr_many(deltas)

    def counters(self):
        return self.parts[0].counters()

    def namespaced(self, namespace):
        return Parted(rooms=[room.namespaced(namespace) for room in self.rooms]) if namespace else self

    def scan(self, prefix=""):
        return iter([stored for part in self.parts for stored in part.scan(prefix)])

    def stats(self):
        told = [part.stats() for part in self.parts]
        return {name: sum([stats[name] for stats in told]) for name in told[0]}

    def close(self):
        for part in self.parts:
            part.close()


class PartedAtOnce(Parted):
    """The same, whose parts can be asked at the same time."""

    def __init__(self, count=3, rooms=None):
        super().__init__(count, rooms)
        self.at_once = AtOnce(self.parts)


class AtOnce:
    """Several parts, one after another.

    Attributes:
        turns: what was asked: the method, and of which parts.
        meanwhile: called before a method is answered, with its name.
    """

    def __init__(self, parts):
        self.parts = parts
        self.turns = []
        self.meanwhile = lambda method: None

    def _each(self, method, parts, job):
        self.turns.append((method, sorted(parts)))
        answers = {number: tried(lambda number=number: job(number)) for number in parts}
        self.meanwhile(method)
        return answers

    def append(self, purges, at):
        return self._each("append", purges, lambda number: self.parts[number].append(purges[number], at))

    def clear(self):
        return self._each("clear", range(len(self.parts)), lambda number: self.parts[number].clear())

    def marks(self, parts):
        return self._each("marks", parts, lambda number: self.parts[number].mark_of(""))

    def purges_since(self, marks):
        return self._each("since", marks, lambda number: self.parts[number].purges_since(marks[number]))


class Worker:
    """What an engine does with a store that is near: follows its journal, hears that it moved."""

    def __init__(self, store):
        self.store = store
        self.moved = 0
        store.watch(self.on_moved)

    def on_moved(self):
        self.moved += 1


class World:
    """Near tiers over one store, with clocks that stand still and heartbeats by hand."""

    def __init__(self, remote=None, count=2, **options):
        self.wall, self.steady = FakeClock(), FakeClock(5000.0)
        self.remote = Remote() if remote is None else remote
        self.remote.now = self.steady
        self.tiers = [self.tier(**options) for _ in range(count)]

    def tier(self, max_bytes=1 << 20, remote=None, **options):
        given = {"bound": BOUND, "max_age": MAX_AGE, "heart": ByHand, **options}
        remote = self.remote if remote is None else remote
        return near_store(remote, max_bytes, clock=self.wall, steady=self.steady, **given)

    def beat(self, *tiers):
        for tier in tiers or self.tiers:
            assert tier._heartbeat.beat()

    def tick(self, seconds):
        self.wall.tick(seconds)
        self.steady.tick(seconds)

    def entry(self, key="/a", body=b"body", born=None, lifetime=3600, **terms):
        terms = Terms("200 OK", "f", lifetime, "ttl", **terms)
        born = self.remote._store.mark_of(key) if born is None else born
        return Entry(key, terms, (), body, self.wall.now, self.wall.now + lifetime, born)

    def put(self, store, key="/a", body=b"body", **given):
        entry = self.entry(key, body, **given)
        assert store.set(key, entry, entry.keep_until)
        return entry


def purge_all(soft=False):
    return [Purge(Kind.ALL, "", soft)]


def purge_path(path, soft=False):
    return [Purge(Kind.URL, f"p{path}", soft)]


def body(store, key="/a"):
    """The body of what a store has under a key."""
    (found,), _ = store.get([key])
    return None if found is None else found.body
