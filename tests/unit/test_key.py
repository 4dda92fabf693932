r"""Keys: nothing that differs meets, nothing that is the same is kept apart, and a purge finds it.

The model of the hit path is here because its safety rests on a claim: a key built from raw, unchecked
values equals a stored one only if every part is equal.
"""

from itertools import pairwise

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from wsgicache import Rule, WSGICache
from wsgicache.facts import FORWARDED, Facts, forwarded_extra
from wsgicache.journal import Kind
from wsgicache.key import (
    Parts,
    base_key,
    canonical_host,
    group_target,
    group_targets,
    has_method_override,
    normal_query,
    parse_url,
    prefix_target,
    prefix_targets,
    raw_extra,
    refuse_path,
    refuse_query,
    search_key,
    select_variant,
    selectors,
    split_key,
    url_target,
    url_targets,
    variant_key,
    varying_values,
    wsgi_path,
)
from wsgicache.options import settings_from
from wsgicache.plan import plans_for
from wsgicache.policy import admit
from wsgicache.rules import RuleSet
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask, make_environ

# Every delimiter that a key has, and what others might use.
DELIMITERS = "\0\1\2-=|:/?&;,. "
TEXT = st.text(st.sampled_from(DELIMITERS + "abr%\u00e9\xff\r\n"), max_size=12)
PLAIN = st.text(st.sampled_from("\2-=|:/?&;,.abr%\u00e9\xff"), max_size=12)
PART = st.one_of(PLAIN, PLAIN, PLAIN, TEXT)
LATIN = st.text(st.characters(max_codepoint=255), max_size=12)
FIELDS = ["accept", "accept-language", "cookie:a", "x-a", "x-b"]

RULES = RuleSet([Rule("/*", query="key")])
PLANS = plans_for(settings_from({}), RULES)


def parts_of(environ):
    """What tells two requests apart, each in its canonical form, and the key; None twice where the cache
    stands aside."""
    facts = Facts(environ)
    admission = admit(facts, RULES, PLANS)
    if admission.reason is not None:
        return None, None
    forwarded = tuple(environ.get(name) if differs(name, environ, facts) else None for name in PROXIES)
    raw = raw_extra(facts.raw, facts.path, facts.query)
    return (facts.path, facts.query, admission.host, facts.scheme, forwarded, raw), admission.key


PROXIES = ("HTTP_X_FORWARDED_PROTO", *FORWARDED)


def differs(name, environ, facts):
    """Whether a forwarded field, alone, says something else than what the app sees."""
    if name == "HTTP_X_FORWARDED_PROTO":
        return environ.get(name) not in (None, facts.scheme)
    alone = {name: environ.get(name), "SCRIPT_NAME": environ["SCRIPT_NAME"]}
    return bool(forwarded_extra(alone.get, facts.host, facts.scheme))


def environ_of(path, query, host, scheme, **extra):
    environ = make_environ("/", HTTP_HOST=host, **extra)
    environ |= {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.url_scheme": scheme}
    return environ


# --- injectivity ---

GOOD_HOSTS = st.sampled_from(["a", "A", "a:80", "a:443", "a:080", "a:8080", "a.", "[::1]", "[::1]:81"])
HOSTS = st.one_of(GOOD_HOSTS, GOOD_HOSTS, GOOD_HOSTS, st.sampled_from(["a,a", "", "a\0http"]), TEXT)
ROOTED = PART.map(lambda text: "/" + text)
REQUESTS = st.builds(
    environ_of,
    st.one_of(ROOTED, ROOTED, ROOTED, TEXT),
    PART,
    HOSTS,
    st.sampled_from(["http", "https"]),
    RAW_URI=st.one_of(st.none(), ROOTED, PART),
    HTTP_X_FORWARDED_PROTO=st.one_of(st.none(), PART, st.sampled_from(["http", "https"])),
    HTTP_X_FORWARDED_HOST=st.one_of(st.none(), HOSTS),
    HTTP_X_FORWARDED_PREFIX=st.one_of(st.none(), PART),
    HTTP_FORWARDED=st.one_of(st.none(), PART.map(lambda text: f"host={text}")),
)


@given(REQUESTS, REQUESTS)
def test_no_two_requests_that_differ_share_a_key(one, other):
    """KEY-01: whatever delimiters the parts hold."""
    (parts, key), (other_parts, other_key) = parts_of(one), parts_of(other)
    if parts is not None and other_parts is not None:
        assert (key == other_key) == (parts == other_parts)


@given(st.tuples(*[LATIN] * 4), st.tuples(*[LATIN] * 4))
def test_no_two_tuples_of_parts_share_a_key(one, other):
    """The joint itself, for parts as `admit` lets them pass: without NUL and SOH."""
    assume(not any(set(part) & {"\0", "\1"} for part in one + other))
    assert (base_key(*one) == base_key(*other)) == (one == other)
    assert split_key(base_key(*one))[:4] == one


@given(REQUESTS)
def test_a_key_can_be_taken_apart(environ):
    parts, key = parts_of(environ)
    if parts is not None:
        taken = split_key(key)
        assert taken[:4] == parts[:4]
        assert bool(taken.extra) == any((*[value is not None for value in parts[4]], parts[5]))
        assert split_key(variant_key(key, ("x-a",), ("b",))) == taken


VALUES = st.one_of(st.none(), TEXT)


@st.composite
def variants(draw):
    fields = tuple(draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3, unique=True)))
    values = draw(st.tuples(*[VALUES] * len(fields)))
    return draw(st.sampled_from(["/\0\0a\0http", "/\0\0a\0http\0pfoo"])), fields, values


@given(variants(), variants())
@example(("/\0\0a\0http", ("x-a",), (None,)), ("/\0\0a\0http", ("x-b",), (None,)))
@example(("/\0\0a\0http", ("x-a",), ("1",)), ("/\0\0a\0http", ("x-b",), ("1",)))
def test_no_two_variants_share_a_key(one, other):
    """Absent differs from empty, one value from two, and one field from another."""
    for base, fields, values in (one, other):
        assume(varying_values(fields, dict(zip(fields, values, strict=True)).get) == values)
        assert variant_key(base, fields, values) not in (base, "/\0\0a\0http", "/\0\0a\0http\0pfoo")
    assert (variant_key(*one) == variant_key(*other)) == (one == other)


@pytest.mark.parametrize("value", ["a\0b", "a\1b", "\0", "\1"])
def test_a_value_with_a_delimiter_is_in_no_key(value):
    assert varying_values(("x-a",), {"x-a": value}.get) is None


# --- the hit path's unchecked key ---


def raw_key(environ):
    """What `Middleware.__call__` looks up, before it has checked anything."""
    get = environ.get
    path = get("SCRIPT_NAME", "") + environ["PATH_INFO"]
    return f"{path}\0{get('QUERY_STRING', '')}\0{get('HTTP_HOST')}\0{environ['wsgi.url_scheme']}"


@given(REQUESTS, REQUESTS)
def test_a_raw_key_equals_a_stored_one_only_where_all_parts_are_equal(raw, stored):
    parts, key = parts_of(stored)
    if key is None:
        return
    if raw_key(raw) == key:
        assert (raw["PATH_INFO"], raw["QUERY_STRING"], raw["HTTP_HOST"], raw["wsgi.url_scheme"]) == parts[:4]
        assert (set(parts[4]), parts[5]) == ({None}, "")
    assert raw_key(raw) != variant_key(key, ("x-a",), (None,))


@given(TEXT, TEXT, st.sampled_from(["http", "https"]), st.lists(TEXT, min_size=1, max_size=3))
def test_a_raw_key_is_no_key_with_an_extra_nor_a_variant(path, query, scheme, rest):
    """A path may hold NUL (`%00`), so it can fake separators; it cannot fake the scheme at the end."""
    host = "\0".join(rest)
    key = f"/{path}\0{query}\0{host}\0{scheme}"
    for extra in ("phttps", "phttp", "\x02HOST=a", "r/a%2Fb"):
        assert not key.endswith(f"\0{extra}")
    assert "\1" not in key.rpartition("\0")[2]


@given(st.one_of(st.none(), TEXT), st.one_of(st.none(), TEXT))
def test_a_raw_variant_key_is_that_of_the_same_values(accept, language):
    """Where a value holds a delimiter the long way has no key; the hit path's must not be another's."""
    fields = ("accept", "accept-language")
    environ = {"HTTP_ACCEPT": accept, "HTTP_ACCEPT_LANGUAGE": language}
    base = "/\0\0a\0http"
    key = select_variant(base, selectors(fields, {}), environ.get)
    values = varying_values(fields, {"accept": accept, "accept-language": language}.get)
    if values is not None:
        assert key == variant_key(base, fields, values)


def test_the_hit_path_selects_as_the_long_way_does():
    normalisers = {"accept-encoding": lambda value: "gzip" if value else None}
    chosen = selectors(("accept-encoding", "cookie", "cookie:a", "content-type"), normalisers)
    environ = {
        "HTTP_ACCEPT_ENCODING": "br, gzip", "HTTP_COOKIE": "a=1", "CONTENT_TYPE": "x", "cookie:a": "1",
    }  # fmt: skip
    key = select_variant("base", chosen, environ.get)
    fields = ("accept-encoding", "cookie", "cookie:a", "content-type")
    assert key == variant_key("base", fields, ("gzip", None, None, "x"))


def varying_app(field):
    def answer(environ):
        return Response(headers=[("Vary", field["is"])], body=str(environ.get("HTTP_X_A")).encode())

    return ScriptedApp(answer)


def test_a_page_that_changes_what_it_varies_by_never_shows_another_variant():
    """The record of varying fields may be evicted; the variants it led to then answer nobody."""
    field = {"is": "X-A"}
    cache = WSGICache(varying_app(field), clock=FakeClock())
    for _ in range(3):
        ask(cache, "/", headers={"X-A": "1"})
    cache.store.delete("/\0\0example.com\0http")
    field["is"] = "X-B"
    for _ in range(3):
        ask(cache, "/", headers={"X-A": "2", "X-B": "2"})
    reply = ask(cache, "/", headers={"X-A": "3", "X-B": "1"})
    assert (reply.is_hit, reply.body) == (False, b"3")


# --- hosts (POI-12) ---


@pytest.mark.parametrize(
    ("host", "scheme", "canonical"),
    [
        ("example.com", "http", "example.com"),
        ("EXAMPLE.com", "http", "example.com"),
        ("example.com:80", "http", "example.com"),
        ("example.com:443", "https", "example.com"),
        ("example.com:", "http", "example.com"),
        ("example.com:080", "http", "example.com"),
        ("example.com:00443", "https", "example.com"),
        ("example.com:443", "http", "example.com:443"),
        ("example.com:80", "https", "example.com:80"),
        ("Example.com:8080", "http", "example.com:8080"),
        ("example.com:08080", "http", "example.com:8080"),
        ("example.com:65535", "http", "example.com:65535"),
        ("example.com.", "http", "example.com."),  # another name, as far as a cache can know
        ("xn--bcher-kva.example", "http", "xn--bcher-kva.example"),
        ("under_score.example", "http", "under_score.example"),
        ("127.0.0.1:8000", "http", "127.0.0.1:8000"),
        ("[::1]", "http", "[::1]"),
        ("[2001:DB8::1]:8080", "http", "[2001:db8::1]:8080"),
        ("[::1]:80", "http", "[::1]"),
    ],
)
def test_a_host_in_its_canonical_form(host, scheme, canonical):
    assert canonical_host(host, scheme) == canonical
    assert canonical_host(canonical, scheme) == canonical


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ":80",
        "user@example.com",
        "example.com, example.org",
        "example.com,example.com",
        "example.com example.org",
        "example.com/a",
        "example.com?a",
        "example.com#a",
        "example.com\\a",
        "example.com:80:80",
        "example.com:65536",
        "example.com:-1",
        "example.com:+80",
        "example.com:8o",
        "example.com:\u0668\u0660",  # digits elsewhere
        "example.com:123456",
        "ex\u00e4mple.com",
        "example.com\0",
        "example.com\n",
        "example.com\r\nX: y",
        "example.com\t",
        "::1",
        "[::1",
        "[::1]x",
        "[::1%25eth0]",
        "a\1b",
    ],
)
def test_what_is_no_host_has_no_key(host):
    assert canonical_host(host, "http") is None
    assert canonical_host(host, "https") is None


@given(HOSTS, st.sampled_from(["http", "https"]))
def test_a_canonical_host_is_its_own_canonical_form(host, scheme):
    canonical = canonical_host(host, scheme)
    if canonical is not None:
        assert canonical_host(canonical, scheme) == canonical == canonical.lower()


@pytest.mark.parametrize(
    ("host", "scheme", "hit"),
    [
        ("EXAMPLE.com", "http", True),
        ("example.com:80", "http", True),
        ("example.com:080", "http", True),
        ("example.com.", "http", False),
        ("example.com:8080", "http", False),
        ("user@example.com", "http", False),
        ("example.com, example.com", "http", False),
        ("", "http", False),
        ("example.com", "https", False),
    ],
)
def test_which_hosts_share_a_page(host, scheme, hit):
    """POI-12, through the middleware, by the long way and by the hit path."""
    cache = WSGICache(ScriptedApp(Response(body=b"page")))
    for _ in range(3):
        ask(cache, "/")
    for _ in range(1 if not hit else 3):
        reply = ask(cache, "/", HTTP_HOST=host, **{"wsgi.url_scheme": scheme})
        assert reply.is_hit is hit
        assert reply.cache.get("fwd") in ((None,) if hit else ("uri-miss", "bypass"))


# --- paths and queries that are refused ---


@pytest.mark.parametrize(
    "path",
    ["", "a", "*", "/a\0b", "/a\rb", "/a\nb", "/\x1f", "/\x7f", "/.", "/..", "/a/../b", "/a/./b", "/a/..",
     "/\\..\\b", "/a\\../b", "/a/..\\b"],
)  # fmt: skip
def test_paths_that_have_no_key(path):
    assert refuse_path(path) is not None


@pytest.mark.parametrize(
    "path", ["/", "//", "/a", "/...", "/.a", "/a..b", "/a/...", "/\xe9", "/a b", "/\x80"]
)
def test_paths_that_have_one(path):
    assert refuse_path(path) is None


@pytest.mark.parametrize("query", ["a b", "a\0b", "a\1b", "a\nb", "\x7f"])
def test_queries_that_have_no_key(query):
    assert refuse_query(query) is not None


@pytest.mark.parametrize("query", ["", "a=1", "%00", "a;b", "\xe9"])
def test_queries_that_have_one(query):
    assert refuse_query(query) is None


@given(TEXT)
def test_what_has_a_key_holds_no_delimiter(text):
    if refuse_path(text) is None:
        assert not {"\0", "\1"} & set(text)
    if refuse_query(text) is None:
        assert not {"\0", "\1"} & set(text)


# --- the raw request target (KEY-05, KEY-06, KEY-13) ---


@pytest.mark.parametrize(
    ("raw", "path", "query"),
    [
        (None, "/a", ""),
        ("/a", "/a", ""),
        ("/a?b=1", "/a", "b=1"),
        ("/a%20b", "/a b", ""),
        ("/a%7Eb", "/a~b", ""),
        ("/%61", "/a", ""),
        ("/caf%C3%A9", "/caf\xc3\xa9", ""),
        ("/caf%c3%a9", "/caf\xc3\xa9", ""),
        ("/caf\xc3\xa9", "/caf\xc3\xa9", ""),
        ("/a%3Fb?c", "/a?b", "c"),
    ],
)
def test_a_raw_target_in_its_plain_form_adds_nothing(raw, path, query):
    assert raw_extra(raw, path, query) == ""


@pytest.mark.parametrize(
    ("one", "other", "path", "query"),
    [
        ("/a%2Fb", "/a/b", "/a/b", ""),
        ("/a%2fb?c", "/a/b?c", "/a/b", "c"),
        ("/a%3Ab", "/a:b", "/a:b", ""),
        ("/a%25b", "/a%b", "/a%b", ""),
        ("/a?", "/a", "/a", ""),
        ("/a%2Fb?", "/a%2Fb", "/a/b", ""),
        ("/a%2Fb?", "/a/b?", "/a/b", ""),
        ("//a", "/a", "/a", ""),
        ("/a/./b", "/a/b", "/a/b", ""),
        ("/x/../a", "/a", "/a", ""),
        ("/a;p", "/a", "/a", ""),
        ("http://evil.example/a", "/a", "/a", ""),
        ("http://evil.example/a", "http://example.com/a", "/a", ""),
        ("http://evil.example", "/", "/", ""),
        ("*", "/", "/", ""),
        ("/a?b", "/a?c", "/a", ""),
    ],
)
def test_raw_targets_that_an_app_can_tell_apart(one, other, path, query):
    assert raw_extra(one, path, query) != raw_extra(other, path, query)


RAW = st.text(st.sampled_from("/a.%2F3Ff?&=;:*~\xe9"), max_size=10)


@given(RAW, RAW, st.sampled_from(["/a", "/a/b", "/", "/a?b"]), st.sampled_from(["", "a", "a=1"]))
def test_raw_targets_add_the_same_only_where_they_mean_the_same(one, other, path, query):
    """What differs after unreserved characters are decoded adds something else (RFC 3986 §6.2.2)."""
    if raw_extra(one, path, query) == raw_extra(other, path, query) != "":
        assert one == other or query
        assert one.partition("?")[0] == other.partition("?")[0]


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_an_encoded_slash_is_another_page(name):
    """KEY-05: an app that reads the raw target tells them apart, so the cache does."""
    app = ScriptedApp(lambda environ: Response(body=environ[name].encode()))
    cache = WSGICache(app)
    for raw in ("/foo%2Fbar", "/foo/bar"):
        for _ in range(3):
            reply = ask(cache, "/foo/bar", **{name: raw})
        assert (reply.is_hit, reply.body) == (True, raw.encode())
    assert app.calls == 2


def test_two_spellings_of_a_letter_are_two_pages():
    """KEY-06: bytes, never decoded with replacement."""
    app = ScriptedApp(lambda environ: Response(body=environ["PATH_INFO"].encode("latin-1")))
    cache = WSGICache(app)
    for path in ("/caf%C3%A9", "/caf%E9", "/caf%EF%BF%BD"):
        for _ in range(3):
            reply = ask(cache, path)
        assert (reply.is_hit, reply.body) == (True, wsgi_path(path).encode("latin-1"))
    assert app.calls == 3


def test_where_an_app_is_mounted_makes_no_difference():
    """KEY-03: one URL, one key."""
    app = ScriptedApp(Response(body=b"page"))
    cache = WSGICache(app)
    ask(cache, "/", SCRIPT_NAME="/a", PATH_INFO="/b/c")
    assert ask(cache, "/", SCRIPT_NAME="/a/b", PATH_INFO="/c").is_hit
    assert ask(cache, "/a/b/c").is_hit
    cache.purge("/a/b/c")
    assert not ask(cache, "/", SCRIPT_NAME="/a", PATH_INFO="/b/c").is_hit


# --- queries (POI-07, POI-08, KEY-13) ---


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("", ""),
        ("a=1", "a=1"),
        ("utm_source=x", ""),
        ("a=1&utm_source=x&b=2", "a=1&b=2"),
        ("q=good&q=evil", "q=good&q=evil"),
        ("q=evil&q=good", "q=evil&q=good"),
        ("%75tm_source=x&a=1", "a=1"),  # the name counts as the app decodes it
        ("utm%5Fsource=x&a=1", "a=1"),
        ("UTM_SOURCE=x", "UTM_SOURCE=x"),
        ("utm_x=1;q=evil", "utm_x=1;q=evil"),  # parsers differ: keyed whole
        ("a=1&utm_x=1;q=evil", "a=1&utm_x=1;q=evil"),
        ("gclid", ""),
        ("gclid=", ""),
        ("gclid=1&gclid=2", ""),
        ("gclidx=1", "gclidx=1"),
        ("a&a=", "a&a="),
        ("=b", "=b"),
        ("a=b=c", "a=b=c"),
        ("a=%26utm_x=1", "a=%26utm_x=1"),
        ("a+b=1", "a+b=1"),
    ],
)
def test_ignored_names_leave_the_query(query, normal):
    assert normal_query(query, ("utm_*", "gclid")) == normal


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("b=1&a=2", "a=2&b=1"),
        ("b=2&a=1&b=1", "a=1&b=2&b=1"),  # stable: repeated names keep their order
        ("%62=1&a=2", "a=2&%62=1"),
        ("b;a", "b;a"),
    ],
)
def test_sorting_is_by_name_only(query, normal):
    assert normal_query(query, (), sort=True) == normal


QUERIES = st.text(st.sampled_from("abu_=&;+%6"), max_size=20)


@given(QUERIES, st.booleans())
def test_normalising_twice_changes_nothing_more(query, sort):
    once = normal_query(query, ("u*", "b"), sort)
    assert normal_query(once, ("u*", "b"), sort) == once


@given(QUERIES)
def test_normalising_loses_nothing_but_what_is_ignored(query):
    assert normal_query(query) == query
    kept = normal_query(query, ("u*",)).split("&")
    position = 0
    for part in query.split("&"):
        if position < len(kept) and part == kept[position]:
            position += 1
    assert position == len(kept) or kept == [""]


@pytest.mark.parametrize(
    ("query", "has"),
    [("_method=PUT", True), ("a=1&_method=PUT", True), ("a=1;_method=PUT", True), ("%5Fmethod=PUT", True),
     ("_method", True), ("a_method=1", False), ("a=_method", False), ("", False)],
)  # fmt: skip
def test_a_method_override_in_the_query(query, has):
    assert has_method_override(query) is has


def test_four_queries_that_look_alike():
    """KEY-13: `?` against none, `?a` against `?a=`, absent against empty."""
    app = ScriptedApp(lambda environ: Response(body=environ["RAW_URI"].encode()))
    cache = WSGICache(app, rules=[Rule("/*", query="key")])
    for raw in ("/p", "/p?", "/p?a", "/p?a="):
        for _ in range(3):
            reply = ask(cache, "/p", RAW_URI=raw, QUERY_STRING=raw.partition("?")[2])
        assert (reply.is_hit, reply.body) == (True, raw.encode())
    assert app.calls == 4


# --- what a purge reaches (ADM-19) ---


def cached(*rules, **options):
    return WSGICache(ScriptedApp(Response(headers=[("Cache-Tag", "post")])), rules=rules, **options)


def stored(cache, **given):
    """Store one page, twice asked for, so that the hit path would answer."""
    url = given.pop("url", "/post/1")
    for _ in range(3):
        reply = ask(cache, url, **given)
    assert reply.is_hit
    return lambda: ask(cache, url, **given).is_hit


SAME = [
    # live traffic, what somebody types into a shell
    ({}, "/post/1"),
    ({}, "http://example.com/post/1"),
    ({}, "HTTP://EXAMPLE.COM/post/1"),
    ({}, "http://example.com:80/post/1"),
    ({}, "http://example.com:080/post/1"),
    ({}, "http://example.com:/post/1"),
    ({}, "/post/1#comments"),
    ({}, "/post/%31"),
    ({"HTTP_HOST": "EXAMPLE.com:80"}, "http://example.com/post/1"),
    ({"url": "https://example.com/post/1"}, "/post/1"),
    ({"url": "https://example.com/post/1"}, "https://example.com:443/post/1"),
    ({"url": "http://example.org:8080/post/1"}, "/post/1"),
    ({"url": "http://example.org:8080/post/1"}, "http://Example.org:8080/post/1"),
    ({"SCRIPT_NAME": "/blog", "PATH_INFO": "/post/1"}, "/blog/post/1"),
    ({"url": "/caf%C3%A9"}, "/café"),
    ({"url": "/caf%C3%A9"}, "/caf%c3%a9"),
    ({"url": "/a%20b"}, "/a b"),
    ({"url": "/a/b", "RAW_URI": "/a%2Fb"}, "/a/b"),
    ({"url": "/a/b", "RAW_URI": "/a%2Fb"}, "/a%2Fb"),
    ({"HTTP_X_FORWARDED_PROTO": "https"}, "/post/1"),
    ({"HTTP_X_FORWARDED_HOST": "other.example"}, "/post/1"),
    ({"headers": {"Accept-Encoding": "gzip"}}, "/post/1"),
    ({"url": "/"}, "/"),
    ({"url": "/"}, "http://example.com"),
    ({"url": "/", "PATH_INFO": ""}, "/"),
    ({"url": "/search?q=a"}, "/search"),
    ({"url": "/search?q=a"}, "/search?q=a"),
    ({"url": "/search?q=a"}, "http://example.com/search?q=a"),
    ({"url": "/search?q=caf%C3%A9"}, "/search?q=café"),
    ({"url": "/search?utm_source=x&q=a"}, "/search?q=a"),
    ({"url": "/search?q=a"}, "/search?q=a&utm_source=x"),
    ({"url": "/search?q=a"}, "http://example.com/search?utm_medium=y&q=a"),
    ({"url": "/sorted?b=1&a=2"}, "/sorted?b=1&a=2"),
    ({"url": "/sorted?b=1&a=2"}, "/sorted?a=2&b=1"),
]
OTHER = [
    ({}, "/post/2"),
    ({}, "/post"),
    ({}, "/post/1/"),
    ({}, "/POST/1"),
    ({}, "/post/1?"),
    ({}, "/post/1?a=1"),
    ({}, "https://example.com/post/1"),
    ({}, "http://example.com:8080/post/1"),
    ({}, "http://www.example.com/post/1"),
    ({}, "http://example.com./post/1"),
    ({"url": "/search?q=a"}, "/search?q=b"),
    ({"url": "/search?q=a"}, "http://example.com/search"),
    ({"url": "/search?q=a"}, "/search?"),
]
SEARCH = (
    Rule("/search", query="key", ignore_query=("utm_*",)),
    Rule("/sorted", query="sort"),
)


@pytest.mark.parametrize(("live", "url"), SAME)
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_a_purge_reaches_live_traffic(live, url, soft):
    cache = cached(*SEARCH)
    is_hit = stored(cache, **live)
    purged = cache.purge(url, soft=soft)
    assert purged.matched == 1
    assert not is_hit()
    assert is_hit()


@pytest.mark.parametrize(("live", "url"), [pair for pair in OTHER if pair[1] != "/post/1?"])
def test_a_purge_reaches_nothing_else_and_says_so(live, url):
    cache = cached(*SEARCH)
    is_hit = stored(cache, **live)
    assert cache.purge(url).matched == 0
    assert is_hit()


@pytest.mark.parametrize("origin", ["", "http://example.com"])
@pytest.mark.parametrize("query", ["q=a", "q=a&utm=x", "utm=y&q=a"])
def test_a_purge_reaches_whatever_no_vary_search_made_of_the_query(origin, query):
    """What counts in a query is known from responses only, so all queries of the path go."""
    app = ScriptedApp(Response(headers=[("No-Vary-Search", 'params=("utm")')]))
    cache = WSGICache(app, rules=[Rule("/search", query="key")], no_vary_search=True)
    is_hit = stored(cache, url="/search?utm=1&q=a")
    assert ask(cache, "/search?utm=2&q=a").is_hit
    cache.purge(f"{origin}/search?{query}")
    assert not is_hit()


def test_where_no_vary_search_is_recorded_no_request_comes():
    key = base_key("/a", "q=1", "example.com", "http", "phttps")
    parts = split_key(search_key(key))
    assert (parts.path, parts.host, parts.scheme, parts.extra) == ("/a", "example.com", "http", "phttps")
    assert refuse_query(parts.query) is not None
    assert search_key(base_key("/a", "q=2", "example.com", "http", "phttps")) == search_key(key)


@pytest.mark.parametrize(
    ("parts", "url"),
    [
        (("/a", "", "h", "http", ""), "http://h/a"),
        (("/a b/\xc3\xa9", "q=%C3%A9", "h:81", "https", "phttp"), "https://h:81/a%20b/%C3%A9?q=%C3%A9"),
        (("/a?b#c%", "", "h", "http", ""), "http://h/a%3Fb%23c%25"),
    ],
)
def test_parts_as_people_see_them(parts, url):
    assert Parts(*parts).url == url
    assert url_target(url) in url_targets(Parts(*parts))


def test_an_empty_query_in_a_purge_means_the_page_without_one():
    cache = cached(*SEARCH)
    with_query, without = stored(cache, url="/search?q=a"), stored(cache, url="/search")
    assert cache.purge("/search?").matched == 1
    assert (with_query(), without()) == (True, False)


def test_a_purge_reaches_what_a_rule_stored_that_is_switched_off_now():
    cache = cached(Rule("/search", query="key", ignore_query=("utm_*",), name="search"))
    is_hit = stored(cache, url="/search?utm_source=x&q=a")
    cache.rules.disable("search")
    cache.purge("/search?utm_source=y&q=a")
    cache.rules.enable("search")
    assert not is_hit()


@pytest.mark.parametrize(
    ("prefix", "path", "covered"),
    [
        ("/", "/", True),
        ("/", "/a/b", True),
        ("/blog/", "/blog/", True),
        ("/blog/", "/blog", True),
        ("/blog", "/blog/a", True),
        ("/blog/", "/blog/a/b/c", True),
        ("/blog/", "/blogs", False),
        ("/blog", "/blogs/a", False),
        ("/blog", "/a/blog", False),
        ("/blog/a", "/blog", False),
        ("/blog//", "/blog/a", True),
        ("/caf%C3%A9", "/caf%c3%a9/a", True),
        ("/café/", "/caf%C3%A9", True),
        ("http://example.com", "/a", True),
        ("http://EXAMPLE.com:80/blog/", "/blog/a", True),
        ("https://example.com/blog/", "/blog/a", False),
        ("http://example.com:81/blog/", "/blog/a", False),
    ],
)
def test_a_purge_by_prefix_ends_at_segments(prefix, path, covered):
    cache = cached()
    is_hit = stored(cache, url=path)
    assert cache.purge_prefix(prefix).matched == covered
    assert is_hit() is not covered


@pytest.mark.parametrize(
    ("origin", "covered"),
    [
        (None, True),
        ("http://example.com", True),
        ("http://EXAMPLE.com:80/", True),
        ("https://example.com", False),
        ("http://example.org", False),
    ],
)
def test_a_purge_by_group_may_name_an_origin(origin, covered):
    cache = cached()
    is_hit = stored(cache)
    assert cache.purge_groups("post", origin=origin).matched == covered
    assert is_hit() is not covered


PATHS = st.text(st.sampled_from("/ab%?#:@é \\"), max_size=8).map(lambda text: "/" + text)


@given(PATHS, st.one_of(st.none(), st.sampled_from(["a", "a=1", "é", ""])))
def test_a_path_purged_as_it_was_asked_for_is_reached(path, query):
    path = path.replace("?", "").replace("#", "")
    assume(not path.startswith("//"))
    url = path if query is None else f"{path}?{query}"
    environ = make_environ(url)
    parts = Parts(environ["PATH_INFO"], environ["QUERY_STRING"], "example.com", "http", "")
    assert url_target(path) in url_targets(parts)
    assert url_target(f"http://example.com{url}") in url_targets(parts)
    if query is not None:
        assert url_target(url) in url_targets(parts)


@given(st.text(st.sampled_from("/ab"), min_size=1, max_size=10).map(lambda text: "/" + text))
def test_the_prefixes_of_a_path(path):
    parts = Parts(path, "", "h", "http", "")
    targets = prefix_targets(parts)
    segments = path.split("/")
    for end in range(1, len(segments) + 1):
        prefix = "/".join(segments[:end]) or "/"
        if not prefix.startswith("//"):
            assert prefix_target(prefix) in targets
    assert len(targets) <= 2 * (path.count("/") + 2)


def test_targets_of_different_kinds_never_meet():
    """A URL, a query, an origin's path and a URL of an origin, whatever the texts."""
    parts = Parts("/a", "q", "h", "http", "")
    for one, other in pairwise(sorted(url_targets(parts))):
        assert one != other
    assert group_targets(parts, ["g"]) == [group_target("g"), group_target("g", "http://h")]
    assert group_targets(parts, []) == []


# --- parse_url ---


@pytest.mark.parametrize(
    ("url", "parsed"),
    [
        ("/", (None, "/", None)),
        ("/a?b", (None, "/a", "b")),
        ("/a?", (None, "/a", "")),
        ("/a#b?c", (None, "/a", None)),
        ("/a?b#c", (None, "/a", "b")),
        ("/a?b?c", (None, "/a", "b?c")),
        ("/a:b//c", (None, "/a:b//c", None)),
        ("/caf%C3%A9", (None, "/caf\xc3\xa9", None)),
        ("/café?é", (None, "/caf\xc3\xa9", "%C3%A9")),
        ("/%zz%", (None, "/%zz%", None)),
        ("http://h", ("http://h", "/", None)),
        ("https://h?a", ("https://h", "/", "a")),
        ("HTTPS://H:443/A", ("https://h", "/A", None)),
        ("http://[::1]:8000/a", ("http://[::1]:8000", "/a", None)),
    ],
)
def test_urls(url, parsed):
    assert parse_url(url) == parsed


BAD_URLS = ["", "post/1", "//example.com/a", "ftp://example.com/", "http:///a", "http:a", "http://", "*",
            "http://user@example.com/", "http://example.com:99999/", "http://a b/", "http://[::1/", "?a=1",
            "example.com/a", "javascript:alert(1)", "#a"]  # fmt: skip


@pytest.mark.parametrize("url", BAD_URLS)
@pytest.mark.parametrize("purge", ["purge", "purge_prefix"])
def test_what_is_no_url_is_refused_with_the_remedy(url, purge):
    cache = cached()
    is_hit = stored(cache)
    with pytest.raises(ValueError, match=r"give a path \(/post/1\) or an http\(s\) URL"):
        getattr(cache, purge)("/post/1", url)
    assert is_hit()  # nothing is purged where one of the names is wrong


@pytest.mark.parametrize("origin", ["example.com", "", "ftp://example.com"])
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(ValueError, match="not a URL of this site"):
        cached().purge_groups("post", origin=origin)


def test_a_prefix_with_a_query_is_refused():
    with pytest.raises(ValueError, match=r"a prefix has no query: '/a\?b'; use purge"):
        cached().purge_prefix("/a?b")


@pytest.mark.parametrize("purge", ["purge", "purge_prefix", "purge_groups"])
def test_purging_nothing_is_refused(purge):
    with pytest.raises(ValueError, match="name at least one"):
        getattr(cached(), purge)()


def test_a_purge_tells_what_it_wrote():
    purged = cached().purge("/a", "/b", soft=True)
    assert [(p.kind, p.target, p.soft) for p in purged.purges] == [
        (Kind.URL, "p/a", True),
        (Kind.URL, "p/b", True),
    ]
    assert purged.mark.seq == 2
    assert repr(purged) == "Purged(url /a, url /b)"


@given(st.text(max_size=30))
def test_parse_url_answers_or_raises_value_error(text):
    try:
        origin, path, query = parse_url(text)
    except ValueError:
        return
    assert path.startswith("/")
    assert path.encode("latin-1") is not None
    assert origin is None or origin.startswith(("http://", "https://"))
    assert query is None or query.isascii()
