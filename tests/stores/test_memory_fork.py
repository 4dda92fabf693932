"""Fork: a child works with what was stored before, and no lock that somebody held stops it."""

import os
import signal
import threading
from contextlib import ExitStack

import pytest
from waiting import PATIENCE

from wsgicache import WSGICache
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import Response, ScriptedApp, ask

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork"),
    # Python 3.12 and later warn of what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]


def in_child(work):
    """Run `work` in a forked child; return what it returned, as text. A child that hangs is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        told = b"raised"
        try:
            signal.alarm(10)
            told = str(work()).encode()
        except BaseException as error:
            told = f"raised {error!r}".encode()
        finally:
            os.write(writer, told)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status), "the child hung"
    return told.decode()


class HeldElsewhere:
    """Locks that another thread holds, as it may at the moment of a fork."""

    def __init__(self, *locks):
        self._held = threading.Event()
        self._let_go = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(locks,))

    def _hold(self, locks):
        with ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            self._held.set()
            self._let_go.wait(PATIENCE)

    def __enter__(self):
        self._thread.start()
        assert self._held.wait(PATIENCE)

    def __exit__(self, *exc):
        self._let_go.set()
        self._thread.join()


def put(store, key="/a"):
    terms = Terms("200 OK", "f", 300, "ttl")
    return store.set(key, Entry(key, terms, (), b"body", 0.0, 300.0, store.mark), 1e12)


def use(store):
    """Every method once; what is left afterwards."""
    put(store, "/b")
    found = [stored is not None for stored in store.get(["/a", "/b"])[0]]
    store.append([Purge(Kind.ALL, "")], 0.0)
    store.delete("/b")
    store.namespaced("other")
    store.purges_since(None)
    return f"{found} {len(list(store.scan()))} {store.stats()['entries']} {store.mark.seq}"


def test_a_child_has_what_was_stored_before():
    store = MemoryStore()
    put(store)
    assert in_child(lambda: use(store)) == "[True, True] 1 1 1"
    assert [store.stats()["entries"], store.mark.seq] == [1, 0]  # the parent saw nothing of it
    assert use(store) == "[True, True] 1 1 1"


def test_a_lock_held_at_the_fork_does_not_stop_the_child():
    store = MemoryStore()
    put(store)
    mark = store.mark
    with HeldElsewhere(store._pool.lock):
        # Somebody was changing the store: the child cannot trust it, and begins anew.
        told = in_child(lambda: f"{store.mark.epoch != mark.epoch} {use(store)} {store.stats()['bytes']}")
    assert told == "True [False, True] 0 0 1 0"
    assert store.stats()["entries"] == 1


def test_every_namespace_begins_anew():
    store = MemoryStore()
    part = store.namespaced("part")
    put(store)
    put(part)
    with HeldElsewhere(store._pool.lock):
        assert in_child(lambda: f"{use(part)} {use(store)}") == "[False, True] 0 0 1 [False, True] 0 0 1"


def test_a_slot_that_was_half_in_does_no_harm():
    """The moment between the dictionary and the queue, when the fork comes."""
    store = MemoryStore()
    put(store)
    put(store, "/c")
    store._budgets.remove(store.peek("/a"))
    with HeldElsewhere(store._pool.lock):
        assert in_child(lambda: f"{use(store)} {store.stats()['bytes']}") == "[False, True] 0 0 1 0"


def locks_of(cache):
    """Every lock that a request may take, wherever it is kept."""
    engine = cache.engine
    owners = [engine.records, engine.collapse, engine.refresher, engine.observer, engine.spool]
    owners += [engine, engine.store, engine.store._pool]
    kind = type(threading.Lock())
    return [value for owner in owners for value in vars(owner).values() if isinstance(value, kind)]


def visit(cache, app):
    """A miss, a hit, a variant, a purge and an unstorable page, in a child."""
    told = [ask(cache, "/a").is_hit, ask(cache, "/a").is_hit, ask(cache, "/v").is_hit]
    cache.purge("/a")
    told += [ask(cache, "/a").is_hit, ask(cache, "/a").is_hit, ask(cache, "/private").is_hit]
    cache.stats()
    return told


@pytest.fixture
def app():
    def answer(environ):
        extra = {"/v": [("Vary", "Accept-Language")], "/private": [("Cache-Control", "private")]}
        return Response(headers=extra.get(environ["PATH_INFO"], []), body=b"body")

    return ScriptedApp(answer)


def test_a_cache_works_in_a_child_whatever_was_locked(app):
    cache = WSGICache(app)
    for _ in range(2):
        ask(cache, "/a")
    locks = locks_of(cache)
    assert len(locks) >= 6
    with HeldElsewhere(*locks):
        told = in_child(lambda: visit(cache, app))
    assert told == str([False, True, False, False, True, False])
    assert ask(cache, "/a").is_hit


def test_a_cache_in_a_child_serves_what_was_stored_before(app):
    cache = WSGICache(app)
    ask(cache, "/a")
    assert in_child(lambda: visit(cache, app)) == str([True, True, False, False, True, False])
    assert ask(cache, "/a").is_hit  # a purge in a child is the child's


def test_a_child_does_not_wait_for_a_leader_that_only_the_parent_has(app):
    cache = WSGICache(app)
    gate = app.hold("/a")
    leader = threading.Thread(target=ask, args=(cache, "/a"))
    leader.start()
    gate.wait_entered()

    def child():
        app.release("/a")
        return ask(cache, "/a").cache.get("fwd")

    assert in_child(child) == "uri-miss"
    gate.open()
    leader.join()
    assert ask(cache, "/a").is_hit
