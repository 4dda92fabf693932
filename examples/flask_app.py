"""A Flask app behind the cache.

Run it: gunicorn --chdir examples flask_app:application
"""

from itertools import count

from flask import Flask

from wsgicache import WSGICache

app = application = Flask(__name__)
renders = count(1)


@app.get("/")
def home():
    return f"<p>The app has rendered this page {next(renders)} time(s).</p>\n"


app.wsgi_app = WSGICache(app.wsgi_app)
