"""`UWSGICache`: the cache of the uWSGI server, shared by its workers."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self, cast

import cachelib
from flask import Flask

from ..backends.base import Abilities, BaseCache
from ..serializer import SafeUWSGISerializer
from ..timeouts import Timeout


class UWSGICache(BaseCache, cachelib.UWSGICache):
    """uWSGI's cache framework (`--cache2`).

    Args:
        cache: the name of the cache, such as `mycache` or `mycache@localhost:3031`; "" is the local default.
        default_timeout, ignore_delete_many_errors: see `BaseCache`.

    Raises:
        RuntimeError: the process does not run under uWSGI.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=True, atomic_add=True, batch=True)
    serializer = SafeUWSGISerializer()

    def __init__(
        self, default_timeout: Timeout = 300, cache: str = "", ignore_delete_many_errors: bool = False
    ) -> None:
        cachelib.UWSGICache.__init__(self, cache=cache)
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_UWSGI_NAME` applies."""
        given = {
            "cache": config["CACHE_UWSGI_NAME"],
            "ignore_delete_many_errors": config["CACHE_IGNORE_ERRORS"],
        }
        return cls(*args, **{**given, **kwargs})

    def _expired(self, timeout: Timeout) -> bool:
        return self._normalize_timeout(cast("int | None", timeout)) < 0

    def set(self, key: str, value: Any, timeout: Timeout = None) -> Literal[True] | None:
        """Keep a value."""
        if self._expired(timeout):
            self.delete(key)
            return True
        return cachelib.UWSGICache.set(self, key, value, cast("int | None", timeout))

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives; atomic."""
        if self._expired(timeout):
            return not self.has(key)
        return cachelib.UWSGICache.add(self, key, value, cast("int | None", timeout))
