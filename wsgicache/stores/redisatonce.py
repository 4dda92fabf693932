"""Several buckets of a Cluster asked at once: what goes to one server in one go, and all servers together.

The rules this file obeys:

- All questions are sent before any answer is read, so that they take the time of one round trip, whatever
  the number of buckets. No threads: it is the servers that work at the same time.
- What goes wrong with one bucket says nothing of the others: each has an answer, or an error, of its own.
- Only what goes well is dealt with here. A bucket that has moved, a script that a server has not seen, a
  journal of many pages: these are asked alone, as ever.
- Everybody takes lines in the same order, since who waits for one holds others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

import redis

from ..journal import Mark, Purge, Snapshot
from . import Answers, StoreError, tried
from .memo import Memo
from .redisjournal import AT_ONCE, PURGED, Command, RedisJournal
from .redislink import Line, Link, is_closed
from .redisnodes import Nodes
from .redisscripts import CLEAR, SINCE

T = TypeVar("T")


class Question(NamedTuple, Generic[T]):
    """What one bucket is asked.

    Attributes:
        bucket: whose link it goes over.
        command: what to send to the server with this run id; None: nothing, ask alone.
        heard: what that server's answer says; None: ask alone.
        alone: the same by itself.
    """

    bucket: RedisJournal
    command: Callable[[str], Command] | None
    heard: Callable[[str, Any], T | None]
    alone: Callable[[], T]


class AllBuckets:
    """The buckets of a Cluster's store, several of them at once; see `wsgicache.stores.AtOnce`.

    Args:
        nodes: the Cluster.
        buckets: all of them, by number.
        memo: what this process has decoded of them.
    """

    def __init__(self, nodes: Nodes, buckets: Sequence[RedisJournal], memo: Memo) -> None:
        self._nodes = nodes
        self._buckets = buckets
        self._memo = memo

    def append(self, purges: Mapping[int, Sequence[Purge]], at: float) -> Answers[Mark]:
        """Write purges to journals. Who tells others of what all have taken is asked when they have."""
        asked = {number: self._appending(number, some, at) for number, some in purges.items()}
        tellers = {number for number, some in purges.items() if self._buckets[number].news(some) == PURGED}
        first = self._ask({n: one for n, one in asked.items() if n not in tellers}, writes=True)
        return first | self._ask({n: one for n, one in asked.items() if n in tellers}, writes=True)

    def _appending(self, number: int, purges: Sequence[Purge], at: float) -> Question[Mark]:
        bucket = self._buckets[number]

        def command(run: str) -> Command:
            return bucket.append_question(run, purges, at)

        fits = len(purges) <= AT_ONCE
        return Question(
            bucket, command if fits else None, bucket.heard_mark, lambda: bucket.append(purges, at)
        )

    def clear(self) -> Answers[Mark]:
        """Begin a new epoch of every journal."""
        try:
            return self._ask(dict(enumerate(map(_clearing, self._buckets))), writes=True)
        finally:
            self._memo.clear()

    def marks(self, parts: Iterable[int]) -> Answers[Mark]:
        """Where journals stand."""
        return self._ask({number: _mark_of(self._buckets[number]) for number in parts})

    def purges_since(self, marks: Mapping[int, Mark | None]) -> Answers[Snapshot]:
        """What followers of journals that stand at these marks are missing."""
        asked = {number: _since(self._buckets[number], mark) for number, mark in marks.items()}
        return self._ask(asked, insist=True)

    # --- asking ------------------------------------------------------------------------------------

    def _ask(
        self, asked: Mapping[int, Question[T]], *, writes: bool = False, insist: bool = False
    ) -> Answers[T]:
        """The answers, by number: those that come at once, and then alone what was not answered so."""
        if not asked:
            return {}
        try:
            self._nodes.begin()
        except StoreError as error:
            return dict.fromkeys(asked, error)
        before = {number: question.bucket.link for number, question in asked.items()}
        turn = Turn(asked, before, writes, insist or writes)
        turn.take()
        for number in turn.taught():
            turn.answers[number] = tried(asked[number].alone)
        turn.take()
        if turn.failures and writes:
            self._look()
        answers = turn.answers
        for number, failure in turn.failures.items():
            if asked[number].bucket.link is before[number]:
                answers[number] = failure
        for number in [number for number in asked if number not in answers]:
            answers[number] = tried(asked[number].alone)
        return answers

    def _look(self) -> None:
        """Once more where buckets turn out to have moved to other servers."""
        try:
            self._nodes.look()
        except StoreError:
            pass  # what failed is told


class Turn(Generic[T]):
    """To each server its questions, from each server its answers.

    Args:
        asked: the questions, by number.
        links: over which link each goes.
        writes: what fails says nothing of reading.
        insist: ask whatever the breakers say.

    Attributes:
        answers: what was answered, by number; what is in neither is to be asked alone.
        failures: where no answer came.
    """

    def __init__(
        self, asked: Mapping[int, Question[T]], links: Mapping[int, Link], writes: bool, insist: bool
    ) -> None:
        self.answers: Final[Answers[T]] = {}
        self.failures: Final[dict[int, StoreError]] = {}
        self._asked = asked
        self._writes, self._insist = writes, insist
        self._waiting: dict[Link, list[int]] = {}
        for number, question in asked.items():
            if question.command is not None:
                self._waiting.setdefault(links[number], []).append(number)
        self._open: dict[Link, Line] = {}
        """Lines on which answers are to come."""
        self._heard: dict[int, tuple[str, Any]] = {}
        self._unknown: dict[Link, list[int]] = {}
        """Questions that a server answered with not knowing the script."""

    def take(self) -> None:
        """Ask what is to be asked; where a connection was idle, and turns out to be closed, once more."""
        for again in (True, False):
            waiting, self._waiting = self._waiting, {}
            try:
                for link in sorted(waiting, key=lambda link: link.name):
                    self._send(link, waiting[link], again)
                for link in list(self._open):
                    self._read(link, waiting[link], again)
            finally:
                for link in list(self._open):
                    link.drop(self._open.pop(link))
        while self._heard:
            number, (run, answer) = self._heard.popitem()
            self._understand(number, run, answer)

    def taught(self) -> list[int]:
        """For each server that does not know a script, one question to ask alone, which teaches it; the
        others are to be asked again."""
        unknown, self._unknown = self._unknown, {}
        self._waiting = {link: numbers[1:] for link, numbers in unknown.items() if numbers[1:]}
        return [numbers[0] for numbers in unknown.values()]

    def _understand(self, number: int, run: str, answer: Any) -> None:
        try:
            heard = self._asked[number].heard(run, answer)
        except Exception:
            return  # to be asked alone, which raises it again
        if heard is not None:
            self.answers[number] = heard

    def _send(self, link: Link, numbers: Sequence[int], again: bool) -> None:
        try:
            line = link.take(insist=self._insist)
        except StoreError as error:
            self.failures.update(dict.fromkeys(numbers, error))
            return
        self._open[link] = line
        try:
            commands = [self._asked[number].command for number in numbers]
            line.send_all([command(line.run) for command in commands if command is not None])
        except BaseException as error:
            self._failed(link, numbers, error, again)

    def _read(self, link: Link, numbers: Sequence[int], again: bool) -> None:
        line = self._open[link]
        for position, number in enumerate(numbers):
            try:
                self._heard[number] = line.run, line.read(True)
            except redis.exceptions.NoScriptError:
                self._unknown.setdefault(link, []).append(number)
            except redis.ResponseError:  # the whole answer, so the line is in order
                continue
            except BaseException as error:
                self._failed(link, numbers[position:], error, again)
                return
        link.give(self._open.pop(link))

    def _failed(self, link: Link, numbers: Sequence[int], error: BaseException, again: bool) -> None:
        """No answer comes over a line any more."""
        link.drop(self._open.pop(link))
        if again and is_closed(error):
            link.hang_up()
            self._waiting[link] = list(numbers)
            return
        told = link.explained(error, link.writing if self._writes else link.reading)
        if not isinstance(told, StoreError):
            raise told
        self.failures.update(dict.fromkeys(numbers, told))


def _clearing(bucket: RedisJournal) -> Question[Mark]:
    return Question(bucket, lambda run: bucket.question(run, CLEAR), bucket.heard_mark, bucket.clear)


def _mark_of(bucket: RedisJournal) -> Question[Mark]:
    return Question(bucket, bucket.mark_question, bucket.heard_mark, lambda: bucket.mark_of(""))


def _since(bucket: RedisJournal, mark: Mark | None) -> Question[Snapshot]:
    follower = mark or Mark("", 0, "")

    def command(run: str) -> Command:
        return bucket.question(run, SINCE, *follower, "")

    return Question(bucket, command, bucket.heard_page, lambda: bucket.purges_since(mark))
