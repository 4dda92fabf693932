"""Caches to compare with: each a process in the foreground, on a free port, in a directory of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ports import free_port

ROOT = Path(__file__).resolve().parents[2]

VCL = """
vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{origin}"; }}
"""

NGINX = """
daemon off;
master_process off;
pid {directory}/pid;
error_log stderr;
events {{ worker_connections 256; }}
http {{
    access_log off;
    {temporary}
    proxy_cache_path {directory}/cache keys_zone=pages:1m inactive=1h;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{origin};
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_cache pages;
            proxy_cache_revalidate on;
        }}
    }}
}}
"""


def program(name: str) -> str | None:
    """Where a server is installed, if it is; Debian puts them where a user's PATH does not look."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def varnish(origin: int, directory: Path) -> tuple[list[str], int]:
    """Varnish with its built-in rules: nothing is given a lifetime or a grace that it does not state."""
    port = free_port()
    (directory / "default.vcl").write_text(VCL.format(origin=origin), encoding="ascii")
    parameters = ["default_ttl=0", "default_grace=0", "default_keep=3600"]
    return [
        str(program("varnishd")), "-F", "-j", "none", "-n", str(directory),
        "-a", f"127.0.0.1:{port}", "-f", str(directory / "default.vcl"), "-s", "malloc,16m",
        *[word for parameter in parameters for word in ("-p", parameter)],
    ], port  # fmt: skip


def nginx(origin: int, directory: Path) -> tuple[list[str], int]:
    """nginx's proxy_cache as its manual shows it, with revalidation switched on."""
    port = free_port()
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n    ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    text = NGINX.format(origin=origin, port=port, directory=directory, temporary=temporary)
    (directory / "nginx.conf").write_text(text, encoding="ascii")
    return [str(program("nginx")), "-p", str(directory), "-c", str(directory / "nginx.conf")], port


def wsgicache(origin: int, directory: Path) -> tuple[list[str], int]:
    """wsgicache as a caching proxy, with the profile rfc."""
    port = free_port()
    proxy = ROOT / "examples" / "proxy.py"
    address = f"http://127.0.0.1:{origin}"
    options = ["--origin", address, "--port", str(port), "--profile", "rfc", "--threads", "4"]
    return [sys.executable, str(proxy), *options], port


PEERS = {"varnish": ("varnishd", varnish), "nginx": ("nginx", nginx)}


@contextmanager
def cache(name: str, origin: int, directory: Path) -> Iterator[int]:
    """A running cache; gives its port."""
    directory.mkdir()
    make = wsgicache if name == "wsgicache" else PEERS[name][1]
    command, port = make(origin, directory)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**_own_variables(), "PYTHONPATH": str(ROOT)},
        )
    try:
        _wait_until_it_listens(process, port, directory / "log")
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _own_variables() -> dict[str, str]:
    """The environment without what would set an option of the proxy's cache."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WSGICACHE_")}


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{process.args!r} does not listen: {log.read_text()}") from None
            time.sleep(0.02)
