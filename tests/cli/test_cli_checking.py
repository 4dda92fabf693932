"""`check`: each finding is right, and has a remedy."""

import os
import socket
from collections import namedtuple

import cli_site
import pytest
from cli_helpers import complaint, data, run, say

from wsgicache import Rule, WSGICache
from wsgicache.checks import check_clock, check_settings
from wsgicache.options import settings_from
from wsgicache.stores import StoreError, lmdbadvice
from wsgicache.stores.advice import Level, apart
from wsgicache.stores.memcachedadvice import memcached_advice
from wsgicache.stores.redisadvice import redis_advice
from wsgicache.testing import FailingStore, SharedServer, SharedStore

APP = ("--app", "cli_site:app")


def check(*arguments, code=0, **given):
    return {one["subject"]: one for one in data("check", *arguments, code=code, **given)}


def level(found, subject):
    return found[subject]["level"]


def test_all_is_well(site):
    found = check(*APP)
    assert {one["level"] for one in found.values()} == {"ok", "not looked at"}
    assert found["round trip"]["text"] == "an entry was stored, read, and deleted"
    assert "3 rules, 2 of them named" in found["configuration"]["text"]
    assert "0 problems, 0 warnings" in say("check", *APP)
    assert len(data("ls", *APP)["entries"]) == 4, "no page was touched"


def test_it_fits_80_columns(site):
    text = run("check", *APP, env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80


def test_what_options_say():
    rules = [Rule("/a", ttl=1, name="one"), Rule("/a", ttl=2, name="two"), Rule("/b", ttl=1, enabled=False)]
    options = {"enabled": False, "ttl": 0, "secret": "short", "signing_keys": "short"}
    found = {one.subject: one for one in check_settings(settings_from(options), rules)}
    for subject in ("enabled", "ttl", "secret", "signing_keys", "rule two"):
        assert found[subject].level is Level.WARNING, subject
        assert found[subject].remedy
    assert "covered by the earlier rule one" in found["rule two"].text
    assert found["rules"].text.endswith("/b")


def test_a_body_that_no_file_may_hold_is_told_of():
    def said(rules, **options):
        told = check_settings(settings_from(options), rules)
        return [one.remedy for one in told if one.subject == "spool_max_bytes"]

    large = [Rule("/downloads/*", max_body_bytes="500MB")]
    assert said(large) == []
    assert said(large, spool_max_bytes="999MB") == ["spool_max_bytes = 1000000000 at least"]
    assert said(large, spool_max_bytes=0) == [], "all is in memory"
    assert said([], max_body_bytes="2MB", spool_bytes="4MB", spool_max_bytes="1MB") == [], "no file is needed"


def test_strict_makes_a_problem_of_a_warning(site):
    env = {"WSGICACHE_STORE": site.store, "WSGICACHE_ENABLED": "0"}
    assert level(check(env=env), "enabled") == "warning"
    check("--strict", env=env, code=1)


def test_a_clock_that_stands_in_the_past():
    assert check_clock(lambda: 0.0).level is Level.PROBLEM
    assert check_clock().level is Level.OK


def test_the_memory_of_one_process_is_a_warning(make_site):
    make_site("memory://")
    found = check(*APP)
    assert (found["store"]["level"], "purge reaches one worker" in found["store"]["text"]) == (
        "warning",
        True,
    )


# --- files and directories -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "secret", "expected"),
    [(0o640, True, "ok"), (0o644, False, "ok"), (0o644, True, "problem"), (0o664, False, "problem")],
)
def test_who_may_read_an_ini(tmp_path, mode, secret, expected):
    file = tmp_path / "site.ini"
    file.write_text("[filter:cache]\nuse = egg:wsgicache\n" + "secret = 0123456789abcdef\n" * secret)
    file.chmod(mode)
    found = check("--ini", file, code=1 if expected == "problem" else 0)
    assert level(found, "site.ini") == expected
    assert ("chmod" in found["site.ini"]["remedy"]) is (expected == "problem")


def test_a_directory_that_others_may_look_into(site, tmp_path):
    (tmp_path / "store").chmod(0o755)
    found = check(*APP)
    assert (level(found, "permissions"), found["permissions"]["remedy"]) == (
        "warning", f"chmod 700 {tmp_path / 'store'}"
    )  # fmt: skip


def test_a_directory_that_is_not_there_is_left_to_the_site(tmp_path):
    found = check("--store", f"lmdb://{tmp_path}/none")
    assert "made when it is needed" in found["directory"]["text"]
    assert not (tmp_path / "none").exists()


def test_a_directory_that_everybody_may_write_to(site, tmp_path):
    (tmp_path / "store").chmod(0o777)
    assert "chmod o-w" in complaint("check", "--store", site.store)


def test_what_a_directory_may_lack(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(lmdbadvice.shutil, "disk_usage", lambda path: usage(10, 5, 1000))
    monkeypatch.setattr(lmdbadvice, "_file_system", lambda path: "nfs4")
    monkeypatch.setattr(lmdbadvice.os, "access", lambda path, mode: False)
    found = {one.subject: one for one in lmdbadvice.lmdb_advice(tmp_path, 10_000, 5000)}
    for subject in ("disk", "file system", "directory"):
        assert found[subject].level is Level.PROBLEM, subject
        assert found[subject].remedy
    assert found["size"].level is Level.WARNING
    found = {one.subject: one for one in lmdbadvice.lmdb_advice(tmp_path / "no", 10_000, 5000)}
    assert found["directory"].level is Level.PROBLEM


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users have numbers on POSIX systems")
def test_somebody_elses_directory(tmp_path, monkeypatch):
    monkeypatch.setattr(lmdbadvice.os, "geteuid", lambda: 65534)
    found = {one.subject: one for one in lmdbadvice.lmdb_advice(tmp_path, 10**7, 1)}
    assert found["directory"].level is Level.WARNING


def test_the_kind_of_a_file_system_is_told(tmp_path):
    assert lmdbadvice._file_system(tmp_path)


# --- servers ---------------------------------------------------------------------------------------


class Link:
    """A server that says of itself what it is told to."""

    name = "redis://x"

    def __init__(self, clock=None, **info):
        self.info = {"redis_version": "7.2.1", "used_memory": "5", **info}
        self.clock = clock

    def ask(self, use):
        return use(self)

    def _reply(self):
        return "".join([f"{name}:{value}\r\n" for name, value in self.info.items()]).encode()


class Line:
    def __init__(self, link):
        self.link = link

    def ask(self, command):
        import time

        if command == "INFO":
            return self.link._reply()
        now = time.time() + (self.link.clock or 0)
        return [b"%d" % int(now), b"%d" % (now % 1 * 1e6)]


def advice(**info):
    link = Link(**info)
    link.ask = lambda use: use(Line(link))
    return {one.subject: one for one in redis_advice(link)}


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("allkeys-lru", Level.OK),
        ("volatile-lru", Level.OK),
        ("volatile-ttl", Level.OK),
        ("allkeys-random", Level.WARNING),
        ("noeviction", Level.WARNING),
        ("of-tomorrow", Level.WARNING),
    ],
)
def test_what_an_eviction_policy_means(policy, expected):
    found = advice(maxmemory="10", maxmemory_policy=policy)["eviction policy"]
    assert (found.level, bool(found.remedy)) == (expected, expected is Level.WARNING)
    assert policy in found.text


def test_what_a_redis_server_may_lack():
    found = advice(maxmemory="0", redis_version="5.0.1", clock=60)
    assert "no limit" in found["server memory"].text
    assert found["server"].level is Level.WARNING
    assert "ahead of" in found["clock of the server"].text
    assert "eviction policy" not in found
    found = advice(maxmemory="10", valkey_version="8.0.1", clock=-60)
    assert found["server"].text == "Valkey 8.0.1"
    assert "behind" in found["clock of the server"].text
    assert found["server memory"].level is Level.OK


class Memcached:
    def __init__(self, settings, stats):
        self.name = "memcached://m:11211"
        self.answers = {("settings",): settings, (): stats}

    def call(self, command, *args):
        if self.answers[args] is None:
            raise StoreError("down")
        return self.answers[args]


def memcached(settings, stats, largest=1000):
    servers = namedtuple("Servers", "all")({"m": Memcached(settings, stats)})
    return {one.subject: one for one in memcached_advice(servers, largest)}


def test_what_a_memcached_server_may_lack():
    found = memcached({b"item_size_max": 1 << 20}, {b"version": b"1.6", b"evictions": 3}, largest=2 << 20)
    assert (
        found["item size of m:11211"].remedy == "start memcached with -I 3m, or set max_body_bytes = 1044480"
    )
    assert found["evictions of m:11211"].level is Level.WARNING
    assert found["server m:11211"].text == "memcached 1.6"
    found = memcached({}, {b"limit_maxbytes": 64 << 20})
    assert found["item size of m:11211"].level is Level.OK
    assert memcached(None, {})["server m:11211"].level is Level.PROBLEM


# --- any store -------------------------------------------------------------------------------------


def shared(**failing):
    store = SharedStore(SharedServer())
    for name, method in failing.items():
        setattr(store, name, method)
    cli_site.app = WSGICache(cli_site.bare, store)
    return store


def refuse(*args):
    raise StoreError("no room")


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        ({"set": lambda *args: False}, "an entry was refused"),
        ({"set": lambda *args: True}, "what was stored did not come back"),
        ({"set": refuse}, "no room"),
        ({"set_meta": lambda *args: None}, "a text did not come back"),
        ({"get": refuse}, "no room"),
    ],
)
def test_a_store_that_does_not_do_as_it_is_told(failing, told):
    shared(**failing)
    found = check(*APP, code=1)
    assert (level(found, "round trip"), found["round trip"]["text"].partition(":")[0]) == ("problem", told)
    assert found["round trip"]["remedy"]


def test_a_store_that_does_not_say_how_it_is_set_up():
    shared(advice=refuse)
    assert level(check(*APP), "store settings") == "warning"


def test_a_slow_store_is_a_warning(monkeypatch):
    import wsgicache.checks

    ticks = iter(range(1000))
    monkeypatch.setattr(wsgicache.checks.time, "perf_counter", lambda: next(ticks) * 0.04)
    shared()
    found = check(*APP)
    assert (level(found, "store"), "answers in 40 ms" in found["store"]["text"]) == ("warning", True)


def test_a_failing_store_that_is_nobody_elses_is_private():
    cli_site.app = WSGICache(cli_site.bare, FailingStore())
    assert level(check(*APP), "store") == "warning"


# --- the running site ------------------------------------------------------------------------------


def with_raw(app):
    """As gunicorn hands over the raw target, which wsgiref does not."""

    def outer(environ, start_response):
        from urllib.parse import quote

        environ["RAW_URI"] = quote(environ["PATH_INFO"].encode("latin-1")).replace("/x", "%2Fx")
        return app(environ, start_response)

    return outer


def decoding_again(app):
    def outer(environ, start_response):
        from urllib.parse import unquote_to_bytes

        path = environ["PATH_INFO"].encode("latin-1")
        environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1")
        return app(environ, start_response)

    return outer


SECRET = {"WSGICACHE_STORE": "memory://", "WSGICACHE_SECRET": "0123456789abcdef"}


@pytest.mark.parametrize(
    ("around", "expected", "told"),
    [
        (lambda app: app, "ok", "without the raw target"),
        (with_raw, "ok", "with the raw target beside it"),
        (decoding_again, "problem", "decoded twice"),
    ],
)
def test_how_a_server_reads_paths(listening, around, expected, told):
    cache = WSGICache(cli_site.bare, secret="0123456789abcdef")
    url = listening(around(cache))
    found = check("--url", url, env=SECRET, code=1 if expected == "problem" else 0)
    assert level(found, "running site") == "ok"
    assert (level(found, "path decoding"), told in found["path decoding"]["text"]) == (expected, True)
    assert [entry.key.partition("\0")[0] for entry in cache.store.scan()] == ["/"], "nothing else is stored"


def test_what_is_not_told_without_the_secret(listening):
    url = listening(WSGICache(cli_site.bare, secret="another secret of the site"))
    assert (
        "knows its secret"
        in check("--url", url, env={"WSGICACHE_STORE": "memory://"})["path decoding"]["text"]
    )
    assert "is the secret here" in check("--url", url, env=SECRET)["path decoding"]["remedy"]


def test_the_secret_may_be_in_the_environment_alone(listening, tmp_path):
    ini = tmp_path / "site.ini"
    ini.write_text("[filter:cache]\nuse = egg:wsgicache\n")
    url = listening(WSGICache(cli_site.bare, secret=SECRET["WSGICACHE_SECRET"]))
    found = check("--url", url, "--ini", ini, env=SECRET)
    assert "knows its secret" not in found["path decoding"]["text"]
    assert level(found, "path decoding") == "ok"


def test_a_site_without_the_cache_or_with_another_clock(listening):
    found = check("--url", listening(cli_site.bare), env=SECRET, code=1)
    assert "no Cache-Status of wsgicache" in found["running site"]["text"]

    def late(environ, start_response):
        headers = [("Cache-Status", "wsgicache; hit"), ("Date", "Mon, 01 Jan 2024 00:00:00 GMT")]
        start_response("200 OK", headers)
        return [b""]

    found = check("--url", listening(late), env=SECRET)
    assert (level(found, "clock of the site"), level(found, "path decoding")) == ("warning", "not looked at")


def test_a_site_that_does_not_answer():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        found = check("--url", f"http://127.0.0.1:{bound.getsockname()[1]}", env=SECRET, code=1)
    assert "does not answer" in found["running site"]["text"]
    for wrong in ("/", "x"):
        assert "--url" in complaint("check", "--url", wrong, env=SECRET)


@pytest.mark.parametrize(("told", "ahead"), [(99, -1), (100, 0), (101, 0), (102, 0), (105, 3)])
def test_how_far_another_clock_is_surely_off(told, ahead):
    assert apart(told, 100, 102) == ahead
