"""Serve the example site and give an account of a few requests; started by ``scripts/demo``."""

import argparse
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

ROOT = Path(__file__).resolve().parent.parent
INI = ROOT / "examples" / "flask_site" / "site.ini"
READY_WITHIN = 30.0  # seconds
POST = "/posts/reading-room"


class DemoFailed(Exception):
    """The demo cannot go on; the message says why."""


@dataclass
class Step:
    """One request, the word that its Cache-Status must hold, and why in plain words."""

    title: str
    path: str
    expect: str
    why: str
    form: dict[str, str] | None = None
    cookie: bool = False


@dataclass
class Answer:
    """What came back, and after how many milliseconds it was there in full."""

    status: int
    milliseconds: float
    cache_status: str
    body: str
    cookie: str


NEW_TEXT = {
    "title": "The reading room opens at seven",
    "summary": "From Monday you can read the papers before work, and before school too.",
    "body": "From Monday the reading room opens at seven.",
}

STEPS = [
    Step("home, first visitor", "/", "fwd=uri-miss", "not stored yet; the app made it."),
    Step("home, second visitor", "/", "hit", "from the cache; the app was not asked."),
    Step("the slow report", "/report", "fwd=uri-miss", "the app took its time, once."),
    Step("the slow report again", "/report", "hit", "from the cache, at once."),
    Step(
        "home with a query",
        "/?utm_source=mail",
        "BYPASS_QUERY",
        "a query goes to the app unless a rule says what it means.",
    ),
    Step(
        "a search",
        "/search?q=tide",
        "fwd=uri-miss",
        "here a rule says that the query chooses the page, so it is stored.",
    ),
    Step(
        "the same search",
        "/search?q=tide&utm_source=mail",
        "hit",
        "the rule says that utm_... does not count, so it is the same page.",
    ),
    Step(
        "the style sheet",
        "/static/style.css",
        "fwd=uri-miss",
        "Flask says no-cache; the rule for /static/* overrides that for a day.",
    ),
    Step("the style sheet again", "/static/style.css", "hit", "from the cache."),
    Step(
        "the admin area",
        "/admin/",
        "BYPASS_RULE",
        "the rule named admin keeps everything below /admin out of the cache.",
    ),
    Step(
        "signing in",
        "/login",
        "fwd=method",
        "a POST always reaches the app.",
        form={"name": "editor", "password": "tidewater"},
    ),
    Step(
        "home, signed in",
        "/",
        "BYPASS_COOKIE",
        "with a session cookie the page may be personal, so the app makes it.",
        cookie=True,
    ),
    Step("a post", POST, "fwd=uri-miss", "the first visitor reads it, and it is stored."),
    Step(
        "saving the post",
        f"/admin{POST}",
        "BYPASS_RULE",
        "the view saves the new text and purges the post from the cache.",
        form=NEW_TEXT,
        cookie=True,
    ),
    Step("the post again", POST, "MISS_PURGED", "purged, so the next visitor reads the new text."),
    Step("the post once more", POST, "hit", "the new text, from the cache."),
]


def main() -> int:
    """Run the demo; the exit status is 0 when everything went as the account says."""
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.partition(";")[0])
    parser.add_argument("--once", action="store_true", help="end after the account")
    once = parser.parse_args().once
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, _: sys.exit(128 + number))
    try:
        with (
            tempfile.TemporaryDirectory(prefix="wsgicache-demo-") as folder,
            serving(Path(folder)) as (server, port),
        ):
            tell(port)
            if not once:
                keep_serving(server, port, Path(folder) / "instance" / "dashboard-secret")
    except DemoFailed as failure:
        print(f"\nThe demo failed: {failure}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
    return 0


@contextmanager
def serving(folder: Path):
    """Gunicorn with the example's ini on a free port, its database in ``folder``."""
    with socket.create_server(("127.0.0.1", 0)) as listener, open(folder / "log", "wb") as log:
        port = listener.getsockname()[1]
        server = subprocess.Popen(  # noqa: S603 - our own command, no shell
            gunicorn(listener, folder),
            cwd=ROOT,
            env=os.environ | {"XDG_RUNTIME_DIR": str(folder)},  # its control socket goes there
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C reaches only us, and we stop it in order
        )
    try:
        wait_until_ready(server, port, folder / "log")
        yield server, port
    finally:
        stop(server)


def gunicorn(listener: socket.socket, folder: Path) -> list[str]:
    """The command; the socket is handed over, so that nobody can take the port in between."""
    return [
        sys.executable, "-m", "gunicorn",
        "--paste", str(INI), "--paste-global", f"instance={folder / 'instance'}",
        "--bind", f"fd://{listener.fileno()}",
        "--worker-class", "gthread", "--workers", "1", "--threads", "8",
    ]  # fmt: skip


def wait_until_ready(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Ask until the site answers. The query bypasses the cache, so nothing is stored by this."""
    deadline = time.monotonic() + READY_WITHIN
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if ask(port, "/?ready").status == 200:
                return
        except OSError:
            time.sleep(0.1)
    raise DemoFailed(f"gunicorn did not serve the site. It said:\n{log.read_text()}")


def stop(server: subprocess.Popen[bytes]) -> None:
    """End gunicorn by its pid, with force if it does not listen."""
    if server.poll() is None:
        server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def ask(port: int, path: str, form: dict[str, str] | None = None, cookie: str = "") -> Answer:
    """Make one request on a connection of its own."""
    headers = {"Cookie": cookie} if cookie else {}
    body = urlencode(form) if form else None
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_WITHIN)
    began = time.perf_counter()
    try:
        connection.request("POST" if form else "GET", path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        taken = (time.perf_counter() - began) * 1000
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    given = response.getheader("Set-Cookie", "").partition(";")[0]
    return Answer(response.status, taken, response.getheader("Cache-Status", "-"), text, given)


def tell(port: int) -> None:
    """Take the steps and print a row for each; raise when one is not as told."""
    print(f"\n    {'request':<44}{'status':>7}{'time':>10}  Cache-Status")
    cookie = ""
    for number, step in enumerate(STEPS, 1):
        answer = ask(port, step.path, step.form, cookie if step.cookie else "")
        cookie = answer.cookie or cookie
        asked = f"{'POST' if step.form else 'GET'} {step.path}"
        took = f"{answer.milliseconds:.1f} ms"
        print(f"{number:>2}  {asked:<44}{answer.status:>7}{took:>10}  {answer.cache_status}")
        print(f"    {step.title}: {step.why}\n")
        if step.expect not in re.split(r"[;,]\s*|detail=", answer.cache_status):
            raise DemoFailed(f"the Cache-Status of request {number} should say {step.expect}.")
        if step.form:
            time.sleep(0.2)  # nobody clicks sooner: what the app changed until its very end is purged too
    if NEW_TEXT["title"] not in answer.body:
        raise DemoFailed("the post does not show its new title.")


def keep_serving(server: subprocess.Popen[bytes], port: int, secret: Path) -> None:
    """Wait for Ctrl-C."""
    print(f"The dashboard of the cache is at http://127.0.0.1:{port}/.cache/")
    print(f"Sign in with the secret that was made for this run: {secret.read_text()}")
    print(f"The site is at http://127.0.0.1:{port}/ until you press Ctrl-C.", flush=True)
    server.wait()
    raise DemoFailed(f"gunicorn ended by itself, with status {server.returncode}.")


if __name__ == "__main__":
    sys.exit(main())
