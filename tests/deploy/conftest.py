"""Fixtures of the tests over servers with several workers."""

from itertools import count

import pytest
from deploy_helpers import ROOT  # noqa: F401 - makes the helpers of other tests importable
from origin_script import Origin

_numbers = count(1)


@pytest.fixture(scope="session")
def origin():
    """What the apps in all workers ask."""
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="session")
def redis_url():
    """A Redis server for all tests here."""
    pytest.importorskip("redis", reason="pip install 'wsgicache[redis]'")
    import servers_redis

    server = servers_redis.Server()
    yield server.url
    server.close()


@pytest.fixture(params=["lmdb", "redis"])
def store(request, tmp_path):
    """The URL and the namespace of a store that nothing is in yet."""
    if request.param == "lmdb":
        pytest.importorskip("lmdb", reason="pip install 'wsgicache[lmdb]'")
        return f"lmdb://{tmp_path}/store?max_bytes=20MB", ""
    return request.getfixturevalue("redis_url"), f"test {next(_numbers)}"
