"""RDS-15: whatever happens in the middle of a reply, no answer is ever taken for that to another question."""

import random
import threading
import time

import pytest
from redis_helpers import Clock, body_of, confirms, fails, opened, put
from servers_redis import empty, until
from tcp_proxy import TcpProxy

from wsgicache.stores import StoreError
from wsgicache.stores.breaker import CircuitOpen
from wsgicache.stores.redislink import PacedSocket

KEYS = [f"/{number}\0\0example.com\0http" for number in range(8)]
LARGE = b"0123456789abcdef" * 2000


@pytest.fixture
def proxy():
    with TcpProxy(empty().port) as proxy:
        yield proxy


def through(proxy, timeout=20.0, **options):
    return opened(f"redis://127.0.0.1:{proxy.port}", timeout, **options)


def filled(store):
    """A store with a body of its own under each key."""
    for number, key in enumerate(KEYS):
        put(store, key, b"%d " % number + LARGE)
    return store


def impatient(proxy, timeout, **options):
    """A store with a short deadline, over pages that one with a long deadline has stored."""
    patient = filled(through(proxy))
    patient.close()
    return through(proxy, timeout, **options)


def is_right(number, body):
    return body is None or body == b"%d " % number + LARGE


def test_a_look_up_is_one_round_trip(proxy):
    store = filled(through(proxy, memo_bytes=0))
    warm = filled(through(proxy))
    jobs = {
        "get": lambda: store.get(KEYS[:1]),
        "get of two": lambda: store.get(KEYS[:2]),
        "get of what is decoded": lambda: warm.get(KEYS[:1]),
        "confirm": lambda: warm.confirm(warm.peek(KEYS[0])),
        "mark_of": lambda: store.mark_of(KEYS[0]),
        "lease": lambda: store.lease(KEYS[0], 5),
        "set": lambda: warm.set(KEYS[0], warm.peek(KEYS[0]).stored, time.time() + 60),
    }
    for job in jobs.values():
        job()
    for name, job in jobs.items():
        before = proxy.asked
        job()
        assert proxy.asked - before == 1, name
    assert proxy.accepted == 2


def test_confirming_does_not_send_the_body(proxy):
    store = filled(through(proxy))
    assert confirms(store, KEYS[0])
    pair = proxy._pairs[0]
    before = pair.sent
    for _ in range(10):
        assert confirms(store, KEYS[0])
    assert pair.sent - before < 10 * 200


@pytest.mark.parametrize("piece", [1, 2, 7, 100])
def test_a_reply_in_pieces(proxy, piece):
    store = filled(through(proxy))
    proxy.piece = piece
    store._memo.clear()
    small = "/small\0\0example.com\0http"
    put(store, small)
    store._memo.clear()
    assert body_of(store, small) == b"body"
    assert confirms(store, small)
    proxy.heal()
    assert is_right(3, body_of(store, KEYS[3]))


def test_a_reply_that_drips_has_one_deadline(proxy):
    """Each piece comes in time; all of them together do not."""
    store = impatient(proxy, 0.4)
    clock = Clock(store)
    body_of(store, KEYS[0])
    proxy.piece, proxy.latency = 1000, 0.25
    store._memo.clear()
    start = time.monotonic()
    with fails("[Tt]imeout"):
        store.get(KEYS[:1])
    assert time.monotonic() - start < 4, "32 pieces take 8 s"
    proxy.heal()
    until(lambda: _answers(store, clock))
    for number, key in enumerate(KEYS):
        assert is_right(number, body_of(store, key))


def _answers(store, clock):
    clock.pass_pause()
    try:
        return store.get(KEYS[:1])
    except StoreError:
        return None


@pytest.mark.parametrize("fault", ["cut_after", "half_close_after", "swallow_after"])
@pytest.mark.parametrize("position", [0, 1, 5, 60, 90, 1000, 30_000])
def test_a_reply_that_is_cut_short(proxy, fault, position):
    """At its start, within a length, within the mark, within the body."""
    store = impatient(proxy, 0.6)
    clock = Clock(store)
    store.get(KEYS[:1])
    store._memo.clear()
    cut = store.link.free[-1].connection
    setattr(proxy, fault, proxy._pairs[-1].sent + position)
    try:
        assert is_right(1, body_of(store, KEYS[1])), "asked once more, on another connection"
        assert fault != "swallow_after"
    except StoreError:
        pass
    assert not [line for line in store.link.free if line.connection is cut]
    proxy.heal()
    until(lambda: _answers(store, clock))
    for number, key in enumerate(KEYS):
        assert store.get([key])[0][0].body == b"%d " % number + LARGE


def test_a_confirmation_that_is_cut_short(proxy):
    store = impatient(proxy, 0.6)
    clock = Clock(store)
    for key in KEYS:
        assert body_of(store, key)
        assert confirms(store, key)
    proxy.swallow_after = proxy._pairs[-1].sent + 60
    with fails("[Tt]imeout"):
        confirms(store, KEYS[0])
    with pytest.raises(CircuitOpen):
        confirms(store, KEYS[0])
    proxy.heal()
    until(lambda: _answers(store, clock))
    assert all([confirms(store, key) for key in KEYS])


class Killed(BaseException):
    """As greenlets are killed: no Exception."""


@pytest.mark.parametrize(
    ("call", "piece"),
    [*[(call, piece) for call in ("get", "confirm") for piece in (1, 2, 3)], ("set", 1), ("append", 2)],
)
def test_killed_in_the_middle_of_a_reply(proxy, monkeypatch, call, piece):
    store = filled(through(proxy))
    Clock(store)
    held = store.peek(KEYS[0])
    store.mark_of(KEYS[0])
    left = [piece]
    receive = PacedSocket.recv

    def killed_at_last(self, *args):
        left[0] -= 1
        if left[0] == 0:
            raise Killed
        return receive(self, 40)

    monkeypatch.setattr(PacedSocket, "recv", killed_at_last)
    jobs = {
        "get": lambda: store.get(KEYS[:1]),
        "confirm": lambda: store.confirm(held),
        "set": lambda: store.set(KEYS[0], held.stored, time.time() + 60),
        "append": lambda: store.append([], 1.0),
    }
    with pytest.raises(Killed):
        jobs[call]()
    assert len(store.link.free) == 0
    assert not store.link.reading.is_open
    monkeypatch.undo()
    proxy.heal()
    for number, key in enumerate(KEYS):
        assert is_right(number, body_of(store, key))
        assert body_of(store, key) is not None


def test_many_threads_over_a_line_that_breaks_at_random(proxy):
    """Replies cut at random places on busy connections: each answer is the right one or none."""
    store = impatient(proxy, 1.0)
    stores = [store, through(proxy, 1.0, memo_bytes=0)]
    for one in stores:
        Impatient(one)
    dice = random.Random(4)
    wrong, right, ended = [], [], threading.Event()

    def read(number):
        mine = random.Random(number)
        while not ended.is_set():
            chosen = mine.randrange(len(KEYS))
            for one in stores:
                try:
                    body = body_of(one, KEYS[chosen])
                    slot = one.peek(KEYS[chosen])
                    if slot is not None and one.confirm(slot) is not None:
                        body = slot.stored.body
                except StoreError:
                    continue
                (right if is_right(chosen, body) else wrong).append((chosen, body and body[:20]))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            proxy.piece = dice.choice([None, 1000])
            proxy.cut_after = dice.randrange(80_000, 400_000)  # so that some of it gets through
            seen = len(right)
            until(lambda seen=seen: len(right) > seen + 2, what="an answer")
            proxy.cut()
    finally:
        proxy.heal()
        ended.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len([1 for chosen, body in right if body is not None]) > 50


class Impatient(Clock):
    """Every pause is over at once."""

    def __call__(self):
        self.now += 10
        return self.now


def test_more_threads_than_connections(proxy):
    store = filled(opened(f"redis://127.0.0.1:{proxy.port}", options="&max_connections=3"))
    barrier = threading.Barrier(12)
    wrong = []

    def read(number):
        barrier.wait()
        for turn in range(20):
            chosen = (number + turn) % len(KEYS)
            if not is_right(chosen, body_of(store, KEYS[chosen])) or not confirms(store, KEYS[chosen]):
                wrong.append(chosen)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert proxy.accepted <= 3


def test_all_connections_in_use_is_a_miss_after_the_deadline(proxy):
    store = impatient(proxy, 0.5, options="&max_connections=1")
    store.mark_of(KEYS[0])
    line = store.link.free.pop()
    with fails("all 1 connections are in use"):
        store.get(KEYS[:1])
    assert not store.link.reading.is_open
    store.link.give(line)
    assert is_right(0, body_of(store, KEYS[0]))
