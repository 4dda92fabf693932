"""A whole site over Redis: what visitors get, whatever the server does."""

import threading
import time

import pytest
from redis_helpers import Clock
from servers_redis import Server, empty, until
from tcp_proxy import TcpProxy

from wsgicache import WSGICache
from wsgicache.testing import Response, ScriptedApp, ask


class Site:
    """An app whose page changes, and workers that cache it over one server."""

    def __init__(self, url, workers=2, **options):
        self.version = self.pending = 1
        self.apps = [ScriptedApp(self._answer) for _ in range(workers)]
        self.caches = [WSGICache(app, url, **options) for app in self.apps]
        self.clocks = [Clock(cache.store) for cache in self.caches]

    def _answer(self, environ):
        return Response(body=b"v%d" % self.pending)

    def publish(self, url="/page"):
        """A new version, which is out when its purge has returned."""
        self.pending += 1
        self.caches[0].purge(url)
        self.version = self.pending

    def ask(self, worker=0, url="/page"):
        return ask(self.caches[worker], url)

    @property
    def calls(self):
        return [app.calls for app in self.apps]

    def pass_pause(self):
        for clock in self.clocks:
            clock.pass_pause()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


def patient(server):
    return f"{server.url}?timeout=20s"


def test_workers_share_pages_and_purges(server):
    site = Site(patient(server))
    first, second, third = site.ask(0), site.ask(1), site.ask(1)
    assert (first.is_hit, second.is_hit, third.is_hit) == (False, True, True)
    assert site.calls == [1, 0]
    assert (second.body, third.body) == (b"v1", b"v1")
    site.publish()
    again = site.ask(1)
    assert (again.is_hit, again.body) == (False, b"v2")
    assert (site.ask(0).body, site.calls) == (b"v2", [1, 1])


def test_a_hit_is_one_round_trip():
    with TcpProxy(empty().port) as proxy:
        site = Site(f"redis://127.0.0.1:{proxy.port}?timeout=20s", 1)
        assert [site.ask().is_hit for _ in range(3)] == [False, True, True]
        before = proxy.asked
        assert all([site.ask().is_hit for _ in range(10)])
        assert proxy.asked - before == 10


def test_rds_01_killed_in_mid_traffic_no_request_fails(server):
    site = Site(patient(server))
    assert [site.ask(worker).is_hit for worker in (0, 1)] == [False, True]
    server.kill()
    for worker in (0, 1):
        for _ in range(20):
            reply = site.ask(worker)
            assert (reply.code, reply.body, reply.is_hit) == (200, b"v1", False)
            assert "STORE" in reply.cache.get("detail", "")
    assert sum([cache.store.link.opened for cache in site.caches]) <= 4
    server.start()
    site.pass_pause()
    assert [site.ask(0).is_hit, site.ask(0).is_hit, site.ask(1).is_hit] == [False, True, True]


def test_a_server_that_was_down_at_the_start(server):
    server.kill()
    site = Site(patient(server), 1)
    assert [site.ask().body for _ in range(5)] == [b"v1"] * 5
    server.start()
    site.pass_pause()
    assert [site.ask().is_hit for _ in range(2)] == [False, True]


def test_a_full_server_serves_what_it_has_and_never_beyond_its_purge(server):
    site = Site(patient(server))
    site.ask(0, "/a")
    site.ask(0, "/b")
    server.ask("CONFIG", "SET", "maxmemory", "100kb")
    assert site.ask(1, "/a").is_hit
    site.publish("/a")
    for worker in (0, 1):
        reply = site.ask(worker, "/a")
        assert (reply.is_hit, reply.body) == (False, b"v2")
        assert site.ask(worker, "/b").is_hit
    assert [site.ask(0, "/c").body for _ in range(3)] == [b"v2"] * 3
    server.ask("CONFIG", "SET", "maxmemory", 0)
    site.pass_pause()
    assert [site.ask(0, "/c").is_hit for _ in range(2)] == [False, True]


def test_a_black_hole_delays_one_request():
    with TcpProxy(empty().port) as proxy:
        site = Site(f"redis://127.0.0.1:{proxy.port}?timeout=1s", 1)
        site.ask()
        proxy.black_hole = True
        times = []
        for _ in range(30):
            start = time.monotonic()
            assert site.ask().body == b"v1"
            times.append(time.monotonic() - start)
        assert max(times) < 5
        assert sorted(times)[-2] < 0.8, "one waits for the deadline, the others do not"


def test_a_restart_with_old_data_shows_nobody_an_old_page():
    server = Server("--save", "3600 1")
    try:
        site = Site(patient(server))
        site.ask(0)
        server.ask("SAVE")
        site.publish()
        server.restart()
        for worker in (1, 0):
            reply = site.ask(worker)
            assert reply.body == b"v2"
    finally:
        server.close()


def test_switches_reach_every_worker(server):
    from wsgicache import Rule

    site = Site(patient(server), rules=[Rule("/page", bypass=True, name="admin")])
    assert [site.ask(1).is_hit for _ in range(2)] == [False, False]
    site.caches[0].rules.disable("admin")
    site.ask(1, "/other")
    assert [site.ask(1).is_hit for _ in range(2)] == [False, True]


def test_many_threads_while_the_server_comes_and_goes(server):
    """Each answer is a page of the app, whole, and no purged one."""
    site = Site(patient(server))
    ended = threading.Event()
    wrong, seen = [], []

    def visit(worker):
        while not ended.is_set():
            site.clocks[worker].pass_pause()
            least = site.version
            reply = site.ask(worker)
            seen.append(reply.is_hit)
            if reply.code != 200 or reply.body[:1] != b"v" or int(reply.body[1:]) < least:
                wrong.append((least, reply.code, reply.body))

    threads = [threading.Thread(target=visit, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            for _ in range(5):
                site.publish()
            hits = seen.count(True)
            until(lambda hits=hits: seen.count(True) > hits + 5, what="hits")
            server.kill()
            misses = seen.count(False)
            until(lambda misses=misses: seen.count(False) > misses + 5, what="misses")
            server.start()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
    assert wrong == []
