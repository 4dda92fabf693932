"""The made parts of docs/performance.md: tables from the JSON of the benchmarks, between markers.

    <!-- begin NAME: made by benchmarks/all.py -->
    <!-- end NAME -->

What stands around them is written by hand; a block whose benchmark has not run stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Found = dict[str, dict[str, Any]]
"""The JSON of each benchmark, by its name."""


class Unmarked(Exception):
    """The page lacks the markers of a block, or has unknown ones."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown: the first column to the left, numbers to the right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def machine(found: Found) -> str:
    """Processor, kernel, versions."""
    named: dict[str, str] = {}
    for one in found.values():
        named.update({name: version for name, version in one["versions"].items() if version != "-"})
    some = found.get("overhttp") or next(iter(found.values()))
    cores = f", {some['cores']} cores" if "cores" in some else ""
    what = ", ".join(f"{name} {version}" for name, version in named.items())
    return f"{some['cpu']}{cores}; {what}."


def over_http(found: Found) -> str:
    one = found["overhttp"]
    rows = [
        [
            row["label"],
            f"{row['median_rps']:,.0f}",
            f"{row['quartiles_rps'][0]:,.0f}-{row['quartiles_rps'][1]:,.0f}",
            _ratio(row["to_bare"]),
            _ratio(row["to_nginx"]),
            _ratio(row["to_varnish"]),
            f"{row['cpu_us']:.1f}",
            f"{row['busy']:.0%}",
        ]
        for row in one["rows"].values()
    ]
    head = ["", "requests/s", "quartiles", "x bare", "x nginx", "x Varnish", "CPU µs", "busy"]
    return table(head, rows)


def in_process(found: Found) -> str:
    rows = [
        [row["label"], f"{row['median_us']:.2f}", f"{row['spread_us']:.2f}", f"{row['over_bare_us']:.2f}"]
        for row in found["inprocess"]["rows"].values()
    ]
    return table(["", "µs", "±", "over the bare app"], rows)


def compiled(found: Found) -> str:
    """The rows of wsgicache, as Python and compiled."""
    plain, built = found["inprocess"]["rows"], found["compiled"]["rows"]
    rows = []
    for key, row in built.items():
        if key in plain and key.partition("-")[0] in OWN:
            one, other = plain[key]["over_bare_us"], row["over_bare_us"]
            rows.append([row["label"], f"{one:.2f}", f"{other:.2f}", f"{one / other:.2f}"])
    return table(["over the bare app, µs", "Python", "compiled", "times"], rows)


OWN = ("hit", "miss", "revalidate", "bypass")
"""How the keys of our own rows begin."""


def flask_cached(found: Found) -> str:
    rows = [
        [
            f"`{row['hit'].partition(',')[0]}`,{row['hit'].partition(',')[2]}: {row['backend']}",
            f"{row['theirs_us']:.2f}",
            f"{row['ours_us']:.2f}",
            f"{row['ratio']:.2f}",
        ]
        for row in found["flask_cached"]["rows"]
    ]
    return table(["a hit of", "Flask-Caching, µs", "wsgicache.flask, µs", "ratio"], rows)


def stores(found: Found) -> str:
    rows = [
        [row["label"], f"{row['median_us']:.2f}", f"{row['spread_us']:.2f}", f"{row['over_bare_us']:.2f}"]
        for row in found["stores"]["rows"].values()
    ]
    return table(["", "µs", "±", "over the bare app"], rows)


def memory(found: Found) -> str:
    one = found["memory"]
    beside = table(
        ["bytes beside the body, per entry", "bytes"],
        [
            ["measured, as stored", f"{one['stored_beside_body_bytes']:.0f}"],
            ["measured, each asked for twice", f"{one['asked_beside_body_bytes']:.0f}"],
            ["by the store's own count", f"{one['accounted_beside_body_bytes']:.0f}"],
        ],
    )
    counts = [int(key.partition("-")[2]) for key in one["hits_us"] if key.startswith("hit-")]
    rows = [
        [f"{count:,}", f"{one['hits_us'][f'hit-{count}']:.2f}", f"{one['hits_us'][f'dict-{count}']:.2f}"]
        for count in counts
    ]
    how = f"{one['entries']:,} entries with bodies of {one['body_bytes']:,} bytes."
    return f"{how}\n\n{beside}\n\n{table(['entries', 'a hit, µs', 'a plain dict, µs'], rows)}"


def stampede(found: Found) -> str:
    one = found["stampede"]
    settings = one["settings"]
    rows = [
        [
            row["label"],
            ", ".join(map(str, sorted(set(row["runs"])))),
            f"{row['p50_ms']:.1f}",
            f"{row['p99_ms']:.1f}",
        ]
        for row in one["rows"]
    ]
    how = (
        f"{settings['clients']} clients at once, a view of {settings['view_seconds'] * 1000:.0f} ms, "
        f"{settings['processes']} processes of {settings['threads']} threads, {settings['rounds']} rounds."
    )
    return f"{how}\n\n{table(['', 'view runs', 'p50 ms', 'p99 ms'], rows)}"


def startup(found: Found) -> str:
    rows = [
        [row["label"], f"{row['median_ms']:.0f}", f"{row['over_python_ms']:.0f}"]
        for row in found["startup"]["rows"].values()
    ]
    return table(["a process that runs", "ms", "over bare Python"], rows)


def judged(found: Found) -> list[tuple[bool, str, str]]:
    """All goals that were judged: met, which, what was found."""
    goals = []
    for name, one in found.items():
        for goal in one.get("goals", ()):
            if name in ("inprocess", "compiled"):
                told = f"{goal['row']}: {goal['ratio']:.2f} of what is wanted"
            elif name == "stores":
                told = f"{goal['over']:.2f} µs"
            elif name == "overhttp":
                told = f"{goal['row']}: {goal['ratio']:.3f}"
            else:
                told = goal["found"]
            if name == "compiled":
                told += ", compiled"
            goals.append((goal["met"], goal["goal"], told))
    return sorted(goals, key=lambda one: one[1].partition(" ")[0])


def goals(found: Found) -> str:
    rows = [
        [" ".join(goal.split()), told, "met" if met else "**not met**"] for met, goal, told in judged(found)
    ]
    return table(["goal", "found", ""], rows)


BLOCKS: dict[str, tuple[str, Callable[[Found], str]]] = {
    "machine": ("", machine),
    "goals": ("", goals),
    "overhttp": ("overhttp", over_http),
    "inprocess": ("inprocess", in_process),
    "compiled": ("compiled", compiled),
    "stores": ("stores", stores),
    "flask_cached": ("flask_cached", flask_cached),
    "memory": ("memory", memory),
    "stampede": ("stampede", stampede),
    "startup": ("startup", startup),
}
"""By name: the benchmark that a block needs (none: any), and what makes it."""

BESIDE = {"compiled": ("inprocess",)}
"""What some blocks are compared with."""

_BLOCK = re.compile(r"(<!-- begin (\w+): made by benchmarks/all\.py -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def fill(page: str, found: Found) -> str:
    """Return the page with the blocks of those benchmarks that have run made anew.

    Raises:
        Unmarked: the page has not exactly the markers of `BLOCKS`.
    """
    marked = [match[2] for match in _BLOCK.finditer(page)]
    if sorted(marked) != sorted(BLOCKS):
        raise Unmarked(f"the page has the blocks {', '.join(marked)}; expected {', '.join(BLOCKS)}")

    def made(match: re.Match[str]) -> str:
        needed, make = BLOCKS[match[2]]
        if not found or (needed and not {needed, *BESIDE.get(needed, ())} <= found.keys()):
            return match[0]
        return f"{match[1]}\n{make(found)}\n\n{match[3]}"

    return _BLOCK.sub(made, page)
