"""Validation and freshening: RFC 9111 §3.2, §4.3.1, §4.3.3 to §4.3.5."""

import pytest
from rfc_helpers import DAY, Site, at, page

FRESH = "Cache-Control: max-age=60"
TAG = 'ETag: "a"'
MODIFIED = f"Last-Modified: {at(-DAY)}"


def stale(*lines, **options):
    """A site whose page has just become stale."""
    site = Site(*(lines or (FRESH, TAG)), **options)
    site.stored()
    site.tick(60)
    return site


def not_modified(site, *lines):
    site.answers(*lines, status="304 Not Modified", body=b"")


# --- the request that validates (§4.3.1) -----------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "asked"),
    [
        ([TAG], {"HTTP_IF_NONE_MATCH": '"a"'}),
        (['ETag: W/"a"'], {"HTTP_IF_NONE_MATCH": 'W/"a"'}),
        ([MODIFIED], {"HTTP_IF_MODIFIED_SINCE": at(-DAY)}),
        ([TAG, MODIFIED], {"HTTP_IF_NONE_MATCH": '"a"', "HTTP_IF_MODIFIED_SINCE": at(-DAY)}),
        ([], {}),
    ],
)
@pytest.mark.parametrize("profile", ["rfc", "safe"])
def test_a_stale_entry_is_validated_by_what_it_has(lines, asked, profile):
    """RFC 9111 §4.3.1: If-None-Match with its ETag, If-Modified-Since with its Last-Modified."""
    site = stale(FRESH, *lines, profile=profile)
    site.get()  # one hit, so that the entry has got an ETag of ours where it had none
    site.tick(60)
    site.get()
    sent = {name: site.last.get(name) for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE")}
    assert sent == {"HTTP_IF_NONE_MATCH": None, "HTTP_IF_MODIFIED_SINCE": None, **asked}


def test_the_first_request_is_not_conditional():
    """RFC 9111 §4.3.1: nothing stored, nothing to validate; the client's own conditions wait."""
    site = Site(FRESH, TAG)
    reply = site.get(headers={"If-None-Match": '"mine"', "If-Modified-Since": at(0), "If-Range": '"mine"'})
    assert (reply.code, reply.stored) == (200, True)
    assert not {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE"} & set(site.last)


def test_the_clients_tag_is_not_mixed_with_ours():
    """RFC 9111 §4.3.2: the app answers about the entry, and the client's condition is judged afterwards."""
    site = stale()
    not_modified(site, TAG, FRESH)
    reply = site.get(headers={"If-None-Match": '"other"'})
    assert site.last["HTTP_IF_NONE_MATCH"] == '"a"'
    assert (reply.code, reply.body, reply.cache["fwd-status"]) == (200, b"page", "304")


@pytest.mark.parametrize(
    "condition", [{"If-None-Match": '"a"'}, {"If-None-Match": '"x", W/"a"'}, {"If-None-Match": "*"}]
)
def test_a_client_that_has_the_freshened_page_gets_a_304(condition):
    """RFC 9111 §4.3.2: after validation the client's own condition decides between 200 and 304."""
    site = stale()
    not_modified(site, TAG, FRESH)
    reply = site.get(headers=condition)
    assert (reply.code, reply.body, reply.cache["fwd"], reply.stored) == (304, b"", "stale", True)
    assert site.get().body == b"page"
    assert site.calls == 2


def test_a_304_for_the_clients_own_tag_never_freshens_ours():
    """RFC 9111 §4.3.4: where the client's condition did go to the app, its 304 is passed on."""
    site = stale()
    not_modified(site, 'ETag: "mine"', FRESH)
    reply = site.get(headers={"If-None-Match": '"mine"', "Cache-Control": "no-store"})
    assert (reply.code, site.last["HTTP_IF_NONE_MATCH"]) == (304, '"mine"')
    assert reply.detail == "NOT_STORED_REQUEST"
    site.answers(FRESH, 'ETag: "b"', body=b"new")
    assert (site.get().body, site.last["HTTP_IF_NONE_MATCH"]) == (b"new", '"a"')


# --- the answer: 304 (§4.3.3, §4.3.4, §3.2) --------------------------------------------------------


def test_a_304_makes_the_entry_fresh_again():
    """RFC 9111 §4.3.4."""
    site = stale()
    not_modified(site, TAG, "Cache-Control: max-age=100")
    reply = site.get()
    assert (reply.code, reply.status, reply.body) == (200, "200 OK", b"page")
    assert reply.cache == {"fwd": "stale", "fwd-status": "304", "stored": "", "ttl": "100"}
    assert (reply.field("Age"), reply.field("Cache-Control")) == ("0", "max-age=100")
    site.tick(99)
    hit = site.get()
    assert (hit.cache, hit.body, hit.field("Age")) == ({"hit": "", "ttl": "1"}, b"page", "99")
    assert site.calls == 2


def test_a_304_replaces_the_fields_that_it_has():
    """RFC 9111 §3.2: each field of the 304 replaces all stored lines of its name; new ones are added."""
    site = stale(FRESH, TAG, "X-A: 1", "X-A: 2", "X-B: 3", "Set-Cookie: a=1", "X-C: 4")
    not_modified(site, TAG, "x-a: 9", "X-New: 5", "Set-Cookie: a=2", "Set-Cookie: b=3")
    for reply in (site.get(), site.get()):
        assert reply.all("X-A") == ["9"]
        assert reply.all("Set-Cookie") == ["a=2", "b=3"]
        assert [reply.field(name) for name in ("X-B", "X-C", "X-New")] == ["3", "4", "5"]
        assert reply.field("Cache-Control") == "max-age=60"


@pytest.mark.parametrize(
    ("kept", "sent"),
    [
        ("Content-Length: 4", "Content-Length: 0"),
        ("Content-Encoding: gzip", "Content-Encoding: br"),
        ("Content-Type: text/html", "Content-Type: text/plain"),
        ("Content-Range: x", "Content-Range: bytes */0"),
    ],
)
def test_a_304_does_not_change_what_the_stored_body_depends_on(kept, sent):
    """RFC 9111 §3.2: Content-Length never; what describes the stored bytes stays as it is (INT-08)."""
    site = stale(FRESH, TAG, kept)
    not_modified(site, TAG, FRESH, sent)
    name, _, value = kept.partition(": ")
    assert (site.get().field(name), site.get().field(name), site.calls) == (value, value, 2)


@pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "X-Listed"])
def test_a_304_adds_no_field_of_its_connection(name):
    """RFC 9111 §3.1, §3.2."""
    site = stale()
    not_modified(site, TAG, FRESH, "Connection: X-Listed", f"{name}: 1")
    site.get()
    assert (site.get().all(name), site.calls) == ([], 2)


def test_the_age_of_the_304_is_the_new_age():
    """RFC 9111 §4.3.4, §4.2.3: what another cache validated was already so old."""
    site = stale(FRESH, TAG, "Age: 50", f"Date: {at(-50)}")
    not_modified(site, TAG, FRESH, "Age: 7", f"Date: {at(60)}")
    assert site.get().cache["ttl"] == "53"
    hit = site.get()
    assert (hit.all("Age"), hit.all("Date"), site.calls) == (["7"], [at(60)], 2)


def test_a_304_without_date_was_sent_when_it_came():
    """RFC 9110 §6.6.1: an old Date must not make the freshened entry old."""
    site = stale(FRESH, TAG, f"Date: {at(0)}")
    not_modified(site, TAG)
    assert site.get().cache["ttl"] == "60"
    site.tick(59)
    assert (site.get().cache, site.calls) == ({"hit": "", "ttl": "1"}, 2)


def test_the_time_that_a_validation_takes_is_age():
    """RFC 9111 §4.2.3: the delay of the 304."""
    site = stale()

    def answer(environ):
        site.tick(9)
        return page(TAG, status="304 Not Modified", body=b"")

    site.app.answers(answer)
    assert (site.get().field("Age"), site.get().field("Age"), site.calls) == ("9", "9", 2)


@pytest.mark.parametrize(
    ("stored", "answered"),
    [
        ([TAG], [TAG]),
        ([TAG, MODIFIED], [TAG, f"Last-Modified: {at(0)}"]),
        (['ETag: W/"a"'], ['ETag: W/"a"']),
        ([TAG], ['ETag: W/"a"']),
        ([MODIFIED], [MODIFIED]),
        ([TAG, MODIFIED], [MODIFIED]),
        ([MODIFIED], []),
        ([TAG], []),
    ],
)
def test_a_304_with_matching_or_no_validators_freshens(stored, answered):
    """RFC 9111 §4.3.4: by a strong tag, by weak validators, or because only this entry was asked about."""
    site = stale(FRESH, *stored)
    not_modified(site, FRESH, *answered)
    assert (site.get().body, site.get().is_hit, site.calls) == (b"page", True, 2)


@pytest.mark.parametrize(
    ("stored", "answered"),
    [
        ([TAG], ['ETag: "b"']),
        ([TAG, MODIFIED], ['ETag: "b"', MODIFIED]),
        (['ETag: W/"a"'], ['ETag: W/"b"']),
        (['ETag: W/"a"'], [TAG]),
        ([MODIFIED], [f"Last-Modified: {at(0)}"]),
        ([MODIFIED], [TAG, MODIFIED]),
    ],
)
def test_a_304_about_something_else_freshens_nothing(stored, answered):
    """RFC 9111 §4.3.4: no stored response with that validator is updated; the app is asked plainly."""
    site = stale(FRESH, *stored)
    asked = []

    def answer(environ):
        conditional = "HTTP_IF_NONE_MATCH" in environ or "HTTP_IF_MODIFIED_SINCE" in environ
        asked.append(conditional)
        if conditional:
            return page(FRESH, *answered, status="304 Not Modified", body=b"")
        return page(FRESH, 'ETag: "b"', body=b"new")

    site.app.answers(answer)
    reply = site.get()
    assert (reply.code, reply.body, reply.stored, asked) == (200, b"new", True, [True, False])
    assert (site.get().body, site.calls) == (b"new", 3)


def test_an_app_that_answers_nothing_but_304_cannot_hold_us_up():
    """RFC 9111 §4.3.4: asked plainly it is once only."""
    site = stale()
    not_modified(site, 'ETag: "b"')
    assert (site.get().code, site.calls) == (304, 3)


@pytest.mark.parametrize("control", ["no-store", "private", "no-store, max-age=60"])
def test_a_304_may_say_that_the_page_is_not_stored_any_more(control):
    """RFC 9111 §4.3.4, §5.2.2.5: the client gets the page, and the store forgets it."""
    site = stale()
    not_modified(site, TAG, f"Cache-Control: {control}")
    reply = site.get()
    assert (reply.code, reply.body, reply.stored) == (200, b"page", False)
    assert reply.field("Cache-Control") == control
    site.answers(FRESH, body=b"new")
    assert (site.get().cache["fwd"], site.calls) == ("uri-miss", 3)


def test_a_purge_during_the_validation_beats_the_304():
    """INT-07: what was purged meanwhile is not brought back; the app is asked plainly."""
    site = stale()

    def answer(environ):
        if "HTTP_IF_NONE_MATCH" in environ:
            site.cache.purge("/")
            return page(TAG, FRESH, status="304 Not Modified", body=b"")
        return page(FRESH, body=b"new")

    site.app.answers(answer)
    assert (site.get().body, site.get().body, site.calls) == (b"new", b"new", 3)


def test_a_freshened_page_keeps_its_groups():
    """RFC 9875 §2 with RFC 9111 §3.2: old groups and new ones purge it."""
    site = stale(FRESH, TAG, 'Cache-Groups: "old"')
    not_modified(site, TAG, FRESH, 'Cache-Groups: "new"')
    assert site.get().stored
    site.cache.purge_groups("old")
    assert site.get().cache["fwd"] == "uri-miss"


# --- other answers (§4.3.3) ------------------------------------------------------------------------


def test_a_200_replaces_the_entry():
    """RFC 9111 §4.3.3: a full response is used and may replace what is stored."""
    site = stale(FRESH, TAG, "X-Old: 1")
    site.answers("Cache-Control: max-age=90", 'ETag: "b"', body=b"new")
    reply = site.get()
    assert (reply.body, reply.cache["fwd"], reply.cache["fwd-status"], reply.stored) == (
        b"new",
        "stale",
        "200",
        True,
    )
    hit = site.get()
    assert (hit.body, hit.field("ETag"), hit.field("X-Old"), site.calls) == (b"new", '"b"', None, 2)


def test_an_app_that_ignores_conditions_costs_one_call():
    """RFC 9111 §4.3.3: the 200 that it sends is the answer."""
    site = stale()
    for turn in range(3):
        assert (site.get().body, site.calls) == (b"page", 2 + turn)
        site.tick(60)


def test_an_error_is_passed_on_and_leaves_the_entry_alone():
    """RFC 9111 §4.3.3: a 5xx is forwarded unless a stale answer is permitted."""
    site = stale()
    site.answers(status="503 Service Unavailable", body=b"down")
    reply = site.get()
    assert (reply.code, reply.body, reply.cache["fwd-status"]) == (503, b"down", "503")
    not_modified(site, TAG, FRESH)
    assert (site.get().body, site.get().is_hit, site.calls) == (b"page", True, 3)


def test_a_404_that_is_not_storable_leaves_no_fresh_page():
    """RFC 9111 §4.3.3: the app's answer goes out, and the stale entry stays stale."""
    site = stale()
    site.answers("Cache-Control: no-store", status="404 Not Found", body=b"gone")
    assert (site.get().body, site.get().body, site.calls) == (b"gone", b"gone", 3)


# --- what a validation is for ----------------------------------------------------------------------


@pytest.mark.parametrize("status", ["404 Not Found", "301 Moved Permanently", "410 Gone"])
def test_only_a_200_is_validated(status):
    """RFC 9110 §13.2.1: conditions concern what would be a 200."""
    site = stale(FRESH, TAG, MODIFIED, status=status)
    site.get()
    assert not {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"} & set(site.last)


def test_a_soft_purged_page_is_validated_by_a_strong_tag_only():
    """Journal rule: after a soft purge a date of one second's grain proves nothing."""
    site = Site(FRESH, TAG, MODIFIED)
    site.stored()
    site.cache.purge("/", soft=True)
    not_modified(site, TAG, FRESH)
    reply = site.get()
    assert (reply.cache["fwd"], reply.detail, reply.cache["fwd-status"]) == ("stale", "STALE_PURGED", "304")
    assert "HTTP_IF_MODIFIED_SINCE" not in site.last
    assert site.get().is_hit
    weak = Site(FRESH, MODIFIED, 'ETag: W/"a"')
    weak.stored()
    weak.cache.purge("/", soft=True)
    weak.get()
    assert not {"HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE"} & set(weak.last)


def test_an_entry_is_kept_for_its_validator_after_it_became_stale():
    """RFC 9111 §4.3: for `keep` seconds, an hour unless set."""
    site = stale(FRESH, TAG, keep=100)
    site.tick(99)
    not_modified(site, TAG, FRESH)
    assert site.get().cache["fwd-status"] == "304"
    site.tick(160)
    site.answers(FRESH, body=b"new")
    reply = site.get()
    assert (reply.cache["fwd"], "HTTP_IF_NONE_MATCH" in site.last) == ("uri-miss", False)


def test_an_entry_without_a_validator_is_simply_asked_for_again():
    """RFC 9111 §4.3: an ETag that this cache made means nothing to the app."""
    site = stale(FRESH)
    reply = site.get(headers={"If-None-Match": "*"})
    assert "HTTP_IF_NONE_MATCH" not in site.last
    assert (reply.code, reply.cache["fwd-status"]) == (304, "200")
