"""Deleting by prefix in constant time, on stores that cannot list their keys.

Each purged prefix has a generation; a key below it is kept under a name that ends with the generations of
all its purged prefixes. A new generation makes every older entry unreachable at once, and its timeout
removes it. Until a prefix is purged for the first time keys are kept under their own text.

The generations live in the store under one key that never expires, and are read along with each value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

RESERVED: Final = "_wsgicache_"
"""Keys of ours begin so."""

JOURNAL: Final = f"{RESERVED}prefixes"
MAX_PREFIXES: Final = 64


class Prefixes:
    """What one process knows of the purged prefixes.

    Args:
        own: a prefix put before every key, or a callable that gives it; "" where the backend has its own.
    """

    def __init__(self, own: str | Callable[[], str] = "") -> None:
        self._own = own
        self.generations: dict[str, str] = {}
        self.plain = not own
        """Whether every key is kept under its own text: then nothing needs to be worked out."""

    @property
    def own(self) -> str:
        """The prefix put before every key here."""
        return self._own if isinstance(self._own, str) else self._own()

    def name(self, key: str) -> str:
        """The text under which a key is kept."""
        if self.plain:
            return key
        own = self.own
        generations = [made for prefix, made in self.generations.items() if key.startswith(prefix)]
        return "\x1f".join([f"{own}{key}", *generations]) if generations else f"{own}{key}"

    def journal_name(self) -> str:
        """The text under which the generations are kept."""
        return f"{self.own}{JOURNAL}"

    def adopt(self, journal: Any) -> bool:
        """Take over what the store says; True if it was news."""
        told = dict(journal) if isinstance(journal, dict) else {}
        if told == self.generations:
            return False
        if not told and self.generations:
            # The store lost it: what was purged must not come back under its old name.
            told = {prefix: uuid4().hex for prefix in self.generations}
        self.generations = dict(sorted(told.items()))
        self.plain = not self._own and not self.generations
        return True

    def purged(self, prefix: str) -> dict[str, str]:
        """The generations with a new one for a prefix."""
        made = uuid4().hex[:12]
        kept = {old: token for old, token in self.generations.items() if not old.startswith(prefix)}
        if len(kept) >= MAX_PREFIXES:
            return {"": made}
        return {**kept, prefix: made}
