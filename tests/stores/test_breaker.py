"""The circuit breaker, by a clock that is turned."""

import logging
import threading

import pytest
from waiting import PATIENCE

from wsgicache.stores import StoreError
from wsgicache.stores.breaker import FIRST_PAUSE, LONGEST_PAUSE, Breaker, CircuitOpen


class Trouble(Exception):
    """Nobody answers."""


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def breaker(clock):
    return Breaker("redis://cache.example", (Trouble,), clock)


def call(breaker, error=None, **given):
    with breaker.call(**given):
        if error is not None:
            raise error


def test_trouble_opens_the_circuit_and_says_so_once(breaker, caplog):
    with pytest.raises(StoreError, match=r"redis://cache\.example: Trouble: no route") as raised:
        call(breaker, Trouble("no route"))
    assert isinstance(raised.value.__cause__, Trouble)
    for _ in range(3):
        with pytest.raises(CircuitOpen, match=r"redis://cache\.example does not answer; it is not asked"):
            call(breaker)
    assert breaker.is_open
    assert breaker.opened == 1
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no route" in caplog.text


def test_after_the_pause_one_asks_and_the_others_do_without(breaker, clock, caplog):
    breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    inside, go_on = threading.Event(), threading.Event()

    def probe():
        with breaker.call():
            inside.set()
            assert go_on.wait(PATIENCE)

    thread = threading.Thread(target=probe)
    thread.start()
    assert inside.wait(PATIENCE)
    with pytest.raises(CircuitOpen):
        call(breaker)
    go_on.set()
    thread.join()
    assert not breaker.is_open
    call(breaker)
    assert [record.message for record in caplog.records][-1] == "redis://cache.example answers again"


def test_a_probe_that_never_ends_does_not_end_probing(breaker, clock):
    breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    breaker.enter()
    with pytest.raises(CircuitOpen):
        breaker.enter()
    clock.now += FIRST_PAUSE * 1.2
    breaker.enter()


def test_pauses_double_up_to_a_limit_and_begin_small_again(breaker, clock):
    def pause():
        """How long nobody may ask now."""
        start = clock.now
        while breaker.is_paused():
            clock.now += 0.01
        return clock.now - start

    breaker.fail(Trouble())
    pauses = [pause()]
    for _ in range(8):
        with pytest.raises(StoreError, match="Trouble"):
            call(breaker, Trouble())
        pauses.append(pause())
    wanted = FIRST_PAUSE
    for found in pauses:
        assert wanted * 0.85 <= found <= wanted * 1.15 + 0.02
        wanted = min(LONGEST_PAUSE, wanted * 2)
    assert wanted == LONGEST_PAUSE
    call(breaker)
    breaker.fail(Trouble())
    assert pause() <= FIRST_PAUSE * 1.15 + 0.02


def test_what_fails_beside_the_probe_says_nothing_new(breaker, clock):
    breaker.fail(Trouble())
    for _ in range(20):
        breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    breaker.enter()
    assert breaker.opened == 1


def test_who_insists_asks_and_closes_the_circuit(breaker):
    breaker.fail(Trouble())
    with pytest.raises(StoreError, match="still"):
        call(breaker, Trouble("still"), insist=True)
    assert breaker.is_open
    call(breaker, insist=True)
    assert not breaker.is_open


def test_a_server_that_answers_if_only_to_refuse_is_there(breaker, clock):
    with pytest.raises(KeyError):
        call(breaker, KeyError())
    assert not breaker.is_open
    breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    with pytest.raises(KeyError):
        call(breaker, KeyError())
    assert not breaker.is_open


def test_a_killed_probe_decides_nothing(breaker, clock):
    breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    with pytest.raises(KeyboardInterrupt):
        call(breaker, KeyboardInterrupt())
    assert breaker.is_open
    clock.now += FIRST_PAUSE * 1.2
    call(breaker)
    assert not breaker.is_open


def test_the_log_says_what_was_lost(clock, caplog):
    breaker = Breaker("r", (Trouble,), clock, lost="takes no writes", effect="too bad", found="writes")
    breaker.fail(Trouble("full"))
    breaker.succeed()
    breaker.succeed()
    assert [record.message for record in caplog.records] == [
        "r takes no writes (Trouble: full); too bad",
        "r writes",
    ]


def test_of_many_that_ask_at_once_after_the_pause_one_does(breaker, clock):
    breaker.fail(Trouble())
    clock.now += FIRST_PAUSE * 1.2
    barrier = threading.Barrier(8)
    asked = []

    def ask():
        barrier.wait()
        try:
            breaker.enter()
        except CircuitOpen:
            return
        asked.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
