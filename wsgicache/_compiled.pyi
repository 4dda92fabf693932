"""What `_compiled.c` holds, where it was built."""

SOURCE: int
"""The CRC-32 of the `_compiled.c` that this was built from."""

class HitPath:
    """The hit path, compiled: see `wsgicache.hitpath.PureHitPath`."""

def may_hold_token(page: bytes) -> bool: ...
