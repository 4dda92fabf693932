"""The contract of stores over caches of cachelib, as far as they can keep it."""

import uuid

import cachelib
import pytest
from servers_memcached import Part, plain_redis

from wsgicache.stores.cachelib import CachelibStore
from wsgicache.testing import StoreContract


class CachelibContract(StoreContract):
    """What cachelib cannot: list, count, and keep purges one by one."""

    can_scan = False
    can_count = False
    keeps_purges = False


class TestSimpleCache(CachelibContract):
    def make_store(self):
        return CachelibStore(cachelib.SimpleCache(threshold=10**6))


class TestWithoutAMemo(CachelibContract):
    def make_store(self):
        return CachelibStore(cachelib.SimpleCache(threshold=10**6), memo_bytes=0)


class TestSigned(CachelibContract):
    def make_store(self):
        cache = cachelib.SimpleCache(threshold=10**6)
        return CachelibStore(cache, signing_keys=(b"new key", b"old key"))


class TestFileSystemCache(CachelibContract):
    threads = 4

    @pytest.fixture(autouse=True)
    def directory(self, tmp_path):
        self.path = tmp_path
        self.store = self.make_store()

    def setup_method(self):
        """The directory comes first."""

    def make_store(self):
        return CachelibStore(cachelib.FileSystemCache(str(self.path / "cache"), threshold=0))


@pytest.fixture(scope="module")
def port():
    with plain_redis() as port:
        yield port


class TestRedisCache(CachelibContract):
    @pytest.fixture(autouse=True)
    def server(self, port):
        self.port = port
        self.store = self.make_store()
        yield
        self.cache._write_client.close()

    def setup_method(self):
        """The server comes first."""

    def make_store(self):
        self.cache = cachelib.RedisCache("127.0.0.1", self.port, socket_timeout=5)
        return Part(CachelibStore(self.cache), uuid.uuid4().hex)
