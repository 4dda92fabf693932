"""Arguments of a memoized call: one spelling for equal calls, and an encoding that cannot lie.

A key must differ where the arguments differ. Types are part of it, containers are walked, and an object
whose `repr` is the default one is never keyed by its address, which its successor in memory inherits: it
gets a token of its own for as long as it lives, or is refused (`CACHE_STRICT_KEYS`).
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import logging
import re
import sys
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Final
from uuid import uuid4

from ..forks import in_child

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")
_SCALARS: Final = frozenset({type(None), bool, int, float, complex, str, bytes, type(Ellipsis), range})
_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ARRAYS: Final = frozenset({bytearray, memoryview, array})
_warned: set[str] = set()
_tokens: dict[int, tuple[weakref.ref[Any], str]] = {}
_tokens_lock = threading.Lock()


log = logging.getLogger("wsgicache.flask")


class UnkeyableArgument(TypeError):
    """An argument that no truthful key can be made from."""


# --- one spelling -----------------------------------------------------------------------------------


def get_id(obj: Any) -> Any:
    """What stands for an object in a key: its `__caching_id__()`, or else itself."""
    identify = getattr(obj, "__caching_id__", None)
    return obj if identify is None or isinstance(obj, type) else identify()


def signature_of(f: Callable[..., Any]) -> inspect.Signature:
    """The signature of a function; annotations are not evaluated."""
    if sys.version_info >= (3, 14):
        import annotationlib

        return inspect.signature(f, annotation_format=annotationlib.Format.FORWARDREF)
    return inspect.signature(f)


def normalized(
    signature: inspect.Signature,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    ignored: Iterable[str] = (),
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments as every spelling of a call shares them: positional in order, then sorted keywords.

    Args:
        ignored: names to leave out.

    Raises:
        TypeError: the function cannot be called like this.
    """
    bound = _bound(signature, args, kwargs)
    positional: list[Any] = []
    keywords: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if name in ignored:
            continue
        value = bound.arguments[name]
        if parameter.kind is parameter.VAR_POSITIONAL:
            positional.extend(value)
        elif parameter.kind is parameter.VAR_KEYWORD:
            keywords.update((key, value[key]) for key in value if key not in ignored)
        elif parameter.kind is parameter.KEYWORD_ONLY:
            keywords[name] = value
        else:
            positional.append(value)
    return tuple(positional), dict(sorted(keywords.items()))


def _bound(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> inspect.BoundArguments:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:
        # As Flask-Caching reads it: positional arguments fill what the keywords leave open.
        open_names = [
            name
            for name, parameter in signature.parameters.items()
            if name not in kwargs and parameter.kind in _NAMED
        ]
        bound = signature.bind(**dict(zip(open_names, args, strict=False)), **kwargs)
    bound.apply_defaults()
    return bound


# --- an encoding that cannot lie --------------------------------------------------------------------


def encoded(value: Any, strict: bool = False) -> str:
    """A value as text that differs wherever the values differ.

    Args:
        strict: refuse objects with the default `repr` instead of giving them a token.

    Raises:
        UnkeyableArgument: it has neither a truthful repr nor a `__caching_id__`.
    """
    kind = type(value)
    if kind in _SCALARS:
        return f"{kind.__name__}:{value!r}"
    if kind in (list, tuple):
        return f"{kind.__name__}({','.join([encoded(item, strict) for item in value])})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({','.join(sorted(encoded(item, strict) for item in value))})"
    if kind is dict:
        items = [f"{encoded(key, strict)}={encoded(item, strict)}" for key, item in value.items()]
        return f"dict({','.join(items)})"
    return _encoded_object(value, kind, strict)


def _encoded_object(value: Any, kind: type, strict: bool) -> str:
    name = _named(kind, strict) if kind is not type else "type"
    identified = get_id(value)
    if identified is not value:
        return f"{name}#{encoded(identified, strict)}"
    if isinstance(value, enum.Enum):
        return f"{name}.{value.name}"
    if isinstance(value, type) or inspect.isroutine(value):
        return f"{name}:{_named(value, strict)}"
    if dataclasses.is_dataclass(value) and not _has_default_repr(kind):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{name}{encoded(parts, strict)}"
    if isinstance(value, tuple):
        return f"{name}({','.join([encoded(item, strict) for item in value])})"
    contents = _contents(value, kind)
    if contents is not None:
        return f"{name}[{contents}]"
    return f"{name}:{identity(value, strict)!r}"  # quoted, so that no text in it reads as the next argument


def _contents(value: Any, kind: type) -> str | None:
    """What says all of an array's contents, which its repr abbreviates; None for other objects."""
    if kind not in _ARRAYS and (kind.__module__, kind.__name__) != ("numpy", "ndarray"):
        return None
    try:
        with memoryview(value) as view:
            if "O" in view.format:  # addresses of objects
                return None
            return f"{view.format}{view.shape}{sha256(view.tobytes()).hexdigest()}"
    except (TypeError, ValueError, BufferError):
        return None


def _named(thing: Any, strict: bool) -> str:
    """A class or function by its name, where that is its own; else by a token."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    owner = getattr(thing, "__self__", None)
    if name is None or module is None or "<" in name:
        return f"{module}.{name}~{token(thing, strict)}"
    if owner is not None and not inspect.ismodule(owner):
        return f"{module}.{name}@{encoded(owner, strict)}"
    return f"{module}.{name}"


def identity(value: Any, strict: bool = False) -> str:
    """What stands for one object: its `__caching_id__()`, a `repr` of its own, or a token.

    Raises:
        UnkeyableArgument: none of them is to be had, or `strict` and the repr is the default one.
    """
    identified = get_id(value)
    if identified is not value:
        return encoded(identified, strict)
    if not _has_default_repr(type(value)):
        text = repr(value)
        if "..." in text and hasattr(value, "shape"):
            raise _refusal(value, "abbreviates its repr, so a key made from it would fit others too")
        if not _ADDRESS.search(text):
            return text
    return f"{type(value).__qualname__}~{token(value, strict)}"


def _has_default_repr(kind: type) -> bool:
    written: Any = kind.__repr__
    return written is object.__repr__


def token(value: Any, strict: bool = False) -> str:
    """A text for an object that no other object ever gets, in no process.

    Raises:
        UnkeyableArgument: `strict`, or the object cannot be watched.
    """
    named = isinstance(value, type) or inspect.isroutine(value)
    if strict and not named:
        raise _refusal(value)
    with _tokens_lock:
        known = _tokens.get(id(value))
        if known is not None and known[0]() is value:
            return known[1]
        try:
            watched = weakref.ref(value, _forget(id(value)))
        except TypeError:
            raise _refusal(value) from None
        made = uuid4().hex
        _tokens[id(value)] = (watched, made)
        if not named:
            _warn_once(type(value))
        return made


def _warn_once(kind: type) -> None:
    name = f"{kind.__module__}.{kind.__qualname__}"
    if name not in _warned:
        _warned.add(name)
        log.warning(
            "memoize: a %s has no repr of its own, so its results are kept for this very object, in this "
            "process only: give it a __caching_id__() or a __repr__(); CACHE_STRICT_KEYS=True refuses such "
            "objects",
            name,
        )


def _forget(address: int) -> Callable[[weakref.ref[Any]], None]:
    def forget(gone: weakref.ref[Any]) -> None:
        known = _tokens.get(address)
        if known is not None and known[0] is gone:
            del _tokens[address]

    return forget


def _after_fork() -> None:
    """In a forked child objects go their own way: they are no longer the parent's."""
    global _tokens_lock
    _tokens_lock = threading.Lock()
    _tokens.clear()


in_child(_after_fork)


_DEFAULT_REPR: Final = (
    "has no repr of its own, so a key made from it would name a place in memory, and the next object at that "
    "place would get its entry"
)


def _refusal(value: Any, why: str = _DEFAULT_REPR) -> UnkeyableArgument:
    name = type(value).__qualname__
    return UnkeyableArgument(
        f"a {name} {why}: give {name} a __caching_id__() or a __repr__() that says what it is, pass a plain "
        "value instead, or leave the argument out with args_to_ignore"
    )
