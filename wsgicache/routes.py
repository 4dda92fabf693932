"""What a page is counted under: its route, as far as a cache can tell. Pure.

A cache sees URLs, not views, so a route is the first segment of a path: `/post/*` for everything below
`/post`. There are only so many, whatever clients ask for. An integration that knows the views counts by these
instead.
"""

from __future__ import annotations

OTHER = "(others)"


class RouteNames:
    """Names for base keys and paths.

    Args:
        limit: routes that are told apart; what comes later is one more together.
    """

    def __init__(self, limit: int = 100) -> None:
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, key: str) -> str:
        """The route of a base key, or of a path."""
        segment, slash, _ = key.partition("\0")[0][1:].partition("/")
        name = f"/{segment[:64]}/*" if slash else f"/{segment[:64]}"
        if name not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(name)
        return name
