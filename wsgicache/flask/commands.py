"""`flask wsgicache purge | stats | explain | routes`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click
from flask import current_app
from flask.cli import AppGroup

if TYPE_CHECKING:
    from .site import SiteCache

_NOT_SHARED = (
    "the pages are in the memory of the server's process, and this is another one: set WSGICACHE_STORE to a "
    "store that processes share, or do it inside the app"
)

commands = AppGroup("wsgicache", help="Look at the site's cache and purge it.")


def _site() -> SiteCache:
    site: SiteCache = current_app.extensions["wsgicache"]
    return site


def _shared_site() -> SiteCache:
    """The site, if what is done here reaches the workers.

    Raises:
        click.ClickException: its store is this process's memory.
    """
    site = _site()
    if not site.is_shared:
        raise click.ClickException(_NOT_SHARED)
    return site


@commands.command("purge")
@click.argument("urls", nargs=-1)
@click.option("--group", "groups", multiple=True, help="Purge what carries a group, in both caches.")
@click.option("--prefix", "prefixes", multiple=True, help="Purge a path and everything below it.")
@click.option("--all", "everything", is_flag=True, help="Purge every page.")
@click.option("--soft", is_flag=True, help="Mark as stale instead of removing.")
def purge(
    urls: tuple[str, ...], groups: tuple[str, ...], prefixes: tuple[str, ...], everything: bool, soft: bool
) -> None:
    """Purge pages by URL, group or prefix."""
    site = _shared_site()
    if not (urls or groups or prefixes or everything):
        raise click.UsageError("name a URL, --group, --prefix or --all")
    try:
        done = [site.clear(soft=soft)] if everything else []
        done += [site.purge(*urls, soft=soft)] if urls else []
        done += [site.purge_prefix(*prefixes, soft=soft)] if prefixes else []
        done += [site.purge_groups(*groups, soft=soft)] if groups else []
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    for purged in done:
        click.echo(repr(purged))


@commands.command("stats")
def stats() -> None:
    """Print as JSON what the workers counted: views of the page cache, functions of the data cache."""
    site = _site()
    told = site.stats()
    # What only the server's process knows would be shown here as this process's zeros.
    told = {"views": told["views"] if site.is_shared else None, "data": site.shared_data_stats()}
    if told["views"] is None and told["data"] is None:
        raise click.ClickException(_NOT_SHARED)
    click.echo(json.dumps(told, indent=2))


@commands.command("explain")
@click.argument("url")
@click.option("--method", default="GET", show_default=True)
@click.option("--header", "headers", multiple=True, help="NAME: VALUE of the request.")
def explain(url: str, method: str, headers: tuple[str, ...]) -> None:
    """Say what a request would get, and why."""
    pairs = (header.partition(":") for header in headers)
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    try:
        click.echo(str(_site().explain(url, method=method, headers=fields)))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


@commands.command("routes")
def routes() -> None:
    """List the routes with what their views say to the cache."""
    for rule, endpoint, page in _site().routes():
        said = "bypass" if page.bypass else "" if page.ttl is None else f"ttl={page.ttl}"
        groups = f"groups={','.join(page.groups)}" if page.groups else ""
        click.echo("  ".join(part for part in (f"{rule:<32}", f"{endpoint:<24}", said, groups) if part))
