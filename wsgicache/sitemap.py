"""Sitemaps (sitemaps.org protocol 0.9): the addresses in one, read strictly and within bounds. Pure.

The rules this file obeys:

- A document that declares a type is refused, so there are no entities to expand and nothing to fetch.
- What is compressed is decompressed up to the protocol's limit and no further.
- Only a `loc` that stands directly in a `url` or `sitemap` element counts; extensions have their own.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final
from xml.parsers import expat

MAX_BYTES: Final = 50 * 1024 * 1024
"""Bytes of a sitemap, decompressed: the protocol's limit."""

MAX_URLS: Final = 50_000
"""Addresses in one sitemap: the protocol's limit."""

MAX_URL: Final = 2048
"""Characters of one address: longer ones are left out, as the protocol has them shorter."""

_BLOCK: Final = 65536


class SitemapError(ValueError):
    """A document that is no sitemap, or that is refused; the message says why."""


@dataclass(frozen=True)
class Sitemap:
    """The addresses in one document.

    Attributes:
        urls: of pages.
        sitemaps: of other sitemaps, where it is an index.
        left_out: how many there were beyond the limits.
    """

    urls: tuple[str, ...]
    sitemaps: tuple[str, ...]
    left_out: int = 0


def read_sitemap(data: bytes, name: str) -> Sitemap:
    """The addresses in a sitemap, a sitemap index or a text file with one address a line; gzip or not.

    Args:
        data: the document.
        name: what to call it in an error.

    Raises:
        SitemapError: it is none of them, too large, damaged, or declares a document type.
    """
    data = _unzipped(data, name) if data.startswith(b"\x1f\x8b") else data
    if len(data) > MAX_BYTES:
        raise SitemapError(f"{name}: more than {MAX_BYTES} bytes; split it, as the protocol asks")
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and not data.startswith(
        (b"\xff\xfe", b"\xfe\xff")
    ):
        return _from_text(data, name)
    return _Reader(name).read(data)


def _unzipped(data: bytes, name: str) -> bytes:
    """Decompressed, one member, as far as the limit."""
    unzip = zlib.decompressobj(wbits=31)
    try:
        text = unzip.decompress(data, MAX_BYTES + 1)
    except zlib.error as error:
        raise SitemapError(f"{name}: damaged gzip: {error}") from None
    if len(text) <= MAX_BYTES and not unzip.eof:
        raise SitemapError(f"{name}: damaged gzip: it ends too early")
    return text


def _from_text(data: bytes, name: str) -> Sitemap:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "neither"
    urls = [line.strip() for line in text.splitlines() if line.strip()]
    if not all([url.lower().startswith(("http://", "https://")) for url in urls]):
        raise SitemapError(f"{name}: neither XML nor UTF-8 text with one absolute URL a line")
    return _bounded(urls, [])


def _bounded(urls: list[str], sitemaps: list[str]) -> Sitemap:
    short = [url for url in urls if len(url) <= MAX_URL][:MAX_URLS]
    shorter = [url for url in sitemaps if len(url) <= MAX_URL][:MAX_URLS]
    left_out = len(urls) + len(sitemaps) - len(short) - len(shorter)
    return Sitemap(tuple(short), tuple(shorter), left_out)


class _Reader:
    """Reads one XML document."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: list[str] = []
        self._text: list[str] = []
        self._found: dict[str, list[str]] = {"url": [], "sitemap": []}

    def read(self, data: bytes) -> Sitemap:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        try:
            for start in range(0, len(data), _BLOCK):
                parser.Parse(data[start : start + _BLOCK])
            parser.Parse(b"", True)
        except SitemapError:
            raise
        except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two of its encoding
            raise SitemapError(f"{self._name}: {error}") from None
        return _bounded(self._found["url"], self._found["sitemap"])

    def _refuse(self, *args: object) -> None:
        raise SitemapError(f"{self._name}: it declares a document type, which no sitemap needs; take it out")

    def _start(self, name: str, attributes: object) -> None:
        local = name.rpartition(" ")[2]
        if not self._path and local not in ("urlset", "sitemapindex"):
            raise SitemapError(
                f"{self._name}: <{local[:40]}> is no sitemap; it begins with <urlset> or <sitemapindex>"
            )
        self._path.append(local if self._is_ours(name) else "")
        self._text.clear()

    def _is_ours(self, name: str) -> bool:
        """Whether an element is of the root's namespace: extensions have a `loc` too, of an image."""
        space = name.rpartition(" ")[0]
        if not self._path:
            self._space = space
        return space == self._space

    def _characters(self, text: str) -> None:
        if self._path[-1:] == ["loc"] and sum(map(len, self._text)) <= MAX_URL:
            self._text.append(text)

    def _end(self, name: str) -> None:
        path = self._path
        if len(path) == 3 and path[2] == "loc" and (path[0], path[1]) in _PLACES:
            url = "".join(self._text).strip()
            if url:
                self._found[path[1]].append(url)
        path.pop()
        self._text.clear()


_PLACES: Final = frozenset({("urlset", "url"), ("sitemapindex", "sitemap")})
