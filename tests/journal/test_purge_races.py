"""Purges that come while a page is being made: won in every form, hard and soft (CON-01 to CON-04, CON-17,
INT-07, TIM-10). The app reads its data before the gate, so what it returns afterwards is old.
"""

import threading

import pytest
from race_helpers import (
    GROUP,
    HARD_AND_SOFT,
    OTHERS,
    PATH,
    PURGES,
    Flight,
    Newcomer,
    Site,
    Waiting,
    Workers,
    post,
)
from waiting import PATIENCE

from wsgicache import Rule, WSGICache
from wsgicache.stores import StoreError
from wsgicache.testing import FailingStore, FakeClock, Response, ScriptedApp, ask, make_environ

AGE_STATED = [("Cache-Control", "max-age=100")]
WINDOWS = [("Cache-Control", "max-age=100, stale-while-revalidate=50, stale-if-error=80")]


@pytest.fixture(autouse=True)
def _land():
    yield
    Flight.land_all()


@pytest.fixture(params=["memory", "plain"])
def kind(request):
    return request.param


@pytest.fixture
def workers(kind):
    return Workers(kind)


every_purge = pytest.mark.parametrize(
    ("soft", "purge"), [pytest.param(s, p, id=f"{n}{', soft' * s}") for n, s, p in PURGES]
)
every_soft_purge = pytest.mark.parametrize(
    "purge", [pytest.param(purge, id=name) for name, purge in HARD_AND_SOFT.items()]
)
every_hard_purge = pytest.mark.parametrize("purge", [pytest.param(p, id=n) for n, s, p in PURGES if not s])
other_purges = pytest.mark.parametrize("purge", [pytest.param(p, id=n) for n, p in OTHERS.items()])


# --- CON-01, CON-02, CON-03: a miss in flight ---


@every_purge
@pytest.mark.parametrize("by", ["one", "two"], ids=["same worker", "other worker"])
def test_what_was_read_before_a_purge_answers_nobody_after_it(workers, by, soft, purge):
    """The group is known from the response only, so no index of seen groups could know it (CON-02)."""
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    site.version = 2
    purge(getattr(workers, by), soft)
    late = flight.land()
    assert late.body == b"v1"  # its client asked before the purge
    assert late.stored is soft  # a soft purge leaves it to be validated
    assert late.detail == (None if soft else "NOT_STORED_RACED")
    calls = site.app.calls
    for worker in (cache, workers.two):
        reply = ask(worker, PATH)
        assert reply.body == b"v2"
        assert reply.is_hit is (worker is workers.two)
    assert site.app.calls == calls + 1
    assert ask(cache, PATH).is_hit


@every_purge
def test_whoever_comes_after_a_purge_does_not_take_what_began_before(workers, soft, purge):
    """Followers judge at their own mark: a newer flight is led, and its answer is kept, not the late one.

    Whether the first answer will carry the group that was purged, nobody knows yet: then the second waits
    to see, and leads afterwards.
    """
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    site.version = 2
    purge(cache, soft)
    newcomer = Newcomer(cache)
    if newcomer.is_waiting():
        late = flight.land()
        newer = newcomer.reply()
    else:
        newer = newcomer.reply()
        late = flight.land()
        assert (late.stored, late.detail) == (False, "NOT_STORED_RACED")
    assert (late.body, newer.body, newer.stored) == (b"v1", b"v2", True)
    for _ in range(3):
        assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v2")


@pytest.mark.parametrize("name", [name for name, soft, _ in PURGES if not soft and "group" not in name])
def test_whoever_comes_after_a_purge_of_the_url_does_not_even_wait(workers, name):
    purge = {n: p for n, soft, p in PURGES if not soft}[name]
    if name == "journal":
        purge = {n: p for n, soft, p in PURGES if not soft}["path"]
    flight = Flight(workers.one, workers.site)
    workers.site.version = 2
    purge(workers.two, False)
    assert ask(workers.one, PATH).body == b"v2"
    flight.land()
    assert ask(workers.one, PATH).body == b"v2"


def test_a_purge_by_a_group_that_the_replaced_page_had_makes_nobody_wait(kind):
    """What is being made anew will probably be in the groups that it was in."""
    workers = validated(kind)
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    site.version = 2
    cache.purge_groups(GROUP)
    assert ask(cache, PATH).body == b"v2"
    flight.land()
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v2")


@every_hard_purge
def test_those_who_wait_get_what_is_true_now_and_the_app_runs_once_for_them(workers, purge):
    """The answer they waited for is stale for everybody: one of them leads, the others go on waiting."""
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    waiting = Waiting(cache, 5)
    site.version = 2
    purge(cache, False)
    calls = site.app.calls
    flight.land()
    assert [reply.body for reply in waiting.replies()] == [b"v2"] * 5
    assert site.app.calls == calls + 1
    assert ask(cache, PATH).is_hit


@every_soft_purge
def test_those_who_wait_are_not_given_what_is_stale_already(workers, purge):
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    waiting = Waiting(cache, 5)
    site.version = 2
    purge(cache, True)
    flight.land()
    assert [reply.body for reply in waiting.replies()] == [b"v2"] * 5
    assert site.app.calls == 2


@other_purges
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_of_something_else_spoils_nothing(workers, soft, purge):
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    waiting = Waiting(cache, 2)
    purge(cache, soft)
    calls = site.app.calls
    later = Waiting(cache, 3)  # joins although the mark has moved
    reply = flight.land()
    assert reply.stored
    for shared in (*waiting.replies(), *later.replies()):
        assert (shared.body, "collapsed" in shared.cache) == (b"v1", True)
    assert ask(cache, PATH).is_hit
    assert site.app.calls == calls


@every_purge
def test_a_variant_in_flight(workers, soft, purge):
    """The record of varying fields is a hint; each variant is judged by its own birth."""
    site, cache = workers.site, workers.one
    site.headers = [("Vary", "Accept-Language")]
    for language in ("de", "fr"):
        ask(cache, PATH, headers={"Accept-Language": language})
        assert ask(cache, PATH, headers={"Accept-Language": language}).is_hit
    flight = Flight(cache, site, headers={"Accept-Language": "it"})
    site.version = 2
    purge(cache, soft)
    assert flight.land().body == b"v1"
    for language in ("de", "fr", "it"):
        reply = ask(cache, PATH, headers={"Accept-Language": language})
        assert (reply.is_hit, reply.body) == (False, b"v2")
        assert ask(cache, PATH, headers={"Accept-Language": language}).is_hit


@every_purge
def test_a_hit_in_every_worker_ends_with_the_purge(workers, soft, purge):
    """No flight at all: what lies in the store, and is armed for the hit path, in both workers."""
    site = workers.site
    for worker in (workers.one, workers.two):
        for _ in range(3):
            ask(worker, PATH)
    site.version = 2
    purge(workers.two, soft)
    reply = ask(workers.one, PATH)
    assert (reply.is_hit, reply.body) == (False, b"v2")
    assert reply.detail == ("STALE_PURGED" if soft else "MISS_PURGED" if reply.detail else None)
    assert ask(workers.two, PATH).body == b"v2"


def test_many_purges_between_birth_and_return(kind):
    """More than the journal remembers: what was born below its floor is a miss."""
    workers = Workers(kind, journal_limit=10)
    flight = Flight(workers.one, workers.site)
    workers.site.version = 2
    workers.two.purge(PATH)
    for number in range(20):
        workers.two.purge(f"/other/{number}")
    late = flight.land()
    assert (late.stored, late.detail) == (False, "NOT_STORED_RACED")
    assert ask(workers.one, PATH).body == b"v2"


def test_a_journal_that_was_lost_is_a_new_epoch(workers):
    """Flushed, failed over: whatever was born in the old one is a miss, also what is still being made."""
    flight = Flight(workers.one, workers.site)
    workers.site.version = 2
    workers.store.clear()
    late = flight.land()
    assert (late.body, late.stored, late.detail) == (b"v1", False, "NOT_STORED_RACED")
    assert ask(workers.one, PATH).body == b"v2"


# --- CON-04: a background refresh in flight ---


def stale_cache(kind="memory", **changed):
    """A page that is stale, inside its window, and armed."""
    workers = Workers(kind, Site(headers=WINDOWS, **changed))
    for _ in range(3):
        ask(workers.one, PATH)
    workers.clock.tick(120)
    return workers


class Refresh:
    """A stale hit whose refresh stands inside the app."""

    def __init__(self, workers):
        self._workers = workers
        self._gate = workers.site.app.hold(PATH)
        self.hit = ask(workers.one, PATH)
        self._gate.wait_entered()
        workers.site.app.let_pass(PATH)

    def land(self):
        self._gate.open()
        assert self._workers.one.engine.refresher.drain()


@every_purge
def test_a_refresh_that_a_purge_overtook_is_dropped(kind, soft, purge):
    workers = stale_cache(kind)
    refresh = Refresh(workers)
    assert (refresh.hit.detail, refresh.hit.body) == ("HIT_STALE_WHILE_REVALIDATE", b"v1")
    workers.site.version = 2
    purge(workers.one, soft)
    if not soft:
        during = ask(workers.one, PATH)
        assert (during.is_hit, during.body) == (False, b"v2")  # the stale copy is gone at once
    refresh.land()
    reply = ask(workers.one, PATH)
    if soft:  # it may still answer inside its window, but never as fresh
        assert (reply.detail, reply.body) == ("HIT_STALE_WHILE_REVALIDATE", b"v1")
        assert int(reply.cache["ttl"]) <= 0
        assert workers.one.engine.refresher.drain()
        reply = ask(workers.one, PATH)
    assert (reply.is_hit, reply.body, reply.detail) == (True, b"v2", None)


def test_a_purge_and_nobody_asks_while_the_refresh_is_under_way():
    workers = stale_cache()
    refresh = Refresh(workers)
    workers.site.version = 2
    workers.two.purge(PATH)
    refresh.land()
    assert [workers.one.stats()[name] for name in ("refreshes", "refreshes_failed")] == [0, 1]
    reply = ask(workers.one, PATH)
    assert (reply.is_hit, reply.body) == (False, b"v2")


# --- CON-17: two fills that finish out of order ---


def test_of_two_fills_the_one_that_began_later_is_kept(kind):
    workers = Workers(kind, wait_timeout=0)
    site, cache = workers.site, workers.one
    early = Flight(cache, site)
    site.version = 2
    later = ask(cache, PATH)
    assert (later.body, later.stored, later.detail) == (b"v2", True, "COLLAPSE_TIMEOUT")
    reply = early.land()
    assert (reply.body, reply.stored, reply.detail) == (b"v1", False, "NOT_STORED_RACED")
    assert ask(cache, PATH).body == b"v2"


def test_of_two_that_are_both_late_the_one_that_began_later_is_kept(kind):
    workers = Workers(kind, wait_timeout=0)
    site, cache = workers.site, workers.one
    flights = []
    for version in (1, 2, 3):
        site.version = version
        flights.append(Flight(cache, site))
    assert [flights[n].land().body for n in (1, 2, 0)] == [b"v2", b"v3", b"v1"]
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v3")


def test_a_late_304_does_not_bring_back_what_was_replaced(kind):
    workers = Workers(kind, Site(headers=AGE_STATED, etag=lambda version: f'"{version}"'), wait_timeout=0)
    site, cache = workers.site, workers.one
    ask(cache, PATH)
    workers.clock.tick(101)
    early = Flight(cache, site)
    assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == '"1"'
    site.version = 2
    assert ask(cache, PATH).body == b"v2"
    reply = early.land()
    assert (reply.body, reply.stored) == (b"v1", False)
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v2")


def test_a_variant_that_began_earlier_does_not_replace_a_later_one(kind):
    workers = Workers(kind, Site(headers=[("Vary", "Accept-Language")]), wait_timeout=0)
    site, cache, german = workers.site, workers.one, {"headers": {"Accept-Language": "de"}}
    early = Flight(cache, site, **german)
    site.version = 2
    assert ask(cache, PATH, **german).body == b"v2"
    assert early.land().detail == "NOT_STORED_RACED"
    assert (ask(cache, PATH, **german).is_hit, ask(cache, PATH, **german).body) == (True, b"v2")


def test_the_order_of_fills_holds_across_workers(kind):
    """A worker that has made few pages is not behind one that has made many."""
    workers = Workers(kind)
    site, (one, two) = workers.site, (workers.one, workers.two)
    for number in range(10):
        ask(one, f"/blog/{number}")
    ask(one, PATH)
    workers.clock.tick(301)
    site.version = 2
    assert ask(two, PATH).stored
    workers.clock.tick(301)
    site.version = 3
    assert ask(one, PATH).stored
    assert [ask(worker, PATH).body for worker in (one, two)] == [b"v3", b"v3"]


def test_a_late_fill_of_another_worker_does_not_replace_a_newer_one(kind):
    workers = Workers(kind)
    early = Flight(workers.two, workers.site)
    workers.site.version = 2
    assert ask(workers.one, PATH).stored
    assert early.land().detail == "NOT_STORED_RACED"
    assert ask(workers.two, PATH).body == b"v2"


# --- INT-07: a 304 in flight ---


def validated(kind, etag=lambda version: f'"{version}"', **changed):
    """A page that is stale and has a validator of the app's."""
    workers = Workers(kind, Site(headers=AGE_STATED, etag=etag, **changed))
    for _ in range(3):
        ask(workers.one, PATH)
    workers.clock.tick(101)
    return workers


@every_hard_purge
def test_a_304_for_what_was_purged_meanwhile_is_asked_for_again_without_conditions(kind, purge):
    workers = validated(kind)
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == '"1"'
    site.version = 2
    purge(cache, False)
    calls = site.app.calls
    reply = flight.land()
    assert (reply.code, reply.body, reply.stored) == (200, b"v2", True)
    assert site.app.calls == calls + 1
    assert "HTTP_IF_NONE_MATCH" not in site.app.seen[-1]
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v2")


def test_the_second_question_is_born_at_a_mark_of_its_own(kind):
    """A second purge, while the app works on the second question, wins over that too."""
    workers = validated(kind)
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    site.version = 2
    cache.purge(PATH)
    second = site.app.hold(PATH)
    thread_reply = []
    landing = threading.Thread(target=lambda: thread_reply.append(flight.land()))
    landing.start()
    second.wait_entered()
    site.app.let_pass(PATH)
    site.version = 3
    cache.purge(PATH)
    second.open()
    landing.join(PATIENCE)
    (reply,) = thread_reply
    assert (reply.body, reply.stored) == (b"v2", False)
    assert ask(cache, PATH).body == b"v3"


@every_soft_purge
def test_a_304_for_what_was_soft_purged_meanwhile_is_stale_at_once(kind, purge):
    workers = validated(kind)
    site, cache = workers.site, workers.one
    flight = Flight(cache, site)
    purge(cache, True)
    flight.land()
    reply = ask(cache, PATH)
    assert (reply.is_hit, reply.cache["fwd"], reply.detail) == (False, "stale", "STALE_PURGED")
    assert site.app.seen[-1]["HTTP_IF_NONE_MATCH"] == '"1"'  # a strong tag may freshen it
    assert reply.stored
    assert ask(cache, PATH).is_hit


# --- freshening ---


MODIFIED = "Tue, 14 Nov 2023 21:13:20 GMT"


@every_soft_purge
@pytest.mark.parametrize(
    ("etag", "modified", "asked"),
    [
        (lambda version: '"same"', None, '"same"'),
        (lambda version: '"same"', MODIFIED, '"same"'),
        (lambda version: 'W/"same"', None, None),
        (lambda version: 'W/"same"', MODIFIED, None),
        (None, MODIFIED, None),
        (None, None, None),
    ],
    ids=["strong", "strong and date", "weak", "weak and date", "date", "none"],
)
def test_what_was_soft_purged_is_freshened_by_a_strong_etag_only(purge, etag, modified, asked):
    """A weak one or a date may well be the same for two versions of one second."""
    workers = Workers(site=Site(etag=etag, modified=modified))
    site, cache = workers.site, workers.one
    for _ in range(3):
        ask(cache, PATH)
    site.version = 2
    purge(cache, True)
    reply = ask(cache, PATH)
    seen = site.app.seen[-1]
    assert (seen.get("HTTP_IF_NONE_MATCH"), seen.get("HTTP_IF_MODIFIED_SINCE")) == (asked, None)
    assert reply.body == (b"v1" if asked else b"v2")
    assert (reply.cache["fwd"], reply.cache["fwd-status"]) == ("stale", "304" if asked else "200")
    assert reply.stored
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, reply.body)


@pytest.mark.parametrize("etag", [lambda version: 'W/"same"', None], ids=["weak", "date"])
def test_what_is_stale_by_age_is_freshened_by_any_validator(kind, etag):
    workers = Workers(kind, Site(headers=AGE_STATED, etag=etag, modified=MODIFIED))
    ask(workers.one, PATH)
    workers.clock.tick(101)
    reply = ask(workers.one, PATH)
    assert (reply.cache["fwd-status"], reply.stored, reply.body) == ("304", True, b"v1")
    assert ask(workers.one, PATH).is_hit


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
@pytest.mark.parametrize("group", ["old", "both", "new"])
def test_what_was_freshened_has_the_groups_of_both(kind, group, soft):
    """A 304 may leave out the groups, or name others: a purge of any of them reaches the page."""
    workers = Workers(
        kind, Site(headers=[*AGE_STATED, ("Cache-Groups", '"old", "both"')], etag=lambda v: '"1"')
    )
    site, cache = workers.site, workers.one
    ask(cache, PATH)
    workers.clock.tick(101)
    site.headers = [*AGE_STATED, ("Cache-Groups", '"both", "new"')]
    assert ask(cache, PATH).cache["fwd-status"] == "304"
    (entry,) = cache.store.scan()
    assert set(entry.terms.groups) == {"old", "both", "new", GROUP}
    cache.purge_groups(group, soft=soft)
    assert not ask(cache, PATH).is_hit


def test_what_was_freshened_is_born_anew(kind):
    """A purge from before the revalidation does not count any more, one from after it does."""
    workers = Workers(kind, Site(headers=AGE_STATED, etag=lambda version: '"1"'))
    cache = workers.one
    ask(cache, PATH)
    cache.purge(PATH, soft=True)
    assert ask(cache, PATH).cache["fwd-status"] == "304"
    assert ask(cache, PATH).is_hit
    cache.purge(PATH, soft=True)
    assert ask(cache, PATH).detail == "STALE_PURGED"


# --- TIM-10: a soft purge marks as stale, and does nothing to any window ---


def at(workers, second, failing=False):
    """What a request gets that many seconds after the page was stored."""
    workers.clock.now = 1_700_000_000.0 + second
    site, old = workers.site, workers.site.answer
    if failing:
        site.app.answers(Response("500 Broken", error=None))
    reply = ask(workers.one, PATH)
    site.app.answers(old)
    return reply


def windowed(monkeypatch, control="max-age=100, stale-while-revalidate=50, stale-if-error=80"):
    """A page with windows, of which no refresh ever succeeds."""
    workers = Workers(site=Site(headers=[("Cache-Control", control)]))
    for _ in range(3):
        ask(workers.one, PATH)
    monkeypatch.setattr(workers.one.engine.refresher, "submit", lambda key, job: False)
    return workers


@pytest.mark.parametrize("purged_at", [[10], [10, 20, 90], [99], [120], [149], [10, 149]])
@pytest.mark.parametrize(
    ("second", "failing", "detail"),
    [
        (149.9, False, "HIT_STALE_WHILE_REVALIDATE"),
        (150.1, False, None),
        (179.9, True, "HIT_STALE_IF_ERROR"),
        (180.1, True, None),
    ],
)
def test_a_soft_purge_lengthens_no_window(monkeypatch, purged_at, second, failing, detail):
    workers = windowed(monkeypatch)
    for purge_at in purged_at:
        workers.clock.now = 1_700_000_000.0 + purge_at
        workers.two.purge(PATH, soft=True)
    reply = at(workers, second, failing)
    if detail is None:
        assert (reply.is_hit, reply.code) == (False, 500 if failing else 200)
    else:
        assert (reply.detail or "HIT_STALE_IF_ERROR", reply.body) == (detail, b"v1")
        assert int(reply.cache["ttl"]) <= 0


@pytest.mark.parametrize("second", [11, 50, 99, 101, 149])
def test_a_soft_purge_makes_stale_at_once_and_says_so(monkeypatch, second):
    """Inside its window it answers, as a stale hit: its ttl is not above zero (RFC 9211 §2.4)."""
    workers = windowed(monkeypatch)
    workers.clock.now += 10
    workers.one.purge(PATH, soft=True)
    reply = at(workers, second)
    assert (reply.is_hit, reply.detail) == (True, "HIT_STALE_WHILE_REVALIDATE")
    assert int(reply.cache["ttl"]) == min(0, 100 - second)
    assert reply.field("Age") == str(second)


def test_an_error_after_a_soft_purge_is_hidden_inside_the_window_only(monkeypatch):
    workers = windowed(monkeypatch, "max-age=100, stale-if-error=80")
    workers.one.purge(PATH, soft=True)
    reply = at(workers, 20, failing=True)
    assert (reply.code, reply.body) == (200, b"v1")
    assert int(reply.cache["ttl"]) <= 0
    assert at(workers, 181, failing=True).code == 500


@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_an_error_does_not_bring_back_what_was_purged_while_the_app_failed(kind, soft):
    """Gone is gone; a soft purge leaves the window."""
    workers = Workers(kind, Site(headers=[("Cache-Control", "max-age=100, stale-if-error=80")]))
    site, cache = workers.site, workers.one
    ask(cache, PATH)
    workers.clock.tick(120)
    site.app.answers(Response("503 Down"))
    flight = Flight(cache, site)
    workers.two.purge(PATH, soft=soft)
    reply = flight.land()
    assert (reply.code, reply.body) == ((200, b"v1") if soft else (503, b""))


def test_without_a_window_a_soft_purge_sends_to_the_app(workers):
    for _ in range(3):
        ask(workers.one, PATH)
    workers.one.purge(PATH, soft=True)
    reply = ask(workers.one, PATH)
    assert (reply.cache["fwd"], reply.detail, reply.stored) == ("stale", "STALE_PURGED", True)
    assert ask(workers.one, PATH).is_hit


# --- an unsafe request that changes data while it answers ---


class LazyPost:
    """An app whose POST changes the page only while its body is sent, or even when it is closed."""

    def __init__(self, changes_at):
        self.changes_at = changes_at
        self.version = 1

    def __call__(self, environ, start_response):
        if environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [])
            return [b"v%d" % self.version]
        start_response("200 OK", [])
        return self.Body(self)

    class Body:
        def __init__(self, app):
            self.app = app
            self.chunks = iter([b"a", b"b"])

        def __iter__(self):
            return self

        def __next__(self):
            chunk = next(self.chunks)
            if chunk == b"b" and self.app.changes_at == "body":
                self.app.version = 2
            return chunk

        def close(self):
            if self.app.changes_at == "close":
                self.app.version = 2


@pytest.mark.parametrize("changes_at", ["body", "close"])
def test_what_is_stored_while_a_lazy_body_changes_it_goes_at_its_close(changes_at):
    app = LazyPost(changes_at)
    cache = WSGICache(app)
    started = []

    def start_response(status, headers):
        started.append(status)
        ask(cache, PATH)  # somebody asks while the head goes out: what he gets is stored

    body = cache(make_environ(PATH, "POST"), start_response)
    assert started == ["200 OK"]
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (True, b"v1")
    assert b"".join(body) == b"ab"
    body.close()
    assert app.version == 2
    assert (ask(cache, PATH).is_hit, ask(cache, PATH).body) == (False, b"v2")


def test_an_unsafe_request_is_in_force_before_its_head_is_sent():
    """Whoever saw the answer and asks for the page sees the change."""
    site = Site()
    cache = WSGICache(site.app)
    for _ in range(3):
        ask(cache, PATH)
    seen = []

    def start_response(status, headers):
        site.version = 2
        seen.append(ask(cache, PATH).body)

    cache(make_environ(PATH, "POST"), start_response)
    assert seen == [b"v2"]


@pytest.mark.parametrize("status", ["500 Broken", "404 Not Found"])
def test_an_unsafe_request_that_failed_purges_nothing_in_flight(workers, status):
    flight = Flight(workers.one, workers.site)
    old = workers.site.answer
    workers.site.app.answers(Response(status))
    ask(workers.one, PATH, "POST")
    workers.site.app.answers(old)
    assert flight.land().stored
    assert ask(workers.one, PATH).is_hit


# --- a store that fails at the wrong moment ---


@pytest.fixture
def failing():
    store = FailingStore()
    site = Site()
    return store, site, WSGICache(site.app, store, clock=FakeClock())


@pytest.mark.parametrize(("method", "purge"), [("append", n) for n in HARD_AND_SOFT] + [("clear", "all")])
def test_a_purge_that_the_store_did_not_take_raises(failing, method, purge):
    store, _, cache = failing
    ask(cache, PATH)
    store.failing = {method}
    with pytest.raises(StoreError):
        HARD_AND_SOFT[purge](cache, method == "append")
    store.failing = set()
    assert ask(cache, PATH).is_hit  # nothing is purged by half


@pytest.mark.parametrize("method", ["get", "purges_since", "*"])
def test_without_the_journal_nothing_is_served_or_stored(failing, method):
    """No mark, no storing: whether it would be valid cannot be known."""
    store, site, cache = failing
    ask(cache, PATH)
    assert ask(cache, PATH).is_hit
    store.append([], 0.0)
    cache.purge("/other")  # the mark moves, so the index has to follow
    store.failing = {method}
    site.version = 2
    for calls in (2, 3):
        reply = ask(cache, PATH)
        assert (reply.is_hit, reply.stored, reply.body) == (False, False, b"v2")
        assert site.app.calls == calls
    store.failing = set()
    assert ask(cache, PATH).body == b"v1"  # what was there is there


@pytest.mark.parametrize("method", ["mark_of", "purges_since", "set"])
def test_a_store_that_fails_while_the_app_works_keeps_nothing_of_it(failing, method):
    store, site, cache = failing
    flight = Flight(cache, site)
    cache.purge("/other")
    store.failing = {method}
    reply = flight.land()
    assert (reply.code, reply.body, reply.stored) == (200, b"v1", False)
    store.failing = set()
    assert not ask(cache, PATH).is_hit


def test_a_304_without_the_journal_is_not_trusted(failing):
    store, site, cache = failing
    site.headers, site.etag = AGE_STATED, lambda version: f'"{version}"'
    ask(cache, PATH)
    cache.engine.clock.wall.tick(101)
    flight = Flight(cache, site)
    site.version = 2
    cache.purge(PATH)
    store.failing = {"get", "mark_of"}
    reply = flight.land()
    assert (reply.body, reply.stored) == (b"v2", False)
    store.failing = set()
    assert ask(cache, PATH).body == b"v2"


# --- the guarantee, with real threads and no gates ---


@every_hard_purge
def test_no_request_that_starts_after_a_purge_sees_what_was_before_it(purge):
    """One writer that changes and purges, and readers in a hurry: misses, hits and armed hits mixed."""
    workers = Workers(rules=[Rule("/*", query="key")])
    site = workers.site
    acknowledged, errors = [1], []

    def read(cache):
        while acknowledged[0] < 60:
            at_least = acknowledged[0]
            reply = ask(cache, PATH)
            if int(reply.body[1:]) < at_least:
                errors.append((at_least, reply.body, reply.cache))

    def write():
        for version in range(2, 61):
            site.version = version
            purge(workers.two, False)
            acknowledged[0] = version

    readers = [
        threading.Thread(target=read, args=(cache,)) for cache in (workers.one, workers.one, workers.two)
    ]
    writer = threading.Thread(target=write)
    for thread in (*readers, writer):
        thread.start()
    for thread in (*readers, writer):
        thread.join(60)
        assert not thread.is_alive()
    assert errors == []


def test_a_purge_between_two_requests_of_one_visitor():
    """The commonest case of all: change, purge, look."""
    app = ScriptedApp(lambda environ: Response(body=str(len(app.seen)).encode()))
    cache = WSGICache(app)
    for turn in range(20):
        assert ask(cache, PATH).body == str(turn).encode()
        assert ask(cache, PATH).body == str(turn).encode()
        cache.purge(PATH)
    post(WSGICache(Site().app), PATH)
