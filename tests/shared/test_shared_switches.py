"""Rules that are switched in one process are switched in all, and in those that start later."""

import pytest
from shared_helpers import Site, refuse

from wsgicache import Reason, Rule
from wsgicache.facts import Facts
from wsgicache.stores import StoreError
from wsgicache.testing import make_environ


def rules():
    """Each process has rules of its own that say the same."""
    return [Rule("/admin/*", bypass=True, name="admin"), Rule("/page", ttl=60, name="page"), Rule("/x")]


def site_with(number=2):
    site = Site()
    return site, *[site.workers(1, rules=rules())[0] for _ in range(number)]


def bypassed(worker):
    return worker.ask("/admin/a").detail == Reason.BYPASS_RULE.name


@pytest.mark.parametrize("through", ["disable", "attribute"])
def test_a_switch_reaches_the_others_with_their_next_request_of_the_store(through):
    _site, one, two = site_with()
    assert [bypassed(one), bypassed(two)] == [True, True]
    two.ask()
    if through == "disable":
        one.cache.rules.disable("admin")
    else:
        one.cache.rules["admin"].enabled = False
    two.ask()
    assert [bypassed(one), bypassed(two)] == [False, False]
    two.cache.rules.enable("admin")
    one.ask()
    assert [bypassed(one), bypassed(two)] == [True, True]


@pytest.mark.parametrize("armed", [False, True])
def test_the_first_request_that_asks_the_store_is_already_judged_by_it(armed):
    site = Site()
    one, two = [site.workers(1, rules=[Rule("/page", bypass=True, name="p", enabled=False)])[0] for _ in "12"]
    for _ in range(3 if armed else 1):
        one.ask()
        two.ask()
    one.cache.rules.enable("p")
    for worker in (two, one):
        assert worker.ask().detail == Reason.BYPASS_RULE.name


def test_a_switch_that_could_not_be_read_is_read_later():
    _, one, two = site_with()
    two.ask()
    one.cache.rules.disable("admin")
    read, two.store.get_meta = two.store.get_meta, refuse
    assert two.ask().detail == Reason.STORE_DOWN.name
    two.store.get_meta = read
    assert two.ask().is_hit
    assert not bypassed(two)


def test_it_reaches_those_that_start_later():
    site, one = site_with(1)
    one.cache.rules.disable("admin")
    (late,) = site.workers(1, rules=rules())
    late.ask()
    assert not bypassed(late)
    assert late.cache.rules["page"].enabled


def test_clear_and_purges_leave_it():
    _site, one, two = site_with()
    one.cache.rules.disable("admin")
    one.cache.clear()
    two.ask()
    assert not bypassed(two)


def test_what_is_not_known_here_is_left_alone():
    site, one = site_with(1)
    (other,) = site.workers(1, rules=[Rule("/z", name="z")])
    other.cache.rules.disable("z")
    one.ask()
    assert bypassed(one)


def test_a_switch_that_the_others_do_not_hear_of_is_an_error():
    site, one, two = site_with()
    one.ask()
    two.ask()
    site.server.down = True
    with pytest.raises(StoreError):
        one.cache.rules.disable("admin")
    site.server.down = False
    two.ask()
    assert [bypassed(one), bypassed(two)] == [False, True]


def test_a_rule_without_a_name_is_switched_here_only():
    site, one, _two = site_with()
    trips, _ = site.trips(lambda: setattr(list(one.cache.rules)[2], "enabled", False))
    assert trips == 0


def test_a_hit_under_a_switched_rule_is_judged_anew_elsewhere():
    _site, one, two = site_with()
    for _ in range(3):
        one.ask()
        two.ask()
    one.cache.rules.disable("page")
    two.ask("/other")
    assert two.ask().detail == Reason.MISS_RULES.name


@pytest.mark.parametrize("query", [False, True])
def test_a_worker_whose_requests_all_bypass_hears_of_it_within_a_second(query):
    """They never use the store, but look for switches now and then; not each of them, and not on hits."""
    site = Site()
    rule = {
        "pattern": "/*",
        "name": "all",
        **({"query": "key", "enabled": False} if query else {"bypass": True}),
    }
    one, two = [site.workers(1, rules=[Rule(**rule)])[0] for _ in "12"]
    path = "/page?a=1" if query else "/page"
    assert [worker.ask(path).cache["fwd"] for worker in (two, one)] == ["bypass"] * 2
    trips, _ = site.trips(lambda: [two.ask(path) for _ in range(10)])
    assert trips == 0
    one.cache.rules["all"].enabled = query
    site.clock.tick(1.01)
    assert two.ask(path).stored
    site.clock.tick(1.01)
    assert one.ask(path).is_hit
    one.cache.rules["all"].enabled = not query
    assert two.ask(path).detail != Reason.URI_MISS.name
    assert one.ask(path).cache["fwd"] == "bypass"


def test_a_store_that_is_down_does_not_keep_them_from_the_app():
    site, one = site_with(1)
    site.server.down = True
    for _ in range(3):
        assert bypassed(one)
        site.clock.tick(2)


def test_a_hit_that_hears_of_the_switch_is_judged_by_it():
    """The look-up that arms a page is also the one that hears: it must not arm what the switch forbids."""
    site = Site()
    one, two = [site.workers(1, rules=[Rule("/page", bypass=True, name="p", enabled=False)])[0] for _ in "12"]
    for _ in range(3):
        one.ask()
        two.ask()
    engine, confirm = two.cache.engine, two.store.confirm
    one.cache.rules.enable("p")

    def overtaken(slot):
        """Another thread looks up the same page between this hit's look and its question."""
        engine.look_up(engine.admit(Facts(make_environ("/page"))))
        return confirm(slot)

    engine.followers[0]._ask = overtaken
    assert two.ask().detail == Reason.BYPASS_RULE.name


def test_a_switch_that_nobody_was_told_of_is_told_at_the_next_try():
    _, one, two = site_with()
    two.ask()
    append, one.store.append = one.store.append, refuse
    with pytest.raises(StoreError):
        one.cache.rules.disable("admin")
    one.store.append = append
    one.cache.rules.disable("admin")
    two.ask()
    assert not bypassed(two)


def test_a_switch_that_stands_already_moves_no_journal():
    """A worker that sets its switches at start must not empty a store whose purges reach everything."""
    site, one, _two = site_with()
    one.cache.rules.disable("admin")
    mark = site.server.journal.mark
    one.cache.rules.disable("admin")
    assert site.server.journal.mark == mark
