"""The dashboard in a real browser, over sockets.

Needs Debian's `chromium` (apt-get install chromium) and the Python package `playwright`, which is in the
extra `test`; nothing else is downloaded.
"""

import re
import shutil
import threading
from contextlib import contextmanager
from itertools import count

import pytest
from dashboard_helpers import BASE, HTML, SECRET
from werkzeug.serving import WSGIRequestHandler, make_server

from wsgicache import Reason, Rule, WSGICache
from wsgicache.testing import Response, ScriptedApp

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright (in the extra `test`)")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="apt-get install chromium")

QUIET = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
EVIL = '"><img src=/evil onerror=alert(1)>'
SCRIPT = "/<script>alert(1)</script>/x"
ELSEWHERE = b"""<!doctype html><title>another site</title>
<form method="post" action="%s"><input name="secret" value="%s"><input name="token" value="%s">
<input name="what" value="prefix"><input name="target" value="/"><button>Win</button></form>"""


class Quiet(WSGIRequestHandler):
    def log(self, *args):
        """Say nothing."""


@contextmanager
def served(app):
    """The address of an app that is served while this lasts."""
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def app():
    return ScriptedApp(
        Response(headers=[HTML, ("Cache-Tag", EVIL), ("Cache-Tag", "posts")], body=b"x" * 3000)
    )


@pytest.fixture
def cache(app):
    cache = WSGICache(
        app,
        admin_path="/.cache",
        dashboard=True,
        secret=SECRET,
        rules=[Rule("/a/*", bypass=True, name="admin")],
    )
    yield cache
    cache.close()


@pytest.fixture
def site(cache):
    with served(cache) as address:
        yield address


@pytest.fixture
def page(chromium, site):
    """A page of a browser with nothing in it; whatever it complains of fails the test."""
    yield from opened(chromium, site)


@pytest.fixture
def plain_page(chromium, site):
    """The same with JavaScript off."""
    yield from opened(chromium, site, java_script_enabled=False)


def opened(chromium, site, **options):
    context = chromium.new_context(base_url=site, **options)
    context.set_default_timeout(15_000)
    page = context.new_page()
    said = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    yield page
    harmless = ("status of 403", "Autofocus processing was blocked")  # the latter where a key came first
    assert not [text for text in said if not any(known in text for known in harmless)]
    context.close()


def sign_in(page, secret=SECRET):
    page.goto(BASE)
    page.get_by_label("Secret of this cache").fill(secret)
    page.get_by_role("button", name="Sign in").click()


def warm(page, *paths):
    for path in paths:
        for _ in range(2):
            page.request.get(path)


def test_a_wrong_secret_is_refused_and_the_right_one_shows_plots(page):
    warm(page, "/post/1")
    sign_in(page, "not the secret")
    assert page.get_by_role("alert").inner_text() == "That is not the secret."
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    plot = page.get_by_role("img", name="Requests a minute").first
    plot.wait_for()
    box = plot.bounding_box()
    assert box["width"] > 200
    assert box["height"] > 80
    bar = plot.locator("rect.series-0").first
    assert bar.bounding_box()["height"] > 1
    assert bar.evaluate("bar => getComputedStyle(bar).fill") == "rgb(11, 110, 127)", (
        "the style sheet is in force"
    )
    cookie = next(each for each in page.context.cookies() if each["name"] == "wsgicache-session")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", BASE)
    assert SECRET not in page.content()


@pytest.mark.parametrize("scripts", ["page", "plain_page"])
def test_a_rule_is_switched_and_an_entry_purged(scripts, request, cache):
    page = request.getfixturevalue(scripts)
    warm(page, "/post/1", "/home")
    sign_in(page)
    page.get_by_role("link", name="Rules").click()
    page.get_by_role("button", name="Switch the rule admin off").click()
    page.get_by_role("button", name="Switch the rule admin on").wait_for()
    assert cache.rules["admin"].enabled is False
    page.get_by_role("link", name="Entries").click()
    page.get_by_label("Text, such as").fill("/post/")
    page.get_by_role("button", name="Search").click()
    playwright.expect(page.get_by_role("rowheader")).to_have_count(1)
    page.get_by_role("button", name="Purge http://").click()
    assert page.get_by_role("status").inner_text() == "Purged: 1 entry."
    assert not cache.explain(f"{page.url.partition('/.cache')[0]}/post/1").hit
    assert cache.explain(f"{page.url.partition('/.cache')[0]}/home").hit
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("Secret of this cache").wait_for()
    page.goto(f"{BASE}pages/rules")
    page.get_by_label("Secret of this cache").wait_for()


def test_adm_04_scripts_in_paths_and_groups_are_text(page):
    warm(page, SCRIPT, "/post/1?q=<img/src=/evil>")
    sign_in(page)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    for name in ("", "pages/routes", "pages/entries", "pages/recent"):
        page.goto(f"{BASE}{name}")
        assert page.locator("main img, main script").count() == 0
    page.goto(f"{BASE}pages/entries")
    page.get_by_role("link", name=SCRIPT).click()
    page.get_by_role("heading", name="Entry").wait_for()
    assert EVIL in page.get_by_role("main").inner_text()
    assert not [url for url in asked if url.endswith("/evil")]


def test_adm_04_the_policy_stops_what_would_come_through(chromium, site):
    context = chromium.new_context(base_url=site)
    page = context.new_page()
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    ran = page.evaluate(
        """() => new Promise((done) => {
            const script = document.createElement("script");
            script.textContent = "window.ran = true";
            document.addEventListener("securitypolicyviolation", () => done(window.ran === true));
            document.body.append(script);
        })"""
    )
    assert ran is False
    context.close()


@pytest.mark.parametrize("action", ["login", "pages/entries", "logout"])
def test_adm_03_a_form_of_another_site_changes_nothing(action, chromium, site, cache):
    context = chromium.new_context(base_url=site)
    page = context.new_page()
    warm(page, "/post/1")
    sign_in(page)
    page.goto(f"{BASE}pages/rules")
    token = page.locator("input[name=token]").first.get_attribute("value").encode()
    cookies = context.cookies()

    def another(environ, start_response):
        start_response("200 OK", [HTML])
        return [ELSEWHERE % (f"{site}{BASE}{action}".encode(), SECRET.encode(), token)]

    with served(another) as elsewhere:
        for address in (elsewhere, elsewhere.replace("127.0.0.1", "localhost")):
            page.goto(address)
            with page.expect_response(f"{site}/**") as answered:
                page.get_by_role("button", name="Win").click()
            assert answered.value.status == 403
    assert cache.explain(f"{site}/post/1").hit
    assert context.cookies() == cookies
    page.goto(BASE)
    page.get_by_role("heading", name="Overview").wait_for()
    context.close()


def test_it_keeps_itself_up_to_date_unless_it_is_paused(page):
    page.clock.install()
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    number = page.locator("#since ~ dl dd").nth(2)
    assert number.inner_text() == "0"
    page.locator("#hour").wait_for()
    warm(page, "/post/1", "/post/2")
    page.clock.run_for(6_000)
    playwright.expect(number).to_have_text("4")
    page.get_by_role("button", name="Pause updates").click()
    warm(page, "/post/3")
    page.clock.run_for(60_000)
    playwright.expect(number).to_have_text("4")
    page.get_by_role("button", name="Go on updating").click()
    page.clock.run_for(6_000)
    playwright.expect(number).to_have_text("6")


def test_whoever_reads_a_decision_keeps_it_open(page):
    warm(page, "/post/1")
    page.clock.install()
    sign_in(page)
    page.get_by_role("link", name="Decisions").click()
    page.locator("summary", has_text="URI_MISS").click()
    page.get_by_role("heading", name="Recent decisions").click()  # the focus goes elsewhere
    warm(page, "/post/2")
    with page.expect_response("**fragment=1"):
        page.clock.run_for(6_000)
    playwright.expect(page.locator("tbody tr")).to_have_count(4)
    assert page.locator("details[open]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_shows_all_of_it(scheme, page):
    warm(page, "/post/1", f"/{'long' * 60}/x", "/a/b")
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    for name in (
        "",
        "pages/routes",
        "pages/entries",
        "pages/rules",
        "pages/recent",
        "pages/explain?url=/post/1",
    ):
        page.goto(f"{BASE}{name}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 360, f"{name} is {wide} wide"


def test_a_page_can_be_purged_with_a_thumb(page, cache):
    warm(page, "/post/1", f"/{'long' * 60}/x")
    page.set_viewport_size({"width": 360, "height": 740})
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    page.goto(f"{BASE}pages/entries")
    for name in ("Purge http", "Mark as stale: http"):
        box = page.get_by_role("button", name=name).first.bounding_box()
        assert box["x"] + box["width"] <= 360, f"{name} is out of sight"


@pytest.mark.parametrize("width", [360, 1280])
def test_huge_numbers_and_long_texts_keep_their_place(width, page, cache):
    """Numbers stay in their boxes, short words in one piece, and no column is squeezed to a few letters."""
    warm(page, "/post/1", f"/{'long' * 60}/x")
    for reason in (Reason.HIT, Reason.URI_MISS):
        cache.engine.observer.reasons[reason].numbers = count(98_765_432_109_876)
    page.set_viewport_size({"width": width, "height": 740})
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.goto(f"{BASE}pages/recent")
    line = "each => Math.round(each.getClientRects().length)"
    assert page.locator("tbody time").first.evaluate(line) == 1
    assert page.locator("summary code").first.evaluate(line) == 1
    for name in ("pages/recent", "pages/entries", "pages/rules", "pages/routes"):
        page.goto(f"{BASE}{name}")
        narrowest = page.evaluate(
            """Math.min(...Array.from(
                document.querySelectorAll("tbody th, td.text:not(.short)")
            ).filter((each) => each.checkVisibility()).map((each) => each.offsetWidth))"""
        )
        assert narrowest >= 80, f"{name}: {narrowest}"


def test_everything_that_can_be_used_has_a_name_of_its_own(page):
    warm(page, "/post/1", "/home")
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    for name in (
        "",
        "pages/routes",
        "pages/entries?text=/",
        "pages/rules",
        "pages/recent",
        "pages/explain?url=/",
    ):
        page.goto(f"{BASE}{name}")
        snapshot = page.locator("body").aria_snapshot()
        for role in (
            "button",
            "link",
            "textbox",
            "combobox",
            "region",
            "table",
            "img",
            "navigation",
            "heading",
        ):
            assert not re.search(rf"^\s*- {role}(:|$)", snapshot, re.M), f"{name}: a {role} without a name"
        buttons = re.findall(r'- button "(.*)"', snapshot)
        assert len(set(buttons)) == len(buttons), f"{name}: {buttons}"
        assert page.title().endswith(" wsgicache")
        assert page.locator("h1").count() == 1


CONTRAST = """() => {
  const channel = (n) => (n /= 255) <= 0.04045 ? n / 12.92 : ((n + 0.055) / 1.055) ** 2.4;
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => 0.2126 * channel(c[0]) + 0.7152 * channel(c[1]) + 0.0722 * channel(c[2]);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = numbers(getComputedStyle(node).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    const ink = numbers(node instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(ink), light(behind(node))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${walker.currentNode.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_told_from_what_is_behind_it(scheme, page):
    warm(page, "/post/1", "/a/b")
    page.emulate_media(color_scheme=scheme)
    page.goto(BASE)
    assert page.evaluate(CONTRAST) == []
    sign_in(page, "wrong")
    page.get_by_role("alert").wait_for()
    page.wait_for_load_state()  # the style sheet too
    assert page.evaluate(CONTRAST) == []
    sign_in(page)
    page.get_by_role("heading", name="Overview").wait_for()
    for name in ("", "pages/routes", "pages/entries?purged=1", "pages/rules", "pages/recent"):
        page.goto(f"{BASE}{name}")
        assert page.evaluate(CONTRAST) == []


def test_the_keyboard_is_enough(page, cache):
    page.goto(BASE)
    playwright.expect(page.get_by_label("Secret of this cache")).to_be_focused()
    page.keyboard.type(SECRET)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Overview").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(4):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Rules"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Rules").wait_for()
    button = page.get_by_role("button", name="Switch the rule admin off")
    button.focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Switch the rule admin on").wait_for()
    assert cache.rules["admin"].enabled is False
