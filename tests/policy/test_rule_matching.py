"""Which rule covers a path: globs, anchors, segments, first match; generous where it restricts, strict where
it permits (house rule 10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sites import Site, control

from wsgicache import Rule
from wsgicache.options import OptionError

PATTERNS = [
    # pattern, covered, not covered
    ("/about", ["/about"], ["/about/", "/about/x", "/abou", "/aboutx", "/x/about", "/About", "/"]),
    ("/", ["/"], ["/a", "//", ""]),
    ("/*", ["/", "/a", "/a/b", "/a/b/c.css", "//"], [""]),
    (
        "/post/*",
        ["/post/", "/post/1", "/post/1/2", "/post/a/b/c/d", "/post/\n"],
        ["/post", "/posts/1", "/x/post/1"],
    ),
    (
        "/post/*/edit",
        ["/post/1/edit", "/post//edit"],
        ["/post/1/2/edit", "/post/edit", "/post/1/edit/", "/post/1/edi"],
    ),
    ("/a*", ["/a", "/ab", "/a.b"], ["/a/b", "/b", "/"]),
    ("/*.css", ["/a.css", "/.css"], ["/a/b.css", "/acss", "/a.css/", "/a.cssx"]),
    (
        "/static/**/*.css",
        ["/static/a.css", "/static/a/b.css", "/static/a/b/c.css"],
        ["/a.css", "/static.css", "/static/a.cs"],
    ),
    ("/a/**", ["/a/", "/a/b", "/a/b/c"], ["/a", "/ab"]),
    ("/**", ["/", "/a/b"], [""]),
    ("/a/**/z", ["/a/z", "/a/b/z", "/a/b/c/z"], ["/a/bz", "/az", "/a/z/"]),
    ("/p?ge", ["/page", "/p.ge"], ["/pge", "/p/ge", "/paage"]),
    ("/a/?", ["/a/b"], ["/a/", "/a/bc", "/a//"]),
    ("/a.b", ["/a.b"], ["/axb"]),
    ("/a+b(c)[d]{e}|f^$", ["/a+b(c)[d]{e}|f^$"], ["/aab", "/f"]),
    ("/caf\u00e9/*", ["/caf\xc3\xa9/1"], ["/caf\xe9/1"]),
    ("/caf%C3%A9", ["/caf\xc3\xa9"], ["/caf%C3%A9"]),
    ("/a%20b", ["/a b"], ["/a%20b"]),
    ("/**x", ["/x", "/ax", "/a/x"], ["/a"]),
    ("regex:/[a-z]{2}/.*", ["/de/", "/en/a/b"], ["/deu/", "/DE/", "/x/de/", "/de"]),
    ("regex:/a|/b", ["/a", "/b"], ["/ab", "/a/b", "/x/a"]),
    ("regex:.*", ["/", "/a\nb"], []),
    ("regex:/a$", ["/a"], ["/a\n", "/ab"]),
]


def permits(pattern, path, **options):
    """Whether a rule that permits covers a path."""
    return Rule(pattern, ttl=60).covers(path, "example.com", "GET", **options)


def restricts(pattern, path):
    """Whether a rule that restricts covers a path."""
    return Rule(pattern, bypass=True).covers(path, "example.com", "GET")


@pytest.mark.parametrize(
    ("pattern", "covered", "others"), PATTERNS, ids=[pattern for pattern, _, _ in PATTERNS]
)
def test_patterns_are_anchored_and_aware_of_segments(pattern, covered, others):
    assert [path for path in covered if not permits(pattern, path)] == []
    assert [path for path in others if permits(pattern, path)] == []


@pytest.mark.parametrize(("pattern", "covered", "_"), PATTERNS, ids=[pattern for pattern, _, _ in PATTERNS])
def test_what_a_permitting_rule_covers_a_restricting_one_covers_too(pattern, covered, _):
    assert [path for path in covered if not restricts(pattern, path)] == []


# --- generous against strict ------------------------------------------------------------------------

ADMIN = [
    "/admin/",
    "/admin/users",
    "/admin/users/1/edit",
    "/admin",
    "/ADMIN/users",
    "/Admin",
    "//admin/users",
    "///admin//users",
    "/admin//users",
    "/%61dmin/users",
    "/admin%2Fusers",
    "/admin%2fusers",
    "/x/../admin/users",
    "/./admin/users",
    "/x/%2e%2e/admin/users",
    "/admin\\users",
    "/admin;jsessionid=1/users",
    "/admin;x",
    "/admin/users;x=1",
]
NOT_ADMIN = ["/", "/administration", "/admins/1", "/badmin/x", "/x/admin/y", "/admi", "/a/d/m/i/n"]


@pytest.mark.parametrize("path", ADMIN)
def test_a_rule_that_restricts_matches_other_spellings_too(path):
    assert restricts("/admin/*", path)
    site = Site(control("public, max-age=60"), rules=[Rule("/admin/*", bypass=True)])
    for _ in range(2):
        reply = site.ask(PATH_INFO=path)
        assert reply.detail in ("BYPASS_RULE", "BYPASS_PATH")
        assert not reply.stored


@pytest.mark.parametrize("path", NOT_ADMIN)
def test_a_rule_that_restricts_is_not_so_generous_that_it_takes_its_neighbours(path):
    assert not restricts("/admin/*", path)


@pytest.mark.parametrize(
    "path",
    [
        "/static",
        "/STATIC/x",
        "//static/x",
        "/%73tatic/x",
        "/static%2Fx",
        "/x/../static/x",
        "/./static/x",
        "/static;x/y",
        "/x/static/y",
    ],
)
def test_a_rule_that_permits_matches_no_other_spelling(path):
    assert not permits("/static/*", path)
    site = Site(control("no-cache"), rules=[Rule("/static/*", ttl=60, override=True)])
    site.ask(PATH_INFO=path)
    assert not site.ask(PATH_INFO=path).is_hit


@pytest.mark.parametrize("path", ["/about", "/about/", "/ABOUT", "//about", "/%61bout", "/about//"])
def test_a_restricting_rule_without_a_star_takes_a_trailing_slash_too(path):
    assert restricts("/about", path)


@pytest.mark.parametrize("path", ["/account/x.css", "/Account/x.css", "//account//x.css"])
def test_restricting_regular_expressions_are_generous_too(path):
    assert restricts(r"regex:/account/.*\.css", path)


@given(st.text(st.sampled_from("/admin%2Fu.;\\AD"), max_size=14))
def test_restricting_covers_at_least_what_permitting_covers(text):
    path = "/" + text
    for pattern in ("/admin/*", "/admin", "/*/u", "/a**", "regex:/a.*"):
        assert not permits(pattern, path) or restricts(pattern, path)


# --- first match ------------------------------------------------------------------------------------


def test_the_first_rule_that_matches_wins():
    rules = [Rule("/a/b", ttl=1, name="one"), Rule("/a/*", ttl=2, name="two"), Rule("/*", ttl=3)]
    site = Site(rules=rules)
    explain = site.cache.explain
    assert [explain(url).rule for url in ("/a/b", "/a/c", "/a/", "/x")] == ["one", "two", "two", "/*"]


def test_a_permitting_rule_before_a_restricting_one_wins():
    site = Site(rules=[Rule("/admin/public", ttl=60), Rule("/admin/*", bypass=True)])
    site.fill("/admin/public")
    assert site.ask("/admin/private").detail == "BYPASS_RULE"


def test_what_no_rule_covers_has_the_defaults():
    site = Site(rules=[Rule("/a", ttl=1)])
    explanation = site.cache.explain("/b")
    assert explanation.rule is None
    site.fill("/b")
    assert site.ask("/b").cache["ttl"] == "300"


# --- host and methods -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "host", "covered"),
    [
        ("example.com", "example.com", True),
        ("EXAMPLE.com", "example.com", True),
        ("*.example.com", "www.example.com", True),
        ("*.example.com", "example.com", False),
        ("example.com", "www.example.com", False),
        ("example.com", "example.com.evil.org", False),
        ("example.*", "example.org", True),
        (None, "anything", True),
    ],
)
def test_a_rule_may_be_for_some_hosts(glob, host, covered):
    rule = Rule("/*", ttl=60, host=glob)
    assert rule.covers("/", host, "GET") is covered


@pytest.mark.parametrize(
    "host", ["admin.example.com", "ADMIN.example.com", "admin.example.com.", "admin.example.com:8080"]
)
def test_a_restricting_rule_is_generous_with_spellings_of_its_host(host):
    site = Site(rules=[Rule("/*", host="admin.example.com", bypass=True)])
    assert site.ask(headers={"Host": host}).detail == "BYPASS_RULE"
    assert site.ask(headers={"Host": "www.example.com"}).stored


@pytest.mark.parametrize("host", ["static.example.com.", "static.example.com:8080"])
def test_a_permitting_rule_is_strict_with_its_host(host):
    site = Site(control("no-cache"), rules=[Rule("/*", host="static.example.com", ttl=60, override=True)])
    assert site.ask(headers={"Host": "static.example.com"}).stored
    assert not site.ask(headers={"Host": host}).stored


@pytest.mark.parametrize("methods", ["HEAD", "head,options", ("HEAD",), ["Head"]])
def test_a_rule_may_be_for_some_methods(methods):
    rule = Rule("/*", bypass=True, methods=methods)
    assert rule.covers("/", "h", "HEAD")
    assert not rule.covers("/", "h", "GET")
    site = Site(rules=[rule])
    site.fill()
    assert site.ask(method="HEAD").detail == "BYPASS_RULE"
    assert site.ask().is_hit


def test_a_rule_for_get_only_leaves_head_to_the_next_one():
    site = Site(rules=[Rule("/*", ttl=60, methods="GET", name="gets")])
    assert site.cache.explain("/").rule == "gets"
    assert site.cache.explain("/", method="HEAD").rule is None


# --- bad patterns -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("about", "a pattern starts with /"),
        ("", "a pattern starts with /"),
        ("*.css", "a pattern starts with /"),
        ("http://example.com/", "a pattern starts with /"),
        ("regex:/(", "not a regular expression"),
        ("regex:/a(?i)", "not a regular expression"),
    ],
)
def test_a_bad_pattern_is_refused_with_the_remedy(pattern, remedy):
    with pytest.raises(OptionError) as refused:
        Rule(pattern, ttl=60)
    assert repr(pattern) in str(refused.value)
    assert remedy in str(refused.value)
