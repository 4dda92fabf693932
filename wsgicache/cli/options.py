"""Options that several commands have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from .control import Control
from .errors import Failure
from .output import Output
from .overhttp import HttpControl
from .site import Site, Source, open_site

Command = Callable[..., Any]

ALONE: Final = (
    "note: one of several workers answered, for its own memory:// alone; a store that they share, such as "
    "lmdb:///var/cache/site, makes them one cache"
)

_SOURCE = (
    click.option("--ini", metavar="FILE[#SECTION]", help="A PasteDeploy ini, and the cache's section in it."),
    click.option("--app", metavar="MODULE:ATTR", help="A WSGI app, or what makes one, that holds the cache."),
    click.option(
        "--mapping", metavar="MODULE:OBJECT", help="Settings with WSGICACHE_… keys, such as a Flask config."
    ),
    click.option("--store", metavar="URL", help="The store that the site's workers share."),
    click.option("--namespace", metavar="NAME", help="The site's namespace in the store."),
)
_ENDPOINT = click.option(
    "--endpoint",
    metavar="URL",
    help="The site's own endpoint (admin_path), for what is in one process's memory.",
)


def json_option(command: Command) -> Command:
    """`--json`, given to the command as an `Output`."""

    @click.option("--json", "as_json", is_flag=True, help="For scripts.")
    @functools.wraps(command)
    def with_output(*args: Any, as_json: bool, **kwargs: Any) -> Any:
        return command(*args, out=Output(as_json), **kwargs)

    return with_output


def source_options(command: Command) -> Command:
    """Where the configuration is, given to the command as a `Source`. Without any it is the environment."""

    @functools.wraps(command)
    def with_source(
        *args: Any,
        ini: str | None,
        app: str | None,
        mapping: str | None,
        store: str | None,
        namespace: str | None,
        endpoint: str | None = None,
        **kwargs: Any,
    ) -> Any:
        return command(*args, source=Source(ini, app, mapping, store, namespace, endpoint), **kwargs)

    for option in reversed(_SOURCE):
        with_source = option(with_source)
    return with_source


def reach_options(command: Command) -> Command:
    """The same, and the site's endpoint, for commands that reach a cache in another process."""
    return source_options(_ENDPOINT(command))


@contextmanager
def reaching(source: Source, *, mend: bool = False) -> Iterator[tuple[Site, Control]]:
    """The site, and the way to its cache in force, closed afterwards; notes tell what it is not."""
    site = open_site(source)
    control = site.control(mend=mend)
    if isinstance(control, HttpControl) and control.is_overheard:
        click.echo("note: the secret goes over the network unencrypted; use https://", err=True)
    try:
        yield site, control
    finally:
        control.close()
    if control.is_one_of_several:
        click.echo(ALONE, err=True)


@contextmanager
def usage() -> Iterator[None]:
    """A text that is no URL, and the like, is bad usage."""
    try:
        yield
    except ValueError as error:
        raise Failure(str(error)) from None


def read_headers(lines: tuple[str, ...]) -> dict[str, str]:
    """Request fields from `Name: value` lines; repeated ones are joined, as a server hands them over.

    Raises:
        Failure: a line is none.
    """
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name or not (name + value).isprintable():
            raise Failure(f"-H {line!r}: write 'Name: value'")
        known = next((one for one in headers if one.lower() == name.lower()), None)
        if known is not None:
            separator = "; " if name.lower() == "cookie" else ", "
            headers[known] += separator + value
        else:
            headers[name] = value
    return headers
