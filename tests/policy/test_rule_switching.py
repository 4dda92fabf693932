"""Rules are switched while the site runs, and what was stored under other rules is not served any more."""

import pytest
from sites import Call, FirstHeld, Site, control, page

from wsgicache import Rule, WSGICache
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FakeClock, ScriptedApp, ask

PUBLIC = control("public, max-age=600")


def test_a_rule_is_disabled_and_enabled_by_name():
    site = Site(rules=[Rule("/admin/*", bypass=True, name="admin"), Rule("/*", ttl=60, name="rest")])
    assert site.ask("/admin/x").detail == "BYPASS_RULE"
    site.cache.rules.disable("admin")
    site.fill("/admin/x")
    assert site.ask("/admin/x").is_hit
    site.cache.rules.enable("admin")
    assert site.ask("/admin/x").detail == "BYPASS_RULE"


def test_a_rule_is_switched_by_its_attribute_too():
    site = Site(rules=[Rule("/*", bypass=True, name="all")])
    site.cache.rules["all"].enabled = False
    assert site.cache.rules["all"].enabled is False
    site.fill()
    site.cache.rules["all"].enabled = True
    assert site.ask().detail == "BYPASS_RULE"


def test_a_switch_reaches_the_hit_path_at_once():
    site = Site(rules=[Rule("/*", bypass=True, name="all", enabled=False)])
    site.fill()
    for _ in range(3):
        assert site.ask().is_hit
    site.cache.rules.enable("all")
    assert site.ask().detail == "BYPASS_RULE"
    site.cache.rules.disable("all")
    assert site.ask().is_hit, "what was stored under the same rules is served again"


@pytest.mark.parametrize(
    "call",
    [lambda rules: rules.enable("nope"), lambda rules: rules.disable("nope"), lambda rules: rules["nope"]],
)
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(call):
    site = Site(rules=[Rule("/a", name="admin"), Rule("/b"), Rule("/c", name="static")])
    with pytest.raises(KeyError) as refused:
        call(site.cache.rules)
    assert "'nope'" in str(refused.value)
    assert "known: admin, static" in str(refused.value)


def test_where_no_rule_has_a_name_the_error_says_so():
    with pytest.raises(KeyError, match="none has a name"):
        Site(rules=[Rule("/a")]).cache.rules.disable("a")


def test_the_states_of_the_rules_are_told_for_people():
    site = Site(rules=[Rule("/a", name="one"), Rule("/b")])
    site.cache.rules.disable("one")
    assert [(state.label, state.pattern, state.enabled) for state in site.cache.rules.states()] == [
        ("one", "/a", False),
        ("/b", "/b", True),
    ]


def test_a_disabled_rule_does_not_hide_the_ones_after_it():
    site = Site(rules=[Rule("/*", ttl=5, name="one"), Rule("/*", ttl=7, name="two")])
    site.cache.rules.disable("one")
    assert site.fill().cache["ttl"] == "7"


def test_what_a_rule_stored_is_not_served_while_it_is_off_and_is_again_when_it_is_on():
    site = Site(control("no-cache", body=b"old"), rules=[Rule("/*", ttl=600, override=True, name="keep")])
    site.fill()
    site.cache.rules.disable("keep")
    site.app.answers(control("no-store", body=b"new"))
    reply = site.ask()
    assert (reply.cache["fwd"], reply.body) == ("uri-miss", b"new")
    assert site.cache.explain("http://example.com/").reason.name == "MISS_RULES"


def test_a_rule_that_is_switched_while_the_app_works_decides_what_is_served_afterwards():
    held = FirstHeld(PUBLIC)
    site = Site(held, rules=[Rule("/*", bypass=True, name="all", enabled=False)])
    first = Call(site.ask)
    held.wait()
    site.cache.rules.enable("all")
    held.let_go()
    assert first.result().body == b"page"
    assert site.ask().detail == "BYPASS_RULE"


def test_a_switch_of_one_cache_does_not_touch_another_with_its_own_rules():
    one, other = (
        Site(rules=[Rule("/*", bypass=True, name="a")]),
        Site(rules=[Rule("/*", bypass=True, name="a")]),
    )
    one.cache.rules.disable("a")
    assert other.ask().detail == "BYPASS_RULE"


# --- fingerprints: other rules, same store ----------------------------------------------------------


def caches(store, *configured):
    """Caches with different options over one store, as after a deploy."""
    clock = FakeClock()
    return [WSGICache(ScriptedApp(PUBLIC), store, clock=clock, **options) for options in configured]


TIGHTENED = [
    ({}, {"profile": "rfc"}),
    ({"profile": "rfc"}, {}),
    ({}, {"rules": [Rule("/*", vary="X-Part")]}),
    ({"rules": [Rule("/*", store_tokens=True)]}, {}),
    ({"rules": [Rule("/*", cookies="ignore")]}, {"rules": [Rule("/*", cookies="lang")]}),
    ({"rules": [Rule("/*", ttl=600, override=True)]}, {"rules": [Rule("/*", ttl=5, override=True)]}),
    ({"ttl": 600}, {"ttl": 5}),
    ({"harmless_cookies": "+theme"}, {}),
    ({"lookup_cookies": "+theme"}, {}),
    ({}, {"languages": "de,en"}),
    ({"drop_fields": "x-a"}, {}),
    ({"namespace": "one"}, {"namespace": "two"}),
    ({"namespace": "v1"}, {}),
]


@pytest.mark.parametrize(("before", "after"), TIGHTENED, ids=repr)
def test_what_was_stored_under_other_rules_is_a_miss(before, after):
    old, new, same = caches(MemoryStore(), before, after, before)
    assert ask(old).stored
    assert ask(same).is_hit, "the same configuration shares it"
    assert not ask(new).is_hit


def test_a_tightened_rule_reaches_what_is_stored_by_its_fill_too():
    store = MemoryStore()
    loose, tight = caches(store, {"rules": [Rule("/*", ttl=600)]}, {"rules": [Rule("/*", bypass=True)]})
    ask(loose)
    assert ask(tight).detail == "BYPASS_RULE"


def test_a_stale_page_of_another_rule_is_neither_shown_on_error_nor_validated():
    store = MemoryStore()
    loose, tight = caches(
        store, {"stale_if_error": 600}, {"rules": [Rule("/*", vary="X-Part", stale_if_error=600)]}
    )
    loose.app.answers(control("max-age=10", ("ETag", '"a"')))
    ask(loose)
    loose.engine.clock.wall.tick(20)
    tight.app.answers(page(status="500 Oops"))
    assert ask(tight).code == 500
    assert "HTTP_IF_NONE_MATCH" not in tight.app.seen[-1]
