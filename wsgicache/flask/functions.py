"""What decorators return, for type checkers: the function with its signature, and a few attributes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, overload

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)


class BoundCached(Protocol[S_contra, Q, R_co]):
    """A method that `cached` decorates, reached through an instance."""

    cache_timeout: int | timedelta | None

    @property
    def uncached(self) -> Callable[Concatenate[S_contra, Q], R_co]:
        """The undecorated function."""

    @property
    def make_cache_key(self) -> Callable[..., str]:
        """The key of a call."""

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R_co:
        """Call it."""


class BoundMemoized(BoundCached[S_contra, Q, R_co], Protocol[S_contra, Q, R_co]):
    """A method that `memoize` decorates, reached through an instance."""

    def delete_memoized(self) -> None:
        """Forget every result, of every instance."""


class CachedFunction(Protocol[P, R_co]):
    """A function that `cached` decorates.

    Attributes:
        cache_timeout: read at each call; assign to change it.
        make_cache_key: the key of a call; assign to replace it.
    """

    cache_timeout: int | timedelta | None
    make_cache_key: Callable[..., str]

    @property
    def uncached(self) -> Callable[P, R_co]:
        """The undecorated function."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None, /
    ) -> BoundCached[S, Q, R]: ...


class MemoizedFunction(Protocol[P, R_co]):
    """A function that `memoize` decorates.

    Attributes:
        cache_timeout: read at each call; assign to change it.
        make_cache_key: called with the undecorated function and arguments, gives the key of that call.
    """

    cache_timeout: int | timedelta | None
    make_cache_key: Callable[..., str]

    @property
    def uncached(self) -> Callable[P, R_co]:
        """The undecorated function."""

    def delete_memoized(self) -> None:
        """Forget every result."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Call it."""

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...

    @overload
    def __get__(
        self: MemoizedFunction[Concatenate[S, Q], R], instance: S, owner: type | None = None, /
    ) -> BoundMemoized[S, Q, R]: ...


AnyCached = CachedFunction[..., Any] | BoundCached[Any, ..., Any]
AnyMemoized = MemoizedFunction[..., Any] | BoundMemoized[Any, ..., Any]

__all__ = ["AnyCached", "AnyMemoized", "BoundCached", "BoundMemoized", "CachedFunction", "MemoizedFunction"]
