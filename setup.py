"""What pyproject.toml cannot say: the compiled build, made where WSGICACHE_COMPILED=1 asks for it.

It is `_compiled.c`, and by Cython the very modules that a request goes through. WSGICACHE_COMPILED=twin makes
the first alone, for a checkout: there compiled modules would hide what is changed in their sources.
"""

import os

from setuptools import Extension, setup

TWIN = "wsgicache/_compiled.c"
MODULES = (
    "answer",
    "arming",
    "capture",
    "clock",
    "collapse",
    "conditional",
    "encode",
    "engine",
    "entry",
    "environs",
    "facts",
    "fields",
    "fill",
    "follow",
    "forks",
    "forms",
    "found",
    "freshness",
    "head",
    "hints",
    "hitpath",
    "journal",
    "key",
    "observe",
    "outcome",
    "passing",
    "policy",
    "queueing",
    "ranges",
    "ready",
    "records",
    "sending",
    "settle",
    "stores.budgets",
    "stores.lmdb",
    "stores.memo",
    "stores.memory",
    "stores.segments",
    "stores.sieve",
    "tokens",
    "wsgi",
)


def extensions(wanted: str) -> list[Extension]:
    """What is compiled."""
    if wanted not in ("1", "twin"):
        return []
    twin = Extension("wsgicache._compiled", [TWIN])
    if wanted == "twin":
        return [twin]
    from Cython.Build import cythonize

    lean = [] if os.name == "nt" else ["-g0", "-O2"]  # a third of the size, two thirds of the time to build
    modules = [
        Extension(f"wsgicache.{name}", [f"wsgicache/{name.replace('.', '/')}.py"], extra_compile_args=lean)
        for name in MODULES
    ]
    # As Python would run them: an annotation is no promise that a value has exactly that type.
    same = {"language_level": 3, "annotation_typing": False}
    return [twin, *cythonize(modules, build_dir="build/cython", compiler_directives=same, quiet=True)]


setup(
    ext_modules=extensions(os.environ.get("WSGICACHE_COMPILED", "")),
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
