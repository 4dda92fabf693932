"""What pyproject.toml cannot say: the compiled build, made where WSGICACHE_COMPILED=1 asks for it.

It is `_compiled.c`, and by Cython the very modules that a request goes through; the .pxd files beside them
say which of their classes become structs, and which of their functions C calls without a detour by Python.
WSGICACHE_COMPILED=twin makes the first alone, for a checkout: there compiled modules would hide what is
changed in their sources.
"""

import os
import shutil
import sys
import sysconfig
import zlib
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

WANTED = os.environ.get("WSGICACHE_COMPILED", "")
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


class Build(build):
    """Builds from nothing: what an earlier build left here, of modules that are gone, changed or not asked
    for now, would go into the wheel as well."""

    def run(self) -> None:
        """Build."""
        shutil.rmtree(Path(self.build_lib, "wsgicache"), ignore_errors=True)
        super().run()


class BuildExt(build_ext):
    """Compiles, but no modules into a checkout."""

    def run(self) -> None:
        """Compile."""
        if WANTED == "1" and (self.inplace or self.editable_mode):
            raise SystemExit(
                "WSGICACHE_COMPILED=1 would put compiled modules beside their sources, and hide what is "
                "changed in these: say WSGICACHE_COMPILED=twin in a checkout"
            )
        try:
            super().run()
        except Exception:
            print(
                "To compile takes a C compiler and Python's headers (apt-get install gcc python3-dev). "
                "Without WSGICACHE_COMPILED nothing is compiled.",
                file=sys.stderr,
            )
            raise


def types_of_ours_alone() -> None:
    """Have Cython take an annotation for a type where it names a class that a .pxd of ours makes a struct.

    Others stay what they are to Python: who says `str` or `dict` does not promise that it is exactly that.
    """
    from Cython.Compiler.ExprNodes import AnnotationNode

    read = AnnotationNode.analyse_type_annotation

    def analyse_type_annotation(self: Any, env: Any, assigned_value: Any = None) -> tuple[list[str], Any]:
        modifiers, kind = read(self, env, assigned_value)
        ours = kind is not None and kind.is_extension_type and not kind.is_builtin_type
        return (modifiers, kind) if ours else ([], None)

    AnnotationNode.analyse_type_annotation = analyse_type_annotation
    AnnotationNode._warn_on_unknown_annotation = lambda self, env, annotation: None


def directives_of_the_pxd() -> None:
    """Have Cython keep what a .pxd says of how objects of a class are made and let go.

    It forgets that of a class whose body is in a .py.
    """
    from Cython.Compiler.Nodes import CClassDefNode

    declare = CClassDefNode.analyse_declarations

    def analyse_declarations(self: Any, env: Any) -> None:
        known = env.lookup_here(self.class_name)
        scope = getattr(getattr(known, "type", None), "scope", None)
        said = getattr(scope, "directives", None) or {}
        kept = {name: said[name] for name in ("freelist", "trashcan") if said.get(name)}
        declare(self, env)
        if kept and self.scope is not None:
            self.scope.directives = {**self.scope.directives, **kept}

    CClassDefNode.analyse_declarations = analyse_declarations


def extensions() -> list[Extension]:
    """What is compiled."""
    if WANTED in ("", "0"):
        return []
    if WANTED not in ("1", "twin"):
        raise SystemExit(f"WSGICACHE_COMPILED is 1, twin or 0, not {WANTED!r}")
    if sys.implementation.name != "cpython" or sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise SystemExit("The compiled build is for CPython with its lock: leave WSGICACHE_COMPILED out here")
    source = zlib.crc32(Path(__file__).with_name("wsgicache").joinpath("_compiled.c").read_bytes())
    twin = Extension("wsgicache._compiled", [TWIN], define_macros=[("SOURCE", f"{source}u")])
    if WANTED == "twin":
        return [twin]
    from Cython.Build import cythonize

    lean = [] if os.name == "nt" else ["-g0", "-O2"]  # a third of the size, two thirds of the time to build
    if sys.platform == "linux":
        lean.append("-fno-plt")  # nearly all that is called is the interpreter's: one jump less for each
    modules = [
        Extension(f"wsgicache.{name}", [f"wsgicache/{name.replace('.', '/')}.py"], extra_compile_args=lean)
        for name in MODULES
    ]
    types_of_ours_alone()
    directives_of_the_pxd()
    same = {"language_level": 3, "nonecheck": True}  # an attribute of None is an error, as in Python
    made = cythonize(
        modules,
        build_dir="build/cython",
        force=True,  # it would tell by their times alone which are changed
        compiler_directives=same,
        quiet=True,
    )
    return [twin, *made]


setup(
    ext_modules=extensions(),
    cmdclass={"build": Build, "build_ext": BuildExt},
    options={"build_ext": {"parallel": os.cpu_count() or 1}},
)
