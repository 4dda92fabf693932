"""Background work: refreshes that no visitor waits for; bounded, one per key, with back-off.

Threads are daemons with a bounded queue, so that the end of the process waits for nobody; a job that finds
the queue full is dropped and asked for again by the next stale hit. What only saves work, such as the forms
of pages, has a queue of its own, which is looked at when the first one is empty: many pages that are coded at
once must not keep a stale one stale.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Final

from .forks import in_child, will_fork

log: Final = logging.getLogger("wsgicache")

Job = Callable[[], bool]
"""A refresh, or what only saves work: True where it succeeded."""

dice: Final = random.Random()  # noqa: S311 - of our own: whoever seeds the module's must not see us draw

BACK_OFF_FIRST: Final = 1.0
BACK_OFF_LIMIT: Final = 60.0


class Refresher:
    """Runs refresh jobs, each key's at most once at a time.

    Args:
        threads: most threads at once; they are started when there is work.
        queue: most jobs that wait, and as many again that only save work.
        clock: seconds, for the back-off.
        jitter: a factor between 0.5 and 1.5 that spreads retries.
    """

    def __init__(
        self,
        threads: int,
        queue: int,
        clock: Callable[[], float],
        jitter: Callable[[], float] = lambda: dice.uniform(0.5, 1.5),
    ) -> None:
        self._limit = threads
        self._queue_limit = queue
        self._clock = clock
        self._jitter = jitter
        self._reset()
        _instances.add(self)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._wake = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._jobs: deque[tuple[str, Job]] = deque()
        self._later: deque[tuple[str, Job]] = deque()
        self._busy: set[str] = set()
        self._failed: dict[str, tuple[int, float]] = {}
        self._threads = 0
        self._waiting = 0

    def submit(self, key: str, job: Job, *, later: bool = False) -> bool:
        """Run a job on a thread of the pool; False where it is not wanted now or there is no room.

        Args:
            later: it only saves work, so it comes after all that do not.
        """
        jobs = self._later if later else self._jobs
        with self._lock:
            if len(jobs) >= self._queue_limit or will_fork() or not self._claim(key):
                return False
            jobs.append((key, job))
            # A thread that was woken still counts as waiting until it runs.
            if len(self._jobs) + len(self._later) > self._waiting and self._threads < self._limit:
                self._threads += 1
                self._start(key, jobs)
            else:
                self._wake.notify()
        return True

    def _start(self, key: str, jobs: deque[tuple[str, Job]]) -> None:
        try:
            threading.Thread(target=self._work, name="wsgicache-refresh", daemon=True).start()
        except BaseException:  # no thread can be had: the job is not wanted any more
            self._threads -= 1
            jobs.pop()
            self._busy.discard(key)
            raise

    def claim(self, key: str) -> bool:
        """Take a key for a job that the caller runs itself with `run`."""
        with self._lock:
            return self._claim(key)

    def _claim(self, key: str) -> bool:
        if not self.wants(key):
            return False
        self._busy.add(key)
        return True

    def wants(self, key: str) -> bool:
        """Whether a job for a key would be run now: none is, and none has failed a moment ago."""
        failures = self._failed.get(key)
        return key not in self._busy and (failures is None or self._clock() >= failures[1])

    def run(self, key: str, job: Job) -> None:
        """Run a claimed job here and now."""
        succeeded = False
        try:
            succeeded = job()
        finally:
            with self._lock:
                self._busy.discard(key)
                self._note(key, succeeded)
                self._idle.notify_all()

    def _note(self, key: str, succeeded: bool) -> None:
        if succeeded:
            self._failed.pop(key, None)
            return
        if len(self._failed) >= 10000:
            self._failed.clear()
        count = self._failed.get(key, (0, 0.0))[0] + 1
        delay = min(BACK_OFF_LIMIT, BACK_OFF_FIRST * 2 ** min(count - 1, 10)) * self._jitter()
        self._failed[key] = (count, self._clock() + delay)

    def _work(self) -> None:
        while True:
            with self._lock:
                while not (jobs := self._jobs or self._later):
                    self._waiting += 1
                    woken = self._wake.wait(timeout=30)
                    self._waiting -= 1
                    if not (woken or self._jobs or self._later):
                        self._threads -= 1
                        return
                key, job = jobs.popleft()
            try:
                self.run(key, job)
            except BaseException as error:  # a thread outlives its jobs, one that calls sys.exit() too
                log.error("a background job failed", exc_info=error)

    def drain(self, timeout: float = 10.0) -> bool:
        """Wait until nothing is queued or under way; for tests and for orderly ends."""
        with self._lock:
            return self._idle.wait_for(lambda: not (self._busy or self._jobs or self._later), timeout)

    def _after_fork(self) -> None:
        """In a forked child the pool's threads do not exist."""
        self._reset()


_instances: Final[weakref.WeakSet[Refresher]] = weakref.WeakSet()


def _after_fork() -> None:
    dice.seed()  # or each of several children would draw the same
    for refresher in list(_instances):
        refresher._after_fork()


in_child(_after_fork)
