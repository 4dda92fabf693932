"""House rules 7 to 9: what a response says of itself (Set-Cookie, Vary, Cache-Control) is obeyed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sites import Site, control, page

from wsgicache import Rule

# --- 7: Set-Cookie ----------------------------------------------------------------------------------

SETS = [
    [("Set-Cookie", "session=a")],
    [("set-cookie", "session=a; Path=/")],
    [("SET-COOKIE", "_ga=1")],
    [("Set-Cookie", "")],
    [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")],
    [("Set-Cookie2", "a=1")],
    [("Cache-Control", "public, max-age=60"), ("Set-Cookie", "session=a")],
    [("Cache-Control", 's-maxage=60, no-cache="Set-Cookie"'), ("Set-Cookie", "session=a")],
    [("Cache-Control", 'max-age=60, private="set-cookie"'), ("Set-Cookie", "session=a")],
    [("Connection", "Set-Cookie"), ("Set-Cookie", "session=a")],
]


@pytest.mark.parametrize("headers", SETS, ids=repr)
@pytest.mark.parametrize(
    "rules", [[], [Rule("/*", ttl=60, override=True)], [Rule("/*", ttl=60, cookies="ignore")]]
)
def test_a_response_that_sets_a_cookie_is_not_stored(headers, rules):
    site = Site(page(*headers), rules=rules)
    for _ in range(2):
        reply = site.ask()
        assert reply.detail == "NOT_STORED_SET_COOKIE"
        assert [pair for pair in reply.headers if pair in headers] == headers, "the client gets it as it came"
    site.app.answers(page())
    reply = site.fill()
    assert not reply.all("set-cookie")
    assert site.ask().is_hit


def test_a_rule_may_strip_it_from_the_stored_copy_only():
    headers = [("Set-Cookie", "a=1"), ("X-Kept", "1"), ("set-cookie", "b=2"), ("Set-Cookie2", "c=3")]
    site = Site(page(*headers), rules=[Rule("/*", ttl=60, strip_set_cookie=True)])
    first = site.fill()
    assert first.all("set-cookie") == ["a=1", "b=2"]
    for _ in range(3):
        reply = site.ask()
        assert reply.is_hit
        assert not reply.all("set-cookie")
        assert not reply.all("set-cookie2")
        assert reply.field("X-Kept") == "1"


@pytest.mark.parametrize(
    "options",
    [{}, {"override": True}, {"strip_set_cookie": True}, {"cookies": "ignore"}, {"store_tokens": True}],
    ids=repr,
)
def test_no_rule_may_store_it(options):
    site = Site(page(("Set-Cookie", "session=a")), rules=[Rule("/*", ttl=60, **options)])
    site.ask()
    for stored in site.cache.store.scan():
        assert stored.field("set-cookie") is None


def test_a_304_that_sets_a_cookie_gives_it_to_its_own_client_only():
    site = Site(control("max-age=10", ("ETag", '"a"')))
    site.fill()
    site.clock.tick(20)
    site.app.answers(page(("ETag", '"a"'), ("Set-Cookie", "session=a"), status="304 Not Modified", body=b""))
    reply = site.ask()
    assert reply.all("set-cookie") == ["session=a"]
    assert (reply.code, reply.body) == (200, b"page")
    site.app.answers(
        page(("ETag", '"a"'), ("Cache-Control", "max-age=10"), status="304 Not Modified", body=b"")
    )
    for _ in range(3):
        reply = site.ask()
        assert (reply.code, reply.body, reply.all("set-cookie")) == (200, b"page", [])


# --- 8: Vary ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        ["*"],
        [" * "],
        ["*, Accept"],
        ["Accept, *"],
        [", *"],
        ["Accept", "*"],
        ["*", "Accept"],
        ["Accept,*,"],
        ["\t*"],
        ["Accept Encoding"],
        ["Accept: x"],
        ['"Accept"'],
        ["Accept;q=1"],
        ["(x)"],
    ],
    ids=repr,
)
@pytest.mark.parametrize("value", ["max-age=60", "public, s-maxage=60"])
def test_vary_star_in_any_syntax_is_not_stored(lines, value):
    site = Site(
        control(value, *[("Vary", line) for line in lines]), rules=[Rule("/*", ttl=60, override=True)]
    )
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_VARY"


@pytest.mark.parametrize(
    "vary", ["Cookie", "cookie", " Cookie ", "Accept,\tCOOKIE", "Cookie, Accept-Encoding"]
)
def test_vary_cookie_from_a_request_without_cookies_is_for_requests_without_cookies(vary):
    site = Site(page(("Vary", vary)))
    site.fill()
    for _ in range(3):
        assert site.ask().is_hit
        assert site.ask(headers={"Cookie": "_ga=1"}).is_hit, "harmless cookies count as absent"
        assert site.ask(headers={"Cookie": "csrftoken=x"}).is_hit, "lookup-only ones are answered by a hit"
    for cookie in ("session=a", "_ga=1; session=a", "lang=de"):
        assert not site.ask(headers={"Cookie": cookie}).is_hit
        assert site.last["HTTP_COOKIE"] == cookie


@pytest.mark.parametrize("vary", ["Cookie", "Accept, cookie", " Cookie\t"])
@pytest.mark.parametrize("value", ["", "public, max-age=60", "s-maxage=60"])
@pytest.mark.parametrize("cookie", ["session=a", "csrftoken=x", "lang=de; _ga=1"])
def test_vary_cookie_from_a_request_with_cookies_is_not_stored(vary, value, cookie):
    site = Site(control(value, ("Vary", vary)))
    for _ in range(2):
        assert not site.ask(headers={"Cookie": cookie}).stored
    assert not site.ask().is_hit


def test_vary_cookie_is_a_matter_of_the_named_cookies_where_a_rule_names_them():
    site = Site(page(("Vary", "Cookie")), rules=[Rule("/*", cookies="lang")])
    site.fill(headers={"Cookie": "lang=de; session=a"})
    assert site.ask(headers={"Cookie": "lang=de; session=b"}).is_hit
    assert not site.ask(headers={"Cookie": "lang=en"}).is_hit
    ignoring = Site(page(("Vary", "Cookie")), rules=[Rule("/*", cookies="ignore")])
    ignoring.fill(headers={"Cookie": "session=a"})
    assert ignoring.ask().is_hit


def test_a_public_page_that_varies_on_cookies_is_not_shown_to_a_visitor():
    site = Site(control("public, max-age=60", ("Vary", "Cookie")))
    site.fill()
    assert site.ask().is_hit
    reply = site.ask(headers={"Cookie": "session=a"})
    assert not reply.is_hit
    assert site.last["HTTP_COOKIE"] == "session=a"


SAME_ENCODING = [
    ["gzip", "gzip, deflate", "GZIP", "gzip;q=0.5", "x-gzip", "gzip;q=1.000, identity", "deflate, gzip, foo"],
    ["br, gzip", "gzip,br", "gzip;q=0.1, br;q=0.9", "gzip, deflate, br"],
    [None, "", "identity", "gzip;q=0", "br;q=0, gzip;q=0.000", "deflate", "junk;;;", "*;q=0, identity"],
    ["identity;q=0", "*;q=0"],
    ["*", "br, gzip, zstd", "zstd,br,gzip;q=0.2"],
]


@pytest.mark.parametrize("spellings", SAME_ENCODING, ids=lambda spellings: str(spellings[0]))
def test_accept_encoding_is_normalised(spellings):
    site = Site(page(("Vary", "Accept-Encoding")))
    site.fill(HTTP_ACCEPT_ENCODING=spellings[0])
    for spelling in spellings:
        assert site.ask(HTTP_ACCEPT_ENCODING=spelling).is_hit, spelling
    assert site.app.calls == 1


def test_the_normal_forms_of_accept_encoding_are_distinct_variants():
    site = Site(page(("Vary", "Accept-Encoding")))
    for number, spellings in enumerate(SAME_ENCODING, 1):
        site.fill(HTTP_ACCEPT_ENCODING=spellings[0])
        assert site.app.calls == number
    for spellings in SAME_ENCODING:
        for spelling in spellings:
            assert site.ask(HTTP_ACCEPT_ENCODING=spelling).is_hit


@pytest.mark.parametrize("given", [None, "", "gzip;q=0", "identity", "deflate;q=0.5"])
def test_an_app_is_never_told_that_any_coding_will_do_where_only_identity_does(given):
    """An absent Accept-Encoding means that anything is acceptable (RFC 9110 §12.5.3); gzip;q=0 does not."""
    site = Site(page(("Vary", "Accept-Encoding")))
    site.fill(HTTP_ACCEPT_ENCODING=given)
    assert site.last.get("HTTP_ACCEPT_ENCODING") == ""


def test_accept_language_is_normalised_by_the_languages_that_the_site_speaks():
    def answer(environ):
        return page(("Vary", "Accept-Language"), body=environ["HTTP_ACCEPT_LANGUAGE"].encode())

    site = Site(answer, languages="en,de,fr")
    same = {
        b"de": ["de", "de-AT", "de-CH, en;q=0.5", "de;q=0.9, en;q=0.8"],
        b"en": [None, "", "it", "en-GB", "*", "xx, yy", "junk;;"],
        b"fr": ["fr", "it, fr;q=0.2"],
    }
    for body, spellings in same.items():
        assert site.fill(HTTP_ACCEPT_LANGUAGE=spellings[0]).body == body
        for spelling in spellings:
            reply = site.ask(HTTP_ACCEPT_LANGUAGE=spelling)
            assert (reply.is_hit, reply.body) == (True, body), spelling
    assert site.app.calls == len(same)


def test_accept_language_is_left_alone_without_that_option():
    site = Site(page(("Vary", "Accept-Language")))
    site.fill(HTTP_ACCEPT_LANGUAGE="de-AT")
    assert site.last["HTTP_ACCEPT_LANGUAGE"] == "de-AT"
    assert not site.ask(HTTP_ACCEPT_LANGUAGE="de").is_hit


def test_variants_per_url_are_bounded_and_the_oldest_goes():
    site = Site(page(("Vary", "X-Part")), max_variants=3)
    for part in "abcde":
        site.fill(headers={"X-Part": part})
    assert site.cache.store.stats()["entries"] == 3 + 1, "three variants and the record that leads to them"
    for part in "cde":
        assert site.ask(headers={"X-Part": part}).is_hit
    assert site.ask(headers={"X-Part": "a"}).cache["fwd"] == "vary-miss"


# --- 9: private, no-store, no-cache -----------------------------------------------------------------


def spellings(directive):
    """A directive in many spellings, each of which concerns the whole response."""
    return [
        [directive],
        [directive.upper()],
        [directive.title()],
        [f"  {directive}\t"],
        [f"max-age=60,{directive}"],
        [f"max-age=60 , {directive.upper()} , public"],
        [f"{directive},,,max-age=60"],
        [f",{directive}"],
        [f"public, s-maxage=99, {directive}"],
        ["max-age=60", directive],
        [directive, "max-age=60, public"],
        [f"{directive}=1"],
        [f'{directive}=""'],
        [f"{directive}="],
        [f"{directive} max-age=60"],
        [f"max-age=60 {directive}"],
        [f"max-age=60; {directive}"],
        [f'x="a, b", {directive}'],
        [f'x="a\\", b", {directive}'],
        [f'x="never closed, {directive}'],
        [f"{directive}, {directive}"],
    ]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (lines, reason)
        for directive, reason in (
            ("private", "NOT_STORED_PRIVATE"),
            ("no-store", "NOT_STORED_NO_STORE"),
            ("no-cache", "NOT_STORED_NO_CACHE"),
        )
        for lines in spellings(directive)
    ],
    ids=repr,
)
def test_private_no_store_and_no_cache_are_obeyed_in_every_spelling(lines, reason):
    site = Site(page(*[("Cache-Control", line) for line in lines]))
    for _ in range(2):
        assert site.ask().detail == reason
        assert site.ask(headers={"Cookie": "_ga=1"}).detail == reason


@pytest.mark.parametrize("name", ["Cache-Control", "cache-control", "CACHE-CONTROL"])
def test_the_name_of_the_field_has_no_case(name):
    assert Site(page((name, "private"))).ask().detail == "NOT_STORED_PRIVATE"


@pytest.mark.parametrize(
    ("value", "hidden"),
    [
        ('private="X-User"', ["X-User"]),
        ('PRIVATE="x-user"', ["X-User"]),
        ('private=" X-User , x-other "', ["X-User", "X-Other"]),
        ('max-age=60, no-cache="X-User", private="X-Other"', ["X-User", "X-Other"]),
        ('max-age=60, no-cache="x-user,X-OTHER"', ["X-User", "X-Other"]),
        ('private="X-User", private="X-Other"', ["X-User", "X-Other"]),
        ('private="X-\\User"', ["X-User"]),
    ],
)
def test_field_forms_keep_the_named_fields_out_of_the_store(value, hidden):
    site = Site(page(("Cache-Control", value), ("X-User", "ann"), ("X-Other", "o"), ("X-Kept", "k")))
    assert site.fill().field("X-User") == "ann"
    for _ in range(3):
        reply = site.ask()
        assert reply.is_hit
        assert [name for name in ("X-User", "X-Other") if reply.field(name) is None] == hidden
        assert reply.field("X-Kept") == "k"


@pytest.mark.parametrize(
    "value",
    [
        "private=X-User",
        'private="X-User',
        'private="X User"',
        'private=""',
        'private=","',
        'private="X-User", private',
        'private="X-User"; x',
        "private=X-User, X-Other",
    ],
)
def test_a_broken_field_form_counts_as_the_plain_directive(value):
    site = Site(page(("Cache-Control", value), ("X-User", "ann")))
    assert site.ask().detail == "NOT_STORED_PRIVATE"


@pytest.mark.parametrize(
    "value",
    [
        "max-age",
        "max-age=",
        'max-age="',
        "max-age=1.5",
        "max-age=60s",
        "max-age='60'",
        "max-age=-60",
        "max-age=0x60",
    ],
)
def test_a_lifetime_that_cannot_be_read_reads_as_stale(value):
    assert Site(control(value)).ask().detail == "NOT_STORED_STALE"


@pytest.mark.parametrize(
    "value", ["max-age=10, max-age=20", "s-maxage=10, s-maxage=20", "max-age=10, MAX-AGE=11"]
)
def test_contradictory_lifetimes_read_as_stale(value):
    assert Site(control(value)).ask().detail == "NOT_STORED_STALE"


@pytest.mark.parametrize(
    ("targeted", "reason"),
    [
        ("private", "NOT_STORED_PRIVATE"),
        ("no-store, max-age=60", "NOT_STORED_NO_STORE"),
        ("no-cache", "NOT_STORED_NO_CACHE"),
        ("max-age=60, private", "NOT_STORED_PRIVATE"),
    ],
)
@pytest.mark.parametrize("name", ["CDN-Cache-Control", "wsgicache-cache-control"])
def test_targeted_fields_are_obeyed_too(name, targeted, reason):
    site = Site(page((name, targeted), ("Cache-Control", "public, max-age=600")))
    assert site.ask().detail == reason


def test_a_targeted_field_that_does_not_parse_gives_way_to_cache_control():
    for broken in ("max-age=60, ???", "Private", "no-store;", "=1"):
        site = Site(page(("CDN-Cache-Control", broken), ("Cache-Control", "private")))
        assert site.ask().detail == "NOT_STORED_PRIVATE", broken


RESTRICTIVE = st.sampled_from(["private", "no-store", "no-cache"])
NOISE = st.lists(
    st.sampled_from(
        ["public", "max-age=60", "s-maxage=5", 'ext="a,b"', "immutable", "", "  ", "x=y", "must-revalidate"]
    ),
    max_size=4,
)
CASES = st.sampled_from([str.lower, str.upper, str.title])


@settings(max_examples=150)
@given(RESTRICTIVE, NOISE, NOISE, CASES, st.sampled_from([",", " , ", ",\t", ",,"]), st.booleans())
def test_nothing_around_a_restrictive_directive_hides_it(directive, before, after, case, comma, two_lines):
    text = comma.join([*before, case(directive), *after])
    lines = text.split(",", 1) if two_lines and '"' not in text else [text]
    site = Site(page(*[("Cache-Control", line) for line in lines]))
    site.ask()
    assert not site.ask().is_hit, lines


@settings(max_examples=200)
@given(st.text(alphabet="privatenosche-=\",; \\'0123456789", max_size=40))
def test_whatever_is_in_cache_control_the_page_comes_and_restrictions_in_it_hold(value):
    site = Site(control(value))
    first, second = site.ask(), site.ask()
    assert first.body == second.body == b"page"
    members = [member.strip().lower() for member in value.split(",")]
    if '"' not in value and {"private", "no-store", "no-cache"} & set(members):
        assert not second.is_hit
