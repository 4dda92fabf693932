"""A TCP proxy that misbehaves when it is told to: late, in pieces, cut off, half closed, or a black hole."""

import contextlib
import socket
import threading

_nobody = threading.Event()


class TcpProxy:
    """Forwards to a port of this machine.

    Attributes:
        port: where it listens.
        latency: seconds before each piece of a reply.
        piece: bytes that a reply is cut into; None forwards what comes as it comes.
        black_hole: nothing gets through, in neither direction, and nothing is closed.
        cut_after: bytes of replies after which a connection is reset.
        half_close_after: bytes of replies after which the client reads the end, while the rest stays open.
        swallow_after: bytes of replies after which nothing more arrives.
        accepted: connections so far.
        asked: how often a client sent something after it was answered: round trips, begun.
    """

    def __init__(self, target):
        self.target = target
        self.accepted = 0
        self.asked = 0
        self.heal()
        self._pairs = []
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def heal(self):
        """Behave."""
        self.latency = 0.0
        self.piece = None
        self.black_hole = False
        self.cut_after = self.half_close_after = self.swallow_after = None

    def cut(self):
        """Reset every connection."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            pair.reset()

    def close(self):
        """Stop; every thread has ended when this returns."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(10)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            pair = _Pair(self, client, server)
            with self._lock:
                self._pairs.append(pair)
            for pump in (pair.up, pair.down):
                thread = threading.Thread(target=pump, daemon=True)
                self._threads.append(thread)
                thread.start()


class _Pair:
    """One connection: the client's socket and the server's."""

    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.answered = True
        self.sent = 0
        self.half_closed = False
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def up(self):
        """From the client to the server."""
        with contextlib.suppress(OSError):
            while data := self.client.recv(65536):
                if self.answered:
                    self.proxy.asked += 1
                    self.answered = False
                if not self.proxy.black_hole:
                    self.server.sendall(data)
        self.reset()

    def down(self):
        """From the server to the client."""
        with contextlib.suppress(OSError):
            while data := self.server.recv(65536):
                self.answered = True  # before it arrives: the next question may come at once
                size = self.proxy.piece or len(data)
                for start in range(0, len(data), size):
                    self._give(data[start : start + size])
        self.reset()

    def _give(self, piece):
        proxy = self.proxy
        if proxy.latency:
            _nobody.wait(proxy.latency)
        if proxy.black_hole or self.half_closed:
            return
        for limit, happens in (
            (proxy.cut_after, self.reset),
            (proxy.half_close_after, self._half_close),
            (proxy.swallow_after, None),
        ):
            if limit is not None and self.sent + len(piece) > limit:
                self.client.sendall(piece[: max(0, limit - self.sent)])
                self.sent = limit
                if happens is not None:
                    happens()
                return
        self.client.sendall(piece)
        self.sent += len(piece)

    def _half_close(self):
        self.half_closed = True
        self.client.shutdown(socket.SHUT_WR)

    def reset(self):
        """Close both, the client's with a reset."""
        for sock in (self.client, self.server):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
