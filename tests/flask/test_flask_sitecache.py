"""SiteCache: the page cache around a Flask app, and what its views say to it."""

import functools
import json

import pytest
from flask import Flask, abort, g, request, session
from flask.sessions import SecureCookieSession
from ports import free_port

from wsgicache import Rule
from wsgicache.flask import Cache, SiteCache, Unavailable
from wsgicache.flask import sessions as sessions_module
from wsgicache.options import OptionError
from wsgicache.testing import ask


@pytest.fixture
def app():
    app = Flask("site")
    app.config["SECRET_KEY"] = "secret"
    app.calls = []

    @app.before_request
    def note():
        app.calls.append(request.path)

    return app


def test_one_line_caches_the_site(app):
    app.add_url_rule("/", "page", lambda: "page")
    SiteCache(app)
    assert ask(app, "/").stored
    assert ask(app, "/").is_hit
    assert app.calls == ["/"]


def test_options_come_from_the_config_and_keywords_beat_them(app):
    app.config.update(WSGICACHE_TTL=60, WSGICACHE_NAMESPACE="v1")
    site = SiteCache(app, ttl=70, rules=[Rule("/admin/*", bypass=True)])
    settings = site.pages.engine.settings
    assert (settings.ttl, settings.namespace) == (70, "v1")
    app.config["WSGICACHE_TLT"] = 1
    with pytest.raises(OptionError, match="WSGICACHE_TLT"):
        SiteCache(app)


def test_init_app_later_and_once(app):
    site = SiteCache()
    with pytest.raises(RuntimeError, match="init_app"):
        site.purge("/")
    site.init_app(app)
    assert app.wsgi_app is site.pages
    with pytest.raises(RuntimeError, match="one app"):
        site.init_app(app)


def test_decorators_say_lifetime_bypass_and_groups(app):
    site = SiteCache()

    @app.route("/short")
    @site.ttl(60)
    @site.groups("posts", "front")
    def short():
        return "short"

    @app.route("/never")
    @site.bypass
    def never():
        return "never"

    @app.route("/post/<int:n>")
    @site.groups("post-{n}")
    async def post(n):
        return f"post {n}"

    site.init_app(app)
    for path in ("/short", "/never", "/post/1", "/post/2"):
        ask(app, path)
    assert ask(app, "/short").cache["ttl"] in ("60", "59")
    assert not ask(app, "/never").is_hit
    assert ask(app, "/post/1").is_hit
    site.purge_groups("post-1")
    assert not ask(app, "/post/1").is_hit
    assert ask(app, "/post/2").is_hit
    site.purge_groups("front")
    assert not ask(app, "/short").is_hit


def test_a_decorator_between_ours_is_called(app):
    """functools.wraps copies our attributes to the wrapper around ours: it must not be skipped."""
    site = SiteCache()

    def login_required(view):
        @functools.wraps(view)
        def guarded(*args, **kwargs):
            if "user" not in request.args:
                abort(401)
            return view(*args, **kwargs)

        return guarded

    @app.route("/admin")
    @site.ttl(60)
    @login_required
    @site.groups("admin")
    def admin():
        return "secret"

    @app.route("/twice")
    @site.ttl(60)
    @site.groups("admin")
    def twice():
        return "twice"

    site.init_app(app)
    assert ask(app, "/admin").code == 401
    assert ask(app, "/admin?user=me").body == b"secret"
    said = {endpoint: page for _, endpoint, page in site.routes()}
    assert said["admin"].ttl == said["twice"].ttl == 60
    assert said["admin"].groups == said["twice"].groups == ("admin",)
    assert twice.__wrapped__.__name__ == "twice"
    assert not hasattr(twice.__wrapped__, "__wrapped__")  # two of ours make one wrapper


def test_the_ignore_flag_of_the_snippet(app):
    @app.route("/g")
    def by_g():
        g.ignore_cache = True
        return "g"

    @app.route("/request")
    def by_request():
        request.ignore_cache = True
        return "request"

    SiteCache(app)
    for path in ("/g", "/request"):
        assert not ask(app, path).stored
        assert not ask(app, path).is_hit


@pytest.mark.parametrize("tracks", [True, False])
@pytest.mark.parametrize(
    "read",
    [lambda: "user" in session, lambda: session.get("user"), lambda: len(session), lambda: list(session)],
)
def test_a_page_that_read_the_session_is_not_for_those_who_have_one(app, monkeypatch, tracks, read):
    monkeypatch.setattr("wsgicache.flask.site.FLASK_TRACKS", tracks)
    app.add_url_rule("/", "page", lambda: f"read {read()}")
    app.add_url_rule("/plain", "plain", lambda: "plain")

    @app.route("/login")
    def login():
        session["user"] = "me"
        return "in"

    SiteCache(app, rules=[Rule("/*", cookies="ignore")])
    first = ask(app, "/")
    assert "Cookie" in first.field("Vary")
    assert ask(app, "/plain").field("Vary") is None
    cookie = ask(app, "/login").field("Set-Cookie").partition(";")[0]
    assert not ask(app, "/login").stored
    assert ask(app, "/plain", headers={"Cookie": cookie}).code == 200


def test_a_session_page_with_a_cookie_is_not_stored(app):
    app.add_url_rule("/", "page", lambda: f"{'user' in session}", methods=["GET"])

    @app.after_request
    def public(response):
        response.headers["Cache-Control"] = "public, max-age=60"
        return response

    SiteCache(app)
    with app.test_request_context():
        value = app.session_interface.get_signing_serializer(app).dumps({"user": 1})
    assert not ask(app, "/", headers={"Cookie": f"session={value}"}).stored
    assert not ask(app, "/").is_hit


@pytest.mark.parametrize("method", sessions_module._READS)
def test_every_way_of_reading_counts_where_flask_does_not_track(method):
    tracked = SecureCookieSession({"a": 1})
    tracked.__class__ = sessions_module._tracked(SecureCookieSession)
    assert not tracked.accessed
    arguments = {
        "__getitem__": ("a",), "__contains__": ("a",), "__eq__": ({},), "get": ("a",), "setdefault": ("a", 1),
        "pop": ("a",),
    }.get(method, ())  # fmt: skip
    getattr(tracked, method)(*arguments)
    assert tracked.accessed


def test_saving_does_not_count_as_reading(app, monkeypatch):
    monkeypatch.setattr("wsgicache.flask.site.FLASK_TRACKS", False)
    app.add_url_rule("/", "page", lambda: "page")
    SiteCache(app)
    assert ask(app, "/").field("Vary") is None
    assert ask(app, "/").is_hit


def test_what_a_logged_in_visitor_sees_is_nobody_elses(app):
    class User:
        is_authenticated = True

    @app.route("/flask-login")
    def page():
        g._login_user = User()
        return "me"

    @app.route("/own")
    def own():
        g.visitor = "me"
        return "me"

    SiteCache(app, logged_in=lambda: g.get("visitor") is not None)
    for path in ("/flask-login", "/own"):
        assert not ask(app, path).stored


def test_who_cannot_be_told_from_a_logged_in_visitor_is_one(app, caplog):
    def logged_in():
        raise LookupError("no user table")

    app.add_url_rule("/", "page", lambda: "page")
    SiteCache(app, logged_in=logged_in)
    answer = ask(app, "/")
    assert (answer.code, answer.body, answer.stored) == (200, b"page", False)
    assert "no user table" in caplog.text


def test_a_group_of_an_argument_that_is_not_there_is_an_error_at_once(app):
    site = SiteCache(app)
    with pytest.raises(ValueError, match=r"page takes no argument 'm'"):

        @site.groups("post-{m}")
        def page(n):
            return ""

    @site.groups("post-{anything}", "plain", "{{literal}}")
    def generous(**kwargs):
        return "generous"

    app.add_url_rule("/<n>", "generous", generous)
    answer = ask(app, "/1")  # its group has no name, so no purge could reach it
    assert (answer.body, answer.stored) == (b"generous", False)


def test_one_purge_of_a_group_clears_both_caches(app):
    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    site = SiteCache(app)
    runs = []

    @cache.memoize(60, groups="posts")
    def posts():
        runs.append(1)
        return len(runs)

    @app.route("/")
    @site.groups("posts")
    def page():
        return f"{posts()}"

    assert ask(app, "/").body == ask(app, "/").body == b"1"
    with app.app_context():
        cache.purge_groups("posts")
    assert ask(app, "/").body == b"2"
    cache.delete("view//")  # clears no page: docs/flask.md says so
    assert ask(app, "/").is_hit
    site.purge_groups("posts")
    assert ask(app, "/").body == b"3"


def test_a_data_cache_that_is_down_does_not_keep_pages_from_being_purged(app):
    lost = {"CACHE_TYPE": "RedisCache", "CACHE_REDIS_PORT": free_port(), "CACHE_DEADLINE": 0.2}
    cache = Cache(app, config=lost)
    site = SiteCache(app)
    app.add_url_rule("/", "page", site.groups("posts")(lambda: "page"))
    for purge in (site.purge_groups, cache.purge_groups):
        ask(app, "/")
        assert ask(app, "/").is_hit
        with app.app_context(), pytest.raises(Unavailable):
            purge("posts")
        assert not ask(app, "/").is_hit


@pytest.fixture
def blog(app, tmp_path):
    """A blog with SQLAlchemy, whose cache is purged by its models."""
    from flask_sqlalchemy import SQLAlchemy

    app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path}/blog.db"
    db = SQLAlchemy(app)

    class Post(db.Model):
        id = db.Column(db.Integer, primary_key=True)
        title = db.Column(db.String)

    site = SiteCache(app)

    @app.route("/post/<int:n>")
    @site.groups("post-{n}")
    def post(n):
        found = db.session.get(Post, n)
        return found.title if found else "none"

    site.purge_on(Post, lambda post: [f"post-{post.id}", "home"])
    with app.app_context():
        db.create_all()
        db.session.add(Post(id=1, title="one"))
        db.session.commit()
    app.db, app.Post = db, Post
    yield app
    with app.app_context():
        db.engine.dispose()


def test_a_committed_change_purges(blog):
    db, post_class = blog.db, blog.Post
    assert ask(blog, "/post/1").body == b"one"
    assert ask(blog, "/post/1").is_hit
    with blog.app_context():
        db.session.get(post_class, 1).title = "two"
        db.session.flush()
        assert ask(blog, "/post/1").is_hit  # not before the commit
        db.session.commit()
    assert ask(blog, "/post/1").body == b"two"
    assert ask(blog, "/post/2").body == b"none"
    with blog.app_context():
        db.session.add(post_class(id=2, title="new"))
        db.session.commit()
    assert ask(blog, "/post/2").body == b"new"
    with blog.app_context():
        db.session.delete(db.session.get(post_class, 2))
        db.session.commit()
    assert ask(blog, "/post/2").body == b"none"


def test_a_rollback_purges_nothing(blog):
    ask(blog, "/post/1")
    with blog.app_context():
        blog.db.session.get(blog.Post, 1).title = "never"
        blog.db.session.flush()
        blog.db.session.rollback()
        blog.db.session.commit()
    assert ask(blog, "/post/1").is_hit


@pytest.mark.parametrize("inner", ["commit", "rollback"])
def test_a_savepoint_neither_purges_nor_forgets(blog, inner):
    """Its rows are seen by others when the outer transaction commits, and not before."""
    db, post_class = blog.db, blog.Post
    ask(blog, "/post/1")
    with blog.app_context():
        db.session.get(post_class, 1).title = "outer"
        db.session.flush()
        savepoint = db.session.begin_nested()
        db.session.add(post_class(id=7, title="inner"))
        db.session.flush()
        getattr(savepoint, inner)()
        assert ask(blog, "/post/1").is_hit
        db.session.commit()
    assert ask(blog, "/post/1").body == b"outer"
    assert ask(blog, "/post/7").body == (b"inner" if inner == "commit" else b"none")


def test_a_fault_in_a_mapping_stops_nobody_from_writing(blog, caplog):
    blog.extensions["wsgicache"].purge_on(blog.Post, lambda post: [post.nothing])
    ask(blog, "/post/1")
    with blog.app_context():
        blog.db.session.get(blog.Post, 1).title = "written"
        blog.db.session.commit()
    assert ask(blog, "/post/1").body == b"written"  # by the mapping that works
    assert "could not be named" in caplog.text


def test_two_sites_on_one_database_both_purge(blog):
    other = Flask("other")
    SiteCache(other).purge_on(blog.Post, lambda post: [f"post-{post.id}"])
    other.add_url_rule("/", "page", lambda: "page")
    ask(blog, "/post/1")
    with blog.app_context():
        blog.db.session.get(blog.Post, 1).title = "both"
        blog.db.session.commit()
    assert ask(blog, "/post/1").body == b"both"


def test_the_id_of_a_new_object_is_known(blog):
    with blog.app_context():
        assert ask(blog, "/post/2").body == b"none"
        blog.db.session.add(blog.Post(title="made"))
        blog.db.session.commit()
    assert ask(blog, "/post/2").body == b"made"


def test_a_purge_that_fails_after_the_commit_is_logged(blog, caplog, monkeypatch):
    site = blog.extensions["wsgicache"]

    def fail(*groups, **options):
        raise OSError("store gone")

    monkeypatch.setattr(site, "purge_groups", fail)
    with blog.app_context():
        blog.db.session.get(blog.Post, 1).title = "kept"
        blog.db.session.commit()
        assert blog.db.session.get(blog.Post, 1).title == "kept"
    assert "after a commit failed" in caplog.text


# --- commands ---------------------------------------------------------------------------------------


@pytest.fixture
def shell(app):
    site = SiteCache(app)

    @app.route("/page")
    @site.ttl(60)
    @site.groups("posts", "front")
    def page():
        return "page"

    app.add_url_rule("/off", "off", site.bypass(lambda: "off"))

    def shell(*words):
        return app.test_cli_runner().invoke(args=["wsgicache", *words])

    shell.site, shell.app = site, app
    return shell


def test_routes_lists_what_views_say(shell):
    lines = shell("routes").output.splitlines()
    assert any("/page" in line and "ttl=60" in line and "groups=posts,front" in line for line in lines)
    assert any("/off" in line and "bypass" in line for line in lines)


def test_explain_says_why(shell):
    assert "URI_MISS" in shell("explain", "/page").output.upper().replace("-", "_")
    assert shell("explain", "/page", "--method", "POST").exit_code == 0
    assert shell("explain", "no path").exit_code == 2


def test_purge_and_stats_refuse_another_process_s_memory(shell):
    for words in (("purge", "/page"), ("stats",)):
        ran = shell(*words)
        assert ran.exit_code == 1
        assert "WSGICACHE_STORE" in ran.output


def test_purge_by_url_group_prefix_and_all(shell, monkeypatch):
    monkeypatch.setattr(SiteCache, "is_shared", True)
    for words in (("/page",), ("--group", "posts"), ("--prefix", "/"), ("--all",)):
        ask(shell.app, "/page")
        assert ask(shell.app, "/page").is_hit
        ran = shell("purge", *words)
        assert ran.exit_code == 0, ran.output
        assert not ask(shell.app, "/page").is_hit
    assert shell("purge").exit_code == 2
    assert shell("purge", "no path").exit_code == 2
    told = json.loads(shell("stats").output)
    assert told["views"]["page"]["calls"] > 1
    assert told["data"] is None


def test_stats_shows_a_data_cache_that_workers_share_beside_pages_that_they_do_not(shell, config_of):
    cache = Cache(shell.app, config=config_of("file"))

    @cache.memoize(60)
    def f():
        return 1

    f(), f()
    told = json.loads(shell("stats").output)
    assert told["views"] is None
    assert [row["hits"] for row in told["data"].values()] == [1]
