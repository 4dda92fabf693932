"""What the directory of an LMDB store means for a cache: who may use it, is there room, is it local."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .advice import Advice, Level, size

_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "glusterfs", "ceph", "lustre"})
"""File systems on which a memory map is not the same on two machines."""


def lmdb_advice(directory: Path, max_bytes: int, largest: int) -> Iterator[Advice]:
    """What the directory says.

    Args:
        max_bytes: what the file may take.
        largest: bytes of the largest body that the cache would store.
    """
    if not directory.exists():
        above = next(parent for parent in directory.parents if parent.exists())
        yield _may_make(directory, above)
        yield _room(above, max_bytes)
        return
    yield _writable(directory)
    yield _readers(directory)
    yield _room(directory, max_bytes - _used(directory))
    kind = _file_system(directory)
    if kind in _REMOTE:
        yield Advice(
            "file system", Level.PROBLEM, f"{directory} is on {kind}", "name a directory on a local disk"
        )
    if largest > max_bytes // 4:
        yield Advice(
            "size",
            Level.WARNING,
            f"max_bytes = {size(max_bytes)}, and one page may take {size(largest)} (max_body_bytes)",
            "give the store more, or lower max_body_bytes",
        )


def _may_make(directory: Path, above: Path) -> Advice:
    if os.access(above, os.W_OK | os.X_OK):
        return Advice("directory", Level.OK, f"{directory} is not there yet and is made when it is needed")
    remedy = f"install -d -m 700 -o USER {directory}, with the user that the site runs as"
    return Advice("directory", Level.PROBLEM, f"{directory} is not there, and may not be made", remedy)


def _writable(directory: Path) -> Advice:
    owner = _owner(directory)
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        text = f"{directory} belongs to {owner}, and this user may not write there"
        return Advice("directory", Level.PROBLEM, text, f"run as {owner}, as the site does")
    if hasattr(os, "geteuid") and os.geteuid() not in (0, os.stat(directory).st_uid):
        text = f"{directory} belongs to {owner}, not to this user"
        return Advice("directory", Level.WARNING, text, f"run as {owner}, as the site should do too")
    return Advice("directory", Level.OK, f"{directory}, of {owner}")


def _readers(directory: Path) -> Advice:
    """Who may read the pages; that nobody else may write there was checked when the store was opened."""
    mode = stat.S_IMODE(os.stat(directory).st_mode)
    if mode & 0o077:
        text = f"mode {mode:04o}: others may look into the directory"
        return Advice("permissions", Level.WARNING, text, f"chmod 700 {directory}")
    return Advice("permissions", Level.OK, f"mode {mode:04o}: nobody else may read or write pages")


def _room(directory: Path, wanted: int) -> Advice:
    free = shutil.disk_usage(directory).free
    text = f"{size(free)} free; the file may still grow by {size(max(0, wanted))}"
    if free < wanted:
        return Advice("disk", Level.PROBLEM, text, "lower max_bytes in the store's URL, or make room")
    return Advice("disk", Level.OK, text)


def _used(directory: Path) -> int:
    return sum([path.stat().st_blocks * 512 for path in directory.glob("*.mdb")])


def _owner(directory: Path) -> str:
    try:
        return directory.owner()
    except (KeyError, NotImplementedError):
        return f"user {os.stat(directory).st_uid}"


def _file_system(directory: Path) -> str:
    """The kind of file system that a directory is on, where the system tells; "" otherwise."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    mounts = [line.split()[1:3] for line in lines if len(line.split()) > 2]
    above = {str(directory), *map(str, directory.parents)}
    return max([(point, kind) for point, kind in mounts if point in above], default=("", ""))[1]
