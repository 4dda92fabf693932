"""What pyproject.toml cannot say: the compiled hit path is built where WSGICACHE_COMPILED=1 asks for it."""

import os

from setuptools import Extension, setup

TWIN = Extension("wsgicache._compiled", ["wsgicache/_compiled.c"])

setup(ext_modules=[TWIN] if os.environ.get("WSGICACHE_COMPILED") == "1" else [])
