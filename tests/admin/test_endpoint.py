"""Purges, numbers and switches over HTTP: only by the secret, and never by default."""

import io
import json

import pytest

from wsgicache import Reason, Rule, WSGICache
from wsgicache.admin.endpoint import MAX_BYTES
from wsgicache.config import from_ini
from wsgicache.options import OptionError
from wsgicache.stores import StoreError
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask

SECRET = "correct horse battery"
SENT = {"Wsgicache-Secret": SECRET}


class Site:
    """A site with the endpoint, unless it is told otherwise."""

    def __init__(self, **options):
        self.app = ScriptedApp(Response(headers=[("Cache-Tag", "posts")], body=b"page"))
        given = {"admin_path": "/.cache", "purge_method": True, "secret": SECRET, **options}
        rules = [Rule("/admin/*", bypass=True, name="admin")]
        self.cache = WSGICache(self.app, rules=rules, **given)

    def ask(self, url="/post/1", method="GET", **headers):
        return ask(self.cache, url, method=method, headers=headers)

    def warm(self, *urls):
        for url in urls or ("/post/1",):
            self.ask(url)
            assert self.ask(url).is_hit

    def post(self, path, data, headers=SENT, **extra):
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        sent = {"Content-Type": "application/json", **headers, **extra}
        return ask(self.cache, path, method="POST", headers=sent, body=body)

    def get(self, path, headers=SENT):
        return ask(self.cache, path, headers=headers)


def told(reply):
    assert reply.field("content-type") == "application/json"
    assert reply.field("cache-control") == "no-store"
    assert reply.field("x-content-type-options") == "nosniff"
    return json.loads(reply.body)


# --- who is let in ---


@pytest.mark.parametrize("method", ["PURGE", "POST"])
def test_adm_01_it_is_the_apps_to_answer_by_default(method):
    site = Site(admin_path=None, purge_method=False, secret=None)
    site.warm()
    reply = site.ask("/.cache/purge" if method == "POST" else "/post/1", method)
    assert (reply.body, site.app.calls) == (b"page", 2)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Wsgicache-Secret": ""},
        {"Wsgicache-Secret": SECRET[:-1]},
        {"Wsgicache-Secret": SECRET + "x"},
        {"Wsgicache-Secret": SECRET.upper()},
        {"Authorization": f"Basic {SECRET}"},
        {"Authorization": SECRET},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer x", "X-Forwarded-For": "127.0.0.1"},
        {"Cookie": f"Wsgicache-Secret={SECRET}"},
        {"Wsgicache-Secret": "\u00ff" * 20},
    ],
)
@pytest.mark.parametrize(
    ("path", "method"),
    [("/post/1", "PURGE"), ("/nothing", "PURGE"), ("/.cache/purge", "POST"), ("/.cache/x", "GET")],
)
def test_adm_02_without_the_secret_every_answer_is_the_same(headers, path, method):
    site = Site()
    site.warm()
    reply = ask(site.cache, path, method=method, headers=headers, REMOTE_ADDR="127.0.0.1")
    assert reply.code == 403
    assert "secret" in told(reply)["error"]
    assert site.ask().is_hit
    assert site.app.calls == 1


@pytest.mark.parametrize(
    "headers", [SENT, {"Authorization": f"Bearer {SECRET}"}, {"Authorization": f"bearer {SECRET}"}]
)
def test_the_secret_comes_in_either_field(headers):
    site = Site()
    site.warm()
    assert told(ask(site.cache, "/post/1", method="PURGE", headers=headers)) == {"purged": True}
    assert not site.ask().is_hit


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 15])
@pytest.mark.parametrize("option", [{"admin_path": "/.cache"}, {"purge_method": True}])
def test_adm_05_it_is_not_opened_without_a_secret_that_cannot_be_guessed(secret, option):
    with pytest.raises(OptionError, match=rf"{next(iter(option))} needs a secret.*secrets\.token_urlsafe"):
        WSGICache(ScriptedApp(), secret=secret, **option)


@pytest.mark.parametrize("path", ["cache", "/", "//", "/a?b"])
def test_a_path_of_its_own(path):
    with pytest.raises(OptionError, match=r"admin_path.*/\.cache"):
        WSGICache(ScriptedApp(), secret=SECRET, admin_path=path)


def test_options_come_from_an_ini_and_from_the_environment():
    settings, _ = from_ini({"admin_path": "/.cache", "purge_method": "on", "secret": SECRET}, "here")
    assert (settings.admin_path, settings.purge_method) == ("/.cache", True)
    variables = {"WSGICACHE_ADMIN_PATH": "/.cache", "WSGICACHE_SECRET": SECRET}
    cache = WSGICache.from_env(ScriptedApp(), variables)
    assert told(ask(cache, "/.cache/rules", headers=SENT)) == []
    assert cache.engine.settings.purge_method is False


def test_only_what_is_below_the_path_is_taken():
    site = Site(purge_method=False)
    for path in ("/.cached", "/.cach", "/x/.cache", "/"):
        assert site.ask(path).body == b"page"
    for path in ("/.cache", "/.cache/", "/.cache/x/y"):
        assert site.ask(path).code == 403
        assert site.get(path).code == 404
    assert site.ask("/post/1", "PURGE").body == b"page"


def test_it_is_found_where_the_site_is_mounted():
    site = Site(admin_path="/shop/.cache")
    reply = ask(site.cache, "/.cache/rules", headers=SENT, SCRIPT_NAME="/shop", PATH_INFO="/.cache/rules")
    assert told(reply)[0]["name"] == "admin"


# --- purging ---


@pytest.mark.parametrize(
    ("asked", "gone"),
    [
        ({"urls": ["/post/1"]}, {"/post/1"}),
        ({"urls": ["http://example.com/post/1", "/post/2"]}, {"/post/1", "/post/2"}),
        ({"prefixes": ["/post"]}, {"/post/1", "/post/2"}),
        ({"groups": ["posts"]}, {"/post/1", "/post/2", "/home"}),
        ({"all": True}, {"/post/1", "/post/2", "/home"}),
        ({"urls": ["/home"], "prefixes": ["/post/1"]}, {"/post/1", "/home"}),
        ({"groups": ["nobody"]}, set()),
    ],
)
def test_what_is_purged(asked, gone):
    site = Site()
    pages = ("/post/1", "/post/2", "/home")
    site.warm(*pages)
    assert told(site.post("/.cache/purge", asked)) == {"purged": True}
    assert {page for page in pages if not site.ask(page).is_hit} == gone


def test_how_many_there_were_is_told_to_whoever_asks_for_it():
    site = Site()
    site.warm("/post/1", "/post/2")
    assert told(site.post("/.cache/purge", {"prefixes": ["/post"], "count": True})) == {
        "purged": True,
        "matched": 2,
    }
    assert told(site.post("/.cache/purge", {"prefixes": ["/post"], "count": True}))["matched"] == 0


def test_soft():
    site = Site()
    site.warm("/post/1", "/post/2")
    site.post("/.cache/purge", {"urls": ["/post/1"], "soft": True})
    assert site.ask("/post/1").detail == Reason.STALE_PURGED.name
    site.ask("/post/2", "PURGE", **SENT, **{"Wsgicache-Soft-Purge": "1"})
    assert site.ask("/post/2").detail == Reason.STALE_PURGED.name


@pytest.mark.parametrize(
    "url", ["/post/1", "/caf%C3%A9", "https://example.com/post/1", "http://example.com:81/x"]
)
def test_the_method_purges_the_url_that_it_is_sent_to(url):
    site = Site()
    site.warm(url, "/other")
    assert told(site.ask(url, "PURGE", **SENT)) == {"purged": True}
    assert not site.ask(url).is_hit
    assert site.ask("/other").is_hit


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({}, "name something to purge"),
        ({"urls": []}, "name something to purge"),
        ({"url": ["/a"]}, "unknown name 'url'; known: urls, prefixes, groups, all"),
        ({"urls": "/a"}, "urls = '/a' is no list"),
        ({"urls": [1]}, "no list of texts"),
        ({"urls": ["a"]}, "a"),
        ({"all": True, "urls": ["a"]}, "not a URL of this site: 'a'"),
        ({"urls": ["/post/1"], "prefixes": ["a"]}, "not a URL of this site: 'a'"),
        ({"prefixes": ["/post", "/x?a=1"]}, "a prefix has no query"),
        ({"urls": ["/\ud800"]}, "not text: 'utf-8' codec can't encode"),
        ({"all": "yes"}, "all = 'yes' is neither true nor false"),
        ([], "send a JSON object"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[" * 60000, "no JSON"),
    ],
)
def test_mistakes(data, error):
    site = Site()
    site.warm()
    reply = site.post("/.cache/purge", data)
    assert reply.code == 400
    assert error in told(reply)["error"]
    assert site.ask().is_hit


@pytest.mark.parametrize(
    "data",
    [
        {"urls": ["x" * 60000]},
        {"urls": [{"a": "x" * 60000}]},
        {"x" * 60000: 1},
        b'{"urls": ' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"all": ' + b"9" * 5000 + b"}",
    ],
)
def test_an_error_is_no_echo(data):
    reply = Site().post("/.cache/purge", data)
    assert reply.code == 400
    assert len(told(reply)["error"]) <= 501


def test_adm_03_a_form_of_another_site_is_refused_even_with_the_secret():
    site = Site()
    site.warm()
    reply = site.post("/.cache/purge", b"all=true", **{"Content-Type": "application/x-www-form-urlencoded"})
    assert (reply.code, told(reply)["error"]) == (400, "send JSON, with Content-Type: application/json")
    assert site.ask().is_hit


def test_a_body_that_is_too_large_is_not_read():
    reply = Site().post("/.cache/purge", b" " * (MAX_BYTES + 1))
    assert reply.code == 413


def test_no_state_changes_on_get():
    site = Site()
    site.warm()
    reply = site.get("/.cache/purge?urls=/post/1")
    assert (reply.code, reply.field("allow")) == (405, "POST")
    assert site.ask().is_hit


def test_a_store_that_does_not_answer_is_told():
    server = SharedServer()
    site = Site(store=SharedStore(server))
    site.warm()
    server.down = True
    reply = site.post("/.cache/purge", {"all": True})
    assert reply.code == 503
    assert "did not acknowledge" in told(reply)["error"]
    with pytest.raises(StoreError):
        site.cache.clear()


# --- looking and switching ---


def test_numbers():
    site = Site()
    site.warm()
    assert told(site.get("/.cache/stats"))["hits"] == 1
    assert site.post("/.cache/stats", {}).code == 405


def test_numbers_are_those_of_all_workers_that_share_a_store():
    server = SharedServer()
    sites = [Site(store=SharedStore(server)) for _ in range(2)]
    for site in sites:
        site.ask("/post/1")
        site.cache.engine.counts.add(0.0)
    sites[0].ask("/post/1")  # what this worker has not told yet is in it
    numbers = told(sites[0].get("/.cache/stats"))
    assert (numbers["requests"], numbers["hits"], numbers["misses"]) == (3, 2, 1)


def test_explain():
    site = Site()
    site.warm()
    told_of = told(site.get("/.cache/explain?url=/admin/x"))
    assert (told_of["reason"], told_of["rule"]) == (Reason.BYPASS_RULE.name, "admin")
    assert told(site.get("/.cache/explain?url=/post/1"))["hit"] is True
    assert site.get("/.cache/explain").code == 400
    assert site.get("/.cache/explain?url=x").code == 400


def test_explain_takes_fields_and_a_method():
    site = Site()
    site.warm()
    asked = {"url": "/post/1", "method": "HEAD", "headers": {"Cookie": "a=b"}}
    told_of = told(site.post("/.cache/explain", asked))
    assert (told_of["reason"], told_of["method"]) == (Reason.BYPASS_COOKIE.name, "HEAD")
    assert told(site.post("/.cache/explain", {"url": "/post/1"}))["hit"] is True
    https = ask(
        site.cache,
        "https://example.com/.cache/explain?url=/post/1",
        headers={**SENT, "Host": "other.example"},
    )
    assert told(https)["key"]["host"] == "other.example"
    assert told(https)["key"]["scheme"] == "https"


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({}, "say which"),
        ({"url": 1}, "say which"),
        ({"url": "/", "method": 1}, "method = 1 is no text"),
        ({"url": "/", "method": "G E T"}, "method = 'G E T' is no method"),
        ({"url": "/", "headers": ["Cookie: a"]}, "headers = ['Cookie: a'] is no object of texts"),
        ({"url": "/", "headers": {"Cookie": 1}}, "no object of texts"),
        ({"url": "/", "headers": {"A": "b\r\nC: d"}}, "A: a field is text on one line"),
        ({"url": "/", "headers": {"A b": "c"}}, "'A b' is no name of a field"),
        ({"url": "/", "headers": {"A": "\N{SNOWMAN}"}}, "A: a field is text on one line"),
        ({"url": "/", "cookies": {}}, "unknown name 'cookies'"),
        ({"url": "http://[/"}, "not a URL of this site"),
    ],
)
def test_explain_refuses_what_no_request_has(asked, error):
    reply = Site().post("/.cache/explain", asked)
    assert reply.code == 400
    assert error in told(reply)["error"]


def test_what_is_stored_is_listed_without_heads_and_shown_with_them():
    site = Site()
    site.warm("/post/1", "/post/2", "/home")
    listed = told(site.get("/.cache/entries?prefix=/post&group=posts"))
    assert (listed["after"], listed["cut"]) == (None, False)
    assert [one["url"] for one in listed["entries"]] == [
        "http://example.com/post/1", "http://example.com/post/2"
    ]  # fmt: skip
    assert "headers" not in listed["entries"][0]
    (shown,) = told(site.get("/.cache/entries?url=/post/1"))["entries"]
    assert ["Cache-Tag", "posts"] in shown["headers"]
    assert (shown["size"], shown["groups"]) == (4, ["posts"])
    assert "page" not in str(shown), "no bodies"
    assert told(site.get("/.cache/entries?group=none"))["entries"] == []


def test_what_was_purged_is_not_listed_but_shown():
    site = Site()
    site.warm("/post/1")
    site.post("/.cache/purge", {"urls": ["/post/1"]})
    assert told(site.get("/.cache/entries"))["entries"] == []
    assert [one["state"] for one in told(site.get("/.cache/entries?url=/post/1"))["entries"]] in (
        [], ["purged"]
    )  # fmt: skip


def test_lists_come_in_parts_that_leave_nothing_out():
    site = Site()
    site.warm(*[f"/post/{number}" for number in range(7)])
    seen, after = [], ""
    while after is not None:
        part = told(site.get(f"/.cache/entries?limit=3&after={after}"))
        seen += [one["url"] for one in part["entries"]]
        after = part["after"]
        site.ask("/post/00")  # a page that comes in between moves nothing
    assert [url for url in seen if not url.endswith("/00")] == [
        f"http://example.com/post/{number}" for number in range(7)
    ]


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("prefix=post", "not a URL of this site"),
        ("prefix=/post?a", "a prefix has no query"),
        ("url=post", "not a URL of this site"),
        ("url=/post&group=a", "leave out prefix and group"),
        ("limit=0", "limit = '0' is no number from 1"),
        ("limit=-1", "is no number"),
        ("limit=\u00b2", "is no number"),
        ("limit=999999999999", "is no number"),
        ("after=x", "after = 'x' is not what a list said"),
        ("after=\u00e9", "is not what a list said"),
        ("path=/post", "unknown name 'path'; known: url, prefix, group, limit, after"),
    ],
)
def test_searches_that_are_none(query, error):
    reply = Site().get(f"/.cache/entries?{query}")
    assert reply.code == 400
    assert error in told(reply)["error"]


def test_a_dry_run_says_what_a_purge_would_reach():
    site = Site()
    site.warm("/post/1", "/post/2", "/home")
    asked = {"prefixes": ["/post"], "urls": ["/post/1"], "dry_run": True}
    assert told(site.post("/.cache/purge", asked)) == {
        "purged": False,
        "matched": 2,
        "urls": ["http://example.com/post/1", "http://example.com/post/2"],
        "more_urls": 0,
    }
    assert site.ask("/post/1").is_hit
    reply = site.post("/.cache/purge", {**asked, "dry_run": False, "list": True})
    assert told(reply) == {**told(site.post("/.cache/purge", asked)), **told(reply)}
    assert (told(reply)["matched"], len(told(reply)["urls"])) == (2, 2)
    assert site.post("/.cache/purge", {"dry_run": True}).code == 400


@pytest.mark.parametrize(
    ("given", "multiprocess", "workers"),
    [
        ({}, False, "one"),
        ({}, True, "one-of-several"),
        ({"store": SharedStore(SharedServer())}, True, "all"),
    ],
)
def test_an_answer_says_whom_it_is_about(given, multiprocess, workers):
    site = Site(**given)
    more = {"wsgi.multiprocess": multiprocess}
    for path in ("stats", "rules", "entries", "nothing"):
        reply = ask(site.cache, f"/.cache/{path}", headers=SENT, **more)
        assert reply.field("wsgicache-workers") == workers
    assert ask(site.cache, "/.cache/stats", **more).field("wsgicache-workers") is None


def test_rules_are_switched():
    site = Site()
    assert told(site.get("/.cache/rules")) == [{"name": "admin", "pattern": "/admin/*", "enabled": True}]
    assert site.ask("/admin/x").detail == Reason.BYPASS_RULE.name
    reply = site.post("/.cache/rules", {"name": "admin", "enabled": False})
    assert told(reply)[0]["enabled"] is False
    assert site.ask("/admin/x").detail != Reason.BYPASS_RULE.name


@pytest.mark.parametrize(
    "data",
    [{"name": "amdin", "enabled": False}, {"name": "admin"}, {"name": "admin", "enabled": 0}, {"nam": 1}],
)
def test_rules_that_are_not_switched(data):
    site = Site()
    assert site.post("/.cache/rules", data).code == 400
    assert told(site.get("/.cache/rules"))[0]["enabled"] is True


def test_the_body_of_a_request_that_is_refused_is_left_alone():
    class Body(io.BytesIO):
        def read(self, *args):
            raise AssertionError("somebody read it")

    site = Site()
    reply = ask(site.cache, "/.cache/purge", method="POST", **{"wsgi.input": Body(), "CONTENT_LENGTH": "9"})
    assert reply.code == 403
