"""Run by test_wsgi_django.py in a process of its own: visit a Django site behind the cache, step by step,
and print what happened as JSON."""

import io
import json
import sys
from wsgiref.util import FileWrapper

from django.conf import settings

settings.configure(
    ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], MIDDLEWARE=["django.middleware.common.CommonMiddleware"]
)

from django.core.signals import request_finished, request_started  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from wsgi_helpers import Exchange, new_cache  # noqa: E402

log = []


class Upload(io.BytesIO):
    """A file that says when it was closed."""

    def close(self):
        if not self.closed:
            log.append("file closed")
        super().close()


def chunks():
    for number in range(3):
        log.append(f"made {number}")
        yield f"{number}\n".encode()
    log.append("ended")


def stream(request):
    return StreamingHttpResponse(chunks(), content_type="text/plain")


def plain(request):
    return HttpResponse("plain", content_type="text/plain")


def events(request):
    return StreamingHttpResponse(chunks(), content_type="text/event-stream")


def download(request):
    return FileResponse(Upload(b"x" * 2000), content_type="application/octet-stream")


urlpatterns = [
    path("stream", stream),
    path("plain", plain),
    path("events", events),
    path("download", download),
]

application = get_wsgi_application()
request_started.connect(lambda **_: log.append("started"), weak=False)
request_finished.connect(lambda **_: log.append("finished"), weak=False)


def visit(url, pulls=None, cache=None, **kwargs):
    """One request on a new cache, with what was logged at each step."""
    log.clear()
    cache = new_cache(application, max_body_bytes=1000) if cache is None else cache
    exchange = Exchange(cache, url, **kwargs).begin()
    for _ in range(pulls or 0):
        exchange.pull()
        log.append("out")
    if pulls is None:
        exchange.rest()
    log.append("closing")
    exchange.close()
    return {
        "log": [*log],
        "body": exchange.body.decode(),
        "status": exchange.reply.field("cache-status"),
        "iterable": type(exchange.iterable).__name__,
    }


warm = new_cache(application)
answers = {
    "stream": visit("/stream", cache=warm),
    "stream again": visit("/stream", cache=warm),
    "step by step": visit("/stream", pulls=3),
    "left early": visit("/stream", pulls=1),
    "plain": visit("/plain"),
    "head": visit("/stream", method="HEAD"),
    "bypass": visit("/stream?q=1"),
    "post": visit("/events", method="POST"),
    "events": visit("/events", pulls=1),
    "download": visit("/download", **{"wsgi.file_wrapper": FileWrapper}),
    "download without wrapper": visit("/download"),
}
json.dump(answers, sys.stdout)
