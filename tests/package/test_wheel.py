"""The wheel that users install: what is in it, what it declares, and that it works."""

import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LEFT_OUT = shutil.ignore_patterns(
    ".*", "__pycache__", "*.egg-info", "build", "dist", "instance", "*.sqlite3", "*.so"
)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def build(folder, **environ):
    """A wheel, built from a copy, so that nothing is left behind in the repository. Earlier builds have left
    a module in the copy."""
    shutil.copytree(ROOT, folder / "source", ignore=LEFT_OUT)
    for platform in ("", f".{sysconfig.get_platform()}-{sys.implementation.cache_tag}"):
        left = folder / "source" / "build" / f"lib{platform}" / "wsgicache"
        left.mkdir(parents=True)
        (left / "left_over.py").touch()
    done = subprocess.run(
        [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, "./source"],
        cwd=folder,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return file


def install(wheel, site):
    subprocess.run(
        [*PIP, "install", "--quiet", "--no-deps", "--no-index", "--target", site, wheel], check=True
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"), WSGICACHE_COMPILED="")


@pytest.fixture(scope="module")
def archive(wheel):
    with zipfile.ZipFile(wheel) as archive:
        yield archive


@pytest.fixture(scope="module")
def names(archive):
    return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.fixture(scope="module")
def declared(archive, names):
    """The METADATA of the wheel."""
    (name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(archive.read(name))


def test_every_module_is_in_it_and_no_stray_file(names):
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "wsgicache").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".so"
    }
    assert {name for name in names if ".dist-info/" not in name} == package


def test_its_information_directory_holds_what_it_should(names):
    assert {name.split(".dist-info/")[1] for name in names if ".dist-info/" in name} == {
        "METADATA",
        "WHEEL",
        "RECORD",
        "entry_points.txt",
        "top_level.txt",
        "licenses/LICENSE",
    }


def test_it_is_marked_as_typed(archive):
    assert archive.read("wsgicache/py.typed") == b""


def test_it_is_one_wheel_for_every_platform(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_its_entry_points(archive, names):
    (name,) = (name for name in names if name.endswith("entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(archive.read(name).decode())
    assert points["paste.filter_factory"]["main"] == "wsgicache.paste:filter_factory"
    assert points["paste.filter_app_factory"]["main"] == "wsgicache.paste:filter_app_factory"


def test_it_declares_its_extras(declared):
    assert set(declared.get_all("Provides-Extra")) == set(PROJECT["optional-dependencies"])
    assert {"paste", "examples", "test", "check"} <= set(PROJECT["optional-dependencies"])


def test_without_an_extra_it_needs_only_what_the_core_imports(declared):
    always = [line for line in declared.get_all("Requires-Dist") if "extra ==" not in line]
    assert [line.replace(" ", "") for line in always] == PROJECT["dependencies"]


def test_it_says_what_it_is(declared):
    assert declared["Name"] == "wsgicache"
    assert declared["Requires-Python"] == ">=3.11"
    assert declared["License-Expression"] == "MIT"
    assert declared["Description-Content-Type"] == "text/markdown"
    assert declared.get_payload().startswith("# wsgicache\n")


def test_installed_by_itself_it_imports_and_its_entry_points_load(wheel, tmp_path):
    install(wheel, tmp_path / "site")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
from importlib.metadata import distribution
from pathlib import Path
import wsgicache
assert Path(wsgicache.__file__).is_relative_to({str(tmp_path)!r}), wsgicache.__file__
installed = distribution("wsgicache")
assert Path(installed.locate_file("")).resolve() == Path({str(tmp_path / "site")!r}).resolve()
assert installed.version == wsgicache.__version__
for point in installed.entry_points:
    assert callable(point.load())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, check=True)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ("yes", "WSGICACHE_COMPILED is 1, twin or 0, not 'yes'"),
        ("1", "say WSGICACHE_COMPILED=twin in a checkout"),
        ("twin", "takes a C compiler and Python's headers"),
    ],
)
def test_what_cannot_be_compiled_or_should_not_says_so(tmp_path, wanted, told):
    shutil.copytree(ROOT, tmp_path / "source", ignore=LEFT_OUT)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=tmp_path / "source",
        env={**os.environ, "WSGICACHE_COMPILED": wanted, "CC": "/no/compiler"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert told in done.stderr
    assert not [*(tmp_path / "source").rglob("*.so")]


@pytest.mark.parametrize(
    "other", ["sys.implementation.name = 'pypy'", "sysconfig.get_config_var = {'Py_GIL_DISABLED': 1}.get"]
)
def test_pythons_that_it_is_not_for_are_told_at_once(other):
    code = f"import runpy, sys, sysconfig; {other}; runpy.run_path('setup.py')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "WSGICACHE_COMPILED": "1"},
        capture_output=True,
        text=True,
    )
    assert "for CPython with its lock: leave WSGICACHE_COMPILED out" in done.stderr


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_what_is_compiled_is_in_it_where_that_is_asked_for(tmp_path):
    """The twin alone, which takes a second: `scripts/test-compiled` makes the whole build."""
    wheel = build(tmp_path, WSGICACHE_COMPILED="twin")
    assert not wheel.name.endswith("-any.whl")
    install(wheel, tmp_path / "site")
    package = tmp_path / "site" / "wsgicache"
    assert not (package / "left_over.py").exists()
    (compiled,) = [*package.rglob("*.so"), *package.rglob("*.pyd")]
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path / "site")!r})
from wsgicache import WSGICache, hitpath
assert hitpath.twin.__file__ == {str(compiled)!r}
assert hitpath.COMPILED and issubclass(WSGICache, hitpath.CompiledHitPath)
"""
    environ = {name: value for name, value in os.environ.items() if name != "WSGICACHE_COMPILED"}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environ, check=True)


def test_every_module_to_be_compiled_is_there():
    """`MODULES` of setup.py, without running it."""
    names = re.search(r"^MODULES = \((.*?)^\)", (ROOT / "setup.py").read_text(), re.DOTALL | re.MULTILINE)[1]
    modules = [name.replace(".", "/") for name in re.findall(r'"(.+?)"', names)]
    assert len(modules) > 30
    assert [name for name in modules if not (ROOT / "wsgicache" / f"{name}.py").exists()] == []


def test_the_version_is_stated_once(declared):
    version = (ROOT / "wsgicache" / "_version.py").read_text()
    assert f'"{declared["Version"]}"' in version
    assert "version" in PROJECT["dynamic"]
