"""docs/flask.md and the benchmark are true."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from wsgicache.flask import backends
from wsgicache.flask.settings import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "flask.md").read_text()
OURS = list(DEFAULTS)[list(DEFAULTS).index("CACHE_SAFE_VIEWS") :]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_our_own_is_described_with_its_default(name):
    (default,) = re.findall(rf"^\| `{name}` \| `?(.+?)`? \|", PAGE, re.M)
    assert default.strip('"') == str(DEFAULTS[name])


@pytest.mark.parametrize("name", ["SimpleCache", "FileSystemCache", "RedisCache", "MemcachedCache"])
def test_the_matrix_says_what_the_backend_says(name):
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| {name}"))
    shared, add, inc = [cell.strip() for cell in row.split("|")[2:5]]
    abilities = getattr(backends, name).abilities
    assert (shared != "no", add.startswith("yes"), inc.startswith("yes")) == abilities[:3]


@pytest.mark.skipif(
    find_spec("flask_caching") is None, reason="Flask-Caching, the other side, is not installed"
)
def test_the_benchmark_runs():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "flask_cached.py"), "--rounds", "1"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall(r"^SimpleCache .*x$", ran.stdout, re.M)) == 4
