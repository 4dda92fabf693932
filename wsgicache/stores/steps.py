"""The last steps of a journal that a near tier followed: what it tells those who follow it in turn. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Final

from ..journal import Mark, Record, Snapshot

MOST: Final = 128
"""Steps that are remembered."""

MOST_RECORDS: Final = 4096
"""Records in all of them together; whoever is further behind asks the store."""


class Steps:
    """Immutable: a longer history is another object, so that it is read without a lock."""

    def __init__(self, steps: Mapping[Mark, Snapshot] | None = None) -> None:
        self._steps: Final[Mapping[Mark, Snapshot]] = steps or {}

    def plus(self, base: Mark | None, snapshot: Snapshot) -> Steps:
        """With one step more, from a mark to that of the snapshot.

        What came before another history (`whole`) leads nowhere; neither does what cannot be remembered.
        """
        if base is None or len(snapshot.records) > MOST_RECORDS:
            return Steps()
        steps = {base: snapshot} if snapshot.whole else {**self._steps, base: snapshot}
        count = sum([len(step.records) for step in steps.values()])
        dropped = 0
        for step in steps.values():
            if count <= MOST_RECORDS and len(steps) - dropped <= MOST:
                break
            count -= len(step.records)
            dropped += 1
        return Steps(dict(islice(steps.items(), dropped, None)))

    def since(self, mark: Mark | None) -> Snapshot | None:
        """What came after a mark, up to the last step; None where this does not know, or nothing did."""
        steps = self._steps
        if mark is None or mark not in steps:
            return None
        first = steps[mark]
        records: list[Record] = []
        whole, table, at, last = False, None, mark, first
        while (step := steps.get(at)) is not None:
            records += step.records
            if step.whole:
                whole, table = True, step.table
            at, last = step.mark, step
        return last._replace(records=records, whole=whole, table=table)

    def __len__(self) -> int:
        return len(self._steps)
