"""What the benchmarks serve: one page, one browser, and the apps that are compared.

Every app here answers `GET /page` with exactly the bytes of `PAGE`, so that rows of one table
differ in how the answer is made and in nothing else. Frameworks are imported where they are used:
what is not installed is skipped by the caller, and costs the others no memory.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flask import Flask

# Run from a checkout, without installing: `python benchmarks/inprocess.py`.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

Environ = dict[str, Any]
Headers = list[tuple[str, str]]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]

PATH = "/page"
LIFETIME = 300
PAGE_BYTES = 10_240

TITLE = "Everything that happened this week"
WORDS = "Plain sentences about nothing in particular, long enough to look like a real article."
ITEMS = [f"{number:03d}. {WORDS}" for number in range(94)]
_META = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<link rel="stylesheet" href="/site.css"><script src="/site.js" defer></script><title>'
)
_HEAD = f"{_META}{TITLE}</title></head><body><ul>"
_TAIL = "</ul><p>{}</p></body></html>"
_LIST = "".join(f"<li>{item}</li>" for item in ITEMS)
FILLER = "." * (PAGE_BYTES - len(_HEAD) - len(_LIST) - len(_TAIL.format("")))
PAGE = (_HEAD + _LIST + _TAIL.format(FILLER)).encode()

# Renders to PAGE in Jinja2: autoescaping on, a loop, some variables; a small but ordinary template.
TEMPLATE = (
    _META + "{{ title }}</title></head><body><ul>"
    "{% for item in items %}<li>{{ item }}</li>{% endfor %}"
    "</ul><p>{{ filler }}</p></body></html>"
)


class Views:
    """How often a view of a framework's app ran: tells a hit from a page made anew."""

    runs = 0


PAGE_HEADERS: Headers = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Length", str(len(PAGE))),
]


def browser_environ(path: str = PATH, query: str = "", **changes: str) -> Environ:
    """Return what gunicorn makes of a page view in a desktop browser: 36 keys, no cookie.

    `changes` are set last, so they replace keys (`REQUEST_METHOD="HEAD"`) and add some.
    """
    environ: Environ = {
        "wsgi.errors": sys.stderr,
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": None,
        "wsgi.input_terminated": True,
        "wsgi.input": io.BytesIO(),
        "gunicorn.socket": None,
        "SERVER_SOFTWARE": "gunicorn/23.0.0",
        "REQUEST_METHOD": "GET",
        "QUERY_STRING": query,
        "RAW_URI": f"{path}?{query}" if query else path,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "www.example.com",
        "HTTP_CONNECTION": "keep-alive",
        "HTTP_SEC_CH_UA": '"Chromium";v="138", "Google Chrome";v="138", "Not)A;Brand";v="24"',
        "HTTP_SEC_CH_UA_MOBILE": "?0",
        "HTTP_SEC_CH_UA_PLATFORM": '"Linux"',
        "HTTP_UPGRADE_INSECURE_REQUESTS": "1",
        "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "Chrome/138.0.0.0 Safari/537.36",
        "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,"
        "image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        "HTTP_SEC_FETCH_SITE": "same-origin",
        "HTTP_SEC_FETCH_MODE": "navigate",
        "HTTP_SEC_FETCH_USER": "?1",
        "HTTP_SEC_FETCH_DEST": "document",
        "HTTP_REFERER": "http://www.example.com/",
        "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
        "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.9,de;q=0.8",
        "wsgi.url_scheme": "http",
        "REMOTE_ADDR": "192.0.2.17",
        "REMOTE_PORT": "51874",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "PATH_INFO": path,
        "SCRIPT_NAME": "",
    }
    environ.update(changes)
    return environ


def constant_app(*extra: tuple[str, str], body: bytes = PAGE) -> App:
    """Return the cheapest honest WSGI app: one status, a new list of headers, one body.

    The list is new on every call because a server or middleware may change it (PEP 3333).
    """
    headers = [PAGE_HEADERS[0], ("Content-Length", str(len(body))), *extra]
    answer = [body]

    def bare(environ: Environ, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", headers[:])
        return answer

    return bare


def validating_app(*extra: tuple[str, str]) -> App:
    """Return the bare app, answering 304 whenever it is asked by a validator."""
    whole = constant_app(*extra)
    head = [*extra]

    def validating(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if "HTTP_IF_NONE_MATCH" not in environ:
            return whole(environ, start_response)
        start_response("304 Not Modified", head[:])
        return ()

    return validating


def _flask_page() -> tuple[Flask, Callable[[], str]]:
    """Return a Flask app without routes, and a view that renders PAGE."""
    from flask import Flask, render_template
    from jinja2 import DictLoader

    flask_app = Flask("benchmarks")
    flask_app.jinja_loader = DictLoader({"page.html": TEMPLATE})

    def page() -> str:
        Views.runs += 1
        return render_template("page.html", title=TITLE, items=ITEMS, filler=FILLER)

    return flask_app, page


def flask_uncached() -> App:
    """Return a Flask app that renders the page for every request."""
    flask_app, page = _flask_page()
    flask_app.add_url_rule(PATH, view_func=page)
    return flask_app.wsgi_app


def flask_caching_cached(**config: Any) -> App:
    """Return the same view under Flask-Caching's `cached`, with SimpleCache unless `config` says more."""
    from flask_caching import Cache

    flask_app, page = _flask_page()
    cache = Cache(flask_app, config={"CACHE_TYPE": "SimpleCache", **config})
    flask_app.add_url_rule(PATH, view_func=cache.cached(timeout=LIFETIME)(page))
    return flask_app.wsgi_app


def before_after(*, store_again: bool) -> App:
    """Return the same view under a pair of request hooks over cachelib's SimpleCache.

    `store_again`: the well-known form also runs its second hook on what the first one answered, and
    so stores the page on every hit. False is the form with that repaired.
    """
    from cachelib import SimpleCache
    from flask import Response, g, request

    flask_app, page = _flask_page()
    pages = SimpleCache()

    @flask_app.before_request
    def answer_from_cache() -> Response | None:
        if request.values:
            return None
        found: Response | None = pages.get(request.path)
        g.from_cache = found is not None
        return found

    @flask_app.after_request
    def keep(response: Response) -> Response:
        if not request.values and (store_again or not g.from_cache):
            pages.set(request.path, response, LIFETIME)
        return response

    flask_app.add_url_rule(PATH, view_func=page)
    return flask_app.wsgi_app


LOCMEM = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}


def django_locmem() -> App:
    """Return a Django site of one view under the per-site cache middleware, with locmem."""
    return django_cached("default", {})


def django_cached(alias: str, caches: dict[str, dict[str, str]]) -> App:
    """Return a Django site of one view under the per-site cache middleware.

    Nothing else is configured: no session, no database, no other middleware, no debugging.
    Django has one configuration per process, so the first call has to name all caches.
    """
    import django
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.http import HttpRequest, HttpResponse
    from django.urls import path

    def page(request: HttpRequest) -> HttpResponse:
        Views.runs += 1
        return HttpResponse(PAGE, headers={"Content-Length": str(len(PAGE))})  # of itself it tells no length

    if not settings.configured:
        settings.configure(
            DEBUG=False,
            ALLOWED_HOSTS=["*"],
            ROOT_URLCONF=(path(PATH.lstrip("/"), page),),
            USE_I18N=False,
            CACHES={"default": LOCMEM, **caches},
            CACHE_MIDDLEWARE_SECONDS=LIFETIME,
            MIDDLEWARE=[
                "django.middleware.cache.UpdateCacheMiddleware",
                "django.middleware.cache.FetchFromCacheMiddleware",
            ],
        )
        django.setup()
    settings.CACHE_MIDDLEWARE_ALIAS = alias  # each middleware reads it when it is made
    application: App = get_wsgi_application()
    return application
