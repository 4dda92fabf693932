"""The stored form: what goes in comes out, what is damaged, foreign or not signed never does."""

import gc
import json
import os
import random
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import codec_fuzz
import pytest
from codec_fuzz import KEYS, SAMPLES, kind_of, parts_of, seal, usable
from entry_helpers import ANY, MARK, RECORD, RECORDS, VARIED, entries, page
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import codec
from wsgicache.codec import (
    FORMAT,
    HEADER,
    MAGIC,
    DecodeError,
    decode,
    decode_mark,
    decode_parts,
    decode_purge,
    encode,
    encode_mark,
    encode_parts,
    encode_purge,
    head_size,
    wire_name,
)
from wsgicache.entry import Entry, Terms, Variants
from wsgicache.journal import Journal, Kind, Mark, Purge
from wsgicache.testing.contract import ODD_KEYS, contents

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = max(20_000, int(os.environ.get("WSGICACHE_MUTATIONS", "1000000")))
"""How many damaged forms are tried; a machine that is short of time may set fewer."""
PROCESSES = 2
STORED = st.one_of(entries(), RECORDS)
SOME = [page(), VARIED, RECORD]


def again(stored, kind=None, **changed):
    """The stored form with another header, whose checksum fits."""
    payload, body = parts_of(stored)
    return seal(payload, body, kind_of(stored) if kind is None else kind, **changed) + body


# --- round trip ------------------------------------------------------------------------------------


@given(STORED, st.sampled_from([(), KEYS]))
def test_what_goes_in_comes_out(stored, keys):
    data = encode(stored, keys)
    assert contents(decode(data, keys)) == contents(stored)
    assert encode(decode(data, keys), keys) == data


@given(STORED, st.sampled_from([(), KEYS]))
def test_head_and_body_are_told_apart_by_the_head_alone(stored, keys):
    head, body = encode_parts(stored, keys)
    assert head + body == encode(stored, keys)
    assert body == getattr(stored, "body", b"")
    assert head_size(head) == head_size(head + body) == len(head) - HEADER.size
    assert contents(decode_parts(head, body, keys)) == contents(stored)


@given(STORED, st.data())
def test_a_part_is_never_taken_for_the_whole(stored, data):
    whole = encode(stored)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        decode(whole[:end])
    with pytest.raises(DecodeError):
        decode(whole + b"\0")


def test_the_stored_form_is_what_these_tests_think():
    for stored in SOME:
        assert again(stored) == encode(stored)


def test_the_stored_form_of_this_version_does_not_change():
    """Workers of two releases share a store. Whoever changes what is written raises FORMAT."""
    assert FORMAT == 3
    record = Variants("/a", ("b",), ("/a\1b=c",), 1.5)
    assert encode(record).hex() == (
        "77736763" "03" "02" "0000" "00000029" "00000000" "93aab1a3"
        "00000002" "2f61" "3ff8000000000000" "0000000000000000"
        "0001" "00000001" "62" "0001" "00000006" "2f6101623d63"
    )  # fmt: skip
    terms = Terms("200 OK", "f", 1, "ttl", 2, 3, 4, ("g",), ("b",), for_cookies=True, negative=True, cost=5)
    entry = Entry("/a", terms, (("A", "x"),), b"body", 1.5, 2.5, Mark("e", 5, "n"), (None,))
    assert encode(entry).hex() == (
        "77736763" "03" "01" "0000" "00000076" "00000004" "8e32bd32"
        "00000002" "2f61" "3ff8000000000000" "4004000000000000"
        "0005" "00000006" "323030204f4b" "00000001" "66" "00000003" "74746c" "00000001" "65" "00000001" "6e"
        "0000000000000005" "00000001" "00000002" "00000003" "00000004" "00000005" "21"
        "0001" "00000001" "67" "0001" "00000001" "62" "0001" "00000001" "2d"
        "0002" "00000001" "41" "00000001" "78" "626f6479"
    )  # fmt: skip


def test_what_a_thousand_pages_share_is_held_once():
    terms = {id(decode(encode(page(body=bytes(number)))).terms) for number in range(1000)}
    assert len(terms) == 1


# --- what is not an entry --------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"wsgc", b"\0" * 10, b"\x80\x04N.", b"{}", MAGIC + bytes(100)])
def test_foreign_bytes(data):
    with pytest.raises(DecodeError):
        decode(data)
    with pytest.raises(DecodeError):
        decode_parts(data, b"")


@pytest.mark.parametrize("version", [0, 1, FORMAT + 1, 255])
def test_ser_06_another_version_is_not_read(version):
    with pytest.raises(DecodeError, match="another format version"):
        decode(again(page(), version=version))
    with pytest.raises(DecodeError, match="another format version"):
        head_size(again(page(), version=version))


@pytest.mark.parametrize(("kind", "magic"), [(0, MAGIC), (3, MAGIC), (1, b"WSGC"), (1, b"wsgd")])
def test_another_kind_or_magic_is_not_read(kind, magic):
    with pytest.raises(DecodeError, match="foreign"):
        decode(again(page(), kind, magic=magic))


def test_one_kind_is_not_read_as_the_other():
    for stored in SOME:
        with pytest.raises(DecodeError):
            decode(again(stored, 3 - kind_of(stored)))


@pytest.mark.parametrize("stored", SOME, ids=["plain", "varied", "record"])
@pytest.mark.parametrize("keys", [(), KEYS], ids=["plain", "signed"])
def test_every_byte_is_under_the_checksum_or_the_signature(stored, keys):
    whole = encode(stored, keys)
    for position in range(len(whole)):
        for flip in (0x01, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            with pytest.raises(DecodeError):
                decode(bytes(damaged), keys)


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": (("A", "b\r\nSet-Cookie: c"),)},
        {"headers": (("A\r\nB", "c"),)},
        {"headers": (("", "c"),)},
        {"headers": (("A B", "c"),)},
        {"headers": (("A", "\0"),)},
        {"headers": (("A", "\u2028"),)},
        {"terms": Terms("200 OK\r\nSet-Cookie: a=b", "f", 300, "ttl")},
        {"terms": Terms("2\u00b20 OK", "f", 300, "ttl")},
        {"terms": Terms("20", "f", 300, "ttl")},
        {"terms": Terms("OK", "f", 300, "ttl")},
        {"terms": Terms("", "f", 300, "ttl")},
        {"terms": Terms("2000 OK", "f", 300, "ttl")},
        {"values": ("a",)},
        {"since": float("nan")},
        {"since": float("-inf")},
        {"fresh_until": float("inf")},
    ],
    ids=repr,
)
def test_int_10_what_could_not_have_been_stored_is_not_read(changed):
    """The checksum is right: somebody else wrote it, to split a response or to break a hit."""
    with pytest.raises(DecodeError):
        decode(encode(page(**changed)))


def test_a_record_that_never_ends_is_not_read():
    with pytest.raises(DecodeError):
        decode(encode(Variants("/a", ("accept",), (), float("nan"))))


# --- head and body of one piece --------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"other", b"bodY", b"bod", b"body ", b""])
@pytest.mark.parametrize("keys", [(), KEYS], ids=["plain", "signed"])
def test_parts_of_two_entries_are_refused(body, keys):
    """Of the same length or not: the head's checksum is of both."""
    ours, _ = encode_parts(page(), keys)
    theirs, their_body = encode_parts(page(body=body), keys)
    assert contents(decode_parts(theirs, their_body, keys)) == contents(page(body=body))
    for head, mixed in ((ours, their_body), (theirs, b"body")):
        with pytest.raises(DecodeError):
            decode_parts(head, mixed, keys)


@given(STORED, st.data())
def test_the_border_between_them_is_nowhere_else(stored, data):
    whole = encode(stored)
    end = len(encode_parts(stored)[0])
    other = data.draw(st.integers(0, len(whole)).filter(lambda at: at != end))
    with pytest.raises(DecodeError):
        decode_parts(whole[:other], whole[other:])


@pytest.mark.parametrize("off", [-4, -1, 1, 2**31])
@pytest.mark.parametrize("told", ["size", "body_size"])
def test_parts_are_as_long_as_the_header_says(told, off):
    """Although the checksum fits."""
    payload, body = parts_of(page())
    sizes = {"size": len(payload), "body_size": len(body)}
    assert contents(decode_parts(seal(payload, body, **sizes), body)) == contents(page())
    sizes[told] += off
    with pytest.raises(DecodeError, match="cut off, or more than one"):
        decode_parts(seal(payload, body, **sizes), body)


# --- signatures ------------------------------------------------------------------------------------

NEW, OLD, OTHER = b"new key", b"old key", b"somebody else's"


@pytest.mark.parametrize("stored", SOME, ids=["plain", "varied", "record"])
def test_what_is_not_signed_is_refused_where_it_must_be(stored):
    with pytest.raises(DecodeError, match="not signed"):
        decode(encode(stored), [NEW])


@pytest.mark.parametrize("stored", SOME, ids=["plain", "varied", "record"])
def test_the_first_key_signs_and_each_verifies(stored):
    assert contents(decode(encode(stored, [OLD]), [NEW, OLD])) == contents(stored)
    assert contents(decode(encode(stored, [NEW, OLD]), [OTHER, NEW])) == contents(stored)
    assert encode(stored, [NEW, OLD]) == encode(stored, [NEW])
    for keys in ([OLD], [OTHER], [OTHER, OLD], [b""]):
        with pytest.raises(DecodeError, match="not signed with a known key"):
            decode(encode(stored, [NEW, OLD]), keys)


def test_whoever_has_no_keys_reads_it_all_the_same():
    for stored in SOME:
        assert contents(decode(encode(stored, [NEW]))) == contents(stored)


def test_a_signature_of_another_entry_is_refused():
    """The same but for one field each: a key, a mark, a body, a header."""
    end = HEADER.size + codec_fuzz.SIGNATURE
    for changed in (
        {"key": "/b\0\0example.com\0http"},
        {"born": MARK._replace(seq=8)},
        {"born": MARK._replace(nonce="m" * 16)},
        {"body": b"bodY"},
        {"headers": page().headers[:-1]},
        {"since": 1000.5},
    ):
        ours, theirs = encode(page(), [NEW]), encode(page(**changed), [NEW])
        with pytest.raises(DecodeError):
            decode(theirs[: HEADER.size] + ours[HEADER.size : end] + theirs[end:], [NEW])


def test_a_body_is_not_signed_for_another_head_whose_checksum_fits():
    payload, _ = parts_of(page(), [NEW])
    forged = seal(payload, b"forged body", flags=1)
    assert decode_parts(forged, b"forged body").body == b"forged body"
    with pytest.raises(DecodeError, match="not signed"):
        decode_parts(forged, b"forged body", [NEW])


def test_a_body_with_the_same_checksum_is_not_signed_either():
    """A checksum is linear: whoever adds its polynomial to a body changes the body and not the checksum."""
    bits = 0x1_04C1_1DB7  # of CRC-32, which takes the bits of a byte from the lowest up
    polynomial = int(f"{bits:033b}"[::-1], 2).to_bytes(8, "little")
    body = bytes(range(8))
    forged = bytes(one ^ two for one, two in zip(body, polynomial, strict=True))
    assert (zlib.crc32(forged), forged != body) == (zlib.crc32(body), True)
    head, _ = encode_parts(page(body=body), [NEW])
    assert decode_parts(head, forged).body == forged
    with pytest.raises(DecodeError, match="not signed"):
        decode_parts(head, forged, [NEW])


def test_the_border_is_signed_too():
    """What was signed as the end of a head is not the beginning of a body, and the other way round."""
    payload, body = parts_of(page(), [NEW])
    for head, rest in ((payload + body[:2], body[2:]), (payload[:-2], payload[-2:] + body)):
        with pytest.raises(DecodeError, match="not signed"):
            decode_parts(seal(head, rest, flags=1), rest, [NEW])


def test_a_flag_without_a_signature_is_refused():
    payload, body = parts_of(page())
    for keys in ((), [NEW]):
        with pytest.raises(DecodeError):
            decode_parts(seal(payload, body, flags=1), body, keys)
        with pytest.raises(DecodeError):
            decode_parts(seal(b"", b"", flags=1), b"", keys)


# --- damage of every kind --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fuzzed():
    """What became of all mutations: interpreters without anything else in them, side by side."""
    command = [sys.executable, str(Path(codec_fuzz.__file__))]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDEVMODE": ""}
    share = str(MUTATIONS // PROCESSES)
    runs = [
        subprocess.Popen(
            [*command, str(seed), share], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for seed in range(20, 20 + PROCESSES)
    ]
    try:
        told = [run.communicate(timeout=240) for run in runs]
    finally:
        for run in runs:
            if run.poll() is None:
                run.kill()
                run.communicate()
    for run, (_, errors) in zip(runs, told, strict=True):
        assert run.returncode == 0, errors.decode()
    return [json.loads(output) for output, _ in told]


def test_ser_02_a_million_mutations_are_refused_or_read(fuzzed):
    """And nothing else happens; each kind of damage is mostly seen, and none is refused for one reason."""
    total = {damage.__name__: [0, 0] for damage in codec_fuzz.DAMAGES}
    for run in fuzzed:
        for name, (refused, read) in run["outcomes"].items():
            total[name][0] += refused
            total[name][1] += read
    assert sum(map(sum, total.values())) == MUTATIONS // PROCESSES * PROCESSES
    for name, (refused, read) in total.items():
        assert refused > 0, name
        assert read > 0, name
        assert refused > read or name == "strangers"


def test_ser_02_they_take_no_memory(fuzzed):
    assert max(run["grown_kilobytes"] for run in fuzzed) < 16_000


def test_ser_02_what_is_read_takes_no_more_steps_than_its_length_warrants(monkeypatch):
    """Time without a clock: each step over the bytes consumes some, or the count of what follows."""
    steps = 0
    take = codec._Reader.take

    def counted(self, size):
        nonlocal steps
        steps += 1
        return take(self, size)

    monkeypatch.setattr(codec._Reader, "take", counted)
    rng = random.Random(7).random
    for number in range(5000):
        sample = SAMPLES[number % len(SAMPLES)]
        damage = codec_fuzz.DAMAGES[number % len(codec_fuzz.DAMAGES)]
        head, body, keys = damage(sample, rng)
        steps = 0
        try:
            decode_parts(head, body, keys)
        except DecodeError:
            pass
        assert steps <= 10 + len(head) // 2


@given(st.binary(max_size=200), st.binary(max_size=50), st.sampled_from([1, 2]))
def test_random_bytes_are_refused(payload, body, kind):
    for head in (payload, seal(payload, body, kind)):
        try:
            usable(decode_parts(head, body))
        except DecodeError:
            pass


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize(
    "payload",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0" + bytes(16) + b"\xff\xff",
        b"\0\0\0\0" + bytes(16) + b"\xff\xff" + b"\0\0\0\0" * 200,
        b"\0\0\0\0" + bytes(16) + b"\xff\xff" + b"\x7f\xff\xff\xff" * 200,
        b"\0\0\0\0" + bytes(16) + b"\xff\xff" + bytes(4 * 65535) + b"\xff\xff",
    ],
)
def test_what_is_read_takes_no_more_memory_than_its_length_warrants(kind, payload):
    """A length is compared with what is there before anything is made for it."""
    data = seal(payload, kind=kind)
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000 + 20 * len(data)


@pytest.mark.parametrize("size", [0, 1, 2**31, 2**32 - 1])
def test_a_header_alone_takes_no_memory(size):
    header = seal(b"", b"", size=size, body_size=size)
    assert head_size(header) == size
    if size:
        for whole in (decode, lambda data: decode_parts(data, b"")):
            with pytest.raises(DecodeError, match="cut off"):
                whole(header)


# --- marks -----------------------------------------------------------------------------------------

HEX = st.text("0123456789abcdef", min_size=1, max_size=64)
MARKS = st.builds(Mark, st.text("0123456789abcdef.", min_size=1, max_size=64), st.integers(0, 10**18), HEX)


@given(MARKS)
def test_a_mark_goes_in_and_out(mark):
    assert decode_mark(encode_mark(mark)) == mark


@given(MARKS, MARKS)
def test_marks_are_equal_exactly_when_their_bytes_are(one, two):
    assert (encode_mark(one) == encode_mark(two)) is (one == two)


def test_the_marks_of_a_journal_can_be_written():
    journal = Journal()
    for mark in (journal.mark, journal.append([Purge(Kind.ALL, "")], 1.0), journal.restart()):
        assert decode_mark(encode_mark(mark)) == mark


@pytest.mark.parametrize(
    "data",
    [
        b"", b"a 1", b"a 1 ", b"a 01 b", b"a -1 b", b"a 1 b ", b"a 1 b\n", b" 1 b", b"a 1.0 b", b"a  1 b",
        b"g 1 b", b"a 1 g", b"A 1 b", b"a \xd9\xa1 b", b"a 1 b.c", b"a" * 65 + b" 1 b", b"a 1 " + b"b" * 65,
        b"a 1" + b"0" * 19 + b" b", b"a 1 b c", b"\x80\x04N.",
    ],
)  # fmt: skip
def test_what_is_no_mark(data):
    with pytest.raises(DecodeError):
        decode_mark(data)


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"[0-9a-f.]* ?-?[0-9]* ?[0-9a-f]*\n?")))
def test_whatever_is_read_as_a_mark_is_written_so(data):
    try:
        mark = decode_mark(data)
    except DecodeError:
        return
    assert encode_mark(mark) == data


# --- purges ----------------------------------------------------------------------------------------

PURGES = st.builds(Purge, st.sampled_from(Kind), ANY, st.booleans())


@given(PURGES)
def test_a_purge_goes_in_and_out(purge):
    assert decode_purge(encode_purge(purge)) == purge


@given(PURGES, PURGES)
def test_purges_are_equal_exactly_when_their_bytes_are(one, two):
    assert (encode_purge(one) == encode_purge(two)) is (one == two)


@pytest.mark.parametrize("target", [*ODD_KEYS, " ", "a b", " s h", "url s x", "\ud800"], ids=ascii)
@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("soft", [False, True])
def test_a_target_may_be_any_text(kind, target, soft):
    purge = Purge(kind, target, soft)
    assert decode_purge(encode_purge(purge)) == purge


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"url",
        b"url s",
        b"url x /a",
        b"URL s /a",
        b"urls h /a",
        b" url s /a",
        b"url s \xff",
        b"\x80\x04N.",
    ],
)
def test_what_is_no_purge(data):
    with pytest.raises(DecodeError):
        decode_purge(data)


@given(st.one_of(st.binary(max_size=40), st.from_regex(rb"(url|all|meta|group)? ?[sh]? ?.*")))
def test_whatever_is_read_as_a_purge_is_written_so(data):
    try:
        purge = decode_purge(data)
    except DecodeError:
        return
    assert encode_purge(purge) == data


# --- names on the wire -----------------------------------------------------------------------------


@given(ANY)
def test_a_name_is_32_hex_digits_whatever_the_key(key):
    assert len(wire_name(key)) == 32
    assert set(wire_name(key)) <= set("0123456789abcdef")


def test_a_key_has_one_name_in_every_process_and_no_other_key_has_it():
    assert wire_name("/a\0\0example.com\0http") == "cd072994719aa005feba238c73d86029"
    names = {wire_name(key) for key in ODD_KEYS}
    assert len(names) == len(ODD_KEYS)


@given(ANY, ANY)
def test_two_keys_have_two_names(one, two):
    assert (wire_name(one) == wire_name(two)) is (one == two)
