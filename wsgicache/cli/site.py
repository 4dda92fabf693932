"""Which site: its configuration from where the middleware has it, and the ways to its cache."""

from __future__ import annotations

import configparser
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ..cache import WSGICache
from ..client import Client
from ..config import PREFIX, configure, from_ini, from_prefixed
from ..options import OPTIONS, OptionError, Settings
from ..rules import Rule
from ..stores import Store, StoreError, StoreOptions, open_store
from ..stores.lookonly import LookOnly
from .control import Control, StoreControl
from .errors import DOWN, Failure
from .load import find_cache, load, load_app
from .overhttp import HttpControl

PATIENCE: Final = 2.0
"""Seconds that one call of a network store may take: people wait longer than visitors do."""

_PRIVATE: Final = (
    "memory:// belongs to one process, and this is another one: what the site holds cannot be reached from "
    "here. Give the site a store that processes share, such as lmdb:///var/cache/site or "
    "redis://localhost/0, or the command the address of its endpoint: --endpoint https://example.com/.cache"
)
_NO_SITE: Final = (
    "which cache? Give --ini FILE, --app MODULE:ATTRIBUTE, --mapping MODULE:OBJECT or --store URL, or set "
    "WSGICACHE_STORE"
)


@dataclass(frozen=True)
class Source:
    """What was said on the command line about where the configuration is; at most one of the first four."""

    ini: str | None = None
    app: str | None = None
    mapping: str | None = None
    store: str | None = None
    namespace: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True)
class Site:
    """A site's configuration, and its app where it was asked for.

    Attributes:
        where: where the configuration comes from, for people.
        settings: the options.
        rules: the rules; empty where only a store's URL is known.
        knows_rules: False where only a store's URL is known.
        file: the ini file.
        app: what the server would call.
        cache: the cache in the app.
        endpoint: where the site's own endpoint is, if that is the way to its cache.
    """

    where: str
    settings: Settings
    rules: tuple[Rule, ...]
    knows_rules: bool = True
    file: Path | None = None
    app: Any = None
    cache: WSGICache | None = None
    endpoint: str | None = None

    @property
    def is_private(self) -> bool:
        """Whether the store is in the memory of one process."""
        store = self.settings.store
        if isinstance(store, str):
            return store.partition(":")[0] == "memory"
        return not getattr(store, "shared", False)

    @property
    def secret(self) -> str | None:
        """The site's secret: that of the configuration, or where it has none, that of the environment."""
        return self.settings.secret or os.environ.get(f"{PREFIX}SECRET")

    def open(self, *, mend: bool = False, missing_ok: bool = False) -> Store:
        """The store, all namespaces together.

        Args:
            mend: what cannot be read may be deleted.
            missing_ok: a directory that is not there may be made.

        Raises:
            Failure: the URL names no store, or nothing is there yet.
        """
        settings = self.settings
        if not isinstance(settings.store, str):
            store: Store = settings.store
            return store
        keys = tuple([key.encode() for key in settings.signing_keys])
        options = StoreOptions(
            settings.max_bytes, PATIENCE, 0, keys, mend, settings.spool_max_bytes, settings.spool_dir
        )
        try:
            store = open_store(settings.store, options)
        except ValueError as error:
            where = self.where if self.where == "--store" else f"{self.where}: store"
            raise Failure(f"{where}: {error}") from None
        directory = getattr(store, "directory", None)
        if directory is not None and not missing_ok and not directory.exists():
            store.close()
            raise Failure(
                f"{directory} is not there (the site makes it with its first page): is the path right?",
                DOWN,
            )
        return store

    def control(self, *, mend: bool = False) -> Control:
        """The way to the cache in force, in all workers.

        Raises:
            Failure: the store is one process's, or cannot be opened.
        """
        if self.endpoint is not None:
            return self.over_http()
        if self.is_private:
            raise Failure(_PRIVATE)
        return StoreControl(Client(self.open(mend=mend), namespace=self.settings.namespace))

    def over_http(self) -> HttpControl:
        """The way to the cache through the site's own endpoint.

        Raises:
            Failure: the address is none, or there is no secret.
        """
        return HttpControl(self.endpoint or "", self.secret)

    def looking(self) -> tuple[WSGICache, str]:
        """A cache with the site's rules over its store, by which a decision is explained and nothing changed.

        Returns it, and why it does not see what the site holds; "" where it does.

        Raises:
            Failure: only the store's URL is known, or it cannot be opened.
        """
        if not self.knows_rules:
            raise Failure(
                "explain needs the site's rules, and a store's URL does not tell them: give --ini, --app or "
                "--mapping; `show` tells what is stored"
            )
        unseen = "memory:// belongs to one process" if self.is_private else ""
        if self.is_private and self.cache is not None:
            return self.cache, unseen
        store: Store | str = "memory://"
        if not self.is_private:
            try:
                store = LookOnly(self.open())
            except Failure as failure:
                if failure.exit_code != DOWN:
                    raise
                unseen = failure.message
        settings = replace(self.settings, store=store, near=None, signing_keys=())
        settings = replace(settings, admin_path=None, purge_method=False, dashboard=False)  # no HTTP here
        cache = WSGICache.from_settings(_nobody, settings, [_copied(rule) for rule in self.rules])
        with contextlib.suppress(StoreError):  # the decision will say that the store is down
            for follower in cache.engine.followers:
                follower.follow_now("")  # rules may have been switched
        return cache, unseen


def open_site(source: Source, *, in_process: bool = False) -> Site:
    """The site that was named, or that the environment tells of.

    Args:
        in_process: the app is needed too.

    Raises:
        Failure: none was named, or its configuration cannot be read.
    """
    given = [name for name in ("ini", "app", "mapping", "store") if getattr(source, name) is not None]
    if len(given) > 1:
        raise Failure(f"--{given[0]} and --{given[1]} are two configurations: give one")
    kind = given[0] if given else "environment"
    if not given and source.endpoint is not None:
        kind = "endpoint"
    try:
        site = _READERS[kind](source, in_process)
    except OptionError as error:
        raise Failure(str(error)) from None
    if source.endpoint is not None:
        site = replace(site, endpoint=source.endpoint)
    if source.namespace is not None:
        site = replace(site, settings=replace(site.settings, namespace=source.namespace))
    return site


# --- from where ------------------------------------------------------------------------------------


def _from_environment(source: Source, in_process: bool) -> Site:
    if not any(name.startswith(PREFIX) for name in os.environ):
        raise Failure(_NO_SITE)
    _refuse_without_app(in_process)
    settings, rules = configure({}, environ=os.environ)
    return Site("environment", settings, rules)


def _from_endpoint(source: Source, in_process: bool) -> Site:
    settings, rules = configure({}, environ=os.environ)
    return Site("--endpoint", settings, rules, knows_rules=False)


def _from_store(source: Source, in_process: bool) -> Site:
    _refuse_without_app(in_process)
    settings, rules = configure({"store": source.store}, environ=os.environ)
    return Site("--store", settings, rules, knows_rules=False)


def _from_mapping(source: Source, in_process: bool) -> Site:
    _refuse_without_app(in_process)
    name = str(source.mapping)
    found = load(name, "--mapping")
    if not isinstance(found, Mapping):
        found = {key: getattr(found, key) for key in dir(found) if key.startswith(PREFIX)}
    if not from_prefixed(found, f"mapping {name},"):
        raise Failure(
            f"--mapping {name}: it holds no {PREFIX}… key; name the module or object of the settings"
        )
    settings, rules = configure({}, mapping=found)
    return Site(f"mapping {name}", settings, rules)


def _refuse_without_app(in_process: bool) -> None:
    if in_process:
        raise Failure(
            "warming asks the site's own app for its pages: give --app MODULE:ATTRIBUTE or --ini FILE"
        )


def _from_app(source: Source, in_process: bool) -> Site:
    name = str(source.app)
    return _holding(load_app(name, "--app"), f"app {name}")


def _holding(app: Any, where: str) -> Site:
    cache = find_cache(app)
    if cache is None:
        raise Failure(
            f"{where}: it is no WSGICache and holds none; name the object that the server serves, or try it "
            "with `wsgicache serve`"
        )
    return Site(where, cache.engine.settings, tuple(cache.rules), app=app, cache=cache)


# --- PasteDeploy -----------------------------------------------------------------------------------


def _from_ini(source: Source, in_process: bool) -> Site:
    name, _, section = str(source.ini).partition("#")
    path = Path(name).resolve()
    if not path.is_file():
        raise Failure(f"--ini {name}: there is no such file")
    section = section or _section_of(path)
    where = f"{name}, [{section}]"
    deploy = _deploy()
    if os.getcwd() not in os.sys.path:  # type: ignore[attr-defined]
        os.sys.path.insert(0, os.getcwd())  # type: ignore[attr-defined]
    kind, _, short = section.rpartition(":")
    if in_process:
        main = short if kind in ("app", "composite", "pipeline", "filter-app", "application") else "main"
        try:
            app = deploy.loadapp(f"config:{path}", name=main)
        except Exception as error:
            raise Failure(f"{name}: loading [{main}] raised {type(error).__name__}: {error}") from None
        return replace(_holding(app, name), file=path)
    local = _local_conf(deploy, path, kind, short, where)
    settings, rules = from_ini(local, where)
    return Site(where, settings, rules, file=path)


def _deploy() -> Any:
    try:
        from paste.deploy import loadwsgi
    except ImportError:
        raise Failure("an ini file needs PasteDeploy: pip install 'wsgicache[paste]'") from None
    return loadwsgi


def _section_of(path: Path) -> str:
    """The section of the cache, where there is one only."""
    parser = configparser.RawConfigParser(strict=False, default_section="")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, OSError, UnicodeDecodeError) as error:
        raise Failure(f"--ini {path.name}: {error}") from None
    found = [name for name in parser.sections() if _is_ours(dict(parser.items(name)))]
    if len(found) == 1:
        return found[0]
    if found:
        raise Failure(
            f"--ini {path.name}: several caches; say which: {path.name}#{found[0]}, {path.name}#{found[1]}"
        )
    raise Failure(
        f"--ini {path.name}: no section has `use = egg:wsgicache`; name one as {path.name}#filter:cache"
    )


def _is_ours(section: Mapping[str, str]) -> bool:
    if section.get("use", "").partition("#")[0].strip() == "egg:wsgicache":
        return True
    factories = [key for key in section if key.startswith("paste.filter_")]
    if any([section[key].strip().startswith("wsgicache.paste:") for key in factories]):
        return True
    # A factory of the site's own that adds something, such as a secret: then all the rest is ours.
    rest = [key for key in section if key not in factories]
    return bool(factories and rest) and all([key in OPTIONS or key.startswith("rule.") for key in rest])


def _local_conf(deploy: Any, path: Path, kind: str, name: str, where: str) -> Mapping[str, str]:
    """What PasteDeploy would hand to the filter of a section."""
    try:
        if kind == "filter-app":
            return deploy.loadcontext(deploy.APP, f"config:{path}", name=name).filter_context.local_conf  # type: ignore[no-any-return]
        return deploy.loadcontext(deploy.FILTER, f"config:{path}", name=name).local_conf  # type: ignore[no-any-return]
    except LookupError as error:
        raise Failure(f"{where}: {error}") from None
    except Exception as error:
        raise Failure(f"{where}: reading it raised {type(error).__name__}: {error}") from None


_READERS: Final = {
    "ini": _from_ini,
    "app": _from_app,
    "mapping": _from_mapping,
    "store": _from_store,
    "environment": _from_environment,
    "endpoint": _from_endpoint,
}


def _copied(rule: Rule) -> Rule:
    """A rule of its own, so that following switches here switches nothing in an app at hand."""
    given = {name: value for name, value in rule.options.items() if value is not None and value != ()}
    given = {name: value for name, value in given.items() if value is not False and name != "enabled"}
    return Rule(rule.pattern, **given, enabled=rule.enabled)


def _nobody(environ: dict[str, Any], start_response: Any) -> Any:
    """No app: nothing is asked of it."""
    raise RuntimeError("a cache that explains asks no app")
