"""A HEAD that reaches the app freshens the stored GET or shows it to be out of date (RFC 9111 §4.3.5)."""

from __future__ import annotations

import pytest

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


def response(etag: str = '"a"', length: str = "4", **fields: str) -> Response:
    headers = [("Content-Type", "text/plain"), ("ETag", etag), ("Content-Length", length)]
    headers += [("Cache-Control", "max-age=10"), *fields.items()]
    return Response(headers=headers, body=b"page")


def stale_cache(app: ScriptedApp) -> tuple[WSGICache, FakeClock]:
    clock = FakeClock()
    cache = WSGICache(app, clock=clock)
    ask(cache)
    clock.tick(11)
    return cache, clock


def test_the_same_validators_freshen():
    app = ScriptedApp(response())
    cache, _ = stale_cache(app)
    app.answers(response(**{"X-New": "yes"}))
    assert ask(cache, method="HEAD").cache["fwd"] == "stale"
    reply = ask(cache)
    assert reply.is_hit
    assert (reply.field("x-new"), reply.field("age"), reply.body) == ("yes", "0", b"page")
    assert app.calls == 2


@pytest.mark.parametrize("changed", [{"etag": '"b"'}, {"length": "5"}])
def test_other_validators_or_another_length_invalidate(changed):
    app = ScriptedApp(response())
    cache, _ = stale_cache(app)
    app.answers(response(**changed))
    ask(cache, method="HEAD")
    app.answers(response())
    assert ask(cache).cache["fwd"] == "uri-miss"
    assert "HTTP_IF_NONE_MATCH" not in app.seen[-1]


def test_an_answer_without_validators_says_nothing():
    app = ScriptedApp(response())
    cache, _ = stale_cache(app)
    app.answers(Response(headers=[("Content-Type", "text/plain")], body=b""))
    ask(cache, method="HEAD")
    assert ask(cache).cache["fwd"] == "stale"


def test_an_error_says_nothing():
    app = ScriptedApp(response())
    cache, _ = stale_cache(app)
    app.answers(Response("503 Service Unavailable", body=b""))
    ask(cache, method="HEAD")
    app.answers(response())
    assert ask(cache).cache["fwd"] == "stale"


def test_a_purge_during_the_head_is_not_undone():
    app = ScriptedApp(response())
    cache, _ = stale_cache(app)

    def purging(environ: dict[str, object]) -> Response:
        cache.purge("/")
        return response()

    app.answers(purging)
    ask(cache, method="HEAD")
    app.answers(response())
    assert ask(cache).cache["fwd"] == "uri-miss"
