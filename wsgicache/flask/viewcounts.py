"""Hits of the page cache by view, added up over the workers where the store is shared.

The page cache counts by URL path, and adds up what the workers count; here a path becomes the endpoint of
the view that makes it. It adds up when a request takes the long way, so a thread sees to it that a worker
which only has hits does so too.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from typing import Any, Final

from flask import Flask, Request
from werkzeug.exceptions import HTTPException
from werkzeug.test import create_environ

from ..engine import Engine
from ..forks import in_child
from ..key import split_key
from ..observe import ByName

_EVERY: Final = 10.0
"""Seconds between two reports of a worker."""

_MAX_PATHS: Final = 4096
_CALLS: Final = "calls"
_WHATS: Final = ("hits", "misses", _CALLS)

log = logging.getLogger("wsgicache.flask")


class ViewCounts:
    """Hits, misses and calls of views.

    Args:
        app: whose views.
        engine: the page cache's, which counts by the names that are given here.
    """

    def __init__(self, app: Flask, engine: Engine) -> None:
        self._app = weakref.ref(app)
        self._clock = engine.clock
        self._shared = engine.counts
        self._store = engine.followers[0].store
        self._endpoints: dict[str, str | None] = {}
        self.pages = engine.observer.by_name = ByName(self._endpoint_of)
        self.after_fork()
        _all.add(self)

    def after_fork(self) -> None:
        """In a forked child: what the parent counted is the parent's, and its thread does not run here."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._base = self.pages.counts()

    # --- counting ----------------------------------------------------------------------------------

    def called(self, path: str, endpoint: str | None) -> None:
        """The app was asked: a view ran, or nothing was found.

        Args:
            path: as in a key of the page cache: SCRIPT_NAME and PATH_INFO.
        """
        self._remember(path, endpoint)
        if endpoint is not None:
            self.pages.add(endpoint, _CALLS)
        if self._shared is not None and self._thread is None:
            self._start()

    def _remember(self, path: str, endpoint: str | None) -> None:
        if len(self._endpoints) >= _MAX_PATHS:
            self._endpoints.clear()
        self._endpoints[path] = endpoint

    def _endpoint_of(self, key: str) -> str | None:
        """The endpoint of a page, by its key."""
        path = key.partition("\0")[0]
        if path in self._endpoints:
            return self._endpoints[path]
        endpoint = self._matched(key)
        self._remember(path, endpoint)
        return endpoint

    def _matched(self, key: str) -> str | None:
        app = self._app()
        if app is None:
            return None
        parts = split_key(key)
        path = parts.path.encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            adapter = app.create_url_adapter(Request(create_environ(path, parts.origin)))
            return None if adapter is None else str(adapter.match()[0])
        except (HTTPException, ValueError):
            return None

    # --- sharing -----------------------------------------------------------------------------------

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_report_for_ever, args=(weakref.ref(self),), name="wsgicache-counts", daemon=True
                )
                self._thread.start()

    def report(self) -> None:
        """Have what was counted since the last time added to the store's counters."""
        if self._shared is not None:
            self._shared.add(self._clock.now())

    def read(self) -> dict[str, dict[str, Any]]:
        """Hits, misses, calls and hit ratio by view; of all workers where the store is shared."""
        if self._shared is not None:
            self.report()
            try:
                return _rows(self._store.counters())
            except Exception as error:
                log.warning("the workers' counts could not be added up (%s); these are this one's", error)
        return _rows({name: n - self._base.get(name, 0) for name, n in self.pages.counts().items()})


def _rows(counted: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, int]] = {}
    for name, count in counted.items():
        what, _, endpoint = name.removesuffix(">").partition("<")
        if what in _WHATS and endpoint:
            rows.setdefault(endpoint, dict.fromkeys(_WHATS, 0))[what] = count
    return {endpoint: _with_ratio(row) for endpoint, row in sorted(rows.items()) if any(row.values())}


def _with_ratio(row: dict[str, int]) -> dict[str, Any]:
    total = row["hits"] + row["misses"]
    return {**row, "hit_ratio": round(row["hits"] / total, 4) if total else None}


def _report_for_ever(counts: weakref.ref[ViewCounts]) -> None:
    """What the thread does: report every few seconds for as long as somebody has use for it."""
    pause = threading.Event()
    while True:
        pause.wait(_EVERY)
        known = counts()
        if known is None:
            return
        known.report()
        del known


_all: weakref.WeakSet[ViewCounts] = weakref.WeakSet()


def _after_fork() -> None:
    for counts in list(_all):
        counts.after_fork()


in_child(_after_fork)
