"""A Flask site as people write it: a session read before every request, and no cache settings."""

from itertools import count

import pytest
from example_helpers import decision, is_hit, new_browser, stored_miss
from flask import Flask, g, redirect, session

from wsgicache import WSGICache


@pytest.fixture
def app():
    app = Flask("fresh")
    app.secret_key = "not a secret in a test"
    renders = count(1)

    @app.before_request
    def who():
        g.name = session.get("name", "visitor")

    @app.get("/")
    def home():
        return f"Hello {g.name}, this is rendering {next(renders)}"

    @app.post("/login/<name>")
    def login(name):
        session["name"] = name
        return redirect("/", 303)

    @app.post("/logout")
    def logout():
        session.clear()
        return redirect("/", 303)

    @app.get("/basket")
    def basket():
        session["basket"] = "started"
        return "Your basket"

    app.wsgi_app = WSGICache(app.wsgi_app)
    return app


@pytest.fixture
def browser(app):
    """Makes browsers with cookie jars of their own."""
    return lambda: new_browser(app)


def test_anonymous_visitors_hit_although_every_page_varies_on_cookie(browser):
    first = browser().get("/")
    second = browser().get("/")
    assert first.headers["Vary"] == "Cookie"
    assert decision(first) == stored_miss()
    assert is_hit(decision(second))
    assert second.text == first.text == "Hello visitor, this is rendering 1"


def test_a_logged_in_visitor_never_hits_and_is_never_stored(browser):
    ines, visitor = browser(), browser()
    ines.post("/login/ines")
    own = [ines.get("/") for _ in range(3)]
    assert [page.text for page in own] == [f"Hello ines, this is rendering {n}" for n in (1, 2, 3)]
    assert {decision(page).get("detail") for page in own} == {"BYPASS_COOKIE"}
    assert visitor.get("/").text == "Hello visitor, this is rendering 4"


def test_a_logged_in_visitor_does_not_get_the_stored_page(browser):
    ines, visitor = browser(), browser()
    visitor.get("/")
    ines.post("/login/ines")
    visitor.get("/")
    assert ines.get("/").text.startswith("Hello ines")
    assert visitor.get("/").text.startswith("Hello visitor")
    assert is_hit(decision(visitor.get("/")))


def test_after_signing_out_a_visitor_hits_again(browser):
    ines, visitor = browser(), browser()
    ines.post("/login/ines")
    ines.post("/logout")
    visitor.get("/")
    page = ines.get("/")
    assert is_hit(decision(page))
    assert page.text.startswith("Hello visitor")


def test_a_page_that_starts_a_session_is_not_stored(browser):
    first = browser().get("/basket")
    second = browser().get("/basket")
    assert decision(first)["detail"] == "NOT_STORED_SET_COOKIE"
    for page in (first, second):
        assert decision(page)["fwd"] == "uri-miss"
        assert "stored" not in decision(page)
        assert "session=" in page.headers["Set-Cookie"]


def test_analytics_cookies_do_not_count(browser):
    browser().get("/")
    page = browser().get("/", headers={"Cookie": "_ga=GA1.1.5.6; _gid=GA1.1.7"})
    assert is_hit(decision(page))


def test_an_unknown_cookie_counts(browser):
    browser().get("/")
    page = browser().get("/", headers={"Cookie": "consent=all"})
    assert decision(page)["detail"] == "BYPASS_COOKIE"
