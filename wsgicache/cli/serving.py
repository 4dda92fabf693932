"""`serve`: try the cache over any WSGI app, or before an origin on the network, in one command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from socketserver import ThreadingMixIn
from typing import Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import click

from ..cache import WSGICache
from ..config import PREFIX
from ..key import plain_target
from ..options import OPTIONS, OptionError, read_option, settings_from
from ..proxy import Origin, Proxy
from ..stores import shown
from .errors import Failure
from .load import find_cache, load_app
from .options import json_option, source_options
from .output import Output, clean
from .site import Source, open_site

App = Callable[..., Iterable[bytes]]


@click.command(short_help="Try the cache over an app or an origin.")
@click.argument("target", metavar="APP_OR_URL")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option("--threads", default=8, show_default=True, type=click.IntRange(1), help="Threads (waitress).")
@click.option(
    "--server", type=click.Choice(["auto", "waitress", "wsgiref"]), default="auto", show_default=True
)
@click.option(
    "-o",
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the cache.",
)
@click.option(
    "--keep-host", is_flag=True, help="Send the client's Host to the origin, not the origin's name."
)
@click.option("--quiet", is_flag=True, help="No line for each request.")
@source_options
@json_option
def serve(
    target: str,
    host: str,
    port: int,
    threads: int,
    server: str,
    options: tuple[str, ...],
    keep_host: bool,
    quiet: bool,
    source: Source,
    out: Output,
) -> None:
    """Serve a WSGI app (module:attribute) or an origin (http://…) behind the cache, to try it.

    Each request is told with what the cache did. Options come from --ini, --mapping or WSGICACHE_…
    and from -o; without any the cache is as WSGICache(app) makes it. A site itself is served by gunicorn.
    """
    app = _target(target, keep_host)
    cache = find_cache(app)
    if cache is not None:
        if options or source != Source():
            raise Failure(f"{target} has a cache of its own, with its own options: leave out -o and the rest")
        whole: App = app
    else:
        whole = cache = _wrapped(app, source, options)
    told = whole if quiet else _Telling(whole, out)
    settings = cache.engine.settings
    where = settings.store if isinstance(settings.store, str) else type(settings.store).__name__

    def ready(bound: int) -> None:
        if out.as_json:
            out.line(
                {"listening": f"http://{host}:{bound}", "store": shown(where), "profile": settings.profile}
            )
        else:
            out.say(f"{target} behind the cache ({shown(where)}, profile {settings.profile})")
            out.say(f"Listening on http://{host}:{bound} until Ctrl-C")
        sys.stdout.flush()

    logging.basicConfig(level=logging.WARNING)  # here the cache's own log is worth seeing
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        _SERVERS[_chosen(server)](told, host, port, threads, ready)
    except OSError as error:
        raise Failure(f"{host}:{port}: {error.strerror or error}; choose another with --port") from None
    except KeyboardInterrupt:
        pass
    finally:
        cache.close()
        if isinstance(app, Proxy):
            app.origin.close()


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _target(target: str, keep_host: bool) -> App:
    if not target.lower().startswith(("http://", "https://")):
        app: App = load_app(target, "serve")
        return app
    try:
        return Proxy(Origin(target), keep_host=keep_host)
    except ValueError as error:
        raise Failure(str(error)) from None


def _wrapped(app: App, source: Source, options: tuple[str, ...]) -> WSGICache:
    """The app behind a cache with the options that were given."""
    if source.app is not None:
        raise Failure("the app to serve is the argument; --app is for the other commands")
    named = source != Source() or any(name.startswith(PREFIX) for name in os.environ)
    try:
        if named:
            site = open_site(replace(source))
            settings, rules = site.settings, site.rules
        else:
            settings, rules = settings_from({}), ()
        return WSGICache.from_settings(app, replace(settings, **_read(options)), rules)
    except OptionError as error:
        raise Failure(str(error)) from None


def _read(options: tuple[str, ...]) -> dict[str, Any]:
    read = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name in ("rules", "clock"):
            raise Failure(f"-o {option}: write NAME=VALUE; the names are in docs/options.md")
        read[name] = read_option(OPTIONS, name, value, "-o")
    return read


class _Telling:
    """Around the cache: says what became of each request."""

    def __init__(self, app: App, out: Output) -> None:
        self._app = app
        self._out = out

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        began = time.perf_counter()

        def telling(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            self._tell(environ, status, headers, time.perf_counter() - began)
            return start_response(status, headers, *exc_info)

        return self._app(environ, telling)

    def _tell(
        self, environ: dict[str, Any], status: str, headers: list[tuple[str, str]], took: float
    ) -> None:
        said = next((value for name, value in reversed(headers) if name.lower() == "cache-status"), "-")
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        path = plain_target(path, environ.get("QUERY_STRING", ""))
        method = environ.get("REQUEST_METHOD", "")
        if self._out.as_json:
            told = {"method": method, "path": path, "status": int(status[:3]), "seconds": round(took, 6)}
            self._out.line({**told, "cache_status": said})
        else:
            said = said.removeprefix("wsgicache; ")
            click.echo(clean(f"{method} {path}  {status[:3]}  {took * 1000:.1f} ms  {said}"))
        sys.stdout.flush()


# --- servers ---------------------------------------------------------------------------------------


def _chosen(server: str) -> str:
    if server != "auto":
        return server
    try:
        import waitress  # noqa: F401
    except ImportError:
        return "wsgiref"
    return "waitress"


def _with_waitress(app: App, host: str, port: int, threads: int, ready: Callable[[int], None]) -> None:
    try:
        import waitress
    except ImportError:
        raise Failure("waitress is not installed: pip install waitress, or --server wsgiref") from None
    server = waitress.create_server(
        app, host=host, port=port, threads=threads, ident=None, clear_untrusted_proxy_headers=False
    )
    ready(server.effective_port)
    try:
        server.run()
    finally:
        server.close()


class _Threaded(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    @property
    def address_family(self) -> int:  # type: ignore[override]
        return socket.AF_INET6 if ":" in self._host else socket.AF_INET

    _host = ""


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """The cache's own line says more."""


def _with_wsgiref(app: App, host: str, port: int, threads: int, ready: Callable[[int], None]) -> None:
    family = type("Server", (_Threaded,), {"_host": host})
    server: WSGIServer
    with make_server(host, port, app, family, _Quiet) as server:
        ready(server.server_port)
        server.serve_forever()


_SERVERS: Final = {"waitress": _with_waitress, "wsgiref": _with_wsgiref}
