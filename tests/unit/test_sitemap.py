"""Sitemaps: what is read, what is refused, and that nothing makes it raise anything else."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache.sitemap import MAX_BYTES, MAX_URL, MAX_URLS, Sitemap, SitemapError, read_sitemap

SPACE = 'xmlns="http://www.sitemaps.org/schemas/sitemap/0.9"'


def read(text):
    return read_sitemap(text if isinstance(text, bytes) else text.encode(), "it")


def test_pages():
    text = f"""<?xml version="1.0" encoding="UTF-8"?>
    <urlset {SPACE} xmlns:image="http://www.google.com/schemas/sitemap-image/1.1">
      <url><loc> https://a.example/1 </loc><lastmod>2026-01-01</lastmod>
        <image:image><image:loc>https://a.example/picture.jpg</image:loc></image:image></url>
      <url><priority>1</priority><loc>https://a.example/2?a=1&amp;b=<![CDATA[2]]></loc></url>
      <url><loc></loc></url>
      <loc>https://a.example/3</loc>
    </urlset>"""
    assert read(text) == Sitemap(("https://a.example/1", "https://a.example/2?a=1&b=2"), ())


def test_an_index():
    text = f"<sitemapindex {SPACE}><sitemap><loc>https://a.example/s.xml</loc></sitemap></sitemapindex>"
    assert read(text) == Sitemap((), ("https://a.example/s.xml",))


def test_without_a_namespace_in_other_encodings_and_compressed():
    text = "<urlset><url><loc>https://a.example/é</loc></url></urlset>"
    wanted = Sitemap(("https://a.example/é",), ())
    assert read(text) == wanted
    assert read(b'<?xml version="1.0" encoding="ISO-8859-1"?>' + text.encode("latin-1")) == wanted
    assert read(text.encode("utf-16")) == wanted
    assert read(text.encode("utf-8-sig")) == wanted
    assert read(gzip.compress(text.encode())) == wanted


def test_a_text_file():
    assert read("\ufeffhttps://a.example/1\r\n\n  https://a.example/2\n").urls == (
        "https://a.example/1",
        "https://a.example/2",
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<!DOCTYPE x [<!ENTITY a "b">]><urlset/>', "declares a document type"),
        ('<!DOCTYPE x SYSTEM "http://169.254.169.254/x.dtd"><urlset/>', "declares a document type"),
        ("<urlset><url><loc>&a;</loc></url></urlset>", "undefined entity"),
        ("<html/>", "<html> is no sitemap"),
        ("<urlset>", "no element found"),
        ("<urlset></sitemapindex>", "mismatched tag"),
        (b"\xff\xffx", "neither XML nor UTF-8"),
        (b"\x1f\x8bnonsense", "damaged gzip"),
        (gzip.compress(b"<urlset/>", mtime=0)[:-4], "it ends too early"),
        (b'<?xml version="1.0" encoding="no-such"?><urlset/>', "unknown encoding"),
    ],
)
def test_what_is_refused(text, told):
    with pytest.raises(SitemapError, match=told):
        read(text)


def test_a_bomb_is_unpacked_no_further_than_the_limit():
    bomb = gzip.compress(b" " * (MAX_BYTES * 4))
    assert len(bomb) < MAX_BYTES / 100
    with pytest.raises(SitemapError, match=f"more than {MAX_BYTES} bytes"):
        read(bomb)


def test_limits_of_the_protocol():
    long = "https://a.example/" + "x" * MAX_URL
    text = f"<urlset><url><loc>{long}</loc></url><url><loc>https://a.example/1</loc></url></urlset>"
    assert read(text) == Sitemap(("https://a.example/1",), (), 1)
    many = "\n".join([f"https://a.example/{number}" for number in range(MAX_URLS + 3)])
    found = read(many)
    assert (len(found.urls), found.left_out) == (MAX_URLS, 3)


@given(st.binary(max_size=200) | st.text("<>/urlsetoc&;! []\"'=a", max_size=80).map(str.encode))
def test_nothing_else_is_raised(data):
    try:
        read_sitemap(data, "it")
    except SitemapError:
        pass


@given(
    st.lists(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1, max_size=20))
)
def test_what_was_written_is_read(urls):
    from xml.sax.saxutils import escape

    body = "".join([f"<url><loc>{escape(url)}</loc></url>" for url in urls])
    assert read(f"<urlset {SPACE}>{body}</urlset>").urls == tuple(urls)
