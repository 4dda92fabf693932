"""The store over a Redis Cluster: buckets, each a whole store with its own journal in one slot.

An entry is judged by a mark that is read together with it, so both must live in one slot. One journal for all
would make one server carry every request; so there are several, each under a hash tag of its own, chosen so
that their slots lie evenly over the Cluster. A page, its variants and its record of varying fields share a
bucket, chosen by the path. A purge of a URL is written to that one, any other to all of them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar, cast
from zlib import crc32

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from ..entry import Stored
from ..journal import Kind, Mark, Purge, Snapshot, portions
from . import Answers, StoreError, StoreOptions, shown
from .advice import Advice
from .memo import Memo, MemoSlot
from .redis import RedisStore
from .redisadvice import redis_advice
from .redisatonce import AllBuckets
from .redisjournal import PURGED, channel
from .redislink import Line, Link
from .redisnodes import Nodes
from .redisscripts import Script
from .redisstats import server_numbers
from .redisurl import Address, read_url

T = TypeVar("T")

MOST_BUCKETS: Final = 1024


class Bucket(RedisStore):
    """A part of a Cluster's store: what one hash tag holds.

    All parts tell of purges in one channel, that of the last: a Cluster's servers pass messages on.
    """

    def __init__(
        self,
        nodes: Nodes,
        options: StoreOptions,
        namespace: str,
        tags: Sequence[str],
        number: int,
        memo: Memo,
    ) -> None:
        journal, tag = nodes.address.journal, tags[number]
        super().__init__(
            _Nowhere(nodes, self), options.memo_bytes, options.signing_keys, journal, namespace, tag, memo
        )
        self._channel = channel(namespace, tags[-1])
        self._number, self._is_last = number, number == len(tags) - 1
        self._nodes = nodes
        self.mend = options.mend
        self.slot = key_slot(tag.encode("ascii"))
        nodes.place(self)

    def namespaced(self, namespace: str) -> RedisStore:
        """A bucket is a part of one namespace; ask the store for another."""
        raise NotImplementedError("ask the store that the bucket is a part of")

    def news(self, purges: Sequence[Purge]) -> str:
        """That this part moved, where it may be the only one; else the last one tells, when all did."""
        if all([purge.kind is Kind.URL for purge in purges]):
            return f"{PURGED} {self._number}"
        return PURGED if self._is_last else ""

    def _insist(self, script: Script, *args: bytes | str | int | float) -> Mark:
        """Once more where the bucket turns out to have moved to another server."""
        link = self.link
        try:
            return super()._insist(script, *args)
        except StoreError:
            self._nodes.look()
            if self.link is link:
                raise
        return super()._insist(script, *args)

    def _check(self) -> None:
        """Before this process relies on the server that it listens to: it still owns the bucket."""
        self.mark_of("")


class _Nowhere(Link):
    """The link of a bucket whose server is not known yet: it asks the Cluster first."""

    def __init__(self, nodes: Nodes, bucket: Bucket) -> None:
        address = nodes.address
        super().__init__(address.name, lambda: None, address.timeout)
        self._nodes, self._bucket = nodes, bucket

    def ask(self, use: Callable[[Line], T], *, writes: bool = False, insist: bool = False) -> T:
        """Over the link to the owner of the slot, once that is known."""
        return self._known().ask(use, writes=writes, insist=insist)

    def take(self, *, insist: bool = False) -> Line:
        """See `Link.take`."""
        return self._known().take(insist=insist)

    def listener(self) -> Line:
        """See `Link.listener`."""
        return self._known().listener()

    def _known(self) -> Link:
        self._nodes.look()
        link = self._bucket.link
        if link is self:
            raise StoreError(f"{self.name}: no server owns slot {self._bucket.slot}")
        return link


class ClusterStore:
    """Entries in a Redis Cluster that many processes and machines share.

    Args:
        nodes: the Cluster.
        options: see `StoreOptions`.
        namespace: whose entries and journals.

    Attributes:
        parts: the buckets; each has a journal.
    """

    shared: Final = True

    def __init__(self, nodes: Nodes, options: StoreOptions, namespace: str = "") -> None:
        self._nodes = nodes
        self._options = options
        self._memo = Memo(options.memo_bytes)
        self.peek = self._memo.peek
        """What this process has decoded of a key: no lock, no call into Python."""
        tags = bucket_tags(nodes.address.buckets)
        self.parts: Final = tuple([
            Bucket(nodes, options, namespace, tags, number, self._memo) for number in range(len(tags))
        ])  # fmt: skip
        self._count = len(self.parts)
        self.at_once: Final = AllBuckets(nodes, self.parts, self._memo)
        """Several parts in the time of one; see `wsgicache.stores.AtOnce`."""
        self._rooms: dict[str, ClusterStore] = {namespace: self}
        self._rooms_lock = threading.Lock()

    def namespaced(self, namespace: str) -> ClusterStore:
        """The part that belongs to a namespace, over the same connections."""
        with self._rooms_lock:
            known = self._rooms.get(namespace)
            if known is None:
                known = ClusterStore(self._nodes, self._options, namespace)
                known._rooms, known._rooms_lock = self._rooms, self._rooms_lock
                self._rooms[namespace] = known
            return known

    def part_of(self, key: str) -> int:
        """The bucket of a key: by its path, which a page shares with its variants."""
        return self.part_of_path(key.partition("\0")[0].partition("\1")[0])

    def part_of_path(self, path: str) -> int:
        """The bucket of everything with a path, whatever the query, host, scheme and variant."""
        return crc32(path.encode("utf-8", "surrogatepass")) % self._count

    def _part(self, key: str) -> RedisStore:
        return self.parts[self.part_of(key)]

    def confirm(self, slot: MemoSlot) -> bytes | None:
        """See `Store.confirm`."""
        return self._part(slot.key).confirm(slot)

    def get(self, keys: Sequence[str]) -> tuple[list[Stored | None], Mark]:
        """What is stored under each key, and the mark of the first one's bucket; a round trip per bucket."""
        first = self.part_of(keys[0]) if keys else 0
        by_part: dict[int, list[int]] = {first: []}
        for position, key in enumerate(keys):
            by_part.setdefault(self.part_of(key), []).append(position)
        found: list[Stored | None] = [None] * len(keys)
        marks: dict[int, Mark] = {}
        for part, positions in by_part.items():
            stored, marks[part] = self.parts[part].get([keys[position] for position in positions])
            for position, one in zip(positions, stored, strict=True):
                found[position] = one
        return found, marks[first]

    def mark_of(self, key: str) -> Mark:
        """The mark of the key's bucket."""
        return self._part(key).mark_of(key)

    def set(self, key: str, stored: Stored, keep_until: float, token: int = 0) -> bool:
        """See `Store.set`."""
        return self._part(key).set(key, stored, keep_until, token)

    def delete(self, key: str, only: Stored | None = None) -> bool:
        """See `Store.delete`."""
        return self._part(key).delete(key, only)

    def clear(self) -> Mark:
        """Begin a new epoch in every bucket; the mark of the first."""
        return _first(self.at_once.clear())

    def append(self, purges: Iterable[Purge], at: float) -> Mark:
        """Write purges to the journals of the buckets that they concern; the mark of the first of these.

        Raises:
            StoreError: one of them did not take them.
        """
        taken = portions(purges, self._count, self.part_of_path)
        concerned = {number: portion for number, portion in enumerate(taken) if portion} or {0: []}
        return _first(self.at_once.append(concerned, at))

    def purges_since(self, mark: Mark | None) -> Snapshot:
        """What the first bucket's journal has; those who follow purges follow each of `parts`."""
        return self.parts[0].purges_since(mark)

    def lease(self, key: str, seconds: float) -> int | None:
        """See `Store.lease`."""
        return self._part(key).lease(key, seconds)

    def release(self, key: str, token: int, unstorable_for: float = 0.0) -> None:
        """See `Store.release`."""
        self._part(key).release(key, token, unstorable_for)

    def get_meta(self, name: str) -> str | None:
        """A text that is kept beside the first bucket's journal."""
        return self.parts[0].get_meta(name)

    def set_meta(self, name: str, value: str | None) -> None:
        """Keep a text beside the first bucket's journal, or forget it."""
        self.parts[0].set_meta(name, value)

    def incr_many(self, deltas: Mapping[str, int]) -> None:
        """Add to counters, which are in the first bucket."""
        self.parts[0].incr_many(deltas)

    def counters(self) -> Mapping[str, int]:
        """The counters that were added to."""
        return self.parts[0].counters()

    # --- messages: see `Bucket`; the register is beside the last part -------------------------------

    def listen(self, poke: Callable[[str], None], stop: threading.Event) -> None:
        """Wait for messages; see `RedisStore.listen`. A purge is told of when all concerned have it."""
        self.parts[-1].listen(poke, stop)

    def publish(self, payload: str) -> int:
        """Send a short text to all who listen; how many of them the one server knows."""
        return self.parts[-1].publish(payload)

    def attend(self, who: str, seconds: float) -> None:
        """Stand in the register of those who hold copies; see `RedisStore.attend`."""
        self.parts[-1].attend(who, seconds)

    def attending(self) -> Sequence[str]:
        """Who stands in the register."""
        return self.parts[-1].attending()

    # --- for people ---------------------------------------------------------------------------------

    def scan(self, prefix: str = "") -> Iterator[Stored]:
        """Everything stored under keys that start with `prefix`. Walks over all keys, once per bucket."""
        for part in self.parts:
            yield from part.scan(prefix)

    def stats(self) -> Mapping[str, int]:
        """See `RedisStore.stats`. Each server is asked once for all its buckets.

        `purges` counts what the journals hold together: a purge that goes to all buckets, once for each.
        """
        marks = _all(self.at_once.marks(range(self._count)))
        servers: dict[Link, dict[bytes, bytes]] = {}
        for part, mark in zip(self.parts, marks, strict=True):
            servers.setdefault(part.link, {})[part.beginning] = mark.epoch.encode("ascii")
        total: Counter[str] = Counter()
        for link, epochs in servers.items():
            total.update(link.ask(partial(server_numbers, pattern=self._pattern, epochs=epochs)))
        return {
            **total,
            "purges": sum([mark.seq for mark in marks]),
            "damaged": sum([part.damaged for part in self.parts]),
            "memo_entries": len(self._memo),
            "memo_bytes": self._memo.bytes,
            "connections_opened": sum([link.opened for link in servers]),
            "circuits_opened": sum([link.reading.opened + link.writing.opened for link in servers]),
        }

    @property
    def _pattern(self) -> bytes:
        """What the names of entries look like, whatever the bucket."""
        before, _, after = self.parts[0].beginning.partition(b"{")
        return before + b"{*}" + after.partition(b"}")[2] + b"*"

    def advice(self, largest: int) -> Iterator[Advice]:
        """What the settings of each server mean for a cache; see `advice`."""
        for part in self.parts:
            part.mark_of("")  # so that its server is known
        for link in {part.link.name: part.link for part in self.parts}.values():
            for one in redis_advice(link):
                yield replace(one, subject=f"{one.subject}, {link.name.rpartition('//')[2]}")

    def close(self) -> None:
        """Close the connections of this process and forget what is decoded."""
        self._nodes.close()
        self._memo.clear()


def _first(answers: Answers[T]) -> T:
    """The answer of the first of some buckets, where all of them answered."""
    return _all(answers)[0]


def _all(answers: Answers[T]) -> list[T]:
    """The answers of some buckets, in their order, where all of them answered."""
    errors = [answer for answer in answers.values() if isinstance(answer, Exception)]
    if errors:
        raise StoreError(f"{len(errors)} of {len(answers)} buckets: {errors[0]}") from errors[0]
    return cast(list[T], [answers[number] for number in sorted(answers)])


def bucket_tags(buckets: int) -> list[str]:
    """Hash tags whose slots lie evenly over a Cluster: each in the middle half of its share of the slots."""
    share = REDIS_CLUSTER_HASH_SLOTS / buckets
    tags = []
    for bucket in range(buckets):
        first, last = (bucket + 0.25) * share, (bucket + 0.75) * share
        number = 0
        while not first <= key_slot(f"{bucket}.{number}".encode("ascii")) <= last:
            number += 1
        tags.append(f"{bucket}.{number}")
    return tags


def open_cluster(url: str, options: StoreOptions) -> ClusterStore:
    """The store for `redis+cluster://` or `rediss+cluster://`.

    Raises:
        ValueError: a mistake in the URL; the message says what and the remedy.
    """
    address: Address = read_url(url, options)
    if address.buckets > MOST_BUCKETS:
        raise ValueError(f"{shown(url)!r}: buckets = {address.buckets}: give at most {MOST_BUCKETS}")
    return ClusterStore(Nodes(address), options)
