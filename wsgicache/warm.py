"""Warm-up: ask a site's own app for its pages before visitors do, in this process and over no network.

The rules this file obeys:

- Requests are a stranger's: no cookie, no credentials. What is stored is what every visitor may get.
- One site: a URL, a redirect or a sitemap of another origin is told of, not followed.
- Bounded and polite: so many pages, so many a second, so many at once, redirects and bodies too. Where the
  store does not answer, or the app fails again and again, it stops.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final
from urllib.parse import urljoin

from .explain import environ_for
from .key import parse_url
from .outcome import CACHE_NAME, Reason
from .sitemap import MAX_BYTES, Sitemap, SitemapError, read_sitemap

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

AGENT: Final = f"{CACHE_NAME}-warm"
_ACCEPTED: Final = "gzip, deflate, br, zstd"
"""Codings that browsers accept today: a page that varies on them is stored for most visitors."""

_REDIRECTS: Final = 5
_FAILURES: Final = 20
"""Failures in a row after which the rest is left alone."""

_LARGEST_PAGE: Final = 64 * 1024 * 1024
"""Bytes of a body after which it is closed, unless it said that it is longer: it may never end."""

_DEPTH: Final = 2
"""An index of sitemaps leads to sitemaps; the protocol knows no deeper one."""

_PERSONAL: Final = frozenset({"cookie", "authorization", "proxy-authorization"})
_MEMBER: Final = re.compile(
    rf"(?:^|,)\s*{CACHE_NAME}(?=\s*(?:[;,]|$))((?:\s*;\s*(?:[^\";,]|\"(?:\\.|[^\"\\])*\")*)*)"
)
_PARAMETER: Final = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)(?:=("(?:\\.|[^"\\])*"|[^;,\s]*))?')


class Result(Enum):
    """What became of one URL."""

    STORED = "stored"
    ALREADY = "already there"
    NOT_STORED = "not stored"
    FAILED = "failed"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Warmed:
    """One URL that was asked for.

    Attributes:
        url: as it was asked for first.
        reason: why it is not stored or failed, or where it leads.
        seconds: how long the app took.
    """

    url: str
    result: Result
    status: int | None = None
    reason: str = ""
    seconds: float = 0.0


class StopWarming(Exception):
    """It makes no sense to go on: the store does not answer, or the app fails. The message says which."""


@dataclass(frozen=True)
class _Page:
    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Warmer:
    """Asks an app for pages.

    Args:
        app: the app with its cache, as the server would call it.
        site: the origin whose pages these are, such as `https://example.com`: it is in every key.
        rate: requests a second at most.
        limit: pages at most.
        concurrency: requests at once at most.
        headers: fields of each request that select a variant; without one, `Accept-Encoding` is a browser's.
        clock: monotonic seconds.
        pause: waits for so many seconds, or less when told to stop.

    Raises:
        ValueError: the site is no origin, a number is not above zero, or a field would name a visitor.
    """

    def __init__(
        self,
        app: App,
        site: str,
        *,
        rate: float = 10.0,
        limit: int = 10_000,
        concurrency: int = 2,
        headers: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        origin, path, query = parse_url(site)
        if origin is None or path != "/" or query is not None:
            raise ValueError(f"{site!r} is no site; give one such as https://example.com")
        for name, number in (("rate", rate), ("limit", limit), ("concurrency", concurrency)):
            if number <= 0:
                raise ValueError(f"{name} = {number}: give a number above zero")
        given = {name.title(): value for name, value in (headers or {}).items()}
        self._headers = {"User-Agent": AGENT, "Accept-Encoding": _ACCEPTED, **given}
        for name in self._headers:
            if name.lower() in _PERSONAL:
                raise ValueError(f"{name} names a visitor, and warming is a stranger's: leave it out")
        self.site: Final = origin
        self.left_out = 0
        """URLs that a sitemap had beyond what the protocol allows."""
        self.cut = False
        """There were more URLs than `limit`."""
        self.skipped: Final[list[str]] = []
        """Sitemaps of other sites, and those that could not be read, with why."""
        self._app = app
        self._limit = limit
        self._concurrency = concurrency
        self._interval = 1.0 / rate
        self._next = 0.0
        self._clock = clock
        self._stopped = threading.Event()
        self._pause = self._stopped.wait if pause is None else pause

    # --- which pages -------------------------------------------------------------------------------

    def sitemap(self, url: str) -> Iterator[str]:
        """The pages in a sitemap of the site, or in those that an index names, each as its turn comes.

        Args:
            url: a path, or an absolute URL of this site.

        Raises:
            SitemapError: it is of another site, cannot be had, or is none.
        """
        absolute = self._absolute(url)
        if self._is_elsewhere(absolute):
            raise SitemapError(f"{url}: that is another site than {self.site}")
        yield from self._pages(self._read(absolute), _DEPTH, {absolute})

    def sitemap_file(self, data: bytes, name: str) -> Iterator[str]:
        """The pages in a sitemap that was read from a file; those that it names come from the app.

        Raises:
            SitemapError: it is none.
        """
        yield from self._pages(read_sitemap(data, name), _DEPTH, set())

    def _pages(self, sitemap: Sitemap, depth: int, seen: set[str]) -> Iterator[str]:
        self.left_out += sitemap.left_out
        yield from sitemap.urls
        for url in sitemap.sitemaps:
            absolute = self._absolute(url)
            if absolute in seen:
                continue
            seen.add(absolute)
            if self._is_elsewhere(absolute) or depth <= 1:
                why = "an index in an index" if depth <= 1 else "another site's"
                self.skipped.append(f"{url}: {why}")
                continue
            try:
                below = self._read(absolute)
            except SitemapError as error:
                self.skipped.append(str(error))
                continue
            yield from self._pages(below, depth - 1, seen)

    def _read(self, url: str) -> Sitemap:
        self._keep_pace()
        try:
            page = self._ask(url, {"User-Agent": AGENT}, MAX_BYTES)
        except Exception as error:
            raise SitemapError(f"{url}: the app failed: {error or type(error).__name__}") from None
        if page.status != 200:
            raise SitemapError(f"{url}: the app answers {page.status}; name the sitemap's own URL")
        return read_sitemap(page.body, url)

    def _absolute(self, url: str) -> str:
        return urljoin(self.site + "/", url.strip())

    def _is_elsewhere(self, url: str) -> bool:
        try:
            return parse_url(url)[0] != self.site
        except ValueError:
            return True

    # --- asking ------------------------------------------------------------------------------------

    def run(self, urls: Iterable[str]) -> Iterator[Warmed]:
        """Ask for each URL once, in order as far as several at once allow; results as they come.

        Raises:
            StopWarming: it makes no sense to go on.
            SitemapError: what gives the URLs cannot be read.
        """
        failures = 0
        for warmed in self._results(self._bounded(urls)):
            yield warmed
            if warmed.reason == Reason.STORE_DOWN.name:
                self.stop()
                raise StopWarming("the store does not answer; nothing would be stored")
            failures = failures + 1 if warmed.result is Result.FAILED else 0
            if failures >= _FAILURES:
                self.stop()
                raise StopWarming(f"{failures} failures in a row; the rest is left alone")

    def stop(self) -> None:
        """Ask for nothing more; what is under way is waited for."""
        self._stopped.set()

    def _bounded(self, urls: Iterable[str]) -> Iterator[str]:
        """Each URL once, up to the limit; what comes after it is not even read."""
        seen: set[str] = set()
        for url in urls:
            absolute = self._absolute(url)
            if absolute in seen:
                continue
            if len(seen) >= self._limit:
                self.cut = True
                return
            seen.add(absolute)
            yield absolute

    def _results(self, urls: Iterator[str]) -> Iterator[Warmed]:
        waiting: set[Future[Warmed]] = set()
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix=AGENT) as pool:
            try:
                for url in urls:
                    if self._is_elsewhere(url):
                        yield Warmed(url, Result.ELSEWHERE, reason="another site")
                        continue
                    self._keep_pace()
                    if self._stopped.is_set():
                        return
                    waiting.add(pool.submit(self._visit, url))
                    if len(waiting) >= self._concurrency:
                        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                        yield from [future.result() for future in done]
                while waiting:
                    done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    yield from [future.result() for future in done]
            finally:
                self.stop()  # an interrupt: what is under way ends, and nothing new begins

    def _keep_pace(self) -> None:
        now = self._clock()
        if now < self._next:
            self._pause(self._next - now)
        self._next = max(now, self._next) + self._interval

    def _visit(self, url: str) -> Warmed:
        began = self._clock()
        try:
            return self._follow(url, began)
        except Exception as error:
            return Warmed(url, Result.FAILED, None, f"{type(error).__name__}: {error}", self._clock() - began)

    def _follow(self, url: str, began: float) -> Warmed:
        """Ask, and where the answer is a redirect on this site, for what it leads to."""
        asked = url
        for _ in range(_REDIRECTS + 1):
            page = self._ask(asked, self._headers)
            seconds = self._clock() - began
            location = page.field("location")
            if not (300 <= page.status < 400 and location):
                return _judged(url, page, seconds)
            asked = urljoin(asked, location)
            if self._is_elsewhere(asked):
                return Warmed(url, Result.ELSEWHERE, page.status, f"leads to {asked}", seconds)
        return Warmed(url, Result.FAILED, page.status, f"more than {_REDIRECTS} redirects", seconds)

    def _ask(self, url: str, headers: Mapping[str, str], keep: int = 0) -> _Page:
        """One request; the body is read to its end, and `keep` bytes and one of it are kept."""
        environ = environ_for(url, "GET", headers)
        environ["REMOTE_ADDR"] = "127.0.0.1"
        began: list[tuple[str, list[tuple[str, str]]]] = []
        written: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            began[:] = [(status, list(headers))]
            return written.append

        iterable = self._app(environ, start_response)
        try:
            kept, read = [], 0
            for chunk in iterable:
                read += len(chunk)
                if read - len(chunk) <= keep:
                    kept.append(chunk)
                if read > _LARGEST_PAGE and not _goes_on(began, read):
                    break
        finally:
            close = getattr(iterable, "close", None)
            if close is not None:
                close()
        if not began:
            raise RuntimeError("the app did not call start_response")
        status, fields = began[0]
        return _Page(int(status[:3]), fields, b"".join(written + kept))


def _goes_on(began: list[tuple[str, list[tuple[str, str]]]], read: int) -> bool:
    """Whether a body is as long as its head said, or not yet."""
    lengths = [value for _, fields in began for name, value in fields if name.lower() == "content-length"]
    return any([length.isdecimal() and read <= int(length) for length in lengths])


def _judged(url: str, page: _Page, seconds: float) -> Warmed:
    """What an answer's Cache-Status says of it."""
    said = cache_status(page.headers)
    if page.status >= 500:
        reason = said.get("detail", "") if said else ""
        return Warmed(url, Result.FAILED, page.status, reason or f"status {page.status}", seconds)
    if said is None:
        return Warmed(url, Result.NOT_STORED, page.status, "the cache did not see it", seconds)
    if "hit" in said:
        return Warmed(url, Result.ALREADY, page.status, "", seconds)
    if "stored" in said:
        return Warmed(url, Result.STORED, page.status, "", seconds)
    return Warmed(url, Result.NOT_STORED, page.status, said.get("detail", ""), seconds)


def cache_status(headers: Iterable[tuple[str, str]]) -> dict[str, str] | None:
    """The parameters of the last member of this cache in Cache-Status (RFC 9211), or None without one."""
    members = [
        member
        for name, value in headers
        if name.lower() == "cache-status"
        for member in _MEMBER.findall(value)
    ]
    if not members:
        return None
    return dict(_PARAMETER.findall(members[-1]))
