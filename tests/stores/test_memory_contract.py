"""The contract of stores, over the memory store and the stores that tests are made with."""

from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FailingStore, SharedServer, SharedStore, StoreContract


class TestMemoryStore(StoreContract):
    too_large = 4_000_000
    journal_limit = 200

    def make_store(self):
        return MemoryStore(4_000_000, self.journal_limit)


class TestFailingStore(TestMemoryStore):
    def make_store(self):
        return FailingStore(super().make_store())


class TestSharedStore(StoreContract):
    journal_limit = 200

    def make_store(self):
        return SharedStore(SharedServer(self.journal_limit))


class TestSignedStore(TestSharedStore):
    def make_store(self):
        return SharedStore(SharedServer(self.journal_limit), memo_bytes=0, signing_keys=(b"new", b"old"))
