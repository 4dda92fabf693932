"""Real worker processes on one backend: one computation, purges that reach all, nothing lost in counting."""

import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import PATIENCE

import wsgicache

ROOT = Path(wsgicache.__file__).parents[1]
SCRIPT = Path(__file__).parent / "flask_worker.py"


class Process:
    """A worker, and what it says, line by line."""

    def __init__(self, config):
        self.process = subprocess.Popen(
            [sys.executable, "-X", "dev", "-W", "error", str(SCRIPT), json.dumps(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        self._said = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._said.put(line.strip())

    def tell(self, *words):
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def says(self, word, after=None):
        """The rest of its next line, which must begin with a word; perhaps another line comes before."""
        said = self._said.get(timeout=30)
        if said == after:
            said = self._said.get(timeout=30)
        assert said.partition(" ")[0] == word, said
        return said.partition(" ")[2]

    @property
    def is_silent(self):
        return self._said.empty()

    def end(self):
        self.process.stdin.close()
        if self.process.poll() is None:
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def standing(tmp_path_factory):
    """Workers that several tests tell what to do, by backend: starting them is what takes the time."""
    directory = str(tmp_path_factory.mktemp("shared") / "cache")
    started = {}
    yield lambda name: started.setdefault(name, ([], {"CACHE_DIR": directory} if name == "file" else {}))
    for processes, _ in started.values():
        for process in processes:
            process.end()


@pytest.fixture
def workers(config_of, shared, make_cache, standing):
    """Worker processes on one backend, which is empty; new ones where they are to be configured."""
    processes, own = standing(shared)
    fresh = []

    def workers(count, new=False, **config):
        workers.own = make_cache(shared, **own)
        workers.own.clear()
        several = fresh if new else processes
        starting = [Process({**config_of(shared), **own, **config}) for _ in range(count - len(several))]
        several.extend(starting)
        for process in starting:
            process.says("ready")
        assert all(process.is_silent for process in several)
        return several[:count]

    yield workers
    for process in fresh:
        process.end()


@pytest.mark.parametrize("call", ["slow", "later", "page"])
def test_two_processes_compute_once(workers, call):
    first, second = workers(2)
    first.tell(call, "1")
    first.says("entered")
    second.tell(call, "1")
    second.says("waiting")
    first.tell("made-by-the-first")
    assert first.says("answered") == "made-by-the-first"
    assert second.says("answered") == "made-by-the-first"  # it never entered
    second.tell(call, "1")
    assert second.says("answered") == "made-by-the-first"


def test_a_killed_leader_holds_nobody_up_for_longer_than_its_lease(workers):
    first, second = workers(2, new=True, CACHE_LEASE=1)
    first.tell("slow", "1")
    first.says("entered")
    first.process.kill()
    first.process.wait()
    second.tell("slow", "1")
    second.says("entered", after="waiting")  # until the lease has run out, if that takes longer than asking
    second.tell("made-by-the-second")
    assert second.says("answered") == "made-by-the-second"


@pytest.mark.parametrize("purge", ["purge", "forget"])
def test_what_one_process_computes_while_another_purges_it_is_not_kept(workers, purge):
    first, second = workers(2)
    first.tell("slow", "1")
    first.says("entered")
    second.tell(purge)
    second.says("purged" if purge == "purge" else "forgotten")
    first.tell("out-of-date")
    assert first.says("answered") == "out-of-date"
    for worker in (first, second):
        worker.tell("slow", "1")
        if worker is first:
            worker.says("entered")
            worker.tell("up-to-date")
        assert worker.says("answered") == "up-to-date"


def test_what_one_process_computes_while_another_deletes_it_is_not_kept(workers):
    first, second = workers(2)
    first.tell("page")
    first.says("entered")
    second.tell("delete")
    second.says("deleted")
    first.tell("out-of-date")
    first.says("answered")
    second.tell("page")
    second.says("entered")
    second.tell("up-to-date")
    assert second.says("answered") == "up-to-date"


def test_processes_lose_no_increment_and_share_no_success(workers):
    several = workers(3)
    for worker in several:
        worker.tell("count", "200")
    for worker in several:
        worker.says("counted")
    assert workers.own.get("count") == 600
    for worker in several:
        worker.tell("add", "100")
    assert sum(int(worker.says("added")) for worker in several) == 100


def test_processes_that_delete_prefixes_at_once_lose_none(workers):
    several = workers(3)
    names = [f"{n}/" for n in range(12)]
    own = workers.own
    own.set_many({f"{name}key": name for name in names})
    for at, name in enumerate(names):
        several[at % 3].tell("prefix", name)
    for at in range(len(names)):
        several[at % 3].says("purged")
    assert own.get_many(*[f"{name}key" for name in names]) == [None] * len(names)


def test_statistics_of_processes_add_up(workers):
    first, second = workers(2, new=True)
    first.tell("slow", "1")
    first.says("entered")
    first.tell("x")
    first.says("answered")
    for worker in (first, second, second):
        worker.tell("slow", "1")
        worker.says("answered")
    for worker in (first, second, first):
        worker.tell("stats")
        (row,) = [row for name, row in json.loads(worker.says("stats")).items() if "slow" in name]
    assert row == {"hits": 3, "misses": 1, "hit_ratio": 0.75}
