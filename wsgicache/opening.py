"""The store of a cache, opened as its options say."""

from __future__ import annotations

import time

from .options import OptionError, Settings
from .stores import Store, StoreOptions, open_store
from .stores.near import near_store


def _store_options(settings: Settings) -> StoreOptions:
    return StoreOptions(
        max_bytes=settings.max_bytes,
        timeout=settings.store_timeout,
        memo_bytes=settings.memo_bytes if settings.near is None else 0,  # the near tier holds them decoded
        signing_keys=tuple([key.encode() for key in settings.signing_keys]),
        spool_max_bytes=settings.spool_max_bytes,
        spool_dir=settings.spool_dir,
    )


def store_from(settings: Settings) -> Store:
    """Open the store, and put a near tier in front of it where one is wanted.

    Raises:
        OptionError: the URL or object is no store, or an option does not go with it.
    """
    store = _opened(settings)
    if settings.near is None:
        return store
    if not getattr(store, "shared", False):
        raise OptionError(
            f"near = {settings.near}: a near tier stands in front of a store that workers share, such as "
            f"redis://; store = {settings.store!r} is in this process's memory already, so leave near out"
        )
    wall = settings.clock
    try:
        return near_store(
            store,
            settings.near,
            bound=settings.near_bound,
            max_age=settings.near_max_age,
            clock=time.time if wall is None else wall,
            steady=time.monotonic if wall is None else wall,
        )
    except ValueError as error:
        raise OptionError(f"near: {error}") from None


def _opened(settings: Settings) -> Store:
    given = settings.store
    if isinstance(given, str):
        try:
            return open_store(given, _store_options(settings))
        except ValueError as error:
            raise OptionError(f"store: {error}") from None
    if isinstance(given, type) or not isinstance(given, Store):
        raise OptionError(
            f"store = {given!r} is no store; give a URL such as memory:// or an object with the methods "
            "of wsgicache.Store"
        )
    if settings.spool_dir is not None:
        raise OptionError(
            "spool_dir is for a store that is opened by its URL; this one was made before: give it to the "
            "store itself"
        )
    if settings.signing_keys:
        raise OptionError(
            "signing_keys are for a store that is opened by its URL; this one was made before: give them to "
            "the store itself"
        )
    return given
