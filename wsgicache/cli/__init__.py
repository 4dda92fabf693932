"""The command `wsgicache`: look at a site's cache, purge it, warm it, check it, try it.

It takes the configuration that the middleware has, or a store's URL, and reaches the cache through the store
that the workers share (`control`). click and rich come with the extra `wsgicache[cli]`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command; what `python -m wsgicache` and the script call.

    Args:
        arguments: None means those of the process.
    """
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        print(
            f"wsgicache: the command needs the package {error.name!r}: pip install 'wsgicache[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from .commands import cli

    cli.main(None if arguments is None else list(arguments), prog_name="wsgicache")
    sys.exit(0)
