"""Redis and Valkey servers on free ports: single ones, three Sentinels, a Cluster of six nodes."""

import atexit
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import pytest
import redis

STARTS_WITHIN = 20.0

_nobody = threading.Event()


def free_port():
    """A port that nobody listens on, with room for that of a Cluster's bus, 10000 above."""
    while True:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            if port < 55000:
                return port
            bound.close()
            with socket.socket() as other:
                try:
                    other.bind(("127.0.0.1", port - 20000))
                except OSError:
                    continue
                return port - 20000


def until(true, within=STARTS_WITHIN, what="it"):
    """Look again and again until something is true; what it said."""
    deadline = time.monotonic() + within
    while True:
        try:
            found = true()
        except (redis.RedisError, OSError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come to pass within {within} s")
        _nobody.wait(0.01)


def alone(command):
    """The command, ended by the system should the tests be killed."""
    return ["setpriv", "--pdeathsig", "KILL", *command] if shutil.which("setpriv") else command


class Server:
    """One server that can be killed and started again on its port.

    Args:
        program: `redis-server` or `valkey-server`; without it, the test is skipped.
        arguments: of its command line, such as `--maxmemory 10mb`.
        config: its configuration file, for a Sentinel, which rewrites it.
    """

    def __init__(self, *arguments, program="redis-server", config=None, port=None):
        self.path = shutil.which(program)
        if self.path is None:
            pytest.skip(f"{program} is not installed: apt-get install {program}")
        self.directory = Path(tempfile.mkdtemp(prefix="redis-"))
        self.arguments = arguments
        self.config = config
        self.process = None
        self.port = port
        _servers.append(self)
        self.start()

    def start(self):
        for _ in range(1 if self.port else 5):
            port = self.port or free_port()
            self._launch(port)
            try:
                until(lambda port=port: self._answers(port), what="the start of a server")
            except _Ended:
                continue
            self.port = port
            return self
        return pytest.fail(f"{self.path} did not start: {self.log()[-2000:]}")

    def _launch(self, port):
        command = [self.path]
        if self.config is not None:
            file = self.directory / "server.conf"
            if not file.exists():
                file.write_text(self.config)
            command += [str(file), "--sentinel"]
        command += ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(self.directory)]
        command += ["--logfile", "log", *self.arguments]
        if self.config is None and "--save" not in self.arguments:
            command += ["--save", ""]
        self.process = subprocess.Popen(alone(command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _answers(self, port):
        if self.process.poll() is not None:
            raise _Ended
        with redis.Redis(port=port, socket_timeout=5, protocol=2) as client:
            try:
                return client.ping()
            except redis.BusyLoadingError:
                return False

    def log(self):
        return (self.directory / "log").read_text("utf-8", "replace")

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def client(self):
        """A plain client of redis-py, to look and to meddle."""
        return redis.Redis(port=self.port, socket_timeout=10, protocol=2)

    def ask(self, *command):
        with self.client() as client:
            return client.execute_command(*command)

    def kill(self):
        """As a crash: at once, whatever it was doing."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        return self.start()

    def close(self):
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class _Ended(Exception):
    """The server ended instead of starting."""


_servers = []


@atexit.register
def close_servers():
    while _servers:
        _servers.pop().close()


@cache
def shared(program="redis-server"):
    """The server that most tests share; each begins by emptying it."""
    return Server(program=program)


def empty(program="redis-server"):
    """The shared server, with nothing in it."""
    server = shared(program)
    server.ask("FLUSHALL")
    return server
