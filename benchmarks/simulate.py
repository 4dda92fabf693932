"""Checks the arithmetic of docs/scaling.md: what operations cost a store, what a site of many workers does.

    python benchmarks/simulate.py                    # all of it, a minute or more
    python benchmarks/simulate.py --quick --only sites   # no server needed
    python benchmarks/simulate.py --only sizes --figure docs/scaling.png

1. `counts`: round trips and bytes of each operation, counted with real servers, beside the document's table.
2. `journal`: what the purge journal costs a worker and a server in time and memory.
3. `sites`: real caches in virtual time, beside the closed formulas.
4. `sizes`: the three deployments of the document, by the formulas.

Ends with status 1 where what is counted or simulated differs from what is expected by more than is allowed.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from _counts import DOCUMENT, as_markdown, compare, count_all, expected
from _formulas import LIMIT, Site, rates
from _journalcosts import report as journal_report
from _measure import describe, table, versions
from _sizes import DEPLOYMENTS, TABLES, figure, markdown, text
from _virtual import Seen, VirtualSite

PARTS = ("counts", "journal", "sites", "sizes")
HIT_RATIO_WITHIN = 0.01
RATES_WITHIN = 0.1
FLOOR = 0.3
"""Events a second by which rare ones may differ."""


@dataclass(frozen=True)
class Scene:
    """A site that is simulated, and for how long: before it is watched, and while it is."""

    name: str
    site: Site
    before: float
    watched: float
    lost: float = 0.0


def scenes(quick: bool) -> Iterator[Scene]:
    """The sites; what is small stands for something larger in the same proportions.

    Pages that were stored together expire together: each site is watched for whole lifetimes.
    """
    fewer = 8 if quick else 1
    vm, ten, hundred = [
        scaled(site, factor) for site, factor in zip(DEPLOYMENTS.values(), (4, 40, 400), strict=True)
    ]
    if quick:
        vm, ten, hundred = [replace(site, ttl=30.0, max_age=10.0) for site in (vm, ten, hundred)]
    yield Scene("one VM, 1:4", vm, 1.3 * vm.ttl, 2 * vm.ttl)
    yield Scene("ten servers, 1:40", ten, ten.ttl, ten.ttl)
    yield Scene(
        "ten servers, 1:40, messages lost",
        replace(ten, purges=4.0, catalogue=50),
        1.3 * ten.ttl,
        120 / fewer,
        lost=1.0,
    )
    yield Scene("hundred servers, one bucket, 1:400", replace(hundred, buckets=1), hundred.ttl, hundred.ttl)
    base = Site(40, 2, 2000, ttl=300 // fewer, journal=2048 // fewer)
    for faster, label in ((100, "100"), (300, "300"), (1000, "1,000"))[2 * quick :]:
        purges = faster / (LIMIT / 2048)
        yield Scene(
            f"journal full, {label} purges/s, 1:32", replace(base, purges=purges), 500 / fewer, 500 / fewer
        )
    yield Scene(
        "journal full, purged again",
        replace(base, purges=20.0, catalogue=3 * base.journal),
        400 / fewer,
        400 / fewer,
    )
    yield Scene(
        "journal not full", replace(base, purges=20.0, catalogue=base.journal), 400 / fewer, 400 / fewer
    )
    if not quick:
        yield Scene("journal full, 1,000 purges/s", Site(40, 2, 500, purges=1000.0), 90, 70)


def scaled(site: Site, factor: float) -> Site:
    """A site with so many times fewer of everything; what each worker does stays the same."""
    return replace(
        site,
        requests=site.requests / factor,
        workers=max(1, round(site.workers / factor)),
        pages=round(site.pages / factor),
        purges=site.purges / factor,
        catalogue=site.catalogue if math.isinf(site.catalogue) else round(site.catalogue / factor),
    )


@dataclass
class Row:
    """One number, expected and seen, and how far apart they may be."""

    what: str
    expected: float
    seen: float
    within: float

    @property
    def agrees(self) -> bool:
        return abs(self.seen - self.expected) <= self.within


def judge(scene: Scene, seen: Seen) -> Iterator[Row]:
    """What the formulas say of a scene beside what was seen in it."""
    site, told = scene.site, rates(scene.site)
    noise = 3 * math.sqrt(told.hit_ratio * (1 - told.hit_ratio) / seen.requests)
    yield Row("hit ratio", told.hit_ratio, seen.hit_ratio, HIT_RATIO_WITHIN + noise)

    def rate(what: str, expect: float, found: float, within: float = RATES_WITHIN) -> Row:
        noise = 4 * math.sqrt(max(expect, found) / seen.seconds)
        return Row(what, expect, found, within * expect + min(noise, 0.3 * expect) + FLOOR)

    yield rate("forwards/s", told.origin, seen.origin / seen.seconds)
    asked = seen.per_second("get") + seen.per_second("confirm") - 2 * seen.origin / seen.seconds
    yield rate("hits that ask the store/s", told.fetched + told.vain, asked)
    if scene.lost == 0:
        yield rate("followed/s", told.followed, seen.per_second("since"))
        yield rate("marks of near tiers/s", told.beats, seen.per_second("beats"))
    yield rate("records/s", told.records, seen.per_second("records"))
    trips = 6 - site.near
    expect = told.fetched + told.vain + trips * told.origin + told.beats + told.followed + site.purges
    if scene.lost == 0:
        yield rate("round trips/s", expect, seen.trips / seen.seconds)
    yield Row("stale after a purge, s", 0.0, seen.oldest, site.bound if site.near else 0.0)


def simulate(quick: bool, seed: int) -> list[str]:
    """Every scene; what does not agree."""
    rows: list[list[str]] = []
    wrong: list[str] = []
    logging.getLogger("wsgicache").setLevel(logging.ERROR)  # one scene is a store that is down
    for scene in scenes(quick):
        virtual = VirtualSite(scene.site, seed, lost=scene.lost)
        virtual.run(scene.before)
        for row in judge(scene, virtual.run(scene.watched)):
            rows.append(_shown(scene.name, row))
            if not row.agrees:
                wrong.append(f"{scene.name}, {row.what}: {row.expected:.3f} expected, {row.seen:.3f} seen")
    for name, row in [*troubles(quick, seed), *idle(quick, seed)]:
        rows.append(_shown(name, row))
        if not row.agrees:
            wrong.append(f"{name}, {row.what}: {row.expected:.3f} expected, {row.seen:.3f} seen")
    print(table(["site", "", "formula", "simulated", "may differ by", ""], rows))
    return wrong


def _shown(name: str, row: Row) -> list[str]:
    numbers = [f"{number:,.3f}" for number in (row.expected, row.seen, row.within)]
    return [name, row.what, *numbers, "" if row.agrees else "DIFFERS"]


def troubles(quick: bool, seed: int) -> Iterator[tuple[str, Row]]:
    """A store that goes away and comes back, and workers that all begin anew."""
    site = Site(40, 2, 500, ttl=30.0 if quick else 120.0, purges=0.5, catalogue=500, near=True)
    virtual = VirtualSite(site, seed)
    virtual.run(40 if quick else 200)
    before = virtual.run(20 if quick else 200)
    virtual.restart()
    after = virtual.run(10)
    noise = 4 * math.sqrt(site.requests * 10) / 10
    usual = before.origin / before.seconds
    yield "all workers begin anew", Row("forwards/s, the next 10 s", usual, after.origin / 10, noise)
    yield "all workers begin anew", Row("whole journals", site.workers, float(after.calls["whole"]), 0.0)
    virtual.server.down = True
    first, rest = virtual.run(site.bound), virtual.run(20)
    yield (
        "store down",
        Row("forwards of all requests, after the bound", 1.0, rest.origin / rest.requests, 0.0),
    )
    yield "store down", Row("stale after a purge, s", 0.0, max(first.oldest, rest.oldest), site.bound)
    virtual.server.down = False
    again = virtual.run(10)
    yield "store up again", Row("forwards/s, the next 10 s", usual, again.origin / 10, 2 * noise)


def idle(quick: bool, seed: int) -> Iterator[tuple[str, Row]]:
    """A worker that is asked seldom while many URLs are purged: it fetches the whole journal."""
    site = Site(0.2, 2, 50, purges=20.0, journal=512)
    virtual = VirtualSite(site, seed)
    virtual.run(100)
    seen = virtual.run(1000 if quick else 6000)
    each = site.requests / site.workers
    expect = math.exp(-each * site.journal / site.purges)
    within = 4 * math.sqrt(expect / seen.requests) + 0.02
    yield (
        "asked seldom",
        Row("requests that fetch all of it", expect, seen.calls["whole"] / seen.requests, within),
    )


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller sites, seconds instead of minutes")
    parser.add_argument("--only", type=lambda text: text.split(","), default=list(PARTS), metavar="PART,...")
    parser.add_argument("--stores", type=lambda text: text.split(","), help="count over these only")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--table", action="store_true", help="print what was counted, and the sizes, as the document has them"
    )
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the expected counts stand")
    parser.add_argument("--figure", type=Path, metavar="FILE", help="draw the figure of the document")
    options = parser.parse_args(arguments)
    unknown = set(options.only) - set(PARTS)
    if unknown:
        parser.error(f"--only {','.join(sorted(unknown))}: the parts are {', '.join(PARTS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 1 where something differs."""
    options = parse(arguments)
    wrong: list[str] = []
    start = time.monotonic()
    print(describe(versions("redis", "lmdb")))
    if "counts" in options.only:
        found, missing = count_all(options.stores)
        shown, differs = compare(found, expected(options.document))
        print(f"\nwhat one operation costs\n\n{shown}")
        for what in missing:
            print(f"skipped, not installed: {what}")
        if options.table:
            print(f"\n{as_markdown(found)}")
        wrong += differs
    if "journal" in options.only:
        shown, differs = journal_report(5_000 if options.quick else LIMIT, server=True)
        print(f"\n{shown}")
        wrong += differs
    if "sites" in options.only:
        print("\nsites in virtual time\n")
        wrong += simulate(options.quick, options.seed)
    if "sizes" in options.only:
        for title, rows in TABLES.items():
            print(f"\n{title}\n\n{(markdown if options.table else text)(rows())}")
    if options.figure:
        figure(options.figure)
    print(f"\n{time.monotonic() - start:.0f} s; {len(wrong)} of what was expected differs")
    for line in wrong:
        print(f"  {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
