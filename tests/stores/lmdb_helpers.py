"""Files, entries and other processes for the tests of the LMDB store."""

import multiprocessing
import time
from contextlib import contextmanager
from functools import partial

from waiting import PATIENCE

from wsgicache.entry import Entry, Terms
from wsgicache.journal import Kind, Purge
from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.lmdbrecords import EPOCH_AT, NUMBER, QUEUED, SPACE, TOTALS, Totals, read_head


def open_lmdb(directory, max_bytes=8_000_000, **options):
    return open_store(f"lmdb://{directory}?max_bytes={max_bytes}", StoreOptions(**options))


def entry(store, key="/a", body=b"body", born=None, **terms):
    """An entry that may be stored now."""
    given = {"status": "200 OK", "fingerprint": "f" * 16, "lifetime": 300, "source": "ttl", **terms}
    now = float(int(time.time()))
    return Entry(
        key, Terms(**given), (("Content-Type", "text/plain"),), body, now, now + 300.0,
        born or store.mark_of(key),
    )  # fmt: skip


def put(store, key="/a", body=b"body", keep=3600.0, token=0, **terms):
    return store.set(key, entry(store, key, body, **terms), time.time() + keep, token)


def body_of(store, key="/a"):
    found = store.get([key])[0][0]
    return None if found is None else found.body


def slot_of(store, key="/a"):
    """A slot as the engine has it: decoded, and confirmed once."""
    store.get([key])
    slot = store.peek(key)
    assert slot is not None
    slot.mark = store.confirm(slot)
    assert slot.mark is not None
    return slot


def counts_agree(store):
    """That what the file says of itself is what is in it: no page without a place in each queue, no body
    without a page, and the sums are right."""

    def look(handle, transaction):
        heads = [
            (name, read_head(raw)[0])
            for name, raw in transaction.cursor(handle.heads).iternext()
            if len(name) > SPACE
        ]
        numbers = {head.number for _, head in heads}
        queues = [
            {NUMBER.unpack(key)[0] for key, _ in transaction.cursor(db).iternext()}
            for db in (handle.queue, handle.negatives)
        ]
        expiry = {QUEUED.unpack(key)[1] for key, _ in transaction.cursor(handle.expiry).iternext()}
        bodies = [key for key, _ in transaction.cursor(handle.bodies).iternext()]
        totals = Totals.read(transaction.get(TOTALS, db=handle.room))
        assert len(numbers) == len(heads)
        assert queues[0] | queues[1] == numbers
        assert expiry == numbers
        assert len(bodies) == sum(head.pieces for _, head in heads)
        assert {NUMBER.unpack(key[:8])[0] for key in bodies} <= numbers
        for negative in (False, True):
            assert totals.used[negative] == sum(h.cost for _, h in heads if h.negative is negative)
        return len(heads)

    return store._file.read(look)


def record_of(store, key="/a"):
    """The name and the record that a key has in the file."""
    slot_of(store, key)
    slot = store.peek(key)
    return slot.name, slot.raw


def overwrite(store, db, name, value):
    """Put bytes into the file behind the store's back."""
    handle = store._file.attend()
    with handle.env.begin(write=True) as transaction:
        assert transaction.put(name, value, db=getattr(handle, db))


# --- other processes --------------------------------------------------------------------------------


class Worker:
    """A process with a store of its own; what is called here is done there."""

    def __init__(self, method, directory, max_bytes=8_000_000, serve=None):
        context = multiprocessing.get_context(method)
        self._here, there = context.Pipe()
        self.process = context.Process(target=serve or _serve, args=(there, str(directory), max_bytes))
        self.process.start()
        there.close()

    def begin(self, name, *args):
        self._here.send((name, args))

    def result(self):
        assert self._here.poll(PATIENCE), "the other process does not answer"
        error, value = self._here.recv()
        if error is not None:
            raise AssertionError(error)
        return value

    def call(self, name, *args):
        self.begin(name, *args)
        return self.result()

    def kill(self):
        self.process.kill()
        self.process.join(PATIENCE)

    def stop(self):
        if self.process.is_alive():
            self._here.send(None)
            self.process.join(PATIENCE)
        self.process.kill()
        self.process.join(PATIENCE)
        self._here.close()
        self.process.close()


@contextmanager
def workers(method, directory, count=1, **more):
    started = [Worker(method, directory, **more) for _ in range(count)]
    try:
        yield started
    finally:
        for worker in started:
            worker.stop()


def _serve(pipe, directory, max_bytes):
    """Do what is asked: a function of this module, which gets the store first, or a method of the store."""
    store = open_lmdb(directory, max_bytes)
    while (asked := pipe.recv()) is not None:
        name, args = asked
        try:
            method = partial(globals()[name], store) if name in globals() else getattr(store, name)
            pipe.send((None, method(*args)))
        except Exception as error:
            pipe.send((f"{type(error).__name__}: {error}", None))
    store.close()


def fill(store, start, count, size):
    """Store so many pages."""
    return [put(store, f"/{number}", bytes([number % 251]) * size) for number in range(start, start + count)]


_pins = []


def pin(store):
    """Begin to read, and do not end."""
    handle = store._file.attend()
    _pins.append(handle.env.begin(handle.heads))


def unpin(store):
    while _pins:
        _pins.pop().abort()


def hold_write_lock(store, key):
    """Begin to write, and do not end."""
    handle = store._file.attend()
    _pins.append(handle.env.begin(write=True))
    _pins[-1].delete(record_of(store, key)[0], db=handle.heads)


def ping(store):
    return store._file.attend().inode


def epoch_of(raw):
    return raw[EPOCH_AT]


def append_many(store, number, count):
    return [store.append([Purge(Kind.GROUP, f"{number}/{turn}")], 1.0) for turn in range(count)]


def count_many(store, count):
    for _ in range(count):
        store.incr_many({"hits": 1})


def limit_files(store, size):
    """Let no file of this process become longer: the same as a full disk."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size is None else size, most))
