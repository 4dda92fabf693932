"""What was read of an app's body and its client has not taken yet, where the copy is in a file."""

from __future__ import annotations

from collections import deque
from typing import Final

from .sending import BLOCK
from .stores.spool import Writer


class Behind:
    """A queue of chunks, of which most are read from the copy when it is their turn.

    Args:
        first: chunks from before the file's part.
        writer: has the copy; open for reading.
        start: where the file's part begins.
    """

    __slots__ = ("_at", "_first", "_last", "_stop", "_writer")

    def __init__(self, first: deque[bytes] | None, writer: Writer, start: int) -> None:
        self._first: Final = deque() if first is None else first
        self._last: Final[deque[bytes]] = deque()
        self._writer = writer
        self._at = self._stop = start

    def grow(self, size: int) -> None:
        """The next chunk is in the file."""
        self._stop += size

    def append(self, chunk: bytes) -> None:
        """The next chunk is this; none that is in the file comes after it."""
        self._last.append(chunk)

    def popleft(self) -> bytes:
        """The next bytes.

        Raises:
            OSError: the file became shorter.
        """
        if self._first:
            return self._first.popleft()
        if self._at < self._stop:
            block = self._writer.read(self._at, min(BLOCK, self._stop - self._at))
            self._at += len(block)
            return block
        return self._last.popleft()

    def __bool__(self) -> bool:
        return bool(self._first or self._at < self._stop or self._last)
