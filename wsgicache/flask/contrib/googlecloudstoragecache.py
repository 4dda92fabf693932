"""`GoogleCloudStorageCache`: objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, Self, cast

from flask import Flask

from ..backends.base import Abilities, BaseCache
from ..serializer import SafeSerializer
from ..timeouts import Timeout

try:
    from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
except ImportError as error:
    raise RuntimeError("GoogleCloudStorageCache needs the package google-cloud-storage") from error


_ATTEMPTS: Final = 20


class GoogleCloudStorageCache(BaseCache):
    """Objects in a bucket. The expiry is the object's custom time, which a lifecycle rule can act on.

    Args:
        bucket: its name.
        key_prefix: put before every key.
        delete_expired_objects_on_read: delete an expired object when it is found.
        anonymous: use no credentials.
        kwargs: for `google.cloud.storage.Client`.
        default_timeout: see `BaseCache`.

    Raises:
        ValueError: no bucket is named.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=True, atomic_add=True, atomic_inc=True)
    failures: ClassVar[tuple[type[Exception], ...]] = (GoogleAPIError, OSError)
    serializer = SafeSerializer()

    def __init__(
        self,
        bucket: str,
        key_prefix: str | None = None,
        default_timeout: Timeout = 300,
        delete_expired_objects_on_read: bool = False,
        anonymous: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(default_timeout)
        if not isinstance(bucket, str) or not bucket:
            raise ValueError("CACHE_GCS_BUCKET must name a bucket")
        self.key_prefix = key_prefix or ""
        self.delete_expired_objects_on_read = delete_expired_objects_on_read
        anonymously: Any = AnonymousCredentials
        given = {"credentials": anonymously(), **kwargs} if anonymous else kwargs
        client: Any = storage.Client(**given)
        self._client = client
        self.bucket = client.bucket(bucket)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_GCS_BUCKET` and `CACHE_KEY_PREFIX` apply."""
        if not args:
            kwargs = {"bucket": config["CACHE_GCS_BUCKET"], **kwargs}
        return cls(*args, **{"key_prefix": config["CACHE_KEY_PREFIX"], **kwargs})

    def _full(self, key: str) -> str:
        return f"{self.key_prefix}{key}"

    def _live(self, key: str) -> Any:
        """The object if it is there and has not expired."""
        blob = self.bucket.get_blob(self._full(key))
        if blob is None or _lives(blob):
            return blob
        if self.delete_expired_objects_on_read:
            self.delete(key)
        return None

    def get(self, key: str) -> Any:
        """The value, or None."""
        blob = self._live(key)
        try:
            return None if blob is None else self.serializer.loads(blob.download_as_bytes())
        except NotFound:
            return None

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value."""
        lifetime = self._normalize_timeout(cast("int | None", timeout))
        if lifetime < 0:
            self.delete(key)
            return True
        self._upload(key, value, _expiry(lifetime))
        return True

    def _upload(self, key: str, value: Any, expires: datetime | None, **condition: int) -> None:
        blob = self.bucket.blob(self._full(key))
        if expires is not None:
            blob.custom_time = expires
        data = self.serializer.dumps(value)
        blob.upload_from_string(data, content_type="application/octet-stream", **condition)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives; atomic, by the object's generation."""
        lifetime = self._normalize_timeout(cast("int | None", timeout))
        blob = self.bucket.get_blob(self._full(key))
        if blob is not None and _lives(blob):
            return False
        if lifetime < 0:
            return True
        try:
            generation = 0 if blob is None else blob.generation
            self._upload(key, value, _expiry(lifetime), if_generation_match=generation)
        except PreconditionFailed:
            return False
        return True

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count up; atomic, by the object's generation. A living counter keeps its expiry.

        A bucket takes about one change a second of one object: a counter here is for what seldom counts.
        None where others were quicker each time.
        """
        for _ in range(_ATTEMPTS):
            blob = self._live(key)
            if blob is None:
                if self.add(key, delta, timeout):
                    return delta
                continue
            try:
                data = blob.download_as_bytes(if_generation_match=blob.generation)
                value: int = self.serializer.loads(data) + delta
                self._upload(key, value, blob.custom_time, if_generation_match=blob.generation)
                return value
            except (PreconditionFailed, NotFound):
                continue
        return None

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def ttl(self, key: str) -> float | None:
        """Seconds left: None where there is no such key, infinity where it never expires."""
        blob = self._live(key)
        if blob is None:
            return None
        return float((blob.custom_time - datetime.now(UTC)).total_seconds()) if blob.custom_time else math.inf

    def names(self) -> list[str]:
        """Every living key with this cache's prefix, without it."""
        found = self.bucket.list_blobs(prefix=self.key_prefix)
        return [blob.name[len(self.key_prefix) :] for blob in found if _lives(blob)]

    def release(self, key: str, token: str) -> None:
        """See `BaseCache.release`; atomic, by the object's generation."""
        blob = self._live(key)
        if blob is None:
            return
        try:
            if self.serializer.loads(blob.download_as_bytes(if_generation_match=blob.generation)) == token:
                self.bucket.delete_blob(self._full(key), if_generation_match=blob.generation)
        except (PreconditionFailed, NotFound):
            return  # it is another's by now

    def delete(self, key: str) -> bool:
        """Delete a key; False where there was none."""
        try:
            self.bucket.delete_blob(self._full(key))
        except NotFound:
            return False
        return True

    def has(self, key: str) -> bool:
        """Whether the key lives."""
        return self._live(key) is not None

    def clear(self) -> bool:
        """Delete every object with this cache's prefix."""
        self.bucket.delete_blobs(
            list(self.bucket.list_blobs(prefix=self.key_prefix)), on_error=lambda blob: None
        )
        return True


def _lives(blob: Any) -> bool:
    return blob.custom_time is None or bool(blob.custom_time > datetime.now(UTC))


def _expiry(lifetime: int) -> datetime | None:
    return datetime.now(UTC) + timedelta(seconds=lifetime) if lifetime else None
