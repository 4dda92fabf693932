"""Early refreshes in processes of their own: two are due at one moment, and one of them asks the app."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from servers_redis import empty, until

import wsgicache

ROOT = Path(wsgicache.__file__).parent.parent


class Process:
    def __init__(self, url, now):
        script = Path(__file__).with_name("early_worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", str(script), url, repr(now)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._answer() == "ready"

    def _answer(self):
        return json.loads(self._process.stdout.readline())

    def __getattr__(self, order):
        def call():
            self._process.stdin.write(order + "\n")
            self._process.stdin.flush()
            return self._answer()

        return call

    def end(self):
        with self._process:
            self._process.stdin.close()
        assert self._process.returncode == 0


@contextmanager
def processes(url):
    now = time.time()
    both = [Process(url, now) for _ in range(2)]
    try:
        yield both
    finally:
        for process in both:
            process.end()


@pytest.fixture(params=["redis", "lmdb"])
def url(request, tmp_path):
    if request.param == "redis":
        return f"{empty().url}?timeout=20s"
    return f"lmdb://{tmp_path}/cache?max_bytes=8MB"


def test_one_app_run(url):
    with processes(url) as (one, two):
        assert [one.ask(), one.ask()] == [["stored", "old"], ["HIT", "old"]]
        assert [two.ask(), two.ask()] == [["HIT", "old"], ["HIT", "old"]]
        one.wait_until_due()
        two.wait_until_due()
        assert [one.ask(), two.ask()] == [["HIT_EARLY_REFRESH", "old"]] * 2
        until(lambda: one.runs() + two.runs() == 2)
        leader, other = (one, two) if one.runs() == 2 else (two, one)
        assert other.drain(), "it has left the page to the first"
        assert [one.ask(), two.ask()] == [["HIT", "old"]] * 2
        leader.open()
        assert leader.drain()
        assert [one.ask(), two.ask()] == [["HIT", "new"]] * 2
        assert one.runs() + two.runs() == 2
