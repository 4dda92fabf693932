"""A Redis Cluster: buckets, resharding and the loss of a node."""

import os
import time

import pytest
from redis.crc import key_slot
from redis_helpers import entry, fails, follower, opened, purge, put, served
from servers_redis import empty_cluster, until
from waiting import PATIENCE

from wsgicache.entry import Entry
from wsgicache.journal import Kind, Purge, Verdict
from wsgicache.stores import StoreError
from wsgicache.stores.rediscluster import bucket_tags


def key(number):
    return f"/page/{number}\0\0example.com\0http"


@pytest.fixture
def cluster():
    return empty_cluster()


def key_in(store, part):
    """A key whose bucket is this one."""
    return next(key(number) for number in range(10_000) if store.part_of(key(number)) == part)


def eventually(job):
    """Do a job as soon as it raises no StoreError; its result."""
    told = []

    def tried():
        try:
            told.append(job())
        except StoreError:
            return False
        return True

    until(tried, 30, "an answer")
    return told[0]


def impatient(store):
    """Every pause between two looks or probes is over at once."""
    ticks = iter(range(0, 10**9, 10))
    clock = lambda: next(ticks)  # noqa: E731
    store._nodes.clock = clock
    for link in store._nodes._links.values():
        link.reading.clock = link.writing.clock = clock


@pytest.mark.parametrize("buckets", [1, 2, 3, 16, 50, 256])
def test_rds_09_buckets_lie_evenly_over_the_slots(buckets):
    slots = [key_slot(tag.encode()) for tag in bucket_tags(buckets)]
    share = 16384 / buckets
    assert all([n * share <= slot < (n + 1) * share for n, slot in enumerate(slots)])
    assert bucket_tags(buckets) == bucket_tags(buckets), "in every process"
    for nodes in (3, 5):
        if buckets >= 16:
            owned = [slot * nodes // 16384 for slot in slots]
            counts = [owned.count(node) for node in range(nodes)]
            assert max(counts) - min(counts) <= 2


def test_rds_09_every_key_of_a_bucket_is_in_one_slot(cluster):
    store = opened(cluster.url)
    for number in range(60):
        put(store, key(number))
        store.lease(key(number), 20)
    store.append([Purge(Kind.GROUP, "g")], 1.0)
    store.set_meta("rules", "{}")
    store.incr_many({"hits": 1})
    slots = {}
    for server in cluster.primaries():
        for name in server.ask("KEYS", "*"):
            tag = name.partition(b"{")[2].partition(b"}")[0]
            slots.setdefault(tag, set()).add(server.ask("CLUSTER", "KEYSLOT", name))
    assert len(slots) == 16
    assert all([len(found) == 1 for found in slots.values()])
    assert len(set.union(*slots.values())) == 16


def test_a_page_its_variants_and_its_record_share_a_bucket(cluster):
    store = opened(cluster.url)
    base = key(1)
    variants = [base + "\1accept=x", base + "\1-", "/page/1\0q=1\0example.com\0https"]
    assert {store.part_of(one) for one in (base, *variants)} == {store.part_of(base)}
    spread = [store.part_of(key(number)) for number in range(1600)]
    counts = [spread.count(part) for part in range(16)]
    assert min(counts) > 50
    assert max(counts) < 200


def test_one_store_over_all_buckets(cluster):
    store, other = opened(cluster.url), opened(cluster.url)
    made = {key(number): put(store, key(number), b"%d" % number) for number in range(100)}
    found, mark = other.get(list(made))
    assert [stored.body for stored in found] == [b"%d" % number for number in range(100)]
    assert mark == other.mark_of(key(0))
    assert sorted(stored.key for stored in other.scan()) == sorted(made)
    assert other.stats()["entries"] == 100
    assert other.stats()["server_keys"] == sum([server.ask("DBSIZE") for server in cluster.primaries()])
    for name in made:
        slot = other.peek(name)
        assert other.confirm(slot) is not None
    assert store.delete(key(7))
    assert other.confirm(other.peek(key(7))) is None
    store.incr_many({"hits": 3})
    store.set_meta("rules", "{}")
    assert (dict(other.counters()), other.get_meta("rules")) == ({"hits": 3}, "{}")
    assert other.get([])[0] == []


def test_a_purge_of_what_may_have_any_path_is_written_to_every_bucket(cluster):
    store, other = opened(cluster.url), opened(cluster.url)
    before = [part.mark_of("") for part in other.parts]
    store.append([Purge(Kind.GROUP, "g"), Purge(Kind.ALL, "")], 1.0)
    for part, mark in zip(other.parts, before, strict=True):
        assert [record.kind for record in part.purges_since(mark).records] == [Kind.GROUP, Kind.ALL]
    after = store.clear()
    epochs = {part.mark_of("").epoch for part in other.parts}
    assert len(epochs) == 16
    assert after == other.parts[0].mark_of("")
    assert not epochs & {mark.epoch for mark in before}


def test_a_namespace_has_buckets_of_its_own(cluster):
    store = opened(cluster.url)
    inner = store.namespaced("a")
    assert store.namespaced("a") is inner
    assert store.namespaced("") is store
    assert inner.namespaced("") is store
    put(store, key(1), b"outer")
    assert inner.get([key(1)])[0] == [None]
    put(inner, key(1), b"inner")
    assert store.get([key(1)])[0][0].body == b"outer"
    with pytest.raises(NotImplementedError):
        store.parts[0].namespaced("a")


def test_the_cluster_is_asked_once(cluster):
    store = opened(cluster.url)
    for number in range(100):
        put(store, key(number))
    assert store._nodes.looks == 1


def test_hits_do_not_all_go_to_one_server(cluster):
    store = opened(cluster.url, memo_bytes=0)
    for number in range(64):
        put(store, key(number))
    for server in cluster.primaries():
        server.ask("CONFIG", "RESETSTAT")
    for number in range(64):
        assert store.get([key(number)])[0][0] is not None
    calls = [server.ask("INFO", "commandstats")["cmdstat_mget"]["calls"] for server in cluster.primaries()]
    assert sum(calls) == 64
    assert min(calls) >= 8


@pytest.mark.parametrize("seed", [0, 2], ids=["a primary", "another"])
def test_one_living_seed_is_enough(cluster, seed):
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{cluster.servers[seed].port}"
    put(opened(url), key(1))


def test_a_replica_as_the_only_seed(cluster):
    replica = next(server for server in cluster.servers if server.ask("ROLE")[0] == b"slave")
    store = opened(f"redis+cluster://127.0.0.1:{replica.port}")
    put(store, key(1))
    assert served(store.parts[store.part_of(key(1))], follower(), key(1)) == b"body"


def test_nobody_answers():
    store = opened("redis+cluster://127.0.0.1:1,127.0.0.1:2", timeout=0.5)
    with fails(r"redis\+cluster://127.0.0.1:1,127.0.0.1:2: ConnectionError"):
        store.get([key(1)])
    with fails("16 of 16 buckets"):
        store.append([Purge(Kind.GROUP, "g")], 1.0)
    with fails("1 of 1 buckets"):
        purge(store)


def test_a_server_that_is_no_cluster():
    from servers_redis import empty

    store = opened(empty().url.replace("redis://", "redis+cluster://"))
    with fails("cluster support disabled"):
        store.get([key(1)])


def test_resharding_a_buckets_slot(cluster):
    """To the new owner the journal is another server's, so a new epoch begins; the other buckets stay."""
    store, other = opened(cluster.url), opened(cluster.url)
    part = store.part_of(key(1))
    far = key_in(store, (part + 8) % 16)
    put(store, key(1), b"old")
    put(store, far, b"stays")
    for one in (store, other):
        assert one.get([key(1)])[0][0].body == b"old"
        impatient(one)
    slot = store.parts[part].slot
    source = cluster.owner(slot)
    target = next(server for server in cluster.primaries() if server is not source)
    before = store.parts[part].mark_of("")
    cluster.move(slot, target)
    try:
        assert target.ask("CLUSTER", "COUNTKEYSINSLOT", slot) > 1
        bucket, index = store.parts[part], follower()
        assert eventually(lambda: served(bucket, index, key(1))) is None
        assert bucket.mark_of("").epoch != before.epoch
        put(store, key(1), b"new")
        assert eventually(lambda: served(other.parts[part], follower(), key(1))) == b"new"
        assert store.get([far])[0][0].body == b"stays"
        assert bucket.link.name.endswith(str(target.port))
    finally:
        cluster.move(slot, source)


def test_a_purge_follows_a_bucket_that_has_moved(cluster):
    store, other = opened(cluster.url), opened(cluster.url)
    put(store, key(1), b"old")
    other.get([key(1)])
    slot = store.parts[store.part_of(key(1))].slot
    source = cluster.owner(slot)
    target = next(server for server in cluster.primaries() if server is not source)
    cluster.move(slot, target)
    try:
        purge(store, key(1))
        impatient(other)
        bucket = other.parts[other.part_of(key(1))]
        assert eventually(lambda: served(bucket, follower(), key(1))) is None
    finally:
        cluster.move(slot, source)


@pytest.mark.parametrize("moved", [0, 1, 3, 5])
def test_half_way_through_a_resharding(cluster, moved):
    """Some keys here, some there: misses and refusals, no crossed slots, no page from before a purge."""
    store = opened(cluster.url)
    name = key(1)
    bucket = store.parts[store.part_of(name)]
    put(store, name, b"old")
    bucket.append([Purge(Kind.URL, "p/elsewhere")], 1.0)
    bucket.set_meta("x", "y")
    slot = bucket.slot
    source = cluster.owner(slot)
    target = next(server for server in cluster.primaries() if server is not source)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", cluster.ids[source])
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.ids[target])
    purged, told = False, ""
    try:
        if moved:
            cluster.move_keys(slot, source, target, moved)
        impatient(store)
        index = follower()
        for _ in range(3):
            try:
                purge(bucket, name)
                purged = True
            except StoreError as error:
                told += str(error)
            try:
                body = served(bucket, index, name)
            except StoreError as error:
                told += str(error)
                body = None
            assert body is None or (body == b"old" and not purged)
        assert "CROSSSLOT" not in told
        if moved == 0:
            assert purged, told
    finally:
        cluster.move_keys(slot, source, target)
        for server in (target, source, *cluster.primaries()):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", cluster.ids[target])
        cluster.settled(slot, target)
        eventually(lambda: bucket.mark_of(""))
        assert served(bucket, follower(), name) is None, "another server, another epoch"
        cluster.move(slot, source)


def test_a_node_that_is_lost(cluster):
    """Its buckets miss until its replica takes over; the others go on."""
    store = opened(cluster.url, timeout=2)
    names = [key_in(store, part) for part in range(16)]
    for name in names:
        put(store, name, b"old")
    lost = cluster.owner(store.parts[0].slot)
    owned = [part for part, bucket in enumerate(store.parts) if cluster.owner(bucket.slot) is lost]
    others = [part for part in range(16) if part not in owned]
    assert owned
    assert others
    purge(store, names[0])
    lost.kill()
    try:
        for part in owned:
            with fails():
                store.get([names[part]])
        for part in others:
            assert store.get([names[part]])[0][0].body == b"old"
        with fails(f"{len(owned)} of 16 buckets"):
            store.append([Purge(Kind.GROUP, "g")], 1.0)
        for part in owned:
            with fails("1 of 1 buckets"):
                purge(store, names[part])
        purge(store, names[others[0]])
        until(lambda: cluster.owner(store.parts[0].slot) not in (lost, None), 40, "a new owner")
        impatient(store)
        for part in owned:
            assert eventually(lambda part=part: served(store.parts[part], follower(), names[part])) is None
        for part in owned:
            assert eventually(lambda part=part: put(store, names[part], b"new"))
            assert store.get([names[part]])[0][0].body == b"new"
        assert served(store.parts[others[0]], follower(), names[others[0]]) is None, "its purge was written"
        eventually(lambda: purge(store, names[0]))
    finally:
        lost.start()
        cluster.healthy()


def test_a_failover_by_hand(cluster):
    """The old owner lives on as a replica, with connections open."""
    store = opened(cluster.url)
    name = key(1)
    bucket = store.parts[store.part_of(name)]
    put(store, name, b"old")
    primary = cluster.owner(bucket.slot)
    mine = cluster.ids[primary]
    replica = next(
        s
        for s in cluster.servers
        if any(w[3] == mine.decode() and "myself" in w[2] for w in cluster.nodes(s))
    )
    until(lambda: replica.ask("INFO", "replication")["master_link_status"] == "up", what="the copy")
    replica.ask("CLUSTER", "FAILOVER")
    until(
        lambda: replica.ask("ROLE")[0] == b"master" and primary.ask("ROLE")[0] == b"slave", 30, "a failover"
    )
    impatient(store)
    assert eventually(lambda: served(bucket, follower(), name)) is None
    assert eventually(lambda: put(store, name, b"new"))
    assert served(bucket, follower(), name) == b"new"


def test_a_child_has_connections_of_its_own(cluster):
    store = opened(cluster.url)
    for number in range(10):
        put(store, key(number), b"%d" % number)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            links = store._nodes._links.values()
            assert not [line for link in links for line in link.free]
            found, _ = store.get([key(number) for number in range(10)])
            assert [stored.body for stored in found] == [b"%d" % number for number in range(10)]
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert store.get([key(3)])[0][0].body == b"3"


def test_a_bucket_that_is_listened_to(cluster):
    import threading

    store, other = opened(cluster.url), opened(cluster.url)
    part = store.parts[store.part_of(key(1))]
    heard, answered, stop = [], [], threading.Event()
    thread = threading.Thread(target=part.listen, args=(heard.append, stop, answered.append, 0.05))
    thread.start()
    source = cluster.owner(part.slot)
    target = next(server for server in cluster.primaries() if server is not source)
    try:
        until(lambda: "" in heard, what="the connection")
        purge(other, key(1))
        until(lambda: f"purge {store.part_of(key(1))}" in heard, what="the purge")
        assert other.parts[other.part_of(key(1))].publish("x") >= 1
        until(lambda: "x" in heard, what="the message")
        until(lambda: answered, what="an answered PING")
        del heard[:]
        cluster.move(part.slot, target)
        until(lambda: "" in heard, what="a connection")
        until(lambda: part.link.name.endswith(str(target.port)), what="the connection to the new owner")
        there = opened(cluster.url).parts[store.part_of(key(1))]
        until(lambda: there.publish("there") > 0 and "there" in heard, what="a message from there")
    finally:
        stop.set()
        thread.join(PATIENCE)
        cluster.move(part.slot, source)
    assert not thread.is_alive()


def test_what_is_valid_is_judged_by_the_buckets_own_journal(cluster):
    store = opened(cluster.url)
    first, second = key_in(store, 3), key_in(store, 4)
    early = entry(store, first)
    store.parts[4].append([Purge(Kind.URL, "p/elsewhere")], 1.0)
    assert store.set(first, early, time.time() + 60)
    assert isinstance(store.get([first])[0][0], Entry)
    index = follower()
    index.follow(store.parts[4].purges_since(None))
    assert index.verdict(store.mark_of(first), second, ()) is Verdict.HARD, "another journal"
