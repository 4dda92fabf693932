"""Several buckets of a Cluster at once: how often the servers are waited for, and what may go wrong."""

import threading
from collections import Counter
from contextlib import contextmanager

import pytest
from near_helpers import ByHand
from redis_helpers import fails, opened
from servers_redis import empty_cluster

from wsgicache import WSGICache
from wsgicache.client import Client
from wsgicache.journal import Kind, Purge, PurgeIndex
from wsgicache.stores import StoreError
from wsgicache.stores.near import near_store
from wsgicache.stores.redisscripts import PAGE
from wsgicache.testing import Response, ScriptedApp, ask

GROUP = Purge(Kind.GROUP, "gx")
EVERY = range(16)
GROUPS = {part: [GROUP] for part in EVERY}


@pytest.fixture
def cluster():
    return empty_cluster()


@pytest.fixture
def store(cluster):
    """A store that has asked every server before, so that scripts are loaded and connections open."""
    store = opened(cluster.url)
    store.at_once.append(GROUPS, 1.0)
    store.at_once.purges_since(dict.fromkeys(EVERY))
    store.at_once.clear()
    yield store
    store.close()


class Turns:
    """How often this process stopped sending to wait for answers, and how many packets it sent."""

    def __init__(self):
        self.waits = self.sent = 0
        self._sending = False

    def sends(self):
        self.sent += 1
        self._sending = True

    def reads(self):
        self.waits += self._sending
        self._sending = False


@contextmanager
def turns(store):
    """Counted on the connections that are open now."""
    counted = Turns()
    whole = getattr(store, "remote", store)
    lines = [line for link in whole._nodes._links.values() for line in link.free]
    before = [(line.send, line.read) for line in lines]
    for line in lines:
        line.send = noted(counted.sends, line.send)
        line.read = noted(counted.reads, line.read)
    try:
        yield counted
    finally:
        for line, (send, read) in zip(lines, before, strict=True):
            line.send, line.read = send, read


def noted(note, call):
    def noting(*args):
        note()
        return call(*args)

    return noting


def seqs(store):
    return [part.mark_of("").seq for part in store.parts]


def by_server(store):
    """How many buckets each server owns, by the name of its link."""
    return Counter([part.link.name for part in store.parts])


# --- how long it takes -----------------------------------------------------------------------------


def test_the_servers_are_waited_for_together(store):
    before = seqs(store)
    with turns(store) as counted:
        answers = store.at_once.append(GROUPS, 1.0)
    assert [answers[part].seq for part in EVERY] == [seq + 1 for seq in before]
    assert counted.waits == 2, "all but the last bucket, and that when they have it"
    assert counted.sent == 3 + 1
    with turns(store) as counted:
        marks = store.at_once.marks(EVERY)
    assert (counted.waits, counted.sent) == (1, 3)
    assert marks == answers
    with turns(store) as counted:
        told = store.at_once.purges_since(dict.fromkeys(EVERY))
    assert (counted.waits, counted.sent) == (1, 3)
    assert {snapshot.mark for snapshot in told.values()} == set(marks.values())
    with turns(store) as counted:
        epochs = {mark.epoch for mark in store.at_once.clear().values()}
    assert (counted.waits, counted.sent) == (1, 3)
    assert not epochs & {mark.epoch for mark in marks.values()}


def test_purges_of_urls_need_not_wait_for_each_other(store):
    paths = {store.part_of_path(f"/{n}"): f"p/{n}" for n in range(1000)}
    with turns(store) as counted:
        store.append([Purge(Kind.URL, path) for path in paths.values()], 1.0)
    assert (counted.waits, counted.sent, len(paths)) == (1, 3, 16)


@pytest.mark.parametrize(
    "purge",
    [
        lambda cache: cache.purge_prefix("/shop"),
        lambda cache: cache.purge_groups("a", "b"),
        lambda cache: cache.clear(soft=True),
    ],
)
@pytest.mark.parametrize("near", [False, True])
def test_a_site_waits_three_times_for_a_purge_of_what_may_have_any_path(cluster, store, purge, near):
    """For what went before, for all but one, for the last; a near tier once more, to follow what it wrote."""
    over = near_store(opened(cluster.url), heart=ByHand, bound=1000.0) if near else opened(cluster.url)
    cache = WSGICache(ScriptedApp(Response(headers=[("Cache-Groups", '"a"')])), over)
    ask(cache, "/shop/1")
    assert purge(cache).matched == 1
    ask(cache, "/shop/2")
    with turns(cache.store) as counted:
        purge(cache)
    assert counted.waits == 3 + near
    ask(cache, "/shop/1")
    cache.close()


def test_a_beat_waits_once_and_twice_where_all_parts_moved(cluster, store):
    near = near_store(opened(cluster.url), heart=ByHand, bound=1000.0)
    for _ in range(2):
        assert near._heartbeat.beat()
    with turns(near) as counted:
        assert near._heartbeat.beat()
    assert (counted.waits, counted.sent) == (1, 3)
    store.append([GROUP], 1.0)
    with turns(near) as counted:
        assert near._heartbeat.beat()
    assert (counted.waits, counted.sent) == (2, 6)
    assert [part.reached.seq for part in near.parts] == seqs(store)
    near.close()


def test_numbers_are_asked_of_servers_not_of_buckets(cluster, store):
    """So `clear`, which tells how many there were, does not take longer the more buckets there are."""
    cache = WSGICache(ScriptedApp(), opened(cluster.url))
    for number in range(40):
        ask(cache, f"/{number}")
    with turns(cache.store) as counted:
        assert cache.store.stats()["entries"] == 40
    assert counted.waits == 1 + 3 * 5, "the marks; keys, names, sizes and two of INFO from each server"
    with turns(cache.store) as counted:
        assert cache.clear().matched == 40
    assert counted.waits == 1 + 3 * 5 + 1
    cache.close()


def test_who_comes_from_outside_opens_a_connection_for_each_server(cluster, store):
    with Client(opened(cluster.url)) as client:
        before = seqs(store)
        client.purge_groups("x")
        assert seqs(store) == [seq + 1 for seq in before]
        assert client.store.stats()["connections_opened"] == 3


# --- what goes wrong -------------------------------------------------------------------------------


def test_scripts_that_the_servers_have_not_seen(cluster, store):
    before = seqs(store)
    for server in cluster.primaries():
        server.ask("SCRIPT", "FLUSH")
    with turns(store) as counted:
        store.append([GROUP], 1.0)
    assert counted.waits == 2 + 3 * 2 + 1, "each is taught by one bucket, by the whole text"
    assert [len(part.purges_since(None).records) for part in store.parts] == [1] * 16
    assert seqs(store) == [seq + 1 for seq in before]


def test_connections_that_the_servers_have_closed(cluster, store):
    before = seqs(store)
    for server in cluster.primaries()[:2]:
        server.ask("CLIENT", "KILL", "TYPE", "normal")
    store.append([GROUP], 1.0)
    assert seqs(store) == [seq + 1 for seq in before], "once each"
    assert not [link for link in store._nodes._links.values() if link.reading.is_open]


def test_a_bucket_that_has_moved(cluster, store):
    part = store.parts[5]
    source = cluster.owner(part.slot)
    target = next(server for server in cluster.primaries() if server is not source)
    before = seqs(store)
    cluster.move(part.slot, target)
    try:
        mark = store.at_once.append(GROUPS, 1.0)[5]
        assert mark.seq == 1, "another server, another epoch"
        assert part.link.name.endswith(str(target.port))
        now = seqs(store)
        assert [now[n] - before[n] for n in EVERY if n != 5] == [1] * 15
    finally:
        cluster.move(part.slot, source)


def test_a_server_that_does_not_answer_keeps_no_purge_from_the_others(cluster):
    """What arrives late is no answer to the next question."""
    store, patient = opened(cluster.url, timeout=0.5), opened(cluster.url)
    store.at_once.append(GROUPS, 1.0)
    before = seqs(patient)
    silent = cluster.owner(store.parts[0].slot)
    dumb = [n for n in EVERY if cluster.owner(store.parts[n].slot) is silent]
    silent.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        with fails(f"{len(dumb)} of 16 buckets: .*127.0.0.1:{silent.port}: TimeoutError"):
            store.append([GROUP], 1.0)
        others = [n for n in EVERY if n not in dumb]
        assert [patient.parts[n].mark_of("").seq for n in others] == [before[n] + 1 for n in others]
    finally:
        silent.ask("CLIENT", "UNPAUSE")
    marks = store.at_once.append({n: [GROUP] for n in dumb}, 1.0)
    assert {n: mark.seq for n, mark in marks.items()} == dict(
        zip(dumb, [seqs(patient)[n] for n in dumb], strict=True)
    )
    assert marks == patient.at_once.marks(dumb)


@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("purge", [lambda cache: cache.purge_prefix("/"), lambda cache: cache.clear()])
def test_a_site_hears_of_it_and_the_others_are_purged(cluster, store, purge, near):
    """Pages of servers that took the purge are gone; those of one that did not may be served."""
    over = opened(cluster.url, timeout=0.5)
    over = near_store(over, heart=ByHand, bound=1000.0) if near else over
    body = [b"old"]
    app = ScriptedApp(lambda environ: Response(body=body[0]))
    cache, other = WSGICache(app, over), WSGICache(app, opened(cluster.url))
    silent = cluster.owner(store.parts[0].slot)
    owners = {f"/{n}": cluster.owner(store.parts[store.part_of_path(f"/{n}")].slot) for n in range(40)}
    for page in owners:
        ask(other, page)
    assert all([ask(cache, page).is_hit for page in owners])
    body[0] = b"new"
    silent.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    try:
        with pytest.raises(StoreError, match="TimeoutError"):
            purge(cache)
        for site in (cache, other):
            got = [ask(site, page).body for page, owner in owners.items() if owner is not silent]
            assert set(got) == {b"new"}
    finally:
        silent.ask("CLIENT", "UNPAUSE")
    for site in (cache, other):
        site.close()


def test_who_is_killed_while_waiting_leaves_no_line_behind(store):
    links = list({part.link for part in store.parts})
    reads = iter(range(100))
    line = links[1].free[-1]
    genuine = line.read

    def killed(*args):
        if next(reads) == 2:
            raise KeyboardInterrupt
        return genuine(*args)

    line.read = killed
    with pytest.raises(KeyboardInterrupt):
        store.at_once.marks(EVERY)
    assert [link._count - len(link.free) for link in links] == [0] * 3
    assert store.at_once.marks(EVERY)[3] == store.parts[3].mark_of("")


def test_two_at_once_with_one_connection_to_each_server(cluster):
    """Who waits for a line holds others; in the same order, so that nobody waits in vain."""
    store = opened(cluster.url, timeout=5.0, options="&max_connections=1")
    begin = threading.Barrier(4)
    failed = []

    def work():
        begin.wait()
        for _ in range(5):
            answers = [*store.at_once.append(GROUPS, 1.0).values()]
            failed.extend([answer for answer in answers if isinstance(answer, Exception)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert seqs(store) == [20] * 16


def test_more_purges_than_go_into_one_call_and_more_records_than_one_page(store):
    many = [Purge(Kind.GROUP, f"g{n}") for n in range(PAGE + 100)]
    store.append(many, 1.0)
    told = store.at_once.purges_since(dict.fromkeys(EVERY))
    assert {len(snapshot.records) for snapshot in told.values()} == {PAGE + 100}
    index = PurgeIndex()
    index.follow(told[7])
    assert index.last(many[0]) == 1


def test_a_journal_that_is_lost_is_begun_anew(cluster, store):
    marks = store.at_once.marks(EVERY)
    for server in cluster.primaries():
        server.ask("FLUSHALL")
    again = store.at_once.marks(EVERY)
    assert not {mark.epoch for mark in marks.values()} & {mark.epoch for mark in again.values()}
    told = store.at_once.purges_since(marks)
    assert all([told[n].whole and told[n].mark == again[n] for n in EVERY])


def test_what_is_no_record_begins_an_epoch_in_that_bucket_alone(store):
    marks = store.at_once.append(GROUPS, 1.0)
    part = store.parts[3]
    name = part.link.ask(lambda line: line.ask("ZRANGE", part._journal_keys[1], 0, 0))[0]
    part.link.ask(lambda line: line.ask("HSET", part._journal_keys[2], name, b"nonsense"))
    told = store.at_once.purges_since(dict.fromkeys(EVERY))
    assert [n for n in EVERY if told[n].mark.epoch != marks[n].epoch] == [3]


def test_nobody_answers():
    store = opened("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout=0.5)
    for answers in (store.at_once.marks(EVERY), store.at_once.clear()):
        assert [isinstance(answer, StoreError) for answer in answers.values()] == [True] * 16
