"""A Pyramid app behind the cache.

Run it: gunicorn --chdir examples pyramid_app:application
"""

from itertools import count

from pyramid.config import Configurator
from pyramid.response import Response

from wsgicache import WSGICache

renders = count(1)


def home(request):
    return Response(f"<p>The app has rendered this page {next(renders)} time(s).</p>\n")


with Configurator() as config:
    config.add_route("home", "/")
    config.add_view(home, route_name="home")
    application = WSGICache(config.make_wsgi_app())
