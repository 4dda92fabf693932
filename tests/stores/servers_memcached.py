"""memcached on free ports, and servers that misbehave, for the tests of the stores."""

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager

import pytest

STARTS_WITHIN = 10.0


def free_port():
    """A port that nobody listens on; somebody else may take it, so whoever starts a server tries again."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


class Memcached:
    """One memcached that can be killed and started again on its port."""

    def __init__(self, *arguments, port=None):
        if shutil.which("memcached") is None:
            pytest.skip("memcached is not installed: apt-get install memcached")
        self.arguments = arguments
        self.port = port
        self.process = None
        self.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        for _ in range(5 if self.port is None else 1):
            port = self.port or free_port()
            command = ["memcached", "-p", str(port), "-l", "127.0.0.1", "-t", "2", "-U", "0", *self.arguments]
            if shutil.which("id") and subprocess.run(["id", "-u"], capture_output=True).stdout == b"0\n":
                command += ["-u", "nobody"]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._answers(port):
                self.port = port
                return
            self.kill()
        pytest.fail("memcached did not start")

    def _answers(self, port):
        gone = threading.Event()
        for _ in range(int(STARTS_WITHIN / 0.02)):
            if self.process.poll() is not None:
                return False
            with socket.socket() as asked:
                asked.settimeout(1)
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    return True
            gone.wait(0.02)  # a server that starts has no event to wait for
        return False

    def kill(self):
        """As a crash: at once, whatever it was doing."""
        self.process.kill()
        self.process.wait()

    def restart(self):
        self.kill()
        self.start()

    def told(self, *lines):
        """What it answers to lines typed by hand, up to the first line that ends an answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as talk:
            talk.sendall(b"".join(line + b"\r\n" for line in lines))
            told = b""
            while not told.endswith((b"END\r\n", b"STORED\r\n", b"OK\r\n", b"DELETED\r\n", b"NOT_FOUND\r\n")):
                told += talk.recv(65536)
            return told

    def keys(self):
        """The names of everything that it holds."""
        import re

        return {bytes(name) for name in re.findall(rb"key=(\S+)", self.told(b"lru_crawler metadump all"))}


class BlackHole:
    """Takes connections and never says a word."""

    def __init__(self):
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listening.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def close(self):
        self._listening.close()


@contextmanager
def memcached(*arguments):
    server = Memcached(*arguments)
    try:
        yield server
    finally:
        server.kill()
