"""The compiled build of this checkout, unpacked beside it, for what compares it with the plain one.

python benchmarks/_build.py DIRECTORY       # put DIRECTORY first on PYTHONPATH to use it
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from _servers import Missing

ROOT = Path(__file__).resolve().parents[1]
SWITCH = "WSGICACHE_COMPILED"


def compiled_build() -> Path:
    """Return a directory that holds the compiled package; it is made anew when a source has changed.

    Raises:
        Missing: there is no Cython, or no C compiler.
    """
    written = [path for kind in ("py", "pxd", "c") for path in sorted(ROOT.glob(f"wsgicache/**/*.{kind}"))]
    sources = [ROOT / "setup.py", *written]
    known = hashlib.sha256(b"\0".join([sys.version.encode(), *[source.read_bytes() for source in sources]]))
    directory = ROOT / "build" / f"compiled-{known.hexdigest()[:16]}"
    if not directory.exists():
        make(directory)
    return directory


def choose(build: str) -> None:
    """Have this process import the `python` build or the `compiled` one, from now on.

    Raises:
        Missing: the compiled one cannot be made.
    """
    if build == "compiled":
        sys.path.insert(0, str(compiled_build()))
        os.environ.pop(SWITCH, None)
        fill = import_module("wsgicache.fill")
        if Path(str(fill.__file__)).suffix == ".py":
            raise RuntimeError(f"not the compiled build, but what was imported before it: {fill.__file__}")
    else:
        os.environ[SWITCH] = "0"


def make(directory: Path) -> None:
    """Build the package and unpack it. It takes a minute or two.

    Raises:
        Missing: there is no Cython, or no C compiler.
        RuntimeError: it does not compile.
    """
    if find_spec("Cython") is None:
        raise Missing("cython: pip install cython")
    if shutil.which(os.environ.get("CC", "cc")) is None:
        raise Missing("a C compiler: apt-get install gcc")
    parts = directory.with_name(directory.name + ".parts")
    shutil.rmtree(parts, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(parts), str(ROOT)])
    (wheel,) = parts.glob("*.whl")
    _run([*pip, "install", "--no-deps", "--no-index", "--target", str(parts / "site"), str(wheel)])
    (parts / "site").rename(directory)
    shutil.rmtree(parts)


def _run(command: list[str]) -> None:
    done = subprocess.run(
        command, env={**os.environ, SWITCH: "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the compiled build failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    make(Path(sys.argv[1]).absolute())
