"""The near tier by hand: what it answers from its copies, when it asks, and what it forgets."""

import gc
import weakref

import pytest
from near_helpers import (
    BOUND,
    MAX_AGE,
    Parted,
    PartedAtOnce,
    Remote,
    Worker,
    World,
    body,
    purge_all,
    purge_path,
)

from wsgicache.entry import Entry, Variants
from wsgicache.journal import Kind, Mark, Purge
from wsgicache.stores import Store, StoreError
from wsgicache.stores.copies import NearSlot
from wsgicache.stores.memory import MemoryStore
from wsgicache.stores.near import near_store

A, B = "/a\0\0h\0http", "/b\0\0h\0http"


@pytest.fixture
def world():
    return World()


@pytest.fixture
def near(world):
    """A tier that is trusted, and holds a copy of A that another stored."""
    near, other = world.tiers
    world.put(other, A)
    world.beat(near)
    assert body(near, A) == b"body"
    return near


def asked(world, work):
    return world.remote.asked_for(work)


# --- answers from copies ---------------------------------------------------------------------------


def test_it_is_a_store_that_others_share(near):
    assert isinstance(near, Store)
    assert near.shared
    assert not hasattr(near, "confirm")


def test_a_copy_answers_without_asking(world, near):
    assert asked(world, lambda: body(near, A)) == []
    (first, second), mark = near.get([A, A])
    assert first is second is near.peek(A).stored
    assert mark == world.remote._store.mark


def test_no_key_is_answered_with_the_mark(world, near):
    assert asked(world, lambda: near.get([])) == []
    assert near.get([]) == ([], world.remote._store.mark)
    assert near.mark_of(A) == world.remote._store.mark


def test_one_key_without_a_copy_means_that_all_are_asked_for(world, near):
    other = world.tiers[1]
    world.put(other, A, b"newer")
    world.put(other, B, b"b")
    (first, second), _ = near.get([A, B])
    assert (first.body, second.body) == (b"newer", b"b")
    assert asked(world, lambda: near.get([B, A])) == []


def test_nothing_is_no_copy(world, near):
    assert body(near, B) is None
    assert asked(world, lambda: body(near, B)) == ["get"]


def test_what_was_stored_here_is_a_copy_at_once(world, near):
    entry = world.put(near, B, b"b")
    assert near.peek(B).stored is entry
    assert asked(world, lambda: body(near, B)) == []
    assert body(world.tiers[1], B) == b"b"


def test_a_record_of_varying_fields_is_copied_too(world, near):
    record = Variants(B, ("accept",), (B + "\1=x",), world.wall.now + 100)
    assert near.set(B, record, record.keep_until)
    assert near.peek(B).stored is record
    world.tick(99)
    world.beat()
    assert asked(world, lambda: near.get([B])) == ["get"]  # older than max_age
    assert asked(world, lambda: near.get([B])) == []
    world.tick(1)
    world.beat()
    assert asked(world, lambda: near.get([B])) == ["get"]  # it may be forgotten


def test_a_hit_by_copy_counts_as_a_visit(world, near):
    near.peek(A).visited = False
    body(near, A)
    assert near.peek(A).visited


# --- trust -----------------------------------------------------------------------------------------


def test_nothing_is_trusted_before_the_first_beat(world):
    near, other = world.tiers
    world.put(other, A)
    assert asked(world, lambda: body(near, A)) == ["get", "purges_since"]
    assert asked(world, lambda: body(near, A)) == ["get"]
    assert near.trust.until < world.steady.now


def test_trust_lasts_for_the_bound_from_when_the_mark_was_asked_for(world, near):
    assert near.trust.until == world.steady.now + BOUND
    world.tick(BOUND - 0.001)
    assert asked(world, lambda: body(near, A)) == []
    world.tick(0.001)
    assert asked(world, lambda: near.mark_of(A)) == ["mark_of"]


def test_a_slow_answer_shortens_trust(world, near):
    sent = world.steady.now
    gate = world.remote._call

    def slow(method, *args):
        answer = gate(method, *args)
        world.tick(0.7)
        return answer

    world.remote._call = slow
    near.follow()
    world.remote._call = gate
    assert near.trust.until == sent + BOUND
    assert world.steady.now == sent + 0.7


def test_whoever_asks_extends_trust(world, near):
    world.tick(BOUND)
    body(near, B)
    assert near.trust.until == world.steady.now + BOUND
    assert asked(world, lambda: body(near, A)) == []


def test_trust_never_outlasts_what_others_know_of_us(world, near):
    heartbeat = near._heartbeat
    world.remote.failing.add("get_meta")
    for _ in range(3):
        world.tick(BOUND)
        heartbeat.introduce()
        assert not heartbeat.beat()  # the bound could not be announced
        assert near.trust.until <= world.steady.now
        assert asked(world, lambda: body(near, A)) == ["get"]
    world.remote.failing.clear()
    assert heartbeat.beat()
    assert asked(world, lambda: body(near, A)) == []


def test_a_store_that_is_down_is_asked_once_trust_has_run_out(world, near):
    world.remote.failing.add("*")
    assert not near._heartbeat.beat()
    assert body(near, A) == b"body"  # as stale as the bound allows
    world.tick(BOUND)
    with pytest.raises(StoreError):
        near.get([A])
    with pytest.raises(StoreError):
        near.mark_of(A)
    assert near.stats  # the copies are still there, for when it is back
    world.remote.failing.clear()
    world.beat(near)
    assert asked(world, lambda: body(near, A)) == []


def test_bad_numbers_are_refused():
    for options in ({"bound": 0}, {"bound": -1.0}, {"max_age": 0}, {"bound": float("inf")}):
        with pytest.raises(ValueError, match="near_"):
            near_store(MemoryStore(), **options)
    with pytest.raises(ValueError, match="65536"):
        near_store(MemoryStore(), 65535)


# --- what a copy must be ---------------------------------------------------------------------------


def test_an_old_copy_is_asked_for_again(world, near):
    world.put(world.tiers[1], A, b"newer")
    old = near.peek(A)
    assert isinstance(old, NearSlot)
    assert old.until == world.steady.now + MAX_AGE
    assert body(near, A) == b"body"
    world.tick(MAX_AGE)
    world.beat(near)
    assert body(near, A) == b"newer"
    assert near.peek(A) is not old  # a hit path that armed the old slot does not see it any more
    assert near.peek(A).until == world.steady.now + MAX_AGE


def test_the_same_entry_asked_for_again_is_another_slot(world, near):
    old = near.peek(A)
    old.visited = True
    world.tick(MAX_AGE)
    world.beat(near)
    assert body(near, A) == b"body"
    new = near.peek(A)
    assert (new is old, new.stored is old.stored, new.visited) == (False, True, True)


def test_what_is_not_fresh_is_asked_for(world, near):
    """Another process may have refreshed it."""
    world.put(near, B, b"old", lifetime=10)
    assert asked(world, lambda: body(near, B)) == []
    world.tick(10)
    world.beat(near)
    assert body(near, B) == b"old"
    assert near.peek(B) is None
    world.put(world.tiers[1], B, b"new", lifetime=10)
    assert body(near, B) == b"new"
    assert asked(world, lambda: body(near, B)) == []


def test_what_is_validated_before_each_use_is_not_copied(world, near):
    world.put(near, B, b"b", always_validate=True)
    assert near.peek(B) is None
    assert body(near, B) == b"b"


@pytest.mark.parametrize("soft", [False, True])
def test_what_was_purged_is_asked_for(world, near, soft):
    """Another process may have stored the page anew, so that not every one asks the app."""
    near.append(purge_path("/a", soft), 0.0)
    assert asked(world, lambda: body(near, A)) == ["get"]
    assert near.peek(A) is None
    world.put(world.tiers[1], A, b"anew")
    assert body(near, A) == b"anew"
    assert asked(world, lambda: body(near, A)) == []


def test_what_was_not_purged_stays(world, near):
    near.append([*purge_path("/b"), Purge(Kind.GROUP, "g"), Purge(Kind.META, "rule:x")], 0.0)
    assert asked(world, lambda: body(near, A)) == []


def test_a_key_that_is_no_page_is_not_judged(world, near):
    """Nobody knows which purges cover it, so once there are purges it is asked for."""
    world.put(near, "odd", b"odd")
    assert asked(world, lambda: body(near, "odd")) == []
    near.append(purge_path("/x"), 0.0)
    assert body(near, "odd") == b"odd"
    assert near.peek("odd") is None
    world.put(near, "odd", b"again")
    assert asked(world, lambda: body(near, "odd")) == []


def test_what_is_too_large_is_not_copied_and_replaces_what_was(world):
    near, other = world.tier(max_bytes=100_000), world.tiers[1]
    world.put(other, A, b"small")
    world.beat(near)
    assert body(near, A) == b"small"
    world.put(near, A, b"x" * 13_000)
    assert near.peek(A) is None
    assert len(body(near, A)) == 13_000
    assert near.stats()["near_bytes"] == 0


def test_copies_are_bounded_by_bytes(world):
    near = world.tier(max_bytes=100_000)
    world.beat(near)
    for number in range(200):
        world.put(near, f"/{number}\0\0h\0http", b"x" * 1000)
        world.put(near, f"/no/{number}\0\0h\0http", b"x" * 100, negative=True)
    stats = near.stats()
    assert 60_000 < stats["near_bytes"] <= stats["near_max_bytes"] == 100_000
    assert stats["near_entries"] < 100
    assert stats["near_evicted"] == 400 - stats["near_entries"]
    assert stats["entries"] == 400  # the store has them all


def test_scans_for_missing_pages_push_out_nothing(world):
    near = world.tier(max_bytes=200_000)
    world.beat(near)
    world.put(near, A, b"x" * 5000)
    for number in range(300):
        world.put(near, f"/no/{number}\0\0h\0http", b"x" * 500, negative=True)
    assert near.peek(A) is not None


def test_copies_of_the_same_key_are_counted_once(world, near):
    for _ in range(3):
        world.put(near, A, b"x" * 1000)
    assert near.stats()["near_entries"] == 1
    once = near.stats()["near_bytes"]
    near.delete(A)
    assert near.stats()["near_bytes"] == 0
    assert 1000 < once < 3000


# --- following -------------------------------------------------------------------------------------


def test_a_purge_elsewhere_is_followed_with_the_next_beat(world, near):
    other, worker = world.tiers[1], Worker(near)
    other.append(purge_all(), 0.0)
    assert near.get([A])[1].seq == 0  # within the bound
    world.beat(near)
    assert worker.moved == 1
    assert near.get([A])[1] == world.remote._store.mark
    assert near.peek(A) is None


def test_a_purge_here_is_in_force_here_when_it_returns(world, near):
    worker = Worker(near)
    mark = near.append(purge_all(), 0.0)
    assert worker.moved == 1
    assert asked(world, lambda: near.mark_of(A)) == []
    assert near.mark_of(A) == mark
    assert near.purges_since(Mark(mark.epoch, 0, "?")).mark == mark


def test_the_watchers_are_told_after_the_mark_and_before_the_trust(world, near):
    seen = []

    class Engine:
        def moved(self):
            seen.append((near._mark.seq, near.purges_since(start).mark.seq, near.trust.until))

    engine, start = Engine(), near.mark_of(A)
    near.watch(engine.moved)
    until = near.trust.until
    world.tick(0.5)
    world.remote.append(purge_all(), 0.0)
    world.beat(near)
    assert seen == [(1, 1, until)]
    assert near.trust.until == until + 0.5


def test_a_watcher_that_is_gone_is_not_told(world, near):
    worker = Worker(near)
    ref = weakref.ref(worker)
    del worker
    gc.collect()
    assert ref() is None
    near.append(purge_all(), 0.0)


def test_followers_learn_from_memory_what_came_in_many_steps(world, near):
    start = near.mark_of(A)
    marks = [start]
    for number in range(5):
        marks.append(world.remote.append(purge_path(f"/{number}"), 0.0))
        world.beat(near)
    world.remote.calls.clear()
    for number, mark in enumerate(marks[:-1]):
        snapshot = near.purges_since(mark)
        assert [record.seq for record in snapshot.records] == list(range(number + 1, 6))
        assert (snapshot.mark, snapshot.whole) == (marks[-1], False)
    assert world.remote.calls == []


def test_a_follower_that_stands_elsewhere_asks_the_store(world, near):
    between = world.remote.append(purge_path("/1"), 0.0)
    world.remote.append(purge_path("/2"), 0.0)
    world.beat(near)
    snapshot = near.purges_since(between)
    assert ([record.seq for record in snapshot.records], snapshot.whole) == ([2], False)
    assert near.purges_since(None).whole
    assert near.purges_since(Mark("other", 1, "n")).whole


def test_a_follower_that_is_up_to_date_gets_what_the_store_has(world, near):
    """It asks because it has heard of more."""
    worker, start = Worker(near), near.mark_of(A)
    assert near.purges_since(start)[:4] == (start, 0, (), False)
    mark = world.remote.append(purge_all(), 0.0)
    snapshot = near.purges_since(start)
    assert (snapshot.mark, len(snapshot.records)) == (mark, 1)
    assert worker.moved == 1  # and the tier has followed too
    assert near.mark_of(A) == mark


def test_a_mark_that_was_read_on_the_way_is_followed_before_it_is_given(world, near):
    mark = world.remote.append(purge_all(), 0.0)
    assert near.get([B])[1] == mark  # there is no copy of B
    assert near.mark_of(A) == mark
    assert near.peek(A) is None or body(near, A) is not None
    world.remote.append(purge_all(), 0.0)
    world.remote.failing.add("purges_since")
    with pytest.raises(StoreError):
        near.get([B])
    assert near.mark_of(A) == mark


@pytest.mark.parametrize("how", ["clear", "another journal", "fallen behind"])
def test_another_history_flushes(how):
    world = World(Remote(MemoryStore(journal_limit=4)))
    near, other = world.tiers
    world.beat()
    world.put(near, A)
    assert near.peek(A) is not None
    if how == "clear":
        other.clear()
    elif how == "another journal":
        world.remote._store = MemoryStore()
    else:
        for number in range(10):
            other.append(purge_path(f"/{number}"), 0.0)
    world.beat(near)
    assert near.peek(A) is None
    assert near.stats()["near_bytes"] == 0
    # Who is there may have been lost as well: nothing is trusted before it was said again.
    assert near.trust.until < world.steady.now
    world.beat(near)
    assert near.trust.until == world.steady.now + BOUND
    assert near.purges_since(near.mark_of(A)).mark == near.mark_of(A)


def test_clear_is_in_force_here_when_it_returns(world, near):
    late = world.entry(A, b"late")
    mark = near.clear()
    assert near.peek(A) is None
    assert near.mark_of(A) == mark
    assert not near.set(A, late, late.keep_until)
    assert near.peek(A) is None


# --- faults ----------------------------------------------------------------------------------------


def test_a_purge_that_may_have_been_carried_out_leaves_no_trust(world, near):
    worker, real = Worker(near), world.remote._call

    def lost(method, *args):
        real(method, *args)
        raise StoreError("the answer was lost")

    world.remote._call = lost
    with pytest.raises(StoreError):
        near.append(purge_all(), 0.0)
    world.remote._call = real
    assert worker.moved == 1
    assert near.trust.until < world.steady.now
    assert near.get([A])[1].seq == 1
    assert near.peek(A) is None


def test_a_purge_that_cannot_be_followed_is_a_purge_and_leaves_no_trust(world, near):
    world.remote.failing.add("purges_since")
    mark = near.append(purge_all(), 0.0)
    assert mark.seq == 1
    with pytest.raises(StoreError):
        near.get([A])
    world.remote.failing.clear()
    assert near.get([A])[1] == mark


def test_doubt_outlives_a_mark_that_was_asked_for_before(world, near):
    earlier = world.steady.now
    world.tick(0.1)
    near.doubt()
    for asked in (earlier, world.steady.now):
        near.follow_to(near._mark, asked)
        assert near.trust.until < world.steady.now
    world.tick(0.001)
    near.follow()
    assert near.trust.until == world.steady.now + BOUND


@pytest.mark.parametrize("method", ["set", "delete", "clear"])
def test_a_write_that_failed_leaves_no_copy(world, near, method):
    world.remote.failing.add(method)
    entry = world.entry(A, b"new")
    given = {"set": (A, entry, entry.keep_until), "delete": (A,), "clear": ()}
    with pytest.raises(StoreError):
        getattr(near, method)(*given[method])
    assert near.peek(A) is None


def test_a_set_that_was_refused_leaves_no_copy(world, near):
    early = world.entry(A, b"early")
    world.remote.append(purge_path("/other"), 0.0)
    late = world.put(world.tiers[1], A, b"late")
    assert not near.set(A, early, early.keep_until)
    assert near.peek(A) is None
    assert body(near, A) == late.body


def test_delete_forgets_the_copy(world, near):
    (stored,), _ = near.get([A])
    assert near.delete(A, stored)
    assert (near.peek(A), body(near, A)) == (None, None)
    assert not near.delete(A)


def test_delete_of_another_entry_forgets_the_copy_and_spares_the_store(world, near):
    other = world.entry(A, b"other")
    assert not near.delete(A, other)
    assert near.peek(A) is None
    assert body(near, A) == b"body"


# --- namespaces, parts, ends -----------------------------------------------------------------------


def test_namespaces_have_copies_of_their_own_in_one_budget(world, near):
    part = near.namespaced("part")
    assert part is near.namespaced("part")
    assert near.namespaced("") is near
    world.beat(part)
    entry = world.entry(A, b"part", part.mark_of(A))
    assert part.set(A, entry, entry.keep_until)
    assert (body(part, A), body(near, A)) == (b"part", b"body")
    assert part.stats()["near_entries"] == 1
    assert part.stats()["near_bytes"] == near.stats()["near_bytes"] > part.peek(A).size
    near.clear()
    assert body(part, A) == b"part"


def test_a_namespace_goes_when_nobody_uses_it(world, near):
    part = weakref.ref(near.namespaced("part"))
    gc.collect()
    assert part() is None


def test_what_is_beside_the_entries_is_the_stores(world, near):
    other = world.tiers[1]
    near.set_meta("x", "y")
    near.incr_many({"n": 2})
    token = near.lease(A, 60)
    assert (other.get_meta("x"), other.counters()["n"], other.lease(A, 60)) == ("y", 2, None)
    near.release(A, token)
    assert other.lease(A, 60)
    assert [stored.body for stored in near.scan("/a")] == [b"body"]


def test_a_closed_tier_trusts_nothing_any_more(world, near):
    near.close()
    assert near.peek(A) is None
    for _ in range(2):
        assert "get" in asked(world, lambda: near.get([A]))
        near._heartbeat.beat()
    assert near.trust.until < world.steady.now


def test_stats_tell_of_the_copies(world, near):
    stats = near.stats()
    assert (stats["entries"], stats["near_entries"], stats["near_failures"]) == (1, 1, 0)
    world.remote.failing.add("mark_of")
    near._heartbeat.beat()
    assert near.stats()["near_failures"] == 1


class TestParts:
    """A store with several journals."""

    @pytest.fixture
    def keys(self, cluster):
        """A key of each part."""
        keys = [f"/{letter}\0\0h\0http" for letter in "abc"]
        assert sorted([cluster.part_of(key) for key in keys]) == [0, 1, 2]
        return sorted(keys, key=cluster.part_of)

    @pytest.fixture(params=[Parted, PartedAtOnce])
    def cluster(self, request):
        return request.param(3)

    @pytest.fixture
    def world(self, cluster):
        return World(cluster)

    def put(self, world, store, key, text):
        entry = world.entry(key, text, world.remote.mark_of(key))
        assert store.set(key, entry, entry.keep_until)

    def test_each_key_is_answered_by_its_part(self, world, cluster, keys):
        near = world.tiers[0]
        world.beat(near)
        for key in keys:
            self.put(world, near, key, key.encode())
        for number, key in enumerate(keys):
            before = [len(part.calls) for part in cluster.parts]
            assert near.part_of(key) == number
            for store in (near, near.parts[number]):
                assert body(store, key) == key.encode()
                assert store.mark_of(key) == cluster.rooms[number].mark
            assert near.peek(key) is near.parts[number].peek(key) is not None
            assert [len(part.calls) for part in cluster.parts] == before
        found, mark = near.get(keys)
        assert [stored.body for stored in found] == [key.encode() for key in keys]
        assert mark == cluster.rooms[0].mark

    def test_a_part_that_is_down_takes_only_its_own_trust(self, world, cluster, keys):
        near = world.tiers[0]
        world.beat(near)
        for key in keys:
            self.put(world, near, key, key.encode())
        cluster.parts[1].failing.add("*")
        world.tick(BOUND)
        assert not near._heartbeat.beat()
        assert [part.trust.until > world.steady.now for part in near.parts] == [True, False, True]
        assert body(near, keys[0]) == keys[0].encode()
        with pytest.raises(StoreError):
            near.get([keys[1]])

    @pytest.mark.parametrize("whole", [True, False])
    def test_a_purge_reaches_every_part(self, world, cluster, keys, whole):
        near, other = world.tiers
        for key in keys:
            self.put(world, other, key, key.encode())
        world.beat()
        for key in keys:
            assert body(near, key) is not None
        worker = Worker(near)
        if whole:
            near.append(purge_all(), 0.0)
        else:
            for part in near.parts:
                part.append(purge_all(), 0.0)
        assert worker.moved >= 3
        for number, key in enumerate(keys):
            assert near.get([key])[1] == cluster.rooms[number].mark
            assert near.peek(key) is None

    def test_clear_flushes_all(self, world, keys):
        near = world.tiers[0]
        world.beat(near)
        for key in keys:
            self.put(world, near, key, b"x")
        near.clear()
        assert [near.peek(key) for key in keys] == [None] * 3
        assert near.stats()["entries"] == 0

    def test_namespaces_have_parts_too(self, world, keys):
        near = world.tiers[0]
        room = near.namespaced("room")
        assert room is near.namespaced("room") is not near
        world.beat(room)
        entry = world.entry(keys[2], b"x", room.mark_of(keys[2]))
        assert room.set(keys[2], entry, entry.keep_until)
        assert (body(room, keys[2]), body(near, keys[2])) == (b"x", None)
        assert len(room.parts) == 3


class TestPartsAtOnce:
    """A store with several journals that can be asked at the same time."""

    @pytest.fixture
    def cluster(self):
        return PartedAtOnce(3)

    @pytest.fixture
    def world(self, cluster):
        return World(cluster)

    @pytest.fixture
    def near(self, world, cluster):
        near = world.tiers[0]
        world.beat(near)
        cluster.at_once.turns.clear()
        return near

    def test_a_beat_reads_all_marks_and_then_what_moved(self, cluster, near):
        assert near._heartbeat.beat()
        assert cluster.at_once.turns == [("marks", [0, 1, 2])]
        for number in (0, 2):
            cluster.parts[number].append(purge_all(), 0.0)
        assert near._heartbeat.beat()
        assert cluster.at_once.turns[1:] == [("marks", [0, 1, 2]), ("since", [0, 2])]
        assert [part.reached for part in near.parts] == [room.mark for room in cluster.rooms]

    def test_a_beat_of_one_part_asks_that_alone(self, cluster, near):
        cluster.parts[1].append(purge_all(), 0.0)
        assert near._heartbeat.beat(frozenset([1]))
        assert cluster.at_once.turns == []
        assert near.parts[1].reached == cluster.rooms[1].mark

    def test_a_part_whose_news_do_not_come_is_not_trusted_for_longer(self, world, cluster, near):
        for part in cluster.parts:
            part.append(purge_all(), 0.0)
        cluster.parts[1].failing.add("purges_since")
        before = near.parts[1].trust.until
        world.tick(BOUND / 2)
        assert not near._heartbeat.beat()
        assert near.stats()["near_failures"] == 1
        assert [part.trust.until > before for part in near.parts] == [True, False, True]

    def test_what_is_written_is_followed_when_it_returns(self, world, cluster, near):
        worker = Worker(near)
        answers = near.at_once.append({0: purge_all(), 2: purge_all()}, 0.0)
        assert cluster.at_once.turns == [("append", [0, 2]), ("since", [0, 2])]
        assert answers == {0: near.parts[0].reached, 2: near.parts[2].reached}
        assert (answers[0].seq, answers[2].seq, worker.moved) == (1, 1, 2)
        assert all([part.trust.until > world.steady.now for part in near.parts])

    @pytest.mark.parametrize("fails", ["append", "purges_since"])
    def test_nothing_is_trusted_where_that_fails(self, world, cluster, near, fails):
        cluster.parts[1].failing.add(fails)
        answers = near.at_once.append(dict.fromkeys(range(3), purge_all()), 0.0)
        assert [isinstance(answers[number], StoreError) for number in range(3)] == [
            False,
            fails == "append",
            False,
        ]
        assert [part.trust.until > world.steady.now for part in near.parts] == [True, False, True]

    def test_nothing_is_trusted_where_it_is_not_known_what_was_written(self, world, cluster, near):
        def killed(method):
            raise KeyboardInterrupt

        cluster.at_once.meanwhile = killed
        with pytest.raises(KeyboardInterrupt):
            near.at_once.append({0: purge_all(), 1: purge_all()}, 0.0)
        assert [part.trust.until > world.steady.now for part in near.parts] == [False, False, True]

    def test_news_that_another_has_followed_meanwhile_are_asked_for_anew(self, cluster, near):
        """What was fetched from where the part stood leads on from there only."""

        def meanwhile(method):
            if method == "since":
                cluster.at_once.meanwhile = lambda method: None
                near.parts[0].append([Purge(Kind.GROUP, "later")], 0.0)
                cluster.parts[0].append([Purge(Kind.GROUP, "last")], 0.0)

        cluster.parts[0].append([Purge(Kind.GROUP, "first")], 0.0)
        start = near.parts[0].reached
        cluster.at_once.meanwhile = meanwhile
        near._heartbeat.beat()
        assert near.parts[0].reached == cluster.rooms[0].mark
        told = near.parts[0].purges_since(start)
        assert [record.target for record in told.records] == ["first", "later", "last"]

    def test_clear_flushes_all(self, world, cluster, near):
        keys = [f"/{letter}\0\0h\0http" for letter in "abc"]
        for key in keys:
            entry = world.entry(key, b"x", world.remote.mark_of(key))
            assert near.set(key, entry, entry.keep_until)
        answers = near.at_once.clear()
        assert [near.peek(key) for key in keys] == [None] * 3
        assert [answers[number] for number in range(3)] == [room.mark for room in cluster.rooms]
        assert [part.reached for part in near.parts] == [room.mark for room in cluster.rooms]

    def test_who_follows_the_tier_is_told_what_it_knows(self, cluster, near):
        start = {number: part.reached for number, part in enumerate(near.parts)}
        assert near.at_once.marks(range(3)) == start
        cluster.parts[2].append(purge_all(), 0.0)
        told = near.at_once.purges_since({**start, 0: None})
        assert (told[0].whole, told[1].records, len(told[2].records)) == (True, (), 1)
        assert near.parts[2].reached == told[2].mark == cluster.rooms[2].mark
        assert near.at_once.purges_since(start)[2] == told[2]
        cluster.parts[1].failing.add("*")
        assert isinstance(near.at_once.purges_since(start)[1], StoreError)

    def test_who_waits_for_everybody_follows_all_first(self, world, cluster, near):
        for part in cluster.parts:
            part.append(purge_all(), 0.0)
        near.settle(0.0)
        assert cluster.at_once.turns == [("marks", [0, 1, 2]), ("since", [0, 1, 2])]
        assert [part.reached for part in near.parts] == [room.mark for room in cluster.rooms]


def test_the_hook_of_the_hit_path(world, near):
    """What an engine needs of a slot: the stored object itself, and until when."""
    (stored,), _ = near.get([A])
    slot = near.peek(A)
    assert isinstance(stored, Entry)
    assert slot.stored is stored
    assert slot.until <= world.steady.now + MAX_AGE
