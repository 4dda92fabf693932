"""Requests per second over HTTP: wsgicache inside Python servers, beside other caches, nginx and Varnish.

    python benchmarks/overhttp.py [--rounds 11] [--seconds 1.5] [--only fastpysgi,varnish] [--json FILE]

Each server has one processor core, wrk the other. Prints versions and processor, one table, and those goals
of the project that this run can judge. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _apps import PAGE, PATH, browser_environ
from _build import compiled_build
from _measure import cpu_model, describe, table, versions
from _proxies import FILES, proxy
from _serve import HOST, RUNS, SERVE
from _servers import Missing, Running, lmdb_directory, needs, program, running
from _wrk import Load, Wrk, wrk

WARM_UP = 0.3
PATIENCE = 20.0
TRIES = 3
CONNECTIONS = 32
MICRO, MILLI = 1e6, 1e3
THOROUGH = ("gunicorn", "fastpysgi")
"""Servers on which every site is timed; on the others only the bare app, with its own fields and with those
of a hit, and a hit."""

SITE_LABELS = {
    "bare": "bare constant WSGI app",
    "fields": "the same, with the fields of a hit",
    "hit": "wsgicache: hit, memory",
    "compiled": "wsgicache: hit, compiled build",
    "lmdb": "wsgicache: hit, LMDB",
    "flask-caching": "Flask-Caching cached, SimpleCache",
    "before-after": "before/after hooks, SimpleCache",
    "django": "Django cache middleware, locmem",
    "flask": "Flask view, uncached (Jinja2)",
}
PROXY_LABELS = {
    "nginx": "nginx, proxy_cache",
    "nginx-open": "nginx, proxy_cache and open_file_cache",
    "varnish": "Varnish",
    "nginx-static": "nginx, a static file",
}
PACKAGES_OF = {
    "flask-caching": "flask_caching",
    "before-after": "cachelib",
    "django": "django",
    "lmdb": "lmdb",
}
DISTRIBUTIONS = ("flask", "flask-caching", "django", "lmdb")


class WrongAnswer(Exception):
    """A row did not answer what it says; timing it would be a lie."""


# --- rows ------------------------------------------------------------------------------------------


@dataclass
class Row:
    """One site under one server, or one proxy: where it listens, and what was counted, round by round."""

    server: str
    site: str
    running: Running
    loads: list[Load] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # seconds that the server's processes used

    @property
    def key(self) -> str:
        """Names the row in the JSON and to `--only`."""
        return self.server if self.site == "proxy" else f"{self.server}-{self.site}"

    @property
    def label(self) -> str:
        """The row's name in the table."""
        if self.site == "proxy":
            return PROXY_LABELS[self.server]
        return f"{self.server}: {SITE_LABELS[self.site]}"

    @property
    def rates(self) -> list[float]:
        """Requests per second, by round."""
        return [load.rate for load in self.loads]

    @property
    def median(self) -> float:
        """Requests per second."""
        return statistics.median(self.rates)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, requests per second."""
        if len(self.rates) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.rates, n=4, method="inclusive")
        return low, high

    @property
    def busy(self) -> float:
        """The share of the time in which the server used its core, median."""
        return statistics.median(
            [used / load.seconds for used, load in zip(self.cpu, self.loads, strict=True)]
        )

    @property
    def cost(self) -> float:
        """Processor time per request, median, µs."""
        pairs = zip(self.cpu, self.loads, strict=True)
        return statistics.median([used / load.requests * MICRO for used, load in pairs])

    @property
    def p99(self) -> float:
        """Milliseconds to the answer that 99 of 100 requests do not exceed, median."""
        return statistics.median([load.p99 for load in self.loads]) * MILLI

    def to(self, other: Row) -> float:
        """Return the median of the ratios to `other`, taken round by round."""
        return statistics.median(
            [mine / theirs for mine, theirs in zip(self.rates, other.rates, strict=True)]
        )


def rows_of(server: str) -> list[str]:
    """The sites that are timed under a server."""
    return list(SITE_LABELS) if server in THOROUGH else ["bare", "fields", "hit", "compiled"]


def command_of(server: str, site: str, store: str) -> Callable[[int], list[str]]:
    """Return the command line for a port."""
    script = str(Path(__file__).with_name("_serve.py"))
    return lambda port: [sys.executable, script, server, site, str(port), "--store", store]


def start_site(server: str, site: str, core: int, stack: ExitStack) -> Row:
    """Start a site under a server.

    Raises:
        Missing: a package is not installed.
    """
    needs(server)
    if server == "fastwsgi" and find_spec("pkg_resources") is None:
        raise Missing("pkg_resources, which fastwsgi imports: pip install 'setuptools<81'")
    if site not in ("bare", "fields", "hit", "compiled"):
        needs(PACKAGES_OF.get(site, "flask"))
    store = stack.enter_context(lmdb_directory()) if site == "lmdb" else "memory://"
    # Some servers put their environment into every request's environ: it must not be this shell's.
    environment = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    if site == "compiled":
        compiled_build()  # not while it is being started
    started = running(command_of(server, site, store), {core}, environment)
    return Row(server, site, stack.enter_context(started))


# --- what is served --------------------------------------------------------------------------------


def get(row: Row, path: str = PATH) -> tuple[HTTPResponse, bytes]:
    """Ask once, with the fields that wrk sends."""
    connection = HTTPConnection(HOST, row.running.port, timeout=PATIENCE)
    environ = browser_environ()
    names = [name for name in environ if name.startswith("HTTP_") and name != "HTTP_HOST"]
    try:
        connection.request("GET", path, headers={name[5:].replace("_", "-"): environ[name] for name in names})
        response = connection.getresponse()
        return response, response.read()
    except (OSError, HTTPException) as error:
        raise WrongAnswer(f"no answer: {error!r}") from error
    finally:
        connection.close()


def runs(row: Row) -> int:
    """How often the view of a framework's site ran."""
    return int(get(row, RUNS)[1])


def told_hit(row: Row, response: HTTPResponse) -> bool:
    """Whether the answer came from where the row says, as far as its head can tell."""
    if row.site in ("hit", "lmdb", "compiled"):
        return "hit" in (response.getheader("Cache-Status") or "").split("; ")
    if row.server == "varnish":
        return (
            len((response.getheader("X-Varnish") or "").split()) == 2
        )  # its own request's and the stored one's
    if row.server in ("nginx", "nginx-open"):
        return response.getheader("X-Cache-Status") == "HIT"
    return (response.getheader("Cache-Status") is not None) == (row.site == "fields")


def check(row: Row) -> int:
    """Ask once; return the bytes of the whole answer, roughly.

    Raises:
        WrongAnswer: status, body, connection or where it came from is not what the row says.
    """
    framework = row.site in ("flask", "flask-caching", "before-after", "django")
    before = runs(row) if framework else 0
    response, body = get(row)
    if response.status != 200 or body != PAGE:
        raise WrongAnswer(f"status {response.status}, {len(body)} bytes; expected 200, {len(PAGE)} bytes")
    if response.will_close or response.getheader("Content-Length") != str(len(PAGE)):
        raise WrongAnswer("the connection does not stay open, or there is no Content-Length")
    if not told_hit(row, response):
        raise WrongAnswer(f"does not look like it: {dict(response.getheaders())}")
    if framework and (runs(row) == before) is (row.site == "flask"):
        raise WrongAnswer(f"the view ran {runs(row) - before} times")
    return len(body) + sum(len(name) + len(value) + 4 for name, value in response.getheaders()) + 19


# --- rounds ----------------------------------------------------------------------------------------


def cpu_seconds(group: int) -> float:
    """Return the processor time of all threads of a process group so far (Linux)."""
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text(errors="replace").rpartition(")")[2].split()[2]) != group:
                continue
            used += sum([int(task.read_text().split()[0]) for task in stat.parent.glob("task/*/schedstat")])
        except OSError:
            continue  # it has ended meanwhile
    return used / 1e9


def sample(row: Row, client: Wrk, seconds: float) -> None:
    """Warm up, look at what is served, then count.

    Raises:
        WrongAnswer: it is not what the row says, before or while it was counted.
    """
    url = f"http://{HOST}:{row.running.port}{PATH}"
    client.run(url, WARM_UP)
    size = check(row)
    before = cpu_seconds(row.running.group)
    load = client.run(url, seconds)
    used = cpu_seconds(row.running.group) - before
    if load.failed or load.refused or not load.requests:
        raise WrongAnswer(f"{load.requests} answers, {load.failed} socket errors, {load.refused} refusals")
    if abs(load.bytes / load.requests - size) > 64:
        raise WrongAnswer(f"{load.bytes / load.requests:.0f} bytes an answer, expected {size}")
    row.loads.append(load)
    row.cpu.append(used)


@dataclass
class Run:
    """The rows that are timed here, and why others are not."""

    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def row(self, key: str) -> Row | None:
        """The row of that key, where it was timed."""
        return next((row for row in self.rows if row.key == key), None)

    def drop(self, row: Row, error: Exception) -> None:
        """Take a row out and say why."""
        self.rows.remove(row)
        self.wrong.append(f"WRONG ANSWER, not shown: {row.key}: {error}")


def wanted(key: str, only: Sequence[str]) -> bool:
    """Whether `--only` asks for a row."""
    return not only or any(word in key for word in only)


def start(only: Sequence[str], core: int, stack: ExitStack) -> Run:
    """Start what is installed and wanted. All run to the end; who is not asked does nothing."""
    run = Run()
    for server in SERVE:
        for site in rows_of(server):
            if wanted(f"{server}-{site}", only):
                _add(run, f"{server}-{site}", lambda: start_site(server, site, core, stack))  # noqa: B023
    if any(wanted(kind, only) for kind in FILES):
        _start_proxies(run, only, core, stack)
    return run


def _start_proxies(run: Run, only: Sequence[str], core: int, stack: ExitStack) -> None:
    """Start the proxies in front of an app of their own, which a warm cache does not ask."""
    server = next((name for name in SERVE if find_spec(name)), None)
    if server is None:
        run.skipped.append("nginx, varnish: no server for the app behind them: pip install waitress")
        return
    app = start_site(server, "bare", core, stack)
    for kind in PROXY_LABELS:
        if wanted(kind, only):
            _add(run, kind, lambda: _start_proxy(kind, app, core, stack))  # noqa: B023


def _start_proxy(kind: str, app: Row, core: int, stack: ExitStack) -> Row:
    return Row(kind, "proxy", stack.enter_context(proxy(kind, app.running.port, {core})))


def _add(run: Run, key: str, make: Callable[[], Row]) -> None:
    try:
        row = make()
        get(row)  # the first is a miss everywhere
    except Missing as error:
        run.skipped.append(f"{key}: {error}")
    except (RuntimeError, WrongAnswer) as error:
        run.wrong.append(f"DID NOT START, not timed: {key}: {error}")
    else:
        run.rows.append(row)


def measure(run: Run, client: Wrk, rounds: int, seconds: float) -> None:
    """Interleaved rounds, every other one backwards, so that nobody always comes after the same."""
    for number in range(rounds):
        for row in list(run.rows)[:: -1 if number % 2 else 1]:
            _sample_or_drop(run, row, client, seconds)
        if sys.stderr.isatty():
            print(f"round {number + 1} of {rounds}", end="\r", file=sys.stderr)


def _sample_or_drop(run: Run, row: Row, client: Wrk, seconds: float) -> None:
    """One sample. What goes wrong once is repeated and told of; three times, and the row is taken out."""
    for left in reversed(range(TRIES)):
        try:
            return sample(row, client, seconds)
        except (WrongAnswer, RuntimeError) as error:
            if not left:
                return run.drop(row, error)
            run.repeated.append(f"{row.key}: {error}")
    return None


# --- goals -----------------------------------------------------------------------------------------

KEPT = {"gunicorn": 0.95, "waitress": 0.95, "granian": 0.95, "fastwsgi": 0.90, "fastpysgi": 0.90}
FASTEST = ("fastpysgi-hit", "fastwsgi-hit")


@dataclass(frozen=True)
class Verdict:
    """One goal, judged: the median ratio, and how much is wanted."""

    goal: str
    row: str
    other: str
    ratio: float
    wanted: float

    @property
    def met(self) -> bool:
        return self.ratio >= self.wanted

    def line(self) -> str:
        word = "met    " if self.met else "NOT met"
        return f"{word}  {self.goal:62}  {self.row:14}  {self.ratio:6.3f}"


def verdicts(run: Run) -> list[Verdict]:
    """Judge goals 4 and 5 of the project's performance goals, as far as their rows were timed."""
    pairs = [
        (f"4  at least {share:.2f} of the bare app on {server}", f"{server}-{site}", f"{server}-bare", share)
        for server, share in KEPT.items()
        for site in ("hit", "compiled")
    ]
    found = [row for row in map(run.row, FASTEST) if row is not None]
    if found:
        best = max(found, key=lambda row: row.median).key
        pairs.append(("5  one core: at least 1.35 x Varnish", best, "varnish", 1.35))
        pairs.append(("5  one core: at least 1.25 x nginx proxy_cache as by default", best, "nginx", 1.25))
    return list(_judge(run, pairs))


def _judge(run: Run, pairs: Sequence[tuple[str, str, str, float]]) -> Iterator[Verdict]:
    for goal, key, other, share in pairs:
        mine, theirs = run.row(key), run.row(other)
        if mine is not None and theirs is not None:
            yield Verdict(goal, key, other, mine.to(theirs), share)


# --- the report ------------------------------------------------------------------------------------

HEAD = ["", "req/s", "quartiles", "x bare", "x Varnish", "CPU µs", "busy", "p99 ms"]


def compared(row: Row, other: Row | None) -> str:
    return "-" if other is None or other is row else f"{row.to(other):.3f}"


def as_rows(run: Run) -> list[list[str]]:
    """Return the cells of the table."""
    lines = []
    for row in run.rows:
        low, high = row.quartiles
        bare = run.row(f"{row.server}-bare")
        lines.append(
            [
                row.label,
                f"{row.median:,.0f}",
                f"{low:,.0f}-{high:,.0f}",
                compared(row, bare),
                compared(row, run.row("varnish")),
                f"{row.cost:.2f}",
                f"{row.busy:.0%}",
                f"{row.p99:.2f}",
            ]
        )
    return lines


def idle_server(run: Run) -> str:
    """Return a warning where a server waited for wrk, so that it could have done more."""
    waited = [row.key for row in run.rows if row.busy < 0.9]
    return f"\nnot at its limit, since wrk or a neighbour was: {', '.join(waited)}" if waited else ""


def as_json(
    run: Run, found: dict[str, str], settings: dict[str, Any], judged: Sequence[Verdict]
) -> dict[str, Any]:
    """Return the whole run, for machines."""
    return {
        "versions": found,
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "settings": settings,
        "rows": {
            row.key: {
                "label": row.label,
                "server": row.server,
                "site": row.site,
                "median_rps": row.median,
                "quartiles_rps": row.quartiles,
                "rounds_rps": row.rates,
                "cpu_us": row.cost,
                "busy": row.busy,
                "p99_ms": row.p99,
                "to_bare": _ratio(row, run.row(f"{row.server}-bare")),
                "to_varnish": _ratio(row, run.row("varnish")),
                "to_nginx": _ratio(row, run.row("nginx")),
            }
            for row in run.rows
        },
        "goals": [
            {"goal": one.goal, "row": one.row, "ratio": one.ratio, "wanted": one.wanted, "met": one.met}
            for one in judged
        ],
        "skipped": run.skipped,
        "repeated": run.repeated,
        "wrong": run.wrong,
    }


def _ratio(row: Row, other: Row | None) -> float | None:
    return None if other is None or other is row else row.to(other)


def program_versions() -> dict[str, str]:
    """What the programs say of their versions, and the kernel's."""
    found = {}
    for name, package, option in (("nginx", "", "-v"), ("varnishd", "varnish", "-V"), ("wrk", "", "-v")):
        try:
            done = subprocess.run(
                [program(name, package), option], capture_output=True, text=True, check=False
            )
        except Missing:
            found[package or name] = "-"
            continue
        number = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
        found[package or name] = number.group() if number else "?"
    return {**found, platform.system(): platform.release()}


def two_cores() -> tuple[int, int]:
    """The core for the servers and the core for wrk."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("this needs two processor cores, one for the server and one for wrk; there is one")
    return cores[0], cores[-1]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=11, help="interleaved rounds (default 11)")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each row in each round (default 1.5)")
    parser.add_argument(
        "--connections", type=int, default=CONNECTIONS, help=f"of wrk (default {CONNECTIONS})"
    )
    parser.add_argument("--only", default="", help="rows whose key contains one of these: fastpysgi,varnish")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a row answered wrongly, 2 where wrk is not installed."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was started is stopped then, too
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("servers and client are kept on cores of their own, which takes Linux")
    server_core, client_core = two_cores()
    found = {**versions(*SERVE, *DISTRIBUTIONS), **program_versions()}
    print(
        f"{describe(found)}, {os.cpu_count()} cores: servers on {server_core}, wrk on {client_core}",
        flush=True,
    )
    with ExitStack() as stack:
        try:
            client = stack.enter_context(wrk(browser_environ(), options.connections, {client_core}))
        except Missing as error:
            print(f"skipped, not installed: everything: {error}")
            return 2
        run = start([word for word in options.only.split(",") if word], server_core, stack)
        measure(run, client, options.rounds, options.seconds)
    judged = verdicts(run)
    print(
        f"\nrequests per second, {options.connections} connections, "
        f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s\n"
    )
    print(table(HEAD, as_rows(run)) + idle_server(run))
    if judged:
        print("\ngoals, and what was measured")
        print("\n".join(verdict.line() for verdict in judged))
    told = [f"skipped, not installed: {what}" for what in run.skipped]
    told += [f"sample repeated: {what}" for what in run.repeated]
    print("\n".join(told + run.wrong))
    if options.json:
        settings = {name: value for name, value in vars(options).items() if name != "json"}
        text = json.dumps(as_json(run, found, settings, judged), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted; all servers are stopped")
