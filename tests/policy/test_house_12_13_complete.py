"""House rules 12 and 13: only complete responses are stored, and followers get what they could have had from
the store. How bytes pass through is tested in tests/wsgi; here it is what is decided."""

import pytest
from sites import Call, FirstHeld, Site, control, page

from wsgicache import Reason
from wsgicache.testing import make_environ


def begin(site, **request):
    """Call the cache as a server does, and return the iterable and what start_response got."""
    heads = []
    return site.cache(make_environ(**request), lambda *head: heads.append(head) or (lambda data: None)), heads


def raising(*chunks):
    """A body that raises after some chunks."""

    def body():
        yield from chunks
        raise RuntimeError("the body broke")

    return body


# --- 12: complete or not stored ---------------------------------------------------------------------


@pytest.mark.parametrize("length", ["5", "3", "0", "400"])
def test_a_body_of_another_length_than_announced_is_not_stored(length):
    for body in (b"page", [b"pa", b"ge"], lambda: iter([b"page"])):
        site = Site(page(("Content-Length", length), body=body))
        site.ask()
        assert not site.ask().is_hit
        assert site.count(Reason.NOT_STORED_INCOMPLETE) == 2


@pytest.mark.parametrize("length", ["", "x", "-4", "4.0", "0x4", "4, 5", "4 4", "\u0664"])
def test_a_length_that_is_none_is_not_stored(length):
    site = Site(page(("Content-Length", length)))
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_FIELDS"


@pytest.mark.parametrize("code", [204, 304])
def test_a_body_where_there_can_be_none_is_not_stored(code):
    site = Site(control("max-age=60", status=f"{code} X", body=b"page"))
    site.ask()
    assert not site.ask().is_hit


@pytest.mark.parametrize("chunks", [(), (b"",), (b"pa",), (b"page",)], ids=repr)
def test_a_body_that_raises_is_not_stored_and_the_error_goes_on(chunks):
    site = Site(page(body=raising(*chunks)))
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the body broke"):
            site.ask()
    assert site.cache.store.stats()["entries"] == 0
    assert site.app.closed == 2


@pytest.mark.parametrize("error", [RuntimeError("down"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_an_app_that_raises_is_not_hidden_and_nobody_waits_for_it(error):
    site = Site(page(error=error))
    with pytest.raises(type(error)):
        site.ask()
    site.app.answers(page())
    site.fill()


@pytest.mark.parametrize("pulled", [0, 1])
def test_an_early_close_is_not_stored(pulled):
    site = Site(page(body=lambda: iter([b"a", b"b", b"c"])))
    iterable, _ = begin(site)
    iterator = iter(iterable)
    for _ in range(pulled):
        next(iterator)
    iterable.close()
    assert site.app.closed == 1
    assert not site.ask().is_hit


def test_an_early_close_after_the_announced_length_is_complete():
    site = Site(page(("Content-Length", "1"), body=lambda: iter([b"a", b""])))
    iterable, _ = begin(site)
    next(iter(iterable))
    iterable.close()
    assert site.ask().is_hit


def test_a_whole_body_in_pieces_is_stored_whole():
    site = Site(page(body=lambda: iter([b"", b"a", b"", b"bc", b""])))
    assert site.ask().body == b"abc"
    reply = site.ask()
    assert (reply.is_hit, reply.body, reply.field("Content-Length")) == (True, b"abc", "3")


# --- 13: followers ----------------------------------------------------------------------------------


def together(site, held, others=3, **request):
    """One request that is held in the app and others that come meanwhile; their replies in order."""
    first = Call(site.ask)
    held.wait()
    rest = [Call(site.ask, **request) for _ in range(others)]
    flights = site.cache.engine.collapse._flights
    while sum(flight.followers for flight in [*flights.values()]) < others and site.app.calls < 1 + others:
        pass
    held.let_go()
    return first.result(), [started.result() for started in rest]


def test_followers_get_the_leaders_answer_where_it_is_stored():
    held = FirstHeld(page(body=b"shared"))
    site = Site(held)
    _, rest = together(site, held)
    assert site.app.calls == 1
    for reply in rest:
        assert (reply.body, "collapsed" in reply.cache) == (b"shared", True)


UNSHARED = {
    "private": control("private"),
    "Private": control("max-age=60 , Private"),
    "no-store": control("no-store"),
    "no-cache": control("no-cache"),
    "a cookie": page(("Set-Cookie", "session=a")),
    "an empty cookie": page(("Set-Cookie", "")),
    "Vary: *": page(("Vary", "*")),
    "stale": control("max-age=0"),
    "an error": page(status="500 Oops"),
    "a token": page(("Content-Type", "text/html"), body=b'<input name="csrf_token" value="a">'),
}


@pytest.mark.parametrize("answer", UNSHARED.values(), ids=UNSHARED)
def test_an_unstorable_answer_is_never_shared(answer):
    held = FirstHeld(answer)
    site = Site(held)
    _, rest = together(site, held)
    assert site.app.calls == 4
    for reply in rest:
        assert "collapsed" not in reply.cache
        assert not reply.is_hit


def test_an_answer_of_another_variant_is_never_shared():
    held = FirstHeld(page(("Vary", "X-Part")))
    site = Site(held)
    together(site, held, headers={"X-Part": "other"})
    assert "HTTP_X_PART" not in site.app.seen[0]
    assert site.app.calls >= 2
    assert site.last["HTTP_X_PART"] == "other"


@pytest.mark.parametrize("headers", [{"Cookie": "session=a"}, {"Authorization": "x"}], ids=repr)
def test_a_visitor_never_waits_for_an_anonymous_page(headers):
    held = FirstHeld(page())
    site = Site(held)
    first = Call(site.ask)
    held.wait()
    assert site.ask(headers=headers).cache["fwd"] == "bypass"
    held.let_go()
    assert first.result().stored


def test_an_anonymous_visitor_never_waits_for_a_personal_page():
    held = FirstHeld(page(body=b"somebody"))
    site = Site(held)
    first = Call(site.ask, headers={"Cookie": "session=a"})
    held.wait()
    assert site.ask().stored
    held.let_go()
    assert not first.result().stored


def test_a_leader_that_raises_strands_nobody():
    calls = []

    def answer(environ):
        calls.append(environ)
        if len(calls) == 1:
            held(environ)
            return page(error=RuntimeError("down"))
        return page()

    held = FirstHeld(page())
    site = Site(answer)
    first = Call(site.ask)
    held.wait()
    rest = [Call(site.ask) for _ in range(3)]
    held.let_go()
    with pytest.raises(RuntimeError):
        first.result()
    assert [started.result().body for started in rest] == [b"page"] * 3
