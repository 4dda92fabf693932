"""Requests with credentials: RFC 9111 §3.5."""

import pytest
from rfc_helpers import Site, assert_not_stored

ALICE = {"Authorization": "Basic YWxpY2U6eA=="}
BOB = {"Authorization": "Basic Ym9iOng="}


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize(
    "control",
    ["max-age=60", "max-age=60, proxy-revalidate", "max-age=60, immutable", "max-age=60, public=no"],
)
def test_an_answer_to_credentials_is_not_stored(control, profile):
    """RFC 9111 §3.5."""
    site = Site(f"Cache-Control: {control}", profile=profile)
    assert_not_stored(site, "BYPASS_AUTHORIZATION", ALICE)
    assert site.last["HTTP_AUTHORIZATION"] == ALICE["Authorization"]


def test_vary_authorization_is_no_permission():
    """RFC 9111 §3.5: only a directive is."""
    site = Site("Cache-Control: max-age=60", "Vary: Authorization")
    assert_not_stored(site, "BYPASS_AUTHORIZATION", ALICE)


@pytest.mark.parametrize("profile", ["rfc", "safe"])
@pytest.mark.parametrize("control", ["public, max-age=60", "s-maxage=60", "max-age=60, must-revalidate"])
def test_three_directives_let_it_be_stored_and_reused(control, profile):
    """RFC 9111 §3.5: public, s-maxage and must-revalidate."""
    site = Site(f"Cache-Control: {control}", profile=profile)
    site.stored(headers=ALICE)
    for headers in (ALICE, BOB, None):
        reply = site.get(headers=headers)
        assert (reply.is_hit, reply.body) == (True, b"page")
    assert site.calls == 1


@pytest.mark.parametrize("control", ["max-age=60, Must-Revalidate=x", "max-age=60, must-revalidate x"])
def test_a_broken_must_revalidate_permits_nothing(control):
    """RFC 9111 §3.5: a permission must be plain."""
    assert_not_stored(Site(f"Cache-Control: {control}"), "BYPASS_AUTHORIZATION", ALICE)


@pytest.mark.parametrize("profile", ["rfc", "safe"])
def test_what_was_stored_for_all_does_not_answer_credentials(profile):
    """House rule 5, in both profiles stricter than RFC 9111 §3.5: the app may know this visitor."""
    site = Site("Cache-Control: max-age=60", profile=profile)
    site.stored()
    reply = site.get(headers=ALICE)
    assert (reply.cache["fwd"], reply.detail, site.calls) == ("bypass", "BYPASS_AUTHORIZATION", 2)
    assert site.get().is_hit


def test_an_answer_to_credentials_does_not_replace_what_is_stored_for_all():
    """RFC 9111 §3.5."""
    site = Site("Cache-Control: max-age=60", body=b"everybody's")
    site.stored()
    site.answers("Cache-Control: max-age=60", body=b"Alice's")
    assert site.get(headers=ALICE).body == b"Alice's"
    assert site.get().body == b"everybody's"
    assert site.calls == 2


@pytest.mark.parametrize(
    "environ",
    [{"REMOTE_USER": "alice"}, {"SSL_CLIENT_VERIFY": "SUCCESS"}, {"SSL_CLIENT_CERT": "-----BEGIN"}],
)
def test_other_credentials_count_the_same(environ):
    """House rule 5: what the server authenticated is no less a credential than Authorization."""
    site = Site("Cache-Control: max-age=60")
    first = site.get(**environ)
    assert (first.stored, first.detail) == (False, "BYPASS_AUTHORIZATION")
    assert (site.get().cache["fwd"], site.calls) == ("uri-miss", 2)


def test_public_with_a_targeted_field_permits_too():
    """RFC 9213 §2.2: the directives in force are those of the targeted field."""
    site = Site("Cache-Control: private", "CDN-Cache-Control: public, max-age=60")
    site.stored(headers=ALICE)
    assert site.get().is_hit
    refused = Site("Cache-Control: public, max-age=60", "CDN-Cache-Control: max-age=60")
    assert_not_stored(refused, "BYPASS_AUTHORIZATION", ALICE)
