"""`memoize`: a function whose results are kept under its arguments, and forgetting them."""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from blinker import Signal

from .arguments import encoded, normalized, signature_of
from .calls import source_of
from .decorated import Call, Decorated, Terms
from .link import Unavailable, new_token
from .signals import cache_memoize_hit, cache_memoize_miss
from .utils import function_namespace

if TYPE_CHECKING:
    from .cache import Cache

_VERSION: Final = "_memver"
_PLAIN_KINDS: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_NO_KEYWORDS: Final[dict[str, Any]] = {}


class Memoized(Decorated):
    """A function that `memoize` decorates; see `Cache.memoize` for the arguments."""

    hit = cache_memoize_hit
    miss = cache_memoize_miss

    def __init__(
        self,
        cache: Cache,
        f: Callable[..., Any],
        terms: Terms,
        *,
        make_name: Callable[[str], str] | None,
        args_to_ignore: Iterable[str] | None,
    ) -> None:
        self.make_name = make_name
        self.ignored = frozenset(args_to_ignore or ())
        self.signature = signature_of(f)
        parameters = list(self.signature.parameters.values())
        self._count = len(parameters)
        self._simple = not self.ignored and all(p.kind in _PLAIN_KINDS for p in parameters)
        self.is_method = bool(parameters) and parameters[0].name == "self"
        self._versions_by_instance = self.is_method and "self" not in self.ignored
        self._namespace = function_namespace(f)[0]
        super().__init__(cache, f, terms)
        self.wrapper.make_cache_key = self.make_cache_key
        self.wrapper.delete_memoized = self.forget
        self.wrapper._wsgicache = self

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of a call."""
        if self._simple and not kwargs and len(args) == self._count:
            positional, keywords = args, _NO_KEYWORDS
        else:
            positional, keywords = normalized(self.signature, args, kwargs, self.ignored)
        name = self._namespace if self.make_name is None else self.make_name(self._namespace)
        strict = bool(self.cache.link.config["CACHE_STRICT_KEYS"])
        text = f"{name}\x1f{encoded(positional, strict)}\x1f{encoded(keywords, strict) if keywords else ''}"
        data = text.encode("utf-8", "surrogatepass")
        source_check = self.terms.source_check
        if self.cache.source_check if source_check is None else source_check:
            data += b"\x1f" + source_of(self.f)
        make = self.terms.hash_method or self.cache.hash_method
        return base64.b64encode(make(data).digest()).decode().rstrip("=")

    def make_cache_key(self, f: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """The key of a call.

        Args:
            f: the undecorated function.
            args: its arguments.
            kwargs: its arguments by name.
        """
        return self.key_of(args, kwargs)

    def version_keys(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        """One for the function, and one for the instance of a method."""
        if not self._versions_by_instance or not args:
            return (f"{self._namespace}{_VERSION}",)
        of_function, of_instance = function_namespace(self.f, args)
        return tuple(f"{name}{_VERSION}" for name in (of_function, of_instance) if name is not None)

    def notice(self, signal: Signal, call: Call) -> None:
        """Tell who listens, with the undecorated function."""
        signal.send(None, cache=self.cache, f=self.f, cache_key=call.key, args=call.args, kwargs=call.kwargs)

    def forget(self) -> None:
        """Forget every result."""
        _renew(self.cache, [f"{self._namespace}{_VERSION}"], self)


def version_name(name: str) -> str:
    """The key that holds the version of a function."""
    return f"{name}{_VERSION}"


# --- forgetting -------------------------------------------------------------------------------------


def delete_memoized(cache: Cache, f: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """See `Cache.delete_memoized`."""
    decorated = _decorated(f)
    owner = getattr(f, "__self__", None)
    if args or kwargs:
        key = decorated.key_of(_with_owner(decorated, f, owner, args), kwargs)
        with cache.link.insisting():
            cache.delete(key)
        return
    version_keys = [f"{name}{_VERSION}" for name in function_namespace(_undecorated(f, decorated)) if name]
    _renew(cache, version_keys[-1:], decorated)


def delete_versions(cache: Cache, f: Any, args: tuple[Any, ...]) -> None:
    """See `Cache.delete_memoized_verhash`."""
    decorated = _decorated(f)
    names = function_namespace(_undecorated(f, decorated), args)
    keys = [f"{name}{_VERSION}" for name in names if name]
    with cache.link.insisting():
        cache.delete_many(*keys)


def _decorated(f: Any) -> Memoized:
    """What is known of a decorated function.

    Raises:
        TypeError: it is a string, or no function that `memoize` decorates.
    """
    if not callable(f):
        raise TypeError(f"{f!r} is a name; give the decorated function itself")
    decorated = getattr(f, "_wsgicache", None)
    if not isinstance(decorated, Memoized):
        raise TypeError(f"{f!r} is not decorated with memoize")
    return decorated


def _undecorated(f: Any, decorated: Memoized) -> Any:
    owner = getattr(f, "__self__", None)
    return f if owner is not None else decorated.f


def _with_owner(decorated: Memoized, f: Any, owner: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with the instance in front, which a bound method knows.

    Raises:
        ValueError: the instance or the class is missing.
    """
    if owner is None:
        if decorated.is_method and not args:
            raise ValueError(f"{decorated.name} is a method: give the instance as the first argument")
        return args
    if isinstance(owner, type):
        if not args or not isinstance(args[0], type):
            raise ValueError(f"{decorated.name} is a class method: give the class as the first argument")
        return args
    return args if args and args[0] is owner else (owner, *args)


def _renew(cache: Cache, version_keys: list[str], decorated: Memoized) -> None:
    """Give version keys new tokens: what was born under the old ones is gone.

    Raises:
        Unavailable: the backend could not be reached.
    """
    given = decorated.wrapper.cache_timeout
    timeout = None if callable(given) else given
    with cache.link.insisting():
        kept = cache.set_many({key: new_token() for key in version_keys}, timeout=timeout)
    if len(kept) < len(version_keys):
        raise Unavailable("the cache backend did not take a new version: memoized results were not forgotten")
