"""Caches of several processes over one shared store, as far as one process can play them."""

import threading

from waiting import PATIENCE

from wsgicache import WSGICache
from wsgicache.stores import StoreError
from wsgicache.testing import FakeClock, Response, ScriptedApp, SharedServer, SharedStore, ask


def refuse(*args):
    """A method of a store that does not answer."""
    raise StoreError("it was told to fail")


class Worker:
    """A cache with an app of its own, as one of several processes has it."""

    def __init__(self, site, name, **options):
        self.name = name
        self.app = ScriptedApp(site.answer)
        self.store = SharedStore(site.server, **options.pop("store_options", {}))
        self.cache = WSGICache(self.app, self.store, clock=site.clock, **{**site.options, **options})

    def ask(self, url="/page", **given):
        return ask(self.cache, url, **given)

    @property
    def calls(self):
        return self.app.calls


class Site:
    """What the workers have in common: data that changes, a clock, a server."""

    def __init__(self, **options):
        self.server = SharedServer()
        self.clock = FakeClock()
        self.options = options
        self.version = 1
        self.response = lambda environ, version: Response(body=b"v%d" % version)

    def answer(self, environ):
        if environ["REQUEST_METHOD"] == "POST":
            return Response(body=b"saved")
        return self.response(environ, self.version)

    def workers(self, number=2, **options):
        return [Worker(self, f"worker {n}", **options) for n in range(number)]

    def trips(self, job):
        """How often the server was asked meanwhile, and what the job returned."""
        before = self.server.trips
        result = job()
        return self.server.trips - before, result


class Later:
    """A call on a thread of its own."""

    def __init__(self, job, *args, **kwargs):
        self._result = None
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(job, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, job, args, kwargs):
        try:
            self._result = job(*args, **kwargs)
        except BaseException as error:
            self._error = error

    def result(self):
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call did not end"
        if self._error is not None:
            raise self._error
        return self._result


def until(condition):
    """Wait for something that another thread does."""
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.002)):
        if condition():
            return
        pause.wait(0.002)
    raise AssertionError("it did not come")


def trusted(worker):
    """Wait for the first beat of a near tier: until then its copies are asked for again."""
    near = worker.cache.engine.store
    until(lambda: near.trust.until > near._steady())
