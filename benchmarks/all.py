"""Run every benchmark that can run here, and make the plots and tables of docs/performance.md.

    python benchmarks/all.py                    # everything, about half an hour, on a quiet machine
    python benchmarks/all.py --quick            # whether it works: minutes, numbers that mean nothing
    python benchmarks/all.py --only overhttp    # one or some; the others' results stay
    python benchmarks/all.py --draw             # the pages anew, from results that are there

Says first what is not installed and what installs it. Each benchmark writes its JSON into `--results`.
With `--quick` results and page go into a directory of their own, so that docs/ keeps its numbers.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import _page
from _page import Found
from _serve import SERVE
from _servers import Missing, needs, program

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent / "docs"
PAGE = "performance.md"

# name, then the arguments of a full and of a quick run
STEPS: dict[str, tuple[list[str], list[str]]] = {
    "inprocess": ([], ["--rounds", "3", "--number", "50"]),
    "compiled": (["--build", "compiled"], ["--build", "compiled", "--rounds", "3", "--number", "50"]),
    "stores": ([], ["--rounds", "3", "--number", "20"]),
    "flask_cached": ([], ["--rounds", "1"]),
    "memory": (["--entries", "1000000"], ["--entries", "2000", "--rounds", "2", "--number", "50"]),
    "startup": ([], ["--rounds", "1"]),
    "stampede": ([], ["--rounds", "1", "--clients", "8", "--view-seconds", "0.1"]),
    "overhttp": ([], ["--rounds", "1", "--seconds", "0.2"]),
    "eviction": ([], ["--requests", "5000"]),
    "simulate": ([], ["--quick"]),
}
SCRIPTS = {"compiled": "inprocess"}
"""Where that is not a step's own name."""
PRINTED = {"eviction", "simulate"}
"""They tell in their own words; pages of their own show what they found."""
PROGRAMS = {"wrk": "wrk", "nginx": "nginx", "varnishd": "varnish"}  # the program, Debian's package
PROGRAMS |= {"redis-server": "redis-server", "memcached": "memcached"}
PACKAGES = (
    "flask",
    "flask_caching",
    "cachelib",
    "django",
    "lmdb",
    "redis",
    "pymemcache",
    "Cython",
    "matplotlib",
    *SERVE,
)


def missing() -> list[str]:
    """What is not installed, each with the command that installs it."""
    found = []
    for name, package in PROGRAMS.items():
        try:
            program(name, package)
        except Missing as error:
            found.append(str(error))
    for name in PACKAGES:
        try:
            needs(name)
        except Missing as error:
            found.append(str(error))
    return found


def run(name: str, results: Path, quick: bool) -> int:
    """Run one benchmark; return its exit status. What it prints is seen as it comes."""
    command = [sys.executable, str(HERE / f"{SCRIPTS.get(name, name)}.py"), *STEPS[name][quick]]
    if name not in PRINTED:
        command += ["--json", str(results / f"{name}.json")]
    print(f"\n=== {name}: {' '.join(command[1:])}\n", flush=True)
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except BaseException as error:
            if not isinstance(error, KeyboardInterrupt):  # which it has heard, too
                process.terminate()  # it stops what it has started
            process.wait()
            raise


def load(results: Path) -> Found:
    """Read the results that are there."""
    paths = {name: results / f"{name}.json" for name in STEPS}
    return {name: json.loads(path.read_text("utf-8")) for name, path in paths.items() if path.exists()}


def draw(found: Found, docs: Path) -> None:
    """Fill the page's blocks and draw its pictures."""
    page = docs / PAGE
    page.write_text(_page.fill(page.read_text("utf-8"), found), "utf-8")
    if find_spec("matplotlib") is None:
        print("skipped, not installed: the plots: pip install matplotlib")
        return
    from _plots import PICTURES

    for name, (file, picture) in PICTURES.items():
        if name in found:
            picture(found[name], docs / file)
    print(f"\nwritten: {page} and its plots")


def report(found: Found, failed: Sequence[str], absent: Sequence[str]) -> None:
    """Print all goals, and what could not run."""
    goals = _page.judged(found)
    print(f"\n=== goals: {sum(met for met, _, _ in goals)} of {len(goals)} met\n")
    for met, goal, told in goals:
        print(f"{'met    ' if met else 'NOT met'}  {goal:90}  {told}")
    for what in absent:
        print(f"not installed: {what}")
    for name in failed:
        print(f"FAILED or incomplete, see above: {name}")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny runs: whether everything works")
    parser.add_argument("--only", default="", help=f"some of {','.join(STEPS)}")
    parser.add_argument("--draw", action="store_true", help="run nothing; make the pages from what is there")
    parser.add_argument(
        "--results", type=Path, metavar="DIR", help="for the JSON (default benchmarks/results)"
    )
    options = parser.parse_args(arguments)
    options.only = [name for name in options.only.split(",") if name] or list(STEPS)
    if not set(options.only) <= set(STEPS):
        parser.error(f"--only: choose from {', '.join(STEPS)}")
    if options.results is None:
        options.results = Path(tempfile.mkdtemp(prefix="benchmarks-")) if options.quick else HERE / "results"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is wanted and installed; 1 when one of them failed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    absent = missing()
    print("\n".join(f"not installed: {what}" for what in absent) or "everything is installed")
    options.results.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in [] if options.draw else options.only:
        (options.results / f"{name}.json").unlink(missing_ok=True)
        if run(name, options.results, options.quick):
            failed.append(name)
    found = load(options.results)
    docs = DOCS
    if options.quick:
        docs = options.results
        shutil.copy(DOCS / PAGE, docs / PAGE)
    draw(found, docs)
    report(found, failed, absent)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; what was started is stopped")
