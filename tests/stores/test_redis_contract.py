"""The contract of stores, over real servers."""

from servers_redis import empty, empty_cluster, empty_sentinels

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


class TestSentinelStore(TestRedisStore):
    def make_store(self):
        return open_store(f"{empty_sentinels().url}?timeout=20s&journal={self.journal_limit}")


class TestClusterStore(StoreContract):
    journal_limit = 200

    def make_store(self):
        return open_store(f"{empty_cluster().url}?timeout=20s&buckets=1&journal={self.journal_limit}")


class TestBucket(StoreContract):
    """One part of a store that has sixteen."""

    journal_limit = 200

    def make_store(self):
        self.whole = open_store(f"{empty_cluster().url}?timeout=20s&journal={self.journal_limit}")
        return _Namespaced(self.whole)


class _Namespaced:
    """Part 5 of a store and of its namespaces."""

    def __init__(self, store):
        self._store = store
        self._part = store.parts[5]

    def namespaced(self, namespace):
        return _Namespaced(self._store.namespaced(namespace)) if namespace else self

    def __getattr__(self, name):
        return getattr(self._part, name)
