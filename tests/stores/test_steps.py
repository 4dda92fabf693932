"""What a near tier remembers of a journal for those who follow it."""

from hypothesis import given
from hypothesis import strategies as st

from wsgicache.journal import Journal, Kind, Mark, Purge, PurgeIndex
from wsgicache.stores.steps import MOST, MOST_RECORDS, Steps


def purges(count, start=0):
    return [Purge(Kind.URL, f"p/{number}") for number in range(start, start + count)]


def test_nothing_is_known_at_first():
    steps = Steps()
    assert steps.since(None) is None
    assert steps.since(Mark("e", 0, "n")) is None


def test_the_first_step_is_from_nowhere_and_leads_nobody():
    journal = Journal()
    steps = Steps().plus(None, journal.since(None))
    assert len(steps) == 0


def test_it_does_not_change():
    journal = Journal()
    start = journal.mark
    journal.append(purges(1), 0.0)
    before = Steps()
    after = before.plus(start, journal.since(start))
    assert (len(before), len(after)) == (0, 1)


def test_it_is_bounded_in_steps_and_records():
    journal, steps = Journal(), Steps()
    marks = [journal.mark]
    for number in range(MOST + 10):
        journal.append(purges(1, number), 0.0)
        steps = steps.plus(marks[-1], journal.since(marks[-1]))
        marks.append(journal.mark)
    assert len(steps) == MOST
    assert [steps.since(mark) is not None for mark in (marks[9], marks[10], marks[-2], marks[-1])] == [
        False, True, True, False,
    ]  # fmt: skip
    journal.append(purges(MOST_RECORDS, 1000), 0.0)
    steps = steps.plus(marks[-1], journal.since(marks[-1]))
    assert len(steps) == 1
    known = steps.since(marks[-1])
    assert known is not None
    assert len(known.records) == MOST_RECORDS
    journal.append(purges(MOST_RECORDS + 1, 10_000), 0.0)
    assert len(steps.plus(known.mark, journal.since(known.mark))) == 0


def test_another_history_ends_what_came_before():
    one, two = Journal(), Journal()
    start, steps = one.mark, Steps()
    one.append(purges(1), 0.0)
    steps = steps.plus(start, one.since(start))
    steps = steps.plus(one.mark, two.since(one.mark))
    assert steps.since(start) is None
    known = steps.since(one.mark)
    assert known is not None
    assert (known.whole, known.mark) == (True, two.mark)
    last = two.mark
    two.append(purges(2), 0.0)
    steps = steps.plus(last, two.since(last))
    known = steps.since(one.mark)
    assert known == two.since(last)._replace(whole=True)


@given(st.lists(st.one_of(st.integers(1, 6), st.just("clear")), max_size=12))
def test_whoever_follows_the_steps_stands_where_the_journal_does(moves):
    journal, steps = Journal(limit=8), Steps()
    mark, marks = journal.mark, [journal.mark]
    followers = {mark: PurgeIndex()}
    followers[mark].follow(journal.since(None))
    for number, move in enumerate(moves):
        if move == "clear":
            journal.restart()
        else:
            journal.append([Purge(Kind.URL, f"p/{(number + n) % 5}") for n in range(move)], 0.0)
        steps = steps.plus(mark, journal.since(mark))
        mark = journal.mark
        marks.append(mark)
        followers[mark] = PurgeIndex()
        followers[mark].follow(journal.since(None))
    truth = PurgeIndex()
    truth.follow(journal.since(None))
    for base, follower in followers.items():
        known = steps.since(base)
        if known is None:
            continue
        follower.follow(known)
        assert follower.mark == journal.mark
        for born in marks:
            for path in range(5):
                asked = (born, f"/{path}\0\0h\0http", ())
                assert follower.verdict(*asked) is truth.verdict(*asked)
