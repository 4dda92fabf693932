"""Near tiers of several parts kept in step with their journals, in the time that one takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from ..journal import Mark, Snapshot
from . import AtOnce


class Behind(Protocol):
    """A part that follows its journal."""

    @property
    def reached(self) -> Mark | None:
        """The mark to which it has."""
        ...

    def follow_to(self, mark: Mark, asked: float, known: tuple[Mark | None, Snapshot] | None) -> None:
        """Follow the journal to a mark that was asked for at a monotonic instant.

        Args:
            known: what the journal has since a mark; None: ask.
        """
        ...


def follow(
    remote: AtOnce, parts: Mapping[int, Behind], marks: Mapping[int, Mark | Exception], asked: float
) -> dict[int, Exception]:
    """Bring parts up to marks that were asked for at one instant; what went wrong with some, by number."""
    failures: dict[int, Exception] = {}
    reached: dict[int, Mark] = {}
    for number, mark in marks.items():
        if isinstance(mark, Exception):
            failures[number] = mark
        else:
            reached[number] = mark
    bases = {n: parts[n].reached for n, mark in reached.items() if parts[n].reached != mark}
    fetched = remote.purges_since(bases) if bases else {}
    for number, mark in reached.items():
        news = fetched.get(number)
        if isinstance(news, Exception):
            failures[number] = news
            continue
        try:
            parts[number].follow_to(mark, asked, None if news is None else (bases[number], news))
        except Exception as error:
            failures[number] = error
    return failures
