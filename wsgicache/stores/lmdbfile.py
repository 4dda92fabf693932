"""The file of the LMDB store: opened once by each process that uses it, whoever in it asks.

The rules this file obeys:

- A directory holds one file, and its lock, in use: `<boot id>.<generation>.mdb`. What another boot of the
  machine left is never opened: nothing is synced, so only a file whose machine never stopped is whole.
- A damaged file is left for the next generation. Whoever has the old one open notices within `LOOK` seconds;
  for twice as long a purge into the new one waits, so that it is in force everywhere when it returns.
- A fork closes the file first; parent and child open it again when they next need it. A child that was forked
  by foreign code, past Python's hooks, finds out by a page that the kernel clears in it.
- A transaction takes no lock of Python's and writes no log: with greenlets, either could run somebody else
  in the middle of it.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import re
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb

from ..codec import DecodeError
from . import StoreError
from .breaker import Breaker
from .lmdbhandle import Handle, trouble_with
from .lmdbpages import files_of
from .spool import sweep_files

log: Final = logging.getLogger("wsgicache")

Result = TypeVar("Result")
Job = Callable[[Handle, Any], Result]
"""Something done in one transaction; it may be done again, where the transaction failed."""

LOOK: Final = 1.0
"""Seconds between looks whether the file is still the one that others use."""

_READER_CHECK: Final = 10.0
_TURNS: Final = 4
_READERS_WAIT: Final = 0.05
_VISITED: Final = 65536
_OLD: Final = 3600.0
_NAME: Final = re.compile(r"([0-9a-f]{32}|synced)\.([0-9]{1,9})\.mdb(-lock)?\Z")

_DAMAGE: Final = (
    lmdb.CorruptedError,
    lmdb.IncompatibleError,
    lmdb.InvalidError,
    lmdb.PageNotFoundError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    DecodeError,
)


def boot_id() -> str | None:
    """What tells this boot of the machine from every other, where the system can tell."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    boot = text.strip().replace("-", "").lower()
    return boot if re.fullmatch("[0-9a-f]{32}", boot) else None


def _booted_at() -> float:
    """When the machine started, by its wall clock."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else None
    return time.time() - (time.monotonic() if clock is None else time.clock_gettime(clock))


class Outgrown(Exception):
    """A job found that the file may take more than this process knew. It is done again."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"another process gave it {max_bytes} bytes")
        self.max_bytes = max_bytes


class File:
    """The file of one directory, in this process. All stores of the directory share it.

    Args:
        directory: absolute; made when it is first needed.
        max_bytes: what the file may take on the disk; where another process says more, that.
    """

    def __init__(self, directory: Path, max_bytes: int) -> None:
        self.directory: Final = directory
        self.max_bytes = max_bytes
        self.name: Final = f"lmdb://{directory}"
        self.users = 0
        self.bodies: Final[set[Path]] = set()
        """Directories of bodies too large for the file, which its records name."""
        self.visited: Final[set[bytes]] = set()
        """Names that this process was asked for since the eviction hand last passed them."""
        self.handle: Handle | None = None
        self.due = 0.0
        """Monotonic instant at which `attend` must be called before the handle is used again."""
        self._breaker = Breaker(self.name, (OSError, lmdb.Error, StoreError))
        """Where the file cannot be opened, not every request tries."""
        self._readers_due = 0.0
        self._least = 0
        self._renew_locks()

    def _renew_locks(self) -> None:
        self._writing = threading.RLock()
        """Held while this process writes, and before `_lock` by whoever closes the file: a write transaction
        is never closed under its owner."""
        self._lock = threading.Lock()
        self._pid = os.getpid()

    # --- opening -----------------------------------------------------------------------------------

    def attend(self, *, insist: bool = False) -> Handle:
        """The file, open and current.

        Args:
            insist: try to open it even where that failed a moment ago.

        Raises:
            StoreError: it cannot be opened.
        """
        handle = self.handle
        now = time.monotonic()
        if handle is not None and handle.alive[0] and now < self.due:
            return handle
        if self._pid != os.getpid():
            self._inherited()
        if handle is not None and now >= self.due and not handle.is_current():
            self.renew(handle)
        with self._lock:
            if self.handle is None:
                self.handle = self._open(insist)
            self.due = time.monotonic() + LOOK
            if now >= self._readers_due:
                self._readers_due = now + _READER_CHECK
                self._check_readers(self.handle)
            if len(self.visited) > _VISITED:
                self.visited.clear()
            return self.handle

    def _check_readers(self, handle: Handle) -> None:
        """Free the places of readers that were killed: what they last read could not be overwritten."""
        try:
            handle.env.reader_check()
        except lmdb.Error as error:
            log.warning("%s: %s", self.name, error)

    def _inherited(self) -> None:
        """In a child that was forked past Python's hooks: let go of what is the parent's."""
        self._renew_locks()
        self._close()

    def _close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle.env.close()

    def _open(self, insist: bool) -> Handle:
        with self._breaker.call(insist=insist):
            self._make_directory()
            boot = boot_id()
            return self._open_newest("synced" if boot is None else boot)

    def _make_directory(self) -> None:
        """0700, what is above it as usual. One that everybody may write to is refused."""
        if not self.directory.exists():
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
        problem = trouble_with(self.directory)
        if problem is not None:
            raise OSError(problem)

    def _open_newest(self, boot: str) -> Handle:
        """Open the newest generation, or a newer one where that is damaged; remove what is out of use."""
        error: Exception | None = None
        for _ in range(_TURNS):
            newest = max([self._least, *self._generations(boot)])
            path = self.directory / f"{boot}.{newest}.mdb"
            try:
                handle = Handle(path, newest, self.max_bytes, synced=boot == "synced")
            except _DAMAGE as damage:
                log.warning("%s: %s is damaged (%s) and left for a new one", self.name, path.name, damage)
                self._least, error = newest + 1, damage
                continue
            if not handle.is_current():  # another process left it for the next one, while we were opening it
                handle.env.close()
                continue
            self._hand_over(path)
            self._sweep(boot, newest)
            for directory in self.bodies:
                self._sweep_bodies(handle, directory)
            return handle
        raise OSError(str(error))

    def _generations(self, boot: str) -> list[int]:
        matches = [_NAME.match(name) for name in os.listdir(self.directory)]
        return [int(match[2]) for match in matches if match and match[1] == boot and not match[3]]

    def _hand_over(self, path: Path) -> None:
        """What the superuser opens in somebody's directory stays usable for them."""
        if not hasattr(os, "geteuid") or os.geteuid() != 0:
            return
        owner = os.stat(self.directory)
        for name in (path, path.with_name(path.name + "-lock")):
            if owner.st_uid != 0 and os.stat(name).st_uid == 0:
                os.chown(name, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _sweep(self, boot: str, newest: int) -> None:
        """Remove files of earlier generations and boots, except what somebody may still write to."""
        now = time.time()
        quiet = max(_booted_at(), now - _OLD)
        for name in os.listdir(self.directory):
            match = _NAME.match(name)
            if match is None:
                continue
            path = self.directory / name
            with contextlib.suppress(OSError):  # another process was quicker
                if int(match[2]) < newest if match[1] == boot else os.stat(path).st_mtime < quiet:
                    path.unlink()

    def _sweep_bodies(self, handle: Handle, directory: Path) -> None:
        """Remove what processes left that were killed, and what a file that is gone named."""

        def named() -> set[str]:
            with handle.begin() as transaction:
                return {filed.file for filed in files_of(handle, transaction).values()}

        try:
            sweep_files(directory, named)
        except (lmdb.Error, DecodeError) as error:
            log.warning("%s: %s is not swept: %s", self.name, directory, error)

    # --- transactions ------------------------------------------------------------------------------

    def read(self, job: Job[Result]) -> Result:
        """Do something in a read transaction.

        Raises:
            StoreError: it could not be done.
        """
        return self._run(job, None)

    def write(self, job: Job[Result], relieve: Callable[[Handle], None], *, insist: bool = False) -> Result:
        """Do something in a write transaction: all of it, or nothing.

        Args:
            relieve: makes room in a file that is full; then the job is tried once more.
            insist: see `attend`.

        Raises:
            StoreError: it could not be done.
        """
        return self._run(job, relieve, insist)

    def _run(
        self, job: Job[Result], relieve: Callable[[Handle], None] | None, insist: bool = False
    ) -> Result:
        full = False
        trouble: BaseException | None = None
        for _ in range(_TURNS):
            handle = self.attend(insist=insist)
            try:
                if relieve is None:
                    with handle.begin() as transaction:
                        return job(handle, transaction)
                with self._writing:
                    handle = self.attend()
                    with handle.begin(write=True) as transaction:
                        return job(handle, transaction)
            except lmdb.MapFullError as error:
                trouble = error
                if full or relieve is None:
                    break
                full = True
                relieve(handle)
            except Outgrown as error:
                trouble = error
                with self._writing, contextlib.suppress(lmdb.Error):
                    handle.outgrow(error.max_bytes)
            except _DAMAGE as error:
                trouble = error
                self.abandon(handle, error)
            except lmdb.Error as error:
                trouble = error
                if not self._mend(handle, error):
                    break
        raise StoreError(f"{self.name}: {trouble}") from trouble

    def _mend(self, handle: Handle, error: lmdb.Error) -> bool:
        """Whether what went wrong may go better the next time."""
        if isinstance(error, lmdb.MapResizedError):
            self._adopt(handle)
            return True
        if isinstance(error, lmdb.ReadersFullError):
            self._check_readers(handle)
            return True
        if isinstance(error, lmdb.BadRslotError):
            self.renew(handle)
            return True
        with self._writing:  # who closes the file, or gives it more room, holds this
            return self.handle is not handle or isinstance(error, lmdb.BadTxnError) or _is_invalid(error)

    def outlast_readers(self, handle: Handle) -> None:
        """Wait a moment for those who still read what is out of date: until then its pages are not free.

        A thread that has to wait for Python's own lock in the middle of a transaction is enough to fill a
        small file that others write to.
        """
        with contextlib.suppress(lmdb.Error):
            handle.env.reader_check()
            newest = handle.env.info()["last_txnid"]
            deadline = time.monotonic() + _READERS_WAIT
            while min(_read_by_others(handle.env.readers()), default=newest) < newest:
                if time.monotonic() > deadline:
                    return
                time.sleep(0.001)

    @contextlib.contextmanager
    def reserve(self, handle: Handle) -> Iterator[None]:
        """Let a full file have its reserve too, for as long as this lasts."""
        with self._writing:
            self._resize(handle, handle.max_bytes // mmap.PAGESIZE * mmap.PAGESIZE)
            try:
                yield
            finally:
                self._resize(handle, handle.map_size)

    def _adopt(self, handle: Handle) -> None:
        """Another process gave the file more room: because it may, or out of the reserve."""
        with self._writing:
            self._resize(handle, 0)
            with contextlib.suppress(lmdb.Error):
                if handle.env.info()["map_size"] <= handle.max_bytes:
                    self._resize(handle, handle.map_size)

    def _resize(self, handle: Handle, size: int) -> None:
        """Change the map; it never becomes smaller than what is used."""
        with contextlib.suppress(lmdb.Error):  # it was closed, and will be opened anew
            handle.env.set_mapsize(size)

    def renew(self, handle: Handle) -> None:
        """Open the file anew."""
        with self._writing, self._lock:
            if self.handle is handle:
                self._close()

    def abandon(self, handle: Handle, error: BaseException) -> None:
        """Leave a damaged file for a new one."""
        with self._writing, self._lock:
            if self.handle is not handle:
                return
            self._close()
            self._least = max(self._least, handle.generation + 1)
        log.warning("%s: %s is damaged (%s) and left for a new one", self.name, handle.path.name, error)

    def wait_for_others(self, born: float) -> None:
        """Return when no process uses an earlier generation any more.

        Args:
            born: monotonic instant at which this one was made.
        """
        handle = self.attend()
        left = born + 2 * LOOK - time.monotonic()
        if handle.generation and left > 0:
            time.sleep(min(left, 2 * LOOK))

    # --- sharing -----------------------------------------------------------------------------------

    def enlarge(self, max_bytes: int) -> None:
        """Somebody here says that the file may take so much."""
        if max_bytes > self.max_bytes:
            self.max_bytes = max_bytes
            if self.handle is not None:
                self.renew(self.handle)

    def release(self) -> None:
        """One user less; the last one closes it."""
        with _files_lock:
            self.users -= 1
            if self.users > 0:
                return
        with self._writing, self._lock:
            if self._pid == os.getpid():
                self._close()

    def before_fork(self) -> None:
        """Close, so that no child inherits it; who is using it opens it again afterwards."""
        self._writing.acquire()
        self._lock.acquire()
        if self._pid == os.getpid():
            self._close()

    def after_fork(self, *, child: bool) -> None:
        """In parent and child."""
        if child:
            self._renew_locks()
        else:
            self._lock.release()
            self._writing.release()


def _read_by_others(listed: str) -> list[int]:
    """The states of the file that somebody reads, from LMDB's list of readers."""
    words = [line.split() for line in listed.splitlines()[1:]]
    return [int(line[-1]) for line in words if line and line[-1].isdecimal()]


def _is_invalid(error: lmdb.Error) -> bool:
    """Whether a handle was closed, or its map replaced, by another thread in the middle of its use."""
    text = str(error)
    return "closed/deleted/dropped" in text or "Invalid argument" in text


# --- one file a directory and process ----------------------------------------------------------------

_files: Final[weakref.WeakValueDictionary[Path, File]] = weakref.WeakValueDictionary()
_files_lock = threading.Lock()
_forking: list[File] = []


def shared_file(directory: Path, max_bytes: int) -> File:
    """The file of a directory, the same for all who ask in this process. The largest `max_bytes` holds."""
    with _files_lock:
        file = _files.get(directory)
        if file is None:
            file = _files[directory] = File(directory, max_bytes)
        file.users += 1
    file.enlarge(max_bytes)
    return file


def _before_fork() -> None:
    _files_lock.acquire()
    _forking[:] = _files.values()
    for file in _forking:
        file.before_fork()


def _after_fork_in_parent() -> None:
    for file in _forking:
        file.after_fork(child=False)
    _forking.clear()
    _files_lock.release()


def _after_fork_in_child() -> None:
    global _files_lock
    for file in _forking:
        file.after_fork(child=True)
    _forking.clear()
    _files_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
