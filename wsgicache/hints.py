"""What the app tells the cache during a call: `environ["wsgicache.hints"]`."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

HINTS: Final = "wsgicache.hints"
IGNORE: Final = "wsgicache.ignore"
CACHE: Final = "wsgicache.cache"


class Hints:
    """A mutable object that survives copies of the environ, unlike a key set in a copy.

    Attributes:
        lifetime: seconds that this response stays fresh, if nothing forbids storing it; None leaves the
            decision to the response and the rules.
        groups: names that a purge can reach the response by; add to it.
        session_accessed: set by an integration when the app read its session.
    """

    __slots__ = ("groups", "ignored", "lifetime", "personal", "session_accessed")

    def __init__(self) -> None:
        self.groups: set[str] = set()
        self.lifetime: int | None = None
        self.session_accessed = False
        self.ignored = False
        self.personal = False

    def ignore(self) -> None:
        """Neither store this response nor count it as the cache's work."""
        self.ignored = True

    def private(self) -> None:
        """This response is for one visitor: never store it."""
        self.personal = True


def is_ignored(environ: MutableMapping[str, Any]) -> bool:
    """Whether an outer layer or the app asked the cache to stand aside."""
    return bool(environ.get(IGNORE))
