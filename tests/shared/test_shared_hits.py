"""Hits over a store that other processes share: what is served, and how often the store is asked for it."""

import pytest
from shared_helpers import Later, Site

from wsgicache import Reason, Rule
from wsgicache.observe import ByName
from wsgicache.testing import Response


def test_what_one_stores_answers_the_others():
    site = Site()
    one, two = site.workers()
    assert one.ask().stored
    for _ in range(3):
        reply = two.ask()
        assert (reply.is_hit, reply.body) == (True, b"v1")
    assert (one.calls, two.calls) == (1, 0)


def test_both_tell_the_same_etag():
    site = Site()
    one, two = site.workers()
    one.ask()
    tags = {worker.ask().field("etag") for worker in (one, two)}
    assert len(tags) == 1
    assert tags != {None}
    assert two.ask(headers={"If-None-Match": tags.pop()}).code == 304


def test_a_hit_is_one_round_trip():
    site = Site()
    one, two = site.workers()
    one.ask()
    two.ask()
    for worker in (one, two, two):
        worker.ask()
        trips, reply = site.trips(worker.ask)
        assert (trips, reply.is_hit) == (1, True)


def test_so_is_a_hit_of_a_page_that_varies():
    site = Site()
    site.response = lambda environ, version: Response(
        headers=[("Vary", "Accept-Language")], body=environ.get("HTTP_ACCEPT_LANGUAGE", "-").encode()
    )
    one, two = site.workers()
    for language in ("de", "fr"):
        one.ask(headers={"Accept-Language": language})
    for language in ("de", "fr"):
        two.ask(headers={"Accept-Language": language})
        trips, reply = site.trips(lambda language=language: two.ask(headers={"Accept-Language": language}))
        assert (trips, reply.is_hit, reply.body) == (1, True, language.encode())
    trips, reply = site.trips(lambda: two.ask(method="HEAD", headers={"Accept-Language": "de"}))
    assert (trips, reply.is_hit) == (1, True), "the long way guesses the variant"


@pytest.mark.parametrize("memo_bytes", [0, 1_000_000])
def test_a_page_that_is_not_kept_decoded_is_a_hit_too(memo_bytes):
    site = Site()
    site.response = lambda environ, version: Response(body=b"x" * 200_000)
    one, two = site.workers(store_options={"memo_bytes": memo_bytes})
    one.ask()
    for _ in range(3):
        reply = two.ask()
        assert (reply.is_hit, len(reply.body)) == (True, 200_000)
    assert two.calls == 0


def test_what_replaced_it_is_served_at_once():
    site = Site(ttl=60)
    one, two = site.workers()
    one.ask()
    assert [two.ask().body for _ in range(2)] == [b"v1"] * 2
    site.clock.tick(61)
    site.version = 2
    assert one.ask().stored
    reply = two.ask()
    assert (reply.is_hit, reply.body, two.calls) == (True, b"v2", 0)


def test_what_another_deleted_is_gone():
    site = Site()
    one, two = site.workers()
    one.ask()
    two.ask()
    two.ask()
    (key,) = site.server.rows
    one.store.delete(key)
    reply = two.ask()
    assert (reply.is_hit, reply.cache["fwd"], two.calls) == (False, "uri-miss", 1)


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"\x80\x04N.", lambda data: b""])
def test_damaged_bytes_are_a_miss_and_go(damage):
    site = Site()
    one, two = site.workers()
    one.ask()
    two.ask()
    two.ask()
    ((key, (data, token)),) = site.server.rows.items()
    site.server.rows[key] = damage(data), token
    assert not two.ask().is_hit
    assert two.ask().is_hit


def test_a_switch_of_rules_is_judged_anew_over_a_memo_too():
    site = Site(rules=[Rule("/page", ttl=60, name="page"), Rule("/*", ttl=10)])
    one, two = site.workers()
    one.ask()
    assert [two.ask().is_hit for _ in range(2)] == [True, True]
    two.cache.rules.disable("page")
    reply = two.ask()
    assert (reply.is_hit, reply.detail) == (False, Reason.MISS_RULES.name)


def test_two_namespaces_share_nothing():
    site = Site()
    one, two = site.workers(namespace="blue")[0], site.workers(namespace="green")[0]
    one.ask()
    assert not two.ask().is_hit
    assert one.ask().is_hit
    one.cache.clear()
    assert two.ask().is_hit


def test_a_store_that_is_down_is_a_miss_with_a_reason():
    site = Site()
    (worker,) = site.workers(1)
    worker.ask()
    worker.ask()
    worker.ask()
    site.server.down = True
    for _ in range(2):
        reply = worker.ask()
        assert (reply.is_hit, reply.detail, reply.body) == (False, Reason.STORE_DOWN.name, b"v1")
    site.server.down = False
    assert worker.ask().is_hit


def test_a_clock_that_went_back_makes_what_is_stored_stale():
    """Whoever stored it: it looks younger than it is. Others hear of it by the journal."""
    times = {"wall": 1_700_000_000.0, "steady": 0.0}
    site = Site(ttl=100)
    one, two = site.workers()
    one.cache.engine.clock.wall = lambda: times["wall"]
    one.cache.engine.clock.steady = lambda: times["steady"]
    one.cache.engine.clock._anchor()
    one.ask()
    assert two.ask().is_hit
    times["wall"] -= 60
    times["steady"] += 1
    reply = one.ask("/other")
    assert reply.stored
    assert two.ask().detail == Reason.STALE_PURGED.name


def test_a_child_that_was_forked_while_another_thread_counted_does_not_wait_for_it():
    site = Site()
    (one,) = site.workers(1)
    engine = one.cache.engine
    engine.observer.by_name = ByName(lambda key: "page")
    one.ask()
    with engine.observer.by_name._lock:  # by a thread that the child does not have
        Later(engine._after_fork).result()
    assert one.ask().is_hit
