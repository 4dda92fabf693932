"""What it costs to start: importing wsgicache, and making a cache around an app.

    python benchmarks/startup.py [--rounds 21] [--json FILE]

Each sample is a Python process of its own, in interleaved rounds; what an interpreter takes that imports
nothing is taken off. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _measure import cpu_model, describe, table, versions

ROOT = Path(__file__).resolve().parent.parent
MILLI = 1e3
MAKE = "from wsgicache import WSGICache; WSGICache(lambda environ, start_response: ())"
MAKE_LMDB = """
import tempfile
from wsgicache import WSGICache
with tempfile.TemporaryDirectory() as directory:
    WSGICache(lambda environ, start_response: (), f"lmdb://{directory}/site").close()
"""

# key, label, the package that it needs, what is run
ROWS = [
    ("python", "Python, nothing imported", "", "pass"),
    ("werkzeug", "import werkzeug", "werkzeug", "import werkzeug"),
    ("import", "import wsgicache", "", "import wsgicache"),
    ("memory", "  and WSGICache(app)", "", MAKE),
    ("lmdb", "  and WSGICache(app, 'lmdb://...')", "lmdb", MAKE_LMDB),
    ("flask", "import flask", "flask", "import flask"),
    ("flask-import", "  and wsgicache", "flask", "import flask, wsgicache"),
    ("flask-caching", "  and flask_caching", "flask_caching", "import flask, flask_caching"),
    ("django", "import django.core.handlers.wsgi", "django", "import django.core.handlers.wsgi"),
]


@dataclass
class Row:
    """One program, and what it took, round by round, in ms from its start to its end."""

    key: str
    label: str
    code: str
    times: list[float] = field(default_factory=list)

    def sample(self) -> None:
        """Run it once."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", self.code], check=True, env=environment)
        self.times.append((time.perf_counter() - began) * MILLI)

    @property
    def median(self) -> float:
        """Milliseconds."""
        return statistics.median(self.times)

    def over(self, other: Row) -> float:
        """The median of the differences to `other`, round by round, ms."""
        pairs = zip(self.times, other.times, strict=True)
        return statistics.median([mine - theirs for mine, theirs in pairs])


def run(rounds: int) -> tuple[list[Row], list[str]]:
    """All rounds, and what is not installed."""
    rows, skipped = [], []
    for key, label, package, code in ROWS:
        if package and find_spec(package) is None:
            skipped.append(f"{key}: pip install {package.replace('_', '-')}")
        else:
            rows.append(Row(key, label, code))
    for row in rows:
        row.sample()  # compiled files are written, disks are read
        row.times.clear()
    for _ in range(rounds):
        for row in rows:
            row.sample()
    return rows, skipped


def as_json(rows: Sequence[Row], skipped: list[str], found: dict[str, str]) -> dict[str, Any]:
    """Return the whole run, for machines."""
    base = rows[0]
    measured = {
        row.key: {
            "label": row.label.strip(),
            "median_ms": row.median,
            "min_ms": min(row.times),
            "over_python_ms": row.over(base),
        }
        for row in rows
    }
    return {"versions": found, "cpu": cpu_model(), "rows": measured, "skipped": skipped}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds (default 21)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    options = parser.parse_args(arguments)
    found = versions("werkzeug", "flask", "flask-caching", "django", "lmdb")
    print(describe(found))
    rows, skipped = run(options.rounds)
    cells = [
        [row.label, f"{row.median:.1f}", f"{min(row.times):.1f}", f"{row.over(rows[0]):.1f}"] for row in rows
    ]
    print(f"\nmilliseconds of a process, medians of {options.rounds} interleaved rounds\n")
    print(table(["", "ms", "min", "over Python"], cells))
    print("\n".join(f"skipped, not installed: {what}" for what in skipped), end="\n" if skipped else "")
    if options.json:
        text = json.dumps(as_json(rows, skipped, found), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
