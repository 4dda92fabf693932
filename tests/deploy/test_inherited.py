"""Stores with connections and threads that were there before a server forked: no worker uses its parent's."""

import pytest
from deploy_helpers import gunicorn, numbered, running, until, uwsgi
from test_gunicorn import ask_for_many

from wsgicache.client import Client

SERVERS = {
    "gunicorn": lambda: gunicorn("gthread", "--preload"),
    "uwsgi": lambda: uwsgi("--enable-threads"),
}


@pytest.fixture
def memcached_url():
    pytest.importorskip("pymemcache", reason="pip install 'wsgicache[memcached]'")
    import servers_memcached

    with servers_memcached.memcached() as server:
        yield f"memcached://{server.address}"


def is_shared(site, page):
    """Whether both workers answer with what is stored; a near tier may be a moment behind a purge."""
    answers = site.workers(page.path).values()
    return all(answer.is_hit and answer.body == b"answer %d" % page.calls for answer in answers)


@pytest.mark.parametrize("server", SERVERS)
def test_memcached(server, memcached_url, origin, tmp_path):
    given = {"store_timeout": 2.0}
    with running(SERVERS[server](), origin, memcached_url, tmp_path, given, DEPLOY_OPENED="1") as site:
        page = origin.page(numbered)
        assert site.get(page.path).stored
        assert is_shared(site, page)
        with Client(memcached_url) as client:
            client.purge(page.path)
        assert {answer.body for answer in site.workers(page.path).values()} == {b"answer 2"}
        assert ask_for_many(site, origin) == []
        assert site.warnings() == []
        assert "Traceback" not in site.log()


@pytest.mark.parametrize("server", SERVERS)
def test_near_tiers(server, redis_url, origin, tmp_path):
    """Each worker listens to the journal by itself: after `wait=True` none of them has the old page."""
    namespace = f"near {server}"
    given = {"store_timeout": 2.0, "near": "4MB", "near_bound": 0.5, "namespace": namespace}
    with running(SERVERS[server](), origin, redis_url, tmp_path, given, DEPLOY_OPENED="1") as site:
        page = origin.page(numbered)
        assert site.get(page.path).stored
        until(lambda: is_shared(site, page), what="a hit of both workers")
        with Client(redis_url, namespace=namespace) as client:
            for number in (2, 3, 4):
                client.purge(page.path, wait=True)
                assert {answer.body for answer in site.workers(page.path).values()} == {b"answer %d" % number}
                assert is_shared(site, page)
        assert ask_for_many(site, origin) == []
        assert site.stop() == 0
        assert site.warnings() == []
        assert "Traceback" not in site.log()
