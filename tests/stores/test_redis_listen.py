"""RDS-11: messages from a Redis server, and what is known after they may have been missed."""

import threading
import time

import pytest
from redis_helpers import KEY, opened, purge
from servers_redis import Server, empty, until
from tcp_proxy import TcpProxy
from waiting import PATIENCE


class Listener:
    """A thread that listens, and what it heard."""

    def __init__(self, store, **given):
        self.heard = []
        self.answered = []
        self.stop = threading.Event()
        if given.pop("alive", False):
            given["alive"] = self.answered.append
        self.thread = threading.Thread(
            target=store.listen, args=(self.heard.append, self.stop), kwargs=given, daemon=True
        )
        self.thread.start()

    def hears(self, text, within=10):
        until(lambda: text in self.heard, within, f"{text!r} among {self.heard}")
        return self

    def end(self):
        self.stop.set()
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()


@pytest.fixture
def listeners():
    made = []

    def listen(store, **given):
        made.append(Listener(store, **given))
        return made[-1]

    yield listen
    for listener in made:
        listener.end()


def test_every_change_is_told(listeners):
    server = empty()
    store, other = opened(server.url), opened(server.url)
    listener = listeners(store).hears("")
    other.mark_of(KEY)
    listener.hears("epoch")
    assert other.publish("h\u00e9llo") == 1
    listener.hears("h\u00e9llo")
    purge(other)
    listener.hears("purge")
    del listener.heard[:]
    other.set_meta("rules", "{}")
    other.set_meta("rules", None)
    other.clear()
    listener.hears("epoch")
    assert listener.heard == ["meta", "meta", "epoch"]


def test_a_message_comes_after_what_it_tells(listeners):
    """Whoever is poked finds the purge in the journal."""
    server = empty()
    store, other = opened(server.url), opened(server.url)
    seen = []
    poked = threading.Event()

    def poke(text):
        if text == "purge":
            seen.append(store.mark_of(KEY))
            poked.set()
        elif text == "":
            ready.set()

    ready, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=store.listen, args=(poke, stop))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        mark = purge(other)
        assert poked.wait(PATIENCE)
    finally:
        stop.set()
        thread.join()
    assert seen == [mark]


def test_a_namespace_hears_its_own_messages_only(listeners):
    store = opened(empty().url)
    store.mark_of(KEY)
    store.namespaced("a").mark_of(KEY)
    here, there = listeners(store).hears(""), listeners(store.namespaced("a")).hears("")
    store.publish("here")
    store.namespaced("a").publish("there")
    here.hears("here")
    there.hears("there")
    assert (here.heard, there.heard) == (["", "here"], ["", "there"])


def test_it_ends_soon_after_it_was_told_to(listeners):
    listener = listeners(opened(empty().url)).hears("")
    start = time.monotonic()
    listener.end()
    assert time.monotonic() - start < 5


def test_nobody_listens():
    assert opened(empty().url).publish("x") == 0


def test_a_lost_connection_is_made_again_and_told(listeners):
    server = Server()
    try:
        store = opened(server.url)
        listener = listeners(store).hears("")
        del listener.heard[:]
        server.ask("CLIENT", "KILL", "TYPE", "pubsub")
        listener.hears("")
        server.kill()
        del listener.heard[:]
        server.start()
        listener.hears("")
        store.publish("again")
        listener.hears("again")
    finally:
        server.close()


def test_a_server_that_is_away_is_asked_ever_more_seldom(listeners):
    server = Server()
    server.kill()
    try:
        listener = listeners(opened(server.url, timeout=0.2))
        assert listener.heard == []
        server.start()
        listener.hears("")
    finally:
        server.close()


def test_a_black_hole_is_noticed_by_the_heartbeat(listeners):
    with TcpProxy(empty().port) as proxy:
        store = opened(f"redis://127.0.0.1:{proxy.port}", timeout=1)
        listener = listeners(store, alive=True, every=0.05).hears("")
        until(lambda: len(listener.answered) > 2, what="answered PINGs")
        proxy.black_hole = True
        before = proxy.accepted
        until(lambda: proxy.accepted > before, what="another connection")
        frozen = len(listener.answered)
        assert listener.heard == [""]
        proxy.heal()
        proxy.cut()
        until(lambda: listener.heard == ["", ""], what="the word that it is connected again")
        until(lambda: len(listener.answered) > frozen, what="answered PINGs")


def test_a_heartbeat_comes_after_the_messages_before_it(listeners):
    """An answered PING says that whatever was published before it was sent has been heard."""
    server = empty()
    store, other = opened(server.url), opened(server.url)
    listener = listeners(store, alive=True, every=0.01).hears("")
    for number in range(50):
        other.publish(str(number))
        published = time.monotonic()
        until(lambda p=published: listener.answered and listener.answered[-1] > p, what="a later PING")
        assert listener.heard[-1] == str(number)


def test_another_server_behind_the_address_is_noticed(listeners):
    """A worker whose requests found another primary does not go on listening to the old one."""
    server, other = empty(), Server()
    try:
        with TcpProxy(server.port) as proxy:
            store = opened(f"redis://127.0.0.1:{proxy.port}")
            store.mark_of(KEY)
            listener = listeners(store).hears("")
            proxy.target = other.port
            store.link.hang_up()
            del listener.heard[:]
            store.mark_of(KEY)
            listener.hears("")
            opened(other.url).publish("from the other")
            listener.hears("from the other")
    finally:
        other.close()
