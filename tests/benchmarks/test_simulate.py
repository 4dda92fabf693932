"""The arithmetic of docs/scaling.md is checked by a simulation, and the simulation by what it must notice."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "scaling.md"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules of the benchmarks can be imported."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "simulate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def test_sites_behave_as_the_formulas_say_and_the_document_has_their_sizes() -> None:
    done = simulate("--quick", "--only", "sites,sizes", "--table")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    for site in ("one VM", "ten servers", "hundred servers", "journal full", "store down", "asked seldom"):
        assert f"\n{site}" in done.stdout
    told = set(DOCUMENT.read_text(encoding="utf-8").splitlines())
    missing = [line for line in done.stdout.splitlines() if line.startswith("| ") and line not in told]
    assert [line for line in missing if not line.startswith(("|  | one VM |", "| --- "))] == []


def test_counts_of_lmdb_are_those_of_the_document() -> None:
    pytest.importorskip("lmdb")
    done = simulate("--only", "counts", "--stores", "lmdb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lmdb near, beat, register" in done.stdout


def test_a_count_that_differs_from_the_document_is_told(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    other = tmp_path / "scaling.md"
    text = DOCUMENT.read_text(encoding="utf-8")
    assert "| lmdb | miss | 7 |" in text
    other.write_text(text.replace("| lmdb | miss | 7 |", "| lmdb | miss | 6 |"), encoding="utf-8")
    done = simulate("--only", "counts", "--stores", "lmdb", "--document", str(other))
    assert done.returncode == 1
    assert "lmdb miss: the document says Cost(trips=6" in done.stdout


def test_an_unknown_part_is_refused_with_those_there_are() -> None:
    done = simulate("--only", "everything")
    assert done.returncode == 2
    assert "the parts are counts, journal, sites, sizes" in done.stderr


@pytest.mark.usefixtures("modules")
def test_a_simulation_that_is_off_is_noticed() -> None:
    from _formulas import Site, rates
    from _virtual import Seen
    from simulate import Scene, judge

    site = Site(100.0, 2, 500, ttl=60.0)
    scene = Scene("some", site, 0.0, 1000.0)
    seen = Seen(1000.0, requests=100_000, origin=round(1000 * rates(site).origin))
    assert next(judge(scene, seen)).agrees
    seen.origin += 3000
    assert not next(judge(scene, seen)).agrees


@pytest.mark.usefixtures("modules")
def test_the_history_ends_only_where_more_is_purged_than_remembered() -> None:
    from _formulas import Site, history

    assert history(Site(1.0, 1, 1)) == math.inf
    assert history(Site(1.0, 1, 1, purges=1000.0)) == pytest.approx(65.536)
    assert history(Site(1.0, 1, 1, purges=1000.0, catalogue=65_536)) == math.inf
    assert history(Site(1.0, 1, 1, purges=1000.0, catalogue=10**9)) == pytest.approx(65.536, rel=1e-3)


@pytest.mark.usefixtures("modules")
def test_pages_that_are_taken_together_are_all_there() -> None:
    from _formulas import spread, zipf

    grouped, single = spread(20_000, 0.9), zipf(20_000, 0.9)
    assert sum([alike.count for alike in grouped]) == 20_000
    assert sum([alike.count * alike.share for alike in grouped]) == pytest.approx(1.0)
    assert [alike.share for alike in grouped[:50]] == pytest.approx(single[:50])


@pytest.mark.usefixtures("modules")
def test_a_virtual_site_answers_with_an_old_page_only_within_the_bound() -> None:
    from _formulas import Site
    from _virtual import VirtualSite

    site = Site(200.0, 2, 20, ttl=60.0, purges=5.0, catalogue=20, near=True)
    seen = VirtualSite(site, lost=1.0).run(30.0)
    assert seen.stale > 0
    assert 0 < seen.oldest <= site.bound
