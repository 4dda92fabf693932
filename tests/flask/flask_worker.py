"""A worker process for the tests: it does what the lines on its standard input say, and tells of it."""

import asyncio
import json
import sys

from flask import Flask

from wsgicache.flask import Cache


def say(*words):
    print(*words, flush=True)


def heard():
    line = sys.stdin.readline()
    if not line:
        raise SystemExit
    return line.strip()


class Worker:
    def __init__(self, config):
        app = Flask("worker")
        app.config["SECRET_KEY"] = "secret"
        self.cache = cache = Cache(app, config=config)
        self.take = cache.link.lease
        cache.link.lease = self.lease
        self.told = False

        @cache.memoize(60, groups="posts")
        def slow(n):
            say("entered")
            return heard()

        @cache.memoize(60)
        async def later(n):
            say("entered")
            return heard()

        @cache.cached(60, key_prefix="page")
        def page():
            say("entered")
            return heard()

        self.slow, self.later, self.page = slow, later, page

    def lease(self, key):
        """Tell, once a call, that another worker has it."""
        token = self.take(key)
        if token is None and not self.told:
            self.told = True
            say("waiting")
        return token

    def obey(self, word, *rest):
        self.told = False
        if word == "slow":
            say("answered", self.slow(int(rest[0])))
        elif word == "later":
            say("answered", asyncio.run(self.later(int(rest[0]))))
        elif word == "page":
            say("answered", self.page())
        elif word == "count":
            for _ in range(int(rest[0])):
                self.cache.inc("count")
            say("counted")
        elif word == "add":
            say("added", sum(self.cache.add(f"add{n}", 1) for n in range(int(rest[0]))))
        elif word == "purge":
            self.cache.purge_groups("posts")
            say("purged")
        elif word == "prefix":
            self.cache.delete_prefix(rest[0])
            say("purged")
        elif word == "delete":
            self.cache.delete("page")
            say("deleted")
        elif word == "forget":
            self.cache.delete_memoized(self.slow)
            say("forgotten")
        elif word == "stats":
            say("stats", json.dumps(self.cache.stats()))


if __name__ == "__main__":
    worker = Worker(json.loads(sys.argv[1]))
    say("ready")
    while True:
        worker.obey(*heard().split())
