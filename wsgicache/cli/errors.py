"""How the command fails: one line that says what, and the remedy; and an exit code for scripts."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, Final, NoReturn

import click

from ..options import OptionError
from ..stores import StoreError
from .output import clean

NOTHING: Final = 1
"""Nothing matched, or something that was looked at is not in order."""

USAGE: Final = 2
"""Bad usage, or a configuration that cannot be read."""

DOWN: Final = 3
"""The store does not answer, or holds nothing yet."""

INTERRUPTED: Final = 130


class Failure(click.ClickException):
    """Something that ends the command.

    Args:
        message: what, and the remedy.
        code: the exit code.
    """

    def __init__(self, message: str, code: int = USAGE) -> None:
        super().__init__(message)
        self.exit_code = code  # type: ignore[misc]


def misuse(text: str) -> click.UsageError:
    """Bad usage of the command that runs."""
    return click.UsageError(text, click.get_current_context())


class OneLine(click.Group):
    """A group of commands whose errors are one line each."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command and end the process."""
        extra["standalone_mode"] = False
        if sys.stdout is None:  # closed by whoever started this: then nobody reads what is printed
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lasts
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")  # a terminal that knows few characters
        try:
            code = super().main(*args, **extra)
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):
            code = INTERRUPTED
        except Exception as error:
            code = _tell(error)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; whoever reads its output may have seen enough."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            return ctx.exit(0)


def _tell(error: Exception) -> int:
    """Say what went wrong on one line; the exit code. What nobody foresaw goes on."""
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else "wsgicache"
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return USAGE
        case click.UsageError():
            told = error.format_message().rstrip(".")
            text, code = f"{told}{'' if told.endswith('?') else ';'} see {where} --help", USAGE
        case click.ClickException():
            text, code = error.format_message(), error.exit_code
        case StoreError():
            text, code = f"{str(error).rstrip('.')}; `wsgicache check` looks into it", DOWN
        case OptionError() | NotImplementedError():
            text, code = str(error), USAGE
        case OSError() if error.errno == errno.ENOSPC:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at the end
            text, code = "what it printed could not be written: no space is left there", NOTHING
        case _:
            raise error
    click.echo(f"{where}: {clean(' '.join(text.split()))}", err=True)
    return code
