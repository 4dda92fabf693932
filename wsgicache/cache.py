"""`WSGICache`: the middleware with what its operators use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from werkzeug.wrappers import Response

from .admin.endpoint import Endpoint
from .admin.guard import Guard
from .config import configure
from .engine import Engine
from .explain import Explanation, explain
from .follow import Follower
from .options import OptionError, Settings
from .passing import App, Environ, StartResponse
from .purge import Purges, QueryForms
from .rules import Rule, RuleSet
from .stores import Store
from .wsgi import Middleware


class Operators(Protocol):
    """A small app for operators, beside the wrapped one."""

    def takes(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request is for it and not for the app."""
        ...

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        ...


class WSGICache(Purges, Middleware):
    """Cache whole responses of a WSGI app.

    `app.wsgi_app = WSGICache(app.wsgi_app)` is all that a site needs: memory store, 300 seconds, `safe`
    profile. Every option is described in `docs/options.md`.

    Args:
        app: any WSGI app.
        store: a store URL or a `Store`.
        options: ttl, rules, profile, namespace, enabled and the rest of the option table.

    Raises:
        OptionError: an unknown option or a bad value.
    """

    def __init__(self, app: App, store: str | Store = "memory://", **options: Any) -> None:
        self._furnish(app, *configure({"store": store, **options}))

    def _furnish(self, app: App, settings: Settings, rules: Iterable[Rule]) -> None:
        path, method = settings.admin_path, settings.purge_method
        operators: list[Operators] = []
        if settings.dashboard:
            operators.append(_dashboard(self, settings))
        if path is not None or method:
            guard = Guard(settings.secret, "purge_method" if path is None else "admin_path")
            operators.append(Endpoint(self, guard, path, purge_method=method))
        if operators:
            self._operators = operators
            self._serve = self._serve_operators  # type: ignore[method-assign]
        Middleware.__init__(self, _callable(app), Engine(settings, RuleSet(rules)))

    def _serve_operators(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """What `_serve` is where something is answered beside the app: others do not pay for asking."""
        for app in self._operators:
            if app.takes(environ):
                return app(environ, start_response)
        return Middleware._serve(self, environ, start_response)

    @classmethod
    def from_settings(cls, app: App, settings: Settings, rules: Iterable[Rule] = ()) -> WSGICache:
        """A cache from typed settings, as the ini reader makes them."""
        cache = cls.__new__(cls)
        cache._furnish(app, settings, rules)
        return cache

    @classmethod
    def from_mapping(cls, app: App, mapping: Mapping[str, Any], **options: Any) -> WSGICache:
        """A cache from `WSGICACHE_…` keys of a mapping, such as `app.config`; keywords beat it.

        Raises:
            OptionError: an unknown `WSGICACHE_…` key or a bad value.
        """
        settings, rules = configure(options, mapping=mapping)
        return cls.from_settings(app, settings, rules)

    @classmethod
    def from_env(
        cls,
        app: App,
        environ: Mapping[str, str] | None = None,
        *,
        mapping: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> WSGICache:
        """A cache from `WSGICACHE_…` environment variables; a mapping beats them, keywords beat both.

        Raises:
            OptionError: an unknown `WSGICACHE_…` variable or a bad value.
        """
        variables = os.environ if environ is None else environ
        settings, rules = configure(options, mapping=mapping, environ=variables)
        return cls.from_settings(app, settings, rules)

    # --- purge: the methods are those of `Purges` --------------------------------------------------

    def _followers(self) -> Sequence[Follower]:
        return self.engine.followers

    def _now(self) -> float:
        return self.engine.clock.wall()

    def _query_forms(self) -> QueryForms:
        plans = self.engine.plans
        forms = frozenset({(plan.ignore_query, plan.query == "sort") for plan in plans})
        return QueryForms(forms, certain=not self.engine.settings.no_vary_search)

    # --- looking -----------------------------------------------------------------------------------

    @property
    def rules(self) -> RuleSet:
        """The rules, to look at and to switch: `cache.rules.disable("admin")`."""
        return self.engine.rules

    @property
    def store(self) -> Store:
        """The store."""
        return self.engine.store

    def explain(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Explanation:
        """Why a request would be a hit, a miss or a bypass; nothing is changed and the app is not called.

        Args:
            url: a path (host `localhost`, unless `headers` has a Host) or an absolute URL.
            method: the request's method.
            headers: the request's fields.

        Raises:
            ValueError: the text is neither a path nor an absolute URL, or method or headers are none.
        """
        return explain(self.engine, url, method, headers or {})

    def stats(self) -> dict[str, Any]:
        """Counters of this process since it started, and the store's numbers."""
        return {**self.engine.observer.stats(), "store": dict(self.store.stats())}

    def metrics(self) -> Response:
        """The numbers of all workers where they share a store, else of this one, as Prometheus reads them.

        Raises:
            ImportError: prometheus-client is not installed; the message names the extra.
        """
        from . import metrics

        return Response(metrics.exposition(self), content_type=metrics.CONTENT_TYPE)

    def close(self) -> None:
        """Let go of the store. The cache must not be used afterwards."""
        self.engine.close()


def _dashboard(cache: WSGICache, settings: Settings) -> Operators:
    """The dashboard.

    Raises:
        OptionError: something that it needs is missing; the message says the remedy.
    """
    if settings.admin_path is None:
        raise OptionError("dashboard = True needs a path of its own: admin_path = /.cache")
    guard = Guard(settings.secret, "dashboard")
    try:
        from .admin.dashboard import Dashboard
    except ImportError as error:
        raise OptionError(f"dashboard = True: {error}") from None
    return Dashboard(cache, guard, settings.admin_path, settings.admin_auth)


def _callable(app: App) -> App:
    if not callable(app):
        raise TypeError(f"{app!r} is no WSGI app: it cannot be called; for Flask, give app.wsgi_app")
    return app
