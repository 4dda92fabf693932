"""`cached`: a view, or any function, whose result is kept under a key made from the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from flask import (
    Request,
    Response,
    after_this_request,
    has_app_context,
    has_request_context,
    make_response,
    request,
)
from werkzeug.exceptions import HTTPException

from . import safety
from .arguments import signature_of
from .calls import Ask, source_of
from .decorated import Call, Decorated, Terms
from .forms import Raised
from .signals import cache_view_hit, cache_view_miss
from .statistics import REPORTING_MASK

if TYPE_CHECKING:
    from .cache import Cache

QueryArgs = str | Mapping[str, Any] | Iterable[tuple[str, Any]] | None

_current: Callable[[], Request] = request._get_current_object  # type: ignore[attr-defined]


def _request_at_hand() -> Any:
    return _current() if has_request_context() else None


class CachedView(Decorated):
    """A function that `cached` decorates; see `Cache.cached` for the arguments."""

    hit = cache_view_hit
    miss = cache_view_miss

    def __init__(
        self,
        cache: Cache,
        f: Callable[..., Any],
        terms: Terms,
        *,
        key_prefix: str | Callable[[], str],
        query_string: bool,
        make_cache_key: Ask | None,
        response_hit_indication: bool,
    ) -> None:
        self._key_prefix = key_prefix
        self._query_string = query_string
        self._make_cache_key = make_cache_key
        self._indicates = response_hit_indication
        self._by_path = isinstance(key_prefix, str) and "%s" in key_prefix
        self._endpoints: dict[str | None, bool] = {}
        super().__init__(cache, f, terms)
        fixed = make_cache_key is None and not query_string and isinstance(key_prefix, str)
        self._short = fixed and self.is_plain and not terms.source_check
        self._attributes = self.wrapper.__dict__
        self.wrapper.make_cache_key = self._own_key = self.make_cache_key

    # --- the short way -------------------------------------------------------------------------------

    def _answer(self, args: Any, kwargs: Any) -> Any:
        """A hit of a function with nothing unusual about it, in one step; else the long way.

        It is one function, without helpers, because each call costs as much here as reading a value.
        """
        cache = self.cache
        link = cache._only
        if not self._short or link is None or cache.source_check or cache.enable_signals:
            return super()._answer(args, kwargs)
        if self._attributes["make_cache_key"] is not self._own_key:
            return super()._answer(args, kwargs)
        at = _request_at_hand()
        is_view = False
        if at is None:
            if self._by_path or self._indicates:
                return super()._answer(args, kwargs)
        elif link.safe_views:
            if at.method != "GET":
                return super()._answer(args, kwargs)
            known = self._endpoints.get(at.endpoint)
            is_view = self._is_view() if known is None else known
        prefix: Any = self._key_prefix
        key: str = prefix % at.path if self._by_path else prefix
        landings = link.flights.landings
        try:
            found = cache.get(key)
        except Exception as error:
            self._backend_failed(error)
            found = None
        if found is None:
            return self._missed(key, landings, args, kwargs)
        if self._count_hit() & REPORTING_MASK == 0:
            cache.statistics.report_now_and_then()
        if is_view:
            after_this_request(safety.conditional)
        return self._dressed(found, True) if self._indicates or type(found) is Raised else found

    def _missed(self, key: str, landings: int, args: Any, kwargs: Any) -> Any:
        call = Call(key, (), args, kwargs)
        call.landings = landings
        stored_none = self.terms.cache_none and self.cache.has(key)
        self._account(call, stored_none)
        return None if stored_none else self.delivered(self._compute(call), False)

    # --- keys ----------------------------------------------------------------------------------------

    def key_of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of the call at hand."""
        replaced = self.wrapper.make_cache_key
        if replaced is not self._own_key:
            return str(replaced(*args, **kwargs))
        if self._make_cache_key is not None:
            return str(self._make_cache_key(*args, **kwargs))
        return self._key(request.path if self._by_path else "", None)

    def make_cache_key(
        self, *args: Any, path: str | None = None, query_args: QueryArgs = None, **kwargs: Any
    ) -> str:
        """The key of a call, in a request or outside.

        Args:
            args: the view's arguments.
            path: of the URL; None works it out from the view's arguments, or else takes the request's.
            query_args: a query string, mapping or pairs; None takes the request's.
            kwargs: the view's arguments by name.
        """
        if self._make_cache_key is not None and path is None:
            return str(self._make_cache_key(*args, **kwargs))
        if path is None and self._by_path:
            path = self._path_for(args, kwargs)
        return self._key(path or "", query_args)

    def _path_for(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        if has_request_context() and not args and not kwargs:
            return request.path
        names = list(signature_of(self.f).parameters)
        values = {**dict(zip(names, args, strict=False)), **kwargs}
        return safety.path_for(self.wrapper, values)

    def _key(self, path: str, query_args: QueryArgs) -> str:
        prefix = self._key_prefix
        key = prefix() if callable(prefix) else (prefix % path if self._by_path else prefix)
        if self._query_string:
            key += self._digest(str(_sorted_pairs(query_args)).encode())
        source_check = self.terms.source_check
        if self.cache.source_check if source_check is None else source_check:
            key += self._digest(source_of(self.f))
        return key

    def _digest(self, data: bytes) -> str:
        make = self.terms.hash_method or self.cache.hash_method
        return str(make(data).hexdigest())

    # --- what is safe ----------------------------------------------------------------------------------

    @property
    def _says_how_keyed(self) -> bool:
        return self._make_cache_key is not None or self.wrapper.make_cache_key is not self._own_key

    def may_use_cache(self) -> bool:
        """Whether the request may be answered from the cache: GET and HEAD, or where a key says how."""
        if not has_request_context() or not self.cache.link.safe_views:
            return True
        if request.method in safety.SAFE_METHODS or self._says_how_keyed:
            return True
        return not (self._by_path or self._is_view())

    def may_keep(self, value: Any) -> bool:
        """Whether a result may be kept; see `wsgicache.flask.safety`."""
        if safety.is_file(value):
            return False
        if not has_request_context() or not self.cache.link.safe_views:
            return True
        if self._is_view():
            return safety.may_keep(value, keyed=self._says_how_keyed)
        # Perhaps a view behind a decorator that hides it, perhaps a helper whose tuple is data.
        return isinstance(value, tuple) or not safety.is_personal_or_fault(value)

    def speaks_for_others(self) -> bool:
        """A HEAD is never kept, and says nothing of the GETs that are."""
        return not has_request_context() or request.method != "HEAD"

    def _is_view(self) -> bool:
        """Whether this function answers the request at hand, not one that its view calls."""
        if not has_app_context():
            return False
        if self.cache._only is None:
            return safety.is_view(self.wrapper, request.endpoint)
        known = self._endpoints.get(request.endpoint)
        if known is None:
            known = self._endpoints[request.endpoint] = safety.is_view(self.wrapper, request.endpoint)
        return known

    # --- run and deliver -------------------------------------------------------------------------------

    def run(self, args: Any, kwargs: Any) -> Any:
        """Call the view; an HTTP error that it raises is a result."""
        with safety.watched_session():
            try:
                return super().run(args, kwargs)
            except HTTPException as error:
                return Raised(error)

    async def run_async(self, args: Any, kwargs: Any) -> Any:
        """Call an async view; see `run`."""
        with safety.watched_session():
            try:
                return await super().run_async(args, kwargs)
            except HTTPException as error:
                return Raised(error)

    def delivered(self, value: Any, hit: bool) -> Any:
        """What the caller gets: a stored error is raised again; a view answers conditionals."""
        if has_request_context() and self.cache.link.safe_views and self._is_view():
            safety.answer_conditionals(value)
        return self._dressed(value, hit)

    def _dressed(self, value: Any, hit: bool) -> Any:
        if isinstance(value, Raised):
            raise value.error
        if hit and self._indicates:
            response: Response = make_response(value)
            response.headers["hit_cache"] = "True"
            return response
        return value


def _sorted_pairs(query_args: QueryArgs) -> tuple[tuple[str, str], ...]:
    if query_args is None:
        pairs: Iterable[tuple[str, Any]] = request.args.items(multi=True) if has_request_context() else ()
    elif isinstance(query_args, str):
        pairs = parse_qsl(query_args.removeprefix("?"), keep_blank_values=True)
    elif isinstance(query_args, Mapping):
        pairs = _pairs_of(query_args)
    else:
        pairs = query_args
    return tuple(sorted((str(name), str(value)) for name, value in pairs))


def _pairs_of(mapping: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name in mapping:
        several = mapping.getlist(name) if hasattr(mapping, "getlist") else mapping[name]
        for value in several if isinstance(several, list | tuple) else (several,):
            yield name, value
