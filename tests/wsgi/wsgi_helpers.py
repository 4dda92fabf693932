"""A server that follows PEP 3333 step by step, bodies that tell how they were used, and threads that
hand back what they got."""

import threading

from waiting import PATIENCE as PATIENCE
from waiting import Call as Call

from wsgicache import WSGICache
from wsgicache.hitpath import COMPILED, PureHitPath
from wsgicache.testing import FakeClock, Reply, make_environ

TEXT = [("Content-Type", "text/plain")]


def text(*more):
    """Header fields of a plain text."""
    return [*TEXT, *more]


def length(number):
    """A Content-Length field."""
    return ("Content-Length", str(number))


class PureCache(WSGICache):
    """A cache whose hit path is the one in Python, also where the compiled one was built."""

    __call__ = PureHitPath.__call__


HIT_PATHS = {"python": PureCache, "compiled": WSGICache} if COMPILED else {"python": PureCache}
"""The hit paths that there are here, by name."""


def new_cache(app, kind=WSGICache, **options):
    """A cache with a clock that stands still, found as `cache.fake_clock`."""
    clock = options.setdefault("clock", FakeClock())
    cache = kind(app, **options)
    cache.fake_clock = clock
    return cache


def count(cache, reason):
    """How often a reason was counted."""
    return cache.engine.observer.reasons[reason].value


class Exchange:
    """One request, served step by step: the head goes out with the first chunk that is not empty.

    `out` is what the client got, in order: each written or handed out chunk, empty ones included.
    """

    def __init__(self, app, url="/", method="GET", headers=None, environ=None, **extra):
        self.heads = []
        self.out = []
        self.head_is_out = False
        self.closes = 0
        self.environ = make_environ(url, method, headers, **extra) if environ is None else environ
        self.iterable = None
        self._iterator = None
        self._app = app

    def begin(self):
        """Call the app."""
        self.iterable = self._app(self.environ, self.start_response)
        self._iterator = iter(self.iterable)
        return self

    def start_response(self, status, headers, exc_info=None):
        """PEP 3333, "The start_response() Callable"."""
        assert isinstance(status, str)
        assert type(headers) is list
        if exc_info is None:
            assert not self.heads, "start_response() was called again without exc_info"
        elif self.head_is_out:
            raise exc_info[1].with_traceback(exc_info[2])
        self.heads.append((status, list(headers)))
        return self.write

    def write(self, data):
        """The `write()` of PEP 3333: what is written is on its way when this returns."""
        self._give(data)

    def _give(self, data):
        assert self.heads, "data came before start_response()"
        self.head_is_out = self.head_is_out or bool(data)
        self.out.append(bytes(data))

    def pull(self):
        """Take the next chunk; raises StopIteration at the end."""
        chunk = next(self._iterator)
        if self.heads:
            self._give(chunk)
        else:
            assert chunk == b"", "data came before start_response()"
            self.out.append(b"")
        return chunk

    def rest(self):
        """Take everything that is left."""
        while True:
            try:
                self.pull()
            except StopIteration:
                return self

    def close(self):
        """Call the iterable's `close()`, if it has one."""
        self.closes += 1
        close = getattr(self.iterable, "close", None)
        if close is not None:
            close()
        return self

    def whole(self):
        """Serve the request from the beginning to the end."""
        self.begin()
        try:
            return self.rest()
        finally:
            self.close()

    @property
    def body(self):
        """Every byte that the client got."""
        return b"".join(self.out)

    @property
    def reply(self):
        """What the client got, as `wsgicache.testing.ask` gives it."""
        status, headers = self.heads[-1]
        return Reply(status, headers, self.body)


class Body:
    """An iterator over chunks that counts; an exception among the chunks is raised, a callable called."""

    def __init__(self, chunks, close_error=None, log=None):
        self._chunks = iter(chunks)
        self._close_error = close_error
        self._log = log
        self.pulled = 0
        self.closed = 0
        self.ended = False

    def __iter__(self):
        return self

    def __next__(self):
        assert not self.closed, "pulled after close()"
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self.ended = True
            raise
        if isinstance(chunk, BaseException):
            raise chunk
        if callable(chunk):
            chunk = chunk()
        self.pulled += 1
        if self._log is not None:
            self._log.append(("pulled", self.pulled))
        return chunk

    def close(self):
        self.closed += 1
        if self._close_error is not None:
            raise self._close_error


class BodyApp:
    """An app that makes a new `Body` for each call and remembers it.

    `before` is called with the environ before the head, and may raise.
    """

    def __init__(self, *chunks, status="200 OK", headers=None, close_error=None, before=None):
        self.chunks = chunks
        self.status = status
        self.headers = TEXT if headers is None else headers
        self.close_error = close_error
        self.before = before
        self.bodies = []
        self.seen = []
        self.log = []

    @property
    def calls(self):
        """How many requests reached the app."""
        return len(self.seen)

    @property
    def closes(self):
        """How often each of the bodies was closed."""
        return [body.closed for body in self.bodies]

    def __call__(self, environ, start_response):
        self.seen.append(environ)
        if self.before is not None:
            self.before(environ)
        start_response(self.status, list(self.headers))
        body = Body(self.chunks, self.close_error, self.log)
        self.bodies.append(body)
        return body


def results(calls):
    """The results of several calls."""
    return [call.result() for call in calls]


class Waiters:
    """Tells when requests have begun to wait for another one: each has been counted as a follower."""

    def __init__(self, cache):
        self._arrived = threading.Semaphore(0)
        collapse = cache.engine.collapse
        wait = collapse.wait

        def told(flight, timeout):
            self._arrived.release()
            return wait(flight, timeout)

        collapse.wait = told

    def arrived(self, number=1):
        """Return when `number` more requests wait."""
        for _ in range(number):
            if not self._arrived.acquire(timeout=PATIENCE):
                raise TimeoutError("nobody came to wait")


def flights(cache):
    """How many calls of the app are under way that others may wait for."""
    return len(cache.engine.collapse)
