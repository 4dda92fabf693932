"""What a cache has learned of one page, or under one set of options, says nothing of another."""

from wsgi_helpers import new_cache, text

from wsgicache.testing import Response, ScriptedApp, ask


def test_two_caches_in_one_process_keep_their_own_windows():
    page = Response(headers=text(("Cache-Control", "max-age=60")), body=b"page")
    for window in (0, 300, 0):
        app = ScriptedApp(page)
        cache = new_cache(app, stale_if_error=window)
        ask(cache)
        cache.fake_clock.tick(61)
        app.answers(Response(status="500 Internal Server Error"))
        assert ask(cache).code == (200 if window else 500)


def test_two_caches_in_one_process_keep_their_own_limits_of_groups():
    page = Response(headers=text(("Surrogate-Key", "a b c")), body=b"page")
    for limit, stored in ((64, True), (2, False), (64, True)):
        cache = new_cache(ScriptedApp(page), max_groups=limit)
        ask(cache)
        assert ask(cache).is_hit is stored


def test_a_page_that_stops_to_vary_does_not_make_others_vary():
    vary = [("Vary", "Accept-Language")]
    app = ScriptedApp(Response(headers=text(*vary), body=b"one"))
    cache = new_cache(app)
    ask(cache, "/varied")
    app.answers(Response(headers=text(), body=b"two"))
    ask(cache, "/varied", headers={"Accept-Language": "de"})
    ask(cache, "/plain", headers={"Accept-Language": "en"})
    assert ask(cache, "/plain", headers={"Accept-Language": "fr"}).is_hit
