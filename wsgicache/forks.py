"""What a forked child has to do before anything else: make its locks anew, let go of what is its parent's.

Python tells of its own forks (`os.register_at_fork`: gunicorn, multiprocessing). uWSGI forks its workers in
C and tells by a hook of its own. Where nobody tells, the next request that is no plain hit notices.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final

_jobs: Final[list[Callable[[], None]]] = []
_pid = os.getpid()


def in_child(job: Callable[[], None]) -> None:
    """Have a function called in every forked child, once, after those that were given before."""
    _jobs.append(job)


def check() -> None:
    """Where this process is a child that does not know it yet: do what there is to do."""
    global _pid
    pid = os.getpid()
    if pid != _pid:
        _pid = pid
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
    os.register_at_fork(after_in_child=check)
_uwsgi: Final = _find_uwsgi()
if _uwsgi is not None:
    _hook_into(_uwsgi)
