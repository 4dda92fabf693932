"""One computation per key: among threads, among workers, and nobody waits for himself."""

import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import pytest
from flask import Flask, render_template_string
from flask_helpers import BACKENDS
from jinja2.exceptions import UndefinedError
from waiting import PATIENCE

from wsgicache.flask import Cache, make_template_fragment_key


class Slow:
    """A function that holds until it is let go, and counts its runs."""

    def __init__(self):
        self.runs = 0
        self.entered = threading.Event()
        self.go = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, value="value"):
        with self._lock:
            self.runs += 1
        self.entered.set()
        assert self.go.wait(PATIENCE)
        return value


def ask_at_once(call, count=20):
    """Start calls; returns their futures and the pool."""
    pool = ThreadPoolExecutor(count)
    return [pool.submit(call) for _ in range(count)], pool


def test_twenty_threads_run_a_function_once(make_cache, backend):
    cache = make_cache(backend)
    slow = Slow()

    @cache.memoize(60)
    def f():
        return slow()

    futures, pool = ask_at_once(f)
    assert slow.entered.wait(PATIENCE)
    slow.go.set()
    assert {future.result(PATIENCE) for future in futures} == {"value"}
    assert slow.runs == 1
    pool.shutdown()


def test_twenty_requests_run_a_view_once(make_cache):
    cache = make_cache()
    slow = Slow()

    @cache.app.route("/page")
    @cache.cached(60)
    def page():
        return slow()

    futures, pool = ask_at_once(lambda: cache.app.test_client().get("/page").text)
    assert slow.entered.wait(PATIENCE)
    slow.go.set()
    assert {future.result(PATIENCE) for future in futures} == {"value"}
    assert slow.runs == 1
    pool.shutdown()


def test_twenty_threads_render_a_fragment_once(make_cache):
    cache = make_cache()
    slow = Slow()
    cache.app.jinja_env.globals["slow"] = slow

    def page():
        with cache.app.app_context():
            return render_template_string("{% cache 60, 'x' %}<{{ slow() }}>{% endcache %}")

    futures, pool = ask_at_once(page)
    assert slow.entered.wait(PATIENCE)
    slow.go.set()
    assert {future.result(PATIENCE) for future in futures} == {"<value>"}
    assert slow.runs == 1
    pool.shutdown()


def test_a_fragment_that_was_deleted_while_it_was_rendered_is_not_kept(make_cache):
    cache = make_cache()
    slow = Slow()
    cache.app.jinja_env.globals["slow"] = slow

    def page():
        with cache.app.app_context():
            return render_template_string("{% cache 60, 'x' %}{{ slow() }}{% endcache %}")

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(page)
        assert slow.entered.wait(PATIENCE)
        cache.delete(make_template_fragment_key("x"))
        slow.go.set()
        assert future.result(PATIENCE) == "value"
    assert cache.get(make_template_fragment_key("x")) is None


def test_a_fragment_that_fails_or_holds_itself_blocks_nobody(make_cache):
    cache = make_cache(CACHE_WAIT_TIMEOUT=30)
    template = "{% cache 60, 'x' %}a{% cache 60, 'x' %}b{% endcache %}{{ boom() }}{% endcache %}"
    with cache.app.app_context():
        with pytest.raises(UndefinedError):
            render_template_string(template)
        cache.clear()
        cache.app.jinja_env.globals["boom"] = lambda: "c"
        assert render_template_string(template) == "abc"
    assert not cache.link.flights._flights
    assert not cache.link.flights._alone


def test_two_workers_run_a_function_once_where_add_is_atomic(make_cache, shared):
    slow = Slow()
    calls = []
    for _ in range(2):
        cache = make_cache(shared)

        @cache.memoize(60)
        def f():
            return slow()

        calls.append(f)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(calls[0])
        assert slow.entered.wait(PATIENCE)
        second = pool.submit(calls[1])
        slow.go.set()
        assert first.result(PATIENCE) == second.result(PATIENCE) == "value"
    assert slow.runs == 1


def test_a_lease_is_given_back(make_cache, shared):
    cache = make_cache(shared)
    link = cache.link
    token = link.lease("key")
    assert token
    assert link.lease("key") is None
    link.release("key", "somebody else's")
    assert link.lease("key") is None
    link.release("key", token)
    assert link.lease("key")
    link.release("key", "x")


def test_followers_of_an_unkept_answer_run_side_by_side(make_cache):
    cache = make_cache(CACHE_WAIT_TIMEOUT=5)
    together = threading.Barrier(4, timeout=PATIENCE)
    slow = Slow()

    @cache.memoize(60, response_filter=lambda value: False)
    def f():
        if slow.runs == 0:
            return slow()
        together.wait()  # passes only if all four are inside at once
        return "own"

    pool = ThreadPoolExecutor(5)
    leader = pool.submit(f)
    assert slow.entered.wait(PATIENCE)
    followers = [pool.submit(f) for _ in range(4)]
    slow.go.set()
    assert leader.result(PATIENCE) == "value"
    assert [follower.result(PATIENCE) for follower in followers] == ["own"] * 4
    pool.shutdown()


def test_an_error_frees_the_followers_and_is_not_kept(make_cache):
    cache = make_cache()
    slow = Slow()

    @cache.memoize(60)
    def f():
        first = slow.runs == 0
        slow()
        if first:
            raise ValueError("first")
        return "second"

    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(f)
        assert slow.entered.wait(PATIENCE)
        follower = pool.submit(f)
        slow.go.set()
        with pytest.raises(ValueError, match="first"):
            leader.result(PATIENCE)
        assert follower.result(PATIENCE) == "second"


def test_a_function_that_calls_itself_does_not_wait_for_itself(make_cache):
    cache = make_cache(CACHE_WAIT_TIMEOUT=60)
    depth = []

    @cache.memoize(60, args_to_ignore=["n"])
    def f(n):
        depth.append(n)
        return f(n - 1) if n else "end"

    assert f(3) == "end"
    assert depth == [3, 2, 1, 0]


def test_two_that_need_each_other_do_not_wait_for_ever(make_cache):
    cache = make_cache(CACHE_WAIT_TIMEOUT=60)
    inside = threading.Barrier(2, timeout=PATIENCE)
    entered = threading.local()

    def enter():
        if not getattr(entered, "passed", False):
            entered.passed = True
            inside.wait()

    # Each is inside its own flight and asks for the other's: one of the two sees the circle and computes.
    @cache.memoize(60, args_to_ignore=["n"])
    def c(n):
        enter()
        return d(n - 1) if n else "c"

    @cache.memoize(60, args_to_ignore=["n"])
    def d(n):
        enter()
        return c(n - 1) if n else "d"

    with ThreadPoolExecutor(2) as pool:
        results = [pool.submit(c, 2), pool.submit(d, 2)]
        assert all(result.result(PATIENCE) in ("c", "d") for result in results)


def test_what_was_deleted_while_it_was_computed_is_not_kept(make_cache):
    cache = make_cache()
    slow = Slow()

    @cache.cached(60, key_prefix="key")
    def f():
        return slow()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert slow.entered.wait(PATIENCE)
        cache.delete("key")
        slow.go.set()
        assert future.result(PATIENCE) == "value"
    assert cache.get("key") is None


def test_what_was_deleted_while_a_follower_computed_alone_is_not_kept(make_cache):
    """One that no longer waits computes beside the leader: a delete reaches both."""
    cache = make_cache(CACHE_WAIT_TIMEOUT=0)
    slow = Slow()
    both = threading.Barrier(3, timeout=PATIENCE)

    @cache.cached(60, key_prefix="key")
    def f():
        both.wait()
        return slow()

    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(f) for _ in range(2)]
        both.wait()
        cache.delete("key")
        slow.go.set()
        assert {future.result(PATIENCE) for future in futures} == {"value"}
    assert slow.runs == 2
    assert cache.get("key") is None
    assert not cache.link.flights._alone


def test_what_another_worker_computes_is_not_kept_when_it_was_deleted(make_cache, shared):
    computing, deleting = make_cache(shared), make_cache(shared)
    slow = Slow()

    @computing.cached(60, key_prefix="key")
    def f():
        return slow()

    for delete in (deleting.delete, deleting.delete_many, deleting.unlink):
        slow.entered.clear(), slow.go.clear()
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(f)
            assert slow.entered.wait(PATIENCE)
            delete("key")
            slow.go.set()
            assert future.result(PATIENCE) == "value"
        assert deleting.get("key") is None
    assert f() == "value"
    assert deleting.get("key") == "value"


def test_a_lease_that_has_run_out_says_nothing(make_cache, shared):
    cache = make_cache(shared, CACHE_LEASE=5)
    link = cache.link
    assert link.was_deleted("key", "key", "token", monotonic())  # there is none: somebody broke it
    assert not link.was_deleted("key", "key", "token", monotonic() - 6)
    assert not link.was_deleted("key", "key", "", monotonic())


@pytest.mark.parametrize("lease", [10, 0])
def test_what_another_worker_computes_is_not_kept_when_its_prefix_was_deleted(make_cache, shared, lease):
    computing, deleting = make_cache(shared, CACHE_LEASE=lease), make_cache(shared, CACHE_LEASE=lease)
    slow = Slow()

    @computing.cached(60, key_prefix="blog/1")
    def f():
        return slow()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert slow.entered.wait(PATIENCE)
        deleting.delete_prefix("blog/")
        computing.link._journal_read = 0.0  # what a second's delay would do
        slow.go.set()
        assert future.result(PATIENCE) == "value"
    assert deleting.get("blog/1") is None
    assert computing.get("blog/1") is None
    assert f() == "value"
    assert deleting.get("blog/1") == "value"
    assert slow.runs == 2


@pytest.mark.parametrize("name", BACKENDS)
def test_forgotten_while_computed_is_not_kept_by_any_worker(make_cache, name):
    cache = make_cache(name)
    slow = Slow()

    @cache.memoize(60)
    def f():
        return slow()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(f)
        assert slow.entered.wait(PATIENCE)
        cache.delete_memoized(f)
        slow.go.set()
        future.result(PATIENCE)
    f()
    assert slow.runs == 2


def test_a_forked_child_does_not_wait_for_its_parents_threads(make_cache):
    from wsgicache.flask import flights

    cache = make_cache()
    own = cache.link.flights
    own.board("key")
    own.go_alone("key")
    flights._forget_all()  # what a fork calls in the child
    assert own.board("key")[1]
    assert not own._alone


def test_a_forked_child_refreshes_what_its_parent_was_refreshing(make_cache):
    from wsgicache.flask import refresher

    cache = make_cache()
    go = threading.Event()
    assert cache.refresher.ask("key", lambda: go.wait(PATIENCE), False)
    assert not cache.refresher.ask("key", lambda: None, False)
    parents = list(cache.refresher._running.values())
    refresher._after_fork()  # what a fork calls in the child
    assert cache.refresher.ask("key", lambda: None, False)
    go.set()
    for thread in parents:
        thread.join(PATIENCE)


def test_nobody_waits_for_what_is_never_kept(make_cache):
    """After one answer that was not to be kept, the next callers run side by side at once."""
    cache = make_cache(CACHE_WAIT_TIMEOUT=30)
    together = threading.Barrier(3, timeout=PATIENCE)
    kept = []

    @cache.memoize(60, response_filter=lambda value: bool(kept))
    def f():
        if not kept and together.n_waiting < 3 and started:
            together.wait()
        return "value"

    started = []
    f()
    started.append(True)
    with ThreadPoolExecutor(3) as pool:
        assert {future.result(PATIENCE) for future in [pool.submit(f) for _ in range(3)]} == {"value"}
    kept.append(True)
    f()
    assert not cache.link.flights.is_unkept(f.make_cache_key(f.uncached))
    assert cache.stats()[next(iter(cache.stats()))]["hits"] == 0
    f()
    assert cache.stats()[next(iter(cache.stats()))]["hits"] == 1


def test_a_head_does_not_end_the_waiting(make_cache):
    cache = make_cache()
    cache.app.add_url_rule("/page", "page", cache.cached(60)(lambda: "page"))
    cache.app.test_client().head("/page")
    assert not cache.link.flights.is_unkept("view//page")


def test_what_keeps_nothing_makes_nobody_wait():
    cache = Cache(Flask("null"), config={"CACHE_TYPE": "NullCache", "CACHE_NO_NULL_WARNING": True})
    together = threading.Barrier(3, timeout=PATIENCE)

    @cache.memoize(60)
    def f():
        together.wait()
        return "value"

    with ThreadPoolExecutor(3) as pool:
        assert {future.result(PATIENCE) for future in [pool.submit(f) for _ in range(3)]} == {"value"}


# --- stale while revalidate, jitter, timeouts of results ----------------------------------------------


@pytest.mark.parametrize("decorator", ["cached", "memoize"])
def test_a_stale_value_is_answered_while_a_new_one_is_computed(make_cache, clock, decorator):
    cache = make_cache()
    cache.link.now = clock
    runs = []
    terms = {"key_prefix": "key"} if decorator == "cached" else {}

    @getattr(cache, decorator)(10, stale_while_revalidate=20, **terms)
    def f():
        runs.append(threading.current_thread().name)
        return len(runs)

    assert f() == 1
    clock.advance(11)
    assert f() == 1
    cache.refresher.join()
    assert f() == 2
    assert runs[0] != runs[1]
    clock.advance(31)
    assert f() == 3  # past the window: computed before it is answered
    assert runs[2] == runs[0]


def test_get_does_not_give_what_is_stale(make_cache, clock):
    cache = make_cache()
    cache.link.now = clock

    @cache.cached(10, key_prefix="key", stale_while_revalidate=20)
    def f():
        return 1

    f()
    assert cache.get("key") == 1
    clock.advance(11)
    assert cache.get("key") is None
    assert not cache.has("key")


def test_a_refresh_has_the_request_of_its_visitor(make_cache, clock):
    cache = make_cache()
    cache.link.now = clock
    from flask import request

    @cache.app.route("/page/<name>")
    @cache.cached(10, stale_while_revalidate=20)
    def page(name):
        return f"{request.path} {clock.now}"

    client = cache.app.test_client()
    first = client.get("/page/a").text
    clock.advance(11)
    assert client.get("/page/a").text == first
    cache.refresher.join()
    assert client.get("/page/a").text == f"/page/a {clock.now}"


def test_a_failing_refresh_leaves_the_stale_value(make_cache, clock, caplog):
    cache = make_cache()
    cache.link.now = clock
    broken = []

    @cache.memoize(10, stale_while_revalidate=20)
    def f():
        if broken:
            raise ValueError("broken")
        return 1

    f()
    broken.append(1)
    clock.advance(11)
    assert f() == 1
    cache.refresher.join()
    assert f() == 1
    cache.refresher.join()
    assert "refreshing" in caplog.text


def test_jitter_shortens_and_never_lengthens(make_cache, clock):
    cache = make_cache()

    @cache.memoize(100, jitter=50, make_name=lambda name: name)
    def f(n):
        return n

    expiries = set()
    for n in range(60):
        f(n)
        expires = cache.cache._cache[f.make_cache_key(f.uncached, n)][0]
        expiries.add(expires - clock.now)
    assert len(expiries) > 5
    assert min(expiries) >= 50
    assert max(expiries) <= 100


def test_a_timeout_may_depend_on_the_result(make_cache, clock):
    cache = make_cache()

    @cache.memoize(timeout=lambda result: result)
    def f(n):
        return n

    for n in (5, 500):
        f(n)
        assert cache.cache._cache[f.make_cache_key(f.uncached, n)][0] == clock.now + n
