"""uWSGI's processes over a store that they share: forked with the app or not, with threads or not."""

import os
import signal

import pytest
from deploy_helpers import Later, kept, numbered, old, running, until, uwsgi, worker_of
from test_gunicorn import LMDB, REDIS, ask_for_many, client_of, held, options

from wsgicache.testing import Gate

SETTINGS = {
    "forked": (),
    "forked, threads": ("--enable-threads", "--threads", "4"),
    "lazy": ("--lazy-apps",),
    "lazy, threads": ("--lazy-apps", "--enable-threads", "--threads", "4"),
}


@pytest.mark.parametrize(
    ("store", "setting"),
    [("lmdb", "forked"), *[("redis", setting) for setting in SETTINGS]],
    indirect=["store"],
)
def test_processes_share_pages_purges_and_refreshes(setting, store, origin, tmp_path):
    """CON-15: without lazy-apps the master has loaded the app and used the store before it forks."""
    arguments = SETTINGS[setting]
    command = uwsgi(*arguments)
    with running(command, origin, store[0], tmp_path, options(store), DEPLOY_OPENED="1") as site:
        page = origin.page(numbered)
        assert site.get(page.path).stored
        answers = site.workers(page.path)
        assert [(answer.is_hit, answer.body) for answer in answers.values()] == [(True, b"answer 1")] * 2
        assert {answer.field("x-threads") for answer in answers.values()} == {str("--threads" in arguments)}
        with client_of(store) as client:
            assert client.purge(page.path).matched == 1
            client.rules.disable("closed")
        assert {answer.body for answer in site.workers(page.path).values()} == {b"answer 2"}
        assert page.calls == 2
        assert site.get(page.path, host="closed.test").stored

        stale = origin.page(lambda seen: old() if seen.number == 1 else kept(b"new"))
        site.get(stale.path)
        assert site.get(stale.path).detail == "HIT_STALE_WHILE_REVALIDATE"
        site.ask_until(stale.path, b"new")
        assert stale.calls == 2

        assert ask_for_many(site, origin) == []
        assert site.warnings() == []
        assert "Traceback" not in site.log()


@REDIS
def test_a_process_that_is_killed_in_mid_fill_costs_one_lease(store, origin, tmp_path):
    """CON-08. The master forks another from what it loaded, and that one uses nothing of the dead one's."""
    gate = Gate()
    page = origin.page(lambda seen: held(gate) if seen.number == 1 else kept(b"made by another"))
    given = options(store, lease=1)
    with running(uwsgi(), origin, store[0], tmp_path, given, DEPLOY_OPENED="1") as site:
        leader = Later(site.get, page.path)
        gate.wait_entered()
        os.kill(page.seen[0].pid, signal.SIGKILL)
        with pytest.raises(OSError):
            leader.result()
        assert site.get(page.path).body == b"made by another"
        gate.open()
        answers = until(lambda: site.workers(page.path), what="both processes")
        assert {answer.body for answer in answers.values()} == {b"made by another"}
        assert page.seen[0].pid not in map(worker_of, answers.values())
        assert page.calls == 2


@LMDB
def test_processes_that_are_reloaded_find_what_was_stored(store, origin, tmp_path):
    """SIGHUP ends them after their requests and starts new ones, which begin warm."""
    with running(uwsgi("--lazy-apps"), origin, store[0], tmp_path, options(store)) as site:
        page = origin.page(numbered)
        assert site.get(page.path).stored
        before = set(site.workers(page.path))
        site.process.send_signal(signal.SIGHUP)
        until(lambda: not before & set(site.workers(page.path)), what="new processes")
        answers = site.workers(page.path)
        assert {answer.body for answer in answers.values()} == {b"answer 1"}
        assert page.calls == 1
