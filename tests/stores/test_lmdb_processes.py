"""The LMDB store between processes: what one does the others see, and a dead one harms nobody."""

import ctypes
import multiprocessing
import os
import random
import sys
import threading
import time
from contextlib import suppress
from functools import partial

import lmdb_helpers as helpers
import pytest
from lmdb_helpers import body_of, counts_agree, entry, open_lmdb, put, slot_of, workers

from wsgicache import forks
from wsgicache.codec import encode_mark
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreError, lmdbfile

METHODS = [name for name in ("fork", "spawn") if name in multiprocessing.get_all_start_methods()]

pytestmark = [
    # Python 3.12 and later warn of what is tested here.
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(directory):
    store = open_lmdb(directory)
    yield store
    store.close()


# --- visible at once --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_set_is_seen_by_all_at_once(directory, store, method):
    with workers(method, directory, 2) as (one, two):
        for turn in range(20):
            body = str(turn).encode()
            assert one.call("put", "/a", body)
            assert [body_of(store), two.call("body_of", "/a")] == [body, body]
            assert put(store, "/b", body)
            assert [one.call("body_of", "/b"), two.call("body_of", "/b")] == [body, body]


@pytest.mark.parametrize("method", METHODS)
def test_a_purge_is_seen_by_all_at_once(directory, store, method):
    put(store)
    slot = slot_of(store)
    with workers(method, directory, 2) as (one, two):
        for turn in range(20):
            mark = one.call("append", [Purge(Kind.URL, f"p/{turn}")], 1.0)
            assert store.confirm(slot) == encode_mark(mark)
            assert two.call("mark_of", "/a") == mark
        assert one.call("purges_since", None) == two.call("purges_since", None) == store.purges_since(None)


def test_what_another_process_replaced_is_not_confirmed(directory, store):
    put(store)
    with workers("spawn", directory) as (one,):
        for change in (("put", "/a", b"other"), ("delete", "/a"), ("put", "/a"), ("clear",)):
            put(store)
            slot = slot_of(store)
            one.call(*change)
            assert store.confirm(slot) is None


def test_a_purge_in_one_process_fences_a_fill_in_another(directory, store):
    with workers("spawn", directory) as (one,):
        early = entry(store)
        assert one.call("append", [Purge(Kind.URL, "p/a")], 1.0).seq == 1
        assert one.call("put", "/a", b"late")
        assert store.set("/a", early, time.time() + 3600) is False
        assert body_of(store) == b"late"
        one.call("clear")
        assert store.set("/a", early, time.time() + 3600) is False


def test_no_purge_is_lost_between_processes(directory, store):
    start = store.mark_of("/a")
    with workers("spawn", directory, 3) as three:
        for number, worker in enumerate(three):
            worker.begin("append_many", number, 100)
        marks = [mark for worker in three for mark in worker.result()]
    assert sorted(mark.seq for mark in marks) == list(range(1, 301))
    records = store.purges_since(start).records
    assert [record.seq for record in records] == list(range(1, 301))
    assert {r.target for r in records} == {f"{n}/{turn}" for n in range(3) for turn in range(100)}


def test_all_count_together(directory, store):
    with workers("spawn", directory, 3) as three:
        for worker in three:
            worker.begin("count_many", 100)
        for worker in three:
            worker.result()
    assert dict(store.counters()) == {"hits": 300}


# --- leases -----------------------------------------------------------------------------------------


def test_one_process_holds_a_lease(directory, store):
    with workers("spawn", directory, 2) as (one, two):
        for turn in range(10):
            one.begin("lease", f"/{turn}", 60)
            two.begin("lease", f"/{turn}", 60)
            tokens = [one.result(), two.result(), store.lease(f"/{turn}", 60)]
            assert len([token for token in tokens if token]) == 1
        token = one.call("lease", "/a", 60)
        assert store.lease("/a", 60) is None
        store.release("/a", token + 1)
        assert two.call("lease", "/a", 60) is None
        one.call("release", "/a", token, 60.0)
        assert [store.lease("/a", 60), two.call("lease", "/a", 60)] == [0, 0]


def test_con_08_a_killed_holder_costs_its_lease_and_its_late_page_is_refused(directory, store):
    with workers("spawn", directory, 1) as (one,):
        late = one.call("lease", "/a", 0.5)
        one.kill()
    assert store.lease("/a", 60) is None
    deadline = time.monotonic() + helpers.PATIENCE
    while not (token := store.lease("/a", 60)):
        assert time.monotonic() < deadline
    assert token > late
    assert put(store, "/a", b"new", token=token)
    assert not put(store, "/a", b"late", token=late)
    assert body_of(store) == b"new"


# --- killed writers and readers ---------------------------------------------------------------------


def test_a_writer_killed_with_the_write_lock_stops_nobody(directory, store):
    put(store, "/a", b"whole")
    with workers("spawn", directory) as (one,):
        one.call("hold_write_lock", "/a")
        one.kill()
    assert body_of(store) == b"whole"
    assert put(store, "/b")
    assert store.append([Purge(Kind.URL, "p/a")], 1.0).seq == 1
    assert counts_agree(store) == 2


def test_reads_wait_for_no_writer(directory, store):
    put(store)
    slot = slot_of(store)
    put(store, "/b")
    with workers("spawn", directory) as (one,):
        one.call("hold_write_lock", "/a")
        assert body_of(store) == b"body"
        assert store.confirm(slot) == slot.mark
        assert len(list(store.scan())) == 2
        assert store.purges_since(None).records == []
        one.call("unpin")
    assert put(store, "/c")


def _write_for_ever(pipe, directory, max_bytes):
    """Store pages whose bytes are all the same; say after each how many purges there were."""
    store = open_lmdb(directory, max_bytes)
    dice = random.Random(os.getpid())
    seq = 0
    while True:
        key = f"/{dice.randrange(40)}"
        body = os.urandom(1) * dice.choice([10, 3000, 20_000, 70_000])
        with suppress(StoreError):  # others may read what is needed for it
            put(store, key, body)
        if dice.random() < 0.2:
            store.delete(f"/{dice.randrange(40)}")
        if dice.random() < 0.2:
            seq = store.append([Purge(Kind.URL, key)], 1.0).seq
        pipe.send((None, seq))


@needs_fork
def test_int_12_killed_while_writing_200_times(directory):
    """Every page is whole or absent, each count is right, and no purge that was told of is lost."""
    store = open_lmdb(directory, 16_000_000)
    dice = random.Random(7)
    told = 0
    writers = [helpers.Worker("fork", directory, 16_000_000, _write_for_ever) for _ in range(3)]
    try:
        for kills in range(200):
            victim = writers.pop(0)
            for _ in range(dice.randrange(1, 6)):
                told = max(told, victim.result())
            victim.kill()  # wherever it is: it goes on writing while this reads what it said
            victim.stop()
            writers.append(helpers.Worker("fork", directory, 16_000_000, _write_for_ever))
            if kills % 20 == 0:
                _expect_whole_pages(store)
    finally:
        for writer in writers:
            writer.kill()
            writer.stop()
    assert _expect_whole_pages(store) > 10
    counts_agree(store)
    seq = store.mark_of("/a").seq
    assert 50 < told <= seq
    assert store.append([Purge(Kind.ALL, "")], 1.0).seq == seq + 1
    assert store.stats()["damaged"] == 0
    assert len(list(directory.glob("*.mdb"))) == 1  # no file was given up
    store.close()


def _expect_whole_pages(store):
    pages = list(store.scan())
    for page in pages:
        assert len(set(page.body)) == 1
        assert len(page.body) in (10, 3000, 20_000, 70_000)
    return len(pages)


def held_pages(store):
    """Transactions of anybody that hold on to old pages."""
    lines = store._file.attend().env.readers().splitlines()
    return [line for line in lines if line.split()[-1].isdigit()]


def test_dsk_06_what_a_killed_reader_held_is_given_back(directory, store):
    put(store)
    with workers("spawn", directory) as (one,):
        one.call("pin")
        one.kill()
    assert len(held_pages(store)) == 1
    store._file.due = store._file._readers_due = 0.0  # the timer
    store.mark_of("/a")
    assert held_pages(store) == []


def test_dsk_06_whoever_opens_the_file_looks_too(directory, store):
    with workers("spawn", directory, 2) as (one, two):
        assert two.call("put", "/a")  # so that the list of readers survives the other
        one.call("pin")
        one.kill()
        assert body_of(store) == b"body"
        assert held_pages(store) == []


# --- full files -------------------------------------------------------------------------------------


def fill_up(store):
    """Store until the file is full."""
    for number in range(5000):
        try:
            put(store, f"/{number}", b"x" * 50_000)
        except StoreError as error:
            return str(error)
    raise AssertionError("the file does not fill")


def fill_one_page(store, key):
    """Store it again and again; what it took before is not free."""
    for number in range(5000):
        put(store, key, bytes([number % 251]) * 100_000)


@pytest.fixture
def pinned(directory):
    """A store, and a process that does not end its reading: nothing that it may still read can be
    overwritten."""
    store = open_lmdb(directory, memo_bytes=0)
    put(store, "/0", b"older")
    with workers("spawn", directory) as (one,):
        one.call("pin")
        yield store, one
    store.close()


def test_dsk_03_a_full_file_is_a_store_error_and_reads_go_on(directory, pinned):
    store, other = pinned
    told = fill_up(store)
    assert "MDB_MAP_FULL" in told
    assert str(directory) in told
    assert store.stats()["file_bytes"] <= 8_000_000
    assert body_of(store, "/1") in (None, b"x" * 50_000)
    other.call("unpin")
    for number in range(300):  # and room is found again, when the reader is gone
        assert put(store, f"/again/{number}", b"x" * 50_000)
    assert store.stats()["file_bytes"] <= 8_000_000
    counts_agree(store)


def test_dsk_03_a_full_file_can_still_be_purged(pinned):
    store, _ = pinned
    start = store.mark_of("/a")
    fill_up(store)
    marks = [store.append([Purge(Kind.URL, f"p/{number}")], 1.0) for number in range(5)]
    assert [mark.seq for mark in marks] == [1, 2, 3, 4, 5]
    assert len(store.purges_since(start).records) == 5
    assert store.stats()["file_bytes"] <= 8_000_000


def test_dsk_03_what_could_not_replace_a_page_takes_it_along(pinned):
    """Nobody may be answered with what should have been replaced."""
    store, _ = pinned
    fill_up(store)
    with pytest.raises(StoreError):
        fill_one_page(store, "/0")
    assert body_of(store, "/0") is None


def test_a_process_with_a_larger_file_gives_the_others_more_room(directory):
    store = open_lmdb(directory, 4 << 20)
    put(store)
    slot = slot_of(store)
    with workers("spawn", directory, max_bytes=32_000_000) as (one,):
        assert all(one.call("fill", 0, 100, 100_000))
        assert store.confirm(slot) == slot.mark
        assert [body_of(store, f"/{number}") for number in (0, 99)] == [b"\0" * 100_000, b"\x63" * 100_000]
        assert put(store, "/b", b"y" * 100_000)
        assert one.call("body_of", "/b") == b"y" * 100_000
        assert all(one.call("fill", 100, 50, 100_000))
        assert store.append([Purge(Kind.URL, "p/a")], 1.0).seq == 1
        assert one.call("mark_of", "/a").seq == 1
        counts_agree(store)
    store.close()


def test_a_process_that_says_less_evicts_no_more(directory):
    """Such as a shell that purges, and was not told how large the cache may be."""
    store = open_lmdb(directory, 32_000_000)
    for number in range(200):
        assert put(store, f"/{number}", b"x" * 100_000)
    with workers("spawn", directory, max_bytes=4 << 20) as (one,):
        assert one.call("append", [Purge(Kind.URL, "p/a")], 1.0).seq == 1
        assert all(one.call("fill", 200, 10, 100_000))
        assert one.call("stats")["max_bytes"] == 32_000_000
    assert store.stats()["entries"] == 210
    store.close()


def test_a_process_that_says_more_is_heard_by_the_others(directory):
    store = open_lmdb(directory, 4 << 20)
    put(store)
    with workers("spawn", directory, max_bytes=32_000_000) as (one,):
        assert one.call("body_of", "/a") == b"body"
        for number in range(200):
            assert put(store, f"/{number}", b"x" * 100_000)
    assert store.stats()["entries"] == 201
    assert store.stats()["max_bytes"] == 32_000_000
    counts_agree(store)
    store.close()


@needs_fork
def test_a_full_disk_is_a_store_error_and_reads_go_on(directory, store):
    with workers("spawn", directory) as (one,):
        assert one.call("put", "/a")
        one.call("limit_files", 1_000_000)
        with pytest.raises(AssertionError, match="StoreError"):
            one.call("fill", 0, 100, 100_000)
        assert one.call("body_of", "/a") == b"body"
        assert one.call("body_of", "/0") == b"\0" * 100_000
        assert all(store.set(f"/b{n}", entry(store, f"/b{n}"), time.time() + 60) for n in range(20))
        one.call("limit_files", None)
        assert all(one.call("fill", 0, 20, 100_000))
    counts_agree(store)


def test_resized_while_threads_read_and_write(directory):
    """Whatever is under way is done again; nobody gets an error or half a page."""
    store = open_lmdb(directory, 4 << 20, memo_bytes=0)
    put(store, "/mine", b"m" * 30_000)
    done, errors = threading.Event(), []

    def use(number):
        try:
            while not done.is_set():
                assert body_of(store, "/mine") in (None, b"m" * 30_000)
                with suppress(StoreError):  # what four readers hold on to may be all that there is
                    put(store, f"/t/{number}", b"t" * 30_000)
                assert body_of(store, f"/t/{number}") in (None, b"t" * 30_000)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    with workers("spawn", directory, max_bytes=64_000_000) as (one,):
        for thread in threads:
            thread.start()
        try:
            for start in range(0, 400, 50):
                assert all(one.call("fill", start, 50, 100_000))
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert errors == []
    counts_agree(store)
    store.close()


# --- DSK-01, CON-15: forks --------------------------------------------------------------------------


@needs_fork
def test_dsk_01_a_child_opens_a_file_of_its_own(directory, store):
    put(store)
    slot = slot_of(store)
    with workers("fork", directory, 2) as (one, two):
        assert one.call("body_of", "/a") == b"body"
        assert one.call("put", "/b", b"child")
        assert [body_of(store, "/b"), two.call("body_of", "/b")] == [b"child"] * 2
        one.kill()
        assert store.confirm(slot) == slot.mark
        assert put(store, "/c")
    assert counts_agree(store) == 3


@needs_fork
def test_con_15_forked_while_threads_use_the_store(directory):
    """No lock that was held at the fork stops the child, and no transaction of a thread that it has not
    got is touched; the threads themselves notice nothing."""
    # Too large to be filled by what is written while one of them, in a transaction, waits for its turn.
    store = open_lmdb(directory, max_bytes=1_000_000_000)
    done, errors = threading.Event(), []

    def use(number):
        try:
            while not done.is_set():
                assert put(store, f"/{number}", b"t" * 5000)
                slot = slot_of(store, f"/{number}")
                assert store.confirm(slot)
                store.release("/l", store.lease("/l", 60) or 0)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(15):
            assert in_child(partial(use_once, store, turn)) == f"{turn}"
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert counts_agree(store) == 5
    store.close()


def use_once(store, turn):
    assert put(store, "/child", str(turn).encode())
    assert store.confirm(slot_of(store, "/child"))
    return body_of(store, "/child").decode()


def in_child(work, fork=None):
    """Run `work` in a forked child; return what it returned, as text. A child that hangs is killed."""
    reader, writer = os.pipe()
    child = (fork or os.fork)()
    if child == 0:
        told = b"raised"
        try:
            told = str(work()).encode()
        except BaseException as error:
            told = f"raised {error!r}".encode()
        finally:
            os.write(writer, told)
            os._exit(0)
    os.close(writer)
    watch = threading.Timer(helpers.PATIENCE, os.kill, (child, 9))
    watch.start()
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    watch.cancel()
    watch.join()
    os.waitpid(child, 0)
    return told.decode()


@needs_fork
@pytest.mark.skipif(sys.platform != "linux", reason="only there the kernel tells a child")
@pytest.mark.parametrize("wipes", [True, False])
def test_a_child_of_foreign_code_opens_a_file_of_its_own(directory, store, monkeypatch, wipes):
    """uWSGI forks in C, past Python's hooks; not every kernel can clear a page then."""
    if not wipes:
        monkeypatch.setattr(forks, "_WIPE_ON_FORK", 10**6)
    fork = ctypes.PyDLL(None).fork
    put(store)
    slot = slot_of(store)
    inherited = store._file.handle

    def work():
        assert store.confirm(slot) == slot.mark
        assert store._file.handle is not inherited
        return use_once(store, 5)

    assert in_child(work, fork) == "5"
    assert store._file.handle is inherited
    assert store.confirm(slot) == slot.mark
    assert body_of(store, "/child") == b"5"
    assert put(store)


@needs_fork
def test_a_grandchild_too(directory, store):
    put(store)

    def work():
        assert body_of(store) == b"body"
        return in_child(lambda: use_once(store, 7))

    assert in_child(work) == "7"
    assert body_of(store, "/child") == b"7"


@needs_fork
def test_a_store_of_a_forked_parent_may_be_closed_in_the_child(directory, store):
    put(store)
    assert in_child(lambda: store.close() or "closed") == "closed"
    assert body_of(store) == b"body"
    assert lmdbfile._files[directory] is store._file
