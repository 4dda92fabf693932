"""A cachelib cache that stores bytes: its serializer is replaced in a copy of it, so nothing is unpickled."""

from __future__ import annotations

import copy
import re
from typing import Any, Final

import cachelib

_ATOMIC: Final = (
    cachelib.SimpleCache,
    cachelib.RedisCache,
    cachelib.ValkeyCache,
    cachelib.UWSGICache,
    cachelib.DynamoDbCache,
)
"""Caches whose `add` is one step; FileSystemCache and MongoDbCache look first and write then."""


class PlainBytes:
    """What cachelib calls a serializer: bytes stay bytes, whole numbers are digits, all else is nothing.

    FileSystemCache counts its files with it.
    """

    def dumps(self, value: object, *_: object) -> bytes:
        """Bytes that say what was given.

        Raises:
            TypeError: neither bytes nor a whole number.
        """
        if type(value) is int:
            return b"%d" % value
        if not isinstance(value, bytes):
            raise TypeError(f"{type(value).__name__} is no bytes")
        return b"=" + value

    def loads(self, data: Any) -> bytes | int | None:
        """What `dumps` was given; no bytes at all for what it did not make, such as a pickle."""
        if data is None:
            return None
        raw = bytes(data)
        if raw.startswith(b"="):
            return raw[1:]
        return int(raw) if _DIGITS.match(raw) else b""

    def dump(self, value: object, file: Any, *_: object) -> None:
        """Write to a file."""
        file.write(self.dumps(value))

    def load(self, file: Any) -> bytes | int | None:
        """Read a file to its end."""
        return self.loads(file.read())


_DIGITS: Final = re.compile(rb"-?[0-9]{1,19}\Z")


def adapted(cache: Any) -> Any:
    """A copy of a cache that stores bytes; it has the same connections, files or dictionary.

    Raises:
        ValueError: a cache that serializes on its own.
    """
    name = type(cache).__name__
    if isinstance(cache, cachelib.MemcachedCache):
        raise ValueError(
            f"{name} leaves it to its client to unpickle what it reads, which runs whatever somebody put "
            "there; give memcached://host:port instead"
        )
    if not hasattr(cache, "serializer"):
        raise ValueError(f"{name} has no serializer to replace; let its values go through self.serializer")
    adapted = copy.copy(cache)
    adapted.serializer = PlainBytes()
    if isinstance(adapted, cachelib.DynamoDbCache):
        adapted._table = _Consistent(adapted._table)
    if isinstance(adapted, cachelib.FileSystemCache):  # it had counted its files in its own way
        adapted._update_count(value=len(list(adapted._list_dir())))
    return adapted


class _Consistent:
    """A DynamoDB table that is read as it is now, not as it was a second ago: a purge must be seen."""

    def __init__(self, table: Any) -> None:
        self._table = table

    def get_item(self, **arguments: Any) -> Any:
        """Read an item."""
        return self._table.get_item(**{**arguments, "ConsistentRead": True})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)


def is_atomic(cache: Any) -> bool:
    """Whether `add` of a cache is known to be one step."""
    return isinstance(cache, _ATOMIC)
