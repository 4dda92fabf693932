"""PasteDeploy factories: `use = egg:wsgicache` in a `[filter:…]`, a `[filter-app:…]` or a pipeline."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Iterable, Mapping

from .cache import WSGICache
from .config import from_ini
from .options import OptionError, Settings
from .passing import App
from .rules import Rule


def filter_factory(global_conf: Mapping[str, str], **local_conf: str) -> Callable[[App], WSGICache]:
    """A filter for a PasteDeploy pipeline. Options and `rule.NAME` lines are the section's own keys.

    Raises:
        OptionError: a bad option; the message names file, section, key, value and the remedy.
    """
    place = _place(global_conf.get("__file__", "ini"), local_conf)
    settings, rules = from_ini(local_conf, place)
    return lambda app: _made(app, settings, rules, place)


def filter_app_factory(app: App, global_conf: Mapping[str, str], **local_conf: str) -> WSGICache:
    """The same for a `[filter-app:…]` section, which names the app that it wraps itself."""
    return filter_factory(global_conf, **local_conf)(app)


def _made(app: App, settings: Settings, rules: Iterable[Rule], place: str) -> WSGICache:
    """The cache; what only shows when it is made (a store URL, two rules of one name) names its place too."""
    try:
        return WSGICache.from_settings(app, settings, rules)
    except OptionError as error:
        raise OptionError(f"{place}: {error}") from None


def _place(path: str, local_conf: Mapping[str, str]) -> str:
    """File and section: PasteDeploy does not tell which section it read, so look for the one that says most
    of this."""
    parser = configparser.RawConfigParser(strict=False, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return path
    said = {section: _agreement(dict(parser.items(section)), local_conf) for section in parser.sections()}
    best = max(said, key=said.__getitem__, default="")
    return f"{path}, [{best}]" if said.get(best, 0) > 0 else path


def _agreement(section: Mapping[str, str], local_conf: Mapping[str, str]) -> float:
    """How much of what we were given a section says; a value with a variable in it was another before."""
    common = [(section[key], value) for key, value in local_conf.items() if key in section]
    return sum([1.0 if raw == value else 0.5 if "%(" in raw else 0.1 for raw, value in common])
