"""What the command prints: tables for people that fit their terminal, JSON for scripts.

Colour only on a terminal and without NO_COLOR. What is piped has no colour and one row a line, unless COLUMNS
says how wide it may be. Text that came from requests or pages is cleaned: nothing in it steers a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Final

import click
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDE: Final = 4096
"""Columns of what is piped: no row is broken."""

_WORD: Final = 16
"""Longer words are broken in a table."""

_FIRST: Final = 24
"""So are those of its first column, such as URLs, beyond this."""

STYLES: Final = {
    "fresh": "green",
    "hit": "bold green",
    "no hit": "bold yellow",
    "ok": "green",
    "on": "green",
    "stored": "green",
    "stale": "yellow",
    "stale (purged)": "yellow",
    "warning": "yellow",
    "off": "yellow",
    "not stored": "yellow",
    "problem": "bold red",
    "failed": "bold red",
    "purged": "red",
    "not looked at": "dim",
}
"""Words that stand out, the same in every command."""


def clean(text: str) -> str:
    """Text without anything that is not printed: control characters are spelled out."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text])


class Output:
    """Where a command's results go.

    Args:
        as_json: one JSON document, or one a line where results come one by one.
    """

    def __init__(self, as_json: bool) -> None:
        self.as_json: Final = as_json
        self.console: Final = console(sys.stdout)

    def data(self, data: Any) -> None:
        """Print one JSON document."""
        click.echo(json.dumps(data, indent=2, default=str))

    def line(self, data: Any) -> None:
        """Print one JSON document on one line."""
        click.echo(json.dumps(data, default=str))

    def say(self, text: str, style: str = "") -> None:
        """Print a sentence."""
        self._print(Text(clean(text), style=style))

    def gap(self) -> None:
        """Print an empty line."""
        click.echo()

    def note(self, text: str) -> None:
        """Tell something beside the result, on the error stream: it is no part of what a script reads."""
        click.echo(f"note: {clean(text)}", err=True)

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Print names and what they stand for."""
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True, style="dim")
        table.add_column(overflow="fold")
        for name, text in rows:
            table.add_row(clean(name), cell(text))
        self._print(table)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[str] = ()
    ) -> None:
        """Print rows under headings.

        Args:
            columns: the headings; the first column is the one that is broken where room is short.
            right: headings of the columns that hold numbers.

        Where there is no room for words in one piece, each row is a list of its cells.
        """
        rows = [list(row) for row in rows]
        if _needed(columns, rows, right) > self.console.width:
            self._lists(columns, rows)
            return
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        for number, name in enumerate(columns):
            first_or_text = number == 0 or name not in right
            table.add_column(
                name,
                justify="right" if name in right else "left",
                no_wrap=not first_or_text,
                overflow="fold",
            )
        for row in rows:
            table.add_row(*[cell(text) for text in row])
        self._print(table)

    def _lists(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows one below the other: the first cell on a line of its own, then what the others hold."""
        for number, row in enumerate(rows):
            if number:
                self.gap()
            self._print(Text(clean(row[0]), style=STYLES.get(row[0], "bold"), overflow="fold"))
            self.pairs([(f"  {name}", text) for name, text in zip(columns[1:], row[1:], strict=True) if text])

    def _print(self, thing: Any) -> None:
        with self.console.capture() as captured:
            self.console.print(thing)
        for line in captured.get().splitlines():
            click.echo(line.rstrip(), color=self.console.is_terminal or None)


def _needed(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> int:
    """Columns of a terminal in which a table is one: numbers whole, words too, unless they are long."""
    needed = 3 * (len(columns) - 1)  # what stands between columns
    for number, name in enumerate(columns):
        texts = [name, *[row[number] for row in rows]]
        words = texts if name in right else [word for text in texts for word in text.split()]
        longest = max([cell_len(word) for word in words], default=0)
        needed += longest if name in right else min(longest, _WORD if number else _FIRST)
    return needed


def console(file: Any) -> Console:
    """A console as wide as its terminal; what is piped is as wide as it has to be."""
    width = None
    if not file.isatty():
        told = os.environ.get("COLUMNS", "")
        width = int(told) if told.isdecimal() and int(told) > 20 else _WIDE
    return Console(file=file, width=width, markup=False, highlight=False, emoji=False)


def cell(text: str) -> Text:
    """Text as a cell shows it; only a line feed is what it is."""
    lines = [clean(line) for line in text.split("\n")]
    return Text("\n".join(lines), style=STYLES.get(text, ""))


def plural(number: int, one: str, several: str | None = None) -> str:
    """A number with its noun: `1 entry`, `2 entries`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def seconds(number: float) -> str:
    """A duration for people: `4 s`, `2 min`, `3 h`, `2 d`, with a sign where it is over."""
    sign, number = ("-" if number < 0 else ""), abs(number)
    for limit, unit, divisor in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if number < limit:
            return f"{sign}{int(number / divisor)} {unit}"
    return f"{sign}{int(number / 86400)} d"


def share(ratio: float | None) -> str:
    """A ratio as a percentage, or a dash before there is one."""
    return "-" if ratio is None else f"{ratio * 100:.1f} %"
