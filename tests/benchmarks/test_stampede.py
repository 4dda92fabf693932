"""The stampede benchmark runs and counts right. How long anybody waits is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_a_tiny_stampede(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    settings = ("--clients", "4", "--threads", "8", "--rounds", "1", "--view-seconds", "0.2")
    command = [sys.executable, "-W", "error", str(ROOT / "benchmarks" / "stampede.py")]
    command += [*settings, "--sites", "bare,wsgicache", "--json", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "view runs" in done.stdout
    assert done.stdout.count("met    ") + done.stdout.count("NOT met") == 4
    rows = {(row["site"], row["kind"]): row for row in json.loads(report.read_text())["rows"]}
    assert [rows["bare", kind]["runs"] for kind in ("cold", "plain", "window")] == [[4], [4], [4]]
    assert [rows["wsgicache", kind]["runs"] for kind in ("cold", "plain", "window")] == [[1], [1], [1]]
    assert all(len(row["waits"]) == 4 and row["wrong"] == 0 for row in rows.values())
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in rows.values())


def test_an_unknown_site_is_refused() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "stampede.py"), "--sites", "nobody"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "choose from bare, flask-caching, wsgicache" in done.stderr
