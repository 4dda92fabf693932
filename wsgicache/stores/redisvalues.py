"""The stored form of an entry in Redis: a line that differs each time, and what `codec` makes of the entry.

The line has `redisscripts.LINE` bytes: the epoch and the number of the mark that the entry was born at, the
token that it was stored with, a random number, and how many bytes of text follow that lead from the entry's
own key to the one it is stored under.
"""

from __future__ import annotations

import re
from typing import Final

from ..codec import DecodeError, decode, encode_mark, encode_parts
from ..entry import Entry, Stored
from ..journal import new_id
from .redisscripts import LINE

LINE_FORM: Final = re.compile(
    rb"([0-9a-f]{1,16}) ([0-9]{1,19}|-) ([0-9]{1,16}) [0-9a-f]{16} ([0-9]{1,7}) *\n\Z"
)


def write_value(
    key: str, stored: Stored, epoch: str, seq: str, token: int, signing_keys: tuple[bytes, ...] = ()
) -> tuple[bytes, bytes]:
    """The line of a value, and the value with it."""
    suffix = suffix_of(key, stored)
    line = f"{epoch} {seq} {token} {new_id()} {len(suffix)}".ljust(LINE - 1).encode("ascii") + b"\n"
    return line, b"".join((line, suffix, *encode_parts(stored, signing_keys)))


def suffix_of(key: str, stored: Stored) -> bytes:
    """What leads from the entry's own key to that of a variant; nothing to another, which is then a miss."""
    return encoded(key[len(stored.key) :]) if key.startswith(stored.key) else b""


def read_value(raw: bytes, signing_keys: tuple[bytes, ...] = ()) -> tuple[str, Stored]:
    """The key that a value was stored under, and what was stored.

    Raises:
        DecodeError: anything at all is wrong with it.
    """
    match = LINE_FORM.match(raw[:LINE])
    if match is None:
        raise DecodeError("not a line of ours")
    end = LINE + int(match[4])
    stored = decode(raw[end:], signing_keys)
    try:
        key = stored.key + raw[LINE:end].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DecodeError("not text") from error
    if isinstance(stored, Entry) and encode_mark(stored.born).split(b" ")[:2] != [match[1], match[2]]:
        raise DecodeError("the line is of another entry")
    return key, stored


def found(raw: bytes | None, signing_keys: tuple[bytes, ...], epoch: str) -> tuple[str, Stored] | None:
    """What a scan came upon: nothing where it is of another epoch, damaged, or gone."""
    if raw is None or not raw.startswith(epoch.encode("ascii") + b" "):
        return None
    try:
        return read_value(raw, signing_keys)
    except DecodeError:
        return None


def encoded(text: str) -> bytes:
    """A text as it is sent."""
    return text.encode("utf-8", "surrogatepass")


def decoded(raw: bytes) -> str:
    """A text that `encoded` made."""
    return raw.decode("utf-8", "surrogatepass")


def packed(*words: bytes) -> list[bytes]:
    """A command as it is sent."""
    return [b"*%d\r\n" % len(words), *[b"$%d\r\n%s\r\n" % (len(word), word) for word in words]]
