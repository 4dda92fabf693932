"""What type checkers must accept, and what they must refuse; read by test_flask_typing.py, never imported."""

from collections.abc import Callable
from datetime import timedelta

from wsgicache.flask import Cache, SiteCache

cache = Cache()
site = SiteCache()


@cache.cached(timeout=timedelta(minutes=1), groups=("a",), stale_while_revalidate=5)
def view(number: int, text: str = "x") -> bytes:
    return b""


@cache.memoize(timeout=lambda result: 5, jitter=1)
def plain(number: int, text: str = "x") -> bytes:
    return b""


@cache.memoize()
async def later(number: int) -> str:
    return ""


@site.ttl(60)
@site.bypass
@site.groups("posts")
def page(number: int) -> str:
    return ""


class Adder:
    @cache.cached(key_prefix="k")
    def cached_add(self, number: int) -> int:
        return number

    @cache.memoize()
    def add(self, number: int) -> int:
        return number

    @classmethod
    @cache.memoize()
    def of_class(cls, number: int) -> int:
        return number

    def inside(self) -> int:
        return self.add(1) + self.cached_add(2)


adder = Adder()
result: bytes = plain(1, text="y")
seen: bytes = view(1)
shown: str = page(1)
uncached: Callable[[int, str], bytes] = plain.uncached
key: str = plain.make_cache_key(plain.uncached, 1)
bound: int = adder.add(2)
unbound: int = Adder.add(adder, 2)
bound_uncached: int = adder.add.uncached(adder, 2)
bound_view: int = adder.cached_add(2)
plain.cache_timeout = 7
plain.delete_memoized()
adder.add.delete_memoized()
cache.delete_memoized(plain)
cache.delete_memoized(adder.add, 2)
cache.delete_memoized(Adder.add, adder, 2)
cache.delete_memoized(Adder.of_class, Adder, 2)
cache.delete_memoized_verhash(plain)
cache.delete_cached(view, number=1)


def fetch() -> float:
    return 1.0


rate: float = cache.get_or_set("rate", fetch, 60)
left: float | None = cache.ttl("rate")
names: list[str] = cache.keys("view/")
count: int | None = cache.inc("visits")


async def awaits() -> str:
    return await later(1)


async def misreads() -> int:
    return await later(1)  # refused: return-value


plain("text")  # refused: arg-type
view()  # refused: call-arg
adder.add("text")  # refused: arg-type
wrong: str = plain(1)  # refused: assignment
page("text")  # refused: arg-type
wrong_rate: str = cache.get_or_set("rate", fetch)  # refused: assignment
later("text").close()  # refused: arg-type
cache.memoize(jiter=1)  # refused: call-arg
Adder.add(adder)  # refused: call-arg
view.delete_memoized()  # refused: attr-defined
