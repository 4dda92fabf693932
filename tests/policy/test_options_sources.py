"""Options come from keywords, ini strings, mappings and the environment, through one table."""

import pytest
from sites import Site, page

from wsgicache import Rule, WSGICache
from wsgicache.config import configure, from_ini, from_prefixed
from wsgicache.options import (
    DEFAULT_DROPPED,
    DEFAULT_HARMLESS,
    DEFAULT_LOOKUP_ONLY,
    OPTIONS,
    OptionError,
    Settings,
)
from wsgicache.testing import ScriptedApp, ask

VALUES = {
    # option: (keyword, text, typed value)
    "store": ("memory://?max_bytes=1MB", "memory://?max_bytes=1MB", "memory://?max_bytes=1MB"),
    "ttl": (600, "10m", 600),
    "profile": ("rfc", "rfc", "rfc"),
    "namespace": ("blue", "blue", "blue"),
    "enabled": (False, "off", False),
    "max_bytes": (1_000_000, "1MB", 1_000_000),
    "near_bound": (0.5, "0.5s", 0.5),
    "near_max_age": (30, "30s", 30.0),
    "memo_bytes": (0, "0", 0),
    "store_timeout": (0.1, "0.1", 0.1),
    "lease": (2.5, "2.5s", 2.5),
    "signing_keys": (["new", "old"], "new, old", ("new", "old")),
    "max_body_bytes": (2048, "2KiB", 2048),
    "spool_bytes": (4096, "4KiB", 4096),
    "spool_max_bytes": (8192, "8KiB", 8192),
    "spool_dir": ("/var/spool/site", "/var/spool/site", "/var/spool/site"),
    "max_key_bytes": (512, "512", 512),
    "max_variants": (5, "5", 5),
    "max_groups": (6, " 6 ", 6),
    "max_followers": (0, "0", 0),
    "wait_timeout": (1.5, "1.5s", 1.5),
    "slow_client_grace": (0.25, "0.25", 0.25),
    "miss_marker": (30, "30", 30.0),
    "background_threads": (3, "3", 3),
    "background_queue": (9, "9", 9),
    "stale_while_revalidate": (3600, "1h", 3600),
    "stale_if_error": (86400, "1d", 86400),
    "early_refresh": (0.5, " 0.5", 0.5),
    "jitter": (30, "30s", 30),
    "keep": (60, "60s", 60),
    "max_error_ttl": (3, "3", 3),
    "harmless_cookies": (["a", "b_*"], "a, b_*", ("a", "b_*")),
    "lookup_cookies": (("x",), "x", ("x",)),
    "encode": (["br", "gzip"], "br,gzip", ("br", "gzip")),
    "encode_min_bytes": (2048, "2KiB", 2048),
    "languages": (["de", "en-GB"], "de,en-GB", ("de", "en-GB")),
    "drop_fields": (["X-A", "x-b"], "X-A, x-b", ("x-a", "x-b")),
    "targeted_fields": (["CDN-Cache-Control"], "CDN-Cache-Control", ("cdn-cache-control",)),
    "consume_fields": (["X-Mine"], "X-Mine", ("x-mine",)),
    "no_vary_search": (True, "on", True),
    "log": (True, "yes", True),
    "secret": ("sesame, open wide", "sesame, open wide", "sesame, open wide"),
}
OBJECTS = {"rules", "clock", "admin_auth"}
"""Options that are no text."""

NEED_MORE = {
    "near": "tests/shared/test_shared_near.py",
    "admin_path": "tests/admin",
    "dashboard": "tests/admin",
    "purge_method": "tests/admin",
}
"""Options that need another one, and where they are read in all these ways."""

NAMES = [name for name in OPTIONS if name not in OBJECTS and name not in NEED_MORE]


def settings_of(cache):
    """The typed options of a cache."""
    return cache.engine.settings


def test_every_option_of_the_table_has_a_value_here_and_a_place_in_the_settings():
    assert set(NAMES) == set(VALUES), "give the new option a keyword, a text and its typed value"
    assert set(OPTIONS) == set(Settings.__dataclass_fields__)


@pytest.mark.parametrize("option", OPTIONS.values(), ids=lambda option: option.name)
def test_every_option_is_documented_and_its_default_is_a_value(option):
    assert option.meaning.endswith(".")
    assert option.unit
    assert option.read(option.default) == option.default


@pytest.mark.parametrize("name", NAMES)
def test_a_keyword(name):
    given, _, value = VALUES[name]
    found = getattr(settings_of(WSGICache(ScriptedApp(), **{name: given})), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("name", NAMES)
def test_text_in_a_keyword_means_the_same(name):
    _, text, value = VALUES[name]
    assert getattr(settings_of(WSGICache(ScriptedApp(), **{name: text})), name) == value


@pytest.mark.parametrize("name", NAMES)
def test_an_ini_string(name):
    _, text, value = VALUES[name]
    settings, _ = from_ini({name: text}, "site.ini, [filter:cache]")
    assert getattr(settings, name) == value


@pytest.mark.parametrize("name", NAMES)
def test_a_mapping(name):
    for given in VALUES[name][:2]:
        cache = WSGICache.from_mapping(ScriptedApp(), {f"WSGICACHE_{name.upper()}": given, "SECRET_KEY": "x"})
        assert getattr(settings_of(cache), name) == VALUES[name][2]


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_variable(name):
    _, text, value = VALUES[name]
    cache = WSGICache.from_env(ScriptedApp(), {f"WSGICACHE_{name.upper()}": text, "PATH": "/bin"})
    assert getattr(settings_of(cache), name) == value


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    monkeypatch.setenv("WSGICACHE_TTL", "7")
    assert settings_of(WSGICache.from_env(ScriptedApp())).ttl == 7
    assert settings_of(WSGICache(ScriptedApp())).ttl is None, "nobody asked for it"


def test_the_defaults_need_no_reading():
    settings = settings_of(WSGICache(ScriptedApp()))
    assert (settings.store, settings.ttl, settings.profile) == ("memory://", None, "safe")
    assert (settings.max_body_bytes, settings.max_bytes) == (1 << 20, 64_000_000)
    assert (settings.secret, settings.log, settings.enabled) == (None, False, True)


# --- precedence -------------------------------------------------------------------------------------


def test_keyword_beats_mapping_beats_environment():
    environ = {"WSGICACHE_TTL": "1", "WSGICACHE_KEEP": "1", "WSGICACHE_MAX_GROUPS": "1"}
    mapping = {"WSGICACHE_TTL": 2, "WSGICACHE_KEEP": 2}
    settings = settings_of(WSGICache.from_env(ScriptedApp(), environ, mapping=mapping, ttl=3))
    assert (settings.ttl, settings.keep, settings.max_groups) == (3, 2, 1)


def test_a_keyword_that_is_a_default_beats_too():
    settings, _ = configure(
        {"enabled": True, "ttl": None}, mapping={"WSGICACHE_ENABLED": False, "WSGICACHE_TTL": 5}
    )
    assert (settings.enabled, settings.ttl) == (True, None)


def test_an_error_in_a_source_that_is_beaten_is_an_error_all_the_same():
    with pytest.raises(OptionError, match="WSGICACHE_TTL"):
        configure({"ttl": 5}, mapping={"WSGICACHE_TTL": "soon"})


def test_rules_of_a_stronger_source_take_the_place_of_the_others():
    mapping = {"WSGICACHE_RULES": [Rule("/m", ttl=1)]}
    environ = {"WSGICACHE_RULE_ENV": "/e ttl=1"}
    assert [rule.pattern for rule in configure({}, mapping=mapping, environ=environ)[1]] == ["/m"]
    assert [rule.pattern for rule in configure({"rules": []}, mapping=mapping)[1]] == []


# --- rules from each source -------------------------------------------------------------------------


def test_rules_from_ini_lines_in_their_order():
    lines = {"rule.b": "/b ttl=2", "ttl": "9", "rule.a": "/a bypass"}
    settings, rules = from_ini(lines, "site.ini")
    assert [(rule.name, rule.pattern) for rule in rules] == [("b", "/b"), ("a", "/a")]
    assert settings.ttl == 9


@pytest.mark.parametrize(
    "given",
    [
        [Rule("/admin/*", bypass=True, name="admin"), Rule("/s/*", ttl=5, name="s")],
        {"admin": "/admin/* bypass", "s": "/s/* ttl=5"},
    ],
    ids=["a list", "a mapping of lines"],
)
def test_rules_from_a_mapping(given):
    cache = WSGICache.from_mapping(ScriptedApp(page()), {"WSGICACHE_RULES": given})
    assert [rule.name for rule in cache.rules] == ["admin", "s"]
    assert ask(cache, "/admin/x").detail == "BYPASS_RULE"
    assert ask(cache, "/s/x").cache["ttl"] == "5"


def test_rules_from_variables():
    environ = {"WSGICACHE_RULE_ADMIN": "/admin/* bypass", "WSGICACHE_RULE_S": "/s/* ttl=5"}
    cache = WSGICache.from_env(ScriptedApp(page()), environ)
    assert [rule.name for rule in cache.rules] == ["admin", "s"]
    assert ask(cache, "/admin/x").detail == "BYPASS_RULE"


# --- options that do something through the middleware -----------------------------------------------


def test_lists_of_names_may_add_to_the_default():
    settings = settings_of(
        WSGICache(ScriptedApp(), harmless_cookies="+mine", lookup_cookies=["+a", "b"], drop_fields="+X-Mine")
    )
    assert settings.harmless_cookies == (*DEFAULT_HARMLESS, "mine")
    assert settings.lookup_cookies == (*DEFAULT_LOOKUP_ONLY, "a", "b")
    assert settings.drop_fields == (*DEFAULT_DROPPED, "x-mine")


def test_an_empty_list_is_an_empty_list():
    site = Site(harmless_cookies="", lookup_cookies=[], drop_fields="")
    assert site.ask(headers={"Cookie": "_ga=1"}).detail == "BYPASS_COOKIE"
    assert site.ask(headers={"Cookie": "csrftoken=1"}).detail == "BYPASS_COOKIE"


def test_drop_fields():
    site = Site(page(("X-Mine", "1"), ("X-Request-Id", "2")), drop_fields="X-Mine")
    assert site.fill().field("X-Mine") == "1"
    reply = site.ask()
    assert (reply.field("X-Mine"), reply.field("X-Request-Id")) == (None, "2")


def test_consume_fields():
    site = Site(page(("X-Mine", "1")), consume_fields="X-Mine")
    assert site.fill().field("X-Mine") is None
    assert site.ask().field("X-Mine") is None


def test_namespace_keeps_two_sites_on_one_store_apart():
    one = Site(page(body=b"one"), namespace="one")
    other = WSGICache(ScriptedApp(page(body=b"other")), one.cache.store, clock=one.clock, namespace="other")
    assert (one.fill().body, ask(other).body) == (b"one", b"other")
    assert (one.ask().body, ask(other).body) == (b"one", b"other")


def test_enabled_false_passes_everything_untouched():
    site = Site(enabled=False)
    for _ in range(3):
        reply = site.ask(headers={"Cookie": "_ga=1", "If-None-Match": '"a"', "Range": "bytes=0-0"})
        assert (reply.detail, reply.code, reply.body) == ("DISABLED", 200, b"page")
    assert site.app.calls == 3
    assert {"HTTP_COOKIE", "HTTP_IF_NONE_MATCH", "HTTP_RANGE"} <= set(site.last)


def test_keep_is_how_long_a_stale_page_stays_for_its_validator():
    site = Site(page(("ETag", '"a"'), ("Cache-Control", "max-age=10")), keep=60)
    site.fill()
    site.clock.tick(69)
    site.ask()
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    site.clock.tick(10 + 60)
    site.ask()
    assert "HTTP_IF_NONE_MATCH" not in site.last


# --- errors -----------------------------------------------------------------------------------------

SOURCES = {
    "keyword": (lambda name, value: WSGICache(ScriptedApp(), **{name: value}), "keyword"),
    "mapping": (
        lambda name, value: WSGICache.from_mapping(ScriptedApp(), {f"WSGICACHE_{name.upper()}": value}),
        "mapping WSGICACHE_",
    ),
    "environment": (
        lambda name, value: WSGICache.from_env(ScriptedApp(), {f"WSGICACHE_{name.upper()}": value}),
        "environment variable WSGICACHE_",
    ),
    "ini": (
        lambda name, value: from_ini({name: value}, "site.ini, [filter:cache]"),
        "site.ini, [filter:cache]",
    ),
}


@pytest.mark.parametrize(("source", "place"), SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("ttl", "soon", "give seconds"),
        ("ttl", "-5", "give seconds"),
        ("profile", "fast", "give one of: safe, rfc"),
        ("max_bytes", "lots", "give bytes"),
        ("max_variants", "0", "above zero"),
        ("enabled", "perhaps", "give true or false"),
        ("wait_timeout", "x", "give seconds"),
        ("targeted_fields", "a b", "is not a header field name"),
        ("encode", "deflate", "give some of: gzip, br, zstd"),
        ("encode", "gzip,br,gzip", "give each coding once"),
        ("encode_min_bytes", "0", "above zero"),
    ],
)
def test_a_bad_value_names_key_value_place_and_remedy(source, place, name, value, remedy):
    with pytest.raises(OptionError) as refused:
        source(name, value)
    for part in (place, name, repr(value), remedy):
        assert part.lower() in str(refused.value).lower()


@pytest.mark.parametrize(("source", "place"), SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("tll", "did you mean 'ttl'?"),
        ("maxbytes", "did you mean 'max_bytes'?"),
        ("zzzz", "known options are"),
    ],
)
def test_an_unknown_key_names_key_value_place_and_remedy(source, place, name, remedy):
    with pytest.raises(OptionError) as refused:
        source(name, "5")
    for part in (place, name, "'5'", remedy):
        assert part.lower() in str(refused.value).lower()


def test_what_does_not_begin_with_our_prefix_is_not_ours():
    assert from_prefixed({"CACHE_TYPE": "x", "wsgicache_ttl": 5, 5: 6, "WSGI_CACHE_TTL": 1}, "mapping") == {}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("WSGICACHE_RULE_ADMIN", "admin bypass", ["rule.admin", "'admin bypass'", "starts with /"]),
        ("WSGICACHE_RULE_ADMIN", "/admin/* bypas", ["rule.admin", "did you mean 'bypass'?"]),
        ("WSGICACHE_RULES", "/admin/*", ["rules", "'/admin/*'", "Rule("]),
        ("WSGICACHE_CLOCK", "now", ["clock", "'now'", "callable"]),
        ("WSGICACHE_ADMIN_AUTH", "me", ["admin_auth", "'me'", "callable"]),
    ],
)
def test_a_bad_variable_is_refused(name, text, parts):
    with pytest.raises(OptionError) as refused:
        WSGICache.from_env(ScriptedApp(), {name: text})
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("key", "way"), [("rules", r"rule\.NAME"), ("clock", r"rule\.NAME"), ("admin_auth", "in Python")]
)
def test_what_an_ini_cannot_say_is_refused_with_the_way_to_say_it(key, way):
    with pytest.raises(OptionError, match=rf"site\.ini: .*{way}"):
        from_ini({key: "x"}, "site.ini")


def test_the_secret_is_not_in_the_repr():
    assert "sesame" not in repr(settings_of(WSGICache(ScriptedApp(), secret="sesame")))
