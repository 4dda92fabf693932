"""The three deployments of docs/scaling.md, sized by formula and counted costs, and the figure of the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from _counts import expected
from _formulas import LIMIT, Rates, Site, held, known_share, lifetime, rates, zipf
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

INDEX_RECORD = 215
"""Bytes of a purge in a worker's index."""

MARK_US, FOLLOW_US, PURGE_US, RECORD_US, MESSAGE_US = 10.0, 22.0, 38.0, 2.8, 2.0
"""Time of the server, µs: a mark or a hit, asking for records, a purge, each record, a message to one worker."""

WORKER_BEAT_US, WORKER_RECORD_US = 200.0, 6.0
"""Time of a worker, µs: asking for records, and each that comes."""

MEMO = 64_000_000
"""`memo_bytes`, or `near`."""

LINK_BITS = 10e9
"""Bits a second of each server's network."""

BUSY = 0.7
"""How busy a server may be."""

DEPLOYMENTS = {
    "one VM": Site(200, 4, 20_000, ttl=300.0, purges=0.5, catalogue=20_000),
    "ten servers": Site(5_000, 80, 200_000, ttl=600.0, purges=10.0, catalogue=200_000, near=True),
    "a hundred": Site(50_000, 800, 2_000_000, ttl=600.0, purges=50.0, catalogue=2_000_000, buckets=16),
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


@cache
def shares_of(pages: int, alpha: float) -> Sequence[float]:
    """See `zipf`."""
    return zipf(pages, alpha)


@cache
def size(site: Site, store: str) -> Size:
    """Size a deployment over a store, as the document's counts name it."""
    shares, costs = shares_of(site.pages, site.alpha), expected()
    told, miss, purge = rates(site, shares), costs[store, "miss"], costs[store, "purge"]
    page = BODY + COPY_BESIDE
    kept = known_share(shares, MEMO / page)
    fresh = sum([_first_asks(site, rank, share) for rank, share in enumerate(shares)])
    unknown = told.fetched if site.near else max(fresh, told.fetched * (1 - kept))
    trips = told.fetched + told.vain + miss.trips * told.origin + told.beats + told.followed + purge.trips * site.purges
    bodies = unknown * BODY + told.origin * (BODY + miss.sent)
    pushed = site.purges * site.workers * MESSAGE if site.near else 0.0
    journal = told.records * RECORD + pushed + told.beats * 100 + told.followed * 630
    server = (told.fetched + told.vain + told.beats) * MARK_US + told.origin * miss.trips * FOLLOW_US
    server += told.followed * FOLLOW_US + told.records * RECORD_US
    server += site.purges * (site.buckets * PURGE_US + (site.workers * MESSAGE_US if site.near else 0))
    purged = min(site.catalogue, site.journal) * site.buckets
    asked_within = site.max_age if site.near else site.ttl
    return Size(
        told, trips, bodies, journal, server, site.pages * (BODY + ENTRY_BESIDE),
        held(site, asked_within, shares) * page, kept, purged * INDEX_RECORD,
    )  # fmt: skip


def _first_asks(site: Site, rank: int, share: float) -> float:
    """How often a second some worker asks for a page whose present version it has not seen."""
    asked, life = site.requests * share, lifetime(site, rank)
    seen = -math.expm1(-asked / site.workers * life)
    return asked / (1 + asked * life) * (site.workers - 1) * seen


def size_table() -> str:
    """What each deployment needs."""
    sizes = {name: size(site, STORES[name]) for name, site in DEPLOYMENTS.items()}
    rows: list[list[str]] = []

    def row(what: str, show: Callable[[Size], str]) -> None:
        rows.append([what, *[show(one) for one in sizes.values()]])

    row("hit ratio", lambda one: f"{one.told.hit_ratio:.3f}")
    row("forwards to the app, /s", lambda one: f"{one.told.origin:,.0f}")
    row("hits from the worker's own copies, /s", lambda one: f"{one.told.copies:,.0f}")
    row("hits that ask the store, /s", lambda one: f"{one.told.fetched:,.0f}")
    row("marks read by near tiers, /s", lambda one: f"{one.told.beats:,.0f}")
    row("records asked for, /s", lambda one: f"{one.told.followed:,.0f}")
    row("round trips or transactions, /s", lambda one: f"{one.trips:,.0f}")
    row("pages over the wire, MB/s", lambda one: f"{one.bodies / 1e6:,.1f}")
    row("journal over the wire, MB/s", lambda one: f"{one.journal / 1e6:,.2f}")
    row("time of all servers, cores", lambda one: f"{one.server / 1e6:,.2f}")
    row("pages in the store, GB", lambda one: f"{one.stored / 1e9:,.1f}")
    row("pages one worker uses, MB", lambda one: f"{one.wanted / 1e6:,.0f}")
    row("share of hits that 64 MB hold", lambda one: f"{one.kept:.2f}")
    row("index of one worker, MB", lambda one: f"{one.index / 1e6:,.1f}")
    return table(["", *sizes], rows)


RATES = (0.0, 1.0, 10.0, 100.0, 1000.0)


def purge_table() -> str:
    """What purges cost each deployment, with and without a near tier."""
    rows = []
    for name, site in DEPLOYMENTS.items():
        for near in (False, True):
            store = STORES[name].removesuffix(" near") + (" near" if near else "")
            for purges in RATES:
                one = size(replace(site, purges=purges, near=near), store)
                cores = "-" if PRIMARIES[name] == 0 else f"{one.server / 1e6 / PRIMARIES[name]:,.2f}"
                rows.append([
                    f"{name}, {store}", f"{purges:,.0f}", f"{one.trips:,.0f}",
                    f"{(one.bodies + one.journal) / 1e6:,.1f}", cores,
                    f"{site.buckets * purges * WORKER_RECORD_US / 1e4 + _beat_us(site, purges, near=near) / 1e4:.1f} %",
                ])  # fmt: skip
    head = ["", "purges/s", "round trips/s", "MB/s", "of one core each", "a worker's core"]
    return table(head, rows)


def _beat_us(site: Site, purges: float, *, near: bool) -> float:
    """Time that a worker spends on asking for the journal, µs a second."""
    each = site.requests / site.workers
    asks = site.buckets * purges if near else each * purges / (purges + each / site.buckets)
    return asks * WORKER_BEAT_US


def headroom() -> str:
    """How many purges a second each deployment bears until its servers, or the network, have no more."""
    rows = []
    for name, site in DEPLOYMENTS.items():
        for near in (False, True):
            store = STORES[name].removesuffix(" near") + (" near" if near else "")
            if PRIMARIES[name]:
                most = _most(lambda rate, site=site, near=near, store=store, name=name: _load(site, rate, near, store, name))  # type: ignore[misc]
                rows.append([f"{name}, {store}", f"{most:,.0f}"])
            history_ends = site.journal / site.ttl
            rows.append([f"{name}, {store}: the history is shorter than a lifetime", f"{history_ends:,.0f}"])
    return table(["", "purges/s"], rows)


def _load(site: Site, purges: float, near: bool, store: str, name: str) -> float:
    """The larger one of: the servers' time, and the network of each, as shares of what there is."""
    one, primaries = size(replace(site, purges=purges, near=near), store), PRIMARIES[name]
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
    for name, near, style in (
        ("ten servers", False, "C0-"), ("ten servers", True, "C0--"),
        ("a hundred", False, "C1-"), ("a hundred", True, "C1--"),
    ):  # fmt: skip
        site, store = DEPLOYMENTS[name], STORES[name].removesuffix(" near") + (" near" if near else "")
        load = [_load(replace(site, pages=site.pages // 10), rate, near, store, name) for rate in purges]
        left.plot(purges, load, style, label=f"{name}, {'near tiers' if near else 'each hit asks'}")
    left.axhline(1.0, color="0.5", linewidth=0.8)
    left.set(xscale="log", yscale="log", xlabel="purges/s", title="Load of each Redis server (1: no more)")
    left.legend(frameon=False, fontsize=9)
    site = replace(DEPLOYMENTS["ten servers"], catalogue=math.inf, near=False)
    for journal, style in ((LIMIT, "C2-"), (1_000_000, "C2--")):
        kept = [_hit_ratio(replace(site, purges=rate, journal=journal)) for rate in purges]
        right.plot(purges, kept, style, label=f"journal={journal}")
    right.set(xscale="log", ylim=(0.0, 1.0), xlabel="purges/s of different URLs", title="Hit ratio, ten servers")
    right.legend(frameon=False, fontsize=9)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(drawn)


def _hit_ratio(site: Site) -> float:
    life, shares = lifetime(site), shares_of(site.pages, site.alpha)
    return 1 - sum([share / (1 + site.requests * share * life) for share in shares])
