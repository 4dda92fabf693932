"""A stale window ends when the app says that the page is gone or not to be stored (RFC 9111 §4.2.4)."""

import pytest

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

PLAIN = ("Content-Type", "text/plain")


@pytest.mark.parametrize(
    ("status", "control"),
    [("404 Not Found", None), ("410 Gone", None), ("302 Found", None), ("200 OK", "private")],
)
def test_a_page_that_is_gone_is_not_shown_for_the_rest_of_its_window(status, control):
    app = ScriptedApp(Response(headers=[PLAIN, ("Cache-Control", "max-age=1, stale-while-revalidate=9999")]))
    clock = FakeClock()
    cache = WSGICache(app, clock=clock)
    ask(cache)
    clock.tick(2)
    app.answers(Response(status, [PLAIN, *([("Cache-Control", control)] if control else [])], b"gone"))
    assert ask(cache).detail == "HIT_STALE_WHILE_REVALIDATE"
    assert cache.engine.refresher.drain()
    reply = ask(cache)
    assert reply.cache["fwd"] == "uri-miss"
    assert (reply.status, reply.body, app.calls) == (status, b"gone", 3)
