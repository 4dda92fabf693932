"""Classes that `cachelib:` URLs of the tests name by their dotted paths."""

import cachelib


class Typed(cachelib.SimpleCache):
    """Remembers what it was made with."""

    def __init__(
        self, size: int = 5, name: str = "x", ratio=None, strict: bool = False, code: str | None = None
    ):
        super().__init__()
        self.made_with = {"size": size, "name": name, "ratio": ratio, "strict": strict, "code": code}


class TakesAny(cachelib.SimpleCache):
    def __init__(self, **arguments):
        super().__init__()
        self.made_with = arguments


class Broken(cachelib.SimpleCache):
    def __init__(self, secret=""):
        raise RuntimeError("no server there")


class NoCache:
    serializer = None


def make(threshold: int = 5):
    return cachelib.SimpleCache(threshold)


VALUE = 5
