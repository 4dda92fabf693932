"""Which cookie headers may pass on the hit path: decided once per header text, then remembered. Pure."""

from __future__ import annotations

from typing import Final

from .entry import Terms
from .key import COOKIE_FIELD, MEMO_LIMIT
from .plan import CookiePlan
from .policy import sift_cookies


class CookiePass(dict[str, bool]):
    """`passes[header]` says whether a Cookie field leaves a fresh hit as it is. Bounded.

    Args:
        plan: how cookies are sorted; None lets every header pass.
        never: no header passes: the answer depends on cookies.
    """

    def __init__(self, plan: CookiePlan | None, never: bool = False) -> None:
        super().__init__()
        self._plan = plan
        self._never = never

    def __missing__(self, header: str) -> bool:
        if self._plan is None:
            return True
        if self._never:
            return False
        cookies = sift_cookies(header, self._plan)
        passes = not cookies.personal and cookies.keyed is None
        if len(header) <= MEMO_LIMIT:
            if len(self) >= 4096:
                self.clear()
            self[header] = passes
        return passes


_passes: Final[dict[tuple[CookiePlan, bool], CookiePass]] = {}
_EVERY: Final = CookiePass(None)


def cookie_pass(plan: CookiePlan, terms: Terms) -> CookiePass:
    """The table for an entry stored on these terms under this plan."""
    by_cookie = any(name == "cookie" or name.startswith(COOKIE_FIELD) for name in terms.varying)
    if not by_cookie and (terms.for_cookies or plan.named is not None):
        return _EVERY
    never = by_cookie and plan.named is not None
    if len(_passes) > 256:
        _passes.clear()
    return _passes.setdefault((plan, never), CookiePass(plan, never))
