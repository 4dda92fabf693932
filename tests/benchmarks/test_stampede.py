"""The stampede benchmark runs and counts right. How long anybody waits is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


TINY = ("--clients", "4", "--rounds", "1", "--view-seconds", "0.2")


def stampede(tmp_path: Path, *arguments: str) -> tuple[str, dict[tuple[str, str], dict[str, Any]]]:
    """Output and rows of a tiny stampede."""
    report = tmp_path / "run.json"
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "stampede.py")]
    command += [*TINY, *arguments, "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "view runs" in done.stdout
    rows = json.loads(report.read_text())["rows"]
    return done.stdout, {(row["site"], row["kind"]): row for row in rows}


def test_a_tiny_stampede(tmp_path: Path) -> None:
    output, rows = stampede(tmp_path, "--processes", "1", "--threads", "8", "--sites", "bare,wsgicache")
    assert output.count("met    ") + output.count("NOT met") == 4
    assert [rows["bare", kind]["runs"] for kind in ("cold", "plain", "window")] == [[4], [4], [4]]
    assert [rows["wsgicache", kind]["runs"] for kind in ("cold", "plain", "window")] == [[1], [1], [1]]
    assert all(len(row["waits"]) == 4 and row["wrong"] == 0 for row in rows.values())
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows.values())


@pytest.mark.parametrize("store", ["lmdb", "redis"])
def test_one_view_run_in_all_processes(store: str, tmp_path: Path) -> None:
    pytest.importorskip(store)
    site = f"wsgicache-{store}"
    output, rows = stampede(tmp_path, "--processes", "2", "--threads", "4", "--sites", site)
    if not rows:
        pytest.skip(output[output.index("skipped") :])
    assert [rows[site, kind]["runs"] for kind in ("cold", "plain", "window")] == [[1], [1], [1]]
    assert all(row["wrong"] == 0 for row in rows.values())
    assert output.count("met      7  one view run in all") == 3


def test_an_unknown_site_is_refused() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "stampede.py"), "--sites", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "choose from bare, flask-caching, flask-caching-redis, wsgicache, wsgicache-lmdb" in done.stderr
