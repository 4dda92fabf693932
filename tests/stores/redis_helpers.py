"""What the tests of the Redis stores have in common."""

import time
from contextlib import contextmanager

import pytest

from wsgicache.codec import FORMAT
from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge, PurgeIndex, Verdict
from wsgicache.stores import StoreError, StoreOptions, open_store

PATIENT = 20.0
"""A deadline that a busy machine does not miss."""

KEY = "/page\0\0example.com\0http"


_opened = []


def opened(url, timeout=PATIENT, options="", **store_options):
    """A store over a URL, until the test ends."""
    _opened.append(open_store(f"{url}?timeout={timeout}s{options}", StoreOptions(**store_options)))
    return _opened[-1]


def close_opened():
    """Close their sockets, which may be part of cycles and are not to be closed by the garbage collector."""
    while _opened:
        _opened.pop().close()


def entry(store, key=KEY, body=b"body", born=None):
    """An entry that may be stored now."""
    headers = (("Content-Type", "text/plain"), ("Content-Length", str(len(body))))
    now = float(int(time.time()))
    terms = Terms("200 OK", "f" * 16, 300, "ttl")
    return Entry(key, terms, headers, body, now, now + 300.0, born or store.mark_of(key))


def put(store, key=KEY, body=b"body", born=None, token=0):
    """Store an entry for an hour."""
    made = entry(store, key, body, born)
    assert store.set(key, made, time.time() + 3600, token)
    return made


def body_of(store, key=KEY):
    """The body that is stored under a key."""
    (stored,), _ = store.get([key])
    return None if stored is None else stored.body


def served(store, index, key=KEY):
    """The body that a worker would serve, which follows the journal before it judges."""
    (stored,), mark = store.get([key])
    if index.mark != mark:
        index.follow(store.purges_since(index.mark))
    if stored is None or index.verdict(stored.born, key, ()) is not Verdict.VALID:
        return None
    return stored.body


def purge(store, key=KEY):
    """Purge one URL; the mark."""
    return store.append([Purge(Kind.URL, "p" + key.partition("\0")[0])], time.time())


def confirms(store, key=KEY):
    """Whether the hit path would serve what this process has decoded."""
    slot = store.peek(key)
    mark = slot and store.confirm(slot)
    return bool(mark) and mark.startswith(slot.stored.born.epoch.encode("ascii") + b" ")


class Clock:
    """Monotonic seconds that pass when they are told to."""

    def __init__(self, *stores):
        self.now = 1000.0
        for store in stores:
            if hasattr(store.link, "clock"):
                store.link.clock = self
            for breaker in (store.link.reading, store.link.writing):
                breaker.clock = self

    def __call__(self):
        return self.now

    def pass_pause(self):
        self.now += 6.0


@contextmanager
def fails(match=None):
    """The call raises StoreError."""
    with pytest.raises(StoreError, match=match) as told:
        yield told


def names(server):
    """What the keys of a server are called."""
    return sorted(server.ask("KEYS", "*"))


def name(server, ending):
    """The one key that ends like this."""
    (found,) = [key for key in names(server) if key.endswith(ending)]
    return found


def entry_names(server):
    """The keys that hold entries."""
    return [key for key in names(server) if b":%d:" % FORMAT in key]


def follower():
    return PurgeIndex()
