"""Imports point downwards only, the core touches nothing of the outer world, nothing goes in circles.

The table below is the plan of the design's architecture page; a new module is entered here on purpose.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import wsgicache

ROOT = Path(wsgicache.__file__).parent

LAYERS = {
    "0 words": ["outcome", "fields"],
    "1 core": [
        "key", "dropped", "journal", "body", "entry", "codec", "ready", "freshness", "conditional", "ranges",
        "search", "rules",
        "options", "profile", "plan", "facts", "head", "policy", "settle", "invalidation", "answer", "tokens",
        "cookiepass", "hints", "routes", "sitemap", "early", "encode",
    ],
    "2 stores": [
        "forks", "stores", "stores.memory", "stores.budgets", "stores.segments", "stores.sieve",
        "stores.memo", "stores.breaker", "stores.urls",
        "stores.spool", "stores.claims", "stores.ownfiles",
        "stores.redis", "stores.redislink", "stores.redisscripts", "stores.redislisten", "stores.redisstats",
        "stores.redisurl", "stores.redisnodes", "stores.rediscluster", "stores.redisregister",
        "stores.redissentinel",
        "stores.redisvalues", "stores.redisjournal", "stores.redisatonce",
        "stores.memcached", "stores.memcachedservers", "stores.memcachedjournal", "stores.memcachedextras",
        "stores.lmdb", "stores.lmdbentries", "stores.lmdbfile", "stores.lmdbhandle", "stores.lmdbjournal",
        "stores.lmdbdropped", "stores.lmdbpages", "stores.lmdbrecords", "stores.lmdbroom",
        "stores.near", "stores.abreast", "stores.copies", "stores.heartbeat", "stores.pace",
        "stores.rollcall", "stores.steps",
        "stores.values", "stores.cachelib", "stores.cachelibbytes", "stores.cacheliburl",
        "stores.lookonly", "stores.advice", "stores.redisadvice", "stores.lmdbadvice",
        "stores.memcachedadvice",
    ],
    "3 engine": [
        "clock", "collapse", "leases", "background", "observe", "follow", "owed", "savings", "sharing",
        "history", "switches", "found", "forms", "records", "arming",
        "opening", "engine", "fill", "queueing", "config", "explain", "purge",
        "inventory", "warm", "checks",
    ],
    "4 adapter": ["passing", "sending", "behind", "capture", "environs", "hitpath", "wsgi"],
    "5 faces": [
        "admin", "admin.guard", "admin.endpoint", "admin.dashboard", "admin.pages", "admin.overview",
        "admin.entries", "admin.figures", "admin.plots", "admin.session", "cache", "client", "metrics",
        "telemetry",
        "paste", "proxy", "__main__",
    ],
    "6 the front door and what tests need": [
        "__init__", "testing", "testing.apps", "testing.contract", "testing.requests", "testing.stores",
        "testing.shared",
    ],
}  # fmt: skip
"""Modules by layer. A module may import its own layer and those above it in this list."""

ANYWHERE = {"_version", "compiled"}
"""Modules that import nothing of ours in Python."""

OUTER_WORLD = {
    "time",
    "socket",
    "threading",
    "os",
    "logging",
    "asyncio",
    "subprocess",
    "select",
    "queue",
    "io",
}
"""What layers 0 and 1 do not import: they take what they need to know, the time above all."""

OTHERS = "others: "
"""Before the name of a module that is not ours: `flask` is theirs, and there is one of ours."""

LAZY = {
    ("flask", "_version"): "only who asks for the deprecated __version__ needs it",
    ("cli", "cli.commands"): "who lacks the extra is told so before its packages are imported",
    ("options", "others: difflib"): "only a misspelt option needs it",
    ("cache", "metrics"): "only who is scraped needs prometheus-client",
    ("cache", "admin.dashboard"): "only who has it needs jinja2 and itsdangerous",
    ("telemetry", "others: opentelemetry.metrics"): "only who observes by it needs it",
}
"""Imports inside functions, each with its reason."""

EXTRAS = {
    "cachelib": ("stores.cachelib",),
    "itsdangerous": ("admin.session",),
    "jinja2": ("admin.dashboard",),
    "lmdb": ("stores.lmdb",),
    "markupsafe": ("admin.plots", "admin.overview"),
    "prometheus_client": ("metrics",),
    "pymemcache": ("stores.memcached",),
    "redis": ("stores.redis",),
}
"""Packages that an extra brings, and the modules that need them, by how their names begin. `open_store`
imports these where a URL asks for them."""

FACES = ("flask", "cli")
"""Packages of layer 5: their modules need no entry each, and may need packages that are extras."""

RANK = {module: rank for rank, modules in enumerate(LAYERS.values()) for module in modules}


def modules():
    """Every module of the package, by its dotted name without `wsgicache.`, and its source."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts)
        if len(parts) > 1 and parts[-1] == "__init__":
            name = ".".join(parts[:-1])
        found[name] = path
    return found


MODULES = modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
RANK |= {name: list(LAYERS).index("5 faces") for name in MODULES if name.split(".")[0] in FACES}
INNER = [name for name in MODULES if name.split(".")[0] not in FACES]


@cache
def tree(module):
    return ast.parse(MODULES[module].read_text("utf-8"))


def package_of(module):
    """The package that relative imports of a module start from, as parts."""
    if module == "__init__":
        return []
    parts = module.split(".")
    return parts if module in PACKAGES else parts[:-1]


def resolve(module, node):
    """The names that one import statement imports: ours as in LAYERS, others with OTHERS before them."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
        return [_ours(name.split(".")) if _is_ours(name) else OTHERS + name for name in names]
    if node.level:
        base = package_of(module)[: len(package_of(module)) - node.level + 1]
        base += node.module.split(".") if node.module else []
    elif _is_ours(node.module or ""):
        base = (node.module or "").split(".")[1:]
    else:
        return [OTHERS + (node.module or "")]
    if not base or ".".join(base) in PACKAGES:
        return [_submodule(base, alias.name) for alias in node.names]
    return [".".join(base)]


def top(name):
    """The outermost package of a name that `resolve` gave."""
    return name.removeprefix(OTHERS).split(".")[0]


def _is_ours(name):
    return name.split(".")[0] == "wsgicache"


def _ours(parts):
    return ".".join(parts[1:]) or "__init__"


def _submodule(base, name):
    """`from .stores import memory` names a module; `from .stores import Store` names its package."""
    whole = ".".join([*base, name])
    return whole if whole in MODULES else ".".join(base) or "__init__"


def imports(module, *, lazy=None):
    """(imported name, line) of a module: all of them, only those in functions, or only those outside."""
    found = []
    for node, inside in _walk(tree(module), False):
        if lazy is None or lazy is inside:
            found += [(name, node.lineno) for name in resolve(module, node)]
    return found


def _walk(node, inside):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, inside
        elif not _is_for_types(child):
            yield from _walk(
                child, inside or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            )


def _is_for_types(node):
    """`if TYPE_CHECKING:` imports nothing at run time; only faces need it, see below."""
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("module", sorted(INNER))
def test_no_type_needs_an_import_that_points_upwards(module):
    assert not [node for node in ast.walk(tree(module)) if _is_for_types(node)]


def test_every_module_has_a_layer():
    unknown = sorted(set(MODULES) - set(RANK) - ANYWHERE)
    assert not unknown, f"enter these into LAYERS: {unknown}"
    gone = sorted({name for names in LAYERS.values() for name in names} - set(MODULES))
    assert not gone, f"these are in LAYERS and not in the package: {gone}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_points_upwards(module):
    upward = [
        f"line {line}: {module} (layer {RANK[module]}) imports {name} (layer {RANK[name]})"
        for name, line in imports(module)
        if name in RANK and module in RANK and RANK[name] > RANK[module]
    ]
    assert not upward


@pytest.mark.parametrize("module", sorted(LAYERS["0 words"]))
def test_the_words_import_nothing_of_ours(module):
    assert not [name for name, _ in imports(module) if name in MODULES]


@pytest.mark.parametrize("module", sorted(LAYERS["0 words"] + LAYERS["1 core"]))
def test_the_core_touches_nothing_of_the_outer_world(module):
    touched = [f"line {line}: {name}" for name, line in imports(module) if top(name) in OUTER_WORLD]
    assert not touched


@pytest.mark.parametrize("module", sorted(LAYERS["0 words"] + LAYERS["1 core"]))
def test_the_core_asks_nobody_what_time_it_is(module):
    calls = {node.func.attr for node in ast.walk(tree(module)) if _is_method_call(node)}
    assert not calls & {"now", "utcnow", "today", "monotonic", "perf_counter", "time"}


def _is_method_call(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)


def test_no_imports_go_in_circles():
    graph = {name: {other for other, _ in imports(name) if other in MODULES} - {name} for name in MODULES}
    assert not cycle(graph)


def cycle(graph):
    """A circle of names, or nothing."""
    done, path = set(), []

    def visit(name):
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return None
        path.append(name)
        for other in sorted(graph[name]):
            found = visit(other)
            if found:
                return found
        path.pop()
        done.add(name)
        return None

    for name in sorted(graph):
        found = visit(name)
        if found:
            return found
    return None


def test_imports_inside_functions_are_lazy_for_a_reason_that_is_told():
    inside = {(module, name) for module in INNER for name, _ in imports(module, lazy=True)}
    assert inside == {(module, name) for module, name in LAZY if module in INNER}
    assert all(LAZY.values())


@pytest.mark.parametrize("face", FACES)
def test_a_face_imports_nothing_of_ours_inside_functions(face):
    """Extras may be imported late; a module of ours that must be hides a circle."""
    modules = [name for name in MODULES if name.split(".")[0] == face]
    late = [(module, name) for module in modules for name, _ in imports(module, lazy=True) if name in MODULES]
    assert not set(late) - set(LAZY)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_no_import_stands_at_the_bottom_of_a_file(module):
    body = tree(module).body
    last = max(
        [i for i, node in enumerate(body) if isinstance(node, ast.Import | ast.ImportFrom)], default=-1
    )
    first = min([i for i, node in enumerate(body) if _defines(node)], default=len(body))
    assert last < first


def _defines(node):
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


@pytest.mark.parametrize("module", sorted(set(MODULES) - PACKAGES))
def test_nothing_is_imported_only_to_be_exported_again(module):
    used = {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}
    text = MODULES[module].read_text("utf-8")
    for node, _ in _walk(tree(module), False):
        for alias in node.names:
            name = (alias.asname or alias.name).split(".")[0]
            assert name in used or name == "annotations" or f'"{name}' in text, (
                f"{name} is imported, not used"
            )


def test_the_front_door_exports_what_a_user_types():
    assert sorted(wsgicache.__all__) == ["Outcome", "Reason", "Rule", "Store", "WSGICache", "__version__"]


# --- what is asked here would be noticed ------------------------------------------------------------


def test_a_circle_is_noticed():
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None


@pytest.mark.parametrize(
    ("module", "source", "names"),
    [
        ("engine", "from .policy import admit", ["policy"]),
        ("engine", "from . import policy, Rule", ["policy", "__init__"]),
        ("engine", "import wsgicache.policy", ["policy"]),
        ("engine", "from wsgicache.stores import memory, Store", ["stores.memory", "stores"]),
        ("stores.memory", "from ..entry import Entry", ["entry"]),
        ("stores.memory", "from .sieve import Slot", ["stores.sieve"]),
        ("stores", "from ..entry import Entry", ["entry"]),
        ("stores", "from .memory import MemoryStore", ["stores.memory"]),
        ("__init__", "from .cache import WSGICache", ["cache"]),
        ("engine", "import os, logging.handlers", ["others: os", "others: logging.handlers"]),
        ("flask", "from flask import Flask", ["others: flask"]),
        ("flask", "from .cached import cached", ["flask.cached"]),
    ],
)
def test_imports_are_resolved(module, source, names):
    assert resolve(module, ast.parse(source).body[0]) == names


def test_what_is_outside_the_standard_library_is_imported_where_it_is_declared():
    declared = {"werkzeug"}
    for module in INNER:
        for name, line in imports(module, lazy=False):
            known = name in MODULES or top(name) in sys.stdlib_module_names or top(name) in declared
            known = known or module.startswith(EXTRAS.get(top(name), "\0"))
            assert known, f"{module}, line {line}: {name} is no dependency"
