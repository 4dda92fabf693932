"""The cache of a site from outside: purges, switches and numbers for a worker queue, a shell, a cron job.

    from wsgicache.client import Client

    with Client("redis://localhost/0") as site:
        site.purge("/post/1")
        site.rules.disable("admin")

It needs the store's URL and namespace, not the app. The site must share its store: what is in the memory of
one process cannot be reached from another.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

from .follow import Follower, Share, append_all
from .journal import Purge
from .observe import summary
from .options import OptionError
from .purge import Purges, QueryForms
from .rules import RuleState
from .sharing import SITE, read_description
from .stores import Store, StoreOptions, open_store
from .switches import PREFIX, switch


class Client(Purges):
    """A site's cache, reached through the store that its workers share.

    Args:
        store: the store's URL, as the site has it, or a `Store`.
        namespace: as the site has it.
        timeout: seconds that one call of a network store may take; people wait longer than visitors do.
        signing_keys: as the site has them; only needed to list what is stored.

    Raises:
        OptionError: the URL names no store, or one that belongs to a single process.
    """

    def __init__(
        self,
        store: str | Store,
        *,
        namespace: str = "",
        timeout: float = 2.0,
        signing_keys: Sequence[str] = (),
    ) -> None:
        keys = tuple([key.encode() for key in signing_keys])
        opened = _open(store, StoreOptions(timeout=timeout, memo_bytes=0, signing_keys=keys))
        if not getattr(opened, "shared", False):
            raise OptionError(
                f"store = {store!r} is one process's memory: nobody else can reach it. Use a store that is "
                "shared, such as redis:// or lmdb://, or purge from within the site: cache.purge(...)"
            )
        self._store = opened.namespaced(namespace)
        parts: Sequence[Store] = getattr(self._store, "parts", (self._store,))
        self._journals = tuple([Follower(part, lambda names: None) for part in parts])
        self.rules: Final = ClientRules(self._store, self._journals)

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    def _followers(self) -> Sequence[Follower]:
        return self._journals

    def _now(self) -> float:
        return time.time()

    def _query_forms(self) -> QueryForms:
        """As the site has described itself; a site that never answered a request holds nothing to purge."""
        site = read_description(self._journals[0].store.get_meta(SITE))
        forms = frozenset({(tuple(ignored), bool(in_order)) for ignored, in_order in site.get("forms", ())})
        return QueryForms(forms, certain=bool(site.get("certain", True)))

    def stats(self) -> dict[str, Any]:
        """Counters of all workers together, as far as they have told, and the store's numbers.

        A worker adds its own every ten seconds or so, and when it ends.

        Raises:
            StoreError: the store does not answer.
        """
        return {**summary(self._journals[0].store.counters()), "store": dict(self._store.stats())}

    def close(self) -> None:
        """Let go of the connection."""
        self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ClientRules:
    """The rules of a site from outside, to look at and to switch."""

    def __init__(self, store: Store, journals: Sequence[Follower]) -> None:
        self._whole = store
        self._journals = journals
        self._store = journals[0].store

    def states(self) -> list[RuleState]:
        """The rules as they stand in every worker: label, pattern, switch.

        Raises:
            StoreError: the store does not answer.
        """
        told = read_description(self._store.get_meta(SITE)).get("rules", ())
        return [self._state(rule) for rule in told]

    def _state(self, rule: dict[str, Any]) -> RuleState:
        name, pattern = rule.get("name"), str(rule.get("pattern"))
        switched = self._store.get_meta(PREFIX + name) if name else None
        enabled = bool(rule.get("enabled")) if switched is None else switched == "on"
        return RuleState(name or pattern, pattern, enabled)

    def enable(self, name: str) -> None:
        """Switch a named rule on in every worker.

        Raises:
            KeyError: no rule of the site has this name; the message lists those that exist.
            StoreError: the store did not take it.
        """
        self._switch(name, enabled=True)

    def disable(self, name: str) -> None:
        """Switch a named rule off in every worker; what it stored is no longer served. See `enable`."""
        self._switch(name, enabled=False)

    def _switch(self, name: str, *, enabled: bool) -> None:
        told = read_description(self._store.get_meta(SITE)).get("rules", ())
        names = [rule["name"] for rule in told if rule.get("name")]
        if name not in names:
            known = ", ".join(names) or "none; has the site answered a request yet?"
            raise KeyError(f"no rule is named {name!r}; known: {known}")
        switch(self._store, name, enabled, self._append)

    def _append(self, purges: Sequence[Purge]) -> None:
        concerned = [Share(number, journal, purges) for number, journal in enumerate(self._journals)]
        append_all(self._whole, concerned, time.time())  # switches concern all


def _open(store: str | Store, options: StoreOptions) -> Store:
    if not isinstance(store, str):
        return store
    try:
        return open_store(store, options)
    except ValueError as error:
        raise OptionError(f"store: {error}") from None
