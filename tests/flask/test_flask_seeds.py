"""The documents this project grew from, run as they stand in examples/seeds."""

import re
import sys
from pathlib import Path

import pytest
from flask_helpers import close_backend

SEEDS = Path(__file__).resolve().parents[2] / "examples" / "seeds"


@pytest.fixture
def seed(monkeypatch):
    """Import a seed anew."""
    import importlib.util

    def seed(name):
        spec = importlib.util.spec_from_file_location(f"seed_{name}", SEEDS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return seed


def test_the_snippet_caches_a_view(seed):
    app = seed("snippet").per_view()
    client = app.test_client()
    assert client.get("/").text == client.get("/").text == "<p>1</p>"


def test_the_snippet_caches_a_site_and_ignores_requests_with_values(seed):
    app = seed("snippet").whole_site()
    client = app.test_client()
    assert client.get("/").text == client.get("/").text == "index 1"
    assert client.get("/about").text == "about 2"
    assert client.get("/?a=1").text == "index 3"
    assert client.post("/", data={"a": 1}).text == "index 4"
    assert client.get("/").text == "index 1"


@pytest.mark.parametrize("kind", ["development", "production"])
def test_the_pattern_reads_through(seed, request, kind):
    pattern = seed("pattern")
    if kind == "development":
        cache = pattern.DEVELOPMENT()
    else:
        cache = pattern.production([f"127.0.0.1:{request.getfixturevalue('memcached_port')}"])
        cache.clear()
    app = pattern.make_app(cache)
    client = app.test_client()
    assert client.get("/").json == client.get("/").json == {"answer": 42}
    assert app.computed == 1
    close_backend(cache)


@pytest.mark.parametrize("name", ["simple", "file", "redis", "pylibmc", "pymemcache"])
def test_the_manual(seed, config_of, make_cache, name):
    make_cache(name)  # empties it
    app = seed("manual").make_app(**config_of(name))
    client = app.test_client()
    for path in ("/", "/class", "/own"):
        assert client.get(path).text == client.get(path).text
    with app.test_request_context():
        assert app.get_all_comments() == app.get_all_comments() == ["Looks great!", "Me too."]
        first = app.big_foo(5, 2)
        assert app.big_foo(5, 2) == app.big_foo(a=5, b=2) == first
        assert app.big_foo(5, 3) != first
        app.cache.delete_memoized(app.big_foo, 5, 2)
        assert app.big_foo(5, 2) != first
        assert app.person_class(3).has_membership(2) is app.person_class(3).has_membership(2) is True
        app.cache.delete_memoized(app.person_class.has_membership)
        app.person_class(3).has_membership(2)
    hellos = [client.post("/hello", json={"name": who}).text for who in ("a", "b", "a")]
    assert hellos == ["Hello a", "Hello b", "Hello a"]
    assert app.runs == ["index", "class", "own", "comments", (3, 2), (3, 2), "hello", "hello"]
    before = client.get("/fragment").text
    assert client.get("/fragment").text == before
    app.forget_fragment()
    assert client.get("/fragment").text != before
    assert client.get("/html/x").text == client.get("/html/y").text == "bar of x"
    close_backend(app.cache.cache)


@pytest.mark.parametrize("form", ["Custom", "custom", "custom_of_three"])
def test_the_manuals_custom_backends(seed, form):
    app = seed("manual").make_app(CACHE_TYPE=f"seed_manual.{form}", CUSTOM_THRESHOLD=7)
    assert app.cache.cache._threshold == 7
    assert app.cache.set("key", 1)
    assert app.cache.get("key") == 1


@pytest.fixture
def tutorial(seed, tmp_path):
    """Make the tutorial's app, and let go of its database."""
    made = []

    def tutorial(**config):
        module = seed("tutorial")
        app = module.make_app(f"sqlite:///{tmp_path}/{len(made)}.db", **config)
        made.append(app)
        return app

    yield tutorial
    for app in made:
        with app.app_context():
            app.db.session.remove()
            app.db.engine.dispose()


def test_the_tutorials_products(tutorial):
    app = tutorial()
    client = app.test_client()
    for path in ("/products", "/category/kitchen"):
        assert client.get(path).json == client.get(path).json == ["kettle"]
    assert app.queries == ["products", "kitchen"]
    client.post("/products/add", data={"name": "pan", "category": "kitchen"})
    assert client.get("/products").json == client.get("/category/kitchen").json == ["kettle", "pan"]


def test_the_tutorials_hit_rate(tutorial):
    client = tutorial().test_client()
    assert client.get("/cache-stats").json == {"hits": 0, "misses": 0, "hit_rate": "0.00%"}
    for query in ("kettle", "kettle", "pan", "kettle"):
        client.get("/search", query_string={"q": query})
    assert client.get("/cache-stats").json == {"hits": 2, "misses": 2, "hit_rate": "50.00%"}


def test_the_tutorials_blog(tutorial):
    app = tutorial()
    client = app.test_client()
    assert client.get("/blog/1").text == client.get("/blog/1").text == "<h1>first</h1>text"
    client.post("/blog/1/edit", data={"title": "second"})
    assert client.get("/blog/1").text == "<h1>second</h1>text"
    assert app.queries == ["post 1", "post 1"]


def test_the_tutorials_fragment_varies_by_a_number(tutorial):
    client = tutorial().test_client()
    one, two = client.get("/sidebar/1").text, client.get("/sidebar/2").text
    assert (one.split()[0], two.split()[0]) == ("1", "2")
    assert client.get("/sidebar/1").text == one


def test_the_tutorials_versions_work_on_a_backend_without_prefixes_of_its_own(tutorial, tmp_path):
    shared = {"CACHE_TYPE": "FileSystemCache", "CACHE_DIR": str(tmp_path / "cache")}
    first = tutorial(CACHE_KEY_PREFIX="v1_", **shared)
    first.test_client().get("/products")
    again = tutorial(CACHE_KEY_PREFIX="v1_", **shared)
    again.test_client().get("/products")
    assert again.queries == []
    deployed = tutorial(CACHE_KEY_PREFIX="v2_", **shared)
    deployed.test_client().get("/products")
    assert deployed.queries == ["products"]


def test_every_edit_is_listed_with_its_reason():
    rows = re.findall(r"^\| (\w+\.py) \| (.+) \| (.+) \|$", (SEEDS / "README.md").read_text(), re.M)
    assert {name for name, _, _ in rows} == {path.name for path in SEEDS.glob("*.py")}
    assert all(edit and len(reason) > 10 for _, edit, reason in rows)
