"""What a look-up found. Pure."""

from __future__ import annotations

from typing import Final

from .encode import is_form_of
from .entry import Entry, Stored, Variants
from .follow import Follower
from .journal import Mark, Verdict
from .key import variant_key
from .outcome import Reason

# A member by itself: to read one from its enum costs as much as a call, and a miss passes by many.
_URI_MISS: Final[Reason] = Reason.URI_MISS
_VALID: Final[Verdict] = Verdict.VALID


class Found:
    """What a look-up found: a reason, the entry if there is one, and the mark that was read first.

    `miss` is the reason without regard to who asks: where a request with a cookie finds nothing, `reason`
    names the cookie and `miss` the empty place. `key` is where a fill will be stored if nothing changes.
    `early`: the entry is fresh, and is to be refreshed behind the one who asks all the same.
    Where the entry is a form of a page, `form` is where that is stored, and the page if it is there.
    `past` is what is there and may answer nobody any more; its forms may be of use to the next page.
    """

    __slots__ = (
        "early",
        "entry",
        "follower",
        "form",
        "key",
        "mark",
        "miss",
        "now",
        "past",
        "reason",
        "variants",
        "verdict",
    )

    entry: Entry | None
    form: tuple[str, Entry | None] | None
    mark: Mark | None
    past: Entry | None
    variants: Variants | None

    def __init__(self, key: str, now: float, follower: Follower) -> None:
        self.key = key
        self.follower = follower
        self.now = now
        self.reason = self.miss = _URI_MISS
        self.entry = self.form = self.past = self.variants = self.mark = None
        self.early = False
        self.verdict = _VALID

    @property
    def place(self) -> str:
        """The key that the entry is stored under."""
        return self.key if self.form is None else self.form[0]

    @property
    def page(self) -> Entry | None:
        """The page that the entry is a form of, if it is one and that is there; otherwise the entry."""
        return self.entry if self.form is None else self.form[1] or self.entry


def place(entry: Entry) -> str:
    """The key that an entry is stored under."""
    varying = entry.terms.varying
    return variant_key(entry.key, varying, entry.values) if varying else entry.key


def page_or_form(found: Found, key: str, page: Stored | None, form: Stored | None) -> Entry | None:
    """Which of the two may answer: the form, if it was made of this very page or that is gone."""
    plain = page if isinstance(page, Entry) else None
    if not isinstance(form, Entry) or (plain is not None and not is_form_of(form, plain)):
        return plain
    found.form = key, plain
    return form
