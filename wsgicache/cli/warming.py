"""`warm`: ask the site's own app for its pages, in this process, before visitors do."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from ..key import parse_url
from ..outcome import Reason
from ..sitemap import SitemapError
from ..warm import Result, StopWarming, Warmed, Warmer
from .errors import DOWN, NOTHING, Failure, misuse
from .options import json_option, read_headers, source_options
from .output import Output, console, plural
from .site import Source, open_site

_EXAMPLES: Final = 3
"""URLs that are shown of each kind of result."""

_KINDS: Final = 30
"""Kinds of results that are shown: messages of exceptions may all differ."""


@click.command()
@click.option(
    "--sitemap", "sitemaps", multiple=True, metavar="URL", help="A sitemap of the site, had from the app."
)
@click.option(
    "--sitemap-file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A sitemap that is read from a file.",
)
@click.option(
    "--urls", type=click.File(), metavar="FILE", help="One URL or path a line; - reads from a pipe."
)
@click.option(
    "--site", metavar="ORIGIN", help="Whose pages: https://example.com. Default: that of the first URL."
)
@click.option(
    "-H",
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="A field that selects a variant.",
)
@click.option(
    "--rate",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Pages a second at most.",
)
@click.option("--limit", default=10_000, show_default=True, type=click.IntRange(1), help="Pages at most.")
@click.option(
    "--concurrency", default=2, show_default=True, type=click.IntRange(1, 64), help="Pages at once at most."
)
@source_options
@json_option
def warm(
    sitemaps: tuple[str, ...],
    files: tuple[Path, ...],
    urls: TextIO | None,
    site: str | None,
    headers: tuple[str, ...],
    rate: float,
    limit: int,
    concurrency: int,
    source: Source,
    out: Output,
) -> None:
    """Fill the cache before the visitors come. Exit code 1 when a page failed.

    The app is asked in this process, as a stranger would ask it: nothing goes over a network, no cookie is
    sent, and only pages of one site are asked for, those that its redirects lead to included. --app or --ini
    says which app.
    """
    if not (sitemaps or files or urls):
        raise misuse("name pages: --sitemap URL, --sitemap-file FILE or --urls FILE")
    listed = _lines(urls)
    origin = site or _origin_of(sitemaps, listed)
    found = open_site(source, in_process=True)
    if found.is_private:
        out.note(
            "memory:// belongs to one process and ends with this one: this shows what would be stored, and "
            "warms nothing; a store that processes share, such as lmdb:///var/cache/site, can be warmed"
        )
    try:
        warmer = Warmer(
            found.app, origin, rate=rate, limit=limit, concurrency=concurrency, headers=read_headers(headers)
        )
    except ValueError as error:
        raise Failure(str(error)) from None
    pages = chain(
        listed,
        *[warmer.sitemap_file(path.read_bytes(), str(path)) for path in files],
        *[warmer.sitemap(url) for url in sitemaps],
    )
    tally = _Tally()
    logging.basicConfig(level=logging.WARNING)
    try:
        _run(warmer, list(islice(pages, limit + 1)), tally, out)
    except SitemapError as error:
        _finish(out, warmer, tally)
        raise Failure(str(error)) from None
    except StopWarming as error:
        _finish(out, warmer, tally)
        raise Failure(str(error), DOWN if tally.reasons[Reason.STORE_DOWN.name] else NOTHING) from None
    finally:
        if found.cache is not None:
            found.cache.close()
    _finish(out, warmer, tally)
    if tally.results[Result.FAILED]:
        raise click.exceptions.Exit(NOTHING)


def _lines(file: TextIO | None) -> list[str]:
    """The URLs and paths of a list, without empty lines and comments."""
    found = []
    for number, text in enumerate([] if file is None else file, 1):
        line = text.strip()
        if line and not line.startswith("#"):
            if not line.startswith("/") and "://" not in line:
                raise Failure(
                    f"--urls, line {number}: {line!r} is no URL: give a path (/post/1) or an http(s) URL"
                )
            found.append(line)
    return found


def _origin_of(sitemaps: Sequence[str], listed: Sequence[str]) -> str:
    """The site of the first absolute URL that was named."""
    for url in (*sitemaps, *listed):
        try:
            origin = parse_url(url)[0]
        except ValueError as error:
            raise Failure(str(error)) from None
        if origin is not None:
            return origin
    raise Failure(
        "whose pages? The host is part of what is stored: give --site https://example.com, or absolute URLs"
    )


class _Kind(NamedTuple):
    """What several pages have in common of which there is more to say than that they are stored."""

    result: Result
    status: int | None
    reason: str


class _Tally:
    """What became of the pages."""

    def __init__(self) -> None:
        self.results: Counter[Result] = Counter()
        self.reasons: Counter[str] = Counter()
        self.kinds: Counter[_Kind] = Counter()
        self.examples: dict[_Kind, list[Warmed]] = {}

    def add(self, warmed: Warmed) -> None:
        self.results[warmed.result] += 1
        self.reasons[warmed.reason] += 1
        if warmed.reason or warmed.location:
            kind = _Kind(warmed.result, warmed.status, warmed.reason)
            self.kinds[kind] += 1
            examples = self.examples.setdefault(kind, [])
            if len(examples) < _EXAMPLES:
                examples.append(warmed)

    def rows(self, site: str) -> list[tuple[str, ...]]:
        """A row for each kind, the most frequent first; pages of the site by their paths."""
        return [
            (
                kind.result.value,
                "" if kind.status is None else str(kind.status),
                _explained(kind.reason),
                f"{count:,}",
                "\n".join([_shown(one, site) for one in self.examples[kind]]),
            )
            for kind, count in self.kinds.most_common(_KINDS)
        ]


def _run(warmer: Warmer, pages: Sequence[str], tally: _Tally, out: Output) -> None:
    with _bar(len(pages)) as advance:
        for warmed in warmer.run(pages):
            tally.add(warmed)
            advance(warmed)
            if out.as_json:
                out.line(_as_dict(warmed))


class _bar:  # noqa: N801 - used as a function
    """A progress bar on a terminal's error stream, and nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console(sys.stderr),
            disable=not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=total)
        self._done = 0
        self._total = total

    def __enter__(self) -> Any:
        self._bar.start()
        return self._advance

    def _advance(self, warmed: Warmed) -> None:
        self._done += 1
        self._bar.update(
            self._task,
            completed=self._done,
            total=max(self._total, self._done),  # redirects lead to further pages
            description=f"{warmed.result.value} {warmed.url[-40:]}",
        )

    def __exit__(self, *exc: object) -> None:
        self._bar.stop()


def _as_dict(warmed: Warmed) -> dict[str, Any]:
    return {
        "url": warmed.url,
        "result": warmed.result.value,
        "status": warmed.status,
        "reason": warmed.reason,
        "location": warmed.location,
        "seconds": round(warmed.seconds, 6),
    }


def _finish(out: Output, warmer: Warmer, tally: _Tally) -> None:
    """What became of the pages, and what was left alone."""
    if not out.as_json and tally.results:
        out.table(
            ("result", "pages"),
            [(result.value, f"{tally.results[result]:,}") for result in Result if tally.results[result]],
            right=("pages",),
        )
        if tally.kinds:
            out.gap()
            out.table(
                ("result", "status", "why not", "pages", "for example"),
                tally.rows(warmer.site),
                right=("status", "pages"),
            )
        if len(tally.kinds) > _KINDS:
            out.note(f"{len(tally.kinds) - _KINDS:,} more kinds of results; --json tells of each page")
    for skipped in warmer.skipped:
        out.note(f"left out {skipped}")
    if warmer.left_out:
        out.note(f"{plural(warmer.left_out, 'URL')} beyond what the protocol allows in one sitemap, left out")
    if warmer.cut:
        out.note("there are more pages than --limit; raise it to warm them too")


def _shown(warmed: Warmed, site: str) -> str:
    both = [url for url in (warmed.url, warmed.location) if url]
    return " → ".join([url.removeprefix(site) if url.startswith(site + "/") else url for url in both])


def _explained(reason: str) -> str:
    known = Reason.__members__.get(reason)
    return reason if known is None else f"{reason}: {known.sentence}"
