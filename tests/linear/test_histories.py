"""The checker itself: it sees what is wrong, and nothing else."""

import pytest
from histories import Asked, Purged, read, violations, write


def purged(ended, version, *, soft=False, page="/a"):
    return Purged(ended - 1, ended, "url", soft, {page: version})


def asked(began, version, *, fresh=True, page="/a"):
    return Asked(began, began + 1, page, version, fresh, "wsgicache; hit")


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ([purged(10, 2), asked(11, 1)], 1),
        ([asked(11, 1), purged(10, 2)], 1),
        ([purged(10, 2), asked(11, 2)], 0),
        ([purged(10, 2), asked(11, 3)], 0),
        ([purged(10, 2), asked(10, 1)], 0),
        ([purged(10, 2), asked(9, 1)], 0),
        ([purged(10, 2), asked(11, 1, page="/b")], 0),
        ([purged(10, 2, soft=True), asked(11, 1)], 1),
        ([purged(10, 2, soft=True), asked(11, 1, fresh=False)], 0),
        ([purged(10, 2), asked(11, 1, fresh=False)], 1),
        ([purged(10, 3), purged(20, 2), asked(21, 2)], 1),
        ([purged(10, 3, soft=True), purged(20, 2), asked(21, 2, fresh=False)], 0),
    ],
)
def test_what_is_wrong(events, wrong):
    assert len(violations(events)) == wrong


def test_slack_is_for_a_while():
    events = [purged(10, 2), asked(10.5, 1), asked(11.5, 1)]
    assert [event.began for event, _ in violations(events, slack=1)] == [11.5]


def test_a_history_survives_the_end_of_its_process(tmp_path):
    path = tmp_path / "a"
    with path.open("w") as file:
        for event in (purged(10, 2), asked(11, 1)):
            write(file, event)
        file.write('["Asked", {"began": 1')
    assert read([path]) == [purged(10, 2), asked(11, 1)]
