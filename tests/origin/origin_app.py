"""What runs inside a server under test: an app that asks the test what to answer, behind wsgicache.

    python origin_app.py KIND LISTENING_FD          KIND: sync, gthread or waitress

The app knows nothing: for each request it connects to the test process (`ORIGIN_PORT`), tells what it was
asked, and answers as it is told, chunk by chunk. So a test holds both ends, the client's and the app's,
whatever server, process or thread is in between. See `origin_script` for the other side.

A request for the host `rfc.test` goes through a cache with the profile rfc, every other through a safe one.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from typing import Any

from wsgicache import WSGICache

Environ = dict[str, Any]


class Told:
    """One request's line to the test, and its body as it is told: an iterable with a `close()`."""

    def __init__(self, environ: Environ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", int(os.environ["ORIGIN_PORT"])), 30)
        self._lines = self._socket.makefile("rb")
        texts = {name: value for name, value in environ.items() if isinstance(value, str)}
        body = environ["wsgi.input"].read().decode("latin-1")
        flags = {name: environ[name] for name in ("wsgi.multithread", "wsgi.multiprocess")}
        self.tell(environ={**texts, **flags}, body=body, pid=os.getpid())
        self.head = self.hear()

    def tell(self, **what: Any) -> None:
        self._socket.sendall(json.dumps(what).encode() + b"\n")

    def hear(self) -> Any:
        told = json.loads(self._lines.readline())
        if "error" in told:
            raise RuntimeError(told["error"])
        return told

    def __iter__(self) -> Told:
        return self

    def __next__(self) -> bytes:
        told = self.hear()
        if "chunk" not in told:
            raise StopIteration
        return bytes(told["chunk"], "latin-1")

    def close(self) -> None:
        """The server is done with the response, or has given up."""
        try:
            self.tell(closed=True)
        except OSError:
            pass  # the test has ended already
        self._lines.close()
        self._socket.close()


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer as told."""
    told = Told(environ)
    try:
        head, kind = told.head, told.head["kind"]
        if head["hints"]:
            environ["wsgi.early_hints"](head["hints"])
        write = start_response(head["status"], [tuple(pair) for pair in head["headers"]])
        if kind == "stream":
            return told
        if kind == "write":
            for chunk in told:
                write(chunk)
            told.close()
            return []
        if kind == "file":
            told.close()
            return environ["wsgi.file_wrapper"](open(head["file"], "rb"))
        chunks = list(told)
        told.close()
        return chunks
    except BaseException:
        told.close()
        raise


def by_host(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Two caches in one process, so that there need not be two of each server."""
    cache = rfc if environ.get("HTTP_HOST") == "rfc.test" else safe
    return cache(environ, start_response)


safe = WSGICache(app, max_key_bytes=2000)
rfc = WSGICache(app, profile="rfc")


# --- servers ---------------------------------------------------------------------------------------


def serve_with_gunicorn(kind: str, descriptor: int) -> None:
    """One worker; `ORIGIN_MAX_REQUESTS` makes it end after so many requests."""
    from gunicorn.app.base import BaseApplication
    from gunicorn.http import wsgi

    sendfile = wsgi.Response.sendfile

    def noted(self: Any, iterable: Any) -> bool:
        used = bool(sendfile(self, iterable))
        print(f"sendfile used: {used}", flush=True)
        return used

    class Server(BaseApplication):
        def load_config(self) -> None:
            settings = {
                "bind": f"fd://{descriptor}",
                "worker_class": kind,
                "threads": 8 if kind == "gthread" else 1,
                "keepalive": 5,
                "graceful_timeout": 3,
                "max_requests": int(os.environ.get("ORIGIN_MAX_REQUESTS", "0")),
                "control_socket_disable": True,
            }
            for name, value in settings.items():
                if name in self.cfg.settings:  # not every version knows every setting
                    self.cfg.set(name, value)

        def load(self) -> Any:
            return by_host

    wsgi.Response.sendfile = noted
    Server().run()


def serve_with_waitress(kind: str, descriptor: int) -> None:
    """Eight threads, until SIGTERM."""
    import waitress

    def end(*_: Any) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    listening = socket.socket(fileno=descriptor)
    waitress.serve(by_host, sockets=[listening], threads=8)


SERVERS = {
    "sync": serve_with_gunicorn,
    "gthread": serve_with_gunicorn,
    "waitress": serve_with_waitress,
}


def end_with_the_test() -> None:
    """Where the system can, be told when the test process is killed, so that no server is left behind."""
    if sys.platform == "linux":
        import ctypes

        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)


if __name__ == "__main__":
    end_with_the_test()
    logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.INFO)
    SERVERS[sys.argv[1]](sys.argv[1], int(sys.argv[2]))
