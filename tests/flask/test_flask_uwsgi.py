"""UWSGICache in a real uWSGI with two workers."""

import http.client
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask_helpers import answers
from ports import free_port
from waiting import PATIENCE

import wsgicache
from wsgicache.flask.contrib.uwsgicache import UWSGICache

PROGRAM = Path(sys.executable).parent / "uwsgi"
ROOT = Path(wsgicache.__file__).parents[1]


@pytest.fixture(scope="module")
def uwsgi(tmp_path_factory):
    """Ask a uWSGI; its answers are texts."""
    if not PROGRAM.exists():
        pytest.skip("uWSGI is not installed: pip install uwsgi")
    port, log = free_port(), tmp_path_factory.mktemp("uwsgi") / "log"
    command = [
        PROGRAM, "--master", "--die-on-term", "--processes", "2", "--threads", "4", "--lazy-apps",
        "--need-app", "--cache2", "name=mine,items=200", "--http-socket", f"127.0.0.1:{port}",
        "--virtualenv", sys.prefix, "--pythonpath", ROOT, "--callable", "app",
        "--wsgi-file", Path(__file__).parent / "flask_uwsgi_app.py",
    ]  # fmt: skip
    with log.open("wb") as out:
        server = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out)

    def ask(path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            assert answer.status == 200, text
            return text
        finally:
            connection.close()

    try:
        for _ in range(600):
            if server.poll() is not None or ("spawned uWSGI worker 2" in log.read_text() and answers(port)):
                break
            time.sleep(0.05)  # a server that starts has no event to wait for
        assert server.poll() is None, log.read_text()[-2000:]
        yield ask
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture
def line():
    """What the workers call when they are at work."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(PATIENCE)
        yield listening


def test_it_does_what_a_backend_does(uwsgi):
    assert json.loads(uwsgi("/values")) == {
        "kept": "{'a': (1,)}",
        "add of what lives": False,
        "expired at once": [None, False],
        "add of what is gone": [True, 6, -4],
        "counting a text": "TypeError",
        "long key": 1,
        "too large": [None, None],
        "prefix": None,
        "many": [["m", "n"], [1, 2, None]],
        "deleted": [True, False, None],
        "clear": [True, None],
    }


def test_a_timeout_is_kept_to_the_second_and_by_counters(uwsgi):
    assert json.loads(uwsgi("/time/turn")) == {
        "short": None, "counter": None, "counted": 4, "touched": 1, "touch": True, "ever": 1, "gone": False,
        "added": True, "left": [4, None, True],
    }  # fmt: skip


def test_two_workers_compute_once(uwsgi, line):
    port = line.getsockname()[1]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(uwsgi, f"/slow?port={port}") for _ in range(6)]
        leader, _ = line.accept()
        leader.sendall(b"made once")  # nobody answers a second one that is at work on it: its request fails
        leader.close()
        assert {future.result(60) for future in futures} == {"made once"}
    assert uwsgi(f"/slow?port={port}") == "made once"
    uwsgi("/purge")


def test_what_is_purged_while_it_is_computed_is_not_kept(uwsgi, line):
    port = line.getsockname()[1]
    with ThreadPoolExecutor(2) as pool:
        for answer in (b"old", b"new"):
            future = pool.submit(uwsgi, f"/slow?port={port}")
            leader, _ = line.accept()
            if answer == b"old":
                uwsgi("/purge")
            leader.sendall(answer)
            leader.close()
            assert future.result(60) == answer.decode()
    assert uwsgi(f"/slow?port={port}") == "new"
    uwsgi("/purge")


def test_workers_lose_no_increment_and_share_no_success(uwsgi):
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(uwsgi, "/count/visits/100") for _ in range(4)]:
            future.result(60)
        assert uwsgi("/count/visits/0") == "800"
        added = [pool.submit(uwsgi, "/add/60") for _ in range(4)]
        assert sum(int(future.result(60)) for future in added) == 60


@pytest.mark.parametrize(
    ("met", "held"),
    [
        ("nothing", [True, False]),
        ("released", [True, False]),  # between a try to take it and the look at who has it
        ("dead", [True, False]),
        ("overdue", [True, False]),
        ("lost", [True, True]),  # another's lock by then is left alone
    ],
)
def test_who_is_inside_holds_the_lock(uwsgi, met, held):
    assert json.loads(uwsgi(f"/lock/{met}")) == held


def test_a_full_cache_keeps_nobody_waiting(uwsgi):
    told = json.loads(uwsgi("/full"))
    assert told == {"answers": ["value"] * 2, "runs": 2, "added": False, "counted": None, "down": False}


def test_outside_uwsgi_it_says_so():
    with pytest.raises(RuntimeError, match="uWSGI"):
        UWSGICache()
