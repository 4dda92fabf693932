"""What a memcached server's settings mean for a cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from . import StoreError
from .advice import Advice, Level, size
from .memcachedservers import Server, Servers


def memcached_advice(servers: Servers, largest: int) -> Iterator[Advice]:
    """What each server says of itself.

    Args:
        largest: bytes of the largest body that the cache would store.
    """
    for server in servers.all.values():
        try:
            settings, stats = server.call("stats", "settings"), server.call("stats")
        except StoreError as error:
            yield Advice(
                f"server {server.name.removeprefix('memcached://')}",
                Level.PROBLEM,
                str(error),
                "start it; until then its pages are misses, and with the journal's server down all are",
            )
            continue
        yield from _one(server, settings, stats, largest)


def _one(
    server: Server, settings: Mapping[bytes, Any], stats: Mapping[bytes, Any], largest: int
) -> Iterator[Advice]:
    name = server.name.removeprefix("memcached://")
    version = stats.get(b"version", b"?")
    told = version.decode("ascii", "replace") if isinstance(version, bytes) else str(version)
    yield Advice(f"server {name}", Level.OK, f"memcached {told}")
    item = int(settings.get(b"item_size_max", 1 << 20))
    room = item - 4096  # key, head and the server's own part
    text = f"items of up to {size(item)}; the largest page is {size(largest)} (max_body_bytes)"
    if largest > room:
        yield Advice(
            f"item size of {name}",
            Level.WARNING,
            f"{text}: what is larger than the item is not stored",
            f"start memcached with -I {largest // (1 << 20) + 1}m, or set max_body_bytes = {room}",
        )
    else:
        yield Advice(f"item size of {name}", Level.OK, text)
    used, most = int(stats.get(b"bytes", 0)), int(stats.get(b"limit_maxbytes", 0))
    yield Advice(f"memory of {name}", Level.OK, f"{size(used)} of {size(most)} in use; the oldest goes first")
    yield from _journal(server, stats)


def _journal(server: Server, stats: Mapping[bytes, Any]) -> Iterator[Advice]:
    evicted = int(stats.get(b"evictions", 0))
    if evicted:
        yield Advice(
            f"evictions of {server.name.removeprefix('memcached://')}",
            Level.WARNING,
            f"{evicted} items since it started; with the purge journal among them every page is a miss, once",
            "give it more memory (-m), or the journal a server of its own: ?journal=host:port in the URL",
        )
