"""One request of a WSGI app, made as a server makes it, and what its client gets."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..key import parse_url
from ..outcome import CACHE_NAME
from .apps import Environ, Headers


@dataclass
class Reply:
    """What a client got."""

    status: str
    headers: Headers
    body: bytes

    @property
    def code(self) -> int:
        """The status code."""
        return int(self.status[:3])

    def all(self, name: str) -> list[str]:
        """Every line of a field, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def field(self, name: str) -> str | None:
        """The only line of a field, or None.

        Raises:
            AssertionError: there are several.
        """
        lines = self.all(name)
        if len(lines) > 1:
            raise AssertionError(f"{name} has {len(lines)} lines: {lines}")
        return lines[0] if lines else None

    @property
    def cache(self) -> dict[str, str]:
        """The last Cache-Status member of this cache: parameters by name, bare ones as "".

        `hit` or `fwd` is always there; `detail` names the reason where the token does not say it.
        """
        ours = [line for line in self.all("cache-status") if line.split(";")[0].strip() == CACHE_NAME]
        if not ours:
            raise AssertionError(f"no Cache-Status of {CACHE_NAME} in {self.headers}")
        parameters = (part.strip().partition("=") for part in ours[-1].split(";")[1:])
        return {name: value for name, _, value in parameters}

    @property
    def is_hit(self) -> bool:
        """Whether the store answered."""
        return "hit" in self.cache

    @property
    def detail(self) -> str | None:
        """The name of the reason in Cache-Status, if it says one."""
        return self.cache.get("detail")

    @property
    def stored(self) -> bool:
        """Whether Cache-Status says that the app's answer was stored."""
        return "stored" in self.cache


def make_environ(
    url: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    **extra: Any,
) -> Environ:
    """An environ as a plain server makes it; `extra` sets or, with None, removes keys.

    Args:
        url: a path (on http://example.com) or an absolute URL.
    """
    origin, path, query = parse_url(url)
    scheme, _, host = (origin or "http://example.com").partition("://")
    environ: Environ = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query or "",
        "SERVER_NAME": host.partition(":")[0],
        "SERVER_PORT": host.partition(":")[2] or {"http": "80", "https": "443"}[scheme],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    for name, value in (headers or {}).items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    environ.update(extra)
    return {name: value for name, value in environ.items() if value is not None}


def ask(
    app: Callable[..., Iterable[bytes]],
    url: str = "/",
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    **extra: Any,
) -> Reply:
    """Make one request of a WSGI app and read its whole answer, closing it as a server does."""
    return run(app, make_environ(url, method, headers, body, **extra))


def run(app: Callable[..., Iterable[bytes]], environ: Environ) -> Reply:
    """Run one environ through a WSGI app as a server does (PEP 3333)."""
    began: list[tuple[str, Headers]] = []
    written: list[bytes] = []
    head_sent = False

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Callable[[bytes], None]:
        if exc_info is not None and head_sent:
            raise exc_info[1].with_traceback(exc_info[2])
        if exc_info is None and began:
            raise AssertionError("start_response() was called twice")
        began[:] = [(status, headers)]
        return written.append

    iterable = app(environ, start_response)
    try:
        for chunk in iterable:
            if not began:
                if chunk:
                    raise AssertionError("a body before start_response()")
                continue
            head_sent = head_sent or bool(chunk)
            written.append(chunk)
    finally:
        close = getattr(iterable, "close", None)
        if close is not None:
            close()
    if not began:
        raise AssertionError("start_response() was never called")
    status, headers = began[0]
    return Reply(status, list(headers), b"".join(written))
