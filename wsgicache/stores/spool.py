"""The spool: bodies that are too large for memory, each in a file.

The rules this file obeys:

- Who makes a file removes it, unless it has given it away to a store whose record names it. A file that a
  process keeps goes with the last object that names it: with its entry, wherever that went.
- A forked child removes nothing that its parent made.
- A file that is being written is locked, and so is the directory of a living process. What is not locked,
  and what nobody names, was left by a process that was killed, and whoever comes next removes it.
- Nothing is written to a directory that somebody else may have made, or may write to: he could plant pages.
- An open file survives its removal: who is reading goes on, whatever is purged or evicted.
- A body takes half of `max_bytes` at most; those that are being written take half as much again, in all
  processes that share a directory together. One that says how long it will be claims that when it begins.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Final

from ..body import FileBody, etag_of, new_digest
from ..forks import in_child
from . import ownfiles
from .claims import Claim, Room, SharedRoom
from .ownfiles import remove

PREFIX: Final = "wsgicache-"
"""How the directory of a process is called."""

SUFFIX: Final = ".body"
_LOCK: Final = "lock"
_YOUNG: Final = 60.0
"""Seconds for which a directory without a lock may be one that is just being made."""

_TRIES: Final = 4


class Spool:
    """A directory for bodies.

    Args:
        max_bytes: what the files of stored responses may take; the store that names them sees to it.
        directory: where they are; None: the system's directory for temporary files.
        shared: the directory is that of several processes, and files are given away to their store.
            Otherwise this process makes itself one of its own in there.
        synced: have the disk keep a file before anybody is told of it.
    """

    def __init__(
        self, max_bytes: int, directory: Path | None = None, *, shared: bool = False, synced: bool = False
    ) -> None:
        self.max_bytes: Final = max_bytes
        self._parent = directory
        self._shared = shared
        self._synced = synced
        self._begin_anew()
        _spools.add(self)

    def _begin_anew(self) -> None:
        """At first, and in a forked child: nothing of the parent's is ours."""
        self._lock = threading.Lock()
        self._home: _Home | None = None
        if self._shared and self._parent is not None:
            self._room: Room = SharedRoom(str(self._parent))
        else:
            self._room = Room()

    @property
    def largest(self) -> int:
        """The size of the largest body that may be kept."""
        return self.max_bytes // 2

    def begin(self, size: int | None = None) -> Writer:
        """A new file.

        Args:
            size: how long it will be, where that is known.

        Raises:
            OSError: there can be none.
        """
        if size is not None and size > self.largest:
            raise self._no_room()
        with self._lock:
            home = self._home
            if home is None or ownfiles.trouble_with(home.path) is not None:
                home = self._home = self._make_home()
        claim = Claim()
        if size is not None:
            self.admit(claim, size)
        try:
            keeper = self._new_file(home)
        except BaseException:
            claim.release()
            raise
        return Writer(self, keeper, claim, self._shared, self._synced)

    def _new_file(self, home: _Home) -> Keeper:
        for _ in range(_TRIES):
            name = secrets.token_hex(16) + SUFFIX
            file = ownfiles.create(os.path.join(home.path, name))
            if not self._shared:
                return Keeper(home, name, file)
            try:
                ownfiles.hand_over(file.fileno(), home.path)
            except BaseException:
                file.close()
                remove(os.path.join(home.path, name))
                raise
            if ownfiles.lock(file):
                return Keeper(home, name, file)
            file.close()  # somebody who removes leftovers took it for one
        raise OSError(errno.EAGAIN, "no new file stays", home.path)

    def _make_home(self) -> _Home:
        if not self._shared:
            return _private_home(self._parent)
        assert self._parent is not None  # noqa: S101 - a shared one is somewhere
        if not self._parent.is_dir():
            self._parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            ownfiles.hand_over(str(self._parent), str(self._parent.parent))
        problem = ownfiles.trouble_with(str(self._parent))
        if problem is not None:
            raise OSError(errno.EPERM, problem, str(self._parent))
        return _Home(str(self._parent))

    def admit(self, claim: Claim, size: int, *, grows: bool = False) -> None:
        """Have a file claim room to become as long as this.

        Args:
            grows: it may become longer.

        Raises:
            OSError: it may not: it, or all that is being written, would be too much.
        """
        if size > self.largest or not self._room.claim(claim, size, self.largest, grows=grows):
            raise self._no_room()

    def _no_room(self) -> OSError:
        return OSError(errno.EFBIG, f"spool_max_bytes = {self.max_bytes} leaves no room")


_spools: Final[weakref.WeakSet[Spool]] = weakref.WeakSet()


def _after_fork() -> None:
    for spool in list(_spools):
        spool._begin_anew()


in_child(_after_fork)


class Writer:
    """One body on its way into a file.

    Attributes:
        size: bytes written.
        done: it will not become longer.
    """

    def __init__(self, spool: Spool, keeper: Keeper, claim: Claim, shared: bool, synced: bool) -> None:
        self.size = 0
        self.done = False
        self._spool = spool
        self._claim = claim
        self._keeper: Keeper | None = keeper
        self._path = keeper.path
        self._shared = shared
        self._synced = synced
        self._digest = new_digest()
        self._reader: BinaryIO | None = None

    def write(self, chunk: bytes) -> None:
        """Write more.

        Raises:
            OSError: the disk is full, or the spool.
        """
        assert self._keeper is not None  # noqa: S101 - nobody writes to one that is done
        if self.size + len(chunk) > self._claim.size:
            self._spool.admit(self._claim, self.size + len(chunk), grows=True)
        left = memoryview(chunk)
        while left:
            left = left[self._keeper.file.write(left) :]
        self._digest.update(chunk)
        self.size += len(chunk)

    def finish(self) -> FileBody:
        """The body is whole. The file goes with what this returns, unless that is given away.

        Raises:
            OSError: the disk is full after all.
        """
        keeper = self._keeper
        assert keeper is not None  # noqa: S101 - it is finished once
        if self._synced:
            os.fsync(keeper.file.fileno())
        if not self._shared:  # the directory is locked
            keeper.file.close()
        self._keeper = None
        self.done = True
        self._claim.release()
        directory, name = os.path.split(self._path)
        return FileBody(name, self.size, etag_of(self._digest), directory, keeper)

    def discard(self) -> None:
        """It is not wanted any more: a file that is not finished goes."""
        self.done = True
        self._claim.release()
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.remove()

    def open(self) -> None:
        """Have `read` work from now on, whatever becomes of the file.

        Raises:
            OSError: it is gone.
        """
        if self._reader is None:
            self._reader = open(self._path, "rb", buffering=0)  # noqa: SIM115 - closed by close()

    def read(self, start: int, size: int) -> bytes:
        """Some of what was written.

        Raises:
            OSError: it is not there any more.
        """
        assert self._reader is not None  # noqa: S101 - open() came first
        self._reader.seek(start)
        piece = self._reader.read(size)
        if not piece:
            raise OSError(errno.EIO, "the file became shorter", self._path)
        return piece

    def close(self) -> None:
        """Nobody reads any more."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        self.discard()


class Keeper:
    """Removes a file when nobody refers to this any more.

    Args:
        home: where it is; it stays as long.
        name: its name there.
        file: open for writing.
    """

    def __init__(self, home: _Home, name: str, file: io.FileIO) -> None:
        self.home: Final = home
        self.path: Final = os.path.join(home.path, name)
        self.file: Final = file
        self.remove: Final[Callable[[], Any]] = weakref.finalize(self, _remove, self.path, file, os.getpid())

    def give_away(self) -> None:
        """A record in a store names the file now; whoever takes the record out removes the file."""
        self.remove.detach()  # type: ignore[attr-defined]
        self.file.close()  # and with it the lock


def _remove(path: str, file: io.FileIO, pid: int) -> None:
    if os.getpid() == pid:
        remove(path)
    with contextlib.suppress(OSError):
        file.close()


def open_body(body: FileBody) -> BinaryIO:
    """A body, open for reading; its position is the reader's own.

    Raises:
        OSError: it is gone, or not what was stored.
    """
    file = open(body.path, "rb")  # noqa: SIM115 - the caller closes it
    if os.fstat(file.fileno()).st_size != body.size:
        file.close()
        raise OSError(errno.EIO, "another size than was stored", body.path)
    return file


def read_body(body: FileBody, most: int) -> bytes | None:
    """All of a body, where it is no longer than `most` bytes.

    Raises:
        OSError: as `open_body`.
    """
    if body.size > most:
        return None
    with open_body(body) as file:
        return file.read()


def spool_stats(used: int, most: int) -> dict[str, int]:
    """What a store tells people of its files, where there are any."""
    return {"spooled_bytes": used, "spool_max_bytes": most} if used else {}


# --- directories -------------------------------------------------------------------------------------


class _Home:
    """A directory of files. One that a process made for itself goes with it, if it is empty by then."""

    def __init__(self, path: str, lock: io.FileIO | None = None) -> None:
        self.path: Final = path
        if lock is not None:
            weakref.finalize(self, _leave, path, lock, _hold(path), os.getpid())


def _leave(path: str, lock: io.FileIO, held: int | None, pid: int) -> None:
    if os.getpid() == pid:
        remove(os.path.join(path, _LOCK))
        with contextlib.suppress(OSError):
            os.rmdir(path)
    if held is not None:
        os.close(held)
    lock.close()


def _hold(path: str) -> int | None:
    """Lock a directory itself too, until the descriptor is closed; None where it cannot be.

    Those who remove what is old among temporary files pass by what is locked so, and all that is in it
    (tmpfiles.d(5)).
    """
    if ownfiles.FCNTL is None:
        return None
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            ownfiles.FCNTL.flock(descriptor, ownfiles.FCNTL.LOCK_EX | ownfiles.FCNTL.LOCK_NB)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor
    return None


def _private_home(parent: Path | None) -> _Home:
    """A directory for this process alone; what others left that were killed is removed on the way."""
    if parent is None:
        parent = Path(tempfile.gettempdir())
    elif not parent.is_dir():
        parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sweep_homes(parent)
    for _ in range(_TRIES):
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        lock = ownfiles.create(os.path.join(path, _LOCK))
        if ownfiles.lock(lock):
            return _Home(path, lock)
        lock.close()
    raise OSError(errno.EAGAIN, "no new directory stays", str(parent))


def sweep_homes(parent: Path) -> None:
    """Remove directories of processes that were killed. Their locks went with them."""
    for path in list(parent.glob(PREFIX + "*")):
        with contextlib.suppress(OSError):  # another process was quicker
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != ownfiles.user():
                continue
            if (path / _LOCK).exists():
                with _abandoned(path / _LOCK) as left:
                    if left:
                        shutil.rmtree(path)
            elif time.time() - found.st_mtime > _YOUNG and (held := _hold(str(path))) is not None:
                try:
                    shutil.rmtree(path)
                finally:
                    os.close(held)


def sweep_files(directory: Path, named: Callable[[], set[str]]) -> None:
    """Remove files of a shared directory that no record names and nobody is writing.

    Args:
        named: asks the store which names its records hold. A file is given to a record before it is
            unlocked: who has its lock, and then finds no record, has a leftover.
    """
    try:
        names = [name for name in os.listdir(directory) if name.endswith(SUFFIX)]
    except OSError:
        return
    if not names or not (unknown := set(names) - named()):
        return
    with contextlib.ExitStack() as stack:
        left = []
        for name in unknown:
            with contextlib.suppress(OSError):
                if stack.enter_context(_abandoned(directory / name)):
                    left.append(name)
        for name in set(left) - named():
            remove(str(directory / name))


@contextlib.contextmanager
def _abandoned(path: Path) -> Any:
    """Whether nobody holds the lock of a file; while this lasts, nobody else does.

    Raises:
        OSError: nobody can tell, or it is gone.
    """
    with open(path, "rb+", buffering=0) as file:
        yield ownfiles.FCNTL is not None and ownfiles.flock(file)
