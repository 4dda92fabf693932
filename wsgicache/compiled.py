"""The compiled twins of what is run most, where they were built: `_compiled.c` says of what.

They are built where `WSGICACHE_COMPILED=1` asks for it at installation, and left unused where the environment
says `WSGICACHE_COMPILED=0` when this is imported.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

SWITCH: Final = "WSGICACHE_COMPILED"
"""The environment variable."""


def _load() -> Any:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        return import_module("._compiled", __package__)
    except ImportError:  # not built, or for another Python
        return None


twin: Final[Any] = _load()
"""The compiled module; None where there is none."""
