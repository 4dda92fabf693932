"""The file of the LMDB store as one process has it open."""

from __future__ import annotations

import mmap
import os
import sys
import time
from pathlib import Path
from typing import Final

import lmdb

from ..forks import only_here
from .lmdbrecords import TOTALS, Sizes, Totals

SMALLEST: Final = 4 << 20
"""What a file must be allowed to take."""

_READERS: Final = 1024


class Handle:
    """A file as one process has it open.

    Args:
        path: the file; it is made where there is none.
        generation: the number in its name.
        max_bytes: what it may take on the disk, unless somebody has said more.
        synced: wait for the disk with each change.
    """

    __slots__ = (
        "alive", "begin", "bodies", "env", "expiry", "files", "generation", "heads", "inode", "journal",
        "leases", "max_bytes", "negatives", "path", "queue", "room", "sizes",
    )  # fmt: skip

    def __init__(self, path: Path, generation: int, max_bytes: int, *, synced: bool) -> None:
        self.path: Final = path
        self.generation: Final = generation
        self.max_bytes = max_bytes
        self.env = lmdb.open(
            str(path), subdir=False, map_size=self.map_size, mode=0o600, max_dbs=9, max_readers=_READERS,
            sync=synced, metasync=synced, max_spare_txns=0,
        )  # fmt: skip
        self.begin: Final = self.env.begin
        self.alive: Final = only_here()
        self.sizes: Final = Sizes(self.env.stat()["psize"])
        try:
            self._furnish()
        except BaseException:
            self.env.close()
            raise

    @property
    def map_size(self) -> int:
        """What pages may take; beyond it is a reserve, so that a full file can still be purged."""
        return (self.max_bytes - self.max_bytes // 16) // mmap.PAGESIZE * mmap.PAGESIZE

    def _furnish(self) -> None:
        """Open the databases, and make what a new file needs."""
        self._make_whole()
        self.env.reader_check()
        with self.env.begin(write=True) as transaction:
            names = ("heads", "bodies", "queue", "negatives", "expiry", "journal", "leases", "room", "files")
            opened = [self.env.open_db(name.encode("ascii"), txn=transaction) for name in names]
            self.heads, self.bodies, self.queue, self.negatives = opened[:4]
            self.expiry, self.journal, self.leases, self.room, self.files = opened[4:]
            raw = transaction.get(TOTALS, db=self.room)
            totals = Totals(time.monotonic(), 0) if raw is None else Totals.read(raw)
            if totals.size < self.max_bytes:
                totals.size = self.max_bytes
                transaction.put(TOTALS, totals.pack(), db=self.room)
        self.outgrow(totals.size)
        self.inode = os.stat(self.path).st_ino

    def outgrow(self, max_bytes: int) -> None:
        """The file may take more than was known here."""
        if max_bytes > self.max_bytes:
            self.max_bytes = max_bytes
            self.env.set_mapsize(self.map_size)

    def _make_whole(self) -> None:
        """Lengthen a file that is shorter than its pages: to read past its end would kill the process."""
        if not hasattr(os, "posix_fallocate"):
            return
        wanted = (self.env.info()["last_pgno"] + 1) * self.sizes.page
        if os.stat(self.path).st_size >= wanted:
            return
        descriptor = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(descriptor, wanted - 1, 1)  # which never shortens, whoever writes meanwhile
        finally:
            os.close(descriptor)

    def is_current(self) -> bool:
        """Whether this is the file that a newcomer would open."""
        try:
            if os.stat(self.path).st_ino != self.inode:
                return False
        except OSError:
            return False
        return not os.path.exists(self.path.with_name(_next_name(self.path.name)))


def _next_name(name: str) -> str:
    boot, generation, _ = name.split(".")
    return f"{boot}.{int(generation) + 1}.mdb"


def trouble_with(directory: Path) -> str | None:
    """Why a directory that exists must not hold a cache."""
    if not directory.is_dir():
        return "that is no directory; name one that is or may be made"
    if sys.platform != "win32" and os.stat(directory).st_mode & 0o002:
        return f"everybody may write there, and so plant pages; chmod o-w {directory}, or name another"
    return None
