"""Negotiation of codings, which responses get forms, and how a form is made of its page."""

import hashlib
import zlib

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import WSGICache, encode
from wsgicache.encode import (
    CODINGS,
    becomes_smaller,
    client_has_form,
    coding_of,
    encoder,
    fits,
    form_tag,
    is_form,
    is_form_of,
    make_form,
    page_tags,
    with_vary,
    without_vary,
)
from wsgicache.entry import Entry, Terms
from wsgicache.fields import is_field_value, parse_etag, preferred_coding
from wsgicache.journal import Mark
from wsgicache.key import CODING_FIELD, page_of, places, variant_key
from wsgicache.testing import ScriptedApp

DECODE = {"gzip": lambda body: zlib.decompress(body, 31), "br": brotli.decompress, "zstd": zstd.decompress}
HTML = ("Content-Type", "text/html; charset=utf-8")
VARY = ("Vary", "Accept-Encoding")
BODY = b"<p>a page</p>" * 100


def page(*headers, body=BODY, status="200 OK", varying=(CODING_FIELD,), values=("identity",), since=10.0):
    terms = Terms(status, "f" * 16, 60, "ttl", varying=varying)
    head = (HTML, VARY, ("Content-Length", str(len(body))), *headers)
    return Entry("/\0\0h\0http", terms, head, body, since, since + 60, Mark("e", 1, "n"), values)


def fields(entry):
    return {name.lower(): value for name, value in entry.headers}


def form(plain, coding="gzip", **how):
    return make_form(plain, coding, fields(plain), **how)


# --- negotiation ---


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (None, "identity"),
        ("", "identity"),
        (" , ", "identity"),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("X-GZIP;q=0.5, br;q=0.4", "gzip"),
        ("gzip, x-gzip;q=0", "identity"),
        ("gzip, deflate, br, zstd", "br"),  # the site's order
        ("gzip, br;q=0.9", "gzip"),  # the client's weights come first
        ("gzip;q=0.001", "gzip"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000, br;q=0", "identity"),
        ("gzip;q=0, gzip", "identity"),  # of repeats the lowest weight counts
        ("deflate, compress", "identity"),
        ("identity", "identity"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip", "gzip"),
        ("identity, gzip", "gzip"),
        ("*", "br"),
        ("*, br;q=0", "gzip"),
        ("*;q=0.5, gzip", "gzip"),
        ("*;q=0, identity", "identity"),
        ("identity, *;q=0", "identity"),
        ("*;q=0, gzip", "!gzip"),
        ("identity;q=0, gzip", "!gzip"),
        ("identity;q=0, gzip;q=0.1, br;q=0.2", "!br"),
        ("identity;q=0", "!"),
        ("*;q=0", "!"),
        ("identity;q=0, deflate", "!"),
        ("*;q=0, identity;q=0.1", "identity"),
        ("gzip;q=2, br;q=-1, zstd;q=x, gzip zstd, ;q=1", "identity"),
        ("junk/, gzip, \x00", "gzip"),
        ("gzip ; q=0.3 , br;Q=0.2", "gzip"),
        ("gzip;q=1.0000", "identity"),  # three digits at most
    ],
)
def test_preferred_coding(value, coding):
    """RFC 9110 §12.5.3."""
    assert preferred_coding(value, ("br", "gzip", "zstd")) == coding


def test_a_site_that_offers_none_gives_what_there_is():
    assert preferred_coding("*;q=0", ()) == "identity"
    assert preferred_coding("x, " * 400 + "gzip", ("gzip",)) == "gzip"  # too long to be remembered


WORDS = st.sampled_from([*CODINGS, "x-gzip", "identity", "*", "deflate", "?"])
WEIGHTS = st.sampled_from(["", ";q=0", ";q=0.0", ";q=1", " ; q=0.3", ";q=0.7", ";q=9", ";"])
FIELD = st.lists(st.tuples(WORDS, WEIGHTS).map("".join), max_size=5).map(", ".join)
JUNK = st.text(st.characters(max_codepoint=255), max_size=60)


@given(FIELD | JUNK, st.permutations(CODINGS).flatmap(lambda all: st.integers(0, 3).map(lambda n: all[:n])))
def test_what_is_chosen_is_offered_and_not_refused(value, offered):
    chosen = preferred_coding(value, tuple(offered))
    coding = chosen.lstrip("!")
    assert coding in (*offered, "identity", "")
    assert chosen != ""
    if coding in offered:
        alone = preferred_coding(value, (coding,))
        assert alone.lstrip("!") == coding  # it is acceptable for itself, too
    if chosen.startswith("!"):
        assert "0" in value


# --- which responses ---


@pytest.mark.parametrize(
    ("content_type", "smaller"),
    [
        ("text/html", True),
        ("TEXT/CSS; charset=utf-8", True),
        ("application/json", True),
        ("application/ld+json ; x=y", True),
        ("image/svg+xml", True),
        ("application/wasm", True),
        ("application/javascript", True),
        ("font/ttf", True),
        ("font/woff2", False),
        ("image/png", False),
        ("application/octet-stream", False),
        ("application/gzip", False),
        ("video/mp4", False),
        ("", False),
    ],
)
def test_types_that_become_smaller(content_type, smaller):
    assert becomes_smaller(content_type) is smaller


@pytest.mark.parametrize(
    "field",
    [
        ("content-encoding", "gzip"),
        ("content-encoding", "identity"),
        ("cache-control", "max-age=60, No-Transform"),
        ("content-md5", "Q2hlY2sgSW50ZWdyaXR5IQ=="),
        ("digest", "sha-256=x"),
        ("content-digest", "sha-256=:x:"),
        ("repr-digest", "sha-256=:x:"),
        ("content-type", "image/png"),
    ],
    ids=str,
)
def test_what_is_not_to_be_touched_is_not(field):
    """RFC 9111 §5.2.2.6, RFC 9530."""
    head = {"content-type": "text/html", "cache-control": "max-age=60"}
    assert fits(200, head, ())
    assert not fits(200, {**head, field[0]: field[1]}, ())


def test_only_a_whole_page_that_the_app_does_not_code_itself_gets_forms():
    head = {"content-type": "text/html"}
    assert not fits(404, head, ())
    assert not fits(200, head, ("accept-encoding",))
    assert fits(200, head, ("accept-language",))
    assert not fits(200, {}, ())


# --- forms ---


@pytest.mark.parametrize("coding", CODINGS)
def test_a_form_differs_in_body_length_coding_and_tag_alone(coding):
    plain = page(("ETag", '"v1"'), ("X-More", "1"))
    made = form(plain, coding)
    assert DECODE[coding](made.body) == BODY
    told = fields(made)
    assert told == {
        **fields(plain), "content-encoding": coding, "content-length": str(len(made.body)),
        "etag": form_tag('"v1"', coding),
    }  # fmt: skip
    assert made.values == (coding,)
    assert is_form(made)
    assert is_form_of(made, plain)
    for name in ("key", "terms", "since", "fresh_until", "born"):
        assert getattr(made, name) == getattr(plain, name)
    assert form(plain, coding).body == made.body  # a strong tag: the same bytes each time


def test_a_page_without_a_tag_gets_ours_and_its_form_one_of_its_own():
    made = form(page())
    assert made.terms.made_etag
    assert made.etag == form_tag(encode.with_etag(page()).etag, "gzip")


@pytest.mark.parametrize("coding", CODINGS)
def test_tags_of_forms(coding):
    tag = form_tag('"v1"', coding)
    assert parse_etag(tag).opaque.startswith(f"v1-{coding}-")
    assert is_field_value(tag)
    assert form_tag('W/"v1"', coding) == 'W/"v1"'
    assert form_tag("junk", coding) == "junk"
    assert form_tag(None, coding) is None
    assert page_tags(f'{tag}, W/"x", "a-gzip", "y-br-12345"') == '"v1", W/"x", "a-gzip", "y-br-12345"'


def test_another_version_of_a_library_makes_other_tags(monkeypatch):
    known, made = form_tag('"v1"', "gzip"), form(page(("ETag", '"v1"')))
    monkeypatch.setattr(zlib, "ZLIB_RUNTIME_VERSION", "9.9")
    encoder.cache_clear()
    try:
        assert form_tag('"v1"', "gzip") != known
        assert is_form_of(made, page(("ETag", '"v1"')))  # workers of both versions use what either made
    finally:
        encoder.cache_clear()


def test_a_body_that_does_not_become_clearly_smaller_is_its_own_form():
    plain = page(("ETag", '"v1"'), body=hashlib.shake_128(b"noise").digest(2000))
    made = form(plain)
    assert (made.body, made.headers, made.values) == (plain.body, plain.headers, ("gzip",))
    assert made.body is plain.body
    assert is_form_of(made, plain)
    anyhow = form(plain, anyhow=True)
    assert DECODE["gzip"](anyhow.body) == plain.body
    assert fields(anyhow)["content-encoding"] == "gzip"


@pytest.mark.parametrize("coding", CODINGS)
def test_what_does_not_become_smaller_is_packed_quickly_under_a_tag_of_its_own(coding):
    plain = page(("ETag", '"v1"'), body=hashlib.shake_128(b"noise").digest(2000))
    anyhow = form(plain, coding, anyhow=True)
    assert DECODE[coding](anyhow.body) == plain.body
    assert anyhow.etag != form_tag('"v1"', coding)
    assert page_tags(anyhow.etag) == '"v1"'
    assert len(anyhow.body) <= len(plain.body) + 64


def renewed(plain, before, coding="gzip"):
    return encode.renew_form(form(before, coding), before, plain, fields)


def test_a_page_that_says_the_same_lends_the_next_one_its_coded_bytes():
    before = page(("ETag", '"v1"'), ("X-More", "1"))
    plain = page(("ETag", '"v2"'), ("X-More", "2"), since=20.0)
    assert encode.says_the_same(plain, before)
    made, anew = renewed(plain, before), form(plain)
    for name in ("key", "terms", "headers", "body", "since", "fresh_until", "born", "values"):
        assert getattr(made, name) == getattr(anew, name)
    assert is_form_of(made, plain)
    assert not is_form_of(made, before)


def test_a_form_of_another_page_is_lent_to_none():
    before, plain = page(("ETag", '"v1"')), page(("ETag", '"v1"'), since=20.0)
    assert encode.renew_form(form(page(("ETag", '"v1"'), since=5.0)), before, plain, fields) is None
    assert encode.renew_form(before, before, plain, fields) is None
    for other in (page(body=BODY + b"!"), page(values=("gzip",)), page(varying=(), values=())):
        assert not encode.says_the_same(other, before)


def test_a_form_of_what_is_not_to_be_touched_is_the_page():
    plain = page(("ETag", '"v1"'), ("Content-Encoding", "br"))
    made = form(plain, anyhow=True)
    assert (made.body, made.headers, made.values) == (plain.body, plain.headers, ("gzip",))


def test_a_page_that_no_vary_tells_of_is_its_own_form():
    plain = page(("ETag", '"v1"'))
    made = make_form(plain, "gzip", {**fields(plain), "vary": "Accept-Language"}, anyhow=True)
    assert (made.body, made.values) == (plain.body, ("gzip",))


@pytest.mark.parametrize(("name", "value", "coded"), [("cookie", "a=1", False), ("cookie", None, True)])
def test_a_page_that_a_secret_selects_is_its_own_form(name, value, coded):
    made = form(page(varying=(CODING_FIELD, name), values=("identity", value)))
    assert ("content-encoding" in fields(made)) is coded


def test_a_form_belongs_to_one_page():
    made = form(page(("ETag", '"v1"')))
    assert is_form_of(made, page(("ETag", '"v1"')))
    assert not is_form_of(made, page(("ETag", '"v1"'), since=11.0))
    assert not is_form_of(made, page(("ETag", '"v2"')))
    assert not is_form_of(made, page(body=b"other"))
    assert not is_form_of(page(), page())


def test_what_an_entry_is():
    assert coding_of(page()) == "identity"
    assert not is_form(page())
    assert coding_of(page(varying=(), values=())) is None


def test_a_client_that_has_the_form():
    tag = form_tag('"v1"', "gzip")
    assert client_has_form('"v1"', "gzip", f'"x", {tag}') == tag
    assert client_has_form('"v1"', "gzip", f"W/{tag}") == tag  # weak comparison (RFC 9110 §13.1.2)
    assert client_has_form('"v1"', "br", tag) is None
    assert client_has_form('"v2"', "gzip", tag) is None
    assert client_has_form(None, "gzip", tag) is None
    assert client_has_form('"v1"', "gzip", None) is None


# --- Vary ---


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([], ["Accept-Encoding"]),
        (["Cookie"], ["Cookie, Accept-Encoding"]),
        (["Cookie", "X-A , X-B"], ["Cookie, Accept-Encoding", "X-A , X-B"]),
    ],
)
def test_vary_is_told_and_taken_back(lines, told):
    given = (HTML, *(("vary", line) for line in lines))
    assert [value for name, value in with_vary(given) if name.lower() == "vary"] == told
    assert [value for name, value in without_vary(with_vary(given)) if name == "vary"] == [
        ", ".join(name.strip() for name in line.split(",")) for line in lines
    ]


# --- keys ---


def test_the_places_of_a_page_and_its_form():
    names = ("accept-language", CODING_FIELD)
    for wanted, codings in (
        ("identity", ["identity"]),
        ("!", ["identity"]),
        ("br", ["identity", "br"]),
        ("!br", ["identity", "br"]),
    ):
        asked = {"accept-language": "de", CODING_FIELD: wanted}
        found = places("base", names, asked.get)
        assert list(found) == [variant_key("base", names, ("de", coding)) for coding in codings]
        assert len({page_of(key) for key in found}) == 1
    assert places("base", ("cookie",), {"cookie": "a\1b"}.get) == ()
    assert page_of(variant_key("base", ("cookie",), ("a",))) == variant_key("base", ("cookie",), ("a",))


# --- libraries ---


@pytest.mark.parametrize(("coding", "name"), [("br", "brotli"), ("zstd", "backports.zstd")])
def test_a_library_that_is_missing_is_named_with_its_extra(coding, name, monkeypatch):
    def nothing(module):
        raise ImportError(module)

    monkeypatch.setattr(encode, "import_module", nothing)
    encoder.cache_clear()
    try:
        for refuse in (encoder, lambda coding: WSGICache(ScriptedApp(), encode=coding)):
            with pytest.raises(ValueError, match=rf"{coding} needs .*'wsgicache\[{coding}\]'") as refused:
                refuse(coding)
            assert repr(name) in str(refused.value)
        assert str(refused.value).startswith(f"keyword: encode = '{coding}' is not valid")
        assert WSGICache(ScriptedApp(), encode="gzip")
    finally:
        encoder.cache_clear()


def test_a_coding_that_nobody_makes_is_refused():
    with pytest.raises(ValueError, match="'deflate' is no coding"):
        encoder("deflate")
