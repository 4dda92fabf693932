"""A Django site in one file behind the cache.

Run it: gunicorn --chdir examples django_app:application
"""

from itertools import count

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

from wsgicache import WSGICache

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["localhost", "127.0.0.1"],
    MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
)
renders = count(1)


def home(request):
    return HttpResponse(f"<p>The app has rendered this page {next(renders)} time(s).</p>\n")


urlpatterns = [path("", home)]
application = WSGICache(get_wsgi_application())
