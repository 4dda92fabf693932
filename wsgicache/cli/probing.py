"""What a running site answers: is the cache before its app, how are paths read, does its clock agree?"""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from ..fields import parse_date
from ..key import parse_url, wsgi_path
from ..outcome import Outcome, Reason
from ..stores.advice import Advice, Level, apart
from ..warm import cache_status
from .errors import Failure

_PATH: Final = "/wsgicache-check/caf%C3%A9%2541%2Fx"
"""Decoded once it holds two bytes of UTF-8, a percent sign and a slash; nothing is meant to be there."""

_PATIENCE: Final = 10.0
_SKEW: Final = 2.0


def probe(url: str, secret: str | None) -> Iterator[Advice]:
    """Ask a running site for its front page and for a page that is not there.

    Args:
        url: where it runs.
        secret: the site's, so that it tells its keys; None: it does not.

    Raises:
        Failure: the URL is none.
    """
    try:
        origin = parse_url(url)[0]
    except ValueError as error:
        raise Failure(f"--url: {error}") from None
    if origin is None:
        raise Failure(f"--url {url}: give where the site runs, such as http://127.0.0.1:8000")
    front = urlsplit(url).path or "/"
    before = time.time()
    try:
        headers = _headers(origin, front, None)
    except (OSError, http.client.HTTPException) as error:
        text = f"{url} does not answer: {error or type(error).__name__}"
        yield Advice("running site", Level.PROBLEM, text, "start it, or give the address where it listens")
        return
    said = cache_status(headers)
    if said is None:
        remedy = "wrap the app that is served: app.wsgi_app = WSGICache(app.wsgi_app)"
        yield Advice("running site", Level.PROBLEM, f"{url} has no Cache-Status of wsgicache", remedy)
        return
    yield Advice("running site", Level.OK, f"the cache answers before the app: {'; '.join(_told(said))}")
    yield from _site_clock(headers, int(before), time.time())  # Date has whole seconds
    yield _paths(origin, secret)


def _told(said: dict[str, str]) -> list[str]:
    return [f"{name}={value}" if value else name for name, value in said.items() if name != "key"]


def _headers(origin: str, path: str, secret: str | None) -> list[tuple[str, str]]:
    parts = urlsplit(origin)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(str(parts.hostname), parts.port, timeout=_PATIENCE)
    try:
        # A part is never stored: what is asked for the sake of its key leaves nothing behind.
        asked = {"Wsgicache-Secret": secret, "Range": "bytes=0-0"} if secret else {}
        connection.request("GET", path, headers=asked)
        return connection.getresponse().getheaders()
    finally:
        connection.close()


def _site_clock(headers: list[tuple[str, str]], before: float, after: float) -> Iterator[Advice]:
    said = next((value for name, value in headers if name.lower() == "date"), None)
    at = None if said is None else parse_date(said)
    if at is None:
        return
    ahead = apart(at, before, after)
    if abs(ahead) > _SKEW:
        text = f"about {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
        yield Advice("clock of the site", Level.WARNING, text, "have both set by NTP")
    else:
        yield Advice("clock of the site", Level.OK, "agrees with this machine's")


def _paths(origin: str, secret: str | None) -> Advice:
    """Whether the server hands paths over as WSGI says: decoded once, bytes as latin-1 (PEP 3333)."""
    subject = "path decoding"
    if secret is None:
        text = "how the server reads paths: the site tells its keys only to who knows its secret"
        return Advice(subject, Level.SKIPPED, text, "set `secret` in the site's configuration")
    try:
        said = cache_status(_headers(origin, _PATH, secret)) or {}
    except (OSError, http.client.HTTPException) as error:
        return Advice(
            subject, Level.WARNING, f"{_PATH}: {error or type(error).__name__}", "see the server's log"
        )
    key = said.get("key")
    if key is None:
        text = f"the site tells no key for {_PATH}: {'; '.join(_told(said)) or 'no Cache-Status'}"
        return Advice(subject, Level.SKIPPED, text, "is the secret here the one that the site runs with?")
    line = Outcome(Reason.URI_MISS, key=wsgi_path(_PATH) + "\0").cache_status(show_key=True)
    wanted = (cache_status([("Cache-Status", line)]) or {})["key"].rstrip('"')
    if not key.startswith(wanted):
        return Advice(
            subject,
            Level.PROBLEM,
            f"{_PATH} arrives as {key}: decoded twice, not at all, or as text; purges by URL will miss it",
            "mend the server, or what is before the cache: PATH_INFO is decoded once and read as latin-1",
        )
    if "r/" not in key[len(wanted) :]:
        text = "once, as WSGI says; without the raw target, /a%2Fb and /a/b are one page, for the app too"
        return Advice(subject, Level.OK, text)
    return Advice(subject, Level.OK, "once, as WSGI says, with the raw target beside it")
