"""Everything Flask-Caching does, by changing one import: `from wsgicache.flask import Cache`."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, Final

from .cache import Cache
from .link import Unavailable
from .response import CachedResponse
from .signals import cache_memoize_hit, cache_memoize_miss, cache_view_hit, cache_view_miss
from .site import SiteCache
from .utils import function_namespace, make_template_fragment_key

SUPPORTED_HASH_FUNCTIONS: Final = [
    hashlib.sha1, hashlib.sha224, hashlib.sha256, hashlib.sha384, hashlib.sha512, hashlib.md5,
]  # fmt: skip

__all__ = [
    "SUPPORTED_HASH_FUNCTIONS",
    "Cache",
    "CachedResponse",
    "SiteCache",
    "Unavailable",
    "cache_memoize_hit",
    "cache_memoize_miss",
    "cache_view_hit",
    "cache_view_miss",
    "function_namespace",
    "make_template_fragment_key",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from .._version import __version__

        warnings.warn("__version__ is deprecated: ask importlib.metadata", DeprecationWarning, stacklevel=2)
        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
