"""What every backend is: a cachelib cache that says what it can do.

Write your own backend by subclassing `BaseCache` and naming it in `CACHE_TYPE`.
"""

from __future__ import annotations

import inspect
import warnings
from datetime import timedelta
from typing import Any, ClassVar, NamedTuple, Self, cast

import cachelib
from flask import Flask

from ..timeouts import Timeout, seconds


class Abilities(NamedTuple):
    """What a backend can do; `docs/flask.md` has the table.

    Attributes:
        shared: other processes see its entries.
        atomic_add: of several that add one key at once, exactly one succeeds.
        atomic_inc: no increment is lost, and the expiry stays.
        batch: reading a second key costs next to nothing.
    """

    shared: bool = True
    atomic_add: bool = False
    atomic_inc: bool = False
    batch: bool = False

    @property
    def leases(self) -> bool:
        """Whether workers lease a computation: not where each of the steps is a slow request of its own."""
        return self.shared and self.atomic_add and self.batch


class BaseCache(cachelib.BaseCache):
    """Base class of the backends.

    Args:
        default_timeout: seconds or a timedelta, for values that are set without a timeout; 0 means never.
        ignore_delete_many_errors: do not raise when `delete_many` leaves a key behind.
        ignore_errors: the old name of the same.
    """

    abilities: ClassVar[Abilities] = Abilities()
    failures: ClassVar[tuple[type[Exception], ...]] = (OSError,)
    """What is raised when the server does not do what it is asked: the cache goes on without it."""
    refusals: ClassVar[tuple[type[Exception], ...]] = ()
    """Those that a server raises that is there, and so goes on being asked."""

    def __init__(
        self,
        default_timeout: Timeout = 300,
        ignore_delete_many_errors: bool = False,
        ignore_errors: bool | None = None,
    ) -> None:
        given = 300 if default_timeout is None else default_timeout
        cachelib.BaseCache.__init__(self, cast(int, given), ignore_delete_many_errors)
        if ignore_errors is not None:
            warnings.warn(
                "ignore_errors is deprecated: say ignore_delete_many_errors", DeprecationWarning, stacklevel=3
            )
            self.ignore_delete_many_errors = ignore_errors

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend for an app.

        Args:
            app: the app.
            config: the `CACHE_…` keys.
            args: `CACHE_ARGS`.
            kwargs: `CACHE_OPTIONS` with `default_timeout`.
        """
        try:
            inspect.signature(cls).bind(*args, **kwargs)
        except TypeError:
            return cls()  # a backend of the manual's kind, whose constructor takes nothing
        return cls(*args, **kwargs)

    @staticmethod
    def _to_seconds(timeout: float | timedelta | str) -> int:
        return seconds(timeout)

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """Let a key live at least `timeout` longer from now on; never less. False where it is gone."""
        value = self.get(key)
        return value is not None and bool(self.set(key, value, cast("int | None", timeout)))

    def release(self, key: str, token: str) -> None:
        """Delete a key if it still holds `token`."""
        if self.get(key) == token:
            self.delete(key)


def abilities_of(backend: Any) -> Abilities:
    """What a backend can do; a stranger can do nothing for certain."""
    if type(backend) is cachelib.SimpleCache:
        return Abilities(shared=False, atomic_add=True)
    return getattr(backend, "abilities", None) or Abilities()
