"""Sentinel: a failover is a miss for a moment, never an error and never an old page."""

import threading
import time

import pytest
from redis_helpers import KEY, Clock, body_of, confirms, entry, fails, follower, opened, purge, put, served
from servers_redis import empty_sentinels, until
from tcp_proxy import TcpProxy

from wsgicache.codec import FORMAT
from wsgicache.stores import StoreError

OTHER = "/other\0\0example.com\0http"


@pytest.fixture
def sentinels():
    return empty_sentinels()


def eventually(store, clock, job):
    """Do a job as soon as the store answers; its result."""
    told = []

    def tried():
        clock.pass_pause()
        try:
            told.append(job())
        except StoreError:
            return False
        return True

    until(tried, 30, "an answer")
    return told[0]


def test_a_failover_begins_a_new_epoch(sentinels):
    store, late = opened(sentinels.url), opened(sentinels.url)
    clock = Clock(store, late)
    put(store, KEY, b"old")
    assert served(late, follower()) == b"old"
    replica = sentinels.replica
    before = store.mark_of(KEY)
    sentinels.exchange()
    assert any(b":%d:" % FORMAT in key for key in replica.ask("KEYS", "*")), "the page is there"
    assert eventually(store, clock, lambda: served(store, follower())) is None
    assert served(opened(sentinels.url), follower()) is None
    assert not confirms(late)
    after = store.mark_of(KEY)
    assert after.epoch != before.epoch
    put(store, KEY, b"new")
    assert confirms(store)
    assert served(late, follower()) == b"new"


def test_a_primary_that_is_killed(sentinels, caplog):
    """The replica may lack the last purge; nobody gets the page that it has."""
    store = opened(sentinels.url, timeout=1)
    clock = Clock(store)
    put(store, KEY, b"old")
    primary = sentinels.primary
    dead = sentinels.fail_after(lambda: purge(store))
    try:
        assert dead is primary
        told = []
        for _ in range(3):
            try:
                told.append(body_of(store))
            except StoreError:
                told.append(None)
        assert told == [None] * 3
        assert eventually(store, clock, lambda: served(store, follower())) is None
        put(store, KEY, b"new")
        purge(store, OTHER)
        assert served(store, follower()) == b"new"
    finally:
        dead.start()
        sentinels.healthy()
    names = {record.message.partition("@")[0].partition(" ")[0] for record in caplog.records}
    assert all(name.startswith("redis+sentinel://") for name in names)


def test_rds_04_readonly_is_lost_quietly_and_the_next_write_works(sentinels):
    """The old primary was made a replica under open connections."""
    store = opened(sentinels.url)
    made = put(store, KEY, b"old")
    sentinels.exchange()
    clock = Clock(store)

    def stored():
        clock.pass_pause()
        return store.set(KEY, entry(store), time.time() + 60)

    with_errors = 0
    for _ in range(3):
        try:
            if stored():
                break
        except StoreError:
            with_errors += 1
    assert with_errors <= 2
    assert body_of(store) == b"body"
    assert not store.set(KEY, made, time.time() + 60), "born in another epoch"


def test_an_open_connection_to_a_primary_that_was_demoted(sentinels):
    """Nothing closed it (a test holds it back): the write finds out, and the next one works."""
    store = opened(sentinels.url)
    put(store)
    store.link.look_at = float("inf")
    line = store.link.free[-1]
    sentinels.exchange()
    replica = sentinels.replica
    host = line.connection
    host.disconnect()
    host.host, host.port = "127.0.0.1", replica.port
    host.connect_check_health(check_health=False)
    with fails("replica|READONLY"):
        store.set(KEY, store.peek(KEY).stored, time.time() + 60)
    assert not store.link.writing.is_open
    put(store, body=b"new")
    assert body_of(store) == b"new"


def test_a_purge_finds_the_new_primary_by_itself(sentinels):
    store = opened(sentinels.url)
    put(store)
    store.link.look_at = float("inf")
    line = store.link.free[-1].connection
    sentinels.exchange()
    replica = sentinels.replica
    line.disconnect()
    line.host, line.port = "127.0.0.1", replica.port
    line.connect_check_health(check_health=False)
    mark = purge(store)
    assert store.mark_of(KEY) == mark
    assert opened(sentinels.url).mark_of(KEY) == mark


def test_connections_that_are_gone_do_not_count(sentinels):
    """A process that lives for long opens any number of them, one after the other."""
    store = opened(sentinels.url)
    for _ in range(120):
        store.link.listener().connection.disconnect()
    assert store.mark_of(KEY)


def test_closed_it_holds_no_connection(sentinels):
    store = opened(sentinels.url)
    store.mark_of(KEY)
    pools = [asked.connection_pool for asked in store.link._sentinels.sentinels]

    def held():
        return [one for pool in pools for one in pool._available_connections if one._sock is not None]

    assert held()
    store.close()
    assert not held()
    assert not store.link.free
    assert store.mark_of(KEY), "it may be used again"


def test_a_replica_is_never_read(sentinels):
    """Even where a Sentinel that is behind the times names it."""
    store = opened(sentinels.url)
    store.mark_of(KEY)
    replica = sentinels.replica
    before = replica.ask("INFO", "commandstats")
    put(store)
    for _ in range(20):
        body_of(store)
        confirms(store)
    after = replica.ask("INFO", "commandstats")
    assert before.get("cmdstat_mget") == after.get("cmdstat_mget")
    assert before.get("cmdstat_getrange") == after.get("cmdstat_getrange")


def test_a_sentinel_that_is_down_or_silent_costs_its_deadline_once(sentinels):
    ports = [sentinel.port for sentinel in sentinels.sentinels]
    with TcpProxy(ports[0]) as hole:
        hole.black_hole = True
        url = f"redis+sentinel://127.0.0.1:1,127.0.0.1:{hole.port},127.0.0.1:{ports[2]}/mymaster"
        store = opened(url, timeout=0.5)
        start = time.monotonic()
        store.mark_of(KEY)
        assert time.monotonic() - start < 6
        asked = hole.accepted
        for _ in range(20):
            store.mark_of(KEY)
        assert hole.accepted == asked


def test_no_sentinel_answers(sentinels, caplog):
    store = opened("redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster", timeout=0.5)
    with fails("No master found for 'mymaster'") as told:
        store.get([KEY])
    for message in (str(told.value), caplog.records[-1].message):
        assert "127.0.0.1:1 - " in message
        assert "127.0.0.1:2 - " in message
        assert "ConnectionError" in message
        assert len(message) < 400
        assert "Pool" not in message, "how connections are configured"
    store = opened(sentinels.url.replace("mymaster", "another"), timeout=0.5)
    with fails("No master found for 'another'"):
        store.get([KEY])


def test_requests_while_the_primary_fails_over(sentinels):
    """Readers and writers in threads: nothing but misses, and never a page from before the purge."""
    store = opened(sentinels.url, timeout=1)
    clock = Clock(store)
    put(store, KEY, b"old")
    ended = threading.Event()
    wrong, errors = [], []
    purged = threading.Event()

    def read():
        index = follower()
        while not ended.is_set():
            clock.pass_pause()
            after = purged.is_set()
            try:
                body = served(store, index)
            except StoreError:
                continue
            except BaseException as error:
                errors.append(error)
                return
            if after and body == b"old":
                wrong.append(body)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        purge(store)
        purged.set()
        sentinels.failover()
        eventually(store, clock, lambda: store.set(KEY, entry(store, body=b"new"), time.time() + 60))
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert (wrong, errors) == ([], [])
    assert served(store, follower()) == b"new"
