"""Profiles and plans: what holds for a request, with nothing left to look up. Pure.

A profile is a row of switches. A plan is a rule with the profile's and the cache's defaults filled in;
there is one for each rule and one for what no rule covers.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

from .options import DEFAULT_DROPPED

QueryMode = Literal["bypass", "key", "sort"]


class Profile(NamedTuple):
    """The switches in which `safe` and `rfc` differ; each thing that `safe` gives up is a house rule."""

    name: str
    ttl: int
    query: QueryMode
    cookies_bypass: bool
    store_set_cookie: bool
    store_no_cache: bool
    any_status: bool
    heuristics: bool
    obey_request: bool
    refuse_overrides: bool
    search_tokens: bool
    head_fills: bool
    normalise_target: bool
    normalise_encoding: bool
    drop_fields: tuple[str, ...]


SAFE: Final = Profile(
    name="safe",
    ttl=300,
    query="bypass",
    cookies_bypass=True,
    store_set_cookie=False,
    store_no_cache=False,
    any_status=False,
    heuristics=False,
    obey_request=False,
    refuse_overrides=True,
    search_tokens=True,
    head_fills=True,
    normalise_target=True,
    normalise_encoding=True,
    drop_fields=DEFAULT_DROPPED,
)

RFC: Final = Profile(
    name="rfc",
    ttl=0,
    query="key",
    cookies_bypass=False,
    store_set_cookie=True,
    store_no_cache=True,
    any_status=True,
    heuristics=True,
    obey_request=True,
    refuse_overrides=False,
    search_tokens=False,
    head_fills=False,
    normalise_target=False,
    normalise_encoding=False,
    drop_fields=(),
)

PROFILES: Final = {"safe": SAFE, "rfc": RFC}
