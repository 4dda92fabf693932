"""An app for a real uWSGI with two workers: its views say what the test wants to know."""

import os
import socket
from threading import Barrier, Thread

from flask import Flask, jsonify, request

from wsgicache.flask import Cache

app = Flask(__name__)
app.config["SECRET_KEY"] = "secret"
cache = Cache(app, config={"CACHE_TYPE": "uwsgi", "CACHE_UWSGI_NAME": "mine"})
backend = cache.cache


def at_the_test(port):
    """Tell the test that this worker is at work, and wait until it lets go."""
    with socket.create_connection(("127.0.0.1", int(port)), 30) as line:
        line.sendall(b"%d" % os.getpid())
        return line.recv(100).decode()


@cache.memoize(60, groups="posts")
def slow(port):
    return at_the_test(port)


@app.route("/slow")
def slow_view():
    return slow(request.args["port"])


@app.route("/purge")
def purge():
    cache.purge_groups("posts")
    return "purged"


@app.route("/count/<name>/<int:n>")
def count(name, n):
    """Count from several threads at once; another worker does the same."""
    gate = Barrier(2)

    def run():
        gate.wait()
        for _ in range(n):
            backend.inc(name, 1, 600)

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return f"{backend.get(name)}"


@app.route("/add/<int:n>")
def add(n):
    return f"{sum(backend.add(f'add{m}', 1) for m in range(n))}"


@app.route("/values")
def values():
    """What a backend must do, step by step; the test knows what comes out."""
    found = {}
    cache.set("key", {"a": (1,)})
    found["kept"] = repr(cache.get("key"))
    found["add of what lives"] = cache.add("key", 2)
    cache.set("key", 1, -1)
    found["expired at once"] = cache.get("key"), cache.has("key")
    found["add of what is gone"] = cache.add("key", 5), cache.inc("key"), cache.dec("key", 10)
    cache.set("text", "x")
    try:
        cache.inc("text")
    except TypeError:
        found["counting a text"] = "TypeError"
    cache.set("long" * 500, 1)
    found["long key"] = cache.get("long" * 500)
    cache.set("big", "small")
    found["too large"] = cache.set("big", "x" * 100_000), cache.get("big")
    cache.set("view//a", 1)
    cache.delete_prefix("view/")
    found["prefix"] = cache.get("view//a")
    found["many"] = cache.set_many({"m": 1, "n": 2}), cache.get_many("m", "n", "o")
    found["deleted"] = cache.delete("m"), cache.delete("m"), cache.get("m")
    found["clear"] = cache.clear(), cache.get("n")
    return jsonify(found)


@app.route("/time/<what>")
def turn_time(what):
    """Expiry by a clock that is turned instead of waited for."""
    import wsgicache.flask.contrib.uwsgicache as module

    class Clock:
        now = 1_900_000_000.0

        def time(self):
            return self.now

        def sleep(self, seconds):
            pass

    real, module.time = module.time, Clock()
    try:
        backend.set("short", 1, 10)
        backend.inc("counter", 3, 10)
        backend.set("touched", 1, 10)
        backend.set("ever", 1, 0)
        module.time.now += 6
        left = backend.ttl("short"), backend.ttl("missing"), backend.ttl("ever") == float("inf")
        counted, touched = backend.inc("counter"), backend.touch("touched", 20)
        module.time.now += 5
        found = {
            "short": backend.get("short"), "counter": backend.get("counter"), "counted": counted,
            "touched": backend.get("touched"), "touch": touched, "ever": backend.get("ever"),
            "left": left, "gone": backend.touch("short", 5), "added": backend.add("short", 2),
        }  # fmt: skip
    finally:
        module.time = real
        backend.clear()
    return jsonify(found)


class Meddled:
    """uWSGI's own functions, with something done just before one of them is called for the first time."""

    def __init__(self, uwsgi, name, do):
        self.uwsgi, self.name, self.do = uwsgi, name, do

    def __getattr__(self, name):
        if name == self.name and self.do is not None:
            do, self.do = self.do, None
            do()
        return getattr(self.uwsgi, name)


@app.route("/lock/<what>")
def lock(what):
    """Whether a lock is really held inside, whatever was met on the way to it."""
    import wsgicache.flask.contrib.uwsgicache as module

    real = backend._uwsgi
    name = f"_wsgicache_lock_{module.crc32(b'locked') % module._LOCKS}"

    def free():
        real.cache_del(name, "mine")

    def take(pid, age=0):
        real.cache_set(name, module._LOCK.pack(module.time.time() - age, pid, -1), 0, "mine")

    held = []
    try:
        if what == "released":
            take(os.getpid())
            backend._uwsgi = Meddled(real, "cache_get", free)
        elif what == "dead":
            child = os.spawnlp(os.P_NOWAIT, "true", "true")
            os.waitpid(child, 0)
            take(child)
        elif what == "overdue":
            take(os.getppid(), age=31)
        with backend._locked("locked"):
            held.append(real.cache_exists(name, "mine"))
            if what == "lost":
                free()
                take(os.getppid())
        held.append(real.cache_exists(name, "mine"))
    finally:
        backend._uwsgi = real
        free()
    return jsonify([bool(one) for one in held])


@app.route("/full")
def full():
    """A cache that takes nothing more keeps nobody waiting."""
    n = 0
    while backend.set(f"filler{n}", n, 0):
        n += 1
    runs = []

    @cache.memoize(60)
    def f():
        runs.append(1)
        return "value"

    answers = [f(), f()]
    added, counted = backend.add("new", 1), backend.inc("new")
    down = cache.link.is_down
    backend.clear()
    return jsonify(answers=answers, runs=len(runs), added=added, counted=counted, down=down)
