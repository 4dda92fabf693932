"""Exhaustion (RES), integrity of what is stored (INT), serialisation (SER)."""

import ast
import itertools
import pickle
import threading
import tracemalloc
from pathlib import Path

import pytest
from sites import PATIENCE, Call, Site, control, page

import wsgicache
from wsgicache import Reason, Rule, WSGICache
from wsgicache.codec import FORMAT, MAGIC, DecodeError, decode, encode
from wsgicache.entry import Entry
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FakeClock, ask, make_environ

# --- RES --------------------------------------------------------------------------------------------


def test_res_01_unique_queries_do_not_fill_memory_nor_push_out_what_is_asked_for():
    site = Site(control("max-age=600", body=b"x" * 500), max_bytes="300kB", rules=[Rule("/s", query="key")])
    site.fill("/hot")
    site.ask("/hot")
    for number in range(10_000):
        site.ask(f"/s?q={number}")
        if number % 20 == 0:
            assert site.ask("/hot").is_hit, number
    stats = site.cache.store.stats()
    assert stats["bytes"] <= 300_000
    assert stats["entries"] < 400
    assert stats["evicted"] > 9_000


def test_res_01_the_tables_beside_the_store_are_bounded_too():
    site = Site(control("private"), rules=[Rule("/s", query="key")])
    for number in range(12_000):
        site.ask(f"/s?q={number}")
    assert len(site.cache.engine.markers.marks) <= 10_000
    assert len(site.cache.engine.collapse) == 0


@pytest.mark.parametrize("announced", [True, False])
def test_res_03_a_huge_response_streams_through(announced):
    chunk, count = b"x" * (1 << 20), 64
    headers = [("Content-Length", str(len(chunk) * count))] if announced else []
    site = Site(page(*headers, body=lambda: itertools.repeat(chunk, count)))
    received = 0
    tracemalloc.start()
    iterable = site.cache(make_environ(), lambda *head: None)
    for piece in iterable:
        received += len(piece)
    iterable.close()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert received == len(chunk) * count
    assert peak < 3 << 20, "nothing is kept past max_body_bytes"
    assert site.count(Reason.NOT_STORED_TOO_LARGE) == 1
    assert site.cache.store.stats()["entries"] == 0


def endless():
    """A body without an end."""
    while True:
        yield b"data: tick\n\n"


def first_endless(answer, ordinary):
    """An app whose first answer has no end, and the later ones have."""
    calls = itertools.count()
    return lambda environ: answer if next(calls) == 0 else ordinary


@pytest.mark.parametrize(
    "kind", ["text/event-stream", "text/event-stream; charset=utf-8", "multipart/x-mixed-replace; boundary=x"]
)
def test_res_04_an_event_stream_is_neither_kept_nor_waited_for(kind):
    stream = control("max-age=600", ("Content-Type", kind), body=endless)
    site = Site(first_endless(stream, page(body=b"other")))
    iterable = site.cache(make_environ(), lambda *head: None)
    leader = iter(iterable)
    assert next(leader) == b"data: tick\n\n"
    assert site.ask().body == b"other", "nobody waits for it"
    for _ in range(1000):
        next(leader)
    iterable.close()
    assert site.count(Reason.NOT_STORED_STREAM) == 1


def test_res_04_another_endless_body_holds_nobody_longer_than_the_limits():
    site = Site(
        first_endless(control("max-age=600", body=endless), page(body=b"other")),
        max_body_bytes=1000,
        wait_timeout=PATIENCE,
        slow_client_grace=0.01,
    )
    iterable = site.cache(make_environ(), lambda *head: None)
    leader = iter(iterable)
    next(leader)
    assert site.ask().body == b"other", "whose client is slow is not waited for"
    for _ in range(1000):
        next(leader)
    iterable.close()
    assert site.count(Reason.NOT_STORED_TOO_LARGE) == 1


def test_res_04_followers_of_a_body_that_grew_too_large_go_to_the_app():
    passed, go = threading.Event(), threading.Event()

    def slow():
        passed.set()
        assert go.wait(PATIENCE)
        yield from itertools.repeat(b"x" * 100, 100)

    site = Site(first_endless(control("max-age=600", body=slow), page(body=b"other")), max_body_bytes=1000)
    first = Call(site.ask)
    assert passed.wait(PATIENCE)
    second = Call(site.ask)
    flights = site.cache.engine.collapse._flights
    while not any(flight.followers for flight in [*flights.values()]):
        pass
    go.set()
    assert len(first.result().body) == 10_000
    assert second.result().body == b"other"


class Counting(MemoryStore):
    """A memory store that counts what it is asked."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        if name in ("get", "set", "delete", "scan", "append", "clear"):
            object.__getattribute__(self, "calls").append(name)
        return super().__getattribute__(name)


@pytest.mark.parametrize(
    "purge",
    [
        lambda cache: cache.purge_groups("everywhere"),
        lambda cache: cache.purge_prefix("/"),
        lambda cache: cache.purge("/5"),
        lambda cache: cache.purge_groups("everywhere", soft=True),
    ],
    ids=["group", "prefix", "url", "soft"],
)
def test_res_07_a_purge_costs_the_same_however_much_it_reaches(purge):
    costs = []
    for size in (10, 2000):
        store = Counting()
        site = Site(control("max-age=600", ("Cache-Groups", '"everywhere"')), store=store)
        for number in range(size):
            site.ask(f"/{number}")
        store.calls.clear()
        purge(site.cache)
        costs.append(list(store.calls))
    assert costs[0] == costs[1]
    assert costs[0].count("append") == 1
    assert not {"scan", "delete", "set", "get"} & set(costs[0])


def test_res_07_and_a_hit_costs_the_same_however_many_purges_there_were():
    store = Counting()
    site = Site(control("max-age=600", ("Cache-Groups", '"a"')), store=store)
    for number in range(3000):
        site.cache.purge_groups(f"g{number}")
    site.fill()
    site.ask()
    store.calls.clear()
    site.ask()
    assert store.calls == []


def test_res_11_a_storm_of_stale_pages():
    busy, go = threading.Event(), threading.Event()
    fresh = control("max-age=10, stale-while-revalidate=600")
    site = Site(fresh, background_threads=2, background_queue=5)
    for number in range(200):
        site.ask(f"/{number}")
    site.clock.tick(20)

    def slow(environ):
        busy.set()
        assert go.wait(PATIENCE)
        return fresh

    site.app.answers(slow)
    refresher = site.cache.engine.refresher
    for _ in range(3):
        for number in range(200):
            assert site.ask(f"/{number}").detail == "HIT_STALE_WHILE_REVALIDATE", "nobody waits"
    assert busy.wait(PATIENCE)
    assert refresher._threads <= 2
    assert len(refresher._jobs) <= 5
    go.set()
    assert refresher.drain(PATIENCE)
    assert site.app.calls <= 200 + 2 + 5, "one per key, dropped when there is no room"
    refreshed = [environ["PATH_INFO"] for environ in site.app.seen[200:]]
    assert len(set(refreshed)) == len(refreshed)


def test_res_11_the_threads_do_not_keep_a_process_alive():
    site = Site(control("max-age=10, stale-while-revalidate=600"))
    site.fill()
    site.clock.tick(20)
    site.ask()
    site.refreshed()
    workers = [thread for thread in threading.enumerate() if thread.name == "wsgicache-refresh"]
    assert workers
    assert all(thread.daemon for thread in workers)


# --- INT --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "generator"])
def test_int_01_fewer_bytes_than_announced(kind):
    body = [b"x" * 60] if kind == "list" else lambda: iter([b"x" * 60])
    site = Site(page(("Content-Length", "100"), body=body))
    for _ in range(2):
        assert len(site.ask().body) == 60
    assert site.count(Reason.NOT_STORED_INCOMPLETE) == 2
    assert site.cache.store.stats()["entries"] == 0


def held(*bodies):
    """An app that answers the first request with the first body when it is let go, and so on."""
    entered, go, calls = threading.Event(), threading.Event(), itertools.count()

    def answer(environ):
        number = next(calls)
        if number == 0:
            entered.set()
            assert go.wait(PATIENCE)
        return bodies[min(number, len(bodies) - 1)]

    return answer, entered, go


def test_int_01_and_nobody_who_waited_gets_them_as_complete():
    answer, entered, go = held(page(("Content-Length", "100"), body=b"x" * 60), page(body=b"whole"))
    site = Site(answer)
    first = Call(site.ask)
    assert entered.wait(PATIENCE)
    second = Call(site.ask)
    go.set()
    first.result()
    assert second.result().body == b"whole"


def raising():
    yield b"x" * 40
    raise RuntimeError("the body broke")


def test_int_02_a_body_that_raises():
    answer, entered, go = held(page(body=raising), page(body=b"whole"))
    site = Site(answer)
    first = Call(site.ask)
    assert entered.wait(PATIENCE)
    second = Call(site.ask)
    go.set()
    with pytest.raises(RuntimeError, match="the body broke"):
        first.result()
    assert second.result().body == b"whole"
    assert site.count(Reason.NOT_STORED_BROKEN_OFF) == 1


def test_int_03_a_client_that_goes_away():
    site = Site(page(body=lambda: iter([b"a", b"b", b"c"])))
    iterable = site.cache(make_environ(), lambda *head: None)
    next(iter(iterable))
    iterable.close()
    assert site.app.closed == 1
    assert site.cache.store.stats()["entries"] == 0
    assert len(site.cache.engine.collapse) == 0, "nobody waits for it"
    assert site.ask().body == b"abc"


def test_int_07_a_304_for_a_page_that_was_purged_meanwhile():
    site = Site(control("max-age=10", ("ETag", '"a"'), body=b"old"))
    site.fill()
    site.clock.tick(20)

    def answer(environ):
        if "HTTP_IF_NONE_MATCH" in environ:
            site.cache.purge("/")
            return page(("ETag", '"a"'), status="304 Not Modified", body=b"")
        return control("max-age=10", ("ETag", '"b"'), body=b"new")

    site.app.answers(answer)
    assert site.ask().body == b"new", "asked again, without conditions"
    assert "HTTP_IF_NONE_MATCH" not in site.last
    assert site.ask().body == b"new"


def validated(*headers, stored=(("ETag", '"a"'),)):
    """A site whose stale page was validated by a 304 with these fields; and the reply to that."""
    site = Site(control("max-age=10", *stored, ("X-Old", "1"), body=b"the page"))
    site.fill()
    site.clock.tick(20)

    def answer(environ):
        if "HTTP_IF_NONE_MATCH" in environ:
            return page(("Cache-Control", "max-age=10"), *headers, status="304 Not Modified", body=b"")
        return control("max-age=10", ("ETag", '"new"'), body=b"another page")

    site.app.answers(answer)
    return site, site.ask()


@pytest.mark.parametrize(
    "header",
    [
        ("Content-Length", "0"),
        ("Content-Encoding", "gzip"),
        ("Content-Range", "bytes 0-1/2"),
        ("Content-Type", "text/html"),
        ("Connection", "X-Old"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_int_08_fields_of_a_304_that_say_nothing_of_the_stored_body(header):
    site, reply = validated(("ETag", '"a"'), header)
    for answer in (reply, site.ask()):
        assert (answer.code, answer.body) == (200, b"the page")
        assert answer.field("Content-Length") == "8"
        assert answer.field("Content-Type") == "text/plain"
        assert answer.field("Content-Encoding") is None
        assert answer.field("Content-Range") is None
    assert site.ask().is_hit


def test_int_08_what_a_304_does_update():
    site, reply = validated(("ETag", '"a"'), ("X-Old", "2"), ("X-New", "3"))
    assert (reply.field("X-Old"), reply.field("X-New")) == ("2", "3")
    assert (site.ask().field("X-Old"), site.ask().is_hit) == ("2", True)


@pytest.mark.parametrize("etag", ['"b"', '"A"', "junk"])
def test_int_08_a_304_for_something_else_is_no_use(etag):
    site, reply = validated(("ETag", etag))
    assert reply.body == b"another page"
    assert site.ask().body == b"another page"


def test_int_08_a_304_that_sets_a_cookie():
    site, reply = validated(("ETag", '"a"'), ("Set-Cookie", "session=a"))
    assert reply.all("set-cookie") == ["session=a"]
    for _ in range(2):
        assert not site.ask().is_hit or not site.ask().all("set-cookie")
    for stored in site.cache.store.scan():
        assert stored.field("set-cookie") is None


SPLITTING = [
    ("X-A", "a\r\nSet-Cookie: evil=1"),
    ("X-A", "a\nb"),
    ("X-A", "a\rb"),
    ("X-A", "a\0b"),
    ("X-A\r\nX-B", "a"),
    ("X-A:", "a"),
    ("", "a"),
    ("X-\u20ac", "a"),
    ("X-A", "\u20ac"),
]


@pytest.mark.parametrize("pair", SPLITTING, ids=repr)
def test_int_10_a_field_with_a_line_break_is_refused_on_the_way_in(pair):
    site = Site(page(pair))
    for _ in range(2):
        assert site.ask().detail == "NOT_STORED_FIELDS"


@pytest.mark.parametrize("status", ["200 OK\r\nSet-Cookie: evil=1", "200 a\0"])
def test_int_10_and_so_is_a_status_line(status):
    assert not Site(page(status=status)).ask().stored


def entry_of(site):
    """The only entry of a site."""
    (entry,) = [stored for stored in site.cache.store.scan() if isinstance(stored, Entry)]
    return entry


@pytest.mark.parametrize("pair", SPLITTING, ids=repr)
def test_int_10_and_again_on_the_way_out(pair):
    site = Site()
    site.fill()
    old = entry_of(site)
    forged = Entry(old.key, old.terms, (*old.headers, pair), old.body, old.since, old.fresh_until, old.born)
    with pytest.raises(DecodeError):
        decode(encode(forged))


class Wire(MemoryStore):
    """A store that keeps entries encoded, as one beyond this process does; `damage` happens to them there."""

    def __init__(self):
        super().__init__()
        self.damage = lambda data: data
        self.peek = None
        self.deleted = []

    def get(self, keys):
        found, mark = super().get(keys)
        return [self._read(key, stored) for key, stored in zip(keys, found, strict=True)], mark

    def _read(self, key, stored):
        if stored is None:
            return None
        try:
            return decode(self.damage(encode(stored)))
        except DecodeError:
            self.deleted.append(key)
            return None


DAMAGE = {
    "cut": lambda data: data[:-3],
    "empty": lambda data: b"",
    "a zero page": lambda data: bytes(len(data)),
    "a flipped bit": lambda data: data[:40] + bytes([data[40] ^ 1]) + data[41:],
    "another version": lambda data: data[:4] + bytes([FORMAT + 1]) + data[5:],
    "another magic": lambda data: b"evil" + data[4:],
    "another app's value": lambda data: b"\x80\x04\x95pickled",
    "a longer one": lambda data: data + b"\0",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_int_11_a_damaged_entry_is_a_miss(damage):
    store = Wire()
    site = Site(store=store)
    site.fill()
    assert site.ask().is_hit
    store.damage = damage
    reply = site.ask()
    assert (reply.code, reply.body, reply.is_hit) == (200, b"page", False)
    assert store.deleted
    store.damage = lambda data: data
    site.ask()
    assert site.ask().is_hit


def test_int_11_another_entry_under_the_key_is_a_miss():
    """The full key is in the entry and compared, so that no collision of a hash shows another page."""
    store = Wire()
    site = Site(lambda environ: page(body=environ["PATH_INFO"].encode()), store=store)
    site.fill("/a")
    site.fill("/b")
    (other,), _ = store.get(["/b\0\0example.com\0http"])
    store.damage = lambda data: encode(other)
    reply = site.ask("/a")
    assert (reply.is_hit, reply.body) == (False, b"/a")


def test_int_16_what_the_app_changes_afterwards():
    headers = [("Content-Type", "text/plain"), ("X-A", "1")]
    buffer = bytearray(b"first ")

    def app(environ, start_response):
        start_response("200 OK", headers)

        def body():
            yield bytes(buffer)
            buffer[:] = b"second"
            yield buffer
            buffer[:] = b"broken"
            headers.append(("Set-Cookie", "session=a"))
            headers[1] = ("X-A", "2")

        return body()

    cache = WSGICache(app, clock=FakeClock())
    iterable = cache(make_environ(), lambda *head: None)
    assert b"".join(bytes(chunk) for chunk in iterable) == b"first second"
    iterable.close()
    buffer[:] = b"......"
    for _ in range(2):
        reply = ask(cache)
        assert (reply.is_hit, reply.body, reply.field("X-A")) == (True, b"first second", "1")
        assert not reply.all("set-cookie")


@pytest.mark.parametrize(
    "request_",
    [{}, {"method": "HEAD"}, {"headers": {"If-None-Match": "*"}}, {"headers": {"Range": "bytes=0-1"}}],
)
def test_int_16_what_a_server_does_with_the_head_stays_its_own(request_):
    def meddle(status, headers):
        headers.append(("X-Evil", "1"))
        headers[0] = ("X-Evil", "2")

    site = Site(page(("X-A", "1")))
    site.fill()
    for _ in range(3):
        b"".join(site.cache(make_environ(**request_), meddle))
    assert site.ask().field("X-Evil") is None


# --- SER --------------------------------------------------------------------------------------------

ROOT = Path(wsgicache.__file__).parent
EXECUTING_MODULES = {
    "pickle",
    "cPickle",
    "marshal",
    "yaml",
    "shelve",
    "dill",
    "cloudpickle",
    "jsonpickle",
    "dbm",
}
EXECUTING_CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
SIGNED = {"flask/serializer.py"}
"""The data cache behind the Flask face pickles what it signs; the page cache imports nothing of it."""


SOURCES = sorted(str(path.relative_to(ROOT)) for path in ROOT.rglob("*.py"))


def nodes(name):
    """What a module consists of; parsed in the tests, since each process collects all of them."""
    return ast.walk(ast.parse((ROOT / name).read_text("utf-8")))


@pytest.mark.parametrize("name", SOURCES)
def test_ser_01_nothing_imports_what_runs_stored_bytes(name):
    imported = set()
    for node in nodes(name):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add((node.module or "").split(".")[0])
    assert not imported & EXECUTING_MODULES or name in SIGNED


@pytest.mark.parametrize("name", SOURCES)
def test_ser_01_nothing_calls_what_runs_text(name):
    calls = {
        node.func.id for node in nodes(name) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert not calls & EXECUTING_CALLS


def test_ser_01_the_page_cache_does_not_import_the_face_that_signs():
    for name in SOURCES:
        if not name.startswith("flask/"):
            for node in nodes(name):
                assert not (
                    isinstance(node, ast.ImportFrom)
                    and node.level
                    and (node.module or "").startswith("flask")
                )


EXPLODED = []


def explode(sign):
    """What a pickle would run."""
    EXPLODED.append(sign)


class Bomb:
    """Unpickled, it tells that somebody ran it."""

    def __reduce__(self):
        return explode, (1,)


@pytest.mark.parametrize("protocol", range(6))
def test_ser_01_a_pickle_under_a_live_key_is_a_miss_and_does_not_run(protocol):
    bomb = pickle.dumps(Bomb(), protocol)
    store = Wire()
    site = Site(store=store)
    site.fill()
    store.damage = lambda data: bomb
    assert (site.ask().is_hit, EXPLODED) == (False, [])
    store.damage = lambda data: MAGIC + bomb
    assert (site.ask().is_hit, EXPLODED) == (False, [])


def test_ser_06_workers_of_two_formats_share_a_store():
    """What another version wrote is a miss; nothing is deleted for it but what was read and useless."""
    store = Wire()
    site = Site(store=store)
    site.fill()
    store.damage = lambda data: data[:4] + bytes([FORMAT + 1]) + data[5:]
    for _ in range(3):
        assert not site.ask().is_hit
    assert site.app.calls == 4
    assert site.cache.stats()["reasons"].get("CACHE_FAULT", 0) == 0
    assert site.cache.engine.observer.reasons[Reason.URI_MISS].value == 4
