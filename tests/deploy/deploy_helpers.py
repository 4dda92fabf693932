"""Servers with several worker processes, as sites run them, and what tests ask of them."""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent / name) for name in ("origin", "stores")]

from origin_client import Client as Connection  # noqa: E402
from origin_script import PATIENCE, Answer, kept, plain  # noqa: E402

FORWARDED = 64
GRACE = 3


def until(condition, within=PATIENCE, what="it"):
    """Wait for something that other processes do; returns what it said."""
    pause = threading.Event()
    deadline = time.monotonic() + within
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {within} s")
        pause.wait(0.01)


def _end_with_the_test():
    if sys.platform == "linux":
        death_signal = 1  # PR_SET_PDEATHSIG
        ctypes.CDLL(None).prctl(death_signal, signal.SIGTERM)


class Site:
    """A running server with its workers.

    Args:
        command: makes the command line of a listening descriptor.
        origin: what its app asks.
        store: URL.
        log: the file that its output goes to.
        options: of the cache.
        variables: environment variables for it.
    """

    def __init__(self, command, origin, store, log, options=None, **variables):
        self._log = log
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("WSGICACHE_")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]),
            "PYTHONDEVMODE": "",
            "ORIGIN_PORT": str(origin.port),
            "DEPLOY_STORE": store,
            "DEPLOY_OPTIONS": json.dumps(options or {}),
            **variables,
        }
        with socket.create_server(("127.0.0.1", 0), backlog=200) as listening, log.open("wb") as output:
            self.port = listening.getsockname()[1]
            # As servers set it on sockets that they open themselves; what they accept here inherits it.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.process = subprocess.Popen(
                command(listening.fileno()),
                pass_fds=[listening.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=environ,
                preexec_fn=_end_with_the_test,
                start_new_session=True,
            )

    def log(self):
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def warnings(self):
        """What the cache had reason to say, in every worker."""
        lines = [line.partition(" ")[2] for line in self.log().splitlines() if line.startswith("wsgicache ")]
        return [line.partition(" ")[2] for line in lines if not line.startswith("INFO ")]

    def connect(self):
        """A new connection."""
        return Connection(self.port)

    def get(self, target, *lines, **how):
        """One request on a connection of its own."""
        with self.connect() as connection:
            return connection.get(target, *lines, **how)

    def at_once(self, path, number):
        """Several requests, sent before an answer is read, so that every worker has reason to wake."""
        connections = [self.connect() for _ in range(number)]
        for connection in connections:
            connection.ask(path)
        answers = []
        for connection in connections:
            with connection:  # hung up at once: a sync worker waits for that
                answers.append(connection.read())
        return answers

    def workers(self, path, number=2):
        """Ask until so many workers have answered; their process ids, with an answer of each."""
        found = {}

        def all_have():
            found.update([(worker_of(answer), answer) for answer in self.at_once(path, 2 * number)])
            return len(found) >= number

        until(all_have, what=f"an answer of {number} workers")
        return found

    def lines_to_workers(self, path, stack, number=2):
        """A kept connection to each worker, by process id."""
        lines = {}

        def all_have():
            connections = [stack.enter_context(self.connect()) for _ in range(2 * number)]
            for connection in connections:
                connection.ask(path)
            for connection in connections:
                lines.setdefault(worker_of(connection.read()), connection)
            return len(lines) >= number

        until(all_have, what=f"a connection to {number} workers")
        return lines

    def ask_until(self, path, body, *lines):
        """Ask until a body comes."""
        return until(lambda: (answer := self.get(path, *lines)).body == body and answer, what=f"{body!r}")

    def stop(self, timeout=PATIENCE):
        """End it by SIGTERM; returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)  # the workers too
            self.process.wait()
            raise


def worker_of(answer):
    """The process that an answer comes from."""
    return int(answer.field("x-worker"))


# --- servers ---------------------------------------------------------------------------------------


def gunicorn(kind, *arguments, workers=2, threads=4):
    """The command line of gunicorn."""
    if kind == "gevent":
        pytest.importorskip("gevent", reason="pip install gevent")
    command = [
        sys.executable, "-m", "gunicorn", "-c", str(HERE / "deploy_gunicorn.py"), "-k", kind,
        "--workers", str(workers), "--graceful-timeout", str(GRACE), "--keep-alive", "10",
        "--log-level", "warning",
    ]  # fmt: skip
    if _knows("--no-control-socket"):
        command.append("--no-control-socket")
    if kind == "gthread":
        command += ["--threads", str(threads)]
    return lambda descriptor: [
        *command, *arguments, "--bind", f"fd://{descriptor}", "deploy_app:application",
    ]  # fmt: skip


def _knows(option):
    from gunicorn.config import Config

    return any(option in (setting.cli or ()) for setting in Config().settings.values())


def uwsgi(*arguments):
    """The command line of uWSGI."""
    program = shutil.which(
        "uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if program is None:
        pytest.skip("uwsgi is not installed: pip install uwsgi (it needs a C compiler)")
    return lambda descriptor: [
        program, "--master", "--die-on-term", "--no-orphans", "--need-app", "--processes", "2",
        "--virtualenv", sys.prefix, "--pythonpath", str(ROOT), "--pythonpath", str(HERE),
        "--http-socket", f"fd://{descriptor}", "--module", "deploy_app:application", "--disable-logging",
        *arguments,
    ]  # fmt: skip


@contextmanager
def running(command, origin, store, directory, options=None, **variables):
    """A site for one test."""
    number = len(list(directory.glob("site*.log")))
    site = Site(command, origin, store, directory / f"site{number}.log", options, **variables)
    try:
        yield site
    finally:
        site.stop()


# --- requests that take their time -------------------------------------------------------------------


class Later:
    """A call on a thread of its own."""

    def __init__(self, job, *args, **kwargs):
        self._result = self._error = None
        self._thread = threading.Thread(target=self._run, args=(job, args, kwargs), daemon=True)
        self._thread.start()

    def _run(self, job, args, kwargs):
        try:
            self._result = job(*args, **kwargs)
        except BaseException as error:
            self._error = error

    @property
    def ended(self):
        return not self._thread.is_alive()

    def result(self, timeout=2 * PATIENCE):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the call did not end"
        if self._error is not None:
            raise self._error
        return self._result


def old(body=b"old", window=3600, age=11):
    """A response that is stale when it comes, inside its stale-while-revalidate window."""
    control = ("Cache-Control", f"max-age=10, stale-while-revalidate={window}")
    return Answer(headers=plain(control, ("Age", str(age))), body=body)


def numbered(seen):
    """Each answer of the app is another."""
    return kept(b"answer %d" % seen.number)
