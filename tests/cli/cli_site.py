"""A site as `--app`, `--mapping` and the environment name it; a fixture puts its cache here."""

from wsgicache.testing import Response

app = None


def answer(environ):
    """Pages in a group, which vary; one with a cookie; one that fails; a redirect; sitemaps."""
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "text/html")]
    if path.startswith("/posts/"):
        headers += [("Cache-Groups", '"posts"'), ("Vary", "Accept-Encoding")]
    if path == "/welcome":
        headers.append(("Set-Cookie", "visit=1"))
    if path == "/private":
        headers.append(("Cache-Control", "private"))
    if path == "/broken":
        raise RuntimeError("no database")
    if path in REDIRECTS:
        return Response("302 Found", [("Location", REDIRECTS[path])])
    if path in PAGES:
        return Response(headers=[("Content-Type", "application/xml")], body=PAGES[path])
    return Response(headers=headers, body=f"page {path}".encode())


REDIRECTS = {"/moved": "/posts/1", "/away": "http://other.example/", "/loop": "/loop"}
PAGES = {}


def factory():
    """As gunicorn is given a factory."""
    return app


class Held:
    """Middleware around the cache."""

    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        return self.inner(environ, start_response)


def around():
    return Held(Held(app))


def bare(environ, start_response):
    """An app without a cache."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"bare"]


def failing():
    raise RuntimeError("no settings")


number = 7
