"""What each operation of a cache costs its store: counted with real servers, beside docs/scaling.md.

The pages have `BODY` bytes; what is sent or received is told without them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _measure import table
from _servers import Missing, lmdb_directory, redis_cluster, redis_server
from _wire import Tally, counted_lmdb, counted_redis

from wsgicache import WSGICache
from wsgicache.history import EVERY
from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.heartbeat import Heartbeat
from wsgicache.stores.near import near_store
from wsgicache.testing import FakeClock, ask

BODY = 10_000
WARM = range(100)
"""Pages enough to have used every bucket of a Cluster."""

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "scaling.md"
_ROW = re.compile(r"\| (?P<store>[a-z+ ]+) \| (?P<what>[^|]+?) \| (?P<numbers>[\d,|* ]+) \|$")


@dataclass(frozen=True)
class Cost:
    """Round trips, bytes sent and received beside the body."""

    trips: int
    sent: int
    received: int

    def like(self, other: Cost) -> bool:
        """The same number of trips, and bytes but for the digits of a few numbers."""
        close = [
            abs(mine - theirs) <= 12 + 0.03 * theirs
            for mine, theirs in ((self.sent, other.sent), (self.received, other.received))
        ]
        return self.trips == other.trips and all(close)


Costs = dict[tuple[str, str], Cost]


class QuietHeart(Heartbeat):
    """A heartbeat that beats when it is told to."""

    def start(self) -> None:
        self.started = True


def page(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """A page of `BODY` bytes; below /no one that must not be stored."""
    fields = [("Content-Type", "text/html"), ("Content-Length", str(BODY))]
    if environ["PATH_INFO"].startswith("/no"):
        fields.append(("Cache-Control", "no-store"))
    start_response("200 OK", fields)
    return [b"x" * BODY]


class Worker:
    """One worker's cache on a store, with a clock that is turned by hand."""

    def __init__(self, url: str, near: bool, clock: FakeClock) -> None:
        store: Any = open_store(url, StoreOptions(timeout=5.0, memo_bytes=0 if near else 16_000_000))
        if near:
            store = near_store(store, clock=clock, steady=clock, heart=QuietHeart)
        self.cache = WSGICache(page, store, clock=clock)
        self.heart: Any = store._heartbeat if near else None

    def told(self, *paths: str) -> None:
        """Follow what the messages of these purges tell of: where a store has parts, those that they name."""
        part_of_path = getattr(self.cache.store, "part_of_path", None)
        self.heart.beat(None if part_of_path is None else frozenset([part_of_path(path) for path in paths]))

    def get(self, path: str, wanted: str) -> None:
        """Ask for a page, which must be the hit or miss that it is counted as."""
        status = ask(self.cache, path).field("Cache-Status") or ""
        if wanted not in status:
            raise RuntimeError(f"{path} should have been {wanted}: {status}")


def steps(url: str, near: bool) -> Iterator[tuple[str, Callable[[], object], int]]:
    """What is counted, in order: its name (empty: only done), how, the bodies that go over the wire."""
    now = time.time()  # the server counts down by its own clock
    clock = FakeClock(now - now % EVERY + 1.2345678)  # no line of the history falls due on the way
    both = one, other = Worker(url, near, clock), Worker(url, near, clock)
    for path in ("/a", "/no/0"):  # the scripts are loaded, the connections open
        yield "", lambda path=path: one.get(path, "uri-miss"), 0  # type: ignore[misc]
    yield "", lambda: [one.cache.purge_groups("0"), ask(one.cache, "/a"), clock.tick(15)], 0
    yield "", lambda: one.get("/z", "uri-miss"), 0
    if near:
        yield "", one.heart.beat, 0
    yield "begin", lambda: other.get("/a", "; hit"), 1
    if near:
        yield "", other.heart.beat, 0
    yield "", lambda: [worker.get(f"/w/{worker is one}/{n}", "uri-miss") for n in WARM for worker in both], 0
    yield "", lambda: other.get("/z", "; hit"), 0
    yield "hit", lambda: other.get("/z", "; hit"), 0
    yield "", lambda: one.get("/b", "uri-miss"), 0
    yield "hit, unknown here", lambda: other.get("/b", "; hit"), 1
    yield "miss", lambda: other.get("/c", "uri-miss"), 1
    yield "miss, not stored", lambda: other.get("/no/1", "uri-miss"), 0
    yield "miss, marked", lambda: other.get("/no/1", "uri-miss"), 0
    # The journal of the page that is then asked for moves, but no purge covers it.
    first, *others = [f"/p/{n:03}" if near else f"/b?{n:03}" for n in range(1, 102)]
    yield "purge", lambda: one.cache.purge(first), 0
    if near:
        yield "beat, 1 purge", lambda: other.told(first), 0
    else:
        yield "hit, 1 purge", lambda: other.get("/b", "; hit"), 0
    yield "", lambda: [one.cache.purge(url) for url in others], 0
    if near:
        yield "beat, 100 purges", lambda: other.told(*others), 0
        yield "beat", other.heart.beat, 0
        yield "", lambda: clock.tick(2), 0
        yield "beat, register", other.heart.beat, 0
    else:
        yield "hit, 100 purges", lambda: other.get("/b", "; hit"), 0
    yield "", lambda: [clock.tick(15), other.get("/d", "uri-miss")], 0
    yield "", lambda: clock.tick(15), 0
    yield "miss, counters", lambda: other.get("/e", "uri-miss"), 1
    yield "purge, group", lambda: one.cache.purge_groups("group"), 0
    other.cache.close()
    one.cache.close()


def count(name: str, url: str, tally: Tally, near: bool) -> Costs:
    """Count every step over one store."""
    found: Costs = {}
    for what, do, bodies in steps(url, near):
        before = tally.copy()
        do()
        done = tally.minus(before)
        if what:
            moved = BODY * bodies if done.sent + done.received > BODY else 0
            sent = done.sent - (moved if "miss" in what else 0)
            received = done.received - (0 if "miss" in what else moved)
            found[name, what] = Cost(done.trips, sent, received)
    return found


STORES = {
    "redis": (redis_server, counted_redis),
    "cluster": (redis_cluster, counted_redis),
    "lmdb": (lmdb_directory, counted_lmdb),
}


def count_all(only: list[str] | None = None) -> tuple[Costs, list[str]]:
    """Count every step over every store, and name what is not installed."""
    found: Costs = {}
    missing: list[str] = []
    for name, (server, counted) in STORES.items():
        if only and name not in only:
            continue
        try:
            for near in (False, True):
                with ExitStack() as stack:
                    url = stack.enter_context(server())
                    tally = stack.enter_context(counted())
                    found |= count(f"{name} near" if near else name, url, tally, near)
        except Missing as error:
            missing.append(str(error))
    return found, missing


def expected(document: Path = DOCUMENT) -> Costs:
    """What the document says: rows `| store | operation | trips | sent | received |`."""
    told: Costs = {}
    for line in document.read_text(encoding="utf-8").splitlines():
        row = _ROW.match(line)
        if row is not None:
            numbers = [int(word.replace(",", "")) for word in row["numbers"].split("|")]
            if len(numbers) == 3:
                told[row["store"], row["what"]] = Cost(*numbers)
    return told


def as_markdown(found: Costs) -> str:
    """The rows of the document."""
    lines = ["| store | operation | round trips | sent | received |", "| --- | --- | ---: | ---: | ---: |"]
    for (store, what), cost in found.items():
        lines.append(f"| {store} | {what} | {cost.trips} | {cost.sent:,} | {cost.received:,} |")
    return "\n".join(lines)


def compare(found: Costs, told: Costs) -> tuple[str, list[str]]:
    """A table of both, and what differs or is in one of them only."""
    rows, wrong = [], []
    stores = {store for store, _ in found}
    for key in [*found, *[key for key in told if key not in found and key[0] in stores]]:
        mine, theirs = found.get(key), told.get(key)
        agree = mine is not None and theirs is not None and mine.like(theirs)
        if not agree:
            wrong.append(f"{' '.join(key)}: the document says {theirs}, counted was {mine}")
        rows.append([", ".join(key), *_cells(theirs), *_cells(mine), "" if agree else "DIFFERS"])
    head = ["operation", "trips", "sent", "received", "counted", "sent", "received", ""]
    return table(head, rows), wrong


def _cells(cost: Cost | None) -> list[str]:
    return ["-"] * 3 if cost is None else [str(cost.trips), f"{cost.sent:,}", f"{cost.received:,}"]
