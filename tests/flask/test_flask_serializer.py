"""Values travel as plain data or signed; what nobody with a key wrote is never unpickled."""

import ast
import os
import pickle
from collections import OrderedDict
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest
from flask import Flask, Response
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer
from markupsafe import Markup
from werkzeug.exceptions import NotFound

import wsgicache
from wsgicache.flask import Cache, CachedResponse
from wsgicache.flask.forms import Raised
from wsgicache.flask.serializer import Refused, SafeDigitsSerializer, SafeSerializer, plain_bytes

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary(),
    st.decimals(allow_nan=False), st.uuids(), st.dates(), st.timedeltas(), st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)  # fmt: skip
hashable = st.one_of(st.integers(), st.text(), st.booleans(), st.tuples(st.text(), st.integers()))
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner), st.tuples(inner, inner), st.dictionaries(hashable, inner), st.frozensets(hashable),
        st.sets(hashable),
    ),
    max_leaves=12,
)  # fmt: skip


def shape(value):
    """A value with all its types."""
    if isinstance(value, dict):
        return dict, [(shape(key), shape(item)) for key, item in value.items()]
    if isinstance(value, set | frozenset):
        return type(value), frozenset(shape(item) for item in value)
    if isinstance(value, list | tuple):
        return type(value), tuple(shape(item) for item in value)
    return type(value), value


def keyed(*keys):
    return lambda: keys


class Point:
    def __init__(self, x):
        self.x = x

    def __eq__(self, other):
        return type(other) is Point and other.x == self.x

    __hash__ = None


class Evil:
    ran = False

    def __reduce__(self):
        return (setattr, (Evil, "ran", True))


@given(values)
def test_plain_values_come_back_with_identical_types(value):
    for serializer in (SafeSerializer(), SafeDigitsSerializer()):
        again = serializer.loads(serializer.dumps(value))
        assert shape(again) == shape(value)


@pytest.mark.parametrize(
    "value",
    [Point(1), OrderedDict(a=1), bytearray(b"x"), datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1)))],
)
def test_what_would_change_on_the_way_is_signed_instead(value):
    assert plain_bytes(value) is None
    serializer = SafeSerializer(keyed("secret"))
    again = serializer.loads(serializer.dumps(value))
    assert again == value
    assert type(again) is type(value)


def test_named_extensions_come_back():
    value = [Markup("<b>"), Decimal("1.10"), UUID(int=5), date(2026, 1, 2), 1 << 80, -(1 << 70)]
    again = SafeSerializer().loads(SafeSerializer().dumps(value))
    assert shape(again) == shape(value)


def test_responses_and_errors_travel_as_plain_data():
    response = CachedResponse(Response("hi", 201, {"X-One": "1"}), 7)
    error = NotFound("nothing")
    dumped = plain_bytes((response, Raised(error)))
    assert dumped is not None
    again, raised = SafeSerializer().loads(SafeSerializer().dumps((response, Raised(error))))
    assert type(again) is CachedResponse
    assert (again.status_code, again.get_data(), again.headers["X-One"], again.timeout) == (
        201,
        b"hi",
        "1",
        7,
    )
    assert type(raised.error) is NotFound
    assert raised.error.description == "nothing"


def test_without_a_key_it_is_refused_with_the_remedy():
    with pytest.raises(Refused, match="SECRET_KEY"):
        SafeSerializer().dumps(Point(1))


def test_a_fallback_key_still_reads():
    old = SafeSerializer(keyed("old")).dumps(Point(1))
    assert SafeSerializer(keyed("old", "new")).loads(old) == Point(1)
    assert SafeSerializer(keyed("new")).loads(old) is None


@pytest.mark.parametrize("prefix", [b"", b"!", b"\xc1Ws"])
def test_what_an_intruder_writes_is_not_run(prefix):
    Evil.ran = False
    planted = prefix + pickle.dumps(Evil())
    for serializer in (SafeSerializer(keyed("secret")), SafeDigitsSerializer(keyed("secret"))):
        serializer.loads(planted)
    assert not Evil.ran


@pytest.mark.parametrize("fallbacks", [None, [], ["", None]])
@pytest.mark.parametrize("current", [None, "", "secret"])
def test_an_empty_key_signs_nothing_that_is_read(fallbacks, current, config_of):
    """Without a key there is no signature to trust, and an empty fallback is none."""
    app = Flask("keys")
    app.config.update(SECRET_KEY=current, SECRET_KEY_FALLBACKS=fallbacks)
    cache = Cache(app, config=config_of("file"))
    Evil.ran = False
    signer = Signer([b""], salt="wsgicache.flask", key_derivation="hmac", digest_method=sha256)
    forged = b"\xc1Ws" + signer.sign(pickle.dumps(Evil()))
    assert cache.cache.serializer.loads(forged) is None
    assert not Evil.ran


def test_every_changed_byte_of_a_signed_value_is_noticed():
    serializer = SafeSerializer(keyed("secret"))
    signed = serializer.dumps(Point(1))
    for at in range(3, len(signed)):
        changed = bytearray(signed)
        changed[at] ^= 1
        assert serializer.loads(bytes(changed)) is None


def test_the_migration_switch_reads_what_flask_caching_wrote():
    for serializer in (SafeSerializer, SafeDigitsSerializer):
        assert serializer(read_unsigned=True).loads(b"!" + pickle.dumps(Point(2))) == Point(2)
    assert SafeSerializer(read_unsigned=True).loads(pickle.dumps(Point(2), 4)) == Point(2)


def test_only_one_module_imports_pickle():
    package = Path(wsgicache.__file__).parent
    importing = set()
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if {name.partition(".")[0] for name in names} & {
                "pickle",
                "_pickle",
                "shelve",
                "marshal",
                "dill",
            }:
                importing.add(path.relative_to(package).as_posix())
    assert importing == {"flask/serializer.py"}


# --- through the cache -------------------------------------------------------------------------------


def test_a_stored_value_is_no_pickle_and_an_object_is_signed(make_cache, shared):
    cache = make_cache(shared)
    cache.set("plain", {"a": (1, b"x")})
    cache.set("object", Point(3))
    assert cache.get("plain") == {"a": (1, b"x")}
    assert cache.get("object") == Point(3)
    assert cache.get_many("plain", "object") == [{"a": (1, b"x")}, Point(3)]


def test_a_planted_pickle_in_the_backend_is_a_miss(make_cache, shared, tmp_path):
    cache = make_cache(shared)
    Evil.ran = False
    cache.set("key", "x")
    backend = cache.cache
    if shared == "redis":
        backend._write_client.set("flask_cache_key", b"!" + pickle.dumps(Evil()))
    elif shared == "file":
        name = Path(backend._get_filename("key"))
        name.write_bytes(b"\0\0\0\0" + pickle.dumps(Evil()))
    else:
        with backend._client_context() as client:
            client.set(backend._normalize_key("key"), b"!" + pickle.dumps(Evil()))
    assert cache.get("key") is None
    assert not Evil.ran


def test_pylibmc_never_unpickles_by_itself(make_cache, memcached_port):
    import pylibmc

    cache = make_cache("pylibmc")
    Evil.ran = False
    plain = pylibmc.Client([f"127.0.0.1:{memcached_port}"])
    plain.set("flask_cache_key", Evil())  # with the client's own flag for a pickle
    assert cache.get("key") is None
    assert cache.get_many("key") == [None]
    assert not Evil.ran


def test_without_a_secret_key_set_says_so_and_a_view_goes_on(config_of, redis_port):
    app = Flask("keyless")
    cache = Cache(app, config=config_of("redis"))
    with pytest.raises(Refused, match="SECRET_KEY"):
        cache.set("object", Point(1))

    @cache.cached(key_prefix="keyless")
    def view():
        return Point(1)

    assert view() == Point(1)
    cache.cache._write_client.close()


def test_memory_needs_no_key(make_cache):
    app = Flask("keyless")
    cache = Cache(app, config={"CACHE_TYPE": "SimpleCache"})
    cache.set("object", Point(1))
    first = cache.get("object")
    first.x = 2
    assert cache.get("object") == Point(1)


def test_files_hold_no_pickle(make_cache, tmp_path):
    cache = make_cache("file")
    cache.set("key", {"a": 1})
    contents = Path(cache.cache._get_filename("key")).read_bytes()
    assert contents[4:7] == b"\xc1Wm"
    assert os.stat(cache.cache._get_filename("key")).st_mode & 0o777 == 0o600
