"""The LMDB store beside the memory store: the same calls, in any order, give the same answers."""

import time
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st
from lmdb_helpers import counts_agree, entry, open_lmdb

from wsgicache.entry import Variants
from wsgicache.journal import Kind, Purge
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing.contract import contents

keys = st.sampled_from(["/a", "/a\1=x", "/\ud800", "/b"])
small = st.integers(0, 3)
steps = st.one_of(
    st.tuples(st.just("set"), keys, st.integers(0, 9), small, st.binary(max_size=9), st.booleans()),
    st.tuples(st.just("vary"), keys),
    st.tuples(st.just("get"), st.lists(keys, max_size=3)),
    st.tuples(st.just("delete"), keys),
    st.tuples(st.just("delete only"), keys, st.booleans()),
    st.tuples(
        st.just("append"), st.lists(st.tuples(st.sampled_from(Kind), small, st.booleans()), max_size=3)
    ),
    st.tuples(st.just("clear")),
    st.tuples(st.just("since"), st.integers(0, 9)),
    st.tuples(st.just("lease"), keys),
    st.tuples(st.just("release"), keys, st.booleans()),
    st.tuples(st.just("room")),
    st.tuples(st.just("reopen")),
)


class Side:
    """One store, and what it has given so far: marks, leases, things that were stored."""

    def __init__(self, store):
        self.store = store
        self.marks = [store.mark_of("/a")]
        self.tokens = {}

    def run(self, step):
        """Do a step; the answer in words that two stores can share, such as numbers instead of nonces."""
        name, *args = step
        return getattr(self, name.replace(" ", "_"))(*args)

    def _number(self, mark):
        return self.marks.index(mark) if mark in self.marks else f"unknown {mark.seq}"

    def _moved(self, mark):
        if mark not in self.marks:
            self.marks.append(mark)
        return self._number(mark), mark.seq

    def set(self, key, born, token, body, negative):
        base = key.partition("\1")[0]
        mark = self.marks[born % len(self.marks)]
        stored = entry(self.store, base, body, mark, negative=negative)
        return self.store.set(key, stored, time.time() + 3600, token)

    def vary(self, key):
        base = key.partition("\1")[0]
        return self.store.set(base, Variants(base, ("accept",), (), 9e9), time.time() + 3600)

    def get(self, names):
        found, mark = self.store.get(names)
        return [self._told(stored) for stored in found], self._number(mark)

    def _told(self, stored):
        if stored is None:
            return None
        told = [*contents(stored)]
        if told[0] == "Entry":
            told[5:7] = []  # instants are those of the call
            told[5] = self._number(told[5])
        return told

    def delete(self, key):
        return self.store.delete(key)

    def delete_only(self, key, ours):
        found = self.store.get([key])[0][0]
        if found is None:
            return None
        return self.store.delete(key, found if ours else entry(self.store, "/other"))

    def append(self, purges):
        return self._moved(self.store.append([Purge(kind, f"t{n}", soft) for kind, n, soft in purges], 1.0))

    def clear(self):
        return self._moved(self.store.clear())

    def since(self, mark):
        snapshot = self.store.purges_since(self.marks[mark % len(self.marks)])
        records = [(r.seq, r.kind, r.target, r.soft, r.at) for r in snapshot.records]
        return self._number(snapshot.mark), snapshot.floor, records, snapshot.whole

    def lease(self, key):
        token = self.store.lease(key, 60)
        if token:
            self.tokens[key] = token
        return token

    def release(self, key, unstorable):
        self.store.release(key, self.tokens.get(key, 0), 60.0 if unstorable else 0.0)

    def room(self):
        scanned = sorted(str(self._told(stored)) for stored in self.store.scan("/"))
        return scanned, self.store.stats()["entries"], self.store.stats()["purges"]

    def reopen(self):
        renew = getattr(self.store, "_file", None)
        if renew is not None:
            renew.renew(renew.attend())


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=25))
def test_it_answers_as_the_memory_store_does(plan):
    with TemporaryDirectory() as directory:
        ours = open_lmdb(f"{directory}/cache", 4 << 20)
        try:
            one, two = Side(ours), Side(MemoryStore())
            for step in plan:
                assert one.run(step) == two.run(step), step
            counts_agree(ours)
        finally:
            ours.close()
