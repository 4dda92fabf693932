"""What was counted by route, and how counters grew over the day."""

import json

from shared_helpers import Site, refuse

from wsgicache import Reason, Rule, sharing
from wsgicache.history import EVERY, FIELDS, KEPT, NAME, History
from wsgicache.observe import ByName
from wsgicache.routes import OTHER, route_of
from wsgicache.testing import FakeClock, Response, SharedServer, SharedStore


def counted(**reasons):
    return {f"reason:{name}": n for name, n in reasons.items()}


def test_a_line_every_five_minutes_whoever_writes_it():
    server = SharedServer()
    clock = FakeClock(1_000 * EVERY + 7.0)
    workers = [History(SharedStore(server)) for _ in range(2)]
    for minute in range(11):
        for worker in workers:
            worker.note(clock.now, counted(HIT=minute))
        clock.tick(60)
    lines = json.loads(server.meta[NAME])["lines"]
    assert [line[0] for line in lines] == [1000, 1001, 1002]
    assert [line[1 + FIELDS.index("hits")] for line in lines] == [0, 5, 10]
    points = workers[1].points(clock.now, 3600, counted(HIT=12, URI_MISS=1))
    assert [point.numbers["hits"] for point in points] == [5, 5, 2]
    assert [point.numbers["misses"] for point in points] == [0, 0, 1]
    assert [point.seconds for point in points[:2]] == [EVERY, EVERY]


def test_it_keeps_a_day():
    server = SharedServer()
    history = History(SharedStore(server))
    for number in range(KEPT + 50):
        history.note(float(number * EVERY), counted(HIT=number))
    lines = json.loads(server.meta[NAME])["lines"]
    assert len(lines) == KEPT
    now = float((KEPT + 49) * EVERY)
    assert len(history.points(now, 3600, counted(HIT=KEPT + 49))) in (12, 13, 14)


def test_a_clock_that_was_set_back_tells_nothing_of_the_future():
    store, counts = SharedStore(SharedServer()), {"reason:HIT": 0}
    history, now = History(store), 1_800_000_000.0
    for number in range(12):
        history.note(now + number * EVERY, {"reason:HIT": number * 10})
    now += 6 * EVERY  # the clock went back by half of it
    for number in range(12, 15):
        points = history.points(now, 3600, counts := {"reason:HIT": number * 10})
        assert max(point.at for point in points) <= now
        assert all(point.seconds <= EVERY for point in points)
        history.note(now, counts)
        now += EVERY
    numbers = [point.numbers["hits"] for point in history.points(now, 3 * EVERY, counts)]
    assert numbers[-3:] == [10, 10, 0], "lines are written again at once"
    assert [line[0] for line in history._read()][-3:] == [6_000_006, 6_000_007, 6_000_008]


def test_counters_that_were_lost_begin_again():
    history = History(SharedStore(SharedServer()))
    history.note(0.0, counted(HIT=100))
    history.note(float(EVERY), counted(HIT=3))
    (grown, _) = history.points(float(EVERY), 3600, counted(HIT=3))
    assert grown.numbers["hits"] == 3


def test_what_is_no_list_of_ours_is_none():
    server = SharedServer()
    history = History(SharedStore(server))
    for text in ("", "{", "[]", "7", '{"fields": ["x"], "lines": [[1, 2]]}', '{"lines": [["a"]]}'):
        server.meta[NAME] = text
        assert history.points(1e9, 3600, counted(HIT=1)) == []


def test_the_workers_of_a_site_write_it_as_they_go():
    site = Site()
    one, two = site.workers()
    for number in range(3):
        for worker in (one, two):
            worker.ask(f"/{number}")
        site.clock.tick(EVERY)
    counts = one.store.counters()
    points = History(one.store).points(site.clock.now, 3600, counts)
    assert len(points) == 3
    assert (
        sum(point.numbers["requests"] for point in points) == counts["reason:HIT"] + counts["reason:URI_MISS"]
    )


def test_a_store_that_takes_no_line_is_asked_again():
    site = Site()
    (worker,) = site.workers(1)
    worker.ask()
    keep, worker.store.set_meta = worker.store.set_meta, refuse
    site.clock.tick(11)
    worker.ask("/a")
    worker.store.set_meta = keep
    site.clock.tick(11)
    worker.ask("/b")
    assert NAME in site.server.meta


# --- by route ---


def by_route(worker):
    worker.cache.engine.observer.by_name = ByName(route_of, others=OTHER, limit=3)
    return worker.cache.engine.observer.by_name


def test_routes_tell_hits_misses_bypasses_and_what_the_app_took():
    site = Site(rules=[Rule("/admin/*", bypass=True)])
    (worker,) = site.workers(1)
    book = by_route(worker)

    def slow(environ, version):
        site.clock.tick(2)
        return Response(body=b"12345")

    site.response = slow
    for _ in range(4):
        worker.ask("/post/1")
    worker.ask("/post/2?x=1")
    worker.ask("/post/1", method="HEAD")
    worker.ask("/admin/a")
    counts = book.counts()
    assert (counts["hits</post/*>"], counts["misses</post/*>"]) == (4, 1)
    assert counts["bypasses</post/*>"] == counts[f"bypass:{Reason.BYPASS_QUERY.name}</post/*>"] == 1
    assert (counts["asked</post/*>"], counts["milliseconds</post/*>"]) == (1, 2000)
    assert (counts["stored</post/*>"], counts["bytes</post/*>"]) == (1, 5)
    assert counts["bypasses</admin/*>"] == 1
    stats = worker.cache.stats()
    assert stats["hits"] == 4


def test_what_clients_make_up_makes_no_routes():
    site = Site()
    (worker,) = site.workers(1)
    book = by_route(worker)
    site.response = lambda environ, version: Response("404 Not Found")
    for number in range(300):
        worker.ask(f"/{number}/x")
    assert list(book.rows) == [OTHER]
    site.response = lambda environ, version: Response(body=b"x")
    worker.ask("/post/1")
    assert list(book.rows) == [OTHER, "/post/*"], "nor does it take the place of those that there are"


def test_a_route_is_the_first_segment():
    told = [route_of(path) for path in ("/", "/a", "/a/b\0q\0h\0s", "/a/", "/" + "x" * 100)]
    assert told == ["/", "/a", "/a/*", "/a/*", "/" + "x" * 64]


def test_there_are_only_so_many_routes():
    site = Site()
    (worker,) = site.workers(1)
    book = by_route(worker)
    for path in ("/", "/a", "/a/b", "/c/d", "/", "/a/c", "/e"):
        worker.ask(path)
    assert list(book.rows) == ["/", "/a", "/a/*", OTHER]
    assert (book.row("/").hits.value + book.row("/").fast.value, book.row(OTHER).misses.value) == (1, 2)


def test_counts_by_route_are_shared_too():
    site = Site()
    one, two = site.workers()
    for worker in (one, two):
        by_route(worker)
        worker.ask("/post/1")
        worker.ask("/post/1")
        worker.cache.close()
    counters = one.store.counters()
    assert (counters["hits</post/*>"], counters["misses</post/*>"]) == (3, 1)


def test_a_closed_cache_asks_nothing_more_when_the_process_ends():
    """Its server may have ended before; a point of the history would be due by then."""
    site = Site()
    (worker,) = site.workers(1)
    worker.ask()
    worker.cache.close()
    for _ in range(20):
        trips, _ = site.trips(sharing._at_exit)
        assert trips == 0
