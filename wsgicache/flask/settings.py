"""The `CACHE_…` keys: defaults, and checks that are loud while the app is set up."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from cachelib.serializers import BaseSerializer

DEFAULTS: Final[Mapping[str, Any]] = {
    "CACHE_TYPE": "NullCache",
    "CACHE_NO_NULL_WARNING": False,
    "CACHE_ARGS": [],
    "CACHE_OPTIONS": {},
    "CACHE_DEFAULT_TIMEOUT": 300,
    "CACHE_IGNORE_ERRORS": False,
    "CACHE_THRESHOLD": 500,
    "CACHE_KEY_PREFIX": "flask_cache_",
    "CACHE_SOURCE_CHECK": False,
    "CACHE_HASH_METHOD": hashlib.sha256,
    "CACHE_FILE_HASH_METHOD": hashlib.sha256,
    "CACHE_SERIALIZER": None,
    "CACHE_ENABLE_SIGNALS": False,
    "CACHE_DIR": None,
    "CACHE_REDIS_HOST": "localhost",
    "CACHE_REDIS_PORT": 6379,
    "CACHE_REDIS_PASSWORD": None,
    "CACHE_REDIS_DB": None,
    "CACHE_REDIS_URL": None,
    "CACHE_REDIS_SENTINELS": None,
    "CACHE_REDIS_SENTINEL_MASTER": "mymaster",
    "CACHE_REDIS_SENTINEL_PASSWORD": None,
    "CACHE_REDIS_CLUSTER": None,
    "CACHE_MEMCACHED_SERVERS": None,
    "CACHE_MEMCACHED_USERNAME": None,
    "CACHE_MEMCACHED_PASSWORD": None,
    "CACHE_UWSGI_NAME": "",
    "CACHE_GCS_BUCKET": None,
    # What Flask-Caching does not have; docs/flask.md describes them.
    "CACHE_SAFE_VIEWS": True,
    "CACHE_STRICT_KEYS": False,
    "CACHE_READ_UNSIGNED": False,
    "CACHE_ON_ERROR": "ignore",
    "CACHE_DEADLINE": 0.5,
    "CACHE_RETRY_AFTER": 2.0,
    "CACHE_WAIT_TIMEOUT": 10.0,
    "CACHE_LEASE": 10,
    "CACHE_STATISTICS": True,
}

_SECONDS: Final = ("CACHE_DEADLINE", "CACHE_RETRY_AFTER", "CACHE_WAIT_TIMEOUT", "CACHE_LEASE")

Config = dict[str, Any]


def settings_for(app_config: Mapping[str, Any], given: Mapping[str, Any] | None) -> Config:
    """The keys for one app: what was given beats the app's config, which beats the defaults.

    Raises:
        ValueError: a value that cannot work.
    """
    config = {**DEFAULTS, **{key: app_config[key] for key in app_config}, **(given or {})}
    config["CACHE_ARGS"] = list(config["CACHE_ARGS"])
    config["CACHE_OPTIONS"] = dict(config["CACHE_OPTIONS"])
    for name in ("CACHE_HASH_METHOD", "CACHE_FILE_HASH_METHOD"):
        if not callable(config[name]):
            raise ValueError(f"{name} = {config[name]!r} is not callable; give one such as hashlib.sha256")
    if config["CACHE_ON_ERROR"] not in ("ignore", "raise"):
        raise ValueError(f'CACHE_ON_ERROR = {config["CACHE_ON_ERROR"]!r} is neither "ignore" nor "raise"')
    for name in _SECONDS:
        config[name] = _seconds(name, config[name])
    config["CACHE_SERIALIZER"] = _serializer(config["CACHE_SERIALIZER"])
    return config


def _seconds(name: str, given: Any) -> float | None:
    if given is None and name == "CACHE_DEADLINE":
        return None
    try:
        seconds = float(given)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < math.inf or (seconds == 0 and name == "CACHE_DEADLINE"):
        raise ValueError(f"{name} = {given!r} is no number of seconds")
    return seconds


def _serializer(given: Any) -> BaseSerializer | None:
    if given is None or isinstance(given, BaseSerializer):
        return given
    if not isinstance(given, type) or not issubclass(given, BaseSerializer):
        raise ValueError(
            f"CACHE_SERIALIZER = {given!r} is no cachelib.serializers.BaseSerializer, class or instance"
        )
    try:
        return given()
    except TypeError as error:
        raise ValueError(
            f"Couldn't instantiate serializer {given.__name__}: {error}; give an instance"
        ) from error


def has_own_prefix(config: Config) -> bool:
    """Whether somebody chose a key prefix, so that every backend honours it."""
    return bool(config["CACHE_KEY_PREFIX"] != DEFAULTS["CACHE_KEY_PREFIX"] and config["CACHE_KEY_PREFIX"])


HashMethod = Callable[..., Any]
