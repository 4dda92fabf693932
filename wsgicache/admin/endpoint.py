"""Purges, numbers and switches over HTTP, for whoever has the secret.

    POST /.cache/purge     {"urls": ["/post/1"], "prefixes": [], "groups": ["posts"], "all": false,
                            "soft": false, "wait": false, "count": false, "list": false, "dry_run": false}
    GET  /.cache/stats     counters of all workers where they share a store, else of this one
    GET  /.cache/metrics   the same, as Prometheus reads them
    GET  /.cache/entries?prefix=/post&group=posts&limit=100&after=…
    GET  /.cache/entries?url=/post/1
    GET  /.cache/explain?url=/post/1
    POST /.cache/explain   {"url": "/post/1", "method": "HEAD", "headers": {"Accept-Language": "de"}}
    GET  /.cache/rules
    POST /.cache/rules     {"name": "admin", "enabled": false}
    PURGE /post/1          the URL itself

Nothing here is open by default: the path and the method have to be chosen, and each request has to bring the
secret in a field, which no page of another site can make a browser send. Without it every answer is the
same, whatever there is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Protocol
from wsgiref.util import request_uri

from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    MethodNotAllowed,
    NotFound,
    RequestEntityTooLarge,
)
from werkzeug.wrappers import Request, Response

from ..engine import Engine
from ..entry import Entry
from ..explain import Explanation
from ..inventory import Inventory
from ..key import prefix_target, split_key, url_target
from ..observe import summary
from ..purge import Purged
from ..rules import RuleSet
from ..stores import StoreError
from .guard import Guard

MAX_BYTES: Final = 1 << 16
"""Larger requests are refused."""

LONGEST: Final = 500
"""Characters of an error that are told."""

LISTED: Final = 1000
"""Responses and URLs that one answer lists at most."""

WORKERS: Final = "Wsgicache-Workers"
"""The field that tells whom an answer is about."""

ALL: Final = "all"
ONE: Final = "one"
ONE_OF_SEVERAL: Final = "one-of-several"

_LISTS: Final = ("urls", "prefixes", "groups")
_FLAGS: Final = ("all", "soft", "wait", "count", "list", "dry_run")
_SEARCHES: Final = ("url", "prefix", "group", "limit", "after")
_SOFT: Final = "HTTP_WSGICACHE_SOFT_PURGE"


class Cache(Protocol):
    """What the endpoint needs of a cache."""

    @property
    def engine(self) -> Engine:
        """What decides and counts."""
        ...

    @property
    def rules(self) -> RuleSet:
        """The rules."""
        ...

    def purge(self, *urls: str, soft: bool = False, wait: bool = False) -> Purged:
        """See `WSGICache.purge`."""
        ...

    def purge_prefix(self, *prefixes: str, soft: bool = False, wait: bool = False) -> Purged:
        """See `WSGICache.purge_prefix`."""
        ...

    def purge_groups(
        self, *groups: str, origin: str | None = None, soft: bool = False, wait: bool = False
    ) -> Purged:
        """See `WSGICache.purge_groups`."""
        ...

    def clear(self, *, soft: bool = False, wait: bool = False) -> Purged:
        """See `WSGICache.clear`."""
        ...

    def preview(
        self,
        *urls: str,
        prefixes: Sequence[str] = (),
        groups: Sequence[str] = (),
        everything: bool = False,
        soft: bool = False,
    ) -> Iterator[Entry]:
        """See `WSGICache.preview`."""
        ...

    def inventory(self) -> Inventory:
        """See `WSGICache.inventory`."""
        ...

    def metrics(self) -> Response:
        """See `WSGICache.metrics`."""
        ...

    def explain(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Explanation:
        """See `WSGICache.explain`."""
        ...


class Endpoint:
    """A small WSGI app beside the wrapped one.

    Args:
        cache: what it purges and tells of.
        guard: who is let in.
        path: where it is, such as `/.cache`; None: nowhere.
        purge_method: answer the method PURGE on every URL.
    """

    def __init__(self, cache: Cache, guard: Guard, path: str | None, *, purge_method: bool) -> None:
        self._cache = cache
        self._guard = guard
        self._below = None if path is None else path.rstrip("/") + "/"
        self._purge_method = purge_method
        self._actions: Mapping[tuple[str, str], Callable[[Request], Any]] = {
            ("POST", "purge"): self._purge,
            ("GET", "stats"): lambda request: self._stats(),
            ("GET", "metrics"): lambda request: cache.metrics(),
            ("GET", "entries"): self._entries,
            ("GET", "explain"): lambda request: self._explain(request, request.args, {}),
            ("POST", "explain"): self._explain_sent,
            ("GET", "rules"): lambda request: self._states(),
            ("POST", "rules"): self._switch,
        }

    def takes(self, environ: Mapping[str, Any]) -> bool:
        """Whether a request is for this endpoint and not for the app."""
        if self._purge_method and environ["REQUEST_METHOD"] == "PURGE":
            return True
        path: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        return self._below is not None and f"{path}/".startswith(self._below)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        response = self._answer(environ)
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response(environ, start_response)

    def _answer(self, environ: dict[str, Any]) -> Response:
        if not self._guard.admits(environ):
            return _refusal("this needs the secret of the cache, as Wsgicache-Secret", 403)
        response = self._told(environ)
        response.headers[WORKERS] = self._workers(environ)
        return response

    def _workers(self, environ: Mapping[str, Any]) -> str:
        """Whom an answer is about: with a memory of its own, a worker knows nothing of the others."""
        if self._cache.engine.shared:
            return ALL
        return ONE_OF_SEVERAL if environ.get("wsgi.multiprocess") else ONE

    def _told(self, environ: dict[str, Any]) -> Response:
        request = Request(environ)
        request.max_content_length = MAX_BYTES
        try:
            answer = self._act(request)
            return answer if isinstance(answer, Response) else _json(answer)
        except UnicodeError as error:
            return _refusal(f"not text: {error}", 400)
        except (ValueError, KeyError) as error:
            return _refusal(str(error.args[0] if error.args else error), 400)
        except (ImportError, NotImplementedError) as error:
            return _refusal(str(error), 501)
        except StoreError as error:
            return _refusal(f"the store did not acknowledge it: {error}", 503)
        except HTTPException as error:
            response = _refusal(str(error.description), error.code or 500)
            response.headers.extend([pair for pair in error.get_headers() if pair[0] == "Allow"])
            return response

    def _act(self, request: Request) -> Any:
        if request.method == "PURGE" and self._purge_method:
            url = request_uri(request.environ)
            self._cache.purge(url, soft=request.environ.get(_SOFT) == "1")
            return {"purged": True}
        path = request.root_path + request.path
        name = path[len(self._below or "") :].strip("/")
        action = self._actions.get((request.method, name))
        if action is not None:
            return action(request)
        allowed = sorted({method for method, known in self._actions if known == name})
        if allowed:
            raise MethodNotAllowed(allowed, f"use {' or '.join(allowed)}")
        raise NotFound("there is no such thing here")

    # --- what can be done --------------------------------------------------------------------------

    def _purge(self, request: Request) -> dict[str, Any]:
        asked = _object(request, (*_LISTS, *_FLAGS))
        for name in _LISTS:
            texts = asked.setdefault(name, [])
            if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{name} = {texts!r} is no list of texts")
        for name in _FLAGS:
            if not isinstance(asked.setdefault(name, False), bool):
                raise ValueError(f"{name} = {asked[name]!r} is neither true nor false")
        for text in asked["urls"]:  # a mistake in one of them is told before anything is purged
            url_target(text)
        for text in asked["prefixes"]:
            prefix_target(text)
        if not (asked["all"] or any([asked[name] for name in _LISTS])):
            raise ValueError("name something to purge: urls, prefixes, groups or all")
        if asked["dry_run"]:
            return {"purged": False, **self._would_reach(asked)}
        done = self._purge_all(asked)
        if not (asked["count"] or asked["list"]):
            return {"purged": True}
        return {"purged": True, **_reached(done, asked["list"])}

    def _purge_all(self, asked: Mapping[str, Any]) -> list[Purged]:
        given = {"soft": asked["soft"], "wait": asked["wait"]}
        cache = self._cache
        done: list[Purged] = []
        if asked["all"]:
            done.append(cache.clear(**given))
            if not asked["soft"]:
                return done  # nothing is left for the others
        if asked["urls"]:
            done.append(cache.purge(*asked["urls"], **given))
        if asked["prefixes"]:
            done.append(cache.purge_prefix(*asked["prefixes"], **given))
        if asked["groups"]:
            done.append(cache.purge_groups(*asked["groups"], **given))
        return done

    def _would_reach(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a purge would reach: always counted and listed, because nothing else is asked for."""
        found = self._cache.preview(
            *asked["urls"],
            prefixes=asked["prefixes"],
            groups=asked["groups"],
            everything=asked["all"],
            soft=asked["soft"],
        )
        return _counted([split_key(entry.key).url for entry in found])

    def _stats(self) -> dict[str, Any]:
        engine = self._cache.engine
        return {**summary(engine.counters()[0]), "store": dict(engine.store.stats())}

    def _entries(self, request: Request) -> dict[str, Any]:
        """What is stored: heads and numbers of one URL, or numbers of many."""
        args = request.args
        for name in args:
            if name not in _SEARCHES:
                raise ValueError(f"unknown name {name!r}; known: {', '.join(_SEARCHES)}")
        url, groups = args.get("url"), args.getlist("group")
        if url is not None and (groups or "prefix" in args):
            raise ValueError("url is one page: leave out prefix and group")
        limit = args.get("limit", str(LISTED))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 9 and int(limit)):
            raise ValueError(f"limit = {limit!r} is no number from 1")
        page = self._cache.inventory().page(
            url=url,
            prefix=args.get("prefix"),
            groups=groups,
            after=args.get("after", ""),
            limit=min(int(limit), LISTED),
        )
        entries = [one.as_dict() for one in page.held]
        if url is None:
            for entry in entries:
                del entry["headers"]
        return {"entries": entries, "after": page.after, "cut": page.cut}

    def _explain_sent(self, request: Request) -> dict[str, Any]:
        """The same with fields, which may be secrets of visitors and therefore are no part of a URL."""
        asked = _object(request, ("url", "method", "headers"))
        headers = asked.get("headers", {})
        if not (isinstance(headers, dict) and all(isinstance(value, str) for value in headers.values())):
            raise ValueError(f"headers = {headers!r} is no object of texts")
        return self._explain(request, asked, headers)

    def _explain(
        self, request: Request, asked: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        url, method = asked.get("url"), asked.get("method", "GET")
        if not isinstance(url, str):
            raise ValueError("say which: explain?url=/post/1")
        if not isinstance(method, str):
            raise ValueError(f"method = {method!r} is no text")
        if url.startswith("/"):  # of this site, not of localhost
            url = f"{request.scheme}://{request.host}{url}"
        return self._cache.explain(url, method=method, headers=headers).as_dict()

    def _states(self) -> list[dict[str, Any]]:
        rules = self._cache.rules
        return [{"name": rule.name, "pattern": rule.pattern, "enabled": rule.enabled} for rule in rules]

    def _switch(self, request: Request) -> list[dict[str, Any]]:
        asked = _object(request, ("name", "enabled"))
        name, enabled = asked.get("name"), asked.get("enabled")
        if not isinstance(name, str) or not isinstance(enabled, bool):
            raise ValueError('say which rule and how: {"name": "admin", "enabled": false}')
        self._cache.rules[name].enabled = enabled
        return self._states()


def _reached(done: Sequence[Purged], listed: bool) -> dict[str, Any]:
    """How many entries purges reached together, and at which URLs where that was asked for."""
    counts = [purged.matched for purged in done]
    known = [count for count in counts if count is not None]
    matched = {"matched": sum(known) if len(known) == len(counts) else None}
    if not listed:
        return matched
    try:
        urls = [split_key(entry.key).url for purged in done for entry in purged.entries()]
    except NotImplementedError:
        urls = []
    return _counted(urls) | matched


def _counted(urls: Sequence[str]) -> dict[str, Any]:
    different = sorted(set(urls))
    more = max(0, len(different) - LISTED)
    return {"matched": len(urls), "urls": different[:LISTED], "more_urls": more}


def _object(request: Request, names: tuple[str, ...]) -> dict[str, Any]:
    """The JSON object in a request, with no names but these."""
    if request.mimetype != "application/json":
        raise BadRequest("send JSON, with Content-Type: application/json")
    try:
        asked = request.get_json()
    except RequestEntityTooLarge:
        raise
    except (BadRequest, RecursionError):
        raise BadRequest("the body is no JSON") from None
    if not isinstance(asked, dict):
        raise BadRequest("send a JSON object")
    for name in asked:
        if name not in names:
            raise ValueError(f"unknown name {name!r}; known: {', '.join(names)}")
    return dict(asked)


def _refusal(error: str, status: int) -> Response:
    """What went wrong; what is long in it was the client's own words."""
    return _json({"error": shorten(error)}, status)


def shorten(text: str) -> str:
    """A text of which a client may have made up the most, in a length for people."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _json(data: Any, status: int = 200) -> Response:
    return Response(json.dumps(data) + "\n", status, mimetype="application/json")
