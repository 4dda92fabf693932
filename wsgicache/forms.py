"""Forms of stored pages: made once, behind the first hit that can use them, and gone with their page.

A form lies beside its page as one more variant, so purges, eviction and the hit path know it already. What is
particular to it:

- It is made of a page, never of the app's answer to a client: one call of the app serves all codings.
- It answers while its page is stored, or alone where that was evicted; not once its page was replaced or
  taken back. Whoever replaces a page deletes its forms afterwards, or puts in their place what they are of a
  page that says the same, and whoever stores a form looks afterwards whether its page is still there: of the
  two, one comes last. Where a near tier shows who looks a page of a moment ago, the form lives on no longer
  than its page would have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from .answer import Answer, answer, not_modified_answer
from .encode import (
    LARGEST,
    client_has_form,
    coding_of,
    is_form,
    is_form_of,
    make_form,
    renew_form,
    says_the_same,
    with_tag,
)
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
        coding = admission.wanted_form
        if coding is None or coding_of(entry) is None or _is_coded(entry) or not can_be_coded(entry):
            return entry
        form = entry if is_form(entry) else self._made(entry, coding)[1]
        if form is None:  # it could not be stored, or is of no page that is
            form = make_form(entry, coding, _fields(entry))
        return form if _is_coded(form) else make_form(entry, coding, _fields(entry), anyhow=True)

    # --- making ------------------------------------------------------------------------------------

    def make(self, plain: Entry, coding: str) -> bool:
        """Make a form of a stored page and store it, unless it is there.

        Returns False where the store failed or did not take it, so that it is not tried again at once.
        """
        return self._made(plain, coding)[0]

    def _made(self, plain: Entry, coding: str) -> tuple[bool, Entry | None]:
        """What `make` returns, and the form as far as there is one."""
        try:
            return self._make(plain, coding)
        except Exception as error:
            self._failed(error)
            return False, None

    def _make(self, plain: Entry, coding: str) -> tuple[bool, Entry | None]:
        follower = self._follower_of(plain.key)
        page, place = _places(plain, coding)
        (record, stored, known), _ = follower.get([plain.key, page, place])
        if not isinstance(record, Variants) or record.fields != plain.terms.varying:
            return True, None  # the page varies by something else now
        if not _is_page(stored, plain):
            return True, None
        if isinstance(known, Entry) and is_form_of(known, plain):
            return True, known
        form = make_form(plain, coding, _fields(plain))
        follower.follow_now(plain.key)
        if follower.verdict(form) is not Verdict.VALID:
            return True, form
        if not follower.store.set(place, form, form.keep_until):
            return False, form
        self._note(form, place, follower.store)  # before the look, so that who replaces the page finds it
        self._look_again(follower, page, plain, {place: form})
        return True, form

    def _look_again(self, follower: Follower, page: str, plain: Entry, made: Mapping[str, Entry]) -> None:
        """Take back what was just stored where its page is not there any more."""
        (stored,), _ = follower.get([page])
        if not _is_page(stored, plain):
            for place, form in made.items():
                follower.store.delete(place, form)

    # --- keeping -----------------------------------------------------------------------------------

    def follow(
        self, page: str, plain: Entry, before: Entry | None, known: Sequence[str], follower: Follower
    ) -> None:
        """A page was stored: forms become those of the new one where that says the same, and go otherwise.

        What the store raises is told, not raised: the page itself is stored.

        Args:
            page: the variant key of the page.
            before: the page that it replaced, if that may lend it its forms.
            known: the variants that the record of varying fields names.
        """
        try:
            if before is None or not says_the_same(plain, before):
                self.drop(page, known, follower.store)
            elif places := _forms_of(page, known):
                self._renew(page, places, plain, before, follower)
        except Exception as error:
            self._failed(error)

    def _renew(
        self, page: str, places: Sequence[str], plain: Entry, before: Entry, follower: Follower
    ) -> None:
        forms, _ = follower.get(places)
        kept = {}
        for place, form in zip(places, forms, strict=True):
            renewed = renew_form(form, before, plain, _fields) if isinstance(form, Entry) else None
            if renewed is not None and follower.store.set(place, renewed, renewed.keep_until):
                kept[place] = renewed
            else:
                follower.store.delete(place)
        self._look_again(follower, page, plain, kept)

    # --- taking back -------------------------------------------------------------------------------

    def drop(self, page: str, known: Sequence[str], store: Store) -> None:
        """Delete the forms of a page that is not what they were made of any more.

        Args:
            page: the variant key of the page.
            known: the variants that the record of varying fields names.
        """
        for place in _forms_of(page, known):
            store.delete(place)


def can_be_coded(plain: Entry) -> bool:
    """Whether a body is of a kind and size that is coded here."""
    return type(plain.body) is bytes and len(plain.body) <= LARGEST


def _forms_of(page: str, known: Sequence[str]) -> list[str]:
    """Those variants of a record that are forms of a page."""
    family = page_of(page)
    return [key for key in known if key != page and page_of(key) == family]


def _is_coded(entry: Entry) -> bool:
    return entry.field("content-encoding") is not None


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
