"""What the pages of the dashboard tell, and what their forms do."""

import re

import pytest
from bs4 import BeautifulSoup
from dashboard_helpers import BASE, HTML, PAGES, SECRET, SENT, Browser, Site, cells, signed_in

from wsgicache import Reason, Rule, WSGICache
from wsgicache.admin import entries
from wsgicache.engine import RECENT
from wsgicache.history import EVERY
from wsgicache.inventory import SOFT_PURGED
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask

EVIL = '"><img src=x onerror=alert(1)>'
SCRIPT = "/<script>alert(1)</script>"


def numbers(section):
    """The numbers of a section, by their names."""
    told = {}
    for row in section.select("dl.numbers div"):
        for note in row.find_all("small"):
            note.extract()
        told[row.dt.get_text()] = row.dd.get_text().strip()
    return told


def slow(site, seconds=2):
    def answer(environ):
        site.clock.tick(seconds)
        return Response(headers=[HTML, ("Cache-Tag", "posts")], body=b"0123456789")

    site.app.answers(answer)
    return site


@pytest.fixture
def site():
    return Site()


@pytest.fixture
def browser(site):
    return signed_in(site)


# --- every page ---


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_labelled_for_people_who_cannot_see_it(name, site, browser):
    site.warm("/post/1", "/other")
    site.clock.tick(EVERY)
    html = browser.page(name)
    assert html.html["lang"] == "en"
    assert html.title.get_text().strip().endswith("wsgicache")
    assert len(html.find_all("h1")) == len(html.find_all("main")) == 1
    assert html.nav["aria-label"]
    assert html.find("a", class_="skip")["href"] == "#main"
    assert len(html.select("nav [aria-current=page]")) == 1
    for field in html.select("input:not([type=hidden]), select"):
        assert html.find("label", attrs={"for": field["id"]})
    for table in html.find_all("table"):
        assert table.caption
        assert all(head["scope"] == "col" for head in table.thead.find_all("th"))
        assert table.find_parent(class_="scroll")["aria-label"]
    for plot in html.find_all("svg"):
        assert plot["role"] == "img"
        for name in plot["aria-labelledby"].split():
            assert html.find(id=name).get_text()
    ids = [found["id"] for found in html.select("[id]")]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", ["", "pages/routes", "pages/recent"])
def test_a_fragment_is_what_the_page_shows(name, site, browser):
    site.warm()
    page = browser.page(name)
    assert page.main["data-live"]
    fragment = browser.get(f"{name}?fragment=1").body
    assert b"<main" not in fragment
    inner = BeautifulSoup(fragment, "html.parser")
    assert inner.h1.get_text() == page.h1.get_text()


def test_there_is_no_such_page(browser):
    assert "no such page" in browser.page("pages/nothing", 404).main.get_text()


# --- what clients send ---


@pytest.mark.parametrize(
    "name", [*PAGES, f"pages/entries?by=group&text={EVIL}", f"pages/explain?url={SCRIPT}"]
)
def test_adm_04_what_clients_and_the_app_say_is_shown_as_text(name):
    fields = [HTML, ("Cache-Tag", EVIL.replace(",", "")), ("X-Note", "<script>alert(2)</script>")]
    site = Site(Response(headers=fields, body=b"x"))
    site.cache.purge_groups(EVIL)
    site.warm(f"{SCRIPT}/x", "/post/1")
    site.ask(f"/post/1?q={EVIL}")
    site.ask("/\u202e\u0007/x")
    html = signed_in(site).page(name.replace(" ", "%20"))
    assert not html.find_all("img")
    assert [script["src"] for script in html.find_all("script")] == [f"{BASE}static/dashboard.js"]
    assert not [tag for tag in html.find_all(True) if any(key.startswith("on") for key in tag.attrs)]
    assert "\u202e" not in html.get_text()


def test_adm_04_they_are_there_to_be_read():
    site = Site(Response(headers=[HTML, ("Cache-Tag", EVIL), ("X-Note", "<b>")], body=b"x"))
    site.warm(f"{SCRIPT}/x")
    browser = signed_in(site)
    listed = browser.page("pages/entries")
    (row,) = cells(listed.table)
    assert SCRIPT in row[0]
    assert EVIL in row[5]
    entry = browser.page(listed.table.tbody.a["href"].removeprefix(BASE))
    assert ["X-Note", "<b>"] in cells(entry.table)
    assert "/<script>alert(1)</*" in browser.page("pages/routes").get_text()
    assert SCRIPT in browser.page("pages/recent").get_text()


# --- overview ---


def test_the_overview_tells_the_last_hour_and_day():
    site = slow(Site())
    site.ask()  # a miss, which began the list
    for _ in range(3):
        site.ask()
    site.clock.tick(EVERY)
    site.ask("/post/2")
    site.ask("/post/2?x=1")
    html = signed_in(site).page()
    hour, day, since = (html.find(id=name).find_parent("section") for name in ("hour", "day", "since"))
    assert numbers(since)["Requests"] == "6"
    assert numbers(since)["Hit ratio"] == "60.0%"
    assert numbers(since)["Coverage"] == "83.3%"
    assert numbers(since)["Time saved"] == "about 6 s"
    assert numbers(since)["Bytes saved"] == "about 30 B"
    assert numbers(hour) == numbers(day)
    assert numbers(hour)["Time saved"] == "about 6 s"
    assert len(hour.find_all("svg")) == len(day.find_all("svg")) == 4
    assert all(svg.find_all(["rect", "path"]) for svg in hour.find_all("svg"))
    assert "6 s of the app's time" in hour.get_text()
    assert "BYPASS_QUERY" in since.get_text()


def test_what_lies_further_back_is_of_the_day_and_not_of_the_hour():
    site = Site()
    site.warm()
    for _ in range(3):
        site.clock.tick(3600)
        site.ask("/other")
    html = signed_in(site).page()
    hour, day = (numbers(html.find(id=name).find_parent("section"))["Requests"] for name in ("hour", "day"))
    assert int(hour) < int(day)


def test_nothing_was_counted_yet(browser):
    html = browser.page()
    assert html.get_text().count("No request was counted.") == 2
    assert numbers(html.find(id="since").find_parent("section"))["Hit ratio"] == "\N{EN DASH}"


def test_the_numbers_are_of_all_workers():
    server = SharedServer()
    one, two = (Site(store=SharedStore(server)) for _ in range(2))
    one.ask()
    for _ in range(5):
        assert two.ask().is_hit
    two.cache.close()
    told = signed_in(one).page()
    assert numbers(told.find(id="since").find_parent("section"))["Requests"] == "6"
    assert "Counted in all workers" in told.get_text()
    (row,) = cells(signed_in(one).page("pages/routes").table)
    assert row[:3] == ["/post/*", "5", "1"]


def test_a_page_that_another_worker_made_saves_what_it_took_there():
    server = SharedServer()
    one = slow(Site(store=SharedStore(server)))
    two = Site(store=SharedStore(server), clock=one.clock)
    one.ask()
    one.cache.engine.counters()
    for _ in range(5):
        assert two.ask().is_hit
    two.cache.engine.counters()
    (row,) = cells(signed_in(one).page("pages/routes").table)
    assert row[6:] == ["10 s", "50 B"]


def test_with_memory_they_are_of_this_worker(site, browser):
    site.warm()
    assert "Counted in the worker that answers" in browser.page().get_text()


def test_a_store_that_does_not_answer_is_told():
    server = SharedServer()
    site = Site(store=SharedStore(server))
    site.warm()
    browser = signed_in(site)
    token = browser.token
    server.down = True
    html = browser.page()
    assert "The store does not answer." in html.get_text()
    assert numbers(html.find(id="since").find_parent("section"))["Requests"] == "2"
    browser.page("pages/routes")
    browser.page("pages/recent")
    for reply in (
        browser.get("pages/entries"),
        browser.get("pages/rules"),
        browser.post("pages/entries", {"token": token, "what": "prefix", "target": "/"}),
        browser.post("pages/rules", {"token": token, "name": "admin", "enabled": "off"}),
    ):
        assert reply.code == 503
        assert b"The store did not answer" in reply.body


# --- routes ---


def test_routes_and_rules():
    site = slow(Site())
    for _ in range(4):
        site.ask("/post/1")
    site.ask("/post/2?x=1")
    site.ask("/admin/a")
    site.ask("/other")
    site.ask("/other")
    by_route, by_rule = signed_in(site).page("pages/routes").find_all("table")
    told = {row[0]: row[1:] for row in cells(by_route)}
    assert told["/post/*"] == ["3", "1", "75.0%", "1BYPASS_QUERY 1", "2 s", "6 s", "30 B"]
    assert told["/other"][:3] == ["1", "1", "50.0%"]
    assert told["/admin/*"][3] == "1BYPASS_RULE 1"
    told = {row[0]: row[1:] for row in cells(by_rule)}
    assert told["/post/*"][:3] == ["3", "1", "75.0%"]
    assert told["admin"][3] == "1BYPASS_RULE 1"
    assert told["(no rule)"][:2] == ["1", "1"]


def test_a_hit_after_a_switch_is_of_the_rule_in_force(site):
    site.warm("/post/1")
    rule = next(rule for rule in site.cache.rules if rule.pattern == "/post/*")
    rule.enabled = False
    site.warm("/post/1")
    _, by_rule = signed_in(site).page("pages/routes").find_all("table")
    assert {row[0]: row[1:3] for row in cells(by_rule)} == {"/post/*": ["1", "1"], "(no rule)": ["1", "1"]}


def test_pages_that_are_counted_by_view_have_no_table_by_rule():
    flask = pytest.importorskip("flask")
    from wsgicache.flask import SiteCache

    app = flask.Flask("views")
    app.add_url_rule("/post/<int:number>", "post", lambda number: "text")
    cache = SiteCache(app, admin_path="/.cache", dashboard=True, secret=SECRET)
    for _ in range(3):
        ask(cache.pages, "/post/1")
    html = BeautifulSoup(ask(cache.pages, f"{BASE}pages/routes", headers=SENT).body, "html.parser")
    assert "not by rule" in html.get_text()
    assert cells(html.table)[0][:3] == ["post", "2", "1"]


# --- entries ---


def urls(html):
    return [row[0].partition(" ")[0] for row in cells(html.table)]


@pytest.mark.parametrize(
    ("by", "text", "found"),
    [
        ("prefix", "", {"/post/1", "/post/2", "/home", "/café"}),
        ("prefix", "/post", {"/post/1", "/post/2"}),
        ("prefix", "/post/2", {"/post/2"}),
        ("prefix", "/caf%C3%A9", {"/café"}),
        ("prefix", "http://example.com/h", {"/home"}),
        ("prefix", "https://example.com/h", set()),
        ("group", "posts", {"/post/1", "/post/2", "/home", "/café"}),
        ("group", "post", set()),
        ("nothing", "/home", {"/home"}),
    ],
)
def test_search(by, text, found, site, browser):
    site.warm("/post/1", "/post/2", "/home", "/caf%C3%A9")
    html = browser.page(f"pages/entries?by={by}&text={text}")
    assert {url.removeprefix("http://example.com") for url in urls(html)} - {"Nothing"} == found


def test_a_search_for_what_is_no_path(browser):
    assert "not a URL of this site" in browser.page("pages/entries?text=posts").get_text()


def test_a_search_shows_a_page_at_a_time(site, browser):
    for number in range(entries.ON_A_PAGE + 5):
        site.ask(f"/post/{number}")
    first = browser.page("pages/entries?text=/post/")
    link = first.find("a", rel="next")
    second = browser.page(link["href"].removeprefix(BASE))
    assert (len(urls(first)), len(urls(second))) == (entries.ON_A_PAGE, 5)
    assert not set(urls(first)) & set(urls(second))
    assert second.find("a", rel="prev")
    assert not second.find("a", rel="next")


@pytest.mark.parametrize("page", ["0", "-1", "x", "", "9" * 30, "²"])
def test_a_page_that_there_is_not(page, browser):
    browser.page(f"pages/entries?page={page}")


def test_a_search_looks_at_only_so_much(site, browser, monkeypatch):
    monkeypatch.setattr(entries, "LOOKED_AT", 3)
    site.warm("/a", "/b", "/c", "/d")
    html = browser.page("pages/entries")
    assert len(urls(html)) == 3
    assert "more than one search looks at" in html.get_text()


class Unlistable(SharedStore):
    def scan(self, prefix=""):
        raise NotImplementedError("no list")


def test_a_store_that_cannot_list_says_so_and_purges_all_the_same():
    site = Site(store=Unlistable(SharedServer()))
    site.warm()
    browser = signed_in(site)
    assert "cannot list what it holds" in browser.page("pages/entries").get_text()
    reply = browser.purge("prefix", "/post")
    assert "purged=-1" in reply.field("location")
    assert not site.ask().is_hit
    assert "Purged." in browser.page(reply.field("location").removeprefix(BASE)).get_text()


def test_one_entry_closely():
    site = Site(Response(headers=[HTML, ("Vary", "Accept-Language"), ("ETag", '"e"')], body=b"0123456789"))
    site.ask(headers={"Accept-Language": "de"})
    site.clock.tick(40)
    browser = signed_in(site)
    (row,) = cells(browser.page("pages/entries").table)
    assert row[1:5] == ["200", "fresh", "1 min", "10 B"]
    assert "accept-language: de" in row[0]
    html = browser.page(browser.page("pages/entries").table.tbody.a["href"].removeprefix(BASE))
    facts = dict(
        zip(
            [dt.get_text() for dt in html.find_all("dt")],
            [dd.get_text() for dd in html.find_all("dd")],
            strict=True,
        )
    )
    assert (facts["Age"], facts["Left"], facts["Lifetime"]) == ("40 s", "1 min", "1.67 min, from rule")
    assert facts["Variant by accept-language"] == "de"
    assert ["ETag", '"e"'] in cells(html.table)


@pytest.mark.parametrize("name", ["", "x", "!!!", "eHg=", "L3AAAGgAaHR0cA==", "é"])
def test_an_entry_that_there_is_not(name, site, browser):
    site.warm()
    assert "not stored any more" in browser.page(f"pages/entry?id={name}", 404).get_text()


# --- purging ---


@pytest.mark.parametrize(
    ("what", "target", "gone"),
    [
        ("url", "http://example.com/post/1", {"/post/1"}),
        ("url", "/post/1", {"/post/1"}),
        ("prefix", "/post/", {"/post/1", "/post/2"}),
        ("prefix", "/pos", set()),
        ("group", "posts", {"/post/1", "/post/2", "/home"}),
        ("group", "nobody", set()),
    ],
)
def test_what_is_purged(what, target, gone, site, browser):
    pages = ("/post/1", "/post/2", "/home")
    site.warm(*pages)
    reply = browser.purge(what, target, by="prefix", text="/p", page="2")
    assert reply.code == 303
    place = reply.field("location").removeprefix(BASE)
    assert place == f"pages/entries?by=prefix&text=%2Fp&page=2&purged={len(gone)}"
    told = " ".join(browser.page(place).find(role="status").get_text().split())
    assert told == {0: "Purged, but nothing was stored for it.", 1: "Purged: 1 entry."}.get(
        len(gone), f"Purged: {len(gone)} entries."
    )
    assert {page for page in pages if not site.ask(page).is_hit} == gone


def test_a_soft_purge(site, browser):
    site.warm()
    reply = browser.purge("url", "/post/1", soft="on")
    assert reply.code == 303
    back = browser.page(reply.field("location").removeprefix(BASE))
    assert back.find(role="status").get_text(strip=True) == "Marked as stale: 1 entry."
    (row,) = cells(browser.page("pages/entries").table)
    assert row[2] == SOFT_PURGED
    assert site.ask().detail == Reason.STALE_PURGED.name


def test_a_store_without_a_bound_is_not_said_to_have_no_room():
    class Unbounded(SharedStore):
        def stats(self):
            return {**super().stats(), "max_bytes": 0}

    browser = signed_in(Site(store=Unbounded(SharedServer())))
    assert re.search(r"Max bytes\s*no limit", browser.page().get_text())


@pytest.mark.parametrize(
    ("given", "multiprocess", "alone"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"store": SharedStore(SharedServer())}, True, False),
    ],
)
def test_each_page_says_when_other_workers_know_nothing_of_it(given, multiprocess, alone):
    browser = signed_in(Site(**given))
    for name in PAGES:
        text = browser.get(name, **{"wsgi.multiprocess": multiprocess}).body.decode()
        assert ("One of several workers answers" in text) is alone, name


def test_what_is_no_url_is_not_offered_to_be_purged(site, browser):
    site.warm()
    page = browser.page("pages/entries?by=prefix&text=post")
    assert "give a path (/post/1)" in page.get_text()
    assert not page.main.find_all("form", method="post")
    assert browser.page("pages/entries?by=prefix&text=/post").main.find_all("form", method="post")


def test_the_buttons_of_the_list_purge_what_they_stand_by(site, browser):
    site.warm("/post/1", "/caf%C3%A9", f"{SCRIPT}/x")
    for _ in range(3):
        form = browser.page("pages/entries").table.tbody.form
        fields = {field["name"]: field["value"] for field in form.find_all("input")}
        reply = browser.post(form["action"].removeprefix(BASE), fields)
        assert reply.field("location").endswith("purged=1")
    assert "Nothing is stored" in browser.page("pages/entries").get_text()


@pytest.mark.parametrize(
    ("what", "target"), [("url", "posts"), ("url", ""), ("prefix", "/a?b"), ("all", "/"), ("", "/post/1")]
)
def test_a_purge_that_is_none(what, target, site, browser):
    site.warm()
    assert browser.purge(what, target).code == 400
    assert site.ask().is_hit


def test_where_a_store_holds_much_nobody_counts(site, browser, monkeypatch):
    monkeypatch.setattr("wsgicache.admin.dashboard.COUNTED", 0)
    site.warm()
    assert browser.purge("url", "/post/1").field("location").endswith("purged=-1")


# --- rules ---


def test_rules_are_switched(site, browser):
    assert site.ask("/admin/x").detail == Reason.BYPASS_RULE.name
    table = browser.page("pages/rules").table
    first, second = cells(table)
    assert first[:4] == ["admin", "/admin/*", "bypass", "on"]
    assert second[1:] == ["/post/*", "ttl=100", "on", "give it a name to switch it"]
    form = table.form
    fields = {field["name"]: field["value"] for field in form.find_all("input")}
    fields |= {form.button["name"]: form.button["value"]}
    reply = browser.post(form["action"].removeprefix(BASE), fields)
    assert (reply.code, reply.field("location")) == (303, f"{BASE}pages/rules")
    assert cells(browser.page("pages/rules").table)[0][3] == "off"
    assert site.ask("/admin/x").detail != Reason.BYPASS_RULE.name


@pytest.mark.parametrize(
    "fields", [{"name": "amdin", "enabled": "off"}, {"name": "admin"}, {"name": "admin", "enabled": "maybe"}]
)
def test_rules_that_are_not_switched(fields, site, browser):
    assert browser.post("pages/rules", {"token": browser.token, **fields}).code == 400
    assert site.cache.rules["admin"].enabled is True


def test_a_rule_that_another_worker_switched_is_shown():
    server = SharedServer()
    one, two = (Site(store=SharedStore(server)) for _ in range(2))
    for each in (one, two):
        each.ask()
    one.cache.rules.disable("admin")
    assert cells(signed_in(two).page("pages/rules").table)[0][3] == "off"


@pytest.mark.parametrize(
    "line",
    [
        "/x query=key ignore_query=utm_*,gclid",
        "/x ttl=60 statuses=200,404:10",
        "/x methods=GET,HEAD enabled=false",
        "/x ttl=60 override cookies=ignore vary=accept,x-a",
    ],
)
def test_options_are_shown_as_an_ini_has_them(line):
    site = Site(rules=[Rule.parse("it", line)])
    (row,) = cells(signed_in(site).page("pages/rules").table)
    assert set(f"{row[1]} {row[2]}".split()) == set(line.split())
    assert str(Rule.parse("it", f"{row[1]} {row[2]}")) == str(Rule.parse("it", line))


def test_there_are_no_rules():
    assert "There are no rules." in signed_in(Site(rules=[])).page("pages/rules").get_text()


# --- decisions ---


def test_the_last_decisions_the_newest_first(site, browser):
    site.ask("/post/1")
    site.ask("/post/1?x=1")
    site.ask("/admin/x")
    site.ask("/post/1", method="POST")
    rows = cells(browser.page("pages/recent").table)
    assert [row[1] for row in rows] == ["POST", "GET", "GET", "GET"]
    decided = [row[3].partition(" ")[0] for row in rows]
    assert decided == ["METHOD_UNSAFE", "BYPASS_RULE", "BYPASS_QUERY", "URI_MISS"]
    assert "STORED" in rows[3][3]
    assert "For a hit: Disable the rule" in rows[1][3]
    assert rows[1][6] == "admin"
    assert rows[3][2] == "http://example.com/post/1"
    assert rows[2][2] == "/post/1?x=1", "what bypasses has no key, but a query"


def test_only_so_many_are_kept(site, browser):
    for number in range(RECENT + 20):
        site.ask(f"/post/{number}")
    assert len(cells(browser.page("pages/recent").table)) == RECENT


def test_nothing_is_kept_without_the_dashboard():
    cache = WSGICache(ScriptedApp())
    assert cache.engine.observer.recent is None
    assert cache.engine.observer.by_name is None
    assert cache.engine.counts is None


def test_a_decision_leads_to_what_would_be_now(site, browser):
    site.ask("/admin/x")
    link = browser.page("pages/recent").table.tbody.a["href"]
    html = browser.page(link.removeprefix(BASE))
    assert "BYPASS_RULE" in html.main.get_text()
    assert "Disable the rule" in html.main.get_text()


@pytest.mark.parametrize("url", ["/post/1?x=1&y=%26", "/caf%C3%A9?x=%C3%A9", "/a%25b?x", "/admin/%3Cb%3E"])
def test_a_bypass_leads_to_its_own_path_and_query(url, site, browser):
    reply = site.ask(url)
    link = browser.page("pages/recent").table.tbody.a["href"]
    html = browser.page(link.removeprefix(BASE))
    assert html.find("input", id="url")["value"] == url
    assert reply.detail in html.main.get_text()


@pytest.mark.parametrize("method", ["POST", "PROPFIND", "HEAD"])
def test_a_decision_about_another_method_leads_to_that(method, site, browser):
    site.ask("/post/1", method=method)
    link = browser.page("pages/recent").table.tbody.a["href"]
    html = browser.page(link.removeprefix(BASE))
    assert html.find("option", selected=True).get_text() == method
    assert f"{method} http://example.com/post/1" in html.main.get_text()


@pytest.mark.parametrize(
    ("answers", "method"),
    [({}, "GET"), ({}, "HEAD"), ({"enabled": False}, "PUT"), ({"profile": "rfc"}, "GET")],
)
def test_every_way_of_a_request_tells_its_method(answers, method):
    site = Site(**answers)
    for headers in ({}, {"Cache-Control": "only-if-cached"}, {"Cookie": "a=b"}, {"Range": "bytes=0-1"}):
        site.ask("/post/1", method=method, headers=headers)
        site.ask("/post/2", method=method, headers=headers)
        site.clock.tick(200)
    assert {decision.outcome.method for decision in site.cache.engine.observer.recent} == {method}


def test_explain(site, browser):
    site.warm()
    text = " ".join(browser.page("pages/explain?url=/post/1").main.get_text().split())
    assert "would get a hit" in text
    assert "100 s lifetime, from rule, less 0.0 s age: 100.0 s left" in text
    assert "would get no hit" in browser.page("pages/explain?url=http://example.com/admin/x").get_text()
    assert "not a URL" in browser.page("pages/explain?url=x").get_text()
    assert site.app.calls == 1


def test_explain_without_a_host_that_can_be_one():
    reply = ask(Site().cache, f"{BASE}pages/explain?url=/post/1", headers={**SENT, "Host": "a b"})
    assert reply.code in (200, 400)


def test_two_sites_of_one_process_have_each_their_own_numbers():
    one, two = Site(namespace="one"), Site(namespace="two")
    one.warm()
    told = [numbers(signed_in(each).page().find(id="since").find_parent("section")) for each in (one, two)]
    assert [each["Requests"] for each in told] == ["2", "0"]


def test_lmdb_lists_what_it_holds(tmp_path):
    pytest.importorskip("lmdb")
    site = Site(store=f"lmdb://{tmp_path}/cache")
    site.warm("/post/1", "/home")
    browser = signed_in(site)
    assert len(urls(browser.page("pages/entries"))) == 2
    assert browser.purge("prefix", "/post").field("location").endswith("purged=1")
    assert re.search("entries", browser.page().find(id="store").find_parent("section").get_text(), re.I)
    site.cache.close()


def test_signing_in_shows_nothing_of_the_browser_to_others(site):
    assert Browser(site.cache).get("pages/entries").code == 403
