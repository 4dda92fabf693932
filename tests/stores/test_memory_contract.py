"""The contract of stores, over the memory store and over a store that fails only when it is told to."""

from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FailingStore, StoreContract


class TestMemoryStore(StoreContract):
    too_large = 4_000_000
    journal_limit = 200

    def make_store(self):
        return MemoryStore(4_000_000, self.journal_limit)


class TestFailingStore(TestMemoryStore):
    def make_store(self):
        return FailingStore(super().make_store())
