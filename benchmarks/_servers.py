"""Servers for the benchmarks: started on free ports of the loopback interface, stopped at the end.

What is not installed raises `Missing`, with what to do about it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from typing import Any

STARTS_WITHIN = 20.0


class Missing(Exception):
    """A server or a package is not installed; the message names it and the remedy."""


def needs(package: str) -> None:
    """Go on where a package can be imported.

    Raises:
        Missing: it cannot.
    """
    if find_spec(package) is None:
        raise Missing(f"{package}: pip install {package}")


def program(name: str) -> str:
    """The path of a server's program.

    Raises:
        Missing: it is not on the path.
    """
    path = shutil.which(name)
    if path is None:
        raise Missing(f"{name}: apt-get install {name}")
    return path


def _free_port(above: int = 0) -> int:
    """A port that nobody listens on; `above`: with another one so far above it."""
    while True:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port: int = bound.getsockname()[1] - above
            if above == 0:
                return port
            with socket.socket() as lower, suppress(OSError):
                lower.bind(("127.0.0.1", port))
                return port


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(death_signal, signal.SIGKILL)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.02)
    return False


@contextmanager
def _running(command: Sequence[str], port_option: str, above: int = 0) -> Iterator[int]:
    """Run a server on a free port; another one where somebody else was quicker."""
    for _ in range(5):
        port = _free_port(above)
        process = subprocess.Popen(
            [*command, port_option, str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )
        try:
            if _answers(process, port):
                yield port
                return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"{command[0]} did not start")


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis server that saves nothing."""
    needs("redis")
    command = [program("redis-server"), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with (
        tempfile.TemporaryDirectory() as directory,
        _running([*command, "--dir", directory], "--port") as port,
    ):
        yield f"redis://127.0.0.1:{port}"


def _call(port: int, *words: str | int) -> Any:
    import redis

    with redis.Redis(port=port, decode_responses=True, socket_timeout=5) as client:
        return client.execute_command(*words)


@contextmanager
def redis_cluster(primaries: int = 3) -> Iterator[str]:
    """The URL of a Redis Cluster without replicas that saves nothing."""
    needs("redis")
    command = [program("redis-server"), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    command += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
    with ExitStack() as stack:
        ports = []
        for _ in range(primaries):
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            ports.append(stack.enter_context(_running([*command, "--dir", directory], "--port", 10_000)))
        for number, port in enumerate(ports):
            slots = range(16384 * number // primaries, 16384 * (number + 1) // primaries)
            _call(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            _call(port, "CLUSTER", "ADDSLOTS", *slots)
            if number:
                _call(port, "CLUSTER", "MEET", "127.0.0.1", ports[0])
        deadline = time.monotonic() + STARTS_WITHIN
        while not all([_knows_all(port, primaries) for port in ports]):
            if time.monotonic() > deadline:
                raise RuntimeError("the Redis Cluster did not come together")
            time.sleep(0.05)
        yield "redis+cluster://" + ",".join([f"127.0.0.1:{port}" for port in ports])


def _knows_all(port: int, primaries: int) -> bool:
    told = str(_call(port, "CLUSTER", "INFO"))
    return "cluster_state:ok" in told and len(_call(port, "CLUSTER", "SLOTS")) == primaries


@contextmanager
def memcached_server() -> Iterator[str]:
    """The URL of a memcached."""
    needs("pymemcache")
    command = [program("memcached"), "-l", "127.0.0.1", "-U", "0", "-t", "2", "-u", "nobody"]
    with _running(command, "-p") as port:
        yield f"memcached://127.0.0.1:{port}"


@contextmanager
def lmdb_directory() -> Iterator[str]:
    """The URL of an LMDB file, in a directory that goes afterwards."""
    needs("lmdb")
    with tempfile.TemporaryDirectory() as directory:
        yield f"lmdb://{directory}/site?max_bytes=64MB"


SERVERS = {"lmdb": lmdb_directory, "redis": redis_server, "memcached": memcached_server}
