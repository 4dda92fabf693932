"""Collapse: who leads, who follows, and that nobody ever waits for somebody who does not come."""

import threading
from contextlib import contextmanager

import pytest
from waiting import PATIENCE

from wsgicache.collapse import Boarding, Collapse, MissMarkers, State
from wsgicache.journal import Mark
from wsgicache.outcome import Reason
from wsgicache.testing import FakeClock

OLD, NEW = Mark("e", 1, "a"), Mark("e", 2, "b")
LONG = 20.0  # seconds; no test waits for it to pass
KEY = "/a"


def nothing(born):
    return False


def older(born):
    """What a purge between the two marks covers."""
    return born == OLD


class Follower(threading.Thread):
    """Joins the flight of a key and waits for its end."""

    def __init__(self, collapse, timeout=LONG, born=OLD, covered=nothing):
        super().__init__()
        self._collapse, self._timeout = collapse, timeout
        self._born, self._covered = born, covered
        self.boarded = threading.Event()
        self.state = None

    def run(self):
        self.boarding, self.flight = self._collapse.board(KEY, self._born, self._covered)
        self.boarded.set()
        if self.boarding is Boarding.FOLLOW:
            self.state = self._collapse.wait(self.flight, self._timeout)


@contextmanager
def followers(collapse, count=1, **given):
    """Followers that have boarded; joined at the end."""
    threads = [Follower(collapse, **given) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        assert thread.boarded.wait(PATIENCE)
    yield threads
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Elsewhere:
    """Runs things on other threads, which live on until the end of the test, as a server's do."""

    def __init__(self):
        self._end = threading.Event()
        self._threads = []

    def __call__(self, act):
        found, done = [], threading.Event()

        def run():
            found.append(act())
            done.set()
            self._end.wait(LONG)

        self._threads.append(threading.Thread(target=run))
        self._threads[-1].start()
        assert done.wait(PATIENCE)
        return found[0]

    def end(self):
        self._end.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def elsewhere():
    others = Elsewhere()
    yield others
    others.end()


@pytest.fixture
def collapse():
    return Collapse(max_followers=100, slow_client_grace=LONG)


def lead(collapse, born=OLD, covered=nothing):
    boarding, flight = collapse.board(KEY, born, covered)
    assert boarding is Boarding.LEAD
    return flight


# --- boarding ---


def test_the_first_leads_and_the_others_follow(collapse):
    flight = lead(collapse)
    with followers(collapse, 5) as threads:
        assert [(thread.boarding, thread.flight) for thread in threads] == [(Boarding.FOLLOW, flight)] * 5
        assert flight.followers == 5
        collapse.release(flight)
    assert flight.followers == 0
    assert len(collapse) == 0


def test_another_key_is_another_flight(collapse, elsewhere):
    lead(collapse)
    assert elsewhere(lambda: collapse.board("/b", OLD, nothing)[0]) is Boarding.LEAD
    assert len(collapse) == 2


def test_whoever_asks_for_what_he_is_making_does_not_wait_for_himself(collapse):
    flight = lead(collapse)
    assert collapse.board(KEY, OLD, nothing) == (Boarding.NESTED, None)
    assert collapse.board("/b", OLD, nothing)[0] is Boarding.LEAD
    collapse.fail(flight)
    assert collapse.board(KEY, OLD, nothing)[0] is Boarding.LEAD


def test_an_own_flight_that_was_left_behind_is_not_waited_for(collapse):
    """The server took a chunk, and has this thread answer somebody else meanwhile."""
    flight = lead(collapse)
    collapse.hand_over(flight)
    boarding, second = collapse.board(KEY, OLD, nothing)
    assert (boarding, second is flight) == (Boarding.LEAD, False)


def test_a_flight_that_a_purge_covers_is_not_joined(collapse, elsewhere):
    """CON-01: a follower judges at its own mark, and leads a newer flight."""
    old = lead(collapse)
    boarding, new = elsewhere(lambda: collapse.board(KEY, NEW, older))
    assert (boarding, new is old) == (Boarding.LEAD, False)
    with followers(collapse, 3, born=NEW, covered=older) as threads:
        assert {thread.flight for thread in threads} == {new}
        collapse.release(old)  # the old one's end is nothing to them
        assert new.state is State.PENDING
        collapse.land(new, "entry")
    assert [thread.state for thread in threads] == [State.LANDED] * 3


def test_a_flight_born_later_than_what_was_read_is_joined(collapse):
    flight = lead(collapse, NEW, older)
    with followers(collapse, born=OLD, covered=older) as threads:
        assert threads[0].flight is flight
        collapse.land(flight, "entry")


def test_a_purge_of_something_else_keeps_nobody_from_joining(collapse):
    flight = lead(collapse)
    with followers(collapse, born=NEW, covered=nothing) as threads:
        assert threads[0].flight is flight
        collapse.land(flight, "entry")


def test_whose_answer_cannot_be_stored_does_not_lead_but_may_follow(collapse, elsewhere):
    assert collapse.board(KEY, OLD, nothing, may_lead=False) == (Boarding.ALONE, None)
    assert len(collapse) == 0
    flight = lead(collapse)
    assert elsewhere(lambda: collapse.board(KEY, OLD, nothing, may_lead=False)[1]) is flight


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_followers_are_counted(limit, elsewhere):
    """CON-13: the others go to the app, so that one slow page does not take every thread."""
    collapse = Collapse(limit, LONG)
    flight = lead(collapse)
    with followers(collapse, limit):
        assert elsewhere(lambda: collapse.board(KEY, OLD, nothing)) == (Boarding.OVERFLOW, None)
        collapse.release(flight)


def test_tokens_grow_in_the_order_of_the_flights(collapse, elsewhere):
    tokens = [lead(collapse).token, collapse.token()]
    tokens.append(elsewhere(lambda: collapse.board("/b", OLD, nothing)[1]).token)
    assert tokens == sorted(set(tokens))
    assert tokens[0] > 0  # 0 says that the order does not matter


# --- ends ---


@pytest.mark.parametrize(
    ("end", "state"),
    [
        ("land", State.LANDED),
        ("release", State.RELEASED),
        ("give_stale", State.STALE),
        ("fail", State.FAILED),
    ],
)
def test_every_end_wakes_every_follower(collapse, end, state):
    flight = lead(collapse)
    entry = object()
    with followers(collapse, 10) as threads:
        getattr(collapse, end)(*([flight, entry] if end == "land" else [flight]))
    assert [thread.state for thread in threads] == [state] * 10
    assert flight.entry is (entry if end == "land" else None)
    assert len(collapse) == 0


def test_the_first_end_counts(collapse):
    flight = lead(collapse)
    collapse.land(flight, "entry")
    collapse.release(flight)
    collapse.fail(flight)
    assert (flight.state, flight.entry) == (State.LANDED, "entry")


def test_an_old_flight_that_ends_leaves_the_new_one(collapse, elsewhere):
    old = lead(collapse)
    new = elsewhere(lambda: collapse.board(KEY, NEW, older)[1])
    collapse.fail(old)
    assert len(collapse) == 1
    collapse.fail(new)
    assert len(collapse) == 0


def test_an_end_between_boarding_and_waiting_is_seen(collapse, elsewhere):
    flight = lead(collapse)
    _, joined = elsewhere(lambda: collapse.board(KEY, OLD, nothing))
    collapse.land(flight, "entry")
    assert collapse.wait(joined, LONG) is State.LANDED


# --- deadlines ---


def test_a_follower_gives_up_at_its_deadline_and_nobody_joins_any_more(collapse, elsewhere):
    flight = lead(collapse)
    _, joined = elsewhere(lambda: collapse.board(KEY, OLD, nothing))
    assert collapse.wait(joined, 0.0) is State.PENDING
    assert flight.followers == 0
    assert elsewhere(lambda: collapse.board(KEY, OLD, nothing)[0]) is Boarding.LEAD


def test_those_who_still_wait_for_a_flight_that_one_gave_up_are_woken_by_its_end(collapse, elsewhere):
    flight = lead(collapse)
    with followers(collapse, 3) as threads:
        _, joined = elsewhere(lambda: collapse.board(KEY, OLD, nothing))
        assert collapse.wait(joined, 0.0) is State.PENDING
        collapse.land(flight, "entry")
    assert [thread.state for thread in threads] == [State.LANDED] * 3


def test_followers_do_not_wait_for_a_slow_client(elsewhere):
    """CON-10: the leader's server has a chunk and does not come for more."""
    collapse = Collapse(100, slow_client_grace=0.0)
    flight = lead(collapse)
    with followers(collapse, 3) as threads:
        collapse.hand_over(flight)
    assert [thread.state for thread in threads] == [State.PENDING] * 3
    assert elsewhere(lambda: collapse.board(KEY, OLD, nothing)[0]) is Boarding.LEAD


def test_a_follower_that_comes_while_the_client_is_slow_does_not_wait_either(elsewhere):
    steady = FakeClock(0.0)
    collapse = Collapse(100, 5.0, steady)
    flight = lead(collapse)
    collapse.hand_over(flight)
    steady.tick(6)
    _, joined = elsewhere(lambda: collapse.board(KEY, OLD, nothing))
    assert collapse.wait(joined, LONG) is State.PENDING


def test_a_client_that_comes_for_more_in_time_costs_nothing():
    steady = FakeClock(0.0)
    collapse = Collapse(100, 5.0, steady)
    flight = lead(collapse)
    collapse.hand_over(flight)
    collapse.resume(flight)
    steady.tick(6)
    with followers(collapse) as threads:
        collapse.land(flight, "entry")
    assert threads[0].state is State.LANDED


def test_a_follower_that_is_killed_while_it_waits_is_not_counted_any_more(collapse, monkeypatch, elsewhere):
    flight = lead(collapse)
    _, joined = elsewhere(lambda: collapse.board(KEY, OLD, nothing))

    def killed(timeout):
        raise SystemExit

    monkeypatch.setattr(joined.changed, "wait", killed)
    with pytest.raises(SystemExit):
        collapse.wait(joined, LONG)
    assert flight.followers == 0
    assert not collapse._lock.locked()


# --- many at once ---


def test_of_many_who_board_at_once_one_leads(collapse):
    count, boardings, barrier = 20, [], threading.Barrier(20)

    def board(turn):
        barrier.wait(PATIENCE)
        boarding, flight = collapse.board(f"/{turn}", OLD, nothing)
        boardings.append((turn, boarding))
        if boarding is Boarding.LEAD:
            collapse.land(flight, "entry")
        else:
            assert collapse.wait(flight, LONG) is State.LANDED

    for turn in range(20):
        threads = [threading.Thread(target=board, args=(turn,)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(boardings) == 400
    assert {turn for turn, boarding in boardings if boarding is Boarding.LEAD} == set(range(20))
    assert len(collapse) == 0


# --- miss markers ---


def test_a_marker_lasts_for_its_seconds():
    markers = MissMarkers(10.0)
    assert not markers.has(KEY, 100.0)
    assert markers.why(KEY) is None
    markers.set(KEY, 100.0, Reason.NOT_STORED_PRIVATE)
    assert [markers.has(KEY, now) for now in (100.0, 109.9, 110.0, 200.0)] == [True, True, False, False]
    assert markers.why(KEY) is Reason.NOT_STORED_PRIVATE
    assert not markers.has("/b", 100.0)


def test_a_marker_from_the_future_does_not_count():
    """The clock went back: otherwise requests would not wait for each other until it has caught up."""
    markers = MissMarkers(10.0)
    markers.set(KEY, 5000.0, Reason.NOT_STORED_PRIVATE)
    assert not markers.has(KEY, 100.0)


def test_a_marker_is_taken_back():
    markers = MissMarkers(10.0)
    markers.set(KEY, 100.0, Reason.NOT_STORED_PRIVATE)
    markers.unset(KEY)
    markers.unset(KEY)
    assert not markers.has(KEY, 100.0)


def test_markers_are_bounded():
    markers = MissMarkers(10.0, limit=100)
    for number in range(1000):
        markers.set(f"/{number}", 0.0, Reason.NOT_STORED_PRIVATE)
        assert len(markers.marks) <= 100
    assert markers.has("/999", 0.0)


def test_no_seconds_no_markers():
    markers = MissMarkers(0.0)
    markers.set(KEY, 100.0, Reason.NOT_STORED_PRIVATE)
    assert not markers.has(KEY, 100.0)
