"""Background work: one job per key, a bounded queue, back-off, and threads that outlive what they run."""

import threading

import pytest
from waiting import PATIENCE

from wsgicache.background import BACK_OFF_FIRST, BACK_OFF_LIMIT, Refresher
from wsgicache.testing import FakeClock


@pytest.fixture
def clock():
    return FakeClock(0.0)


def refresher(clock, threads=2, queue=10):
    return Refresher(threads, queue, clock, jitter=lambda: 1.0)


class Held:
    """A job that waits until it is let go."""

    def __init__(self, result=True):
        self.began, self.let_go = threading.Event(), threading.Event()
        self.result = result

    def __call__(self):
        self.began.set()
        assert self.let_go.wait(PATIENCE)
        if isinstance(self.result, BaseException):
            raise self.result
        return self.result


def done():
    return True


def failed():
    return False


def test_a_job_runs_on_a_thread_of_its_own(clock):
    pool, names = refresher(clock), []
    assert pool.submit("/a", lambda: names.append(threading.current_thread()) or True)
    assert pool.drain()
    assert [thread.daemon for thread in names] == [True]
    assert names[0] is not threading.current_thread()


def test_one_job_per_key_at_a_time(clock):
    pool, job = refresher(clock), Held()
    assert pool.submit("/a", job)
    assert job.began.wait(PATIENCE)
    assert not pool.submit("/a", done)
    assert not pool.claim("/a")
    assert pool.submit("/b", done)
    job.let_go.set()
    assert pool.drain()
    assert pool.submit("/a", done)
    assert pool.drain()


def test_a_queued_key_is_taken_too(clock):
    pool, job, order = refresher(clock, threads=1), Held(), []
    pool.submit("/a", job)
    assert pool.submit("/b", lambda: order.append("b") or True)
    assert not pool.submit("/b", done)
    assert pool.submit("/c", lambda: order.append("c") or True)
    job.let_go.set()
    assert pool.drain()
    assert order == ["b", "c"]


def test_what_only_saves_work_comes_last(clock):
    pool, job, order = refresher(clock, threads=1, queue=2), Held(), []
    pool.submit("/a", job)
    assert job.began.wait(PATIENCE)
    for key in ("form 1", "form 2"):
        assert pool.submit(key, lambda key=key: order.append(key) or True, later=True)
    assert not pool.submit("form 3", done, later=True)
    for key in ("/b", "/c"):  # there is room for them however much else waits
        assert pool.submit(key, lambda key=key: order.append(key) or True)
    assert not pool.submit("/d", done)
    assert not pool.submit("form 2", done)  # a job of a key is one job
    job.let_go.set()
    assert pool.drain()
    assert order == ["/b", "/c", "form 1", "form 2"]


def test_what_only_saves_work_needs_nobody_else_to_begin(clock):
    pool = refresher(clock)
    assert pool.submit("form", done, later=True)
    assert pool.drain()


def test_the_queue_is_bounded(clock):
    pool, job = refresher(clock, threads=1, queue=2), Held()
    pool.submit("/a", job)
    assert job.began.wait(PATIENCE)
    assert [pool.submit(key, done) for key in ("/b", "/c", "/d")] == [True, True, False]
    job.let_go.set()
    assert pool.drain()
    assert pool.submit("/d", done)  # what was dropped was not claimed either
    assert pool.drain()


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_threads_than_allowed_and_as_many_as_there_is_work_for(clock, threads):
    pool = refresher(clock, threads)
    jobs = [Held() for _ in range(5)]
    for number, job in enumerate(jobs):
        assert pool.submit(f"/{number}", job)
    assert all(job.began.wait(PATIENCE) for job in jobs[:threads])
    assert not any(job.began.is_set() for job in jobs[threads:])
    for job in jobs:
        job.let_go.set()
    assert pool.drain()
    assert pool._threads == threads


def test_an_idle_thread_does_not_stand_in_for_two(clock):
    """Two jobs that come together run together, also where one thread was waiting for work."""
    pool = refresher(clock, threads=2)
    for turn in range(20):
        assert pool.submit(f"/warm/{turn}", done)
        assert pool.drain()
        meet = threading.Barrier(2)
        jobs = [pool.submit(f"/{turn}/{n}", lambda: meet.wait(PATIENCE) is not None) for n in range(2)]  # noqa: B023
        assert jobs == [True, True]
        assert pool.drain()
        assert pool.claim(f"/{turn}/0")  # no back-off: both met
        pool.run(f"/{turn}/0", done)


def test_a_job_that_fails_is_tried_again_later_and_later(clock):
    pool = refresher(clock)
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        assert pool.claim("/a")
        pool.run("/a", failed)
        clock.tick(expected - 0.01)
        assert not pool.claim("/a")
        assert not pool.submit("/a", done)
        clock.tick(0.02)
    assert pool.claim("/a")
    pool.run("/a", done)
    assert pool.claim("/a")  # a success forgets the failures
    pool.run("/a", failed)
    clock.tick(BACK_OFF_FIRST)
    assert pool.claim("/a")
    assert BACK_OFF_LIMIT == 60


def test_the_back_off_is_spread():
    clock = FakeClock(0.0)
    pool = Refresher(1, 10, clock)
    due = []
    for number in range(200):
        pool.claim(f"/{number}")
        pool.run(f"/{number}", failed)
        due.append(pool._failed[f"/{number}"][1])
    assert 0.5 <= min(due) < 0.7 < 1.3 < max(due) <= 1.5


def test_remembered_failures_are_bounded(clock):
    pool = refresher(clock)
    for number in range(12_000):
        pool.claim(f"/{number}")
        pool.run(f"/{number}", failed)
        assert len(pool._failed) <= 10_000


def test_a_key_that_others_fail_is_not_held_back(clock):
    pool = refresher(clock)
    pool.claim("/a")
    pool.run("/a", failed)
    assert pool.claim("/b")


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3)], ids=repr)
def test_a_thread_outlives_a_job_that_raises(clock, caplog, error):
    pool, job = refresher(clock, threads=1), Held(error)
    pool.submit("/a", job)
    job.let_go.set()
    assert pool.drain()
    assert pool.submit("/b", done)
    assert pool.drain()
    assert "a background job failed" in caplog.text
    assert not pool.claim("/a")  # it counts as a failure
    assert pool._threads == 1


def test_a_job_that_raises_where_the_caller_runs_it_is_the_callers(clock):
    pool = refresher(clock)
    assert pool.claim("/a")
    with pytest.raises(ZeroDivisionError):
        pool.run("/a", lambda: 1 / 0)
    assert not pool.claim("/a")
    clock.tick(2)
    assert pool.claim("/a")


def test_where_no_thread_can_be_had_the_job_is_not_wanted(clock, monkeypatch):
    pool = refresher(clock)
    with monkeypatch.context() as patch:
        patch.setattr(
            threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread"))
        )
        with pytest.raises(RuntimeError, match="no thread"):
            pool.submit("/a", done)
    assert pool.drain()
    assert pool.submit("/a", done)
    assert pool.drain()
    assert pool._threads == 1


def test_drain_tells_when_it_gave_up(clock):
    pool, job = refresher(clock), Held()
    pool.submit("/a", job)
    assert not pool.drain(timeout=0.01)
    job.let_go.set()
    assert pool.drain()


def test_many_who_ask_at_once_start_one_job(clock):
    pool, runs, barrier, job = refresher(clock), [], threading.Barrier(16), Held()

    def ask():
        barrier.wait(PATIENCE)
        if pool.submit("/a", job):
            runs.append(True)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    job.let_go.set()
    assert pool.drain()
    assert runs == [True]


def test_a_thread_that_found_no_work_for_long_ends_and_another_begins(clock, monkeypatch):
    pool = refresher(clock, threads=1)
    wait, asked, others = pool._wake.wait, [], set(threading.enumerate())

    def soon(timeout):
        asked.append(timeout)
        return wait(0.001)

    monkeypatch.setattr(pool._wake, "wait", soon)
    assert pool.submit("/a", done)
    for thread in set(threading.enumerate()) - others:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert (pool._threads, asked) == (0, [30])
    assert pool.submit("/b", done)
    assert pool.drain()
