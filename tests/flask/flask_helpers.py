"""Servers on free ports, and the names of the backends."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

# The wheel of pylibmc brings a SASL library without mechanisms, which looks for them when it is imported.
for _plain in sorted(Path("/usr/lib").glob("*/sasl2/libplain.so")):
    os.environ.setdefault("SASL_PATH", str(_plain.parent))

BACKENDS = ("simple", "file", "redis", "pylibmc", "pymemcache")
SHARED = BACKENDS[1:]


def answers(port):
    with socket.socket() as asked:
        asked.settimeout(1)
        return asked.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(*command, port, cwd, **environ):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    server = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd, env={**os.environ, **environ}
    )
    try:
        for _ in range(200):
            if answers(port):
                break
            time.sleep(0.02)  # a server that starts has no event to wait for
        else:
            pytest.fail(f"{command[0]} did not start")
        yield server
    finally:
        server.terminate()
        server.wait()


def close_backend(backend):
    """Let go of a backend's connections."""
    for name in ("_write_client", "_read_client", "_client"):
        client = getattr(backend, name, None)
        manager = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
        for closed in (client, *getattr(manager, "sentinels", ())):
            close = getattr(closed, "close", None) or getattr(closed, "disconnect_all", None)
            if close is not None:
                close()
        if manager is not None:
            client.connection_pool.disconnect()
