"""What a cached view may answer and keep, unless `CACHE_SAFE_VIEWS` is False.

Kept is never: a response with `Set-Cookie` or a changed session, a 5xx, a 304, what a HEAD got, what is
read from a file while it is sent.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from flask import Response, after_this_request, current_app, has_request_context, request
from werkzeug.datastructures import Headers

from .forms import Raised
from .sessions import session_at_hand

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})
_METHODS: Final = ("dispatch_request", "get", "head", "post", "put", "delete", "patch", "options")
_NOT_KEPT: Final = frozenset({304, 206})


def may_keep(value: Any, *, keyed: bool) -> bool:
    """Whether a view's result may be given to others.

    Args:
        keyed: the application makes the key itself, so a HEAD has one of its own if it wants.
    """
    if request.method == "HEAD" and not keyed:
        return False
    return not _session_changed() and not is_personal_or_fault(value)


def is_personal_or_fault(value: Any) -> bool:
    """Whether a view's result sets a cookie, or is a 5xx, 304 or 206."""
    status, headers = _head_of(value)
    if status is not None and (status >= 500 or status in _NOT_KEPT):
        return True
    return headers is not None and "set-cookie" in headers


def _head_of(value: Any) -> tuple[int | None, Headers | None]:
    """Status and fields of a view's result, as far as it states them."""
    if isinstance(value, Raised):
        inner = value.error.response
        return value.error.code, inner.headers if isinstance(inner, Response) else None
    if isinstance(value, Response):
        return value.status_code, value.headers
    if not isinstance(value, tuple):
        return None, None
    status, headers = _head_of(value[0]) if value else (None, None)
    for part in value[1:]:
        if isinstance(part, int):
            status = part
        elif isinstance(part, str):
            status = int(part.split(None, 1)[0])
        elif isinstance(part, Mapping | list | tuple | Headers):
            headers = _joined(headers, part)
    return status, headers


def _joined(headers: Headers | None, more: Any) -> Headers:
    joined = Headers(headers)
    joined.extend(more)
    return joined


def is_file(value: Any) -> bool:
    """Whether a result is read from a file while it is sent, as `send_file` does."""
    body = value[0] if isinstance(value, tuple) and value else value
    return isinstance(body, Response) and body.direct_passthrough


@contextmanager
def watched_session() -> Iterator[None]:
    """Around a view: note whether the view itself changes the session."""
    if not has_request_context():
        yield
        return
    session = session_at_hand()
    before = session is not None and session.modified
    if session is not None and before:
        session.modified = False
    try:
        yield
    finally:
        if session is not None and session.modified:
            request.environ["wsgicache.flask.session"] = True
        elif session is not None and before:
            session.modified = True


def _session_changed() -> bool:
    return bool(request.environ.pop("wsgicache.flask.session", False))


# --- conditionals -----------------------------------------------------------------------------------


def answer_conditionals(value: Any) -> None:
    """Let the response to this request carry an ETag, and answer 304 where the client has it."""
    if request.method not in SAFE_METHODS or is_file(value):
        return
    after_this_request(conditional)


def conditional(response: Response) -> Response:
    """A whole response with its ETag, or 304 where the client has it."""
    if response.status_code != 200 or response.is_streamed or response.direct_passthrough:
        return response
    if "set-cookie" in response.headers or _session_in_use():
        return response
    response.add_etag()
    response.make_conditional(request)
    return response


def _session_in_use() -> bool:
    session = session_at_hand()
    return session is not None and bool(session.modified)


# --- views ------------------------------------------------------------------------------------------


def is_view(wrapper: Callable[..., Any], endpoint: str | None) -> bool:
    """Whether a decorated function, or a class whose method it is, is registered for an endpoint."""
    view = current_app.view_functions.get(endpoint or "")
    return view is not None and _leads_to(view, wrapper)


def _leads_to(view: Any, wrapper: Callable[..., Any]) -> bool:
    owner = getattr(view, "view_class", None)
    while view is not None:
        if view is wrapper:
            return True
        view = getattr(view, "__wrapped__", None)
    methods = [getattr(owner, name, None) for name in _METHODS] if owner is not None else []
    return any(method is not None and _leads_to(method, wrapper) for method in methods)


def path_for(wrapper: Callable[..., Any], values: Mapping[str, Any]) -> str:
    """The path of the URL under which a view is registered."""
    endpoint = _endpoint_of(wrapper)
    return current_app.url_map.bind("localhost").build(endpoint, dict(values)).partition("?")[0]


def _endpoint_of(wrapper: Callable[..., Any]) -> str:
    for endpoint, view in current_app.view_functions.items():
        if _leads_to(view, wrapper):
            return endpoint
    return str(inspect.unwrap(wrapper).__name__)
