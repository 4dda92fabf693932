"""The compiled twins of what is run most, where they were built: `_compiled.c` says of what.

They are built where `WSGICACHE_COMPILED=1` asks for it at installation, and left unused where the environment
says `WSGICACHE_COMPILED=0` when this is imported. So are those of another `_compiled.c` than the one beside
them, as a checkout holds them after it was updated: what they do may have been mended since.
"""

from __future__ import annotations

import os
import warnings
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any, Final

SWITCH: Final = "WSGICACHE_COMPILED"
"""The environment variable."""


def _load() -> Any:
    if os.environ.get(SWITCH) == "0":
        return None
    try:
        made: Any = import_module("._compiled", __package__)
    except ImportError:  # not built, or for another Python
        return None
    here = Path(__file__).parent
    if Path(made.__file__).parent != here:
        return None  # of a checkout whose editable installation answers for what is missing here
    source = here / "_compiled.c"
    if source.exists() and getattr(made, "SOURCE", None) != zlib.crc32(source.read_bytes()):
        warnings.warn(
            f"{made.__file__} is left unused, for it was built from another _compiled.c than the one beside "
            "it: build it again, or delete it",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return made


twin: Final[Any] = _load()
"""The compiled module; None where there is none."""
