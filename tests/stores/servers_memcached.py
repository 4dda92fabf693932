"""memcached and Redis on free ports, and servers that misbehave, for the tests of the stores."""

import shutil
import socket
import subprocess
import threading
from contextlib import contextmanager

import pytest
from ports import free_port

STARTS_WITHIN = 10.0


def answers(process, port):
    """Wait until a server takes connections; False where it ended instead."""
    pause = threading.Event()
    for _ in range(int(STARTS_WITHIN / 0.02)):
        if process.poll() is not None:
            return False
        with socket.socket() as asked:
            asked.settimeout(1)
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return True
        pause.wait(0.02)  # a server that starts has no event to wait for
    return False


class Memcached:
    """One memcached that can be killed and started again on its port."""

    def __init__(self, *arguments, port=None, log=subprocess.DEVNULL):
        if shutil.which("memcached") is None:
            pytest.skip("memcached is not installed: apt-get install memcached")
        self.arguments = arguments
        self.port = port
        self.log = log
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
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self.log)
            if answers(self.process, port):
                self.port = port
                return
            self.kill()
        pytest.fail("memcached did not start")

    def kill(self):
        """As a crash: at once, whatever it was doing."""
        self.process.kill()
        self.process.wait()

    def restart(self, *arguments):
        self.kill()
        self.arguments = arguments or self.arguments
        self.start()

    def told(self, *lines):
        """What it answers to lines typed by hand, up to the first line that ends an answer."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as talk:
            talk.sendall(b"".join(line + b"\r\n" for line in lines))
            told = b""
            while not told.endswith((b"END\r\n", b"STORED\r\n", b"OK\r\n", b"DELETED\r\n", b"NOT_FOUND\r\n")):
                told += talk.recv(65536)
            return told

    def has(self, name):
        return self.told(b"get " + name) != b"END\r\n"

    def stat(self, name):
        told = dict(line.split(b" ", 2)[1:] for line in self.told(b"stats").splitlines() if b" " in line)
        return int(told[name])


class Scripted:
    """Takes connections, reads a command on each, says what it was told to say, and then nothing more.

    With no words it is a black hole.
    """

    def __init__(self, *words):
        self._words = list(words)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self.taken = []
        self.heard = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.taken.append(connection)
            self.heard.append(connection.recv(65536))
            if self._words:
                connection.sendall(self._words.pop(0))

    def connections(self):
        """How many there were, once there was one."""
        pause = threading.Event()
        for _ in range(500):
            if self.taken:
                break
            pause.wait(0.02)
        return len(self.taken)

    def close(self):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()
        for connection in self.taken:
            connection.close()


@contextmanager
def memcached(*arguments, **options):
    server = Memcached(*arguments, **options)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def plain_redis():
    """The port of a Redis for a cachelib cache."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    for _ in range(5):
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            if answers(process, port):
                yield port
                return
        finally:
            process.kill()
            process.wait()
    pytest.fail("redis-server did not start")


class Part:
    """A store whose namespaces all lie under one of the real store's."""

    def __init__(self, whole, name):
        self._whole, self._name = whole, name
        self._part = whole.namespaced(name)

    def namespaced(self, namespace):
        return self._whole.namespaced(f"{self._name} {namespace}") if namespace else self

    def __getattr__(self, name):
        return getattr(self._part, name)
