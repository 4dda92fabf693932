"""The values of a cache: get, set and their kin, which survive a lost server.

Decorated functions and fragments use these public methods, so a subclass that overrides one sees all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from flask import Flask, current_app

from .envelope import opened
from .link import Link
from .prefixes import RESERVED
from .timeouts import Timeout, seconds


class Values:
    """Get, set, add, delete, count: proxies for the backend of the current app."""

    app: Flask
    _links: WeakKeyDictionary[Flask, Link]
    _only: Link | None

    @property
    def link(self) -> Link:
        """What this cache keeps for the current app, or else for the last one it was set up for."""
        if self._only is not None:
            return self._only
        if not self._links:
            raise RuntimeError("this cache has no app yet: call init_app(app), or give the app to Cache")
        app = current_app._get_current_object() if current_app else self.app  # type: ignore[attr-defined]
        return self._links.get(app) or self._links[self.app]

    @property
    def cache(self) -> Any:
        """The backend of the current app: the door to what it can do and this class does not pass on."""
        return self.link.backend

    # --- read --------------------------------------------------------------------------------------

    def get(self, key: str, **kwargs: Any) -> Any:
        """The value of a key, or None.

        Args:
            key: any text.
            kwargs: for the backend.
        """
        link = self.link
        if link.is_down:
            return None
        try:
            stored = link.backend.get(link.name(key), **kwargs) if kwargs else link.read(key)
            kind = type(stored)
            return link.good(stored) if kind is tuple or kind is list else stored
        except Exception as error:
            return self._failed(link, error)

    def _failed(self, link: Link, error: Exception) -> None:
        if link.config["CACHE_ON_ERROR"] == "raise" or not link.is_failure(error):
            raise error
        link.note_failure(error)

    def get_many(self, *keys: str) -> list[Any]:
        """The values of keys in order, None for missing ones."""
        link = self.link

        def read() -> list[Any]:
            found = link.read_many(keys)
            known = dict(zip(keys, found, strict=True))
            return [link.good(stored, known) for stored in found]

        return link.guarded(read, [None] * len(keys)) if keys else []

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """The values of keys by key, None for missing ones."""
        return dict(zip(keys, self.get_many(*keys), strict=True))

    def has(self, key: str) -> bool:
        """Whether a key has a value, be it None."""
        link = self.link

        def ask() -> bool:
            name = link.name(key)
            if not _lives(link, name):
                return False
            stored = link.backend.get(name)
            return not isinstance(stored, tuple | list) or _is_good(link, stored)

        return link.guarded(ask, False)

    # --- write -------------------------------------------------------------------------------------

    def set(self, key: str, value: Any, timeout: Timeout = None, **kwargs: Any) -> bool | None:
        """Keep a value.

        Args:
            key: any text.
            value: anything the backend's serializer takes.
            timeout: seconds or a timedelta; None is the default, 0 never expires, negative expires at once.
            kwargs: for the backend.

        Returns:
            Whether it was kept.
        """
        link = self.link

        def write() -> Any:
            name = link.name(key)
            given = _given(link, timeout)
            if given is None:
                link.backend.delete(name)
                return True
            return link.backend.set(name, value, *given, **kwargs)

        return link.guarded(write, False)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key has one."""
        link = self.link

        def write() -> bool:
            name, backend = link.name(key), link.backend
            given = _given(link, timeout)
            if given is None:
                return not _lives(link, name)
            if not link.is_foreign:
                return bool(backend.add(name, value, *given))
            if _lives(link, name):
                return False  # cachelib's DynamoDB would replace what never expires
            if backend.add(name, value, *given):
                return True
            # cachelib's files refuse where only an expired file is left.
            return not _lives(link, name) and bool(backend.set(name, value, *given))

        return link.guarded(write, False)

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[Any]:
        """Keep several values; returns the keys that were kept."""
        link = self.link

        def write() -> list[Any]:
            names = {link.name(key): key for key in mapping}
            given = _given(link, timeout)
            if given is None:
                for name in names:
                    link.backend.delete(name)
                return list(mapping)
            kept = link.backend.set_many({name: mapping[key] for name, key in names.items()}, *given)
            return [names[name] for name in kept] if isinstance(kept, list) else list(mapping if kept else ())

        return link.guarded(write, [])

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """Let a key live at least `timeout` longer from now on; never less. False where there is none."""
        link = self.link

        def touch() -> bool:
            (name,) = link.names([key])
            given = _given(link, timeout)
            if given is None:
                return bool(link.backend.has(name))
            if hasattr(link.backend, "touch"):
                return bool(link.backend.touch(name, *given))
            value = link.backend.get(name)
            return value is not None and bool(link.backend.set(name, value, *given))

        return link.guarded(touch, False)

    # --- look --------------------------------------------------------------------------------------

    def ttl(self, key: str) -> float | None:
        """Seconds that a key has left to live: None where there is none, infinity where it never expires.

        Raises:
            NotImplementedError: the backend does not tell.
        """
        link = self.link
        tell = self._told_by("ttl", "how long a key has to live")

        def ask() -> float | None:
            (name,) = link.names([key])
            left: float | None = tell(name)
            return left if left is None or self.has(key) else None

        return link.guarded(ask, None)

    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with a text. It walks over all of them: for people, not for requests.

        Raises:
            NotImplementedError: the backend cannot list what it has.
        """
        link = self.link
        listed = self._told_by("names", "which keys it has")

        def walk() -> list[str]:
            link.learn()
            own = link.prefixes.own
            names = set(listed())
            keys = {name.removeprefix(own).partition("\x1f")[0] for name in names}
            living = {link.prefixes.name(key): key for key in keys}
            return sorted(
                key
                for name, key in living.items()
                if name in names and key.startswith(prefix) and not key.startswith(RESERVED)
            )

        return link.guarded(walk, [])

    def _told_by(self, method: str, what: str) -> Any:
        tell = getattr(self.link.backend, method, None)
        if tell is None:
            kind = type(self.link.backend).__name__
            raise NotImplementedError(f"{kind} does not tell {what}; docs/flask.md has the backends that do")
        return tell

    # --- delete ------------------------------------------------------------------------------------

    def delete(self, key: str) -> bool:
        """Delete a key, and let nobody store what is being computed for it."""
        link = self.link
        link.flights.void(key)

        def delete() -> bool:
            gone = bool(link.backend.delete(*link.names([key])))
            link.break_leases([key])
            return gone

        return link.guarded(delete, False)

    def delete_many(self, *keys: str) -> list[str]:
        """Delete keys; returns those that are gone.

        Raises:
            RuntimeError: one is not, and `CACHE_IGNORE_ERRORS` is not set.
        """
        return self._delete_each("delete_many", keys)

    def unlink(self, *keys: str) -> list[str]:
        """Delete keys; Redis frees their memory later, other backends delete."""
        method = "unlink" if hasattr(self.cache, "unlink") else "delete_many"
        return self._delete_each(method, keys)

    def _delete_each(self, method: str, keys: Iterable[str]) -> list[str]:
        link = self.link
        link.flights.void(*keys)

        def delete() -> list[str]:
            names = dict(zip(link.names(keys), keys, strict=True))
            gone = getattr(link.backend, method)(*names)
            link.break_leases(keys)
            return [names[name] for name in gone] if isinstance(gone, list) else list(names.values())

        return link.guarded(delete, [])

    def clear(self) -> bool:
        """Delete everything; False where the backend could not be reached."""
        link = self.link
        link.flights.void_all()
        return link.guarded(lambda: bool(link.backend.clear()), False)

    # --- count -------------------------------------------------------------------------------------

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count up; atomic where the backend can.

        Args:
            key: any text; a key without a value starts at 0.
            delta: how much.
            timeout: of a new counter; a living one keeps its expiry.

        Returns:
            The new count; None where the backend could not be reached.
        """
        link = self.link

        def count() -> int | None:
            (name,) = link.names([key])
            if timeout is None:
                return link.backend.inc(name, delta)  # type: ignore[no-any-return]
            return link.backend.inc(name, delta, timeout)  # type: ignore[no-any-return]

        return link.guarded(count, None)

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int | None:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)


def _given(link: Link, timeout: Timeout) -> tuple[Any, ...] | None:
    """The timeout as an argument for the backend; None where it has passed already.

    Backends of ours see to that themselves; of cachelib's each means something else by it.
    """
    if timeout is None:
        return ()
    if not link.is_foreign:
        return (timeout,)
    lifetime = seconds(timeout)
    return None if lifetime < 0 else (lifetime,)


def _lives(link: Link, name: str) -> bool:
    """Whether a key has a value; cachelib's DynamoDB does not have what never expires."""
    backend = link.backend
    return bool(backend.has(name)) or (link.is_foreign and backend.get(name) is not None)


def _is_good(link: Link, stored: Any) -> bool:
    envelope = opened(stored)
    return envelope is None or (link.is_current(envelope) and envelope.is_fresh(link.now()))
