"""What a large download costs: speed and memory, from memory and from a file, through gunicorn.

    python benchmarks/big_bodies.py [--sizes 10,100] [--rounds 5] [--clients 4] [--json FILE]

Each row is a gunicorn of its own with one worker of threads, over the loopback interface. How to read it:
README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from _apps import Environ, StartResponse
from _measure import describe, table, versions
from _servers import Missing, needs

MB = 1_000_000
CHUNK = bytes(range(256)) * 256
ROWS = {
    "memory": ("memory://, in memory", {"spool_max_bytes": 0}, {}),
    "file": ("memory://, in a file, sendfile", {}, {}),
    "blocks": ("memory://, in a file, in blocks", {}, {"without": True}),
    "lmdb": ("lmdb://, in the database", {"spool_max_bytes": 0, "store": "lmdb"}, {}),
    "lmdb-file": ("lmdb://, in a file, sendfile", {"store": "lmdb"}, {}),
}
"""The name of a row, its label, options of the cache, and whether the server's file wrapper is taken away."""


def app_of(size: int) -> Any:
    """An app whose body is `size` bytes, made as it is asked for."""

    def app(environ: Environ, start_response: StartResponse) -> Any:
        if environ["PATH_INFO"] == "/memory":
            with open("/proc/self/status", encoding="ascii") as file:
                lines = dict(line.split(":", 1) for line in file)
            told = str(int(lines["VmHWM"].split()[0]) * 1024).encode()
            length = ("Content-Length", str(len(told)))
            start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", "no-store"), length])
            return [told]
        headers = [("Content-Type", "application/octet-stream"), ("Content-Length", str(size))]
        start_response("200 OK", [*headers, ("Cache-Control", "max-age=3600")])
        whole, left = divmod(size, len(CHUNK))
        return (CHUNK if number < whole else CHUNK[:left] for number in range(whole + bool(left)))

    return app


def serve(row: str, size: int, descriptor: int, directory: str) -> None:
    """Be the server of a row until a signal."""
    from gunicorn.app.base import BaseApplication

    from wsgicache import WSGICache

    _, options, how = ROWS[row]
    room = 4 * size + 16 * MB
    store = (
        f"lmdb://{directory}/db?max_bytes={2 * room}" if "store" in options else f"memory://?max_bytes={room}"
    )
    spool = options.get("spool_max_bytes", room)
    cache = WSGICache(
        app_of(size), store=store, max_body_bytes=size, spool_max_bytes=spool, spool_dir=f"{directory}/spool"
    )

    def without(environ: Environ, start_response: StartResponse) -> Any:
        return cache({k: v for k, v in environ.items() if k != "wsgi.file_wrapper"}, start_response)

    class Server(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            for name, value in {
                "bind": f"fd://{descriptor}",
                "worker_class": "gthread",
                "threads": 8,
            }.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return without if how else cache

    Server().run()


@contextmanager
def running(row: str, size: int) -> Iterator[int]:
    """The port of a row's server."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
            port, descriptor = listening.getsockname()[1], listening.fileno()
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve", row, str(size), str(descriptor), directory],
                pass_fds=[descriptor],
                stderr=subprocess.DEVNULL,
            )
        try:
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def get(port: int, path: str = "/big.iso") -> tuple[bytes, int]:
    """One request; the head and the beginning of the body, and how many bytes of body came."""
    buffer = bytearray(1 << 20)
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        start = b""
        while b"\r\n\r\n" not in start and (more := connection.recv(4096)):
            start += more
        size = len(start.partition(b"\r\n\r\n")[2])
        while got := connection.recv_into(buffer):
            size += got
            if size < 100:
                start += buffer[:got]
    return start, size


def peak(port: int) -> int:
    return int(get(port, "/memory")[0].partition(b"\r\n\r\n")[2])


class Row:
    """A running server and what it took."""

    def __init__(self, name: str, size: int, port: int) -> None:
        self.name, self.size, self.port = name, size, port
        before = peak(port)
        head, _ = get(port)
        assert b"stored" in head, head
        self.stored = peak(port) - before
        self._before = before
        self.speeds: list[float] = []

    def ask(self, clients: int) -> None:
        """Several at once; notes the bytes a second of all together."""
        began = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            for head, got in pool.map(get, [self.port] * clients):
                if b"; hit" not in head or got != self.size:
                    raise RuntimeError(f"{self.name}: {got} bytes, {head[:300]!r}")
        self.speeds.append(clients * self.size / (time.perf_counter() - began))

    @property
    def grown(self) -> int:
        return peak(self.port) - self._before


def run(size: int, rounds: int, clients: int) -> list[dict[str, Any]]:
    """All rows of one size, their rounds interleaved."""
    with ExitStack() as stack:
        rows = [Row(name, size, stack.enter_context(running(name, size))) for name in ROWS]
        for _ in range(rounds):
            for row in rows:
                row.ask(clients)
        base = statistics.median(rows[0].speeds)
        return [
            {
                "row": row.name,
                "size": size,
                "bytes_per_second": statistics.median(row.speeds),
                "ratio": statistics.median(row.speeds) / base,
                "stored": row.stored,
                "grown": row.grown,
            }
            for row in rows
        ]


def cells(one: dict[str, Any]) -> list[str]:
    """A line of the table."""
    numbers = [f"{one['size'] / MB:g}", f"{one['bytes_per_second'] / MB:.0f}", f"{one['ratio']:.2f}"]
    return [ROWS[one["row"]][0], *numbers, f"{one['stored'] / MB:.1f}", f"{one['grown'] / MB:.1f}"]


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        row, size, descriptor, directory = sys.argv[2:]
        serve(row, int(size), int(descriptor), directory)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sizes", default="10,100", help="of the body, MB (default 10,100)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=4, help="at once (default 4)")
    parser.add_argument("--json", help="also write the numbers to this file")
    options = parser.parse_args()
    try:
        for package in ("gunicorn", "lmdb"):
            needs(package)
    except Missing as missing:
        print(missing)
        return 1
    print(describe(versions("gunicorn", "lmdb")))
    sizes = [int(float(mb) * MB) for mb in options.sizes.split(",")]
    found = [one for size in sizes for one in run(size, options.rounds, options.clients)]
    head = [
        "where it is, and how it goes out",
        "body, MB",
        "MB/s",
        "x memory",
        "grew storing, MB",
        "in all, MB",
    ]
    print(table(head, [cells(one) for one in found]))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    sys.exit(main())
