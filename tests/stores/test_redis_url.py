"""URLs of Redis servers: what they mean, and what a person reads who got one wrong."""

import subprocess

import pytest
from redis_helpers import body_of, confirms, fails, put
from servers_redis import Server, empty

from wsgicache.stores import StoreOptions, open_store
from wsgicache.stores.redisurl import read_url


def read(url, **options):
    return read_url(url, StoreOptions(**options))


@pytest.mark.parametrize(
    ("url", "nodes"),
    [
        ("redis://cache", (("cache", 6379),)),
        ("redis://cache:1234/5", (("cache", 1234),)),
        ("redis://[::1]:7/", (("::1", 7),)),
        ("rediss://cache.example", (("cache.example", 6379),)),
        ("redis+sentinel://a,b:5,[::1]/mymaster", (("a", 26379), ("b", 5), ("::1", 26379))),
        ("redis+cluster://a:1,b", (("a", 1), ("b", 6379))),
        ("redis+cluster://a:1/", (("a", 1),)),
    ],
)
def test_hosts(url, nodes):
    assert read(url).nodes == nodes


def test_everything_a_url_can_say(tmp_path):
    authorities = tmp_path / "ca.pem"
    authorities.touch()
    address = read(
        "rediss+sentinel://us%40er:p%2Fw@a:1/my%20master/3?timeout=20ms&journal=9&max_connections=2"
        f"&ssl_ca_certs={authorities}&ssl_check_hostname=no&ssl_cert_reqs=none&sentinel_username=s&sentinel_password=t"
    )
    assert address.login == {"username": "us@er", "password": "p/w", "db": 3}
    assert address.sentinel_login == {"username": "s", "password": "t"}
    assert (address.service, address.tls, address.timeout) == ("my master", True, 0.02)
    assert (address.journal, address.connections) == (9, 2)
    assert address.tls_options == {
        "ssl_ca_certs": str(authorities), "ssl_check_hostname": False, "ssl_cert_reqs": "none",
    }  # fmt: skip
    assert "p/w" not in address.name
    assert "p%2Fw" not in address.name


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("0.5", 0.5), ("2s", 2), ("1.5ms", 0.0015)])
def test_timeouts(text, seconds):
    assert read(f"redis://a?timeout={text}").timeout == seconds


def test_the_option_counts_where_the_url_says_nothing():
    assert read("redis://a", timeout=0.7).timeout == 0.7
    assert read("redis://a").timeout == 0.05
    assert read("redis+cluster://a").buckets == 16
    assert read("redis+cluster://a?buckets=4").buckets == 4


def test_a_socket():
    address = read("unix://user:pw@/run/my%20redis.sock?db=4")
    assert (address.path, address.nodes) == ("/run/my redis.sock", ())
    assert address.login == {"username": "user", "password": "pw", "db": 4}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://a,b", "one server is meant here.*redis\\+sentinel"),
        ("redis://a:b", "'a:b' is no host:port"),
        ("redis://a:0", "'a:0' is no host:port"),
        ("redis://a:70000", "'a:70000' is no host:port"),
        ("redis://a/x", "'x' is no database; give a number"),
        ("redis://a/1/2", "'1/2' is no database"),
        ("redis://a?db=1", "unknown option 'db'"),
        ("redis://a?timeout=soon", "timeout = 'soon'"),
        ("redis://a?timeout=0", "timeout = '0': give a time above zero"),
        ("redis://a?timeout=-1", "timeout = '-1'"),
        ("redis://a?timeout=1&timeout=2", "timeout is given twice"),
        ("redis://a?journal=0", "journal = '0'"),
        ("redis://a?journal=many", "journal = 'many'"),
        ("redis://a?max_connections=0", "max_connections = '0'"),
        ("redis://a?decode_responses=1", "unknown option 'decode_responses'"),
        ("redis://a?buckets=1", "unknown option 'buckets'"),
        ("redis://a?timeot=1", "did you mean 'timeout'"),
        ("redis:/a", "two slashes follow redis: write redis://a$"),
        ("redis:a:1/2", "write redis://a:1/2$"),
        ("redis:", "write redis://…"),
        ("rediss:/a", "write rediss://a$"),
        ("redis+sentinel:/a/m", "write redis\\+sentinel://a/m$"),
        ("redis+cluster:a", "write redis\\+cluster://a$"),
        ("unix:/run/redis.sock", "write unix:///run/redis.sock$"),
        ("redis://", "name a host, such as localhost"),
        ("redis:///0", "name a host"),
        ("redis://a,", "name a host"),
        ("redis+sentinel:///m", "name a host"),
        ("redis+sentinel://a,,b/m", "name a host"),
        ("redis+cluster://a,", "name a host"),
        ("redis://a&timeout=1", "'a&timeout=1' is no host:port;.*options after \\?"),
        ("redis://a b", "'a b' is no host:port"),
        ("redis://a;timeout=1", "is no host:port"),
        ("unix:///run/redis.sock&db=1", "options begin with \\?.*%26"),
        ("unix:///run/redis.sock/3", "an option: \\?db=3"),
        ("rediss://a?ssl_ca_certs=/nowhere", "ssl_ca_certs = '/nowhere': there is no such file"),
        ("redis://a?ssl_ca_certs=/x", "unknown option 'ssl_ca_certs'"),
        ("rediss://a?ssl_cert_reqs=maybe", "ssl_cert_reqs = 'maybe'"),
        ("unix://", "give the path of the socket"),
        ("unix://relative/path", "give the path of the socket"),
        ("unix:///x?db=x", "db = 'x'"),
        ("redis+sentinel://a:1", "say which primary"),
        ("redis+sentinel://a:1/", "say which primary"),
        ("redis+sentinel://a:1/m/x", "'x' is no database"),
        ("redis+cluster://a/0", "one database"),
        ("redis+cluster://a?buckets=0", "buckets = '0'"),
        ("redis+cluster://a?buckets=5000", "at most 1024"),
        ("redis+cluster://a,:x", "':x' is no host:port"),
    ],
)
def test_mistakes(url, told):
    with pytest.raises(ValueError, match=told) as raised:
        open_store(url)
    assert url.partition("?")[0].rpartition("@")[2] in str(raised.value)


def test_a_mistake_shows_no_password():
    for url in (
        "redis://u:hunter2@a:x",
        "redis+sentinel://a/m?sentinel_password=hunter2&x=1",
        "redis+sentinel://:hunter2@a",
        "unix://u:hunter2@relative?x=1",
        "redis:/u:hunter2@a",
        "redis:u:hunter2@a",
        "redis:/:hunter2@a",
        "redis://:h?unter2@a",
    ):
        with pytest.raises(ValueError, match=r"a|relative") as raised:
            open_store(url)
        assert "unter2" not in str(raised.value)


def test_opening_connects_to_nobody():
    for url in (
        "redis://127.0.0.1:1",
        "rediss://127.0.0.1:1",
        "unix:///nowhere",
        "redis+sentinel://127.0.0.1:1/m",
        "redis+cluster://127.0.0.1:1",
    ):
        store = open_store(url)
        assert store.shared
        with fails("127.0.0.1:1|nowhere|master"):
            store.get(["/a"])
        store.close()


def test_a_database_is_its_own():
    server = empty()
    first, second = open_store(f"{server.url}/0?timeout=20s"), open_store(f"{server.url}/1?timeout=20s")
    put(first)
    assert body_of(second) is None
    put(second, body=b"second")
    assert (body_of(first), body_of(second)) == (b"body", b"second")
    server.ask("FLUSHALL")


def test_a_unix_socket_works():
    server = Server("--unixsocket", "redis.sock")
    try:
        store = open_store(f"unix://{server.directory}/redis.sock?timeout=20s")
        put(store)
        assert confirms(store)
        with fails("nowhere"):
            open_store("unix:///nowhere/redis.sock").get(["/a"])
    finally:
        server.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1, signed by itself."""
    where = tmp_path_factory.mktemp("tls")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost "
        "-addext subjectAltName=IP:127.0.0.1"
    )
    try:
        subprocess.run(command.split(), cwd=where, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed: apt-get install openssl")
    return where


def test_tls(certificate):
    from ports import free_port

    port = free_port()
    files = [f"--tls-{name}-file" for name in ("cert", "key", "ca-cert")]
    paths = [certificate / name for name in ("cert.pem", "key.pem", "cert.pem")]
    arguments = [str(piece) for pair in zip(files, paths, strict=True) for piece in pair]
    if not empty().ask("CONFIG", "GET", "tls-port"):
        pytest.skip("this server was built without TLS")
    server = Server("--tls-port", str(port), "--tls-auth-clients", "no", *arguments)
    try:
        store = open_store(f"rediss://127.0.0.1:{port}?timeout=20s&ssl_ca_certs={certificate}/cert.pem")
        put(store, body=b"x" * 100_000)
        assert confirms(store)
        store._memo.clear()
        assert body_of(store) == b"x" * 100_000
        with fails("certificate verify failed|CERTIFICATE_VERIFY_FAILED"):
            open_store(f"rediss://127.0.0.1:{port}?timeout=20s").get(["/a"])
        trusting = open_store(
            f"rediss://127.0.0.1:{port}?timeout=20s&ssl_cert_reqs=none&ssl_check_hostname=no"
        )
        assert body_of(trusting) is not None
        with fails():
            open_store(f"rediss://127.0.0.1:{server.port}?timeout=300ms").get(["/a"])
    finally:
        server.close()
