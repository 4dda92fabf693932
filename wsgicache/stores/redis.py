"""The Redis store: many machines, one round trip a look-up. Valkey works the same.

What is under `wsgicache:<namespace>:`, where the namespace is a hash:

    mark, order, records, nonces,
    dropped                         the journal (see `redisscripts`), and
    meta                            texts; these six never expire
    counters                        30 days after the last change
    near                            a day after the last change: who holds copies
    tokens                          a day after the last lease
    lease:<hash of the key>         as long as the lease
    <format>:<hash of the key>      an entry, as long as it may be kept

A value begins with a line that no other has (see `redisvalues`), so it is all that `confirm` reads.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ..codec import HEADER, DecodeError, encode_mark, encode_parts, wire_name
from ..entry import Entry, Stored
from ..journal import Mark
from . import MOST_COUNTERS, StoreError, StoreOptions
from .advice import Advice
from .memo import Memo, MemoSlot
from .redisadvice import redis_advice
from .redisjournal import RedisJournal, is_wrong_type
from .redislink import Line, Link, Refused, is_closed
from .redislisten import listen
from .redisregister import ATTEND, ATTENDING
from .redisscripts import COUNT, DROP, LEASE, LINE, RELEASE, SET_META, STORE
from .redisstats import server_numbers
from .redisurl import JOURNAL, read_url, server_link
from .redisvalues import LINE_FORM, decoded, encoded, found, read_value, suffix_of, write_value

_LARGEST: Final = 1 << 29
"""Bytes that a server takes as one value."""

_COUNTERS_MS: Final = 30 * 86400 * 1000
_SCAN: Final = 200

_EPOCH: Final = re.compile(r"[0-9a-f]{1,16}\Z")


class RedisStore(RedisJournal):
    """Entries in a Redis server that many processes and machines share.

    Args:
        link: the connections.
        memo_bytes: what this process may keep decoded.
        signing_keys: see `StoreOptions`.
        journal_limit: targets whose purges are remembered one by one; for others see `wsgicache.dropped`.
        namespace: whose entries and journal.
        tag: the hash tag that all keys carry, in a Cluster.
        memo: shares another store's memo.
    """

    shared: Final = True

    def __init__(
        self,
        link: Link,
        memo_bytes: int = 16_000_000,
        signing_keys: tuple[bytes, ...] = (),
        journal_limit: int = JOURNAL,
        namespace: str = "",
        tag: str = "",
        memo: Memo | None = None,
    ) -> None:
        super().__init__(link, journal_limit, namespace, tag)
        self._given = memo_bytes, signing_keys, journal_limit
        self._keys = signing_keys
        self._rooms: dict[str, RedisStore] = {namespace: self}
        self._rooms_lock = threading.Lock()
        self._memo = Memo(memo_bytes) if memo is None else memo
        self.peek = self._memo.peek
        """What this process has decoded of a key: no lock, no call into Python."""
        self.damaged = 0
        """Values that were no entries of ours, or not whole."""
        self.mend = True
        """Whether such values are deleted."""

    def namespaced(self, namespace: str) -> RedisStore:
        """The part that belongs to a namespace, over the same connections."""
        with self._rooms_lock:
            known = self._rooms.get(namespace)
            if known is None:
                known = type(self)(self.link, *self._given, namespace)
                known._rooms, known._rooms_lock, known.mend = self._rooms, self._rooms_lock, self.mend
                self._rooms[namespace] = known
            return known

    # --- the hit path ------------------------------------------------------------------------------

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """The mark as it is stored, if what is stored is still what the slot holds; see `Store`."""
        link = self.link
        if link.reading.is_open:
            return self._confirm_carefully(slot)
        try:
            line = link.free.pop()
        except IndexError:
            return self._confirm_carefully(slot)
        if line.run is not self._run or line.run is not link.run:
            link.give(line)
            return self._confirm_carefully(slot)
        try:
            line.send((self._before + slot.name + self._after,), False)  # type: ignore[operator]
            mark: bytes | None = line.read(True)
            found = line.read(True)
        except BaseException as error:
            link.drop(line)
            if is_closed(error):
                link.hang_up()
                return self._confirm_carefully(slot)
            if is_wrong_type(error):
                self._memo.forget(slot.key)
                return None
            raise link.explained(error, link.reading) from error
        link.free.append(line)
        if link.waiting:
            link.wake()
        if found == slot.raw:
            return mark if mark == slot.mark else self._readable(mark)
        self._memo.forget(slot.key)
        return None

    def _readable(self, raw: bytes | None) -> bytes:
        """A mark that is another than at the last look, as it is stored."""
        return encode_mark(self._mark_of(raw))

    def _confirm_carefully(self, slot: MemoSlot) -> bytes | None:
        """The same where there is no line at hand, or it is to another server than before."""

        def use(line: Line) -> list[Any]:
            self._claim(line)
            return line.ask_all((("GET", self._mark_key), ("GETRANGE", self._name(slot.key), 0, LINE - 1)))

        mark, found = self.link.ask(use)
        if found == slot.raw:
            return self._readable(mark)
        self._memo.forget(slot.key)
        return None

    # --- entries -----------------------------------------------------------------------------------

    def _name(self, key: str) -> bytes:
        return self._prefix + wire_name(key).encode("ascii")

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark, in one round trip."""
        names = [wire_name(key).encode("ascii") for key in keys]
        found = self._ask("MGET", self._mark_key, *[self._prefix + name for name in names])
        mark = self._mark_of(found[0])
        values = zip(keys, names, found[1:], strict=True)
        return [
            None if raw is None else self._stored(key, name, raw, mark) for key, name, raw in values
        ], mark

    def _stored(self, key: str, name: bytes, raw: bytes, mark: Mark) -> Stored | None:
        line = raw[:LINE]
        match = LINE_FORM.match(line)
        if match is not None and match[1] != mark.epoch.encode("ascii"):
            return None
        known = self._memo.recall(key, line)
        if known is not None:
            return known
        try:
            found, stored = read_value(raw, self._keys)
            if found != key:
                raise DecodeError("another key's")
        except DecodeError:
            self._count_damaged(key, name, line)
            return None
        self._memo.keep(key, name, line, stored)
        return stored

    def _count_damaged(self, key: str, name: bytes, line: bytes) -> None:
        self.damaged += 1
        self._memo.forget(key)
        if not self.mend:
            return
        try:
            self._drop(self._prefix + name, 0, line)
        except StoreError:
            pass  # what cannot be deleted stays a miss

    def _drop(self, name: bytes, position: int, piece: bytes) -> bool:
        return bool(self._script(DROP, (name,), position, piece))

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """Store under a key; False where it was refused.

        Where the server has no room for it, what it would have replaced goes as well.
        """
        if isinstance(stored, Entry):
            epoch, seq = stored.born.epoch, str(stored.born.seq)
        else:
            mark = self._seen[1] or self.mark_of(key)
            epoch, seq = mark.epoch, "-"
        if _EPOCH.match(epoch) is None:
            return False
        name = wire_name(key).encode("ascii")
        line, value = write_value(key, stored, epoch, seq, token, self._keys)
        milliseconds = max(1000, int((keep_until - time.time()) * 1000))
        keys = (self._mark_key, self._prefix + name, *self._touched)

        def use(line: Line) -> bool:
            self._claim(line)
            done = line.run_script(STORE, keys, epoch, seq, token, value, milliseconds)
            if isinstance(done, bytes):
                raise Refused(done.decode("utf-8", "replace"))
            return bool(done)

        if len(value) > _LARGEST or (self.link.full and self.link.writing.is_paused()):
            self._make_way(keys, epoch, seq, token)
            return False
        if not self.link.ask(use, writes=True):
            return False
        self._memo.keep(key, name, line, stored)
        return True

    def _make_way(self, keys: Sequence[bytes], epoch: str, seq: str, token: int) -> None:
        """Delete what would have been replaced: what cannot be stored must not leave it to be served."""
        self._script(STORE, keys, epoch, seq, token, b"", 0)

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """Forget a key, or only while it holds this very entry."""
        name = self._name(key)
        self._memo.forget(key)
        if only is None:
            return bool(self._ask("DEL", name))
        # Lengths and checksum, but no signature: that may have been made with a key that is gone.
        head, _ = encode_parts(only, self._keys)
        return self._drop(name, LINE + len(suffix_of(key, only)), head[: HEADER.size])

    def clear(self) -> Mark:
        """Begin a new epoch. What was stored before is never found again, and goes when its time is over."""
        mark = super().clear()
        self._memo.clear()
        return mark

    # --- leases, texts, counters -------------------------------------------------------------------

    def lease(self, key: str, seconds: float) -> int | None:
        """Take the right to ask the app for a key; see `Store.lease`."""
        keys = (self._lease_prefix + wire_name(key).encode("ascii"), self._tokens_key)
        token: int | None = self._script(LEASE, keys, _milliseconds(seconds), writes=True)
        return token

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """Give a lease back; see `Store.release`."""
        keys = (self._lease_prefix + wire_name(key).encode("ascii"),)
        note = _milliseconds(unstorable_for) if unstorable_for > 0 else 0
        self._script(RELEASE, keys, token, note, writes=True)

    def get_meta(self, name: str) -> str | None:
        """A text that is kept beside the journal."""
        raw = self._ask("HGET", self._meta_key, encoded(name), spoilt=self._meta_key)
        return None if raw is None else decoded(raw)

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text beside the journal, or forget it; those who listen are told."""
        args = [encoded(name)] if value is None else [encoded(name), encoded(value)]
        self._script(SET_META, (self._meta_key,), self._channel, *args, writes=True, insist=True)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters that all processes share."""
        if deltas:
            args = [piece for name, delta in deltas.items() for piece in (encoded(name), delta)]
            self._script(COUNT, (self._counters_key,), _COUNTERS_MS, MOST_COUNTERS, *args, writes=True)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        flat = self._ask("HGETALL", self._counters_key, spoilt=self._counters_key) or []
        return {decoded(name): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}

    # --- messages ----------------------------------------------------------------------------------

    def listen(
        self,
        poke: Callable[[str], None],
        stop: threading.Event,
        alive: Callable[[float], None] | None = None,
        every: float = 1.0,
    ) -> None:
        """Wait for messages until `stop` is set, on a connection of its own, in the thread of the caller.

        Args:
            poke: called with the text of each message: `purge`, `epoch` and `meta` when the journal or a
                text has changed, or what `publish` was given; and with an empty text once after each
                connecting, because something may have been missed.
            stop: this returns a fraction of a second after it was set.
            alive: called with the instant (monotonic) at which a PING was sent, once it is answered: every
                message that the server sent before has been given to `poke` then.
            every: seconds between two PINGs.
        """
        listen(lambda: self.link, self._channel, poke, stop, alive, every, self._check)

    def _check(self) -> None:
        """Before this process relies on the server that it listens to; a Cluster's bucket may have moved."""

    def publish(self, payload: str) -> int:
        """Send a short text to all who listen; how many there were."""
        return int(self._ask("PUBLISH", self._channel, encoded(payload)))

    def attend(self, who: str, seconds: float) -> None:
        """Stand in the register of those who hold copies, for so long from now; 0 leaves it."""
        milliseconds = 0 if seconds <= 0 else _milliseconds(seconds) + 1  # rather too long than too short
        self._script(ATTEND, (self._register_key,), who, milliseconds, writes=True)

    def attending(self) -> Sequence[str]:
        """Who stands in the register; nobody, where it cannot be known to be complete."""
        return [decoded(who) for who in self._script(ATTENDING, (self._register_key,))]

    # --- for people --------------------------------------------------------------------------------

    @property
    def beginning(self) -> bytes:
        """What the names of entries begin with."""
        return self._prefix

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`. Walks over all keys of the server."""
        return self._scanned(prefix, self.mark_of("").epoch)

    def _scanned(self, prefix: str, epoch: str) -> Iterator[Stored]:
        given: set[bytes] = set()
        cursor = b"0"
        while True:
            cursor, names = self._ask("SCAN", cursor, "MATCH", self._prefix + b"*", "COUNT", _SCAN)
            new = [name for name in names if name not in given]
            given.update(new)
            values = self._ask("MGET", *new) if new else []
            for raw in values:
                known = found(raw, self._keys, epoch)
                if known is not None and known[0].startswith(prefix):
                    yield known[1]
            if cursor == b"0":
                return

    def stats(self) -> Mapping[str, int]:
        """Entries and their bytes, and numbers of the server and of this process.

        On a server with more than some ten thousand keys `entries` and `bytes` are estimated from as many.
        """
        epochs = {self.beginning: self.mark_of("").epoch.encode("ascii")}
        numbers = self.link.ask(lambda line: server_numbers(line, self.beginning + b"*", epochs))
        return {
            **numbers,
            "purges": (self._seen[1] or Mark("", 0, "")).seq,
            "damaged": self.damaged,
            "memo_entries": len(self._memo),
            "memo_bytes": self._memo.bytes,
            "connections_opened": self.link.opened,
            "circuits_opened": self.link.reading.opened + self.link.writing.opened,
        }

    def advice(self, largest: int) -> Iterable[Advice]:
        """What the server's settings mean for a cache; see `advice`."""
        return redis_advice(self.link)

    def close(self) -> None:
        """Close the connections of this process and forget what is decoded."""
        self.link.close()
        self._memo.clear()


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


# --- opening ---------------------------------------------------------------------------------------


def open_redis(url: str, options: StoreOptions) -> RedisStore:
    """The store for `redis://`, `rediss://` or `unix://`.

    Raises:
        ValueError: a mistake in the URL; the message says what and the remedy.
    """
    address = read_url(url, options)
    store = RedisStore(server_link(address), options.memo_bytes, options.signing_keys, address.journal)
    store.mend = options.mend
    return store
