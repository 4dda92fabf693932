"""Runs a site of several processes under races and gives its history."""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

from histories import read, violations

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PATIENCE = 120


class Race:
    """Processes that follow seeded schedules over one store.

    Args:
        directory: where data and histories go.
        store: its URL.
        wait: with near tiers, let purges wait for all of them; else they are in force after the bound. None:
            do not wait, and take them for in force at once, which they are not.
        options: of each cache.
        broken: which fence is broken, if any.
    """

    def __init__(self, directory, store, *, workers=3, threads=2, broken=None, wait=True, **options):
        self.directory = Path(directory)
        self.store = store
        self.options = options
        self.workers = workers
        self.threads = threads
        self.broken = broken
        self.wait = wait
        self.data = self.directory / "data"
        self.data.write_bytes(bytes(8 * 64))
        self._started = 0

    def _start(self, worker, first, last):
        self._started += 1
        config = {
            "worker": worker,
            "workers": self.workers,
            "threads": self.threads,
            "store": self.store,
            "options": self.options,
            "broken": self.broken,
            "wait": self.wait,
            "data": str(self.data),
            "history": str(self.directory / f"history-{self._started}"),
            "first": first,
            "last": last,
        }
        environ = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            [sys.executable, str(HERE / "race_worker.py"), json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environ,
        )

    @contextmanager
    def _running(self, first, schedules):
        """All processes, under way; whatever still runs at the end is killed."""
        processes = [self._start(n, first, first + schedules) for n in range(self.workers)]
        try:
            for process in processes:
                self._await(process)
            for process in processes:
                self._let_go(process)
            yield processes
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                process.communicate()

    @staticmethod
    def _await(process):
        assert process.stdout.readline() == b"ready\n", process.communicate()[1].decode()

    @staticmethod
    def _let_go(process):
        process.stdin.write(b"go\n")
        process.stdin.flush()

    def run(self, schedules, *, crashes=0, first=0):
        """Run all processes through the schedules; kill one of them `crashes` times and start another."""
        with self._running(first, schedules) as processes:
            for number in range(crashes):
                self._crash(processes, number, first, schedules)
            for process in processes:
                _, errors = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, errors.decode()
        return self.history()

    def violated(self, schedules):
        """Run until a request has seen what it must not, and tell what: nothing, if all schedules pass."""
        pause = threading.Event()
        with self._running(0, schedules) as processes:
            found, codes = [], [None]
            while not found and None in codes:
                pause.wait(0.1)
                codes = [process.poll() for process in processes]  # before the look at what they wrote
                found = violations(self.history())
            assert not any(codes), [process.communicate()[1].decode() for process in processes]
        return found

    def _crash(self, processes, number, first, schedules):
        victim = number % self.workers
        history = self.directory / f"history-{self._started}"
        self._until(lambda: history.stat().st_size > 2000 or processes[victim].poll() is not None)
        processes[victim].send_signal(signal.SIGKILL)
        processes[victim].communicate()
        start = first + schedules * (number + 1)
        processes[victim] = self._start(victim, start, start + schedules)
        self._await(processes[victim])
        self._let_go(processes[victim])

    @staticmethod
    def _until(condition):
        pause = threading.Event()
        for _ in range(10_000):
            if condition():
                return
            pause.wait(0.003)
        raise AssertionError("it did not come")

    def history(self):
        """What happened, as far as it was written down."""
        return read(sorted(self.directory.glob("history-*")))
