"""The LMDB store under real servers whose master has used it before it forks, in Python and in C."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from ports import free_port
from waiting import PATIENCE

import wsgicache

HERE = Path(__file__).parent
HOST = "site.example"


def command(server, port):
    program = Path(sys.executable).parent / server
    if not program.exists():
        pytest.skip(f"{server} is not installed: pip install {server}")
    if server == "uwsgi":
        return [
            program, "--master", "--die-on-term", "--processes", "2", "--need-app", "--http-socket",
            f"127.0.0.1:{port}", "--virtualenv", sys.prefix, "--module", "lmdb_site",
        ]  # fmt: skip
    return [
        program, "--preload", "--workers", "2", "--threads", "4", "--bind", f"127.0.0.1:{port}",
        "--graceful-timeout", "1", "lmdb_site",
    ]  # fmt: skip


class Site:
    """A server, and what it answers."""

    def __init__(self, process, port):
        self.process = process
        self._port = port

    def ask(self, path):
        """The body, who answered, and what the cache says."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
        try:
            connection.request("GET", path, headers={"Host": HOST})
            answer = connection.getresponse()
            body = answer.read().decode()
            assert answer.status == 200, body
            return body, int(answer.headers["X-Served-By"]), answer.headers["Cache-Status"]
        finally:
            connection.close()

    def ask_all(self, path, known=()):
        """What each of two workers answers that are not known yet."""
        answers = {}
        deadline = time.monotonic() + PATIENCE
        while len(answers.keys() - known) < 2 - bool(known):
            assert time.monotonic() < deadline, f"only {list(answers)} answer"
            body, worker, status = self.ask(path)
            answers[worker] = body, status
        return answers


@contextmanager
def serving(server, directory, log):
    port = free_port()
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(wsgicache.__file__).parents[1]), str(HERE)]),
        "LMDB_SITE_STORE": f"lmdb://{directory}?max_bytes=10MB",
        "LMDB_SITE_HOST": HOST,
    }
    with log.open("ab") as out:
        process = subprocess.Popen(
            list(map(str, command(server, port))), stdout=out, stderr=out, env=environ, cwd=log.parent
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while True:
            assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            threading.Event().wait(0.05)
        yield Site(process, port)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the servers fork")
@pytest.mark.parametrize("server", ["gunicorn", "uwsgi"])
def test_workers_share_what_their_master_stored_and_purge_for_each_other(tmp_path, server):
    log = tmp_path / "log"
    with serving(server, tmp_path / "cache", log) as site:
        warm = site.ask_all("/warm")
        assert len(warm) == 2
        assert {status.split("; ")[1] for _, status in warm.values()} == {"hit"}
        (made,) = {body for body, _ in warm.values()}
        assert int(made.split()[0]) not in warm  # the master made it

        (page,) = {body for body, _ in site.ask_all("/page").values()}
        site.ask("/purge")
        (fresh,) = {body for body, _ in site.ask_all("/page").values()}
        assert fresh != page

        os.kill(next(iter(warm)), signal.SIGKILL)
        after = site.ask_all("/page", known=warm.keys())  # until the one that took its place has answered
        assert {body for body, _ in after.values()} == {fresh}
    told = log.read_text()
    assert "Traceback" not in told, told[-2000:]


def test_it_is_warm_after_a_deploy(tmp_path):
    """A new master and new workers have what the old ones made."""
    with serving("gunicorn", tmp_path / "cache", tmp_path / "log") as site:
        page, _, _ = site.ask("/page")
    with serving("gunicorn", tmp_path / "cache", tmp_path / "log") as site:
        assert {body for body, _ in site.ask_all("/page").values()} == {page}
