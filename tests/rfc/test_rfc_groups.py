"""Cache groups: RFC 9875 §2."""

import pytest
from rfc_helpers import Site, assert_not_stored, page

FRESH = "Cache-Control: max-age=600"


@pytest.mark.parametrize(
    "lines",
    [
        ['Cache-Groups: "one"'],
        ['Cache-Groups: "x", "one"'],
        ['Cache-Groups: "x"', 'Cache-Groups: "one"'],
        ['cache-groups: "one";a=1'],
        ['Cache-Groups: "one", "one"'],
    ],
)
def test_a_page_belongs_to_the_groups_that_it_names(lines):
    """RFC 9875 §2: a structured list of strings."""
    site = Site(FRESH, *lines)
    site.stored()
    site.cache.purge_groups("two")
    assert site.get().is_hit
    site.cache.purge_groups("one")
    assert (site.get().cache["fwd"], site.calls) == ("uri-miss", 2)


@pytest.mark.parametrize(
    "value", ["one", "one, two", '"one", two', '"one" "two"', '("one")', '"one"x', "?1", ""]
)
def test_a_broken_list_names_no_group(value):
    """RFC 9651 §4.2: ignored as a whole; the page is stored all the same."""
    site = Site(FRESH, f"Cache-Groups: {value}")
    site.stored()
    site.cache.purge_groups("one", "two")
    assert site.get().is_hit


def test_names_are_compared_exactly():
    """RFC 9875 §2: case-sensitive, character by character."""
    site = Site(FRESH, 'Cache-Groups: "One"')
    site.stored()
    site.cache.purge_groups("one", "ONE", " One", "On")
    assert site.get().is_hit


def test_the_same_name_on_another_origin_is_another_group():
    """RFC 9875 §2: groups are those of one origin."""
    site = Site(FRESH, 'Cache-Groups: "one"')
    urls = ["http://a.test/", "https://a.test/", "http://a.test:81/", "http://b.test/"]
    for url in urls:
        site.stored(url)
    site.cache.purge_groups("one", origin="http://a.test")
    assert [site.get(url).is_hit for url in urls] == [False, True, True, True]


def test_the_field_is_passed_on():
    """RFC 9875 §2: caches behind this one have groups too."""
    site = Site(FRESH, 'Cache-Groups: "one"')
    assert site.stored().field("Cache-Groups") == site.get().field("Cache-Groups") == '"one"'


@pytest.mark.parametrize("line", ["Surrogate-Key: one two", "Cache-Tag: one,two", "Cache-Tag: two , one"])
def test_two_older_names_are_accepted(line):
    """RFC 9875 §2 has a name of its own; Surrogate-Key and Cache-Tag count as input names."""
    site = Site(FRESH, line)
    site.stored()
    site.cache.purge_groups("one")
    assert not site.get().is_hit


def test_too_many_groups_are_not_stored():
    """RFC 9875 §2 lets a cache set a limit; a page whose groups were cut off could not be purged."""
    names = ", ".join([f'"{number}"' for number in range(65)])
    assert_not_stored(Site(FRESH, f"Cache-Groups: {names}"), "NOT_STORED_GROUPS")
    site = Site(FRESH, f"Cache-Groups: {names}", max_groups=65)
    site.stored()
    site.cache.purge_groups("64")
    assert not site.get().is_hit


def test_a_group_that_is_not_known_yet_cannot_be_raced():
    """CON-02: a purge while the page is made covers the group that the page will name."""
    site = Site()

    def answer(environ):
        if site.calls == 0:
            site.cache.purge_groups("one")
        return page(FRESH, 'Cache-Groups: "one"')

    site.app.answers(answer)
    site.get()
    assert (site.get().cache["fwd"], site.calls) == ("uri-miss", 2)
    assert site.get().is_hit
