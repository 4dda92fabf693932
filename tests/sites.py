"""A site of one scripted app, a clock that stands still and a cache around it."""

import threading

from waiting import PATIENCE as PATIENCE
from waiting import Call as Call

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

TEXT = ("Content-Type", "text/plain")
HTML = ("Content-Type", "text/html; charset=utf-8")
VICTIM = {"Cookie": "session=victim"}


def page(*headers, body=b"page", status="200 OK", error=None):
    """An answer of an app: plain text, unless the header fields say something else."""
    has_type = any(name.lower() == "content-type" for name, _ in headers)
    return Response(status, [*headers] if has_type else [TEXT, *headers], body, error)


def control(value, *headers, **more):
    """An answer with this Cache-Control."""
    return page(("Cache-Control", value), *headers, **more)


class Site:
    """One app behind one cache.

    Args:
        answer: what the app answers: a `Response`, or a function of the environ; or the app, if it is a
            `ScriptedApp`.
        options: the cache's.
    """

    def __init__(self, answer=None, **options):
        self.app = answer if hasattr(answer, "seen") else ScriptedApp(answer or page())
        self.clock = options.setdefault("clock", FakeClock())
        self.cache = WSGICache(self.app, **options)

    def ask(self, url="/", method="GET", headers=None, body=b"", **environ):
        """One request, as a visitor without cookies makes it unless told otherwise."""
        return ask(self.cache, url, method, headers, body, **environ)

    def fill(self, url="/", headers=None, **environ):
        """One request whose answer must be stored."""
        reply = self.ask(url, headers=headers, **environ)
        assert reply.stored, reply.headers
        return reply

    def refreshed(self):
        """Return when no refresh is under way."""
        assert self.cache.engine.refresher.drain(PATIENCE)

    def count(self, reason):
        """How often a reason was counted."""
        return self.cache.engine.observer.reasons[reason].value

    @property
    def last(self):
        """The environ of the last request that the app saw."""
        return self.app.seen[-1]


class FirstHeld:
    """An app's answer that holds the first request until `let_go`, and no other."""

    def __init__(self, answer):
        self._answer = answer
        self._first = threading.Lock()
        self._entered = threading.Event()
        self._go = threading.Event()

    def __call__(self, environ):
        if self._first.acquire(blocking=False):
            self._entered.set()
            assert self._go.wait(PATIENCE), "nobody let the first request go"
        return self._answer

    def wait(self):
        """Return when the first request has come."""
        assert self._entered.wait(PATIENCE), "nobody came"

    def let_go(self):
        """Let the first request be answered."""
        self._go.set()
