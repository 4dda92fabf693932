"""Sending: what a server gets to iterate over where a body is in a file (PEP 3333).

The file is opened before the head goes out, so that one that is gone is still a miss. A whole body is given
to the server's own `wsgi.file_wrapper` where it has one: many have the kernel send it. Parts are read here,
because servers differ in what they make of a file's position and of Content-Length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final

from .answer import Answer
from .body import Part
from .stores.spool import open_body

BLOCK: Final = 65536
"""Bytes of a file that are read at a time."""


def chunks_of(made: Answer, environ: dict[str, Any] | None) -> Iterable[bytes]:
    """The chunks of an answer; whoever gets them closes them.

    Args:
        environ: the server's, where it gets these very chunks; None where something is done to them.

    Raises:
        OSError: the file of the body is gone.
    """
    if made.file is None:
        return made.chunks  # type: ignore[return-value]  # without a file they are all bytes
    if not made.chunks:
        return ()
    file = open_body(made.file)
    if environ is not None and made.status.startswith("200"):
        wrapper: Callable[[BinaryIO, int], Iterable[bytes]] | None = environ.get("wsgi.file_wrapper")
        if wrapper is not None:
            try:
                return wrapper(file, BLOCK)
            except BaseException:
                file.close()
                raise
    return FileChunks(file, made.chunks)


def close(chunks: object) -> None:
    """Close what `chunks_of` gave, where the server will not."""
    closing = getattr(chunks, "close", None)
    if closing is not None:
        closing()


class FileChunks:
    """Parts of a file, and what stands between them, block by block. Closed at its end or by `close`.

    Args:
        file: open; it is closed here.
        chunks: what is sent, in order.
    """

    __slots__ = ("_blocks", "_file")

    def __init__(self, file: BinaryIO, chunks: Sequence[bytes | Part]) -> None:
        self._file = file
        self._blocks = self._read(chunks)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._blocks)

    def _read(self, chunks: Sequence[bytes | Part]) -> Iterator[bytes]:
        file = self._file
        try:
            for chunk in chunks:
                if not isinstance(chunk, Part):
                    yield chunk
                    continue
                file.seek(chunk.start)
                left = chunk.stop - chunk.start
                while left:
                    block = file.read(min(BLOCK, left))
                    if not block:
                        raise OSError("the file of a stored body became shorter")
                    left -= len(block)
                    yield block
        finally:
            file.close()

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()  # type: ignore[attr-defined]  # it is a generator
        self._file.close()
