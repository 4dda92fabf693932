"""One site under one WSGI server, in a process of its own, until SIGTERM: what `overhttp.py` starts.

    python benchmarks/_serve.py SERVER SITE PORT [--store URL]

One worker process; threads as the server's manual has them. No TLS, no access log.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import _apps
from _apps import App, Environ, StartResponse, Views, constant_app
from _build import choose

HOST = "127.0.0.1"
RUNS = "/runs"
"""Where the sites of frameworks tell how often their view ran."""

GUNICORN_THREADS = 4


ETAG = ("ETag", '"v1"')
"""The bare app tells a validator, so that its answer and a hit have the same fields but for Age and
Cache-Status: some servers take a microsecond for each."""


ON_HITS = (("Age", "12"), ("Cache-Status", "wsgicache; hit; ttl=288"))
"""What a hit adds, for a row that shows what two fields more cost under a server."""

# --- sites -----------------------------------------------------------------------------------------


def counted(app: App) -> App:
    """Return `app`, telling at `RUNS` how often a view ran. It costs a tenth of a microsecond."""

    def telling(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != RUNS:
            return app(environ, start_response)
        told = str(Views.runs).encode()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(told)))])
        return [told]

    return telling


def cached(store: str) -> App:
    """Return the bare app under wsgicache with default options."""
    from wsgicache import WSGICache

    return WSGICache(constant_app(ETAG), store)


SITES: dict[str, Callable[[str], App]] = {
    "bare": lambda store: constant_app(ETAG),
    "fields": lambda store: constant_app(ETAG, *ON_HITS),
    "hit": cached,
    "compiled": cached,
    "lmdb": cached,
    "flask": lambda store: counted(_apps.flask_uncached()),
    "flask-caching": lambda store: counted(_apps.flask_caching_cached()),
    "before-after": lambda store: counted(_apps.before_after(store_again=True)),
    "django": lambda store: counted(_apps.django_locmem()),
}


# --- servers ---------------------------------------------------------------------------------------


def gunicorn(make: Callable[[], App], **settings: Any) -> None:
    """Serve what `make` makes in each worker. `settings` are gunicorn's; unknown ones are left out."""
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            common = {"worker_class": "gthread", "loglevel": "warning", "control_socket_disable": True}
            for name, value in {**common, **settings}.items():
                if name in self.cfg.settings:  # not every version knows every setting
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return make()

    Server().run()


def _gunicorn(make: Callable[[], App], port: int) -> None:
    gunicorn(make, bind=f"{HOST}:{port}", workers=1, threads=GUNICORN_THREADS)


def _waitress(make: Callable[[], App], port: int) -> None:
    import waitress

    waitress.serve(make(), host=HOST, port=port)


def _granian(make: Callable[[], App], port: int) -> None:
    from granian import Granian
    from granian.constants import Interfaces
    from granian.log import LogLevels

    server = Granian(
        "site", address=HOST, port=port, interface=Interfaces.WSGI, workers=1, log_level=LogLevels.warning
    )
    server.serve(target_loader=make, wrap_loader=False)


def _fastwsgi(make: Callable[[], App], port: int) -> None:
    import fastwsgi

    fastwsgi.run(make(), host=HOST, port=port)


def _fastpysgi(make: Callable[[], App], port: int) -> None:
    import fastpysgi

    fastpysgi.run(make(), host=HOST, port=port)


def _bjoern(make: Callable[[], App], port: int) -> None:
    import bjoern

    bjoern.run(make(), HOST, port)


SERVE: dict[str, Callable[[Callable[[], App], int], None]] = {
    "gunicorn": _gunicorn,
    "waitress": _waitress,
    "granian": _granian,
    "bjoern": _bjoern,
    "fastwsgi": _fastwsgi,
    "fastpysgi": _fastpysgi,
}


def make_site(name: str, store: str) -> App:
    """Return the site of that name, over the build that it names."""
    choose("compiled" if name == "compiled" else "python")
    return SITES[name](store)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("server", choices=list(SERVE))
    parser.add_argument("site", choices=list(SITES))
    parser.add_argument("port", type=int)
    parser.add_argument("--store", default="memory://")
    given = parser.parse_args()
    SERVE[given.server](partial(make_site, given.site, given.store), given.port)
