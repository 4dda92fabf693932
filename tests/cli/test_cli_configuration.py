"""Where the configuration comes from, and what is said when it cannot be had."""

import sys
import types

import cli_site
import pytest
from cli_helpers import complaint, data, run, say

from wsgicache.cli.load import find_cache
from wsgicache.testing import SharedServer, SharedStore

HOST = "http://example.com"


@pytest.mark.parametrize("name", ["app", "factory", "factory()", "around", "app.admission"])
def test_an_app_or_what_makes_one(site, name):
    if name == "app.admission":
        assert "cli_site has no app.admission" in complaint("ls", "--app", f"cli_site:{name}")
    else:
        assert len(data("ls", "--app", f"cli_site:{name}")["entries"]) == 4


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("cli_site", "write module:attribute"),
        ("cli_site:none", "cli_site has no none"),
        ("cli_site:number", "a int is no WSGI app"),
        ("cli_site:bare", "it is no WSGICache and holds none"),
        ("cli_site:failing", "calling it raised RuntimeError: no settings"),
        ("no_such_module:app", "there is no module no_such_module"),
        ("no_such.module:app", "there is no module no_such"),
    ],
)
def test_an_app_that_is_none(name, told):
    assert told in complaint("ls", "--app", name)


def test_a_module_that_lacks_one_of_its_own(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("import no_such_dependency\n")
    (tmp_path / "wrong.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "it needs the module no_such_dependency" in complaint("ls", "--app", "halfway:app")
    assert "importing it raised ZeroDivisionError" in complaint("ls", "--app", "wrong:app")


def test_flask_apps_hold_their_cache_in_several_ways():
    from flask import Flask

    from wsgicache import WSGICache
    from wsgicache.flask.site import SiteCache

    app = Flask("one")
    cache = app.wsgi_app = WSGICache(app.wsgi_app)
    assert find_cache(app) is cache
    other = Flask("two")
    assert find_cache(other) is None
    site = SiteCache(other)
    assert find_cache(other) is site.pages
    assert find_cache({"/": [cli_site.Held(cache)]}) is cache
    assert find_cache(cli_site.Held(cache).__call__) is cache
    assert find_cache(_closure(cache)) is cache


def _closure(inner):
    def outer(environ, start_response):
        return inner(environ, start_response)

    return outer


def test_a_mapping_of_any_kind(site, url, monkeypatch):
    settings = types.ModuleType("some_settings")
    settings.WSGICACHE_STORE = url
    settings.CONFIG = {"WSGICACHE_STORE": url, "OTHER": 1}
    settings.Config = type("Config", (), {"WSGICACHE_STORE": url})
    settings.EMPTY = {"OTHER": 1}
    settings.WRONG = {"WSGICACHE_TLL": 1}
    monkeypatch.setitem(sys.modules, "some_settings", settings)
    for name in ("some_settings", "some_settings:CONFIG", "some_settings:Config"):
        assert len(data("ls", "--mapping", name)["entries"]) == 4
    assert "holds no WSGICACHE_… key" in complaint("ls", "--mapping", "some_settings:EMPTY")
    assert "did you mean 'ttl'" in complaint("ls", "--mapping", "some_settings:WRONG")


def test_the_environment(site, url):
    assert len(data("ls", env={"WSGICACHE_STORE": url})["entries"]) == 4
    assert "WSGICACHE_TTL" in complaint("ls", env={"WSGICACHE_TTL": "soon"})
    assert "or set WSGICACHE_STORE" in complaint("ls")


def test_a_store_beats_the_environment_which_says_the_rest(make_site, url):
    site = make_site(url, namespace="shop")
    site.ask("/about")
    env = {"WSGICACHE_STORE": "redis://127.0.0.1:1", "WSGICACHE_NAMESPACE": "shop"}
    assert len(data("ls", "--store", url, env=env)["entries"]) == 1
    assert not data("ls", "--store", url, "--namespace", "", env=env)["entries"]


def test_two_configurations_are_one_too_many(url):
    told = complaint("ls", "--store", url, "--app", "cli_site:app")
    assert "--app and --store are two configurations" in told


@pytest.mark.parametrize(
    ("store", "told"),
    [
        ("redis", "'redis' is no store URL"),
        ("mongo://x", "no store is known for mongo://"),
        ("redis://:secret@x/none", "***"),
        ("lmdb://x?colour=red", "colour"),
    ],
)
def test_a_bad_store_is_bad_usage(store, told):
    line = complaint("ls", "--store", store)
    assert told in line
    assert "secret" not in line


@pytest.mark.parametrize("command", [("ls",), ("stats",), ("show", "/"), ("purge", "/"), ("rules",)])
def test_the_memory_of_one_process_is_refused_with_the_remedy(command, make_site):
    make_site("memory://")
    for source in (("--store", "memory://"), ("--app", "cli_site:app")):
        line = complaint(*command, *source)
        assert "memory:// belongs to one process" in line
        assert "lmdb:///var/cache/site or redis://localhost/0" in line
        assert "--endpoint https://example.com/.cache" in line


def test_a_store_that_is_down_has_exit_code_3(make_site):
    server = SharedServer()
    make_site(SharedStore(server))
    server.down = True
    for command in (("ls",), ("stats",), ("show", "/"), ("purge", "/"), ("rules",)):
        line = complaint(*command, "--app", "cli_site:app", code=3)
        assert "the server was told to be down; `wsgicache check` looks into it" in line
    result = run("explain", "/", "--app", "cli_site:app", code=3)
    assert "STORE_DOWN" in result.stdout
    assert result.stderr == "wsgicache: the store does not answer; `wsgicache check` looks into it\n"


def test_a_directory_that_is_not_there_is_not_made(tmp_path):
    for command in (("ls",), ("stats",), ("purge", "/")):
        assert "is the path right?" in complaint(*command, "--store", f"lmdb://{tmp_path}/no", code=3)
    assert not (tmp_path / "no").exists()


def test_what_nobody_foresaw_is_not_hidden(site, monkeypatch):
    from click.testing import CliRunner

    from wsgicache.cli.commands import cli
    from wsgicache.client import Client

    monkeypatch.setattr(Client, "stats", lambda self: 1 / 0)
    assert isinstance(
        CliRunner().invoke(cli, ["stats", "--app", "cli_site:app"]).exception, ZeroDivisionError
    )
    monkeypatch.setattr(Client, "stats", _interrupted)
    assert run("stats", "--app", "cli_site:app", code=130).output.strip() == ""


def _interrupted(self):
    raise KeyboardInterrupt


# --- PasteDeploy -----------------------------------------------------------------------------------

INI = """
[DEFAULT]
where = {where}

[pipeline:main]
pipeline = {pipeline}

[filter:cache]
use = egg:wsgicache
store = lmdb://%(where)s/store
ttl = 60
rule.admin = /admin/* bypass

[app:site]
paste.app_factory = cli_paste:app_factory
"""


@pytest.fixture
def ini(tmp_path, monkeypatch):
    module = types.ModuleType("cli_paste")
    module.app_factory = lambda global_conf, **local: cli_site.bare
    monkeypatch.setitem(sys.modules, "cli_paste", module)

    def ini(text="", pipeline="cache site"):
        file = tmp_path / "site.ini"
        file.write_text(INI.format(where=tmp_path, pipeline=pipeline) + text)
        return file

    return ini


@pytest.mark.parametrize("section", ["", "#cache", "#filter:cache"])
def test_the_section_of_an_ini(ini, section):
    told = data("explain", "/admin/x", "--ini", f"{ini()}{section}")
    assert (told["rule"], told["reason"]) == ("admin", "BYPASS_RULE")
    assert told["where"].startswith(str(ini()))


def test_a_filter_app_section(ini):
    file = ini("[filter-app:whole]\nuse = egg:wsgicache\nnext = site\nrule.a = /a bypass\n")
    assert data("explain", "/a", "--ini", f"{file}#filter-app:whole")["rule"] == "a"


def test_several_sections_must_be_told_apart(ini):
    file = ini("[filter:other]\npaste.filter_factory = wsgicache.paste:filter_factory\n")
    assert "several caches; say which: site.ini#filter:cache" in complaint("explain", "/", "--ini", file)
    assert data("explain", "/admin/x", "--ini", f"{file}#cache")["rule"] == "admin"


@pytest.mark.parametrize(
    ("text", "section", "told"),
    [
        ("[filter:x]\nuse = egg:wsgicache\ntll = 3\n", "#x", "did you mean 'ttl'"),
        ("", "#none", "[none]"),
        ("[broken\n", "", "site.ini"),
    ],
)
def test_an_ini_that_cannot_be_read(ini, text, section, told):
    assert told in complaint("explain", "/", "--ini", f"{ini(text)}{section}")


def test_an_ini_without_a_cache_or_that_is_not_there(tmp_path):
    (tmp_path / "other.ini").write_text("[app:main]\nuse = egg:something\n")
    assert "no section has `use = egg:wsgicache`" in complaint(
        "explain", "/", "--ini", tmp_path / "other.ini"
    )
    assert "there is no such file" in complaint("explain", "/", "--ini", tmp_path / "none.ini")


def test_the_app_of_an_ini_is_warmed(ini, tmp_path):
    told = say("warm", "--ini", ini(), "--urls", "-", "--site", HOST, stdin="/one\n# no\n\n/two\n")
    assert "stored 2" in told
    assert [one["url"] for one in data("ls", "--ini", ini())["entries"]] == [f"{HOST}/one", f"{HOST}/two"]


def test_an_ini_whose_app_is_not_cached_cannot_be_warmed(ini):
    file = ini(pipeline="site")
    assert "holds none" in complaint("warm", "--ini", file, "--urls", "-", "--site", HOST, stdin="/")
