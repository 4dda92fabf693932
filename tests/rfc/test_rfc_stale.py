"""Stale answers by permission: RFC 5861, RFC 9111 §4.2.4."""

import pytest
from rfc_helpers import Site, page

from wsgicache import Rule

TAG = 'ETag: "a"'


def while_revalidating(*lines, control="max-age=60, stale-while-revalidate=100", **options):
    site = Site(f"Cache-Control: {control}", *lines, **options)
    site.stored()
    return site


def behind(site, **environ):
    """One stale answer, and the refresh behind it brought to its end."""
    reply = site.get(**environ)
    assert site.cache.engine.refresher.drain()
    return reply


# --- stale-while-revalidate ------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [True, False])
@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize("seconds", [60, 61, 159])
def test_a_stale_answer_at_once_and_a_refresh_behind(seconds, profile, threads):
    """RFC 5861 §3: on a thread where the server has threads, after the response where it has none."""
    site = while_revalidating(TAG, profile=profile)
    site.tick(seconds)
    site.answers("Cache-Control: max-age=60", body=b"new")
    reply = behind(site, **{"wsgi.multithread": threads})
    assert reply.cache == {"hit": "", "ttl": str(60 - seconds), "detail": "HIT_STALE_WHILE_REVALIDATE"}
    assert (reply.body, reply.field("Age")) == (b"page", str(seconds))
    assert (site.calls, site.last["HTTP_IF_NONE_MATCH"]) == (2, '"a"')
    fresh = site.get()
    assert (fresh.cache, fresh.body, site.calls) == ({"hit": "", "ttl": "60"}, b"new", 2)


def test_the_refresh_may_be_a_validation():
    """RFC 5861 §3 with RFC 9111 §4.3."""
    site = while_revalidating(TAG)
    site.tick(70)
    site.answers(TAG, "Cache-Control: max-age=60", status="304 Not Modified", body=b"")
    assert behind(site).body == b"page"
    fresh = site.get()
    assert (fresh.cache, fresh.body, site.calls) == ({"hit": "", "ttl": "60"}, b"page", 2)


def test_after_the_window_the_client_waits():
    """RFC 5861 §3: so many seconds after the lifetime and no longer."""
    site = while_revalidating(TAG)
    site.tick(160)
    reply = behind(site)
    assert (reply.cache["fwd"], site.calls) == ("stale", 2)


@pytest.mark.parametrize("window", ["0", "junk", "-1", "100, stale-while-revalidate=5", "1.5"])
def test_a_window_that_makes_no_sense_is_none(window):
    """RFC 5861 §3 in the manner of RFC 9111 §4.2.1: what cannot be read permits nothing."""
    site = while_revalidating(TAG, control=f"max-age=60, stale-while-revalidate={window}")
    site.tick(70)
    assert behind(site).cache["fwd"] == "stale"


def test_the_refresh_asks_as_nobody():
    """RFC 5861 §3 leaves open who asks; ours holds the key's inputs and nothing of the visitor (WSG-05)."""
    site = while_revalidating("Vary: X-Flavour", TAG)
    site.get(headers={"X-Flavour": "sweet"})
    site.tick(70)
    headers = {
        "X-Flavour": "sweet",
        "Cookie": "s=1",
        "Range": "bytes=0-1",
        "User-Agent": "me",
        "Via": "1.1 x",
    }
    behind(site, headers=headers, REMOTE_ADDR="192.0.2.1")
    assert (site.last["HTTP_X_FLAVOUR"], site.last["REQUEST_METHOD"]) == ("sweet", "GET")
    assert not {"HTTP_COOKIE", "HTTP_RANGE", "HTTP_USER_AGENT", "HTTP_VIA", "REMOTE_ADDR"} & set(site.last)


def test_one_refresh_at_a_time():
    """RFC 5861 §3 does not want a stampede."""
    site = while_revalidating(TAG)
    site.tick(70)
    gate = site.app.hold("/")
    for _ in range(5):
        assert site.get().detail == "HIT_STALE_WHILE_REVALIDATE"
    gate.wait_entered()
    gate.open()
    assert site.cache.engine.refresher.drain()
    assert (site.get().cache["ttl"], site.calls) == ("60", 2)


@pytest.mark.parametrize("error", [None, OSError("down")])
def test_a_refresh_that_fails_leaves_the_stale_page_for_its_window(error):
    """RFC 5861 §3: and the next attempt waits a little (TIM-09)."""
    site = while_revalidating()
    site.tick(70)
    site.answers(status="503 Service Unavailable", error=error)
    for _ in range(4):
        assert behind(site).body == b"page"
    assert site.calls == 2
    site.answers("Cache-Control: max-age=60", body=b"new")
    site.tick(10)
    assert behind(site).body == b"page"
    assert (site.get().body, site.calls) == (b"new", 3)


def test_a_refresh_that_must_not_be_stored_ends_the_matter():
    """RFC 5861 §3, RFC 9111 §5.2.2.5."""
    site = while_revalidating()
    site.tick(70)
    site.answers("Cache-Control: no-store", body=b"yours")
    assert behind(site).body == b"page"
    assert site.calls == 2
    site.tick(100)
    assert site.get().body == b"yours"


def test_head_and_conditions_are_answered_in_the_window_too():
    """RFC 5861 §3."""
    site = while_revalidating(TAG)
    site.tick(70)
    assert site.ask("HEAD").detail == "HIT_STALE_WHILE_REVALIDATE"
    assert site.cache.engine.refresher.drain()
    site.tick(70)
    assert site.get(headers={"If-None-Match": '"a"'}).code == 304
    assert site.cache.engine.refresher.drain()


# --- stale-if-error --------------------------------------------------------------------------------

IF_ERROR = "max-age=60, stale-if-error=100"


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize("status", ["500 So", "502 So", "503 So", "504 So", "599 So"])
def test_a_stale_answer_instead_of_an_error(status, profile):
    """RFC 5861 §4: for a 5xx, and it says so."""
    site = while_revalidating(TAG, control=IF_ERROR, profile=profile)
    site.tick(70)
    site.answers(status=status, body=b"down")
    reply = site.get()
    assert (reply.status, reply.body, reply.field("Age")) == ("200 OK", b"page", "70")
    assert reply.cache == {
        "fwd": "stale",
        "fwd-status": status[:3],
        "ttl": "-10",
        "detail": "HIT_STALE_IF_ERROR",
    }
    assert (site.calls, site.last["HTTP_IF_NONE_MATCH"]) == (2, '"a"')


def test_a_stale_answer_instead_of_an_exception():
    """RFC 5861 §4: an app that raises would have been a 500."""
    site = while_revalidating(control=IF_ERROR)
    site.tick(70)
    site.answers(error=OSError("down"))
    reply = site.get()
    assert (reply.code, reply.body, reply.cache["fwd"], reply.cache["ttl"]) == (200, b"page", "stale", "-10")
    site.answers("Cache-Control: max-age=60", body=b"new")
    assert (site.get().body, site.calls) == (b"new", 3)


@pytest.mark.parametrize("status", ["400 So", "404 So", "410 So", "403 So", "302 So"])
def test_what_is_no_error_of_the_server_is_passed_on(status):
    """RFC 5861 §4: 500, 502, 503 and 504 are; a 404 is an answer."""
    site = while_revalidating(control=IF_ERROR)
    site.tick(70)
    site.answers(status=status, body=b"that")
    assert (site.get().body, site.calls) == (b"that", 2)


def test_after_the_window_the_error_is_passed_on():
    """RFC 5861 §4."""
    site = while_revalidating(TAG, control=IF_ERROR)
    site.tick(160)
    site.answers(status="503 So", body=b"down")
    assert site.get().body == b"down"
    site.answers(error=OSError("down"))
    with pytest.raises(OSError, match="down"):
        site.get()


def test_without_a_window_the_error_is_passed_on():
    """RFC 9111 §4.2.4."""
    site = while_revalidating(TAG, control="max-age=60")
    site.tick(70)
    site.answers(status="503 So", body=b"down")
    assert (site.get().body, site.calls) == (b"down", 2)


def test_an_error_does_not_replace_the_page():
    """RFC 5861 §4, CPD-12: an error that may be stored is not stored over the page that stands in for it."""
    site = while_revalidating(control=IF_ERROR)
    site.tick(70)
    site.answers("Cache-Control: max-age=600", status="503 So", body=b"down")
    assert [site.get().body for _ in range(3)] == [b"page"] * 3
    assert site.calls == 4


def test_a_stored_error_does_not_stand_in_for_another():
    """RFC 5861 §4: the cache's own window is for pages."""
    site = Site("Cache-Control: max-age=60", status="503 So", body=b"first", stale_if_error=100)
    site.stored()
    site.tick(70)
    site.answers(status="503 So", body=b"second")
    assert (site.get().body, site.calls) == (b"second", 2)


def test_a_client_that_has_the_stale_page_gets_a_304():
    """RFC 5861 §4, RFC 9111 §4.3.2."""
    site = while_revalidating(TAG, control=IF_ERROR)
    site.tick(70)
    site.answers(status="503 So")
    reply = site.get(headers={"If-None-Match": '"a"'})
    assert (reply.code, reply.detail) == (304, "HIT_STALE_IF_ERROR")


# --- both, and who says so -------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["stale_while_revalidate", "stale_if_error"])
@pytest.mark.parametrize("control", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
def test_never_past_a_prohibition(control, option):
    """RFC 9111 §4.2.4: must-revalidate and its like beat the response's windows and the cache's."""
    stated = "stale-while-revalidate=100, stale-if-error=100"
    site = while_revalidating(TAG, control=f"max-age=60, {control}, {stated}", **{option: 100})
    site.tick(70)
    site.answers(status="503 So", body=b"down")
    assert (behind(site).body, site.calls) == (b"down", 2)


def test_a_window_may_come_from_the_cache_or_a_rule():
    """RFC 9111 §4.2.4: configuration by arrangement with the origin; the response's own window wins."""
    site = while_revalidating(control="max-age=60", stale_if_error=100)
    site.tick(159)
    site.answers(status="503 So", body=b"down")
    assert site.get().body == b"page"
    ruled = while_revalidating(
        control="max-age=60",
        stale_if_error=5,
        rules=[Rule("/", stale_if_error=100, stale_while_revalidate=20)],
    )
    ruled.tick(79)
    ruled.answers(status="503 So", body=b"down")
    assert behind(ruled).detail == "HIT_STALE_WHILE_REVALIDATE"
    ruled.tick(1)
    assert behind(ruled).detail == "HIT_STALE_IF_ERROR"
    stated = while_revalidating(control="max-age=60, stale-if-error=5", stale_if_error=100)
    stated.tick(66)
    stated.answers(status="503 So", body=b"down")
    assert stated.get().body == b"down"


def test_a_soft_purge_uses_the_windows_and_does_not_lengthen_them():
    """TIM-10: marked stale now; its total life is what it was."""
    site = while_revalidating(TAG)
    site.cache.purge("/", soft=True)
    site.app.answers(lambda environ: page("Cache-Control: max-age=60", body=b"new"))
    assert behind(site).body == b"page"
    assert (site.get().body, site.calls) == (b"new", 2)
    late = while_revalidating(TAG)
    late.tick(159)
    late.cache.purge("/", soft=True)
    late.tick(1)
    assert behind(late).cache["fwd"] == "stale"


def test_stale_answers_are_counted():
    """House rule 18: trouble is always recorded."""
    site = while_revalidating(control=f"{IF_ERROR}, stale-while-revalidate=5")
    site.tick(61)
    site.answers(status="503 So")
    behind(site)
    site.tick(10)
    site.get()
    reasons = site.cache.stats()["reasons"]
    assert (reasons["HIT_STALE_WHILE_REVALIDATE"], reasons["HIT_STALE_IF_ERROR"]) == (1, 1)
