"""House rules 5 and 6: credentials and cookies bypass, unless the response says that it is public."""

import pytest
from sites import Site, control, page

from wsgicache import Rule
from wsgicache.key import matches_any
from wsgicache.options import DEFAULT_HARMLESS

CREDENTIALS = [
    {"HTTP_AUTHORIZATION": "Bearer a"},
    {"HTTP_AUTHORIZATION": "Basic dTpw"},
    {"HTTP_AUTHORIZATION": ""},
    {"REMOTE_USER": "ann"},
    {"SSL_CLIENT_VERIFY": "SUCCESS"},
    {"SSL_CLIENT_CERT": "-----BEGIN"},
    {"SSL_CLIENT_S_DN": "CN=ann"},
    {"HTTP_CLIENT_CERT": ":MIIB:"},
    {"HTTP_X_SSL_CLIENT_CERT": "MIIB"},
]
NO_CREDENTIALS = [
    {"REMOTE_USER": ""},
    {"REMOTE_USER": None},
    {"SSL_CLIENT_VERIFY": "NONE"},
    {"SSL_CLIENT_VERIFY": "FAILED:expired"},
    {"SSL_CLIENT_CERT": ""},
]


def warm(answer=None, **options):
    """A site whose front page is stored, and asked for often enough for the hit path to answer."""
    site = Site(answer, **options)
    site.fill()
    for _ in range(3):
        assert site.ask().is_hit
    return site


def mirror(*headers, **options):
    """A site whose page tells what was in the request: who sees what somebody else sent?"""

    def answer(environ):
        told = "|".join(
            str(environ.get(name)) for name in ("HTTP_AUTHORIZATION", "HTTP_COOKIE", "REMOTE_USER")
        )
        return page(*headers, body=told.encode())

    return Site(answer, **options)


# --- 5: credentials ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environ", CREDENTIALS, ids=repr)
def test_credentials_bypass_a_stored_page(environ):
    site = warm()
    for _ in range(2):
        reply = site.ask(**environ)
        assert (reply.cache["fwd"], reply.detail) == ("bypass", "BYPASS_AUTHORIZATION")
    assert site.app.calls == 3


@pytest.mark.parametrize("environ", CREDENTIALS, ids=repr)
@pytest.mark.parametrize("value", ["max-age=60", "", "immutable, max-age=60", "max-age=60, no-transform"])
def test_an_answer_to_credentials_is_not_stored(environ, value):
    site = mirror(("Cache-Control", value))
    assert not site.ask(**environ).stored
    reply = site.ask()
    assert (reply.cache["fwd"], reply.body) == ("uri-miss", b"None|None|None")


@pytest.mark.parametrize("environ", CREDENTIALS, ids=repr)
@pytest.mark.parametrize(
    "value", ["public", "s-maxage=60", "max-age=60, must-revalidate", "Public , MAX-AGE=5"]
)
def test_rfc_9111_3_5_permits(environ, value):
    site = Site(control(value))
    assert site.ask(**environ).stored
    assert site.ask().is_hit
    assert site.ask(**environ).is_hit
    assert site.ask(HTTP_AUTHORIZATION="Bearer other").is_hit


@pytest.mark.parametrize(
    "value", ["public=1, max-age=60", "max-age=60, x-public", "proxy-revalidate, max-age=60"]
)
def test_what_only_looks_like_a_permission_is_none(value):
    site = Site(control(value))
    assert not site.ask(HTTP_AUTHORIZATION="Bearer a").stored


@pytest.mark.parametrize(
    "vary", ["Authorization", "authorization", "Accept, AUTHORIZATION", " Authorization\t"]
)
@pytest.mark.parametrize("value", ["max-age=60", "public, max-age=60", "s-maxage=60"])
def test_vary_authorization_is_no_permission(vary, value):
    site = Site(control(value, ("Vary", vary)))
    assert not site.ask(HTTP_AUTHORIZATION="Bearer a").stored
    assert site.ask().detail == "NOT_STORED_VARY"


@pytest.mark.parametrize("environ", NO_CREDENTIALS, ids=repr)
def test_what_servers_set_without_credentials_changes_nothing(environ):
    site = warm()
    assert site.ask(**environ).is_hit
    assert site.app.calls == 1


def test_a_page_stored_for_anonymous_visitors_with_must_revalidate_may_answer_credentials():
    site = warm(control("max-age=60, must-revalidate"))
    assert site.ask(HTTP_AUTHORIZATION="Bearer a").is_hit


def test_head_with_credentials_bypasses_too():
    site = warm()
    assert site.ask(method="HEAD", HTTP_AUTHORIZATION="Bearer a").detail == "BYPASS_AUTHORIZATION"


def test_a_rule_that_ignores_cookies_says_nothing_of_credentials():
    site = warm(rules=[Rule("/*", ttl=60, cookies="ignore")])
    assert (
        site.ask(headers={"Cookie": "session=a", "Authorization": "Bearer a"}).detail
        == "BYPASS_AUTHORIZATION"
    )


# --- 6: a cookie bypasses ---------------------------------------------------------------------------

PERSONAL = [
    "session=a",
    "sessionid=a",
    "PHPSESSID=a",
    "session=",
    "session",
    "=a",
    "a",
    "_ga=1; session=a",
    "session=a; _ga=1",
    "csrftoken=x; session=a",
    "cookieconsent_status=allow",
    "OptanonConsent=1",
    "euconsent-v2=x",
    "CookieConsent=yes",
    "_GA=1",
    "Csrftoken=x",
    "CSRFTOKEN=x",
    "x_ga=1",
    "ga=1",
    " session = a ",
    'session="a;b"',
    "session=a,_ga=1",
    "_ga=1, session=a",
    "\xff=1",
    "remember_token=" + "x" * 5000,
]
HARMLESS = [
    "_ga=GA1.2.3.4",
    "_ga_ABC123=GS1.1",
    "_gid=1; _gat=1; _gat_UA_1=1",
    " _ga=1 ;_fbp=2; ",
    "__utma=1; __utmz=2",
    "_pk_id.1.1fff=x",
    "_hjSessionUser_1=x; hubspotutk=y",
    "",
    ";",
    " ; ; ",
    "_ga=1;" * 300,
]


@pytest.mark.parametrize("cookie", PERSONAL, ids=lambda cookie: cookie[:40])
def test_a_cookie_bypasses_both_ways(cookie):
    site = mirror()
    reply = site.ask(headers={"Cookie": cookie})
    assert (reply.cache["fwd"], reply.detail) == ("bypass", "BYPASS_COOKIE")
    assert site.last["HTTP_COOKIE"] == cookie, "the app gets what the client sent"
    reply = site.fill()
    assert reply.body == b"None|None|None"
    for _ in range(3):
        assert site.ask().is_hit
    for _ in range(2):
        assert site.ask(headers={"Cookie": cookie}).detail == "BYPASS_COOKIE"
        assert site.last["HTTP_COOKIE"] == cookie


@pytest.mark.parametrize("value", ["public", "s-maxage=60", "public, max-age=60"])
@pytest.mark.parametrize("cookie", ["session=a", "_ga=1; session=a", "csrftoken=x; session=a"])
def test_public_or_s_maxage_lets_a_visitor_in(value, cookie):
    site = Site(control(value))
    assert site.ask(headers={"Cookie": cookie}).stored
    assert site.ask().is_hit
    for _ in range(3):
        assert site.ask(headers={"Cookie": cookie}).is_hit
        assert site.ask(headers={"Cookie": "session=other"}).is_hit
    assert site.app.calls == 1


@pytest.mark.parametrize(
    "value",
    ["max-age=60", "must-revalidate, max-age=60", "immutable, max-age=60", "s-maxage=0", "s-maxage=x"],
)
def test_nothing_else_does(value):
    site = Site(control(value))
    assert not site.ask(headers={"Cookie": "session=a"}).stored
    assert not site.ask(headers={"Cookie": "session=a"}).is_hit


@pytest.mark.parametrize("cookie", HARMLESS, ids=lambda cookie: cookie[:40])
def test_harmless_cookies_count_as_absent_and_the_app_does_not_see_them(cookie):
    site = mirror()
    assert site.fill(headers={"Cookie": cookie}).body == b"None|None|None"
    assert not site.last.get("HTTP_COOKIE")
    for _ in range(3):
        assert site.ask().is_hit
        assert site.ask(headers={"Cookie": cookie}).is_hit
    assert site.app.calls == 1


@pytest.mark.parametrize("pattern", DEFAULT_HARMLESS)
def test_no_default_pattern_is_so_wide_that_it_takes_a_session(pattern):
    for name in (
        "session",
        "sessionid",
        "sid",
        "_session",
        "_session_id",
        "auth",
        "token",
        "_csrf",
        "user",
        "",
    ):
        assert not matches_any(name, [pattern])


def test_harmless_names_can_be_added_or_replaced():
    added = Site(harmless_cookies="+theme,tracker_*")
    assert added.ask(headers={"Cookie": "theme=dark; tracker_1=x; _ga=1"}).stored
    replaced = Site(harmless_cookies=["theme"])
    assert replaced.ask(headers={"Cookie": "theme=dark"}).stored
    assert replaced.ask(headers={"Cookie": "_ga=1"}).detail == "BYPASS_COOKIE"


@pytest.mark.parametrize(
    "cookie", ["csrftoken=x", "XSRF-TOKEN=x", "csrftoken=x; _ga=1", "_ga=1; XSRF-TOKEN=y; csrftoken=x"]
)
def test_lookup_only_names_are_answered_by_a_hit_but_their_misses_are_not_stored(cookie):
    site = mirror()
    reply = site.ask(headers={"Cookie": cookie})
    assert (reply.cache["fwd"], reply.detail) == ("uri-miss", "NOT_STORED_COOKIE")
    assert site.last["HTTP_COOKIE"] == cookie, "a miss goes through intact"
    site.fill()
    for _ in range(3):
        reply = site.ask(headers={"Cookie": cookie})
        assert (reply.is_hit, reply.body) == (True, b"None|None|None")
    assert site.app.calls == 2


def test_lookup_only_names_can_be_added():
    site = Site(lookup_cookies="+my_csrf")
    assert site.ask(headers={"Cookie": "my_csrf=x; csrftoken=y"}).detail == "NOT_STORED_COOKIE"
    site.fill()
    assert site.ask(headers={"Cookie": "my_csrf=x; csrftoken=y"}).is_hit


# --- 6: what a rule says of cookies -----------------------------------------------------------------


def test_a_rule_may_ignore_cookies_and_then_the_app_sees_none():
    site = mirror(rules=[Rule("/*", ttl=60, cookies="ignore")])
    assert site.fill(headers={"Cookie": "session=secret; lang=de"}).body == b"None|None|None"
    for cookie in (None, "session=other", "csrftoken=x", "_ga=1"):
        assert site.ask(headers={"Cookie": cookie} if cookie else None).is_hit
    assert site.app.calls == 1


@pytest.mark.parametrize("environ", CREDENTIALS[:2], ids=repr)
def test_what_a_rule_ignores_stays_unseen_where_a_public_answer_to_credentials_is_stored(environ):
    def answer(request):
        return control("public, max-age=60", body=str(request.get("HTTP_COOKIE")).encode())

    site = Site(answer, rules=[Rule("/*", cookies="ignore")])
    assert site.ask(headers={"Cookie": "name=<script>"}, **environ).stored
    assert site.ask().body == b"None"


LANG = [Rule("/*", ttl=60, cookies=["lang", "theme"])]


def test_a_rule_may_name_the_cookies_that_select_a_variant():
    site = mirror(rules=LANG)
    pages = [
        "lang=de",
        "lang=en",
        "lang=de; theme=dark",
        "theme=dark",
        "lang=",
        "lang=de; lang=en",
        "lang=en; lang=de",
    ]
    for cookie in pages:
        assert site.fill(headers={"Cookie": cookie}).body.decode() == f"None|{cookie}|None"
    for cookie in pages:
        reply = site.ask(headers={"Cookie": cookie})
        assert (reply.is_hit, reply.body.decode()) == (True, f"None|{cookie}|None")
    assert site.fill().body == b"None|None|None"
    assert site.app.calls == len(pages) + 1


def test_the_app_sees_no_others_and_a_session_cookie_then_changes_nothing():
    site = mirror(rules=LANG)
    assert site.fill(headers={"Cookie": "session=a; lang=de; _ga=1"}).body == b"None|lang=de|None"
    assert site.ask(headers={"Cookie": "lang=de"}).is_hit
    assert site.ask(headers={"Cookie": "session=b; lang=de"}).is_hit
    assert not site.ask(headers={"Cookie": "Lang=de"}).is_hit


def test_the_order_of_differently_named_cookies_does_not_split_a_variant():
    site = mirror(rules=LANG)
    site.fill(headers={"Cookie": "lang=de; theme=dark"})
    assert site.ask(headers={"Cookie": "theme=dark; lang=de"}).is_hit


def test_named_cookies_do_not_share_a_key_with_crafted_values():
    site = mirror(rules=LANG)
    for cookie in ("lang=de\x01=dark", "lang=\0"):
        site.ask(headers={"Cookie": cookie})
        assert not site.ask(headers={"Cookie": cookie}).is_hit
    site.fill(headers={"Cookie": "lang=de; theme=dark"})
    assert not site.ask(headers={"Cookie": "lang=de\x01=dark"}).is_hit


@pytest.mark.parametrize("cookie", ["_ga=evil", "_ga=1; _gid=<script>"])
def test_unkeyed_means_unseen_even_where_the_page_declares_itself_public(cookie):
    site = mirror(("Cache-Control", "public, max-age=60"))
    site.fill(headers={"Cookie": cookie})
    assert site.ask().body == b"None|None|None"


def test_what_an_app_learned_of_a_visitor_otherwise_is_told_by_a_hint():
    for hint in ("private", "session"):

        def answer(environ, hint=hint):
            hints = environ["wsgicache.hints"]
            if hint == "private":
                hints.private()
            else:
                hints.session_accessed = True
            return control("public, max-age=60")

        site = Site(answer)
        assert site.ask().detail == "NOT_STORED_HINT"
        assert not site.ask().is_hit


def test_a_page_of_a_visitor_does_not_push_out_the_anonymous_one():
    site = warm()
    site.ask(headers={"Cookie": "session=a"})
    site.ask(HTTP_AUTHORIZATION="Bearer a")
    assert site.ask().is_hit
