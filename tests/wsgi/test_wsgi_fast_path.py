"""The hit path is a short cut, never another opinion: over random traffic caches that have it, in Python and
in C, and one that goes the long way each time give the same replies, count the same reasons and ask the app
for the same."""

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from wsgi_helpers import HIT_PATHS, TEXT, Exchange, PureCache, new_cache, text

from wsgicache import Reason, Rule
from wsgicache.body import make_etag
from wsgicache.ready import Ready
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask, make_environ, run

WINDOWS = ("Cache-Control", "max-age=60, stale-while-revalidate=60, stale-if-error=600")

PAGES = {
    "/": [],
    "/windows": [WINDOWS],
    "/tagged": [("ETag", '"v{version}"'), ("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")],
    "/vary": [("Vary", "Accept-Language")],
    "/vary2": [("Vary", "Accept-Language, X-Theme")],
    "/coded": [("Vary", "Accept-Encoding")],
    "/cookie": [("Vary", "Cookie")],
    "/public": [("Cache-Control", "public, max-age=60")],
    "/strict": [("Cache-Control", "max-age=60, must-revalidate")],
    "/shared": [("Cache-Control", "s-maxage=60"), ("Cache-Groups", '"all"')],
    "/private": [("Cache-Control", "private")],
    "/login": [("Set-Cookie", "session=1")],
    "/no-cache": [("Cache-Control", "no-cache"), ("ETag", '"x"')],
    "/aged": [("Age", "30"), ("Cache-Control", "max-age=60")],
    "/lang": [("Content-Language", "en")],
}


class Site:
    """The app of one cache: what it answers depends on the request and a version that both share."""

    def __init__(self, world):
        self._world = world
        self.seen = []

    def __call__(self, environ, start_response):
        told = {
            name: value
            for name, value in environ.items()
            if not name.startswith("wsgi") and name != "REMOTE_ADDR"
        }
        self.seen.append(told)
        version = self._world["version"]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        headers = [(name, value.format(version=version)) for name, value in PAGES.get(path, [])]
        if path == "/windows" and version % 3 == 2:
            start_response("503 Service Unavailable", list(TEXT))
            return [b"down"]
        start_response("404 Not Found" if path == "/gone" else "200 OK", text(*headers))
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return [repr((sorted(told.items()), version)).encode()]


PATHS = [*PAGES, "/gone", "/admin/x", "/caf\xc3\xa9", "/a b", "/a/../b", "/A", "//", "", "/vary/", "/x\x00y"]

ODD = {
    "SCRIPT_NAME": ["", "/mount", "/vary", None],
    "QUERY_STRING": [
        None, "", "a=1", "a=1&utm_x=1", "utm_x=1", "a=1;utm_x=1", "b=2&a=1", "_method=PUT", "a=%20", "a= 1"
    ],
    "REQUEST_METHOD": ["GET", "HEAD", "POST", "OPTIONS", "get"],
    "HTTP_HOST": [
        "example.com", "EXAMPLE.com", "example.com:80", "example.com:8080", "other.example", "", None,
        "a.example, b.example", "None", "user@example.com",
    ],
    "wsgi.url_scheme": ["http", "https"],
    "HTTP_COOKIE": [
        None, "", "_ga=1", "csrftoken=x", "session=1", "lang=de", "lang=de; _ga=2", "lang=de; lang=en",
        "lang", "=", "; ;", "_ga=1; csrftoken=x", "theme=dark; lang=de",
    ],
    "RAW_URI": [None, "", "plain", "encoded", "with query", "absolute", "/x%2Fy", "*", "/%76ary", "/vary?"],
    "REQUEST_URI": [None, "", "plain", "encoded", "with query", "/other"],
    "HTTP_X_FORWARDED_PROTO": [None, "http", "https", "", "ftp", "http, https"],
    "HTTP_X_FORWARDED_HOST": [None, "example.com", "evil.example", ""],
    "HTTP_X_FORWARDED_PORT": [None, "80", "443"],
    "HTTP_X_FORWARDED_PREFIX": [None, "", "/", "/mount"],
    "HTTP_X_FORWARDED_FOR": [None, "192.0.2.1"],
    "HTTP_FORWARDED": [None, "for=192.0.2.1", "host=evil.example", "proto=http"],
    "HTTP_AUTHORIZATION": [None, "Bearer x", ""],
    "REMOTE_USER": [None, "", "ines"],
    "SSL_CLIENT_VERIFY": [None, "NONE", "SUCCESS", ""],
    "SSL_CLIENT_CERT": [None, "", "PEM"],
    "SSL_CLIENT_S_DN": [None, "", "CN=ines"],
    "HTTP_RANGE": [None, "bytes=0-3", "bytes=9999-", "x"],
    "HTTP_IF_NONE_MATCH": [None, "*", '"v0"', '"v1"', 'W/"v0"'],
    "HTTP_IF_MODIFIED_SINCE": [None, "Wed, 21 Oct 2015 07:28:00 GMT"],
    "HTTP_IF_MATCH": [None, "*"],
    "HTTP_CACHE_CONTROL": [None, "no-cache", "max-age=0", "no-store", "max-stale", "only-if-cached"],
    "HTTP_PRAGMA": [None, "no-cache"],
    "HTTP_ACCEPT_LANGUAGE": [None, "", "en", "de", "de, en;q=0.5", "\x01x"],
    "HTTP_ACCEPT_ENCODING": [None, "", "gzip", "gzip, br", "br;q=0", "identity;q=0"],
    "HTTP_X_THEME": [None, "", "dark"],
    "CONTENT_LENGTH": [None, "", "0", "3"],
    "HTTP_TRANSFER_ENCODING": [None, "chunked"],
    "HTTP_X_ORIGINAL_URL": [None, "/admin/x"],
    "HTTP_X_HTTP_METHOD_OVERRIDE": [None, "POST"],
    "wsgicache.ignore": [None, True, False],
    "HTTP_WSGICACHE_SECRET": [None, "hush", "wrong"],
}  # fmt: skip


@st.composite
def requests(draw):
    """A plain request, or one with up to three odd things about it."""
    environ = {"PATH_INFO": draw(st.sampled_from(["/", "/vary", "/windows"]) | st.sampled_from(PATHS))}
    for name in draw(st.just([]) | st.lists(st.sampled_from(sorted(ODD)), max_size=3, unique=True)):
        environ[name] = draw(st.sampled_from(ODD[name]))
    return environ


def complete(extra):
    """A whole environ, as a server makes it, with the odd values put in."""
    environ = Exchange(None, "/").environ
    environ["wsgi.multithread"] = False  # a refresh runs in close(), so that both caches do it in order
    environ.update(extra)
    path = (environ.get("SCRIPT_NAME") or "") + (environ.get("PATH_INFO") or "")
    query = environ.get("QUERY_STRING") or ""
    encoded = path.replace(" ", "%20").replace("\xc3\xa9", "%C3%A9")
    forms = {
        "plain": path,
        "encoded": encoded,
        "with query": f"{encoded}?{query}",
        "absolute": f"http://example.com{encoded}",
    }
    for name in ("RAW_URI", "REQUEST_URI"):
        environ[name] = forms.get(environ.get(name), environ.get(name))
    return {name: value for name, value in environ.items() if value is not None}


HAPPENINGS = st.one_of(
    st.tuples(st.just("tick"), st.sampled_from([0.4, 1, 30, 61, 200, 301, 4000])),
    st.tuples(st.just("change"), st.none()),
    st.tuples(st.just("purge"), st.tuples(st.sampled_from(["/", "/vary", "/windows"]), st.booleans())),
    st.tuples(st.just("prefix"), st.tuples(st.sampled_from(["/", "/vary"]), st.booleans())),
    st.tuples(st.just("group"), st.booleans()),
    st.tuples(st.just("clear"), st.booleans()),
    st.tuples(st.just("switch"), st.booleans()),
)
ROUNDS = st.lists(
    st.tuples(st.lists(st.integers(0, 2), min_size=3, max_size=8), HAPPENINGS), min_size=1, max_size=6
)
"""Requests of the pool by number, then something that happens, and so on."""


class Twin:
    """Caches that see the same: one with each hit path, and a last one without any."""

    def __init__(self, profile, encode=()):
        self.world = {"version": 0}
        self.clock = FakeClock()
        kinds = [*HIT_PATHS.values(), PureCache]
        self.sites = [Site(self.world) for _ in kinds]
        self.caches = [
            self._cache(kind, site, profile, encode) for kind, site in zip(kinds, self.sites, strict=True)
        ]
        self.caches[-1]._peek = lambda key: None
        self.hits = 0

    def _cache(self, kind, site, profile, encode):
        cache = new_cache(
            site,
            kind,
            clock=self.clock,
            profile=profile,
            secret="hush",
            stale_if_error=60,
            encode=encode,
            encode_min_bytes=1,
            rules=[
                Rule("/admin/*", bypass=True, name="admin"),
                Rule("/vary*", query="key", ignore_query=("utm_*",)),
                Rule("/lang", cookies=("lang",)),
                Rule("/windows", cookies="ignore", query="sort"),
                Rule("/gone", ttl=20),
            ],
        )
        cache.engine.refresher._jitter = lambda: 1.0
        return cache

    def compare(self, extra):
        *fast, slow = [self._run(cache, extra) for cache in self.caches]
        for reply, site in zip(fast, self.sites, strict=False):
            assert reply == slow
            assert site.seen == self.sites[-1].seen
        self.hits += isinstance(slow[1], list) and any("; hit" in value for _, value in slow[1])

    def _run(self, cache, extra):
        try:
            reply = run(cache, complete(extra))
        except Exception as error:
            return type(error), str(error)
        return reply.status, reply.headers, reply.body

    def tick(self, seconds):
        self.clock.tick(seconds)

    def change(self, _):
        self.world["version"] += 1

    def purge(self, value):
        for cache in self.caches:
            cache.purge(value[0], soft=value[1])

    def prefix(self, value):
        for cache in self.caches:
            cache.purge_prefix(value[0], soft=value[1])

    def group(self, soft):
        for cache in self.caches:
            cache.purge_groups("all", soft=soft)

    def clear(self, soft):
        for cache in self.caches:
            cache.clear(soft=soft)

    def switch(self, on):
        for cache in self.caches:
            cache.rules.enable("admin") if on else cache.rules.disable("admin")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    profile=st.sampled_from(["safe", "safe", "rfc"]),
    encode=st.sampled_from([(), ("gzip", "br")]),
    pool=st.lists(requests(), min_size=1, max_size=3),
    rounds=ROUNDS,
)
def test_both_ways_agree_over_random_traffic(profile, encode, pool, rounds):
    twin = Twin(profile, encode)
    for asked, (kind, value) in rounds:
        for which in asked:
            twin.compare(pool[which % len(pool)])
        getattr(twin, kind)(value)
    counts = [{name: n for name, n in cache.stats().items() if name != "store"} for cache in twin.caches]
    assert all(one == counts[-1] for one in counts)
    event(f"hits: {min(twin.hits, 5)}")


@settings(max_examples=300, deadline=None)
@given(
    profile=st.sampled_from(["safe", "rfc"]),
    path=st.sampled_from(["/", "/vary", "/public", "/lang", "/cookie", "/tagged"]),
    accept=st.sampled_from([None, "gzip", "br;q=0.5, gzip", "gzip, identity;q=0", "identity;q=0"]),
    odd=requests(),
)
def test_a_warm_page_does_not_hide_what_is_odd_about_a_request(profile, path, accept, odd):
    """The page is armed first, so that whatever is odd meets the fast path."""
    twin = Twin(profile, () if accept is None else ("br", "gzip"))
    plain = {"PATH_INFO": path, "HTTP_ACCEPT_ENCODING": accept}
    for _ in range(3):
        twin.compare(plain)
    twin.compare({**odd, **plain})
    twin.compare(plain)
    twin.compare({**odd, **plain})


@pytest.mark.parametrize("name", sorted(ODD))
def test_each_odd_value_on_each_warm_page(name):
    for path in ("/", "/vary", "/vary2", "/coded", "/public", "/lang", "/cookie", "/tagged", "/windows"):
        twin = Twin("safe")
        for _ in range(3):
            twin.compare({"PATH_INFO": path})
        for value in ODD[name]:
            for _ in range(3):
                twin.compare({"PATH_INFO": path, name: value})


@pytest.fixture(params=["python", "compiled"])
def kind(request):
    """A cache with each of the hit paths."""
    if request.param not in HIT_PATHS:
        pytest.skip("the compiled hit path is not there: WSGICACHE_COMPILED=twin pip install --editable .")
    return HIT_PATHS[request.param]


def test_the_fast_path_is_there(monkeypatch, kind):
    """Otherwise the tests above compare the long way with itself."""
    headers = text(("Vary", "Accept-Language"))
    for answer in (Response(body=b"page"), Response(headers=headers, body=b"page")):
        cache = new_cache(ScriptedApp(answer), kind)
        ask(cache)
        ask(cache)
        monkeypatch.setattr(cache.engine, "look_up", None)
        for _ in range(3):
            assert ask(cache).is_hit
        assert cache.engine.observer.reasons[Reason.CACHE_FAULT].value == 0
        assert cache.stats()["hits"] == 4


@pytest.mark.parametrize(
    ("asked", "code", "body"),
    [
        ({"method": "HEAD"}, 200, b""),
        ({"headers": {"If-None-Match": '"v"'}}, 304, b""),
        ({"headers": {"If-None-Match": '"v"'}, "method": "HEAD"}, 304, b""),
        ({"headers": {"If-None-Match": '"w"'}}, 200, b"page"),
        ({"headers": {"Range": "bytes=1-2"}}, 206, b"ag"),
        ({"headers": {"Range": "bytes=9-"}}, 416, b""),
    ],
)
def test_heads_conditionals_and_ranges_need_no_look_up(monkeypatch, kind, asked, code, body):
    cache = new_cache(ScriptedApp(Response(headers=text(("ETag", '"v"')), body=b"page")), kind)
    ask(cache)
    ask(cache)
    cache.fake_clock.tick(7)
    monkeypatch.setattr(cache.engine, "look_up", None)
    reply = ask(cache, **asked)
    assert (reply.code, reply.body, reply.is_hit) == (code, body, True)
    assert reply.field("age") == "7"
    assert cache.engine.observer.reasons[Reason.CACHE_FAULT].value == 0
    assert cache.stats()["hits"] == 2


def test_a_rule_for_one_method_holds_for_a_head_of_an_armed_page(kind):
    cache = new_cache(
        ScriptedApp(Response(body=b"page")),
        kind,
        rules=[Rule("/", bypass=True, methods=("HEAD",), name="heads")],
    )
    ask(cache)
    assert ask(cache).is_hit
    assert ask(cache, method="HEAD").detail == "BYPASS_RULE"
    assert ask(cache).is_hit


def test_hits_are_logged_where_decisions_are(caplog, kind):
    caplog.set_level("INFO", logger="wsgicache.decisions")
    cache = new_cache(ScriptedApp(Response(body=b"page")), kind, log=True)
    for _ in range(5):
        ask(cache)
    assert sum("reason=HIT" in line for line in caplog.messages) == 4
    assert len(caplog.messages) == 5


def test_a_hit_is_a_list_of_one_that_is_the_servers_own(kind):
    """bjoern and granian send a list of one the short way; what is done to it reaches no other visitor."""
    cache = new_cache(ScriptedApp(Response(headers=text(), body=b"page")), kind)
    for _ in range(2):
        ask(cache)
    sent = cache(make_environ(), lambda status, headers: None)
    assert type(sent) is list
    assert sent == [b"page"]
    sent.append(b"something else")
    assert cache(make_environ(), lambda status, headers: None) == [b"page"]
    assert cache.stats()["hits"] == 3


# --- what is held for a hit ---


def slots_after(kind, *urls):
    """The slots of pages that were stored and hit once each, a second later."""
    app = ScriptedApp(Response(headers=TEXT, body=b"page"))
    cache = new_cache(app, kind)
    for url in urls:
        ask(cache, url)
    cache.fake_clock.tick(1)
    for url in urls:
        ask(cache, url)
    return cache, [cache.store.peek(f"{url}\0\0example.com\0http") for url in urls]


def test_pages_stored_on_equal_terms_share_what_the_hit_path_knows(kind):
    _, (one, two) = slots_after(kind, "/one", "/two")
    assert one.ready is not None
    assert one.ready is two.ready
    assert one.stored.fields is two.stored.fields


def test_the_whole_head_is_held_only_while_a_page_is_hit_more_than_once_a_second(kind):
    cache, (slot,) = slots_after(kind, "/one")
    heads = []
    for tick in (0, 0, 0, 1, 0, 5, 0):
        cache.fake_clock.tick(tick)
        reply = ask(cache, "/one")
        assert (reply.body, "; hit; " in reply.all("Cache-Status")[0]) == (b"page", True)
        heads.append((*reply.all("Age"), slot.hot[1] is not None))
    once, twice = [("1", False), ("2", False), ("7", False)], [("1", True), ("2", True), ("7", True)]
    assert heads == [once[0], twice[0], twice[0], once[1], twice[1], once[2], twice[2]]


@pytest.mark.parametrize(
    ("switched", "asks"), [(False, 1), (True, 0)], ids=["as it was", "switched just now"]
)
def test_the_store_is_asked_only_about_an_answer_that_will_be_sent(kind, switched, asks):
    cache, _ = slots_after(kind, "/one")
    steady, asked = cache._steady, []

    def clock():
        if switched:
            cache.engine.stamp = object()
        return steady()

    cache._steady, cache._confirm = clock, lambda slot: not asked.append(slot)
    assert ask(cache, "/one").body == b"page"
    assert len(asked) == asks


# --- a hit, and what happens in the middle of it ---

STEPS = ["the clock is read", "the clocks are compared", "the answer is made", "the answer was made"]


class Interrupted:
    """A site whose hits can be interrupted at any step by something that another thread would do."""

    def __init__(self, monkeypatch, kind, store):
        self.version = 1
        self.cache = new_cache(self.app, kind, store=store, rules=[Rule("/*", name="all")])
        self.step, self.happening = None, None
        clock = self.cache._clock
        steady, check, hit = self.cache._steady, clock.check, Ready.hit

        def at(step, then):
            def act(*args):
                if step == self.step:
                    self.step = None
                    self.happening()
                return then(*args)

            return act

        self.cache._steady = at(STEPS[0], steady)
        monkeypatch.setattr(clock, "check", at(STEPS[1], check))

        def made(*args):
            at(STEPS[2], lambda: None)()
            answer = hit(*args)
            at(STEPS[3], lambda: None)()
            return answer

        monkeypatch.setattr(Ready, "hit", made)

    def app(self, environ, start_response):
        body = b"page %d" % self.version
        headers = text(("X-Version", str(self.version)), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"))
        if "HTTP_IF_MODIFIED_SINCE" in environ:
            start_response("304 Not Modified", headers[1:])
            return []
        start_response("200 OK", headers)
        return [body]

    def ask(self):
        """One page with its own head: of one version, with one tag, and an Age that fits its ttl."""
        reply = ask(self.cache, "/")
        version = reply.field("X-Version")
        assert reply.body == b"page " + version.encode() or self.is_freshened
        if reply.is_hit:
            assert reply.field("ETag") == make_etag(reply.body)
            assert int(reply.field("Age")) + int(reply.cache["ttl"]) == 300
        return version, reply

    is_freshened = False

    def tick(self):
        self.cache.fake_clock.tick(1)

    def hit(self):
        self.ask()
        self.ask()

    def tick_and_hit(self):
        self.tick()
        self.hit()

    def replace(self):
        self.version += 1
        self.cache.purge("/")
        self.ask()

    def replace_and_hit(self):
        self.replace()
        self.hit()

    def clear(self):
        self.version += 1
        self.cache.clear()
        self.hit()

    def switch(self):
        self.cache.rules["all"].enabled = False
        self.cache.rules["all"].enabled = True
        self.hit()

    def freshen(self):
        self.version += 1
        self.is_freshened = True
        self.cache.fake_clock.tick(301)
        self.ask()


@pytest.mark.parametrize("store", ["memory", "lmdb"])
@pytest.mark.parametrize(
    ("step", "before"), [*[(step, before) for step in STEPS for before in (0, 1)], (STEPS[0], 2)]
)
@pytest.mark.parametrize(
    "happening",
    ["tick", "hit", "tick_and_hit", "replace", "replace_and_hit", "clear", "switch", "freshen"],
)
def test_whatever_happens_in_the_middle_of_a_hit_pages_stay_whole_and_current(
    monkeypatch, tmp_path, kind, store, step, before, happening
):
    if store == "lmdb":
        pytest.importorskip("lmdb")
        store = f"lmdb://{tmp_path}/db?max_bytes=8MB"
    site = Interrupted(monkeypatch, kind, f"{store}://" if store == "memory" else store)
    site.ask()
    site.ask()
    site.tick()
    for _ in range(before):
        site.ask()
    site.happening, site.step = getattr(site, happening), step
    site.ask()
    assert site.step is None, "it did happen in the middle"
    ages = []
    for tick in (0, 0, 0, 1, 0, 0):
        site.cache.fake_clock.tick(tick)
        version, reply = site.ask()
        assert version == str(site.version), "what was replaced never comes back"
        ages.append(int(reply.field("Age") or 0))
    assert ages == sorted(ages)
    site.cache.close()
