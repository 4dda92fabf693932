"""Clients of memcached, made so that nothing they read is ever unpickled.

Each maker returns a client and a callable that gives a context manager with a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from threading import BoundedSemaphore
from typing import Any, Final

Made = tuple[Any, Callable[[], AbstractContextManager[Any]]]


def make_pylibmc(
    servers: Any, pool_size: int, blocking: bool, deadline: float | None, **options: Any
) -> Made:
    """A pool of pylibmc connections; `options` are username, password, binary."""
    import pylibmc

    class Client(pylibmc.Client):  # type: ignore[misc]
        def deserialize(self, data: bytes, flags: int) -> Any:
            if flags & 1:  # a pickle: not ours
                raise pylibmc.CacheMiss
            return data

    bounds = {} if deadline is None else _pylibmc_bounds(deadline)
    client = Client(list(servers), behaviors=bounds, **options)
    pool = pylibmc.ClientPool(client, pool_size)
    return pool, partial(pool.reserve, block=blocking)


def _pylibmc_bounds(deadline: float) -> dict[str, int]:
    milliseconds = max(1, int(deadline * 1000))
    return {
        "connect_timeout": milliseconds,
        "receive_timeout": milliseconds * 1000,
        "send_timeout": milliseconds * 1000,
        "tcp_nodelay": 1,
    }


def make_google(servers: Any, pool_size: int, blocking: bool, deadline: float | None) -> Made:
    """App Engine's client."""
    from google.appengine.api import memcache

    client = memcache.Client(unpickler=_Refusing)
    return client, partial(nullcontext, client)


def make_memcache(servers: Any, pool_size: int, blocking: bool, deadline: float | None) -> Made:
    """python-memcached."""
    import memcache

    client = memcache.Client(list(servers), unpickler=_Refusing, socket_timeout=deadline or 3)
    return client, partial(nullcontext, client)


def make_libmc(servers: Any, pool_size: int, blocking: bool, deadline: float | None) -> Made:
    """libmc."""
    import libmc

    pool = libmc.ClientPool(list(servers))
    pool.config(libmc.MC_INITIAL_CLIENTS, pool_size)
    pool.config(libmc.MC_MAX_CLIENTS, pool_size)

    @contextmanager
    def connection() -> Iterator[Any]:
        with pool.client() as client:
            client.toggle_flush_all_feature(True)
            yield client

    return pool, connection


def make_pymemcache(servers: Any, pool_size: int, blocking: bool, deadline: float | None) -> Made:
    """pymemcache: pure Python, pooled, friendly to gevent."""
    from pymemcache.client.hash import HashClient

    size = max(pool_size, 8)
    client = HashClient(
        list(servers),
        use_pooling=True,
        max_pool_size=size,
        default_noreply=False,
        connect_timeout=deadline,
        timeout=deadline,
        retry_attempts=0,
        dead_timeout=0,
    )
    slots = BoundedSemaphore(size)  # its pool raises where others wait

    @contextmanager
    def connection() -> Iterator[Any]:
        if not (slots.acquire(timeout=deadline) if blocking else slots.acquire(blocking=False)):
            raise TimeoutError("every connection to memcached is in use")
        try:
            yield client
        finally:
            slots.release()

    return client, connection


MAKERS: Final[dict[str, Callable[..., Made]]] = {
    "pylibmc": make_pylibmc,
    "google": make_google,
    "memcache": make_memcache,
    "libmc": make_libmc,
    "pymemcache": make_pymemcache,
}


_UNPICKLES: Final = frozenset({"libmc"})
"""Clients that unpickle what they read if a flag beside it says so, whoever set the flag."""


def make_client(
    library: str | None, servers: Any, pool_size: int, blocking: bool, deadline: float | None
) -> Made:
    """A client of the library that is named, or of the first that is installed and unpickles nothing.

    Raises:
        ValueError: nobody knows the library.
        RuntimeError: none is installed.
    """
    if library is not None:
        if library not in MAKERS:
            raise ValueError(f"memcache_client_lib {library!r} is none of {', '.join(MAKERS)}")
        return MAKERS[library](servers, pool_size, blocking, deadline)
    for name, make in MAKERS.items():
        if name in _UNPICKLES:
            continue
        try:
            return make(servers, pool_size, blocking, deadline)
        except ImportError:
            continue
    raise RuntimeError(
        f"no client of memcached is installed: install one of {', '.join(MAKERS.keys() - _UNPICKLES)}. libmc "
        "is not taken by itself, because it runs pickles that others wrote; on a server that only this app "
        'writes to, name it: CACHE_OPTIONS = {"memcache_client_lib": "libmc"}'
    )


def failures() -> tuple[type[Exception], ...]:
    """What the installed clients raise when the server does not answer or refuses."""
    found: list[type[Exception]] = [OSError]
    try:
        import pylibmc

        found.append(pylibmc.Error)
    except ImportError:
        pass
    try:
        from pymemcache.exceptions import MemcacheError

        found.append(MemcacheError)
    except ImportError:
        pass
    return tuple(found)


def refusals() -> tuple[type[Exception], ...]:
    """What the installed clients raise when the server is there and refuses."""
    found: list[type[Exception]] = []
    try:
        import pylibmc

        named = ("ServerError", "ClientError", "ProtocolError", "TooBig", "NotStored", "BadKeyProvided")
        found += [kind for name in named if (kind := getattr(pylibmc, name, None)) is not None]
    except ImportError:
        pass
    try:
        from pymemcache.exceptions import MemcacheClientError, MemcacheServerError

        found += [MemcacheClientError, MemcacheServerError]
    except ImportError:
        pass
    return tuple(found)


class _Refusing:
    """Stands where a client wants an unpickler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def load(self) -> None:
        """A pickle reads as a miss."""
        return
