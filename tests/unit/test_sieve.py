"""SIEVE: the queue against a plain model, what leaves and what stays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache.stores.sieve import Sieve, Slot


def slot(key, size=1):
    return Slot({}, key, None, size, 0)


class Model:
    """SIEVE as its paper draws it, over a list: the oldest first, a hand that walks towards the young."""

    def __init__(self, max_bytes):
        self.max_bytes = max_bytes
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

    def make_room(self, size):
        gone = []
        while self.queue and self.bytes + size > self.max_bytes:
            item = self.hand or self.queue[0]
            while item.visited:
                item.visited = False
                item = self.queue[(self.queue.index(item) + 1) % len(self.queue)]
            self.hand = item
            self.remove(item)
            gone.append(item)
        return gone


def queue_of(sieve):
    """The slots from old to young, and the links backwards agree."""
    found, item = [], sieve._oldest
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
        st.tuples(st.just("clear"), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_it_does_what_the_paper_says(steps):
    sieve, model = Sieve(100), Model(100)
    twins = {}  # the model's slot for each of ours, and back, since both set flags
    for number, (step, value) in enumerate(steps):
        ours = queue_of(sieve)
        if step == "add":
            gone = [item.key for item in sieve.make_room(value)]
            assert gone == [item.key for item in model.make_room(value)]
            mine, theirs = slot(str(number), value), slot(str(number), value)
            sieve.add(mine)
            model.add(theirs)
            twins[mine.key] = theirs
        elif step == "clear":
            sieve.clear()
            model = Model(100)
        elif ours:
            chosen = ours[value % len(ours)]
            if step == "visit":
                chosen.visited = twins[chosen.key].visited = True
            else:
                sieve.remove(chosen)
                model.remove(twins[chosen.key])
        assert [item.key for item in queue_of(sieve)] == [item.key for item in model.queue]
        assert sieve.bytes == model.bytes <= 100


def test_the_first_that_nobody_asked_for_goes():
    sieve = Sieve(3)
    slots = [slot(name) for name in "abc"]
    for one in slots:
        sieve.add(one)
    slots[0].visited = True
    assert [gone.key for gone in sieve.make_room(1)] == ["b"]
    assert not slots[0].visited
    assert [one.key for one in queue_of(sieve)] == ["a", "c"]


def test_where_all_were_asked_for_the_oldest_goes_not_the_newcomer():
    sieve = Sieve(3)
    slots = [slot(name) for name in "abc"]
    for one in slots:
        sieve.add(one)
        one.visited = True
    assert [gone.key for gone in sieve.make_room(1)] == ["a"]
    sieve.add(slot("d"))
    assert [one.key for one in queue_of(sieve)] == ["b", "c", "d"]


def test_the_hand_goes_on_where_it_stopped():
    sieve = Sieve(4)
    slots = {name: slot(name) for name in "abcd"}
    for one in slots.values():
        sieve.add(one)
    slots["a"].visited = True
    assert [gone.key for gone in sieve.make_room(1)] == ["b"]
    sieve.add(slot("e"))
    assert [gone.key for gone in sieve.make_room(1)] == ["c"]  # not a, whose flag is gone


def test_the_hand_leaves_a_slot_that_is_removed():
    sieve = Sieve(4)
    slots = {name: slot(name) for name in "abcd"}
    for one in slots.values():
        sieve.add(one)
    slots["a"].visited = True
    list(sieve.make_room(1))  # b goes; the hand stands at c
    sieve.remove(slots["c"])
    sieve.add(slot("e"))
    sieve.add(slot("f"))
    assert [gone.key for gone in sieve.make_room(1)] == ["d"]


@pytest.mark.parametrize("size", [2, 5])
def test_one_large_slot_makes_as_many_small_ones_go_as_it_takes(size):
    sieve = Sieve(5)
    for name in "abcde":
        sieve.add(slot(name))
    assert len(list(sieve.make_room(size))) == size
    assert sieve.bytes == 5 - size


def test_room_for_more_than_there_is_empties_the_queue_and_ends():
    sieve = Sieve(5)
    for name in "ab":
        sieve.add(slot(name))
    assert [gone.key for gone in sieve.make_room(50)] == ["a", "b"]
    assert (sieve.bytes, queue_of(sieve)) == (0, [])
    assert list(sieve.make_room(50)) == []
