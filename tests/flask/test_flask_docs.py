"""docs/flask.md and the benchmark are true."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cachelib
import pytest

from wsgicache.flask import backends
from wsgicache.flask.backends.base import abilities_of
from wsgicache.flask.contrib.uwsgicache import UWSGICache
from wsgicache.flask.settings import DEFAULTS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "flask.md").read_text()
OURS = list(DEFAULTS)[list(DEFAULTS).index("CACHE_SAFE_VIEWS") :]


@pytest.mark.parametrize("name", OURS)
def test_every_setting_of_our_own_is_described_with_its_default(name):
    (default,) = re.findall(rf"^\| `{name}` \| `?(.+?)`? \|", PAGE, re.M)
    assert default.strip('"') == str(DEFAULTS[name])


MATRIX = PAGE[PAGE.index("## What each backend") : PAGE.index("## Timeouts")]


def class_by_name(name):
    if name == "UWSGICache":
        return UWSGICache
    if name == "GoogleCloudStorageCache":
        pytest.importorskip("google.cloud.storage", reason="google-cloud-storage is not installed")
        from wsgicache.flask.contrib.googlecloudstoragecache import GoogleCloudStorageCache

        return GoogleCloudStorageCache
    return getattr(backends, name)


@pytest.mark.parametrize(
    "name", [name for name in backends.__all__ if name not in ("BaseCache", "GAEMemcachedCache", "NullCache")]
    + ["UWSGICache", "GoogleCloudStorageCache"],
)  # fmt: skip
def test_the_matrix_says_what_the_backend_says(name):
    (row,) = [line for line in MATRIX.splitlines() if re.match(rf"\|[\w ,]*\b{name}\b[\w ,]*\|", line)]
    shared, add, leases, inc = [cell.strip() for cell in row.split("|")[2:6]]
    abilities = class_by_name(name).abilities
    said = (shared != "no", add.startswith("yes"), inc.startswith("yes"))
    assert said == (abilities.shared, abilities.atomic_add, abilities.atomic_inc)
    assert leases.startswith("yes") == abilities.leases
    told = row.split("|")[9].strip()
    kind = class_by_name(name)
    assert {"both": (True, True), "`ttl`": (True, False), "no": (False, False)}[told] == (
        hasattr(kind, "ttl"),
        hasattr(kind, "names"),
    )


def test_the_matrix_says_what_is_known_of_a_stranger():
    (row,) = [line for line in MATRIX.splitlines() if "by dotted path" in line and line.startswith("|")]
    abilities = abilities_of(cachelib.BaseCache())
    assert [cell.strip() for cell in row.split("|")[3:5]] == ["no", "no"]
    assert not abilities.atomic_add
    assert not abilities.leases


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
