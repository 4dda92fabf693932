"""URLs of Redis servers, read strictly, and the links they lead to.

redis://[user:password@]host[:port][/database]
rediss://...                                        the same with TLS
unix://[user:password@]/path/of/the.sock[?db=1]
redis+sentinel://[user:password@]host[:port],.../name of the primary[/database]
redis+cluster://[user:password@]host[:port],...     both also as rediss+...
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.retry import Retry

from ..options import Reader, one_of, read_bool, read_count, read_positive, read_text
from . import StoreOptions, shown
from .redislink import (
    DEFAULT_CONNECTIONS,
    Link,
    PacedConnection,
    PacedSSLConnection,
    PacedUnixConnection,
    RedisConnection,
)
from .urls import check_path, read_timeout, url_options

Node = tuple[str, int]

JOURNAL: Final = 65536
"""Targets that a journal remembers."""

BUCKETS: Final = 16

_PORT: Final = {"redis": 6379, "sentinel": 26379, "cluster": 6379}
_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/@&=;#\s]+))(?::([0-9]{1,5}))?\Z")
_DATABASE_IN_PATH: Final = re.compile(r"\.sock/([0-9]*)\Z")


@dataclass(frozen=True, slots=True)
class Address:
    """What a URL says.

    Attributes:
        name: the URL as it may be shown, without its options.
        nodes: hosts and ports; none for a Unix socket.
        path: the Unix socket.
        service: what the Sentinels call the primary.
        tls: whether connections are made with TLS.
        login: user name, password and database, as redis-py takes them.
        sentinel_login: the same for the Sentinels themselves.
        tls_options: as redis-py takes them.
        timeout: seconds for connecting, and for each reply.
        journal: targets whose purges are remembered.
        connections: how many may be open at once in a process.
        buckets: parts of a Cluster's store.
    """

    name: str
    nodes: tuple[Node, ...]
    path: str
    service: str
    tls: bool
    login: Mapping[str, Any]
    sentinel_login: Mapping[str, Any]
    tls_options: Mapping[str, Any]
    timeout: float
    journal: int
    connections: int
    buckets: int


def _read_file(text: str) -> str:
    if not os.path.isfile(text):
        raise ValueError("there is no such file, or it cannot be read")
    return text


_COMMON: Final[dict[str, Reader]] = {
    "timeout": read_timeout,
    "journal": read_positive,
    "max_connections": read_positive,
}
_TLS: Final[dict[str, Reader]] = {
    "ssl_ca_certs": _read_file,
    "ssl_certfile": _read_file,
    "ssl_keyfile": _read_file,
    "ssl_cert_reqs": one_of("required", "optional", "none"),
    "ssl_check_hostname": read_bool,
}
_OF_KIND: Final[dict[str, dict[str, Reader]]] = {
    "redis": {},
    "unix": {"db": read_count},
    "sentinel": {"sentinel_username": read_text, "sentinel_password": read_text},
    "cluster": {"buckets": read_positive},
}


def read_url(url: str, options: StoreOptions) -> Address:
    """What a URL says.

    Raises:
        ValueError: it is none of the forms above, or has an option that is unknown or malformed.
    """
    scheme, _, rest = url.partition("://")
    tls = scheme.startswith("rediss")
    kind = scheme.partition("+")[2] or ("unix" if scheme == "unix" else "redis")
    place = rest.partition("?")[0]
    given = url_options(url, _COMMON | _OF_KIND[kind] | (_TLS if tls else {}))
    credentials, at, place = place.rpartition("@")
    login = _login(credentials) if at else {}
    hosts, _, path = place.partition("/")
    wrong = _Wrong(url)
    if kind == "unix":
        if hosts or not path:
            raise wrong("give the path of the socket: unix:///run/redis/redis.sock")
        try:
            check_path(path)
        except ValueError as error:
            raise wrong(str(error)) from None
        if (database := _DATABASE_IN_PATH.search(path)) is not None:
            raise wrong(f"the database of a socket is an option: ?db={database[1] or 0}")
        nodes: tuple[Node, ...] = ()
        login["db"] = given.get("db", 0)
    else:
        nodes = tuple([_node(part, _PORT[kind], wrong) for part in hosts.split(",")])
        if kind == "redis" and len(nodes) > 1:
            raise wrong("one server is meant here; several are redis+sentinel:// or redis+cluster://")
    service = ""
    if kind == "sentinel":
        service, _, path = path.partition("/")
        service = unquote(service)
        if not service:
            raise wrong("say which primary, by the name that the Sentinels know: .../mymaster")
    if kind in ("redis", "sentinel"):
        login["db"] = _database(path, wrong)
    elif kind == "cluster" and path.strip("/"):
        raise wrong("a Cluster has one database, so there is no path")
    return Address(
        name=shown(url).partition("?")[0],
        nodes=nodes,
        path="/" + unquote(path) if kind == "unix" else "",
        service=service,
        tls=tls,
        login=login,
        sentinel_login={
            name: given["sentinel_" + name]
            for name in ("username", "password")
            if "sentinel_" + name in given
        },
        tls_options={name: given[name] for name in _TLS if name in given},
        timeout=given.get("timeout", options.timeout),
        journal=given.get("journal", JOURNAL),
        connections=given.get("max_connections", DEFAULT_CONNECTIONS),
        buckets=given.get("buckets", BUCKETS),
    )


class _Wrong:
    """Makes the error of a mistake in a URL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, told: str) -> ValueError:
        return ValueError(f"{shown(self._url)!r}: {told}")


def _login(credentials: str) -> dict[str, Any]:
    user, _, password = credentials.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: text for name, text in found.items() if text}


def _node(part: str, port: int, wrong: _Wrong) -> Node:
    match = _HOST.match(part) if part else None
    if not part:
        raise wrong("name a host, such as localhost; none is taken for granted")
    if match is None or not 0 < int(match[3] or port) < 65536:
        raise wrong(
            f"{part!r} is no host:port; write special characters of a password as %XX, and options after ?"
        )
    return unquote(match[1] or match[2]), int(match[3] or port)


def _database(path: str, wrong: _Wrong) -> int:
    if path.strip("/") == "":
        return 0
    if not path.isdecimal() or len(path) > 6:
        raise wrong(f"{path!r} is no database; give a number, such as /0")
    return int(path)


# --- links -----------------------------------------------------------------------------------------


def connection_options(address: Address) -> dict[str, Any]:
    """What every connection is made with: deadlines, no retries, no health checks, RESP2, bytes."""
    return {
        **address.login,
        **(address.tls_options if address.tls else {}),
        **quiet(),
        "client_name": "wsgicache",
        "socket_timeout": address.timeout,
        "socket_connect_timeout": address.timeout,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 0,
        "protocol": 2,
    }


def quiet() -> dict[str, None]:
    """Without these redis-py spends two round trips of a new connection on telling its own version."""
    parameters = inspect.signature(AbstractConnection.__init__).parameters
    return {"driver_info": None} if "driver_info" in parameters else {"lib_name": None, "lib_version": None}


def connector(address: Address, node: Node | None = None) -> Callable[[], RedisConnection]:
    """Makes connections to one server, which are not open yet."""
    options = connection_options(address)
    if node is None and address.path:
        return lambda: PacedUnixConnection(path=address.path, **options)  # type: ignore[abstract,no-untyped-call]
    host, port = node or address.nodes[0]
    made = PacedSSLConnection if address.tls else PacedConnection
    return lambda: made(host=host, port=port, **options)


def server_link(address: Address) -> Link:
    """The link to one server."""
    return Link(address.name, connector(address), address.timeout, address.connections)
