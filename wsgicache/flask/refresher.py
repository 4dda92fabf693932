"""Computing anew behind the caller, who was answered with what is stale."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final
from weakref import WeakSet

from flask import copy_current_request_context as in_this_request
from flask import current_app, has_app_context, has_request_context

from ..forks import in_child

_MAX_THREADS: Final = 4

log = logging.getLogger("wsgicache.flask")


class Refresher:
    """At most a few threads that refresh, one for a key."""

    def __init__(self) -> None:
        self.after_fork()
        _all.add(self)

    def after_fork(self) -> None:
        """In a forked child: the parent's threads do not run here."""
        self._lock = threading.Lock()
        self._running: dict[str, threading.Thread] = {}

    def ask(self, key: str, refresh: Callable[[], Any], is_async: bool) -> bool:
        """Refresh a key soon, in the context of the caller; False if that is under way or too much is.

        Args:
            refresh: computes and keeps; gives a coroutine if `is_async`.
        """
        work = _in_context((lambda: asyncio.run(refresh())) if is_async else refresh)
        with self._lock:
            if key in self._running or len(self._running) >= _MAX_THREADS:
                return False
            thread = threading.Thread(
                target=self._run, args=(key, work), name="wsgicache-refresh", daemon=True
            )
            self._running[key] = thread
            thread.start()
        return True

    def _run(self, key: str, work: Callable[[], Any]) -> None:
        try:
            work()
        except Exception:
            log.exception("refreshing %s failed; the stale value stays until it expires", key)
        finally:
            with self._lock:
                self._running.pop(key, None)

    def join(self, timeout: float = 5.0) -> None:
        """Wait until what runs now has ended; for tests and shutdown."""
        for thread in list(self._running.values()):
            thread.join(timeout)


_all: WeakSet[Refresher] = WeakSet()


def _after_fork() -> None:
    for refresher in list(_all):
        refresher.after_fork()


in_child(_after_fork)


def _in_context(work: Callable[[], Any]) -> Callable[[], Any]:
    """Work as the caller would do it: in a copy of its request, or in its app's context."""
    if has_request_context():
        copied = in_this_request(work)
        return lambda: contextvars.Context().run(copied)
    app: AbstractContextManager[Any] = current_app.app_context() if has_app_context() else nullcontext()

    def in_app() -> Any:
        with app:
            return work()

    return in_app
