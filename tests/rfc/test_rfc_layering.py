"""Caches in a row: RFC 9111 §4.2.3, RFC 9211 §2, RFC 9213."""

import pytest
from rfc_helpers import Site, at, members, page

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, ScriptedApp, ask


class Row:
    """Two caches in a row with clocks of their own: `outer` is nearer to the client."""

    def __init__(self, *lines, outer=None, **options):
        self.clock = FakeClock()
        self.app = ScriptedApp(page(*lines))
        shared = {"profile": "rfc", "clock": self.clock, **options}
        self.inner = WSGICache(self.app, **shared)
        self.outer = WSGICache(self.inner, **{**shared, **(outer or {})})

    def get(self, headers=None):
        return ask(self.outer, "/", "GET", headers)

    def statuses(self, reply):
        return [{key: str(value) for key, value in parameters.items()} for _, parameters in members(reply)]


FRESH = "Cache-Control: max-age=600"


def test_members_append_and_ages_add_up():
    """RFC 9211 §2, RFC 9111 §4.2.3: the outer cache takes over the age that the inner one tells."""
    row = Row(FRESH)
    first = row.get()
    assert [status["fwd"] for status in row.statuses(first)] == ["uri-miss", "uri-miss"]
    row.clock.tick(100)
    row.outer.clear()
    second = row.get()
    inner, outer = row.statuses(second)
    assert (inner, outer["fwd"], outer["ttl"]) == ({"hit": "True", "ttl": "500"}, "uri-miss", "500")
    assert second.all("Age") == ["100"]
    row.clock.tick(50)
    third = row.get()
    assert third.all("Age") == ["150"]
    assert row.statuses(third)[-1] == {"hit": "True", "ttl": "450"}
    assert row.app.calls == 1


def test_both_become_stale_at_the_same_time():
    """RFC 9111 §4.2.3: no second lifetime is added by a second cache."""
    row = Row(FRESH, 'ETag: "a"')
    row.get()
    row.clock.tick(300)
    row.outer.clear()
    row.get()
    row.clock.tick(299)
    assert "hit" in row.statuses(row.get())[-1]
    row.clock.tick(1)
    inner, outer = row.statuses(row.get())
    assert (inner["fwd"], outer["fwd"], row.app.calls) == ("stale", "stale", 2)


def test_a_validation_of_the_outer_is_answered_by_the_inner():
    """RFC 9111 §4.3: with a 304 and its age."""
    row = Row(FRESH, 'ETag: "a"', outer={"targeted_fields": ["edge-cache-control"]})
    row.app.answers(page(FRESH, "Edge-Cache-Control: max-age=10", 'ETag: "a"'))
    row.get()
    row.clock.tick(20)
    reply = row.get()
    inner, outer = row.statuses(reply)
    assert inner == {"hit": "True", "ttl": "580"}
    assert (outer["fwd"], outer["fwd-status"]) == ("stale", "304")
    assert (reply.code, reply.body, reply.all("Age"), row.app.calls) == (200, b"page", ["20"], 1)


def test_an_unsafe_request_invalidates_in_both():
    """RFC 9111 §4.4."""
    row = Row(FRESH)
    row.get()
    ask(row.outer, "/", "POST")
    assert [status["fwd"] for status in row.statuses(row.get())] == ["uri-miss", "uri-miss"]
    assert row.app.calls == 3


def test_behind_another_cache_its_age_counts():
    """RFC 9111 §4.2.3: a shared cache between the app and us, such as a gateway's."""
    site = Site(
        "Cache-Control: max-age=100",
        "Age: 60",
        f"Date: {at(-60)}",
        "Via: 1.1 gateway",
        "Cache-Status: Gate; hit",
    )
    first = site.stored()
    assert (first.cache["ttl"], first.all("Age")) == ("40", ["60"])
    site.tick(30)
    hit = site.get()
    assert (hit.all("Age"), hit.cache["ttl"], hit.field("Via")) == (["90"], "10", "1.1 gateway")
    site.tick(10)
    assert site.get().cache["fwd"] == "stale"


def test_the_inner_consumes_its_own_targeted_field():
    """RFC 9213 §2.2, WSG-10: what is for one cache is read once; what is for CDNs goes on."""
    row = Row(
        "Wsgicache-Cache-Control: max-age=10", "CDN-Cache-Control: max-age=600", "Cache-Control: max-age=30"
    )
    inner, outer = row.statuses(row.get())
    assert (inner["ttl"], outer["ttl"]) == ("10", "600")
    hit = row.get()
    assert hit.field("Wsgicache-Cache-Control") is None
    assert hit.field("CDN-Cache-Control") == "max-age=600"


@pytest.mark.parametrize("headers", [{"Cache-Control": "no-cache"}, {"Cache-Control": "max-age=0"}])
def test_a_request_directive_goes_through_both(headers):
    """RFC 9111 §5.2.1: each cache on the way hears it."""
    row = Row(FRESH)
    row.get()
    row.clock.tick(1)
    inner, outer = row.statuses(row.get(headers))
    assert (inner["fwd"], outer["fwd"], row.app.calls) == ("request", "request", 2)


def test_a_304_passes_through_both():
    """RFC 9110 §13.1.2."""
    row = Row(FRESH, 'ETag: "a"')
    reply = row.get({"If-None-Match": '"a"'})
    assert (reply.code, row.app.calls) == (304, 1)
    assert row.get().body == b"page"
