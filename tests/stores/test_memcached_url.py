"""`memcached://`: servers and options, and what a person reads who got them wrong."""

import builtins

import pytest

from wsgicache.stores import Store, StoreOptions, open_store
from wsgicache.stores.memcached import PURGES, MemcachedStore

OPTIONS = StoreOptions(timeout=0.05, memo_bytes=1000, signing_keys=(b"key",))


def names(store):
    return [server.name.removeprefix("memcached://") for server in store._servers.all.values()]


@pytest.mark.parametrize(
    ("url", "servers", "journal"),
    [
        ("memcached://localhost", ["localhost:11211"], "localhost:11211"),
        ("memcached://localhost/", ["localhost:11211"], "localhost:11211"),
        ("memcached://a:1,b:2,c", ["a:1", "b:2", "c:11211"], "a:1"),
        ("memcached://a:1,b:2,c?journal=b:2", ["a:1", "b:2", "c:11211"], "b:2"),
        ("memcached://a:1,b:2?journal=c", ["a:1", "b:2", "c:11211"], "c:11211"),
        ("memcached://[::1]:1,[fe80::1]", ["::1:1", "fe80::1:11211"], "::1:1"),
        ("memcached:///run/memcached.sock", ["/run/memcached.sock"], "/run/memcached.sock"),
    ],
)
def test_servers(url, servers, journal):
    store = open_store(url, OPTIONS)
    assert isinstance(store, MemcachedStore)
    assert isinstance(store, Store)
    assert names(store) == servers
    assert store._home.name == f"memcached://{journal}"


def test_a_server_for_the_journal_alone_has_no_keys():
    store = open_store("memcached://a:1,b:2?journal=c:3", OPTIONS)
    places = {store._servers.of(b"%032x" % number).name for number in range(100)}
    assert places == {"memcached://a:1", "memcached://b:2"}


def test_options():
    common = open_store("memcached://a", OPTIONS)._common
    assert (common.options, common.purges) == (OPTIONS, PURGES)
    common = open_store("memcached://a?timeout=2&memo_bytes=2MB&purges=10", OPTIONS)._common
    assert (common.options.timeout, common.options.memo_bytes, common.purges) == (2.0, 2_000_000, 10)
    assert common.options.signing_keys == (b"key",)
    assert open_store("memcached://a?timeout=0.5", OPTIONS)._servers._timeout == 0.5
    assert open_store("memcached://a?timeout=50ms", OPTIONS)._servers._timeout == 0.05


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memcached://", "no server"),
        ("memcached:", "write memcached://…"),
        ("memcached:localhost", "two slashes follow memcached: write memcached://localhost$"),
        ("memcached:/a:1", "write memcached://a:1$"),
        ("memcached://a&timeout=1", "'a&timeout=1' is no server;.*options after \\?"),
        ("memcached://a b", "'a b' is no server"),
        ("memcached:///run/m.sock&timeout=1", "options begin with \\?"),
        ("memcached:///run/m.sock,a", "a socket is one server"),
        ("memcached:///", "no server"),
        ("memcached://,a", "no server"),
        ("memcached://a,", "no server"),
        ("memcached://a,a:11211", "each once"),
        ("memcached://a:0", "'a:0' is no server"),
        ("memcached://a:65536", "'a:65536' is no server"),
        ("memcached://a:port", "'a:port' is no server; write host or host:11211"),
        ("memcached://[::1", "no server"),
        ("memcached://a/1", "no path after the servers"),
        ("memcached://user:secret@a", "users and passwords are not known"),
        ("memcached://a?server=b", "unknown option 'server'"),
        ("memcached://a?journl=b", "did you mean 'journal'"),
        ("memcached://a?timeout=0", "timeout = '0'"),
        ("memcached://a?timeout=soon", "timeout = 'soon'"),
        ("memcached://a?timeout=5m", "timeout = '5m'"),
        ("memcached://a?memo_bytes=many", "memo_bytes = 'many'"),
        ("memcached://a?purges=0", "purges = '0'"),
        ("memcached://a?journal=", "journal = ''"),
        ("memcached://a?journal=b:x", "journal = 'b:x'"),
        ("memcached://a?timeout=1&timeout=2", "timeout is given twice"),
    ],
)
def test_mistakes(url, told):
    with pytest.raises(ValueError, match=told) as raised:
        open_store(url, OPTIONS)
    assert "secret" not in str(raised.value)


def test_without_pymemcache_the_remedy_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.startswith("pymemcache"):
            raise ImportError(f"No module named {name!r}", name="pymemcache")
        return real(name, *args, **options)

    for module in ("memcached", "memcachedextras", "memcachedjournal", "memcachedservers"):
        monkeypatch.delitem(__import__("sys").modules, f"wsgicache.stores.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"needs the package 'pymemcache'.*pip install 'wsgicache\[memcached\]'"
    ):
        open_store("memcached://a", OPTIONS)
