"""What every store promises, as a suite that its tests subclass.

    class TestMine(StoreContract):
        def make_store(self):
            return MyStore("mine://localhost/test", namespace=uuid4().hex)

pytest finds the rest: each test gets a new, empty store and closes it afterwards.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from ..body import Body, FileBody
from ..entry import Entry, Stored, Terms, Variants
from ..journal import Kind, Mark, Purge, PurgeIndex, Snapshot, Verdict, short
from ..stores import Store
from ..stores.spool import read_body

_ENTRY_FIELDS = ("key", "terms", "headers", "body", "since", "fresh_until", "born", "values")
_VARIANTS_FIELDS = ("key", "fields", "variants", "keep_until")

ODD_KEYS = (
    "/a",
    "/A",
    "/a ",
    " /a",
    "/a\0",
    "/a\0\0example.com\0http",
    "/a\0\0example.com\0https",
    "/a\0\0example.com\0http\1-",
    "/a\0\0example.com\0http\1=",
    "/a\0\0example.com\0http\1=\u00e9",
    "/line\r\nset x 0 0 1\r\n",
    "/%2F%00*?[a-z]{}:$'\"\\;--",
    "/\u00e9",
    "/e\u0301",
    "/\u2028\ufeff\U0001f600",
    "/\ud800 lone surrogate",
    "/" + "long/" * 2000,
    "/" + "long/" * 2000 + "x",
)
"""Keys that differ and must not meet: case, blanks, control characters, other protocols' delimiters,
two spellings of one letter, a surrogate alone, and lengths beyond what a network store allows in a key."""


class StoreContract:
    """The promises of `wsgicache.stores.Store`, one test each.

    Subclass it, name the class `Test…`, and say how a store is made. Nothing else is needed; the class
    uses pytest's `setup_method` and `teardown_method`, without importing pytest.

    Attributes:
        too_large: bytes of a body that a store from `make_store` has no room for; None: there is no bound.
        journal_limit: how many purges a store from `make_store` remembers one by one, where a test can
            reach that number; None where it cannot.
        threads: threads that use the store at once.
        can_scan: whether it can list what it holds; if not, `scan` says so, and nothing else is asked of it.
        can_count: whether `stats` tells how many entries there are and how large they are.
        keeps_purges: whether the journal keeps purges one by one; if not, each begins a new epoch, in which
            everything older is a miss.
    """

    too_large: int | None = None
    journal_limit: int | None = None
    threads = 8
    can_scan = True
    can_count = True
    keeps_purges = True

    store: Store

    def make_store(self) -> Store:
        """A new store that holds nothing."""
        raise NotImplementedError("say how a store is made: def make_store(self): return MyStore(…)")

    def setup_method(self) -> None:
        """Make the store of one test."""
        self.store = self.make_store()

    def teardown_method(self) -> None:
        """Let go of it."""
        self.store.close()

    # --- what a test is made of --------------------------------------------------------------------

    @property
    def mark(self) -> Mark:
        """The mark as a request reads it."""
        return self.store.mark_of("/a")

    def entry(self, key: str = "/a", body: Body = b"body", born: Mark | None = None, **terms: Any) -> Entry:
        """An entry that may be stored now."""
        given = {"status": "200 OK", "fingerprint": "f" * 16, "lifetime": 300, "source": "ttl", **terms}
        headers = (("Content-Type", "text/plain"), ("Content-Length", str(len(body))))
        now = float(int(time.time()))
        return Entry(key, Terms(**given), headers, body, now, now + 300.0, born or self.mark)

    def put(self, stored: Stored, key: str | None = None, token: int = 0) -> bool:
        """Store under its own key, for an hour."""
        return self.store.set(stored.key if key is None else key, stored, time.time() + 3600, token)

    def found(self, key: str) -> Stored | None:
        """What is stored under a key."""
        return self.store.get([key])[0][0]

    def listed(self, store: Store | None = None) -> list[Stored] | None:
        """Everything that is stored; None where the store cannot tell, and says so."""
        store = self.store if store is None else store
        if self.can_scan:
            return list(store.scan())
        try:
            next(iter(store.scan()), None)
        except NotImplementedError:
            return None
        raise AssertionError("can_scan is False, so scan() raises NotImplementedError; it did not")

    def held(self, key: str, *candidates: Stored) -> int | None:
        """Which of the candidates a key holds: its position, or None where nothing is stored."""
        stored = self.found(key)
        if stored is None:
            return None
        for position, candidate in enumerate(candidates):
            if contents(stored) == contents(candidate):
                return position
        raise AssertionError(f"{key!r} holds what nobody stored: {contents(stored)}")

    def while_writing(self, write: Callable[[int], object], look: Callable[[], object]) -> None:
        """Run `write(number)` on half of the threads, and on the others `look` for as long as they do."""
        half = self.threads // 2
        finished: list[int] = []

        def writer(number: int) -> None:
            try:
                write(number)
            finally:
                finished.append(number)

        def looker() -> None:
            while len(finished) < half:
                look()

        self.together(*[lambda n=n: writer(n) for n in range(half)], *[looker] * half)

    def together(self, *jobs: Callable[[], object]) -> None:
        """Run jobs at once, each on a thread, all beginning at a barrier; their errors come out here."""
        barrier = threading.Barrier(len(jobs))
        errors: list[BaseException] = []

        def run(job: Callable[[], object]) -> None:
            try:
                barrier.wait(10)
                job()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]

    # --- get ---------------------------------------------------------------------------------------

    def test_an_empty_store_holds_nothing(self) -> None:
        """No key, no entry, nothing to scan."""
        expect(self.store.get(["/a", "/b"])[0], [None, None], "get from an empty store")
        expect(self.listed() or [], [], "scan of an empty store")

    def test_get_answers_in_the_order_of_the_keys(self) -> None:
        """Also for keys that are missing or asked for twice, and for no key at all."""
        for name in ("/a", "/b", "/c"):
            self.put(self.entry(name, name.encode()))
        found, _ = self.store.get(["/c", "/no", "/a", "/b", "/a"])
        bodies = [stored.body if isinstance(stored, Entry) else stored for stored in found]
        expect(bodies, [b"/c", None, b"/a", b"/b", b"/a"], "get")
        expect(self.store.get([])[0], [], "get of no key")

    def test_many_keys_at_once(self) -> None:
        """A look-up may ask for more than a handful."""
        names = [f"/page/{number}" for number in range(500)]
        for name in names:
            expect(self.put(self.entry(name, name.encode())), True, f"set {name}")
        found, _ = self.store.get(names[::-1])
        bodies = [stored.body for stored in found if isinstance(stored, Entry)]
        expect(bodies, [name.encode() for name in names[::-1]], "get of 500 keys")

    def test_the_mark_moves_only_with_the_journal(self) -> None:
        """Storing and forgetting leave it where it is."""
        mark = self.mark
        self.put(self.entry())
        self.store.delete("/a")
        self.listed()
        expect(self.mark, mark, "mark after set, delete and scan")

    # --- fidelity ----------------------------------------------------------------------------------

    def test_an_entry_comes_back_as_it_was(self) -> None:
        """Reason phrase, fields in order and repeated, instants, groups, flags, varying values."""
        terms = Terms(
            "404 Not Here At All", "0123456789abcdef", 2**31, "s-maxage", 30, 86400, 3600,
            ("a", "gr\u00fcn", "a b,c"), ("accept", "cookie:lang", "x-y"),
            True, False, True, False, True, True,
        )  # fmt: skip
        headers = (
            ("Link", "</a>; rel=preload"),
            ("X-Empty", ""),
            ("link", "</b>; rel=preload"),
            ("Content-Disposition", 'attachment; filename="\u00e9\u00ff.txt"'),
            ("Link", "</a>; rel=preload"),
        )
        values = (None, "", "\u20ac=1")
        entry = Entry("/odd", terms, headers, b"\0\xff", 1.1e9 + 1 / 3, 1.2e9 + 1 / 7, self.mark, values)
        expect(self.put(entry), True, "set")
        expect(self.held("/odd", entry), 0, "what came back")

    def test_bodies_of_every_size_and_byte(self) -> None:
        """Nothing, every byte there is, and as much as is stored by default (1 MiB)."""
        for body in (b"", bytes(range(256)), b"\r\n\0END\r\n", b"\0" * 1000, b"0123456789abcdef" * 65536):
            entry = self.entry("/body", body)
            expect(self.put(entry), True, f"set of {len(body)} bytes")
            expect(self.held("/body", entry), 0, f"a body of {len(body)} bytes")

    def test_a_body_in_a_file_stays_as_long_as_its_entry(self) -> None:
        """Only of a store that has a `spool`."""
        spool = getattr(self.store, "spool", None)
        if spool is None:
            return
        for replaced in (False, True):
            writer = spool.begin()
            writer.write(b"a body")
            body = writer.finish()
            expect(self.put(self.entry(body=body)), True, "set of a body in a file")
            path = body.path
            del body, writer
            found = self.found("/a")
            in_file = found.body if isinstance(found, Entry) else None
            expect(isinstance(in_file, FileBody) and read_body(in_file, 6), b"a body", "what is in the file")
            del found, in_file
            if replaced:
                self.put(self.entry())
            else:
                self.store.delete("/a")
            gc.collect()
            expect(os.path.exists(path), False, "whether the file is there without its entry")

    def test_a_record_of_varying_fields_comes_back_as_it_was(self) -> None:
        """Fields and variants in their order."""
        record = Variants("/v", ("cookie:a", "accept"), ("/v\1-\1=", "/v\1=\ud800\1=x"), 1.7e9 + 0.5)
        expect(self.put(record), True, "set")
        expect(self.held("/v", record), 0, "what came back")

    def test_keys_hold_any_text(self) -> None:
        """No two of them meet, whatever the store makes of them."""
        entries = [self.entry(key, str(number).encode()) for number, key in enumerate(ODD_KEYS)]
        for entry in entries:
            expect(self.put(entry), True, f"set {entry.key!r}")
        for number, key in enumerate(ODD_KEYS):
            expect(self.held(key, *entries), number, f"under {key[:60]!r}")
        expect(self.store.delete(ODD_KEYS[4]), True, "delete")
        left = [self.held(key, *entries) for key in ODD_KEYS]
        expect(left, [n if n != 4 else None for n in range(len(ODD_KEYS))], "after one was deleted")

    # --- set ---------------------------------------------------------------------------------------

    def test_set_replaces(self) -> None:
        """An entry born at the same mark takes the place; so do a record and an entry each other's."""
        first, second = self.entry(body=b"1"), self.entry(body=b"2")
        record = Variants("/a", ("accept",), ("/a\1-",), time.time() + 300)
        for stored in (first, second, record, first):
            expect(self.put(stored, "/a"), True, "set")
            expect(self.held("/a", stored), 0, "what is stored")

    def test_one_key_is_not_another(self) -> None:
        """An entry may be stored under a key that is not its own (a variant's)."""
        entry = self.entry("/a")
        self.put(entry, "/a\1=x")
        expect(self.found("/a"), None, "under the base key")
        expect(self.held("/a\1=x", entry), 0, "under the variant key")

    def test_an_entry_born_earlier_is_refused(self) -> None:
        """The newer one stays, as it was (a late fill never overwrites a newer one)."""
        early = self.entry(body=b"early")
        self.store.append([Purge(Kind.URL, "p/other")], 1.0)
        late = self.entry(body=b"late")
        expect(self.put(late), True, "set of the newer")
        expect(self.put(early), False, "set of the older")
        expect(self.held("/a", early, late), 1, "what is stored")
        expect(self.put(early, "/b"), self.keeps_purges, "set of the older, where nothing is")
        expect(self.put(self.entry("/b", b"late")), True, "the newer over the older")

    def test_an_entry_of_another_epoch_is_refused(self) -> None:
        """Whatever its number: its journal is another one."""
        born = Mark("another epoch", self.mark.seq + 1000, self.mark.nonce)
        expect(self.put(self.entry(born=born)), False, "set of a foreign entry")
        expect(self.found("/a"), None, "what is stored")
        entry = self.entry(body=b"ours")
        self.put(entry)
        expect(self.put(self.entry(born=born)), False, "set of a foreign entry over ours")
        expect(self.held("/a", entry), 0, "what is stored")

    def test_a_fill_that_began_earlier_is_refused(self) -> None:
        """By its token; equal and higher ones pass, and 0 says that the order does not matter."""
        entries = {token: self.entry(body=str(token).encode()) for token in (5, 3, 6, 7, 0)}
        expect(self.put(entries[5], token=5), True, "the first, with 5")
        expect(self.put(entries[3], token=3), False, "3 over 5")
        expect(self.held("/a", entries[5]), 0, "what is stored")
        expect(self.put(entries[6], token=6), True, "6 over 5")
        expect(self.put(entries[7], token=6), True, "6 over 6")
        expect(self.put(entries[0], token=0), True, "0 over 6")
        expect(self.held("/a", entries[0]), 0, "what is stored")

    def test_what_is_larger_than_the_store_is_refused(self) -> None:
        """And pushes out nothing."""
        small = self.entry("/small")
        self.put(small)
        if self.too_large is None:
            expect(self.put(self.entry("/large", b"\0" * (4 << 20))), True, "set in a store without bound")
        else:
            expect(self.put(self.entry("/large", b"\0" * self.too_large)), False, "set of too much")
            expect(self.found("/large"), None, "under its key")
        expect(self.held("/small", small), 0, "what was there")

    def test_what_may_be_kept_is_kept(self) -> None:
        """A store with room forgets nothing before `keep_until`."""
        entries = [self.entry(f"/{number}", b"x" * 100) for number in range(100)]
        for entry in entries:
            self.put(entry)
        expect([self.held(entry.key, entry) for entry in entries], [0] * 100, "a hundred entries")

    # --- delete, clear -----------------------------------------------------------------------------

    def test_delete_forgets_one_key(self) -> None:
        """And says whether something went."""
        other = self.entry("/b")
        self.put(self.entry("/a"))
        self.put(other)
        expect(self.store.delete("/a"), True, "delete of what is there")
        expect(self.found("/a"), None, "afterwards")
        expect(self.store.delete("/a"), False, "delete of what is not")
        expect(self.held("/b", other), 0, "the other key")

    def test_delete_spares_what_took_its_place(self) -> None:
        """`only` is the entry as it was stored, or as it was read."""
        first, second = self.entry(body=b"1"), self.entry(body=b"2")
        self.put(first)
        self.put(second)
        expect(self.store.delete("/a", first), False, "delete of the replaced one")
        expect(self.held("/a", second), 0, "what took its place")
        expect(self.store.delete("/a", second), True, "delete of the one that is there")
        expect(self.store.delete("/a", second), False, "delete of it once more")
        self.put(first)
        expect(self.store.delete("/a", self.found("/a")), True, "delete of what was read")
        expect(self.found("/a"), None, "afterwards")

    def test_clear_forgets_everything(self) -> None:
        """And begins a new epoch: what is still being made is not stored any more."""
        late = self.entry("/late")
        self.put(self.entry("/a"))
        self.store.append([Purge(Kind.ALL, "")], 1.0)
        before = self.mark
        after = self.store.clear()
        expect(self.mark, after, "the mark that clear() returned")
        expect(after.epoch != before.epoch, True, "whether the epoch is another")
        expect(self.found("/a"), None, "under a key")
        expect(self.listed() or [], [], "scan")
        expect(self.put(late), False, "set of an entry from before")
        snapshot = self.store.purges_since(before)
        expect((snapshot.whole, list(snapshot.records)), (True, []), "the history for a follower")
        expect(self.put(self.entry("/new")), True, "set of an entry from after")

    # --- namespaces --------------------------------------------------------------------------------

    def test_a_namespace_has_entries_of_its_own(self) -> None:
        """The same key in two of them is two places; clearing one leaves the other."""
        parts = [self.store, self.store.namespaced("a"), self.store.namespaced("b\0\r\n\ud800 ")]
        for number, part in enumerate(parts):
            born = part.get([])[1]
            stored = part.set("/a", self.entry("/a", str(number).encode(), born), time.time() + 3600)
            expect(stored, True, f"set in part {number}")
        self._expect_bodies(parts, [b"0", b"1", b"2"])
        if self.can_scan:
            listed = [len(self.listed(part) or []) for part in parts]
            expect(listed, [1, 1, 1], "entries that scan gives")
        parts[1].clear()
        self._expect_bodies(parts, [b"0", None, b"2"])
        parts[2].delete("/a")
        self._expect_bodies(parts, [b"0", None, None])

    def _expect_bodies(self, parts: Sequence[Store], bodies: Sequence[bytes | None]) -> None:
        for part, body in zip(parts, bodies, strict=True):
            found = part.get(["/a"])[0][0]
            expect(found.body if isinstance(found, Entry) else found, body, "what a part holds")

    def test_a_namespace_has_a_journal_of_its_own(self) -> None:
        """A purge in one is none in another, and their epochs differ."""
        part = self.store.namespaced("a")
        here, there = self.mark, part.get([])[1]
        expect(here.epoch != there.epoch, True, "whether the epochs differ")
        moved = part.append([Purge(Kind.ALL, "")], 1.0)
        expect((self.mark, part.get([])[1]), (here, moved), "the two marks")
        expect(list(self.store.purges_since(here).records), [], "purges here")
        expect(len(part.purges_since(there).records), int(self.keeps_purges), "purges there")
        expect(part.purges_since(there).whole, not self.keeps_purges, "whether the history there is another")

    def test_a_namespace_is_the_same_whoever_asks(self) -> None:
        """Two callers share it; "" is the store itself."""
        one, two = self.store.namespaced("a"), self.store.namespaced("a")
        one.set("/a", self.entry("/a", b"body", one.get([])[1]), time.time() + 3600)
        expect(two.get(["/a"])[0][0] is not None, True, "whether the other sees the entry")
        expect(two.append([Purge(Kind.ALL, "")], 1.0), one.get([])[1], "the mark that the other sees")
        self.put(self.entry("/b"))
        expect(self.store.namespaced("").get(["/b"])[0][0] is not None, True, 'whether "" is the store')

    # --- the journal -------------------------------------------------------------------------------

    def test_purges_are_numbered_in_order(self) -> None:
        """One by one, across calls; the records are what was asked for."""
        start = self.mark
        purges = [Purge(kind, f"target {kind.value}", soft) for kind in Kind for soft in (False, True)]
        if not self.keeps_purges:
            for purge in purges:
                self._expect_a_new_epoch(self.entry(), self.store.append([purge], 12.5))
            return
        count = len(purges) + 1
        first = self.store.append(purges[:3], 12.5)
        second = self.store.append(purges[3:], 13.5)
        records = self.store.purges_since(start).records
        expect(first.seq, start.seq + 3, "seq after three")
        expect([r.seq for r in records], list(range(start.seq + 1, start.seq + count)), "the numbers")
        expect([Purge(r.kind, r.target, r.soft) for r in records], purges, "the purges")
        expect([r.at for r in records], [12.5] * 3 + [13.5] * (count - 4), "the instants")
        expect(len({r.nonce for r in records}), count - 1, "different nonces")
        expect((first.nonce, second.nonce), (records[2].nonce, records[-1].nonce), "nonces of the marks")
        expect((first.epoch, second.epoch), (start.epoch, start.epoch), "the epoch")

    def _expect_a_new_epoch(self, before: Entry, after: Mark) -> None:
        """Where purges are not kept: everything is a miss, and nothing from before is taken any more."""
        expect(self.mark, after, "the mark that append() returned")
        expect(after.epoch != before.born.epoch, True, "whether the epoch is another")
        expect(self.found(before.key), None, "under a key")
        expect(self.put(before), False, "set of an entry from before")
        snapshot = self.store.purges_since(before.born)
        expect((snapshot.whole, list(snapshot.records)), (True, []), "the history for a follower")
        expect(self.put(self.entry(before.key)), True, "set of an entry from after")

    def test_a_purge_is_in_force_when_append_returns(self) -> None:
        """Whoever reads the mark next, on any thread, reads the one that append returned."""
        for number in range(5):
            mark = self.store.append([Purge(Kind.URL, f"p/{number}")], 1.0)
            read: list[Mark] = []
            self.together(lambda: read.append(self.mark), lambda: read.append(self.mark))  # noqa: B023
            expect(read, [mark, mark], "the mark on other threads")

    def test_no_purge_is_no_move(self) -> None:
        """An empty append changes nothing."""
        mark = self.store.append([Purge(Kind.URL, "p/a")], 1.0)
        expect(self.store.append([], 2.0), mark, "an empty append")
        expect(self.mark, mark, "the mark")

    def test_targets_hold_any_text(self) -> None:
        """Names of groups come from apps. A long one may be kept as what `short` makes of it."""
        start = self.mark
        targets = [f"g{key}" for key in ODD_KEYS]
        if not self.keeps_purges:
            for target in targets:
                self._expect_a_new_epoch(self.entry(), self.store.append([Purge(Kind.GROUP, target)], 1.0))
            return
        self.store.append([Purge(Kind.GROUP, target) for target in targets], 1.0)
        told = [short(record.target) for record in self.store.purges_since(start).records]
        expect(told, [short(target) for target in targets], "the targets")

    def test_a_follower_gets_what_it_is_missing(self) -> None:
        """The tail after its own mark, and nothing when it is up to date."""
        marks = [self.mark]
        for number in range(5):
            marks.append(self.store.append([Purge(Kind.URL, f"p/{number}")], float(number)))
        for missing, mark in enumerate(reversed(marks)):
            snapshot = self.store.purges_since(mark)
            expect(snapshot.mark, marks[-1], "the snapshot's mark")
            expect(snapshot.whole, missing > 0 and not self.keeps_purges, "whole, for a mark of this history")
            if self.keeps_purges:
                expect(
                    [r.target for r in snapshot.records], [f"p/{n}" for n in range(5 - missing, 5)], "tail"
                )
            else:
                expect(list(snapshot.records), [], "tail")

    def test_whoever_has_another_history_gets_all_of_it(self) -> None:
        """A newcomer, a foreign epoch, a number from the future, another nonce: marks are compared whole."""
        marks = [self.store.append([Purge(Kind.URL, f"p/{number}")], 1.0) for number in range(4)]
        strangers = [
            None,
            Mark("another epoch", marks[1].seq, marks[1].nonce),
            marks[-1]._replace(epoch="another epoch"),
            marks[-1]._replace(seq=marks[-1].seq + 1),
            marks[-1]._replace(seq=marks[-1].seq + 10**6),
            marks[-1]._replace(nonce="another nonce"),
            marks[1]._replace(nonce="another nonce"),
            marks[1]._replace(nonce=marks[2].nonce),
        ]
        for stranger in strangers:
            snapshot = self.store.purges_since(stranger)
            expect((snapshot.whole, snapshot.mark), (True, marks[-1]), f"snapshot for {stranger}")
            targets = ["p/0", "p/1", "p/2", "p/3"] if self.keeps_purges else []
            expect([r.target for r in snapshot.records], targets, f"for {stranger}")

    def test_the_last_purge_of_a_target_is_enough(self) -> None:
        """A store may drop the earlier ones: whoever follows from any mark comes to the same verdicts."""
        marks = [self.mark]
        for number in range(6):
            marks.append(self.store.append([Purge(Kind.URL, f"p/{number % 2}", number > 3)], 1.0))
        keys = ["/0\0\0example.com\0http", "/1\0\0example.com\0http"]
        hard, soft, valid = Verdict.HARD, Verdict.SOFT, Verdict.VALID
        wanted = [[hard] * 2, [hard] * 2, [hard] * 2, [soft, hard], [soft] * 2, [valid, soft], [valid] * 2]
        if not self.keeps_purges:
            wanted = [[hard] * 2] * 6 + [[valid] * 2]
        for start in (None, *marks):
            index = _following(self.store.purges_since(start), start)
            if start is None or start == marks[0]:
                found = [[index.verdict(born, key, ()) for key in keys] for born in marks]
                expect(found, wanted, f"verdicts for a follower from {start}")
            expect(index.verdict(marks[-1], keys[0], ()), valid, "the verdict on what is born now")

    def test_what_the_journal_forgot_is_a_miss(self) -> None:
        """Of what was dropped one by one it is still known that it was purged, for all who follow."""
        born, groups = self.mark, ["x", "long" * 80]
        count = 10 if self.journal_limit is None else self.journal_limit + 10
        purges = [Purge(Kind.URL, target) for target in ("p/a", "q/b\0q=1", "p/" + "long" * 80)]
        purges += [Purge(Kind.GROUP, f"g{group}") for group in groups]
        self.store.append([*purges, Purge(Kind.PREFIX, "p/c"), Purge(Kind.META, "rule")], 1.0)
        for number in range(count):
            self.store.append([Purge(Kind.URL, f"p/other/{number}")], 2.0)
        snapshot = self.store.purges_since(None)
        if self.journal_limit is not None:
            expect(len(snapshot.records) <= self.journal_limit, True, "whether the journal is bounded")
            expect(max(snapshot.floor, snapshot.dropped) > born.seq, True, "whether anything was dropped")
        asked = [("/a", ""), ("/a", "z"), ("/b", "q=1"), ("/" + "long" * 80, ""), ("/c/d", "")]
        keys = [f"{path}\0{query}\0example.com\0http{more}" for path, query in asked for more in ("", "\1-")]
        for mark in (None, born):
            index = _following(self.store.purges_since(mark), mark)
            for key in keys:
                expect(index.verdict(born, key, ()), Verdict.HARD, f"{key!r} for a follower from {mark}")
            for group in groups:
                verdict = index.verdict(born, "/z\0\0example.com\0http", (group,))
                expect(verdict, Verdict.HARD, f"group {group} for a follower from {mark}")
            expect(index.verdict(self.mark, keys[0], ()), Verdict.VALID, "the verdict on what is born now")

    def test_what_was_not_purged_goes_on_where_it_is_known_what_was_dropped(self) -> None:
        """Only for a store that keeps a table of it."""
        born = self.mark
        limit = self.journal_limit or 10
        for number in range(limit + limit // 4 + 1):
            self.store.append([Purge(Kind.URL, f"p/other/{number}")], 2.0)
        snapshot = self.store.purges_since(None)
        if snapshot.miss_below > born.seq or snapshot.mark.epoch != born.epoch:
            return
        index = _following(snapshot, None)
        paths = [f"/page/{number}" for number in range(200)]
        found = [index.verdict(born, f"{path}\0\0example.com\0http", ()) for path in paths]
        expect(found.count(Verdict.VALID) > 40, True, "whether enough of them go on")

    # --- leases ------------------------------------------------------------------------------------

    def test_one_holds_a_lease(self) -> None:
        """The others are told so; given back it can be had again, with a higher token."""
        first = self.store.lease("/a", 60)
        expect(type(first), int, "the type of a token")
        assert first is not None  # noqa: S101 - so that mypy knows
        expect(first > 0, True, "whether a token is above zero")
        expect(self.store.lease("/a", 60), None, "a lease that somebody holds")
        expect(bool(self.store.lease("/b", 60)), True, "whether another key has another lease")
        self.store.release("/a", first)
        second = self.store.lease("/a", 60)
        expect(second is not None and second > first, True, "whether the next token is higher")

    def test_a_lease_ends(self) -> None:
        """By itself, because its holder may have died; the late holder changes nothing any more."""
        late = self.store.lease("/a", 0.05)
        token = self._lease_again("/a")
        expect(late is not None and token > late, True, "whether the next token is higher")
        self.store.release("/a", late or 0)
        expect(self.store.lease("/a", 60), None, "the lease after its late holder gave it back")

    def _lease_again(self, key: str) -> int:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            token = self.store.lease(key, 60)
            if token:
                return token
        raise AssertionError(f"the lease of {key!r} did not end")

    def test_an_unstorable_answer_is_noted(self) -> None:
        """Nobody need wait for a page that is not stored anyway; the note goes by itself."""
        token = self.store.lease("/a", 60) or 0
        self.store.release("/a", token, unstorable_for=60)
        expect([self.store.lease("/a", 60) for _ in range(2)], [0, 0], "leases afterwards")
        self.store.release("/a", token)
        token = self.store.lease("/b", 60) or 0
        self.store.release("/b", token, unstorable_for=0.05)
        expect(self._lease_again("/b") > token, True, "whether the note went")

    def test_a_lease_is_one_threads(self) -> None:
        """Of many that ask at once one gets it."""
        for turn in range(10):
            tokens: list[int | None] = []
            ask = lambda key=f"/{turn}", tokens=tokens: tokens.append(self.store.lease(key, 60))  # noqa: E731
            self.together(*[ask] * self.threads)
            expect(len([token for token in tokens if token]), 1, "how many hold the lease")

    def test_a_namespace_has_leases_of_its_own(self) -> None:
        """The same key there is another page."""
        expect(bool(self.store.lease("/a", 60)), True, "whether there is a lease here")
        expect(bool(self.store.namespaced("a").lease("/a", 60)), True, "whether there is one there")

    # --- meta and counters -------------------------------------------------------------------------

    def test_meta_is_kept(self) -> None:
        """Texts under names, each namespace its own; `clear` and purges leave them."""
        expect(self.store.get_meta("rules"), None, "what nobody set")
        text = '{"admin": false, "grün": true}'
        self.store.set_meta("rules", text)
        self.store.set_meta("other", "")
        self.store.append([Purge(Kind.META, "rules")], 1.0)
        self.store.clear()
        expect((self.store.get_meta("rules"), self.store.get_meta("other")), (text, ""), "what was set")
        expect(self.store.namespaced("a").get_meta("rules"), None, "in another namespace")
        self.store.set_meta("rules", None)
        expect(self.store.get_meta("rules"), None, "what was forgotten")

    def test_counters_add_up(self) -> None:
        """Whoever adds, and however many at once."""
        expect(dict(self.store.counters()), {}, "counters of a new store")

        def add() -> None:
            for _ in range(20):
                self.store.incr_many({"hits": 1, "b\u00e9 x": 2})

        self.together(*[add] * self.threads)
        self.store.incr_many({"hits": -1})
        self.store.incr_many({})
        expected = {"hits": 20 * self.threads - 1, "bé x": 40 * self.threads}
        expect(dict(self.store.counters()), expected, "counters")
        expect(dict(self.store.namespaced("a").counters()), {}, "in another namespace")

    # --- scan, stats -------------------------------------------------------------------------------

    def test_scan_finds_by_prefix(self) -> None:
        """Entries and records; all of them for the empty prefix."""
        if self.listed() is None:
            return
        for key in ("/a", "/a/b", "/a\1=x", "/ab", "/A", "/\ud800", "/b*"):
            self.put(self.entry(key))
        self.put(Variants("/av", ("accept",), (), time.time() + 300))
        expected = {
            "": ["/A", "/a", "/a/b", "/a\1=x", "/ab", "/av", "/b*", "/\ud800"],
            "/a": ["/a", "/a/b", "/a\1=x", "/ab", "/av"],
            "/a/": ["/a/b"],
            "/\ud800": ["/\ud800"],
            "/b*": ["/b*"],
            "/b?": [],
            "*": [],
        }
        for prefix, keys in expected.items():
            found = sorted(stored.key for stored in self.store.scan(prefix))
            expect(found, sorted(keys), f"scan({prefix!r})")

    def test_scan_goes_by_the_key_that_was_stored_under(self) -> None:
        """A variant's entry has the base key inside, and is found under the variant's."""
        if self.listed() is None:
            return
        self.put(self.entry("/a"), "/a\1=x")
        expect(len(list(self.store.scan("/a\1="))), 1, "scan by the variant key")

    def test_a_scan_under_way_survives_changes(self) -> None:
        """What was there when it began may be given or not; it never fails."""
        if self.listed() is None:
            return
        for number in range(50):
            self.put(self.entry(f"/{number}"))
        scan = self.store.scan("/")
        first = next(scan)
        for number in range(50):
            self.store.delete(f"/{number}")
            self.put(self.entry(f"/new/{number}"))
        for stored in (first, *scan):
            expect(isinstance(stored, Entry) and stored.body, b"body", "what scan gave")

    def test_stats_tell_entries_and_bytes(self) -> None:
        """Whole numbers that grow and shrink with what is stored."""
        if not self.can_count:
            counted = {"entries", "bytes"} & set(self.store.stats())
            expect(counted, set(), "what a store tells that cannot count")
            return
        empty = self.store.stats()
        self.put(self.entry("/a", b"x" * 5000))
        full = self.store.stats()
        self.store.delete("/a")
        gone = self.store.stats()
        for stats in (empty, full, gone):
            expect([type(stats["entries"]), type(stats["bytes"])], [int, int], "types in stats()")
        counts = (empty["entries"], full["entries"], gone["entries"])
        expect(counts, (0, 1, 0), "entries")
        expect(full["bytes"] - empty["bytes"] >= 5000, True, "whether bytes count the body")
        expect(gone["bytes"], empty["bytes"], "bytes after a delete")

    # --- threads -----------------------------------------------------------------------------------

    def test_readers_see_whole_entries(self) -> None:
        """While others store and delete them: each answer is one that somebody stored, in one piece."""
        keys = ("/0", "/1", "/2")

        def write(number: int) -> None:
            for turn in range(60):
                key = keys[turn % 3]
                self.put(self.entry(key, f"{key} {number}".encode() * 50))
                if turn % 7 == 0:
                    self.store.delete(key)

        def read() -> None:
            for key, stored in zip(keys, self.store.get(keys)[0], strict=True):
                if isinstance(stored, Entry) and isinstance(stored.body, bytes):
                    unit = stored.body[: len(stored.body) // 50]
                    expect((stored.key, unit[:2]), (key, key.encode()), "whose entry it is")
                    expect(stored.body, unit * 50, "the body")

        self.while_writing(write, read)

    def test_the_newest_fill_wins_whatever_the_order(self) -> None:
        """Of those born at different marks the last born; of those born at one the highest token."""
        for turn in range(10):
            born = [self.store.append([Purge(Kind.URL, "p/other")], 1.0) for _ in range(self.threads)]
            entries = [self.entry(f"/{turn}", str(n).encode(), mark) for n, mark in enumerate(born)]
            self.together(*[lambda entry=entry: self.put(entry) for entry in entries])
            expect(self.held(f"/{turn}", *entries), self.threads - 1, "the last born")
            same = [self.entry(f"/t{turn}", str(n).encode(), born[-1]) for n in range(self.threads)]
            self.together(*[lambda n=n: self.put(same[n], token=n + 1) for n in range(self.threads)])  # noqa: B023
            expect(self.held(f"/t{turn}", *same), self.threads - 1, "the highest token")

    def test_no_purge_is_lost(self) -> None:
        """Threads that append at once get numbers of their own, and each of their purges is there."""
        start = self.mark
        marks: list[Mark] = []

        def append(number: int) -> None:
            for turn in range(20):
                marks.append(self.store.append([Purge(Kind.GROUP, f"g{number}/{turn}")], 1.0))

        self.together(*[lambda n=n: append(n) for n in range(self.threads)])
        records = self.store.purges_since(start).records
        total = self.threads * 20
        if not self.keeps_purges:
            expect(len({mark.epoch for mark in marks} - {start.epoch}), total, "epochs")
            expect(self.mark in marks, True, "whether the last mark is one of them")
            return
        wanted = {f"g{number}/{turn}" for number in range(self.threads) for turn in range(20)}
        if self.journal_limit is None or self.journal_limit >= total:
            expect([r.seq - start.seq for r in records], list(range(1, total + 1)), "the numbers")
            expect({r.target for r in records}, wanted, "the targets")
        expect(sorted(mark.seq - start.seq for mark in marks), list(range(1, total + 1)), "the marks")
        expect(self.mark.seq, start.seq + total, "the last mark")

    def test_clear_beats_what_is_being_stored(self) -> None:
        """After it has returned nothing of the old epoch is there, however many were storing."""
        for _ in range(10):
            entries = [self.entry(f"/{number}") for number in range(self.threads)]
            self.together(*[lambda e=e: self.put(e) for e in entries], self.store.clear)
            epoch = self.mark.epoch
            for entry in entries:
                stored = self.found(entry.key)
                if isinstance(stored, Entry):
                    expect(stored.born.epoch, epoch, "the epoch of what is left")

    def test_scan_and_stats_while_others_store(self) -> None:
        """They never fail, and see whole entries."""

        def write(number: int) -> None:
            for turn in range(60):
                self.put(self.entry(f"/{number}/{turn % 10}"))
                self.store.delete(f"/{number}/{(turn + 5) % 10}")

        def look() -> None:
            for stored in self.listed() or []:
                expect(isinstance(stored, Entry) and stored.body, b"body", "what scan gave")
            self.found("/0/0")
            stats = self.store.stats()
            expect(not self.can_count or stats["entries"] >= 0, True, "whether the count is one")

        self.while_writing(write, look)


def contents(stored: Stored) -> tuple[Any, ...]:
    """Everything that a stored thing holds, to compare it with another."""
    names: Sequence[str] = _ENTRY_FIELDS if isinstance(stored, Entry) else _VARIANTS_FIELDS
    return (type(stored).__name__, *[getattr(stored, name) for name in names])


def expect(actual: object, wanted: object, what: str) -> None:
    """Compare, and tell the difference also where pytest does not rewrite assertions.

    Raises:
        AssertionError: they differ.
    """
    if actual != wanted:
        raise AssertionError(f"{what}: expected {wanted!r}, got {actual!r}")


def _following(snapshot: Snapshot, mark: Mark | None) -> PurgeIndex:
    """An index that has followed to a snapshot, as a worker that stood at `mark` would."""
    index = PurgeIndex()
    if mark is not None:
        index.follow(Snapshot(mark, 0, [], whole=True))
    index.follow(snapshot)
    return index
