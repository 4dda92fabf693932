"""The records that lead from a page's key to what is stored of it: its varying fields and its variants."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from .encode import is_form
from .entry import Entry, Variants
from .key import CODING_FIELD, page_of
from .observe import Tally
from .stores import Store


class Records:
    """Writes records.

    Args:
        limit: how many variants a page may have.
        dropped: counts variants that went because there were too many.
    """

    def __init__(self, limit: int, dropped: Tally) -> None:
        self._limit = limit
        self._dropped = dropped
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child: whoever held the lock does not exist."""
        self._lock = threading.Lock()

    def note(self, entry: Entry, key: str, store: Store) -> Sequence[str]:
        """Write the record of varying fields; the oldest variants go where there are too many.

        Returns the variants that it named before.
        """
        with self._lock:
            (stored,), _ = store.get([entry.key])
            record = stored if isinstance(stored, Variants) else None
            keys = record.variants if record is not None else ()
            if record is not None and (_is_noted(record, key, entry) or _is_late(record, entry)):
                return keys
            known, keys = keys, (*[old for old in keys if old != key], key)
            dropped, kept = keys[: -self._limit], keys[-self._limit :]
            if CODING_FIELD in entry.terms.varying:
                dropped, kept = _with_forms(keys, self._limit)
            keep_until = max(entry.keep_until, record.keep_until if record is not None else 0.0)
            updated = Variants(entry.key, entry.terms.varying, kept, keep_until)
            store.set(entry.key, updated, keep_until)
        for old in dropped:
            self._dropped.add()
            store.delete(old)
        return known


def _is_noted(record: Variants, key: str, entry: Entry) -> bool:
    """Whether a record of varying fields already leads to a variant for as long as it lives."""
    return (
        key in record.variants
        and record.fields == entry.terms.varying
        and record.keep_until >= entry.keep_until
    )


def _is_late(record: Variants, entry: Entry) -> bool:
    """Whether an entry is a form of a page that varied by other fields, before this record was written."""
    return record.fields != entry.terms.varying and is_form(entry)


def _with_forms(keys: tuple[str, ...], limit: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The variants that are too many, and those that stay, where a page and its forms count as one."""
    pages = set(list(dict.fromkeys([page_of(key) for key in reversed(keys)]))[:limit])
    stay = tuple([key for key in keys if page_of(key) in pages])
    return tuple([key for key in keys if page_of(key) not in pages]), stay
