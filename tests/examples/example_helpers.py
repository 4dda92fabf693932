"""What the tests of the examples share."""

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import http_sf

with warnings.catch_warnings():
    # WebOb imports cgi, which Python 3.11 and 3.12 deprecate.
    warnings.simplefilter("ignore", DeprecationWarning)
    import webtest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
SITE_INI = EXAMPLES / "flask_site" / "site.ini"


def new_browser(app: Any) -> webtest.TestApp:
    """A browser with an empty cookie jar; WebTest's lint watches over PEP 3333."""
    return webtest.TestApp(app)


def load(file: Path) -> ModuleType:
    """Run a Python file as a module of its own; every call gives a new app and an empty cache."""
    name = f"example_{file.stem.strip('_')}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Django looks its urls up by the module's name
    with warnings.catch_warnings():
        # Pyramid imports pkg_resources, which is deprecated and says so in several ways.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        spec.loader.exec_module(module)
    return module


def decision(response: Any) -> dict[str, Any]:
    """What `Cache-Status` says of a WebTest response."""
    assert len(response.headers.getall("Cache-Status")) == 1
    return parse_status(response.headers["Cache-Status"])


def parse_status(field: str) -> dict[str, Any]:
    """The parameters of the only member of a `Cache-Status` field, as plain values."""
    ((name, parameters),) = http_sf.parse(field.encode(), tltype="list")
    assert str(name) == "wsgicache"
    return {key: value if isinstance(value, bool | int) else str(value) for key, value in parameters.items()}


def stored_miss(ttl: int = 300) -> dict[str, Any]:
    """The decision for the first request of a page that is stored."""
    return {"fwd": "uri-miss", "fwd-status": 200, "stored": True, "ttl": ttl}


def is_hit(seen: dict[str, Any], ttl: int = 300) -> bool:
    """Whether a decision is a hit on a page stored a moment ago."""
    return seen.keys() == {"hit", "ttl"} and ttl - 60 <= seen["ttl"] <= ttl


@contextmanager
def ended(process: "subprocess.Popen[str]") -> Iterator["subprocess.Popen[str]"]:
    """Make sure that a process is gone afterwards, whatever the test did."""
    with process:
        try:
            yield process
        finally:
            process.kill()
