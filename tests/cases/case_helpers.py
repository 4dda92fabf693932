"""What the cases share: one app behind one cache, and threads that hand back what they got."""

import threading

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

TEXT = ("Content-Type", "text/plain")
HTML = ("Content-Type", "text/html; charset=utf-8")
PATIENCE = 10.0
VICTIM = {"Cookie": "session=victim"}


def page(*headers, body=b"page", status="200 OK", error=None):
    """An answer of an app: plain text, unless the header fields say something else."""
    has_type = any(name.lower() == "content-type" for name, _ in headers)
    return Response(status, [*headers] if has_type else [TEXT, *headers], body, error)


def control(value, *headers, **more):
    """An answer with this Cache-Control."""
    return page(("Cache-Control", value), *headers, **more)


class Site:
    """One app behind one cache with a clock that stands still."""

    def __init__(self, answer=None, **options):
        self.app = answer if callable(answer) and hasattr(answer, "seen") else ScriptedApp(answer or page())
        self.clock = options.setdefault("clock", FakeClock())
        self.cache = WSGICache(self.app, **options)

    def ask(self, url="/", method="GET", headers=None, body=b"", **environ):
        """One request."""
        return ask(self.cache, url, method, headers, body, **environ)

    def fill(self, url="/", headers=None, **environ):
        """One request whose answer must be stored."""
        reply = self.ask(url, headers=headers, **environ)
        assert reply.stored, reply.headers
        return reply

    def refreshed(self):
        """Return when no refresh is under way."""
        assert self.cache.engine.refresher.drain(PATIENCE)

    def reasons(self):
        """Counters by reason's name."""
        return self.cache.stats()["reasons"]

    @property
    def last(self):
        """The environ of the last request that the app saw."""
        return self.app.seen[-1]


class Started:
    """A call on a thread of its own; `result()` waits for what it returns and raises what it raised."""

    def __init__(self, call, *args, **kwargs):
        self._call = lambda: call(*args, **kwargs)
        self._result = None
        self._error = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        try:
            self._result = self._call()
        except BaseException as error:
            self._error = error

    def result(self):
        """What the call returned."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call did not come back"
        if self._error is not None:
            raise self._error
        return self._result
