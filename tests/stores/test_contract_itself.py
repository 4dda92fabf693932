"""The contract is worth something: a plain third-party store passes, and each broken one is caught."""

import hashlib
import subprocess
import sys
import threading
import time
import unicodedata

import pytest

from wsgicache.codec import decode, encode
from wsgicache.entry import Entry
from wsgicache.journal import Journal, Mark, Purge, Snapshot
from wsgicache.stores import Store
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import StoreContract

LIMIT = 1 << 21


def give_way():
    """Where a lock is missing, let another thread run into the gap."""
    threading.Event().wait(0.0005)


class BytesStore:
    """What a network store does, without a network: bytes under hashed keys, nothing shared with callers."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rows = {}
        self._journal = Journal(limit=200)
        self._parts = {"": self}
        self._tokens, self._leases, self._meta, self._counters = 0, {}, {}, {}

    def namespaced(self, namespace):
        with self._lock:
            return self._parts.setdefault(namespace, type(self)() if namespace else self)

    @staticmethod
    def _hashed(key):
        return hashlib.blake2b(key.encode("utf-8", "surrogatepass")).hexdigest()

    def _stored(self, key):
        row = self._rows.get(self._hashed(key))
        return None if row is None else decode(row[1])

    def get(self, keys):
        with self._lock:
            return [self._stored(key) for key in keys], self._journal.mark

    def set(self, key, stored, keep_until, token=0):
        with self._lock:
            name, data = self._hashed(key), encode(stored)
            if len(data) > LIMIT or (isinstance(stored, Entry) and not self._takes(name, stored, token)):
                return False
            self._rows[name] = (key, data, token)
            return True

    def _takes(self, name, entry, token):
        if entry.born.epoch != self._journal.mark.epoch:
            return False
        if name not in self._rows:
            return True
        _, data, old_token = self._rows[name]
        old = decode(data)
        return not isinstance(old, Entry) or (old.born.seq <= entry.born.seq and not 0 < token < old_token)

    def delete(self, key, only=None):
        with self._lock:
            name = self._hashed(key)
            row = self._rows.get(name)
            if row is None or (only is not None and row[1] != encode(only)):
                return False
            del self._rows[name]
            return True

    def mark_of(self, key):
        with self._lock:
            return self._journal.mark

    def lease(self, key, seconds):
        with self._lock:
            token, until = self._leases.get(key, (0, 0.0))
            if time.monotonic() < until:
                return None if token else 0
            self._tokens += 1
            self._leases[key] = self._tokens, time.monotonic() + seconds
            return self._tokens

    def release(self, key, token, unstorable_for=0.0):
        with self._lock:
            if self._leases.get(key, (0, 0.0))[0] == token:
                self._leases[key] = 0, time.monotonic() + unstorable_for

    def get_meta(self, name):
        return self._meta.get(name)

    def set_meta(self, name, value):
        self._meta[name] = value

    def incr_many(self, deltas):
        with self._lock:
            for name, delta in deltas.items():
                self._counters[name] = self._counters.get(name, 0) + delta

    def counters(self):
        return dict(self._counters)

    def clear(self):
        with self._lock:
            self._rows.clear()
            return self._journal.restart()

    def append(self, purges, at):
        with self._lock:
            return self._journal.append(purges, at)

    def purges_since(self, mark):
        with self._lock:
            return self._journal.since(mark)

    def scan(self, prefix=""):
        with self._lock:
            return iter([decode(data) for key, data, _ in self._rows.values() if key.startswith(prefix)])

    def stats(self):
        with self._lock:
            return {"entries": len(self._rows), "bytes": sum(len(row[1]) for row in self._rows.values())}

    def close(self):
        self._rows.clear()


class TestBytesStore(StoreContract):
    too_large = LIMIT
    journal_limit = 200

    def make_store(self):
        return BytesStore()


def test_it_is_a_store():
    assert isinstance(BytesStore(), Store)


def test_without_a_store_the_contract_says_what_is_missing():
    with pytest.raises(NotImplementedError, match="def make_store"):
        StoreContract().setup_method()


class FoldsKeys(BytesStore):
    @staticmethod
    def _hashed(key):
        return key.lower()


class StripsKeys(BytesStore):
    @staticmethod
    def _hashed(key):
        return key.strip()


class NormalisesKeys(BytesStore):
    @staticmethod
    def _hashed(key):
        return unicodedata.normalize("NFC", key)


class CutsKeys(BytesStore):
    @staticmethod
    def _hashed(key):
        return key[:250]


class RefusesSurrogates(BytesStore):
    @staticmethod
    def _hashed(key):
        return key.encode()


class LosesTheOrder(BytesStore):
    def get(self, keys):
        return super().get(sorted(keys))


class LeavesOutTheMissing(BytesStore):
    def get(self, keys):
        found, mark = super().get(keys)
        return [stored for stored in found if stored is not None], mark


class RemembersAnOldMark(BytesStore):
    def get(self, keys):
        self.old = getattr(self, "old", None) or self._journal.mark
        return super().get(keys)[0], self.old


class MovesTheMarkBySet(BytesStore):
    def set(self, key, stored, keep_until, token=0):
        self.append([Purge(None, "")], 0.0)
        return super().set(key, stored, keep_until, token)


class TakesEverything(BytesStore):
    def _takes(self, name, entry, token):
        return True


class TakesOlderOnes(BytesStore):
    def _takes(self, name, entry, token):
        return entry.born.epoch == self._journal.mark.epoch


class TakesOtherEpochs(BytesStore):
    def _takes(self, name, entry, token):
        return name not in self._rows or super()._takes(name, entry, token)


class IgnoresTokens(BytesStore):
    def _takes(self, name, entry, token):
        return super()._takes(name, entry, 0)


class WantsHigherTokens(BytesStore):
    def _takes(self, name, entry, token):
        return super()._takes(name, entry, token) and (
            name not in self._rows or token == 0 or token > self._rows[name][2]
        )


class WantsTokens(BytesStore):
    def _takes(self, name, entry, token):
        return super()._takes(name, entry, token) and (name not in self._rows or token >= self._rows[name][2])


class WantsNewerOnes(BytesStore):
    def _takes(self, name, entry, token):
        if name in self._rows:
            old = decode(self._rows[name][1])
            return not isinstance(old, Entry) or entry.born.seq > old.born.seq
        return super()._takes(name, entry, token)


class HasNoBound(MemoryStore):
    def set(self, key, stored, keep_until, token=0):
        super().set(key, stored, keep_until, token)
        return True


class ForgetsToLock(BytesStore):
    """Between looking and storing, somebody else comes."""

    def set(self, key, stored, keep_until, token=0):
        name, data = self._hashed(key), encode(stored)
        if len(data) > LIMIT or (isinstance(stored, Entry) and not self._takes(name, stored, token)):
            return False
        give_way()
        self._rows[name] = (key, data, token)
        return True


class DeletesWhatIsThere(BytesStore):
    def delete(self, key, only=None):
        return super().delete(key)


class DeletesByIdentity(BytesStore):
    def delete(self, key, only=None):
        return only is None and super().delete(key)


class NeverSaysWhatItDeleted(BytesStore):
    def delete(self, key, only=None):
        super().delete(key, only)
        return True


class ClearsOnlyTheEntries(BytesStore):
    def clear(self):
        self._rows.clear()
        return self._journal.mark


class ClearsOnlyTheJournal(BytesStore):
    def clear(self):
        return self._journal.restart()


class NumbersCallsNotPurges(BytesStore):
    def append(self, purges, at):
        with self._lock:
            for purge in list(purges)[:1]:
                self._journal.append([purge], at)
            return self._journal.mark


class AppendsNothingAsSomething(BytesStore):
    def append(self, purges, at):
        return super().append(list(purges) or [Purge(None, "")], at)


class ReturnsTooEarly(BytesStore):
    def append(self, purges, at):
        mark = self._journal.mark
        purges = list(purges)
        timer = threading.Timer(0.005, super().append, (purges, at))
        timer.start()
        self.timers = [*getattr(self, "timers", ()), timer]
        return mark._replace(seq=mark.seq + len(purges))

    def close(self):
        for timer in getattr(self, "timers", ()):
            timer.join()


class AppendsWithoutALock(BytesStore):
    def append(self, purges, at):
        mark = self._journal.mark
        give_way()
        self._journal.mark = mark
        return self._journal.append(purges, at)


class SendsTheTailToAnyone(BytesStore):
    def purges_since(self, mark):
        snapshot = super().purges_since(None)
        seq = 0 if mark is None else mark.seq
        return snapshot._replace(records=[r for r in snapshot.records if r.seq > seq], whole=mark is None)


class ComparesNumbersOnly(BytesStore):
    def purges_since(self, mark):
        if mark is not None and mark.epoch == self._journal.mark.epoch and mark.seq <= self._journal.mark.seq:
            snapshot = super().purges_since(None)
            return snapshot._replace(records=[r for r in snapshot.records if r.seq > mark.seq], whole=False)
        return super().purges_since(mark)


class SkipsOne(BytesStore):
    def purges_since(self, mark):
        snapshot = super().purges_since(mark)
        return snapshot if snapshot.whole else snapshot._replace(records=snapshot.records[1:])


class ForgetsTheFloor(BytesStore):
    def purges_since(self, mark):
        return super().purges_since(mark)._replace(floor=0, dropped=0, table=None)


class HasNoEndOfJournal(BytesStore):
    def __init__(self):
        super().__init__()
        self._journal = Journal(limit=1000000)


class ScansEverything(BytesStore):
    def scan(self, prefix=""):
        return super().scan()


class ScansByTheKeyInside(BytesStore):
    def scan(self, prefix=""):
        return (stored for stored in super().scan() if stored.key.startswith(prefix))


class ScansByGlob(BytesStore):
    def scan(self, prefix=""):
        return super().scan(prefix.replace("*", ""))


class ScansAMovingTarget(BytesStore):
    def scan(self, prefix=""):
        for key, data, _ in self._rows.values():
            if key.startswith(prefix):
                yield decode(data)


class CountsNoBytes(BytesStore):
    def stats(self):
        return {"entries": len(self._rows), "bytes": 0}


class HeadersAsADict(BytesStore):
    def _stored(self, key):
        found = super()._stored(key)
        if not isinstance(found, Entry):
            return found
        headers = tuple(dict(found.headers).items())
        return Entry(
            found.key, found.terms, headers, found.body, found.since, found.fresh_until, found.born,
            found.values,
        )  # fmt: skip


class AbsentIsEmpty(BytesStore):
    def _stored(self, key):
        found = super()._stored(key)
        if not isinstance(found, Entry):
            return found
        values = tuple(value or "" for value in found.values)
        return Entry(
            found.key, found.terms, found.headers, found.body, found.since, found.fresh_until, found.born,
            values,
        )  # fmt: skip


class TearsEntries(BytesStore):
    """Stores a body in two steps, as two keys of a network store would be written."""

    def set(self, key, stored, keep_until, token=0):
        taken = super().set(key, stored, keep_until, token)
        name = self._hashed(key)
        row = self._rows.get(name)
        if taken and row is not None and isinstance(stored, Entry):
            half = Entry(
                stored.key, stored.terms, stored.headers, stored.body[:100], stored.since,
                stored.fresh_until, stored.born, stored.values,
            )  # fmt: skip
            self._rows[name] = (key, encode(half), token)
            give_way()
            self._rows[name] = row
        return taken


class CannotList(BytesStore):
    """An honest one: it says so."""

    can_scan = False

    def scan(self, prefix=""):
        raise NotImplementedError


class CannotCount(CannotList):
    can_count = False

    def stats(self):
        return {"hits": 5}


class ForgetsPurges(CannotCount):
    """Each purge begins a new epoch."""

    keeps_purges = False

    def append(self, purges, at):
        with self._lock:
            return self._journal.restart() if list(purges) else self._journal.mark

    def get(self, keys):
        found, mark = super().get(keys)
        return [None if isinstance(e, Entry) and e.born.epoch != mark.epoch else e for e in found], mark

    def _takes(self, name, entry, token):
        old = decode(self._rows[name][1]) if name in self._rows else None
        if isinstance(old, Entry) and old.born.epoch != entry.born.epoch:
            return entry.born.epoch == self._journal.mark.epoch
        return super()._takes(name, entry, token)


LIMITED = [CannotList, CannotCount, ForgetsPurges]


class SaysThatItListsNothing(CannotList):
    def scan(self, prefix=""):
        return iter(())


class CountsNothing(CannotCount):
    def stats(self):
        return {"entries": 0, "bytes": 0}


class KeepsTheEpoch(ForgetsPurges):
    def append(self, purges, at):
        return BytesStore.append(self, purges, at)


class ServesTheOldEpoch(ForgetsPurges):
    def get(self, keys):
        return BytesStore.get(self, keys)


class TakesTheOldEpoch(ForgetsPurges):
    def _takes(self, name, entry, token):
        return True


class SendsNoNewHistory(ForgetsPurges):
    def purges_since(self, mark):
        return super().purges_since(mark)._replace(whole=False)


BROKEN = [
    broken
    for broken in list(globals().values())
    if isinstance(broken, type) and issubclass(broken, BytesStore | MemoryStore)
    if broken not in (BytesStore, MemoryStore, *LIMITED)
]


def failing_tests(store_class, limit=None):
    """The names of the contract's tests that a store fails, by `limit` at most."""

    class Contract(StoreContract):
        too_large = LIMIT if issubclass(store_class, BytesStore) else 100_000_000
        can_scan = getattr(store_class, "can_scan", True)
        can_count = getattr(store_class, "can_count", True)
        keeps_purges = getattr(store_class, "keeps_purges", True)
        journal_limit = 200 if keeps_purges else None

        def make_store(self):
            return store_class()

    failed = []
    for name in [name for name in dir(Contract) if name.startswith("test_")]:
        contract = Contract()
        contract.setup_method()
        try:
            getattr(contract, name)()
        except Exception as error:  # whatever pytest would show
            failed.append((name, error))
        finally:
            contract.teardown_method()
        if limit is not None and len(failed) >= limit:
            break
    return failed


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_a_broken_store_is_caught(broken):
    assert failing_tests(broken, limit=1)


@pytest.mark.parametrize("good", [BytesStore, *LIMITED], ids=lambda good: good.__name__)
def test_a_good_one_is_not(good):
    """Also one that says what it cannot do."""
    assert failing_tests(good) == []


def test_a_mark_is_a_tuple_of_its_own():
    """What the strangers in the contract rely on."""
    mark = BytesStore().get([])[1]
    assert mark == Mark(*mark)
    assert isinstance(BytesStore().purges_since(None), Snapshot)


def test_what_is_shipped_for_tests_needs_no_pytest():
    """An integration may ask for pages with `ask` where pytest is not installed."""
    code = "import sys, wsgicache.testing; assert not {'pytest', '_pytest', 'hypothesis'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
