"""No-Vary-Search (draft-ietf-httpbis-no-vary-search): off by default, by the draft where it is on."""

from __future__ import annotations

import pytest

from wsgicache import Rule, WSGICache
from wsgicache.search import SearchRules, search_rules
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


def response(no_vary_search: str | None, body: bytes = b"page") -> Response:
    headers = [("Content-Type", "text/plain"), ("Cache-Control", "max-age=60")]
    if no_vary_search is not None:
        headers.append(("No-Vary-Search", no_vary_search))
    return Response(headers=headers, body=body)


def cache_of(app: ScriptedApp, **options: object) -> WSGICache:
    return WSGICache(app, profile="rfc", clock=FakeClock(), **{"no_vary_search": True, **options})


@pytest.mark.parametrize(
    ("value", "rules"),
    [
        ("params", SearchRules(True, (), (), False)),
        ("params=?1", SearchRules(True, (), (), False)),
        ('params=("a" "b")', SearchRules(False, ("a", "b"), (), False)),
        ('params, except=("q")', SearchRules(True, (), ("q",), False)),
        ("key-order", SearchRules(False, (), (), True)),
        ('key-order, params=("a")', SearchRules(False, ("a",), (), True)),
        ("params=?0", None),
        ('except=("q")', None),
        ('params=("a"), except=("q")', None),
        ("params=a", None),
        ("params=(a b)", None),
        ("params=1", None),
        ("key-order=1", None),
        ('params=("a"', None),
        ("", None),
    ],
)
def test_the_field_is_a_structured_dictionary(value, rules):
    assert search_rules(value) == rules


@pytest.mark.parametrize(
    ("value", "query", "normal"),
    [
        ("params", "a=1&b=2", ""),
        ('params, except=("q")', "utm=1&q=x&q=y", "q=x&q=y"),
        ('params=("utm")', "q=x&utm=1&p=y", "q=x&p=y"),
        ('params=("u m")', "u+m=1&u%20m=2&a=1", "a=1"),
        ("key-order", "b=1&a=2&b=0", "a=2&b=1&b=0"),
        ('params=("utm")', "utm=1;q=evil", "utm=1;q=evil"),
    ],
)
def test_queries_are_compared_as_the_field_says(value, query, normal):
    rules = search_rules(value)
    assert rules is not None
    assert rules.apply(query) == normal


def test_parameters_that_do_not_count_share_one_entry():
    app = ScriptedApp(response('params=("utm")'))
    cache = cache_of(app)
    assert ask(cache, "/s?q=1&utm=a").stored
    assert ask(cache, "/s?q=1&utm=b").is_hit
    assert ask(cache, "/s?q=1").is_hit
    assert ask(cache, "/s?q=2").cache["fwd"] == "uri-miss"
    assert [seen["QUERY_STRING"] for seen in app.seen] == ["q=1&utm=a", "q=2"]


def test_it_is_a_draft_so_it_is_off_by_default():
    app = ScriptedApp(response("params"))
    cache = cache_of(app, no_vary_search=False)
    ask(cache, "/s?q=1")
    assert ask(cache, "/s?q=2").cache["fwd"] == "uri-miss"
    assert app.calls == 2


def test_in_the_safe_profile_it_needs_a_rule_that_keys_the_query():
    app = ScriptedApp(response('params=("utm")'))
    cache = WSGICache(app, no_vary_search=True, rules=[Rule("/s", query="key")])
    ask(cache, "/s?q=1&utm=a")
    assert ask(cache, "/s?q=1&utm=b").is_hit
    assert ask(cache, "/other?q=1").detail == "BYPASS_QUERY"


def test_responses_that_disagree_fall_back_to_a_miss():
    app = ScriptedApp(response('params=("utm")', b"old"))
    cache = cache_of(app)
    ask(cache, "/s?q=1&utm=a")
    app.answers(response(None, b"new"))
    assert ask(cache, "/s?q=2&utm=a").cache["fwd"] == "uri-miss"
    third = ask(cache, "/s?q=3&utm=a")
    fourth = ask(cache, "/s?q=3&utm=b")
    assert third.cache["fwd"] == fourth.cache["fwd"] == "uri-miss"
    assert (fourth.body, app.calls) == (b"new", 4)


def test_a_purge_reaches_what_is_stored_under_another_query():
    app = ScriptedApp(response('params=("utm")'))
    cache = cache_of(app)
    ask(cache, "/s?q=1&utm=a")
    cache.purge("/s")
    assert ask(cache, "/s?q=1&utm=b").detail == "MISS_PURGED"


def test_another_path_is_not_touched():
    app = ScriptedApp(lambda environ: response("params" if environ["PATH_INFO"] == "/a" else None))
    cache = cache_of(app)
    ask(cache, "/a?x=1")
    ask(cache, "/b?x=1")
    assert ask(cache, "/a?x=2").is_hit
    assert not ask(cache, "/b?x=2").is_hit
