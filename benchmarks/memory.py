"""What many entries cost: bytes beside the body, the bound on bytes, and the time of a hit.

    python benchmarks/memory.py [--entries 100000] [--body 1000] [--measure rss|tracemalloc]
                                [--rounds 21] [--number 2000] [--json FILE]

Every entry is stored through the middleware, by a request for a URL of its own.
A million entries (`--entries 1000000`) want about two gigabytes. How to read it: README.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import sys
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from _apps import App, Environ, StartResponse, browser_environ
from _measure import Requests, Subject, Verdict, ask, cpu_model, describe, measure, table, versions

BASE = browser_environ()
GOAL_BYTES = 600  # beside the body, per entry
SEED = 20
COUNTS = (100, 1_000, 10_000, 100_000)  # beside all: hits are timed among so many entries


def path_of(number: int) -> str:
    return f"/articles/{number:08d}"


def request_for(number: int) -> Environ:
    """Return an environ of its own for the page `number`, with new strings, as from a server."""
    environ = BASE.copy()
    environ["PATH_INFO"] = environ["RAW_URI"] = path_of(number)
    return environ


def pages_app(size: int) -> App:
    """Return an app with a page of `size` bytes for every path, each a bytes object of its own."""
    length = str(size)

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", length)]
        start_response("200 OK", headers)
        return [environ["PATH_INFO"].encode().ljust(size, b".")]

    return app


def dict_app(entries: int) -> App:
    """Return an app that finds each page in a dict: what the processor's caches alone cost."""
    body = [b"."]
    headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", "1")]
    pages = {path_of(number): ("200 OK", headers[:], body[:]) for number in range(entries)}

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        status, lines, answer = pages[environ["PATH_INFO"]]
        start_response(status, lines[:])
        return answer

    return app


def cached(size: int, max_bytes: int) -> Any:
    """Return `pages_app` under wsgicache."""
    from wsgicache import WSGICache

    return WSGICache(pages_app(size), f"memory://?max_bytes={max_bytes}")


def fill(cache: App, numbers: range) -> None:
    for number in numbers:
        ask(cache, request_for(number))


# --- bytes --------------------------------------------------------------------------------------


def resident() -> int:
    """Return the bytes of this process that are in memory (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def traced() -> int:
    return tracemalloc.get_traced_memory()[0]


METERS: dict[str, Callable[[], int]] = {"rss": resident, "tracemalloc": traced}


@dataclass
class Weight:
    """What `entries` entries with bodies of `body` bytes weigh, in bytes.

    `stored`: right after they were stored. `asked`: after each was asked for twice, since hits may
    leave something behind that makes the next ones fast. `accounted`: as the store counts, then.
    """

    entries: int
    body: int
    stored: int
    asked: int
    accounted: int

    @property
    def stored_beside(self) -> float:
        """Bytes per entry beside its body, before anybody asked for it again."""
        return self.stored / self.entries - self.body

    @property
    def asked_beside(self) -> float:
        """Bytes per entry beside its body, after two hits."""
        return self.asked / self.entries - self.body

    @property
    def accounted_beside(self) -> float:
        """Bytes per entry beside its body, as the store counts them."""
        return self.accounted / self.entries - self.body


def weigh(entries: int, size: int, meter: Callable[[], int]) -> tuple[Any, Weight]:
    """Fill a cache that has room for all, then hit each entry twice; return it with its weight."""
    cache = cached(size, entries * (size + 8_192))
    gc.collect()
    before = meter()
    fill(cache, range(entries))
    gc.collect()
    stored = meter() - before
    for _ in ("first hit", "second hit"):
        fill(cache, range(entries))
    gc.collect()
    asked = meter() - before
    if entries_held(cache) != entries:
        raise SystemExit(f"{entries} entries stored, the store holds {entries_held(cache)}")
    return cache, Weight(entries, size, stored, asked, bytes_held(cache))


@dataclass
class Bound:
    """What happened when more was stored than fits, in bytes."""

    max_bytes: int
    stored: int
    peak: int
    held: int


def overfill(size: int, max_bytes: int) -> Bound:
    """Store three times what fits; look at the store's own count after every request."""
    cache = cached(size, max_bytes)
    stored = 3 * max_bytes // size
    peak = 0
    for number in range(stored):
        ask(cache, request_for(number))
        peak = max(peak, bytes_held(cache))
    return Bound(max_bytes, stored, peak, entries_held(cache))


def bytes_held(cache: Any) -> int:
    return int(cache.store.stats()["bytes"])


def entries_held(cache: Any) -> int:
    return int(cache.store.stats()["entries"])


# --- time ---------------------------------------------------------------------------------------


def random_pages(entries: int) -> Requests:
    """Return requests for pages among `entries`, in random order."""
    choose = random.Random(SEED).randrange

    def requests(wanted: int) -> Iterator[Environ]:
        for _ in range(wanted):
            yield request_for(choose(entries))

    return requests


def is_hit(entries: int) -> Callable[[App], None]:
    def check(app: App) -> None:
        for number in (0, entries // 2, entries - 1):
            found = ask(app, request_for(number)).get("Cache-Status")
            if "; hit" not in found:
                raise SystemExit(f"page {number} of {entries} is no hit: {found or 'nothing'}")

    return check


def hit_subjects(full: Any, entries: int, size: int) -> list[Subject]:
    """Return hits among 100, 1,000 ... and all entries, and the same in a plain dict."""
    counts = [count for count in COUNTS if count < entries]
    subjects = []
    for number in counts:
        cache = cached(size, number * (size + 8_192))
        for _ in ("stored", "asked"):  # the first hit of an entry costs more than all others
            fill(cache, range(number))
        subjects.append(_subject("hit", cache, number))
    subjects.append(_subject("hit", full, entries))
    subjects += [_subject("dict", dict_app(number), number) for number in (*counts, entries)]
    for subject in subjects:
        subject.check(subject.app)
    return subjects


def _subject(kind: str, app: App, entries: int) -> Subject:
    label = f"{'hit' if kind == 'hit' else 'plain dict'} among {entries:,} entries"
    check = is_hit(entries) if kind == "hit" else lambda app: None
    return Subject(f"{kind}-{entries}", label, app, random_pages(entries), check)


# --- running and printing -----------------------------------------------------------------------


@dataclass
class Run:
    """All that one run has found."""

    meter: str
    weight: Weight
    bound: Bound
    subjects: list[Subject]

    @property
    def hits(self) -> list[Subject]:
        return [subject for subject in self.subjects if subject.key.startswith("hit")]

    @property
    def growth(self) -> float:
        """A hit among all entries beside a hit among the fewest."""
        return self.hits[-1].median / self.hits[0].median

    @property
    def dict_growth(self) -> float:
        """The same for a plain dict: what the processor's caches alone do to it."""
        dicts = [subject for subject in self.subjects if subject not in self.hits]
        return dicts[-1].median / dicts[0].median


def run(options: argparse.Namespace) -> Run:
    """Weigh, overfill, then time. The full cache is weighed first, in a fresh process."""
    if options.measure == "tracemalloc":
        tracemalloc.start()
    fill(cached(options.body, 1_000_000 + 300 * options.body), range(200))  # imports, lazy tables
    full, weight = weigh(options.entries, options.body, METERS[options.measure])
    tracemalloc.stop()
    bound = overfill(options.body, max(256_000, 10 * options.body))
    subjects = hit_subjects(full, options.entries, options.body)
    measure(subjects, rounds=options.rounds, number=options.number)
    return Run(options.measure, weight, bound, subjects)


def report(done: Run) -> str:
    """Return the whole run for people."""
    weight, bound = done.weight, done.bound
    rows = [
        [subject.label, f"{subject.median:.2f}", f"{subject.best:.2f}", f"{subject.spread:.2f}"]
        for subject in done.subjects
    ]
    return "\n".join(
        [
            f"\n{weight.entries:,} entries, body {weight.body:,} bytes, measured by {done.meter}",
            "  bytes beside the body, per entry",
            f"    measured, as stored:            {weight.stored_beside:6.0f}",
            f"    measured, each asked for twice: {weight.asked_beside:6.0f}",
            f"    by the store's count:           {weight.accounted_beside:6.0f}",
            f"\n{bound.stored:,} stored where {bound.max_bytes:,} bytes are allowed",
            f"  most bytes held at any time: {bound.peak:,}; entries kept: {bound.held:,}",
            "\nµs per hit, random order, medians of interleaved rounds\n",
            table(["", "µs", "min", "±"], rows),
            "\ngoals",
            *[verdict.line(44) for verdict in verdicts(done)],
        ]
    )


def verdicts(done: Run) -> list[Verdict]:
    """Judge goal 8 of the project's performance goals."""
    beside, bound = done.weight.asked_beside, done.bound
    growth, allowed = done.growth, done.dict_growth
    return [
        Verdict(f"8  at most {GOAL_BYTES} bytes beside the body", beside <= GOAL_BYTES, f"{beside:.0f}"),
        Verdict("8  bounded by bytes", bound.peak <= bound.max_bytes, f"{bound.peak / bound.max_bytes:.2f}"),
        Verdict(
            "8  hit flat but for the processor's caches",
            growth <= allowed,
            f"x {growth:.2f}, a plain dict x {allowed:.2f}",
        ),
    ]


def as_json(done: Run, found: dict[str, str]) -> dict[str, Any]:
    """Return the whole run, for machines."""
    return {
        "versions": found,
        "cpu": cpu_model(),
        "measured_by": done.meter,
        "entries": done.weight.entries,
        "body_bytes": done.weight.body,
        "stored_beside_body_bytes": done.weight.stored_beside,
        "asked_beside_body_bytes": done.weight.asked_beside,
        "accounted_beside_body_bytes": done.weight.accounted_beside,
        "max_bytes": done.bound.max_bytes,
        "peak_bytes": done.bound.peak,
        "hits_us": {subject.key: subject.median for subject in done.subjects},
        "min_us": {subject.key: subject.best for subject in done.subjects},
        "growth": done.growth,
        "dict_growth": done.dict_growth,
        "goals": [asdict(one) for one in verdicts(done)],
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--entries", type=int, default=100_000, help="distinct URLs to store")
    parser.add_argument("--body", type=int, default=1_000, help="bytes of each body")
    parser.add_argument(
        "--measure",
        choices=sorted(METERS),
        default="rss",
        help="resident memory of the process, or what Python allocated (slower)",
    )
    parser.add_argument("--rounds", type=int, default=21, help="interleaved rounds")
    parser.add_argument("--number", type=int, default=2_000, help="most calls per row and round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark."""
    options = parse(arguments)
    found = versions()
    print(describe(found))
    done = run(options)
    print(report(done))
    if options.json:
        text = json.dumps(as_json(done, found), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
