"""One command runs the benchmarks and makes the performance page from what they found."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks"
PAGE = ROOT / "docs" / "performance.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module that fills the page."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("_page")


def test_the_page_is_what_the_results_give(page: Any) -> None:
    """Tables are made, never written: making them again changes nothing."""
    results = {path.stem: json.loads(path.read_text()) for path in (SCRIPTS / "results").glob("*.json")}
    text = PAGE.read_text(encoding="utf-8")
    assert page.fill(text, {name: results[name] for name in sorted_as_run(results)}) == text


def sorted_as_run(results: dict[str, Any]) -> list[str]:
    """Names in the order in which the command reads them."""
    order = re.findall(r'^    "(\w+)": \(\[', (SCRIPTS / "all.py").read_text(encoding="utf-8"), re.MULTILINE)
    return [name for name in order if name in results]


def test_a_page_without_its_markers_is_refused(page: Any) -> None:
    with pytest.raises(page.Unmarked, match="expected machine, goals"):
        page.fill(PAGE.read_text(encoding="utf-8").replace("begin startup", "begin nothing"), {})


def test_one_command_runs_draws_and_judges(tmp_path: Path) -> None:
    tiny = ["--quick", "--only", "startup,memory", "--results", str(tmp_path)]
    command = [sys.executable, str(SCRIPTS / "all.py"), *tiny]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    made = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| import wsgicache | " in made
    assert "| 2,000 | " in made
    assert re.search(r"=== goals: \d of 3 met", done.stdout)
    assert "| 8 bounded by bytes | " in made
    assert {path.stem for path in tmp_path.glob("*.json")} == {"startup", "memory"}


def test_a_mistyped_name_is_refused() -> None:
    command = [sys.executable, str(SCRIPTS / "all.py"), "--only", "overhtp"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert done.returncode == 2
    assert "choose from inprocess, compiled, stores, flask_cached" in done.stderr
