"""The pages of the project: links lead somewhere, examples compile, options and modules are the code's."""

import ast
import re
from pathlib import Path

import pytest

from wsgicache.compiled import SWITCH
from wsgicache.flask.settings import DEFAULTS
from wsgicache.options import OPTIONS, RULE_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/*.md"),
    *ROOT.glob("examples/*.md"),
    *ROOT.glob("benchmarks/*.md"),
]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)|<img [^>]*src=\"([^\"]+)\"")

OF_THE_CACHE = {*OPTIONS, "app"}
OF_A_RULE = {*RULE_OPTIONS}


def anchors(page):
    """What a heading of a page is called in a link: lower case, without marks, hyphens for blanks."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower().strip() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in plain}


def is_still_to_be_made(target, page):
    """A plot of the benchmarks comes with their tables, by one command."""
    made = re.findall(r"<!-- begin \w+: .*? -->\n(.*?)<!-- end", page.read_text(), re.S)
    return target.startswith("performance-") and bool(made) and not any(made)


@pytest.mark.parametrize("name", NAMES)
def test_links_within_the_project_lead_somewhere(name):
    page = ROOT / name
    for found in LINK.findall(FENCE.sub("", page.read_text())):
        link = found[0] or found[1]
        if re.match(r"https?:", link) or is_still_to_be_made(link, page):
            continue
        target, _, anchor = link.partition("#")
        there = page.parent / target if target else page
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def blocks(name, language):
    """The examples of a page in one language, without the indentation that a list gives them."""
    for indent, fence, text in FENCE.findall((ROOT / name).read_text()):
        if fence == language:
            yield re.sub(rf"^{indent}", "", text, flags=re.M)


@pytest.mark.parametrize("name", [name for name in NAMES if any(blocks(name, "python"))])
def test_examples_in_python_compile_and_name_options_that_exist(name):
    for text in blocks(name, "python"):
        for call in ast.walk(ast.parse(text)):
            if not isinstance(call, ast.Call):
                continue
            called = ast.unparse(call.func)
            known = {"WSGICache": OF_THE_CACHE, "Rule": OF_A_RULE}.get(called.partition(".")[0])
            if known is not None:
                assert {keyword.arg for keyword in call.keywords if keyword.arg} <= known, ast.unparse(call)


@pytest.mark.parametrize("name", NAMES)
def test_rules_and_caches_that_the_text_shows_have_options_that_exist(name):
    text = FENCE.sub("", (ROOT / name).read_text())
    for shown in re.findall(r"`((?:Rule|WSGICache)\([^`…]*\))`", text):
        call = ast.parse(shown, mode="eval").body
        known = OF_A_RULE if shown.startswith("Rule") else OF_THE_CACHE
        assert {keyword.arg for keyword in call.keywords if keyword.arg} <= known, shown


@pytest.mark.parametrize("name", NAMES)
def test_variables_that_a_page_names_are_options(name):
    known = {*OF_THE_CACHE, *[setting.lower() for setting in DEFAULTS]}
    for variable in re.findall(r"\bWSGICACHE_([A-Z][A-Z_]*[A-Z])\b", (ROOT / name).read_text()):
        named = variable.startswith("RULE_") or variable.lower() in known or f"WSGICACHE_{variable}" == SWITCH
        assert named, f"WSGICACHE_{variable}"


@pytest.mark.parametrize("name", [name for name in NAMES if any(blocks(name, "ini"))])
def test_lines_of_an_ini_name_options_that_exist(name):
    for text in blocks(name, "ini"):
        for key, value in re.findall(r"^([\w.]+) *= *(.*)$", text, re.M):
            if key.startswith("rule."):
                said = {word.partition("=")[0] for word in value.split()[1:]}
                assert said <= OF_A_RULE, value
            elif key not in ("use", "pipeline", "paste.app_factory", "paste.filter_factory"):
                assert key in OF_THE_CACHE, key


# --- docs/architecture.md -------------------------------------------------------------------------

ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
TABLE = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", ARCHITECTURE, re.M)[1:]
MODULES = {
    str(path.relative_to(ROOT / "wsgicache").with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for path in (ROOT / "wsgicache").rglob("*.py")
    if not path.name.startswith("_") or path.name == "__init__.py"
}


def test_the_table_of_the_architecture_names_modules_that_exist():
    for names, _ in TABLE:
        for name in re.findall(r"`([\w.]+)…?`", names):
            assert name in MODULES, name


def test_the_architecture_names_every_module():
    """Parts of the command and of the Flask integration have pages of their own; `testing` is one thing."""
    named = set(re.findall(r"\b[a-z_0-9]+\b", "\n".join([f"{a} {b}" for a, b in TABLE])))
    for module in MODULES:
        if not module.startswith(("cli.", "flask", "testing", "admin.")) and module != "__init__":
            assert module.rpartition(".")[2] in named, module
