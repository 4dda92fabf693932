"""The near tier is a store: it keeps the promises of every store, with copies and without."""

from near_helpers import Parted, Remote

from wsgicache.stores.memory import MemoryStore
from wsgicache.stores.near import near_store
from wsgicache.testing import StoreContract


class TestNear(StoreContract):
    too_large = 4 << 20
    journal_limit = 100

    def make_store(self):
        return near_store(Remote(MemoryStore(4 << 20, journal_limit=100)), 8 << 20, bound=20.0)


class TestNearThatAsksAgainAndAgain(StoreContract):
    """Trust runs out all the time, copies are too old at once, and few fit."""

    too_large = 4 << 20

    def make_store(self):
        return near_store(Remote(MemoryStore(4 << 20)), 65536, bound=0.002, max_age=0.001)


class TestNearParts(StoreContract):
    too_large = 4 << 20
    journal_limit = 100

    def make_store(self):
        return near_store(Parted(rooms=[MemoryStore(4 << 20, journal_limit=100)]), 8 << 20, bound=20.0)


class TestOneNearPart(StoreContract):
    too_large = 4 << 20

    def make_store(self):
        self.whole = near_store(Parted(rooms=[MemoryStore(4 << 20)]), 8 << 20)
        return self.whole.parts[0]
