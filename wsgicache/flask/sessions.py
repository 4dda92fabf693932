"""Whether the app read its session, which makes a page one visitor's."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from flask import Flask, Request, Response
from flask.ctx import RequestContext
from flask.globals import request_ctx
from flask.sessions import SessionInterface, SessionMixin

_READS: Final = (
    "__getitem__", "__contains__", "__iter__", "__len__", "__eq__", "get", "keys", "items", "values",
    "setdefault", "pop", "popitem",
)  # fmt: skip
FLASK_TRACKS: Final = isinstance(vars(RequestContext).get("session"), property)
"""Whether Flask itself notes every access through `session`; older ones overlook `in`."""


def session_at_hand() -> SessionMixin | None:
    """The session of the request, without counting as an access."""
    state = vars(request_ctx._get_current_object())  # type: ignore[attr-defined]
    return state["_session"] if "_session" in state else state.get("session")


def was_accessed(session: SessionMixin | None) -> bool:
    """Whether the app read or changed the session."""
    return session is not None and bool(session.accessed or session.modified)


class TrackingInterface(SessionInterface):
    """A session interface around another, which notes every kind of reading, `in` too.

    Args:
        inner: the app's own interface.
    """

    def __init__(self, inner: SessionInterface) -> None:
        self._inner = inner

    def open_session(self, app: Flask, request: Request) -> SessionMixin | None:
        """The inner interface's session, tracked."""
        session = self._inner.open_session(app, request)
        if session is not None:
            try:
                session.__class__ = _tracked(type(session))
            except TypeError:
                session.accessed = True  # it cannot be watched, so it counts as read
        return session

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Save by the inner interface, whose own reading does not count."""
        accessed = session.accessed
        base = getattr(type(session), "_wsgicache_base", None)
        if base is not None:
            session.__class__ = base
            session.accessed = accessed
        self._inner.save_session(app, session, response)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@lru_cache(maxsize=32)
def _tracked(base: type) -> type:
    """A subclass whose reading methods set `accessed`."""
    methods = {name: _noting(getattr(base, name)) for name in _READS if hasattr(base, name)}
    return type(base.__name__, (base,), {**methods, "__hash__": None, "_wsgicache_base": base})


def _noting(method: Callable[..., Any]) -> Callable[..., Any]:
    def noting(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.accessed = True
        return method(self, *args, **kwargs)

    return noting
