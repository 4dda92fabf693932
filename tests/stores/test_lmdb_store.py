"""The LMDB store in one process: hits, eviction, bounds, restarts."""

import random
import time

import lmdb_helpers as helpers
import pytest
from lmdb_helpers import body_of, counts_agree, entry, open_lmdb, put, slot_of

from wsgicache.codec import encode_mark
from wsgicache.entry import Variants
from wsgicache.journal import Kind, Purge, PurgeIndex, Verdict
from wsgicache.stores import (
    MOST_COUNTERS,
    StoreError,
    StoreOptions,
    lmdbhandle,
    lmdbjournal,
    open_store,
)
from wsgicache.stores.lmdbrecords import TOTALS, Totals


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(directory):
    store = open_lmdb(directory)
    yield store
    store.close()


def other_slot(store, key):
    """A page that is popular: this process was asked for it."""
    slot = slot_of(store, key)
    assert store.confirm(slot)
    return slot


# --- confirm ----------------------------------------------------------------------------------------


def test_a_hit_is_confirmed_with_the_mark_as_it_is_stored(store):
    put(store)
    slot = slot_of(store)
    assert slot.mark == encode_mark(store.mark_of("/a"))
    assert [store.confirm(slot) for _ in range(3)] == [slot.mark] * 3


def test_a_change_elsewhere_in_the_file_is_no_change_of_the_page(store):
    put(store)
    slot = slot_of(store)
    put(store, "/b")
    store.incr_many({"hits": 1})
    assert store.confirm(slot) == slot.mark
    assert store.peek("/a") is slot


def test_names_of_counters_do_not_grow_for_ever(store):
    """Workers that come and go bring those of others."""
    store.incr_many({f"hits<{number}>": 1 for number in range(MOST_COUNTERS - 1)})
    store.incr_many({"hits<0>": 1, "first": 1, "second": 1})
    counters = store.counters()
    assert (len(counters), counters["hits<0>"], counters["first"]) == (MOST_COUNTERS, 2, 1)


def test_a_purge_moves_the_mark(store):
    put(store)
    slot = slot_of(store)
    moved = store.append([Purge(Kind.URL, "p/b")], 1.0)
    assert store.confirm(slot) == encode_mark(moved) != slot.mark


@pytest.mark.parametrize("change", ["replaced", "deleted", "cleared", "expired"])
def test_what_is_not_stored_any_more_is_not_confirmed(store, change, monkeypatch):
    put(store)
    slot = slot_of(store)
    if change == "replaced":
        put(store, body=b"other")
    elif change == "deleted":
        store.delete("/a")
    elif change == "cleared":
        store.clear()
    else:
        later = time.time() + 7200
        monkeypatch.setattr(time, "time", lambda: later)
        put(store, "/b")  # whoever stores clears away what is over
    assert store.confirm(slot) is None
    assert store.peek("/a") is None


def test_the_same_page_stored_again_is_another_record(store):
    same = entry(store)
    store.set("/a", same, time.time() + 3600)
    slot = slot_of(store)
    store.set("/a", same, time.time() + 3600)
    assert store.confirm(slot) is None
    assert body_of(store) == b"body"


def test_what_does_not_fit_the_memo_takes_the_long_way(directory):
    store = open_lmdb(directory, memo_bytes=0)
    put(store, body=b"x" * 100_000)
    assert body_of(store) == b"x" * 100_000
    assert store.peek("/a") is None
    store.close()


def test_a_body_is_read_once(store):
    put(store, body=b"x" * 100_000)
    first = store.get(["/a"])[0][0]
    put(store, "/b")
    assert store.get(["/a"])[0][0] is first


# --- DSK-02, DSK-05 ---------------------------------------------------------------------------------


def test_dsk_02_one_handle_for_all_who_open_a_path(directory, store):
    put(store)
    other = open_lmdb(directory.parent / "." / "cache")
    assert body_of(other) == b"body"
    assert other._file is store._file
    other.close()
    other.close()
    assert body_of(store) == b"body"


def test_dsk_02_of_two_sizes_in_one_process_the_larger_holds(directory, store):
    put(store)
    other = open_lmdb(directory, 16_000_000)
    assert [store.stats()["max_bytes"], other.stats()["max_bytes"]] == [16_000_000] * 2
    assert body_of(other) == b"body"
    smaller = open_lmdb(directory, 5_000_000)
    for number in range(100):
        assert put(smaller, f"/{number}", b"x" * 100_000)
    assert body_of(store) == b"body"
    assert store.stats()["evicted"] == 0
    other.close()
    smaller.close()


def test_a_closed_store_opens_again(store):
    put(store)
    store.close()
    assert store._file.handle is None
    assert body_of(store) == b"body"
    store._file.renew(store._file.handle)


def readers(store):
    """Transactions that hold on to old pages."""
    lines = store._file.attend().env.readers().splitlines()[1:]
    return [line for line in lines if line.split() and line.split()[-1] != "-"]


def test_dsk_05_no_transaction_is_open_between_calls(directory):
    store = open_lmdb(directory, memo_bytes=0)
    for number in range(40):
        put(store, f"/{number}", b"x" * 20_000)
    found = store.get(["/1", "/2"])
    scan = store.scan()
    assert next(scan)
    store.purges_since(None)
    store.lease("/1", 60)
    assert readers(store) == []
    for _ in range(20):  # what a client still reads is a copy: other pages may take its place
        for number in range(40):
            put(store, f"/{number}", b"y" * 20_000)
    assert {found[0][0].body, found[0][1].body} == {b"x" * 20_000}
    assert len(list(scan)) > 0
    store.close()


def test_slots_of_a_reader_that_was_confirmed_hold_nothing(store):
    put(store)
    slot = slot_of(store)
    store.confirm(slot)
    put(store)
    store.confirm(slot)
    assert readers(store) == []


# --- eviction ---------------------------------------------------------------------------------------


def test_what_nobody_asks_for_goes_first(store):
    for number in range(20):
        put(store, f"/popular/{number}", b"x" * 10_000)
    for turn in range(40):
        for number in range(20):
            other_slot(store, f"/popular/{number}")
        for number in range(50):
            assert put(store, f"/scan/{turn}/{number}", b"x" * 10_000)
    assert [body_of(store, f"/popular/{number}") is not None for number in range(20)] == [True] * 20
    assert store.stats()["evicted"] > 1000
    counts_agree(store)


def test_a_hit_writes_nothing(store):
    put(store)
    slot = slot_of(store)
    before = store._file.attend().env.info()["last_txnid"]
    for _ in range(100):
        store.confirm(slot)
        store.get(["/a"])
    assert store._file.attend().env.info()["last_txnid"] == before


def test_negatives_have_a_budget_of_their_own(store):
    for number in range(50):
        put(store, f"/page/{number}", b"x" * 4000)
    for number in range(3000):
        put(store, f"/scan/{number}", b"Not Found" * 50, status="404 Not Found", negative=True)
    stats = store.stats()
    assert stats["negative_bytes"] < 8_000_000 // 20
    assert [body_of(store, f"/page/{number}") is not None for number in range(50)] == [True] * 50
    counts_agree(store)


def test_floods_take_no_popular_page(store):
    """Pages have what negatives do not use, and give it back when those come; the popular ones stay."""
    popular = [f"/popular/{number}" for number in range(300)]
    for key in popular:
        put(store, key, b"x" * 4000)
    store.get(popular)
    for number in range(2500):
        put(store, f"/once/{number}", b"x" * 4000)
    full = store.stats()
    assert (full["negative_bytes"], full["evicted"] > 1000) == (0, True)
    for number in range(3000):
        put(store, f"/scan/{number}", b"Not Found" * 50, status="404 Not Found", negative=True)
    stats = store.stats()
    assert 8_000_000 // 60 < stats["negative_bytes"] < 8_000_000 // 20
    assert stats["bytes"] <= full["bytes"] + 16_384
    assert all(store.get(popular)[0])
    counts_agree(store)


def test_what_is_over_goes_before_what_is_not(store, monkeypatch):
    for number in range(100):
        put(store, f"/old/{number}", b"x" * 10_000, keep=10 if number % 2 else 3600)
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    for number in range(100):
        put(store, f"/new/{number}", b"x" * 10_000)
    left = [body_of(store, f"/old/{number}") is not None for number in range(100)]
    assert left == [True, False] * 50
    assert store.stats()["evicted"] == 0
    counts_agree(store)


def test_what_is_refused_for_its_size_leaves_nothing_older(store):
    put(store)
    assert not put(store, body=b"x" * 7_000_000)
    assert body_of(store) is None
    counts_agree(store)


def test_deleting_gives_back_all_that_it_took(store):
    empty = store.stats()["bytes"]
    for size in (0, 1, 2000, 4096, 100_000, 1_000_000):
        put(store, f"/{size}", b"x" * size)
    assert counts_agree(store) == 6
    for size in (0, 1, 2000, 4096, 100_000, 1_000_000):
        assert store.delete(f"/{size}")
    assert counts_agree(store) == 0
    assert store.stats()["bytes"] == empty


# --- the bound --------------------------------------------------------------------------------------


def test_a_days_churn_stays_within_the_bound(directory):
    """Sizes from bytes to megabytes, deaths of all kinds, purges: fragments are what fills a file."""
    dice = random.Random(5)
    store = open_lmdb(directory, memo_bytes=100_000)
    refused = failed = 0
    for turn in range(12_000):
        key = f"/{int(3000 * dice.random() ** 3)}"
        if store.get([key])[0][0] is not None:
            continue
        body = bytes([turn % 251]) * min(1_000_000, int(dice.lognormvariate(8.5, 1.3)))
        try:
            refused += not put(
                store, key, body, keep=dice.choice([3600.0, 1.0]), negative=dice.random() < 0.05
            )
        except StoreError:
            failed += 1
        if turn % 50 == 0:
            store.append([Purge(Kind.URL, key)], 1.0)
        if turn % 97 == 0:
            store.delete(key)
        if turn % 500 == 0:
            assert store.stats()["file_bytes"] <= 8_000_000
    assert store.stats()["file_bytes"] <= 8_000_000
    assert store.stats()["evicted"] > 1000  # it was full many times over
    assert failed <= 3
    assert refused <= 20
    counts_agree(store)
    store.close()


def test_the_journal_takes_its_part_of_the_file_at_most(directory):
    store = open_lmdb(directory, 4 << 20)
    start = store.mark_of("/a")
    for number in range(60):
        store.append([Purge(Kind.GROUP, f"{number}/{i}/" + "x" * 200) for i in range(100)], 1.0)
    snapshot = store.purges_since(start)
    assert 1000 < len(snapshot.records) < 6000
    assert snapshot.floor == 6000 - len(snapshot.records)
    assert put(store)
    assert store.stats()["file_bytes"] <= 4 << 20
    store.close()


def verdicts(index, born, count):
    return [index.verdict(born, f"/{number}\0\0h\0http", ()) for number in range(count)]


def dropping(directory, journal=100, more=60):
    """A store whose journal has dropped its first purges, and the mark before all of them."""
    store = open_store(f"lmdb://{directory}?max_bytes=8MB&journal={journal}", StoreOptions())
    start = store.mark_of("/a")
    for number in range(journal + more):
        store.append([Purge(Kind.URL, f"p/{number}")], 1.0)
    return store, start


def test_what_is_dropped_is_in_the_table(directory):
    store, start = dropping(directory)
    for late in (store, open_store(f"lmdb://{directory}?max_bytes=8MB", StoreOptions())):
        snapshot = late.purges_since(None)
        assert (snapshot.floor, snapshot.dropped, snapshot.slots) == (0, 60, 400)
        index = PurgeIndex()
        index.follow(snapshot)
        said = verdicts(index, start, 400)
        assert set(said[:160]) == {Verdict.HARD}
        assert 15 < said[160:].count(Verdict.HARD) < 60, "60 of 400 slots are taken, some of them twice"
        late.close()


def test_a_table_that_cannot_be_read_is_a_miss_for_all_below(directory):
    store, start = dropping(directory)

    def spoil(handle, transaction):
        with handle.env.begin(write=True) as other:
            cursor = other.cursor(handle.journal)
            names = [key for key, value in cursor.iternext() if len(value) == 1024]
            other.put(names[0], b"short", db=handle.journal)
        return len(names)

    assert store._file.read(spoil) > 1
    index = PurgeIndex()
    index.follow(store.purges_since(None))
    assert set(verdicts(index, start, 400)) == {Verdict.HARD}
    store.close()


def test_a_new_epoch_clears_the_table_away(directory):
    store, start = dropping(directory)
    assert store.clear().epoch != start.epoch
    for number in range(300):
        store.append([Purge(Kind.URL, f"p/{number % 10}")], 1.0)
    totals = store._file.read(lambda handle, txn: Totals.read(txn.get(TOTALS, db=handle.room)))
    assert totals.journal < 10 * 300
    assert store.purges_since(None).dropped == 0
    store.close()


def test_leases_that_have_ended_are_cleared_away(store, monkeypatch):
    monkeypatch.setattr("wsgicache.stores.lmdbroom._LEASES", 100)
    for number in range(1000):
        assert store.lease(f"/{number}", 0.0)
    handle = store._file.attend()
    with handle.env.begin() as transaction:
        assert transaction.stat(handle.leases)["entries"] <= 120


# --- restarts ---------------------------------------------------------------------------------------


def test_what_was_stored_survives_a_restart(directory, store):
    put(store)
    store.append([Purge(Kind.URL, "p/b", soft=True)], 2.0)
    mark = store.mark_of("/a")
    store.set_meta("rules", "text")
    store.incr_many({"hits": 3})
    token = store.lease("/b", 60)
    store.close()
    again = open_lmdb(directory)
    assert body_of(again) == b"body"
    assert again.mark_of("/a") == mark
    assert [(r.seq, r.target, r.soft, r.at) for r in again.purges_since(None).records] == [
        (1, "p/b", True, 2.0)
    ]
    assert again.purges_since(mark).whole is False
    assert (again.get_meta("rules"), dict(again.counters())) == ("text", {"hits": 3})
    assert again.lease("/b", 60) is None
    again.release("/b", token)
    assert again.lease("/b", 60) > token
    again.close()


def test_what_an_interrupted_clear_left_is_not_seen_and_goes(store, monkeypatch):
    for number in range(30):
        put(store, f"/{number}")
    store.append([Purge(Kind.URL, f"p/{number}") for number in range(30)], 1.0)
    monkeypatch.setattr(type(store), "_clear_some", lambda self, mark, after, work: None)
    store.clear()
    assert store.get(["/1", "/2"])[0] == [None, None]
    assert list(store.scan()) == []
    assert store.delete("/3") is False
    assert put(store, "/4", b"new")
    assert body_of(store, "/4") == b"new"
    monkeypatch.undo()
    store.clear()
    assert counts_agree(store) == 0
    with store._file.handle.env.begin() as transaction:
        assert transaction.stat(store._file.handle.journal)["entries"] == 0
    assert store.stats()["entries"] == 0


def test_clear_takes_few_entries_a_transaction(store, monkeypatch):
    monkeypatch.setattr("wsgicache.stores.lmdb._CLEARED", 7)
    part = store.namespaced("part")
    for number in range(50):
        put(store, f"/{number}")
        put(part, f"/{number}")
    store.append([Purge(Kind.URL, f"p/{number}") for number in range(50)], 1.0)
    store.clear()
    assert counts_agree(store) == 50
    assert len(list(part.scan())) == 50


def test_a_record_of_varying_fields_does_not_survive_a_clear(store):
    store.set("/v", Variants("/v", ("accept",), ("/v\1-",), time.time() + 300), time.time() + 300)
    assert store.get(["/v"])[0][0] is not None
    store.clear()
    assert store.get(["/v"])[0] == [None]


# --- the journal ------------------------------------------------------------------------------------


def test_a_mark_of_long_ago_is_another_history(store, monkeypatch):
    monkeypatch.setattr(lmdbjournal, "NONCES", 10)
    marks = [store.append([Purge(Kind.URL, "p/a")], 1.0) for _ in range(30)]
    assert [store.purges_since(mark).whole for mark in marks] == [True] * 19 + [False] * 11
    handle = store._file.attend()
    with handle.env.begin() as transaction:  # a record, a target, ten nonces
        assert transaction.stat(handle.journal)["entries"] <= 13


def test_a_url_written_to_all_day_takes_one_line(store):
    born = store.mark_of("/a")
    for _ in range(500):
        store.append([Purge(Kind.URL, "p/a")], 1.0)
    assert [record.seq for record in store.purges_since(None).records] == [500]
    index = PurgeIndex()
    index.follow(store.purges_since(None))
    assert index.verdict(born, "/b\0\0example.com\0http", ()) is Verdict.VALID


def test_a_page_that_does_not_exist_any_more_is_looked_for_at_once(directory, store, monkeypatch):
    """The directory was removed under a running process: within a second it makes a new one."""
    put(store)
    slot = slot_of(store)
    for file in directory.iterdir():
        file.unlink()
    monkeypatch.setattr(store._file, "due", 0.0)
    assert store.confirm(slot) is None
    assert body_of(store) is None
    assert put(store)
    assert helpers.ping(store) == next(directory.glob("*.mdb")).stat().st_ino


def test_a_purge_reaches_the_file_that_a_newcomer_opens(directory, store):
    """Even where this process has not noticed yet that its own was removed."""
    before = store.mark_of("/a")
    for file in directory.iterdir():
        file.unlink()
    mark = store.append([Purge(Kind.ALL, "")], 1.0)
    assert mark.epoch != before.epoch
    assert helpers.ping(store) == next(directory.glob("*.mdb")).stat().st_ino
    assert store.mark_of("/a") == mark


def test_the_timer_is_looked_at_by_hits(store, monkeypatch):
    put(store)
    slot = slot_of(store)
    store.confirm(slot)
    looks = []
    monkeypatch.setattr(lmdbhandle.Handle, "is_current", lambda self: looks.append(1) or True)
    store.confirm(slot)
    assert looks == []
    store._file.due = 0.0
    assert store.confirm(slot)
    assert looks == [1]
