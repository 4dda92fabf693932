"""Room claimed for what is going to be written, so that what cannot fit is refused before it begins.

The rules this file obeys:

- All claims together are no larger than what there is.
- A claim ends when it is released, when nobody refers to it any more, or with its process.
- Among processes a claim is a file that holds its size and is locked as long as it lasts. One that is not
  locked was left by a process that was killed. Who adds up what others claim, and claims, is alone meanwhile.
- Nobody waits for long: where others do not finish, no room is given.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

from . import ownfiles

SUFFIX: Final = ".claim"
_DOOR: Final = "claims"
"""The file whose lock makes who claims alone."""

_PATIENCE: Final = 0.25
"""Seconds to wait for others who claim."""

_PAUSE: Final = 0.001
_STEPS: Final = 16
"""What grows without saying how far claims the room by so many parts of all of it, or less where that is
all there is: each is a look at what others claim."""

_DIGITS: Final = 20


class Claim:
    """Room for one thing that is being written.

    Attributes:
        size: bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self.note: Note | None = None
        """What tells other processes of it."""

    def release(self) -> None:
        """It is not needed any more."""
        self.size = 0
        note, self.note = self.note, None
        if note is not None:
            note.remove()


class Room:
    """Room of this process alone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claims: weakref.WeakSet[Claim] = weakref.WeakSet()

    def claim(self, claim: Claim, size: int, most: int, *, grows: bool = False) -> bool:
        """Make a claim as large as this. Where there is no room it stays as it was.

        Args:
            most: bytes that all claims together may have.
            grows: more will be asked for, so it may become larger, too.

        Returns:
            Whether there was room.

        Raises:
            OSError: nobody can tell.
        """
        with self._lock:
            self._claims.add(claim)
            others = sum([known.size for known in self._claims if known is not claim])
            if others + size > most:
                return False
            claim.size = size
        return True


class SharedRoom(Room):
    """Room that processes share, and the directory by which they tell each other of their claims.

    Where there are no locks each process has as much for itself.

    Args:
        directory: of this user alone.
    """

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    def claim(self, claim: Claim, size: int, most: int, *, grows: bool = False) -> bool:
        """See `Room.claim`."""
        before = claim.size
        if not super().claim(claim, size, most):
            return False
        granted = before
        try:
            granted = self._granted(claim, size, most, max(1, most // _STEPS) if grows else 1) or before
        finally:
            claim.size = granted
        return granted >= size

    def _granted(self, claim: Claim, size: int, most: int, step: int) -> int:
        """How large the claim is from now on, so many steps; 0 where there is no room for that."""
        with self._alone():
            left = most - self._others(claim)
            if left < size:
                return 0
            granted = min(-(-size // step) * step, left)
            if claim.note is None:
                claim.note = Note(claim, self._directory)
            claim.note.write(granted)
            return granted

    def _others(self, claim: Claim) -> int:
        """Bytes that all others claim. What was left by somebody who was killed is removed."""
        own = None if claim.note is None else claim.note.path
        paths = [entry.path for entry in os.scandir(self._directory) if entry.name.endswith(SUFFIX)]
        return sum([_claimed(path) for path in paths if path != own])

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else claims meanwhile."""
        with _opened(os.path.join(self._directory, _DOOR), self._directory) as door:
            until = time.monotonic() + _PATIENCE
            while not ownfiles.lock(door):
                if time.monotonic() >= until:
                    raise OSError(errno.EAGAIN, "others do not finish claiming room", self._directory)
                time.sleep(_PAUSE)
            yield


class Note:
    """The file of a claim.

    Raises:
        OSError: there can be none.
    """

    def __init__(self, claim: Claim, directory: str) -> None:
        self.path: Final = os.path.join(directory, secrets.token_hex(16) + SUFFIX)
        self._file: Final = ownfiles.create(self.path)
        self.remove: Final[Callable[[], Any]] = weakref.finalize(
            claim, _remove, self.path, self._file, os.getpid()
        )
        ownfiles.hand_over(self._file.fileno(), directory)
        ownfiles.lock(self._file)

    def write(self, size: int) -> None:
        """Say how large the claim is."""
        self._file.seek(0)
        self._file.write(b"%*d" % (_DIGITS, size))


def _remove(path: str, file: io.FileIO, pid: int) -> None:
    if os.getpid() == pid:
        ownfiles.remove(path)
    with contextlib.suppress(OSError):
        file.close()


def _claimed(path: str) -> int:
    """The size of somebody's claim; 0 where there is nobody any more, or no lock that tells."""
    try:
        with open(path, "rb+", buffering=0) as file:
            if ownfiles.FCNTL is None:
                return 0
            try:
                ownfiles.FCNTL.flock(file, ownfiles.FCNTL.LOCK_EX | ownfiles.FCNTL.LOCK_NB)
            except BlockingIOError:
                return int(file.read(_DIGITS) or b"0")
            ownfiles.remove(path)
    except (OSError, ValueError):
        pass  # it is gone
    return 0


def _opened(path: str, directory: str) -> io.FileIO:
    """The file at the door, open; made where there is none."""
    try:
        return open(path, "rb+", buffering=0)
    except FileNotFoundError:
        pass
    try:
        file = ownfiles.create(path)
    except FileExistsError:  # another was quicker
        return open(path, "rb+", buffering=0)
    ownfiles.hand_over(file.fileno(), directory)
    return file
