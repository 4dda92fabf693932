"""One process of a site under races: requests, purges and changes by a seeded schedule, written down.

Run as a program with a JSON configuration; see `test_purge_linear.py`.
"""

import json
import mmap
import random
import struct
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from histories import Asked, Purged, write

from wsgicache import WSGICache
from wsgicache.testing import ask

PAGES = 4
PER_SCHEDULE = 8
PATIENCE = 30.0


class Data:
    """Versions of pages in a file that all processes see. Only the page's owner changes it."""

    def __init__(self, path):
        with Path(path).open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    def read(self, number):
        return struct.unpack_from("<q", self._map, number * 8)[0]

    def change(self, number):
        struct.pack_into("<q", self._map, number * 8, self.read(number) + 1)


class Worker:
    """The cache of this process, its app, and the schedule."""

    def __init__(self, config):
        self.config = config
        self.data = Data(config["data"])
        self.owner = config["worker"]
        options = dict(config["options"])
        near = bool(options.get("near"))
        self.wait = near and bool(config["wait"])
        self.late = options["near_bound"] if near and config["wait"] is False else 0.0
        """Seconds after which a purge that returned is in force in the other processes too."""
        self.cache = WSGICache(self.app, config["store"], max_followers=50, **options)
        self.pause = threading.Event()
        self.file = Path(config["history"]).open("a")  # noqa: SIM115 - until the process ends
        self.lock = threading.Lock()

    # --- the site ---

    def app(self, environ, start_response):
        """Reads the data first and answers after a while: what happens in between is the race."""
        number = int(environ["PATH_INFO"].rpartition("/")[2])
        version = self.data.read(number)
        if environ["REQUEST_METHOD"] == "POST":
            start_response("204 No Content", [])
            return []
        self.pause.wait(random.choice((0, 0, 0.0005, 0.002)))
        headers = [
            ("Cache-Control", "max-age=600, stale-while-revalidate=600"),
            ("Cache-Tag", f"g{number % 2}"),
            ("Content-Length", "8"),
            ("X-Version", str(version)),
        ]
        if number % 3 == 0:
            headers.append(("Vary", "X-Variant"))
        if number % 2:
            headers.append(("ETag", f'"{version}"'))
            if environ.get("HTTP_IF_NONE_MATCH") == f'"{version}"':
                start_response("304 Not Modified", headers[:2] + headers[3:])
                return []
        start_response("200 OK", headers)
        return [struct.pack("<q", version)]

    # --- the schedule ---

    def run(self, thread):
        for seed in range(self.config["first"], self.config["last"]):
            dice = random.Random(f"{seed}/{self.owner}/{thread}")
            for _ in range(PER_SCHEDULE):
                self.step(dice)

    def step(self, dice):
        number = dice.randrange(PAGES)
        what = dice.random()
        if what < 0.7:
            self.ask(number, dice)
            return
        if number % self.config["workers"] == self.owner:
            with self.lock:
                self.data.change(number)
        if what < 0.95:
            self.purge(number, dice)
        else:
            self.post(number)

    def ask(self, number, dice):
        page = f"/blog/{number}"
        headers = {"X-Variant": dice.choice("ab")}
        began = time.monotonic()
        reply = ask(self.cache, page, method=dice.choice(("GET", "GET", "GET", "HEAD")), headers=headers)
        version = int(reply.field("x-version"))
        status = reply.field("cache-status")
        fresh = reply.is_hit and int(reply.cache["ttl"]) > 0 and reply.detail is None
        self.note(Asked(began, time.monotonic(), page, version, fresh, status))
        if reply.body:
            assert struct.unpack("<q", reply.body) == (version,), "a head and a body of two versions"

    def purge(self, number, dice):
        kind = dice.choice(("url", "url", "prefix", "group", "all"))
        soft = dice.random() < 0.3
        covered = {
            "url": [number],
            "group": [n for n in range(PAGES) if n % 2 == number % 2],
        }.get(kind, range(PAGES))
        began = time.monotonic()
        versions = {f"/blog/{n}": self.data.read(n) for n in covered}
        given = {"soft": soft, "wait": self.wait}
        if kind == "url":
            self.cache.purge(f"/blog/{number}", **given)
        elif kind == "prefix":
            self.cache.purge_prefix("/blog", **given)
        elif kind == "group":
            self.cache.purge_groups(f"g{number % 2}", **given)
        else:
            self.cache.clear(**given)
        self.note(Purged(began, time.monotonic() + self.late, kind, soft, versions))

    def post(self, number):
        """An unsafe request invalidates; a near tier elsewhere hears of it within its bound only."""
        began = time.monotonic()
        versions = {f"/blog/{number}": self.data.read(number)}
        ask(self.cache, f"/blog/{number}", method="POST", body=b"x")
        if not self.wait:
            self.note(Purged(began, time.monotonic() + self.late, "post", False, versions))

    def note(self, event):
        with self.lock:
            write(self.file, event)


def break_fence(how):
    """Faults that the check must see."""
    from wsgicache import engine
    from wsgicache.follow import Follower
    from wsgicache.journal import Verdict
    from wsgicache.stores.near import NearStore

    if how == "born late":  # as if it had been asked for when it was stored
        keep = engine.Engine.keep

        def late(self, entry, found, token):
            follower = found.follower
            born = follower.store.mark_of(entry.key)
            entry = type(entry)(
                entry.key, entry.terms, entry.headers, entry.body, entry.since, entry.fresh_until, born,
                entry.values,
            )  # fmt: skip
            return keep(self, entry, found, token)

        engine.Engine.keep = late
    elif how == "nobody is told":  # what is armed stays so
        NearStore._tell = lambda self: None
    elif how == "another bucket":  # purges of URLs go where their pages are not
        from wsgicache.stores.rediscluster import ClusterStore

        part_of_path = ClusterStore.part_of_path
        ClusterStore.part_of = lambda self, key: part_of_path(self, key.partition("\0")[0])
        ClusterStore.part_of_path = lambda self, path: (part_of_path(self, path) + 1) % len(self.parts)
    elif how == "never judged":
        Follower.verdict = lambda self, entry: Verdict.VALID
    elif how == "never followed":
        follow = Follower.follow
        Follower.follow = lambda self, mark: follow(self, mark) if self._index.mark is None else None
    elif how == "soft is nothing":
        verdict = Follower.verdict
        Follower.verdict = lambda self, entry: (
            Verdict.VALID if verdict(self, entry) is Verdict.SOFT else verdict(self, entry)
        )
    else:
        raise ValueError(how)


def main():
    config = json.loads(sys.argv[1])
    if config.get("broken"):
        break_fence(config["broken"])
    worker = Worker(config)
    print("ready", flush=True)
    sys.stdin.readline()
    errors = []

    def run(number):
        try:
            worker.run(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(config["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    worker.cache.engine.refresher.drain(PATIENCE)
    worker.cache.close()


if __name__ == "__main__":
    main()
