"""Hits of the page cache by view: counted on every way of answering, and added up over workers."""

import gc
import threading
import weakref
from types import SimpleNamespace

import pytest
from flask import Blueprint, Flask, abort
from waiting import PATIENCE

from wsgicache import Rule
from wsgicache.flask import SiteCache
from wsgicache.flask import viewcounts as module
from wsgicache.flask.viewcounts import ViewCounts
from wsgicache.observe import Observer
from wsgicache.sharing import SharedCounts
from wsgicache.testing import ask


@pytest.fixture
def app():
    app = Flask("counted")

    @app.route("/post/<int:n>")
    def post(n):
        return f"post {n}"

    @app.route("/never")
    def never():
        return "never", {"Cache-Control": "no-store"}

    @app.route("/fails")
    def fails():
        abort(503)

    blog = Blueprint("blog", __name__, url_prefix="/blog")
    blog.add_url_rule("/", "home", lambda: "home")
    app.register_blueprint(blog)
    return app


class Counters:
    """The part of a shared store that counts."""

    shared = True

    def __init__(self):
        self.held = {}
        self.calls = 0
        self.down = False

    def incr_many(self, deltas):
        if self.down:
            raise OSError("gone")
        self.calls += 1
        for name, delta in deltas.items():
            self.held[name] = self.held.get(name, 0) + delta

    def counters(self):
        if self.down:
            raise OSError("gone")
        return dict(self.held)


def counts_over(app, store):
    """What one worker counts, over a store that only counts."""
    observer = Observer()
    failures = []
    return ViewCounts(
        app,
        SimpleNamespace(
            observer=observer, clock=SimpleNamespace(now=lambda: 0.0),
            followers=[SimpleNamespace(store=store)],
            counts=SharedCounts(observer, store, failures.append),
        ),
    )  # fmt: skip


def row(hits, misses, calls):
    total = hits + misses
    ratio = round(hits / total, 4) if total else None
    return {"hits": hits, "misses": misses, "calls": calls, "hit_ratio": ratio}


def test_views_are_counted_whatever_the_way(app):
    site = SiteCache(app, rules=[Rule("/blog/*", vary=["Accept-Language"])])
    for path in ("/post/1", "/post/2"):
        ask(app, path)
        for _ in range(3):
            assert ask(app, path).is_hit  # the first by the long way, the others by the hit path
    ask(app, "/post/1", method="HEAD")
    ask(app, "/post/1", method="POST")
    for language in ("de", "en", "de"):
        ask(app, "/blog/", headers={"Accept-Language": language})
    for _ in range(2):
        ask(app, "/never")
    ask(app, "/fails")
    ask(app, "/nothing/there")
    stats = site.stats()
    assert stats["views"]["post"] == row(7, 2, 2)  # the POST found no view: 405
    assert stats["views"]["blog.home"] == row(1, 2, 2)
    assert stats["views"]["never"]["hits"] == 0
    assert stats["views"]["never"]["calls"] == 2
    assert stats["views"]["fails"] == row(0, 1, 1)
    assert set(stats["views"]) == {"post", "blog.home", "never", "fails"}
    pages = stats["pages"]
    assert pages["hits"] == 8  # counted by view or not, all of them are in the total
    assert pages["reasons"]["HIT"] == 8
    assert pages["hit_ratio"] == pages["hits"] / (pages["hits"] + pages["misses"])


def test_a_refresh_behind_a_visitor_is_a_call_and_no_miss(app):
    @app.route("/quick")
    def quick():
        return "quick", {"Cache-Control": "max-age=0, stale-while-revalidate=60"}

    site = SiteCache(app)
    ask(app, "/quick")
    ask(app, "/quick")
    site.pages.close()
    counted = site.stats()["views"]["quick"]
    assert counted["misses"] + counted["hits"] == 2
    assert counted["calls"] >= counted["misses"]


def test_a_mounted_app_and_an_encoded_path_have_their_views(app):
    app.add_url_rule("/größe/<what>", "size", lambda what: what)
    site = SiteCache(app)
    for _ in range(2):
        ask(app, "/größe/ä")
        ask(app, "/post/1", SCRIPT_NAME="/mounted")
    assert site.stats()["views"]["size"] == row(1, 1, 1)
    assert site.stats()["views"]["post"] == row(1, 1, 1)


def test_the_view_of_a_page_that_another_worker_stored_is_found(app):
    counts = counts_over(app, Counters())
    row_of = counts.pages.row_of
    assert row_of("/post/7\0\0localhost\0http") is counts.pages.row("post")
    assert row_of("/blog/\0q=1\0localhost:8000\0https") is counts.pages.row("blog.home")
    assert row_of("/nothing\0\0localhost\0http") is None
    assert row_of("/blog\0\0localhost\0http") is None  # a redirect
    assert row_of(None) is None


def test_paths_that_clients_make_up_stay_bounded(app, monkeypatch):
    monkeypatch.setattr(module, "_MAX_PATHS", 10)
    counts = counts_over(app, Counters())
    for n in range(50):
        counts.called(f"/{n}", None)
        counts.pages.row_of(f"/other/{n}\0\0localhost\0http")
    assert len(counts._endpoints) <= 10
    assert counts.pages.rows == {}


def test_workers_add_up(app):
    shared = Counters()
    workers = [counts_over(app, shared) for _ in range(2)]
    for worker in workers:
        worker.called("/post/1", "post")
        worker.pages.row("post").misses.add()
        for _ in range(4):
            worker.pages.row("post").fast.add()
    workers[0].report()
    assert workers[1].read() == workers[0].read() == {"post": row(8, 2, 2)}
    calls = shared.calls
    assert workers[0].read() == {"post": row(8, 2, 2)}
    assert shared.calls == calls  # nothing new, nothing said


def test_a_store_that_is_down_loses_no_counts(app, caplog):
    shared = Counters()
    counts = counts_over(app, shared)
    counts.pages.row("post").hits.add()
    shared.down = True
    assert counts.read() == {"post": row(1, 0, 0)}
    assert "these are this one's" in caplog.text
    shared.down = False
    counts.pages.row("post").hits.add()
    assert counts.read() == {"post": row(2, 0, 0)}


def test_a_forked_child_reports_only_its_own(app):
    shared = Counters()
    counts = counts_over(app, shared)
    counts.pages.row("post").hits.add()
    counts.after_fork(), counts._shared.after_fork()  # what a fork calls in the child
    counts.report()
    assert shared.held == {}
    counts.pages.row("post").hits.add()
    assert counts.read() == {"post": row(1, 0, 0)}


def test_a_worker_that_only_has_hits_reports_too(app, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 0.01)
    shared = Counters()
    told = threading.Event()
    real = shared.incr_many
    shared.incr_many = lambda deltas: (real(deltas), told.set())
    counts = counts_over(app, shared)
    counts.called("/post/1", "post")
    assert told.wait(PATIENCE)
    told.clear()
    counts.pages.row("post").fast.add()  # all that the hit path does
    assert told.wait(PATIENCE)
    assert (shared.held["calls<post>"], shared.held["hits<post>"]) == (1, 1)


def test_the_thread_goes_with_its_site(app, monkeypatch):
    monkeypatch.setattr(module, "_EVERY", 0.01)
    counts = counts_over(app, Counters())
    counts.called("/post/1", "post")
    thread, gone = counts._thread, weakref.ref(counts)
    assert thread.is_alive()
    del counts
    gc.collect()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert gone() is None


def test_memory_needs_no_thread(app):
    site = SiteCache(app)
    ask(app, "/post/1")
    assert site._views._thread is None
