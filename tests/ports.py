"""Free loopback ports for the servers that tests start.

They lie below those that the kernel lends to clients, so that no client's connection takes one between the
look and the server's start, and each process walks through them from a place of its own, so that several that
run tests at once are not in each other's way.
"""

import itertools
import os
import socket

_FIRST, _COUNT = 12000, 10000
_walk = itertools.count(int.from_bytes(os.urandom(4)))
_BUS = 10000
"""A Redis Cluster's bus is that far above its port."""


def free_port() -> int:
    """A port that nobody listens on, with room for that of a Cluster's bus."""
    for at in itertools.islice(_walk, _COUNT):
        port = _FIRST + at % _COUNT
        if _is_free(port) and _is_free(port + _BUS):
            return port
    raise OSError(f"no port between {_FIRST} and {_FIRST + _COUNT} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as bound:
        try:
            bound.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
