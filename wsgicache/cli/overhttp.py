"""The way to a cache through the site's own endpoint: the only one to the memory of one process."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import urlencode, urlsplit

from ..admin.endpoint import LISTED, ONE_OF_SEVERAL, WORKERS
from ..explain import Explanation
from ..inventory import Held
from ..rules import RuleState
from ..stores import StoreError
from .control import Asked, Reached
from .errors import DOWN, Failure

_PATIENCE: Final = 30.0
"""Seconds: counting what a purge matched takes a walk through the store."""

_LARGEST: Final = 16 << 20
_MOVED: Final = frozenset({301, 302, 303, 307, 308})
_NEAR: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class HttpControl:
    """Through the site's endpoint (`admin_path`).

    Args:
        endpoint: where it is, such as `https://example.com/.cache`.
        secret: the site's.

    Raises:
        Failure: the address is none, or there is no secret.
    """

    def __init__(self, endpoint: str, secret: str | None) -> None:
        try:
            parts = urlsplit(endpoint)
        except ValueError as error:
            raise Failure(f"--endpoint {endpoint}: {error}") from None
        if parts.username is not None:
            raise Failure("--endpoint: the secret is no part of the address: set WSGICACHE_SECRET")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
            raise Failure(f"--endpoint {endpoint}: give the site's admin_path, as https://example.com/.cache")
        if not secret:
            raise Failure(
                "--endpoint needs the site's secret: set WSGICACHE_SECRET, or name the configuration"
            )
        if not (secret.isascii() and secret.isprintable()):
            raise Failure("the secret holds characters that a field cannot carry")
        self.is_one_of_several = False
        self.is_cut = False
        self._endpoint = endpoint.rstrip("/")
        self._moved = ""
        self._parts = parts
        self._secret = secret

    @property
    def is_overheard(self) -> bool:
        """Whether the secret goes over a network unencrypted."""
        return self._parts.scheme == "http" and self._parts.hostname not in _NEAR

    # --- what can be done --------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Counters of all workers where they share a store, else of the worker that answers."""
        numbers = self._ask("GET", "stats")
        return numbers if isinstance(numbers, dict) and "requests" in numbers else self._strange()

    def explain(self, url: str, method: str, headers: Mapping[str, str]) -> Explanation:
        """Why a request would be a hit, a miss or a bypass, in the worker that answers."""
        asked = {"url": url, "method": method, "headers": dict(headers)}
        try:
            return Explanation.from_dict(self._ask("POST", "explain", asked))
        except (KeyError, TypeError, AttributeError):
            self._strange()

    def purge(self, asked: Asked, *, wait: bool) -> Reached:
        """Purge, and say what it reached."""
        return self._purge(asked, wait=wait, list=True)

    def preview(self, asked: Asked) -> Reached:
        """What a purge would reach."""
        return self._purge(asked, dry_run=True)

    def _purge(self, asked: Asked, **flags: bool) -> Reached:
        named = {"urls": asked.urls, "prefixes": asked.prefixes, "groups": asked.groups}
        told = self._ask("POST", "purge", {**named, "all": asked.everything, "soft": asked.soft, **flags})
        try:
            roughly = asked.everything and not asked.soft and "dry_run" not in flags
            return Reached(told["matched"], tuple(told["urls"]), roughly, int(told["more_urls"]))
        except (KeyError, TypeError, ValueError):
            self._strange()

    def rules(self) -> list[RuleState]:
        """The rules as they stand."""
        try:
            states = self._ask("GET", "rules")
            return [RuleState(s["name"] or s["pattern"], s["pattern"], s["enabled"]) for s in states]
        except (KeyError, TypeError):
            self._strange()

    def switch(self, name: str, enabled: bool) -> None:
        """Switch a named rule."""
        self._ask("POST", "rules", {"name": name, "enabled": enabled})

    def entries(self, prefix: str | None, groups: Sequence[str]) -> Iterator[Held]:
        """See `Inventory.entries`; asked for in parts, as far as they are wanted."""
        named = [("group", group) for group in groups]
        return self._listed([*([] if prefix is None else [("prefix", prefix)]), *named])

    def at(self, url: str) -> list[Held]:
        """See `Inventory.at`."""
        held = list(self._listed([("url", url)]))
        return sorted(held, key=lambda one: (one.url, one.extra, str(one.varying)))

    def _listed(self, asked: Sequence[tuple[str, str]]) -> Iterator[Held]:
        after: str | None = ""
        while after is not None:
            query = urlencode([*asked, ("limit", str(LISTED)), *([("after", after)] if after else [])])
            told = self._ask("GET", f"entries?{query}")
            try:
                held, after, cut = (
                    [Held.from_dict(one) for one in told["entries"]],
                    told["after"],
                    told["cut"],
                )
            except (KeyError, TypeError, ValueError):
                self._strange()
            yield from held
            if cut:
                self.is_cut = True

    def close(self) -> None:
        """Nothing is kept open."""

    # --- asking ------------------------------------------------------------------------------------

    def _strange(self) -> NoReturn:
        raise Failure(f"{self._endpoint} does not answer as this version does: update the older of the two")

    def _ask(self, method: str, action: str, data: Mapping[str, Any] | None = None) -> Any:
        """One request; what the endpoint says.

        Raises:
            Failure: it refuses, or is not there.
            NotImplementedError: the store cannot do this.
            StoreError: the store did not acknowledge it.
        """
        status, body = self._send(method, action, data)
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        said = told.get("error", "") if isinstance(told, dict) else ""
        if status == 200 and told is not None:
            return told
        if status == 403:
            raise Failure(f"{self._endpoint}: the site has another secret than the one here")
        if status in _MOVED:
            raise Failure(
                f"{self._endpoint} answers {status}, to {self._moved}: give the address of the site itself"
            )
        if status == 501 and said:
            raise NotImplementedError(str(said))
        if status == 503 and said:
            raise StoreError(str(said))
        if status == 400 and said:
            raise Failure(str(said))
        raise Failure(
            f"{self._endpoint} answers {status} and is no endpoint of wsgicache: is it the site's admin_path?"
        )

    def _send(self, method: str, action: str, data: Mapping[str, Any] | None) -> tuple[int, bytes]:
        parts = self._parts
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        headers = {"Wsgicache-Secret": self._secret}
        body = None
        if data is not None:
            headers["Content-Type"], body = "application/json", json.dumps(data)
        try:
            connection = kind(str(parts.hostname), parts.port, timeout=_PATIENCE)
        except ValueError as error:  # the port
            raise Failure(f"--endpoint {self._endpoint}: {error}") from None
        try:
            connection.request(method, f"{parts.path.rstrip('/')}/{action}", body, headers)
            response = connection.getresponse()
            self._moved = response.headers.get("Location", "nowhere")
            self.is_one_of_several = response.headers.get(WORKERS) == ONE_OF_SEVERAL
            return response.status, response.read(_LARGEST)
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or error
            text = f"{self._endpoint}: no TLS that can be trusted: {why}; is it http://, or self-signed?"
            raise Failure(text, DOWN) from None
        except (OSError, http.client.HTTPException) as error:
            text = f"{self._endpoint} does not answer: {error or type(error).__name__}; is the site running?"
            raise Failure(text, DOWN) from None
        finally:
            connection.close()
