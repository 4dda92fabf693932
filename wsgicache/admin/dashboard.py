"""The dashboard: pages for a browser at `admin_path`, for whoever signs in with the secret.

    /.cache/                  hits, misses and what they saved, over the last hour and day
    /.cache/pages/routes      by route and by rule
    /.cache/pages/entries     what is stored, to look at and to purge
    /.cache/pages/rules       the switches of the rules
    /.cache/pages/recent      the last decisions of this worker
    /.cache/pages/explain     what a URL would get, and why

Nothing changes on GET. A form needs the session, the token that is bound to it, and a browser that says that
it was sent from here. Everything that comes from a client is escaped, and the policy of the pages lets no
script run but their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import quote, urlencode

from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, NotFound
from werkzeug.wrappers import Request, Response

from ..purge import Purged
from ..stores import StoreError
from . import endpoint, figures, pages
from .guard import Guard
from .session import BY_APP, BY_FIELD, BY_SECRET, Gate, Guesses, Session, Sessions, is_same_origin

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError as error:
    raise ImportError(
        "the dashboard needs jinja2, which is not installed: pip install 'wsgicache[dashboard]'"
    ) from error

MAX_BYTES: Final = 1 << 14
"""Larger forms are refused."""

COUNTED: Final = 10_000
"""Where a store holds more entries, a purge does not count how many it reached: that takes a scan."""

HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy",
     "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
     "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    # Not no-referrer, with which browsers send "Origin: null" with our own forms.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Robots-Tag", "noindex"),
)  # fmt: skip
"""Fields of every answer."""

STATIC: Final = {
    "dashboard.css": "text/css; charset=utf-8",
    "dashboard.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

MENU: Final = (
    ("", "Overview"),
    ("pages/routes", "Routes"),
    ("pages/entries", "Entries"),
    ("pages/rules", "Rules"),
    ("pages/recent", "Decisions"),
    ("pages/explain", "Explain"),
)


class Refused(HTTPException):
    """A form that is not taken, and why."""

    code = 403


class Dashboard:
    """A small WSGI app beside the wrapped one.

    Args:
        cache: what it tells of.
        guard: who knows the secret.
        path: where it is, such as `/.cache`.
        admin_auth: whom the app lets in besides; None: nobody.
    """

    def __init__(
        self,
        cache: endpoint.Cache,
        guard: Guard,
        path: str,
        admin_auth: Callable[[dict[str, Any]], bool] | None = None,
    ) -> None:
        self._cache = cache
        self._guard = guard
        self._path = path.rstrip("/") + "/"
        self._base = quote(self._path, safe="/:@!$&'()*+,;=~-._%")
        wall = self._now
        self._sessions = Sessions(guard, self._base, wall)
        self._gate = Gate(guard, self._sessions, admin_auth, self._failed)
        self._guesses = Guesses(lambda: self._cache.engine.clock.steady())
        told = pages.Pages(cache)
        self._pages: Mapping[str, tuple[str, Callable[[Request], pages.Told]]] = {
            "": ("overview.html", told.overview),
            "pages/routes": ("routes.html", told.routes),
            "pages/entries": ("entries.html", told.entries),
            "pages/entry": ("entry.html", told.entry),
            "pages/rules": ("rules.html", told.rules),
            "pages/recent": ("recent.html", told.recent),
            "pages/explain": ("explain.html", told.explain),
        }
        self._forms: Mapping[str, Callable[[Request], Response]] = {
            "pages/entries": self._purge,
            "pages/rules": self._switch,
        }
        self._static = {name: files(__package__).joinpath("static", name).read_bytes() for name in STATIC}
        self._templates = Environment(
            loader=PackageLoader(__package__ or ""),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.globals.update(base=self._base, menu=MENU)
        self._templates.filters.update({name: getattr(figures, name) for name in _FIGURES})

    def _now(self) -> float:
        return self._cache.engine.clock.wall()

    def _failed(self, error: Exception) -> None:
        self._cache.engine.observer.warn_once(
            "admin_auth", "admin_auth failed (%s: %s); nobody is let in by it", type(error).__name__, error
        )

    def takes(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request is for a page, and not for the app or the endpoint."""
        path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        if not f"{path}/".startswith(self._path) or environ["REQUEST_METHOD"] not in ("GET", "HEAD", "POST"):
            return False
        name = path[len(self._path) :]
        return name in ("", "login", "logout") or name.startswith(("pages/", "static/"))

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        request.max_content_length = request.max_form_memory_size = MAX_BYTES
        response = self._answer(request)
        for name, value in HEADERS:
            response.headers[name] = value
        return response(environ, start_response)

    def _answer(self, request: Request) -> Response:
        path = request.environ.get("SCRIPT_NAME", "") + request.environ.get("PATH_INFO", "")
        if len(path) < len(self._path):
            return self._to("")
        name = path[len(self._path) :]
        if name.startswith("static/"):
            return self._file(name[len("static/") :])
        session, begins = self._gate.who(request)
        try:
            if name == "login" and request.method == "POST":
                return self._sign_in(request)
            if session is None and not begins:
                return self._asked_for_secret()
            begun = Response()
            if session is None:
                session = self._sessions.open(BY_APP, request, begun)
                if request.method == "POST":  # with what could it have come?
                    raise Refused("This form is of no session. Load the page again.")
            response = self._act(request, name, session)
            response.headers.extend([pair for pair in begun.headers if pair[0] == "Set-Cookie"])
            return response
        except HTTPException as error:
            return self._problem(request, error, session)
        except (ValueError, KeyError) as error:
            return self._problem(request, BadRequest(str(error.args[0] if error.args else error)), session)
        except StoreError as error:
            return self._problem(request, _StoreDown(f"The store did not answer: {error}"), session)

    def _act(self, request: Request, name: str, session: Session) -> Response:
        if request.method == "POST":
            self._check(request, session)
            if name == "logout":
                response = self._to("")
                self._sessions.close(request, response)
                return response
            form = self._forms.get(name)
            if form is not None:
                return form(request)
            raise MethodNotAllowed(["GET"], "This page takes no form.") if name in self._pages else NotFound()
        if name in ("login", "logout"):
            return self._to("")
        page = self._pages.get(name)
        if page is None:
            raise NotFound("There is no such page.")
        template, told = page
        return self._page(template, session, name, request, **told(request))

    # --- who is let in -----------------------------------------------------------------------------

    def _sign_in(self, request: Request) -> Response:
        address = str(request.environ.get("REMOTE_ADDR", ""))
        wait = self._guesses.wait(address)
        if wait:
            response = self._asked_for_secret("Too many wrong secrets. Wait a minute.", 429)
            response.headers["Retry-After"] = str(wait)
            return response
        if not is_same_origin(request.environ):
            return self._asked_for_secret("This form was not sent from this page.")
        if not self._guard.opens(request.form.get("secret", "")):
            self._guesses.wrong(address)
            return self._asked_for_secret("That is not the secret.")
        self._guesses.right(address)
        response = self._to("")
        self._sessions.open(BY_SECRET, request, response)
        return response

    def _asked_for_secret(self, problem: str | None = None, status: int = 403) -> Response:
        """What everybody gets who is not let in, whatever there is."""
        return self._rendered("login.html", status, problem=problem, token=None, here_at=None, alone=False)

    def _check(self, request: Request, session: Session) -> None:
        """See that a form was sent by whoever is signed in, and from one of our pages (ADM-03).

        What brings the secret in a field is no browser that another site could use.
        """
        if session.way == BY_FIELD:
            return
        if not is_same_origin(request.environ):
            raise Refused("This form was not sent from this site.")
        if not self._sessions.holds(session, request.form.get("token", "")):
            raise Refused("This form is of another session. Load the page again.")

    # --- what can be done --------------------------------------------------------------------------

    def _purge(self, request: Request) -> Response:
        """Purge a URL, a prefix or a group, and go back to the list."""
        form = request.form
        soft = form.get("soft") == "on"
        what, target = form.get("what", ""), form.get("target", "").strip()
        if not target:
            raise BadRequest("Say what to purge.")
        if what == "url":
            purged = self._cache.purge(target, soft=soft)
        elif what == "prefix":
            purged = self._cache.purge_prefix(target, soft=soft)
        elif what == "group":
            purged = self._cache.purge_groups(target, soft=soft)
        else:
            raise BadRequest("A purge is by url, prefix or group.")
        by, text, page = pages.wanted(form)
        told = {"by": by, "text": text, "page": page, "marked" if soft else "purged": self._matched(purged)}
        return self._to(f"pages/entries?{urlencode(told, errors='replace')}")

    def _matched(self, purged: Purged) -> int:
        """How many entries a purge reached; -1 where nobody counted."""
        try:
            if self._cache.engine.store.stats().get("entries", COUNTED + 1) > COUNTED:
                return -1
            matched = purged.matched
        except StoreError:
            return -1
        return -1 if matched is None else matched

    def _switch(self, request: Request) -> Response:
        """Switch a rule, and go back to the rules."""
        position = request.form.get("enabled")
        if position not in ("on", "off"):
            raise BadRequest("Say on or off.")
        self._cache.rules[request.form.get("name", "")].enabled = position == "on"
        return self._to("pages/rules")

    # --- answers -----------------------------------------------------------------------------------

    def _page(
        self, template: str, session: Session, name: str, request: Request, status: int = 200, **told: Any
    ) -> Response:
        token = self._sessions.token(session)
        fragment = request.args.get("fragment") == "1"
        alone = bool(request.environ.get("wsgi.multiprocess")) and not self._cache.engine.shared
        told |= {"token": token, "here_at": name, "alone": alone}
        return self._rendered(template, status, fragment=fragment, **told)

    def _problem(self, request: Request, error: HTTPException, session: Session | None) -> Response:
        if session is None:
            return self._asked_for_secret()
        code = error.code or 500
        response = self._page(
            "problem.html", session, "", request, code, problem=endpoint.shorten(str(error.description))
        )
        response.headers.extend([pair for pair in error.get_headers() if pair[0] == "Allow"])
        return response

    def _rendered(self, template: str, status: int, *, fragment: bool = False, **told: Any) -> Response:
        layout = "fragment.html" if fragment else "page.html"
        text = self._templates.get_template(template).render(layout=layout, **told)
        return Response(text.encode("utf-8", "replace"), status, content_type="text/html; charset=utf-8")

    def _file(self, name: str) -> Response:
        if name not in self._static:
            return self._asked_for_secret()
        return Response(self._static[name], content_type=STATIC[name])

    def _to(self, name: str) -> Response:
        return Response(status=303, headers={"Location": self._base + name})


class _StoreDown(HTTPException):
    code = 503


_FIGURES: Final = ("count", "percent", "size", "duration", "instant", "readable", "clock_time")
