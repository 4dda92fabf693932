"""The memory of one process, reached through the site's own endpoint."""

import json
import re
import socket

import cli_site
import pytest
from cli_helpers import complaint, data, run, say
from click.testing import CliRunner

from wsgicache import Rule, WSGICache
from wsgicache.cli.commands import cli
from wsgicache.cli.overhttp import HttpControl
from wsgicache.testing import FailingStore, ask

SECRET = "a secret that nobody guesses"
ENV = {"WSGICACHE_SECRET": SECRET}


@pytest.fixture
def cache():
    rules = [Rule("/admin/*", bypass=True, name="admin"), Rule("/x", ttl=5)]
    store = FailingStore()
    return WSGICache(cli_site.bare, store, secret=SECRET, admin_path="/.cache", rules=rules)


@pytest.fixture
def endpoint(cache, listening):
    origin = listening(cache)
    for path in ("/a", "/a", "/b", "/admin/"):
        ask(cache, f"{origin}{path}")
    return f"{origin}/.cache"


def test_its_numbers(endpoint):
    told = data("stats", "--endpoint", endpoint, env=ENV)
    assert (told["hits"], told["misses"]) == (1, 2)
    assert "hit ratio 33.3 %" in say("stats", "--endpoint", f"{endpoint}/", env=ENV)


def test_its_decisions(endpoint):
    origin = endpoint.removesuffix("/.cache")
    told = data("explain", f"{origin}/a", "--endpoint", endpoint, env=ENV)
    assert (told["hit"], told["reason"], told["sees_store"]) == (True, "HIT", True)
    assert "/b: hit" in say("explain", "/b", "--endpoint", endpoint, env=ENV)
    assert "for a hit Nothing has to change" in say("explain", "/c?", "--endpoint", endpoint, env=ENV)
    told = data("explain", "/a", "-X", "post", "--endpoint", endpoint, env=ENV)
    assert (told["method"], told["reason"]) == ("POST", "METHOD_UNSAFE")
    told = data("explain", "/a", "-H", "Cookie: a=b", "--endpoint", endpoint, env=ENV)
    assert told["reason"] == "BYPASS_COOKIE"
    told = data("explain", "/a", "-H", "Host: other.example", "--endpoint", endpoint, env=ENV)
    assert (told["reason"], told["key"]["host"]) == ("URI_MISS", "other.example")
    assert "give a path" in complaint("explain", "a", "--endpoint", endpoint, env=ENV)


def test_its_purges(endpoint, cache):
    origin = endpoint.removesuffix("/.cache")
    assert say("purge", "/a", "--endpoint", endpoint, env=ENV) == f"/a: 1 entry purged {origin}/a "
    assert ask(cache, f"{endpoint.removesuffix('/.cache')}/a").detail == "MISS_PURGED"
    run("purge", "/nothing", "--endpoint", endpoint, env=ENV, code=1)
    assert data("purge", "--prefix", "/", "--soft", "--endpoint", endpoint, env=ENV)["matched"] == 2
    told = data("purge", "--group", "none", "--all", "--endpoint", endpoint, env=ENV)
    assert (told["matched"], told["roughly"], told["urls"]) == (2, True, [])
    assert "a prefix has no query" in complaint("purge", "--prefix", "/a?b", "--endpoint", endpoint, env=ENV)


def test_its_rules(endpoint, cache):
    assert [one["name"] for one in data("rules", "--endpoint", endpoint, env=ENV)] == ["admin", "/x"]
    assert "switched off" in say("rules", "disable", "admin", "--endpoint", endpoint, env=ENV)
    assert not cache.rules["admin"].enabled
    assert "known: admin" in complaint("rules", "enable", "amdin", "--endpoint", endpoint, env=ENV)


@pytest.fixture
def both(site, listening):
    """A site that is reached in two ways: through its store, and through its endpoint."""
    reached = WSGICache(
        cli_site.bare, site.store, secret=SECRET, admin_path="/.cache", rules=site.rules, store_timeout=20
    )
    yield ("--store", site.store), ("--endpoint", f"{listening(reached)}/.cache")
    reached.close()


@pytest.mark.parametrize(
    "command",
    [
        ("ls",),
        ("ls", "--prefix", "/posts"),
        ("ls", "--prefix", "http://example.com/about"),
        ("ls", "--group", "posts", "--group", "none"),
        ("ls", "--group", "none"),
        ("show", "/posts/1"),
        ("show", "http://example.com/search"),
        ("show", "http://example.com/search?q=tide"),
        ("show", "/nothing"),
        ("purge", "/posts/1", "/nothing", "--dry-run"),
        ("purge", "--prefix", "/posts", "--dry-run"),
        ("purge", "--group", "posts", "--soft", "--dry-run"),
        ("purge", "--all", "--dry-run"),
        ("purge", "--group", "none", "--dry-run"),
        ("rules",),
        ("ls", "--prefix", "posts"),
        ("ls", "--prefix", "/posts?a=b"),
        ("show", "posts"),
        ("purge", "posts", "--dry-run"),
        ("purge", "--prefix", "/posts?a=b"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_it_says_the_same_as_over_the_store(both, command, options):
    through_store, over_http = [
        CliRunner(env=ENV).invoke(cli, [*command, *options, *where]) for where in both
    ]
    assert through_store.exit_code == over_http.exit_code
    assert _timeless(over_http.stdout) == _timeless(through_store.stdout)
    assert over_http.stderr == through_store.stderr


def _timeless(text):
    text = re.sub(r'"(age|ttl|kept)": [\d.-]+', "TIME", text)
    return re.sub(r"\d+ (s age|s left|min\b|s\b)", "TIME", text)


def test_a_dry_run_purges_nothing(endpoint, cache):
    told = data("purge", "--all", "/a", "--dry-run", "--endpoint", endpoint, env=ENV)
    assert (told["matched"], told["dry_run"], len(told["urls"])) == (2, True, 2)
    assert cache.explain(f"{endpoint.removesuffix('/.cache')}/a").hit


def test_long_lists_come_in_parts(endpoint, cache, monkeypatch):
    monkeypatch.setattr("wsgicache.admin.endpoint.LISTED", 3)
    origin = endpoint.removesuffix("/.cache")
    for number in range(8):
        ask(cache, f"{origin}/many/{number}")
    told = data("ls", "--prefix", "/many", "--endpoint", endpoint, env=ENV)
    assert [one["url"] for one in told["entries"]] == [f"{origin}/many/{number}" for number in range(8)]
    assert not told["more"]
    told = data("ls", "--prefix", "/many", "--limit", "4", "--endpoint", endpoint, env=ENV)
    assert (len(told["entries"]), told["more"]) == (4, True)
    result = run("purge", "--prefix", "/many", "--json", "--endpoint", endpoint, env=ENV)
    told = json.loads(result.stdout)
    assert (told["matched"], len(told["urls"])) == (8, 3)
    assert "the endpoint lists 3 URLs; there are 5 more" in result.stderr


def test_what_is_not_looked_at_is_told(endpoint, monkeypatch):
    monkeypatch.setattr("wsgicache.inventory.LOOKED_AT", 1)
    told = run("ls", "--json", "--endpoint", endpoint, env=ENV)
    assert json.loads(told.stdout)["more"] is True
    assert "more than its endpoint looks at: narrow it with --prefix" in told.stderr


def test_a_store_that_cannot_list_says_so(listening):
    cache = WSGICache(cli_site.bare, Unlisted(), secret=SECRET, admin_path="/.cache")
    where = ("--endpoint", f"{listening(cache)}/.cache")
    for command in (("ls",), ("show", "/a"), ("purge", "/a", "--dry-run")):
        assert "cannot list what it holds" in complaint(*command, *where, env=ENV)
    assert "cannot tell what it matched" in say("purge", "/a", *where, env=ENV)


class Unlisted(FailingStore):
    """A store such as memcached."""

    def scan(self, prefix=""):
        raise NotImplementedError("this store cannot list what it holds")


COMMANDS = [
    ("stats",), ("ls",), ("show", "/a"), ("explain", "/a"), ("rules",), ("purge", "/b"),
    ("purge", "/a", "--dry-run"), ("rules", "disable", "admin"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_one_of_several_workers_says_that_it_is(cache, command, listening):
    def worker(environ, start_response):
        return cache({**environ, "wsgi.multiprocess": True}, start_response)

    origin = listening(worker)
    for path in ("/a", "/b"):
        ask(cache, f"{origin}{path}")
    told = run(*command, "--endpoint", f"{origin}/.cache", env=ENV)
    assert "one of several workers answered" in told.stderr
    assert ("in the worker that answered" in told.stdout) is ("disable" in command)


def test_check_warns_of_several_workers_with_a_memory_each(cache, listening):
    origin = listening(lambda environ, start: cache({**environ, "wsgi.multiprocess": True}, start))
    found = {one["subject"]: one for one in data("check", "--endpoint", f"{origin}/.cache", env=ENV)}
    assert found["store"]["level"] == "warning"
    assert "a purge reaches one worker" in found["store"]["text"]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_only_worker_says_nothing_of_others(endpoint, command):
    assert not run(*command, "--endpoint", endpoint, env=ENV).stderr


def test_check_looks_at_it(endpoint):
    found = {one["subject"]: one for one in data("check", "--endpoint", endpoint, env=ENV)}
    assert "the secret is the site's" in found["endpoint"]["text"]


def test_the_secret_comes_from_the_configuration(endpoint, cache):
    cli_site.app = cache
    assert data("stats", "--app", "cli_site:app", "--endpoint", endpoint)["requests"] == 4
    cli_site.app = None


def test_a_store_that_does_not_acknowledge_has_exit_code_3(endpoint, cache):
    cache.store.failing.add("append")
    line = complaint("purge", "/a", "--endpoint", endpoint, env=ENV, code=3)
    assert "did not acknowledge it" in line


@pytest.mark.parametrize(
    ("where", "env", "told"),
    [
        ("{0}", {}, "needs the site's secret: set WSGICACHE_SECRET"),
        ("{0}", {"WSGICACHE_SECRET": "another secret than that"}, "another secret than the one here"),
        ("{0}", {"WSGICACHE_SECRET": "a secret with \N{SNOWMAN}"}, "characters that a field cannot carry"),
        ("{0}/deeper", ENV, "is it the site's admin_path?"),
        ("{0}?x", ENV, "give the site's admin_path"),
        ("ftp://x/", ENV, "give the site's admin_path"),
        ("/.cache", ENV, "give the site's admin_path"),
        ("http://[/", ENV, "Invalid IPv6 URL"),
        ("http://localhost:x/.cache", ENV, "Port could not be cast"),
        ("http://me:word@localhost/.cache", ENV, "the secret is no part of the address"),
    ],
)
def test_an_endpoint_that_cannot_be_used(endpoint, where, env, told):
    line = complaint("stats", "--endpoint", where.format(endpoint), env=env)
    assert told in line
    assert SECRET not in line


def test_a_site_without_an_endpoint(listening):
    origin = listening(cli_site.bare)
    assert "is no endpoint of wsgicache" in complaint("stats", "--endpoint", f"{origin}/.cache", env=ENV)


def test_a_site_that_has_moved(listening):
    def moved(environ, start_response):
        start_response("308 Permanent Redirect", [("Location", "https://example.com/.cache/stats")])
        return []

    line = complaint("stats", "--endpoint", f"{listening(moved)}/.cache", env=ENV)
    assert "answers 308, to https://example.com/.cache/stats: give the address of the site itself" in line


def test_a_site_that_speaks_no_tls(endpoint):
    where = endpoint.replace("http:", "https:")
    line = complaint("stats", "--endpoint", where, env=ENV, code=3)
    assert "no TLS that can be trusted" in line


def test_a_watch_over_workers_that_count_apart(cache, listening):
    other = WSGICache(cli_site.bare, secret=SECRET, admin_path="/.cache")
    workers = [cache, other]

    def balanced(environ, start_response):
        workers.reverse()
        return workers[0](environ, start_response)

    origin = listening(balanced)
    ask(cache, f"{origin}/a")
    watch = ("stats", "--watch", "--every", "0.1", "--times", "3", "--endpoint", f"{origin}/.cache")
    assert "lower than before: the counters began again, or another worker" in say(*watch, env=ENV)


def test_one_of_another_version(listening):
    def other(environ, start_response):
        body = json.dumps([{"other": 1}]).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    endpoint = f"{listening(other)}/.cache"
    for command in (("stats",), ("explain", "/"), ("rules",), ("ls",), ("show", "/"), ("purge", "/")):
        assert "update the older of the two" in complaint(*command, "--endpoint", endpoint, env=ENV)


def test_a_site_that_is_down_has_exit_code_3():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{bound.getsockname()[1]}/.cache"
        assert "is the site running?" in complaint("stats", "--endpoint", endpoint, env=ENV, code=3)


@pytest.mark.parametrize(
    ("endpoint", "overheard"),
    [("http://example.com/c", True), ("https://example.com/c", False), ("http://127.0.0.1:8000/c", False)],
)
def test_a_secret_that_others_may_read_on_the_way(endpoint, overheard):
    assert HttpControl(endpoint, SECRET).is_overheard is overheard
