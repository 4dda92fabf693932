"""A state machine of requests, held requests, edits, purges and time, against a small model.

The app counts its readings of the data; every answer tells the serial number of its own (`X-Serial`), a 304
too, which renews it. The model knows of each reading when it was made and of what data, and of each purge
what it covers and how many readings there were when it returned. So it can tell of any answer whether it was
computed before a purge that its request came after.
"""

import os
import threading
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from race_helpers import queue_of
from structs import replace, skip_a_struct
from waiting import PATIENCE

from wsgicache import Rule, WSGICache, fill, queueing
from wsgicache.dropped import Dropped
from wsgicache.engine import Engine
from wsgicache.journal import PurgeIndex, Verdict
from wsgicache.policy import judge
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


@dataclass(frozen=True)
class Page:
    """What the app says of a path."""

    lifetime: int = 300  # the default, where nothing is stated
    control: str = ""
    groups: tuple = ()
    etag: str = ""  # in front of its opaque part; "" for none
    varies: bool = False
    window: int = 0  # stale-while-revalidate


PAGES = {
    "/a": Page(50, "max-age=50", ("g1",)),
    "/a/b": Page(50, "max-age=50, stale-while-revalidate=30", ("g1", "g2"), etag='"', window=30),
    "/a/b/c": Page(50, "max-age=50", ("g2",), etag='W/"'),
    "/ab": Page(varies=True, groups=("g2",)),
    "/": Page(20, "max-age=20", etag='"', varies=True),
}
PATHS = st.sampled_from(sorted(PAGES))
HOSTS = st.sampled_from(["h1", "h2"])
ORIGINS = st.sampled_from(["", "", "http://h1", "http://h2"])
VARIANTS = st.sampled_from([None, "1"])
WORKERS = st.integers(0, 1)
SOFT = st.booleans()


class Site:
    """The app, and the history of its readings."""

    def __init__(self, clock):
        self.clock = clock
        self.version = 1
        self.made = {}  # serial: (instant, version)
        self.app = ScriptedApp(self.answer)
        self._lock = threading.Lock()

    @property
    def serial(self):
        return len(self.made)

    def answer(self, environ):
        if environ["REQUEST_METHOD"] == "POST":
            return Response()
        with self._lock:
            serial = len(self.made) + 1
            self.made[serial] = (self.clock.now, self.version)
        page = PAGES[environ["PATH_INFO"]]
        variant = environ.get("HTTP_X_VARIANT") if page.varies else None
        body = f"{environ['HTTP_HOST']} {environ['PATH_INFO']} {variant} v{self.version}".encode()
        headers = [("X-Serial", str(serial))]
        headers += [("Cache-Control", page.control)] if page.control else []
        headers += [("Cache-Groups", ", ".join(f'"{group}"' for group in page.groups))] if page.groups else []
        headers += [("Vary", "X-Variant")] if page.varies else []
        if page.etag:
            etag = f'{page.etag}{variant}{self.version}"'
            headers.append(("ETag", etag))
            if environ.get("HTTP_IF_NONE_MATCH") == etag:
                return Response("304 Not Modified", headers)
        return Response(headers=[*headers, ("Content-Length", str(len(body)))], body=body)


@dataclass(frozen=True)
class Purged:
    """A purge that has returned: what it covers, and how many readings there were by then."""

    text: str
    covers: object
    soft: bool
    serial: int


class Asked:
    """A request on a thread of its own: answered, at a gate in the app, or waiting behind a flight."""

    def __init__(self, machine, cache, host, path, variant):
        self.host, self.path, self.variant = host, path, variant
        self.page = PAGES[path]
        self.cache = cache
        self.purges = list(machine.purges)
        self.since, self.until = machine.clock.now, None
        self.reply = None
        self.gate = None
        self._machine = machine
        queue_of(cache)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        headers = {} if self.variant is None else {"X-Variant": self.variant}
        # One thread: a refresh runs after the response, so that nothing happens at a time of its own.
        extra = {"HTTP_HOST": self.host, "wsgi.multithread": False}
        self.reply = ask(self.cache, self.path, headers=headers, **extra)
        self.until = self._machine.clock.now

    @property
    def is_done(self):
        return not self._thread.is_alive()

    @property
    def is_waiting(self):
        return queue_of(self.cache).holds(self._thread)

    def join(self, seconds):
        self._thread.join(seconds)


class Machine(RuleBasedStateMachine):
    """The rules; every answer is checked as soon as there is one."""

    @initialize(limit=st.sampled_from([65536, 2]))
    def begin(self, limit):
        self.clock = FakeClock()
        self.site = Site(self.clock)
        self.store = MemoryStore(journal_limit=limit)
        self.drops = limit == 2
        self.caches = [
            WSGICache(
                self.site.app, self.store, clock=self.clock, rules=[Rule("/*", query="key")], wait_timeout=60
            )
            for _ in range(2)
        ]
        self.purges = []
        self.held = []
        self.waiting = []
        self.known = {}

    def teardown(self):
        for asked in getattr(self, "held", []):
            asked.gate.open()
        for asked in [*getattr(self, "held", []), *getattr(self, "waiting", [])]:
            asked.join(PATIENCE)
        if hasattr(self, "store"):
            stats = self.store.stats()
            assert stats["bytes"] <= stats["max_bytes"]

    # --- requests ----------------------------------------------------------------------------------

    def ask(self, worker, host, path, variant, hold=False):
        gate = self.site.app.hold(path) if hold else None
        asked = Asked(self, self.caches[worker], host, path, variant)
        expected = None if hold else self.expected(asked)
        where = self.settle(asked, gate)
        self.site.app.let_pass(path)
        if where == "gate":
            asked.gate = gate
            self.held.append(asked)
        elif where == "waiting":
            self.waiting.append(asked)
        else:
            self.check(asked, expected)

    def settle(self, asked, gate):
        """Where a request stands, once it stands still."""
        while not asked.is_done:
            if gate is not None and gate._entered.acquire(timeout=0.0005):
                return "gate"
            if asked.is_waiting:
                return "waiting"
            asked.join(0.0005)
        return "done"

    @rule(worker=WORKERS, host=HOSTS, path=PATHS, variant=VARIANTS)
    def request(self, worker, host, path, variant):
        self.ask(worker, host, path, variant)

    @rule(worker=WORKERS, path=PATHS)
    def request_thrice(self, worker, path):
        """So that the page is armed for the hit path."""
        for _ in range(3):
            self.ask(worker, "h1", path, None)

    @precondition(lambda self: len(self.held) < 4)
    @rule(worker=WORKERS, host=HOSTS, path=PATHS, variant=VARIANTS)
    def hold(self, worker, host, path, variant):
        self.ask(worker, host, path, variant, hold=True)

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 3))
    def release(self, which):
        self.let_go(self.held.pop(which % len(self.held)))

    @rule(
        worker=WORKERS,
        path=PATHS,
        variant=VARIANTS,
        seconds=st.sampled_from([1, 10]),
        purge=st.sampled_from(["", "hard", "soft"]),
        meanwhile=st.sampled_from([None, 0, 1]),
    )
    def overtake(self, worker, path, variant, seconds, purge, meanwhile):
        """What the machine would find too seldom: a held request, what overtakes it, and one after it."""
        held = len(self.held)
        self.ask(worker, "h1", path, variant, hold=True)
        self.clock.tick(seconds)
        if purge:
            self.purge(1 - worker, "", path, soft=purge == "soft")
        if meanwhile is not None:
            self.ask(meanwhile, "h1", path, variant)
        if len(self.held) > held:
            self.let_go(self.held.pop())
        self.ask(worker, "h1", path, variant)

    def let_go(self, asked):
        asked.gate.open()
        asked.join(PATIENCE)
        assert asked.is_done, "a request never ended"
        self.check(asked, None)
        self.settle_waiting()

    def settle_waiting(self):
        """Those who waited behind it have their answer, or wait behind another one."""
        while True:
            for asked in [asked for asked in self.waiting if asked.is_done]:
                self.waiting.remove(asked)
                self.check(asked, None)
            restless = [asked for asked in self.waiting if not asked.is_waiting]
            if not restless:
                return
            restless[0].join(0.0005)

    # --- the world ---------------------------------------------------------------------------------

    @rule()
    def edit(self):
        self.site.version += 1

    @rule(seconds=st.sampled_from([1, 10, 19, 20, 30, 49, 50, 51, 79, 80, 400]))
    def tick(self, seconds):
        self.clock.tick(seconds)

    # --- purges ------------------------------------------------------------------------------------

    def purged(self, text, covers, soft):
        self.purges.append(Purged(f"{text}{', soft' * soft}", covers, soft, self.site.serial))

    @rule(worker=WORKERS, origin=ORIGINS, path=PATHS, soft=SOFT)
    def purge(self, worker, origin, path, soft):
        self.caches[worker].purge(origin + path, soft=soft)
        self.purged(
            f"purge {origin}{path}", lambda a: a.path == path and origin in ("", f"http://{a.host}"), soft
        )

    @rule(worker=WORKERS, origin=ORIGINS, prefix=st.sampled_from(["/", "/a/", "/a", "/a/b"]), soft=SOFT)
    def purge_prefix(self, worker, origin, prefix, soft):
        def covers(asked):
            below = f"{asked.path.rstrip('/')}/".startswith(f"{prefix.rstrip('/')}/")
            return below and origin in ("", f"http://{asked.host}")

        self.caches[worker].purge_prefix(origin + prefix, soft=soft)
        self.purged(f"prefix {origin}{prefix}", covers, soft)

    @rule(worker=WORKERS, origin=ORIGINS, group=st.sampled_from(["g1", "g2"]), soft=SOFT)
    def purge_groups(self, worker, origin, group, soft):
        self.caches[worker].purge_groups(group, origin=origin or None, soft=soft)
        self.purged(
            f"group {origin} {group}",
            lambda a: group in a.page.groups and origin in ("", f"http://{a.host}"),
            soft,
        )

    @rule(worker=WORKERS, soft=SOFT)
    def clear(self, worker, soft):
        self.caches[worker].clear(soft=soft)
        self.purged("all", lambda a: True, soft)

    @rule(worker=WORKERS, host=HOSTS, path=PATHS)
    def unsafe(self, worker, host, path):
        assert ask(self.caches[worker], path, "POST", HTTP_HOST=host).code == 200
        self.purged(f"POST {host}{path}", lambda a: (a.path, a.host) == (path, host), False)

    # --- the model ---------------------------------------------------------------------------------

    def place(self, asked):
        return asked.host, asked.path, asked.variant if asked.page.varies else None

    def expected(self, asked):
        """The reading that must answer, if anything is worth its name: fresh, and purged by nobody."""
        known = self.known.get(self.place(asked))
        if known is None or self.clock.now - self.site.made[known][0] >= asked.page.lifetime:
            return None
        later = [purge for purge in self.purges if purge.serial >= known]
        if self.drops and later:  # what was dropped may have been a purge of it, for all that is known
            return None
        return None if any(purge.covers(asked) for purge in later) else known

    def check(self, asked, expected):
        reply = asked.reply
        assert reply is not None, "the request raised"
        assert reply.code == 200
        serial = int(reply.field("X-Serial"))
        made, version = self.site.made[serial]
        place = self.place(asked)
        assert reply.body.decode() == f"{place[0]} {place[1]} {place[2]} v{version}"
        status = reply.cache
        ttl = int(status["ttl"]) if "ttl" in status else None
        is_fresh = "collapsed" in status or ("hit" in status and ttl > 0)
        for purge in asked.purges:
            if purge.covers(asked) and serial <= purge.serial:
                assert purge.soft, f"{status} shows reading {serial}, from before: {purge.text}"
                assert not is_fresh, f"{status} calls reading {serial} fresh, from before: {purge.text}"
        if "hit" in status or "collapsed" in status:
            self.check_age(asked, made, ttl, is_fresh)
        if expected is not None:
            assert "hit" in status, f"{status}, where reading {expected} was stored and nobody purged it"
            assert serial >= expected, f"reading {serial} came back after {expected} had been stored"
        if reply.stored:
            self.known[place] = max(serial, self.known.get(place, 0))

    def check_age(self, asked, made, ttl, is_fresh):
        age = int(asked.reply.field("Age"))
        assert int(asked.since - made) <= age <= int(asked.until - made)
        lifetime = asked.page.lifetime
        if is_fresh:
            assert age < lifetime
            assert ttl == lifetime - age
        else:
            assert age < lifetime + asked.page.window
            assert ttl <= 0


SCHEDULES = int(os.environ.get("WSGICACHE_SCHEDULES", "200"))
"""How many random schedules are tried; set the variable to 10000 for a long look."""

RUN = settings(
    max_examples=SCHEDULES,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def test_every_answer_is_what_the_model_allows():
    run_state_machine_as_test(Machine, settings=RUN)


# --- the machine sees what it is there to see ------------------------------------------------------


def no_fence(monkeypatch):
    """No entry is ever purged."""
    replace(monkeypatch, PurgeIndex, "verdict", lambda self, born, key, groups: Verdict.VALID)


def born_late(monkeypatch):
    """The mark is read after the app was called, as a naive cache would read it."""
    skip_a_struct(fill.Fill, "_make")
    make = fill.Fill._make

    def late(self, body):
        self.found.mark = self.engine.store.get([])[1]
        return make(self, body)

    replace(monkeypatch, fill.Fill, "_make", late)


def what_is_dropped_is_forgotten(monkeypatch):
    """The journal keeps a few purges, and nothing of those before."""
    replace(monkeypatch, Dropped, "covers", lambda self, born, parts, groups: False)


def soft_is_nothing(monkeypatch):
    """A soft purge leaves pages fresh."""
    verdict = PurgeIndex.verdict

    def lenient(self, born, key, groups):
        found = verdict(self, born, key, groups)
        return Verdict.VALID if found is Verdict.SOFT else found

    replace(monkeypatch, PurgeIndex, "verdict", lenient)


def groups_are_forgotten(monkeypatch):
    """A purge by group reaches nothing."""
    verdict = PurgeIndex.verdict
    replace(monkeypatch, PurgeIndex, "verdict", lambda self, born, key, groups: verdict(self, born, key, ()))


def hit_path_is_not_told(monkeypatch):
    """What is armed stays armed when the journal moves."""
    replace(monkeypatch, Engine, "_moved", lambda self: None)


def followers_take_anything(monkeypatch):
    """Those who wait get the leader's answer unjudged."""
    replace(monkeypatch, queueing.Queue, "may_share", lambda self, admission, entry: entry is not None)
    replace(monkeypatch, Engine, "covered", lambda self, key, groups=(): lambda born: False)


def age_begins_when_the_app_returns(monkeypatch):
    """The time that the app took is not counted."""
    make = fill.make_entry
    monkeypatch.setattr(
        fill, "make_entry", lambda *given, asked, now, **more: make(*given, asked=now, now=now, **more)
    )


def stale_is_fresh(monkeypatch):
    """A page is fresh for a while longer than it says."""
    monkeypatch.setattr("wsgicache.engine.judge", lambda a, e, v, now: judge(a, e, v, now - 30))


def variants_are_mixed(monkeypatch):
    """The values of varying fields are left out of the key."""
    monkeypatch.setattr("wsgicache.found.variant_key", lambda base, fields, values: base + "\1x")
    monkeypatch.setattr("wsgicache.policy.varying_values", lambda fields, value_of: ())
    monkeypatch.setattr("wsgicache.ready.select_variant", lambda base, chosen, get: base + "\1x")


def late_fills_replace_newer_ones(monkeypatch):
    """The store takes whatever comes last."""
    replace(monkeypatch, MemoryStore, "_refuses", lambda self, old, stored, token: False)


def nothing_is_ever_stored(monkeypatch):
    """The safest cache of all."""
    replace(monkeypatch, MemoryStore, "set", lambda self, key, stored, keep_until, token=0: True)


def every_purge_covers_everything(monkeypatch):
    """Which is safe, and of little use."""
    verdict = PurgeIndex.verdict

    def strict(self, born, key, groups):
        return Verdict.HARD if born.seq < self._state.last_seq else verdict(self, born, key, groups)

    replace(monkeypatch, PurgeIndex, "verdict", strict)


FAULTS = [
    no_fence, born_late, what_is_dropped_is_forgotten, soft_is_nothing, groups_are_forgotten,
    hit_path_is_not_told, followers_take_anything, age_begins_when_the_app_returns, stale_is_fresh,
    variants_are_mixed, late_fills_replace_newer_ones, nothing_is_ever_stored,
    every_purge_covers_everything,
]  # fmt: skip
SEARCH = settings(RUN, max_examples=400, derandomize=True, phases=[Phase.generate], database=None)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_broken_cache_is_caught(fault, monkeypatch):
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Machine, settings=SEARCH)
