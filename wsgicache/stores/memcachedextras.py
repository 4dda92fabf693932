"""What else is kept on memcached: who asks the app for a page, and counters that all processes share."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..codec import wire_name
from . import StoreError
from .memcachedservers import Server
from .values import HELD, UNSTORABLE, lease_value, read_lease

_ROUNDS: Final = 32
"""Tries of a compare-and-set before others are left to win."""

_LONGEST: Final = 30 * 24 * 3600
"""Seconds that memcached takes as a number of seconds; above it reads an instant."""

_NOW: Final = -1
"""An expiry in the past: how an item is deleted by compare-and-set."""

_BIAS: Final = 1 << 62
"""Added to counters, because memcached counts no lower than 0."""

_COUNTERS: Final = 1024
"""Names of counters; more are not counted."""

_AT_ONCE: Final = 256


class Leases:
    """Leases, each on the server of its key.

    The end of a lease is in it, and it expires a second later at most by the server's clock, so that a holder
    whose clock was wrong cannot keep it.

    Args:
        home: the server that counts the tokens.
        counter: what the counter is called there.
    """

    def __init__(self, home: Server, counter: bytes) -> None:
        self._home: Final = home
        self._counter: Final = counter

    def take(self, server: Server, name: bytes, seconds: float) -> int | None:
        """See `Store.lease`."""
        for _ in range(_ROUNDS):
            raw, cas = server.call("gets", name)
            kind, last, until = read_lease(raw)
            if time.time() < until:
                return 0 if kind == UNSTORABLE else None
            token = self._token(last)
            value, seconds_kept = lease_value(HELD, token, seconds)
            expiry = min(_LONGEST, seconds_kept)
            if cas is None:
                taken = server.call("add", name, value, expiry)
            else:
                taken = server.call("cas", name, value, cas, expiry)
            if taken:
                return token
        return None

    def _token(self, above: int) -> int:
        """A number that no lease had before.

        The counter begins with the clock's nanoseconds: should the server forget it, it goes on above where
        it was, because nobody takes a lease each nanosecond.
        """
        call, name = self._home.call, self._counter
        token = call("incr", name, 1)
        if token is None:
            call("add", name, b"%d" % time.time_ns())
            token = call("incr", name, 1)
        if token is not None and token <= above:  # it was forgotten, and our clock is behind
            token = call("incr", name, above - token + 1)
        if token is None:
            raise StoreError(f"{self._home.name} keeps no counter")
        return int(token)

    def give_back(self, server: Server, name: bytes, token: int, unstorable_for: float) -> None:
        """See `Store.release`."""
        raw, cas = server.call("gets", name)
        kind, held, _ = read_lease(raw)
        if kind != HELD or held != token:
            return
        value, expiry = b"", _NOW
        if unstorable_for > 0:
            value, expiry = lease_value(UNSTORABLE, token, unstorable_for)
        server.call("cas", name, value, cas, min(_LONGEST, expiry))


class Counters:
    """Counters beside the journal, and a directory of their names.

    Args:
        home: the journal's server.
        prefix: of the names of the items.
    """

    def __init__(self, home: Server, prefix: bytes) -> None:
        self._home: Final = home
        self._prefix: Final = prefix + b"c"
        self._directory: Final = prefix + b"d"

    def _name(self, name: str) -> bytes:
        return self._prefix + wire_name(name).encode("ascii")

    def add(self, deltas: Mapping[str, int]) -> None:
        """Add to counters, one command each."""
        call = self._home.call
        known = self._enter(deltas) if deltas else ()
        for name, delta in deltas.items():
            if name not in known or not delta:
                continue
            wire = self._name(name)
            command: tuple[Any, ...] = ("incr", wire, delta) if delta > 0 else ("decr", wire, -delta)
            if call(*command) is None:
                call("add", wire, b"%d" % _BIAS)
                call(*command)

    def _enter(self, names: Iterable[str]) -> set[str]:
        """Have names in the directory; those that are in it."""
        call = self._home.call
        for _ in range(_ROUNDS):
            raw, cas = call("gets", self._directory)
            known = _names(raw)
            new = [name for name in names if name not in known][: _COUNTERS - len(known)]
            if not new:
                return set(known)
            data = json.dumps([*known, *new]).encode("ascii")
            if cas is None:
                entered = call("add", self._directory, data)
            else:
                entered = call("cas", self._directory, data, cas)
            if entered:
                return {*known, *new}
        raise StoreError(f"{self._home.name}: others were quicker {_ROUNDS} times")

    def read(self) -> dict[str, int]:
        """The counters, as far as the server still has them."""
        wires = {self._name(name): name for name in _names(self._home.call("get", self._directory))}
        found: dict[str, int] = {}
        for start in range(0, len(wires), _AT_ONCE):
            asked = list(wires)[start : start + _AT_ONCE]
            values = self._home.call("get_many", asked)
            for wire, value in values.items():
                if value.strip().isdigit():  # it pads with blanks what became shorter
                    found[wires[wire]] = int(value) - _BIAS
        return found


def _names(data: bytes | None) -> list[str]:
    try:
        names = json.loads(data or b"[]")
    except (ValueError, RecursionError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
