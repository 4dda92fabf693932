"""The journal in Redis: whatever part of it goes, and whoever serves it, no purged page is served again."""

import itertools
import threading
import time

import pytest
from redis_helpers import KEY, body_of, confirms, entry, follower, name, opened, purge, put, served
from servers_redis import Server, empty
from tcp_proxy import TcpProxy

from wsgicache.codec import FORMAT, encode_mark
from wsgicache.journal import Kind, Mark, Purge, Verdict
from wsgicache.stores import StoreError, redisjournal
from wsgicache.stores.redisjournal import RedisJournal

OTHER = "/other\0\0example.com\0http"


@pytest.fixture
def server():
    return empty()


PARTS = (b":mark", b":order", b":records", b":nonces")


@pytest.mark.parametrize(
    "gone", [parts for size in (1, 2, 3, 4) for parts in itertools.combinations(PARTS, size)]
)
def test_rds_07_an_evicted_part_of_the_journal_is_a_miss(server, gone):
    """Whatever an eviction takes: after it a purged page is not served, and the next ones are stored."""
    store, other = opened(server.url), opened(server.url)
    index, other_index = follower(), follower()
    put(store, OTHER, b"never purged")
    put(store, KEY, b"old")
    assert served(other, other_index) == b"old"
    purge(store)
    server.ask("DEL", *[name(server, ending) for ending in gone])
    assert served(store, index) is None
    assert served(other, other_index) is None
    late = opened(server.url)
    assert served(late, follower()) is None
    purge(late, OTHER)
    assert served(late, follower(), OTHER) is None
    put(late, KEY, b"new")
    for one, known in ((store, index), (other, other_index), (late, follower())):
        assert served(one, known) == b"new"
        assert served(one, known, OTHER) is None
    assert len({one.mark_of(KEY) for one in (store, other, late)}) == 1


@pytest.mark.parametrize("ending", PARTS)
@pytest.mark.parametrize("command", ["SET", "RPUSH", "SADD"])
def test_a_part_that_holds_something_else(server, ending, command):
    """WRONGTYPE, or a text that is no mark."""
    store = opened(server.url)
    put(store, KEY, b"old")
    purge(store)
    key = name(server, ending)
    server.ask("DEL", key)
    server.ask(command, key, "foreign")
    late = opened(server.url)
    assert served(late, follower()) is None
    assert served(store, follower()) is None
    purge(late, OTHER)
    put(late, KEY, b"new")
    assert served(store, follower()) == b"new"
    assert confirms(late)


@pytest.mark.parametrize("field", ["#run", "#floor", "#epoch", "url h p/page"])
def test_a_field_that_is_gone(server, field):
    store = opened(server.url)
    put(store, KEY, b"old")
    before = purge(store)
    server.ask("HDEL", name(server, b":records"), field)
    assert store.purges_since(None).mark.epoch != before.epoch
    assert served(store, follower()) is None


@pytest.mark.parametrize(("ending", "field"), [(b":records", "url h p/page")])
@pytest.mark.parametrize("fact", ["", "x", "1.0", "a b", "\xff"])
def test_a_record_that_is_spoilt_begins_a_new_epoch(server, ending, field, fact):
    store = opened(server.url)
    before = purge(store)
    server.ask("HSET", name(server, ending), field, fact)
    snapshot = store.purges_since(None)
    assert (list(snapshot.records), snapshot.mark.epoch == before.epoch) == ([], False)


def test_the_confirmation_of_a_page_whose_journal_went(server):
    store = opened(server.url)
    put(store)
    before = store.peek(KEY).mark = encode_mark(store.mark_of(KEY))
    assert store.confirm(store.peek(KEY)) == before
    server.ask("DEL", name(server, b":mark"))
    told = store.confirm(store.peek(KEY))
    assert told is not None
    assert told != before
    assert told.split(b" ")[0] != store.peek(KEY).stored.born.epoch.encode()
    assert body_of(store) is None


def test_a_journal_that_was_set_back_begins_a_new_epoch(server):
    """Somebody restored a backup: whoever has seen a later mark says so, and does not believe it."""
    store = opened(server.url)
    put(store, KEY, b"old")
    purge(store, OTHER)
    old = {ending: server.ask("DUMP", name(server, ending)) for ending in PARTS}
    names = {ending: name(server, ending) for ending in PARTS}
    purge(store)
    late = opened(server.url)
    late.mark_of(KEY)
    for ending, dump in old.items():
        server.ask("RESTORE", names[ending], 0, dump, "REPLACE")
    assert store.confirm(store.peek(KEY)) is None or body_of(store) is None
    assert served(store, follower()) is None
    assert served(late, follower()) is None


def test_another_history_of_the_same_length_is_not_believed(server):
    store = opened(server.url)
    put(store, KEY, b"old")
    old = {ending: server.ask("DUMP", name(server, ending)) for ending in (b":mark", b":records")}
    names = {ending: name(server, ending) for ending in old}
    purge(store)
    there = store.mark_of(KEY)
    for ending, dump in old.items():
        server.ask("RESTORE", names[ending], 0, dump, "REPLACE")
    opened(server.url).append([Purge(Kind.URL, "p/somewhere")], 1.0)
    again = store.mark_of(KEY)
    assert again.epoch != there.epoch
    assert served(store, follower()) is None


@pytest.mark.parametrize("arguments", [("--appendonly", "yes"), ("--save", "3600 1")])
def test_a_restart_that_lost_the_last_purges_resurrects_nothing(arguments):
    """With a file of what was there: the page is in it, the purge is not."""
    server = Server(*arguments)
    try:
        store = opened(server.url)
        put(store, KEY, b"old")
        put(store, OTHER, b"old")
        if "--save" in arguments:
            server.ask("SAVE")
        else:
            server.ask("CONFIG", "SET", "appendfsync", "always")
            put(store, KEY, b"old")
            server.ask("CONFIG", "SET", "appendonly", "no")
            server.ask("CONFIG", "SET", "appendonly", "yes")
            until_written(server)
            server.ask("CONFIG", "SET", "appendonly", "no")
        purge(store)
        before = store.mark_of(KEY)
        server.restart()
        pages = [key for key in server.ask("KEYS", "*") if b":%d:" % FORMAT in key]
        assert len(pages) == 2, "the pages are there"
        late = opened(server.url)
        for one in (late, store):
            assert served(one, follower()) is None
            assert served(one, follower(), OTHER) is None
            assert one.mark_of(KEY).epoch != before.epoch
        assert late.mark_of(KEY) == store.mark_of(KEY)
    finally:
        server.close()


def until_written(server):
    from servers_redis import until

    until(lambda: server.ask("INFO", "persistence")["aof_rewrite_in_progress"] == 0, what="the file")


def test_another_server_behind_the_same_address(server):
    """A failover without Sentinel: the other one lacks the last purge, and has the page."""
    other = Server()
    try:
        with TcpProxy(server.port) as proxy:
            store = opened(f"redis://127.0.0.1:{proxy.port}")
            put(store, KEY, b"old")
            copy(server, other)
            purge(store)
            assert served(store, follower()) is None
            proxy.target = other.port
            proxy.cut()
            assert served(store, follower()) is None
            late = opened(f"redis://127.0.0.1:{proxy.port}")
            assert served(late, follower()) is None
            assert late.mark_of(KEY) == store.mark_of(KEY)
            proxy.target = server.port
            assert served(late, follower()) is None
            proxy.cut()
            assert served(late, follower()) is None
    finally:
        other.close()


def copy(server, other):
    """What one server holds, in another."""
    for key in server.ask("KEYS", "*"):
        other.ask("RESTORE", key, max(0, server.ask("PTTL", key)), server.ask("DUMP", key), "REPLACE")


def test_of_many_that_find_no_journal_one_begins_it(server):
    stores = [opened(server.url) for _ in range(8)]
    barrier = threading.Barrier(8)
    marks = []

    def look(store):
        barrier.wait()
        marks.append(store.mark_of(KEY))

    threads = [threading.Thread(target=look, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(marks) == 8
    assert len(set(marks)) == 1


def test_flushall_is_a_miss(server):
    store = opened(server.url)
    put(store)
    server.ask("FLUSHALL")
    assert not confirms(store)
    assert body_of(store) is None
    made = entry(store)
    server.ask("FLUSHALL")
    assert not store.set(KEY, made, time.time() + 60), "born in an epoch that is gone"
    put(store)
    assert confirms(store)


def test_scripts_that_the_server_forgot(server):
    store = opened(server.url)
    put(store)
    before = store.link.opened
    server.ask("SCRIPT", "FLUSH")
    purge(store)
    server.ask("SCRIPT", "FLUSH")
    put(store)
    assert store.link.opened == before


def test_a_long_journal_comes_in_pages(server):
    """More than one answer holds: all of it, each target once, in order, whole or from a mark on."""
    store = opened(server.url, options="&journal=5000")
    targets = [f"p/{number}" for number in range(4300)]
    marks = [store.append([Purge(Kind.URL, target) for target in targets[:2000]], 1.5)]
    marks.append(store.append([Purge(Kind.URL, target) for target in targets[2000:]], 2.5))
    late = opened(server.url, options="&journal=5000")
    whole = late.purges_since(None)
    assert (whole.whole, whole.mark, whole.floor) == (True, marks[-1], 0)
    assert [record.target for record in whole.records] == targets
    assert {record.at for record in whole.records} == {1.5, 2.5}
    rest = late.purges_since(marks[0])
    assert (rest.whole, [record.target for record in rest.records]) == (False, targets[2000:])


def test_purges_while_a_long_journal_is_read(server):
    """Targets that are purged again move on to a later page, and none is missed."""
    store = opened(server.url)
    targets = [f"p/{number}" for number in range(3000)]
    store.append([Purge(Kind.URL, target) for target in targets], 1.0)
    reader = opened(server.url)
    ask = reader.link.ask
    turns = []

    def meddle(use, **given):
        answer = ask(use, **given)
        turns.append(1)
        store.append([Purge(Kind.URL, target) for target in targets[len(turns) :: 500]], 2.0)
        return answer

    reader.link.ask = meddle
    snapshot = reader.purges_since(None)
    reader.link.ask = ask
    assert len(turns) >= 3
    assert sorted({record.target for record in snapshot.records}) == sorted(targets)
    numbers = [record.seq for record in snapshot.records]
    assert numbers == sorted(set(numbers))
    assert snapshot.mark.seq >= numbers[-1]
    missing = reader.purges_since(snapshot.mark)
    assert not missing.whole


def test_a_new_epoch_while_a_long_journal_is_read(server):
    store = opened(server.url)
    store.append([Purge(Kind.URL, f"p/{number}") for number in range(2500)], 1.0)
    reader = opened(server.url)
    ask = reader.link.ask
    done = []

    def meddle(use, **given):
        answer = ask(use, **given)
        if not done:
            done.append(store.clear())
            store.append([Purge(Kind.URL, "p/after")], 2.0)
        return answer

    reader.link.ask = meddle
    snapshot = reader.purges_since(None)
    assert [record.target for record in snapshot.records] == ["p/after"]
    assert snapshot.mark == store.mark_of(KEY)
    reader.link.ask = ask

    def always(use, **given):
        store.append([Purge(Kind.URL, f"p/{number}") for number in range(1500)], 1.0)
        answer = ask(use, **given)
        store.clear()
        return answer

    reader.link.ask = always
    with pytest.raises(StoreError, match="again and again"):
        reader.purges_since(None)


def test_many_purges_at_once_are_all_there(server):
    store = opened(server.url)
    mark = store.append([Purge(Kind.GROUP, f"g{number}") for number in range(1234)], 1.0)
    assert mark.seq == 1234
    assert len(store.purges_since(None).records) == 1234


def test_a_purge_of_no_target_moves_nothing(server):
    store = opened(server.url)
    mark = store.mark_of(KEY)
    assert store.append([], 1.0) == mark


def test_evictions_by_age_never_resurrect_a_page():
    """allkeys-lru on a server that is much too small, with foreign keys: purges hold, all the way."""
    server = Server("--maxmemory", "3mb", "--maxmemory-policy", "allkeys-lru")
    try:
        store = opened(server.url)
        index = follower()
        hits = epochs = 0
        epoch = ""
        for turn in range(300):
            key = f"/{turn % 20}\0\0example.com\0http"
            put_quietly(store, key, b"before" * 200)
            if turn % 3 == 0:
                purge(store, key)
                assert served(store, index, key) is None, turn
            for filler in range(4):
                server.ask("SET", f"foreign {turn} {filler}", "x" * 5000)
            found = served(store, index, key)
            if turn % 3 == 0:
                assert found is None, turn
            hits += found is not None
            epochs += store.mark_of(key).epoch != epoch
            epoch = store.mark_of(key).epoch
        assert hits > 100
        assert server.ask("INFO", "stats")["evicted_keys"] > 300
        assert epochs < 20, "the journal is used with each page that is stored, so that it stays"
    finally:
        server.close()


def put_quietly(store, key, body):
    store.set(key, entry(store, key, body), time.time() + 600)


def test_volatile_policies_leave_the_journal():
    server = Server("--maxmemory", "3mb", "--maxmemory-policy", "volatile-lru")
    try:
        store = opened(server.url)
        mark = purge(store)
        for number in range(1000):
            put_quietly(store, f"/{number}\0\0example.com\0http", b"x" * 5000)
        assert server.ask("INFO", "stats")["evicted_keys"] > 100
        assert store.mark_of(KEY) == mark
        assert [record.target for record in store.purges_since(None).records] == ["p/page"]
    finally:
        server.close()


def test_a_mark_from_the_future_is_another_history(server):
    store = opened(server.url)
    mark = purge(store)
    assert store.purges_since(Mark(mark.epoch, 2**53, mark.nonce)).whole


# --- what is dropped ---------------------------------------------------------------------------------


def dropping(server, journal=1500, more=700):
    """A store whose journal has dropped its first purges, and the mark before all of them."""
    store = opened(server.url, options=f"&journal={journal}")
    start = store.mark_of(KEY)
    store.append([Purge(Kind.URL, f"p/{number}") for number in range(journal + more)], 1.0)
    return store, start


def verdicts(index, born, count):
    return [index.verdict(born, f"/{number}\0\0h\0http", ()) for number in range(count)]


def test_what_is_dropped_is_in_the_table(server):
    _, start = dropping(server)
    snapshot = opened(server.url).purges_since(None)
    assert (snapshot.floor, snapshot.dropped, snapshot.slots, len(snapshot.records)) == (0, 700, 6000, 1500)
    index = follower()
    index.follow(snapshot)
    said = verdicts(index, start, 6000)
    assert set(said[:2200]) == {Verdict.HARD}
    assert 300 < said[2200:].count(Verdict.HARD) < 550, "700 of 6000 slots are taken, some of them twice"
    late = index.verdict(Mark(start.epoch, 700, ""), "/100000\0\0h\0http", ())
    assert late is Verdict.VALID


def test_a_table_of_several_pieces(server, monkeypatch):
    monkeypatch.setattr(redisjournal, "PIECE", 5000)
    store, start = dropping(server)
    index = follower()
    index.follow(store.purges_since(None))
    assert set(verdicts(index, start, 2200)) == {Verdict.HARD}


def test_what_is_dropped_while_the_journal_is_read(server, monkeypatch):
    """Records that were on the second page when the first was read: they are in the table by then."""
    store, start = dropping(server, more=0)
    reader, page = opened(server.url), RedisJournal._page

    def moved(self, follower, after):
        if after == "1000":
            more = [Purge(Kind.URL, f"p/{number}") for number in range(1500, 2900)]
            store.append(more, 1.0)
        return page(self, follower, after)

    monkeypatch.setattr(RedisJournal, "_page", moved)
    snapshot = reader.purges_since(None)
    assert snapshot.dropped == 1400
    index = follower()
    index.follow(snapshot)
    assert set(verdicts(index, start, 2900)) == {Verdict.HARD}


def test_an_epoch_that_begins_while_the_table_is_read(server, monkeypatch):
    store, start = dropping(server)
    piece = RedisJournal._piece

    def cleared(self, start):
        monkeypatch.setattr(RedisJournal, "_piece", piece)
        store.clear()
        return piece(self, start)

    monkeypatch.setattr(RedisJournal, "_piece", cleared)
    snapshot = opened(server.url).purges_since(None)
    assert (snapshot.mark.epoch == start.epoch, snapshot.dropped, list(snapshot.records)) == (False, 0, [])


@pytest.mark.parametrize(
    "spoil",
    [("DEL",), ("SET", "short"), ("APPEND", "more")],
)
def test_a_table_that_is_not_whole_begins_an_epoch(server, spoil):
    store, start = dropping(server, 10, 5)
    assert store.purges_since(None).mark.epoch == start.epoch
    server.ask(spoil[0], name(server, b":dropped"), *spoil[1:])
    assert store.purges_since(None).mark.epoch != start.epoch


def test_a_follower_drops_by_itself_what_the_store_drops(server):
    """So the table is fetched once at most."""
    store, start = dropping(server, 10, 0)
    index, reader = follower(), opened(server.url)
    index.follow(reader.purges_since(None))
    for number in range(10, 30):
        store.append([Purge(Kind.URL, f"p/{number}")], 1.0)
        snapshot = reader.purges_since(index.mark)
        assert (snapshot.whole, snapshot.table, snapshot.dropped) == (False, None, number - 9)
        index.follow(snapshot)
    index.whole()
    assert len(index) == 10
    assert set(verdicts(index, start, 30)) == {Verdict.HARD}


def test_a_journal_that_remembers_another_number_keeps_its_table(server):
    _, start = dropping(server, 10, 5)
    other = opened(server.url, options="&journal=20")
    other.append([Purge(Kind.URL, f"p/{number}") for number in range(15, 60)], 1.0)
    index = follower()
    index.follow(opened(server.url).purges_since(None))
    assert set(verdicts(index, start, 60)) == {Verdict.HARD}
    assert server.ask("STRLEN", name(server, b":dropped")) == 8 * 40
