"""What the app tells the cache during a call: `environ["wsgicache.hints"]`."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

HINTS: Final = "wsgicache.hints"
IGNORE: Final = "wsgicache.ignore"
CACHE: Final = "wsgicache.cache"

T = TypeVar("T")


class _Word(Generic[T]):
    """An attribute of `Hints`. One that nobody set has its default, and takes no room."""

    def __init__(self, name: str, default: T) -> None:
        self._name = name
        self._default = default

    def __get__(self, hints: Hints, owner: type) -> T:
        word: T = hints.said.get(self._name, self._default)
        return word

    def __set__(self, hints: Hints, word: T) -> None:
        hints.said[self._name] = word


class Hints:
    """A mutable object that survives copies of the environ, unlike a key set in a copy.

    Attributes:
        lifetime: seconds that this response stays fresh, if nothing forbids storing it; None leaves the
            decision to the response and the rules.
        session_accessed: set by an integration when the app read its session.
        said: what was said, by attribute: nothing of most responses, which then need no closer look.
    """

    __slots__ = ("said",)

    lifetime = _Word[int | None]("lifetime", None)
    session_accessed = _Word("session_accessed", False)
    ignored = _Word("ignored", False)
    personal = _Word("personal", False)

    def __init__(self) -> None:
        self.said: Final[dict[str, Any]] = {}

    @property
    def groups(self) -> set[str]:
        """Names that a purge can reach the response by; add to it."""
        groups: set[str] = self.said.setdefault("groups", set())
        return groups

    @groups.setter
    def groups(self, groups: set[str]) -> None:
        self.said["groups"] = groups

    def ignore(self) -> None:
        """Neither store this response nor count it as the cache's work."""
        self.ignored = True

    def private(self) -> None:
        """This response is for one visitor: never store it."""
        self.personal = True


class Layers:
    """`environ["wsgicache.cache"]` where one cache wraps another: purges reach both, all else the inner.

    Args:
        inner: the cache nearer to the app.
        outer: the cache around it, or the layers that are there already.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, inner: Any, outer: Any) -> None:
        self._inner = inner
        self._outer = outer

    def __contains__(self, cache: object) -> bool:
        """Whether a cache is one of the layers."""
        outer = self._outer
        return cache is self._inner or cache is outer or (isinstance(outer, Layers) and cache in outer)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name not in _PURGES:
            return method

        def both(*args: Any, **kwargs: Any) -> Any:
            """Purge inside first: the outer cache must not fetch again what the inner still has."""
            result = method(*args, **kwargs)
            getattr(self._outer, name)(*args, **kwargs)
            return result

        return both


_PURGES: Final = frozenset({"purge", "purge_prefix", "purge_groups", "clear"})
