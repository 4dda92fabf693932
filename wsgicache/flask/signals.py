"""Signals that decorated functions send when `CACHE_ENABLE_SIGNALS` is set.

Each is sent with `cache`, `cache_key`, `args` and `kwargs`; those of memoize with `f` as well, the
undecorated function. The sender is None: connect without one.
"""

from __future__ import annotations

from blinker import Namespace

_signals = Namespace()

cache_view_hit = _signals.signal("cache-view-hit")
cache_view_miss = _signals.signal("cache-view-miss")
cache_memoize_hit = _signals.signal("cache-memoize-hit")
cache_memoize_miss = _signals.signal("cache-memoize-miss")

__all__ = ["cache_memoize_hit", "cache_memoize_miss", "cache_view_hit", "cache_view_miss"]
