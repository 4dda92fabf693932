"""WSG-11: a fault anywhere in the cache leaves the app's response unchanged, and is recorded.
WSG-12: what is no Exception passes through everything, and nobody waits for it.

Every internal hook is broken in turn, in every kind of traffic. The reply must be the app's own, or the
one that a healthy cache gives; the app is never called twice for it.
"""

from functools import cache as remembered

import pytest
from structs import skip_a_struct
from wsgi_helpers import TEXT, Body, Exchange, flights, new_cache, text

from wsgicache import Reason, Rule
from wsgicache.collapse import Collapse
from wsgicache.fill import Fill
from wsgicache.follow import Follower
from wsgicache.outcome import Outcome
from wsgicache.testing import ask


class Fault(Exception):
    """A bug in the cache."""


class Killed(BaseException):
    """What a greenlet or a worker is killed with."""


HOOKS = {
    "Facts": "wsgicache.wsgi.Facts",
    "judge in the engine": "wsgicache.engine.judge",
    "judge of a follower": "wsgicache.queueing.judge",
    "answer from the store": "wsgicache.wsgi.answer",
    "answer in place of the app's": "wsgicache.fill.answer",
    "refresh_environ": "wsgicache.wsgi.refresh_environ",
    "Head": "wsgicache.fill.Head",
    "settle": "wsgicache.fill.settle",
    "settle_body": "wsgicache.fill.settle_body",
    "make_entry": "wsgicache.fill.make_entry",
    "with_etag": "wsgicache.engine.with_etag",
    "merge_304": "wsgicache.fill.merge_304",
    "cookie_pass": "wsgicache.arming.cookie_pass",
    "invalidations": "wsgicache.engine.invalidations",
    **{
        f"Fill.{name}": (Fill, name)
        for name in (
            "__init__", "validators", "decide", "stale_usable", "prepare_again", "complete", "too_large",
            "broken_off", "failed", "end", "answer_entry", "not_modified", "_release", "_not_stored",
            "_stored", "_freshen",
        )
    },
    **{
        f"engine.{name}": ("engine", name)
        for name in (
            "admit", "look_up", "verdict", "covered", "keep", "forget", "revoke", "invalidate", "append",
            "_find", "_sealed", "_arm", "land", "release", "fail", "token_for",
        )
    },
    "arming.arm": ("engine._arming", "arm"),
    "records.note": ("engine.records", "note"),
    **{f"follower.{name}": (Follower, name) for name in ("get", "follow", "follow_now", "verdict", "covers")},
    **{
        f"collapse.{name}": (Collapse, name)
        for name in ("board", "token", "hand_over", "resume", "land", "release", "fail")
    },
    **{f"markers.{name}": ("engine.markers", name) for name in ("has", "set", "unset")},
    **{f"observer.{name}": ("engine.observer", name) for name in ("record", "app_failed", "refreshed")},
    **{f"refresher.{name}": ("engine.refresher", name) for name in ("claim", "run")},
    **{
        f"store.{name}": ("store", name)
        for name in ("get", "mark_of", "set", "delete", "append", "purges_since")
    },
    "Outcome.cache_status": (Outcome, "cache_status"),
}  # fmt: skip


class Breaker:
    """Replaces a hook by one that raises, once `on`, and counts how often."""

    def __init__(self, monkeypatch, cache, hook, error):
        self.raised = 0
        self.on = False
        if isinstance(hook, str):
            module, _, name = hook.rpartition(".")
            owner = __import__(module, fromlist=["x"])
        else:
            owner, name = hook
            if isinstance(owner, str):
                path, owner = owner, cache
                for part in path.split("."):
                    owner = getattr(owner, part)
        skip_a_struct(owner, name)
        original = getattr(owner, name)

        def broken(*args, **kwargs):
            if self.on:
                self.raised += 1
                raise error
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, broken)


PAGE = text(("ETag", '"v1"'), ("X-Page", "1"), ("X-Page", "2"))
WINDOWS = ("Cache-Control", "max-age=10, stale-while-revalidate=10, stale-if-error=100")


class Site:
    """An app with a page of every kind; it tells how often it was called and whether it was closed."""

    def __init__(self):
        self.failing = False
        self.seen = []
        self.bodies = []

    def __call__(self, environ, start_response):
        self.seen.append(environ)
        path = environ["PATH_INFO"]
        if self.failing:
            start_response("503 Service Unavailable", list(TEXT))
            return self.body(b"down")
        if environ.get("HTTP_IF_NONE_MATCH") == '"v1"':
            start_response("304 Not Modified", [("ETag", '"v1"')])
            return []
        return getattr(self, path.strip("/").replace("-", "_"))(start_response)

    def body(self, *chunks):
        self.bodies.append(Body(chunks))
        return self.bodies[-1]

    def listed(self, start_response):
        start_response("200 OK", list(PAGE))
        return [b"one", b"two"]

    def streamed(self, start_response):
        start_response("200 OK", list(PAGE))
        return self.body(b"one", b"", b"two")

    def windows(self, start_response):
        start_response("200 OK", [*PAGE, WINDOWS])
        return self.body(b"one", b"two")

    def varied(self, start_response):
        start_response("200 OK", [*PAGE, ("Vary", "Accept-Language")])
        return self.body(b"one", b"two")

    def announced(self, start_response):
        start_response("200 OK", [*PAGE, ("Content-Length", "6")])
        return self.body(b"one", b"two")

    def private(self, start_response):
        start_response("200 OK", text(("Cache-Control", "private")))
        return self.body(b"mine")

    def large(self, start_response):
        start_response("200 OK", list(TEXT))
        return self.body(b"x" * 600, b"y" * 600)

    def written(self, start_response):
        write = start_response("200 OK", list(TEXT))
        write(b"one")
        return self.body(b"two")

    def late(self, start_response):
        def generate():
            start_response("200 OK", list(TEXT))
            yield b"one"
            yield b"two"

        return generate()

    def ruled(self, start_response):
        return self.streamed(start_response)


def warm(cache, url, tick=0, headers=None):
    """Have a page stored and hit, then let time pass."""
    ask(cache, url, headers=headers)
    ask(cache, url, headers=headers)
    cache.fake_clock.tick(tick)


TRAFFIC = {
    "miss of a list": ("/listed", {}, lambda cache: None),
    "miss of a stream": ("/streamed", {}, lambda cache: None),
    "miss with an announced length": ("/announced", {}, lambda cache: None),
    "miss of a variant": ("/varied", {}, lambda cache: None),
    "miss that is written": ("/written", {}, lambda cache: None),
    "miss with a late head": ("/late", {}, lambda cache: None),
    "miss of a private page": ("/private", {}, lambda cache: None),
    "miss that is too large": ("/large", {}, lambda cache: None),
    "miss of a client that has it": ("/streamed", {"If-None-Match": '"v1"'}, lambda cache: None),
    "miss with a cookie": ("/streamed", {"Cookie": "session=1"}, lambda cache: None),
    "second variant": (
        "/varied", {"Accept-Language": "de"}, lambda cache: warm(cache, "/varied")
    ),
    "hit": ("/listed", {}, lambda cache: warm(cache, "/listed")),
    "hit of a variant": ("/varied", {}, lambda cache: warm(cache, "/varied")),
    "first hit": ("/listed", {}, lambda cache: ask(cache, "/listed")),
    "hit of a range": ("/listed", {"Range": "bytes=0-2"}, lambda cache: warm(cache, "/listed")),
    "hit of a client that has it": (
        "/listed", {"If-None-Match": '"v1"'}, lambda cache: warm(cache, "/listed")
    ),
    "stale, revalidated": ("/streamed", {}, lambda cache: warm(cache, "/streamed", 301)),
    "stale, replaced": ("/late", {}, lambda cache: warm(cache, "/late", 301)),
    "stale while revalidate": ("/windows", {}, lambda cache: warm(cache, "/windows", 15)),
    "stale if error": ("/windows", {}, lambda cache: (warm(cache, "/windows", 50), fail(cache))),
    "error": ("/windows", {}, lambda cache: fail(cache)),
    "query": ("/listed?q=1", {}, lambda cache: None),
    "rule": ("/ruled", {}, lambda cache: None),
    "HEAD": ("/listed", {"_method": "HEAD"}, lambda cache: None),
    "POST": ("/streamed", {"_method": "POST"}, lambda cache: warm(cache, "/streamed")),
}  # fmt: skip


def fail(cache):
    cache.app.failing = True


def site_cache(**options):
    return new_cache(Site(), max_body_bytes=1000, rules=[Rule("/ruled", bypass=True)], **options)


def traffic(name):
    """The request of a kind of traffic, as arguments of `Exchange`, and what comes before it."""
    url, headers, prepare = TRAFFIC[name]
    method = headers.get("_method", "GET")
    headers = {name: value for name, value in headers.items() if name != "_method"}
    return {"url": url, "method": method, "headers": headers, "wsgi.multithread": False}, prepare


def seen_by_client(reply):
    """Status, fields without those that the cache adds, and body; a 304 has those fields that it likes."""
    if reply.code == 304:
        return reply.status, reply.body
    added = {"cache-status", "age", "content-length", "etag"}
    headers = [pair for pair in reply.headers if pair[0].lower() not in added]
    return reply.status, headers, reply.body


@remembered
def expected(name):
    """What a client gets from the app alone, and from a cache that works.

    The cache takes the client's conditionals away before it asks the app; where it fails after that, the
    client gets the whole page, which is an answer too.
    """
    request, prepare = traffic(name)
    cache = site_cache()
    prepare(cache)
    alone = [
        Exchange(cache.app, **{**request, "headers": headers}).whole().reply
        for headers in (request["headers"], {})
    ]
    healthy = Exchange(cache, **request).whole().reply
    return [seen_by_client(reply) for reply in (*alone, healthy)]


@pytest.mark.parametrize("kind", TRAFFIC)
@pytest.mark.parametrize("hook", HOOKS)
def test_wsg_11_fault(monkeypatch, caplog, hook, kind):
    answers = expected(kind)
    request, prepare = traffic(kind)
    cache = site_cache()
    prepare(cache)
    app, calls = cache.app, len(cache.app.seen)
    breaker = Breaker(monkeypatch, cache, HOOKS[hook], Fault(hook))
    breaker.on = True
    reply = Exchange(cache, **request).whole().reply
    breaker.on = False
    assert seen_by_client(reply) in answers
    _assert_called_once(app.seen[calls:], breaker, reply)
    assert all(body.closed == 1 for body in app.bodies)
    if breaker.raised:
        assert cache.engine.observer.reasons[Reason.CACHE_FAULT].value or "Fault" in caplog.text
    if not hook.startswith(("collapse.", "Fill.")):
        assert flights(cache) == 0
    app.failing = False
    assert Exchange(cache, **request).whole().reply.code in (200, 206, 304)


def _assert_called_once(seen, breaker, reply):
    """Once, and not at all for a hit; a 304 that a fault made useless has to be asked for again, and a
    refresh behind a stale page is a request of its own."""
    conditional = [environ for environ in seen if "HTTP_IF_NONE_MATCH" in environ]
    hit = any("; hit" in line for line in reply.all("cache-status"))
    assert len(seen) - len(conditional) <= 1
    assert len(conditional) <= 1
    if not breaker.raised and hit:
        assert len(seen) <= 1


KILLED = [
    "Facts", "engine.admit", "engine.look_up", "collapse.board", "settle", "settle_body", "make_entry",
    "Fill.decide", "Fill.complete", "Fill.validators", "Fill.not_modified", "Fill.answer_entry",
    "Fill.stale_usable", "answer from the store", "store.get", "store.set", "markers.has", "markers.set",
    "engine.keep", "engine.verdict", "observer.record", "Outcome.cache_status",
]  # fmt: skip


@pytest.mark.parametrize("kind", TRAFFIC)
@pytest.mark.parametrize("hook", KILLED)
def test_wsg_12_what_is_no_exception_passes(monkeypatch, hook, kind):
    killed = Killed(hook)
    request, prepare = traffic(kind)
    cache = site_cache()
    prepare(cache)
    breaker = Breaker(monkeypatch, cache, HOOKS[hook], killed)
    breaker.on = True
    exchange = Exchange(cache, **request)
    raised = None
    try:
        exchange.whole()
    except BaseException as error:
        raised = error
    breaker.on = False
    assert raised is (killed if breaker.raised else None)
    assert flights(cache) == 0
    cache.app.failing = False
    assert Exchange(cache, **request).whole().reply.code in (200, 206, 304)


@pytest.mark.parametrize("killed", [Killed(), KeyboardInterrupt(), SystemExit()], ids=repr)
@pytest.mark.parametrize("url", ["/", "/?bypass"])
def test_wsg_12_from_the_app_before_its_head(killed, url):
    def app(environ, start_response):
        raise killed

    cache = new_cache(app, stale_if_error=100)
    with pytest.raises(type(killed)):
        Exchange(cache, url).begin()
    assert flights(cache) == 0


@pytest.mark.parametrize("killed", [Killed(), KeyboardInterrupt(), SystemExit()], ids=repr)
def test_wsg_12_is_not_hidden_by_a_stale_page(killed):
    cache = site_cache()
    warm(cache, "/windows", 50)

    def app(environ, start_response):
        raise killed

    cache.app = app
    with pytest.raises(type(killed)):
        Exchange(cache, "/windows").begin()
    assert flights(cache) == 0


def test_an_exception_of_the_app_is_not_taken_for_a_fault_of_the_cache():
    """It reaches the server once, and the app is not called again, whatever the request."""

    def app(environ, start_response):
        app.calls += 1
        raise LookupError("the app's own")

    for options in ({}, {"enabled": False}, {"profile": "rfc"}):
        for request in (
            {}, {"method": "POST"}, {"method": "HEAD"}, {"url": "/?q"}, {"headers": {"Cookie": "s=1"}},
            {"wsgicache.ignore": True},
        ):  # fmt: skip
            app.calls = 0
            cache = new_cache(app, **options)
            with pytest.raises(LookupError, match="the app's own"):
                Exchange(cache, **request).begin()
            assert app.calls == 1
            assert cache.engine.observer.reasons[Reason.CACHE_FAULT].value == 0
            assert cache.stats()["requests"] == 1


def test_a_strange_environ_reaches_the_app():
    """Servers forget keys; what the cache cannot read is the app's to answer."""
    for missing in (
        "QUERY_STRING",
        "SCRIPT_NAME",
        "PATH_INFO",
        "HTTP_HOST",
        "wsgi.url_scheme",
        "SERVER_NAME",
    ):
        cache = site_cache()
        cache.app = lambda environ, start_response: [start_response("200 OK", list(TEXT)), [b"page"]][1]
        for _ in range(3):
            assert Exchange(cache, **{missing: None}).whole().body == b"page"


def test_faults_are_logged_once_and_counted_always(monkeypatch, caplog):
    cache = site_cache()
    breaker = Breaker(monkeypatch, cache, HOOKS["engine.admit"], Fault("broken"))
    breaker.on = True
    for _ in range(5):
        assert ask(cache, "/listed").detail == "CACHE_FAULT"
    assert cache.engine.observer.reasons[Reason.CACHE_FAULT].value >= 5
    assert caplog.text.count("Traceback") == 1


def test_a_fault_while_storing_is_not_called_stored(monkeypatch):
    cache = site_cache()
    breaker = Breaker(monkeypatch, cache, HOOKS["make_entry"], Fault("broken"))
    breaker.on = True
    reply = ask(cache, "/listed")
    assert not reply.stored
    assert cache.engine.observer.reasons[Reason.STORED].value == 0
