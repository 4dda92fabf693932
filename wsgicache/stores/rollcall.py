"""The roll call: wait until every process that holds copies has followed the journal to here.

Processes that hold copies announce how long at most they trust them without asking (`announce`), and, where
the store keeps a register (`attend`, `attending`), that they are there. Whoever waits for them sends
`call ID` to all (`publish`), each follows the journal and sends `here ID WHO`, and when all who are
registered have answered, all have followed. Who does not answer has no trust left once the bound has passed,
so the wait lasts no longer than that; without messages or register it lasts as long.

Counting who receives a message would not do: a process whose connection for messages just broke still trusts
its copies.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ..journal import new_id
from . import Store, StoreError

ANNOUNCED: Final = "near"
"""The name of the text beside the journal that holds the longest bound, seconds."""

_PURGE: Final = "purge"
_CALL: Final = "call"
_HERE: Final = "here"
REPEAT: Final = 1.0
"""Seconds after which a call is made again: a connection that should have heard it may be a new one."""

_UNANSWERED: Final = 64
"""Calls that are remembered until they can be answered; who made an older one waits no longer."""


class Roll:
    """Who has answered a call."""

    def __init__(self) -> None:
        self._answered: set[str] = set()
        self._changed = threading.Condition()

    def answer(self, who: str) -> None:
        """Somebody is there."""
        with self._changed:
            self._answered.add(who)
            self._changed.notify_all()

    def wait(self, members: frozenset[str], seconds: float) -> bool:
        """Wait until all of them have answered. Whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: members <= self._answered, seconds)


class Post:
    """Where the messages of a store arrive.

    Attributes:
        arrived: set by whatever says that the journal may have moved.
    """

    def __init__(self) -> None:
        self.arrived: Final = threading.Event()
        self._calls: deque[str] = deque(maxlen=_UNANSWERED)
        self._rolls: dict[str, Roll] = {}
        self._moved: set[int] = set()
        self._unnamed = False

    def poke(self, payload: str = "") -> None:
        """A message came, or the connection for messages was made again ("")."""
        word, _, rest = payload.partition(" ")
        if word == _HERE:
            call, _, who = rest.partition(" ")
            roll = self._rolls.get(call)
            if roll is not None:
                roll.answer(who)
            return
        if word == _CALL and rest not in self._calls:
            self._calls.append(rest)
        if word == _PURGE and rest.isdecimal():
            self._moved.add(int(rest))
        else:
            self._unnamed = True
        self.arrived.set()

    def news(self) -> frozenset[int] | None:
        """The parts that messages named since the last time; None: one of them meant the whole store."""
        unnamed, self._unnamed = self._unnamed, False
        moved: set[int] = set()
        while self._moved:  # never replaced: another thread adds to it meanwhile
            moved.add(self._moved.pop())
        return None if unnamed else frozenset(moved)

    def calls(self) -> list[str]:
        """The calls that came in and are not answered; they are the caller's to answer now."""
        taken = []
        while self._calls:
            taken.append(self._calls.popleft())
        return taken

    def put_back(self, calls: list[str]) -> None:
        """Calls that could not be answered yet."""
        self._calls.extend(calls)

    def open_roll(self, call: str) -> Roll:
        """Collect the answers to a call from now on."""
        roll = self._rolls[call] = Roll()
        return roll

    def close_roll(self, call: str) -> None:
        """Collect them no longer."""
        self._rolls.pop(call, None)


def answer(remote: Any, call: str, who: str) -> None:
    """Say that this process has followed the journal.

    Raises:
        StoreError: nobody heard it.
    """
    remote.publish(f"{_HERE} {call} {who}")


def announced(remote: Store) -> float:
    """The longest time for which a process may trust its copies of a store, seconds; 0: none holds any.

    Raises:
        StoreError: the store does not tell.
    """
    try:
        return max(0.0, float(remote.get_meta(ANNOUNCED) or 0))
    except ValueError:
        return 0.0


def announce(remote: Store, bound: float) -> None:
    """Say that a process trusts its copies for so long.

    Raises:
        StoreError: the store does not take it.
    """
    if announced(remote) < bound:
        remote.set_meta(ANNOUNCED, repr(bound))


def has_roll(remote: Store) -> bool:
    """Whether a store has messages and a register."""
    return all([hasattr(remote, name) for name in ("publish", "listen", "attend", "attending")])


def settle(
    remote: Any,
    timeout: float | None = None,
    *,
    post: Post | None = None,
    who: str = "",
    bound: float = 0.0,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Return when every process that holds copies of a store has followed its journal to here, or cannot
    serve them any more without asking.

    Args:
        remote: the store itself, not its near tier.
        timeout: seconds to wait at most; None: as long as it takes, which is the longest bound announced.
        post: where the messages of the store arrive in this process, if it listens already.
        who: this process's name in the register, if it holds copies itself. It has followed by now.
        bound: seconds for which it trusts them.

    Returns:
        Whether they have. False: the timeout was shorter than the bound, or the store did not tell the bound.
    """
    start = clock()
    try:
        bound = max(bound, announced(remote))
    except StoreError:
        known = False
    else:
        known = True
    if bound == 0.0:
        return known
    wait = bound if timeout is None else min(bound, timeout)

    def left() -> float:
        return max(0.0, start + wait - clock())

    if has_roll(remote):
        try:
            if _all_answer(remote, left, post, who):
                return True
        except StoreError:
            pass  # the bound does not need the store
    threading.Event().wait(left())
    return known and wait == bound


def _all_answer(remote: Any, left: Callable[[], float], post: Post | None, who: str) -> bool:
    if post is not None:
        return _call(remote, left, post, who)
    post, stop = Post(), threading.Event()
    ears = threading.Thread(
        target=remote.listen, args=(post.poke, stop), name="wsgicache settle", daemon=True
    )
    ears.start()
    try:
        return post.arrived.wait(left()) and _call(remote, left, post, who)
    finally:
        stop.set()


def _call(remote: Any, left: Callable[[], float], post: Post, who: str) -> bool:
    call = new_id()
    roll = post.open_roll(call)
    try:
        remote.publish(f"{_CALL} {call}")
        members = frozenset(remote.attending())
        # A register that is empty, or does not name us, may have been lost: who was in it is not known.
        if not members or (who and who not in members):
            return False
        while not roll.wait(members - {who}, min(REPEAT, left())):
            if left() <= 0:
                return False
            try:
                remote.publish(f"{_CALL} {call}")
            except StoreError:
                pass  # who has heard it may still answer
        return True
    finally:
        post.close_roll(call)
