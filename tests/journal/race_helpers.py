"""A site whose pages have versions, requests that stand at a gate inside it, every way to purge a page."""

import threading
from dataclasses import dataclass, field
from typing import ClassVar

from waiting import PATIENCE

from wsgicache import Rule, WSGICache
from wsgicache.collapse import State
from wsgicache.journal import Kind, Purge
from wsgicache.key import group_target
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FailingStore, FakeClock, Response, ScriptedApp, ask

PATH = "/blog/post"
GROUP = "post-1"


@dataclass
class Site:
    """An app over data that changes. A request reads the data first and is held, if at all, afterwards.

    Attributes:
        version: of the data; a page's body tells which one it was made of.
        headers: more fields of its pages.
        etag: a function of the version, or None for pages without validators.
    """

    version: int = 1
    headers: list = field(default_factory=list)
    etag: object = None
    modified: str | None = None

    def __post_init__(self):
        self.app = ScriptedApp(self.answer)

    def answer(self, environ):
        if environ["REQUEST_METHOD"] == "POST":
            return Response(
                headers=[(name[5:], value) for name, value in environ.items() if name[:5] == "send."]
            )
        headers = [("Cache-Tag", GROUP), *self.headers]
        if self.modified is not None:
            headers.append(("Last-Modified", self.modified))
            if environ.get("HTTP_IF_MODIFIED_SINCE") == self.modified and "HTTP_IF_NONE_MATCH" not in environ:
                return Response("304 Not Modified", headers)
        if self.etag is not None:
            headers.append(("ETag", self.etag(self.version)))
            if environ.get("HTTP_IF_NONE_MATCH") == self.etag(self.version):
                return Response("304 Not Modified", headers)
        body = b"v%d" % self.version
        return Response(headers=[*headers, ("Content-Length", str(len(body)))], body=body)


class Flight:
    """A request that stands inside the app, on a thread of its own."""

    up: ClassVar[list] = []

    def __init__(self, cache, site, path=PATH, **given):
        self._gate = site.app.hold(path)
        self._reply = None
        self._thread = threading.Thread(target=self._ask, args=(cache, path), kwargs=given)
        self._thread.start()
        Flight.up.append(self)
        self._gate.wait_entered()
        site.app.let_pass(path)

    def _ask(self, cache, path, **given):
        self._reply = ask(cache, path, **given)

    @classmethod
    def land_all(cls):
        """At the end of a test that failed before it let them go on."""
        while cls.up:
            flight = cls.up.pop()
            flight._gate.open()
            flight._thread.join(PATIENCE)

    def land(self):
        """Let it go on; its reply."""
        self._gate.open()
        self._thread.join(PATIENCE)
        assert self._reply is not None, "the request never ended"
        return self._reply


class Queue:
    """Watches who waits in a cache, and for which flight."""

    def __init__(self, cache):
        collapse = cache.engine.collapse
        self._wait, self._flights = collapse.wait, {}
        collapse.wait = self._watched

    def _watched(self, flight, timeout):
        thread = threading.current_thread()
        self._flights[thread] = flight
        try:
            return self._wait(flight, timeout)
        finally:
            del self._flights[thread]

    def holds(self, thread):
        """Whether a thread waits for a flight that has not ended."""
        flight = self._flights.get(thread)
        return flight is not None and flight.state is State.PENDING


def queue_of(cache):
    """The one that watches a cache."""
    if not hasattr(cache, "queue_of_tests"):
        cache.queue_of_tests = Queue(cache)
    return cache.queue_of_tests


class Newcomer:
    """A request on a thread of its own, which may be answered at once or wait behind a flight."""

    def __init__(self, cache, path=PATH, **given):
        self._cache, self._queue, self._reply = cache, queue_of(cache), None
        self._thread = threading.Thread(target=self._ask, args=(path,), kwargs=given)
        self._thread.start()

    def _ask(self, path, **given):
        self._reply = ask(self._cache, path, **given)

    def is_waiting(self):
        """Once it is known: whether it waits, or else has its answer."""
        while self._thread.is_alive() and not self._queue.holds(self._thread):
            self._thread.join(0.001)
        return self._thread.is_alive()

    def reply(self):
        self._thread.join(PATIENCE)
        assert self._reply is not None, "the request never ended"
        return self._reply


class Waiting:
    """Requests that wait behind a flight, each on a thread of its own."""

    def __init__(self, cache, count, path=PATH, **given):
        self._newcomers = []
        for _ in range(count):
            newcomer = Newcomer(cache, path, **given)
            assert newcomer.is_waiting()
            self._newcomers.append(newcomer)

    def replies(self):
        return [newcomer.reply() for newcomer in self._newcomers]


def post(cache, path, **fields):
    """A successful unsafe request; `fields` are sent in its answer."""
    sent = {f"send.{name.replace('_', '-')}": value for name, value in fields.items()}
    reply = ask(cache, path, "POST", **sent)
    assert reply.code == 200


def by_journal(cache, soft):
    """As another process does it, which has nothing but the store."""
    cache.store.append([Purge(Kind.GROUP, group_target(GROUP), soft)], 0.0)


HARD_AND_SOFT = {
    "path": lambda cache, soft: cache.purge(PATH, soft=soft),
    "url": lambda cache, soft: cache.purge(f"http://example.com{PATH}", soft=soft),
    "several": lambda cache, soft: cache.purge("/other", PATH, "/another", soft=soft),
    "prefix": lambda cache, soft: cache.purge_prefix("/blog/", soft=soft),
    "prefix of the origin": lambda cache, soft: cache.purge_prefix("http://example.com/", soft=soft),
    "group": lambda cache, soft: cache.purge_groups(GROUP, soft=soft),
    "group of the origin": lambda cache, soft: cache.purge_groups(
        GROUP, origin="http://example.com", soft=soft
    ),
    "all": lambda cache, soft: cache.clear(soft=soft),
    "journal": by_journal,
}
ONLY_HARD = {
    "unsafe request": lambda cache, soft: post(cache, PATH),
    "unsafe, its Location": lambda cache, soft: post(cache, "/new", Location=PATH),
    "unsafe, its Content-Location": lambda cache, soft: post(cache, "/new", Content_Location=PATH),
    "unsafe, its groups": lambda cache, soft: post(
        cache, "/new", Cache_Group_Invalidation=f'"other", "{GROUP}"'
    ),
}
PURGES = [
    (name, soft, purge)
    for table, kinds in ((HARD_AND_SOFT, (False, True)), (ONLY_HARD, (False,)))
    for name, purge in table.items()
    for soft in kinds
]
OTHERS = {
    "path": lambda cache, soft: cache.purge("/blog", "/blog/post/", "/blog/post?a=1", soft=soft),
    "url": lambda cache, soft: cache.purge(f"https://example.com{PATH}", soft=soft),
    "prefix": lambda cache, soft: cache.purge_prefix("/blog/post/a", "/blo", soft=soft),
    "group": lambda cache, soft: cache.purge_groups("post-2", "post", soft=soft),
    "unsafe request": lambda cache, soft: post(cache, "/blog"),
    "unsafe, elsewhere": lambda cache, soft: post(cache, "/new", Location=f"http://example.org{PATH}"),
}


class Workers:
    """Caches as several workers have them: one store, one site, one clock.

    Args:
        kind: `memory`: with the hit path's short way into the store. `plain`: a store that is only a store.
    """

    def __init__(self, kind="memory", site=None, journal_limit=65536, **options):
        self.site = site or Site()
        self.clock = FakeClock()
        memory = MemoryStore(journal_limit=journal_limit)
        self.store = memory if kind == "memory" else FailingStore(memory)
        options = {"rules": [Rule("/*", query="key")], "wait_timeout": 20, **options}
        self.one, self.two = (
            WSGICache(self.site.app, self.store, clock=self.clock, **options) for _ in range(2)
        )
