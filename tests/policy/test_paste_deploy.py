"""PasteDeploy: a filter, a filter-app, a pipeline and a composite from a real ini; mistakes refused at start
with file, section, key, value and remedy (WSG-14)."""

import configparser
import sys
import types

import pytest
from paste.deploy import loadapp
from sites import page

from wsgicache import WSGICache
from wsgicache.options import OptionError
from wsgicache.testing import ScriptedApp, ask

APP = """
[app:site]
paste.app_factory = wsgicache_paste_test:make_app
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Write an ini and load the app of its `main`."""
    module = types.ModuleType("wsgicache_paste_test")
    module.apps = []

    def make_app(global_conf, **local_conf):
        module.apps.append(ScriptedApp(page(body=local_conf.get("says", "page").encode())))
        return module.apps[-1]

    def make_composite(loader, global_conf, **local_conf):
        parts = {name: loader.get_app(app, global_conf=global_conf) for name, app in local_conf.items()}

        def composite(environ, start_response):
            return parts[environ["PATH_INFO"].split("/")[1]](environ, start_response)

        return composite

    module.make_app, module.make_composite = make_app, make_composite
    monkeypatch.setitem(sys.modules, "wsgicache_paste_test", module)

    def load_text(text, name="main", **options):
        path = tmp_path / "site.ini"
        path.write_text(text)
        return loadapp(f"config:{path}", name=name, **options)

    load_text.path = tmp_path / "site.ini"
    load_text.module = module
    return load_text


PIPELINE = (
    """
[pipeline:main]
pipeline = cache site

[filter:cache]
use = egg:wsgicache
ttl = 10m
log = off
max_bytes = 2MB
namespace = blue
harmless_cookies = +theme, tracker_*
rule.admin = /admin/* bypass
rule.static = /static/* ttl=86400 override
rule.search = /search query=key ignore_query=utm_*,gclid
"""
    + APP
)


def test_a_filter_in_a_pipeline(load):
    app = load(PIPELINE)
    assert isinstance(app, WSGICache)
    settings = app.engine.settings
    assert (settings.ttl, settings.log, settings.max_bytes, settings.namespace) == (
        600,
        False,
        2_000_000,
        "blue",
    )
    assert "theme" in settings.harmless_cookies
    assert [rule.name for rule in app.rules] == ["admin", "static", "search"]
    assert ask(app, "/").cache["ttl"] == "600"
    assert ask(app, "/").is_hit
    assert ask(app, "/admin/x").detail == "BYPASS_RULE"
    assert ask(app, "/static/x.css").cache["ttl"] == "86400"
    assert ask(app, "/search?q=1&utm_x=2").stored
    assert ask(app, "/search?q=1").is_hit


def test_a_filter_app(load):
    app = load(
        """
[filter-app:main]
use = egg:wsgicache
next = site
ttl = 5
rule.admin = /admin/* bypass
"""
        + APP
    )
    assert isinstance(app, WSGICache)
    assert ask(app, "/").cache["ttl"] == "5"
    assert ask(app, "/admin/x").detail == "BYPASS_RULE"


def test_filter_with_on_an_app(load):
    app = load(
        """
[app:main]
paste.app_factory = wsgicache_paste_test:make_app
filter-with = cache

[filter:cache]
use = egg:wsgicache
ttl = 5
"""
    )
    assert ask(app, "/").cache["ttl"] == "5"


def test_a_composite_of_sites_with_caches_of_their_own(load):
    app = load(
        """
[composite:main]
paste.composite_factory = wsgicache_paste_test:make_composite
shop = shop
blog = blog

[pipeline:shop]
pipeline = quick site

[pipeline:blog]
pipeline = slow site

[filter:quick]
use = egg:wsgicache
ttl = 5

[filter:slow]
use = egg:wsgicache
ttl = 5000
"""
        + APP
    )
    assert ask(app, "/shop/").cache["ttl"] == "5"
    assert ask(app, "/blog/").cache["ttl"] == "5000"
    assert ask(app, "/shop/").is_hit


def test_a_cache_around_a_composite(load):
    app = load(
        """
[pipeline:main]
pipeline = cache sites

[filter:cache]
use = egg:wsgicache#main

[composite:sites]
paste.composite_factory = wsgicache_paste_test:make_composite
a = site
b = site
"""
        + APP
    )
    assert ask(app, "/a/").stored
    assert ask(app, "/a/").is_hit
    assert not ask(app, "/b/").is_hit


def test_the_factories_can_be_named_directly(load):
    app = load(
        """
[pipeline:main]
pipeline = cache site
[filter:cache]
paste.filter_factory = wsgicache.paste:filter_factory
ttl = 5
"""
        + APP
    )
    assert ask(app, "/").cache["ttl"] == "5"


def test_one_filter_used_twice_makes_two_caches(load):
    text = PIPELINE.replace("[pipeline:main]", "[pipeline:other]\npipeline = cache site\n[pipeline:main]")
    one, other = load(text), load(text, name="other")
    assert ask(one, "/").stored
    assert not ask(other, "/").is_hit


def test_no_options_at_all(load):
    app = load("[pipeline:main]\npipeline = cache site\n[filter:cache]\nuse = egg:wsgicache\n" + APP)
    assert ask(app, "/").cache["ttl"] == "300"


# --- strings, interpolation, global_conf ------------------------------------------------------------


def test_here_and_variables_are_interpolated_before_we_read(load):
    app = load(
        """
[DEFAULT]
minutes = 7
[pipeline:main]
pipeline = cache site
[filter:cache]
use = egg:wsgicache
namespace = %(here)s
ttl = %(minutes)sm
rule.a = /a ttl=%(minutes)s
"""
        + APP
    )
    assert app.engine.settings.namespace == str(load.path.parent)
    assert app.engine.settings.ttl == 420
    assert app.rules["a"].options["ttl"] == 7


def test_a_global_option_of_the_same_name_is_not_ours(load):
    app = load(
        """
[DEFAULT]
ttl = never
secret = somebody elses
debug = true
[pipeline:main]
pipeline = cache site
[filter:cache]
use = egg:wsgicache
keep = 5
"""
        + APP,
        global_conf={"log": "nonsense"},
    )
    settings = app.engine.settings
    assert (settings.ttl, settings.secret, settings.keep, settings.log) == (None, None, 5, False)


def test_a_section_that_uses_another_overrides_it(load):
    app = load(
        """
[pipeline:main]
pipeline = quick site
[filter:cache]
use = egg:wsgicache
ttl = 100
keep = 7
[filter:quick]
use = cache
ttl = 5
"""
        + APP
    )
    assert (app.engine.settings.ttl, app.engine.settings.keep) == (5, 7)


# --- mistakes ---------------------------------------------------------------------------------------

MISTAKES = [
    ("ttl = soon", ["ttl", "'soon'", "give seconds"]),
    ("ttl =", []),
    ("tll = 5", ["'tll'", "'5'", "did you mean 'ttl'?"]),
    ("zzz = 5", ["'zzz'", "'5'", "known options are"]),
    ("enabled = perhaps", ["enabled", "'perhaps'", "give true or false"]),
    ("profile = fast", ["profile", "'fast'", "give one of: safe, rfc"]),
    ("max_variants = 0", ["max_variants", "'0'", "above zero"]),
    ("store = redis-typo://x", ["store", "'redis-typo://x'", "memory"]),
    ("store = memory://?max_bytes=lots", ["store", "max_bytes", "'lots'", "give bytes"]),
    ("rule.admin = admin bypass", ["rule.admin", "'admin bypass'", "starts with /"]),
    ("rule.admin = /admin/* bypas", ["rule.admin", "'/admin/* bypas'", "did you mean 'bypass'?"]),
    ("rule.admin =", ["rule.admin", "write a pattern"]),
    ("rule.admin = /a ttl=soon", ["rule.admin", "'soon'", "give seconds"]),
    ("rule.admin = /a 'ttl=5", ["rule.admin", "cannot be read"]),
    ("rule.admin = /a override", ["rule.admin", "needs a ttl"]),
    ("rules = /admin/*", ["rules", "'/admin/*'", "rule.NAME"]),
    ("rule = /admin/*", ["'rule'", "'/admin/*'"]),
]


@pytest.mark.parametrize(
    ("line", "parts"), [case for case in MISTAKES if case[1]], ids=lambda value: str(value)[:40]
)
@pytest.mark.parametrize("kind", ["filter", "filter-app"])
def test_a_mistake_names_file_section_key_value_and_remedy(load, kind, line, parts):
    if kind == "filter":
        text = (
            f"[pipeline:main]\npipeline = cache site\n[filter:cache]\nuse = egg:wsgicache\nkeep = 5\n{line}\n"
        )
        section = "[filter:cache]"
    else:
        text = f"[filter-app:main]\nuse = egg:wsgicache\nnext = site\nkeep = 5\n{line}\n"
        section = "[filter-app:main]"
    with pytest.raises(OptionError) as refused:
        load(text + APP)
    for part in (str(load.path), section, *parts):
        assert part in str(refused.value)


def test_an_empty_value_is_the_default_where_there_is_one(load):
    app = load("[filter-app:main]\nuse = egg:wsgicache\nnext = site\nttl =\nsecret =\n" + APP)
    assert (app.engine.settings.ttl, app.engine.settings.secret) == (None, None)


def test_the_section_with_the_mistake_is_named_where_others_have_the_same_keys(load):
    text = """
[pipeline:main]
pipeline = good bad site
[filter:good]
use = egg:wsgicache
ttl = 5
keep = 6
[filter:bad]
use = egg:wsgicache
ttl = soon
"""
    with pytest.raises(OptionError) as refused:
        load(text + APP)
    assert "[filter:bad]" in str(refused.value)
    assert "[filter:good]" not in str(refused.value)


def test_the_section_is_named_where_a_value_was_interpolated(load):
    text = """
[DEFAULT]
when = soon
[pipeline:main]
pipeline = cache site
[filter:cache]
use = egg:wsgicache
ttl = %(when)s
"""
    with pytest.raises(OptionError) as refused:
        load(text + APP)
    for part in (str(load.path), "[filter:cache]", "ttl", "'soon'"):
        assert part in str(refused.value)


def test_two_rules_of_one_name_are_refused_by_the_ini_reader(load):
    text = "[filter-app:main]\nuse = egg:wsgicache\nnext = site\nrule.a = /a bypass\nrule.a = /b bypass\n"
    with pytest.raises(configparser.DuplicateOptionError, match=r"rule\.a"):
        load(text + APP)
