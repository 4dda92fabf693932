"""Fixtures of the tests over real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from origin_script import Origin
from origin_servers import GUNICORN, KINDS, THREADED, Server

EXPECTED = {"wsgicache WARNING the app answers 503; a stale page hides it from visitors"}
"""What the cache has reason to say; anything else fails the run."""


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    """What the apps in all servers ask."""
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="session")
def servers(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Server]]:
    """One server of each kind, started together."""
    logs = tmp_path_factory.mktemp("servers")
    started = {kind: Server(kind, origin, logs / f"{kind}.log") for kind in KINDS}
    yield started
    ended = {kind: server.stop() for kind, server in started.items()}
    told = {line for server in started.values() for line in server.log().splitlines()}
    assert {line for line in told if line.startswith("wsgicache ")} <= EXPECTED
    assert ended == dict.fromkeys(KINDS, 0)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    """Each server."""
    return servers[request.param]


@pytest.fixture(params=THREADED)
def threaded(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    """Each server that answers several requests at once."""
    return servers[request.param]


@pytest.fixture(params=GUNICORN)
def gunicorn(request: pytest.FixtureRequest, servers: dict[str, Server]) -> Server:
    """gunicorn's workers."""
    return servers[request.param]
