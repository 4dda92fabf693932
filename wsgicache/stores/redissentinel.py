"""The primary that Sentinels name: asked for each new connection, and once a second besides.

A primary that was replaced without having failed goes on answering until the Sentinels tell it, for about a
second. Whoever reads from it then misses what is purged at the new one. So who is connected to it asks too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import redis
from redis.sentinel import (
    MasterNotFoundError,
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)

from . import StoreOptions
from .memo import MemoSlot
from .redis import RedisStore
from .redislink import Line, Link, Paced
from .redisurl import Address, connection_options, read_url

T = TypeVar("T")

LOOK: Final = 1.0
"""Seconds between two questions to the Sentinels."""

LONGEST: Final = 30.0
"""The same while none of them answers, at most."""


class _Connection(Paced, SentinelManagedConnection):
    """To the primary that the Sentinels name when it is opened."""


class _SSLConnection(Paced, SentinelManagedSSLConnection):
    """The same with TLS."""


class _Sentinels(Sentinel):
    """Those that know the primary. Where they do not, the error names each by its address."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """See `redis.sentinel.Sentinel`, whose error tells how each connection was configured."""
        try:
            address: tuple[str, int] = super().discover_master(service_name)  # type: ignore[no-untyped-call]
        except MasterNotFoundError as error:
            told = str(error)
            for asked in self.sentinels:
                node = asked.connection_pool.connection_kwargs
                told = told.replace(str(asked), f"{node['host']}:{node['port']}")
            raise MasterNotFoundError(told) from None
        return address


class SentinelLink(Link):
    """The connections of this process to the primary that the Sentinels name."""

    def __init__(self, address: Address, clock: Callable[[], float] = time.monotonic) -> None:
        options = connection_options(address)
        asked = {name: value for name, value in options.items() if name not in address.login}
        if address.tls:
            asked["ssl"] = True
        sentinel = _Sentinels(  # type: ignore[no-untyped-call]
            address.nodes, sentinel_kwargs={**asked, **address.sentinel_login}
        )
        made = _SSLConnection if address.tls else _Connection
        pool = SentinelConnectionPool(address.service, sentinel, connection_class=made, **options)
        # `pool.make_connection` counts what it ever made: after a hundred it would make no more.
        connect = partial(made, **pool.connection_kwargs)
        super().__init__(address.name, connect, address.timeout, address.connections)
        self._pool, self._sentinels = pool, sentinel
        self.clock = clock
        self.look_at = 0.0
        """When the Sentinels are asked again, by the clock."""
        self._pause = LOOK

    def ask(self, use: Callable[[Line], T], *, writes: bool = False, insist: bool = False) -> T:
        """See `Link.ask`."""
        if self.clock() >= self.look_at:
            self.look_again()
        return super().ask(use, writes=writes, insist=insist)

    def look_again(self) -> None:
        """Ask the Sentinels; where they name another primary, every connection to the last one goes."""
        self.look_at = self.clock() + self._pause  # so that the others need not wait
        before = self._pool.master_address
        if before is None or self.reading.is_open:
            return  # whoever connects asks anyway
        try:
            address = self._pool.get_master_address()
        except (redis.RedisError, OSError):
            self._pause = min(LONGEST, self._pause * 2)
            return
        self._pause = LOOK
        if address != before:
            self.run = ""
            self.hang_up()

    def close(self) -> None:
        """Close the lines that nobody uses, and those to the Sentinels."""
        super().close()
        for asked in self._sentinels.sentinels:
            asked.close()


class SentinelStore(RedisStore):
    """A Redis store whose server the Sentinels name."""

    link: SentinelLink

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """See `RedisStore.confirm`."""
        link = self.link
        if link.clock() >= link.look_at:
            link.look_again()
        return super().confirm(slot)


def open_sentinel(url: str, options: StoreOptions) -> SentinelStore:
    """The store for `redis+sentinel://` or `rediss+sentinel://`: the primary that the Sentinels name.

    Raises:
        ValueError: a mistake in the URL; the message says what and the remedy.
    """
    address = read_url(url, options)
    link = SentinelLink(address)
    store = SentinelStore(link, options.memo_bytes, options.signing_keys, address.journal)
    store.mend = options.mend
    return store
