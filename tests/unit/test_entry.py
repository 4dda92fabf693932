"""Entries: what goes in comes out, what is damaged never does, nobody changes one, and its size is true."""

import ast
import gc
import os
import random
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import entry as entry_module
from wsgicache.codec import FORMAT, MAGIC, DecodeError, decode, encode
from wsgicache.entry import (
    Entry,
    Terms,
    Variants,
    intern_pairs,
    intern_terms,
    make_etag,
    with_etag,
)
from wsgicache.fields import is_field_value, is_token
from wsgicache.journal import Mark
from wsgicache.testing.contract import contents

MARK = Mark("e" * 16, 7, "n" * 16)
MUTATIONS = int(os.environ.get("WSGICACHE_MUTATIONS", "20000"))
"""How many damaged entries are tried; set the variable to 1000000 for a long look."""

ANY = st.text(max_size=20)  # surrogates and control characters too
TOKENS = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,12}", fullmatch=True)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
SECONDS = st.integers(0, 2**32 - 1)
INSTANTS = st.floats(-1e12, 1e12)
MARKS = st.builds(Mark, ANY, st.integers(0, 2**64 - 1), ANY)


@st.composite
def entries(draw):
    varying = draw(st.lists(ANY, max_size=3).map(tuple))
    terms = Terms(
        status=f"{draw(st.integers(100, 999))} {draw(VALUES)}",
        fingerprint=draw(ANY),
        lifetime=draw(SECONDS),
        source=draw(ANY),
        stale_while_revalidate=draw(SECONDS),
        stale_if_error=draw(SECONDS),
        keep=draw(SECONDS),
        groups=draw(st.lists(ANY, max_size=3).map(tuple)),
        varying=varying,
        for_cookies=draw(st.booleans()),
        for_credentials=draw(st.booleans()),
        always_validate=draw(st.booleans()),
        never_stale=draw(st.booleans()),
        made_etag=draw(st.booleans()),
        negative=draw(st.booleans()),
    )
    return Entry(
        key=draw(ANY),
        terms=terms,
        headers=draw(st.lists(st.tuples(TOKENS, VALUES), max_size=5).map(tuple)),
        body=draw(st.binary(max_size=50)),
        since=draw(INSTANTS),
        fresh_until=draw(INSTANTS),
        born=draw(MARKS),
        values=draw(st.tuples(*[st.one_of(st.none(), ANY)] * len(varying))),
    )


RECORDS = st.builds(
    Variants, ANY, st.lists(ANY, max_size=3).map(tuple), st.lists(ANY, max_size=5).map(tuple), INSTANTS
)


def page(**changed):
    given = {
        "key": "/a\0\0example.com\0http",
        "terms": Terms("200 OK", "f" * 16, 300, "ttl"),
        "headers": (("Content-Type", "text/html"), ("Set-X", ""), ("Set-X", "b"), ("Content-Length", "4")),
        "body": b"body",
        "since": 1000.0,
        "fresh_until": 1300.0,
        "born": MARK,
        "values": (),
    }
    return Entry(**{**given, **changed})


VARIED = page(
    terms=Terms(
        "404 Not Found",
        "0" * 16,
        60,
        "max-age",
        10,
        20,
        3600,
        ("a", "b"),
        ("accept", "cookie:x"),
        negative=True,
    ),
    values=(None, "\u00e9"),
)
RECORD = Variants("/a", ("accept",), ("/a\1accept-", "/a\1accept=x"), 1e9)


# --- round trip ---


@given(st.one_of(entries(), RECORDS))
def test_what_goes_in_comes_out(stored):
    data = encode(stored)
    assert contents(decode(data)) == contents(stored)
    assert encode(decode(data)) == data


@given(st.one_of(entries(), RECORDS), st.data())
def test_a_part_is_never_taken_for_the_whole(stored, data):
    whole = encode(stored)
    end = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError):
        decode(whole[:end])
    with pytest.raises(DecodeError):
        decode(whole + b"\0")


# --- what is not an entry ---


def sealed(payload, kind=1, version=FORMAT, magic=MAGIC, body=b""):
    """A stored form with the checksum of its payload, whatever that is."""
    header = struct.pack(">4sBBHII", magic, version, kind, 0, len(payload) - len(body), len(body))
    return header + struct.pack(">I", zlib.crc32(header + payload)) + payload


def payload_of(stored):
    return encode(stored)[20:]


@pytest.mark.parametrize("data", [b"", b"wsgc", b"\0" * 10, b"\x80\x04N.", b"{}", MAGIC + bytes(100)])
def test_foreign_bytes(data):
    with pytest.raises(DecodeError):
        decode(data)


def test_the_stored_form_is_what_these_tests_think():
    assert sealed(payload_of(page()), body=page().body) == encode(page())
    assert sealed(payload_of(RECORD), kind=2) == encode(RECORD)


@pytest.mark.parametrize("version", [0, FORMAT + 1, 255])
def test_another_version_is_not_read(version):
    with pytest.raises(DecodeError, match="another format version"):
        decode(sealed(payload_of(page()), body=page().body, version=version))


@pytest.mark.parametrize(("kind", "magic"), [(0, MAGIC), (3, MAGIC), (1, b"WSGC"), (1, b"wsgd")])
def test_another_kind_or_magic_is_not_read(kind, magic):
    with pytest.raises(DecodeError, match="foreign"):
        decode(sealed(payload_of(page()), kind, magic=magic, body=page().body))


def test_one_kind_is_not_read_as_the_other():
    for stored, kind in ((page(), 2), (RECORD, 1)):
        with pytest.raises(DecodeError):
            decode(sealed(payload_of(stored), kind, body=getattr(stored, "body", b"")))


@pytest.mark.parametrize("stored", [page(), VARIED, RECORD], ids=["plain", "varied", "record"])
def test_every_byte_is_under_the_checksum(stored):
    whole = encode(stored)
    for position in range(len(whole)):
        for flip in (0x01, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            with pytest.raises(DecodeError):
                decode(bytes(damaged))


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
def test_what_could_not_have_been_stored_is_not_read(changed):
    """The checksum is right: somebody else wrote it, to split a response or to break a hit."""
    with pytest.raises(DecodeError):
        decode(encode(page(**changed)))


def test_a_record_that_never_ends_is_not_read():
    with pytest.raises(DecodeError):
        decode(encode(Variants("/a", ("accept",), (), float("nan"))))


def mutate(rng, whole):
    """Damage: flipped, cut, doubled or exchanged bytes; lengths most of all."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 12)]
            case 2:
                data[at:at] = data[: rng.randint(0, 40)]
            case 3:
                data[at : at + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
            case 4:
                data[at : at + 8] = rng.choice([struct.pack(">d", float("nan")), struct.pack(">d", 1e308)])
            case _:
                data[at:at] = rng.choice([b"\r\n", b"\xed\xa0\x80", b"\xff", b"\0"])
    return bytes(data)


def usable(stored):
    """What an engine does with whatever came from a store: none of it may fail."""
    if isinstance(stored, Variants):
        assert stored.size() > 0
        return
    assert 100 <= stored.terms.code <= 999
    assert is_field_value(stored.terms.status)
    assert all(is_token(name) and is_field_value(value) for name, value in stored.headers)
    assert len(stored.values) == len(stored.terms.varying)
    assert isinstance(stored.ttl(1.7e9), int)
    assert (
        min(stored.keep_until, stored.stale_if_error_until, stored.stale_while_revalidate_until) is not None
    )
    assert stored.size() >= len(stored.body)
    assert encode(with_etag(stored))


def test_damaged_bytes_are_refused_and_nothing_else_happens():
    """With the checksum left as it was, and with one that fits: then the reader itself has to see it."""
    rng = random.Random(20)
    wholes = [encode(stored) for stored in (page(), VARIED, RECORD, page(body=b"x" * 300, headers=()))]
    refused = read = 0
    for turn in range(MUTATIONS):
        whole = wholes[turn % len(wholes)]
        data = mutate(rng, whole) if turn % 2 else sealed(mutate(rng, whole[10:]), kind=whole[5])
        try:
            stored = decode(data)
        except DecodeError:
            refused += 1
        else:
            read += 1
            usable(stored)
    assert refused > read > 0


@given(st.binary(max_size=200), st.sampled_from([1, 2]))
def test_random_bytes_are_refused(payload, kind):
    for data in (payload, sealed(payload, kind)):
        try:
            usable(decode(data))
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
    data = sealed(payload, kind)
    gc.collect()
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000 + 20 * len(data)


# --- interning ---


def test_equal_terms_are_one_object():
    one = intern_terms(Terms("200 OK", "f", 301, "ttl", groups=("a",)))
    assert intern_terms(Terms("200 OK", "f", 301, "ttl", groups=("a",))) is one
    assert intern_terms(one._replace(groups=("b",))) is not one


def test_equal_lines_are_one_object():
    one = intern_pairs([("A", "x"), ("A", "y")])
    two = intern_pairs([("A", "y"), ("A", "x")])
    assert one == (("A", "x"), ("A", "y"))
    assert (one[0] is two[1], one[1] is two[0]) == (True, True)


def test_both_tables_are_bounded_and_go_on_working():
    for number in range(10_000):
        terms = Terms("200 OK", "f", number, "ttl", groups=(f"post-{number}",))
        assert intern_terms(terms) == terms
        assert intern_pairs([("ETag", f'"{number}"')]) == (("ETag", f'"{number}"'),)
        assert len(entry_module._terms) <= 4096
        assert len(entry_module._lines) <= 4096 + 1


def test_what_a_thousand_pages_share_is_held_once():
    terms = {id(decode(encode(page(body=bytes(number)))).terms) for number in range(1000)}
    assert len(terms) == 1


# --- nobody changes an entry ---

PACKAGE = Path(entry_module.__file__).parent


def fields_of(name):
    """The annotated fields of a class, as its source has them."""
    tree = ast.parse((PACKAGE / "entry.py").read_text())
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == name)
    return {
        node.target.id: ast.unparse(node.annotation) for node in found.body if isinstance(node, ast.AnnAssign)
    }


@pytest.mark.parametrize("name", ["Entry", "Variants"])
def test_every_field_is_final_so_that_mypy_sees_an_assignment(name):
    annotations = fields_of(name)
    assert len(annotations) >= 4
    assert all(annotation.startswith("Final[") for annotation in annotations.values())


def assigned_attributes(tree):
    """Every attribute that is assigned to or deleted, as it is written; `self.` of its own class apart."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            yield node.attr, ast.unparse(node)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("__setattr__"):
            yield "setattr", ast.unparse(node)


# What has a name in common with a field of an entry, and is none: objects that one request owns.
OTHERS = {"admission.key", "found.key", "self.settlement.terms", "flight.entry", "found.variants"}


@pytest.mark.parametrize(
    "file", sorted(PACKAGE.rglob("*.py")), ids=lambda file: str(file.relative_to(PACKAGE))
)
def test_no_module_assigns_to_a_field_of_an_entry(file):
    names = {*fields_of("Entry"), *fields_of("Variants"), "setattr"}
    written = {text for name, text in assigned_attributes(ast.parse(file.read_text())) if name in names}
    own = {text for text in written if text.startswith("self.") and text.count(".") == 1}
    assert written - own - OTHERS == set()


# --- ETags, instants ---


def test_an_etag_of_ours_is_made_where_the_app_gave_none():
    made = with_etag(page())
    assert made.headers == (*page().headers, ("ETag", make_etag(b"body")))
    assert (made.etag, made.terms.made_etag) == (make_etag(b"body"), True)
    assert not made.has_validator  # the app would not know it
    assert make_etag(b"body") == make_etag(bytearray(b"body")) != make_etag(b"bodies")
    assert made.etag.startswith('"')
    assert is_field_value(made.etag)
    rest = [name for name in fields_of("Entry") if name not in ("terms", "headers")]
    assert [getattr(made, name) for name in rest] == [getattr(page(), name) for name in rest]


@pytest.mark.parametrize(
    "changed",
    [
        {"headers": (("etag", 'W/"a"'),)},
        {"terms": Terms("404 Not Found", "f", 300, "ttl")},
        {"terms": Terms("301 Moved Permanently", "f", 300, "ttl")},
    ],
)
def test_an_etag_of_ours_is_not_made_elsewhere(changed):
    entry = page(**changed)
    assert with_etag(entry) is entry


@pytest.mark.parametrize(
    ("headers", "terms", "has"),
    [
        ((("ETag", '"a"'),), {}, True),
        ((("ETag", '"a"'),), {"made_etag": True}, False),
        ((("Last-Modified", "x"),), {}, True),
        ((("ETag", '"a"'), ("last-modified", "x")), {"made_etag": True}, True),
        ((), {}, False),
    ],
)
def test_whether_the_app_can_be_asked(headers, terms, has):
    entry = page(headers=headers, terms=Terms("200 OK", "f", 300, "ttl", **terms))
    assert entry.has_validator is has


def test_instants():
    terms = Terms("200 OK", "f", 300, "ttl", stale_while_revalidate=10, stale_if_error=50, keep=20)
    entry = page(terms=terms)
    assert (entry.stale_while_revalidate_until, entry.stale_if_error_until) == (1310.0, 1350.0)
    assert entry.keep_until == 1350.0
    assert page(terms=terms._replace(keep=100)).keep_until == 1400.0
    assert [entry.ttl(now) for now in (1000.0, 1000.9, 1001.0, 1299.5, 1300.0, 1400.0)] == [
        300, 300, 299, 1, 0, -100,
    ]  # fmt: skip
    assert entry.field("set-x") == ""
    assert entry.field("missing") is None


# --- size ---


def deep_size(thing, seen):
    """What an object and all that it refers to take, each counted once, as sys.getsizeof says."""
    if id(thing) in seen or thing is None or isinstance(thing, type | bool):
        return 0
    seen.add(id(thing))
    parts = [getattr(thing, name) for name in getattr(thing, "__slots__", ())]
    if isinstance(thing, tuple):
        parts += thing
    return sys.getsizeof(thing) + sum(deep_size(part, seen) for part in parts)


def fresh(text):
    """A string that nobody else holds, as a server or an app makes them."""
    return "".join([text, ""]) if len(text) < 2 else text[:1] + text[1:]


def site(number, extra=0, groups=(), values=()):
    """One of many pages: a few lines of its own, a few that all share, as `intern_pairs` leaves them."""
    shared = [
        ("Content-Type", "text/html; charset=utf-8"),
        ("Vary", "Accept-Encoding"),
        ("X-Frame-Options", "DENY"),
    ]
    own = [("Content-Length", str(number)), ("ETag", f'"{number:040}"'), ("Date", fresh("Sat, 21 Nov 2026"))]
    more = [(f"X-{number}-{n}", f"value {number} {n}") for n in range(extra)]
    return page(
        key=f"/page/{number}\0\0example.com\0http",
        terms=Terms("200 OK", "f" * 16, 300, "ttl", groups=groups, varying=("accept",) * len(values)),
        headers=intern_pairs([*shared, *own, *more]),
        body=bytes(1000),
        since=1.0 + number,
        fresh_until=2.0 + number,
        values=values,
    )


@pytest.mark.parametrize(
    "kind",
    [
        {},
        {"extra": 10},
        {"groups": lambda number: tuple(f"post-{number}-{n}" for n in range(20))},
        {"values": lambda number: (f"de-{number}" * 50,)},
    ],
    ids=["usual", "many lines", "many groups", "long values"],
)
def test_size_is_not_far_below_what_is_held(kind):
    entries = [
        site(number, **{name: made(number) if callable(made) else made for name, made in kind.items()})
        for number in range(500)
    ]
    seen = set()
    real = sum(deep_size(entry, seen) for entry in entries)
    told = sum(entry.size() for entry in entries)
    assert 0.75 * real <= told <= 2.0 * real


def test_the_size_of_a_record_is_not_far_below_what_is_held():
    record = Variants("/a", ("accept",), tuple(f"/a\1accept={number:0200}" for number in range(32)), 1.0)
    assert record.size() >= 0.9 * deep_size(record, set())
