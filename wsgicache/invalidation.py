"""What a successful unsafe request invalidates (RFC 9111 §4.4, RFC 9875 §3). Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urljoin

from .fields import string_list
from .head import Head
from .journal import Kind, Purge
from .key import group_target, parse_url
from .policy import Admission


def invalidations(admission: Admission, head: Head) -> Iterable[Purge]:
    """The target URI, where the response points on the same origin, and the groups that it names."""
    if admission.host is None or not admission.facts.path.startswith("/"):
        return
    facts = admission.facts
    own = f"{facts.scheme}://{admission.host}"
    yield Purge(Kind.URL, f"o{own}\0{facts.path}")
    for name in ("location", "content-location"):
        reference = head.fields.get(name)
        path = None if reference is None else _same_origin_path(reference, own, facts.path)
        if path is not None:
            yield Purge(Kind.URL, f"o{own}\0{path}")
    groups = head.fields.get("cache-group-invalidation")
    if groups is not None:
        for group in string_list(groups) or ():
            yield Purge(Kind.GROUP, group_target(group, own))


def _same_origin_path(reference: str, origin: str, base: str) -> str | None:
    """The path that a Location names, if it is on this origin (CON-19)."""
    try:
        url = urljoin(origin + quote(base.encode("latin-1", "replace")), reference.strip())
        named, path, _ = parse_url(url)
    except ValueError:
        return None
    return path if named == origin else None
