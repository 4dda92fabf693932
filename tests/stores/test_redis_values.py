"""What is stored in Redis, and what is made of it when it is not what was stored."""

import os
import pickle
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_helpers import KEY, body_of, confirms, entry, entry_names, fails, name, opened, purge, put
from servers_redis import Server, empty

from wsgicache.codec import FORMAT, DecodeError, encode
from wsgicache.entry import Variants
from wsgicache.stores import MOST_COUNTERS
from wsgicache.stores.redisscripts import LINE
from wsgicache.stores.redisvalues import read_value, write_value

OTHER = "/other\0\0example.com\0http"


@pytest.fixture
def server():
    return empty()


class Bomb:
    def __reduce__(self):
        return os._exit, (9,)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("lined", [False, True])
def test_ser_01_a_pickle_under_a_live_key_is_a_miss(server, protocol, lined):
    store = opened(server.url, memo_bytes=0)
    put(store)
    (key,) = entry_names(server)
    line = server.ask("GETRANGE", key, 0, LINE - 1) if lined else b""
    server.ask("SET", key, line + pickle.dumps(Bomb(), protocol))
    assert body_of(store) is None
    assert entry_names(server) == [], "it is deleted"
    assert store.damaged == 1
    assert store.stats()["damaged"] == 1
    put(store)
    assert body_of(store) == b"body"


def spoilt(value):
    """Values that are wrong in one way each."""
    yield "empty", b""
    yield "cut in the line", value[: LINE // 2]
    yield "only the line", value[:LINE]
    yield "cut in the head", value[: LINE + 10]
    yield "cut in the body", value[:-1]
    yield "longer", value + b"x"
    for position in range(LINE, len(value), 7):
        yield f"bit {position}", value[:position] + bytes([value[position] ^ 4]) + value[position + 1 :]
    yield "zeros", bytes(len(value))
    yield "another version", value.replace(b"wsgc%c" % FORMAT, b"wsgc%c" % (FORMAT + 1))
    yield "longer suffix", value.replace(b" 0 ", b" 9 ", 1)


def test_int_11_a_damaged_value_is_a_miss_and_goes(server):
    store = opened(server.url, memo_bytes=0)
    put(store)
    (key,) = entry_names(server)
    value = server.ask("GET", key)
    wrong = list(spoilt(value))
    assert len(wrong) > 30
    for told, damaged in wrong:
        server.ask("SET", key, damaged)
        assert body_of(store) is None, told
        assert server.ask("EXISTS", key) == 0, told
    assert store.damaged == len(wrong)
    server.ask("SET", key, value)
    assert body_of(store) == b"body"


def test_a_line_that_was_moved_to_another_entry_is_not_believed(server):
    """An older page must not look as if it had been born later."""
    store = opened(server.url, memo_bytes=0)
    put(store, body=b"old")
    (key,) = entry_names(server)
    old = server.ask("GET", key)
    purge(store)
    put(store, body=b"new")
    new = server.ask("GET", key)
    server.ask("SET", key, new[:LINE] + old[LINE:])
    assert body_of(store) is None


def test_another_keys_value_is_a_miss(server):
    store = opened(server.url, memo_bytes=0)
    put(store, KEY)
    (key,) = entry_names(server)
    value = server.ask("GET", key)
    server.ask("DEL", key)
    put(store, OTHER)
    (other,) = entry_names(server)
    server.ask("SET", other, value)
    assert body_of(store, OTHER) is None
    assert store.damaged == 1


def test_a_variant_is_found_under_its_own_key_only(server):
    store = opened(server.url, memo_bytes=0)
    made = entry(store)
    variant = KEY + "\1accept=\u00e9\ud800"
    assert store.set(variant, made, time.time() + 60)
    assert store.get([variant])[0][0].key == KEY
    (key,) = entry_names(server)
    value = server.ask("GET", key)
    put(store, KEY)
    base = next(one for one in entry_names(server) if one != key)
    server.ask("SET", base, value)
    assert body_of(store) is None


def test_ser_06_another_format_version_is_left_alone(server):
    """Workers of two versions share one journal, and neither deletes what the other stores."""
    store = opened(server.url)
    put(store)
    (key,) = entry_names(server)
    newer = key.replace(b":%d:" % FORMAT, b":%d:" % (FORMAT + 1))
    server.ask("SET", newer, "of another version")
    assert body_of(store) == b"body"
    store.delete(KEY)
    assert server.ask("GET", newer) == b"of another version"


def test_a_damaged_value_that_cannot_be_deleted_is_a_miss(server):
    user = ["ACL", "SETUSER", "site", "on", ">pass", "~*", "&*", "+@all"]
    server.ask(*user)
    try:
        store = opened(f"redis://site:pass@127.0.0.1:{server.port}", memo_bytes=0)
        put(store)
        (key,) = entry_names(server)
        server.ask("SET", key, "foreign")
        server.ask("ACL", "SETUSER", "site", "-del")
        assert body_of(store) is None
    finally:
        server.ask("ACL", "DELUSER", "site")


@pytest.mark.parametrize("kind", ["RPUSH", "SADD", "HSET"])
def test_wrongtype_of_an_entry_is_a_miss_and_is_replaced(server, kind):
    store = opened(server.url)
    put(store)
    assert confirms(store)
    (key,) = entry_names(server)
    server.ask("DEL", key)
    server.ask(kind, key, *(["a", "b"] if kind == "HSET" else ["a"]))
    assert not confirms(store)
    assert body_of(store) is None
    put(store, body=b"new")
    assert body_of(store) == b"new"
    assert not store.link.reading.is_open
    server.ask("DEL", key)
    server.ask("RPUSH", key, "a")
    assert not store.delete(KEY, entry(store))
    assert store.delete(KEY)


def test_wrongtype_of_everything_else_is_replaced(server):
    store = opened(server.url)
    store.set_meta("rules", "{}")
    store.incr_many({"hits": 1})
    for ending, kind in ((b":meta", "RPUSH"), (b":counters", "RPUSH"), (b":tokens", "RPUSH")):
        key = server.ask("KEYS", "*")[0].rpartition(b":")[0] + ending
        server.ask("DEL", key)
        server.ask(kind, key, "a")
    assert store.get_meta("rules") is None
    assert store.counters() == {}
    key = name(server, b":tokens").replace(b":tokens", b":meta")
    server.ask("RPUSH", key, "a")
    server.ask("RPUSH", key.replace(b":meta", b":counters"), "a")
    store.set_meta("rules", "{1}")
    store.incr_many({"hits": 2})
    assert (store.get_meta("rules"), store.counters()) == ("{1}", {"hits": 2})
    assert store.lease(KEY, 5)
    assert not store.link.reading.is_open


def test_names_of_counters_do_not_grow_for_ever(server):
    """Workers that come and go bring those of others."""
    store = opened(server.url)
    store.incr_many({f"hits<{number}>": 1 for number in range(MOST_COUNTERS - 1)})
    store.incr_many({"hits<0>": 1, "first": 1, "second": 1})
    counters = store.counters()
    assert (len(counters), counters["hits<0>"], counters["first"]) == (MOST_COUNTERS, 2, 1)


def test_a_counter_that_is_no_number(server):
    store = opened(server.url)
    store.incr_many({"hits": 1})
    server.ask("HSET", name(server, b":counters"), "hits", "many")
    with fails("not an integer"):
        store.incr_many({"hits": 1})
    assert body_of(store) is None


def test_every_key_but_the_journal_and_the_texts_expires(server):
    store = opened(server.url)
    put(store)
    put(store, OTHER)
    store.set(OTHER, Variants(OTHER, ("accept",), (), time.time()), time.time() + 5)
    purge(store)
    purge(store)
    store.lease(KEY, 30)
    token = store.lease(OTHER, 30)
    store.release(OTHER, token, unstorable_for=20)
    store.set_meta("rules", "{}")
    store.incr_many({"hits": 1})
    lasting = {key.rpartition(b":")[2] for key in server.ask("KEYS", "*") if server.ask("TTL", key) < 0}
    assert lasting == {b"mark", b"order", b"records", b"nonces", b"dropped", b"meta"}


@pytest.mark.parametrize(
    ("seconds", "least", "most"), [(300, 298, 300), (-5, 0.5, 1), (2**31, 2**31 - 5, 2**31)]
)
def test_an_entry_lives_as_long_as_it_may_be_kept(server, seconds, least, most):
    store = opened(server.url)
    assert store.set(KEY, entry(store), time.time() + seconds)
    (key,) = entry_names(server)
    assert least * 1000 <= server.ask("PTTL", key) <= most * 1000


def test_an_eviction_takes_what_is_journal_last(server):
    """Storing a page counts as a use of the journal, which nobody reads for days otherwise."""
    store = opened(server.url)
    purge(store)
    store.set_meta("rules", "{}")
    keys = [name(server, ending) for ending in (b":order", b":records", b":nonces", b":meta")]
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    try:
        for key in keys:
            server.ask("RESTORE", key, 0, server.ask("DUMP", key), "REPLACE", "FREQ", 1)
        for _ in range(30):
            put(store)
        assert all([server.ask("OBJECT", "FREQ", key) > 1 for key in keys])
    finally:
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")


def test_no_client_text_reaches_the_server_as_a_name(server):
    store = opened(server.url).namespaced("gr\u00fcn *\r\n")
    put(store, "/evil key\r\nFLUSHALL\r\n\0\0example.com\0http")
    store.lease("/evil", 5)
    for key in server.ask("KEYS", "*"):
        assert set(key) <= set(b"abcdefghijklmnopqrstuvwxyz0123456789:")
        assert len(key) < 80


def test_no_request_walks_over_the_keys(server):
    store = opened(server.url)
    server.ask("CONFIG", "RESETSTAT")
    for number in range(3):
        put(store, f"/{number}\0\0example.com\0http")
    store.get([KEY, OTHER])
    confirms(store, "/1\0\0example.com\0http")
    purge(store)
    store.purges_since(None)
    store.delete(KEY)
    store.clear()
    store.release(KEY, store.lease(KEY, 5))
    store.incr_many({"hits": 1})
    store.set_meta("rules", "{}")
    store.get_meta("rules")
    used = {name.removeprefix("cmdstat_") for name in server.ask("INFO", "commandstats")}
    assert "mget" in used
    assert not used & {"keys", "scan", "dbsize", "flushall", "flushdb", "sort", "smembers", "monitor"}


def test_the_signature_is_checked(server):
    signed = opened(server.url, memo_bytes=0, signing_keys=(b"new", b"old"))
    put(opened(server.url, signing_keys=(b"old",)))
    assert body_of(signed) == b"body"
    put(opened(server.url, signing_keys=(b"forged",)))
    assert body_of(signed) is None
    assert signed.damaged == 1


def test_deleting_one_very_entry_survives_a_change_of_keys(server):
    old = opened(server.url, signing_keys=(b"old",))
    put(old)
    new = opened(server.url, signing_keys=(b"new", b"old"))
    (read,), _ = new.get([KEY])
    assert not new.delete(KEY, entry(new, body=b"another"))
    assert new.delete(KEY, read)
    made = put(old)
    assert old.delete(KEY, made)


def test_what_this_process_stored_need_not_be_decoded(server):
    store = opened(server.url)
    made = put(store)
    assert store.peek(KEY).stored is made
    assert confirms(store)
    put(opened(server.url), body=b"newer")
    assert not confirms(store)
    assert store.peek(KEY) is None
    assert body_of(store) == b"newer"


def test_the_same_page_stored_again_is_not_the_same(server):
    """Two fills with equal bytes differ in their line: nothing is mistaken for what it replaced."""
    store, other = opened(server.url), opened(server.url)
    made = put(store)
    other.set(KEY, made, time.time() + 60)
    assert not confirms(store)


def test_numbers_of_a_server_with_many_keys_are_estimated(server):
    store = opened(server.url)
    with server.client() as client, client.pipeline(transaction=False) as pipeline:
        for number in range(15_000):
            pipeline.set(f"foreign {number}", "x")
        pipeline.execute()
    for number in range(3000):
        put(store, f"/{number}\0\0example.com\0http")
    stats = store.stats()
    assert stats["server_keys"] > 18_000
    assert 2000 < stats["entries"] < 4000
    assert 2000 * 300 < stats["bytes"] < 4000 * 600
    assert stats["server_bytes"] > stats["bytes"]


def test_numbers_tell_of_the_server():
    server = Server("--maxmemory", "50mb")
    try:
        store = opened(server.url)
        put(store)
        stats = store.stats()
        assert (stats["max_bytes"], stats["evicted"], stats["connections_opened"]) == (50 << 20, 0, 1)
        assert stats["memo_entries"] == 1
    finally:
        server.close()


def test_old_epochs_are_not_counted_and_not_listed(server):
    store = opened(server.url)
    put(store)
    store.clear()
    put(store, OTHER)
    assert store.stats()["entries"] == 1
    assert [stored.key for stored in store.scan()] == [OTHER]
    assert len(entry_names(server)) == 2


# --- the stored form -------------------------------------------------------------------------------


def lined(store_entry, key=KEY):
    return write_value(key, store_entry, store_entry.born.epoch, str(store_entry.born.seq), 7)


def test_what_was_written_is_read(server):
    made = entry(opened(server.url))
    line, value = lined(made, KEY + "\1=x")
    assert (len(line), value[:LINE], line[-1:]) == (LINE, line, b"\n")
    key, stored = read_value(value)
    assert (key, encode(stored)) == (KEY + "\1=x", encode(made))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_bytes_are_a_decode_error(server, data):
    """The line may lie: about the epoch, the number, the token (which nothing follows from)."""
    value = bytearray(lined(_entry(server))[1])
    kind = data.draw(st.sampled_from(["flip", "cut", "insert", "random"]))
    if kind == "random":
        value = bytearray(data.draw(st.binary(max_size=300)))
    else:
        position = data.draw(st.integers(0, len(value) - 1))
        if kind == "flip":
            value[position] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del value[position:]
        else:
            value[position:position] = data.draw(st.binary(min_size=1, max_size=20))
    try:
        key, stored = read_value(bytes(value))
    except DecodeError:
        return
    assert stored.body == b"body"
    assert key.startswith(KEY)


_made = []


def _entry(server):
    if not _made:
        _made.append(entry(opened(server.url)))
    return _made[0]
