"""Forms in stores that processes share: one makes them, all answer with them, and a purge reaches them."""

import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from servers_redis import empty, until

import wsgicache
from wsgicache import WSGICache
from wsgicache.testing import Response, ScriptedApp, ask

BODY = b"<p>a page that is long enough</p>" * 60
GZIP = {"Accept-Encoding": "gzip"}
OPTIONS = {"encode": "gzip"}

OTHER = """
import sys
from wsgicache import WSGICache
from wsgicache.testing import ScriptedApp, ask

made = []
app = ScriptedApp()
cache = WSGICache(app, sys.argv[1], encode="gzip", near=sys.argv[2] or None)
cache.engine.forms.make = lambda *what: made.append(what)
for _ in range(3):
    reply = ask(cache, headers={"Accept-Encoding": "gzip"})
print(reply.is_hit, reply.field("content-encoding"), reply.field("etag"), app.calls, len(made))
cache.purge("/")
cache.close()
"""
"""Another process: what it gets, how often it asked its app or began to make a form, and a purge."""


@pytest.fixture(params=["redis", "lmdb", "near"])
def url(request, tmp_path):
    if request.param == "lmdb":
        pytest.importorskip("lmdb")
        return f"lmdb://{tmp_path}/cache?max_bytes=8MB", ""
    return f"{empty().url}?timeout=20s", "1MB" if request.param == "near" else ""


def test_a_form_that_one_process_made_answers_in_another(url):
    url, near = url
    app = ScriptedApp(Response("200 OK", [("Content-Type", "text/html"), ("ETag", '"v1"')], BODY))
    cache = WSGICache(app, url, near=near or None, **OPTIONS)
    made = []
    make = cache.engine.forms.make

    def counted(*what):
        made.append(what)
        return make(*what)

    cache.engine.forms.make = counted
    try:
        replies = []
        for _ in range(4):
            replies.append(ask(cache, headers=GZIP))
            assert cache.engine.refresher.drain()
        assert [reply.is_hit for reply in replies] == [False, True, True, True]
        assert [reply.field("content-encoding") for reply in replies] == [None, None, "gzip", "gzip"]
        assert zlib.decompress(replies[-1].body, 31) == BODY
        assert (app.calls, len(made)) == (1, 1)
        done = subprocess.run(
            [sys.executable, "-c", OTHER, url, near], capture_output=True, text=True, timeout=60,
            env={"PYTHONPATH": str(Path(wsgicache.__file__).parent.parent)}, check=True,
        )  # fmt: skip
        assert done.stdout.split() == ["True", "gzip", replies[-1].field("etag"), "0", "0"]
        asked = until(lambda: (reply := ask(cache, headers=GZIP)).stored and reply)  # it purged
        reply = ask(cache, headers=GZIP)
        assert cache.engine.refresher.drain()
        cache.purge("/", soft=True)  # fetched again, it says the same, and its form stays
        assert ask(cache, headers=GZIP).stored
        reply = ask(cache, headers=GZIP)
        assert (reply.is_hit, reply.field("content-encoding"), len(made)) == (True, "gzip", 2)
        assert zlib.decompress(reply.body, 31) == BODY
        cache.purge("/")
        app.answers(Response("200 OK", [("Content-Type", "text/html"), ("ETag", '"v2"')], BODY))
        asked = until(lambda: (reply := ask(cache, headers=GZIP)).is_hit or reply)  # within the near bound
        assert (asked.field("etag"), asked.field("content-encoding")) == ('"v2"', None)
    finally:
        cache.close()
