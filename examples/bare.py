"""A bare WSGI callable behind the cache.

Run it: gunicorn --chdir examples bare:application
"""

from itertools import count

from wsgicache import WSGICache

renders = count(1)


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"The app has rendered this page {next(renders)} time(s).\n".encode()]


application = WSGICache(hello)
