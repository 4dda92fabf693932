"""A download of 64 MB through real servers: every byte arrives, and no worker ever holds the body."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from big_app import CHUNK, SIZE, chunk
from waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BOUND = 24 << 20
"""Bytes by which a worker may grow; the body alone would be more than twice as much."""

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]


@pytest.fixture(scope="module")
def expected():
    """The digest of the whole body."""
    digest = hashlib.blake2b()
    for number in range(SIZE // CHUNK):
        digest.update(chunk(number))
    return digest.hexdigest()


@contextmanager
def running(kind, store, tmp_path):
    app = Path(__file__).with_name("big_app.py")
    log = tmp_path / "log"
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening, log.open("wb") as output:
        # waitress reads as much of a file at a time as this says
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        port, descriptor = listening.getsockname()[1], listening.fileno()
        process = subprocess.Popen(
            [sys.executable, str(app), kind, str(descriptor), store, str(tmp_path / "spool")],
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""},
        )
    try:
        yield port
    finally:
        # waitress ends at once by SIGTERM, as if it was killed: whoever comes next sweeps
        process.send_signal(signal.SIGINT if kind == "waitress" else signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


def download(port, headers=None):
    """The head and a digest of the body of one download."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/downloads/big.iso", headers=headers or {})
        response = connection.getresponse()
        digest, size = hashlib.blake2b(), 0
        while block := response.read(1 << 18):
            digest.update(block)
            size += len(block)
        return response.status, response.getheader("Cache-Status"), size, digest.hexdigest()
    finally:
        connection.close()


def told(port):
    """The worker's process id, its peak and present memory in bytes, and the calls of the app."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/memory")
        return [int(word) for word in connection.getresponse().read().split()]
    finally:
        connection.close()


@pytest.mark.parametrize(("kind", "where"), [("sync", "memory"), ("gthread", "lmdb"), ("waitress", "memory")])
def test_a_large_download_never_is_in_memory(kind, where, expected, tmp_path):
    pytest.importorskip("waitress" if kind == "waitress" else "gunicorn")
    if where == "lmdb":
        pytest.importorskip("lmdb")
    store = "memory://" if where == "memory" else f"lmdb://{tmp_path}/db?max_bytes=8MB"
    with running(kind, store, tmp_path) as port:
        before = told(port)[1]
        status, cache, size, digest = download(port)
        assert (status, size, digest) == (200, SIZE, expected)
        assert "stored" in cache
        captured = told(port)[1]
        assert captured - before < BOUND, "while it was stored"
        with ThreadPoolExecutor(8) as pool:
            for status, cache, size, digest in pool.map(download, [port] * 8):
                assert (status, size, digest) == (200, SIZE, expected)
                assert "hit" in cache
        status, _, size, digest = download(port, {"Range": "bytes=10-40000009"})
        whole = b"".join([chunk(number) for number in range(40_000_010 // CHUNK + 1)])
        assert (status, digest) == (206, hashlib.blake2b(whole[10:40_000_010]).hexdigest())
        _, served, _, calls = told(port)
        assert served - before < BOUND, "while eight were served at once"
        assert calls == 1
    left = [name for _, _, names in os.walk(tmp_path) for name in names if name.endswith(".body")]
    assert len(left) == (1 if where == "lmdb" else 0)
