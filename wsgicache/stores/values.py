"""Values of stores that keep bytes under names and know no more: entries with a line before them, leases.

The line says what `set` must know of what it replaces without decoding it: the epoch, the number of the
purge before the fill (`-` for a record of varying fields), the token of the fill. It is believed only as far
as the entry says the same.
"""

from __future__ import annotations

import math
import re
import time
from hashlib import blake2b
from typing import Final, NamedTuple

from ..codec import DecodeError, Keys, decode, encode, wire_name
from ..entry import Entry, Stored

HELD: Final = b"h"
UNSTORABLE: Final = b"n"

_LINE: Final = re.compile(rb"([0-9a-f]{1,64}) (-|[0-9]{1,19}) ([0-9]{1,20})\n")
_LONGEST: Final = 128
_LEASE: Final = re.compile(rb"([hn]) ([0-9]{1,20}) ([0-9]{1,12}\.[0-9]{3})\Z")


class Names:
    """What things of one namespace are called: hex digits of one length, whatever a client sent.

    Args:
        namespace: any text.
    """

    def __init__(self, namespace: str) -> None:
        digest = blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=8, person=b"wsgicache")
        self.prefix: Final = digest.hexdigest()
        self.mark: Final = self.prefix + "m"

    def of(self, kind: str, text: str) -> str:
        """The name for a text; `kind` is a letter."""
        return self.prefix + kind + wire_name(text)


class Line(NamedTuple):
    """What stands before an entry."""

    epoch: bytes
    seq: bytes
    token: int
    size: int


def line_for(stored: Stored, epoch: str, token: int) -> bytes:
    """The line before the stored form. A record of varying fields is born nowhere: `epoch` is that of now."""
    if isinstance(stored, Entry):
        return f"{stored.born.epoch} {stored.born.seq} {token}\n".encode("utf-8", "surrogatepass")
    return f"{epoch} - {token}\n".encode("ascii")


def read_line(raw: bytes) -> Line | None:
    """The line of a value, or None where there is none."""
    match = _LINE.match(raw[:_LONGEST])
    return None if match is None else Line(match[1], match[2], int(match[3]), match.end())


def refuses(old: bytes | None, line: bytes, epoch: str) -> bool:
    """Whether an entry does not take the place of what is there: its epoch is over, or it came earlier."""
    new = read_line(line)
    if new is None or new.epoch != epoch.encode("ascii"):
        return True
    there = None if old is None else read_line(old)
    if there is None or there.epoch != new.epoch or b"-" in (there.seq, new.seq):
        return False
    return int(there.seq) > int(new.seq) or 0 < new.token < there.token


def read_stored(key: str, raw: bytes, keys: Keys) -> Stored | None:
    """What a value holds; None for what is damaged, foreign, or another key's.

    Args:
        key: what it was stored under: its own, or that of a variant of it.
        keys: signing keys.
    """
    line = read_line(raw)
    if line is None:
        return None
    try:
        stored = decode(raw[line.size :], keys)
    except DecodeError:
        return None
    if isinstance(stored, Entry):
        ours = key == stored.key or key.startswith(stored.key + "\1")
        return stored if ours and line_for(stored, "", line.token) == raw[: line.size] else None
    return stored if key == stored.key and line.seq == b"-" else None


def is_same(one: Stored, other: Stored) -> bool:
    """Whether two are stored as the same bytes."""
    return one is other or encode(one) == encode(other)


def write_text(text: str) -> bytes:
    """A text as it is stored: never nothing."""
    return b"=" + text.encode("utf-8", "surrogatepass")


def read_text(raw: object) -> str | None:
    """A text that was stored; None for what is none."""
    if not isinstance(raw, bytes) or not raw.startswith(b"="):
        return None
    try:
        return raw[1:].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def lease_value(kind: bytes, token: int, seconds: float) -> tuple[bytes, int]:
    """What is stored for a lease or for a note of an unstorable answer, and whole seconds to keep it."""
    return b"%b %d %.3f" % (kind, token, time.time() + seconds), math.ceil(seconds) + 1


def read_lease(raw: object) -> tuple[bytes, int, float]:
    """Kind, token, wall-clock end; what is none ended long ago."""
    match = _LEASE.match(raw) if isinstance(raw, bytes) else None
    return (b"", 0, 0.0) if match is None else (match[1], int(match[2]), float(match[3]))
