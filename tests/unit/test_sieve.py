"""SIEVE: the queue against a plain model, what leaves and what stays."""

from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structs import COMPILED

from wsgicache.stores.sieve import Sieve, Slot


def slot(key, size=1):
    return Slot({}, key, None, size, 0)


class Model:
    """SIEVE as its paper draws it, over a list: the oldest first, a hand that walks towards the young."""

    def __init__(self):
        self.queue = []
        self.hand = None

    @property
    def bytes(self):
        return sum(item.size for item in self.queue)

    def add(self, item):
        self.queue.append(item)

    def remove(self, item):
        at = self.queue.index(item)
        if self.hand is item:
            self.hand = self.queue[at + 1] if at + 1 < len(self.queue) else None
        del self.queue[at]

    def evict(self):
        if not self.queue:
            return None
        item = self.hand or self.queue[0]
        while item.visited:
            item.visited = False
            item = self.queue[(self.queue.index(item) + 1) % len(self.queue)]
        self.hand = item
        self.remove(item)
        return item


def evicted(sieve, count):
    """The keys of so many that leave, or of all."""
    leaving = takewhile(lambda one: one is not None, (sieve.evict() for _ in range(count)))
    return [one.key for one in leaving]


def queue_of(sieve):
    """The slots from old to young, and the links backwards agree."""
    found, item = [], sieve.oldest
    while item is not None:
        found.append(item)
        assert item.newer is None or item.newer.older is item
        item = item.newer
    assert (found[-1] if found else None) is sieve._newest
    return found


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 30)),
        st.tuples(st.just("visit"), st.integers(0, 50)),
        st.tuples(st.just("remove"), st.integers(0, 50)),
        st.tuples(st.just("evict"), st.integers(0, 3)),
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_does_what_the_paper_says(steps):
    sieve, model = Sieve(), Model()
    twins = {}  # the model's slot for each of ours, and back, since both set flags
    for number, (step, value) in enumerate(steps):
        ours = queue_of(sieve)
        if step == "add":
            mine, theirs = slot(str(number), value), slot(str(number), value)
            sieve.add(mine)
            model.add(theirs)
            twins[mine.key] = theirs
        elif step == "clear":
            sieve.clear()
            model = Model()
        elif step == "evict":
            assert evicted(sieve, value) == evicted(model, value)
        elif ours:
            chosen = ours[value % len(ours)]
            if step == "visit":
                chosen.visited = twins[chosen.key].visited = True
            else:
                sieve.remove(chosen)
                model.remove(twins[chosen.key])
        assert [item.key for item in queue_of(sieve)] == [item.key for item in model.queue]
        assert (sieve.bytes, sieve.count) == (model.bytes, len(model.queue))


def test_the_first_that_nobody_asked_for_goes():
    sieve = Sieve()
    slots = [slot(name) for name in "abc"]
    for one in slots:
        sieve.add(one)
    slots[0].visited = True
    assert evicted(sieve, 1) == ["b"]
    assert not slots[0].visited
    assert [one.key for one in queue_of(sieve)] == ["a", "c"]


def test_where_all_were_asked_for_the_oldest_goes_not_the_newcomer():
    sieve = Sieve()
    slots = [slot(name) for name in "abc"]
    for one in slots:
        sieve.add(one)
        one.visited = True
    assert evicted(sieve, 1) == ["a"]
    sieve.add(slot("d"))
    assert [one.key for one in queue_of(sieve)] == ["b", "c", "d"]


def test_the_hand_goes_on_where_it_stopped():
    sieve = Sieve()
    slots = {name: slot(name) for name in "abcd"}
    for one in slots.values():
        sieve.add(one)
    slots["a"].visited = True
    assert evicted(sieve, 1) == ["b"]
    sieve.add(slot("e"))
    assert evicted(sieve, 1) == ["c"]  # not a, whose flag is gone


def test_the_hand_leaves_a_slot_that_is_removed():
    sieve = Sieve()
    slots = {name: slot(name) for name in "abcd"}
    for one in slots.values():
        sieve.add(one)
    slots["a"].visited = True
    sieve.evict()  # b goes; the hand stands at c
    sieve.remove(slots["c"])
    sieve.add(slot("e"))
    sieve.add(slot("f"))
    assert evicted(sieve, 1) == ["d"]


def test_an_empty_queue_evicts_nothing():
    sieve = Sieve()
    for name in "ab":
        sieve.add(slot(name))
    assert evicted(sieve, 5) == ["a", "b"]
    assert (sieve.bytes, sieve.count, queue_of(sieve)) == (0, 0, [])
    assert sieve.evict() is None


@pytest.mark.parametrize("size", [0, 1, 2**40])
def test_size_and_place_share_a_number(size):
    one = slot("a", size)
    for settled in (False, True, True, False):
        one.settled = settled
        assert (one.size, one.settled) == (size, settled)


@pytest.mark.skipif(COMPILED, reason="the number is no object of its own in the compiled build")
def test_equal_sizes_are_one_number():
    slots = [Slot({}, f"k{number}", None, 5000 + number - number, 0) for number in range(2)]
    assert slots[0].weight is slots[1].weight
    assert [slot.size for slot in slots] == [5000, 5000]
