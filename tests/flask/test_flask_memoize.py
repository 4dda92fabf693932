"""Keys that cannot lie, one round trip for a hit, and forgetting."""

import enum
import gc
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from waiting import PATIENCE

from wsgicache.flask import Cache
from wsgicache.flask.arguments import UnkeyableArgument, encoded


class Plain:
    """An object with the default repr."""


class Slotted:
    """An object with the default repr that cannot be watched."""

    __slots__ = ()


class Named:
    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return f"Named({self.name!r})"


class Raw:
    """Its repr is what somebody typed."""

    def __init__(self, text):
        self.text = text

    def __repr__(self):
        return self.text


class Identified:
    def __init__(self, number):
        self.number = number

    def __caching_id__(self):
        return self.number


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclass
class Hidden:
    shown: int
    secret: int = field(repr=False)


@pytest.fixture
def runs(make_cache):
    """A memoized function of one argument that notes its runs."""
    cache = make_cache()
    runs = []

    @cache.memoize(60)
    def f(value):
        runs.append(value)
        return len(runs)

    f.runs = runs
    return f


@pytest.mark.parametrize(
    "pair",
    [
        (1, 1.0), (1, True), (1, "1"), (None, "None"), ("a", b"a"), ((1, 2), [1, 2]), ([1, 2], [[1], 2]),
        (["a", "b"], ["a,b"]), (["a', 'b"], ["a", "b"]), ({"a": 1}, {"a": "1"}), ({"a": 1}, [("a", 1)]),
        (0, False),
        ({1}, frozenset({1})), (Named("a"), "Named('a')"), (Identified(1), 1), (Identified(1), Identified(2)),
        (Colour.RED, Colour.BLUE), (Colour.RED, 1), (Hidden(1, 2), Hidden(1, 3)), (int, float), (int, "int"),
        (len, max), ("x\x1f", "x"), (-0.0, 0.0), (Plain(), Plain()), (lambda: 1, lambda: 2),
        (Named("a").__repr__, Named("b").__repr__),
        ((Raw("a,int:1"),), (Raw("a"), 1)), (bytearray(b"a"), bytearray(b"b")),
        (array("i", [1]), array("l", [1])),
        (array("i", range(2000)), array("i", [*range(1000), 0, *range(1001, 2000)])),
        (memoryview(b"ab"), memoryview(b"ac")),
    ],
)  # fmt: skip
def test_different_arguments_have_different_entries(runs, pair):
    first, second = pair
    assert runs(first) != runs(second)
    assert runs(first) == 1
    assert runs(second) == 2


@pytest.mark.parametrize(
    "make", [lambda: {"a": [1, (2, None)]}, lambda: Named("x"), lambda: Identified(3), lambda: Hidden(1, 2),
             lambda: {3, 1, 2}, lambda: Colour.RED, lambda: Identified((1, "a"))]
)  # fmt: skip
def test_equal_arguments_share_an_entry(runs, make):
    assert runs(make()) == runs(make()) == 1


@given(st.lists(st.one_of(st.text(), st.integers(), st.lists(st.text())), min_size=2, max_size=2))
def test_encodings_differ_where_values_do(pair):
    first, second = pair
    assert (encoded(first) == encoded(second)) == (first == second)


def test_a_successor_at_the_same_address_has_its_own_entry(runs):
    seen = set()
    for _ in range(50):
        thing = Plain()
        seen.add(runs(thing))
        del thing
        gc.collect(0)
    assert len(seen) == 50


def test_one_object_keeps_its_entry(runs):
    thing = Plain()
    assert runs(thing) == runs(thing) == 1


def test_what_cannot_be_watched_is_refused_with_the_remedy(runs):
    with pytest.raises(UnkeyableArgument, match="__caching_id__"):
        runs(Slotted())
    with pytest.raises(UnkeyableArgument):
        runs([{"deep": Slotted()}])


def test_arrays_are_told_apart_by_all_they_hold(runs):
    numpy = pytest.importorskip("numpy", reason="numpy is not installed")
    first = numpy.arange(5000)
    second = first.copy()
    second[2500] = 0
    assert repr(first) == repr(second)
    assert [runs(first), runs(second), runs(first.copy()), runs(first.astype("int32"))] == [1, 2, 1, 3]
    assert runs(first.reshape(50, 100)) == 4
    with pytest.raises(UnkeyableArgument, match="abbreviates"):
        runs(numpy.array([Named(str(n)) for n in range(2000)]))
    masked = numpy.ma.masked_array(numpy.arange(5000), mask=numpy.arange(5000) % 2)
    with pytest.raises(UnkeyableArgument, match="abbreviates"):
        runs(masked)


def test_a_frame_whose_repr_is_abbreviated_is_refused(runs):
    class Frame:
        shape = (5000, 2)

        def __repr__(self):
            return "0 1\n...\n4998 4999"

    with pytest.raises(UnkeyableArgument, match="abbreviates its repr"):
        runs(Frame())


def test_a_default_repr_is_warned_of_once(runs, caplog):
    class Odd:
        pass

    runs(Odd()), runs(Odd())
    assert caplog.text.count("has no repr of its own") == 1
    assert "CACHE_STRICT_KEYS" in caplog.text


def test_a_forked_child_gives_its_objects_tokens_of_its_own():
    from wsgicache.flask import arguments

    thing = Plain()
    before = arguments.token(thing)
    arguments._after_fork()  # what a fork calls in the child
    assert arguments.token(thing) != before
    gc.collect()


def test_strict_keys_refuse_every_default_repr(make_cache):
    cache = make_cache(CACHE_STRICT_KEYS=True)

    class Loader:
        @cache.memoize(60)
        def load(self):
            return 1

    @cache.memoize(60)
    def f(value):
        return value

    with pytest.raises(UnkeyableArgument, match="args_to_ignore"):
        f(Plain())
    with pytest.raises(UnkeyableArgument):
        Loader().load()
    assert f(Named("a")).name == "a"


def test_spellings_of_one_call_share_an_entry(make_cache):
    cache = make_cache()
    runs = []

    @cache.memoize(60)
    def f(a, b=0, *rest, c=3, **more):
        runs.append((a, b, rest, c, more))
        return len(runs)

    assert f(1) == f(1, 0) == f(a=1) == f(b=0, a=1) == f(1, c=3) == 1
    assert f(1, None) == 2
    assert f(1, 0, 5) == 3
    assert f(1, d=5, e=6) == f(1, e=6, d=5) == 4
    assert f(1, c=5) == 5
    with pytest.raises(TypeError):
        f()


class Recording(Cache):
    def __init__(self, *args, **kwargs):
        self.calls = []
        super().__init__(*args, **kwargs)

    def __getattribute__(self, name):
        if name in ("get", "set", "has", "get_many", "set_many", "delete", "delete_many", "add"):
            self.calls.append(name)
        return super().__getattribute__(name)


def test_a_hit_is_one_call_of_a_public_method():
    from flask import Flask

    cache = Recording(Flask("x"), config={"CACHE_TYPE": "SimpleCache"})

    class Adder:
        @cache.memoize(60)
        def add(self, b):
            return b

    adder = Adder()
    adder.add(1)
    assert cache.calls == ["get_many", "set"]
    cache.calls.clear()
    assert adder.add(1) == 1
    assert cache.calls == ["get_many"]


def test_a_hit_on_redis_is_one_round_trip(make_cache):
    cache = make_cache("redis")

    @cache.memoize(60, groups=("a", "b"))
    def f(n):
        return n

    f(1)
    client = cache.cache._write_client
    before = client.info("stats")["total_commands_processed"]
    assert f(1) == 1
    assert client.info("stats")["total_commands_processed"] - before == 2  # the hit, and this question


def test_forgetting_on_every_backend(make_cache, backend):
    cache = make_cache(backend)
    runs = []

    @cache.memoize(60)
    def f(n):
        runs.append(n)
        return n

    f(1), f(2), f(1)
    cache.delete_memoized(f, 1)
    f(1), f(2)
    assert runs == [1, 2, 1]
    cache.delete_memoized(f)
    f(1), f(2)
    assert runs == [1, 2, 1, 1, 2]
    cache.delete_memoized_verhash(f)
    f(1)
    assert runs == [1, 2, 1, 1, 2, 1]


def test_forgetting_reaches_every_worker(make_cache, shared):
    caches = [make_cache(shared), make_cache(shared)]
    runs = []

    def make(cache):
        @cache.memoize(60)
        def f(n):
            runs.append(n)
            return n

        return f

    first, second = map(make, caches)
    first(1), second(1)
    caches[1].delete_memoized(second)
    first(1), second(1)
    assert runs == [1, 1]


def test_none_is_a_result_if_asked_for(make_cache, backend):
    cache = make_cache(backend)
    runs = []

    @cache.memoize(60, cache_none=True)
    def f(n):
        runs.append(n)

    assert [f(1), f(1), f(1)] == [None] * 3
    assert runs == [1]
    cache.delete_memoized(f)
    f(1)
    assert runs == [1, 1]


def test_a_name_is_no_function_and_neither_is_an_undecorated_one(make_cache):
    cache = make_cache()
    with pytest.raises(TypeError, match="function itself"):
        cache.delete_memoized("f")
    with pytest.raises(TypeError, match="not decorated"):
        cache.delete_memoized(len)


def test_statistics_add_up_over_workers(make_cache, shared):
    caches = [make_cache(shared), make_cache(shared)]

    def make(cache):
        @cache.memoize(60)
        def f(n):
            return n

        return f

    for f in map(make, caches):
        f(1), f(1), f(2)
    name = f"{__name__}.test_statistics_add_up_over_workers.<locals>.make.<locals>.f"
    caches[0].stats()
    row = caches[1].stats()[name]
    assert row == {"hits": 4, "misses": 2, "hit_ratio": 0.6667}
    assert caches[0].stats()[name] == row


def test_a_worker_that_only_has_hits_reports_too(make_cache, monkeypatch):
    caches = [make_cache("redis"), make_cache("redis")]

    def make(cache):
        @cache.memoize(60)
        def f(n):
            return n

        return f

    now = [monotonic()]
    monkeypatch.setattr("wsgicache.flask.statistics.monotonic", lambda: now[0])
    functions = [make(cache) for cache in caches]
    for f in functions:
        f(1)
    caches[0].stats()
    name = next(iter(caches[0].stats()))
    for _ in range(1100):
        now[0] += 1
        functions[0](1)
    assert caches[1].stats()[name]["hits"] >= 1024


def test_a_forked_child_reports_only_its_own(make_cache):
    cache = make_cache("redis")

    @cache.memoize(60)
    def f(n):
        return n

    f(1), f(1), f(2)
    cache.statistics.after_fork()  # what a fork calls in the child
    f(2)
    (row,) = cache.stats().values()
    assert row == {"hits": 1, "misses": 0, "hit_ratio": 1.0}


def test_no_count_is_lost_among_threads(make_cache):
    cache = make_cache()

    @cache.memoize(60)
    def f():
        return 1

    f()
    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(lambda: [f() for _ in range(500)]) for _ in range(4)]:
            future.result(PATIENCE)
    (row,) = cache.stats().values()
    assert (row["hits"], row["misses"]) == (2000, 1)


def test_statistics_of_one_process(make_cache):
    cache = make_cache()

    @cache.cached(60, key_prefix="k")
    def f():
        return 1

    assert next(iter(cache.stats().values())) == {"hits": 0, "misses": 0, "hit_ratio": None}
    f(), f(), f()
    (row,) = cache.stats().values()
    assert row == {"hits": 2, "misses": 1, "hit_ratio": 0.6667}
