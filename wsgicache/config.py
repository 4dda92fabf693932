"""Where options come from: keywords, ini strings, mappings, environment variables; one table for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from .compiled import SWITCH
from .options import OPTIONS, OptionError, Settings, read_option, settings_from
from .rules import Rule

PREFIX: Final = "WSGICACHE_"
_RULE_VARIABLE: Final = "WSGICACHE_RULE_"


def configure(
    keywords: Mapping[str, Any],
    *,
    mapping: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, tuple[Rule, ...]]:
    """Settings and rules: keywords beat the mapping, which beats the environment.

    Args:
        keywords: options by name.
        mapping: options as `WSGICACHE_NAME`, such as a Flask app's config.
        environ: options as `WSGICACHE_NAME`, rules as `WSGICACHE_RULE_NAME`, all strings.

    Raises:
        OptionError: an unknown name or a bad value; the message says where it stands.
    """
    values: dict[str, Any] = {}
    if environ is not None:
        values |= from_prefixed(environ, "environment variable")
    if mapping is not None:
        values |= from_prefixed(mapping, "mapping")
    for name, value in keywords.items():
        read_option(OPTIONS, name, value, "keyword")
        values[name] = value
    rules = rules_from(values.pop("rules", ()))
    return settings_from(values), rules


def from_prefixed(source: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options in a mapping whose keys begin with `WSGICACHE_`; others are not ours."""
    values: dict[str, Any] = {}
    rules: list[Rule] = []
    for key, value in source.items():
        if not isinstance(key, str) or not key.startswith(PREFIX) or key == SWITCH:
            continue
        if key.startswith(_RULE_VARIABLE):
            rules.append(Rule.parse(key[len(_RULE_VARIABLE) :].lower(), str(value)))
            continue
        name = key[len(PREFIX) :].lower()
        values[name] = read_option(OPTIONS, name, value, f"{where} {key}")
    if rules:
        values["rules"] = (*rules_from(values.get("rules", ())), *rules)
    return values


def rules_from(given: Any) -> tuple[Rule, ...]:
    """Rules from a list of them, or from a mapping of names to ini lines.

    Raises:
        OptionError: it is neither.
    """
    if isinstance(given, Mapping):
        return tuple(Rule.parse(str(name), str(text)) for name, text in given.items())
    if isinstance(given, str | Rule) or not isinstance(given, Iterable):
        raise OptionError(f"rules = {given!r} is no list; write rules=[Rule('/admin/*', bypass=True)]")
    return tuple(given)


def from_ini(local_conf: Mapping[str, str], where: str) -> tuple[Settings, tuple[Rule, ...]]:
    """Settings and rules from the strings of one ini section: options, and `rule.NAME` lines in order.

    Args:
        where: file and section, for errors.

    Raises:
        OptionError: an unknown key or a bad value.
    """
    values: dict[str, Any] = {}
    rules: list[Rule] = []
    for key, value in local_conf.items():
        if key.startswith("rule."):
            try:
                rules.append(Rule.parse(key[len("rule.") :], value))
            except OptionError as error:
                raise OptionError(f"{where}: {error}") from None
        elif key in ("rules", "clock"):
            raise OptionError(f"{where}: {key} = {value!r}: in an ini, write rule.NAME = /path/* options")
        else:
            values[key] = read_option(OPTIONS, key, value, where)
    return settings_from(values, where), tuple(rules)
