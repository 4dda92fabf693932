"""Redis dies under load: visitors have their pages, from the app, and wait for it one deadline at most."""

import signal
import threading
import time
from itertools import count

import pytest
from deploy_helpers import PATIENCE, Later, gunicorn, kept, running, until

DEADLINE = 0.05
"""`store_timeout`, as it is by default."""
SLACK = 2.0
"""What the machine that runs the tests may add: others use it too."""
CLIENTS = 6
PAGES = 15


class Load:
    """Clients that ask for pages, each on a kept connection, until they are told to stop."""

    def __init__(self, site, pages, **how):
        self._site = site
        self._pages = pages
        self._how = how
        self._stop = threading.Event()
        self._numbers = count()
        self.waits, self.wrong, self.details = [], [], set()
        self._clients = [Later(self._ask) for _ in range(CLIENTS)]

    def _ask(self):
        with self._site.connect() as connection:
            while not self._stop.is_set():
                page = self._pages[next(self._numbers) % len(self._pages)]
                began = time.perf_counter()
                answer = connection.get(page.path, **self._how)
                self.waits.append(time.perf_counter() - began)
                self.details.add(answer.detail)
                if (answer.code, answer.body) != (200, page.path.encode()):
                    self.wrong.append(answer)

    def until(self, requests):
        """Return when so many more requests were answered."""
        wanted = len(self.waits) + requests
        until(lambda: len(self.waits) >= wanted or self.wrong, 3 * PATIENCE, f"{requests} answers")

    def end(self):
        """Stop; whatever a client ran into is raised here."""
        self._stop.set()
        for client in self._clients:
            client.result()
        assert self.wrong == []

    def percentile(self, percent):
        """Seconds that so many percent of the requests did not exceed."""
        ordered = sorted(self.waits)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


@pytest.fixture
def redis_server():
    """A server of its own, to be killed."""
    pytest.importorskip("redis", reason="pip install 'wsgicache[redis]'")
    import servers_redis

    server = servers_redis.Server()
    yield server
    server.process.send_signal(signal.SIGCONT)
    server.close()


FAULTS = {
    "killed": (lambda server: server.kill(), lambda server: server.start()),
    "hanging": (
        lambda server: server.process.send_signal(signal.SIGSTOP),
        lambda server: server.process.send_signal(signal.SIGCONT),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_request_fails_and_none_waits_longer_than_one_deadline(
    fault, redis_server, origin, tmp_path, record_property
):
    breaks, mends = FAULTS[fault]
    pages = [origin.page(lambda seen: kept(seen.environ["PATH_INFO"].encode())) for _ in range(PAGES)]
    with running(gunicorn("gthread", threads=CLIENTS), origin, redis_server.url, tmp_path) as site:
        site.workers(pages[0].path)
        own = Load(site, pages, host="closed.test")  # a rule keeps them from the store
        own.until(200)
        own.end()
        assert own.details == {"BYPASS_RULE"}

        load = Load(site, pages)
        load.until(150)
        before = len(load.waits)
        breaks(redis_server)
        load.until(200)
        load.end()
        assert "STORE_DOWN" in load.details
        load.waits = load.waits[before:]

        mends(redis_server)
        until(lambda: site.get(pages[0].path).is_hit, what="a hit from the server that is back")
        assert site.stop() == 0
        assert "Traceback" not in site.log()
    told = {
        f"{name}_p{percent}_ms": round(row.percentile(percent) * 1000, 1)
        for name, row in (("own", own), ("broken", load))
        for percent in (50, 99)
    }
    for name, value in told.items():
        record_property(name, value)
    print(f"Redis {fault}: {told}")
    assert load.percentile(99) <= own.percentile(99) + DEADLINE + SLACK, told
