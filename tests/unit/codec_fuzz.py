"""Damages stored forms in every way that can be thought of, and sees what the decoder makes of them.

    python codec_fuzz.py SEED COUNT

As a program it runs on its own, so that what it takes of memory is the decoder's doing, and prints a line of
JSON: for each kind of damage how many were refused and how many read, and what the run took. It ends with a
traceback where anything but a `DecodeError` or a usable entry came of one, or memory went without bound.
"""

import json
import random
import resource
import struct
import sys
import zlib
from pathlib import Path

from entry_helpers import RECORD, VARIED, page

from wsgicache.codec import FORMAT, HEADER, MAGIC, DecodeError, decode, decode_parts, encode, encode_parts
from wsgicache.entry import Terms, Variants, with_etag
from wsgicache.fields import is_field_value, is_token
from wsgicache.testing.contract import contents

KEYS = (b"one key", b"an older key")
SIGNATURE = 32

MEMORY = 64 << 20
"""What a run may take beside what the interpreter holds before it."""


def seal(payload, body=b"", kind=1, *, version=FORMAT, magic=MAGIC, flags=0, size=None, body_size=None):
    """A head with a checksum that fits, whatever else is wrong with it; the payload follows a signature
    where the flags say so. Sizes are told as given."""
    told = len(payload) if size is None else size, len(body) if body_size is None else body_size
    header = struct.pack(">4sBBHII", magic, version, kind, flags, *told)
    signed = flags & 1 and len(payload) >= SIGNATURE
    checked = payload[SIGNATURE:] if signed else payload
    checksum = zlib.crc32(body, zlib.crc32(checked, zlib.crc32(header)))
    return header + struct.pack(">I", checksum) + payload


def parts_of(stored, keys=()):
    """What follows the header in the head, and the body."""
    head, body = encode_parts(stored, keys)
    return head[HEADER.size :], body


def kind_of(stored):
    return 2 if isinstance(stored, Variants) else 1


def length_fields(payload, kind):
    """Where lengths and counts stand in a payload: offset and bytes of each."""
    found, at = [], 0

    def text():
        nonlocal at
        found.append((at, 4))
        at += 4 + int.from_bytes(payload[at : at + 4], "big")

    def texts():
        nonlocal at
        found.append((at, 2))
        at += 2
        for _ in range(int.from_bytes(payload[at - 2 : at], "big")):
            text()

    text()
    at += 16
    texts()
    if kind == 1:
        at += struct.calcsize(">QIIIIIB")
        for _ in range(3):
            texts()
    texts()
    assert at == len(payload), "the layout is another one than this knows"
    return found


class Sample:
    """A stored form with what the damages need to know of it."""

    def __init__(self, stored):
        self.stored = stored
        self.kind = kind_of(stored)
        self.payload, self.body = parts_of(stored)
        self.whole = seal(self.payload, self.body, self.kind) + self.body
        self.lengths = length_fields(self.payload, self.kind)
        self.signed = encode(stored, KEYS)


SAMPLES = [
    Sample(stored)
    for stored in (
        page(),
        VARIED,
        RECORD,
        page(body=b"x" * 300, headers=()),
        page(body=b"", key="", terms=Terms("204 No Content", "f", 0, "ttl", groups=("g",) * 10)),
    )
]


# --- damages: each gives a head, a body, and the keys to read it with --------------------------------


def scribble(rng, data):
    """Bytes exchanged, cut out, doubled, put in."""
    data = bytearray(data)
    for _ in range(1 + int(rng() * 4)):
        at = int(rng() * (len(data) + 1))
        what = int(rng() * 6)
        if what == 0:
            data[at : at + 1] = bytes([int(rng() * 256)])
        elif what == 1:
            del data[at : at + 1 + int(rng() * 12)]
        elif what == 2:
            data[at:at] = data[: int(rng() * 40)]
        elif what == 3:
            data[at : at + 4] = _SIZES[int(rng() * len(_SIZES))]
        elif what == 4:
            data[at : at + 8] = _INSTANTS[int(rng() * len(_INSTANTS))]
        else:
            data[at:at] = _PIECES[int(rng() * len(_PIECES))]
    return bytes(data)


_SIZES = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"\0\0\0\1")
_INSTANTS = tuple([struct.pack(">d", n) for n in (float("nan"), float("inf"), 1e308, -1e308)])
_PIECES = (b"\r\n", b"\xed\xa0\x80", b"\xff", b"\0")


def split(data, rng):
    """Head and body where the header says, or anywhere."""
    end = HEADER.size + int.from_bytes(data[8:12], "big") if rng() < 0.8 else int(rng() * (len(data) + 1))
    return data[:end], data[end:]


def unsealed(sample, rng):
    """The checksum is left as it was."""
    return *split(scribble(rng, sample.whole), rng), ()


def resealed(sample, rng):
    """The checksum fits: the reader has to see it itself."""
    payload = scribble(rng, sample.payload)
    return seal(payload, sample.body, sample.kind), sample.body, ()


def lengths(sample, rng):
    """A length or a count is another; or two of them, so that their sum is what it was."""
    payload = bytearray(sample.payload)
    first = int(rng() * len(sample.lengths))
    at, width = sample.lengths[first]
    value = int.from_bytes(payload[at : at + width], "big")
    most = (1 << 8 * width) - 1
    how = int(rng() * 10)
    if how < 4:
        step = 1 + int(rng() * 8)
        _put(payload, at, width, value + step)
        if first + 1 < len(sample.lengths):
            at, width = sample.lengths[first + 1]
            _put(payload, at, width, int.from_bytes(payload[at : at + width], "big") - step)
    elif how < 7:
        _put(payload, at, width, value + int(rng() * 17) - 8)
    else:
        left = len(payload) - at - width
        _put(payload, at, width, (0, left, left + 1, left - 1, most, most >> 1)[int(rng() * 6)])
    return seal(payload, sample.body, sample.kind), sample.body, ()


def _put(data, at, width, value):
    data[at : at + width] = (value % (1 << 8 * width)).to_bytes(width, "big")


def borders(sample, rng):
    """The border between head and body is elsewhere, in what is told, in what is given, or in both."""
    both = sample.payload + sample.body
    told, given = int(rng() * (len(both) + 1)), int(rng() * (len(both) + 1))
    how = int(rng() * 4)
    if how == 0:
        given = told
    elif how == 1:
        told = len(sample.payload)
    elif how == 2:
        given = len(sample.payload)
    sizes = told, len(both) - told
    if rng() < 0.2:
        sizes = int(rng() * 2**32), int(rng() * 2**32)
    head = seal(both[:given], both[given:], sample.kind, size=sizes[0], body_size=sizes[1])
    return head, both[given:], ()


def headers(sample, rng):
    """Magic, version, kind or flags are others."""
    changed = {}
    how = int(rng() * 5)
    if how == 0:
        changed["magic"] = scribble(rng, MAGIC)[:4].ljust(4)
    elif how == 1:
        changed["version"] = int(rng() * 256)
    elif how == 2:
        changed["flags"] = int(rng() * 65536)
    kind = int(rng() * 256) if how == 3 else 3 - sample.kind if how == 4 else sample.kind
    return seal(sample.payload, sample.body, kind, **changed), sample.body, ()


def strangers(sample, rng):
    """Head and body are of two entries."""
    other = SAMPLES[int(rng() * len(SAMPLES))]
    if rng() < 0.5:
        return sample.whole[: HEADER.size + len(sample.payload)], other.body, ()
    return seal(sample.payload, other.body, sample.kind), other.body, ()


def signed(sample, rng):
    """Signed, then damaged; the checksum is made to fit, which anybody can, but not the signature."""
    data = scribble(rng, sample.signed)
    if rng() < 0.5:
        return *split(data, rng), KEYS
    payload = data[HEADER.size : len(data) - len(sample.body)]
    return seal(payload, sample.body, sample.kind, flags=1), sample.body, KEYS


DAMAGES = (unsealed, resealed, lengths, lengths, borders, headers, strangers, signed)
ORIGINALS_ONLY = (unsealed, signed)
"""What a checksum that was not made anew, or a signature, lets pass is what was stored."""


# --- what must come of it ----------------------------------------------------------------------------


def usable(stored):
    """What an engine does with whatever came from a store: none of it may fail."""
    if isinstance(stored, Variants):
        assert stored.size() > 0
        return
    assert 100 <= stored.terms.code <= 999
    assert is_field_value(stored.terms.status)
    assert all([is_token(name) and is_field_value(value) for name, value in stored.headers])
    assert len(stored.values) == len(stored.terms.varying)
    assert isinstance(stored.ttl(1.7e9), int)
    instants = stored.keep_until, stored.stale_if_error_until, stored.stale_while_revalidate_until
    assert max(instants) == stored.keep_until
    assert stored.size() >= len(stored.body)
    again = with_etag(stored)
    assert contents(decode(encode(again))) == contents(again)


def read(damage, sample, rng):
    """Whether what was damaged was read; then it can be used, and is what it was where that can be told."""
    head, body, keys = damage(sample, rng)
    try:
        stored = decode_parts(head, body, keys)
    except DecodeError:
        return False
    usable(stored)
    assert damage not in ORIGINALS_ONLY or contents(stored) == contents(sample.stored)
    return True


def run(seed, count):
    """Damage `count` stored forms. Returns how many were refused and read, by kind of damage."""
    rng = random.Random(seed).random
    outcomes = {damage.__name__: [0, 0] for damage in DAMAGES}
    for number in range(count):
        sample, damage = SAMPLES[number % len(SAMPLES)], DAMAGES[number % len(DAMAGES)]
        outcomes[damage.__name__][read(damage, sample, rng)] += 1
    return outcomes


def main():
    seed, count = int(sys.argv[1]), int(sys.argv[2])
    run(seed, 1000)  # imports, tables
    before = peak_kilobytes()
    held = Path("/proc/self/statm")
    if held.exists():  # not only the peak is looked at: a length that is believed fails at once
        now = int(held.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    outcomes = run(seed, count)
    print(json.dumps({"outcomes": outcomes, "grown_kilobytes": peak_kilobytes() - before}))


def peak_kilobytes():
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


if __name__ == "__main__":
    main()
