"""PasteDeploy factories: `use = egg:wsgicache` in a `[filter:…]`, a `[filter-app:…]` or a pipeline."""

from __future__ import annotations

import configparser
from collections.abc import Callable, Mapping

from .cache import WSGICache
from .capture import App
from .config import from_ini
from .options import OptionError


def filter_factory(global_conf: Mapping[str, str], **local_conf: str) -> Callable[[App], WSGICache]:
    """A filter for a PasteDeploy pipeline. Options and `rule.NAME` lines are the section's own keys.

    Raises:
        OptionError: a bad option; the message names file, section, key, value and the remedy.
    """
    settings, rules = _configured(global_conf, local_conf)
    return lambda app: WSGICache.from_settings(app, settings, rules)


def filter_app_factory(app: App, global_conf: Mapping[str, str], **local_conf: str) -> WSGICache:
    """The same for a `[filter-app:…]` section, which names the app that it wraps itself."""
    settings, rules = _configured(global_conf, local_conf)
    return WSGICache.from_settings(app, settings, rules)


def _configured(global_conf: Mapping[str, str], local_conf: Mapping[str, str]):  # type: ignore[no-untyped-def]
    path = global_conf.get("__file__", "ini")
    try:
        return from_ini(local_conf, _place(path, local_conf))
    except OptionError:
        raise
    except ValueError as error:
        raise OptionError(f"{path}: {error}") from None


def _place(path: str, local_conf: Mapping[str, str]) -> str:
    """File and section: PasteDeploy does not tell which section it read, so look for these keys."""
    parser = configparser.RawConfigParser(strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read(path)
    except (configparser.Error, OSError, UnicodeDecodeError):
        return path
    for section in parser.sections():
        if set(local_conf) and set(local_conf) <= set(parser.options(section)):
            return f"{path}, [{section}]"
    return path
