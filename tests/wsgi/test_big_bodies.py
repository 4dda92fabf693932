"""Bodies in files: what goes in comes out, whole and in parts, and no path leaves a file or a descriptor."""

import errno
import gc
import os
import sys
import threading
from contextlib import contextmanager
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest
from big_helpers import BYTES, SMALL, Download, big_cache, files, open_files, pattern
from hypothesis import given, settings
from hypothesis import strategies as st
from wsgi_helpers import PATIENCE, Body, Call, Exchange, Waiters, count, results, text

from wsgicache import Reason, WSGICache
from wsgicache.answer import answer
from wsgicache.behind import Behind
from wsgicache.body import FileBody, make_etag
from wsgicache.entry import Entry, Terms
from wsgicache.facts import Facts
from wsgicache.journal import Mark
from wsgicache.options import OptionError
from wsgicache.sending import chunks_of
from wsgicache.stores.memory import MemoryStore
from wsgicache.stores.spool import Spool
from wsgicache.testing import ask, make_environ

BODY = pattern(70_000)


@pytest.fixture(params=["memory", "lmdb"])
def store(request, tmp_path):
    if request.param == "memory":
        return "memory://"
    pytest.importorskip("lmdb")
    return f"lmdb://{tmp_path}/db?max_bytes=8MB"


@pytest.fixture
def new(tmp_path, store):
    """Makes caches that keep files in `tmp_path`; afterwards none of them is open."""
    made = []

    def cache(app, **options):
        made.append(big_cache(app, tmp_path / "spool", **{"store": store, **options}))
        return made[-1]

    yield cache
    gc.collect()
    assert open_files(tmp_path) == 0
    for each in made:
        each.close()


def spooled(tmp_path):
    return files(tmp_path / "spool")


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_large_body_is_stored_in_a_file(new, tmp_path, announced, lazy):
    app = Download(BODY, announced=announced, lazy=lazy)
    cache = new(app)
    first = ask(cache, "/f.zip")
    assert (first.stored, first.body) == (True, BODY)
    assert [os.path.getsize(name) for name in spooled(tmp_path)] == [len(BODY)]
    for _ in range(3):
        again = ask(cache, "/f.zip")
        assert (again.is_hit, app.calls) == (True, 1)
        assert again.body == BODY
        assert again.field("content-length") == str(len(BODY))
        assert again.field("etag") == make_etag(BODY)


def test_a_body_that_fits_into_memory_touches_no_file(new, tmp_path):
    cache = new(Download(BODY[:SMALL]))
    assert ask(cache, "/f").stored
    assert ask(cache, "/f").body == BODY[:SMALL]
    assert not (tmp_path / "spool").exists() or not spooled(tmp_path)


def test_pep_3333_is_kept_on_both_sides(new):
    app = Download(BODY)
    cache = validator(new(validator(app)))
    seen = []
    for headers in ({}, {}, {"Range": "bytes=5-60000"}, {"Range": "bytes=1-2,50000-60000"}):
        exchange = Exchange(cache, "/f", headers=headers, **{"wsgi.file_wrapper": FileWrapper}).whole()
        seen.append((exchange.heads[-1][0][:3], len(exchange.body) > 10_000))
    assert seen == [("200", True), ("200", True), ("206", True), ("206", True)]
    assert app.calls == 1


def test_a_whole_body_goes_to_the_servers_file_wrapper(new):
    cache = new(Download(BODY))
    ask(cache, "/f")
    exchange = Exchange(cache, "/f", **{"wsgi.file_wrapper": FileWrapper}).begin()
    assert type(exchange.iterable) is FileWrapper
    assert os.fstat(exchange.iterable.filelike.fileno()).st_size == len(BODY)
    exchange.rest().close()
    assert exchange.body == BODY
    assert exchange.iterable.filelike.closed
    part = Exchange(cache, "/f", headers={"Range": "bytes=0-9"}, **{"wsgi.file_wrapper": FileWrapper}).whole()
    assert type(part.iterable) is not FileWrapper
    assert part.body == BODY[:10]


def test_what_is_not_stored_keeps_the_apps_file_wrapper(new, tmp_path):
    path = tmp_path / "movie"
    path.write_bytes(BODY)

    def app(environ, start_response):
        start_response("200 OK", text(("Cache-Control", "private"), ("Content-Length", str(len(BODY)))))
        return environ["wsgi.file_wrapper"](path.open("rb"), 1000)

    exchange = Exchange(new(app), "/f", **{"wsgi.file_wrapper": FileWrapper}).whole()
    assert type(exchange.iterable) is FileWrapper
    assert exchange.body == BODY


def test_an_apps_file_wrapper_is_copied_where_it_is_stored(new, tmp_path):
    path = tmp_path / "movie"
    path.write_bytes(BODY)

    def app(environ, start_response):
        start_response("200 OK", text(("Cache-Control", "max-age=60")))
        return environ["wsgi.file_wrapper"](path.open("rb"), 1000)

    cache = new(app)
    assert Exchange(cache, "/f", **{"wsgi.file_wrapper": FileWrapper}).whole().body == BODY
    path.unlink()
    assert ask(cache, "/f").body == BODY


# --- conditions, HEAD, parts ------------------------------------------------------------------------


def test_conditions_and_head_open_nothing_and_say_the_same(new, tmp_path):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    head = ask(cache, "/f", method="HEAD")
    assert (head.code, head.body, head.field("content-length")) == (200, b"", str(len(BODY)))
    same = ask(cache, "/f", headers={"If-None-Match": make_etag(BODY)})
    assert (same.code, same.body, same.is_hit) == (304, b"", True)
    part = {"Range": "bytes=1-1", "If-Range": make_etag(BODY)}
    assert ask(cache, "/f", headers=part).body == BODY[1:2]
    part["If-Range"] = '"another"'
    assert ask(cache, "/f", headers=part).body == BODY
    assert ask(cache, "/f", headers={"Range": "bytes=70000-"}).code == 416
    assert app.calls == 1


def test_a_304_to_the_one_who_fills_still_fills(new, tmp_path):
    cache = new(Download(BODY))
    reply = ask(cache, "/f", headers={"If-None-Match": "*"})
    assert (reply.code, reply.body) == (304, b"")
    assert ask(cache, "/f").is_hit
    assert ask(cache, "/f").body == BODY


def test_a_head_asked_as_a_get_fills(new):
    cache = new(Download(BODY))
    assert ask(cache, "/f", method="HEAD").body == b""
    again = ask(cache, "/f")
    assert (again.is_hit, again.body) == (True, BODY)


def entry_of(body):
    terms, fields = Terms("200 OK", "f", 60, "ttl"), (("ETag", '"a"'), ("Content-Type", "text/plain"))
    return Entry("k", terms, fields, body, 0.0, 60.0, Mark("e", 0, "n"))


@pytest.fixture(scope="module")
def in_file(tmp_path_factory):
    writer = Spool(1_000_000, tmp_path_factory.mktemp("ranges")).begin()
    writer.write(BODY)
    body = writer.finish()
    yield body
    del body


NUMBERS = st.integers(0, len(BODY) + 10)
RANGES = st.lists(
    st.tuples(NUMBERS, NUMBERS).map(lambda pair: f"{min(pair)}-{max(pair)}")
    | NUMBERS.map("{}-".format)
    | NUMBERS.map("-{}".format),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60)
@given(RANGES)
def test_parts_of_a_file_are_those_of_bytes(in_file, ranges):
    facts = Facts(make_environ("/f", headers={"Range": "bytes=" + ", ".join(ranges)}))
    ours, theirs = answer(entry_of(in_file), facts), answer(entry_of(BODY), facts)
    chunks = chunks_of(ours, {"wsgi.file_wrapper": FileWrapper})
    given_ = b"".join(chunks)
    getattr(chunks, "close", lambda: None)()
    expected = b"".join(chunks_of(theirs, None))
    assert ours.status == theirs.status
    boundary = [dict(made.headers)["Content-Type"].partition("boundary=")[2] for made in (ours, theirs)]
    if boundary[0]:  # it is made of the bytes there, and of their tag here
        expected = expected.replace(boundary[1].encode(), boundary[0].encode())
    assert given_ == expected
    assert dict(ours.headers)["Content-Length"] == str(len(given_))


# --- nothing is left --------------------------------------------------------------------------------


class Broken(Exception):
    pass


def test_an_early_close_leaves_no_file(new, tmp_path):
    cache = new(Download(BODY, announced=False))
    exchange = Exchange(cache, "/f").begin()
    for _ in range(20):
        exchange.pull()
    assert len(spooled(tmp_path)) == 1
    exchange.close()
    assert spooled(tmp_path) == []
    assert count(cache, Reason.NOT_STORED_BROKEN_OFF) == 1


def test_a_body_that_raises_leaves_no_file(new, tmp_path):
    def app(environ, start_response):
        start_response("200 OK", text(("Cache-Control", "max-age=60")))
        return Body([BODY, BODY, Broken()])

    cache = new(app)
    exchange = Exchange(cache, "/f").begin()
    with pytest.raises(Broken):
        exchange.rest()
    exchange.close()
    assert spooled(tmp_path) == []
    assert not ask_safely(cache).is_hit


def ask_safely(cache):
    exchange = Exchange(cache, "/f").begin()
    with pytest.raises(Broken):
        exchange.rest()
    return exchange.close().reply


def test_a_server_that_never_closes_leaves_no_file(new, tmp_path):
    cache = new(Download(BODY, announced=False))
    exchange = Exchange(cache, "/f").begin()
    for _ in range(20):
        exchange.pull()
    assert len(spooled(tmp_path)) == 1
    del exchange
    gc.collect()
    assert spooled(tmp_path) == []


@pytest.mark.parametrize("announced", [60_000, 80_000])
def test_a_length_that_does_not_agree_leaves_no_file(new, tmp_path, announced):
    app = Download(BODY, announced=False, fields=[("Content-Length", str(announced))])
    cache = new(app)
    Exchange(cache, "/f").whole()
    assert spooled(tmp_path) == []
    assert count(cache, Reason.NOT_STORED_INCOMPLETE) == 1


def test_a_body_beyond_max_body_bytes_streams_on_without_its_file(new, tmp_path):
    cache = new(Download(BODY, announced=False), max_body_bytes=50_000)
    exchange = Exchange(cache, "/f").begin()
    seen = set()
    for _ in BODY[::300]:
        exchange.pull()
        seen.add(len(spooled(tmp_path)))
    assert seen == {0, 1}
    exchange.rest().close()
    assert exchange.body == BODY
    assert spooled(tmp_path) == []
    assert count(cache, Reason.NOT_STORED_TOO_LARGE) == 1


def test_the_first_chunk_is_not_held_back(new):
    app = Download(BODY, chunk=5_000)
    exchange = Exchange(new(app), "/f").begin()
    exchange.pull()
    assert exchange.body == BODY[:5_000]
    assert app.bodies[0].pulled == 1
    exchange.rest().close()


# --- faults of the disk -----------------------------------------------------------------------------


class FullDisk:
    """What `FileIO.write` does where the disk has room for so many bytes."""

    def __init__(self, room):
        self.room = room

    def __call__(self, original, chunk):
        if self.room <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = original(memoryview(chunk)[: self.room])
        self.room -= taken
        return taken


class LimitedFile:
    def __init__(self, file, disk):
        self._file, self._disk = file, disk

    def write(self, chunk):
        return self._disk(self._file.write, chunk)

    def __getattr__(self, name):
        return getattr(self._file, name)


@pytest.mark.parametrize("room", [0, 1, 30_000])
@pytest.mark.parametrize("lazy", [True, False])
def test_a_full_disk_changes_nothing_for_the_client(new, tmp_path, monkeypatch, caplog, room, lazy):
    disk = FullDisk(room)
    begin = Spool.begin

    def limited(self, size=None):
        writer = begin(self, size)
        writer._keeper.file = LimitedFile(writer._keeper.file, disk)
        return writer

    monkeypatch.setattr(Spool, "begin", limited)
    app = Download(BODY, lazy=lazy)
    cache = new(app)
    for turn in range(1, 3):
        reply = ask(cache, "/f")
        assert (reply.body, app.calls) == (BODY, turn)
    assert count(cache, Reason.NOT_STORED_FILE) == 2
    assert spooled(tmp_path) == []
    assert "No space left" in caplog.text
    disk.room = 1_000_000
    assert ask(cache, "/f").body == BODY
    assert ask(cache, "/f").is_hit


def test_a_directory_that_cannot_be_made(tmp_path, caplog):
    (tmp_path / "taken").write_text("a file")
    cache = big_cache(Download(BODY), tmp_path / "taken")
    assert ask(cache, "/f").body == BODY
    assert count(cache, Reason.NOT_STORED_FILE) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_a_body_that_the_spool_never_has_room_for(new, tmp_path, announced):
    app = Download(BODY, announced=announced)
    cache = new(app, spool_max_bytes=100_000)
    reply = ask(cache, "/f")
    assert (reply.body, reply.stored) == (BODY, not announced)  # or the head was out when it was found
    assert reply.detail == ("NOT_STORED_FILE" if announced else None)
    assert count(cache, Reason.NOT_STORED_FILE) == 1
    assert spooled(tmp_path) == []


ROOM = {"spool_max_bytes": 4 * len(BODY) - 2}
"""For one body of those that are being written, and all but one byte of another."""


def test_a_body_that_has_no_room_beside_another_is_refused_when_it_begins(new, tmp_path):
    """Not when it ends, and not the one that came first."""
    app = Download(BODY)
    cache = new(app, **ROOM)
    first = Exchange(cache, "/first").begin()
    first.pull()
    second = Exchange(cache, "/second").begin()
    assert "detail=NOT_STORED_FILE" in dict(second.heads[0][1])["Cache-Status"]
    assert len(spooled(tmp_path)) == 1
    assert second.rest().close().body == BODY
    assert first.rest().close().body == BODY
    assert ask(cache, "/first").is_hit
    assert ask(cache, "/second").stored, "there is room now"
    assert ask(cache, "/second").is_hit
    assert count(cache, Reason.NOT_STORED_FILE) == 1


@pytest.mark.parametrize("end", ["close", "raise", "short", "long"])
def test_room_is_given_back_however_a_fill_ends(new, tmp_path, end):
    app = Download(BODY)
    cache = new(app, **ROOM)
    if end == "raise":
        app.chunks = lambda: [BODY[:300], RuntimeError("broken")]
    elif end == "short":
        app.chunks = lambda: [BODY[:2000]]
    elif end == "long":
        app.chunks = lambda: [BODY, b"more"]
    exchange = Exchange(cache, "/first").begin()
    exchange.pull()
    if end != "close":
        try:
            exchange.rest()
        except RuntimeError:
            assert end == "raise"
    exchange.close()
    app.chunks = lambda: [BODY]
    assert ask(cache, "/first").stored
    assert ask(cache, "/first").is_hit
    assert count(cache, Reason.NOT_STORED_FILE) == 0


def test_nobody_waits_for_the_end_of_what_is_refused(new, tmp_path):
    app = Download(BODY)
    cache = new(app, **ROOM)
    first, second = [Exchange(cache, url).begin() for url in ("/first", "/second")]
    third = ask(cache, "/second")
    assert (third.body, third.detail, app.calls) == (BODY, "NOT_STORED_FILE", 3)
    for exchange in (second, first):
        exchange.rest().close()


def test_a_head_that_is_taken_back_gives_back_its_room(new, tmp_path):
    """An app may begin its answer anew as long as nothing of it is out (PEP 3333)."""

    def app(environ, start_response):
        start_response("200 OK", [*BYTES, ("Content-Length", str(len(BODY)))])
        try:
            raise RuntimeError
        except RuntimeError:
            start_response("200 OK", [*BYTES, ("Content-Length", "5")], sys.exc_info())
        yield b"short"

    cache = new(app, **ROOM)
    assert ask(cache, "/f").body == b"short"
    assert ask(cache, "/f").is_hit
    assert spooled(tmp_path) == []


def test_a_store_that_was_made_before_has_a_directory_of_its_own(tmp_path):
    with pytest.raises(OptionError, match="spool_dir is for a store that is opened by its URL"):
        WSGICache(Download(BODY), store=MemoryStore(), spool_dir=str(tmp_path))
    cache = big_cache(Download(BODY), None, store=MemoryStore(spool_dir=str(tmp_path)))
    ask(cache, "/f")
    assert ask(cache, "/f").is_hit
    assert len(files(tmp_path)) == 1
    cache.close()
    assert files(tmp_path) == []


def test_without_a_spool_all_is_in_memory(new, tmp_path):
    cache = new(Download(BODY), spool_max_bytes=0)
    ask(cache, "/f")
    assert ask(cache, "/f").is_hit
    assert ask(cache, "/f").body == BODY
    assert not (tmp_path / "spool").exists()


def test_a_file_that_somebody_took_away_is_a_miss(new, tmp_path):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    (name,) = spooled(tmp_path)
    os.unlink(name)
    reply = ask(cache, "/f")
    assert (reply.cache["fwd"], reply.stored, reply.body, app.calls) == ("uri-miss", True, BODY, 2)
    assert ask(cache, "/f").is_hit


def test_an_entry_whose_file_is_gone_goes_too(new, tmp_path):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    os.unlink(spooled(tmp_path)[0])
    app.fields = [("Content-Type", "a/b"), ("Cache-Control", "private")]
    assert ask(cache, "/f").body == BODY
    assert cache.engine.store.stats()["entries"] == 0


@contextmanager
def no_more_files():
    """A process that has all the files open that it may have."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_that_has_no_file_left_to_open_keeps_what_is_stored(new, caplog):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    with no_more_files():
        reply = ask(cache, "/f")
    assert (reply.cache["fwd"], reply.cache["detail"], reply.body) == ("miss", "CACHE_FAULT", BODY)
    assert "Too many open files" in caplog.text
    assert ask(cache, "/f").is_hit
    assert app.calls == 2


def test_parts_that_nobody_begins_to_read_are_closed(in_file):
    made = answer(entry_of(in_file), Facts(make_environ("/f", headers={"Range": "bytes=1-9"})))
    for taken in (0, 1):
        chunks = chunks_of(made, {})
        for _ in range(taken):
            next(chunks)
        assert not chunks._file.closed
        chunks.close()
        assert chunks._file.closed
        assert list(chunks) == []


def test_a_file_that_was_cut_off_is_a_miss(new, tmp_path):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    (name,) = spooled(tmp_path)
    os.truncate(name, 10)
    assert ask(cache, "/f").body == BODY
    assert app.calls == 2


# --- the file goes with its entry -------------------------------------------------------------------


def test_a_replaced_entry_takes_its_file_along(new, tmp_path):
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    app.body = BODY[::-1]
    cache.fake_clock.tick(700)
    assert ask(cache, "/f").body == BODY[::-1]
    assert len(spooled(tmp_path)) == 1
    assert ask(cache, "/f").body == BODY[::-1]


def test_a_freshened_entry_keeps_the_file(new, tmp_path):
    app = Download(BODY, fields=[("ETag", '"v"')])
    cache = new(app)
    ask(cache, "/f")
    before = spooled(tmp_path)
    cache.fake_clock.tick(700)
    app.status, app.body = "304 Not Modified", b""
    app.fields = [("ETag", '"v"'), ("Cache-Control", "max-age=600")]
    for told in ("304", None):
        reply = ask(cache, "/f")
        assert (reply.code, reply.body, reply.cache.get("fwd-status")) == (200, BODY, told)
    assert spooled(tmp_path) == before
    assert app.calls == 2


def test_a_stale_file_answers_in_place_of_an_error(new):
    app = Download(BODY)
    cache = new(app, stale_if_error=1000)
    ask(cache, "/f")
    cache.fake_clock.tick(700)
    app.status, app.body, app.fields = "503 Down", b"", []
    reply = ask(cache, "/f")
    assert (reply.code, reply.body) == (200, BODY)


def test_clear_removes_the_files(new, tmp_path):
    cache = new(Download(BODY))
    ask(cache, "/f")
    cache.clear()
    assert spooled(tmp_path) == []


def test_the_spool_is_bounded(new, tmp_path):
    app = Download(BODY)
    cache = new(app, spool_max_bytes=5 * 72_000)
    for number in range(12):
        ask(cache, f"/{number}")
        assert sum(map(os.path.getsize, spooled(tmp_path))) <= 5 * 72_000
    assert len(spooled(tmp_path)) >= 4
    assert ask(cache, "/11").is_hit


def test_what_is_asked_for_again_outlives_what_is_not(new, tmp_path):
    app = Download(BODY)
    cache = new(app, spool_max_bytes=5 * 72_000)
    for number in range(12):
        ask(cache, f"/{number}")
        assert ask(cache, "/0").is_hit


def test_a_download_under_way_outlives_purge_and_eviction(new, tmp_path):
    cache = new(Download(BODY))
    ask(cache, "/f")
    exchange = Exchange(cache, "/f").begin()
    part = Exchange(cache, "/f", headers={"Range": "bytes=0-65535"}).begin()
    cache.purge("/f")
    cache.clear()
    assert spooled(tmp_path) == []
    assert exchange.rest().close().body == BODY
    assert part.rest().close().body == BODY[:65536]


def test_a_purge_during_the_fill_wins(new, tmp_path):
    app = Download(BODY, announced=False)
    cache = new(app)
    exchange = Exchange(cache, "/f").begin()
    for _ in range(20):
        exchange.pull()
    cache.purge("/f")
    exchange.rest().close()
    assert exchange.body == BODY
    assert spooled(tmp_path) == []
    assert count(cache, Reason.NOT_STORED_RACED) == 1
    assert not ask(cache, "/f").is_hit


def test_variants_have_files_of_their_own(new, tmp_path):
    def app(environ, start_response):
        start_response("200 OK", text(("Cache-Control", "max-age=60"), ("Vary", "X-Kind")))
        return [environ["HTTP_X_KIND"].encode() * 5000]

    cache = new(app)
    for _ in range(2):
        for kind in ("a", "b"):
            reply = ask(cache, "/f", headers={"X-Kind": kind})
            assert reply.body == kind.encode() * 5000
    assert reply.is_hit
    assert len(spooled(tmp_path)) == 2


# --- pages ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b"<p>" + b"text " * 1000, Reason.STORED),
        (b"<p>" + b"text " * 1000 + b'<input name="csrf_token" value="abc">', Reason.NOT_STORED_TOKEN),
        (b"<p>" + b"text " * (9 << 18), Reason.NOT_STORED_TOKEN),
    ],
    ids=["harmless", "with a token", "longer than is searched"],
)
def test_a_long_page_is_searched_for_tokens(new, tmp_path, page, reason):
    app = Download(page, chunk=4000, fields=[("Content-Type", "text/html")])
    app.fields = [("Content-Type", "text/html"), ("Cache-Control", "max-age=60")]
    cache = new(app, max_body_bytes=20_000_000)
    assert ask(cache, "/f").body == page
    assert count(cache, reason) == 1
    assert len(spooled(tmp_path)) == (reason is Reason.STORED)


# --- several at once --------------------------------------------------------------------------------


def test_followers_get_the_file_of_their_leader(new, tmp_path):
    app = Download(BODY, announced=False)
    cache = new(app, slow_client_grace=10.0)
    leader = Exchange(cache, "/f").begin()
    leader.pull()
    waiters = Waiters(cache)
    followers = [Call(ask, cache, "/f") for _ in range(3)]
    waiters.arrived(3)
    leader.pull()  # reads the rest, because others wait
    replies = results(followers)
    assert [(reply.body, "collapsed" in reply.cache) for reply in replies] == [(BODY, True)] * 3
    assert app.calls == 1
    assert isinstance(leader.iterable._pending, Behind), "what its client has not taken is not in memory"
    assert leader.rest().close().body == BODY
    assert len(spooled(tmp_path)) == 1


@contextmanager
def app_held(cache):
    """The app of a cache begins when the second event is set; the first is set when it is asked."""
    app, asked, go_on = cache.app, threading.Event(), threading.Event()

    def held(environ, start_response):
        asked.set()
        assert go_on.wait(PATIENCE)
        return app(environ, start_response)

    cache.app = held
    yield asked, go_on
    go_on.set()


def test_a_file_that_is_gone_is_fetched_again_once(new, tmp_path):
    """Several found the entry and then no file: one asks the app, the others wait for it."""
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    (name,) = spooled(tmp_path)
    look_up, found_it = cache.engine.look_up, threading.local()
    together = threading.Barrier(4, action=lambda: os.unlink(name))

    def with_others(admission, **given):
        found = look_up(admission, **given)
        if not hasattr(found_it, "once"):
            found_it.once = True
            assert found.reason is Reason.HIT
            together.wait(PATIENCE)
        return found

    cache.engine.look_up = with_others
    waiters = Waiters(cache)
    with app_held(cache):
        calls = [Call(ask, cache, "/f") for _ in range(4)]
        waiters.arrived(3)
    replies = results(calls)
    assert {reply.body for reply in replies} == {BODY}
    assert app.calls == 2
    assert sorted("collapsed" in reply.cache for reply in replies) == [False, True, True, True]
    assert {reply.cache["fwd"] for reply in replies} == {"uri-miss"}
    assert len(spooled(tmp_path)) == 1


def test_files_that_go_again_and_again_keep_nobody(new, tmp_path):
    """Whoever lost a file twice waits for no third one."""
    app = Download(BODY)
    cache = new(app)
    ask(cache, "/f")
    land = cache.engine.land

    def and_take_it_away(flight, entry):
        os.unlink(entry.body.path)
        land(flight, entry)

    os.unlink(spooled(tmp_path)[0])
    cache.engine.land = and_take_it_away
    waiters = Waiters(cache)
    with app_held(cache) as (asked, _):
        leader = Call(ask, cache, "/f")
        assert asked.wait(PATIENCE)
        followers = [Call(ask, cache, "/f") for _ in range(2)]
        waiters.arrived(2)
    assert {reply.body for reply in results([leader, *followers])} == {BODY}
    assert app.calls <= 5


def test_many_at_once_each_get_all_of_it(new):
    cache = new(Download(BODY))
    ask(cache, "/f")
    barrier = threading.Barrier(6)

    def download():
        barrier.wait(PATIENCE)
        return Exchange(cache, "/f", **{"wsgi.file_wrapper": FileWrapper}).whole().body

    assert results([Call(download) for _ in range(6)]) == [BODY] * 6


def test_a_body_knows_its_size_and_its_likes():
    body = FileBody("a" * 32 + ".body", 5, '"t"', "/dir")
    assert (len(body), bool(body), bool(FileBody("n", 0, ""))) == (5, True, False)
    assert body == FileBody("a" * 32 + ".body", 5, '"t"', "/elsewhere")
    assert body != b"bytes"
    assert body.path == "/dir/" + "a" * 32 + ".body"


def test_a_body_in_a_file_gets_no_coded_forms(new, tmp_path):
    page = b"{}" * 40_000
    app = Download(page)
    app.fields = [("Content-Type", "application/json"), ("Cache-Control", "max-age=60")]
    cache = new(app, encode="gzip")
    for accepted in ("gzip", "identity", "gzip", "br, gzip", "gzip"):
        reply = ask(cache, "/f", headers={"Accept-Encoding": accepted})
        assert (reply.body, reply.field("content-encoding")) == (page, None)
    assert reply.is_hit
    assert (app.calls, len(spooled(tmp_path))) == (1, 1)


@pytest.mark.parametrize("answer", ["error", "304", "exception"])
def test_a_server_that_refuses_the_head_leaves_no_file_open(new, tmp_path, answer):
    app = Download(BODY, fields=[("ETag", '"v"')])
    cache = new(app, stale_if_error=1000)
    ask(cache, "/f")
    cache.fake_clock.tick(700)
    app.status, app.body = "304 Not Modified" if answer == "304" else "503 Down", b""

    def refuse(*head):
        raise ValueError("the server does not like this head")

    def failing(environ, start_response):
        raise RuntimeError("down")

    if answer == "exception":
        cache.app = failing
    with pytest.raises(ValueError, match="does not like") as caught:
        cache(make_environ("/f"), refuse)
    assert open_files(tmp_path) == 0, "while the traceback is held"
    del caught


@pytest.mark.parametrize("status", ["304 Not Modified", "503 Down"])
def test_a_file_that_is_gone_is_no_fault_where_a_stale_page_would_answer(new, tmp_path, status):
    calls = []

    def app(environ, start_response):
        calls.append("HTTP_IF_NONE_MATCH" in environ)
        fields = [("Content-Type", "text/plain"), ("ETag", '"v"'), ("Cache-Control", "max-age=600")]
        if calls[-1]:
            start_response(status, fields)
            return []
        start_response("200 OK", fields)
        return [BODY]

    cache = new(app, stale_if_error=1000)
    ask(cache, "/f")
    cache.fake_clock.tick(700)
    (name,) = spooled(tmp_path)
    os.unlink(name)
    reply = ask(cache, "/f")
    assert count(cache, Reason.CACHE_FAULT) == 0
    if status.startswith("304"):
        assert (reply.code, reply.body, calls) == (200, BODY, [False, True, False])
        assert ask(cache, "/f").is_hit
    else:
        assert (reply.code, reply.body, calls) == (503, b"", [False, True])
