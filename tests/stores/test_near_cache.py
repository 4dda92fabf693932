"""Caches with a near tier: what a request is answered with, and what the store is asked for it."""

import threading

import pytest
from near_helpers import BOUND, MAX_AGE, Remote, World, purge_all
from waiting import PATIENCE

from wsgicache import Rule, WSGICache
from wsgicache.entry import Variants
from wsgicache.testing import Response, ScriptedApp, ask, make_environ, run

PATH = "/blog/post"


class Site(World):
    """Two workers of one site, and its pages, which tell how often the app was asked."""

    def __init__(self, **options):
        super().__init__(Remote())
        # Where a clock is given, an engine reads no other.
        self.steady = self.wall
        self.remote.now = self.wall
        self.tiers = [self.tier() for _ in range(2)]
        self.app, self.asked = ScriptedApp(self.answer), 0
        given = {"clock": self.wall, "ttl": 1000, "rules": [Rule("/*", query="key")], **options}
        self.one, self.two = [WSGICache(self.app, tier, **given) for tier in self.tiers]
        self.beat()

    def answer(self, environ):
        path = environ["PATH_INFO"]
        self.asked += 1
        varies = [("Vary", "X-Kind")] if path.startswith("/vary") else []
        window = [("Cache-Control", "max-age=10")] if path == "/short" else []
        return Response(headers=[("Content-Type", "text/plain"), *varies, *window], body=b"%d" % self.asked)

    def tick(self, seconds):
        self.wall.tick(seconds)

    def warm(self, cache, path=PATH, **headers):
        """Ask until the hit path answers; the body."""
        for _ in range(3):
            reply = ask(cache, path, headers=headers)
        assert reply.is_hit
        return reply.body

    def trips(self, cache, path=PATH, **headers):
        """What the store is asked for one request."""
        asked = self.remote.asked_for(lambda: ask(cache, path, headers=headers))
        return [method for method in asked if method != "incr_many"]


@pytest.fixture
def site():
    site = Site()
    yield site
    site.remote.failing.clear()
    for cache in (site.one, site.two):
        cache.close()


def test_a_hit_asks_nobody(site):
    assert site.warm(site.one) == b"1"
    assert site.trips(site.one) == []
    assert site.warm(site.two) == b"1"
    assert site.trips(site.two) == []
    assert site.app.calls == 1


def test_a_varying_page_asks_nobody(site):
    assert site.warm(site.one, "/vary", **{"X-Kind": "a"}) == b"1"
    assert site.warm(site.one, "/vary", **{"X-Kind": "b"}) == b"2"
    for kind in "ab":
        assert site.trips(site.one, "/vary", **{"X-Kind": kind}) == []


def test_a_conditional_request_asks_nobody(site):
    site.warm(site.one)
    fields = {"If-None-Match": ask(site.one, PATH).field("etag")}
    assert site.trips(site.one, **fields) == []
    assert ask(site.one, PATH, headers=fields).code == 304


@pytest.mark.parametrize("soft", [False, True])
def test_a_purge_reaches_the_other_worker_with_its_next_beat(site, soft):
    site.warm(site.one)
    site.warm(site.two)
    site.one.purge(PATH, soft=soft)
    reply = ask(site.one, PATH)
    assert (reply.is_hit, reply.body) == (False, b"2")
    assert ask(site.two, PATH).body == b"1"  # within the bound
    site.beat()
    assert site.warm(site.two) == b"2"
    assert site.app.calls == 2  # the other worker had it made
    assert site.trips(site.two) == []


def test_a_purge_of_something_else_costs_nothing(site):
    site.warm(site.one)
    site.two.purge("/other")
    site.beat()
    assert site.trips(site.one) == []
    assert ask(site.one, PATH).is_hit


def test_hits_stop_when_trust_has_run_out(site):
    site.warm(site.one)
    site.two.purge(PATH)
    site.tick(BOUND - 0.01)
    assert ask(site.one, PATH).body == b"1"
    site.tick(0.01)
    reply = ask(site.one, PATH)
    assert (reply.is_hit, reply.body) == (False, b"2")


def test_hits_stop_when_the_store_is_down_for_longer_than_the_bound(site):
    site.warm(site.one)
    site.remote.failing.add("*")
    site.tick(BOUND - 0.01)
    assert ask(site.one, PATH).is_hit
    site.tick(0.01)
    reply = ask(site.one, PATH)
    assert (reply.is_hit, reply.body) == (False, b"2")
    site.remote.failing.clear()
    assert ask(site.one, PATH).body == b"1"  # nobody has purged it


def test_hits_go_on_while_the_heart_beats(site):
    site.warm(site.one)
    for _ in range(20):
        site.tick(BOUND / 2)
        site.beat()
        assert site.trips(site.one) == []
        assert ask(site.one, PATH).body == b"1"


def test_a_copy_that_is_too_old_is_asked_for_once(site):
    site.warm(site.one)
    site.tick(MAX_AGE)
    site.beat()
    assert site.trips(site.one) == ["get"]
    ask(site.one, PATH)
    assert site.trips(site.one) == []
    assert site.app.calls == 1


def test_a_page_that_another_worker_refreshed_is_taken_from_there(site):
    assert site.warm(site.one, "/short") == b"1"
    assert site.warm(site.two, "/short") == b"1"
    site.tick(10)
    site.beat()
    assert ask(site.one, "/short").body == b"2"
    assert ask(site.two, "/short").body == b"2"
    assert site.app.calls == 2


def test_a_worker_fetches_the_journal_once_when_it_begins(site):
    site.warm(site.one)
    site.warm(site.one, "/other")
    site.one.purge("/other")
    site.one.purge(PATH, soft=True)
    tier = site.tier()
    late = WSGICache(site.app, tier, clock=site.wall, ttl=1000, rules=[Rule("/*", query="key")])
    assert site.trips(late, "/other").count("purges_since") == 1
    index = late.engine.followers[0]._index
    assert index.mark == tier._mark == site.remote.mark_of("")
    records = [record[:4] for record in site.remote.purges_since(None).records]
    assert [record[:4] for record in index.whole().records] == records
    site.beat(tier)
    site.two.purge("/other")
    assert site.trips(late, "/other").count("purges_since") <= 1
    late.close()


def test_who_begins_with_a_purge_knows_what_others_purged_meanwhile(site):
    """A near tier may be behind by the bound; what a purge reached is counted by the journal itself."""
    site.warm(site.one)
    tier = site.tier()
    late = WSGICache(site.app, tier, clock=site.wall, ttl=1000, rules=[Rule("/*", query="key")])
    site.beat(tier)
    assert site.two.purge(PATH).matched == 1
    assert late.purge(PATH).matched == 0
    late.close()


def test_clear_reaches_the_other_worker(site):
    site.warm(site.one)
    site.warm(site.two)
    site.one.clear()
    site.beat()
    assert ask(site.two, PATH).body == b"2"
    assert site.app.calls == 2
    site.beat()
    site.warm(site.two)
    assert site.trips(site.two) == []


def test_a_fill_that_lost_against_a_purge_elsewhere_is_served_to_nobody_else(site):
    gate, replies = site.app.hold(PATH), []
    flight = threading.Thread(target=lambda: replies.append(ask(site.one, PATH)))
    flight.start()
    gate.wait_entered()
    site.app.let_pass(PATH)
    site.two.purge(PATH)
    gate.open()
    flight.join(PATIENCE)
    assert replies[0].body == b"1"
    site.beat()
    assert ask(site.one, PATH).body == b"2"
    assert ask(site.two, PATH).body == b"2"


def test_a_request_that_began_before_trust_came_back_is_not_answered_from_before(site):
    """The store was away for long; it is back, with a purge, while a request is on the hit path."""
    site.warm(site.one)
    site.remote.append(purge_all(), 0.0)
    site.tick(10 * BOUND)
    engine, tier = site.one.engine, site.tiers[0]

    class Slow(dict):
        """An environ in which the heart beats when the hit path has read its stamp."""

        beaten = False

        def get(self, name, default=None):
            if not self.beaten:
                Slow.beaten = True
                assert tier._heartbeat.beat()
            return super().get(name, default)

    stamp = engine.stamp
    reply = run(site.one, Slow(make_environ(PATH)))
    assert engine.stamp is not stamp
    assert reply.body == b"2"


def test_a_page_that_was_not_whole_is_taken_back_everywhere(site):
    """Another worker copied it in the moment before that turned out."""
    seen = []

    def body():
        yield b"half"
        seen.append(ask(site.two, PATH).body)
        raise OSError("the disk broke")

    site.app.answers(Response(headers=[("Content-Length", "4")], body=body))
    with pytest.raises(OSError, match="the disk broke"):
        ask(site.one, PATH)
    assert seen == [b"half"]
    site.app.answers(site.answer)
    assert ask(site.one, PATH).body == b"1"
    site.beat()
    assert site.warm(site.two) == b"1"


def test_a_variant_is_noted_beside_those_of_other_workers(site):
    """Not beside those that a copy of the record knows."""
    for cache, kind in ((site.one, "a"), (site.two, "b"), (site.one, "c"), (site.two, "d")):
        ask(cache, "/vary", headers={"X-Kind": kind})
    records = [stored for stored in site.remote.scan("/vary") if isinstance(stored, Variants)]
    assert [len(record.variants) for record in records] == [4]
    for kind, body in zip("abcd", (b"1", b"2", b"3", b"4"), strict=True):
        assert site.warm(site.one, "/vary", **{"X-Kind": kind}) == body
