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
    cache = WSGICache(app, clock=clock, profile="rfc")
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


def test_in_the_safe_profile_a_head_is_asked_as_a_get_and_its_answer_is_stored():
    app = ScriptedApp(response())
    cache = WSGICache(app, clock=FakeClock())
    first, second, third = ask(cache, method="HEAD"), ask(cache, method="HEAD"), ask(cache)
    assert first.stored
    assert second.is_hit
    assert third.is_hit
    assert [seen["REQUEST_METHOD"] for seen in app.seen] == ["GET"]
    assert (first.body, second.body, third.body, app.closed) == (b"", b"", b"page", 1)
    assert first.field("content-length") == second.field("content-length") == "4"


def test_a_head_with_a_visitors_cookie_stays_a_head():
    app = ScriptedApp(response())
    cache = WSGICache(app, clock=FakeClock())
    reply = ask(cache, method="HEAD", headers={"Cookie": "session=1"})
    assert reply.detail == "BYPASS_COOKIE"
    assert app.seen[0]["REQUEST_METHOD"] == "HEAD"


@pytest.mark.parametrize("chunks", [[b"pa", b"ge"], [b"page"]])
def test_a_streamed_body_of_a_head_is_read_for_the_store_alone(chunks):
    app = ScriptedApp(Response(headers=[("Content-Type", "text/plain")], body=lambda: iter(chunks)))
    cache = WSGICache(app, clock=FakeClock())
    assert ask(cache, method="HEAD").body == b""
    assert ask(cache).body == b"page"
    assert (app.calls, app.closed) == (1, 1)


def test_a_body_that_is_not_stored_is_not_read_for_a_head():
    pulled = []

    def chunks():
        for number in range(3):
            pulled.append(number)
            yield b"x"

    app = ScriptedApp(Response(headers=[("Cache-Control", "private")], body=chunks))
    assert ask(WSGICache(app, clock=FakeClock()), method="HEAD").detail == "NOT_STORED_PRIVATE"
    assert (pulled, app.closed) == ([], 1)
