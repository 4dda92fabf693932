"""nginx and Varnish, as Debian ships them, in front of an app: in a temporary directory, on a free port.

Both have the configuration that their manuals begin with. The system's own services are not touched.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from _apps import PAGE, PATH
from _servers import Running, free_port, program, running

PROXY = """
        location / {{
            proxy_pass http://127.0.0.1:{app};
            proxy_cache pages;
            proxy_cache_valid 200 1h;
            add_header X-Cache-Status $upstream_cache_status;{more}
        }}"""
STATIC = """
        root {directory}/site;
        default_type "text/html; charset=utf-8";"""
OPEN_FILES = """
            open_file_cache max=1000;
            open_file_cache_valid 1h;"""

# The temporary paths have to be named: the built-in ones belong to the system's own nginx. As in Debian's
# nginx.conf, `sendfile` and `tcp_nopush` are on. A connection may carry any number of requests, as with every
# other server here.
NGINX = """{user}daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{
    worker_connections 768;
}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000000;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    proxy_cache_path {directory}/cache keys_zone=pages:10m;
    server {{
        listen 127.0.0.1:{port};{content}
    }}
}}
"""

VCL = """vcl 4.1;
backend default {{
    .host = "127.0.0.1";
    .port = "{app}";
}}
"""


def nginx_files(directory: Path, kind: str, port: int, app: int) -> list[str]:
    """Write the configuration of a `kind` (nginx, nginx-open, nginx-static); return what runs it."""
    more = OPEN_FILES if kind == "nginx-open" else ""
    content = STATIC if kind == "nginx-static" else PROXY
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};\n" if os.getuid() == 0 else ""
    page = directory / "site" / PATH.lstrip("/")
    page.parent.mkdir(exist_ok=True)
    page.write_bytes(PAGE)
    filled = content.format(directory=directory, app=app, more=more)
    written = NGINX.format(user=user, directory=directory, port=port, content=filled)
    (directory / "nginx.conf").write_text(written, encoding="ascii")
    errors = str(directory / "error.log")
    return [program("nginx"), "-e", errors, "-p", str(directory), "-c", str(directory / "nginx.conf")]


def varnish_files(directory: Path, kind: str, port: int, app: int) -> list[str]:
    """Write the VCL that names the app and nothing else; return the command that runs it."""
    directory.chmod(0o755)  # its child runs as a user of its own
    (directory / "default.vcl").write_text(VCL.format(app=app), encoding="ascii")
    command = [program("varnishd", "varnish"), "-F", "-a", f"127.0.0.1:{port}", "-s", "malloc,256m"]
    return [*command, "-f", str(directory / "default.vcl"), "-n", str(directory / "run"), "-T", "none"]


FILES = {
    "nginx": nginx_files,
    "nginx-open": nginx_files,
    "nginx-static": nginx_files,
    "varnish": varnish_files,
}


@contextmanager
def proxy(kind: str, app: int, cores: Collection[int] = ()) -> Iterator[Running]:
    """Run one in front of the app at port `app`.

    Raises:
        Missing: it is not installed.
    """
    with (
        tempfile.TemporaryDirectory() as name,
        running(lambda port: FILES[kind](Path(name), kind, port, app), cores) as server,
    ):
        yield server


def check_configuration(kind: str) -> str:
    """Have the program itself read the configuration of a `kind`; return what it says.

    Raises:
        Missing: it is not installed.
        subprocess.CalledProcessError: it refuses.
    """
    with tempfile.TemporaryDirectory() as name:
        command = FILES[kind](Path(name), kind, free_port(), free_port())
        if kind == "varnish":
            command = [command[0], "-C", "-f", f"{name}/default.vcl", "-n", f"{name}/run"]
        else:
            command.append("-t")
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr
