"""The compiled build: what C could do wrong that Python cannot. That it gives the same answers as the code in
Python is shown in test_wsgi_fast_path.py."""

import gc
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from structs import COMPILED, skip_a_struct
from waiting import PATIENCE
from wsgi_helpers import HIT_PATHS, TEXT, PureCache, new_cache, text

import wsgicache
from wsgicache import Rule, WSGICache, compiled, fill
from wsgicache.compiled import SWITCH, twin
from wsgicache.engine import Engine
from wsgicache.hitpath import HitPath, PureHitPath
from wsgicache.ready import Ready
from wsgicache.stores.sieve import Slot
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


class Shared:
    """Objects whose attributes share their names."""


def shared(environ):
    """An environ that is the attributes of an object."""
    made = Shared()
    for name, value in environ.items():
        setattr(made, name, value)
    return vars(made)


def once_mixed(environ):
    """An environ that once had a key that is no string."""
    made = {7: 7, **environ}
    del made[7]
    return made


def with_gaps(environ):
    """An environ from which keys were taken out: such as would count, too."""
    taken = {"HTTP_AUTHORIZATION": "Basic x", "HTTP_COOKIE": "session=1", "CONTENT_LENGTH": "3"}
    made = {**taken, **{f"HTTP_X_{n}": "" for n in range(20)}, "PATH_INFO": "/no", **environ}
    for name in [*taken, *[f"HTTP_X_{n}" for n in range(0, 20, 3)], "PATH_INFO"]:
        del made[name]
    made.update({name: environ[name] for name in [*taken, "PATH_INFO"] if name in environ})
    return made


def large(environ):
    """An environ of many more keys than a server gives."""
    return {**{f"HTTP_X_{n}": "" for n in range(30_000)}, **environ}


def fresh(environ):
    """An environ whose keys and values are nobody else's."""
    return {name.encode().decode(): text.encode().decode() if type(text) is str else text
            for name, text in environ.items()}  # fmt: skip


SHAPES = [dict, shared, once_mixed, with_gaps, large, fresh]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_environ_is_read_whole_however_its_dictionary_was_made(cache, shape, monkeypatch):
    """And answered by the hit path, unless something in it says no."""
    odd = {
        "HTTP_AUTHORIZATION": "Basic x",
        "HTTP_X_HTTP_METHOD_OVERRIDE": "PUT",
        "HTTP_COOKIE": "session=1",
        "CONTENT_LENGTH": "3",
        "HTTP_X_FORWARDED_PROTO": "https",
        "REQUEST_METHOD": "POST",
        "RAW_URI": "/%2F",
        "REQUEST_URI": "/?",
        "QUERY_STRING": "a=1",
        "PATH_INFO": "/other",
        "SCRIPT_NAME": "/mount",
        "HTTP_HOST": "other.example",
        "wsgi.url_scheme": "https",
    }
    served = []
    monkeypatch.setattr(cache, "_serve", lambda environ, start_response: served.append(environ))
    plain = make_environ("/")
    assert call(cache, shape(plain))[2] == BODY
    assert call(cache, shape({"first": 1, **plain, "HTTP_COOKIE": "_ga=1", "last": 1}))[2] == BODY
    assert served == []
    for name, value in odd.items():
        for environ in ({**plain, name: value}, {name: value, **plain} | {name: value}):
            environ = shape(environ)
            assert call(cache, environ) is TypeError, "`_serve` gives no body here"
            assert served.pop() is environ


def test_each_unusual_key_is_found(cache, monkeypatch):
    """And told to who looks closer."""
    seen = []
    monkeypatch.setattr(cache, "_agrees", lambda environ, unusual: seen.append(sorted(unusual)) or True)
    plain = make_environ("/")
    for names in [*[[name] for name in cache._unusual], sorted(cache._unusual)]:
        assert call(cache, {**plain, **dict.fromkeys(names, "x"), "last": 1})[2] == BODY
        assert seen.pop() == names
    assert call(cache, plain)[2] == BODY
    assert seen == []


def test_a_raw_target_is_the_path_and_the_query_and_nothing_else(cache, monkeypatch):
    cache = new_cache(
        ScriptedApp(Response(headers=text(), body=BODY)), type(cache), rules=[Rule("/*", query="key")]
    )
    environ = make_environ("/mount/page?a=1", SCRIPT_NAME="/mount", PATH_INFO="/page")
    for _ in range(3):
        call(cache, environ.copy())
    monkeypatch.setattr(cache, "_serve", lambda environ, start_response: None)
    for raw in (None, "", "/mount/page", "/mount/page?a=1"):
        assert call(cache, {**environ, "RAW_URI": raw})[2] == BODY
        assert call(cache, {**environ, "RAW_URI": None, "REQUEST_URI": raw})[2] == BODY
    for raw in (
        "/mount/page?",
        "/mount/page#a=1",
        "/mount/page?a=2",
        "/mount/pagE?a=1",
        "/mount/pagE",
        "?a=1",
    ):
        assert call(cache, {**environ, "RAW_URI": raw}) is TypeError
        assert call(cache, {**environ, "RAW_URI": "", "REQUEST_URI": raw}) is TypeError


def test_no_name_is_taken_for_another(cache, monkeypatch):
    """Whatever their hashes are in this process: 3,000 names fill the places of a table many times over."""
    monkeypatch.setattr(cache, "_serve", None)
    for n in range(0, 3000, 60):
        environ = {f"HTTP_X_{m}": "x" for m in range(n, n + 60)}
        assert call(cache, {**environ, **make_environ("/")})[2] == BODY


@pytest.mark.parametrize("does", ["goes", "grows", "shrinks"])
def test_a_key_that_changes_the_environ_while_it_is_read_does_no_harm(cache, does):
    """It is asked whether it is another one; what it does then is its own affair."""

    def asked():
        if does == "grows":
            environ.update({f"HTTP_X_{n}": "x" for n in range(1000)})
        elif does == "shrinks":
            for name in [name for name in environ if type(name) is str and name != "PATH_INFO"]:
                del environ[name]
        else:
            environ.clear()

    for place in ("PATH_INFO", "HTTP_HOST", "HTTP_COOKIE", "HTTP_RANGE"):
        impostor = Impostor(place)
        impostor.place, impostor.asked = place, lambda: None
        environ = {impostor: "", **make_environ("/"), "HTTP_COOKIE": "_ga=1"}
        impostor.asked = asked
        answer = call(cache, environ)
        assert isinstance(answer, type) or answer[2] == BODY
    assert ask(cache).is_hit


def test_what_was_read_of_a_request_stays_while_its_page_is_looked_up(cache):
    """By then somebody else may have emptied the environ."""
    cookie = Text("_ga=1")
    gone = weakref.ref(cookie)
    environ = {**make_environ("/"), "HTTP_COOKIE": cookie, "HTTP_X_FORWARDED_HOST": "example.com"}
    ready = cache.store.peek("/\0\0example.com\0http").ready
    peek, seen = cache._peek, []

    class Cookies(dict):
        def __missing__(self, header):
            seen.append((str(header), gone() is header))
            return True

    def look(key):
        for name in ("HTTP_COOKIE", "HTTP_X_FORWARDED_HOST", "REMOTE_ADDR"):
            environ.pop(name, None)
        gc.collect()
        return peek(key)

    ready.cookies = Cookies()
    cache._peek = look
    del cookie
    assert call(cache, environ)[2] == BODY
    assert seen == ([] if isinstance(cache, PureCache) else [("_ga=1", True)]), "Python's reads it afterwards"


# --- fields that are found by their place ---


@pytest.mark.parametrize("name", ["hot", "stamp", "ready", "visited"])
def test_what_takes_the_place_of_a_slots_field_is_asked(cache, monkeypatch, name):
    """Also where it was known before where the field is."""
    skip_a_struct(Slot, name)
    place = getattr(Slot, name)
    asked = []

    def get(slot):
        asked.append("get")
        return place.__get__(slot)

    def put(slot, value):
        asked.append("set")
        place.__set__(slot, value)

    assert ask(cache).is_hit
    with monkeypatch.context() as patch:
        patch.setattr(Slot, name, property(get, put))
        assert call(cache, make_environ("/"))[2] == BODY
        assert asked
    asked.clear()
    assert call(cache, make_environ("/"))[2] == BODY
    assert asked == []


def test_what_takes_the_place_of_other_fields_is_asked(cache, monkeypatch):
    skip_a_struct(Engine, "stamp")
    assert ask(cache).is_hit
    monkeypatch.setattr(Ready, "status", "203 Patched")
    assert call(cache, make_environ("/"))[0] == "203 Patched"
    asked = []
    monkeypatch.setattr(Engine, "stamp", property(lambda engine: asked.append(engine)))
    monkeypatch.setattr(cache, "_serve", lambda environ, start_response: [b"the long way"])
    monkeypatch.setattr(cache.engine, "rearm", lambda slot, stamp: asked.append(stamp), raising=False)
    assert cache(make_environ("/"), None) == [b"the long way"]
    assert asked == [cache.engine, None]


def made_anew(slot, **extra):
    """A slot of a class of its own, that holds the same."""
    names = [name for name in Slot.__slots__ if name != "home"]
    kind = type("Other", (), {"__slots__": [*extra, *names, "__weakref__"]})
    made = kind()
    for name in names:
        setattr(made, name, getattr(slot, name))
    for name, value in extra.items():
        setattr(made, name, value)
    return made


def test_slots_of_many_classes_may_take_turns(cache):
    """Each has its fields elsewhere."""
    key = "/\0\0example.com\0http"
    slot = cache.store.peek(key)
    told = [("Cache-Status", "told")]
    for n in range(60):
        other = made_anew(slot, **{f"a{m}": m for m in range(n % 7)})
        if n % 3 == 0:
            other = SimpleNamespace(**{name: getattr(slot, name) for name in Slot.__slots__})
        other.hot = (float("inf"), told, (b"%d" % n,))
        other.visited = False
        cache._peek = {key: other}.get
        assert call(cache, make_environ("/")) == ("200 OK", "told", b"%d" % n)
        assert other.visited is True
        cache._peek = {key: slot}.get
        assert call(cache, make_environ("/"))[2] == BODY


def test_a_slot_that_has_its_own_way_with_attributes_is_asked(cache):
    key = "/\0\0example.com\0http"
    asked = []

    class Asked(Slot):
        __slots__ = ()

        def __getattribute__(self, name):
            asked.append(name)
            return super().__getattribute__(name)

    class Told(Slot):
        __slots__ = ()

        def __setattr__(self, name, value):
            asked.append((name, value))
            super().__setattr__(name, value)

    slot = cache.store.peek(key)
    for kind in (Asked, Told, Asked):
        other = kind.__new__(kind)
        for name in Slot.__slots__:
            setattr(other, name, getattr(slot, name))
        asked.clear()
        cache._peek = {key: other}.get
        assert call(cache, make_environ("/"))[2] == BODY
        assert ("stamp" in asked, ("visited", True) in asked) == (kind is Asked, kind is Told)


@pytest.mark.parametrize("name", ["hot", "ready", "stamp"])
def test_a_slot_that_lacks_a_field_is_answered_by_the_long_way(cache, name):
    slot = cache.store.peek("/\0\0example.com\0http")
    other = made_anew(slot)
    delattr(other, name)
    cache._peek = lambda key: other
    cache._serve = lambda environ, start_response: [b"the long way"]
    assert cache(make_environ("/"), None) == [b"the long way"]


def test_a_class_is_let_go_when_another_takes_its_place(cache):
    """What is known of the last one is kept, and is part of cycles."""
    key = "/\0\0example.com\0http"
    slot = cache.store.peek(key)
    classes = []
    for _ in range(3):
        other = made_anew(slot)
        type(other).cache = cache
        classes.append(weakref.ref(type(other)))
        cache._peek = {key: other}.get
        assert call(cache, make_environ("/"))[2] == BODY
    del other
    cache._peek = {key: slot}.get
    assert call(cache, make_environ("/"))[2] == BODY
    gc.collect()
    assert [known() for known in classes] == [None] * 3


def test_two_threads_that_learn_a_class_let_the_last_one_go_once(cache):
    """To find a field of a struct takes a new one, and while it is made other threads have their turn."""
    key = "/\0\0example.com\0http"
    slot = cache.store.peek(key)
    both, here = threading.Barrier(2), threading.local()

    class Last(Slot):
        __slots__ = ()

    class Next(Slot):
        __slots__ = ()

        def __new__(cls, *args):
            if getattr(here, "learns", False):
                here.learns = False
                both.wait(PATIENCE)
            return Slot.__new__(cls)

    def learn():
        here.learns = type(cache) is not PureCache and COMPILED
        assert call(cache, make_environ("/"))[2] == BODY

    before = sys.getrefcount(Last)
    for kind, learners in ((Last, 1), (Next, 2)):
        other = kind.__new__(kind)
        for name in Slot.__slots__:
            setattr(other, name, getattr(slot, name))
        cache._peek = {key: other}.get
        threads = [threading.Thread(target=learn) for _ in range(learners)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    del other
    gc.collect()
    assert sys.getrefcount(Last) == before


CHAIN = """
import threading
from wsgicache.stores.sieve import Slot

def chain():
    last = None
    for _ in range(30000):
        slot = Slot({}, "", None, 0, 0)
        slot.older, last = last, slot

threading.stack_size(256 << 10)
thread = threading.Thread(target=chain)
thread.start()
thread.join()
"""


def test_a_long_chain_of_slots_is_let_go_in_little_room():
    """Each lets the next one go: in C that would be one call inside the other."""
    site = Path(wsgicache.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", CHAIN], env={**os.environ, "PYTHONPATH": str(site)}, check=False
    )
    assert done.returncode == 0


def test_a_cache_goes_with_the_class_that_it_knows(cache):
    """Where nothing else holds the two but each other."""
    slot = cache.store.peek("/\0\0example.com\0http")
    other = made_anew(slot)
    made = new_cache(ScriptedApp(Response(body=BODY)), type(cache))
    type(other).cache = made
    other.stamp = made.engine.stamp
    made._peek = {slot.key: other}.get
    assert call(made, make_environ("/"))[2] == BODY
    gone = weakref.ref(type(other)), weakref.ref(made)
    del other, made
    gc.collect()
    assert (gone[0](), gone[1]()) == (None, None)


def test_what_looks_like_the_get_of_a_dictionary_is_called_where_it_is_none(cache):
    key = "/\0\0example.com\0http"
    slot = cache.store.peek(key)
    told = [("Cache-Status", "told")]

    class Silent(dict):
        def get(self, key, default=None):
            return None

    popped = {key: slot}
    for peek, found in (
        ({key: slot}.get, True),
        (Mapping({key: slot}).get, True),
        (Silent({key: slot}).get, False),
        (popped.pop, True),
        ({key: slot}.__getitem__, True),
        ({}.get, False),
        ({}.pop, False),
        ({}.setdefault, False),
        ("".join, False),
    ):
        slot.hot = (float("inf"), told, (b"hot",))
        cache._peek = peek
        cache._serve = lambda environ, start_response: [b"the long way"]
        assert cache(make_environ("/"), lambda *head: None) == [b"hot" if found else b"the long way"]
    assert popped == {}


@pytest.mark.parametrize(("counter", "error"), [(7, TypeError), (iter(()), StopIteration)])
def test_what_cannot_count_is_heard_of(cache, counter, error):
    """As nothing else is: a hit that is not counted is a bug of ours."""
    ready = cache.store.peek("/\0\0example.com\0http").ready
    ready.counter = counter
    with pytest.raises(error):
        cache(make_environ("/"), lambda *head: None)


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
@pytest.mark.skipif(
    not fill.__file__.endswith(".py"), reason="what Cython cannot append to a list it lets go of twice"
)
@pytest.mark.parametrize(
    "kind", ["a hit", "a variant", "a variant of two fields", "a cookie", "a mount", "behind a proxy"]
)
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
    for many in (frozenset(["HTTP_RANGE", "PATH_INFO"]), frozenset([f"HTTP_{n}" for n in range(200)])):
        with pytest.raises(ValueError, match="_unusual holds"):
            bare._unusual = many
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


NAMES = ("HTTP_RANGE", "HTTP_AUTHORIZATION", "wsgicache.ignore")


@built
@given(st.sets(st.sampled_from((*NAMES, "PATH_INFO", "HTTP_HOST"))))
def test_unusual_keys_are_found_one_by_one(keys):
    environ = dict.fromkeys(keys, "")
    expected = not keys.isdisjoint(NAMES)
    assert twin.holds_any(environ, NAMES) is expected
    assert twin.holds_any(MappingProxyType(environ), NAMES) is expected


@built
def test_what_cannot_be_looked_through_for_keys_is_an_error():
    class Strange(dict):
        def __contains__(self, key):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        twin.holds_any(Strange(), NAMES)
    for wrong in [({},), ({}, [*NAMES]), ({}, NAMES, NAMES)]:
        with pytest.raises(TypeError, match="an environ and a tuple"):
            twin.holds_any(*wrong)


@built
@example(b"<input name=csrf")
@example(b'<input a = "> name=csrf_token" b>')
@example(b"<input a='<input b='<input c='" * 40)
@given(st.lists(PIECES, max_size=60).map(b"".join) | st.binary(max_size=200))
def test_no_token_is_overlooked(page):
    """What it says holds none, the search in Python finds none in; the other way round it may be wrong."""
    assert twin.may_hold_token(page) or not _search(page)


@built
@pytest.mark.parametrize("filler", [b" ", b"<li>", b"</script>", b"<\xc3\xb3n", b"<i"])
@pytest.mark.parametrize("tag", [b"<input", b"<META", b"<Script", b"<sTYLe", b"<LINK"])
def test_a_tag_is_found_wherever_it_stands(tag, filler):
    """Pages are looked through piece by piece."""
    token = tag + (b" nonce=x>" if tag.lower() not in (b"<input", b"<meta") else b" name=csrf>")
    for before in range(75):
        for after in range(0, 75, 5):
            page = (filler * 75)[:before] + token + (filler * 75)[:after]
            assert twin.may_hold_token(page)
            assert _search(page)


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
