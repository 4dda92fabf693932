"""Targeted fields for this cache alone are consumed, others passed on (RFC 9213 §2.2, WSG-10)."""

from __future__ import annotations

import pytest

from wsgicache import Rule, WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

HEADERS = [
    ("Content-Type", "text/plain"),
    ("Wsgicache-Cache-Control", "max-age=60"),
    ("CDN-Cache-Control", "max-age=30"),
    ("Cache-Control", "no-store"),
]


@pytest.mark.parametrize("url", ["/", "/bypass"])
def test_ours_is_consumed_and_the_cdns_is_passed_on(url):
    app = ScriptedApp(Response(headers=HEADERS, body=b"x"))
    cache = WSGICache(app, clock=FakeClock(), rules=[Rule("/bypass", bypass=True)])
    for reply in (ask(cache, url), ask(cache, url)):
        assert reply.all("wsgicache-cache-control") == []
        assert reply.field("cdn-cache-control") == "max-age=30"
        assert reply.field("cache-control") == "no-store"
    assert ask(cache, url).is_hit == (url == "/")


def test_which_fields_are_consumed_is_an_option():
    app = ScriptedApp(Response(headers=HEADERS, body=b"x"))
    cache = WSGICache(app, clock=FakeClock(), consume_fields="CDN-Cache-Control")
    for reply in (ask(cache), ask(cache)):
        assert reply.field("wsgicache-cache-control") == "max-age=60"
        assert reply.all("cdn-cache-control") == []


def test_what_steered_the_lifetime_is_the_first_valid_targeted_field():
    app = ScriptedApp(Response(headers=HEADERS, body=b"x"))
    cache = WSGICache(app, clock=FakeClock())
    assert ask(cache).cache["ttl"] == "60"
