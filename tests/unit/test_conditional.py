"""Preconditions and 304: the tables of RFC 9110 §8.8.3.2, §13 and RFC 9111 §3.2, §4.3."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache.conditional import head_304, may_freshen, merge_304, not_modified, range_applies

OLD = "Sat, 29 Oct 1994 19:43:30 GMT"
MODIFIED = "Sat, 29 Oct 1994 19:43:31 GMT"
LATER = "Sat, 29 Oct 1994 19:43:32 GMT"


# --- If-None-Match ---


@pytest.mark.parametrize(
    ("if_none_match", "etag"),
    [
        ('"1"', '"1"'),
        ('W/"1"', '"1"'),
        ('"1"', 'W/"1"'),
        ('W/"1"', 'W/"1"'),
        ('"0", W/"1" ,"2"', '"1"'),
        ('"a,b"', '"a,b"'),
        ('junk, "1"', '"1"'),
        ("*", '"1"'),
        (" * ", None),
    ],
)
def test_a_listed_entity_tag_is_not_modified(if_none_match, etag):
    assert not_modified(if_none_match, None, etag, None)


@pytest.mark.parametrize(
    ("if_none_match", "etag"),
    [
        ('"1"', '"2"'),
        ('W/"1"', 'W/"2"'),
        ('"1"', None),
        ("", '"1"'),
        ("1", '"1"'),
        ("1", "1"),  # unquoted tags are no tags
        ('"1', '"1'),
        ('w/"1"', '"1"'),
        ('"a', '"a,b"'),
        ('"1", *', '"2"'),
        ('""', None),
    ],
)
def test_other_entity_tags_are_modified(if_none_match, etag):
    assert not not_modified(if_none_match, None, etag, None)


@pytest.mark.parametrize("if_none_match", ['"other"', "junk", ""])
def test_if_none_match_switches_if_modified_since_off(if_none_match):
    assert not_modified(None, LATER, '"1"', MODIFIED)
    assert not not_modified(if_none_match, LATER, '"1"', MODIFIED)


# --- If-Modified-Since ---


@pytest.mark.parametrize(
    ("since", "modified"),
    [
        (MODIFIED, True),
        (LATER, True),
        ("Saturday, 29-Oct-94 19:43:31 GMT", True),
        ("Sat Oct 29 19:43:31 1994", True),
        (OLD, False),
        ("", False),
        ("yesterday", False),
        ("0", False),
        (f"{LATER}, {LATER}", False),
    ],
)
def test_if_modified_since(since, modified):
    assert not_modified(None, since, '"1"', MODIFIED) is modified


def test_without_last_modified_the_date_counts():
    assert not_modified(None, MODIFIED, None, None, MODIFIED)
    assert not not_modified(None, OLD, None, None, MODIFIED)
    assert not not_modified(None, LATER, None, None, None)


def test_a_broken_last_modified_matches_nothing():
    assert not not_modified(None, LATER, None, "junk", OLD)


def test_an_unconditional_request_is_answered_in_full():
    assert not not_modified(None, None, '"1"', MODIFIED, MODIFIED)


# --- If-Range ---


@pytest.mark.parametrize(
    ("if_range", "etag", "last_modified", "date", "applies"),
    [
        (None, None, None, None, True),
        ('"1"', '"1"', None, None, True),
        ('"1"', '"2"', None, None, False),
        ('"1"', None, None, None, False),
        ('W/"1"', 'W/"1"', None, None, False),
        ('"1"', 'W/"1"', None, None, False),
        ('W/"1"', '"1"', None, None, False),
        ('"1", "1"', '"1"', None, None, False),
        ("*", '"1"', None, None, False),
        (MODIFIED, '"1"', MODIFIED, LATER, True),
        ("Sat Oct 29 19:43:31 1994", None, MODIFIED, LATER, True),
        (MODIFIED, None, MODIFIED, MODIFIED, False),  # less than a second older: weak
        (MODIFIED, None, MODIFIED, OLD, False),
        (MODIFIED, None, MODIFIED, None, False),
        (MODIFIED, None, MODIFIED, "junk", False),
        (LATER, None, MODIFIED, LATER, False),  # later is not exact
        (OLD, None, MODIFIED, LATER, False),
        (MODIFIED, None, None, LATER, False),
        ("junk", None, "junk", LATER, False),
        ("", None, None, None, False),
    ],
)
def test_if_range(if_range, etag, last_modified, date, applies):
    assert range_applies(if_range, etag, last_modified, date) is applies


# --- the head of a 304 ---

FULL = (
    ("content-Type", "text/html"),
    ("Cache-Control", "max-age=60"),
    ("CDN-Cache-Control", "max-age=600"),
    ("Content-Length", "10"),
    ("Content-Encoding", "gzip"),
    ("content-location", "/a"),
    ("Date", LATER),
    ("Last-Modified", MODIFIED),
    ("Expires", LATER),
    ("Vary", "Accept"),
    ("VARY", "Cookie"),
    ("Cache-Groups", '"a"'),
    ("Set-Cookie", "a=1"),
    ("X-Frame-Options", "DENY"),
)


def test_a_304_carries_what_guides_caches_in_its_order_and_spelling():
    assert head_304((*FULL, ("ETag", '"1"'))) == (
        ("Cache-Control", "max-age=60"),
        ("CDN-Cache-Control", "max-age=600"),
        ("content-location", "/a"),
        ("Date", LATER),
        ("Expires", LATER),
        ("Vary", "Accept"),
        ("VARY", "Cookie"),
        ("Cache-Groups", '"a"'),
        ("ETag", '"1"'),
    )


def test_a_304_carries_last_modified_only_without_an_entity_tag():
    assert ("Last-Modified", MODIFIED) in head_304(FULL)
    assert ("Last-Modified", MODIFIED) not in head_304((("etag", '"1"'), *FULL))


# --- updating from a 304 ---


def test_merge_replaces_all_lines_in_their_place_and_appends_new_names():
    stored = [("A", "1"), ("Vary", "x"), ("B", "2"), ("vary", "y"), ("C", "3")]
    fresh = [("New", "n"), ("VARY", "z"), ("b", "4"), ("New", "m"), ("vary", "w")]
    assert merge_304(stored, fresh) == (
        ("A", "1"),
        ("VARY", "z"),
        ("vary", "w"),
        ("b", "4"),
        ("C", "3"),
        ("New", "n"),
        ("New", "m"),
    )


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "content-encoding",
        "Content-Type",
        "Content-Range",
        "Set-Cookie",
        "Connection",
        "Keep-Alive",
        "Transfer-Encoding",
        "Proxy-Authenticate",
        "X-Listed",
    ],
)
def test_merge_leaves_what_describes_the_body_or_the_connection(name):
    fresh = [(name, "new"), ("Connection", "x-listed"), ("ETag", '"1"')]
    kept = (("Content-Length", "10"), ("X-Listed", "old"), ("ETag", '"1"'))
    assert merge_304(kept, fresh) == kept
    assert merge_304([("ETag", '"0"')], fresh) == (("ETag", '"1"'),)


def test_merge_keeps_no_age():
    assert merge_304([("Age", "5"), ("A", "1")], [("age", "9")]) == (("A", "1"),)


NAMES = st.sampled_from(["A", "a", "B", "Content-Type", "Age", "Set-Cookie", "Connection"])
LINES = st.lists(st.tuples(NAMES, st.sampled_from(["1", "2", "close", "b"])), max_size=6)


@given(LINES, LINES)
def test_every_merged_line_comes_from_one_side_as_a_whole(stored, fresh):
    merged = merge_304(stored, fresh)
    for name in {line[0].lower() for line in (*stored, *fresh)}:
        lines = [line for line in merged if line[0].lower() == name]
        sides = [[line for line in side if line[0].lower() == name] for side in (stored, fresh)]
        assert lines in sides or lines == []
    # Doing it again changes nothing.
    assert merge_304(merged, fresh) == merged


# --- which 304 may freshen ---


@pytest.mark.parametrize(
    ("stored_etag", "stored_modified", "new_etag", "new_modified", "may"),
    [
        ('"1"', None, '"1"', None, True),
        ('"1"', OLD, '"1"', LATER, True),  # a strong tag decides alone
        ('"1"', None, '"2"', None, False),
        ('"1"', MODIFIED, '"2"', MODIFIED, False),
        (None, None, '"1"', None, False),
        ('W/"1"', None, '"1"', None, False),
        ('"1"', None, 'W/"1"', None, True),
        ('W/"1"', None, 'W/"1"', None, True),
        ('W/"1"', None, 'W/"2"', None, False),
        (None, MODIFIED, 'W/"1"', MODIFIED, False),
        ('W/"1"', MODIFIED, 'W/"1"', MODIFIED, True),
        ('W/"1"', MODIFIED, 'W/"1"', LATER, False),
        (None, MODIFIED, None, MODIFIED, True),
        ('"1"', MODIFIED, None, MODIFIED, True),
        (None, MODIFIED, None, "Sat Oct 29 19:43:31 1994", True),
        (None, MODIFIED, None, LATER, False),
        (None, None, None, MODIFIED, False),
        (None, None, None, None, True),
        ('"1"', None, None, None, True),  # nothing else was asked about
        (None, MODIFIED, None, None, True),
        ("junk", "junk", "junk", "junk", True),  # no validators on either side
        ('"1"', None, "1", None, False),
    ],
)
def test_may_freshen(stored_etag, stored_modified, new_etag, new_modified, may):
    assert may_freshen(stored_etag, stored_modified, new_etag, new_modified) is may
