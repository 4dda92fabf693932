"""Forms of stored pages: made once, behind the first hit that can use them, and gone with their page.

A form lies beside its page as one more variant, so purges, eviction and the hit path know it already. What is
particular to it:

- It is made of a page, never of the app's answer to a client: one call of the app serves all codings.
- It answers while its page is stored, or alone where that was evicted; not once its page was replaced or
  taken back. Whoever replaces a page deletes its forms afterwards, and whoever makes a form looks afterwards
  whether its page is still there: of the two, one comes last. Where a near tier shows who looks a page
  of a moment ago, the form lives on no longer than its page would have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from .answer import Answer, answer, not_modified_answer
from .encode import LARGEST, client_has_form, coding_of, is_form, is_form_of, make_form, with_tag
from .entry import Entry, Variants, with_etag
from .follow import Follower
from .head import Head
from .journal import Verdict
from .key import CODING_FIELD, page_of, places
from .policy import Admission
from .stores import Store

Note = Callable[[Entry, str, Store], Sequence[str]]
"""Writes a variant into the record of varying fields."""


class Forms:
    """Makes forms, answers by them and takes them back.

    Args:
        follower_of: the part of the store that a key belongs to.
        note: writes a variant into the record of varying fields.
        failed: told what the store raised.
    """

    def __init__(
        self,
        follower_of: Callable[[str], Follower],
        note: Note,
        failed: Callable[[Exception], None],
    ) -> None:
        self._follower_of: Final = follower_of
        self._note: Final = note
        self._failed: Final = failed

    # --- answering ---------------------------------------------------------------------------------

    def answer(self, entry: Entry, admission: Admission) -> Answer:
        """What to send from an entry: the page itself, unless the client would not have it.

        A client that has the form already is told so, although nobody made it again.
        """
        if admission.refuses_plain:
            return answer(self._at_once(entry, admission), admission.facts)
        coding = admission.missing_form(entry)
        if coding is None or entry.terms.code != 200:
            return answer(entry, admission.facts)
        tag = client_has_form(entry.etag, coding, admission.facts.if_none_match)
        if tag is not None:
            return not_modified_answer(with_tag(entry.headers, tag))
        return answer(entry, admission.facts)

    def _at_once(self, entry: Entry, admission: Admission) -> Entry:
        """A form for a client that accepts nothing else, kept where others would want it too."""
        coding, fields = admission.wanted_form, _fields(entry)
        if (
            coding is None
            or coding_of(entry) is None
            or "content-encoding" in fields
            or not can_be_coded(entry)
        ):
            return entry
        if not is_form(entry):
            self.make(entry, coding)
        return make_form(entry, coding, fields, anyhow=True)

    # --- making ------------------------------------------------------------------------------------

    def make(self, plain: Entry, coding: str) -> bool:
        """Make a form of a stored page and store it, unless it is there.

        Returns False where the store failed or did not take it, so that it is not tried again at once.
        """
        try:
            return self._make(plain, coding)
        except Exception as error:
            self._failed(error)
            return False

    def _make(self, plain: Entry, coding: str) -> bool:
        follower = self._follower_of(plain.key)
        page, place = _places(plain, coding)
        (record, stored, known), _ = follower.get([plain.key, page, place])
        if not isinstance(record, Variants) or record.fields != plain.terms.varying:
            return True  # the page varies by something else now
        if not _is_page(stored, plain) or (isinstance(known, Entry) and is_form_of(known, plain)):
            return True
        form = make_form(plain, coding, _fields(plain))
        follower.follow_now(plain.key)
        if follower.verdict(form) is not Verdict.VALID:
            return True
        if not follower.store.set(place, form, form.keep_until):
            return False
        self._note(form, place, follower.store)  # before the look, so that who replaces the page finds it
        (stored,), _ = follower.get([page])
        if not _is_page(stored, plain):
            follower.store.delete(place, form)
        return True

    # --- taking back -------------------------------------------------------------------------------

    def drop(self, page: str, known: Sequence[str], store: Store) -> None:
        """Delete the forms of a page that is not what they were made of any more.

        Args:
            page: the variant key of the page.
            known: the variants that the record of varying fields names.
        """
        family = page_of(page)
        for key in known:
            if key != page and page_of(key) == family:
                store.delete(key)


def can_be_coded(plain: Entry) -> bool:
    """Whether a body is of a kind and size that is coded here."""
    return type(plain.body) is bytes and len(plain.body) <= LARGEST


def _places(plain: Entry, coding: str) -> tuple[str, str]:
    """Where a page and its form are stored."""
    values = dict(zip(plain.terms.varying, plain.values, strict=True))
    page, *forms = places(
        plain.key, plain.terms.varying, lambda name: coding if name == CODING_FIELD else values[name]
    )
    return page, forms[0]


def _is_page(stored: object, plain: Entry) -> bool:
    """Whether what is stored is still this page; a hit may have put the same with an ETag in its place."""
    return (
        isinstance(stored, Entry)
        and (stored.born, stored.since) == (plain.born, plain.since)
        and stored.body == plain.body
        and with_etag(stored).headers == with_etag(plain).headers
    )


def _fields(plain: Entry) -> dict[str, str]:
    return Head(plain.terms.status, plain.headers).fields
