"""`SimpleCache`: the process's own memory."""

from __future__ import annotations

import heapq
import math
from typing import Any, ClassVar, Final, Self, cast

import cachelib.simple
from flask import Flask, Response

from ..forms import Form, response_form, response_from
from ..serializer import MemorySerializer
from ..timeouts import Timeout
from .base import Abilities, BaseCache

_IMMUTABLE: Final = frozenset({str, bytes, int, float, bool, type(None)})
_MAX_DEPTH: Final = 3

_simple: Any = cachelib.simple  # its `time` is the clock, so that tests can turn it


class _Copy(bytes):
    """A serialized value: each reader gets a copy of its own."""


class _Sheet:
    """A response as plain data: quicker to make anew than to unpickle."""

    __slots__ = ("form",)

    def __init__(self, form: Form) -> None:
        self.form = form


class SimpleCache(BaseCache, cachelib.SimpleCache):
    """Memory of one process, bounded by a count of entries, safe for threads.

    What cannot change is handed out as it is; of everything else each reader gets a copy.

    Args:
        threshold: entries kept; 0 means 500. Expired entries go first, then the soonest to expire.
        default_timeout, ignore_delete_many_errors, ignore_errors: see `BaseCache`.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=False, atomic_add=True, atomic_inc=True, batch=True)
    serializer = MemorySerializer()

    def __init__(
        self,
        threshold: int = 500,
        default_timeout: Timeout = 300,
        ignore_delete_many_errors: bool = False,
        ignore_errors: bool | None = None,
    ) -> None:
        cachelib.SimpleCache.__init__(self, threshold=threshold)
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors, ignore_errors)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_THRESHOLD` and `CACHE_IGNORE_ERRORS` apply."""
        kwargs = {
            "threshold": config["CACHE_THRESHOLD"],
            "ignore_delete_many_errors": config["CACHE_IGNORE_ERRORS"],
            **kwargs,
        }
        return cls(*args, **kwargs)

    def get(self, key: str) -> Any:
        """The value, or None."""
        item = self._cache.get(key)
        if item is None:
            return None
        expires, value = item
        if expires != 0 and expires <= _simple.time():
            return None
        kind = type(value)
        if kind is _Copy:
            return self.serializer.loads(value)
        return response_from(value.form) if kind is _Sheet else value

    def _frozen(self, value: Any) -> Any:
        """A value as it is kept."""
        if type(self.serializer) is MemorySerializer:
            if _is_immutable(value):
                return value
            form = response_form(value) if isinstance(value, Response) else None
            if form is not None:
                return _Sheet(form)
        return _Copy(self.serializer.dumps(value) or b"")

    def _expiry(self, timeout: Timeout) -> int:
        return self._normalize_timeout(cast("int | None", timeout))

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value; True."""
        item = (self._expiry(timeout), self._frozen(value))
        with self._lock:
            self._prune()
            self._cache[key] = item
        return True

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives."""
        item = (self._expiry(timeout), self._frozen(value))
        with self._lock:
            if self.has(key):
                return False
            self._prune()
            self._cache[key] = item
            return True

    def delete(self, key: str) -> bool:
        """Delete a key; False where there was none. Not in the middle of somebody's `inc` or `touch`."""
        with self._lock:
            return self._cache.pop(key, None) is not None

    def clear(self) -> bool:
        """Delete everything."""
        with self._lock:
            return cachelib.SimpleCache.clear(self)

    def _remove_expired(self, now: float) -> None:
        # A list is made in one step; going through the dictionary itself, another thread may change it.
        gone = [key for key, (expires, _) in list(self._cache.items()) if expires != 0 and expires <= now]
        for key in gone:
            self._cache.pop(key, None)

    def _remove_older(self) -> None:
        """Make room: the soonest to expire go, those that never expire last."""
        excess = len(self._cache) - self._threshold
        items = list(self._cache.items())
        soonest = heapq.nsmallest(excess, items, key=lambda item: item[1][0] or math.inf)
        for key, _ in soonest:
            self._cache.pop(key, None)

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int:
        """Count up. A new counter gets `timeout`, a living one keeps its expiry."""
        with self._lock:
            current = self.get(key)
            if current is None:
                self.set(key, delta, timeout)
                return delta
            value: int = current + delta
            self._cache[key] = (self._cache[key][0], self._frozen(value))
            return value

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """See `BaseCache.touch`."""
        with self._lock:
            if not self.has(key):
                return False
            expires, value = self._cache[key]
            wanted = self._expiry(timeout)
            if expires != 0 and (wanted == 0 or wanted > expires):
                self._cache[key] = (wanted, value)
            return True

    def ttl(self, key: str) -> float | None:
        """Seconds left: None where there is no such key, infinity where it never expires."""
        item = self._cache.get(key)
        if item is None or (item[0] != 0 and item[0] <= _simple.time()):
            return None
        return float(item[0] - _simple.time()) if item[0] else math.inf

    def names(self) -> list[str]:
        """Every living key."""
        now = _simple.time()
        return [key for key, (expires, _) in list(self._cache.items()) if expires == 0 or expires > now]

    def release(self, key: str, token: str) -> None:
        """See `BaseCache.release`."""
        with self._lock:
            super().release(key, token)


def _is_immutable(value: Any, depth: int = 0) -> bool:
    if type(value) in _IMMUTABLE:
        return True
    if type(value) is not tuple or depth >= _MAX_DEPTH:
        return False
    return all([_is_immutable(item, depth + 1) for item in value])
