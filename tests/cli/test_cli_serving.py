"""`serve`, short of processes: what it refuses, what it tells, which options it takes."""

import signal

import cli_site
import pytest
from cli_helpers import complaint, run

from wsgicache import WSGICache
from wsgicache.cli import serving
from wsgicache.cli.output import Output
from wsgicache.testing import ask


@pytest.fixture
def served(monkeypatch):
    """What would have been served, and how."""
    got = []

    def server(app, host, port, threads, ready):
        ready(port or 4242)
        got.append(app)
        raise KeyboardInterrupt

    monkeypatch.setattr(serving, "_SERVERS", {"waitress": server, "wsgiref": server})
    before = signal.getsignal(signal.SIGTERM)
    yield got
    signal.signal(signal.SIGTERM, before)


def test_any_app_is_served_behind_the_cache(served, capsys):
    result = run("serve", "cli_site:bare", "--port", "0", "-o", "ttl=5m", "-o", "profile=rfc")
    assert "cli_site:bare behind the cache (memory://, profile rfc)" in result.stdout
    assert "Listening on http://127.0.0.1:4242 until Ctrl-C" in result.stdout
    assert ask(served[0], "/a").cache["ttl"] == "300"
    assert ask(served[0], "/a").is_hit
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("GET /a  200  ")
    assert told[0].endswith(" ms  fwd=uri-miss; fwd-status=200; stored; ttl=300")
    assert told[1].endswith("  hit; ttl=300")


def test_options_come_from_where_they_always_do(served):
    run("serve", "cli_site:bare", "--quiet", env={"WSGICACHE_TTL": "7", "WSGICACHE_RULE_A": "/a bypass"})
    assert ask(served[0], "/b").cache["ttl"] == "7"
    assert ask(served[0], "/a").detail == "BYPASS_RULE"


def test_an_app_that_has_a_cache_is_served_with_it(served, make_site):
    site = make_site("memory://")
    run("serve", "cli_site:app", "--quiet")
    assert served == [site.cache]
    assert "has a cache of its own" in complaint("serve", "cli_site:app", "-o", "ttl=5")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("http://",), "is no origin"),
        (("cli_site",), "write module:attribute"),
        (("cli_site:bare", "-o", "ttl"), "write NAME=VALUE"),
        (("cli_site:bare", "-o", "tll=5"), "did you mean 'ttl'"),
        (("cli_site:bare", "-o", "rules=x"), "write NAME=VALUE"),
        (("cli_site:bare", "--app", "cli_site:bare"), "the app to serve is the argument"),
    ],
)
def test_bad_usage(served, arguments, told):
    assert told in complaint("serve", *arguments)
    assert not served


def test_a_port_that_is_taken_is_one_line():
    import socket

    before = signal.getsignal(signal.SIGTERM)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = complaint("serve", "cli_site:bare", "--server", "wsgiref", "--port", port)
        assert "choose another with --port" in line
    signal.signal(signal.SIGTERM, before)


def test_a_password_in_the_store_is_not_shown(served):
    result = run("serve", "cli_site:bare", "-o", "store=redis://:geheim@127.0.0.1:1", "--json")
    assert "***" in result.stdout
    assert "geheim" not in result.stdout


def test_nothing_in_a_request_steers_the_terminal(capsys):
    app = serving._Telling(WSGICache(cli_site.bare), Output(False))
    ask(app, "/\x1b]0;x\x07", QUERY_STRING="a\x1b")
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert told.startswith("GET /%1B%5D0;x%07?a\\x1b  200")


def test_without_waitress_it_is_wsgiref(monkeypatch):
    import sys

    assert serving._chosen("auto") == "waitress"
    monkeypatch.setitem(sys.modules, "waitress", None)
    assert serving._chosen("auto") == "wsgiref"
    with pytest.raises(serving.Failure, match="pip install waitress"):
        serving._with_waitress(cli_site.bare, "127.0.0.1", 0, 1, print)


def test_json_tells_each_request(capsys):
    import json

    app = serving._Telling(WSGICache(cli_site.bare), Output(True))
    ask(app, "/a?x=1")
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], told["path"], told["status"]) == ("GET", "/a?x=1", 200)
    assert "BYPASS_QUERY" in told["cache_status"]
