"""A Redis server that is down, slow, full, read-only, loading, or refuses: a miss, never an error."""

import time

import pytest
from ports import free_port
from redis_helpers import KEY, Clock, body_of, confirms, entry, fails, names, opened, purge, put
from servers_redis import Server, empty, until
from tcp_proxy import TcpProxy

from wsgicache.stores import StoreError
from wsgicache.stores.breaker import CircuitOpen

OTHER = "/other\0\0example.com\0http"


@pytest.fixture
def server():
    """A server of this test's own."""
    server = Server()
    yield server
    server.close()


def every_call(store):
    """What a request may do with a store, by name."""
    return {
        "get": lambda: store.get([KEY]),
        "mark_of": lambda: store.mark_of(KEY),
        "set": lambda: store.set(KEY, entry(store, born=_MARK), time.time() + 60),
        "delete": lambda: store.delete(KEY),
        "lease": lambda: store.lease(KEY, 10),
        "release": lambda: store.release(KEY, 1),
        "purges_since": lambda: store.purges_since(None),
        "get_meta": lambda: store.get_meta("rules"),
        "incr_many": lambda: store.incr_many({"hits": 1}),
        "counters": lambda: store.counters(),
        "stats": lambda: store.stats(),
        "scan": lambda: list(store.scan()),
        "publish": lambda: store.publish("x"),
        "append": lambda: purge(store),
        "clear": lambda: store.clear(),
        "set_meta": lambda: store.set_meta("rules", "{}"),
    }


_MARK = None


@pytest.fixture(autouse=True)
def mark():
    """A mark that no server has to give."""
    from wsgicache.journal import Mark

    global _MARK
    _MARK = Mark("0123456789abcdef", 1, "0123456789abcdef")


# --- down ------------------------------------------------------------------------------------------


def test_rds_01_a_server_that_is_down_at_the_start(caplog):
    port = free_port()
    store = opened(f"redis://:secret@127.0.0.1:{port}")
    clock = Clock(store)
    with fails(rf"redis://:\*\*\*@127.0.0.1:{port}: ConnectionError: Error 111.*refused"):
        store.get([KEY])
    for name, call in every_call(store).items():
        kind = StoreError if name in ("append", "clear", "set_meta", "purges_since") else CircuitOpen
        with pytest.raises(kind):
            call()
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"redis://:***@127.0.0.1:{port} does not answer"
    ]
    server = Server(port=port)
    try:
        server.ask("CONFIG", "SET", "requirepass", "secret")
        clock.pass_pause()
        assert body_of(store) is None
        put(store)
        assert body_of(store) == b"body"
        assert caplog.records[-1].message == f"redis://:***@127.0.0.1:{port} answers again"
    finally:
        server.close()


def test_rds_01_killed_in_mid_traffic_and_started_again(server):
    store = opened(server.url)
    clock = Clock(store)
    put(store)
    assert body_of(store) == b"body"
    server.kill()
    with fails("refused|closed"):
        store.confirm(store.peek(KEY))
    opened_before = store.link.opened
    for _ in range(100):
        with pytest.raises(CircuitOpen):
            store.get([KEY])
        with pytest.raises(CircuitOpen):
            store.confirm(store.peek(KEY))
    assert store.link.opened == opened_before
    server.start()
    clock.pass_pause()
    assert body_of(store) is None
    put(store, body=b"new")
    assert confirms(store)


def test_a_restart_that_nobody_was_there_to_see_costs_no_request(server):
    store = opened(server.url)
    put(store)
    assert confirms(store)
    server.restart()
    assert not confirms(store)
    assert body_of(store) is None
    put(store)
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    assert confirms(store)
    server.ask("CLIENT", "KILL", "TYPE", "normal")
    assert body_of(store) == b"body"
    assert store.link.reading.opened == 0


def test_a_purge_asks_while_the_circuit_is_open(server):
    store = opened(server.url)
    Clock(store)
    put(store)
    server.kill()
    with fails():
        store.get([KEY])
    with pytest.raises(StoreError, match="refused"):
        purge(store)
    server.start()
    with pytest.raises(CircuitOpen):
        store.get([KEY])
    assert store.purges_since(None).whole, "who is about to purge asks for this first"
    assert not store.link.reading.is_open
    mark = purge(store)
    assert store.mark_of(KEY) == mark


# --- slow ------------------------------------------------------------------------------------------


def test_rds_02_a_black_hole_costs_one_deadline_and_then_nothing():
    with TcpProxy(empty().port) as proxy:
        store = opened(f"redis://127.0.0.1:{proxy.port}", timeout=0.2)
        clock = Clock(store)
        proxy.black_hole = True
        start = time.monotonic()
        with fails("[Tt]imeout"):
            store.get([KEY])
        assert time.monotonic() - start < 5
        assert proxy.accepted == 1
        for _ in range(200):
            with pytest.raises(CircuitOpen):
                store.get([KEY])
        assert proxy.accepted == 1
        clock.pass_pause()
        with fails("[Tt]imeout"):
            store.get([KEY])
        assert proxy.accepted == 2
        proxy.heal()
        clock.pass_pause()
        store.link.timeout = 20
        until(lambda: _answers(store, clock), what="an answer")


def _still_answers(store):
    try:
        store.get([KEY])
    except StoreError:
        return False
    return True


def _answers(store, clock):
    clock.pass_pause()
    try:
        return store.get([KEY])
    except StoreError:
        return None


def test_a_server_that_is_paused(server):
    """CLIENT PAUSE, as an operator before a failover: commands wait."""
    store = opened(server.url, timeout=0.5)
    clock = Clock(store)
    put(store)
    body_of(store)
    server.ask("CLIENT", "PAUSE", 1500)
    with fails("[Tt]imeout"):
        store.confirm(store.peek(KEY))
    with pytest.raises(CircuitOpen):
        store.get([KEY])
    until(lambda: _answers(store, clock), what="an answer")
    assert body_of(store) == b"body"


def test_a_server_that_only_takes_no_writes_still_answers(server):
    """Failing writes leave the reading alone: their trouble is their own."""
    store = opened(server.url, timeout=0.5)
    clock = Clock(store)
    made = put(store)
    server.ask("CLIENT", "PAUSE", 60_000, "WRITE")
    with fails("[Tt]imeout"):
        store.set(KEY, made, time.time() + 60)
    assert (store.link.writing.is_open, store.link.reading.is_open) == (True, False)
    with pytest.raises(CircuitOpen):
        store.set(KEY, made, time.time() + 60)
    assert body_of(store) == b"body"
    assert confirms(store)
    server.ask("CLIENT", "UNPAUSE")
    clock.pass_pause()
    assert store.set(KEY, made, time.time() + 60)
    assert not store.link.writing.is_open


def test_a_server_that_is_busy(server):
    """A script of somebody else's that does not end."""
    store = opened(server.url, timeout=0.5)
    clock = Clock(store)
    put(store)
    server.ask("CONFIG", "SET", "lua-time-limit", 50)
    with server.client() as client:
        connection = client.connection_pool.get_connection()
        connection.send_command("EVAL", "while true do end", 0)
        until(lambda: not _still_answers(store), what="trouble")
        until(lambda: server.ask("SCRIPT", "KILL"), what="the end of the script")
        connection.disconnect()
    until(lambda: _answers(store, clock), what="an answer")
    assert body_of(store) == b"body"


def test_a_server_that_sleeps():
    server = Server(*(["--enable-debug-command", "yes"] if _version() >= (7,) else []))
    try:
        store = opened(server.url, timeout=0.5)
        clock = Clock(store)
        put(store)
        with server.client() as client:
            connection = client.connection_pool.get_connection()
            connection.send_command("DEBUG", "SLEEP", "1.5")
            until(lambda: not _still_answers(store), what="sleep")
            assert connection.read_response(True) == b"OK"
            connection.disconnect()
        until(lambda: _answers(store, clock), what="an answer")
        assert body_of(store) == b"body"
    finally:
        server.close()


def _version():
    told = empty().ask("INFO", "server")["redis_version"]
    return tuple([int(part) for part in told.split(".")])


# --- full ------------------------------------------------------------------------------------------


def test_rds_06_a_server_that_is_full(server, caplog):
    store = opened(server.url)
    clock = Clock(store)
    put(store)
    put(store, OTHER, b"stays")
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "100kb")
    with fails("OOM|OutOfMemory"):
        store.set(KEY, entry(store, body=b"x" * 1000), time.time() + 60)
    assert body_of(store) is None, "the older value must not live on"
    assert body_of(store, OTHER) == b"stays"
    assert confirms(store, OTHER)
    assert (store.link.writing.is_open, store.link.reading.is_open) == (True, False)
    assert [record.message.partition(" (")[0] for record in caplog.records] == [
        f"{server.url} takes no writes"
    ]
    assert not store.set(OTHER, entry(store, OTHER, b"newer"), time.time() + 60), "while it backs off"
    assert body_of(store, OTHER) is None, "while it backs off, too"
    server.ask("CONFIG", "SET", "maxmemory", 0)
    assert not store.set(OTHER, entry(store, OTHER, b"newer"), time.time() + 60)
    clock.pass_pause()
    put(store, OTHER, b"newer")
    assert body_of(store, OTHER) == b"newer"
    assert not store.link.writing.is_open
    assert not store.link.full
    assert len(caplog.records) == 2


def test_rds_06_what_makes_way_is_what_would_have_been_replaced(server):
    """A late fill deletes nothing that is newer."""
    store = opened(server.url)
    Clock(store)
    early = entry(store, body=b"early")
    purge(store, OTHER)
    put(store, body=b"late")
    server.ask("CONFIG", "SET", "maxmemory", "100kb")
    with fails("OOM|OutOfMemory"):
        store.set(OTHER, entry(store, OTHER), time.time() + 60)
    assert not store.set(KEY, early, time.time() + 60)
    assert body_of(store) == b"late"


def test_a_purge_is_taken_by_a_server_that_is_full(server):
    store = opened(server.url)
    other = opened(server.url)
    Clock(store)
    put(store)
    mark = store.mark_of(KEY)
    server.ask("CONFIG", "SET", "maxmemory", "100kb")
    assert purge(store).seq == mark.seq + 1
    assert [record.target for record in other.purges_since(mark).records] == ["p/page"]
    after = store.clear()
    assert after.epoch != mark.epoch
    store.set_meta("rules", "{}")
    assert other.get_meta("rules") == "{}"
    assert body_of(other) is None


def test_a_full_server_has_no_leases_and_no_counters_and_says_so(server):
    store = opened(server.url)
    Clock(store)
    put(store)
    server.ask("CONFIG", "SET", "maxmemory", "100kb")
    with fails("OOM|OutOfMemory"):
        store.lease(KEY, 10)
    with pytest.raises(CircuitOpen, match="takes no writes"):
        store.incr_many({"hits": 1})
    assert body_of(store) == b"body"


# --- refusing --------------------------------------------------------------------------------------


def test_rds_04_a_primary_that_became_a_replica(server):
    other = Server()
    try:
        store = opened(server.url)
        clock = Clock(store)
        made = put(store)
        server.ask("REPLICAOF", "127.0.0.1", other.port)
        with fails("replica"):
            store.set(KEY, made, time.time() + 60)
        with fails("is a replica.*redis\\+sentinel"):
            store.get([KEY])
        server.ask("REPLICAOF", "NO", "ONE")
        clock.pass_pause()
        assert body_of(store) is None
        put(store)
        assert body_of(store) == b"body"
    finally:
        other.close()


def test_a_purge_raises_where_there_is_a_replica_only(server):
    other = Server()
    try:
        store = opened(server.url)
        put(store)
        server.ask("REPLICAOF", "127.0.0.1", other.port)
        with fails("replica"):
            purge(store)
    finally:
        other.close()


def test_a_replica_whose_primary_is_gone(server):
    """MASTERDOWN, on a connection from before."""
    store = opened(server.url)
    Clock(store)
    put(store)
    server.ask("CONFIG", "SET", "replica-serve-stale-data", "no")
    server.ask("REPLICAOF", "127.0.0.1", free_port())
    with fails("MASTERDOWN|[Ll]ink with MASTER is down"):
        store.get([KEY])
    with pytest.raises(CircuitOpen):
        store.get([KEY])


def test_a_server_that_is_loading():
    if _version() < (7,):
        pytest.skip("before Redis 7 a server cannot be told to load slowly")
    server = Server()
    try:
        with server.client() as client, client.pipeline(transaction=False) as pipeline:
            for number in range(3000):
                pipeline.set(f"ballast {number}", "x" * 300)
            pipeline.execute()
        store = opened(server.url)
        clock = Clock(store)
        put(store)
        server.ask("SAVE")
        server.arguments += ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
        server.kill()
        server._launch(server.port)
        until(lambda: b"loading:1" in server.ask_raw("INFO", "persistence"), what="loading")
        with fails("load"):
            store.get([KEY])
        assert store.link.reading.is_open
        server.kill()
        server.arguments = ()
        server.start()
        clock.pass_pause()
        assert body_of(store) is None, "a restart begins a new epoch"
    finally:
        server.close()


@pytest.mark.parametrize(
    ("rules", "call", "told"),
    [
        ("-get -mget", lambda store: store.get([KEY]), "NOPERM|[Nn]o permissions"),
        ("-info", lambda store: store.get([KEY]), "needs INFO.*\\+info"),
        ("-evalsha -eval", lambda store: store.get([KEY]), "NOPERM|[Nn]o permissions"),
        ("resetkeys", lambda store: store.get([KEY]), "NOPERM|[Nn]o permissions"),
    ],
)
def test_a_user_without_permission(server, rules, call, told):
    server.ask("ACL", "SETUSER", "site", "on", ">pass", "~*", "&*", "+@all", *rules.split())
    store = opened(f"redis://site:pass@127.0.0.1:{server.port}")
    Clock(store)
    with fails(told):
        call(store)
    with pytest.raises(CircuitOpen):
        call(store)


def test_a_user_who_may_not_write(server):
    server.ask("ACL", "SETUSER", "site", "on", ">pass", "~*", "&*", "+@all")
    store = opened(f"redis://site:pass@127.0.0.1:{server.port}")
    Clock(store)
    made = put(store)
    server.ask("ACL", "SETUSER", "site", "-set")
    with fails("NOPERM|no permissions|can't run this command|ACL"):
        store.set(KEY, made, time.time() + 60)
    assert (store.link.writing.is_open, store.link.reading.is_open) == (True, False)
    assert body_of(store) is None
    assert "pass" not in repr([store.link.name])


def test_the_least_that_a_user_needs(server):
    """As the manual says; INFO and the five keys of the journal included."""
    commands = (
        "+info +client|setname +get +mget +getrange +set +del +touch +persist +pexpire +exists +type +ttl "
        "+hget +hmget +hgetall +hlen +hset +hdel +hincrby +zcard +zadd +zrangebyscore +zpopmin "
        "+rpush +ltrim +lindex +time +eval +evalsha +publish +subscribe +ping +scan +strlen +dbsize +select"
    )
    server.ask(
        "ACL", "SETUSER", "site", "on", ">pass", "~wsgicache:*", "resetchannels", "&wsgicache:*", "-@all",
        *commands.split(),
    )  # fmt: skip
    store = opened(f"redis://site:pass@127.0.0.1:{server.port}")
    put(store)
    assert confirms(store)
    purge(store)
    token = store.lease(KEY, 10)
    store.release(KEY, token)
    store.set_meta("rules", "{}")
    store.incr_many({"hits": 1})
    assert store.counters() == {"hits": 1}
    assert store.stats()["entries"] == 1
    assert len(list(store.scan())) == 1
    assert store.purges_since(None).records
    assert store.publish("x") == 0
    assert store.delete(KEY)
    store.clear()


def test_a_wrong_password(server):
    server.ask("CONFIG", "SET", "requirepass", "right")
    store = opened(f"redis://:wrong@127.0.0.1:{server.port}")
    Clock(store)
    with fails("WRONGPASS|invalid username-password"):
        store.get([KEY])
    with pytest.raises(CircuitOpen):
        store.get([KEY])


def test_a_server_that_is_no_redis():
    with TcpProxy(_chatterbox()) as proxy:
        store = opened(f"redis://127.0.0.1:{proxy.port}", timeout=2)
        Clock(store)
        with fails():
            store.get([KEY])
        with pytest.raises(CircuitOpen):
            store.get([KEY])


def _chatterbox():
    """The port of something that answers every connection with words of its own."""
    import socket
    import threading

    listener = socket.create_server(("127.0.0.1", 0))

    def talk():
        client, _ = listener.accept()
        with client, listener:
            client.sendall(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)
            client.recv(1)

    threading.Thread(target=talk, daemon=True).start()
    return listener.getsockname()[1]


def test_nothing_is_left_of_a_store_that_was_never_used():
    server = empty()
    store = opened(server.url)
    store.namespaced("a")
    store.close()
    assert names(server) == []
