"""Warm-up: ask a site's own app for its pages before visitors do, in this process and over no network.

The rules this file obeys:

- Requests are a stranger's: no cookie, no credentials. What is stored is what every visitor may get.
- One site: a URL, a redirect or a sitemap of another origin is told of, not followed. A redirect on the site
  is told of too, and what it leads to is one more page.
- Bounded and polite: so many pages, so many a second, so many at once, redirects and bodies too. Where the
  store does not answer, or the app fails again and again, it stops.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Final
from urllib.parse import urldefrag, urljoin, urlsplit

from .explain import environ_for
from .key import parse_url
from .outcome import CACHE_NAME, Reason
from .sitemap import MAX_BYTES, Sitemap, SitemapError, read_sitemap

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

AGENT: Final = f"{CACHE_NAME}-warm"
_ACCEPTED: Final = "gzip, deflate, br, zstd"
"""Codings that browsers accept today: a page that varies on them is stored for most visitors."""

_REDIRECTS: Final = 5
"""Redirects in a row that are followed."""

_REDIRECTING: Final = frozenset({300, 301, 302, 303, 307, 308})
_FAILURES: Final = 20
"""Failures in a row after which the rest is left alone."""

_LARGEST_PAGE: Final = 64 * 1024 * 1024
"""Bytes of a body after which it is closed, unless it said that it is longer: it may never end."""

_DEPTH: Final = 2
"""An index of sitemaps leads to sitemaps; the protocol knows no deeper one."""

ANOTHER_SITE: Final = "another site"

_PERSONAL: Final = frozenset({"cookie", "authorization", "proxy-authorization"})
_MEMBER: Final = re.compile(
    rf"(?:^|,)\s*{CACHE_NAME}(?=\s*(?:[;,]|$))((?:\s*;\s*(?:[^\";,]|\"(?:\\.|[^\"\\])*\")*)*)"
)
_PARAMETER: Final = re.compile(r';\s*([a-z*][a-z0-9_.*-]*)(?:=("(?:\\.|[^"\\])*"|[^;,\s]*))?')


class Result(Enum):
    """What became of one URL."""

    STORED = "stored"
    ALREADY = "already there"
    REDIRECT = "redirect"
    NOT_STORED = "not stored"
    FAILED = "failed"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Warmed:
    """One URL that was asked for.

    Attributes:
        url: what was asked for, absolute.
        result: a redirect that is stored itself is as any page; another one is REDIRECT or ELSEWHERE.
        reason: why it is not stored or failed.
        seconds: how long the app took.
        location: where a redirect leads, absolute. A page of the same site has a result of its own.
    """

    url: str
    result: Result
    status: int | None = None
    reason: str = ""
    seconds: float = 0.0
    location: str = ""


class StopWarming(Exception):
    """It makes no sense to go on: the store does not answer, or the app fails. The message says which."""


@dataclass(frozen=True)
class _Page:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    refreshed: bool = False

    def field(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name), None)


class Warmer:
    """Asks an app for pages.

    Args:
        app: the app with its cache, as the server would call it.
        site: the origin whose pages these are, such as `https://example.com`: it is in every key.
        rate: requests a second at most.
        limit: pages at most, those that redirects lead to included.
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
        self._seen: set[str] = set()
        self._led: deque[tuple[str, int]] = deque()
        """Pages that redirects led to and that are still to be asked for, with the redirects before them."""
        self._leads: dict[str, str] = {}
        """Where each redirect leads."""
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
            target = self._target(url, page)
            leads = f", which leads to {target}" if target else ""
            raise SitemapError(f"{url}: the app answers {page.status}{leads}; name the sitemap's own URL")
        return read_sitemap(page.body, url)

    def _absolute(self, url: str) -> str:
        return _joined(self.site + "/", url.strip())

    def _is_elsewhere(self, url: str) -> bool:
        try:
            return parse_url(url)[0] != self.site
        except ValueError:
            return True

    # --- asking ------------------------------------------------------------------------------------

    def run(self, urls: Iterable[str]) -> Iterator[Warmed]:
        """Ask for each URL once, and for the pages of this site that redirects lead to; results as they come,
        in order as far as several at once allow.

        Raises:
            StopWarming: it makes no sense to go on.
            SitemapError: what gives the URLs cannot be read.
        """
        failures = 0
        for warmed in self._results(iter(urls)):
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

    def _results(self, urls: Iterator[str]) -> Iterator[Warmed]:
        waiting: dict[Future[Warmed], int] = {}
        with ThreadPoolExecutor(self._concurrency, thread_name_prefix=AGENT) as pool:
            try:
                while (page := self._next_page(urls)) is not None or waiting:
                    if page is not None:
                        url, redirects = page
                        if self._is_elsewhere(url):
                            yield Warmed(url, Result.ELSEWHERE, reason=ANOTHER_SITE)
                            continue
                        self._keep_pace()
                        if self._stopped.is_set():
                            return
                        waiting[pool.submit(self._visit, url)] = redirects
                    if page is None or len(waiting) >= self._concurrency:
                        done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                        for future in done:
                            yield self._follow(future.result(), waiting.pop(future))
            finally:
                self.stop()  # an interrupt: what is under way ends, and nothing new begins

    def _next_page(self, urls: Iterator[str]) -> tuple[str, int] | None:
        """The page whose turn it is, with the redirects that led to it; None where there is none now.

        Each comes once, up to the limit; what comes after it is not even read.
        """
        if self.cut:
            return None
        while self._led:
            url, redirects = self._led.popleft()
            if url not in self._seen:
                return self._within_limit(url, redirects)
        for given in urls:
            url = self._absolute(given)
            if url not in self._seen:
                return self._within_limit(url, 0)
        return None

    def _within_limit(self, url: str, redirects: int) -> tuple[str, int] | None:
        if len(self._seen) >= self._limit:
            self.cut = True
            return None
        self._seen.add(url)
        return url, redirects

    def _follow(self, warmed: Warmed, redirects: int) -> Warmed:
        """Have the page asked for that a redirect leads to. Returns what is told of the redirect.

        Args:
            redirects: how many led to this one.
        """
        if not warmed.location or self._is_elsewhere(warmed.location):
            return warmed
        self._leads[warmed.url] = warmed.location
        if self._is_circle(warmed.url):
            return replace(warmed, result=Result.FAILED, reason="redirects in a circle")
        if redirects >= _REDIRECTS:
            return replace(warmed, result=Result.FAILED, reason=f"more than {_REDIRECTS} redirects")
        self._led.append((warmed.location, redirects + 1))
        return warmed

    def _is_circle(self, url: str) -> bool:
        """Whether a redirect leads back to itself, over a few others at most."""
        at: str | None = url
        for _ in range(_REDIRECTS):
            at = self._leads.get(at) if at is not None else None
            if at == url:
                return True
        return False

    def _keep_pace(self) -> None:
        now = self._clock()
        if now < self._next:
            self._pause(self._next - now)
        self._next = max(now, self._next) + self._interval

    def _visit(self, url: str) -> Warmed:
        began = self._clock()
        try:
            page = self._ask(url, self._headers)
            if _is_stale_hit(page):  # it was refreshed behind that answer, if the app could
                page = replace(self._ask(url, self._headers), refreshed=True)
            return self._judged(url, page, self._clock() - began)
        except Exception as error:
            return Warmed(url, Result.FAILED, None, f"{type(error).__name__}: {error}", self._clock() - began)

    def _judged(self, url: str, page: _Page, seconds: float) -> Warmed:
        """What an answer's status and Cache-Status say of it."""
        said = cache_status(page.headers)
        location = self._target(url, page)
        result, reason = _result(page.status, said)
        if result is Result.ALREADY and page.refreshed:
            stale = _is_stale_hit(page)
            result = Result.NOT_STORED if stale else Result.STORED
            reason = Reason.HIT_STALE_WHILE_REVALIDATE.name if stale else ""
        if result is Result.NOT_STORED and location:
            elsewhere = self._is_elsewhere(location)
            result = Result.ELSEWHERE if elsewhere else Result.REDIRECT
            reason = self._why_elsewhere(location) if elsewhere else reason
        return Warmed(url, result, page.status, reason, seconds, location)

    def _target(self, url: str, page: _Page) -> str:
        """Where an answer leads, if it is a redirect (RFC 9110 §15.4)."""
        location = page.field("location")
        if not location or page.status not in _REDIRECTING:
            return ""
        return _joined(url, location)

    def _why_elsewhere(self, location: str) -> str:
        """Another scheme or port of the same host is a slip of who named the site, more often than not."""
        try:
            origin = parse_url(location)[0]
        except ValueError:
            origin = None
        if origin is not None and urlsplit(origin).hostname == urlsplit(self.site).hostname:
            return f"leads to {origin}: give --site {origin} to warm its pages"
        return f"leads to {ANOTHER_SITE}"

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


def _joined(base: str, url: str) -> str:
    """What a reference means where it stands, without its fragment; what is no URL stays as it is."""
    try:
        return urldefrag(urljoin(base, url)).url
    except ValueError:
        return url


def _is_stale_hit(page: _Page) -> bool:
    """Whether a stale page answered at once: one inside its stale-while-revalidate window."""
    said = cache_status(page.headers)
    return said is not None and "hit" in said and said.get("ttl", "").startswith("-")


def _result(status: int, said: Mapping[str, str] | None) -> tuple[Result, str]:
    """What became of a page, and why it is not stored, by its status and what the cache said of it."""
    detail = said.get("detail", "") if said else ""
    if status >= 500 or detail == Reason.HIT_STALE_IF_ERROR.name:
        return Result.FAILED, detail or f"status {status}"
    if said is None:
        return Result.NOT_STORED, "the cache did not see it"
    if "hit" in said:
        return Result.ALREADY, ""
    if "stored" in said:
        return Result.STORED, ""
    return Result.NOT_STORED, detail


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
