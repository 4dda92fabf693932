"""A site in the rfc profile: one scripted app, one cache around it, and a clock that stands still."""

from collections.abc import Mapping
from typing import Any

import http_sf

from wsgicache import WSGICache
from wsgicache.fields import http_date
from wsgicache.testing import FakeClock, Reply, Response, ScriptedApp, ask

START = FakeClock().now
"""The instant at which every clock here begins, in seconds."""

DAY = 86400


def at(seconds: float) -> str:
    """The HTTP-date that lies so many seconds after START."""
    return http_date(START + seconds)


def page(
    *lines: str, status: str = "200 OK", body: Any = b"page", error: BaseException | None = None
) -> Response:
    """An answer of an app from field lines such as `"Cache-Control: max-age=60"`."""
    fields = [(name, value.strip(" ")) for name, _, value in (line.partition(":") for line in lines)]
    return Response(status, fields, body, error)


class Site:
    """An app behind a cache.

    Args:
        lines: the fields of its answers, see `page`.
        options: status, body and error of its answers; the rest are options of the cache.
    """

    def __init__(self, *lines: str, **options: Any) -> None:
        shape = {name: options.pop(name) for name in ("status", "body", "error") if name in options}
        self.clock = FakeClock()
        self.app = ScriptedApp(page(*lines, **shape))
        self.cache = WSGICache(self.app, **{"profile": "rfc", "clock": self.clock, **options})

    def answers(self, *lines: str, **shape: Any) -> None:
        """Have the app answer so from now on."""
        self.app.answers(page(*lines, **shape))

    def get(self, url: str = "/", headers: Mapping[str, str] | None = None, **extra: Any) -> Reply:
        """One GET."""
        return ask(self.cache, url, "GET", headers, **extra)

    def ask(
        self, method: str, url: str = "/", headers: Mapping[str, str] | None = None, **extra: Any
    ) -> Reply:
        """One request with any method."""
        return ask(self.cache, url, method, headers, **extra)

    def stored(self, url: str = "/", headers: Mapping[str, str] | None = None) -> Reply:
        """One GET whose answer must have been stored."""
        reply = self.get(url, headers)
        assert reply.stored, reply.headers
        return reply

    def tick(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.tick(seconds)

    @property
    def calls(self) -> int:
        """How many requests reached the app."""
        return self.app.calls

    @property
    def last(self) -> dict[str, Any]:
        """The environ of the last request that reached the app."""
        return self.app.seen[-1]


def assert_lifetime(site: Site, seconds: int) -> None:
    """The app's answer is stored, fresh for exactly so many seconds, and stale at their end."""
    first = site.get()
    assert first.cache["fwd"] == "uri-miss"
    assert (first.stored, first.cache["ttl"]) == (True, str(seconds))
    site.tick(seconds - 1)
    hit = site.get()
    assert (hit.cache, hit.body, site.calls) == ({"hit": "", "ttl": "1"}, first.body, 1)
    site.tick(1)
    stale = site.get()
    assert (stale.cache["fwd"], site.calls) == ("stale", 2)


def assert_not_stored(site: Site, detail: str, headers: Mapping[str, str] | None = None) -> None:
    """The app's answer is passed on and not stored, for this reason: the next request asks the app again."""
    calls = site.calls
    for turn in (1, 2):
        reply = site.get("/", headers)
        assert "fwd" in reply.cache
        assert (reply.stored, "ttl" in reply.cache) == (False, False)
        assert site.calls == calls + turn
        if turn == 1:
            assert reply.detail == detail


def assert_never_fresh(site: Site) -> None:
    """Whether it was stored or not: the app is asked again at once."""
    first = site.get()
    second = site.get()
    assert first.body == second.body
    assert ("hit" in second.cache, site.calls) == (False, 2)


def members(reply: Reply) -> list[tuple[str, dict[str, Any]]]:
    """The Cache-Status list as a structured-field parser reads it."""
    lines = reply.all("cache-status")
    parsed = http_sf.parse(", ".join(lines).encode("latin-1"), tltype="list")
    return [(str(name), dict(parameters)) for name, parameters in parsed]
