"""Coroutine functions: real coroutine wrappers, one computation, in an async view and outside."""

import asyncio
import inspect

import pytest
from werkzeug.exceptions import NotFound


@pytest.mark.parametrize("decorator", ["cached", "memoize"])
def test_a_decorated_coroutine_function_is_one(make_cache, decorator):
    cache = make_cache()
    terms = {"key_prefix": "key"} if decorator == "cached" else {}
    calls = []

    @getattr(cache, decorator)(60, **terms)
    async def f():
        calls.append(1)
        await asyncio.sleep(0)
        return "value"

    assert inspect.iscoroutinefunction(f)
    assert inspect.iscoroutinefunction(f.uncached)

    async def twice():
        return await f(), await f()

    assert asyncio.run(twice()) == ("value", "value")
    assert asyncio.run(f()) == "value"
    assert calls == [1]


def test_many_tasks_run_it_once(make_cache, backend):
    cache = make_cache(backend)
    calls = []

    @cache.memoize(60)
    async def f(n):
        calls.append(n)
        for _ in range(5):
            await asyncio.sleep(0)
        return n

    async def main():
        return await asyncio.gather(*[f(1) for _ in range(20)])

    assert asyncio.run(main()) == [1] * 20
    assert calls == [1]


def test_an_async_view_is_cached_and_may_await_memoized_functions(make_cache):
    cache = make_cache()
    calls = []

    @cache.memoize(60)
    async def load(n):
        calls.append(n)
        return n

    @cache.app.route("/page")
    @cache.cached(60, unless=lambda: False)
    async def page():
        calls.append("page")
        return str(await load(1) + await load(1))

    client = cache.app.test_client()
    assert client.get("/page").text == client.get("/page").text == "2"
    assert calls == ["page", 1]
    assert client.get("/page").headers["ETag"]


def test_an_error_of_an_async_view_is_raised_again(make_cache):
    cache = make_cache()
    calls = []

    @cache.app.route("/page")
    @cache.cached(60)
    async def page():
        calls.append(1)
        raise NotFound

    client = cache.app.test_client()
    assert [client.get("/page").status_code for _ in range(2)] == [404, 404]
    assert calls == [1]


def test_a_coroutine_that_is_never_awaited_holds_nobody_up(make_cache):
    cache = make_cache()

    @cache.memoize(60)
    async def f():
        return 1

    f().close()
    assert asyncio.run(f()) == 1


def test_a_cancelled_leader_frees_the_others(make_cache):
    cache = make_cache()
    calls = []

    @cache.memoize(60)
    async def f():
        calls.append(1)
        if len(calls) == 1:
            await asyncio.Event().wait()
        return len(calls)

    async def main():
        leader = asyncio.create_task(f())
        await asyncio.sleep(0)
        follower = asyncio.create_task(f())
        await asyncio.sleep(0)
        leader.cancel()
        return await follower

    assert asyncio.run(main()) == 2


def test_a_refresh_of_a_coroutine_function_runs_behind_the_caller(make_cache, clock):
    cache = make_cache()
    cache.link.now = clock
    calls = []

    @cache.memoize(10, stale_while_revalidate=20)
    async def f():
        calls.append(1)
        return len(calls)

    assert asyncio.run(f()) == 1
    clock.advance(11)
    assert asyncio.run(f()) == 1
    cache.refresher.join()
    assert asyncio.run(f()) == 2


def test_delete_memoized_of_an_async_method(make_cache):
    cache = make_cache()
    calls = []

    class Loader:
        def __repr__(self):
            return "Loader()"

        @cache.memoize(60)
        async def load(self, n):
            calls.append(n)
            return n

    loader = Loader()
    asyncio.run(loader.load(1))
    cache.delete_memoized(loader.load, 1)
    asyncio.run(loader.load(1))
    assert calls == [1, 1]
