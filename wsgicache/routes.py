"""What a page is counted under: its route, as far as a cache can tell. Pure.

A cache sees URLs, not views, so a route is the first segment of a path: `/post/*` for everything below
`/post`. An integration that knows the views counts by these instead.
"""

from __future__ import annotations

OTHER = "(others)"


def route_of(key: str) -> str:
    """The route of a base key, or of a path."""
    segment, slash, _ = key.partition("\0")[0][1:].partition("/")
    return f"/{segment[:64]}/*" if slash else f"/{segment[:64]}"
