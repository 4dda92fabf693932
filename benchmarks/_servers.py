"""Servers for the benchmarks: started on free ports of the loopback interface, stopped at the end.

What is not installed raises `Missing`, with what to do about it.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any

_any = random.SystemRandom()  # whatever a benchmark seeds

STARTS_WITHIN = 20.0
CLUSTER_BUS = 10_000  # so far above its port a node of a Redis Cluster talks to the others


class Missing(Exception):
    """A server or a package is not installed; the message names it and the remedy."""


def needs(package: str) -> None:
    """Go on where a package can be imported.

    Raises:
        Missing: it cannot.
    """
    if find_spec(package) is None:
        raise Missing(f"{package}: pip install {package}")


def program(name: str, package: str = "") -> str:
    """The path of a program of Debian's `package`, which has its name unless another is given.

    Raises:
        Missing: it is not on the path.
    """
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin")  # not on everybody's path
    if path is None:
        raise Missing(f"{name}: apt-get install {package or name}")
    return path


def free_port(above: int = 0) -> int:
    """A port of the loopback interface that nobody listens on; `above`: with another one so far above it.

    It lies below those that the kernel lends to clients: while a server starts, whoever asks whether it
    answers could be lent its very port, and be connected with itself.
    """
    while True:
        port = _any.randrange(12_000, 22_000)
        if _is_free(port) and _is_free(port + above):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as bound:
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def pin(cores: Collection[int]) -> None:
    """Keep this process, and those it starts, on these processor cores, where the system can."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        death_signal = 1  # PR_SET_PDEATHSIG; SIGTERM, so that it takes its own workers along
        ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(0.1)  # somebody else may answer there: then ours has found the port taken
    return process.poll() is None and time.monotonic() < deadline


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and, by its process group, what it has started. It has nothing to save."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclass(frozen=True)
class Running:
    """A server that runs: where it listens, and the process group that is its own."""

    port: int
    group: int


@contextmanager
def running(
    command: Callable[[int], Sequence[str]],
    cores: Collection[int] = (),
    environment: Mapping[str, str] | None = None,
    above: int = 0,
) -> Iterator[Running]:
    """Run a server on a free port; another one where somebody else was quicker.

    Args:
        command: the command line for a port.
        cores: processor cores that it may use; none given: all.
        environment: its environment; None: this process's.
        above: so far above its port it needs another one.

    Raises:
        RuntimeError: it does not start; the message ends with what it said last.
    """

    def prepare() -> None:
        _end_with_parent()
        pin(cores)

    with tempfile.TemporaryFile() as said:
        for _ in range(5):
            port = free_port(above)
            words = command(port)
            process = subprocess.Popen(
                words,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
                preexec_fn=prepare,
            )
            try:
                if _answers(process, port):
                    yield Running(port, process.pid)
                    return
            finally:
                _stop(process)
        said.seek(0)
        last = said.read()[-1_000:].decode(errors="replace").strip().splitlines()[-3:]
        raise RuntimeError(f"{' '.join(words[:4])} did not start: {' '.join(last) or 'it said nothing'}")


@contextmanager
def redis_server() -> Iterator[str]:
    """The URL of a Redis server that saves nothing."""
    needs("redis")
    command = [program("redis-server"), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    with (
        tempfile.TemporaryDirectory() as directory,
        running(partial(_at_port, [*command, "--dir", directory])) as server,
    ):
        yield f"redis://127.0.0.1:{server.port}"


def _call(port: int, *words: str | int) -> Any:
    import redis

    with redis.Redis(port=port, decode_responses=True, socket_timeout=5) as client:
        return client.execute_command(*words)


def _at_port(words: Sequence[str], port: int) -> list[str]:
    return [*words, "--port", str(port)]


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
            words = [*command, "--dir", directory]
            server = stack.enter_context(running(partial(_at_port, words), above=CLUSTER_BUS))
            ports.append(server.port)
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
    with running(lambda port: [*command, "-p", str(port)]) as server:
        yield f"memcached://127.0.0.1:{server.port}"


@contextmanager
def lmdb_directory() -> Iterator[str]:
    """The URL of an LMDB file, in a directory that goes afterwards."""
    needs("lmdb")
    with tempfile.TemporaryDirectory() as directory:
        yield f"lmdb://{directory}/site?max_bytes=64MB"


SERVERS = {"lmdb": lmdb_directory, "redis": redis_server, "memcached": memcached_server}
