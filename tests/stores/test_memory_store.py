"""The memory store: always within its bytes, exact in its accounts, fair to what is popular."""

import gc
import random
import threading
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import PATIENCE

from wsgicache.entry import Entry, Terms, Variants
from wsgicache.journal import Kind, Purge
from wsgicache.stores.budgets import NEGATIVE_SHARE
from wsgicache.stores.memory import MemoryStore

SMALLEST = 65536
OK = Terms("200 OK", "f", 300, "ttl")
MISSING = Terms("404 Not Found", "f", 300, "ttl", negative=True)


def entry(store, key="/a", size=100, terms=OK, values=()):
    return Entry(key, terms, (("A", "b"),), b"x" * size, 0.0, 300.0, store.mark, values)


def put(store, key="/a", size=100, terms=OK, token=0):
    return store.set(key, entry(store, key, size, terms), 1e12, token)


def assert_accounts(store):
    """What the store says of itself is what it holds, queue by queue."""
    slots = list(store._slots.values())
    queued = []
    for budget in (store._budgets.pages, store._budgets.negatives):
        assert 0 <= budget.bytes <= budget.max_bytes
        for queue in (budget.probation, budget.main):
            slot, first = queue.oldest, len(queued)
            while slot is not None:
                assert slot.settled is (queue is budget.main)
                queued.append(slot)
                slot = slot.newer
            held = [slot.size for slot in queued[first:]]
            assert (sum(held), len(held)) == (queue.bytes, queue.count)
    assert sorted(map(id, queued)) == sorted(map(id, slots))
    assert all(slot.size >= slot.stored.size() for slot in slots)
    stats = store.stats()
    assert stats["entries"] == len(slots)
    assert stats["bytes"] == sum(slot.size for slot in slots) <= stats["max_bytes"]
    assert stats["negative_bytes"] == store._budgets.negatives.bytes


KEYS = st.sampled_from([f"/{number}" for number in range(12)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.integers(0, 40_000), st.booleans()),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("delete"), KEYS),
        st.tuples(st.just("variants"), KEYS, st.integers(0, 300)),
        st.tuples(st.just("purge"), KEYS),
        st.tuples(st.just("clear")),
    ),
    max_size=40,
)


@given(STEPS)
@settings(max_examples=200)
def test_bytes_never_exceed_the_bound_whatever_is_done(steps):
    store = MemoryStore(SMALLEST)
    model = {}  # what was stored last under each key: it is that or gone
    for step, *values in steps:
        if step == "set":
            key, size, negative = values
            if put(store, key, size, MISSING if negative else OK):
                model[key] = (size, negative)
                assert store.peek(key) is not None
            else:
                assert store.peek(key) is None
        elif step == "get":
            store.get(values)
        elif step == "delete":
            was_there = store.peek(values[0]) is not None
            assert store.delete(values[0]) == was_there
            assert store.peek(values[0]) is None
        elif step == "variants":
            key, number = values
            record = Variants(key, ("accept",), tuple(f"{key}\1={n}" for n in range(number)), 300.0)
            if store.set(key, record, 1e12):
                model[key] = record
        elif step == "purge":
            store.append([Purge(Kind.URL, f"p{values[0]}")], 0.0)
        else:
            store.clear()
            assert store.stats()["bytes"] == 0
        assert_accounts(store)
        for key, slot in store._slots.items():
            if isinstance(slot.stored, Entry):
                assert (len(slot.stored.body), slot.stored.terms.negative) == model[key]
            else:
                assert slot.stored is model[key]


# --- what stays ---


def test_what_is_popular_survives_a_scan_of_one_hit_wonders():
    store = MemoryStore(1_000_000)
    popular = [f"/popular/{number}" for number in range(200)]
    for key in popular:
        put(store, key, 1000)
    store.get(popular)
    for number in range(20_000):
        assert put(store, f"/once/{number}", 1000)
        if number % 400 == 0:  # the store turns over about every 700 of them
            store.get(popular)
    assert all(store.get(popular)[0])
    assert store.stats()["evicted"] > 19_000
    assert_accounts(store)


def test_a_crawler_at_night_takes_no_popular_page():
    """After a day of visitors nobody comes but a crawler, which asks for a hundred times as much as fits."""
    store = MemoryStore(1_000_000)
    dice = random.Random(20)
    for _ in range(60_000):
        key = f"/page/{int(dice.paretovariate(0.4))}"
        if store.get([key])[0][0] is None:
            put(store, key, 1000)
    popular = [f"/page/{number}" for number in range(1, 101)]
    for number in range(50_000):
        assert put(store, f"/once/{number}", 1000)
    assert all(store.get(popular)[0])
    assert_accounts(store)


def test_popular_pages_that_are_made_anew_stay_popular():
    """A page that expires is stored again, between two of its hits: it is no newcomer."""
    store = MemoryStore(1_000_000)
    popular = [f"/popular/{number}" for number in range(300)]
    for key in popular:
        put(store, key, 1000)
    store.get(popular)
    for turn in range(5):
        for key in popular:
            put(store, key, 1000 + turn)
        for number in range(2000):
            assert put(store, f"/once/{turn}/{number}", 1000)
        assert all(stored is not None for stored in (store.peek(key) for key in popular))
    assert_accounts(store)


def test_popular_negatives_stay_among_those_that_a_scanner_asks_for():
    store = MemoryStore(1_000_000)
    asked = [f"/favicon-{number}.ico" for number in range(20)]
    for key in asked:
        put(store, key, 200, MISSING)
    store.get(asked)
    for number in range(10_000):
        assert put(store, f"/wp-admin/{number}", 200, MISSING)
    assert all(store.get(asked)[0])
    assert_accounts(store)


def test_what_nobody_asks_for_any_more_leaves():
    store = MemoryStore(1_000_000)
    old = [f"/old/{number}" for number in range(200)]
    for key in old:
        put(store, key, 1000)
    store.get(old)
    for number in range(5000):
        put(store, f"/new/{number}", 1000)
        store.get([f"/new/{number}"])
    assert not any(store.get(old)[0])


def test_a_new_page_gets_in_where_all_others_are_popular():
    store = MemoryStore(SMALLEST)
    stored = [key for key in (f"/{number}" for number in range(100)) if put(store, key, 2000)]
    assert len(stored) == 100
    for number in range(50):
        store.get([slot.key for slot in store._slots.values()])  # everybody is asked for
        assert put(store, f"/new/{number}", 2000)
        assert store.peek(f"/new/{number}") is not None
    assert_accounts(store)


def test_negatives_have_a_budget_of_their_own():
    store = MemoryStore(1_000_000)
    pages = [f"/page/{number}" for number in range(100)]
    for key in pages:
        put(store, key, 1000)
    for number in range(5000):
        assert put(store, f"/wp-admin/{number}", 200, MISSING)
    stats = store.stats()
    assert all(store.get(pages)[0])
    assert 40_000 < stats["negative_bytes"] <= 1_000_000 // NEGATIVE_SHARE
    for number in range(5000):
        put(store, f"/other/{number}", 1000)
    assert store.stats()["negative_bytes"] == stats["negative_bytes"]
    assert_accounts(store)


def test_a_flood_of_negatives_takes_no_popular_page():
    """What negatives do not use, pages may; what they take then, the newcomers among the pages give."""
    store = MemoryStore(1_000_000)
    popular = [f"/popular/{number}" for number in range(440)]
    for key in popular:
        put(store, key, 1000)
    store.get(popular)
    for number in range(2000):
        put(store, f"/once/{number}", 1000)
    assert store.stats()["bytes"] > 998_000  # there is no negative yet, so pages have all of it
    for number in range(50_000):
        assert put(store, f"/wp-admin/{number}", 200, MISSING)
        assert store.stats()["bytes"] <= 1_000_000
    assert all(store.get(popular)[0])
    assert_accounts(store)


def test_pages_get_back_what_negatives_gave_up():
    store = MemoryStore(1_000_000)
    for number in range(1000):
        put(store, f"/no/{number}", 200, MISSING)
    for number in range(1000):
        store.delete(f"/no/{number}")
    for number in range(1000):
        put(store, f"/page/{number}", 1000)
    assert store.stats()["bytes"] > 998_000
    assert_accounts(store)


def test_a_page_that_goes_and_comes_back_changes_its_budget():
    store = MemoryStore(SMALLEST)
    put(store, size=500)
    assert (store._budgets.pages.bytes > 500, store._budgets.negatives.bytes) == (True, 0)
    put(store, size=500, terms=MISSING)
    assert (store._budgets.pages.bytes, store._budgets.negatives.bytes > 500) == (0, True)
    put(store, size=500)
    assert (store._budgets.pages.bytes > 500, store._budgets.negatives.bytes) == (True, 0)
    store.delete("/a")
    assert (store._budgets.pages.bytes, store._budgets.negatives.bytes) == (0, 0)


@pytest.mark.parametrize(("terms", "share"), [(OK, 1), (MISSING, 1 / NEGATIVE_SHARE)])
def test_one_entry_takes_half_of_its_budget_at_most(terms, share):
    store = MemoryStore(1_000_000)
    assert put(store, "/small", 10, terms)
    assert not put(store, "/large", int(1_000_000 * share / 2), terms)
    assert put(store, "/large", int(1_000_000 * share / 2) - 2000, terms)
    assert store.peek("/small") is not None


def test_text_that_a_client_chose_counts():
    """A long varying value makes a long key and is kept as a value: both are paid for."""
    store = MemoryStore(1_000_000)
    for number in range(1000):
        value = f"{number:08000}"
        varied = entry(store, "/a", 10, OK._replace(varying=("accept",)), (value,))
        assert store.set(f"/a\1={value}", varied, 1e12)
    assert store.stats()["entries"] <= 1_000_000 // 16_000


# --- the hit path's view ---


def test_peek_shows_the_slot_without_a_lock():
    store = MemoryStore()
    assert store.peek("/a") is None
    put(store)
    with store._pool.lock:
        slot = store.peek("/a")
    assert (slot.key, slot.stored.key, slot.visited, slot.stamp, slot.ready) == (
        "/a",
        "/a",
        False,
        None,
        None,
    )
    store.get(["/a"])
    assert slot.visited


def test_what_replaces_an_entry_has_a_slot_that_nobody_has_armed():
    store = MemoryStore()
    put(store)
    slot = store.peek("/a")
    slot.stamp = slot.ready = object()
    put(store, size=5)
    assert store.peek("/a") is not slot
    assert (store.peek("/a").stamp, store.peek("/a").ready) == (None, None)


def test_what_is_gone_is_not_peeked():
    store = MemoryStore()
    put(store)
    store.delete("/a")
    assert store.peek("/a") is None
    put(store)
    store.clear()
    assert store.peek("/a") is None
    put(store)
    assert store.peek("/a") is not None  # the same bound method sees the new dictionary


class Watcher:
    def __init__(self, store):
        self.store = store
        self.seen = []

    def moved(self):
        self.seen.append(self.store.mark)


def test_a_watcher_is_told_of_each_move_before_the_mover_returns():
    store = MemoryStore()
    watcher = Watcher(store)
    store.watch(watcher.moved)
    marks = [
        store.append([Purge(Kind.ALL, "")], 0.0),
        store.append([Purge(Kind.ALL, "")], 0.0),
        store.clear(),
    ]
    assert watcher.seen == marks
    put(store)
    store.delete("/a")
    assert watcher.seen == marks


def test_a_watcher_that_is_gone_is_forgotten():
    store = MemoryStore()
    gone = Watcher(store)
    seen = gone.seen
    store.watch(gone.moved)
    del gone
    gc.collect()
    store.append([Purge(Kind.ALL, "")], 0.0)
    store.watch(Watcher(store).moved)
    assert seen == []
    assert len(store._watchers) == 1


# --- threads ---


def hammer(*jobs):
    barrier = threading.Barrier(len(jobs))
    errors = []

    def run(job):
        try:
            barrier.wait(PATIENCE)
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_accounts_are_exact_after_threads_have_hammered_it():
    store = MemoryStore(SMALLEST)
    numbers = count()

    def work(seed):
        for turn in range(400):
            number = next(numbers)
            key = f"/{(number * 7 + seed) % 90}"
            put(store, key, number % 3000, MISSING if number % 5 == 0 else OK, token=number)
            store.get([key, f"/{turn % 90}"])
            if number % 3 == 0:
                store.delete(f"/{(number + 40) % 90}")
            if number % 501 == 0:
                store.clear()
            if number % 101 == 0:
                store.append([Purge(Kind.URL, "p/a")], 0.0)
            assert store.stats()["bytes"] <= SMALLEST

    hammer(*[lambda seed=seed: work(seed) for seed in range(8)])
    assert_accounts(store)


def test_hits_that_set_flags_during_evictions_do_no_harm():
    store = MemoryStore(SMALLEST)
    finished = []

    def write():
        for number in range(3000):
            put(store, f"/{number}", 1000)
        finished.append(True)

    def flag():
        while not finished:
            for number in range(0, 3000, 3):
                slot = store.peek(f"/{number}")
                if slot is not None:
                    slot.visited = True

    hammer(write, flag, flag)
    assert_accounts(store)


@pytest.mark.parametrize("size", [2**60, 2**63, 10**30])
def test_a_size_beyond_any_machine_holds_what_is_stored(size):
    """Who writes so many zeros wants no bound; in the compiled build sizes are numbers of C."""
    store = MemoryStore(size, spool_max_bytes=size)
    assert put(store)
    assert put(store, "/missing", terms=MISSING)
    assert_accounts(store)
    assert store.stats()["entries"] == 2
