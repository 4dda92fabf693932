"""House rules 14 to 18: failures are misses, stored bytes are data, all is bounded, nothing administrative is
open, trouble is loud at configuration time and quiet at run time."""

import hmac
import logging
import tracemalloc

import pytest
from sites import Call, FirstHeld, Site, control, page

from wsgicache import Reason, Rule, WSGICache, wsgi
from wsgicache.codec import DecodeError, decode, encode
from wsgicache.entry import Entry
from wsgicache.options import OPTIONS, OptionError
from wsgicache.testing import FailingStore, ScriptedApp, ask, make_environ

# --- 14: a store failure is a miss ------------------------------------------------------------------

CALLS = ["get", "set", "delete", "append", "purges_since", "*"]
REQUESTS = [
    {},
    {},
    {"method": "HEAD"},
    {"method": "POST"},
    {"headers": {"X-Part": "b"}},
    {"headers": {"Cookie": "a=b"}},
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_a_store_that_fails_never_changes_a_response(call, filled, caplog):
    caplog.set_level(logging.CRITICAL, "wsgicache")
    store = FailingStore()
    site = Site(control("max-age=10", ("Vary", "X-Part"), ("ETag", '"a"')), store=store)
    if filled:
        site.fill()
        site.fill(headers={"X-Part": "b"})
        site.clock.tick(20)
    store.failing.add(call)
    for request in REQUESTS:
        reply = site.ask(**request)
        assert reply.code == 200
        assert reply.body == (b"" if request.get("method") == "HEAD" and not site.last else reply.body)
        assert reply.body in (b"page", b"")
    store.failing.clear()
    site.ask()
    assert site.ask().is_hit, "and when it is back, so is the cache"


def test_a_purge_that_was_not_acknowledged_is_an_error_to_the_operator():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("append")
    for purge in (site.cache.purge, site.cache.purge_prefix, site.cache.purge_groups):
        with pytest.raises(Exception, match="append was told to fail"):
            purge("/x")


def test_a_store_that_raises_something_else_is_a_miss_too():
    store = FailingStore()
    site = Site(store=store)
    store._store.get = None
    assert site.ask().detail == "STORE_DOWN"
    assert site.ask().body == b"page"


# --- 15: stored bytes are data ----------------------------------------------------------------------


def entry_of(site):
    """The entry that a site stored."""
    site.fill()
    (entry,) = [stored for stored in site.cache.store.scan() if isinstance(stored, Entry)]
    return entry


def test_stored_bytes_are_checked_and_versioned():
    data = encode(entry_of(Site()))
    assert decode(data).body == b"page"
    for broken in (
        b"",
        data[:-1],
        data + b"x",
        b"x" + data,
        data[:4] + b"\xff" + data[5:],
        b"\0" * len(data),
    ):
        with pytest.raises(DecodeError):
            decode(broken)


def test_every_flipped_bit_is_noticed():
    data = bytearray(encode(entry_of(Site())))
    for position in range(len(data)):
        for bit in (1, 128):
            data[position] ^= bit
            with pytest.raises(DecodeError):
                decode(bytes(data))
            data[position] ^= bit


@pytest.mark.parametrize(
    "pair", [("X-A", "a\r\nSet-Cookie: x"), ("X-A\r\nB", "a"), ("X A", "a"), ("X-A", "a\0"), ("", "a")]
)
def test_a_field_that_would_split_a_response_is_neither_stored_nor_read_back(pair):
    assert Site(page(pair)).ask().detail == "NOT_STORED_FIELDS"
    entry = entry_of(Site())
    forged = Entry(
        entry.key, entry.terms, (*entry.headers, pair), entry.body, entry.since, entry.fresh_until, entry.born
    )
    with pytest.raises(DecodeError):
        decode(encode(forged))


# --- 16: everything is bounded ----------------------------------------------------------------------


def test_key_length():
    site = Site(max_key_bytes=100, rules=[Rule("/*", query="key")])
    site.fill("/" + "x" * 60)
    for request in (
        {"url": "/" + "x" * 100},
        {"url": "/?a=" + "x" * 100},
        {"headers": {"X-Forwarded-Host": "x" * 100}},
        {"RAW_URI": "/" + "%61" * 100},
    ):
        assert site.ask(**request).detail == "BYPASS_KEY", request


def test_entries_and_bytes():
    site = Site(control("max-age=600", body=b"x" * 1000), max_bytes="200kB")
    for number in range(500):
        site.ask(f"/{number}")
    stats = site.cache.store.stats()
    assert stats["bytes"] <= 200_000
    assert 0 < stats["entries"] < 200
    assert stats["evicted"] >= 300


def test_variants():
    site = Site(page(("Vary", "X-Part")), max_variants=4)
    for number in range(50):
        site.fill(headers={"X-Part": str(number)})
    assert site.cache.store.stats()["entries"] == 4 + 1


def test_a_variant_is_bounded_by_the_length_of_its_value_too():
    site = Site(page(("Vary", "X-Part")), max_key_bytes=1000)
    site.ask(headers={"X-Part": "x" * 100_000})
    assert site.cache.store.stats()["bytes"] < 20_000


def test_groups_per_entry():
    assert Site(page(("Cache-Tag", "a, b, c")), max_groups=3).ask().stored
    assert Site(page(("Cache-Tag", "a, b, c, d")), max_groups=3).ask().detail == "NOT_STORED_GROUPS"


def test_body_size_and_what_is_kept_of_a_longer_one():
    site = Site(page(body=lambda: (b"x" * 65536 for _ in range(400))), max_body_bytes="128KiB")
    tracemalloc.start()
    iterable = site.cache(make_environ(), lambda *head: None)
    for _ in iterable:
        pass
    iterable.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
    assert site.count(Reason.NOT_STORED_TOO_LARGE) == 1


def test_followers_per_key():
    held = FirstHeld(page())
    site = Site(held, max_followers=0)
    first = Call(site.ask)
    held.wait()
    assert site.ask().detail == "COLLAPSE_OVERFLOW"
    held.let_go()
    first.result()


def test_wait_time():
    held = FirstHeld(page())
    site = Site(held, wait_timeout=0.01)
    first = Call(site.ask)
    held.wait()
    assert site.ask().detail == "COLLAPSE_TIMEOUT"
    held.let_go()
    first.result()


def test_background_jobs():
    held = FirstHeld(control("max-age=10, stale-while-revalidate=600"))
    held.let_go()
    site = Site(held, background_threads=1, background_queue=2)
    for number in range(10):
        site.ask(f"/{number}")
    site.clock.tick(20)
    busy = FirstHeld(control("max-age=10, stale-while-revalidate=600"))
    site.app.answers(busy)
    for number in range(10):
        assert site.ask(f"/{number}").detail == "HIT_STALE_WHILE_REVALIDATE"
    busy.wait()
    assert len(site.cache.engine.refresher._jobs) <= 2
    busy.let_go()
    assert site.cache.engine.refresher.drain()
    assert site.app.calls <= 10 + 1 + 3


def test_miss_markers():
    site = Site(control("private"))
    for number in range(12_000):
        site.cache.engine.markers.set(str(number), site.clock.now, Reason.NOT_STORED_PRIVATE)
    assert len(site.cache.engine.markers.marks) <= 10_000


def test_what_is_remembered_of_rules_and_settlements():
    site = Site(page(("Vary", "X-Part")), rules=[Rule("/a/*", ttl=5)], max_bytes="100kB")
    for number in range(5000):
        site.app.answers(page(("Cache-Control", f"max-age={number + 1}")))
        site.ask(f"/{number}")
    assert len(site.cache.rules._memo) <= 4096
    assert all(len(plan.settled) <= 1024 for plan in site.cache.engine.plans)


# --- 17: nothing administrative is open -------------------------------------------------------------


@pytest.mark.parametrize("method", ["PURGE", "BAN", "REFRESH", "PURGEKEYS"])
def test_no_method_purges(method):
    site = Site()
    site.fill()
    site.app.answers(page(status="405 Method Not Allowed"))
    reply = site.ask(method=method)
    assert (reply.code, reply.detail) == (405, "METHOD_UNSAFE")
    assert site.last["REQUEST_METHOD"] == method, "it is the app's to answer"
    assert site.ask().is_hit


@pytest.mark.parametrize("url", ["/wsgicache", "/_cache", "/cache-admin/purge", "/__cache__/stats"])
def test_no_path_is_ours(url):
    site = Site(page(body=b"the app's"))
    assert site.ask(url).body == b"the app's"


@pytest.mark.parametrize(
    "headers",
    [{"X-Purge": "1"}, {"X-Cache-Debug": "1"}, {"Pragma": "akamai-x-get-cache-key"}, {"Fastly-Debug": "1"}],
)
def test_no_field_opens_anything(headers):
    site = Site()
    site.fill()
    reply = site.ask(headers=headers)
    assert reply.is_hit
    assert "key" not in reply.cache


@pytest.mark.parametrize("given", [None, "", "x", "sesam", "SESAME", "sesame ", "\xff"])
def test_nobody_sees_the_key_without_the_secret(given):
    site = Site(secret="sesame")
    headers = None if given is None else {"Wsgicache-Secret": given}
    for _ in range(4):
        assert "key" not in site.ask(headers=headers).cache


def test_without_a_configured_secret_nobody_sees_it_at_all():
    for secret in (None, ""):
        site = Site(secret=secret)
        for given in ("", "None"):
            assert "key" not in site.ask(headers={"Wsgicache-Secret": given}).cache


@pytest.mark.parametrize("secret", ["sesame", "s\u00e9same", "\u65e5\u672c"])
def test_who_has_the_secret_sees_the_key_on_every_kind_of_answer(secret):
    site = Site(secret=secret)
    sent = {"Wsgicache-Secret": secret.encode().decode("latin-1")}
    for reply in (site.ask(headers=sent), site.ask(headers=sent), site.ask(headers=sent)):
        assert "example.com" in reply.cache["key"]


def test_the_secret_is_compared_in_constant_time_and_shown_nowhere():
    assert wsgi.hmac.compare_digest is hmac.compare_digest
    site = Site(secret="sesame")
    assert "sesame" not in repr(site.cache.engine.settings)
    assert "sesame" not in repr(site.cache.explain("/").as_dict())


def test_the_app_does_not_have_to_see_the_secret_to_fill_a_page_for_others():
    site = Site(page(body=b"page"), secret="sesame")
    site.fill(headers={"Wsgicache-Secret": "sesame"})
    assert site.ask().is_hit


def test_a_get_changes_no_state():
    site = Site(control("private"), rules=[Rule("/x", name="x")])
    states = site.cache.rules.states()
    mark = site.cache.store.mark
    for url in ("/?purge=1", "/purge", "/x?enable=x", "/"):
        site.ask(url)
    assert site.cache.rules.states() == states
    assert site.cache.store.mark == mark


# --- 18: loud at configuration time, quiet at run time ----------------------------------------------

WRONG = [
    {"ttl": "soon"},
    {"tll": 5},
    {"profile": "fast"},
    {"store": "redis-typo://localhost"},
    {"store": "localhost:6379"},
    {"store": 5},
    {"store": None},
    {"store": "memory://?max_bytes=1"},
    {"store": "memory://host"},
    {"store": "memory://?size=5"},
    {"max_bytes": "10"},
    {"rules": "/admin/*"},
    {"rules": ["/admin/*"]},
    {"rules": 5},
    {"clock": 5},
    {"enabled": "perhaps"},
    {"max_variants": 0},
    {"languages": 5},
    {"targeted_fields": "a b"},
    {"drop_fields": "x:y"},
    {"secret": 5},
    {"wait_timeout": -1},
]


@pytest.mark.parametrize("options", WRONG, ids=repr)
def test_a_mistake_stops_at_start_with_the_option_and_the_value(options):
    with pytest.raises(OptionError) as refused:
        WSGICache(ScriptedApp(), **options)
    (name, value), text = next(iter(options.items())), str(refused.value)
    assert name in text
    assert (str(value).partition("?")[0].strip("[]") in text) is (name != "secret"), "no log shows a secret"


@pytest.mark.parametrize("app", [None, 5, "app", object()])
def test_something_that_is_no_app_is_refused(app):
    with pytest.raises(TypeError, match="it cannot be called"):
        WSGICache(app)


HOOKS = ["admit", "look_up", "keep", "covered"]


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("filled", [False, True], ids=["empty", "filled"])
def test_a_fault_at_run_time_leaves_the_response_alone_and_is_recorded(hook, filled, caplog):
    site = Site(control("max-age=10", ("ETag", '"a"')))
    if filled:
        site.fill()
        site.clock.tick(20)

    def broken(*args, **kwargs):
        raise ZeroDivisionError("a fault of ours")

    setattr(site.cache.engine, hook, broken)
    for _ in range(3):
        reply = site.ask()
        assert (reply.code, reply.body, reply.field("ETag")) == (200, b"page", '"a"')
    if hook != "covered":
        assert site.count(Reason.CACHE_FAULT) >= 3
        assert any(record.exc_info for record in caplog.records)


def test_a_strange_environ_is_the_apps_problem():
    class Odd(dict):
        def get(self, name, default=None):
            if name == "HTTP_COOKIE":
                raise ValueError("odd")
            return super().get(name, default)

    site = Site()
    site.fill()

    def run(environ):
        heads = []
        body = b"".join(site.cache(environ, lambda *head: heads.append(head)))
        return heads[0][0], body

    assert run(Odd(make_environ())) == ("200 OK", b"page")


def test_every_option_of_the_table_has_a_wrong_value_that_is_refused_or_takes_anything():
    anything = {"rules", "clock", "store", "namespace"}
    for name, option in OPTIONS.items():
        if name not in anything:
            with pytest.raises((ValueError, TypeError)):
                option.read(object())


def test_ask_is_a_server_that_closes():
    site = Site(page(body=lambda: iter([b"a"])))
    ask(site.cache)
    assert site.app.closed == 1
