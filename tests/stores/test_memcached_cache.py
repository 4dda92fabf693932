"""Caches over memcached and over caches of cachelib: what visitors see, and what the app does."""

import cachelib
import pytest
from servers_memcached import memcached

from wsgicache import Rule, WSGICache
from wsgicache.stores.cachelib import CachelibStore
from wsgicache.testing import Response, ScriptedApp, ask


@pytest.fixture(params=["one", "three", "files"])
def url(request, tmp_path):
    if request.param == "files":
        yield f"cachelib:FileSystemCache?cache_dir={tmp_path}&threshold=0"
        return
    with memcached() as a, memcached() as b, memcached() as c:
        servers = [server.address for server in (a, b, c)][: 1 if request.param == "one" else 3]
        yield f"memcached://{','.join(servers)}?timeout=5"


@pytest.fixture
def worker(url):
    """Make a cache with an app of its own, as one of several processes has it."""
    made = []

    def make(answer=lambda environ: Response(body=b"body"), **options):
        app = ScriptedApp(answer)
        made.append(WSGICache(app, url, **options))
        return made[-1], app

    yield make
    for cache in made:
        cache.store.close()


def test_what_one_stored_another_serves(worker):
    (one, app), (other, unused) = worker(), worker()
    assert not ask(one, "/a").is_hit
    for cache in (other, other, one, other):
        answer = ask(cache, "/a")
        assert answer.is_hit
        assert answer.body == b"body"
    assert (app.calls, unused.calls) == (1, 0)


def test_a_varying_page_is_shared_too(worker):
    def answer(environ):
        language = environ.get("HTTP_ACCEPT_LANGUAGE", "en")
        return Response(headers=[("Vary", "Accept-Language")], body=language.encode())

    (one, _), (other, unused) = worker(answer), worker(answer)
    for language in ("de", "en", "de", "en"):
        ask(one, "/a", headers={"Accept-Language": language})
        found = ask(other, "/a", headers={"Accept-Language": language})
        assert found.is_hit
        assert found.body == language.encode()
    assert not unused.calls


@pytest.mark.parametrize("how", ["url", "prefix", "group", "clear"])
def test_a_purge_is_seen_by_all_at_once(worker, how):
    answer = lambda environ: Response(headers=[("Cache-Groups", '"news"')], body=b"body")  # noqa: E731
    (one, _), (other, _) = worker(answer), worker(answer)
    for cache in (one, other, other):
        ask(cache, "/a/b")
    assert ask(other, "/a/b").is_hit
    {
        "url": lambda: one.purge("/a/b"),
        "prefix": lambda: one.purge_prefix("/a"),
        "group": lambda: one.purge_groups("news"),
        "clear": one.clear,
    }[how]()
    assert not ask(other, "/a/b").is_hit
    assert ask(one, "/a/b").is_hit


def test_a_switch_of_a_rule_reaches_all(worker):
    rules = [Rule("/x", name="x", bypass=True, enabled=False)]
    (one, _), (other, _) = worker(rules=rules), worker(rules=rules)
    for cache in (one, other):
        ask(cache, "/x")
    assert ask(other, "/x").is_hit
    one.rules["x"].enabled = True
    assert not ask(other, "/x").is_hit
    one.rules["x"].enabled = False
    ask(one, "/x")
    assert ask(other, "/x").is_hit


def test_without_its_servers_a_site_answers():
    with memcached() as server:
        app = ScriptedApp(lambda environ: Response(body=b"body"))
        cache = WSGICache(app, f"memcached://{server.address}?timeout=5")
        ask(cache, "/a")
        assert ask(cache, "/a").is_hit
        server.kill()
        for _ in range(3):
            answer = ask(cache, "/a")
            assert (answer.status, answer.body, answer.is_hit) == ("200 OK", b"body", False)
        assert app.calls == 4
        server.start()
        cache.store._home.breaker._reset()
        ask(cache, "/a")
        assert ask(cache, "/a").is_hit
        cache.store.close()


def test_a_store_is_handed_over_as_an_object():
    app = ScriptedApp(lambda environ: Response(body=b"body"))
    cache = WSGICache(app, CachelibStore(cachelib.SimpleCache()))
    ask(cache, "/a")
    assert ask(cache, "/a").is_hit
    assert app.calls == 1
