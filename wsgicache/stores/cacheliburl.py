"""`cachelib:` URLs: the name of a class, and its arguments as text."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final, get_args
from urllib.parse import parse_qsl

from ..options import read_bool

_NEEDED: Final = ("get", "get_many", "set", "add", "delete")


def open_cache(url: str) -> tuple[Any, str]:
    """The cache that a URL names, and the name.

    Raises:
        ValueError: what is wrong, without the arguments' values, which may be secret.
    """
    name, _, query = url.partition(":")[2].removeprefix("//").partition("?")
    make = _class(name)
    arguments = _arguments(name, make, query)
    try:
        cache = make(**arguments)
    except Exception as error:  # whatever a class has against its arguments, or its server
        raise ValueError(f"'cachelib:{name}': {type(error).__name__}: {error}") from error
    missing = [method for method in _NEEDED if not callable(getattr(cache, method, None))]
    if missing:
        raise ValueError(f"'cachelib:{name}' is no cachelib cache: it has no {', '.join(missing)}")
    return cache, name


def _class(name: str) -> Callable[..., Any]:
    path, dot, last = name.rpartition(".")
    try:
        found = getattr(import_module(path if dot else "cachelib"), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"'cachelib:{name}': {error}; give a class of cachelib, such as cachelib:FileSystemCache?"
            "cache_dir=/var/cache/site, or the dotted path of your own"
        ) from None
    if not callable(found):
        raise ValueError(f"'cachelib:{name}' is no class")
    maker: Callable[..., Any] = found
    return maker


def _arguments(name: str, make: Callable[..., Any], query: str) -> dict[str, Any]:
    parameters = inspect.signature(make).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    named = [key for key, parameter in parameters.items() if parameter.kind in _NAMED]
    arguments: dict[str, Any] = {}
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in named and not takes_any:
            raise ValueError(f"'cachelib:{name}': unknown argument {key!r}; known: {', '.join(named)}")
        if key in arguments:
            raise ValueError(f"'cachelib:{name}': {key} is given twice; give it once")
        try:
            arguments[key] = _typed(text, _kinds(key, parameters))
        except ValueError as error:
            raise ValueError(f"'cachelib:{name}': {key}: {error}") from None
    return arguments


_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def _kinds(key: str, parameters: Mapping[str, inspect.Parameter]) -> tuple[Any, ...]:
    """The types that an argument may have, as far as it says; () where it does not."""
    parameter = parameters.get(key)
    if parameter is None or parameter.kind not in _NAMED:
        return ()
    annotation = parameter.annotation
    said = get_args(annotation) or ((annotation,) if isinstance(annotation, type) else ())
    if said or parameter.default in (inspect.Parameter.empty, None):
        return said
    return (type(parameter.default),)


def _typed(text: str, kinds: tuple[Any, ...]) -> Any:
    """A text as what it is meant to be: by the argument's types, else by its looks."""
    if str in kinds:
        return text
    if bool in kinds:
        return read_bool(text)
    if int in kinds:
        try:
            return int(text, 0)
        except ValueError:
            raise ValueError("give a whole number") from None
    return _guessed(text)


_WORDS: Final = {"true": True, "false": False, "none": None}


def _guessed(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _WHOLE.match(text):
        return int(text, 0)
    return float(text) if _FRACTION.match(text) else text


_WHOLE: Final = re.compile(r"-?(0|[1-9][0-9]{0,18}|0x[0-9a-f]{1,16}|0o[0-7]{1,20})\Z", re.ASCII)
_FRACTION: Final = re.compile(r"-?[0-9]{1,18}\.[0-9]{1,18}\Z", re.ASCII)
