"""gunicorn's workers over a store that they share: one truth in all of them, whatever forks, ends or dies."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from deploy_helpers import (
    Later,
    gunicorn,
    kept,
    numbered,
    old,
    running,
    until,
    worker_of,
)

from wsgicache.client import Client
from wsgicache.testing import Gate

KINDS = ["sync", "gthread", "gevent"]
# For what does not depend on the store: starting servers takes time.
REDIS = pytest.mark.parametrize("store", ["redis"], indirect=True)
LMDB = pytest.mark.parametrize("store", ["lmdb"], indirect=True)

CALM = {"store_timeout": 2.0}
"""The machine that runs the tests is busier than a site's: a store is given up later than by default."""


def options(store, **more):
    return {"namespace": store[1], **CALM, **more}


def client_of(store):
    return Client(store[0], namespace=store[1])


def held(gate):
    """An answer whose body waits at a gate."""
    return kept([gate, b"held"], kind="stream")


# --- one truth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("preload", [False, True], ids=["loaded in each worker", "preloaded"])
def test_workers_share_pages_and_purges(kind, preload, store, origin, tmp_path):
    """DSK-01, RDS-14, CON-15: with --preload the store was open before the fork, and nobody uses what was."""
    variables = (
        {"DEPLOY_OPENED": "1", **({"DEPLOY_PATCHED": "1"} if kind == "gevent" else {})} if preload else {}
    )
    command = gunicorn(kind, *(["--preload"] if preload else []))
    with running(command, origin, store[0], tmp_path, options(store), **variables) as site:
        page = origin.page(numbered)
        assert site.get(page.path).stored
        answers = site.workers(page.path)
        assert [(answer.is_hit, answer.body) for answer in answers.values()] == [(True, b"answer 1")] * 2
        assert page.calls == 1

        with client_of(store) as client:
            for number in (2, 3):
                assert client.purge(page.path).matched == 1
                answers = site.workers(page.path)
                assert {answer.body for answer in answers.values()} == {b"answer %d" % number}
                assert page.calls == number

        mixed = ask_for_many(site, origin)
        assert mixed == []
        assert site.stop() == 0
        assert "Traceback" not in site.log()
        assert site.warnings() == []


def ask_for_many(site, origin, pages=10, clients=6, rounds=8):
    """Many clients ask for many pages at once; what was not right, and what did not come from the store."""
    pages = [origin.page(lambda seen: kept(seen.environ["PATH_INFO"].encode())) for _ in range(pages)]
    wrong, asked = [], {page.path: [] for page in pages}

    def ask(number):
        for turn in range(rounds):
            page = pages[(number + turn) % len(pages)]
            answer = site.get(page.path)
            asked[page.path].append(answer.field("cache-status"))
            if (answer.code, answer.body) != (200, page.path.encode()):
                wrong.append((page.path, answer))

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(ask, range(clients)))
    return wrong + [(page.path, page.calls, asked[page.path]) for page in pages if page.calls != 1]


def test_a_purge_from_outside_is_seen_by_every_worker_at_once(store, origin, tmp_path):
    """While they serve: each has a connection that is kept, so that it is known who answers."""
    with (
        running(gunicorn("gthread"), origin, store[0], tmp_path, options(store)) as site,
        ExitStack() as stack,
    ):
        page = origin.page(numbered)
        lines = site.lines_to_workers(page.path, stack)
        client = stack.enter_context(client_of(store))
        purges = [
            lambda: client.purge(page.path),
            lambda: client.purge(f"http://site.test{page.path}"),
            lambda: client.purge_prefix(page.path),
            client.clear,
        ]
        for number, purge in enumerate(purges * 3, start=2):
            purge()
            answers = [line.get(page.path) for line in lines.values()]
            assert [answer.body for answer in answers] == [b"answer %d" % number] * 2
            assert [line.get(page.path).is_hit for line in lines.values()] == [True, True]
            assert [worker_of(answer) for answer in answers] == list(lines)


def test_no_worker_answers_with_what_was_purged_before_it_was_asked(store, origin, tmp_path):
    """Under load, with a purge from outside every moment: nothing older than the last that had returned."""
    version, purged, seen = [0], [(0, 0.0)], []
    page = origin.page(lambda asked: kept(b"%d" % version[0]))
    command = gunicorn("gthread")
    with running(command, origin, store[0], tmp_path, options(store)) as site, ExitStack() as stack:
        over = threading.Event()

        def ask(connection):
            while not over.is_set():
                began = time.monotonic()
                answer = connection.get(page.path)
                seen.append((began, int(answer.body), worker_of(answer), answer.is_hit))

        lines = [site.lines_to_workers(page.path, stack) for _ in "12"]
        clients = [Later(ask, connection) for pair in lines for connection in pair.values()]
        with client_of(store) as client:
            for number in range(1, 31):
                version[0] = number
                client.purge(page.path)
                purged.append((number, time.monotonic()))
                asked = len(seen)
                until(lambda asked=asked: len(seen) >= asked + 8 or clients[0].ended, what="eight answers")
        over.set()
        for client in clients:
            client.result()
    for began, found, worker, _ in seen:
        wanted = max(number for number, returned in purged if returned < began)
        assert found >= wanted, (found, wanted, worker)
    assert len({worker for *_, worker, _ in seen}) == 2
    assert sum(is_hit for *_, is_hit in seen) > len(seen) / 5
    assert page.calls >= 31


def test_one_view_run_among_workers(store, origin, tmp_path):
    """Cold and expired: those who ask meanwhile wait in both workers, for one call of the app."""
    command = gunicorn("gthread", threads=12)
    with running(command, origin, store[0], tmp_path, options(store)) as site, client_of(store) as client:
        page = origin.page()
        for number in (1, 2):
            gate = Gate()
            page.answers(kept([gate, b"answer %d" % number]))
            asked = [Later(site.get, page.path) for _ in range(10)]
            gate.wait_entered()
            gate.open()
            assert {call.result().body for call in asked} == {b"answer %d" % number}
            assert page.calls == number
            client.purge(page.path, soft=True)


# --- workers that end ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "store"), [("sync", "lmdb"), ("gthread", "redis")], indirect=["store"])
def test_what_is_stored_and_switched_outlives_workers(kind, store, origin, tmp_path):
    """max_requests: new workers begin with the entries, the purges and the switches of those before."""
    command = gunicorn(kind, "--max-requests", "5")
    with running(command, origin, store[0], tmp_path, options(store)) as site, client_of(store) as client:
        page, closed = origin.page(numbered), origin.page(numbered)
        assert site.get(page.path).stored
        assert site.get(closed.path, host="closed.test").detail == "BYPASS_RULE"
        client.rules.disable("closed")
        site.workers(page.path)  # who uses the store hears of it
        assert site.get(closed.path, host="closed.test").stored
        workers = set()

        def enough():
            answers = [site.get(page.path), site.get(closed.path, host="closed.test")]
            assert [answer.is_hit for answer in answers] == [True, True]
            workers.update(map(worker_of, answers))
            return len(workers) >= 4

        until(enough, what="four workers, one after the other")
        assert (page.calls, closed.calls) == (1, 2)
        client.rules.enable("closed")
        site.workers(page.path)
        assert site.get(closed.path, host="closed.test").detail == "BYPASS_RULE"
        assert site.stop() == 0
        assert "Traceback" not in site.log()
        assert site.warnings() == []


@REDIS
def test_the_numbers_of_all_workers_add_up_when_they_have_ended(store, origin, tmp_path):
    with running(gunicorn("gthread"), origin, store[0], tmp_path, options(store)) as site:
        page = origin.page()
        answers = [site.get(page.path) for _ in range(40)]
        assert site.stop() == 0
        with client_of(store) as client:
            told = client.stats()
    assert [answer.is_hit for answer in answers] == [False] + [True] * 39
    assert (told["requests"], told["reasons"]["HIT"]) == (40, 39)


def test_sigterm_in_the_middle_of_a_refresh(store, origin, tmp_path):
    """The visitor has the stale page; the lease is given back or ends; the page is not stale for ever."""
    gate = Gate()
    page = origin.page(
        lambda seen: old(window=3600) if seen.number == 1 else kept([gate, b"new"], kind="stream")
    )
    given = options(store, lease=1.0)
    command = gunicorn("gthread", "--graceful-timeout", "1", workers=1)
    with running(command, origin, store[0], tmp_path, given) as site:
        site.get(page.path)
        with site.connect() as connection:
            connection.ask(page.path)
            head = connection.read_head()
            gate.wait_entered()
            site.process.send_signal(signal.SIGTERM)
            assert (head.detail, b"".join(connection.read_body(head))) == (
                "HIT_STALE_WHILE_REVALIDATE", b"old",
            )  # fmt: skip
        assert site.stop() == 0
        assert "Traceback" not in site.log()
    with running(gunicorn("gthread"), origin, store[0], tmp_path, given) as site:
        page.answers(kept(b"newer"))
        answer = site.get(page.path)
        assert answer.body in (b"old", b"newer")
        assert site.ask_until(page.path, b"newer").is_hit
        assert {answer.body for answer in site.workers(page.path).values()} == {b"newer"}
    gate.open()


def test_a_worker_that_ends_gives_back_the_lease_of_its_refresh(store, origin, tmp_path):
    """Another refreshes the page at once; the lease would have lasted longer than anybody waits."""
    gate = Gate()
    page = origin.page(lambda seen: old() if seen.number == 1 else held(gate))
    command = gunicorn("gthread", "--graceful-timeout", "1")
    with running(command, origin, store[0], tmp_path, options(store, lease=600)) as site:
        site.get(page.path)
        assert site.get(page.path).body == b"old"
        gate.wait_entered()
        page.answers(kept(b"newer"))
        os.kill(page.seen[1].pid, signal.SIGTERM)
        site.ask_until(page.path, b"newer")
        assert page.calls == 3
        gate.open()


@LMDB
def test_a_page_whose_refresh_died_is_not_served_beyond_its_window(store, origin, tmp_path):
    """The worker was killed and gave nothing back: then visitors wait for the lease, once."""
    gate = Gate()
    page = origin.page(
        lambda seen: old(window=4) if seen.number == 1 else kept([gate, b"new"], kind="stream")
    )
    with running(gunicorn("gthread"), origin, store[0], tmp_path, options(store, lease=2)) as site:
        site.get(page.path)
        stale_until = time.time() + 3  # it was stale for a second when it came
        assert site.get(page.path).body == b"old"
        gate.wait_entered()
        page.answers(kept(b"newer"))
        os.kill(page.seen[1].pid, signal.SIGKILL)
        last_old = 0.0

        def new():
            nonlocal last_old
            asked = time.time()
            with contextlib.suppress(ConnectionError):  # it may have been the killed worker's
                body = site.get(page.path).body
                last_old = asked if body == b"old" else last_old
                return body == b"newer"

        until(new, what="the page that another worker made")
        assert last_old <= stale_until + 1
        gate.open()


@REDIS
def test_sigterm_lets_a_stream_end_and_stores_it(store, origin, tmp_path):
    """The response under way is completed, and what it was is there for the workers of the next release."""
    gate = Gate()
    page = origin.page(kept([b"first", gate, b"last"], kind="stream"))
    with running(gunicorn("gthread"), origin, store[0], tmp_path, options(store)) as site:
        with site.connect() as connection:
            connection.ask(page.path, "Connection: close")
            connection.read_head()
            assert connection.read_chunk() == b"first"
            site.process.send_signal(signal.SIGTERM)
            gate.open()
            assert [connection.read_chunk(), connection.read_chunk()] == [b"last", b""]
        assert site.stop() == 0
    with running(gunicorn("gthread"), origin, store[0], tmp_path, options(store)) as site:
        answer = site.get(page.path)
        assert (answer.is_hit, answer.body, page.calls) == (True, b"firstlast", 1)


def test_con_08_a_leader_that_is_killed_costs_one_lease(store, origin, tmp_path):
    """Those in the other worker wait for it, take over when its lease ends, and ask the app once."""
    gate, lease = Gate(), 1.5
    page = origin.page(lambda seen: held(gate) if seen.number == 1 else kept(b"made by another"))
    warm = origin.page()
    with (
        running(gunicorn("gthread"), origin, store[0], tmp_path, options(store, lease=lease)) as site,
        ExitStack() as stack,
    ):
        lines = [site.lines_to_workers(warm.path, stack) for _ in range(3)]
        (one, two), began = list(lines[0]), time.monotonic()
        leader = Later(lines[0][one].get, page.path)
        gate.wait_entered()
        followers = [Later(of_each[two].get, page.path) for of_each in lines]
        assert not threading.Event().wait(0.3)
        assert (page.calls, [call.ended for call in followers]) == (1, [False] * 3)
        os.kill(one, signal.SIGKILL)
        with pytest.raises(OSError):
            leader.result()
        answers = [call.result() for call in followers]
        assert [answer.body for answer in answers] == [b"made by another"] * 3
        assert time.monotonic() - began < lease + 6
        assert page.calls == 2
        gate.open()
        assert {answer.body for answer in site.workers(page.path).values()} == {b"made by another"}


@LMDB
def test_con_08_the_only_sync_worker_is_killed_in_mid_fill(store, origin, tmp_path):
    gate = Gate()
    page = origin.page(lambda seen: held(gate) if seen.number == 1 else kept(b"made by another"))
    with running(gunicorn("sync", workers=1), origin, store[0], tmp_path, options(store, lease=1)) as site:
        leader = Later(site.get, page.path)
        gate.wait_entered()
        os.kill(page.seen[0].pid, signal.SIGKILL)
        with pytest.raises(OSError):
            leader.result()
        answer = site.get(page.path)
        assert (answer.body, answer.stored or "collapsed" in answer.cache, page.calls) == (
            b"made by another", True, 2,
        )  # fmt: skip
        gate.open()
