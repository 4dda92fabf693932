"""What a forked child has to do before anything else: make its locks anew, let go of what is its parent's.

Python tells of its own forks (`os.register_at_fork`: gunicorn, multiprocessing). uWSGI forks its workers in
C and tells by a hook of its own. Where nobody tells, the next request that is no plain hit notices.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

_jobs: Final[list[Callable[[], None]]] = []
_WIPE_ON_FORK: Final = 18


def only_here() -> Any:
    """Something whose item 0 is true in this process and false in its forks.

    A page that the kernel clears there is read in a tenth of the time that it takes to ask for the process.
    """
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(_WIPE_ON_FORK)
    except (AttributeError, OSError, TypeError, ValueError):
        return _SameProcess() if hasattr(os, "fork") else b"\1"
    page[0] = 1
    return page


class _SameProcess:
    """Where the kernel cannot clear a page in forks: dearer, and as sure."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, place: int) -> bool:
        return os.getpid() == self._pid


_here: Any = only_here()


def in_child(job: Callable[[], None]) -> None:
    """Have a function called in every forked child, once, after those that were given before."""
    _jobs.append(job)


def check() -> None:
    """Where this process is a child that does not know it yet: do what there is to do."""
    if not _here[0]:
        _begin_anew()


def _begin_anew() -> None:
    global _here
    _here = only_here()
    for job in list(_jobs):
        job()


def will_fork() -> bool:
    """Whether this process is uWSGI's master, which forks its workers in C: then it must not run threads.

    One that held a lock of the interpreter at that moment would leave the worker waiting for it for ever.
    """
    return _uwsgi is not None and not _uwsgi.worker_id()


def _find_uwsgi() -> Any:
    try:
        return import_module("uwsgi")  # exists inside a uWSGI process only
    except ImportError:
        return None


def _hook_into(uwsgi: Any) -> None:
    """Have uWSGI call `check` in its workers, and whatever was to be called before."""
    try:
        import_module("uwsgidecorators").postfork(check)
    except Exception:  # it is not there, or refuses to work without a master process
        earlier: Callable[[], None] | None = getattr(uwsgi, "post_fork_hook", None)

        def hook() -> None:
            if earlier is not None:
                earlier()
            check()

        uwsgi.post_fork_hook = hook


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
_uwsgi: Final = _find_uwsgi()
if _uwsgi is not None:
    _hook_into(_uwsgi)
