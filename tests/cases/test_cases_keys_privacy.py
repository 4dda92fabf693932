"""Keys and collisions (KEY), private data (PRV), varying and negotiation (VAR)."""

import itertools
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import HTML, VICTIM, Site, control, page

from wsgicache import Reason, Rule
from wsgicache.entry import Entry
from wsgicache.facts import Facts
from wsgicache.options import settings_from
from wsgicache.plan import plans_for
from wsgicache.policy import admit
from wsgicache.rules import RuleSet
from wsgicache.testing import make_environ

# --- KEY --------------------------------------------------------------------------------------------

RULES = RuleSet([Rule("/*", query="key", cookies=["a", "b"], vary=["x-part", "x-other"])])
PLANS = plans_for(settings_from({}), RULES)
DELIMITERS = ["\0", "\1", "\2", "|", "/", ";", ":", "-", "=", "\n", " ", "?", "#", "_", ","]
TEXT = st.lists(st.sampled_from([*DELIMITERS, "a", "b", "p", "r", "http", "\xe9"]), max_size=6).map("".join)


def key_of(path, query, host, scheme, part, other):
    """The whole key under which a request would be stored, or None where it has none."""
    environ = make_environ()
    environ |= {"PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": host, "wsgi.url_scheme": scheme}
    environ |= {
        name: value for name, value in (("HTTP_X_PART", part), ("HTTP_X_OTHER", other)) if value is not None
    }
    admission = admit(Facts(environ), RULES, PLANS)
    if admission.reason is not None:
        return None
    return (admission.key, admission.value_of("x-part"), admission.value_of("x-other"))


PARTS = st.tuples(
    TEXT.map(lambda text: "/" + text),
    TEXT,
    st.sampled_from(["a", "b", "a:8080", "[::1]"]) | TEXT,
    st.sampled_from(["http", "https"]),
    st.none() | TEXT,
    st.none() | TEXT,
)


@given(PARTS, PARTS)
def test_key_01_no_two_requests_share_a_key(one, other):
    keys = key_of(*one), key_of(*other)
    if None not in keys and keys[0] == keys[1]:
        folded = [
            (path, query, host.lower().removesuffix(":"), *rest) for path, query, host, *rest in (one, other)
        ]
        assert folded[0] == folded[1]


@pytest.mark.parametrize("delimiter", DELIMITERS, ids=repr)
def test_key_01_a_delimiter_does_not_move_the_border_between_parts(delimiter):
    moved = [
        (
            {"HTTP_HOST": "a", "PATH_INFO": f"/b{delimiter}c"},
            {"HTTP_HOST": f"a{delimiter}b", "PATH_INFO": "/c"},
        ),
        (
            {"PATH_INFO": f"/b{delimiter}c", "QUERY_STRING": "d"},
            {"PATH_INFO": "/b", "QUERY_STRING": f"c{delimiter}d"},
        ),
        ({"HTTP_X_PART": f"b{delimiter}c"}, {"HTTP_X_PART": "b", "HTTP_X_OTHER": "c"}),
        (
            {"HTTP_X_PART": f"b{delimiter}", "HTTP_X_OTHER": "c"},
            {"HTTP_X_PART": "b", "HTTP_X_OTHER": f"{delimiter}c"},
        ),
    ]
    for number, (one, other) in enumerate(moved):

        def answer(environ):
            told = ("HTTP_HOST", "PATH_INFO", "QUERY_STRING", "HTTP_X_PART", "HTTP_X_OTHER")
            return page(("Vary", "X-Part, X-Other"), body=repr([environ.get(name) for name in told]).encode())

        site = Site(answer, rules=[Rule("/*", query="key")])
        bodies = {site.ask(**one).body, site.ask(**other).body}
        assert len(bodies) == 2, number
        assert {site.ask(**one).body, site.ask(**other).body} == bodies


def test_key_03_one_url_is_one_page_wherever_the_app_is_mounted():
    site = Site()
    site.fill(SCRIPT_NAME="/a", PATH_INFO="/b/c")
    assert site.ask(SCRIPT_NAME="/a/b", PATH_INFO="/c").is_hit
    assert site.cache.purge("/a/b/c").matched == 1
    assert not site.ask(SCRIPT_NAME="/a/b", PATH_INFO="/c").is_hit
    assert site.ask(SCRIPT_NAME="/a", PATH_INFO="/b/c").is_hit
    site.cache.purge_prefix("/a/b")
    assert not site.ask(SCRIPT_NAME="/a", PATH_INFO="/b/c").is_hit


@pytest.mark.parametrize("name", ["RAW_URI", "REQUEST_URI"])
def test_key_05_an_encoded_slash_is_another_page_where_the_app_can_tell(name):
    def answer(environ):
        return page(body=environ.get(name, environ["PATH_INFO"]).encode())

    site = Site(answer)
    for first, second in itertools.permutations(("/foo%2Fbar", "/foo/bar"), 2):
        site.cache.clear()
        assert site.ask("/foo/bar", **{name: first}).body == first.encode()
        assert site.ask("/foo/bar", **{name: second}).body == second.encode()
        assert site.ask("/foo/bar", **{name: first}).is_hit


def test_key_06_bytes_are_not_decoded_to_one_text():
    def answer(environ):
        return page(body=environ["PATH_INFO"].encode("latin-1"))

    site = Site(answer)
    paths = ["/caf\xc3\xa9", "/caf\xe9", "/caf\xef\xbf\xbd", "/caf?", "/cafe"]
    for path in paths:
        assert site.fill(PATH_INFO=path).body == path.encode("latin-1")
    for path in paths:
        reply = site.ask(PATH_INFO=path)
        assert (reply.is_hit, reply.body) == (True, path.encode("latin-1"))


@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_key_09_head_then_get(profile):
    site = Site(control("max-age=60"), profile=profile)
    assert site.ask(method="HEAD").code == 200
    reply = site.ask()
    assert reply.body == b"page", "a HEAD is never stored as an empty GET"
    assert site.ask().body == b"page"


@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_key_09_get_then_head(profile):
    site = Site(control("max-age=60"), profile=profile)
    site.fill()
    reply = site.ask(method="HEAD")
    assert (reply.is_hit, reply.body, reply.field("Content-Length")) == (True, b"", "4")


@pytest.mark.parametrize("profile", ["safe", "rfc"])
@pytest.mark.parametrize(
    "answer", [page(status="500 Oops"), page(error=RuntimeError("down"))], ids=["500", "raises"]
)
def test_key_09_an_error_on_head_does_not_replace_the_page(profile, answer):
    site = Site(control("max-age=10", ("ETag", '"a"')), profile=profile)
    site.fill()
    site.clock.tick(20)
    site.app.answers(answer)
    if answer.error is None:
        assert site.ask(method="HEAD").code == 500
    else:
        with pytest.raises(RuntimeError):
            site.ask(method="HEAD")
    site.app.answers(control("max-age=10", ("ETag", '"a"'), status="304 Not Modified", body=b""))
    assert site.ask().body == b"page"
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'


@pytest.mark.parametrize("profile", ["safe", "rfc"])
@pytest.mark.parametrize(
    "request_",
    [
        {"headers": {"Cookie": "_ga=evil"}},
        {"QUERY_STRING": "utm_x=evil"},
        {"headers": {"Accept-Encoding": "gzip;q=0, evil"}},
        {"headers": {"Cookie": "csrftoken=evil"}},
        {"headers": {"Cookie": "session=evil"}},
        {"headers": {"Authorization": "evil"}},
    ],
    ids=repr,
)
def test_key_09_a_head_puts_nothing_unkeyed_into_the_stored_page(profile, request_):
    """Its answer may freshen the stored GET, so what the key leaves out must not show in it."""

    def answer(environ):
        echoed = {
            name: environ.get(name)
            for name in ("HTTP_COOKIE", "QUERY_STRING", "HTTP_ACCEPT_ENCODING", "HTTP_AUTHORIZATION")
        }
        return control("max-age=10", ("ETag", '"a"'), ("X-Echo", repr(echoed)), ("Vary", "Accept-Encoding"))

    rules = [Rule("/*", query="key", ignore_query="utm_*")]
    if profile == "rfc":
        rules = [Rule("/*", query="key", ignore_query="utm_*", cookies="ignore")]
    site = Site(answer, profile=profile, rules=rules)
    site.fill()
    site.clock.tick(20)
    site.ask(method="HEAD", **request_)
    for _ in range(2):
        assert "evil" not in site.ask().field("X-Echo")


@pytest.mark.parametrize("how", ["ignore", "private", "session", "environ"])
@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_key_09_what_the_app_says_during_a_head_is_heard(how, profile):
    personal = []

    def answer(environ):
        if personal:
            hints = environ["wsgicache.hints"]
            if how == "environ":
                environ["wsgicache.ignore"] = True
            elif how == "session":
                hints.session_accessed = True
            else:
                getattr(hints, how)()
        return control("max-age=10", ("ETag", '"a"'), ("X-User", "ann" if personal else "nobody"))

    site = Site(answer, profile=profile, drop_fields=["x-none"])
    site.fill()
    site.clock.tick(20)
    personal.append(True)
    site.ask(method="HEAD")
    personal.clear()
    for _ in range(2):
        assert site.ask().field("X-User") == "nobody"


PAIRS = [
    ({"HTTP_ACCEPT_LANGUAGE": None}, {"HTTP_ACCEPT_LANGUAGE": ""}),
    ({"QUERY_STRING": "a"}, {"QUERY_STRING": "a="}),
    ({"QUERY_STRING": ""}, {"QUERY_STRING": "", "RAW_URI": "/?"}),
    ({"QUERY_STRING": ""}, {"QUERY_STRING": "&"}),
    ({"HTTP_X_PART": None}, {"HTTP_X_PART": ""}),
    ({"HTTP_X_PART": "0"}, {"HTTP_X_PART": ""}),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=repr)
def test_key_13_missing_and_empty_differ(one, other):
    site = Site(page(("Vary", "Accept-Language, X-Part")), rules=[Rule("/*", query="key")])
    site.fill(**one)
    assert not site.ask(**other).is_hit
    assert site.app.calls == 2
    assert site.ask(**one).is_hit
    assert site.ask(**other).is_hit


# --- PRV --------------------------------------------------------------------------------------------


def test_prv_01_a_public_response_that_sets_a_session():
    site = Site(control("public, max-age=60", ("Set-Cookie", "session=A")))
    assert site.ask().all("set-cookie") == ["session=A"]
    site.app.answers(control("public, max-age=60"))
    reply = site.ask()
    assert (reply.is_hit, reply.all("set-cookie")) == (False, [])


@pytest.mark.parametrize("value", ["max-age=60", "max-age=60, proxy-revalidate", "immutable, max-age=60"])
def test_prv_04_authorization_without_permission(value):
    def answer(environ):
        return control(value, body=environ.get("HTTP_AUTHORIZATION", "nobody").encode())

    site = Site(answer)
    for name in ("A", "B", "A"):
        reply = site.ask(headers={"Authorization": f"Bearer {name}"})
        assert (reply.body, reply.stored) == (f"Bearer {name}".encode(), False)
    assert site.ask().body == b"nobody"


@pytest.mark.parametrize("vary", ["Authorization", "Accept, authorization", "Authorization, Cookie"])
def test_prv_05_vary_authorization_is_no_permission(vary):
    site = Site(control("max-age=60", ("Vary", vary)))
    for name in ("A", "A", "B"):
        assert not site.ask(headers={"Authorization": name}).is_hit
    assert site.cache.store.stats()["entries"] == 0


def test_prv_07_vary_cookie_with_an_unrelated_cookie_and_a_new_session():
    site = Site(page(("Vary", "Cookie"), ("Set-Cookie", "session=new")))
    for _ in range(2):
        assert site.ask(headers={"Cookie": "_ga=1"}).detail == "NOT_STORED_SET_COOKIE"
    assert site.cache.store.stats()["entries"] == 0


@pytest.mark.parametrize(
    "lines",
    [
        ["  Cookie "],
        ["cookie,Accept"],
        ["Accept,\tCookie"],
        ["Accept", "Cookie"],
        ["COOKIE"],
        ["Accept ,, cookie ,"],
    ],
    ids=repr,
)
def test_prv_08_vary_cookie_in_any_spelling(lines):
    def answer(environ):
        return page(*[("Vary", line) for line in lines], body=environ.get("HTTP_COOKIE", "nobody").encode())

    site = Site(answer, harmless_cookies="+lang")
    assert not site.ask(headers=VICTIM).stored
    assert site.fill().body == b"nobody"
    assert site.ask(headers=VICTIM).body == b"session=victim"
    assert site.ask(headers={"Cookie": "lang=de"}).body == b"nobody"


def test_prv_10_a_session_that_was_only_looked_at_is_hinted_by_an_integration():
    def answer(environ):
        environ["wsgicache.hints"].session_accessed = True
        return page(body=b"user in session?")

    site = Site(answer)
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_HINT"


def test_prv_10_and_a_visitor_who_has_one_is_never_given_the_anonymous_page():
    def answer(environ):
        return page(body=b"member" if "session=" in environ.get("HTTP_COOKIE", "") else b"guest")

    site = Site(answer)
    site.fill()
    assert site.ask().body == b"guest"
    assert site.ask(headers=VICTIM).body == b"member"
    assert site.ask().body == b"guest"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ('max-age=60, no-cache="Set-Cookie"', ["X-Person", "X-Kept"]),
        ('max-age=60, private="X-Person"', ["X-Kept"]),
        ('max-age=60, PRIVATE="  x-person  ,  "', ["X-Kept"]),
        ('private="X-Person, X-Kept", max-age=60', []),
    ],
)
def test_prv_12_field_forms(value, kept):
    site = Site(control(value, ("X-Person", "ann"), ("X-Kept", "k")))
    site.fill()
    for _ in range(2):
        reply = site.ask()
        assert reply.is_hit
        assert [name for name in ("X-Person", "X-Kept") if reply.field(name)] == kept


@pytest.mark.parametrize(
    "value",
    ['private="X-Person', "private=X-Person", 'private="X User"', 'private="', 'no-cache="a', "no-cache=a"],
)
def test_prv_12_a_broken_list_counts_as_the_plain_directive(value):
    site = Site(control(f"max-age=60, {value}", ("X-Person", "ann")))
    site.ask()
    assert not site.ask().is_hit


TOKENS = [
    '<form><input type="hidden" name="csrf_token" value="abc"></form>',
    '<form><input type="hidden" name="csrfmiddlewaretoken" value="abc"></form>',
    '<head><meta name="csrf-token" content="abc"></head>',
]


@pytest.mark.parametrize("text", TOKENS)
def test_prv_13_a_csrf_token_without_set_cookie(text):
    site = Site(page(HTML, body=text.encode()))
    for _ in range(2):
        site.ask()
    assert site.app.calls == 2
    assert site.count(Reason.NOT_STORED_TOKEN) == 2


def test_prv_17_fields_that_name_one_user_or_hop():
    dropped = [
        ("X-Request-Id", "1"),
        ("Server-Timing", "db;dur=5"),
        ("X-User", "ann"),
        ("Set-Login", "logged-in"),
        ("Clear-Site-Data", '"cookies"'),
        ("Strict-Transport-Security", "max-age=5"),
        ("Connection", "X-Hop, close"),
        ("X-Hop", "1"),
        ("Keep-Alive", "5"),
        ("Proxy-Authenticate", "Basic"),
        ("Trailer", "X"),
        ("Upgrade", "h2c"),
        ("TE", "trailers"),
    ]
    site = Site(page(*dropped, ("X-Kept", "1")))
    first = site.fill()
    assert first.field("Clear-Site-Data") == '"cookies"', "its own client gets it"
    for _ in range(2):
        reply = site.ask()
        assert reply.is_hit
        assert [name for name, _ in dropped if reply.field(name) is not None] == []
        assert reply.field("X-Kept") == "1"


def test_prv_17_the_drop_list_is_configurable():
    site = Site(page(("X-Mine", "1"), ("X-User", "2")), drop_fields="+X-Mine")
    site.fill()
    reply = site.ask()
    assert (reply.field("X-Mine"), reply.field("X-User")) == (None, None)


# --- VAR --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines", [["*"], ["*, Accept"], ["Accept, *"], [", *"], ["Accept", "*"], ["*,*"], [" *"]], ids=repr
)
@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_var_01_vary_star(lines, profile):
    site = Site(control("public, max-age=60", *[("Vary", line) for line in lines]), profile=profile)
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_VARY"


def test_var_02_absent_in_the_stored_request_and_empty_in_the_new_one():
    site = Site(page(("Vary", "X-Part")))
    site.fill()
    for _ in range(2):
        assert site.ask().is_hit
    assert site.ask(headers={"X-Part": ""}).cache["fwd"] == "vary-miss"


def test_var_03_an_explosion_of_values():
    site = Site(page(("Vary", "X-Part")), max_variants=10)
    for number in range(500):
        site.fill(headers={"X-Part": str(number)})
    entries = [stored for stored in site.cache.store.scan() if isinstance(stored, Entry)]
    assert sorted(entry.values[0] for entry in entries) == [str(number) for number in range(490, 500)]
    assert site.cache.stats()["variants_dropped"] == 490
    for number in range(490, 500):
        assert site.ask(headers={"X-Part": str(number)}).is_hit


def test_var_03_a_lookup_does_not_walk_the_variants():
    site = Site(page(("Vary", "X-Part")), max_variants=1000)
    for number in range(1000):
        site.fill(headers={"X-Part": str(number)})
    store, asked = site.cache.store, []
    get = store.get
    store.get = lambda keys: asked.append(len(keys)) or get(keys)
    assert site.ask(headers={"X-Part": "0"}).is_hit
    assert not site.ask(headers={"X-Part": "new"}, **{"wsgicache.ignore": False}).is_hit
    assert sum(asked) <= 8


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        ("gzip;q=0", ""),
        ("*;q=0", "identity;q=0"),
        ("identity;q=0", "identity;q=0"),
        ("identity;q=0, gzip", "gzip, identity;q=0"),
        ("br, gzip", "br, gzip"),
        ("gzip,br;q=0.1", "br, gzip"),
        ("gzip;q=0, br", "br"),
        ("gzip;q=abc, ;;, \x00", ""),
        (None, ""),
    ],
    ids=repr,
)
def test_var_05_accept_encoding(given, seen):
    def answer(environ):
        return page(("Vary", "Accept-Encoding"), body=environ.get("HTTP_ACCEPT_ENCODING", "absent").encode())

    site = Site(answer)
    assert site.fill(HTTP_ACCEPT_ENCODING=given).body == seen.encode()
    assert site.ask(HTTP_ACCEPT_ENCODING=seen).is_hit


def test_var_05_a_client_that_refuses_a_coding_does_not_get_it():
    def answer(environ):
        accepted = [
            part.partition(";")[0].strip() for part in environ.get("HTTP_ACCEPT_ENCODING", "*").split(",")
        ]
        coded = "gzip" in accepted or "*" in accepted
        extra = [("Content-Encoding", "gzip")] if coded else []
        return page(("Vary", "Accept-Encoding"), *extra, body=b"coded" if coded else b"plain")

    site = Site(answer)
    for first, other in itertools.permutations([None, "gzip", "gzip;q=0", "", "identity"], 2):
        site.cache.clear()
        site.ask(HTTP_ACCEPT_ENCODING=first)
        site.ask(HTTP_ACCEPT_ENCODING=first)
        assert site.ask(HTTP_ACCEPT_ENCODING=other).body == (b"coded" if other == "gzip" else b"plain")


def test_var_08_each_coding_has_its_own_etag_where_the_cache_makes_them():
    def answer(environ):
        coded = "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "")
        extra = [("Content-Encoding", "gzip")] if coded else []
        return page(("Vary", "Accept-Encoding"), *extra, body=b"coded" if coded else b"plain")

    site = Site(answer)
    tags = {}
    for coding in ("gzip", ""):
        site.fill(HTTP_ACCEPT_ENCODING=coding)
        tags[coding] = site.ask(HTTP_ACCEPT_ENCODING=coding).field("ETag")
    assert tags["gzip"] != tags[""]
    for coding, tag in tags.items():
        assert site.ask(headers={"If-None-Match": tag}, HTTP_ACCEPT_ENCODING=coding).code == 304
        other = "" if coding else "gzip"
        assert site.ask(headers={"If-None-Match": tag}, HTTP_ACCEPT_ENCODING=other).code == 200


LONG = b"<p>a page that is long enough</p>" * 60


def decoded(reply):
    told = reply.field("Content-Encoding")
    return told, zlib.decompress(reply.body, 31) if told == "gzip" else reply.body


@pytest.mark.parametrize(
    ("given", "coding"),
    [
        ("gzip", "gzip"),
        ("br, gzip", "gzip"),
        ("gzip;q=0.001, deflate", "gzip"),
        ("*", "gzip"),
        ("gzip, identity;q=0", "gzip"),
        ("*;q=0, gzip", "gzip"),
        ("gzip;q=0", None),
        ("*;q=0, identity", None),
        ("identity, gzip;q=0.5", None),
        ("br", None),
        ("gzip;q=abc, ;;, \x00", None),
        ("", None),
        (None, None),
    ],
    ids=repr,
)
def test_var_05_forms_of_ours(given, coding):
    site = Site(page(HTML, body=LONG), encode="gzip")
    for field in ("gzip", "gzip", given, given):
        reply = site.ask(HTTP_ACCEPT_ENCODING=field)
        site.refreshed()
    assert reply.is_hit
    assert decoded(reply) == (coding, LONG)
    assert site.app.calls == 1


@pytest.mark.parametrize("given", ["*;q=0", "identity;q=0", "br, identity;q=0"])
def test_var_05_where_no_form_of_ours_is_acceptable_the_app_decides(given):
    site = Site(page(HTML, body=LONG), encode="gzip")
    site.fill()
    reply = site.ask(HTTP_ACCEPT_ENCODING=given)
    assert reply.cache["fwd"] == "vary-miss"
    assert site.app.calls == 2


@pytest.mark.parametrize("tag", ['"v1"', 'W/"v1"', None])
def test_var_08_each_form_of_ours_has_its_own_etag(tag):
    site = Site(page(HTML, *([("ETag", tag)] if tag else []), body=LONG), encode="br,gzip")
    tags = {}
    for coding in ("gzip", "br", ""):
        for _ in range(3):
            reply = site.ask(HTTP_ACCEPT_ENCODING=coding)
            site.refreshed()
        assert reply.is_hit
        assert (reply.field("Content-Encoding") or "") == coding
        tags[coding] = reply.field("ETag")
    weak = tag is not None and tag.startswith("W/")
    assert len(set(tags.values())) == (1 if weak else 3)
    for coding, known in tags.items():
        for other in tags:
            reply = site.ask(headers={"If-None-Match": known}, HTTP_ACCEPT_ENCODING=other)
            assert (reply.is_hit, reply.code) == (True, 304 if weak or other == coding else 200)
    assert site.app.calls == 1
