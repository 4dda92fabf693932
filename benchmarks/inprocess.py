"""What a cached answer costs inside the process, beside the app itself and other caches.

    python benchmarks/inprocess.py [--rounds 61] [--number 2000] [--only hit,flask] [--json FILE]
    python benchmarks/inprocess.py --build compiled     # the same of the compiled build

Prints versions and processor, one table, and those goals of the project that this run can judge.
How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import _apps
from _apps import (
    LIFETIME,
    PAGE,
    PATH,
    App,
    Environ,
    Views,
    browser_environ,
    constant_app,
    validating_app,
)
from _build import choose
from _measure import (
    Requests,
    Subject,
    ask,
    copies,
    cpu_model,
    describe,
    measure,
    table,
    versions,
)
from _servers import Missing

PACKAGES = ("flask", "flask-caching", "cachelib", "django", "werkzeug", "jinja2")
ETAG = ("ETag", '"v1"')
MINUTE = ("Cache-Control", "max-age=60")
Builder = Callable[[str, str], Subject]


class WrongAnswer(Exception):
    """A subject did not answer what its row says; timing it would be a lie."""


def expect(
    environ: Environ, *, status: str = "200", body: bytes = PAGE, cache: tuple[str, ...] = ()
) -> Callable[[App], None]:
    """Return a check: `status`, `body`, and a Cache-Status with the members' parts `cache`."""

    def check(app: App) -> None:
        answer = ask(app, environ)
        found = answer.get("Cache-Status")
        told = set(cache) <= set(found.split("; "))
        if not answer.status.startswith(status) or answer.body != body or not told:
            raise WrongAnswer(
                f"{answer.status}, {len(answer.body)} bytes, Cache-Status: {found or 'none'}; "
                f"expected {status}, {len(body)} bytes, {'; '.join(cache) or 'any'}"
            )

    return check


# --- requests that differ from call to call -----------------------------------------------------


def new_urls(base: Environ) -> Requests:
    """Return requests of which each is for a URL never asked for before."""
    numbers = count()

    def requests(wanted: int) -> Iterator[Environ]:
        for _, number in zip(range(wanted), numbers, strict=False):
            environ = base.copy()
            environ["PATH_INFO"] = environ["RAW_URI"] = f"{PATH}/{number:08d}"
            yield environ

    return requests


def decoded_anew(base: Environ) -> Requests:
    """Return requests whose client-made values are new strings, as a server decodes them.

    A copied environ shares its strings with the last one: their hashes are known, and comparing
    them ends at "the same object". This row shows what that flatters.
    """
    fixed = {key: value for key, value in base.items() if not isinstance(value, str)}
    texts = [(key, value.encode()) for key, value in base.items() if isinstance(value, str)]

    def requests(wanted: int) -> Iterator[Environ]:
        for _ in range(wanted):
            environ = fixed.copy()
            for key, raw in texts:
                environ[key] = raw.decode("latin-1")
            yield environ

    return requests


def each_after(act: Callable[[], object], base: Environ) -> Requests:
    """Return requests before each of which `act` was called; its time is not the app's."""

    def requests(wanted: int) -> Iterator[Environ]:
        for _ in range(wanted):
            act()
            yield base.copy()

    return requests


# --- the subjects -------------------------------------------------------------------------------


def bare(key: str, label: str) -> Subject:
    environ = browser_environ()
    return Subject(key, label, constant_app(), copies(environ), expect(environ))


def other(make: Callable[[], App], *, cached: bool = True) -> Builder:
    """Return a builder for another framework's app; `cached`: its view must not run again."""

    def build(key: str, label: str) -> Subject:
        environ = browser_environ()
        app = make()
        ask(app, environ)

        def check(app: App) -> None:
            before = Views.runs
            expect(environ)(app)
            if (Views.runs == before) is not cached:
                raise WrongAnswer(f"the view ran {Views.runs - before} times")

        return Subject(key, label, app, copies(environ), check)

    return build


def wsgicache(app: App, **options: Any) -> Any:
    """Return `app` under wsgicache with a memory store of its own."""
    from wsgicache import WSGICache

    return WSGICache(app, options.pop("store", "memory://?max_bytes=64MB"), **options)


def hit(
    *extra: tuple[str, str],
    changes: dict[str, str] | None = None,
    status: str = "200",
    body: bytes = PAGE,
    make: Callable[[Environ], Requests] = copies,
    rules: Callable[[], Sequence[Any]] = tuple,
    options: dict[str, Any] | None = None,
) -> Builder:
    """Return a builder for a hit on a page that was stored from a plain page view.

    `extra` are header lines of the app, `changes` what the timed request has beside the plain one, `options`
    those of the cache.
    """

    def build(key: str, label: str) -> Subject:
        cache = wsgicache(constant_app(*extra), rules=rules(), **(options or {}))
        for _ in ("stored", "hit"):
            ask(cache, browser_environ())
        environ = browser_environ(**(changes or {}))
        check = expect(environ, status=status, body=body, cache=("hit",))
        return Subject(key, label, cache, make(environ), check)

    return build


def hit_in_form(coding: str) -> Builder:
    """Return a builder for a hit on a page that has forms, by a client that wants it in one coding."""

    def build(key: str, label: str) -> Subject:
        cache = wsgicache(constant_app(), encode="gzip")
        environ = browser_environ(HTTP_ACCEPT_ENCODING=f"{coding}, deflate")
        for _ in ("stored", "hit", "form"):
            ask(cache, environ.copy())
            cache.engine.refresher.drain()
        body = PAGE if coding == "identity" else zlib.compress(PAGE, 6, 31)
        check = expect(environ, body=body, cache=("hit",))
        return Subject(key, label, cache, copies(environ), check)

    return build


def ten_rules() -> list[Any]:
    """Return a plausible set of rules; the last one is the one that applies to the page."""
    from wsgicache import Rule

    closed = ["/admin/*", "/account/*", "/cart", "/checkout/*", "/api/*", "/feed/*"]
    return [
        *(Rule(pattern, bypass=True) for pattern in closed),
        Rule("/static/*", ttl=86_400, override=True),
        Rule("/search", query="key", ignore_query=("utm_*", "gclid")),
        Rule("/blog/*", ttl=60),
        Rule(PATH, ttl=LIFETIME),
    ]


def hit_of_dear_page(key: str, label: str) -> Subject:
    """A hit on a page that is going to be refreshed early: its app takes long enough to be worth it."""
    from time import sleep

    app = constant_app()

    def dear(environ: Environ, start_response: Any) -> Any:
        sleep(0.005)
        return app(environ, start_response)

    cache = wsgicache(dear, early_refresh=1, jitter=5)
    for _ in ("stored", "hit"):
        ask(cache, browser_environ())
    (entry,) = cache.store.scan()
    assert entry.terms.cost >= 5
    environ = browser_environ()
    return Subject(key, label, cache, copies(environ), expect(environ, cache=("hit",)))


def hit_once_purged(key: str, label: str) -> Subject:
    """A hit while the journal holds a thousand purges of other URLs, all older than the entry's
    last check."""
    cache = wsgicache(constant_app())
    ask(cache, browser_environ())
    for number in range(1_000):
        cache.purge(f"/elsewhere/{number}")
    environ = browser_environ()
    return Subject(key, label, cache, copies(environ), expect(environ, cache=("hit",)))


def hit_after_purge(key: str, label: str) -> Subject:
    """Each hit is the first after one more purge of another URL."""
    cache = wsgicache(constant_app())
    ask(cache, browser_environ())
    environ = browser_environ()
    requests = each_after(lambda: cache.purge("/elsewhere"), environ)
    check = expect(environ, cache=("hit",))
    return Subject(key, label, cache, requests, check, max_calls=200)


def first_hit(key: str, label: str) -> Subject:
    """Each hit is the first of its entry, which has just been stored."""
    cache = wsgicache(constant_app(), store="memory://?max_bytes=1GB")
    fresh_urls = new_urls(browser_environ())

    def requests(wanted: int) -> Iterator[Environ]:
        for environ in fresh_urls(wanted):
            ask(cache, environ)
            yield environ

    check = _checks_one_of(requests, cache=("hit",))
    return Subject(key, label, cache, requests, check, max_calls=100)


def miss(store: str, **options: Any) -> Builder:
    """Return a builder for misses: key, collapse, capture and storing are paid on every request."""

    def build(key: str, label: str) -> Subject:
        cache = wsgicache(constant_app(), store=store, **options)
        requests = new_urls(browser_environ())
        check = _checks_one_of(requests, cache=("fwd=uri-miss", "stored"))
        return Subject(key, label, cache, requests, check, max_calls=500)

    return build


def _checks_one_of(requests: Requests, *, cache: tuple[str, ...]) -> Callable[[App], None]:
    def check(app: App) -> None:
        for environ in requests(1):
            expect(environ, cache=cache)(app)

    return check


def expired(app: Callable[[], App], *told: str) -> Builder:
    """Return a builder for requests that each find what the last one stored, its max-age over.

    The clock that the cache is given moves by a minute before each request.
    """

    def build(key: str, label: str) -> Subject:
        passed = [1_000_000_000.0]

        def later() -> None:
            passed[0] += 61

        cache = wsgicache(app(), clock=lambda: passed[0])
        ask(cache, browser_environ())
        requests = each_after(later, browser_environ())
        return Subject(key, label, cache, requests, _checks_one_of(requests, cache=told), max_calls=500)

    return build


def bypass(
    told: str,
    *,
    query: str = "",
    changes: dict[str, str] | None = None,
    rules: Callable[[], Sequence[Any]] = tuple,
) -> Builder:
    def build(key: str, label: str) -> Subject:
        cache = wsgicache(constant_app(), rules=rules())
        environ = browser_environ(query=query, **(changes or {}))
        environ["wsgi.input"] = io.BytesIO(b"a=1")
        return Subject(key, label, cache, copies(environ), expect(environ, cache=(told,)))

    return build


def page_rule() -> list[Any]:
    from wsgicache import Rule

    return [Rule(PATH, bypass=True, name="page")]


COOKIE = "_ga=GA1.1.1283412093.1718000000; _gid=GA1.2.893461231.1718000000"
PROXY = {
    "HTTP_X_FORWARDED_FOR": "198.51.100.4",
    "HTTP_X_FORWARDED_PROTO": "http",
    "HTTP_X_FORWARDED_HOST": "www.example.com",
    "HTTP_X_FORWARDED_PORT": "80",
}
POST = {
    "REQUEST_METHOD": "POST",
    "CONTENT_TYPE": "application/x-www-form-urlencoded",
    "CONTENT_LENGTH": "3",
}

COUNTED = {"dashboard": True, "admin_path": "/.cache", "secret": "a secret of a benchmark"}

ROWS: list[tuple[str, str, Builder]] = [
    ("bare", "bare constant WSGI app", bare),
    ("hit", "wsgicache: hit", hit()),
    ("hit-strings", "  hit, new strings in environ", hit(make=decoded_anew)),
    ("hit-rules", "  hit, 10 rules, the last applies", hit(rules=ten_rules)),
    ("hit-vary", "  hit, Vary: Accept-Encoding", hit(("Vary", "Accept-Encoding"))),
    ("hit-encode", "  hit, encode: the page itself", hit_in_form("identity")),
    ("hit-form", "  hit, encode: its gzip form", hit_in_form("gzip")),
    ("hit-cookie", "  hit, analytics cookie", hit(changes={"HTTP_COOKIE": COOKIE})),
    ("hit-proxy", "  hit, behind a proxy: X-Forwarded-*", hit(changes=PROXY)),
    (
        "hit-304",
        "  hit, If-None-Match: 304",
        hit(ETAG, changes={"HTTP_IF_NONE_MATCH": ETAG[1]}, status="304", body=b""),
    ),
    (
        "hit-range",
        "  hit, Range: 206 of 1 KB",
        hit(ETAG, changes={"HTTP_RANGE": "bytes=0-1023"}, status="206", body=PAGE[:1024]),
    ),
    ("hit-head", "  hit, HEAD", hit(changes={"REQUEST_METHOD": "HEAD"}, body=b"")),
    ("hit-early", "  hit, early_refresh and jitter", hit_of_dear_page),
    ("hit-purges", "  hit, 1,000 purges elsewhere before", hit_once_purged),
    ("hit-counted", "  hit, counted for the dashboard", hit(options=COUNTED)),
    ("hit-after-purge", "  hit, each right after a purge", hit_after_purge),
    ("hit-first", "  hit, the first of its entry", first_hit),
    ("miss", "wsgicache: miss, stored", miss("memory://?max_bytes=1GB")),
    (
        "miss-counted",
        "  miss, counted for the dashboard",
        miss("memory://?max_bytes=1GB", **COUNTED),
    ),
    ("miss-full", "  miss, stored, store full: evicts", miss("memory://?max_bytes=2MB")),
    (
        "miss-expired",
        "  miss, max-age over, stored again",
        expired(lambda: constant_app(MINUTE), "fwd-status=200", "stored"),
    ),
    (
        "revalidate",
        "  stale, freshened by the app's 304",
        expired(lambda: validating_app(MINUTE, ETAG), "fwd=stale", "fwd-status=304"),
    ),
    ("bypass-query", "wsgicache: bypass, query string", bypass("fwd=bypass", query="q=1")),
    ("bypass-rule", "  bypass, rule", bypass("fwd=bypass", rules=page_rule)),
    ("bypass-post", "  POST (invalidates the URL)", bypass("fwd=method", changes=POST)),
    ("flask", "Flask view, uncached (Jinja2)", other(_apps.flask_uncached, cached=False)),
    ("flask-caching", "Flask-Caching cached, SimpleCache", other(_apps.flask_caching_cached)),
    (
        "before-after",
        "before/after hooks, SimpleCache",
        other(lambda: _apps.before_after(store_again=True)),
    ),
    (
        "before-after-once",
        "  the same, a hit not stored again",
        other(lambda: _apps.before_after(store_again=False)),
    ),
    ("django", "Django cache middleware, locmem", other(_apps.django_locmem)),
]


# --- goals --------------------------------------------------------------------------------------

HITS = (
    "hit", "hit-rules", "hit-vary", "hit-encode", "hit-form", "hit-cookie", "hit-proxy", "hit-304",
    "hit-range", "hit-head",
)  # fmt: skip
FORWARDS = (
    "miss",
    "miss-full",
    "miss-expired",
    "revalidate",
    "bypass-query",
    "bypass-rule",
    "bypass-post",
)


@dataclass(frozen=True)
class Verdict:
    """One goal, judged on one row."""

    goal: str
    row: str
    ratio: float  # how far on the right side: 1 is exactly met, more is better

    @property
    def met(self) -> bool:
        return self.ratio >= 1

    def line(self) -> str:
        word = "met    " if self.met else "NOT met"
        return f"{word}  {self.goal:44}  {self.row:18}  {self.ratio:6.2f}"


def verdicts(subjects: Iterable[Subject]) -> list[Verdict]:
    """Judge what the measured subjects allow to judge. Other goals need servers or networks."""
    rows = {subject.key: subject for subject in subjects}
    return [*_over_bare(rows), *_faster(rows), *_counted(rows)]


def _over_bare(rows: dict[str, Subject]) -> list[Verdict]:
    judged: list[tuple[str, float, tuple[str, ...]]] = [
        ("1  hit at most 1.0 µs over bare", 1.0, HITS),
        ("6  miss, bypass at most 10 µs over bare", 10.0, FORWARDS),
    ]
    return [
        Verdict(goal, key, bound / max(rows[key].over(rows["bare"]), 1e-3))
        for goal, bound, keys in judged
        for key in keys
        if key in rows
    ]


def _faster(rows: dict[str, Subject]) -> list[Verdict]:
    if "hit" not in rows:
        return []
    hit_cost = rows["hit"].median
    return [
        Verdict("3  hit at least 50 times faster than", key, rows[key].median / hit_cost / 50)
        for key in ("flask-caching", "django")
        if key in rows
    ]


def _counted(rows: dict[str, Subject]) -> list[Verdict]:
    if not {"hit", "hit-counted"} <= rows.keys():
        return []
    ratio = 1.05 * rows["hit"].median / rows["hit-counted"].median
    return [Verdict("   a hit that is counted at most 5 % slower", "hit-counted", ratio)]


# --- running and printing -----------------------------------------------------------------------


@dataclass
class Run:
    """The subjects that can be timed here, and why the others cannot."""

    subjects: list[Subject]
    skipped: dict[str, list[str]]  # what is not installed -> rows
    wrong: list[str]


def prepare(only: Sequence[str]) -> Run:
    """Build and check the chosen rows; `bare` is always among them."""
    run = Run([], {}, [])
    for key, label, build in ROWS:
        if only and key != "bare" and not any(word in key for word in only):
            continue
        try:
            subject = build(key, label)
            subject.check(subject.app)
        except ImportError as error:
            run.skipped.setdefault(str(error), []).append(key)
        except WrongAnswer as error:
            run.wrong.append(f"WRONG ANSWER, not timed: {key}: {error}")
        else:
            run.subjects.append(subject)
    return run


def check_again(run: Run) -> None:
    """Check that what was timed still answers as its row says; what does not is taken out."""
    for subject in list(run.subjects):
        try:
            subject.check(subject.app)
        except WrongAnswer as error:
            run.subjects.remove(subject)
            run.wrong.append(f"WRONG ANSWER at the end, not shown: {subject.key}: {error}")


def noise(subjects: Sequence[Subject]) -> str:
    """Return a warning where the rounds differ so much that times of this run say little."""
    base = subjects[0]
    share = base.spread / base.median
    if share < 0.1:
        return ""
    return f"noisy run: ± is {share:.0%} of the bare app; repeat it when the machine is quiet\n"


def as_rows(subjects: Sequence[Subject]) -> list[list[str]]:
    """Return the cells of the table."""
    base = subjects[0]
    return [
        [
            subject.label,
            f"{subject.median:.2f}",
            f"{subject.best:.2f}",
            f"{subject.spread:.2f}",
            f"{subject.over(base):.2f}",
            f"{subject.median / base.median:.1f}",
        ]
        for subject in subjects
    ]


def as_json(run: Run, found: dict[str, str], judged: Sequence[Verdict]) -> dict[str, Any]:
    """Return the whole run, for machines. Times are µs per request."""
    base = run.subjects[0]
    return {
        "versions": found,
        "cpu": cpu_model(),
        "rows": {
            subject.key: {
                "label": subject.label.strip(),
                "median_us": subject.median,
                "min_us": subject.best,
                "spread_us": subject.spread,
                "over_bare_us": subject.over(base),
                "ratio_to_bare": subject.median / base.median,
                "rounds": len(subject.rounds),
                "calls_per_round": subject.calls,
            }
            for subject in run.subjects
        },
        "goals": [{"goal": one.goal, "row": one.row, "ratio": one.ratio, "met": one.met} for one in judged],
        "skipped": run.skipped,
        "wrong": run.wrong,
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=61, help="interleaved rounds (default 61)")
    parser.add_argument(
        "--number", type=int, default=2_000, help="most calls per row and round (default 2000)"
    )
    parser.add_argument("--only", default="", help="rows whose key contains one of these words: hit,flask")
    parser.add_argument(
        "--build", choices=("python", "compiled"), default="python", help="of wsgicache (default python)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole run there too")
    return parser.parse_args(arguments)


HEAD = ["", "µs", "min", "±", "over bare", "x bare"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when a subject answered wrongly."""
    options = parse(arguments)
    try:
        choose(options.build)
    except Missing as error:
        raise SystemExit(f"not installed: {error}") from error
    found = versions(*PACKAGES)
    print(describe(found))
    if options.build == "compiled":
        print("the compiled build of wsgicache")
    run = prepare([word for word in options.only.split(",") if word])
    measure(run.subjects, rounds=options.rounds, number=options.number)
    check_again(run)
    judged = verdicts(run.subjects)
    print(f"\nµs per request, medians of {options.rounds} interleaved rounds\n")
    print(table(HEAD, as_rows(run.subjects)))
    print(noise(run.subjects), end="")
    if judged:
        print("\ngoals, and how far on the right side (1 = exactly met)")
        print("\n".join(verdict.line() for verdict in judged))
    for missing, keys in run.skipped.items():
        print(f"skipped, not installed ({missing}): {', '.join(keys)}")
    print("\n".join(run.wrong))
    if options.json:
        text = json.dumps(as_json(run, found, judged), indent=2)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if run.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
