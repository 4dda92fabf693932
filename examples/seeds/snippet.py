"""Flask snippet 9 by Dan Jacob (public domain): a cached view, and a cached site by two hooks."""

from functools import wraps

from flask import Flask, render_template_string, request

from wsgicache.flask.backends import SimpleCache

CACHE_TIMEOUT = 300

cache = SimpleCache()


class cached:  # noqa: N801 - the snippet's name
    def __init__(self, timeout=None):
        self.timeout = timeout or CACHE_TIMEOUT

    def __call__(self, f):
        @wraps(f)
        def decorator(*args, **kwargs):
            response = cache.get(request.path)
            if response is None:
                response = f(*args, **kwargs)
                cache.set(request.path, response, self.timeout)
            return response

        return decorator


def per_view():
    """The first half: a decorator for a view."""
    app = Flask(__name__)
    app.renders = 0

    @app.route("/")
    @cached()
    def index():
        app.renders += 1
        return render_template_string("<p>{{ n }}</p>", n=app.renders)

    return app


def whole_site():
    """The second half: a hook before each request, and one after."""
    app = Flask(__name__)
    app.renders = 0

    @app.route("/", methods=["GET", "POST"])
    @app.route("/<name>", methods=["GET", "POST"])
    def page(name="index"):
        app.renders += 1
        return f"{name} {app.renders}"

    @app.before_request
    def return_cached():
        # if GET and POST not empty
        if not request.values:
            response = cache.get(request.path)
            if response:
                return response
        return None

    @app.after_request
    def cache_response(response):
        if not request.values:
            cache.set(request.path, response, CACHE_TIMEOUT)
        return response

    return app
