"""House rules 10 and 11: what is in the key, what may not be, and that no two requests share one."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import Site, page

from wsgicache import Rule
from wsgicache.facts import Facts
from wsgicache.options import settings_from
from wsgicache.plan import plans_for
from wsgicache.policy import admit
from wsgicache.rules import RuleSet
from wsgicache.testing import make_environ


def who(environ):
    """An app whose page tells for which URL it was made."""
    told = (
        environ["wsgi.url_scheme"],
        environ.get("HTTP_HOST"),
        environ["SCRIPT_NAME"],
        environ["PATH_INFO"],
    )
    return page(body="|".join(map(str, told)).encode("latin-1"))


def warm(answer=None, url="/", **options):
    """A site whose page the hit path answers."""
    site = Site(answer, **options)
    site.fill(url)
    for _ in range(3):
        assert site.ask(url).is_hit
    return site


# --- 10: host and scheme ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        "https://example.com/",
        "http://www.example.com/",
        "http://example.com:8080/",
        "http://example.com:443/",
        "http://example.com./",
        "http://example.org/",
        "http://127.0.0.1/",
        "http://[::1]/",
    ],
)
def test_host_and_scheme_are_in_the_key(other):
    site = warm(who)
    reply = site.ask(other)
    assert (reply.is_hit, site.app.calls) == (False, 2)
    assert site.ask(other).body == reply.body != site.ask().body


@pytest.mark.parametrize(
    "host", ["example.com", "EXAMPLE.com", "Example.Com", "example.com:80", "EXAMPLE.COM:80", "example.com:"]
)
def test_the_host_is_folded_and_its_default_port_dropped(host):
    site = warm()
    assert site.ask(headers={"Host": host}).is_hit
    assert site.app.calls == 1


def test_the_default_port_is_that_of_the_scheme():
    site = warm(url="https://example.com/")
    assert site.ask("https://example.com/", headers={"Host": "example.com:443"}).is_hit
    assert not site.ask("https://example.com/", headers={"Host": "example.com:80"}).is_hit


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "example.com,evil.com",
        "example.com, example.com",
        "user@example.com",
        "user:pass@example.com",
        "example.com:99999",
        "example.com:80:80",
        "example.com:x",
        "example.com:-1",
        "example.com/evil",
        "example.com?x",
        "example.com#x",
        "exa mple.com",
        "example.com\t",
        "example.com\0",
        "example.com\r\nX: y",
        "http://example.com",
        "[::1",
        "::1",
        "[example.com]",
        "b\xfccher.example",
        "example.com\\evil",
        "'example.com",
        "a|b",
    ],
)
def test_an_invalid_or_repeated_host_bypasses_both_ways(host):
    site = warm()
    for _ in range(2):
        reply = site.ask(headers={"Host": host})
        assert (reply.detail, reply.stored) == ("BYPASS_HOST", False)
    assert site.cache.store.stats()["entries"] == 1


def test_a_request_without_host_is_one_for_the_servers_own_name():
    site = Site()
    site.fill(HTTP_HOST=None, SERVER_NAME="example.com", SERVER_PORT="80")
    assert site.ask(HTTP_HOST=None, SERVER_NAME="example.com", SERVER_PORT="80").is_hit
    assert site.ask().is_hit, "it is the same URL"
    assert not site.ask(HTTP_HOST=None, SERVER_NAME="example.org", SERVER_PORT="80").is_hit


def test_a_request_without_host_is_not_one_for_a_host_named_none():
    site = Site(who)
    site.fill(headers={"Host": "none"})
    for _ in range(3):
        assert site.ask(headers={"Host": "none"}).is_hit
    assert not site.ask(HTTP_HOST=None).is_hit


# --- 10: what proxies forward -----------------------------------------------------------------------

DIFFERENT = [
    {"X-Forwarded-Host": "evil.example"},
    {"X-Forwarded-Host": "example.com, evil.example"},
    {"X-Forwarded-Host": "evil.example, example.com"},
    {"X-Forwarded-Host": "example.com:8080"},
    {"X-Forwarded-Host": ""},
    {"X-Forwarded-Proto": "https"},
    {"X-Forwarded-Proto": "https,http"},
    {"X-Forwarded-Proto": "HTTPS"},
    {"X-Forwarded-Prefix": "/evil"},
    {"X-Forwarded-Port": "8443"},
    {"X-Forwarded-Scheme": "https"},
    {"Forwarded": "host=evil.example"},
    {"Forwarded": 'for=1.2.3.4;host="evil.example";proto=http'},
    {"Forwarded": "proto=https"},
    {"Forwarded": "for=1.2.3.4, HOST=evil.example"},
    {"Forwarded": "for=1.2.3.4; host = evil.example"},
]
EQUAL = [
    {"X-Forwarded-Host": "example.com"},
    {"X-Forwarded-Proto": "http"},
    {"X-Forwarded-Prefix": ""},
    {"X-Forwarded-Prefix": "/"},
    {"X-Forwarded-Port": "80"},
    {"X-Forwarded-Scheme": "http"},
    {"X-Forwarded-For": "1.2.3.4"},
    {"Forwarded": "for=1.2.3.4;proto=http;host=example.com"},
    {"Forwarded": 'for="[::1]"; host="EXAMPLE.com"'},
    {"Forwarded": "for=_hidden;by=1.2.3.4"},
]


@pytest.mark.parametrize("headers", DIFFERENT, ids=repr)
def test_a_forwarded_value_that_differs_from_the_effective_one_joins_the_key(headers):
    def answer(environ):
        return page(
            body=repr([environ.get(f"HTTP_{name.upper().replace('-', '_')}") for name in headers]).encode()
        )

    site = warm(answer)
    clean = site.ask().body
    reply = site.ask(headers=headers)
    assert not reply.is_hit
    assert reply.body != clean
    assert site.ask().body == clean, "a clean client never sees it"
    assert site.ask(headers=headers).body == reply.body


@pytest.mark.parametrize("headers", EQUAL, ids=repr)
def test_a_forwarded_value_that_agrees_adds_nothing(headers):
    site = warm()
    for _ in range(2):
        assert site.ask(headers=headers).is_hit
    assert site.app.calls == 1


def test_every_two_different_forwarded_values_are_kept_apart():
    site = Site(page())
    for number, headers in enumerate(DIFFERENT, 1):
        site.ask(headers=headers)
        assert site.app.calls == number, headers


# --- 10: rewriting and overriding fields ------------------------------------------------------------


@pytest.mark.parametrize("name", ["X-Original-URL", "X-Rewrite-URL"])
@pytest.mark.parametrize("value", ["/admin", "/", ""])
def test_requests_that_may_be_routed_elsewhere_bypass_both_ways(name, value):
    site = warm()
    for _ in range(2):
        reply = site.ask(headers={name: value})
        assert (reply.detail, reply.stored) == ("BYPASS_REWRITE", False)


@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"X-HTTP-Method-Override": "POST"}},
        {"headers": {"X-Method-Override": "DELETE"}},
        {"headers": {"X-HTTP-Method": "PUT"}},
        {"headers": {"X-HTTP-Method-Override": ""}},
        {"url": "/?_method=DELETE"},
        {"url": "/?a=1&_method=DELETE"},
        {"url": "/?%5fmethod=DELETE"},
        {"url": "/?a=1;_method=DELETE"},
        {"url": "/?_method"},
    ],
    ids=repr,
)
def test_requests_that_may_be_of_another_method_bypass_both_ways(request_):
    site = warm(rules=[Rule("/*", query="key")])
    for _ in range(2):
        reply = site.ask(**request_)
        assert (reply.detail, reply.stored) == ("BYPASS_OVERRIDE", False)


def test_a_parameter_that_only_looks_like_one_does_not():
    site = Site(rules=[Rule("/*", query="key")])
    for url in ("/?method=x", "/?x_method=x", "/?a=_method", "/?_methods=x"):
        site.fill(url)


# --- 10 and 11: paths -------------------------------------------------------------------------------

DOTS = [
    "/static/../account",
    "/static/..",
    "/..",
    "/.",
    "/./account",
    "/static/./x",
    "/static/.",
    "/static\\..\\account",
    "/static/..\\account",
    "/static/..//account",
]


@pytest.mark.parametrize("path", DOTS)
@pytest.mark.parametrize("script", ["", "/app"])
@pytest.mark.parametrize("rules", [[], [Rule("/static/*", ttl=60, override=True)]])
def test_a_path_with_dot_segments_is_never_stored(path, script, rules):
    site = Site(page(("Cache-Control", "public, max-age=60")), rules=rules)
    for _ in range(2):
        assert site.ask(PATH_INFO=path, SCRIPT_NAME=script).detail == "BYPASS_PATH"


@pytest.mark.parametrize("path", ["/..a", "/a..", "/...", "/a.b/c", "/.well-known/x", "/a/.hidden"])
def test_dots_within_a_segment_are_ordinary(path):
    Site().fill(path)


@pytest.mark.parametrize("char", [*map(chr, range(32)), "\x7f"])
def test_control_bytes_in_the_path_bypass(char):
    site = Site()
    for path in (f"/a{char}b", f"/{char}", f"/a{char}"):
        assert site.ask(PATH_INFO=path).detail == "BYPASS_PATH"


@pytest.mark.parametrize("path", ["account", "*", "http://example.com/", "\\a"])
def test_a_path_that_is_not_rooted_bypasses(path):
    assert Site().ask(PATH_INFO=path).detail == "BYPASS_PATH"


def test_script_name_and_path_info_are_one_path():
    site = Site()
    site.fill(SCRIPT_NAME="/a", PATH_INFO="/b/c")
    for _ in range(3):
        assert site.ask(SCRIPT_NAME="/a/b", PATH_INFO="/c").is_hit
        assert site.ask("/a/b/c").is_hit
    root = Site()
    root.fill(SCRIPT_NAME="", PATH_INFO="")
    assert root.ask("/").is_hit


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a", "/a/"),
        ("/a", "/A"),
        ("/a/b", "/a//b"),
        ("/", "//"),
        ("/a b", "/a+b"),
        ("/caf\xc3\xa9", "/caf\xe9"),
        ("/caf\xc3\xa9", "/cafe\xcc\x81"),
        ("/\xff", "/\xef\xbf\xbd"),
        ("/a;x", "/a"),
        ("/%61", "/a"),
        ("/a%2Fb", "/a/b"),
    ],
)
def test_paths_that_differ_in_a_byte_are_different_pages(one, other):
    site = Site(who)
    first = site.fill(PATH_INFO=one).body
    second = site.fill(PATH_INFO=other).body
    assert first != second
    assert site.ask(PATH_INFO=one).body == first
    assert site.ask(PATH_INFO=other).body == second


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a%2Fb", "/a/b"),
        ("/a%2fb", "/a/b"),
        ("/a%3Bb", "/a;b"),
        ("http://evil.example/a", "/a"),
        ("http://example.com/a", "/a"),
        ("//a", "/a"),
        ("/x/../a", "/a"),
        ("/a?", "/a"),
        ("/a#x", "/a"),
        ("/a;b", "/a"),
    ],
)
def test_a_raw_target_that_tells_more_than_the_path_joins_the_key(name, raw, path):
    def answer(environ):
        return page(body=environ.get(name, "none").encode())

    site = warm(answer, path)
    reply = site.ask(PATH_INFO=path, **{name: raw})
    assert reply.body == raw.encode()
    assert site.ask(path).body == b"none"


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/a/b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/caf%C3%A9", "/caf\xc3\xa9"),
        ("/caf%c3%a9", "/caf\xc3\xa9"),
        ("/a%20b", "/a b"),
        ("/a%5cb", "/a\\b"),
        ("/a~b", "/a~b"),
        ("/a%7Eb", "/a~b"),
    ],
)
def test_a_raw_target_that_is_the_plain_form_of_the_path_adds_nothing(raw, path):
    site = warm(url="/", answer=None)
    site.fill(PATH_INFO=path)
    assert site.ask(PATH_INFO=path, RAW_URI=raw).is_hit
    assert site.ask(PATH_INFO=path, REQUEST_URI=raw).is_hit


# --- 11: injective keys -----------------------------------------------------------------------------

RULES = RuleSet([Rule("/*", query="key")])
PLANS = plans_for(settings_from({}), RULES)


def key_of(environ):
    """The key of a request, or None where it has none."""
    admission = admit(Facts(environ), RULES, PLANS)
    return None if admission.reason is not None else admission.key


TEXTS = st.text(st.sampled_from("ab/%2Fr=&;:,|._-x\x02\xe9"), max_size=8)
ENVIRONS = st.fixed_dictionaries(
    {"PATH_INFO": TEXTS.map(lambda text: "/" + text)},
    optional={
        "SCRIPT_NAME": st.sampled_from(["", "/a"]),
        "QUERY_STRING": TEXTS,
        "HTTP_HOST": st.sampled_from(["a", "b", "a:8080"]),
        "wsgi.url_scheme": st.sampled_from(["http", "https"]),
        "HTTP_X_FORWARDED_PROTO": st.sampled_from(["http", "https", ""]) | TEXTS,
        "HTTP_X_FORWARDED_HOST": st.sampled_from(["a", "b"]) | TEXTS,
        "HTTP_X_FORWARDED_PREFIX": TEXTS,
        "HTTP_FORWARDED": TEXTS.map(lambda text: "host=" + text),
        "RAW_URI": TEXTS.map(lambda text: "/" + text),
    },
)
SAID = ("HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PREFIX", "HTTP_FORWARDED")


def says(environ):
    """What an app may make its page from: the URL, and what is forwarded unless it says nothing new."""
    scheme, host = environ["wsgi.url_scheme"], environ["HTTP_HOST"]
    script = environ["SCRIPT_NAME"]
    nothing = {
        "HTTP_X_FORWARDED_PROTO": {scheme},
        "HTTP_X_FORWARDED_HOST": {host},
        "HTTP_X_FORWARDED_PREFIX": {script, script + "/"},
    }
    forwarded = []
    for name in SAID:
        value = environ.get(name)
        agrees = value is None or value.strip() in nothing.get(name, ())
        if name == "HTTP_FORWARDED" and value is not None:
            agrees = value.partition("=")[2].strip().strip('"').lower() == host
        forwarded.append(None if agrees else value)
    return (scheme, host, script + environ["PATH_INFO"], environ["QUERY_STRING"], tuple(forwarded))


@settings(max_examples=500)
@given(ENVIRONS, ENVIRONS)
def test_requests_that_say_different_things_have_different_keys(one, other):
    environs = [{**make_environ(), **given} for given in (one, other)]
    keys = [key_of(environ) for environ in environs]
    if None not in keys and keys[0] == keys[1]:
        assert says(environs[0]) == says(environs[1])


@pytest.mark.parametrize(
    ("poison", "victim"),
    [
        (
            {"HTTP_X_FORWARDED_PROTO": "httpsr/a%2Fb", "RAW_URI": "/a/b"},
            {"HTTP_X_FORWARDED_PROTO": "https", "RAW_URI": "/a%2Fb"},
        ),
        (
            {"HTTP_X_FORWARDED_HOST": "evilr/a%2Fb", "RAW_URI": "/a/b"},
            {"HTTP_X_FORWARDED_HOST": "evil", "RAW_URI": "/a%2Fb"},
        ),
        (
            {"HTTP_X_FORWARDED_PROTO": "https\x02HOST=b"},
            {"HTTP_X_FORWARDED_PROTO": "https", "HTTP_X_FORWARDED_HOST": "b"},
        ),
    ],
    ids=["proto and raw", "host and raw", "proto and host"],
)
def test_one_forwarded_value_cannot_pose_as_two(poison, victim):
    def answer(environ):
        told = {name: environ.get(name) for name in (*poison, *victim)}
        return page(body=repr(told).encode())

    site = Site(answer)
    bad = site.ask("/a/b", **poison).body
    assert site.ask("/a/b", **victim).body != bad


def test_a_raw_key_cannot_be_crafted_to_hit_another_page():
    """The hit path looks up unchecked values: separators in them must not add up to somebody's key."""
    site = warm(page(("Vary", "X-Part"), body=b"secret"), "/a")
    site.fill("/a", headers={"X-Part": "1"})
    site.ask("/a", headers={"X-Part": "1"})
    host = "example.com"
    crafted = [
        {"PATH_INFO": f"/a\0\0{host}\0http"},
        {"PATH_INFO": "/a\0", "QUERY_STRING": host, "HTTP_HOST": "http"},
        {"PATH_INFO": "/a", "QUERY_STRING": f"\0{host}\0http"},
        {"PATH_INFO": "/a", "HTTP_HOST": f"{host}\0http\1=1", "wsgi.url_scheme": "http"},
        {"PATH_INFO": "/a", "HTTP_HOST": f"{host}\0http\1-"},
        {"PATH_INFO": "/a", "wsgi.url_scheme": "http\1=1"},
        {"PATH_INFO": "/a", "HTTP_X_PART": "1\1=2"},
    ]
    for environ in crafted:
        assert not site.ask(**environ).is_hit, environ
