"""Random traffic through wsgicache and through other caches: where they part ways, a checked-in list says
who is right and why.

`TRAFFIC_SEED=7 scripts/test tests/origin/test_differential.py` tries another seed.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from origin_peers import PEERS, cache, program
from origin_traffic import REQUEST, RESPONSE, Case, Step, Traffic, TrafficOrigin, cases, drive

LIST = tomllib.loads(Path(__file__).with_name("differential_differences.toml").read_text(encoding="utf-8"))
DIFFERENCES: list[dict[str, Any]] = LIST["difference"]

USUAL_SEED = 2843
SEED = int(os.environ.get("TRAFFIC_SEED", USUAL_SEED))
COUNT = 1200


class Run:
    """One run of the traffic: what became of each request, by cache and case."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self.found: dict[str, dict[int, list[Step]]] = {}

    def first_differences(self, peer: str) -> Iterator[tuple[Case, int, Step, Step]]:
        """The first request of each case at which a peer did something else."""
        for case in self.traffic.cases:
            pairs = zip(self.found["wsgicache"][case.number], self.found[peer][case.number], strict=True)
            for step, (ours, theirs) in enumerate(pairs):
                if ours != theirs:
                    yield case, step, ours, theirs
                    break


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The traffic through wsgicache and whatever else is installed, one after the other."""
    directory = tmp_path_factory.mktemp("caches")
    run = Run(Traffic(list(cases(SEED, COUNT))))
    with ExitStack() as stack:
        origin = TrafficOrigin(run.traffic)
        stack.callback(origin.close)
        names = ["wsgicache", *(name for name, (binary, _) in PEERS.items() if program(binary))]
        ports = {name: stack.enter_context(cache(name, origin.port, directory / name)) for name in names}
        for name, port in ports.items():
            run.found[name] = drive(name, port, run.traffic)
    return run


def covers(difference: dict[str, Any], peer: str, tags: frozenset[str], ours: Step, theirs: Step) -> bool:
    """Whether an entry of the list is about a difference."""
    return (
        peer in difference["caches"]
        and tags.issuperset(difference.get("all", ()))
        and ("any" not in difference or not tags.isdisjoint(difference["any"]))
        and str(ours).startswith(difference["ours"])
        and str(theirs).startswith(difference["theirs"])
    )


@pytest.mark.parametrize("peer", PEERS)
def test_every_difference_is_in_the_list(run: Run, peer: str) -> None:
    binary = PEERS[peer][0]
    if peer not in run.found:
        pytest.skip(f"{binary} is not installed, so there is nothing to compare with: apt-get install {peer}")
    used: set[int] = set()
    unexplained: list[str] = []
    for case, step, ours, theirs in run.first_differences(peer):
        tags = case.tags(step)
        found = [number for number, one in enumerate(DIFFERENCES) if covers(one, peer, tags, ours, theirs)]
        used.update(found)
        if not found:
            lines = [request.headers for request in case.requests[: step + 1]]
            unexplained.append(f"{sorted(tags)}: {ours}, {peer} {theirs}; {case.response.headers} {lines}")
    assert unexplained == []
    if SEED == USUAL_SEED and LIST["triaged"][peer] in version(binary):
        expected = [n for n, one in enumerate(DIFFERENCES) if peer in one["caches"] and "rare" not in one]
        unused = {DIFFERENCES[number]["reason"] for number in expected if number not in used}
        assert unused == set()


def version(binary: str) -> str:
    """What a server says of itself."""
    done = subprocess.run(
        [str(program(binary)), "-V"], capture_output=True, text=True, check=False, timeout=20
    )
    return re.sub(r"revision.*", "", done.stdout + done.stderr)


def test_most_traffic_is_answered_alike(run: Run) -> None:
    """Were it not, the comparison would say little: few cases would be looked at to their end."""
    for peer in run.found.keys() - {"wsgicache"}:
        differing = sum(1 for _ in run.first_differences(peer))
        assert differing < COUNT / 2


def test_cache_status_tells_whether_the_origin_was_asked(run: Run) -> None:
    """RFC 9211 §2: hit where it was not, fwd where it was, never both; a 504 of our own is neither's."""
    for case in run.traffic.cases:
        for step in run.found["wsgicache"][case.number]:
            told = step.told.split("; ")
            assert told[0] == "wsgicache"
            if "detail=ONLY_IF_CACHED" in told:
                assert (step.asked, step.status) == (False, 504)
            else:
                assert ("hit" in told) is not step.asked
                assert any(part.startswith("fwd=") for part in told) is step.asked


def test_the_traffic_reaches_every_choice() -> None:
    traffic = cases(USUAL_SEED, COUNT)
    tags = set().union(*(case.tags(step) for case in traffic for step in range(len(case.requests))))
    assert {name for choices in RESPONSE for name, _, _ in choices[1:]} <= tags
    assert {f"now: {name}" for choices in REQUEST for name, _, _ in choices[1:]} <= tags


def test_the_list_is_in_order() -> None:
    """Every entry names tags that exist, its clause, its reason, and who is right."""
    known = {name for choices in RESPONSE for name, _, _ in choices[1:]} | {"fails"}
    known |= {
        f"{when}: {name}" for when in ("now", "before") for choices in REQUEST for name, _, _ in choices
    }
    for one in DIFFERENCES:
        assert set(one["caches"]) <= set(PEERS)
        assert {*one.get("all", ()), *one.get("any", ())} <= known
        assert "all" in one or "any" in one
        assert one["ours"].split()[0] in ("cache", "origin")
        assert one["right"] in ("wsgicache", "either")
        assert re.match(r"RFC [0-9]{4} §", one["clause"])
        assert one["reason"].endswith(".")
        assert one.get("rare", True) is True
