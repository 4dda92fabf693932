"""Who gets to see the dashboard, and whose forms it takes."""

import logging
import sys

import pytest
from dashboard_helpers import BASE, PAGES, SECRET, SENT, Browser, Site, signed_in

from wsgicache import Rule, WSGICache
from wsgicache.admin.dashboard import HEADERS, MAX_BYTES
from wsgicache.admin.guard import Guard
from wsgicache.admin.session import COOKIE, LASTS, Guesses, is_same_origin
from wsgicache.config import from_ini
from wsgicache.options import OptionError
from wsgicache.testing import FakeClock, ScriptedApp, ask

SWITCH = {"name": "admin", "enabled": "off"}


def switch_off(browser, token, **more):
    """Send the form that switches a rule off."""
    return browser.post("pages/rules", {"token": token, **SWITCH}, **more)


# --- when it is made ---


def test_adm_05_it_is_off_by_default():
    site = Site(dashboard=False)
    assert ask(site.cache, BASE, headers=SENT).code == 404
    assert ask(site.cache, BASE).field("content-type") == "application/json"
    bare = WSGICache(ScriptedApp())
    assert ask(bare, BASE).body == ask(bare, "/").body


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 15])
def test_adm_05_it_is_not_opened_without_a_secret_that_cannot_be_guessed(secret):
    for auth in (None, lambda environ: True):
        with pytest.raises(OptionError, match=r"dashboard needs a secret.*secrets\.token_urlsafe"):
            Site(secret=secret, admin_auth=auth)


def test_it_needs_a_path():
    with pytest.raises(OptionError, match=r"dashboard = True needs .*admin_path = /\.cache"):
        Site(admin_path=None)


@pytest.mark.parametrize("package", ["jinja2", "itsdangerous"])
def test_a_package_that_is_missing_is_named_with_the_extra(package, monkeypatch):
    for name in ("dashboard", "session"):
        monkeypatch.delitem(sys.modules, f"wsgicache.admin.{name}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(OptionError, match=rf"needs {package}.*pip install 'wsgicache\[dashboard\]'"):
        Site()
    assert Site(dashboard=False).ask("/").code == 200


def test_options_come_from_an_ini_and_from_the_environment():
    settings, _ = from_ini({"admin_path": "/.cache", "dashboard": "on", "secret": SECRET}, "here")
    assert settings.dashboard is True
    names = {"ADMIN_PATH": "/.cache", "SECRET": SECRET, "DASHBOARD": "yes"}
    cache = WSGICache.from_env(ScriptedApp(), {f"WSGICACHE_{name}": value for name, value in names.items()})
    assert Browser(cache).sign_in().code == 303


def test_only_what_is_below_the_path_is_taken():
    site = Site()
    for path in ("/.cached", "/.cach", "/x/.cache/", "/pages/rules", "/login"):
        assert site.ask(path).body == b"0123456789"
    reply = site.ask("/.cache")
    assert (reply.code, reply.field("location")) == (303, BASE)
    assert site.ask("/.cache/purge", method="POST").field("content-type") == "application/json"
    assert site.ask("/.cache/stats", headers=SENT).code == 200


def test_it_is_found_where_the_site_is_mounted():
    site = Site(admin_path="/shop/.cache")
    reply = ask(site.cache, "/", SCRIPT_NAME="/shop", PATH_INFO="/.cache/", headers=SENT)
    assert b'href="/shop/.cache/pages/rules"' in reply.body


# --- what every answer carries ---


@pytest.mark.parametrize(
    "name",
    [
        *PAGES,
        "pages/entry?id=x",
        "pages/nothing",
        "login",
        "static/dashboard.css",
        "static/icon.svg",
        "static/../x",
    ],
)
@pytest.mark.parametrize("let_in", [True, False])
def test_every_answer_is_for_now_and_runs_nothing_of_others(name, let_in):
    site = Site()
    site.warm()
    reply = ask(site.cache, BASE + name, headers=SENT if let_in else {})
    for field, value in HEADERS:
        assert reply.all(field) == [value]
    policy = reply.field("content-security-policy").split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"} <= set(
        policy
    )
    assert "unsafe" not in reply.field("content-security-policy")
    assert reply.field("cache-control") == "no-store"
    for part in (b" style=", b"<style", b" onclick", b"javascript:", b"<script>"):
        assert part not in reply.body


@pytest.mark.parametrize("name", PAGES)
def test_adm_05_without_signing_in_every_answer_is_the_same(name):
    site = Site()
    browser = Browser(site.cache)
    asked = browser.get()
    assert (asked.code, asked.field("set-cookie")) == (403, None)
    assert b"Sign in" in asked.body
    for reply in (browser.get(name), browser.get(name + "?fragment=1"), browser.post(name, {"token": "x"})):
        assert (reply.code, reply.body) == (403, asked.body)


@pytest.mark.parametrize("name", PAGES)
def test_the_secret_is_never_shown(name):
    site = Site()
    site.warm()
    site.ask("/post/1?x", headers=SENT)
    browser = signed_in(site)
    assert SECRET.encode() not in browser.get(name).body
    assert SECRET not in str(browser.cookies)


def test_head_has_no_body():
    reply = Browser(Site().cache).get(method="HEAD", headers=SENT)
    assert (reply.code, reply.body) == (200, b"")


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_not_for_pages(method):
    reply = ask(Site().cache, BASE, method=method, headers=SENT)
    assert (reply.code, reply.field("content-type")) == (404, "application/json")


@pytest.mark.parametrize("name", [*PAGES, "static/dashboard.css", "stats", "entries"])
@pytest.mark.parametrize("profile", ["safe", "rfc"])
def test_an_outer_cache_keeps_nothing_of_it(name, profile):
    """Not even one whose operator overrides what answers say, ignores cookies and keys nothing."""
    site = Site()
    rules = [Rule("/*", ttl=3600, override=True, cookies="ignore", query="key")]
    outer = WSGICache(site.cache, profile=profile, rules=rules)
    browser = Browser(outer)
    browser.cookies = signed_in(site).cookies
    for headers in (
        SENT,
        {},
        browser.cookies and {"Cookie": "; ".join("=".join(pair) for pair in browser.cookies.items())},
    ):
        ask(outer, BASE + name, headers=headers)
        told = ask(outer, BASE + name)
        assert told.code == (200 if name.startswith("static") else 403)
        assert not told.is_hit


@pytest.mark.parametrize(
    "path",
    ["/.cache/;x.css", "/.cache/pages/rules/x.css", "/.cache/pages/rules.css", "//.cache/", "/.cache/.css"],
)
def test_no_page_is_found_under_a_name_that_looks_like_a_file(path):
    site = Site()
    browser = signed_in(site)
    reply = browser._ask(path)
    assert b"Sign out" not in reply.body or reply.code == 404
    assert b"/admin/*" not in reply.body


@pytest.mark.parametrize("fields", [{"next": "//evil.example/"}, {"url": "https://evil.example"}])
def test_signing_in_leads_nowhere_else(fields):
    browser = Browser(Site().cache)
    headers = {"Sec-Fetch-Site": "same-origin", "Host": "evil.example", "X-Forwarded-Host": "evil.example"}
    reply = browser.post("login?next=//evil.example", {"secret": SECRET, **fields}, headers=headers)
    assert (reply.code, reply.field("location")) == (303, BASE)


@pytest.mark.parametrize("name", PAGES)
def test_no_page_repeats_a_host_that_was_made_up(name):
    reply = ask(Site().cache, BASE + name.partition("?")[0], headers={**SENT, "Host": 'x"><script>.evil'})
    assert b"evil" not in reply.body


@pytest.mark.parametrize("text", ["a\r\nSet-Cookie: x=y", "\u2028", "%0d%0aX: y", "\ud800", "é" * 200])
def test_nothing_of_a_form_gets_into_the_head_of_an_answer(text):
    site = Site()
    browser = signed_in(site)
    reply = browser.post(
        "pages/entries",
        {
            "token": browser.token,
            "what": "group",
            "target": "g" + text.encode("utf-8", "replace").decode(),
            "by": "group",
            "text": text.encode("utf-8", "replace").decode(),
        },
    )
    assert reply.code == 303
    location = reply.field("location")
    assert location.isascii()
    assert location.isprintable()
    assert reply.all("set-cookie") == []


# --- signing in ---


def test_signing_in_and_out():
    site = Site()
    browser = Browser(site.cache)
    reply = browser.sign_in()
    assert (reply.code, reply.field("location")) == (303, BASE)
    assert browser.get().code == 200
    reply = browser.post("logout", {"token": browser.token})
    assert (reply.code, reply.field("location")) == (303, BASE)
    assert "Max-Age=0" in reply.field("set-cookie")
    assert browser.get().code == 403


@pytest.mark.parametrize(
    ("origin", "headers", "secure"),
    [
        ("http://example.com", {}, False),
        ("https://example.com", {}, True),
        ("http://example.com", {"X-Forwarded-Proto": "https"}, True),
    ],
)
def test_the_cookie_is_for_this_path_and_no_script(origin, headers, secure):
    browser = Browser(Site().cache, origin)
    line = browser.sign_in(headers={"Sec-Fetch-Site": "same-origin", **headers}).field("set-cookie")
    terms = {part.strip().lower() for part in line.split(";")[1:]}
    assert {"httponly", "samesite=strict", f"path={BASE}", f"max-age={LASTS}"} <= terms
    assert ("secure" in terms) is secure


@pytest.mark.parametrize(
    "secret", ["", "wrong", SECRET[:-1], SECRET + "x", SECRET.upper(), "\udcff\u00e9", "x" * 5000]
)
def test_a_wrong_secret_is_refused_with_the_same_answer(secret):
    browser = Browser(Site().cache)
    refused = browser.sign_in("something else")
    fields = {"secret": secret.encode("utf-8", "surrogateescape")}
    reply = browser.post("login", fields)
    assert (reply.code, reply.body, reply.field("set-cookie")) == (403, refused.body, None)
    assert browser.get().code == 403


def test_guessing_is_slowed_down_and_ends():
    site = Site()
    browser, other = Browser(site.cache), Browser(site.cache)
    for _ in range(10):
        assert browser.sign_in("guess", REMOTE_ADDR="10.0.0.1").code == 403
    reply = browser.sign_in(REMOTE_ADDR="10.0.0.1")
    assert (reply.code, reply.field("retry-after")) == (429, "60")
    assert browser.get().code == 403
    assert other.sign_in(REMOTE_ADDR="10.0.0.2").code == 303
    site.clock.tick(61)
    assert browser.sign_in(REMOTE_ADDR="10.0.0.1").code == 303


def test_guesses_take_only_so_much_memory():
    guesses = Guesses(FakeClock(), addresses=50)
    for number in range(1000):
        guesses.wrong(f"10.0.{number}")
    assert len(guesses._counts) <= 50


def test_a_session_ends():
    site = Site()
    browser = signed_in(site)
    site.clock.tick(LASTS - 1)
    assert browser.get().code == 200
    site.clock.tick(2)
    assert browser.get().code == 403


def test_a_session_ends_though_the_clock_is_set_back():
    site = Site()
    browser = signed_in(site)
    site.clock.tick(-200)
    assert browser.get().code == 200, "machines differ by some seconds"
    site.clock.tick(-24 * 3600)
    assert browser.get().code == 403
    assert browser.sign_in().code == 303
    assert browser.get().code == 200


def test_whoever_guesses_waits_a_minute_though_the_clock_is_set_back():
    site, steady = Site(), FakeClock(0.0)
    site.cache.engine.clock.steady = steady
    browser = Browser(site.cache)
    for _ in range(10):
        browser.sign_in("guess")
    site.clock.tick(-24 * 3600)
    assert browser.sign_in().field("retry-after") == "60"
    steady.tick(61)
    assert browser.sign_in().code == 303


@pytest.mark.parametrize("cookie", ["", "x", "WyJhIiwic2VjcmV0IiwxZTEyXQ.sig", '"', "é"])
def test_a_cookie_that_is_none_of_ours(cookie):
    browser = Browser(Site().cache)
    browser.cookies[COOKIE] = cookie
    assert browser.get().code == 403


def test_a_session_of_another_secret_is_none():
    browser = signed_in(Site())
    other = Browser(Site(secret=SECRET + "!").cache)
    other.cookies = browser.cookies
    assert other.get().code == 403


def test_any_worker_knows_whom_another_has_signed_in():
    browser = signed_in(Site())
    browser.cache = Site().cache
    assert browser.get().code == 200
    assert (
        browser.post("pages/rules", {"token": browser.token, "name": "admin", "enabled": "off"}).code == 303
    )


def test_the_key_that_signs_is_not_the_secret():
    key = Guard(SECRET, "x").key("a")
    assert SECRET.encode() not in key
    assert key != Guard(SECRET, "x").key("b")


# --- whom the app lets in ---


def admitted(environ):
    return environ.get("HTTP_COOKIE", "").find("staff=yes") >= 0


def test_the_app_lets_in_whom_it_knows_and_as_long():
    site = Site(admin_auth=admitted)
    browser = Browser(site.cache)
    assert browser.get().code == 403
    browser.cookies["staff"] = "yes"
    reply = browser.get()
    assert (reply.code, len(reply.all("set-cookie"))) == (200, 1)
    again = browser.get()
    assert (again.code, again.all("set-cookie")) == (200, [])
    assert (
        browser.post("pages/rules", {"token": browser.token, "name": "admin", "enabled": "off"}).code == 303
    )
    assert site.cache.rules["admin"].enabled is False
    browser.cookies["staff"] = "no"
    assert browser.get().code == 403


def test_adm_03_whom_the_app_lets_in_needs_a_token_all_the_same():
    site = Site(admin_auth=admitted)
    browser = Browser(site.cache)
    browser.cookies["staff"] = "yes"
    for token in ("", "x"):
        reply = browser.post("pages/rules", {"token": token, "name": "admin", "enabled": "off"})
        assert reply.code == 403
    assert site.cache.rules["admin"].enabled is True


def failing(environ):
    raise RuntimeError("no database")


@pytest.mark.parametrize("auth", [failing, lambda environ: None, lambda environ: "yes", lambda environ: 1])
def test_only_true_itself_lets_in(auth, caplog):
    with caplog.at_level(logging.WARNING, "wsgicache"):
        assert Browser(Site(admin_auth=auth).cache).get().code == 403
    assert ("no database" in caplog.text) is (auth is failing)


# --- forms ---

FROM_ELSEWHERE = [
    {},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://example.com"},
    {"Origin": "null"},
    {"Origin": "http://evil.example"},
    {"Origin": "http://example.com.evil.example"},
    {"Origin": "http://example.com:8080"},
    {"Origin": "file://example.com"},
    {"Origin": "http://["},
    {"Referer": "http://example.com/.cache/"},
]


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("pages/rules", {"name": "admin", "enabled": "off"}),
        ("pages/entries", {"what": "prefix", "target": "/"}),
        ("logout", {}),
    ],
)
def test_adm_03_a_form_of_another_site_is_refused_even_with_the_token(headers, name, fields):
    site = Site()
    site.warm()
    browser = signed_in(site)
    reply = browser.post(name, {"token": browser.token, **fields}, headers=headers)
    assert reply.code == 403
    assert site.cache.rules["admin"].enabled is True
    assert site.ask().is_hit
    assert browser.get().code == 200


@pytest.mark.parametrize("headers", FROM_ELSEWHERE)
def test_adm_03_nobody_is_signed_in_from_another_site(headers):
    browser = Browser(Site().cache)
    reply = browser.sign_in(headers=headers)
    assert (reply.code, reply.field("set-cookie")) == (403, None)


@pytest.mark.parametrize("headers", [{"Origin": "http://example.com"}, {"Sec-Fetch-Site": "same-origin"}])
def test_a_form_of_our_own_is_taken(headers):
    site = Site()
    browser = signed_in(site)
    fields = {"token": browser.token, "name": "admin", "enabled": "off"}
    assert browser.post("pages/rules", fields, headers=headers).code == 303
    assert site.cache.rules["admin"].enabled is False


def test_what_names_no_host_is_of_no_site():
    assert not is_same_origin({"HTTP_ORIGIN": "http://", "HTTP_HOST": ""})
    assert is_same_origin({"HTTP_ORIGIN": "https://Example.com", "HTTP_HOST": "example.com"})


@pytest.mark.parametrize("token", [None, "", "x", "\u00e9"])
def test_adm_03_a_form_needs_the_token(token):
    site = Site()
    site.warm()
    browser = signed_in(site)
    fields = {"what": "prefix", "target": "/", **({} if token is None else {"token": token})}
    assert browser.post("pages/entries", fields).code == 403
    assert site.ask().is_hit


def test_adm_03_a_token_is_of_one_session():
    site = Site()
    browser, other = signed_in(site), signed_in(site)
    assert other.token != browser.token
    fields = {"token": other.token, "name": "admin", "enabled": "off"}
    assert browser.post("pages/rules", fields).code == 403
    assert site.cache.rules["admin"].enabled is True


@pytest.mark.parametrize(
    "name",
    ["pages/rules?name=admin&enabled=off", "pages/entries?what=prefix&target=/", "logout", "login?secret=x"],
)
def test_no_state_changes_on_get(name):
    site = Site()
    site.warm()
    browser = signed_in(site)
    token = browser.token
    browser.get(f"{name}{'&' if '?' in name else '?'}token={token}")
    assert site.cache.rules["admin"].enabled is True
    assert site.ask().is_hit
    assert browser.get().code == 200


def test_whoever_sends_the_secret_needs_no_cookie_and_no_token():
    site = Site()
    browser = Browser(site.cache)
    reply = browser.post("pages/rules", {"name": "admin", "enabled": "off"}, headers=SENT)
    assert (reply.code, browser.cookies) == (303, {})
    assert site.cache.rules["admin"].enabled is False


def test_a_form_that_is_too_large_is_not_read():
    browser = signed_in(Site())
    assert browser.post("pages/rules", {"token": "x" * MAX_BYTES}).code == 413
    assert Browser(Site().cache).sign_in("x" * MAX_BYTES).code in (403, 413)


@pytest.mark.parametrize("name", ["", "pages/recent", "pages/entry"])
def test_a_page_that_takes_no_form(name):
    browser = signed_in(Site())
    reply = browser.post(name, {"token": browser.token})
    assert (reply.code, reply.field("allow")) == (405, "GET")
