"""What a Redis server's settings mean for a cache."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final

from .advice import Advice, Level, apart, size
from .redislink import Line, Link, read_info

_OLDEST: Final = (6, 2)
_SKEW: Final = 2.0
"""Seconds by which two clocks may differ before ages that one writes and another reads are off."""

_BY_POLICY: Final = {
    "allkeys-lru": (Level.OK, "what was not asked for longest goes when room is needed"),
    "allkeys-lfu": (Level.OK, "what is asked for least goes when room is needed"),
    "volatile-lru": (Level.OK, "pages go when room is needed, the purge journal stays"),
    "volatile-lfu": (Level.OK, "pages go when room is needed, the purge journal stays"),
    "volatile-ttl": (Level.OK, "pages that end soonest go when room is needed, the purge journal stays"),
    "volatile-random": (Level.OK, "any page may go when room is needed, the purge journal stays"),
    "allkeys-random": (
        Level.WARNING,
        "the purge journal is evicted sooner or later, and every page is a miss then, once",
    ),
    "noeviction": (
        Level.WARNING,
        "a server that is full refuses new pages until old ones have ended; it goes on with those it has",
    ),
}
"""What each eviction policy means: pages have an expiry, the journal has none and is marked as used with each
page that is stored."""

_BETTER: Final = "CONFIG SET maxmemory-policy allkeys-lru, and the same line in redis.conf"


def redis_advice(link: Link) -> Iterator[Advice]:
    """What one server says of itself.

    Raises:
        StoreError: it does not answer, or does not let us ask.
    """
    info, ahead = link.ask(_look)
    yield _version(info)
    yield _memory(info)
    policy = _policy(info)
    if policy is not None:
        yield policy
    yield _clock(ahead)


def _look(line: Line) -> tuple[Mapping[str, str], float]:
    info = read_info(line.ask("INFO"))
    before = time.time()
    seconds, micros = line.ask("TIME")
    return info, apart(int(seconds) + int(micros) / 1e6, before, time.time())


def _version(info: Mapping[str, str]) -> Advice:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = info.get("valkey_version") or info.get("redis_version", "unknown")
    numbers = tuple([int(part) for part in text.split(".")[:2] if part.isdigit()])
    if numbers and numbers < _OLDEST:
        return Advice("server", Level.WARNING, f"{name} {text}", "6.2 is the oldest that is tested: upgrade")
    return Advice("server", Level.OK, f"{name} {text}")


def _memory(info: Mapping[str, str]) -> Advice:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    if not most:
        return Advice(
            "server memory",
            Level.WARNING,
            f"{size(used)} in use and no limit: the server grows until the machine has no memory left",
            "CONFIG SET maxmemory 256mb (as much as you can spare), and the same line in redis.conf",
        )
    return Advice("server memory", Level.OK, f"{size(used)} of {size(most)} in use")


def _policy(info: Mapping[str, str]) -> Advice | None:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return None
    level, meaning = _BY_POLICY.get(policy, (Level.WARNING, "unknown to this version of wsgicache"))
    return Advice("eviction policy", level, f"{policy}: {meaning}", "" if level is Level.OK else _BETTER)


def _clock(ahead: float) -> Advice:
    if abs(ahead) > _SKEW:
        return Advice(
            "clock of the server",
            Level.WARNING,
            f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's",
            "have both set by NTP; between workers such a difference makes pages seem younger or older",
        )
    return Advice("clock of the server", Level.OK, "agrees with this machine's")
