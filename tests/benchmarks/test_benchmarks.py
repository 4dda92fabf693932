"""The benchmarks run and print what they promise. How fast anything is, is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks"
TINY = ("--rounds", "2", "--number", "4")

OWN_ROWS = {
    "bare",
    "hit",
    "hit-strings",
    "hit-rules",
    "hit-vary",
    "hit-cookie",
    "hit-proxy",
    "hit-304",
    "hit-range",
    "hit-head",
    "hit-early",
    "hit-purges",
    "hit-counted",
    "hit-after-purge",
    "hit-first",
    "miss",
    "miss-counted",
    "miss-full",
    "miss-expired",
    "revalidate",
    "bypass-query",
    "bypass-rule",
    "bypass-post",
}


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a benchmark as a user would. Django has one set-up per process: not in this one."""
    command = [sys.executable, "-W", "error", str(SCRIPTS / script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)


def table_rows(output: str) -> list[str]:
    """The lines of the one table: from below its rule to the first empty line or other text."""
    lines = output.splitlines()
    rule = next(number for number, line in enumerate(lines) if line.startswith("---"))
    width = len(lines[rule])
    rows = []
    for line in lines[rule + 1 :]:
        if len(line) != width:
            break
        rows.append(line)
    return rows


@pytest.fixture(scope="module")
def inprocess(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Output and JSON of one tiny run of every row."""
    report = tmp_path_factory.mktemp("inprocess") / "run.json"
    done = run("inprocess.py", *TINY, "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, json.loads(report.read_text(encoding="utf-8"))


def test_every_row_of_our_own_is_measured(inprocess: tuple[str, dict[str, Any]]) -> None:
    assert set(inprocess[1]["rows"]) >= OWN_ROWS
    assert inprocess[1]["wrong"] == []


def test_rows_not_measured_are_named(inprocess: tuple[str, dict[str, Any]]) -> None:
    output, found = inprocess
    for reason, keys in found["skipped"].items():
        assert f"skipped, not installed ({reason}): {', '.join(keys)}" in output


def test_each_row_has_its_numbers(inprocess: tuple[str, dict[str, Any]]) -> None:
    for row in inprocess[1]["rows"].values():
        assert row["rounds"] == 2
        assert 1 <= row["calls_per_round"] <= 10
        assert {"median_us", "min_us", "spread_us", "over_bare_us", "ratio_to_bare"} < set(row)


def test_the_table_is_aligned_and_complete(inprocess: tuple[str, dict[str, Any]]) -> None:
    output, found = inprocess
    rows = table_rows(output)
    assert len(rows) == len(found["rows"])
    assert [row.split("  ")[0] or row.split("  ")[1] for row in rows] == [
        row["label"] for row in found["rows"].values()
    ]


def test_versions_and_processor_come_first(inprocess: tuple[str, dict[str, Any]]) -> None:
    lines = inprocess[0].splitlines()
    assert lines[0].startswith("python ")
    assert "wsgicache " in lines[0]
    assert lines[1] == inprocess[1]["cpu"]


def test_goals_are_judged(inprocess: tuple[str, dict[str, Any]]) -> None:
    output, found = inprocess
    judged = {(goal["goal"][0], goal["row"]) for goal in found["goals"]}
    assert {("1", "hit"), ("6", "miss"), ("6", "bypass-query")} <= judged
    verdicts = [line for line in output.splitlines() if line.startswith(("met ", "NOT met "))]
    assert len(verdicts) == len(found["goals"])
    for goal in found["goals"]:
        assert goal["met"] is (goal["ratio"] >= 1)


def test_only_chooses_rows_and_keeps_bare() -> None:
    done = run("inprocess.py", *TINY, "--only", "hit-vary,bypass")
    assert done.returncode == 0, done.stdout + done.stderr
    labels = [row.strip().split("  ")[0] for row in table_rows(done.stdout)]
    assert labels[:2] == ["bare constant WSGI app", "hit, Vary: Accept-Encoding"]
    assert len(labels) == 5


@pytest.mark.parametrize("meter", ["rss", "tracemalloc"])
def test_memory(meter: str, tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    settings = ("--entries", "300", "--body", "200", "--measure", meter, "--json", str(report))
    done = run("memory.py", *TINY, *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text(encoding="utf-8"))
    assert found["entries"] == 300
    assert {"stored_beside_body_bytes", "asked_beside_body_bytes"} < set(found)
    assert 0 < found["peak_bytes"] <= found["max_bytes"]
    assert set(found["hits_us"]) == {"hit-100", "hit-300", "dict-100", "dict-300"}
    assert len(table_rows(done.stdout)) == 4
    assert f"measured by {meter}" in done.stdout


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """Output and JSON of one tiny run over every store."""
    report = tmp_path_factory.mktemp("stores") / "run.json"
    done = run("stores.py", *TINY, "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, json.loads(report.read_text(encoding="utf-8"))


STORE_ROWS = {
    "lmdb": {"lmdb-get", "lmdb-hit"},
    "redis": {"redis-get", "redis-hit", "redis-near", "redis-flask-caching", "redis-django"},
    "memcached": {"memcached-get", "memcached-hit", "memcached-flask-caching", "memcached-django"},
}


def test_every_store_is_measured_or_named(stores: tuple[str, dict[str, Any]]) -> None:
    output, found = stores
    assert found["wrong"] == []
    missing = {what.partition(":")[0] for what in found["skipped"]}
    for server, rows in STORE_ROWS.items():
        assert server in missing or rows <= set(found["rows"]) | missing
    assert {"bare", "memory-hit"} <= set(found["rows"])
    for what in found["skipped"]:
        assert f"skipped, not installed: {what}" in output


def test_each_is_compared_with_a_plain_get_of_its_store(stores: tuple[str, dict[str, Any]]) -> None:
    output, found = stores
    for key, row in found["rows"].items():
        server = key.partition("-")[0]
        assert row["plain"] == (f"{server}-get" if server in STORE_ROWS else None)
    assert len(table_rows(output)) == len(found["rows"])
    assert "redis-server " in output.splitlines()[0]


def test_goals_of_stores_are_judged(stores: tuple[str, dict[str, Any]]) -> None:
    output, found = stores
    assert "memory-hit" in {goal["row"] for goal in found["goals"]}
    for goal in found["goals"]:
        assert goal["met"] is (goal["over"] <= goal["bound"])
    verdicts = [line for line in output.splitlines() if line.startswith(("met ", "NOT met "))]
    assert len(verdicts) == len(found["goals"])


def test_only_the_servers_that_are_asked_for_are_started() -> None:
    done = run("stores.py", *TINY, "--only", "lmdb")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lmdb: get" in done.stdout
    assert "redis://" not in done.stdout


def test_what_is_not_installed_is_named_with_the_remedy(tmp_path: Path) -> None:
    """Nothing is on the path: the servers are not found, and the rest is measured."""
    command = [sys.executable, "-W", "error", str(SCRIPTS / "stores.py"), *TINY]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "skipped, not installed: redis: redis-server: apt-get install redis-server" in done.stdout
    assert "skipped, not installed: memcached: memcached: apt-get install memcached" in done.stdout
    assert "memory://: hit" in done.stdout


def test_large_bodies_stay_out_of_memory(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    pytest.importorskip("lmdb")
    numbers = tmp_path / "numbers.json"
    done = run("big_bodies.py", "--sizes", "3", "--rounds", "1", "--clients", "1", "--json", str(numbers))
    assert done.returncode == 0, done.stderr
    assert len(table_rows(done.stdout)) == 5
    assert [one["row"] for one in json.loads(numbers.read_text())] == [
        "memory", "file", "blocks", "lmdb", "lmdb-file",
    ]  # fmt: skip
