"""Purges over a Redis Cluster: those of a URL in the bucket of its path, all others in every bucket."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from near_helpers import body
from redis_helpers import opened
from servers_redis import empty_cluster, until

from wsgicache import Rule, WSGICache
from wsgicache.client import Client
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge, portions, short
from wsgicache.key import base_key, search_key, split_key, target_path, url_targets, variant_key
from wsgicache.stores import open_store
from wsgicache.stores.near import near_store
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

LONG = 30.0
"""A bound that no test lives to see."""

text = st.text(st.characters(exclude_characters="\0\1", max_codepoint=255), max_size=20)
paths = text.map(lambda path: f"/{path}")
hosts = st.from_regex(r"[a-z0-9.-]{1,12}(:[0-9]{1,4})?", fullmatch=True)
keys = st.builds(base_key, paths, text, hosts, st.sampled_from(["http", "https"]), text)

away = opened("redis+cluster://127.0.0.1:1")
"""A Cluster's store that nobody asks."""


# --- which bucket ----------------------------------------------------------------------------------


@given(keys, text)
def test_all_that_a_purge_of_a_url_can_reach_is_in_its_bucket(key, value):
    parts = split_key(key)
    for target in url_targets(parts):
        assert target_path(target) == parts.path
        part = away.part_of_path(parts.path)
        reached = [key, search_key(key), variant_key(key, ["accept", "x"], [value, None])]
        assert {away.part_of(one) for one in reached} == {part}
        taken = portions([Purge(Kind.URL, target)], 16, away.part_of_path)
        assert [number for number, portion in enumerate(taken) if portion] == [part]


@given(st.text(max_size=300))
def test_any_text_is_a_target(target):
    """Of what no key has nobody can tell where it belongs; it goes to one bucket or to all."""
    taken = portions([Purge(Kind.URL, target)], 16, away.part_of_path)
    assert sum([len(portion) for portion in taken]) in (1, 16)


def test_what_may_have_any_path_goes_to_every_bucket_and_in_order():
    purges = [
        Purge(Kind.URL, "p/a"), Purge(Kind.GROUP, "gx"), Purge(Kind.PREFIX, "p/a"), Purge(Kind.ALL, ""),
        Purge(Kind.META, "rule:x"), Purge(Kind.URL, short("p/" + "a" * 300)), Purge(Kind.URL, "p/a", True),
    ]  # fmt: skip
    taken = portions(purges, 16, away.part_of_path)
    part = away.part_of_path("/a")
    assert taken[part] == purges
    assert [portion for number, portion in enumerate(taken) if number != part] == [purges[1:-1]] * 15
    assert portions(purges, 2, None) == [purges, purges]


# --- over a real Cluster ---------------------------------------------------------------------------


def app():
    """Pages with variants, groups, and by some queries only."""

    def answer(environ):
        path = environ["PATH_INFO"]
        headers = [("Vary", "X-Kind")] if path.endswith(("1", "2")) else []
        headers += [("Cache-Tag", f"group{len(path) % 3}")]
        headers += [("No-Vary-Search", 'params=("utm")')] if path.endswith("3") else []
        return Response(headers=headers, body=path.encode("latin-1"))

    return ScriptedApp(answer)


REQUESTS = [
    (f"{origin}{path}{query}", kind)
    for path in ["/", "/shop", *[f"/shop/{n}" for n in range(8)], "/caf%C3%A9/1", f"/{'long' * 80}"]
    for origin, query, kind in [
        ("http://a.example", "", "x"),
        ("http://a.example", "?q=1&utm=2", "y"),
        ("https://b.example:8443", "", "y"),
    ]
]

PURGES = [
    lambda cache: cache.purge("/shop/1"),
    lambda cache: cache.purge("/shop/2?q=1&utm=2", "/shop/5", "/caf%C3%A9/1"),
    lambda cache: cache.purge("https://b.example:8443/shop/3", "http://a.example/shop/3?q=1&utm=7"),
    lambda cache: cache.purge(f"/{'long' * 80}"),
    lambda cache: cache.purge("/nothing/here"),
    lambda cache: cache.purge_prefix("/shop"),
    lambda cache: cache.purge_prefix("https://b.example:8443/"),
    lambda cache: cache.purge_groups("group1"),
    lambda cache: cache.clear(),
]

PREVIEWS = [
    {"urls": ["/shop/1", "/shop/4?q=1&utm=2"]}, {"urls": ["http://a.example/shop/2"]},
    {"prefixes": ["/shop"]},
    {"groups": ["group2"], "urls": ["/shop/7"]},
    {"everything": True},
]  # fmt: skip


def got(cache):
    """Which requests are answered from what is stored."""
    return [ask(cache, url, headers={"X-Kind": kind}).is_hit for url, kind in REQUESTS]


@pytest.fixture
def sites():
    """The same site over a Cluster, with two workers, and over a store with one journal."""
    clock = FakeClock(time.time())
    url = f"{empty_cluster().url}?timeout=20s"
    made = [
        WSGICache(app(), store, clock=clock, no_vary_search=True, rules=[Rule("/*", query="key")])
        for store in (url, url, "memory://")
    ]
    yield made
    for cache in made:
        cache.close()


@pytest.mark.parametrize("purge", PURGES)
def test_a_purge_reaches_what_it_reaches_with_one_journal(sites, purge):
    one, two, alone = sites
    for _ in range(2):
        found = [got(alone), got(one), got(two)]
    assert all([all(hits) for hits in found])
    told = [purge(cache).matched for cache in (two, alone)]
    assert told[0] == told[1] or purge is PURGES[-1], "clear tells roughly: with the records of what varies"
    assert [purge(cache).matched for cache in (one, alone)] == [0, 0], "all of it was purged before"
    assert got(one) == got(alone)
    assert got(two) == got(alone), "and is stored again"


@pytest.mark.parametrize("what", PREVIEWS)
def test_a_preview_tells_what_it_tells_with_one_journal(sites, what):
    one, two, alone = sites
    got(one), got(alone)
    for cache in (one, alone):
        cache.purge("/shop/1", soft=True)
        cache.purge("/shop/7")
    previews = [
        sorted([entry.key for entry in cache.preview(*what.get("urls", ()), **{
            name: value for name, value in what.items() if name != "urls"
        })])
        for cache in (two, alone)
    ]  # fmt: skip
    assert previews[0] == previews[1]
    held = [sorted([(h.url, h.state) for h in cache.inventory().entries()]) for cache in (two, alone)]
    assert held[0] == held[1]


def moved(store, job):
    """How far a job moved each bucket's journal."""
    before = [part.mark_of("").seq for part in store.parts]
    job()
    return [part.mark_of("").seq - seq for part, seq in zip(store.parts, before, strict=True)]


def test_from_outside_a_url_goes_to_its_bucket_too(sites):
    one, two, _ = sites
    got(one)
    with Client(one.store) as client:
        first, second = [one.store.part_of_path(path) for path in ("/shop/1", "/shop/2")]
        found = moved(one.store, lambda: client.purge("/shop/1", "/shop/2", "/shop/1?q=1"))
        assert found == [2 * (part == first) + (part == second) for part in range(16)]
        assert moved(one.store, lambda: client.purge_groups("x")) == [1] * 16
        assert client.purge("/shop/4").matched == 3
        assert not ask(two, "http://a.example/shop/1", headers={"X-Kind": "x"}).is_hit


def test_an_unsafe_request_invalidates_in_one_bucket(sites):
    one, two, _ = sites
    url = "http://a.example/shop/6"
    for cache in (one, two):
        ask(cache, url)
    part = one.store.part_of_path("/shop/6")
    found = moved(one.store, lambda: ask(one, url, "POST"))
    assert found == [2 * (n == part) for n in range(16)], "when it begins and when it ends"
    assert not ask(two, url).is_hit


# --- near tiers ------------------------------------------------------------------------------------


@pytest.fixture
def tiers():
    """Two near tiers of two processes, as it were, that hear of purges by messages alone."""
    made = [
        near_store(open_store(f"{empty_cluster().url}?timeout=20s"), 1 << 20, bound=LONG) for _ in range(2)
    ]
    for tier in made:
        body(tier)
    for tier in made:
        until(lambda tier=tier: all([is_trusted(part) for part in tier.parts]), 20, "trust")
    until(lambda: made[0].remote.publish("x") >= 1, 20, "somebody who listens")
    yield made
    for tier in made:
        tier.close()


def is_trusted(part):
    return time.monotonic() < part.trust.until


def put(store, path):
    key, now = base_key(path, "", "h", "http"), time.time()
    entry = Entry(key, Terms("200 OK", "f", 300, "ttl"), (), b"body", now, now + 300, store.mark_of(key))
    assert store.set(key, entry, entry.keep_until)
    return key


def write(tier, purge):
    """As an engine does: to one part, or to all at once."""
    taken = {n: portion for n, portion in enumerate(portions([purge], 16, tier.part_of_path)) if portion}
    if len(taken) > 1:
        tier.at_once.append(taken, 0.0)
    for number, portion in taken.items() if len(taken) == 1 else ():
        tier.parts[number].append(portion, 0.0)


@pytest.mark.parametrize("number", range(16))
def test_a_message_tells_which_part_moved(tiers, number):
    """Wherever the part and whoever listens are: the servers pass it on."""
    near, other = tiers
    path = next(f"/{n}" for n in range(10_000) if near.part_of_path(f"/{n}") == number)
    key = put(near, path)
    assert other.get([key])[0][0].body == b"body"
    marks = [part._mark for part in other.parts]
    write(near, Purge(Kind.URL, f"p{path}"))
    until(lambda: other.parts[number]._mark.seq == marks[number].seq + 1, 20, "the message")
    assert [part._mark for part in other.parts if part is not other.parts[number]] == [
        mark for part, mark in enumerate(marks) if part != number
    ]
    assert all([is_trusted(part) for part in other.parts])


def test_a_message_of_what_goes_everywhere_comes_when_all_have_it(tiers):
    near, other = tiers
    seqs = [part._mark.seq for part in other.parts]
    beats, beat = [], other._heartbeat.beat

    def noted(moved=None):
        beats.append(moved)
        return beat(moved)

    other._heartbeat.beat = noted
    write(near, Purge(Kind.GROUP, "gx"))
    until(lambda: [part._mark.seq for part in other.parts] == [seq + 1 for seq in seqs], 20, "all parts")
    assert set(beats) == {None}
    assert len(beats) < len(other.parts) // 2, "not one for each part"

    def beat_of_one_part():  # a beat that was due anyway may have been quicker than the message
        write(near, Purge(Kind.URL, "p/x"))
        return frozenset({near.part_of_path("/x")}) in beats

    until(beat_of_one_part, 20, "the beat of one part")
