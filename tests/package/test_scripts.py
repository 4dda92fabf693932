"""The shell scripts, where they meet a machine that lacks something."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = [ROOT / "scripts" / name for name in ("demo", "test", "check")] + [ROOT / ".ci" / "run"]


@pytest.fixture
def run(tmp_path):
    """Run a script in a copy of the scripts, where no virtual environment has been made."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    def run(script, *arguments, **environ):
        environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)} | environ
        return subprocess.run(
            [tmp_path / "scripts" / script, *arguments],
            cwd="/",
            env=environ,
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def fake_python(tmp_path):
    """Make a program that stands in for a Python and behaves as its shell lines say."""

    def fake_python(*lines):
        program = tmp_path / "fake python"  # a path with a space, as some have
        program.write_text("\n".join(["#!/bin/sh", *lines]) + "\n")
        program.chmod(0o755)
        return str(program)

    return fake_python


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_a_script_can_be_executed_and_stops_at_the_first_error(script):
    assert os.access(script, os.X_OK)
    assert "\nset -euo pipefail\n" in script.read_text()


@pytest.mark.parametrize("script", [*SCRIPTS, ROOT / "scripts" / "_venv"], ids=lambda s: s.name)
def test_a_script_is_valid_bash(script):
    subprocess.run(["bash", "-n", script], check=True)


@pytest.mark.parametrize("script", ["demo", "test", "check"])
def test_a_python_that_is_too_old_is_refused_with_the_remedy(run, fake_python, script):
    old = fake_python("exit 1")
    done = run(script, PYTHON=old)
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr
    assert old in done.stderr
    assert "PYTHON=/path/to/" in done.stderr


def test_no_python_at_all_is_told(run, tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "dirname", "cat", "cksum"):
        (tools / name).symlink_to(shutil.which(name))
    done = run("demo", PATH=str(tools))
    assert done.returncode == 1
    assert "needs Python 3.11 or newer" in done.stderr


def test_a_python_without_venv_is_refused_with_the_debian_package(run, fake_python):
    bare = fake_python('case "$2" in *ensurepip*) exit 1;; esac', f'exec "{sys.executable}" "$@"')
    done = run("demo", PYTHON=bare)
    assert done.returncode == 1
    assert "apt-get install python3-venv" in done.stderr


def test_an_environment_is_reused_and_installed_into_once(run, tmp_path):
    """The environment is a stand-in that notes what it is asked to do."""
    notes = tmp_path / "notes"
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$@" >>"{notes}"\n')
    program.chmod(0o755)
    for _ in range(2):
        done = run("demo", "--once")
        assert done.returncode == 0, done.stderr
    asked = notes.read_text()
    assert asked.count(" install ") == 1
    assert "--editable .[examples]" in asked
    assert asked.count("_demo.py --once") == 2

    (tmp_path / "pyproject.toml").write_text("# changed\n")
    run("demo")
    assert notes.read_text().count(" install ") == 2


def test_a_failed_installation_is_tried_again(run, tmp_path):
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\ncase "$3" in install) echo no network >&2; exit 1;; esac\n')
    program.chmod(0o755)
    for _ in range(2):
        done = run("demo", "--once")
        assert done.returncode != 0
        assert "no network" in done.stderr


@pytest.fixture
def debian(run, tmp_path):
    """Run `scripts/test` with two servers wanted, of which redis-server is there already."""
    script = tmp_path / "scripts" / "test"
    wanted = 'servers="redis-server the Redis tests\nno-such-server the no-such-server tests"'
    script.write_text(re.sub(r'servers="[^"]*"', lambda _: wanted, script.read_text()))
    tools = tmp_path / "tools"
    for name, lines in {
        "tools/redis-server": "exit 0",
        "tools/id": 'echo "$FAKE_USER"',
        "tools/apt-get": 'echo "apt-get $@" >&2; exit "$FAKE_APT"',
        ".venv/bin/python": "exit 0",
    }.items():
        program = tmp_path / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/bin/sh\n{lines}\n")
        program.chmod(0o755)

    def debian(user, apt=0):
        return run("test", PATH=f"{tools}:{os.environ['PATH']}", FAKE_USER=user, FAKE_APT=str(apt))

    return debian


def test_a_missing_server_is_installed_by_root(debian):
    done = debian("0")
    assert done.returncode == 0
    assert done.stderr == "apt-get install -qq --no-install-recommends no-such-server\n"
    assert "skipped" not in done.stdout


@pytest.mark.parametrize(("user", "apt"), [("1000", 0), ("0", 100)])
def test_a_server_that_cannot_be_installed_is_told_with_what_is_skipped(debian, user, apt):
    done = debian(user, apt)
    assert done.returncode == 0
    assert "no-such-server is not installed" in done.stdout
    assert "skipped: the no-such-server tests" in done.stdout
    assert "redis" not in done.stdout
