"""What `_compiled.c` holds, where it was built."""

from collections.abc import Mapping
from typing import Any

SOURCE: int
"""The CRC-32 of the `_compiled.c` that this was built from."""

class HitPath:
    """The hit path, compiled: see `wsgicache.hitpath.PureHitPath`."""

def holds_any(environ: Mapping[str, Any], names: tuple[str, ...]) -> bool: ...
def may_hold_token(page: bytes) -> bool: ...
