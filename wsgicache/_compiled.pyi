"""What `_compiled.c` holds, where it was built."""

class HitPath:
    """The hit path, compiled: see `wsgicache.hitpath.PureHitPath`."""

def may_hold_token(page: bytes) -> bool: ...
