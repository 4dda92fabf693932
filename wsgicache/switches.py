"""The switches of named rules, as all processes that share a store see them.

Where somebody switches a named rule, its position is kept beside the journal, and a record in the journal
has every process read it again. So it reaches those that run and those that start later, until it is
switched again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from .journal import Kind, Purge
from .rules import Rule, RuleSet
from .stores import Store

PREFIX: Final = "rule:"
_TOLD: Final = "told:"
"""Before a rule's name: the position that the journal was told of."""

_POSITIONS: Final = {"on": True, "off": False}


Append = Callable[[Sequence[Purge]], object]


def switch(store: Store, name: str, enabled: bool, append: Append) -> None:
    """Keep the position of a rule's switch, and tell everybody who follows the journal.

    Raises:
        StoreError: the store did not take it.
    """
    position = "on" if enabled else "off"
    told = store.get_meta(_TOLD + name)
    if told == position == store.get_meta(PREFIX + name):
        return
    if told is not None:  # should telling them fail, the next try must not find that they know
        store.set_meta(_TOLD + name, None)
    store.set_meta(PREFIX + name, position)
    append([Purge(Kind.META, PREFIX + name)])
    store.set_meta(_TOLD + name, position)


class Switches:
    """Follows the switches that others turned, and publishes those that are turned here.

    Args:
        rules: the rules of this process.
    """

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._turning: int | None = None
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._lock = threading.Lock()
        self._turning = None

    def publish_to(self, store: Store, append: Append) -> None:
        """Have every switch of a named rule in this process reach all others.

        Args:
            append: writes to every journal that others follow.
        """
        for rule in self._rules:
            if rule.name is not None:
                rule.watch(partial(self._publish, rule, rule.name, store, append))

    def _publish(self, rule: Rule, name: str, store: Store, append: Append) -> None:
        """A rule was switched here; unless because it was switched elsewhere, the others hear of it.

        Raises:
            StoreError: they do not; it is switched in this process only.
        """
        if self._turning != threading.get_ident():
            switch(store, name, rule.enabled, append)

    def follow(self, store: Store, names: frozenset[str] | None) -> None:
        """Turn the switches as they are kept beside the journal.

        Args:
            names: what changed there; None: anything may have.

        Raises:
            StoreError: the store does not tell.
        """
        for rule in self._rules:
            name = None if rule.name is None else PREFIX + rule.name
            if name is None or (names is not None and name not in names):
                continue
            enabled = _POSITIONS.get(store.get_meta(name) or "")
            if enabled is not None and enabled != rule.enabled:
                self._turn(rule, enabled)

    def _turn(self, rule: Rule, enabled: bool) -> None:
        with self._lock:
            self._turning = threading.get_ident()
            try:
                rule.enabled = enabled
            finally:
                self._turning = None
