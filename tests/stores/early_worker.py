"""A worker with a site of its own over a store: `early_worker.py URL NOW`. It takes orders on its standard
input, a line each, and answers with a line of JSON."""

import json
import sys

from wsgicache import WSGICache
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask


class Worker:
    """A page that costs a second and lives for a hundred; its app can be held."""

    def __init__(self, url, now):
        self.clock = FakeClock(float(now))
        self.app = ScriptedApp(self._answer)
        self.cache = WSGICache(self.app, url, ttl=100, early_refresh=1, clock=self.clock, lease=60)
        self.cache.engine.uniform = lambda: 0.5
        self.body = b"old"
        self.gate = None

    def _answer(self, environ):
        self.clock.tick(1)
        return Response(body=self.body)

    def ask(self):
        reply = ask(self.cache, "/page")
        return [reply.detail or ("HIT" if reply.is_hit else "stored"), reply.body.decode()]

    def wait_until_due(self):
        """Turn the clock on to three seconds before the page's end; what is made from now on is new."""
        self.clock.now = float(sys.argv[2]) + 97
        self.body = b"new"
        self.gate = self.app.hold("/page")

    def runs(self):
        return self.app.calls

    def open(self):
        self.gate.open()

    def drain(self):
        return self.cache.engine.refresher.drain(20)


def main():
    worker = Worker(*sys.argv[1:])
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        print(json.dumps(getattr(worker, line.strip())()), flush=True)
    worker.cache.close()


if __name__ == "__main__":
    main()
