"""`rules`: look at a site's rules and switch them, in all workers."""

from __future__ import annotations

import click

from ..options import RULE_OPTIONS
from ..rules import Rule
from .errors import Failure, misuse
from .options import json_option, reach_options, reaching
from .output import Output
from .site import Source


@click.group(invoke_without_command=True, short_help="Show the rules and switch them.")
@reach_options
@json_option
@click.pass_context
def rules(context: click.Context, source: Source, out: Output) -> None:
    """Show the rules as they stand in all workers; `enable` and `disable` switch one.

    A rule is switched by its name, and stays switched until somebody switches it again.
    """
    if context.invoked_subcommand is not None:
        if source != Source() or out.as_json:
            raise misuse(f"options go behind {context.invoked_subcommand}")
        return
    with reaching(source) as (site, control):
        states = control.rules()
    told = {rule.label: _told(rule) for rule in site.rules}
    if out.as_json:
        out.data([{"name": s.label, "pattern": s.pattern, "enabled": s.enabled} for s in states])
    elif not states:
        out.say("no rules, or the site has not answered a request yet")
    else:
        out.table(
            ("rule", "pattern", "switch", "options") if told else ("rule", "pattern", "switch"),
            [
                (s.label, s.pattern, "on" if s.enabled else "off", *([told.get(s.label, "")] if told else []))
                for s in states
            ],
        )


def _told(rule: Rule) -> str:
    """The options of a rule, as an ini line has them."""
    words = []
    for name, value in rule.options.items():
        if name in ("name", "enabled") or value == RULE_OPTIONS[name].default:
            continue
        text = ",".join(value) if isinstance(value, tuple) else str(value)
        words.append(name if value is True else f"{name}={text}")
    return " ".join(words)


def _switch(name: str, enabled: bool, source: Source, out: Output) -> None:
    with reaching(source, mend=True) as (_, control):
        before = {state.label: state.enabled for state in control.rules()}
        try:
            control.switch(name, enabled)
        except KeyError as error:
            raise Failure(str(error.args[0])) from None
        where = "in the worker that answered" if control.is_one_of_several else "in all workers"
    changed = before.get(name) is not enabled
    if out.as_json:
        out.data({"name": name, "enabled": enabled, "changed": changed})
    else:
        position = "on" if enabled else "off"
        out.say(f"{name}: switched {position} {where}" if changed else f"{name}: is {position} already")


@rules.command()
@click.argument("name")
@reach_options
@json_option
def enable(name: str, source: Source, out: Output) -> None:
    """Switch a named rule on, in all workers."""
    _switch(name, True, source, out)


@rules.command()
@click.argument("name")
@reach_options
@json_option
def disable(name: str, source: Source, out: Output) -> None:
    """Switch a named rule off, in all workers.

    What was stored under it is no longer served.
    """
    _switch(name, False, source, out)
