"""A site in virtual time: real caches, near tiers, journals and indexes; only the wire and the clock are not.

Each worker is a `WSGICache` of its own on one `SharedServer`. Requests, purges and beats are events in the
order of their instants; a request takes no time, so that nothing is collapsed.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from _counts import QuietHeart
from _formulas import Site, zipf

from wsgicache import WSGICache
from wsgicache.entry import Stored
from wsgicache.journal import Kind, Mark, Purge, Snapshot
from wsgicache.stores.heartbeat import AT_ONCE, PAUSE
from wsgicache.stores.near import near_store
from wsgicache.stores.pace import Pace
from wsgicache.testing import FakeClock, SharedServer, SharedStore, make_environ

HEARD_AFTER = 0.001
"""Seconds from a purge to the beat that its message causes."""


class CountedStore(SharedStore):
    """A way to the server that counts what goes over it."""

    def __init__(self, server: SharedServer, memo_bytes: int, calls: Counter[str]) -> None:
        super().__init__(server, memo_bytes)
        self._calls = calls

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        self._calls["get"] += 1
        for key in keys:
            row = self.server.rows.get(key)
            self._calls["body bytes"] += 0 if row is None else len(row[0])
        return super().get(keys)

    def confirm(self, slot: Any) -> bytes | None:
        self._calls["confirm"] += 1
        return super().confirm(slot)

    def mark_of(self, key: str) -> Mark:
        self._calls["mark"] += 1
        return super().mark_of(key)

    def purges_since(self, mark: Mark | None) -> Snapshot:
        self._calls["since"] += 1
        snapshot = super().purges_since(mark)
        self._calls["records"] += len(snapshot.records)
        self._calls["whole"] += snapshot.whole
        return snapshot

    def namespaced(self, namespace: str) -> SharedStore:
        return self if not namespace else super().namespaced(namespace)


@dataclass
class Seen:
    """What happened while it was watched."""

    seconds: float
    requests: int = 0
    origin: int = 0
    stale: int = 0
    """Answers older than a purge that had returned."""
    oldest: float = 0.0
    """The longest time after a purge at which such an answer was given."""
    calls: Counter[str] = field(default_factory=Counter)
    trips: int = 0
    held: int = 0
    """Copies in the near tier of the first worker at the end."""

    @property
    def hit_ratio(self) -> float:
        return 1 - self.origin / self.requests

    def per_second(self, call: str) -> float:
        return self.calls[call] / self.seconds


class VirtualSite:
    """Workers, visitors and editors.

    Args:
        site: traffic and settings.
        seed: of every draw.
        body: bytes of a page.
        memo_bytes: see the option; without a near tier.
        near_bytes: the size of each near tier.
        lost: the share of messages of purges that do not arrive.
    """

    def __init__(
        self,
        site: Site,
        seed: int = 1,
        body: int = 300,
        memo_bytes: int = 100_000_000,
        near_bytes: int = 100_000_000,
        lost: float = 0.0,
    ) -> None:
        self.site = site
        self.clock = FakeClock(1_000_000.0)
        self.server = SharedServer(site.journal)
        self.seen = Seen(0.0)
        self._calls: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._cumulated = list(accumulate(zipf(site.pages, site.alpha)))
        self._paths = [f"/p/{number}" for number in range(site.pages)]
        self._environs = [make_environ(path) for path in self._paths]
        self._versions: Counter[str] = Counter()
        self._purged_at: dict[str, float] = {}
        self._padding = b"." * body
        self._sizes = memo_bytes, near_bytes
        self._lost = lost
        self._order = 0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self.workers = [self._worker() for _ in range(site.workers)]
        self._paces = [Pace(PAUSE, AT_ONCE) for _ in self.workers]
        self._told: set[int] = set()
        """Workers that wait for the turn of the beat that a message causes."""
        self._purges = 0
        if site.purges:
            self._at(self._dice.expovariate(site.purges), self._purge)
        for number in range(site.workers if site.near else 0):
            self._at(site.bound / 3 * (number + 1) / site.workers, lambda number=number: self._beat(number))  # type: ignore[misc]

    def _worker(self) -> WSGICache:
        memo_bytes, near_bytes = self._sizes
        store: Any = CountedStore(self.server, 0 if self.site.near else memo_bytes, self._calls)
        if self.site.near:
            store = near_store(
                store, near_bytes, bound=self.site.bound, max_age=self.site.max_age,
                clock=self.clock, steady=self.clock, heart=QuietHeart,
            )  # fmt: skip
        return WSGICache(self._app, store, clock=self.clock, ttl=self.site.ttl)

    def _app(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        self.seen.origin += 1
        body = b"%d %s" % (self._versions[environ["PATH_INFO"]], self._padding)
        start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
        return [body]

    # --- events ------------------------------------------------------------------------------------

    def _at(self, after: float, do: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._events, (self.clock() + after, self._order, do))

    def _purge(self) -> None:
        """An editor changes a page, then purges it; not while the store is down, where that would raise."""
        site = self.site
        self._at(self._dice.expovariate(site.purges), self._purge)
        if self.server.down:
            return
        self._purges += 1
        if site.catalogue == float("inf"):
            path = f"/elsewhere/{self._purges}"
        else:
            path = f"/p/{self._dice.randrange(int(site.catalogue))}"
            self._versions[path] += 1
            self._purged_at[path] = self.clock()
        self.server.trips += 1
        self.server.journal.append([Purge(Kind.URL, f"p{path}")], self.clock())
        for number in range(site.workers if site.near else 0):
            if self._dice.random() >= self._lost:
                self._at(HEARD_AFTER, lambda number=number: self._heard(number))  # type: ignore[misc]

    def _beat(self, number: int) -> None:
        self._at(self.site.bound / 3, lambda: self._beat(number))
        self._follow(number)

    def _heard(self, number: int) -> None:
        """A message arrives: a beat when it may be, for all that have arrived by then."""
        if number not in self._told:
            self._told.add(number)
            self._at(self._paces[number].turn(self.clock()), lambda: self._follow(number))

    def _follow(self, number: int) -> None:
        self._told.discard(number)
        self._calls["beats"] += 1
        store: Any = self.workers[number].store
        store._heartbeat.beat()

    def restart(self) -> None:
        """All workers end, and others begin with nothing in their memory."""
        self.workers = [self._worker() for _ in self.workers]

    # --- time --------------------------------------------------------------------------------------

    def run(self, seconds: float) -> Seen:
        """Let time pass; what was seen meanwhile."""
        site, dice, now = self.site, self._dice, self.clock
        self._calls.clear()
        self.seen = seen = Seen(seconds)
        trips, end = self.server.trips, now() + seconds
        arrival = now() + dice.expovariate(site.requests)
        while True:
            due = self._events[0][0] if self._events else end
            at = min(arrival, due, end)
            now.tick(at - now())
            if at >= end:
                break
            if at == arrival:
                self._request()
                arrival = now() + dice.expovariate(site.requests)
            else:
                heapq.heappop(self._events)[2]()
        seen.trips = self.server.trips - trips
        seen.calls = Counter(self._calls)
        store: Any = self.workers[0].store
        seen.held = len(store._copies) if site.near else 0
        return seen

    def _request(self) -> None:
        self.seen.requests += 1
        dice = self._dice
        number = min(bisect(self._cumulated, dice.random()), len(self._paths) - 1)
        worker = self.workers[int(dice.random() * len(self.workers))]
        answer = worker(dict(self._environs[number]), _start_response)
        body = b"".join(answer)
        close = getattr(answer, "close", None)
        if close is not None:
            close()
        path = self._paths[number]
        if int(body[: body.index(b" ")]) != self._versions[path]:
            self.seen.stale += 1
            self.seen.oldest = max(self.seen.oldest, self.clock() - self._purged_at[path])


def _start_response(status: str, headers: object, exc_info: object = None) -> Callable[[bytes], object]:
    return lambda data: None
