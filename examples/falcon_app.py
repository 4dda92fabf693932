"""A Falcon app behind the cache.

Run it: gunicorn --chdir examples falcon_app:application
"""

from itertools import count

import falcon

from wsgicache import WSGICache

renders = count(1)


class Home:
    def on_get(self, req, resp):
        resp.media = {"renders": next(renders)}


app = falcon.App()
app.add_route("/", Home())
application = WSGICache(app)
