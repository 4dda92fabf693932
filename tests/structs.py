"""What tests break on purpose, and what cannot be broken in the compiled build.

There some classes are structs (the .pxd files say which). Nothing can be put in place of their methods, nor
of the class in the modules that use it: what tests that is told of the build in Python.
"""

import pytest

from wsgicache import fill

COMPILED = not fill.__file__.endswith(".py")
_IMMUTABLE = 1 << 8
"""`Py_TPFLAGS_IMMUTABLETYPE`."""


def replace(monkeypatch, owner, name, value):
    """Put something in place of an attribute, or skip the test where nothing can be."""
    skip_a_struct(owner, name)
    monkeypatch.setattr(owner, name, value)


def skip_a_struct(owner, name):
    """Skip the test where nothing can be put in place of this attribute."""
    fixed = isinstance(owner, type) and owner.__flags__ & _IMMUTABLE
    if COMPILED and (fixed or not hasattr(owner, name)):
        pytest.skip(f"{name} of {owner.__name__} is fixed in the compiled build")
