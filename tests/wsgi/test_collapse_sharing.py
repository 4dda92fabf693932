"""Collapsing in a process, with real threads and gates: one call of the app for all who ask at once, and
nobody gets what they could not have got from the store (house rule 13)."""

import threading

import pytest
from wsgi_helpers import PATIENCE, Call, Exchange, Waiters, count, flights, new_cache, results, text

from wsgicache import Reason, Rule
from wsgicache.testing import FailingStore, Response, ScriptedApp, ask


class Scene:
    """An app held at a gate, a cache before it, and requests on threads."""

    def __init__(self, answer=None, **options):
        self.app = ScriptedApp(answer or Response(body=b"page"))
        self.cache = new_cache(self.app, **options)
        self.waiters = Waiters(self.cache)
        self.gate = self.app.hold("/")

    def request(self, **kwargs):
        return Call(ask, self.cache, kwargs.pop("url", "/"), **kwargs)

    def leader(self, **kwargs):
        """A request that is inside the app when this returns."""
        call = self.request(**kwargs)
        self.gate.wait_entered()
        return call

    def followers(self, number=1, **kwargs):
        """Requests that wait for the leader when this returns."""
        calls = [self.request(**kwargs) for _ in range(number)]
        self.waiters.arrived(number)
        return calls


def test_fifty_threads_on_one_cold_page_run_the_app_once():
    scene = Scene()
    calls = [scene.request() for _ in range(50)]
    scene.gate.wait_entered()
    scene.waiters.arrived(49)
    scene.gate.open()
    replies = results(calls)
    assert scene.app.calls == 1
    assert {(reply.status, reply.body) for reply in replies} == {("200 OK", b"page")}
    collapsed = [reply for reply in replies if "collapsed" in reply.cache]
    assert len(collapsed) == 49
    for reply in collapsed:
        assert reply.cache == {
            "fwd": "uri-miss", "fwd-status": "200", "collapsed": "", "ttl": "300"
        }  # fmt: skip
        assert reply.field("age") == "0"
        assert reply.field("content-length") == "4"
    assert flights(scene.cache) == 0
    assert scene.cache.stats()["collapsed"] == 49
    assert scene.cache.stats()["requests"] == 50
    assert ask(scene.cache).is_hit


@pytest.mark.parametrize(
    ("age", "seen"),
    [
        (0, {"fwd": "uri-miss", "fwd-status": "200", "collapsed": "", "ttl": "300"}),
        (301, {"hit": "", "ttl": "-1", "detail": "HIT_STALE_WHILE_REVALIDATE"}),
    ],
    ids=["fresh", "stale already"],
)
def test_a_whole_flight_between_the_look_and_the_lead_is_not_flown_again(monkeypatch, age, seen):
    """Who was too late to follow is answered by what was stored meanwhile, and so is who follows it."""
    app = ScriptedApp(Response(body=b"page", headers=text(("Cache-Control", "stale-while-revalidate=60"))))
    cache = new_cache(app)
    collapse = cache.engine.collapse
    board = collapse.board

    def late(*given, **options):
        monkeypatch.setattr(collapse, "board", board)
        assert ask(cache).stored
        cache.fake_clock.tick(age)
        return board(*given, **options)

    monkeypatch.setattr(collapse, "board", late)
    reply = ask(cache)
    assert (reply.cache, reply.body) == (seen, b"page")
    assert flights(cache) == 0
    assert cache.engine.refresher.drain()
    assert app.calls == (1 if age == 0 else 2), "one behind it, where it is stale"


def test_a_page_that_is_over_is_looked_for_once(monkeypatch):
    """What stands in its place is what was found: nobody was there in between."""
    cache = new_cache(ScriptedApp(Response(body=b"page", headers=text(("Cache-Control", "max-age=60")))))
    look_up, looks = cache.engine.look_up, []
    monkeypatch.setattr(cache.engine, "look_up", lambda *given: looks.append(given) or look_up(*given))
    for _ in range(3):
        assert ask(cache).stored
        cache.fake_clock.tick(61)
    assert len(looks) == 3


def test_other_pages_do_not_wait():
    scene = Scene()
    leader = scene.leader()
    assert ask(scene.cache, "/other").body == b"page"
    assert ask(scene.cache, "http://other.example/other").body == b"page"
    scene.gate.open()
    assert leader.result().body == b"page"


def test_a_follower_gets_its_own_304():
    scene = Scene(Response(headers=text(("ETag", '"v1"')), body=b"page"))
    leader = scene.leader()
    [follower] = scene.followers(headers={"If-None-Match": '"v1"'})
    scene.gate.open()
    leader.result()
    reply = follower.result()
    assert (reply.code, reply.body) == (304, b"")
    assert "collapsed" in reply.cache


def test_a_leader_that_gets_its_304_shares_the_whole_page():
    scene = Scene(Response(headers=text(("ETag", '"v1"')), body=[b"pa", b"ge"]))
    leader = scene.leader(headers={"If-None-Match": '"v1"'})
    [follower] = scene.followers()
    scene.gate.open()
    assert leader.result().code == 304
    assert (follower.result().code, follower.result().body) == (200, b"page")
    assert scene.app.calls == 1


def test_one_revalidation_for_all_who_ask_for_a_stale_page():
    scene = Scene(Response(headers=text(("ETag", '"v1"')), body=b"page"))
    scene.app.release("/")
    ask(scene.cache)
    scene.cache.fake_clock.tick(301)
    scene.app.answers(Response(status="304 Not Modified", headers=[("ETag", '"v1"')]))
    scene.gate = scene.app.hold("/")
    leader = scene.leader()
    followers = scene.followers(5)
    scene.gate.open()
    assert leader.result().stored
    for reply in results(followers):
        assert (reply.body, reply.cache["fwd"]) == (b"page", "stale")
        assert "collapsed" in reply.cache
    assert scene.app.calls == 2


def test_a_stale_page_answers_all_while_the_app_fails():
    """Those who wait for a refresh that fails take the stale page too: a sick app is not asked by each."""
    scene = Scene(Response(headers=text(("Cache-Control", "max-age=1, stale-if-error=99")), body=b"page"))
    scene.app.release("/")
    ask(scene.cache)
    scene.cache.fake_clock.tick(9)
    scene.app.answers(Response(status="500 Internal Server Error", body=b"oops"))
    scene.gate = scene.app.hold("/")
    leader = scene.leader()
    followers = scene.followers(10)
    scene.gate.open()
    for reply in [leader.result(), *results(followers)]:
        assert reply.body == b"page"
        assert (reply.cache["fwd"], reply.detail) == ("stale", "HIT_STALE_IF_ERROR")
    assert scene.app.calls == 2
    assert count(scene.cache, Reason.HIT_STALE_IF_ERROR) == 11
    assert scene.cache.stats()["collapsed"] == 10


# --- CON-05, CON-06: answers that are for one client -----------------------------------------------

UNSTORABLE = [
    Response(headers=text(("Cache-Control", "private"))),
    Response(headers=text(("Cache-Control", "Private, max-age=60"))),
    Response(headers=text(("Cache-Control", "no-store"))),
    Response(headers=text(("Set-Cookie", "session=1"))),
    Response(headers=text(("Vary", "*"))),
    Response(headers=text(("Vary", "Accept, *"))),
    Response(headers=[("Content-Type", "text/event-stream")]),
    Response(status="500 Internal Server Error"),
    Response(status="404 Not Found"),
]


@pytest.mark.parametrize("answer", UNSTORABLE, ids=lambda answer: f"{answer.status} {answer.headers[-1]}")
def test_con_05_unstorable_answers_are_never_shared_and_followers_go_in_parallel(answer):
    everybody = threading.Barrier(8)

    def personal(environ):
        if "HTTP_X_LEADER" not in environ:
            everybody.wait(PATIENCE)  # breaks unless all followers are in the app at once
        return Response(answer.status, answer.headers, environ["HTTP_X_NAME"].encode())

    scene = Scene(personal)
    leader = scene.leader(headers={"X-Name": "leader", "X-Leader": "1"})
    followers = [scene.request(headers={"X-Name": f"{number}"}) for number in range(8)]
    scene.waiters.arrived(8)
    scene.gate.open()
    assert leader.result().body == b"leader"
    for number, follower in enumerate(followers):
        reply = follower.result()
        assert reply.body == f"{number}".encode()
        assert "collapsed" not in reply.cache
        assert not reply.stored
        assert reply.detail == leader.result().detail
    assert scene.app.calls == 9
    assert count(scene.cache, Reason.MISS_MARKER) == 8
    assert scene.cache.engine.markers.has("/\0\0example.com\0http", scene.cache.fake_clock())
    assert flights(scene.cache) == 0


def test_con_05_what_the_store_refuses_is_not_queued_for():
    """It says nothing of the page, so there is no marker; those who waited still go in parallel."""
    everybody = threading.Barrier(4)

    def answer(environ):
        if "HTTP_X_LEADER" not in environ:
            everybody.wait(PATIENCE)
        return Response(body=b"page")

    store = FailingStore()
    scene = Scene(answer, store=store)
    leader = scene.leader(headers={"X-Leader": "1"})
    followers = scene.followers(4)
    store.failing = {"set"}
    scene.gate.open()
    assert {reply.body for reply in [leader.result(), *results(followers)]} == {b"page"}
    assert scene.app.calls == 5


def test_con_05_an_answer_that_turns_out_too_large_releases_at_once():
    scene = Scene(Response(body=[b"x" * 60, b"y" * 60, b"z"]), max_body_bytes=100, slow_client_grace=99)
    scene.app.release("/")
    leader = Exchange(scene.cache).begin()
    leader.pull()
    followers = scene.followers(3)
    leader.pull()
    assert {reply.body for reply in results(followers)} == {b"x" * 60 + b"y" * 60 + b"z"}
    leader.rest().close()
    assert leader.body == b"x" * 60 + b"y" * 60 + b"z"


def test_con_06_the_marker_keeps_later_requests_from_queueing():
    scene = Scene(Response(headers=text(("Cache-Control", "private")), body=b"mine"))
    scene.app.release("/")
    assert ask(scene.cache).detail == "NOT_STORED_PRIVATE"
    gate = scene.app.hold("/")
    calls = [scene.request() for _ in range(20)]
    gate.wait_entered(20)
    gate.open()
    assert {reply.detail for reply in results(calls)} == {"NOT_STORED_PRIVATE"}
    assert count(scene.cache, Reason.MISS_MARKER) == 20


def test_con_06_the_marker_ends_with_its_time():
    scene = Scene(Response(headers=text(("Cache-Control", "private"))), miss_marker=10)
    scene.app.release("/")
    ask(scene.cache)
    ask(scene.cache)
    assert count(scene.cache, Reason.MISS_MARKER) == 1
    scene.cache.fake_clock.tick(11)
    ask(scene.cache)
    assert count(scene.cache, Reason.MISS_MARKER) == 1


def test_con_06_the_marker_ends_with_a_storable_answer():
    scene = Scene(Response(headers=text(("Cache-Control", "private"))))
    scene.app.release("/")
    ask(scene.cache)
    scene.app.answers(Response(body=b"page"))
    assert ask(scene.cache).stored
    assert ask(scene.cache).is_hit
    scene.cache.purge("/")
    scene.gate = scene.app.hold("/")
    leader = scene.leader()
    [follower] = scene.followers()
    scene.gate.open()
    leader.result()
    assert "collapsed" in follower.result().cache


def test_con_06_no_marker_comes_from_what_one_request_did():
    """A range or a cookie says nothing of the page."""
    scene = Scene(Response(body=b"page"))
    scene.app.release("/")
    for headers in ({"Range": "bytes=0-1"}, {"Cookie": "session=1"}, {"Authorization": "Basic eA=="}):
        ask(scene.cache, headers=headers)
        ask(scene.cache, method="HEAD", headers=headers)
    assert ask(scene.cache).stored
    assert count(scene.cache, Reason.MISS_MARKER) == 0


# --- CON-05: other variants ------------------------------------------------------------------------


def speaking(environ):
    language = environ.get("HTTP_ACCEPT_LANGUAGE", "none")
    return Response(headers=text(("Vary", "Accept-Language")), body=language.encode())


def test_con_05_followers_with_other_varying_values_get_their_own():
    scene = Scene(speaking)
    leader = scene.leader(headers={"Accept-Language": "en"})
    same = scene.followers(3, headers={"Accept-Language": "en"})
    other = scene.followers(4, headers={"Accept-Language": "de"})
    absent = scene.followers(2)
    scene.gate.open()
    assert leader.result().body == b"en"
    assert {reply.body for reply in results(same)} == {b"en"}
    assert {reply.body for reply in results(other)} == {b"de"}
    assert {reply.body for reply in results(absent)} == {b"none"}
    assert all("collapsed" in reply.cache for reply in results(same))
    for headers in ({"Accept-Language": "en"}, {"Accept-Language": "de"}, {}):
        assert ask(scene.cache, headers=headers).is_hit


def test_con_05_known_variants_do_not_wait_for_each_other():
    scene = Scene(speaking)
    scene.app.release("/")
    ask(scene.cache, headers={"Accept-Language": "en"})
    scene.gate = scene.app.hold("/")
    german = scene.leader(headers={"Accept-Language": "de"})
    french = scene.leader(headers={"Accept-Language": "fr"})
    scene.gate.open()
    assert (german.result().body, french.result().body) == (b"de", b"fr")


# --- who may lead, who may follow ------------------------------------------------------------------


def test_a_lookup_only_cookie_follows():
    scene = Scene()
    leader = scene.leader()
    [follower] = scene.followers(headers={"Cookie": "csrftoken=abc"})
    scene.gate.open()
    leader.result()
    assert "collapsed" in follower.result().cache
    assert scene.app.calls == 1


def test_a_lookup_only_cookie_does_not_lead():
    scene = Scene(lambda environ: Response(body=environ.get("HTTP_COOKIE", "-").encode()))
    first = scene.leader(headers={"Cookie": "csrftoken=abc"})
    second = scene.leader(headers={"Cookie": "csrftoken=xyz"})
    anonymous = scene.leader()
    assert flights(scene.cache) == 1
    scene.gate.open()
    assert (first.result().body, second.result().body) == (b"csrftoken=abc", b"csrftoken=xyz")
    assert anonymous.result().body == b"-"
    assert ask(scene.cache).body == b"-"


@pytest.mark.parametrize("headers", [{"Cookie": "session=1"}, {"Authorization": "Bearer x"}])
def test_a_visitor_neither_leads_nor_follows(headers):
    scene = Scene(lambda environ: Response(body=b"personal" if headers_in(environ) else b"page"))
    visitor = scene.leader(headers=headers)
    anonymous = scene.leader()
    second_visitor = scene.leader(headers=headers)
    scene.gate.open()
    assert visitor.result().body == second_visitor.result().body == b"personal"
    assert anonymous.result().body == b"page"
    assert ask(scene.cache).body == b"page"


def headers_in(environ):
    return "HTTP_COOKIE" in environ or "HTTP_AUTHORIZATION" in environ


@pytest.mark.parametrize("how", [{"headers": {"Range": "bytes=0-0"}}, {"url": "/?q=1"}])
def test_what_is_not_stored_neither_leads_nor_follows(how):
    scene = Scene()
    first, second, third = scene.leader(**how), scene.leader(), scene.leader(**how)
    assert flights(scene.cache) == 1
    scene.gate.open()
    assert {call.result().code for call in (first, second, third)} == {200}


def test_queries_that_are_keyed_are_pages_of_their_own():
    scene = Scene(rules=[Rule("/", query="key")])
    one, two = scene.leader(url="/?p=1"), scene.leader(url="/?p=2")
    [follower] = scene.followers(url="/?p=1")
    scene.gate.open()
    assert "collapsed" in follower.result().cache
    assert {one.result().code, two.result().code} == {200}
    assert scene.app.calls == 2


# --- purges during a flight ------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("purge", ["url", "absolute", "prefix", "everything"])
def test_con_01_who_comes_after_a_purge_starts_a_newer_flight(purge, soft):
    data = [b"old"]
    scene = Scene(lambda environ: Response(body=data[0]))
    before = scene.leader()
    [joined] = scene.followers()
    data[0] = b"new"
    {
        "url": lambda: scene.cache.purge("/", soft=soft),
        "absolute": lambda: scene.cache.purge("http://example.com/", soft=soft),
        "prefix": lambda: scene.cache.purge_prefix("/", soft=soft),
        "everything": lambda: scene.cache.clear(soft=soft),
    }[purge]()
    after = scene.leader()
    [follower] = scene.followers()
    scene.gate.open()
    assert after.result().body == follower.result().body == b"new"
    assert before.result().body == b"old"
    assert joined.result().body in (b"old", b"new")
    assert ask(scene.cache).body == b"new"


def test_con_02_who_comes_after_the_purge_of_a_group_that_only_the_answer_names():
    data = [b"old"]
    scene = Scene(lambda environ: Response(headers=text(("Cache-Groups", '"posts"')), body=data[0]))
    before = scene.leader()
    data[0] = b"new"
    scene.cache.purge_groups("posts")
    after = scene.request()
    scene.waiters.arrived()  # nobody knows yet that the purge concerns this page
    scene.gate.open()
    assert before.result().body == b"old"
    assert after.result().body == b"new"
    assert ask(scene.cache).body == b"new"


def test_a_purge_of_another_page_does_not_split_a_flight():
    scene = Scene()
    leader = scene.leader()
    scene.cache.purge("/other")
    scene.cache.purge_groups("other")
    [follower] = scene.followers()
    scene.gate.open()
    leader.result()
    assert "collapsed" in follower.result().cache
    assert scene.app.calls == 1


def test_con_17_the_older_of_two_flights_does_not_replace_the_newer():
    data = [b"old"]
    scene = Scene(lambda environ: Response(body=data[0]))
    old = scene.leader()
    old_gate = scene.gate
    data[0] = b"new"
    scene.cache.purge("/")
    scene.gate = scene.app.hold("/")
    new = scene.leader()
    scene.gate.open()
    assert new.result().body == b"new"
    old_gate.open()
    assert old.result().body == b"old"
    assert ask(scene.cache).body == b"new"
    assert count(scene.cache, Reason.NOT_STORED_RACED) == 1
