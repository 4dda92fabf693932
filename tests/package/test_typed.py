"""The .pxd files tell the compiled build what the modules tell Python: they must not say something else."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "wsgicache"
DECLARED = sorted(PACKAGE.rglob("*.pxd"))
CIMPORT = re.compile(r"^from (\.*)([\w.]+) cimport (.+)$", re.MULTILINE)
CLASS = re.compile(r"^cdef class (\w+)(?:\((\w+)\))?:\n((?:(?: .*)?\n)+)", re.MULTILINE)
FIELDS = re.compile(r"^ +cdef (?:public |readonly )?(?:long long|\w+) ([\w, ]+)$", re.MULTILINE)
FUNCTION = re.compile(r"^( *)cp?def (?!class )(?:\w+ )?(\w+)\((.*)\)", re.MULTILINE)
PYTHONS_OWN = {"__dict__", "__weakref__"}


def classes(tree):
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def functions(body):
    return {node.name: node for node in body if isinstance(node, ast.FunctionDef)}


def is_setter(node):
    return any(isinstance(one, ast.Attribute) and one.attr == "setter" for one in node.decorator_list)


def fields_set(node):
    """The attributes that the methods of a class set of `self`, and those that it has slots for.

    Not those that the class itself has something for: what is set then is for that to keep.
    """
    others = {one.name for one in node.body if isinstance(one, ast.FunctionDef) and is_setter(one)}
    others |= {ast.unparse(one.targets[0]) for one in node.body if isinstance(one, ast.Assign)}
    found = set()
    for one in ast.walk(node):
        if isinstance(one, ast.Attribute) and isinstance(one.ctx, ast.Store):
            found.update({one.attr} if ast.unparse(one.value) == "self" else ())
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "__slots__":
            found.update(ast.literal_eval(one.value))
    return found - others - PYTHONS_OWN


def arguments(node):
    """Names of arguments, those with a default with `=*` as in a .pxd."""
    given = node.args
    assert (given.kwonlyargs, given.vararg, given.kwarg) == ([], None, None), node.name
    names = [one.arg for one in given.args]
    plain = len(names) - len(given.defaults)
    return [name if at < plain else f"{name}=*" for at, name in enumerate(names)]


def test_there_are_some():
    assert len(DECLARED) > 20


@pytest.mark.parametrize("path", DECLARED, ids=lambda path: path.stem)
def test_what_is_declared_is_there(path):
    text, tree = path.read_text(), ast.parse(path.with_suffix(".py").read_text("utf-8"))
    said = {name: (base, body) for name, base, body in CLASS.findall(text)}
    assert len(said) == text.count("cdef class ")
    for name, (base, body) in said.items():
        node = classes(tree)[name]
        assert [ast.unparse(one) for one in node.bases] == ([base] if base else [])
        fields = {one for line in FIELDS.findall(body) for one in line.split(", ")}
        assert fields - PYTHONS_OWN == fields_set(node)
    top = functions(tree.body)
    for indent, name, given in FUNCTION.findall(text):
        owners = [
            functions(classes(tree)[owner].body) for owner, (_, body) in said.items() if f" {name}(" in body
        ]
        mine = [owner[name] for owner in owners] if indent else [top[name]]
        told = [one.split(" ")[-1] for one in given.split(", ")]
        assert [arguments(one) for one in mine] == [told] * len(mine)
        assert mine


@pytest.mark.parametrize("path", DECLARED, ids=lambda path: path.stem)
def test_what_it_takes_from_others_is_what_its_module_imports(path):
    """And it is declared there; and the module is one that is compiled."""
    imported = {
        (node.level, node.module, one.name)
        for node in ast.parse(path.with_suffix(".py").read_text("utf-8")).body
        if isinstance(node, ast.ImportFrom)
        for one in node.names
    }
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    assert f'    "{name}",\n' in (ROOT / "setup.py").read_text()
    for dots, module, names in CIMPORT.findall(path.read_text()):
        for name in names.split(", "):
            assert (len(dots), module, name) in imported
            theirs = path.parents[len(dots) - 1].joinpath(*module.split(".")).with_suffix(".pxd").read_text()
            assert re.search(rf"^(cdef class|cpdef(?: \w+)?) {name}\b", theirs, re.MULTILINE), name
