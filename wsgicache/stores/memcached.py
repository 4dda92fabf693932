"""The memcached store: entries on any number of servers, the purge journal on one of them.

memcached may forget any item at any time, cannot list what it holds, and compares-and-sets one item at a
time. So what is here is right however much of it goes: an entry that is gone is a miss, and a mark that is
gone makes all entries misses (`memcachedjournal`).

Values are those of `values`, names are hex digits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ..codec import FORMAT, encode
from ..entry import Stored
from ..journal import Mark, Purge, Snapshot
from ..options import read_bytes, read_positive
from . import StoreError, StoreOptions, shown
from .advice import Advice
from .memcachedadvice import memcached_advice
from .memcachedextras import Counters, Leases
from .memcachedjournal import ServerJournal
from .memcachedservers import Refused, Server, Servers, read_server
from .memo import Memo, MemoSlot
from .urls import read_timeout, url_options
from .values import Names, is_same, line_for, read_line, read_stored, read_text, refuses, write_text

PURGES: Final = 16384
"""Purges remembered one by one, unless the URL says otherwise."""

_ROUNDS: Final = 32
"""Tries of a compare-and-set before others are left to win."""

_AT_ONCE: Final = 256
"""Keys asked for with one command."""

_RELATIVE: Final = 30 * 24 * 3600
"""Up to here memcached reads an expiry as seconds from now, above as an instant."""

_LAST_INSTANT: Final = 2**31 - 1
_NOW: Final = -1
"""An expiry in the past: how an item is deleted by compare-and-set."""


class _Shared:
    """What the namespaces of one store share."""

    def __init__(self, servers: Servers, options: StoreOptions, purges: int) -> None:
        self.servers = servers
        self.options = options
        self.purges = purges
        self.rooms: dict[str, MemcachedStore] = {}


class MemcachedStore:
    """Entries in memcached, shared by every process that names the same servers.

    Args:
        servers: `host:port` of each; which of them has a key depends on their names, not on their order.
        journal: the server that keeps the purge journal and what else there is one of; None: the first.
            Every process must name the same.
        options: timeout (for a connection, and for each wait for an answer), size of the memo, signing keys.
        purges: how many are remembered one by one; what was born before them is a miss.

    Raises:
        ValueError: no server, one twice, or one that is none.
    """

    shared: Final = True

    def __init__(
        self,
        servers: Sequence[str] = ("localhost",),
        journal: str | None = None,
        options: StoreOptions | None = None,
        purges: int = PURGES,
    ) -> None:
        specs = [read_server(server) for server in servers]
        if not specs or len(set(specs)) != len(specs):
            raise ValueError(f"{', '.join(servers)!r}: give one server at least, and each once")
        home = specs[0] if journal is None else read_server(journal)
        options = StoreOptions() if options is None else options
        self._furnish(_Shared(Servers(specs, home, options.timeout), options, purges), "")

    def _furnish(self, common: _Shared, namespace: str) -> None:
        self._common = common
        self._names = Names(namespace)
        self._prefix = self._names.prefix.encode("ascii")
        self._servers = common.servers
        self._home: Server = common.servers.journal
        self._keys = common.options.signing_keys
        self._journal = ServerJournal(self._home, self._prefix, common.purges)
        self._mark_name = self._journal.mark_name
        self._leases = Leases(self._home, self._prefix + b"t")
        self._counters = Counters(self._home, self._prefix)
        self._memo = Memo(common.options.memo_bytes)
        self.peek = self._memo.peek
        """What this process has decoded of a key; to be confirmed before it is served."""
        self._damaged = 0

    def namespaced(self, namespace: str) -> MemcachedStore:
        """The part that belongs to a namespace: entries and journal of its own on the same servers."""
        if not namespace:
            return self._common.rooms.setdefault("", self)
        known = self._common.rooms.get(namespace)
        if known is None:
            known = MemcachedStore.__new__(MemcachedStore)
            known._furnish(self._common, namespace)
        return self._common.rooms.setdefault(namespace, known)

    def _name(self, kind: str, text: str) -> bytes:
        if kind == "e":  # releases that write another format keep what they store apart
            text = f"{FORMAT} {text}"
        return self._names.of(kind, text).encode("ascii")

    # --- entries -----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark, asked for first.

        One round trip, also where several servers are asked. That an entry may be read a moment before the
        mark does no harm: it is judged by the later one, so by all purges there are.
        """
        names = [self._name("e", key) for key in keys]
        raw_mark, found = self._fetch(names)
        mark = self._journal.read(raw_mark)
        pairs = zip(keys, names, strict=True)
        return [self._read(key, name, found.get(name), mark) for key, name in pairs], mark

    def _fetch(self, names: Sequence[bytes]) -> tuple[bytes | None, dict[bytes, bytes]]:
        places: dict[Server, list[bytes]] = {self._home: [self._mark_name]}  # the mark is asked for first
        for name in names:
            places.setdefault(self._servers.of(name), []).append(name)
        found = self._servers.get_many([(server, there[:_AT_ONCE]) for server, there in places.items()])
        for server, there in places.items():
            for start in range(_AT_ONCE, len(there), _AT_ONCE):
                found.update(server.call("get_many", there[start : start + _AT_ONCE]))
        return found.pop(self._mark_name, None), found

    def _read(self, key: str, name: bytes, raw: bytes | None, mark: Mark) -> Stored | None:
        if raw is None:
            self._memo.forget(key)
            return None
        line = read_line(raw)
        if line is not None and line.epoch != mark.epoch.encode("ascii"):
            return None  # from before the history began; the next fill takes its place
        stored = self._memo.recall(key, raw)
        if stored is not None:
            return stored
        stored = read_stored(key, raw, self._keys)
        if stored is None:
            self._damaged += 1
            self._memo.forget(key)
            if self._common.options.mend:
                self._servers.of(name).call("delete", name)
            return None
        self._memo.keep(key, name, raw, stored)
        return stored

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """The mark as it is stored, if what is stored is still what the slot holds; else None."""
        name: Any = slot.name
        mark_name, home = self._mark_name, self._home
        server = self._servers.of(name)
        if server is home:
            found = home.call("get_many", (mark_name, name))
        else:
            found = self._servers.get_many(((home, (mark_name,)), (server, (name,))))
        if found.get(name) == slot.raw:
            mark: bytes | None = found.get(mark_name)
            return mark
        self._memo.forget(slot.key)
        return None

    def mark_of(self, key: str) -> Mark:
        """The journal's mark; there is one journal."""
        return self._journal.read(self._home.call("get", self._mark_name))

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key; False where it was refused.

        Where the server does not take it, or for its size is not asked to, the key is deleted: what was
        there before would otherwise be shown on. Where the server does not answer, what was there stays,
        for as long as it was to be kept and no purge covers it.
        """
        name = self._name("e", key)
        server = self._servers.of(name)
        data = encode(stored, self._keys)
        for _ in range(_ROUNDS):
            mark, old, cas = self._look(server, name)
            line = line_for(stored, mark.epoch, token)
            if refuses(old, line, mark.epoch):
                return False
            value = line + data
            if not server.has_room_for(name, value):
                return self._give_up(server, name)
            call = ("add",) if cas is None else ("cas", cas)
            try:
                if server.call(call[0], name, value, *call[1:], _expiry(keep_until)):
                    return True
            except Refused:
                return self._give_up(server, name)
        return False  # each time somebody else's was stored

    def _look(self, server: Server, name: bytes) -> tuple[Mark, bytes | None, bytes | None]:
        """The mark, what is stored, and the ticket for comparing-and-setting it."""
        if server is self._home:
            found = server.call("gets_many", [self._mark_name, name])
            mark = self._journal.read(found.get(self._mark_name, (None, None))[0])
            return mark, *found.get(name, (None, None))
        mark = self._journal.read(self._home.call("get", self._mark_name))
        return mark, *server.call("gets", name)

    def _give_up(self, server: Server, name: bytes) -> bool:
        server.call("delete", name)
        return False

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very entry."""
        name = self._name("e", key)
        server = self._servers.of(name)
        self._memo.forget(key)
        if only is None:
            return bool(server.call("delete", name))
        raw, cas = server.call("gets", name)
        stored = None if raw is None else read_stored(key, raw, self._keys)
        if stored is None or not is_same(stored, only):
            return False
        return bool(server.call("cas", name, b"", cas, _NOW))

    def clear(self) -> Mark:
        """Begin a new epoch, in which everything stored before is a miss; it goes as room is needed."""
        mark = self._journal.restart()
        self._memo.clear()
        return mark

    # --- the journal -------------------------------------------------------------------------------

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; its server has acknowledged them when this returns."""
        mark = self._journal.append(purges, at)
        return self.mark_of("") if mark is None else mark

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing."""
        return self._journal.since(mark)

    # --- leases, meta, counters --------------------------------------------------------------------

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key; see `Store.lease`."""
        name = self._name("l", key)
        return self._leases.take(self._servers.of(name), name, seconds)

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back; see `Store.release`."""
        name = self._name("l", key)
        self._leases.give_back(self._servers.of(name), name, token, unstorable_for)

    def get_meta(self, name: str) -> str | None:
        """A text kept beside the journal, for as long as its server keeps it."""
        return read_text(self._home.call("get", self._name("x", name)))

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text, or forget it."""
        if value is None:
            self._home.call("delete", self._name("x", name))
        else:
            self._home.call("set", self._name("x", name), write_text(value))

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters, one command each; names beyond the first 1024 are not counted."""
        self._counters.add(deltas)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to, as far as the server still has them."""
        return self._counters.read()

    # --- what people ask ---------------------------------------------------------------------------

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """memcached cannot list what it holds.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("memcached cannot list what it holds")

    def stats(self) -> Mapping[str, int]:
        """What the servers say of all that they hold, others' included; they do not tell ours apart."""
        told = {"servers": 0, "servers_down": 0, **dict.fromkeys(_STATS.values(), 0)}
        for server in self._servers.all.values():
            told["servers"] += 1
            try:
                numbers = server.call("stats")
            except StoreError:
                told["servers_down"] += 1
                continue
            for name, ours in _STATS.items():
                told[ours] += int(numbers.get(name, 0))
        told |= {"damaged": self._damaged, "memo_entries": len(self._memo), "memo_bytes": self._memo.bytes}
        return told

    def advice(self, largest: int) -> Iterable[Advice]:
        """What the servers' settings mean for a cache; see `advice`."""
        return memcached_advice(self._servers, largest)

    def close(self) -> None:
        """Close this process's connections and forget what it had decoded."""
        self._servers.close()
        for room in [self, *self._common.rooms.values()]:
            room._memo.clear()


_STATS: Final = {
    b"curr_items": "servers_entries",
    b"bytes": "servers_bytes",
    b"limit_maxbytes": "servers_max_bytes",
    b"evictions": "servers_evicted",
}


def _expiry(keep_until: float) -> int:
    """When memcached may forget an item, as memcached reads it."""
    left = keep_until - time.time()
    if left <= _RELATIVE:
        return max(1, math.ceil(left))
    if keep_until < _LAST_INSTANT:
        return int(keep_until)
    return _RELATIVE  # beyond 2038 there are no instants: 30 days, which are not too long


def open_memcached(url: str, options: StoreOptions) -> MemcachedStore:
    """The store for `memcached://host:port,host:port`, or `memcached:///path/of/a/socket`.

    Options: `journal=host:port` (the server that keeps the purge journal; the first unless given),
    `timeout=50ms` or in seconds, `memo_bytes=16MB`, `purges=16384`.

    Raises:
        ValueError: no server, a malformed one, or an unknown or malformed option.
    """
    rest = url.partition(":")[2].removeprefix("//").partition("?")[0]
    given = url_options(url, _OPTIONS)
    servers = [rest] if rest.startswith("/") and rest != "/" else rest.rstrip("/").split(",")
    options = replace(
        options,
        timeout=given.get("timeout", options.timeout),
        memo_bytes=given.get("memo_bytes", options.memo_bytes),
    )
    try:
        if "/" in rest.rstrip("/") and not rest.startswith("/"):
            raise ValueError("there is no path after the servers; give options after ?")
        if rest.startswith("/") and "," in rest:
            raise ValueError("a socket is one server; several are host:port,host:port")
        return MemcachedStore(servers, given.get("journal"), options, given.get("purges", PURGES))
    except ValueError as error:
        raise ValueError(f"{shown(url)!r}: {error}") from None


def _read_journal(text: str) -> str:
    read_server(text)
    return text


def _read_timeout(text: str) -> float:
    seconds = read_timeout(text)
    if seconds > 60:
        raise ValueError("give 60 seconds at most")
    return seconds


_OPTIONS: Final = {
    "journal": _read_journal,
    "memo_bytes": read_bytes,
    "purges": read_positive,
    "timeout": _read_timeout,
}
