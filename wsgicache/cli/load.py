"""Objects by name: `module:attribute`, and the cache that an app is or holds."""

from __future__ import annotations

import inspect
import os
import sys
from collections import deque
from collections.abc import Iterator
from importlib import import_module
from types import FunctionType, MethodType
from typing import Any, Final

from ..cache import WSGICache
from .errors import Failure

_LOOKED_AT: Final = 500
"""Objects that are looked at for a cache."""

_DEPTH: Final = 8


def load(name: str, what: str) -> Any:
    """The object that `module:attribute` names; a module alone is the module.

    Args:
        what: the option that names it, for errors.

    Raises:
        Failure: there is none.
    """
    module_name, colon, attributes = name.partition(":")
    call = attributes.endswith("()")
    attributes = attributes.removesuffix("()")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise Failure(
                f"{what} {name}: there is no module {error.name}; run this where the server starts, or set "
                "PYTHONPATH"
            ) from None
        raise Failure(
            f"{what} {name}: it needs the module {error.name}, which is not installed here"
        ) from None
    except Exception as error:
        raise Failure(f"{what} {name}: importing it raised {type(error).__name__}: {error}") from None
    for attribute in attributes.split(".") if colon and attributes else ():
        if not hasattr(found, attribute):
            raise Failure(f"{what} {name}: {module_name} has no {attributes}; write module:attribute")
        found = getattr(found, attribute)
    return _called(found, what, name) if call else found


def _called(factory: Any, what: str, name: str) -> Any:
    try:
        return factory()
    except Exception as error:
        raise Failure(f"{what} {name}: calling it raised {type(error).__name__}: {error}") from None


def load_app(name: str, what: str) -> Any:
    """The WSGI app that a name stands for; a factory is called.

    Raises:
        Failure: there is none.
    """
    if ":" not in name:
        raise Failure(f"{what} {name}: write module:attribute, as for the server")
    found = load(name, what)
    if _is_factory(found):
        found = _called(found, what, name)
    if not callable(found):
        raise Failure(f"{what} {name}: a {type(found).__name__} is no WSGI app: it cannot be called")
    return found


def _is_factory(found: Any) -> bool:
    """Whether something makes an app: a function that can be called with nothing, as no WSGI app can."""
    if not isinstance(found, FunctionType | MethodType | type):
        return False
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError):
        return False
    return True


def find_cache(app: Any) -> WSGICache | None:
    """The cache that an app is, or holds: in its attributes, around it, or under other middleware."""
    waiting = deque([(app, 0)])
    seen: set[int] = set()
    while waiting and len(seen) < _LOOKED_AT:
        found, depth = waiting.popleft()
        if isinstance(found, WSGICache):
            return found
        if id(found) in seen or depth > _DEPTH:
            continue
        seen.add(id(found))
        waiting.extend([(inner, depth + 1) for inner in _inside(found)])
    return None


def _inside(found: Any) -> Iterator[Any]:
    """Where apps and middleware keep what they wrap: attributes, the mappings of a composite, closures."""
    if isinstance(found, dict):
        values = list(found.values())
    elif isinstance(found, list | tuple):
        values = list(found)
    elif isinstance(found, MethodType):
        values = [found.__self__]
    elif isinstance(found, FunctionType):
        values = [c.cell_contents for c in found.__closure__ or () if _is_filled(c)]
    else:
        values = list(getattr(found, "__dict__", {}).values())
    for value in values:
        if callable(value) or isinstance(value, dict | list | tuple):
            yield value


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False
