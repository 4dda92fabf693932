"""The plots of docs/performance.md, drawn from the JSON of the benchmarks. Needs matplotlib.

The background is transparent and every colour has contrast on white and on near-black, so that one picture
serves light and dark pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot, ticker

INK = "#7d838c"
OURS, APP, OTHERS, SLOW = "#3b82f6", "#94a3b8", "#e08a1e", "#c2587a"
STYLE = {
    "svg.hashsalt": "wsgicache",  # the same numbers give the same file
    "svg.fonttype": "path",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def bars(
    path: Path,
    labels: Sequence[str],
    values: Sequence[float],
    colors: Sequence[str],
    *,
    title: str,
    log: bool = False,
    legend: Sequence[tuple[str, str]] = (),
    text: str = "{:,.0f}",
) -> None:
    """Draw horizontal bars, the first on top, each with its value."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.6, 0.9 + 0.24 * len(labels) + 0.3 * bool(legend)))
        axes.barh(range(len(labels)), values, color=colors, height=0.72)
        axes.set_yticks(range(len(labels)), labels)
        axes.invert_yaxis()
        if log:
            axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,g}"))
        for number, value in enumerate(values):
            axes.annotate(
                text.format(value),
                (value, number),
                (3, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.margins(x=0.12, y=0.01)
        axes.set_title(title, loc="left", fontsize=10)
        for name, color in legend:
            axes.barh([0], [0], color=color, label=name)
        if legend:
            below = {"loc": "upper left", "bbox_to_anchor": (0, -24 / (24 * len(labels)) - 0.02)}
            axes.legend(**below, ncols=len(legend), fontsize=8, borderaxespad=0, columnspacing=1.2)
        _save(figure, path)


def lines(
    path: Path, series: dict[str, tuple[Sequence[float], Sequence[float], str]], title: str, y: str
) -> None:
    """Draw lines over a logarithmic count of entries, from zero."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7.6, 2.8))
        for name, (xs, ys, color) in series.items():
            axes.plot(xs, ys, marker="o", markersize=4, color=color, label=name)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("entries in the store")
        axes.set_ylabel(y)
        axes.set_title(title, loc="left", fontsize=10)
        axes.legend(fontsize=8)
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    figure.tight_layout()
    figure.savefig(path, transparent=True, bbox_inches="tight", pad_inches=0.05, metadata={"Date": None})
    pyplot.close(figure)


# --- one function a picture ------------------------------------------------------------------------


def over_http(found: dict[str, Any], path: Path) -> None:
    """Requests per second by server: the bare app, a hit, the proxies, the other caches."""
    colors = {"bare": APP, "fields": APP, "hit": OURS, "compiled": OURS, "lmdb": OURS, "proxy": OTHERS}
    rows = list(found["rows"].values())
    bars(
        path,
        [row["label"] for row in rows],
        [row["median_rps"] for row in rows],
        [colors.get(row["site"], SLOW) for row in rows],
        title="Requests per second, one core for the server",
        legend=[
            ("bare app", APP),
            ("wsgicache", OURS),
            ("other Python caches", SLOW),
            ("nginx, Varnish", OTHERS),
        ],
    )


def in_process(found: dict[str, Any], path: Path) -> None:
    """Microseconds of the app and of answers with and without a cache."""
    shown = {
        "bare": APP,
        "hit": OURS,
        "hit-vary": OURS,
        "hit-304": OURS,
        "miss": OURS,
        "bypass-query": OURS,
        "flask-caching": SLOW,
        "before-after": SLOW,
        "django": SLOW,
        "flask": APP,
    }
    rows = {key: found["rows"][key] for key in shown if key in found["rows"]}
    bars(
        path,
        [row["label"] for row in rows.values()],
        [row["median_us"] for row in rows.values()],
        [shown[key] for key in rows],
        title="µs per request inside the process (logarithmic)",
        log=True,
        text="{:,.2f}",
        legend=[("no cache", APP), ("wsgicache", OURS), ("other Python caches", SLOW)],
    )


def entries(found: dict[str, Any], path: Path) -> None:
    """What a hit costs among 100 to 1,000,000 entries, and a look-up in a plain dict."""
    series = {}
    for kind, name, color in (("hit", "wsgicache: a hit", OURS), ("dict", "a plain dict: a look-up", APP)):
        points = {int(key.partition("-")[2]): value for key, value in found["hits_us"].items() if kind in key}
        series[name] = (list(points), list(points.values()), color)
    lines(path, series, "A hit among many entries, asked for in random order", "µs")


def stampede(found: dict[str, Any], path: Path) -> None:
    """How often a view ran when all clients came at once to an expired page."""
    clients = found["settings"]["clients"]
    rows = [row for row in found["rows"] if row["kind"] == "plain"]
    bars(
        path,
        [row["label"].partition(": expired")[0] for row in rows],
        [max(row["runs"]) for row in rows],
        [OURS if "wsgicache" in row["site"] else APP if row["site"] == "bare" else SLOW for row in rows],
        title=f"Runs of the view when {clients} clients find a page expired (worst round)",
    )


PICTURES = {
    "overhttp": ("performance-http.svg", over_http),
    "inprocess": ("performance-inprocess.svg", in_process),
    "memory": ("performance-entries.svg", entries),
    "stampede": ("performance-stampede.svg", stampede),
}
