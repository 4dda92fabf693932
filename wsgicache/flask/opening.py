"""From `CACHE_TYPE` to a backend."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Final

import cachelib
from cachelib.serializers import BaseRedisSerializer, BaseSerializer, SimpleSerializer
from flask import Flask
from werkzeug.utils import import_string

from . import backends
from .backends.memcache import MemcachedCache
from .serializer import SafeDigitsSerializer, SafeSerializer
from .settings import Config

_OLD_NAMES: Final = {
    "null": "NullCache",
    "simple": "SimpleCache",
    "filesystem": "FileSystemCache",
    "redis": "RedisCache",
    "redissentinel": "RedisSentinelCache",
    "rediscluster": "RedisClusterCache",
    "memcached": "MemcachedCache",
    "gaememcached": "MemcachedCache",
    "saslmemcached": "SASLMemcachedCache",
    "spreadsaslmemcached": "SpreadSASLMemcachedCache",
    "uwsgi": "UWSGICache",
    "GAEMemcachedCache": "MemcachedCache",
}
_CONTRIB: Final = {
    "UWSGICache": "wsgicache.flask.contrib.uwsgicache.UWSGICache",
    "GoogleCloudStorageCache": "wsgicache.flask.contrib.googlecloudstoragecache.GoogleCloudStorageCache",
}
_THEIRS: Final = "flask_caching."


def open_backend(app: Flask, config: Config) -> Any:
    """Make the backend that `CACHE_TYPE` names.

    Raises:
        ImportError: there is no such thing.
    """
    made_by = _find(config["CACHE_TYPE"])
    args = list(config["CACHE_ARGS"])
    kwargs = {"default_timeout": config["CACHE_DEFAULT_TIMEOUT"], **config["CACHE_OPTIONS"]}
    backend = _make(made_by, app, config, args, kwargs)
    _give_serializer(backend, app, config)
    if config["CACHE_TYPE"] in ("NullCache", "null") and not config["CACHE_NO_NULL_WARNING"]:
        warnings.warn("CACHE_TYPE is NullCache: nothing is cached", stacklevel=4)
    return backend


def _find(name: Any) -> Any:
    if not isinstance(name, str):
        return name
    name = _OLD_NAMES.get(name, name)
    if "." not in name:
        return getattr(backends, name, None) or import_string(_CONTRIB.get(name, name))
    if name.startswith(_THEIRS):
        name = f"wsgicache.flask.{name.removeprefix(_THEIRS)}"
        last = name.rpartition(".")[2]
        if name == f"wsgicache.flask.backends.{last}" and last in _OLD_NAMES:
            name = f"wsgicache.flask.backends.{_OLD_NAMES[last]}"
    return import_string(name)


def _make(made_by: Any, app: Flask, config: Config, args: list[Any], kwargs: dict[str, Any]) -> Any:
    factory = getattr(made_by, "factory", None)
    if factory is not None:
        return _call(factory, app, config, args, kwargs)
    if isinstance(made_by, type) and issubclass(made_by, cachelib.BaseCache):
        return made_by(*args, **kwargs)
    return _call(made_by, app, config, args, kwargs)


def _call(factory: Callable[..., Any], app: Flask, config: Config, args: list[Any], kwargs: Any) -> Any:
    """Call a factory with app, config, args, kwargs; those of old manuals take three, without one of two."""
    if _takes(factory, 4):
        return factory(app, config, args, kwargs)
    first = next(iter(inspect.signature(factory).parameters), None)
    return factory(config if first == "config" else app, args, kwargs)


def _takes(factory: Callable[..., Any], count: int) -> bool:
    """Whether a callable takes so many arguments."""
    try:
        inspect.signature(factory).bind(*range(count))
    except TypeError:
        return False
    return True


# --- serializers ------------------------------------------------------------------------------------


def _give_serializer(backend: Any, app: Flask, config: Config) -> None:
    chosen = config["CACHE_SERIALIZER"]
    if chosen is not None:
        if not hasattr(backend, "serializer") or isinstance(backend, cachelib.NullCache):
            name = type(backend).__name__
            warnings.warn(f"CACHE_SERIALIZER is set, but {name} has no serializer to replace", stacklevel=5)
            return
        backend.serializer = chosen
        return
    own = getattr(backend, "serializer", None)
    safe = _safe(own, backend)
    if safe is not None:
        backend.serializer = safe(_keys_of(app), read_unsigned=bool(config["CACHE_READ_UNSIGNED"]))


def _safe(own: Any, backend: Any) -> Callable[..., BaseSerializer] | None:
    """The signing serializer to put in place of a backend's own, or None to leave it."""
    if isinstance(own, SafeSerializer):
        return type(own)
    if own is None or isinstance(own, SimpleSerializer) or isinstance(backend, MemcachedCache):
        return None
    if type(own).__module__ != "cachelib.serializers":
        return None  # somebody chose it
    return SafeDigitsSerializer if isinstance(own, BaseRedisSerializer) else SafeSerializer


def _keys_of(app: Flask) -> Callable[[], Sequence[str | bytes]]:
    config = app.config  # not the app, which must not live as long as whoever keeps the serializer

    def keys() -> Sequence[str | bytes]:
        current = config.get("SECRET_KEY")
        fallbacks = config.get("SECRET_KEY_FALLBACKS") or ()
        return [*filter(None, fallbacks), current] if current else ()

    return keys
