"""The command in a process of its own, against a site in another, over real stores."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from cli_helpers import HERE, ROOT, process

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

import servers_redis
from ports import free_port
from servers_memcached import memcached
from waiting import PATIENCE

SECRET = "a secret that nobody guesses"
RULES = {
    "WSGICACHE_RULE_ADMIN": "/admin/* bypass",
    "WSGICACHE_SECRET": SECRET,
    "WSGICACHE_STORE_TIMEOUT": "20",
}


class Running:
    """A site that `wsgicache serve` serves."""

    def __init__(self, popen):
        self.popen = popen
        self.head = json.loads(popen.stdout.readline())
        self.port = int(self.head["listening"].rpartition(":")[2])
        self.origin = f"http://127.0.0.1:{self.port}"

    def ask(self, path):
        """Ask for a page; what the cache said of it."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.getheader("Cache-Status", "")
        finally:
            connection.close()

    def told(self):
        return json.loads(self.popen.stdout.readline())


@contextmanager
def serving(target, *arguments, **env):
    environ = {"PATH": "/usr/bin:/bin", "PYTHONPATH": f"{ROOT}:{HERE}", **env}
    # Not in development mode: a thread that warns while the process ends can hold it up for ever.
    command = [sys.executable, "-m", "wsgicache", "serve", target, "--port", "0", "--json"]
    popen = subprocess.Popen(
        [*command, *arguments], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with popen:
        try:
            yield Running(popen)
        finally:
            popen.send_signal(signal.SIGTERM)
            try:
                _, complaints = popen.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                popen.kill()
                raise
            assert popen.returncode == 0, complaints


@pytest.fixture(params=["lmdb", "redis"])
def store(request, tmp_path):
    if request.param == "lmdb":
        return f"lmdb://{tmp_path}/store"
    return f"{servers_redis.empty().url}?timeout=20s"


@pytest.fixture
def running(store):
    with serving("cli_site:bare", "--server", "wsgiref", WSGICACHE_STORE=store, **RULES) as site:
        for path in ("/posts/1", "/posts/2", "/admin/x", "/posts/1"):
            site.ask(path)
        yield site


def ok(*arguments, code=0, **given):
    done = process(*arguments, **given)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def data(*arguments, **given):
    return json.loads(ok(*arguments, "--json", **given).stdout)


def test_a_site_in_another_process_is_reached(running, store):
    env = {"WSGICACHE_STORE": store, **RULES}
    assert [running.told()["path"] for _ in range(4)] == ["/posts/1", "/posts/2", "/admin/x", "/posts/1"]
    urls = [one["url"] for one in data("ls", "--store", store)["entries"]]
    assert urls == [f"{running.origin}/posts/1", f"{running.origin}/posts/2"]
    assert data("explain", f"{running.origin}/posts/1", env=env)["hit"]
    assert data("explain", f"{running.origin}/admin/x", env=env)["rule"] == "admin"
    assert data("show", "/posts/1", "--store", store)[0]["size"] == 4

    assert data("purge", "--prefix", "/posts", "--store", store)["matched"] == 2
    assert "detail=MISS_PURGED" in running.ask("/posts/1")
    ok("purge", "/nothing", "--store", store, code=1)

    assert "switched off" in ok("rules", "disable", "admin", "--store", store).stdout
    running.ask("/posts/1?follow")
    running.ask("/other")
    assert "BYPASS_RULE" not in running.ask("/admin/x")

    findings = {one["subject"]: one for one in data("check", "--url", running.origin, env=env)}
    for subject in ("store", "round trip", "running site", "clock of the site", "path decoding"):
        assert findings[subject]["level"] == "ok", findings[subject]


def test_numbers_arrive_when_a_worker_ends(store):
    with serving("cli_site:bare", "--quiet", WSGICACHE_STORE=store, **RULES) as site:
        for path in ("/a", "/a", "/admin/"):
            site.ask(path)
    told = data("stats", "--store", store)
    assert (told["requests"], told["hits"], told["misses"]) == (3, 1, 1)
    assert told["reasons"]["BYPASS_RULE"] == 1


def test_looking_changes_nothing(running, store, tmp_path):
    env = {"WSGICACHE_STORE": store, "WSGICACHE_SIGNING_KEYS": "another key than the site's", **RULES}
    before = contents(store, tmp_path)
    assert before
    for command in (
        ("explain", f"{running.origin}/posts/1"),
        ("explain", f"{running.origin}/nothing"),
        ("ls",),
        ("stats",),
        ("rules",),
        ("purge", "/posts/1", "--dry-run"),
    ):
        done = process(*command, env=env)
        assert done.returncode in (0, 1), done.stderr
        assert contents(store, tmp_path) == before, command
    ok("show", "/posts/1", "--store", store)
    assert contents(store, tmp_path) == before


def contents(store, tmp_path):
    """Everything that is stored, as bytes."""
    if store.startswith("lmdb"):
        import lmdb

        (path,) = (tmp_path / "store").glob("*.mdb")
        with lmdb.open(str(path), subdir=False, readonly=True, lock=False, max_dbs=9) as env:
            with env.begin() as transaction:
                names = [name for name, _ in transaction.cursor()]
            return {name: _rows(env, name) for name in names}
    server = servers_redis.shared("redis-server")
    names = sorted(server.ask("KEYS", "*"))
    return {name: server.ask_raw("DUMP", name) for name in names}


def _rows(env, name):
    db = env.open_db(name, create=False)
    with env.begin(db=db) as transaction:
        return list(transaction.cursor())


def test_an_origin_on_the_network_is_served(store):
    with serving("cli_site:bare", WSGICACHE_STORE=store) as origin:
        with serving(origin.origin, "-o", f"store={store}", "-o", "namespace=proxy", "-o", "ttl=7") as proxy:
            assert proxy.head["profile"] == "safe"
            stored = re.compile("stored; ttl=[67]$")  # a second may end while the origin answers
            assert stored.search(proxy.ask("/x"))
            assert "hit" in proxy.ask("/x")
            assert stored.search(proxy.told()["cache_status"])
        assert data("ls", "--store", store, "--namespace", "proxy")["entries"][0]["lifetime"] == 7


def test_memcached_lists_nothing_and_is_purged_all_the_same():
    with memcached() as server:
        store = f"memcached://{server.address}?timeout=20s"
        with serving("cli_site:bare", WSGICACHE_STORE=store) as site:
            site.ask("/a")
            url = f"{site.origin}/a"
            assert "cannot list" in ok("ls", "--store", store, code=2).stderr
            assert "give the absolute URL" in ok("show", "/a", "--store", store, code=2).stderr
            assert data("show", url, "--store", store)[0]["state"] == "fresh"
            ok("show", f"{site.origin}/b", "--store", store, code=1)
            assert "so there is no dry run" in ok("purge", "/a", "--dry-run", "--store", store, code=2).stderr
            told = ok("purge", "/a", "--store", store).stdout
            assert told == "/a: purged; this store cannot tell what it matched\n"
            assert data("purge", "--all", "--store", store)["matched"] is None
            assert "uri-miss" in site.ask("/a")
            findings = {one["subject"]: one for one in data("check", env={"WSGICACHE_STORE": store})}
            assert findings[f"item size of {server.address}"]["level"] == "warning"
            assert "-I 2m" in findings[f"item size of {server.address}"]["remedy"]


def test_what_is_read_with_another_key_stays_in_memcached():
    with memcached() as server:
        store = f"memcached://{server.address}?timeout=20s"
        with serving(
            "cli_site:bare", WSGICACHE_STORE=store, WSGICACHE_SIGNING_KEYS="the key of the site"
        ) as site:
            site.ask("/a")
            other = {"WSGICACHE_STORE": store, "WSGICACHE_SIGNING_KEYS": "another key than that"}
            ok("show", f"{site.origin}/a", env=other, code=1)
            assert not data("explain", f"{site.origin}/a", env=other)["hit"]
            assert "hit" in site.ask("/a")


def test_a_store_that_is_down_is_one_line_and_exit_code_3():
    port = free_port()
    done = ok("purge", "/a", "--store", f"redis://127.0.0.1:{port}", code=3)
    assert len(done.stderr.splitlines()) == 1
    assert "Connection refused" in done.stderr
    done = ok("check", "--store", f"redis://127.0.0.1:{port}", code=3)
    assert done.stderr == ""
    assert "start it, or mend the URL" in done.stdout


def test_without_the_extra_the_command_says_which(tmp_path):
    for name in ("click", "rich"):
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('no', name={name!r})\n")
        done = subprocess.run(
            [sys.executable, "-m", "wsgicache", "ls"],
            env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "PATH": "/usr/bin:/bin"},
            capture_output=True,
            text=True,
        )
        (tmp_path / f"{name}.py").unlink()
        assert done.returncode == 2
        assert done.stderr == (
            f"wsgicache: the command needs the package {name!r}: pip install 'wsgicache[cli]'\n"
        )


def test_a_reader_that_has_seen_enough_is_no_error(store):
    with serving("cli_site:bare", "--quiet", WSGICACHE_STORE=store) as site:
        for number in range(60):
            site.ask(f"/{'long' * 100}/{number}")
    command = f"{sys.executable} -m wsgicache ls --store '{store}' | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("URL")


def test_no_colour_when_piped_and_colour_on_a_terminal(running, store):
    import os
    import pty

    assert "\x1b" not in ok("ls", "--store", store).stdout
    for extra, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        leader, follower = pty.openpty()
        env = {
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
            "TERM": "xterm-256color",
            "COLUMNS": "80",
            **extra,
        }
        command = [sys.executable, "-m", "wsgicache", "ls", "--store", store]
        popen = subprocess.Popen(command, env=env, stdout=follower, stderr=follower)
        os.close(follower)
        printed = b""
        while chunk := _read(leader):
            printed += chunk
        os.close(leader)
        assert popen.wait(PATIENCE) == 0
        assert (b"\x1b[32m" in printed) is coloured, printed
        assert b"fresh" in printed


def _read(leader):
    import os

    try:
        return os.read(leader, 65536)
    except OSError:  # the other end is closed
        return b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("options", ["", " --json"])
def test_output_that_cannot_be_written_is_one_line(tmp_path, options):
    done = _in_shell(f"ls --store lmdb://{tmp_path}{options} > /dev/full")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no space is left there" in done.stderr


def test_a_closed_output_is_no_error(tmp_path):
    done = _in_shell(f"ls --store lmdb://{tmp_path} >&-")
    assert (done.returncode, done.stderr) == (0, "")


def _in_shell(words):
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = f"{sys.executable} -m wsgicache {words}"
    return subprocess.run(["bash", "-c", command], env=environ, capture_output=True, text=True, timeout=60)
