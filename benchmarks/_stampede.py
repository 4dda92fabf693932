"""The sites that `stampede.py` runs into, each in a gunicorn of its own: one page that takes its time.

    python benchmarks/_stampede.py SITE LISTENING_FD RUNS_FILE [--store URL] [--processes 2] ...

Each run of the view appends a byte to RUNS_FILE, so that runs are counted whatever process they are in.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

from _apps import PAGE, App
from _serve import gunicorn
from flask import Flask, Response

View = Callable[[str, int], Response]
Make = Callable[[argparse.Namespace], App]


def slow_view(options: argparse.Namespace, control: Callable[[str], str | None]) -> View:
    """A view that takes `--view-seconds`; `control` gives the Cache-Control for a kind of page."""
    runs = os.open(options.runs, os.O_WRONLY | os.O_APPEND)

    def view(kind: str, number: int) -> Response:
        os.write(runs, b".")
        time.sleep(options.view_seconds)
        response = Response(PAGE, content_type="text/html; charset=utf-8")
        stated = control(kind)
        if stated is not None:
            response.headers["Cache-Control"] = stated
        return response

    return view


def bare(options: argparse.Namespace) -> App:
    """Flask alone."""
    site = Flask("stampede")
    site.add_url_rule("/<kind>/<int:number>", view_func=slow_view(options, lambda kind: None))
    return site.wsgi_app


def flask_caching(options: argparse.Namespace) -> App:
    """Flask-Caching's `cached`, with SimpleCache or over Redis, and the lifetime as its timeout."""
    from flask_caching import Cache

    config = {"CACHE_TYPE": "SimpleCache"}
    if options.store.startswith("redis"):
        config = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_URL": options.store}
    site = Flask("stampede")
    cache = Cache(site, config=config)
    view = cache.cached(timeout=options.lifetime)(slow_view(options, lambda kind: None))
    site.add_url_rule("/<kind>/<int:number>", view_func=view)
    return site.wsgi_app


def wsgicache(options: argparse.Namespace) -> App:
    """WSGICache over the store; the page states its lifetime, and its window if its kind has one."""
    from wsgicache import WSGICache

    def control(kind: str) -> str:
        window = ", stale-while-revalidate=60" if kind == "window" else ""
        return f"max-age={options.lifetime}{window}"

    site = Flask("stampede")
    site.add_url_rule("/<kind>/<int:number>", view_func=slow_view(options, control))
    near = "16MB" if options.site.endswith("-near") else None
    # The machine is busier than a site's would be: a store is given up later than by default.
    return WSGICache(site.wsgi_app, options.store, store_timeout=2.0, near=near)


def make(options: argparse.Namespace) -> App:
    """The app of a site, by the beginning of its name; what follows names the store."""
    makers: dict[str, Make] = {"bare": bare, "flask-caching": flask_caching, "wsgicache": wsgicache}
    return next(make for name, make in makers.items() if options.site.startswith(name))(options)


def serve(options: argparse.Namespace) -> None:
    """Run gunicorn with threads until SIGTERM."""
    gunicorn(
        lambda: make(options),
        bind=f"fd://{options.fd}",
        workers=options.processes,
        threads=options.threads,
        graceful_timeout=2,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that the server and the benchmark share."""
    parser.add_argument("--processes", type=int, default=2, help="worker processes; memory:// is one's own")
    parser.add_argument("--threads", type=int, default=25, help="threads of each process")
    parser.add_argument("--view-seconds", type=float, default=0.5, help="how long the view takes")
    parser.add_argument("--lifetime", type=int, default=1, help="seconds that a page stays fresh")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("site")
    parser.add_argument("fd", type=int)
    parser.add_argument("runs")
    parser.add_argument("--store", default="memory://")
    add_options(parser)
    serve(parser.parse_args())
