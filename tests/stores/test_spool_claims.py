"""Room in the spool is claimed before it is written: by threads, processes, and those that were killed."""

import errno
import gc
import os
import sys
import threading
from pathlib import Path

import pytest
from test_memory_fork import in_child
from test_spool import NO_WARNING, child, forks
from waiting import PATIENCE

from wsgicache.stores import claims, ownfiles
from wsgicache.stores.spool import Spool

sys.path.append(str(Path(__file__).parents[1] / "wsgi"))

from big_helpers import files

locks = pytest.mark.skipif(ownfiles.FCNTL is None, reason="the platform has no locks")


@pytest.fixture(params=["private", pytest.param("shared", marks=locks), "two"])
def spools(request, tmp_path):
    """Two spools that share their room: one object, or, as two processes have them, two on a directory."""
    if request.param == "two":
        if ownfiles.FCNTL is None:
            pytest.skip("the platform has no locks")
        return [Spool(1000, tmp_path, shared=True) for _ in "12"]
    return [Spool(1000, tmp_path, shared=request.param == "shared")] * 2


def notes(directory):
    return sorted(directory.glob("*.claim"))


def refused(job):
    with pytest.raises(OSError, match="spool_max_bytes = 1000 leaves no room") as caught:
        job()
    return caught.value.errno == errno.EFBIG


def test_what_says_how_long_it_will_be_claims_that_at_once(spools, tmp_path):
    one, two = spools
    first = one.begin(300)
    assert refused(lambda: two.begin(201))
    assert len(files(tmp_path)) == 1, "no file was made"
    second = two.begin(200)
    for _ in range(3):
        first.write(b"x" * 100)
    second.write(b"x" * 200)
    assert first.finish().size == 300
    assert second.finish().size == 200


@pytest.mark.parametrize("end", ["finish", "discard", "close", "lost"])
def test_room_is_given_back(spools, tmp_path, end):
    one, two = spools
    first = one.begin(500)
    first.write(b"x")
    assert refused(lambda: two.begin(1))
    if end != "lost":
        getattr(first, end)()
    del first
    gc.collect()
    assert notes(tmp_path) == []
    two.begin(500).discard()


def test_what_does_not_say_so_cannot_take_what_is_claimed(spools):
    one, two = spools
    quiet = one.begin()
    first = two.begin(400)
    quiet.write(b"x" * 100)
    assert refused(lambda: quiet.write(b"x"))
    assert quiet.size == 100
    first.write(b"x" * 400)
    first.discard()
    quiet.write(b"x" * 400)
    assert refused(lambda: quiet.write(b"x"))
    quiet.discard()


def test_more_than_was_announced_needs_room_too(spools):
    one, two = spools
    first, second = one.begin(100), two.begin(350)
    first.write(b"x" * 150)
    assert refused(lambda: first.write(b"x"))
    second.write(b"x" * 350)
    first.discard()
    second.discard()


def test_of_many_that_begin_at_once_as_many_as_fit_are_let_in(spools, tmp_path):
    """Room for two: not three, and never so that each keeps out the others."""
    barrier = threading.Barrier(6)
    let_in, kept_out = [], []

    def work(spool):
        barrier.wait()
        try:
            let_in.append(spool.begin(200))
        except OSError as error:
            kept_out.append(error.errno)

    for _ in range(5):
        threads = [threading.Thread(target=work, args=(spool,)) for spool in spools * 3]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert (len(let_in), kept_out) == (2, [errno.EFBIG] * 4)
        while let_in:
            let_in.pop().discard()
        kept_out.clear()


@locks
def test_what_grows_looks_at_the_others_a_few_times_only(tmp_path, monkeypatch):
    spool, looks = Spool(32_000, tmp_path, shared=True), []
    genuine = claims.SharedRoom._others

    def others(self, claim):
        looks.append(claim.size)
        return genuine(self, claim)

    monkeypatch.setattr(claims.SharedRoom, "_others", others)
    writer = spool.begin()
    for _ in range(1600):
        writer.write(b"0123456789")
    assert len(looks) == 16
    assert refused_by(spool)
    writer.discard()


def refused_by(spool):
    with pytest.raises(OSError, match="leaves no room"):
        spool.begin(1)
    return True


# --- processes ---------------------------------------------------------------------------------------


@locks
def test_another_process_and_its_end(tmp_path):
    spool = Spool(1_000_000, tmp_path, shared=True)
    with child("claimer", tmp_path) as other:
        assert refused_by_all_but(spool, 100_000)
        other.say("die")
        other.wait(PATIENCE)
        assert len(notes(tmp_path)) == 1, "it had no time to clear up"
        spool.begin(500_000).discard()
        assert notes(tmp_path) == []


def refused_by_all_but(spool, left):
    with pytest.raises(OSError, match="leaves no room"):
        spool.begin(left + 1)
    spool.begin(left).discard()
    return True


@locks
def test_a_process_that_ends_in_good_order(tmp_path):
    with child("claimer", tmp_path):
        assert len(notes(tmp_path)) == 1
    assert notes(tmp_path) == []


@forks
@NO_WARNING
def test_a_forked_child_gives_nothing_back_of_its_parents(tmp_path):
    spool = Spool(1000, tmp_path, shared=True)
    writer = spool.begin(500)

    def job():
        writer.discard()
        del spool._room
        gc.collect()
        return len(notes(tmp_path))

    assert in_child(job) == "1"
    assert refused(lambda: Spool(1000, tmp_path, shared=True).begin(1))
    writer.discard()


@locks
def test_who_is_stopped_while_he_claims_holds_up_nobody_for_long(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "_PATIENCE", 0.02)
    spool = Spool(1000, tmp_path, shared=True)
    spool.begin(1).discard()
    with open(tmp_path / "claims", "rb+") as door:
        ownfiles.FCNTL.flock(door, ownfiles.FCNTL.LOCK_EX)
        with pytest.raises(OSError, match="others do not finish") as caught:
            spool.begin(1)
        assert caught.value.errno == errno.EAGAIN
        assert (files(tmp_path), notes(tmp_path)) == ([], [])
    spool.begin(500).discard()


@pytest.mark.parametrize("fault", ["no module", "no locks here"])
def test_without_locks_each_process_counts_its_own(tmp_path, monkeypatch, fault):
    if fault == "no module":
        monkeypatch.setattr(ownfiles, "FCNTL", None)
    else:
        ownfiles_lock = pytest.importorskip("fcntl")

        class NoLocks:
            LOCK_EX, LOCK_NB = ownfiles_lock.LOCK_EX, ownfiles_lock.LOCK_NB

            @staticmethod
            def flock(file, how):
                raise OSError(errno.ENOLCK, "no locks available")

        monkeypatch.setattr(ownfiles, "FCNTL", NoLocks)
    one, two = [Spool(1000, tmp_path, shared=True) for _ in "12"]
    first = one.begin(500)
    assert refused(lambda: one.begin(1))
    second = two.begin(500)
    first.discard()
    second.discard()


@locks
def test_the_file_of_a_claim_is_for_this_user_alone(tmp_path):
    writer = Spool(1000, tmp_path, shared=True).begin(5)
    (note,) = notes(tmp_path)
    for path in (note, tmp_path / "claims"):
        assert os.stat(path).st_mode & 0o077 == 0
    writer.discard()


@locks
def test_what_is_no_claim_is_none(tmp_path):
    (tmp_path / "0.claim").write_text("nonsense")
    (tmp_path / "1.claim").mkdir()
    with open(tmp_path / "2.claim", "w") as file:
        ownfiles.FCNTL.flock(file, ownfiles.FCNTL.LOCK_EX)
        file.write("nonsense")
        file.flush()
        Spool(1000, tmp_path, shared=True).begin(500).discard()
    assert [path.name for path in notes(tmp_path)] == ["1.claim", "2.claim"]
