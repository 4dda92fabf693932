"""How the benchmarks measure: what a server does, in interleaved rounds, its own cost taken off.

- Each call gets an environ of its own (a copy, as a server would have made it), so a middleware may
  write into it. Making it is timed alone, right beside, and subtracted: it is not the app's doing.
- Rounds are interleaved (A B C A B C ...): a noisy second hits every subject, not one of them.
- A subject that does not answer as it should is not timed.
"""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from itertools import repeat
from pathlib import Path
from types import FunctionType

from _apps import App, Environ, Headers

os.environ.setdefault("WSGICACHE_COMPILED", "0")
"""The build in Python is measured, also in a checkout that has the twin of its hit path: see `_build`."""

MICRO = 1e6
Requests = Callable[[int], Iterable[Environ]]  # how many -> that many environs, each its own


@dataclass(frozen=True)
class Answer:
    """One response, read to its end."""

    status: str
    headers: Headers
    body: bytes

    def get(self, name: str) -> str:
        """Return the field's value, lines joined by a comma; empty when absent."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


def ask(app: App, environ: Environ) -> Answer:
    """Call `app` once, as a server would, and return what it answered."""
    seen: list[tuple[str, Headers]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: Headers, exc_info: object = None) -> object:
        seen.append((status, list(headers)))
        return written.append

    result = app(dict(environ), start_response)
    try:
        written.extend(result)
    finally:
        if hasattr(result, "close"):
            result.close()
    return Answer(*seen[-1], b"".join(written))


def copies(environ: Environ) -> Requests:
    """Return requests for one and the same URL."""
    return lambda count: map(dict.copy, repeat(environ, count))


def _write(data: bytes) -> None:
    raise AssertionError("no app here uses write()")


def _start_response(status: str, headers: Headers, exc_info: object = None) -> object:
    return _write


def _serve(app: App, environs: Iterable[Environ]) -> float:
    start_response = _start_response
    begin = time.perf_counter()
    for environ in environs:
        result = app(environ, start_response)
        for _ in result:
            pass
        if hasattr(result, "close"):
            result.close()
    return time.perf_counter() - begin


def _idle(environs: Iterable[Environ]) -> float:
    begin = time.perf_counter()
    for _ in environs:
        pass
    return time.perf_counter() - begin


def _own_loop() -> Callable[[App, Iterable[Environ]], float]:
    """Return a copy of the loop with its own inline caches.

    CPython specialises a call for what was called there before. A server calls one app all its
    life; one loop for all subjects would let each spoil the next one's specialisation.
    """
    return FunctionType(_serve.__code__.replace(), globals())


@dataclass
class Subject:
    """One thing that is timed: an app, the requests it gets, and what it must answer."""

    key: str
    label: str
    app: App
    requests: Requests
    check: Callable[[App], None] = lambda app: None
    max_calls: int = 1_000_000_000
    calls: int = 1
    rounds: list[float] = field(default_factory=list)  # µs per request, environ taken off
    gross: list[float] = field(default_factory=list)  # µs per request with its environ
    idle: list[float] = field(default_factory=list)  # µs per environ
    serve: Callable[[App, Iterable[Environ]], float] = field(default_factory=_own_loop)

    def calibrate(self, number: int) -> None:
        """Choose calls per sample: `number` when fast, fewer when a call is slow."""
        few = max(1, min(20, number, self.max_calls))
        self.serve(self.app, self.requests(few))
        cost = self.serve(self.app, self.requests(few)) / few
        fitting = int(number * 2 / MICRO / cost)
        self.calls = min(number, self.max_calls, max(10, fitting))

    def sample(self) -> None:
        """Time one round: a few calls to warm up, the environs alone, then the calls."""
        self.serve(self.app, self.requests(max(1, self.calls // 10)))
        idle = _idle(self.requests(self.calls))
        spent = self.serve(self.app, self.requests(self.calls))
        self.gross.append(spent / self.calls * MICRO)
        self.idle.append(idle / self.calls * MICRO)
        self.rounds.append(self.gross[-1] - self.idle[-1])

    @property
    def median(self) -> float:
        """µs per request."""
        return statistics.median(self.rounds)

    @property
    def best(self) -> float:
        """µs per request in the quietest rounds (not the luckiest difference of two)."""
        return min(self.gross) - min(self.idle)

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, µs."""
        if len(self.rounds) < 2:
            return 0.0
        low, _, high = statistics.quantiles(self.rounds, n=4, method="inclusive")
        return (high - low) / 2

    def over(self, other: Subject) -> float:
        """Return the median of the differences to `other`, taken round by round, µs."""
        pairs = zip(self.rounds, other.rounds, strict=True)
        return statistics.median(mine - theirs for mine, theirs in pairs)


def measure(subjects: Sequence[Subject], *, rounds: int, number: int) -> None:
    """Time all `subjects` in `rounds` interleaved rounds of up to `number` calls each."""
    for subject in subjects:
        subject.calibrate(number)
    gc.collect()
    gc.freeze()  # what was built above is not walked again in the middle of a sample
    try:
        for _ in range(rounds):
            for subject in subjects:
                subject.sample()
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Verdict:
    """One goal, judged, and what was found."""

    goal: str
    met: bool
    found: str

    def line(self, width: int) -> str:
        """The verdict for people, the goal as wide as given."""
        return f"{'met    ' if self.met else 'NOT met'}  {self.goal:{width}}  {self.found}"


def cpu_model() -> str:
    """Return the name of the processor, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python, wsgicache and `packages`; "-" for what is missing."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    found["wsgicache"] = _own_version()
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "-"
    return found


def _own_version() -> str:
    try:
        from wsgicache._version import __version__
    except ImportError:
        return "-"
    return str(__version__)


def describe(found: dict[str, str]) -> str:
    """Return two lines: versions, then the processor."""
    named = ", ".join(f"{name} {version}" for name, version in found.items())
    return f"{named}\n{cpu_model()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return an aligned table: the first column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = []
    for row in (head, ["-" * width for width in widths], *rows):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
