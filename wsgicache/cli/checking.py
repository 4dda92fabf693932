"""`check`: is the cache set up well? Each finding with a remedy."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ..checks import check_clock, check_file, check_settings, check_store, has_secrets, largest_in
from ..stores import Store, StoreError
from ..stores.advice import Advice, Level
from .errors import DOWN, NOTHING
from .options import json_option, reach_options
from .output import Output, plural
from .probing import probe
from .site import Site, Source, open_site


@click.command(short_help="Is it set up well? Each finding with a remedy.")
@click.option("--url", metavar="URL", help="Where the site runs: its answers are looked at too.")
@click.option("--strict", is_flag=True, help="Warnings count as problems.")
@reach_options
@json_option
def check(url: str | None, strict: bool, source: Source, out: Output) -> None:
    """Check configuration, store, permissions, clocks and, with --url, the running site.

    One entry is stored under a key that no request has, and deleted again. Exit code 1 when there is a
    problem, 3 when the store does not answer.
    """
    site = open_site(source)
    down: list[str] = []
    findings = [*_configuration(site), check_clock(), *_store(site, down), *_running(site, url)]
    if out.as_json:
        out.data(
            [
                {"subject": f.subject, "level": f.level.value, "text": f.text, "remedy": f.remedy}
                for f in findings
            ]
        )
    else:
        _show(out, findings)
    bad = [f for f in findings if f.level is Level.PROBLEM or (strict and f.level is Level.WARNING)]
    if down:
        raise click.exceptions.Exit(DOWN)
    if bad:
        raise click.exceptions.Exit(NOTHING)


def _configuration(site: Site) -> Iterator[Advice]:
    yield Advice("read from", Level.OK, site.where)
    if site.knows_rules:
        yield from check_settings(site.settings, site.rules)
    if site.file is not None:
        yield from check_file(site.file, has_secrets(site.settings))


def _store(site: Site, down: list[str]) -> Iterator[Advice]:
    if site.endpoint is not None:
        control = site.over_http()
        control.stats()
        yield Advice("endpoint", Level.OK, f"{site.endpoint} answers, and the secret is the site's")
        if control.is_one_of_several:
            yield _private("the site runs several processes, and memory:// belongs to one")
        return
    if site.is_private:
        yield _private("memory:// belongs to one process")
        return
    store = site.open(mend=True, missing_ok=True)
    try:
        yield from _asked(store, site)
    except StoreError as error:
        down.append(str(error))
        remedy = (
            "start it, or mend the URL, the user or the network; until then every page comes from the app"
        )
        yield Advice("store", Level.PROBLEM, str(error), remedy)
    finally:
        store.close()


def _private(why: str) -> Advice:
    """What it means that each process has a memory of its own."""
    text = f"{why}: each worker has its own pages, and a purge reaches one worker"
    remedy = "run one process with threads, or choose a store that processes share: lmdb:///var/cache/site"
    return Advice("store", Level.WARNING, text, remedy)


def _asked(store: Store, site: Site) -> Iterator[Advice]:
    directory = getattr(store, "directory", None)
    if directory is not None and not directory.exists():  # who makes it owns it: leave that to the site
        yield from store.advice(largest_in(store, site.settings))  # type: ignore[attr-defined]
        return
    yield from check_store(store.namespaced(site.settings.namespace), site.settings)


def _running(site: Site, url: str | None) -> Iterator[Advice]:
    if url is None:
        text = "how the server reads paths, and whether the cache stands before the app"
        yield Advice("running site", Level.SKIPPED, text, "--url http://127.0.0.1:8000 looks at it")
    else:
        yield from probe(url, site.secret)


def _show(out: Output, findings: list[Advice]) -> None:
    rows = [(f.subject, f.level.value, f"{f.text}\n→ {f.remedy}" if f.remedy else f.text) for f in findings]
    out.table(("what", "state", "found, and what to do"), rows)
    problems = sum(f.level is Level.PROBLEM for f in findings)
    warnings = sum(f.level is Level.WARNING for f in findings)
    out.gap()
    out.say(f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}")
