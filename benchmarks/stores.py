"""What a hit costs over each store, beside a plain get of the same page from the same store.

    python benchmarks/stores.py [--rounds 61] [--number 2000] [--only redis] [--json FILE]

Starts the servers that are installed on free ports and stops them. Prints versions and processor, one table,
and those goals of the project that this run can judge. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import _apps
from _apps import PAGE, App, Environ, StartResponse, Views, browser_environ, constant_app
from _measure import Subject, ask, copies, cpu_model, describe, measure, table, versions
from _servers import SERVERS, Missing, needs
from inprocess import WrongAnswer, expect

PACKAGES = ("redis", "lmdb", "pymemcache", "flask-caching", "django")
NAME = "page"
SETTLES_WITHIN = 15.0
PATIENCE = 5.0
"""Seconds that a store may take here: a stall of the machine must not open a breaker in mid-run."""


def bare(key: str, label: str) -> Subject:
    environ = browser_environ()
    return Subject(key, label, constant_app(), copies(environ), expect(environ))


# --- plain gets ----------------------------------------------------------------------------------


def plain(get: Callable[[], Any]) -> Callable[[str, str], Subject]:
    """Return a builder for a row that gets the page from a store, and does nothing else."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        get()
        return ()

    def check(app: App) -> None:
        if get() != PAGE:
            raise WrongAnswer("the store did not give back the page")

    return lambda key, label: Subject(key, label, app, copies({}), check)


def lmdb_get(url: str, stack: ExitStack) -> Callable[[], Any]:
    """A get from an LMDB of its own: a process may open each but once."""
    import lmdb

    directory = stack.enter_context(tempfile.TemporaryDirectory())
    environment = lmdb.open(directory, map_size=64 << 20)
    stack.callback(environment.close)
    with environment.begin(write=True) as transaction:
        transaction.put(NAME.encode(), PAGE)
    begin, name = environment.begin, NAME.encode()

    def get() -> Any:
        transaction = begin()
        page = transaction.get(name)
        transaction.abort()
        return page

    return get


def redis_get(url: str, stack: ExitStack) -> Callable[[], Any]:
    import redis

    client = redis.Redis.from_url(url)
    stack.callback(client.close)
    client.set(NAME, PAGE)
    get = client.get
    return lambda: get(NAME)


def memcached_get(url: str, stack: ExitStack) -> Callable[[], Any]:
    from pymemcache.client.base import Client

    client = Client((str(urlsplit(url).hostname), int(urlsplit(url).port or 0)))
    stack.callback(client.close)
    client.set(NAME, PAGE)
    get = client.get
    return lambda: get(NAME)


# --- caches --------------------------------------------------------------------------------------


def hit(url: str, stack: ExitStack, **options: Any) -> Callable[[str, str], Subject]:
    """Return a builder for a hit through wsgicache over a store."""

    def build(key: str, label: str) -> Subject:
        from wsgicache import WSGICache

        cache = WSGICache(constant_app(), url, namespace=key, store_timeout=PATIENCE, **options)
        stack.callback(cache.close)
        environ = browser_environ()
        check = expect(environ, cache=("hit",))
        deadline = time.monotonic() + SETTLES_WITHIN
        settled = 0
        while settled < 20:  # a near tier serves by itself once it has heard from its server
            try:
                check(cache)
                settled += 1
            except WrongAnswer:
                if time.monotonic() > deadline:
                    raise
            if "near" in options:
                time.sleep(0.1)
        return Subject(key, label, cache, copies(environ), check)

    return build


def framework(package: str, make: Callable[[], App]) -> Callable[[str, str], Subject]:
    """Return a builder for another cache's app, whose view must not run again."""

    def build(key: str, label: str) -> Subject:
        needs(package)
        environ = browser_environ()
        app = make()
        ask(app, environ)

        def check(app: App) -> None:
            before = Views.runs
            expect(environ)(app)
            if Views.runs != before:
                raise WrongAnswer("the view ran again")

        return Subject(key, label, app, copies(environ), check)

    return build


def django_caches(urls: dict[str, str]) -> dict[str, dict[str, str]]:
    """Django's settings for the servers that run; it is set up once in a process."""
    backends = {"redis": "redis.RedisCache", "memcached": "memcached.PyMemcacheCache"}
    return {
        server: {
            "BACKEND": f"django.core.cache.backends.{backends[server]}",
            "LOCATION": url if server == "redis" else urlsplit(url).netloc,
        }
        for server, url in urls.items()
        if server in backends
    }


Builder = Callable[[str, str], Subject]


def rows_of(server: str, urls: dict[str, str], stack: ExitStack) -> Iterator[tuple[str, str, Builder]]:
    """The rows of one server; the first is the plain get that the others are compared with."""
    url = urls[server]

    def django() -> App:
        return _apps.django_cached(server, django_caches(urls))

    def flask_caching(**config: Any) -> Builder:
        return framework("flask_caching", lambda: _apps.flask_caching_cached(**config))

    if server == "lmdb":
        yield "lmdb-get", "lmdb: get", plain(lmdb_get(url, stack))
        yield "lmdb-hit", "  wsgicache over lmdb://: hit", hit(url, stack)
    elif server == "redis":
        yield "redis-get", "redis-py: GET", plain(redis_get(url, stack))
        yield "redis-hit", "  wsgicache over redis://: hit", hit(url, stack)
        yield "redis-near", "  wsgicache, near tier: hit", hit(url, stack, near="16MB")
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": url}
        yield "redis-flask-caching", "  Flask-Caching, RedisCache", flask_caching(**config)
        yield "redis-django", "  Django, RedisCache", framework("django", django)
    elif server == "memcached":
        yield "memcached-get", "pymemcache: get", plain(memcached_get(url, stack))
        yield "memcached-hit", "  wsgicache over memcached://: hit", hit(url, stack)
        config = {"CACHE_TYPE": "MemcachedCache", "CACHE_MEMCACHED_SERVERS": [urlsplit(url).netloc]}
        yield "memcached-flask-caching", "  Flask-Caching, MemcachedCache", flask_caching(**config)
        yield "memcached-django", "  Django, PyMemcacheCache", framework("django", django)


# --- the run -------------------------------------------------------------------------------------


@dataclass
class Run:
    """The subjects that can be timed here, what each is compared with, and why others cannot be."""

    subjects: list[Subject] = field(default_factory=list)
    plain: dict[str, Subject] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def add(self, key: str, label: str, build: Builder) -> Subject | None:
        try:
            subject = build(key, label)
            subject.check(subject.app)
        except (Missing, ImportError) as error:
            self.skipped.append(f"{key}: {error}")
        except WrongAnswer as error:
            self.wrong.append(f"WRONG ANSWER, not timed: {key}: {error}")
        else:
            self.subjects.append(subject)
            return subject
        return None

    def drop_wrong(self) -> None:
        """Check that what was timed still answers as its row says; what does not is taken out."""
        for subject in list(self.subjects):
            try:
                subject.check(subject.app)
            except WrongAnswer as error:
                self.subjects.remove(subject)
                self.wrong.append(f"WRONG ANSWER at the end, not shown: {subject.key}: {error}")

    @property
    def bare(self) -> Subject:
        return self.subjects[0]


def start_servers(only: Sequence[str], run: Run, stack: ExitStack) -> dict[str, str]:
    """Start what is installed and wanted. Returns the URLs by server."""
    urls = {}
    for name, start in SERVERS.items():
        if only and name not in only:
            continue
        try:
            urls[name] = stack.enter_context(start())
        except Missing as error:
            run.skipped.append(f"{name}: {error}")
    return urls


def prepare(only: Sequence[str], stack: ExitStack) -> Run:
    """Start the servers, build and check the rows; the bare app and the memory store are always there."""
    run = Run()
    run.add("bare", "bare constant WSGI app", bare)
    run.add("memory-hit", "wsgicache over memory://: hit", hit("memory://?max_bytes=64MB", stack))
    urls = start_servers(only, run, stack)
    for server in urls:
        base = None
        for key, label, build in rows_of(server, urls, stack):
            subject = run.add(key, label, build)
            base = base or subject
            if subject is not None and base is not None:
                run.plain[key] = base
    return run


# --- the report ----------------------------------------------------------------------------------

HEAD = ["", "µs", "min", "±", "over bare", "over get", "x get"]
GOALS = (
    ("1  memory hit at most 1.0 µs over bare", "memory-hit", "bare", 1.0),
    ("2  LMDB hit at most 2.0 µs over bare", "lmdb-hit", "bare", 2.0),
    ("2  hit through a near tier at most 1.0 µs over bare", "redis-near", "bare", 1.0),
    ("2  Redis hit at most 5 µs over one GET of redis-py", "redis-hit", "redis-get", 5.0),
)


@dataclass(frozen=True)
class Verdict:
    """One goal, judged: µs over what it is compared with, and how many are allowed."""

    goal: str
    row: str
    over: float
    bound: float

    @property
    def met(self) -> bool:
        return self.over <= self.bound

    def line(self) -> str:
        return f"{'met    ' if self.met else 'NOT met'}  {self.goal:53}  {self.over:6.2f} µs"


def verdicts(subjects: Sequence[Subject]) -> list[Verdict]:
    """Judge goals 1 and 2 of the project's performance goals."""
    rows = {subject.key: subject for subject in subjects}
    return [
        Verdict(goal, key, rows[key].over(rows[base]), bound)
        for goal, key, base, bound in GOALS
        if key in rows and base in rows
    ]


def as_rows(run: Run) -> list[list[str]]:
    """Return the cells of the table."""
    lines = []
    for subject in run.subjects:
        base = run.plain.get(subject.key)
        compared = ["-", "-"]
        if base is not None and base is not subject and base in run.subjects:
            compared = [f"{subject.over(base):.2f}", f"{subject.median / base.median:.2f}"]
        times = (subject.median, subject.best, subject.spread, subject.over(run.bare))
        lines.append([subject.label, *[f"{time:.2f}" for time in times], *compared])
    return lines


def as_json(run: Run, found: dict[str, str], judged: Sequence[Verdict]) -> dict[str, Any]:
    """Return the whole run, for machines. Times are µs per request."""
    return {
        "versions": found,
        "cpu": cpu_model(),
        "rows": {
            subject.key: {
                "label": subject.label.strip(),
                "median_us": subject.median,
                "min_us": subject.best,
                "spread_us": subject.spread,
                "over_bare_us": subject.over(run.bare),
                "plain": run.plain[subject.key].key if subject.key in run.plain else None,
                "calls_per_round": subject.calls,
            }
            for subject in run.subjects
        },
        "goals": [{**asdict(one), "met": one.met} for one in judged],
        "skipped": run.skipped,
        "wrong": run.wrong,
    }


def server_versions(*programs: str) -> dict[str, str]:
    """What the programs of the servers say of their versions."""
    found = {}
    for name in programs:
        try:
            told = subprocess.run([name, "--version"], capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            found[name] = "-"
            continue
        words = told.replace("v=", "").split()
        found[name] = next(word for word in words if word[:1].isdigit())
    return found


def names(text: str) -> list[str]:
    """Read `--only`."""
    chosen = [name for name in text.split(",") if name]
    if not set(chosen) <= set(SERVERS):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SERVERS)}")
    return chosen


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=61, help="interleaved rounds (default 61)")
    parser.add_argument("--number", type=int, default=2_000, help="most calls per row and round")
    parser.add_argument("--only", type=names, default=[], help="servers, separated by commas: redis,lmdb")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a subject answered wrongly."""
    options = parse(arguments)
    found = {**versions(*PACKAGES), **server_versions("redis-server", "memcached")}
    print(describe(found))
    with ExitStack() as stack:
        run = prepare(options.only, stack)
        measure(run.subjects, rounds=options.rounds, number=options.number)
        run.drop_wrong()
        judged = verdicts(run.subjects)
        print(f"\nµs per request, medians of {options.rounds} interleaved rounds\n")
        print(table(HEAD, as_rows(run)))
        if judged:
            print("\ngoals, and what was measured")
            print("\n".join(verdict.line() for verdict in judged))
        if run.skipped:
            print("\n" + "\n".join(f"skipped, not installed: {what}" for what in run.skipped))
        print("\n".join(run.wrong))
        if options.json:
            text = json.dumps(as_json(run, found, judged), indent=2)
            options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
