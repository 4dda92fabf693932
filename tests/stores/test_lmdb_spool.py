"""Bodies in files beside an LMDB file: shared by processes, bounded, and swept when a process was killed."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from lmdb_helpers import counts_agree, entry, open_lmdb
from test_spool import child
from waiting import PATIENCE

from wsgicache.codec import DecodeError, decode, encode
from wsgicache.found import place
from wsgicache.stores.lmdbpages import files_of
from wsgicache.stores.lmdbrecords import Filed

sys.path.append(str(Path(__file__).parents[1] / "wsgi"))

from big_helpers import Download, big_cache, files, pattern

from wsgicache.testing import ask

BODY = pattern(50_000, seed=7)


def cache_over(tmp_path, app=None, **options):
    return big_cache(app or Download(BODY), tmp_path, store=f"lmdb://{tmp_path}/db?max_bytes=8MB", **options)


def in_file(store, body=BODY):
    writer = store.spool.begin()
    writer.write(body)
    return writer.finish()


def set_file(store, key="/a", body=BODY, **terms):
    made = entry(store, key, in_file(store, body), **terms)
    return store.set(place(made), made, made.keep_until), made


def named(store):
    return {f.file for f in store._file.read(lambda handle, txn: files_of(handle, txn)).values()}


@pytest.fixture
def store(tmp_path):
    store = open_lmdb(tmp_path / "db", spool_max_bytes=400_000)
    yield store
    counts_agree(store)
    assert {os.path.basename(name) for name in files(tmp_path)} == named(store)
    store.close()


def test_two_processes_share_files(tmp_path):
    app = Download(BODY)
    cache = cache_over(tmp_path, app)
    assert ask(cache, "/f").stored
    with child("lmdb", tmp_path) as other:
        assert other.say("ask /f") == "True 50000 True"
        assert other.say("ask /g") == "False 50000 True"
        ours = ask(cache, "/g")
        assert (ours.is_hit, ours.body, app.calls) == (True, BODY, 1)
        assert other.say("purge /f") == "purged"
        assert not ask(cache, "/f").is_hit
        assert len(files(tmp_path)) == 2
    assert len(files(tmp_path)) == 2, "they outlive the process that stored them"
    cache.close()
    again = cache_over(tmp_path)
    assert ask(again, "/g").is_hit
    again.close()


def test_leftovers_of_a_killed_process_are_swept_at_the_next_start(tmp_path):
    cache = cache_over(tmp_path)
    ask(cache, "/f")
    directory = cache.engine.store._bodies
    with child("writer", directory) as killed, child("writer", directory) as living:
        killed.say("die")
        killed.wait(PATIENCE)
        assert len(files(tmp_path)) == 3
        cache.close()
        again = cache_over(tmp_path)
        assert ask(again, "/f").is_hit
        assert len(files(tmp_path)) == 2
        assert living.poll() is None
        again.close()


def test_the_files_of_a_database_that_is_gone_are_swept(tmp_path):
    store = open_lmdb(tmp_path / "db")
    set_file(store)
    store.close()
    for path in (tmp_path / "db").glob("*.mdb*"):
        path.unlink()
    store = open_lmdb(tmp_path / "db")
    assert store.get(["/a"])[0] == [None]
    assert files(tmp_path) == []
    store.close()


def test_a_refused_entry_leaves_no_file(store, tmp_path):
    stored, made = set_file(store)
    assert stored
    older = entry(store, "/a", in_file(store), born=made.born._replace(epoch="another"))
    assert not store.set("/a", older, older.keep_until)
    del older
    assert len(files(tmp_path)) == 1


def test_one_that_is_too_large_leaves_nothing_older(store, tmp_path):
    set_file(store)
    store.spool.max_bytes = 1_000_000  # as another process may have it
    big = entry(store, "/a", in_file(store, pattern(300_000)))
    assert not store.set("/a", big, big.keep_until)
    del big
    assert store.get(["/a"])[0] == [None]
    assert files(tmp_path) == []


def test_every_way_to_forget_removes_the_file(store, tmp_path):
    _, made = set_file(store, "/a")
    assert store.delete("/a", made)
    set_file(store, "/b")
    assert store.delete("/b")
    set_file(store, "/c")
    made = entry(store, "/c", b"small")
    store.set("/c", made, made.keep_until)
    assert files(tmp_path) == []
    set_file(store, "/d")
    part = store.namespaced("other")
    set_file(part, "/d")
    store.clear()
    assert len(files(tmp_path)) == 1
    assert part.get(["/d"])[0][0].body.size == len(BODY)


def test_files_are_bounded_and_the_popular_stay(store, tmp_path):
    for number in range(20):
        set_file(store, f"/{number}")
        store.get(["/0"])
        assert store.stats()["spooled_bytes"] <= 400_000
    assert store.get(["/0"])[0][0] is not None
    assert store.get(["/1"])[0][0] is None
    assert len(files(tmp_path)) == 8


def test_two_caches_in_one_spool_dir_keep_apart(tmp_path):
    one = open_lmdb(tmp_path / "one", spool_dir=str(tmp_path / "spool"))
    set_file(one)
    two = open_lmdb(tmp_path / "two", spool_dir=str(tmp_path / "spool"))
    set_file(two)
    assert one.get(["/a"])[0][0].body.directory != two.get(["/a"])[0][0].body.directory
    assert len(files(tmp_path / "spool")) == 2
    one.close()
    two.close()


def test_a_near_tier_keeps_the_name_only(tmp_path):
    app = Download(BODY)
    cache = cache_over(tmp_path, app, near=65536, clock=None)
    for _ in range(4):
        assert ask(cache, "/f").body == BODY
    assert ask(cache, "/f").is_hit
    assert cache.engine.store.stats()["near_bytes"] < 10_000
    cache.purge("/f")
    assert not ask(cache, "/f").is_hit
    assert (app.calls, len(files(tmp_path))) == (2, 1)
    cache.close()


def test_with_signing_keys_there_are_no_files(tmp_path):
    cache = cache_over(tmp_path, signing_keys=["k" * 32])
    ask(cache, "/f")
    assert ask(cache, "/f").is_hit
    assert files(tmp_path) == []
    cache.close()


def test_a_directory_of_bodies_that_is_gone_is_a_miss(tmp_path):
    app = Download(BODY)
    cache = cache_over(tmp_path, app)
    ask(cache, "/f")
    shutil.rmtree(cache.engine.store._bodies)
    assert ask(cache, "/f").body == BODY
    assert ask(cache, "/f").is_hit
    assert app.calls == 2
    cache.close()


def test_the_stored_form_names_the_file_and_nothing_else(store):
    _, made = set_file(store)
    data = encode(made)
    assert len(data) < 1000
    back = decode(data)
    assert (back.body, back.body.tag, back.body.directory) == (made.body, made.body.tag, "")
    for name in ("../../etc/passwd", "a" * 32, "A" * 32 + ".body"):
        other = decode(encode(made))
        body = other.body.__class__(name, other.body.size, other.body.tag)
        with pytest.raises(DecodeError, match="name of a file"):
            decode(encode(entry(store, "/a", body)))


@pytest.mark.parametrize("name", ["../../victim", "{tmp_path}/victim", "a.body", "", "\udc80"])
def test_a_record_that_names_no_body_removes_nothing(tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_text("keep me")
    store = open_lmdb(tmp_path / "db")
    set_file(store)
    forged = name.format(tmp_path=tmp_path).encode("utf-8", "surrogateescape")

    def forge(handle, transaction):
        ((key, raw),) = list(transaction.cursor(handle.files))
        true = Filed.read(raw)
        transaction.put(key, raw.removesuffix(true.file.encode()) + forged, db=handle.files)

    store._file.write(forge, lambda handle: None)
    store.delete("/a")
    assert store.get(["/a"])[0] == [None]
    assert set_file(store)[0]
    assert victim.read_text() == "keep me"
    store.close()
