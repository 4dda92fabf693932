"""The example site, opened from its ini file in this process."""

import pytest
from example_helpers import ROOT, SITE_INI, decision, is_hit, stored_miss

SECTIONS = SITE_INI.read_text()
NEW = {"title": "Closed for the flood", "summary": "Until Friday.", "body": "Wet.\n\nVery wet."}


@pytest.fixture
def quick_ini(tmp_path):
    """The site's ini with a report that is not slow."""
    ini = tmp_path / "site.ini"
    ini.write_text(SECTIONS.replace("report_seconds = 0.4", "report_seconds = 0"))
    return ini


@pytest.fixture
def browser(open_site, quick_ini):
    return open_site(quick_ini)


@pytest.fixture
def editor(browser):
    """A browser that is signed in."""
    signed_in = browser()
    form = signed_in.get("/login").form
    form["name"], form["password"] = "editor", "tidewater"
    assert form.submit().location.endswith("/admin/")
    return signed_in


@pytest.mark.parametrize("path", ["/", "/posts/tide-tables", "/report", "/search", "/login"])
def test_a_page_is_stored_and_then_hits(browser, path):
    first = browser().get(path)
    second = browser().get(path)
    assert decision(first) == stored_miss()
    assert is_hit(decision(second))
    assert second.body == first.body


def test_a_footer_says_when_the_page_was_rendered(browser):
    page = browser().get("/")
    assert page.html.footer.time["datetime"].endswith("+00:00")


def test_every_page_is_labelled_for_people_who_cannot_see_it(browser):
    for path in ("/", "/posts/tide-tables", "/report", "/search?q=tide", "/login"):
        html = browser().get(path).html
        assert html.html["lang"] == "en"
        assert len(html.find_all("h1")) == len(html.find_all("main")) == 1
        for field in html.find_all(["input", "textarea"]):
            assert html.find("label", attrs={"for": field["id"]})


def test_a_search_is_keyed_by_its_query(browser):
    tide = browser().get("/search?q=tide")
    repair = browser().get("/search?q=repair")
    assert decision(tide) == decision(repair) == stored_miss()
    assert "Tide tables are back" in tide
    assert "Tide tables are back" not in repair
    assert browser().get("/search?q=tide").body == tide.body


@pytest.mark.parametrize("extra", ["utm_source=mail", "gclid=7", "utm_medium=a&utm_term=b"])
def test_campaign_parameters_do_not_count_in_a_search(browser, extra):
    first = browser().get("/search?q=tide")
    second = browser().get(f"/search?q=tide&{extra}")
    assert is_hit(decision(second))
    assert second.body == first.body


def test_a_query_elsewhere_bypasses(browser):
    browser().get("/")
    assert decision(browser().get("/?utm_source=mail"))["detail"] == "BYPASS_QUERY"


def test_static_files_are_kept_for_a_day(browser):
    first = browser().get("/static/style.css")
    second = browser().get("/static/style.css")
    assert first.headers["Cache-Control"] == "no-cache"
    assert decision(first) == stored_miss(86400)
    assert is_hit(decision(second), 86400)
    assert second.body == first.body


@pytest.mark.parametrize("path", ["/admin", "/admin/", "/admin/posts/tide-tables"])
def test_the_admin_area_is_never_stored(browser, editor, path):
    for visitor in (browser(), editor, browser()):
        page = visitor.get(path)
        assert decision(page)["detail"] == "BYPASS_RULE"


def test_an_editor_always_sees_own_pages(browser, editor):
    anonymous = browser().get("/")
    own = editor.get("/")
    assert "Sign in" in anonymous
    assert "Signed in as editor" in own
    assert decision(own)["detail"] == "BYPASS_COOKIE"
    assert browser().get("/").body == anonymous.body


def test_signing_out_makes_a_visitor_of_the_editor(browser, editor):
    form = editor.get("/").form
    assert form.action == "/logout"
    form.submit()
    stored = browser().get("/")
    page = editor.get("/")
    assert is_hit(decision(page))
    assert page.body == stored.body


def test_a_wrong_password_is_refused_and_not_stored(browser):
    page = browser().post("/login", {"name": "editor", "password": "guess"}, status=401)
    assert "stored" not in decision(page)


def test_saving_a_post_purges_every_page_that_shows_it(browser, editor):
    paths = ["/", "/posts/tide-tables", "/search?q=flood"]
    for path in paths:
        assert NEW["title"] not in browser().get(path)
        assert is_hit(decision(browser().get(path)))
    form = editor.get("/admin/posts/tide-tables").forms[0]
    for name, text in NEW.items():
        form[name] = text
    assert form.submit().location.endswith("/posts/tide-tables")
    for path in paths:
        assert NEW["title"] in browser().get(path)
        assert is_hit(decision(browser().get(path)))


def test_saving_a_post_leaves_other_pages_stored(browser, editor):
    before = browser().get("/report")
    editor.post("/admin/posts/tide-tables", NEW)
    after = browser().get("/report")
    assert is_hit(decision(after))
    assert after.body == before.body


def test_an_empty_text_is_refused(browser, editor):
    editor.post("/admin/posts/tide-tables", NEW | {"body": " "}, status=400)
    assert "The printed tide tables" in browser().get("/posts/tide-tables")


def test_a_post_that_does_not_exist_is_not_stored(browser):
    for _ in range(2):
        page = browser().get("/posts/nothing", status=404)
        assert "stored" not in decision(page)


def test_the_site_starts_a_second_time_with_what_was_saved(open_site, quick_ini, editor):
    editor.post("/admin/posts/tide-tables", NEW)
    again = open_site(quick_ini)
    assert NEW["title"] in again().get("/")


def test_the_dashboard_has_a_secret_that_was_made_here(browser, tmp_path):
    file = tmp_path / "instance" / "dashboard-secret"
    page = browser()
    assert page.get("/.cache/", status=403).form["secret"].attrs["type"] == "password"
    assert file.stat().st_mode & 0o077 == 0
    secret = file.read_text()
    assert len(secret) == 64
    assert secret not in SECTIONS
    form = page.get("/.cache/", status=403).form
    form["secret"] = secret
    overview = form.submit(headers={"Origin": "http://localhost:80"}).follow()
    assert overview.html.h1.get_text() == "Overview"
    assert "admin" in page.get("/.cache/pages/rules").html.table.get_text()


def test_each_site_has_another_secret(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from examples.flask_site.app import kept_secret

    one, other = (kept_secret(tmp_path / name, "dashboard-secret") for name in ("one", "other"))
    assert one != other
    assert one == kept_secret(tmp_path / "one", "dashboard-secret")


def test_the_same_rules_as_a_filter_app(open_site, tmp_path):
    ini = tmp_path / "filter-app.ini"
    ini.write_text(
        SECTIONS.replace("[pipeline:main]\npipeline = cache site\n", "").replace(
            "[filter:cache]", "[filter-app:main]\nnext = site"
        )
    )
    browser = open_site(ini)
    browser().get("/")
    assert is_hit(decision(browser().get("/")))
    assert decision(browser().get("/admin/"))["detail"] == "BYPASS_RULE"


def test_the_site_runs_without_a_cache(open_site, tmp_path):
    ini = tmp_path / "bare.ini"
    ini.write_text(SECTIONS.replace("pipeline = cache site", "pipeline = site"))
    signed_in = open_site(ini)()
    signed_in.post("/login", {"name": "editor", "password": "tidewater"})
    signed_in.post("/admin/posts/tide-tables", NEW)
    page = signed_in.get("/")
    assert NEW["title"] in page
    assert "Cache-Status" not in page.headers
