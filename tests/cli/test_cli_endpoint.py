"""The memory of one process, reached through the site's own endpoint."""

import json
import socket

import cli_site
import pytest
from cli_helpers import complaint, data, run, say

from wsgicache import Rule, WSGICache
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
    assert "explains a plain GET" in complaint("explain", "/a", "-X", "HEAD", "--endpoint", endpoint, env=ENV)
    assert "give a path" in complaint("explain", "a", "--endpoint", endpoint, env=ENV)


def test_its_purges(endpoint, cache):
    assert say("purge", "/a", "--endpoint", endpoint, env=ENV) == "/a: 1 entry purged "
    assert ask(cache, f"{endpoint.removesuffix('/.cache')}/a").detail == "MISS_PURGED"
    run("purge", "/nothing", "--endpoint", endpoint, env=ENV, code=1)
    assert data("purge", "--prefix", "/", "--soft", "--endpoint", endpoint, env=ENV)["matched"] == 2
    run("purge", "--group", "none", "--all", "--endpoint", endpoint, env=ENV)
    assert "a prefix has no query" in complaint("purge", "--prefix", "/a?b", "--endpoint", endpoint, env=ENV)


def test_its_rules(endpoint, cache):
    assert [one["name"] for one in data("rules", "--endpoint", endpoint, env=ENV)] == ["admin", "/x"]
    assert "switched off" in say("rules", "disable", "admin", "--endpoint", endpoint, env=ENV)
    assert not cache.rules["admin"].enabled
    assert "known: admin" in complaint("rules", "enable", "amdin", "--endpoint", endpoint, env=ENV)


def test_what_it_does_not_tell(endpoint):
    for command in (("ls",), ("show", "/a"), ("purge", "/a", "--dry-run")):
        assert "does not list what is stored" in complaint(*command, "--endpoint", endpoint, env=ENV)


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
    ],
)
def test_an_endpoint_that_cannot_be_used(endpoint, where, env, told):
    line = complaint("stats", "--endpoint", where.format(endpoint), env=env)
    assert told in line
    assert SECRET not in line


def test_a_site_without_an_endpoint(listening):
    origin = listening(cli_site.bare)
    assert "is no endpoint of wsgicache" in complaint("stats", "--endpoint", f"{origin}/.cache", env=ENV)


def test_one_of_another_version(listening):
    def other(environ, start_response):
        body = json.dumps([{"other": 1}]).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    endpoint = f"{listening(other)}/.cache"
    for command in (("stats",), ("explain", "/"), ("rules",)):
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
