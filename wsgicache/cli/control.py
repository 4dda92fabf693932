"""What the commands need of a cache in force, and the way to it through the store that the workers share.

The memory of one process can only be reached through the site's endpoint: `overhttp` has a class with the
same methods, which `Site.control` chooses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ..client import Client
from ..inventory import Held
from ..key import parse_url, prefix_target, split_key
from ..purge import Purged
from ..rules import RuleState


@dataclass(frozen=True)
class Asked:
    """What to purge."""

    urls: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    everything: bool = False
    soft: bool = False

    def named(self) -> list[str]:
        """Each thing, as people say it."""
        return [
            *(["everything"] if self.everything else []),
            *self.urls,
            *[f"prefix {prefix}" for prefix in self.prefixes],
            *[f"group {group}" for group in self.groups],
        ]


@dataclass(frozen=True)
class Reached:
    """What a purge reached.

    Attributes:
        matched: how many entries; None where the store cannot tell.
        urls: theirs, as far as they can still be listed.
        roughly: the number is not exact: everything was forgotten at once.
        more_urls: how many there are besides, which were not told.
    """

    matched: int | None
    urls: tuple[str, ...]
    roughly: bool = False
    more_urls: int = 0


class Control(Protocol):
    """A site's cache in force, in all workers.

    Attributes:
        is_one_of_several: only one of several workers was reached, of which each has a memory of its own.
        is_cut: a list is not whole, because the store holds more than was looked at.
    """

    is_one_of_several: bool
    is_cut: bool

    def stats(self) -> dict[str, Any]:
        """Counters of all workers and the store's numbers."""
        ...

    def entries(self, prefix: str | None, groups: Sequence[str]) -> Iterator[Held]:
        """What may still be served or validated."""
        ...

    def at(self, url: str) -> list[Held]:
        """Every response that is stored for a URL."""
        ...

    def purge(self, asked: Asked, *, wait: bool) -> Reached:
        """Purge, and say what it reached."""
        ...

    def preview(self, asked: Asked) -> Reached:
        """What a purge would reach."""
        ...

    def rules(self) -> list[RuleState]:
        """The rules as they stand."""
        ...

    def switch(self, name: str, enabled: bool) -> None:
        """Switch a named rule; KeyError where there is none."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class StoreControl:
    """Through the store that the workers share."""

    is_one_of_several = False
    is_cut = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def stats(self) -> dict[str, Any]:
        """Counters of all workers, as far as they have told, and the store's numbers."""
        return self._client.stats()

    def entries(self, prefix: str | None, groups: Sequence[str]) -> Iterator[Held]:
        """See `Inventory.entries`."""
        return self._client.inventory().entries(prefix, groups)

    def at(self, url: str) -> list[Held]:
        """See `Inventory.at`."""
        return self._client.inventory().at(url)

    def purge(self, asked: Asked, *, wait: bool) -> Reached:
        """First all purges, so that they are in force; then what they reached is counted.

        Raises:
            ValueError: a text is no URL, or no prefix; nothing is purged.
        """
        for url in asked.urls:
            parse_url(url)
        for prefix in asked.prefixes:
            prefix_target(prefix)
        client, soft = self._client, asked.soft
        if asked.everything and not soft:  # it forgets at once: what it reached is counted before, roughly
            return Reached(client.clear(wait=wait).matched, (), roughly=True)
        done: list[Purged] = []
        if asked.everything:
            done.append(client.clear(soft=True, wait=wait))
        if asked.urls:
            done.append(client.purge(*asked.urls, soft=soft, wait=wait))
        if asked.prefixes:
            done.append(client.purge_prefix(*asked.prefixes, soft=soft, wait=wait))
        if asked.groups:
            done.append(client.purge_groups(*asked.groups, soft=soft, wait=wait))
        return _told(done)

    def preview(self, asked: Asked) -> Reached:
        """See `Purges.preview`."""
        found = self._client.preview(
            *asked.urls,
            prefixes=asked.prefixes,
            groups=asked.groups,
            everything=asked.everything,
            soft=asked.soft,
        )
        urls = [split_key(entry.key).url for entry in found]
        return Reached(len(urls), _distinct(urls))

    def rules(self) -> list[RuleState]:
        """See `ClientRules.states`."""
        return self._client.rules.states()

    def switch(self, name: str, enabled: bool) -> None:
        """See `ClientRules.enable`."""
        (self._client.rules.enable if enabled else self._client.rules.disable)(name)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _told(done: Sequence[Purged]) -> Reached:
    """What purges reached together: each counts what those before it did not reach."""
    try:
        urls = [split_key(entry.key).url for purged in done for entry in purged.entries()]
    except NotImplementedError:
        return Reached(None, ())
    return Reached(len(urls), _distinct(urls))


def _distinct(urls: Sequence[str]) -> tuple[str, ...]:
    return tuple(sorted(set(urls)))
