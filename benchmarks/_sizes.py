"""The three deployments of docs/scaling.md, sized by formula and counted costs, and the figure there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

from _counts import Costs, expected
from _formulas import (
    LIMIT,
    PAUSE,
    SLOTS,
    Pages,
    Rates,
    Site,
    after_cold,
    heard,
    held,
    history,
    known_share,
    lifetime,
    moved,
    rates,
    spread,
)
from _measure import table

BODY = 20_000
TARGET = 40
"""Characters of what a purge names."""

RECORD = 57 + TARGET
"""Bytes of a record on the wire, without the digits of its number."""

MESSAGE = 69
"""Bytes of a message that tells a worker of a purge."""

COPY_BESIDE = 1_200
"""Bytes of a page in a worker beside its body: head, slot, key."""

ENTRY_BESIDE = 1_500
"""Bytes of a page in a store beside its body."""

INDEX_RECORD = 150
"""Bytes of a purge in a worker's index."""

MARK_US, FOLLOW_US, PURGE_US, RECORD_US, MESSAGE_US = 10.0, 20.0, 35.0, 3.0, 1.0
"""Time of the server, µs: a hit, or marks together; asking for records, a purge, each record, a message."""

WORKER_BEAT_US, WORKER_RECORD_US = 150.0, 7.0
"""Time of a worker, µs: asking for records, and each that comes."""

MEMO = 64_000_000
"""`memo_bytes`, or `near`."""

LINK_BITS = 10e9
"""Bits a second of each server's network."""

BUSY = 0.7
"""How busy a server may be."""

TRIP = 0.0005
"""Seconds to the store and back."""

DEPLOYMENTS = {
    "one VM": Site(200, 4, 20_000, ttl=300.0, purges=0.5, catalogue=20_000, round_trip=TRIP),
    "ten servers": Site(
        5_000, 80, 200_000, ttl=600.0, purges=10.0, catalogue=200_000, near=True, round_trip=TRIP
    ),
    "a hundred": Site(
        50_000,
        800,
        2_000_000,
        ttl=600.0,
        purges=50.0,
        catalogue=2_000_000,
        buckets=16,
        primaries=8,
        round_trip=TRIP,
    ),
}
STORES = {"one VM": "lmdb", "ten servers": "redis near", "a hundred": "cluster"}
PRIMARIES = {"one VM": 0, "ten servers": 1, "a hundred": 8}


@dataclass(frozen=True)
class Size:
    """What a deployment needs, per second where it is a rate. Bytes and µs."""

    told: Rates
    trips: float
    bodies: float
    """Bytes of pages from and to the store."""
    journal: float
    """Bytes of the journal to all workers, messages and beats included."""
    server: float
    """Time of all servers together, µs."""
    stored: float
    """Bytes of all pages in the store."""
    wanted: float
    """Bytes of pages that one worker asks for within `max_age`, or within a lifetime."""
    kept: float
    """The share of its hits for which a worker's memo has room."""
    index: float
    """Bytes of a worker's index, when the journal is full or everything was purged once."""
    begin: float
    """Seconds for which all servers together are busy when all workers begin and fetch the whole journal."""


@cache
def counted() -> Costs:
    """What operations cost, from the document."""
    return expected()


@cache
def size(site: Site, store: str) -> Size:
    """Size a deployment over a store, as the document's counts name it."""
    costs = counted()
    told, miss, purge = rates(site), costs[store, "miss"], costs[store, "purge"]
    page = BODY + COPY_BESIDE
    kept = known_share(site, MEMO / page)
    fresh = sum([_first_asks(site, alike) for alike in spread(site.pages, site.alpha)])
    unknown = told.fetched if site.near else max(fresh, told.fetched * (1 - kept))
    trips = (
        told.fetched
        + told.vain
        + miss.trips * told.origin
        + told.marks_asked
        + told.records_asked
        + purge.trips * site.purges
    )
    bodies = unknown * BODY + told.origin * (BODY + miss.sent)
    pushed = site.purges * site.workers * MESSAGE if site.near else 0.0
    journal = told.records * RECORD + pushed + told.beats * 100 + told.followed * 630
    server = (told.fetched + told.vain + told.marks_asked) * MARK_US + told.origin * miss.trips * FOLLOW_US
    server += told.followed * FOLLOW_US + told.records * RECORD_US
    server += site.purges * (PURGE_US + (site.workers * MESSAGE_US if site.near else 0))
    purged = min(site.catalogue, site.journal * site.buckets)
    begin = purged * site.workers * RECORD_US / 1e6
    table = 8 * SLOTS * site.journal * site.buckets if site.catalogue > site.journal * site.buckets else 0
    asked_within = site.max_age if site.near else site.ttl
    return Size(
        told, trips, bodies, journal, server, site.pages * (BODY + ENTRY_BESIDE),
        held(site, asked_within) * page, kept, purged * INDEX_RECORD + table, begin,
    )  # fmt: skip


def _first_asks(site: Site, alike: Pages) -> float:
    """How often a second some worker asks for a page whose present version it has not seen."""
    asked, life = site.requests * alike.share, lifetime(site, alike.rank)
    seen = -math.expm1(-asked / site.workers * life)
    return alike.count * asked / (1 + asked * life) * (site.workers - 1) * seen


Rows = tuple[list[str], list[list[str]]]
"""The head of a table, and its rows."""


def size_table() -> Rows:
    """What each deployment needs."""
    sizes = {name: size(site, STORES[name]) for name, site in DEPLOYMENTS.items()}
    rows: list[list[str]] = []

    def row(what: str, show: Callable[[Size], str], *, wire: bool = False) -> None:
        rows.append(
            [what, *["-" if wire and not PRIMARIES[name] else show(one) for name, one in sizes.items()]]
        )

    row("hit ratio", lambda one: f"{one.told.hit_ratio:.3f}")
    row("forwards to the app, /s", lambda one: f"{one.told.origin:,.0f}")
    row("hits from the worker's own copies, /s", lambda one: f"{one.told.copies:,.0f}")
    row("hits that ask the store, /s", lambda one: f"{one.told.fetched:,.0f}")
    row("marks read by near tiers, /s", lambda one: f"{one.told.beats:,.0f}")
    row("records asked for, /s", lambda one: f"{one.told.followed:,.0f}")
    row("round trips or transactions, /s", lambda one: f"{one.trips:,.0f}")
    row("pages over the wire, MB/s", lambda one: f"{one.bodies / 1e6:,.1f}", wire=True)
    row("journal over the wire, MB/s", lambda one: f"{one.journal / 1e6:,.1f}", wire=True)
    row("time of all servers, cores", lambda one: f"{one.server / 1e6:,.2f}", wire=True)
    row("pages in the store, GB", lambda one: f"{one.stored / 1e9:,.1f}")
    row("pages one worker uses, MB", lambda one: f"{one.wanted / 1e6:,.0f}")
    row("share of hits that 64 MB hold", lambda one: f"{one.kept:.2f}")
    row("index of one worker, MB", lambda one: f"{one.index / 1e6:,.1f}")
    for seconds in (1, 10, 60):
        ratios = [f"{after_cold(site, seconds):.2f}" for site in DEPLOYMENTS.values()]
        rows.append([f"hit ratio {seconds} s after all was lost", *ratios])
    begins = [
        f"{one.begin / PRIMARIES[name]:,.0f}" if PRIMARIES[name] else "-" for name, one in sizes.items()
    ]  # fmt: skip
    rows.append(["each server busy when all workers begin, s", *begins])
    return ["", *sizes], rows


RATES = (0.0, 1.0, 10.0, 100.0, 1000.0)


def _choices() -> Iterator[tuple[str, Site, str]]:
    """Each deployment and its store; those on a network with near tiers and without."""
    for name, site in DEPLOYMENTS.items():
        for near in (False, True):
            if PRIMARIES[name] or near == site.near:
                yield (
                    name,
                    replace(site, near=near),
                    STORES[name].removesuffix(" near") + (" near" if near else ""),
                )


def purge_table() -> Rows:
    """What purges cost each deployment, with and without a near tier."""
    rows = []
    for name, site, store in _choices():
        for purges in RATES:
            one = size(replace(site, purges=purges), store)
            moved, cores = f"{(one.bodies + one.journal) / 1e6:,.0f}", one.server / 1e6
            worker = _beat_us(site, purges, near=site.near) + purges * WORKER_RECORD_US
            wire = [moved, f"{cores / PRIMARIES[name]:,.2f}"] if PRIMARIES[name] else ["-", "-"]
            rows.append(
                [f"{name}, {store}", f"{purges:,.0f}", f"{one.trips:,.0f}", *wire, f"{worker / 1e4:.1f} %"]
            )
    return ["", "purges/s", "round trips/s", "MB/s", "cores of each server", "of each worker's core"], rows


def _beat_us(site: Site, purges: float, *, near: bool) -> float:
    """Time that a worker spends on asking for the journal, µs a second."""
    each = site.requests / site.workers
    told = moved(replace(site, purges=purges), heard(purges, PAUSE))
    asks = told if near else each * purges / (purges + each)
    return asks * WORKER_BEAT_US


def headroom() -> Rows:
    """How many purges a second each deployment bears until its servers, or the network, have no more."""
    rows = []
    for name, site, store in _choices():
        most = "-"
        if PRIMARIES[name]:
            most = f"{_most(partial(_load, site, store, PRIMARIES[name])):,.0f}"
        rows.append([f"{name}, {store}", most, f"{site.journal * site.buckets / site.ttl:,.0f}"])
    return ["", "purges/s that the servers bear", "history shorter than the lifetime from, purges/s"], rows


def cliff() -> Rows:
    """What the journal's length leaves of the ten servers, by purge rate."""
    rows = []
    for purges in (1, 10, 100, 200, 500, 1000):
        row = [f"{purges:,}"]
        for journal in (LIMIT, 1_000_000):
            site = replace(
                DEPLOYMENTS["ten servers"], purges=float(purges), catalogue=math.inf, journal=journal
            )
            told = rates(site)
            row += [f"{history(site):,.0f} s", f"{told.hit_ratio:.3f}", f"{told.origin:,.0f}"]
        rows.append(row)
    head = [
        "purges/s",
        "history",
        "hit ratio",
        "forwards/s",
        "with journal=1000000",
        "hit ratio",
        "forwards/s",
    ]
    return head, rows


TABLES = {
    "the deployments": size_table,
    "what purges cost": purge_table,
    "how many purges they bear": headroom,
    "what the journal's length leaves": cliff,
}


def markdown(rows: Rows) -> str:
    """A table as the document has it."""
    head, body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join([f"| {' | '.join(row)} |" for row in (head, rule, *body)])


def text(rows: Rows) -> str:
    """A table for a terminal."""
    return table(*rows)


def _load(site: Site, store: str, primaries: int, purges: float) -> float:
    """The larger one of: the servers' time, and the network of each, as shares of what there is."""
    one = size(replace(site, purges=purges), store)
    return max(one.server / 1e6, (one.bodies + one.journal) * 8 / LINK_BITS) / primaries


def _most(load: Callable[[float], float]) -> float:
    low, high = 0.0, 1e5
    for _ in range(16):
        middle = math.sqrt(max(low, 0.1) * high)
        low, high = (middle, high) if load(middle) < BUSY else (low, middle)
    return low


def figure(path: Path) -> None:
    """Commands a second, and the hit ratio that is left, against the rate of purges."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "wsgicache"
    import matplotlib.pyplot as plt

    drawn, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    purges = [10 ** (step / 8) for step in range(-8, 25)]
    for name, site, store in _choices():
        if PRIMARIES[name]:
            colour, line = "C0" if name == "ten servers" else "C1", "--" if site.near else "-"
            load = [_load(site, store, PRIMARIES[name], rate) for rate in purges]
            left.plot(
                purges, load, colour + line, label=f"{name}, {'near tiers' if site.near else 'each hit asks'}"
            )
    left.axhline(1.0, color="0.5", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="purges/s", title="Load of each Redis server (1: no more)")
    left.legend(frameon=False, fontsize=9)
    site = replace(DEPLOYMENTS["ten servers"], catalogue=math.inf, near=False)
    for journal, style in ((LIMIT, "C2-"), (1_000_000, "C2--")):
        kept = [rates(replace(site, purges=rate, journal=journal)).hit_ratio for rate in purges]
        right.plot(purges, kept, style, label=f"journal={journal}")
    right.set(
        xscale="log", ylim=(0.0, 1.0), xlabel="purges/s of different URLs", title="Hit ratio, ten servers"
    )
    right.legend(frameon=False, fontsize=9)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(drawn)
