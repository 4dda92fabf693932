"""What a request costs, counted in work instead of time: calls of our functions, and lines of ours that run.
And what an entry takes, in bytes that Python asked for.

The numbers are the same on every machine and in every run, so what grows here has grown for everybody. Where
a budget is exceeded, look for what the request did not need; where it did need it, raise the budget in the
commit that says why. `benchmarks/inprocess.py` tells what it costs in time.
"""

import gc
import sys
import tracemalloc
from pathlib import Path

import pytest
from wsgi_helpers import HIT_PATHS, PureCache, new_cache

import wsgicache.testing
from wsgicache import Rule
from wsgicache.testing import make_environ

OURS = str(Path(wsgicache.__file__).parent)
TESTING = str(Path(wsgicache.testing.__file__).parent)
PAGE = b"<!doctype html><html><head><meta charset=utf-8><title>a page</title></head>" + b"<p>text</p>" * 900
HTML = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(PAGE)))]
BROWSER = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.8",
    "Cookie": "_ga=GA1.1.1283412093.1718000000",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64)",
}


def app(environ, start_response):
    start_response("200 OK", [*HTML, *environ.get("test.fields", ())])
    return [PAGE]


class Work:
    """Counts the calls and the lines of this package while it is entered."""

    def __init__(self):
        self.calls = self.lines = 0

    def __enter__(self):
        self._before = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error):
        sys.settrace(self._before)

    def _trace(self, frame, event, arg):
        file = frame.f_code.co_filename
        if not file.startswith(OURS) or file.startswith(TESTING):
            return None
        if event == "call":
            self.calls += 1
        elif event == "line":
            self.lines += 1
        return self._trace


def work(cache, **request):
    """The work of one request in the steady state: what is remembered of others is there already."""
    plain = {"url": request.get("url", "/page"), "fields": request.get("fields", ())}
    for _ in range(6):
        _ask(cache, environ_of(plain))
    for _ in range(3):
        _ask(cache, environ_of(request))
    environ = environ_of(request)
    with Work() as done:
        status = _ask(cache, environ)
    return status, done


def environ_of(request):
    """A new environ; `{}` in a URL is a number that was never there before."""
    url = request.get("url", "/page").format(_numbers.pop())
    headers = {name: value for name, value in {**BROWSER, **request.get("headers", {})}.items() if value}
    extra = {"test.fields": request.get("fields", ())}
    return make_environ(url, request.get("method", "GET"), headers, **extra)


_numbers = list(range(100_000))


def _ask(cache, environ):
    seen = []
    chunks = cache(environ, lambda status, headers, exc_info=None: seen.append(dict(headers)))
    for _ in chunks:
        pass
    if hasattr(chunks, "close"):
        chunks.close()
    return seen[-1]["Cache-Status"]


VARY = [("Vary", "Accept-Encoding")]
ETAG = [("ETag", '"v1"')]
BUDGETS = {
    "hit": ({}, "hit", 1, 30),
    "hit of a variant": ({"fields": VARY}, "hit", 1, 36),
    "hit, rules": ({"url": "/ruled"}, "hit", 1, 30),
    "hit, 304": ({"fields": ETAG, "headers": {"If-None-Match": '"v1"'}}, "hit", 24, 134),
    "hit, 206": ({"headers": {"Range": "bytes=0-99"}}, "hit", 37, 184),
    "hit, HEAD": ({"method": "HEAD"}, "hit", 11, 73),
    "bypass by query": ({"url": "/page?q=1"}, "detail=BYPASS_QUERY", 29, 171),
    "bypass by rule": ({"url": "/closed/{}"}, "detail=BYPASS_RULE", 29, 159),
    "POST": ({"method": "POST"}, "fwd=method", 73, 320),
    "miss": ({"url": "/page/{}"}, "stored", 80, 602),
    "miss of a variant": ({"url": "/page/{}", "fields": VARY}, "stored", 106, 722),
    "miss of a visitor": ({"url": "/page/{}", "headers": {"Cookie": "s=1"}}, "fwd=bypass", 55, 404),
    "miss that is private": (
        {"url": "/page/{}", "fields": [("Cache-Control", "private")]}, "detail=NOT_STORED_PRIVATE", 64, 466
    ),
}  # fmt: skip
"""The request, a part of its Cache-Status, most calls and most lines."""


@pytest.mark.parametrize("kind", BUDGETS)
def test_work_stays_within_its_budget(kind):
    request, told, calls, lines = BUDGETS[kind]
    rules = [Rule("/closed/*", bypass=True), Rule("/ruled", ttl=60)] if "rule" in kind else []
    status, done = work(new_cache(app, PureCache, rules=rules), **request)
    assert told in status
    assert done.calls <= calls, f"{done.calls} calls"
    assert done.lines <= lines, f"{done.lines} lines"


@pytest.mark.skipif("compiled" not in HIT_PATHS, reason="the compiled hit path is not there")
@pytest.mark.parametrize("kind", ["hit", "hit of a variant", "hit, rules"])
def test_a_compiled_hit_runs_no_python_of_ours(kind):
    request, told, _, _ = BUDGETS[kind]
    rules = [Rule("/ruled", ttl=60)] if "rule" in kind else []
    status, done = work(new_cache(app, HIT_PATHS["compiled"], rules=rules), **request)
    assert told in status
    assert (done.calls, done.lines) == (0, 0)


def test_what_an_entry_takes_in_memory():
    """Beside its body, asked for or not: a first hit leaves an ETag, and nothing else."""
    number, url, size = 400, "/page/{:08d}".format, 1000
    fields = [HTML[0], ("Content-Length", str(size))]

    def small(environ, start_response):
        start_response("200 OK", fields)
        return [environ["PATH_INFO"].encode().ljust(size)]

    cache = new_cache(small)
    for one in range(number):  # what all entries share, and the store's table, is there already
        _ask(cache, make_environ(url(one), "GET", BROWSER))
    cache.clear()
    tracemalloc.start()
    try:
        grown = []
        for _ in ("stored", "hit", "hit"):
            cache.fake_clock.tick(2)
            for one in range(number):
                _ask(cache, make_environ(url(one), "GET", BROWSER))
            gc.collect()
            grown.append(tracemalloc.get_traced_memory()[0] / number - size)
    finally:
        tracemalloc.stop()
    told = cache.store.stats()["bytes"] / number - size
    assert max(grown) < 600, grown
    assert max(grown) <= told <= 2 * max(grown), (told, grown)
