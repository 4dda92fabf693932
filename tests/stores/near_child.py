"""A process with a near tier: it takes orders on its standard input, a line each, and answers with a line."""

import sys
import threading
import time

from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreError, StoreOptions, open_store
from wsgicache.stores.near import near_store

_nobody = threading.Event()


class Child:
    def __init__(self, url, bound):
        self.near = near_store(open_store(url, StoreOptions(memo_bytes=0, timeout=2.0)), bound=float(bound))

    def put(self, key, text):
        now = time.time()
        terms = Terms("200 OK", "f", 300, "ttl")
        entry = Entry(key, terms, (), text.encode(), now, now + 300, self.near.mark_of(key))
        return self.near.set(key, entry, entry.keep_until)

    def get(self, key):
        """What is there unless it was purged: the text and the number of the mark that it was judged at."""
        try:
            (stored,), mark = self.near.get([key])
        except StoreError as error:
            return f"down {error}"
        if stored is None or stored.born.seq < mark.seq:
            return f"nothing {mark.seq}"
        return f"{stored.body.decode()} {mark.seq}"

    def trusts(self):
        return time.monotonic() < self.near.trust.until

    def purge(self):
        return self.near.append([Purge(Kind.ALL, "")], time.time()).seq

    def settle(self):
        return self.near.settle()

    def followed(self, seq):
        """When the journal was followed to a number: seconds of the clock that all processes share."""
        deadline = time.monotonic() + 20
        while self.near._mark.seq < int(seq):
            assert time.monotonic() < deadline
            _nobody.wait(0.0001)
        return time.monotonic()


def main():
    child = Child(*sys.argv[1:])
    print("ready", flush=True)
    for line in sys.stdin:
        order, *words = line.split()
        keys = [f"{word}\0\0h\0http" if word.startswith("/") else word for word in words]
        print(getattr(child, order)(*keys), flush=True)


if __name__ == "__main__":
    main()
