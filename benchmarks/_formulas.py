"""The arithmetic of docs/scaling.md: what follows from traffic, lifetimes and purges by formula alone.

A `Site` is traffic and settings; `rates` is what follows from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

LIMIT = 65_536
"""`journal`, by default: targets."""

SLOTS = 4
"""Slots of the table of dropped purges, for each target of `journal`."""

STEPS = 200
"""Of integrals."""

BEATS = 3
"""Marks that a near tier reads within its bound."""

PAUSE = 0.025
"""Seconds between two beats of a near tier that messages cause, but for the first two."""


@dataclass(frozen=True)
class Site:
    """A deployment. Times in seconds, sizes in bytes, rates per second."""

    requests: float
    workers: int
    pages: int
    alpha: float = 0.9
    ttl: float = 300.0
    purges: float = 0.0
    catalogue: float = math.inf
    """URLs that purges are spread over, evenly; the pages are the first of them. Infinite: none is a page."""
    journal: int = LIMIT
    near: bool = False
    bound: float = 1.0
    max_age: float = 60.0
    buckets: int = 1
    primaries: int = 1
    """Servers that the buckets lie on, evenly."""
    round_trip: float = 0.0
    """Of the network."""


def zipf(pages: int, alpha: float) -> list[float]:
    """The share of each page, the most asked for first."""
    weights = [rank**-alpha for rank in range(1, pages + 1)]
    total = sum(weights)
    return [weight / total for weight in weights]


@dataclass(frozen=True)
class Pages:
    """Pages that are asked for alike: the rank of the first, how many, the share of each."""

    rank: int
    count: int
    share: float


@cache
def spread(pages: int, alpha: float) -> tuple[Pages, ...]:
    """All pages by their shares: each of the first hundred alone, of the others those within 2 % together."""
    groups, first = [], 1
    while first <= pages:
        last = first if first < 100 else min(pages, first + first // 50)
        count = last - first + 1
        groups.append((first - 1, count, sum([rank**-alpha for rank in range(first, last + 1)]) / count))
        first = last + 1
    total = sum([count * weight for _, count, weight in groups])
    return tuple([Pages(rank, count, weight / total) for rank, count, weight in groups])


def history(site: Site) -> float:
    """Seconds for which the journal remembers one by one what is purged.

    Of several purges of one target it keeps the last, so it is the time in which more than L different ones
    are purged: L/P where none is purged twice, never where there are no more than L at all. Each bucket keeps
    L of its own, and takes its share of the purges.
    """
    kept = site.journal * site.buckets
    if site.purges == 0 or site.catalogue <= kept:
        return math.inf
    if math.isinf(site.catalogue):
        return kept / site.purges
    return -site.catalogue / site.purges * math.log(1 - kept / site.catalogue)


def survival(site: Site, age: float) -> float:
    """The chance that what was dropped from the journal does not end a page of this age, that nobody purged.

    Each purge that was dropped since it was stored is in one slot of a table, and ends the pages of that.
    Where the same URLs are purged again and again, the same slots are taken.
    """
    kept, slots = site.journal * site.buckets, SLOTS * site.journal * site.buckets
    after = age - history(site)
    if after <= 0:
        return 1.0
    if math.isinf(site.catalogue):
        return math.exp(-site.purges * after / slots)
    dropped = site.purges * (1 - kept / site.catalogue) / site.catalogue  # of each URL, a second
    return math.exp(site.catalogue / slots * math.expm1(-dropped * after))


def lifetime(site: Site, rank: int = 0) -> float:
    """Seconds for which a page that is stored may be a hit, on average: its own time, or until it is purged
    itself, or falls into a slot with something that was."""
    return _lifetime(site, purged(site, rank))


@cache
def _lifetime(site: Site, rate: float) -> float:
    sure = min(site.ttl, history(site))
    life = sure if rate == 0 else -math.expm1(-rate * sure) / rate
    step = (site.ttl - sure) / STEPS
    ages = [sure + step * (number + 0.5) for number in range(STEPS)] if step else []
    return life + step * sum([math.exp(-rate * age) * survival(site, age) for age in ages])


def purged(site: Site, rank: int) -> float:
    """How often a second a page is purged: those that are asked for most are in the catalogue."""
    return site.purges / site.catalogue if rank < site.catalogue else 0.0


def ended_by_journal(site: Site, rank: int) -> float:
    """The share of a page's lives that a purge ends, its own or one that was dropped, not its lifetime."""
    return 1 - survival(site, site.ttl) * math.exp(-purged(site, rank) * site.ttl)


@dataclass(frozen=True)
class Rates:
    """What a site does per second."""

    hit_ratio: float
    origin: float
    copies: float
    """Hits that a worker's near tier answered."""
    fetched: float
    """Hits for which the store was asked."""
    vain: float
    """Requests that ask twice, because the worker held a page that a purge, or the floor, had ended."""
    followed: float
    """Times that some worker fetched records of the journal."""
    records: float
    """Records fetched."""
    beats: float
    """Marks read by near tiers."""
    marks_asked: float
    """Times that they ask a server for marks: for those of all its buckets together."""
    records_asked: float
    """Times that workers ask a server for records, near tiers for those of all its buckets together."""


def rates(site: Site) -> Rates:
    """Everything that the page tells of a site, from these formulas."""
    origin = fetched = vain = 0.0
    for alike in spread(site.pages, site.alpha):
        rank, asked = alike.rank, site.requests * alike.share
        life = lifetime(site, rank)
        cycles = alike.count * asked / (1 + asked * life)  # a fill, its life, the wait for the next request
        origin += cycles
        if site.near:
            fetched += cycles * _fetches(asked / site.workers, life, site)
        else:
            held_by = -math.expm1(-asked / site.workers * life)
            after = held_by * (1 + (site.workers - 1) * held_by)  # who finds it gone, and who its successor
            vain += cycles * ended_by_journal(site, rank) * after
    hits = site.requests - origin
    if not site.near:
        fetched = hits
    if site.near:
        followed = site.workers * moved(site, heard(site.purges, PAUSE))
        beats = site.workers * site.buckets * BEATS / site.bound + followed
        servers = min(site.buckets, site.primaries)
        records_asked = site.workers * moved(replace(site, buckets=servers), heard(site.purges, PAUSE))
        marks_asked = site.workers * servers * BEATS / site.bound + records_asked
    else:  # of both, a bucket has its share
        beats = marks_asked = 0.0
        records_asked = followed = site.requests * _share(site.purges, site.requests / site.workers)
    records = site.purges * site.workers
    return Rates(
        hits / site.requests, origin, hits - fetched, fetched, vain, followed, records, beats,
        marks_asked, records_asked,
    )  # fmt: skip


def moved(site: Site, beats: float) -> float:
    """Buckets a second that so many beats of a worker find named by messages: of all purges since the last
    beat, those that lie in different ones."""
    others = 1 - 1 / site.buckets
    return beats * site.buckets * (1 - others ** (site.purges / beats)) if beats else 0.0


def heard(purges: float, pause: float) -> float:
    """Beats of a worker that messages cause: one for each purge, but for all that come within the pause.

    From one to the next it is the pause, and on until a purge comes where none came meanwhile.
    """
    return 1 / (pause + math.exp(-purges * pause) / purges) if purges else 0.0


def _share(one: float, other: float) -> float:
    """How often, of two kinds of random events, one lies between two of the other."""
    return one / (one + other) if one else 0.0


def _fetches(asked: float, life: float, site: Site) -> float:
    """How often the workers fetch a page during one life of it, where each keeps it for `max_age`."""
    others = (site.workers - 1) * renewals(asked, site.max_age, life)
    return others + renewals(asked, site.max_age, life - site.max_age)


def renewals(asked: float, kept: float, seconds: float) -> float:
    """Fetches of a worker that is asked at random, and asks nobody for a time after each: the mean number."""
    total, number = 0.0, 1
    while seconds > 0 and (chance := _reached(number, asked * seconds)) > 1e-9:
        total += chance
        seconds -= kept
        number += 1
    return total


def _reached(number: int, mean: float) -> float:
    """The chance of at least so many random events where this many are expected."""
    term = below = math.exp(-mean)
    for n in range(1, number):
        term *= mean / n
        below += term
    return 1 - below


def held(site: Site, seconds: float) -> float:
    """Pages that one worker is asked for and keeps for so long: how many it holds, on average."""
    each = site.requests / site.workers * seconds
    pages = spread(site.pages, site.alpha)
    return sum([alike.count * each * alike.share / (1 + each * alike.share) for alike in pages])


def known_share(site: Site, room: float) -> float:
    """The share of requests for pages that a worker holds, where it has room for so many.

    By Che's approximation: what was asked for within some time is there, and that time fills the room.
    """
    if room >= site.pages:
        return 1.0
    pages, low, high = spread(site.pages, site.alpha), 1e-6, 1e12
    for _ in range(60):
        middle = math.sqrt(low * high)
        if sum([-alike.count * math.expm1(-alike.share * middle) for alike in pages]) > room:
            high = middle
        else:
            low = middle
    return sum([-alike.count * alike.share * math.expm1(-alike.share * high) for alike in pages])


def after_cold(site: Site, seconds: float) -> float:
    """The hit ratio so long after everything stored was lost at once."""
    return sum([
        -alike.count * alike.share * math.expm1(-site.requests * alike.share * min(seconds, site.ttl))
        for alike in spread(site.pages, site.alpha)
    ])  # fmt: skip
