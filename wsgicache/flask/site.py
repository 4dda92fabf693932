"""`SiteCache`: the page cache around a Flask app, in one line, and what the app's views say to it."""

from __future__ import annotations

import functools
import inspect
import logging
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from string import Formatter
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flask import Flask, current_app, g, has_request_context, request

from ..cache import WSGICache
from ..explain import Explanation
from ..hints import HINTS, Hints
from ..passing import Environ, Header, StartResponse
from ..purge import Purged
from .arguments import signature_of
from .commands import commands
from .link import Unavailable
from .models import PurgeOnCommit
from .sessions import FLASK_TRACKS, TrackingInterface, session_at_hand, was_accessed
from .timeouts import Timeout, seconds
from .viewcounts import ViewCounts

if TYPE_CHECKING:
    from .cache import Cache

P = ParamSpec("P")
R = TypeVar("R")
_MARK = "_wsgicache_page"
_OWN = "_wsgicache_own"

log = logging.getLogger("wsgicache.flask")


@dataclass(frozen=True)
class Page:
    """What a view's decorators say of its pages."""

    ttl: int | None = None
    bypass: bool = False
    groups: tuple[str, ...] = field(default=())


class SiteCache:
    """The page cache of a Flask app: `SiteCache(app)` wraps `app.wsgi_app`.

    Options come from `WSGICACHE_…` keys of `app.config`; keywords beat them.

    Args:
        app: the app; None waits for `init_app`.
        cache: the data cache, so that one purge of a group clears both. It is found by itself when it was
            set up for the same app.
        logged_in: says whether the request at hand is a logged-in visitor's. Flask-Login is known already.
        options: as of `wsgicache.WSGICache`.

    Raises:
        OptionError: an unknown option or a bad value.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        cache: Cache | None = None,
        logged_in: Callable[[], bool] | None = None,
        **options: Any,
    ) -> None:
        self._data_cache = cache
        self._logged_in = logged_in
        self._options = options
        self._pages: WSGICache | None = None
        self._purger = PurgeOnCommit(lambda groups: self.purge_groups(*groups))
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Wrap an app.

        Raises:
            RuntimeError: this object wraps an app already.
            OptionError: an unknown option or a bad value.
        """
        if self._pages is not None:
            raise RuntimeError("a SiteCache wraps one app; make another for the next")
        self._pages = WSGICache.from_mapping(_Listening(self, app), app.config, **self._options)
        self._views = ViewCounts(app, self._pages.engine)
        app.wsgi_app = self._pages  # type: ignore[method-assign]
        app.extensions["wsgicache"] = self
        app.cli.add_command(commands)
        if not FLASK_TRACKS:
            app.session_interface = TrackingInterface(app.session_interface)
        self._app = app

    @property
    def pages(self) -> WSGICache:
        """The page cache itself.

        Raises:
            RuntimeError: there is no app yet.
        """
        if self._pages is None:
            raise RuntimeError("this SiteCache has no app yet: call init_app(app)")
        return self._pages

    # --- decorators --------------------------------------------------------------------------------

    def ttl(self, timeout: Timeout) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """The view's pages stay fresh so long, if nothing forbids storing them. Below `@app.route`.

        Args:
            timeout: seconds or a timedelta.
        """
        lifetime = seconds(0 if timeout is None else timeout)
        return lambda view: _marked(view, ttl=lifetime)

    def bypass(self, view: Callable[P, R]) -> Callable[P, R]:
        """The view's pages are never stored. Below `@app.route`."""
        return _marked(view, bypass=True)

    def groups(self, *names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """The view's pages carry these groups. Below `@app.route`.

        Args:
            names: names, in which `{argument}` stands for an argument of the view.

        Raises:
            ValueError: a name asks for an argument that the view does not take.
        """
        return lambda view: _marked(view, groups=_checked(names, view))

    # --- purge -------------------------------------------------------------------------------------

    def purge(self, *urls: str, soft: bool = False) -> Purged:
        """Purge pages by URL; see `WSGICache.purge`."""
        return self.pages.purge(*urls, soft=soft)

    def purge_prefix(self, *prefixes: str, soft: bool = False) -> Purged:
        """Purge paths and what is below them; see `WSGICache.purge_prefix`."""
        return self.pages.purge_prefix(*prefixes, soft=soft)

    def purge_groups(self, *groups: str, soft: bool = False) -> Purged:
        """Purge groups in both caches; see `WSGICache.purge_groups`.

        The data caches go first: a page that is made anew must not be made of what they still have.

        Args:
            groups: names of groups.
            soft: mark pages as stale instead; what is in the data caches is gone in any case.

        Raises:
            Unavailable: a data cache could not be reached; the pages are purged all the same.
        """
        try:
            self.purge_data(*groups)
        finally:
            purged = self.pages.purge_groups(*groups, soft=soft)
        return purged

    def clear(self, *, soft: bool = False) -> Purged:
        """Purge every page."""
        return self.pages.clear(soft=soft)

    def purge_on(self, model: type, groups: Callable[[Any], Iterable[str]], session: Any = None) -> None:
        """Purge groups, in both caches, when an object of a SQLAlchemy model is added, changed or deleted.

        It happens after the commit, and not after a rollback. Statements that change rows without loading
        objects (`session.execute(update(…))`) are not seen: purge after them yourself.

        Args:
            model: the mapped class; subclasses count.
            groups: called with the object, gives names of groups.
            session: the session, session factory or class to watch; None watches every session.
        """
        self._purger.watch(model, groups, session)

    def purge_data(self, *groups: str) -> None:
        """Purge groups in the data caches only.

        Raises:
            Unavailable: a backend could not be reached; the others are purged all the same.
        """
        failed: Unavailable | None = None
        with self._app.app_context():
            for cache in self._data_caches():
                try:
                    cache.forget_groups(*groups)
                except Unavailable as error:
                    failed = error
        if failed is not None:
            raise failed

    def _data_caches(self) -> Iterable[Cache]:
        if self._data_cache is not None:
            return (self._data_cache,)
        return tuple(self._app.extensions.get("cache", {}))

    # --- look --------------------------------------------------------------------------------------

    def explain(self, url: str, **request: Any) -> Explanation:
        """Why a request would be a hit, a miss or a bypass; see `WSGICache.explain`."""
        return self.pages.explain(url, **request)

    def stats(self) -> dict[str, Any]:
        """The numbers of both caches.

        Returns:
            `pages`: the page cache of this process; `views`: its hits, misses, calls of the app and hit ratio
            by endpoint; `data`: hits, misses and hit ratio of the data caches by decorated function. The
            last two are of all workers where the store, and the backend, is shared.
        """
        data = self._stats_of(self._data_caches())
        return {"pages": self.pages.stats(), "views": self._views.read(), "data": data}

    @property
    def is_shared(self) -> bool:
        """Whether other processes see the same pages."""
        return bool(getattr(self.pages.store, "shared", False))

    def shared_data_stats(self) -> dict[str, Any] | None:
        """The data caches' numbers, of those that add their workers up; None where none does."""
        with self._app.app_context():
            shared = [cache for cache in self._data_caches() if cache.statistics.is_shared]
        return self._stats_of(shared) if shared else None

    def _stats_of(self, caches: Iterable[Cache]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        with self._app.app_context():
            for cache in caches:
                found.update(cache.stats())
        return found

    def routes(self) -> list[tuple[str, str, Page]]:
        """Rule, endpoint and what its view's decorators say, of every route."""
        rules = sorted(self._app.url_map.iter_rules(), key=lambda rule: rule.rule)
        views = self._app.view_functions
        return [(rule.rule, rule.endpoint, page_of(views.get(rule.endpoint))) for rule in rules]

    # --- what the app did --------------------------------------------------------------------------

    def note(self, environ: Environ, headers: list[Header]) -> list[Header]:
        """Tell the page cache what this response depends on. Called while the request is at hand."""
        hints = environ.get(HINTS)
        if not isinstance(hints, Hints) or not has_request_context():
            return headers
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        self._views.called(path, request.endpoint)
        if g.get("ignore_cache") or getattr(request, "ignore_cache", False):
            hints.ignore()
        try:
            personal = self._is_logged_in()
        except Exception:
            log.exception("logged_in failed; the page counts as a logged-in visitor's and is not stored")
            personal = True
        if personal:
            hints.private()
        if not was_accessed(session_at_hand()):
            return headers
        cookie = current_app.session_interface.get_cookie_name(current_app)
        if cookie in request.cookies:
            hints.session_accessed = True
            return headers
        return _varying_by_cookie(headers)

    def _is_logged_in(self) -> bool:
        if self._logged_in is not None and self._logged_in():
            return True
        user = g.get("_login_user")  # Flask-Login's
        return user is not None and bool(getattr(user, "is_authenticated", False))


class _Listening:
    """The app's own WSGI callable; what it did is noted when its response begins."""

    def __init__(self, site: SiteCache, app: Flask) -> None:
        self._site = site
        self._app = app.wsgi_app

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        def noting(status: str, headers: list[Header], *exc_info: Any) -> Any:
            return start_response(status, self._site.note(environ, headers), *exc_info)

        return self._app(environ, noting)


def _varying_by_cookie(headers: list[Header]) -> list[Header]:
    """Fields that say that a visitor with a session may get another page."""
    for name, value in headers:
        if name.lower() == "vary" and "cookie" in value.lower():
            return headers
    return [*headers, ("Vary", "Cookie")]


def page_of(view: Any) -> Page:
    """What the decorators of a view say."""
    view = getattr(view, "view_class", view)
    page = getattr(view, _MARK, None) or getattr(getattr(view, "dispatch_request", None), _MARK, None)
    return page if isinstance(page, Page) else Page()


def _marked(view: Callable[P, R], **said: Any) -> Callable[P, R]:
    """A view that tells the page cache what was said of it."""
    before = page_of(view)
    page = replace(before, **said)
    # functools.wraps copies attributes: what a login_required around our wrapper carries is not its own.
    ours = getattr(view, _OWN, None)
    inner: Any = ours[1] if ours is not None and ours[0]() is view else view
    parameters = signature_of(inner).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    wrapper: Any
    if inspect.iscoroutinefunction(inner):

        @functools.wraps(inner)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            _say(page, {**defaults, **kwargs})
            return await inner(*args, **kwargs)
    else:

        @functools.wraps(inner)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            _say(page, {**defaults, **kwargs})
            return inner(*args, **kwargs)

    setattr(wrapper, _OWN, (weakref.ref(wrapper), inner))
    setattr(wrapper, _MARK, page)
    return wrapper  # type: ignore[no-any-return]


def _checked(names: tuple[str, ...], view: Callable[..., Any]) -> tuple[str, ...]:
    """Names of groups whose arguments the view takes.

    Raises:
        ValueError: one asks for another.
    """
    parameters = signature_of(view).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return names
    for name in names:
        for _, asked, _, _ in Formatter().parse(name):
            argument = None if asked is None else asked.partition(".")[0].partition("[")[0]
            if argument is not None and argument not in parameters:
                raise ValueError(
                    f"group {name!r}: {view.__qualname__} takes no argument {argument!r}; write {{{{ and "
                    "}}}} for braces that stand for themselves"
                )
    return names


def _say(page: Page, arguments: dict[str, Any]) -> None:
    hints = request.environ.get(HINTS) if has_request_context() else None
    if not isinstance(hints, Hints):
        return
    if page.bypass:
        hints.ignore()
    if page.ttl is not None:
        hints.lifetime = page.ttl
    try:
        hints.groups.update(name.format(**arguments) for name in page.groups)
    except Exception:
        log.exception("the groups %s could not be named; the page is not stored", page.groups)
        hints.ignore()  # stored without them it would be out of reach of their purges
