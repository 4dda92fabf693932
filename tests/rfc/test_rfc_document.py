"""docs/rfc9111.md tells the truth: its tests exist, and no test of a clause is missing there."""

import re
from pathlib import Path

import pytest
from rfc_helpers import START, at, page

HERE = Path(__file__).parent
DOCUMENT = HERE.parents[1] / "docs" / "rfc9111.md"
ROWS = [
    line
    for line in DOCUMENT.read_text().splitlines()
    if line.startswith("| ") and "`" in line.rpartition("| ")[0]
]
NAMED = set(re.findall(r"`([a-z0-9_]+::[a-z0-9_]+)`", DOCUMENT.read_text()))


def existing():
    """Every test of a clause, as the document names it."""
    found = set()
    for file in HERE.glob("test_*.py"):
        short = file.stem.removeprefix("test_").removeprefix("rfc_")
        if short != "document":
            found |= {f"{short}::{name}" for name in re.findall(r"^def test_(\w+)", file.read_text(), re.M)}
    return found


def test_every_test_that_the_document_names_exists():
    assert sorted(NAMED - existing()) == []


def test_every_test_of_a_clause_is_in_the_document():
    assert sorted(existing() - NAMED) == []


def test_every_clause_has_a_test():
    clauses = [row for row in ROWS if row.startswith("| §") and not re.search(r"`\w+::\w+` \|$", row)]
    assert clauses == []


@pytest.mark.parametrize("file", sorted(HERE.glob("test_rfc_*.py")), ids=lambda file: file.stem)
def test_every_test_names_its_clause(file):
    text = file.read_text()
    tests = re.findall(r'^def test_(\w+)\([^)]*\):\n    (?:"""(.*?)""")?', text, re.M | re.S)
    assert tests
    if file.name != Path(__file__).name:
        unnamed = [
            name
            for name, told in tests
            if not re.search(r"RFC \d{4}|[Hh]ouse rule|Journal rule|[A-Z]{3}-\d\d|As above", told)
        ]
        assert unnamed == []


def test_the_document_links_to_what_is_there():
    for target in re.findall(r"\]\(([^)#]+)\)", DOCUMENT.read_text()):
        assert target.startswith("https://") or (DOCUMENT.parent / target).exists(), target


def test_the_dates_in_these_tests_are_those_of_their_clock():
    assert (at(0), START) == ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000)
    assert page("A: 1").headers == [("A", "1")]
