"""House rules 3 and 4: a query string bypasses unless a rule keys it; a body bypasses, with GET too."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import Site, page

from wsgicache import Rule
from wsgicache.key import normal_query

KEYED = [Rule("/*", query="key")]


def echo(environ):
    """An app whose page is the query that it saw."""
    return page(body=environ["QUERY_STRING"].encode("latin-1"))


def ignoring(*names, query="key"):
    """A site that keys the query but for these names."""
    return Site(echo, rules=[Rule("/*", query=query, ignore_query=names)])


# --- 3: a query string bypasses ----------------------------------------------------------------------


@pytest.mark.parametrize("query", ["a=1", "a", "=", "&", "utm_source=x", "a=1&a=2", ";", "%", "a=\xff", "?"])
def test_a_query_bypasses_both_ways(query):
    site = Site()
    site.fill()
    for _ in range(2):
        reply = site.ask(QUERY_STRING=query)
        assert (reply.cache["fwd"], reply.detail) == ("bypass", "BYPASS_QUERY")
    assert site.app.calls == 3
    assert site.last["QUERY_STRING"] == query, "the app gets what the client sent"
    assert site.ask().is_hit


def test_an_empty_query_is_no_query():
    site = Site()
    site.fill()
    assert site.ask(QUERY_STRING="").is_hit
    assert site.ask(QUERY_STRING=None).is_hit


def test_a_head_request_with_a_query_bypasses_too():
    site = Site()
    site.fill()
    assert site.ask("/?a=1", "HEAD").detail == "BYPASS_QUERY"


def test_the_option_can_be_said_for_one_path_only():
    site = Site(echo, rules=[Rule("/search", query="key")])
    site.fill("/search?q=1")
    assert site.ask("/search?q=1").is_hit
    assert site.ask("/other?q=1").detail == "BYPASS_QUERY"


# --- 3: query="key" ---------------------------------------------------------------------------------

DISTINCT = [
    "",
    "a",
    "a=",
    "a=1",
    "a=2",
    "A=1",
    "a=1&",
    "&a=1",
    "a=1&b=2",
    "b=2&a=1",
    "a=1&a=2",
    "a=2&a=1",
    "a=%31",
]


def test_with_query_key_each_query_has_its_own_page():
    site = Site(echo, rules=KEYED)
    for query in DISTINCT:
        assert site.fill(QUERY_STRING=query).body == query.encode()
    assert site.app.calls == len(DISTINCT)
    for query in DISTINCT:
        reply = site.ask(QUERY_STRING=query)
        assert (reply.is_hit, reply.body) == (True, query.encode())
    assert site.app.calls == len(DISTINCT)


def test_order_of_repeated_names_is_kept_when_sorting():
    site = Site(echo, rules=[Rule("/*", query="sort")])
    assert site.fill("/?b=2&a=1&b=1").body == b"a=1&b=2&b=1"
    assert site.ask("/?a=1&b=2&b=1").is_hit
    assert not site.ask("/?b=1&b=2&a=1").is_hit


def test_sorting_goes_by_decoded_names():
    site = Site(echo, rules=[Rule("/*", query="sort")])
    site.fill("/?b=1&%61=2")
    assert site.ask("/?%61=2&b=1").is_hit


def test_control_bytes_in_a_keyed_query_bypass():
    site = Site(echo, rules=KEYED)
    for query in ("a=\0", "a=\1b", "a= b", "a\tb", "a=\r\nX: y", "\x7f"):
        assert site.ask(QUERY_STRING=query).detail == "BYPASS_KEY", query


# --- 3: ignore_query --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "q=1&utm_source=x",
        "utm_source=x&q=1",
        "q=1&utm_source",
        "q=1&utm_source=",
        "q=1&%75tm_source=x",
        "q=1&utm%5Fsource=x",
        "utm_medium=1&q=1&utm_source=2&utm_source=3",
        "q=1&gclid=5",
        "q=1&&",
    ],
)
def test_ignored_names_are_in_neither_the_key_nor_the_environ(query):
    site = ignoring("utm_*", "gclid")
    site.fill("/?q=1")
    assert site.ask(QUERY_STRING=query).is_hit
    site.cache.clear()
    assert site.fill(QUERY_STRING=query).body == b"q=1"
    assert site.last["QUERY_STRING"] == "q=1"


@pytest.mark.parametrize(
    "query", ["q=1&UTM_source=x", "q=1&xutm_source=x", "q=1&gclid2=x", "q=1&gcli=d", "q=utm_source"]
)
def test_ignoring_goes_by_exact_names_and_globs(query):
    site = ignoring("utm_*", "gclid")
    site.fill("/?q=1")
    assert not site.ask(QUERY_STRING=query).is_hit
    assert site.last["QUERY_STRING"] == query


def test_what_only_ignored_names_stand_in_is_the_page_without_a_query():
    site = ignoring("utm_*")
    site.fill("/")
    assert site.ask("/?utm_source=x").is_hit


def test_the_raw_target_that_the_app_may_read_loses_the_ignored_names_too():
    site = ignoring("utm_*")
    target = "/p?utm_source=evil&q=1"
    site.fill("/p", QUERY_STRING="utm_source=evil&q=1", RAW_URI=target, REQUEST_URI=target)
    assert "evil" not in repr({k: v for k, v in site.last.items() if isinstance(v, str)})


@pytest.mark.parametrize("query", ["utm_x=1;q=evil", "q=1;utm_x=1", "utm_x=1&a=2;b", ";utm_x=1"])
def test_a_query_that_holds_a_semicolon_is_keyed_whole(query):
    site = ignoring("utm_*")
    site.fill("/?q=1")
    assert site.fill(QUERY_STRING=query).body == query.encode()
    assert site.ask(QUERY_STRING=query).is_hit
    assert site.ask("/?q=1").body == b"q=1"


@pytest.mark.parametrize(
    ("headers", "allows"),
    [
        ({"Cookie": "session=a"}, "s-maxage=60"),
        ({"Authorization": "Basic x"}, "public, max-age=60"),
        ({"Cookie": "csrftoken=a"}, "public, max-age=60"),
    ],
    ids=["cookie", "credentials", "lookup-only"],
)
def test_a_visitor_cannot_put_an_ignored_name_into_a_page_that_others_get(headers, allows):
    """A public answer to a visitor is stored for everybody, so what the key leaves out stays unseen."""

    def answer(environ):
        return page(("Cache-Control", allows), body=environ["QUERY_STRING"].encode())

    site = Site(answer, rules=[Rule("/*", query="key", ignore_query="utm_*")])
    site.ask("/?q=1&utm_source=evil", headers=headers)
    assert site.ask("/?q=1").body == b"q=1"


def naive(query, ignored):
    """The parameters that count, as Python's own parser splits them."""
    parts = [part for part in query.split("&") if part]
    return [part for part in parts if part.partition("=")[0] not in ignored]


NAMES = st.sampled_from(["q", "utm_a", "x", "%71", "", "q q"])
QUERIES = st.lists(st.tuples(NAMES, st.text("ab=%1", max_size=3)), max_size=5).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
)


@given(QUERIES)
def test_ignoring_leaves_the_others_in_their_order(query):
    assert normal_query(query, ("utm_*",)) == "&".join(naive(query, {"utm_a"}))


@given(QUERIES)
def test_a_normal_query_is_its_own_normal_form(query):
    for sort in (False, True):
        once = normal_query(query, ("utm_*",), sort)
        assert normal_query(once, ("utm_*",), sort) == once


# --- 4: a body bypasses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "environ",
    [
        {"CONTENT_LENGTH": "5"},
        {"CONTENT_LENGTH": "junk"},
        {"CONTENT_LENGTH": "-1"},
        {"HTTP_TRANSFER_ENCODING": "chunked"},
        {"HTTP_TRANSFER_ENCODING": "identity"},
        {"CONTENT_LENGTH": "5", "CONTENT_TYPE": "application/x-www-form-urlencoded"},
        {"CONTENT_LENGTH": "5", "CONTENT_TYPE": "multipart/form-data; boundary=x"},
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_body_bypasses_both_ways(environ, method):
    site = Site()
    site.ask(method=method, **environ)
    assert site.ask().cache["fwd"] == "uri-miss", "nothing was stored"
    site.ask()
    for _ in range(2):
        assert site.ask(method=method, **environ).detail == "BYPASS_BODY"
    assert site.app.calls == 4


@pytest.mark.parametrize("length", ["0", "", None])
def test_no_body_is_no_body(length):
    site = Site()
    site.fill(CONTENT_LENGTH=length)
    assert site.ask(CONTENT_LENGTH=length).is_hit


def test_the_app_reads_the_body_that_the_client_sent():
    bodies = []

    def answer(environ):
        bodies.append(environ["wsgi.input"].read())
        return page()

    Site(answer).ask(body=b"a=2")
    assert bodies == [b"a=2"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
def test_other_methods_are_never_answered_from_the_store_nor_stored(method):
    site = Site()
    assert not site.ask(method=method, body=b"a=1").stored
    assert not site.ask().is_hit
    assert not site.ask(method=method).is_hit


# --- the flag ---------------------------------------------------------------------------------------


def test_the_ignore_flag_before_the_call_bypasses_both_ways():
    site = Site()
    assert site.ask(**{"wsgicache.ignore": True}).detail == "BYPASS_IGNORED"
    assert site.ask().cache["fwd"] == "uri-miss"
    site.ask()
    for _ in range(2):
        assert site.ask(**{"wsgicache.ignore": True}).detail == "BYPASS_IGNORED"
    assert site.ask(**{"wsgicache.ignore": False}).is_hit


@pytest.mark.parametrize("how", ["environ", "hints"])
def test_the_ignore_flag_during_the_call_is_not_stored(how):
    def answer(environ):
        if how == "environ":
            environ["wsgicache.ignore"] = True
        else:
            dict(environ)["wsgicache.hints"].ignore()  # survives copies of the environ
        return page()

    site = Site(answer)
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_IGNORED"


def test_the_ignore_flag_during_the_call_counts_where_the_environ_was_copied_for_the_fill():
    def answer(environ):
        environ["wsgicache.ignore"] = True
        return page()

    site = Site(answer)
    assert site.ask(headers={"Cookie": "_ga=1", "Accept-Encoding": "gzip"}).detail == "NOT_STORED_IGNORED"
