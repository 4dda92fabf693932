"""The Jinja tag: `{% cache timeout, name, vary… %} … {% endcache %}`.

The timeout is a number of seconds, None (the default timeout) or 'del', which deletes the fragment and
renders it. Without a name the fragment is named after its template and line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser

from .timeouts import normalize_timeout
from .utils import make_template_fragment_key

if TYPE_CHECKING:
    from .cache import Cache

JINJA_CACHE_ATTR_NAME: Final = "_template_fragment_cache"


class CacheExtension(Extension):
    """Adds the tag to an environment that has a cache as `_template_fragment_cache`."""

    tags = {"cache"}  # noqa: RUF012 - Jinja's own declaration

    def parse(self, parser: Parser) -> nodes.Node:
        """Read one tag with its body."""
        line = next(parser.stream).lineno
        arguments = [parser.parse_expression()]
        while parser.stream.skip_if("comma"):
            arguments.append(parser.parse_expression())
        if len(arguments) == 1:
            arguments.append(nodes.Const(f"{parser.filename}{line}"))
        timeout, name, *varying = arguments
        body = parser.parse_statements(("name:endcache",), drop_needle=True)
        call = self.call_method("_cache", [timeout, name, nodes.List(varying)])
        return nodes.CallBlock(call, [], [], body).set_lineno(line)

    def _cache(self, timeout: Any, name: Any, varying: list[Any], caller: Callable[[], str]) -> str:
        cache: Cache = getattr(self.environment, JINJA_CACHE_ATTR_NAME)
        key = make_template_fragment_key(str(name), varying)
        if timeout == "del":
            cache.delete(key)
            return caller()
        found = cache.get(key)
        if found is None:
            return _rendered(cache, key, normalize_timeout(timeout), caller)
        return found if isinstance(found, str) else caller()


def _rendered(cache: Cache, key: str, timeout: int | None, render: Callable[[], str]) -> str:
    """Render a fragment and keep it, once for all threads that want it now."""
    link = cache.link
    flights = link.flights
    flight, leads = flights.board(key) if link.collapses else (flights.go_alone(key), True)
    if not leads:
        found = cache.get(key) if flights.wait(flight, link.wait_timeout) else None
        if isinstance(found, str):
            return found
        flight = flights.go_alone(key)
    try:
        text = render()
        if not flight.void:  # deleted meanwhile: what it was made of may be out of date
            cache.set(key, text, timeout=timeout)
        return text
    finally:
        flights.land(key, flight)
