"""The journal and its index: against a model that reads every record anew, and the order of publication."""

import threading
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsgicache import WSGICache, journal
from wsgicache.journal import Journal, Kind, Mark, Purge, PurgeIndex, Record, Snapshot, Verdict
from wsgicache.key import (
    base_key,
    group_target,
    group_targets,
    parse_url,
    prefix_target,
    prefix_targets,
    same_path_target,
    split_key,
    target_path,
    url_target,
    variant_key,
)
from wsgicache.stores.memory import MemoryStore
from wsgicache.testing import FakeClock, Response, ScriptedApp, ask

ORIGINS = ["http://a", "https://a", "http://a:81"]
PATHS = ["/", "/b", "/b/", "/b/c", "/b/c/d", "/bc", "/b//c"]
QUERIES = ["", "q=1"]
GROUPS = ["g", "h", "p/b", ""]


def key_of(origin, path, query, extra=""):
    scheme, _, host = origin.partition("://")
    return base_key(path, query, host, scheme, extra)


KEYS = st.builds(
    key_of,
    st.sampled_from(ORIGINS),
    st.sampled_from(PATHS),
    st.sampled_from(QUERIES),
    st.sampled_from(["", "pz"]),
)
MAYBE_ORIGIN = st.one_of(st.just(""), st.sampled_from(ORIGINS))
PURGES = st.one_of(
    st.builds(
        lambda origin, path, query, soft: Purge(Kind.URL, url_target(origin + path + query), soft),
        MAYBE_ORIGIN, st.sampled_from(PATHS), st.sampled_from(["", "?q=1", "?"]), st.booleans(),
    ),
    st.builds(
        lambda key, soft: Purge(Kind.URL, same_path_target(split_key(key)), soft), KEYS, st.booleans()
    ),
    st.builds(
        lambda origin, path, soft: Purge(Kind.PREFIX, prefix_target(origin + path), soft),
        MAYBE_ORIGIN, st.sampled_from(PATHS), st.booleans(),
    ),
    st.builds(
        lambda origin, group, soft: Purge(Kind.GROUP, group_target(group, origin or None), soft),
        MAYBE_ORIGIN, st.sampled_from(GROUPS), st.booleans(),
    ),
    st.builds(lambda soft: Purge(Kind.ALL, "", soft), st.booleans()),
)  # fmt: skip


def names(purge, key, groups):
    """Whether a purge names an entry: the definition, in the plainest words there are."""
    parts = split_key(key)
    kind, target = purge.kind, purge.target
    if kind is Kind.ALL:
        return True
    if kind is Kind.GROUP:
        return any(target in (f"g{group}", f"o{parts.origin}\0{group}") for group in groups)
    if kind is Kind.URL:
        wanted = {
            f"p{parts.path}",
            f"q{parts.path}\0{parts.query}",
            f"o{parts.origin}\0{parts.path}",
            f"u{parts.origin}\0{parts.path}\0{parts.query}",
        }
        return target in wanted
    prefix = target[1:]
    if target.startswith("o"):
        origin, _, prefix = prefix.partition("\0")
        if origin != parts.origin:
            return False
    return parts.path.rstrip("/") == prefix or parts.path.startswith(f"{prefix}/")


class Model:
    """The whole history, with what each store and each worker should conclude from it.

    The store remembers the `limit` targets that were purged last; what it dropped may have named anything
    that was born before and shares a slot with it.
    """

    def __init__(self, limit):
        self.limit = limit
        self.epoch = -1
        self.restart()

    def restart(self):
        self.epoch += 1
        self.records = []
        self.remembered = []
        self.dropped = []

    def append(self, purges):
        for purge in purges:
            self.records.append(purge)
            self.remembered = [known for known in self.remembered if known[1] != purge]
            self.remembered.append((len(self.records), purge))
        self.dropped += self.remembered[: -self.limit]
        self.remembered = self.remembered[-self.limit :]

    def verdict(self, born, key, groups):
        """What is so."""
        epoch, seq = born
        if epoch != self.epoch:
            return Verdict.HARD
        later = [purge for purge in self.records[seq:] if names(purge, key, groups)]
        if any(not purge.soft for purge in later):
            return Verdict.HARD
        return Verdict.SOFT if later else Verdict.VALID

    def may_say(self, born, key, groups):
        """What an index may say: what is so, or that it is a miss, if that may be for all that it knows."""
        true = self.verdict(born, key, groups)
        gone = [purge for seq, purge in self.dropped if seq > born[1]]
        parts = split_key(key)
        slots = {
            Kind.URL: {("url", parts.path)},
            Kind.PREFIX: {("prefix", target) for target in prefix_targets(parts)},
            Kind.GROUP: {("group", target) for target in group_targets(parts, groups)},
        }
        looked_at = {
            self.slot(*one) for kind in {purge.kind for purge in gone} for one in slots.get(kind, ())
        }
        shared = [
            purge.kind is Kind.ALL or self.slot(purge.kind.value, purge.target) in looked_at for purge in gone
        ]
        return {true, Verdict.HARD} if any(shared) else {true}

    def slot(self, kind, target):
        if kind == "url" and target[:1] != "/":
            target = target_path(target)
        return crc32(f"{kind} {target}".encode()) % (4 * self.limit)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.lists(PURGES, min_size=1, max_size=3)),
        st.tuples(st.just("append"), st.lists(PURGES, min_size=1, max_size=3)),
        st.tuples(st.just("follow"), st.integers(0, 1)),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("born"), st.tuples(KEYS, st.lists(st.sampled_from(GROUPS), max_size=2))),
        st.tuples(st.just("born"), st.tuples(KEYS, st.lists(st.sampled_from(GROUPS), max_size=2))),
    ),
    max_size=30,
)


@given(STEPS, st.integers(1, 6))
def test_an_index_says_what_the_whole_history_says(steps, limit):
    """Two workers that follow at different times, over a journal that forgets."""
    log, model = Journal(limit), Model(limit)
    indexes = [PurgeIndex(), PurgeIndex()]
    entries = []
    for step, value in steps:
        if step == "append":
            log.append(value, 0.0)
            model.append(value)
        elif step == "restart":
            log.restart()
            model.restart()
        elif step == "born":
            entries.append((log.mark, (model.epoch, len(model.records)), *value))
        followed = indexes if step != "follow" else indexes[value : value + 1]
        for index in followed if step in ("follow", "born") else ():
            assert index.follow(log.since(index.mark)) == log.mark == index.mark
            for born, model_born, key, groups in entries:
                said = index.verdict(born, key, groups)
                assert said in model.may_say(model_born, key, groups)
                variant = variant_key(key, ("accept",), ("x",))
                assert index.verdict(born, variant, groups) is said


def index_of(*records, floor=0, epoch="e", seq=None):
    index = PurgeIndex()
    rows = [Record(n + 1, *purge, 0.0, f"n{n + 1}") for n, purge in enumerate(records)]
    last = len(rows) if seq is None else seq
    index.follow(Snapshot(Mark(epoch, last, f"n{last}"), floor, rows, whole=True))
    return index


KEY = key_of("http://a", "/b/c", "")


def born(seq, epoch="e"):
    return Mark(epoch, seq, f"n{seq}")


def test_before_it_has_followed_nothing_is_valid():
    assert PurgeIndex().mark is None
    assert PurgeIndex().verdict(born(0), KEY, ()) is Verdict.HARD


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (Kind.URL, "p/b/c"),
        (Kind.URL, "q/b/c\0"),
        (Kind.URL, "ohttp://a\0/b/c"),
        (Kind.URL, "uhttp://a\0/b/c\0"),
        (Kind.PREFIX, "p"),
        (Kind.PREFIX, "p/b"),
        (Kind.PREFIX, "p/b/c"),
        (Kind.PREFIX, "ohttp://a\0/b"),
        (Kind.GROUP, "gx"),
        (Kind.GROUP, "ohttp://a\0x"),
        (Kind.ALL, ""),
    ],
)
def test_what_is_born_before_a_purge_and_what_at_it(kind, target, soft):
    index = index_of(Purge(Kind.URL, "p/other"), Purge(kind, target, soft))
    covered = Verdict.SOFT if soft else Verdict.HARD
    verdicts = [index.verdict(born(seq), KEY, ("x",)) for seq in (0, 1, 2)]
    assert verdicts == [covered, covered, Verdict.VALID]


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (Kind.URL, "p/b"),
        (Kind.URL, "p/b/c/"),
        (Kind.URL, "q/b/c\0q=1"),
        (Kind.URL, "ohttps://a\0/b/c"),
        (Kind.PREFIX, "p/b/c/d"),
        (Kind.PREFIX, "p/c"),
        (Kind.PREFIX, "ohttp://a:81\0/b"),
        (Kind.GROUP, "gy"),
        (Kind.GROUP, "p/b/c"),  # one kind's target is not another's
        (Kind.URL, "gx"),
        (Kind.PREFIX, "gx"),
    ],
)
def test_a_purge_of_something_else_is_nothing(kind, target):
    assert index_of(Purge(kind, target)).verdict(born(0), KEY, ("x",)) is Verdict.VALID


def test_a_hard_purge_beats_a_soft_one_whatever_their_order():
    soft, hard = Purge(Kind.URL, "p/b/c", True), Purge(Kind.GROUP, "gx", False)
    for records in ((soft, hard), (hard, soft)):
        assert index_of(*records).verdict(born(0), KEY, ("x",)) is Verdict.HARD
    assert index_of(hard, soft).verdict(born(1), KEY, ("x",)) is Verdict.SOFT


def test_the_last_purge_of_a_target_counts():
    purge = Purge(Kind.URL, "p/b/c")
    index = index_of(purge, purge, purge)
    assert [index.verdict(born(seq), KEY, ()) for seq in range(4)] == [Verdict.HARD] * 3 + [Verdict.VALID]
    assert len(index) == 1


@pytest.mark.parametrize(("seq", "verdict"), [(4, Verdict.HARD), (5, Verdict.VALID), (9, Verdict.VALID)])
def test_what_was_born_below_the_floor_is_a_miss(seq, verdict):
    """What was dropped may have named it."""
    assert index_of(floor=5, seq=9).verdict(born(seq), KEY, ()) is verdict


def test_another_epoch_is_a_miss_whatever_its_number():
    index = index_of()
    assert [index.verdict(born(seq, "other"), KEY, ()) for seq in (0, 5)] == [Verdict.HARD] * 2


def test_a_new_epoch_forgets_the_purges_of_the_old_one():
    index = index_of(Purge(Kind.ALL, ""))
    index.follow(Snapshot(Mark("f", 0, "x"), 0, [], whole=True))
    assert index.verdict(born(0, "f"), KEY, ()) is Verdict.VALID
    assert index.verdict(born(1), KEY, ()) is Verdict.HARD
    assert len(index) == 0


def test_following_the_same_tail_twice_changes_nothing():
    """A forked child may do so: its parent's thread was in the middle of it."""
    log, index = Journal(), PurgeIndex()
    index.follow(log.since(None))
    start = index.mark
    log.append([Purge(Kind.URL, "p/b/c"), Purge(Kind.GROUP, "gx", True)], 0.0)
    tail = log.since(start)
    index.follow(tail)
    index.follow(tail)
    assert index.verdict(start, KEY, ()) is Verdict.HARD
    assert index.verdict(index.mark, KEY, ("x",)) is Verdict.VALID


# --- bounds ---


def test_the_journal_keeps_its_limit():
    log = Journal(limit=10)
    for number in range(100):
        log.append([Purge(Kind.URL, f"p/{number}")], 0.0)
        snapshot = log.since(None)
        assert len(snapshot.records) == min(number + 1, 10)
        assert snapshot.dropped == snapshot.mark.seq - len(snapshot.records)
        assert snapshot.floor == 0


def test_one_append_may_be_larger_than_the_limit():
    log = Journal(limit=3)
    start = log.mark
    log.append([Purge(Kind.URL, f"p/{number}") for number in range(10)], 0.0)
    index = PurgeIndex()
    index.follow(log.since(start))
    assert (log.dropped, log.mark.seq) == (7, 10)
    for number in range(10):
        assert index.verdict(start, key_of("http://a", f"/{number}", ""), ()) is Verdict.HARD


@pytest.mark.parametrize("limit", [0, -1])
def test_a_journal_without_room_is_refused(limit):
    with pytest.raises(ValueError, match="at least one record"):
        Journal(limit)


def test_what_was_dropped_is_known_by_its_slot():
    """The journal keeps ten; of the hundred before each path is a miss, and of others few."""
    log, index, late = Journal(limit=1000), PurgeIndex(), PurgeIndex()
    start = log.mark
    log.append([Purge(Kind.URL, f"p/{number}") for number in range(1500)], 0.0)
    for one in (index, late):
        one.follow(log.since(None))
    said = [index.verdict(start, key_of("http://a", f"/{number}", ""), ()) for number in range(3000)]
    assert set(said[:1500]) == {Verdict.HARD}
    others = said[1500:].count(Verdict.HARD)
    assert 100 < others < 260, "500 of 4000 slots are taken, some of them twice"
    assert index.verdict(Mark(start.epoch, 500, ""), key_of("http://a", "/2000", ""), ()) is Verdict.VALID


@pytest.mark.parametrize("soft", [False, True])
def test_that_everything_was_purged_is_not_dropped_without_a_trace(soft):
    log, index = Journal(limit=3), PurgeIndex()
    start = log.mark
    purged = log.append([Purge(Kind.ALL, "", soft)], 0.0)
    log.append([Purge(Kind.META, f"rule:{number}") for number in range(5)], 0.0)
    index.follow(log.since(None))
    assert index.verdict(start, KEY, ()) is Verdict.HARD
    assert index.verdict(purged, KEY, ()) is Verdict.VALID, "the switch of a rule covers nothing"


@pytest.mark.parametrize("whole", [True, False])
def test_where_it_is_not_told_what_was_dropped_all_below_is_a_miss(whole):
    index = PurgeIndex()
    index.follow(Snapshot(Mark("e", 0, "a"), 0, [], True, 0, 8))
    snapshot = Snapshot(Mark("e", 9, "b"), 0, [], whole, 5, 8 if whole else 0)
    index.follow(snapshot)
    assert [index.verdict(born(seq), KEY, ()) for seq in (4, 5)] == [Verdict.HARD, Verdict.VALID]


def test_a_table_that_takes_over_while_an_entry_is_judged_hides_no_purge():
    """What leaves the books is in the table before."""
    index = PurgeIndex()
    record = Record(1, Kind.GROUP, group_target("g"), False, 0.0, "a")
    index.follow(Snapshot(Mark("e", 1, "a"), 0, [record], True, 0, 8))

    class Groups(tuple):
        def __iter__(self):
            index.follow(Snapshot(Mark("e", 5000, "b"), 0, [], False, 4999, 8))
            return super().__iter__()

    assert index.verdict(Mark("e", 0, "z"), key_of("http://a", "/b", ""), Groups(["g"])) is Verdict.HARD
    assert len(index) == 0


@pytest.mark.parametrize("told", [True, False])
def test_an_index_lets_go_of_what_the_journal_dropped(monkeypatch, told):
    """However many purges there were in the life of a worker, it holds what the journal holds, and a bit."""
    monkeypatch.setattr(journal, "_FORGET_EVERY", 64)
    log, index = Journal(limit=100), PurgeIndex()
    for number in range(2000):
        start = log.mark
        log.append([Purge(Kind.URL, f"p/{number}", bool(number % 2)), Purge(Kind.GROUP, f"g{number}")], 0.0)
        snapshot = log.since(index.mark)
        index.follow(snapshot if told else snapshot._replace(slots=0, table=None))
        assert len(index) <= 100 + 64 + 2
        assert index.verdict(start, key_of("http://a", f"/{number}", ""), ()) is not Verdict.VALID


def test_no_two_histories_look_alike():
    marks = {Journal().mark for _ in range(100)}
    log = Journal()
    for _ in range(100):
        marks.add(log.append([Purge(Kind.ALL, "")], 0.0))
        marks.add(log.restart())
    assert len({mark.nonce for mark in marks}) == 300
    assert len({mark.epoch for mark in marks}) == 201


# --- the order of publication ---


def test_an_index_shows_its_mark_last():
    """Whoever reads the mark first and the index afterwards misses no record of that mark."""
    log, index = Journal(), PurgeIndex()
    index.follow(log.since(None))
    start = index.mark
    log.append([Purge(Kind.URL, f"p/{number}") for number in range(5)], 0.0)
    seen = []

    class Watched(list):
        def __iter__(self):
            for record in list.__iter__(self):
                seen.append(index.mark)
                yield record

    tail = log.since(start)
    index.follow(tail._replace(records=Watched(tail.records)))
    assert seen == [start] * 5
    assert index.mark == log.mark


def test_a_new_history_is_shown_as_a_whole():
    """While it is read in, entries are judged by the old one; never by half of the new one."""
    log, index = Journal(), PurgeIndex()
    index.follow(log.since(None))
    old = index.mark
    log.restart()
    new = log.mark
    log.append([Purge(Kind.URL, "p/b/c")], 0.0)
    seen = []

    class Watched(list):
        def __iter__(self):
            for record in list.__iter__(self):
                seen.append((index.mark, index.verdict(old, KEY, ()), index.verdict(new, KEY, ())))
                yield record

    snapshot = log.since(old)
    assert snapshot.whole
    index.follow(snapshot._replace(records=Watched(snapshot.records)))
    assert seen == [(old, Verdict.VALID, Verdict.HARD)]
    assert index.verdict(new, KEY, ()) is Verdict.HARD


class Watcher:
    def __init__(self, store):
        self.store, self.seen = store, []

    def moved(self):
        self.seen.append(self.store.mark)


def test_the_store_shows_its_mark_before_anybody_is_told():
    """So that whoever is told looks up by the new mark: an armed slot is never trusted by the old one."""
    store = MemoryStore()
    watcher = Watcher(store)
    store.watch(watcher.moved)
    assert [store.append([Purge(Kind.ALL, "")], 0.0), store.clear()] == watcher.seen


def test_readers_never_see_a_mark_whose_purges_they_miss():
    """Threads that follow while others append: each verdict is at least as strict as the mark read first."""
    store, errors, appended = MemoryStore(), [], []
    cache = WSGICache(ScriptedApp(), store, clock=FakeClock())
    follower = cache.engine.follower_of("")
    keys = [key_of("http://a", f"/{number}", "") for number in range(300)]
    start = store.mark

    def append():
        for number in range(300):
            mark = store.append([Purge(Kind.URL, f"p/{number}")], 0.0)
            appended.append(mark)

    def read():
        while len(appended) < 300:
            mark = store.get([])[1]
            follower.follow(mark)
            for number in range(max(0, mark.seq - 3), mark.seq):
                if follower._index.verdict(start, keys[number], ()) is not Verdict.HARD:
                    errors.append((mark, number))

    threads = [threading.Thread(target=job) for job in (append, read, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


# --- what costs nothing ---


def test_a_check_does_not_grow_with_the_number_of_purges():
    """Look-ups, counted: one per form of the URL, ancestor and group, with 10 purges or with 10,000."""

    class Counting(dict):
        asked = 0

        def get(self, *given):
            Counting.asked += 1
            return dict.get(self, *given)

    counts = []
    for purges in (10, 10_000):
        index = index_of(*[Purge(kind, f"x{n}") for n in range(purges) for kind in list(Kind)[:3]])
        for book in (index._state.hard, index._state.soft):
            for name in ("urls", "prefixes", "groups"):
                setattr(book, name, Counting(getattr(book, name)))
        Counting.asked = 0
        assert index.verdict(born(0), KEY, ("x", "y")) is Verdict.VALID
        counts.append(Counting.asked)
    assert counts[0] == counts[1] <= 4 + 2 * 4 + 2 * 2


def test_a_hit_asks_the_journal_nothing_while_the_mark_stands():
    cache = WSGICache(ScriptedApp(Response(body=b"page")), clock=FakeClock())
    ask(cache)
    ask(cache)
    cache.engine.follower_of("")._index.verdict = None  # would raise, and send the hit the long way
    cache.engine.store.purges_since = None
    assert all(ask(cache).is_hit for _ in range(10))


def test_the_targets_are_what_the_model_takes_them_for():
    assert parse_url("http://a:81/b?q=1") == ("http://a:81", "/b", "q=1")
    assert url_target("http://a:81/b?q=1") == "uhttp://a:81\0/b\0q=1"


def test_a_floor_that_rises_while_an_entry_is_judged_hides_no_purge():
    """What lies below it is forgotten then, the purge that covers the entry included."""
    index = PurgeIndex()
    mark = Mark("e", 1, "a")
    index.follow(Snapshot(mark, 0, [Record(1, Kind.GROUP, group_target("g"), False, 0.0, "a")], whole=True))

    class Groups(tuple):
        def __iter__(self):
            index.follow(Snapshot(Mark("e", 5000, "b"), 5000, [], whole=False))
            return super().__iter__()

    born = Mark("e", 0, "z")
    assert index.verdict(born, key_of("http://a", "/b", ""), Groups(["g"])) is Verdict.HARD


@given(st.lists(st.lists(PURGES, max_size=3), max_size=12), st.integers(1, 6), st.integers(0, 12), KEYS)
def test_an_index_that_begins_with_all_of_another_says_the_same(steps, limit, later, key):
    """Whatever the floor has taken, and what comes afterwards."""
    told, one, begun = Journal(limit), PurgeIndex(), PurgeIndex()
    assert one.whole() is None
    marks = [told.mark]
    for number, purges in enumerate([[], *steps]):
        marks.append(told.append(purges, 1.0))
        one.follow(told.since(one.mark))
        if number == later:
            begun.follow(one.whole())
        elif number > later:
            begun.follow(told.since(begun.mark))
    if later > len(steps):
        begun.follow(one.whole())
    assert begun.mark == one.mark
    model = Model(limit)
    for purges in steps:
        model.append(purges)
    for mark in marks:
        for groups in ([], GROUPS):
            may_say = model.may_say((0, mark.seq), key, groups)
            assert {begun.verdict(mark, key, groups), one.verdict(mark, key, groups)} <= may_say
    for purge in {purge for purges in steps for purge in purges}:
        known = one.last(purge)
        assert begun.last(purge) == known or known <= told.dropped
