"""docs/cli.md: its transcript is what the commands print, and it tells of every command and option."""

import re
import sys
from pathlib import Path

import pytest
from transcript import PAGE, ROOT, flat, play, prepare, steps

from wsgicache.cli.commands import cli

sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))

import servers_redis

TEXT = PAGE.read_text()


def test_the_commands_print_what_the_page_shows(tmp_path):
    server = servers_redis.empty()
    prepare(tmp_path)
    told = steps(TEXT)
    printed = play([command for command, _ in told], tmp_path, f"localhost:{server.port}")
    assert len(told) > 12
    for (command, shown), text in zip(told, printed, strict=True):
        assert flat(text) == flat(shown), command


def test_the_page_fits_80_columns_where_it_shows_a_terminal():
    for command, shown in steps(TEXT):
        errors = command.endswith("2>&1") or "nowhere" in command
        assert errors or max([len(line) for line in shown.splitlines()], default=0) <= 80, command


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_and_option_is_told_of(name):
    assert f"`{name}" in TEXT or f"wsgicache {name}" in TEXT
    common = {"--ini", "--app", "--mapping", "--store", "--namespace", "--json"}
    own = {option for param in cli.commands[name].params for option in param.opts if option.startswith("--")}
    for option in own | common:
        assert re.search(rf"{option}\b", TEXT), option


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
