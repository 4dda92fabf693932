"""The spool: who removes a file, when, and what is left of processes that were killed."""

import errno
import gc
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from test_memory_fork import in_child
from waiting import PATIENCE

from wsgicache.body import make_etag
from wsgicache.stores import ownfiles
from wsgicache.stores.spool import PREFIX, Spool, open_body, read_body, sweep_files

sys.path.append(str(Path(__file__).parents[1] / "wsgi"))

from big_helpers import Download, big_cache, files, pattern

from wsgicache.testing import ask

ROOT = Path(__file__).resolve().parents[2]
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
if sys.platform != "win32":
    import fcntl
NO_WARNING = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@contextmanager
def child(kind, directory):
    """A process; `say` has it do something and returns what it answers."""
    command = [sys.executable, str(Path(__file__).with_name("spool_child.py")), kind, str(directory)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    def say(line):
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    process.say = say
    try:
        assert process.stdout.readline().strip() == "ready"
        yield process
    finally:
        process.stdin.close()
        process.wait(PATIENCE)
        process.stdout.close()


def stored(spool, body=b"a body"):
    writer = spool.begin()
    writer.write(body)
    return writer.finish()


def test_a_body_comes_back(tmp_path):
    body = stored(Spool(1000, tmp_path), b"a body")
    with open_body(body) as file:
        assert file.read() == b"a body"
    assert (len(body), body.tag) == (6, make_etag(b"a body"))
    assert (read_body(body, 6), read_body(body, 5)) == (b"a body", None)


def test_a_file_goes_with_the_last_who_names_it(tmp_path):
    spool = Spool(1000, tmp_path)
    body = again = stored(spool)
    del body
    assert len(files(tmp_path)) == 1
    del again
    assert files(tmp_path) == []


def test_a_file_that_is_not_finished_goes_with_its_writer(tmp_path):
    spool = Spool(1000, tmp_path)
    writer = spool.begin()
    writer.write(b"half")
    assert len(files(tmp_path)) == 1
    writer.discard()
    assert files(tmp_path) == []
    lost = spool.begin()
    del lost
    gc.collect()
    assert files(tmp_path) == []


def test_what_is_given_away_stays(tmp_path):
    body = stored(Spool(1000, tmp_path, shared=True))
    body.keeper.give_away()
    name = body.path
    del body
    gc.collect()
    assert files(tmp_path) == [name]


def test_files_are_for_this_user_alone(tmp_path):
    body = stored(Spool(1000, tmp_path / "new"))
    assert os.stat(body.path).st_mode & 0o077 == 0
    assert os.stat(body.directory).st_mode & 0o077 == 0
    assert os.stat(tmp_path / "new").st_mode & 0o077 == 0


def test_one_file_takes_half_of_the_spool_at_most(tmp_path):
    spool = Spool(1000, tmp_path)
    with pytest.raises(OSError, match="spool_max_bytes = 1000 leaves no room") as caught:
        spool.begin(501)
    assert caught.value.errno == errno.EFBIG
    writer = spool.begin()
    writer.write(b"x" * 500)
    with pytest.raises(OSError, match="leaves no room"):
        writer.write(b"x")
    writer.discard()


def test_those_that_are_being_written_share_a_bound(tmp_path):
    spool = Spool(1000, tmp_path)
    first, second = spool.begin(), spool.begin()
    first.write(b"x" * 300)
    second.write(b"x" * 200)
    with pytest.raises(OSError, match="leaves no room"):
        second.write(b"x")
    first.discard()
    second.write(b"x")
    second.discard()


def test_a_reader_survives_the_removal(tmp_path):
    writer = Spool(1000, tmp_path).begin()
    writer.write(b"a body")
    writer.open()
    writer.discard()
    assert files(tmp_path) == []
    assert writer.read(2, 3) == b"bod"
    with pytest.raises(OSError, match="shorter"):
        writer.read(6, 1)
    writer.close()


def test_a_directory_that_a_cleaner_took_away_is_made_anew(tmp_path):
    spool = Spool(1000, tmp_path)
    body = stored(spool)
    home = Path(body.directory)
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    with pytest.raises(OSError, match="No such file"):
        open_body(body)
    assert read_body(stored(spool), 99) == b"a body"


# --- whose directory --------------------------------------------------------------------------------

root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may give away")


def test_a_shared_directory_that_all_may_write_to_is_refused(tmp_path):
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies").chmod(0o777)
    with pytest.raises(OSError, match="plant pages"):
        Spool(1000, tmp_path / "bodies", shared=True).begin()
    assert files(tmp_path) == []


@root
@pytest.mark.parametrize("is_link", [False, True])
def test_a_shared_directory_that_a_stranger_made_is_refused(tmp_path, is_link):
    theirs, bodies = tmp_path / "theirs", tmp_path / "bodies"
    theirs.mkdir(mode=0o700)
    if is_link:
        bodies.symlink_to(theirs)
    else:
        bodies = theirs
    os.chown(bodies, 4321, 4321, follow_symlinks=False)
    with pytest.raises(OSError, match="plant pages"):
        Spool(1000, bodies, shared=True).begin()
    assert files(tmp_path) == []


@root
def test_a_directory_in_a_directory_of_its_owner_is_used(tmp_path):
    for path in (tmp_path / "site", tmp_path / "site" / "bodies"):
        path.mkdir(mode=0o700)
        os.chown(path, 4321, 4321)
    body = stored(Spool(1000, tmp_path / "site" / "bodies", shared=True))
    assert os.stat(body.path).st_uid == 4321


@pytest.mark.parametrize("shared", [False, True])
def test_a_directory_that_became_everybodys_is_not_used_again(tmp_path, shared):
    spool = Spool(1000, tmp_path / "bodies", shared=shared)
    first = stored(spool)
    os.chmod(first.directory, 0o777)
    if shared:
        with pytest.raises(OSError, match="plant pages"):
            spool.begin()
    else:
        assert stored(spool).directory != first.directory


def somebodys(directory, monkeypatch):
    """A directory of somebody else, seen by the superuser."""
    for path in (directory, directory / "bodies"):
        path.mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(path, 4321, 4321)
    monkeypatch.setattr(ownfiles, "user", lambda: 0)
    return Spool(1000, directory / "bodies", shared=True)


@root
def test_the_superuser_gives_away_the_file_that_he_made_and_no_other(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    spool = somebodys(tmp_path / "site", monkeypatch)
    create = ownfiles.create

    def replaced_at_once(path):
        file = create(path)
        os.unlink(path)
        os.symlink(victim, path)
        return file

    monkeypatch.setattr(ownfiles, "create", replaced_at_once)
    with pytest.raises(OSError, match="no new file stays"):
        spool.begin()
    assert os.stat(victim).st_uid == 0


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner")
def test_a_file_that_cannot_be_given_away_is_not_left(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EPERM, "may not")

    spool = somebodys(tmp_path / "site", monkeypatch)
    monkeypatch.setattr(os, "chown", refuse)
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(PermissionError, match="may not"):
        spool.begin()
    assert files(tmp_path) == []


# --- processes --------------------------------------------------------------------------------------


@forks
@NO_WARNING
def test_a_forked_child_removes_nothing_of_its_parents(tmp_path):
    spool = Spool(1000, tmp_path)
    kept = [stored(spool)]

    def work():
        mine = stored(spool, b"the child's")
        kept.clear()
        gc.collect()
        apart = mine.directory != before
        del mine
        return apart

    before = kept[0].directory
    assert in_child(work) == "True"
    assert len(files(tmp_path)) == 1
    assert read_body(kept[0], 99) == b"a body"


@forks
@NO_WARNING
def test_a_cache_goes_on_in_a_forked_child(tmp_path):
    app = Download(pattern(5000))
    cache = big_cache(app, tmp_path)
    ask(cache, "/f")

    def work():
        hit = ask(cache, "/f")
        miss = ask(cache, "/g")
        cache.clear()
        return hit.is_hit, hit.body == app.body, miss.is_hit

    assert in_child(work) == "(True, True, False)"
    hit = ask(cache, "/f")
    assert (hit.is_hit, hit.body) == (True, app.body)
    (mine,) = [name for name in files(tmp_path) if os.path.dirname(name) == cache.engine.spool._home.path]
    assert os.path.getsize(mine) == 5000


@forks
@NO_WARNING
def test_what_the_parent_evicts_is_a_miss_in_the_child(tmp_path):
    app = Download(pattern(5000))
    cache = big_cache(app, tmp_path)
    ask(cache, "/f")
    os.unlink(files(tmp_path)[0])

    def work():
        reply = ask(cache, "/f")
        return reply.is_hit, reply.body == app.body, app.calls

    assert in_child(work) == "(False, True, 2)"


def test_nothing_is_left_of_a_process_that_ends(tmp_path):
    with child("private", tmp_path):
        assert len(files(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_a_process_that_was_killed_is_swept(tmp_path):
    with child("private", tmp_path) as killed, child("private", tmp_path) as living:
        killed.say("die")
        killed.wait(PATIENCE)
        assert len(files(tmp_path)) == 2
        body = stored(Spool(1000, tmp_path))
        assert len(files(tmp_path)) == 2, "the killed one's is gone, the living one's is not"
        assert living.poll() is None
        del body


def test_a_directory_that_is_just_being_made_is_not_swept(tmp_path):
    young, old = tmp_path / f"{PREFIX}young", tmp_path / f"{PREFIX}old"
    for path in (young, old):
        path.mkdir()
    os.utime(old, (time.time() - 3600, time.time() - 3600))
    (tmp_path / "somebody-else").mkdir()
    body = stored(Spool(1000, tmp_path))
    assert (young.exists(), old.exists()) == (True, False)
    assert (tmp_path / "somebody-else").exists()
    del body


@pytest.mark.skipif(sys.platform == "win32", reason="directories cannot be locked")
def test_a_living_process_keeps_its_directory_without_the_lock_in_it(tmp_path):
    with child("private", tmp_path) as living:
        (home,) = tmp_path.iterdir()
        (home / "lock").unlink()  # a cleaner of temporary files took what was old
        os.utime(home, (time.time() - 3600, time.time() - 3600))
        descriptor = os.open(home, os.O_RDONLY)
        try:
            with pytest.raises(BlockingIOError):  # such cleaners pass by what is locked
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
        body = stored(Spool(1000, tmp_path))
        assert len(files(home)) == 1
        living.say("die")
        living.wait(PATIENCE)
        os.utime(home, (time.time() - 3600, time.time() - 3600))
        again = stored(Spool(1000, tmp_path))
        assert not home.exists()
        del body, again


def test_a_shared_directory_is_swept_of_what_nobody_names_or_writes(tmp_path):
    with child("writer", tmp_path) as killed, child("writer", tmp_path) as living:
        ours = stored(Spool(1_000_000, tmp_path, shared=True))
        ours.keeper.give_away()
        killed.say("die")
        killed.wait(PATIENCE)
        assert len(files(tmp_path)) == 3
        sweep_files(tmp_path, lambda: {ours.name})
        assert ours.path in files(tmp_path)
        assert len(files(tmp_path)) == 2
        sweep_files(tmp_path, lambda: {ours.name})
        assert len(files(tmp_path)) == 2
        assert living.poll() is None
    sweep_files(tmp_path, set)
    assert files(tmp_path) == []


def test_a_file_that_gets_its_record_meanwhile_is_not_swept(tmp_path):
    body = stored(Spool(1000, tmp_path, shared=True))
    asked = []

    def named():
        asked.append(1)
        if len(asked) == 1:
            body.keeper.give_away()  # between the first look and the lock
            return set()
        return {body.name}

    sweep_files(tmp_path, named)
    assert len(asked) == 2
    assert files(tmp_path) == [body.path]


def test_many_threads_write_at_once(tmp_path):
    spool = Spool(10_000_000, tmp_path)
    bodies, barrier = [], threading.Barrier(8)

    def write(number):
        barrier.wait(PATIENCE)
        writer = spool.begin()
        for _ in range(50):
            writer.write(bytes([number]) * 1000)
        bodies.append((number, writer.finish()))

    threads = [threading.Thread(target=write, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(bodies) == 8
    assert all(read_body(body, 99_999) == bytes([number]) * 50_000 for number, body in bodies)
