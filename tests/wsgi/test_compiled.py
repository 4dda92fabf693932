"""The compiled build: what C could do wrong that Python cannot. That it gives the same answers as the code in
Python is shown in test_wsgi_fast_path.py."""

import gc
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
import weakref
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsgi_helpers import HIT_PATHS, TEXT, new_cache, text

import wsgicache
from wsgicache import WSGICache, compiled, fill
from wsgicache.compiled import SWITCH, twin
from wsgicache.hitpath import HitPath, PureHitPath
from wsgicache.testing import Response, ScriptedApp, ask, make_environ
from wsgicache.tokens import _search

built = pytest.mark.skipif(twin is None, reason=f"not built: {SWITCH}=twin pip install --editable .")
HEAD = [*TEXT, ("Vary", "Accept-Language"), ("ETag", '"v"')]
BODY = b"page" * 50


@pytest.fixture(params=["python", "compiled"])
def cache(request):
    """A cache with a page that its hit path answers."""
    if request.param not in HIT_PATHS:
        pytest.skip(f"the compiled hit path is not there: {SWITCH}=twin pip install --editable .")
    cache = new_cache(ScriptedApp(Response(headers=text(), body=BODY)), HIT_PATHS[request.param])
    for _ in range(3):
        ask(cache)
    return cache


def call(cache, environ):
    """Status, Cache-Status and body, or the type of what was raised."""
    heads = []
    try:
        body = b"".join(cache(environ, lambda *head: heads.append(head)))
    except Exception as error:
        return type(error)
    return heads[-1][0], dict(heads[-1][1])["Cache-Status"], body


class Text(str):
    """A string that is none of the usual kind."""


class Mapping(dict):
    """An environ that PEP 3333 does not allow."""


ODD = {
    "no scheme": {"wsgi.url_scheme": None},
    "no path": {"PATH_INFO": None},
    "no host": {"HTTP_HOST": None},
    "no method": {"REQUEST_METHOD": None},
    "a path of bytes": {"PATH_INFO": b"/"},
    "a host that is a number": {"HTTP_HOST": 80},
    "a query that is a number": {"QUERY_STRING": 1},
    "a path of another kind": {"PATH_INFO": Text("/")},
    "a mount of another kind": {"SCRIPT_NAME": Text("/mount")},
    "a mount that is a number": {"SCRIPT_NAME": 7},
    "a path beyond latin-1": {"PATH_INFO": "/\u4e00"},
    "a mount beyond latin-1": {"SCRIPT_NAME": "/\u4e00"},
    "a target beyond latin-1": {"RAW_URI": "/\u4e00"},
    "a target of bytes": {"RAW_URI": b"/"},
    "a cookie of bytes": {"HTTP_COOKIE": b"a=1"},
    "a cookie that is a list": {"HTTP_COOKIE": []},
    "a length that is a number": {"CONTENT_LENGTH": 0},
    "a lone surrogate": {"PATH_INFO": "/\ud800"},
    "a NUL": {"PATH_INFO": "/\0", "QUERY_STRING": "\0"},
    "a key that is a number": {7: "x"},
    "a key of another kind": {Text("HTTP_AUTHORIZATION"): "Basic x"},
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", [dict, Mapping])
def test_a_strange_environ_is_answered_as_the_long_way_does(cache, odd, kind):
    def environ():
        made = {**make_environ("/"), **ODD[odd]}
        return kind({name: value for name, value in made.items() if value is not None})

    peek, cache._peek = cache._peek, lambda key: None
    _, slow = call(cache, environ()), call(cache, environ())
    cache._peek = peek
    assert [call(cache, environ()) for _ in range(2)] == [slow, slow]


def test_a_start_response_that_raises_is_heard_by_the_server(cache):
    def refuse(status, headers):
        raise ConnectionError("the client is gone")

    with pytest.raises(ConnectionError, match="is gone"):
        cache(make_environ("/"), refuse)
    assert ask(cache).is_hit


def test_it_takes_its_arguments_by_name_and_nothing_else(cache):
    heads = []
    body = cache(environ=make_environ("/"), start_response=lambda *head: heads.append(head))
    assert (heads[0][0], body) == ("200 OK", [BODY])
    for wrong in ((), ({},), ({}, None, None)):
        with pytest.raises(TypeError):
            cache(*wrong)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["_peek", "_steady"])
def test_what_is_no_error_is_not_taken_for_one(cache, where, error):
    """A worker that is told to stop, or a greenlet that is killed, does not go the long way."""

    def stop(*given):
        raise error

    known = getattr(cache, where)
    setattr(cache, where, stop)
    with pytest.raises(error):
        cache(make_environ("/"), lambda *head: None)
    setattr(cache, where, known)
    assert ask(cache).is_hit


@pytest.mark.parametrize("hot", [None, (), (0.0, None), ("soon", None, ()), (float("inf"), 7, 7)])
def test_a_slot_that_holds_nonsense_breaks_nothing(cache, hot):
    """What is sent of it is wrong only where it says that it is right."""
    cache.store.peek("/\0\0example.com\0http").hot = hot
    if hot is not None and hot[1:] == (7, 7):
        assert call(cache, make_environ("/")) is TypeError
    else:
        assert call(cache, make_environ("/"))[2] == BODY


@pytest.mark.parametrize("name", ["_peek", "_steady", "_confirm"])
def test_what_is_called_stays_until_it_returns(cache, name):
    """Another thread may replace it meanwhile, as tests and instrumentation do."""
    known = getattr(cache, name)
    stays = []

    def replace(*given):
        setattr(cache, name, known)
        stays.append(called() is not None)
        return True if known is None else known(*given)

    setattr(cache, name, partial(replace))
    called = weakref.ref(getattr(cache, name))
    assert ask(cache).is_hit
    assert stays == [True]


@pytest.mark.parametrize("name", ["_peek", "_steady", "_confirm", "engine"])
def test_what_another_thread_takes_away_is_missed_and_no_more(cache, name):
    """The page is answered, or an error names what is missing."""
    when = "_peek" if name == "_steady" else "_steady"
    known, then = getattr(cache, name), getattr(cache, when)

    def take(*given):
        if hasattr(cache, name):
            delattr(cache, name)
        return then(*given)

    setattr(cache, when, take)
    answer = call(cache, make_environ("/"))
    assert answer is AttributeError or answer[2] == BODY
    assert not hasattr(cache, name)
    setattr(cache, name, known)


class Impostor(str):
    """A key that is found at another's place, so that it is asked whether it is that one."""

    def __hash__(self):
        return hash(self.place)

    def __eq__(self, other):
        if other == self.place:
            self.asked()
        return False


@pytest.mark.parametrize("place", ["PATH_INFO", "HTTP_HOST", "SCRIPT_NAME", "QUERY_STRING"])
def test_what_was_read_of_an_environ_stays_although_it_changes(cache, place):
    """A key may run code of its own, and with it whatever there is."""
    scheme = Text("http")
    gone = weakref.ref(scheme)
    held = []

    def asked():
        environ.pop("wsgi.url_scheme", None)
        held.append(gone() is not None)

    impostor = Impostor(place)
    impostor.place, impostor.asked = place, lambda: None
    environ = {impostor: "", **make_environ("/"), "wsgi.url_scheme": scheme}
    del scheme
    impostor.asked = asked
    call(cache, environ)
    assert held[0]


def test_the_clock_of_the_system_is_the_one_that_is_read(cache):
    """The compiled one reads it itself."""
    cache = new_cache(ScriptedApp(Response(headers=text(), body=BODY)), type(cache), clock=None)
    for _ in range(3):
        ask(cache)
    slot = cache.store.peek("/\0\0example.com\0http")
    told = [("Cache-Status", "still")]
    slot.hot = (time.monotonic() + 60, told, (b"still",))
    assert call(cache, make_environ("/")) == ("200 OK", "still", b"still")
    slot.hot = (time.monotonic(), told, (b"no more",))
    assert call(cache, make_environ("/"))[2] == BODY
    assert slot.hot[2] != (b"no more",)


REQUESTS = {
    "a hit": {},
    "a variant": {"url": "/vary"},
    "a variant of two fields": {"url": "/vary2"},
    "a cookie": {"headers": {"Cookie": "_ga=1"}},
    "behind a proxy": {"headers": {"X-Forwarded-Host": "example.com"}},
    "a 304": {"url": "/vary", "headers": {"If-None-Match": '"v"'}},
    "a range": {"headers": {"Range": "bytes=0-1"}},
    "a HEAD": {"method": "HEAD"},
    "a bypass": {"url": "/?q=1"},
    "a mount": {"SCRIPT_NAME": "/mount"},
    "no environ to speak of": {"PATH_INFO": 1},
}


@built
@pytest.mark.parametrize("kind", REQUESTS)
def test_nothing_leaks(kind):
    def app(environ, start_response):
        fields = {"/vary": HEAD, "/vary2": [*TEXT, ("Vary", "Accept-Language, X-Theme")]}
        start_response("200 OK", list(fields.get(environ["PATH_INFO"], TEXT)))
        return [BODY]

    cache = new_cache(app)

    def serve(times):
        for _ in range(times):
            try:
                for _ in cache(make_environ(**{"url": "/", **REQUESTS[kind]}), lambda *head: None):
                    pass
            except TypeError:
                assert kind == "no environ to speak of"

    def grown():
        """References to what requests touch, and bytes, after 1,000 of them."""
        shared = [None, True, "", "GET", "/", cache, cache.engine, cache._peek, cache._steady]
        gc.collect()
        counts = [sys.getrefcount(one) for one in shared]
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            serve(1000)
            gc.collect()
            taken = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        after = [sys.getrefcount(one) for one in shared]
        return max(abs(one - other) for one, other in zip(counts, after, strict=True)), taken

    serve(300)
    # What leaks does so each time; what else this process does meanwhile may be seen once.
    references, taken = (min(several) for several in zip(*[grown() for _ in range(3)], strict=True))
    assert references < 500, "one for each request would be 1,000"
    assert taken < 8000, "bytes"


@built
@pytest.mark.parametrize("kind", ["a hit", "a variant", "a variant of two fields", "a cookie", "a mount"])
def test_where_there_is_no_memory_the_page_or_a_memory_error_is_the_answer(kind):
    """Whichever allocation of a request fails."""
    api = pytest.importorskip("_testcapi", reason="CPython without its own tests")

    def app(environ, start_response):
        fields = {"/vary": HEAD, "/vary2": [*TEXT, ("Vary", "Accept-Language, X-Theme")]}
        start_response("200 OK", list(fields.get(environ["PATH_INFO"], TEXT)))
        return [BODY]

    cache = new_cache(app)
    answers = set()
    for fails in (None, None, None, *range(40)):
        environ = make_environ(**{"url": "/", **REQUESTS[kind]})
        if fails is not None:
            api.set_nomemory(fails, fails + 1)
        try:
            answer = cache(environ, _ignore)
        except MemoryError:
            answer = "no memory"
        finally:
            api.remove_mem_hooks()
        answers.add(answer if answer == "no memory" else b"".join(answer))
        del answer
    assert answers == {BODY, "no memory"}


def _ignore(*head):
    pass


def test_a_cache_that_nobody_has_goes(cache):
    """It is part of cycles, which the collector must see through."""
    gone = weakref.ref(new_cache(ScriptedApp(Response()), type(cache)))
    gc.collect()
    assert gone() is None


@built
def test_what_is_not_furnished_says_so():
    bare = WSGICache.__new__(WSGICache)
    with pytest.raises(AttributeError, match="before it was furnished"):
        bare({}, None)
    for name in ("engine", "_peek", "_unusual"):
        with pytest.raises(AttributeError):
            getattr(bare, name)
    for wrong in (None, {"HTTP_RANGE"}, frozenset([1]), frozenset([Text("HTTP_RANGE")])):
        with pytest.raises(TypeError, match="_unusual"):
            bare._unusual = wrong
    bare._unusual = frozenset(["HTTP_RANGE"])
    with pytest.raises(TypeError, match="_unusual"):
        del bare._unusual


PIECES = st.sampled_from(
    [
        b"<input", b"<INPUT", b"<meta", b"<script", b"<style", b"<Link", b"<inputs", b"<input_", b"<p", b"<",
        b">", b"=", b'"', b"'", b" ", b"\n", b"\f", b"\v", b"/", b"name", b"ID", b"property", b"nonce",
        b"content", b"csrf", b"XSRF", b"srf", b"Token", b"token]", b"authenticator",
        b"__RequestVerificationToken",        b"x", b"\xc3\xa9", b"\0", b"<!--", b"-->",
    ]
)  # fmt: skip


@built
@example(b"<input name=csrf")
@example(b'<input a = "> name=csrf_token" b>')
@example(b"<input a='<input b='<input c='" * 40)
@given(st.lists(PIECES, max_size=60).map(b"".join) | st.binary(max_size=200))
def test_no_token_is_overlooked(page):
    """What it says holds none, the search in Python finds none in; the other way round it may be wrong."""
    assert twin.may_hold_token(page) or not _search(page)


@built
def test_pages_without_tokens_are_known_as_such():
    """Otherwise the one above could not fail."""
    page = b"<html><head><meta charset=utf-8><script src=/a.js></script></head><p title='my token'>csrf</p>"
    assert not twin.may_hold_token(page * 100)
    assert not twin.may_hold_token(b"")
    assert twin.may_hold_token(page + b"<LINK NONCE=x>")
    with pytest.raises(TypeError, match="a page is bytes, not str"):
        twin.may_hold_token("<p>")


@pytest.mark.parametrize("value", ["0", "1", None])
def test_it_can_be_left_unused(value):
    found = find_spec("wsgicache._compiled")
    is_here = found is not None and Path(found.origin).parent == Path(wsgicache.__file__).parent
    used = is_here and value != "0"
    environ = {name: text for name, text in os.environ.items() if name != SWITCH}
    code = "from wsgicache import hitpath; print(hitpath.COMPILED, hitpath.HitPath is hitpath.PureHitPath)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environ, SWITCH: value} if value else environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(used), str(not used)]


@built
@pytest.mark.skipif(not fill.__file__.endswith(".py"), reason="Cython's modules are one interpreter's")
def test_the_interpreters_of_one_process_have_it_each():
    """As under mod_wsgi. One that has gone takes nothing along that the others need."""
    pytest.importorskip("_testcapi", reason="CPython without its own tests")
    serve = """
import gc
from wsgicache import WSGICache, hitpath
from wsgicache.testing import Response, ScriptedApp, ask
cache = WSGICache(ScriptedApp(Response(headers=[("Content-Type", "text/plain")], body=b"page")))
print(hitpath.COMPILED, [ask(cache).is_hit for _ in range(4)], flush=True)
del cache
gc.collect()
"""
    code = f"import _testcapi; [_testcapi.run_in_subinterp({serve!r}) for _ in range(2)]; exec({serve!r})"
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code],
        env={
            **{name: text for name, text in os.environ.items() if name != SWITCH},
            "PYTHONPATH": str(Path(wsgicache.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["True [False, True, True, True]"] * 3


@built
def test_it_is_left_unused_where_it_was_built_from_another_source(tmp_path):
    """As after a checkout was updated: what was mended in the source would be broken still."""
    package = tmp_path / "wsgicache"
    shutil.copytree(Path(wsgicache.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    code = "from wsgicache import hitpath; print(hitpath.COMPILED)"
    environ = {name: text for name, text in os.environ.items() if name != SWITCH}

    def imported():
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**environ, "PYTHONPATH": str(tmp_path)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip(), done.stderr

    assert imported() == ("True", "")
    with (package / "_compiled.c").open("a") as source:
        source.write("\n")
    used, told = imported()
    assert used == "False"
    assert "was built from another _compiled.c than the one beside it: build it again, or delete it" in told


def test_the_one_of_another_installation_is_left_unused(monkeypatch):
    """An editable installation answers for every module that a package of the same name has not."""
    elsewhere = SimpleNamespace(__file__="/elsewhere/wsgicache/_compiled.so", SOURCE=1)
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.setattr(compiled, "import_module", lambda *asked: elsewhere)
    assert compiled._load() is None


def test_the_switch_is_no_option():
    from wsgicache.config import configure

    configure({}, environ={SWITCH: "0"})
    assert issubclass(WSGICache, HitPath)
    assert (HitPath is PureHitPath) is (twin is None)
