"""The site: home, posts, a slow report, a search, a sign-in and an admin area.

It is an ordinary Flask app. Only ``save_post`` knows of the cache: it purges what it changed.
"""

import fcntl
import secrets
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    g,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from sqlalchemy import NullPool, func, select
from werkzeug.security import check_password_hash

from . import seed
from .models import Loan, Post, User, db

site = Blueprint("site", __name__)


def create_app(instance: str | Path, report_seconds: float = 0.4) -> Flask:
    """Build the site; ``instance`` is the directory of its database and session secret."""
    instance = Path(instance).resolve()
    instance.mkdir(parents=True, exist_ok=True)
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=f"sqlite:///{instance / 'library.sqlite3'}",
        SQLALCHEMY_ENGINE_OPTIONS={"poolclass": NullPool},  # no connection outlives a fork
        SESSION_COOKIE_SAMESITE="Lax",  # another site cannot post our forms for somebody signed in
        REPORT_SECONDS=report_seconds,
    )
    db.init_app(app)
    app.register_blueprint(site)
    app.secret_key = kept_secret(instance, "secret")
    with _locked(instance), app.app_context():
        _prepare_database()
    return app


def paste_app(global_conf, instance=None, report_seconds="0.4"):
    """Build the site from its section of an ini file (``paste.app_factory``)."""
    return create_app(instance or instance_of(global_conf), float(report_seconds))


def instance_of(global_conf):
    """The instance directory that an ini file or the command line names."""
    return Path(global_conf.get("instance") or Path(global_conf["here"], "instance")).resolve()


def kept_secret(instance, name):
    """The secret in a file of the instance directory; made when there is none."""
    instance.mkdir(parents=True, exist_ok=True)
    file = instance / name
    with _locked(instance):
        if not file.exists():
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex())
        return file.read_text()


@contextmanager
def _locked(instance):
    """Workers start together; the first one fills."""
    with open(instance / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _prepare_database():
    db.create_all()
    if db.session.scalar(select(func.count(Post.id))) == 0:
        seed.fill()


@site.before_app_request
def who_is_it():
    # This reads the session on every request, so Flask sends "Vary: Cookie" with every page.
    # Visitors without a cookie are served from the cache all the same.
    user_id = session.get("user_id")
    g.user = db.session.get(User, user_id) if user_id else None


@site.app_context_processor
def rendered_at():
    return {"now": datetime.now(UTC)}


@site.app_template_filter("day")
def day(value):
    return f"{value.day} {value:%B %Y}"


def carries(*groups):
    """Say which groups this page belongs to, so that a change can purge it."""
    hints = request.environ.get("wsgicache.hints")  # absent when no cache stands in front
    if hints is not None:
        for group in groups:
            hints.groups.add(group)


@site.get("/")
def home():
    carries("posts")
    return render_template("home.html", posts=_newest_first())


@site.get("/posts/<slug>")
def post(slug):
    return render_template("post.html", post=_post_or_404(slug))


@site.get("/report")
def report():
    # The sleep stands in for a database that is large and far away; the rest is real.
    time.sleep(current_app.config["REPORT_SECONDS"])
    month = func.strftime("%Y-%m", Loan.lent_on)
    rows = db.session.execute(
        select(month, Loan.shelf, func.count()).group_by(month, Loan.shelf).order_by(month)
    )
    months = {}
    for month_name, shelf, loans in rows:
        months.setdefault(month_name, {})[shelf] = loans
    return render_template("report.html", months=months, shelves=seed.SHELVES)


@site.get("/search")
def search():
    carries("posts")
    wanted = request.args.get("q", "").strip()
    posts = []
    if wanted:
        text = Post.title + " " + Post.summary + " " + Post.body
        posts = _newest_first(select(Post).where(text.icontains(wanted, autoescape=True)))
    return render_template("search.html", wanted=wanted, posts=posts)


@site.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "GET":
        return render_template("login.html", name=seed.EDITOR, password=seed.PASSWORD)
    user = db.session.scalar(select(User).where(User.name == request.form.get("name", "")))
    if user is None or not check_password_hash(user.password_hash, request.form.get("password", "")):
        page = render_template("login.html", name=seed.EDITOR, password=seed.PASSWORD, failed=True)
        return page, 401
    session["user_id"] = user.id
    return redirect(url_for("site.admin"), 303)


@site.post("/logout")
def logout():
    session.clear()
    return redirect(url_for("site.home"), 303)


def signed_in(view):
    """Let only signed-in visitors reach a view; send the others to the sign-in page."""

    @wraps(view)
    def guarded(*args, **kwargs):
        return redirect(url_for("site.login"), 303) if g.user is None else view(*args, **kwargs)

    return guarded


@site.get("/admin/")
@signed_in
def admin():
    return render_template("admin.html", posts=_newest_first())


@site.get("/admin/posts/<slug>")
@signed_in
def edit_post(slug):
    return render_template("edit.html", post=_post_or_404(slug))


@site.post("/admin/posts/<slug>")
@signed_in
def save_post(slug):
    post = _post_or_404(slug)
    for name in ("title", "summary", "body"):
        value = request.form.get(name, "").strip()
        if not value:
            abort(400, f"{name} is empty")
        setattr(post, name, value)
    db.session.commit()
    cache = request.environ.get("wsgicache.cache")  # absent when no cache stands in front
    if cache is not None:  # after the commit, so that whoever asks next reads the new text
        cache.purge(url_for("site.post", slug=slug))
        cache.purge_groups("posts")  # the pages that list posts: home and the searches
    return redirect(url_for("site.post", slug=slug), 303)


@site.app_errorhandler(404)
def not_found(error):
    return render_template("not_found.html"), 404


def _newest_first(query=None):
    """The posts that a query selects, or all of them, the newest first."""
    query = select(Post) if query is None else query
    return db.session.scalars(query.order_by(Post.published.desc())).all()


def _post_or_404(slug):
    return db.session.scalar(select(Post).where(Post.slug == slug)) or abort(404)
