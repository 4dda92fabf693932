"""House rule 19: a page that holds somebody's token is not stored, unless a rule says so by name."""

import gzip
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import HTML, TEXT, Site, page

from wsgicache import Rule
from wsgicache.tokens import holds_token

FORMS = [
    '<input type="hidden" name="csrfmiddlewaretoken" value="x">',
    "<input name='csrf_token' type=hidden value=x>",
    "<input value=x name=csrf_token>",
    '<INPUT TYPE="HIDDEN" NAME="CSRF_TOKEN" VALUE="x">',
    '<input\n  type="hidden"\n  name = "csrf_token"\n  value="x"\n/>',
    '<input id="csrf_token" name="csrf_token" type="hidden" value="x">',
    '<input type="hidden" name="authenticity_token" value="x" />',
    '<input name="_token" value="x">',
    '<input name="_csrf" value="x">',
    '<input name="csrf-token" value="x">',
    '<input name="__RequestVerificationToken" type="hidden" value="x">',
    '<input name="csrf_token"/>',
    '<meta name="csrf-token" content="x">',
    '<meta content="x" name="csrf-token">',
    "<META NAME=csrf-token CONTENT=x>",
    '<meta name="csrf-param" content="authenticity_token">',
    '<meta name="_csrf" content="x"/>',
    "<input title='the last <meta of a page' name='csrf_token'>",
    "<input title='<input <meta <script' id=x><META Name=Csrf-Token content=x>",
    "<meta charset=utf-8><link href=x><input disabled name=q><input/name=csrf_token>",
    # Quotes that browsers take for no quotes, and what looks like a tag where browsers see none.
    "<input type=text value=it's name=csrf_token>",
    "<input ' name=csrf_token>",
    "<link href=/it's.css><form><input name=csrf_token value=x></form><p>don't</p>",
    """<script>s.split('<script src="')</script><input type="hidden" name="csrf_token" value="x">""",
    """<!-- <link title=' --><meta name=csrf-token content=x><p>don't</p>""",
    "<meta name=q content='<input name=csrf_token>'>",
]
NONCES = [
    '<script nonce="r4nd0m">x()</script>',
    "<script type=module nonce=abc>x()</script>",
    "<style nonce='abc'>p{}</style>",
    '<link rel=stylesheet nonce="abc" href=x>',
    '<SCRIPT NONCE="abc"></SCRIPT>',
]
NO_TOKENS = [
    "<p>How to use csrf_token in a form</p>",
    '<input name="q" placeholder="csrf_token">',
    '<meta name="description" content="csrf-token">',
    '<meta charset="utf-8"><meta name="viewport" content="width=1">',
    "<pre>&lt;input name=&quot;csrf_token&quot;&gt;</pre>",
    '<script>var nonce = "abc";</script>',
    "<p>a nonce</p>",
    '<script nonce="">x()</script>',
    "<metadata name=csrf_token>",
    "<meta name=q content='name=csrf_token'>",
    "<meta charset=utf-8><p name=csrf_token>",
    "",
]


def html(text, *headers):
    """An HTML page around some markup, long enough that nobody looks at its beginning only."""
    filler = "<p>text</p>" * 500
    return page(HTML, *headers, body=f"<!doctype html><body>{filler}{text}{filler}</body>".encode())


def is_kept(answer, **options):
    """Whether a second visitor gets the page from the store."""
    site = Site(answer, **options)
    site.ask()
    return site.ask().is_hit


@pytest.mark.parametrize("text", [*FORMS, *NONCES])
def test_a_page_that_holds_a_token_is_not_stored(text):
    site = Site(html(text))
    site.ask()
    assert not site.ask().is_hit
    assert site.cache.stats()["reasons"]["NOT_STORED_TOKEN"] == 2


@pytest.mark.parametrize("text", NO_TOKENS)
def test_a_page_that_holds_none_is_stored(text):
    assert is_kept(html(text))


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_a_token_that_is_cut_by_chunks_is_found(chunk):
    body = html(FORMS[0]).body
    chunks = [body[i : i + chunk] for i in range(0, len(body), chunk)]
    assert not is_kept(page(HTML, body=chunks))


@pytest.mark.parametrize(
    "kind",
    ["text/html", "TEXT/HTML; charset=utf-8", "application/xhtml+xml", " text/html ;x=y", None],
)
def test_html_is_looked_into_and_so_is_what_browsers_may_take_for_html(kind):
    headers = [] if kind is None else [("Content-Type", kind)]
    answer = page(*headers, body=FORMS[0].encode())
    if kind is None:
        answer.headers = []
    assert not is_kept(answer)


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/css", "image/svg+xml"])
def test_other_media_are_not_looked_into(kind):
    assert is_kept(page(("Content-Type", kind), body=FORMS[0].encode()))


@pytest.mark.parametrize(
    ("coding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        (" gzip ", gzip.compress),
    ],
)
def test_a_coded_page_is_looked_into(coding, encode):
    for text, kept in ((FORMS[0], False), (NO_TOKENS[0], True)):
        plain = html(text)
        body = encode(plain.body)
        assert is_kept(page(HTML, ("Content-Encoding", coding), body=body)) is kept


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "unknown", "identity, gzip"])
def test_a_coding_that_cannot_be_read_counts_as_holding_one(coding):
    assert not is_kept(page(HTML, ("Content-Encoding", coding), body=b"\x8b\x01bytes"))


def test_a_coding_that_is_broken_or_a_bomb_counts_as_holding_one():
    cut = gzip.compress(html(NO_TOKENS[0]).body)[:-30]
    assert not is_kept(page(HTML, ("Content-Encoding", "gzip"), body=b"not gzip at all"))
    bomb = gzip.compress(b"x" * (64 << 20), 9)
    assert len(bomb) < 1 << 20
    assert not is_kept(page(HTML, ("Content-Encoding", "gzip"), body=bomb))
    two = gzip.compress(b"<p>one</p>") + gzip.compress(FORMS[0].encode())
    assert not is_kept(page(HTML, ("Content-Encoding", "gzip"), body=two)), (
        "a second member is read by browsers"
    )
    assert not is_kept(page(HTML, ("Content-Encoding", "gzip"), body=cut))


@pytest.mark.parametrize(
    "policy",
    [
        "script-src 'nonce-r4nd0m'",
        "default-src 'self'; script-src 'self' 'nonce-abc'; style-src 'none'",
        "SCRIPT-SRC 'NONCE-ABC'",
        "script-src\t'nonce-abc'",
        "script-src 'self', style-src 'nonce-abc'",
    ],
)
@pytest.mark.parametrize("name", ["Content-Security-Policy", "Content-Security-Policy-Report-Only"])
def test_a_nonce_in_the_head_is_found_whatever_the_medium(name, policy):
    for kind in (HTML, TEXT):
        site = Site(page(kind, (name, policy)))
        assert site.ask().detail == "NOT_STORED_TOKEN"


@pytest.mark.parametrize(
    "policy", ["script-src 'self'", "script-src 'sha256-abc='", "report-uri /nonce-", ""]
)
def test_a_policy_without_a_nonce_is_stored(policy):
    assert is_kept(page(HTML, ("Content-Security-Policy", policy)))


@pytest.mark.parametrize(
    "answer", [html(FORMS[0]), html(NONCES[0]), page(("Content-Security-Policy", "'nonce-a'"))]
)
def test_a_rule_may_say_so_by_name(answer):
    assert is_kept(answer, rules=[Rule("/*", store_tokens=True)])
    assert not is_kept(answer, rules=[Rule("/other", store_tokens=True)])
    assert not is_kept(answer, rules=[Rule("/*", ttl=60, override=True)])


# --- the search takes short cuts, and finds the same ---

TAGS = re.compile(rb"<(input|meta|script|style|link)\b")
INSIDE = re.compile(rb"(?:[^=>]|=\s*+(?:\"[^\"]*+\"|'[^']*+')?+)*+")
ATTRIBUTES = re.compile(rb"([a-z][\w:.-]*+)\s*+=\s*+(?:\"([^\"]*+)\"|'([^']*+)'|([^\s\"'>]++))")
NAMES = re.compile(rb"[cx]srf|requestverificationtoken|(?:^|[^a-z])authenticator\]?$|token\]?$")


def tags_of(page):
    """What looks like a tag, wherever it stands, and what it holds."""
    page = page.lower()
    return [(tag[1], INSIDE.match(page, tag.end())[0]) for tag in TAGS.finditer(page)]


def names_a_token(tag, name, value):
    if tag not in (b"input", b"meta"):
        return name == b"nonce" and bool(value.strip())
    return name in (b"name", b"id", b"property") and NAMES.search(value.strip()) is not None


def holds_token_slowly(page):
    """Every tag, every attribute, no short cut."""
    return any(
        names_a_token(tag, name, b"".join(values))
        for tag, inside in tags_of(page)
        for name, *values in ATTRIBUTES.findall(inside)
    )


SPACE = b" \t\n\r\f"


def attributes_in_browsers(page, at):
    """The attributes of a tag whose name ends at a place, as the HTML Standard's tokenizer finds them (from
    the state before an attribute's name on); none where the page ends in the tag."""
    found = []
    while True:
        while page[at : at + 1] and page[at] in SPACE + b"/":
            at += 1
        if page[at : at + 1] in (b"", b">"):
            return found if page[at : at + 1] else []
        start, at = at, at + 1  # an equals sign begins a name here
        while page[at : at + 1] and page[at] not in SPACE + b"/>=":
            at += 1
        name, value = page[start:at], b""
        while page[at : at + 1] and page[at] in SPACE:
            at += 1
        if page[at : at + 1] == b"=":
            at += 1
            while page[at : at + 1] and page[at] in SPACE:
                at += 1
            if (quote := page[at : at + 1]) in (b'"', b"'"):
                end = page.find(quote, at + 1)
                if end < 0:
                    return []
                value, at = page[at + 1 : end], end + 1
            else:
                start = at
                while page[at : at + 1] and page[at] not in SPACE + b">":
                    at += 1
                value = page[start:at]
        found.append((name, value))


def browsers_see_a_token(page):
    page = page.lower()
    return any(
        names_a_token(tag[1], name, value)
        for tag in TAGS.finditer(page)
        for name, value in attributes_in_browsers(page, tag.end())
    )


PIECES = st.sampled_from(
    [
        b"<input ", b"<META ", b"<meta ", b"<Script ", b"<link ", b"<p>", b"name=", b"id = ", b"property=",
        b'"', b"'", b"csrf", b"X-XSRF", b"token", b"Token]", b"token s", b"authenticator", b"nonce",
        b"nonce=", b">", b" ", b"abc", b"=", b"\0", b"x" * 520,
    ]
)  # fmt: skip


@given(st.lists(PIECES, max_size=24).map(b"".join))
def test_the_search_finds_what_a_plain_one_finds(page):
    nested = sum(len(inside) for _, inside in tags_of(page)) > 2 * len(page)
    assert holds_token(page, None) is holds_token_slowly(page) or (nested and holds_token(page, None))


@given(st.lists(PIECES, max_size=24).map(b"".join))
def test_the_search_misses_nothing_that_browsers_find(page):
    assert holds_token(page, None) or not browsers_see_a_token(page)


@pytest.mark.parametrize("piece", [b"<meta ", b"<input a='", b"<link a=\"'", b"<style x=y "])
def test_a_page_of_tags_without_an_end_counts_as_holding_one(piece):
    page = piece * (1_000_000 // len(piece)) + b"<input"
    assert sum(len(inside) for _, inside in tags_of(page[:20_000])) > 2 * 20_000
    assert holds_token(page + b" token", None)


@pytest.mark.parametrize("many", [0, 40], ids=["few tags", "many tags"])
@pytest.mark.parametrize(
    "field",
    [
        '<INPUT NAME="csrf_token">',
        "<meta property=x-token>",
        "<input id='a.authenticator'>",
        "<link nonce=a>",
    ],
)
def test_a_token_behind_many_tags_is_found(many, field):
    head = b'<meta property="og:a" content="b"><link rel="stylesheet" href="/a.css">' * many
    assert holds_token(head + field.encode() + b"<p>text</p>" * 100, None)
    assert not holds_token(head + b"<p>csrf token authenticator</p>" * 100, None)
