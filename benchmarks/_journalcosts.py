"""What the purge journal costs beside round trips: time and memory, in a worker and in the server."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

from _counts import QuietHeart
from _measure import table
from _servers import Missing, lmdb_directory, redis_server
from _wire import counted_redis

from wsgicache.codec import decode_purge, encode_purge
from wsgicache.journal import Journal, Kind, Purge, PurgeIndex, Record, Snapshot
from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.near import near_store

BATCH = 500
PAGE = 1000
"""Records in one answer of the server."""


def purges(number: int) -> list[Purge]:
    """As many URLs, each a target of 40 characters."""
    return [Purge(Kind.URL, f"p/section/of/the/site/article-{place:010}") for place in range(number)]


def index_costs(number: int) -> list[list[str]]:
    """An index that takes so many records: time and memory of each, and of a verdict afterwards."""
    journal = Journal(number)
    journal.append(purges(number), 0.0)
    stored = [(str(record.seq), encode_purge(Purge(*record[1:4]))) for record in journal.since(None).records]

    def read() -> Snapshot:
        records = [Record(int(seq), *decode_purge(raw), 0.0, "") for seq, raw in stored]
        return Snapshot(journal.mark, 0, records, whole=True)

    snapshot = read()
    start = time.process_time()
    PurgeIndex().follow(snapshot)
    followed = (time.process_time() - start) / number
    del snapshot
    tracemalloc.start()
    index = PurgeIndex()
    index.follow(read())
    taken = tracemalloc.get_traced_memory()[0] / number
    tracemalloc.stop()
    return [
        ["worker: a record into the index", f"{followed * 1e6:.2f} µs"],
        ["worker: a record in the index", f"{taken:.0f} bytes"],
        ["worker: the whole index", f"{taken * len(index) / 1e6:.1f} MB"],
    ]


def _used(client: Any) -> tuple[float, int]:
    cpu, memory = client.info("cpu"), client.info("memory")
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], memory["used_memory"]


def server_costs(number: int) -> tuple[list[list[str]], list[str]]:
    """The same in Redis, and a worker that fetches all of it; with what is not as the document says."""
    import redis

    wrong: list[str] = []
    with redis_server() as url, redis.Redis.from_url(url) as client, counted_redis() as tally:
        store = open_store(url, StoreOptions(timeout=5.0))
        many = purges(number)
        store.append(many[:1], 0.0)
        cpu, memory = _used(client)
        for start in range(0, number, BATCH):
            store.append(many[start : start + BATCH], 0.0)
        cpu, memory = _used(client)[0] - cpu, _used(client)[1] - memory
        rows = [
            ["server: a purge, in batches", f"{cpu / number * 1e6:.1f} µs"],
            ["server: a purge in memory", f"{memory / number:.0f} bytes"],
        ]
        before, began, spent = tally.copy(), _used(client)[0], time.process_time()
        snapshot = store.purges_since(None)
        spent, done = time.process_time() - spent, tally.minus(before)
        cpu = _used(client)[0] - began
        rows += [
            ["whole journal: round trips", str(done.trips)],
            ["whole journal: bytes of a record", f"{done.received / number:.0f}"],
            ["whole journal: the worker, for each record", f"{spent / number * 1e6:.1f} µs"],
            ["whole journal: the server, for each record", f"{cpu / number * 1e6:.1f} µs"],
        ]
        pages = number // PAGE + 1
        evals = done.commands["EVALSHA"]
        if len(snapshot.records) != number or evals != pages:
            wrong.append(
                f"a whole journal of {number} is {pages} pages: {evals}, {len(snapshot.records)} records"
            )
        rows += _commands(store, client)
        store.close()
    return rows, wrong


def file_costs(number: int) -> list[list[str]]:
    """The same in an LMDB file, where the worker does it all itself."""
    with lmdb_directory() as url:
        store = open_store(url.replace("64MB", "1GB"), StoreOptions())
        many = purges(number)
        for start in range(0, number, BATCH):
            store.append(many[start : start + BATCH], 0.0)
        start_at = time.process_time()
        for place in range(300):
            store.append([Purge(Kind.URL, f"p/one/{place}")], 0.0)
        one = (time.process_time() - start_at) / 300
        start_at = time.process_time()
        store.purges_since(None)
        whole = (time.process_time() - start_at) / number
        store.close()
    return [
        ["LMDB: one purge", f"{one * 1e6:.0f} µs"],
        ["LMDB, whole journal: for each record", f"{whole * 1e6:.1f} µs"],
    ]


def _commands(store: Any, client: Any) -> list[list[str]]:
    """Time of the server for single commands, its reading and writing included."""
    rows = []

    def timed(what: str, do: Callable[[int], object], repeat: int = 400) -> None:
        before = _used(client)[0]
        for number in range(repeat):
            do(number)
        rows.append([f"server: {what}", f"{(_used(client)[0] - before) / repeat * 1e6:.0f} µs"])

    timed("a mark", lambda number: store.mark_of(""))
    timed("one purge", lambda number: store.append([Purge(Kind.URL, f"p/one/{number}")], 0.0))
    timed("asked for records, none came", lambda number: store.purges_since(store._seen[1]))
    rows.append(["server: a message to one worker", f"{_message(store, client, 50, 400):.1f} µs"])
    rows.append(["worker: a beat that brings one purge", f"{_beat(store, 400):.0f} µs"])
    return rows


def _message(store: Any, client: Any, listeners: int, repeat: int) -> float:
    """What a message costs the server for each worker that listens, µs."""

    def publish() -> float:
        before = _used(client)[0]
        for _ in range(repeat):
            store.publish("purge")
        return _used(client)[0] - before

    with ExitStack() as stack:
        alone = publish()
        for _ in range(listeners):
            ear = stack.enter_context(closing(client.pubsub()))
            ear.subscribe(store._channel)
            ear.parse_response()
        return (publish() - alone) / repeat / listeners * 1e6


def _beat(store: Any, repeat: int) -> float:
    """What a worker with a near tier spends on one purge that it is told of, µs."""
    near: Any = near_store(store, heart=QuietHeart)
    near.get([])
    near._heartbeat.beat()
    other = open_store(store.link.name, StoreOptions(timeout=5.0))
    spent = 0.0
    for number in range(repeat):
        other.append([Purge(Kind.URL, f"p/beat/{number}")], 0.0)
        before = time.process_time()
        near._heartbeat.beat()
        spent += time.process_time() - before
    other.close()
    return spent / repeat * 1e6


def report(number: int, *, server: bool) -> tuple[str, list[str]]:
    """The table, and what is wrong."""
    rows, wrong = index_costs(number), []
    if server:
        try:
            more, wrong = server_costs(number)
            rows += more
            rows += file_costs(number)
        except Missing as error:
            rows.append([f"skipped, not installed: {error}", ""])
    return table([f"a journal of {number:,} targets of 40 characters", ""], rows), wrong
