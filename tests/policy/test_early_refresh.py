"""A page is refreshed behind its visitors before it expires, once, and the earlier the dearer it is."""

import threading

import pytest
from sites import PATIENCE, Call, Site, control, page

from wsgicache import Reason, Rule, WSGICache
from wsgicache.early import lead
from wsgicache.testing import FailingStore, FakeClock, ask

LEAD = lead(1024, 1, 0.5)
"""Seconds before the end at which a page that takes a second is refreshed where 0.5 is drawn: 3.2."""


class Dear(Site):
    """A site whose app takes some seconds, and an engine that always draws the same."""

    def __init__(self, answer=None, *, seconds=1.0, u=0.5, **options):
        self.seconds = seconds
        self.response = answer or page()
        options = {"ttl": 100, "early_refresh": 1, "clock": FakeClock(), **options}
        super().__init__(self.answer, **options)
        self.cache.engine.uniform = lambda: u

    def answer(self, environ):
        self.clock.tick(self.seconds)
        return self.response(environ) if callable(self.response) else self.response

    def hit(self, url="/", **given):
        """A hit, and what it was called; a refresh behind it has come to its end."""
        reply = self.ask(url, **given)
        assert reply.is_hit, reply.headers
        assert self.cache.engine.refresher.drain()
        return reply.detail or "HIT"

    def at(self, age, url="/"):
        """A page that was hit once, at this age."""
        self.fill(url)
        self.hit(url)
        self.clock.tick(age - self.seconds)
        return self


@pytest.mark.parametrize(
    ("age", "detail"),
    [
        (2, "HIT"),
        (50, "HIT"),
        (100 - LEAD - 0.1, "HIT"),
        (100 - LEAD + 0.1, "HIT_EARLY_REFRESH"),
        (99.9, "HIT_EARLY_REFRESH"),
    ],
)
def test_when(age, detail):
    site = Dear().at(age)
    site.response = page(body=b"new")
    reply = site.ask()
    assert (reply.detail or "HIT", reply.body, reply.is_hit) == (detail, b"page", True)
    assert reply.cache["ttl"] == str(100 - int(age))
    assert site.cache.engine.refresher.drain()
    assert site.app.calls == (1 if detail == "HIT" else 2)
    assert site.ask().body == (b"page" if detail == "HIT" else b"new")


@pytest.mark.parametrize(
    ("seconds", "beta", "due"),
    [(1, 0, False), (0.0005, 1, False), (0.1, 1, False), (1, 0.25, False), (1, 0.5, True), (2, 0.25, True)],
)
def test_the_dearer_and_the_higher_beta_the_earlier(seconds, beta, due):
    """1.5 s before the end; half a second before, every page that is refreshed early at all is."""
    site = Dear(seconds=seconds, early_refresh=beta).at(98.5)
    assert (site.hit() == "HIT_EARLY_REFRESH") is due


@pytest.mark.parametrize("threads", [True, False])
def test_one_refresh_and_the_next_page_is_drawn_anew(threads):
    given = {"wsgi.multithread": threads}
    site = Dear().at(98)
    assert [site.hit(**given) for _ in range(4)] == ["HIT_EARLY_REFRESH", "HIT", "HIT", "HIT"]
    assert site.app.calls == 2
    site.clock.tick(95)
    assert site.hit(**given) == "HIT"
    site.clock.tick(3)
    assert [site.hit(**given) for _ in range(2)] == ["HIT_EARLY_REFRESH", "HIT"]
    assert (site.app.calls, site.count(Reason.HIT_EARLY_REFRESH)) == (3, 2)
    told = site.cache.stats()
    assert (told["refreshes"], told["stale_hits"], told["hit_ratio"]) == (
        2,
        0,
        told["hits"] / (told["hits"] + 1),
    )


def test_nobody_waits_while_it_is_under_way():
    site = Dear().at(98)
    gate = site.app.hold("/")
    first = site.ask()
    gate.wait_entered()
    site.clock.tick(-1)  # what the app turned it on by
    assert (first.detail, first.body) == ("HIT_EARLY_REFRESH", b"page")
    assert [site.ask().detail for _ in range(5)] == [None] * 5
    assert site.app.calls == 2
    gate.open()
    assert site.cache.engine.refresher.drain()


@pytest.mark.parametrize("threads", [True, False])
def test_con_01_many_at_the_same_moment_ask_the_app_once(threads):
    site = Dear().at(98)
    gate, together = site.app.hold("/"), threading.Barrier(8)

    def visit():
        together.wait(PATIENCE)
        return site.ask(**{"wsgi.multithread": threads})

    visits = [Call(visit) for _ in range(8)]
    gate.wait_entered()
    gate.open()
    replies = [one.result() for one in visits]
    assert site.cache.engine.refresher.drain()
    assert all(reply.is_hit for reply in replies)
    assert site.app.calls == 2
    assert site.count(Reason.HIT_EARLY_REFRESH) >= 1


def test_one_that_expires_while_its_refresh_is_under_way_is_waited_for():
    """Those who come too late wait for what is already being made, and the app is not asked again."""
    site = Dear().at(98)
    gate = site.app.hold("/")
    site.response = page(body=b"new")
    assert site.ask().detail == "HIT_EARLY_REFRESH"
    gate.wait_entered()
    site.clock.tick(5)
    late = Call(site.ask)
    flights = site.cache.engine.collapse._flights
    while not any(flight.followers for flight in flights.values()):
        assert late._thread.is_alive()
    gate.open()
    reply = late.result()
    assert (reply.body, "collapsed" in reply.cache, site.app.calls) == (b"new", True, 2)


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize(
    "failure",
    [
        page(status="503 So", body=b"down"),
        control("max-age=600", status="503 So", body=b"down"),
        page(error=OSError("down")),
        page(("Set-Cookie", "a=b"), body=b"mine"),
        page(("Content-Length", "9"), body=b"cut"),
    ],
    ids=["error", "error that may be stored", "exception", "not storable", "cut off"],
)
@pytest.mark.parametrize("options", [{}, {"stale_if_error": 60}], ids=["", "stale-if-error"])
def test_tim_09_a_failed_one_leaves_the_page_and_is_seldom_tried_again(failure, threads, options):
    given = {"wsgi.multithread": threads}
    site = Dear(seconds=0.5, rules=[Rule("/*", statuses="200,503", ttl=100)], **options).at(98.6)
    site.response, site.seconds = failure, 0
    assert site.hit(**given) == "HIT_EARLY_REFRESH"
    assert [site.hit(**given) for _ in range(20)] == ["HIT"] * 20
    assert (site.app.calls, site.ask().body) == (2, b"page")
    site.clock.tick(0.7)
    again = site.hit(**given)
    site.clock.tick(0.1)
    assert [site.hit(**given) for _ in range(20)] == ["HIT"] * 20
    assert (site.app.calls, site.ask().body) == (3 if again == "HIT_EARLY_REFRESH" else 2, b"page")
    assert site.cache.stats()["refreshes_failed"] <= 2


def test_the_next_try_is_halfway_to_the_end():
    site = Dear(seconds=1).at(97)
    site.response, site.seconds = page(status="503 So"), 0
    assert site.hit() == "HIT_EARLY_REFRESH"
    site.clock.tick(1.4)
    assert site.hit() == "HIT"
    site.clock.tick(0.2)
    site.response = page(body=b"new")
    assert (site.hit(), site.app.calls, site.ask().body) == ("HIT_EARLY_REFRESH", 3, b"new")


@pytest.mark.parametrize("gone", [control("no-store", body=b"yours"), page(status="404 Gone", body=b"gone")])
def test_what_the_app_takes_back_is_gone(gone):
    """As where a stale page is refreshed: the app has spoken."""
    site = Dear().at(98)
    site.response = gone
    assert site.hit() == "HIT_EARLY_REFRESH"
    assert site.ask().body == gone.body


def test_a_validation_refreshes_as_well():
    site = Dear(page(("ETag", '"a"'))).at(98)
    site.response = page(("ETag", '"a"'), status="304 Not Modified", body=b"")
    assert site.hit() == "HIT_EARLY_REFRESH"
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    reply = site.ask()
    assert (reply.body, reply.cache["ttl"], site.app.calls) == (b"page", "99", 2)


def test_a_purge_before_it_is_a_miss_and_nothing_is_refreshed():
    site = Dear().at(98)
    site.cache.purge("/")
    assert (site.ask().cache["fwd"], site.app.calls) == ("uri-miss", 2)
    assert site.hit() == "HIT"


def test_a_purge_of_another_page_does_not_put_it_off():
    site = Dear().at(98)
    site.cache.purge("/other")
    assert site.hit() == "HIT_EARLY_REFRESH"


@pytest.mark.parametrize("log", [True, False])
def test_the_draw_stays_when_the_journal_moves(log):
    """Also where each request takes the long way, which arms the slot anew."""
    site = Dear(log=log).at(90)
    site.cache.engine.uniform = lambda: 1 - 2**-53  # would be half of what is left
    for n in range(6):
        site.cache.purge(f"/other{n}")
        assert site.hit() == "HIT"
        site.clock.tick(1)
    site.clock.tick(1)
    assert site.hit() == "HIT_EARLY_REFRESH"


def test_a_purge_while_it_is_under_way_is_in_force():
    site = Dear().at(98)
    gate = site.app.hold("/")
    site.ask()
    gate.wait_entered()
    site.cache.purge("/")
    site.app.let_pass("/")
    site.response = page(body=b"new")
    assert site.ask().body == b"new"
    gate.open()
    assert site.cache.engine.refresher.drain()
    assert (site.ask().body, site.app.calls) == (b"new", 3)


def test_a_rule_switch_draws_under_the_rule_in_force():
    site = Dear(rules=[Rule("/*", name="never", early_refresh=0, enabled=False)]).at(98)
    site.cache.rules.enable("never")
    assert site.ask().cache["fwd"] == "uri-miss"
    assert site.hit() == "HIT"
    site.clock.tick(98)
    assert site.hit() == "HIT"
    assert site.app.calls == 2


@pytest.mark.parametrize("u", [0.0, 0.5, 1 - 2**-53])
def test_a_page_that_takes_as_long_as_it_lives_is_not_refreshed_without_a_pause(u):
    site = Dear(seconds=30, ttl=40, u=u)
    for _ in range(20):
        site.ask()
        assert site.cache.engine.refresher.drain()
        site.clock.tick(1)
    assert site.app.calls <= 4


@pytest.mark.parametrize("ttl", [0, 1, 2])
def test_a_tiny_lifetime_stays_sane(ttl):
    site = Dear(control(f"max-age={ttl}"), seconds=0.1)
    for _ in range(6):
        assert site.ask().code == 200
        assert site.cache.engine.refresher.drain()
    assert site.app.calls <= 6


def test_head_and_conditional_requests_are_hits_and_a_get_refreshes():
    site = Dear(page(("ETag", '"a"'))).at(98)
    assert site.hit(method="HEAD") == "HIT"
    assert site.app.calls == 1
    assert site.ask(headers={"If-None-Match": '"a"'}).code == 304
    assert site.cache.engine.refresher.drain()
    assert site.app.calls == 2


def test_a_variant_is_refreshed_for_what_it_was_made_of():
    site = Dear(lambda environ: page(("Vary", "X-Part"), body=environ.get("HTTP_X_PART", "").encode()))
    headers = {"X-Part": "a", "User-Agent": "me"}
    site.fill(headers=headers)
    site.hit(headers=headers)
    site.clock.tick(97)
    assert site.hit(headers=headers) == "HIT_EARLY_REFRESH"
    assert (site.last["HTTP_X_PART"], site.last.get("HTTP_USER_AGENT")) == ("a", None)
    reply = site.ask(headers=headers)
    assert (reply.body, reply.cache["ttl"], site.app.calls) == (b"a", "99", 2)


def test_a_visitor_who_may_have_a_public_page_has_it_refreshed_as_nobody():
    site = Dear(control("public, max-age=100")).at(98)
    assert site.hit(headers={"Cookie": "session=mine"}) == "HIT_EARLY_REFRESH"
    assert "HTTP_COOKIE" not in site.last


def test_a_page_that_cannot_be_asked_for_again_is_not_refreshed(monkeypatch):
    import wsgicache.wsgi

    site = Dear().at(98)
    monkeypatch.setattr(wsgicache.wsgi, "refresh_environ", lambda *given: None)
    assert (site.hit(), site.app.calls) == ("HIT", 1)


def test_what_was_stored_before_it_was_switched_on_is_left_alone():
    """Nothing is known of its cost; whoever switches it on loses no page either."""
    clock = FakeClock()
    first = Dear(clock=clock, early_refresh=0)
    first.fill()
    second = WSGICache(first.app, first.cache.engine.store, ttl=100, early_refresh=1, clock=clock)
    clock.tick(98)
    assert ask(second, "/").cache == {"hit": "", "ttl": "1"}


def test_where_every_request_takes_the_long_way_it_is_found_too():
    """log=True has no hit path."""
    site = Dear(log=True).at(98)
    assert [site.hit() for _ in range(3)] == ["HIT_EARLY_REFRESH", "HIT", "HIT"]
    assert site.app.calls == 2


def test_where_a_process_keeps_no_slots_each_request_draws():
    """As the paper has it."""
    site = Dear(store=FailingStore())
    site.fill()
    site.clock.tick(97)
    for u, detail in ((0.99, "HIT"), (0.5, "HIT"), (0.01, "HIT_EARLY_REFRESH")):
        site.cache.engine.uniform = lambda u=u: u
        assert site.hit() == detail
    assert site.app.calls == 2


def test_the_clock_being_set_forth_harms_nothing():
    site = Dear().at(50)
    site.clock.tick(48)
    assert site.hit() == "HIT_EARLY_REFRESH"
    assert site.hit() == "HIT"


def test_explain_shows_the_window_and_changes_nothing():
    site = Dear().at(98)
    told = site.cache.explain("http://example.com/")
    assert told.reason is Reason.HIT
    assert told.early == pytest.approx(3.46, abs=0.01)
    assert "about 3.5 s before the end" in str(told)
    assert site.cache.explain("http://example.com/").as_dict()["early"] == told.early
    assert site.hit() == "HIT_EARLY_REFRESH"
    assert Dear(early_refresh=0).at(50).cache.explain("http://example.com/").early is None
