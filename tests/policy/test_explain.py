"""Explain says what a request would get and why, in words and as data, and changes nothing by it."""

import json

import pytest
from sites import Site, control, page

from wsgicache import Reason, Rule, WSGICache
from wsgicache.entry import Entry
from wsgicache.explain import Explanation
from wsgicache.outcome import Phase
from wsgicache.testing import FailingStore, FakeClock, Response, ScriptedApp, ask

HERE = "http://example.com"


def explain(site, url="/", **request):
    """What the site's cache says of a request to its own host."""
    return site.cache.explain(HERE + url, **request)


# --- it agrees with what then happens ---------------------------------------------------------------

RULES = [Rule("/admin/*", bypass=True, name="admin"), Rule("/s", query="key", ignore_query="utm_*")]
REQUESTS = [
    {},
    {"method": "HEAD"},
    {"method": "POST"},
    {"method": "OPTIONS"},
    {"url": "/admin/users"},
    {"url": "/ADMIN"},
    {"url": "/?a=1"},
    {"url": "/s?q=1&utm_source=x"},
    {"url": "/s?q=caf%C3%A9"},
    {"url": "/s?_method=PUT"},
    {"url": "/caf%C3%A9"},
    {"url": "/caf%c3%a9"},
    {"url": "/a%2Fb"},
    {"url": "/a%20b"},
    {"url": "/a/../b"},
    {"url": "/" + "x" * 5000},
    {"headers": {"Cookie": "session=a"}},
    {"headers": {"Cookie": "_ga=1"}},
    {"headers": {"Cookie": "csrftoken=a"}},
    {"headers": {"Authorization": "Bearer a"}},
    {"headers": {"If-Match": '"a"'}},
    {"headers": {"If-None-Match": '"a"'}},
    {"headers": {"X-Original-URL": "/x"}},
    {"headers": {"X-HTTP-Method-Override": "PUT"}},
    {"headers": {"X-Forwarded-Host": "evil"}},
    {"headers": {"X-Part": "b"}},
    {"headers": {"Accept-Encoding": "gzip"}},
    {"headers": {"Host": "a,b"}},
    {"headers": {"Transfer-Encoding": "chunked"}},
]


@pytest.mark.parametrize("profile", ["safe", "rfc"])
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
@pytest.mark.parametrize("seconds", [0, 20], ids=["fresh", "later"])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: repr(request)[:60])
def test_it_says_what_then_happens(request_, filled, seconds, profile):
    headers = [("Cache-Control", "max-age=10"), ("ETag", '"a"'), ("Vary", "X-Part")]
    site = Site(page(*headers), profile=profile, rules=RULES)
    url = request_.get("url", "/")
    request = {name: value for name, value in request_.items() if name != "url"}
    if filled:
        site.ask(url, RAW_URI=url)
        site.ask(url, RAW_URI=url)
    site.clock.tick(seconds)
    told = explain(site, url, **request)
    reply = site.ask(url, RAW_URI=url, **request)
    assert told.hit == reply.is_hit
    if reply.detail in Reason.__members__ and Reason[reply.detail].phase in (Phase.ADMIT, Phase.JUDGE):
        assert told.reason.name == reply.detail
    else:
        assert told.reason.token == (reply.cache.get("fwd") or "hit")


SPELLINGS = [
    ("/caf\u00e9", "/caf%C3%A9"),
    ("/\u65e5\u672c", "/%E6%97%A5%E6%9C%AC"),
    ("/a b", "/a%20b"),
    ("/a#fragment", "/a"),
    ("/s?q=caf\u00e9", "/s?q=caf%C3%A9"),
    ("/s?q=1#x", "/s?q=1"),
    ("/s?q=/x?y", "/s?q=/x?y"),
    ("/a:b@c", "/a:b@c"),
    ("/%61", "/%61"),
    ("/a%2fb", "/a%2fb"),
]


@pytest.mark.parametrize(("typed", "sent"), SPELLINGS)
@pytest.mark.parametrize("raw", [True, False], ids=["raw target", "none"])
def test_a_url_as_a_person_types_it_is_the_one_that_clients_send(typed, sent, raw):
    """One function makes keys for traffic and explain (ADM-19)."""
    if "%2f" in sent and not raw:
        pytest.skip("without the raw target no cache can tell these two apart")
    site = Site(rules=RULES)
    site.fill(sent, **({"RAW_URI": sent} if raw else {}))
    assert explain(site, typed).hit


@pytest.mark.parametrize(
    "url", ["http://example.com", "http://EXAMPLE.com:80/", "HTTP://example.com/", "http://example.com/#top"]
)
def test_the_host_may_be_spelled_as_it_likes(url):
    site = Site()
    site.fill("/")
    assert site.cache.explain(url).hit
    assert not site.cache.explain("https://example.com/").hit
    assert not site.cache.explain("/").hit, "a path alone is one of localhost"
    assert site.cache.explain("/", headers={"Host": "example.com"}).hit


def test_a_query_straight_after_the_host():
    site = Site(rules=[Rule("/*", query="key")])
    site.fill("/?a=/b", RAW_URI="/?a=/b")
    assert site.cache.explain("http://example.com?a=/b").hit


@pytest.mark.parametrize(
    "url", ["example.com/", "ftp://example.com/", "//example.com/", "", "http://", "http://a b/"]
)
def test_what_is_no_url_of_a_site_is_refused_with_the_remedy(url):
    with pytest.raises(ValueError, match="give a path"):
        Site().cache.explain(url)


# --- the data ---------------------------------------------------------------------------------------


def test_a_hit():
    site = Site(control("max-age=60", ("Cache-Groups", '"home"')), rules=[Rule("/*", name="all")])
    site.fill()
    site.clock.tick(12)
    told = explain(site)
    assert (told.hit, told.reason, told.remedy, told.last_answer) == (True, Reason.HIT, None, None)
    assert (told.rule, told.profile, told.groups) == ("all", "safe", ("home",))
    assert (told.lifetime, told.lifetime_source, told.age, told.ttl) == (60, "max-age", 12, 48)
    assert told.key["path"] == "/"
    assert told.key["host"] == "example.com"
    assert told.key["scheme"] == "http"


def test_where_the_lifetime_came_from():
    cases = [
        (page(), {}, "ttl"),
        (control("s-maxage=5"), {}, "s-maxage"),
        (page(("Expires", "Wed, 15 Nov 2023 00:00:00 GMT")), {}, "Expires"),
        (page(), {"rules": [Rule("/*", ttl=5)]}, "rule"),
        (control("max-age=9"), {"rules": [Rule("/*", ttl=5, override=True)]}, "rule"),
    ]
    for answer, options, source in cases:
        site = Site(answer, **options)
        site.fill()
        assert explain(site).lifetime_source == source


def test_an_empty_place():
    told = explain(Site())
    assert (told.hit, told.reason, told.lifetime, told.ttl, told.variant) == (
        False,
        Reason.URI_MISS,
        None,
        None,
        None,
    )
    assert "next" in told.remedy


def test_an_empty_place_whose_last_answer_was_not_stored():
    site = Site(control("private"))
    site.ask()
    told = explain(site)
    assert (told.reason, told.last_answer) == (Reason.URI_MISS, Reason.NOT_STORED_PRIVATE)
    assert "private" in str(told)
    assert told.as_dict()["last_answer"] == "NOT_STORED_PRIVATE"


def test_a_stale_page():
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(25)
    told = explain(site)
    assert (told.hit, told.reason, told.age, told.ttl) == (False, Reason.STALE, 25, -15)
    assert "10 s lifetime - 25.0 s age = -15.0 s left" in str(told)


@pytest.mark.parametrize(
    ("value", "seconds", "reason"),
    [
        ("max-age=10, stale-while-revalidate=60", 20, Reason.HIT_STALE_WHILE_REVALIDATE),
        ("max-age=10, stale-if-error=60", 20, Reason.STALE),
    ],
)
def test_a_stale_page_in_a_window(value, seconds, reason):
    site = Site(control(value))
    site.fill()
    site.clock.tick(seconds)
    assert explain(site).reason is reason
    assert site.app.calls == 1
    assert site.cache.engine.refresher.drain()


def test_a_purged_page():
    site = Site(control("max-age=60", ("ETag", '"a"')))
    site.fill()
    site.cache.purge("/", soft=True)
    assert explain(site).reason is Reason.STALE_PURGED
    site.cache.purge("/")
    assert explain(site).reason is Reason.MISS_PURGED


def test_a_variant():
    site = Site(page(("Vary", "Accept-Encoding, X-Part")))
    site.fill(headers={"Accept-Encoding": "gzip", "X-Part": "a"})
    told = explain(site, headers={"Accept-Encoding": "gzip;q=0.3", "X-Part": "a"})
    assert (told.hit, told.variant) == (True, {"accept-encoding": "gzip", "x-part": "a"})
    other = explain(site, headers={"Accept-Encoding": "gzip"})
    assert (other.reason, other.variant) == (Reason.VARY_MISS, {"accept-encoding": "gzip", "x-part": None})
    assert "x-part=absent" in str(other)


def test_a_cache_that_is_switched_off():
    told = explain(Site(enabled=False))
    assert told.reason is Reason.DISABLED
    assert "enabled=True" in told.remedy


def test_a_store_that_is_down():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("*")
    told = explain(site)
    assert told.reason is Reason.STORE_DOWN
    assert told.remedy


BYPASSES = {
    "BYPASS_RULE": {"url": "/admin/x"},
    "BYPASS_QUERY": {"url": "/?a=1"},
    "BYPASS_BODY": {"headers": {"Transfer-Encoding": "chunked"}},
    "BYPASS_AUTHORIZATION": {"headers": {"Authorization": "x"}},
    "BYPASS_COOKIE": {"headers": {"Cookie": "session=a"}},
    "BYPASS_HOST": {"headers": {"Host": "a,b"}},
    "BYPASS_PATH": {"url": "/a/../b"},
    "BYPASS_REWRITE": {"headers": {"X-Rewrite-URL": "/x"}},
    "BYPASS_OVERRIDE": {"headers": {"X-HTTP-Method": "PUT"}},
    "BYPASS_KEY": {"url": "/" + "x" * 5000},
    "BYPASS_PRECONDITION": {"headers": {"If-Unmodified-Since": "x"}},
    "METHOD_SAFE": {"method": "OPTIONS"},
    "METHOD_UNSAFE": {"method": "DELETE"},
}


@pytest.mark.parametrize(("name", "request_"), BYPASSES.items(), ids=BYPASSES)
def test_each_bypass_with_its_remedy(name, request_):
    site = Site(rules=RULES)
    for url in ("/", "/admin/x"):
        site.ask(url)
    told = explain(site, **request_)
    assert (told.hit, told.reason.name) == (False, name)
    assert len(told.remedy.split()) >= 3
    assert told.remedy in str(told)
    assert told.reason.sentence in str(told)


# --- as text and as plain data ----------------------------------------------------------------------


def test_the_text_says_all_of_it():
    site = Site(
        control("max-age=60", ("Cache-Groups", '"home"'), ("Vary", "X-Part")), rules=[Rule("/*", name="all")]
    )
    site.fill(headers={"X-Part": "a"})
    site.clock.tick(12)
    text = str(explain(site, headers={"X-Part": "a"}))
    for part in (
        "GET http://example.com/: hit",
        "HIT (RFC 9111 §4)",
        Reason.HIT.sentence,
        "rule",
        "all, profile safe",
        "example.com",
        "x-part='a'",
        "60 s, from max-age",
        "60 s lifetime - 12.0 s age = 48.0 s left",
        "home",
    ):
        assert part in text, part
    assert "for a hit" not in text
    assert all(line == line.rstrip() for line in text.split("\n"))


def test_the_text_holds_nothing_that_could_fake_a_line():
    site = Site(page(("Vary", "X-Part")))
    site.fill(headers={"X-Part": "a"})
    evil = "a\x1b[31m\x85\xad\x0b"
    told = explain(site, "/%0A", headers={"X-Part": evil})
    for line in str(told).split("\n"):
        assert line.isprintable(), repr(line)
    told = explain(site, headers={"X-Part": evil})
    for line in str(told).split("\n"):
        assert line.isprintable(), repr(line)


@pytest.mark.parametrize("request_", [{}, *BYPASSES.values()], ids=repr)
def test_the_data_is_plain(request_):
    site = Site(rules=RULES)
    site.fill()
    data = explain(site, **request_).as_dict()
    again = json.loads(json.dumps(data))
    assert again["reason"] in Reason.__members__
    assert again["sentence"] == Reason[again["reason"]].sentence
    assert again["section"] == Reason[again["reason"]].section
    assert {"url", "method", "hit", "rule", "profile", "key", "lifetime", "age", "ttl", "remedy"} <= set(
        again
    )


# --- nothing is changed -----------------------------------------------------------------------------


def snapshot(site):
    """Everything that explain must leave as it was."""
    store = site.cache.store
    slots = {key: (slot.stored, slot.ready, slot.stamp) for key, slot in store._slots.items()}
    return site.app.calls, site.cache.stats(), dict(store.stats()), store.mark, slots, site.cache.engine.stamp


@pytest.mark.parametrize("seconds", [0, 20, 5000])
@pytest.mark.parametrize("request_", [{}, {"headers": {"X-Part": "b"}}, *BYPASSES.values()], ids=repr)
def test_nothing_is_changed_and_the_app_is_not_called(request_, seconds):
    site = Site(control("max-age=10, stale-while-revalidate=60", ("Vary", "X-Part")), rules=RULES)
    site.fill()
    site.clock.tick(seconds)
    before = snapshot(site)
    for _ in range(3):
        explain(site, **request_)
    assert snapshot(site) == before


def test_a_page_that_was_never_hit_does_not_get_its_etag_from_explain():
    site = Site()
    site.fill()
    assert explain(site).hit
    (entry,) = [stored for stored in site.cache.store.scan() if isinstance(stored, Entry)]
    assert entry.etag is None


def test_a_store_that_is_down_is_not_counted_by_explain():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("*")
    before = site.cache.engine.observer.stats()
    explain(site)
    assert site.cache.engine.observer.stats() == before


def test_it_explains_what_another_cache_over_the_same_store_has_stored():
    clock = FakeClock()
    site = Site(clock=clock)
    site.fill()
    other = WSGICache(ScriptedApp(), site.cache.store, clock=clock)
    assert other.explain(HERE + "/").hit
    assert ask(other).is_hit


def test_an_explanation_goes_through_data_and_back():
    cache = WSGICache(ScriptedApp(Response(headers=[("Cache-Tag", "a")])))
    for url in ("/a", "/a", "/a?b"):
        ask(cache, url)
        told = cache.explain(f"http://example.com{url}")
        assert Explanation.from_dict(told.as_dict()) == told
        assert str(Explanation.from_dict(told.as_dict())) == str(told)
    with pytest.raises(KeyError):
        Explanation.from_dict({"url": "/"})
