"""Pages of the LMDB store: from their records in the file to what was stored, and what may replace them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..codec import FORMAT, HEADER, MAGIC, DecodeError, decode_parts
from ..entry import Stored, Variants
from .lmdbhandle import Handle
from .lmdbrecords import NUMBER, Filed, piece_name, read_head


def read_body(handle: Handle, transaction: Any, raw: bytes) -> bytes:
    """The body that belongs to a record, copied; what is missing of it makes the checksum differ."""
    try:
        head = read_head(raw)[0]
    except DecodeError:
        return b""
    if head.pieces == 1:
        return transaction.get(piece_name(head.number, 0), b"", db=handle.bodies)  # type: ignore[no-any-return]
    if head.pieces > head.size // handle.sizes.page + 1:
        return b""
    return b"".join(
        [
            transaction.get(piece_name(head.number, place), b"", db=handle.bodies)
            for place in range(head.pieces)
        ]
    )


def decode_whole(raw: bytes, body: bytes, keys: Sequence[bytes]) -> tuple[str, Stored]:
    """The key that a record was stored under, and what it holds.

    Raises:
        DecodeError: anything at all is wrong with it.
    """
    _, rest, head = read_head(raw)
    stored = decode_parts(head, body, keys)
    try:
        return stored.key + rest.decode("utf-8", "surrogatepass"), stored
    except UnicodeDecodeError:
        raise DecodeError("not text") from None


def decode_record(key: str, raw: bytes, body: bytes, keys: Sequence[bytes]) -> Stored:
    """What a record holds that was found under a key.

    Raises:
        DecodeError: anything at all is wrong with it, such as that it belongs to another key.
    """
    found, stored = decode_whole(raw, body, keys)
    if found != key or (isinstance(stored, Variants) and key != stored.key):
        raise DecodeError("of another key")
    if key != stored.key and not key.startswith(stored.key + "\1"):
        raise DecodeError("of another key")
    return stored


def is_of_another_version(raw: bytes) -> bool:
    """Whether a record holds a stored form of another version, which others can read."""
    try:
        head = read_head(raw)[2]
    except DecodeError:
        return False
    return len(head) >= HEADER.size and head.startswith(MAGIC) and head[len(MAGIC)] != FORMAT


def refuses(old: bytes, epoch: bytes, born: int, token: int) -> bool:
    """Whether what is stored is newer than what would replace it."""
    try:
        head = read_head(old)[0]
    except DecodeError:
        return False
    if not head.is_entry or head.epoch != epoch:
        return False
    return head.born > born or 0 < token < head.token


def files_of(handle: Handle, transaction: Any) -> dict[int, Filed]:
    """The files that records name, by the numbers of their entries, in the order of storing.

    Raises:
        DecodeError: a record is damaged.
    """
    found = {}
    for key, raw in transaction.cursor(handle.files):
        if len(key) != NUMBER.size:
            raise DecodeError("not the number of a file")
        found[NUMBER.unpack(key)[0]] = Filed.read(raw)
    return found
