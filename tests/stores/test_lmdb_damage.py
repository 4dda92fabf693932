"""What is damaged or foreign in the file of the LMDB store is a miss, and the file itself is replaced."""

import os
import pickle
import random
import subprocess
import sys
import time
from pathlib import Path

import lmdb_helpers as helpers
import pytest
from lmdb_helpers import body_of, counts_agree, open_lmdb, overwrite, put, record_of, slot_of

from wsgicache import forks
from wsgicache.codec import FORMAT, HEADER, encode
from wsgicache.entry import Variants
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreError, lmdbfile, lmdbrecords
from wsgicache.stores.lmdbrecords import TOTALS, piece_name, read_head


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def store(directory):
    store = open_lmdb(directory)
    yield store
    store.close()


def forget_decoded(store):
    store._memo.clear()


def expect_a_miss_that_goes(store, key="/a"):
    """A miss, counted; nothing is left; the page can be stored again."""
    forget_decoded(store)
    before = store.stats()["damaged"]
    assert store.get([key])[0] == [None]
    assert store.stats()["damaged"] == before + 1
    assert store.get([key])[0] == [None]
    assert store.stats()["damaged"] == before + 1
    assert put(store, key, b"again")
    assert body_of(store, key) == b"again"


# --- INT-11: records --------------------------------------------------------------------------------


def test_int_11_each_flipped_bit_of_a_head_is_a_miss(store):
    put(store)
    name, raw = record_of(store)
    start = len(raw) - len(read_head(raw)[2])
    for at in range(start, len(raw)):
        damaged = raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]
        overwrite(store, "heads", name, damaged)
        forget_decoded(store)
        assert store.get(["/a"])[0] == [None]
        overwrite(store, "heads", name, raw)
    forget_decoded(store)
    overwrite(store, "bodies", piece_name(read_head(raw)[0].number, 0), b"body")
    assert store.get(["/a"])[0][0].body == b"body"


def test_int_11_whatever_stands_in_the_stores_part_never_raises(store):
    put(store)
    name, raw = record_of(store)
    end = len(raw) - len(read_head(raw)[2])
    for at in range(end):
        for value in (0, 255, raw[at] ^ 1 << at % 8):
            overwrite(store, "heads", name, raw[:at] + bytes([value]) + raw[at + 1 :])
            forget_decoded(store)
            found = store.get(["/a"])[0][0]
            assert found is None or found.body == b"body"
            assert store.delete("/a") in (True, False)
    assert put(store, "/a", b"again")
    assert body_of(store) == b"again"


@pytest.mark.parametrize("body", ["flipped", "cut", "longer", "zero", "gone", "of another"])
def test_int_11_a_damaged_body_is_a_miss(store, body):
    put(store, "/a", bytes(range(256)) * 200)
    put(store, "/b", bytes(range(1, 257 - 1)) * 200)
    number = read_head(record_of(store)[1])[0].number
    name = piece_name(number, 1)
    handle = store._file.attend()
    with handle.env.begin() as transaction:
        piece = transaction.get(name, db=handle.bodies)
        other = transaction.get(piece_name(number + 1, 1), db=handle.bodies)
    damaged = {
        "flipped": piece[:100] + bytes([piece[100] ^ 4]) + piece[101:],
        "cut": piece[:-1],
        "longer": piece + b"\0",
        "zero": b"\0" * len(piece),
        "of another": other,
    }
    if body == "gone":
        with handle.env.begin(write=True) as transaction:
            transaction.delete(name, db=handle.bodies)
    else:
        overwrite(store, "bodies", name, damaged[body])
    expect_a_miss_that_goes(store)
    assert body_of(store, "/b") is not None


@pytest.mark.parametrize("size", [0, 1, 39, 60, 100])
def test_int_11_a_cut_record_is_a_miss(store, size):
    put(store)
    name, raw = record_of(store)
    overwrite(store, "heads", name, raw[:size])
    forget_decoded(store)
    assert store.get(["/a"])[0] == [None]
    assert list(store.scan()) == []
    assert put(store, "/a", b"again")
    assert body_of(store) == b"again"


def test_int_11_another_pages_record_is_a_miss(store):
    """Moved in the file: whole, and not what was asked for."""
    put(store)
    put(store, "/b", b"of b")
    overwrite(store, "heads", record_of(store)[0], record_of(store, "/b")[1])
    forget_decoded(store)
    assert store.get(["/a"])[0] == [None]
    assert put(store, "/a", b"again")
    assert body_of(store) == b"again"


def test_int_11_a_record_of_fields_under_a_variants_key_is_a_miss(store):
    record = Variants("/a", ("accept",), (), time.time() + 300)
    store.set("/a\1-", record, time.time() + 300)
    assert store.get(["/a\1-"])[0] == [None]
    assert store.stats()["damaged"] == 1


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_ser_01_a_pickle_is_a_miss_and_runs_nothing(store, tmp_path, protocol):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    put(store)
    name, raw = record_of(store)
    rest = len(raw) - len(read_head(raw)[2])
    for record in (raw[:rest] + pickle.dumps(Evil(), protocol), pickle.dumps(Evil(), protocol) * 3):
        overwrite(store, "heads", name, record)
        forget_decoded(store)
        assert store.get(["/a"])[0] == [None]
        assert list(store.scan()) == []
    assert not (tmp_path / "run").exists()


def test_ser_06_a_page_of_another_version_is_a_miss_and_stays(store):
    """The workers of the version that wrote it still serve it."""
    put(store)
    name, raw = record_of(store)
    rest = len(raw) - len(read_head(raw)[2])
    newer = bytearray(raw)
    newer[rest + 4] = FORMAT + 1
    overwrite(store, "heads", name, bytes(newer))
    forget_decoded(store)
    assert store.get(["/a"])[0] == [None]
    handle = store._file.attend()
    with handle.env.begin() as transaction:
        assert transaction.get(name, db=handle.heads) == bytes(newer)
    assert store.stats()["damaged"] == 0
    assert HEADER.size < len(encode(helpers.entry(store)))


def test_what_nobody_signed_is_a_miss(directory):
    store = open_lmdb(directory, signing_keys=(b"k" * 32,))
    put(store)
    store.close()
    unsigned = open_lmdb(directory)
    put(unsigned, "/a", b"forged")
    unsigned.close()
    again = open_lmdb(directory, signing_keys=(b"k" * 32,))
    assert again.get(["/a"])[0] == [None]
    assert again.stats()["damaged"] == 1
    again.close()


def test_keys_are_changed_by_putting_the_new_one_first(directory):
    old, new = b"o" * 32, b"n" * 32
    store = open_lmdb(directory, signing_keys=(old,))
    put(store)
    store.close()
    store = open_lmdb(directory, signing_keys=(new, old))
    found = store.get(["/a"])[0][0]
    assert found.body == b"body"
    assert store.delete("/a", found) is True
    store.close()


# --- the journal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"x" * 40, b"not a mark at all", None])
def test_a_damaged_mark_is_a_new_epoch(store, mark):
    put(store)
    slot = slot_of(store)
    before = store.mark_of("/a")
    if mark is None:
        handle = store._file.attend()
        with handle.env.begin(write=True) as transaction:
            transaction.delete(store._space, db=handle.heads)
    else:
        overwrite(store, "heads", store._space, mark)
    assert store.confirm(slot) != slot.mark
    assert store.mark_of("/a").epoch != before.epoch
    assert store.get(["/a"])[0] == [None]
    assert put(store)
    assert store.append([Purge(Kind.URL, "p/a")], 1.0).seq == 1


def test_a_damaged_purge_is_a_new_epoch(store):
    before = store.append([Purge(Kind.URL, "p/a"), Purge(Kind.URL, "p/b")], 1.0)
    handle = store._file.attend()
    with handle.env.begin() as transaction:
        key = next(key for key, _ in transaction.cursor(handle.journal).iternext() if key[24:25] == b"r")
    overwrite(store, "journal", key, b"?")
    snapshot = store.purges_since(None)
    assert snapshot.mark.epoch != before.epoch
    assert (snapshot.whole, list(snapshot.records)) == (True, [])
    assert store.mark_of("/a") == snapshot.mark


def test_damaged_counters_leases_and_texts_do_no_harm(store):
    store.incr_many({"hits": 1, "misses": 2})
    store.lease("/a", 60)
    handle = store._file.attend()
    with handle.env.begin() as transaction:
        counters = [k for k, _ in transaction.cursor(handle.room).iternext() if k.startswith(b"c")]
        lease = next(key for key, _ in transaction.cursor(handle.leases).iternext())
    overwrite(store, "room", counters[0], b"?")
    overwrite(store, "leases", lease, b"?")
    assert len(store.counters()) == 1
    store.incr_many({"hits": 1, "misses": 1})
    assert set(store.counters()) == {"hits", "misses"}
    assert store.lease("/a", 60) > 1


# --- the file ---------------------------------------------------------------------------------------


def the_file(directory):
    (file,) = directory.glob("*.mdb")
    return file


def make_and_close(directory, pages=50):
    store = open_lmdb(directory)
    for number in range(pages):
        put(store, f"/{number}", bytes([number]) * 9000)
    mark = store.mark_of("/a")
    store.close()
    return mark


def expect_a_new_file(directory, mark, generation, caplog):
    store = open_lmdb(directory)
    assert store.get(["/1"])[0] == [None]
    assert store.mark_of("/a").epoch != mark.epoch
    assert put(store)
    assert body_of(store) == b"body"
    assert counts_agree(store) == 1
    assert the_file(directory).name.split(".")[1] == str(generation)
    assert "damaged" in caplog.text
    assert str(directory) in caplog.text
    store.close()


@pytest.mark.parametrize(
    "content", [b"\0" * 4096, b"\0" * 100_000, b"SQLite format 3\0" * 5000, b"x" * 50_000, b"short"]
)
def test_int_11_what_is_no_file_of_ours_is_left_for_a_new_one(directory, content, caplog):
    mark = make_and_close(directory)
    the_file(directory).write_bytes(content)
    expect_a_new_file(directory, mark, 1, caplog)


def test_an_empty_file_is_a_new_one(directory):
    mark = make_and_close(directory)
    the_file(directory).write_bytes(b"")
    store = open_lmdb(directory)
    assert store.mark_of("/a").epoch != mark.epoch
    assert put(store)
    store.close()


def test_int_11_zeroed_pages_are_noticed_when_they_are_read(directory, caplog):
    mark = make_and_close(directory)
    file = the_file(directory)
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.seek(8192)
        out.write(b"\0" * (size - 8192))
    expect_a_new_file(directory, mark, 1, caplog)


@pytest.mark.parametrize("part", [0.9, 0.5, 0.1])
def test_int_11_a_cut_file_never_kills_its_reader(directory, part):
    """To read past the end of a mapped file is SIGBUS; in a process of its own, to be sure."""
    make_and_close(directory)
    file = the_file(directory)
    os.truncate(file, int(file.stat().st_size * part) // 4096 * 4096)
    told = in_a_process(directory)
    assert told.startswith("done"), told


def test_int_11_random_damage_never_kills_its_reader(directory):
    """Bits flipped anywhere but in bodies; whatever is read, it is a page or a miss, and stores go on."""
    make_and_close(directory, 20)
    file = the_file(directory)
    whole = file.read_bytes()
    dice = random.Random(3)
    for _ in range(6):
        damaged = bytearray(whole)
        for _ in range(30):
            at = dice.randrange(8192, len(damaged))
            damaged[at] ^= 1 << dice.randrange(8)
        for other in directory.iterdir():
            other.unlink()
        file.write_bytes(damaged)
        told = in_a_process(directory)
        assert told.startswith("done"), told


def in_a_process(directory):
    """What a process says that reads and writes everything, or its death."""
    script = """
import sys, logging
sys.path.insert(0, sys.argv[2])
import lmdb_helpers as helpers
from wsgicache.stores import StoreError
logging.disable()
store = helpers.open_lmdb(sys.argv[1])
pages = 0
for number in range(50):
    try:
        body = helpers.body_of(store, f"/{number}")
        assert body in (None, bytes([number]) * 9000)
        pages += body is not None
        helpers.put(store, f"/{number}", bytes([number]) * 9000)
        len(list(store.scan()))
        store.delete(f"/{number + 7}")
    except StoreError:
        pass
assert helpers.put(store)
assert helpers.body_of(store) == b"body"
print("done", pages)
"""
    tests = Path(__file__).parents[1]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(lmdbfile.__file__).parents[2]), str(tests)]),
    }
    process = subprocess.run(
        [sys.executable, "-c", script, str(directory), str(Path(__file__).parent)],
        capture_output=True, text=True, timeout=60, env=environ, check=False,
    )  # fmt: skip
    return process.stdout or f"{process.returncode} {process.stderr[-500:]}"


def test_int_11_damage_at_run_time_is_a_new_file_for_everybody(directory, store, monkeypatch, caplog):
    monkeypatch.setattr(lmdbfile, "LOOK", 0.05)
    put(store)
    slot = slot_of(store)
    before = store.mark_of("/a")
    with helpers.workers("spawn", directory) as (one,):
        assert one.call("body_of", "/a") == b"body"
        overwrite(store, "room", TOTALS, b"?")
        assert put(store, "/b") in (True, False)  # what it was born in is gone
        assert put(store, "/b")
        assert store.mark_of("/a").epoch != before.epoch
        assert store.confirm(slot) is None
        mark = store.append([Purge(Kind.ALL, "")], 1.0)
        assert the_file(directory).name.endswith(".1.mdb")
        deadline = time.monotonic() + helpers.PATIENCE
        while one.call("mark_of", "/a") != mark:
            assert time.monotonic() < deadline
        assert one.call("body_of", "/a") is None
    assert "is damaged" in caplog.text


def test_a_purge_into_a_new_generation_waits_for_those_in_the_old_one(directory, store, monkeypatch):
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    store.append([Purge(Kind.ALL, "")], 1.0)
    assert waited == []
    overwrite(store, "room", TOTALS, b"?")
    store.append([Purge(Kind.ALL, "")], 1.0)
    assert len(waited) == 1
    assert lmdbfile.LOOK < waited[0] <= 2 * lmdbfile.LOOK
    later = time.monotonic() + 10
    monkeypatch.setattr(time, "monotonic", lambda: later)
    store.append([Purge(Kind.ALL, "")], 1.0)
    assert len(waited) == 1


# --- boots and versions -----------------------------------------------------------------------------


def test_another_boot_begins_with_a_new_file(directory, monkeypatch):
    """What was not synced does not survive a power loss, and half of it would be worse than nothing."""
    mark = make_and_close(directory)
    old = the_file(directory)
    assert old.name.split(".")[0] == lmdbfile.boot_id()
    hour_ago = time.time() - 7200
    os.utime(old, (hour_ago, hour_ago))
    os.utime(old.with_name(old.name + "-lock"), (hour_ago, hour_ago))
    monkeypatch.setattr(lmdbfile, "boot_id", lambda: "0123456789abcdef" * 2)
    store = open_lmdb(directory)
    assert store.get(["/1"])[0] == [None]
    assert store.mark_of("/a").epoch != mark.epoch
    assert sorted(file.name for file in directory.iterdir()) == [
        "0123456789abcdef0123456789abcdef.0.mdb", "0123456789abcdef0123456789abcdef.0.mdb-lock",
    ]  # fmt: skip
    store.close()


def test_a_file_that_another_machine_still_writes_to_is_left_alone(directory, monkeypatch):
    make_and_close(directory)
    monkeypatch.setattr(lmdbfile, "boot_id", lambda: "0123456789abcdef" * 2)
    store = open_lmdb(directory)
    store.mark_of("/a")
    assert len(list(directory.glob("*.mdb"))) == 2
    store.close()


def test_what_is_not_ours_in_the_directory_stays(directory):
    make_and_close(directory)
    (directory / "notes.txt").write_text("mine")
    (directory / "data.mdb").write_text("somebody's")
    make_and_close(directory)
    assert (directory / "notes.txt").read_text() == "mine"
    assert (directory / "data.mdb").read_text() == "somebody's"


def test_where_the_system_cannot_tell_a_boot_everything_is_synced(directory, monkeypatch):
    monkeypatch.setattr(lmdbfile, "boot_id", lambda: None)
    store = open_lmdb(directory)
    assert put(store)
    assert the_file(directory).name == "synced.0.mdb"
    assert store._file.handle.env.flags()["sync"] is True
    store.close()
    store = open_lmdb(directory)
    assert body_of(store) == b"body"
    store.close()


def test_nothing_is_synced_where_it_can(store):
    put(store)
    flags = store._file.handle.env.flags()
    assert (flags["sync"], flags["metasync"], flags["writemap"]) == (False, False, False)


def test_a_file_of_an_older_layout_is_left_for_a_new_one(directory, monkeypatch, caplog):
    mark = make_and_close(directory)
    monkeypatch.setattr(lmdbrecords, "LAYOUT", lmdbrecords.LAYOUT + 1)
    expect_a_new_file(directory, mark, 1, caplog)


def test_a_file_of_a_newer_layout_is_not_touched(directory, monkeypatch):
    monkeypatch.setattr(lmdbrecords, "LAYOUT", lmdbrecords.LAYOUT + 1)
    make_and_close(directory)
    monkeypatch.undo()
    store = open_lmdb(directory)
    with pytest.raises(StoreError, match="newer version of wsgicache"):
        store.mark_of("/a")
    assert the_file(directory).name.split(".")[1] == "0"
    store.close()


def test_without_the_tools_of_unix_it_works_all_the_same(directory, monkeypatch):
    """No boot id, no page that forks clear, no way to lengthen a file."""
    monkeypatch.setattr(lmdbfile, "boot_id", lambda: None)
    monkeypatch.setattr(forks, "_WIPE_ON_FORK", 10**6)
    monkeypatch.delattr(os, "posix_fallocate")
    monkeypatch.delattr(os, "geteuid")
    monkeypatch.delattr(os, "fork")
    store = open_lmdb(directory)
    assert put(store)
    assert store.confirm(slot_of(store))
    assert isinstance(store._file.handle.alive, bytes)
    store.close()
