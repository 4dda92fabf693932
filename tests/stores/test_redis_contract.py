"""The contract of stores, over real servers."""

from servers_redis import empty

from wsgicache.stores import StoreOptions, open_store
from wsgicache.testing import StoreContract


class TestRedisStore(StoreContract):
    journal_limit = 200
    program = "redis-server"

    def make_store(self):
        return open_store(f"{empty(self.program).url}?timeout=20s&journal={self.journal_limit}")


class TestValkeyStore(TestRedisStore):
    program = "valkey-server"


class TestRedisStoreWithoutMemo(TestRedisStore):
    def make_store(self):
        url = f"{empty(self.program).url}?timeout=20s&journal={self.journal_limit}"
        return open_store(url, StoreOptions(memo_bytes=0, signing_keys=(b"one", b"two")))
