"""Real processes at once on real servers: purges, fills, leases, counters, and processes that are killed."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from servers_memcached import memcached
from test_memcached_store import entry, found, opened, put

import wsgicache
from wsgicache.journal import Kind, Purge

WORKER = Path(__file__).with_name("memcached_worker.py")


@pytest.fixture(params=[1, 3])
def servers(request):
    with memcached() as a, memcached() as b, memcached() as c:
        yield [a, b, c][: request.param]


@pytest.fixture
def store(servers):
    store = opened(*servers)
    yield store
    store.close()


def at_once(servers, *jobs):
    """Run jobs, each (job, argument) in a process of its own, all beginning together; what each told."""
    environ = {**os.environ, "PYTHONPATH": str(Path(wsgicache.__file__).parents[1])}
    addresses = [server.address for server in servers]
    running = [
        subprocess.Popen(
            [sys.executable, str(WORKER), job, *addresses, argument],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environ, text=True,
        )
        for job, argument in jobs
    ]  # fmt: skip
    try:
        for process in running:
            assert process.stdout.readline() == "ready\n"
        for process in running:
            process.stdin.write("go\n")
            process.stdin.flush()
        told = [process.communicate(timeout=60)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()
    return [json.loads(text) if text else None for text in told]


def test_no_purge_of_another_process_is_lost(servers, store):
    start = store.mark_of("")
    told = at_once(servers, *[("append", name) for name in "abc"])
    assert sorted(seq - start.seq for seqs in told for seq in seqs) == list(range(1, 301))
    records = store.purges_since(start).records
    assert [record.seq - start.seq for record in records] == list(range(1, 301))
    assert {record.target for record in records} == {f"{name} {n}" for name in "abc" for n in range(100)}


def test_nothing_is_served_that_was_purged_before_it_was_asked_for(servers, store):
    """Two processes fill and serve while a third changes the data and purges."""
    *fillers, done = at_once(servers, ("fill", "n"), ("fill", "n"), ("change", "n"))
    assert done is True
    for hits, wrong in fillers:
        assert hits > 20
        assert wrong == []


def test_a_lease_is_one_processs(servers, store):
    told = at_once(servers, *[("lease", name) for name in "abc"])
    for number in range(100):
        assert len([tokens for tokens in told if f"/{number}" in tokens]) == 1
    tokens = [token for tokens in told for token in tokens.values()]
    assert len(set(tokens)) == 100


def test_the_highest_token_is_stored_whatever_the_order(servers, store):
    at_once(servers, *[("put", name) for name in "123"])
    assert [found(store, f"/{number}") for number in range(100)] == [b"3"] * 100


def test_counters_of_all_processes_add_up(servers, store):
    at_once(servers, *[("count", name) for name in "aab"])
    assert store.counters() == {"a": 400, "b": 200, "another": 1200}


def test_con_08_a_killed_leader_costs_one_lease_at_most(servers, store):
    ((first, until),) = at_once(servers, ("die", "/a"))
    pause, deadline = threading.Event(), time.monotonic() + 20
    while (second := store.lease("/a", 60)) is None:
        assert time.monotonic() < deadline
        pause.wait(0.01)
    assert time.time() > until - 0.01  # an end is kept in milliseconds
    assert second > first
    assert put(store, body=b"second", token=second) is True
    assert store.set("/a", entry(store, body=b"late"), time.time() + 60, first) is False
    store.release("/a", first)
    assert store.lease("/a", 60) is None
    assert found(store) == b"second"


def test_con_08_a_purge_whose_writer_was_killed_stops_nobody(servers, store):
    start = store.mark_of("")
    at_once(servers, ("die_purging", "theirs"))
    assert store.mark_of("") == start
    store.append([Purge(Kind.GROUP, "ours")], 2.0)
    records = store.purges_since(start).records
    assert [(record.seq - start.seq, record.target) for record in records] == [(1, "theirs"), (2, "ours")]
