"""A site for real servers: its first page is stored where the module is imported, in the master process."""

import os

from wsgicache import WSGICache

pid = os.getpid


def app(environ, start_response):
    """Each page says which process made it, and how often."""
    app.runs += 1
    if environ["PATH_INFO"] == "/purge":
        cache.purge("/page")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", cache_control(environ))])
    return [f"{pid()} {app.runs}".encode()]


def cache_control(environ):
    return "no-store" if environ["PATH_INFO"] in ("/purge", "/pid") else "max-age=600"


app.runs = 0
cache = WSGICache(app, os.environ["LMDB_SITE_STORE"])


def application(environ, start_response):
    """The cache, and who answered."""

    def told(status, headers, exc_info=None):
        return start_response(status, [*headers, ("X-Served-By", str(pid()))])

    return cache(environ, told)


def warm(host):
    environ = {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/warm", "QUERY_STRING": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_HOST": host,
        "wsgi.url_scheme": "http", "wsgi.multithread": False, "wsgi.multiprocess": True,
    }  # fmt: skip
    b"".join(cache(environ, lambda status, headers, exc_info=None: None))


warm(os.environ["LMDB_SITE_HOST"])
