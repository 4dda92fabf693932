"""`explain`, `stats`, `ls`, `show`: commands that change nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, Final, cast

import click

from ..explain import Explanation
from ..inventory import Held
from ..outcome import Reason
from ..stores.advice import size
from .errors import DOWN, NOTHING, Failure, misuse
from .options import json_option, reach_options, reaching, read_headers, usage
from .output import STYLES, Output, plural, seconds, share
from .overhttp import HttpControl
from .site import Site, Source, open_site

_PAUSE: Final = threading.Event()
_EVERY: Final = 2.0


# --- explain ---------------------------------------------------------------------------------------


@click.command()
@click.argument("url")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="A field of the request."
)
@click.option("-X", "--method", default="GET", show_default=True, help="The request's method.")
@reach_options
@json_option
def explain(url: str, headers: tuple[str, ...], method: str, source: Source, out: Output) -> None:
    """Say what a request for URL would get and why. Nothing is changed and the app is not asked.

    URL is a path (host localhost, unless -H 'Host: …' says another) or an absolute URL.
    """
    site = open_site(source)
    fields, method = read_headers(headers), method.upper()
    if site.endpoint is not None:
        with reaching(source) as (_, control):
            explanation, unseen = cast(HttpControl, control).explain(url, method, fields), ""
    else:
        explanation, unseen = _explained(site, url, method, fields)
    if out.as_json:
        out.data({**explanation.as_dict(), "where": site.where, "sees_store": not unseen})
    else:
        verdict = "hit" if explanation.hit else "no hit"
        out.say(f"{explanation.method} {url}: {verdict}", STYLES[verdict])
        out.pairs(explanation.rows())
    if unseen and explanation.key is not None and not explanation.hit:
        out.note(f"{unseen}: what the site holds is not seen from here; a first request would get this")
    elif explanation.reason is Reason.URI_MISS and _is_of_no_host(site, url, fields):
        out.note(
            "a path is asked for on the host localhost, and the host is part of the key: "
            "give the whole URL, or -H 'Host: example.com'"
        )
    if explanation.reason is Reason.STORE_DOWN:
        raise Failure("the store does not answer; `wsgicache check` looks into it", DOWN)


def _is_of_no_host(site: Site, url: str, fields: Mapping[str, str]) -> bool:
    """Whether a path was asked for here without saying on which host; an endpoint knows its own."""
    return (
        site.endpoint is None and url.startswith("/") and not any(name.lower() == "host" for name in fields)
    )


def _explained(site: Site, url: str, method: str, fields: Mapping[str, str]) -> tuple[Explanation, str]:
    """The decision, and why it does not count what the site holds; "" where it does."""
    cache, unseen = site.looking()
    with usage():
        explanation = cache.explain(url, method=method, headers=fields)
    if cache is not site.cache:
        cache.close()
    return explanation, unseen


# --- stats -----------------------------------------------------------------------------------------


@click.command()
@click.option("--watch", is_flag=True, help="Again and again, until Ctrl-C.")
@click.option("--every", type=click.FloatRange(0.1), help="Seconds between two looks.  [default: 2]")
@click.option("--times", type=click.IntRange(1), help="End after so many looks.")
@reach_options
@json_option
def stats(watch: bool, every: float | None, times: int | None, source: Source, out: Output) -> None:
    """Show what all workers have counted, and the store's numbers.

    A worker adds its numbers to the shared ones every ten seconds or so, and when it ends.
    """
    if not watch and (every is not None or times is not None):
        raise misuse("--every and --times go with --watch")
    every = every or _EVERY
    with reaching(source) as (_, control):
        if not watch:
            numbers = control.stats()
            out.data(numbers) if out.as_json else _show_stats(out, numbers, None, every)
            return
        before: Mapping[str, Any] | None = None
        looks = 0
        while times is None or looks < times:
            if looks:
                _PAUSE.wait(every)
            numbers = control.stats()
            if out.as_json:
                out.line({"at": time.time(), **numbers})
            else:
                if out.console.is_terminal:
                    out.console.clear()
                elif looks:
                    out.gap()
                _show_stats(out, numbers, before, every)
            before, looks = numbers, looks + 1


def _show_stats(
    out: Output, numbers: Mapping[str, Any], before: Mapping[str, Any] | None, every: float
) -> None:
    rows = [
        ("requests", f"{numbers['requests']:,}"),
        ("hits", f"{numbers['hits']:,}, of them stale {numbers['stale_hits']:,}"),
        ("misses", f"{numbers['misses']:,}"),
        ("hit ratio", f"{share(numbers['hit_ratio'])} of the requests that the cache handles"),
        ("coverage", f"{share(numbers['coverage'])} of all requests are handled"),
        ("collapsed", f"{numbers['collapsed']:,} shared another request's answer"),
        ("refreshes", f"{numbers['refreshes']:,} behind visitors, {numbers['refreshes_failed']:,} failed"),
        ("store failures", f"{numbers['store_failures']:,}"),
    ]
    if before is not None:
        hits = numbers["hits"] - before["hits"]
        misses = numbers["misses"] - before["misses"]
        asked = numbers["requests"] - before["requests"]
        ratio = share(hits / (hits + misses) if hits + misses > 0 else None)
        now = f"{asked / every:,.1f} requests/s told, hit ratio {ratio}"
        if min(hits, misses, asked) < 0:
            now = "lower than before: the counters began again, or another worker answered"
        rows.append(("just now", now))
    out.pairs(rows)
    _show_store(out, numbers["store"])
    if numbers["reasons"]:
        out.gap()
        total = numbers["requests"] or 1
        told = sorted(numbers["reasons"].items(), key=lambda pair: -pair[1])
        out.table(
            ("reason", "count", "share", "what it means"),
            [(n, f"{count:,}", share(count / total), Reason[n].sentence) for n, count in told],
            right=("count", "share"),
        )


def _show_store(out: Output, store: Mapping[str, int]) -> None:
    """The store's numbers; sizes as sizes, the rest as they are called."""
    told = {
        name.replace("_", " "): size(number) if name.endswith("bytes") else f"{number:,}"
        for name, number in store.items()
        if number and not name.startswith("memo_")
    }
    if told:
        out.pairs([("store", ", ".join(f"{name} {text}" for name, text in told.items()))])


# --- ls --------------------------------------------------------------------------------------------


@click.command(short_help="List what is stored.")
@click.option("--prefix", metavar="PATH", help="A path and everything below it.")
@click.option(
    "--group", "groups", multiple=True, metavar="NAME", help="What carries the group; several: one of."
)
@click.option("--limit", default=1000, show_default=True, type=click.IntRange(1), help="Entries at most.")
@reach_options
@json_option
def ls(prefix: str | None, groups: tuple[str, ...], limit: int, source: Source, out: Output) -> None:
    """List what is stored: URL, status, state, what is left of its lifetime, size, groups."""
    with reaching(source) as (site, control), usage():
        held: list[Held] = []
        more = False
        for one in control.entries(prefix, groups):
            more = len(held) >= limit
            if more:
                break
            held.append(one)
        cut = control.is_cut and not more
        unreadable = 0
        if not (held or prefix or groups or site.endpoint):  # an endpoint reads what the site itself wrote
            unreadable = int(control.stats()["store"].get("entries", 0))
    held.sort(key=lambda one: (one.url, one.extra, str(one.varying)))
    if out.as_json:
        out.data({"entries": [_listed(one) for one in held], "more": more or cut})
    elif held:
        out.table(
            ("URL", "status", "state", "left", "size", "groups"),
            [
                (
                    one.url + _variant(one),
                    one.status[:3],
                    one.state,
                    seconds(one.ttl),
                    size(one.size),
                    " ".join(one.groups),
                )
                for one in held
            ],
            right=("left", "size"),
        )
        out.say(f"{plural(len(held), 'entry', 'entries')}, {size(sum(one.size for one in held))}", "dim")
    else:
        out.say("nothing is stored" + (" there" if prefix or groups else ""))
    if more:
        out.note(f"there is more: narrow it with --prefix or --group, or raise --limit {limit}")
    if cut:
        out.note("the site holds more than its endpoint looks at: narrow it with --prefix")
    if unreadable:
        out.note(
            f"the store tells of {plural(unreadable, 'entry', 'entries')} that cannot be read or were "
            f"purged: does {site.where} have the site's signing_keys?"
        )


def _listed(one: Held) -> dict[str, Any]:
    """An entry as data, without its head: `show` has that."""
    data = one.as_dict()
    del data["headers"]
    return data


def _variant(one: Held) -> str:
    if not one.varying:
        return ""
    told = [f"{name}: {'absent' if v is None else v or 'none'}" for name, v in one.varying.items()]
    return f" ({', '.join(told)})"


# --- show ------------------------------------------------------------------------------------------


@click.command(short_help="Show head and numbers of a stored page.")
@click.argument("url")
@reach_options
@json_option
def show(url: str, source: Source, out: Output) -> None:
    """Show what is stored for URL: head and numbers of every variant. Exit code 1 when nothing is.

    A path means every scheme, host and query; an absolute URL without a query every query of it.
    """
    with reaching(source) as (_, control), usage():
        try:
            held = control.at(url)
        except NotImplementedError as error:
            raise Failure(
                f"{error}, so it cannot look for a path on every host: give the absolute URL"
            ) from None
    if out.as_json:
        out.data([one.as_dict() for one in held])
    for number, one in enumerate([] if out.as_json else held):
        if number:
            out.gap()
        _show(out, one)
    if not held:
        if not out.as_json:
            out.say(f"nothing is stored for {url}")
        raise click.exceptions.Exit(NOTHING)


def _show(out: Output, one: Held) -> None:
    out.say(one.url + _variant(one), "bold")
    rows = [
        ("state", one.state),
        ("lifetime", f"{one.lifetime} s, from {one.lifetime_source}"),
        ("arithmetic", f"{one.lifetime} s lifetime - {one.age:.0f} s age = {one.ttl:.0f} s left"),
        ("stored until", f"{seconds(one.kept)} from now"),
        ("body", f"{size(one.size)}"),
    ]
    windows = [
        (name, number)
        for name, number in (
            ("stale-while-revalidate", one.stale_while_revalidate),
            ("stale-if-error", one.stale_if_error),
        )
        if number
    ]
    if windows:
        rows.append(("windows", ", ".join(f"{name} {number} s" for name, number in windows)))
    if one.groups:
        rows.append(("groups", ", ".join(one.groups)))
    whom = ["visitors with cookies too"] * one.for_cookies + ["signed-in ones too"] * one.for_credentials
    rows.append(("answers", ", ".join(["everybody without a cookie", *whom])))
    if one.extra:
        rows.append(("key extra", one.extra))
    rows.append(("head", one.status))
    for name, value in one.headers:
        made = " (made by the cache)" if one.made_etag and name.lower() == "etag" else ""
        rows.append(("", f"{name}: {value}{made}"))
    out.pairs(rows)
