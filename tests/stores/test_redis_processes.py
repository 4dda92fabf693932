"""Forks, killed processes and killed greenlets."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from redis_helpers import KEY, body_of, confirms, opened, put
from servers_redis import empty, until

import wsgicache

KEYS = [f"/{number}\0\0example.com\0http" for number in range(5)]
ROOT = Path(wsgicache.__file__).parent.parent


@pytest.fixture
def server():
    return empty()


def run(text, *arguments):
    """A Python process of its own, with this wsgicache and these helpers."""
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(text), *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_rds_14_children_share_no_socket_with_each_other_or_their_parent(server):
    """Preloaded: the parent has connected, then workers are forked; each looks up pages of its own."""
    process = run(
        """
        import os, sys, threading
        from redis_helpers import opened, put, body_of, confirms
        KEYS = [f"/{n}\\0\\0example.com\\0http" for n in range(5)]
        store = opened(sys.argv[1])
        for n, key in enumerate(KEYS):
            put(store, key, b"%d" % n * 3000)
        assert all([confirms(store, key) for key in KEYS])
        mine = {line.connection._sock.getsockname() for line in store.link.free}
        children = []
        for child in range(4):
            read, write = os.pipe()
            pid = os.fork()
            if pid == 0:
                assert len(store.link.free) == 0
                for turn in range(200):
                    n = (child + turn) % 5
                    assert body_of(store, KEYS[n]) == b"%d" % n * 3000
                    assert confirms(store, KEYS[n])
                names = {line.connection._sock.getsockname() for line in store.link.free}
                os.write(write, repr(names).encode())
                os._exit(0)
            os.close(write)
            children.append((pid, read))
        for turn in range(200):
            assert body_of(store, KEYS[turn % 5]) == b"%d" % (turn % 5) * 3000
        seen = [mine]
        for pid, read in children:
            assert os.waitpid(pid, 0)[1] == 0
            seen.append(eval(os.read(read, 10000)))
            os.close(read)
        assert len(set().union(*seen)) == sum(map(len, seen)) == 5, seen
        assert confirms(store, KEYS[0])
        store.close()
        print("well")
        """,
        server.url,
    )
    assert process.communicate(timeout=60)[0] == "well\n"
    assert process.returncode == 0


def test_con_15_forked_while_a_thread_holds_the_locks(server):
    store = opened(server.url)
    put(store)
    with store.link._room, store.link.reading._lock, store._memo._lock:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                status = 0 if body_of(store) == b"body" and confirms(store) else 2
            finally:
                os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0
    assert body_of(store) == b"body"


def test_con_08_a_killed_holder_costs_its_lease_at_most(server):
    store = opened(server.url)
    process = run(
        """
        import sys, threading
        from redis_helpers import opened
        store = opened(sys.argv[1])
        print(store.lease("/a", 1.0), flush=True)
        threading.Event().wait()
        """,
        server.url,
    )
    dead = int(process.stdout.readline())
    assert store.lease("/a", 60) is None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    token = until(lambda: store.lease("/a", 60), 10, "the end of the lease")
    assert token > dead
    store.release("/a", dead)
    assert store.lease("/a", 60) is None, "a late holder gives nothing back"
    late, new = put_with(store, token), put_with(store, dead)
    assert (late, new) == (True, False), "a late holder's page is refused"


def put_with(store, token):
    import time

    from redis_helpers import entry

    return store.set(KEY, entry(store, body=b"%d" % token), time.time() + 60, token)


def test_a_killed_greenlet_shifts_no_reply(server):
    """gevent: killed while it waits for a reply, and timed out by a Timeout, which is no Exception."""
    pytest.importorskip("gevent")
    process = run(
        """
        import gevent.monkey
        gevent.monkey.patch_all()
        import random, sys
        import gevent
        from redis_helpers import opened, put, body_of, confirms
        from tcp_proxy import TcpProxy
        KEYS = [f"/{n}\\0\\0example.com\\0http" for n in range(5)]
        proxy = TcpProxy(int(sys.argv[1]))
        store = opened(f"redis://127.0.0.1:{proxy.port}")
        for n, key in enumerate(KEYS):
            put(store, key, b"%d" % n * 3000)
        proxy.latency = 0.002
        wrong, right = [], []

        def read(n):
            body = body_of(store, KEYS[n])
            (right if body == b"%d" % n * 3000 and confirms(store, KEYS[n]) else wrong).append(n)

        def hurried(n):
            with gevent.Timeout(0.003, False):
                read(n)

        dice = random.Random(1)
        for turn in range(60):
            jobs = [gevent.spawn(dice.choice([read, hurried]), dice.randrange(5)) for _ in range(10)]
            gevent.sleep(dice.uniform(0, 0.006))
            for job in dice.sample(jobs, 3):
                job.kill(block=False)
            gevent.joinall(jobs)
        assert wrong == [] and len(right) > 100, (wrong, len(right))
        assert store.link.reading.opened == 0
        assert store.link._count <= 20, store.link._count
        store.close()
        print("well", flush=True)
        import os; os._exit(0)
        """.replace("-W", ""),
        str(server.port),
    )
    assert process.communicate(timeout=120)[0] == "well\n"
