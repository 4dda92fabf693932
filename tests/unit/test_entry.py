"""Entries: what many of them share is held once, nobody changes one, and its size is true."""

import ast
import sys
from pathlib import Path

import pytest
from entry_helpers import page

from wsgicache import entry as entry_module
from wsgicache.entry import Terms, Variants, intern_pairs, intern_terms, make_etag, with_etag
from wsgicache.fields import is_field_value

# --- interning ---


def test_equal_terms_are_one_object():
    one = intern_terms(Terms("200 OK", "f", 301, "ttl", groups=("a",)))
    assert intern_terms(Terms("200 OK", "f", 301, "ttl", groups=("a",))) is one
    assert intern_terms(one._replace(groups=("b",))) is not one


def test_equal_lines_are_one_object():
    one = intern_pairs((("A", "x"), ("A", "y")))
    two = intern_pairs((("A", "y"), ("A", "x")))
    assert one == (("A", "x"), ("A", "y"))
    assert (one[0] is two[1], one[1] is two[0]) == (True, True)


def test_both_tables_are_bounded_and_go_on_working():
    for number in range(10_000):
        terms = Terms("200 OK", "f", number, "ttl", groups=(f"post-{number}",))
        assert intern_terms(terms) == terms
        assert intern_pairs((("ETag", f'"{number}"'),)) == (("ETag", f'"{number}"'),)
        assert len(entry_module._terms) <= 4096
        assert len(entry_module._lines) <= 4096 + 1


def test_no_long_head_is_kept_for_others():
    for number in range(100):
        long = (("Link", f"<{number}>" + "x" * 5000), ("ETag", f'"of a long head {number}"'))
        assert intern_pairs(long) is long
    assert not any(map(entry_module._lines.__contains__, long))
    assert long not in entry_module._heads


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
OTHERS = {
    "admission.key", "found.key", "self.settlement.terms", "flight.entry", "found.variants", "head.headers",
}  # fmt: skip


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
    assert (made.fields, made.tag) == (page().headers, made.etag)
    rest = [name for name in fields_of("Entry") if name not in ("terms", "tag")]
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
        headers=intern_pairs((*shared, *own, *more)),
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
