"""The command and its subcommands."""

from __future__ import annotations

import logging

import click

from .._version import __version__
from .checking import check
from .errors import OneLine
from .looking import explain, ls, show, stats
from .purging import purge
from .serving import serve
from .switching import rules
from .warming import warm

_HELP = """Look at a site's cache, purge it, warm it, check it, try it.

The cache is the one that the configuration names: --ini, --app or --mapping as the middleware has it,
WSGICACHE_… variables, or --store with the store's URL.

Exit codes: 0 done, 1 nothing matched or not all is well, 2 bad usage or configuration, 3 the store does not
answer.
"""


@click.group(
    "wsgicache",
    cls=OneLine,
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="wsgicache")
def cli() -> None:
    """See `_HELP`."""
    logging.getLogger("wsgicache").addHandler(
        logging.NullHandler()
    )  # what a command cannot do, it says itself


for _command in (check, explain, ls, purge, rules, serve, show, stats, warm):
    cli.add_command(_command)
