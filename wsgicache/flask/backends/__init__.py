"""The backends, and the lower-case names that `CACHE_TYPE` took before Flask-Caching 2.5."""

from __future__ import annotations

from .base import BaseCache
from .filesystemcache import FileSystemCache
from .memcache import MemcachedCache, SASLMemcachedCache, SpreadSASLMemcachedCache
from .nullcache import NullCache
from .rediscache import RedisCache, RedisClusterCache, RedisSentinelCache
from .simplecache import SimpleCache

GAEMemcachedCache = MemcachedCache
"""The name that Werkzeug's contrib package had for it."""

__all__ = [
    "BaseCache",
    "FileSystemCache",
    "GAEMemcachedCache",
    "MemcachedCache",
    "NullCache",
    "RedisCache",
    "RedisClusterCache",
    "RedisSentinelCache",
    "SASLMemcachedCache",
    "SimpleCache",
    "SpreadSASLMemcachedCache",
]
