"""Random traffic from a seed for caches that stand side by side in front of one origin, and the origin.

A case is one URL: what the origin says there, and the requests that come one after the other. Nobody waits
in a case: what is to be stale comes with an Age, a past Expires or max-age=0. Each cache gets the same cases
at URLs of its own, so that the origin can tell which of them asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any

from origin_client import Answered, Client

Headers = list[tuple[str, str]]

NOW = int(time.time())
DAY = 86400


def date(seconds: int) -> str:
    """A date, so many seconds from now."""
    return formatdate(NOW + seconds, usegmt=True)


def modified(version: int) -> str:
    """Last-Modified of a version."""
    return date(version - 10 * DAY)


# --- what the origin may say -----------------------------------------------------------------------

Choices = list[tuple[str, int, Headers]]
"""Names, weights and header lines; the first is what is usual."""

CONTROL: Choices = [
    ("max-age", 1, [("Cache-Control", "max-age=3600")]),
    ("no control", 6, []),
    ("Expires alone", 3, [("Expires", date(3600))]),
    ("past Expires alone", 2, [("Expires", date(-3600))]),
    ("junk Expires alone", 2, [("Expires", "0")]),
    ("max-age 0", 2, [("Cache-Control", "max-age=0")]),
    ("s-maxage", 3, [("Cache-Control", "max-age=0, s-maxage=3600")]),
    ("s-maxage 0", 2, [("Cache-Control", "max-age=3600, s-maxage=0")]),
    ("no-store", 2, [("Cache-Control", "no-store, max-age=3600")]),
    ("no-cache", 2, [("Cache-Control", "no-cache, max-age=3600")]),
    ("no-cache field", 1, [("Cache-Control", 'max-age=3600, no-cache="x-secret"')]),
    ("private", 2, [("Cache-Control", "private, max-age=3600")]),
    ("private field", 1, [("Cache-Control", 'max-age=3600, private="x-secret"')]),
    ("public", 3, [("Cache-Control", "public, max-age=3600")]),
    ("must-revalidate", 2, [("Cache-Control", "max-age=3600, must-revalidate")]),
    ("two lines", 2, [("Cache-Control", "max-age=3600"), ("cache-control", "no-store")]),
    ("upper case", 2, [("CACHE-CONTROL", "MAX-AGE=3600")]),
    ("quoted", 1, [("Cache-Control", 'max-age="3600"')]),
    ("repeated", 1, [("Cache-Control", "max-age=0, max-age=3600")]),
    ("junk number", 1, [("Cache-Control", "max-age=1h")]),
    ("overflow", 1, [("Cache-Control", "max-age=99999999999999999999")]),
    ("unknown", 2, [("Cache-Control", 'x-new="no-store", max-age=3600')]),
    ("must-understand", 1, [("Cache-Control", "must-understand, no-store, max-age=3600")]),
    ("stale-if-error", 3, [("Cache-Control", "max-age=0, stale-if-error=3600")]),
]
EXPIRES: Choices = [
    ("no Expires", 1, []),
    ("Expires ahead", 2, [("Expires", date(3600))]),
    ("Expires past", 2, [("Expires", date(-3600))]),
    ("Expires 0", 2, [("Expires", "0")]),
]
AGE: Choices = [
    ("no Age", 1, []),
    ("Age 100", 2, [("Age", "100")]),
    ("Age 7200", 3, [("Age", "7200")]),
    ("Age junk", 1, [("Age", "old")]),
]
DATE: Choices = [
    ("Date now", 1, [("Date", date(0))]),
    ("Date two hours ago", 2, [("Date", date(-7200))]),
    ("Date two hours ahead", 2, [("Date", date(7200))]),
]
VARY: Choices = [
    ("no Vary", 1, []),
    ("Vary X-A", 4, [("Vary", "X-A")]),
    ("Vary two lines", 1, [("Vary", "X-B"), ("vary", "x-a")]),
    ("Vary *", 1, [("Vary", "*")]),
    ("Vary X-A, *", 1, [("Vary", "X-A, *")]),
]
VALIDATOR: Choices = [
    ("no validator", 1, []),
    ("ETag", 5, [("ETag", '"v{version}"')]),
    ("weak ETag", 2, [("ETag", 'W/"v{version}"')]),
    ("Last-Modified", 4, [("Last-Modified", "{modified}")]),
]
COOKIE: Choices = [("no Set-Cookie", 1, []), ("Set-Cookie", 1, [("Set-Cookie", "a=1")])]
STATUS: Choices = [
    (status, 1, [])
    for status in (
        "200 OK",
        "203 Non-Authoritative Information",
        "204 No Content",
        "299 Odd",
        "301 Moved Permanently",
        "302 Found",
        "403 Forbidden",
        "404 Not Found",
        "410 Gone",
        "500 Internal Server Error",
        "503 Service Unavailable",
    )
]
RESPONSE = (STATUS, CONTROL, EXPIRES, AGE, DATE, VARY, VALIDATOR, COOKIE)

# --- what clients may ask --------------------------------------------------------------------------

METHOD: Choices = [
    ("GET", 1, []),
    ("HEAD", 3, []),
    ("POST", 2, []),
    ("DELETE", 1, []),
]
REQUEST_CONTROL: Choices = [
    ("no request control", 1, []),
    ("request no-cache", 1, [("Cache-Control", "no-cache")]),
    ("request max-age=0", 1, [("Cache-Control", "max-age=0")]),
    ("request max-age=9999", 1, [("Cache-Control", "max-age=9999")]),
    ("request no-store", 1, [("Cache-Control", "no-store")]),
    ("only-if-cached", 1, [("Cache-Control", "only-if-cached")]),
    ("max-stale", 1, [("Cache-Control", "max-stale")]),
    ("min-fresh", 1, [("Cache-Control", "min-fresh=7200")]),
    ("Pragma", 1, [("Pragma", "no-cache")]),
]
CONDITION: Choices = [
    ("no condition", 1, []),
    ("If-None-Match", 2, [("If-None-Match", '"v1"')]),
    ("If-None-Match other", 1, [("If-None-Match", '"v0"')]),
    ("If-None-Match *", 1, [("If-None-Match", "*")]),
    ("If-Modified-Since", 2, [("If-Modified-Since", modified(1))]),
    ("Range", 2, [("Range", "bytes=0-3")]),
    ("Range beyond", 1, [("Range", "bytes=999-")]),
]
WHO: Choices = [
    ("nobody", 1, []),
    ("Authorization", 3, [("Authorization", "Basic dTpw")]),
    ("Cookie", 1, [("Cookie", "sid=1")]),
]
SELECTING: Choices = [("no X-A", 1, []), ("X-A 1", 3, [("X-A", "1")]), ("X-A 2", 2, [("X-A", "2")])]
REQUEST = (METHOD, REQUEST_CONTROL, CONDITION, WHO, SELECTING)


@dataclass
class Chosen:
    """A choice from each of several lists: names of what is unusual, and the header lines of all."""

    names: list[str] = field(default_factory=list)
    headers: Headers = field(default_factory=list)
    first: str = ""

    @property
    def all_names(self) -> list[str]:
        """The names, the first list's too."""
        return [self.first, *self.names]

    @classmethod
    def among(cls, random: Random, lists: tuple[Choices, ...], most: int) -> Chosen:
        """The usual one of each list, but for `most` lists at most: differences are to have plain causes."""
        chosen = cls()
        odd = random.sample(range(len(lists)), random.randint(0, most))
        for number, choices in enumerate(lists):
            weights = [weight for _, weight, _ in choices]
            name, _, headers = random.choices(choices, weights)[0] if number in odd else choices[0]
            chosen.headers += headers
            if number == 0:
                chosen.first = name
            elif name != choices[0][0]:
                chosen.names.append(name)
        return chosen


@dataclass
class Case:
    """One URL."""

    number: int
    response: Chosen
    requests: list[Chosen]
    changes: bool
    """Whether each response is a new version, with other validators, or all are one."""
    fails: bool
    """Whether the origin answers the first request alone, and then has an error."""

    def tags(self, step: int) -> frozenset[str]:
        """What is unusual up to a request: of the response, of the requests before, and of this one."""
        before = {f"before: {name}" for request in self.requests[:step] for name in request.all_names}
        now = {f"now: {name}" for name in self.requests[step].all_names}
        fails = {"fails"} if self.fails else set()
        return frozenset({*self.response.all_names, *before, *now, *fails} - _USUAL)


_USUAL = {"200 OK", "now: GET", "before: GET"}


def cases(seed: int, count: int) -> Iterator[Case]:
    """Cases from a seed: the same for the same seed."""
    random = Random(seed)
    for number in range(count):
        requests = [
            Chosen.among(random, REQUEST, most) for most in random.choice(((0, 1), (1, 1), (0, 1, 0)))
        ]
        response = Chosen.among(random, RESPONSE, 2)
        fails = random.random() < (0.8 if "stale-if-error" in response.names else 0.05)
        yield Case(number, response, requests, random.random() < 0.5, fails)


# --- the origin ------------------------------------------------------------------------------------


class Traffic:
    """The origin's memory: the cases by number, and how often each cache asked for each."""

    def __init__(self, cases: list[Case]) -> None:
        self.cases = cases
        self.asked: dict[str, int] = {}
        self._lock = threading.Lock()

    def ask(self, path: str) -> tuple[Case, int]:
        """Somebody asks the origin: the case, and how many did at this path, this one included."""
        with self._lock:
            self.asked[path] = asked = self.asked.get(path, 0) + 1
        return self.cases[int(path.rpartition("/")[2])], asked


class Handler(BaseHTTPRequestHandler):
    """Answers as the case says; a request that names the current tag gets a 304."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    traffic: Traffic

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        case, asked = self.traffic.ask(self.path)
        version = asked if case.changes else 1
        versions = {"version": version, "modified": modified(version)}
        headers = [(name, value.format(**versions)) for name, value in case.response.headers]
        etag = next((value for name, value in headers if name == "ETag"), "")
        code, _, reason = case.response.first.partition(" ")
        body = f"case {case.number} version {version}".encode()
        if case.fails and asked > 1:
            code, reason, headers, body = "503", "Service Unavailable", [], b"failed"
        elif self.command in ("GET", "HEAD") and code == "200" and self._has(headers, etag):
            code, reason, body = "304", "Not Modified", b""
        elif self.command not in ("GET", "HEAD"):
            code, reason, headers, body = "200", "OK", [], b"done"
        if code in ("204", "304"):
            body = b""
        else:
            headers = [*headers, ("Content-Length", str(len(body)))]
        self.send_response_only(int(code), reason)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _has(self, headers: Headers, etag: str) -> bool:
        tags = self.headers.get("If-None-Match")
        if tags is not None:
            return bool(etag) and etag.removeprefix("W/") in tags.replace("W/", "")
        since = self.headers.get("If-Modified-Since")
        return since is not None and since == dict(headers).get("Last-Modified")

    do_GET = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815 - http.server names them so

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False

    def handle_error(self, *_: Any) -> None:
        """A cache that ends resets its connections; that is no error here."""


class TrafficOrigin:
    """The origin, listening."""

    def __init__(self, traffic: Traffic) -> None:
        handler = type("Bound", (Handler,), {"traffic": traffic})
        self._server = _Server(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        """End it; the caches have hung up before."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


# --- one cache's way through the traffic -----------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """What became of one request."""

    asked: bool
    """Whether the origin was asked."""
    status: int
    body: bytes
    told: str = field(default="", compare=False)
    """What the cache said of it in Cache-Status, if it did."""

    def __str__(self) -> str:
        source = "origin" if self.asked else "cache"
        return f"{source} {self.status} {self.body.decode('latin-1')!r}"


def drive(name: str, port: int, traffic: Traffic) -> dict[int, list[Step]]:
    """Send all cases to a cache; returns what became of each request."""
    found: dict[int, list[Step]] = {}
    connection: list[Client] = []
    for case in traffic.cases:
        path = f"/{name}/{case.number}"
        found[case.number] = steps = []
        for request in case.requests:
            before = traffic.asked.get(path, 0)
            answer = _ask(connection, port, path, request)
            asked = traffic.asked.get(path, 0) > before
            steps.append(Step(asked, answer.code, answer.body, answer.field("cache-status") or ""))
    connection[0].socket.close()
    return found


def _ask(connection: list[Client], port: int, path: str, request: Chosen) -> Answered:
    """One request, on the connection of the one before if that is still there."""
    lines = [f"{field}: {value}" for field, value in request.headers]
    if request.first == "POST":
        lines.append("Content-Length: 0")
    try:
        if connection:
            return connection[0].get(path, *lines, method=request.first)
    except ConnectionError:
        connection.pop().socket.close()
    connection.append(Client(port))
    return connection[0].get(path, *lines, method=request.first)
