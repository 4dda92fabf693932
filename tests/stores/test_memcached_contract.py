"""The contract of stores, over one memcached and over three."""

import uuid

import pytest
from servers_memcached import Part, memcached

from wsgicache.stores import StoreOptions
from wsgicache.stores.memcached import MemcachedStore
from wsgicache.testing import StoreContract

ITEM_SIZE = 2 << 20


@pytest.fixture(scope="module")
def three():
    with memcached("-I", "2m") as a, memcached("-I", "2m") as b, memcached("-I", "2m") as c:
        yield [a, b, c]


class MemcachedContract(StoreContract):
    """Each test has a namespace of its own, so that one needs no flush of the servers."""

    too_large = ITEM_SIZE
    journal_limit = 200
    can_scan = False
    can_count = False
    options = StoreOptions(timeout=5.0)

    @pytest.fixture(autouse=True)
    def servers(self, three):
        type(self).addresses = [server.address for server in three]

    def setup_method(self):
        pass

    @pytest.fixture(autouse=True)
    def a_store(self, servers):
        self.store = self.make_store()

    def make_store(self):
        store = MemcachedStore(self.named(), options=self.options, purges=self.journal_limit)
        self.whole = store
        return Part(store, uuid.uuid4().hex)

    def named(self):
        return self.addresses


class TestThree(MemcachedContract):
    pass


class TestOne(MemcachedContract):
    def named(self):
        return self.addresses[:1]


class TestWithoutAMemo(MemcachedContract):
    options = StoreOptions(timeout=5.0, memo_bytes=0)


class TestSigned(MemcachedContract):
    options = StoreOptions(timeout=5.0, signing_keys=(b"new key", b"old key"))
