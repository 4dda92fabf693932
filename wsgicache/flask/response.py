"""`CachedResponse`: a response that brings its own timeout."""

from flask import Response

from .timeouts import Timeout


class CachedResponse(Response):
    """A view's response with the timeout under which `cached` stores it.

    It takes over the state of the response it is made from.

    Args:
        response: what the view would have returned.
        timeout: seconds or a timedelta; 0 and None fall back to the decorator's timeout.
    """

    timeout: Timeout = None

    def __init__(self, response: Response, timeout: Timeout) -> None:
        self.__dict__.update(vars(response))
        self.timeout = timeout
