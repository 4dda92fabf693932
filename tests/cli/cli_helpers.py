"""The command as tests run it: in this process, or in one of its own."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from wsgicache.cli.commands import cli

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


def run(*arguments, code=0, stdin=None, env=None):
    """Run a command and check its exit code; what it printed."""
    result = CliRunner(env=env).invoke(cli, [str(one) for one in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, (result.exit_code, result.stdout, result.stderr)
    return result


def say(*arguments, **given):
    """Its standard output, with blanks drawn together."""
    return flat(run(*arguments, **given).stdout)


def flat(text):
    return re.sub(r"\s+", " ", text)


def data(*arguments, **given):
    """What it says to scripts."""
    return json.loads(run(*arguments, "--json", **given).stdout)


def lines(*arguments, **given):
    return [json.loads(line) for line in run(*arguments, "--json", **given).stdout.splitlines()]


def complaint(*arguments, code=2, **given):
    """The one line of an error."""
    result = run(*arguments, code=code, **given)
    text = result.stderr.rstrip("\n")
    assert "\n" not in text, text
    assert text.startswith("wsgicache")
    return text


def process(*arguments, cwd=None, env=None, **given):
    """The command in a process of its own, as its script runs it."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WSGICACHE_")}
    environ |= {"PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE)]), **(env or {})}
    command = [sys.executable, "-X", "dev", "-m", "wsgicache", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, **given)
