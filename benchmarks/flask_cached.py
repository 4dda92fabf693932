"""Hits of `cached` and `memoize`: wsgicache.flask against Flask-Caching, backend by backend, in one run.

    python benchmarks/flask_cached.py [--rounds N] [--check] [--json FILE]

Both libraries answer the same calls in this process, in turns, round by round. Shown are the times of the
quickest round, and as ratio the median of the rounds' ratios: what else the machine does slows both sides of
a round. Backends whose server is not installed are left out and named. `--check` fails unless `cached` is
three times as fast on SimpleCache and nothing is slower anywhere, by one of the two measures: a load that
comes and goes moves the one or the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import _apps  # noqa: F401 - puts this checkout's wsgicache on the path
from _measure import Verdict, cpu_model, describe, versions
from _servers import Missing, memcached_server, redis_server
from flask import Flask

BODY = "x" * 2000
Calls = dict[str, Callable[[], Any]]


def calls_of(cache_class: Any, config: dict[str, Any]) -> tuple[Calls, Any]:
    """The calls to measure, each a hit, and the app whose request they run in."""
    app = Flask("benchmark")
    app.config["SECRET_KEY"] = "benchmark"
    cache = cache_class(app, config=config)

    @app.route("/page")
    @cache.cached(600)
    def page() -> str:
        return BODY

    @cache.cached(600, key_prefix="rows")
    def rows() -> list[dict[str, Any]]:
        return [{"id": n, "name": f"row {n}"} for n in range(10)]

    @cache.memoize(600)
    def text(a: int, b: int = 2) -> str:
        return BODY

    @cache.memoize(600)
    def table(a: int, b: int = 2) -> list[dict[str, Any]]:
        return [{"id": n, "name": f"row {n}"} for n in range(10)]

    calls: Calls = {
        "cached, text": page,
        "cached, rows": rows,
        "memoize, text": lambda: text(1),
        "memoize, rows": lambda: table(1, b=3),
    }
    return calls, app


def measure(app: Flask, call: Callable[[], Any], count: int) -> float:
    """Microseconds of one hit."""
    with app.test_request_context("/page"):
        call()
        began = time.perf_counter()
        for _ in range(count):
            call()
        return (time.perf_counter() - began) / count * 1e6


def of_its_own(config: dict[str, Any], name: str) -> dict[str, Any]:
    """The configuration with keys or files of its own: the two keep values under the same names."""
    if "CACHE_DIR" in config:
        return {**config, "CACHE_DIR": f"{config['CACHE_DIR']}/{name}"}
    return config if config["CACHE_TYPE"] == "SimpleCache" else {**config, "CACHE_KEY_PREFIX": f"{name}_"}


def compare(config: dict[str, Any], rounds: int, count: int) -> dict[str, tuple[float, float, float]]:
    """Microseconds of the quickest round by call, theirs and ours, and the median of the ratios."""
    import flask_caching

    import wsgicache.flask

    both = [
        calls_of(library.Cache, of_its_own(config, library.__name__))
        for library in (flask_caching, wsgicache.flask)
    ]
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in both[0][0]}
    for _ in range(rounds):
        for name, times in taken.items():
            for (calls, app), series in zip(both, times, strict=True):
                series.append(measure(app, calls[name], count))
    return {
        name: (min(a), min(b), statistics.median([x / y for x, y in zip(a, b, strict=True)]))
        for name, (a, b) in taken.items()
    }


def backends(stack: ExitStack) -> Iterator[tuple[str, dict[str, Any] | None, int]]:
    """Names, configurations (None where the server is missing) and calls a round."""
    yield "SimpleCache", {"CACHE_TYPE": "SimpleCache"}, 1000
    directory = stack.enter_context(tempfile.TemporaryDirectory())
    yield "FileSystemCache", {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": directory}, 200
    for server, backend, option in (
        (redis_server, "RedisCache", "CACHE_REDIS_PORT"),
        (memcached_server, "MemcachedCache", "CACHE_MEMCACHED_SERVERS"),
    ):
        try:
            port = urlsplit(stack.enter_context(server())).port
        except Missing:
            yield backend, None, 0
            continue
        where = port if option.endswith("PORT") else [f"127.0.0.1:{port}"]
        yield backend, {"CACHE_TYPE": backend, option: where}, 200


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if `--check` finds too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if find_spec("flask_caching") is None:
        parser.error("Flask-Caching, which this compares with, is not installed: pip install -e '.[bench]'")
    found = versions("flask", "flask-caching")
    print(describe(found))
    print(f"{'backend':<18}{'hit of':<16}{'theirs µs':>10}{'ours µs':>10}{'ratio':>8}")
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    with ExitStack() as stack:
        for name, config, count in backends(stack):
            if config is None:
                print(f"{name:<18}not measured: its server is not installed")
                skipped.append(name)
                continue
            for what, (theirs, ours, ratio) in compare(config, given.rounds, count).items():
                print(f"{name:<18}{what:<16}{theirs:>10.2f}{ours:>10.2f}{ratio:>7.2f}x")
                rows.append(
                    {"backend": name, "hit": what, "theirs_us": theirs, "ours_us": ours, "ratio": ratio}
                )
    judged = [verdict(row) for row in rows]
    print(*[one.line(60) for one in judged if not one.met], sep="\n")
    if given.json:
        run = {"versions": found, "cpu": cpu_model(), "rows": rows, "skipped": skipped}
        run["goals"] = [asdict(one) for one in judged]
        given.json.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return 0 if all(one.met for one in judged) or not given.check else 1


def verdict(row: dict[str, Any]) -> Verdict:
    """Judge one row: `cached` on SimpleCache three times as fast, and nothing slower anywhere."""
    wanted = 3.0 if row["backend"] == "SimpleCache" and row["hit"].startswith("cached") else 1.0
    found = max(row["ratio"], row["theirs_us"] / row["ours_us"])
    goal = f"   {row['hit']} on {row['backend']}: at least {wanted:.0f} x Flask-Caching"
    return Verdict(goal, found >= wanted, f"{found:.2f}")


if __name__ == "__main__":
    raise SystemExit(main())
