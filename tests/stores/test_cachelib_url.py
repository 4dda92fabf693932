"""`cachelib:` URLs: classes, their arguments, and what a person reads who got them wrong."""

import builtins
import sys

import cachelib
import pytest

from wsgicache import WSGICache
from wsgicache.options import OptionError
from wsgicache.stores import Store, StoreOptions, open_store
from wsgicache.stores.cachelib import CachelibStore
from wsgicache.testing import ScriptedApp

OPTIONS = StoreOptions(memo_bytes=1000, signing_keys=(b"key",))


def opened(url):
    store = open_store(url, OPTIONS)
    assert isinstance(store, CachelibStore)
    assert isinstance(store, Store)
    return store._cache


def test_a_directory(tmp_path):
    cache = opened(f"cachelib:FileSystemCache?cache_dir={tmp_path}/cache&threshold=0&mode=0o640")
    assert isinstance(cache, cachelib.FileSystemCache)
    assert (cache._path, cache._threshold, cache._mode) == (f"{tmp_path}/cache", 0, 0o640)
    assert (tmp_path / "cache").is_dir()


def test_a_redis():
    cache = opened(
        "cachelib:RedisCache?host=cache.example&port=6380&db=2&password=123&key_prefix=5&socket_timeout=0.05"
        "&socket_keepalive=false&retry=none"
    )
    options = cache._write_client.connection_pool.connection_kwargs
    assert (options["host"], options["port"], options["db"], options["password"]) == (
        "cache.example",
        6380,
        2,
        "123",
    )
    assert (options["socket_timeout"], options["socket_keepalive"]) == (0.05, False)
    assert cache.key_prefix == "5"
    cache._write_client.close()


@pytest.mark.parametrize(
    ("query", "made_with"),
    [
        ("", {}),
        (
            "size=7&name=8&ratio=9&strict=yes&code=10",
            {"size": 7, "name": "8", "ratio": 9, "strict": True, "code": "10"},
        ),
        ("size=0x10&ratio=0.5&strict=0", {"size": 16, "ratio": 0.5, "strict": False}),
        ("ratio=true&name=true&code=none", {"ratio": True, "name": "true", "code": "none"}),
        ("ratio=none&name=", {"ratio": None, "name": ""}),
        ("ratio=a%26b%20c", {"ratio": "a&b c"}),
    ],
)
def test_arguments_have_the_types_that_the_class_says(query, made_with):
    cache = opened(f"cachelib:cachelib_samples.Typed?{query}")
    default = {"size": 5, "name": "x", "ratio": None, "strict": False, "code": None}
    assert cache.made_with == {**default, **made_with}
    assert {key: type(value) for key, value in cache.made_with.items()} == {
        key: type(value) for key, value in {**default, **made_with}.items()
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("007", "007"), ("0x1f", 31), ("0o17", 15), ("0.5", 0.5),
        ("-1.25", -1.25), ("", ""),
        ("1e5", "1e5"), ("nan", "nan"), ("inf", "inf"), ("TRUE", True), ("False", False), ("None", None),
        ("1_000", "1_000"), ("1.", "1."), ("a", "a"), ("9" * 30, "9" * 30),
    ],
)  # fmt: skip
def test_where_a_class_says_nothing_the_text_does(text, value):
    cache = opened(f"cachelib:cachelib_samples.TakesAny?some={text}")
    assert cache.made_with == {"some": value}
    assert type(cache.made_with["some"]) is type(value)


def test_a_function_may_make_it():
    assert opened("cachelib:cachelib_samples.make?threshold=7")._threshold == 7
    assert opened("cachelib://cachelib_samples.make")._threshold == 5


def test_options_of_the_cache_reach_the_store():
    store = open_store("cachelib:SimpleCache", OPTIONS)
    assert (store._memo_bytes, store._keys) == (1000, (b"key",))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("cachelib:", "give a class of cachelib"),
        ("cachelib://", "give a class of cachelib"),
        ("cachelib:Simple", "no attribute 'Simple'; give a class of cachelib"),
        ("cachelib:no.such.Module", "No module named 'no'"),
        ("cachelib:cachelib_samples.Nothing", "no attribute 'Nothing'"),
        ("cachelib:.Nothing", "give a class of cachelib"),
        ("cachelib:cachelib_samples.VALUE", "is no class"),
        (
            "cachelib:cachelib_samples.NoCache",
            "is no cachelib cache: it has no get, get_many, set, add, delete",
        ),
        ("cachelib:SimpleCache?treshold=5", "unknown argument 'treshold'; known: threshold, default_timeout"),
        ("cachelib:SimpleCache?threshold=many", "threshold: give a whole number"),
        ("cachelib:SimpleCache?threshold=", "threshold: give a whole number"),
        ("cachelib:SimpleCache?threshold=1&threshold=2", "threshold is given twice"),
        ("cachelib:cachelib_samples.Typed?strict=maybe", "strict: give true or false"),
        ("cachelib:FileSystemCache", "missing 1 required positional argument: 'cache_dir'"),
        ("cachelib:FileSystemCache?cache_dir=/proc/no/such", "cachelib:FileSystemCache.*Error"),
        ("cachelib:UWSGICache", "are you running under uWSGI"),
        ("cachelib:cachelib_samples.Broken?secret=hidden", "RuntimeError: no server there"),
        ("cachelib:MemcachedCache?servers=none", "memcached://host:port instead"),
        ("cachelib:NullCache", "no serializer to replace"),
        ("cachelib:BaseCache", "no serializer to replace"),
    ],
)
def test_mistakes(url, told):
    with pytest.raises(ValueError, match=told) as raised:
        open_store(url, OPTIONS)
    assert "hidden" not in str(raised.value)
    assert "cachelib:" in str(raised.value)


def test_a_mistake_is_one_of_the_option_store():
    with pytest.raises(OptionError, match=r"store.*unknown argument"):
        WSGICache(ScriptedApp(), "cachelib:SimpleCache?treshold=5")


def test_without_cachelib_the_remedy_is_told(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **options):
        if name.split(".")[0] == "cachelib" and not options.get("level") and (len(args) < 4 or not args[3]):
            raise ImportError("No module named 'cachelib'", name="cachelib")
        return real(name, *args, **options)

    for module in ("cachelib", "cachelibbytes"):
        monkeypatch.delitem(sys.modules, f"wsgicache.stores.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        ValueError, match=r"needs the package 'cachelib'.*pip install 'wsgicache\[cachelib\]'"
    ):
        open_store("cachelib:SimpleCache", OPTIONS)
