"""A caching reverse proxy: any origin on the network behind the cache.

    python examples/proxy.py --origin http://127.0.0.1:9000 --port 8080 --profile rfc

`wsgicache.proxy` is the way to the origin; here it is served, by servers that keep what it passes on as it
was said. Other options of the cache come from `WSGICACHE_...` environment variables, such as
`WSGICACHE_STALE_IF_ERROR=600`. To try the cache before an origin, `wsgicache serve URL` is shorter.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from wsgicache import WSGICache
from wsgicache.proxy import Fields, Origin, Proxy

# --- serving ---------------------------------------------------------------------------------------


def serve_with_gunicorn(app: Callable[..., Any], host: str, port: int, threads: int) -> None:
    """One worker process (memory:// is one process's) with threads, until a signal ends it."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.http import wsgi

    class Response(wsgi.Response):
        """gunicorn puts its own Date and Server in place of the app's; an origin's are kept here."""

        def process_headers(self, headers: Fields) -> None:
            super().process_headers(headers)
            kept = [pair for pair in headers if pair[0].lower() in ("date", "server")]
            self.headers = kept + self.headers

        def default_headers(self) -> list[str]:
            given = {name.lower() for name, _ in self.headers}
            return [line for line in super().default_headers() if line.partition(":")[0].lower() not in given]

    class Server(BaseApplication):
        def load_config(self) -> None:
            settings = {
                "bind": f"{host}:{port}",
                "worker_class": "gthread",
                "threads": threads,
                "keepalive": 75,
                "permit_unconventional_http_method": True,
                "control_socket_disable": True,
                "when_ready": lambda arbiter: _say_ready(host, arbiter.LISTENERS[0].sock.getsockname()[1]),
            }
            for name, value in settings.items():
                if name in self.cfg.settings:  # not every version knows every setting
                    self.cfg.set(name, value)

        def load(self) -> Callable[..., Any]:
            return app

    wsgi.Response = Response
    Server().run()


def serve_with_waitress(app: Callable[..., Any], host: str, port: int, threads: int) -> None:
    """waitress keeps Date, sorts fields by name and writes names with capitals."""
    import waitress

    server = waitress.create_server(
        app, host=host, port=port, threads=threads, ident=None, clear_untrusted_proxy_headers=False
    )
    _say_ready(host, server.effective_port)
    server.run()


def _say_ready(host: str, port: int) -> None:
    print(f"Listening on http://{host}:{port}", flush=True)


SERVERS = {"gunicorn": serve_with_gunicorn, "waitress": serve_with_waitress}


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(description="Put wsgicache in front of any origin.")
    parser.add_argument("--origin", required=True, help="such as http://127.0.0.1:9000")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on; 0 takes a free one")
    parser.add_argument("--server", choices=sorted(SERVERS), default="gunicorn")
    parser.add_argument("--threads", type=int, default=16)
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds to wait for the origin")
    parser.add_argument("--profile", choices=("safe", "rfc"), default="safe")
    parser.add_argument(
        "--origin-host", action="store_true", help="send the origin's name as Host instead of the client's"
    )
    given = parser.parse_args(arguments)
    proxy = Proxy(Origin(given.origin, given.timeout), keep_host=not given.origin_host)
    cache = WSGICache.from_env(proxy, profile=given.profile)
    SERVERS[given.server](cache, given.host, given.port, given.threads)


if __name__ == "__main__":
    main()
