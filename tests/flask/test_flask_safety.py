"""What a cached view answers and keeps by default, and how to get Flask-Caching's behaviour back."""

import flask
import pytest
from flask import abort, make_response, request, session
from flask.views import MethodView

from wsgicache.flask import CachedResponse


@pytest.fixture
def site(make_cache):
    """A client, its cache, and views that count their calls."""

    def site(view, methods=("GET", "POST", "PUT"), config=None, **terms):
        cache = make_cache(**(config or {}))
        calls = []

        @cache.cached(60, **terms)
        def counted():
            calls.append(request.method)
            return view(len(calls))

        cache.app.add_url_rule("/page", "page", counted, methods=methods)
        return cache.app.test_client(), calls, cache

    return site


def test_get_is_cached_under_the_public_key(site):
    client, _calls, cache = site(lambda n: f"page {n}")
    assert client.get("/page").text == client.get("/page").text == "page 1"
    assert cache.get("view//page") == "page 1"
    assert cache.delete("view//page")
    assert client.get("/page").text == "page 2"


@pytest.mark.parametrize("status", [200, 500, 304])
def test_a_view_behind_a_decorator_that_hides_it_is_safe_too(make_cache, status):
    """Without functools.wraps nothing leads from the registered view to the cached function."""
    cache = make_cache()

    def hiding(view):
        def hidden(*args, **kwargs):
            return view(*args, **kwargs)

        return hidden

    @cache.cached(60)
    def page():
        response = make_response("page", status)
        if status == 200:
            response.set_cookie("visitor", "1")
        return response

    cache.app.add_url_rule("/page", "page", hiding(page))
    assert cache.app.test_client().get("/page").status_code == status
    assert cache.get("view//page") is None


def test_a_helper_may_return_a_pair_that_looks_like_a_status(make_cache):
    cache = make_cache()

    @cache.cached(60, key_prefix="count")
    def count():
        return "errors", 500

    cache.app.add_url_rule("/page", "page", lambda: str(count()[1]))
    cache.app.test_client().get("/page")
    assert cache.get("count") == ("errors", 500)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_other_methods_are_neither_answered_nor_kept(site, method):
    client, calls, cache = site(lambda n: f"page {n}")
    client.open("/page", method=method)
    assert cache.get("view//page") is None
    client.get("/page")
    client.open("/page", method=method)
    assert calls == [method, "GET", method]


def test_make_cache_key_says_how_another_method_is_keyed(site):
    client, _calls, _ = site(lambda n: f"{n}", make_cache_key=lambda: request.get_data(as_text=True))
    assert client.post("/page", data="a").text == client.post("/page", data="a").text
    assert client.post("/page", data="b").text == "2"


def test_a_head_is_answered_from_a_get_and_never_kept(site):
    client, calls, _ = site(lambda n: "" if request.method == "HEAD" else "page")
    client.head("/page")
    assert client.get("/page").text == "page"
    client.head("/page")
    assert calls == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "answer",
    [
        lambda n: ("boom", 500),
        lambda n: ("boom", "503 Unavailable"),
        lambda n: flask.Response("boom", 502),
        lambda n: abort(500),
        lambda n: flask.Response(status=304),
        lambda n: ("", 304),
        lambda n: ("part", 206),
        lambda n: ("hi", {"Set-Cookie": "id=1"}),
        lambda n: ("hi", 200, [("Set-Cookie", "id=1")]),
        lambda n: (flask.Response("hi"), {"set-cookie": "id=1"}),
        lambda n: flask.Response("hi", headers={"Set-Cookie": "id=1"}),
        lambda n: CachedResponse(flask.Response("hi", headers={"Set-Cookie": "id=1"}), 5),
        lambda n: session.update(user=n) or "hi",
    ],
)
def test_what_is_one_visitors_or_an_error_is_not_kept(site, answer):
    client, calls, _cache = site(answer)
    client.get("/page")
    client.get("/page")
    assert calls == ["GET", "GET"]


def test_what_a_before_request_does_to_the_session_does_not_count(site):
    client, calls, cache = site(lambda n: f"page {n}")

    @cache.app.before_request
    def touch():
        session["seen"] = True

    client.get("/page")
    response = client.get("/page")
    assert calls == ["GET"]
    assert "session=" in response.headers["Set-Cookie"]


def test_looking_at_the_session_adds_no_vary(site):
    client, _calls, _ = site(lambda n: "page")
    assert "Vary" not in client.get("/page").headers
    assert "Vary" not in client.get("/page").headers


def test_the_old_behaviour_is_one_setting(site):
    client, _calls, _ = site(lambda n: (f"boom {n}", 500), config={"CACHE_SAFE_VIEWS": False})
    assert client.get("/page").text == client.post("/page").text == "boom 1"
    assert "ETag" not in client.get("/page").headers


def test_a_404_is_kept_and_its_handler_runs(site):
    client, calls, cache = site(lambda n: abort(404))
    cache.app.register_error_handler(404, lambda error: ("handled", 404))
    assert [client.get("/page").text, client.get("/page").text] == ["handled", "handled"]
    assert calls == ["GET"]


def test_conditionals_are_answered_from_the_first_response_on(site):
    client, calls, _ = site(lambda n: f"page {n}")
    etag = client.get("/page").headers["ETag"]
    assert client.get("/page").headers["ETag"] == etag
    again = client.get("/page", headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get("/page", headers={"If-None-Match": '"other"'}).text == "page 1"
    assert client.get("/page").text == "page 1"
    assert calls == ["GET"]


def test_a_304_made_for_one_client_is_not_what_the_next_gets(site):
    def view(n):
        response = make_response("page")
        response.add_etag()
        return response.make_conditional(request)

    client, _calls, _ = site(view)
    etag = flask.Response("page")
    etag.add_etag()
    assert client.get("/page", headers={"If-None-Match": etag.headers["ETag"]}).status_code == 304
    assert client.get("/page").text == "page"
    assert client.get("/page").text == "page"


def test_a_function_with_a_fixed_key_is_cached_in_a_post_too(make_cache):
    cache = make_cache()
    calls = []

    @cache.cached(key_prefix="comments")
    def comments():
        calls.append(1)
        return ["a"]

    cache.app.add_url_rule("/add", "add", lambda: str(comments()), methods=["POST"])
    client = cache.app.test_client()
    client.post("/add")
    client.post("/add")
    assert calls == [1]


def test_a_view_with_a_fixed_key_is_a_view_all_the_same(site):
    client, _calls, _ = site(lambda n: f"page {n}", key_prefix="front")
    client.post("/page")
    assert client.get("/page").text == "page 2"


def test_method_views_are_views(make_cache):
    cache = make_cache()

    class Page(MethodView):
        decorators = (cache.cached(60),)

        def get(self):
            return "page"

        def post(self):
            return "posted"

    cache.app.add_url_rule("/page", view_func=Page.as_view("page"))
    client = cache.app.test_client()
    assert client.get("/page").text == "page"
    assert client.post("/page").text == "posted"
    assert client.get("/page").headers["ETag"]


def test_a_file_passes_through(make_cache, tmp_path):
    cache = make_cache()
    (tmp_path / "f.txt").write_text("file")
    calls = []

    @cache.app.route("/file")
    @cache.cached(60)
    def file():
        calls.append(1)
        return flask.send_file(tmp_path / "f.txt")

    client = cache.app.test_client()
    with client.get("/file") as first, client.get("/file") as second:
        assert first.text == second.text == "file"
    assert calls == [1, 1]


def test_a_streamed_response_is_drained_once(make_cache):
    cache = make_cache()
    calls = []

    @cache.app.route("/stream")
    @cache.cached(60)
    def stream():
        calls.append(1)
        return flask.Response(iter(["a", "b"]))

    client = cache.app.test_client()
    assert client.get("/stream").text == client.get("/stream").text == "ab"
    assert calls == [1]


def test_changing_a_hit_does_not_change_the_cache(make_cache):
    cache = make_cache()

    @cache.app.route("/page")
    @cache.cached(60)
    def page():
        return flask.Response("page")

    @cache.app.after_request
    def mark(response):
        response.headers.add("X-Count", "1")
        return response

    client = cache.app.test_client()
    for _ in range(3):
        assert client.get("/page").headers.getlist("X-Count") == ["1"]
