"""Sites whose cache the command is to reach."""

import os
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import cli_site
import pytest

from wsgicache import Rule, WSGICache
from wsgicache.testing import ScriptedApp, ask


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    """No configuration of the one who runs the tests, and a piped output."""
    for name in list(os.environ):
        if name.startswith("WSGICACHE_") or name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(cli_site, "PAGES", {})


class Site:
    """A worker of the site."""

    def __init__(self, store, **options):
        self.store = store
        self.app = ScriptedApp(cli_site.answer)
        self.rules = [
            Rule("/admin/*", bypass=True, name="admin"),
            Rule("/search", query="key", ignore_query=("utm_*",), name="search"),
            Rule("/old", ttl=9),
        ]
        self.cache = WSGICache(self.app, store, rules=self.rules, **options)
        cli_site.app = self.cache

    def ask(self, *urls, **given):
        for url in urls:
            reply = ask(self.cache, url, **given)
        return reply

    def tell(self):
        """Add the worker's counters to the shared ones."""
        self.cache.engine.counts.add(0.0)


@pytest.fixture
def make_site():
    made = []

    def make_site(store, **options):
        made.append(Site(store, **options))
        return made[-1]

    yield make_site
    for site in made:
        site.cache.close()
    cli_site.app = None


@pytest.fixture
def url(tmp_path):
    """A store that processes share."""
    return f"lmdb://{tmp_path}/store"


@pytest.fixture
def site(make_site, url):
    """A site with a few pages stored."""
    site = make_site(url, store_timeout=20)
    site.ask("/posts/1", "/posts/2", "/about", "/search?q=tide&utm_source=x")
    return site


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def listening():
    servers = []

    def listening(app):
        server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield listening
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()
