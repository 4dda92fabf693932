"""What the manual of Flask-Caching 2.0 shows, section by section."""

import random

from flask import Flask, make_response, render_template_string, request
from flask.views import View

from wsgicache.flask import Cache, CachedResponse, make_template_fragment_key
from wsgicache.flask.backends.simplecache import SimpleCache

config = {
    "DEBUG": True,  # some Flask specific configs
    "CACHE_TYPE": "simple",  # the name it had before 2.5
    "CACHE_DEFAULT_TIMEOUT": 300,
}


def make_app(**more):
    """The app of the manual, and its cache."""
    app = Flask(__name__)
    # tell Flask to use the above defined config
    app.config.from_mapping({**config, **more})
    cache = Cache(app)
    app.cache = cache
    app.runs = []

    # --- caching view functions

    @app.route("/")
    @cache.cached(timeout=50)
    def index():
        app.runs.append("index")
        return "Cached for 50s"

    # --- caching pluggable view classes

    class MyView(View):
        @cache.cached(timeout=50)
        def dispatch_request(self):
            app.runs.append("class")
            return "Cached for 50s"

    app.add_url_rule("/class", view_func=MyView.as_view("my_view"))

    # --- caching other functions

    @cache.cached(timeout=50, key_prefix="all_comments")
    def get_all_comments():
        app.runs.append("comments")
        return ["Looks great!", "Me too."]

    app.get_all_comments = get_all_comments

    # --- a key of one's own, for the body of a POST

    def json_key(*args, **kwargs):
        user_data = request.get_json()
        return ",".join([f"{key}={value}" for key, value in user_data.items()])

    @app.route("/hello", methods=["POST"])
    @cache.cached(timeout=60, make_cache_key=json_key)
    def some_func():
        app.runs.append("hello")
        return f"Hello {request.get_json()['name']}"

    # --- memoization

    class Person:
        def __init__(self, number):
            self.number = number

        @cache.memoize(50)
        def has_membership(self, role_id):
            app.runs.append((self.number, role_id))
            return role_id < self.number

        def __repr__(self):
            return f"{self.__class__.__name__}({self.number})"

    app.person_class = Person

    @cache.memoize(timeout=50)
    def big_foo(a, b):
        return a + b + random.randrange(0, 1000000)

    app.big_foo = big_foo

    # --- a response with its own timeout

    @app.route("/own")
    @cache.cached(timeout=50)
    def own():
        app.runs.append("own")
        return CachedResponse(response=make_response("own"), timeout=60)

    # --- fragments

    @app.route("/fragment")
    def fragment():
        return render_template_string(
            "{% cache 60*5 %}{{ draw() }}{% endcache %}"
            "{% cache 60, 'key2', 'some_variable' %}{{ draw() }}{% endcache %}",
            draw=lambda: random.randrange(0, 1000000),
        )

    def forget_fragment():
        cache.delete(make_template_fragment_key("key2", vary_on=["some_variable"]))

    app.forget_fragment = forget_fragment

    # --- explicitly

    @app.route("/html/<path:foo>")
    def html(foo):
        bar = cache.get("bar")
        if bar is None:
            bar = f"bar of {foo}"
            cache.set("bar", bar)
        return bar

    return app


# --- custom backends, in the manual's two forms


class Custom(SimpleCache):
    """A class with a factory of three arguments, as older manuals have it."""

    @classmethod
    def factory(cls, app, args, kwargs):
        args.append(app.config["CUSTOM_THRESHOLD"])
        return cls(*args, **kwargs)


def custom(app, config, args, kwargs):
    """A function of four arguments."""
    args.append(app.config["CUSTOM_THRESHOLD"])
    return SimpleCache(*args, **kwargs)


def custom_of_three(app, args, kwargs):
    """A function of three arguments."""
    args.append(app.config["CUSTOM_THRESHOLD"])
    return SimpleCache(*args, **kwargs)
