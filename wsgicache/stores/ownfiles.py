"""Files in a directory that strangers must not write to: made for this user alone, handed over, locked."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from importlib import import_module
from typing import Any, Final


def remove(path: str) -> None:
    """Remove a file, whether it is there or not."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def create(path: str) -> io.FileIO:
    """A new file.

    Raises:
        OSError: it is there already, or there can be none.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
    return io.FileIO(descriptor, "r+")


def lock(file: io.FileIO) -> bool:
    """Take the lock of a file; False where somebody else has it, or has removed the file meanwhile.

    Where there are no locks, or the file system has none, everybody has it, and nothing is ever swept.
    """
    try:
        return FCNTL is None or flock(file)
    except OSError:
        return True


def flock(file: io.FileIO) -> bool:
    """The same, where there are locks.

    Raises:
        OSError: the file system has none.
    """
    try:
        FCNTL.flock(file, FCNTL.LOCK_EX | FCNTL.LOCK_NB)
    except BlockingIOError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def _find_fcntl() -> Any:
    try:
        return import_module("fcntl")
    except ImportError:  # Windows
        return None


FCNTL: Final = _find_fcntl()
"""The module; None where there are no such locks."""


def user() -> int:
    """Whose process this is."""
    return os.geteuid() if hasattr(os, "geteuid") else 0


def hand_over(made: int | str, directory: str) -> None:
    """What the superuser makes in somebody's directory stays usable for them.

    Args:
        made: a descriptor, because its owner may put anything else in the place of a name; or a directory.
    """
    owner = os.stat(directory)
    if not hasattr(os, "chown") or user() != 0 or not owner.st_uid:
        return
    if isinstance(made, int):
        os.fchown(made, owner.st_uid, owner.st_gid)
    else:
        os.chown(made, owner.st_uid, owner.st_gid, follow_symlinks=False)


def trouble_with(path: str) -> str | None:
    """Why no bodies may be written to a directory: strangers could read them, and plant pages.

    It is to be this user's, root's, or of who owns the directory that it is in.
    """
    try:
        found = os.stat(path)
        owners = {found.st_uid, os.lstat(path).st_uid}
        above = os.stat(os.path.dirname(path)).st_uid
    except OSError as error:
        return str(error)
    if not stat.S_ISDIR(found.st_mode):
        return "that is no directory"
    if hasattr(os, "geteuid") and (found.st_mode & 0o002 or not owners <= {user(), 0, above}):
        return "others made it, or may write there, and so plant pages; remove it, or name another spool_dir"
    return None
