"""Segments: newcomers make room among themselves, whoever was asked for twice settles and stays."""

from hypothesis import given
from hypothesis import strategies as st

from wsgicache.stores.segments import PROBATION_SHARE, Left, Segments
from wsgicache.stores.sieve import Slot


def slot(key, size=1):
    return Slot({}, key, None, size, 0)


def keys_of(queue):
    """The keys in a queue, from old to young."""
    found, one = [], queue.oldest
    while one is not None:
        found.append(one.key)
        one = one.newer
    return found


def fill(segments, keys, size=1, visited=False):
    """Add pages; whoever had to leave for them."""
    gone = []
    for key in keys:
        one = slot(key, size)
        gone += [left.key for left in segments.add(one)]
        one.visited = visited
    return gone


def settled(segments, names):
    """Segments with room for a hundred in which these have settled, and ten newcomers are on probation."""
    fill(segments, names, visited=True)
    wonders = [f"first {number}" for number in range(segments.max_bytes - len(names) + 1)]
    fill(segments, wonders)
    fill(segments, [f"second {number}" for number in range(segments.max_bytes)])
    assert keys_of(segments.main) == list(names)
    return segments


POPULAR = [f"popular {number}" for number in range(90)]


# --- the promise ---


def test_no_number_of_newcomers_pushes_out_what_has_settled():
    """Not one of the popular pages is asked for meanwhile."""
    segments = settled(Segments(100), POPULAR)
    gone = fill(segments, [f"once {number}" for number in range(20_000)])
    assert len(gone) == 20_000
    assert keys_of(segments.main) == POPULAR
    assert keys_of(segments.probation) == [f"once {number}" for number in range(19_990, 20_000)]


@given(
    st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=40),
    st.lists(st.tuples(st.integers(1, 100), st.booleans()), max_size=60),
)
def test_the_promise_holds_for_pages_of_any_size(pages, flood):
    """Settled pages that take no more than their part stay, whatever comes whose size is within the other."""
    segments = Segments(1000)
    for number, (size, visited) in enumerate(pages):
        fill(segments, [f"page {number}"], size, visited)
    before = keys_of(segments.main)
    fits = segments.main.bytes <= 1000 - 1000 // PROBATION_SHARE
    for number, (size, removed) in enumerate(flood):
        fill(segments, [f"once {number}"], size)
        if removed and segments.probation.oldest is not None:
            segments.remove(segments.probation.oldest)
        assert segments.bytes <= 1000
        if fits:
            assert keys_of(segments.main)[: len(before)] == before
            fits = segments.main.bytes <= 1000 - 1000 // PROBATION_SHARE


def test_a_newcomer_that_is_larger_than_the_probation_gets_in():
    segments = settled(Segments(100), POPULAR)
    assert fill(segments, ["large"], 50) == [
        *[f"second {number}" for number in range(90, 100)],
        *POPULAR[:40],
    ]
    assert keys_of(segments.probation) == ["large"]
    assert segments.bytes == 100


# --- who settles ---


def test_who_was_visited_settles_when_his_turn_comes_and_keeps_his_flag():
    segments = Segments(10)
    fill(segments, "abc", visited=True)
    fill(segments, "defghij")
    assert fill(segments, "k") == ["d"]
    assert keys_of(segments.main) == ["a", "b", "c"]
    assert segments.main.oldest.visited
    assert keys_of(segments.probation) == list("efghijk")


def test_who_comes_back_soon_settles_at_once():
    segments = Segments(100)
    fill(segments, [f"page {number}" for number in range(101)])
    assert keys_of(segments.main) == []
    back = slot("page 0")
    segments.add(back)
    assert (back.settled, back.visited) == (True, False)
    assert keys_of(segments.main) == ["page 0"]
    again = slot("page 0")
    segments.remove(back)
    segments.add(again)
    assert not again.settled  # that it left was forgotten when it came back


def test_among_the_settled_sieve_chooses():
    segments = Segments(10)
    for key in "abcdefghij":
        old = slot(key)
        old.settled, old.visited = True, key in "ad"
        segments.add(slot(key), old)
    assert keys_of(segments.main) == list("abcdefghij")
    assert fill(segments, "k") == ["b"]  # the settled take all of the room, so one of them goes
    segments.remove(segments.probation.oldest)
    settling = slot("l")
    settling.settled = True
    segments.add(slot("l"), settling)
    assert fill(segments, "m") == ["c"]
    assert keys_of(segments.main) == list("adefghijl")


def test_what_replaces_a_page_is_as_popular_as_it_was():
    segments = Segments(100)
    for old_settled, old_visited in ((False, False), (False, True), (True, False), (True, True)):
        old, new = slot("a"), slot("a")
        old.settled, old.visited = old_settled, old_visited
        segments.add(new, old)
        assert (new.settled, new.visited) == (old_settled or old_visited, old_visited)
        segments.remove(new)
    assert segments.bytes == segments.main.count == segments.probation.count == 0


def test_where_everybody_was_visited_one_of_them_goes():
    segments = Segments(10)
    fill(segments, "abcdefghij", visited=True)
    assert fill(segments, "k") == ["a"]
    assert keys_of(segments.main) == list("bcdefghij")


def test_whoever_stores_waits_for_a_thousand_to_settle_at_most():
    segments = Segments(3000)
    names = [f"page {number}" for number in range(3000)]
    fill(segments, names, visited=True)
    assert fill(segments, ["new"]) == ["page 1000"]  # it is remembered, and settles when it comes back
    assert (segments.main.count, segments.probation.count) == (1000, 2000)


def test_room_for_more_than_there_is_empties_both_and_ends():
    segments = settled(Segments(100), POPULAR)
    assert len(fill(segments, ["huge"], 500)) == 100
    assert segments.bytes == 500


# --- any order of calls ---

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 15), st.integers(1, 40)),
        st.tuples(st.just("visit"), st.integers(0, 15)),
        st.tuples(st.just("remove"), st.integers(0, 15)),
        st.tuples(st.just("clear")),
    ),
    max_size=80,
)


@given(STEPS)
def test_accounts_are_exact_in_any_order(steps):
    segments, held = Segments(100), {}
    for step, *values in steps:
        key = str(values[0]) if values else ""
        if step == "add":
            old = held.pop(key, None)
            if old is not None:
                segments.remove(old)
            new = slot(key, values[1])
            gone = segments.add(new, old)
            for left in gone:
                assert held.pop(left.key) is left
            held[key] = new
        elif step == "clear":
            segments.clear()
            held.clear()
        elif key in held:
            if step == "visit":
                held[key].visited = True
            else:
                segments.remove(held.pop(key))
        assert segments.bytes == sum(one.size for one in held.values()) <= 100
        for queue, is_main in ((segments.probation, False), (segments.main, True)):
            assert sorted(keys_of(queue)) == sorted(k for k, one in held.items() if one.settled is is_main)


# --- who left ---


def test_who_left_is_known_once():
    left = Left()
    assert not left.recall("/a")
    left.note("/a", 10)
    assert not left.recall("/b")
    assert left.recall("/a")
    assert not left.recall("/a")


def test_it_remembers_most_of_as_many_as_a_queue_holds():
    left = Left()
    names = [f"/page/{number}" for number in range(1000)]
    for name in names:
        left.note(name, 1000)
    assert 500 < sum(left.recall(name) for name in names) < 1000  # two may share a place
    assert not any(left.recall(name) for name in names)


def test_it_keeps_what_it_knows_when_it_grows():
    left = Left()
    for entries in (1, 10, 100, 1000, 10_000):
        left.note(f"/left/{entries}", entries)
    assert [left.recall(f"/left/{entries}") for entries in (100, 1000, 10_000)] == [True] * 3


def test_it_takes_four_bytes_an_entry_at_most():
    left = Left()
    for number in range(1, 3000):
        left.note(f"/{number}", number)
        assert len(left._places) * left._places.itemsize <= 4 * number


def test_any_key_has_a_number():
    left = Left()
    for key in ("", "/\ud800", "/é", "\0"):
        left.note(key, 100)
        assert left.recall(key)
