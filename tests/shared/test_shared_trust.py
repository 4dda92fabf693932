"""Entries of other workers: signed or not, with other keys, in another format, made up by somebody."""

import random
import sys
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from shared_helpers import Site

from wsgicache import Reason, WSGICache, codec
from wsgicache.codec import decode, encode
from wsgicache.entry import Entry, Variants
from wsgicache.options import OptionError
from wsgicache.testing import Response, ScriptedApp, SharedServer, SharedStore, ask

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("stores", "unit")]

OLD, NEW = "the key of last year", "the key of this year"


# --- stores that can be reached by a URL -----------------------------------------------------------


class Point:
    """An entry point that opens `shared:` as one server, with what the URL's cache says of its keys."""

    name = "shared"

    def __init__(self, server):
        self._server = server

    def load(self):
        return lambda url, options: SharedStore(self._server, options.memo_bytes, options.signing_keys)


@pytest.fixture
def url(request, monkeypatch, tmp_path):
    """A store of each kind, by its URL."""
    if request.param == "shared":
        point = Point(SharedServer())
        monkeypatch.setattr(
            "wsgicache.stores.entry_points",
            lambda group, name=None: [point] if name in (None, "shared") else [],
        )
        yield "shared://"
    elif request.param == "lmdb":
        pytest.importorskip("lmdb", reason="pip install 'wsgicache[lmdb]'")
        yield f"lmdb://{tmp_path}/site?max_bytes=10MB"
    elif request.param == "redis":
        pytest.importorskip("redis", reason="pip install 'wsgicache[redis]'")
        import servers_redis

        server = servers_redis.Server()
        yield server.url
        server.close()
    else:
        pytest.importorskip("pymemcache", reason="pip install 'wsgicache[memcached]'")
        import servers_memcached

        with servers_memcached.memcached() as server:
            yield f"memcached://{server.address}"


REAL = ["lmdb", "redis", "memcached"]
EVERY = pytest.mark.parametrize("url", ["shared", *REAL], indirect=True)


class Release:
    """The workers of one release: they share a store with those of others, and have keys of their own."""

    def __init__(self, url, *keys):
        self.app = ScriptedApp(Response(body=b"page", headers=[("Content-Type", "text/plain")]))
        self.cache = WSGICache(self.app, url, signing_keys=keys, store_timeout=5.0)

    def ask(self, path="/page"):
        return ask(self.cache, path)


@contextmanager
def releases(url, *keys):
    made = [Release(url, *own) for own in keys]
    try:
        yield made
    finally:
        for release in made:
            release.cache.close()


@EVERY
def test_keys_are_changed_in_a_rolling_deploy_without_a_miss(url):
    """The new key is known before it signs, and the old one until nothing that it signed is left."""
    steps = [(OLD,), (OLD, NEW), (NEW, OLD), (NEW,)]
    with releases(url, *steps) as made:
        for number, (before, after) in enumerate(pairwise(made)):
            for one, other in ((before, after), (after, before)):
                path = f"/{number}/{'old' if one is before else 'new'}"
                assert one.ask(path).stored
                assert [release.ask(path).is_hit for release in (other, one, other, one)] == [True] * 4
        assert sum(release.app.calls for release in made) == 6
        assert all(release.cache.stats()["store_failures"] == 0 for release in made)


@EVERY
def test_keys_that_nobody_shares_cost_misses_only(url):
    """A deploy that skips the step in between: the workers take turns, and every visitor has the page."""
    with releases(url, [OLD], [NEW]) as (old, new):
        assert old.ask().stored
        reply = new.ask()
        assert (reply.is_hit, reply.stored, reply.body) == (False, True, b"page")
        assert new.ask().is_hit
        assert not old.ask().is_hit
        assert old.ask().is_hit
        assert old.cache.stats()["store_failures"] == new.cache.stats()["store_failures"] == 0


@EVERY
def test_ser_01_a_page_by_somebody_without_the_key_is_a_miss(url):
    """Whoever can write to the store cannot make up a page: neither unsigned nor with a key of his own."""
    with releases(url, [NEW], [], ["a guess"]) as (site, unsigned, guessing):
        for stranger in (unsigned, guessing):
            assert site.ask().body == b"page"
            stranger.app.answers(Response(body=b"forged"))
            stranger.cache.purge("/page")
            assert stranger.ask().stored
            reply = site.ask()
            assert (reply.is_hit, reply.cache["fwd"], reply.body) == (False, "uri-miss", b"page")
            assert site.ask().is_hit


@EVERY
def test_whoever_has_no_keys_reads_what_is_signed(url):
    """So signing is switched on in two steps: first nobody verifies, then everybody signs."""
    with releases(url, [NEW], []) as (signing, plain):
        assert signing.ask().stored
        assert plain.ask().is_hit
        assert plain.ask("/other").stored
        assert not signing.ask("/other").is_hit


@EVERY
def test_a_varying_page_is_signed_in_all_its_parts(url):
    with releases(url, [NEW], []) as (site, stranger):
        varying = Response(body=b"page", headers=[("Vary", "Accept-Language")])
        site.app.answers(varying)
        stranger.app.answers(varying)
        assert stranger.ask().stored
        assert not site.ask().is_hit
        assert site.ask().is_hit


# --- two formats -----------------------------------------------------------------------------------


@contextmanager
def format_of(version):
    """The package as a release with another format of entries has it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in [m for name, m in sys.modules.items() if name.startswith("wsgicache.")]:
            if hasattr(module, "FORMAT"):
                patch.setattr(module, "FORMAT", version)
        yield


@pytest.mark.parametrize("url", REAL, indirect=True)
def test_ser_06_workers_of_two_formats_share_a_store(url):
    """A page of the other format is a miss; nobody deletes what the other can read; a purge is for all."""
    theirs = codec.FORMAT + 1
    with releases(url, []) as (old,):
        assert old.ask().stored
        with format_of(theirs), releases(url, []) as (new,):
            assert new.cache.explain("http://example.com/page").reason is Reason.URI_MISS
            assert new.cache.stats()["store"].get("damaged", 0) == 0
        assert old.ask().is_hit
        with format_of(theirs), releases(url, []) as (new,):
            reply = new.ask()
            assert (reply.is_hit, reply.cache["fwd"], reply.body) == (False, "uri-miss", b"page")
            assert new.ask().is_hit
            new.cache.purge("/page")
        reply = old.ask()
        assert (reply.is_hit, reply.stored) == (False, True)


# --- signatures that were moved, bytes that were made up -------------------------------------------


def test_a_signed_page_under_another_key_is_a_miss():
    """Its own key is signed with it."""
    site = Site()
    (worker,) = site.workers(1, store_options={"signing_keys": (b"key",)})
    site.response = lambda environ, version: Response(body=environ["PATH_INFO"].encode())
    worker.ask("/account")
    worker.ask("/page")
    (account, row), (page, _) = sorted(site.server.rows.items())
    assert "account" in account
    site.server.rows[page] = row
    reply = worker.ask("/page")
    assert (reply.is_hit, reply.body) == (False, b"/page")


def test_a_signed_page_from_before_a_purge_is_not_brought_back():
    """The mark that it was born at is signed with it: whoever writes it back writes a purged page."""
    site = Site()
    (worker,) = site.workers(1, store_options={"signing_keys": (b"key",)})
    worker.ask()
    ((key, row),) = site.server.rows.items()
    site.version = 2
    worker.cache.purge("/page")
    assert worker.ask().body == b"v2"
    site.server.rows[key] = row
    reply = worker.ask()
    assert (reply.is_hit, reply.body) == (False, b"v2")
    entry = decode(row[0], (b"key",))
    forged = Entry(
        entry.key, entry.terms, entry.headers, entry.body, entry.since, entry.fresh_until,
        worker.store.mark_of(key), entry.values,
    )  # fmt: skip
    site.server.rows[key] = encode(forged, (b"guess",)), 0
    assert worker.ask().body == b"v2"


def test_ser_02_whatever_bytes_are_under_a_key_the_visitor_has_the_page():
    """Damaged, made up with a checksum that fits, of any kind: the app answers, or what was read does."""
    import codec_fuzz

    site = Site()
    (worker,) = site.workers(1)
    worker.ask()
    ((key, (whole, _)),) = site.server.rows.items()
    born = decode(whole).born
    samples = [codec_fuzz.Sample(stored) for stored in _under(key, born)]
    dice = random.Random(7).random
    hits = 0
    for number in range(600):
        head, body, _ = codec_fuzz.DAMAGES[number % 7](samples[number % len(samples)], dice)
        site.server.rows[key] = head + body, 0
        reply = worker.ask()
        hits += reply.is_hit
        assert (reply.body == b"v1") or reply.is_hit
        assert worker.ask(method="HEAD").code < 600
    assert worker.cache.stats()["reasons"].get("CACHE_FAULT", 0) == 0
    assert 0 < hits < 600


def _under(key, born):
    from entry_helpers import page

    now = 1_700_000_000.0
    fresh = {"key": key, "born": born, "since": now - 1, "fresh_until": now + 300}
    return [
        page(**fresh),
        page(**fresh, headers=(("ETag", '"a"'), ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT"))),
        page(**{**fresh, "fresh_until": now - 1}),
        Variants(key, ("accept",), (), now + 300),
    ]


# --- the option ------------------------------------------------------------------------------------


def test_keys_are_for_stores_that_are_opened_by_url():
    """A store that is handed over has its own; an option that would do nothing is refused."""
    with pytest.raises(OptionError, match=r"signing_keys.*give them to the store"):
        WSGICache(ScriptedApp(), SharedStore(SharedServer()), signing_keys=[NEW])


@pytest.mark.parametrize("keys", ["", "hush,", " , hush", [""], ["hush", ""], ["hush", " "]])
def test_an_empty_key_is_refused_and_no_other_is_shown(keys):
    """Somebody's variable is not set: without a word, anybody could sign."""
    with pytest.raises(OptionError, match=r"signing_keys = … .*a key is empty") as told:
        WSGICache(ScriptedApp(), signing_keys=keys)
    assert "hush" not in str(told.value)
    with pytest.raises(OptionError, match="a key is empty"):
        WSGICache.from_env(ScriptedApp(), {"WSGICACHE_SIGNING_KEYS": ",".join(keys)})
