"""Who makes room: hit ratios of the memory store beside SIEVE, LRU and FIFO, all by bytes.

    python benchmarks/eviction.py [--only web,crawl] [--requests 40000] [--log access.log] [--lmdb]
                                  [--json FILE] [--plot FILE.svg]

The memory store is driven through its interface, and counts bytes as it does in a site. Traces are made up
from a seed; `--log` adds one of your own site. How to read it: README.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from _evictors import EVICTORS, Best, Evictor, lmdb
from _measure import describe, table, versions
from _traces import MADE_UP, Maker, Page, Trace, access_log

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.5)
"""Sizes of the cache, as shares of what all pages of a trace cost."""

SMALLEST = {"memory": 65_536, "lmdb": 4 << 20}
"""Bytes below which a store cannot be made."""

BEST = "best"
TOLERANCES = {"lru": 0.02, "fifo": 0.02, "sieve": 0.01}
"""Hit ratio by which the memory store may stay behind another, anywhere, before that counts."""

HARDEST = "fashion"
"""A trace on which LRU is known to be better; it is shown, not judged."""


@dataclass
class Curve:
    """Hit ratios of one way to make room, by share of the footprint: of requests, and of bytes."""

    requests: dict[float, float]
    bytes: dict[float, float]


@dataclass
class Run:
    """What one run has found: curves by trace and evictor, and what floods left of the popular pages."""

    traces: list[Trace]
    curves: dict[str, dict[str, Curve]]
    kept: dict[str, dict[str, float]]


def play(trace: Trace, evictor: Evictor) -> tuple[float, float]:
    """Return the hit ratio by requests, and by bytes of bodies."""
    stored_at: dict[Page, int] = {}
    lifetime = trace.lifetime or len(trace.requests) + 1
    hits = hit_bytes = all_bytes = 0
    for turn, page in enumerate(trace.requests):
        size = len(page.entry.body)
        all_bytes += size
        if evictor.get(page) and turn - stored_at[page] < lifetime:
            hits += 1
            hit_bytes += size
        else:
            evictor.put(page)
            stored_at[page] = turn
    return hits / len(trace.requests), hit_bytes / max(1, all_bytes)


def curves_of(trace: Trace, evictors: dict[str, Callable[[int], Evictor]]) -> dict[str, Curve]:
    """Play a trace to each evictor at each size that it can have."""
    footprint = trace.footprint
    found = {key: Curve({}, {}) for key in evictors}
    for key, make in evictors.items():
        if key == BEST and trace.lifetime is not None:
            continue  # it knows who is asked for, not who has expired
        for share in SHARES:
            max_bytes = int(footprint * share)
            if max_bytes < max(SMALLEST["memory"], SMALLEST.get(key, 0)):
                continue
            evictor = Best(max_bytes, trace.requests) if key == BEST else make(max_bytes)
            found[key].requests[share], found[key].bytes[share] = play(trace, evictor)
            close(evictor)
    return found


def close(evictor: Evictor) -> None:
    store = getattr(evictor, "store", None)
    if store is not None:
        store.close()


# --- floods -------------------------------------------------------------------------------------

FLOOD_BYTES = 12_000_000
"""Size of the cache: the largest page of all, of 1 MB, fits into what newcomers may take."""

FLOOD = 3


def floods(maker: Maker) -> dict[str, Callable[[], Page]]:
    """Return what comes in floods: the label, and the next page of it."""
    wonders, missing = maker.fresh("once"), maker.fresh("wp-admin", missing=True)
    return {"one-hit wonders": wonders.__next__, "404s": missing.__next__}


def kept_after(flood: str, evictor: Evictor) -> float:
    """Return the share of the popular pages that is there after a day of visitors and a night without.

    The day: visitors ask for pages of a site that is twice as large as the cache. The night: pages come by
    that cost three times what fits. The popular pages are the first that cost a quarter of it.
    """
    maker = Maker()
    site, cost = [], 0
    while cost < 2 * FLOOD_BYTES:
        site.append(maker.page(f"/page/{len(site):06}", maker.size()))
        cost += site[-1].cost
    for page in islice(maker.zipf(site, 0.9), 20 * len(site)):
        if not evictor.get(page):
            evictor.put(page)
    popular, cost = [], 0
    while cost < FLOOD_BYTES // 4:
        popular.append(site[len(popular)])
        cost += popular[-1].cost
    for page in popular:  # in the evening everybody is there
        if not evictor.get(page):
            evictor.put(page)
            evictor.get(page)
    come, passed = floods(maker)[flood], 0
    while passed < FLOOD * FLOOD_BYTES:
        page = come()
        if not evictor.get(page):
            evictor.put(page)
        passed += page.cost
    return sum(evictor.get(page) for page in popular) / len(popular)


def flood_all(evictors: dict[str, Callable[[int], Evictor]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for flood in floods(Maker()):
        found[flood] = {}
        for key, make in evictors.items():
            if key != BEST:
                evictor = make(FLOOD_BYTES)
                found[flood][key] = kept_after(flood, evictor)
                close(evictor)
    return found


# --- running and printing -----------------------------------------------------------------------


def evictors_for(options: argparse.Namespace) -> dict[str, Callable[[int], Evictor]]:
    chosen: dict[str, Callable[[int], Evictor]] = {key: make for key, (_, make) in EVICTORS.items()}
    if options.lmdb:
        chosen["lmdb"] = lmdb
    chosen[BEST] = EVICTORS["lru"][1]  # its maker needs the trace; see `curves_of`
    return chosen


def label_of(key: str) -> str:
    return EVICTORS[key][0] if key in EVICTORS else key


def run(options: argparse.Namespace) -> Run:
    """Play every trace to everybody."""
    evictors = evictors_for(options)
    traces = [MADE_UP[key](options.requests) for key in options.only]
    if options.log:
        traces.append(access_log(options.log))
    curves = {}
    for trace in traces:
        curves[trace.key] = curves_of(trace, evictors)
        print("\n" + section(trace, curves[trace.key]), flush=True)
    return Run(traces, curves, flood_all(evictors))


def section(trace: Trace, curves: dict[str, Curve]) -> str:
    """Return one trace for people: a line for each size of the cache."""
    drawn = {key: curve for key, curve in curves.items() if curve.requests}
    head = ["cache", *[label_of(key) for key in drawn], "bytes:", *[label_of(key) for key in drawn]]
    rows = []
    for share in SHARES:
        requests = [percent(curve.requests.get(share)) for curve in drawn.values()]
        if all(cell == "-" for cell in requests):
            continue
        by_bytes = [percent(curve.bytes.get(share)) for curve in drawn.values()]
        rows.append([f"{share:.1%}", *requests, "", *by_bytes])
    named = f"{trace.label}: {len(trace.requests):,} requests for {trace.footprint / 1e6:,.1f} MB"
    if not rows:
        return f"{named}: too little for any cache; ask for more requests"
    return f"{named}, {trace.once:.0%} of the pages asked for once; hits, %\n{table(head, rows)}"


def percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{100 * ratio:.1f}"


def worst(done: Run, other: str) -> tuple[float, str]:
    """Return by how much the memory store stays behind another at most, in hit ratio, and where."""
    found = [(0.0, "nowhere")]
    for trace in done.traces:
        if trace.key == HARDEST:
            continue
        ours, theirs = done.curves[trace.key]["memory"].requests, done.curves[trace.key][other].requests
        found += [
            (theirs[share] - ratio, f"{trace.label}, {share:.1%}")
            for share, ratio in ours.items()
            if share in theirs
        ]
    return max(found)


def verdicts(done: Run) -> list[dict[str, Any]]:
    """Judge what the memory store promises."""
    judged = []
    for other, tolerance in TOLERANCES.items():
        behind, where = worst(done, other)
        named = f"at no size {100 * tolerance:.0f} points behind {label_of(other)}"
        judged.append({"goal": named, "met": behind < tolerance, "found": f"{100 * behind:.1f} ({where})"})
    for flood, kept in done.kept.items():
        for key in ("memory", "lmdb") if flood == "404s" else ("memory",):
            if key in kept:
                named = f"{flood} push no popular page out of {key}"
                judged.append({"goal": named, "met": kept[key] == 1.0, "found": f"{kept[key]:.0%} stay"})
    return judged


def report(done: Run) -> str:
    """Return what is said of all traces together, for people."""
    keys = list(next(iter(done.kept.values())))
    rows = [[flood, *[percent(kept[key]) for key in keys]] for flood, kept in done.kept.items()]
    goals = [
        f"{'met    ' if goal['met'] else 'NOT met'}  {goal['goal']:52}  {goal['found']}"
        for goal in verdicts(done)
    ]
    return "\n".join(
        [
            f"\npopular pages that are there after {FLOOD} times the cache has come by, %",
            table(["", *[label_of(key) for key in keys]], rows),
            "\ngoals",
            *goals,
        ]
    )


def as_json(done: Run, found: dict[str, str]) -> dict[str, Any]:
    """Return the whole run, for machines."""
    return {
        "versions": found,
        "traces": {
            trace.key: {
                "label": trace.label,
                "requests": len(trace.requests),
                "footprint_bytes": trace.footprint,
                "asked_once": trace.once,
                "hit_ratio": {key: curve.requests for key, curve in done.curves[trace.key].items()},
                "byte_hit_ratio": {key: curve.bytes for key, curve in done.curves[trace.key].items()},
            }
            for trace in done.traces
        },
        "kept": done.kept,
        "goals": verdicts(done),
    }


STYLES = {
    "fifo": ("#8c8c8c", 1.3, "-"),
    "lru": ("#0072b2", 1.3, "-"),
    "sieve": ("#e69f00", 1.3, "-"),
    "memory": ("#c1121f", 2.2, "-"),
    "lmdb": ("#009e73", 1.3, "-"),
    BEST: ("#444444", 1.0, ":"),
}


def plot(done: Run, path: Path) -> str:
    """Draw the curves; return a line that says where, or what is missing."""
    try:
        import matplotlib
    except ImportError:
        return "no plot: matplotlib is not installed: pip install 'wsgicache[bench]'"
    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "wsgicache", "svg.fonttype": "none"}
    from matplotlib import pyplot
    from matplotlib.ticker import FuncFormatter, NullLocator

    columns = min(4, len(done.traces))
    lines = -(-len(done.traces) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(2.9 * columns, 2.4 * lines + 0.7), squeeze=False, layout="constrained"
    )
    figure.patch.set_facecolor("white")
    seen = {}
    for axis, trace in zip(axes.flat, done.traces, strict=False):
        for key, curve in done.curves[trace.key].items():
            if curve.requests:
                colour, width, dashes = STYLES[key]
                xs, ys = list(curve.requests), [100 * ratio for ratio in curve.requests.values()]
                marker = "." if len(xs) == 1 else ""
                (seen[key],) = axis.plot(xs, ys, dashes, color=colour, linewidth=width, marker=marker)
        axis.set_title(trace.label, fontsize=9)
        axis.set_xscale("log")
        axis.set_xlim(SHARES[0], SHARES[-1])
        axis.set_ylim(0, None)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axis.set_xticks([0.001, 0.01, 0.1, 0.5])
        axis.xaxis.set_minor_locator(NullLocator())
        axis.tick_params(labelsize=7)
        axis.grid(visible=True, color="#e4e4e4", linewidth=0.6)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for axis in axes.flat[len(done.traces) :]:
        axis.set_visible(False)
    names = ["memory store" if key == "memory" else label_of(key) for key in seen]
    figure.legend(
        seen.values(), names, loc="outside upper center", ncols=len(seen), frameon=False, fontsize=9
    )
    figure.supxlabel("size of the cache, of what all pages take", fontsize=9)
    figure.supylabel("hits, % of requests", fontsize=9)
    metadata = {"Date": None} if path.suffix == ".svg" else None
    figure.savefig(path, facecolor="white", dpi=110, metadata=metadata)
    pyplot.close(figure)
    return f"plot: {path}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", metavar="TRACES", help=f"some of {', '.join(MADE_UP)}; or none")
    parser.add_argument("--requests", type=int, default=40_000, help="requests of each made-up trace")
    parser.add_argument("--log", type=Path, metavar="FILE", help="an access log (Common or Combined) as well")
    parser.add_argument("--lmdb", action="store_true", help="the LMDB store as well; slow, 4 MiB at least")
    parser.add_argument(
        "--flood-bytes", type=int, default=FLOOD_BYTES, help="size of the cache in the floods"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves there: .svg or .png")
    options = parser.parse_args(arguments)
    given = list(MADE_UP) if options.only is None else options.only.split(",")
    options.only = [] if given == ["none"] else given
    unknown = [key for key in options.only if key not in MADE_UP]
    if unknown:
        parser.error(f"--only {','.join(unknown)}: choose from {', '.join(MADE_UP)}, or none")
    if options.requests < 400:
        parser.error("--requests: at least 400, or there is nothing to tell apart")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(arguments)
    found = versions("matplotlib")
    print(describe(found))
    done = run(options)
    print(report(done))
    if options.json:
        options.json.write_text(json.dumps(as_json(done, found), indent=2) + "\n", encoding="utf-8")
    if options.plot:
        print("\n" + plot(done, options.plot))
    return 0


if __name__ == "__main__":
    sys.exit(main())
