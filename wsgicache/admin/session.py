"""Who is signed in to the dashboard: a signed cookie with an end, and what keeps others from using it.

Nothing is kept on the server, so that any worker knows whom another has signed in; a new secret signs
everybody out. A form works only with a token that is bound to the session, and only from a page of the same
origin.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from hashlib import sha256
from math import ceil
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from werkzeug.wrappers import Request, Response

from .guard import Guard

try:
    from itsdangerous import BadData, Signer, URLSafeSerializer
except ImportError as error:
    raise ImportError(
        "the dashboard needs itsdangerous, which is not installed: pip install 'wsgicache[dashboard]'"
    ) from error

COOKIE: Final = "wsgicache-session"
LASTS: Final = 8 * 3600
"""Seconds after which one has to sign in again."""

_SKEW: Final = 300
"""Seconds by which the clocks of machines that share a secret may differ."""

BY_SECRET: Final = "secret"
BY_APP: Final = "app"
BY_FIELD: Final = "field"


class Session(NamedTuple):
    """Somebody who is let in, and how: by the form, by the app, or by the secret in a field."""

    id: str
    way: str


class Sessions:
    """Makes sessions and knows them again.

    Args:
        guard: who knows the secret.
        path: where the cookie is sent: below this and nowhere else.
        wall: the clock, seconds.
    """

    def __init__(self, guard: Guard, path: str, wall: Callable[[], float]) -> None:
        key = guard.key("wsgicache dashboard")
        ways = {"key_derivation": "hmac", "digest_method": sha256}
        self._sessions = URLSafeSerializer(key, salt="session", signer_kwargs=ways)
        self._forms = Signer(key, salt="form", key_derivation="hmac", digest_method=sha256)
        self._path = path
        self._wall = wall

    def open(self, way: str, request: Request, response: Response) -> Session:
        """Begin a session and have the browser keep it."""
        session = Session(secrets.token_urlsafe(16), way)
        value = self._sessions.dumps([session.id, way, int(self._wall()) + LASTS])
        response.set_cookie(COOKIE, str(value), max_age=LASTS, **self._terms(request))
        return session

    def read(self, request: Request) -> Session | None:
        """The session of a request, if it is one of ours that has not ended."""
        try:
            told: Any = self._sessions.loads(request.cookies.get(COOKIE, ""))
            name, way, until = told
            # One from the future would outlast its time: this clock was set back, or another is ahead.
            is_now = 0 < until - self._wall() <= LASTS + _SKEW
            return Session(str(name), str(way)) if is_now else None
        except (BadData, ValueError, TypeError):
            return None

    def close(self, request: Request, response: Response) -> None:
        """Have the browser forget the session."""
        terms = self._terms(request)
        response.delete_cookie(COOKIE, **terms)

    def _terms(self, request: Request) -> dict[str, Any]:
        """What the browser may do with the cookie.

        A front server that ends TLS says so by a field; whoever makes it up only keeps his own cookie from
        being sent.
        """
        forwarded = request.headers.get("X-Forwarded-Proto", "").strip().lower()
        secure = request.scheme == "https" or forwarded == "https"
        return {"path": self._path, "secure": secure, "httponly": True, "samesite": "Strict"}

    def token(self, session: Session) -> str:
        """What a form of this session must bring."""
        return self._forms.get_signature(session.id.encode()).decode("ascii")

    def holds(self, session: Session, token: str) -> bool:
        """Whether a token is this session's; compared in constant time."""
        return self._forms.verify_signature(session.id.encode(), token.encode("utf-8", "replace"))


def is_same_origin(environ: Mapping[str, Any]) -> bool:
    """Whether a browser says that a request was made by a page of this site (ADM-03).

    By Sec-Fetch-Site, which no page can forge, else by Origin (RFC 6454 §7). What says neither is refused.
    """
    site = environ.get("HTTP_SEC_FETCH_SITE")
    if site is not None:
        return bool(site == "same-origin")
    origin = str(environ.get("HTTP_ORIGIN", ""))
    host = str(environ.get("HTTP_HOST", ""))
    try:
        named = urlsplit(origin)
        return named.scheme in ("http", "https") and bool(host) and named.netloc.lower() == host.lower()
    except ValueError:
        return False


class Guesses:
    """Counts wrong secrets by the address they come from, and has whoever made too many wait.

    An address proves nothing, so nobody is let in for it; this only slows down. It is counted in this
    process, and the table is bounded: it simply starts again when it is full.

    Args:
        steady: a clock that nobody sets, seconds.
        allowed: wrong ones in a row.
        seconds: how long to wait then.
        addresses: the size of the table.
    """

    def __init__(
        self, steady: Callable[[], float], *, allowed: int = 10, seconds: float = 60.0, addresses: int = 1024
    ) -> None:
        self._steady = steady
        self._allowed = allowed
        self._seconds = seconds
        self._addresses = addresses
        self._counts: dict[str, tuple[int, float]] = {}

    def wait(self, address: str) -> int:
        """Seconds until an address may try again; 0: now."""
        count, until = self._counts.get(address, (0, 0.0))
        return max(0, ceil(until - self._steady())) if count >= self._allowed else 0

    def wrong(self, address: str) -> None:
        """Note a wrong secret."""
        now = self._steady()
        count, until = self._counts.get(address, (0, 0.0))
        if len(self._counts) >= self._addresses:
            self._counts.clear()
        self._counts[address] = (count if now < until else 0) + 1, now + self._seconds

    def right(self, address: str) -> None:
        """Forget an address: it has the secret."""
        self._counts.pop(address, None)


class Gate:
    """Says who a request comes from.

    Args:
        guard: who knows the secret.
        sessions: who is signed in.
        admin_auth: what the app says of a request; None: nothing.
        failed: told of a fault in it; then nobody is let in by it.
    """

    def __init__(
        self,
        guard: Guard,
        sessions: Sessions,
        admin_auth: Callable[[dict[str, Any]], bool] | None,
        failed: Callable[[Exception], None],
    ) -> None:
        self._guard = guard
        self._sessions = sessions
        self._admin_auth = admin_auth
        self._failed = failed

    def who(self, request: Request) -> tuple[Session | None, bool]:
        """The session of a request, and whether it is one that the app lets in and that has yet to begin.

        What the app lets in holds only as long as the app says so.
        """
        if self._guard.admits(request.environ):
            return Session("", BY_FIELD), False
        session = self._sessions.read(request)
        if session is not None and session.way == BY_SECRET:
            return session, False
        if not self._app_admits(request.environ):
            return None, False
        return session, session is None

    def _app_admits(self, environ: dict[str, Any]) -> bool:
        if self._admin_auth is None:
            return False
        try:
            return self._admin_auth(environ) is True
        except Exception as error:
            self._failed(error)
            return False
