"""`GoogleCloudStorageCache`: objects in a bucket of Google Cloud Storage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self, cast

from flask import Flask

from ..backends.base import Abilities, BaseCache
from ..serializer import SafeSerializer
from ..timeouts import Timeout

try:
    from google.api_core.exceptions import GoogleAPIError, NotFound
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
except ImportError as error:
    raise RuntimeError("GoogleCloudStorageCache needs the package google-cloud-storage") from error


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

    abilities: ClassVar[Abilities] = Abilities(shared=True)
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
        if blob is None:
            return None
        if blob.custom_time is None or blob.custom_time > datetime.now(UTC):
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
        blob = self.bucket.blob(self._full(key))
        if lifetime:
            blob.custom_time = datetime.now(UTC) + timedelta(seconds=lifetime)
        blob.upload_from_string(self.serializer.dumps(value), content_type="application/octet-stream")
        return True

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives. Not atomic: there is no single operation for it."""
        return not self.has(key) and self.set(key, value, timeout)

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
