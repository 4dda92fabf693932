"""Decorators keep signatures, for type checkers and for people who ask."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parent / "flask_typing_sample.py"


def test_mypy_accepts_what_is_right_and_refuses_what_is_wrong(tmp_path):
    pytest.importorskip("mypy", reason="mypy is not installed")
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", str(root / "setup.cfg"), "--cache-dir",
         str(tmp_path), "--no-error-summary", str(SAMPLE)],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    pattern = rf"{SAMPLE.name}:(\d+): error: .*\[([\w-]+)\]"
    refused = {(int(line), code) for line, code in re.findall(pattern, ran.stdout)}
    lines = enumerate(SAMPLE.read_text().splitlines(), 1)
    wanted = {(number, line.partition("# refused: ")[2]) for number, line in lines if "# refused: " in line}
    assert refused == wanted, ran.stdout


def test_signatures_names_and_docs_are_kept(make_cache):
    cache = make_cache()

    def f(number: int, text: str = "x") -> bytes:
        """What it does."""
        return b""

    for decorated in (cache.cached(5)(f), cache.memoize(5)(f)):
        assert inspect.signature(decorated) == inspect.signature(f)
        assert (decorated.__name__, decorated.__doc__, decorated.__wrapped__) == ("f", "What it does.", f)
        assert decorated.uncached is f
        assert decorated.cache_timeout == 5
