"""The stored form of entries and marks: what shared stores write and read. Pure.

The rules this file obeys:

- Stored bytes are data. Nothing in them is executable, and whatever is wrong with them is a `DecodeError`.
- A stored form is a head and a body. The head says what it is (magic, format version), how long both are,
  and a checksum of both; lengths are checked before anything is sliced. An unknown version is foreign.
- The full key and the mark that an entry was born at are in the head, so that bytes that were moved to
  another key, or come from another journal, are known for what they are.
- With signing keys a head also carries an HMAC of everything, so that whoever can write to the store cannot
  make up a page. The first key signs, each of them verifies: keys are changed by putting the new one first.
- A body in a file is the name of the file, its size and its ETag, in the head; then the body here is empty.
- Text is UTF-8 with surrogates passed through.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import Final

from .body import Body, FileBody, is_file_name
from .entry import Entry, Headers, Stored, Terms, Variants, intern_terms
from .fields import is_field_value, is_token
from .journal import Kind, Mark, Purge

MAGIC: Final = b"wsgc"
FORMAT: Final = 3

HEADER: Final = struct.Struct(">4sBBHIII")
"""magic, format version, kind, flags, bytes of the head after this, bytes of the body, CRC-32 of them all."""

_UNCHECKED: Final = 4
"""Bytes at the end of the header that hold the checksum itself."""

_NUMBERS: Final = struct.Struct(">dd")
_TERMS: Final = struct.Struct(">QIIIIIB")
_MOST: Final = 2**32 - 1
_LENGTH: Final = struct.Struct(">Q")
_TAG: Final = re.compile(r'"[A-Za-z0-9_-]{16}"')
_ENTRY: Final = 1
_VARIANTS: Final = 2
_SIGNED: Final = 1
_IN_FILE: Final = 2
_SIGNATURE: Final = 32

Keys = Sequence[bytes]
"""Signing keys, the one that signs first."""


class DecodeError(ValueError):
    """Stored bytes are not an entry: foreign, cut, damaged, not signed, or of another format version."""


def encode(stored: Stored, keys: Keys = ()) -> bytes:
    """The stored form of an entry or of a variants record, head and body in one."""
    head, body = encode_parts(stored, keys)
    return head + body


def encode_parts(stored: Stored, keys: Keys = ()) -> tuple[bytes, bytes]:
    """The stored form as a head and a body, for stores that keep them apart."""
    flags = _SIGNED if keys else 0
    if isinstance(stored, Entry):
        kind, payload, body = _ENTRY, b"".join(_entry_parts(stored)), stored.body
        if isinstance(body, FileBody):
            flags |= _IN_FILE
            payload, body = payload + _text(body.name) + _LENGTH.pack(body.size) + _text(body.tag), b""
    else:
        parts = [_text(stored.key), _NUMBERS.pack(stored.keep_until, 0.0)]
        kind, body = _VARIANTS, b""
        payload = b"".join([*parts, _texts(stored.fields), _texts(stored.variants)])
    size = len(payload) + (_SIGNATURE if keys else 0)
    header = HEADER.pack(MAGIC, FORMAT, kind, flags, size, len(body), 0)[:-_UNCHECKED]
    header += _checksum(header, payload, body)
    signature = _sign(keys[0], header, payload, body) if keys else b""
    return header + signature + payload, body


def _checksum(header: bytes, payload: bytes, body: bytes) -> bytes:
    return zlib.crc32(body, zlib.crc32(payload, zlib.crc32(header))).to_bytes(_UNCHECKED, "big")


def _sign(key: bytes, *parts: bytes | memoryview) -> bytes:
    signature = hmac.new(key, digestmod=hashlib.sha256)
    for part in parts:
        signature.update(part)
    return signature.digest()


def _entry_parts(entry: Entry) -> Iterator[bytes]:
    terms, born = entry.terms, entry.born
    yield _text(entry.key)
    yield _NUMBERS.pack(entry.since, entry.fresh_until)
    yield _texts((terms.status, terms.fingerprint, terms.source, born.epoch, born.nonce))
    windows = (terms.lifetime, terms.stale_while_revalidate, terms.stale_if_error, terms.keep)
    cost = min(terms.cost, _MOST)
    flags = sum([1 << i for i, name in enumerate(_FLAGS) if getattr(terms, name)])
    yield _TERMS.pack(born.seq, *windows, cost, flags)
    yield _texts(terms.groups)
    yield _texts(terms.varying)
    yield _texts(["-" if value is None else "=" + value for value in entry.values])
    yield _texts([text for pair in entry.headers for text in pair])


_FLAGS: Final = (
    "for_cookies",
    "for_credentials",
    "always_validate",
    "never_stale",
    "made_etag",
    "negative",
)


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return struct.pack(">I", len(data)) + data


def _texts(texts: Sequence[str]) -> bytes:
    return struct.pack(">H", len(texts)) + b"".join([_text(text) for text in texts])


def decode(data: bytes, keys: Keys = ()) -> Stored:
    """Read the stored form, head and body in one.

    Args:
        keys: where there are any, what none of them has signed is refused.

    Raises:
        DecodeError: anything at all is wrong with it.
    """
    end = HEADER.size + head_size(data)
    return decode_parts(data[:end], data[end:], keys)


def head_size(data: bytes) -> int:
    """Bytes of the head after `HEADER`, as the header tells.

    Raises:
        DecodeError: it is no header of this format version.
    """
    if len(data) < HEADER.size:
        raise DecodeError("too short to be an entry")
    magic, version, kind, _, size, _, _ = HEADER.unpack_from(data)
    if magic != MAGIC or version != FORMAT or kind not in (_ENTRY, _VARIANTS):
        raise DecodeError("foreign bytes or another format version")
    return int(size)


def decode_parts(head: bytes, body: bytes, keys: Keys = ()) -> Stored:
    """Read the stored form from its head and its body.

    Raises:
        DecodeError: anything at all is wrong with one of them, or they are not of one piece.
    """
    size = head_size(head)
    _, _, kind, flags, _, body_size, _ = HEADER.unpack_from(head)
    if len(head) != HEADER.size + size or len(body) != body_size:
        raise DecodeError("cut off, or more than one")
    start = HEADER.size + (_SIGNATURE if flags & _SIGNED else 0)
    payload = head[start:]
    unchecked = HEADER.size - _UNCHECKED
    if _checksum(head[:unchecked], payload, body) != head[unchecked : HEADER.size]:
        raise DecodeError("damaged: the checksum differs")
    if keys and not _is_signed(keys, head, payload, body, flags):
        raise DecodeError("not signed with a known key")
    reader = _Reader(payload)
    stored = _read_entry(reader, body, bool(flags & _IN_FILE)) if kind == _ENTRY else _read_variants(reader)
    reader.finish()
    return stored


def _is_signed(keys: Keys, head: bytes, payload: bytes, body: bytes, flags: int) -> bool:
    if not flags & _SIGNED:
        return False
    given, header = head[HEADER.size : HEADER.size + _SIGNATURE], head[: HEADER.size]
    return any([hmac.compare_digest(given, _sign(key, header, payload, body)) for key in keys])


class _Reader:
    """A cursor over bytes that refuses to read past their end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise DecodeError("cut off")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def numbers(self) -> tuple[float, float]:
        first, second = _NUMBERS.unpack(self.take(_NUMBERS.size))
        if not (math.isfinite(first) and math.isfinite(second)):
            raise DecodeError("no instants")
        return first, second

    def text(self) -> str:
        (size,) = struct.unpack(">I", self.take(4))
        try:
            return self.take(size).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise DecodeError("not text") from error

    def texts(self) -> tuple[str, ...]:
        (count,) = struct.unpack(">H", self.take(2))
        return tuple([self.text() for _ in range(count)])

    def finish(self) -> None:
        if self._at != len(self._data):
            raise DecodeError("trailing bytes")


def _read_variants(reader: _Reader) -> Variants:
    key = reader.text()
    keep_until, _ = reader.numbers()
    return Variants(key, reader.texts(), reader.texts(), keep_until)


def _read_file(reader: _Reader) -> FileBody:
    name = reader.text()
    (size,) = _LENGTH.unpack(reader.take(_LENGTH.size))
    tag = reader.text()
    if not is_file_name(name) or _TAG.fullmatch(tag) is None:
        raise DecodeError("not the name of a file")
    return FileBody(name, size, tag)


def _read_entry(reader: _Reader, read: bytes, in_file: bool) -> Entry:
    key = reader.text()
    since, fresh_until = reader.numbers()
    words = reader.texts()
    if len(words) != 5:
        raise DecodeError("wrong number of words")
    status, fingerprint, source, epoch, nonce = words
    seq, lifetime, swr, sie, keep, cost, flags = _TERMS.unpack(reader.take(_TERMS.size))
    terms = Terms(
        status,
        fingerprint,
        lifetime,
        source,
        swr,
        sie,
        keep,
        groups=reader.texts(),
        varying=reader.texts(),
        cost=cost,
        **{name: bool(flags >> i & 1) for i, name in enumerate(_FLAGS)},
    )
    values = tuple([None if text == "-" else text[1:] for text in reader.texts()])
    headers = _pairs(reader.texts())
    if len(values) != len(terms.varying):
        raise DecodeError("fields disagree")
    if _STATUS.match(status) is None or not is_field_value(status):
        raise DecodeError("no status")
    if in_file and read:
        raise DecodeError("two bodies")
    body: Body = _read_file(reader) if in_file else read
    return Entry(key, intern_terms(terms), headers, body, since, fresh_until, Mark(epoch, seq, nonce), values)


_STATUS: Final = re.compile(r"[1-9][0-9]{2}(?: |\Z)", re.ASCII)


def _pairs(texts: tuple[str, ...]) -> Headers:
    """Header pairs; control bytes are refused on the way in and again here (response splitting)."""
    if len(texts) % 2 or not all(map(is_token, texts[::2])) or not all(map(is_field_value, texts[1::2])):
        raise DecodeError("not header fields")
    return tuple(zip(texts[::2], texts[1::2], strict=True))


# --- marks and names on the wire -------------------------------------------------------------------


def encode_mark(mark: Mark) -> bytes:
    """A mark as stores keep it: `epoch seq nonce`, so that two are equal exactly when their bytes are."""
    return f"{mark.epoch} {mark.seq} {mark.nonce}".encode("ascii")


_MARK: Final = re.compile(rb"([0-9a-f.]{1,64}) (0|[1-9][0-9]{0,18}) ([0-9a-f]{1,64})\Z")


def decode_mark(data: bytes) -> Mark:
    """Read a mark.

    Raises:
        DecodeError: it is none.
    """
    match = _MARK.match(data)
    if match is None:
        raise DecodeError("not a mark")
    return Mark(match[1].decode("ascii"), int(match[2]), match[3].decode("ascii"))


def wire_name(key: str) -> str:
    """What a key is called in a store that others can reach: 32 hex digits, whatever the client sent."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def encode_purge(purge: Purge) -> bytes:
    """A purge as a store's journal keeps it: equal bytes, equal purge."""
    soft = "s" if purge.soft else "h"
    return f"{purge.kind.value} {soft} {purge.target}".encode("utf-8", "surrogatepass")


def decode_purge(data: bytes) -> Purge:
    """Read a purge.

    Raises:
        DecodeError: it is none.
    """
    try:
        kind, soft, target = data.decode("utf-8", "surrogatepass").split(" ", 2)
        return Purge(Kind(kind), target, {"s": True, "h": False}[soft])
    except (ValueError, KeyError) as error:
        raise DecodeError("not a purge") from error
