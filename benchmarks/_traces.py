"""Traces for `eviction.py`: who asks for which page, in which order. Made up from a seed, or an access log.

A page is made once and asked for many times. What it costs in a store is what the memory store counts for it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate, count, islice
from pathlib import Path
from random import Random

from wsgicache.entry import Entry, Terms
from wsgicache.journal import Mark
from wsgicache.stores.memory import _SLOT_BYTES

SEED = 20
LARGEST = 1 << 20  # the default of `max_body_bytes`
OK = Terms("200 OK", "f", 300, "ttl")
MISSING = Terms("404 Not Found", "f", 300, "ttl", negative=True)
HEAD = (("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "12345"))
NEVER = Mark("", 0, "")


@dataclass(eq=False, slots=True)
class Page:
    """A page, as a store gets it, and what it costs, in bytes."""

    key: str
    entry: Entry
    cost: int


@dataclass
class Trace:
    """Requests in their order.

    `lifetime`: after so many requests what was stored is stale, and a request for it stores it anew.
    """

    key: str
    label: str
    requests: list[Page]
    lifetime: int | None = None

    @property
    def footprint(self) -> int:
        """What all pages together cost, in bytes."""
        return sum(page.cost for page in set(self.requests))

    @property
    def once(self) -> float:
        """The share of pages that are asked for once and never again."""
        counts = Counter(self.requests)
        return sum(times == 1 for times in counts.values()) / max(1, len(counts))


class Maker:
    """Makes pages. Bodies of equal length are one object: a store counts each, this process has one.

    Lengths are rounded to 2 % for that.
    """

    def __init__(self) -> None:
        self._bodies: dict[int, bytes] = {}
        self.random = Random(SEED)

    def page(self, path: str, size: int, *, missing: bool = False) -> Page:
        """Return a page with a body of about `size` bytes; `missing`: a 404."""
        step = max(1, size // 50)
        size = size // step * step
        body = self._bodies.setdefault(size, b"." * size)
        key = f"{path}\0\0example.org\0https"
        entry = Entry(key, MISSING if missing else OK, HEAD, body, 0.0, 300.0, NEVER)
        return Page(key, entry, entry.size() + _SLOT_BYTES)

    def size(self) -> int:
        """Return a size as web pages have it: most are small, few are large (log-normal, median 9 KB)."""
        return int(min(1_000_000, max(300, self.random.lognormvariate(9.1, 1.2))))

    def site(self, number: int, size: int | None = None, under: str = "page") -> list[Page]:
        """Return so many pages, of web sizes, or all of one size."""
        return [
            self.page(f"/{under}/{place:06}", self.size() if size is None else size)
            for place in range(number)
        ]

    def fresh(self, under: str, *, missing: bool = False) -> Iterator[Page]:
        """Return pages that nobody has asked for before, without end."""
        for place in count():
            size = 400 if missing else self.size()
            yield self.page(f"/{under}/{place:08}", size, missing=missing)

    def zipf(self, pages: list[Page], alpha: float) -> Iterator[Page]:
        """Return requests, without end: the n-th page is asked for n**alpha times less than the first."""
        weights = list(accumulate([1 / place**alpha for place in range(1, len(pages) + 1)]))
        while True:
            yield from self.random.choices(pages, cum_weights=weights, k=1000)

    def mix(self, share: float, some: Iterator[Page], others: Iterator[Page]) -> Iterator[Page]:
        """Return requests, without end, of which `share` are from `some`."""
        while True:
            yield next(some if self.random.random() < share else others)


# --- made up ------------------------------------------------------------------------------------


def zipf(alpha: float, number: int) -> Trace:
    """Everybody's choices are independent, and never change; all pages are of one size."""
    maker = Maker()
    requests = maker.zipf(maker.site(number // 8, 10_000), alpha)
    return Trace(f"zipf-{alpha}", f"Zipf {alpha}, equal sizes", list(islice(requests, number)))


def web(number: int) -> Trace:
    maker = Maker()
    requests = maker.zipf(maker.site(number // 8), 0.9)
    return Trace("web", "Zipf 0.9, web sizes", list(islice(requests, number)))


def wonders(number: int) -> Trace:
    """A fifth of the requests is for pages that are asked for once: two thirds or so of all pages."""
    maker = Maker()
    requests = maker.mix(0.2, maker.fresh("once"), maker.zipf(maker.site(number // 8), 0.9))
    return Trace("wonders", "many one-hit wonders", list(islice(requests, number)))


def crawl(number: int) -> Trace:
    """Four times a crawler walks the whole site, as fast as the visitors ask."""
    maker = Maker()
    site = maker.site(number // 8)
    visitors = maker.zipf(site, 0.9)

    def requests() -> Iterator[Page]:
        while True:
            yield from islice(visitors, number // 8)
            for page in maker.random.sample(site, len(site)):
                yield page
                yield from islice(visitors, maker.random.randrange(2))

    return Trace("crawl", "a crawler walks the site", list(islice(requests(), number)))


def loop(number: int) -> Trace:
    """Every other request is of a program that asks for the same pages in the same order, again and again."""
    maker = Maker()
    pages = maker.site(number // 40, 10_000, "feed")

    def again() -> Iterator[Page]:
        while True:
            yield from pages

    requests = maker.mix(0.5, again(), maker.zipf(maker.site(number // 16, 10_000), 0.9))
    return Trace("loop", "a loop beside visitors", list(islice(requests, number)))


def drift(number: int) -> Trace:
    """Now and then two pages change places in popularity: in the end half of them or so stand elsewhere."""
    maker = Maker()
    ranked = maker.site(number // 8)
    places = list(range(len(ranked)))
    weights = list(accumulate([1 / (place + 1) for place in places]))
    requests = []
    for _ in range(number):
        requests.append(ranked[maker.random.choices(places, cum_weights=weights)[0]])
        if maker.random.random() < 0.04:
            one, other = maker.random.choice(places), maker.random.choice(places)
            ranked[one], ranked[other] = ranked[other], ranked[one]
    return Trace("drift", "popularity drifts", requests)


def fashion(number: int) -> Trace:
    """What is popular is so for a few hundred requests, then not at all: hardest for who spares it."""
    maker = Maker()
    site = maker.site(number // 8)
    place = {page: rank for rank, page in enumerate(site)}
    requests = []
    for turn, page in enumerate(islice(maker.zipf(site, 1.0), number)):
        requests.append(site[(place[page] + turn // 4) % len(site)])
    return Trace("fashion", "everything is soon forgotten", requests)


def news(number: int) -> Trace:
    """Articles appear all the time and are asked for while they are new; the rest is the archive."""
    maker = Maker()
    articles = maker.site(number // 20)
    archive = maker.zipf(maker.site(number // 40, under="archive"), 0.7)
    requests = []
    for turn in range(number):
        newest = turn * len(articles) // number
        age = int(maker.random.expovariate(1 / 60))
        requests.append(
            articles[newest - age] if age <= newest and maker.random.random() < 0.7 else next(archive)
        )
    return Trace("news", "news and an archive", requests)


def expiring(number: int) -> Trace:
    """What was stored is stale after a tenth of the requests; one-hit wonders come by as well."""
    maker = Maker()
    requests = maker.mix(0.2, maker.fresh("once"), maker.zipf(maker.site(number // 8), 0.9))
    return Trace("expiring", "pages expire", list(islice(requests, number)), lifetime=number // 10)


def scanner(number: int) -> Trace:
    """Half of the requests are somebody's who tries names: each a 404 of its own."""
    maker = Maker()
    tried = maker.fresh("wp-admin", missing=True)
    missed = maker.zipf([maker.page(f"/favicon-{n}.ico", 400, missing=True) for n in range(20)], 0.9)
    asked = maker.mix(0.05, missed, maker.zipf(maker.site(number // 16), 0.9))
    return Trace("scanner", "a flood of 404s", list(islice(maker.mix(0.5, tried, asked), number)))


MADE_UP: dict[str, Callable[[int], Trace]] = {
    "zipf-0.7": lambda number: zipf(0.7, number),
    "zipf-1.1": lambda number: zipf(1.1, number),
    "web": web,
    "wonders": wonders,
    "crawl": crawl,
    "loop": loop,
    "drift": drift,
    "fashion": fashion,
    "news": news,
    "expiring": expiring,
    "scanner": scanner,
}


# --- taken from life ----------------------------------------------------------------------------

LINE = re.compile(r'^\S+ \S+ .*?\[[^]]*\] "(?:GET|HEAD) (\S+)[^"]*" (\d{3}) (\d+|-)', re.ASCII)


def access_log(path: Path) -> Trace:
    """Read a log in the Common Log Format, or one that begins like it (Combined).

    GET and HEAD with status 200, 404, 410 or 304 count, a page has the size of its largest answer, and what
    is larger than `max_body_bytes` allows is left out.

    Raises:
        SystemExit: no line can be read so.
    """
    lines: list[tuple[str, bool]] = []
    sizes: dict[tuple[str, bool], int] = {}
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        read = LINE.match(text)
        if read is None or read[2] not in ("200", "304", "404", "410"):
            continue
        asked = read[1], read[2] in ("404", "410")
        lines.append(asked)
        sizes[asked] = max(sizes.get(asked, 0), 0 if read[3] == "-" else int(read[3]))
    if not lines:
        raise SystemExit(f'{path}: no GET in the Common Log Format: host - - [time] "GET /a HTTP/1.1" 200 12')
    maker = Maker()
    pages = {
        asked: maker.page(asked[0], size, missing=asked[1])
        for asked, size in sizes.items()
        if size <= LARGEST
    }
    requests = [pages[asked] for asked in lines if sizes[asked] <= LARGEST]
    return Trace("log", f"access log {path.name}", requests)
