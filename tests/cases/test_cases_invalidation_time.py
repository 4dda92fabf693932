"""Invalidation by unsafe requests and groups (CON-19, CON-24), freshness, time and stale answers (TIM)."""

import itertools
import logging
from types import SimpleNamespace

import pytest
from sites import Site, control, page

from wsgicache import Reason, Rule, WSGICache
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FakeClock, ScriptedApp, ask

UNSAFE = ["POST", "PUT", "PATCH", "DELETE", "MKCOL", "BREW"]
SAFE = ["GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"]

# --- CON-19 -----------------------------------------------------------------------------------------


def stored(*urls, **options):
    """A site whose pages are stored and served by the hit path."""
    site = Site(control("max-age=600"), **options)
    for url in urls:
        site.fill(url)
        for _ in range(2):
            assert site.ask(url).is_hit
    return site


@pytest.mark.parametrize("method", UNSAFE)
@pytest.mark.parametrize(
    "status", ["200 OK", "201 Created", "204 No Content", "303 See Other", "304 Not Modified"]
)
def test_con_19_an_unsafe_request_that_succeeds_invalidates_its_own_url(method, status):
    site = stored("/a", "/b")
    site.app.answers(page(status=status, body=b""))
    site.ask("/a", method)
    assert site.ask("/a").cache["fwd"] == "uri-miss"
    assert site.ask("/b").is_hit


@pytest.mark.parametrize("status", ["400 Bad", "403 No", "404 Gone", "409 Conflict", "500 Oops", "503 Busy"])
def test_con_19_one_that_fails_does_not(status):
    site = stored("/a")
    site.app.answers(page(("Location", "/a"), ("Cache-Group-Invalidation", '"g"'), status=status))
    site.ask("/a", "POST")
    assert site.ask("/a").is_hit


def test_con_19_nor_one_that_raises():
    site = stored("/a")
    site.app.answers(page(error=RuntimeError("down")))
    with pytest.raises(RuntimeError):
        site.ask("/a", "POST")
    assert site.ask("/a").is_hit


@pytest.mark.parametrize("method", SAFE)
def test_con_19_nor_a_safe_one(method):
    site = stored("/a")
    site.app.answers(page(("Location", "/a")))
    site.ask("/a", method, **{"wsgicache.ignore": True})
    assert site.ask("/a").is_hit


@pytest.mark.parametrize("field", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "reference",
    [
        "/b",
        "http://example.com/b",
        "b",
        "./b",
        "/x/../b",
        "//example.com/b",
        "HTTP://EXAMPLE.com:80/b",
        "/b?x=1",
        "/b#y",
    ],
)
def test_con_19_what_it_points_to_on_the_same_origin_is_invalidated_too(field, reference):
    site = stored("/b", "/other")
    site.app.answers(page((field, reference), status="201 Created"))
    site.ask("/a", "POST")
    assert not site.ask("/b").is_hit
    assert site.ask("/other").is_hit


@pytest.mark.parametrize("field", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    "reference",
    [
        "http://evil.example/b",
        "https://example.com/b",
        "http://example.com:8080/b",
        "//evil.example/b",
        "http://example.com.evil.example/b",
        "http://user@example.com/b",
        "javascript:/b",
        "http://[::1/b",
        "\\\\example.com\\b",
        "",
    ],
)
def test_con_19_what_it_points_to_elsewhere_is_not(field, reference):
    site = stored("http://example.com/b", "http://evil.example/b", "https://example.com/b")
    site.app.answers(page((field, reference), status="201 Created"))
    site.ask("/a", "POST")
    for url in ("http://example.com/b", "http://evil.example/b", "https://example.com/b"):
        assert site.ask(url).is_hit, url


def test_con_19_the_other_origins_of_the_path_stay():
    site = stored("http://example.com/a", "https://example.com/a", "http://www.example.com/a")
    site.app.answers(page())
    site.ask("http://example.com/a", "DELETE")
    assert not site.ask("http://example.com/a").is_hit
    for url in ("https://example.com/a", "http://www.example.com/a"):
        assert site.ask(url).is_hit


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "/a?x=1"},
        {"headers": {"Cookie": "session=a"}},
        {"headers": {"Authorization": "x"}},
        {"wsgicache.ignore": True},
        {"headers": {"X-HTTP-Method-Override": "PUT"}},
        {"body": b"a=1"},
    ],
    ids=repr,
)
def test_con_19_whatever_else_makes_the_request_bypass(request_):
    site = stored("/a")
    site.app.answers(page())
    site.ask(**{"url": "/a", "method": "POST", **request_})
    assert not site.ask("/a").is_hit


def test_con_19_under_a_rule_that_bypasses_too():
    site = Site(control("max-age=600"), rules=[Rule("/*", methods="POST", bypass=True)])
    site.fill("/a")
    site.ask("/a", "POST")
    assert not site.ask("/a").is_hit


def test_con_19_every_variant_and_every_query_goes():
    site = Site(control("max-age=600", ("Vary", "X-Part")), rules=[Rule("/*", query="key")])
    pages = [{"url": "/a"}, {"url": "/a?x=1"}, {"url": "/a", "headers": {"X-Part": "b"}}]
    for one in pages:
        site.fill(**one)
    site.app.answers(page())
    site.ask("/a", "POST")
    for one in pages:
        assert not site.ask(**one).is_hit


# --- CON-24 -----------------------------------------------------------------------------------------

HOSTS = ("http://x.example", "http://y.example")


def grouped(*headers, status="200 OK", method="POST", url="http://x.example/form"):
    """Which pages are still hits after a request whose answer carries these fields."""

    def answer(environ):
        group = environ["PATH_INFO"].strip("/")
        return control("max-age=600", ("Cache-Groups", f'"{group}"'))

    site = Site(answer)
    urls = [f"{host}/{group}" for host in HOSTS for group in "abc"]
    for one in urls:
        site.fill(one)
        site.ask(one)
    site.app.answers(page(*headers, status=status))
    site.ask(url, method, **{"wsgicache.ignore": method in ("GET", "HEAD")})
    return {one.removeprefix("http://") for one in urls if site.ask(one).is_hit}


EVERYTHING = {f"{host.removeprefix('http://')}/{group}" for host in HOSTS for group in "abc"}
INVALIDATE = "Cache-Group-Invalidation"


@pytest.mark.parametrize(
    "lines",
    [
        ['"a", "b"'],
        ['"a"', '"b"'],
        ['"a",\t"b"'],
        ['"a";x=1, "b";y'],
        ['"b", "a", "a"'],
        ['"\\a", "b"'.replace("\\", "")],
    ],
    ids=repr,
)
@pytest.mark.parametrize("status", ["200 OK", "201 Created", "303 See Other"])
def test_con_24_both_groups_of_the_origin_go(lines, status):
    left = grouped(*[(INVALIDATE, line) for line in lines], status=status)
    assert EVERYTHING - left == {"x.example/a", "x.example/b"}


@pytest.mark.parametrize("status", ["400 Bad", "404 Gone", "500 Oops"])
def test_con_24_not_for_a_request_that_failed(status):
    assert grouped((INVALIDATE, '"a", "b"'), status=status) == EVERYTHING


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_con_24_not_for_a_safe_method(method):
    assert grouped((INVALIDATE, '"a", "b"'), method=method) == EVERYTHING


@pytest.mark.parametrize(
    "value", ["a, b", '"a" "b"', '"a", b', '"a', "'a'", '("a" "b")', '"a",', "?1", '"a"; "b"', '"a", 5', ""]
)
def test_con_24_not_with_bad_syntax(value):
    assert grouped((INVALIDATE, value)) == EVERYTHING


def test_con_24_not_for_the_groups_of_another_host():
    left = grouped((INVALIDATE, '"a"'), url="http://y.example/form")
    assert EVERYTHING - left == {"y.example/a"}


# --- TIM-01 -----------------------------------------------------------------------------------------


class Clocks:
    """A wall clock and a monotonic one that are turned apart."""

    def __init__(self, monkeypatch):
        self.wall, self.steady = 1_700_000_000.0, 5000.0
        fake = SimpleNamespace(time=lambda: self.wall, monotonic=lambda: self.steady)
        monkeypatch.setattr("wsgicache.clock.time", fake)

    def tick(self, seconds):
        """Time goes by."""
        self.wall += seconds
        self.steady += seconds

    def set(self, seconds):
        """Somebody sets the wall clock."""
        self.wall += seconds


@pytest.fixture
def clocks(monkeypatch):
    return Clocks(monkeypatch)


def running(answer=None, hits=3):
    """A cache by the system's clocks, with a page that the hit path serves."""
    app = ScriptedApp(answer or control("max-age=100"))
    cache = WSGICache(app)
    ask(cache)
    for _ in range(hits):
        assert ask(cache).is_hit
    return cache


@pytest.mark.parametrize("hits", [0, 1, 3])
@pytest.mark.parametrize("back", [-86400, -3600, -200, -101, -60])
def test_tim_01_a_clock_that_is_set_back_lengthens_no_life(clocks, back, hits):
    cache = running(hits=hits)
    clocks.tick(50)
    ask(cache)
    clocks.set(back)
    clocks.tick(51)
    reply = ask(cache)
    assert not reply.is_hit, "101 seconds have passed, whatever the wall clock says"


@pytest.mark.parametrize("back", [-86400, -200])
def test_tim_01_in_small_steps_too(clocks, back):
    cache = running()
    for _ in range(20):
        clocks.tick(6)
        clocks.set(back / 20)
    assert not ask(cache).is_hit


def test_tim_01_after_it_was_set_back_pages_are_served_and_age_again(clocks):
    cache = running()
    clocks.tick(5)
    clocks.set(-86400)
    assert not ask(cache).is_hit, "the memory store starts again"
    for age in range(0, 90, 10):
        reply = ask(cache)
        assert (reply.is_hit, reply.field("Age")) == (True, str(age))
        clocks.tick(10)
    clocks.tick(20)
    assert not ask(cache).is_hit


@pytest.mark.parametrize("forth", [86400, 3600, 101])
def test_tim_01_a_clock_that_is_set_forth_serves_nothing_that_looks_too_old(clocks, forth):
    cache = running()
    clocks.set(forth)
    reply = ask(cache)
    assert not reply.is_hit or int(reply.field("Age")) < 100
    for _ in range(3):
        assert ask(cache).is_hit


@pytest.mark.parametrize("slew", [1.0, -1.0, 0.5, -0.3])
def test_tim_01_a_leap_second_or_a_slew_does_no_harm(clocks, slew):
    cache = running()
    clocks.tick(10)
    clocks.set(slew)
    reply = ask(cache)
    assert reply.is_hit
    assert 9 <= int(reply.field("Age")) <= 11
    clocks.tick(95)
    assert not ask(cache).is_hit


def test_tim_01_ages_and_lifetimes_add_up_on_every_hit(clocks):
    cache = running()
    for age in range(100):
        reply = ask(cache)
        assert (reply.is_hit, int(reply.field("Age")) + int(reply.cache["ttl"])) == (True, 100), age
        assert int(reply.field("Age")) == age
        clocks.tick(1)
    assert not ask(cache).is_hit


def test_tim_01_an_entry_from_the_future_is_stale():
    store, ahead, behind = MemoryStore(), FakeClock(), FakeClock()
    ahead.tick(3600)
    one, other = (
        WSGICache(ScriptedApp(control("max-age=600")), store, clock=clock) for clock in (ahead, behind)
    )
    assert ask(one).stored
    reply = ask(other)
    assert (reply.is_hit, reply.cache["fwd"]) == (False, "stale")


# --- TIM-05 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("max-age=99999999999999999999", 2**31),
        ("max-age=2147483648", 2**31),
        ("max-age=2147483647", 2**31 - 1),
        ("max-age=" + "9" * 5000, 2**31),
        ("max-age=0060", 60),
        ('max-age="60"', 60),
        ("max-age=60, max-age=60", 60),
        ("s-maxage=99999999999999999999, max-age=1", 2**31),
        ("max-age=-1", None),
        ("max-age=1.5", None),
        ("max-age='60'", None),
        ("max-age=60s", None),
        ("max-age= 60", None),
        ("max-age=60, max-age=10", None),
        ("max-age=10, max-age=60", None),
        ("max-age=10, max-age=x", None),
        ("max-age=\u0661\u0660", None),
        ("max-age=+60", None),
        ("max-age=6e1", None),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_tim_05_odd_lifetimes(value, seconds):
    """Saturated at 2^31, or stale; of repeats that differ none counts (RFC 9111 §4.2.1)."""
    site = Site(control(value))
    if seconds is None:
        assert not site.ask().stored
        assert not site.ask().is_hit
    else:
        assert site.fill().cache["ttl"] == str(seconds)
        site.clock.tick(seconds - 1)
        assert site.ask().is_hit
        site.clock.tick(1)
        assert not site.ask().is_hit


# --- TIM-06 -----------------------------------------------------------------------------------------

DOWN = {
    "500": page(status="500 Oops"),
    "503": page(status="503 Busy"),
    "raises": page(error=RuntimeError("down")),
}


@pytest.mark.parametrize("down", DOWN.values(), ids=DOWN)
@pytest.mark.parametrize(
    "value",
    [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "max-age=10, must-revalidate, stale-if-error=600",
        "max-age=10, proxy-revalidate, stale-while-revalidate=600",
        "s-maxage=10, stale-if-error=600, stale-while-revalidate=600",
        "MAX-AGE=10, Must-Revalidate, stale-if-error=600",
        "max-age=10, must-revalidate=x, stale-if-error=600",
    ],
)
@pytest.mark.parametrize(
    "options", [{}, {"stale_if_error": 600, "stale_while_revalidate": 600}], ids=["", "windows"]
)
def test_tim_06_no_stale_answer_where_the_response_forbids_it(value, down, options):
    site = Site(control(value, ("ETag", '"a"')), **options)
    site.fill()
    site.clock.tick(20)
    site.app.answers(down)
    for _ in range(2):
        if down.error is not None:
            with pytest.raises(RuntimeError):
                site.ask()
        else:
            reply = site.ask()
            assert (reply.code, reply.body) == (int(down.status[:3]), b"page")
            assert reply.detail != "HIT_STALE_IF_ERROR"


@pytest.mark.parametrize("down", DOWN.values(), ids=DOWN)
def test_tim_06_nor_of_what_is_validated_before_each_use(down):
    site = Site(control("no-cache, stale-if-error=600", ("ETag", '"a"')), profile="rfc", stale_if_error=600)
    site.fill()
    site.app.answers(down)
    if down.error is not None:
        with pytest.raises(RuntimeError):
            site.ask()
    else:
        assert site.ask().code >= 500


# --- TIM-08 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", DOWN.values(), ids=DOWN)
def test_tim_08_an_outage_is_masked_no_longer_than_the_window_and_never_silently(down, caplog):
    caplog.set_level(logging.WARNING, "wsgicache")
    site = Site(control("max-age=10, stale-if-error=300"), rules=[Rule("/health", bypass=True)])
    site.fill()
    site.clock.tick(20)
    site.app.answers(down)
    for _ in range(3):
        reply = site.ask()
        assert (reply.code, reply.body, reply.cache["fwd"]) == (200, b"page", "stale")
        assert "hit" not in reply.cache
        assert int(reply.cache["ttl"]) < 0
        if down.error is None:
            assert reply.cache["fwd-status"] == down.status[:3]
    assert site.cache.engine.observer.reasons[Reason.HIT_STALE_IF_ERROR].value == 3
    assert [record for record in caplog.records if "stale" in record.getMessage()], "and it is said"
    site.clock.tick(289)
    assert site.ask().body == b"page"
    site.clock.tick(1)
    if down.error is None:
        assert site.ask("/health").code >= 500, "a health check is excluded by a rule"
        assert site.ask().code >= 500
    else:
        for url in ("/", "/health"):
            with pytest.raises(RuntimeError):
                site.ask(url)


# --- TIM-09 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("down", DOWN.values(), ids=DOWN)
def test_tim_09_a_refresh_that_fails_backs_off(down):
    site = Site(control("max-age=10, stale-while-revalidate=10000"))
    site.fill()
    site.clock.tick(20)
    site.app.answers(down)
    for _ in range(20):
        assert site.ask().detail == "HIT_STALE_WHILE_REVALIDATE"
        site.refreshed()
    assert site.app.calls == 2, "no refresh on every hit"
    calls = []
    for _ in range(600):
        site.clock.tick(1)
        assert site.ask().body == b"page", "the stale page is kept for its window"
        site.refreshed()
        calls.append(site.app.calls)
    tries = calls[-1] - 2
    assert 5 <= tries <= 40, tries
    gaps = [number for number in range(1, 600) if calls[number] > calls[number - 1]]
    assert max(later - earlier for earlier, later in itertools.pairwise(gaps)) >= 20, "longer and longer"
    site.app.answers(control("max-age=10, stale-while-revalidate=10000", body=b"new"))
    for _ in range(120):
        site.clock.tick(1)
        site.ask()
        site.refreshed()
        if site.ask().body == b"new":
            break
    assert site.ask().body == b"new"


def test_tim_09_stale_ends_with_the_window():
    site = Site(control("max-age=10, stale-while-revalidate=30"))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(status="500 Oops"))
    assert site.ask().code == 200
    site.refreshed()
    site.clock.tick(20)
    assert site.ask().code == 500


# --- TIM-10 -----------------------------------------------------------------------------------------


def purged_softly(at, value="max-age=100, stale-while-revalidate=50, stale-if-error=80"):
    """A site whose page was purged softly at an age in seconds."""
    site = Site(control(value))
    site.fill()
    site.clock.tick(at)
    site.cache.purge("/", soft=True)
    return site


@pytest.mark.parametrize("at", [0, 10, 99, 120])
def test_tim_10_a_soft_purge_makes_stale_now(at):
    site = purged_softly(at)
    assert site.cache.explain("http://example.com/").reason is not Reason.HIT
    reply = site.ask()
    assert reply.detail == "HIT_STALE_WHILE_REVALIDATE"
    assert int(reply.cache["ttl"]) <= 0
    site.refreshed()
    assert site.app.calls == 2


@pytest.mark.parametrize("at", [0, 10, 99, 120])
@pytest.mark.parametrize("twice", [False, True])
def test_tim_10_and_lengthens_no_window(at, twice):
    site = purged_softly(at)
    site.app.answers(page(status="500 Oops"))
    site.clock.tick(149 - at)
    if twice:
        site.cache.purge("/", soft=True)
    assert site.ask().detail == "HIT_STALE_WHILE_REVALIDATE"
    site.refreshed()
    site.clock.tick(1)
    assert site.ask().detail == "HIT_STALE_IF_ERROR"
    site.clock.tick(29)
    assert site.ask().detail == "HIT_STALE_IF_ERROR"
    site.clock.tick(1)
    assert site.ask().code == 500, "180 seconds after it was made, as without the purge"


def test_tim_10_without_windows_it_is_asked_for_at_once():
    site = purged_softly(10, "max-age=100")
    reply = site.ask()
    assert (reply.cache["fwd"], reply.detail) == ("stale", "STALE_PURGED")
    assert site.ask().is_hit
