"""The contract of stores, over LMDB files of their own."""

from tempfile import TemporaryDirectory

from wsgicache.stores import StoreOptions, open_store
from wsgicache.testing import StoreContract


class TestLmdbStore(StoreContract):
    too_large = 16_000_000
    journal_limit = 200
    options = StoreOptions()

    def make_store(self):
        self.directory = TemporaryDirectory()
        url = f"lmdb://{self.directory.name}/cache?max_bytes=32MB&journal={self.journal_limit}"
        return open_store(url, self.options)

    def teardown_method(self):
        super().teardown_method()
        self.directory.cleanup()


class TestLmdbStoreWithoutMemo(TestLmdbStore):
    options = StoreOptions(memo_bytes=0)


class TestSignedLmdbStore(TestLmdbStore):
    options = StoreOptions(signing_keys=(b"new key" * 5, b"old key" * 5))
