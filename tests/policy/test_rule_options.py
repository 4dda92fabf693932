"""Every option of a rule does what the table says, is typed, and is refused with a remedy where it is not."""

from datetime import timedelta

import pytest
from sites import HTML, Site, control, page

from wsgicache import Rule
from wsgicache.options import RULE_OPTIONS, OptionError
from wsgicache.profile import SAFE
from wsgicache.rules import RuleSet, fingerprint
from wsgicache.testing import FakeClock

SHOWN = {}


def shows(option):
    """Register the test that shows what an option does; all of them must be shown."""

    def register(test):
        SHOWN[option] = test
        return test

    return register


def ttl_of(site, url="/"):
    """The lifetime that a page was stored with."""
    return int(site.fill(url).cache["ttl"])


@shows("name")
def test_name():
    site = Site(rules=[Rule("/*", ttl=5, name="all")])
    assert site.cache.explain("/").rule == "all"
    assert site.cache.rules["all"].pattern == "/*"


@shows("bypass")
def test_bypass():
    site = Site(rules=[Rule("/a", bypass=True), Rule("/b", bypass=False)])
    assert site.ask("/a").detail == "BYPASS_RULE"
    site.fill("/b")


@shows("ttl")
def test_ttl():
    for given in (90, "90", "90s", "1.5m", timedelta(seconds=90)):
        assert ttl_of(Site(rules=[Rule("/*", ttl=given)])) == 90
    assert ttl_of(Site(rules=[Rule("/*", ttl=None)])) == 300
    assert Site(rules=[Rule("/*", ttl=0)]).ask().detail == "NOT_STORED_STALE"


@shows("statuses")
def test_statuses():
    for given in ("200, 404:10,503:7", {200: None, 404: 10, 503: 7}, {"200": None, "404": "10", "503": "7s"}):
        rules = [Rule("/*", ttl=90, statuses=given)]
        for code, seconds in ((200, 90), (404, 10), (503, 7)):
            assert ttl_of(Site(page(status=f"{code} X"), rules=rules)) == seconds
        assert Site(page(status="301 X"), rules=rules).ask().detail == "NOT_STORED_NO_LIFETIME"
        assert Site(page(status="500 X"), rules=rules).ask().detail == "NOT_STORED_STATUS"
    assert ttl_of(Site(page(status="404 X"), rules=[Rule("/*", ttl=90, statuses=[404])])) == 90
    assert ttl_of(Site(page(status="404 X"), rules=[Rule("/*", statuses=404)])) == 300


@shows("override")
def test_override():
    answer = control("max-age=10, no-cache")
    assert Site(answer, rules=[Rule("/*", ttl=90)]).ask().detail == "NOT_STORED_NO_CACHE"
    assert ttl_of(Site(answer, rules=[Rule("/*", ttl=90, override=True)])) == 90


@shows("query")
def test_query():
    for mode, one, other in (("key", "/?a=1&b=2", "/?b=2&a=1"), ("sort", "/?a=1", "/?a=2")):
        site = Site(rules=[Rule("/*", query=mode)])
        site.fill(one)
        site.fill(other)
        assert site.ask(one).is_hit
    sorting = Site(rules=[Rule("/*", query="sort")])
    sorting.fill("/?a=1&b=2")
    assert sorting.ask("/?b=2&a=1").is_hit
    assert Site(rules=[Rule("/*", query="bypass")], profile="rfc").ask("/?a=1").detail == "BYPASS_QUERY"


@shows("ignore_query")
def test_ignore_query():
    for given in ("utm_*,ref", ("utm_*", "ref")):
        site = Site(rules=[Rule("/*", query="key", ignore_query=given)])
        site.fill("/?a=1&utm_x=1&ref=2")
        assert site.last["QUERY_STRING"] == "a=1"
        assert site.ask("/?a=1").is_hit


@shows("cookies")
def test_cookies():
    site = Site(rules=[Rule("/*", cookies="lang, theme")])
    site.fill(headers={"Cookie": "lang=de; session=a; theme=x"})
    assert site.last["HTTP_COOKIE"] == "lang=de; theme=x"
    assert not site.ask(headers={"Cookie": "lang=en"}).is_hit
    ignoring = Site(rules=[Rule("/*", cookies="ignore")])
    ignoring.fill(headers={"Cookie": "session=a"})
    assert "HTTP_COOKIE" not in ignoring.last


@shows("vary")
def test_vary():
    for given in ("X-Device, x-part", ["X-DEVICE", "X-Part"]):
        site = Site(rules=[Rule("/*", vary=given)])
        site.fill(headers={"X-Device": "phone"})
        site.fill(headers={"X-Device": "desktop"})
        site.fill(headers={"X-Device": "phone", "X-Part": "1"})
        site.fill()
        assert site.ask(headers={"X-Device": "phone"}).is_hit
        assert site.app.calls == 4


@shows("groups")
def test_groups():
    site = Site(page(("Cache-Groups", '"own"')), rules=[Rule("/*", groups="home, news")])
    for group in ("home", "news", "own"):
        site.fill()
        assert site.ask().is_hit
        assert site.cache.purge_groups(group).matched == 1
        assert not site.ask().is_hit
        site.cache.clear()


@shows("stale_while_revalidate")
def test_stale_while_revalidate():
    site = Site(
        control("max-age=10"), rules=[Rule("/*", stale_while_revalidate="1m")], stale_while_revalidate=5
    )
    site.fill()
    site.clock.tick(69)
    assert site.ask().detail == "HIT_STALE_WHILE_REVALIDATE"
    site.cache.engine.refresher.drain()


@shows("stale_if_error")
def test_stale_if_error():
    site = Site(control("max-age=10"), rules=[Rule("/*", stale_if_error=60)])
    site.fill()
    site.clock.tick(69)
    site.app.answers(page(status="500 X"))
    assert site.ask().detail == "HIT_STALE_IF_ERROR"
    site.clock.tick(1)
    assert site.ask().code == 500


@shows("early_refresh")
def test_early_refresh():
    clock = FakeClock()

    def answer(environ):
        clock.tick(2)
        return page()

    rules = [Rule("/dear/*", early_refresh="0.5"), Rule("/cheap/*", early_refresh=0)]
    site = Site(answer, clock=clock, ttl=100, rules=rules, early_refresh=1)
    site.cache.engine.uniform = lambda: 0.5
    urls = ("/dear/a", "/cheap/a", "/a")
    for url in urls:
        site.fill(url)
        assert site.ask(url).is_hit
    site.clock.tick(97 - 3 * 2)
    assert [site.ask(url).detail for url in urls] == ["HIT_EARLY_REFRESH", None, None]
    site.cache.engine.refresher.drain()
    assert site.app.calls == 4


@shows("jitter")
def test_jitter():
    site = Site(ttl=100, rules=[Rule("/a", jitter="20s"), Rule("/b", jitter=0)], jitter=40)
    site.cache.engine.uniform = lambda: 0.999
    assert [site.fill(url).cache["ttl"] for url in ("/a", "/b", "/c")] == ["80", "100", "60"]


@shows("max_body_bytes")
def test_max_body_bytes():
    site = Site(
        page(body=b"12345"), rules=[Rule("/small", max_body_bytes=4), Rule("/exact", max_body_bytes="5B")]
    )
    assert site.ask("/small").detail == "NOT_STORED_TOO_LARGE"
    site.fill("/exact")
    site.fill("/other")
    larger = Site(page(body=b"12345"), max_body_bytes=4, rules=[Rule("/large", max_body_bytes="1kB")])
    larger.fill("/large")
    assert not larger.ask("/other").stored


@shows("methods")
def test_methods():
    site = Site(rules=[Rule("/*", methods="head", bypass=True)])
    assert site.ask(method="HEAD").detail == "BYPASS_RULE"
    site.fill()


@shows("host")
def test_host():
    site = Site(rules=[Rule("/*", host="*.example.com", ttl=7)])
    assert ttl_of(site, "http://www.example.com/") == 7
    assert ttl_of(site, "http://example.com/") == 300


@shows("strip_set_cookie")
def test_strip_set_cookie():
    site = Site(page(("Set-Cookie", "a=1")), rules=[Rule("/*", strip_set_cookie=True)])
    assert site.fill().all("set-cookie") == ["a=1"]
    reply = site.ask()
    assert (reply.is_hit, reply.all("set-cookie")) == (True, [])


@shows("store_tokens")
def test_store_tokens():
    answer = page(HTML, body=b'<input name="csrf_token">')
    site = Site(answer, rules=[Rule("/*", store_tokens=True)])
    site.fill()
    assert site.ask().is_hit


@shows("enabled")
def test_enabled():
    site = Site(rules=[Rule("/*", bypass=True, name="all", enabled=False)])
    site.fill()
    site.cache.rules.enable("all")
    assert site.ask().detail == "BYPASS_RULE"


@shows("encode")
def test_encode():
    for given in ("gzip", ("gzip",), ["gzip"]):
        site = Site(page(HTML, body=b"<p>page</p>" * 200), rules=[Rule("/b", encode=given)])
        assert site.fill("/a").all("vary") == []
        assert site.fill("/b").field("vary") == "Accept-Encoding"
    for given in ((), ""):
        site = Site(
            page(HTML, body=b"<p>page</p>" * 200), encode="gzip", rules=[Rule("/b", encode=given), Rule("/*")]
        )
        assert site.fill("/a").field("vary") == "Accept-Encoding"
        assert site.fill("/b").all("vary") == []


def test_every_option_of_the_table_is_shown_here():
    assert set(SHOWN) == set(RULE_OPTIONS)


# --- documented -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", RULE_OPTIONS.values(), ids=lambda option: option.name)
def test_every_option_is_documented(option):
    assert option.meaning.endswith(".") or ";" in option.meaning
    assert option.unit
    assert option.name in (Rule.__doc__ or "")
    assert RULE_OPTIONS[option.name] is option


@pytest.mark.parametrize("option", RULE_OPTIONS.values(), ids=lambda option: option.name)
def test_every_default_is_a_value_that_its_reader_accepts(option):
    assert option.read(option.default) == option.default


# --- refused ----------------------------------------------------------------------------------------

BAD = [
    ("ttl", -1),
    ("ttl", "soon"),
    ("ttl", "5 minutes"),
    ("ttl", 1.5),
    ("ttl", True),
    ("ttl", [5]),
    ("ttl", 2**40),
    ("ttl", float("nan")),
    ("ttl", float("inf")),
    ("statuses", "200,x"),
    ("statuses", "206"),
    ("statuses", "304"),
    ("statuses", 99),
    ("statuses", "600"),
    ("statuses", {404: "soon"}),
    ("bypass", "maybe"),
    ("bypass", 2),
    ("bypass", None),
    ("override", "2"),
    ("query", "all"),
    ("query", True),
    ("ignore_query", 5),
    ("ignore_query", [5]),
    ("cookies", ""),
    ("cookies", []),
    ("cookies", 5),
    ("vary", "a b"),
    ("vary", "*"),
    ("vary", [b"x"]),
    ("groups", 7),
    ("stale_while_revalidate", "-5"),
    ("stale_if_error", "x"),
    ("early_refresh", "yes"),
    ("early_refresh", True),
    ("early_refresh", -1),
    ("early_refresh", "nan"),
    ("early_refresh", 11),
    ("jitter", "10%"),
    ("jitter", -1),
    ("jitter", 0.5),
    ("max_body_bytes", "big"),
    ("max_body_bytes", -1),
    ("max_body_bytes", True),
    ("methods", 5),
    ("methods", ""),
    ("methods", []),
    ("host", 5),
    ("name", 5),
    ("strip_set_cookie", "x"),
    ("store_tokens", "x"),
    ("enabled", "x"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda value: repr(value)[:30])
def test_a_bad_value_is_refused_with_option_value_and_remedy(name, value):
    with pytest.raises(OptionError) as refused:
        Rule("/x/*", **{name: value})
    text = str(refused.value)
    assert "Rule('/x/*')" in text
    assert name in text
    assert repr(value) in text
    assert len(text.rpartition(":")[2].split()) >= 2, "and a remedy"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tll", "ttl"),
        ("by_pass", "bypass"),
        ("ignorequery", "ignore_query"),
        ("zzz", "known options are name, bypass"),
    ],
)
def test_an_unknown_option_is_refused_and_says_what_is_known(name, hint):
    with pytest.raises(OptionError, match="unknown option") as refused:
        Rule("/x", **{name: 5})
    assert repr(name) in str(refused.value)
    assert "= 5" in str(refused.value)
    assert hint in str(refused.value)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"override": True}, "needs a ttl"),
        ({"ignore_query": "a"}, 'needs query="key"'),
        ({"ignore_query": "a", "query": "bypass"}, 'needs query="key"'),
        ({"bypass": True, "ttl": 5}, "nothing for ttl to do"),
        ({"bypass": True, "ttl": 5, "cookies": "ignore"}, "nothing for cookies, ttl to do"),
        ({"bypass": True, "override": True, "ttl": 5}, "nothing for override, ttl to do"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options, remedy):
    with pytest.raises(OptionError) as refused:
        Rule("/x", **options)
    assert remedy in str(refused.value)
    assert "'/x'" in str(refused.value)


def test_ignore_query_is_no_contradiction_where_the_profile_keys_the_query():
    site = Site(profile="rfc", ttl=60, rules=[Rule("/*", query="key", ignore_query="utm_*")])
    site.fill("/?utm_x=1")
    assert site.ask("/").is_hit


# --- one ini line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "pattern", "options"),
    [
        ("/admin/* bypass", "/admin/*", {"bypass": True}),
        ("/static/* ttl=86400 override", "/static/*", {"ttl": 86400, "override": True}),
        (
            "  /s   query=key   ignore_query=utm_*,gclid ",
            "/s",
            {"query": "key", "ignore_query": ("utm_*", "gclid")},
        ),
        ("'/a b' ttl=1h", "/a b", {"ttl": 3600}),
        ("/x bypass=no ttl=5", "/x", {"bypass": False, "ttl": 5}),
        ('/x groups="home, news"', "/x", {"groups": ("home", "news")}),
        ("/x statuses=200,404:10 ttl=5", "/x", {"statuses": {200: None, 404: 10}}),
        ('"regex:/(a|b)/.*" ttl=5', "regex:/(a|b)/.*", {"ttl": 5}),
        (
            "/x cookies=lang vary=X-Part host=*.org methods=get,head",
            "/x",
            {"cookies": ("lang",), "vary": ("x-part",)},
        ),
    ],
)
def test_an_ini_line_reads_as_the_same_rule(text, pattern, options):
    rule = Rule.parse("some", text)
    assert (rule.name, rule.pattern) == ("some", pattern)
    for name, value in options.items():
        assert rule.options[name] == value


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["rule.some", "write a pattern"]),
        ("   ", ["rule.some", "write a pattern"]),
        ("bypass", ["rule.some", "'bypass'", "a pattern starts with /"]),
        ("/x bypas", ["rule.some", "'bypas'", "did you mean 'bypass'?"]),
        ("/x ttl=soon", ["rule.some", "ttl", "'soon'", "give seconds"]),
        ("/x ttl", ["rule.some", "ttl", "give"]),
        ("/x 'ttl=5", ["rule.some", "cannot be read"]),
        ("/x ttl=5 bypass", ["rule.some", "nothing for ttl to do"]),
        ("/x ttl = 5", ["rule.some"]),
        ("/x ttl=5 ttl=6", ["rule.some", "ttl", "twice"]),
        ("/x name=other ttl=5", ["rule.some", "name"]),
    ],
)
def test_a_bad_ini_line_is_refused_with_its_name_and_the_remedy(text, parts):
    with pytest.raises(OptionError) as refused:
        Rule.parse("some", text)
    for part in parts:
        assert part in str(refused.value)


def test_a_rule_shows_what_it_was_given():
    rule = Rule("/x", ttl="5m", name="x", vary="A")
    assert repr(rule) == "Rule('/x', name='x', ttl=300, vary=('a',))"
    assert repr(Rule("/y")) == "Rule('/y')"


# --- sets of rules ----------------------------------------------------------------------------------


def test_something_else_than_a_rule_is_refused():
    for given in ([("/x", 5)], ["/x bypass"], [None]):
        with pytest.raises(OptionError, match=r"write Rule\("):
            RuleSet(given)


def test_two_rules_with_one_name_are_refused():
    with pytest.raises(OptionError, match="'a'"):
        RuleSet([Rule("/x", name="a"), Rule("/y", name="a")])
    RuleSet([Rule("/x"), Rule("/x")])


# --- fingerprints -----------------------------------------------------------------------------------

SHAPES = [
    Rule("/x"),
    Rule("/y"),
    Rule("/x", ttl=5),
    Rule("/x", ttl=6),
    Rule("/x", ttl=5, override=True),
    Rule("/x", statuses="200"),
    Rule("/x", query="key"),
    Rule("/x", query="key", ignore_query="a"),
    Rule("/x", query="key", ignore_query="b"),
    Rule("/x", cookies="ignore"),
    Rule("/x", cookies="a"),
    Rule("/x", vary="a"),
    Rule("/x", groups="a"),
    Rule("/x", strip_set_cookie=True),
    Rule("/x", store_tokens=True),
    Rule("/x", host="a"),
    Rule("/x", methods="GET"),
    Rule("/x", max_body_bytes=5),
    Rule("/x", stale_if_error=5),
    Rule("/x", stale_while_revalidate=5),
    Rule("/x", bypass=True),
    None,
]


def test_a_fingerprint_changes_with_everything_that_an_entry_is_stored_under():
    prints = [fingerprint(SAFE, rule, ()) for rule in SHAPES]
    assert len(set(prints)) == len(SHAPES)
    assert prints == [fingerprint(SAFE, rule, ()) for rule in SHAPES], "and with nothing else"


def test_a_name_and_a_switch_do_not_change_it():
    plain = fingerprint(SAFE, Rule("/x", ttl=5), ())
    assert fingerprint(SAFE, Rule("/x", ttl=5, name="a"), ()) == plain
    assert fingerprint(SAFE, Rule("/x", ttl=5, enabled=False), ()) == plain


def test_nor_does_what_says_only_when_a_page_is_made_again():
    plain = fingerprint(SAFE, Rule("/x", ttl=5), ())
    assert fingerprint(SAFE, Rule("/x", ttl=5, early_refresh=1), ()) == plain
    assert fingerprint(SAFE, Rule("/x", ttl=5, jitter=1), ()) == plain
