"""Purging when SQLAlchemy models change, after the commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

log = logging.getLogger("wsgicache.flask")

GroupsOf = Callable[[Any], Iterable[str]]


class PurgeOnCommit:
    """Collects the groups of changed objects while a transaction runs, and purges them when it is done.

    Args:
        purge: purges groups by name.
    """

    def __init__(self, purge: Callable[[Iterable[str]], object]) -> None:
        self._purge = purge
        self._mappings: list[tuple[type, GroupsOf]] = []
        self._watched: list[Any] = []

    def watch(self, model: type, groups: GroupsOf, session: Any = None) -> None:
        """Purge what `groups` names when an object of `model` changes.

        Args:
            session: the session, factory or class to watch; None watches every session.
        """
        from sqlalchemy import event
        from sqlalchemy.orm import Session

        target = Session if session is None else session
        self._mappings.append((model, groups))
        if any(target is watched for watched in self._watched):
            return
        self._watched.append(target)
        event.listen(target, "before_flush", self._before_flush)
        event.listen(target, "after_flush", self._after_flush)
        event.listen(target, "after_commit", self._after_commit)
        event.listen(target, "after_rollback", self._after_rollback)

    def _before_flush(self, session: Any, context: Any, instances: Any) -> None:
        self._collect(session, [*session.dirty, *session.deleted])

    def _after_flush(self, session: Any, context: Any) -> None:
        self._collect(session, [*session.new, *session.dirty, *session.deleted])

    def _collect(self, session: Any, changed: Iterable[Any]) -> None:
        pending: set[str] = session.info.setdefault(self, set())
        with session.no_autoflush:
            for instance in changed:
                for model, groups in self._mappings:
                    if isinstance(instance, model):
                        pending.update(_named(groups, instance))

    def _after_commit(self, session: Any) -> None:
        if session.in_nested_transaction():
            return  # a savepoint: nobody else sees its rows yet
        pending = session.info.pop(self, None)
        if not pending:
            return
        try:
            self._purge(sorted(pending))
        except Exception:
            # The rows are written: raising here would say that they are not.
            log.exception("purging %s after a commit failed; stale pages may be served", sorted(pending))

    def _after_rollback(self, session: Any) -> None:
        # What was written before a savepoint that is rolled back may still be committed.
        if not session.in_nested_transaction():
            session.info.pop(self, None)


def _named(groups: GroupsOf, instance: Any) -> Iterable[str]:
    """The groups of an object; a fault in the mapping is logged, and stops no one from writing."""
    try:
        named = groups(instance)
        return (named,) if isinstance(named, str) else tuple(named)
    except Exception:
        log.exception("the groups of a changed %s could not be named; stale pages may be served",
                      type(instance).__qualname__)  # fmt: skip
        return ()
