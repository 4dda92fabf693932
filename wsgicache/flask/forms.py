"""Responses and HTTP errors as plain data, so that they travel without pickle."""

from __future__ import annotations

from typing import Any, Final

from flask import Response
from werkzeug.exceptions import HTTPException, default_exceptions

from .response import CachedResponse

Form = tuple[Any, ...]

_CLASSES: Final[tuple[type[Response], ...]] = (Response, CachedResponse)
_STATE: Final = frozenset(
    {"headers", "_status", "_status_code", "direct_passthrough", "_on_close", "response", "timeout"}
)

_ERROR_STATE: Final = frozenset({"description", "response"})


class Raised:
    """An HTTP error that a view raised: a hit raises it again."""

    __slots__ = ("error",)

    def __init__(self, error: HTTPException) -> None:
        self.error = error


def response_form(response: Response) -> Form | None:
    """A response as plain data; None where its class or state says more than that could hold."""
    if type(response) not in _CLASSES or not _is_plain(response):
        return None
    return (
        _CLASSES.index(type(response)),
        response.status,
        tuple(response.headers.to_wsgi_list()),
        response.get_data(),
        getattr(response, "timeout", None),
    )


def _is_plain(response: Response) -> bool:
    return not response.direct_passthrough and vars(response).keys() <= _STATE


def response_from(form: Form) -> Response:
    """A new response from what `response_form` made."""
    index, status, headers, body, timeout = form
    response = Response(body, status=status)
    response.headers.clear()
    response.headers.extend(list(headers))
    return CachedResponse(response, timeout) if _CLASSES[index] is CachedResponse else response


def error_form(error: HTTPException) -> Form | None:
    """An HTTP error as plain data; None where it carries more than a code, a text and a response."""
    known = default_exceptions.get(error.code or 0)
    if type(error) is not known or not vars(error).keys() <= _ERROR_STATE:
        return None
    if error.description is not None and type(error.description) is not str:
        return None
    if error.response is None:
        return (error.code, error.description, None)
    response = response_form(error.response) if isinstance(error.response, Response) else None
    return None if response is None else (error.code, error.description, response)


def error_from(form: Form) -> HTTPException:
    """A new HTTP error from what `error_form` made."""
    code, description, response = form
    error = default_exceptions[code](description=description)
    if response is not None:
        error.response = response_from(response)
    return error
