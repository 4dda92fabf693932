"""Options in the URL of a store: read strictly, by the readers of the option table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final
from urllib.parse import parse_qsl

from ..options import Reader, read_duration
from . import shown

_MILLISECONDS: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*ms\Z")


def read_timeout(value: str) -> float:
    """Seconds above zero; milliseconds have their unit: 50ms."""
    match = _MILLISECONDS.match(value.strip())
    seconds = float(match[1]) / 1000 if match else read_duration(value)
    if seconds <= 0:
        raise ValueError("give a time above zero, such as 50ms")
    return seconds


def check_path(path: str) -> None:
    """Refuse what is no path, but a path and options.

    Raises:
        ValueError: which says how options are written.
    """
    if "&" in path:
        raise ValueError("options begin with ?, and a & in a path is written as %26")


def url_options(url: str, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The options after `?`, each read by its reader; one that is not given is not in the answer.

    Args:
        url: the whole URL.
        readers: what the store knows, by name.

    Raises:
        ValueError: an option that is not known, given twice, or malformed; the message names it.
    """
    found: dict[str, Any] = {}
    for name, text in parse_qsl(url.partition("?")[2], keep_blank_values=True):
        if "@" in name:  # what stands here is a part of the password
            raise ValueError(f"{shown(url)!r}: a ? in a password is written as %3F")
        if name not in readers:
            raise ValueError(f"{shown(url)!r}: unknown option {name!r}{_known(name, readers)}")
        if name in found:
            raise ValueError(f"{shown(url)!r}: {name} is given twice; give it once")
        try:
            found[name] = readers[name](text)
        except ValueError as error:
            raise ValueError(f"{shown(url)!r}: {name} = {text!r}: {error}") from None
    return found


def _known(name: str, readers: Mapping[str, Reader]) -> str:
    if not readers:
        return "; there are none here"
    near = get_close_matches(name, readers, 1)
    return f"; {'did you mean ' + repr(near[0]) + '? ' if near else ''}known: {', '.join(sorted(readers))}"
