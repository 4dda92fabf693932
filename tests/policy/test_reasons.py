"""Decisions are data: every reason has a scenario, is documented, and renders as RFC 9211 wants it."""

import http_sf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import HTML, Call, FirstHeld, Site, control, page

from wsgicache import Outcome, Reason, Rule, WSGICache
from wsgicache.explain import REMEDIES
from wsgicache.outcome import Phase
from wsgicache.testing import FailingStore, FakeClock, Response, ScriptedApp, ask, make_environ, run

FORWARDS = {"bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale", "partial"}
"""RFC 9211 §2.2."""

SCENARIOS = {}


def scenario(reason):
    """Register a scenario: it returns the site and the reply in which the reason was met."""

    def register(play):
        assert reason not in SCENARIOS
        SCENARIOS[reason] = play
        return play

    return register


# --- admit ------------------------------------------------------------------------------------------


def one_request(reason, answer=None, options=None, **request):
    """Register the scenario of one request to an empty cache."""

    @scenario(reason)
    def play():
        site = Site(answer, **(options or {}))
        return site, site.ask(**request)


def whole(*headers, body=b"page"):
    """An answer that announces its length, so that its head tells what became of its body."""
    return page(*headers, ("Content-Length", str(len(body))), body=body)


RFC = {"profile": "rfc"}
CREDENTIALS = {"Authorization": "Bearer a"}

one_request(Reason.DISABLED, options={"enabled": False})
one_request(Reason.BYPASS_IGNORED, **{"wsgicache.ignore": True})
one_request(Reason.BYPASS_RULE, options={"rules": [Rule("/*", bypass=True)]})
one_request(Reason.BYPASS_QUERY, url="/?a=1")
one_request(Reason.BYPASS_BODY, body=b"a=1")
one_request(Reason.BYPASS_AUTHORIZATION, headers=CREDENTIALS)
one_request(Reason.BYPASS_COOKIE, headers={"Cookie": "session=a"})
one_request(Reason.BYPASS_HOST, headers={"Host": "a, b"})
one_request(Reason.BYPASS_PATH, PATH_INFO="/static/../account")
one_request(Reason.BYPASS_REWRITE, headers={"X-Original-URL": "/admin"})
one_request(Reason.BYPASS_OVERRIDE, headers={"X-HTTP-Method-Override": "DELETE"})
one_request(Reason.BYPASS_KEY, url="/" + "long" * 2000)
one_request(Reason.BYPASS_PRECONDITION, headers={"If-Match": '"a"'})
one_request(Reason.METHOD_SAFE, method="OPTIONS")
one_request(Reason.METHOD_UNSAFE, method="DELETE")


@scenario(Reason.BYPASS_NESTED)
def nested():
    inner = []

    def answer(environ):
        if not inner:
            inner.append(None)
            inner[0] = site.ask()
        return page()

    site = Site(answer)
    site.ask()
    return site, inner[0]


# --- judge ------------------------------------------------------------------------------------------


@scenario(Reason.HIT)
def hit():
    site = Site()
    site.fill()
    return site, site.ask()


def after(reason, answer, seconds, options=None, headers=None):
    """Register the scenario of a page that is stored and asked for again after some seconds."""

    @scenario(reason)
    def play():
        site = Site(answer, **(options or {}))
        site.fill()
        site.clock.tick(seconds)
        return site, site.ask(headers=headers)


@scenario(Reason.HIT_EARLY_REFRESH)
def early_refresh():
    clock = FakeClock()

    def answer(environ):
        clock.tick(1)
        return page()

    site = Site(answer, clock=clock, ttl=100, early_refresh=1)
    site.cache.engine.uniform = lambda: 0.5
    site.fill()
    site.ask()
    site.clock.tick(97)
    return site, site.ask(**{"wsgi.multithread": False})


after(Reason.HIT_STALE_WHILE_REVALIDATE, control("max-age=10, stale-while-revalidate=60"), 20)
after(Reason.HIT_MAX_STALE, control("max-age=10"), 20, RFC, {"Cache-Control": "max-stale=60"})
after(Reason.STALE, control("max-age=10", ("ETag", '"a"')), 20)
after(Reason.STALE_NO_CACHE, control("no-cache", ("ETag", '"a"')), 0, RFC)
after(Reason.REQUEST_DIRECTIVE, control("max-age=60"), 0, RFC, {"Cache-Control": "no-cache"})
one_request(Reason.URI_MISS)
one_request(Reason.ONLY_IF_CACHED, options=RFC, headers={"Cache-Control": "only-if-cached"})


@scenario(Reason.VARY_MISS)
def vary_miss():
    site = Site(page(("Vary", "X-Part")))
    site.fill(headers={"X-Part": "a"})
    return site, site.ask(headers={"X-Part": "b"})


@scenario(Reason.MISS_PURGED)
def purged():
    site = Site()
    site.fill()
    site.cache.purge("/")
    return site, site.ask()


@scenario(Reason.MISS_RULES)
def other_rules():
    site = Site(rules=[Rule("/*", name="all", ttl=60)])
    site.fill()
    site.cache.rules.disable("all")
    return site, site.ask()


@scenario(Reason.STALE_PURGED)
def soft_purged():
    site = Site()
    site.fill()
    site.cache.purge("/", soft=True)
    return site, site.ask()


# --- forward ----------------------------------------------------------------------------------------


@scenario(Reason.HIT_STALE_IF_ERROR)
def stale_if_error():
    site = Site(control("max-age=10, stale-if-error=60"))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(status="500 Oops"))
    return site, site.ask()


def second_while_first_is_held(reason, answer, **options):
    """Register the scenario of a request that comes while another one holds the page."""

    @scenario(reason)
    def play():
        held = FirstHeld(answer)
        site = Site(held, **options)
        first = Call(site.ask)
        held.wait()
        reply = site.ask()
        held.let_go()
        first.result()
        return site, reply


second_while_first_is_held(Reason.COLLAPSE_TIMEOUT, page(), wait_timeout=0)
second_while_first_is_held(Reason.COLLAPSE_OVERFLOW, page(), max_followers=0)


@scenario(Reason.MISS_MARKER)
def miss_marker():
    site = Site(control("no-store"))
    site.ask()
    site.app.answers(page())
    reply = site.ask()
    return site, reply


@scenario(Reason.STORE_DOWN)
def store_down():
    store = FailingStore()
    site = Site(store=store)
    store.failing.add("*")
    return site, site.ask()


@scenario(Reason.CACHE_FAULT)
def cache_fault():
    site = Site()
    site.cache.engine.admit = None
    return site, site.ask()


@scenario(Reason.APP_ERROR)
def app_error():
    site = Site(page(error=RuntimeError("the app broke")))
    with pytest.raises(RuntimeError):
        site.ask()
    return site, None


# --- settle -----------------------------------------------------------------------------------------

one_request(Reason.STORED)
one_request(Reason.NOT_STORED_METHOD, options=RFC, method="HEAD")
one_request(Reason.NOT_STORED_RANGE, headers={"Range": "bytes=0-1"})
one_request(Reason.NOT_STORED_REQUEST, options=RFC, headers={"Cache-Control": "no-store"})
one_request(Reason.NOT_STORED_STATUS, control("max-age=60", status="400 Bad Request"))
one_request(Reason.NOT_STORED_NO_STORE, control("no-store"))
one_request(Reason.NOT_STORED_PRIVATE, control("private"))
one_request(Reason.NOT_STORED_NO_CACHE, control("no-cache"))
one_request(Reason.NOT_STORED_SET_COOKIE, page(("Set-Cookie", "session=a")))
one_request(Reason.NOT_STORED_AUTHORIZATION, headers=CREDENTIALS)
one_request(Reason.NOT_STORED_COOKIE, headers={"Cookie": "csrftoken=a"})
one_request(Reason.NOT_STORED_VARY, page(("Vary", "*")))
one_request(Reason.NOT_STORED_VARY_COOKIE, page(("Vary", "Cookie")), headers={"Cookie": "session=a"})
one_request(Reason.NOT_STORED_NO_LIFETIME, page(status="404 Not Found"))
one_request(Reason.NOT_STORED_STALE, control("max-age=0"))
one_request(Reason.NOT_STORED_STREAM, page(("Content-Type", "text/event-stream")))
one_request(Reason.NOT_STORED_TOO_LARGE, options={"max_body_bytes": 3})
one_request(Reason.NOT_STORED_FILE, options={"spool_bytes": 1, "spool_max_bytes": 2})
one_request(Reason.NOT_STORED_TOKEN, whole(HTML, body=b'<input name="csrf_token" value="a">'))
one_request(Reason.NOT_STORED_FIELDS, page(("Content-Length", "4"), ("Content-Length", "5")))
one_request(Reason.NOT_STORED_GROUPS, page(("Cache-Tag", "a, b")), {"max_groups": 1})


@scenario(Reason.FRESHENED)
def freshened():
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(("ETag", '"a"'), status="304 Not Modified", body=b""))
    return site, site.ask()


@scenario(Reason.NOT_STORED_IGNORED)
def ignored_during_the_call():
    def answer(environ):
        environ["wsgicache.hints"].ignore()
        return page()

    site = Site(answer)
    return site, site.ask()


@scenario(Reason.NOT_STORED_HINT)
def hinted():
    def answer(environ):
        environ["wsgicache.hints"].private()
        return page()

    site = Site(answer)
    return site, site.ask()


@scenario(Reason.NOT_STORED_EMPTY)
def empty():
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(20)
    site.app.answers(whole(body=b""))
    return site, site.ask()


@scenario(Reason.NOT_STORED_INCOMPLETE)
def incomplete():
    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        return [b"page"]

    site = Site()
    site.cache.app = app
    return site, site.ask()


@scenario(Reason.NOT_STORED_BROKEN_OFF)
def broken_off():
    site = Site(page(body=lambda: iter([b"a", b"b"])))
    heads = []
    iterable = site.cache(make_environ(), lambda status, headers: heads.append((status, headers)))
    next(iter(iterable))
    iterable.close()
    return site, None


@scenario(Reason.NOT_STORED_RACED)
def raced():
    def answer(environ):
        site.cache.purge("/")
        return whole()

    site = Site(answer)
    return site, site.ask()


@scenario(Reason.NOT_STORED_STORE)
def refused_by_the_store():
    site = Site(whole(body=b"x" * 60000), store="memory://?max_bytes=64KiB")
    return site, site.ask()


# --- every reason is met ----------------------------------------------------------------------------

NOT_TOLD = {
    Reason.APP_ERROR: "the exception goes to the server, and no head of ours with it",
    Reason.NOT_STORED_BROKEN_OFF: "the head was out before the body broke off",
    Reason.NOT_STORED_AUTHORIZATION: "the detail says why the request bypassed the cache",
    Reason.NOT_STORED_VARY_COOKIE: "the detail says why the request bypassed the cache",
}


def told(reply):
    """The reasons that a Cache-Status names or, by RFC 9211's own words, means."""
    status = reply.cache
    if "detail" in status:
        return {Reason[status["detail"]]}
    if "hit" in status:
        return {Reason.HIT}
    means = {"uri-miss": Reason.URI_MISS, "vary-miss": Reason.VARY_MISS, "stale": Reason.STALE}
    reasons = {means[status["fwd"]]}
    if "stored" in status:
        reasons.add(Reason.FRESHENED if status.get("fwd-status") == "304" else Reason.STORED)
    return reasons


def test_every_reason_has_a_scenario():
    assert not set(Reason) - set(SCENARIOS), "reasons that nothing here produces"


@pytest.mark.parametrize("reason", SCENARIOS, ids=lambda reason: reason.name)
def test_a_reason_comes_out_of_its_scenario(reason):
    site, reply = SCENARIOS[reason]()
    site.cache.engine.refresher.drain()
    assert site.count(reason) == 1
    if reason in NOT_TOLD:
        assert reply is None or reason not in told(reply), "it is told: take it out of NOT_TOLD"
    else:
        assert reason in told(reply), reply.headers


@pytest.mark.parametrize("reason", SCENARIOS, ids=lambda reason: reason.name)
def test_a_scenario_renders_as_rfc_9211(reason):
    _, reply = SCENARIOS[reason]()
    if reply is not None:
        check_lines(reply.all("cache-status"))


def test_the_token_of_a_reason_is_the_one_its_reply_carries():
    for reason, play in SCENARIOS.items():
        if reason.phase is Phase.SETTLE or reason in NOT_TOLD:
            continue
        _, reply = play()
        assert reply.is_hit == reason.is_hit, reason
        if not reason.is_hit and reason.phase is not Phase.FORWARD:
            assert reply.cache["fwd"] == reason.token, reason


# --- every reason is documented ---------------------------------------------------------------------


def test_no_reason_is_an_alias_of_another():
    assert len(Reason.__members__) == len(list(Reason))


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_a_reason_is_documented(reason):
    sentence, section = reason.sentence, reason.section
    assert sentence.endswith((".", "504.")), sentence
    assert sentence == sentence.strip()
    assert len(sentence.split()) >= 4
    assert "  " not in sentence
    assert section.startswith(("RFC ", "house rule")), section
    assert isinstance(reason.phase, Phase)


def test_no_two_reasons_have_one_sentence():
    sentences = [reason.sentence for reason in Reason]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_the_token_of_a_reason_is_one_that_rfc_9211_knows(reason):
    if reason.phase is Phase.SETTLE:
        assert reason.token in ("stored", "-")
    else:
        assert reason.token in {"hit"} | FORWARDS


def test_house_rules_are_cited_by_numbers_that_exist():
    for reason in Reason:
        for part in reason.section.replace(" and ", ", ").split(", "):
            if part.startswith("house rule"):
                assert 1 <= int(part.split()[-1]) <= 19, reason


def test_whoever_explains_has_a_remedy_for_each_decision_before_the_app_is_asked():
    decisions = {r for r in Reason if r.phase in (Phase.ADMIT, Phase.JUDGE) and not r.is_hit}
    unexplained = decisions - set(REMEDIES)
    assert unexplained == {
        Reason.BYPASS_NESTED,  # only the app itself can cause it, in mid-call
        Reason.ONLY_IF_CACHED,  # what the request asked for is what it gets
    }


# --- every rendering parses -------------------------------------------------------------------------


def check_lines(lines):
    """Every Cache-Status line is a List of Items, as RFC 9211 §2 wants it."""
    assert lines
    members = http_sf.parse(", ".join(lines).encode("ascii"), tltype="list")
    assert len(members) == len(lines)
    for member in members:
        check_member(*member)


def check_member(name, parameters):
    """One member: `hit` excludes `fwd`, and what needs `fwd` has it (RFC 9211 §2)."""
    assert isinstance(name, http_sf.Token)
    assert str(name) == "wsgicache"
    known = {"hit", "fwd", "fwd-status", "ttl", "stored", "collapsed", "key", "detail"}
    assert set(parameters) <= known
    assert ("hit" in parameters) != ("fwd" in parameters), parameters
    if "hit" in parameters:
        assert parameters["hit"] is True
        assert not {"fwd-status", "stored", "collapsed"} & set(parameters)
    else:
        assert isinstance(parameters["fwd"], http_sf.Token)
        assert str(parameters["fwd"]) in FORWARDS
    assert type(parameters.get("fwd-status", 0)) is int
    assert type(parameters.get("ttl", 0)) is int
    assert parameters.get("stored", True) is True
    assert parameters.get("collapsed", True) is True
    assert type(parameters.get("key", "")) is str
    detail = parameters.get("detail")
    assert detail is None or (isinstance(detail, http_sf.Token) and str(detail) in Reason.__members__)


DECIDED = [reason for reason in Reason if reason.phase is not Phase.SETTLE]
SETTLED = [reason for reason in Reason if reason.phase is Phase.SETTLE]

OUTCOMES = st.builds(
    Outcome,
    st.sampled_from(DECIDED),
    ttl=st.none() | st.integers(-(2**31), 2**31),
    forward_status=st.none() | st.integers(100, 999),
    settled=st.none() | st.sampled_from(SETTLED),
    collapsed=st.booleans(),
    detail=st.none() | st.sampled_from(list(Reason)),
    key=st.none() | st.text(),
    rule=st.none() | st.text(),
    status=st.none() | st.integers(100, 999),
)


@given(OUTCOMES, st.booleans())
def test_every_outcome_renders_as_rfc_9211(outcome, show_key):
    line = outcome.cache_status(show_key=show_key)
    check_lines([line])
    parameters = http_sf.parse(line.encode("ascii"), tltype="list")[0][1]
    assert ("key" in parameters) == (show_key and outcome.key is not None)


@given(st.text())
def test_a_key_stays_one_string_whatever_is_in_it(key):
    line = Outcome(Reason.URI_MISS, key=key).cache_status(show_key=True)
    assert line.isprintable()
    told_key = http_sf.parse(line.encode("ascii"), tltype="list")[0][1]["key"]
    if key.isascii() and key.isprintable():
        assert told_key == key


# --- random real traffic ----------------------------------------------------------------------------

REQUEST_FIELDS = {
    "Cookie": ("session=a", "_ga=1", "csrftoken=x", "lang=de"),
    "Authorization": ("Bearer a",),
    "Accept-Encoding": ("gzip", "br;q=0", ""),
    "Range": ("bytes=0-1", "bytes=9-1", "lines=1"),
    "If-None-Match": ('"a"', "*", "junk"),
    "If-Match": ('"a"',),
    "Cache-Control": ("no-cache", "max-stale", "only-if-cached", "no-store"),
    "X-Forwarded-Host": ("evil",),
    "X-Original-URL": ("/x",),
    "Host": ("example.com", "a,b", "EXAMPLE.com:80"),
    "Wsgicache-Secret": ("open", "wrong"),
}
RESPONSE_FIELDS = {
    "Cache-Control": ("max-age=5", "public, max-age=60", "private", "no-store", "no-cache", "s-maxage=3"),
    "Vary": ("Accept-Encoding", "Cookie", "*", "X-Part"),
    "ETag": ('"a"', 'W/"a"'),
    "Set-Cookie": ("session=b",),
    "Content-Length": ("4", "7", "junk"),
    "Cache-Groups": ('"g"',),
}
STATUSES = ("200 OK", "301 Moved", "304 Not Modified", "404 Not Found", "500 Oops", "204 No Content")


def fields(choices):
    """A few header fields with values that matter."""
    return st.dictionaries(st.sampled_from(sorted(choices)), st.none(), max_size=3).flatmap(
        lambda names: st.fixed_dictionaries({name: st.sampled_from(choices[name]) for name in names})
    )


@st.composite
def requests(draw):
    """One request, what the app would answer it, and how much time goes by before it."""
    url = draw(st.sampled_from(("/", "/a", "/a?x=1", "/a?_method=PUT", "/a%2Fb", "/b/../a")))
    method = draw(st.sampled_from(("GET", "GET", "GET", "HEAD", "POST", "OPTIONS", "BREW")))
    answer = Response(
        draw(st.sampled_from(STATUSES)),
        list(draw(fields(RESPONSE_FIELDS)).items()),
        draw(st.sampled_from((b"", b"page"))),
    )
    return draw(st.sampled_from((0, 1, 20))), url, method, draw(fields(REQUEST_FIELDS)), answer


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(("safe", "rfc")), st.lists(requests(), max_size=12))
def test_random_traffic_renders_as_rfc_9211(profile, traffic):
    clock, app = FakeClock(), ScriptedApp()
    cache = WSGICache(app, clock=clock, profile=profile, secret="open", stale_if_error=30, languages="de,en")
    for seconds, url, method, headers, answer in traffic:
        clock.tick(seconds)
        app.answers(answer)
        reply = ask(cache, url, method, headers)
        check_lines(reply.all("cache-status"))
        shown = "key" in reply.cache
        assert not shown or headers.get("Wsgicache-Secret") == "open"
    assert cache.stats()["reasons"].get("CACHE_FAULT", 0) == 0


def test_what_an_inner_cache_said_stays_before_what_we_say():
    site = Site(page(("Cache-Status", '"Other Cache"; hit; ttl=9')))
    site.fill()
    reply = site.ask()
    assert reply.is_hit
    names = [
        str(name) for name, _ in http_sf.parse(", ".join(reply.all("cache-status")).encode(), tltype="list")
    ]
    assert names == ["Other Cache", "wsgicache"]


def test_a_head_request_tells_as_much_as_a_get():
    site = Site()
    site.fill()
    reply = run(site.cache, make_environ(method="HEAD"))
    assert (reply.is_hit, reply.body) == (True, b"")
    check_lines(reply.all("cache-status"))
