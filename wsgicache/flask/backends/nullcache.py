"""`NullCache`: keeps nothing."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import cachelib
from flask import Flask

from .base import Abilities, BaseCache


class NullCache(BaseCache, cachelib.NullCache):
    """Keeps nothing; for tests, and to switch caching off."""

    abilities: ClassVar[Abilities] = Abilities(shared=False, atomic_add=True, atomic_inc=True)

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Self:
        """Make the backend; options meant for another backend are no error."""
        return cls(default_timeout=kwargs.get("default_timeout", 300))

    def has(self, key: str) -> bool:
        """False."""
        return False
