"""Real servers, each a process with one listening socket that the test made: no port is guessed, and a
connection made too early waits in the socket's queue."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from origin_client import Answered, Client
from origin_script import Origin

APP = Path(__file__).with_name("origin_app.py")
ROOT = Path(__file__).resolve().parents[2]

KINDS = ("sync", "gthread", "waitress")
THREADED = ("gthread", "waitress")
GUNICORN = ("sync", "gthread")

SEND_BUFFER = 16_384
"""Bytes that the kernel takes from the server for a client that does not read; small, so that it is felt."""


class Server:
    """One running server.

    Args:
        kind: one of KINDS.
        origin: what its app asks.
        log: the file that its output goes to.
        variables: environment variables for it.
    """

    def __init__(self, kind: str, origin: Origin, log: Path, **variables: str) -> None:
        self.kind = kind
        self._log = log
        with socket.create_server(("127.0.0.1", 0), backlog=100) as listening, log.open("wb") as output:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            self.port: int = listening.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, str(APP), kind, str(listening.fileno())],
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "ORIGIN_PORT": str(origin.port), **variables},
            )

    @property
    def keeps_alive(self) -> bool:
        """Whether it serves more than one request on a connection."""
        return self.kind != "sync"

    def log(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def connect(self, receive_buffer: int = 0) -> Client:
        """A new connection."""
        return Client(self.port, receive_buffer)

    def get(self, target: str, *lines: str, **how: object) -> Answered:
        """One request on a connection of its own."""
        with self.connect() as client:
            return client.get(target, *lines, **how)

    def stop(self, timeout: float = 10.0) -> int:
        """End it by SIGTERM; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


@contextmanager
def running(kind: str, origin: Origin, directory: Path, **variables: str) -> Iterator[Server]:
    """A server for one test."""
    server = Server(kind, origin, directory / f"{kind}.log", **variables)
    try:
        yield server
    finally:
        server.stop()
