"""No-Vary-Search: which query parameters do not change a response. Pure.

draft-ietf-httpbis-no-vary-search-10 (October 2026): still a draft, so it is used only where the option
`no_vary_search` says so. What a response states holds for its path from then on; where two responses of a
path disagree, the later one holds, and what was stored under the other is a miss.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_plus

from .fields import dictionary, inner_strings


class SearchRules(NamedTuple):
    """How the queries of a path are compared.

    `ignore_all` with `kept` (the draft's `except`), or `ignored` names; `any_order`: the order of different
    names does not matter, that of repeated names does.
    """

    ignore_all: bool
    ignored: tuple[str, ...]
    kept: tuple[str, ...]
    any_order: bool

    def apply(self, query: str) -> str:
        """The query that stands for all those that these rules do not tell apart."""
        if ";" in query:  # parsers differ on it: see wsgicache.key
            return query
        members = [(unquote_plus(part.partition("=")[0]), part) for part in query.split("&") if part]
        members = [member for member in members if self._counts(member[0])]
        if self.any_order:
            members.sort(key=lambda member: member[0])
        return "&".join([part for _, part in members])

    def _counts(self, name: str) -> bool:
        return name in self.kept if self.ignore_all else name not in self.ignored


@lru_cache(maxsize=256)
def search_rules(value: str) -> SearchRules | None:
    """Parse the field; None where it does not parse, contradicts itself, or states the default."""
    members = dictionary(value)
    if members is None:
        return None
    params, kept, order = members.get("params", "?0"), members.get("except"), members.get("key-order", "?0")
    names = inner_strings(params) if params.startswith("(") else None
    exceptions = inner_strings(kept) if kept is not None else ()
    valid = (params in ("?0", "?1") or names is not None) and order in ("?0", "?1")
    if not valid or exceptions is None or (kept is not None and params != "?1"):
        return None
    rules = SearchRules(params == "?1", names or (), exceptions, order == "?1")
    return None if rules == SearchRules(False, (), (), False) else rules
