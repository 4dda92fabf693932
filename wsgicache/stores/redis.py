"""The Redis store: many machines, one round trip a look-up. Valkey works the same.

What is under `wsgicache:<namespace>:`, where the namespace is a hash:

    mark, order, records, nonces    the journal (see `redisscripts`), and
    meta                            texts; these five never expire
    counters                        30 days after the last change
    near                            a day after the last change: who holds copies
    tokens                          a day after the last lease
    lease:<hash of the key>         as long as the lease
    <format>:<hash of the key>      an entry, as long as it may be kept

A value begins with a line of `redisscripts.LINE` bytes: the epoch and the number of the mark that it was born
at, the token that it was stored with, a random number, and how many bytes of text follow that lead from the
entry's own key to the one it is stored under. No two stored values have the same line, so it is all that
`confirm` reads.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import redis

from ..codec import (
    FORMAT,
    HEADER,
    DecodeError,
    decode,
    decode_mark,
    decode_purge,
    encode_mark,
    encode_parts,
    encode_purge,
    wire_name,
)
from ..entry import Entry, Stored
from ..journal import Mark, Purge, Record, Snapshot, new_id
from . import StoreError, StoreOptions
from .advice import Advice
from .memo import Memo, MemoSlot
from .redisadvice import redis_advice
from .redislink import Demoted, Line, Link, Refused, is_closed
from .redislisten import listen
from .redisregister import ATTEND, ATTENDING
from .redisscripts import (
    APPEND,
    CLEAR,
    COUNT,
    DROP,
    LEASE,
    LINE,
    PAGE,
    RELEASE,
    SET_META,
    SINCE,
    STAND,
    STORE,
    Script,
)
from .redisstats import server_numbers
from .redisurl import read_url, server_link

JOURNAL: Final = 65536
"""Targets that a journal remembers."""

_LARGEST: Final = 1 << 29
"""Bytes that a server takes as one value."""

_AT_ONCE: Final = 500
"""Purges in one call: a script holds up all other clients of the server."""

_COUNTERS_MS: Final = 30 * 86400 * 1000
_SCAN: Final = 200
_PASSES: Final = 8

_LINE: Final = re.compile(rb"([0-9a-f]{1,16}) ([0-9]{1,19}|-) ([0-9]{1,16}) [0-9a-f]{16} ([0-9]{1,7}) *\n\Z")
_EPOCH: Final = re.compile(r"[0-9a-f]{1,16}\Z")
_NOBODY: Final = (b"", None)


class RedisStore:
    """Entries in a Redis server that many processes and machines share.

    Args:
        link: the connections.
        memo_bytes: what this process may keep decoded.
        signing_keys: see `StoreOptions`.
        journal_limit: targets whose purges are remembered one by one; what was dropped is a miss.
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
        self.link = link
        self._given = memo_bytes, signing_keys, journal_limit
        self._keys = signing_keys
        self._limit = journal_limit
        self._rooms: dict[str, RedisStore] = {namespace: self}
        self._rooms_lock = threading.Lock()
        self._memo = Memo(memo_bytes) if memo is None else memo
        self.peek = self._memo.peek
        """What this process has decoded of a key: no lock, no call into Python."""
        self.damaged = 0
        """Values that were no entries of ours, or not whole."""
        self.mend = True
        """Whether such values are deleted."""
        self._run: str | None = None
        self._seen: tuple[bytes, Mark | None] = _NOBODY
        self._name_keys(namespace, tag)

    def _name_keys(self, namespace: str, tag: str) -> None:
        tagged = f"{{{tag}}}:" if tag else ""
        prefix = f"wsgicache:{tagged}{wire_name(namespace)[:16]}:".encode("ascii")
        self._mark_key = prefix + b"mark"
        self._journal_keys = (self._mark_key, prefix + b"order", prefix + b"records", prefix + b"nonces")
        self._meta_key, self._counters_key = prefix + b"meta", prefix + b"counters"
        self._tokens_key, self._lease_prefix = prefix + b"tokens", prefix + b"lease:"
        self._touched = (*self._journal_keys[1:], self._meta_key, self._counters_key)
        self._channel = prefix + b"events"
        self._register_key = prefix + b"near"
        self._prefix = prefix + b"%d:" % FORMAT
        blank = b"*" * 32
        request = b"".join(
            _packed(b"GET", self._mark_key)
            + _packed(b"GETRANGE", self._prefix + blank, b"0", b"%d" % (LINE - 1))
        )
        self._before, self._after = request.split(blank)

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
            if _is_wrong_type(error):
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
        match = _LINE.match(line)
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

    def mark_of(self, key: str) -> Mark:
        """The journal's mark; there is one journal."""
        return self._mark_of(self._ask("MGET", self._mark_key)[0])

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
        return self._drop(name, LINE + len(_suffix(key, only)), head[: HEADER.size])

    # --- the journal -------------------------------------------------------------------------------

    def _mark_of(self, raw: bytes | None) -> Mark:
        """The mark that was read. One that is missing, unreadable or behind what was seen begins an epoch."""
        known, seen = self._seen
        if raw == known and seen is not None:
            return seen
        if raw is None:
            return self._stand()
        try:
            mark = decode_mark(raw)
        except DecodeError:
            return self._stand()
        if seen is not None and mark.epoch == seen.epoch and mark.seq <= seen.seq:
            return self._stand()
        self._seen = raw, mark
        return mark

    def _stand(self) -> Mark:
        return self._noted(self.link.ask(self._stood))

    def _stood(self, line: Line) -> bytes:
        seen = self._seen[1] or Mark("", 0, "")
        raw: bytes = self._on_journal(line, STAND, *seen)
        return raw

    def _claim(self, line: Line) -> None:
        """Before anything is read or written: on this server the journal is whole, or a new one."""
        if line.run is not self._run:
            self._noted(self._stood(line))

    def _on_journal(self, line: Line, script: Script, *args: bytes | str | int | float) -> Any:
        answer = line.run_script(
            script, self._journal_keys, line.run, new_id(), new_id(), self._channel, *args
        )  # fmt: skip
        self._run = line.run
        return answer

    def _noted(self, raw: bytes) -> Mark:
        mark = decode_mark(raw)
        self._seen = raw, mark
        return mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force when this returns, and raises where it is not."""
        waiting = list(purges)
        while True:
            batch, waiting = waiting[:_AT_ONCE], waiting[_AT_ONCE:]
            lines = [piece for purge in batch for piece in (encode_purge(purge), new_id())]
            mark = self._insist(APPEND, self._limit, repr(float(at)), *lines)
            if not waiting:
                return mark

    def clear(self) -> Mark:
        """Begin a new epoch. What was stored before is never found again, and goes when its time is over."""
        mark = self._insist(CLEAR)
        self._memo.clear()
        return mark

    def _insist(self, script: Script, *args: bytes | str | int | float) -> Mark:
        """Write to the journal, and once more where the server turns out to be the primary no more."""

        def use(line: Line) -> bytes:
            raw: bytes = self._on_journal(line, script, *args)
            return raw

        try:
            raw = self.link.ask(use, writes=True, insist=True)
        except Demoted:
            raw = self.link.ask(use, writes=True, insist=True)
        return self._noted(raw)

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What a follower of the journal that stands at `mark` is missing; one round trip per thousand."""
        for _ in range(_PASSES):
            snapshot = self._snapshot(mark)
            if snapshot is not None:
                return snapshot
        raise StoreError(f"{self.link.name}: the journal is begun anew again and again")

    def _page(self, follower: Mark, after: str) -> Any:
        """A page of records. Who asks has just read a mark, or is about to purge: so it insists."""
        return self.link.ask(lambda line: self._on_journal(line, SINCE, *follower, after), insist=True)

    def _snapshot(self, mark: Mark | None) -> Snapshot | None:
        """All pages of one epoch; None where another epoch began meanwhile."""
        follower = mark or Mark("", 0, "")
        after = ""
        first: tuple[str, bool] | None = None
        records: dict[Purge, Record] = {}
        while True:
            answer = self._page(follower, after)
            (raw, floor, known), rest = answer[:3], answer[3:]
            now = self._noted(raw)
            first = first or (now.epoch, bool(known))
            if now.epoch != first[0]:
                return None
            try:
                for target, seq, fact in zip(rest[::3], rest[1::3], rest[2::3], strict=True):
                    record = _record(target, seq, fact)
                    purge = Purge(record.kind, record.target, record.soft)
                    records.pop(purge, None)
                    records[purge] = record
            except DecodeError:
                self.clear()
                return None
            if len(rest) < 3 * PAGE:
                return Snapshot(now, int(floor), list(records.values()), whole=not first[1])
            after = rest[-2].decode("ascii")

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
        raw = self._ask("HGET", self._meta_key, _encoded(name), spoilt=self._meta_key)
        return None if raw is None else _decoded(raw)

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text beside the journal, or forget it; those who listen are told."""
        args = [_encoded(name)] if value is None else [_encoded(name), _encoded(value)]
        self._script(SET_META, (self._meta_key,), self._channel, *args, writes=True, insist=True)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters that all processes share."""
        if deltas:
            args = [piece for name, delta in deltas.items() for piece in (_encoded(name), delta)]
            self._script(COUNT, (self._counters_key,), _COUNTERS_MS, *args, writes=True)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        flat = self._ask("HGETALL", self._counters_key, spoilt=self._counters_key) or []
        return {_decoded(name): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}

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
        return int(self._ask("PUBLISH", self._channel, _encoded(payload)))

    def attend(self, who: str, seconds: float) -> None:
        """Stand in the register of those who hold copies, for so long from now; 0 leaves it."""
        milliseconds = 0 if seconds <= 0 else _milliseconds(seconds) + 1  # rather too long than too short
        self._script(ATTEND, (self._register_key,), who, milliseconds, writes=True)

    def attending(self) -> Sequence[str]:
        """Who stands in the register; nobody, where it cannot be known to be complete."""
        return [_decoded(who) for who in self._script(ATTENDING, (self._register_key,))]

    # --- for people --------------------------------------------------------------------------------

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
                found = _found(raw, self._keys, epoch)
                if found is not None and found[0].startswith(prefix):
                    yield found[1]
            if cursor == b"0":
                return

    def stats(self) -> Mapping[str, int]:
        """Entries and their bytes, and numbers of the server and of this process.

        On a server with more than some ten thousand keys `entries` and `bytes` are estimated from as many.
        """
        epoch = self.mark_of("").epoch.encode("ascii")
        numbers = self.link.ask(lambda line: server_numbers(line, self._prefix, epoch))
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

    # --- asking ------------------------------------------------------------------------------------

    def _ask(self, *command: bytes | str | int | float, spoilt: bytes | None = None) -> Any:
        """One command that reads, or deletes. `spoilt` is deleted where it holds what is none of ours."""

        def use(line: Line) -> Any:
            self._claim(line)
            try:
                return line.ask(*command)
            except redis.ResponseError as error:  # the whole answer, so the line is in order
                if spoilt is None or not _is_wrong_type(error):
                    raise
            line.ask("DEL", spoilt)
            return None

        return self.link.ask(use)

    def _script(
        self,
        script: Script,
        keys: Sequence[bytes],
        *args: bytes | str | int | float,
        writes: bool = False,
        insist: bool = False,
    ) -> Any:
        def use(line: Line) -> Any:
            self._claim(line)
            return line.run_script(script, keys, *args)

        return self.link.ask(use, writes=writes, insist=insist)


# --- the stored form -------------------------------------------------------------------------------


def write_value(
    key: str, stored: Stored, epoch: str, seq: str, token: int, signing_keys: tuple[bytes, ...] = ()
) -> tuple[bytes, bytes]:
    """The line of a value, and the value with it."""
    suffix = _suffix(key, stored)
    line = f"{epoch} {seq} {token} {new_id()} {len(suffix)}".ljust(LINE - 1).encode("ascii") + b"\n"
    return line, b"".join((line, suffix, *encode_parts(stored, signing_keys)))


def _suffix(key: str, stored: Stored) -> bytes:
    """What leads from the entry's own key to that of a variant; nothing to another, which is then a miss."""
    return _encoded(key[len(stored.key) :]) if key.startswith(stored.key) else b""


def read_value(raw: bytes, signing_keys: tuple[bytes, ...] = ()) -> tuple[str, Stored]:
    """The key that a value was stored under, and what was stored.

    Raises:
        DecodeError: anything at all is wrong with it.
    """
    match = _LINE.match(raw[:LINE])
    if match is None:
        raise DecodeError("not a line of ours")
    end = LINE + int(match[4])
    stored = decode(raw[end:], signing_keys)
    try:
        key = stored.key + raw[LINE:end].decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise DecodeError("not text") from error
    if isinstance(stored, Entry) and encode_mark(stored.born).split(b" ")[:2] != [match[1], match[2]]:
        raise DecodeError("the line is of another entry")
    return key, stored


def _found(raw: bytes | None, signing_keys: tuple[bytes, ...], epoch: str) -> tuple[str, Stored] | None:
    """What a scan came upon: nothing where it is of another epoch, damaged, or gone."""
    if raw is None or not raw.startswith(epoch.encode("ascii") + b" "):
        return None
    try:
        return read_value(raw, signing_keys)
    except DecodeError:
        return None


def _record(target: bytes, seq: bytes, fact: bytes | None) -> Record:
    try:
        at, nonce = (fact or b"").decode("ascii").split(" ")
        return Record(int(seq), *decode_purge(target), float(at), nonce)
    except ValueError as error:
        raise DecodeError("not a record") from error


def _is_wrong_type(error: BaseException) -> bool:
    return isinstance(error, redis.ResponseError) and str(error).startswith("WRONGTYPE")


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogatepass")


def _packed(*words: bytes) -> list[bytes]:
    """A command as it is sent."""
    return [b"*%d\r\n" % len(words), *[b"$%d\r\n%s\r\n" % (len(word), word) for word in words]]


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
