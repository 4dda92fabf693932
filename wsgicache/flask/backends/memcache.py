"""memcached: plain, with SASL, and with values spread over several keys."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from hashlib import sha256
from time import time
from typing import Any, ClassVar, Final, Self, cast

import cachelib
from flask import Flask

from ..serializer import SafeDigitsSerializer
from ..timeouts import Timeout
from .base import Abilities, BaseCache
from .memcacheclients import failures, make_client, make_pylibmc, refusals

_KEY: Final = re.compile(r"[\x21-\x7e]{1,250}").fullmatch
_MAX_BYTES: Final = 1024 * 1024 - 512
_BIAS: Final = 1 << 62
"""Added to integers: memcached counts in unsigned numbers and stops at 0."""
_CHUNKSIZE: Final = 1_048_448
_MAXCHUNK: Final = 32


class _CounterSerializer(SafeDigitsSerializer):
    """Integers as digits that the server can count up and down, below zero too."""

    def dumps(self, value: Any, protocol: int = 5) -> bytes:
        if type(value) is int and -_BIAS // 2 < value < _BIAS:
            return b"%d" % (value + _BIAS)
        return super(SafeDigitsSerializer, self).dumps(value, protocol)

    def loads(self, value: Any) -> Any:
        return super().loads(value) if type(value) is bytes else value  # else a client's own int or str

    def _read_foreign(self, data: bytes) -> Any:
        found = super()._read_foreign(data)
        return _unbiased(found) if type(found) is int and data[:1] in b"-0123456789" else found


def _unbiased(count: int) -> int:
    """A count; what another program wrote has no bias."""
    return count - _BIAS if count > _BIAS // 2 else count


class MemcachedCache(BaseCache, cachelib.MemcachedCache):
    """memcached servers.

    Long and odd keys are hashed, and a value that is too large for the server is not kept.

    Args:
        servers: addresses, or a ready client.
        key_prefix: put before every key.
        pool_size, pool_blocking: connections kept, and whether to wait for one.
        memcache_client_lib: pylibmc, google, memcache, libmc or pymemcache; None takes the first installed,
            but not libmc, which unpickles what others wrote.
        deadline: seconds before a server counts as lost; None leaves it to the client.
        default_timeout, ignore_delete_many_errors: see `BaseCache`.

    Raises:
        RuntimeError: no client library is installed.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=True, atomic_add=True, atomic_inc=True, batch=True)
    failures: ClassVar[tuple[type[Exception], ...]] = failures()
    refusals: ClassVar[tuple[type[Exception], ...]] = refusals()
    serializer = _CounterSerializer()

    def __init__(
        self,
        servers: Any = None,
        default_timeout: Timeout = 300,
        key_prefix: str | None = None,
        pool_size: int = 1,
        pool_blocking: bool = True,
        ignore_delete_many_errors: bool = False,
        memcache_client_lib: str | None = None,
        deadline: float | None = None,
    ) -> None:
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors)
        self.key_prefix = key_prefix or ""
        if servers is None or isinstance(servers, list | tuple):
            where = servers or ["127.0.0.1:11211"]
            self._client, self._client_context = make_client(
                memcache_client_lib, where, pool_size, pool_blocking, deadline
            )
        else:
            self._client, self._client_context = _ready(servers)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_MEMCACHED_SERVERS`, `CACHE_KEY_PREFIX`, `CACHE_DEADLINE` apply."""
        given = {
            "key_prefix": config["CACHE_KEY_PREFIX"],
            "deadline": config["CACHE_DEADLINE"],
            "ignore_delete_many_errors": config["CACHE_IGNORE_ERRORS"],
        }
        if not args:
            given["servers"] = config["CACHE_MEMCACHED_SERVERS"]
        return cls(*args, **{**given, **kwargs})

    def _normalize_key(self, key: str) -> str:
        full = f"{self.key_prefix}{key}"
        return full if _KEY(full) else f"~{sha256(full.encode()).hexdigest()}"

    def _lifetime(self, timeout: Timeout) -> int:
        """As the server wants it: 0 never, else an instant, because long spans are refused.

        Below 0 it has expired already, which the binary protocol cannot say.
        """
        lifetime = cachelib.BaseCache._normalize_timeout(self, cast("int | None", timeout))
        return int(time()) + lifetime if lifetime > 0 else max(lifetime, -1)

    def get(self, key: str) -> Any:
        """The value, or None."""
        with self._client_context() as client:
            return self.serializer.loads(client.get(self._normalize_key(key)))

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """Values by key, None for missing ones; one round trip."""
        full = {key: self._normalize_key(key) for key in keys}
        with self._client_context() as client:
            found = client.get_multi(list(full.values())) if full else {}
        loads = self.serializer.loads
        return {key: loads(found[name]) if name in found else None for key, name in full.items()}

    def get_many(self, *keys: str) -> list[Any]:
        """Values in order, None for missing ones; one round trip."""
        found = self.get_dict(*keys)
        return [found[key] for key in keys]

    def _write(self, method: str, key: str, value: Any, timeout: Timeout) -> bool:
        lifetime = self._lifetime(timeout)
        if lifetime < 0 and method == "add":
            return not self.has(key)
        dump = self.serializer.dumps(value)
        if lifetime < 0 or len(dump) > _MAX_BYTES:
            if method == "set":
                self.delete(key)  # or the older value would stay
            return lifetime < 0
        with self._client_context() as client:
            return bool(getattr(client, method)(self._normalize_key(key), dump, lifetime))

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value; False where the server did not take it."""
        return self._write("set", key, value, timeout)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives; atomic."""
        return self._write("add", key, value, timeout)

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[Any]:
        """Keep several values; returns the keys that the server took."""
        lifetime = self._lifetime(timeout)
        if lifetime < 0:
            for key in mapping:
                self.delete(key)
            return list(mapping)
        names = {self._normalize_key(key): key for key in mapping}
        dumps = {name: self.serializer.dumps(mapping[key]) for name, key in names.items()}
        small = {name: dump for name, dump in dumps.items() if len(dump) <= _MAX_BYTES}
        with self._client_context() as client:
            failed = set(_refused(client.set_multi(small, lifetime), small))
            for name in dumps.keys() - small.keys():
                client.delete(name)  # or the older value would stay
        return [key for name, key in names.items() if name in small and name not in failed]

    def delete(self, key: str) -> bool:
        """Delete a key; False where there was none."""
        with self._client_context() as client:
            return bool(client.delete(self._normalize_key(key)))

    def delete_many(self, *keys: str) -> list[Any]:
        """Delete keys; returns those that are gone."""
        with self._client_context() as client:
            client.delete_multi([self._normalize_key(key) for key in keys])
        left = self.get_dict(*keys)
        failed = [key for key in keys if left[key] is not None]
        if failed and not self.ignore_delete_many_errors:
            raise RuntimeError(f"could not delete {failed}")
        return [key for key in keys if key not in failed]

    def has(self, key: str) -> bool:
        """Whether the key lives."""
        with self._client_context() as client:
            return bool(client.append(self._normalize_key(key), b""))

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count up, atomically. A new counter gets `timeout`, a living one keeps its expiry.

        Raises:
            TypeError: the value is no integer.
        """
        for _ in range(3):
            count = self._count(key, delta)
            if count is not None:
                return _unbiased(count)
            if self.add(key, delta, timeout):
                return delta
        return None

    def _count(self, key: str, delta: int) -> int | None:
        with self._client_context() as client:
            try:
                step = client.incr if delta >= 0 else client.decr
                counted: int | None = step(self._normalize_key(key), abs(delta))
            except Exception as error:
                if type(error).__name__ in ("NotFound", "CacheMiss"):
                    return None
                if type(error).__name__ in ("ClientError", "MemcacheClientError", "InvalidType"):
                    raise TypeError(f"{key!r} holds no integer") from None
                raise
        return counted

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def clear(self) -> bool:
        """Delete everything on the servers, whoever wrote it: memcached cannot do less."""
        with self._client_context() as client:
            result = client.flush_all()
        return True if result is None else bool(result)


class SASLMemcachedCache(MemcachedCache):
    """memcached with a user name and a password, by pylibmc's binary protocol.

    Args:
        servers, key_prefix, pool_size, pool_blocking, deadline: see `MemcachedCache`.
        username, password: of the account.
        kwargs: for `pylibmc.Client`.

    Raises:
        RuntimeError: pylibmc is not installed.
    """

    def __init__(
        self,
        servers: Any = None,
        default_timeout: Timeout = 300,
        key_prefix: str | None = None,
        username: str | None = None,
        password: str | None = None,
        pool_size: int = 1,
        pool_blocking: bool = True,
        ignore_delete_many_errors: bool = False,
        deadline: float | None = None,
        **kwargs: Any,
    ) -> None:
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors)
        self.key_prefix = key_prefix or ""
        if servers is not None and not isinstance(servers, list | tuple):
            self._client, self._client_context = _ready(servers)
            return
        options = {"username": username, "password": password, "binary": True, **kwargs}
        where = servers or ["127.0.0.1:11211"]
        try:
            made = make_pylibmc(where, pool_size, pool_blocking, deadline, **options)
        except ImportError as error:
            raise RuntimeError("SASL needs pylibmc, which is not installed") from error
        self._client, self._client_context = made

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_MEMCACHED_SERVERS`, `USERNAME` and `PASSWORD` apply."""
        account = {
            "username": config["CACHE_MEMCACHED_USERNAME"],
            "password": config["CACHE_MEMCACHED_PASSWORD"],
        }
        return super().factory(app, config, args, {**account, **kwargs})


class SpreadSASLMemcachedCache(SASLMemcachedCache):
    """As `SASLMemcachedCache`, with large values in chunks under several keys.

    Args:
        chunksize: bytes of a chunk.
        maxchunk: chunks of a value; larger ones are not kept.
    """

    def __init__(
        self, *args: Any, chunksize: int = _CHUNKSIZE, maxchunk: int = _MAXCHUNK, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.chunksize = chunksize
        self.maxchunk = maxchunk

    def set(self, key: str, value: Any, timeout: Timeout = None, chunk: bool = True) -> bool:
        """Keep a value, in chunks if it is large.

        Args:
            chunk: False keeps it whole, or not at all.
        """
        dump = self.serializer.dumps(value)
        if not chunk or len(dump) <= min(self.chunksize, _MAX_BYTES):
            return super().set(key, value, timeout)
        parts = [dump[at : at + self.chunksize] for at in range(0, len(dump), self.chunksize)]
        if len(parts) > self.maxchunk:
            self.delete(key)
            return False
        stamp = sha256(dump).hexdigest()
        chunks = {_chunk_key(key, stamp, number): part for number, part in enumerate(parts)}
        if len(self._set_raw(chunks, timeout)) != len(parts):
            return False
        return super().set(key, ("\x00spread", stamp, len(parts)), timeout)

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[Any]:
        """Keep several values, in chunks where they are large; returns the keys that were kept."""
        return [key for key, value in mapping.items() if self.set(key, value, timeout)]

    def _set_raw(self, chunks: dict[str, bytes], timeout: Timeout) -> list[str]:
        lifetime = self._lifetime(timeout)
        with self._client_context() as client:
            return [
                key for key, part in chunks.items() if client.set(self._normalize_key(key), part, lifetime)
            ]

    def get(self, key: str, chunk: bool = True) -> Any:
        """The value, put together; None if a chunk is missing."""
        found = super().get(key)
        return self._joined(key, found) if chunk else found

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """Values by key, put together."""
        return {key: self._joined(key, found) for key, found in super().get_dict(*keys).items()}

    def _joined(self, key: str, found: Any) -> Any:
        if type(found) is not tuple or len(found) != 3 or found[0] != "\x00spread":
            return found
        names = [self._normalize_key(_chunk_key(key, found[1], number)) for number in range(found[2])]
        with self._client_context() as client:
            parts = client.get_multi(names)
        dump = b"".join(parts.get(name, b"") for name in names)
        return self.serializer.loads(dump) if sha256(dump).hexdigest() == found[1] else None


def _refused(answer: Any, names: Iterable[str]) -> Iterable[str]:
    """The keys that `set_multi` did not write: a list of them, or, by libmc, whether all went well."""
    if isinstance(answer, bool):
        return () if answer else names
    return answer or ()


def _chunk_key(key: str, stamp: str, number: int) -> str:
    return f"{key}.{stamp[:16]}.{number}"


def _ready(client: Any) -> tuple[Any, Callable[[], AbstractContextManager[Any]]]:
    """A client that the application made; a pool of pylibmc's lends its connections."""
    if hasattr(client, "reserve"):
        return client, partial(client.reserve, block=True)
    return client, partial(nullcontext, client)
