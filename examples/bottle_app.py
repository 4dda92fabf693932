"""A Bottle app behind the cache.

Run it: gunicorn --chdir examples bottle_app:application
"""

from itertools import count

from bottle import Bottle

from wsgicache import WSGICache

app = Bottle()
renders = count(1)


@app.get("/")
def home():
    return f"<p>The app has rendered this page {next(renders)} time(s).</p>\n"


application = WSGICache(app)
