"""Many clients at once on one page that takes its time: how often does its view run, how long do they wait?

    python benchmarks/stampede.py [--clients 50] [--processes 2] [--threads 25] [--rounds 5]

Each site has the store that its name says, on a server of its own that is started here. Prints versions and
processor, one table, and those goals of the project that this run can judge.
How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _apps import PAGE
from _measure import Verdict, cpu_model, describe, table, versions
from _servers import SERVERS, Missing, needs
from _stampede import add_options

LABELS = {
    "bare": "Flask, no cache",
    "flask-caching": "Flask-Caching, SimpleCache",
    "flask-caching-redis": "Flask-Caching, RedisCache",
    "wsgicache": "wsgicache, memory://",
    "wsgicache-lmdb": "wsgicache, lmdb://",
    "wsgicache-redis": "wsgicache, redis://",
    "wsgicache-redis-near": "wsgicache, redis://, near tier",
    "wsgicache-memcached": "wsgicache, memcached://",
}
KINDS = {"cold": "cold", "plain": "expired", "window": "expired, with stale-while-revalidate"}
"""What the page is when the clients come. `plain` and `window` were asked for before, and are out of date."""

GOAL_P50_MS = 20.0
MILLI = 1e3


@dataclass
class Row:
    """One site and one kind of page: runs of the view by round, and the waits of all clients, in ms."""

    site: str
    kind: str
    runs: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    wrong: int = 0

    def percentile(self, percent: float) -> float:
        """The wait that so many percent of the clients do not exceed."""
        ordered = sorted(self.waits)
        return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


# --- the server ------------------------------------------------------------------------------------


class Site:
    """A running site and the count of its view's runs."""

    def __init__(self, port: int, runs: Path) -> None:
        self.port = port
        self._runs = runs

    @property
    def runs(self) -> int:
        """How often the view ran so far."""
        return self._runs.stat().st_size


def server_of(site: str) -> str | None:
    """The server that a site's workers share, by its name; None: they share nothing."""
    return next((name for name in SERVERS if name in site.split("-")), None)


@contextmanager
def running(name: str, options: argparse.Namespace) -> Iterator[Site]:
    """Start a site in processes of its own; its socket listens before, so nobody comes too early.

    Raises:
        Missing: its server or a package is not installed.
    """
    server = server_of(name)
    if name.startswith("flask-caching"):
        needs("flask_caching")
    with ExitStack() as stack:
        store = "memory://" if server is None else stack.enter_context(SERVERS[server]())
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        runs = Path(directory) / "runs"
        runs.touch()
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
            port = listening.getsockname()[1]
            process = subprocess.Popen(
                [
                    sys.executable, str(Path(__file__).with_name("_stampede.py")),
                    name, str(listening.fileno()), str(runs), "--store", store,
                    "--processes", str(options.processes), "--threads", str(options.threads),
                    "--view-seconds", str(options.view_seconds), "--lifetime", str(options.lifetime),
                ],
                pass_fds=[listening.fileno()],
                env={name: value for name, value in os.environ.items() if not name.startswith("WSGICACHE_")},
            )  # fmt: skip
        try:
            yield Site(port, runs)
        finally:
            process.terminate()
            process.wait(30)


# --- the clients -----------------------------------------------------------------------------------


class Client:
    """One connection with one request: when it was sent, and when the whole answer was there."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.sent = self.ended = 0.0
        self._data = b""

    def ask(self, path: str) -> None:
        """Send the request."""
        self.sent = time.perf_counter()
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())

    def take(self) -> bool:
        """Take what is there; True at the end, which is where the server hangs up."""
        data = self.socket.recv(65536)
        if data:
            self._data += data
            self.ended = time.perf_counter()
        return not data

    @property
    def right(self) -> bool:
        """Whether the answer is the page."""
        head, _, body = self._data.partition(b"\r\n\r\n")
        return head.startswith(b"HTTP/1.1 200 ") and body == PAGE


def stampede(port: int, path: str, count: int) -> list[Client]:
    """`count` clients that are connected already ask at once; returns when all have their answers.

    They share one thread, so that what is measured is the server's doing and not the clients' crowding.
    """
    clients = [Client(port) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
        time.sleep(0.1)  # the server takes the connections
        for client in clients:
            client.ask(path)
        while selector.get_map():
            for key, _ in selector.select(30):
                if key.data.take():
                    selector.unregister(key.fileobj)
                    key.data.socket.close()
    return clients


# --- rounds ----------------------------------------------------------------------------------------


def one_round(site: Site, rows: Sequence[Row], number: int, options: argparse.Namespace) -> None:
    """Bring a new page of each kind into its state, then let the clients come to one after the other."""
    for row in rows:
        if row.kind != "cold":
            stampede(site.port, f"/{row.kind}/{number}", options.clients)  # each process gets the page
    time.sleep(options.lifetime + 0.2)
    for row in rows:
        before = site.runs
        clients = stampede(site.port, f"/{row.kind}/{number}", options.clients)
        if row.kind == "window":
            time.sleep(options.view_seconds + 0.2)  # a refresh behind the clients counts too
        row.runs.append(site.runs - before)
        row.waits += [(client.ended - client.sent) * MILLI for client in clients]
        row.wrong += sum(not client.right for client in clients)


def run(options: argparse.Namespace) -> tuple[list[Row], list[str]]:
    """All rounds of all rows, and what is missing for those sites that could not be started."""
    rows, skipped = [], []
    for name in options.sites:
        mine = [Row(name, kind) for kind in KINDS]
        try:
            with running(name, options) as site:
                stampede(site.port, "/warm/0", options.clients)  # imports, threads, connections
                for number in range(options.rounds):
                    one_round(site, mine, number, options)
        except Missing as error:
            skipped.append(f"{name}: {error}")
            continue
        rows += mine
    return rows, skipped


# --- the report ------------------------------------------------------------------------------------


def report(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """Return the whole run for people."""
    lines = [
        [
            f"{LABELS[row.site]}: {KINDS[row.kind]}",
            ", ".join(map(str, sorted(set(row.runs)))),
            f"{row.percentile(50):.1f}",
            f"{row.percentile(99):.1f}",
        ]
        for row in rows
    ]
    per_process = " (what is in memory is each process's own)" if options.processes > 1 else ""
    wrong = [f"{row.wrong} wrong answers: {LABELS[row.site]}, {KINDS[row.kind]}" for row in rows if row.wrong]
    return "\n".join(
        [
            f"\n{options.clients} clients at once, a view of {options.view_seconds * MILLI:.0f} ms, "
            f"{options.processes} x {options.threads} threads{per_process}, {options.rounds} rounds\n",
            table(["", "view runs", "p50 ms", "p99 ms"], lines),
            *wrong,
            "\ngoals",
            *[verdict.line(90) for verdict in verdicts(rows, options)],
        ]
    )


def verdicts(rows: Sequence[Row], options: argparse.Namespace) -> list[Verdict]:
    """Judge goal 7 of the project's performance goals."""
    judged = []
    for row in rows:
        if not row.site.startswith("wsgicache"):
            continue
        store = LABELS[row.site].partition(", ")[2]
        among, most = ("in each process", options.processes) if server_of(row.site) is None else ("in all", 1)
        found = max(row.runs)
        goal = f"7  one view run {among}, {KINDS[row.kind]}: {store}"
        judged.append(Verdict(goal, found <= most, str(found)))
        if row.kind == "window":
            p50 = row.percentile(50)
            goal = f"7  p50 at most {GOAL_P50_MS:.0f} ms, {KINDS[row.kind]}: {store}"
            judged.append(Verdict(goal, p50 <= GOAL_P50_MS, f"{p50:.1f}"))
    return judged


def as_json(
    rows: Sequence[Row], options: argparse.Namespace, found: dict[str, str], skipped: Sequence[str]
) -> dict[str, Any]:
    """Return the whole run, for machines."""
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    measured = [
        {
            **asdict(row),
            "label": f"{LABELS[row.site]}: {KINDS[row.kind]}",
            "p50_ms": row.percentile(50),
            "p99_ms": row.percentile(99),
        }
        for row in rows
    ]
    judged = [asdict(verdict) for verdict in verdicts(rows, options)]
    return {
        "versions": found,
        "cpu": cpu_model(),
        "settings": settings,
        "rows": measured,
        "goals": judged,
        "skipped": skipped,
    }


def sites(text: str) -> list[str]:
    """Read `--sites`."""
    names = text.split(",")
    if not set(names) <= set(LABELS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(LABELS)}")
    return names


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=50, help="that come at once")
    parser.add_argument("--rounds", type=int, default=5, help="each with pages of its own")
    parser.add_argument("--sites", type=sites, default=list(LABELS), help="which, separated by commas")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    add_options(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(arguments)
    found = versions("flask", "flask-caching", "gunicorn", "lmdb", "redis", "pymemcache")
    print(describe(found))
    rows, skipped = run(options)
    print(report(rows, options))
    print("\n".join(f"skipped, not installed: {what}" for what in skipped), end="\n" if skipped else "")
    if options.json:
        text = json.dumps(as_json(rows, options, found, skipped), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
