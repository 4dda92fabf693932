"""A site for several worker processes and for the `flask` command: both caches in one Redis."""

import os
import sys

from flask import Flask

from wsgicache.flask import Cache, SiteCache
from wsgicache.testing import ask

app = Flask(__name__)
port = int(os.environ["SITE_REDIS_PORT"])
app.config.update(
    SECRET_KEY="secret",
    CACHE_TYPE="RedisCache", CACHE_REDIS_PORT=port, CACHE_DEADLINE=5,
    WSGICACHE_STORE=f"redis://127.0.0.1:{port}/1", WSGICACHE_STORE_TIMEOUT=5,
)  # fmt: skip
cache = Cache(app)
site = SiteCache(app)


@cache.memoize(60, groups=lambda n: [f"post-{n}"])
def text(n):
    return f"post {n}"


@app.route("/post/<int:n>")
@site.ttl(60)
@site.groups("post-{n}")
def post(n):
    return f"{text(n)} by {os.getpid()}"


@app.route("/basket")
@site.bypass
def basket():
    return f"basket of {os.getpid()}"


def serve():
    """A worker: it answers the paths on its standard input, and reports its counts when it is told to."""
    print("ready", flush=True)
    for line in sys.stdin:
        if line.strip() == "report":
            site.stats()
            print("reported", flush=True)
            continue
        answer = ask(app, line.strip())
        print("hit" if answer.is_hit else "miss", answer.body.decode(), flush=True)
