"""The purge journal of one namespace in a Redis server, and the asking that all of a store has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import redis

from ..codec import FORMAT, DecodeError, decode_mark, decode_purge, encode_purge, wire_name
from ..dropped import KINDS, Dropped, hash_of
from ..journal import Mark, Purge, Record, Snapshot, new_id, short
from . import StoreError
from .redislink import Demoted, Line, Link
from .redisscripts import APPEND, CLEAR, HEAD, LINE, PAGE, PIECE, SINCE, STAND, TABLE, Script
from .redisvalues import packed

AT_ONCE: Final = 500
"""Purges in one call: a script holds up all other clients of the server."""

_PASSES: Final = 8
_NOBODY: Final = (b"", None)

Command = tuple[bytes | str | int | float, ...]

PURGED: Final = "purge"
"""What a message of a purge begins with."""


def _prefix(namespace: str, tag: str) -> bytes:
    tagged = f"{{{tag}}}:" if tag else ""
    return f"wsgicache:{tagged}{wire_name(namespace)[:16]}:".encode("ascii")


def channel(namespace: str, tag: str) -> bytes:
    """Where messages of a journal are sent."""
    return _prefix(namespace, tag) + b"events"


class Page(NamedTuple):
    """What comes before the records in an answer to SINCE."""

    mark: bytes
    floor: bytes
    known: int
    dropped: bytes
    slots: bytes
    urls: bytes
    prefixes: bytes
    groups: bytes

    def snapshot(self, mark: Mark, records: Sequence[Record], *, whole: bool) -> Snapshot:
        """With these records, and without the table."""
        return Snapshot(mark, int(self.floor), records, whole, int(self.dropped), int(self.slots))

    def last(self) -> dict[str, int]:
        """The number of the last purge of each kind that was dropped."""
        return dict(zip(KINDS, map(int, self[-len(KINDS) :]), strict=True))


class RedisJournal:
    """What is under the names of one namespace, and where its journal stands, as this process knows it.

    Args:
        link: the connections.
        limit: targets whose purges are remembered one by one; for others see `wsgicache.dropped`.
        namespace: whose journal.
        tag: the hash tag that all keys carry, in a Cluster.
    """

    def __init__(self, link: Link, limit: int, namespace: str, tag: str) -> None:
        self.link = link
        self._limit = limit
        self._run: str | None = None
        self._seen: tuple[bytes, Mark | None] = _NOBODY
        self._name_keys(namespace, tag)

    def _name_keys(self, namespace: str, tag: str) -> None:
        prefix = _prefix(namespace, tag)
        self._mark_key = prefix + b"mark"
        self._journal_keys = (
            self._mark_key,
            prefix + b"order",
            prefix + b"records",
            prefix + b"nonces",
            prefix + b"dropped",
        )
        self._meta_key, self._counters_key = prefix + b"meta", prefix + b"counters"
        self._tokens_key, self._lease_prefix = prefix + b"tokens", prefix + b"lease:"
        self._touched = (*self._journal_keys[1:], self._meta_key, self._counters_key)
        self._channel = channel(namespace, tag)
        self._register_key = prefix + b"near"
        self._prefix = prefix + b"%d:" % FORMAT
        blank = b"*" * 32
        request = b"".join(
            packed(b"GET", self._mark_key)
            + packed(b"GETRANGE", self._prefix + blank, b"0", b"%d" % (LINE - 1))
        )
        self._before, self._after = request.split(blank)

    def mark_of(self, key: str) -> Mark:
        """The journal's mark; there is one journal."""
        return self._mark_of(self._ask("MGET", self._mark_key)[0])

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
        answer = line.run_script(script, self._journal_keys, *self._beginning(line.run), *args)
        self._run = line.run
        return answer

    def _beginning(self, run: str) -> tuple[bytes | str, ...]:
        """What each script is told of the server, and of the epoch that may have to begin."""
        return run, new_id(), new_id(), self._channel

    def _noted(self, raw: bytes) -> Mark:
        mark = decode_mark(raw)
        self._seen = raw, mark
        return mark

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journal; in force when this returns, and raises where it is not."""
        waiting = list(purges)
        while True:
            batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            mark = self._insist(APPEND, *self._appended(batch, at))
            if not waiting:
                return mark

    def _appended(self, purges: Sequence[Purge], at: float) -> tuple[bytes | str | int, ...]:
        lines = [piece for purge in purges for piece in (encode_purge(purge), new_id(), _hash_of(purge))]
        return self._limit, repr(float(at)), self.news(purges), *lines

    def news(self, purges: Sequence[Purge]) -> str:
        """The message that tells who listens of purges; "": none."""
        return PURGED

    def clear(self) -> Mark:
        """Begin a new epoch."""
        return self._insist(CLEAR)

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
        first: Page | None = None
        records: dict[Purge, Record] = {}
        while True:
            answer = self._page(follower, after)
            page, rest = Page(*answer[:HEAD]), answer[HEAD:]
            now = self._noted(page.mark)
            first = first or page
            if now.epoch != decode_mark(first.mark).epoch:
                return None
            try:
                for record in _records(rest):
                    purge = Purge(record.kind, record.target, record.soft)
                    records.pop(purge, None)
                    records[purge] = record
            except DecodeError:
                self.clear()
                return None
            if len(rest) < 3 * PAGE:
                snapshot = page.snapshot(now, list(records.values()), whole=not first.known)
                told = not snapshot.whole or not snapshot.dropped
                return snapshot if told else self._with_table(snapshot, page.last())
            after = rest[-2].decode("ascii")

    def _with_table(self, snapshot: Snapshot, last: dict[str, int]) -> Snapshot | None:
        """With the table of what was dropped; None where another epoch began meanwhile.

        It is read after the records, so that what was dropped while they were read is in there.

        Args:
            last: what the last page said of the table.
        """
        pieces: list[bytes] = []
        for start in range(0, 8 * snapshot.slots, PIECE):
            epoch, piece = self._piece(start)
            if epoch.decode("ascii") != snapshot.mark.epoch:
                return None
            pieces.append(piece)
        table = Dropped(snapshot.slots)
        table.load(b"".join(pieces))
        table.last = last
        return snapshot._replace(table=table)

    def _piece(self, start: int) -> Any:
        return self.link.ask(lambda line: self._on_journal(line, TABLE, start, PIECE), insist=True)

    # --- questions that others send for it, beside those of other journals: see `redisatonce` ---------

    def question(self, run: str, script: Script, *args: bytes | str | int | float) -> Command:
        """The command that runs a script on the journal, for the server with this run id."""
        beginning = self._beginning(run)
        return "EVALSHA", script.sha, len(self._journal_keys), *self._journal_keys, *beginning, *args

    def append_question(self, run: str, purges: Sequence[Purge], at: float) -> Command:
        """What `append` asks; of `AT_ONCE` purges at most."""
        return self.question(run, APPEND, *self._appended(purges, at))

    def mark_question(self, run: str) -> Command:
        """What `mark_of` asks."""
        if run is self._run:
            return "MGET", self._mark_key
        return self.question(run, STAND, *(self._seen[1] or Mark("", 0, "")))

    def heard_mark(self, run: str, answer: Any) -> Mark:
        """The mark in the answer to one of these."""
        if isinstance(answer, list):
            return self._mark_of(answer[0])
        self._run = run
        return self._noted(answer)

    def heard_page(self, run: str, answer: Any) -> Snapshot | None:
        """What is in the answer to SINCE; None: not all of it is, or not as it should be."""
        page, rest = Page(*answer[:HEAD]), answer[HEAD:]
        if len(rest) >= 3 * PAGE or not (page.known or page.dropped == b"0"):
            return None
        try:
            records = list(_records(rest))
        except DecodeError:
            return None
        self._run = run
        return page.snapshot(self._noted(page.mark), records, whole=not page.known)

    # --- asking ------------------------------------------------------------------------------------

    def _ask(self, *command: bytes | str | int | float, spoilt: bytes | None = None) -> Any:
        """One command that reads, or deletes. `spoilt` is deleted where it holds what is none of ours."""

        def use(line: Line) -> Any:
            self._claim(line)
            try:
                return line.ask(*command)
            except redis.ResponseError as error:  # the whole answer, so the line is in order
                if spoilt is None or not is_wrong_type(error):
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


def _hash_of(purge: Purge) -> int:
    return hash_of(purge.kind.value, short(purge.target))


def _records(pieces: Sequence[bytes]) -> Iterator[Record]:
    """The records of a page: target, number and the rest of each."""
    for target, seq, fact in zip(pieces[::3], pieces[1::3], pieces[2::3], strict=True):
        yield _record(target, seq, fact)


def _record(target: bytes, seq: bytes, fact: bytes | None) -> Record:
    try:
        at, nonce = (fact or b"").decode("ascii").split(" ")
        return Record(int(seq), *decode_purge(target), float(at), nonce)
    except ValueError as error:
        raise DecodeError("not a record") from error


def is_wrong_type(error: BaseException) -> bool:
    """Whether a key holds what is none of ours."""
    return isinstance(error, redis.ResponseError) and str(error).startswith("WRONGTYPE")
