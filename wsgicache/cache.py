"""`WSGICache`: the middleware with what its operators use."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .capture import App
from .config import configure
from .engine import Engine
from .entry import Entry
from .explain import Explanation, explain
from .journal import Kind, Mark, Purge, PurgeIndex, Record, Snapshot, Verdict
from .key import group_target, parse_url, path_target, prefix_target, url_target
from .options import Settings
from .rules import Rule, RuleSet
from .stores import Store
from .wsgi import Middleware


class Purged:
    """What a purge did. It is in force; counting what it matched takes a scan, so that waits for `matched`.

    Attributes:
        purges: what was written to the journal.
        mark: the journal's mark afterwards.
    """

    def __init__(
        self,
        store: Store,
        purges: tuple[Purge, ...],
        mark: Mark,
        *,
        earlier: Sequence[int] = (),
        counted: int | None = None,
    ) -> None:
        self.purges = purges
        self.mark = mark
        self._store = store
        self._earlier = earlier
        self._counted = counted

    @property
    def matched(self) -> int:
        """How many entries it reached that were there and not purged before: 0 says that nothing was."""
        if self._counted is None:
            self._counted = sum(1 for _ in self.entries())
        return self._counted

    def entries(self) -> Iterator[Entry]:
        """The entries that it reached, as long as the store has not yet let them go."""
        first = self.mark.seq - len(self.purges) + 1
        snapshot = self._store.purges_since(None)
        older = [record for record in snapshot.records if record.seq < first]
        older += [self._record(purge, seq) for purge, seq in zip(self.purges, self._earlier, strict=False)]
        before = _index(self.mark, older)
        now = _index(self.mark, [self._record(purge, self.mark.seq) for purge in self.purges])
        for stored in self._store.scan():
            if isinstance(stored, Entry) and stored.born.epoch == self.mark.epoch:
                asked = (stored.born, stored.key, stored.terms.groups)
                if now.verdict(*asked) is Verdict.HARD and before.verdict(*asked) is not Verdict.HARD:
                    yield stored

    def _record(self, purge: Purge, seq: int) -> Record:
        """A purge as a hard record, so that what it covers can be asked for."""
        return Record(seq, purge.kind, purge.target, False, 0.0, self.mark.nonce)

    def __repr__(self) -> str:
        return f"Purged({', '.join(f'{p.kind.value} {p.target!r}' for p in self.purges)})"


def _index(mark: Mark, records: list[Record]) -> PurgeIndex:
    index = PurgeIndex()
    index.follow(Snapshot(mark, 0, sorted(records), whole=True))
    return index


class WSGICache(Middleware):
    """Cache whole responses of a WSGI app.

    `app.wsgi_app = WSGICache(app.wsgi_app)` is all that a site needs: memory store, 300 seconds, `safe`
    profile. Every option is described in `docs/options.md`.

    Args:
        app: any WSGI app.
        store: a store URL or a `Store`.
        options: ttl, rules, profile, namespace, enabled and the rest of the option table.

    Raises:
        OptionError: an unknown option or a bad value.
    """

    def __init__(self, app: App, store: str | Store = "memory://", **options: Any) -> None:
        settings, rules = configure({"store": store, **options})
        super().__init__(_callable(app), Engine(settings, RuleSet(rules)))

    @classmethod
    def from_settings(cls, app: App, settings: Settings, rules: Iterable[Rule] = ()) -> WSGICache:
        """A cache from typed settings, as the ini reader makes them."""
        cache = cls.__new__(cls)
        Middleware.__init__(cache, _callable(app), Engine(settings, RuleSet(rules)))
        return cache

    @classmethod
    def from_mapping(cls, app: App, mapping: Mapping[str, Any], **options: Any) -> WSGICache:
        """A cache from `WSGICACHE_…` keys of a mapping, such as `app.config`; keywords beat it.

        Raises:
            OptionError: an unknown `WSGICACHE_…` key or a bad value.
        """
        settings, rules = configure(options, mapping=mapping)
        return cls.from_settings(app, settings, rules)

    @classmethod
    def from_env(
        cls,
        app: App,
        environ: Mapping[str, str] | None = None,
        *,
        mapping: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> WSGICache:
        """A cache from `WSGICACHE_…` environment variables; a mapping beats them, keywords beat both.

        Raises:
            OptionError: an unknown `WSGICACHE_…` variable or a bad value.
        """
        variables = os.environ if environ is None else environ
        settings, rules = configure(options, mapping=mapping, environ=variables)
        return cls.from_settings(app, settings, rules)

    # --- purge -------------------------------------------------------------------------------------

    def purge(self, *urls: str, soft: bool = False) -> Purged:
        """Purge URLs: a path means every variant, scheme, host and query; an absolute URL exactly itself.

        In force when this returns, for what is stored and for what is being made.

        Args:
            urls: paths such as `/post/1` or absolute URLs.
            soft: mark as stale instead, so that validation and stale windows still work.

        Raises:
            ValueError: a text is neither.
            StoreError: the store did not acknowledge it; nothing is purged.
        """
        return self._purge([Purge(Kind.URL, target, soft) for url in urls for target in self._targets(url)])

    def purge_prefix(self, *prefixes: str, soft: bool = False) -> Purged:
        """Purge a path and everything below it, at segment boundaries; see `purge`.

        Raises:
            ValueError: a prefix is neither a path nor an absolute URL, or has a query.
            StoreError: the store did not acknowledge it; nothing is purged.
        """
        return self._purge([Purge(Kind.PREFIX, prefix_target(prefix), soft) for prefix in prefixes])

    def purge_groups(self, *groups: str, origin: str | None = None, soft: bool = False) -> Purged:
        """Purge everything that carries one of the groups (RFC 9875); see `purge`.

        Args:
            groups: names of groups.
            origin: such as `https://example.com`; None means on every origin.

        Raises:
            ValueError: the origin is none.
            StoreError: the store did not acknowledge it; nothing is purged.
        """
        site = None if origin is None else parse_url(origin)[0]
        return self._purge([Purge(Kind.GROUP, group_target(group, site), soft) for group in groups])

    def clear(self, *, soft: bool = False) -> Purged:
        """Purge everything.

        Raises:
            StoreError: the store did not acknowledge it; nothing is purged.
        """
        if soft:
            return self._purge([Purge(Kind.ALL, "", soft=True)])
        counted = sum(1 for stored in self.store.scan() if isinstance(stored, Entry))
        return Purged(self.store, (Purge(Kind.ALL, ""),), self.store.clear(), counted=counted)

    def _targets(self, url: str) -> list[str]:
        """A URL's targets: each rule keys its query in a form of its own, which is what a purge must name.

        Where responses say by No-Vary-Search what counts in a query, no form is certain: all queries go.
        """
        if self.engine.settings.no_vary_search and parse_url(url)[2]:
            return [path_target(url)]
        forms = {(plan.ignore_query, plan.query == "sort") for plan in self.engine.plans}
        return sorted({url_target(url, *form) for form in forms} | {url_target(url)})

    def _purge(self, purges: list[Purge]) -> Purged:
        if not purges:
            raise ValueError("name at least one thing to purge")
        earlier = self.engine.last_purges(purges)
        return Purged(self.store, tuple(purges), self.engine.append(purges), earlier=earlier)

    # --- looking -----------------------------------------------------------------------------------

    @property
    def rules(self) -> RuleSet:
        """The rules, to look at and to switch: `cache.rules.disable("admin")`."""
        return self.engine.rules

    @property
    def store(self) -> Store:
        """The store."""
        return self.engine.store

    def explain(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
    ) -> Explanation:
        """Why a request would be a hit, a miss or a bypass; nothing is changed and the app is not called.

        Args:
            url: a path (host `localhost`, unless `headers` has a Host) or an absolute URL.
            method: the request's method.
            headers: the request's fields.

        Raises:
            ValueError: the text is neither a path nor an absolute URL.
        """
        return explain(self.engine, url, method, headers or {})

    def stats(self) -> dict[str, Any]:
        """Counters of this process since it started, and the store's numbers."""
        return {**self.engine.observer.stats(), "store": dict(self.store.stats())}

    def close(self) -> None:
        """Let go of the store. The cache must not be used afterwards."""
        self.engine.close()


def _callable(app: App) -> App:
    if not callable(app):
        raise TypeError(f"{app!r} is no WSGI app: it cannot be called; for Flask, give app.wsgi_app")
    return app
