"""docs/cli.md: its transcript is what the commands print, and it tells of every command and option."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
from transcript import PAGE, ROOT, flat, play, prepare, steps

from wsgicache.cli.commands import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

import servers_redis

TEXT = PAGE.read_text()


def test_the_commands_print_what_the_page_shows():
    server = servers_redis.empty()
    told = steps(TEXT)
    with tempfile.TemporaryDirectory(prefix="cli") as short:  # a long name would be broken in a table
        prepare(Path(short))
        printed = play([command for command, _ in told], short, f"localhost:{server.port}")
    assert len(told) > 12
    for (command, shown), text in zip(told, printed, strict=True):
        assert flat(text) == flat(shown), command


def test_the_page_fits_80_columns_where_it_shows_a_terminal():
    for command, shown in steps(TEXT):
        lines = [
            line for line in shown.splitlines() if not line.startswith("wsgicache")
        ]  # errors are one line
        assert max([len(line) for line in lines], default=0) <= 80, command


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_is_told_of(name):
    assert f"`{name}" in TEXT or f"wsgicache {name}" in TEXT
    common = {"--ini", "--app", "--mapping", "--store", "--namespace", "--json"}
    for spellings in [param.opts for param in cli.commands[name].params] + [[option] for option in common]:
        told = [option for option in spellings if re.search(rf"(?<!-){option}\b", TEXT)]
        assert told or not spellings[0].startswith("-"), spellings


def test_exit_codes_are_those_of_the_code():
    from wsgicache.cli import errors

    for code in (0, errors.NOTHING, errors.USAGE, errors.DOWN, errors.INTERRUPTED):
        assert f"| {code} |" in TEXT


def test_links_lead_to_files():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", TEXT):
        assert (PAGE.parent / target).exists(), target


def test_the_script_is_declared():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"wsgicache": "wsgicache.cli:main"}
