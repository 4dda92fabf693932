"""`UWSGICache`: the cache of the uWSGI server, shared by its workers.

uWSGI removes what has expired every few seconds, and only under a master process; a value carries its expiry
with it, so that it ends when it says. What must be done in one step is done under a lock that is a key of
the cache itself: uWSGI's own locks belong to the app.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from itertools import count
from typing import Any, ClassVar, Final, Literal, Self, cast
from zlib import crc32

import cachelib
from flask import Flask

from ..backends.base import Abilities, BaseCache
from ..serializer import SafeUWSGISerializer
from ..timeouts import Timeout

_EXPIRING: Final = b"\xc1Wx"
_HEAD: Final = struct.Struct("<3sd")
_LOCKS: Final = 16
_LOCK: Final = struct.Struct("<dqq")
"""What a lock says: when it was taken, by which process, and by which turn of it."""
_LOCK_SECONDS: Final = 30.0
"""After which whoever held a lock is taken for dead: many times what a starved process takes for its step."""
_MAX_KEY_BYTES: Final = 1024
_turns: Final = count()


class UWSGICache(BaseCache, cachelib.UWSGICache):
    """uWSGI's cache framework (`--cache2`).

    Args:
        cache: the name of the cache, such as `mycache` or `mycache@localhost:3031`; "" is the local default.
        default_timeout, ignore_delete_many_errors: see `BaseCache`.

    Raises:
        RuntimeError: the process does not run under uWSGI.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=True, atomic_add=True, atomic_inc=True, batch=True)
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

    # --- values --------------------------------------------------------------------------------------

    def _found(self, key: str) -> tuple[Any, float] | None:
        """A living value and its expiry, 0 for never."""
        data: bytes | None = self._uwsgi.cache_get(_name(key), self.cache)
        if data is None:
            return None
        if not data.startswith(_EXPIRING):
            return self.serializer.loads(data), 0.0  # another program's
        expires: float = _HEAD.unpack_from(data)[1]
        if expires and expires <= time.time():
            return None
        return self.serializer.loads(data[_HEAD.size :]), expires

    def get(self, key: str) -> Any:
        """The value, or None."""
        found = self._found(key)
        return None if found is None else found[0]

    def has(self, key: str) -> bool:
        """Whether the key lives."""
        return self._found(key) is not None

    def _expiry(self, timeout: Timeout) -> float | None:
        """The instant of the expiry, 0 for never, None for what has expired already."""
        lifetime = self._normalize_timeout(cast("int | None", timeout))
        return None if lifetime < 0 else time.time() + lifetime if lifetime else 0.0

    def _write(self, key: str, value: Any, expires: float) -> bool:
        data = _HEAD.pack(_EXPIRING, expires) + self.serializer.dumps(value)
        left = math.ceil(expires - time.time()) if expires else 0
        if expires and left <= 0:
            self.delete(key)
            return True
        if self._uwsgi.cache_update(_name(key), data, left, self.cache):
            return True
        self.delete(key)  # it is too large, or the cache is full: the older value must not stay
        return False

    def set(self, key: str, value: Any, timeout: Timeout = None) -> Literal[True] | None:
        """Keep a value; None where it is too large or the cache is full."""
        expires = self._expiry(timeout)
        if expires is None:
            self.delete(key)
            return True
        return True if self._write(key, value, expires) else None

    def delete(self, key: str) -> bool:
        """Delete a key; False where there was none."""
        return bool(self._uwsgi.cache_del(_name(key), self.cache))

    # --- in one step ---------------------------------------------------------------------------------

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone among the workers, as far as this key is concerned."""
        name = f"_wsgicache_lock_{crc32(key.encode()) % _LOCKS}"
        mine = _LOCK.pack(time.time(), os.getpid(), next(_turns))
        while not self._uwsgi.cache_set(name, mine, 0, self.cache):
            held = self._uwsgi.cache_get(name, self.cache)
            if held is None and not self._uwsgi.cache_exists(name, self.cache) and self._is_full(name):
                break  # nothing can be written, this lock neither
            if held is not None and self._is_abandoned(held):
                self._unlock(name, held)
            time.sleep(0.0005)
        try:
            yield
        finally:
            self._unlock(name, mine)

    def _unlock(self, name: str, held: bytes) -> None:
        """Free a lock, unless it is another's by now."""
        if self._uwsgi.cache_get(name, self.cache) == held:
            self._uwsgi.cache_del(name, self.cache)

    def _is_abandoned(self, held: bytes) -> bool:
        """Whether who took this lock has died, or must have."""
        if len(held) != _LOCK.size:
            return True  # of an older version, from a cache that is kept in a file
        taken, pid, _ = _LOCK.unpack(held)
        if time.time() - taken > _LOCK_SECONDS:
            return True
        return "@" not in self.cache and not _lives(pid)  # another machine's processes are not to be seen

    def _is_full(self, name: str) -> bool:
        """Whether the cache takes nothing new at all."""
        probe = f"{name}_probe"
        taken = self._uwsgi.cache_update(probe, b"1", 1, self.cache)  # it refuses an empty value always
        self._uwsgi.cache_del(probe, self.cache)
        return not taken

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives; atomic."""
        expires = self._expiry(timeout)
        with self._locked(key):
            if self.has(key):
                return False
            return True if expires is None else self._write(key, value, expires)

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count up, atomically. A new counter gets `timeout`, a living one keeps its expiry."""
        with self._locked(key):
            found = self._found(key)
            if found is None:
                return delta if self.set(key, delta, timeout) else None
            value: int = found[0] + delta
            return value if self._write(key, value, found[1]) else None

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """See `BaseCache.touch`."""
        wanted = self._expiry(timeout)
        with self._locked(key):
            found = self._found(key)
            if found is None:
                return False
            value, expires = found
            if expires and wanted is not None and (wanted == 0 or wanted > expires):
                self._write(key, value, wanted)
            return True

    def ttl(self, key: str) -> float | None:
        """Seconds left: None where there is no such key, infinity where it never expires."""
        found = self._found(key)
        return None if found is None else found[1] - time.time() if found[1] else math.inf

    def release(self, key: str, token: str) -> None:
        """See `BaseCache.release`."""
        with self._locked(key):
            super().release(key, token)


def _name(key: str) -> str:
    """The name in the cache: uWSGI refuses long ones."""
    return key if len(key.encode()) <= _MAX_KEY_BYTES else f"~{sha256(key.encode()).hexdigest()}"


def _lives(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # there is, and it is another user's
    return True
