"""Numbers of a Redis server, for people, at bounded cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .redislink import Line, read_info
from .redisscripts import LINE

_SAMPLE: Final = 10_000
_BATCH: Final = 1000


def server_numbers(line: Line, pattern: bytes, epochs: Mapping[bytes, bytes]) -> dict[str, int]:
    """What the server holds of a store, and what it says of itself.

    Args:
        line: an open connection.
        pattern: what the names of entries look like.
        epochs: what their names begin with, and the epoch there: values of another one are not counted, for
            they are never found again.

    Walks over some ten thousand keys at most; where there are more, the rest is taken to be like them.
    """
    keys = int(line.ask("DBSIZE"))
    seen: dict[bytes, int] = {}
    cursor, walked = b"0", 0
    while walked < _SAMPLE:
        cursor, names = line.ask("SCAN", cursor, "MATCH", pattern, "COUNT", _BATCH)
        walked += _BATCH
        seen.update(_sizes(line, names, epochs))
        if cursor == b"0":
            break
    share = 1.0 if cursor == b"0" or walked >= keys else keys / walked
    memory = read_info(line.ask("INFO", "memory"))
    happened = read_info(line.ask("INFO", "stats"))
    return {
        "entries": round(len(seen) * share),
        "bytes": round(sum(seen.values()) * share),
        "max_bytes": int(memory.get("maxmemory", 0)),
        "evicted": int(happened.get("evicted_keys", 0)),
        "server_keys": keys,
        "server_bytes": int(memory.get("used_memory", 0)),
    }


def _sizes(line: Line, names: list[bytes], epochs: Mapping[bytes, bytes]) -> dict[bytes, int]:
    """Bytes of the values of the present epochs, by name."""
    known = [(name, epoch) for name in names if (epoch := epochs.get(_beginning(name))) is not None]
    if not known:
        return {}
    asked = [command for name, _ in known for command in (("GETRANGE", name, 0, LINE - 1), ("STRLEN", name))]
    told = line.ask_all(asked)
    values = zip(known, told[::2], told[1::2], strict=True)
    return {name: size for (name, epoch), start, size in values if start.startswith(epoch + b" ")}


def _beginning(name: bytes) -> bytes:
    return name[: name.rfind(b":") + 1]
