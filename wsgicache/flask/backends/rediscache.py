"""Redis, alone, behind sentinels, or as a cluster."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, ClassVar, Final, Self, cast

import cachelib
from flask import Flask

from ..serializer import SafeDigitsSerializer
from ..timeouts import Timeout
from .base import Abilities, BaseCache

try:
    from redis.exceptions import RedisClusterException, RedisError, ResponseError
except ImportError:
    RedisClusterException = RedisError = ResponseError = OSError  # type: ignore[assignment,misc]

log = logging.getLogger("wsgicache.flask")

_BATCH: Final = 500
_RELEASE: Final = "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) end return 0"
Prefix = str | Callable[[], str] | None


def deadline_options(deadline: float | None) -> dict[str, Any]:
    """Client options that bound what a lost server costs: no retries, short timeouts."""
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    if deadline is None:
        return {}
    return {
        "socket_timeout": deadline,
        "socket_connect_timeout": deadline,
        "retry": Retry(NoBackoff(), 0),
    }


class RedisCache(BaseCache, cachelib.RedisCache):
    """A Redis or Valkey server.

    Args:
        host: a host name, or a ready client.
        port, password, db: where to connect; not used with a ready client.
        key_prefix: put before every key; a callable is asked each time.
        kwargs: for `redis.Redis`.
        default_timeout, ignore_delete_many_errors: see `BaseCache`.

    Raises:
        ValueError: `host` is None, or `decode_responses` is asked for.
    """

    abilities: ClassVar[Abilities] = Abilities(shared=True, atomic_add=True, atomic_inc=True, batch=True)
    failures: ClassVar[tuple[type[Exception], ...]] = (RedisError, RedisClusterException, OSError)
    refusals: ClassVar[tuple[type[Exception], ...]] = (ResponseError,)
    serializer = SafeDigitsSerializer()

    def __init__(
        self,
        host: Any = "localhost",
        port: int = 6379,
        password: str | None = None,
        db: int = 0,
        default_timeout: Timeout = 300,
        key_prefix: Prefix = None,
        ignore_delete_many_errors: bool = False,
        **kwargs: Any,
    ) -> None:
        cachelib.RedisCache.__init__(
            self, host, port, password, db, key_prefix=key_prefix, **(kwargs if isinstance(host, str) else {})
        )
        BaseCache.__init__(self, default_timeout, ignore_delete_many_errors)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_REDIS_HOST`, `PORT`, `PASSWORD`, `DB`, `URL`, `CACHE_KEY_PREFIX` apply."""
        options = {**deadline_options(config["CACHE_DEADLINE"]), **kwargs}
        own = _take(options, "default_timeout", "ignore_delete_many_errors", "key_prefix")
        own.setdefault("key_prefix", config["CACHE_KEY_PREFIX"])
        own.setdefault("ignore_delete_many_errors", config["CACHE_IGNORE_ERRORS"])
        url = config["CACHE_REDIS_URL"]
        if url:
            return cls(_client_from_url(url, config["CACHE_REDIS_DB"], options), **own)
        where = {name: config[f"CACHE_REDIS_{name.upper()}"] for name in ("host", "port", "password", "db")}
        given = {name: value for name, value in where.items() if value is not None or name == "host"}
        return cls(*args, **{**given, **own, **options})

    def _full(self, key: str) -> str:
        return f"{self._get_prefix()}{key}"

    def _lifetime(self, timeout: Timeout) -> int:
        """Seconds; 0 never expires, below 0 is expired at once."""
        return cachelib.BaseCache._normalize_timeout(self, cast("int | None", timeout))

    def _normalize_timeout(self, timeout: Any) -> int:
        return self._lifetime(timeout) or -1  # cachelib's word for never is -1

    def set(self, key: str, value: Any, timeout: Timeout = None) -> Any:
        """Keep a value; truthy when the server took it."""
        lifetime = self._lifetime(timeout)
        if lifetime < 0:
            self._write_client.delete(self._full(key))
            return True
        dump = self.serializer.dumps(value)
        return self._write_client.set(self._full(key), dump, ex=lifetime or None)

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Keep a value unless the key lives; one atomic command."""
        lifetime = self._lifetime(timeout)
        if lifetime < 0:
            return not self.has(key)
        dump = self.serializer.dumps(value)
        return bool(self._write_client.set(self._full(key), dump, ex=lifetime or None, nx=True))

    def set_many(self, mapping: dict[str, Any], timeout: Timeout = None) -> list[Any]:
        """Keep several values in one round trip; returns the keys that the server took."""
        lifetime = self._lifetime(timeout)
        if lifetime < 0:
            self.delete_many(*mapping)
            return list(mapping)
        dumps = {key: self.serializer.dumps(value) for key, value in mapping.items()}
        pipe = self._write_client.pipeline(transaction=False)
        for key, dump in dumps.items():
            pipe.set(self._full(key), dump, ex=lifetime or None)
        return [key for key, taken in zip(dumps, pipe.execute(), strict=True) if taken]

    def get_many(self, *keys: str) -> list[Any]:
        """Several values in one round trip."""
        if not keys:
            return []
        prefix, loads, client = self._get_prefix(), self.serializer.loads, self._read_client
        names = [prefix + key for key in keys]
        # `mget` looks at its arguments for longer than some servers need to answer.
        ask = getattr(client, "execute_command", None)
        found = client.mget(names) if ask is None else ask("MGET", *names)
        return [None if value is None else loads(value) for value in found]

    def inc(self, key: str, delta: int = 1, timeout: Timeout = None) -> int:
        """Count up. A new counter gets `timeout`, a living one keeps its expiry.

        Raises:
            TypeError: the value is no integer.
        """
        lifetime = self._lifetime(timeout)
        pipe = self._write_client.pipeline(transaction=False)
        pipe.set(self._full(key), 0, ex=lifetime if lifetime > 0 else None, nx=True)
        pipe.incrby(self._full(key), delta)
        try:
            return int(pipe.execute()[1])
        except ResponseError as error:
            if "not an integer" in str(error) or "WRONGTYPE" in str(error):
                raise TypeError(f"{key!r} holds no integer") from None
            raise

    def dec(self, key: str, delta: int = 1, timeout: Timeout = None) -> int:
        """Count down; see `inc`."""
        return self.inc(key, -delta, timeout)

    def touch(self, key: str, timeout: Timeout = None) -> bool:
        """See `BaseCache.touch`."""
        lifetime, full = self._lifetime(timeout), self._full(key)
        if lifetime == 0:
            return bool(self._write_client.persist(full)) or self.has(key)
        left = self._write_client.ttl(full)
        if left == -2:
            return False
        if left != -1 and left < lifetime:
            self._write_client.expire(full, lifetime)
        return True

    def ttl(self, key: str) -> float | None:
        """Seconds left: None where there is no such key, infinity where it never expires."""
        left = self._read_client.pttl(self._full(key))
        return None if left == -2 else math.inf if left == -1 else left / 1000

    def names(self) -> list[str]:
        """Every key with this cache's prefix, without it."""
        prefix = self._get_prefix()
        found = self._read_client.scan_iter(match=_literal(prefix) + "*", count=_BATCH)
        return [name.decode("utf-8", "replace")[len(prefix) :] for name in found]

    def release(self, key: str, token: str) -> None:
        """See `BaseCache.release`; one atomic command."""
        self._write_client.eval(_RELEASE, 1, self._full(key), self.serializer.dumps(token))

    def unlink(self, *keys: str) -> list[str]:
        """Delete keys; the server frees their memory later."""
        if keys:
            self._write_client.unlink(*[self._full(key) for key in keys])
        return list(keys)

    def clear(self) -> bool:
        """Delete every key with this cache's prefix, in batches that do not hold the server up.

        Without a prefix that is every key of the database.
        """
        pattern = _literal(self._get_prefix()) + "*"
        for batch in _batches(self._write_client.scan_iter(match=pattern, count=_BATCH)):
            self._write_client.unlink(*batch)
        return True


class RedisSentinelCache(RedisCache):
    """Redis behind sentinels: writes go to the master, reads to a replica.

    Args:
        sentinels: pairs of host and port.
        master: the name of the master.
        password, db: of the master.
        kwargs: for the connections; those that begin with `sentinel_` for the sentinels'.
        default_timeout, key_prefix, ignore_delete_many_errors: see `RedisCache`.
    """

    def __init__(
        self,
        sentinels: Any = None,
        master: str = "mymaster",
        password: str | None = None,
        db: int = 0,
        default_timeout: Timeout = 300,
        key_prefix: Prefix = "",
        ignore_delete_many_errors: bool = False,
        **kwargs: Any,
    ) -> None:
        from redis.sentinel import Sentinel

        own = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith("sentinel_")}
        asked = {name.removeprefix("sentinel_"): value for name, value in own.items()}
        bounds = ("socket_timeout", "socket_connect_timeout")
        shared = {name: kwargs[name] for name in bounds if name in kwargs}
        made: Any = Sentinel
        sentinel = made(
            sentinels or [("127.0.0.1", 26379)],
            sentinel_kwargs={**shared, **asked},
            password=password,
            db=db,
            **kwargs,
        )
        super().__init__(
            sentinel.master_for(master),
            default_timeout=default_timeout,
            key_prefix=key_prefix,
            ignore_delete_many_errors=ignore_delete_many_errors,
        )
        self._read_client = sentinel.slave_for(master)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_REDIS_SENTINELS`, `SENTINEL_MASTER`, `SENTINEL_PASSWORD` apply."""
        given = {
            "sentinels": config["CACHE_REDIS_SENTINELS"],
            "master": config["CACHE_REDIS_SENTINEL_MASTER"],
            "password": config["CACHE_REDIS_PASSWORD"],
            "sentinel_password": config["CACHE_REDIS_SENTINEL_PASSWORD"],
            "db": config["CACHE_REDIS_DB"] or 0,
            "key_prefix": config["CACHE_KEY_PREFIX"],
            "ignore_delete_many_errors": config["CACHE_IGNORE_ERRORS"],
            **deadline_options(config["CACHE_DEADLINE"]),
        }
        named = {name: value for name, value in given.items() if value is not None}
        return cls(*args, **{**named, **kwargs})


class RedisClusterCache(RedisCache):
    """A Redis cluster.

    Args:
        cluster: `host:port,host:port`, or a ready client.
        password: of the nodes.
        kwargs: for `redis.cluster.RedisCluster`.
        default_timeout, key_prefix, ignore_delete_many_errors: see `RedisCache`.

    Raises:
        ValueError: an address is not `host:port`.
    """

    def __init__(
        self,
        cluster: Any = "",
        password: str = "",
        default_timeout: Timeout = 300,
        key_prefix: Prefix = "",
        ignore_delete_many_errors: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            _cluster_client(cluster, password, kwargs) if isinstance(cluster, str) else cluster,
            default_timeout=default_timeout,
            key_prefix=key_prefix,
            ignore_delete_many_errors=ignore_delete_many_errors,
        )

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; `CACHE_REDIS_CLUSTER` or `CACHE_REDIS_URL`, and `CACHE_REDIS_PASSWORD` apply."""
        options = {**deadline_options(config["CACHE_DEADLINE"]), **kwargs}
        options.setdefault("key_prefix", config["CACHE_KEY_PREFIX"])
        options.setdefault("ignore_delete_many_errors", config["CACHE_IGNORE_ERRORS"])
        url = config["CACHE_REDIS_URL"]
        if url and not config["CACHE_REDIS_CLUSTER"]:
            from redis.cluster import RedisCluster

            own = _take(options, "default_timeout", "ignore_delete_many_errors", "key_prefix")
            options.pop("skip_full_coverage_check", None)
            made = _now_or_later(lambda: RedisCluster.from_url(url, require_full_coverage=False, **options))
            return cls(made, **own)
        given = {"cluster": config["CACHE_REDIS_CLUSTER"], "password": config["CACHE_REDIS_PASSWORD"] or ""}
        return cls(*args, **{**given, **options})

    def get_many(self, *keys: str) -> list[Any]:
        """Several values; a round trip for each node that holds some."""
        found = self._read_client.mget_nonatomic([self._full(key) for key in keys]) if keys else []
        return [self.serializer.loads(value) for value in found]

    def _each(self, call: Callable[[str], Any], keys: Iterable[str]) -> None:
        for key in keys:
            call(self._full(key))

    def delete_many(self, *keys: str) -> list[Any]:
        """Delete keys, wherever they live."""
        self._each(self._write_client.delete, keys)
        return list(keys)

    def unlink(self, *keys: str) -> list[str]:
        """Delete keys, wherever they live; memory is freed later."""
        self._each(self._write_client.unlink, keys)
        return list(keys)

    def clear(self) -> bool:
        """Delete every key with this cache's prefix on every node."""
        pattern = _literal(self._get_prefix()) + "*"
        for key in self._write_client.scan_iter(match=pattern, count=_BATCH):
            self._write_client.unlink(key)
        return True


def _cluster_client(cluster: str, password: str, options: dict[str, Any]) -> Any:
    from redis.cluster import ClusterNode, RedisCluster

    options = {name: value for name, value in options.items() if name != "skip_full_coverage_check"}
    node: Any = ClusterNode
    nodes: list[Any] = []
    for address in cluster.split(","):
        host, colon, port = address.strip().rpartition(":")
        if not colon or not port.isdigit():
            raise ValueError(f"CACHE_REDIS_CLUSTER: {address!r} is not host:port")
        nodes.append(node(host, int(port)))
    options.setdefault("require_full_coverage", False)
    return _now_or_later(lambda: RedisCluster(startup_nodes=nodes, password=password or None, **options))


def _now_or_later(make: Callable[[], Any]) -> Any:
    """A cluster's client, which asks the nodes when it is made: when they do not answer, it is made later."""
    try:
        return make()
    except (RedisError, RedisClusterException) as error:
        log.warning("the cluster does not answer (%s); the app starts without its cache", error)
        return _Later(make)


class _Later:
    """A client that is made when it is used; until that succeeds, each use raises what making it did."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._client is None:
            self._client = self._make()
        return getattr(self._client, name)


def _client_from_url(url: str, db: int | None, options: dict[str, Any]) -> Any:
    """A client; a database in the URL wins over `db`."""
    import redis

    if options.get("decode_responses"):
        raise ValueError("decode_responses is not supported: values are bytes")
    return redis.Redis.from_url(url, **({} if db is None else {"db": db}), **options)


def _take(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: options.pop(name) for name in names if name in options}


def _batches(keys: Iterable[bytes]) -> Iterable[list[bytes]]:
    iterator = iter(keys)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _literal(text: str) -> str:
    """A text as a glob that matches only itself."""
    return "".join(f"\\{character}" if character in "*?[]\\^-" else character for character in text)
