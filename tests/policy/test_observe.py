"""What happened is counted once, told in one line where that was chosen, and warned of once."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import Call, FirstHeld, Site, control, page

from wsgicache import Outcome, Reason, Rule
from wsgicache.observe import Observer, Tally
from wsgicache.testing import FailingStore, ask


def stats(site):
    """The numbers of a site that have a place in the glossary."""
    found = site.cache.engine.observer.stats()
    return {
        name: found[name] for name in ("requests", "hits", "misses", "stale_hits", "hit_ratio", "coverage")
    }


# --- counters ---------------------------------------------------------------------------------------


def test_before_the_first_request_there_is_no_ratio():
    assert stats(Site()) == {
        "requests": 0,
        "hits": 0,
        "misses": 0,
        "stale_hits": 0,
        "hit_ratio": None,
        "coverage": None,
    }
    assert Site().cache.stats()["reasons"] == {}


def test_every_request_is_counted_once_by_its_decision():
    site = Site(rules=[Rule("/admin/*", bypass=True)])
    site.ask()
    for _ in range(4):
        site.ask()
    site.ask("/admin/x")
    site.ask("/?a=1")
    site.ask(method="POST")
    site.ask(method="OPTIONS")
    site.ask(headers={"Cookie": "session=a"})
    counted = site.cache.stats()["reasons"]
    assert counted == {
        "URI_MISS": 1,
        "STORED": 1,
        "HIT": 4,
        "BYPASS_RULE": 1,
        "BYPASS_QUERY": 1,
        "METHOD_UNSAFE": 1,
        "METHOD_SAFE": 1,
        "BYPASS_COOKIE": 1,
        "NOT_STORED_COOKIE": 1,
    }
    assert stats(site)["requests"] == 10


def test_hits_are_counted_the_same_on_every_way_they_take():
    site = Site()
    site.fill()
    site.ask()  # by the long way
    site.ask()  # by the hit path
    site.ask(method="HEAD")
    site.ask(headers={"If-None-Match": "*"})
    site.ask(headers={"Range": "bytes=0-1"})
    site.ask(headers={"Cookie": "csrftoken=a"})
    assert stats(site)["hits"] == 6
    assert stats(site)["misses"] == 1
    assert site.count(Reason.HIT) == 6


# --- hit ratio and coverage, as the glossary has them -----------------------------------------------


def test_the_hit_ratio_is_of_hits_and_misses_and_the_coverage_of_all_requests():
    site = Site(rules=[Rule("/admin/*", bypass=True)])
    site.fill()
    for _ in range(3):
        site.ask()
    for _ in range(4):
        site.ask("/admin/x")
    assert stats(site) == {
        "requests": 8,
        "hits": 3,
        "misses": 1,
        "stale_hits": 0,
        "hit_ratio": 3 / 4,
        "coverage": 4 / 8,
    }


BYPASSING = [
    {"url": "/?a=1"},
    {"method": "POST"},
    {"method": "OPTIONS"},
    {"body": b"x"},
    {"headers": {"Cookie": "session=a"}},
    {"headers": {"Authorization": "x"}},
    {"headers": {"Host": "a,b"}},
    {"wsgicache.ignore": True},
]


@pytest.mark.parametrize("request_", BYPASSING, ids=repr)
def test_bypass_traffic_is_in_the_coverage_only(request_):
    site = Site()
    site.fill("/other")
    site.ask("/other")
    before = stats(site)
    for _ in range(3):
        site.ask(**request_)
    after = stats(site)
    assert after["requests"] == before["requests"] + 3
    assert (after["hits"], after["misses"], after["hit_ratio"]) == (1, 1, 0.5)
    assert after["coverage"] == 2 / 5


def test_a_site_that_is_switched_off_has_no_coverage():
    site = Site(enabled=False)
    for _ in range(3):
        site.ask()
    assert (stats(site)["requests"], stats(site)["coverage"], stats(site)["hit_ratio"]) == (3, 0.0, None)


def test_marker_traffic_is_in_the_coverage_only():
    site = Site(control("private"))
    for _ in range(5):
        site.ask()
    found = stats(site)
    assert site.count(Reason.MISS_MARKER) == 4
    assert (found["requests"], found["misses"], found["hits"]) == (5, 1, 0)


@pytest.mark.parametrize(
    ("answer", "seconds", "request_"),
    [
        (control("max-age=10", ("ETag", '"a"')), 20, {}),
        (control("max-age=10, stale-if-error=1"), 20, {}),
        (page(("Vary", "X-Part")), 0, {"headers": {"X-Part": "b"}}),
        (page(), 0, {"url": "/other"}),
    ],
    ids=["stale", "gone", "vary-miss", "uri-miss"],
)
def test_what_goes_forward_is_a_miss(answer, seconds, request_):
    site = Site(answer)
    site.fill()
    site.clock.tick(seconds)
    site.ask(**request_)
    assert (stats(site)["misses"], stats(site)["hits"]) == (2, 0)


def test_a_stale_answer_at_once_is_a_hit_and_a_stale_one():
    site = Site(control("max-age=10, stale-while-revalidate=60"))
    site.fill()
    site.clock.tick(20)
    site.ask()
    site.cache.engine.refresher.drain()
    assert (stats(site)["hits"], stats(site)["stale_hits"], stats(site)["misses"]) == (1, 1, 1)
    assert site.cache.stats()["refreshes"] == 1
    assert stats(site)["requests"] == 2, "a refresh is no request"


@pytest.mark.parametrize(
    "broken", [page(status="500 Oops"), page(error=RuntimeError("down"))], ids=["500", "raises"]
)
def test_an_outage_does_not_look_healthy(broken):
    """A stale page in place of an error went to the app (fwd=stale): it is a miss, counted once."""
    site = Site(control("max-age=10, stale-if-error=600"))
    site.fill()
    site.clock.tick(20)
    site.app.answers(broken)
    for _ in range(5):
        assert (site.ask().cache["fwd"], site.ask(headers={"Cookie": "_ga=1"}).body) == ("stale", b"page")
    assert site.count(Reason.HIT_STALE_IF_ERROR) == 10
    assert stats(site) == {
        "requests": 11,
        "hits": 0,
        "misses": 11,
        "stale_hits": 0,
        "hit_ratio": 0.0,
        "coverage": 1.0,
    }


def test_a_store_that_is_down_is_in_the_coverage_only_and_counted_once_a_request():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("*")
    for _ in range(4):
        site.ask()
    assert (stats(site)["requests"], stats(site)["misses"]) == (4, 0)
    assert site.count(Reason.STORE_DOWN) == 4
    assert site.cache.engine.observer.stats()["store_failures"] >= 4


def test_a_store_that_cannot_write_does_not_count_requests_twice():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("set")
    for _ in range(3):
        site.ask()
    assert stats(site)["requests"] == 3
    assert site.count(Reason.NOT_STORED_STORE) == 3


def test_a_fault_of_the_cache_is_a_request_too():
    site = Site()
    site.cache.engine.admit = None
    for _ in range(3):
        site.ask()
    assert (stats(site)["requests"], stats(site)["misses"], stats(site)["hits"]) == (3, 0, 0)
    assert site.count(Reason.CACHE_FAULT) == 3


def test_a_shared_answer_is_a_miss_that_was_collapsed():
    held = FirstHeld(page(body=b"shared"))
    site = Site(held)
    first = Call(site.ask)
    held.wait()
    second = Call(site.ask)
    flights = site.cache.engine.collapse._flights
    while not any(flight.followers for flight in flights.values()):
        pass
    held.let_go()
    assert first.result().body == second.result().body == b"shared"
    assert "collapsed" in second.result().cache
    assert (stats(site)["misses"], site.cache.stats()["collapsed"], site.app.calls) == (2, 1, 1)


def test_the_store_tells_its_numbers_beside():
    site = Site()
    site.fill()
    assert site.cache.stats()["store"]["entries"] == 1


@given(st.integers(0, 300))
def test_a_tally_counts(times):
    tally = Tally()
    for _ in range(times):
        tally.add()
    assert tally.value == tally.value == times


# --- one line per decision --------------------------------------------------------------------------


def lines(caplog):
    """The lines on the decisions' logger."""
    return [record for record in caplog.records if record.name == "wsgicache.decisions"]


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.INFO, "wsgicache.decisions")
    return lambda: lines(caplog)


def test_without_the_option_nothing_is_logged(logged):
    site = Site()
    for _ in range(3):
        site.ask()
    assert not logged()


def test_one_line_per_decision_and_each_kind_of_answer(logged):
    site = Site(log=True, rules=[Rule("/admin/*", bypass=True, name="admin")])
    requests = [
        ({}, "URI_MISS"),
        ({}, "HIT"),
        ({}, "HIT"),
        ({}, "HIT"),
        ({"method": "HEAD"}, "HIT"),
        ({"headers": {"If-None-Match": "*"}}, "HIT"),
        ({"url": "/admin/x"}, "BYPASS_RULE"),
        ({"method": "POST"}, "METHOD_UNSAFE"),
        ({"headers": {"Cookie": "session=a"}}, "BYPASS_COOKIE"),
    ]
    for number, (request, reason) in enumerate(requests, 1):
        site.ask(**request)
        assert len(logged()) == number, request
        record = logged()[-1]
        assert record.wsgicache["reason"] == reason
        assert record.getMessage().startswith(f"reason={reason}")
        assert record.levelno == logging.INFO


def test_a_line_tells_what_became_of_the_answer(logged):
    site = Site(control("private"), log=True)
    site.ask("/a")
    told = logged()[-1].wsgicache
    assert (told["reason"], told["settled"], told["status"]) == ("URI_MISS", "NOT_STORED_PRIVATE", 200)
    assert told["key"].startswith("/a ")
    site.app.answers(control("max-age=60"))
    site.ask("/b")
    assert logged()[-1].wsgicache["settled"] == "STORED"
    site.ask("/b")
    assert logged()[-1].wsgicache["ttl"] == 60


def test_a_line_names_the_rule(logged):
    site = Site(log=True, rules=[Rule("/*", name="all pages")])
    site.ask()
    assert logged()[-1].wsgicache["rule"] == "all pages"
    assert 'rule="all pages"' in logged()[-1].getMessage()


# --- no injection -----------------------------------------------------------------------------------

EVIL = [
    'a" reason=HIT x="',
    "a\nreason=HIT",
    "a\r\nreason=HIT",
    "a b=c",
    "\x1b[2J",
    "\u2028reason=HIT",
    "\x85reason=HIT",
    "a\\",
    'a\\" reason=HIT',
    "\ud800",
    "=",
    "",
    " ",
]


def parse(line):
    """Read a line as a program would: name=value, where a value may be quoted."""
    found, rest = [], line
    while rest:
        name, equals, rest = rest.partition("=")
        assert equals, line
        if rest.startswith('"'):
            end = 1
            while rest[end] != '"':
                end += 2 if rest[end] == "\\" else 1
            value, rest = rest[1:end], rest[end + 1 :]
            assert not rest or rest[0] == " ", line
            rest = rest[1:]
        else:
            value, _, rest = rest.partition(" ")
        found.append((name, value))
    return found


FIELDS = {"reason", "detail", "settled", "status", "ttl", "collapsed", "rule", "key", "seconds"}


def check_line(text):
    """One printable line whose fields are ours, each at most once."""
    assert text.isascii()
    assert text.isprintable()
    names = [name for name, _ in parse(text)]
    assert len(set(names)) == len(names)
    assert set(names) <= FIELDS


@pytest.mark.parametrize("evil", [*filter(None, EVIL)], ids=repr)
def test_nothing_in_a_request_can_fake_a_field_or_a_line(evil, logged):
    site = Site(log=True, rules=[Rule("/*", query="key", name=f"r{evil}")])
    for environ in (
        {"PATH_INFO": f"/{evil}"},
        {"QUERY_STRING": evil},
        {"HTTP_HOST": evil},
        {"HTTP_X_FORWARDED_HOST": evil},
    ):
        site.ask(**environ)
        text = logged()[-1].getMessage()
        check_line(text)
        assert dict(parse(text))["reason"] != "HIT"
    assert len(logged()) == 4


TEXTS = st.none() | st.text() | st.sampled_from(EVIL)


@given(TEXTS, TEXTS, st.sampled_from(list(Reason)), st.none() | st.integers(-5, 5))
def test_no_outcome_can_fake_a_field_or_a_line(key, rule, reason, ttl):
    observer = Observer(log_decisions=True)
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logger = logging.getLogger("wsgicache.decisions")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        observer.record(Outcome(reason, key=key, rule=rule, ttl=ttl))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert len(told) == 1
    check_line(told[0])


def test_the_key_in_a_line_reads_well(logged):
    Site(log=True).ask("/a/b")
    assert logged()[-1].wsgicache["key"] == "/a/b  example.com http"


# --- warnings ---------------------------------------------------------------------------------------


def warnings(caplog):
    """What was said on the package's own logger."""
    return [record.getMessage() for record in caplog.records if record.name == "wsgicache"]


def test_a_store_that_fails_is_warned_of_once(caplog):
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("*")
    for _ in range(5):
        site.ask()
    (said,) = warnings(caplog)
    assert "the store failed" in said
    assert "StoreError" in said


def test_the_memory_store_under_several_processes_is_warned_of_once(caplog):
    site = Site()
    for _ in range(3):
        site.ask(**{"wsgi.multiprocess": True})
    (said,) = warnings(caplog)
    assert "memory://" in said
    assert "worker" in said


def test_one_process_is_not_warned_of(caplog):
    Site().ask()
    assert not warnings(caplog)


def test_a_fault_is_told_once_with_its_traceback(caplog):
    site = Site()
    site.cache.engine.admit = None
    for _ in range(3):
        ask(site.cache)
    (record,) = [record for record in caplog.records if record.name == "wsgicache"]
    assert record.levelno == logging.ERROR
    assert record.exc_info


def test_an_app_that_fails_behind_a_stale_page_is_told_every_time(caplog):
    site = Site(control("max-age=10, stale-if-error=600"))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(error=RuntimeError("down")))
    for _ in range(3):
        site.ask()
    assert len(warnings(caplog)) == 3
