"""What runs inside the workers: the app of the origin tests, which does as the test tells it, behind a cache
over a store that the workers share.

`DEPLOY_STORE` is its URL, `DEPLOY_OPTIONS` its options as JSON. With `DEPLOY_OPENED` the store is used as
soon as the cache is made, as sites do that purge or warm up at start: where a server loads the app before it
forks, what is open then is inherited.
"""

import json
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "origin"))

from origin_app import app

from wsgicache import Rule, WSGICache

logging.basicConfig(format="%(name)s %(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)

cache = WSGICache(
    app,
    os.environ["DEPLOY_STORE"],
    rules=[Rule("/*", bypass=True, host="closed.test", name="closed")],
    **json.loads(os.environ.get("DEPLOY_OPTIONS", "{}")),
)
if os.environ.get("DEPLOY_OPENED"):
    assert cache.explain("/").reason.name == "URI_MISS", "the store does not answer"


def application(environ, start_response):
    """Every response says which process it comes from, hits too."""

    def start(status, headers, exc_info=None):
        said = ("X-Worker", str(os.getpid())), ("X-Threads", str(environ["wsgi.multithread"]))
        return start_response(status, [*headers, *said], exc_info)

    return cache(environ, start)
