"""`FileSystemCache`: one file a key, shared by the processes of one machine."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, ClassVar, Final, Self, cast

import cachelib.file
from cachelib.serializers import FileSystemSerializer
from flask import Flask

from ..serializer import SafeFileSerializer
from ..timeouts import Timeout
from .base import Abilities, BaseCache

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_file: Any = cachelib.file  # its `time` is the clock, so that tests can turn it

_READ: Final = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_CHUNK: Final = 1 << 16


class FileSystemCache(BaseCache, cachelib.FileSystemCache):
    """Files in a directory that belongs to this cache alone.

    Args:
        cache_dir: the directory; made if need be.
        threshold: files kept; 0 means no bound. Expired ones go first, then the soonest to expire.
        mode: permissions of the files.
        hash_method: makes file names from keys.
        default_timeout, ignore_delete_many_errors, ignore_errors: see `BaseCache`.
    """

    abilities: ClassVar[Abilities] = Abilities(
        shared=True, atomic_add=fcntl is not None, atomic_inc=fcntl is not None, batch=True
    )
    serializer: FileSystemSerializer = SafeFileSerializer()

    def __init__(
        self,
        cache_dir: str,
        threshold: int = 500,
        default_timeout: Timeout = 300,
        mode: int = 0o600,
        hash_method: Any = hashlib.sha256,
        ignore_delete_many_errors: bool = False,
        ignore_errors: bool | None = None,
    ) -> None:
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors, ignore_errors)
        default = self.default_timeout
        cachelib.FileSystemCache.__init__(
            self, cache_dir, threshold, default, mode, hash_method, self.ignore_delete_many_errors
        )
        self._lock_name = os.path.join(self._path, f"lock{self._fs_transaction_suffix}")

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_DIR`, `CACHE_THRESHOLD`, `CACHE_FILE_HASH_METHOD` apply."""
        if config["CACHE_DIR"] is None and not args and "cache_dir" not in kwargs:
            warnings.warn("CACHE_TYPE is FileSystemCache but CACHE_DIR is not set", stacklevel=5)
        if not args:
            kwargs.setdefault("cache_dir", config["CACHE_DIR"])
        kwargs = {
            "threshold": config["CACHE_THRESHOLD"],
            "hash_method": config["CACHE_FILE_HASH_METHOD"],
            "ignore_delete_many_errors": config["CACHE_IGNORE_ERRORS"],
            **kwargs,
        }
        return cls(*args, **kwargs)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone among threads and processes."""
        with self._lock_file() as lock:
            if fcntl is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _lock_file(self) -> IO[bytes]:
        try:
            return open(self._lock_name, "ab")
        except FileNotFoundError:  # somebody removed the whole directory
            os.makedirs(self._path, exist_ok=True)
            return open(self._lock_name, "ab")

    def get(self, key: str) -> Any:
        """The value, or None; a file that cannot be read is a miss."""
        try:
            data = _contents(self._get_filename(key))
            if not _is_live(data[:4]):
                return None
        except FileNotFoundError:
            return None
        except PermissionError:
            return cachelib.FileSystemCache.get(self, key)  # Windows: retries
        except (OSError, EOFError, struct.error):
            return None
        serializer: FileSystemSerializer = self.serializer
        if isinstance(serializer, SafeFileSerializer):
            return serializer.loads(data[4:])
        return serializer.load(io.BytesIO(data[4:]))

    def _get_filename(self, key: str) -> str:
        return f"{self._path}{os.sep}{self._hash_method(key.encode()).hexdigest()}"

    def _expiry_of(self, key: str) -> int | None:
        try:
            with open(self._get_filename(key), "rb") as stored:
                head = stored.read(4)
        except OSError:
            return None
        return cast(int, struct.unpack("I", head)[0]) if len(head) == 4 and _is_live(head) else None

    def _normalize_timeout(self, timeout: Any) -> int:
        # The head of a file is unsigned: what lies before 1970 or after 2106 is brought inside.
        return max(0, min(super()._normalize_timeout(timeout), 2**32 - 1))

    def set(self, key: str, value: Any, timeout: Timeout = None, mgmt_element: bool = False) -> bool:
        """Write a value; False where the disk did not take it."""
        given = cast("int | None", timeout)
        if not mgmt_element and not os.path.isdir(self._path):
            os.makedirs(self._path, exist_ok=True)
        return bool(cachelib.FileSystemCache.set(self, key, value, given, mgmt_element))

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Write a value unless the key lives."""
        with self._locked():
            return not self.has(key) and self.set(key, value, timeout)

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count up. A new counter gets `timeout`, a living one keeps its expiry."""
        with self._locked():
            expires, current = self._expiry_of(key), self.get(key)
            if expires is None or current is None:
                return delta if self.set(key, delta, timeout) else None
            value: int = current + delta
            left = 0 if expires == 0 else expires - int(_file.time())
            return value if self.set(key, value, left or -1 if expires else 0) else None

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """See `BaseCache.touch`."""
        with self._locked():
            expires = self._expiry_of(key)
            if expires is None:
                return False
            wanted = self._normalize_timeout(timeout)
            if expires == 0 or (wanted != 0 and wanted <= expires):
                return True
            try:
                with open(self._get_filename(key), "r+b") as stored:
                    stored.write(struct.pack("I", wanted))
            except FileNotFoundError:  # deleted meanwhile
                return False
            return True

    def ttl(self, key: str) -> float | None:
        """Seconds left: None where there is no such key, infinity where it never expires."""
        expires = self._expiry_of(key)
        if expires is None:
            return None
        return float(expires - _file.time()) if expires else math.inf

    def release(self, key: str, token: str) -> None:
        """See `BaseCache.release`."""
        with self._locked():
            super().release(key, token)

    def _remove_older(self) -> bool:
        """Make room: the soonest to expire go, those that never expire last."""
        heads = sorted(((_head_of(name), name) for name in self._list_dir()), key=lambda pair: pair[0])
        for _, name in heads:
            if not self._over_threshold():
                break
            try:
                os.remove(name)
                self._update_count(delta=-1)
            except FileNotFoundError:
                pass
            except OSError:
                return False
        return True


def _contents(name: str) -> bytes:
    """A whole file, by plain system calls: a file object costs as much as all the rest."""
    descriptor = os.open(name, _READ)
    try:
        data = os.read(descriptor, _CHUNK)
        if len(data) == _CHUNK:
            parts = [data]
            while data := os.read(descriptor, _CHUNK):
                parts.append(data)
            data = b"".join(parts)
        return data
    finally:
        os.close(descriptor)


def _is_live(head: bytes) -> bool:
    expires: int = struct.unpack("I", head)[0]
    return expires == 0 or expires >= _file.time()


def _head_of(name: str) -> float:
    try:
        with open(name, "rb") as stored:
            return struct.unpack("I", stored.read(4))[0] or math.inf
    except (OSError, struct.error):
        return 0.0
