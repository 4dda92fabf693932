"""`Cache`: the extension object."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from flask import Flask

from .arguments import normalized, signature_of
from .cached import CachedView, QueryArgs
from .calls import Ask
from .decorated import Groups, Terms, group_keys
from .functions import AnyCached, AnyMemoized, CachedFunction, MemoizedFunction
from .jinja2ext import JINJA_CACHE_ATTR_NAME, CacheExtension
from .link import Link
from .memoize import Memoized, delete_memoized, delete_versions, version_name
from .opening import open_backend
from .refresher import Refresher
from .settings import DEFAULTS, Config, settings_for
from .statistics import Statistics
from .timeouts import Timeout
from .values import Values

P = ParamSpec("P")
R = TypeVar("R")


class Cache(Values):
    """A data cache for Flask apps: decorators, fragments, values.

    Args:
        app: set up at once for this app; else call `init_app`.
        with_jinja2_ext: install the `{% cache %}` tag.
        config: `CACHE_…` keys; they beat the app's config.

    Raises:
        ValueError: `config` is no dict, or a key has a value that cannot work.
    """

    def __init__(
        self, app: Flask | None = None, with_jinja2_ext: bool = True, config: Config | None = None
    ) -> None:
        if config is not None and not isinstance(config, dict):
            raise ValueError("config must be a dict or None")
        self.with_jinja2_ext = with_jinja2_ext
        self.config = config
        self.source_check: bool = False
        self.enable_signals: bool = False
        self.hash_method: Callable[..., Any] = DEFAULTS["CACHE_HASH_METHOD"]
        self.serializer: Any = None
        self.statistics = Statistics(self)
        self.refresher = Refresher()
        self._links: WeakKeyDictionary[Flask, Link] = WeakKeyDictionary()
        self._only: Link | None = None
        if app is not None:
            self.init_app(app, config)

    def init_app(self, app: Flask, config: Config | None = None) -> None:
        """Set the cache up for an app; may be called for several.

        Args:
            app: the app.
            config: `CACHE_…` keys; they beat the constructor's, which beat the app's config.

        Raises:
            ValueError: `config` is no dict, or a key has a value that cannot work.
        """
        if config is not None and not isinstance(config, dict):
            raise ValueError("config must be a dict or None")
        settings = settings_for(app.config, {**(self.config or {}), **(config or {})})
        backend = open_backend(app, settings)
        app.extensions.setdefault("cache", {})[self] = backend
        self.app = app
        self.source_check = bool(settings["CACHE_SOURCE_CHECK"])
        self.enable_signals = bool(settings["CACHE_ENABLE_SIGNALS"])
        self.hash_method = settings["CACHE_HASH_METHOD"]
        self.serializer = settings["CACHE_SERIALIZER"]
        extensions = app.extensions["cache"]
        link = self._links[app] = Link(app, settings, lambda: extensions[self])
        self._only = link if len(self._links) == 1 else None
        if self.with_jinja2_ext:
            setattr(app.jinja_env, JINJA_CACHE_ATTR_NAME, self)
            app.jinja_env.add_extension(CacheExtension)

    # --- decorators --------------------------------------------------------------------------------

    def cached(
        self,
        timeout: Timeout | Callable[..., Timeout] = None,
        key_prefix: str | Callable[[], str] = "view/%s",
        unless: Ask | None = None,
        forced_update: Ask | None = None,
        is_stale: Ask | None = None,
        response_filter: Ask | None = None,
        query_string: bool = False,
        hash_method: Callable[..., Any] | None = None,
        cache_none: bool = False,
        make_cache_key: Ask | None = None,
        source_check: bool | None = None,
        response_hit_indication: bool | None = False,
        *,
        stale_while_revalidate: Timeout = 0,
        jitter: Timeout = 0,
        groups: Groups = None,
    ) -> Callable[[Callable[P, R]], CachedFunction[P, R]]:
        """Keep what a view, or any function, returns.

        Args:
            timeout: seconds or a timedelta; None is the default; a callable is asked with the result.
            key_prefix: `%s` stands for the request's path; a text without it is the whole key; a callable
                without arguments gives the key.
            unless: the answer True bypasses the cache; called with the function and the call's arguments
                if it takes any.
            forced_update: the answer True computes anew; called with the call's arguments if it takes any.
            is_stale: called on a hit with the value and the call's arguments; True computes anew.
            response_filter: called with the result; something false means: do not keep it.
            query_string: the key depends on the query's arguments, in any order.
            hash_method: makes digests for keys; None takes `CACHE_HASH_METHOD`.
            cache_none: a None that was returned is a result like any other.
            make_cache_key: called with the view's arguments, gives the whole key, and so says how other
                methods than GET and HEAD are keyed.
            source_check: the function's source is part of the key; None takes `CACHE_SOURCE_CHECK`.
            response_hit_indication: a hit carries the field `hit_cache: True`.
            stale_while_revalidate: seconds after the timeout in which the old result is answered while a
                thread computes a new one.
            jitter: seconds by which the timeout is shortened at random, so that entries made together
                expire apart.
            groups: names, or a callable of the arguments that gives them, for `purge_groups`.
        """
        terms = Terms(
            timeout=timeout, unless=unless, forced_update=forced_update, is_stale=is_stale,
            response_filter=response_filter, hash_method=hash_method, cache_none=cache_none,
            source_check=source_check, stale_while_revalidate=stale_while_revalidate, jitter=jitter,
            groups=groups,
        )  # fmt: skip

        def decorate(f: Callable[P, R]) -> CachedFunction[P, R]:
            view = CachedView(
                self, f, terms, key_prefix=key_prefix, query_string=query_string,
                make_cache_key=make_cache_key, response_hit_indication=bool(response_hit_indication),
            )  # fmt: skip
            wrapper: CachedFunction[P, R] = view.wrapper
            return wrapper

        return decorate

    def memoize(
        self,
        timeout: Timeout | Callable[..., Timeout] = None,
        make_name: Callable[[str], str] | None = None,
        unless: Ask | None = None,
        forced_update: Ask | None = None,
        is_stale: Ask | None = None,
        response_filter: Ask | None = None,
        hash_method: Callable[..., Any] | None = None,
        cache_none: bool = False,
        source_check: bool | None = None,
        args_to_ignore: Iterable[str] | None = None,
        *,
        stale_while_revalidate: Timeout = 0,
        jitter: Timeout = 0,
        groups: Groups = None,
    ) -> Callable[[Callable[P, R]], MemoizedFunction[P, R]]:
        """Keep what a function returns, by its arguments.

        Every spelling of a call shares its result; arguments of different types never do. A method's
        results belong to its instance: `__caching_id__()` or `__repr__()` says which one that is.

        Args:
            make_name: called with the function's name, gives the one for the key.
            args_to_ignore: names of arguments, `self` too, that results do not depend on.
            timeout, unless, forced_update, is_stale, response_filter, hash_method, cache_none, source_check,
                stale_while_revalidate, jitter, groups: see `cached`.
        """
        terms = Terms(
            timeout=timeout, unless=unless, forced_update=forced_update, is_stale=is_stale,
            response_filter=response_filter, hash_method=hash_method, cache_none=cache_none,
            source_check=source_check, stale_while_revalidate=stale_while_revalidate, jitter=jitter,
            groups=groups,
        )  # fmt: skip

        def decorate(f: Callable[P, R]) -> MemoizedFunction[P, R]:
            memoized = Memoized(self, f, terms, make_name=make_name, args_to_ignore=args_to_ignore)
            wrapper: MemoizedFunction[P, R] = memoized.wrapper
            return wrapper

        return decorate

    def get_or_set(self, key: str, make: Callable[[], R], timeout: Timeout = None) -> R:
        """The value of a key, or what `make` gives, which is then kept; once for all who ask now.

        Args:
            key: any text.
            make: a function, called where there is no value. None is not kept.
            timeout: see `set`.
        """
        found: R | None = self.get(key)
        return self.cached(timeout, make_cache_key=lambda: key)(make)() if found is None else found

    # --- forget ------------------------------------------------------------------------------------

    def delete_memoized(self, f: AnyMemoized, *args: Any, **kwargs: Any) -> None:
        """Forget what a memoized function returned.

        Args:
            f: the function, or a method: bound to an instance it means that instance only.
            args: forget the call with these arguments only; without any, every call.
            kwargs: arguments by name.

        Raises:
            TypeError: `f` is a name, or not memoized.
            ValueError: the instance or the class of a method is missing.
            Unavailable: the backend could not be reached.
        """
        delete_memoized(self, f, args, kwargs)

    def delete_memoized_verhash(self, f: AnyMemoized, *args: Any) -> None:
        """Drop the version of a memoized function, and with it every result.

        Args:
            f: the function or method.
            args: the instance, for a method reached through its class.

        Raises:
            TypeError: `f` is a name, or not memoized.
            Unavailable: the backend could not be reached.
        """
        delete_versions(self, f, args)

    def delete_cached(
        self, f: AnyCached, path: str | None = None, query_args: QueryArgs = None, **kwargs: Any
    ) -> bool:
        """Forget what a cached view returned.

        Args:
            f: the view.
            path: of the URL; None works it out from the view's arguments.
            query_args: the query as a string, mapping or pairs.
            kwargs: the view's arguments.

        Returns:
            Whether there was something to forget.
        """
        given: dict[str, Any] = {"path": path, "query_args": query_args}
        if getattr(f.make_cache_key, "__func__", None) is not CachedView.make_cache_key:
            given = {}  # the application's own: it knows only the view's arguments
        return self.delete(f.make_cache_key(**given, **kwargs))

    def purge_groups(self, *groups: str) -> None:
        """Forget whatever carries one of the groups, in constant time.

        The site's page cache, if `SiteCache` linked it, forgets the group too.

        Raises:
            Unavailable: the backend could not be reached.
        """
        site = self.link.app.extensions.get("wsgicache")
        try:
            self.forget_groups(*groups)
        finally:
            if site is not None:
                site.pages.purge_groups(*groups)

    def forget_groups(self, *groups: str) -> None:
        """As `purge_groups`, in this cache only.

        Raises:
            Unavailable: the backend could not be reached.
        """
        link = self.link
        link.insisted(lambda: link.forget_versions(group_keys(groups)))

    def delete_prefix(self, prefix: str) -> None:
        """Forget every key that begins with a text, in constant time.

        Raises:
            Unavailable: the backend could not be reached.
        """
        link = self.link
        link.flights.void_all(prefix)
        link.insisted(lambda: link.purge_prefix(prefix))

    # --- numbers -----------------------------------------------------------------------------------

    def stats(self) -> dict[str, dict[str, Any]]:
        """Hits, misses and hit ratio by decorated function; of all workers where the backend is shared."""
        return self.statistics.read()

    # --- names that applications know --------------------------------------------------------------

    def _memvname(self, name: str) -> str:
        return version_name(name)

    def _memoize_kwargs_to_args(
        self, f: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return normalized(signature_of(f), args, kwargs)
