"""Flask's caching pattern: make one cache, get, and where there is nothing compute and set."""

from flask import Flask

from wsgicache.flask.backends import GAEMemcachedCache, MemcachedCache, SimpleCache

DEVELOPMENT = SimpleCache


def production(servers):
    """A cache for production: memcached, which App Engine has too."""
    assert issubclass(GAEMemcachedCache, MemcachedCache)
    return MemcachedCache(servers)


def make_app(cache):
    """An app whose view reads through a cache."""
    app = Flask(__name__)
    app.computed = 0

    def calculate_value():
        app.computed += 1
        return {"answer": 42}

    def get_my_item():
        rv = cache.get("my-item")
        if rv is None:
            rv = calculate_value()
            cache.set("my-item", rv, timeout=5 * 60)
        return rv

    app.add_url_rule("/", "item", get_my_item)
    return app
