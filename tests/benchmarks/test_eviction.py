"""The eviction benchmark runs, says what it promises, and its yardsticks measure right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks"

LOG = """\
h - - [17/May/2015:10:05:03 +0000] "GET /a HTTP/1.1" 200 9000
h - - [17/May/2015:10:05:04 +0000] "GET /a HTTP/1.1" 304 -
h - ann o [17/May/2015:10:05:05 +0000] "GET /b?x=1 HTTP/1.0" 200 70000 "-" "Browser"
h - - [17/May/2015:10:05:06 +0000] "POST /a HTTP/1.1" 200 9000
h - - [17/May/2015:10:05:07 +0000] "GET /no HTTP/1.1" 404 300
h - - [17/May/2015:10:05:08 +0000] "GET /film HTTP/1.1" 200 90000000
broken
h - - [17/May/2015:10:05:09 +0000] "GET /a HTTP/1.1" 200 8000
"""


@pytest.fixture(scope="module")
def eviction() -> Any:
    """The script's modules, imported as the script itself does."""
    sys.path.insert(0, str(SCRIPTS))
    try:
        import _evictors
        import _traces
        import eviction
    finally:
        sys.path.remove(str(SCRIPTS))
    return eviction, _evictors, _traces


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", str(SCRIPTS / "eviction.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)


def test_a_tiny_run(tmp_path: Path) -> None:
    report, log = tmp_path / "run.json", tmp_path / "access.log"
    log.write_text(LOG)
    done = run(
        "--only", "web,scanner", "--requests", "2000", "--log", str(log),
        "--json", str(report),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(report.read_text(encoding="utf-8"))
    assert set(found["traces"]) == {"web", "scanner", "log"}
    for trace in ("web", "scanner"):
        ratios = found["traces"][trace]["hit_ratio"]
        assert set(ratios) == {"fifo", "lru", "sieve", "memory", "best"}
        assert all(0 < ratio < 1 for curve in ratios.values() for ratio in curve.values())
        for share, ratio in ratios["best"].items():
            assert ratio >= max(ratios[key][share] for key in ratios) - 0.01
    assert found["traces"]["log"]["requests"] == 5
    assert "access log access.log: 5 requests" in done.stdout
    kept = {goal["goal"]: goal["met"] for goal in found["goals"]}
    assert kept["404s push no popular page out of memory"]
    assert kept["one-hit wonders push no popular page out of memory"]
    assert done.stdout.count("met      ") + done.stdout.count("NOT met  ") == len(found["goals"]) == 5


def test_the_plot_is_drawn_or_what_is_missing_is_named(tmp_path: Path) -> None:
    drawn = tmp_path / "curves.svg"
    tiny = ("--only", "web", "--requests", "2000", "--plot")
    done = run(*tiny, str(drawn))
    assert (done.returncode, done.stderr) == (0, "")
    if drawn.exists():
        assert f"plot: {drawn}" in done.stdout
        assert drawn.read_text(encoding="utf-8").startswith("<?xml")
    else:
        assert "no plot: matplotlib is not installed" in done.stdout


def test_without_matplotlib_the_rest_is_measured(
    eviction: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, _, _ = eviction
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = script.plot(script.Run([], {}, {}), tmp_path / "curves.svg")
    assert said == "no plot: matplotlib is not installed: pip install 'wsgicache[bench]'"
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_trace_is_refused() -> None:
    done = run("--only", "web,nothing")
    assert done.returncode == 2
    assert "--only nothing: choose from zipf-0.7" in done.stderr


def test_a_log_that_is_none_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "other.log"
    log.write_text("something else\n")
    done = run("--only", "none", "--log", str(log))
    assert done.returncode == 1
    assert "other.log: no GET in the Common Log Format" in done.stderr


def test_the_same_seed_makes_the_same_trace(eviction: Any) -> None:
    _, _, traces = eviction
    for make in traces.MADE_UP.values():
        one, other = make(800), make(800)
        assert len(one.requests) == 800
        assert [page.key for page in one.requests] == [page.key for page in other.requests]
        assert [page.cost for page in one.requests] == [page.cost for page in other.requests]
        assert all(page.cost > len(page.entry.body) for page in one.requests)


def hits(script: Any, evictor: Any, traces: Any, text: str) -> float:
    """The hit ratio of an evictor for pages of a thousand bytes, named by letters."""
    maker = traces.Maker()
    pages = {letter: maker.page(f"/{letter}", 1000) for letter in text}
    requests = [pages[letter] for letter in text]
    cost = next(iter(pages.values())).cost
    ratio: float = script.play(traces.Trace("t", "t", requests), evictor(2 * cost, requests))[0]
    return ratio * len(text)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("Lru", "abacab", 2),  # c takes the place of b, and b that of c
        ("Fifo", "abacab", 1),  # c takes the place of a
        ("PlainSieve", "abacab", 2),
        ("Best", "abacab", 3),  # c is not let in
        ("Best", "abcabc", 2),
        ("Lru", "abcabc", 0),
    ],
)
def test_the_yardsticks_on_requests_counted_by_hand(eviction: Any, name: str, text: str, wanted: int) -> None:
    script, evictors, traces = eviction
    made = getattr(evictors, name)

    def evictor(max_bytes: int, requests: Any) -> Any:
        return made(max_bytes, requests) if name == "Best" else made(max_bytes)

    assert hits(script, evictor, traces, text) == pytest.approx(wanted)
