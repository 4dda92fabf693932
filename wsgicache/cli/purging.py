"""`purge`: take pages out of a cache, in all workers, and say what was there."""

from __future__ import annotations

from typing import Final

import click

from .control import Asked, Reached
from .errors import NOTHING, Failure, misuse
from .options import json_option, reach_options, reaching, usage
from .output import Output, plural
from .site import Source

_SHOWN: Final = 20


@click.command()
@click.argument("urls", nargs=-1, metavar="[URL]...")
@click.option("--prefix", "prefixes", multiple=True, metavar="PATH", help="A path and everything below it.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="Everything that carries the group.")
@click.option("--all", "everything", is_flag=True, help="Everything.")
@click.option("--soft", is_flag=True, help="Mark as stale instead: validation and stale windows still work.")
@click.option("--wait", is_flag=True, help="Return when the near tier of every worker has it too.")
@click.option("--dry-run", is_flag=True, help="Only say what it would reach.")
@reach_options
@json_option
def purge(
    urls: tuple[str, ...],
    prefixes: tuple[str, ...],
    groups: tuple[str, ...],
    everything: bool,
    soft: bool,
    wait: bool,
    dry_run: bool,
    source: Source,
    out: Output,
) -> None:
    """Purge pages in all workers, and say what it matched. Exit code 1 when nothing did.

    A URL is a path (every variant, scheme, host and query) or an absolute URL (exactly that). The purge is
    in force before what it matched is counted.
    """
    asked = Asked(urls, prefixes, groups, everything, soft)
    if not asked.named():
        raise misuse("name a URL, --prefix, --group or --all")
    if not all(groups):
        raise misuse("--group: a group has a name")
    with reaching(source, mend=not dry_run) as (_, control), usage():
        try:
            reached = control.preview(asked) if dry_run else control.purge(asked, wait=wait)
        except NotImplementedError as error:
            raise Failure(f"{error}, so there is no dry run") from None
    if out.as_json:
        out.data(
            {
                "purged": asked.named(),
                "soft": soft,
                "dry_run": dry_run,
                "matched": reached.matched,
                "roughly": reached.roughly,
                "urls": reached.urls,
            }
        )
        if reached.more_urls:
            out.note(f"the endpoint lists {len(reached.urls):,} URLs; there are {reached.more_urls:,} more")
    else:
        _tell(out, asked, reached, dry_run)
    if reached.matched == 0:
        raise click.exceptions.Exit(NOTHING)


def _tell(out: Output, asked: Asked, reached: Reached, dry_run: bool) -> None:
    done = "marked as stale" if asked.soft else "purged"
    done = f"would be {done}" if dry_run else done
    named = ", ".join(asked.named())
    if reached.matched is None:
        out.say(f"{named}: {done}; this store cannot tell what it matched")
        return
    if not reached.matched:
        out.say(f"{named}: nothing matched; it was not stored, or purged before")
        if any("*" in text for text in (*asked.urls, *asked.prefixes)):
            out.note("a * stands for itself here: --prefix /posts is /posts and everything below it")
        return
    if reached.roughly:  # what makes variants of a page is counted too
        out.say(f"{named}: {done}; the store held about {plural(reached.matched, 'record')}")
        return
    out.say(f"{named}: {plural(reached.matched, 'entry', 'entries')} {done}")
    for url in reached.urls[:_SHOWN]:
        out.say(f"  {url}")
    more = len(reached.urls) - _SHOWN
    if more > 0:
        listed = f"{len(reached.urls):,} of them" if reached.more_urls else "all"
        out.say(f"  and {more + reached.more_urls:,} more URLs; --json lists {listed}")
