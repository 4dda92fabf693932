"""A site with one large download, whose workers tell how much memory they took; on a real server.

python big_app.py KIND DESCRIPTOR STORE SPOOL_DIR
"""

import os
import socket
import sys

from wsgicache import Rule, WSGICache

SIZE = 64 << 20
CHUNK = 256 << 10
UNIT = b"".join([(number * 2654435761).to_bytes(8, "big") for number in range(CHUNK // 8)])


def chunk(number):
    """A part of the body; each is different."""
    return number.to_bytes(8, "big") + UNIT[8:]


def memory():
    """Bytes: the most that this process ever held, and what it holds."""
    with open("/proc/self/status", encoding="ascii") as file:
        lines = dict(line.split(":", 1) for line in file)
    return " ".join([str(int(lines[name].split()[0]) * 1024) for name in ("VmHWM", "VmRSS")])


calls = 0


def app(environ, start_response):
    """`/memory` tells, everything else is the download."""
    global calls
    if environ["PATH_INFO"] == "/memory":
        start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store")])
        return [f"{os.getpid()} {memory()} {calls}".encode()]
    calls += 1
    start_response(
        "200 OK",
        [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", str(SIZE)),
            ("Cache-Control", "max-age=600"),
        ],
    )
    return (chunk(number) for number in range(SIZE // CHUNK))


def main(kind, descriptor, store, spool_dir):
    rules = [Rule("/downloads/*", max_body_bytes=500_000_000)]
    cache = WSGICache(app, store=store, rules=rules, spool_dir=spool_dir)
    listening = socket.socket(fileno=int(descriptor))
    if kind == "waitress":
        import waitress

        # By itself it keeps up to 16 MiB of a response for each connection, whatever the app does.
        waitress.serve(cache, sockets=[listening], threads=8, outbuf_high_watermark=1 << 20)
        return
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):
        def load_config(self):
            fd = listening.detach()
            options = {"bind": f"fd://{fd}", "worker_class": kind, "threads": 8, "workers": 1, "timeout": 120}
            for name, value in options.items():
                self.cfg.set(name, value if kind != "sync" or name != "threads" else 1)

        def load(self):
            return cache

    Server().run()


if __name__ == "__main__":
    main(*sys.argv[1:])
