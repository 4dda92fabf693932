"""Hits of the page cache by view, added up over the workers where the store is shared.

The page cache counts by URL path; here a path becomes the endpoint of the view that makes it. What was
counted goes to the store's shared counters now and then, from a thread of its own, because a hit of the page
cache runs no code of the app that could see to it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final

from flask import Flask, Request
from werkzeug.exceptions import HTTPException
from werkzeug.test import create_environ

from ..forks import in_child
from ..key import split_key
from ..observe import ByName, Tally
from ..stores import Store

_EVERY: Final = 10.0
"""Seconds between two reports of a worker."""

_OVERDUE: Final = 30.0
_MAX_PATHS: Final = 4096
_PREFIX: Final = "view"
_WHATS: Final = ("hits", "misses", "calls")

log = logging.getLogger("wsgicache.flask")


class ViewCounts:
    """Hits, misses and calls of views.

    Args:
        app: whose views.
        store: the page cache's.
    """

    def __init__(self, app: Flask, store: Store) -> None:
        self._app = weakref.ref(app)
        self._store = store
        self._endpoints: dict[str, str | None] = {}
        self._calls: dict[str, Tally] = {}
        self._reported: dict[str, int] = {}
        self._shared = bool(getattr(store, "shared", False))
        self.pages = ByName(self._endpoint_of)
        self._start_anew()
        _all.add(self)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last = monotonic()
        self._base = self._counted()

    def after_fork(self) -> None:
        """In a forked child: what the parent counted is the parent's to report."""
        self._start_anew()
        self._reported = dict(self._base)

    # --- counting ----------------------------------------------------------------------------------

    def called(self, path: str, endpoint: str | None) -> None:
        """The app was asked: a view ran, or nothing was found.

        Args:
            path: as in a key of the page cache: SCRIPT_NAME and PATH_INFO.
        """
        self._remember(path, endpoint)
        if endpoint is not None:
            calls = self._calls.get(endpoint)
            (self._calls.setdefault(endpoint, Tally()) if calls is None else calls).add()
        if self._shared:
            self._see_to_reports()

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

    def _counted(self) -> dict[str, int]:
        """What this process counted, by the names of the shared counters."""
        counted: dict[str, int] = {}
        for endpoint, row in list(self.pages.rows.items()):
            counted[_name("hits", endpoint)] = row.fast.value + row.hits.value
            counted[_name("misses", endpoint)] = row.misses.value
        for endpoint, calls in list(self._calls.items()):
            counted[_name("calls", endpoint)] = calls.value
        return counted

    # --- sharing -----------------------------------------------------------------------------------

    def _see_to_reports(self) -> None:
        """Start the thread that reports; where none runs, as in a uWSGI without threads, do its work."""
        if self._thread is None:
            self._start()
        elif monotonic() - self._last > _OVERDUE:
            self._last = monotonic()
            try:
                self.report()
            except Exception as error:
                log.debug("reporting counts failed: %s", error)  # the next report brings them

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=_report_for_ever, args=(weakref.ref(self),), name="wsgicache-counts", daemon=True
                )
                self._thread.start()

    def report(self) -> None:
        """Add what was counted since the last report to the store's counters.

        Raises:
            StoreError: the store did not take it; the next report will bring it.
        """
        if not self._shared:
            return
        with self._lock:
            self._last = monotonic()
            counted = self._counted()
            deltas = {name: n - self._reported.get(name, 0) for name, n in counted.items()}
            deltas = {name: delta for name, delta in deltas.items() if delta}
            if deltas:
                self._store.incr_many(deltas)
                self._reported = counted

    def read(self) -> dict[str, dict[str, Any]]:
        """Hits, misses, calls and hit ratio by view; of all workers where the store is shared."""
        counted: Mapping[str, int] | None = None
        if self._shared:
            try:
                self.report()
                counted = self._store.counters()
            except Exception as error:
                log.warning("the workers' counts could not be added up (%s); these are this one's", error)
        if counted is None:
            counted = {name: n - self._base.get(name, 0) for name, n in self._counted().items()}
        return _rows(counted)


def _name(what: str, endpoint: str) -> str:
    return f"{_PREFIX}:{what}:{endpoint}"


def _rows(counted: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    rows: dict[str, dict[str, int]] = {}
    for name, count in counted.items():
        prefix, _, rest = name.partition(":")
        what, _, endpoint = rest.partition(":")
        if prefix == _PREFIX and what in _WHATS:
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
        try:
            known.report()
        except Exception as error:
            log.debug("reporting counts failed: %s", error)  # the next report brings them
        del known


_all: weakref.WeakSet[ViewCounts] = weakref.WeakSet()


def _after_fork() -> None:
    for counts in list(_all):
        counts.after_fork()


in_child(_after_fork)
