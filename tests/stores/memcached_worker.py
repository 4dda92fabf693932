"""A process of its own for the tests of memcached: `memcached_worker.py JOB ADDRESS… ARGUMENT`.

It says `ready`, waits for a line, does its job, and prints what came of it as JSON.
"""

import json
import os
import signal
import sys
import time

from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge, PurgeIndex, Verdict
from wsgicache.stores import StoreOptions
from wsgicache.stores.memcached import MemcachedStore

KEY = "/a\0\0example.com\0http"


def entry(store, body, born, key=KEY):
    return Entry(key, Terms("200 OK", "f", 300, "ttl"), (), body, 0.0, 300.0, born)


def append(store, name):
    """Purges of its own, whose marks it tells."""
    return [store.append([Purge(Kind.GROUP, f"{name} {n}")], 1.0).seq for n in range(100)]


def lease(store, name):
    """The tokens that it got for keys that all ask for."""
    return {f"/{n}": token for n in range(100) if (token := store.lease(f"/{n}", 60))}


def put(store, name):
    """Stores its own bodies under keys that all store, with its number as the token."""
    born = store.mark_of(KEY)
    return [
        store.set(f"/{n}", entry(store, name.encode(), born, f"/{n}"), time.time() + 60, int(name))
        for n in range(100)
    ]


def fill(store, name):
    """Answers with what the counter `name` says, through the store, as an engine does; tells what was served
    that had been out of date before it was asked for."""
    index, wrong, hits = PurgeIndex(), [], 0
    for _ in range(400):
        at_least = store.counters().get(name, 0)
        (stored,), mark = store.get([KEY])
        if index.mark != mark:
            index.follow(store.purges_since(index.mark))
        born = index.mark
        if isinstance(stored, Entry) and index.verdict(stored.born, KEY, ()) is Verdict.VALID:
            hits += 1
            if int(stored.body) < at_least:
                wrong.append([int(stored.body), at_least])
            continue
        body = str(store.counters().get(name + " data", 0)).encode()
        store.set(KEY, entry(store, body, born), time.time() + 60)
    return [hits, wrong]


def change(store, name):
    """Changes the data, purges, and only then says up to where nothing older may be served."""
    for number in range(1, 200):
        store.incr_many({name + " data": 1})
        store.append([Purge(Kind.URL, "p/a") if number % 2 else Purge(Kind.ALL, "")], 1.0)
        store.incr_many({name: 1})
    return True


def count(store, name):
    for _ in range(200):
        store.incr_many({name: 1, "another": 2})
    return True


def die(store, name):
    """Takes a lease, says until when at least, and is killed with it."""
    until = time.time() + 1.0
    token = store.lease(name, 1.0)
    print(json.dumps([token, until]), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def die_purging(store, name):
    """Is killed between the record and the mark."""
    real = store._journal.server

    class Deadly:
        name = real.name

        def call(self, command, *args, **options):
            if command == "cas":
                os.kill(os.getpid(), signal.SIGKILL)
            return real.call(command, *args, **options)

    store._journal.server = Deadly()
    store.append([Purge(Kind.GROUP, name)], 1.0)


def main():
    job, *addresses, name = sys.argv[1:]
    store = MemcachedStore(addresses, options=StoreOptions(timeout=5.0))
    store.mark_of("")
    print("ready", flush=True)
    sys.stdin.readline()
    told = globals()[job](store, name)
    store.close()
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
