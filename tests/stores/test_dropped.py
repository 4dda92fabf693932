"""What is dropped from a journal: the same in every store that keeps a table of it, whatever was purged."""

import itertools
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_helpers import opened
from servers_redis import shared

from wsgicache.dropped import hash_of
from wsgicache.journal import Kind, Purge, PurgeIndex, bounded
from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.memory import MemoryStore

LIMIT = 3
PATHS = ["/", "/a", "/a/b", "/c", "/" + "long" * 80]
FORMS = ["p{}", "q{}\0x=1", "ohttp://h\0{}", "uhttp://h\0{}\0"]
NAMES = ["x", "y", "long" * 80, "é\udcff"]
PURGES = st.one_of(
    st.builds(
        lambda form, path, soft: Purge(Kind.URL, form.format(path), soft),
        st.sampled_from(FORMS), st.sampled_from(PATHS), st.booleans(),
    ),
    st.builds(lambda path: Purge(Kind.PREFIX, "p" + path.rstrip("/")), st.sampled_from(PATHS)),
    st.builds(lambda group: Purge(Kind.GROUP, f"g{group}"), st.sampled_from(NAMES)),
    st.sampled_from([Purge(Kind.META, "rule:x"), Purge(Kind.META, "rule:y"), Purge(Kind.ALL, "", True)]),
)  # fmt: skip
rooms = itertools.count()


def told(snapshot):
    """What a snapshot says, beside what is random."""
    table = snapshot.table
    return (
        (snapshot.mark.seq, snapshot.floor, snapshot.dropped, snapshot.whole),
        [(record.seq, record.kind, record.target, record.soft) for record in snapshot.records],
        None if table is None or not snapshot.dropped else (list(table.table), table.last),
    )


def stores(directory):
    pytest.importorskip("lmdb")
    yield MemoryStore(journal_limit=LIMIT)
    yield open_store(f"lmdb://{directory}?max_bytes=4MiB&journal={LIMIT}", StoreOptions())
    yield opened(shared().url, options=f"&journal={LIMIT}").namespaced(f"dropped {next(rooms)}")


@settings(max_examples=15, deadline=None)
@given(st.lists(st.lists(PURGES, min_size=1, max_size=4), min_size=2, max_size=12))
def test_all_stores_drop_alike(steps):
    with TemporaryDirectory() as directory:
        alike = list(stores(directory))
        marks = [[store.mark_of("")] for store in alike]
        for purges in steps:
            for store, known in zip(alike, marks, strict=True):
                known.append(store.append(bounded(purges), 1.0))
        snapshots = [store.purges_since(None) for store in alike]
        first, *others = [told(snapshot) for snapshot in snapshots]
        assert others == [first, first]
        indexes = [PurgeIndex() for _ in alike]
        for index, snapshot in zip(indexes, snapshots, strict=True):
            index.follow(snapshot)
        for path, groups in itertools.product(PATHS, ((), ("x", "long" * 80))):
            key = f"{path}\0\0h\0http"
            said = [
                [index.verdict(born, key, groups) for born in known]
                for index, known in zip(indexes, marks, strict=True)
            ]
            assert said[0] == said[1] == said[2]
        for store in alike:
            store.close()


def test_a_url_falls_into_the_slot_of_its_path():
    """Whatever its form says of the query and the origin."""
    forms = ["p/a", "q/a\0x=1", "ohttp://h\0/a", "uhttp://h\0/a\0x=1"]
    assert {hash_of("url", form) for form in forms} == {hash_of("url", "p/a")}
    assert hash_of("url", "p/b") != hash_of("url", "p/a") != hash_of("prefix", "p/a")
