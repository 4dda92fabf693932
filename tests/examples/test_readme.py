"""The README keeps its word: its blocks run, its output is what comes, its links lead somewhere."""

import re
import subprocess
import sys
from contextlib import contextmanager
from shutil import which

import pytest
from example_helpers import (
    EXAMPLES,
    ROOT,
    decision,
    ended,
    is_hit,
    load,
    new_browser,
    stored_miss,
)
from flask import Flask, make_response, request
from ports import free_port

from wsgicache import Rule, WSGICache
from wsgicache.outcome import Reason

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^#+ ([^\n]+)\n|^```(\w+)\n(.*?)^```$", README, re.M | re.S)


def blocks(language):
    """The fenced blocks of a language, each with the heading it stands under."""
    heading = ""
    for title, fence, text in BLOCKS:
        heading = title or heading
        if fence == language:
            yield heading, text


PYTHON = dict(blocks("python"))
CONSOLE = [text for _, text in blocks("console")]
COMMANDS = [line.split("#")[0].strip() for _, text in blocks("sh") for line in text.splitlines()]


def test_every_python_block_is_run_by_a_test_below():
    assert len(PYTHON) == len(list(blocks("python")))
    assert list(PYTHON) == [
        "Flask: three lines",
        "Django: three lines",
        "Five reasons why something is not a hit",
        "Purge from a view",
        "A second worker",
    ]


@pytest.fixture
def readme():
    """The names after the Flask block has run, and a page to ask for."""
    names = {"__name__": "readme"}
    exec(PYTHON["Flask: three lines"], names)
    calls = names["calls"] = []

    @names["app"].get("/posts/<slug>")
    def post(slug):
        calls.append(slug)
        return f"{slug}, rendered {len(calls)} time(s)"

    return names


def test_the_flask_lines(readme):
    first = new_browser(readme["app"]).get("/posts/one")
    second = new_browser(readme["app"]).get("/posts/one")
    assert decision(first) == stored_miss()
    assert is_hit(decision(second))
    assert readme["calls"] == ["one"]


def test_the_django_lines():
    code = (
        "from django.conf import settings\n"
        "from django.http import HttpResponse\n"
        "from django.urls import path\n"
        "urlpatterns = [path('', lambda request: HttpResponse('hello'))]\n"
        "settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=['localhost'],\n"
        "    MIDDLEWARE=['django.middleware.common.CommonMiddleware'])\n"
        + PYTHON["Django: three lines"]
        + "from example_helpers import *\n"
        "assert decision(new_browser(application).get('/')) == stored_miss()\n"
        "assert is_hit(decision(new_browser(application).get('/')))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT / "tests" / "examples", check=True)


def test_explain_prints_the_reason(readme, capsys):
    exec(PYTHON["Five reasons why something is not a hit"], readme)
    printed = capsys.readouterr().out
    assert "BYPASS_QUERY" in printed
    assert Reason.BYPASS_QUERY.sentence in printed


def test_purge_from_a_view(readme):
    exec(PYTHON["Purge from a view"], readme)
    browser = new_browser(readme["app"])
    before = browser.get("/posts/one")
    assert is_hit(decision(browser.get("/posts/one")))
    new_browser(readme["app"]).post("/posts/one")
    after = browser.get("/posts/one")
    assert not is_hit(decision(after))
    assert after.body != before.body


def test_the_other_purges_that_the_text_names(readme):
    app, cache = readme["app"], readme["cache"]

    @app.get("/blog/<slug>")
    def blog(slug):
        request.environ["wsgicache.hints"].groups.add("posts")
        return slug

    for purge in (
        lambda: cache.purge_prefix("/blog/"),
        lambda: cache.purge_groups("posts"),
        cache.clear,
    ):
        new_browser(app).get("/blog/a")
        assert is_hit(decision(new_browser(app).get("/blog/a")))
        purge()
        assert not is_hit(decision(new_browser(app).get("/blog/a")))


def test_a_second_worker_shares_the_pages(readme, tmp_path):
    """Two caches over one file are two workers, as far as one process can play them."""
    pytest.importorskip("lmdb")
    app, original = readme["app"], readme["cache"].app
    workers = []
    for _ in range(2):
        app.wsgi_app = original
        exec(PYTHON["A second worker"].replace("/var/cache", str(tmp_path)), readme)
        workers.append(readme["cache"])
    pages = []
    for worker in workers:
        app.wsgi_app = worker
        pages.append(new_browser(app).get("/posts/one"))
    assert decision(pages[0]) == stored_miss()
    assert is_hit(decision(pages[1]))
    workers[1].purge("/posts/one")
    app.wsgi_app = workers[0]
    assert not is_hit(decision(new_browser(app).get("/posts/one")))
    for worker in workers:
        worker.close()


def test_it_can_be_switched_off(monkeypatch):
    app = load(EXAMPLES / "bare.py").hello
    assert "enabled=False" in README
    assert "WSGICACHE_ENABLED=0" in README
    monkeypatch.setenv("WSGICACHE_ENABLED", "0")
    for cache in (
        WSGICache(app, enabled=False),
        WSGICache.from_env(app),
    ):
        pages = [new_browser(cache).get("/").body for _ in range(2)]
        assert pages[0] != pages[1]


# --- the five reasons: for each, the request that gives it and the remedy of the table ------------


def page_of(body="page", **fields):
    """An app with one page for every path."""
    app = Flask("page", static_folder=None)

    @app.get("/<path:path>")
    def page(path):
        response = make_response(body)
        for name, value in fields.items():
            response.headers[name.replace("_", "-")] = value
        return response

    return app.wsgi_app


TABLE = dict(re.findall(r"^\| `detail=(\w+)` \| [^|]+ \| (.+) \|$", README, re.M))
CSRF_FORM = '<form><input type="hidden" name="csrf_token" value="IjY4ZTBjYTQx.Zp1"></form>'
SCENARIOS = {
    "BYPASS_QUERY": (page_of(), "/search?q=tide", {}),
    "BYPASS_COOKIE": (page_of(), "/docs/one", {"Cookie": "session=x"}),
    "NOT_STORED_SET_COOKIE": (page_of(Set_Cookie="a=b"), "/welcome", {}),
    "NOT_STORED_NO_CACHE": (page_of(Cache_Control="no-cache"), "/static/style.css", {}),
    "NOT_STORED_TOKEN": (page_of(CSRF_FORM), "/form", {}),
}


def test_the_table_has_the_five_reasons_that_are_tried_here():
    assert list(TABLE) == list(SCENARIOS)
    assert set(TABLE) <= set(Reason.__members__)


@pytest.mark.parametrize("reason", SCENARIOS)
def test_a_reason_of_the_table_is_seen(reason):
    app, path, headers = SCENARIOS[reason]
    cache = WSGICache(app)
    assert decision(new_browser(cache).get(path, headers=headers))["detail"] == reason
    assert "hit" not in decision(new_browser(cache).get(path, headers=headers))


@pytest.mark.parametrize("reason", [name for name, text in TABLE.items() if "Rule(" in text])
def test_the_rule_of_the_table_makes_it_a_hit(reason):
    app, path, headers = SCENARIOS[reason]
    rule = eval(re.search(r"`(Rule\(.*\))`", TABLE[reason])[1], {"Rule": Rule})
    cache = WSGICache(app, rules=[rule])
    new_browser(cache).get(path, headers=headers)
    assert "hit" in decision(new_browser(cache).get(path, headers=headers))


# --- the commands and what they print -------------------------------------------------------------


@contextmanager
def gunicorn(port, tmp_path, *arguments):
    """The server as the README starts it, but on a free port."""
    command = [sys.executable, "-m", "gunicorn", f"--bind=127.0.0.1:{port}", *arguments]
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    with ended(subprocess.Popen(command, cwd=ROOT, env=environ, stderr=-1, text=True)) as process:
        for line in process.stderr:
            if "Booting worker" in line:
                break
        yield
        process.terminate()
        process.communicate(timeout=20)


def shape(output):
    """Curl's output with what differs from one run to the next taken out."""
    lines = output.replace("\r\n", "\n").strip().splitlines()
    lines = [re.sub(r"^(Date|Server|ETag|Last-Modified): .*", r"\1: …", line) for line in lines]
    return [re.sub(r"\b(hit; ttl=|Age: )\d+\b", r"\1…", line) for line in lines]


@pytest.mark.skipif(which("curl") is None, reason="the README's example is a curl command")
def test_curl_twice_prints_what_the_readme_shows(tmp_path):
    (serve,) = [line for line in COMMANDS if line.startswith("gunicorn --chdir")]
    port = free_port()
    with gunicorn(port, tmp_path, *serve.split()[1:]):
        for text in CONSOLE:
            command, _, shown = text.partition("\n")
            command = command.removeprefix("$ ").replace(":8000", f":{port}").split()
            printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert shape(printed) == shape(shown)


def test_the_commands_name_files_that_are_there():
    for command in COMMANDS:
        program, *arguments = command.split()
        if "/" in program:
            assert (ROOT / program).is_file()
        if "--chdir" in arguments:
            assert (ROOT / arguments[arguments.index("--chdir") + 1] / "flask_app.py").is_file()


@pytest.mark.parametrize("file", ["README.md", "examples/README.md"])
def test_links_lead_to_files(file):
    page = ROOT / file
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
