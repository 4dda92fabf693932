"""lmdb:// URLs: where the file is, what is refused, who may read it."""

import os
import stat

import lmdb_helpers as helpers
import pytest

from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreError, StoreOptions, open_store
from wsgicache.stores.breaker import CircuitOpen


def opened(url, **options):
    store = open_store(url, StoreOptions(**options))
    store.close()
    return store._file


def test_an_absolute_path(tmp_path):
    assert opened(f"lmdb://{tmp_path}/a/b").directory == tmp_path / "a" / "b"


def test_a_relative_path_is_beside_the_working_directory_of_now(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert opened("lmdb://./a/b").directory == tmp_path / "a" / "b"
    assert opened("lmdb://a").directory == tmp_path / "a"


def test_a_home_and_escaped_characters(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert opened("lmdb://~/a%3Fb").directory == tmp_path / "a?b"


def test_the_size_is_the_urls_or_the_options(tmp_path):
    assert opened(f"lmdb://{tmp_path}/a", max_bytes=12_345_678).max_bytes == 12_345_678
    assert opened(f"lmdb://{tmp_path}/b?max_bytes=4GB", max_bytes=12_345_678).max_bytes == 4_000_000_000


def test_nothing_is_made_before_it_is_needed(tmp_path):
    store = helpers.open_lmdb(tmp_path / "a")
    assert not (tmp_path / "a").exists()
    assert helpers.put(store)
    assert (tmp_path / "a").exists()
    store.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("lmdb://", ["name a directory"]),
        ("lmdb:///", ["name a directory"]),
        ("lmdb://?max_bytes=64MB", ["name a directory"]),
        ("lmdb://a%00b", ["name a directory"]),
        ("lmdb:/var/cache/a", ["two slashes", "write lmdb:///var/cache/a"]),
        ("lmdb:///var/cache/a ", ["blanks"]),
        ("lmdb:a", ["two slashes", "write lmdb://a"]),
        ("lmdb://var/cache/a", ["lmdb:///var/cache/a", "lmdb://./var/cache/a"]),
        ("lmdb:///var/cache/a&max_bytes=64MB", ["options begin with ?"]),
        ("lmdb://a?max_byte=64MB", ["max_byte", "max_bytes"]),
        ("lmdb://a?max_bytes=lots", ["max_bytes", "lots", "64MB"]),
        ("lmdb://a?max_bytes=1MB", ["1000000", "too small", "4MiB"]),
        ("lmdb://a?journal=0", ["journal", "above zero"]),
        ("lmdb://a?journal=1&journal=2", ["journal", "twice"]),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, url, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as raised:
        open_store(url)
    assert all(word in str(raised.value) for word in [url, *words])


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="no directory"):
        open_store(f"lmdb://{tmp_path}/a")


def test_a_directory_that_everybody_may_write_to_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o1777)
    with pytest.raises(ValueError, match=r"everybody may write there.*chmod o-w"):
        open_store(f"lmdb://{tmp_path}/a")
    (tmp_path / "a").chmod(0o700)
    store = open_store(f"lmdb://{tmp_path}/a")
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(StoreError, match="everybody may write there"):
        store.mark_of("/a")
    store.close()


def test_only_the_owner_may_read(tmp_path):
    before = os.umask(0)
    try:
        store = helpers.open_lmdb(tmp_path / "parent" / "cache")
        helpers.put(store)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "parent" / "cache").stat().st_mode) == 0o700
    files = list((tmp_path / "parent" / "cache").iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    store.close()


def test_a_directory_that_cannot_be_made_is_a_store_error(tmp_path):
    (tmp_path / "a").write_text("")
    store = open_store(f"lmdb://{tmp_path}/a/cache")
    with pytest.raises(StoreError, match=r"lmdb://.*/a/cache"):
        store.mark_of("/a")
    store.close()


def test_what_cannot_be_opened_is_not_tried_by_every_request(tmp_path, caplog):
    """But by every purge, and soon again; one line of the log says so."""
    (tmp_path / "a").write_text("")
    store = open_store(f"lmdb://{tmp_path}/a/cache")
    store._file._breaker._clock = lambda: 0.0
    with pytest.raises(StoreError, match="File exists"):
        store.mark_of("/a")
    for _ in range(10):
        with pytest.raises(CircuitOpen):
            store.get(["/a"])
    (tmp_path / "a").unlink()
    with pytest.raises(CircuitOpen):
        store.mark_of("/a")
    assert store.append([Purge(Kind.URL, "p/a")], 1.0).seq == 1
    assert helpers.put(store)
    assert [line.getMessage().partition(" (")[0] for line in caplog.records] == [
        f"lmdb://{tmp_path}/a/cache does not answer", f"lmdb://{tmp_path}/a/cache answers again",
    ]  # fmt: skip
    store.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the superuser")
def test_the_superuser_leaves_the_files_to_the_owner_of_the_directory(tmp_path):
    (tmp_path / "a").mkdir(mode=0o700)
    os.chown(tmp_path / "a", 12345, 12346)
    store = helpers.open_lmdb(tmp_path / "a")
    helpers.put(store)
    owners = {(file.stat().st_uid, file.stat().st_gid) for file in (tmp_path / "a").iterdir()}
    assert owners == {(12345, 12346)}
    store.close()
