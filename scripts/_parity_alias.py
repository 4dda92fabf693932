"""A pytest plugin: `import flask_caching` gives `wsgicache.flask`, and listed tests are left out.

The list names, a line each, a test and after a colon the reason why it says nothing about behaviour.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest

_THEIRS, _OURS = "flask_caching", "wsgicache.flask"


class Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `flask_caching` and what is below it in `wsgicache.flask`: the same module objects."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] != _THEIRS:
            return None
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        module = importlib.import_module(_OURS + spec.name[len(_THEIRS) :])
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = importlib.util.find_spec(module.__name__) or module.__spec__


sys.meta_path.insert(0, Alias())


def exceptions(text: str) -> dict[str, str]:
    """Test names and reasons."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    pairs = [line.partition(": ") for line in lines]
    if not all(colon and reason for _, colon, reason in pairs):
        raise ValueError("each line of the exceptions is a test, a colon and a reason")
    return {name: reason for name, _, reason in pairs}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    listed = exceptions(Path(os.environ["PARITY_EXCEPTIONS"]).read_text())
    skipped = [item for item in items if f"{item.path.name}::{item.name.partition('[')[0]}" in listed]
    config.hook.pytest_deselected(items=skipped)
    items[:] = [item for item in items if item not in skipped]
