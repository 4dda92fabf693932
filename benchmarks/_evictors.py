"""What `eviction.py` compares: the project's stores, and the textbook's ways to make room, by bytes.

Each of them answers whether it has a page, and stores one that it has not. All count the same bytes.
"""

from __future__ import annotations

import heapq
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from tempfile import TemporaryDirectory
from typing import Protocol

from _traces import Page

from wsgicache.entry import Entry
from wsgicache.stores import Store, StoreOptions, open_store
from wsgicache.stores.sieve import Sieve, Slot


class Evictor(Protocol):
    """Something that keeps pages within so many bytes."""

    def get(self, page: Page) -> bool:
        """Whether it has the page; asking for it counts."""
        ...

    def put(self, page: Page) -> None:
        """Store it, or store it anew."""
        ...


class Lru:
    """Who was asked for longest ago leaves."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[Page, None] = OrderedDict()
        self._bytes = 0

    def get(self, page: Page) -> bool:
        if page not in self._held:
            return False
        self._held.move_to_end(page)
        return True

    def put(self, page: Page) -> None:
        if page in self._held:
            self._held.move_to_end(page)
        elif page.cost <= self._max_bytes // 2:
            while self._bytes + page.cost > self._max_bytes:
                self._bytes -= self._held.popitem(last=False)[0].cost
            self._held[page] = None
            self._bytes += page.cost


class Fifo(Lru):
    """Who was stored longest ago leaves."""

    def get(self, page: Page) -> bool:
        return page in self._held


class PlainSieve:
    """SIEVE alone (Zhang et al., NSDI 2024), with one budget for everything."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._queue = Sieve()
        self._slots: dict[str, Slot] = {}

    def get(self, page: Page) -> bool:
        slot = self._slots.get(page.key)
        if slot is not None:
            slot.visited = True
        return slot is not None

    def put(self, page: Page) -> None:
        old = self._slots.pop(page.key, None)
        if old is not None:
            self._queue.remove(old)
        if page.cost > self._max_bytes // 2:
            return
        while self._queue.bytes + page.cost > self._max_bytes:
            gone = self._queue.evict()
            if gone is None:
                break
            del self._slots[gone.key]
        slot = self._slots[page.key] = Slot(self._slots, page.key, page.entry, page.cost, 0)
        self._queue.add(slot)


class Ours:
    """A store of the project's, driven through its interface."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._mark = store.mark_of("")

    def get(self, page: Page) -> bool:
        return self.store.get([page.key])[0][0] is not None

    def put(self, page: Page) -> None:
        entry = page.entry
        if entry.born != self._mark:
            entry = Entry(
                entry.key, entry.terms, entry.headers, entry.body, entry.since, entry.fresh_until, self._mark
            )
        self.store.set(page.key, entry, time.time() + 3600)


class Best:
    """Who is asked for again last leaves, and who never is does not enter (Belady): one has to see ahead.

    Nothing does better where all pages are of one size; where they are not, something could, a little.
    """

    def __init__(self, max_bytes: int, requests: Sequence[Page]) -> None:
        self._max_bytes = max_bytes
        self._next = next_requests(requests)
        self._turn = -1
        self._held: dict[Page, int] = {}
        self._queue: list[tuple[int, int, Page]] = []
        self._bytes = 0

    def get(self, page: Page) -> bool:
        self._turn += 1
        if page not in self._held:
            return False
        self._note(page)
        return True

    def put(self, page: Page) -> None:
        if self._next[self._turn] < len(self._next) and page.cost <= self._max_bytes // 2:
            self._bytes += page.cost
            self._note(page)
            while self._bytes > self._max_bytes:
                after, _, last = heapq.heappop(self._queue)
                if self._held.get(last) == -after:
                    del self._held[last]
                    self._bytes -= last.cost

    def _note(self, page: Page) -> None:
        after = self._held[page] = self._next[self._turn]
        heapq.heappush(self._queue, (-after, self._turn, page))


def next_requests(requests: Sequence[Page]) -> list[int]:
    """For each request, the place of the next one for the same page; their number where there is none."""
    places: dict[Page, int] = {}
    found = [len(requests)] * len(requests)
    for turn in range(len(requests) - 1, -1, -1):
        found[turn] = places.get(requests[turn], len(requests))
        places[requests[turn]] = turn
    return found


def memory(max_bytes: int) -> Ours:
    return Ours(open_store(f"memory://?max_bytes={max_bytes}"))


def lmdb(max_bytes: int) -> Ours:
    """Return a store in a file that goes when it is closed. The file is for all that `max_bytes` says."""
    directory = TemporaryDirectory(prefix="wsgicache-eviction-")
    store = open_store(f"lmdb://{directory.name}/cache?max_bytes={max_bytes}", StoreOptions())
    made = Ours(store)
    made.directory = directory  # type: ignore[attr-defined]  # it lives as long as the store does
    return made


EVICTORS: dict[str, tuple[str, Callable[[int], Evictor]]] = {
    "fifo": ("FIFO", Fifo),
    "lru": ("LRU", Lru),
    "sieve": ("SIEVE", PlainSieve),
    "memory": ("memory", memory),
}
