"""wrk, and what it says: so many connections that ask for one page for a while."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from _apps import Environ
from _servers import pin, program

# Prints what wrk counts as numbers; it asks and reads as wrk does without a script.
SCRIPT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\ncounted %d %d %d %d %d %d\\n", summary.requests, summary.duration, summary.bytes,
    e.connect + e.read + e.write + e.timeout, e.status, latency:percentile(99)))
end
"""
MICRO = 1e6
COUNTED = "\ncounted "
ENDS_WITHIN = 5.0
TRIES = 5


@dataclass(frozen=True)
class Load:
    """What wrk counted: `seconds` it ran, `bytes` heads included, `failed` socket errors and time-outs,
    `refused` answers of status 400 and above, `p99` seconds from a request to its answer.
    """

    requests: int
    seconds: float
    bytes: int
    failed: int
    refused: int
    p99: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def header_lines(environ: Environ) -> list[str]:
    """Return the header fields of a request as wrk's options; Host and Connection are wrk's own doing."""
    names = [name for name in environ if name.startswith("HTTP_")]
    fields = {name[5:].replace("_", "-").title(): environ[name] for name in names}
    own = ("Host", "Connection")
    return [word for name, value in fields.items() if name not in own for word in ("-H", f"{name}: {value}")]


class Wrk:
    """Runs wrk with one thread on the client's core.

    Raises:
        Missing: wrk is not installed.
    """

    def __init__(self, script: Path, environ: Environ, connections: int, cores: Collection[int]) -> None:
        self._command = [program("wrk"), "-t1", f"-c{connections}", "-d600", "-s", str(script)]
        self._command += header_lines(environ)
        self._cores = cores

    def run(self, url: str, seconds: float) -> Load:
        """Ask for `url` for so many seconds. wrk takes whole ones only, so it is interrupted.

        Raises:
            RuntimeError: wrk did not count, time and again.
        """
        said = ""
        for _ in range(TRIES):
            said = self._run(url, seconds)
            if COUNTED in said:
                return parse(said)
        raise RuntimeError(f"wrk did not count: {said.strip() or 'it said nothing'}")

    def _run(self, url: str, seconds: float) -> str:
        """What wrk says; nothing where it was interrupted before it was ready for that, on a busy machine."""
        process = subprocess.Popen(
            [*self._command, url],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: pin(self._cores),
        )
        try:
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                return process.communicate(timeout=ENDS_WITHIN)[0]
        finally:
            process.kill()
            process.communicate()
        return ""


@contextmanager
def wrk(environ: Environ, connections: int, cores: Collection[int] = ()) -> Iterator[Wrk]:
    """A `Wrk` while its script exists."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory) / "count.lua"
        script.write_text(SCRIPT, encoding="ascii")
        yield Wrk(script, environ, connections, cores)


def parse(said: str) -> Load:
    """Read the line that the script prints."""
    line = said.partition(COUNTED)[2].partition("\n")[0]
    requests, micros, size, failed, refused, p99 = map(int, line.split())
    return Load(requests, micros / MICRO, size, failed, refused, p99 / MICRO)
