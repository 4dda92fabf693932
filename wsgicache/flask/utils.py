"""Small helpers that applications import from `flask_caching.utils`."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Iterable
from typing import Any, Final

from .arguments import get_id, identity
from .timeouts import normalize_timeout

_KEY_CHARACTERS: Final = frozenset(string.ascii_letters + string.digits + "_.")
_FRAGMENT_KEY: Final = "_template_fragment_cache_%s%s"


def function_namespace(f: Callable[..., Any], args: tuple[Any, ...] | None = None) -> tuple[str, str | None]:
    """The names under which a function and, for a method, its instance keep their versions.

    Args:
        f: a function or a bound method.
        args: its arguments; for a method reached through its class, the first is the instance.

    Returns:
        `module.qualname`, and the same with the instance's identity, or None where there is no instance.
    """
    name = f"{f.__module__}.{f.__qualname__}"
    instance = getattr(f, "__self__", None)
    if instance is None and args and _first_parameter(f) == "self":
        instance = args[0]
    if instance is None or isinstance(instance, type):
        return _key_text(name), None
    return _key_text(name), _key_text(f"{name}.{identity(instance)}")


def _key_text(text: str) -> str:
    return "".join(character for character in text if character in _KEY_CHARACTERS)


def _first_parameter(f: Callable[..., Any]) -> str | None:
    code = getattr(inspect.unwrap(f), "__code__", None)
    names = () if code is None else code.co_varnames[: code.co_argcount]
    return names[0] if names else None


def make_template_fragment_key(fragment_name: str, vary_on: Iterable[object] | None = None) -> str:
    """The key of a template fragment, to delete it or look at it.

    Args:
        fragment_name: the name given in the tag.
        vary_on: the values given after it, in order.
    """
    varying = "".join(f"_{value}" for value in vary_on or ())
    return _FRAGMENT_KEY % (fragment_name, varying)


__all__ = ["function_namespace", "get_id", "make_template_fragment_key", "normalize_timeout"]
