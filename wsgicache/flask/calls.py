"""Asking the callables that users give to decorators, and reading what decorated functions return."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from .arguments import signature_of

Ask = Callable[..., Any]
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def takes_arguments(question: Ask, beyond: int = 0) -> bool:
    """Whether a callable takes more than `beyond` arguments."""
    try:
        parameters = signature_of(question).parameters.values()
    except (TypeError, ValueError):
        return False
    count = sum(1 for parameter in parameters if parameter.kind in _POSITIONAL)
    several = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.KEYWORD_ONLY) for p in parameters)
    return count > beyond or several


def asker(question: Ask | None, beyond: int = 0) -> Ask | None:
    """A callable that passes on the first `beyond` arguments and, if the question takes more, the rest.

    Only the answer True itself counts as yes.
    """
    if question is None:
        return None
    if takes_arguments(question, beyond):
        return lambda *args, **kwargs: question(*args, **kwargs) is True
    return lambda *args, **kwargs: question(*args[:beyond]) is True


def drained(value: Any) -> Any:
    """What a function returned; a generator is run to its end, and its texts are joined."""
    if not isinstance(value, Iterator) or not (inspect.isgenerator(value) or _is_wrapped(value)):
        return value
    items = list(value)
    if items and all(isinstance(item, str) for item in items):
        return "".join(items)
    if items and all(isinstance(item, bytes) for item in items):
        return b"".join(items)
    return items


def _is_wrapped(value: Iterator[Any]) -> bool:
    """Whether an iterator is one of Flask's around a generator, as `stream_template` returns."""
    return type(value).__module__.partition(".")[0] in ("flask", "werkzeug")


def source_of(f: Callable[..., Any]) -> bytes:
    """What a function does, as bytes that change when it is edited."""
    try:
        return inspect.getsource(f).encode()
    except (OSError, TypeError):
        code = getattr(f, "__code__", None)
        return repr(f).encode() if code is None else code.co_code + repr(code.co_consts).encode()
